"""Publishes a stereo recording on topics, as two cameras would."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from dwarf_ros.progress import Progress, show_progress
from dwarf_ros.recordings import Recording, open_recording
from dwarf_ros.ros.distro import prepare_environment
from dwarf_ros.ros.messages import camera_info_messages, image_message, stamp_from_ns
from dwarf_ros.signals import stop_requests
from dwarf_ros.types import InputError, StereoCamera

IMAGE_TOPICS = ("left/image_rect", "right/image_rect")
CAMERA_INFO_TOPICS = ("left/camera_info", "right/camera_info")

_log = logging.getLogger(__name__)

_FRAMES_AHEAD = 8
_KEPT_BYTES = 512 << 20
_QUEUE_DEPTH = 10
_CLOCK_PERIOD = 0.01
# A subscriber that is discovered here may not have discovered this publisher, and would miss a best-effort message.
_SETTLING_TIME = 0.5
_CAMERA_INFO_WAIT = 0.5
# Subscribers acknowledge only on Fast DDS's heartbeat, every 3 s; on one machine images arrive long before.
_DELIVERY_WAIT = 1.0

_Images = tuple[np.ndarray, np.ndarray, StereoCamera]
# The reason where the images cannot be read.
_Read = _Images | InputError


def play(
    source: Path,
    rate_hz: float | None = None,
    loop: bool = False,
    clock: bool = False,
    log: Path | None = None,
    wait_s: float = 5.0,
    namespace: str | None = None,
    remap: Mapping[str, str] | None = None,
    ros_arguments: Sequence[str] = (),
) -> int:
    """Publish a stereo recording on left/ and right/ image_rect and camera_info, until its end or a signal.

    A bag's topics keep their names, unless `remap` or the ROS arguments rename them: in a namespace, they are
    left/image_rect and its like. Images keep the colors of their
    files (mono8, mono16 or rgb8), are reliable, and have the left camera's frame in every header; left and right have the
    same stamp. A frame that cannot be read is left out, reported and counted. Stamps keep the recording's spacing, shifted so that the first frame is now.

    Args:
        source: what `open_recording` reads.
        rate_hz: frames per second of wall time; None: as the stamps are spaced, without the time between two scenes.
        loop: start again after the last frame, with the same stamps.
        clock: publish /clock, in time with the stamps.
        log: file to which a JSON line {"index", "stamp_ns", "wall_ns"} is appended for each published frame: its number in
            the recording, its header stamp and the wall time just before it was published, ns.
        namespace: of the camera in a recording of several.
        remap: topics of other names in a recording, as for `open_bag`; all are published as left/image_rect and its like.
        wait_s: longest wait for a subscriber to both image topics before the first frame, s.
        ros_arguments: arguments of ROS, from --ros-args on.

    Returns:
        0, the exit code.

    Raises:
        InputError: the source, all frames of it, the rate, the log file or the ROS arguments cannot be used.
    """
    if rate_hz is not None and not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"rate_hz: {rate_hz:g} Hz, expected > 0 Hz")
    if not (math.isfinite(wait_s) and wait_s >= 0):
        raise InputError(f"wait_s: {wait_s:g} s, expected >= 0 s")
    recording = open_recording(source, namespace, remap)
    prepare_environment()
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(stop_requests())
        read = _frame_reader(recording, loop)
        indices = range(len(recording))
        frames = _read_ahead(read, itertools.cycle(indices) if loop else indices)
        stack.enter_context(contextlib.closing(frames))
        log_file = None
        if log is not None:
            log_file = stack.enter_context(contextlib.closing(_FrameLog(log)))
        node = stack.enter_context(_node(ros_arguments))
        names = recording.topics
        if names is None or remap or node.get_namespace() != "/":
            names = (*IMAGE_TOPICS, *CAMERA_INFO_TOPICS)
        topics = _Topics(node, names, clock)
        topics.wait_for_subscribers(wait_s, stop)
        player = _Player(recording, frames, topics, rate_hz, log_file, stop)
        if loop:
            player.run(lambda done, total: None)
        else:
            with show_progress("playing") as progress:
                player.run(progress)
        if not stop.is_set():
            topics.wait_for_delivery(stop)
        player.report()
    return 0


class _FrameLog:
    """A JSON line for each published frame, appended to a file at once.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        with self._refusing():
            self._stream = file.open("ab", buffering=0)

    def add(self, index: int, stamp_ns: int, wall_ns: int) -> None:
        """Append a frame: its number in the recording, its stamp and the wall time before it was published, ns."""
        line = json.dumps({"index": index, "stamp_ns": stamp_ns, "wall_ns": wall_ns})
        with self._refusing():
            self._stream.write(f"{line}\n".encode())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"log: {self._file}: {error.strerror}, expected a file to append to"
            ) from None


