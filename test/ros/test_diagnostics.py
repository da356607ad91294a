"""What is counted adds up, and is said."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("diagnostic_msgs")

from diagnostic_msgs.msg import DiagnosticStatus

from dwarf_ros.ros.diagnostics import BUSY, Statistics, diagnostics_message, values_of


def counted() -> Statistics:
    statistics = Statistics()
    for _ in range(5):
        statistics.accept()
    for latency_s in (0.010, 0.030, 0.020):
        statistics.answer(latency_s)
    statistics.drop(BUSY)
    statistics.fail("left/image_rect: data has 0 bytes")
    return statistics


def test_every_accepted_pair_is_answered_or_dropped_for_a_cause():
    statistics = counted()
    assert statistics.accepted == statistics.answered + statistics.dropped.total()
    assert statistics.summary(Counter({"no partner": 2, "gap": 0})) == (
        "accepted 5 pairs, answered 3, dropped 1 busy, 1 failed; not paired: 2 no partner"
    )


def test_a_failure_is_told_until_the_next_answer():
    statistics = counted()
    assert statistics.failing
    statistics.answer(0.01)
    assert not statistics.failing
    assert statistics.last_error == "left/image_rect: data has 0 bytes"


def test_the_median_latency_is_of_the_last_answers_only():
    statistics = Statistics()
    assert statistics.median_latency_s() is None
    for _ in range(1000):
        statistics.answer(9.0)
    for _ in range(200):
        statistics.answer(0.05)
    assert statistics.median_latency_s() == 0.05


def test_values_and_status_carry_every_count():
    values = values_of(counted(), Counter({"duplicate stamp": 4, "gap": 0}))
    assert values == {
        "accepted": 5,
        "answered": 3,
        "dropped: busy": 1,
        "dropped: failed": 1,
        "not paired: duplicate stamp": 4,
        "median latency (ms)": "20.0",
        "last error": "left/image_rect: data has 0 bytes",
    }
    message = diagnostics_message("dwarf", 1_500_000_000, DiagnosticStatus.WARN, "slow", values)
    (status,) = message.status
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 500_000_000)
    assert (status.level, status.name, status.message) == (
        DiagnosticStatus.WARN,
        "dwarf: scene flow",
        "slow",
    )
    assert {v.key: v.value for v in status.values} == {k: str(v) for k, v in values.items()}


def test_before_the_first_answer_there_is_no_latency():
    assert values_of(Statistics(), {})["median latency (ms)"] == ""
