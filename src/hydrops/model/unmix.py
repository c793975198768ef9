"""How much of a voxel is fluid, and how much of that is endolymph, from the signal itself.

A network says where the labyrinth and its compartments lie; how full a voxel at their borders is,
its brightness says better. Bone is dark, so a voxel's MRC is its share of fluid. A voxel's signal,
HYDROPS or what PPI and PEI show unfolded (`hydrops.model.unfold`), falls evenly from perilymph to
endolymph with its share of endolymph, and bone adds nothing to it or to MRC. So the sum of the
signal over the labyrinth, divided by that of MRC, gives the share of the whole whatever the size of
the voxels, and no voxel has to be called one or the other. The levels of the two pure fluids are
told from an ear's own voxels, which mix them if they are large; what that does to the share is a
model's calibration, `FluidLevels`, one for each of some sizes of voxel, between which others lie
(`calibration_of`). It holds for fluids and timings like those it was made with: where they are
others, signal and network disagree, and the network, which has seen many, has the last word
(`agreed_share`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import ceil, floor, prod
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.optimize import brentq, lsq_linear
from scipy.special import expit, logit

from hydrops.arrays import FloatGrid
from hydrops.errors import ExcludedError, HydropsError
from hydrops.images import box_around, grown
from hydrops.model.preprocess import FLUID
from hydrops.sampling import LEAST_FLUID

#: Coverage of the interval that is given with a ratio.
COVERAGE = 0.95
#: With fewer heads the one to come may be beyond all of them too often, see `half_width`.
LEAST_HEADS = ceil(COVERAGE / (1.0 - COVERAGE) - 1e-9)
#: Network's fluid above which a voxel counts as full, and below which as bone.
FULL, EMPTY = 0.97, 0.5
#: Voxels that count as full at least, should the network be sure of fewer.
LEAST_FULL = 20
#: SD of the distance over which the brightness of full voxels may change, voxels of the crop.
SHADING_VOXELS = (6.0, 6.0, 3.0)
#: Voxels from the fluid that have a say in what is made of it.
REACH_VOXELS = 5
#: SD of the share of endolymph that a voxel full of fluid shows by its signal in an image without
#: noise; by what the noise is multiplied, for the errors of neighbours are alike; the variance of
#: the network's share p as a multiple of p (1 - p); and by what the distance of a voxel's share
#: from one half is multiplied, for a voxel's signal is mixed with that of its neighbours. Of 0.05
#: to 0.225, 1.5, 1 to 4 and 1 to 2, chosen on simulated ears of development, still and moved, for
#: where the endolymph lies in a voxel and in an organ.
SIGNAL_SD, LIKE_ERRORS, NETWORK_VARIANCE, UNMIXED = 0.2, 1.5, 2.0, 1.2
#: Ways to read from the images how much endolymph there is: from PPI and PEI unfolded
#: (`hydrops.model.unfold`), or from HYDROPS alone.
Way = Literal["unfolded", "HYDROPS"]
#: The better one first.
WAYS: tuple[Way, ...] = get_args(Way)
#: Difference from what both have weighed at which the network goes half the way to its own share;
#: chosen on simulated ears of a calibration, where it is 0.04 (SD) unfolded and 0.02 by HYDROPS.
DISAGREEMENT = 0.25
#: Largest say of a network in what it and the signal agree on. With 0.9, the little that HYDROPS
#: alone had to say had so steep a slope that a third of a calibration's ears were refused for
#: contradicting the network; with 0.7 its errors are larger by a twelfth.
MOST_SAY = 0.7
#: The share is kept from the ends, where no voxel could differ from another.
LEAST_SHARE = 0.005
#: Largest face of a voxel that a ratio is given for, times that of the largest calibrated one.
FACE_MARGIN = 1.25


@dataclass(frozen=True)
class FluidSignal:
    """What the images of an ear say of its fluid as a whole, and what the network does.

    Parameters
    ----------
    level
        See `hydrops_level`.
    noise
        See `signal_noise`.
    network
        Share of endolymph in the fluid that the network finds.
    moved
        How much of the share hangs on the network's word alone: by how much that changed the level
        before (`hydrops.model.pure.evened_canals`), and by how much it may be off for want of
        voxels that hold endolymph alone (`hydrops.model.pure.PureVoxels.doubt`).
    """

    level: float
    noise: float
    network: float
    moved: float = 0.0


#: What a `FluidSignal` consists of, as records and tables name it.
SIGNAL_NAMES = tuple(field.name for field in fields(FluidSignal))


@dataclass(frozen=True)
class FluidLevels:
    """Share of endolymph = offset + slope L by the signal alone, L the level of a `FluidSignal`.

    The network knows the share less exactly, but errs otherwise, so that it may have a `say`, from
    0 to `MOST_SAY`, in what both agree on.
    """

    offset: float
    slope: float
    say: float

    def share(self, signal: FluidSignal) -> float:
        """Share of endolymph in the fluid, within `LEAST_SHARE` of its ends."""
        return float(np.clip(self._agreed(signal), LEAST_SHARE, 1.0 - LEAST_SHARE))

    def shares(self, level: FloatGrid, signal: FluidSignal) -> FloatGrid:
        """The same for the level of each voxel; noise takes some beyond the ends."""
        agreed = self._agreed(signal)
        return np.asarray(agreed + self.slope * (level - signal.level), np.float32)

    def contradiction(self, signal: FluidSignal) -> float:
        """By how much the share of the signal alone and that of the network differ."""
        return abs(signal.network - self._alone(signal))

    def correction(self, signal: FluidSignal) -> float:
        """By how much the network changes the share beyond its usual say, for being far away.

        In the whole of the fluid, and before that in a part of it (`FluidSignal.moved`).
        """
        return abs(self._agreed(signal) - self._weighed(signal)) + signal.moved

    def towards(self, other: FluidLevels, part: float) -> FluidLevels:
        """Levels whose weighed share lies that part of the way from these to others' of any ear."""
        ours, theirs = (1.0 - part) * (1.0 - self.say), part * (1.0 - other.say)
        offset, slope = (
            (ours * mine + theirs * others) / (ours + theirs)
            for mine, others in ((self.offset, other.offset), (self.slope, other.slope))
        )
        return FluidLevels(offset, slope, (1.0 - part) * self.say + part * other.say)

    def _agreed(self, signal: FluidSignal) -> float:
        return float(agreed_share(self._weighed(signal), signal.network))

    def _weighed(self, signal: FluidSignal) -> float:
        return (1.0 - self.say) * self._alone(signal) + self.say * signal.network

    def _alone(self, signal: FluidSignal) -> float:
        return self.offset + self.slope * signal.level

    @staticmethod
    def fit(signals: Sequence[FluidSignal], shares: npt.ArrayLike) -> FluidLevels:
        """Least squares over ears whose share of endolymph is known, free of bias once agreed."""
        columns = np.array([(1.0, signal.level, signal.network) for signal in signals])
        truth = np.asarray(shares, dtype=float)
        bounds = ((-np.inf, -np.inf, 0.0), (np.inf, np.inf, MOST_SAY))
        numbers = lsq_linear(columns, truth, bounds).x
        numbers[0] -= (agreed_share(columns @ numbers, columns[:, 2]) - truth).mean()
        say = numbers[2]
        alone = numbers[:2] / (1.0 - say)
        return FluidLevels(*(round(float(number), 4) for number in (*alone, say)))


