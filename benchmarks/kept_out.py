"""Ears that no training drew, measured one by one: what several benchmarks are run on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from hydrops.model.bundle import find_bundle  # noqa: E402
from hydrops.model.segmenter import Segmenter, load_segmenter  # noqa: E402
from hydrops.model.simulate import load_specimens, specimen_ear  # noqa: E402
from hydrops.phantom.anatomy import Ear, draw_ear, draw_hydrops  # noqa: E402

SEED = 8_700_000
#: Rows of an ear by a model's folder, the ear's anatomy, seed and itself.
Measure = Callable[[Path, str, int, Ear], list[dict[str, object]]]


def draw_ears(count: int) -> Iterator[tuple[str, int, Ear]]:
    """Anatomy, seed and left ears: so many of phantoms, and of the specimens where they are."""
    study = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))
    folder = ROOT / study["training"]["specimens"]
    for seed in range(SEED, SEED + count):
        rng = np.random.default_rng(seed)
        yield "phantom", seed, draw_ear(rng, "left", draw_hydrops(rng, float(rng.uniform())))
    names = study["training"]["test_specimens"]
    known = load_specimens(folder, names) if folder.is_dir() else []
    for number in range(count if known else 0):
        seed = SEED + 10_000 + number
        rng = np.random.default_rng(seed)
        yield "specimen", seed, specimen_ear(known[number % len(known)], rng, "left")


@cache
def segmenter_of(folder: Path) -> Segmenter:
    """A model, loaded once in each process."""
    return load_segmenter(folder, "cpu", 1)


def measured_ears(measure: Measure, description: str) -> pd.DataFrame:
    """Rows of all ears, two at a time, as many and by which model the command line says."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--ears", type=int, default=24)
    parser.add_argument("--model", default="paired_unet3d")
    chosen = parser.parse_args()
    folder = find_bundle(ROOT / "models", chosen.model).folder
    drawn = list(draw_ears(chosen.ears))
    rows: list[dict[str, object]] = []
    with ProcessPoolExecutor(2) as executor:
        measured = executor.map(measure, repeat(folder), *zip(*drawn))
        for number, found in enumerate(measured, start=1):
            rows += found
            print(f"{number} of {len(drawn)}", file=sys.stderr)
    return pd.DataFrame(rows)
