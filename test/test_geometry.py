"""dwarf_ros.geometry: depth and disparity are inverse, points project back, velocities point forward in time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.geometry import (
    aligned_frame,
    back_project,
    depth_from_disparity,
    disparity_from_depth,
    forward_backward_error,
    left_right_error,
    mirrored_frame,
    points_from_depth,
    sample,
    scene_flow_points,
    velocities,
    velocities_between,
)
from dwarf_ros.types import InputError, SceneFlow, StereoCamera, StereoFrame

CAMERA = StereoCamera(
    fx=700.0, fy=690.0, cx=31.5, cy=23.0, cx_right=29.0, baseline=0.12, width=64, height=48
)

cameras = st.builds(
    StereoCamera,
    fx=st.floats(100, 3000),
    fy=st.floats(100, 3000),
    cx=st.floats(-50, 1000),
    cy=st.floats(-50, 1000),
    cx_right=st.floats(-50, 1000),
    baseline=st.floats(0.02, 2),
    width=st.just(64),
    height=st.just(48),
)


def project(points: np.ndarray, camera: StereoCamera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns in the left image, rows, and columns in the right image of points, by the pinhole model in float64."""
    x, y, z = np.moveaxis(points.astype(np.float64), -1, 0)
    return (
        camera.fx * x / z + camera.cx,
        camera.fy * y / z + camera.cy,
        camera.fx * (x - camera.baseline) / z + camera.cx_right,
    )


@given(camera=cameras, depth=st.floats(0.5, 80))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_depth_and_disparity_are_inverse(camera, depth):
    disparity = disparity_from_depth(np.full((2, 3), depth), camera)
    # float32 holds a disparity of some hundred px to about 3e-5 px.
    parallax = camera.fx * camera.baseline / depth
    tolerance = 1e-6 + 1e-4 / parallax
    assert depth_from_disparity(disparity, camera) == pytest.approx(depth, rel=tolerance)


@given(camera=cameras, x=st.floats(-100, 2000), y=st.floats(-100, 2000), depth=st.floats(0.5, 80))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_points_project_back_to_their_pixels_in_both_images(camera, x, y, depth):
    point = back_project(np.array([x]), np.array([y]), np.array([depth]), camera)
    assert point.dtype == np.float32
    column, row, column_right = project(point, camera)
    assert column == pytest.approx(x, abs=2e-3)
    assert row == pytest.approx(y, abs=2e-3)
    disparity = disparity_from_depth(np.array([depth]), camera)
    assert column - column_right == pytest.approx(disparity, abs=2e-3)


def test_organised_points_lie_at_their_pixels():
    depth = np.random.default_rng(0).uniform(1, 50, (48, 64)).astype(np.float32)
    depth[5, 7] = np.nan
    points = points_from_depth(depth, CAMERA)
    assert points.shape == (48, 64, 3)
    assert np.isnan(points[5, 7]).all()
    assert np.isnan(points).sum() == 3
    column, row, _ = project(points, CAMERA)
    rows, columns = np.indices((48, 64))
    known = np.isfinite(depth)
    assert np.abs(column - columns)[known].max() < 1e-4
    assert np.abs(row - rows)[known].max() < 1e-4


def test_axes_are_those_of_the_optical_frame():
    right_below = back_project(np.array([60.0]), np.array([40.0]), np.array([2.0]), CAMERA)[0]
    assert (right_below > 0).all()
    left_above = back_project(np.array([3.0]), np.array([4.0]), np.array([2.0]), CAMERA)[0]
    assert left_above[0] < 0
    assert left_above[1] < 0
    assert left_above[2] == 2


def test_depth_is_unknown_where_the_disparity_is_or_at_infinity_and_beyond():
    offset = CAMERA.cx - CAMERA.cx_right
    disparity = np.array([np.nan, offset, offset - 1, -5.0, offset + 8.4], np.float32)
    with np.errstate(all="raise"):
        depth = depth_from_disparity(disparity, CAMERA)
    assert depth.dtype == np.float32
    assert np.isnan(depth[:4]).all()
    assert depth[4] == pytest.approx(10.0, rel=1e-6)


