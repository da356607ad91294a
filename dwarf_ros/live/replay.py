"""The live counterpart of the offline evaluation: a recording played into the node, its estimates recorded and evaluated."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.evaluation.bag_evaluation import (
    LiveFigures,
    RecordingEvaluation,
    evaluate_recording,
)
from dwarf_ros.evaluation.bag_report import prepare_folder, write_evaluation
from dwarf_ros.live.processes import (
    RECORDING,
    LiveError,
    LiveEstimate,
    estimator_arguments,
    mean_rate_hz,
    node_values,
    play_into_node,
    prepare_run,
    read_player_log,
    read_run,
)
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.estimates import RecordedEstimates
from dwarf_ros.types import InputError, SceneFlow

# The earlier frame, as offline.
_REFERENCE = "previous"


@dataclass(frozen=True)
class RunEstimates:
    """The recorded scene flow of a frame; can be sent to another process.

    Attributes:
        estimates: those of the run.
        numbers: of the estimate of each reference frame.
    """

    estimates: RecordedEstimates
    numbers: dict[int, int]

    def __call__(self, frame: int) -> SceneFlow:
        """Read the estimate of a reference frame."""
        return self.estimates[self.numbers[frame]].scene_flow


def _estimates_of(run: Path) -> tuple[RunEstimates, list[LiveEstimate]]:
    """The estimates of a run of the node whose reference is the earlier frame.

    Raises:
        LiveError: as `read_run`, or there are none.
        InputError: as `read_run`, or one is of the later frame of its pair.
    """
    # Absolute, for workers in other folders.
    estimates, live = read_run(run.absolute())
    if not live:
        raise LiveError(f"no estimates in {run / RECORDING}")
    for estimate in live:
        if estimate.other.stamp_ns < estimate.reference.stamp_ns:
            raise InputError(
                f"{run / RECORDING}: estimate of the later frame of its pair, expected the node's reference: {_REFERENCE}"
            )
    return RunEstimates(estimates, {e.reference.index: e.number for e in live}), live


def evaluate_run(
    source: Path,
    run: Path,
    choice: EstimatorChoice,
    ground_truth: Path | None = None,
    workers: str | None = None,
) -> RecordingEvaluation:
    """Evaluate the node's estimates of a live run, as `evaluate_recording` does the estimator's own.

    Args:
        source: the bag or folder that was played.
        run: folder with recording/ and player.jsonl, of `replay_bag` or launch/replay.launch.py.
        choice: the node's estimator.
        ground_truth: as for `evaluate_bag`.
        workers: as for `evaluate_bag`.

    Raises:
        LiveError: there are no estimates, or they do not fit what was played.
        InputError: one of these cannot be used.
    """
    estimates, live_estimates = _estimates_of(run)
    evaluation = evaluate_recording(
        source,
        choice,
        ground_truth,
        workers,
        [(e.reference.index, e.other.index) for e in live_estimates],
        estimates,
    )
    latencies = [(e.received - e.other.wall_ns) / 1e6 for e in live_estimates]
    values = node_values(run)
    live = LiveFigures(
        played=len(read_player_log(run)),
        accepted=int(values.get("accepted", 0)),
        answered=len(live_estimates),
        dropped={
            name.removeprefix("dropped: "): int(count)
            for name, count in values.items()
            if name.startswith("dropped: ")
        },
        rate_in_hz=mean_rate_hz([frame.wall_ns for frame in read_player_log(run)]),
        rate_out_hz=mean_rate_hz(sorted(e.received for e in live_estimates)),
        latency_median_ms=float(np.median(latencies)),
        latency_p95_ms=float(np.percentile(latencies, 95)),
    )
    of_frame = {
        estimate.reference.index: latency
        for estimate, latency in zip(live_estimates, latencies, strict=True)
    }
    pairs = [replace(pair, latency_ms=of_frame[pair.frame]) for pair in evaluation.pairs]
    return replace(evaluation, pairs=pairs, live=live)


def replay_bag(
    source: Path,
    out: Path,
    choice: EstimatorChoice,
    rate_hz: float = 2.0,
    ground_truth: Path | None = None,
    workers: str | None = None,
) -> RecordingEvaluation:
    """Play a bag into the live node over DDS, record its estimates, evaluate them, and write the results.

    Node, player and recorder are processes of their own. `out` gets evaluation.json, frames.csv and report.html, and of the
    run recording/ (a bag), player.jsonl and the logs.

    Args:
        source: bag, or folder of images that `open_folder` reads.
        out: folder to write to; it is made if need be.
        rate_hz: frames a second of wall time.
        choice: the node's estimator, and the one that its estimates are compared with.
        ground_truth: as for `evaluate_bag`.
        workers: as for `evaluate_bag`, for the judging.

    Raises:
        LiveError: a process failed, or the node published no estimate.
        InputError: one of the arguments cannot be used.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"rate_hz: {rate_hz:g} Hz, expected > 0 Hz")
    prepare_folder(out)
    recording = open_recording(source)
    prepare_run(out)
    play_into_node(
        source,
        len(recording),
        len(recording.pairs()),
        out,
        rate_hz,
        _REFERENCE,
        estimator_arguments(choice),
        recording.topics,
        lambda line: print(f"replay: {line}", file=sys.stderr, flush=True),
    )
    evaluation = evaluate_run(source, out, choice, ground_truth, workers)
    write_run(evaluation, out, out, choice)
    return evaluation


def evaluate_recorded(
    source: Path,
    out: Path,
    recorded: Path,
    choice: EstimatorChoice,
    ground_truth: Path | None = None,
    workers: str | None = None,
) -> RecordingEvaluation:
    """Evaluate estimates that launch/replay.launch.py recorded, and write the results, as `replay_bag` does.

    Args:
        source: what was played.
        out: folder to write to; it is made if need be.
        recorded: folder of the run.
        choice: the estimator that the node ran.
        ground_truth: as for `evaluate_bag`.
        workers: as for `evaluate_bag`.

    Raises:
        LiveError: there are no estimates, or they do not fit what was played.
        InputError: one of the arguments cannot be used.
    """
    prepare_folder(out)
    evaluation = evaluate_run(source, recorded, choice, ground_truth, workers)
    write_run(evaluation, recorded, out, choice)
    return evaluation


def write_run(
    evaluation: RecordingEvaluation, run: Path, out: Path, choice: EstimatorChoice
) -> None:
    """Write the results of a live run: evaluation.json, frames.csv and report.html with pictures of recorded estimates.

    Raises:
        InputError: a file cannot be written.
    """
    write_evaluation(evaluation, out, choice, _estimates_of(run)[0])
