"""Reports on a stereo recording: a table on the terminal, JSON, CSV and an HTML page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.evaluation.bag_evaluation import (
    METRICS,
    LiveFigures,
    Metric,
    PairFigures,
    ReadEstimate,
    RecordingEvaluation,
    estimate_pair,
    evaluate_recording,
)
from dwarf_ros.evaluation.charts import Chart, Series
from dwarf_ros.evaluation.kitti.rules import MEASURES as KITTI_MEASURES
from dwarf_ros.evaluation.odometry import Odometry
from dwarf_ros.evaluation.report import Figure, Frame, Picture, Report, Table, Value, write_report
from dwarf_ros.files import write_atomically
from dwarf_ros.motion.tracking import Tracker
from dwarf_ros.recordings import open_recording
from dwarf_ros.types import InputError
from dwarf_ros.visualization.panels import scene_flow_panel

# The worst pairs are shown.
_PICTURED = 8
_PICTURE_WIDTH = 1100

# Figures listed for each pair on the page, with their column heads; frames.csv has all of them.
_LISTED = {
    "valid_percent": "valid [%]",
    "rigid_scene_flow_median_px": "rigid, poses [px]",
    "rigid_scene_flow_within_3px_percent": "within 3 px [%]",
    "fitted_scene_flow_median_px": "rigid, own motion [px]",
    "photometric_left_next": "photometric, next left",
    "photometric_right": "right",
    "photometric_right_next": "next right",
    "left_right_median_px": "left-right [px]",
    "forward_backward_median_px": "forward-backward [px]",
    **{f"{name}_occ_percent": f"{name} [%]" for name in KITTI_MEASURES},
    "disparity_epe_px": "disparity EPE [px]",
    "flow_epe_px": "flow EPE [px]",
    "motion_epe_m": "3D EPE [m]",
    "flicker_median_percent": "flicker [%]",
    "live_difference_px": "live - offline [px]",
}


def evaluate_bag(
    bag: Path,
    out: Path,
    choice: EstimatorChoice,
    ground_truth: Path | None = None,
    workers: str | None = None,
) -> RecordingEvaluation:
    """Run an estimator over every pair of a bag and write what was found: evaluation.json, frames.csv and report.html.

    The same bag and estimator give the same figures, with any number of workers.

    Args:
        bag: rosbag2 folder or file, or a folder of images that `open_folder` reads.
        out: folder to write to; created if missing.
        choice: the estimator.
        ground_truth: folder that `open_truth` reads.
        workers: None: this process; "4": as many processes; "ray://host:port": a Ray cluster.

    Raises:
        InputError: one of these cannot be used, or out cannot be written.
    """
    prepare_folder(out)
    evaluation = evaluate_recording(bag, choice, ground_truth, workers)
    write_evaluation(evaluation, out, choice)
    return evaluation


def prepare_folder(out: Path) -> None:
    """Create a folder to write to.

    Raises:
        InputError: it cannot be created.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out: {out}: {error.strerror}, expected a folder to write to") from None


def write_evaluation(
    evaluation: RecordingEvaluation,
    out: Path,
    choice: EstimatorChoice,
    recorded: ReadEstimate | None = None,
) -> None:
    """Write evaluation.json, frames.csv (a row per pair) and report.html to a folder.

    Args:
        evaluation: what was found.
        out: the folder; it exists.
        choice: the estimator, run again for the pairs shown in pictures.
        recorded: the recorded estimates, if those were evaluated.

    Raises:
        OSError: a file cannot be written.
    """
    document = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False) + "\n"
    write_atomically(out / "evaluation.json", document.encode())
    write_atomically(out / "frames.csv", _csv(evaluation).encode(errors="replace"))
    recording = open_recording(Path(evaluation.source))

    def pictures(pair: PairFigures) -> list[Picture]:
        numbers = (pair.frame, pair.other)
        estimate = recorded(pair.frame) if recorded else estimate_pair(recording, choice, numbers)
        title = f"Frame {pair.frame} to {pair.other}"
        left = recording[pair.frame].left
        objects = Tracker().update(estimate)
        panel = scene_flow_panel(left, estimate, title, "", _PICTURE_WIDTH, objects=objects)
        return [Picture(title, panel)]

    write_report(out / "report.html", make_report(evaluation, pictures))


