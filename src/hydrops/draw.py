"""Draw each ear: MRC and HYDROPS-Mi2 with the contours of what was found.

Pictures follow the radiological convention: the patient's right is on the left of the picture,
anterior (axial) or superior (coronal) at its top.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from hydrops.arrays import Affine, FloatGrid
from hydrops.images import cube_affine, in_cubes, load_image, slice_axis
from hydrops.labels import LABYRINTH, LANDMARKS, ORGANS, SIDES, organ_codes
from hydrops.measure import load_fractions
from hydrops.model.geometry import FINE_SHAPE
from hydrops.paths import Paths, Unit
from hydrops.records import StageResult, read_record

#: Colours that colour-blind readers can tell apart (Okabe and Ito 2008); form tells the landmarks.
ORGAN_COLOURS = {
    "cochlea": "#56b4e9",
    "vestibule": "#e69f00",
    "semicircular_canals": "#cc79a7",
}
#: Share of a voxel at which an organ's contour runs. A canal is about as wide as a voxel and fills
#: half of hardly any, so its contour at a half would be shreds.
CONTOUR = {"cochlea": 0.5, "vestibule": 0.5, "semicircular_canals": 0.3}
ENDOLYMPH_COLOUR = "#f0e442"
LANDMARK_MARKERS = {"helicotrema": "^", "oval_window": "s", "round_window": "o"}
#: Drawn open, so that what lies below stays visible.
MARKER: dict[str, Any] = {"ms": 6, "mfc": "none", "mec": "#ff4d4d", "mew": 1.5}
#: Half of the field of the panels of one organ and of the whole ear, voxels of 0.5 mm.
ORGAN_REACH, EAR_REACH = 17.0, 23.0
#: How near to a plane a landmark must lie to be drawn on it, voxels.
NEAR_PLANE = 2.0
DPI = 100
#: Lengths in inches.
PANEL, GAP, LEFT, TOP, BOTTOM = 2.6, 0.06, 0.3, 0.76, 0.4


@dataclass(frozen=True)
class EarPicture:
    """One ear in cubes of 0.5 mm (`hydrops.images.in_cubes`), what is drawn of it.

    Parameters
    ----------
    mrc, mi2
        (x, y, z), axes R, A, S; HYDROPS-Mi2 may be absent.
    fractions
        (7, x, y, z) volume fractions in the order of `hydrops.labels.LABELS`.
    landmarks
        (3, 3) voxel coordinates in the order of `hydrops.labels.LANDMARKS`.
    slices
        By organ, the voxel height of its representative slice and that slice's number in the MRC;
        an organ that is left out is shown where it is largest.
    ratios
        EH ratio by organ, to be written beside the picture.
    measure
        Which ratio, volume or area.
    interval
        95 % interval of the labyrinth's ratio, if it has one.
    """

    mrc: FloatGrid
    mi2: FloatGrid | None
    fractions: FloatGrid
    landmarks: npt.NDArray[np.float64]
    slices: dict[str, tuple[int, int]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    measure: str = "volume"
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class _View:
    """One plane through an ear: which, and the middle and half width of what is shown of it."""

    title: str
    axis: int
    index: int
    middle: tuple[float, float]
    reach: float


def draw_session(unit: Unit, paths: Paths, model: str, output: Path) -> StageResult:
    """Draw one overlay for each measured ear of a session."""
    table = pd.read_csv(paths.measures(unit, model), sep="\t", na_values=["n/a"])
    segmented = read_record(paths.record("segment", unit, model))
    for side in SIDES:
        rows = table[table["side"] == side]
        if rows.empty or side not in segmented.numbers:
            continue
        picture = load_picture(unit, paths, side, model, rows)
        figure = draw_ear_overlay(picture, f"{unit.name}, {side} ear")
        # Without the software's name the bytes depend on the picture alone.
        path = output / paths.overlay(unit, side, model).name
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return StageResult()


def load_picture(
    unit: Unit, paths: Paths, side: str, model: str, measured: pd.DataFrame
) -> EarPicture:
    """Gather what is drawn of one ear; `measured` are its rows of the table of ears."""
    mrc, crop = load_image(paths.crop(unit, side, "MRC"))
    affine = cube_affine(crop)
    mi2_path = paths.crop(unit, side, "HYDROPSMi2")
    mi2 = in_cubes(load_image(mi2_path)[0]) if mi2_path.is_file() else None
    fractions, _ = load_fractions(paths.segmentation(unit, side, "probseg", model))
    found = json.loads(paths.landmarks(unit, side, model).read_text(encoding="utf-8"))
    points = np.array([[*found[n]["ras_mm"], 1.0] for n in LANDMARKS if n in found]).reshape(-1, 4)
    acquired = nib.load(paths.image(unit, "MRC")).affine
    slices = {
        str(row.organ): (height_of_slice(int(row.representative_slice), acquired, affine),
                         int(row.representative_slice))
        for row in measured.dropna(subset=["representative_slice"]).itertuples()
    }  # fmt: skip
    measure = "volume" if measured["eh_volume_ratio"].notna().any() else "area"
    by_organ = measured.set_index("organ")
    ratios = by_organ[f"eh_{measure}_ratio"].dropna()
    limits = by_organ.loc[by_organ.index == LABYRINTH, ["ci_low", "ci_high"]].dropna()
    return EarPicture(
        in_cubes(mrc),
        mi2,
        in_cubes(fractions),
        (points @ np.linalg.inv(affine).T)[:, :3],
        slices,
        {str(organ): float(ratio) for organ, ratio in ratios.items()},
        measure,
        None if limits.empty else (float(limits.ci_low.iloc[0]), float(limits.ci_high.iloc[0])),
    )


def height_of_slice(number: int, acquired: Affine, crop: Affine) -> int:
    """Voxel height (axis S) in a cube at which a slice of the MRC passes the cube's middle.

    Parameters
    ----------
    number
        Index of the slice along the axis of the MRC that lies closest to the head's long axis.
    acquired, crop
        Voxel-to-RAS-mm affines of the MRC and of the crop's fine grid.
    """
    axis = slice_axis(acquired)
    middle = (FINE_SHAPE[2] - 1) / 2
    up = np.linalg.inv(acquired) @ crop
    # The slice is a plane in crop voxels: up[axis] . (x, y, z, 1) = number.
    height = (number - up[axis, 3] - up[axis, :2].sum() * middle) / up[axis, 2]
    return int(np.clip(np.round(height), 0, FINE_SHAPE[2] - 1))


def draw_ear_overlay(picture: EarPicture, title: str) -> Figure:
    """MRC with the organs above, HYDROPS-Mi2 with the endolymph below, on the same planes."""
    organs = np.stack([picture.fractions[organ_codes(organ)].sum(0) for organ in ORGANS])
    fluid, endolymph = organs.sum(0), picture.fractions[2::2].sum(0)
    views = _views(organs, picture.slices)
    rows = 1 if picture.mi2 is None else 2
    figure, panels = _page(rows)
    bright = 1.15 * _percentile(picture.mrc[fluid > 0.5], 95)
    for panel, view in zip(panels[0], views):
        _show(panel, np.take(picture.mrc, view.index, view.axis), view, vmin=0.0, vmax=bright)
        for organ, share in zip(ORGANS, organs):
            plane = np.take(share, view.index, view.axis)
            _contour(panel, plane, ORGAN_COLOURS[organ], level=CONTOUR[organ])
        _mark(panel, picture.landmarks, view)
        panel.set_title(view.title, fontsize=9.5, pad=3)
    whole = _View("whole ear, maximum", 2, -1, _middle(fluid, 2), EAR_REACH)
    _show(panels[0][3], picture.mrc.max(2), whole, vmin=0.0, vmax=bright)
    _mark(panels[0][3], picture.landmarks, whole)
    panels[0][3].set_title(whole.title, fontsize=9.5, pad=3)
    panels[0][0].set_ylabel("MRC", fontsize=10)
    if picture.mi2 is not None:
        reach = _percentile(np.abs(picture.mi2[fluid > 0.5]), 97)
        for panel, view in zip(panels[1], views):
            plane = np.take(picture.mi2, view.index, view.axis)
            _show(panel, plane, view, vmin=-reach, vmax=reach)
            _contour(panel, np.take(fluid, view.index, view.axis), "#ffffff", 0.8)
            _contour(panel, np.take(endolymph, view.index, view.axis), ENDOLYMPH_COLOUR)
        _show(panels[1][3], _coloured(organs, endolymph), whole)
        panels[1][0].set_ylabel("HYDROPS-Mi2", fontsize=10)
    _write_words(figure, title, picture, rows)
    return figure


def _page(rows: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure with `rows` rows of four square panels, placed by hand: a solver costs too much."""
    width = LEFT + 4 * (PANEL + GAP)
    height = TOP + rows * (PANEL + GAP) + BOTTOM
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    panels = [
        [
            figure.add_axes(
                (
                    (LEFT + column * (PANEL + GAP)) / width,
                    (BOTTOM + (rows - 1 - row) * (PANEL + GAP)) / height,
                    PANEL / width,
                    PANEL / height,
                )
            )
            for column in range(4)
        ]
        for row in range(rows)
    ]
    return figure, panels


