"""Images that are damaged, or are none, are refused with a reason, whatever is wrong with them."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from hydrops.errors import ExcludedError
from hydrops.images import load_image


def an_image(path: Path) -> Path:
    values = (np.arange(24**3) * 7919 % 2000).astype(np.int16).reshape(24, 24, 24)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


@pytest.mark.parametrize("place", [0.3, 0.6, 0.95])
def test_a_damaged_stream_is_no_image(tmp_path: Path, place: float) -> None:
    """Bytes overwritten in the middle of a compressed file may be unpacked as other voxels."""
    path = an_image(tmp_path / "scan.nii.gz")
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + 12] = bytes(12)
    path.write_bytes(content)
    with pytest.raises(ExcludedError, match=r"scan\.nii\.gz: not a readable NIfTI image"):
        load_image(path)


@pytest.mark.parametrize(
    ("place", "content"),
    [
        (70, (9999).to_bytes(2, "little")),  # datatype
        (123, b"\x07"),  # units
        (42, (-24).to_bytes(2, "little", signed=True)),  # first dimension
    ],
)
def test_a_damaged_header_is_no_image(tmp_path: Path, place: int, content: bytes) -> None:
    path = an_image(tmp_path / "scan.nii")
    raw = bytearray(path.read_bytes())
    raw[place : place + len(content)] = content
    path.write_bytes(raw)
    with pytest.raises(ExcludedError, match=r"scan\.nii"):
        load_image(path)


def test_a_surface_is_no_image(tmp_path: Path) -> None:
    array = nib.gifti.GiftiDataArray(np.zeros((3, 3), np.float32))
    nib.save(nib.GiftiImage(darrays=[array]), tmp_path / "mesh.gii")
    with pytest.raises(ExcludedError, match=r"mesh\.gii: a GiftiImage, not an image"):
        load_image(tmp_path / "mesh.gii")


@pytest.mark.parametrize("voxel_mm", [0.005, 0.01, 0.1, 1.0])
def test_voxels_of_a_micro_ct_are_read(tmp_path: Path, voxel_mm: float) -> None:
    path = tmp_path / "scan.nii.gz"
    values = np.random.default_rng(0).random((8, 8, 8), np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([voxel_mm] * 3 + [1.0])), path)
    data, affine = load_image(path)
    assert np.array_equal(data, values)
    assert affine[0, 0] == pytest.approx(voxel_mm)


def test_a_flat_grid_is_none(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 2] = affine[:3, 1]
    image = nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8), np.float32), affine)
    with gzip.open(path, "wb") as stream:
        image.to_stream(stream)
    with pytest.raises(ExcludedError, match="no usable position or voxel size"):
        load_image(path)
