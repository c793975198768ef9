"""Images of other inversion times, as those that the models were calibrated on would show them.

How bright perilymph is in HYDROPS beside CSF tells how much gadolinium it holds, and with it how
HYDROPS falls with the share of endolymph: but for one pair of inversion times only. For others,
which the sidecars tell, physics says where the levels of the fluids would have lain with the usual
ones, and how far from evenly HYDROPS falls; what the network and `hydrops.model.unmix` are given
is changed accordingly. Physics is that of `hydrops.phantom.signal`, T1 and T2 included.

T1 of a patient's fluids longer by a hundredth than usual, as in a warmer body, are as good as
inversion times that are shorter by a hundredth. The brightness of the CSF tells them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from hydrops.arrays import FloatGrid
from hydrops.model.unmix import share_of
from hydrops.phantom.signal import (
    PEI,
    PERILYMPH_MMOL,
    PPI,
    TISSUES,
    Sequence,
    Tissue,
    as_if_longer_t1,
    gadolinium,
    signal,
)

Levels = npt.NDArray[np.float64]

#: Gadolinium in perilymph, mmol/l: from a tenth of a typical patient's to three times as much.
DOSES_MMOL = np.geomspace(0.1, 3.0, 100) * PERILYMPH_MMOL
#: Least level of a typical patient's perilymph beside that of CSF, and least fall from perilymph
#: to endolymph where that to CSF is 2, with which a pair shows hydrops as the usual one does.
LEAST_PERILYMPH, LEAST_FALL = 0.3, 1.0
#: Largest difference from the usual repetition time at which its physics is taken to hold, ms.
MOST_TR_CHANGE_MS = 1000.0
#: By how much the T1 of a patient's fluids may be longer than usual, as a share. The usual ones are
#: those that the published inversion times null; measured by itself, CSF has 4300 to 4450 ms at 3 T
#: (Quantification of T1 and T2 of subarachnoid CSF, Magn Reson Med 2023, PMC10696635, Results), up
#: to 14 % more. Shorter by three times the SD between patients, `hydrops.phantom.signal.T1_SD`.
LEAST_LONGER, MOST_LONGER = -0.03, 0.15


@dataclass(frozen=True)
class InversionPair:
    """The images whose difference is HYDROPS, and their timing.

    Levels of HYDROPS are given beside that of CSF, which is minus one.
    """

    ppi: Sequence
    pei: Sequence

    @cached_property
    def csf(self) -> float:
        """HYDROPS of CSF, water's proton density being 1; negative."""
        return self._hydrops(TISSUES["csf"])

    @cached_property
    def enhancements(self) -> Levels:
        """Level of perilymph by `DOSES_MMOL`."""
        perilymph = [self._hydrops(gadolinium(TISSUES["perilymph"], d)) for d in DOSES_MMOL]
        return np.array(perilymph) / -self.csf

    def dose(self, enhancement: float) -> float:
        """Gadolinium (mmol/l, within `DOSES_MMOL`) of a perilymph of a level."""
        # More gadolinium never makes perilymph darker but where there is next to none.
        return float(np.interp(enhancement, np.maximum.accumulate(self.enhancements), DOSES_MMOL))

    def enhancement(self, dose: float) -> float:
        """Level of perilymph with so much gadolinium, mmol/l."""
        return float(np.interp(dose, DOSES_MMOL, self.enhancements))

    def fall(self, enhancement: float) -> float:
        """By how much HYDROPS falls from perilymph to endolymph, where it falls by 2 to CSF."""
        endolymph = self._hydrops(TISSUES["endolymph"]) / -self.csf
        return 2.0 * (enhancement - endolymph) / (enhancement + 1.0)

    @property
    def typical_fall(self) -> float:
        """`fall` from a typical patient's perilymph."""
        return self.fall(self.enhancement(PERILYMPH_MMOL))

    def bend(self, share: FloatGrid, dose: float) -> FloatGrid:
        """How far above an even fall HYDROPS lies in voxels of a share of endolymph.

        A magnitude has no sign: a voxel in which perilymph is positive and endolymph negative is
        darker in an image than either. Unit as that of `fall`.
        """
        fluids = (gadolinium(TISSUES["perilymph"], dose), TISSUES["endolymph"])
        bent = np.zeros_like(share)
        for sequence, sign in ((self.ppi, 1.0), (self.pei, -1.0)):
            first, last = (signal(fluid, sequence) for fluid in fluids)
            even = abs(first) + share * (abs(last) - abs(first))
            bent += sign * (np.abs(first + share * (last - first)) - even)
        perilymph = self.enhancement(dose)
        return np.asarray(2.0 * bent / -self.csf / (perilymph + 1.0), np.float32)

    def of_longer_t1(self, longer: float) -> InversionPair:
        """The pair that shows usual fluids as this one does fluids of longer T1, by a share."""
        return InversionPair(*(as_if_longer_t1(s, longer) for s in (self.ppi, self.pei)))

    def longer_t1(self, csf_ratio: float) -> float:
        """By how much the T1 of a patient's fluids are longer than usual, as a share.

        All fluids alike, by the brightness of CSF in the PPI as a multiple of that in the PEI, to
        which coil and gain do not matter, for both images have the same: near its null, CSF tells a
        hundredth of its T1 well. What would be more than `MOST_LONGER` counts as that: a PPI of
        another gain than the PEI's shifts the levels of the fluids much as another T1 does. CSF so
        dark that they would be shorter than by `LEAST_LONGER` has a T1 of its own: the PPI nulls it
        beside the endolymph, and it tells nothing of the others. Where the PPI nulls CSF within
        these bounds, a T1 to either side of that shows the same, for a magnitude has no sign: then
        it is the one with which the pair shows hydrops more as the usual one does, for a site
        chooses its inversion times by what they show.
        """
        longer = np.linspace(LEAST_LONGER, MOST_LONGER, 191)
        csf = TISSUES["csf"]
        levels = np.array(
            [[signal(csf, s) for s in (p.ppi, p.pei)] for p in map(self.of_longer_t1, longer)]
        )
        if levels[:, 1].min() * levels[:, 1].max() <= 0.0:
            return 0.0
        ratios = levels[:, 0] / levels[:, 1]
        rising = np.argsort(ratios)
        signs = (csf_ratio, -csf_ratio) if -csf_ratio >= ratios.min() else (csf_ratio,)
        able = [
            float(np.interp(signed, ratios[rising], longer[rising], left=0.0)) for signed in signs
        ]
        return min(
            able,
            key=lambda share: abs(self.of_longer_t1(share).typical_fall - USUAL_PAIR.typical_fall),
        )

    @property
    def foretold(self) -> bool:
        """Whether physics foretells what it shows, and that it shows hydrops.

        That is, in a typical patient perilymph is bright, CSF dark and endolymph near it. The T1
        of the phantom's fluids are those that the usual inversion times null at the usual
        repetition time; how a sequence leaves the magnetisation at its end is not modelled, and
        sites with another repetition time choose their inversion times for it.
        """
        usual = USUAL_PAIR.ppi.tr_ms
        if any(abs(s.tr_ms - usual) > MOST_TR_CHANGE_MS for s in (self.ppi, self.pei)):
            return False
        if self.csf >= 0.0:
            return False
        bright = self.enhancement(PERILYMPH_MMOL) >= LEAST_PERILYMPH
        return bright and self.typical_fall >= LEAST_FALL

    def _hydrops(self, fluid: Tissue) -> float:
        return abs(signal(fluid, self.ppi)) - abs(signal(fluid, self.pei))


