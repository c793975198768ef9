"""Statistics against published examples and independent implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pingouin as pg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hydrops import statistics
from hydrops.errors import HydropsError
from hydrops.labels import LABYRINTH, ORGANS
from hydrops.statistics import (
    bland_altman,
    cohort_statistics,
    icc_2_1,
    icc_2_1_table,
    nth_difference,
    read_reader_table,
)

#: Shrout and Fleiss 1979, table 2: six targets, four judges.
SHROUT_FLEISS = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)


def test_icc_of_the_published_example() -> None:
    assert icc_2_1_table(SHROUT_FLEISS)[0] == pytest.approx(0.29, abs=0.005)


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.integers(5, 40))
def test_icc_and_interval_agree_with_pingouin(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n)
    a, b = truth + rng.normal(size=n) * 0.4, truth + 0.2 + rng.normal(size=n) * 0.4
    long = pd.DataFrame(
        {"s": list(range(n)) * 2, "r": ["a"] * n + ["b"] * n, "v": np.concatenate([a, b])}
    )
    row = pg.intraclass_corr(long, "s", "r", "v").iloc[1]
    icc, low, high = icc_2_1(a, b)
    assert icc == pytest.approx(row["ICC"], abs=1e-6)
    interval = next(row[c] for c in row.index if c.startswith("CI95"))
    assert (low, high) == pytest.approx(tuple(interval), abs=0.006)


@settings(max_examples=25)
@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=12),
    st.lists(st.floats(-1, 1), min_size=1, max_size=12),
    st.data(),
)
def test_the_nth_difference_is_that_of_the_table_of_all_pairs(
    x: list[float], y: list[float], data: st.DataObject
) -> None:
    a, b = np.array(x), np.array(y)
    n = data.draw(st.integers(1, len(x) * len(y)))
    expected = np.sort(np.subtract.outer(a, b).ravel())[n - 1]
    assert nth_difference(a, b, n) == pytest.approx(expected, abs=1e-12)


def test_bland_altman_of_a_constant_shift() -> None:
    x = np.linspace(0.1, 0.5, 20)
    found = bland_altman(x + 0.03, x)
    assert found["bias"] == pytest.approx(0.03)
    assert found["upper"] == pytest.approx(0.03)


def cohort(shift: float, n: int = 8, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    people = pd.DataFrame(
        {
            "participant_id": [f"{i:02d}" for i in range(2 * n)],
            "session_id": "1",
            "group": ["control"] * n + ["meniere"] * n,
            "affected_side": ["none"] * n + ["left"] * n,
            "pta_left": rng.normal(20, 5, 2 * n) + np.repeat([0, 30], n),
            "pta_right": rng.normal(20, 5, 2 * n),
        }
    )
    rows = []
    for person in people.itertuples():
        for side in ("left", "right"):
            sick = person.group == "meniere" and side == "left"
            for organ in (*ORGANS, LABYRINTH):
                rows.append(
                    {
                        "participant_id": person.participant_id,
                        "session_id": "1",
                        "side": side,
                        "organ": organ,
                        "eh_volume_ratio": 0.15 + rng.normal(0, 0.02) + shift * sick,
                        "eh_area_ratio": 0.2 if organ in ("cochlea", "vestibule") else np.nan,
                    }
                )
    return pd.DataFrame(rows), people


def find(table: pd.DataFrame, analysis: str, comparison: str) -> pd.Series:
    chosen = table[
        (table.analysis == analysis) & (table.comparison == comparison) & (table.organ == LABYRINTH)
    ]
    return chosen.iloc[0]


def test_a_real_difference_is_found_and_none_is_not() -> None:
    table = cohort_statistics(*cohort(0.2), None)
    groups = find(table, "group comparison", "control - meniere")
    assert groups.p_corrected < 0.05
    assert groups.effect_size == pytest.approx(-1.0)
    assert groups.estimate == pytest.approx(-0.2, abs=0.04)
    assert find(table, "side comparison", "affected - other ear").p_corrected < 0.05
    assert find(table, "correlation with hearing", "pure-tone average").estimate > 0.3
    null = cohort_statistics(*cohort(0.0), None)
    assert find(null, "group comparison", "control - meniere").p_corrected > 0.05


@pytest.mark.parametrize(
    ("missing", "analyses"),
    [
        (["affected_side"], {"group comparison", "correlation with hearing"}),
        (["pta_left", "pta_right"], {"group comparison", "side comparison"}),
        (["group"], {"side comparison", "correlation with hearing"}),
        (["group", "affected_side", "pta_left", "pta_right"], set()),
    ],
)
def test_what_a_table_does_not_tell_leaves_the_rest_as_it_is(
    missing: list[str], analyses: set[str]
) -> None:
    """A participants.tsv as `hydrops scan` writes it has none of these columns."""
    ears, people = cohort(0.2)
    whole, less = (cohort_statistics(ears, p, None) for p in (people, people.drop(columns=missing)))
    found = set(less[less.p_value.notna()].analysis)
    assert found == analyses | {"side comparison"}
    columns = ["analysis", "organ", "measure", "comparison", "p_value"]
    kept = less[less.p_value.notna()][columns]
    assert len(kept.merge(whole[columns])) == len(kept)


def test_correction_never_lowers_a_p_value() -> None:
    table = cohort_statistics(*cohort(0.05), None).dropna(subset=["p_value"])
    assert (table.p_corrected >= table.p_value - 1e-9).all()


def test_agreement_with_a_reader_who_agrees() -> None:
    ears, people = cohort(0.2)
    reader = ears.assign(reader="A", eh_volume_ratio=ears.eh_volume_ratio + 0.01)
    table = cohort_statistics(ears, people, reader.drop(columns="eh_area_ratio"))
    rows = table[(table.analysis == "agreement with reader") & (table.organ == LABYRINTH)]
    assert rows[rows.estimate_name == "ICC(2,1)"].estimate.iloc[0] > 0.97
    assert rows[rows.estimate_name == "bias"].estimate.iloc[0] == pytest.approx(-0.01)


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_too_few_data_give_a_note_and_no_figure(keep: int) -> None:
    ears, people = cohort(0.1, n=1)
    table = cohort_statistics(ears[ears.participant_id.isin(people.participant_id[:keep])],
                              people, None)  # fmt: skip
    tests = table[table.analysis != "group summary"]
    assert tests.p_value.isna().all()
    assert (tests.note != "").all()


def test_a_reader_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reader.tsv"
    path.write_text("participant_id\tsession_id\tside\torgan\n")
    with pytest.raises(HydropsError, match="column reader is missing"):
        read_reader_table(path)


def test_the_interval_of_large_groups_agrees_with_the_bootstrap(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ears, people = cohort(0.1, n=60)

    def found() -> pd.Series:
        table = cohort_statistics(ears, people, None)
        rows = table[(table.analysis == "group comparison") & (table.organ == LABYRINTH)]
        return rows.iloc[0]

    small = found()
    monkeypatch.setattr(statistics, "MOST_PAIRS", 0)
    large = found()
    assert "bootstrap" in small["note"]
    assert "distribution-free" in large["note"]
    assert large["estimate"] == small["estimate"]
    width = small["ci_high"] - small["ci_low"]
    assert large["ci_low"] == pytest.approx(small["ci_low"], abs=0.2 * width)
    assert large["ci_high"] == pytest.approx(small["ci_high"], abs=0.2 * width)


def test_resampled_hearing_gives_what_scipy_gives_draw_by_draw() -> None:
    """The same draws, each correlated by scipy, ears of a person repeated where one is missing."""
    rng = np.random.default_rng(3)
    people = [np.round(rng.normal(size=(rng.integers(1, 3), 2)), 1) for _ in range(12)]
    low, high, p = statistics._clustered_spearman(people, 0.3)
    again = np.random.default_rng(0)
    drawn, permuted = [], []
    for _ in range(1000):
        chosen = np.concatenate([people[i] for i in again.integers(12, size=12)])
        drawn.append(stats.spearmanr(*chosen.T).statistic)
        pairs = [(a, people[o]) for a, o in zip(people, again.permutation(12))]
        x = np.concatenate([np.resize(a[:, 0], max(len(a), len(b))) for a, b in pairs])
        y = np.concatenate([np.resize(b[:, 1], max(len(a), len(b))) for a, b in pairs])
        permuted.append(stats.spearmanr(x, y).statistic)
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))
    assert p == pytest.approx((1 + np.sum(np.abs(permuted) >= 0.3)) / 1001, abs=0.002)
