"""Writes what the node publishes to files, one an answer, and what its diagnostics counted.

Run it as ``python -m dwarf_ros.live.recorder OUT [--expected N] [--idle-timeout S] [--reference NAME] [--ros-args ...]``.
"""

from __future__ import annotations

import json
import logging
import queue
import signal
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.files import write_atomically
from dwarf_ros.geometry import disparity_from_depth
from dwarf_ros.types import InputError, SceneFlow, StereoCamera

SUMMARY = "summary.json"
READY = "recording"

# Answers in memory: those waiting for the disk, and those of which a topic is still missing.
_WAITING_FOR_DISK = 4
_INCOMPLETE = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Recording:
    """One answer of the node.

    Attributes:
        scene_flow: what it published.
        received: wall time of reception, ns since 1970.
        estimator: name of what computed it, "" where the topics do not say.
    """

    scene_flow: SceneFlow
    received: int
    estimator: str = ""


def write_recording(folder: Path, recording: Recording) -> Path:
    """Write one answer as STAMP.npz (its reference's stamp, ns); the file appears whole or not at all."""
    scene_flow = recording.scene_flow
    camera = json.dumps(asdict(scene_flow.camera)) if scene_flow.camera else ""
    file = folder / f"{scene_flow.stamp:020d}.npz"
    partial = file.with_suffix(".part")
    with partial.open("wb") as stream:
        np.savez(
            stream,
            disparity=scene_flow.disparity,
            disparity_next=scene_flow.disparity_next,
            flow=scene_flow.flow,
            valid=scene_flow.valid,
            stamp=np.int64(scene_flow.stamp),
            other_stamp=np.int64(scene_flow.other_stamp),
            received=np.int64(recording.received),
            camera=np.array(camera),
            frame_id=np.array(scene_flow.frame_id),
            estimator=np.array(recording.estimator),
        )
    return partial.replace(file)


def read_recording(file: Path) -> Recording:
    """Read what `write_recording` wrote.

    Raises:
        InputError: the file is none of its, or damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            camera = str(arrays["camera"])
            stamp = int(arrays["stamp"])
            scene_flow = SceneFlow(
                disparity=arrays["disparity"],
                disparity_next=arrays["disparity_next"],
                flow=arrays["flow"],
                valid=arrays["valid"],
                stamp=stamp,
                dt=(int(arrays["other_stamp"]) - stamp) * 1e-9,
                camera=StereoCamera(**json.loads(camera)) if camera else None,
                frame_id=str(arrays["frame_id"]),
            )
            return Recording(scene_flow, int(arrays["received"]), str(arrays["estimator"]))
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    # numpy and zipfile report a damaged archive in several ways.
    except Exception as error:
        raise InputError(
            f"{file}: cannot be read ({error}), expected an answer that the recorder wrote"
        ) from None


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


class Recorder:
    """Subscribes to the node's topics and writes its answers.

    Where the message dwarf_ros/SceneFlow is built, each answer is one `estimate`. Elsewhere it is put together from
    `disparity`, `flow` and `scene_flow`; the other frame's stamp is then that of the neighbouring camera_info.

    Args:
        node: the rclpy node to subscribe with, in the namespace of the node to record.
        folder: where the answers go; it exists.
        reference: the recorded node's parameter of this name, needed only without dwarf_ros/SceneFlow.
    """

    def __init__(self, node: Any, folder: Path, reference: str = "previous") -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
        from sensor_msgs.msg import CameraInfo

        from dwarf_ros.ros import messages

        self.folder = folder
        self.reference = reference
        self.answers = 0
        self.diagnosed_answers = 0
        self.skipped: dict[str, int] = {}
        self.diagnostics: dict[str, dict[str, Any]] = {}
        self.last_activity: float | None = None
        self._first_received: int | None = None
        self._last_received: int | None = None
        self._infos: dict[str, Any] = {}
        self._frame_stamps: deque[int] = deque(maxlen=4096)
        self._incomplete: dict[int, dict[str, Any]] = {}
        self._queue: queue.Queue[Recording | None] = queue.Queue(_WAITING_FOR_DISK)
        self._writer = threading.Thread(target=self._write, name="writer")
        self._writer.start()
        reliable = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        for side in ("left", "right"):
            node.create_subscription(
                CameraInfo,
                f"{side}/camera_info",
                lambda message, side=side: self._on_camera_info(side, message),
                qos_profile_sensor_data,
            )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, reliable)
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
        else:
            self.topics = {"estimate": message_type}
        for topic, message_type in self.topics.items():
            handle: Callable[[Any], None] = (
                self._on_estimate if topic == "estimate" else self._part_handler(topic)
            )
            node.create_subscription(message_type, topic, handle, reliable)

    def idle_s(self) -> float:
        """Seconds since an answer or a camera_info arrived; 0 before the first."""
        return 0.0 if self.last_activity is None else time.monotonic() - self.last_activity

    def close(self) -> None:
        """Write what is waiting, and end the writing thread."""
        self._queue.put(None)
        self._writer.join()

    def summary(self, ended_by: str) -> dict[str, Any]:
        """What happened: answers, frames seen, reasons of skipped ones, wall times, and the last diagnostics by name."""
        return {
            "answers": self.answers,
            "frames": len(set(self._frame_stamps)),
            "skipped": self.skipped,
            "first_received": self._first_received,
            "last_received": self._last_received,
            "topics": sorted(self.topics),
            "ended_by": ended_by,
            "diagnostics": self.diagnostics,
        }

    def _on_camera_info(self, side: str, message: Any) -> None:
        from dwarf_ros.ros.messages import ns_from_stamp

        self.last_activity = time.monotonic()
        self._infos[side] = message
        if side == "left":
            self._frame_stamps.append(ns_from_stamp(message.header.stamp))

    def _on_diagnostics(self, message: Any) -> None:
        self.diagnosed_answers = self.answers
        for status in message.status:
            level = status.level
            self.diagnostics[status.name] = {
                "level": level[0] if isinstance(level, bytes) else int(level),
                "message": status.message,
                "values": {value.key: value.value for value in status.values},
            }

    def _on_estimate(self, message: Any) -> None:
        received = time.time_ns()
        from dwarf_ros.ros.messages import scene_flow_from_message

        try:
            scene_flow = scene_flow_from_message(message)
        except InputError as error:
            self._skip(str(error))
            return
        self._accept(Recording(scene_flow, received, message.estimator))

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
                self._accept(Recording(self._assembled(stamp, parts), received))
            except InputError as error:
                self._skip(str(error))

        return handle

    def _assembled(self, stamp: int, parts: dict[str, Any]) -> SceneFlow:
        """Scene flow of the three topics: disparity as sent, the next one from the points' velocities."""
        from dwarf_ros.recordings.camera_messages import camera_from_messages
        from dwarf_ros.ros.distro import bridge

        if len(self._infos) < 2:
            raise InputError("camera_info: none yet, expected one of each camera")
        camera = camera_from_messages(self._infos["left"], self._infos["right"])
        dt = (self._neighbour(stamp) - stamp) * 1e-9
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

    def _neighbour(self, stamp: int) -> int:
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

    def _accept(self, recording: Recording) -> None:
        self.last_activity = time.monotonic()
        self._last_received = recording.received
        if self._first_received is None:
            self._first_received = recording.received
        self.answers += 1
        self._queue.put(recording)

    def _skip(self, reason: str) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        _log.warning("an answer is left out: %s", reason)

    def _write(self) -> None:
        while (recording := self._queue.get()) is not None:
            try:
                write_recording(self.folder, recording)
            except OSError as error:
                self._skip(f"{self.folder}: {error.strerror}")


