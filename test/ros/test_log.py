"""Repeated lines of the node's log."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

from dwarf_ros.ros import log


class Lines(list):
    """A logger that keeps its lines."""

    def warning(self, line: str) -> None:
        self.append(line)


def test_a_count_that_grows_is_no_news(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(log.time, "monotonic", lambda: now[0])
    lines = Lines()
    throttled = log.ThrottledLog(lines)
    for second in range(11):
        now[0] = 100.0 + second
        throttled.warn("input", f"images arrive but do not pair ({second} gap, {second * 0.5} s)")
    assert [line.split("(")[1].split()[0] for line in lines] == ["0", "5", "10"]
    now[0] += 1.0
    throttled.warn("input", "nothing on /left/image_rect (no publisher)")
    assert lines[-1].startswith("nothing on")
