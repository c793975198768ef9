"""Figures: what they show is what the tables say, the same each time, and never a crash."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ears import a_reader, empty_like, made_up_cohort, made_up_statistics
from hydrops.figures import CohortFigure, _hearing, _sides, _tidy, p_words, write_figures
from hydrops.labels import LABYRINTH
from hydrops.statistics import cohort_statistics

NAMES = ["ratio_by_group", "sides", "hearing", "agreement"]


def figures_of(
    folder: Path,
    ears: pd.DataFrame,
    people: pd.DataFrame,
    reader: pd.DataFrame | None = None,
    simulated: bool = False,
) -> dict[str, CohortFigure]:
    statistics = made_up_statistics(10)
    figures = write_figures(ears, people, reader, statistics, simulated, folder)
    return {figure.name: figure for figure in figures}


def words_of(folder: Path, name: str) -> str:
    """Text of an SVG, which its comments keep beside the outlines of the letters."""
    return (folder / f"{name}.svg").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, CohortFigure]]:
    folder = tmp_path_factory.mktemp("figures")
    people, ears = made_up_cohort(10)
    return folder, figures_of(folder, ears, people, a_reader(ears, 0.02))


def test_every_figure_is_there_as_png_and_svg(drawn: tuple[Path, dict[str, CohortFigure]]) -> None:
    folder, figures = drawn
    assert list(figures) == NAMES
    assert {p.name for p in folder.iterdir()} == {f"{n}.{e}" for n in NAMES for e in ("png", "svg")}
    assert plt.get_fignums() == []


def test_the_same_tables_give_the_same_bytes(
    drawn: tuple[Path, dict[str, CohortFigure]], tmp_path: Path
) -> None:
    folder, _ = drawn
    people, ears = made_up_cohort(10)
    figures_of(tmp_path, ears, people, a_reader(ears, 0.02))
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_numbers_on_the_figures_are_those_of_the_tables(
    drawn: tuple[Path, dict[str, CohortFigure]],
) -> None:
    folder, _ = drawn
    people, ears = made_up_cohort(10)
    reader = a_reader(ears, 0.02)
    statistics = made_up_statistics(10)
    whole = ears["organ"] == LABYRINTH
    agreement = cohort_statistics(ears, people, reader).query(
        "estimate_name == 'ICC(2,1)' and organ == @LABYRINTH and measure == 'eh_volume_ratio'"
    )
    for row in agreement.itertuples():
        words = f"{row.estimate:.3f} (95 % CI {row.ci_low:.3f} to {row.ci_high:.3f})"
        assert f"ICC(2,1) {words}" in words_of(folder, "agreement")
    assert len(agreement) == 1
    difference = (ears - reader[["eh_volume_ratio"]].reindex(columns=ears.columns))[whole]
    bias = difference["eh_volume_ratio"].mean()
    assert f"{bias:+.3f}" in words_of(folder, "agreement")
    # Ten people, two ears each, five in each group.
    assert words_of(folder, "ratio_by_group").count("n = 10 | 10") == 4
    tests = statistics[
        (statistics.analysis == "group comparison") & (statistics.measure == "eh_volume_ratio")
    ]
    for p in tests["p_corrected"]:
        assert p_words(p) in words_of(folder, "ratio_by_group").replace("&lt;", "<")


def test_every_point_is_an_ear_with_its_own_hearing_or_a_left_against_a_right_one() -> None:
    people, ears = made_up_cohort(6)
    table = _tidy(ears, people)
    whole = ears[ears["organ"] == LABYRINTH].set_index(["participant_id", "side"])
    ratio = whole["eh_volume_ratio"]
    heard = people.set_index("participant_id")
    hearing = {(heard.loc[name, f"pta_{side}"], ratio[name, side]) for name, side in whole.index}
    pairs = {(ratio[name, "left"], ratio[name, "right"]) for name in heard.index}
    for (figure, _), expected in (
        (_hearing(table, made_up_statistics(10)), hearing),
        (_sides(table), pairs),
    ):
        lines = figure.axes[0].lines
        points = np.concatenate([line.get_xydata() for line in lines if line.get_ls() == "None"])
        assert {tuple(point) for point in points.tolist()} == expected


def test_simulated_data_are_marked_and_real_ones_are_not(tmp_path: Path) -> None:
    people, ears = made_up_cohort(6)
    for simulated in (True, False):
        folder = tmp_path / str(simulated)
        figures = figures_of(folder, ears, people, a_reader(ears, 0.02), simulated)
        for name, figure in figures.items():
            assert ("Simulation" in figure.caption) == simulated
            assert ("SIMULATED DATA" in words_of(folder, name)) == simulated


def test_what_cannot_be_drawn_says_why_and_leaves_no_old_picture(tmp_path: Path) -> None:
    people, ears = made_up_cohort(6)
    figures_of(tmp_path, ears, people, a_reader(ears, 0.02))
    assert len(list(tmp_path.iterdir())) == 8
    bare = people[["participant_id", "session_id", "source"]]
    found = write_figures(ears, bare, None, made_up_statistics(10), False, tmp_path)
    figures = {figure.name: figure for figure in found}
    assert figures["ratio_by_group"].png is not None
    assert figures["agreement"].png is None
    assert "reader" in figures["agreement"].caption
    assert "pta_left" in figures["hearing"].caption
    assert {p.stem for p in tmp_path.iterdir()} == {"ratio_by_group", "sides"}


@pytest.mark.parametrize("case", ["no ears", "no ratios", "one ear", "one group", "groups missing"])
def test_odd_cohorts_do_not_crash(case: str, tmp_path: Path) -> None:
    people, ears = made_up_cohort(4)
    if case == "no ears":
        ears = empty_like(ears)
    elif case == "no ratios":
        ears = ears.assign(eh_volume_ratio=np.nan, els_mm3=np.nan, eh_area_ratio=np.nan)
    elif case == "one ear":
        ears = ears[(ears.participant_id == "01") & (ears.side == "left")]
    elif case == "one group":
        people = people.assign(group="meniere")
    else:
        people = people.assign(group=["a", None, None, "a"])
    statistics = made_up_statistics(10)
    if case == "no ears":
        statistics = empty_like(statistics)
    figures = write_figures(ears, people, a_reader(ears, 0.01), statistics, False, tmp_path)
    if case in ("no ears", "no ratios"):
        assert all(figure.png is None and figure.caption for figure in figures)
    else:
        assert figures[0].png is not None


def test_a_reader_who_agrees_wholly_has_icc_one_and_no_bias(tmp_path: Path) -> None:
    people, ears = made_up_cohort(6)
    figures_of(tmp_path, ears, people, a_reader(ears, 0.0))
    assert "ICC(2,1) 1.000" in words_of(tmp_path, "agreement")
    assert "+0.000" in words_of(tmp_path, "agreement")


def test_p_is_never_written_as_zero() -> None:
    assert p_words(0.0) == p_words(1e-9) == "p < 0.001"
    assert p_words(0.0123) == "p = 0.012"
    assert p_words(0.5) == "p = 0.50"
    for p in np.geomspace(1e-6, 1, 200):
        assert p_words(float(p)) not in ("p = 0.000", "p = 0.00")


@pytest.mark.parametrize("count", [3, 6])
def test_a_caption_tells_of_rho_where_it_is_shown(tmp_path: Path, count: int) -> None:
    people, ears = made_up_cohort(count)
    statistics = cohort_statistics(ears, people, None)
    hearing = write_figures(ears, people, None, statistics, False, tmp_path)[2]
    assert hearing.png is not None
    shown = "Spearman" in words_of(tmp_path, "hearing")
    assert shown == ("Spearman" in hearing.caption) == (count > 4)


def test_an_ear_seen_in_two_sessions_is_one_point(tmp_path: Path) -> None:
    people, ears = made_up_cohort(10)
    again, later = (table.assign(session_id="9") for table in (people, ears))
    figures = figures_of(tmp_path, pd.concat([later, ears]), pd.concat([people, again]))
    assert words_of(tmp_path, "ratio_by_group").count("n = 10 | 10") == 4
    assert words_of(tmp_path, "hearing").count("(n = 10 ears)") == 2
    for name in ("ratio_by_group", "hearing"):
        assert "listed first" in figures[name].caption


def test_the_agreement_says_of_how_many_readers_the_mean_is(tmp_path: Path) -> None:
    people, ears = made_up_cohort(10)
    first = a_reader(ears, 0.02)
    second = first.assign(reader="another")
    for readers, words in (
        (first, "the reader;"),
        (pd.concat([first, second]), "mean of 2 reader"),
    ):
        figures = figures_of(tmp_path, ears, people, readers)
        assert words in figures["agreement"].caption
