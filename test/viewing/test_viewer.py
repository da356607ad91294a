"""The viewer: what its recordings hold, and that its server listens where it is told and lets its page ask nobody else."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rerun", reason="rerun-sdk, the extra viz, is not installed")

import rerun.chunk

from dwarf_ros.geometry import scene_flow_points
from dwarf_ros.types import InputError
from dwarf_ros.viewing.results import Results
from dwarf_ros.viewing.server import serving
from dwarf_ros.viewing.viewer import save_results, view_file

REPOSITORY = Path(__file__).resolve().parents[2]


def recorded(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of each entity: what a recording holds of it, by the components' short names and the time lines."""
    found: dict[str, list[dict[str, Any]]] = {}
    for chunk in rerun.chunk.RrdReader(file).stream():
        batch = chunk.to_record_batch()
        names = [name.rpartition(":")[2] for name in batch.schema.names]
        columns = [
            # To whole nanoseconds, which Python's own times cannot hold.
            (column.cast("int64") if name in ("time", "log_time") else column).to_pylist()
            for name, column in zip(names, batch.columns, strict=True)
        ]
        for row in zip(*columns, strict=True):
            found.setdefault(chunk.entity_path, []).append(dict(zip(names, row, strict=True)))
    for rows in found.values():
        rows.sort(key=lambda row: row.get("frame") or 0)
    return found


def with_component(rows: list[dict[str, Any]], component: str) -> list[Any]:
    return [row[component] for row in rows if row.get(component) is not None]


