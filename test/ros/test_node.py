"""The live node as a process of its own, over real DDS."""

from __future__ import annotations

import array
import dataclasses
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float64
from stereo_msgs.msg import DisparityImage
from visualization_msgs.msg import MarkerArray

from dwarf_ros.estimators.classical import ClassicalEstimator
from dwarf_ros.network.weights import FORMAT, FORMAT_VERSION
from dwarf_ros.recordings import camera_messages, open_recording
from dwarf_ros.recordings.scene_flow_messages import scene_flow_from_message
from dwarf_ros.ros import messages, parameters, worker
from dwarf_ros.ros.inputs import Received
from dwarf_ros.ros.synchronizer import ConsecutivePairs, StereoPair
from dwarf_ros.types import StereoCamera

REPOSITORY = Path(__file__).resolve().parents[2]
DISPARITY, FLOW, PERIOD_NS = 8, 3, 100_000_000
FX, BASELINE = 120.0, 0.5
CAMERA = StereoCamera(FX, FX, 80.0, 48.0, 80.0, BASELINE, 160, 96)
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


def status_values(status: DiagnosticStatus) -> dict[str, str]:
    return {value.key: value.value for value in status.values}


def stamp_of(message: Any) -> int:
    return messages.ns_from_stamp(message.header.stamp)


def float_image(message: Image) -> np.ndarray:
    channels = {"32FC1": 1, "32FC2": 2}[message.encoding]
    assert message.step == message.width * channels * 4
    values = np.frombuffer(message.data, np.float32).reshape(message.height, message.width, -1)
    return values[..., 0] if channels == 1 else values


def cloud_array(cloud: PointCloud2) -> np.ndarray:
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb", "vx", "vy", "vz"]
    assert cloud.row_step == cloud.point_step * cloud.width == 28 * cloud.width
    return np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, 7)


def test_every_topic_carries_the_newest_frame_with_its_geometry(start_node, rig):
    process = start_node(*CLASSICAL)
    kinds = {
        "disparity": DisparityImage,
        "disparity_color": Image,
        "depth": Image,
        "flow": Image,
        "flow_color": Image,
        "scene_flow": PointCloud2,
        "scene_flow_markers": MarkerArray,
    }
    latencies = rig.listen("debug/latency_ms", Float64)
    estimates = rig.listen("estimate", pytest.importorskip("dwarf_ros.msg").SceneFlow)
    heard = {topic: rig.listen(topic, kind) for topic, kind in kinds.items()}
    rig.connect()
    heard["estimate"] = estimates

    def answered_on_all() -> set[int]:
        # One marker holds them all, and carries the header.
        heard["scene_flow_markers"][:] = [
            m.markers[0] if isinstance(m, MarkerArray) else m for m in heard["scene_flow_markers"]
        ]
        return set.intersection(*(set(map(stamp_of, received)) for received in heard.values()))

    rig.feed_until(answered_on_all)
    stamp = max(answered_on_all())
    assert (stamp - rig.stamp(0)) % PERIOD_NS == 0
    last = {
        topic: next(message for message in received if stamp_of(message) == stamp)
        for topic, received in heard.items()
    }
    assert {message.header.frame_id for message in last.values()} == {"camera"}

    answer = scene_flow_from_message(last["estimate"])
    assert last["estimate"].estimator == "classical"
    assert answer.dt == pytest.approx(-PERIOD_NS * 1e-9)
    assert answer.camera == CAMERA
    assert answer.valid.mean() > 0.5
    inside = answer.valid
    assert np.median(answer.disparity[inside]) == pytest.approx(DISPARITY, abs=0.1)
    # The newest frame is the reference: its pixels came from the left.
    assert np.median(answer.flow[inside], axis=0) == pytest.approx([-FLOW, 0], abs=0.1)
    np.testing.assert_array_equal(float_image(last["flow"]), answer.flow)

    disparity = last["disparity"]
    assert (disparity.f, disparity.t) == (FX, BASELINE)
    assert 0 < disparity.min_disparity < disparity.max_disparity
    values = float_image(disparity.image)
    known = np.isfinite(answer.disparity)
    assert (values[~known] == -1).all()
    np.testing.assert_array_equal(values[known], answer.disparity[known])

    depth = float_image(last["depth"])
    assert np.median(depth[inside]) == pytest.approx(FX * BASELINE / DISPARITY, rel=0.02)
    cloud = cloud_array(last["scene_flow"])
    np.testing.assert_array_equal(cloud[..., 2], depth)
    assert not last["scene_flow"].is_dense
    # Forward in time it moves to the right: 3 px at 7.5 m and 120 px focal length in 0.1 s.
    expected = FLOW * (FX * BASELINE / DISPARITY) / FX / 0.1
    assert np.median(cloud[inside][:, 4:7], axis=0) == pytest.approx([expected, 0, 0], abs=0.1)
    assert np.isnan(cloud[~inside][:, 4]).all()

    lines = last["scene_flow_markers"]
    assert (lines.type, lines.ns) == (lines.LINE_LIST, "scene_flow")
    ways = np.array([(p.x, p.y, p.z) for p in lines.points]).reshape(-1, 2, 3)
    way = np.median(ways[:, 1] - ways[:, 0], axis=0) / messages.MARKER_TIME_S
    assert way == pytest.approx([expected, 0, 0], abs=0.2)
    assert all(0 < latency.data < 60_000 for latency in latencies)
    assert latencies

    colour = last["flow_color"]
    assert (colour.encoding, colour.width, colour.height) == ("rgb8", 160, 96)
    red, _, blue = np.median(np.frombuffer(colour.data, np.uint8).reshape(-1, 3), axis=0)
    assert red > blue
    assert process.stop() == 0
    counts = process.counts()
    assert counts["estimated"] >= 1
    assert 2 * counts["accepted"] == sum(counts.values())


