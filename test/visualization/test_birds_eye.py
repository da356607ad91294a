"""The scene from above."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwarf_ros.types import EgoMotion
from dwarf_ros.visualization.birds_eye import EGO_COLOR, birds_eye_view, seen_from_above
from dwarf_ros.visualization.objects import object_color

NOTHING = np.full((1, 5, 3), np.nan)


def near(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns of the pixels of almost that color."""
    return np.argwhere(np.abs(picture.astype(int) - color).max(-1) < 40)


@pytest.mark.parametrize(("max_depth", "spacing"), [(40.0, 5), (12.0, 1), (100.0, 10)])
def test_the_grid_from_above_is_metric(max_depth, spacing):
    picture = birds_eye_view(NOTHING, width=600, height=830, max_depth=max_depth)
    scale = 800 / max_depth
    # Columns and rows of one gray from edge to edge.
    lines = np.flatnonzero((picture[:700] == picture[0, 300]).all(axis=(0, 2)))
    right = (lines - 300) / scale
    assert np.allclose(right, np.round(right / spacing) * spacing, atol=0.6 / scale)
    assert {-spacing, 0, spacing} <= {round(x) for x in right}
    rows = np.flatnonzero((picture[:, 200:280] == picture[0, 300]).all(axis=2).mean(axis=1) > 0.9)
    ahead = (800 - rows) / scale
    assert {0, spacing, 2 * spacing} <= {round(z) for z in ahead}


def test_a_narrow_view_from_above_keeps_its_scale_inside():
    assert birds_eye_view(NOTHING, width=100, height=120).shape == (120, 100, 3)


def test_objects_are_drawn_where_they_are_in_their_color(moving_object):
    rows, columns = np.mgrid[0:80, 0:160]
    points = np.dstack([(columns - 80) / 10, rows * 0.0, rows * 0.0 + 25.0])
    item = moving_object(position=(4.0, 20.0), velocity=(0.0, 0.0))
    picture = birds_eye_view(points, [item], width=400, height=430, max_depth=40.0)
    # 10 px per meter; the camera is 30 px above the lower edge.
    places = near(picture[:215], object_color(3))
    assert len(places) > 30
    # Half a meter ahead and 3 m wide, around x = 4 m, z = 20 m; its points are at 25 m.
    outline = places[places[:, 0] > 190]
    assert set(outline[:, 0]) <= set(range(196, 205))
    assert (225 - 2) <= outline[:, 1].min() <= outline[:, 1].max() <= 257
    static = picture[148:153, 130:160].astype(int)
    assert static.mean() > 80
    assert np.ptp(static, axis=-1).max() < 40


def test_arrow_points_where_the_object_goes(moving_object):
    points = np.full((80, 160, 3), np.nan)
    item = moving_object(position=(0.0, 20.0), velocity=(8.0, 0.0))
    still = replace(item, velocity=np.zeros(3))
    with_arrow, without = (
        birds_eye_view(points, [one], width=400, height=430)[:198].astype(int)
        for one in (item, still)
    )
    difference = np.abs(with_arrow - without).sum(axis=-1) > 200
    columns = np.nonzero(difference)[1]
    # Half a second at 8 m/s are 4 m, 40 px.
    assert 230 <= columns.max() <= 246


def test_objects_without_pixels_are_left_out(moving_object):
    points = np.full((80, 160, 3), np.nan)
    missed = replace(moving_object(), mask=None, box=None)
    assert np.array_equal(birds_eye_view(points, [missed]), birds_eye_view(points))


def test_unknown_points_leave_the_view_empty():
    empty = birds_eye_view(NOTHING, width=300, height=300)
    none = birds_eye_view(np.empty((0, 0, 3)), width=300, height=300)
    assert np.array_equal(empty, none)


def test_a_static_scene_has_no_arrows_and_the_path_of_the_camera(scene):
    still = scene(0.1)
    motion = np.eye(4)
    motion[2, 3] = -1.0
    forward = replace(still, ego_motion=EgoMotion(motion, np.eye(6), 1.0))
    picture = seen_from_above(forward, 400, 500)
    assert picture.shape == (500, 400, 3)
    legend = 44
    body = picture[28:-legend]
    # 10 m/s for one second, straight ahead.
    rows, columns = near(body, EGO_COLOR).T
    scale = (len(body) - 30) / 40
    assert np.ptp(rows) == pytest.approx(10 * scale, abs=12)
    assert 190 <= columns.min() <= columns.max() <= 210
    backward = seen_from_above(
        replace(forward, dt=-0.1, ego_motion=EgoMotion(np.linalg.inv(motion), np.eye(6), 1.0)),
        400,
        500,
    )
    assert np.array_equal(backward, picture)


def test_without_ego_motion_the_reason_is_shown(scene):
    unknown = replace(scene(0.1), ego_motion=EgoMotion(reason="too little texture"))
    picture = seen_from_above(unknown, 400, 500)
    assert picture.shape == (500, 400, 3)
    assert not len(near(picture, EGO_COLOR)) > 300


def test_the_trajectory_is_a_small_map():
    trajectory = np.zeros((20, 3))
    trajectory[:, 2] = np.linspace(-30, 0, 20)
    with_map = birds_eye_view(NOTHING, trajectory=trajectory, width=500, height=600)
    without = birds_eye_view(NOTHING, width=500, height=600)
    rows, columns = np.nonzero((with_map != without).any(-1))
    assert columns.min() > 350
    assert rows.min() > 400
    standing = birds_eye_view(NOTHING, trajectory=0 * trajectory, width=500, height=600)
    assert np.array_equal(standing, without)
