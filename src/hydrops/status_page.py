"""Where a study stands, as a small page that refreshes itself, from its status records alone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from html import escape
from pathlib import Path

from hydrops import page
from hydrops.chunks import CHUNK_STAGES, SHARED_STAGES
from hydrops.config import Study
from hydrops.files import write_text_atomically
from hydrops.status import STAGES, UnitStatus, shortened, unfinished, unit_status

#: How often a browser loads the page again, s.
REFRESH_S = 20
#: Seconds without a new record after which nothing is said about the time left.
SILENT_S = 1800.0

_BAR = (
    "<div style='display:flex;align-items:center;gap:.6rem;margin:.25rem 0'>"
    "<span style='width:5.5rem'>{name}</span>"
    "<span style='flex:1;height:1rem;background:#e6ebf0;border-radius:4px;overflow:hidden'>"
    "<span style='display:block;height:100%;width:{percent:.1f}%;background:#00588a'></span></span>"
    "<span style='width:6.5rem;text-align:right'>{done} of {total}</span></div>"
)


def write_status_page(study: Study, path: Path, now: float | None = None) -> None:
    """Write the page; it is moved into place, so a browser never meets half of it.

    Parameters
    ----------
    now
        Seconds since the epoch, for the time left; that of the clock when None.
    """
    write_text_atomically(path, status_page(study, time.time() if now is None else now))


def status_page(study: Study, now: float) -> str:
    """The page as HTML."""
    parts = ["<h1>Where the study stands</h1>"]
    for model in study.bundles:
        found = [unit_status(study.paths, unit, model) for unit in study.units]
        parts.append(_model_section(study, model, found, now))
    whole = page.page("hydrops: status", "", parts)
    refresh = f"<head><meta http-equiv=refresh content={REFRESH_S}>"
    return whole.replace("<head>", refresh, 1)


def time_left(study: Study, model: str, found: Sequence[UnitStatus], now: float) -> float | None:
    """Seconds until every session is complete at the pace so far; None where none can be told.

    The pace is that of the stages' records since the first of them, every stage of a session
    counting the same; those of earlier runs, before a silence, tell nothing of it.

    Parameters
    ----------
    found
        How far each session has come.
    now
        Seconds since the epoch.
    """
    times = sorted(
        path.stat().st_mtime for status in found for path in _records(study, model, status)
    )
    missing = sum(len(STAGES) - 1 - status.place for status in found if not status.excluded)
    if missing == 0:
        return 0.0
    pauses = [n for n in range(1, len(times)) if times[n] - times[n - 1] > SILENT_S]
    times = times[pauses[-1] :] if pauses else times
    if len(times) < 2 or now - times[-1] > SILENT_S or now <= times[0]:
        return None
    return missing * (now - times[0]) / len(times)


def _records(study: Study, model: str, status: UnitStatus) -> list[Path]:
    owners = [None] * len(SHARED_STAGES) + [model] * len(CHUNK_STAGES)
    reached = status.place + 1
    paths = [
        study.paths.record(stage, status.unit, owner)
        for stage, owner in list(zip(STAGES, owners))[:reached]
    ]
    return [path for path in paths if path.is_file()]


def _model_section(study: Study, model: str, found: Sequence[UnitStatus], now: float) -> str:
    excluded = [status for status in found if status.excluded]
    total = len(found)
    counts = Counter(status.place for status in found if not status.excluded)
    bars = []
    for place, stage in enumerate(STAGES):
        done = sum(number for reached, number in counts.items() if reached >= place)
        done += len(excluded)
        percent = 100.0 * done / max(total, 1)
        bars.append(_BAR.format(name=escape(stage), percent=percent, done=done, total=total))
    left = time_left(study, model, found, now)
    complete = counts[len(STAGES) - 1]
    facts = page.cards(
        [
            (complete, "complete"),
            (total - complete - len(excluded), "under way or waiting"),
            (len(excluded), "excluded"),
            (_duration(left), "left, at the pace so far"),
        ]
    )
    reasons = [f"{status.unit.name}: {status.excluded}" for status in excluded]
    reasons += [
        f"{status.unit.name}, {side} ear: {reason}"
        for status in found
        if not status.excluded
        for side, reason in sorted(status.excluded_sides.items())
    ]
    waiting = [line.strip() for line in shortened(unfinished(model, found))]
    return page.section(
        f"model-{model}",
        model,
        facts,
        "".join(bars),
        page.paragraph("An excluded session counts as done in every stage.", "soft"),
        page.folded(f"Excluded ({len(reasons)})", page.bullets(reasons)) if reasons else "",
        page.folded(f"Not finished ({len(waiting)})", page.bullets(waiting)) if waiting else "",
    )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "not known"
    if seconds == 0:
        return "nothing"
    return str(timedelta(seconds=max(1, round(seconds))))
