"""NIfTI images: read with care, written whole, resampled once."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Sequence
from itertools import product
from math import ceil, floor
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.affines import apply_affine
from nibabel.filebasedimages import FileBasedImage, ImageFileError, SerializableImage
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid, Mask
from hydrops.errors import ExcludedError, HydropsError
from hydrops.files import placed
from hydrops.model.geometry import CROP_SHAPE, CROP_SPACING_MM, FINE_SHAPE

#: Largest voxel, and longest side of an image, that a scan of a head or neck has, mm; and the least
#: longest side that an image of an ear has.
LARGEST_VOXEL_MM, LONGEST_SIDE_MM, SHORTEST_SIDE_MM = 10.0, 1000.0, 5.0
#: What a NIfTI header says of where its voxels lie, in two ways.
PLACEMENT = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y",
    "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
#: Farthest apart that both may place a corner of an image and still mean the same, mm.
SAME_PLACE_MM = 0.1
#: How files of other formats begin, after so many bytes, and what they are.
OTHER_FORMATS = ((0, b"NRRD", "NRRD"), (0, b"ObjectType", "MetaImage"), (128, b"DICM", "DICOM"))
#: Timing of a sequence as sidecars tell it, in seconds.
SIDECAR_TIMES = ("RepetitionTime", "EchoTime", "InversionTime")
#: Voxels around what is looked at that a spline is fitted to as well: so far off, a voxel's weight
#: is less than 1e-4.
FILTER_MARGIN = 8
#: Corners of a cube of edge one.
CUBE_CORNERS = np.array(list(product((0, 1), repeat=3)))


def load_image(path: Path) -> tuple[FloatGrid, Affine]:
    """Read a 3D image as float32 with its voxel-to-RAS-mm affine (4 x 4).

    Raises
    ------
    ExcludedError
        If the file is missing, empty, cut off, not 3D, constant, holds NaN or infinity, colours or
        complex numbers, or its header gives no size that a scan could have.
    """
    data, affine = _load_volume(path)
    if data.min() == data.max():
        raise ExcludedError(f"{path.name}: every voxel is the same, there is no picture in it")
    return data, affine


def _load_volume(path: Path) -> tuple[FloatGrid, Affine]:
    """As `load_image`, of an image that may be constant."""
    try:
        image = _open_image(path)
        if not isinstance(image, SpatialImage):
            raise ExcludedError(f"{path.name}: a {type(image).__name__}, not an image")
        _check_kind(image, path.name)
        data = np.asarray(image.dataobj, dtype=np.float32)
    except FileNotFoundError:
        raise ExcludedError(f"{path.name}: the file is missing") from None
    except (
        ImageFileError,
        HeaderDataError,
        MGHError,
        OSError,
        EOFError,
        ValueError,
        KeyError,
        OverflowError,
        zlib.error,
    ) as error:
        raise ExcludedError(f"{path.name}: {_why_unreadable(path)}") from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3 or min(data.shape) < 2:
        raise ExcludedError(f"{path.name}: not a volume, its shape is {data.shape}")
    if not np.isfinite(data).all():
        raise ExcludedError(f"{path.name}: holds voxels that are not numbers (NaN or infinity)")
    affine = np.asarray(image.affine, dtype=np.float64)
    _check_size(data.shape, affine, path.name)
    return data, affine


def read_image(path: Path, picture: bool = True) -> tuple[FloatGrid, Affine]:
    """As `load_image`, of a file that a person has named.

    Parameters
    ----------
    picture
        Whether it must show something; an empty label does not.

    Raises
    ------
    HydropsError
        Where `load_image` excludes it, or if it is a folder.
    """
    if path.is_dir():
        raise HydropsError(f"{path}: a folder, not an image; dcm2niix makes NIfTI of DICOM")
    try:
        return load_image(path) if picture else _load_volume(path)
    except ExcludedError as exclusion:
        reason = exclusion.reason.removeprefix(f"{path.name}: ")
        raise HydropsError(f"{path}: {reason}") from exclusion


def _why_unreadable(path: Path) -> str:
    """What a file that cannot be read as NIfTI seems to be."""
    try:
        with path.open("rb") as stream:
            start = stream.read(132)
    except OSError:
        start = b""
    for offset, mark, name in OTHER_FORMATS:
        if start[offset : offset + len(mark)] == mark:
            return f"is {name}, not NIfTI; convert it (dcm2niix does DICOM, 3D Slicer the others)"
    packed, named = start.startswith(b"\x1f\x8b"), path.suffix.lower() in (".gz", ".mgz")
    if packed and not named:
        return "is compressed, so its name must end in .gz"
    if start and named and not packed:
        return "is not compressed, so its name must not end in .gz"
    return "not a readable NIfTI image (cut off?)"


def _open_image(path: Path) -> FileBasedImage:
    """An image whose voxels are not read yet; a compressed one is unpacked to its end.

    There stands whether it is as it was written. One of a pair of files is unpacked for that alone.
    """
    image = nib.load(path)
    if path.suffix.lower() not in (".gz", ".mgz"):
        return image
    content = gzip.decompress(path.read_bytes())
    return type(image).from_bytes(content) if isinstance(image, SerializableImage) else image


def _check_kind(image: nib.Nifti1Image, name: str) -> None:
    """Refuse what has no grey levels, or lengths in another unit than mm."""
    if image.get_data_dtype().kind not in "iuf":
        raise ExcludedError(f"{name}: holds colours or complex numbers instead of grey levels")
    unit = image.header.get_xyzt_units()[0] if isinstance(image, nib.Nifti1Image) else "mm"
    if unit not in ("mm", "unknown"):
        raise ExcludedError(f"{name}: its header gives lengths in {unit}s; store it in mm")


def _check_size(shape: Sequence[int], affine: Affine, name: str) -> None:
    """Refuse a size that no scan of a head could have."""
    if not abs(np.linalg.det(affine[:3, :3])) > 1e-3 * np.prod(spacing_mm(affine)):
        raise ExcludedError(f"{name}: its header gives no usable position or voxel size")
    voxel = spacing_mm(affine)
    sides = voxel * shape
    if voxel.max() > LARGEST_VOXEL_MM or sides.max() > LONGEST_SIDE_MM:
        raise ExcludedError(
            f"{name}: its header gives voxels of {in_words(voxel)} mm and sides of "
            f"{in_words(sides)} mm, which no scan of a head has; is it in another unit, or of a "
            "whole body?"
        )
    if sides.max() < SHORTEST_SIDE_MM:
        raise ExcludedError(
            f"{name}: its header gives sides of {in_words(sides)} mm, in which no inner ear fits; "
            "is it in another unit?"
        )


def in_words(lengths: npt.NDArray[np.floating[Any]]) -> str:
    """Lengths along the axes of an image, as a message tells them."""
    return " x ".join(f"{length:.4g}" for length in lengths)


def read_placement(path: Path) -> nib.Nifti1Header | None:
    """Header of a readable image, if it tells where the image lies in the world; else None.

    An Analyze file never does, a NIfTI does not where both its codes are zero: what is left and
    what is right is made up then.
    """
    header = nifti_header(path)
    return header if header["qform_code"] > 0 or header["sform_code"] > 0 else None


def nifti_header(path: Path) -> nib.Nifti1Header:
    """Header of a readable image, or what one of NIfTI would say of where the image lies."""
    image = nib.load(path)
    header = image.header
    if isinstance(header, nib.Nifti1Header):
        return header
    told = nib.Nifti1Header()
    told.set_data_shape(header.get_data_shape())
    if isinstance(header, nib.AnalyzeHeader):
        told.set_zooms(header.get_zooms())
    else:
        told.set_qform(image.affine, code=1)
        told.set_sform(image.affine, code=1)
    return told


def in_two_places(header: nib.Nifti1Header) -> bool:
    """Whether a header places an image in two ways that differ, of which some tools take either."""
    if not (header["qform_code"] > 0 and header["sform_code"] > 0):
        return False
    shape = header.get_data_shape()[:3]
    try:
        one, other = (corners_of(shape, form) for form in (header.get_qform(), header.get_sform()))
    except ValueError:  # the qform's quaternion is none
        return True
    return bool(np.linalg.norm(one - other, axis=1).max() > SAME_PLACE_MM)


def mirrored_between(header: nib.Nifti1Header) -> bool:
    """Whether what is left by a header's qform is right by its sform."""
    if not in_two_places(header):
        return False
    try:
        one, other = (form[:3, :3] for form in (header.get_qform(), header.get_sform()))
    except ValueError:  # the qform's quaternion is none
        return False
    return bool((one @ np.linalg.inv(other))[0, 0] < 0.0)


