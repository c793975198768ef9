"""Images that are damaged, or are none, are refused with a reason, whatever is wrong with them."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from hydrops.errors import ExcludedError
from hydrops.images import (
    average_onto,
    box_around,
    grown,
    image_stem,
    in_two_places,
    load_image,
    majority_labels,
    nifti_header,
    read_image,
    read_placement,
    resample,
    save_image,
)


def an_image(path: Path) -> Path:
    values = (np.arange(24**3) * 7919 % 2000).astype(np.int16).reshape(24, 24, 24)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def test_a_voxel_has_a_label_where_its_classes_fill_more_than_half() -> None:
    """The likeliest class, be its own share as small as it may."""
    fractions = np.zeros((3, 2, 2, 1), np.float32)
    fractions[:, 0, 0, 0] = (0.16, 0.17, 0.16)
    fractions[:, 0, 1, 0] = (0.17, 0.17, 0.17 + 1e-3)
    fractions[:, 1, 0, 0] = (0.0, 0.51, 0.0)
    fractions[:, 1, 1, 0] = (0.49, 0.0, 0.0)
    assert majority_labels(fractions)[..., 0].tolist() == [[0, 3], [2, 0]]


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
    values = np.random.default_rng(0).random((8, 8, max(8, round(6.0 / voxel_mm))), np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([voxel_mm] * 3 + [1.0])), path)
    data, affine = load_image(path)
    assert np.array_equal(data, values)
    assert affine[0, 0] == pytest.approx(voxel_mm)


@pytest.mark.parametrize("factor", [0.001, 0.1])
def test_lengths_in_metres_or_centimetres_are_not_taken_for_mm(
    tmp_path: Path, factor: float
) -> None:
    path = tmp_path / "scan.nii.gz"
    values = np.random.default_rng(0).random((40, 40, 40), np.float32)
    nib.save(nib.Nifti1Image(values, np.diag([factor] * 3 + [1.0])), path)
    with pytest.raises(ExcludedError, match="in which no inner ear fits; is it in another unit"):
        load_image(path)


def test_what_another_file_is_is_said(tmp_path: Path) -> None:
    nifti = nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8)), np.eye(4)).to_bytes()
    files = {
        "a.nrrd": (b"NRRD0004\ntype: short\n", "is NRRD, not NIfTI"),
        "a.mha": (b"ObjectType = Image\n", "is MetaImage, not NIfTI"),
        "a.dcm": (bytes(128) + b"DICM" + bytes(100), "is DICOM, not NIfTI"),
        "packed.nii": (gzip.compress(nifti), "is compressed, so its name must end in .gz"),
        "plain.nii.gz": (nifti, "is not compressed, so its name must not end in .gz"),
        "empty.nii.gz": (b"", "cut off"),
        "cut.nii.gz": (gzip.compress(nifti)[:200], "cut off"),
        "cut.mgz": (gzip.compress(nifti)[:200], "cut off"),
    }
    for name, (content, told) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ExcludedError, match=rf"^{re.escape(name)}: .*{re.escape(told)}"):
            load_image(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["a.b.nii.gz", "a.b.NII.GZ", "a.b.nii", "a.b.mgz", "a.b.mgh", "a.b.img", "a.b.hdr.gz"]
)
def test_the_stem_of_an_image_has_none_of_its_ends(name: str) -> None:
    assert image_stem(Path("folder") / name) == "a.b"


def test_a_label_lies_where_its_image_does_in_both_ways(tmp_path: Path) -> None:
    """An atlas's sform beside the scanner's qform: either is kept, for tools take either."""
    rng = np.random.default_rng(0)
    qform, sform = np.diag([0.4, 0.4, 0.5, 1.0]), np.diag([-0.4, 0.4, 0.5, 1.0])
    sform[:3, 3] = (12.0, -30.0, 4.0)
    image = nib.Nifti1Image(rng.random((20, 20, 20), np.float32), sform)
    image.set_qform(qform, code=1)
    image.set_sform(sform, code=4)
    nib.save(image, tmp_path / "scan.nii.gz")
    header = read_placement(tmp_path / "scan.nii.gz")
    assert header is not None
    assert in_two_places(header)
    _, affine = load_image(tmp_path / "scan.nii.gz")
    assert np.allclose(affine, sform)
    save_image(tmp_path / "label.nii.gz", np.ones((20, 20, 20), np.uint8), affine, placement=header)
    label = nib.load(tmp_path / "label.nii.gz")
    for form, code, name in ((qform, 1, "qform"), (sform, 4, "sform")):
        told = label.get_qform(coded=True) if name == "qform" else label.get_sform(coded=True)
        assert np.allclose(told[0], form, atol=1e-5)
        assert told[1] == code
    assert np.allclose(label.affine, sform)
    image.header["quatern_b"] = 9.0  # no rotation has such a quaternion
    assert in_two_places(image.header)
    image.set_qform(sform, code=1)
    nib.save(image, tmp_path / "scan.nii.gz")
    header = read_placement(tmp_path / "scan.nii.gz")
    assert header is not None
    assert not in_two_places(header)


def test_an_image_may_not_tell_where_it_lies(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
    untold = nib.Nifti1Image(values, None)
    untold.header.set_zooms((0.5, 0.5, 0.5))
    nib.save(untold, tmp_path / "untold.nii")
    nib.save(nib.AnalyzeImage(values, np.eye(4)), tmp_path / "analyze.img")
    nib.save(nib.MGHImage(values, np.eye(4)), tmp_path / "told.mgz")
    assert read_placement(tmp_path / "untold.nii") is None
    assert read_placement(tmp_path / "analyze.img") is None
    assert read_placement(tmp_path / "told.mgz") is not None


@pytest.mark.parametrize("name", ["untold.nii", "analyze.img", "told.nii.gz"])
def test_another_reader_lays_a_label_on_its_image(tmp_path: Path, name: str) -> None:
    """ITK, which makes up another place than nibabel where a header tells none."""
    values = np.random.default_rng(0).random((12, 13, 14)).astype(np.float32)
    turned = np.diag([-0.5, 0.4, 0.3, 1.0])
    turned[:3, 3] = (20.0, -3.0, 5.0)
    image = {
        "untold.nii": nib.Nifti1Image(values, None),
        "analyze.img": nib.AnalyzeImage(values, np.eye(4)),
        "told.nii.gz": nib.Nifti1Image(values, turned),
    }[name]
    if name == "untold.nii":
        image.header.set_zooms((0.5, 0.4, 0.3))
    nib.save(image, tmp_path / name)
    _, affine = read_image(tmp_path / name)
    label = tmp_path / "label.nii.gz"
    header = nifti_header(tmp_path / name)
    save_image(label, np.ones(values.shape, np.uint8), affine, placement=header)
    one, other = (ants.image_read(str(path)) for path in (tmp_path / name, label))
    assert np.allclose(one.origin, other.origin)
    assert np.allclose(one.direction, other.direction)
    assert np.allclose(one.spacing, other.spacing)
    assert np.allclose(nib.load(tmp_path / name).affine, nib.load(label).affine)


def test_a_flat_grid_is_none(tmp_path: Path) -> None:
    path = tmp_path / "scan.nii.gz"
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 2] = affine[:3, 1]
    image = nib.Nifti1Image(np.random.default_rng(0).random((8, 8, 8), np.float32), affine)
    with gzip.open(path, "wb") as stream:
        image.to_stream(stream)
    with pytest.raises(ExcludedError, match="no usable position or voxel size"):
        load_image(path)


@pytest.mark.parametrize("order", [1, 3])
def test_a_larger_voxel_is_the_mean_of_the_points_in_it(order: int) -> None:
    """By `resample`, which fits its splines to each point's surroundings anew."""
    volumes = np.random.default_rng(0).normal(size=(2, 40, 36, 30)).astype(np.float32)
    affine = np.diag([0.4, 0.5, 0.7, 1.0])
    target = np.diag([1.1, 0.9, 1.3, 1.0])
    target[:3, 3] = (1.7, 2.3, 0.9)
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("xyz", (4, -3, 6), degrees=True).as_matrix()
    shape, steps = (9, 12, 10), (3, 2, 2)
    points = []
    for index in np.ndindex(*steps):
        moved = target.copy()
        moved[:3, 3] += target[:3, :3] @ ((np.array(index) + 0.5) / steps - 0.5)
        points.append([resample(v, affine, shape, moved, transform, order) for v in volumes])
    found = average_onto(volumes, affine, shape, target, transform, order)
    assert found == pytest.approx(np.mean(points, axis=0), abs=2e-3)


