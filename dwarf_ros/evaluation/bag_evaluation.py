"""Evaluation of a stereo recording: an estimate for every pair of frames, and its errors with or without ground truth.

The estimates are computed here or were recorded by a live run; each is for the earlier frame of its pair. Figures are pooled over
all pixels of all pairs, and the memory needed does not grow with their number.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.evaluation.consistency import (
    Consistency,
    RigidSceneErrors,
    check_consistency,
    fitted_motion,
    motion_between,
)
from dwarf_ros.evaluation.kitti.rules import MEASURES as KITTI_MEASURES
from dwarf_ros.evaluation.kitti.rules import Counts, evaluate_maps
from dwarf_ros.evaluation.odometry import Odometry, recording_odometry
from dwarf_ros.geometry import scene_flow_points
from dwarf_ros.metrics import (
    Additive,
    MotionErrors,
    PixelErrors,
    Sparsification,
    disparity_error,
    disparity_errors,
    end_point_error,
    flow_errors,
    motion_errors,
)
from dwarf_ros.motion.refined import load_once
from dwarf_ros.progress import show_progress
from dwarf_ros.recordings import Recording, open_recording
from dwarf_ros.recordings.kitti_layout import REGIONS
from dwarf_ros.recordings.truth import TruthFolder, open_truth
from dwarf_ros.samples import Maps, SampleTruth, make_sample
from dwarf_ros.types import InputError, SceneFlow
from dwarf_ros.workers import check_workers, map_over

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Difference:
    """Difference of two estimates for the same pair; two differences can be added.

    Attributes:
        largest: of all disparities, next disparities and flow components that both have, px.
        one_sided: pixels that only one of the two marks as valid.
        pairs: how many pairs were compared.
    """

    largest: float = 0.0
    one_sided: int = 0
    pairs: int = 0

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            max(self.largest, other.largest),
            self.one_sided + other.one_sided,
            self.pairs + other.pairs,
        )


def difference_between(one: SceneFlow, other: SceneFlow) -> Difference:
    """Compare two estimates where both are valid.

    Raises:
        InputError: they differ in size.
    """
    if one.disparity.shape != other.disparity.shape:
        sizes = [f"{a.disparity.shape[1]} x {a.disparity.shape[0]} px" for a in (one, other)]
        raise InputError(f"scene flow: {sizes[0]} and {sizes[1]}, expected one size")
    both = one.valid & other.valid
    largest = 0.0
    for name in ("disparity", "disparity_next", "flow"):
        error = np.abs(getattr(one, name)[both] - getattr(other, name)[both])
        largest = max(largest, float(error.max(initial=0.0)))
    return Difference(largest, int(np.count_nonzero(one.valid ^ other.valid)), 1)


@dataclass(frozen=True)
class PairErrors(Additive):
    """Counts and sums of one or more pairs; two of them can be added.

    Attributes:
        pixels: of all estimates.
        valid: pixels that the estimates mark as valid.
        consistency: without ground truth.
        outliers: KITTI's counts by measure and region; empty without ground truth.
        end_points: errors of D1, D2 and Fl in px against the ground truth with occluded pixels, where there is an estimate.
        motion: errors of the 3D motion in m, where the estimate is valid.
        sparsification: by measure, D1 or Fl, and what orders the pixels, confidence or valid; against the ground truth with occluded pixels, where there is an estimate.
        live: recorded estimates compared with the estimator's own.
    """

    pixels: int = 0
    valid: int = 0
    consistency: Consistency = field(default_factory=Consistency)
    outliers: Counts = field(default_factory=dict)
    end_points: dict[str, PixelErrors] = field(default_factory=dict)
    motion: MotionErrors = field(default_factory=MotionErrors)
    sparsification: dict[tuple[str, str], Sparsification] = field(default_factory=dict)
    live: Difference = Difference()


@dataclass(frozen=True)
class Metric:
    """A figure of `PairErrors`.

    Attributes:
        key: its name in JSON and CSV, unit included.
        label: what it is, in words.
        unit: "px", "%", "m", "degrees" or "grey levels" (of 0 ... 255).
        of: the value; None or NaN if nothing was counted.
    """

    key: str
    label: str
    unit: str
    of: Callable[[PairErrors], float | None]


def _rigid_scene_metrics(
    name: str, words: str, part: Callable[[PairErrors], RigidSceneErrors]
) -> list[Metric]:
    return [
        Metric(f"{name}_flow_median_px", f"{words}, flow: median", "px", lambda e: part(e).flow.median),
        Metric(f"{name}_flow_p90_px", f"{words}, flow: 90th percentile", "px", lambda e: part(e).flow.percentile(90)),
        Metric(f"{name}_flow_within_3px_percent", f"{words}, flow: within 3 px", "%", lambda e: part(e).flow.within_3_percent),
        Metric(f"{name}_disparity_next_median_px", f"{words}, next disparity: median", "px", lambda e: part(e).disparity_next.median),
        Metric(f"{name}_disparity_next_p90_px", f"{words}, next disparity: 90th percentile", "px", lambda e: part(e).disparity_next.percentile(90)),
        Metric(f"{name}_disparity_next_within_3px_percent", f"{words}, next disparity: within 3 px", "%", lambda e: part(e).disparity_next.within_3_percent),
    ]  # fmt: skip


def _photometric_metrics(name: str, words: str) -> list[Metric]:
    return [
        Metric(f"photometric_{name}", f"photometric error, {words}", "grey levels", lambda e: getattr(e.consistency.photometric, name).mean),
        Metric(f"photometric_{name}_unwarped", f"photometric error, {words}, without warping", "grey levels", lambda e: getattr(e.consistency.photometric, name).mean_unwarped),
    ]  # fmt: skip


def _pair_metrics(name: str, words: str) -> list[Metric]:
    return [
        Metric(f"{name}_median_px", f"{words}: median", "px", lambda e: getattr(e.consistency, name).median),
        Metric(f"{name}_p90_px", f"{words}: 90th percentile", "px", lambda e: getattr(e.consistency, name).percentile(90)),
        Metric(f"{name}_within_3px_percent", f"{words}: within 3 px", "%", lambda e: getattr(e.consistency, name).within_3_percent),
    ]  # fmt: skip


def _outlier_metric(name: str, region: str) -> Metric:
    def rate(errors: PairErrors) -> float | None:
        counts = errors.outliers.get(name, {}).get(region)
        return counts.all.percent if counts else None

    return Metric(f"{name}_{region}_percent", f"{name} outliers, {region}", "%", rate)


def _end_point_metric(name: str, key: str, words: str) -> Metric:
    return Metric(key, words, "px", lambda e: e.end_points.get(name, PixelErrors()).mean)


def _sparsification_metric(name: str, part: str, words: str) -> Metric:
    key, label = f"{name}_ause_{part}_px", f"{name}: AUSE of {words}"
    nothing = Sparsification()
    return Metric(key, label, "px", lambda e: e.sparsification.get((name, part), nothing).mean)


CONSISTENCY_METRICS = (
    Metric("valid_percent", "valid pixels", "%", lambda e: 100 * e.valid / e.pixels if e.pixels else None),
    *_rigid_scene_metrics("rigid_scene", "rigid scene by the poses", lambda e: e.consistency.rigid_scene),
    *_rigid_scene_metrics("fitted_scene", "rigid scene by the estimate's own motion", lambda e: e.consistency.fitted_scene),
    Metric("motion_rotation_degrees", "the estimate's camera motion against the poses: rotation", "degrees", lambda e: e.consistency.motion.mean_rotation),
    Metric("motion_translation_m", "the estimate's camera motion against the poses: translation", "m", lambda e: e.consistency.motion.mean_translation),
    *_photometric_metrics("left_next", "next left image by flow"),
    *_photometric_metrics("right", "right image by disparity"),
    *_photometric_metrics("right_next", "next right image by flow and next disparity"),
    *_pair_metrics("left_right", "left-right consistency"),
    *_pair_metrics("forward_backward", "forward-backward consistency"),
    Metric("flicker_median_percent", "change of static points' depth per frame: median", "%", lambda e: e.consistency.flicker.median),
    Metric("flicker_p90_percent", "change of static points' depth per frame: 90th percentile", "%", lambda e: e.consistency.flicker.percentile(90)),
)  # fmt: skip

TRUTH_METRICS = (
    *(_outlier_metric(name, region) for region in REGIONS for name in KITTI_MEASURES),
    _end_point_metric("D1", "disparity_epe_px", "disparity error"),
    _end_point_metric("D2", "disparity_next_epe_px", "next disparity error"),
    _end_point_metric("Fl", "flow_epe_px", "flow end-point error"),
    *(
        _sparsification_metric(name, part, words)
        for name in ("D1", "Fl")
        for part, words in (("confidence", "the confidence"), ("valid", "valid alone"))
    ),
    Metric("motion_epe_m", "3D motion: end-point error", "m", lambda e: e.motion.mean),
    Metric("motion_strict_percent", "3D motion: within 5 cm or 5 %", "%", lambda e: e.motion.accuracy_strict),
    Metric("motion_relaxed_percent", "3D motion: within 10 cm or 10 %", "%", lambda e: e.motion.accuracy_relaxed),
)  # fmt: skip

LIVE_METRICS = (
    Metric("live_difference_px", "live against offline: largest difference", "px", lambda e: e.live.largest if e.live.pairs else None),
    Metric("live_one_sided_pixels", "live against offline: valid in one only", "pixels", lambda e: e.live.one_sided if e.live.pairs else None),
)  # fmt: skip

METRICS = (*CONSISTENCY_METRICS, *TRUTH_METRICS, *LIVE_METRICS)


def figures_of(errors: PairErrors) -> dict[str, float | None]:
    """Each of `METRICS` by its key; None if nothing was counted."""
    values = {metric.key: metric.of(errors) for metric in METRICS}
    return {
        key: None if value is None or math.isnan(value) else value for key, value in values.items()
    }


@dataclass(frozen=True)
class PairFigures:
    """The figures of one estimate.

    Attributes:
        frame: number of the reference, the earlier frame, in the recording.
        other: number of the frame it was compared with.
        stamp: the reference's, ns.
        figures: see `figures_of`.
        latency_ms: from the publication of the later frame to the reception of the estimate, ms; None offline.
    """

    frame: int
    other: int
    stamp: int
    figures: dict[str, float | None]
    latency_ms: float | None = None


@dataclass(frozen=True)
class LiveFigures:
    """Figures of a live run.

    Attributes:
        played: frames that were published.
        accepted: pairs that the node accepted.
        answered: estimates that were recorded.
        dropped: pairs that the node dropped, by cause.
        rate_in_hz: frames published per second; None under two.
        rate_out_hz: estimates received per second; None under two.
        latency_median_ms: from publication to reception, ms.
        latency_p95_ms: 95th percentile of the same.
    """

    played: int
    accepted: int
    answered: int
    dropped: dict[str, int]
    rate_in_hz: float | None
    rate_out_hz: float | None
    latency_median_ms: float
    latency_p95_ms: float


@dataclass(frozen=True)
class RecordingEvaluation:
    """The figures of a recording.

    Attributes:
        source: the bag or folder.
        estimator: its name.
        engine: what ran it.
        frames: number of frames in the recording.
        pairs: the evaluated estimates, in order of time.
        summary: `figures_of` all pairs together.
        posed: whether the recording has poses.
        truths: pairs that have ground truth.
        live: None offline.
        odometry: of the longest run of pairs; None without poses.
        unread: pairs that were left out because a frame of theirs cannot be read.
        unread_reason: why the first of these cannot, "" if all can.
    """

    source: str
    estimator: str
    engine: str
    frames: int
    pairs: list[PairFigures]
    summary: dict[str, float | None]
    posed: bool
    truths: int = 0
    live: LiveFigures | None = None
    odometry: Odometry | None = None
    unread: int = 0
    unread_reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def estimate_pair(
    recording: Recording, choice: EstimatorChoice, pair: tuple[int, int]
) -> SceneFlow:
    """Estimate a pair of frames, given by their numbers."""
    return load_once(choice).estimate(*(recording[index] for index in pair))


ReadEstimate = Callable[[int], SceneFlow]
"""Function from the number of a frame to its recorded estimate; can be pickled."""


@dataclass(frozen=True, eq=False)
class _Task:
    """Everything needed to evaluate a pair."""

    recording: Recording
    choice: EstimatorChoice
    truth: TruthFolder | None
    recorded: ReadEstimate | None


_Result = tuple[PairErrors, np.ndarray | None] | str


def _evaluate_pair(task: _Task, pair: tuple[int, int]) -> _Result:
    """Errors of a pair, and the camera's motion by its estimate; or why a frame cannot be read."""
    estimator = load_once(task.choice)
    try:
        reference, other = (task.recording[index] for index in pair)
    except InputError as error:
        return str(error)
    offline = estimator.estimate(reference, other)
    estimate = offline if task.recorded is None else task.recorded(pair[0])
    if estimate.disparity.shape != reference.left.shape[:2]:
        raise InputError(
            f"estimate for frame {pair[0]}: {estimate.disparity.shape[1]} x {estimate.disparity.shape[0]} px, expected "
            f"{reference.left.shape[1]} x {reference.left.shape[0]} px as the recording"
        )
    poses = task.recording.poses
    motion = None if poses is None else motion_between(poses[pair[0]], poses[pair[1]])
    consistency = check_consistency(estimate, estimator, reference, other, motion)
    truth = None if task.truth is None else task.truth.read(pair[0])
    errors = PairErrors(
        estimate.valid.size,
        int(np.count_nonzero(estimate.valid)),
        consistency,
        live=Difference() if task.recorded is None else difference_between(estimate, offline),
    )
    if truth is not None:
        make_sample(f"frame {pair[0]}", (reference, other), truth)
        errors += _truth_errors(estimate, truth)
    return errors, fitted_motion(estimate)


