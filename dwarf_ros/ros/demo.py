"""Plays a stereo sequence into the live node, records what it publishes, and shows it: figures and pictures.

docs/pictures/demo.png is the demo's own: ``make demo && cp out/demo/pictures/frame_000010.png docs/pictures/demo.png``.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dwarf_ros.datasets.formats import write_atomically
from dwarf_ros.datasets.procedural import ProceduralDrive, write_drive
from dwarf_ros.datasets.sequences import StereoSequence, open_sequence
from dwarf_ros.evaluation.metrics import disparity_errors, end_point_error, flow_errors
from dwarf_ros.geometry import scene_flow_points
from dwarf_ros.ros.recorder import READY, Recording, read_recording, read_summary
from dwarf_ros.types import InputError, SceneFlow
from dwarf_ros.visualization import scene_flow_panel

DRIVE_SEED = 4
DRIVE_FRAMES = 20
DRIVE_SIZE = (640, 224)
# Share of the accepted frame pairs that must have been answered.
REQUIRED_SHARE = 0.9
PICTURES = 7
# About one to one for the images of the demo's own drive.
PICTURE_WIDTH = 1100

# Loading a network for the first time compiles its graph.
_ACTIVE_WAIT_S = 180.0
_READY_WAIT_S = 30.0
# Longer than any estimator takes for one pair, and than the node's diagnostics are apart.
_IDLE_S = 6.0
_PLAYER_MARGIN_S = 60.0
_RECORDER_MARGIN_S = 60.0
_STOP_WAIT_S = 5.0


class DemoError(RuntimeError):
    """The demo cannot go on; the message is one line."""


@dataclass(frozen=True)
class Played:
    """One line of the player's log: number in the sequence, header stamp and wall time of publication, ns."""

    index: int
    stamp_ns: int
    wall_ns: int


@dataclass(frozen=True)
class FrameFigures:
    """Figures of one answer; errors are over the valid pixels that have ground truth, None without ground truth.

    Attributes:
        frame: number of the reference in the sequence.
        other: number of the frame it was compared with.
        latency_ms: from the publication of the newer of the two to the reception of the answer, ms.
        valid_percent: valid pixels, % of all.
        disparity_epe_px: mean absolute disparity error, px.
        d1_percent: disparity outliers (> 3 px and > 5 %), %.
        flow_epe_px: mean end-point error of the optical flow, px.
        fl_percent: optical flow outliers (> 3 px and > 5 %), %.
        motion_epe_m: median end-point error of the 3D motion between the two frames, m.
    """

    frame: int
    other: int
    latency_ms: float
    valid_percent: float
    disparity_epe_px: float | None = None
    d1_percent: float | None = None
    flow_epe_px: float | None = None
    fl_percent: float | None = None
    motion_epe_m: float | None = None


def run_demo(
    source: Path | None,
    out: Path,
    rate_hz: float = 2.0,
    estimator: str = "auto",
    weights: Path | None = None,
    engine: str = "auto",
    reference: str = "current",
    drive: ProceduralDrive | None = None,
) -> int:
    """Play a sequence into the live node over DDS, and print and draw what comes back; ends by itself.

    Node, player and recorder are processes of their own, on a ROS domain of their own unless ROS_DOMAIN_ID is set.
    `out` gets figures.json, pictures/, recording/ (one .npz an answer), the logs, and drive/ where there is no source.

    Args:
        source: folder that `open_sequence` reads; None: a procedural drive, which has ground truth.
        out: folder to write to.
        rate_hz: frames a second of wall time.
        estimator: of the node.
        weights: of the node's network.
        engine: of the node's network.
        reference: the node's parameter of this name, current or previous.
        drive: the drive to play where there is no source; None: the demo's own.

    Returns:
        0 if answers came for at least 90 % of the frame pairs that the node accepted, and for more than none; else 1.

    Raises:
        InputError: the source, the estimator or another argument cannot be used.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"--rate: {rate_hz:g} Hz, expected > 0 Hz")
    _prepare_folder(out)
    if source is None:
        drive = drive or ProceduralDrive(DRIVE_SEED, DRIVE_FRAMES, *DRIVE_SIZE)
        source = out / "drive"
        _say(f"rendering a drive of {len(drive)} stereo frames to {source}")
        write_drive(drive, source)
    else:
        drive = None
    sequence = open_sequence(source)
    if len(sequence) < 2:
        raise InputError(f"{source}: {len(sequence)} stereo frame, expected at least 2")
    node_arguments = ["-p", f"estimator:={estimator}", "-p", f"engine:={engine}"]
    node_arguments += ["-p", f"reference:={reference}"]
    if weights is not None:
        node_arguments += ["-p", f"weights:={weights.resolve()}"]
    try:
        with _sigterm_as_interrupt():
            _run_processes(source, len(sequence), out, rate_hz, reference, node_arguments)
        return _show(sequence, drive, out)
    except DemoError as error:
        print(f"dwarf: demo failed: {error}; logs are in {out}", file=sys.stderr)
        return 1


def _prepare_folder(out: Path) -> None:
    """Make the folder, and remove what an earlier demo left that would be mistaken for this one's."""
    try:
        for name in ("recording", "pictures"):
            (out / name).mkdir(parents=True, exist_ok=True)
        stale = [*(out / "recording").glob("*.npz"), *(out / "pictures").glob("frame_*.png")]
        stale += [*(out / "drive").glob("image_?/*.png")]
        stale += [out / "recording" / "summary.json", out / "player.jsonl", out / "figures.json"]
        for file in stale:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"--out: {out}: {error.strerror}, expected a folder to write to") from None


