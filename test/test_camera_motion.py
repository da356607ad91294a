"""The camera's own motion in dwarf_ros.geometry: found despite what moves on its own, and taken off."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.geometry import (
    camera_motion,
    disparity_from_depth,
    rigid_scene_flow,
    velocities_over_ground,
)
from dwarf_ros.types import InputError, SceneFlow, StereoCamera

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
def test_motion_is_found_although_a_quarter_of_the_scene_moves(motion, dt):
    scene_flow, moving = scene(motion, dt)
    found = camera_motion(scene_flow)
    assert np.abs(found - motion).max() < 2e-3
    velocity = velocities_over_ground(scene_flow, found)
    assert np.nanmedian(np.linalg.norm(velocity[~moving], axis=-1)) < 0.05
    assert np.allclose(np.nanmedian(velocity[moving], axis=0), (0.4 / dt, 0, 0), atol=0.1)


def test_motion_survives_noise_and_unknown_pixels():
    motion = motion_of(0.03, (0.0, 0.0, -1.2))
    scene_flow, _ = scene(motion)
    rng = np.random.default_rng(8)
    scene_flow.flow[...] += rng.normal(0, 0.5, scene_flow.flow.shape).astype(np.float32)
    scene_flow.flow[::7] = np.nan
    scene_flow.valid[::7] = False
    assert np.abs(camera_motion(scene_flow) - motion).max() < 0.02


def test_unknown_disparity_stays_unknown():
    disparity = np.full((CAMERA.height, CAMERA.width), 20, dtype=np.float32)
    disparity[3, 4] = np.nan
    flow, disparity_next = rigid_scene_flow(disparity, CAMERA, np.eye(4))
    assert np.isnan(flow[3, 4]).all()
    assert np.isnan(disparity_next[3, 4])
    assert np.nanmax(np.abs(flow)) < 1e-3
    assert np.nanmax(np.abs(disparity_next - 20)) < 1e-3


def test_too_few_valid_pixels_are_an_error():
    scene_flow, _ = scene(np.eye(4))
    scene_flow.valid[...] = False
    with pytest.raises(InputError, match="0 valid pixels"):
        camera_motion(scene_flow)
