"""Tests of odometry errors: properties of exact, scaled and moved trajectories, and KITTI's segments."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.evaluation.odometry import (
    absolute_trajectory_error,
    motion_error,
    odometry_errors,
    recording_odometry,
    segment_errors,
    trajectory,
)
from dwarf_ros.motion.rigid import exponential


def random_motions(seed: int, count: int = 20) -> list[np.ndarray]:
    """A vehicle's: about a meter forward, turning a little."""
    rng = np.random.default_rng(seed)
    xi = rng.normal(0, [0.05, 0.02, 0.2, 0.01, 0.03, 0.01], (count, 6)) - [0, 0, 1, 0, 0, 0]
    return [exponential(x) for x in xi]


def random_pose(seed: int) -> np.ndarray:
    return exponential(np.random.default_rng(seed).normal(0, [50, 50, 50, 1, 1, 1]))


def straight(frames: int, step: float = 1.0) -> list[np.ndarray]:
    motion = np.eye(4)
    motion[2, 3] = -step
    return [motion] * (frames - 1)


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(deadline=None)
def test_exact_motions_have_no_error(seed):
    motions = random_motions(seed)
    errors = odometry_errors(motions, trajectory(motions, random_pose(seed)))
    assert (errors.pairs, errors.missing, errors.segments) == (20, 0, 0)
    assert errors.frame_translation_percent == pytest.approx(0, abs=1e-6)
    assert errors.frame_rotation_degrees == pytest.approx(0, abs=1e-6)
    assert errors.absolute_trajectory_m == pytest.approx(0, abs=1e-6)
    assert errors.drift_percent == pytest.approx(0, abs=1e-6)
    assert errors.translation_percent is errors.rotation_degrees_per_m is None


@given(seeds, seeds)
@settings(deadline=None, max_examples=50)
def test_the_world_frame_does_not_matter(seed, other):
    motions, true = random_motions(seed), trajectory(random_motions(other))
    here = odometry_errors(motions, true)
    there = odometry_errors(motions, random_pose(seed) @ true)
    for name, value in vars(here).items():
        if isinstance(value, float):
            assert getattr(there, name) == pytest.approx(value, rel=1e-6, abs=1e-6), name


@given(st.floats(0.5, 1.5))
@settings(deadline=None, max_examples=20)
def test_an_error_of_scale_is_found_in_every_figure(scale):
    true = trajectory(straight(301))
    errors = odometry_errors(straight(301, scale), true)
    percent = pytest.approx(100 * abs(scale - 1), abs=1e-6)
    assert errors.frame_translation_percent == percent
    assert errors.drift_percent == percent
    assert errors.rotation_degrees_per_m == pytest.approx(0, abs=1e-9)
    # A segment ends with the first frame beyond its length, as in KITTI's development kit.
    assert errors.translation_percent == pytest.approx(100 * abs(scale - 1), rel=0.011, abs=1e-6)
    # The deviation of 301 equal steps from their mean.
    spread = math.sqrt((301**2 - 1) / 12)
    assert errors.absolute_trajectory_m == pytest.approx(abs(scale - 1) * spread, abs=1e-6)


@given(seeds, st.floats(1e-7, 3.0))
@settings(deadline=None)
def test_the_angle_of_a_rotation(seed, angle):
    axis = np.random.default_rng(seed).normal(size=3)
    turn = exponential(np.concatenate([np.zeros(3), axis / np.linalg.norm(axis) * angle]))
    pose = random_pose(seed)
    translation, rotation = motion_error(pose, pose @ turn)
    assert rotation == pytest.approx(angle, rel=1e-5)
    assert translation == pytest.approx(0, abs=1e-9)


def test_a_constant_turn_per_meter():
    turn = exponential(np.array([0, 0, 0, 0, math.radians(0.01), 0]))
    motions = [turn @ motion for motion in straight(251)]
    errors = odometry_errors(motions, trajectory(straight(251)))
    assert errors.frame_rotation_degrees == pytest.approx(0.01)
    assert errors.rotation_degrees_per_m == pytest.approx(0.01, rel=0.011)


def test_segments_start_at_every_tenth_frame_and_fit_in():
    true = trajectory(straight(251))
    # From frames 0, 10 ... 140 for 100 m, and to 40 for 200 m: each needs a frame beyond its end.
    assert len(segment_errors(true, true)) == 15 + 5
    assert segment_errors(true[:100], true[:100]) == []


def test_a_missing_motion_repeats_the_previous_one():
    true = trajectory(straight(11))
    motions: list = straight(11)
    motions[4] = None
    errors = odometry_errors(motions, true)
    assert errors.missing == 1
    assert errors.drift_percent == pytest.approx(0, abs=1e-9)
    motions[0] = None
    assert odometry_errors(motions, true).drift_percent == pytest.approx(10)
    nothing = odometry_errors([None] * 10, true)
    assert nothing.drift_percent == pytest.approx(100)
    assert nothing.frame_rotation_degrees is None


def test_a_camera_that_rests_has_no_percentages():
    errors = odometry_errors([np.eye(4)] * 3, np.stack([np.eye(4)] * 4))
    assert errors.frame_translation_percent is errors.drift_percent is None
    assert errors.absolute_trajectory_m == 0


def test_the_longest_run_of_pairs_counts():
    poses = random_pose(3) @ trajectory(straight(11))
    pairs = [(0, 1), (3, 4), (4, 5), (5, 6), (8, 9), (9, 10)]
    found = recording_odometry(pairs, straight(7), poses)
    assert found.errors.pairs == 3
    np.testing.assert_allclose(found.positions, [(0, 0), (0, 1), (0, 2), (0, 3)], atol=1e-9)
    np.testing.assert_allclose(found.true_positions, found.positions, atol=1e-9)


def test_alignment_is_rigid_and_no_reflection():
    true = trajectory(random_motions(1))
    moved = random_pose(2) @ true
    assert absolute_trajectory_error(moved, true) == pytest.approx(0, abs=1e-9)
    mirrored = true.copy()
    mirrored[:, 0, 3] *= -1
    mirrored[:, 0, 3] += np.linspace(0, 3, len(true)) ** 2
    assert absolute_trajectory_error(mirrored, true) > 0.01
