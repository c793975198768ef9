"""Compare the models of an evaluation: one table, paired tests, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hydrops.cohort import markdown_table, write_table
from hydrops.figures import PALETTE, draw_bland_altman, draw_box
from hydrops.files import write_text_atomically
from hydrops.labels import ORGANS
from hydrops.model.bundle import WEIGHTS, Bundle
from hydrops.model.crossval import (
    corrected_by_holm,
    side_by_side,
    signed_rank_p,
    summarise_measures,
)
from hydrops.model.evaluate import (
    AGREEMENT_EXPLAINED,
    HYDROPIC,
    MEASURES,
    RATIO_COLUMNS,
    agreement_of_heads,
    slice_name,
    whose_anatomy,
)
from hydrops.model.package import MOTION, PHANTOMS, USED_OF_LABYRINTHS, source_of

#: Those that models are tested on.
TESTED = (
    "tfs_dice", "els_dice", "cochlea_dice", "vestibule_dice", "ratio_error", "landmark_mm",
)  # fmt: skip
INHEARIT_IOU = "0.497 to 0.761 (patients' MRI, on slices, mean of four classes)"
#: What the papers report on their own data, by model and measure (Yoo et al. 2024, abstract;
#: Stebani et al. 2023, abstract, CT in two data sets; Cho et al. 2020, lowest and highest of their
#: networks and data).
PUBLISHED = {
    ("paired_unet3d", "tfs_dice"): "0.957 (patients' MRI)",
    ("paired_unet3d", "els_dice"): "0.919 (patients' MRI)",
    ("joint_unet3d", "tfs_dice"): "0.97 and 0.94 (CT)",
    ("joint_unet3d", "landmark_mm"): "3.3 and 5.2 voxels (CT)",
    ("inhearit", "cochlea_jaccard"): INHEARIT_IOU,
    ("inhearit", "vestibule_jaccard"): INHEARIT_IOU,
}
NAMES = {
    "tfs_dice": "Dice, total fluid",
    "els_dice": "Dice, endolymph",
    "cochlea_dice": "Dice, cochlea",
    "vestibule_dice": "Dice, vestibule",
    "ratio_error": "error of the EH volume ratio",
    "landmark_mm": "landmark error, mm",
}
#: Bounds of the true EH volume ratio between which the Dice of the endolymph is shown apart.
AMOUNTS = (0.0, 0.2, HYDROPIC, 1.0)
#: An ear of the evaluation.
EAR = ["anatomy", "seed", "side"]
#: Voxels shown around an ear.
MARGIN = 8
_CAPTION = "Simulation"
#: What stands above the tables of a page.
REAL_EXPLAINED = '; "specimen" ears have the anatomy of real labyrinths\nkept out of all of them'
REFUSED_EXPLAINED = (
    "Why a model gave no result of an ear. Refused ears have no part in any other table."
)
AMOUNT_EXPLAINED = (
    "Mean Dice of the endolymph. A thin one is mostly surface, and loses more by each voxel."
)
TESTS_EXPLAINED = (
    "Paired Wilcoxon signed-rank tests over heads, p corrected by Holm's method over the table."
)
EQUALS_EXPLAINED = (
    "The same tests among the models that were trained for as many steps as that one."
)


def measure_models(ears: pd.DataFrame) -> pd.DataFrame:
    """Mean, SD, 95 % confidence interval and worst of each measure, by model and anatomy.

    See `hydrops.model.crossval.summarise_measures`; intervals are over heads, and ears that a model
    refused or does not measure are left out, so `n` differs. `published` is the paper's own figure,
    measured on other data.
    """
    table = summarise_measures(ears, ["model", "anatomy"], MEASURES, "seed")
    names = table["model"].str.rsplit("-", n=1).str[0]
    published = [PUBLISHED.get(key, "") for key in zip(names, table["measure"])]
    return table.assign(published=published)


def compare_models(ears: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Paired Wilcoxon signed-rank tests of each model against a reference on the same ears.

    Ears that both have measured; those of a head count once, by their mean, for they are not
    independent. p is corrected by Holm's method over all tests of the table.

    Parameters
    ----------
    reference
        Name and version of the model that the others are compared with.
    """
    rows = []
    for anatomy, part in ears.groupby("anatomy", sort=False):
        for measure in TESTED:
            shared = part.dropna(subset=[measure])
            known = shared.pivot_table(index=["seed", "side"], columns="model", values=measure)
            for model in [m for m in known.columns if m != reference and reference in known]:
                pair = known[[model, reference]].dropna()
                difference = (pair[model] - pair[reference]).groupby("seed").mean().to_numpy(float)
                if not len(difference):
                    continue
                rows.append(
                    {
                        "anatomy": anatomy, "measure": measure, "model": model,
                        "reference": reference, "heads": len(difference), "ears": len(pair),
                        "median_difference": float(np.median(difference)),
                        "p": signed_rank_p(difference),
                    }
                )  # fmt: skip
    columns = [
        "anatomy", "measure", "model", "reference", "heads", "ears", "median_difference", "p",
    ]  # fmt: skip
    return corrected_by_holm(pd.DataFrame(rows, columns=columns))


