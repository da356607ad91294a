"""Colours and pictures: directions, unknown values, scales, sizes."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from dwarf_ros.geometry import disparity_from_depth, rigid_scene_flow
from dwarf_ros.types import SceneFlow, StereoCamera
from dwarf_ros.visualization import (
    BAR_MARGIN,
    Scales,
    birds_eye_view,
    depth_color,
    depth_legend,
    disparity_color,
    disparity_legend,
    disparity_scale,
    flow_color,
    flow_legend,
    flow_scale,
    flow_wheel,
    moving_points,
    scene_flow_panel,
    side_by_side,
    speed_color,
    stacked,
    titled,
    with_flow_wheel,
)


def uniform_flow(u: float, v: float) -> np.ndarray:
    return np.full((2, 3, 2), (u, v), dtype=np.float32)


@pytest.mark.parametrize(
    ("u", "v", "color"),
    [
        (1, 0, (255, 0, 0)),
        (0, 0, (255, 255, 255)),
        # A quarter, a half and three quarters round the 55 hues of the wheel.
        (0, 1, (255, 234, 0)),
        (-1, 0, (0, 197, 255)),
        (0, -1, (103, 0, 255)),
        (0.5, 0, (255, 128, 128)),
        # Beyond the wheel: three quarters of the brightness.
        (3, 0, (191, 0, 0)),
    ],
)
def test_known_directions_have_the_wheels_colors(u, v, color):
    picture = flow_color(uniform_flow(u, v), max_magnitude=1.0)
    assert picture.shape == (2, 3, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture[0, 0].astype(int) - color).max() <= 1


def test_hue_runs_once_round_the_wheel_without_a_jump():
    angle = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    flow = np.stack([np.cos(angle), np.sin(angle)], axis=-1)[None].astype(np.float32)
    colors = flow_color(flow, max_magnitude=1.0)[0].astype(int)
    assert np.abs(colors - np.roll(colors, 1, axis=0)).max() <= 40
    hue = np.array([colorsys.rgb_to_hsv(*(c / 255))[0] for c in colors[20:-20]])
    assert (np.diff(hue) >= -1e-9).all()


def test_saturation_grows_with_magnitude():
    magnitude = np.linspace(0, 1, 50, dtype=np.float32)
    flow = np.stack([magnitude, 0 * magnitude], axis=-1)[None]
    green = flow_color(flow, max_magnitude=1.0)[0, :, 1].astype(int)
    assert (np.diff(green) < 0).all()


def test_scale_without_a_maximum_ignores_single_outliers():
    rng = np.random.default_rng(3)
    flow = rng.uniform(-5, 5, (60, 80, 2)).astype(np.float32)
    flow[7, 9] = 1e6
    assert 5 < flow_scale(flow) < 8
    assert np.array_equal(flow_color(flow), flow_color(flow, flow_scale(flow)))
    assert flow_scale(uniform_flow(0, 0)) == 1.0


@pytest.mark.parametrize("unknown", [(np.nan, 0), (0, np.nan), (np.nan, np.nan), (np.inf, 1)])
def test_unknown_flow_is_black(unknown):
    flow = np.zeros((4, 5, 2), dtype=np.float32)
    flow[1, 2] = unknown
    black = (flow_color(flow, max_magnitude=2.0) == 0).all(axis=-1)
    assert black[1, 2]
    assert black.sum() == 1


def test_wholly_unknown_pictures_are_black():
    assert not flow_color(uniform_flow(np.nan, np.nan)).any()
    assert not disparity_color(np.full((3, 4), np.nan, dtype=np.float32)).any()


def test_disparity_gets_lighter_the_nearer():
    disparity = np.linspace(0, 64, 256, dtype=np.float32)[None]
    picture = disparity_color(disparity, max_disparity=64.0)[0].astype(float)
    luminance = picture @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > -1.5).all()
    assert luminance[-1] - luminance[0] > 150
    assert picture.sum(axis=-1).min() > 60


def test_unknown_disparity_is_black_and_large_ones_saturate():
    disparity = np.array([[np.nan, 10, 64, 500]], dtype=np.float32)
    picture = disparity_color(disparity, max_disparity=64.0)
    assert picture.shape == (1, 4, 3)
    assert not picture[0, 0].any()
    assert np.array_equal(picture[0, 2], picture[0, 3])
    assert not np.array_equal(picture[0, 1], picture[0, 2])
    assert disparity_scale(np.full((2, 2), 40.0, dtype=np.float32)) == 40.0


def test_slow_is_blue_and_fast_is_red():
    colors = speed_color(np.array([[0.0, 5.0, 10.0, 20.0, np.nan]]), max_speed=10.0)[0].astype(int)
    assert colors[0].argmax() == 2
    assert colors[1].argmax() == 1
    assert colors[2].argmax() == 0
    assert np.array_equal(colors[2], colors[3])
    assert not colors[4].any()


def test_no_pixels_have_no_colours():
    assert speed_color(np.empty((1, 0)), max_speed=10.0).shape == (1, 0, 3)
    assert disparity_color(np.empty((0, 4)), max_disparity=10.0).shape == (0, 4, 3)


def test_depth_is_lighter_the_nearer_and_the_same_beyond_its_largest():
    depth = np.array([[0.0, 5.0, 10.0, 20.0, 40.0, 99.0, np.nan]], dtype=np.float32)
    picture = depth_color(depth, max_depth=40.0)[0].astype(float)
    luminance = picture @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance[:5]) < 0).all()
    assert luminance[0] - luminance[4] > 150
    assert np.array_equal(picture[4], picture[5])
    assert picture[5].sum() > 60
    assert not picture[6].any()


def labels_below(strip: np.ndarray) -> list[int]:
    """Columns of a colour bar's ticks: bright pixels right under the bar."""
    return np.flatnonzero(strip[13].min(axis=-1) > 150).tolist()


