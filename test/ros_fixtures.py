"""A domain for each test, the node as a process of its own, and a stereo camera to feed it."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dwarf_ros.types import StereoCamera

REPOSITORY = Path(__file__).resolve().parents[1]
CAMERA = StereoCamera(
    fx=120.0, fy=120.0, cx=80.0, cy=48.0, cx_right=80.0, baseline=0.5, width=160, height=96
)
DISPARITY = 8
FLOW = 3
PERIOD_NS = 100_000_000
# What `ros2 launch` does with a file and arguments.
LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(argument.split(":=", 1)) for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(
        PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments
    )
]))
sys.exit(service.run())
"""


CLASSICAL = ("-p", "estimator:=classical")
# The node with an estimator that does what the code before says.
FAULTY = """
import sys
from dwarf_ros.estimators.classical import ClassicalEstimator
from dwarf_ros.ros import distro
distro.prepare_environment()
from dwarf_ros.ros import node

class Faulty(ClassicalEstimator):
    calls = 0

    def estimate(self, previous, current):
        self.calls += 1
        {fault}
        return super().estimate(previous, current)

    def warm_up(self, width, height):
        {warm_up}

node.load_estimator = lambda *arguments: Faulty()
sys.exit(node.main(sys.argv[1:]))
"""


def faulty(fault: str = "pass", warm_up: str = "pass") -> tuple[str, ...]:
    return ("-c", FAULTY.format(fault=fault, warm_up=warm_up))


def status_values(status: Any) -> dict[str, str]:
    return {value.key: value.value for value in status.values}


def stamp_of(message: Any) -> int:
    from dwarf_ros.ros.messages import ns_from_stamp

    return ns_from_stamp(message.header.stamp)


def float_image(message: Any) -> np.ndarray:
    channels = {"32FC1": 1, "32FC2": 2}[message.encoding]
    assert message.step == message.width * channels * 4
    values = np.frombuffer(message.data, np.float32).reshape(message.height, message.width, -1)
    return values[..., 0] if channels == 1 else values


@pytest.fixture
def ros_environment(monkeypatch) -> Iterator[dict[str, str]]:
    """Environment with a domain that no other test on this machine has at the same time, on this machine only."""
    pytest.importorskip("rclpy")
    from dwarf_ros.ros.distro import prepare_environment

    lock, domain = reserve_domain()
    try:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
            monkeypatch.setenv(name, "")
        prepare_environment()
        yield dict(os.environ)
    finally:
        os.close(lock)


