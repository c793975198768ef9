"""MR signal of the tissues of the temporal bone in the sequences of a hydrops examination.

Relaxation times are those of 3 T. Endolymph and perilymph without contrast behave as
cerebrospinal fluid does; what sets them apart is the gadolinium that has reached the perilymph
four hours after an intravenous dose (Naganawa et al., Magn Reson Med Sci 2010;9:237 and
2012;11:213, who null endolymph at TI 2250 ms and perilymph at about 2050 ms).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

#: Relaxivities of a gadolinium chelate in fluid at 3 T, 1/(mmol/l s)
#: (Rohrer et al., Invest Radiol 2005;40:715, gadobutrol in water: 3.2 and 3.9).
R1_PER_MMOL_S = 3.2
R2_PER_MMOL_S = 3.9
#: Gadolinium in the perilymph of a typical patient, mmol/l: what brings its T1 to the one that the
#: published 2050 ms nulls, which is what that inversion time was chosen for. With more, the
#: perilymph is positive at 2050 ms too, and HYDROPS no longer falls evenly with the share of
#: endolymph in a voxel: a magnitude has no sign.
PERILYMPH_MMOL = 0.0142


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms and proton density relative to water."""

    t1_ms: float
    t2_ms: float
    density: float


@dataclass(frozen=True)
class Sequence:
    """Timing of a sequence in ms; `ti_ms` is None without an inversion pulse.

    `real` marks a phase-sensitive reconstruction, whose images keep their sign.
    """

    name: str
    tr_ms: float
    te_ms: float
    ti_ms: float | None = None
    real: bool = False


#: MR cisternography and the pair of inversion-recovery images (Naganawa et al. 2012, Methods).
MRC = Sequence("MRC", tr_ms=4400.0, te_ms=544.0)
PPI = Sequence("PPI", tr_ms=9000.0, te_ms=540.0, ti_ms=2250.0)
PEI = Sequence("PEI", tr_ms=9000.0, te_ms=540.0, ti_ms=2050.0)

#: T1 and T2 at 3 T: brain, nerve, muscle and blood from Stanisz et al., Magn Reson Med 2005;54:507,
#: the T2 of blood shorter than theirs, for it flows; fat and marrow from Gold et al., Am J
#: Roentgenol 2004;183:343. The T1 of the fluid is the one that the published inversion times null
#: (see `null_t1_ms`): endolymph at 2250 ms; CSF takes up little gadolinium.
#: The fluids' long T2 and the dense bone's missing signal are what cisternography rests on.
TISSUES = {
    "air": Tissue(1000.0, 1.0, 0.0),
    "bone": Tissue(400.0, 1.0, 0.2),
    "marrow": Tissue(371.0, 133.0, 0.8),
    "fat": Tissue(371.0, 133.0, 0.9),
    "muscle": Tissue(1412.0, 50.0, 0.8),
    "white_matter": Tissue(1084.0, 69.0, 0.70),
    "grey_matter": Tissue(1820.0, 99.0, 0.82),
    "nerve": Tissue(1084.0, 78.0, 0.75),
    "blood": Tissue(1932.0, 120.0, 0.9),
    "mucosa": Tissue(1500.0, 180.0, 0.9),
    "csf": Tissue(3900.0, 1800.0, 1.0),
    "endolymph": Tissue(3680.0, 1500.0, 1.0),
    "perilymph": Tissue(3800.0, 1500.0, 1.0),
}


@dataclass(frozen=True)
class Fluids:
    """T1 (ms) of a patient's fluids without gadolinium, and what reaches the perilymph.

    Parameters
    ----------
    perilymph_mmol
        Gadolinium in the perilymph of a typical such patient, mmol/l.
    uptake
        That in each organ's perilymph as a multiple of it, in the order of `hydrops.labels.ORGANS`.
    """

    csf_ms: float
    endolymph_ms: float
    perilymph_ms: float
    perilymph_mmol: float
    uptake: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def longer(self, share: float) -> Fluids:
        """Fluids whose T1 are longer by a share, with as much gadolinium."""
        more = 1.0 + share
        return replace(
            self,
            csf_ms=more * self.csf_ms,
            endolymph_ms=more * self.endolymph_ms,
            perilymph_ms=more * self.perilymph_ms,
        )

    def tissues(self) -> dict[str, Tissue]:
        """`TISSUES` with these fluids."""
        t1 = {"csf": self.csf_ms, "endolymph": self.endolymph_ms, "perilymph": self.perilymph_ms}
        return TISSUES | {name: replace(TISSUES[name], t1_ms=ms) for name, ms in t1.items()}


#: The fluids of `TISSUES`.
USUAL_FLUIDS = Fluids(
    TISSUES["csf"].t1_ms, TISSUES["endolymph"].t1_ms, TISSUES["perilymph"].t1_ms, PERILYMPH_MMOL
)

