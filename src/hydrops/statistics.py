"""Statistics of a cohort: groups, sides, hearing, agreement with a reader.

A person's two ears are not independent. Groups are therefore compared by one value a person, the
larger ratio of the two ears, which is the diseased one in unilateral disease; sides are compared
within persons, and intervals of a correlation, or of an agreement of several ears a person,
resample persons.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from hydrops.arrays import Values
from hydrops.errors import HydropsError
from hydrops.files import read_tsv_lines
from hydrops.labels import LABYRINTH, ORGANS, SIDES
from hydrops.participants import tidy_identity

COLUMNS = (
    "analysis", "organ", "measure", "comparison", "n", "estimate", "estimate_name", "ci_low",
    "ci_high", "statistic", "p_value", "p_corrected", "effect_size", "effect_size_name", "note",
)  # fmt: skip
#: What an ear's organ is told by, in one session.
EAR_KEYS = ["participant_id", "session_id", "side", "organ"]
READER_COLUMNS = (*EAR_KEYS, "reader")
MEASURES = ("eh_volume_ratio", "eh_area_ratio")
Indices = npt.NDArray[np.int64]
#: In the note of an agreement, before the words that say whose value ours is compared with.
AGAINST = "against "
#: Up to so many pairs of persons a shift is bootstrapped; each draw needs every pair.
MOST_PAIRS = 10_000
#: Draws of persons for an interval or a p-value.
DRAWS = 1000


def read_reader_table(path: Path) -> pd.DataFrame:
    """Read a reader's table.

    Identifiers are read as those of participants.tsv; measures are numbers, n/a or empty.

    Raises
    ------
    HydropsError
        If it is missing or no UTF-8, lacks a column, or has no measure at all; or naming the line
        and the column of a side or an organ that is none, or of a value that is no share.
    """
    (_, header), *rows = read_tsv_lines(path)
    table = pd.DataFrame([fields for _, fields in rows], columns=header, dtype=str)
    lines = [number for number, _ in rows]
    missing = [column for column in READER_COLUMNS if column not in table]
    if missing:
        raise HydropsError(f"{path}: column {missing[0]} is missing")
    measures = [measure for measure in MEASURES if measure in table]
    if not measures:
        raise HydropsError(f"{path}: has neither of the columns {' and '.join(MEASURES)}")
    table = tidy_identity(table)
    for column, known in (("side", SIDES), ("organ", (*ORGANS, LABYRINTH))):
        wrong = ~table[column].isin(known)
        _refuse(path, lines, table[column], wrong, f"is none of {', '.join(known)}")
    for measure in measures:
        numbers = pd.to_numeric(table[measure], errors="coerce")
        wrong = numbers.isna() & ~table[measure].isin(["", "n/a"])
        _refuse(path, lines, table[measure], wrong, "is no number (with a decimal point)")
        wrong = numbers.notna() & ~numbers.between(0.0, 1.0)
        _refuse(path, lines, table[measure], wrong, "is no share, from 0 to 1 (is it in percent?)")
        table[measure] = numbers
    return table


def _refuse(
    path: Path, lines: Sequence[int], column: pd.Series, wrong: pd.Series, why: str
) -> None:
    """Name the first line of a table that has a wrong value, if there is one."""
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise HydropsError(
            f"{path}, line {lines[row]}, column {column.name}: {column.iloc[row]!r} {why}"
        )


def cohort_statistics(
    ears: pd.DataFrame, participants: pd.DataFrame, reader: pd.DataFrame | None
) -> pd.DataFrame:
    """Every analysis of a cohort in one tidy table (`COLUMNS`); one row a figure.

    An analysis that the data do not allow is a row that says why, without figures.

    Parameters
    ----------
    ears
        As `hydrops.cohort.read_table` reads them: a row an ear and organ.
    participants
        As `hydrops.participants.read_participants` reads them; of several sessions of a person the
        one that is listed first counts, where one has to be chosen. So an ear counts once in
        summaries of groups and in the correlation with hearing (`first_seen`).
    reader
        As `read_reader_table` reads it, or None.
    """
    if not ears.empty:
        ears = with_participants(ears, participants)
    rows = [
        *_group_summaries(ears),
        *_group_tests(ears),
        *_side_tests(ears),
        *_hearing(ears),
        *_agreement(ears, reader),
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return _round(_correct(table))


def with_participants(ears: pd.DataFrame, participants: pd.DataFrame) -> pd.DataFrame:
    """Ears with what participants.tsv tells of their session, and its place there (`listed`)."""
    listed = participants.assign(listed=range(len(participants)))
    keys = ["participant_id", "session_id"]
    return ears.merge(listed, on=keys, how="left", validate="many_to_one")


def first_seen(ears: pd.DataFrame) -> pd.DataFrame:
    """Of each ear and organ the row of the session that is listed first, in the order given.

    An ear that was seen twice is one ear: pooled with others it must not count as two.

    Parameters
    ----------
    ears
        Rows of `with_participants`, only those that have the values to be pooled.
    """
    of_one = ["participant_id", "side", "organ"]
    return ears.sort_values("listed", kind="stable").drop_duplicates(of_one).sort_index()


def icc_2_1(first: Values, second: Values) -> tuple[float, float, float]:
    """ICC(2,1), two-way random effects, absolute agreement, single measurement, and its 95 % CI.

    Shrout and Fleiss, Psychol Bull 1979;86:420; interval of McGraw and Wong, Psychol Methods
    1996;1:30, table 7. NaN where there are fewer than three pairs or nothing varies. Written out,
    for intervals that resample persons need it a thousand times; tests compare it with pingouin.
    """
    return icc_2_1_table(np.column_stack([first, second]))


def icc_2_1_table(ratings: Values) -> tuple[float, float, float]:
    """As `icc_2_1`, of ratings (subjects, raters)."""
    n, k = ratings.shape
    if n < 3 or np.ptp(ratings) == 0:
        return (float("nan"),) * 3
    icc, subjects, raters, error = _icc_and_mean_squares(ratings)
    if 1.0 - icc < 1e-12:
        return (1.0,) * 3
    a = k * icc / (n * (1 - icc))
    b = 1 + k * icc * (n - 1) / (n * (1 - icc))
    freedom = (a * raters + b * error) ** 2 / (
        (a * raters) ** 2 / (k - 1) + (b * error) ** 2 / ((n - 1) * (k - 1))
    )
    low_f = stats.f.ppf(0.975, n - 1, freedom)
    high_f = stats.f.ppf(0.975, freedom, n - 1)
    spread = k * raters + (k * n - k - n) * error
    low = n * (subjects - low_f * error) / (low_f * spread + n * subjects)
    high = n * (high_f * subjects - error) / (spread + n * high_f * subjects)
    return float(icc), float(low), float(high)


def _icc_and_mean_squares(ratings: Values) -> tuple[float, float, float, float]:
    """ICC(2,1) of ratings (subjects, raters), and the mean squares of both and of the error."""
    n, k = ratings.shape
    mean = ratings.mean()
    subjects = k * ((ratings.mean(1) - mean) ** 2).sum() / (n - 1)
    raters = n * ((ratings.mean(0) - mean) ** 2).sum() / (k - 1)
    residual = ratings - ratings.mean(1, keepdims=True) - ratings.mean(0) + mean
    error = (residual**2).sum() / ((n - 1) * (k - 1))
    icc = (subjects - error) / (subjects + (k - 1) * error + k * (raters - error) / n)
    return float(icc), float(subjects), float(raters), float(error)


def bland_altman(first: Values, second: Values) -> dict[str, float]:
    """Bias of `first` against `second` and limits of agreement, with 95 % CI of each.

    Bland and Altman, Lancet 1986;327:307.
    """
    difference = np.asarray(first) - np.asarray(second)
    n, bias, spread = len(difference), float(difference.mean()), float(difference.std(ddof=1))
    t = float(stats.t.ppf(0.975, n - 1))
    half_bias = t * spread / np.sqrt(n)
    half_limit = t * spread * np.sqrt(3.0 / n)
    low, high = bias - 1.96 * spread, bias + 1.96 * spread
    return {
        "bias": bias,
        "bias_low": bias - half_bias,
        "bias_high": bias + half_bias,
        "lower": low,
        "lower_low": low - half_limit,
        "lower_high": low + half_limit,
        "upper": high,
        "upper_low": high - half_limit,
        "upper_high": high + half_limit,
    }


def per_person(ears: pd.DataFrame, organ: str, measure: str) -> pd.DataFrame:
    """The larger value of a person's two ears, of the first session that is listed, with the group.

    Who has one ear measured is left out: one ear is smaller than the larger of two, and may be the
    healthy one.
    """
    both = _both_ears(ears, organ, measure)
    return pd.DataFrame(
        {
            "participant_id": both["participant_id"],
            "group": both["group"],
            measure: both[["left", "right"]].max(axis=1),
        }
    )


def _row(analysis: str, organ: str, measure: str, comparison: str, **found: Any) -> dict[str, Any]:
    return {
        "analysis": analysis, "organ": organ, "measure": measure, "comparison": comparison, **found
    }  # fmt: skip


def _places() -> list[tuple[str, str]]:
    """Organ and measure of every analysis."""
    ratios = [(organ, "eh_volume_ratio") for organ in (*ORGANS, LABYRINTH)]
    return [*ratios, ("cochlea", "eh_area_ratio"), ("vestibule", "eh_area_ratio")]


def _has_groups(ears: pd.DataFrame) -> bool:
    return "group" in ears and bool(ears["group"].notna().any())


def _group_summaries(ears: pd.DataFrame) -> list[dict[str, Any]]:
    """Median and quartiles of the ears of each group; each ear once, see `first_seen`."""
    rows: list[dict[str, Any]] = []
    if ears.empty:
        return [
            _row("group summary", LABYRINTH, "eh_volume_ratio", "", n=0, note="no ear measured")
        ]
    grouped = _has_groups(ears)
    names = sorted(ears["group"].dropna().unique()) if grouped else ["all"]
    for organ, measure in _places():
        part = first_seen(ears[(ears.organ == organ) & ears[measure].notna()])
        for name in names:
            values = part[part["group"] == name] if grouped else part
            numbers = values[measure].to_numpy(float)
            if not numbers.size:
                rows.append(
                    _row("group summary", organ, measure, name, n=0, note="nothing measured")
                )
                continue
            low, middle, high = np.percentile(numbers, (25, 50, 75))
            spread = f", mean {numbers.mean():.3f}, SD {numbers.std(ddof=1):.3f}"
            rows.append(
                _row(
                    "group summary", organ, measure, name, n=numbers.size, estimate=middle,
                    estimate_name="median of ears (interval: quartiles)", ci_low=low, ci_high=high,
                    note=f"{values.participant_id.nunique()} participants"
                    + (spread if numbers.size > 1 else ""),
                )
            )  # fmt: skip
    return rows


def _group_tests(ears: pd.DataFrame) -> list[dict[str, Any]]:
    """Mann-Whitney between groups, by the larger ear of each person; Hodges-Lehmann shift."""
    if ears.empty or not _has_groups(ears) or ears["group"].dropna().nunique() < 2:
        return [
            _row("group comparison", LABYRINTH, "eh_volume_ratio", "",
                 note="needs two groups in participants.tsv")
        ]  # fmt: skip
    rows = []
    for organ, measure in _places():
        people = per_person(ears, organ, measure)
        some = ears[(ears.organ == organ) & ears[measure].notna() & ears["group"].notna()]
        alone = some["participant_id"].nunique() - people["group"].notna().sum()
        left_out = f"; {alone} with one ear measured left out" if alone else ""
        groups = {
            name: people.loc[people["group"] == name, measure].to_numpy(float)
            for name in sorted(ears["group"].dropna().unique())
        }
        for (a, x), (b, y) in itertools.combinations(groups.items(), 2):
            comparison = f"{a!s} - {b!s}"
            if min(len(x), len(y)) < 3:
                rows.append(
                    _row("group comparison", organ, measure, comparison, n=len(x) + len(y),
                         note=f"fewer than three participants in a group{left_out}")
                )  # fmt: skip
                continue
            test = stats.mannwhitneyu(x, y)
            shift, low, high, interval = _shift(x, y)
            rows.append(
                _row(
                    "group comparison", organ, measure, comparison, n=len(x) + len(y),
                    estimate=shift, estimate_name="Hodges-Lehmann shift",
                    ci_low=low, ci_high=high, statistic=float(test.statistic),
                    p_value=float(test.pvalue),
                    effect_size=float(2 * test.statistic / (len(x) * len(y)) - 1),
                    effect_size_name="rank-biserial correlation",
                    note=f"Mann-Whitney; larger ear of each participant{left_out}; "
                    f"interval: {interval}",
                )
            )  # fmt: skip
    return rows


def _shift(x: Values, y: Values) -> tuple[float, float, float, str]:
    """Hodges-Lehmann shift of x against y, its 95 % interval, and how that was found."""
    if len(x) * len(y) <= MOST_PAIRS:
        low, high = _bootstrap_shift(x, y)
        return float(np.median(np.subtract.outer(x, y))), low, high, "bootstrap"
    pairs = len(x) * len(y)
    middle = (nth_difference(x, y, (pairs + 1) // 2) + nth_difference(x, y, pairs // 2 + 1)) / 2
    # Distribution-free: the differences at the ranks between which Mann-Whitney's U lies in 95 %.
    reach = stats.norm.ppf(0.975) * np.sqrt(pairs * (len(x) + len(y) + 1) / 12)
    rank = max(int(np.floor(pairs / 2 - reach)), 1)
    low, high = (nth_difference(x, y, n) for n in (rank, pairs + 1 - rank))
    return middle, low, high, "distribution-free (Mann-Whitney)"


def nth_difference(x: Values, y: Values, n: int) -> float:
    """The n-th smallest, from 1, of all differences of a value of x and one of y.

    Found by bisection, so that large groups need no table of all pairs.
    """
    ordered = np.sort(y)
    low, high = float(x.min() - y.max()), float(x.max() - y.min())
    for _ in range(64):
        middle = (low + high) / 2
        # x - y <= middle wherever y >= x - middle.
        if (len(y) - np.searchsorted(ordered, x - middle)).sum() >= n:
            high = middle
        else:
            low = middle
    return high


def _bootstrap_shift(x: Values, y: Values) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    shifts = [
        np.median(np.subtract.outer(rng.choice(x, len(x)), rng.choice(y, len(y))))
        for _ in range(DRAWS)
    ]
    low, high = np.percentile(shifts, (2.5, 97.5))
    return float(low), float(high)


def _side_tests(ears: pd.DataFrame) -> list[dict[str, Any]]:
    """Affected against other ear (unilateral disease) and left against right, within persons."""
    rows = []
    for organ, measure in _places():
        pairs = _both_ears(ears, organ, measure)
        unilateral = pairs[pairs["affected_side"].isin(("left", "right"))]
        affected = np.where(
            unilateral["affected_side"] == "left", unilateral["left"], unilateral["right"]
        )
        other = unilateral["left"].to_numpy() + unilateral["right"].to_numpy() - affected
        rows.append(_paired(organ, measure, "affected - other ear", affected, other))
        rows.append(
            _paired(organ, measure, "left - right", pairs["left"].to_numpy(float),
                    pairs["right"].to_numpy(float))
        )  # fmt: skip
    return rows


def _both_ears(ears: pd.DataFrame, organ: str, measure: str) -> pd.DataFrame:
    """A measure of both ears, a row a participant: of the session listed first that has it.

    `group` and `affected_side` are those of that session, none where nobody tells them.
    """
    told = ["group", "affected_side"]
    if ears.empty:
        return pd.DataFrame(columns=["participant_id", "left", "right", *told], dtype=float)
    part = ears[(ears.organ == organ) & ears[measure].notna()]
    part = part.reindex(columns=["participant_id", "listed", "side", measure, *told])
    wide = part.pivot(index=["participant_id", "listed"], columns="side", values=measure)
    wide = wide.reindex(columns=["left", "right"]).dropna().reset_index().sort_values("listed")
    wide = wide.drop_duplicates("participant_id")
    words = part.drop_duplicates("listed").set_index("listed")[told]
    return wide.join(words, on="listed").sort_values("participant_id", ignore_index=True)


def _paired(organ: str, measure: str, comparison: str, a: Values, b: Values) -> dict[str, Any]:
    difference = np.asarray(a, float) - np.asarray(b, float)
    row = _row("side comparison", organ, measure, comparison, n=len(difference))
    # Wilcoxon's test leaves out who shows no difference, and so must what goes with it.
    apart = difference[difference != 0.0]
    if len(apart) < 5:
        return row | {"note": "fewer than five pairs that differ"}
    test = stats.wilcoxon(apart)
    ranks = stats.rankdata(np.abs(apart))
    positive, negative = (ranks[apart > 0].sum(), ranks[apart < 0].sum())
    same = len(difference) - len(apart)
    return row | {
        "estimate": float(np.median(difference)),
        "estimate_name": "median difference",
        "statistic": float(test.statistic),
        "p_value": float(test.pvalue),
        "effect_size": float((positive - negative) / ranks.sum()),
        "effect_size_name": "matched-pairs rank-biserial correlation",
        "note": "Wilcoxon signed rank" + (f"; {same} pairs without a difference" if same else ""),
    }


def _hearing(ears: pd.DataFrame) -> list[dict[str, Any]]:
    """Spearman correlation of an ear's ratio with its own pure-tone average.

    The interval resamples persons, not ears, and the p-value comes from permuting hearing between
    persons, so that two ears of one person do not count as two witnesses. Of an ear seen in several
    sessions the first listed one that has both counts.
    """
    if ears.empty or not {"pta_left", "pta_right"} <= set(ears.columns):
        return [
            _row("correlation with hearing", LABYRINTH, "eh_volume_ratio", "pure-tone average",
                 note="needs pta_left and pta_right in participants.tsv")
        ]  # fmt: skip
    rows = []
    for organ, measure in _places():
        part = ears[(ears.organ == organ) & ears[measure].notna()].copy()
        part["pta"] = np.where(part.side == "left", part.pta_left, part.pta_right)
        part = first_seen(part.dropna(subset=["pta"]))
        row = _row("correlation with hearing", organ, measure, "pure-tone average", n=len(part))
        part = part.sort_values("participant_id", kind="stable")
        names = part["participant_id"].to_numpy()
        people = np.split(
            part[[measure, "pta"]].to_numpy(float), np.flatnonzero(names[1:] != names[:-1]) + 1
        )
        if len(people) < 5 or part[measure].nunique() < 2 or part["pta"].nunique() < 2:
            rows.append(row | {"note": "fewer than five participants, or nothing varies"})
            continue
        found = float(stats.spearmanr(part[measure], part["pta"]).statistic)
        low, high, p = _clustered_spearman(people, found)
        rows.append(
            row
            | {
                "estimate": found, "estimate_name": "Spearman's rho", "ci_low": low,
                "ci_high": high, "p_value": p, "effect_size": found,
                "effect_size_name": "Spearman's rho",
                "note": "interval and p resample participants",
            }
        )  # fmt: skip
    return rows


def _clustered_spearman(people: Sequence[Values], found: float) -> tuple[float, float, float]:
    rng = np.random.default_rng(0)
    values = np.concatenate(people)
    ears = np.array([len(person) for person in people])
    starts = np.cumsum(ears) - ears
    x, y = (np.unique(column, return_inverse=True)[1] for column in values.T)
    drawn, permuted = [], []
    for _ in range(DRAWS):
        who = rng.integers(len(people), size=len(people))
        chosen = _ears_of(who, ears[who], starts, ears)
        if np.ptp(x[chosen]) > 0 and np.ptp(y[chosen]) > 0:
            drawn.append(_rank_correlation(x[chosen], y[chosen]))
        order = rng.permutation(len(people))
        # Where one person has one ear and the other two, the one ear counts for both.
        count = np.maximum(ears, ears[order])
        own = _ears_of(np.arange(len(people)), count, starts, ears)
        permuted.append(_rank_correlation(x[own], y[_ears_of(order, count, starts, ears)]))
    low, high = np.percentile(drawn, (2.5, 97.5))
    p = (1 + np.sum(np.abs(permuted) >= abs(found))) / (len(permuted) + 1)
    return float(low), float(high), float(p)


def _ears_of(who: Indices, count: Indices, starts: Indices, ears: Indices) -> Indices:
    """Places of so many ears of each person of `who`, from the first again after the last."""
    person = np.repeat(who, count)
    within = np.arange(len(person)) - np.repeat(np.cumsum(count) - count, count)
    return np.asarray(starts[person] + within % ears[person])


def _rank_correlation(x: Indices, y: Indices) -> float:
    """Spearman's rho of values given as places in their order, ties sharing a rank.

    The order is known beforehand, so that nothing is sorted a thousand times.
    """

    def ranks(places: Indices) -> Values:
        count = np.bincount(places)
        rank = (np.cumsum(count) - (count - 1) / 2)[places]
        return np.asarray(rank - rank.mean())

    a, b = ranks(x), ranks(y)
    # Sums, not BLAS: its threads cost more than they save on vectors, a thousand times over.
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def matched_with_reader(
    ears: pd.DataFrame, reader: pd.DataFrame, organ: str, measure: str
) -> pd.DataFrame:
    """Ours (`measure`) and the reader's (`reader_value`) for the ears that both measured."""
    if ears.empty or measure not in reader:
        return pd.DataFrame(columns=[*EAR_KEYS, measure, "reader_value"])
    theirs = reader[[*EAR_KEYS, measure]].groupby(EAR_KEYS, as_index=False).mean()
    both = ears.merge(theirs.rename(columns={measure: "reader_value"}), on=EAR_KEYS)
    return both[both.organ == organ].dropna(subset=[measure, "reader_value"])