def test_parameters_change_while_it_runs_or_are_refused_with_a_reason(start_node, rig):
    start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    depths = rig.listen("depth", Image)
    rig.connect()
    rig.feed_until(lambda: depths)
    assert np.isfinite(float_image(depths[-1])).any()

    assert rig.set_parameter("reference", "previous").successful
    assert rig.set_parameter("max_depth_m", 5.0).successful
    assert rig.set_parameter("frame_id", "elsewhere").successful
    rig.feed_until(
        lambda: flows and all(m[-1].header.frame_id == "elsewhere" for m in (flows, depths))
    )
    assert stamp_of(flows[-1]) < rig.stamp(rig.frames)
    assert np.nanmedian(float_image(flows[-1])[..., 0]) == pytest.approx(FLOW, abs=0.1)
    assert np.isnan(float_image(depths[-1])).mean() > 0.9

    for name, value, reason in (
        ("reference", "both", "expected current or previous"),
        ("estimator", "dwarf", "deactivate and clean up first"),
        ("queue_size", 5, "deactivate and clean up first"),
        ("max_depth_m", -1.0, "out of range"),
        ("autostart", False, "read-only"),
        ("process_every_n", 0, "out of range"),
        ("image_transport", "compressed", "deactivate and clean up first"),
    ):
        result = rig.set_parameter(name, value)
        assert not result.successful
        assert reason in result.reason


def truncate(frame: dict) -> None:
    frame["left/image_rect"].data = frame["left/image_rect"].data[:-100]


def shrink_step(frame: dict) -> None:
    frame["right/image_rect"].step = 160


def unknown_encoding(frame: dict) -> None:
    frame["left/image_rect"].encoding = "yuv999"


def no_baseline(frame: dict) -> None:
    frame["right/camera_info"].p[3] = 0.0


def swapped(frame: dict) -> None:
    frame["left/camera_info"], frame["right/camera_info"] = (
        frame["right/camera_info"],
        frame["left/camera_info"],
    )


def not_a_number(frame: dict) -> None:
    frame["left/camera_info"].p[0] = math.nan


def other_size(frame: dict) -> None:
    image = np.zeros((48, 80, 3), np.uint8)
    stamp = stamp_of(frame["right/image_rect"])
    frame["right/image_rect"] = messages.image_message(image, stamp, "camera")


