"""Objects and trajectory over results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dwarf_ros.types import EgoMotion, StereoFrame
from dwarf_ros.viewing.motion import MotionHistory, with_motion


def test_ids_last_and_the_trajectory_grows(make_result):
    history = MotionHistory()
    start = 1_700_000_000_000_000_000
    results = [history.add(make_result(stamp=start + i * 100_000_000)) for i in range(4)]
    assert [[item.id for item in result.objects] for result in results] == [[0]] * 4
    assert [len(result.trajectory) for result in results] == [1, 2, 3, 4]
    # 0.3 m to the right per frame.
    expected = np.outer((-0.9, -0.6, -0.3, 0), (1, 0, 0))
    np.testing.assert_allclose(results[-1].trajectory, expected, atol=1e-6)


def test_the_trajectory_is_the_same_with_the_newer_frame_as_the_reference(make_result):
    def reverse(result):
        flow = result.scene_flow
        inverse = np.linalg.inv(flow.ego_motion.transform)
        motion = EgoMotion(inverse, flow.ego_motion.covariance, 0.9)
        return replace(
            result, scene_flow=replace(flow, dt=-0.1, ego_motion=motion, motion_mask=None)
        )

    history = MotionHistory()
    results = [history.add(reverse(make_result(stamp=i * 100_000_000))) for i in (1, 2, 3)]
    expected = np.outer((-0.6, -0.3, 0), (1, 0, 0))
    np.testing.assert_allclose(results[-1].trajectory, expected, atol=1e-6)


def test_the_trajectory_starts_anew_after_a_gap_or_without_ego_motion(make_result):
    history = MotionHistory()
    history.add(make_result(stamp=0))
    assert len(history.add(make_result(stamp=100_000_000)).trajectory) == 2
    assert len(history.add(make_result(stamp=5_000_000_000)).trajectory) == 1
    lost = make_result(stamp=5_100_000_000)
    lost = replace(lost, scene_flow=replace(lost.scene_flow, ego_motion=EgoMotion(reason="dark")))
    assert len(history.add(lost).trajectory) == 2
    assert len(history.add(make_result(stamp=5_200_000_000)).trajectory) == 1
    assert len(history.add(make_result(stamp=100_000_000)).trajectory) == 1


def test_motion_is_added_only_where_it_is_missing(result):
    flow = result.scene_flow
    frame = StereoFrame(result.left, result.left, flow.stamp, flow.camera)
    assert with_motion(flow, frame, frame) is flow
    bare = replace(flow, ego_motion=None, motion_mask=None)
    added = with_motion(bare, frame, frame)
    assert added.ego_motion is not None
    assert added.disparity is bare.disparity
    assert added.flow is bare.flow