#: Longest T1 of CSF that was measured at 3 T, ms (Quantification of T1 and T2 of subarachnoid CSF,
#: Magn Reson Med 2023, PMC10696635, Results).
MOST_CSF_MS = 4450.0
#: SD of how much longer or shorter than usual T1 are in a patient, as a share. An assumption: body
#: temperatures have an SD of 0.4 degrees (Obermeyer et al., BMJ 2017;359:j5468: 95 % within 35.7
#: and 37.3), and water's T1 rises by some 2 % a degree (Krynicki, Physica 1966;32:167).
T1_SD = 0.01
#: SD of the logarithm of the cochlea's uptake, and of the canals', beside that of the vestibule. An
#: assumption, as much as the ears of a head differ: in animals the vestibular part took up less (3D
#: MRI of the in vivo vestibulo-cochlea labyrinth during Gd-DTPA-BMA uptake, Neuroreport, abstract);
#: what patients' does is not known.
UPTAKE_SD = 0.1


def draw_fluids(rng: np.random.Generator) -> Fluids:
    """Fluids of a patient: half the time those that the published inversion times null.

    The other half, CSF has a T1 between that and `MOST_CSF_MS`; endolymph and perilymph one up to
    6 % and 4 % shorter (in the usual fluids 5.6 % and 2.6 %); and gadolinium brings the
    perilymph's to about what the published inversion time nulls, 3240 ms, or less. All of that is
    an assumption: nobody has measured endolymph and perilymph apart. Cochlea and canals have
    taken up more or less of it than the vestibule (`UPTAKE_SD`).
    """
    cochlea, canals = (float(np.exp(rng.normal(0.0, UPTAKE_SD))) for _ in range(2))
    uptake = (cochlea, 1.0, canals)
    if rng.random() < 0.5:
        return replace(USUAL_FLUIDS.longer(float(rng.normal(0.0, T1_SD))), uptake=uptake)
    csf = float(rng.uniform(USUAL_FLUIDS.csf_ms, MOST_CSF_MS))
    endolymph, perilymph = (csf * float(rng.uniform(least, 1.0)) for least in (0.94, 0.96))
    enhanced = float(rng.uniform(2900.0, 3300.0))
    return Fluids(csf, endolymph, perilymph, gadolinium_for(enhanced, perilymph), uptake)


def gadolinium_for(t1_ms: float, free_ms: float) -> float:
    """Gadolinium (mmol/l) that shortens a T1 without it, `free_ms`, to `t1_ms`."""
    return (1000.0 / t1_ms - 1000.0 / free_ms) / R1_PER_MMOL_S


def gadolinium(tissue: Tissue, mmol_per_l: float) -> Tissue:
    """A tissue whose relaxation rates a gadolinium chelate has raised.

    Parameters
    ----------
    mmol_per_l
        Concentration in the tissue, mmol/l; see `PERILYMPH_MMOL`.
    """
    return replace(
        tissue,
        t1_ms=shortened_t1_ms(tissue.t1_ms, mmol_per_l),
        t2_ms=1000.0 / (1000.0 / tissue.t2_ms + R2_PER_MMOL_S * mmol_per_l),
    )


def shortened_t1_ms(t1_ms: float, mmol_per_l: float) -> float:
    """T1 with so much gadolinium of what has `t1_ms` without it."""
    return 1000.0 / (1000.0 / t1_ms + R1_PER_MMOL_S * mmol_per_l)


def recovered(t1_ms: float, ti_ms: float, tr_ms: float) -> float:
    """Longitudinal magnetisation of inversion recovery, signed, one in equilibrium.

    Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004, eq. 14.39.
    """
    return float(1.0 - 2.0 * np.exp(-ti_ms / t1_ms) + np.exp(-tr_ms / t1_ms))


def signal(tissue: Tissue, sequence: Sequence) -> float:
    """Signal of a tissue, relative to the proton density of water.

    Saturation recovery without, inversion recovery with an inversion pulse, and T2 decay
    (Bernstein, King, Zhou, Handbook of MRI Pulse Sequences, 2004, eqs. 14.37 and 14.39). It is
    signed: a magnitude image is the modulus of the sum over the tissues of a voxel. The recovery is
    that of the whole repetition time; that an echo train leaves less of it is not modelled, so T1
    that an inversion time nulls are effective ones.
    """
    if sequence.ti_ms is None:
        longitudinal = 1.0 - np.exp(-sequence.tr_ms / tissue.t1_ms)
    else:
        longitudinal = recovered(tissue.t1_ms, sequence.ti_ms, sequence.tr_ms)
    return float(tissue.density * longitudinal * np.exp(-sequence.te_ms / tissue.t2_ms))


def as_if_longer_t1(sequence: Sequence, longer: float) -> Sequence:
    """The sequence that shows every tissue as this one would if its T1 were longer by a share.

    A signal hangs on repetition and inversion time as multiples of T1 alone.
    """
    ti_ms = None if sequence.ti_ms is None else sequence.ti_ms / (1.0 + longer)
    return replace(sequence, tr_ms=sequence.tr_ms / (1.0 + longer), ti_ms=ti_ms)


def null_t1_ms(sequence: Sequence) -> float:
    """T1 whose longitudinal magnetisation an inversion-recovery sequence nulls, ms.

    Raises
    ------
    ValueError
        If the sequence has no inversion pulse.
    """
    from scipy.optimize import brentq

    if sequence.ti_ms is None:
        raise ValueError(f"{sequence.name} has no inversion pulse, so it nulls nothing")
    return float(
        brentq(lambda t1: signal(Tissue(t1, 1e9, 1.0), sequence), 100.0, sequence.tr_ms * 2)
    )
