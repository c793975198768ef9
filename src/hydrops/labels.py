"""The words for what is segmented, and their codes in label images."""

from __future__ import annotations

#: Organs of the labyrinth, in the order of their codes.
ORGANS = ("cochlea", "vestibule", "semicircular_canals")

#: Name of the whole, the sum of the organs.
LABYRINTH = "labyrinth"

#: Classes of a segmentation; the index is the code in a `dseg` and the channel in a `probseg`.
LABELS = (
    "background",
    "cochlea_pls",
    "cochlea_els",
    "vestibule_pls",
    "vestibule_els",
    "semicircular_canals_pls",
    "semicircular_canals_els",
)

#: Landmarks in the order of the heatmap channels.
LANDMARKS = ("helicotrema", "oval_window", "round_window")

SIDES = ("left", "right")


def perilymph_code(organ: str) -> int:
    """Code of an organ's perilymphatic space."""
    return LABELS.index(f"{organ}_pls")


def endolymph_code(organ: str) -> int:
    """Code of an organ's endolymphatic space."""
    return LABELS.index(f"{organ}_els")


def organ_codes(organ: str) -> list[int]:
    """Codes of an organ's perilymphatic and endolymphatic space."""
    return [perilymph_code(organ), endolymph_code(organ)]