def _views(organs: FloatGrid, slices: dict[str, tuple[int, int]]) -> list[_View]:
    """Representative slices of cochlea and vestibule, and a coronal plane through the latter."""
    views = []
    for organ, share in zip(ORGANS[:2], organs):
        place = slices.get(organ)
        index = _fullest(share, 2) if place is None else place[0]
        where = "" if place is None else f", MRC slice {place[1]}"
        views.append(_View(f"{organ}{where}", 2, index, _middle(share, 2), ORGAN_REACH))
    middle = _middle(organs[1], 1)
    views.append(_View("vestibule, coronal", 1, _fullest(organs[1], 1), middle, ORGAN_REACH))
    return views


def _fullest(share: FloatGrid, axis: int) -> int:
    """Slice that holds most of an organ."""
    others = tuple(a for a in range(3) if a != axis)
    return int(np.argmax(share.sum(axis=others)))


def _middle(share: FloatGrid, axis: int) -> tuple[float, float]:
    """Centroid of an organ, or of nothing the crop's middle, along the two other axes."""
    if share.sum() <= 0:
        return (share.shape[0] - 1) / 2, (share.shape[0] - 1) / 2
    plane = share.sum(axis=axis)
    grid = np.meshgrid(*[np.arange(n) for n in plane.shape], indexing="ij")
    across, up = (float((plane * g).sum() / plane.sum()) for g in grid)
    return across, up