def reserve_domain() -> tuple[int, int]:
    """Descriptor that holds a lock while it is open, and the domain that it is for."""
    first = random.randrange(101)
    for offset in range(101):
        domain = 1 + (first + offset) % 101
        path = Path(tempfile.gettempdir(), f"dwarf_ros_test_domain_{domain}.lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        return lock, domain
    return pytest.fail("all domains from 1 to 101 are in use")


class NodeProcess:
    """The live node, running; its log is kept in a file."""

    def __init__(
        self,
        arguments: tuple[str, ...],
        environment: dict[str, str],
        log: Path,
        program: tuple[str, ...],
    ) -> None:
        self._log_file = log
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-u", *program, "--ros-args", *arguments],
                env={**environment, "PYTHONPATH": str(REPOSITORY)},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        return self._log_file.read_text()

    def wait_for_log(self, pattern: str, timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while not re.search(pattern, self.log()):
            assert self.process.poll() is None, f"the node ended:\n{self.log()}"
            assert time.monotonic() < end, f"no {pattern!r} in:\n{self.log()}"
            time.sleep(0.05)

    def wait_until_active(self, name: str, timeout_s: float = 30.0) -> None:
        from dwarf_ros.live.lifecycle import NodeClient

        end = time.monotonic() + timeout_s
        with NodeClient(name) as client:
            while not client.is_active():
                assert self.process.poll() is None, f"the node ended:\n{self.log()}"
                assert time.monotonic() < end, f"{name} is not active:\n{self.log()}"

    def stop(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=10)

    def counts(self) -> dict[str, int]:
        """What the last log line counted, after the node has ended."""
        found = re.search(
            r"accepted (\d+) pairs, estimated (\d+), dropped (.*); not paired", self.log()
        )
        assert found, self.log()
        dropped = {cause: int(n) for n, cause in re.findall(r"(\d+) ([a-z ]+)", found[3])}
        return {"accepted": int(found[1]), "estimated": int(found[2]), **dropped}


@pytest.fixture
def start_node(ros_environment, tmp_path) -> Iterator[Callable[..., NodeProcess]]:
    """Function that starts the live node with ROS arguments."""
    started: list[NodeProcess] = []

    def start(
        *arguments: str,
        active: bool = True,
        name: str = "/dwarf",
        program: tuple[str, ...] = ("-m", "dwarf_ros.ros.node"),
    ) -> NodeProcess:
        log = tmp_path / f"node{len(started)}.log"
        node = NodeProcess(arguments, ros_environment, log, program)
        started.append(node)
        if active:
            node.wait_until_active(name)
        return node

    yield start
    for node in started:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


class Launch:
    """Launches files of launch/ with this checkout installed as colcon would, in its own prefix."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.log_file = folder / "launch.log"
        self.prefix = folder / "prefix"
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        prefixes = [str(self.prefix), os.environ.get("AMENT_PREFIX_PATH", "")]
        self.environment = {
            **environment,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "AMENT_PREFIX_PATH": os.pathsep.join(filter(None, prefixes)),
            "ROS_LOG_DIR": str(folder),
        }
        self.install("dwarf_ros/dwarf", f'exec "{sys.executable}" -u -m dwarf_ros.cli "$@"')
        self.install("dwarf_ros/dwarf_node", f'exec "{sys.executable}" -m dwarf_ros.ros.node "$@"')

    def install(self, name: str, script: str) -> None:
        """Add an executable, PACKAGE/NAME, and its package."""
        executable = self.prefix / "lib" / name
        package = executable.parent.name
        index = self.prefix / "share/ament_index/resource_index/packages"
        for parent in (executable.parent, self.prefix / "share" / package, index):
            parent.mkdir(parents=True, exist_ok=True)
        (index / package).touch()
        executable.write_text(f"#!/bin/sh\n{script}\n")
        executable.chmod(0o755)

    def start(self, file: Path, *arguments: str) -> subprocess.Popen:
        with self.log_file.open("w") as stream:
            return subprocess.Popen(
                [sys.executable, "-c", LAUNCHER, str(file), *arguments],
                env=self.environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def log(self) -> str:
        return self.log_file.read_text()


@pytest.fixture
def launch(ros_environment, tmp_path) -> Launch:
    """Launches files of launch/ on the test's domain."""
    pytest.importorskip("launch_ros")
    return Launch(tmp_path, ros_environment)


class Rig:
    """A stereo camera before a textured wall that moves to the right, and ears for what the node says.

    Every frame has disparity DISPARITY everywhere, and the picture moves by FLOW px to the right from each to the next.
    """

    def __init__(self, namespace: str = "") -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.qos import QoSProfile
        from sensor_msgs.msg import CameraInfo, Image

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("rig", context=self.context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers = {
            topic: self.node.create_publisher(kind, topic, QoSProfile(depth=10))
            for topic, kind in {
                "left/image_rect": Image,
                "right/image_rect": Image,
                "left/camera_info": CameraInfo,
                "right/camera_info": CameraInfo,
            }.items()
        }
        self.heard: dict[str, list[Any]] = {}
        self.frames = 0
        self._texture = texture(96, 600)

    def listen(self, topic: str, message_type: Any) -> list[Any]:
        """Subscribe; the list that fills with what comes."""
        heard = self.heard.setdefault(topic, [])
        self.node.create_subscription(message_type, topic, heard.append, 10)
        return heard

    def stamp(self, frame: int) -> int:
        return 1_700_000_000_000_000_000 + frame * PERIOD_NS

    def images(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        start = 300 - FLOW * (frame % 60)
        left = self._texture[:, start : start + 160]
        right = self._texture[:, start + DISPARITY : start + DISPARITY + 160]
        return left, right

    def messages(self, frame: int) -> dict[str, Any]:
        """The four messages of a frame, to be spoilt or published."""
        from dwarf_ros.ros.messages import camera_info_messages, image_message

        left, right = self.images(frame)
        infos = camera_info_messages(CAMERA, self.stamp(frame), "camera")
        return {
            "left/camera_info": infos[0],
            "right/camera_info": infos[1],
            "left/image_rect": image_message(left, self.stamp(frame), "camera"),
            "right/image_rect": image_message(right, self.stamp(frame), "camera"),
        }

    def publish(self, messages: dict[str, Any]) -> None:
        for topic, message in messages.items():
            self.publishers[topic].publish(message)

    def next_frame(self) -> dict[str, Any]:
        self.frames += 1
        return self.messages(self.frames)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 20.0) -> None:
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, f"waited {timeout_s} s; heard {self.counts()}"
            self.executor.spin_once(timeout_sec=0.05)

    def counts(self) -> dict[str, int]:
        return {topic: len(messages) for topic, messages in self.heard.items()}

    def connect(self) -> None:
        """Wait until node and rig know of each other."""
        self.wait_for(
            lambda: (
                all(p.get_subscription_count() for p in self.publishers.values())
                and all(self.node.count_publishers(topic) for topic in self.heard)
            )
        )
        # The other side may learn of this one a little later.
        self.spin(0.3)

    def feed_until(
        self, condition: Callable[[], Any], spoil: Callable[[dict[str, Any]], Any] = lambda m: None
    ) -> None:
        """Publish frame after frame, each changed by `spoil`, until the condition holds."""
        for _ in range(100):
            messages = self.next_frame()
            spoil(messages)
            self.publish(messages)
            self.spin(0.1)
            if condition():
                return
        pytest.fail(f"fed 100 frames; heard {self.counts()}")

    def call(self, service_type: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(service_type, name)
        self.wait_for(client.service_is_ready)
        future = client.call_async(request)
        self.wait_for(future.done)
        return future.result()

    def set_parameter(self, name: str, value: Any) -> Any:
        """Set a parameter of the node; the result with `successful` and `reason`."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, "dwarf/set_parameters", request).results[0]

    def transition(self, label: str) -> bool:
        """Make a lifecycle transition of the node; whether it succeeded."""
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request()
        request.transition.label = label
        return self.call(ChangeState, "dwarf/change_state", request).success

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def rig(ros_environment) -> Iterator[Rig]:
    """A stereo camera on the test's domain."""
    rig = Rig()
    yield rig
    rig.close()


def texture(height: int, width: int) -> np.ndarray:
    """Random blobs of several sizes, uint8 RGB."""
    import cv2

    rng = np.random.default_rng(7)
    image = np.zeros((height, width, 3), np.float32)
    for sigma in (1.0, 3.0):
        noise = rng.normal(size=(height, width, 3)).astype(np.float32)
        blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
        image += blurred / blurred.std()
    return np.clip(128 + 40 * image, 0, 255).astype(np.uint8)
