"""The thread that decodes, estimates and publishes, so that the node's callbacks only queue."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dwarf_ros.estimators import Estimator
from dwarf_ros.motion.tracking import Tracker
from dwarf_ros.recordings.white_level import StreamWhiteLevel
from dwarf_ros.ros.inputs import Received, decode
from dwarf_ros.ros.log import ThrottledLog, one_line
from dwarf_ros.ros.odometry import Odometry
from dwarf_ros.ros.outputs import OBJECT_TOPICS, POSE_TOPICS, Estimate, Publishers
from dwarf_ros.ros.statistics import (
    BUSY,
    DECODE,
    ENCODE,
    NETWORK,
    NO_SUBSCRIBER,
    QUEUE,
    STOPPED,
    WAIT,
    WARMING_UP,
    MotionSummary,
    Statistics,
)
from dwarf_ros.ros.synchronizer import ConsecutivePairs, StereoPair
from dwarf_ros.types import StereoFrame, as_rgb8


@dataclass(frozen=True, eq=False)
class Job:
    """Two stereo pairs to estimate from, and when their last image arrived (monotonic clock, s)."""

    pairs: ConsecutivePairs[Received]
    arrived_s: float


@dataclass(frozen=True)
class WarmUp:
    """A request to prepare the estimator for images of this size, px."""

    width: int
    height: int


class Mailbox:
    """Holds one job, which a newer one replaces, and one warm-up, which is taken first."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._job: Job | None = None
        self._warm_up: WarmUp | None = None
        self._closed = False

    def put(self, job: Job) -> bool:
        """Leave a job; True if it replaced another."""
        with self._condition:
            replaced = self._job is not None
            self._job = job
            self._condition.notify()
            return replaced

    def put_warm_up(self, warm_up: WarmUp) -> None:
        """Leave a warm-up."""
        with self._condition:
            self._warm_up = warm_up
            self._condition.notify()

    def take(self) -> Job | WarmUp | None:
        """Wait for something to do; None once the mailbox is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._job or self._warm_up or self._closed)
            if self._closed:
                return None
            if self._warm_up is not None:
                warm_up, self._warm_up = self._warm_up, None
                return warm_up
            job, self._job = self._job, None
            return job

    def close(self) -> bool:
        """Release whoever waits; True if a job was left."""
        with self._condition:
            left, self._job = self._job is not None, None
            self._closed = True
            self._condition.notify_all()
            return left


class Worker:
    """Estimates the newest pair and publishes it, in a thread of its own between `start` and `stop`.

    Args:
        estimator: used by the thread only, apart from `warm_up` before it starts.
        publishers: where the estimates go.
        parameter: value of one of the node's parameters.
        statistics: counts what becomes of every job.
        log: receives one line per failure.
    """

    def __init__(
        self,
        estimator: Estimator,
        publishers: Publishers,
        parameter: Callable[[str], Any],
        statistics: Statistics,
        log: ThrottledLog,
    ) -> None:
        self.estimator = estimator
        self._publishers = publishers
        self._parameter = parameter
        self._statistics = statistics
        self._log = log
        self._mailbox = Mailbox()
        self._thread: threading.Thread | None = None
        self._white_level = StreamWhiteLevel()
        self._decoded: tuple[StereoPair[Received], StereoFrame] | None = None
        self._tracker, self._odometry = Tracker(), Odometry()
        # Image sizes that the estimator should be, and is, prepared for.
        self._wanted: WarmUp | None = None
        self._warm: WarmUp | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def warming_up(self) -> WarmUp | None:
        """The image size that the estimator is not prepared for yet."""
        return self._wanted if self._warm != self._wanted else None

    def start(self) -> None:
        """Start the thread."""
        self._wanted = self._warm
        self._tracker, self._odometry = Tracker(), Odometry()
        self._mailbox = Mailbox()
        self._thread = threading.Thread(target=self._run, name="estimate", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """Drop what waits and wait for the thread to finish its job, at most timeout_s, s."""
        if self._mailbox.close():
            self._statistics.drop(STOPPED)
        if self._thread is not None:
            self._thread.join(timeout_s)
        self._decoded = None

    def put(self, pairs: ConsecutivePairs[Received], arrived_s: float) -> None:
        """Estimate these pairs next, instead of those that still wait."""
        if self._mailbox.put(Job(pairs, arrived_s)):
            self._statistics.drop(WARMING_UP if self.warming_up else BUSY)

    def prepare(self, width: int, height: int) -> None:
        """Warm up for images of this size, px, before the next job; does nothing if that is done or requested."""
        if (warm_up := WarmUp(width, height)) != self._wanted:
            self._wanted = warm_up
            self._mailbox.put_warm_up(warm_up)

    def warm_up(self, size: WarmUp) -> None:
        """Warm up now, in this thread.

        Raises:
            Exception: whatever the estimator raises.
        """
        start_s = time.monotonic()
        try:
            self.estimator.warm_up(size.width, size.height)
        finally:
            self._warm = size
        if (elapsed_s := time.monotonic() - start_s) > 1.0:
            self._log.logger.info(
                f"ready for images of {size.width} x {size.height} px after {elapsed_s:.1f} s"
            )

    def _run(self) -> None:
        while (task := self._mailbox.take()) is not None:
            try:
                if isinstance(task, WarmUp):
                    self.warm_up(task)
                    continue
                stages_s = self._estimate(task)
                if stages_s is None:
                    self._statistics.drop(NO_SUBSCRIBER)
                else:
                    self._statistics.estimate(time.monotonic() - task.arrived_s, stages_s)
            except Exception as error:  # whatever an estimator raises, the next pair is tried
                line = one_line(error)
                if isinstance(task, WarmUp):
                    line = self._statistics.last_error = f"warm-up failed: {line}"
                else:
                    self._statistics.fail(line)
                    line = f"pair not estimated: {line}"
                self._log.error("worker", line)

    def _estimate(self, job: Job) -> dict[str, float] | None:
        """Estimate and publish; seconds that each stage took, None without subscribers."""
        topics = self._publishers.wanted()
        if not topics:
            return None
        pairs = job.pairs
        taken_s = time.monotonic()
        previous, current = self._decode(pairs.previous), self._decode(pairs.current)
        self._decoded = (pairs.current, current)
        decoded_s = time.monotonic()
        newest_first = self._parameter("reference") == "current"
        reference, other = (current, previous) if newest_first else (previous, current)
        scene_flow = self.estimator.estimate(reference, other)
        estimated_s = time.monotonic()
        frame_id = self._parameter("frame_id") or scene_flow.frame_id
        valid = scene_flow.valid
        if not self._parameter("occlusion_check"):
            valid = np.isfinite(scene_flow.disparity) & np.isfinite(scene_flow.disparity_next)
            valid &= np.isfinite(scene_flow.flow).all(axis=-1)
        scene_flow = dataclasses.replace(scene_flow, frame_id=frame_id, valid=valid)
        estimate = Estimate(
            scene_flow,
            reference.left,
            self._parameter("max_depth_m"),
            self._parameter("min_disparity"),
            self._parameter("marker_spacing_px"),
            self._parameter("odom_frame"),
            self._parameter("velocity_frame") == "ground",
            self.estimator.name,
            job.arrived_s,
            self._tracker.update(scene_flow) if OBJECT_TOPICS & set(topics) else (),
            self._odometry.update(scene_flow) if POSE_TOPICS & set(topics) else None,
        )
        self._statistics.motion = MotionSummary.of(scene_flow)
        self._publishers.publish(topics, estimate)
        return {
            WAIT: abs(pairs.current.left.arrived_s - pairs.current.right.arrived_s),
            QUEUE: taken_s - job.arrived_s,
            DECODE: decoded_s - taken_s,
            NETWORK: estimated_s - decoded_s,
            ENCODE: time.monotonic() - estimated_s,
        }

    def _decode(self, pair: StereoPair[Received]) -> StereoFrame:
        if self._decoded is not None and self._decoded[0] is pair:
            return self._decoded[1]
        left, right = decode(pair.left), decode(pair.right)
        white = self._white_level.of(left, right)
        return StereoFrame(
            as_rgb8(left, white=white),
            as_rgb8(right, white=white),
            stamp=pair.stamp,
            camera=pair.camera,
            frame_id=pair.left.message.header.frame_id,
        )