def moved_by(motion: np.ndarray, dt: float, camera: StereoCamera = CAMERA) -> SceneFlow:
    """Scene flow of random points that all move by one vector, m, between the frames."""
    rng = np.random.default_rng(1)
    depth = rng.uniform(2, 20, (camera.height, camera.width))
    rows, columns = np.indices(depth.shape)
    points = back_project(columns, rows, depth, camera).astype(np.float64)
    column, row, column_right = project(points + motion, camera)
    return SceneFlow(
        disparity=disparity_from_depth(depth, camera).astype(np.float32),
        disparity_next=(column - column_right).astype(np.float32),
        flow=np.stack([column - columns, row - rows], axis=-1).astype(np.float32),
        valid=rng.random(depth.shape) < 0.9,
        dt=dt,
        camera=camera,
    )


@given(x=st.floats(-1, 1), y=st.floats(-1, 1), z=st.floats(-1, 1), dt=st.floats(0.01, 1))
@settings(derandomize=True, deadline=None, max_examples=30)
def test_velocity_is_motion_over_time_where_valid_and_nan_elsewhere(x, y, z, dt):
    motion = np.array([x, y, z])
    scene_flow = moved_by(motion, dt)
    velocity = velocities(scene_flow)
    assert velocity.dtype == np.float32
    assert np.isnan(velocity[~scene_flow.valid]).all()
    # Depth errors grow with its square: 21 m at 84 px m of focal length times baseline, in float32.
    error = np.abs(velocity[scene_flow.valid] - motion / dt).max() * dt
    assert error < 5e-4


def test_newer_reference_gives_the_same_velocity_forward_in_time():
    motion = np.array([0.3, -0.1, 0.5])
    forward = moved_by(motion, 0.1)
    backward = moved_by(-motion, -0.1)
    for scene_flow in (forward, backward):
        velocity = velocities(scene_flow)[scene_flow.valid]
        assert velocity == pytest.approx(np.broadcast_to(motion / 0.1, velocity.shape), abs=5e-3)


def test_points_at_both_times():
    motion = np.array([0.2, 0.1, -0.4])
    scene_flow = moved_by(motion, 0.1)
    points, points_next = scene_flow_points(scene_flow)
    assert np.isfinite(points).all()
    assert np.array_equal(np.isfinite(points_next).all(axis=-1), scene_flow.valid)
    assert np.nanmax(np.abs(points_next - points - motion)) < 5e-4


def test_invalid_pixels_have_a_position_but_no_velocity():
    scene_flow = moved_by(np.zeros(3), 0.1)
    nothing_trusted = dataclasses.replace(scene_flow, valid=np.zeros_like(scene_flow.valid))
    points, points_next = scene_flow_points(nothing_trusted)
    assert np.isfinite(points).all()
    assert np.isnan(points_next).all()
    assert np.isnan(velocities(nothing_trusted)).all()


def test_no_camera_and_no_time_between_are_refused():
    scene_flow = moved_by(np.zeros(3), 0.1)
    with pytest.raises(InputError, match="no camera"):
        velocities(dataclasses.replace(scene_flow, camera=None))
    with pytest.raises(InputError, match="no camera"):
        scene_flow_points(dataclasses.replace(scene_flow, camera=None))
    with pytest.raises(InputError, match="dt is 0 s"):
        velocities(dataclasses.replace(scene_flow, dt=0.0))
    with pytest.raises(InputError, match="dt is 0 s"):
        velocities_between(np.zeros((1, 3)), np.zeros((1, 3)), 0.0)


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_sampling_a_plane_gives_the_plane_and_nothing_outside(height, width, seed):
    rng = np.random.default_rng(seed)
    a, b, c = rng.normal(size=3)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    plane = (a * columns + b * rows + c).astype(np.float32)
    x = rng.uniform(-1, width, 50).astype(np.float32)
    y = rng.uniform(-1, height, 50).astype(np.float32)
    x[:2], y[:2] = (0, width - 1), (0, height - 1)
    x[2] = np.nan
    found = sample(plane, x, y)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    assert np.array_equal(np.isfinite(found), inside)
    np.testing.assert_allclose(found[inside], (a * x + b * y + c)[inside], atol=1e-4)
    both = sample(np.dstack([plane, 2 * plane]), x, y)
    np.testing.assert_allclose(both[inside, 1], 2 * found[inside], atol=1e-4)
    assert np.isnan(both[~inside]).all()


