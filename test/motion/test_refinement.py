"""Refined scene flow: better than what it is made of, and unchanged with a reason where it cannot be refined."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.estimators import REFINEMENTS
from dwarf_ros.estimators.classical import ClassicalEstimator
from dwarf_ros.metrics import area_under_sparsification, flow_errors
from dwarf_ros.motion.objects import find_objects
from dwarf_ros.motion.refined import RefinedEstimator, load_estimator, refined
from dwarf_ros.motion.refinement import refine
from dwarf_ros.synthetic.drives import ProceduralDrive
from dwarf_ros.types import MOVING, UNKNOWN, InputError, SceneFlow, StereoFrame


@cache
def drive() -> tuple[StereoFrame, StereoFrame, SceneFlow, np.ndarray, np.ndarray]:
    """Two frames, the truth, which pixels are static, and the camera's motion."""
    scene = ProceduralDrive(1_000_003, 2, 448, 256)
    truth = scene.ground_truth(0, 1)
    motion = np.linalg.inv(scene.poses[1]) @ scene.poses[0]
    return scene[0], scene[1], truth.scene_flow, truth.static, motion


@cache
def estimate() -> SceneFlow:
    previous, current, *_ = drive()
    return ClassicalEstimator().estimate(previous, current)


@cache
def refined_estimate() -> SceneFlow:
    previous, current, *_ = drive()
    return refine(estimate(), previous.left, current.left, previous.right)


def test_outliers_become_a_third():
    truth = drive()[2]
    before, after = (flow_errors(s.flow, truth.flow) for s in (estimate(), refined_estimate()))
    assert after.outlier_rate < before.outlier_rate / 2.5


def test_ego_motion_is_that_of_the_drive():
    found, motion = refined_estimate().ego_motion, drive()[4]
    assert np.abs(found.transform - motion).max() < 0.02
    assert 0.5 < found.static_fraction <= 1


def test_mask_marks_what_moves():
    _, _, truth, static, _ = drive()
    moving = ~static & np.isfinite(truth.disparity)
    marked = refined_estimate().motion_mask == MOVING
    assert np.count_nonzero(marked & moving) > 0.75 * np.count_nonzero(marked)
    assert np.count_nonzero(marked & moving) > 0.6 * np.count_nonzero(moving)
    assert (refined_estimate().motion_mask == UNKNOWN).any()


def test_confidence_is_higher_where_the_error_is_small():
    scene_flow, truth = refined_estimate(), drive()[2]
    error = np.hypot(*np.moveaxis(scene_flow.flow - truth.flow, -1, 0))
    known = np.isfinite(error)
    confidence = scene_flow.flow_confidence
    low, high = (error[known & part] for part in (confidence < 0.5, confidence > 0.9))
    assert high.mean() < low.mean() / 2
    binary = area_under_sparsification(error, estimate().valid)
    assert area_under_sparsification(error, confidence) < binary / 1.5
    for values in (scene_flow.disparity_confidence, scene_flow.flow_confidence):
        assert values.min() >= 0
        assert values.max() <= 1
    assert np.array_equal(
        scene_flow.confidence, np.minimum(scene_flow.disparity_confidence, confidence)
    )


def test_filled_disparity_is_mostly_right():
    filled = np.isfinite(refined_estimate().disparity) & ~np.isfinite(estimate().disparity)
    error = np.abs(refined_estimate().disparity - drive()[2].disparity)[filled]
    assert filled.any()
    assert np.nanmedian(error) < 2


def test_odd_sizes_are_refined():
    previous, current, *_ = drive()
    scene_flow = estimate()
    part = np.s_[:255, :447]
    camera = replace(scene_flow.camera, width=447, height=255)
    cut = SceneFlow(
        *(np.ascontiguousarray(getattr(scene_flow, name)[part]) for name in ("disparity", "disparity_next", "flow", "valid")),
        dt=scene_flow.dt,
        camera=camera,
    )  # fmt: skip
    found = refine(cut, previous.left[part], current.left[part], previous.right[part])
    assert found.motion_mask.shape == (255, 447)
    assert np.abs(found.ego_motion.transform - drive()[4]).max() < 0.02