def _truth_errors(estimate: SceneFlow, truth: SampleTruth) -> PairErrors:
    maps = Maps(estimate.disparity, estimate.disparity_next, estimate.flow)
    outliers: Counts = {}
    for region, true in (("occ", truth.occ), ("noc", truth.noc)):
        if true is not None:
            for measure, count in evaluate_maps(maps, true, truth.objects).items():
                outliers.setdefault(measure, {})[region] = count
    end_points = {}
    sparsification: dict[tuple[str, str], Sparsification] = {}
    if truth.occ.disparity is not None:
        end_points["D1"] = disparity_errors(estimate.disparity, truth.occ.disparity)
        error = disparity_error(estimate.disparity, truth.occ.disparity)
        sparsification |= _sparsification(
            "D1", error, estimate.disparity_confidence, estimate.valid
        )
    if truth.occ.disparity_next is not None:
        end_points["D2"] = disparity_errors(estimate.disparity_next, truth.occ.disparity_next)
    if truth.occ.flow is not None:
        end_points["Fl"] = flow_errors(estimate.flow, truth.occ.flow)
        error = end_point_error(estimate.flow, truth.occ.flow)
        sparsification |= _sparsification("Fl", error, estimate.flow_confidence, estimate.valid)
    return PairErrors(
        outliers=outliers,
        end_points=end_points,
        motion=_motion_errors(estimate, truth.occ),
        sparsification=sparsification,
    )