def test_what_lies_beyond_an_image_is_empty() -> None:
    away = np.eye(4)
    away[:3, 3] = 500.0
    image = np.ones((1, 20, 20, 20), np.float32)
    assert not average_onto(image, np.eye(4), (4, 4, 4), away, order=3).any()
    assert not resample(image[0], np.eye(4), (4, 4, 4), away).any()


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 2**32 - 1), st.integers(0, 4),
    st.floats(0.02, 0.9),
)  # fmt: skip
def test_a_mask_grows_as_by_scipy(
    shape: tuple[int, int, int], seed: int, steps: int, share: float
) -> None:
    mask = np.random.default_rng(seed).random(shape) < share
    before = mask.copy()
    by_scipy = ndimage.binary_dilation(mask, iterations=steps) if steps else mask
    assert (grown(mask, steps) == by_scipy).all()
    assert (mask == before).all()


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 7)] * 3), st.integers(0, 2**32 - 1))
def test_a_box_holds_a_mask_and_no_more(shape: tuple[int, int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.1
    mask[tuple(rng.integers(shape))] = True
    box = box_around(mask, (0, 0, 0))
    assert mask[box].sum() == mask.sum()
    for axis, side in enumerate(box):
        held = np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis})))
        assert (side.start, side.stop) == (held[0], held[-1] + 1)
    wide = box_around(mask, (2, 1.5, 0))
    assert [w.stop - b.stop for w, b in zip(wide, box)] == [2, 2, 0]
    assert [w.start for w in wide] == [max(0, b.start - by) for b, by in zip(box, (2, 2, 0))]