def unchanged(found: SceneFlow, given_flow: SceneFlow) -> bool:
    return all(
        getattr(found, name) is getattr(given_flow, name)
        for name in ("disparity", "disparity_next", "flow", "valid")
    )


def no_camera() -> SceneFlow:
    return replace(estimate(), camera=None)


def all_nan() -> SceneFlow:
    return replace(estimate(), disparity=np.full_like(estimate().disparity, np.nan))


def no_dt() -> SceneFlow:
    return replace(estimate(), dt=0.0)


def nothing_valid() -> SceneFlow:
    return replace(estimate(), valid=np.zeros_like(estimate().valid))


def garbage() -> SceneFlow:
    rng = np.random.default_rng(4)
    noise = [rng.uniform(1, 90, estimate().disparity.shape).astype(np.float32) for _ in range(4)]
    return replace(
        estimate(),
        disparity=noise[0],
        disparity_next=noise[1],
        flow=np.dstack(noise[2:]),
        valid=np.ones_like(estimate().valid),
    )


@pytest.mark.parametrize("broken", [no_camera, all_nan, no_dt, nothing_valid, garbage])
def test_bad_estimates_come_back_unchanged_with_a_reason(broken):
    previous, current, *_ = drive()
    scene_flow = broken()
    found = refine(scene_flow, previous.left, current.left, previous.right)
    assert found.ego_motion.transform is None
    assert found.ego_motion.reason
    assert unchanged(found, scene_flow)
    assert found.motion_mask is None
    assert find_objects(found) == []


def test_black_images_have_no_texture():
    black = np.zeros_like(drive()[0].left)
    found = refine(estimate(), black, black)
    assert "texture" in found.ego_motion.reason
    assert unchanged(found, estimate())


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 1000), st.floats(0, 1), st.sampled_from([np.nan, np.inf, -np.inf, -5, 0, 1e9])
)
def test_no_value_raises(seed, part, value):
    previous, current, *_ = drive()
    rng = np.random.default_rng(seed)
    arrays = {}
    for name in ("disparity", "disparity_next", "flow"):
        array = getattr(estimate(), name).copy()
        array[rng.random(array.shape) < part] = value
        arrays[name] = array
    found = refine(replace(estimate(), **arrays), previous.left, current.left, previous.right)
    assert found.ego_motion is not None
    find_objects(found)


def test_image_of_another_size_is_an_error():
    with pytest.raises(InputError, match="other_left: image is 100 x 50 px"):
        refine(estimate(), drive()[0].left, np.zeros((50, 100, 3), np.uint8))


def test_refined_estimator_is_an_estimator():
    previous, current, *_ = drive()
    estimator = RefinedEstimator(ClassicalEstimator())
    assert (estimator.name, estimator.engine) == ("classical", "opencv")
    estimator.warm_up(448, 256)
    first = estimator.estimate(previous, current)
    assert np.array_equal(first.flow, refined_estimate().flow)


def test_previous_motion_is_forgotten_over_gaps():
    previous, current, *_ = drive()
    estimator = RefinedEstimator(ClassicalEstimator())
    first = estimator.estimate(previous, current)
    following = replace(first, stamp=first.stamp + 10**8)
    assert np.allclose(estimator._expected(following), first.ego_motion.transform)
    half = estimator._expected(replace(following, dt=first.dt / 2))
    assert np.allclose(half[:3, 3], first.ego_motion.transform[:3, 3] / 2)
    for changed in (
        replace(first, stamp=first.stamp + 3 * 10**9),
        replace(first, stamp=first.stamp - 10**8),
        replace(following, camera=None),
        replace(following, dt=-first.dt),
        replace(following, dt=0.0),
    ):
        assert estimator._expected(changed) is None


def test_refinement_is_chosen_by_name():
    plain = ClassicalEstimator()
    assert refined(plain, "none") is plain
    assert isinstance(load_estimator("classical"), RefinedEstimator)
    assert isinstance(load_estimator("classical", refine="none"), ClassicalEstimator)
    assert REFINEMENTS == ("rigid", "none")
    with pytest.raises(InputError, match="refine: 'soft' is unknown"):
        load_estimator("classical", refine="soft")
