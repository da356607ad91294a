"""Records what the node publishes in a bag, and counts what arrived."""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.files import write_atomically
from dwarf_ros.geometry import disparity_from_depth
from dwarf_ros.recordings.bag.estimates import ESTIMATE_TOPIC
from dwarf_ros.recordings.bag.storage import (
    MESSAGE_TYPES,
    Storage,
    register_scene_flow,
    typestore,
)
from dwarf_ros.recordings.bag.write import MessageEncoder, add_topic, bag_writer
from dwarf_ros.recordings.camera_messages import camera_from_messages
from dwarf_ros.recordings.scene_flow_messages import SCENE_FLOW_TYPE, scene_flow_definition
from dwarf_ros.signals import stop_requests
from dwarf_ros.types import InputError, SceneFlow

SUMMARY = "summary.json"
READY = "recording"

_DIAGNOSTICS_TYPE = "diagnostic_msgs/msg/DiagnosticArray"
# Messages in memory: those waiting for the disk; and estimates of which a topic is still missing.
_WAITING_FOR_DISK = 16
_INCOMPLETE = 8

_log = logging.getLogger(__name__)


def read_summary(folder: Path) -> dict[str, Any]:
    """What the recorder wrote at its end, see `Recorder.summary`.

    Raises:
        InputError: there is no summary, or it is not JSON.
    """
    file = folder / SUMMARY
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: {error}, expected the recorder's summary") from None


class BagRecorder:
    """A new bag, written by a thread of its own.

    Args:
        folder: of the bag; it does not exist, or is empty.
        topics: type of each topic, by its absolute name.

    Raises:
        InputError: the folder has files in it, or cannot be created.
    """

    def __init__(self, folder: Path, topics: dict[str, str]) -> None:
        self.folder = folder
        self.store = typestore()
        register_scene_flow(self.store, scene_flow_definition())
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
            if folder.exists():
                raise InputError(f"{folder}: exists already, expected a new or an empty folder")
            self._writer = bag_writer(folder)
            self._writer.open()
        except OSError as error:
            raise InputError(f"{folder}: {error.strerror}, expected a folder to write to") from None
        self._connections = {
            topic: add_topic(self._writer, self.store, topic, kind)
            for topic, kind in topics.items()
        }
        self.error: OSError | None = None
        self._queue: queue.Queue[tuple[str, int, bytes | memoryview] | None]
        self._queue = queue.Queue(_WAITING_FOR_DISK)
        self._thread = threading.Thread(target=self._write, name="writer")
        self._thread.start()

    def add(self, topic: str, time_ns: int, message: bytes | memoryview) -> None:
        """Write a serialized message; waits while the disk is too slow."""
        self._queue.put((topic, time_ns, message))

    def close(self) -> None:
        """Write what is waiting, and finish the bag; `error` says what went wrong, if anything did."""
        self._queue.put(None)
        self._thread.join()
        try:
            if self.error is None:
                self._writer.close()
        except OSError as error:
            self.error = error
        if self.error is not None:
            with contextlib.suppress(OSError):
                self._writer.storage.abort()

    def written(self, topic: str) -> int:
        """How many messages of a topic the finished bag holds."""
        try:
            storage = Storage(self.folder)
        except InputError:
            return 0
        count = storage.counts.get(topic, 0)
        storage.close()
        return count

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            topic, time_ns, message = item
            if self.error is not None:
                continue
            try:
                self._writer.write(self._connections[topic], time_ns, message)
            except OSError as error:
                _log.error("%s: %s", self.folder, error.strerror)
                self.error = error


