"""The viewer in the browser: results as a scene on a time line, shown by Rerun's own web viewer.

Rerun's wheel holds the viewer itself, so that it works on a machine without a network. Server and page are kept from sending
usage statistics, and the page from asking other servers for anything.
"""

from __future__ import annotations

import contextlib
import functools
import http.server
import importlib.util
import ipaddress
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np

from dwarf_ros.geometry import camera_motion, scene_flow_points, velocities_over_ground
from dwarf_ros.types import InputError, SceneFlow
from dwarf_ros.viewing.pictures import steady_scales
from dwarf_ros.viewing.results import Result, Results
from dwarf_ros.visualization import (
    Scales,
    disparity_color,
    disparity_legend,
    flow_color,
    has_motion,
    moving_points,
    speed_color,
    valid_maps,
    with_flow_wheel,
)

PORT = 9090
"""Where the page is; the data is on the next port."""
LOOPBACK = "127.0.0.1"

# A cloud of this many points turns smoothly in a browser without a graphics card.
_MOST_POINTS = 40_000
_MOST_ARROWS = 600
_MAX_DEPTH = 80.0
# Speed over ground of the last colour, m/s, and how much of its way an arrow shows, s.
_FASTEST = 20.0
_ARROW_S = 0.5
# Stamps below count from the start of a recording, not from 1970.
_UNDATED_BELOW = 1_000_000_000_000_000_000
_START_S = 20.0
_PAGE_FILES = ("index.html", "re_viewer.js", "re_viewer_bg.wasm", "favicon.ico")


