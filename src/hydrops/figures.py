"""Figures of a cohort, as PNG and SVG, with their captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrops.arrays import Values
from hydrops.labels import LABYRINTH, ORGANS
from hydrops.statistics import (
    agreement_of,
    first_seen,
    matched_with_reader,
    reader_words,
    why_no_agreement,
    with_participants,
)

#: Okabe and Ito (2008), told apart by colour-blind readers.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
ORGAN_NAMES = {
    "cochlea": "Cochlea",
    "vestibule": "Vestibule",
    "semicircular_canals": "Semicircular canals",
    LABYRINTH: "Labyrinth",
}
#: Name of a group for participants that have none.
NO_GROUP = "no group"
RATIO = "eh_volume_ratio"
KEYS = ["participant_id", "session_id"]
#: The golden ratio's fraction spreads points evenly, the same way each time.
GOLDEN = 0.6180339887


@dataclass(frozen=True)
class CohortFigure:
    """A figure of the report.

    Parameters
    ----------
    name
        Stem of its files.
    caption
        What it shows; of a figure that could not be drawn, why.
    png
        Its picture, with an SVG of the same stem beside it; None if it could not be drawn.
    """

    name: str
    title: str
    caption: str
    png: Path | None


class _NothingToDrawError(Exception):
    """The data do not allow a figure; the message says why."""


def write_figures(
    ears: pd.DataFrame,
    participants: pd.DataFrame,
    reader: pd.DataFrame | None,
    statistics: pd.DataFrame,
    simulated: bool,
    folder: Path,
) -> list[CohortFigure]:
    """Draw what the data allow; the same tables give the same bytes.

    Parameters
    ----------
    ears, statistics
        The cohort's tables as `hydrops.cohort.read_table` reads them.
    reader
        A reader's measurements, see `hydrops.statistics.read_reader_table`.
    simulated
        Marks every figure and caption.
    folder
        Gets ``<name>.png`` and ``<name>.svg``; those of a figure that can no longer be drawn are
        removed.
    """
    table = _tidy(ears, participants)
    drawings: list[tuple[str, str, Callable[[], tuple[Figure, str]]]] = [
        ("ratio_by_group", "EH volume ratio by group and organ",
         lambda: _by_group(table, statistics)),
        ("sides", "Left against right ear", lambda: _sides(table)),
        ("hearing", "EH volume ratio and hearing", lambda: _hearing(table, statistics)),
        ("agreement", "Agreement with the reader", lambda: _agreement(table, reader)),
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    style: Any = {"svg.hashsalt": "hydrops", "font.size": 10, "font.family": "DejaVu Sans"}
    with matplotlib.rc_context(style):
        return [_write(folder, simulated, *drawing) for drawing in drawings]


def _write(
    folder: Path, simulated: bool, name: str, title: str, draw: Callable[[], tuple[Figure, str]]
) -> CohortFigure:
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    try:
        figure, caption = draw()
    except _NothingToDrawError as nothing:
        png.unlink(missing_ok=True)
        svg.unlink(missing_ok=True)
        return CohortFigure(name, title, str(nothing), None)
    if simulated:
        caption += " Simulation: the data are digital phantoms, not patients."
        figure.suptitle("SIMULATED DATA", x=0.995, ha="right", fontsize=8, color="#b00020")
    figure.savefig(png, dpi=130, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None})
    return CohortFigure(name, title, caption, png)


def _tidy(ears: pd.DataFrame, participants: pd.DataFrame) -> pd.DataFrame:
    """Ears that have a ratio, with what is known of their participants; groups always named."""
    table = with_participants(ears, participants)
    table[RATIO] = pd.to_numeric(table[RATIO])
    table = table[table[RATIO].notna()].copy()
    for column, missing in (("group", NO_GROUP), ("affected_side", "not given")):
        if column not in table:
            table[column] = missing
        table[column] = table[column].fillna(missing)
    return table


def _each_ear_once(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """As `first_seen`, and the words of a caption that say so where it left something out."""
    once = first_seen(table)
    words = " Of an ear seen in several sessions the one listed first counts."
    return once, words if len(once) < len(table) else ""


def _by_group(table: pd.DataFrame, statistics: pd.DataFrame) -> tuple[Figure, str]:
    """Boxes and points of every organ, groups side by side; n below, p above."""
    if table.empty:
        raise _NothingToDrawError("No ear has an EH volume ratio.")
    table, chosen_words = _each_ear_once(table)
    groups = sorted(table["group"].unique())
    order = [*ORGANS, LABYRINTH]
    colours = _colours(groups)
    figure = Figure(figsize=(9.6, 4.9), layout="constrained")
    panel = figure.subplots()
    sns.boxplot(
        table, x="organ", y=RATIO, hue="group", order=order, hue_order=groups, ax=panel,
        palette=colours, showfliers=False, fill=False, linewidth=1.4, gap=0.2, legend=False,
    )  # fmt: skip
    width = 0.8 / len(groups)
    for number, organ in enumerate(order):
        for rank, group in enumerate(groups):
            values = table[(table["organ"] == organ) & (table["group"] == group)][RATIO]
            middle = number - 0.4 + (rank + 0.5) * width
            _points(panel, middle, 0.28 * width, values.to_numpy(float), colours[group])
    top = max(0.6, float(table[RATIO].max()) * 1.1)
    tests = _group_tests(statistics) if len(set(groups) - {NO_GROUP}) == 2 else {}
    for number, organ in enumerate(order):
        if organ in tests:
            panel.text(number, 1.0, p_words(tests[organ]), ha="center", va="bottom", fontsize=9,
                       transform=panel.get_xaxis_transform())  # fmt: skip
    counts = {
        organ: " | ".join(
            str(((table["organ"] == organ) & (table["group"] == group)).sum()) for group in groups
        )
        for organ in order
    }
    panel.set_xticks(range(len(order)), [f"{ORGAN_NAMES[o]}\nn = {counts[o]}" for o in order])
    panel.set(xlabel="", ylabel="EH volume ratio (ELS / TFS)", ylim=(0, top))
    whole = table[table["organ"] == LABYRINTH].groupby("group")["participant_id"].nunique()
    for group in groups:
        people = int(whole.get(group, 0))
        panel.plot([], [], "s", color=colours[group], label=f"{group} ({people} participants)")
    figure.legend(loc="outside upper left", ncols=min(len(groups), 4), frameon=False)
    sns.despine(ax=panel)
    caption = (
        "Share of the fluid space that is endolymph. One point an ear; boxes show the median and "
        "the quartiles, whiskers reach 1.5 times the box; n counts ears"
        + (f" ({', '.join(groups)})." if len(groups) > 1 else ".")
        + chosen_words
    )
    if tests:
        caption += (
            " p: Mann-Whitney test by the larger ear of each participant, Holm's correction over "
            "organs and measures."
        )
    return figure, caption


def _points(panel: Axes, middle: float, spread: float, values: Values, colour: str) -> None:
    """Points beside each other without chance, so that a figure is the same each time."""
    offsets = np.empty(len(values))
    offsets[np.argsort(values, kind="stable")] = (np.arange(len(values)) * GOLDEN) % 1.0 - 0.5
    size, strength = (4.5, 0.8) if len(values) < 100 else (2.5, 0.4)
    panel.plot(
        middle + 2 * spread * offsets, values, "o", color=colour, ms=size, alpha=strength, mew=0
    )


def _group_tests(statistics: pd.DataFrame) -> dict[str, float]:
    """Corrected p by organ where two groups were compared."""
    rows = statistics[
        (statistics["analysis"] == "group comparison")
        & (statistics["measure"] == RATIO)
        & statistics["p_corrected"].notna()
    ]
    return dict(zip(rows["organ"].astype(str), rows["p_corrected"].astype(float)))


def p_words(p: float) -> str:
    """A p-value as it is written: ``p = 0.034``, never ``p = 0.000``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _sides(table: pd.DataFrame) -> tuple[Figure, str]:
    part = table[table["organ"] == LABYRINTH]
    wide = part.pivot(index=KEYS, columns="side", values=RATIO)
    wide = wide.reindex(columns=["left", "right"]).dropna()
    if wide.empty:
        raise _NothingToDrawError("No participant has an EH volume ratio of both ears.")
    known = part.drop_duplicates(KEYS).set_index(KEYS)["affected_side"]
    affected = known.reindex(wide.index)
    figure, panel = _square()
    names = [n for n in ("left", "right", "both", "none", "not given") if (affected == n).any()]
    for name, marker in zip(names, "<>DoX"):
        chosen = wide[affected == name]
        colour = dict(zip(("left", "right", "both", "none"), PALETTE[2:])).get(name, "#555555")
        panel.plot(chosen["left"], chosen["right"], marker, color=colour, ms=7, alpha=0.8, mew=0,
                   label=f"affected ear: {name} (n = {len(chosen)})")  # fmt: skip
    _identity(panel, wide.to_numpy(float))
    panel.set(xlabel="left ear, EH volume ratio", ylabel="right ear, EH volume ratio")
    figure.legend(loc="outside upper left", frameon=False, fontsize=9, ncols=1)
    return figure, (
        "Labyrinth, one point an examination with both ears measured. On the dashed line the ears "
        "are equal; with unilateral disease on the left, a point is expected below it, with "
        "disease on the right above it."
    )


