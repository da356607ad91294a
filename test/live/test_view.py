"""The live viewer, a process of its own, against answers published for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rerun", reason="rerun-sdk, the extra viz, is not installed")

import rerun.chunk

from dwarf_ros.live.view import _figures, view
from dwarf_ros.types import InputError, SceneFlow, StereoCamera

REPOSITORY = Path(__file__).resolve().parents[2]
CAMERA = StereoCamera(fx=90, fy=90, cx=32, cy=16, cx_right=32, baseline=0.4, width=64, height=32)
STAMP = 1_700_000_000_000_000_000


def answer(stamp: int) -> SceneFlow:
    disparity = np.full((32, 64), 6, dtype=np.float32)
    flow = np.ones((32, 64, 2), dtype=np.float32)
    valid = np.ones((32, 64), dtype=bool)
    return SceneFlow(disparity, disparity, flow, valid, stamp, -0.1, CAMERA, "eye")


def test_what_is_published_is_shown_with_latency_and_drops(ros_environment, tmp_path):
    message_type = pytest.importorskip("dwarf_ros.msg").SceneFlow
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
    from sensor_msgs.msg import Image
    from std_msgs.msg import Float64

    from dwarf_ros.ros.messages import image_message, scene_flow_message
    from dwarf_ros.ros.status import diagnostics_message

    file = tmp_path / "live.rrd"
    code = (
        "import sys; from pathlib import Path; from dwarf_ros.live.view import view; "
        "sys.exit(view('robot', save=Path(sys.argv[1])))"
    )
    viewer = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(file)],
        env={**ros_environment, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("talker", context=context, namespace="robot")
    kinds = {
        "left/image_rect": Image,
        "estimate": message_type,
        "/diagnostics": DiagnosticArray,
        "debug/latency_ms": Float64,
    }
    publishers = {topic: node.create_publisher(kind, topic, 10) for topic, kind in kinds.items()}
    try:
        assert viewer.stdout.readline() == f"writing {file} (Ctrl-C ends)\n"
        end = time.monotonic() + 15
        while not all(p.get_subscription_count() for p in publishers.values()):
            assert time.monotonic() < end, "the viewer does not subscribe"
            time.sleep(0.02)
        time.sleep(0.5)
        left = np.full((32, 64, 3), (10, 200, 30), dtype=np.uint8)
        values = {"p95 latency (ms)": "31.5", "median latency (ms)": "", "dropped: busy": 2}
        for frame in range(3):
            stamp = STAMP + frame * 100_000_000
            publishers["left/image_rect"].publish(image_message(left, stamp, "eye"))
            time.sleep(0.1)
            publishers["estimate"].publish(scene_flow_message(answer(stamp), "classical"))
            publishers["debug/latency_ms"].publish(Float64(data=12.5))
            publishers["/diagnostics"].publish(
                diagnostics_message(
                    "/robot/dwarf", "", stamp, DiagnosticStatus.OK, "active", values
                )
            )
            time.sleep(0.3)
        viewer.send_signal(signal.SIGINT)
        said, _ = viewer.communicate(timeout=15)
        assert viewer.returncode == 0, said
        assert said == f"{file}: 3 estimates\n"
    finally:
        viewer.kill()
        viewer.wait()
        node.destroy_node()
        context.try_shutdown()
    chunks = list(rerun.chunk.RrdReader(file).stream())
    rows = {}
    for chunk in chunks:
        rows[chunk.entity_path] = rows.get(chunk.entity_path, 0) + chunk.num_rows
    for entity in ("/camera/points", "/disparity", "/flow"):
        assert rows[entity] == 3, entity
    # Coloured by the left image of the same stamp: red, green, blue, alpha.
    (points,) = [c for c in chunks if c.entity_path == "/camera/points"][:1]
    batch = points.to_record_batch()
    (colors,) = (n for n in batch.schema.names if n.endswith("colors"))
    assert set(batch.column(colors)[0].as_py()) == {10 << 24 | 200 << 16 | 30 << 8 | 255}
    plotted = {entity for entity in rows if entity.startswith("/plots/")}
    assert {entity.split("/")[2] for entity in plotted} >= {"latency", "drops", "valid"}


def test_latency_and_drops_are_taken_from_the_diagnostics():
    values = {
        "estimator": "classical",
        "accepted": "9",
        "median latency (ms)": "12.5",
        "p95 latency (ms)": "",
        "dropped: busy": "3",
        "dropped: failed": "1",
        "not paired: no partner": "2",
    }
    assert _figures(values) == {
        "latency/median (ms)": 12.5,
        "drops/dropped: busy": 3.0,
        "drops/dropped: failed": 1.0,
        "drops/not paired: no partner": 2.0,
        "drops/dropped: all": 4.0,
    }


@pytest.mark.parametrize("namespace", ["/no.where", "/tmp/", "1"])
def test_a_namespace_that_cannot_be_is_one_line(namespace):
    with pytest.raises(InputError, match="namespace") as error:
        view(namespace)
    assert "\n" not in str(error.value)