def why_sides_are_unknown(header: nib.Nifti1Header | None) -> str | None:
    """Why left cannot be told from right by what `read_placement` returned; None if it can."""
    if header is None:
        return (
            "its header does not say how the head lies (qform and sform codes are 0), so left "
            "cannot be told from right; convert it from its DICOM anew"
        )
    if mirrored_between(header):
        return (
            "by its qform left is where right is by its sform, so the ears cannot be told apart; "
            "convert it from its DICOM anew"
        )
    return None


def save_image(
    path: Path,
    data: npt.NDArray[np.generic],
    affine: Affine,
    slope: float | None = None,
    placement: nib.Nifti1Header | None = None,
) -> None:
    """Write a NIfTI (.nii.gz) whose bytes depend on nothing but its content.

    Parameters
    ----------
    slope
        Scale factor of stored integers (``scl_slope``).
    placement
        Header of an image on the same grid, whose words on where it lies are copied, also that it
        has none, so that every tool lays both on each other.
    """
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    if placement is not None:
        for field in PLACEMENT:
            image.header[field] = placement[field]
        image.header["pixdim"][:4] = placement["pixdim"][:4]
    if slope is not None:
        image.header.set_slope_inter(slope, 0.0)
    buffer = io.BytesIO()
    image.to_file_map({"image": nib.FileHolder(fileobj=buffer)})
    raw = bytearray(buffer.getvalue())
    if slope is not None:
        # nibabel resets the scale of integer data that it writes; 112 is scl_slope's offset.
        raw[112:120] = np.array([slope, 0.0], "<f4").tobytes()
    write_gzip(path, bytes(raw))