def _hearing(table: pd.DataFrame, statistics: pd.DataFrame) -> tuple[Figure, str]:
    if not {"pta_left", "pta_right"} <= set(table.columns):
        raise _NothingToDrawError(
            "No hearing thresholds are given (pta_left and pta_right in participants.tsv)."
        )
    part = table[table["organ"] == LABYRINTH].copy()
    part["pta"] = np.where(part["side"] == "left", part["pta_left"], part["pta_right"])
    part["pta"] = pd.to_numeric(part["pta"])
    part, chosen_words = _each_ear_once(part.dropna(subset=["pta"]))
    if len(part) < 3:
        raise _NothingToDrawError("Fewer than three measured ears have a hearing threshold.")
    figure, panel = _square()
    groups = sorted(part["group"].unique())
    for group, colour in _colours(groups).items():
        chosen = part[part["group"] == group]
        panel.plot(chosen["pta"], chosen[RATIO], "o", color=colour, alpha=0.8, ms=6, mew=0,
                   label=f"{group} (n = {len(chosen)} ears)")  # fmt: skip
    rows = statistics[
        (statistics["analysis"] == "correlation with hearing")
        & (statistics["organ"] == LABYRINTH)
        & (statistics["measure"] == RATIO)
        & statistics["estimate"].notna()
    ]
    for row in rows.itertuples():
        panel.set_title(
            f"Spearman's rho {row.estimate:+.2f} ({row.ci_low:+.2f} to {row.ci_high:+.2f})",
            fontsize=10,
        )
    panel.set(xlabel="pure-tone average of the ear, dB HL", ylabel="EH volume ratio, labyrinth")
    panel.set_ylim(0, max(0.5, float(part[RATIO].max()) * 1.1))
    figure.legend(loc="outside upper left", frameon=False, fontsize=9)
    sns.despine(ax=panel)
    caption = "One point an ear, with the pure-tone average of the same ear." + chosen_words
    if not rows.empty:
        caption += (
            " The interval of Spearman's rho resamples participants, whose two ears are not "
            "independent."
        )
    return figure, caption


