"""Statistics against published examples and independent implementations."""

from __future__ import annotations

from collections.abc import Callable
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
from hydrops.figures import write_figures
from hydrops.labels import LABYRINTH, ORGANS
from hydrops.participants import read_participants
from hydrops.report import _agreement_sentences
from hydrops.statistics import (
    agreement_of,
    bland_altman,
    cohort_statistics,
    icc_2_1,
    icc_2_1_table,
    nth_difference,
    read_reader_table,
)

COMPARED = ("eh_volume_ratio", "reader_value")
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


def test_a_constant_offset_leaves_the_icc_as_unsure_as_one_with_hardly_any_noise() -> None:
    first = np.linspace(0.1, 0.9, 12)
    exact = icc_2_1(first, first + 0.3)
    noisy = icc_2_1(first, first + 0.3 + 1e-7 * np.random.default_rng(0).normal(size=12))
    assert exact == pytest.approx(noisy, abs=1e-4)
    assert exact[1] < exact[0] - 0.2
    assert icc_2_1(first, first) == (1.0, 1.0, 1.0)


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


def test_limits_of_agreement_hold_19_of_20_differences() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=4000)
    difference = rng.normal(0.1, 0.5, 4000)
    found = bland_altman(a + difference, a)
    within = (difference > found["lower"]) & (difference < found["upper"])
    assert within.mean() == pytest.approx(0.95, abs=0.01)
    assert found["upper"] - found["bias"] == pytest.approx(found["bias"] - found["lower"])
    low, high = stats.t.interval(0.95, 3999, difference.mean(), stats.sem(difference))
    assert (found["bias_low"], found["bias_high"]) == pytest.approx((low, high))