def test_bad_input_is_one_error_line_and_good_input_is_answered_again(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    for spoil, line in (
        (truncate, "left/image_rect: data has 45980 bytes, expected 46080 bytes"),
        (shrink_step, "right/image_rect: row step is 160 bytes, expected at least 480 bytes"),
        (unknown_encoding, "left/image_rect: encoding is 'yuv999', expected one of"),
        (no_baseline, "right/camera_info: camera: baseline is 0 m, expected > 0"),
        (swapped, "right/camera_info: camera: baseline is -0.5 m, expected > 0"),
        (not_a_number, "left projection matrix holds a number that is not finite"),
        (other_size, "left images are 160 x 96 px but right images: 80 x 48 px"),
    ):
        rig.feed_until(lambda line=line: line in process.log(), spoil)
        rig.spin(0.3)
        flows.clear()
        rig.feed_until(lambda: flows)
    assert "Traceback" not in process.log()
    assert process.stop() == 0
    counts = process.counts()
    assert counts["failed"] >= 3
    assert 2 * counts["accepted"] == sum(counts.values())


def test_equal_stamps_and_time_jumping_back_and_forward_do_not_stop_it(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    for _ in range(5):
        frame = rig.next_frame()
        for message in frame.values():
            message.header.stamp = messages.stamp_from_ns(0)
        rig.publish(frame)
        rig.spin(0.05)
    rig.feed_until(lambda: flows)
    before = stamp_of(flows[-1])
    rig.frames = -1000
    rig.feed_until(lambda: "time of the left images jumped back" in process.log())
    rig.feed_until(lambda: stamp_of(flows[-1]) < before)
    rig.frames += 2000
    rig.feed_until(
        lambda: re.search(r"\d s between two frames, more than 1 s: restarting", process.log())
    )
    rig.feed_until(lambda: stamp_of(flows[-1]) > before)
    assert process.stop() == 0
    assert "duplicate stamp" in process.log()


def test_without_subscribers_nothing_is_estimated(start_node, rig):
    process = start_node(*CLASSICAL)
    rig.connect()
    for _ in range(5):
        rig.publish(rig.next_frame())
        rig.spin(0.1)
    assert process.stop(signal.SIGTERM) == 0
    counts = process.counts()
    assert counts["estimated"] == 0
    assert counts["accepted"] == counts["no subscriber"] > 0


def test_a_burst_is_answered_from_its_newest_frames(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    rig.spin(0.5)
    for _ in range(30):
        rig.publish(rig.next_frame())
        rig.spin(0.002)
    rig.wait_for(lambda: stamp_of(flows[-1]) == rig.stamp(rig.frames))
    stamps = [stamp_of(flow) for flow in flows]
    assert stamps == sorted(set(stamps))
    assert process.stop() == 0
    counts = process.counts()
    assert counts["estimated"] == len(flows)
    assert 2 * counts["accepted"] == sum(counts.values())


def test_it_says_which_topics_are_missing(start_node, rig):
    process = start_node(*CLASSICAL)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.node.destroy_publisher(rig.publishers.pop("right/image_rect"))
    rig.connect()
    for _ in range(3):
        frame = rig.next_frame()
        del frame["right/image_rect"], frame["right/camera_info"]
        rig.publish(frame)
        rig.spin(0.1)
    end = time.monotonic() + 20
    while "no stereo pairs" not in process.log() and time.monotonic() < end:
        frame = rig.next_frame()
        rig.publish({"left/image_rect": frame["left/image_rect"]})
        rig.spin(0.2)
    process.wait_for_log(
        r"no stereo pairs: nothing on /right/image_rect \(no publisher\), "
        r"/right/camera_info \(1 publisher\(s\), check QoS\)\n"
    )
    rig.wait_for(lambda: any("no stereo pairs" in s.status[0].message for s in statuses))
    assert statuses[-1].status[0].level == DiagnosticStatus.WARN


def test_stamps_that_never_agree_are_named(start_node, rig):
    process = start_node(*CLASSICAL, "-p", "sync_tolerance_s:=0.0")
    rig.connect()
    end = time.monotonic() + 20
    while "no stereo pairs" not in process.log() and time.monotonic() < end:
        frame = rig.next_frame()
        frame["right/image_rect"].header.stamp.nanosec += 7_000_000
        rig.publish(frame)
        rig.spin(0.1)
    process.wait_for_log("stamps of left and right differ by 7.000 ms, more than sync_tolerance_s")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("-p", "estimator:=magic"), "estimator: 'magic' is unknown"),
        (("-p", "engine:=magic", "-p", "estimator:=dwarf"), "engine: 'magic' is unknown"),
        (("-p", "estimator:=dwarf", "-p", "weights:=/no/such.safetensors"), "/no/such.safetensors"),
        (("-p", "estimator:=classical", "-p", "weights:=/no/such"), "weights: /no/such given"),
        (("-p", "estimator:=classical", "-p", "precision:=bf16"), "precision: bf16 given to the"),
    ],
)
def test_what_cannot_be_configured_is_an_error_and_the_node_waits_for_better(
    start_node, rig, arguments, line
):
    process = start_node(*arguments, active=False)
    process.wait_for_log(r"\[ERROR\].*not configured: ")
    assert line in process.log()
    for name, value in (
        ("estimator", "classical"),
        ("engine", "auto"),
        ("weights", ""),
        ("precision", "f32"),
    ):
        assert rig.set_parameter(name, value).successful
    assert rig.transition("configure")
    assert rig.transition("activate")
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    assert "Traceback" not in process.log()
    assert process.stop() == 0


def test_quality_of_service_that_is_none_is_an_error_and_the_node_goes_on(start_node, rig):
    policy = "qos_overrides./left/image_rect.subscription.reliability:=perhaps"
    process = start_node(*CLASSICAL, "-p", policy, active=False)
    process.wait_for_log(r"\[ERROR\].*not activated: .*`perhaps`")
    assert rig.transition("cleanup")
    assert process.stop() == 0


def test_a_signal_ends_it_while_it_estimates(start_node, rig):
    process = start_node(*CLASSICAL)
    rig.listen("flow", Image)
    rig.connect()
    size = {"width": 1600, "height": 1200}
    camera = dataclasses.replace(CAMERA, **size)
    image = np.random.default_rng(0).integers(0, 255, (1200, 1600), np.uint8)
    for frame in range(2):
        infos = messages.camera_info_messages(camera, rig.stamp(frame), "camera")
        picture = messages.image_message(image, rig.stamp(frame), "camera")
        sides = dict(zip(("left", "right"), infos, strict=True))
        rig.publish({f"{side}/camera_info": info for side, info in sides.items()})
        rig.publish({f"{side}/image_rect": picture for side in sides})
        rig.spin(0.3)
    assert process.stop(signal.SIGTERM) == 0
    counts = process.counts()
    assert counts["accepted"] == 1
    assert counts["estimated"] + counts.get("stopped", 0) == 1


def test_a_signal_ends_it_without_waiting_for_a_slow_teardown(start_node):
    program = faulty()
    slow = "import atexit, time; atexit.register(time.sleep, 60)"
    process = start_node(*CLASSICAL, program=(program[0], slow + program[1]))
    assert process.stop() == 0
    assert "accepted 0 pairs" in process.log()


