from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_fixtures import CAMERA

from dwarf_ros.motion.rigid import Matches, exponential, fit, linearized, logarithm, score

number = st.floats(-0.5, 0.5, allow_subnormal=False)


def matches_of(motion: np.ndarray, count: int = 200, seed: int = 3) -> Matches:
    rng = np.random.default_rng(seed)
    points = rng.uniform((-5, -2, 5), (5, 2, 30), (count, 3))
    moved = points @ motion[:3, :3].T + motion[:3, 3]
    seen = np.column_stack(
        [
            CAMERA.fx * moved[:, 0] / moved[:, 2] + CAMERA.cx,
            CAMERA.fy * moved[:, 1] / moved[:, 2] + CAMERA.cy,
            CAMERA.fx * CAMERA.baseline / moved[:, 2] + CAMERA.cx - CAMERA.cx_right,
        ]
    )
    return Matches(points, seen, np.ones(count), np.arange(count) % 16, CAMERA)


@given(st.tuples(*[number] * 6))
def test_logarithm_undoes_exponential(xi):
    assert np.allclose(logarithm(exponential(np.array(xi))), xi, atol=1e-7)


@given(st.tuples(*[number] * 6))
def test_exponential_is_rigid(xi):
    rotation = exponential(np.array(xi))[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_jacobian_is_that_of_the_residuals():
    # Where the residuals are small, for the whitening is taken as constant.
    motion = exponential(np.array([0.1, 0.05, -0.8, 0.01, 0.01, -0.01]))
    matches = matches_of(motion, 20)
    residual, jacobian = linearized(matches, motion)
    for axis in range(6):
        step = np.zeros(6)
        step[axis] = 1e-6
        moved, _ = linearized(matches, motion @ exponential(step))
        assert np.allclose((residual - moved) / 1e-6, jacobian[..., axis], rtol=0.01, atol=0.1)


def test_unknown_next_disparities_are_left_out():
    motion = exponential(np.array([0.3, 0.1, -1.0, 0.01, -0.02, 0.0]))
    matches = matches_of(motion)
    matches.seen[::2, 2] = np.nan
    assert np.allclose(fit(matches, np.eye(4)).motion, motion, atol=1e-5)


def test_prior_decides_what_the_matches_leave_open():
    motion = exponential(np.array([0.3, 0.1, -1.0, 0.0, 0.0, 0.0]))
    one = matches_of(motion, 3).take(np.array([0, 0, 0]))
    found = fit(one, np.eye(4), prior=(motion, np.eye(6) * 1e4))
    assert np.allclose(found.motion, motion, atol=1e-3)


def test_score_prefers_the_motion_that_explains_more():
    motion = exponential(np.array([0.3, 0.1, -1.0, 0.01, 0.0, 0.0]))
    costs = score(matches_of(motion), np.stack([np.eye(4), motion]), 4.0)
    assert costs[1] < 1e-6 < costs[0] <= 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_covariance_covers_the_error(seed):
    rng = np.random.default_rng(seed)
    motion = exponential(np.array([0.2, 0, -1, 0, 0.02, 0]))
    matches = matches_of(motion, 300, seed)
    matches.seen[...] += rng.normal(0, 0.3, matches.seen.shape)
    found = fit(matches, np.eye(4))
    error = logarithm(np.linalg.inv(found.motion) @ motion)
    assert error @ np.linalg.solve(found.covariance, error) < 60