@contextlib.contextmanager
def _node(ros_arguments: Sequence[str]) -> Iterator[Node]:
    context = rclpy.Context()
    try:
        rclpy.init(
            args=list(ros_arguments),
            context=context,
            signal_handler_options=rclpy.SignalHandlerOptions.NO,
        )
        # Nothing spins this node, so it must not offer services that would never answer.
        node = Node("dwarf_player", context=context, start_parameter_services=False)
    except (RuntimeError, NameValidationException) as error:
        context.try_shutdown()
        reason = " ".join(str(error).split())
        if not ros_arguments:
            raise InputError(f"ROS 2 cannot start: {reason}") from None
        raise InputError(
            f"ROS 2: {' '.join(ros_arguments)}: {reason}, expected arguments of ROS 2"
        ) from None
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


def _frame_reader(recording: Recording, loop: bool) -> Callable[[int], _Read]:
    """Function that reads a frame as mono8, mono16 or rgb8, and in a loop keeps all frames if they fit into memory."""

    def read(index: int) -> _Read:
        try:
            left, right, camera = recording.read(index)
            if left.ndim == 3:
                left, right = recording.as_rgb8(left), recording.as_rgb8(right)
        except InputError as error:
            return error
        return left, right, camera

    reads = map(read, range(len(recording)))
    first = next((images for images in reads if not isinstance(images, InputError)), None)
    if first is None:
        raise InputError(f"{recording.path}: none of its {len(recording)} frames can be read")
    fits = (first[0].nbytes + first[1].nbytes) * len(recording) <= _KEPT_BYTES
    return functools.lru_cache(len(recording))(read) if loop and fits else read


def _read_ahead(
    read: Callable[[int], _Read], indices: Iterable[int]
) -> Generator[tuple[int, _Read], None, None]:
    """Numbers and images of these frames, decoded by two threads before they are due."""
    pool = ThreadPoolExecutor(2, "read ahead")
    try:
        remaining = iter(indices)
        pending = deque(
            (i, pool.submit(read, i)) for i in itertools.islice(remaining, _FRAMES_AHEAD)
        )
        while pending:
            index, images = pending.popleft()
            pending.extend((i, pool.submit(read, i)) for i in itertools.islice(remaining, 1))
            yield index, images.result()
    finally:
        pool.shutdown(cancel_futures=True)


class _Topics:
    """The publishers and their subscribers."""

    def __init__(self, node: Node, names: Sequence[str], clock: bool) -> None:
        qos = QoSProfile(depth=_QUEUE_DEPTH)
        self.images = [node.create_publisher(Image, name, qos) for name in names[:2]]
        self.camera_infos = [node.create_publisher(CameraInfo, name, qos) for name in names[2:]]
        self.clock = node.create_publisher(Clock, "/clock", qos) if clock else None

    def tick(self, stamp_ns: int) -> None:
        """Publish /clock, if requested."""
        if self.clock is not None:
            self.clock.publish(Clock(clock=stamp_from_ns(stamp_ns)))

    def wait_for_subscribers(self, wait_s: float, stop: threading.Event) -> None:
        """Wait for a subscriber to both image topics, at most wait_s, s, so that it gets the first frames."""
        names = " and ".join(publisher.topic_name for publisher in self.images)
        _log.info("waiting up to %g s for a subscriber to %s", wait_s, names)
        if not self._matched(self.images, wait_s, stop):
            if not stop.is_set():
                _log.warning("no subscriber to %s within %g s, playing anyway", names, wait_s)
            return
        self._matched(self.camera_infos, _CAMERA_INFO_WAIT, stop)
        self._pause(_SETTLING_TIME, stop)

    def _matched(self, publishers: list[Any], wait_s: float, stop: threading.Event) -> bool:
        end = time.monotonic() + wait_s
        while not all(publisher.get_subscription_count() for publisher in publishers):
            if stop.is_set() or time.monotonic() >= end:
                return False
            self._pause(2 * _CLOCK_PERIOD, stop)
        return True

    def _pause(self, seconds: float, stop: threading.Event) -> None:
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0 and not stop.is_set():
            # A node on simulated time needs it to start.
            self.tick(time.time_ns())
            stop.wait(min(remaining, _CLOCK_PERIOD))

    def wait_for_delivery(self, stop: threading.Event) -> None:
        """Wait until the last frames have arrived; best-effort subscribers do not acknowledge and get a fixed time."""
        end = time.monotonic() + _DELIVERY_WAIT
        for publisher in (*self.camera_infos, *self.images):
            remaining = max(end - time.monotonic(), 0.0)
            publisher.wait_for_all_acked(Duration(seconds=remaining))
        stop.wait(_SETTLING_TIME)


