"""The live node: stereo images in, scene flow out; a lifecycle node whose estimator runs in a thread of its own."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
import rclpy.utilities
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from stereo_msgs.msg import DisparityImage

from dwarf_ros.estimators import Estimator, load_estimator
from dwarf_ros.ros import distro, messages
from dwarf_ros.ros.diagnostics import (
    BUSY,
    NO_SUBSCRIBER,
    STOPPED,
    Statistics,
    diagnostics_message,
    values_of,
)
from dwarf_ros.ros.synchronizer import ConsecutivePairs, StereoPair, Synchronizer
from dwarf_ros.types import InputError, SceneFlow, StereoFrame

INPUT_TOPICS = {
    "left/image_rect": Image,
    "left/camera_info": CameraInfo,
    "right/image_rect": Image,
    "right/camera_info": CameraInfo,
}
# After this time without a new pair the node says what is missing.
STALLED_S = 3.0
REPEATED_LINE_S = 5.0


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of the node: its default, what it does, and what it may be."""

    default: Any
    description: str
    between: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    # "live": at once; "configure": refused unless the node is unconfigured; "start": read-only.
    changes: str = "live"


PARAMETERS = {
    "estimator": ParameterSpec(
        "auto",
        "Estimator: auto, dwarf, dwarf_lite or classical; auto takes dwarf_lite if weights for it are installed, else classical.",
        changes="configure",
    ),
    "engine": ParameterSpec(
        "auto",
        "What runs the network: auto (the fastest that is installed), tensorflow or openvino.",
        changes="configure",
    ),
    "weights": ParameterSpec(
        "",
        "Weights file of the network (.safetensors); empty: the file that is installed with the package.",
        changes="configure",
    ),
    "reference": ParameterSpec(
        "current",
        "Frame that the answer is for: current (the newest) or previous (the one before, as in KITTI).",
        choices=("current", "previous"),
    ),
    "sync_tolerance_s": ParameterSpec(
        0.01,
        "Largest difference between the stamps of a left and a right image, s; 0: equal stamps only. "
        "It is held below half the time between two frames.",
        between=(0.0, 1.0),
    ),
    "queue_size": ParameterSpec(
        10,
        "How many images of each camera wait for their partner.",
        between=(1, 1000),
        changes="configure",
    ),
    "max_frame_gap_s": ParameterSpec(
        1.0,
        "Frames farther apart in time than this are not compared, s.",
        between=(0.001, 3600.0),
    ),
    "max_depth_m": ParameterSpec(
        200.0,
        "Points farther away are left out of depth and scene_flow, m.",
        between=(0.1, 100000.0),
    ),
    "min_disparity": ParameterSpec(
        0.5,
        "Smaller disparities are invalid in disparity, depth and scene_flow, px.",
        between=(0.01, 1000.0),
    ),
    "frame_id": ParameterSpec(
        "",
        "Frame of what is published; empty: that of the left images.",
    ),
    "autostart": ParameterSpec(
        True,
        "Configure and activate when the node starts; false: wait for lifecycle transitions.",
        changes="start",
    ),
}


@dataclass(frozen=True)
class Answer:
    """What a publisher may encode from."""

    scene_flow: SceneFlow
    left: np.ndarray
    max_depth_m: float
    min_disparity: float
    estimator: str


# Topic, type and encoding of everything that is published for a pair, apart from `estimate`.
OUTPUTS: dict[str, tuple[Any, Callable[[Answer], Any]]] = {
    "disparity": (
        DisparityImage,
        lambda a: messages.disparity_message(a.scene_flow, a.min_disparity),
    ),
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
}


@dataclass(frozen=True, eq=False)
class Work:
    """A pair of stereo pairs for the worker, and when its last image came (monotonic clock, s)."""

    pairs: ConsecutivePairs[Image]
    arrived_s: float


