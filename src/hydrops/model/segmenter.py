"""Segment the compartments of an ear and find its landmarks: a trained network and the signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hydrops.arrays import FloatGrid
from hydrops.errors import ExcludedError, HydropsError
from hydrops.labels import LABELS
from hydrops.model.architectures import build_network, fast_layout, find_architecture
from hydrops.model.blur import SHARP, image_blur, voxel_as_seen
from hydrops.model.bundle import Bundle, read_bundle, understood, verify_weights
from hydrops.model.contrast import USUAL_PAIR, InversionPair, UsualContrast
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM, WINDOW_SHAPE
from hydrops.model.inhearit import fractions_of_side
from hydrops.model.network import NetworkOptions, landmark_positions, load_weights
from hydrops.model.novelty import Novelty, ear_features
from hydrops.model.pieces import keep_labyrinth, keep_organs, without_rims
from hydrops.model.precision import choose_device, computes_in_half
from hydrops.model.preprocess import LEAST_ENHANCEMENT, prepare
from hydrops.model.pure import PureVoxels, evened_canals
from hydrops.model.unfold import Unfolded
from hydrops.model.unmix import (
    Calibration,
    FluidSignal,
    Way,
    calibration_of,
    endolymph_by_signal,
    fluid_by_signal,
    read_signal,
)
from hydrops.sampling import as_if_moved

#: A box of voxels along x, y, z.
Part = tuple[slice, ...]

#: The whole of a crop, and its middle.
WHOLE: Part = tuple(slice(0, n) for n in CROP_SHAPE)
MIDDLE: Part = tuple(slice((n - w) // 2, (n + w) // 2) for n, w in zip(CROP_SHAPE, WINDOW_SHAPE))
#: Largest difference of an ear's EH ratio by its signal alone from that by the network; in the ears
#: of a calibration it is 0.16 at most with PPI and PEI, 0.54 with HYDROPS alone.
MOST_CONTRADICTION = 0.5
#: Share of what a second look changes in the ratio (`_shown_again`) by which that may be off. An
#: assumption: the truth lies between both looks, nearer to the second.
DOUBT_OF_CHANGE = 0.5


@dataclass(frozen=True)
class Segmenter:
    """A loaded network, ready for one ear after another.

    `calibrations` tell by a way of reading the signal, for some sizes of voxel, how much of the
    fluid is endolymph; without any, the network's word stands.
    `novelty` says what the model knows; without it nothing is refused for being unlike it. `half`
    is whether its convolutions are computed in bfloat16 (`hydrops.model.precision`); `fold` is that
    of `hydrops.model.network.NetworkOptions`.
    `sided` as in `hydrops.model.architectures.Architecture`.
    """

    bundle: Bundle
    network: torch.nn.Module
    device: torch.device
    calibrations: Mapping[Way, Sequence[Calibration]]
    novelty: Novelty | None
    half: bool
    fold: tuple[int, ...] = (1, 1, 1)
    sided: bool = False


@dataclass(frozen=True)
class EarSegmentation:
    """What a network found in one ear.

    Parameters
    ----------
    fractions
        (7, x, y, z) volume fraction of each of `hydrops.labels.LABELS`, sum one.
    landmarks
        (3, 3) voxel coordinates in the order of `hydrops.labels.LANDMARKS`; (0, 3) where the model
        has none.
    confidences
        (3,) or (0,): share of each heatmap at its peak, 0 to 1.
    uncertainty
        Mean entropy of the classes in the fluid as a share of its maximum; 0 is sure, 1 is not.
    signal
        What images and network say of the labyrinth's fluid; None without HYDROPS-Mi2, and of a
        model that does not tell endolymph.
    way
        By which it was read, None where there is none.
    nulled
        See `hydrops.model.unfold.Unfolded.nulled`; None where it was not read that way.
    blur
        See `hydrops.model.blur.image_blur`; None where endolymph was not read.
    half_width
        Of the interval of the labyrinth's EH volume ratio, see `hydrops.model.unmix.half_width`;
        None where the model gives none.
    novelty
        Distance from what the model was trained on, see `hydrops.model.novelty`; None where the
        model does not know what that is.
    """

    fractions: FloatGrid
    landmarks: FloatGrid
    confidences: FloatGrid
    uncertainty: float
    signal: FluidSignal | None
    way: Way | None
    nulled: bool | None
    blur: float | None
    half_width: float | None
    novelty: float | None


@dataclass(frozen=True)
class NetworkFinding:
    """What a network makes of a right ear's channels, before its signal is looked at.

    Parameters
    ----------
    fractions
        (7, x, y, z) volume fractions, one labyrinth.
    landmarks, confidences
        (n, 3) voxel coordinates and (n,) shares of the heatmaps; n is 3 or 0.
    features
        What `hydrops.model.novelty.Novelty` looks at.
    """

    fractions: FloatGrid
    landmarks: FloatGrid
    confidences: FloatGrid
    features: npt.NDArray[np.float64]


def load_segmenter(folder: Path, device: str, threads: int | None = None) -> Segmenter:
    """Load a bundle's network; only weights are read from its file, never code.

    Raises
    ------
    HydropsError
        If the weights are missing, changed, or do not fit the network, or the model was trained on
        other crops; see `choose_device`.
    """
    where = choose_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    bundle = read_bundle(folder)
    weights = verify_weights(bundle)
    with understood(bundle):
        _check_crop(bundle)
        options = NetworkOptions.from_dict(bundle.metadata["network"])
        known = bundle.metadata.get("novelty")
        novelty = None if known is None else Novelty(**known)
        untrained = build_network(options)
    network = load_weights(untrained, weights)
    fast_layout(network.to(where))
    return Segmenter(
        bundle,
        network,
        where,
        Calibration.all_of(bundle.metadata),
        novelty,
        computes_in_half(where),
        options.fold,
        find_architecture(options).sided,
    )


def _check_crop(bundle: Bundle) -> None:
    """Refuse a model that was trained on crops of another kind than the ones that are cut now."""
    shape = tuple(bundle.metadata["network_data_format"]["inputs"]["image"]["spatial_shape"])
    spacing = tuple(bundle.metadata["spacing_mm"])
    if (shape, spacing) != (CROP_SHAPE, CROP_SPACING_MM):
        raise HydropsError(
            f"{bundle.identifier} was made for crops of {shape} voxels of {spacing} mm, but crops "
            f"are {CROP_SHAPE} voxels of {CROP_SPACING_MM} mm; train it again"
        )


def run_network(
    segmenter: Segmenter, channels: torch.Tensor, side: str = "right"
) -> NetworkFinding:
    """Segment an ear's channels (3, x, y, z), see `hydrops.model.preprocess.prepare`.

    The ear is a right one, mirrored if need be, unless the network has classes for either side.
    It is looked for in the middle of the crop, as the network was trained, and in all of it where
    it is not found there or reaches beyond.

    Raises
    ------
    ExcludedError
        If there is nothing in them that the network takes for an ear.
    """
    if not segmenter.sided:
        with suppress(ExcludedError):
            found = _find_in(MIDDLE, segmenter, channels, side)
            if not _reaches_edge(found.fractions[:, *MIDDLE]):
                return found
    return _find_in(WHOLE, segmenter, channels, side)


@torch.inference_mode()
def _find_in(part: Part, segmenter: Segmenter, channels: torch.Tensor, side: str) -> NetworkFinding:
    """What a network finds in a part of a crop; there is background around it."""
    found, heat = mean_of_cuts(segmenter, channels[None, :, *part])
    inside = found[0].cpu().numpy()
    probabilities = np.zeros((len(inside), *channels.shape[1:]), np.float32)
    probabilities[0] = 1.0
    probabilities[:, *part] = inside
    if heat is None:
        positions, confidences = torch.zeros((0, 3)), torch.zeros(0)
    else:
        positions, confidences = landmark_positions(heat[0].cpu())
        positions += torch.tensor([along.start for along in part])
    if segmenter.sided:
        fractions = keep_organs(fractions_of_side(probabilities, side))
    else:
        fractions = keep_labyrinth(probabilities)
    shares = confidences.numpy()
    features = ear_features(channels[0].numpy(), fractions, shares, _doubt(fractions))
    return NetworkFinding(fractions, positions.numpy(), shares, features)


def _reaches_edge(fractions: FloatGrid) -> bool:
    """Whether fluid (classes, x, y, z) lies at the edge, so that more of it may lie beyond."""
    fluid = fractions[0] < 0.5
    inner = fluid[1:-1, 1:-1, 1:-1]
    return bool(fluid.sum() > inner.sum())


def mean_of_cuts(
    segmenter: Segmenter, seen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Classes' probabilities and landmarks' heatmaps, on the device, of channels (n, 3, x, y, z).

    A network that folds voxels into blocks gives the mean of blocks that are cut in different
    places: half-way between those of one cut lie those of the other.
    """
    cuts = [tuple(n % fold for fold in segmenter.fold) for n in range(max(segmenter.fold))]
    batch = torch.cat([seen.roll(cut, (2, 3, 4)) for cut in cuts])
    batch = batch.to(segmenter.device, memory_format=torch.channels_last_3d)
    with torch.autocast(segmenter.device.type, torch.bfloat16, enabled=segmenter.half):
        logits, heat = segmenter.network(batch)

    def mean(found: torch.Tensor) -> torch.Tensor:
        parts = zip(found.chunk(len(cuts)), cuts)
        rolled = [p.roll([-by for by in cut], (2, 3, 4)) if any(cut) else p for p, cut in parts]
        return sum(rolled[1:], rolled[0]) / len(rolled)

    probabilities = mean(torch.softmax(logits.float(), dim=1))
    return probabilities, None if heat is None else mean(heat.float())