def agreement_of(
    both: pd.DataFrame, columns: Sequence[str], owner: str
) -> tuple[tuple[float, float, float], dict[str, float], str]:
    """ICC(2,1) and limits of agreement of two measurements, and how their intervals were found.

    Where somebody has several ears among them the 95 % intervals are those of persons drawn again
    and again, for the ears of a person err alike; else those of `icc_2_1` and `bland_altman`.

    Parameters
    ----------
    both
        At least two ears that have both.
    columns
        Names of both measurements, the second the one that the first is compared with.
    owner
        Column that says whose an ear is.

    Returns
    -------
    As `icc_2_1` and `bland_altman` return them, and the words.
    """
    ordered = both.sort_values(owner, kind="stable")
    ratings = ordered[list(columns)].to_numpy(float)
    icc, limits = icc_2_1_table(ratings), bland_altman(*ratings.T)
    _, starts, ears = np.unique(ordered[owner].to_numpy(), return_index=True, return_counts=True)
    if ears.max() == 1 or np.isnan(icc[0]):
        return icc, limits, "intervals by formula"
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(DRAWS):
        who = rng.integers(len(ears), size=len(ears))
        chosen = ratings[_ears_of(who, ears[who], starts, ears)]
        # Of few persons the same one may be drawn each time: that tells nothing of how they vary.
        if np.ptp(chosen, axis=0).min() > 0:
            difference = chosen[:, 0] - chosen[:, 1]
            bias, reach = difference.mean(), 1.96 * difference.std(ddof=1)
            drawn.append((_icc_and_mean_squares(chosen)[0], bias, bias - reach, bias + reach))
    if not drawn:
        return icc, limits, "intervals by formula"
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    for place, key in enumerate(("bias", "lower", "upper"), start=1):
        limits |= {f"{key}_low": float(low[place]), f"{key}_high": float(high[place])}
    return (icc[0], float(low[0]), float(high[0])), limits, "intervals resample participants"


