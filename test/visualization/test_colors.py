"""Colors of optical flow, disparity, depth and speed."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from dwarf_ros.visualization.colors import (
    confidence_color,
    depth_color,
    disparity_color,
    disparity_scale,
    flow_color,
    flow_scale,
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


def test_confidence_is_brighter_the_higher():
    colors = confidence_color(np.array([[0.0, 0.5, 1.0, 2.0, np.nan]]))[0].astype(int)
    luminance = colors @ np.array((0.2126, 0.7152, 0.0722))
    assert luminance[0] + 50 < luminance[1] < luminance[2] - 50
    assert np.array_equal(colors[2], colors[3])
    assert not colors[4].any()


def test_no_pixels_have_no_colours():
    assert confidence_color(np.empty((1, 0))).shape == (1, 0, 3)
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
