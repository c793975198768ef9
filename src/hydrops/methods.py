"""What the report says about methods, limits and provenance."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hydrops import page
from hydrops.model.bundle import Bundle
from hydrops.model.geometry import CROP_SPACING_MM
from hydrops.model.pure import LEAST_ALIKE
from hydrops.model.unmix import UNMIXED
from hydrops.sampling import MOVED_LOSS
from hydrops.slices import LEAST_SECTION, RING_DEGREES

LIMITS = (
    "Research use only. Not a medical device; nothing here may guide the care of a patient.",
    "The network was trained on simulated images; see its model card for what it was tried on.",
    "An EH ratio depends on dose, delay and sequence: compare within one protocol only.",
    "The grades are thresholds on the EH area ratio and do not replace a reader's grade.",
    "Malformed, operated or obliterated labyrinths lie outside what the network has seen.",
)
PACKAGES = (
    "hydrops", "dcm2niix", "antspyx", "torch", "monai", "nibabel", "numpy", "pandas", "scipy",
    "statsmodels", "matplotlib", "seaborn", "snakemake",
)  # fmt: skip
#: By what the text cites them for, in the order of their numbers.
REFERENCES = {
    "dcm2niix": (
        "Li X et al. The first step for neuroimaging data analysis: DICOM to NIfTI "
        "conversion. J Neurosci Methods 2016;264:47."
    ),
    "ANTs": (
        "Avants BB et al. A reproducible evaluation of ANTs similarity metric performance in "
        "brain image registration. NeuroImage 2011;54:2033."
    ),
    "HYDROPS": (
        "Naganawa S et al. Imaging of Meniere's disease after intravenous administration of "
        "single-dose gadodiamide: utility of subtraction images with different inversion "
        "time. Magn Reson Med Sci 2012;11:213."
    ),
    "HYDROPS2": (
        "Naganawa S et al. MR imaging of endolymphatic hydrops in five minutes. Magn Reson Med "
        "Sci 2022;21:401."
    ),
    "U-Net": (
        "Çiçek Ö et al. 3D U-Net: learning dense volumetric segmentation from sparse "
        "annotation. MICCAI 2016, arXiv:1606.06650."
    ),
    "paired": (
        "Yoo TW et al. Automated volumetric analysis of the inner ear fluid space from "
        "hydrops magnetic resonance imaging using 3D neural networks. Sci Rep 2024;14."
    ),
    "joint": (
        "Stebani J et al. Towards fully automated inner ear analysis with deep-learning-based "
        "joint segmentation and landmark detection framework. Sci Rep 2023;13:19057."
    ),
    "MONAI": (
        "Cardoso MJ et al. MONAI: an open-source framework for deep learning in healthcare. "
        "arXiv:2211.02701."
    ),
    "PyTorch": (
        "Paszke A et al. PyTorch: an imperative style, high-performance deep learning "
        "library. NeurIPS 2019, arXiv:1912.01703."
    ),
    "area ratio": (
        "Cho YS et al. Automated measurement of hydrops ratio from MRI in patients with "
        "Meniere's disease using CNN-based segmentation (INHEARIT). Sci Rep 2020;10:7003."
    ),
    "grades": (
        "Nakashima T et al. Grading of endolymphatic hydrops using magnetic resonance "
        "imaging. Acta Otolaryngol Suppl 2009;560:5."
    ),
    "Holm": (
        "Holm S. A simple sequentially rejective multiple test procedure. Scand J Stat 1979;6:65."
    ),
    "ICC": (
        "Shrout PE, Fleiss JL. Intraclass correlations: uses in assessing rater reliability. "
        "Psychol Bull 1979;86:420."
    ),
    "Bland-Altman": (
        "Bland JM, Altman DG. Statistical methods for assessing agreement between two methods "
        "of clinical measurement. Lancet 1986;327:307."
    ),
    "Snakemake": (
        "Mölder F et al. Sustainable data analysis with Snakemake. F1000Research 2021;10:33."
    ),
}


#: How the endolymph of a calibrated model is read from the signal.
_SIGNAL = (
    " At the surface of the labyrinth a voxel's brightness, between bone and full fluid, gave "
    "its share of fluid; its share of endolymph is the mean of the network's and of that "
    "which its signal shows, weighted by their precision, the latter's distance from one half "
    f"times {UNMIXED}, for neighbours mix into a voxel. The signal is the signed sum of the "
    "two inversion images over the MRC, their signs told by the sum and the difference of "
    "their magnitudes; it falls evenly with the share of endolymph whatever the sequences "
    "null, and its levels in pure fluids are those where the network is sure. Where HYDROPS "
    "alone was to be had, it is HYDROPS over MRC between the levels of perilymph and CSF. "
    "Images of a patient who moves lose signal at the borders of the fluid, where their voxels "
    "lie between those of the MRC, as those of the simulated heads did; in images of one who "
    f"did not, the signed sum was lowered by {MOVED_LOSS:.0%} to be read alike. "
    "Perilymph of the cochlea that was brighter or darker than the vestibule's, for more or "
    "less gadolinium had reached it, was brought to the same level; so was that of the "
    "canals, where their endolymph would else be far more or less than the network's. An ear "
    "whose cochlea or vestibule had taken up far less than the other (its brightest fluid less "
    f"than {LEAST_ALIKE} times as far from endolymph) was left out. How much of the "
    "labyrinth's fluid is endolymph in all follows from the signal's mean and the network's "
    "share, weighted as was fitted on simulated ears of different noise, T1 and voxel size, "
    "and the more by the network's the further the two lie apart; the odds of endolymph were "
    "multiplied in each ear so that its fractions agree. An ear's ratio has an interval, "
    "conformal on those simulated heads, that is wider by what the network changes beyond its "
    "usual weight, in the canals as in the whole. Inversion times other than 2250 and 2050 ms, "
    "and a T1 of the patient's fluids that the CSF shows to be other than usual, are allowed "
    "for by the recovery of their magnetisation."
)


def numbered(text: str) -> str:
    """A text that cites `REFERENCES` by their words, as ``[@ICC]`` or ``[@U-Net, @joint]``."""
    names = list(REFERENCES)

    def numbers(found: re.Match[str]) -> str:
        told = sorted(names.index(name) + 1 for name in re.findall("@([^,]+)", found[1]))
        return f"[{', '.join(map(str, told))}]"

    return re.sub(r"\[(@[^\]]+)\]", numbers, text)


@dataclass(frozen=True)
class Done:
    """What was done in a cohort, so that its methods tell nothing else.

    Parameters
    ----------
    converted
        Whether an image came as DICOM.
    registered
        Roles that were registered to an MRC.
    volume_ratios
        Whether an ear has an EH volume ratio.
    analyses
        Those of `hydrops.statistics.cohort_statistics` that gave an estimate.
    """

    converted: bool = True
    registered: frozenset[str] = frozenset({"PPI", "PEI"})
    volume_ratios: bool = True
    analyses: frozenset[str] = frozenset()


def methods_section(bundle: Bundle, done: Done) -> str:
    """How the numbers were made, with citations and the versions that are installed."""
    reads_signal = "calibrations" in bundle.metadata and done.volume_ratios
    return page.section(
        "methods",
        "Methods",
        _cited(f"{_conversion_words(done)}{_registration_words(done)}{_location_words()}"),
        _cited(
            f"{_network_words(bundle, done)}{_SIGNAL if reads_signal else ''}{_area_words(done)}"
        ),
        _cited(f"{_statistics_words(done)}{_run_words()}"),
        "<ol class=soft>"
        + "".join(f"<li>{escape(reference)}</li>" for reference in REFERENCES.values())
        + "</ol>",
    )


def _conversion_words(done: Done) -> str:
    if not done.converted:
        return "Images were given as NIfTI. "
    return (
        "DICOM series were assigned to their roles by timing and geometry and converted by "
        f"dcm2niix {_version('dcm2niix')} [@dcm2niix]. "
    )


def _registration_words(done: Done) -> str:
    if not done.registered:
        return ""
    if "HYDROPS" in done.registered:
        images = "HYDROPS was"
        made = (
            "HYDROPS, the positive perilymph image minus the positive endolymph image [@HYDROPS], "
            "was made by the scanner; "
        )
    elif "PEI" not in done.registered:
        images = "The inversion image was"
        made = (
            "HYDROPS is the positive perilymph image minus the MRC [@HYDROPS2], which was weighted "
            "so that the brightest perilymph is as far above zero as what the PPI nulls is below; "
        )
    else:
        images = "The inversion images were"
        made = (
            "HYDROPS is the positive perilymph image minus the positive endolymph image "
            "[@HYDROPS]; "
        )
    return (
        f"{images} registered to the MRC rigidly by ANTs (antspyx {_version('antspyx')}) [@ANTs] "
        "with mutual information, of blurred voxels first, then at the sharpest edges of the MRC, "
        "and by the ears alone where an image nulls all fluid but the perilymph; every crop was "
        f"resampled once. {made}HYDROPS-Mi2 is its product with the MRC. "
    )


def _location_words() -> str:
    spacing = " x ".join(map(str, CROP_SPACING_MM))
    return (
        "Both ears were located in the MRC by correlation with a mean labyrinth and cut out at "
        f"{spacing} mm."
    )


def _area_words(done: Done) -> str:
    if not done.registered:
        return ""
    return (
        " The EH area ratio [@area ratio] is the share of "
        "pixels with negative HYDROPS-Mi2 in the organ's region on its representative slice, "
        "which was chosen automatically: for the cochlea the one on which it is longest, for "
        "the vestibule the lowest that shows the ring of the lateral canal over more than "
        f"{RING_DEGREES:.0f} degrees, or where no ring is seen the one below which three "
        "quarters of it lie, but none above the last on which the vestibule's section has "
        f"{LEAST_SECTION:.0%} of its largest. The vestibule's grades follow Nakashima et al. "
        "[@grades]; the cochlea's, by area, are this project's reading of theirs."
    )


def _statistics_words(done: Done) -> str:
    """How estimates were had, of the analyses that gave any."""
    compared = {
        "group comparison": (
            "groups were compared by the larger ear of each participant with both measured "
            "(Mann-Whitney, Hodges-Lehmann shift)"
        ),
        "side comparison": "sides were compared within participants (Wilcoxon)",
        "correlation with hearing": (
            "the correlation with hearing (Spearman) has its interval by resampling participants"
        ),
    }
    told = [words for analysis, words in compared.items() if analysis in done.analyses]
    words = ""
    if told:
        words += (
            f"Two ears of a person are not independent: {'; '.join(told)}. p is corrected after "
            "Holm [@Holm]. "
        )
    if "agreement with reader" in done.analyses:
        words += (
            "Agreement is ICC(2,1), absolute agreement [@ICC], and Bland-Altman [@Bland-Altman], "
            "their intervals by resampling participants where someone has several ears. "
        )
    return words


def _run_words() -> str:
    return f"The work was run by Snakemake {_version('snakemake')} [@Snakemake]."


def _cited(text: str) -> str:
    return page.paragraph(numbered(text))


def _network_words(bundle: Bundle, done: Done) -> str:
    """What the network is, what it saw and what it gave."""
    if bundle.endolymph and not done.registered and not done.volume_ratios:
        return (
            f"{bundle.identifier} ({bundle.metadata['description']}) [@U-Net, @paired, @joint], in "
            f"MONAI {_version('monai')} [@MONAI] and PyTorch {_version('torch')} [@PyTorch], was "
            "given the MRC alone, so that it tells nothing of endolymph: there is no EH ratio."
        )
    if bundle.endolymph:
        ratio = (
            " The EH volume ratio is endolymph over total fluid, both as sums of fractions."
            if done.volume_ratios
            else " No ear has an EH volume ratio."
        )
        landmarks = " and the landmarks" if bundle.metadata["landmarks"] else ""
        papers = "@U-Net, @paired, @joint" if landmarks else "@U-Net, @paired"
        return (
            f"{bundle.identifier} ({bundle.metadata['description']}) [{papers}], in MONAI "
            f"{_version('monai')} [@MONAI] and PyTorch {_version('torch')} [@PyTorch], was given "
            "MRC and HYDROPS-Mi2 and gave the volume fraction of endolymph and perilymph in each "
            f"organ{landmarks}.{ratio}"
        )
    network = (
        f"A 3D U-Net [@U-Net] in MONAI {_version('monai')} [@MONAI] with a second head for the "
        "landmarks [@joint]"
        if bundle.metadata["landmarks"]
        else "Three VGG-19 fronts on consecutive slices [@area ratio]"
    )
    organs = ", ".join(bundle.organs).replace("_", " ")
    return (
        f"{network}, in PyTorch {_version('torch')} [@PyTorch], was given the MRC alone and found: "
        f"{organs}. It tells nothing of endolymph, so there is no EH volume ratio."
    )


def provenance_section(bundle: Bundle, examinations: int, options: Mapping[str, Any]) -> str:
    """What the results were made with and from; no paths, no names.

    Parameters
    ----------
    options
        Options of the configuration that the results depend on.
    """
    sources = bundle.metadata.get("data_source", "")
    facts = [
        ("model", bundle.identifier),
        ("weights, sha256", bundle.sha256),
        ("trained on", str(bundle.metadata.get("description", "see the model card"))),
        ("training data", sources or "see the model card"),
        ("examinations", str(examinations)),
        ("software", ", ".join(f"{name} {_version(name)}" for name in PACKAGES)),
        ("Python", platform.python_version()),
        *((f"option {name}", str(value)) for name, value in sorted(options.items())),
    ]
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td><code>{escape(value)}</code></td></tr>"
        for name, value in facts
    )
    return page.section(
        "provenance",
        "Provenance",
        f"<div class=scroll tabindex=0><table><tbody>{rows}</tbody></table></div>",
    )


def _version(name: str) -> str:
    """Version of an installed package, without the suffix of its build."""
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return "(not installed)"
