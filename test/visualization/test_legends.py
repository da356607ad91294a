"""Legends: ticks, rings and hues are where the values are."""

from __future__ import annotations

import numpy as np

from dwarf_ros.types import StereoCamera
from dwarf_ros.visualization.colors import depth_color, flow_color
from dwarf_ros.visualization.drawing import BAR_MARGIN, titled
from dwarf_ros.visualization.legends import (
    depth_legend,
    disparity_legend,
    flow_legend,
    flow_strip,
    flow_wheel,
)

CAMERA = StereoCamera(fx=200, fy=200, cx=80, cy=40, cx_right=80, baseline=0.5, width=160, height=80)


def labels_below(strip: np.ndarray) -> list[int]:
    """Columns of a colour bar's ticks: bright pixels right under the bar."""
    return np.flatnonzero(strip[13].min(axis=-1) > 150).tolist()


def test_a_scale_bar_has_its_colours_and_ticks_where_the_values_are():
    strip = depth_legend(416, 40.0)
    assert strip.shape == (30, 416, 3)
    ramp = depth_color(np.geomspace(1.25, 40, 400, dtype=np.float32)[None], 40.0)[0]
    bar = strip[5, BAR_MARGIN:-BAR_MARGIN]
    ticks = labels_below(strip)
    # 2, 5, 10, 20 and 40 m on a logarithmic scale of five octaves, each a pixel wide.
    assert ticks == [BAR_MARGIN + round(np.log2(m / 1.25) / 5 * 399) for m in (2, 5, 10, 20, 40)]
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


def test_the_strip_below_a_flow_has_the_wheel_and_its_magnitude():
    strip = flow_strip(300, 12.0)
    assert strip.shape == (58, 300, 3)
    assert (strip[29, 29] == 255).all()
    assert (strip[:, 64:] > 150).any()
    assert not np.array_equal(strip, flow_strip(300, 13.0))
    assert not np.array_equal(strip, flow_strip(300, 12.0, "dimmed: unknown"))
    assert flow_strip(10, 1.0).shape == (58, 10, 3)
