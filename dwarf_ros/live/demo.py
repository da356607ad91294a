"""Plays a stereo recording into the live node, records its estimates, and reports figures and pictures.

docs/pictures/demo.png comes from the demo: ``make demo && cp out/demo/pictures/frame_000010.png docs/pictures/demo.png``.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.files import write_atomically
from dwarf_ros.geometry import scene_flow_points
from dwarf_ros.live.processes import (
    LiveError,
    LiveEstimate,
    Played,
    estimator_arguments,
    mean_rate_hz,
    node_values,
    play_into_node,
    prepare_run,
    read_player_log,
    read_run,
)
from dwarf_ros.metrics import disparity_errors, end_point_error, flow_errors
from dwarf_ros.recordings import Recording, open_recording
from dwarf_ros.recordings.bag.estimates import Estimate
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import InputError, SceneFlow
from dwarf_ros.viewing.motion import MotionHistory, with_motion
from dwarf_ros.viewing.pictures import panel as panel_of
from dwarf_ros.viewing.results import Result

DRIVE_SEED = 4
DRIVE_FRAMES = 20
DRIVE_SIZE = (640, 224)
# Share of the accepted frame pairs that must have been estimated.
REQUIRED_SHARE = 0.9
PICTURES = 7
# About one to one for the images of the demo's own drive.
PICTURE_WIDTH = 1100


@dataclass(frozen=True)
class FrameFigures:
    """Figures of one estimate; errors are over the valid pixels with ground truth, None without ground truth.

    Attributes:
        frame: number of the reference frame in the recording.
        other: number of the other frame.
        latency_ms: from the publication of the newer frame to the reception of the estimate, ms.
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
    choice: EstimatorChoice,
    rate_hz: float = 2.0,
    reference: str = "current",
    drive: ProceduralDrive | None = None,
) -> int:
    """Play a recording into the live node over DDS, and print and draw its estimates; ends by itself.

    Node, player and recorder are separate processes, on a ROS domain of their own unless ROS_DOMAIN_ID is set.
    `out` gets figures.json, pictures/, recording/ (a bag), the logs, and drive/ where there is no source.

    Args:
        source: folder that `open_recording` reads; None: a procedural drive, which has ground truth.
        out: folder to write to.
        choice: the node's estimator.
        rate_hz: frames per second of wall time.
        reference: the node's parameter of this name, current or previous.
        drive: the drive to play where there is no source; None: the demo's own.

    Returns:
        0 if the node estimated at least one pair, and at least 90 % of those that it accepted; else 1.

    Raises:
        InputError: the source, the estimator or another argument cannot be used.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"rate_hz: {rate_hz:g} Hz, expected > 0 Hz")
    _prepare_folder(out)
    if source is None:
        drive = drive or ProceduralDrive(DRIVE_SEED, DRIVE_FRAMES, *DRIVE_SIZE)
        source = out / "drive"
        _say(f"rendering a drive of {len(drive)} stereo frames to {source}")
        write_drive(drive, source)
    else:
        drive = None
    recording = open_recording(source)
    if len(recording) < 2:
        raise InputError(f"{source}: {len(recording)} stereo frame, expected at least 2")
    node_arguments = estimator_arguments(choice)
    try:
        frames = len(recording)
        play_into_node(
            source,
            frames,
            frames - 1,
            out,
            rate_hz,
            reference,
            node_arguments,
            recording.topics,
            _say,
        )
        return _show(recording, drive, out)
    except LiveError as error:
        print(f"dwarf: demo failed: {error}; logs are in {out}", file=sys.stderr)
        return 1


def _prepare_folder(out: Path) -> None:
    """Create the folder, and remove the results of an earlier demo."""
    prepare_run(out)
    try:
        (out / "pictures").mkdir(exist_ok=True)
        stale = [*(out / "pictures").glob("frame_*.png"), *(out / "drive").glob("image_?/*.png")]
        for file in (*stale, out / "figures.json"):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"out: {out}: {error.strerror}, expected a folder to write to") from None


def _show(recording: Recording, drive: ProceduralDrive | None, out: Path) -> int:
    """Print and write figures and pictures of the recorded estimates; returns the exit code."""
    played = read_player_log(out)
    estimates, live = read_run(out)
    figures = [_frame_figures(estimates[e.number], e, drive) for e in live]
    received = [e.received for e in live]
    summary = _summary(figures, received, played, node_values(out))
    _print_table(figures)
    _print_summary(summary)
    document = {"frames": [asdict(frame) for frame in figures], "summary": summary}
    write_atomically(out / "figures.json", (json.dumps(document, indent=2) + "\n").encode())
    history, shown = MotionHistory(), set(_spread(len(live), PICTURES))
    for position, one in enumerate(live):
        number, other = one.reference.index, one.other.index
        scene_flow = estimates[one.number].scene_flow
        scene_flow = with_motion(scene_flow, recording[number], recording[other])
        by = f"{summary['estimator']} on {summary['engine']}"
        latency = f"estimated after {figures[position].latency_ms:.0f} ms"
        result = history.add(
            Result(f"Frame {number}", scene_flow, recording[number].left, f"{by}, {latency}")
        )
        if position not in shown:
            continue
        panel = panel_of(result, PICTURE_WIDTH)
        name = f"frame_{number:06d}.png"
        _write_small_png(out / "pictures" / name, panel)
    _say(f"pictures are in {out / 'pictures'}, figures in {out / 'figures.json'}")
    enough = summary["answers"] > 0 and summary["share_percent"] >= 100 * REQUIRED_SHARE
    if not enough:
        _say(
            f"FAILED: {summary['answers']} estimates of {summary['accepted']} accepted pairs, "
            f"expected more than 0 and at least {100 * REQUIRED_SHARE:.0f} %"
        )
    return 0 if enough else 1


def _write_small_png(file: Path, picture: np.ndarray) -> None:
    """Write a picture with the strongest compression, since it may go into a document."""
    pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    write_atomically(file, data.tobytes())


def _frame_figures(
    estimate: Estimate, live: LiveEstimate, drive: ProceduralDrive | None
) -> FrameFigures:
    scene_flow, reference, other = estimate.scene_flow, live.reference, live.other
    newest = max(reference.wall_ns, other.wall_ns)
    figures = FrameFigures(
        frame=reference.index,
        other=other.index,
        latency_ms=(live.received - newest) / 1e6,
        valid_percent=100 * float(scene_flow.valid.mean()),
    )
    if drive is None:
        return figures
    truth = drive.ground_truth(reference.index, other.index).scene_flow
    unknown = np.float32(np.nan)
    disparity = np.where(scene_flow.valid, scene_flow.disparity, unknown)
    flow = np.where(scene_flow.valid[..., None], scene_flow.flow, unknown)
    disparity_error = disparity_errors(disparity, truth.disparity)
    flow_error = flow_errors(flow, truth.flow)
    motion_error = end_point_error(_displacement(scene_flow), _displacement(truth))
    return replace(
        figures,
        disparity_epe_px=_number(disparity_error.mean),
        d1_percent=_number(disparity_error.outlier_rate),
        flow_epe_px=_number(flow_error.mean),
        fl_percent=_number(flow_error.outlier_rate),
        motion_epe_m=_median(motion_error[np.isfinite(motion_error)]),
    )


def _displacement(scene_flow: SceneFlow) -> np.ndarray:
    """3D displacement between the two frames, relative to the moving camera, m."""
    points, points_next = scene_flow_points(scene_flow)
    return points_next - points


_MEANS = (
    "valid_percent",
    "disparity_epe_px",
    "d1_percent",
    "flow_epe_px",
    "fl_percent",
    "motion_epe_m",
)


def _summary(
    figures: list[FrameFigures], received: list[int], played: list[Played], values: dict[str, str]
) -> dict[str, Any]:
    accepted = int(values.get("accepted", 0))
    latencies = [frame.latency_ms for frame in figures]
    return {
        "estimator": values.get("estimator", "unknown"),
        "engine": values.get("engine", "unknown"),
        "played": len(played),
        "accepted": accepted,
        "answers": len(figures),
        "share_percent": 100 * len(figures) / accepted if accepted else 0.0,
        "rate_in_hz": mean_rate_hz([frame.wall_ns for frame in played]),
        "rate_out_hz": mean_rate_hz(sorted(received)),
        "latency_median_ms": _median(latencies),
        "latency_p95_ms": float(np.percentile(latencies, 95)) if latencies else None,
        **{name: _mean([getattr(frame, name) for frame in figures]) for name in _MEANS},
        "node": values,
    }


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
    rows = [asdict(frame) for frame in figures]
    columns = [c for c in _COLUMNS if any(row[c[1]] is not None for row in rows)]
    print("  ".join(title for title, _, _ in columns))
    for row in rows:
        cells = (_shown(row[name], form).rjust(len(title)) for title, name, form in columns)
        print("  ".join(cells))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _print_summary(summary: dict[str, Any]) -> None:
    def shown(name: str, form: str) -> str:
        return _shown(summary[name], form)

    print(
        f"{summary['estimator']} on {summary['engine']}: {summary['answers']} estimates of "
        f"{summary['accepted']} accepted pairs ({summary['share_percent']:.0f} %) of "
        f"{summary['played']} frames"
    )
    print(
        f"rate in {shown('rate_in_hz', '.2f')} Hz, out {shown('rate_out_hz', '.2f')} Hz; latency "
        f"median {shown('latency_median_ms', '.0f')} ms, p95 {shown('latency_p95_ms', '.0f')} ms"
    )
    if summary["d1_percent"] is not None:
        print(
            f"mean over the estimates, on valid pixels: disparity EPE {shown('disparity_epe_px', '.2f')} px, "
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