def segment_ear(
    segmenter: Segmenter,
    mrc: FloatGrid,
    mi2: FloatGrid | None,
    side: str,
    pair: InversionPair = USUAL_PAIR,
    summed: FloatGrid | None = None,
    voxel_mm: Sequence[float] = CROP_SPACING_MM,
    kept: float = 1.0,
) -> EarSegmentation:
    """Segment one ear on the crop grid (axes near R, A, S; `hydrops.model.geometry`).

    Unless it has classes for either side, the network knows right ears; a left one is mirrored on
    its way in and back on its way out.
    Where organs and endolymph lie is the network's finding; how full each voxel is, and how much
    endolymph there is, that of the signal (`hydrops.model.unmix`). Without HYDROPS-Mi2 nothing sets
    endolymph apart: its fractions are zero and all fluid counts as perilymph.

    Parameters
    ----------
    pair
        Timing of the images that HYDROPS-Mi2 was made of.
    summed
        The sum of PPI and PEI times the MRC, where HYDROPS-Mi2 was made of both.
    voxel_mm
        Voxel of the coarsest of the images along the axes of the crop; more blurred ones count as
        larger (`hydrops.model.blur`).
    kept
        See `hydrops.sampling.share_kept`.

    Raises
    ------
    ExcludedError
        If there is nothing in the crop that the network takes for an ear, the ear is too unlike
        those of the training, or HYDROPS-Mi2 shows no perilymph that gadolinium has reached,
        too much noise, voxels that are too large or blurred, too few full ones, or what the
        network contradicts.
    """
    flip = side == "left" and not segmenter.sided
    turned = partial(_turned, flip=flip)
    second = None if mi2 is None else torch.from_numpy(turned(mi2))
    channels = prepare(torch.from_numpy(turned(mrc)), second)
    if mi2 is not None and float(channels[2].max()) < 1.001 * LEAST_ENHANCEMENT:
        raise ExcludedError(
            "hardly any gadolinium has reached the perilymph, so endolymph cannot be told from it"
        )
    contrast = None if mi2 is None else UsualContrast.of(channels, pair)
    if contrast is not None:
        channels = contrast.stretched(channels)
    found = run_network(segmenter, channels, side)
    novelty = None if segmenter.novelty is None else _check_known(segmenter.novelty, found.features)
    fractions = _filled(segmenter, channels[0].numpy(), found.fractions)
    if mi2 is None or contrast is None:
        fractions[1::2] += fractions[2::2]
        fractions[2::2] = 0.0
        read = _Reading(found.fractions, fractions)
    elif not segmenter.bundle.endolymph:
        read = _Reading(found.fractions, fractions)
    else:
        blur = image_blur(channels[0].numpy(), found.fractions, voxel_mm)
        ear = _Ear(
            channels.numpy(), contrast, turned(mi2),
            None if summed is None else turned(summed), voxel_as_seen(voxel_mm, blur), blur, kept,
        )  # fmt: skip
        read = _read_endolymph(segmenter, ear, found.fractions, fractions, side)
    fractions, landmarks = read.fractions, found.landmarks
    if flip:
        fractions = np.ascontiguousarray(fractions[:, ::-1])
        landmarks[:, 0] = mrc.shape[0] - 1 - landmarks[:, 0]
    return EarSegmentation(
        fractions,
        landmarks,
        found.confidences,
        _entropy_in_fluid(read.network),
        read.signal,
        read.way,
        read.nulled,
        read.blur,
        read.half_width,
        novelty,
    )