def cohort(shift: float, n: int = 8, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Controls, and patients of whom every other one is affected on the right."""
    rng = np.random.default_rng(seed)
    affected = ["none"] * n + [("left", "right")[i % 2] for i in range(n)]
    heard = {
        side: rng.normal(20, 5, 2 * n) + 30 * (np.array(affected) == side)
        for side in ("left", "right")
    }
    people = pd.DataFrame(
        {
            "participant_id": [f"{i:02d}" for i in range(2 * n)],
            "session_id": "1",
            "group": ["control"] * n + ["meniere"] * n,
            "affected_side": affected,
            "pta_left": heard["left"],
            "pta_right": heard["right"],
        }
    )
    rows = []
    for person in people.itertuples():
        for side in ("left", "right"):
            sick = person.affected_side == side
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
    # Of all ways to divide 16 persons two are as extreme, and of all signs of 8 differences.
    assert groups.p_value == pytest.approx(2 / 12870, rel=0.01)
    sides = find(table, "side comparison", "affected - other ear")
    assert sides.p_corrected < 0.05
    assert sides.estimate == pytest.approx(0.2, abs=0.04)
    assert sides.effect_size == pytest.approx(1.0)
    assert sides.p_value == pytest.approx(2 / 2**8, rel=0.01)
    assert abs(find(table, "side comparison", "left - right").estimate) < 0.04
    assert find(table, "correlation with hearing", "pure-tone average").estimate > 0.3
    null = cohort_statistics(*cohort(0.0), None)
    assert find(null, "group comparison", "control - meniere").p_corrected > 0.05


def test_a_summary_of_ears_has_their_quartiles() -> None:
    ears = pd.DataFrame(
        {
            "participant_id": [f"{i:03d}" for i in range(101)],
            "session_id": "1",
            "side": "left",
            "organ": LABYRINTH,
            "eh_volume_ratio": np.arange(101.0),
            "eh_area_ratio": np.nan,
        }
    )
    people = ears[["participant_id", "session_id"]].assign(group="control")
    row = find(cohort_statistics(ears, people, None), "group summary", "control")
    assert (row.ci_low, row.estimate, row.ci_high) == (25.0, 50.0, 75.0)


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


def test_who_has_no_group_is_in_none(tmp_path: Path) -> None:
    ears, people = cohort(0.2)
    people.loc[[0, 8], "group"] = ["", "n/a"]
    people["source"] = people["participant_id"]
    path = tmp_path / "participants.tsv"
    people.to_csv(path, sep="\t", index=False)
    table = cohort_statistics(ears, read_participants(path), None)
    groups = table[table.analysis == "group comparison"]
    assert set(groups.comparison) == {"control - meniere"}
    assert set(groups.n.dropna()) == {14}
    summaries = table[table.analysis == "group summary"]
    assert set(summaries.comparison) == {"control", "meniere"}


def test_a_group_may_be_called_all() -> None:
    ears, people = cohort(0.2)
    people["group"] = people["group"].replace("control", "all")
    table = cohort_statistics(ears, people, None)
    assert find(table, "group summary", "all").n == 16
    assert find(table, "group summary", "meniere").n == 16


def test_who_has_one_ear_measured_is_not_compared_by_it() -> None:
    ears, people = cohort(0.2)
    sick = (ears.participant_id == "08") & (ears.side == "left")
    table = cohort_statistics(ears[~sick], people, None)
    row = find(table, "group comparison", "control - meniere")
    assert row.n == 15
    assert "1 with one ear measured left out" in row.note


def test_the_session_listed_first_counts() -> None:
    ears, people = cohort(0.0)
    first = people.assign(session_id="2")
    # As text, 10 comes before 2, and post before pre.
    later = people.assign(session_id="10")
    scans = [ears.assign(session_id="10", eh_volume_ratio=0.9), ears.assign(session_id="2")]
    table = cohort_statistics(pd.concat(scans), pd.concat([first, later]), None)
    once = cohort_statistics(ears, people, None)
    for analysis, comparison in (
        ("group comparison", "control - meniere"),
        ("side comparison", "left - right"),
    ):
        assert find(table, analysis, comparison).p_value == pytest.approx(
            find(once, analysis, comparison).p_value
        )


def test_pairs_without_a_difference_leave_the_effect_size_whole() -> None:
    a = np.array([0.0] * 5 + [0.1, 0.2, 0.3, 0.4, 0.5])
    row = statistics._paired("cochlea", "eh_area_ratio", "left - right", a, np.zeros(10))
    assert row["effect_size"] == pytest.approx(1.0)
    assert row["n"] == 10
    assert "5 pairs without a difference" in row["note"]
    matched = pg.wilcoxon(a[5:], np.zeros(5))["RBC"].iloc[0]
    assert row["effect_size"] == pytest.approx(float(matched))


def stepped_down(p: np.ndarray) -> np.ndarray:
    """Holm: the smallest times how many there are, the next times one less, and never falling."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    return corrected


def test_pairs_of_groups_are_corrected_together() -> None:
    ears, people = cohort(0.1, n=9)
    people["group"] = np.repeat(["a", "b", "c"], 6)
    table = cohort_statistics(ears, people, None)
    rows = table[(table.analysis == "group comparison") & table.p_value.notna()]
    assert rows.comparison.nunique() == 3
    steps = stepped_down(rows.p_value.to_numpy())
    assert rows.p_corrected.to_numpy() == pytest.approx(steps, rel=0.01)


def test_every_comparison_is_corrected_over_organs_and_measures() -> None:
    table = cohort_statistics(*cohort(0.05), None).dropna(subset=["p_value"])
    assert (table.p_corrected >= table.p_value - 1e-9).all()
    families = dict(list(table.groupby(["analysis", "comparison"])))
    assert set(families) == {
        ("group comparison", "control - meniere"),
        ("side comparison", "affected - other ear"),
        ("side comparison", "left - right"),
        ("correlation with hearing", "pure-tone average"),
    }
    for name, rows in families.items():
        assert len(rows) > 2, name
        steps = stepped_down(rows.p_value.to_numpy())
        assert rows.p_corrected.to_numpy() == pytest.approx(steps, rel=0.01), name


def test_agreement_with_a_reader_who_agrees() -> None:
    ears, people = cohort(0.2)
    reader = ears.assign(reader="A", eh_volume_ratio=ears.eh_volume_ratio + 0.01)
    table = cohort_statistics(ears, people, reader.drop(columns="eh_area_ratio"))
    rows = table[(table.analysis == "agreement with reader") & (table.organ == LABYRINTH)]
    assert rows[rows.estimate_name == "ICC(2,1)"].estimate.iloc[0] > 0.97
    assert rows[rows.estimate_name == "bias"].estimate.iloc[0] == pytest.approx(-0.01)


def test_where_all_ears_have_one_value_agreement_is_not_told_and_why(tmp_path: Path) -> None:
    ears, people = cohort(0.2)
    alike = ears.assign(eh_volume_ratio=0.3)
    reader = alike.assign(reader="A").drop(columns="eh_area_ratio")
    table = cohort_statistics(alike, people, reader)
    rows = table[table.analysis == "agreement with reader"]
    assert rows.estimate.isna().all()
    assert set(rows.note) == {"all ears have one value, by pipeline and reader alike"}
    figures = write_figures(alike, people, reader, table, True, tmp_path)
    (figure,) = [figure for figure in figures if figure.name == "agreement"]
    assert "All ears have one value" in figure.caption


@pytest.mark.parametrize("missing", ["eh_volume_ratio", "pta_left"])
def test_an_ear_seen_in_two_sessions_counts_once(missing: str) -> None:
    ears, people = cohort(0.2)
    once = cohort_statistics(ears, people, None)
    # Listed first, but one ear of the first participant has no value there.
    first_ears, first = ears.assign(session_id="2"), people.assign(session_id="2")
    (first_ears if missing in first_ears else first).loc[0, missing] = np.nan
    twice = cohort_statistics(
        pd.concat([ears, first_ears], ignore_index=True),
        pd.concat([first, people], ignore_index=True),
        None,
    )
    for analysis in ("group summary", "correlation with hearing"):
        expected, found = (
            table[table.analysis == analysis].set_index(["organ", "measure", "comparison"])
            for table in (once, twice)
        )
        assert found.n.to_dict() == expected.n.to_dict()
        assert found.estimate.to_dict() == pytest.approx(expected.estimate.to_dict(), nan_ok=True)
    assert find(twice, "correlation with hearing", "pure-tone average").n == 32
    assert find(twice, "group summary", "meniere").n == 16


def test_an_ear_counts_by_the_session_listed_first_whatever_the_order_of_rows() -> None:
    ears, people = cohort(0.2)
    changed = ears.assign(session_id="2", eh_volume_ratio=0.9 - ears.eh_volume_ratio)
    listed = pd.concat([people, people.assign(session_id="2")], ignore_index=True)
    table = cohort_statistics(pd.concat([changed, ears], ignore_index=True), listed, None)
    once = cohort_statistics(ears, people, None)
    for analysis, comparison in (
        ("group summary", "control"),
        ("correlation with hearing", "pure-tone average"),
    ):
        kept, expected = (find(found, analysis, comparison) for found in (table, once))
        assert kept[["n", "estimate"]].tolist() == expected[["n", "estimate"]].tolist()


def test_of_several_readers_the_mean_counts() -> None:
    ears, people = cohort(0.2)
    readers = [
        ears.assign(reader=name, eh_volume_ratio=ears.eh_volume_ratio + apart)
        for name, apart in (("A", 0.05), ("B", -0.05))
    ]
    table = cohort_statistics(ears, people[["participant_id", "session_id"]], pd.concat(readers))
    table = table[table.measure == "eh_volume_ratio"]
    rows = table[(table.analysis == "agreement with reader") & (table.organ == LABYRINTH)]
    told = rows.set_index("estimate_name").estimate
    assert told["ICC(2,1)"] == pytest.approx(1.0)
    assert told["bias"] == pytest.approx(0.0, abs=1e-6)
    assert rows.note.str.contains("mean of 2 readers").all()


@pytest.mark.parametrize(
    ("alone", "words"),
    [
        (lambda t: t.organ == LABYRINTH, "the reader"),
        (lambda t: t.participant_id < "04", "the mean of 1 to 2 readers"),
        (lambda t: t.participant_id < "00", "the mean of 2 readers"),
    ],
)
def test_readers_are_counted_where_they_read(
    alone: Callable[[pd.DataFrame], pd.Series], words: str
) -> None:
    ears, people = cohort(0.2)
    second = ears.assign(reader="B")
    # The second reader has rows of all ears, but no value in some.
    second.loc[alone(second), "eh_volume_ratio"] = np.nan
    reader = pd.concat([ears.assign(reader="A"), second])
    table = cohort_statistics(ears, people, reader)
    row = find(table, "agreement with reader", "pipeline - reader")
    assert row.note.endswith(f"; against {words}")
    (sentence,) = _agreement_sentences(table, (LABYRINTH,))
    assert f"agreement with {words}: ICC" in sentence
    (other,) = _agreement_sentences(table, ("cochlea",))
    assert "agreement with the mean of" in other


def test_readers_who_share_the_ears_make_no_mean() -> None:
    ears, people = cohort(0.2)
    reader = ears.assign(reader=np.where(ears.side == "left", "A", "B"))
    (sentence,) = _agreement_sentences(cohort_statistics(ears, people, reader), (LABYRINTH,))
    assert "agreement with one of 2 readers for each ear: ICC" in sentence


def test_resampled_agreement_holds_19_of_20_of_the_draws() -> None:
    """The same draws of persons, each measured by the functions for ears that are independent."""
    rng = np.random.default_rng(5)
    names = np.repeat(list("abcdefgh"), 2)
    theirs = rng.uniform(0.1, 0.6, 16)
    ours = theirs + np.repeat(rng.normal(0.0, 0.05, 8), 2) + rng.normal(0.0, 0.02, 16)
    both = pd.DataFrame({"participant_id": names, COMPARED[0]: ours, COMPARED[1]: theirs})
    (_, *interval), limits, _ = agreement_of(both, COMPARED, "participant_id")
    again = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        who = again.integers(8, size=8)
        pairs = np.concatenate([[2 * i, 2 * i + 1] for i in who])
        found = bland_altman(ours[pairs], theirs[pairs])
        icc = icc_2_1(ours[pairs], theirs[pairs])[0]
        drawn.append((icc, found["bias"], found["lower"], found["upper"]))
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    assert interval == pytest.approx((low[0], high[0]))
    for place, name in enumerate(("bias", "lower", "upper"), start=1):
        told = (limits[f"{name}_low"], limits[f"{name}_high"])
        assert told == pytest.approx((low[place], high[place])), name


def test_an_interval_of_agreement_allows_for_ears_of_one_person_that_err_alike() -> None:
    """By formula the interval of a bias would be too narrow by the root of two."""
    rng = np.random.default_rng(0)
    names = np.repeat([f"{i:03d}" for i in range(300)], 2)
    theirs = rng.uniform(0.1, 0.6, 600)
    shared = np.repeat(rng.normal(0.0, 0.05, 300), 2)
    both = pd.DataFrame(
        {"participant_id": names, "eh_volume_ratio": theirs + shared, "reader_value": theirs}
    )
    icc, limits, how = agreement_of(both, COMPARED, "participant_id")
    assert "resample participants" in how
    alone = both.iloc[::2]
    _, limits_alone, how_alone = agreement_of(alone, COMPARED, "participant_id")
    assert "formula" in how_alone
    assert icc[1] < icc[0] < icc[2]
    for key in ("bias", "lower", "upper"):
        width, by_one_ear = (
            each[f"{key}_high"] - each[f"{key}_low"] for each in (limits, limits_alone)
        )
        assert width == pytest.approx(by_one_ear, rel=0.25), key
    naive = bland_altman(*both[list(COMPARED)].to_numpy().T)
    width = limits["bias_high"] - limits["bias_low"]
    assert width > 1.2 * (naive["bias_high"] - naive["bias_low"])


def test_an_agreement_of_two_persons_has_an_interval_too() -> None:
    both = pd.DataFrame(
        {
            "participant_id": ["a", "a", "b"],
            "eh_volume_ratio": [0.1, 0.3, 0.2],
            "reader_value": [0.12, 0.28, 0.25],
        }
    )
    icc, limits, _ = agreement_of(both, COMPARED, "participant_id")
    assert np.isfinite([*icc, *limits.values()]).all()


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_too_few_data_give_a_note_and_no_figure(keep: int) -> None:
    ears, people = cohort(0.1, n=1)
    table = cohort_statistics(ears[ears.participant_id.isin(people.participant_id[:keep])],
                              people, None)  # fmt: skip
    tests = table[table.analysis != "group summary"]
    assert tests.p_value.isna().all()
    assert tests.note.notna().all()
    assert (tests.note != "").all()


def test_a_reader_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "reader.tsv"
    path.write_text("participant_id\tsession_id\tside\torgan\n")
    with pytest.raises(HydropsError, match="column reader is missing"):
        read_reader_table(path)


def reader_file(folder: Path, **changes: str) -> Path:
    row = {
        "participant_id": "sub-01", "session_id": "ses-1", "side": "left", "organ": "cochlea",
        "reader": "A", "eh_volume_ratio": "0.35",
    } | changes  # fmt: skip
    path = folder / "reader.tsv"
    path.write_text("\t".join(row) + "\n" + "\t".join(row.values()) + "\n", encoding="utf-8")
    return path


def test_a_reader_names_persons_as_participants_tsv_does(tmp_path: Path) -> None:
    table = read_reader_table(reader_file(tmp_path))
    assert table[["participant_id", "session_id"]].to_numpy().tolist() == [["01", "1"]]
    assert table["eh_volume_ratio"].tolist() == [0.35]
    assert read_reader_table(reader_file(tmp_path, eh_volume_ratio="n/a"))[
        "eh_volume_ratio"
    ].isna().all()  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("eh_volume_ratio", "0,35", "is no number"),
        ("eh_volume_ratio", "12", "is no share, from 0 to 1"),
        ("eh_volume_ratio", "-0.1", "is no share, from 0 to 1"),
        ("side", "L", "none of left, right"),
        ("organ", "saccule", "none of cochlea"),
    ],
)
def test_a_mistake_of_a_reader_is_named_with_its_line(
    tmp_path: Path, column: str, value: str, words: str
) -> None:
    with pytest.raises(HydropsError, match=f"line 2, column {column}: '{value}' .*{words}"):
        read_reader_table(reader_file(tmp_path, **{column: value}))


