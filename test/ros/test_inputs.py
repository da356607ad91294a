"""The input topics of the running node: bad, lost and late messages, and quality of service."""

from __future__ import annotations

import array
import math
import re
import time
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_fixtures import (
    CLASSICAL,
    FLOW,
    float_image,
    stamp_of,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dwarf_ros.recordings import camera_messages
from dwarf_ros.ros import messages


def truncate(frame: dict) -> None:
    frame["left/image_rect"].data = frame["left/image_rect"].data[:-100]


def shrink_step(frame: dict) -> None:
    frame["right/image_rect"].step = 160


def unknown_encoding(frame: dict) -> None:
    frame["left/image_rect"].encoding = "yuv999"


def no_baseline(frame: dict) -> None:
    frame["right/camera_info"].p[3] = 0.0


def swapped(frame: dict) -> None:
    frame["left/camera_info"], frame["right/camera_info"] = (
        frame["right/camera_info"],
        frame["left/camera_info"],
    )


def not_a_number(frame: dict) -> None:
    frame["left/camera_info"].p[0] = math.nan


def other_size(frame: dict) -> None:
    image = np.zeros((48, 80, 3), np.uint8)
    stamp = stamp_of(frame["right/image_rect"])
    frame["right/image_rect"] = messages.image_message(image, stamp, "camera")


def test_bad_input_is_one_error_line_and_good_input_is_estimated_again(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    for spoil, line in (
        (truncate, "left/image_rect: data has 45980 bytes, expected 46080 bytes"),
        (shrink_step, "right/image_rect: row step is 160 bytes, expected at least 480 bytes"),
        (unknown_encoding, "left/image_rect: encoding is 'yuv999', expected one of"),
        (no_baseline, "right/camera_info: camera: baseline is 0 m, expected > 0"),
        (swapped, "right/camera_info: camera: baseline is -0.5 m, expected > 0"),
        (not_a_number, "left projection matrix holds a number that is not finite"),
        (other_size, "left images are 160 x 96 px but right images: 80 x 48 px"),
    ):
        rig.feed_until(lambda line=line: line in process.log(), spoil)
        rig.spin(0.3)
        flows.clear()
        rig.feed_until(lambda: flows)
    assert "Traceback" not in process.log()
    assert process.stop() == 0
    counts = process.counts()
    assert counts["failed"] >= 3
    assert 2 * counts["accepted"] == sum(counts.values())


def test_equal_stamps_and_time_jumping_back_and_forward_do_not_stop_it(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    for _ in range(5):
        frame = rig.next_frame()
        for message in frame.values():
            message.header.stamp = messages.stamp_from_ns(0)
        rig.publish(frame)
        rig.spin(0.05)
    rig.feed_until(lambda: flows)
    before = stamp_of(flows[-1])
    rig.frames = -1000
    rig.feed_until(lambda: "time of the left images jumped back" in process.log())
    (jump,) = (line for line in process.log().splitlines() if "left images jumped back" in line)
    # As at every turn of a loop.
    assert "[INFO]" in jump
    rig.feed_until(lambda: stamp_of(flows[-1]) < before)
    rig.frames += 2000
    rig.feed_until(
        lambda: re.search(r"\d s between two frames, more than 1 s: restarting", process.log())
    )
    rig.feed_until(lambda: stamp_of(flows[-1]) > before)
    assert process.stop() == 0
    assert "duplicate stamp" in process.log()


def test_it_says_which_topics_are_missing(start_node, rig):
    process = start_node(*CLASSICAL)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.node.destroy_publisher(rig.publishers.pop("right/image_rect"))
    rig.connect()
    for _ in range(3):
        frame = rig.next_frame()
        del frame["right/image_rect"], frame["right/camera_info"]
        rig.publish(frame)
        rig.spin(0.1)
    end = time.monotonic() + 20
    while "no stereo pairs" not in process.log() and time.monotonic() < end:
        frame = rig.next_frame()
        rig.publish({"left/image_rect": frame["left/image_rect"]})
        rig.spin(0.2)
    process.wait_for_log(
        r"no stereo pairs: nothing on /right/image_rect \(no publisher\), "
        r"/right/camera_info \(1 publisher\(s\), check QoS\)\n"
    )
    rig.wait_for(lambda: any("no stereo pairs" in s.status[0].message for s in statuses))
    assert statuses[-1].status[0].level == DiagnosticStatus.WARN


def test_stamps_that_never_agree_are_named(start_node, rig):
    process = start_node(*CLASSICAL, "-p", "sync_tolerance_s:=0.0")
    rig.connect()
    end = time.monotonic() + 20
    while "no stereo pairs" not in process.log() and time.monotonic() < end:
        frame = rig.next_frame()
        frame["right/image_rect"].header.stamp.nanosec += 7_000_000
        rig.publish(frame)
        rig.spin(0.1)
    process.wait_for_log("stamps of left and right differ by 7.000 ms, more than sync_tolerance_s")


def test_quality_of_service_that_is_none_is_an_error_and_the_node_goes_on(start_node, rig):
    policy = "qos_overrides./left/image_rect.subscription.reliability:=perhaps"
    process = start_node(*CLASSICAL, "-p", policy, active=False)
    process.wait_for_log(r"\[ERROR\].*not activated: .*`perhaps`")
    assert rig.transition("cleanup")
    assert process.stop() == 0


def test_a_camera_that_dies_changes_and_comes_back_is_followed(start_node, rig):
    """Right camera silent, then another encoding, then another size with its calibration, then as before."""
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(lambda: flows)

    def right_is_dead(frame: dict) -> None:
        del frame["right/image_rect"]

    rig.feed_until(
        lambda: re.search(
            r"nothing on /right/image_rect \(1 publisher\(s\), silent for \d+ s\)", process.log()
        ),
        right_is_dead,
    )
    rig.wait_for(lambda: statuses[-1].status[0].level == DiagnosticStatus.WARN)
    flows.clear()
    rig.feed_until(lambda: flows)

    def grey(frame: dict) -> None:
        for topic in ("left/image_rect", "right/image_rect"):
            rgb = camera_messages.image_from_message(frame[topic])
            frame[topic] = messages.image_message(
                np.ascontiguousarray(rgb[..., 1]), stamp_of(frame[topic]), "camera"
            )

    flows.clear()
    rig.feed_until(lambda: len(flows) >= 2, grey)

    def halved(frame: dict) -> None:
        for side in ("left", "right"):
            info, topic = frame[f"{side}/camera_info"], f"{side}/image_rect"
            info.roi.width, info.roi.height = 128, 80
            rgb = camera_messages.image_from_message(frame[topic])[:80, :128]
            frame[topic] = messages.image_message(
                np.ascontiguousarray(rgb), stamp_of(frame[topic]), "camera"
            )

    rig.feed_until(lambda: flows[-1].width == 128, halved)
    rig.feed_until(lambda: flows[-1].width == 160)
    assert process.stop() == 0
    assert "Traceback" not in process.log()
    counts = process.counts()
    assert 2 * counts["accepted"] == sum(counts.values())


def test_a_calibration_that_comes_late_is_waited_for_and_missed(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    start_s = time.monotonic()

    def uncalibrated(frame: dict) -> None:
        del frame["left/camera_info"], frame["right/camera_info"]

    rig.feed_until(lambda: time.monotonic() - start_s > 3, uncalibrated)
    assert not flows
    assert re.search(r"nothing on /left/camera_info \(.*\), /right/camera_info \(", process.log())
    rig.feed_until(lambda: flows)
    assert process.stop() == 0


def test_quality_of_service_that_does_not_match_is_named(start_node, rig):
    from rclpy.qos import qos_profile_sensor_data

    policy = "qos_overrides./left/image_rect.subscription.reliability:=reliable"
    process = start_node(*CLASSICAL, "-p", policy)
    rig.node.destroy_publisher(rig.publishers["left/image_rect"])
    rig.publishers["left/image_rect"] = rig.node.create_publisher(
        Image, "left/image_rect", qos_profile_sensor_data
    )
    rig.feed_until(
        lambda: (
            "nothing on /left/image_rect (1 publisher(s), QoS does not match: reliability)"
            in process.log()
        )
    )
    assert "set qos_overrides./left/image_rect.subscription.reliability" in process.log()


def test_images_that_are_lost_on_their_way_are_named(start_node, rig):
    process = start_node(*CLASSICAL)
    rig.connect()

    def lose_half(frame: dict) -> None:
        side = "left" if rig.frames % 2 else "right"
        del frame[f"{side}/image_rect"]

    rig.feed_until(lambda: "large images are being lost, see" in process.log(), lose_half)


@pytest.mark.parametrize(
    ("reliability", "durability"),
    [("RELIABLE", "TRANSIENT_LOCAL"), ("RELIABLE", "VOLATILE"), ("BEST_EFFORT", "VOLATILE")],
)
def test_camera_info_is_received_with_the_best_quality_that_is_offered(
    start_node, rig, reliability, durability
):
    qos = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy[reliability],
        durability=DurabilityPolicy[durability],
    )
    infos = ("left/camera_info", "right/camera_info")
    for topic in infos:
        rig.node.destroy_publisher(rig.publishers[topic])
        rig.publishers[topic] = rig.node.create_publisher(CameraInfo, topic, qos)
    latched = durability == "TRANSIENT_LOCAL"
    if latched:
        frame = rig.next_frame()
        rig.publish({topic: frame[topic] for topic in infos})
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()

    def without_infos(frame: dict) -> None:
        for topic in infos if latched else ():
            del frame[topic]

    rig.feed_until(lambda: flows, without_infos)

    def received_with(topic: str) -> list[tuple[str, str]]:
        ends = rig.node.get_subscriptions_info_by_topic(f"/{topic}")
        return [(e.qos_profile.reliability.name, e.qos_profile.durability.name) for e in ends]

    for topic in infos:
        rig.wait_for(lambda topic=topic: received_with(topic) == [(reliability, durability)])
    assert process.stop() == 0
    assert "does not offer" not in process.log()


def test_reliable_images_are_requested_by_a_parameter(start_node, rig):
    start_node(*CLASSICAL, "-p", "reliable:=true")
    for topic in ("/left/image_rect", "/right/image_rect"):
        (end,) = rig.node.get_subscriptions_info_by_topic(topic)
        assert end.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)


def test_stamps_that_stand_still_are_named(start_node, rig):
    process = start_node(*CLASSICAL)
    rig.connect()

    def stand_still(frame: dict) -> None:
        for message in frame.values():
            message.header.stamp = messages.stamp_from_ns(0)

    rig.feed_until(
        lambda: re.search(r"do not pair \(\d+ duplicate stamp\)", process.log()), stand_still
    )


def test_compressed_images_are_estimated_and_damaged_ones_reported(start_node, rig):
    process = start_node(
        *CLASSICAL, "-p", "image_transport:=compressed", "-r", "left/image_rect:=eye"
    )
    assert "waiting for /eye/compressed" in process.log()
    flows = rig.listen("flow", Image)
    for topic, name in (("left/image_rect", "eye"), ("right/image_rect", "right/image_rect")):
        rig.node.destroy_publisher(rig.publishers[topic])
        rig.publishers[topic] = rig.node.create_publisher(CompressedImage, f"{name}/compressed", 10)
    rig.connect()

    def compress(frame: dict, damage: int = 0) -> None:
        for topic in ("left/image_rect", "right/image_rect"):
            bgr = camera_messages.image_from_message(frame[topic])[..., ::-1]
            file = cv2.imencode(".png", np.ascontiguousarray(bgr))[1].tobytes()
            message = CompressedImage(header=frame[topic].header, format="rgb8; png compressed")
            message.data = array.array("B", file[: len(file) - damage])
            frame[topic] = message

    rig.feed_until(lambda: flows, compress)
    assert np.nanmedian(float_image(flows[-1])[..., 0]) == pytest.approx(-FLOW, abs=0.1)
    rig.feed_until(
        lambda: "/compressed: data has 20 bytes and no image size" in process.log(),
        lambda frame: (compress(frame), [cut(m) for m in frame.values()]),
    )
    flows.clear()
    rig.feed_until(lambda: flows, compress)
    assert process.stop() == 0
    assert "Traceback" not in process.log()


def cut(message: Any) -> None:
    if isinstance(message, CompressedImage):
        message.data = message.data[:20]


def test_topics_of_another_name_are_pointed_out(start_node, rig):
    process = start_node(*CLASSICAL)
    while rig.publishers:
        rig.node.destroy_publisher(rig.publishers.popitem()[1])
    for topic in ("left/image_rect", "right/image_rect"):
        rig.node.create_publisher(Image, f"/stereo/{topic}", 10)
    process.wait_for_log(
        r"/left/image_rect \(no publisher; found /stereo/left/image_rect, /stereo/right/image_rect\)"
    )
    assert process.stop() == 0
