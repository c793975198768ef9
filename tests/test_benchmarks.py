"""What the benchmarks are made of keeps step with the library; what they measure is not tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hydrops.model.metrics import ratio_errors

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_stages_without_their_work_leave_what_the_cohorts_tables_are_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import scale

    count = 3
    scale.make_project(tmp_path, count)
    scale.fill(tmp_path)
    code = (
        "from pathlib import Path; from hydrops.cohort import build_tables, write_table;"
        "from hydrops.config import resolve; from hydrops.validate import load_yaml;"
        "study = resolve(load_yaml(Path('config/config.yaml'), 'config'));"
        "tables = build_tables(study.units, study.paths, *study.bundles);"
        "write_table(tables.ears, Path('ears.tsv'));"
        "write_table(tables.exclusions, Path('exclusions.tsv'))"
    )
    scale.Running(tmp_path, "-c", code).finish()
    ears, exclusions = (
        pd.read_csv(tmp_path / f"{name}.tsv", sep="\t") for name in ("ears", "exclusions")
    )
    out = sum({"both": 2}.get(side, 1) for side in exclusions["side"])
    assert len(ears) == 4 * (2 * count - out) > 0
    assert (ears["ci_low"] < ears["eh_volume_ratio"]).all()


def test_the_error_of_a_ratio_knows_no_interval_where_none_was_given() -> None:
    ears = pd.DataFrame(
        {
            "ratio": [0.3, 0.3, 0.3, np.nan],
            "half_width": [0.05, 0.15, np.nan, np.nan],
            "ratio_true": [0.4, 0.4, 0.4, 0.4],
        }
    )
    found = ratio_errors(ears)
    assert found["error"].tolist()[:3] == pytest.approx([-0.1] * 3)
    assert found["absolute"].tolist()[:3] == pytest.approx([0.1] * 3)
    assert found["held"].tolist()[:2] == [0.0, 1.0]
    assert found["held"].isna().tolist() == [False, False, True, True]
    assert found["refused"].tolist() == [False, False, False, True]