def _csv(evaluation: RecordingEvaluation) -> str:
    measures = _known_metrics(evaluation)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    live = ["latency_ms"] if evaluation.live else []
    writer.writerow(["frame", "other", "stamp_ns", *live, *(m.key for m in measures)])
    for pair in evaluation.pairs:
        latency = [pair.latency_ms] if evaluation.live else []
        values = [*latency, *(pair.figures[m.key] for m in measures)]
        shown = ["" if value is None else f"{value:.6g}" for value in values]
        writer.writerow([pair.frame, pair.other, pair.stamp, *shown])
    return text.getvalue()


def _known_metrics(evaluation: RecordingEvaluation) -> list[Metric]:
    return [measure for measure in METRICS if evaluation.summary[measure.key] is not None]


def print_evaluation(evaluation: RecordingEvaluation) -> None:
    """Print the summary as a table."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=120)
    title = f"{evaluation.source}: {evaluation.estimator} on {evaluation.engine}, {len(evaluation.pairs)} pairs"
    table = RichTable("measure", title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("value", justify="right")
    table.add_column("unit")
    for measure in _known_metrics(evaluation):
        table.add_row(measure.label, f"{evaluation.summary[measure.key]:.3f}", measure.unit)
    for label, value, unit in _live_rows(evaluation.live):
        shown = _shown(value) if value is None or isinstance(value, float) else str(value)
        table.add_row(label, shown, unit)
    for label, value, unit in _odometry_rows(evaluation.odometry):
        table.add_row(label, f"{value:.4f}" if isinstance(value, float) else str(value), unit)
    console.print(table)


def _live_rows(live: LiveFigures | None) -> list[tuple[str, Value, str]]:
    if live is None:
        return []
    return [
        ("frames played", live.played, ""),
        ("pairs accepted by the node", live.accepted, ""),
        ("estimates", live.answered, ""),
        *((f"dropped by the node: {cause}", count, "") for cause, count in live.dropped.items()),
        ("rate in", live.rate_in_hz, "Hz"),
        ("rate out", live.rate_out_hz, "Hz"),
        ("latency, median", live.latency_median_ms, "ms"),
        ("latency, 95th percentile", live.latency_p95_ms, "ms"),
    ]


def _odometry_rows(odometry: Odometry | None) -> list[tuple[str, Value, str]]:
    if odometry is None:
        return []
    errors = odometry.errors
    rows: list[tuple[str, Value, str]] = [
        ("odometry: length of the trajectory", errors.distance_m, "m"),
        ("odometry: pairs without ego-motion", errors.missing, ""),
        ("odometry: translation per frame", errors.frame_translation_percent, "%"),
        ("odometry: rotation per frame", errors.frame_rotation_degrees, "degrees"),
        ("odometry: translation over 100 to 800 m", errors.translation_percent, "%"),
        ("odometry: rotation over 100 to 800 m", errors.rotation_degrees_per_m, "degrees/m"),
        ("odometry: absolute trajectory error", errors.absolute_trajectory_m, "m"),
        ("odometry: drift at the end", errors.drift_percent, "%"),
    ]
    return [row for row in rows if row[1] is not None]


_CHARTS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Rigid scene: median error of the flow", "px", (("rigid_scene_flow_median_px", "by the poses"), ("fitted_scene_flow_median_px", "by the estimate's own motion"))),
    ("Rigid scene: pixels within 3 px", "%", (("rigid_scene_flow_within_3px_percent", "by the poses"), ("fitted_scene_flow_within_3px_percent", "by the estimate's own motion"))),
    ("Photometric error", "grey levels", (("photometric_left_next", "next left image"), ("photometric_right", "right image"), ("photometric_right_next", "next right image"), ("photometric_left_next_unwarped", "next left image, not warped"))),
    ("Left-right and forward-backward consistency: medians", "px", (("left_right_median_px", "left-right"), ("forward_backward_median_px", "forward-backward"))),
    ("Outliers, all pixels with ground truth", "%", tuple((f"{name}_occ_percent", name) for name in KITTI_MEASURES)),
    ("End-point errors", "px", (("disparity_epe_px", "disparity"), ("disparity_next_epe_px", "next disparity"), ("flow_epe_px", "flow"))),
    ("End-point error of the 3D motion", "m", (("motion_epe_m", "3D motion"),)),
    ("Change of static points' depth per frame: median", "%", (("flicker_median_percent", "flicker"),)),
    ("Area under the sparsification error (AUSE)", "px", tuple((f"{name}_ause_{part}_px", f"{name}, {part}") for name in ("D1", "Fl") for part in ("confidence", "valid"))),
    ("Valid pixels", "%", (("valid_percent", "valid"),)),
)  # fmt: skip


def make_report(
    evaluation: RecordingEvaluation, pictures: Callable[[PairFigures], Sequence[Picture]]
) -> Report:
    """The page of an evaluation.

    Args:
        evaluation: what was found.
        pictures: makes the pictures of a pair; called for the worst only.
    """
    measures = _known_metrics(evaluation)
    live = evaluation.live
    error = _sorting_metric(evaluation)
    listed = [measure for measure in measures if measure.key in _LISTED]
    columns = [
        "time [s]",
        *(["latency [ms]"] if live else []),
        *(_LISTED[m.key] for m in listed),
    ]
    start = evaluation.pairs[0].stamp if evaluation.pairs else 0
    times = [(pair.stamp - start) * 1e-9 for pair in evaluation.pairs]
    frames = [
        Frame(
            f"{pair.frame} to {pair.other}",
            [time, *([pair.latency_ms] if live else []), *(pair.figures[m.key] for m in listed)],
            partial(pictures, pair),
        )
        for time, pair in zip(times, evaluation.pairs, strict=True)
    ]
    charts = list(_charts(evaluation, times))
    tables = [
        Table(
            "All pairs together",
            ["measure", "value", "unit"],
            [[m.label, evaluation.summary[m.key], m.unit] for m in measures],
            decimals=3,
        )
    ]
    if evaluation.odometry is not None:
        rows = _odometry_rows(evaluation.odometry)
        tables.append(Table("Odometry", ["measure", "value", "unit"], rows, decimals=4))
    if live:
        tables.insert(0, Table("Live", ["measure", "value", "unit"], _live_rows(live)))
    return Report(
        title=f"Replay of {Path(evaluation.source).name}",
        subtitle=f"{evaluation.source}: {len(evaluation.pairs)} pairs of {evaluation.frames} frames, by "
        f"{evaluation.estimator} on {evaluation.engine}, {'live' if live else 'offline'}",
        figures=_key_figures(evaluation),
        notes=_notes(evaluation),
        tables=tables,
        charts=charts,
        frame_columns=columns,
        frames=frames,
        sort_column=columns.index(_LISTED[error.key]),
        frame_noun="pair",
        max_pictured=_PICTURED,
    )  # fmt: skip


def _sorting_metric(evaluation: RecordingEvaluation) -> Metric:
    keys = ("SF_occ_percent", "Fl_occ_percent", "D1_occ_percent", "rigid_scene_flow_median_px", "photometric_left_next")  # fmt: skip
    known = {measure.key: measure for measure in _known_metrics(evaluation)}
    return next((known[key] for key in keys if key in known), METRICS[0])


def _charts(evaluation: RecordingEvaluation, times: list[float]) -> Iterator[Chart]:
    if evaluation.live:
        latencies = [pair.latency_ms for pair in evaluation.pairs]
        yield Chart("Latency", "line", "time [s]", "latency [ms]", [Series("latency", times, latencies)])  # fmt: skip
    if evaluation.odometry is not None:
        paths = (
            ("poses", evaluation.odometry.true_positions),
            ("ego-motion", evaluation.odometry.positions),
        )
        series = [Series(name, [x for x, _ in path], [z for _, z in path]) for name, path in paths]
        yield Chart("Trajectory from above", "path", "x, to the right [m]", "z, ahead [m]", series)
    for title, unit, lines in _CHARTS:
        series = [
            Series(name, times, [pair.figures[key] for pair in evaluation.pairs])
            for key, name in lines
            if evaluation.summary[key] is not None
        ]
        if series:
            yield Chart(title, "line", "time [s]", unit, series)


def _key_figures(evaluation: RecordingEvaluation) -> list[Figure]:
    summary, live = evaluation.summary, evaluation.live
    figures = [Figure("pairs", len(evaluation.pairs), note=f"of {evaluation.frames} frames")]
    if live:
        figures += [
            Figure("rate out", live.rate_out_hz, "Hz", f"at {_shown(live.rate_in_hz)} Hz in"),
            Figure("latency, median", live.latency_median_ms, "ms", f"95th percentile {live.latency_p95_ms:.0f} ms", 0),
            Figure("dropped", sum(live.dropped.values()), note=f"of {live.accepted} pairs accepted"),
            Figure("live against offline", summary["live_difference_px"], "px", "largest difference", 4),
        ]  # fmt: skip
    chosen = (
        ("SF_occ_percent", "SF, all pixels", "%", "outliers in D1, D2 or Fl"),
        ("Fl_occ_percent", "Fl, all pixels", "%", "outliers of the flow"),
        ("D1_occ_percent", "D1, all pixels", "%", "outliers of the disparity"),
        ("motion_epe_m", "3D motion", "m", "mean end-point error"),
        ("rigid_scene_flow_median_px", "rigid scene by the poses", "px", "median over valid pixels"),
        ("fitted_scene_flow_median_px", "rigid scene by own motion", "px", "median over valid pixels"),
        ("photometric_left_next", "photometric error", "of 255", f"{_shown(summary['photometric_left_next_unwarped'])} without warping"),
        ("left_right_median_px", "left-right", "px", "median"),
        ("forward_backward_median_px", "forward-backward", "px", "median"),
    )  # fmt: skip
    if evaluation.odometry is not None:
        errors = evaluation.odometry.errors
        over = errors.translation_percent is not None
        value = errors.translation_percent if over else errors.frame_translation_percent
        note = "over 100 to 800 m" if over else "per frame"
        figures.append(Figure("odometry: translation", value, "% of the distance", note))
    figures += [
        Figure(label, summary[key], unit, note)
        for key, label, unit, note in chosen
        if summary[key] is not None
    ]
    return figures


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _notes(evaluation: RecordingEvaluation) -> list[str]:
    notes = [
        "Each estimate is for the earlier frame of its pair. Without ground truth, every pixel that the estimate marks as valid "
        "counts; figures are pooled over all pixels of all pairs.",
    ]
    if evaluation.posed:
        notes.append(
            "Rigid scene: flow and next disparity compared with those predicted from the estimate's disparity and the camera's motion. Which "
            "pixels stand still is not known and is not decided by the error: bodies that move count too, so medians and the "
            "share within 3 px tell of the standing scene. By the poses, their own error is included; the estimate's own motion "
            "is the one that most of its pixels agree on; a refined estimate follows it by construction."
        )
    else:
        notes.append(
            "The recording has no poses, so the rigid scene is evaluated by the motion that most of the estimate's pixels agree on."
        )
    notes.append(
        "Photometric error: mean absolute difference of grey levels (0 to 255) between the reference's left image and another "
        "image warped to it. Left-right and forward-backward: the estimator run on the mirrored pair and backwards. Points that "
        "are hidden in the other image count in all of these."
    )
    notes.append(
        "Flicker: the depth of a static point in the next frame's estimate, against its depth in this one moved by the camera's motion."
    )
    if evaluation.odometry is not None:
        notes.append(
            "Odometry: the ego-motions of the longest run of pairs against the poses. Over 100 to 800 m: mean over segments, as KITTI's "
            "odometry benchmark; absolute trajectory error: root mean square after rigid alignment."
        )
    if evaluation.unread:
        notes.append(
            f"{evaluation.unread} pairs are left out because a frame cannot be read: {evaluation.unread_reason}"
        )
    if evaluation.truths:
        notes.append(
            f"{evaluation.truths} of {len(evaluation.pairs)} pairs have ground truth. Outliers: > 3 px and > 5 %, after "
            "filling as KITTI does; end-point errors: where there is an estimate; 3D motion: where the estimate is valid."
        )
    if evaluation.live:
        notes.append(
            "Live: the estimates are those that a recorder received from the node while the recording was played; offline is the "
            "same estimator on the same frames. Latency: from the publication of the later frame to the reception of the estimate."
        )
    return notes
