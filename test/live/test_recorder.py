"""The recorder: its files, and the process against topics published for it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from live_fixtures import record_estimates

from dwarf_ros.cli import main
from dwarf_ros.live.recorder import (
    read_summary,
)
from dwarf_ros.recordings.bag.estimates import open_estimates
from dwarf_ros.signals import INTERRUPTS
from dwarf_ros.types import InputError, SceneFlow, StereoCamera

REPOSITORY = Path(__file__).resolve().parents[2]
CAMERA = StereoCamera(
    fx=90, fy=91, cx=31.5, cy=15, cx_right=29.5, baseline=0.4, width=64, height=32
)


def answer(stamp: int, dt: float, camera: StereoCamera | None = CAMERA) -> SceneFlow:
    rng = np.random.default_rng(stamp % 1000)
    valid = rng.random((32, 64)) < 0.8
    disparity = rng.uniform(5, 20, (32, 64)).astype(np.float32)
    disparity_next = disparity + rng.uniform(-1, 1, (32, 64)).astype(np.float32)
    flow = rng.normal(0, 3, (32, 64, 2)).astype(np.float32)
    for array in (disparity, disparity_next, flow):
        array[~valid] = np.nan
    return SceneFlow(disparity, disparity_next, flow, valid, stamp, dt, camera, "left_optical")


def assert_same(one: SceneFlow, other: SceneFlow, tolerance: float = 0.0) -> None:
    for name in ("disparity", "disparity_next", "flow"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=tolerance)
    assert np.array_equal(one.valid, other.valid)
    assert (one.stamp, one.other_stamp) == (other.stamp, other.other_stamp)
    assert one.frame_id == other.frame_id


@pytest.mark.parametrize("camera", [CAMERA, None])
@pytest.mark.parametrize("dt", [0.1, -0.1, 0.0])
def test_a_bag_holds_all_of_an_estimate(tmp_path, camera, dt):
    scene_flow = answer(1_795_354_036_373_456_685, dt, camera)
    record_estimates(tmp_path / "bag", [(12_345, scene_flow)])
    (read,) = open_estimates(tmp_path / "bag")
    assert_same(read.scene_flow, scene_flow)
    assert read.scene_flow.camera == camera
    assert (read.received, read.estimator) == (12_345, "tester")


def test_an_empty_bag_is_one_error_that_names_it(tmp_path):
    record_estimates(tmp_path / "bag", [(1, answer(5, 0.1))])
    (file,) = (tmp_path / "bag").glob("*.mcap")
    file.write_bytes(b"")
    with pytest.raises(InputError, match=str(tmp_path / "bag")) as error:
        list(open_estimates(tmp_path / "bag"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("size", "whole"), [(100, 0), (-50, 1)])
def test_of_a_bag_that_is_cut_off_what_is_whole_is_read(tmp_path, size, whole):
    record_estimates(tmp_path / "bag", [(1, answer(5, 0.1))])
    (file,) = (tmp_path / "bag").glob("*.mcap")
    file.write_bytes(file.read_bytes()[:size])
    assert len(list(open_estimates(tmp_path / "bag"))) == whole


def test_a_folder_with_files_in_it_is_never_touched(tmp_path, capsys, ros_environment):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["record", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "expected a new or an empty folder" in said
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_missing_summary_is_one_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"summary\.json"):
        read_summary(tmp_path)


def test_folder_that_cannot_be_made_is_one_line(tmp_path, capsys, ros_environment):
    (tmp_path / "file").write_text("")
    assert main(["record", str(tmp_path / "file" / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


class Talker:
    """Publishes what the live node would, and the frames' camera_info."""

    def __init__(self, node) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import CameraInfo, Image, PointCloud2
        from stereo_msgs.msg import DisparityImage

        kinds = {
            "left/camera_info": CameraInfo,
            "right/camera_info": CameraInfo,
            "disparity": DisparityImage,
            "flow": Image,
            "scene_flow": PointCloud2,
            "/diagnostics": DiagnosticArray,
        }
        self.node = node
        self.publishers = {
            topic: node.create_publisher(kind, topic, 10) for topic, kind in kinds.items()
        }

    def add_estimate(self) -> None:
        from dwarf_ros.ros.messages import own_message_type

        self.publishers["estimate"] = self.node.create_publisher(
            own_message_type("SceneFlow"), "estimate", 10
        )

    def wait_for_recorder(self, *topics: str) -> None:
        end = time.monotonic() + 15
        while not all(self.publishers[topic].get_subscription_count() for topic in topics):
            assert time.monotonic() < end, "the recorder does not subscribe"
            time.sleep(0.02)
        # The recorder may learn of this side later.
        time.sleep(1.0)

    def frame(self, stamp: int) -> None:
        from dwarf_ros.ros.messages import camera_info_messages

        left, right = camera_info_messages(CAMERA, stamp, "left_optical")
        self.publishers["left/camera_info"].publish(left)
        self.publishers["right/camera_info"].publish(right)

    def parts(self, scene_flow: SceneFlow) -> None:
        from dwarf_ros.ros.messages import cloud_message, disparity_message, flow_message

        self.publishers["disparity"].publish(disparity_message(scene_flow))
        self.publishers["flow"].publish(flow_message(scene_flow))
        left = np.zeros((32, 64, 3), dtype=np.uint8)
        self.publishers["scene_flow"].publish(cloud_message(scene_flow, left))

    def diagnostics(self, accepted: int) -> None:
        from diagnostic_msgs.msg import DiagnosticStatus

        from dwarf_ros.ros.status import diagnostics_message

        message = diagnostics_message(
            "/dwarf", "", 1, DiagnosticStatus.OK, "active", {"accepted": accepted}
        )
        self.publishers["/diagnostics"].publish(message)