def _percentile(values: FloatGrid, percent: float) -> float:
    """Percentile of some voxels, 1 where there is none or it is nothing."""
    return float(np.percentile(values, percent)) or 1.0 if values.size else 1.0


def _show(panel: Axes, plane: npt.NDArray[Any], view: _View, **scale: float) -> None:
    """One plane as a radiologist sees it, with letters of direction and a bar of 5 mm."""
    pixels = np.swapaxes(plane, 0, 1)
    panel.imshow(
        pixels, cmap="gray", origin="lower", interpolation="bilinear",
        **scale,  # type: ignore[arg-type]
    )  # fmt: skip
    (across, up), reach = view.middle, view.reach
    panel.set_facecolor("black" if scale.get("vmin", 0.0) >= 0 else "#808080")
    panel.set_xlim(across + reach, across - reach)
    panel.set_ylim(up - reach, up + reach)
    panel.set_xticks([])
    panel.set_yticks([])
    letters: Sequence[tuple[float, float, str]] = (
        (0.03, 0.5, "R"), (0.97, 0.5, "L"), (0.5, 0.96, "A" if view.axis == 2 else "S"),
    )  # fmt: skip
    outline = [withStroke(linewidth=1.8, foreground="#202020")]
    style: dict[str, Any] = {
        "color": "white", "transform": panel.transAxes, "va": "center", "path_effects": outline,
    }  # fmt: skip
    for x, y, letter in letters:
        panel.text(x, y, letter, ha="center", fontsize=9, **style)
    bar = 10 / (2 * reach)
    panel.plot([0.96 - bar, 0.96], [0.05] * 2, color="white", lw=2.2, transform=panel.transAxes,
               path_effects=[withStroke(linewidth=4, foreground="#202020")])  # fmt: skip
    panel.text(0.96 - bar / 2, 0.09, "5 mm", ha="center", fontsize=8, **style)