class Mailbox:
    """Room for one piece of work: a new one replaces the one that nobody took yet."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._work: Work | None = None
        self._closed = False

    def put(self, work: Work) -> bool:
        """Leave work; True if it replaced another."""
        with self._condition:
            replaced = self._work is not None
            self._work = work
            self._condition.notify()
            return replaced

    def take(self) -> Work | None:
        """Wait for work; None once the box is closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._work is not None or self._closed)
            work, self._work = self._work, None
            return None if self._closed else work

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
        self._synchronizer: Synchronizer[Image] = Synchronizer()
        self._infos: dict[str, CameraInfo] = {}
        self._subscribers: dict[str, Any] = {}
        self._publishers_by_topic: dict[str, tuple[Any, Callable[[Answer], Any]]] = {}
        self._mailbox = Mailbox()
        self._worker: threading.Thread | None = None
        self._decoded: tuple[StereoPair[Image], StereoFrame] | None = None
        self._received_s: dict[str, float] = {}
        self._accepted_seen = 0
        self._progress_s = time.monotonic()
        self._logged: dict[str, tuple[str, float]] = {}

        self.add_on_set_parameters_callback(self._check_parameters)
        for name, spec in PARAMETERS.items():
            try:
                self.declare_parameter(name, spec.default, _descriptor(spec))
            except ParameterException as error:
                raise InputError(f"parameter {name}: {' '.join(str(error).split())}") from None

        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # A steady clock: with use_sim_time and no /clock, diagnostics are needed most.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the estimator; FAILURE with one ERROR line if that is not possible."""
        name, engine, weights = (self._parameter(key) for key in ("estimator", "engine", "weights"))
        try:
            self._estimator = load_estimator(name, weights or None, engine)
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
        self._progress_s = time.monotonic()
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
        self._stop(1.0)
        computing = self._worker is not None and self._worker.is_alive()
        if computing:
            self.statistics.drop(STOPPED)
        self.get_logger().info(self.statistics.summary(self._synchronizer.drops))
        if computing:
            # The interpreter cannot be taken down beneath a thread that computes.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        self.destroy_node()

    def _subscribe(self) -> None:
        callbacks: dict[str, Callable[[Any], None]] = {
            "left/image_rect": self._on_left,
            "left/camera_info": lambda info: self._on_camera_info("left/camera_info", info),
            "right/image_rect": self._on_right,
            "right/camera_info": lambda info: self._on_camera_info("right/camera_info", info),
        }
        for topic, message_type in INPUT_TOPICS.items():
            subscriber = distro.subscriber_class()(
                self,
                message_type,
                topic,
                qos_profile=qos_profile_sensor_data,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            subscriber.registerCallback(callbacks[topic])
            self._subscribers[topic] = subscriber

    def _create_publishers(self) -> None:
        outputs = dict(OUTPUTS)
        try:
            outputs["estimate"] = (
                messages.scene_flow_type(),
                lambda a: messages.scene_flow_message(a.scene_flow, a.estimator),
            )
        except InputError as error:
            self.get_logger().warning(f"no topic estimate: {error}")
        for topic, (message_type, encode) in outputs.items():
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

    def _release(self) -> None:
        self._estimator = None
        for publisher, _ in self._publishers_by_topic.values():
            self.destroy_lifecycle_publisher(publisher)
        self._publishers_by_topic.clear()

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _resolved(self, topic: str) -> str:
        return self.resolve_topic_name(topic)

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

    def _on_left(self, message: Image) -> None:
        self._on_image("left/image_rect", message, self._synchronizer.add_left)

    def _on_right(self, message: Image) -> None:
        self._on_image("right/image_rect", message, self._synchronizer.add_right)

    def _on_image(self, topic: str, message: Image, add: Callable[..., Any]) -> None:
        self._received_s[topic] = time.monotonic()
        self._synchronizer.tolerance_s = self._parameter("sync_tolerance_s")
        self._synchronizer.max_frame_gap_s = self._parameter("max_frame_gap_s")
        pairs = add(
            messages.ns_from_stamp(message.header.stamp), (message.width, message.height), message
        )
        while self._synchronizer.notices:
            cause, line = self._synchronizer.notices.popleft()
            self._warn(cause, line)
        if pairs is not None:
            self.statistics.accept()
            if self._mailbox.put(Work(pairs, time.monotonic())):
                self.statistics.drop(BUSY)

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
            self.get_logger().error(f"{error}; waiting for a calibration that can be used")
        else:
            self._synchronizer.set_camera(camera)

    def _work(self) -> None:
        while (work := self._mailbox.take()) is not None:
            try:
                if self._answer(work.pairs):
                    self.statistics.answer(time.monotonic() - work.arrived_s)
                else:
                    self.statistics.drop(NO_SUBSCRIBER)
            except Exception as error:  # whatever an estimator does, the next pair is tried
                line = _one_line(error)
                self.statistics.fail(line)
                if self._is_news("worker", line):
                    self.get_logger().error(f"pair not answered: {line}")

    def _answer(self, pairs: ConsecutivePairs[Image]) -> bool:
        """Estimate and publish for those who listen; False if nobody does."""
        assert self._estimator is not None
        wanted = [
            (publisher, encode)
            for publisher, encode in self._publishers_by_topic.values()
            if publisher.get_subscription_count() > 0
        ]
        if not wanted:
            return False
        previous, current = self._decode(pairs.previous), self._decode(pairs.current)
        self._decoded = (pairs.current, current)
        newest_first = self._parameter("reference") == "current"
        reference, other = (current, previous) if newest_first else (previous, current)
        scene_flow = self._estimator.estimate(reference, other)
        frame_id = self._parameter("frame_id") or scene_flow.frame_id
        answer = Answer(
            dataclasses.replace(scene_flow, frame_id=frame_id),
            reference.left,
            self._parameter("max_depth_m"),
            self._parameter("min_disparity"),
            self._estimator.name,
        )
        for publisher, encode in wanted:
            publisher.publish(encode(answer))
        return True

    def _decode(self, pair: StereoPair[Image]) -> StereoFrame:
        if self._decoded is not None and self._decoded[0] is pair:
            return self._decoded[1]
        return StereoFrame(
            messages.image_from_message(pair.left, self._resolved("left/image_rect")),
            messages.image_from_message(pair.right, self._resolved("right/image_rect")),
            stamp=pair.stamp,
            camera=pair.camera,
            frame_id=pair.left.header.frame_id,
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
        """Every second: publish the diagnostics, and say what is missing if nothing comes."""
        counted = self.statistics
        if counted.accepted != self._accepted_seen or not self._subscribers:
            self._accepted_seen = counted.accepted
            self._progress_s = time.monotonic()
        stalled = ""
        if time.monotonic() - self._progress_s >= STALLED_S:
            stalled = f"no stereo pairs: {self._missing()}"
            self._warn("input", stalled)

        if self._transition_error:
            level, message = DiagnosticStatus.ERROR, self._transition_error
        elif not self._subscribers:
            level, message = DiagnosticStatus.WARN, "not active"
        elif stalled:
            level, message = DiagnosticStatus.WARN, stalled
        elif counted.failing:
            level, message = DiagnosticStatus.ERROR, f"pair not answered: {counted.last_error}"
        else:
            level, message = DiagnosticStatus.OK, "active"
        estimator = self._estimator
        values = {
            "estimator": estimator.name if estimator else "",
            "engine": estimator.engine if estimator else "",
            **values_of(counted, self._synchronizer.drops),
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
                hint = (
                    "no publisher" if publishers == 0 else f"{publishers} publisher(s), check QoS"
                )
                silent.append(f"{self._resolved(topic)} ({hint})")
        if silent:
            return f"nothing on {', '.join(silent)}"
        if self._synchronizer.camera is None:
            return f"the calibration cannot be used: {self.statistics.last_error}"
        difference_s = self._synchronizer.last_difference_s
        tolerance_s = self._parameter("sync_tolerance_s")
        if difference_s is not None and difference_s > tolerance_s:
            return (
                f"stamps of left and right differ by {difference_s * 1e3:.3f} ms, "
                f"more than sync_tolerance_s allows ({tolerance_s * 1e3:g} ms)"
            )
        unpaired = ", ".join(f"{n} {cause}" for cause, n in self._synchronizer.drops.items() if n)
        return f"images come but do not pair ({unpaired or 'one frame only'})"


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        args: ROS arguments (`--ros-args ...`); None: those of the process.

    Returns:
        0; 2 with one line on stderr if the arguments are wrong. What is wrong with an estimator or with the input is logged,
        and the node goes on.
    """
    arguments = sys.argv[1:] if args is None else args
    try:
        distro.prepare_environment()
        return _run(arguments)
    except InputError as error:
        print(f"dwarf: error: {error}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
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
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if node is not None:
            node.close()
        rclpy.try_shutdown()


def _descriptor(spec: ParameterSpec) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        description=spec.description, read_only=spec.changes == "start"
    )
    if spec.choices:
        descriptor.additional_constraints = " or ".join(spec.choices)
    if spec.between is not None:
        low, high = spec.between
        if isinstance(spec.default, int):
            descriptor.integer_range = [
                IntegerRange(from_value=int(low), to_value=int(high), step=1)
            ]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    return descriptor


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
