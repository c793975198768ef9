"""What the sidecars of PPI and PEI tell of their timing, and whether that can be gone by."""

from __future__ import annotations

import json
from pathlib import Path

from hydrops.images import SIDECAR_TIMES, read_sidecar
from hydrops.model.contrast import USUAL_PAIR, InversionPair
from hydrops.phantom.signal import Sequence


def read_timing(sidecar: Path) -> Sequence | None:
    """Timing of an inversion image; None where its sidecar does not tell it."""
    told = read_sidecar(sidecar)
    seconds = [told.get(key) or 0.0 for key in SIDECAR_TIMES]
    if not all(seconds):
        return None
    tr_ms, te_ms, ti_ms = (1000.0 * float(value) for value in seconds)
    return Sequence(sidecar.stem, tr_ms, te_ms, ti_ms)


def write_timing(sequence: Sequence, sidecar: Path) -> None:
    """Write a sidecar that tells a timing and nothing else."""
    times = zip(SIDECAR_TIMES, (sequence.tr_ms, sequence.te_ms, sequence.ti_ms))
    told = {key: ms / 1000.0 for key, ms in times if ms is not None}
    sidecar.write_text(json.dumps(told) + "\n", encoding="utf-8")


def read_pair(ppi: Path, pei: Path, csf_ratio: float | None = None) -> InversionPair:
    """Timing of a pair of inversion images by their sidecars, as the patient's fluids see it.

    It is taken for the usual one where a sidecar does not tell it, or tells one of which physics
    does not foretell that it shows hydrops: that was chosen for another way of making images.

    Parameters
    ----------
    csf_ratio
        See `hydrops.register.csf_ratio`; None where it is not known.
    """
    told = [read_timing(sidecar) for sidecar in (ppi, pei)]
    pair = USUAL_PAIR
    if told[0] is not None and told[1] is not None:
        pair = InversionPair(told[0], told[1])
    if not pair.foretold:
        return USUAL_PAIR
    return pair if csf_ratio is None else pair.of_longer_t1(pair.longer_t1(csf_ratio))


def timing_doubt(ppi: Path, pei: Path) -> str | None:
    """Why `read_pair` does not go by sidecars that are there, in words; None where it does."""
    told = {sidecar: read_timing(sidecar) for sidecar in (ppi, pei)}
    silent = [sidecar.name for sidecar, timing in told.items() if timing is None]
    if len(silent) == len(told) and not any(sidecar.is_file() for sidecar in told):
        return None
    if silent:
        return f"{' and '.join(silent)}: tells no {', '.join(SIDECAR_TIMES)}, or is not there"
    one, other = (timing for timing in told.values() if timing is not None)
    if InversionPair(one, other).foretold:
        return None
    return (
        f"{ppi.name} and {pei.name}: with inversion times of {one.ti_ms:g} and {other.ti_ms:g} ms "
        "at their repetition times HYDROPS would not show hydrops (are they in seconds?)"
    )