def test_lines_of_a_readers_table_are_those_of_the_file(tmp_path: Path) -> None:
    path = reader_file(tmp_path)
    header, row = path.read_text().splitlines()
    path.write_text("\n".join((header, "", row, "\t\t", row.replace("left", "L"))) + "\n")
    with pytest.raises(HydropsError, match="line 5, column side: 'L'"):
        read_reader_table(path)
    path.write_text("\n".join((header, "", row, "\t\t")) + "\n")
    assert len(read_reader_table(path)) == 1


def test_a_reader_table_in_another_encoding_is_told(tmp_path: Path) -> None:
    path = reader_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"A", "\u00c4".encode("cp1252")))
    with pytest.raises(HydropsError, match="save it as UTF-8"):
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


def test_a_resampled_shift_holds_19_of_20_of_the_draws() -> None:
    """The same draws, each with the median of its table of all pairs."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.3, 0.1, 9), rng.normal(0.2, 0.1, 11)
    shift, low, high, how = statistics._shift(x, y)
    again = np.random.default_rng(0)
    drawn = []
    for _ in range(1000):
        a, b = again.choice(x, 9), again.choice(y, 11)
        drawn.append(statistics.nth_difference(a, b, 50))
    assert how == "bootstrap"
    assert shift == pytest.approx(np.median(x[:, None] - y))
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))


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