class Scene:
    """Writes results and figures into a Rerun recording.

    Entities: `camera` (left camera's optical frame, REP-103) with `camera/left` (its image and frustum), `camera/points`
    and `camera/speed` (the cloud by colour and by speed over ground), `camera/motion` (arrows of what moves over ground, the
    way of 0.5 s); `disparity` and `flow` (pictures with their legends); `plots/...`. Time lines: `frame` and `time`.

    Args:
        recording: a `rerun.RecordingStream`.
        live: whether results come from a running node: they are shown at the time they came, which goes on where a
            recording is played in a loop, and there are plots of latency and drops.
    """

    def __init__(self, recording: Any, live: bool = False) -> None:
        rr = _rerun()
        self._recording = recording
        self._live = live
        self._scales: Scales | None = None
        self.frames = 0
        recording.log("camera", rr.ViewCoordinates.RDF, static=True)
        plots = ("latency", "drops", "valid") if live else ("latency", "valid", "speed")
        recording.send_blueprint(_blueprint(plots, "time" if live else "frame"))

    def add(self, result: Result) -> None:
        """Show a result from its time on."""
        rr = _rerun()
        flow, left = result.scene_flow, result.left
        self._scales = steady_scales(result, self._scales)
        self._set_time(time.time_ns() if self._live else flow.stamp)
        self.frames += 1
        if left is not None:
            self._image("camera/left", left)
        camera = flow.camera
        if camera is not None:
            matrix = [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]]
            size = [camera.width, camera.height]
            frustum = rr.Pinhole(
                image_from_camera=matrix, resolution=size, image_plane_distance=1.5
            )
            self._recording.log("camera/left", frustum)
        disparity, forward = valid_maps(flow)
        legend = disparity_legend(disparity.shape[1], self._scales.disparity, camera)
        picture = disparity_color(disparity, self._scales.disparity)
        self._image("disparity", np.vstack([picture, legend]))
        picture = flow_color(forward, self._scales.flow)
        self._image("flow", with_flow_wheel(picture, self._scales.flow))
        if has_motion(flow):
            self._add_points(flow, left if left is not None else picture)
        figures = {"valid/valid pixels (%)": 100 * float(flow.valid.mean())}
        if result.seconds is not None:
            figures["latency/estimate (ms)"] = result.seconds * 1e3
        self._plot(figures)

    def add_figures(self, figures: Mapping[str, float]) -> None:
        """Plot numbers of a running node, under names such as "latency/median (ms)"."""
        self._set_time(time.time_ns())
        self._plot(figures)

    def _plot(self, figures: Mapping[str, float]) -> None:
        rr = _rerun()
        for name, value in figures.items():
            plot, _, series = name.partition("/")
            self._recording.log(["plots", plot, series], rr.Scalars(value))

    def _set_time(self, stamp: int) -> None:
        self._recording.set_time("frame", sequence=self.frames)
        if stamp >= _UNDATED_BELOW:
            self._recording.set_time("time", timestamp=np.datetime64(stamp, "ns"))
        else:
            self._recording.set_time("time", duration=np.timedelta64(stamp, "ns"))

    def _image(self, entity: str, rgb: np.ndarray) -> None:
        pixels = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])
        image = _rerun().EncodedImage(contents=data.tobytes(), media_type="image/jpeg")
        self._recording.log(entity, image)

    def _add_points(self, flow: SceneFlow, colors: np.ndarray) -> None:
        rr = _rerun()
        points, _ = scene_flow_points(flow)
        step = max(1, round(np.sqrt(flow.valid.size / _MOST_POINTS)))
        shown = np.zeros(flow.valid.shape, dtype=bool)
        shown[step // 2 :: step, step // 2 :: step] = True
        with np.errstate(invalid="ignore"):
            shown &= flow.valid & (points[..., 2] < _MAX_DEPTH)
        by_color = rr.Points3D(points[shown], colors=colors[shown], radii=rr.Radius.ui_points(1.5))
        self._recording.log("camera/points", by_color)
        if flow.dt == 0:
            return
        motion = camera_motion(flow)
        velocities = velocities_over_ground(flow, motion)
        speed = np.linalg.norm(velocities, axis=-1)
        by_speed = rr.Points3D(
            points[shown],
            colors=speed_color(speed, _FASTEST)[shown],
            radii=rr.Radius.ui_points(1.5),
        )
        self._recording.log("camera/speed", by_speed)
        moving = moving_points(flow, motion) & np.isfinite(speed)
        with np.errstate(invalid="ignore"):
            moving &= points[..., 2] < _MAX_DEPTH
        rows, columns = np.nonzero(moving)
        chosen = np.linspace(0, len(rows), min(len(rows), _MOST_ARROWS), endpoint=False).astype(int)
        place = rows[chosen], columns[chosen]
        arrows = rr.Arrows3D(
            origins=points[place],
            vectors=velocities[place] * np.float32(_ARROW_S),
            colors=speed_color(speed[place][None], _FASTEST)[0],
            radii=0.02,
        )
        self._recording.log("camera/motion", arrows)
        own = float(np.linalg.norm(motion[:3, 3]) / abs(flow.dt))
        self._plot({"speed/camera (m/s)": own})


def _blueprint(plots: tuple[str, ...], timeline: str) -> Any:
    import rerun.blueprint as rrb

    # Behind and above the camera; y points down.
    eye = rrb.EyeControls3D(position=(0, -5, -9), look_target=(0, 0, 16), eye_up=(0, -1, 0))
    grid = rrb.LineGrid3D(visible=False)
    titles = {
        "latency": "Latency (ms)",
        "drops": "Pairs without an answer",
        "valid": "Valid pixels (%)",
        "speed": "Speed of the camera (m/s)",
    }
    clouds = [
        rrb.Spatial3DView(
            origin="camera",
            contents=["+ camera/**", f"- camera/{hidden}"],
            name=name,
            background=(22, 24, 29),
            line_grid=grid,
            eye_controls=eye,
        )
        for name, hidden in (("Scene", "speed"), ("Scene by speed over ground", "points"))
    ]
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(
                rrb.Tabs(*clouds),
                rrb.Vertical(
                    rrb.Spatial2DView(origin="camera/left", name="Left image"),
                    rrb.Spatial2DView(origin="disparity", name="Disparity and depth"),
                    rrb.Spatial2DView(origin="flow", name="Optical flow"),
                ),
                column_shares=[3, 2],
            ),
            rrb.Horizontal(
                *(rrb.TimeSeriesView(origin=f"plots/{plot}", name=titles[plot]) for plot in plots)
            ),
            row_shares=[4, 1],
        ),
        rrb.TimePanel(state="expanded", timeline=timeline),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
    )


def _rerun() -> Any:
    try:
        import rerun
    except ImportError:
        raise InputError(
            "viewer: rerun-sdk is not installed, expected `pip install 'dwarf_ros[viz]'`"
        ) from None
    return rerun


def tell(line: str) -> None:
    """Print a line at once, also where nobody reads along."""
    print(line, flush=True)


