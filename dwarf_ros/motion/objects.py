"""Moving objects of refined scene flow: where they are, how large, how fast, and when they could be hit."""

from __future__ import annotations

import math

import cv2
import numpy as np

from dwarf_ros.geometry import rigid_prediction
from dwarf_ros.motion.segmentation import Evidence, Segment, find_segments
from dwarf_ros.types import MOVING, MovingObject, SceneFlow

_SYSTEMATIC, _SYSTEMATIC_FLOW = 0.1, 0.06
"""Errors of disparity and of flow that all pixels of an object share, px."""

_SLOWEST_APPROACH = 0.1
"""Objects that come nearer more slowly than this, m/s, are not on the way to a collision."""


def find_objects(scene_flow: SceneFlow) -> list[MovingObject]:
    """Objects that move over ground, largest in the image first.

    Moving pixels are grouped by their distance in space and by their motion, at half the size of the image, and each
    group is fitted with one rigid motion.

    Args:
        scene_flow: as of `refine`.

    Returns:
        objects with id -1, at the reference's time; none without ego-motion.
    """
    ego_motion, camera = scene_flow.ego_motion, scene_flow.camera
    if ego_motion is None or ego_motion.transform is None or camera is None:
        return []
    if scene_flow.motion_mask is None or scene_flow.dt == 0:
        return []
    moving = scene_flow.motion_mask[::2, ::2] == MOVING
    if not moving.any():
        return []
    height, width = moving.shape
    columns = np.arange(0, 2 * width, 2, dtype=np.float32)[None]
    rows = np.arange(0, 2 * height, 2, dtype=np.float32)[:, None]
    disparity = scene_flow.disparity[::2, ::2]
    known = np.isfinite(disparity) & np.isfinite(scene_flow.disparity_next[::2, ::2])
    flow = scene_flow.flow[::2, ::2]
    evidence = Evidence(
        camera=camera,
        motion=ego_motion.transform,
        columns=columns,
        rows=rows,
        disparity=disparity,
        known=known,
        seen=(flow[..., 0] + columns, flow[..., 1] + rows, scene_flow.disparity_next[::2, ::2]),
        predicted=rigid_prediction(columns, rows, disparity, camera, ego_motion.transform)[:3],
        valid=known,
        noise=1.0,
    )
    return [
        _object(segment, scene_flow, moving.shape)
        for segment in find_segments(evidence, moving & known)
    ]


def _object(segment: Segment, scene_flow: SceneFlow, shape: tuple[int, int]) -> MovingObject:
    ego_motion, camera, dt = scene_flow.ego_motion, scene_flow.camera, scene_flow.dt
    assert ego_motion is not None
    assert ego_motion.transform is not None
    assert ego_motion.covariance is not None
    assert camera is not None
    center = segment.center
    # Where the object's center is after dt, along the reference's axes, had the camera not moved.
    over_ground = np.linalg.inv(ego_motion.transform) @ segment.fit.motion
    displacement = over_ground[:3, :3] @ center + over_ground[:3, 3] - center
    relative = segment.fit.motion[:3, :3] @ center + segment.fit.motion[:3, 3] - center

    lever = np.hstack([np.eye(3), -_cross(center)])
    gain = camera.fx * camera.baseline
    # All points of an object share an error of their disparity, along the line of sight, at both times.
    sight = center * (center[2] / gain * _SYSTEMATIC)
    shared = np.outer(sight, sight)
    position_covariance = shared + np.diag(np.square(segment.size / 10)) + 1e-4 * np.eye(3)
    covariance = lever @ (segment.fit.covariance + ego_motion.covariance) @ lever.T
    # So do their flows.
    aside = center[2] * _SYSTEMATIC_FLOW * np.array([1 / camera.fx, 1 / camera.fy, 0])
    velocity_covariance = (covariance + 2 * shared + np.diag(aside**2)) / dt**2

    nearest = max(float(center[2] - segment.size[2] / 2), 0.0)
    approach = -relative[2] / dt
    x, y, width, height, mask = _pixels(segment, scene_flow, shape)
    pose = np.eye(4)
    pose[:3, 3] = center
    return MovingObject(
        id=-1,
        pose=pose,
        size=segment.size,
        velocity=displacement / dt,
        position_covariance=position_covariance,
        velocity_covariance=(velocity_covariance + velocity_covariance.T) / 2,
        time_to_collision=nearest / approach if approach > _SLOWEST_APPROACH else math.inf,
        mask=mask,
        box=(x, y, width, height),
    )


def _pixels(
    segment: Segment, scene_flow: SceneFlow, shape: tuple[int, int]
) -> tuple[int, int, int, int, np.ndarray]:
    """Bounding box in the full-size image, px, and the object's pixels in it."""
    rows, columns = np.divmod(segment.pixels, shape[1])
    full_height, full_width = scene_flow.disparity.shape
    top, left = 2 * int(rows.min()), 2 * int(columns.min())
    bottom = min(2 * int(rows.max()) + 2, full_height)
    right = min(2 * int(columns.max()) + 2, full_width)
    small = np.zeros((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1), np.uint8)
    small[rows - rows.min(), columns - columns.min()] = 1
    mask = cv2.resize(small, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST) > 0
    mask = mask[: bottom - top, : right - left]
    return left, top, right - left, bottom - top, mask


def _cross(v: np.ndarray) -> np.ndarray:
    return np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