@dataclass(frozen=True)
class Calibration:
    """What a model knows of one way to read the signal, in voxels of one size.

    Parameters
    ----------
    voxel_mm
        Along the axes of a crop.
    half_width
        See `half_width`.
    most_noise
        Most noise (`signal_noise`) that a ratio is given for.
    """

    voxel_mm: tuple[float, float, float]
    levels: FluidLevels
    half_width: float
    most_noise: float

    @staticmethod
    def all_of(metadata: Mapping[str, Any]) -> dict[Way, tuple[Calibration, ...]]:
        """Those of a bundle, as its metadata tell them; none where it was not calibrated.

        Raises
        ------
        HydropsError
            If they were written by another version.
        """
        try:
            return {
                way: tuple(
                    Calibration(
                        tuple(each["voxel_mm"]),
                        FluidLevels(**each["levels"]),
                        each["half_width"],
                        each["most_noise"],
                    )
                    for each in told
                )
                for way, told in metadata.get("calibrations", {}).items()
            }
        except (TypeError, KeyError) as error:
            raise HydropsError(
                f"{metadata.get('name')} {metadata.get('version')}: its calibrations were written "
                "by another version of this project; package it again"
            ) from error


def calibration_of(known: Sequence[Calibration], voxel_mm: Sequence[float]) -> Calibration:
    """What is known for voxels of any size: by their largest face, between the nearest of `known`.

    By that area grows the error that they bring, be they cubes or thick slices
    (`benchmarks/resolution.py`); how much of the noise is left in a crop hangs on their width along
    the axis on which it is measured. Voxels smaller than the smallest are taken for those.

    Raises
    ------
    ExcludedError
        If they are larger than the largest by more than `FACE_MARGIN`.
    """
    ordered = sorted(known, key=lambda calibration: _face_mm2(calibration.voxel_mm))
    faces = [_face_mm2(calibration.voxel_mm) for calibration in ordered]
    face = _face_mm2(voxel_mm)
    if face > FACE_MARGIN * faces[-1]:
        size = " x ".join(f"{width:.2f}" for width in voxel_mm)
        raise ExcludedError(
            f"voxels of {size} mm are too large for an EH ratio (a face has {face:.2f} mm2, at "
            f"most {FACE_MARGIN * faces[-1]:.2f} may be); the MRC alone gives the fluid"
        )
    place = float(np.interp(face, faces, range(len(faces))))
    below, above = ordered[floor(place)], ordered[ceil(place)]
    part = place - floor(place)
    widths, noises = zip(*sorted((each.voxel_mm[0], each.most_noise) for each in known))
    return Calibration(
        (voxel_mm[0], voxel_mm[1], voxel_mm[2]),
        below.levels.towards(above.levels, part),
        (1.0 - part) * below.half_width + part * above.half_width,
        float(np.interp(voxel_mm[0], widths, noises)),
    )


