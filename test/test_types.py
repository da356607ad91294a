"""dwarf_ros.types: what the nouns take, what they refuse, and how they say so."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.types import InputError, SceneFlow, StereoCamera, StereoFrame, as_rgb8

CAMERA = StereoCamera(
    fx=700.0, fy=705.0, cx=31.5, cy=23.0, cx_right=30.0, baseline=0.12, width=64, height=48
)
# Grey cameras of a KITTI calibration; the left one has its own x translation in a rig of four.
KITTI_LEFT = np.array(
    [[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.002745884]]
)
KITTI_RIGHT = np.array(
    [[721.5377, 0, 609.5593, -339.5242], [0, 721.5377, 172.854, 2.199936], [0, 0, 1, 0.002729905]]
)


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    message = str(error.value)
    assert message
    assert "\n" not in message
    return message


def image(height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("name", ["fx", "fy", "cx", "cy", "cx_right", "baseline"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_camera_refuses_numbers_that_are_not_finite(name, value):
    with pytest.raises(InputError) as error:
        dataclasses.replace(CAMERA, **{name: value})
    assert name in one_line(error)
    assert str(value) in one_line(error)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fx", 0.0, "fx is 0 px"),
        ("fy", -700.0, "fy is -700 px"),
        ("baseline", 0.0, "baseline is 0 m"),
        ("baseline", -0.12, "baseline is -0.12 m"),
        ("width", 0, "0 x 48 px"),
        ("height", -1, "64 x -1 px"),
    ],
)
def test_camera_refuses_what_is_not_positive(name, value, said):
    with pytest.raises(InputError) as error:
        dataclasses.replace(CAMERA, **{name: value})
    assert said in one_line(error)


def test_baseline_comes_from_both_projection_matrices():
    camera = StereoCamera.from_projection_matrices(KITTI_LEFT, KITTI_RIGHT, 1242, 375)
    assert camera.baseline == pytest.approx(0.5327, abs=1e-4)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (721.5377, 721.5377, 609.5593, 172.854)
    assert (camera.cx_right, camera.width, camera.height) == (609.5593, 1242, 375)


def test_swapped_projection_matrices_are_noticed():
    with pytest.raises(InputError, match="swapped") as error:
        StereoCamera.from_projection_matrices(KITTI_RIGHT, KITTI_LEFT, 1242, 375)
    assert "-0.5327" in one_line(error)


@given(
    fx=st.floats(50, 5000),
    translation=st.floats(-1000, 1000),
    baseline=st.floats(0.01, 5),
)
@settings(derandomize=True, deadline=None, max_examples=50)
def test_baseline_does_not_depend_on_where_the_left_camera_stands(fx, translation, baseline):
    left = np.array([[fx, 0, 300, translation], [0, fx, 200, 0], [0, 0, 1, 0]])
    right = left.copy()
    right[0, 3] -= fx * baseline
    camera = StereoCamera.from_projection_matrices(left, right, 640, 480)
    assert camera.baseline == pytest.approx(baseline, rel=1e-6)


def broken(row: int, column: int, value: float) -> np.ndarray:
    matrix = KITTI_RIGHT.copy()
    matrix[row, column] = value
    return matrix


@pytest.mark.parametrize(
    ("right", "said"),
    [
        (KITTI_RIGHT[:, :3], "right projection matrix has shape (3, 3)"),
        (broken(0, 3, math.nan), "right projection matrix holds a number that is not finite"),
        (np.zeros((3, 4)), "right projection matrix has focal lengths 0, 0 px"),
        (broken(0, 0, 500.0), "focal lengths differ (721.538 and 500 px)"),
        (broken(1, 2, 178.854), "rows 172.854 and 178.854 px"),
        (broken(1, 3, 40.0), "Ty 0.216379 and 40 px m"),
        (broken(1, 3, -5.0), "expected a horizontal baseline"),
    ],
)
def test_broken_projection_matrices_are_named(right, said):
    with pytest.raises(InputError) as error:
        StereoCamera.from_projection_matrices(KITTI_LEFT, right, 1242, 375)
    assert said in one_line(error)


@pytest.mark.parametrize(("row", "column", "value"), [(1, 2, 173.3), (1, 3, 2.2)])
def test_rows_may_differ_by_half_a_pixel(row, column, value):
    right = broken(row, column, value)
    StereoCamera.from_projection_matrices(KITTI_LEFT, right, 1242, 375)


@pytest.mark.parametrize(
    ("change", "close"),
    [
        ({"fx": 700.0001}, True),
        ({"cx_right": 30.04}, True),
        ({"baseline": 0.120001}, True),
        ({"cy": 23.1}, False),
        ({"baseline": 0.1201}, False),
        ({"width": 65}, False),
    ],
)
def test_calibrations_are_compared_with_a_tolerance(change, close):
    other = dataclasses.replace(CAMERA, **change)
    assert CAMERA.is_close(other) == other.is_close(CAMERA) == close


def test_grey_is_repeated_and_alpha_dropped():
    colour = image()
    grey = colour[:, :, 0]
    assert np.array_equal(as_rgb8(grey), np.dstack([grey] * 3))
    assert np.array_equal(as_rgb8(grey[:, :, None]), np.dstack([grey] * 3))
    assert np.array_equal(as_rgb8(np.dstack([colour, grey])), colour)
    assert as_rgb8(colour[:, ::-1]).flags.c_contiguous


@given(st.integers(0, 65535))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_16_bit_is_scaled_to_the_nearest_8_bit_value(value):
    converted = as_rgb8(np.full((1, 1), value, np.uint16))
    assert converted.dtype == np.uint8
    assert abs(int(converted[0, 0, 0]) - value * 255 / 65535) <= 0.5


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 4), np.float32), "float32"),
        (np.zeros((4, 4), np.int16), "int16"),
        (np.zeros((4, 4, 2), np.uint8), "(4, 4, 2)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "(2, 4, 4, 3)"),
        (np.zeros(7, np.uint8), "(7,)"),
        (np.zeros((0, 4), np.uint8), "(0, 4, 1)"),
    ],
)
def test_what_is_no_image_is_refused(array, said):
    with pytest.raises(InputError) as error:
        as_rgb8(array, "left image")
    assert one_line(error).startswith("left image: ")
    assert said in one_line(error)


def test_frame_holds_rgb8_of_one_size():
    frame = StereoFrame(image()[:, :, 0], image().astype(np.uint16) * 257, camera=CAMERA)
    assert frame.left.shape == frame.right.shape == (48, 64, 3)
    assert frame.left.dtype == frame.right.dtype == np.uint8
    assert np.array_equal(frame.right, image())


@pytest.mark.parametrize("stamp", [0.5, "1", None, np.float64(1e9)])
def test_frame_refuses_a_stamp_that_is_not_an_integer(stamp):
    with pytest.raises(InputError, match="stamp is") as error:
        StereoFrame(image(), image(), stamp)
    one_line(error)


def test_frame_refuses_two_sizes():
    with pytest.raises(InputError) as error:
        StereoFrame(image(48, 64), image(47, 64))
    assert "64 x 48 px" in one_line(error)
    assert "64 x 47 px" in one_line(error)


def test_frame_refuses_a_camera_of_another_size():
    with pytest.raises(InputError) as error:
        StereoFrame(image(40, 64), image(40, 64), camera=CAMERA)
    assert "64 x 40 px" in one_line(error)
    assert "64 x 48 px" in one_line(error)


def arrays() -> dict[str, np.ndarray]:
    return {
        "disparity": np.ones((3, 4), np.float32),
        "disparity_next": np.ones((3, 4), np.float32),
        "flow": np.zeros((3, 4, 2), np.float32),
        "valid": np.ones((3, 4), bool),
    }


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("disparity", np.ones((3, 4))),
        ("disparity_next", np.ones((4, 3), np.float32)),
        ("flow", np.zeros((3, 4, 3), np.float32)),
        ("flow", np.zeros((3, 4), np.float32)),
        ("valid", np.ones((3, 4), np.uint8)),
    ],
)
def test_scene_flow_refuses_arrays_that_do_not_fit(name, array):
    with pytest.raises(InputError) as error:
        SceneFlow(**{**arrays(), name: array})
    assert f"{name} is {array.dtype} {array.shape}" in one_line(error)


@given(stamp=st.integers(0, 2**62), gap=st.integers(-(10**12), 10**12))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_other_stamp_is_exact_to_the_nanosecond(stamp, gap):
    assert SceneFlow(**arrays(), stamp=stamp, dt=gap / 1e9).other_stamp == stamp + gap