def test_a_scale_bar_has_its_colours_and_ticks_where_the_values_are():
    strip = depth_legend(416, 40.0)
    assert strip.shape == (30, 416, 3)
    ramp = depth_color(np.linspace(0, 40, 400, dtype=np.float32)[None], 40.0)[0]
    bar = strip[5, BAR_MARGIN:-BAR_MARGIN]
    ticks = labels_below(strip)
    # 0, 10, 20, 30 and 40 m, each a pixel wide.
    assert ticks == [BAR_MARGIN + round(m / 40 * 399) for m in (0, 10, 20, 30, 40)]
    between = np.setdiff1d(np.arange(400), np.array(ticks) - BAR_MARGIN)
    assert np.array_equal(bar[between], ramp[between])


def test_depths_along_a_disparity_bar_are_those_of_the_camera():
    strip = disparity_legend(416, 20.0, CAMERA)
    # 100 px m: 5 m is at the end of 20 px, 7 m at 14.3 px, 10 m at 10 px.
    found = np.array(labels_below(strip)) - BAR_MARGIN
    for depth in (7, 10, 15, 20, 30):
        assert np.abs(found - 100 / depth / 20 * 399).min() <= 1
    assert {0, 399} <= set(found)


def test_hue_on_the_wheels_rim_is_that_of_the_direction():
    wheel = flow_wheel(100)
    assert wheel.shape == (201, 201, 3)
    for angle in np.arange(0, 2 * np.pi, np.pi / 8):
        x, y = np.cos(angle), np.sin(angle)
        flow = np.full((1, 1, 2), (0.9 * x, 0.9 * y), dtype=np.float32)
        seen = wheel[round(100 + 90 * y), round(100 + 90 * x)].astype(int)
        assert np.abs(seen - flow_color(flow, 1.0)[0, 0]).max() < 16
    assert not wheel[2, 2].any()
    assert (wheel[100, 100] == 255).all()


def test_the_key_to_optical_flow_has_rings_at_half_and_at_the_whole():
    key = flow_legend(320, 24.0)
    assert key.shape == (320, 320, 3)
    row = key[160].astype(int).sum(axis=-1)
    dark = np.flatnonzero(row[165:270] < 250) + 165
    assert len(dark)
    assert np.abs(dark - (160 + 60)).max() <= 1
    # Beside the wheel: the names of the directions.
    for place in (key[150:170, 284:], key[150:170, :38], key[:38, 140:180], key[284:, 130:190]):
        assert (place.min(axis=-1) > 180).any()


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


def colored(picture: np.ndarray) -> np.ndarray:
    """Rows and columns of pixels that are neither grey nor the bluish dark ground."""
    channels = picture.astype(int)
    return np.argwhere(channels.max(-1) - channels.min(-1) > 60)


def test_moving_points_are_drawn_where_they_are():
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


def test_titles_and_legends_add_their_strips():
    picture = np.full((50, 200, 3), 77, dtype=np.uint8)
    with_title = titled(picture, "Disparity", "12 px")
    assert with_title.shape == (78, 200, 3)
    assert np.array_equal(with_title[28:], picture)
    assert (with_title[:28] > 150).any()
    # Too narrow for the note: the title alone, not one over the other.
    assert np.array_equal(titled(picture, "A title", "a note " * 9), titled(picture, "A title"))
    assert disparity_legend(200, 64.0).shape == (30, 200, 3)
    assert not np.array_equal(disparity_legend(200, 64.0), disparity_legend(200, 64.0, CAMERA))


