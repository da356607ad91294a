"""The player in a process of its own, heard over DDS."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from dwarf_ros.formats import read_image, write_image
from dwarf_ros.live.player import play
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.write import create_bag
from dwarf_ros.recordings.camera_messages import camera_from_messages, image_from_message
from dwarf_ros.ros.messages import ns_from_stamp
from dwarf_ros.types import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
MS = 1_000_000
SCRIPT = """
import json, logging, sys
from pathlib import Path
from dwarf_ros.live.player import play
logging.basicConfig(level=logging.INFO, format="%(message)s")
options = json.loads(sys.argv[1])
options["log"] = Path(options["log"]) if "log" in options else None
sys.exit(play(Path(options.pop("source")), **options))
"""


@pytest.fixture
def start(ros_environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts a player; none outlives its test."""
    processes = []

    def start_player(source: Path, **options) -> subprocess.Popen:
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, json.dumps({"source": str(source), **options})],
                env={**ros_environment, "PYTHONPATH": str(REPOSITORY)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1]

    yield start_player
    for process in processes:
        process.kill()
        process.communicate()


class Listener:
    """Hears a stereo camera's topics and /clock."""

    def __init__(self, prefix: str = "", reliability: str = "RELIABLE") -> None:
        self.received: dict[str, list] = {}
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        for topic, kind in (
            *((f"{side}/image_rect", Image) for side in ("left", "right")),
            *((f"{side}/camera_info", CameraInfo) for side in ("left", "right")),
            ("/clock", Clock),
        ):
            name = topic if topic.startswith("/") else prefix + topic
            self.received[topic] = []
            self.node.create_subscription(
                kind,
                name,
                self.received[topic].append,
                QoSProfile(depth=1000, reliability=ReliabilityPolicy[reliability]),
            )

    def listen(self, until: Callable[[], bool], timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < end, {k: len(v) for k, v in self.received.items()}
            self.executor.spin_once(timeout_sec=0.02)

    def listen_to_the_end(self, process: subprocess.Popen) -> None:
        self.listen(lambda: process.poll() is not None)
        for _ in range(30):
            self.executor.spin_once(timeout_sec=0.01)

    def stamps(self, topic: str) -> list[int]:
        return [ns_from_stamp(message.header.stamp) for message in self.received[topic]]

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def listen(ros_environment) -> Iterator[Callable[..., Listener]]:
    listeners = []

    def create(*arguments: str) -> Listener:
        listeners.append(Listener(*arguments))
        return listeners[-1]

    yield create
    for listener in listeners:
        listener.close()


def write_frames(
    root: Path, names: list[str], folders: tuple[str, str] = ("left", "right"), width: int = 32
) -> None:
    for side, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(names):
            noise = np.random.default_rng(2 * index + side)
            image = noise.integers(0, 256, (20, width, 3), dtype=np.uint8)
            write_image(root / folder / name, image)


def write_calibration(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("P2: 30 0 16 3 0 30 10 0 0 0 1 0\nP3: 30 0 16 -6 0 30 10 0 0 0 1 0\n")


@pytest.fixture
def drive(tmp_path) -> Path:
    """Four colour frames at 10 Hz, 32 x 20 px, baseline 0.3 m."""
    root = tmp_path / "drive"
    write_frames(root, [f"{i:06d}.png" for i in range(4)])
    write_calibration(root / "calib.txt")
    return root


def test_a_real_sequence_arrives_whole_and_in_order(real_data, tmp_path, start, listen):
    source = real_data("kitti_odometry")
    listener = listen()
    log = tmp_path / "log.jsonl"
    before = time.time_ns()
    process = start(source, rate_hz=20.0, log=str(log))
    listener.listen_to_the_end(process)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out.startswith("played 12 frames in ")

    stamps = listener.stamps("left/image_rect")
    assert np.diff(stamps).tolist() == [100 * MS] * 11
    assert before < stamps[0] < time.time_ns()
    for topic in ("right/image_rect", "left/camera_info", "right/camera_info"):
        assert listener.stamps(topic) == stamps
    for side, folder in (("left", "image_l"), ("right", "image_r")):
        for index, message in enumerate(listener.received[f"{side}/image_rect"]):
            assert message.encoding == "mono8"
            np.testing.assert_array_equal(
                image_from_message(message), read_image(source / folder / f"{index:06d}.png")
            )
    infos = zip(
        listener.received["left/camera_info"], listener.received["right/camera_info"], strict=True
    )
    cameras = {camera_from_messages(*pair) for pair in infos}
    assert cameras == {open_recording(source)[0].camera}
    assert cameras.pop().baseline == pytest.approx(0.5372, abs=5e-5)
    frames = {m.header.frame_id for topic in listener.received.values() for m in topic}
    assert frames == {"left_camera_optical_frame"}

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["index"], line["stamp_ns"]) for line in lines] == list(enumerate(stamps))
    assert np.all(np.diff([line["wall_ns"] for line in lines]) > 0)