@pytest.fixture
def talker(ros_environment) -> Iterator[Talker]:
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("talker", context=context)
    yield Talker(node)
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def start_recorder(ros_environment) -> Iterator[Callable[..., subprocess.Popen]]:
    started: list[subprocess.Popen] = []

    def start(*arguments: str, message_built: bool = True) -> subprocess.Popen:
        hide = "" if message_built else "sys.modules['dwarf_ros.msg'] = None; "
        code = f"import sys; {hide}from dwarf_ros.cli import main; sys.exit(main())"
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code, "record", *arguments],
            env={**ros_environment, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # The shell that runs the tests may ignore them, as nohup does.
            preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in INTERRUPTS],
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def ended_well(process: subprocess.Popen) -> Iterator[None]:
    yield
    said, _ = process.communicate(timeout=15)
    assert process.returncode == 0, said


PERIOD = 100_000_000


@pytest.mark.parametrize(("reference", "dt"), [("previous", 0.1), ("current", -0.1)])
def test_answers_are_put_together_where_the_message_is_not_built(
    start_recorder, talker, tmp_path, reference, dt
):
    out = tmp_path / "new" / "out"
    recorder = start_recorder(
        str(out), "--idle-timeout=1", f"--reference={reference}", message_built=False
    )
    assert recorder.stdout.readline().startswith("recording disparity, flow, scene_flow to")
    talker.wait_for_recorder(
        "left/camera_info", "right/camera_info", "disparity", "flow", "scene_flow"
    )
    with ended_well(recorder):
        for index in range(10):
            talker.frame(index * PERIOD)
            time.sleep(0.1)
        sent = [answer(index * PERIOD, dt) for index in (7, 8)]
        for scene_flow in sent:
            talker.parts(scene_flow)
    for estimate, scene_flow in zip(open_estimates(out), sent, strict=True):
        recorded = estimate.scene_flow
        assert_same(recorded, scene_flow, tolerance=1e-3)
        assert recorded.camera.baseline == pytest.approx(CAMERA.baseline)
    summary = read_summary(out)
    assert summary["answers"] == 2
    # Best effort: what was sent before the two knew of each other is lost.
    assert 2 < summary["frames"] <= 10
    assert summary["ended_by"] == "idle timeout"