#: The pair that the models were calibrated on.
USUAL_PAIR = InversionPair(PPI, PEI)


@dataclass(frozen=True)
class UsualContrast:
    """How an ear's HYDROPS becomes that of the usual pair.

    Parameters
    ----------
    pair
        Its own.
    dose
        Gadolinium in its perilymph, mmol/l.
    enhancement
        Level of its perilymph with the usual pair.
    stretch
        Its fall with the usual pair as a multiple of that with its own.
    """

    pair: InversionPair
    dose: float
    enhancement: float
    stretch: float

    @staticmethod
    def of(channels: torch.Tensor, pair: InversionPair) -> UsualContrast:
        """That of an ear's channels, `hydrops.model.preprocess.prepare`."""
        level = float(channels[2].max())
        dose = pair.dose(level)
        usual = level + USUAL_PAIR.enhancement(dose) - pair.enhancement(dose)
        return UsualContrast(pair, dose, usual, USUAL_PAIR.fall(usual) / pair.fall(level))

    def stretched(self, channels: torch.Tensor) -> torch.Tensor:
        """Channels (3, x, y, z) whose pure fluids lie at the levels of the usual pair."""
        share = 1.0 - (1.0 - channels[1]) * self.stretch
        return torch.stack([channels[0], share, torch.full_like(channels[2], self.enhancement)])

    def straightened(self, channels: FloatGrid, fractions: FloatGrid) -> FloatGrid:
        """Channels, stretched, in which mixed voxels too lie as with the usual pair.

        Parameters
        ----------
        fractions
            (7, x, y, z) volume fractions of `hydrops.labels.LABELS`.
        """
        fluid = fractions[1:].sum(0)
        share = share_of(fractions[2::2].sum(0), fluid, 0.01)
        bend = self.stretch * self.pair.bend(share, self.dose) - USUAL_PAIR.bend(share, self.dose)
        return np.stack([channels[0], channels[1] - bend, channels[2]])