def test_colour_goes_out_as_it_is_under_the_names_given(drive, start, listen):
    listener = listen("/rig/")
    arguments = ["--ros-args", "-r", "__ns:=/car", "-r", "left/image_rect:=/rig/left/image_rect"]
    arguments += ["-r", "right/image_rect:=/rig/right/image_rect"]
    listener.listen_to_the_end(start(drive, rate_hz=50.0, ros_arguments=arguments))
    assert listener.received["left/camera_info"] == []
    for side in ("left", "right"):
        messages = listener.received[f"{side}/image_rect"]
        assert [message.encoding for message in messages] == ["rgb8"] * 4
        for index, message in enumerate(messages):
            np.testing.assert_array_equal(
                image_from_message(message), read_image(drive / side / f"{index:06d}.png")
            )


def test_a_loop_repeats_the_stamps_and_the_clock_goes_with_them(drive, start, listen):
    listener = listen()
    log = drive / "log.jsonl"
    process = start(drive, loop=True, clock=True, rate_hz=20.0, log=str(log))
    listener.listen(lambda: len(listener.received["right/image_rect"]) >= 10)
    process.send_signal(signal.SIGINT)
    listener.listen_to_the_end(process)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "Traceback" not in err
    played = [json.loads(line) for line in log.read_text().splitlines()]
    assert out.startswith(f"played {len(played)} frames in ")

    stamps = [line["stamp_ns"] for line in played]
    first = stamps[0]
    assert stamps == [first + 100 * MS * (i % 4) for i in range(len(stamps))]
    assert [line["index"] for line in played] == [i % 4 for i in range(len(played))]
    heard = listener.stamps("left/image_rect")
    assert heard == stamps[: len(heard)]
    assert len(heard) >= 9

    clock = [ns_from_stamp(message.clock) for message in listener.received["/clock"]]
    clock = clock[clock.index(first) :]
    assert set(stamps) <= set(clock)
    assert min(clock) == first
    assert max(clock) == first + 300 * MS
    # Back only from the last frame to the first; forwards through the time between frames too.
    steps = np.diff(clock)
    assert set(steps[steps < 0].tolist()) == {-300 * MS}
    assert steps.max() <= 100 * MS
    assert len(set(clock)) > len(set(stamps))


def test_a_bag_is_played_as_what_it_was_made_from(drive, tmp_path, start, listen):
    create_bag(open_recording(drive), tmp_path / "bag")
    listener = listen()
    process = start(tmp_path / "bag", rate_hz=50.0)
    listener.listen_to_the_end(process)
    assert process.returncode == 0
    stamps = listener.stamps("left/camera_info")
    assert np.diff(stamps).tolist() == [100 * MS] * 3
    for side in ("left", "right"):
        messages = listener.received[f"{side}/image_rect"]
        assert len(messages) == 4
        for index, message in enumerate(messages):
            assert message.header.frame_id == "left_camera_optical_frame"
            np.testing.assert_array_equal(
                image_from_message(message), read_image(drive / side / f"{index:06d}.png")
            )
    infos = listener.received["left/camera_info"][0], listener.received["right/camera_info"][0]
    assert camera_from_messages(*infos) == open_recording(drive)[0].camera


def test_subscribers_to_sensor_data_hear_it_too(drive, start, listen):
    listener = listen("", "BEST_EFFORT")
    process = start(drive, loop=True)
    listener.listen(lambda: len(listener.received["left/image_rect"]) >= 5)
    process.send_signal(signal.SIGINT)
    listener.listen_to_the_end(process)
    assert process.returncode == 0
    first = min(listener.stamps("left/image_rect"))
    for side in ("left", "right"):
        for message in listener.received[f"{side}/image_rect"]:
            index = (ns_from_stamp(message.header.stamp) - first) // (100 * MS)
            file = drive / side / f"{index:06d}.png"
            np.testing.assert_array_equal(image_from_message(message), read_image(file))


