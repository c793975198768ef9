"""The report: one self-contained HTML file that a radiologist can read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hydrops import page
from hydrops.cohort import read_table
from hydrops.cost import cost_section, measured_cost
from hydrops.figures import KEYS, NO_GROUP, ORGAN_NAMES, RATIO, CohortFigure, p_words, write_figures
from hydrops.files import write_text_atomically
from hydrops.labels import LABYRINTH, ORGANS, SIDES
from hydrops.measure import GRADE_THRESHOLDS
from hydrops.methods import LIMITS, Done, methods_section, provenance_section
from hydrops.model.blur import BLURRED
from hydrops.model.bundle import Bundle
from hydrops.participants import units_of
from hydrops.paths import Paths, Unit
from hydrops.records import BLUR, NULLED, read_record
from hydrops.statistics import AGAINST, first_seen, with_participants

#: Above so many examinations the overlays are linked to, not put into the file.
MOST_EMBEDDED = 60
#: Above so many rows a table is left to its file.
MOST_ROWS = 500
#: Usual total fluid of a labyrinth, mm3, and the most that patients moved between two series of
#: an examination, degrees and mm (see the project's design); beyond them an ear is to be looked at.
USUAL_TFS_MM3 = (140.0, 265.0)
USUAL_ROTATION_DEG, USUAL_TRANSLATION_MM = 2.5, 1.3
#: An uncertainty this many robust standard deviations above the median is unusual.
UNUSUAL_DEVIATIONS = 3.0
#: Fewest ears among which one can be unusual.
LEAST_EARS = 6

#: What a reader should see on an overlay, and what a defect looks like.
LOOK_FOR = (
    "The organs' contours follow the bright fluid of the MRC and stop short of the internal "
    "auditory canal. A contour that runs on medially has leaked into the canal or the cistern; "
    "a canal without contour was lost.",
    "On HYDROPS-Mi2 perilymph is bright, endolymph dark, and zero mid grey. The endolymph's "
    "contour encloses what is dark inside the fluid.",
    "Bright and dark rims on opposite sides of every structure: the inversion images are shifted "
    "against the MRC. Do not trust the ratio.",
    "A labyrinth that is dark or grey throughout, with endolymph everywhere: too little gadolinium "
    "in the perilymph, imaged too early, or PPI and PEI confused. Do not trust the ratio.",
    "Stripes, ghosts or doubled edges: motion during a series. A grainy HYDROPS-Mi2: noise, which "
    "raises the EH area ratio.",
    "Landmarks: the helicotrema at the apex of the cochlea, the oval window on the lateral wall of "
    "the vestibule, the round window below it at the basal turn.",
)

#: Words for the columns of `quality_table`.
QUALITY_NAMES = {
    "participant_id": "participant",
    "session_id": "session",
    "tfs_mm3": "TFS (mm3)",
    RATIO: "EH volume ratio",
    "interval": "95 % interval",
    "rotation_deg": "turn (deg)",
    "translation_mm": "shift (mm)",
    "look_first": "look first",
}
QUALITY_DIGITS = {
    "TFS (mm3)": 0, "EH volume ratio": 3, "uncertainty": 3, "turn (deg)": 2,
    "shift (mm)": 2,
}  # fmt: skip
EAR_DIGITS = {
    "tfs_mm3": 1, "els_mm3": 1, RATIO: 3, "ci_low": 3, "ci_high": 3, "eh_area_ratio": 3,
    "eh_area_ratio_3_slices": 3, "representative_slice": 0,
}  # fmt: skip


@dataclass(frozen=True)
class _Cohort:
    """What the sections of a report are written from."""

    paths: Paths
    model: str
    participants: pd.DataFrame
    ears: pd.DataFrame
    exclusions: pd.DataFrame
    statistics: pd.DataFrame
    output: Path

    @property
    def whole(self) -> pd.DataFrame:
        """One row an ear."""
        return self.ears[self.ears["organ"] == LABYRINTH]


def write_report(
    paths: Paths,
    bundle: Bundle,
    participants: pd.DataFrame,
    reader: pd.DataFrame | None,
    simulated: bool,
    output: Path,
    options: Mapping[str, Any],
    gpu_stages: Sequence[str] = (),
) -> None:
    """Write the figures and the report of one model's cohort.

    Parameters
    ----------
    participants
        As `hydrops.participants.read_participants` reads them.
    reader
        A reader's measurements, see `hydrops.statistics.read_reader_table`.
    simulated
        Whether the images are of phantoms; the report then says so at its head and below every
        figure.
    output
        The HTML file; the figures go beside it.
    options
        Options of the configuration that the results depend on, for the provenance.
    gpu_stages
        See `hydrops.cost.cost_table`.
    """
    ears, exclusions, statistics = (
        read_table(paths.cohort(bundle.identifier, f"{name}.tsv"))
        for name in ("ears", "exclusions", "statistics")
    )
    cohort = _Cohort(paths, bundle.identifier, participants, ears, exclusions, statistics, output)
    figures = write_figures(
        cohort.ears, participants, reader, cohort.statistics, simulated, output.parent
    )
    quality = quality_table(paths, cohort.model, cohort.ears)
    body = [
        _head(cohort, simulated),
        _summary(cohort, quality),
        _exclusions(cohort),
        _results(cohort, figures),
        _statistics(cohort.statistics),
        _pictures(cohort, quality),
        methods_section(bundle, _done(cohort)),
        page.section("limits", "Limits", page.bullets(LIMITS)),
        cost_section(measured_cost(paths, gpu_stages)),
        provenance_section(bundle, len(participants), options),
    ]
    ribbon = "SIMULATED DATA: digital phantoms, not patients" if simulated else ""
    text = page.page("Endolymphatic hydrops: cohort report", ribbon, body)
    write_text_atomically(output, text)


def quality_table(paths: Paths, model: str, ears: pd.DataFrame) -> pd.DataFrame:
    """One row an ear with what tells whether to trust it, and why to look at it.

    The ratio is that of the labyrinth; an ear without any ratio, of volumes or areas, is looked at.

    Columns: participant_id, session_id, side, tfs_mm3, eh_volume_ratio, interval (in words, empty
    where there is none), uncertainty (entropy in the fluid, 0 to 1), rotation_deg and
    translation_mm (largest between series), look_first (why, or empty).
    """
    rows, doubts_of_ears = [], []
    for row in ears[ears["organ"] == LABYRINTH].itertuples():
        unit = Unit(str(row.participant_id), str(row.session_id))
        segmented = _numbers(paths.record("segment", unit, model)).get(str(row.side), {})
        motion = _numbers(paths.record("register", unit)).get("roles", {}).values()
        doubts_of_ears.append(_doubts_of_segmentation(segmented))
        rows.append(
            [
                unit.participant,
                unit.session,
                row.side,
                row.tfs_mm3,
                row.eh_volume_ratio,
                "" if pd.isna(row.ci_low) else f"{row.ci_low:.2f} to {row.ci_high:.2f}",
                segmented.get("uncertainty"),
                max((m["rotation_deg"] for m in motion), default=None),
                max((m["translation_mm"] for m in motion), default=None),
            ]
        )
    volumes, doubts = ["tfs_mm3", RATIO], ["uncertainty", "rotation_deg", "translation_mm"]
    numbers = [*volumes, *doubts]
    table = pd.DataFrame(rows, columns=[*KEYS, "side", *volumes, "interval", *doubts])
    table[numbers] = table[numbers].astype(float)
    limit = _unusual(table["uncertainty"].to_numpy(float))
    rated = ears[ears[[RATIO, "eh_area_ratio"]].notna().any(axis=1)]
    with_ratio = set(rated[[*KEYS, "side"]].astype(str).itertuples(index=False, name=None))
    table["look_first"] = [
        _why_look(row, limit, with_ratio, own)
        for (_, row), own in zip(table.iterrows(), doubts_of_ears)
    ]
    return table


def _done(cohort: _Cohort) -> Done:
    """What was done, by the records of the work and by what came out."""
    units = units_of(cohort.participants)
    read, matched = (
        [_numbers(cohort.paths.record(stage, unit)) for unit in units]
        for stage in ("ingest", "register")
    )
    images = [image for numbers in read for image in numbers.get("roles", {}).values()]
    estimated = cohort.statistics[cohort.statistics["estimate"].notna()]
    return Done(
        converted=any("series_number" in image for image in images),
        registered=frozenset(role for numbers in matched for role in numbers.get("roles", {})),
        volume_ratios=bool(cohort.ears[RATIO].notna().any()),
        analyses=frozenset(estimated["analysis"]),
    )


def _numbers(record: Path) -> dict[str, Any]:
    """Numbers of a record; none where a run was started from later stages' files."""
    return read_record(record).numbers if record.is_file() else {}