def picture(data: list[int]) -> np.ndarray:
    pixels = cv2.imdecode(np.array(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


@pytest.fixture
def three(make_result) -> Results:
    start = 1_700_000_000_000_000_000
    names = ["000000", "000001", "000002"]
    return Results("here", names, lambda i: make_result(names[i], start + i * 100_000_000))


@pytest.fixture
def entities(three, tmp_path) -> dict[str, list[dict[str, Any]]]:
    save_results(three, tmp_path / "new" / "run.rrd")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["run.rrd"]
    return recorded(tmp_path / "new" / "run.rrd")


def test_every_result_is_on_both_time_lines(entities):
    pictures = ("/moving", "/disparity", "/flow")
    scene = ("/camera/points", "/camera/motion_mask", "/camera/objects", "/camera/velocity")
    for entity in (*pictures, *scene):
        rows = [row for row in entities[entity] if row.get("frame") is not None]
        assert [row["frame"] for row in rows] == [0, 1, 2], entity
        stamps = [1_700_000_000_000_000_000 + i * 100_000_000 for i in range(3)]
        assert [row["time"] for row in rows] == stamps, entity


def test_the_cloud_is_the_scene_in_metres_in_its_own_colours(entities, three):
    result = three.read(0)
    points, _ = scene_flow_points(result.scene_flow)
    positions = np.array(with_component(entities["/camera/points"], "positions")[0])
    assert len(positions) == result.scene_flow.valid.sum()
    np.testing.assert_allclose(positions, points[result.scene_flow.valid], rtol=1e-6)
    colors = np.array(with_component(entities["/camera/points"], "colors")[0], dtype=np.uint32)
    left = result.left[result.scene_flow.valid].astype(np.uint32)
    assert (colors == left[:, 0] << 24 | left[:, 1] << 16 | left[:, 2] << 8 | 255).all()


def test_the_object_has_a_box_an_arrow_and_one_id(entities):
    for centers in with_component(entities["/camera/objects"], "centers"):
        # The patch is 40 x 20 px in the middle of the image, 12 m ahead.
        np.testing.assert_allclose(centers, [[0, 0, 12]], atol=0.3)
    labels = with_component(entities["/camera/objects"], "labels")
    assert len(labels) == 3
    assert all(len(frame) == 1 and frame[0].startswith("#0 ") for frame in labels)
    for vectors in with_component(entities["/camera/velocity"], "vectors"):
        # It moves right at 10 m/s; arrows are half a second long.
        np.testing.assert_allclose(vectors, [[5, 0, 0]], atol=0.5)


def test_the_trajectory_is_the_cameras(entities):
    strips = with_component(entities["/camera/trajectory"], "strips")
    # The camera moves right at 3 m/s; there are three frames in 0.2 s.
    np.testing.assert_allclose(strips[-1], [[[-0.6, 0, 0], [-0.3, 0, 0], [0, 0, 0]]], atol=1e-4)


def test_the_frustum_is_the_camera(entities):
    matrix = np.array(with_component(entities["/camera/left"], "image_from_camera")[0])
    assert matrix.reshape(3, 3).T.tolist() == [[200, 0, 80], [0, 200, 40], [0, 0, 1]]
    assert np.array(with_component(entities["/camera/left"], "resolution")[0]).tolist() == [
        [160, 80]
    ]


def test_pictures_are_those_with_legends(entities, three):
    left = picture(with_component(entities["/camera/left"], "blob")[0][0])
    assert np.abs(left.astype(int) - three.read(0).left).mean() < 8
    disparity = picture(with_component(entities["/disparity"], "blob")[0][0])
    assert disparity.shape == (80 + 30, 160, 3)
    # What is not valid shows the left image, dimmed and gray.
    assert np.ptp(disparity[40, 5].astype(int)) < 12 < np.ptp(disparity[40, 100].astype(int))
    assert picture(with_component(entities["/flow"], "blob")[0][0]).shape == (80 + 58, 160, 3)


def test_figures_are_plotted(entities):
    plots = {name: rows for name, rows in entities.items() if name.startswith("/plots/")}
    values = {
        name: np.ravel(with_component(rows, "scalars")).tolist() for name, rows in plots.items()
    }
    by_plot = {name.split("/")[2]: numbers for name, numbers in values.items()}
    assert by_plot["latency"] == [250.0] * 3
    assert by_plot["valid"] == pytest.approx([100 * 140 / 160] * 3)
    assert by_plot["speed"] == pytest.approx([3.0] * 3, rel=0.05)


def test_a_result_without_camera_image_or_time_is_shown_as_far_as_it_goes(result, tmp_path):
    bare = replace(
        result, left=None, scene_flow=replace(result.scene_flow, camera=None, dt=0.0, stamp=0)
    )
    save_results(Results("here", ["a"], lambda _: bare), tmp_path / "run.rrd")
    entities = recorded(tmp_path / "run.rrd")
    assert "/camera/points" not in entities
    assert {"/disparity", "/flow"} <= entities.keys()
    untimed = replace(result, scene_flow=replace(result.scene_flow, dt=0.0, stamp=0))
    save_results(Results("here", ["a"], lambda _: untimed), tmp_path / "run.rrd")
    entities = recorded(tmp_path / "run.rrd")
    assert "/camera/points" in entities
    assert "/camera/trajectory" not in entities


@pytest.mark.parametrize(
    ("name", "what"), [("run.txt", r"\.rrd"), ("file/run.rrd", r"file/run\.rrd: cannot be written")]
)
def test_a_recording_that_cannot_be_written_is_one_line(three, tmp_path, name, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=what) as error:
        save_results(three, tmp_path / name)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def two_free_ports() -> int:
    for port in range(20_000 + os.getpid() % 9000, 30_000):
        with socket.socket() as one, socket.socket() as other:
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port
    return pytest.fail("no two free ports")


def listening(port: int) -> set[str]:
    """Addresses that something listens on at a port, as the kernel lists them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            address, number = line.split()[1].split(":")
            if line.split()[3] == "0A" and int(number, 16) == port:
                found.add(address)
    return found


def test_the_server_is_on_loopback_alone_and_its_page_asks_nobody_else():
    port = two_free_ports()
    with serving(port=port) as server:
        if Path("/proc/net/tcp").exists():
            assert listening(port) == listening(port + 1) == {"0100007F"}
        assert server.address.startswith(f"http://127.0.0.1:{port}/?url=rerun%2Bhttp")
        with urllib.request.urlopen(server.address, timeout=10) as page:
            policy = page.headers["Content-Security-Policy"]
            assert b"canvas" in page.read()
        assert f"connect-src 'self' http://*:{port + 1};" in policy
        wasm = f"http://127.0.0.1:{port}/re_viewer_bg.wasm"
        with urllib.request.urlopen(wasm, timeout=10) as answer:
            assert answer.headers["Content-Type"] == "application/wasm"
            assert answer.read(4) == b"\0asm"
        with pytest.raises(InputError, match=f"port {port}"), serving(port=port):
            pass
    assert server.process.poll() is not None
    for number in (port, port + 1):
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", number), timeout=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(tmp_path, three, number):
    save_results(three, tmp_path / "run.rrd")
    port = two_free_ports()
    code = (
        "import sys; from pathlib import Path; from dwarf_ros.viewing.viewer import view_file; "
        "view_file(Path(sys.argv[1]), port=int(sys.argv[2]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code, str(tmp_path / "run.rrd"), str(port)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline().startswith(f"http://127.0.0.1:{port}/")
        # To the whole group, as a terminal does.
        os.killpg(process.pid, number)
        said, _ = process.communicate(timeout=15)
        assert (process.returncode, said) == (0, "")
    finally:
        process.kill()
        process.wait()
    end = time.monotonic() + 5
    while listening(port + 1):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert [file.name for file in tmp_path.iterdir()] == ["run.rrd"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"bind": "vehicle"}, "bind"),
        ({"port": 0}, "port"),
        ({"bind": "192.0.2.7"}, "192.0.2.7"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(tmp_path, options, what):
    file = tmp_path / "run.rrd"
    with pytest.raises(InputError, match="no such file"):
        view_file(file)
    file.write_bytes(b"")
    with pytest.raises(InputError, match=what) as error:
        view_file(file, **options)
    assert "\n" not in str(error.value)
