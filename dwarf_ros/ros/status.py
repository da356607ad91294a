"""The node's status on /diagnostics: whether it works, and otherwise what is missing."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from dwarf_ros.ros.inputs import INPUT_TOPICS, LEFT, STALLED_S, Inputs
from dwarf_ros.ros.log import ThrottledLog
from dwarf_ros.ros.messages import stamp_from_ns
from dwarf_ros.ros.parameters import QOS_OVERRIDES
from dwarf_ros.ros.statistics import Statistics, values_of
from dwarf_ros.ros.worker import Worker

REPORT_PERIOD_S = 1.0


class Status:
    """Publishes the node's status every second, and at once when it changes.

    Args:
        node: publishes; its parameters `weights` and `precision` are part of the status.
        statistics: of the pairs.
        drops: images that did not become a pair, by cause.
        log: receives what is missing.

    Attributes:
        transition_error: why the last lifecycle transition failed, one line; empty if it did not.
        finalized: whether the node was shut down.
    """

    def __init__(
        self, node: Node, statistics: Statistics, drops: Mapping[str, int], log: ThrottledLog
    ) -> None:
        self.transition_error = ""
        self.finalized = False
        self._node = node
        self._statistics = statistics
        self._drops = drops
        self._log = log
        self._name = node.get_fully_qualified_name()
        self._hardware_id = node.resolve_topic_name(LEFT)
        self._publisher = node.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            10,
            qos_overriding_options=QOS_OVERRIDES,
        )
        self._accepted_seen = 0
        self._progress_s = time.monotonic()
        self._reported: tuple[bytes, str] | None = None
        self._reported_s = -math.inf

    def report(self, inputs: Inputs | None, worker: Worker | None) -> None:
        """Publish the status if it is due, and log what is missing; call it often.

        Args:
            inputs: None while the node is not active.
            worker: None while the node is not configured.
        """
        level, kind, message = self._assess(inputs, worker)
        if kind == "stalled" and inputs is not None and not inputs.is_settling():
            self._log.warn("input", message)
        elif kind == "dead":
            self._log.error("worker", message)
        due = time.monotonic() - self._reported_s >= REPORT_PERIOD_S
        if due or (level, kind) != self._reported:
            self._reported = (level, kind)
            self.publish(level, message, worker)

    def publish(self, level: bytes, message: str, worker: Worker | None = None) -> None:
        """Publish a level of DiagnosticStatus, one line, and all values."""
        self._reported_s = time.monotonic()
        memory_mib = resident_memory_mib()
        values = {
            "estimator": worker.estimator.name if worker else "",
            "engine": worker.estimator.engine if worker else "",
            **{name: self._node.get_parameter(name).value for name in ("weights", "precision")},
            **values_of(self._statistics, self._drops),
            **{
                f"rate {topic} (Hz)": f"{self._statistics.rate_hz(topic):.1f}"
                for topic in INPUT_TOPICS
                if topic.endswith("image_rect")
            },
            "memory (MiB)": "" if memory_mib is None else f"{memory_mib:.0f}",
        }
        now_ns = self._node.get_clock().now().nanoseconds
        self._publisher.publish(
            diagnostics_message(self._name, self._hardware_id, now_ns, level, message, values)
        )

    def _assess(self, inputs: Inputs | None, worker: Worker | None) -> tuple[bytes, str, str]:
        """Level of DiagnosticStatus, kind of status, and one line."""
        counted = self._statistics
        if inputs is None or counted.accepted != self._accepted_seen:
            self._accepted_seen = counted.accepted
            self._progress_s = time.monotonic()
            if inputs is not None:
                inputs.note_progress()
        if self.transition_error:
            return DiagnosticStatus.ERROR, "transition", self.transition_error
        if inputs is None or worker is None:
            return DiagnosticStatus.WARN, *self._inactive(worker)
        if not worker.alive:
            line = "the worker thread has ended: deactivate and activate the node"
            return DiagnosticStatus.ERROR, "dead", line
        if time.monotonic() - self._progress_s >= STALLED_S:
            return DiagnosticStatus.WARN, "stalled", f"no stereo pairs: {inputs.missing()}"
        if (size := worker.warming_up) is not None:
            line = f"warming up for images of {size.width} x {size.height} px"
            return DiagnosticStatus.WARN, "warming up", line
        if counted.failing:
            return DiagnosticStatus.ERROR, "failing", f"pair not estimated: {counted.last_error}"
        return DiagnosticStatus.OK, "active", "active"

    def _inactive(self, worker: Worker | None) -> tuple[str, str]:
        """Kind and line of a lifecycle state other than active."""
        if self.finalized:
            return "finalized", "finalized: start the node again"
        state, transition = (
            ("unconfigured", "configure") if worker is None else ("inactive", "activate")
        )
        return state, f"{state}: ros2 lifecycle set {self._name} {transition}"


def resident_memory_mib() -> float | None:
    """Resident memory of this process, MiB; None where the system does not report it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def diagnostics_message(
    node_name: str,
    hardware_id: str,
    stamp_ns: int,
    level: bytes,
    message: str,
    values: Mapping[str, object],
) -> DiagnosticArray:
    """The status of a node, by its full name, and of its camera, by the topic of its left images.

    Args:
        node_name: the node's full name, for example /stereo/dwarf.
        hardware_id: full name of the topic of the left images.
        stamp_ns: current time, ns.
        level: of DiagnosticStatus.
        message: one line.
        values: by key.
    """
    status = DiagnosticStatus(
        level=level,
        name=f"{node_name}: scene flow",
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp_from_ns(stamp_ns)
    return array
