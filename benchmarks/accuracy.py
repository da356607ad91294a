"""Accuracy of estimators side by side: python benchmarks/accuracy.py DATA [--json FILE] [--estimators NAME ...] [--drives N].

DATA holds kitti2012/, kitti2015/ and kitti_odometry_long/, each of which may be missing. Outliers are counted as KITTI counts them:
gaps filled, all pixels with ground truth (`occ`), an outlier is off by more than 3 px and 5 %. Every estimator runs without and
with refinement, on those scenes and on held-out procedural drives (seeds that no training uses) of two sizes; on the odometry
sequence its ego-motion is compared with the poses. The table is the one of model/README.md.

`--conditions` adds the KITTI scenes at a quarter of the brightness, with one image 1.5 times as bright, blurred and with noise.
`--teacher ptlflow:MODEL --teacher-weights FILE` adds a teacher.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.datasets.splits import open_dataset
from dwarf_ros.estimators import Estimator, choose_estimator, load
from dwarf_ros.evaluation.kitti.rules import fill_disparity, fill_flow
from dwarf_ros.evaluation.odometry import odometry_errors
from dwarf_ros.files import write_atomically
from dwarf_ros.metrics import PixelErrors, disparity_errors, flow_errors
from dwarf_ros.motion.refined import RefinedEstimator
from dwarf_ros.recordings import open_recording
from dwarf_ros.samples import Sample
from dwarf_ros.training.data import DriveSamples
from dwarf_ros.types import SceneFlow, StereoFrame

HELD_OUT_SEED = 1_000_000
DRIVE_SIZES = (320, 640), (384, 1280)
"""Height and width, px: of a fast camera, and about those of KITTI."""

MEASURES = ("D1", "D2", "Fl", "SF")


@dataclass
class Outliers:
    """Pooled errors of one estimator on one set."""

    errors: dict[str, PixelErrors]
    wrong: int = 0
    counted: int = 0

    def add(self, sample: Sample, estimate: SceneFlow) -> None:
        """Add the errors of one sample's estimate."""
        assert sample.ground_truth is not None
        truth = sample.ground_truth.occ
        outliers = []
        for name, measure, values, true in (
            ("D1", disparity_errors, fill_disparity(estimate.disparity), truth.disparity),
            ("D2", disparity_errors, fill_disparity(estimate.disparity_next), truth.disparity_next),
            ("Fl", flow_errors, fill_flow(estimate.flow), truth.flow),
        ):
            if true is None:
                continue
            values = values.astype(np.float32)
            self.errors[name] = self.errors.get(name, PixelErrors()) + measure(values, true)
            outliers.append(outliers_of(values, true))
        if len(outliers) == 3:
            known = ~np.isnan(outliers).any(axis=0)
            self.counted += int(known.sum())
            self.wrong += int((np.stack(outliers)[:, known] > 0).any(axis=0).sum())

    def percent(self) -> dict[str, float]:
        """Outliers by measure, %."""
        rates = {name: errors.outlier_rate for name, errors in self.errors.items()}
        return rates | ({"SF": 100 * self.wrong / self.counted} if self.counted else {})


