"""The report: one self-contained HTML file that a radiologist can read."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from hydrops.cohort import read_table
from hydrops.figures import ORGAN_NAMES, CohortFigure, write_figures
from hydrops.labels import LABYRINTH, ORGANS, SIDES
from hydrops.model.bundle import Bundle
from hydrops.participants import units_of
from hydrops.paths import Paths
from hydrops.records import write_text_atomically

#: Above so many sessions the overlays are linked to, not put into the file.
MOST_EMBEDDED = 60

STYLE = """
:root{--ink:#1c2733;--soft:#5b6b7b;--line:#dde3ea;--mark:#0072b2}
*{box-sizing:border-box}
body{font:16px/1.55 system-ui,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;color:var(--ink);
margin:0;background:#f4f6f8}
main{max-width:1080px;margin:0 auto;background:#fff;padding:2rem 2.5rem 4rem}
h1{font-size:1.7rem;margin:.2rem 0 .4rem}h2{font-size:1.25rem;margin:2.4rem 0 .7rem;
border-bottom:2px solid var(--line);padding-bottom:.25rem}
.cards{display:flex;flex-wrap:wrap;gap:.8rem;margin:1.2rem 0}
.card{flex:1 1 150px;border:1px solid var(--line);border-radius:8px;padding:.7rem 1rem}
.card b{display:block;font-size:1.6rem}.card span{color:var(--soft);font-size:.9rem}
.banner{background:#fff4d6;border-left:5px solid #e69f00;padding:.7rem 1rem;margin:1rem 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;width:100%}
th,td{border-bottom:1px solid var(--line);padding:.35rem .6rem;text-align:left;
vertical-align:top}th{background:#f4f6f8;white-space:nowrap}td.n{text-align:right;
font-variant-numeric:tabular-nums;white-space:nowrap}
figure{margin:1.4rem 0}img{max-width:100%;height:auto}figcaption,.soft{color:var(--soft);
font-size:.92rem}details{border:1px solid var(--line);border-radius:6px;margin:.5rem 0;
padding:.4rem .8rem}summary{cursor:pointer;font-weight:600}
@media(max-width:600px){main{padding:1rem}}
@media print{body{background:#fff}details{break-inside:avoid}}
"""


def write_report(
    paths: Paths,
    bundle: Bundle,
    participants: pd.DataFrame,
    reader: pd.DataFrame | None,
    simulated: bool,
    output: Path,
) -> None:
    """Write the figures and the report of one model's cohort.

    Parameters
    ----------
    simulated
        Whether the images are of phantoms; the report then says so at its head and below every
        figure.
    """
    model = bundle.identifier
    tables = {
        name: read_table(paths.cohort(model, f"{name}.tsv"))
        for name in ("ears", "exclusions", "statistics")
    }
    figures = write_figures(tables["ears"], participants, reader, simulated, output.parent)
    sections = [
        _summary(tables["ears"], tables["exclusions"], participants),
        _exclusions(tables["exclusions"]),
        *(_figure(figure) for figure in figures),
        _ratios(tables["ears"]),
        _statistics(tables["statistics"]),
        _overlays(paths, model, participants, tables["ears"], output),
        _methods(bundle),
    ]
    write_text_atomically(output, _page(sections, bundle, simulated))


def _page(sections: Sequence[str], bundle: Bundle, simulated: bool) -> str:
    notes = [
        "<div class=banner><strong>Research use only.</strong> Not a medical device; no figure "
        "here may guide the care of a patient.</div>"
    ]
    if simulated:
        notes.append(
            "<div class=banner><strong>Simulation.</strong> Every image of this cohort is a "
            "digital phantom; hearing and the reader are simulated too.</div>"
        )
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>Endolymphatic hydrops: cohort report</title><style>{STYLE}</style></head>"
        "<body><main><h1>Endolymphatic hydrops: cohort report</h1>"
        f"<p class=soft>Model {html.escape(bundle.identifier)}</p>"
        f"{''.join(notes)}{''.join(sections)}</main></body></html>\n"
    )


def _summary(ears: pd.DataFrame, exclusions: pd.DataFrame, participants: pd.DataFrame) -> str:
    whole = ears[ears.organ == LABYRINTH]
    out = exclusions[exclusions.side == "both"]
    median = whole["eh_volume_ratio"].median() if len(whole) else float("nan")
    cards = [
        (participants["participant_id"].nunique(), "participants"),
        (len(participants), "examinations"),
        (len(whole), "ears measured"),
        (len(out), "examinations excluded"),
        (len(exclusions) - len(out), "single ears excluded"),
        (f"{median:.2f}" if pd.notna(median) else "n/a", "median EH volume ratio"),
    ]
    shown = "".join(f"<div class=card><b>{n}</b><span>{t}</span></div>" for n, t in cards)
    return f"<div class=cards>{shown}</div>"


def _exclusions(exclusions: pd.DataFrame) -> str:
    if exclusions.empty:
        return "<h2>Exclusions</h2><p>Every ear of every examination was measured.</p>"
    return (
        "<h2>Exclusions</h2><p>These could not be used; each reason names what to look at.</p>"
        + _table(exclusions)
    )


def _figure(figure: CohortFigure) -> str:
    caption = html.escape(figure.caption)
    return (
        f"<h2>{html.escape(figure.title)}</h2><figure><img alt='{html.escape(figure.title)}' "
        f"src='{_embedded(figure.png)}'><figcaption>{caption}</figcaption></figure>"
    )


def _ratios(ears: pd.DataFrame) -> str:
    if ears.empty:
        return ""
    shown = ears.copy()
    shown["order"] = shown["organ"].map({o: n for n, o in enumerate((*ORGANS, LABYRINTH))})
    shown["organ"] = shown["organ"].map(ORGAN_NAMES)
    shown = shown.sort_values(["participant_id", "session_id", "side", "order"])
    shown = shown.drop(columns=["model", "order"])
    body = (
        _table(shown)
        if len(shown) <= 8 * MOST_EMBEDDED
        else "<p>Too many rows to show here: see ears.tsv.</p>"
    )
    return (
        f"<h2>Every ear</h2><details><summary>Table of all measurements</summary>{body}</details>"
    )


def _statistics(statistics: pd.DataFrame) -> str:
    sentences = []
    tests = statistics[
        (statistics.analysis == "group comparison") & statistics.p_corrected.notna()
        & (statistics.measure == "eh_volume_ratio")
    ]  # fmt: skip
    for row in tests.itertuples():
        sentences.append(
            f"{ORGAN_NAMES[str(row.organ)]}: {html.escape(str(row.comparison))}, difference "
            f"{row.estimate:+.3f} (95 % CI {row.ci_low:+.3f} to {row.ci_high:+.3f}), "
            f"p {_p(row.p_corrected)} after Holm's correction, rank-biserial correlation "
            f"{row.effect_size:+.2f}, n = {row.n:.0f}."
        )
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    intro = f"<ul>{items}</ul>" if items else "<p>No comparison of groups was possible.</p>"
    return (
        f"<h2>Statistics</h2>{intro}<details><summary>All figures</summary>"
        f"{_table(statistics)}</details>"
    )


def _overlays(
    paths: Paths, model: str, participants: pd.DataFrame, ears: pd.DataFrame, output: Path
) -> str:
    embed = len(participants) <= MOST_EMBEDDED
    entries = []
    for unit in units_of(participants):
        pictures = []
        for side in SIDES:
            picture = paths.overlay(unit, side, model)
            if not picture.is_file():
                continue
            source = _embedded(picture) if embed else _relative(picture, output)
            pictures.append(
                f"<figure><img loading=lazy alt='{unit.name} {side} ear' src='{source}'></figure>"
                if embed
                else f"<p><a href='{source}'>{side} ear</a></p>"
            )
        if pictures:
            whole = ears[ears.organ == LABYRINTH]
            ratio = whole[
                (whole.participant_id == unit.participant) & (whole.session_id == unit.session)
            ]
            words = ", ".join(
                f"{r.side} {r.eh_volume_ratio:.2f}" for r in ratio.itertuples()
                if pd.notna(r.eh_volume_ratio)
            )  # fmt: skip
            entries.append(
                f"<details><summary>{unit.name} <span class=soft>{words}</span></summary>"
                f"{''.join(pictures)}</details>"
            )
    return (
        "<h2>Every ear, to look at</h2><p>MRC above, HYDROPS-Mi2 below. The organs' contours must "
        "follow the bright fluid of the MRC and stop short of the internal auditory canal; the "
        "endolymph's must enclose what is dark on HYDROPS-Mi2. Contours that are shifted against "
        "the dark areas point to failed registration; endolymph everywhere points to too little "
        "gadolinium; stripes or double edges to motion.</p>" + "".join(entries)
    )


def _methods(bundle: Bundle) -> str:
    used = ("dcm2niix", "antspyx", "torch", "monai", "scipy", "statsmodels", "snakemake")
    versions = ", ".join(f"{name} {version(name).split('+')[0]}" for name in used)
    training = html.escape(str(bundle.metadata.get("description", "")))
    return f"""<h2>Methods</h2>
<p>DICOM series were assigned to MRC, PPI and PEI by their timing and converted by dcm2niix (Li et
al., J Neurosci Methods 2016;264:47). The inversion images were registered to the MRC rigidly by
ANTs (Avants et al., NeuroImage 2011;54:2033) and resampled once; HYDROPS is PPI minus PEI and
HYDROPS-Mi2 its product with the MRC (Naganawa et al., Magn Reson Med Sci 2012;11:303). Both ears
were located by correlation with a mean labyrinth. A paired 3D U-Net (Yoo et al. 2024; MONAI,
Cardoso et al., arXiv:2211.02701) gave the volume fraction of each compartment and the landmarks.
The EH volume ratio is endolymph over total fluid; the EH area ratio the share of pixels with
negative HYDROPS-Mi2 on the representative slice (Cho et al. 2020), graded after Nakashima et al.
(Acta Otolaryngol Suppl 2009;560:5). Groups were compared by the larger ear of each participant
(Mann-Whitney), sides within participants (Wilcoxon), with Holm's correction over organs; agreement
is ICC(2,1) (Shrout and Fleiss 1979) and Bland-Altman (1986).</p>
<h2>Provenance</h2><p>Model {html.escape(bundle.identifier)}: {training}. Weights sha256
<code style='overflow-wrap:anywhere'>{bundle.sha256}</code>. Software: {versions}.</p>"""


def _table(table: pd.DataFrame) -> str:
    head = "".join(f"<th>{html.escape(str(c)).replace('_', ' ')}</th>" for c in table.columns)
    rows = "".join(
        "<tr>" + "".join(_cell(value) for value in row) + "</tr>"
        for row in table.itertuples(index=False)
    )
    return f"<div class=scroll><table><tr>{head}</tr>{rows}</table></div>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "<td></td>"
    if isinstance(value, float):
        return f"<td class=n>{value:.4g}</td>"
    return f"<td>{html.escape(str(value))}</td>"


def _p(value: Any) -> str:
    return "&lt; 0.001" if value < 0.001 else f"= {value:.3f}"


def _embedded(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()


def _relative(picture: Path, output: Path) -> str:
    import os

    return os.path.relpath(picture, output.parent)