def _filled(segmenter: Segmenter, mrc: FloatGrid, network: FloatGrid) -> FloatGrid:
    """Fractions of what a network found, each voxel as full as its brightness says.

    Beside what a network knows of one side's organs alone lies other fluid, just as bright, so
    there its own word stands.
    """
    return network if segmenter.sided else without_rims(mrc, fluid_by_signal(mrc, network))


@dataclass(frozen=True)
class _Shown:
    """What the images of an ear show of its endolymph, by one way to read them.

    Parameters
    ----------
    network, fractions
        (7, x, y, z) fractions that a network found, as they are and with filled voxels.
    channels
        Those whose second falls evenly with the share of endolymph.
    unfolded
        None of HYDROPS alone.
    """

    way: Way
    network: FloatGrid
    fractions: FloatGrid
    channels: FloatGrid
    signal: FluidSignal
    unfolded: Unfolded | None = None

    @property
    def nulled(self) -> bool | None:
        """As of `EarSegmentation`."""
        return None if self.unfolded is None else self.unfolded.nulled


@dataclass(frozen=True)
class _Ear:
    """Images of an ear as `segment_ear` has them, a right one's; voxels as large as they look."""

    channels: FloatGrid
    contrast: UsualContrast
    mi2: FloatGrid
    summed: FloatGrid | None
    voxel_mm: Sequence[float]
    blur: float
    kept: float

    def shown(self, network: FloatGrid, fractions: FloatGrid) -> _Shown:
        """By PPI and PEI where both are to be had, else by HYDROPS alone."""
        pure = PureVoxels.of(self.channels[0], network, self.voxel_mm)
        if self.summed is None:
            seen = pure.evened(self.contrast.straightened(self.channels, fractions))
            return _Shown("HYDROPS", network, fractions, seen, read_signal(seen, fractions))
        unfolded = Unfolded.of(self.mi2, self.summed, self.channels[0], pure)
        even = as_if_moved(pure.evened(unfolded.channels(self.channels)), self.kept)
        seen, moved = evened_canals(even, fractions)
        signal = read_signal(seen, fractions, moved)
        doubt = pure.doubt(0.5 - 0.5 * signal.level)
        signal = replace(signal, moved=moved + doubt)
        return _Shown("unfolded", network, fractions, seen, signal, unfolded)