def write_gzip(path: Path, content: bytes) -> None:
    """Compress without name or time, so that the same content gives the same bytes."""
    with (
        placed(path) as temporary,
        temporary.open("wb") as stream,
        gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0, compresslevel=1) as packed,
    ):
        packed.write(content)


def spacing_mm(affine: Affine) -> FloatGrid:
    """Voxel size along each axis, mm."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0), np.float32)


def voxel_mm3(affine: Affine) -> float:
    """Volume of a voxel, mm3."""
    return float(abs(np.linalg.det(affine[:3, :3])))


def corners_of(shape: Sequence[int], affine: Affine) -> Affine:
    """Middles (8, 3) of the voxels at the corners of a grid, in the units of its affine."""
    return np.asarray(apply_affine(affine, CUBE_CORNERS * (np.array(shape) - 1)))


def grid_around(
    centre: npt.ArrayLike, axes: Affine, voxel_mm: npt.ArrayLike, shape: Sequence[int]
) -> Affine:
    """Voxel-to-RAS-mm affine of a grid whose middle is at a point.

    Parameters
    ----------
    centre
        (3,) RAS mm.
    axes
        (3, 3), its columns the unit axes of the grid.
    voxel_mm
        Voxel along each of them, or along all.
    """
    grid = np.eye(4)
    grid[:3, :3] = axes * np.asarray(voxel_mm)
    grid[:3, 3] = np.asarray(centre) - grid[:3, :3] @ ((np.array(shape) - 1) / 2)
    return grid


def coarsest_voxel_mm(grid: Affine, *images: Affine) -> list[float]:
    """How far a voxel of the coarsest of some images reaches along each axis of a grid, mm.

    The width of the box along that axis that blurs as much: variances of independent widths add.
    """
    axes = grid[:3, :3] / spacing_mm(grid)
    extents = [np.linalg.norm(axes.T @ image[:3, :3], axis=1) for image in images]
    return [float(width) for width in np.max(extents, 0)]


def blur_of_larger(voxel_mm: npt.ArrayLike, larger_mm: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Standard deviation of the Gaussian that smooths voxels as larger ones would, in voxels.

    The variance of the larger box beyond that of the smaller one along each axis; 0 if it is none.
    """
    small, large = np.asarray(voxel_mm, float), np.asarray(larger_mm, float)
    return np.asarray(np.sqrt(np.maximum(large**2 - small**2, 0.0) / 12.0) / small)