def record(
    folder: Path,
    *,
    expected: int | None = None,
    idle_timeout_s: float | None = None,
    reference: str = "previous",
    ros_arguments: list[str] | None = None,
) -> int:
    """Record until SIGINT or SIGTERM, or until `expected` answers and diagnostics after them came, or nothing came for
    `idle_timeout_s` after the first.

    Prints one line (`READY` and the topics) when it is subscribed, and writes summary.json at its end.

    Returns:
        0.

    Raises:
        InputError: rclpy is not there, the folder cannot be made, or a number is not positive.
    """
    if expected is not None and expected < 1:
        raise InputError(f"--expected: {expected} answers, expected at least 1")
    if idle_timeout_s is not None and not idle_timeout_s > 0:
        raise InputError(f"--idle-timeout: {idle_timeout_s:g} s, expected > 0 s")
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()
    import rclpy
    from rclpy.node import Node
    from rclpy.signals import SignalHandlerOptions

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror}, expected a folder to write to") from None
    told = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: told.set())
    rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = Node("dwarf_recorder")
    recorder = Recorder(node, folder, reference)
    print(f"{READY} {', '.join(recorder.topics)} to {folder}", flush=True)
    ended_by = ""
    try:
        while not ended_by:
            rclpy.spin_once(node, timeout_sec=0.1)
            if told.is_set():
                ended_by = "signal"
            elif expected is not None and recorder.diagnosed_answers >= expected:
                ended_by = "expected count"
            elif idle_timeout_s is not None and recorder.idle_s() > idle_timeout_s:
                ended_by = "idle timeout"
    finally:
        recorder.close()
        node.destroy_node()
        rclpy.try_shutdown()
    summary = json.dumps(recorder.summary(ended_by), indent=2) + "\n"
    write_atomically(folder / SUMMARY, summary.encode())
    print(f"{recorder.answers} answers in {folder}, ended by {ended_by}", flush=True)
    return 0
