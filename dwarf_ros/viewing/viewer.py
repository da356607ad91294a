"""The viewer in the browser: results on a time line, logged to Rerun, which serves them or writes them to a file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dwarf_ros.files import partial_file, refusing_unwritable
from dwarf_ros.geometry import scene_flow_points
from dwarf_ros.progress import Progress, counted
from dwarf_ros.types import MOVING, STATIC, InputError
from dwarf_ros.viewing.motion import MotionHistory
from dwarf_ros.viewing.pictures import moving_picture, steady_scales
from dwarf_ros.viewing.results import Result, Results
from dwarf_ros.viewing.server import LOOPBACK, PORT, import_rerun, serving
from dwarf_ros.visualization.birds_eye import ARROW_S, EGO_COLOR
from dwarf_ros.visualization.colors import disparity_color, flow_color
from dwarf_ros.visualization.drawing import over_dimmed
from dwarf_ros.visualization.legends import UNKNOWN_NOTE, disparity_legend, flow_strip
from dwarf_ros.visualization.objects import (
    MOVING_COLOR,
    camera_speed,
    object_color,
    object_label,
)
from dwarf_ros.visualization.panels import Scales, valid_maps

# Browsers can rotate a cloud of this many points smoothly without a graphics card.
_MOST_POINTS = 40_000
_MAX_DEPTH = 80.0
_STATIC_COLOR = (150, 156, 166)
_UNKNOWN_COLOR = (70, 74, 82)
# Smaller stamps count from the start of a recording, not from 1970.
_UNDATED_BELOW = 1_000_000_000_000_000_000


class ResultLog:
    """Logs results and statistics to Rerun.

    Entities: `camera` (left camera's optical frame, REP-103) with `camera/left` (image and frustum), `camera/points` and
    `camera/motion_mask` (the cloud in the image's colors, and colored by static, moving or unknown), `camera/objects` and
    `camera/velocity` (boxes, and arrows: their displacement over ground in 0.5 s) and `camera/trajectory`; `moving`,
    `disparity` and `flow` (pictures with legends); `plots/...`. Time lines: `frame` and `time`.

    Args:
        recording: a `rerun.RecordingStream`.
        live: whether the results come from a running node. Then `time` is the time of arrival, which increases even if a
            recording is played in a loop, and there are plots of latency and drops.
    """

    def __init__(self, recording: Any, live: bool = False) -> None:
        rr = import_rerun()
        self._recording = recording
        self._live = live
        self._scales: Scales | None = None
        self._history = MotionHistory()
        self.frames = 0
        recording.log("camera", rr.ViewCoordinates.RDF, static=True)
        plots = ("latency", "drops", "valid") if live else ("latency", "valid", "speed")
        recording.send_blueprint(_blueprint(plots, "time" if live else "frame"))

    def add(self, result: Result) -> None:
        """Log a result at its time."""
        rr = import_rerun()
        result = self._history.add(result)
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
        self._image("disparity", np.vstack([over_dimmed(picture, flow.valid, left), legend]))
        picture = flow_color(forward, self._scales.flow)
        note = UNKNOWN_NOTE if left is not None else ""
        strip = flow_strip(picture.shape[1], self._scales.flow, note)
        self._image("flow", np.vstack([over_dimmed(picture, flow.valid, left), strip]))
        if left is not None and flow.motion_mask is not None:
            self._image("moving", moving_picture(result))
        if camera is not None:
            self._add_points(result, left if left is not None else picture)
            self._add_motion(result)
        statistics = {"valid/valid pixels (%)": 100 * float(flow.valid.mean())}
        speed = camera_speed(flow)
        if speed is not None:
            statistics["speed/camera (m/s)"] = speed
        if result.seconds is not None:
            statistics["latency/estimate (ms)"] = result.seconds * 1e3
        self._plot(statistics)

    def add_statistics(self, statistics: Mapping[str, float]) -> None:
        """Plot statistics of a running node, with names such as "latency/median (ms)"."""
        self._set_time(time.time_ns())
        self._plot(statistics)

    def _plot(self, statistics: Mapping[str, float]) -> None:
        rr = import_rerun()
        for name, value in statistics.items():
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
        image = import_rerun().EncodedImage(contents=data.tobytes(), media_type="image/jpeg")
        self._recording.log(entity, image)

    def _add_points(self, result: Result, colors: np.ndarray) -> None:
        rr = import_rerun()
        flow = result.scene_flow
        points, _ = scene_flow_points(flow)
        step = max(1, round(np.sqrt(flow.valid.size / _MOST_POINTS)))
        shown = np.zeros(flow.valid.shape, dtype=bool)
        shown[step // 2 :: step, step // 2 :: step] = True
        with np.errstate(invalid="ignore"):
            shown &= flow.valid & (points[..., 2] < _MAX_DEPTH)
        radii = rr.Radius.ui_points(1.5)
        by_color = rr.Points3D(points[shown], colors=colors[shown], radii=radii)
        self._recording.log("camera/points", by_color)
        if flow.motion_mask is None:
            return
        by_motion = np.full((*flow.valid.shape, 3), _UNKNOWN_COLOR, dtype=np.uint8)
        by_motion[flow.motion_mask == STATIC] = _STATIC_COLOR
        by_motion[flow.motion_mask == MOVING] = MOVING_COLOR
        cloud = rr.Points3D(points[shown], colors=by_motion[shown], radii=radii)
        self._recording.log("camera/motion_mask", cloud)

    def _add_motion(self, result: Result) -> None:
        rr = import_rerun()
        objects = [item for item in result.objects if item.box is not None]
        colors = [object_color(item.id) for item in objects]
        boxes = rr.Boxes3D(
            centers=[item.position for item in objects],
            sizes=[item.size for item in objects],
            colors=colors,
            labels=[object_label(item) for item in objects],
            show_labels=True,
        )
        self._recording.log("camera/objects", boxes)
        arrows = rr.Arrows3D(
            origins=[item.position for item in objects],
            vectors=[ARROW_S * item.velocity for item in objects],
            colors=colors,
            radii=0.08,
        )
        self._recording.log("camera/velocity", arrows)
        if result.trajectory is not None and len(result.trajectory) > 1:
            radii = rr.Radius.ui_points(2)
            line = rr.LineStrips3D([result.trajectory], colors=[EGO_COLOR], radii=radii)
            self._recording.log("camera/trajectory", line)


def _blueprint(plots: tuple[str, ...], timeline: str) -> Any:
    import rerun.blueprint as rrb

    # Behind and above the camera; y points down.
    eye = rrb.EyeControls3D(position=(0, -5, -9), look_target=(0, 0, 16), eye_up=(0, -1, 0))
    grid = rrb.LineGrid3D(visible=False)
    titles = {
        "latency": "Latency (ms)",
        "drops": "Pairs without an estimate",
        "valid": "Valid pixels (%)",
        "speed": "Camera speed (m/s)",
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
        for name, hidden in (
            ("Points, objects, trajectory", "motion_mask"),
            ("Static gray, moving orange, unknown dark", "points"),
        )
    ]
    return rrb.Blueprint(
        rrb.Vertical(
            rrb.Horizontal(
                rrb.Tabs(*clouds),
                rrb.Vertical(
                    rrb.Tabs(
                        rrb.Spatial2DView(origin="moving", name="Moving objects"),
                        rrb.Spatial2DView(origin="camera/left", name="Left image"),
                    ),
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
        rrb.TimePanel(state="collapsed", timeline=timeline),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
    )


def print_line(line: str) -> None:
    """Print a line and flush it, also into a pipe."""
    print(line, flush=True)


def view_results(
    results: Results,
    bind: str = LOOPBACK,
    port: int = PORT,
    progress: Progress | None = None,
    say: Callable[[str], None] = print_line,
) -> None:
    """Serve results to browsers until SIGINT or SIGTERM; an open page is updated as they arrive.

    Args:
        results: what to show.
        bind: IP address to listen on; everybody who can reach it can see the results.
        port: of the page; the data is served on the next port.
        progress: receives the number of results done and the total.
        say: receives the address of the page.

    Raises:
        InputError: rerun-sdk is not installed, the ports are in use, or a result cannot be read.
    """
    with (
        serving(bind, port) as server,
        server.showing(results.source) as recording,
        contextlib.suppress(KeyboardInterrupt),
    ):
        say(f"{server.address} (Ctrl-C ends)")
        _add_all(results, recording, progress)
        server.process.wait()


def save_results(results: Results, file: Path, progress: Progress | None = None) -> None:
    """Write results atomically to a recording that `view_file`, or Rerun itself, can show.

    Raises:
        InputError: rerun-sdk is not installed, the file cannot be written, or a result cannot be read.
    """
    with saved_recording(file, results.source) as recording:
        _add_all(results, recording, progress)


@contextlib.contextmanager
def saved_recording(file: Path, name: str) -> Iterator[Any]:
    """A Rerun recording that is written to a file when the block ends without an error."""
    rr = import_rerun()
    if file.suffix != ".rrd":
        raise InputError(f"{file}: expected a file that ends in .rrd")
    with refusing_unwritable(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with partial_file(file) as partial:
        recording = rr.RecordingStream("dwarf_ros")
        recording.save(partial)
        recording.send_recording_name(name)
        yield recording
        recording.flush()
        recording.disconnect()


def _add_all(results: Results, recording: Any, progress: Progress | None) -> None:
    log = ResultLog(recording)
    for result in counted(results, len(results), progress):
        log.add(result)


def view_file(
    file: Path, bind: str = LOOPBACK, port: int = PORT, say: Callable[[str], None] = print_line
) -> None:
    """Serve a recording (.rrd) to browsers until SIGINT or SIGTERM; arguments and errors as of `view_results`."""
    if not file.is_file():
        raise InputError(f"{file}: no such file, expected a recording of the viewer (.rrd)")
    with serving(bind, port, file) as server, contextlib.suppress(KeyboardInterrupt):
        say(f"{server.address} (Ctrl-C ends)")
        server.process.wait()
