"""The scene from above."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.visualization.birds_eye import birds_eye_view, moving_points


@pytest.mark.parametrize(("max_depth", "spacing"), [(40.0, 5), (12.0, 1), (100.0, 10)])
def test_the_grid_from_above_is_metric(max_depth, spacing):
    nothing = np.full((5, 3), np.nan)
    picture = birds_eye_view(
        nothing, nothing, np.ones(5, dtype=bool), width=600, height=856, max_depth=max_depth
    )
    scale = 800 / max_depth
    # Columns and rows of one grey from edge to edge.
    lines = np.flatnonzero((picture[:700] == picture[0, 300]).all(axis=(0, 2)))
    right = (lines - 300) / scale
    assert np.allclose(right, np.round(right / spacing) * spacing, atol=0.6 / scale)
    assert {-spacing, 0, spacing} <= {round(x) for x in right}
    rows = np.flatnonzero((picture[:, 200:280] == picture[0, 300]).all(axis=2).mean(axis=1) > 0.9)
    ahead = (800 - rows) / scale
    assert {0, spacing, 2 * spacing} <= {round(z) for z in ahead}


def test_a_narrow_view_from_above_keeps_its_scale_inside():
    nothing = np.full((5, 3), np.nan)
    assert birds_eye_view(nothing, nothing, np.ones(5, bool), width=100, height=120).shape == (
        120,
        100,
        3,
    )


def block(x: float, z: float, side: float = 1.0) -> np.ndarray:
    """900 points of a square seen from above, m."""
    grid = np.linspace(-side / 2, side / 2, 30)
    right, ahead = np.meshgrid(x + grid, z + grid)
    return np.stack([right, np.zeros_like(right), ahead], axis=-1).reshape(-1, 3)


def test_moving_points_are_drawn_where_they_are(colored):
    points = np.concatenate([block(-3, 10), block(4, 20)])
    velocities = np.zeros_like(points)
    moving = np.arange(len(points)) >= 900
    velocities[moving] = (0, 0, 6)
    picture = birds_eye_view(
        points, velocities, moving, width=400, height=456, max_depth=40.0, max_speed=6.0
    )
    assert picture.shape == (456, 400, 3)
    assert picture.dtype == np.uint8
    # 10 px a metre; the camera is 56 px above the lower edge. The legend is below it.
    places = colored(picture[:400])
    assert len(places) > 30
    rows, columns = places.T
    assert 188 <= rows.min() <= rows.max() <= 212
    assert 228 <= columns.min() <= columns.max() <= 252
    still = picture[295:305, 165:175].astype(int)
    assert still.mean() > 100
    assert np.ptp(still, axis=-1).max() < 40


def test_arrow_points_where_the_group_goes():
    points = block(0, 20)
    to_the_right = np.broadcast_to((8.0, 0.0, 0.0), points.shape)
    everything = np.ones(len(points), dtype=bool)
    picture = birds_eye_view(points, to_the_right, everything, width=400, height=456)
    without = birds_eye_view(points, to_the_right, ~everything, width=400, height=456)
    difference = (picture.astype(int) - without).sum(axis=-1)[:380] > 300
    columns = np.nonzero(difference)[1]
    # Half a second at 8 m/s are 4 m, 40 px.
    assert 234 <= columns.max() <= 246


def test_unknown_points_leave_the_view_empty():
    nothing = np.full((5, 3), np.nan)
    empty = birds_eye_view(nothing, nothing, np.ones(5, dtype=bool), width=300, height=300)
    none = birds_eye_view(
        np.empty((0, 3)), np.empty((0, 3)), np.empty(0, dtype=bool), width=300, height=300
    )
    assert np.array_equal(empty, none)


def test_moving_points_are_those_that_the_camera_does_not_explain(scene):
    motion = np.eye(4)
    motion[0, 3] = -0.3
    moving = moving_points(scene(0.1), motion)
    # The corners of the patch are opened away.
    assert moving[32:48, 62:98].all()
    moving[30:50, 60:100] = False
    assert not moving.any()