def crop_affine(centre_ras_mm: Sequence[float], image: Affine | None = None) -> Affine:
    """Affine of the crop grid whose middle is at a point.

    Parameters
    ----------
    image
        Affine of the image that is cropped: the crop then has its axes, each nearest to R, A and S,
        and its first voxel lies on one of the image, so that nothing is interpolated where both
        have the same voxels. RAS axes and no shift when None.
    """
    axes = np.eye(3)
    if image is not None:
        order = nib.orientations.io_orientation(image)
        turned = image @ nib.orientations.inv_ornt_aff(order, (1, 1, 1))
        axes = turned[:3, :3] / np.linalg.norm(turned[:3, :3], axis=0)
    affine = grid_around(centre_ras_mm, axes, CROP_SPACING_MM, CROP_SHAPE)
    if image is not None:
        first = np.linalg.inv(image) @ affine[:, 3]
        affine[:, 3] = image @ np.append(np.round(first[:3]), 1.0)
    return affine


def crop_image(
    data: FloatGrid, affine: Affine, grid: Affine, transform: Affine | None = None
) -> FloatGrid:
    """An image on the crop grid, by one interpolation; `transform` as in `resample`."""
    return np.asarray(average_onto(data[None], affine, CROP_SHAPE, grid, transform, order=3)[0])


def cube_affine(crop: Affine) -> Affine:
    """Affine of the fine grid, in cubes, that fills the same field as a crop."""
    steps = np.array(CROP_SHAPE) / np.array(FINE_SHAPE)
    affine = crop @ np.diag([*steps, 1.0])
    affine[:3, 3] += crop[:3, :3] @ ((steps - 1) / 2)
    return np.asarray(affine)


def in_cubes(crop: FloatGrid) -> FloatGrid:
    """Volumes (..., x, y, z) of the crop grid on the fine one, interpolated, to be looked at."""
    factors = [f / c for f, c in zip(FINE_SHAPE, CROP_SHAPE)]
    whole = [1.0] * (crop.ndim - 3)
    fine = ndimage.zoom(crop, whole + factors, order=1, mode="nearest", grid_mode=True)
    return np.asarray(fine, np.float32)


def resample(
    data: FloatGrid,
    affine: Affine,
    shape: tuple[int, ...],
    target: Affine,
    transform: Affine | None = None,
    order: int = 3,
    outside: Literal["constant", "nearest"] = "constant",
) -> FloatGrid:
    """Interpolate an image onto another grid, once, by cubic B-splines.

    Only the part of the image that the grid covers is filtered.

    Parameters
    ----------
    data, affine
        The image.
    shape, target
        The grid: its shape and its voxel-to-RAS-mm affine.
    transform
        RAS mm of the grid's world to RAS mm of the image's world, 4 x 4.
    outside
        What lies outside the image: 0, or the voxel at its edge.
    """
    chain = _to_voxels(affine, target, transform)
    part = _part_reached(shape, chain, data.shape)
    return _sampled(data[part], _within(part, chain), shape, order, outside)


def _to_voxels(affine: Affine, target: Affine, transform: Affine | None) -> Affine:
    """Voxels of a grid to voxels of an image, see `resample`."""
    return np.linalg.inv(affine) @ (np.eye(4) if transform is None else transform) @ target


def _part_reached(
    shape: Sequence[int], chain: Affine, image: Sequence[int], beyond: npt.ArrayLike = 0.0
) -> tuple[slice, ...]:
    """The part of an image that interpolation onto a grid looks at; empty where none is reached.

    Parameters
    ----------
    beyond
        How far the samples lie beyond the middle of a voxel of the grid, voxels of the image.
    """
    reach = corners_of(shape, chain)
    low = np.floor(reach.min(0) - beyond).astype(int) - FILTER_MARGIN
    high = np.ceil(reach.max(0) + beyond).astype(int) + FILTER_MARGIN + 1
    return tuple(slice(a, b) for a, b in zip(*(np.clip(end, 0, image) for end in (low, high))))


def _within(part: Sequence[slice], chain: Affine) -> Affine:
    """What leads to voxels of an image, to those of a part of it."""
    moved = chain.copy()
    moved[:3, 3] -= [side.start for side in part]
    return moved