def draw_differences(panel: Axes, ours: Values, theirs: Values, colour: str) -> None:
    """Points of a Bland-Altman plot: difference against mean."""
    panel.plot((ours + theirs) / 2, ours - theirs, "o", color=colour, alpha=0.75, ms=5, mew=0)


def draw_bland_altman(
    panel: Axes, ours: Values, theirs: Values, limits: Mapping[str, float], colour: str
) -> None:
    """A Bland-Altman plot in one colour: points, no difference, and of more than one the limits.

    Parameters
    ----------
    limits
        As `hydrops.statistics.bland_altman` returns them.
    """
    draw_differences(panel, ours, theirs, colour)
    if len(ours) > 1:
        draw_limits(panel, limits, colour)
    panel.axhline(0, color="#888888", lw=0.8, ls=":")


def draw_box(
    panel: Axes,
    values: Values,
    height: float,
    width: float,
    colour: str,
    label: str | None = None,
) -> None:
    """Lying box plot of some values at a height, with each of them; says where there are none."""
    if not len(values):
        panel.text(0.02, height, "not measured", fontsize=8, va="center", color="#888888",
                   transform=panel.get_yaxis_transform())  # fmt: skip
        return
    panel.boxplot(values, positions=[height], widths=width, orientation="horizontal",
                  showfliers=False, medianprops={"color": "black"}, manage_ticks=False)  # fmt: skip
    spread = (np.arange(len(values)) * GOLDEN % 1 - 0.5) * 0.75 * width
    panel.plot(values, height + spread, "o", ms=3.5, alpha=0.65, mew=0, color=colour,
               label=label)  # fmt: skip


