"""Figures of a cohort, as PNG and SVG, with their captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from hydrops.labels import LABYRINTH, ORGANS
from hydrops.statistics import bland_altman, icc_2_1, matched_with_reader

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
ORGAN_NAMES = {
    "cochlea": "Cochlea",
    "vestibule": "Vestibule",
    "semicircular_canals": "Semicircular canals",
    LABYRINTH: "Labyrinth",
}


@dataclass(frozen=True)
class CohortFigure:
    """A figure that was written: its files share `name`."""

    name: str
    title: str
    caption: str
    png: Path


def write_figures(
    ears: pd.DataFrame,
    participants: pd.DataFrame,
    reader: pd.DataFrame | None,
    simulated: bool,
    folder: Path,
) -> list[CohortFigure]:
    """Draw what the data allow; `ears` as the cohort's table, `simulated` marks every caption."""
    keys = ["participant_id", "session_id"]
    merged = ears.merge(participants, on=keys, how="left") if not ears.empty else ears
    drawings: list[tuple[str, str, Callable[[], tuple[Figure, str] | None]]] = [
        ("ratio_by_group", "EH volume ratio by group and organ", lambda: _by_group(merged)),
        ("sides", "Left against right ear", lambda: _sides(merged)),
        ("hearing", "EH volume ratio and hearing", lambda: _hearing(merged)),
        ("agreement", "Agreement with the reader", lambda: _agreement(merged, reader)),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with matplotlib.rc_context({"svg.hashsalt": "hydrops", "font.size": 10}):
        for name, title, drawing in drawings:
            drawn = drawing()
            if drawn is None:
                continue
            figure, caption = drawn
            if simulated:
                caption += " Simulation: the data are digital phantoms."
                figure.text(0.995, 0.005, "simulated data", ha="right", va="bottom",
                            fontsize=8, color="#888888")  # fmt: skip
            png = folder / f"{name}.png"
            figure.savefig(png, dpi=130, metadata={"Software": None})
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            written.append(CohortFigure(name, title, caption, png))
    return written


def _by_group(ears: pd.DataFrame) -> tuple[Figure, str] | None:
    ears = ears[ears["eh_volume_ratio"].notna()] if not ears.empty else ears
    if ears.empty:
        return None
    table = ears.copy()
    if "group" not in table or table["group"].isna().all():
        table["group"] = "all"
    table["group"] = table["group"].replace("", np.nan).fillna("no group")
    groups = sorted(table["group"].unique())
    table["Organ"] = table["organ"].map(ORGAN_NAMES)
    order = [ORGAN_NAMES[o] for o in (*ORGANS, LABYRINTH)]
    colours = dict(zip(groups, PALETTE * (len(groups) // len(PALETTE) + 1)))
    figure = Figure(figsize=(9.5, 5.0), layout="constrained")
    panel = figure.subplots()
    common = {"data": table, "x": "Organ", "y": "eh_volume_ratio", "hue": "group",
              "order": order, "hue_order": groups, "ax": panel}  # fmt: skip
    sns.boxplot(**common, palette=colours, showfliers=False, fill=False, linewidth=1.3, gap=0.15)
    sns.stripplot(**common, palette=colours, dodge=True, size=4.5, alpha=0.75, legend=False,
                  jitter=0.12)  # fmt: skip
    counts = table[table.organ == LABYRINTH].groupby("group")
    labels = {g: f"{g} ({len(p)} ears of {p.participant_id.nunique()})" for g, p in counts}
    legend = panel.get_legend()
    for text in legend.get_texts() if legend else ():
        text.set_text(labels.get(text.get_text(), text.get_text()))
    sns.move_legend(panel, "upper right", title=None, frameon=False)
    top = max(0.6, float(table["eh_volume_ratio"].max()) * 1.15)
    panel.set(xlabel="", ylabel="EH volume ratio", ylim=(0, top))
    sns.despine(ax=panel)
    return figure, (
        "Endolymph's share of the fluid space, one point an ear; boxes show median and quartiles."
    )


def _sides(ears: pd.DataFrame) -> tuple[Figure, str] | None:
    if ears.empty:
        return None
    part = ears[(ears.organ == LABYRINTH) & ears["eh_volume_ratio"].notna()]
    wide = part.pivot(
        index=["participant_id", "session_id"], columns="side", values="eh_volume_ratio"
    ).reindex(columns=["left", "right"])
    wide = wide.dropna()
    if wide.empty:
        return None
    side: dict[str, str] = {}
    if "affected_side" in part:
        side = dict(zip(part["participant_id"], part["affected_side"]))
    affected = [side.get(p, "not given") for p, _ in wide.index]
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    panel = figure.subplots()
    names = [n for n in ("left", "right", "both", "none", "not given") if n in affected]
    for name, colour in zip(names, PALETTE):
        chosen = wide[[a == name for a in affected]]
        panel.plot(chosen["left"], chosen["right"], "o", color=colour, ms=6, alpha=0.85,
                   label=f"affected: {name}")  # fmt: skip
    top = max(0.5, float(wide.to_numpy().max()) * 1.1)
    panel.plot([0, top], [0, top], "--", color="#888888", lw=1)
    panel.set(xlabel="left ear, EH volume ratio", ylabel="right ear, EH volume ratio",
              xlim=(0, top), ylim=(0, top), aspect="equal")  # fmt: skip
    panel.legend(frameon=False, fontsize=9)
    sns.despine(ax=panel)
    return figure, (
        "Each point is a participant; off the dashed line the ears differ. In unilateral disease "
        "the affected ear is expected to have the larger ratio."
    )


def _hearing(ears: pd.DataFrame) -> tuple[Figure, str] | None:
    if ears.empty or not {"pta_left", "pta_right"} <= set(ears.columns):
        return None
    part = ears[(ears.organ == LABYRINTH) & ears["eh_volume_ratio"].notna()].copy()
    part["pta"] = np.where(part.side == "left", part.pta_left, part.pta_right)
    part = part.dropna(subset=["pta"])
    if len(part) < 3:
        return None
    figure = Figure(figsize=(6.2, 4.6), layout="constrained")
    panel = figure.subplots()
    groups = part["group"].fillna("all") if "group" in part else pd.Series("all", part.index)
    for name, colour in zip(sorted(groups.unique()), PALETTE):
        chosen = part[groups == name]
        panel.plot(chosen["pta"], chosen["eh_volume_ratio"], "o", color=colour, alpha=0.8,
                   label=name)  # fmt: skip
    panel.set(xlabel="pure-tone average of the ear, dB HL", ylabel="EH volume ratio, labyrinth")
    panel.legend(frameon=False)
    sns.despine(ax=panel)
    return figure, "Each point is an ear, with the hearing threshold of the same ear."


def _agreement(ears: pd.DataFrame, reader: pd.DataFrame | None) -> tuple[Figure, str] | None:
    if reader is None or "eh_volume_ratio" not in reader:
        return None
    both = matched_with_reader(ears, reader, LABYRINTH, "eh_volume_ratio")
    if len(both) < 3:
        return None
    ours, theirs = (both[c].to_numpy(float) for c in ("eh_volume_ratio", "reader_value"))
    icc, low, high = icc_2_1(ours, theirs)
    limits = bland_altman(ours, theirs)
    figure = Figure(figsize=(10.5, 4.8), layout="constrained")
    scatter, differences = figure.subplots(1, 2)
    top = max(0.5, float(max(ours.max(), theirs.max())) * 1.1)
    scatter.plot([0, top], [0, top], "--", color="#888888", lw=1)
    scatter.plot(theirs, ours, "o", color=PALETTE[0], alpha=0.8)
    scatter.set(xlabel="reader, EH volume ratio", ylabel="pipeline, EH volume ratio",
                xlim=(0, top), ylim=(0, top), aspect="equal")  # fmt: skip
    scatter.set_title(f"ICC(2,1) {icc:.3f} ({low:.3f} to {high:.3f}), n = {len(both)} ears",
                      fontsize=10)  # fmt: skip
    differences.plot((ours + theirs) / 2, ours - theirs, "o", color=PALETTE[0], alpha=0.8)
    for key, style in (("bias", "-"), ("lower", "--"), ("upper", "--")):
        differences.axhline(limits[key], color=PALETTE[1], ls=style, lw=1.2)
        differences.axhspan(limits[f"{key}_low"], limits[f"{key}_high"], color=PALETTE[1],
                            alpha=0.1, lw=0)  # fmt: skip
        differences.text(1.0, limits[key], f" {limits[key]:+.3f}", va="center", fontsize=9,
                         transform=differences.get_yaxis_transform())  # fmt: skip
    differences.set(xlabel="mean of pipeline and reader", ylabel="pipeline - reader")
    differences.set_title("Bland-Altman: bias and limits of agreement", fontsize=10)
    for panel in (scatter, differences):
        sns.despine(ax=panel)
    return figure, (
        "EH volume ratio of the labyrinth, pipeline against reader; dashed on the left: identity. "
        "On the right, bias and limits of agreement with their 95 % confidence intervals (bands)."
    )