@dataclass(frozen=True)
class _Reading:
    """What is told of an ear's fluid; the rest as of `EarSegmentation`.

    Parameters
    ----------
    network
        (7, x, y, z) fractions that the network found.
    """

    network: FloatGrid
    fractions: FloatGrid
    signal: FluidSignal | None = None
    way: Way | None = None
    nulled: bool | None = None
    blur: float | None = None
    half_width: float | None = None


def _read_endolymph(
    segmenter: Segmenter, ear: _Ear, network: FloatGrid, fractions: FloatGrid, side: str
) -> _Reading:
    """What network and signal tell of an ear's endolymph together."""
    shown = ear.shown(network, fractions)
    if shown.nulled is False:
        shown = _shown_again(segmenter, ear, shown, side)
    read = _Reading(shown.network, shown.fractions, shown.signal, shown.way, shown.nulled, ear.blur)
    if shown.way not in segmenter.calibrations:
        return read
    try:
        known = calibration_of(segmenter.calibrations[shown.way], ear.voxel_mm)
    except ExcludedError as exclusion:
        if ear.blur <= SHARP:
            raise
        raise ExcludedError(
            f"the MRC is blurred as larger voxels would blur it, and {exclusion.reason}"
        ) from exclusion
    _check_readable(known, shown.signal)
    return replace(
        read,
        fractions=endolymph_by_signal(shown.channels, shown.fractions, known.levels, shown.signal),
        half_width=known.half_width + known.levels.correction(shown.signal),
    )


