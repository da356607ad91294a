"""The live node as a process of its own, over real DDS."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from sensor_msgs.msg import Image, PointCloud2
from stereo_msgs.msg import DisparityImage

from dwarf_ros.datasets.sequences import open_sequence
from dwarf_ros.estimators.classical import ClassicalEstimator
from dwarf_ros.network.weights import FORMAT, FORMAT_VERSION
from dwarf_ros.ros import messages, node
from dwarf_ros.ros.synchronizer import ConsecutivePairs, StereoPair
from dwarf_ros.types import StereoCamera

REPOSITORY = Path(__file__).resolve().parents[2]
DISPARITY, FLOW, PERIOD_NS = 8, 3, 100_000_000
FX, BASELINE = 120.0, 0.5
CAMERA = StereoCamera(FX, FX, 80.0, 48.0, 80.0, BASELINE, 160, 96)
CLASSICAL = ("-p", "estimator:=classical")


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
        "depth": Image,
        "flow": Image,
        "flow_color": Image,
        "scene_flow": PointCloud2,
    }
    estimates = rig.listen("estimate", pytest.importorskip("dwarf_ros.msg").SceneFlow)
    heard = {topic: rig.listen(topic, kind) for topic, kind in kinds.items()}
    rig.connect()
    heard["estimate"] = estimates

    def answered_on_all() -> set[int]:
        return set.intersection(*(set(map(stamp_of, received)) for received in heard.values()))

    rig.feed_until(answered_on_all)
    stamp = max(answered_on_all())
    assert (stamp - rig.stamp(0)) % PERIOD_NS == 0
    last = {
        topic: next(message for message in received if stamp_of(message) == stamp)
        for topic, received in heard.items()
    }
    assert {message.header.frame_id for message in last.values()} == {"camera"}

    answer = messages.scene_flow_from_message(last["estimate"])
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

    colour = last["flow_color"]
    assert (colour.encoding, colour.width, colour.height) == ("rgb8", 160, 96)
    red, _, blue = np.median(np.frombuffer(colour.data, np.uint8).reshape(-1, 3), axis=0)
    assert red > blue
    assert process.stop() == 0
    counts = process.counts()
    assert counts["answered"] >= 1
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


def test_equal_stamps_and_time_jumping_back_do_not_stop_it(start_node, rig):
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
    assert counts["answered"] == 0
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
    assert counts["answered"] == len(flows)
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
    ],
)
def test_what_cannot_be_configured_is_an_error_and_the_node_waits_for_better(
    start_node, rig, arguments, line
):
    process = start_node(*arguments, active=False)
    process.wait_for_log(r"\[ERROR\].*not configured: ")
    assert line in process.log()
    for name, value in (("estimator", "classical"), ("engine", "auto"), ("weights", "")):
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
    assert counts["answered"] + counts.get("stopped", 0) == 1


def test_a_signal_ends_it_while_it_loads_the_network(start_node):
    process = start_node("-p", "estimator:=dwarf", "-p", "weights:=/no/such", active=False)
    process.wait_for_log("", timeout_s=5)
    time.sleep(1.0)
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
    assert status.name == "dwarf: scene flow"
    assert (values["estimator"], values["engine"]) == ("classical", "opencv")
    assert int(values["accepted"]) >= int(values["answered"]) >= 3
    assert float(values["median latency (ms)"]) > 0


def sustained_rate_hz(source: Path) -> float:
    """2 Hz, or less where this machine is too slow or too busy for it just now."""
    sequence = open_sequence(source)
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
            "import sys; from pathlib import Path; from dwarf_ros.ros.player import play; "
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
    assert process.counts() == {"accepted": 11, "answered": 11}, process.log()
    stamps = [json.loads(line)["stamp_ns"] for line in log.read_text().splitlines()]
    assert len(stamps) == 12
    assert [stamp_of(d) for d in disparities] == stamps[1:]
    assert {(d.image.height, d.image.width) for d in disparities} == {
        open_sequence(source)[0].left.shape[:2]
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


def test_the_parameter_file_lists_every_parameter_with_its_default():
    listed = yaml.safe_load((REPOSITORY / "config" / "dwarf.yaml").read_text())
    defaults = {name: spec.default for name, spec in node.PARAMETERS.items()}
    assert listed["/**"]["ros__parameters"] == defaults


def test_the_mailbox_keeps_the_newest_and_lets_go_when_closed():
    pair = StereoPair(0, Image(), Image(), CAMERA)
    old, new = (node.Work(ConsecutivePairs(pair, pair), float(i)) for i in range(2))
    mailbox = node.Mailbox()
    assert not mailbox.put(old)
    assert mailbox.put(new)
    assert mailbox.take() is new
    assert not mailbox.put(old)
    assert mailbox.close()
    assert mailbox.take() is None
    assert not mailbox.close()