def _face_mm2(voxel_mm: Sequence[float]) -> float:
    """Area of the largest face of a voxel."""
    return prod(sorted(voxel_mm)[1:])


def agreed_share(
    weighed: npt.ArrayLike, network: npt.ArrayLike, disagreement: float = DISAGREEMENT
) -> npt.NDArray[np.float64]:
    """Share of endolymph on which signal and network agree, from both as usually weighed.

    It stays where the network is well within `disagreement` of it, and is the network's where that
    is far away: then the levels of the fluids are not those of the calibration. In between it goes
    over smoothly.
    """
    known = np.asarray(weighed, float)
    apart = np.asarray(network, float) - known
    return np.asarray(known + apart**5 / (apart**4 + disagreement**4))


def half_width(
    signals: Sequence[FluidSignal],
    shares: npt.ArrayLike,
    heads: npt.ArrayLike,
    coverage: float,
    fitted: FluidLevels | None = None,
) -> float:
    """Half the width of an interval of the share that holds for `coverage` of ears like these.

    It is that of an ear whose network has its usual say; a correction (`FluidLevels.correction`) is
    added to it. Conformal: the quantile of how far the absolute errors go beyond the correction,
    each of an ear whose head the fit left out. Heads, not ears, are drawn independently, so all
    ears of a head weigh as much as one head, and the head to come counts as one whose errors are
    beyond all others (hierarchical conformal prediction: Lee, Barber and Willett,
    arXiv:2306.06342). The share does not foretell the error. Heads of real anatomy are drawn again
    and again from a few labyrinths: the interval holds for other endolymph, gadolinium, noise,
    motion and places in the head; for other anatomy it is an assumption.

    Parameters
    ----------
    heads
        Whose each ear is: fluids and noise are the same in both ears of a head.
    fitted
        Levels that were fitted to none of these ears; None to fit them to the other heads of each.

    Raises
    ------
    ValueError
        If there are too few heads for such a coverage.
    """
    truth, owners = np.asarray(shares, dtype=float), np.asarray(heads)
    known, counts = np.unique(owners, return_counts=True)
    beyond, weights = [np.inf], [1.0]
    for head, count in zip(known, counts):
        others = np.flatnonzero(owners != head).tolist()
        levels = fitted or FluidLevels.fit([signals[ear] for ear in others], truth[others])
        for ear in np.flatnonzero(owners == head).tolist():
            error = abs(levels.share(signals[ear]) - truth[ear])
            beyond.append(error - levels.correction(signals[ear]))
            weights.append(1.0 / count)
    reach = float(np.quantile(beyond, coverage, weights=weights, method="inverted_cdf"))
    if np.isinf(reach):
        raise ValueError(f"{len(known)} heads are too few for an interval of {coverage:.0%}")
    return max(0.0, reach)


