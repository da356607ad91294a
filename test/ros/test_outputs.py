"""Motion through the live node: a drive gives its own path, what moves keeps its id, and a static scene has nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("dwarf_ros.msg")

from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image, PointCloud2

from dwarf_ros.recordings.bag.transforms import MAP_FROM_OPTICAL
from dwarf_ros.ros.messages import camera_info_messages, image_message, own_message_type
from dwarf_ros.synthetic.drives import ProceduralDrive

FRAMES = 6


def drive_messages(drive: ProceduralDrive, frame: int, later_ns: int = 0) -> dict[str, Any]:
    """The four messages of a frame of a drive."""
    found = drive[frame]
    stamp = found.stamp + later_ns
    infos = camera_info_messages(drive.camera, stamp, "camera")
    return {
        "left/camera_info": infos[0],
        "right/camera_info": infos[1],
        "left/image_rect": image_message(found.left, stamp, "camera"),
        "right/image_rect": image_message(found.right, stamp, "camera"),
    }


def play(rig, drive, heard, later_ns: int = 0) -> None:
    """Publish the drive frame by frame, each pair once that before it was estimated."""
    before = len(heard)
    for frame in range(FRAMES):
        rig.publish(drive_messages(drive, frame, later_ns))
        if frame:
            rig.wait_for(lambda n=before + frame: len(heard) >= n)


@pytest.fixture(scope="module")
def drive() -> ProceduralDrive:
    return ProceduralDrive(seed=3, frames=FRAMES, width=320, height=160)


def test_a_drive_gives_its_path_and_what_moves_keeps_its_id(start_node, rig, drive):
    start_node("-p", "estimator:=classical")
    odometry = rig.listen("odometry", Odometry)
    objects = rig.listen("moving_objects", own_message_type("MovingObjectArray"))
    clouds = rig.listen("moving_points", PointCloud2)
    rig.connect()
    play(rig, drive, odometry)
    rig.wait_for(lambda: len(objects) == len(clouds) == FRAMES - 1)
    for frame, message in enumerate(odometry, start=1):
        truth = MAP_FROM_OPTICAL @ np.linalg.inv(drive.poses[0]) @ drive.poses[frame]
        at = message.pose.pose.position
        travelled = np.linalg.norm(truth[:3, 3])
        error = np.linalg.norm([at.x, at.y, at.z] - truth[:3, 3])
        assert error < 0.1 + 0.05 * travelled, frame
        assert (message.header.frame_id, message.child_frame_id) == ("odom", "camera")
    assert odometry[-1].pose.covariance[0] > odometry[0].pose.covariance[0] > 0
    # A bag that is played again starts a new path.
    play(rig, drive, odometry, later_ns=-3_600_000_000_000)
    assert odometry[FRAMES - 1].pose.pose.position.x < odometry[FRAMES - 2].pose.pose.position.x


def test_a_camera_that_only_pans_past_a_wall_sees_nothing_move(start_node, rig):
    start_node("-p", "estimator:=classical")
    masks = rig.listen("motion_mask", Image)
    rig.connect()
    rig.feed_until(lambda: len(masks) >= 3)
    for mask in masks:
        assert np.mean(np.frombuffer(mask.data, np.uint8) == 255) < 0.01


def test_without_refinement_nothing_is_known_of_motion(start_node, rig):
    start_node("-p", "estimator:=classical", "-p", "refine:=none")
    masks = rig.listen("motion_mask", Image)
    odometry = rig.listen("odometry", Odometry)
    rig.connect()
    rig.feed_until(lambda: len(masks) >= 3)
    assert all(set(mask.data) == {127} for mask in masks)
    assert not odometry