def test_scenes_keep_apart_in_stamps_but_not_in_wall_time(tmp_path, start, listen):
    root = tmp_path / "training"
    folders = ("image_2", "image_3")
    write_frames(root, ["000001_10.png", "000001_11.png"], folders)
    write_frames(root, ["000002_10.png", "000002_11.png"], folders, width=40)
    for scene in ("000001", "000002"):
        write_calibration(root / "calib_cam_to_cam" / f"{scene}.txt")
    listener = listen()
    listener.listen_to_the_end(start(tmp_path))
    steps = np.diff(listener.stamps("left/image_rect"))
    assert steps[[0, 2]].tolist() == [100 * MS] * 2
    assert steps[1] >= 10_000 * MS
    widths = [message.width for message in listener.received["right/image_rect"]]
    assert widths == [32, 32, 40, 40]
    assert [message.width for message in listener.received["right/camera_info"]] == widths


def test_nobody_listens(drive, start):
    process = start(drive, wait_s=0.2, rate_hz=100.0)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.startswith("played 4 frames in ")
    assert "no subscriber to /left/image_rect and /right/image_rect within 0.2 s" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_waits_ends_it(drive, start, number):
    process = start(drive, wait_s=60.0)
    assert "waiting up to 60 s for a subscriber" in process.stderr.readline()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out.startswith("played 0 frames")
    assert err == ""


def test_a_damaged_frame_is_left_out_and_counted(drive, ros_environment, tmp_path, caplog, capfd):
    file = drive / "right" / "000002.png"
    file.write_bytes(file.read_bytes()[:-20])
    log = tmp_path / "log.jsonl"
    assert play(drive, rate_hz=100.0, wait_s=0.0, log=log) == 0
    assert [json.loads(line)["index"] for line in log.read_text().splitlines()] == [0, 1, 3]
    assert "played 3 frames" in (out := capfd.readouterr().out)
    assert "; 1 frames cannot be read" in out
    (warning,) = (r.message for r in caplog.records if "left out" in r.message)
    assert "frame 2 is left out: " in warning
    assert "right/000002.png: " in warning
    for file in (drive / "right").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="none of its 4 frames can be read"):
        play(drive, rate_hz=100.0, wait_s=0.0)


def test_a_full_disk_ends_the_play_in_one_line(drive, ros_environment):
    with pytest.raises(InputError, match=r"^log: /dev/full: No space left on device, expected"):
        play(drive, rate_hz=100.0, wait_s=0.0, log=Path("/dev/full"))


def test_a_bag_keeps_its_topics_unless_they_are_renamed(drive, tmp_path, start, listen):
    create_bag(open_recording(drive), tmp_path / "bag", namespace="stereo")
    for options, names in (
        ({}, "/stereo/left/image_rect and /stereo/right/image_rect"),
        ({"namespace": "/stereo"}, "/stereo/left/image_rect and /stereo/right/image_rect"),
        (
            {"ros_arguments": ["--ros-args", "-r", "/stereo/left/image_rect:=/front"]},
            "/front and /stereo/right/image_rect",
        ),
        (
            {"ros_arguments": ["--ros-args", "-r", "__ns:=/front"]},
            "/front/left/image_rect and /front/right/image_rect",
        ),
        (
            {
                "remap": {
                    "left/image_rect": "/stereo/left/image_rect",
                    "right/image_rect": "/stereo/right/image_rect",
                }
            },
            "/left/image_rect and /right/image_rect",
        ),
    ):
        process = start(tmp_path / "bag", wait_s=0.1, rate_hz=100.0, **options)
        out, err = process.communicate(timeout=30)
        assert f"for a subscriber to {names}\n" in err
        assert out.startswith("played 4 frames")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rate_hz": 0.0}, "rate_hz: 0 Hz, expected > 0 Hz"),
        ({"rate_hz": float("nan")}, "rate_hz: nan Hz, expected > 0 Hz"),
        ({"wait_s": -1.0}, "wait_s: -1 s, expected >= 0 s"),
        ({"log": Path("absent") / "log"}, "log: absent/log: No such file or directory"),
        ({"ros_arguments": ["--ros-args", "-r", "x"]}, "ROS 2: --ros-args -r x: .*remap rule"),
        ({"ros_arguments": ["--ros-args", "--what"]}, "ROS 2: --ros-args --what: "),
    ],
)
def test_what_cannot_be_played_is_one_line(drive, ros_environment, options, expected):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InputError, match=expected) as raised:
        play(drive, **options)
    assert "\n" not in str(raised.value)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_empty_folder_is_one_line(tmp_path):
    with pytest.raises(InputError, match="empty folder, expected"):
        play(tmp_path)