def _unusual(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """Uncertainty above which an ear stands out from the others."""
    values = values[np.isfinite(values)]
    if len(values) < LEAST_EARS:
        return float("inf")
    middle = float(np.median(values))
    # 1.4826 turns a median absolute deviation into a standard deviation of normal data.
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return middle + UNUSUAL_DEVIATIONS * max(spread, 0.005)


def _doubts_of_segmentation(numbers: Mapping[str, Any]) -> list[str]:
    """Why to look at an ear, by what its segmentation left in its record."""
    blur = numbers.get(BLUR)
    doubts = {
        "endolymph not nulled by the PPI": numbers.get(NULLED) is False,
        "blurred images": blur is not None and blur >= BLURRED,
    }
    return [doubt for doubt, there in doubts.items() if there]


def _why_look(
    row: pd.Series,
    limit: float,
    with_ratio: set[tuple[str, ...]],
    doubts: Sequence[str],
) -> str:
    ear = (row[KEYS[0]], row[KEYS[1]], row["side"])
    reasons = []
    low, high = USUAL_TFS_MM3
    if row["tfs_mm3"] < low or row["tfs_mm3"] > high:
        reasons.append("unusual volume")
    if row["uncertainty"] > limit:
        reasons.append("uncertain segmentation")
    if row["rotation_deg"] > USUAL_ROTATION_DEG or row["translation_mm"] > USUAL_TRANSLATION_MM:
        reasons.append("much motion between series")
    reasons += doubts
    if ear not in with_ratio:
        reasons.append("no EH ratio (MRC alone)")
    return ", ".join(reasons)


def _head(cohort: _Cohort, simulated: bool) -> str:
    notes = page.paragraph("Research use only. Not a medical device.", "note")
    if simulated:
        notes += page.paragraph(
            "Simulation. Every image of this cohort is a digital phantom; groups, hearing and the "
            "reader are simulated too. No figure here says anything about patients.",
            "note",
        )
    jumps = (
        ("summary", "Summary"), ("exclusions", "Exclusions"), ("results", "Results"),
        ("statistics", "Statistics"), ("pictures", "Every ear, to look at"),
        ("methods", "Methods"), ("limits", "Limits"), ("provenance", "Provenance"),
    )  # fmt: skip
    links = "".join(page.link(f"#{target}", words) for target, words in jumps)
    return (
        "<h1>Endolymphatic hydrops: cohort report</h1>"
        + page.paragraph(f"Segmented by {cohort.model}", "soft")
        + notes
        + f"<nav aria-label=Contents>{links}</nav>"
    )


def _summary(cohort: _Cohort, quality: pd.DataFrame) -> str:
    whole, exclusions = cohort.whole, cohort.exclusions
    out = int((exclusions["side"] == "both").sum())
    ratios = pd.to_numeric(whole[RATIO]).dropna()
    numbers: list[tuple[object, str]] = [
        (cohort.participants["participant_id"].nunique(), "participants"),
        (len(cohort.participants), "examinations"),
        (len(whole), "ears measured"),
        (out, "examinations excluded"),
        (len(exclusions) - out, "single ears excluded"),
        (f"{ratios.median():.2f}" if len(ratios) else "n/a", "median EH volume ratio"),
    ]
    sentences = [
        f"{len(whole)} of {2 * len(cohort.participants)} ears could be measured"
        + (f"; {len(exclusions)} exclusions are listed below." if len(exclusions) else ".")
    ]
    sentences += _group_sentences(cohort.statistics, (LABYRINTH,))
    sentences += _agreement_sentences(cohort.statistics, (LABYRINTH,))
    flagged = int((quality["look_first"] != "").sum())
    if flagged:
        sentences.append(
            f"{flagged} of the measured ears should be looked at before their numbers are used; "
            "they are marked in the table of ears."
        )
    return page.section(
        "summary", "Summary", page.cards(numbers), page.bullets(sentences), _who(cohort)
    )


def _who(cohort: _Cohort) -> str:
    """Who took part, by group; nothing of a single person."""
    table = cohort.participants.drop_duplicates("participant_id").copy()
    table["group"] = _groups(table)
    measured = cohort.whole.groupby("participant_id").size()
    table["ears"] = table["participant_id"].map(measured).fillna(0)
    rows = []
    for group, part in table.groupby("group", sort=True):
        row: dict[str, Any] = {"group": group, "participants": len(part)}
        row["ears measured"] = int(part["ears"].sum())
        if "age" in part and part["age"].notna().any():
            row["age, median (range)"] = (
                f"{part['age'].median():.0f} ({part['age'].min():.0f} to {part['age'].max():.0f})"
            )
        if "sex" in part:
            row["sex"] = _counts(part["sex"])
        if "affected_side" in part:
            row["affected side"] = _counts(part["affected_side"])
        rows.append(row)
    return page.table(pd.DataFrame(rows), "Participants")


def _groups(table: pd.DataFrame) -> pd.Series:
    """Group of each row, with a name for those in none; all are one where nobody has a group."""
    if "group" not in table or table["group"].isna().all():
        return pd.Series("all participants", table.index)
    return table["group"].fillna(NO_GROUP)


def _counts(values: pd.Series) -> str:
    counts = values.value_counts().sort_index()
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _exclusions(cohort: _Cohort) -> str:
    table = cohort.exclusions
    if table.empty:
        words = page.paragraph("None: both ears of every examination were measured.")
        return page.section("exclusions", "Exclusions", words)
    stages = ", ".join(f"{n} at {stage}" for stage, n in table["stage"].value_counts().items())
    shown = table.head(MOST_ROWS)
    more = len(table) - len(shown)
    return page.section(
        "exclusions",
        "Exclusions",
        page.paragraph(
            f"These examinations and ears gave no numbers ({stages}). Each reason names the image "
            "to look at." + (f" {more} more are in exclusions.tsv." if more else "")
        ),
        page.table(shown),
    )


def _results(cohort: _Cohort, figures: list[CohortFigure]) -> str:
    drawn = {figure.name: _figure(figure) for figure in figures if figure.png is not None}
    missing = [f"{figure.title}: {figure.caption}" for figure in figures if figure.png is None]
    parts = [
        drawn.get("ratio_by_group", ""),
        _ratio_table(cohort.statistics),
        _sessions_words(cohort.participants),
        _grade_table(cohort),
        drawn.get("agreement", ""),
        f"<div class=pair>{drawn.get('sides', '')}{drawn.get('hearing', '')}</div>",
    ]
    if missing:
        parts.append(page.paragraph("Not drawn") + page.bullets(missing))
    return page.section("results", "Results", *parts)


def _figure(figure: CohortFigure) -> str:
    if figure.png is None:
        return ""
    picture = page.figure(page.embedded_png(figure.png), figure.title, figure.caption)
    return f"<div><h3>{escape(figure.title)}</h3>{picture}</div>"


def _ratio_table(statistics: pd.DataFrame) -> str:
    rows = statistics[
        (statistics["analysis"] == "group summary") & statistics["estimate"].notna()
    ].copy()
    if rows.empty:
        return ""
    rows["shown"] = [
        f"{r.estimate:.2f} ({r.ci_low:.2f} to {r.ci_high:.2f}), n = {r.n:.0f}".replace(
            " ", "\u00a0"
        )
        for r in rows.itertuples()
    ]
    rows["organ"] = rows["organ"].map(ORGAN_NAMES)
    names = {RATIO: "EH volume ratio", "eh_area_ratio": "EH area ratio"}
    rows["measure"] = rows["measure"].map(names)
    wide = rows.pivot_table(
        "shown", ["measure", "organ"], "comparison", aggfunc="first", sort=False
    )
    return page.table(wide.reset_index(), "EH ratios: median (quartiles) of ears")


def _sessions_words(participants: pd.DataFrame) -> str:
    """Which session the tables count, where anybody has several."""
    if not participants["participant_id"].duplicated().any():
        return ""
    return page.paragraph(
        "In the tables of ears an ear counts once: of several sessions the one listed first in "
        "participants.tsv that has the value counts."
    )


def _grade_table(cohort: _Cohort) -> str:
    graded = first_seen(
        with_participants(cohort.ears[cohort.ears["grade"].notna()], cohort.participants)
    )
    if graded.empty:
        return ""
    graded["group"] = _groups(graded)
    counts = (
        graded.groupby(["organ", "group", "grade"]).size().unstack("grade", fill_value=0)
        .reindex(columns=["none", "mild", "significant"], fill_value=0).reset_index()
    )  # fmt: skip
    counts["organ"] = counts["organ"].map(ORGAN_NAMES)
    rule = "; ".join(
        f"{organ}: mild above {mild:.2f}, significant above {significant:.2f}"
        for organ, (mild, significant) in GRADE_THRESHOLDS.items()
    )
    return page.table(counts, f"Ears by grade of the EH area ratio ({rule})")


def _statistics(statistics: pd.DataFrame) -> str:
    organs = (LABYRINTH, *ORGANS)
    sentences = [
        *_group_sentences(statistics, organs),
        *_side_sentences(statistics),
        *_hearing_sentences(statistics),
        *_agreement_sentences(statistics, organs),
    ]
    gaps = statistics[statistics["estimate"].isna() & statistics["note"].notna()]
    reasons = (gaps["analysis"] + ", " + gaps["comparison"].fillna("") + ": " + gaps["note"]).map(
        lambda words: words.replace(", :", ":")
    )
    parts = [page.bullets(sentences)] if sentences else []
    if len(reasons):
        parts += [page.paragraph("Not possible with these data"), page.bullets(reasons.unique())]
    return page.section(
        "statistics",
        "Statistics",
        page.paragraph(
            "By EH volume ratio. Groups are compared by the larger ear of each participant "
            "(Mann-Whitney), sides within participants (Wilcoxon); p is corrected after Holm over "
            "organs and measures and, of groups, over all pairs of them. A p above 0.05 does not "
            "show that there is no difference."
        ),
        *parts,
        page.folded(
            "Table of all statistics",
            page.table(statistics.dropna(axis=1, how="all").head(MOST_ROWS)),
        ),
    )


def _rows(statistics: pd.DataFrame, analysis: str, organ: str) -> pd.DataFrame:
    return statistics[
        (statistics["analysis"] == analysis)
        & (statistics["organ"] == organ)
        & (statistics["measure"] == RATIO)
        & statistics["estimate"].notna()
    ]


def _group_sentences(statistics: pd.DataFrame, organs: tuple[str, ...]) -> list[str]:
    sentences = []
    for organ in organs:
        for row in _rows(statistics, "group comparison", organ).itertuples():
            first, _, second = str(row.comparison).partition(" - ")
            estimate, low, high = float(row.estimate), float(row.ci_low), float(row.ci_high)
            if estimate < 0:
                first, second, estimate, low, high = second, first, -estimate, -high, -low
            sentences.append(
                f"{ORGAN_NAMES[organ]}: {first} lies {estimate:.3f} above {second} "
                f"(95 % CI {low:+.3f} to {high:+.3f}), "
                f"corrected {p_words(float(row.p_corrected))}, "
                f"rank-biserial correlation {abs(float(row.effect_size)):.2f}, "
                f"n = {row.n:.0f} participants."
            )
    return sentences


def _side_sentences(statistics: pd.DataFrame) -> list[str]:
    return [
        f"{ORGAN_NAMES[LABYRINTH]}, {row.comparison}: median difference {row.estimate:+.3f}, "
        f"corrected {p_words(float(row.p_corrected))}, n = {row.n:.0f} participants."
        for row in _rows(statistics, "side comparison", LABYRINTH).itertuples()
    ]


def _hearing_sentences(statistics: pd.DataFrame) -> list[str]:
    return [
        f"{ORGAN_NAMES[LABYRINTH]} and pure-tone average: Spearman's rho {row.estimate:+.2f} "
        f"(95 % CI {row.ci_low:+.2f} to {row.ci_high:+.2f}), corrected "
        f"{p_words(float(row.p_corrected))}, n = {row.n:.0f} ears."
        for row in _rows(statistics, "correlation with hearing", LABYRINTH).itertuples()
    ]


def _agreement_sentences(statistics: pd.DataFrame, organs: tuple[str, ...]) -> list[str]:
    sentences = []
    for organ in organs:
        rows = _rows(statistics, "agreement with reader", organ)
        found = {str(row.estimate_name): row for row in rows.itertuples()}
        if "ICC(2,1)" in found and "bias" in found:
            icc, bias = found["ICC(2,1)"], found["bias"]
            lower, upper = (found[f"{end} limit of agreement"] for end in ("lower", "upper"))
            _, told, who = str(icc.note).rpartition(AGAINST)
            who = who if told else "the reader"  # A table of an earlier version does not tell.
            sentences.append(
                f"{ORGAN_NAMES[organ]}, agreement with {who}: ICC(2,1) {icc.estimate:.3f} "
                f"(95 % CI {icc.ci_low:.3f} to {icc.ci_high:.3f}), bias {bias.estimate:+.3f}, "
                f"limits of agreement {lower.estimate:+.3f} to {upper.estimate:+.3f}, "
                f"n = {icc.n:.0f} ears."
            )
    return sentences


def _pictures(cohort: _Cohort, quality: pd.DataFrame) -> str:
    embed = len(cohort.participants) <= MOST_EMBEDDED
    shown = quality.copy()
    links, words = [], []
    for row in shown.itertuples():
        unit = Unit(str(row.participant_id), str(row.session_id))
        overlay = cohort.paths.overlay(unit, str(row.side), cohort.model)
        file = os.path.relpath(overlay, cohort.output.parent) if overlay.is_file() else ""
        links.append(f"#{unit.name}" if embed else Path(file).as_posix() if file else "")
        words.append(f"{unit.name} {row.side} {row.look_first}")
    shown = shown.rename(columns=QUALITY_NAMES)
    where = (
        "The overlays follow; a participant in the table leads to them."
        if embed
        else f"With more than {MOST_EMBEDDED} examinations the overlays stay beside the report: a "
        "participant in the table leads to the picture, as long as the results stay together."
    )
    search = (
        "<p class=search hidden><label for=search>Find a participant or a remark: </label>"
        '<input id=search type=search placeholder="e.g. 04, left, uncertain"></p>'
    )
    return page.section(
        "pictures",
        "Every ear, to look at",
        page.paragraph("What to look for, and what a defect looks like:"),
        page.bullets(LOOK_FOR),
        page.paragraph(
            "An ear is marked when its fluid volume, its uncertainty or the motion between its "
            "series is unusual, or its endolymph is not as dark in HYDROPS as where the PPI nulls "
            f"it. {where} Volumes, ratios and grades of each organ are in ears.tsv."
        ),
        search,
        page.table(shown, "Measured ears", links, words, QUALITY_DIGITS),
        *(_entries(cohort, quality) if embed else []),
    )


def _entries(cohort: _Cohort, quality: pd.DataFrame) -> list[str]:
    """What opens for each examination: its overlays and the rows of its ears."""
    entries = []
    for unit in units_of(cohort.participants):
        of_unit = (cohort.ears["participant_id"] == unit.participant) & (
            cohort.ears["session_id"] == unit.session
        )
        rows = cohort.ears[of_unit]
        pictures = []
        for side in SIDES:
            overlay = cohort.paths.overlay(unit, side, cohort.model)
            if overlay.is_file():
                words = (
                    f"Images of the {side} ear of {unit.name} with the contours of the organs, and "
                    "of the endolymph where it was told"
                )
                pictures.append(page.figure(page.embedded_small(overlay), words))
        marked = quality[
            (quality["participant_id"] == unit.participant)
            & (quality["session_id"] == unit.session)
        ]
        remarks = "; ".join(
            f"{r.side}: {r.look_first}" for r in marked.itertuples() if r.look_first
        )
        out = _exclusion_words(cohort.exclusions, unit)
        measured = marked[marked[RATIO].notna()]
        summary = ", ".join(f"{r.side} {r.eh_volume_ratio:.2f}" for r in measured.itertuples())
        title = f"{unit.name}: {summary or ('no EH volume ratio' if len(rows) else 'excluded')}"
        title += f" (look: {remarks})" if remarks else ""
        details = rows.drop(columns=[*KEYS, "model"]).replace({"organ": ORGAN_NAMES})
        entries.append(
            page.folded(
                title,
                *(page.paragraph(text, "note") for text in out),
                *pictures,
                page.table(details, digits=EAR_DIGITS) if len(details) else "",
                identifier=unit.name,
                search=f"{unit.name} left right {remarks} {' '.join(out)}",
            )
        )
    return entries


def _exclusion_words(exclusions: pd.DataFrame, unit: Unit) -> list[str]:
    rows = exclusions[
        (exclusions["participant_id"] == unit.participant)
        & (exclusions["session_id"] == unit.session)
    ]
    return [f"Excluded at {row.stage} ({row.side}): {row.reason}" for row in rows.itertuples()]
