"""The path: exact for exact steps in both directions in time, bridged over short gaps, and begun anew after long ones."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from dwarf_ros.motion.rigid import exponential
from dwarf_ros.recordings.bag.transforms import MAP_FROM_OPTICAL
from dwarf_ros.ros.odometry import Odometry
from dwarf_ros.types import EgoMotion, SceneFlow, StereoCamera

CAMERA = StereoCamera(90, 90, 4, 4, 4, 0.4, 8, 8)
PERIOD_S = 0.1
STEP = np.array([0.02, -0.01, 0.8, 0.001, 0.03, -0.002])
COVARIANCE = np.diag([1e-4, 1e-4, 4e-4, 1e-6, 1e-6, 1e-6])


def estimate(frame: int, pose, other_pose, newest_first: bool, camera=CAMERA) -> SceneFlow:
    """Scene flow between frame and frame + 1, whose cameras have these poses."""
    stamp, sign = round(frame * PERIOD_S * 1e9), 1
    if newest_first:
        pose, other_pose = other_pose, pose
        stamp, sign = round((frame + 1) * PERIOD_S * 1e9), -1
    ego_motion = EgoMotion(np.linalg.inv(other_pose) @ pose, COVARIANCE, 0.9)
    unknown = np.full((8, 8), np.nan, np.float32)
    return SceneFlow(
        unknown,
        unknown,
        np.stack([unknown, unknown], axis=-1),
        np.zeros((8, 8), bool),
        stamp=stamp,
        dt=sign * PERIOD_S,
        camera=camera,
        ego_motion=ego_motion,
    )


def path(frames: int, step=STEP) -> list[np.ndarray]:
    poses = [np.eye(4)]
    for _ in range(frames):
        poses.append(poses[-1] @ exponential(step))
    return poses


@pytest.mark.parametrize("newest_first", [True, False])
@given(step=st.lists(st.floats(-0.05, 0.05), min_size=6, max_size=6))
@settings(derandomize=True, deadline=None, max_examples=20)
def test_exact_steps_give_the_exact_path(newest_first, step):
    poses, odometry = path(6, np.array(step)), Odometry()
    for frame in range(6):
        found = odometry.update(estimate(frame, poses[frame], poses[frame + 1], newest_first))
        true = MAP_FROM_OPTICAL @ poses[frame + newest_first]
        np.testing.assert_allclose(found.pose, true, atol=1e-9)
        np.testing.assert_allclose(found.twist, np.array(step) / PERIOD_S, atol=1e-6)


@pytest.mark.parametrize("newest_first", [True, False])
def test_uncertainty_grows_along_the_path_and_stays_a_covariance(newest_first):
    poses, odometry = path(30), Odometry()
    volumes = []
    for frame in range(30):
        found = odometry.update(estimate(frame, poses[frame], poses[frame + 1], newest_first))
        np.testing.assert_allclose(found.pose_covariance, found.pose_covariance.T, atol=1e-12)
        assert np.linalg.eigvalsh(found.pose_covariance).min() > -1e-12
        volumes.append(np.trace(found.pose_covariance))
    assert all(later > earlier for earlier, later in itertools.pairwise(volumes))
    # The first pose is the origin by definition where the reference is the earlier frame.
    assert (volumes[0] == 0) != newest_first


def test_frames_that_were_not_estimated_are_bridged():
    poses, odometry = path(8), Odometry()
    for frame in (0, 1, 5, 6):
        found = odometry.update(estimate(frame, poses[frame], poses[frame + 1], True))
    # The gap is bridged along a chord of the curve.
    np.testing.assert_allclose(found.pose, MAP_FROM_OPTICAL @ poses[7], atol=0.1)


def test_a_calibration_that_jitters_does_not_start_it_anew():
    poses, odometry = path(4), Odometry()
    for frame in range(4):
        camera = replace(CAMERA, fx=CAMERA.fx + 1e-4 * frame)
        found = odometry.update(
            estimate(frame, poses[frame], poses[frame + 1], True, camera=camera)
        )
    np.testing.assert_allclose(found.pose, MAP_FROM_OPTICAL @ poses[4], atol=1e-9)


@pytest.mark.parametrize("change", ["backwards", "gap", "camera", "direction"])
def test_it_starts_anew(change):
    poses, odometry = path(40), Odometry()
    for frame in range(10, 14):
        odometry.update(estimate(frame, poses[frame], poses[frame + 1], False))
    frame, newest_first, camera = {"backwards": 3, "gap": 30}.get(change, 14), False, CAMERA
    if change == "camera":
        camera = StereoCamera(91, 91, 4, 4, 4, 0.4, 8, 8)
    if change == "direction":
        newest_first = True
    found = odometry.update(
        estimate(frame, poses[frame], poses[frame + 1], newest_first, camera=camera)
    )
    expected = exponential(STEP) if newest_first else np.eye(4)
    np.testing.assert_allclose(found.pose, MAP_FROM_OPTICAL @ expected, atol=1e-9)


def test_without_ego_motion_there_is_no_pose():
    scene_flow = estimate(0, np.eye(4), np.eye(4), True)
    assert Odometry().update(replace(scene_flow, ego_motion=EgoMotion(reason="no texture"))) is None
    assert Odometry().update(replace(scene_flow, ego_motion=None)) is None
