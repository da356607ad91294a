"""Messages of motion: what they hold, in units and frames that their readers expect."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("dwarf_ros.msg")

from visualization_msgs.msg import Marker

from dwarf_ros.geometry import rigid_scene_flow
from dwarf_ros.motion.rigid import exponential
from dwarf_ros.recordings.scene_flow_messages import scene_flow_from_message
from dwarf_ros.ros import distro, motion_messages
from dwarf_ros.ros.messages import cloud_message, markers_message, scene_flow_message
from dwarf_ros.ros.odometry import Odometry
from dwarf_ros.types import MOVING, STATIC, EgoMotion, MovingObject, SceneFlow, StereoCamera

CAMERA = StereoCamera(100, 100, 20, 12, 20, 0.5, 40, 24)
# 1 m forward in 0.1 s: points come nearer.
FORWARD = exponential(np.array([0, 0, -1.0, 0, 0, 0]))


@pytest.fixture
def scene_flow() -> SceneFlow:
    """A static wall 10 m ahead, and in its middle something that keeps its distance to the camera."""
    disparity = np.full((24, 40), 5, np.float32)
    flow, disparity_next = rigid_scene_flow(disparity, CAMERA, FORWARD)
    mask = np.full((24, 40), STATIC, np.uint8)
    mask[8:16, 10:20] = MOVING
    flow[mask == MOVING], disparity_next[mask == MOVING] = 0, 5
    return SceneFlow(
        disparity,
        disparity_next,
        flow,
        np.ones((24, 40), bool),
        stamp=5_000_000_000,
        dt=0.1,
        camera=CAMERA,
        frame_id="left",
        disparity_confidence=np.full((24, 40), 0.75, np.float32),
        flow_confidence=np.full((24, 40), 0.5, np.float32),
        ego_motion=EgoMotion(FORWARD, 1e-4 * np.eye(6), 0.9),
        motion_mask=mask,
    )


@pytest.fixture
def item() -> MovingObject:
    pose = np.eye(4)
    pose[:3, 3] = 1, 0.5, 10
    return MovingObject(
        id=7,
        pose=pose,
        size=np.array([2.0, 1.5, 0.05]),
        velocity=np.array([0, 0, 10.0]),
        position_covariance=0.01 * np.eye(3),
        velocity_covariance=0.04 * np.eye(3),
        time_to_collision=2.5,
        mask=np.ones((8, 10), bool),
        box=(10, 8, 10, 8),
    )


def values(image, dtype=np.float32) -> np.ndarray:
    return np.frombuffer(image.data, dtype).reshape(image.height, image.width)


def points(cloud) -> np.ndarray:
    return np.frombuffer(cloud.data, np.float32).reshape(-1, len(cloud.fields))


def test_mask_and_confidence(scene_flow):
    mask = motion_messages.motion_mask_message(scene_flow)
    assert mask.encoding == "mono8"
    assert np.array_equal(values(mask, np.uint8), scene_flow.motion_mask)
    confidence = motion_messages.confidence_message(scene_flow)
    assert confidence.encoding == "32FC1"
    assert (values(confidence) == 0.5).all()
    unknown = replace(scene_flow, motion_mask=None, disparity_confidence=None, flow_confidence=None)
    assert (values(motion_messages.motion_mask_message(unknown), np.uint8) == 127).all()
    assert (values(motion_messages.confidence_message(unknown)) == 1).all()


def test_time_to_collision_is_that_of_the_relative_motion(scene_flow):
    valid = scene_flow.valid.copy()
    valid[0] = False
    message = motion_messages.time_to_collision_message(replace(scene_flow, valid=valid))
    seconds = values(message)
    assert np.isnan(seconds[0]).all()
    static = scene_flow.motion_mask == STATIC
    # 10 m at 10 m/s.
    np.testing.assert_allclose(seconds[1:][static[1:]], 1.0, rtol=1e-3)
    assert np.isinf(seconds[~static]).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_moving_and_static_points(scene_flow, reverse):
    if reverse:
        # Nothing of what is published depends on which of the frames is the reference.
        scene_flow = replace(scene_flow, dt=-0.1)
    moving = motion_messages.moving_points_message(scene_flow)
    static = motion_messages.static_points_message(scene_flow)
    assert [field.name for field in moving.fields] == ["x", "y", "z", "vx", "vy", "vz"]
    assert (moving.height, moving.width, static.width) == (1, 80, 24 * 40 - 80)
    np.testing.assert_allclose(points(moving)[:, 2], 10, rtol=1e-5)
    sign = -1 if reverse else 1
    np.testing.assert_allclose(
        points(moving)[:, 3:], np.tile([0, 0, sign * 10], (80, 1)), atol=0.01
    )
    assert points(static).shape[1] == 3
    nothing = motion_messages.moving_points_message(scene_flow, max_depth_m=5)
    assert nothing.width == 0


def test_velocities_are_over_ground_or_relative_to_the_camera(scene_flow):
    left = np.zeros((24, 40, 3), np.uint8)
    static, moving = (scene_flow.motion_mask.ravel() == kind for kind in (STATIC, MOVING))
    ground = points(cloud_message(scene_flow, left, over_ground=True))[:, 4:]
    np.testing.assert_allclose(ground[static], 0, atol=0.01)
    np.testing.assert_allclose(ground[moving][:, 2], 10, atol=0.01)
    relative = points(cloud_message(scene_flow, left))[:, 4:]
    np.testing.assert_allclose(relative[static][:, 2], -10, atol=0.01)
    np.testing.assert_allclose(relative[moving], 0, atol=0.01)


def test_static_ground_has_no_lines(scene_flow):
    lines = markers_message(scene_flow, spacing_px=4, over_ground=True).markers[0]
    assert len(lines.points) == 2 * int((scene_flow.motion_mask[2::4, 2::4] == MOVING).sum()) > 0
    still = replace(scene_flow, motion_mask=np.zeros((24, 40), np.uint8))
    assert markers_message(still, over_ground=True).markers[0].action == Marker.DELETE


def test_moving_objects(scene_flow, item):
    unseen = replace(item, id=8, mask=None, box=None, time_to_collision=np.inf)
    message = motion_messages.moving_objects_message(scene_flow, [item, unseen])
    assert (message.header.frame_id, message.header.stamp.sec) == ("left", 5)
    first, second = message.objects
    assert (first.id, second.id) == (7, 8)
    assert first.pose.pose.position.z == 10
    assert first.pose.pose.orientation.w == pytest.approx(1)
    assert first.pose.covariance[0] == 0.01
    assert (first.size.x, first.velocity.twist.linear.z) == (2, 10)
    assert first.velocity.covariance[14] == 0.04
    assert (first.time_to_collision, second.time_to_collision) == (2.5, np.inf)
    assert (first.box.x_offset, first.box.width, second.box.width) == (10, 10, 0)


def test_markers_have_a_box_an_arrow_and_a_text_for_each_object(scene_flow, item):
    markers = motion_messages.object_markers_message(scene_flow, [item]).markers
    delete, box, arrow, text = markers
    assert delete.action == Marker.DELETEALL
    assert {m.id for m in (box, arrow, text)} == {7}
    assert (box.type, box.scale.x, box.scale.z) == (Marker.CUBE, 2, 0.1)
    start, end = arrow.points
    assert (start.z, end.z) == (10, 15)
    assert text.text == "7: 10.0 m/s"
    assert text.pose.position.y < item.position[1]
    assert len(motion_messages.object_markers_message(scene_flow, []).markers) == 1


def test_odometry_and_transform(scene_flow):
    pose = Odometry().update(scene_flow)
    message = motion_messages.odometry_message(pose, scene_flow, "map")
    assert (message.header.frame_id, message.child_frame_id) == ("map", "left")
    assert message.twist.twist.linear.z == pytest.approx(10)
    assert message.twist.covariance[14] == pytest.approx(1e-4 / 0.01)
    pytest.importorskip("tf2_msgs")
    transform = motion_messages.transform_message(pose, scene_flow).transforms[0]
    assert (transform.header.frame_id, transform.child_frame_id) == ("odom", "left")


def test_an_estimate_is_the_same_after_its_message(scene_flow):
    for sent in (
        scene_flow,
        replace(scene_flow, ego_motion=EgoMotion(reason="no texture"), motion_mask=None),
        replace(scene_flow, ego_motion=None, disparity_confidence=None),
    ):
        got = scene_flow_from_message(scene_flow_message(sent, "classical"))
        for name in ("disparity_confidence", "flow_confidence", "motion_mask"):
            assert np.array_equal(getattr(got, name), getattr(sent, name)), name
        if sent.ego_motion is None:
            assert got.ego_motion is None
            continue
        assert got.ego_motion.reason == sent.ego_motion.reason
        assert np.array_equal(got.ego_motion.transform, sent.ego_motion.transform)
        assert np.array_equal(got.ego_motion.covariance, sent.ego_motion.covariance)
        assert got.ego_motion.static_fraction == sent.ego_motion.static_fraction


@pytest.mark.parametrize("create", ["stand-in", "installed"])
def test_a_cloud_is_made_alike_by_both(create, scene_flow, monkeypatch):
    if create == "installed":
        pytest.importorskip("sensor_msgs_py.point_cloud2")
    else:
        monkeypatch.setattr(distro, "create_cloud", lambda: distro.unorganized_cloud)
    cloud = motion_messages.static_points_message(scene_flow)
    assert (cloud.point_step, cloud.row_step, cloud.height) == (12, 12 * cloud.width, 1)
    assert np.isfinite(points(cloud)).all()