def _sampled(
    part: FloatGrid,
    chain: Affine,
    shape: tuple[int, ...],
    order: int,
    outside: Literal["constant", "nearest"] = "constant",
    filtered: bool = False,
) -> FloatGrid:
    """A part of an image at the voxels of a grid; zero where next to nothing of it is reached.

    Parameters
    ----------
    chain
        Voxels of the grid to voxels of the part.
    filtered
        Whether the part holds coefficients of splines, no brightness.
    """
    if min(part.shape) < 2:
        return np.zeros(shape, np.float32)
    return np.asarray(
        ndimage.affine_transform(
            part, chain[:3, :3], chain[:3, 3], output_shape=tuple(shape), output=np.float32,
            order=order, mode=outside, prefilter=not filtered,
        )
    )  # fmt: skip


def box_around(mask: Mask, margin: Sequence[float]) -> tuple[slice, ...]:
    """The box of a mask (x, y, z) that holds something, and so many voxels around it."""
    places = [np.flatnonzero(mask.any(others)) for others in ((1, 2), (0, 2), (0, 1))]
    return tuple(
        slice(max(0, int(found[0]) - ceil(reach)), int(found[-1]) + 1 + ceil(reach))
        for found, reach in zip(places, margin)
    )


def grown(mask: Mask, steps: int = 1) -> Mask:
    """A mask (x, y, z) and what touches it by a face, so many times over.

    As SciPy's `binary_dilation`, which takes many times as long: enough to show in an ear's time.
    """
    wide = np.zeros([n + 2 * steps for n in mask.shape], bool)
    inner = tuple(slice(steps, steps + n) for n in mask.shape)
    wide[inner] = mask
    # Neighbours along an axis are a fixed distance apart in memory; the rim keeps rows apart.
    flat = wide.reshape(-1)
    for _ in range(steps):
        before = flat.copy()
        for apart in wide.strides:
            flat[apart:] |= before[:-apart]
            flat[:-apart] |= before[apart:]
    return wide[inner]


def ball_around(
    centre_mm: npt.ArrayLike, radius_mm: float, shape: Sequence[int], affine: Affine
) -> npt.NDArray[np.bool_]:
    """Voxels of a grid within a distance of a point (RAS mm); its axes are at right angles."""
    centre = apply_affine(np.linalg.inv(affine), centre_mm)
    reach = radius_mm / spacing_mm(affine)
    box = tuple(
        slice(min(n, max(0, ceil(c - r))), min(n, max(0, floor(c + r) + 1)))
        for n, c, r in zip(shape, centre, reach)
    )
    inside = np.zeros(shape, bool)
    away = zip(np.ogrid[box], centre, reach)
    inside[box] = sum(((place - c) / r) ** 2 for place, c, r in away) <= 1.0
    return inside


def distance_to_edge(point: npt.NDArray[np.float64], shape: Sequence[int], affine: Affine) -> float:
    """Distance of a world point from the nearest face of a grid, mm, negative outside."""
    index = apply_affine(np.linalg.inv(affine), point)
    inside = np.minimum(index + 0.5, np.asarray(shape) - 0.5 - index)
    return float((inside * spacing_mm(affine)).min())


def grid_centre(shape: Sequence[int], affine: Affine) -> npt.NDArray[np.float64]:
    """World position of the middle of a grid, RAS mm."""
    half = (np.asarray(shape) - 1) / 2
    return np.asarray(affine[:3, :3] @ half + affine[:3, 3])


def slice_axis(affine: Affine) -> int:
    """Image axis that lies closest to the head's long axis."""
    return int(np.argmax(np.abs(affine[2, :3]) / spacing_mm(affine)))


def affine_of(box: Sequence[slice], affine: Affine) -> Affine:
    """Voxel-to-RAS-mm affine of a part of an image."""
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    return moved


def part_under(
    shape: Sequence[int], affine: Affine, onto_shape: Sequence[int], onto: Affine
) -> tuple[tuple[slice, ...], Affine]:
    """The part of one grid (`onto`) that another one covers, and that part's own affine."""
    reach = corners_of(shape, np.linalg.inv(onto) @ affine)
    low = np.clip(np.floor(reach.min(0)).astype(int), 0, onto_shape)
    high = np.clip(np.ceil(reach.max(0)).astype(int) + 1, 0, onto_shape)
    part = tuple(slice(int(a), int(b)) for a, b in zip(low, high))
    return part, affine_of(part, onto)


