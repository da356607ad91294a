"""The live node: stereo images in, scene flow out."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from typing import Any, NoReturn

import rclpy
import rclpy.utilities
from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions

from dwarf_ros.motion.refined import load_estimator
from dwarf_ros.ros import distro
from dwarf_ros.ros.inputs import Inputs, Received
from dwarf_ros.ros.log import ThrottledLog, one_line
from dwarf_ros.ros.outputs import Publishers
from dwarf_ros.ros.parameters import (
    PARAMETERS,
    ParameterSpec,
    descriptor,
    rejection,
    with_doubles,
)
from dwarf_ros.ros.statistics import SKIPPED, STOPPED, Statistics
from dwarf_ros.ros.status import Status
from dwarf_ros.ros.synchronizer import ConsecutivePairs
from dwarf_ros.ros.worker import WarmUp, Worker
from dwarf_ros.signals import INTERRUPTS, ignore_interrupts, raising_interrupts
from dwarf_ros.types import InputError

# From a signal until the process ends, at the latest.
EXIT_S = 1.5


class DwarfNode(LifecycleNode):
    """Subscribes to a rectified stereo camera and publishes disparity, depth, optical flow and 3D motion.

    configure loads the estimator and creates the publishers, activate subscribes and starts the worker thread, which
    decodes, estimates and encodes; deactivate and cleanup undo them.
    """

    def __init__(self) -> None:
        super().__init__("dwarf")
        self.statistics = Statistics()
        self._drops: Counter[str] = Counter()
        self._outputs: Publishers | None = None
        self._worker: Worker | None = None
        self._inputs: Inputs | None = None
        self._log = ThrottledLog(self.get_logger())

        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_pre_set_parameters_callback(with_doubles)
        for name, spec in PARAMETERS.items():
            try:
                self._declare(name, spec)
            except ParameterException as error:
                raise InputError(f"parameter {name}: {' '.join(str(error).split())}") from None

        self._reply_to_invalid_transitions()
        self._status = Status(self, self.statistics, self._drops, self._log)
        # A steady clock: with use_sim_time and no /clock, diagnostics are needed most.
        self.create_timer(0.1, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the estimator and create the publishers; FAILURE with one ERROR line if that fails."""
        loading = f"configuring: loading estimator {self._parameter('estimator')}"
        self.get_logger().info(loading)
        self._status.publish(DiagnosticStatus.WARN, loading)
        try:
            estimator = load_estimator(
                self._parameter("estimator"),
                self._parameter("weights") or None,
                self._parameter("engine"),
                self._parameter("precision"),
                self._parameter("gpu_memory_fraction"),
                self._parameter("refine"),
            )
            self._outputs = Publishers(self)
            self._worker = Worker(
                estimator, self._outputs, self._parameter, self.statistics, self._log
            )
            if size := self._configured_size():
                self._worker.warm_up(size)
        except Exception as error:
            self._release()
            again = f"ros2 lifecycle set {self.get_fully_qualified_name()} configure"
            line = f"not configured: {one_line(error)}"
            return self._failure(line, f"; set the parameters and configure again ({again})")
        self._status.transition_error = ""
        self.get_logger().info(f"configured: estimator {estimator.name} on {estimator.engine}")
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the worker, then subscribe; FAILURE with one ERROR line if that fails."""
        assert self._worker is not None
        self._worker.start()
        try:
            self._inputs = Inputs(
                self, self.statistics, self._log, self._drops, self._on_pairs, self._worker.prepare
            )
        except Exception as error:  # a quality of service that rclpy refuses
            self._worker.stop()
            return self._failure(f"not activated: {one_line(error)}")
        self._status.transition_error = ""
        self.get_logger().info("active: waiting for " + ", ".join(self._inputs.names.values()))
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and wait for the worker to finish its pair."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release the estimator and the publishers."""
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and release everything."""
        self._stop()
        self._release()
        self._status.finalized = True
        return super().on_shutdown(state)

    def close(self) -> None:
        """Stop and log all counts; ends the process if an estimate does not finish in time."""
        self._stop(EXIT_S / 2)
        computing = self._worker is not None and self._worker.alive
        if computing:
            self.statistics.drop(STOPPED)
        self.get_logger().info(self.statistics.summary(self._drops))
        if computing:
            # The interpreter cannot be taken down beneath a thread that computes.
            _exit_at_once()
        self.destroy_node()

    def _declare(self, name: str, spec: ParameterSpec) -> None:
        if isinstance(spec.default, float):
            # An integer is accepted for a double.
            dynamic = ParameterDescriptor(dynamic_typing=True)
            value = self.declare_parameter(name, spec.default, dynamic).value
            self.undeclare_parameter(name)
            if type(value) is int:
                self.declare_parameter(name, float(value), descriptor(spec), ignore_override=True)
                return
        self.declare_parameter(name, spec.default, descriptor(spec))

    def _reply_to_invalid_transitions(self) -> None:
        """Reply `success=False` to them; Jazzy's rclpy raises and sends no reply, for which clients wait forever."""
        (service,) = (s for s in self.services if s.srv_name.endswith("/change_state"))
        change_state = service.callback

        def reply(request: Any, response: Any) -> Any:
            try:
                return change_state(request, response)
            except RuntimeError as error:  # RCLError, which is not public
                self.get_logger().warning(f"transition refused: {one_line(error)}")
                response.success = False
                return response

        service.callback = reply

    def _failure(self, line: str, advice: str = "") -> TransitionCallbackReturn:
        self._status.transition_error = line
        self.get_logger().error(line + advice)
        return TransitionCallbackReturn.FAILURE

    def _stop(self, timeout_s: float | None = None) -> None:
        if self._inputs is not None:
            self._inputs.destroy()
            self._inputs = None
        if self._worker is not None:
            self._worker.stop(timeout_s)

    def _release(self) -> None:
        self._worker = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None

    def _parameter(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _check_parameters(self, changed: list[Parameter]) -> SetParametersResult:
        reason = rejection(
            changed,
            configured=self._worker is not None,
            current=lambda name: self.get_parameter_or(name).value,
        )
        return SetParametersResult(successful=not reason, reason=reason)

    def _configured_size(self) -> WarmUp | None:
        width, height = self._parameter("image_width"), self._parameter("image_height")
        if bool(width) != bool(height):
            raise InputError(
                f"image_width and image_height: {width} and {height} px, expected both or neither"
            )
        return WarmUp(width, height) if width else None

    def _on_timer(self) -> None:
        if self._inputs is not None:
            self._inputs.adapt()
        self._status.report(self._inputs, self._worker)

    def _on_pairs(self, pairs: ConsecutivePairs[Received], arrived_s: float) -> None:
        assert self._worker is not None
        self.statistics.accept()
        if self.statistics.accepted % self._parameter("process_every_n"):
            self.statistics.drop(SKIPPED)
        else:
            self._worker.put(pairs, arrived_s)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT, SIGTERM or SIGHUP.

    Args:
        args: ROS arguments (`--ros-args ...`); None: those of the process.

    Returns:
        0, at most `EXIT_S` after the signal; 2 with one line on stderr if the arguments are wrong. Faults of the estimator
        or the input are logged, and the node continues.
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
    """End the process soon after SIGINT, SIGTERM or SIGHUP, even while it is busy.

    Python handles a signal only between two bytecode instructions, and compiling a network is one call that takes half a
    minute; TensorFlow's teardown takes several seconds more.
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
            what = "ROS arguments" if arguments else "ROS 2 cannot start"
            raise InputError(f"{what}: {one_line(error)}") from None
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
                node.get_logger().error(one_line(error))
    except KeyboardInterrupt:
        return 0
    finally:
        ignore_interrupts()
        if node is not None:
            node.close()
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