def test_estimates_are_recorded_until_the_expected_count(start_recorder, talker, tmp_path):
    from dwarf_ros.ros.messages import own_message_type, scene_flow_message

    try:
        own_message_type("SceneFlow")
    except InputError as error:
        pytest.skip(str(error))
    talker.add_estimate()
    recorder = start_recorder(str(tmp_path), "--expected=3")
    assert recorder.stdout.readline().startswith("recording estimate to")
    talker.wait_for_recorder("estimate", "/diagnostics")
    before = time.time_ns()
    sent = [answer(index * PERIOD, 0.1) for index in (1, 2, 3)]
    with ended_well(recorder):
        for scene_flow in sent:
            talker.publishers["estimate"].publish(scene_flow_message(scene_flow, "tester"))
        time.sleep(1.0)
        # It ends with the diagnostics that follow, so that their counts are complete.
        assert recorder.poll() is None
        talker.diagnostics(accepted=4)
    for estimate, scene_flow in zip(open_estimates(tmp_path), sent, strict=True):
        assert_same(estimate.scene_flow, scene_flow)
        assert estimate.scene_flow.camera == CAMERA
        assert estimate.estimator == "tester"
        assert before < estimate.received < time.time_ns()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ended_by"] == "expected count"
    assert summary["diagnostics"]["/dwarf: scene flow"]["values"] == {"accepted": "4"}


@pytest.mark.parametrize("number", INTERRUPTS)
def test_a_signal_ends_it_with_a_summary(start_recorder, tmp_path, number):
    recorder = start_recorder(str(tmp_path))
    recorder.stdout.readline()
    with ended_well(recorder):
        recorder.send_signal(number)
    summary = read_summary(tmp_path)
    assert (summary["answers"], summary["ended_by"]) == (0, "signal")


def test_a_full_disk_is_reported_with_what_was_really_written(tmp_path):
    """A limit of the size of files stands for it: rc 2 and one line, not a count of what never reached the disk."""
    code = """
import sys
from pathlib import Path
import numpy as np
from dwarf_ros.live.recorder import BagRecorder
from dwarf_ros.recordings.bag.write import MessageEncoder
from dwarf_ros.recordings.scene_flow_messages import SCENE_FLOW_TYPE
from dwarf_ros.types import SceneFlow
bag = BagRecorder(Path(sys.argv[1]), {"/estimate": SCENE_FLOW_TYPE})
values = np.ones((200, 200), np.float32)
scene_flow = SceneFlow(values, values, np.ones((200, 200, 2), np.float32), values > 0)
message = MessageEncoder(bag.store, "").scene_flow(scene_flow, "tester")
for time in range(1, int(sys.argv[2]) + 1):
    bag.add("/estimate", time, message)
bag.close()
print(bag.written("/estimate"), bag.error and bag.error.strerror)
"""
    for count, expected in (("1", "1 None"), ("10", "1 File too large")):
        limited = ["bash", "-c", 'ulimit -f 1000; exec "$@"', "bash"]
        command = [*limited, sys.executable, "-c", code, str(tmp_path / count), count]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stdout.strip() == expected
        assert "Traceback" not in result.stderr


def test_what_was_recorded_is_a_bag_for_every_command(tmp_path, capsys):
    record_estimates(tmp_path / "bag", [(10**18, answer(10**18, 0.1))], "/robot/estimate")
    assert main(["bag", "info", str(tmp_path / "bag")]) == 0
    assert "/robot/estimate" in capsys.readouterr().out
    assert main(["picture", str(tmp_path / "bag"), "--out", str(tmp_path / "x.png")]) == 0
    assert (tmp_path / "x.png").is_file()