def test_flow_wheel_is_in_the_corner_and_nowhere_else():
    flow = np.full((120, 200, 3), 7, dtype=np.uint8)
    picture = with_flow_wheel(flow, 12.0)
    changed = np.argwhere((picture != flow).any(axis=-1))
    assert changed.min(axis=0)[0] > 50
    assert changed.min(axis=0)[1] > 100
    assert (flow == 7).all()
    tiny = np.zeros((10, 10, 3), dtype=np.uint8)
    assert np.array_equal(with_flow_wheel(tiny, 1.0), tiny)


def test_pictures_join_without_loss():
    tall = np.full((30, 10, 3), 200, dtype=np.uint8)
    wide = np.full((10, 40, 3), 100, dtype=np.uint8)
    row = side_by_side([tall, wide], gap=5)
    assert row.shape == (30, 55, 3)
    assert np.array_equal(row[:, :10], tall)
    assert np.array_equal(row[:10, 15:], wide)
    column = stacked([tall, wide], gap=5)
    assert column.shape == (45, 40, 3)
    assert np.array_equal(column[35:], wide)


CAMERA = StereoCamera(fx=200, fy=200, cx=80, cy=40, cx_right=80, baseline=0.5, width=160, height=80)


def scene(dt: float) -> SceneFlow:
    """Ground-free scene 15 m away that the camera passes sideways; its middle moves on its own."""
    disparity = np.full((80, 160), disparity_from_depth(np.array(15.0), CAMERA), dtype=np.float32)
    motion, own = np.eye(4), np.eye(4)
    motion[0, 3] = -0.3 if dt >= 0 else 0.3
    own[0, 3] = 1.0
    flow, disparity_next = rigid_scene_flow(disparity, CAMERA, motion)
    flow[30:50, 60:100] = rigid_scene_flow(disparity, CAMERA, motion @ own)[0][30:50, 60:100]
    valid = np.ones(disparity.shape, dtype=bool)
    return SceneFlow(disparity, disparity_next, flow, valid, dt=dt, camera=CAMERA)


def test_moving_points_are_those_that_the_camera_does_not_explain():
    motion = np.eye(4)
    motion[0, 3] = -0.3
    moving = moving_points(scene(0.1), motion)
    # The corners of the patch are opened away.
    assert moving[32:48, 62:98].all()
    moving[30:50, 60:100] = False
    assert not moving.any()


@pytest.mark.parametrize("dt", [0.1, -0.1, 0.0])
def test_panel_has_the_asked_width_and_shows_the_movers(dt):
    left = np.full((80, 160, 3), 128, dtype=np.uint8)
    scene_flow = scene(dt)
    panel = scene_flow_panel(left, scene_flow, "Frame 3", "a note", width=900)
    assert panel.dtype == np.uint8
    assert panel.shape[1:] == (900, 3)
    still = scene(dt)
    still.flow[...], still.disparity_next[...] = 0.0, still.disparity
    assert len(colored(panel[70:-80, 560:])) > len(
        colored(scene_flow_panel(left, still, width=900)[70:-80, 560:])
    )


def test_panel_has_the_scales_asked_for_and_needs_no_image():
    left = np.full((80, 160, 3), 128, dtype=np.uint8)
    answer = scene(0.1)
    own = scene_flow_panel(left, answer, width=900)
    given = Scales(disparity_scale(answer.disparity), flow_scale(answer.flow), speed=None)
    assert np.array_equal(scene_flow_panel(left, answer, width=900, scales=given), own)
    wider = Scales(2 * given.disparity, 3 * given.flow, 30.0)
    assert not np.array_equal(scene_flow_panel(left, answer, width=900, scales=wider), own)
    without = scene_flow_panel(None, answer, width=900)
    assert without.shape[1] == 900
    assert without.shape[0] < own.shape[0]


def test_panel_works_without_a_camera_or_an_answer():
    left = np.full((80, 160, 3), 128, dtype=np.uint8)
    unknown = np.full((80, 160), np.nan, dtype=np.float32)
    flow = np.dstack([unknown, unknown])
    nowhere = np.zeros((80, 160), dtype=bool)
    for camera in (None, CAMERA):
        panel = scene_flow_panel(
            left, SceneFlow(unknown, unknown, flow, nowhere, dt=0.1, camera=camera), width=700
        )
        assert panel.shape[1] == 700


def test_square_images_are_laid_out_two_by_two():
    size = 64
    camera = StereoCamera(60, 60, 32, 32, 32, 0.5, size, size)
    disparity = np.full((size, size), 5, dtype=np.float32)
    flow = np.zeros((size, size, 2), dtype=np.float32)
    scene_flow = SceneFlow(
        disparity, disparity, flow, np.ones((size, size), dtype=bool), dt=0.1, camera=camera
    )
    panel = scene_flow_panel(np.zeros((size, size, 3), np.uint8), scene_flow, width=800)
    assert 0.8 < panel.shape[0] / panel.shape[1] < 1.3
