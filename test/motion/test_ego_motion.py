"""Ego-motion: exact on exact scene flow, unmoved by large objects, and with a reason where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_fixtures import CAMERA, motion_of, scene_flow_of, street

from dwarf_ros.motion.ego_motion import estimate_ego_motion
from dwarf_ros.motion.rigid import exponential, logarithm
from dwarf_ros.types import EgoMotion, SceneFlow

motions = st.builds(
    motion_of,
    st.tuples(st.floats(-0.5, 0.5), st.floats(-0.2, 0.2), st.floats(-2, 1)),
    st.tuples(st.floats(-0.03, 0.03), st.floats(-0.08, 0.08), st.floats(-0.03, 0.03)),
)


@settings(max_examples=25, deadline=None)
@given(motions)
def test_exact_motion_is_recovered(motion):
    found = estimate_ego_motion(scene_flow_of(street(), motion))
    assert found.transform is not None
    assert np.abs(found.transform - motion).max() < 1e-3
    assert found.static_fraction > 0.95


@settings(max_examples=15, deadline=None)
@given(motions, st.floats(0.3, 3))
def test_scale_of_the_scene_scales_the_translation(motion, scale):
    camera = replace(CAMERA, baseline=CAMERA.baseline * scale)
    scaled = motion.copy()
    scaled[:3, 3] *= scale
    found = estimate_ego_motion(scene_flow_of(street(scale=scale), scaled, camera))
    assert found.transform is not None
    assert np.abs(found.transform - scaled).max() < 1e-3 * max(1, scale)


@settings(max_examples=15, deadline=None)
@given(motions)
def test_other_reference_gives_the_inverse(motion):
    there = estimate_ego_motion(scene_flow_of(street(), motion))
    back = estimate_ego_motion(scene_flow_of(street(), np.linalg.inv(motion), dt=-0.1))
    assert there.transform is not None
    assert back.transform is not None
    assert np.abs(there.transform @ back.transform - np.eye(4)).max() < 2e-3


@pytest.mark.parametrize("part", [0.2, 0.4])
def test_large_object_does_not_capture_the_motion(part):
    motion = motion_of((0.0, 0.0, -1.0), (0.0, 0.01, 0.0))
    depth = street()
    static = estimate_ego_motion(scene_flow_of(depth, motion, noise=0.3))
    width = int(part * CAMERA.width)
    moving = np.zeros(depth.shape, bool)
    moving[:, 100 : 100 + width] = True
    depth = np.where(moving, 9.0, depth)
    own = motion_of((0.6, 0, 0.9), (0, 0, 0))
    found = estimate_ego_motion(scene_flow_of(depth, motion, moving=moving, own=own, noise=0.3))
    assert static.transform is not None
    assert found.transform is not None
    errors = [
        np.linalg.norm(logarithm(np.linalg.inv(motion) @ item.transform))
        for item in (static, found)
    ]
    assert errors[1] < max(2 * errors[0], 0.01)


def test_covariance_says_how_large_the_error_is():
    motion = motion_of((0.1, 0.0, -1.0), (0.0, 0.02, 0.0))
    squares = []
    for seed in range(12):
        found = estimate_ego_motion(scene_flow_of(street(), motion, noise=0.4, seed=seed))
        assert found.covariance is not None
        error = logarithm(np.linalg.inv(found.transform) @ motion)
        squares.append(error @ np.linalg.solve(found.covariance, error))
    assert np.mean(squares) < 12


def test_prior_is_fused_unless_it_contradicts_the_images():
    motion = motion_of((0.0, 0.0, -1.0), (0.0, 0.0, 0.0))
    scene_flow = scene_flow_of(street(), motion, noise=0.5)
    alone = estimate_ego_motion(scene_flow)
    sharp = EgoMotion(motion, 1e-10 * np.eye(6), 1.0)
    fused = estimate_ego_motion(scene_flow, prior=sharp)
    assert np.abs(fused.transform - motion).max() < np.abs(alone.transform - motion).max()
    wrong = EgoMotion(motion_of((0.5, 0, 1), (0, 0, 0)), 1e-8 * np.eye(6), 1.0)
    assert np.allclose(
        estimate_ego_motion(scene_flow, prior=wrong).transform, alone.transform, atol=1e-3
    )


def test_previous_motion_may_be_wrong():
    motion = motion_of((0.0, 0.0, -1.0), (0.0, 0.01, 0.0))
    previous = exponential(np.array([3.0, 1.0, 2.0, 0.2, 0.2, 0.2]))
    found = estimate_ego_motion(scene_flow_of(street(), motion), previous=previous)
    assert np.abs(found.transform - motion).max() < 1e-3


def distant_wall() -> SceneFlow:
    depth = np.full((CAMERA.height, CAMERA.width), 800.0)
    return scene_flow_of(depth, motion_of((0, 0, -1), (0, 0, 0)), noise=0.2)


def without_camera() -> SceneFlow:
    return replace(scene_flow_of(street(), np.eye(4)), camera=None)


def nothing_valid() -> SceneFlow:
    scene_flow = scene_flow_of(street(), np.eye(4))
    return replace(scene_flow, valid=np.zeros_like(scene_flow.valid))


def everything_moving() -> SceneFlow:
    scene_flow = scene_flow_of(street(), np.eye(4))
    rng = np.random.default_rng(1)
    flow = rng.uniform(-60, 60, scene_flow.flow.shape).astype(np.float32)
    return replace(scene_flow, flow=flow)


def all_unknown() -> SceneFlow:
    scene_flow = scene_flow_of(street(), np.eye(4))
    return replace(scene_flow, disparity=np.full_like(scene_flow.disparity, np.nan))


@pytest.mark.parametrize(
    ("scene_flow", "reason"),
    [
        (without_camera(), "no calibration"),
        (replace(scene_flow_of(street(), np.eye(4)), dt=0.0), "dt is 0"),
        (nothing_valid(), "valid pixels"),
        (all_unknown(), "valid pixels"),
        (everything_moving(), "agree on one motion"),
        (distant_wall(), "too distant"),
    ],
)
def test_reason_where_there_is_no_motion(scene_flow, reason):
    found = estimate_ego_motion(scene_flow)
    assert found.transform is None
    assert found.covariance is None
    assert reason in found.reason