def reader_words(both: pd.DataFrame, reader: pd.DataFrame, measure: str) -> str:
    """Whose value `reader_value` is: that of the reader, or the mean of how many.

    Counted in each ear that was matched, for a reader may have read one organ, or some ears, alone.

    Parameters
    ----------
    both
        As `matched_with_reader` returns it for this reader's table and measure; not empty.
    """
    read = both[EAR_KEYS].merge(reader[reader[measure].notna()], on=EAR_KEYS)
    counts = read.groupby(EAR_KEYS)["reader"].nunique()
    fewest, most = counts.min(), counts.max()
    if most > 1:
        number = f"{most}" if fewest == most else f"{fewest} to {most}"
        return f"the mean of {number} readers"
    several = read["reader"].nunique()
    return f"one of {several} readers for each ear" if several > 1 else "the reader"


def why_no_agreement(both: pd.DataFrame, measure: str) -> str | None:
    """Why ears that pipeline and reader measured tell of no agreement; None where they do.

    Parameters
    ----------
    both
        As `matched_with_reader` returns it.
    """
    if len(both) < 3:
        return "fewer than three ears that both measured"
    if np.ptp(both[[measure, "reader_value"]].to_numpy(float)) == 0:
        return "all ears have one value, by pipeline and reader alike"
    return None


