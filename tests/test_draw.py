"""Overlays: right way round, in the right place, the same each time."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from nibabel.affines import apply_affine
from PIL import Image
from scipy.spatial.transform import Rotation

from ears import (
    LANDMARK_VOXELS,
    MODEL,
    UNIT,
    fine_affine,
    made_up_fractions,
    paths_in,
    write_session,
)
from hydrops.draw import (
    ORGAN_COLOURS,
    EarPicture,
    draw_ear_overlay,
    draw_session,
    height_of_slice,
    load_picture,
)
from hydrops.labels import LABYRINTH


def picture_of(mrc: np.ndarray, mi2: np.ndarray | None) -> EarPicture:
    return EarPicture(mrc, mi2, made_up_fractions(), LANDMARK_VOXELS)


def pixels_of(figure: Figure, panel: int) -> np.ndarray:
    """Grey values of one panel, from its top left corner."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[..., :3].mean(-1)
    box = figure.axes[panel].get_window_extent()
    top, bottom = page.shape[0] - box.y1, page.shape[0] - box.y0
    return page[round(top) + 3 : round(bottom) - 3, round(box.x0) + 3 : round(box.x1) - 3]


def test_each_measured_ear_is_drawn_and_no_other(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_session(paths, ("right",))
    draw_session(UNIT, paths, MODEL, tmp_path)
    assert [p.name for p in tmp_path.glob("*.png")] == [paths.overlay(UNIT, "right", MODEL).name]


def test_the_same_ear_gives_the_same_bytes_without_a_date(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_session(paths, ("left",))
    drawn = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        draw_session(UNIT, paths, MODEL, tmp_path / name)
        (picture,) = (tmp_path / name).glob("*.png")
        drawn.append(picture.read_bytes())
    assert drawn[0] == drawn[1]
    with Image.open(tmp_path / "first" / picture.name) as image:
        assert set(image.info) <= {"dpi"}
    assert plt.get_fignums() == []


def test_mrc_alone_gives_one_row_that_says_so(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    sizes = {}
    for with_mi2 in (True, False):
        folder = tmp_path / str(with_mi2)
        folder.mkdir()
        paths = paths_in(folder)
        write_session(paths, ("left",), with_mi2)
        draw_session(UNIT, paths, MODEL, folder)
        with Image.open(next(folder.glob("*.png"))) as image:
            sizes[with_mi2] = image.size
    assert sizes[True][0] == sizes[False][0]
    assert sizes[True][1] > 1.4 * sizes[False][1]
    figure = draw_ear_overlay(picture_of(made_up_fractions()[1:].sum(0), None), "ear")
    words = " ".join(text.get_text() for text in figure.texts)
    assert "no EH ratio" in words
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "endolymph" not in legend


def test_the_ratio_of_the_whole_is_written_with_its_interval(tmp_path: Path) -> None:
    paths = paths_in(tmp_path)
    write_session(paths, ("left",))
    measured = pd.read_csv(paths.measures(UNIT, MODEL), sep="\t", na_values=["n/a"])
    whole = measured["organ"] == LABYRINTH
    limits = {"eh_volume_ratio": 0.31, "ci_low": 0.26, "ci_high": 0.37}
    measured.loc[whole, list(limits)] = list(limits.values())

    def words(rows: pd.DataFrame) -> str:
        picture = load_picture(UNIT, paths, "left", MODEL, rows)
        return " ".join(text.get_text() for text in draw_ear_overlay(picture, "ear").texts)

    assert "whole 0.31 (0.26 to 0.37), cochlea" in words(measured)
    measured[["ci_low", "ci_high"]] = np.nan
    assert "whole 0.31, cochlea" in words(measured)


@pytest.mark.parametrize("side", ["patient's right", "anterior"])
def test_pictures_follow_the_radiological_convention(side: str) -> None:
    """Light to the patient's right comes out on the left, anterior light at the top."""
    mrc = made_up_fractions()[1:].sum(0) * 0.5
    if side == "patient's right":
        mrc[38:] = 1.0
    else:
        mrc[:, 38:] = 1.0
    # The fourth panel is the projection of the whole ear, seen from above.
    seen = pixels_of(draw_ear_overlay(picture_of(mrc, None), "ear"), 3)
    half = seen.shape[0] // 2
    if side == "patient's right":
        assert seen[:, :half].mean() > 2 * seen[:, -half:].mean()
    else:
        assert seen[:half].mean() > 2 * seen[-half:].mean()


def test_zero_of_mi2_is_mid_grey_and_endolymph_dark() -> None:
    fractions = made_up_fractions()
    mi2 = 1e5 * (fractions[1::2].sum(0) - fractions[2::2].sum(0))
    seen = pixels_of(draw_ear_overlay(picture_of(fractions[1:].sum(0), mi2), "ear"), 5)
    assert np.median(seen) == pytest.approx(127.5, abs=2)
    middle = seen[len(seen) // 2 - 4 : len(seen) // 2 + 4, len(seen) // 2 - 4 :][:, :8]
    assert middle.mean() < 60


def test_the_scale_bar_is_five_millimetres() -> None:
    figure = draw_ear_overlay(picture_of(made_up_fractions()[1:].sum(0), None), "ear")
    for panel in figure.axes:
        (bar,) = [line for line in panel.lines if line.get_transform() == panel.transAxes]
        left, right = panel.get_xlim()
        voxels = np.ptp(np.asarray(bar.get_xdata(), float)) * abs(right - left)
        assert voxels * 0.5 == pytest.approx(5.0)


def test_landmarks_are_marked_where_they_are_and_only_near_their_plane() -> None:
    fractions = made_up_fractions()
    slices = {"cochlea": (29, 7), "vestibule": (32, 9)}
    figure = draw_ear_overlay(
        EarPicture(fractions[1:].sum(0), None, fractions, LANDMARK_VOXELS, slices), "ear"
    )
    cochlea, vestibule, _, whole = figure.axes

    def marks(panel: plt.Axes) -> list[list[float]]:
        points = [line for line in panel.lines if line.get_marker() in ("^", "s", "o")]
        return [[float(p.get_xdata()[0]), float(p.get_ydata()[0])] for p in points]

    assert marks(whole) == LANDMARK_VOXELS[:, :2].tolist()
    assert cochlea.get_title() == "cochlea, MRC slice 7"
    assert marks(cochlea) == [LANDMARK_VOXELS[0, :2].tolist()]
    assert marks(vestibule) == [p[:2].tolist() for p in LANDMARK_VOXELS[:2]]


def test_an_ear_without_an_organ_is_drawn_all_the_same() -> None:
    fractions = made_up_fractions()
    fractions[1:3] = 0
    picture = EarPicture(
        fractions[1:].sum(0), fractions[3] - fractions[4], fractions, LANDMARK_VOXELS
    )
    figure = draw_ear_overlay(picture, "ear")

    def colours(figure: Figure) -> set[str]:
        drawn = [c for panel in figure.axes for c in panel.collections if len(c.get_paths())]
        return {to_hex(colour) for each in drawn for colour in each.get_edgecolor()}

    assert ORGAN_COLOURS["cochlea"] not in colours(figure)
    assert {ORGAN_COLOURS["vestibule"], ORGAN_COLOURS["semicircular_canals"]} <= colours(figure)


@given(
    st.integers(1, 62),
    st.sampled_from([0.4, 1.0, 2.0]),
    st.sampled_from([(0, 1, 2), (2, 0, 1), (1, 2, 0)]),
    st.sampled_from([1.0, -1.0]),
    st.lists(st.floats(-20, 20), min_size=3, max_size=3),
)
def test_a_slice_of_the_mrc_is_found_in_the_crop(
    height: int, thickness: float, order: tuple[int, int, int], flip: float, tilt: list[float]
) -> None:
    """The slice through a voxel of the crop's middle column leads back to that voxel."""
    crop = fine_affine((35.0, -8.0, 4.0))
    turn = Rotation.from_euler("xyz", tilt, degrees=True).as_matrix()
    spacing = np.diag([0.5, 0.5, flip * thickness])
    acquired = np.eye(4)
    acquired[:3, :3] = (turn @ spacing)[:, list(order)]
    acquired[:3, 3] = [-20.0, 10.0, 7.0]
    world = apply_affine(crop, [31.5, 31.5, height])
    axis = order.index(2)
    number = apply_affine(np.linalg.inv(acquired), world)[axis]
    found = height_of_slice(round(number), acquired, crop)
    # Rounding to a slice costs half its thickness, rounding to a voxel half a voxel.
    assert abs(found - height) <= 0.5 * thickness / 0.5 / np.cos(np.radians(30)) + 0.5 + 1e-6
