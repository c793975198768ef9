"""Models compared: the same heads for all, one value a head, and nothing from what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from hydrops.cohort import markdown_table
from hydrops.labels import ORGANS
from hydrops.model.bundle import WEIGHTS, Bundle
from hydrops.model.compare import (
    TESTED,
    compare_models,
    endolymph_by_amount,
    equally_trained,
    measure_models,
    write_comparison,
)
from hydrops.model.crossval import side_by_side, summarise_measures
from hydrops.model.evaluate import (
    COLUMNS,
    HYDROPIC,
    ORGAN_AGREEMENT,
    slice_name,
    summarise,
    whose_anatomy,
)
from hydrops.model.pictures import draw_agreement

MODELS = {"paired_unet3d-1.0": 0.0, "unet2d-1.0": 0.03, "inhearit-1.0": 0.06}


def evaluation(heads: int = 8, seed: int = 0) -> pd.DataFrame:
    """As `evaluate` leaves it: models that lose a fixed share of Dice; one has no endolymph."""
    rng = np.random.default_rng(seed)
    rows = []
    for head in range(heads):
        for side in ("left", "right"):
            best, true = rng.uniform(0.90, 0.97), rng.uniform(0.05, 0.6)
            for model, loss in MODELS.items():
                areal = model.startswith("inhearit")
                error = rng.normal(0, 0.01 + loss / 5)
                row = {
                    "model": model, "anatomy": "phantom", "seed": head, "side": side,
                    "specimen": "", "reason": "",
                    "ratio_true": true, "ratio": np.nan if areal else true + error,
                    "ratio_error": np.nan if areal else abs(error),
                    "half_width": np.nan if areal else 0.01,
                    "tfs_mm3": 200.0, "tfs_dice": np.nan if areal else best - loss,
                    "els_dice": np.nan if areal else best - 0.05 - loss,
                    "cochlea_dice": best - loss, "vestibule_dice": best - 2 * loss,
                    "semicircular_canals_dice": np.nan if areal else best - loss,
                    "landmark_mm": np.nan if model != "paired_unet3d-1.0" else 0.2,
                    "landmark_max_mm": np.nan if model != "paired_unet3d-1.0" else 0.3,
                }  # fmt: skip
                row |= {
                    f"{organ}_area{end}": rng.uniform()
                    for organ in ("cochlea", "vestibule")
                    for end in ("", "_given", "_true", "_3", "_3_true")
                }
                for organ, off in zip(ORGANS, (0.0, 0.02, -0.05)):
                    row |= {
                        f"{organ}_ratio": np.nan if areal else true + off,
                        f"{organ}_ratio_true": true,
                    }
                rows.append(row)
    return pd.DataFrame(rows)


def test_a_table_of_measures_leaves_out_what_a_model_does_not_measure() -> None:
    table = measure_models(evaluation()).set_index(["model", "measure"])
    assert ("inhearit-1.0", "els_dice") not in table.index
    assert ("inhearit-1.0", "tfs_dice") not in table.index
    assert ("inhearit-1.0", "cochlea_dice") in table.index
    assert ("unet2d-1.0", "landmark_mm") not in table.index
    ears = evaluation().query("model == 'unet2d-1.0'")
    ours = ears["tfs_dice"]
    row = table.loc[("unet2d-1.0", "tfs_dice")]
    assert row["mean"] == pytest.approx(ours.mean())
    assert row["sd"] == pytest.approx(np.sqrt(((ours - ours.mean()) ** 2).sum() / 15))
    assert row["worst"] == ours.min()
    # Both ears of a head are one draw.
    heads = ears.groupby("seed")["tfs_dice"].mean()
    low, high = stats.t.interval(0.95, len(heads) - 1, heads.mean(), stats.sem(heads))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((low, high))
    assert "0.957" in table.loc[("paired_unet3d-1.0", "tfs_dice"), "published"]


def test_models_are_tested_on_heads_not_on_ears() -> None:
    ears = evaluation()
    table = compare_models(ears, "paired_unet3d-1.0")
    row = table.query("model == 'unet2d-1.0' and measure == 'tfs_dice'").iloc[0]
    assert row["heads"] == 8
    assert row["median_difference"] == pytest.approx(-0.03)
    # All eight differences have one sign: the exact two-sided p of the signed-rank test.
    assert row["p"] == pytest.approx(2 / 2**8)
    assert row["p_corrected"] >= row["p"]
    assert set(table["measure"]) <= set(TESTED)
    assert not ((table["model"] == "inhearit-1.0") & (table["measure"] == "ratio_error")).any()


def test_an_ear_that_one_model_refused_is_in_no_test_of_it() -> None:
    ears = evaluation()
    refused = (ears["model"] == "unet2d-1.0") & (ears["seed"] == 3)
    ears.loc[refused, [*TESTED, "ratio"]] = np.nan
    table = compare_models(ears, "paired_unet3d-1.0")
    assert table.query("model == 'unet2d-1.0'")["heads"].unique().tolist() == [7]


def test_a_model_does_not_look_better_for_refusing_the_hard_ear_of_each_head() -> None:
    ears = evaluation()
    hard = ears["side"] == "right"
    ears.loc[hard, "tfs_dice"] -= 0.3
    ears.loc[hard & (ears["model"] == "unet2d-1.0"), "tfs_dice"] = np.nan
    table = compare_models(ears, "paired_unet3d-1.0")
    row = table.query("model == 'unet2d-1.0' and measure == 'tfs_dice'").iloc[0]
    assert (row["heads"], row["ears"]) == (8, 8)
    assert row["median_difference"] == pytest.approx(-0.03)


def test_models_after_as_many_steps_are_tested_among_each_other(tmp_path: Path) -> None:
    bundles = [a_bundle(tmp_path, *model.rsplit("-", 1)) for model in MODELS]
    for bundle, steps in zip(bundles, (170, 40, 40)):
        bundle.metadata["training"]["phases"] = [{"steps": steps}]
    assert equally_trained(bundles) == [["unet2d-1.0", "inhearit-1.0"]]
    bundles[1].metadata["training"]["phases"] = [{"steps": 41}]
    assert equally_trained(bundles) == []


def test_the_interval_of_a_mean_is_around_it_however_many_ears_a_head_has() -> None:
    rng = np.random.default_rng(2)
    heads = np.repeat(np.arange(12), [1, 5] * 6)
    cases = pd.DataFrame({"model": "m", "head": heads, "dice": 0.1 * heads + rng.normal(size=36)})
    (row,) = summarise_measures(cases, ["model"], ["dice"], "head").to_dict("records")
    assert row["mean"] == pytest.approx((row["ci_low"] + row["ci_high"]) / 2)
    # An independent implementation of the standard error of clustered values.
    fit = smf.ols("dice ~ 1", cases).fit(
        cov_type="cluster",
        cov_kwds={"groups": cases["head"], "use_correction": False},
    )
    half = stats.t.ppf(0.975, 11) * fit.bse.iloc[0] * np.sqrt(12 / 11)
    assert row["ci_high"] - row["mean"] == pytest.approx(half)


def test_the_worst_error_is_the_largest_in_either_direction() -> None:
    errors = pd.DataFrame({"model": "m", "head": range(3), "volume_error_percent": [2.0, -8.0, 5]})
    (row,) = summarise_measures(errors, ["model"], ["volume_error_percent"], "head").to_dict(
        "records"
    )
    assert row["worst"] == -8.0


def test_a_bias_is_what_a_model_finds_beyond_the_truth() -> None:
    ears = evaluation()
    ears["ratio"] += 0.05
    summary = summarise(ears).set_index("model")
    for model, part in ears.dropna(subset=["ratio"]).groupby("model"):
        differences = part["ratio"] - part["ratio_true"]
        assert summary.loc[model, "bias"] == pytest.approx(differences.mean(), abs=1e-4)
        lower, upper = map(float, summary.loc[model, "limits of agreement"].split(" to "))
        reach = 1.96 * differences.std()
        expected = (differences.mean() - reach, differences.mean() + reach)
        assert (lower, upper) == pytest.approx(expected, abs=1e-3)


def test_an_area_ratio_is_compared_with_the_true_one_of_as_many_slices() -> None:
    ears = evaluation()
    for organ in ("cochlea", "vestibule"):
        for end in ("", "_given"):
            ears[f"{organ}_area{end}"] = ears[f"{organ}_area_true"]
        ears[f"{organ}_area_3"] = ears[f"{organ}_area_3_true"]
    agreement = summarise(ears).filter(like="area ICC(2,1)")
    assert agreement.shape == (len(MODELS), 6)
    assert (agreement == 1.0).all(axis=None)


def test_a_reference_alone_has_nothing_to_be_tested_against() -> None:
    ears = evaluation().query("model == 'paired_unet3d-1.0'")
    assert compare_models(ears, "paired_unet3d-1.0").empty
    assert not measure_models(ears).empty


def test_the_dice_of_endolymph_is_shown_by_how_much_there_is() -> None:
    ears = evaluation()
    table = endolymph_by_amount(ears).set_index("model")
    assert set(table.index) == {"paired_unet3d-1.0", "unet2d-1.0"}  # the third measures none
    few = ears[(ears["model"] == "unet2d-1.0") & ears["ratio_true"].between(0.2, 0.4)]
    assert table.loc["unet2d-1.0", "true ratio 0.2 to 0.4"] == pytest.approx(few["els_dice"].mean())
    none = endolymph_by_amount(ears[ears["ratio_true"] > 0.2])
    assert none["true ratio 0 to 0.2"].isna().all()


def test_one_value_has_no_interval() -> None:
    cases = pd.DataFrame({"model": ["m"], "dice": [0.9], "head": [1]})
    table = summarise_measures(cases, ["model"], ["dice", "jaccard"], "head")
    (row,) = table.to_dict("records")
    assert row["mean"] == 0.9
    assert np.isnan(row["sd"])
    assert np.isnan(row["ci_low"])
    assert side_by_side(table.assign(published=""), [], ["model"])["m"].tolist() == ["0.900"]


def test_measures_stand_side_by_side_in_their_order_and_leave_gaps() -> None:
    table = measure_models(evaluation())
    wide = side_by_side(table, ["anatomy"], ["model"])
    assert list(wide.columns) == ["anatomy", "measure", *MODELS, "published"]
    assert wide["measure"].tolist() == list(dict.fromkeys(table["measure"]))
    shown = wide.set_index("measure")
    row = table.set_index(["model", "measure"]).loc[("unet2d-1.0", "tfs_dice")]
    assert shown.loc["tfs_dice", "unet2d-1.0"] == (
        f"{row['mean']:.3f} ± {row['sd']:.3f} "
        f"({row['ci_low']:.3f} to {row['ci_high']:.3f}; worst {row['worst']:.3f})"
    )
    assert pd.isna(shown.loc["els_dice", "inhearit-1.0"])
    assert shown.loc["tfs_dice", "published"] == "paired_unet3d-1.0: 0.957 (patients' MRI)"
    assert pd.isna(shown.loc["landmark_mm", "published"])


def test_a_p_value_is_never_shown_as_nothing() -> None:
    table = pd.DataFrame({"p": [3e-7, 0.0312], "p_corrected": [0.00004, 1.0], "median": [0.0, 1.0]})
    first, second = markdown_table(table).splitlines()[2:]
    assert first.replace(" ", "") == "|<0.0001|<0.0001|0|"
    assert second.replace(" ", "") == "|0.0312|1.0|1|"


def a_bundle(folder: Path, name: str, version: str) -> Bundle:
    place = folder / name / version
    (place / WEIGHTS).parent.mkdir(parents=True)
    (place / WEIGHTS).write_bytes(bytes(1_500_000))
    phases = [{"steps": 80}, {"steps": 30}]
    metadata = {"description": f"about {name}", "training": {"phases": phases}}
    return Bundle(name, version, place, "", metadata)


def test_the_page_calls_it_simulation_and_shows_every_picture(tmp_path: Path) -> None:
    ears = evaluation()
    slices = tmp_path / "slices"
    slices.mkdir()
    disc = np.hypot(*(np.indices((20, 24)) - 10)) < 6
    for row in ears.to_dict("records"):
        cut = {"image": disc.astype(np.float32), "tfs": disc, "tfs_true": disc, "els_true": disc}
        np.savez(slices / slice_name(row), allow_pickle=False, **cut)
    folder = tmp_path / "evaluation"
    bundles = [a_bundle(tmp_path, *model.rsplit("-", 1)) for model in MODELS]
    summary = summarise(ears).set_index("model")
    held = (ears["ratio_error"] <= 0.01)[ears["model"] == "paired_unet3d-1.0"].mean()
    assert summary.loc["paired_unet3d-1.0", "interval held"] == f"{held:.1%}"
    assert summary.loc["inhearit-1.0", "interval held"] == "n/a"
    much = ears.query("model == 'unet2d-1.0' and ratio_true > 0.4")["els_dice"].mean()
    found = summary.loc["unet2d-1.0", f"ELS Dice, true ratio over {HYDROPIC}"]
    assert found == pytest.approx(much, abs=1e-4)
    organs = {organ: ORGAN_AGREEMENT.format(organ) for organ in ("cochlea", "vestibule")}
    assert summary.loc["unet2d-1.0", organs["cochlea"]] == "1.000, +0.000, 0.000"
    assert summary.loc["unet2d-1.0", organs["vestibule"]].endswith(", +0.020, 0.020")
    assert np.isnan(summary.loc["inhearit-1.0", organs["vestibule"]])
    write_comparison(bundles, ears, slices, summary.reset_index(), folder)
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "**Simulation.** Every model was given the same 16 ears" in page
    assert "nan" not in page
    assert "The real anatomy" not in page
    for bundle in bundles:
        assert f"| {bundle.identifier} | about {bundle.name} | 110 | 1.5 |" in " ".join(
            page.split()
        )
    for name in ("boxes", "agreement", "overlays"):
        assert f"{name}.png" in page
        assert (folder / f"{name}.png").stat().st_size > 5000
    assert set(pd.read_csv(folder / "measures.tsv", sep="\t")["model"]) == set(MODELS)
    assert len(pd.read_csv(folder / "comparison.tsv", sep="\t")) == 7
    assert "## Tests after the same training, against paired_unet3d-1.0" in page
    assert "## Refused" not in page
    assert '"specimen" ears' not in page


@pytest.mark.filterwarnings("ignore:No artists with labels")
def test_a_model_that_refuses_every_ear_is_shown_with_nothing_measured(tmp_path: Path) -> None:
    (model, *_) = MODELS
    told = evaluation().query("model == @model")
    told = told[["model", "anatomy", "seed", "side", "specimen", "ratio_true"]]
    ears = told.assign(reason="no ear").reindex(columns=COLUMNS)
    summary = summarise(ears)
    assert summary[["ears", "refused"]].to_numpy().tolist() == [[16, 16]]
    assert summary[["ICC(2,1)", "TFS Dice", "bias"]].isna().all(axis=None)
    folder = tmp_path / "evaluation"
    ears.loc[ears.index[0], "reason"] = "left ear: too noisy (noise 0.31 of 1)"
    write_comparison([a_bundle(tmp_path, *model.rsplit("-", 1))], ears, tmp_path, summary, folder)
    page = " ".join((folder / "README.md").read_text().split())
    assert "| too noisy | 1 |" in page
    assert "| no ear | 15 |" in page
    for title in ("Endolymph by how much", "Tests against", "ICC(2,1)"):
        assert title not in page.replace("area ICC", "")
    page = " ".join((folder / "README.md").read_text(encoding="utf-8").split())
    assert f"| {model} | phantom | 16 | 16 |" in page
    assert "nan" not in page
    assert "nothing was measured" in draw_agreement(ears).axes[0].get_title()


def test_the_page_says_whose_anatomy_recurs() -> None:
    ears = evaluation()
    ears.loc[ears["seed"] > 3, "specimen"] = ["T02", "F05"] * (4 * len(MODELS))
    assert "that of 2 labyrinths (F05, T02), drawn again" in whose_anatomy(ears)
