"""Disparity to depth and points, optical flow to 3D motion; knows cameras, nothing of ROS or Keras.

Points are in the left camera's optical frame (REP-103): x right, y down, z forward, m. Unknown is NaN (REP-117).
"""

from __future__ import annotations

import numpy as np

from dwarf_ros.types import InputError, SceneFlow, StereoCamera


def depth_from_disparity(disparity: np.ndarray, camera: StereoCamera) -> np.ndarray:
    """Depth along the optical axis.

    Args:
        disparity: x_left - x_right, px, any shape; NaN where unknown.
        camera: the pair it was measured with.

    Returns:
        ``fx * baseline / (disparity - (cx - cx_right))``, m, float32, same shape; NaN where the disparity is unknown
        or says that the point is at or beyond infinity.
    """
    offset = np.float32(camera.cx - camera.cx_right)
    parallax = np.asarray(disparity, dtype=np.float32) - offset
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(camera.fx * camera.baseline) / parallax
    depth[~(parallax > 0)] = np.nan
    return depth


def disparity_from_depth(depth: np.ndarray, camera: StereoCamera) -> np.ndarray:
    """Disparity x_left - x_right, px, of points at the given depth, m; the inverse of `depth_from_disparity`."""
    return camera.fx * camera.baseline / depth + (camera.cx - camera.cx_right)


def back_project(
    x: np.ndarray, y: np.ndarray, depth: np.ndarray, camera: StereoCamera
) -> np.ndarray:
    """Points seen at pixel columns x and rows y at the given depth, m; float32, broadcast shape + (3,)."""
    shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(depth))
    points = np.empty((*shape, 3), dtype=np.float32)
    np.multiply((x - camera.cx) / camera.fx, depth, out=points[..., 0], casting="same_kind")
    np.multiply((y - camera.cy) / camera.fy, depth, out=points[..., 1], casting="same_kind")
    points[..., 2] = depth
    return points


def points_from_depth(depth: np.ndarray, camera: StereoCamera) -> np.ndarray:
    """Organised points of a depth map: H x W, m, to H x W x 3, m, float32; NaN where the depth is NaN."""
    rows, columns = _pixel_grid(depth.shape)
    return back_project(columns, rows, depth, camera)


def scene_flow_points(scene_flow: SceneFlow) -> tuple[np.ndarray, np.ndarray]:
    """Position of every pixel in both frames.

    Returns:
        points: at the reference's time, float32 H x W x 3, m; NaN where the disparity is unknown.
        points_next: the same surface points at the other frame's time, in the camera's frame of that time, float32
            H x W x 3, m; NaN where the scene flow is not valid.

    Raises:
        InputError: the scene flow has no camera.
    """
    camera = _camera_of(scene_flow)
    points = points_from_depth(depth_from_disparity(scene_flow.disparity, camera), camera)
    rows, columns = _pixel_grid(scene_flow.disparity.shape)
    depth_next = depth_from_disparity(
        np.where(scene_flow.valid, scene_flow.disparity_next, np.float32(np.nan)), camera
    )
    points_next = back_project(
        columns + scene_flow.flow[..., 0], rows + scene_flow.flow[..., 1], depth_next, camera
    )
    return points, points_next


def velocities(scene_flow: SceneFlow) -> np.ndarray:
    """Velocity of every pixel's surface point relative to the camera, forward in time.

    Returns:
        float32 H x W x 3, m/s, in the left camera's optical frame; NaN where the scene flow is not valid. A negative
        dt (the reference is the newer frame) turns the motion round, so that the velocity still points forward in time.

    Raises:
        InputError: the scene flow has no camera, or dt is 0.
    """
    points, points_next = scene_flow_points(scene_flow)
    return velocities_between(points, points_next, scene_flow.dt)


def velocities_between(points: np.ndarray, points_next: np.ndarray, dt: float) -> np.ndarray:
    """Velocity, m/s, of points, m, that are at points_next, m, after dt, s (negative: before)."""
    if dt == 0:
        raise InputError("scene flow: dt is 0 s, expected two frames of different times")
    return (points_next - points) * np.float32(1.0 / dt)


def _camera_of(scene_flow: SceneFlow) -> StereoCamera:
    if scene_flow.camera is None:
        raise InputError("scene flow: no camera, expected a calibration to compute 3D points")
    return scene_flow.camera


def _pixel_grid(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    return rows, columns