def average_onto(
    volumes: FloatGrid,
    affine: Affine,
    shape: tuple[int, ...],
    target: Affine,
    transform: Affine | None = None,
    order: int = 1,
) -> FloatGrid:
    """Volumes, such as volume fractions, on another grid, averaged over each of its voxels.

    Parameters
    ----------
    volumes
        (n, x, y, z).
    shape, target
        The grid; voxels larger than those of `volumes` are sampled at several points.
    transform, order
        As in `resample`.

    Returns
    -------
    (n, *shape)
    """
    chain = _to_voxels(affine, target, transform)
    steps = np.linalg.norm(chain[:3, :3], axis=0)
    # A hair more than one voxel, as an oblique grid or a rotation gives, is one.
    counts = np.ceil(steps - 0.02).astype(int).clip(1)
    farthest = (0.5 - 0.5 / counts) @ np.abs(chain[:3, :3]).T
    part = _part_reached(shape, chain, volumes.shape[1:], farthest)
    chain = _within(part, chain)
    # Filtered once, however many points there are.
    seen = [_spline_coefficients(volume[part], order) for volume in volumes]
    total = np.zeros((len(volumes), *shape), np.float32)
    for index in np.ndindex(*counts):
        moved = chain.copy()
        moved[:3, 3] += chain[:3, :3] @ ((np.array(index) + 0.5) / counts - 0.5)
        total += np.stack([_sampled(each, moved, shape, order, filtered=True) for each in seen])
    return np.asarray(total / counts.prod(), np.float32)


def _spline_coefficients(part: FloatGrid, order: int) -> npt.NDArray[np.floating]:
    """What `_sampled` needs of a part; of linear interpolation the brightness itself."""
    if order < 2 or min(part.shape) < 2:
        return part
    return np.asarray(ndimage.spline_filter(part, order, mode="constant"))


def image_stem(path: Path) -> str:
    """Name of an image's file without its ends."""
    return re.sub(r"(\.mgz|(\.(nii|img|hdr|mgh))?(\.gz)?)$", "", path.name, flags=re.IGNORECASE)


def sidecar_of(path: Path) -> Path:
    """Where dcm2niix and BIDS leave what is known of an image."""
    return path.with_name(f"{image_stem(path)}.json")


def read_sidecar(sidecar: Path) -> dict[str, Any]:
    """What a sidecar says; nothing where there is none.

    Raises
    ------
    ExcludedError
        If it cannot be read, or a time in it is not a number.
    """
    if not sidecar.is_file():
        return {}
    try:
        told = dict(json.loads(sidecar.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ExcludedError(f"{sidecar.name}: not a readable sidecar") from error
    for key in SIDECAR_TIMES:
        value = told.get(key)
        if value is not None and (type(value) not in (int, float) or not np.isfinite(value)):
            raise ExcludedError(f"{sidecar.name}: its {key} is {value!r}, not a number of seconds")
    return told


def majority_labels(fractions: FloatGrid) -> npt.NDArray[np.uint8]:
    """Likeliest of classes (n, x, y, z), from one, where they fill more than half; 0 elsewhere."""
    return np.where(fractions.sum(0) > 0.5, fractions.argmax(0) + 1, 0).astype(np.uint8)


def lps_to_ras(matrix: Affine) -> Affine:
    """Turn a 4 x 4 transform between LPS worlds into one between RAS worlds, or back."""
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.asarray(flip @ matrix @ flip)


def write_itk_transform(path: Path, ras: Affine) -> None:
    """Write a rigid RAS transform as ITK text (LPS, AffineTransform, centre at the origin)."""
    lps = lps_to_ras(ras)
    numbers = " ".join(f"{value:.12g}" for value in [*lps[:3, :3].ravel(), *lps[:3, 3]])
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n",
        encoding="utf-8",
    )


def read_itk_transform(path: Path) -> Affine:
    """Read what `write_itk_transform` wrote, as a RAS transform (4 x 4)."""
    lines = dict(
        line.split(":", 1) for line in path.read_text(encoding="utf-8").splitlines() if ":" in line
    )
    numbers = np.array([float(value) for value in lines["Parameters"].split()])
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = numbers[:9].reshape(3, 3), numbers[9:]
    return lps_to_ras(matrix)
