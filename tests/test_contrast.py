"""Other inversion times: physics takes back what they change, and nothing where they are usual."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrops.images import save_image
from hydrops.model.contrast import MOST_LONGER, USUAL_PAIR, InversionPair, UsualContrast
from hydrops.model.timing import read_timing, write_timing
from hydrops.paths import Paths, Unit
from hydrops.phantom.signal import (
    MRC,
    PEI,
    PERILYMPH_MMOL,
    PPI,
    TISSUES,
    Sequence,
    gadolinium,
    signal,
)
from hydrops.records import CSF_RATIO, Record, write_record
from hydrops.segment import inversion_pair

UNIT = Unit("01", "1")


def later(by_ms: float) -> InversionPair:
    return InversionPair(*(replace(s, ti_ms=(s.ti_ms or 0.0) + by_ms) for s in (PPI, PEI)))


def seen(pair: InversionPair, shares: np.ndarray, dose: float) -> torch.Tensor:
    """Channels of voxels of fluid alone, the levels of perilymph and CSF known exactly."""
    fluids = [gadolinium(TISSUES["perilymph"], dose), TISSUES["endolymph"]]
    images = []
    for sequence in (pair.ppi, pair.pei):
        perilymph, endolymph = (signal(fluid, sequence) for fluid in fluids)
        images.append(np.abs((1.0 - shares) * perilymph + shares * endolymph))
    hydrops = images[0] - images[1]
    bright = abs(signal(fluids[0], pair.ppi)) - abs(signal(fluids[0], pair.pei))
    dark = pair.csf
    share = (2.0 * hydrops - bright - dark) / (bright - dark)
    full = np.full_like(shares, bright / -dark)
    return torch.from_numpy(np.stack([np.ones_like(shares), share, full]).astype(np.float32))


def fractions(shares: np.ndarray) -> np.ndarray:
    made = np.zeros((7, *shares.shape), np.float32)
    made[1], made[2] = 1.0 - shares, shares
    return made


@settings(deadline=None, max_examples=40)
@given(st.floats(-60.0, 60.0), st.floats(0.8, 2.0), st.integers(0, 2**16))
def test_an_ear_looks_as_with_the_usual_times(by_ms: float, dose: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = np.sort(rng.random((5, 4, 3)), axis=0).astype(np.float32)
    # Enough gadolinium for perilymph to be bright with these times at all.
    mmol = dose * PERILYMPH_MMOL
    pair = later(by_ms)
    channels, usual = seen(pair, shares, mmol), seen(USUAL_PAIR, shares, mmol)
    contrast = UsualContrast.of(channels, pair)
    back = contrast.straightened(contrast.stretched(channels).numpy(), fractions(shares))
    if pair.enhancement(mmol) > 0.2:
        assert back[1] == pytest.approx(usual[1].numpy(), abs=0.06)
        assert back[2] == pytest.approx(usual[2].numpy(), abs=0.06)


def test_without_the_correction_it_looks_otherwise() -> None:
    shares = np.linspace(0.0, 1.0, 27, dtype=np.float32).reshape(3, 3, 3)
    usual = seen(USUAL_PAIR, shares, PERILYMPH_MMOL)
    for by_ms in (-50.0, 50.0):
        other = seen(later(by_ms), shares, PERILYMPH_MMOL)
        assert (other - usual).abs().max() > 0.3


@given(st.floats(0.2, 2.0), st.integers(0, 2**16))
def test_usual_times_change_nothing(enhancement: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.random((4, 4, 4)).astype(np.float32)
    channels = torch.from_numpy(rng.normal(0.0, 1.0, (3, 4, 4, 4)).astype(np.float32))
    channels[2] = enhancement
    contrast = UsualContrast.of(channels, USUAL_PAIR)
    back = contrast.straightened(contrast.stretched(channels).numpy(), fractions(shares))
    assert back == pytest.approx(channels.numpy(), abs=1e-5)


def test_a_bend_is_none_where_no_fluid_changes_its_sign() -> None:
    shares = np.linspace(0.0, 1.0, 11, dtype=np.float32)
    # All is positive in both images long after the null.
    late = InversionPair(replace(PPI, ti_ms=2900.0), replace(PEI, ti_ms=2800.0))
    assert late.bend(shares, PERILYMPH_MMOL) == pytest.approx(0.0, abs=1e-6)
    # Earlier, endolymph is negative in the PPI while perilymph is positive.
    assert later(-50.0).bend(shares, PERILYMPH_MMOL).min() < -0.3


@pytest.mark.parametrize(
    ("tr_ms", "ppi_ms", "pei_ms", "foretold"),
    [
        (9000.0, 2250.0, 2050.0, True),
        (9000.0, 2300.0, 2100.0, True),
        (8500.0, 2230.0, 2030.0, True),
        # Chosen for a repetition time of which nothing is known here.
        (16000.0, 2500.0, 2220.0, False),
        (9000.0, 1900.0, 1700.0, False),
        (9000.0, 2600.0, 2400.0, False),
    ],
)
def test_times_whose_images_are_foretold(
    tr_ms: float, ppi_ms: float, pei_ms: float, foretold: bool
) -> None:
    pair = InversionPair(*(Sequence("x", tr_ms, 540.0, ti_ms) for ti_ms in (ppi_ms, pei_ms)))
    assert pair.foretold is foretold


def test_a_session_tells_its_times_by_its_sidecars(tmp_path: Path) -> None:
    paths, pair = Paths(tmp_path), later(-30.0)
    located = Record("locate", UNIT.participant, UNIT.session, "done")
    write_record(paths.record("locate", UNIT), located)
    assert inversion_pair(UNIT, paths) == USUAL_PAIR
    for role, sequence in (("PPI", pair.ppi), ("PEI", pair.pei)):
        save_image(paths.image(UNIT, role), np.zeros((2, 2, 2), np.float32), np.eye(4))
        write_timing(sequence, paths.sidecar(UNIT, role))
    found = inversion_pair(UNIT, paths)
    assert found is not None
    assert [s.ti_ms for s in (found.ppi, found.pei)] == [2220.0, 2020.0]
    assert found.csf == pytest.approx(pair.csf)
    # A warmer patient: the fluids see shorter times.
    warmer = pair.of_longer_t1(0.01)
    told = {CSF_RATIO: csf_ratio_of(warmer)}
    write_record(paths.record("locate", UNIT), replace(located, numbers=told))
    found = inversion_pair(UNIT, paths)
    assert found is not None
    assert found.csf == pytest.approx(warmer.csf, rel=1e-3)
    write_record(paths.record("locate", UNIT), located)
    # What physics has no hydrops for was made in another way.
    write_timing(replace(PPI, ti_ms=1500.0), paths.sidecar(UNIT, "PPI"))
    assert inversion_pair(UNIT, paths) == USUAL_PAIR
    paths.sidecar(UNIT, "PPI").write_text(json.dumps({"RepetitionTime": 9.0}), encoding="utf-8")
    assert inversion_pair(UNIT, paths) == USUAL_PAIR
    paths.image(UNIT, "PEI").unlink()
    assert inversion_pair(UNIT, paths) is None


def csf_ratio_of(pair: InversionPair) -> float:
    return abs(signal(TISSUES["csf"], pair.ppi)) / abs(signal(TISSUES["csf"], pair.pei))


@given(st.floats(-0.029, 0.149), st.floats(-60.0, 10.0))
def test_csf_tells_how_long_the_t1_of_fluids_are(longer: float, by_ms: float) -> None:
    pair = later(by_ms)
    ratio = csf_ratio_of(pair.of_longer_t1(longer))
    assert pair.longer_t1(ratio) == pytest.approx(longer, abs=5e-4)


def test_csf_brighter_than_any_t1_explains_counts_as_the_bound_and_darker_as_nothing() -> None:
    beyond = [csf_ratio_of(USUAL_PAIR.of_longer_t1(longer)) for longer in (0.16, -0.031, -0.05)]
    found = [USUAL_PAIR.longer_t1(ratio) for ratio in (1.0, *beyond, 0.0)]
    assert found == pytest.approx([MOST_LONGER, MOST_LONGER, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("longer", [-0.015, 0.01, 0.047, 0.1])
def test_of_the_t1_to_either_side_of_a_null_that_counts_which_shows_hydrops(longer: float) -> None:
    """A magnitude does not tell on which side of the null of the PPI the CSF lies."""
    nulling = later(100.0)
    ratio = csf_ratio_of(nulling.of_longer_t1(longer))
    found = nulling.longer_t1(ratio)
    assert csf_ratio_of(nulling.of_longer_t1(found)) == pytest.approx(ratio, abs=0.01)
    falls = [nulling.of_longer_t1(share).typical_fall for share in (found, longer)]
    assert falls[0] >= falls[1] - 1e-3
    assert found > 0.0


def test_a_timing_comes_back_from_its_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "PEI.json"
    assert read_timing(path) is None
    write_timing(PEI, path)
    assert read_timing(path) == PEI
    write_timing(MRC, path)
    assert read_timing(path) is None
