"""Physics of the sequences: what is nulled, what is bright, what a subtraction shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hydrops.phantom.signal import (
    MRC,
    PEI,
    PERILYMPH_MMOL,
    PPI,
    TISSUES,
    Sequence,
    Tissue,
    as_if_longer_t1,
    gadolinium,
    null_t1_ms,
    signal,
)

dose = st.floats(0.01, 0.12)


def hydrops_signal(tissue: Tissue) -> float:
    return abs(signal(tissue, PPI)) - abs(signal(tissue, PEI))


@given(st.sampled_from(sorted(TISSUES)), st.sampled_from([MRC, PPI, PEI]), st.floats(-0.1, 0.1))
def test_shorter_times_show_what_longer_t1_would(
    name: str, sequence: Sequence, longer: float
) -> None:
    tissue = TISSUES[name]
    slow = replace(tissue, t1_ms=tissue.t1_ms * (1.0 + longer))
    assert signal(tissue, as_if_longer_t1(sequence, longer)) == pytest.approx(
        signal(slow, sequence), abs=1e-12
    )


def test_ppi_nulls_endolymph() -> None:
    assert abs(signal(TISSUES["endolymph"], PPI)) < 0.05 * abs(signal(TISSUES["endolymph"], PEI))


@pytest.mark.parametrize("sequence", [PPI, PEI])
def test_null_point_is_where_the_bloch_equation_puts_it(sequence: Sequence) -> None:
    """Independently: let magnetisation relax in small steps from the steady state."""
    t1 = null_t1_ms(sequence)
    steps = np.arange(0.0, sequence.tr_ms, 0.5)
    magnetisation = 1.0
    assert sequence.ti_ms is not None
    for _ in range(2):  # one repetition to reach the steady state of a spoiled train
        magnetisation = -magnetisation
        course = []
        for _step in steps:
            course.append(magnetisation)
            magnetisation += (1.0 - magnetisation) * 0.5 / t1
        at_readout = course[int(sequence.ti_ms / 0.5)]
    # The formula takes the inverted magnetisation as that after one full recovery.
    assert at_readout == pytest.approx(0.0, abs=0.01)


def test_a_typical_patients_perilymph_is_what_pei_nulls() -> None:
    perilymph = gadolinium(TISSUES["perilymph"], PERILYMPH_MMOL)
    assert perilymph.t1_ms == pytest.approx(null_t1_ms(PEI), rel=0.005)


@given(dose)
def test_hydrops_is_positive_in_perilymph_and_negative_in_endolymph(mmol: float) -> None:
    assert hydrops_signal(gadolinium(TISSUES["perilymph"], mmol)) > 0
    assert hydrops_signal(TISSUES["endolymph"]) < 0
    assert hydrops_signal(TISSUES["csf"]) < 0


@given(dose, dose)
def test_more_gadolinium_shortens_both_times(a: float, b: float) -> None:
    less, more = sorted((a, b))
    first, second = (gadolinium(TISSUES["perilymph"], c) for c in (less, more))
    assert first.t1_ms >= second.t1_ms
    assert first.t2_ms >= second.t2_ms


def test_cisternography_shows_fluid_alone() -> None:
    fluid = min(signal(TISSUES[n], MRC) for n in ("csf", "endolymph", "perilymph"))
    other = max(signal(TISSUES[n], MRC) for n in ("bone", "fat", "white_matter", "muscle"))
    assert fluid > 15 * other


def test_a_sequence_without_inversion_nulls_nothing() -> None:
    with pytest.raises(ValueError, match="no inversion"):
        null_t1_ms(MRC)