def _contour(
    panel: Axes, share: FloatGrid, colour: str, width: float = 1.3, level: float = 0.5
) -> None:
    if share.min() < level < share.max():
        panel.contour(share.T, levels=[level], colors=colour, linewidths=width)


def _mark(panel: Axes, landmarks: npt.NDArray[np.float64], view: _View) -> None:
    """Landmarks within a millimetre of a plane; on a projection (index -1) all of them."""
    across, up = (a for a in range(3) if a != view.axis)
    for name, point in zip(LANDMARKS, landmarks):
        if view.index < 0 or abs(point[view.axis] - view.index) <= NEAR_PLANE:
            panel.plot(point[across], point[up], LANDMARK_MARKERS[name], **MARKER)


def _coloured(organs: FloatGrid, endolymph: FloatGrid) -> npt.NDArray[np.float64]:
    """The segmentation seen from above (x, y, 3): organs by colour, brighter where thicker."""
    depth = organs.sum(3)
    colours = np.array([to_rgb(ORGAN_COLOURS[organ]) for organ in ORGANS])
    total = depth.sum(0)
    hue = np.tensordot(depth, colours, ([0], [0])) / np.maximum(total, 1e-6)[..., None]
    shade = np.clip(total, 0, 1) * (0.45 + 0.55 * np.clip(total / 8, 0, 1))
    picture = hue * shade[..., None]
    inside = 0.75 * np.clip(endolymph.sum(2) / 4, 0, 1)[..., None]
    return np.asarray(picture * (1 - inside) + np.array(to_rgb(ENDOLYMPH_COLOUR)) * inside)


def _write_words(figure: Figure, title: str, picture: EarPicture, rows: int) -> None:
    ratios = picture.ratios
    height = float(figure.get_size_inches()[1])
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", va="top")
    if ratios:
        parts = [f"{o.replace('_', ' ')} {ratios[o]:.2f}" for o in ORGANS if o in ratios]
        if LABYRINTH in ratios:
            whole = f"whole {ratios[LABYRINTH]:.2f}"
            if picture.interval is not None:
                whole += " ({:.2f} to {:.2f})".format(*picture.interval)
            parts.insert(0, whole)
        words = f"EH {picture.measure} ratio: " + ", ".join(parts)
    else:
        words = "no EH ratio was measured"
    figure.text(0.01, 1 - 0.36 / height, words, fontsize=10, va="top", color="#333333")
    lines = {o: c for o, c in ORGAN_COLOURS.items() if picture.fractions[organ_codes(o)].any()}
    if rows == 2:
        lines["endolymph"] = ENDOLYMPH_COLOUR
    known_marks = [n for n, p in zip(LANDMARKS, picture.landmarks) if np.isfinite(p).all()]
    handles = [
        *(Line2D([], [], color=c, lw=2.5, label=o.replace("_", " ")) for o, c in lines.items()),
        *(Line2D([], [], marker=LANDMARK_MARKERS[n], ls="", label=n.replace("_", " "), **MARKER)
          for n in known_marks),
    ]  # fmt: skip
    figure.legend(
        handles=handles, loc="lower center", ncols=max(1, len(handles)), fontsize=9, frameon=False,
        bbox_to_anchor=(0.5, 0.0), handlelength=1.4, columnspacing=1.6, borderaxespad=0.3,
    )  # fmt: skip
