"""The live counterpart of the offline evaluation: a recording played into the node, its answers recorded and judged."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.evaluation.bag_evaluation import (
    Difference,
    LiveFigures,
    PairFigures,
    RecordingEvaluation,
    difference_between,
    estimate_pair,
    evaluate_recording,
)
from dwarf_ros.evaluation.bag_report import prepare_folder, write_evaluation
from dwarf_ros.live.processes import (
    RECORDING,
    LiveError,
    estimator_arguments,
    mean_rate_hz,
    node_values,
    play_into_node,
    prepare_run,
    read_player_log,
)
from dwarf_ros.live.recorder import read_recording
from dwarf_ros.recordings import open_recording
from dwarf_ros.types import InputError, SceneFlow

# The earlier frame, as offline.
_REFERENCE = "previous"


@dataclass(frozen=True)
class RecordedAnswer:
    """Where an answer of the node is, and when it came.

    Attributes:
        file: as the recorder wrote it.
        pair: numbers of the reference and the other frame in the recording that was played.
        published: wall time at which the later frame was published, ns.
        received: wall time at which the answer came, ns.
    """

    file: Path
    pair: tuple[int, int]
    published: int
    received: int


@dataclass(frozen=True)
class RecordedAnswers:
    """The recorded scene flow for a frame; can be sent to another process.

    Attributes:
        files: by the number of the reference frame.
    """

    files: dict[int, Path]

    def __call__(self, frame: int) -> SceneFlow:
        """Read the answer for a reference frame."""
        return read_recording(self.files[frame]).scene_flow


def recorded_answers(run: Path) -> list[RecordedAnswer]:
    """The answers of a live run, in order of the frames.

    Args:
        run: folder with the recorder's recording/ and the player's player.jsonl.

    Raises:
        LiveError: there is no player's log, or an answer is for a frame that was not played.
        InputError: an answer is damaged, or is for the later frame of its pair.
    """
    played = {frame.stamp_ns: frame for frame in read_player_log(run)}
    answers = []
    for file in sorted((run / RECORDING).glob("*.npz")):
        recording = read_recording(file)
        scene_flow = recording.scene_flow
        reference, other = played.get(scene_flow.stamp), played.get(scene_flow.other_stamp)
        if reference is None or other is None:
            raise LiveError(f"{file} is of a frame that was never played")
        if scene_flow.dt < 0:
            raise InputError(
                f"{file}: answers for the later frame of its pair, expected the node's reference: {_REFERENCE}"
            )
        pair = (reference.index, other.index)
        answers.append(RecordedAnswer(file, pair, other.wall_ns, recording.received))
    return sorted(answers, key=lambda answer: answer.pair)


def compare_with_offline(source: Path, run: Path, choice: EstimatorChoice) -> Difference:
    """Largest difference between what the node answered and what the estimator answers here for the same pairs.

    Args:
        source: the bag or folder that was played.
        run: folder of the live run.
        choice: the node's estimator.

    Raises:
        LiveError: as `recorded_answers`.
        InputError: the source, the run or the estimator cannot be used.
    """
    recording = open_recording(source)
    total = Difference()
    for answer in recorded_answers(run):
        offline = estimate_pair(recording, choice, answer.pair)
        total += difference_between(read_recording(answer.file).scene_flow, offline)
    return total


def evaluate_run(
    source: Path,
    run: Path,
    choice: EstimatorChoice,
    ground_truth: Path | None = None,
    workers: str | None = None,
) -> RecordingEvaluation:
    """Judge what the node answered in a live run, as `evaluate_recording` judges the estimator's own answers.

    Args:
        source: the bag or folder that was played.
        run: folder with recording/ and player.jsonl, of `replay_bag` or launch/replay.launch.py.
        choice: the node's estimator.
        ground_truth: as for `evaluate_bag`.
        workers: as for `evaluate_bag`.

    Raises:
        LiveError: nothing was answered, or the answers do not fit what was played.
        InputError: one of these cannot be used.
    """
    answers = recorded_answers(run)
    if not answers:
        raise LiveError(f"no answers in {run / RECORDING}")
    evaluation = evaluate_recording(
        source,
        choice,
        ground_truth,
        workers,
        [answer.pair for answer in answers],
        RecordedAnswers({answer.pair[0]: answer.file.resolve() for answer in answers}),
    )
    latencies = [(answer.received - answer.published) / 1e6 for answer in answers]
    values = node_values(run)
    live = LiveFigures(
        played=len(read_player_log(run)),
        accepted=int(values.get("accepted", 0)),
        answered=len(answers),
        dropped={
            name.removeprefix("dropped: "): int(count)
            for name, count in values.items()
            if name.startswith("dropped: ")
        },
        rate_in_hz=mean_rate_hz([frame.wall_ns for frame in read_player_log(run)]),
        rate_out_hz=mean_rate_hz(sorted(answer.received for answer in answers)),
        latency_median_ms=float(np.median(latencies)),
        latency_p95_ms=float(np.percentile(latencies, 95)),
    )
    pairs: list[PairFigures] = [
        replace(pair, latency_ms=latency)
        for pair, latency in zip(evaluation.pairs, latencies, strict=True)
    ]
    return replace(evaluation, pairs=pairs, live=live)


def replay_bag(
    source: Path,
    out: Path,
    choice: EstimatorChoice,
    rate_hz: float = 2.0,
    ground_truth: Path | None = None,
    workers: str | None = None,
) -> RecordingEvaluation:
    """Play a bag into the live node over DDS, record its answers, judge them, and write what was found.

    Node, player and recorder are processes of their own. `out` gets evaluation.json, frames.csv and report.html, and of the
    run recording/ (one .npz an answer), player.jsonl and the logs.

    Args:
        source: bag, or folder of images that `open_folder` reads.
        out: folder to write to; it is made if need be.
        rate_hz: frames a second of wall time.
        choice: the node's estimator, and the one that its estimates are compared with.
        ground_truth: as for `evaluate_bag`.
        workers: as for `evaluate_bag`, for the judging.

    Raises:
        LiveError: a process failed, or the node answered nothing.
        InputError: one of the arguments cannot be used.
    """
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"--rate: {rate_hz:g} Hz, expected > 0 Hz")
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
    """Judge answers that launch/replay.launch.py recorded, and write what was found, as `replay_bag` does.

    Args:
        source: what was played.
        out: folder to write to; it is made if need be.
        recorded: folder of the run.
        choice: the estimator that the node ran.
        ground_truth: as for `evaluate_bag`.
        workers: as for `evaluate_bag`.

    Raises:
        LiveError: nothing was answered, or the answers do not fit what was played.
        InputError: one of the arguments cannot be used.
    """
    prepare_folder(out)
    evaluation = evaluate_run(source, recorded, choice, ground_truth, workers)
    write_run(evaluation, recorded, out, choice)
    return evaluation


def write_run(
    evaluation: RecordingEvaluation, run: Path, out: Path, choice: EstimatorChoice
) -> None:
    """Write what was found in a live run: evaluation.json, frames.csv and report.html, with the recorded answers pictured.

    Raises:
        InputError: a file cannot be written.
    """
    files = {answer.pair[0]: answer.file for answer in recorded_answers(run)}
    write_evaluation(evaluation, out, choice, RecordedAnswers(files))