def _sparsification(
    name: str, error: np.ndarray, confidence: np.ndarray | None, valid: np.ndarray
) -> dict[tuple[str, str], Sparsification]:
    """Of a measure by its confidence, and by `valid` for comparison; empty without a confidence."""
    if confidence is None:
        return {}
    return {
        (name, "confidence"): Sparsification.of(error, confidence),
        (name, "valid"): Sparsification.of(error, valid),
    }


def _motion_errors(estimate: SceneFlow, truth: Maps) -> MotionErrors:
    if (
        estimate.camera is None
        or truth.disparity is None
        or truth.disparity_next is None
        or truth.flow is None
    ):
        return MotionErrors()
    known = np.isfinite(truth.disparity) & np.isfinite(truth.disparity_next)
    known &= np.isfinite(truth.flow).all(axis=-1)
    true = SceneFlow(
        truth.disparity,
        truth.disparity_next,
        truth.flow,
        known,
        dt=estimate.dt,
        camera=estimate.camera,
    )
    (points, points_next), (true_points, true_next) = map(scene_flow_points, (estimate, true))
    return motion_errors(points_next - points, true_next - true_points)


def evaluate_recording(
    source: Path,
    choice: EstimatorChoice,
    ground_truth: Path | None = None,
    workers: str | None = None,
    pairs: Iterable[tuple[int, int]] | None = None,
    recorded: ReadEstimate | None = None,
) -> RecordingEvaluation:
    """Evaluate pairs of frames of a recording; progress goes to stderr.

    Args:
        source: a bag or a folder of images.
        choice: the estimator.
        ground_truth: folder that `open_truth` reads.
        workers: as for `map_over`.
        pairs: numbers of the reference and the other frame, the earlier one first; None: every two consecutive frames.
        recorded: estimates by reference; None: evaluate the estimator itself.

    Raises:
        InputError: source, estimator, ground truth or workers cannot be used.
    """
    check_workers(workers)
    # Workers of a cluster have another working directory.
    recording = open_recording(source.absolute())
    truth = None if ground_truth is None else open_truth(ground_truth.absolute(), recording)
    # Loaded here too, to fail early and not in a worker.
    estimator = load_once(choice)
    chosen = recording.pairs() if pairs is None else list(pairs)
    task = _Task(recording, choice, truth, recorded)
    total = PairErrors()
    evaluated: list[PairFigures] = []
    motions = []
    unread: list[str] = []
    with show_progress("pairs") as report:
        report(0, len(chosen))
        results = map_over(
            partial(_evaluate_pair, task), chosen, workers, use_gpu=choice.weights is not None
        )
        for number, (pair, result) in enumerate(zip(chosen, results, strict=True), start=1):
            report(number, len(chosen))
            if isinstance(result, str):
                unread.append(result)
                continue
            total += result[0]
            motions.append(result[1])
            evaluated.append(PairFigures(*pair, recording.stamps[pair[0]], figures_of(result[0])))
    if unread and not evaluated:
        raise InputError(unread[0])
    if unread:
        _log.warning("%d of %d pairs cannot be read: %s", len(unread), len(chosen), unread[0])
    poses = recording.poses
    return RecordingEvaluation(
        source=str(source),
        estimator=estimator.name,
        engine=estimator.engine,
        frames=len(recording),
        pairs=evaluated,
        summary=figures_of(total),
        posed=recording.poses is not None,
        truths=0 if truth is None else sum(pair.frame in truth.names for pair in evaluated),
        odometry=None
        if poses is None or not evaluated
        else recording_odometry([(pair.frame, pair.other) for pair in evaluated], motions, poses),
        unread=len(unread),
        unread_reason=unread[0] if unread else "",
    )