def _agreement(ears: pd.DataFrame, reader: pd.DataFrame | None) -> list[dict[str, Any]]:
    if reader is None:
        return [
            _row("agreement with reader", LABYRINTH, "eh_volume_ratio", "pipeline - reader",
                 note="no reader's table given")
        ]  # fmt: skip
    rows = []
    for organ, measure in _places():
        if measure not in reader:
            continue
        both = matched_with_reader(ears, reader, organ, measure)
        row = _row("agreement with reader", organ, measure, "pipeline - reader", n=len(both))
        if lacking := why_no_agreement(both, measure):
            rows.append(row | {"note": lacking})
            continue
        (icc, low, high), limits, how = agreement_of(
            both, (measure, "reader_value"), "participant_id"
        )
        row |= {"note": f"{how}; {AGAINST}{reader_words(both, reader, measure)}"}
        rows.append(
            row | {"estimate": icc, "estimate_name": "ICC(2,1)", "ci_low": low, "ci_high": high}
        )
        for name, key in (
            ("bias", "bias"),
            ("lower limit of agreement", "lower"),
            ("upper limit of agreement", "upper"),
        ):
            rows.append(
                row
                | {
                    "estimate": limits[key], "estimate_name": name,
                    "ci_low": limits[f"{key}_low"], "ci_high": limits[f"{key}_high"],
                }
            )  # fmt: skip
    return rows


def _correct(table: pd.DataFrame) -> pd.DataFrame:
    """Holm correction over organs and measures, of all pairs of groups, of each comparison else."""
    from statsmodels.stats.multitest import multipletests

    table = table.copy()
    table["p_corrected"] = np.nan
    tested = table["p_value"].notna()
    of_groups = table["analysis"] == "group comparison"
    families = table["analysis"] + table["comparison"].where(~of_groups, "")
    for _, part in table[tested].groupby(families[tested]):
        p = part["p_value"].to_numpy(float)
        table.loc[part.index, "p_corrected"] = multipletests(p, method="holm")[1]
    return table


def _round(table: pd.DataFrame) -> pd.DataFrame:
    for column in ("estimate", "ci_low", "ci_high", "statistic", "effect_size"):
        table[column] = pd.to_numeric(table[column]).round(6)
    for column in ("p_value", "p_corrected"):
        table[column] = pd.to_numeric(table[column]).map(
            lambda p: float(f"{p:.3g}"), na_action="ignore"
        )
    return table
