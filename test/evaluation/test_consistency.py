"""Figures without ground truth, judged on scenes whose scene flow is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.estimators.classical import ClassicalEstimator
from dwarf_ros.evaluation.consistency import (
    Consistency,
    ErrorDistribution,
    PhotometricError,
    camera_motion_errors,
    check_consistency,
    flicker_of,
    forward_backward_errors,
    left_right_errors,
    motion_between,
    photometric_errors,
    rigid_scene_errors,
)
from dwarf_ros.geometry import disparity_from_depth
from dwarf_ros.recordings import open_recording
from dwarf_ros.synthetic.drives import ProceduralDrive
from dwarf_ros.types import MOVING, InputError, SceneFlow, StereoFrame


@pytest.fixture(scope="module")
def drive() -> ProceduralDrive:
    return ProceduralDrive(seed=4, frames=2, width=320, height=128)


@pytest.fixture(scope="module")
def truth(drive):
    return drive.ground_truth(0, 1)


@pytest.fixture(scope="module")
def motion(drive) -> np.ndarray:
    return motion_between(drive.poses[0], drive.poses[1])


def with_errors(scene_flow: SceneFlow, px: float) -> SceneFlow:
    """The scene flow with each of its maps wrong by this much."""
    flow = scene_flow.flow + np.array([0, px], np.float32)
    return SceneFlow(
        scene_flow.disparity + np.float32(px),
        scene_flow.disparity_next + np.float32(px),
        flow,
        scene_flow.valid,
        scene_flow.stamp,
        scene_flow.dt,
        scene_flow.camera,
    )


def test_true_scene_flow_of_standing_bodies_is_that_of_a_rigid_scene(truth, motion):
    errors = rigid_scene_errors(truth.scene_flow, motion, truth.static)
    assert errors.flow.pixels > 20_000
    assert errors.flow.percentile(100) <= 0.01
    assert errors.disparity_next.percentile(100) <= 0.01
    assert errors.flow.within_3_percent == 100


def test_bodies_that_move_are_no_rigid_scene(truth, motion):
    moving = rigid_scene_errors(truth.scene_flow, motion, ~truth.static)
    assert moving.flow.pixels > 100
    assert moving.flow.median > 0.5


def test_without_labels_every_valid_pixel_counts(truth, motion):
    everything = rigid_scene_errors(truth.scene_flow, motion)
    parts = rigid_scene_errors(truth.scene_flow, motion, truth.static) + rigid_scene_errors(
        truth.scene_flow, motion, ~truth.static
    )
    assert everything.flow.pixels == np.count_nonzero(truth.scene_flow.valid)
    assert np.array_equal(everything.flow.counts, parts.flow.counts)
    assert np.array_equal(everything.disparity_next.counts, parts.disparity_next.counts)


def test_rigid_scene_error_is_as_large_as_the_error_put_in(truth, motion):
    flow = truth.scene_flow.flow + np.array([3, 4], np.float32)
    wrong = SceneFlow(
        truth.scene_flow.disparity,
        truth.scene_flow.disparity_next + np.float32(2.5),
        flow,
        truth.scene_flow.valid,
        camera=truth.scene_flow.camera,
    )
    errors = rigid_scene_errors(wrong, motion, truth.static)
    assert errors.flow.median == pytest.approx(5, abs=0.02)
    assert errors.disparity_next.median == pytest.approx(2.5, abs=0.02)
    assert errors.flow.within_3 == 0
    assert errors.disparity_next.within_3_percent == 100


def test_wrong_motion_is_no_rigid_scene(truth, motion):
    slower = motion.copy()
    slower[2, 3] *= 0.8
    errors = rigid_scene_errors(truth.scene_flow, slower, truth.static)
    assert errors.flow.median > 0.1


def test_rigid_scene_needs_a_camera(truth):
    flow = truth.scene_flow
    blind = SceneFlow(flow.disparity, flow.disparity_next, flow.flow, flow.valid)
    with pytest.raises(InputError, match="camera"):
        rigid_scene_errors(blind, np.eye(4))


def test_motion_between_poses_takes_points_from_one_camera_to_the_other(drive):
    one, other = drive.poses
    point = np.array([1.0, 2.0, 10.0, 1.0])
    np.testing.assert_allclose(other @ motion_between(one, other) @ point, one @ point, atol=1e-12)


def test_photometric_error_of_the_truth_is_small_and_grows_with_errors(drive, truth):
    means = []
    for px in (0.0, 1.0, 4.0):
        errors = photometric_errors(with_errors(truth.scene_flow, px), drive[0], drive[1])
        means.append([errors.left_next.mean, errors.right.mean, errors.right_next.mean])
        if px == 0:
            # Interpolation alone and hidden points; unwarped, every edge differs.
            for part in (errors.left_next, errors.right, errors.right_next):
                assert part.mean < 0.5 * part.mean_unwarped
                assert part.mean < 6
    means = np.array(means)
    assert (np.diff(means, axis=0) > 0.3).all(), means


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 30.0, 120.0])
def test_motions_differ_by_an_angle_and_a_distance(degrees):
    motion = np.eye(4)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    motion[:2, :2] = [[cosine, -sine], [sine, cosine]]
    motion[:3, 3] = [0.3, 0.0, 0.4]
    other = np.linalg.inv(motion)
    for one, true in ((motion, np.eye(4)), (motion @ motion, motion)):
        errors = camera_motion_errors(one, true)
        assert errors.mean_rotation == pytest.approx(degrees, abs=1e-9)
        assert errors.mean_translation == pytest.approx(0.5)
    both = camera_motion_errors(motion, np.eye(4)) + camera_motion_errors(other, other)
    assert both.mean_rotation == pytest.approx(degrees / 2, abs=1e-9)
    assert both.pairs == 2


def shifted_scene(disparity: int, next_disparity: int, u: int, v: int):
    """Two stereo frames of a random texture that moves as one, and their scene flow; all shifts are of whole pixels."""
    rng = np.random.default_rng(5)
    texture = np.repeat(rng.integers(0, 256, (90, 160, 1), np.uint8), 3, axis=2)

    def view(x: int, y: int) -> np.ndarray:
        return texture[30 - y : 62 - y, 60 - x : 124 - x]

    # A point at column x of the texture's view is seen x further right where the view is shifted by x.
    frames = [
        StereoFrame(view(0, 0), view(-disparity, 0)),
        StereoFrame(view(u, v), view(u - next_disparity, v)),
    ]
    ones = np.ones((32, 64), np.float32)
    flow = np.dstack([u * ones, v * ones])
    valid = np.ones((32, 64), bool)
    return frames, SceneFlow(ones * disparity, ones * next_disparity, flow, valid)


def test_whole_pixel_shifts_are_undone_exactly():
    (reference, other), scene_flow = shifted_scene(disparity=6, next_disparity=9, u=-5, v=3)
    errors = photometric_errors(scene_flow, reference, other)
    for part in (errors.left_next, errors.right, errors.right_next):
        assert part.mean == pytest.approx(0, abs=1e-4)
        assert part.mean_unwarped > 50
    assert errors.left_next.pixels == (64 - 5) * (32 - 3)
    assert errors.right.pixels == (64 - 6) * 32
    assert errors.right_next.pixels == (64 - 14) * (32 - 3)


def test_pixels_that_are_not_valid_do_not_count():
    (reference, other), scene_flow = shifted_scene(disparity=6, next_disparity=6, u=0, v=0)
    scene_flow.valid[:, 32:] = False
    scene_flow.valid[0, 20] = False
    scene_flow.flow[1, 20] = np.nan
    errors = photometric_errors(scene_flow, reference, other)
    assert errors.left_next.pixels == 32 * 32 - 2
    assert errors.right.pixels == 26 * 32 - 1
    still = np.zeros((32, 64, 2), np.float32)
    assert forward_backward_errors(scene_flow, still).pixels == 32 * 32 - 2


def test_frames_of_another_size_are_refused():
    (reference, other), scene_flow = shifted_scene(1, 1, 0, 0)
    small = StereoFrame(other.left[:16], other.right[:16])
    for pair in ((reference, small), (small, other)):
        with pytest.raises(InputError, match="64 x 16 px"):
            photometric_errors(scene_flow, *pair)


def test_true_disparities_of_both_images_agree(drive, truth):
    camera = drive.camera
    # A wall: the disparity of the right image is that of the left.
    depth = np.full((128, 320), 7.0, np.float32)
    disparity = disparity_from_depth(depth, camera).astype(np.float32)
    wall = SceneFlow(disparity, disparity, truth.scene_flow.flow, np.ones((128, 320), bool))
    agreeing = left_right_errors(wall, disparity)
    assert agreeing.pixels == 128 * np.count_nonzero(np.arange(320) >= disparity[0, 0])
    assert agreeing.percentile(100) == 0
    for px in (0.5, 2.0):
        assert left_right_errors(wall, disparity + np.float32(px)).median == pytest.approx(px)


def test_true_flow_there_and_back_returns(drive, truth):
    backward = drive.ground_truth(1, 0).scene_flow.flow
    seen = truth.scene_flow.valid & ~truth.flow_occluded
    flow = truth.scene_flow
    visible = SceneFlow(flow.disparity, flow.disparity_next, flow.flow, seen)
    errors = forward_backward_errors(visible, backward)
    assert errors.pixels > 15_000
    assert errors.median <= 0.02
    # What is interpolated across the borders of bodies may be far off.
    assert errors.percentile(90) < 1
    wrong = forward_backward_errors(visible, backward + np.array([0, 1], np.float32))
    assert wrong.median == pytest.approx(1, abs=0.02)


def test_classical_estimates_are_judged_and_worse_ones_are_judged_worse(drive, motion):
    estimator = ClassicalEstimator()
    frames = [drive[0], drive[1]]
    scene_flow = estimator.estimate(*frames)
    judged = check_consistency(scene_flow, estimator, *frames, motion)
    worse = check_consistency(with_errors(scene_flow, 5.0), estimator, *frames, motion)
    assert judged.left_right.median <= 0.5
    assert judged.forward_backward.median <= 0.5
    assert judged.rigid_scene.flow.median < 1
    assert judged.photometric.left_next.mean < 0.5 * judged.photometric.left_next.mean_unwarped
    assert worse.left_right.median > 4
    assert worse.forward_backward.median > 4
    assert worse.rigid_scene.flow.median > 3
    assert worse.photometric.right.mean > judged.photometric.right.mean + 3
    assert judged.fitted_scene.flow.median <= judged.rigid_scene.flow.median
    assert judged.motion.mean_rotation < 0.3
    assert judged.motion.mean_translation < 0.1
    unknown = check_consistency(scene_flow, estimator, *frames)
    assert unknown.rigid_scene.flow.pixels == unknown.motion.pairs == 0
    assert unknown.fitted_scene.flow.pixels > 0
    both = judged + worse
    assert both.left_right.pixels == judged.left_right.pixels + worse.left_right.pixels
    assert np.isnan(Consistency().rigid_scene.flow.median)


def test_kitti_drive_is_consistent_with_its_poses(real_data):
    sequence = open_recording(real_data("kitti_odometry"))
    estimator = ClassicalEstimator()
    frames = [sequence[3], sequence[4]]
    scene_flow = estimator.estimate(*frames)
    motion = motion_between(sequence.poses[3], sequence.poses[4])
    right = rigid_scene_errors(scene_flow, motion)
    wrong = rigid_scene_errors(scene_flow, np.linalg.inv(motion))
    assert right.flow.pixels > 100_000
    # The poses' own error is about a pixel from one frame to the next.
    assert right.flow.median < 2.5
    assert right.flow.within_3_percent > 65
    assert wrong.flow.median > 3 * right.flow.median


@given(
    st.lists(st.floats(0, 200, width=32), min_size=1, max_size=60),
    st.floats(0, 100),
    st.integers(0, 60),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_percentiles_are_those_of_the_errors_and_pooling_is_counting_together(
    errors, percent, split
):
    values = np.array(errors, np.float32)
    pooled = ErrorDistribution.of(values[:split]) + ErrorDistribution.of(values[split:])
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert pooled.percentile(percent) == pytest.approx(min(expected, 100), abs=0.0051)
    assert pooled.pixels == len(errors)
    assert pooled.within_3 == np.count_nonzero(values <= 3)


def test_unknown_errors_are_not_counted():
    error = np.array([1, np.nan, 2, np.inf, 300], np.float32)
    assert ErrorDistribution.of(error).pixels == 3
    counted = np.array([True, True, False, True, True])
    assert ErrorDistribution.of(error, counted).pixels == 2
    assert ErrorDistribution.of(error).percentile(100) == 100
    nothing = ErrorDistribution.of(error[:0])
    assert np.isnan([nothing.median, nothing.within_3_percent]).all()
    assert np.isnan([PhotometricError().mean, PhotometricError().mean_unwarped]).all()


def test_flicker_is_the_change_of_depth_that_the_camera_does_not_cause():
    drive = ProceduralDrive(seed=3, frames=2, width=256, height=128)
    truth, following = (drive.ground_truth(*pair).scene_flow for pair in ((0, 1), (1, 0)))
    motion = np.linalg.inv(drive.poses[1]) @ drive.poses[0]
    none = flicker_of(truth, following, motion)
    # Occlusions and moving objects change the rest.
    assert none.median < 0.5
    farther = replace(following, disparity=following.disparity / np.float32(1.1))
    assert flicker_of(truth, farther, motion).median == pytest.approx(10, abs=1)
    mask = np.full(truth.valid.shape, MOVING, np.uint8)
    assert flicker_of(replace(truth, motion_mask=mask), following, motion).pixels == 0
    with pytest.raises(InputError, match="no camera"):
        flicker_of(replace(truth, camera=None), following, motion)