def equally_trained(bundles: Sequence[Bundle]) -> list[list[str]]:
    """Models that were trained for the same steps, two or more, in the order of the bundles."""
    alike: dict[int, list[str]] = {}
    for bundle in bundles:
        alike.setdefault(_steps(bundle), []).append(bundle.identifier)
    return [models for models in alike.values() if len(models) > 1]


def _steps(bundle: Bundle) -> int:
    return sum(phase["steps"] for phase in bundle.metadata["training"]["phases"])


def endolymph_by_amount(ears: pd.DataFrame) -> pd.DataFrame:
    """Mean Dice of the endolymph, by model, anatomy and how much there truly is.

    A thin endolymph is mostly surface, so its Dice is low whatever draws it.
    """
    measured = ears.dropna(subset=["els_dice"])
    bounds = list(pairwise(AMOUNTS))
    names = [f"true ratio {low:g} to {high:g}" for low, high in bounds]
    amount = pd.cut(measured["ratio_true"], AMOUNTS, labels=names, include_lowest=True)
    table = measured.assign(amount=amount).pivot_table(
        index=["model", "anatomy"], columns="amount", values="els_dice", sort=False, observed=False
    )
    return table.reindex(columns=names).reset_index()


def draw_boxes(ears: pd.DataFrame) -> Figure:
    """Each ear of each model: Dice of fluids and organs, error of the ratio, landmark error."""
    models = list(ears["model"].unique())
    kinds = list(ears["anatomy"].unique())
    figure = Figure(figsize=(10, 1.4 + 1.2 * len(models) * len(kinds)), layout="constrained")
    for panel, measure in zip(figure.subplots(3, 2).ravel(), TESTED):
        for row, model in enumerate(models):
            for place, (kind, colour) in enumerate(zip(kinds, PALETTE)):
                chosen = ears[(ears["model"] == model) & (ears["anatomy"] == kind)]
                values = chosen[measure].dropna().to_numpy(float)
                height = row + (place - (len(kinds) - 1) / 2) * 0.36
                label = kind if not row and measure == TESTED[0] else None
                draw_box(panel, values, height, 0.28, colour, label)
        panel.set_yticks(range(len(models)), models)
        panel.set_ylim(len(models) - 0.5, -0.5)
        panel.set_xlabel(NAMES[measure])
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", frameon=False, ncols=len(kinds), title=_CAPTION)
    return figure