def test_a_signal_ends_it_while_a_network_is_compiled(start_node):
    # One step of Python that no signal interrupts.
    compiling = 'import hashlib; print("at it"); hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)'
    size = ("-p", "image_width:=160", "-p", "image_height:=96")
    program = faulty(warm_up=compiling)
    process = start_node(*CLASSICAL, *size, active=False, program=program)
    process.wait_for_log("at it")
    assert process.stop(signal.SIGTERM) == 0


def test_a_signal_ends_it_while_it_loads_the_network(start_node):
    process = start_node("-p", "estimator:=dwarf", "-p", "weights:=/no/such", active=False)
    process.wait_for_log("configuring: loading estimator dwarf")
    assert process.stop() == 0


def test_weights_of_another_preset_are_refused(start_node, tmp_path):
    numpy_tensors = pytest.importorskip("safetensors.numpy")
    pytest.importorskip("keras")
    file = tmp_path / "lite.safetensors"
    # The header alone decides.
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "preset": "dwarf_lite",
        "version": "0.1.0",
        "origin": "test",
    }
    numpy_tensors.save_file({"none": np.zeros(1, np.float32)}, file, metadata=header)
    process = start_node("-p", "estimator:=dwarf", "-p", f"weights:={file}", active=False)
    process.wait_for_log(r"\[ERROR\].*not configured: .*preset dwarf_lite, expected dwarf;")
    assert process.stop() == 0


def test_lifecycle_transitions_can_be_gone_through_again_and_again(start_node, rig):
    process = start_node(*CLASSICAL, "-p", "autostart:=false", active=False)
    flows = rig.listen("flow", Image)
    assert not rig.transition("activate")
    for _ in range(2):
        assert rig.transition("configure")
        assert rig.transition("activate")
        rig.connect()
        flows.clear()
        rig.feed_until(lambda: flows)
        assert rig.transition("deactivate")
        rig.spin(0.3)
        flows.clear()
        for _ in range(3):
            rig.publish(rig.next_frame())
            rig.spin(0.1)
        assert not flows
        assert rig.transition("cleanup")
    assert process.stop(signal.SIGTERM) == 0
    assert "Traceback" not in process.log()


def test_every_invalid_transition_gets_a_reply_in_every_state(start_node, rig):
    """A client without code of this package, as Nav2's lifecycle manager is one."""
    from lifecycle_msgs.msg import Transition
    from lifecycle_msgs.srv import ChangeState, GetState

    start_node(*CLASSICAL, "-p", "autostart:=false", active=False)
    valid = {
        "unconfigured": {"configure": 1, "shutdown": 5},
        "inactive": {"cleanup": 2, "activate": 3, "shutdown": 6},
        "active": {"deactivate": 4, "shutdown": 7},
        "finalized": {},
    }
    change = rig.node.create_client(ChangeState, "dwarf/change_state")
    rig.wait_for(change.service_is_ready)

    def reply_in_time(**transition: Any) -> bool:
        future = change.call_async(ChangeState.Request(transition=Transition(**transition)))
        rig.wait_for(future.done, timeout_s=1.0)
        return future.result().success

    def state() -> str:
        return rig.call(GetState, "dwarf/get_state", GetState.Request()).current_state.label

    for expected, step in (
        ("unconfigured", "configure"),
        ("inactive", "activate"),
        ("active", "shutdown"),
        ("finalized", None),
    ):
        assert state() == expected
        labels = {"configure", "cleanup", "activate", "deactivate", "nonsense"}
        for label in sorted(labels - valid[expected].keys()):
            assert not reply_in_time(label=label)
        for number in sorted({0, *range(1, 9), 60, 255} - set(valid[expected].values())):
            assert not reply_in_time(id=number)
        assert state() == expected
        if step:
            assert rig.transition(step)


def test_camera_info_is_beside_the_depth_and_fits_it(start_node, rig):
    start_node(*CLASSICAL, "-p", "frame_id:=elsewhere", "-p", "max_depth_m:=30")
    infos, depths = rig.listen("camera_info", CameraInfo), rig.listen("depth", Image)
    rig.connect()
    rig.feed_until(lambda: infos and depths and infos[-1].header == depths[-1].header)
    info, depth = infos[-1], depths[-1]
    assert info.header.frame_id == "elsewhere"
    assert (info.width, info.height) == (depth.width, depth.height)
    assert (info.p[0], info.p[2], info.p[6]) == (FX, CAMERA.cx, CAMERA.cy)
    np.testing.assert_array_equal(np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))[:, :3])


def test_two_cameras_have_two_names_in_the_diagnostics(start_node, rig):
    for name in ("front", "rear"):
        start_node(*CLASSICAL, "-r", f"__ns:=/{name}", name=f"/{name}/dwarf")
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.wait_for(lambda: len({s.status[0].name for s in statuses}) == 2)
    assert {(s.status[0].name, s.status[0].hardware_id) for s in statuses} == {
        (f"/{name}/dwarf: scene flow", f"/{name}/left/image_rect") for name in ("front", "rear")
    }


