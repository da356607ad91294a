"""The worker thread: the newest pair, failing estimators and warm-ups."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_fixtures import (
    CAMERA,
    CLASSICAL,
    faulty,
    stamp_of,
    status_values,
)
from sensor_msgs.msg import Image

from dwarf_ros.ros import worker
from dwarf_ros.ros.inputs import Received
from dwarf_ros.ros.synchronizer import ConsecutivePairs, StereoPair


def test_without_subscribers_nothing_is_estimated(start_node, rig):
    process = start_node(*CLASSICAL)
    rig.connect()
    for _ in range(5):
        rig.publish(rig.next_frame())
        rig.spin(0.1)
    assert process.stop(signal.SIGTERM) == 0
    counts = process.counts()
    assert counts["estimated"] == 0
    assert counts["accepted"] == counts["no subscriber"] > 0


def test_a_burst_is_estimated_from_its_newest_frames(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    rig.spin(0.5)
    for _ in range(30):
        rig.publish(rig.next_frame())
        rig.spin(0.002)
    rig.wait_for(lambda: stamp_of(flows[-1]) == rig.stamp(rig.frames))
    stamps = [stamp_of(flow) for flow in flows]
    assert stamps == sorted(set(stamps))
    assert process.stop() == 0
    counts = process.counts()
    assert counts["estimated"] == len(flows)
    assert 2 * counts["accepted"] == sum(counts.values())


def test_the_mailbox_keeps_the_newest_and_lets_go_when_closed():
    image = Received(Image(), "left/image_rect", 0.0)
    pair = StereoPair(0, image, image, CAMERA)
    old, new = (worker.Job(ConsecutivePairs(pair, pair), float(i)) for i in range(2))
    mailbox = worker.Mailbox()
    assert not mailbox.put(old)
    assert mailbox.put(new)
    warm_up = worker.WarmUp(160, 96)
    mailbox.put_warm_up(warm_up)
    assert mailbox.take() is warm_up
    assert mailbox.take() is new
    assert not mailbox.put(old)
    assert mailbox.close()
    assert mailbox.take() is None
    assert not mailbox.close()


def test_an_estimator_that_fails_once_costs_one_pair(start_node, rig):
    fault = 'assert self.calls != 3, "out of\\n luck"'
    process = start_node(*CLASSICAL, program=faulty(fault))
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: len(flows) >= 5)
    assert "pair not estimated: AssertionError: out of luck" in process.log()
    assert process.stop() == 0
    assert process.counts()["failed"] == 1
    assert "Traceback" not in process.log()


def test_an_estimator_that_always_fails_is_an_error_state_and_one_line_now_and_then(
    start_node, rig
):
    process = start_node(*CLASSICAL, program=faulty('raise MemoryError("none left")'))
    rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(
        lambda: any(
            s.status[0].message == "pair not estimated: MemoryError: none left" for s in statuses
        )
    )
    assert statuses[-1].status[0].level == DiagnosticStatus.ERROR
    assert status_values(statuses[-1].status[0])["last error"] == "MemoryError: none left"
    assert process.stop() == 0
    counts = process.counts()
    assert counts["failed"] >= 1
    assert counts["estimated"] == 0
    assert process.log().count("pair not estimated") <= 1 + counts["failed"] // 2


def test_a_dead_thread_is_reported_and_the_node_can_be_activated_again(start_node, rig):
    fault = "self.calls == 2 and sys.exit(1)"
    process = start_node(*CLASSICAL, program=faulty(fault))
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    told = "the worker thread has ended: deactivate and activate the node"
    rig.feed_until(lambda: any(s.status[0].message == told for s in statuses))
    assert told in process.log()
    assert rig.transition("deactivate")
    assert rig.transition("activate")
    rig.connect()
    flows.clear()
    rig.feed_until(lambda: flows)
    assert process.stop() == 0


def test_while_it_warms_up_pairs_are_not_busy_and_the_newest_is_estimated_after(start_node, rig):
    process = start_node(*CLASSICAL, program=faulty(warm_up="import time; time.sleep(1.5)"))
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(lambda: flows)
    assert any(s.status[0].message == "warming up for images of 160 x 96 px" for s in statuses)
    assert process.stop() == 0
    assert process.counts()["warming up"] >= 5
    assert "ready for images of 160 x 96 px after 1.5 s" in process.log()


def test_a_size_given_is_warmed_up_when_configured(start_node, rig):
    size = ("-p", "image_width:=160", "-p", "image_height:=96")
    program = faulty(warm_up='print("warm", width, height)')
    process = start_node(*CLASSICAL, *size, program=program)
    assert "warm 160 96" in process.log()
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    assert process.log().count("warm 160 96") == 1
    half = start_node(*CLASSICAL, "-r", "__node:=half", *size[:2], active=False)
    half.wait_for_log("not configured: image_width and image_height: 160 and 0 px, expected both")


def test_a_failing_warm_up_is_reported_and_pairs_are_tried(start_node, rig):
    process = start_node(*CLASSICAL, program=faulty(warm_up='raise ValueError("no compiler")'))
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    assert "warm-up failed: ValueError: no compiler" in process.log()
