"""Accuracy of estimators side by side: python benchmarks/accuracy.py [--weights FILE] [--kitti DIR] [--drives N] [--json FILE].

On held-out procedural drives (seeds that no training uses, in two sizes) and, with --kitti, on a folder of KITTI 2012. As KITTI scores: estimates are filled, `occ` truth, an outlier is off by more than 3 px and 5 %.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dwarf_ros import load_estimator
from dwarf_ros.datasets.splits import open_dataset
from dwarf_ros.evaluation.kitti.rules import fill_disparity, fill_flow
from dwarf_ros.files import write_atomically
from dwarf_ros.metrics import PixelErrors, disparity_errors, flow_errors
from dwarf_ros.samples import Sample
from dwarf_ros.training.data import DriveSamples

HELD_OUT_SEED = 1_000_000
DRIVE_SIZES = (320, 640), (384, 1280)
"""Height and width, px: those of the shorter training, and about those of a vehicle's camera."""


def main() -> int:
    options = parsed()
    estimators = {"classical": load_estimator("classical")}
    lite = load_estimator("dwarf_lite", weights=options.weights, engine="tensorflow")
    estimators[lite.name] = lite
    found = {}
    for name, samples in sets(options):
        for estimator_name, estimator in estimators.items():
            pooled: dict[str, PixelErrors] = {}
            for sample in samples:
                for measure, errors in errors_of(sample, estimator).items():
                    pooled[measure] = pooled[measure] + errors if measure in pooled else errors
            found[f"{name}, {estimator_name}"] = {
                key: {"outliers_percent": e.outlier_rate, "epe_px": e.mean}
                for key, e in pooled.items()
            }
            row = "  ".join(
                f"{k} {e.outlier_rate:5.2f} % {e.mean:5.2f} px" for k, e in pooled.items()
            )
            print(f"{name:24} {estimator_name:12} {row}", flush=True)
    if options.json:
        write_atomically(options.json, json.dumps(found, indent=1).encode())
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--kitti", type=Path)
    parser.add_argument("--drives", type=int, default=16)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def sets(options: argparse.Namespace) -> Iterator[tuple[str, list[Sample]]]:
    for height, width in DRIVE_SIZES:
        drives = DriveSamples(HELD_OUT_SEED, 2 * options.drives, height, width)
        # Every second one goes backwards in time.
        samples = [drives[2 * number] for number in range(options.drives)]
        yield f"{options.drives} drives {width}x{height}", samples
    if options.kitti:
        kitti = open_dataset("kitti2012", options.kitti)
        for index in range(len(kitti)):
            sample = kitti[index]
            yield sample.name, [sample]


def errors_of(sample: Sample, estimator: object) -> dict[str, PixelErrors]:
    answer = estimator.estimate(sample.previous, sample.current)
    truth = sample.ground_truth.occ
    errors = {}
    for name, measure, values, true in (
        ("D1", disparity_errors, fill_disparity(answer.disparity), truth.disparity),
        ("D2", disparity_errors, fill_disparity(answer.disparity_next), truth.disparity_next),
        ("Fl", flow_errors, fill_flow(answer.flow), truth.flow),
    ):
        if true is not None:
            errors[name] = measure(values.astype(np.float32), true)
    return errors


if __name__ == "__main__":
    sys.exit(main())