def test_an_unchanged_dump_of_the_parameters_can_be_loaded(start_node, rig):
    start_node(*CLASSICAL, "-p", "max_depth_m:=30")
    for name, spec in parameters.PARAMETERS.items():
        values = {"estimator": "classical", "max_depth_m": 30.0}
        result = rig.set_parameter(name, values.get(name, spec.default))
        assert result.successful, result.reason
    assert rig.set_parameter("max_depth_m", 40).successful
    assert not rig.set_parameter("max_depth_m", "far").successful


def test_durability_can_be_overridden(start_node, rig):
    policy = "qos_overrides./depth.publisher.durability:=transient_local"
    start_node(*CLASSICAL, "-p", policy)
    (end,) = rig.node.get_publishers_info_by_topic("/depth")
    assert end.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL


def test_diagnostics_count_pairs_and_name_estimator_and_engine(start_node, rig):
    start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(lambda: len(flows) >= 3)
    count = len(statuses)
    rig.feed_until(lambda: len(statuses) > count + 1)
    status = statuses[-1].status[0]
    values = {value.key: value.value for value in status.values}
    assert status.level == DiagnosticStatus.OK
    assert status.name == "/dwarf: scene flow"
    assert (values["estimator"], values["engine"]) == ("classical", "opencv")
    assert int(values["accepted"]) >= int(values["estimated"]) >= 3
    assert float(values["median latency (ms)"]) > 0


def sustained_rate_hz(source: Path) -> float:
    """2 Hz, or less where this machine is too slow or too busy for it just now."""
    sequence = open_recording(source)
    estimator = ClassicalEstimator()
    frames = [sequence[i] for i in range(4)]
    times = []
    for previous, current in itertools.pairwise(frames):
        start = time.monotonic()
        estimator.estimate(current, previous)
        times.append(time.monotonic() - start)
    return min(2.0, 0.7 / times[-1])