def _run_processes(
    source: Path,
    frames: int,
    out: Path,
    rate_hz: float,
    reference: str,
    node_arguments: Sequence[str],
) -> None:
    environment = dict(os.environ)
    environment.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with ExitStack() as stack:

        def start(name: str, module: str, *arguments: str) -> _Child:
            command = [sys.executable, "-u", "-m", module, *arguments]
            return stack.enter_context(_Child(name, command, environment, out / f"{name}.log"))

        node = start("node", "dwarf_ros.ros.node", "--ros-args", *node_arguments)
        node.wait_for(lambda: _active(node), _ACTIVE_WAIT_S, "active")
        _say(f"{_configured(node)}; domain {environment['ROS_DOMAIN_ID']}")
        recorder = start(
            "recorder",
            "dwarf_ros.ros.recorder",
            str(out / "recording"),
            f"--expected={frames - 1}",
            f"--idle-timeout={_IDLE_S}",
            f"--reference={reference}",
        )
        recorder.wait_for(lambda: READY in recorder.log(), _READY_WAIT_S, "ready")
        _say(f"playing {frames} frames of {source} at {rate_hz:g} Hz")
        player = start(
            "player",
            "dwarf_ros.cli",
            "play",
            str(source),
            f"--rate={rate_hz}",
            f"--log={out / 'player.jsonl'}",
        )
        recording = out / "recording"
        with _progress(lambda: len(list(recording.glob("*.npz"))), frames - 1) as tell:
            player.wait(frames / rate_hz + _PLAYER_MARGIN_S, node, tell)
            recorder.wait(_RECORDER_MARGIN_S, node, tell)
        node.stop()


class _Child:
    """A process that ends with the block it was started for; what it says goes to a file."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until the condition holds.

        Raises:
            DemoError: the process ended before, or it took too long.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            self.check_running()
            if time.monotonic() > end:
                raise DemoError(f"the {self.name} is not {what} after {timeout_s:g} s")
            time.sleep(0.05)

    def wait(self, timeout_s: float, needed: _Child, tell: Callable[[], None]) -> None:
        """Wait until it has ended well, while another that it needs runs.

        Raises:
            DemoError: it failed, or took too long, or the other one ended.
        """
        end = time.monotonic() + timeout_s
        while (code := self._process.poll()) is None:
            needed.check_running()
            if time.monotonic() > end:
                raise DemoError(f"the {self.name} has not ended after {timeout_s:g} s")
            tell()
            time.sleep(0.1)
        if code != 0:
            raise DemoError(f"the {self.name} ended with code {code}: {self._last_line()}")

    def check_running(self) -> None:
        if (code := self._process.poll()) is not None:
            raise DemoError(f"the {self.name} ended early, with code {code}: {self._last_line()}")

    def stop(self) -> None:
        """End it: kindly, then less so."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                continue

    def _last_line(self) -> str:
        lines = self.log().split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _active(node: _Child) -> bool:
    """Whether the node is active.

    Raises:
        InputError: it could not be configured.
    """
    log = node.log()
    if found := re.search(r"not configured: ([^\n]*)", log):
        raise InputError(found[1].split("; set the parameters")[0])
    return "active: waiting for" in log


