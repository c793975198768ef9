"""Tables of benchmarks that are measured in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd


def beside_earlier(measured: pd.DataFrame, path: Path, keys: Sequence[str]) -> pd.DataFrame:
    """What was measured, and below it what an earlier table holds of others (`keys`)."""
    from hydrops.cohort import read_table

    if not path.is_file():
        return measured
    earlier = read_table(path)
    known, old = (
        pd.MultiIndex.from_frame(table[list(keys)].astype(str)) for table in (measured, earlier)
    )
    return pd.concat([measured, earlier[~old.isin(known)]], ignore_index=True)