def test_every_pair_of_a_real_drive_is_answered_at_2_hz(real_data, start_node, rig, tmp_path):
    source = real_data("kitti_odometry")
    rate_hz = sustained_rate_hz(source)
    process = start_node(*CLASSICAL)
    disparities = rig.listen("disparity", DisparityImage)
    rig.connect()
    log = tmp_path / "played.jsonl"
    player = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from dwarf_ros.live.player import play; "
            "sys.exit(play(Path(sys.argv[1]), rate_hz=float(sys.argv[2]), log=Path(sys.argv[3])))",
            *(str(source), str(rate_hz), str(log)),
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    try:
        rig.wait_for(lambda: player.poll() is not None, timeout_s=20 + 12 / rate_hz)
    finally:
        player.kill()
    assert player.returncode == 0
    rig.wait_for(lambda: len(disparities) == 11)
    assert process.stop() == 0
    assert process.counts() == {"accepted": 11, "estimated": 11}, process.log()
    stamps = [json.loads(line)["stamp_ns"] for line in log.read_text().splitlines()]
    assert len(stamps) == 12
    assert [stamp_of(d) for d in disparities] == stamps[1:]
    assert {(d.image.height, d.image.width) for d in disparities} == {
        open_recording(source)[0].left.shape[:2]
    }
    assert disparities[0].t == pytest.approx(379.8145 / 707.0912)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--ros-args", "-p", "queue_size:=0"], "parameter queue_size"),
        (["--ros-args", "-p", "reference:=both"], "expected current or previous"),
        (["--ros-args", "-p", "max_depth_m:=far"], "expecting type 'DOUBLE'"),
        (["--ros-args", "--params-file", "/no/such.yaml"], "/no/such.yaml"),
        (["quickly"], "node: got quickly, expected --ros-args"),
    ],
)
def test_wrong_arguments_are_one_line_and_exit_code_2(ros_environment, arguments, line):
    done = subprocess.run(
        [sys.executable, "-m", "dwarf_ros.ros.node", *arguments],
        env={**ros_environment, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("dwarf: error: ")
    assert done.stderr.count("\n") == 1
    assert line in done.stderr


def test_the_table_of_parameters_is_generated_from_their_declarations():
    stated = (REPOSITORY / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert stated == parameters.parameter_table()
    assert all(spec.description in stated for spec in parameters.PARAMETERS.values())


def test_the_parameters_that_ros_knows_are_those_of_the_table(start_node, rig):
    from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters

    start_node("-p", "autostart:=false", active=False)
    names = rig.call(ListParameters, "dwarf/list_parameters", ListParameters.Request()).result.names
    own = {n for n in names if not n.startswith(("qos_overrides", "start_type", "use_sim_time"))}
    assert own == set(parameters.PARAMETERS)
    request = DescribeParameters.Request(names=sorted(own))
    described = rig.call(DescribeParameters, "dwarf/describe_parameters", request).descriptors
    values = rig.call(
        GetParameters, "dwarf/get_parameters", GetParameters.Request(names=sorted(own))
    ).values
    for descriptor, value in zip(described, values, strict=True):
        spec = parameters.PARAMETERS[descriptor.name]
        assert descriptor.description == spec.description
        assert not descriptor.read_only
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        assert [(r.from_value, r.to_value) for r in ranges] == [spec.between][: len(ranges)]
        assert bool(ranges) == (spec.between is not None)
        if descriptor.name != "autostart":
            assert parameter_value_to_python(value) == spec.default


def test_the_parameter_file_lists_every_parameter_with_its_default():
    listed = yaml.safe_load((REPOSITORY / "config" / "dwarf.yaml").read_text())
    defaults = {name: spec.default for name, spec in parameters.PARAMETERS.items()}
    assert listed["/**"]["ros__parameters"] == defaults


def test_the_mailbox_keeps_the_newest_and_lets_go_when_closed():
    image = Received(Image(), "left/image_rect", 0.0)
    pair = StereoPair(0, image, image, CAMERA)
    old, new = (worker.Job(ConsecutivePairs(pair, pair), float(i)) for i in range(2))
    mailbox = worker.Mailbox()
    assert not mailbox.put(old)
    assert mailbox.put(new)
    warm_up = worker.WarmUp(160, 96)
    mailbox.put_warm_up(warm_up)
    assert mailbox.take() is warm_up
    assert mailbox.take() is new
    assert not mailbox.put(old)
    assert mailbox.close()
    assert mailbox.take() is None
    assert not mailbox.close()


# Faults


def test_an_estimator_that_fails_once_costs_one_pair(start_node, rig):
    fault = 'assert self.calls != 3, "out of\\n luck"'
    process = start_node(*CLASSICAL, program=faulty(fault))
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: len(flows) >= 5)
    assert "pair not estimated: AssertionError: out of luck" in process.log()
    assert process.stop() == 0
    assert process.counts()["failed"] == 1
    assert "Traceback" not in process.log()


def test_an_estimator_that_always_fails_is_an_error_state_and_one_line_now_and_then(
    start_node, rig
):
    process = start_node(*CLASSICAL, program=faulty('raise MemoryError("none left")'))
    rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(
        lambda: any(
            s.status[0].message == "pair not estimated: MemoryError: none left" for s in statuses
        )
    )
    assert statuses[-1].status[0].level == DiagnosticStatus.ERROR
    assert status_values(statuses[-1].status[0])["last error"] == "MemoryError: none left"
    assert process.stop() == 0
    counts = process.counts()
    assert counts["failed"] >= 1
    assert counts["estimated"] == 0
    assert process.log().count("pair not estimated") <= 1 + counts["failed"] // 2


def test_a_dead_thread_is_told_and_the_node_can_be_activated_again(start_node, rig):
    fault = "self.calls == 2 and sys.exit(1)"
    process = start_node(*CLASSICAL, program=faulty(fault))
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    told = "the worker thread has ended: deactivate and activate the node"
    rig.feed_until(lambda: any(s.status[0].message == told for s in statuses))
    assert told in process.log()
    assert rig.transition("deactivate")
    assert rig.transition("activate")
    rig.connect()
    flows.clear()
    rig.feed_until(lambda: flows)
    assert process.stop() == 0


def test_while_it_warms_up_pairs_are_not_busy_and_the_newest_is_answered_after(start_node, rig):
    process = start_node(*CLASSICAL, program=faulty(warm_up="import time; time.sleep(1.5)"))
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(lambda: flows)
    assert any(s.status[0].message == "warming up for images of 160 x 96 px" for s in statuses)
    assert process.stop() == 0
    assert process.counts()["warming up"] >= 5
    assert "ready for images of 160 x 96 px after 1.5 s" in process.log()


def test_a_size_given_is_warmed_up_when_configured(start_node, rig):
    size = ("-p", "image_width:=160", "-p", "image_height:=96")
    program = faulty(warm_up='print("warm", width, height)')
    process = start_node(*CLASSICAL, *size, program=program)
    assert "warm 160 96" in process.log()
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    assert process.log().count("warm 160 96") == 1
    half = start_node(*CLASSICAL, "-r", "__node:=half", *size[:2], active=False)
    half.wait_for_log("not configured: image_width and image_height: 160 and 0 px, expected both")


def test_a_failing_warm_up_is_told_and_pairs_are_tried(start_node, rig):
    process = start_node(*CLASSICAL, program=faulty(warm_up='raise ValueError("no compiler")'))
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    assert "warm-up failed: ValueError: no compiler" in process.log()


def test_a_camera_that_dies_changes_and_comes_back_is_followed(start_node, rig):
    """Right camera silent, then another encoding, then another size with its calibration, then as before."""
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(lambda: flows)

    def right_is_dead(frame: dict) -> None:
        del frame["right/image_rect"]

    rig.feed_until(
        lambda: re.search(
            r"nothing on /right/image_rect \(1 publisher\(s\), silent for \d+ s\)", process.log()
        ),
        right_is_dead,
    )
    rig.wait_for(lambda: statuses[-1].status[0].level == DiagnosticStatus.WARN)
    flows.clear()
    rig.feed_until(lambda: flows)

    def grey(frame: dict) -> None:
        for topic in ("left/image_rect", "right/image_rect"):
            rgb = camera_messages.image_from_message(frame[topic])
            frame[topic] = messages.image_message(
                np.ascontiguousarray(rgb[..., 1]), stamp_of(frame[topic]), "camera"
            )

    flows.clear()
    rig.feed_until(lambda: len(flows) >= 2, grey)

    def halved(frame: dict) -> None:
        for side in ("left", "right"):
            info, topic = frame[f"{side}/camera_info"], f"{side}/image_rect"
            info.roi.width, info.roi.height = 128, 80
            rgb = camera_messages.image_from_message(frame[topic])[:80, :128]
            frame[topic] = messages.image_message(
                np.ascontiguousarray(rgb), stamp_of(frame[topic]), "camera"
            )

    rig.feed_until(lambda: flows[-1].width == 128, halved)
    rig.feed_until(lambda: flows[-1].width == 160)
    assert process.stop() == 0
    assert "Traceback" not in process.log()
    counts = process.counts()
    assert 2 * counts["accepted"] == sum(counts.values())


def test_a_calibration_that_comes_late_is_waited_for_and_missed(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    start_s = time.monotonic()

    def uncalibrated(frame: dict) -> None:
        del frame["left/camera_info"], frame["right/camera_info"]

    rig.feed_until(lambda: time.monotonic() - start_s > 3, uncalibrated)
    assert not flows
    assert re.search(r"nothing on /left/camera_info \(.*\), /right/camera_info \(", process.log())
    rig.feed_until(lambda: flows)
    assert process.stop() == 0


def test_a_subscriber_that_joins_and_leaves_all_the_time_is_survived(start_node, rig):
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)
    for _ in range(15):
        listener = rig.node.create_subscription(PointCloud2, "scene_flow", lambda m: None, 10)
        rig.publish(rig.next_frame())
        rig.spin(0.1)
        rig.node.destroy_subscription(listener)
        rig.publish(rig.next_frame())
        rig.spin(0.1)
    flows.clear()
    rig.feed_until(lambda: flows)
    assert process.stop() == 0
    assert "Traceback" not in process.log()
    assert "failed" not in process.counts()


def test_quality_of_service_that_does_not_match_is_named(start_node, rig):
    from rclpy.qos import qos_profile_sensor_data

    policy = "qos_overrides./left/image_rect.subscription.reliability:=reliable"
    process = start_node(*CLASSICAL, "-p", policy)
    rig.node.destroy_publisher(rig.publishers["left/image_rect"])
    rig.publishers["left/image_rect"] = rig.node.create_publisher(
        Image, "left/image_rect", qos_profile_sensor_data
    )
    rig.feed_until(
        lambda: (
            "nothing on /left/image_rect (1 publisher(s), QoS does not match: reliability)"
            in process.log()
        )
    )
    assert "set qos_overrides./left/image_rect.subscription.reliability" in process.log()


def test_images_that_are_lost_on_their_way_are_named(start_node, rig):
    process = start_node(*CLASSICAL)
    rig.connect()

    def lose_half(frame: dict) -> None:
        side = "left" if rig.frames % 2 else "right"
        del frame[f"{side}/image_rect"]

    rig.feed_until(lambda: "large images are being lost, see" in process.log(), lose_half)


@pytest.mark.parametrize(
    ("reliability", "durability"),
    [("RELIABLE", "TRANSIENT_LOCAL"), ("RELIABLE", "VOLATILE"), ("BEST_EFFORT", "VOLATILE")],
)
def test_camera_info_is_received_with_the_best_quality_that_is_offered(
    start_node, rig, reliability, durability
):
    qos = QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy[reliability],
        durability=DurabilityPolicy[durability],
    )
    infos = ("left/camera_info", "right/camera_info")
    for topic in infos:
        rig.node.destroy_publisher(rig.publishers[topic])
        rig.publishers[topic] = rig.node.create_publisher(CameraInfo, topic, qos)
    latched = durability == "TRANSIENT_LOCAL"
    if latched:
        frame = rig.next_frame()
        rig.publish({topic: frame[topic] for topic in infos})
    process = start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    rig.connect()

    def without_infos(frame: dict) -> None:
        for topic in infos if latched else ():
            del frame[topic]

    rig.feed_until(lambda: flows, without_infos)

    def received_with(topic: str) -> list[tuple[str, str]]:
        ends = rig.node.get_subscriptions_info_by_topic(f"/{topic}")
        return [(e.qos_profile.reliability.name, e.qos_profile.durability.name) for e in ends]

    for topic in infos:
        rig.wait_for(lambda topic=topic: received_with(topic) == [(reliability, durability)])
    assert process.stop() == 0
    assert "does not offer" not in process.log()


def test_reliable_images_are_requested_by_a_parameter(start_node, rig):
    start_node(*CLASSICAL, "-p", "reliable:=true")
    for topic in ("/left/image_rect", "/right/image_rect"):
        (end,) = rig.node.get_subscriptions_info_by_topic(topic)
        assert end.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: flows)