def read_signal(channels: FloatGrid, fractions: FloatGrid, moved: float = 0.0) -> FluidSignal:
    """What images and network say of an ear, as a `FluidSignal` has it.

    Parameters
    ----------
    channels
        (3, x, y, z) as `hydrops.model.preprocess.prepare` returns them.
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`.
    """
    fluid = fractions[1:].sum(0)
    return FluidSignal(
        hydrops_level(channels, fluid),
        signal_noise(channels),
        float(fractions[2::2].sum() / max(float(fluid.sum()), 1e-6)),
        moved,
    )


def signal_noise(channels: FloatGrid) -> float:
    """SD of the noise of HYDROPS over MRC where there is nothing but fluid, in its own unit.

    From second differences along the first axis, which pass over what changes evenly, by their
    median absolute value, which passes over the borders of the compartments.

    Parameters
    ----------
    channels
        (3, x, y, z) as `hydrops.model.preprocess.prepare` returns them.
    """
    fluid, share = channels[0] > FLUID, channels[1]
    inside = fluid[:-2] & fluid[1:-1] & fluid[2:]
    differences = (share[:-2] - 2.0 * share[1:-1] + share[2:])[inside]
    if not len(differences):
        return 0.0
    # 0.6745 SD is the median absolute value of a normal variable; 6 the sum of squared weights.
    return float(np.median(np.abs(differences)) / 0.6745 / np.sqrt(6.0))


def hydrops_level(channels: FloatGrid, fluid: FloatGrid) -> float:
    """Mean HYDROPS over MRC of a region, weighted by its fluid.

    Parameters
    ----------
    channels
        (3, x, y, z) as `hydrops.model.preprocess.prepare` returns them: about one in perilymph,
        minus one in CSF.
    fluid
        (x, y, z) share of each voxel that is fluid of the region.
    """
    mrc, share = channels[0], channels[1]
    weights = np.where(mrc > LEAST_FLUID, mrc * fluid, 0.0)
    return float((weights * share).sum() / max(float(weights.sum()), 1e-6))


def fluid_by_signal(mrc: FloatGrid, fractions: FloatGrid) -> FloatGrid:
    """Volume fractions whose fluid at the surface of the labyrinth is what the MRC shows.

    Within a voxel of the network's surface, on either side, the share of fluid is the brightness
    between that of the bone around and that of the full voxels nearby; the inside is left as it
    is. Organs, and endolymph within each, keep their shares of the fluid.

    Parameters
    ----------
    mrc
        (x, y, z), any unit.
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`; some voxels are more than `EMPTY`.
    """
    result = np.zeros_like(fractions)
    result[0] = 1.0
    part = box_around(fractions[0] < 1.0 - EMPTY, (REACH_VOXELS,) * 3)
    result[:, *part] = _filled_by_signal(mrc[part], fractions[:, *part])
    return result


def _filled_by_signal(mrc: FloatGrid, fractions: FloatGrid) -> FloatGrid:
    """As `fluid_by_signal`, in a box that holds all of the labyrinth."""
    fluid = fractions[1:].sum(0)
    full = fluid > FULL
    if full.sum() < LEAST_FULL:
        full = fluid > float(np.partition(fluid, -LEAST_FULL, axis=None)[-LEAST_FULL])
    region = grown(fluid > EMPTY)
    near = grown(region)
    far = grown(near, 2)
    bone = float(np.median(mrc[far & ~near])) if (far & ~near).any() else 0.0
    bright = np.maximum(_nearby(mrc, full) - bone, 1e-6 + 0.1 * abs(bone))
    seen = np.clip((mrc - bone) / bright, 0.0, 1.0) * region
    inside = ndimage.binary_erosion(fluid > EMPTY) & (fluid > 0.9)
    filled = np.where(inside, fluid, seen)
    organs, endolymph = _shares(fractions)
    result = np.empty_like(fractions)
    result[1::2] = filled * organs * (1.0 - endolymph)
    result[2::2] = filled * organs * endolymph
    result[0] = 1.0 - filled
    return result