def draw_limits(panel: Axes, limits: Mapping[str, float], colour: str) -> None:
    """Lines of a Bland-Altman plot, named at its right; see `hydrops.statistics.bland_altman`."""
    for key, name, dashes in (
        ("bias", "bias", "-"),
        ("lower", "lower limit", "--"),
        ("upper", "upper limit", "--"),
    ):
        panel.axhline(limits[key], color=colour, ls=dashes, lw=1.3)
        panel.text(1.01, limits[key], f"{name}\n{limits[key]:+.3f}", va="center", fontsize=9,
                   color=colour, transform=panel.get_yaxis_transform())  # fmt: skip
        panel.axhspan(limits[f"{key}_low"], limits[f"{key}_high"], color=colour, alpha=0.1, lw=0)


def _agreement(table: pd.DataFrame, reader: pd.DataFrame | None) -> tuple[Figure, str]:
    """Scatter with identity line and ICC, and Bland-Altman with bias and limits."""
    if reader is None or RATIO not in reader:
        raise _NothingToDrawError("No reader's table with an EH volume ratio is given.")
    both = matched_with_reader(table, reader, LABYRINTH, RATIO)
    if lacking := why_no_agreement(both, RATIO):
        raise _NothingToDrawError(f"{lacking[0].upper()}{lacking[1:]}.")
    ours, theirs = (both[c].to_numpy(float) for c in (RATIO, "reader_value"))
    (icc, low, high), limits, _ = agreement_of(both, (RATIO, "reader_value"), "participant_id")
    figure = Figure(figsize=(9.6, 4.7), layout="constrained")
    scatter, differences = figure.subplots(1, 2, width_ratios=(1, 1.15))
    scatter.plot(theirs, ours, "o", color=PALETTE[0], alpha=0.75, ms=6, mew=0)
    _identity(scatter, np.concatenate([ours, theirs]))
    scatter.set(xlabel="reader, EH volume ratio", ylabel="pipeline, EH volume ratio")
    scatter.set_title(
        f"ICC(2,1) {icc:.3f} (95 % CI {low:.3f} to {high:.3f})\nn = {len(both)} ears", fontsize=10
    )
    draw_differences(differences, ours, theirs, PALETTE[0])
    differences.axhline(0, color="#888888", lw=0.8, ls=":")
    draw_limits(differences, limits, PALETTE[1])
    lowest = min(limits["lower_low"], float((ours - theirs).min()))
    highest = max(limits["upper_high"], float((ours - theirs).max()))
    margin = 0.1 * (highest - lowest) or 0.01
    differences.set_ylim(lowest - margin, highest + margin)
    differences.set(xlabel="mean of pipeline and reader", ylabel="pipeline - reader")
    differences.set_title("Bland-Altman: bias and\nlimits of agreement", fontsize=10)
    for panel in (scatter, differences):
        sns.despine(ax=panel)
    who = reader_words(both, reader, RATIO)
    return figure, (
        f"EH volume ratio of the labyrinth, one point an ear. Left: pipeline against {who}; on the "
        "dashed line they are equal. Right: their difference against their mean, with bias and "
        "95 % limits of agreement; bands are 95 % confidence intervals. A bias away from zero is "
        "a difference in rule; a cloud that widens or slopes is one that grows with the hydrops."
    )


def _square() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.7, 5.2), layout="constrained")
    return figure, figure.subplots()


def _identity(panel: Axes, values: Values) -> None:
    top = max(0.5, float(values.max()) * 1.1)
    panel.plot([0, top], [0, top], "--", color="#888888", lw=1, zorder=0)
    panel.set(xlim=(0, top), ylim=(0, top), aspect="equal")
    sns.despine(ax=panel)


def _colours(groups: list[str]) -> dict[str, str]:
    return {group: PALETTE[rank % len(PALETTE)] for rank, group in enumerate(groups)}
