"""An ear on the slices that a scanner acquired, and the one on which an organ is measured."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import (
    average_onto,
    load_image,
    majority_labels,
    part_under,
    slice_axis,
    spacing_mm,
)
from hydrops.labels import ORGANS
from hydrops.paths import Paths, Unit

#: Part of a circle in which the lateral canal's ring must be seen (Cho et al. 2020, Methods).
RING_DEGREES = 240.0
#: Share of its largest section that the vestibule must have on its slice: where a head is tipped,
#: the ring may be seen only where hardly any vestibule is left. Chosen on ears of development at
#: pitches of up to 20 degrees, by how well the area ratio repeats itself.
LEAST_SECTION = 0.7
#: Directions from the middle of the ring, degrees.
_STEP_DEG = 10.0
#: Distances from its middle between which the ring lies, and the step in which it is looked for,
#: mm. These and the next three were chosen on simulated ears of development: the true regions and
#: the same with noise at their borders were to choose the same slice.
_NEAREST_MM, _FARTHEST_MM, _STEP_MM = 1.0, 5.0, 0.25
#: Share of a voxel that fluid fills where one begins to see it, and where one sees it fully.
_HARDLY_SEEN, _SEEN = 0.1, 0.6
#: Largest share of fluid within the ring.
_HOLE = 0.5
#: Part of a circle in which it must be a canal that is seen.
_CANAL_DEGREES = 60.0
#: Part of the vestibule that lies below the ring or on its slice, on average of the same ears.
_RING_HEIGHT = 0.75
#: Pixels below which a region has neither a length nor an area ratio.
_FEWEST_PIXELS = 4


@dataclass(frozen=True)
class AcquiredSlices:
    """An ear on the slices that the scanner acquired.

    Parameters
    ----------
    fluid
        (3, x, y, z) share of each voxel that the fluid of each of `ORGANS` fills; z lowest first.
    mi2
        (x, y, z) HYDROPS-Mi2 on the same voxels, or None.
    numbers
        Index in the MRC of each slice z, counted from 0.
    pixel_mm
        Size of a pixel along x and y.
    """

    fluid: FloatGrid
    mi2: FloatGrid | None
    numbers: npt.NDArray[np.int64]
    pixel_mm: tuple[float, float]

    @cached_property
    def organs(self) -> npt.NDArray[np.uint8]:
        """(x, y, z) organ of each voxel, 1 to 3 in the order of `ORGANS`, 0 outside."""
        return majority_labels(self.fluid)

    def representative(self, organ: str) -> int | None:
        """See `representative_slice`."""
        return representative_slice(organ, self.fluid, self.pixel_mm)

    def area_ratio(self, organ: str, z: int | None, beside: int = 0) -> float | None:
        """Share of an organ's pixels on a slice whose HYDROPS-Mi2 is negative, or None.

        The EH area ratio of Cho et al. 2020, Methods, where the slice is the representative one.

        Parameters
        ----------
        beside
            Number of neighbours above and below whose pixels count as well.
        """
        if z is None or self.mi2 is None:
            return None
        near = slice(max(0, z - beside), z + beside + 1)
        region = self.organs[..., near] == ORGANS.index(organ) + 1
        if region.sum() < _FEWEST_PIXELS:
            return None
        return float((self.mi2[..., near][region] < 0).mean())


def on_acquired_slices(
    fractions: FloatGrid,
    affine: Affine,
    mrc: nib.Nifti1Image,
    unit: Unit,
    paths: Paths,
) -> AcquiredSlices:
    """Bring the organs onto the MRC's own voxels around the ear, lowest slice first.

    Parameters
    ----------
    fractions, affine
        (7, x, y, z) volume fractions on their grid.
    mrc
        The session's MRC; HYDROPS-Mi2 is read from where `register` left it.
    """
    organs = fractions[1::2] + fractions[2::2]
    region, part = part_under(fractions.shape[1:], affine, mrc.shape[:3], mrc.affine)
    shape = tuple(r.stop - r.start for r in region)
    fluid = average_onto(organs, affine, shape, part)
    axis = slice_axis(mrc.affine)
    path = paths.registered(unit, "HYDROPSMi2")
    mi2 = load_image(path)[0][region] if path.is_file() else None
    numbers = np.arange(region[axis].start, region[axis].stop)
    fluid = np.moveaxis(fluid, 1 + axis, -1)
    mi2 = None if mi2 is None else np.moveaxis(mi2, axis, -1)
    if mrc.affine[2, axis] < 0:
        fluid, numbers = fluid[..., ::-1], numbers[::-1]
        mi2 = None if mi2 is None else mi2[..., ::-1]
    across, along = np.delete(spacing_mm(mrc.affine), axis)
    return AcquiredSlices(fluid, mi2, numbers, (float(across), float(along)))


def representative_slice(organ: str, fluid: FloatGrid, pixel_mm: tuple[float, float]) -> int | None:
    """Index of an organ's representative slice (last axis, lowest first), or None.

    After Cho et al. 2020, Methods: the cochlea's is the slice with the greatest height of the
    modiolus, taken as the slice on which the cochlea is longest; the vestibule's the lowest on
    which the ring that lateral canal and vestibule form is seen over more than `RING_DEGREES`;
    without canals, or such a ring, the slice on which it would lie on average (`_RING_HEIGHT`).
    It is none above the last on which the vestibule's section is large (`LEAST_SECTION`).

    Parameters
    ----------
    fluid, pixel_mm
        Those of `AcquiredSlices`.
    """
    if organ == "cochlea":
        lengths = [_length_mm(fluid[0, ..., z], pixel_mm) for z in range(fluid.shape[3])]
        return int(np.argmax(lengths)) if max(lengths) > 0 else None
    sections = fluid[1].sum(axis=(0, 1), dtype=np.float64)
    if not sections.any():
        return None
    highest = np.flatnonzero(sections >= LEAST_SECTION * sections.max())[-1]
    lowest_ring = next(
        (z for z in range(len(sections)) if ring_degrees(fluid[..., z], pixel_mm) > RING_DEGREES),
        np.searchsorted(np.cumsum(sections), _RING_HEIGHT * sections.sum()),
    )
    return int(min(lowest_ring, highest))


def ring_degrees(fluid: FloatGrid, pixel_mm: tuple[float, float]) -> float:
    """Angle over which canal and vestibule are seen around a hole between them.

    They are looked for in all directions from each pixel near a canal that has no fluid within
    `_NEAREST_MM`; the one from which most is seen counts, so an open ring reads as more than it
    is: an arc of 160 degrees as up to 70 more, one of 210 as 40 to 50 more, a closed ring as it is.
    A canal fills the voxels on its way in part, and what is seen of it grows with their share: if
    it appeared only where they were more than half full, a ring would come and go with the noise of
    single voxels.

    Parameters
    ----------
    fluid
        (3, x, y) of one slice.
    """
    _, vestibule, canals = fluid
    near = np.argwhere(canals > _HARDLY_SEEN)
    if not len(near) or vestibule.max() <= _HARDLY_SEEN:
        return 0.0
    low, high = near.min(0), near.max(0) + 1
    pixels = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1).reshape(-1, 2)
    close = np.arange(0.0, _NEAREST_MM + _STEP_MM / 2, _STEP_MM)
    hollow = _around(fluid.sum(0), pixels, close, pixel_mm).max((1, 2)) < _HOLE
    far = np.arange(_NEAREST_MM, _FARTHEST_MM + _STEP_MM / 2, _STEP_MM)
    ring, canal = (
        _seen_degrees(_around(part, pixels[hollow], far, pixel_mm).max(1))
        for part in (vestibule + canals, canals)
    )
    return float(ring[canal >= _CANAL_DEGREES].max(initial=0.0))


def _around(
    image: FloatGrid,
    pixels: npt.NDArray[np.int64],
    distances_mm: npt.NDArray[np.float64],
    pixel_mm: tuple[float, float],
) -> FloatGrid:
    """An image (x, y) around pixels (n, 2): (n, distances, directions)."""
    angles = np.radians(np.arange(0.0, 360.0, _STEP_DEG))
    directions = np.stack([np.cos(angles), np.sin(angles)]) / np.array(pixel_mm)[:, None]
    places = pixels.T[:, :, None, None] + distances_mm[:, None] * directions[:, None, None, :]
    return np.asarray(ndimage.map_coordinates(image, places, order=1, mode="constant"))


def _seen_degrees(shares: FloatGrid) -> npt.NDArray[np.float64]:
    """Angle over which fluid is seen, by its greatest share (n, directions) in each direction."""
    seen = np.clip((shares - _HARDLY_SEEN) / (_SEEN - _HARDLY_SEEN), 0.0, 1.0)
    return np.asarray(_STEP_DEG * seen.sum(1, dtype=np.float64))


def _length_mm(share: FloatGrid, pixel_mm: tuple[float, float]) -> float:
    """Longest extent of a region by its share of each pixel (x, y), mm.

    Four standard deviations along its main axis.
    """
    if share.sum() < _FEWEST_PIXELS:
        return 0.0
    places = np.indices(share.shape).reshape(2, -1) * np.array(pixel_mm)[:, None]
    return float(4.0 * np.sqrt(np.linalg.eigvalsh(np.cov(places, aweights=share.ravel()))[-1]))