class Recorder:
    """Subscribes to the node's topics and records its estimates, camera_info and diagnostics.

    Where the message dwarf_ros/SceneFlow is built, `estimate` is recorded as it comes. Elsewhere it is put together from
    `disparity`, `flow` and `scene_flow`; the other frame's stamp is then that of the neighboring camera_info.

    Args:
        node: the rclpy node to subscribe with, in the namespace of the node to record.
        folder: of the bag, as for `BagRecorder`.
        reference: the recorded node's parameter of this name, needed only without dwarf_ros/SceneFlow.

    Raises:
        InputError: as `BagRecorder`.
    """

    def __init__(self, node: Any, folder: Path, reference: str = "previous") -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
        from sensor_msgs.msg import CameraInfo

        from dwarf_ros.ros import messages

        self.reference = reference
        self.received = 0
        self.diagnosed = 0
        self.skipped: dict[str, int] = {}
        self.diagnostics: dict[str, dict[str, Any]] = {}
        self.last_activity: float | None = None
        self._first_received: int | None = None
        self._last_received: int | None = None
        self._infos: dict[str, Any] = {}
        self._frame_stamps: deque[int] = deque(maxlen=4096)
        self._incomplete: dict[int, dict[str, Any]] = {}
        info_topics = {s: node.resolve_topic_name(f"{s}/camera_info") for s in ("left", "right")}
        self._estimate_topic = node.resolve_topic_name(ESTIMATE_TOPIC)
        self.bag = BagRecorder(
            folder,
            {
                self._estimate_topic: SCENE_FLOW_TYPE,
                **dict.fromkeys(info_topics.values(), MESSAGE_TYPES["camera_info"]),
                "/diagnostics": _DIAGNOSTICS_TYPE,
            },
        )
        self._encoder = MessageEncoder(self.bag.store, "")
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        for side, topic in info_topics.items():
            node.create_subscription(
                CameraInfo,
                topic,
                lambda raw, side=side, topic=topic: self._on_camera_info(side, topic, raw),
                qos_profile_sensor_data,
                raw=True,
            )
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, reliable, raw=True
        )
        try:
            message_type = messages.own_message_type("SceneFlow")
        except InputError:
            from sensor_msgs.msg import Image, PointCloud2
            from stereo_msgs.msg import DisparityImage

            self.topics = {
                "disparity": DisparityImage,
                "flow": Image,
                "scene_flow": PointCloud2,
            }
            for topic, message_type in self.topics.items():
                node.create_subscription(message_type, topic, self._part_handler(topic), reliable)
        else:
            self.topics = {ESTIMATE_TOPIC: message_type}
            node.create_subscription(
                message_type, self._estimate_topic, self._on_estimate, reliable, raw=True
            )

    def idle_s(self) -> float:
        """Seconds since an estimate or a camera_info arrived; 0 before the first."""
        return 0.0 if self.last_activity is None else time.monotonic() - self.last_activity

    def close(self) -> int:
        """Finish the bag; the number of estimates in it."""
        self.bag.close()
        return self.bag.written(self._estimate_topic)

    def summary(self, written: int, ended_by: str) -> dict[str, Any]:
        """What happened: estimates written, frames seen, reasons of skipped estimates, wall times, and the last diagnostics
        by name.
        """
        return {
            "answers": written,
            "frames": len(set(self._frame_stamps)),
            "skipped": self.skipped,
            "first_received": self._first_received,
            "last_received": self._last_received,
            "topics": sorted(self.topics),
            "ended_by": ended_by,
            "diagnostics": self.diagnostics,
        }

    def _on_camera_info(self, side: str, topic: str, raw: bytes) -> None:
        from rclpy.serialization import deserialize_message
        from sensor_msgs.msg import CameraInfo

        from dwarf_ros.ros.messages import ns_from_stamp

        self.bag.add(topic, time.time_ns(), raw)
        self.last_activity = time.monotonic()
        message = self._infos[side] = deserialize_message(raw, CameraInfo)
        if side == "left":
            self._frame_stamps.append(ns_from_stamp(message.header.stamp))

    def _on_diagnostics(self, raw: bytes) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.serialization import deserialize_message

        self.bag.add("/diagnostics", time.time_ns(), raw)
        self.diagnosed = self.received
        for status in deserialize_message(raw, DiagnosticArray).status:
            level = status.level
            self.diagnostics[status.name] = {
                "level": level[0] if isinstance(level, bytes) else int(level),
                "message": status.message,
                "values": {value.key: value.value for value in status.values},
            }

    def _on_estimate(self, raw: bytes) -> None:
        self._accept(time.time_ns(), raw)

    def _part_handler(self, topic: str) -> Callable[[Any], None]:
        from dwarf_ros.ros.messages import ns_from_stamp

        def handle(message: Any) -> None:
            received = time.time_ns()
            stamp = ns_from_stamp(message.header.stamp)
            parts = self._incomplete.setdefault(stamp, {})
            parts[topic] = message
            if len(parts) < len(self.topics):
                while len(self._incomplete) > _INCOMPLETE:
                    self._incomplete.pop(next(iter(self._incomplete)))
                    self._skip("a topic is missing")
                return
            del self._incomplete[stamp]
            try:
                scene_flow = self._assembled(stamp, parts)
            except InputError as error:
                self._skip(str(error))
                return
            self._accept(received, self._encoder.scene_flow(scene_flow, ""))

        return handle

    def _assembled(self, stamp: int, parts: dict[str, Any]) -> SceneFlow:
        """Scene flow of the three topics: disparity as sent, the next one from the points' velocities."""
        from dwarf_ros.ros.distro import bridge

        if len(self._infos) < 2:
            raise InputError("camera_info: none yet, expected one of each camera")
        camera = camera_from_messages(self._infos["left"], self._infos["right"])
        dt = (self._neighbor(stamp) - stamp) * 1e-9
        disparity = bridge().imgmsg_to_cv2(parts["disparity"].image)
        unknown = np.float32(np.nan)
        disparity = np.where(
            disparity >= parts["disparity"].min_disparity,
            disparity + np.float32(camera.cx - camera.cx_right),
            unknown,
        )
        cloud = parts["scene_flow"]
        cells = np.frombuffer(cloud.data, dtype=np.float32)
        cells = cells.reshape(cloud.height, cloud.width, cloud.point_step // 4)
        column = {field.name: field.offset // 4 for field in cloud.fields}
        depth_next = cells[..., column["z"]] + cells[..., column["vz"]] * np.float32(dt)
        with np.errstate(divide="ignore", invalid="ignore"):
            disparity_next = disparity_from_depth(depth_next, camera).astype(np.float32)
        flow = bridge().imgmsg_to_cv2(parts["flow"])
        valid = np.isfinite(disparity) & np.isfinite(disparity_next) & np.isfinite(flow).all(-1)
        return SceneFlow(
            disparity=disparity.astype(np.float32),
            disparity_next=disparity_next,
            flow=flow,
            valid=valid,
            stamp=stamp,
            dt=dt,
            camera=camera,
            frame_id=cloud.header.frame_id,
        )

    def _neighbor(self, stamp: int) -> int:
        """Stamp of the frame after the reference, or before it where the reference is the newer one."""
        stamps = sorted(set(self._frame_stamps))
        index = (
            bisect_left(stamps, stamp) - 1
            if self.reference == "current"
            else bisect_right(stamps, stamp)
        )
        if not 0 <= index < len(stamps):
            raise InputError(f"camera_info: none beside the frame at {stamp} ns")
        return stamps[index]

    def _accept(self, received: int, message: bytes | memoryview) -> None:
        self.last_activity = time.monotonic()
        self._last_received = received
        if self._first_received is None:
            self._first_received = received
        self.received += 1
        self.bag.add(self._estimate_topic, received, message)

    def _skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        _log.warning("an estimate is left out: %s", reason)


def record(
    folder: Path,
    *,
    expected: int | None = None,
    idle_timeout_s: float | None = None,
    reference: str = "previous",
    ros_arguments: list[str] | None = None,
) -> int:
    """Record until SIGINT, SIGTERM or SIGHUP, or until `expected` estimates and diagnostics after them came, or nothing came
    for `idle_timeout_s` after the first.

    The folder becomes a rosbag2 bag (MCAP) with `estimate`, left and right camera_info and /diagnostics, timed by their
    reception, and summary.json. Prints one line (`READY` and the topics) when it is subscribed, and one at its end.

    Returns:
        0.

    Raises:
        InputError: rclpy is not there, the folder cannot be created or has files in it, a number is not positive, or not all
            estimates could be written.
    """
    if expected is not None and expected < 1:
        raise InputError(f"expected: {expected} estimates, expected at least 1")
    if idle_timeout_s is not None and not idle_timeout_s > 0:
        raise InputError(f"idle_timeout_s: {idle_timeout_s:g} s, expected > 0 s")
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()
    import rclpy
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    with stop_requests() as stop:
        rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = Node("dwarf_recorder")
        recorder, written, ended_by = None, 0, ""
        try:
            recorder = Recorder(node, folder, reference)
            print(f"{READY} {', '.join(recorder.topics)} to {folder}", flush=True)
            while not ended_by:
                rclpy.spin_once(node, timeout_sec=0.1)
                if stop.is_set():
                    ended_by = "signal"
                elif recorder.bag.error is not None:
                    ended_by = "error"
                elif expected is not None and recorder.diagnosed >= expected:
                    ended_by = "expected count"
                elif idle_timeout_s is not None and recorder.idle_s() > idle_timeout_s:
                    ended_by = "idle timeout"
        finally:
            if recorder is not None:
                written = recorder.close()
            node.destroy_node()
            rclpy.try_shutdown()
    if (error := recorder.bag.error) is not None:
        raise InputError(
            f"{folder}: {written} estimates written, {recorder.received - written} lost: {error.strerror or error}, "
            "expected room to write to (`mcap recover` restores what is whole)"
        )
    summary = json.dumps(recorder.summary(written, ended_by), indent=2) + "\n"
    write_atomically(folder / SUMMARY, summary.encode())
    print(f"{written} estimates in {folder}, ended by {ended_by}", flush=True)
    return 0