def draw_agreement(ears: pd.DataFrame) -> Figure:
    """Bland-Altman of the EH volume ratio: a row for each anatomy, a column for each model."""
    measured = ears.dropna(subset=["ratio"])
    models, kinds = (list(measured[column].unique()) for column in ("model", "anatomy"))
    rows, columns = max(1, len(kinds)), max(1, len(models))
    figure = Figure(figsize=(4.2 * columns, 0.6 + 3.4 * rows), layout="constrained")
    figure.suptitle(_CAPTION, fontsize=10)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex=True)
    if measured.empty:
        panels[0, 0].set_title("no model gave an EH volume ratio", y=0.5, fontsize=10)
        panels[0, 0].axis("off")
    for (kind, model), part in measured.groupby(["anatomy", "model"]):
        row, column = kinds.index(kind), models.index(model)
        ours, truth = (part[c].to_numpy(float) for c in RATIO_COLUMNS)
        _, limits = agreement_of_heads(part, RATIO_COLUMNS)
        draw_bland_altman(panels[row, column], ours, truth, limits, PALETTE[row])
    for panel, model in zip(panels[0], models):
        panel.set_title(model, fontsize=10)
    for panel, kind in zip(panels[:, 0], kinds):
        panel.set_ylabel(f"{kind}: measured minus true")
    for panel in panels[-1]:
        panel.set_xlabel("mean of measured and true ratio")
    for panel in panels.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure


def draw_overlays(ears: pd.DataFrame, slices: Path) -> Figure:
    """Best, median and worst ear of each model by the Dice of the total fluid, or of its organs.

    Parameters
    ----------
    slices
        Folder of the slices that `hydrops.model.evaluate.evaluate` left.
    """
    models = list(ears["model"].unique())
    figure = Figure(figsize=(13.5, 4.2 * len(models)), layout="constrained")
    for row, model in zip(figure.subplots(len(models), 3, squeeze=False), models):
        measured = ears[ears["model"] == model].dropna(subset=["tfs_mm3"])
        of_organs = measured[[f"{organ}_dice" for organ in ORGANS]].mean(axis=1)
        measured = measured.assign(shown_dice=measured["tfs_dice"].fillna(of_organs))
        ranked = measured.sort_values("shown_dice", ascending=False).to_dict("records")
        for panel in row:
            panel.axis("off")
        if not ranked:
            continue
        for panel, word, ear in zip(
            row, ("best", "median", "worst"), (ranked[0], ranked[len(ranked) // 2], ranked[-1])
        ):
            with np.load(slices / slice_name(ear), allow_pickle=False) as cut:
                panel.imshow(cut["image"].T, cmap="gray", origin="lower")
                for axis, limit in zip((1, 0), (panel.set_xlim, panel.set_ylim)):
                    there = np.flatnonzero(cut["tfs_true"].any(axis))
                    limit(there[0] - MARGIN, there[-1] + MARGIN)
                for name, colour in (("tfs", "#f0e442"), ("els", "#d55e00")):
                    if cut[f"{name}_true"].any():
                        panel.contourf(cut[f"{name}_true"].T, [0.5, 1.5], colors=colour, alpha=0.35)
                    if name in cut and cut[name].any():
                        panel.contour(cut[name].T, [0.5], colors=colour, linewidths=1.6)
            of = "its organs" if np.isnan(ear["tfs_dice"]) else "fluid"
            panel.set_title(
                f"{model}: {word}, {ear['anatomy']}\nDice {ear['shown_dice']:.3f} ({of})"
                + ("" if np.isnan(ear["els_dice"]) else f", {ear['els_dice']:.3f} (endolymph)"),
                fontsize=11,
            )
    figure.suptitle(
        "Simulation, MRC. Total fluid yellow, endolymph orange; filled: truth, line: model.",
        fontsize=12,
    )
    return figure


PICTURES: dict[str, Callable[[pd.DataFrame, Path], Figure]] = {
    "boxes": lambda ears, _: draw_boxes(ears),
    "agreement": lambda ears, _: draw_agreement(ears),
    "overlays": draw_overlays,
}


def describe_models(bundles: Sequence[Bundle]) -> pd.DataFrame:
    """What each model is, the steps that it was trained for, and the size of its weights."""
    rows = [
        {
            "model": bundle.identifier,
            "what it is": bundle.metadata["description"],
            "training steps": _steps(bundle),
            "weights, MB": (bundle.folder / WEIGHTS).stat().st_size / 1e6,
        }
        for bundle in bundles
    ]
    return pd.DataFrame(rows).round(1)


def reasons_of_refusals(ears: pd.DataFrame) -> pd.DataFrame:
    """How many ears each model refused, by anatomy and reason without the figures of an ear."""
    refused = ears[ears["reason"].fillna("") != ""]
    reasons = refused["reason"].str.replace(r"^(left|right) ear: | \(.*", "", regex=True)
    counted = refused.assign(reason=reasons).groupby(["model", "anatomy", "reason"], sort=False)
    return counted.size().rename("ears").reset_index()


def _section(title: str, words: str, table: pd.DataFrame) -> str:
    """A section of a page; empty where there is nothing to show."""
    return "" if table.empty else f"## {title}\n\n{words}\n\n{markdown_table(table)}\n"


def _tests_of_equals(bundles: Sequence[Bundle], ears: pd.DataFrame) -> str:
    """The section of a page that compares models after the same training; empty without any."""
    sections = []
    for first, *others in equally_trained(bundles):
        tests = compare_models(ears[ears["model"].isin([first, *others])], first)
        title = f"Tests after the same training, against {first}"
        sections.append(_section(title, EQUALS_EXPLAINED, tests))
    return chr(10).join(sections)


def write_comparison(
    bundles: Sequence[Bundle],
    ears: pd.DataFrame,
    slices: Path,
    agreement: pd.DataFrame,
    folder: Path,
) -> None:
    """Write ``measures.tsv``, ``comparison.tsv``, the pictures and a ``README.md`` of them all.

    Parameters
    ----------
    bundles
        The models; the first is the one that the others are tested against.
    agreement
        As `hydrops.model.evaluate.summarise` gives it, of all models.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reference = bundles[0].identifier
    measures, tests = measure_models(ears), compare_models(ears, reference)
    for name, table in (("measures", measures), ("comparison", tests)):
        write_table(table.round(5), folder / f"{name}.tsv")
    for name, draw in PICTURES.items():
        draw(ears, slices).savefig(folder / f"{name}.png", dpi=100, metadata={"Software": None})
    real = sorted(set(ears["specimen"]) - {""})
    whose = [f"Real labyrinths: {source_of(real)} {USED_OF_LABYRINTHS}"] if real else []
    sources = [PHANTOMS, *whose, MOTION]
    text = f"""# Models compared

**Simulation.** Every model was given the same {len(ears.drop_duplicates(EAR))} ears of heads that
no training saw{REAL_EXPLAINED if real else ""}. What a
model does not measure is empty. `published` was measured by the paper on its own data. Models that
were trained for different numbers of steps do not show what their networks could have learned.
{whose_anatomy(ears)}
Sources: {" ".join(sources)}

{markdown_table(describe_models(bundles))}

## Agreement

{AGREEMENT_EXPLAINED}

{markdown_table(agreement.dropna(axis=1, how="all"))}

{_section("Refused", REFUSED_EXPLAINED, reasons_of_refusals(ears))}
{_section("Endolymph by how much there is", AMOUNT_EXPLAINED, endolymph_by_amount(ears))}
## Measures

Mean and SD over ears, in brackets the 95 % confidence interval of the mean over heads, and the
worst ear.

{markdown_table(side_by_side(measures, ["anatomy"], ["model"]))}

{_section(f"Tests against {reference}", TESTS_EXPLAINED, tests)}
{_tests_of_equals(bundles, ears)}
{chr(10).join(f"![{name}]({name}.png)" for name in PICTURES)}
"""
    write_text_atomically(folder / "README.md", text)
