"""A made-up specimen of labelled CT."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd


def write_specimen(folder: Path, name: str, seed: int, side: str = "left") -> None:
    """A bent dark tube in grey with a lump and a bright spot, its label and its landmarks."""
    rng = np.random.default_rng(seed)
    affine = np.diag([0.4, 0.4, 0.5, 1.0])
    affine[:3, 3] = rng.uniform(-5, 5, 3)
    i, j, k = np.ogrid[:40, :40, :32]
    distance = np.hypot(np.hypot(i - 20, j - 20) - 9, 1.2 * (k - 16))
    lump = (i - 20) ** 2 + (j - 29) ** 2 + 1.5 * (k - 20) ** 2 < 16
    label = lump | (distance < 4) & ((i > 14) | (j > 22))
    spot = ~label & ((i - 20) ** 2 + (j - 11) ** 2 + (k - 20) ** 2 < 12)
    image = np.where(label, 200.0, np.where(spot, 2000.0, 900.0)) + rng.normal(0, 40, label.shape)
    (folder / name).mkdir(parents=True)
    nib.save(nib.Nifti1Image(image.astype(np.int16), affine), folder / name / f"{name}_ct.nii.gz")
    nib.save(
        nib.Nifti1Image(label.astype(np.uint8), affine), folder / name / f"{name}_label.nii.gz"
    )
    voxels = {"A": (29, 20, 16), "OW": (20, 29, 20), "RW": (20, 11, 20), "C": (26, 26, 16),
              "V": (15, 26, 16)}  # fmt: skip
    rows = [
        {"specimen": name, "side": side, "landmark": key,
         **dict(zip(("x_ras_mm", "y_ras_mm", "z_ras_mm"), affine[:3, :3] @ v + affine[:3, 3]))}
        for key, v in voxels.items()
    ]  # fmt: skip
    path = folder / "landmarks.tsv"
    before = [pd.read_csv(path, sep="\t", dtype=str, na_filter=False)] if path.is_file() else []
    pd.concat([*before, pd.DataFrame(rows)]).to_csv(path, sep="\t", index=False)