def _configured(node: _Child) -> str:
    found = re.search(r"configured: (estimator [^\n]*)", node.log())
    return f"node is active with {found[1]}" if found else "node is active"


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the block like Ctrl-C, so that no process is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(count: Callable[[], int], total: int) -> Iterator[Callable[[], None]]:
    """What to call now and then while answers come: a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("answers", total=total)
        yield lambda: bar.update(task, completed=count())


def _show(sequence: StereoSequence, drive: ProceduralDrive | None, out: Path) -> int:
    """Print and write the figures and pictures of what was recorded; the exit code."""
    played = _read_player_log(out / "player.jsonl")
    by_stamp = {frame.stamp_ns: frame for frame in played}
    files = sorted((out / "recording").glob("*.npz"))
    figures: list[FrameFigures] = []
    answers: list[tuple[Path, Played]] = []
    received: list[int] = []
    for file in files:
        recording = read_recording(file)
        reference = by_stamp.get(recording.scene_flow.stamp)
        other = by_stamp.get(recording.scene_flow.other_stamp)
        if reference is None or other is None:
            raise DemoError(f"{file} answers for a frame that was never played")
        figures.append(_frame_figures(recording, reference, other, drive))
        answers.append((file, reference))
        received.append(recording.received)
    summary = _summary(figures, received, played, read_summary(out / "recording"))
    _print_table(figures)
    _print_summary(summary)
    document = {"frames": [asdict(frame) for frame in figures], "summary": summary}
    write_atomically(out / "figures.json", (json.dumps(document, indent=2) + "\n").encode())
    for position in _spread(len(answers), PICTURES):
        file, reference = answers[position]
        recording = read_recording(file)
        name = f"frame_{reference.index:06d}.png"
        panel = scene_flow_panel(
            sequence[reference.index].left,
            recording.scene_flow,
            f"Frame {reference.index}",
            f"{summary['estimator']} on {summary['engine']}, answered after "
            f"{figures[position].latency_ms:.0f} ms",
            PICTURE_WIDTH,
        )
        _write_small_png(out / "pictures" / name, panel)
    _say(f"pictures are in {out / 'pictures'}, figures in {out / 'figures.json'}")
    enough = summary["answers"] > 0 and summary["share_percent"] >= 100 * REQUIRED_SHARE
    if not enough:
        _say(
            f"FAILED: {summary['answers']} answers to {summary['accepted']} accepted pairs, "
            f"expected more than 0 and at least {100 * REQUIRED_SHARE:.0f} %"
        )
    return 0 if enough else 1


def _write_small_png(file: Path, picture: np.ndarray) -> None:
    """Write a picture with the strongest compression: it may go into a document."""
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_atomically(file, data.tobytes())


def _read_player_log(file: Path) -> list[Played]:
    try:
        return [Played(**json.loads(line)) for line in file.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise DemoError(f"{file}: {error}, expected the player's log") from None


def _frame_figures(
    recording: Recording, reference: Played, other: Played, drive: ProceduralDrive | None
) -> FrameFigures:
    scene_flow = recording.scene_flow
    newest = max(reference.wall_ns, other.wall_ns)
    figures = FrameFigures(
        frame=reference.index,
        other=other.index,
        latency_ms=(recording.received - newest) / 1e6,
        valid_percent=100 * float(scene_flow.valid.mean()),
    )
    if drive is None:
        return figures
    true = drive.ground_truth(reference.index, other.index).scene_flow
    unknown = np.float32(np.nan)
    disparity = disparity_errors(
        np.where(scene_flow.valid, scene_flow.disparity, unknown), true.disparity
    )
    flow = flow_errors(np.where(scene_flow.valid[..., None], scene_flow.flow, unknown), true.flow)
    motion = end_point_error(_motion(scene_flow), _motion(true))
    return FrameFigures(
        frame=figures.frame,
        other=figures.other,
        latency_ms=figures.latency_ms,
        valid_percent=figures.valid_percent,
        disparity_epe_px=_number(disparity.mean),
        d1_percent=_number(disparity.outlier_rate),
        flow_epe_px=_number(flow.mean),
        fl_percent=_number(flow.outlier_rate),
        motion_epe_m=_median(motion[np.isfinite(motion)]),
    )


def _motion(scene_flow: SceneFlow) -> np.ndarray:
    """3D motion from the one frame to the other, seen from the moving camera, m."""
    points, points_next = scene_flow_points(scene_flow)
    return points_next - points


def _summary(
    figures: list[FrameFigures], received: list[int], played: list[Played], recorded: dict[str, Any]
) -> dict[str, Any]:
    values: dict[str, str] = next(
        (
            status["values"]
            for name, status in recorded["diagnostics"].items()
            if name.endswith("scene flow")
        ),
        {},
    )
    accepted = int(values.get("accepted", 0))
    latencies = [frame.latency_ms for frame in figures]
    return {
        "estimator": values.get("estimator", "unknown"),
        "engine": values.get("engine", "unknown"),
        "played": len(played),
        "accepted": accepted,
        "answers": len(figures),
        "share_percent": 100 * len(figures) / accepted if accepted else 0.0,
        "rate_in_hz": _rate([frame.wall_ns for frame in played]),
        "rate_out_hz": _rate(sorted(received)),
        "latency_median_ms": _median(latencies),
        "latency_p95_ms": float(np.percentile(latencies, 95)) if latencies else None,
        **{
            name: _mean([getattr(frame, name) for frame in figures])
            for name in (
                "valid_percent",
                "disparity_epe_px",
                "d1_percent",
                "flow_epe_px",
                "fl_percent",
                "motion_epe_m",
            )
        },
        "node": values,
    }


def _rate(times_ns: list[int]) -> float | None:
    if len(times_ns) < 2 or times_ns[-1] == times_ns[0]:
        return None
    return (len(times_ns) - 1) * 1e9 / (times_ns[-1] - times_ns[0])


def _median(values: Sequence[float] | np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


_COLUMNS = (
    ("frame", "frame", "d"),
    ("to", "other", "d"),
    ("latency ms", "latency_ms", ".0f"),
    ("valid %", "valid_percent", ".1f"),
    ("disparity EPE px", "disparity_epe_px", ".2f"),
    ("D1 %", "d1_percent", ".1f"),
    ("flow EPE px", "flow_epe_px", ".2f"),
    ("Fl %", "fl_percent", ".1f"),
    ("3D EPE m (median)", "motion_epe_m", ".3f"),
)


def _print_table(figures: list[FrameFigures]) -> None:
    columns = [
        column
        for column in _COLUMNS
        if any(getattr(frame, column[1]) is not None for frame in figures)
    ]
    print("  ".join(title for title, _, _ in columns))
    for frame in figures:
        cells = []
        for title, name, form in columns:
            value = getattr(frame, name)
            cells.append(("-" if value is None else format(value, form)).rjust(len(title)))
        print("  ".join(cells))


def _print_summary(summary: dict[str, Any]) -> None:
    def shown(name: str, form: str) -> str:
        value = summary[name]
        return "-" if value is None else format(value, form)

    print(
        f"{summary['estimator']} on {summary['engine']}: {summary['answers']} answers to "
        f"{summary['accepted']} accepted pairs ({summary['share_percent']:.0f} %) of "
        f"{summary['played']} frames"
    )
    print(
        f"rate in {shown('rate_in_hz', '.2f')} Hz, out {shown('rate_out_hz', '.2f')} Hz; latency "
        f"median {shown('latency_median_ms', '.0f')} ms, p95 {shown('latency_p95_ms', '.0f')} ms"
    )
    if summary["d1_percent"] is not None:
        print(
            f"mean over the answers, on valid pixels: disparity EPE {shown('disparity_epe_px', '.2f')} px, "
            f"D1 {shown('d1_percent', '.1f')} %, flow EPE {shown('flow_epe_px', '.2f')} px, "
            f"Fl {shown('fl_percent', '.1f')} %, 3D EPE {shown('motion_epe_m', '.3f')} m; "
            f"{shown('valid_percent', '.0f')} % valid"
        )


def _spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` of the positions 0 ... count - 1, evenly spread."""
    taken = min(count, wanted)
    return [round(i * (count - 1) / max(1, taken - 1)) for i in range(taken)]


def _say(line: str) -> None:
    print(f"demo: {line}", flush=True)