def test_stamps_that_stand_still_are_named(start_node, rig):
    process = start_node(*CLASSICAL)
    rig.connect()

    def stand_still(frame: dict) -> None:
        for message in frame.values():
            message.header.stamp = messages.stamp_from_ns(0)

    rig.feed_until(
        lambda: re.search(r"do not pair \(\d+ duplicate stamp\)", process.log()), stand_still
    )


def test_compressed_images_are_answered_and_damaged_ones_told(start_node, rig):
    process = start_node(
        *CLASSICAL, "-p", "image_transport:=compressed", "-r", "left/image_rect:=eye"
    )
    assert "waiting for /eye/compressed" in process.log()
    flows = rig.listen("flow", Image)
    for topic, name in (("left/image_rect", "eye"), ("right/image_rect", "right/image_rect")):
        rig.node.destroy_publisher(rig.publishers[topic])
        rig.publishers[topic] = rig.node.create_publisher(CompressedImage, f"{name}/compressed", 10)
    rig.connect()

    def compress(frame: dict, damage: int = 0) -> None:
        for topic in ("left/image_rect", "right/image_rect"):
            bgr = camera_messages.image_from_message(frame[topic])[..., ::-1]
            file = cv2.imencode(".png", np.ascontiguousarray(bgr))[1].tobytes()
            message = CompressedImage(header=frame[topic].header, format="rgb8; png compressed")
            message.data = array.array("B", file[: len(file) - damage])
            frame[topic] = message

    rig.feed_until(lambda: flows, compress)
    assert np.nanmedian(float_image(flows[-1])[..., 0]) == pytest.approx(-FLOW, abs=0.1)
    rig.feed_until(
        lambda: "/compressed: data has 20 bytes and no image size" in process.log(),
        lambda frame: (compress(frame), [cut(m) for m in frame.values()]),
    )
    flows.clear()
    rig.feed_until(lambda: flows, compress)
    assert process.stop() == 0
    assert "Traceback" not in process.log()


