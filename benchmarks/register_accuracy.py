"""Registration error at the landmarks on phantoms that moved as real patients do.

    python benchmarks/register_accuracy.py [--heads 25]

Each head gives four cases, PPI and PEI, as a whole and in a field of view of one ear. Leaves
register_accuracy.tsv and .png in benchmarks/results. Simulation.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
#: Width of a field of view of one ear, mm.
EAR_MM = 50.0


def cases_of(seed: int) -> list[dict[str, float | str]]:
    """Error before and after registration at the six landmarks of a head, mm."""
    from nibabel.affines import apply_affine

    from hydrops.images import affine_of
    from hydrops.labels import SIDES
    from hydrops.phantom.anatomy import draw_ear, draw_hydrops
    from hydrops.phantom.cohort import examine
    from hydrops.register import RegisterOptions, register_rigid

    rng = np.random.default_rng([seed, 321])
    left, right = (draw_ear(rng, side, draw_hydrops(rng, rng.uniform())) for side in SIDES)
    found = examine(rng, left, right)
    about = np.eye(4)
    about[:3, 3] = found.head.pose[:3, 3]
    rows: list[dict[str, float | str]] = []
    for field, sides in (("head", SIDES), (f"{EAR_MM:.0f} mm", ("right",))):
        points = np.array([p for side in sides for p in found.head.landmarks(side).values()])
        there = np.column_stack([points, np.ones(len(points))])
        box = [slice(0, n) for n in found.images["MRC"].shape]
        if field != "head":
            middle = points.mean(axis=0)
            ends = middle + np.array([[-EAR_MM / 2, 0, 0], [EAR_MM / 2, 0, 0]])
            low, high = np.round(np.sort(apply_affine(np.linalg.inv(found.affine), ends)[:, 0]))
            box[0] = slice(int(max(low, 0)), int(high))
        affine = affine_of(box, found.affine)
        for role in ("PPI", "PEI"):
            true = about @ found.motions[role] @ np.linalg.inv(about)
            estimate = register_rigid(
                found.images["MRC"][*box], affine, found.images[role][*box], affine,
                RegisterOptions().box_mm,
            )  # fmt: skip
            error, before = (
                np.linalg.norm((there @ m.T - there @ true.T)[:, :3], axis=1)
                for m in (estimate, np.eye(4))
            )
            rows.append(
                {"seed": seed, "field": field, "role": role, "before_mm": before.mean(),
                 "mean_mm": error.mean(), "worst_mm": error.max()}
            )  # fmt: skip
    return rows


def draw(table: pd.DataFrame) -> Figure:
    """Error after registration against the motion that there was."""
    figure = Figure(figsize=(6, 4.2), layout="constrained")
    panel = figure.subplots()
    for (field, role), part in table.groupby(["field", "role"], sort=False):
        panel.loglog(
            part["before_mm"], part["mean_mm"], "o" if field == "head" else "x",
            color="C0" if role == "PPI" else "C1", alpha=0.8, label=f"{role}, {field}",
        )  # fmt: skip
    ends = [table["before_mm"].min() * 0.7, table["before_mm"].max() * 1.3]
    panel.plot(ends, ends, "--", color="#888888", lw=1, label="no gain")
    panel.axhline(0.1, color="#a00000", lw=1, label="0.10 mm")
    panel.set(xlabel="motion at the landmarks, mm", ylabel="error after registration, mm",
              title="Simulation")  # fmt: skip
    panel.legend(frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def main() -> None:
    """Measure, and leave table and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, default=25)
    heads = parser.parse_args().heads
    rows = []
    with ProcessPoolExecutor(2) as executor:
        for number, found in enumerate(executor.map(cases_of, range(heads)), start=1):
            rows += found
            print(f"{number} of {heads}", file=sys.stderr)
    table = pd.DataFrame(rows)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "register_accuracy.tsv"
    table.to_csv(path, sep="\t", index=False, float_format="%.4f")
    draw(table).savefig(path.with_suffix(".png"), dpi=100, metadata={"Software": None})
    for field, part in table.groupby("field", sort=False):
        better = (part["mean_mm"] < part["before_mm"]).sum()
        print(
            f"{field}: {len(part)} cases, {part['mean_mm'].mean():.3f} mm on average, "
            f"{part['worst_mm'].max():.3f} mm at worst, better than before in {better}"
        )


if __name__ == "__main__":
    main()