def view_results(
    results: Results,
    bind: str = LOOPBACK,
    port: int = PORT,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = tell,
) -> None:
    """Serve results to browsers until SIGINT or SIGTERM; a page that is open already sees them come.

    Args:
        results: what is shown.
        bind: IP address to listen on; all who reach it see the results.
        port: of the page; the data is on the next one.
        progress: called with how many results are done and how many there are.
        say: told the page's address.

    Raises:
        InputError: rerun-sdk is not installed, the ports are in use, or a result cannot be read.
    """
    with (
        serving(bind, port) as server,
        server.showing(results.source) as recording,
        contextlib.suppress(KeyboardInterrupt),
    ):
        say(f"{server.address} (Ctrl-C ends)")
        _add_all(results, Scene(recording), progress)
        server.process.wait()


def save_results(
    results: Results, file: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write results to a recording that `view_file`, or Rerun itself, shows; it appears whole or not at all.

    Raises:
        InputError: rerun-sdk is not installed, the file cannot be written, or a result cannot be read.
    """
    with saved_recording(file, results.source) as recording:
        _add_all(results, Scene(recording), progress)


@contextlib.contextmanager
def saved_recording(file: Path, name: str) -> Iterator[Any]:
    """A recording that is written to a file, which appears when the block is left without an error."""
    rr = _rerun()
    if file.suffix != ".rrd":
        raise InputError(f"--save: {file}: expected a file that ends in .rrd")
    partial = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        recording = rr.RecordingStream("dwarf_ros")
        recording.save(partial)
        recording.send_recording_name(name)
        yield recording
        recording.flush()
        recording.disconnect()
        partial.replace(file)
    except OSError as error:
        raise InputError(
            f"--save: {file}: {error.strerror or error}, expected to write there"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _add_all(results: Results, scene: Scene, progress: Callable[[int, int], None] | None) -> None:
    for number, result in enumerate(results):
        if progress is not None:
            progress(number, len(results))
        scene.add(result)
    if progress is not None:
        progress(len(results), len(results))


def view_file(
    file: Path, bind: str = LOOPBACK, port: int = PORT, say: Callable[[str], None] = tell
) -> None:
    """Serve a recording (.rrd) to browsers until SIGINT or SIGTERM; arguments and errors as of `view_results`."""
    if not file.is_file():
        raise InputError(f"{file}: no such file, expected a recording that dwarf view --save wrote")
    with serving(bind, port, file) as server, contextlib.suppress(KeyboardInterrupt):
        say(f"{server.address} (Ctrl-C ends)")
        server.process.wait()


@dataclass(frozen=True)
class Server:
    """Rerun's server, running.

    Attributes:
        address: of the page.
        data: where recordings are sent to.
        process: the server.
    """

    address: str
    data: str
    process: subprocess.Popen[bytes]

    @contextlib.contextmanager
    def showing(self, name: str) -> Iterator[Any]:
        """A recording under that name, a `rerun.RecordingStream`, that this server shows."""
        recording = _rerun().RecordingStream("dwarf_ros")
        recording.connect_grpc(self.data)
        recording.send_recording_name(name)
        try:
            yield recording
        finally:
            # While there is a server yet.
            recording.disconnect()


@contextlib.contextmanager
def serving(bind: str = LOOPBACK, port: int = PORT, file: Path | None = None) -> Iterator[Server]:
    """Run Rerun's server of page and data; it ends with the block, in which SIGINT, SIGTERM and SIGHUP raise
    KeyboardInterrupt.

    Args:
        bind: IP address to listen on.
        port: of the page; the data is on the next one.
        file: a recording to show.

    Raises:
        InputError: rerun-sdk is not installed, the address is none of this machine, or the server does not start.
    """
    program = _server_program()
    host = _host(bind)
    for number in (port, port + 1):
        _check_free(bind, number)
    data = f"rerun+http://{host}:{port + 1}/proxy"
    command = [str(program), "--serve-grpc", "--bind", bind, "--port", str(port + 1)]
    if not ipaddress.ip_address(bind).is_loopback:
        # The page is not of localhost then, and must be let in.
        command += ["--cors-allow-origin", f"http://*:{port}"]
    if file is not None:
        command.append(str(file))
    with (
        interrupted_by_signals(),
        tempfile.TemporaryDirectory(prefix="dwarf_view_") as name,
    ):
        folder = Path(name)
        environment = _without_statistics(program, folder)
        _fetch_page(program, environment, folder)
        with (
            _running(command, environment, bind, (port + 1,), folder / "log") as process,
            _serving_page(folder / "page", bind, port),
        ):
            address = f"http://{host}:{port}/?url={quote(data, safe='')}"
            yield Server(address, data, process)


@contextlib.contextmanager
def _running(
    command: list[str], environment: dict[str, str], bind: str, ports: tuple[int, ...], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A server, from when it listens on its ports until the block is left."""
    with log.open("wb") as stream:
        # In a session of its own, or a terminal's Ctrl-C would end it before all was sent.
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        _wait_until_serving(process, bind, ports, log)
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()
        process.wait()


def _fetch_page(program: Path, environment: dict[str, str], folder: Path) -> None:
    """Take the viewer's files from Rerun's own server, which adds no header that would keep the page to itself."""
    (folder / "page").mkdir()
    page, data = _free_port(), _free_port()
    command = [str(program), "--serve-web", "--bind", LOOPBACK]
    command += ["--web-viewer-port", str(page), "--port", str(data)]
    with _running(command, environment, LOOPBACK, (page,), folder / "page_log"):
        for name in _PAGE_FILES:
            url = f"http://{LOOPBACK}:{page}/{name}"
            with urllib.request.urlopen(url, timeout=_START_S) as answer:
                (folder / "page" / name).write_bytes(answer.read())


@contextlib.contextmanager
def _serving_page(folder: Path, bind: str, port: int) -> Iterator[None]:
    policy = (
        f"connect-src 'self' http://*:{port + 1}; style-src 'self' 'unsafe-inline'; font-src 'self'"
    )

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            self.send_header("Content-Security-Policy", policy)
            super().end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what browsers ask for is of no interest."""

    handler = functools.partial(Handler, directory=str(folder))
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    server_class = type(
        "PageServer", (http.server.ThreadingHTTPServer,), {"address_family": family}
    )
    with server_class((bind, port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt in the block, where this is the main thread, which alone may ask."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = [signal.SIGINT, signal.SIGTERM]
        # A shell that runs a command in the background has SIGINT ignored; SIGHUP is only where the user wants it (nohup).
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        before = {n: signal.signal(n, signal.default_int_handler) for n in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _server_program() -> Path:
    # The SDK's own server listens on all addresses; this one can be told.
    spec = importlib.util.find_spec("rerun_cli")
    locations = list(spec.submodule_search_locations or []) if spec is not None else []
    for folder in locations:
        if (program := Path(folder, "rerun")).is_file():
            return program
    _rerun()
    raise InputError(
        "viewer: rerun-sdk has no server (rerun_cli/rerun), expected its wheel from PyPI"
    )


def _without_statistics(program: Path, folder: Path) -> dict[str, str]:
    """Environment with a configuration of its own, in which usage statistics are off."""
    environment = {
        **os.environ,
        "XDG_CONFIG_HOME": f"{folder}/config",
        "XDG_DATA_HOME": f"{folder}/data",
        "RUST_LOG": "error",
    }
    subprocess.run(
        [str(program), "analytics", "disable"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_START_S,
        check=False,
    )
    return environment


def _host(bind: str) -> str:
    """How a browser is to call an address that the server listens on."""
    try:
        address = ipaddress.ip_address(bind)
    except ValueError:
        raise InputError(f"--bind: {bind!r}, expected an IP address such as 0.0.0.0") from None
    if not address.is_unspecified:
        return f"[{bind}]" if address.version == 6 else bind
    # The address by which the default route is left; nothing is sent.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return socket.gethostname()
        return probe.getsockname()[0]


def _check_free(bind: str, port: int) -> None:
    if not 0 < port < 2**16:
        raise InputError(f"--port: {port}, expected 1 to 65534")
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind, port))
        except OSError as error:
            raise InputError(
                f"viewer: cannot listen on {bind} port {port} ({error.strerror}), expected --bind and --port of an address "
                "of this machine with two free ports"
            ) from None


def _wait_until_serving(
    process: subprocess.Popen[bytes], bind: str, ports: tuple[int, ...], log: Path
) -> None:
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(bind, bind)
    end = time.monotonic() + _START_S
    for port in ports:
        while True:
            if process.poll() is not None or time.monotonic() > end:
                said = " ".join(log.read_text(errors="replace").split())[-200:]
                raise InputError(
                    f"viewer: Rerun's server does not start: {said or 'no reason given'}"
                )
            try:
                socket.create_connection((host, port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
