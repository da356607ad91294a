"""The live node as a process of its own, over real DDS."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from ros_fixtures import (
    CAMERA,
    CLASSICAL,
    DISPARITY,
    FLOW,
    PERIOD_NS,
    faulty,
    float_image,
    stamp_of,
    status_values,
)
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float64
from stereo_msgs.msg import DisparityImage
from visualization_msgs.msg import MarkerArray

from dwarf_ros.estimators.classical import ClassicalEstimator
from dwarf_ros.network.weights import FORMAT, FORMAT_VERSION
from dwarf_ros.recordings import camera_messages, open_recording
from dwarf_ros.recordings.scene_flow_messages import scene_flow_from_message
from dwarf_ros.ros import messages

REPOSITORY = Path(__file__).resolve().parents[2]
FX, BASELINE = CAMERA.fx, CAMERA.baseline


def cloud_array(cloud: PointCloud2) -> np.ndarray:
    assert [f.name for f in cloud.fields] == ["x", "y", "z", "rgb", "vx", "vy", "vz"]
    assert cloud.row_step == cloud.point_step * cloud.width == 28 * cloud.width
    return np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, 7)


def test_every_topic_carries_the_newest_frame_with_its_geometry(start_node, rig):
    # Over ground the wall stands still: what moves is the camera.
    process = start_node(*CLASSICAL, "-p", "velocity_frame:=camera")
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


def test_every_pair_of_a_real_drive_is_estimated_at_2_hz(real_data, start_node, rig, tmp_path):
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