@dataclass(frozen=True)
class _Gap:
    """Wall time, s, and difference of stamps, ns, from a frame to the one played after it; steady unless stamps jump."""

    seconds: float
    stamps_ns: int
    steady: bool


def _gaps(recording: Recording, rate_hz: float | None) -> list[_Gap]:
    """The gap after each frame; the last is to the first frame of the next loop."""
    stamps, scenes = recording.stamps, recording.scenes
    steps = [later - earlier for earlier, later in itertools.pairwise(stamps)]
    within = [
        step
        for step, (scene, next_scene) in zip(steps, itertools.pairwise(scenes), strict=True)
        if scene == next_scene
    ]
    typical = statistics.median(within) if within else 1e8
    gaps = []
    for index, step in enumerate([*steps, stamps[0] - stamps[-1]]):
        steady = index < len(steps) and scenes[index] == scenes[index + 1]
        seconds = 1.0 / rate_hz if rate_hz is not None else (step if steady else typical) * 1e-9
        gaps.append(_Gap(seconds, step, steady))
    return gaps


class _Player:
    """Publishes frames when they are due, and counts them."""

    def __init__(
        self,
        recording: Recording,
        frames: Iterator[tuple[int, _Read]],
        topics: _Topics,
        rate_hz: float | None,
        log_file: _FrameLog | None,
        stop: threading.Event,
    ) -> None:
        self._recording = recording
        self._frames = frames
        self._topics = topics
        self._gaps = _gaps(recording, rate_hz)
        self._log_file = log_file
        self._stop = stop
        self._count = 0
        self._late = 0
        self._unread: set[int] = set()
        self._first = self._last = 0.0

    def run(self, progress: Progress) -> None:
        """Play until the frames end or the stop is set."""
        offset = time.time_ns() - self._recording.stamps[0]
        due = time.monotonic()
        gap = None
        for index, images in self._frames:
            stamp = self._recording.stamps[index] + offset
            messages = self._messages_of(index, images, stamp)
            self._wait(due, gap, stamp)
            if self._stop.is_set():
                return
            if messages:
                self._publish(index, stamp, messages)
            progress(index + 1, len(self._recording))
            gap = self._gaps[index]
            due += gap.seconds
            # Too slow by a whole frame: continue from here instead of sending a burst.
            if time.monotonic() > due:
                self._late += 1
                due = time.monotonic()

    def _messages_of(self, index: int, images: _Read, stamp: int) -> list[Any]:
        if not isinstance(images, InputError):
            return _messages(images, stamp, self._recording.frame_id)
        if index not in self._unread:
            self._unread.add(index)
            _log.warning("frame %d is left out: %s", index, images)
        return []

    def _wait(self, due: float, gap: _Gap | None, stamp: int) -> None:
        """Wait until due, in s of the monotonic clock, while /clock advances to the stamp, ns."""
        while (remaining := due - time.monotonic()) > 0 and not self._stop.is_set():
            if self._topics.clock is None or gap is None or not gap.steady:
                self._stop.wait(remaining)
                continue
            fraction = min(remaining / gap.seconds, 1.0)
            self._topics.tick(stamp - round(fraction * gap.stamps_ns))
            self._stop.wait(min(remaining, _CLOCK_PERIOD))

    def _publish(self, index: int, stamp: int, messages: list[Any]) -> None:
        wall_ns = time.time_ns()
        self._topics.tick(stamp)
        publishers = (*self._topics.camera_infos, *self._topics.images)
        for publisher, message in zip(publishers, messages, strict=True):
            publisher.publish(message)
        if self._log_file is not None:
            self._log_file.add(index, stamp, wall_ns)
        self._last = time.monotonic()
        if self._count == 0:
            self._first = self._last
        self._count += 1

    def report(self) -> None:
        """Print how many frames were played, and at what rate."""
        seconds = self._last - self._first
        rate = f", {(self._count - 1) / seconds:.2f} Hz" if self._count > 1 and seconds > 0 else ""
        late = f"; fell a whole frame behind {self._late} times" if self._late else ""
        unread = f"; {len(self._unread)} frames cannot be read" if self._unread else ""
        print(f"played {self._count} frames in {seconds:.2f} s{rate}{late}{unread}", flush=True)


def _messages(images: _Images, stamp: int, frame_id: str) -> list[Any]:
    """Messages of a frame in the order in which they are published: the cameras before their images."""
    left, right, camera = images
    return [
        *camera_info_messages(camera, stamp, frame_id),
        image_message(left, stamp, frame_id),
        image_message(right, stamp, frame_id),
    ]