@pytest.mark.parametrize("offset", [-9, 4])
def test_aligned_frame_has_its_infinity_at_disparity_0(offset):
    camera = dataclasses.replace(CAMERA, cx_right=CAMERA.cx - offset)
    rng = np.random.default_rng(1)
    left = rng.integers(0, 256, (48, 64, 3), np.uint8)
    # Everything is infinitely far away.
    right = np.roll(left, -offset, axis=1)
    frame = aligned_frame(StereoFrame(left, right, 7, camera, "cam"))
    assert (frame.camera.cx_right, frame.camera.cx) == (CAMERA.cx, CAMERA.cx)
    seen = slice(10, -10)
    assert np.array_equal(frame.right[:, seen], left[:, seen])
    assert (frame.stamp, frame.frame_id) == (7, "cam")


@pytest.mark.parametrize("camera", [None, dataclasses.replace(CAMERA, cx_right=CAMERA.cx + 0.02)])
def test_aligned_frame_is_the_frame_itself_where_nothing_need_change(camera):
    image = np.zeros((48, 64, 3), np.uint8)
    frame = StereoFrame(image, image, camera=camera)
    assert aligned_frame(frame) is frame


def test_mirrored_frame_has_the_right_images_disparity():
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
    frame = StereoFrame(*images)
    mirrored = mirrored_frame(frame)
    assert np.array_equal(mirrored.left, frame.right[:, ::-1])
    assert np.array_equal(mirrored_frame(mirrored).left, frame.left)
    # A point's columns in both images of the mirrored frame, from those of the frame.
    camera = StereoCamera(100, 90, 30, 20, 35, 0.5, 64, 48)
    turned = mirrored_frame(StereoFrame(*images, 7, camera, "cam")).camera
    x, depth = 1.5, 8.0
    left = camera.fx * x / depth + camera.cx
    right = camera.fx * (x - camera.baseline) / depth + camera.cx_right
    # Seen from the mirrored left camera, which is the right one, the point is at baseline - x.
    assert turned.fx * (camera.baseline - x) / depth + turned.cx == pytest.approx(63 - right)
    assert turned.fx * -x / depth + turned.cx_right == pytest.approx(63 - left)
    assert mirrored.camera is None


def test_disparities_of_both_images_agree_as_far_as_they_are_right():
    # A wall whose point at column x is at x - 6 in the right image; the right image's map is off by 2 px in its last 20.
    left, right = np.full((2, 10, 40), 6, np.float32)
    right[:, 20:] += 2
    left[3, 30] = np.nan
    error = left_right_error(left, right)
    assert error.dtype == np.float32
    assert np.isnan(error[:, :6]).all()
    assert np.isnan(error[3, 30])
    assert (error[:, 6:26] == 0).all()
    assert (error[4:, 26:] == 2).all()
    # The same maps of a later time, of points that have moved by (5, -1) since.
    flow = np.tile(np.array([5, -1], np.float32), (10, 40, 1))
    moved = left_right_error(left, right, flow)
    assert np.isnan(moved[0]).all()
    assert np.isnan(moved[:, :1]).all()
    assert (moved[1:, 1:21] == 0).all()
    assert (moved[4:, 21:] == 2).all()


def test_the_way_there_and_back_ends_as_far_away_as_the_flows_are_wrong():
    flow = np.tile(np.array([5, -1], np.float32), (10, 40, 1))
    back = -flow
    back[:, 30:] += np.array([3, 4], np.float32)
    flow[5, 10] = np.nan
    error = forward_backward_error(flow, back)
    assert error.dtype == np.float32
    assert np.isnan(error[0]).all()
    assert np.isnan(error[:, 35:]).all()
    assert np.isnan(error[5, 10])
    assert (error[1:5, :25] == 0).all()
    assert (error[1:, 25:35] == 5).all()
