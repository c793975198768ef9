"""The voxels of an ear that hold one fluid alone, and what they say of its brightness.

A network is sure of most voxels well inside a fluid, whatever its contrast. From them are told how
bright the pure fluids are (`hydrops.model.unfold`), and that the perilymph of the cochlea is not as
bright as that of the vestibule and its canals: gadolinium reaches both by other ways, and what is
less bright would be taken for endolymph. The canals have next to no voxel that is sure: their
perilymph counts as the vestibule's, unless their share of endolymph would then be far from the
network's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.stats import trim_mean

from hydrops.arrays import FloatGrid, Mask
from hydrops.errors import ExcludedError
from hydrops.images import blur_of_larger
from hydrops.labels import organ_codes
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.preprocess import FLUID
from hydrops.model.unmix import agreed_share, hydrops_level, share_of

#: Network's share of a fluid from which its voxels count as pure; of 0.8 to 0.98, chosen on
#: simulated ears of development.
SURE = 0.98
#: Voxels of each fluid that count as pure at least, should the network be sure of fewer.
LEAST_SURE = 20
#: How far the network's share of the purest endolymph may be off, as a multiple of what it lacks of
#: `SURE`, of which nearly all ears of this project's simulation lack nothing. In one of little
#: hydrops, by another simulator and with fluids unlike those of the training, the network gave 0.83
#: to voxels that held 0.60.
UNSURE = 2.0
#: Share of the pure voxels that is left out at either end of their mean. Noise moves what lies at
#: a corner of the line of `hydrops.model.unfold` inwards, so that a median is not what the mean of
#: an ear is to be held to.
TRIMMED = 0.1
#: Network's fluid above which a voxel counts as full.
NEARLY_FULL = 0.9
#: By what the variance of an image's voxel beyond the crop's is multiplied to blur the network's
#: places as the image is: it was interpolated, too, and the network draws places sharper than they
#: can be seen. Of 0.5 to 3, chosen on phantoms of development with voxels of 0.6 to 1.4 mm.
BLUR = 2.0
#: Pure voxels of the whole labyrinth's brightness that a part's own are averaged with. Of 0 to 20,
#: chosen on simulated ears of development: more leave differences, fewer are noise.
LIKE_THE_WHOLE = 2
#: Least fluid of a voxel of which the share of a part is looked at.
LEAST_WHOLE = 1e-6
#: Share of the full voxels of a part that count as its brightest: even a part full of hydrops has
#: as much perilymph, and they do not hang on what the network takes for it.
BRIGHTEST = 0.1
#: Least distance of a part's brightest voxels from endolymph, as a share of that of the other
#: part's, for it to be read. It is 0.9 and more in simulated ears of development that took up the
#: same everywhere; of those in which it was less than 0.6, the interval failed in more than half.
LEAST_ALIKE = 0.6
#: Least distance of the canals' fluid from endolymph, of one, that is stretched.
LEAST_SHOWN = 0.25
#: Difference between what the canals show and the network finds at which half of it is taken for
#: another uptake. Of 0.1 to 0.2, chosen on simulated ears of development, where it is 0.04 (SD)
#: if all organs take up the same, and 0.28 if the canals take up 0.6 of the vestibule's.
CANALS_DISAGREEMENT = 0.15


@dataclass(frozen=True)
class PureVoxels:
    """Where an ear holds one fluid alone, as a network sees it.

    Parameters
    ----------
    perilymph, endolymph
        (x, y, z) masks, `LEAST_SURE` voxels or more each.
    full
        (x, y, z) mask of the voxels that hold nothing but fluid.
    share
        (x, y, z) network's share of endolymph in the fluid, as blurred as the image is.
    cochlea
        (x, y, z) share of the cochlea in the fluid.
    purest
        Network's share of endolymph, not blurred, in the `LEAST_SURE` full voxels of most.
    """

    perilymph: Mask
    endolymph: Mask
    full: Mask
    share: FloatGrid
    cochlea: FloatGrid
    purest: float

    @staticmethod
    def of(
        mrc: FloatGrid, fractions: FloatGrid, voxel_mm: Sequence[float] = CROP_SPACING_MM
    ) -> PureVoxels:
        """Those of an ear.

        Parameters
        ----------
        mrc
            (x, y, z), fluid at one.
        fractions
            (7, x, y, z) volume fractions of `hydrops.labels.LABELS`, the network's.
        voxel_mm
            Voxel of the coarsest of the images along the axes of the crop.

        Raises
        ------
        ExcludedError
            If too little of the fluid is full.
        """
        whole = fractions[1:].sum(0)
        fluid, endolymph = _as_imaged([whole, fractions[2::2].sum(0)], voxel_mm)
        full = (fluid > NEARLY_FULL) & (mrc > FLUID)
        if full.sum() < 2 * LEAST_SURE:
            raise ExcludedError(
                f"only {full.sum()} voxels are full of the labyrinth's fluid, at least "
                f"{2 * LEAST_SURE} are needed to tell its endolymph: are the voxels too large?"
            )
        share = share_of(endolymph, fluid, LEAST_WHOLE)
        ranked = np.sort(share[full])
        drawn = share_of(fractions[2::2].sum(0), whole, LEAST_WHOLE)[full]
        return PureVoxels(
            full & (share <= max(1.0 - SURE, ranked[LEAST_SURE - 1])),
            full & (share >= min(SURE, ranked[-LEAST_SURE])),
            full,
            share,
            share_of(fractions[organ_codes("cochlea")].sum(0), whole, LEAST_WHOLE),
            float(np.partition(drawn, -LEAST_SURE)[-LEAST_SURE:].mean()),
        )

    def doubt(self, shown: float) -> float:
        """By how much the share of endolymph that an ear shows may be off, for want of pure voxels.

        Where the network is sure of none, how dark endolymph is follows from how much of it the
        network sees in mixed ones, and all shares grow with that.
        """
        return UNSURE * shown * max(0.0, SURE - self.purest) / max(self.purest, 1e-6)

    def evened(self, channels: FloatGrid) -> FloatGrid:
        """Channels in which the cochlea's pure perilymph is as bright as the vestibule's.

        Both are brought to what the perilymph of the whole ear shows; pure endolymph stays.

        Parameters
        ----------
        channels
            (3, x, y, z) whose second falls from about one in perilymph to minus one in endolymph.

        Raises
        ------
        ExcludedError
            If the gadolinium has reached one of them far less than the other. The network, which
            knows ears that took up the same everywhere, takes its perilymph for endolymph.
        """
        known = 1.0 + channels[1]
        level = mean_of(known, self.perilymph)
        inside = self.cochlea > 0.5
        parts = (inside, ~inside)
        brightest = [_brightest(known[self.full & part]) for part in parts]
        # Not a number, and so not refused, where a part has no full voxel.
        alike = float(np.min(brightest) / np.max(brightest))
        if alike < LEAST_ALIKE:
            less, more = ("cochlea", "vestibule")[:: 1 if brightest[0] < brightest[1] else -1]
            raise ExcludedError(
                f"gadolinium has reached the {less} far less than the {more} (its fluid is at most "
                f"{max(alike, 0.0):.2f} times as far from endolymph, {LEAST_ALIKE} is needed), so "
                "endolymph cannot be told from perilymph there"
            )
        cochlea, vestibule = (_part_level(known[self.perilymph & part], level) for part in parts)
        levels = vestibule + self.cochlea * (cochlea - vestibule)
        return np.stack([channels[0], known * (level / levels) - 1.0, channels[2]])


def evened_canals(channels: FloatGrid, fractions: FloatGrid) -> tuple[FloatGrid, float]:
    """Channels whose canals show as much endolymph as they and the network agree on.

    Canals that show far more of it than the network finds have taken up less gadolinium than the
    vestibule, and those that show far less have taken up more. Beside the channels there is by how
    much of the ear's fluid that changes its endolymph: the network's word alone.

    Parameters
    ----------
    channels
        (3, x, y, z) whose second falls from one in perilymph to minus one in endolymph.
    fractions
        (7, x, y, z) volume fractions of `hydrops.labels.LABELS`.
    """
    codes = organ_codes("semicircular_canals")
    canals, fluid = fractions[codes].sum(0), fractions[1:].sum(0)
    volume = max(float(canals.sum()), 1e-6)
    shown = 0.5 - 0.5 * hydrops_level(channels, canals)
    found = float(fractions[codes[1]].sum()) / volume
    agreed = float(agreed_share(shown, found, CANALS_DISAGREEMENT))
    # What hardly differs from endolymph would be noise if it were stretched as far as that.
    brighter = np.float32((1.0 - agreed) / max(1.0 - shown, LEAST_SHOWN))
    share = share_of(canals, fluid, LEAST_WHOLE)
    seen = (1.0 + channels[1]) * (1.0 + share * (brighter - 1.0)) - 1.0
    moved = abs(agreed - shown) * volume / max(float(fluid.sum()), 1e-6)
    return np.stack([channels[0], seen, channels[2]]), moved


def mean_of(image: FloatGrid, where: Mask) -> float:
    """Mean of an image over some voxels, without the ends (`TRIMMED`)."""
    return float(trim_mean(image[where], TRIMMED))


def _part_level(known: FloatGrid, level: float) -> np.float32:
    """Level of a part's pure voxels, the whole's `level` counting as `LIKE_THE_WHOLE` of them."""
    count = len(known)
    own = float(trim_mean(known, TRIMMED)) if count else 0.0
    return np.float32((count * own + LIKE_THE_WHOLE * level) / (count + LIKE_THE_WHOLE))


def _brightest(known: FloatGrid) -> float:
    """Mean of a part's brightest full voxels; NaN where it has none."""
    count = max(1, round(BRIGHTEST * len(known)))
    return float(np.sort(known)[-count:].mean()) if len(known) else np.nan


def _as_imaged(volumes: Sequence[FloatGrid], voxel_mm: Sequence[float]) -> list[FloatGrid]:
    """Volumes of the crop as blurred as an image whose voxels are larger than the crop's.

    Otherwise what the network is sure of would count as pure though its voxels hold both fluids.
    """
    width = np.sqrt(BLUR) * blur_of_larger(CROP_SPACING_MM, voxel_mm)
    return [np.asarray(ndimage.gaussian_filter(v, width), np.float32) for v in volumes]