def endolymph_by_signal(
    channels: FloatGrid, fractions: FloatGrid, levels: FluidLevels, known: FluidSignal
) -> FloatGrid:
    """Volume fractions whose endolymph is what network and signal say together.

    In each voxel the network's share and that of the signal are averaged, each weighted by its
    precision: the network is sure near nothing and near all, the signal where there is much fluid
    and little noise, to which the interpolation between images that were moved apart adds.
    How much endolymph there is in all is what both agree on (`FluidLevels.share`).

    Parameters
    ----------
    channels
        (3, x, y, z) as `hydrops.model.preprocess.prepare` returns them.
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`.
    known
        What images and network say of the ear as a whole, see `read_signal`.
    """
    result = fractions.copy()
    part = box_around(fractions[0] < 1.0, (0, 0, 0))
    seen = _endolymph_seen(channels[:, *part], fractions[:, *part], levels, known)
    result[:, *part] = set_endolymph(seen, levels.share(known))
    return result


def _endolymph_seen(
    channels: FloatGrid, fractions: FloatGrid, levels: FluidLevels, known: FluidSignal
) -> FloatGrid:
    """As `endolymph_by_signal`, before it is brought to what there is in all."""
    fluid = fractions[1::2] + fractions[2::2]
    whole = fluid.sum(0)
    network = share_of(fractions[2::2].sum(0), whole, 0.0)
    signal = 0.5 + UNMIXED * (levels.shares(channels[1], known) - 0.5)
    signal = np.clip(signal, -0.3, 1.3)
    sd = np.hypot(SIGNAL_SD, LIKE_ERRORS * known.noise)
    signal_variance = (sd / np.maximum(channels[0], LEAST_FLUID)) ** 2
    network_variance = NETWORK_VARIANCE * np.clip(network * (1.0 - network), 0.01, None)
    share = (signal / signal_variance + network / network_variance) / (
        1.0 / signal_variance + 1.0 / network_variance
    )
    share = np.clip(share, 0.002, 0.998)
    result = fractions.copy()
    result[1::2], result[2::2] = fluid * (1.0 - share), fluid * share
    return result


def share_of(part: FloatGrid, whole: FloatGrid, least: float) -> FloatGrid:
    """Share of a part in each voxel's whole, zero where that is no more than `least`."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > least)


def _nearby(image: FloatGrid, where: npt.NDArray[np.bool_]) -> FloatGrid:
    """Mean of an image over some voxels around each, of all of them where there is none near."""
    weight = where.astype(np.float32)
    total, count = (
        ndimage.gaussian_filter(part, SHADING_VOXELS, truncate=2.0, mode="constant")
        for part in (image * weight, weight)
    )
    return np.asarray((total + 1e-3 * float(image[where].mean())) / (count + 1e-3), np.float32)


def _shares(fractions: FloatGrid) -> tuple[FloatGrid, FloatGrid]:
    """Share of each organ in the fluid, and of endolymph in each organ's, (3, x, y, z) both.

    In voxels without fluid they are those of the neighbours.
    """
    blurred = ndimage.gaussian_filter(fractions[1:], (0.0, 1.0, 1.0, 0.5))
    known = fractions[1:] + 0.05 * blurred + 1e-9
    organs = known[0::2] + known[1::2]
    return organs / organs.sum(0), known[1::2] / organs


def set_endolymph(fractions: FloatGrid, share: float) -> FloatGrid:
    """Keep where the endolymph lies and change how much there is.

    The odds of endolymph are multiplied by one number in every voxel, the one that brings its
    volume to `share` of the fluid.

    Parameters
    ----------
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`.
    """
    fluid = fractions[1::2] + fractions[2::2]
    inside = fluid > 1e-6
    volume = fluid[inside].astype(np.float64)
    odds = logit(np.clip(fractions[2::2][inside] / volume, 1e-4, 1.0 - 1e-4))
    wanted = share * volume.sum()
    shift = brentq(lambda by: float((volume * expit(odds + by)).sum()) - wanted, -20.0, 20.0)
    endolymph = np.zeros_like(fluid)
    endolymph[inside] = volume * expit(odds + shift)
    result = fractions.copy()
    result[2::2] = endolymph
    result[1::2] = fluid - endolymph
    return result