def outliers_of(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """1 where a value is an outlier, 0 where not, NaN where nothing is known; float32 H x W."""
    error, length = np.abs(values - truth), np.abs(truth)
    if truth.ndim == 3:
        error, length = np.linalg.norm(values - truth, axis=-1), np.linalg.norm(truth, axis=-1)
    outlier = ((error > 3) & (error > 0.05 * length)).astype(np.float32)
    return np.where(np.isfinite(length), outlier, np.float32(np.nan))


def main() -> int:
    options = parsed()
    estimators = {name: load(choose_estimator(name, engine="auto")) for name in options.estimators}
    if options.teacher:
        choice = choose_estimator(options.teacher, options.teacher_weights, options.teacher_engine)
        estimators[options.teacher] = load(choice)
    found: dict[str, dict[str, float]] = {}
    print(f"| | estimator | refinement | {' | '.join(MEASURES)} |")
    print("|---" * (3 + len(MEASURES)) + "|")
    for title, samples in sets(options):
        for name, estimator in estimators.items():
            both = {"none": Outliers({}), "rigid": Outliers({})}
            for sample in samples:
                for refinement, estimate in estimates(estimator, sample).items():
                    both[refinement].add(sample, estimate)
            for refinement, outliers in both.items():
                rates = outliers.percent()
                found[f"{title}, {name}, {refinement}"] = rates
                cells = [f"{rates[m]:.1f}" if m in rates else "" for m in MEASURES]
                print(f"| {title} | {name} | {refinement} | {' | '.join(cells)} |", flush=True)
    sequence = options.data / "kitti_odometry_long"
    if sequence.is_dir():
        for name, estimator in estimators.items():
            found[f"odometry, {name}"] = errors = ego_motion_errors(sequence, estimator)
            print(f"{name}: {', '.join(f'{key} {value:.4g}' for key, value in errors.items())}")
    if options.json:
        write_atomically(options.json, json.dumps(found, indent=1).encode())
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--estimators", nargs="+", default=["classical", "dwarf_lite"])
    parser.add_argument("--teacher")
    parser.add_argument("--teacher-weights")
    parser.add_argument("--teacher-engine", default="auto")
    parser.add_argument("--drives", type=int, default=16)
    parser.add_argument("--conditions", action="store_true")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def estimates(estimator: Estimator, sample: Sample) -> dict[str, SceneFlow]:
    """The estimate of a sample without and with refinement."""
    estimate = estimator.estimate(sample.previous, sample.current)

    class Known:
        """Answers with what is known already, for the refinement."""

        name, engine = estimator.name, estimator.engine

        def warm_up(self, width: int, height: int) -> None: ...

        def estimate(self, previous: StereoFrame, current: StereoFrame) -> SceneFlow:
            return estimate

    refined = RefinedEstimator(Known(), remember=False)
    return {"none": estimate, "rigid": refined.estimate(sample.previous, sample.current)}


def sets(options: argparse.Namespace) -> Iterator[tuple[str, list[Sample]]]:
    for name in ("kitti2012", "kitti2015"):
        if not (options.data / name).is_dir():
            continue
        kitti = open_dataset(name, options.data / name)
        for index in range(len(kitti)):
            sample = kitti[index]
            if sample.ground_truth is None:
                continue
            yield f"{name} {sample.name[:6]}", [sample]
            for condition, change in conditions().items() if options.conditions else ():
                yield f"{name} {sample.name[:6]}, {condition}", [changed(sample, change)]
    for height, width in DRIVE_SIZES if options.drives else ():
        drives = DriveSamples(HELD_OUT_SEED, 2 * options.drives, height, width)
        # Every second one goes backwards in time.
        samples = [drives[2 * number] for number in range(options.drives)]
        yield f"{options.drives} drives {width}x{height}", samples


def conditions() -> dict[str, Callable[[list[np.ndarray]], list[np.ndarray]]]:
    """From left_t0, right_t0, left_t1, right_t1 to worse images."""
    rng = np.random.default_rng(0)

    def rounded(values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)

    return {
        "a quarter of the brightness": lambda images: [rounded(i * 0.25) for i in images],
        "left_t0 1.5 times as bright": lambda images: [rounded(images[0] * 1.5), *images[1:]],
        "blurred by 2 px": lambda images: [cv2.GaussianBlur(i, (0, 0), 2) for i in images],
        "noise of sigma 10": lambda images: [
            rounded(i + rng.normal(0, 10, (*i.shape[:2], 1))) for i in images
        ],
    }


def changed(sample: Sample, change: Callable[[list[np.ndarray]], list[np.ndarray]]) -> Sample:
    frames = (sample.previous, sample.current)
    images = change([image for frame in frames for image in (frame.left, frame.right)])
    previous, current = (
        replace(frame, left=left, right=right)
        for frame, left, right in zip(frames, images[::2], images[1::2], strict=True)
    )
    return replace(sample, previous=previous, current=current)


def ego_motion_errors(sequence: Path, estimator: Estimator) -> dict[str, float]:
    """Errors of the ego-motion of consecutive frames against the poses, by name; see `OdometryErrors`."""
    recording = open_recording(sequence)
    refined = RefinedEstimator(estimator, remember=False)
    motions = []
    for first, second in recording.pairs():
        motion = refined.estimate(recording[first], recording[second]).ego_motion
        motions.append(None if motion is None else motion.transform)
    assert recording.poses is not None
    errors = asdict(odometry_errors(motions, recording.poses))
    return {name: value for name, value in errors.items() if value is not None}


if __name__ == "__main__":
    sys.exit(main())
