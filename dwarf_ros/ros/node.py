"""The live node: stereo images in, scene flow out; a lifecycle node whose estimator runs in a thread of its own."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import rclpy
import rclpy.utilities
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_policy_name_from_kind, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float64
from stereo_msgs.msg import DisparityImage
from visualization_msgs.msg import MarkerArray

from dwarf_ros.estimators import Estimator, load_estimator
from dwarf_ros.ros import distro, messages
from dwarf_ros.ros.diagnostics import (
    BUSY,
    DECODE,
    ENCODE,
    NETWORK,
    NO_SUBSCRIBER,
    QUEUE,
    SKIPPED,
    STOPPED,
    WAIT,
    WARMING_UP,
    Statistics,
    diagnostics_message,
    listed,
    resident_memory_mib,
    values_of,
)
from dwarf_ros.ros.parameters import PARAMETERS, descriptor
from dwarf_ros.ros.synchronizer import ConsecutivePairs, StereoPair, Synchronizer
from dwarf_ros.signals import INTERRUPTS, ignore_interrupts, raising_interrupts
from dwarf_ros.types import InputError, SceneFlow, StereoFrame

INPUT_TOPICS = {
    "left/image_rect": Image,
    "left/camera_info": CameraInfo,
    "right/image_rect": Image,
    "right/camera_info": CameraInfo,
}
# After this time without a new pair the node says what is missing.
STALLED_S = 2.0
REPEATED_LINE_S = 5.0
REPORT_PERIOD_S = 1.0
# From a signal until the process ends, at the latest.
EXIT_S = 1.5
UNREADABLE = "unreadable"
LATENCY_TOPIC = "debug/latency_ms"


@dataclass(frozen=True)
class Answer:
    """What a publisher may encode from."""

    scene_flow: SceneFlow
    left: np.ndarray
    max_depth_m: float
    min_disparity: float
    marker_spacing_px: int
    estimator: str
    arrived_s: float


# Topic, type and encoding of everything that is published for a pair, apart from `estimate`.
OUTPUTS: dict[str, tuple[Any, Callable[[Answer], Any]]] = {
    "disparity": (
        DisparityImage,
        lambda a: messages.disparity_message(a.scene_flow, a.min_disparity),
    ),
    "disparity_color": (Image, lambda a: messages.disparity_color_message(a.scene_flow)),
    "depth": (
        Image,
        lambda a: messages.depth_message(a.scene_flow, a.max_depth_m, a.min_disparity),
    ),
    "flow": (Image, lambda a: messages.flow_message(a.scene_flow)),
    "flow_color": (Image, lambda a: messages.flow_color_message(a.scene_flow)),
    "scene_flow": (
        PointCloud2,
        lambda a: messages.cloud_message(a.scene_flow, a.left, a.max_depth_m, a.min_disparity),
    ),
    "scene_flow_markers": (
        MarkerArray,
        lambda a: messages.markers_message(
            a.scene_flow, a.marker_spacing_px, a.max_depth_m, a.min_disparity
        ),
    ),
    # The last one, so that the others are published by then.
    LATENCY_TOPIC: (Float64, lambda a: Float64(data=(time.monotonic() - a.arrived_s) * 1e3)),
}


@dataclass(frozen=True, eq=False)
class Received:
    """An image as it came, and when (monotonic clock, s)."""

    message: Image | CompressedImage
    arrived_s: float


@dataclass(frozen=True, eq=False)
class Work:
    """A pair of stereo pairs for the worker, and when its last image came (monotonic clock, s)."""

    pairs: ConsecutivePairs[Received]
    arrived_s: float


@dataclass(frozen=True)
class WarmUp:
    """To be made ready for: images of this size, px."""

    width: int
    height: int


class Mailbox:
    """Room for one piece of work, where a new one replaces the one that nobody took yet, and for one warm-up before it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._work: Work | None = None
        self._warm_up: WarmUp | None = None
        self._closed = False

    def put(self, work: Work) -> bool:
        """Leave work; True if it replaced another."""
        with self._condition:
            replaced = self._work is not None
            self._work = work
            self._condition.notify()
            return replaced

    def put_warm_up(self, warm_up: WarmUp) -> None:
        """Leave a warm-up, which is taken before any work."""
        with self._condition:
            self._warm_up = warm_up
            self._condition.notify()

    def take(self) -> Work | WarmUp | None:
        """Wait for something to do; None once the box is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._work or self._warm_up or self._closed)
            if self._closed:
                return None
            if self._warm_up is not None:
                warm_up, self._warm_up = self._warm_up, None
                return warm_up
            work, self._work = self._work, None
            return work

    def close(self) -> bool:
        """Let whoever waits go; True if work was left."""
        with self._condition:
            left, self._work = self._work is not None, None
            self._closed = True
            self._condition.notify_all()
            return left


class DwarfNode(LifecycleNode):
    """Subscribes to a rectified stereo camera and publishes disparity, depth, optical flow and 3D motion.

    configure loads the estimator, activate subscribes and starts the worker, deactivate and cleanup undo them. Callbacks
    only queue: decoding, estimating and encoding are the worker's.
    """

    def __init__(self) -> None:
        super().__init__("dwarf")
        self.statistics = Statistics()
        self._estimator: Estimator | None = None
        self._transition_error = ""
        self._synchronizer: Synchronizer[Received] = Synchronizer()
        self._infos: dict[str, CameraInfo] = {}
        self._subscribers: dict[str, Any] = {}
        self._publishers_by_topic: dict[str, tuple[Any, Callable[[Answer], Any]]] = {}
        self._mailbox = Mailbox()
        self._worker: threading.Thread | None = None
        self._decoded: tuple[StereoPair[Received], StereoFrame] | None = None
        # Sizes that the estimator is to be made ready for, and is ready for.
        self._wanted: WarmUp | None = None
        self._warm: WarmUp | None = None
        self._received_s: dict[str, float] = {}
        self._incompatible: dict[str, str] = {}
        self._pair_number = 0
        self._accepted_seen = 0
        self._drops_seen: Counter[str] = Counter()
        self._progress_s = time.monotonic()
        self._reported: tuple[bytes, str] | None = None
        self._reported_s = -math.inf
        self._logged: dict[str, tuple[str, float]] = {}

        self.add_on_set_parameters_callback(self._check_parameters)
        for name, spec in PARAMETERS.items():
            try:
                self.declare_parameter(name, spec.default, descriptor(spec))
            except ParameterException as error:
                raise InputError(f"parameter {name}: {' '.join(str(error).split())}") from None

        self._diagnostics = self.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            10,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # A steady clock: with use_sim_time and no /clock, diagnostics are needed most.
        self.create_timer(0.1, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the estimator and warm it up; FAILURE with one ERROR line if that is not possible."""
        loading = f"configuring: loading estimator {self._parameter('estimator')}"
        self.get_logger().info(loading)
        self._publish_status(DiagnosticStatus.WARN, loading)
        try:
            self._estimator = load_estimator(
                self._parameter("estimator"),
                self._parameter("weights") or None,
                self._parameter("engine"),
                self._parameter("precision"),
                self._parameter("gpu_memory_fraction"),
            )
            self._warm_up_configured_size()
            self._create_publishers()
        except Exception as error:
            self._transition_error = f"not configured: {_one_line(error)}"
            self.get_logger().error(
                f"{self._transition_error}; set the parameters and configure again "
                f"(ros2 lifecycle set {self.get_fully_qualified_name()} configure)"
            )
            self._release()
            return TransitionCallbackReturn.FAILURE
        self._transition_error = ""
        self.get_logger().info(
            f"configured: estimator {self._estimator.name} on {self._estimator.engine}"
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker, then subscribe; FAILURE with one ERROR line if that is not possible."""
        self._synchronizer = Synchronizer(
            queue_size=self._parameter("queue_size"), drops=self._synchronizer.drops
        )
        self._infos.clear()
        self._received_s.clear()
        self._incompatible.clear()
        self._wanted = self._warm
        self._note_progress()
        self._mailbox = Mailbox()
        self._worker = threading.Thread(target=self._work, name="estimate", daemon=True)
        self._worker.start()
        try:
            self._subscribe()
        except Exception as error:  # quality of service that rclpy refuses
            self._transition_error = f"not activated: {_one_line(error)}"
            self.get_logger().error(self._transition_error)
            self._stop(None)
            return TransitionCallbackReturn.FAILURE
        self._transition_error = ""
        self.get_logger().info(
            "active: waiting for " + ", ".join(self._resolved(topic) for topic in INPUT_TOPICS)
        )
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and wait for the worker to end what it is at."""
        self._stop(None)
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let the estimator and the publishers go."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and let everything go."""
        self._stop(None)
        self._release()
        return super().on_shutdown(state)

    def close(self) -> None:
        """Stop, say what was counted, and let everything go; ends the process if an estimate does not end."""
        self._stop(EXIT_S / 2)
        computing = self._worker is not None and self._worker.is_alive()
        if computing:
            self.statistics.drop(STOPPED)
        self.get_logger().info(self.statistics.summary(self._synchronizer.drops))
        if computing:
            # The interpreter cannot be taken down beneath a thread that computes.
            _exit_at_once()
        self.destroy_node()

    def _subscribe(self) -> None:
        callbacks: dict[str, Callable[[Any], None]] = {
            "left/image_rect": self._on_left,
            "left/camera_info": lambda info: self._on_camera_info("left/camera_info", info),
            "right/image_rect": self._on_right,
            "right/camera_info": lambda info: self._on_camera_info("right/camera_info", info),
        }
        compressed = self._parameter("image_transport") == "compressed"
        for topic, message_type in INPUT_TOPICS.items():
            subscriber = distro.subscriber_class()(
                self,
                CompressedImage if compressed and message_type is Image else message_type,
                self._resolved(topic),
                qos_profile=qos_profile_sensor_data,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
                event_callbacks=SubscriptionEventCallbacks(
                    incompatible_qos=functools.partial(self._on_incompatible_qos, topic)
                ),
            )
            subscriber.registerCallback(callbacks[topic])
            self._subscribers[topic] = subscriber

    def _create_publishers(self) -> None:
        outputs: dict[str, tuple[Any, Callable[[Answer], Any]]] = {}
        try:
            outputs["estimate"] = (
                messages.scene_flow_type(),
                lambda a: messages.scene_flow_message(a.scene_flow, a.estimator),
            )
        except InputError as error:
            self.get_logger().warning(f"no topic estimate: {error}")
        for topic, (message_type, encode) in {**outputs, **OUTPUTS}.items():
            publisher = self.create_lifecycle_publisher(
                message_type,
                topic,
                QoSProfile(depth=2),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            self._publishers_by_topic[topic] = (publisher, encode)

    def _stop(self, patience_s: float | None) -> None:
        for subscriber in self._subscribers.values():
            self.destroy_subscription(subscriber.sub)
        self._subscribers.clear()
        if self._mailbox.close():
            self.statistics.drop(STOPPED)
        if self._worker is not None:
            self._worker.join(patience_s)
        self._decoded = None
        # The images that wait in it are let go.
        self._synchronizer = Synchronizer(drops=self._synchronizer.drops)

    def _release(self) -> None:
        self._estimator = None
        self._wanted = self._warm = None
        for publisher, _ in self._publishers_by_topic.values():
            self.destroy_lifecycle_publisher(publisher)
        self._publishers_by_topic.clear()

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _resolved(self, topic: str) -> str:
        """Full name of a topic, and of an input as it is subscribed to."""
        name = self.resolve_topic_name(topic)
        if INPUT_TOPICS.get(topic) is Image and self._parameter("image_transport") == "compressed":
            # As image_transport names it, also after remapping.
            name += "/compressed"
        return name

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        for parameter in changed:
            spec = PARAMETERS.get(parameter.name)
            if spec is None:
                continue
            if spec.choices and parameter.value not in spec.choices:
                return SetParametersResult(
                    successful=False,
                    reason=f"{parameter.name} is {parameter.value!r}, expected {' or '.join(spec.choices)}",
                )
            if spec.changes == "configure" and self._estimator is not None:
                return SetParametersResult(
                    successful=False,
                    reason=f"{parameter.name} is read when the node is configured: deactivate and clean up first",
                )
        return SetParametersResult(successful=True)

    def _on_left(self, message: Image | CompressedImage) -> None:
        self._on_image("left/image_rect", message, self._synchronizer.add_left)

    def _on_right(self, message: Image | CompressedImage) -> None:
        self._on_image("right/image_rect", message, self._synchronizer.add_right)

    def _on_image(
        self, topic: str, message: Image | CompressedImage, add: Callable[..., Any]
    ) -> None:
        now_s = time.monotonic()
        self._received_s[topic] = now_s
        self.statistics.tick(topic)
        try:
            size = (
                messages.compressed_image_size(message.data, self._resolved(topic))
                if isinstance(message, CompressedImage)
                else (message.width, message.height)
            )
        except InputError as error:
            self._synchronizer.drops[UNREADABLE] += 1
            self._warn(topic, str(error))
            return
        self._make_ready_for(size)
        approximate = self._parameter("approximate_sync")
        self._synchronizer.tolerance_s = self._parameter("sync_tolerance_s") if approximate else 0.0
        self._synchronizer.max_frame_gap_s = self._parameter("max_frame_gap_s")
        pairs = add(messages.ns_from_stamp(message.header.stamp), size, Received(message, now_s))
        while self._synchronizer.notices:
            cause, line = self._synchronizer.notices.popleft()
            self._warn(cause, line)
        if pairs is None:
            return
        self.statistics.accept()
        self._pair_number += 1
        if self._pair_number % self._parameter("process_every_n"):
            self.statistics.drop(SKIPPED)
        elif self._mailbox.put(Work(pairs, now_s)):
            self.statistics.drop(BUSY if self._warm == self._wanted else WARMING_UP)

    def _make_ready_for(self, size: tuple[int, int]) -> None:
        """Let the worker warm up for images of this size before it takes a pair of them, if they are what is calibrated."""
        camera, warm_up = self._synchronizer.camera, WarmUp(*size)
        if camera is not None and warm_up != self._wanted and size == (camera.width, camera.height):
            self._wanted = warm_up
            self._mailbox.put_warm_up(warm_up)

    def _on_incompatible_qos(self, topic: str, event: QoSRequestedIncompatibleQoSInfo) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        self._incompatible[topic] = policy
        name = self._resolved(topic)
        self._warn(
            f"QoS {topic}",
            f"{name}: the publisher's {policy} is not what the node asks for, so nothing comes from it; "
            f"set qos_overrides.{name}.subscription.{policy}",
        )

    def _on_camera_info(self, topic: str, message: CameraInfo) -> None:
        known = self._infos.get(topic)
        if known is not None and _same_calibration(known, message):
            return
        self._infos[topic] = message
        if len(self._infos) < 2:
            return
        left, right = "left/camera_info", "right/camera_info"
        try:
            camera = messages.camera_from_messages(
                self._infos[left], self._infos[right], self._resolved(left), self._resolved(right)
            )
        except InputError as error:
            self._synchronizer.set_camera(None)
            self.statistics.last_error = str(error)
            if self._is_news("calibration", str(error)):
                self.get_logger().error(f"{error}; waiting for a calibration that can be used")
        else:
            self._synchronizer.set_camera(camera)

    def _work(self) -> None:
        while (task := self._mailbox.take()) is not None:
            try:
                if isinstance(task, WarmUp):
                    self._warm_up(task)
                    continue
                stages_s = self._answer(task)
                if stages_s is None:
                    self.statistics.drop(NO_SUBSCRIBER)
                else:
                    self.statistics.answer(time.monotonic() - task.arrived_s, stages_s)
            except Exception as error:  # whatever an estimator does, the next pair is tried
                line = _one_line(error)
                if isinstance(task, WarmUp):
                    line = f"warm-up failed: {line}"
                    self.statistics.last_error = line
                else:
                    self.statistics.fail(line)
                    line = f"pair not answered: {line}"
                if self._is_news("worker", line):
                    self.get_logger().error(line)

    def _warm_up_configured_size(self) -> None:
        width, height = self._parameter("image_width"), self._parameter("image_height")
        if bool(width) != bool(height):
            raise InputError(
                f"image_width and image_height: {width} and {height} px, expected both or neither"
            )
        if width:
            self._warm_up(WarmUp(width, height))
            self._wanted = self._warm

    def _warm_up(self, warm_up: WarmUp) -> None:
        assert self._estimator is not None
        start_s = time.monotonic()
        try:
            self._estimator.warm_up(warm_up.width, warm_up.height)
        finally:
            self._warm = warm_up
        if (elapsed_s := time.monotonic() - start_s) > 1.0:
            self.get_logger().info(
                f"ready for images of {warm_up.width} x {warm_up.height} px after {elapsed_s:.1f} s"
            )

    def _answer(self, work: Work) -> dict[str, float] | None:
        """Estimate and publish for those who listen; the seconds that each stage took, None if nobody listens."""
        assert self._estimator is not None
        wanted = {
            topic: (publisher, encode)
            for topic, (publisher, encode) in self._publishers_by_topic.items()
            if publisher.get_subscription_count() > 0
        }
        if not wanted.keys() - {LATENCY_TOPIC}:
            return None
        pairs = work.pairs
        taken_s = time.monotonic()
        previous, current = self._decode(pairs.previous), self._decode(pairs.current)
        self._decoded = (pairs.current, current)
        decoded_s = time.monotonic()
        newest_first = self._parameter("reference") == "current"
        reference, other = (current, previous) if newest_first else (previous, current)
        scene_flow = self._estimator.estimate(reference, other)
        estimated_s = time.monotonic()
        frame_id = self._parameter("frame_id") or scene_flow.frame_id
        valid = scene_flow.valid
        if not self._parameter("occlusion_check"):
            valid = np.isfinite(scene_flow.disparity) & np.isfinite(scene_flow.disparity_next)
            valid &= np.isfinite(scene_flow.flow).all(axis=-1)
        answer = Answer(
            dataclasses.replace(scene_flow, frame_id=frame_id, valid=valid),
            reference.left,
            self._parameter("max_depth_m"),
            self._parameter("min_disparity"),
            self._parameter("marker_spacing_px"),
            self._estimator.name,
            work.arrived_s,
        )
        for publisher, encode in wanted.values():
            publisher.publish(encode(answer))
        return {
            WAIT: abs(pairs.current.left.arrived_s - pairs.current.right.arrived_s),
            QUEUE: taken_s - work.arrived_s,
            DECODE: decoded_s - taken_s,
            NETWORK: estimated_s - decoded_s,
            ENCODE: time.monotonic() - estimated_s,
        }

    def _decode(self, pair: StereoPair[Received]) -> StereoFrame:
        if self._decoded is not None and self._decoded[0] is pair:
            return self._decoded[1]

        def pixels(message: Image | CompressedImage, topic: str) -> np.ndarray:
            if isinstance(message, CompressedImage):
                return messages.image_from_compressed(message, self._resolved(topic))
            return messages.image_from_message(message, self._resolved(topic))

        return StereoFrame(
            pixels(pair.left.message, "left/image_rect"),
            pixels(pair.right.message, "right/image_rect"),
            stamp=pair.stamp,
            camera=pair.camera,
            frame_id=pair.left.message.header.frame_id,
        )

    def _warn(self, source: str, line: str) -> None:
        if self._is_news(source, line):
            self.get_logger().warning(line)

    def _is_news(self, source: str, line: str) -> bool:
        """Whether to log a line of one source: each second at most one, and the same again only after a while."""
        last_line, last_s = self._logged.get(source, ("", -math.inf))
        elapsed_s = time.monotonic() - last_s
        if elapsed_s < (REPEATED_LINE_S if line == last_line else 1.0):
            return False
        self._logged[source] = (line, time.monotonic())
        return True

    def _report(self) -> None:
        """Publish the diagnostics every second and when the status changes; say what is missing if nothing comes."""
        level, kind, message = self._status()
        if kind == "stalled":
            self._warn("input", message)
        elif kind == "dead" and self._is_news("worker", message):
            self.get_logger().error(message)
        due = time.monotonic() - self._reported_s >= REPORT_PERIOD_S
        if due or (level, kind) != self._reported:
            self._reported = (level, kind)
            self._publish_status(level, message)

    def _status(self) -> tuple[bytes, str, str]:
        """Level of DiagnosticStatus, kind of status, and one line."""
        counted = self.statistics
        if counted.accepted != self._accepted_seen or not self._subscribers:
            self._note_progress()
        if self._transition_error:
            return DiagnosticStatus.ERROR, "transition", self._transition_error
        if not self._subscribers:
            return DiagnosticStatus.WARN, "inactive", "not active"
        if self._worker is None or not self._worker.is_alive():
            return (
                DiagnosticStatus.ERROR,
                "dead",
                "the estimating thread has ended: deactivate and activate again",
            )
        if time.monotonic() - self._progress_s >= STALLED_S:
            return DiagnosticStatus.WARN, "stalled", f"no stereo pairs: {self._missing()}"
        if self._wanted is not None and self._warm != self._wanted:
            size = f"{self._wanted.width} x {self._wanted.height} px"
            return DiagnosticStatus.WARN, "warming up", f"warming up for images of {size}"
        if counted.failing:
            return DiagnosticStatus.ERROR, "failing", f"pair not answered: {counted.last_error}"
        return DiagnosticStatus.OK, "active", "active"

    def _note_progress(self) -> None:
        self._accepted_seen = self.statistics.accepted
        self._drops_seen = Counter(self._synchronizer.drops)
        self._progress_s = time.monotonic()

    def _publish_status(self, level: bytes, message: str) -> None:
        self._reported_s = time.monotonic()
        estimator, memory_mib = self._estimator, resident_memory_mib()
        values = {
            "estimator": estimator.name if estimator else "",
            "engine": estimator.engine if estimator else "",
            "weights": self._parameter("weights"),
            "precision": self._parameter("precision"),
            **values_of(self.statistics, self._synchronizer.drops),
            **{
                f"rate {topic} (Hz)": f"{self.statistics.rate_hz(topic):.1f}"
                for topic in ("left/image_rect", "right/image_rect")
            },
            "memory (MiB)": "" if memory_mib is None else f"{memory_mib:.0f}",
        }
        self._diagnostics.publish(
            diagnostics_message(
                self.get_name(), self.get_clock().now().nanoseconds, level, message, values
            )
        )

    def _missing(self) -> str:
        """Why no stereo pairs come, as far as the node can tell."""
        now_s = time.monotonic()
        silent = []
        for topic, message_type in INPUT_TOPICS.items():
            if message_type is CameraInfo:
                is_silent = topic not in self._infos
            else:
                is_silent = now_s - self._received_s.get(topic, -math.inf) >= STALLED_S
            if is_silent:
                publishers = self.count_publishers(self._resolved(topic))
                if publishers == 0:
                    hint = "no publisher"
                elif topic in self._incompatible:
                    hint = f"{publishers} publisher(s), QoS does not match: {self._incompatible[topic]}"
                else:
                    hint = f"{publishers} publisher(s), check QoS"
                silent.append(f"{self._resolved(topic)} ({hint})")
        if silent:
            return f"nothing on {', '.join(silent)}"
        if self._synchronizer.camera is None:
            return f"the calibration cannot be used: {self.statistics.last_error}"
        difference_s = self._synchronizer.last_difference_s
        tolerance_s = self._synchronizer.tolerance_s
        if difference_s is not None and difference_s > tolerance_s:
            return (
                f"stamps of left and right differ by {difference_s * 1e3:.3f} ms, "
                f"more than sync_tolerance_s and approximate_sync allow ({tolerance_s * 1e3:g} ms)"
            )
        lost = listed(self._synchronizer.drops - self._drops_seen)
        return f"images come but do not pair ({lost if lost != 'none' else 'one frame only'})"


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or SIGHUP.

    Args:
        args: ROS arguments (`--ros-args ...`); None: those of the process.

    Returns:
        0; the process itself ends, with code 0, where that takes longer than `EXIT_S` after the signal. 2 with one line on
        stderr if the arguments are wrong. What is wrong with an estimator or with the input is logged, and the node goes on.
    """
    arguments = sys.argv[1:] if args is None else args
    try:
        distro.prepare_environment()
        with raising_interrupts():
            return _run(arguments)
    except InputError as error:
        print(f"dwarf: error: {error}", file=sys.stderr)
        return 2


def _end_in_time() -> None:
    """End the process soon after SIGINT, SIGTERM or SIGHUP, whatever it is at then.

    Python itself hears of a signal only between two of its own steps, and compiling a network is one step that takes half
    a minute; taking TensorFlow down afterwards takes several seconds.
    """
    heard, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)

    def wait_and_end() -> None:
        while os.read(heard, 1)[0] not in INTERRUPTS:
            pass
        time.sleep(EXIT_S)
        _exit_at_once()

    threading.Thread(target=wait_and_end, name="end", daemon=True).start()


def _exit_at_once() -> NoReturn:
    """End the process with code 0, without taking the interpreter down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _run(arguments: list[str]) -> int:
    _end_in_time()
    node = None
    try:
        try:
            unexpected = rclpy.utilities.remove_ros_args(arguments)
            if unexpected:
                raise InputError(f"node: got {' '.join(unexpected)}, expected --ros-args ...")
            rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
            node = DwarfNode()
        except InputError:
            raise
        except Exception as error:  # rclpy has a type of its own for each kind of wrong argument
            raise InputError(f"ROS arguments: {_one_line(error)}") from None
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if (
            node.get_parameter("autostart").value
            and node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        ):
            node.trigger_activate()
        while True:
            try:
                # Python sees a signal only between calls: not longer than this.
                executor.spin_once(timeout_sec=0.1)
            except (
                Exception
            ) as error:  # a callback that fails, or a transition that is not possible
                node.get_logger().error(_one_line(error))
    except KeyboardInterrupt:
        return 0
    finally:
        ignore_interrupts()
        if node is not None:
            node.close()
        rclpy.try_shutdown()


def _same_calibration(one: CameraInfo, other: CameraInfo) -> bool:
    def numbers(info: CameraInfo) -> tuple[Any, ...]:
        # The matrix as bytes: NaN is to equal NaN here, or each message of a broken calibration would be news.
        return (
            info.p.tobytes(),
            info.width,
            info.height,
            info.binning_x,
            info.binning_y,
            info.roi,
        )

    return numbers(one) == numbers(other)


def _one_line(error: BaseException) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


if __name__ == "__main__":
    sys.exit(main())
