"""Counts add up and are reported."""

from __future__ import annotations

import mmap
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("diagnostic_msgs")

from diagnostic_msgs.msg import DiagnosticStatus

from dwarf_ros.motion.rigid import exponential
from dwarf_ros.ros.statistics import (
    BUSY,
    DECODE,
    NETWORK,
    QUEUE,
    MotionSummary,
    Statistics,
    values_of,
)
from dwarf_ros.ros.status import diagnostics_message, resident_memory_mib
from dwarf_ros.types import EgoMotion, SceneFlow


def counted() -> Statistics:
    statistics = Statistics(clock=lambda: 7.0)
    for _ in range(5):
        statistics.accept()
    for latency_s in (0.010, 0.030, 0.020):
        statistics.estimate(latency_s, {QUEUE: latency_s / 2, NETWORK: latency_s / 2})
    statistics.drop(BUSY)
    statistics.fail("left/image_rect: data has 0 bytes")
    return statistics


def test_every_accepted_pair_is_estimated_or_dropped_for_a_cause():
    statistics = counted()
    assert statistics.accepted == statistics.estimated + statistics.dropped.total()
    assert statistics.summary(Counter({"no partner": 2, "gap": 0})) == (
        "accepted 5 pairs, estimated 3, dropped 1 busy, 1 failed; not paired: 2 no partner"
    )


def test_a_failure_is_reported_until_the_next_estimate():
    statistics = counted()
    assert statistics.failing
    statistics.estimate(0.01, {})
    assert not statistics.failing
    assert statistics.last_error == "left/image_rect: data has 0 bytes"


def test_latencies_are_of_the_last_estimates_only():
    statistics = Statistics()
    assert statistics.latencies_ms() == {}
    for _ in range(1000):
        statistics.estimate(9.0, {DECODE: 9.0})
    for number in range(200):
        statistics.estimate(0.05, {DECODE: 0.001 * number})
    times_ms = statistics.latencies_ms()
    assert times_ms["latency"] == pytest.approx((50, 50))
    assert times_ms[DECODE] == pytest.approx((99.5, 189.05))


def test_rates_are_of_the_last_seconds():
    now_s = 100.0
    statistics = Statistics(clock=lambda: now_s)
    assert statistics.rate_hz("in") == 0
    for _ in range(20):
        now_s += 0.1
        statistics.accept()
    assert statistics.rate_hz("in") == pytest.approx(10)
    assert statistics.rate_hz("out") == 0
    now_s += 4.0
    assert statistics.rate_hz("in") == pytest.approx(2, abs=0.21)
    now_s += 10.0
    assert statistics.rate_hz("in") == 0


def test_memory_is_that_of_this_process():
    before = resident_memory_mib()
    assert before is not None
    # Not from the heap, which may hold as much that was let go.
    with mmap.mmap(-1, 64 << 20) as ballast:
        ballast.write(bytes(64 << 20))
        assert resident_memory_mib() > before + 30


def test_values_and_status_carry_every_count():
    values = values_of(counted(), Counter({"duplicate stamp": 4, "gap": 0}))
    assert values == {
        "accepted": 5,
        "estimated": 3,
        "dropped: busy": 1,
        "dropped: failed": 1,
        "not paired: duplicate stamp": 4,
        "rate in (Hz)": "0.0",
        "rate out (Hz)": "0.0",
        "median latency (ms)": "20.0",
        "p95 latency (ms)": "29.0",
        "median wait for partner (ms)": "",
        "p95 wait for partner (ms)": "",
        "median queue (ms)": "10.0",
        "p95 queue (ms)": "14.5",
        "median decode (ms)": "",
        "p95 decode (ms)": "",
        "median network (ms)": "10.0",
        "p95 network (ms)": "14.5",
        "median encode (ms)": "",
        "p95 encode (ms)": "",
        "static pixels (%)": "",
        "speed (m/s)": "",
        "yaw rate (deg/s)": "",
        "no ego-motion": "",
        "last error": "left/image_rect: data has 0 bytes",
    }
    message = diagnostics_message(
        "/dwarf", "/left/image_rect", 1_500_000_000, DiagnosticStatus.WARN, "slow", values
    )
    (status,) = message.status
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_000)
    assert (status.level, status.name, status.hardware_id, status.message) == (
        DiagnosticStatus.WARN,
        "/dwarf: scene flow",
        "/left/image_rect",
        "slow",
    )
    assert {v.key: v.value for v in status.values} == {k: str(v) for k, v in values.items()}


def test_before_the_first_estimate_there_is_no_latency():
    assert values_of(Statistics(), {})["median latency (ms)"] == ""


@pytest.mark.parametrize("dt", [0.1, -0.1])
def test_the_cameras_motion_is_forward_in_time(dt):
    # In 0.1 s the camera moves 1 m ahead and turns by 2 degrees to the left.
    pose = exponential(np.array([0, 0, 1, 0, np.radians(-2), 0]))
    transform = np.linalg.inv(pose) if dt > 0 else pose
    unknown = np.full((2, 2), np.nan, np.float32)
    scene_flow = SceneFlow(
        unknown,
        unknown,
        np.stack([unknown, unknown], axis=-1),
        np.zeros((2, 2), bool),
        dt=dt,
        ego_motion=EgoMotion(transform, np.eye(6), 0.9),
    )
    assert MotionSummary.of(scene_flow).values() == {
        "static pixels (%)": "90.00",
        "speed (m/s)": "10.00",
        "yaw rate (deg/s)": "20.00",
        "no ego-motion": "",
    }
    for ego_motion, reason in (
        (EgoMotion(reason="no texture"), "no texture"),
        (None, "not computed: refine is none"),
    ):
        values = MotionSummary.of(replace(scene_flow, ego_motion=ego_motion)).values()
        assert values["no ego-motion"] == reason
        assert values["speed (m/s)"] == ""