def _shown_again(segmenter: Segmenter, ear: _Ear, first: _Shown, side: str) -> _Shown:
    """What a network finds where endolymph, not nulled by the PPI, is as dark as if it were.

    In the images as they are it took endolymph for a mixture with perilymph.
    """
    assert first.unfolded is not None
    channels = first.unfolded.as_if_nulled(ear.channels)
    network = run_network(segmenter, torch.from_numpy(channels), side).fractions
    shown = ear.shown(network, _filled(segmenter, ear.channels[0], network))
    changed = abs(shown.signal.level - first.signal.level) / 2
    signal = replace(shown.signal, moved=shown.signal.moved + DOUBT_OF_CHANGE * changed)
    return replace(shown, signal=signal, unfolded=first.unfolded)


def _check_readable(known: Calibration, signal: FluidSignal) -> None:
    """Refuse an ear too noisy, or of which signal and network tell too different things."""
    if signal.noise > known.most_noise:
        raise ExcludedError(
            f"HYDROPS is too noisy in the labyrinth (noise {signal.noise:.3f} of the distance "
            f"between its fluids' levels, at most {known.most_noise:.3f})"
        )
    contradiction = known.levels.contradiction(signal)
    if contradiction > MOST_CONTRADICTION:
        raise ExcludedError(
            "the brightness of HYDROPS and the network contradict each other: by them the share of "
            f"endolymph differs by {contradiction:.3f}, at most {MOST_CONTRADICTION:.3f} is taken. "
            "Were PPI and PEI swapped, or taken at other inversion times than is told?"
        )


def _check_known(novelty: Novelty, features: npt.NDArray[np.float64]) -> float:
    """Distance of an ear from what a model knows; one too far away is refused."""
    distance = novelty.distance(features)
    if distance > novelty.limit:
        raise ExcludedError(
            f"the image is unlike those the model was trained on (score {distance:.1f}, at most "
            f"{novelty.limit:.1f}), above all in {novelty.strangest(features)}: another kind of "
            "image, motion, or no normal ear"
        )
    return distance


def _doubt(fractions: FloatGrid) -> float:
    """Mean entropy of the organs in the fluid as a share of its maximum, whatever holds them."""
    organs = np.stack([fractions[0], *(fractions[i] + fractions[i + 1] for i in (1, 3, 5))])
    inside = organs[:, fractions[0] < 0.5].clip(1e-6, 1.0)
    return float(-(inside * np.log(inside)).sum(0).mean() / np.log(len(organs)))


def _turned(image: FloatGrid, flip: bool) -> FloatGrid:
    return np.ascontiguousarray(image[::-1] if flip else image)


def _entropy_in_fluid(fractions: FloatGrid) -> float:
    fluid = fractions[0] < 0.5
    inside = fractions[:, fluid].clip(1e-6, 1.0)
    return float(-(inside * np.log(inside)).sum(0).mean() / np.log(len(LABELS)))