def cut(message: Any) -> None:
    if isinstance(message, CompressedImage):
        message.data = message.data[:20]


def test_live_parameters_of_pairs_and_velocities(start_node, rig):
    """process_every_n, approximate_sync, occlusion_check and marker_spacing_px."""
    process = start_node(*CLASSICAL)
    clouds = rig.listen("scene_flow", PointCloud2)
    markers = rig.listen("scene_flow_markers", MarkerArray)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    estimates = rig.listen("estimate", pytest.importorskip("dwarf_ros.msg").SceneFlow)
    rig.connect()
    picture = cv2.blur(np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8), (3, 3))

    def overtaken(frame: dict) -> None:
        """Something nearer goes past the wall and hides some of it."""
        column = 30 + 11 * (rig.frames % 8)
        for topic, shift in (("left/image_rect", 0), ("right/image_rect", -14)):
            pixels = camera_messages.image_from_message(frame[topic])
            pixels[20:70, column + shift : column + shift + 40] = picture
            frame[topic] = messages.image_message(pixels, stamp_of(frame[topic]), "camera")

    def trusted_of_known() -> tuple[int, int]:
        answer = scene_flow_from_message(estimates[-1])
        known = np.isfinite(answer.disparity) & np.isfinite(answer.disparity_next)
        known &= np.isfinite(answer.flow).all(axis=-1)
        return int(answer.valid.sum()), int(known.sum())

    rig.feed_until(lambda: clouds and markers and len(estimates) >= 2, overtaken)
    trusted, known = trusted_of_known()
    assert 0 < trusted < known - 20
    few = len(markers[-1].markers[0].points)
    assert rig.set_parameter("occlusion_check", False).successful
    assert rig.set_parameter("marker_spacing_px", 8).successful
    rig.feed_until(lambda: len(markers[-1].markers[0].points) > 4 * few, overtaken)
    trusted, known = trusted_of_known()
    assert trusted == known > 0

    assert rig.set_parameter("process_every_n", 3).successful
    rig.spin(0.5)
    clouds.clear()
    first = rig.frames
    rig.feed_until(lambda: len(clouds) >= 4)
    assert rig.frames - first >= 10
    rig.spin(1.2)
    assert int(status_values(statuses[-1].status[0])["dropped: skipped"]) >= 6

    def shifted(frame: dict) -> None:
        frame["right/image_rect"].header.stamp.nanosec += 5_000_000

    assert rig.set_parameter("process_every_n", 1).successful
    clouds.clear()
    rig.feed_until(lambda: len(clouds) >= 2, shifted)
    assert rig.set_parameter("approximate_sync", False).successful
    rig.feed_until(
        lambda: "differ by 5.000 ms, more than sync_tolerance_s and approx" in process.log(),
        shifted,
    )


def test_diagnostics_come_at_once_when_the_state_changes_and_time_every_stage(start_node, rig):
    process = start_node(*CLASSICAL)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: len(flows) >= 3)
    rig.wait_for(lambda: statuses and float(status_values(statuses[-1].status[0])["rate out (Hz)"]))
    values = status_values(statuses[-1].status[0])
    for stage in ("latency", "wait for partner", "queue", "decode", "network", "encode"):
        assert 0 < float(values[f"median {stage} (ms)"]) <= float(values[f"p95 {stage} (ms)"])
    assert float(values["rate left/image_rect (Hz)"]) > 0
    assert 10 < float(values["memory (MiB)"]) < 10_000
    # Off and on at once: each state is there to be heard for less than the second between two reports.
    inactive = "inactive: ros2 lifecycle set /dwarf activate"
    for transition, told in (("deactivate", inactive), ("activate", "active")):
        statuses.clear()
        assert rig.transition(transition)
        start_s = time.monotonic()
        rig.wait_for(lambda told=told: any(s.status[0].message == told for s in statuses))
        assert time.monotonic() - start_s < 5
    assert process.stop() == 0
