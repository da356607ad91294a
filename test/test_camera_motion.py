"""Scene flow of static points, and velocities over ground."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.geometry import (
    disparity_from_depth,
    rigid_scene_flow,
    velocities_over_ground,
)
from dwarf_ros.types import SceneFlow, StereoCamera

CAMERA = StereoCamera(
    fx=300, fy=310, cx=130, cy=60, cx_right=128, baseline=0.5, width=256, height=128
)


def motion_of(rotation_y: float, translation: tuple[float, float, float]) -> np.ndarray:
    motion = np.eye(4)
    c, s = np.cos(rotation_y), np.sin(rotation_y)
    motion[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    motion[:3, 3] = translation
    return motion


def scene(motion: np.ndarray, dt: float = 0.1) -> tuple[SceneFlow, np.ndarray]:
    """Random depths seen by a moving camera; a quarter of the picture moves 0.4 m to the right more."""
    depth = np.random.default_rng(5).uniform(4, 30, (CAMERA.height, CAMERA.width))
    disparity = disparity_from_depth(depth, CAMERA).astype(np.float32)
    moving = np.zeros(disparity.shape, dtype=bool)
    moving[40:104, :128] = True
    own = np.eye(4)
    own[0, 3] = 0.4
    flow, disparity_next = rigid_scene_flow(disparity, CAMERA, motion)
    flow_own, disparity_own = rigid_scene_flow(disparity, CAMERA, motion @ own)
    flow[moving], disparity_next[moving] = flow_own[moving], disparity_own[moving]
    valid = np.isfinite(disparity_next)
    return SceneFlow(disparity, disparity_next, flow, valid, dt=dt, camera=CAMERA), moving


@pytest.mark.parametrize(
    ("motion", "dt"),
    [
        (np.eye(4), 0.1),
        (motion_of(0.0, (0, 0, -1.5)), 0.1),
        (motion_of(0.06, (0.2, -0.05, -1.0)), 0.1),
        (motion_of(-0.04, (0.1, 0.0, 0.8)), -0.1),
    ],
)
def test_velocities_are_over_ground_whatever_the_camera_does(motion, dt):
    scene_flow, moving = scene(motion, dt)
    velocity = velocities_over_ground(scene_flow, motion)
    assert np.nanmax(np.linalg.norm(velocity[~moving], axis=-1)) < 0.05
    assert np.allclose(np.nanmedian(velocity[moving], axis=0), (0.4 / dt, 0, 0), atol=0.01)


def test_unknown_disparity_stays_unknown():
    disparity = np.full((CAMERA.height, CAMERA.width), 20, dtype=np.float32)
    disparity[3, 4] = np.nan
    flow, disparity_next = rigid_scene_flow(disparity, CAMERA, np.eye(4))
    assert np.isnan(flow[3, 4]).all()
    assert np.isnan(disparity_next[3, 4])
    assert np.nanmax(np.abs(flow)) < 1e-3
    assert np.nanmax(np.abs(disparity_next - 20)) < 1e-3
