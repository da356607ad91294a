"""The viewer in the browser, live: what a running node publishes, on a time line."""

from __future__ import annotations

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.signals import raising_interrupts
from dwarf_ros.types import InputError
from dwarf_ros.viewing.results import Result
from dwarf_ros.viewing.server import LOOPBACK, PORT, Server, serving
from dwarf_ros.viewing.viewer import ResultLog, print_line, saved_recording

# Images that wait for their estimate.
_IMAGES = 64
_REMINDER_S = 5.0


class LiveView:
    """Subscribes to the node's topics and shows its estimates.

    Args:
        node: the rclpy node to subscribe with, in the namespace of the node to look at.
        log: receives the results and statistics.
    """

    def __init__(self, node: Any, log: ResultLog) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile, qos_profile_sensor_data
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import Float64

        from dwarf_ros.ros import messages

        self._log = log
        self._images: deque[Any] = deque(maxlen=_IMAGES)
        left, on_image = "left/image_rect", self._on_image
        node.create_subscription(Image, left, on_image, qos_profile_sensor_data)
        node.create_subscription(
            CompressedImage, f"{left}/compressed", on_image, qos_profile_sensor_data
        )
        # The newest estimate is enough where drawing is slower than the node.
        self.estimates = node.create_subscription(
            messages.own_message_type("SceneFlow"),
            "estimate",
            self._on_estimate,
            QoSProfile(depth=1),
        )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        node.create_subscription(Float64, "debug/latency_ms", self._on_latency, 10)

    def _on_image(self, message: Any) -> None:
        self._images.append(message)

    def _on_estimate(self, message: Any) -> None:
        from dwarf_ros.recordings.scene_flow_messages import scene_flow_from_message

        scene_flow = scene_flow_from_message(message)
        left = self._left_image(message.header.stamp)
        if left is not None and left.shape[:2] != scene_flow.valid.shape:
            left = None
        name = f"{scene_flow.stamp * 1e-9:.3f} s"
        self._log.add(Result(name, scene_flow, left, message.estimator))

    def _left_image(self, stamp: Any) -> np.ndarray | None:
        from dwarf_ros.recordings.camera_messages import image_from_compressed, image_from_message
        from dwarf_ros.recordings.white_level import white_level
        from dwarf_ros.types import as_rgb8

        for message in reversed(self._images):
            if message.header.stamp == stamp:
                raw = hasattr(message, "encoding")
                decode = image_from_message if raw else image_from_compressed
                left = decode(message, "left image")
                return as_rgb8(left, white=white_level([left]))
        return None

    def _on_latency(self, message: Any) -> None:
        self._log.add_statistics({"latency/newest (ms)": message.data})

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name.endswith(": scene flow"):
                self._log.add_statistics(_figures({v.key: v.value for v in status.values}))


def _figures(values: dict[str, str]) -> dict[str, float]:
    """What is plotted of the node's diagnostics."""
    figures = {}
    for part in ("median", "p95"):
        if values.get(f"{part} latency (ms)"):
            figures[f"latency/{part} (ms)"] = float(values[f"{part} latency (ms)"])
    for key, value in values.items():
        if key.startswith(("dropped: ", "not paired: ")):
            figures[f"drops/{key}"] = float(value)
    dropped = sum(value for key, value in figures.items() if key.startswith("drops/dropped: "))
    return {**figures, "drops/dropped: all": float(dropped)}


def view(
    namespace: str = "",
    bind: str = LOOPBACK,
    port: int = PORT,
    save: Path | None = None,
    ros_arguments: list[str] | None = None,
    say: Callable[[str], None] = print_line,
) -> int:
    """Show in browsers what a running node publishes, until SIGINT or SIGTERM.

    Args:
        namespace: of the node.
        bind: as of `dwarf_ros.viewing.viewer.view_results`.
        port: the same.
        save: file (.rrd) to write to in place of serving.
        ros_arguments: `--ros-args ...`.
        say: receives the page's address, and every few seconds that nothing comes.

    Returns:
        0.

    Raises:
        InputError: rclpy, the message dwarf_ros/SceneFlow or rerun-sdk is not there, or a port or the file cannot be used.
    """
    from dwarf_ros.ros.distro import prepare_environment

    if not re.fullmatch(r"/?([A-Za-z_]\w*(/[A-Za-z_]\w*)*)?", namespace, re.ASCII):
        raise InputError(
            f"{namespace}: no such file, and no namespace of a node, expected one such as /stereo"
        )
    prepare_environment()
    import rclpy
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("dwarf_viewer", namespace=namespace)
    name = f"live {node.get_namespace()}"
    try:
        with _recording(bind, port, save, name, say) as (recording, server):
            log = ResultLog(recording, live=True)
            live = LiveView(node, log)
            reminded_s = time.monotonic()
            with contextlib.suppress(KeyboardInterrupt):
                while server is None or server.process.poll() is None:
                    rclpy.spin_once(node, timeout_sec=0.1)
                    if not log.frames and time.monotonic() - reminded_s > _REMINDER_S:
                        reminded_s = time.monotonic()
                        topic = live.estimates.topic_name
                        publishers = node.count_publishers(topic)
                        say(f"nothing on {topic} yet ({publishers} publishers), waiting for a node")
        if save is not None:
            say(f"{save}: {log.frames} estimates")
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


@contextlib.contextmanager
def _recording(
    bind: str, port: int, save: Path | None, name: str, say: Callable[[str], None]
) -> Iterator[tuple[Any, Server | None]]:
    if save is not None:
        with raising_interrupts(), saved_recording(save, name) as recording:
            say(f"writing {save} (Ctrl-C ends)")
            yield recording, None
    else:
        with serving(bind, port) as server, server.showing(name) as recording:
            say(f"{server.address} (Ctrl-C ends)")
            yield recording, server
