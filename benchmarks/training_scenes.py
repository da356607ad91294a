"""Samples a second of the training scenes, whole: python benchmarks/training_scenes.py [SAMPLES] [WORKERS].

Four views of 320 x 448 px, ground truth and occlusions, without and with the sensor effects; then where the time of one
core goes, the same over worker processes, and how disparities and flows are spread. The bar is 8 samples/s a core.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable

import cv2
import numpy as np

from dwarf_ros.datasets import scenes
from dwarf_ros.datasets.rendering import Scene, View
from dwarf_ros.datasets.scenes import TrainingScenes

HEIGHT, WIDTH = 320, 448
DISPARITY_EDGES = (0, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192)
FLOW_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 100, 150, 200, 250)


def main() -> int:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 48
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 2
    cv2.setNumThreads(1)
    print(f"{samples} samples of four {WIDTH} x {HEIGHT} px views; load {os.getloadavg()[0]:.1f}")
    for effects in (0.0, 1.0):
        training = TrainingScenes(0, height=HEIGHT, width=WIDTH, effects=effects)
        training[0]
        wall, used = time.perf_counter(), time.process_time()
        for index in range(samples):
            training[index]
        wall, used = time.perf_counter() - wall, time.process_time() - used
        name = "with" if effects else "without"
        print(
            f"one process, {name} sensor effects: {samples / wall:.1f} samples/s, "
            f"{samples / used:.1f} per second of processor time"
        )
    parts(training, min(samples, 16))
    with multiprocessing.Pool(workers, start) as pool:
        pool.map(make, range(workers), chunksize=1)
        wall = time.perf_counter()
        pool.map(make, range(samples), chunksize=2)
        wall = time.perf_counter() - wall
    print(f"{workers} processes, with sensor effects: {samples / wall:.1f} samples/s")
    spread(TrainingScenes(0, height=HEIGHT, width=WIDTH, effects=0), samples)
    return 0


_WORKER: list[TrainingScenes] = []


def start() -> None:
    cv2.setNumThreads(1)
    _WORKER[:] = [TrainingScenes(0, height=HEIGHT, width=WIDTH)]


def make(index: int) -> int:
    return len(_WORKER[0][index].name)


def parts(training: TrainingScenes, samples: int) -> None:
    """Processor time of each part of a sample, taken by timing the functions it is made of."""
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable) -> Callable:
        def call(*args: object, **named: object) -> object:
            begun = time.process_time()
            result = function(*args, **named)
            spent[name] = spent.get(name, 0.0) + time.process_time() - begun
            return result

        return call

    kept = Scene.view, View.image, scenes.sensor_effects, scenes._ground_truth
    Scene.view = timed("visibility", kept[0])
    View.image = timed("colour", kept[1])
    scenes.sensor_effects = timed("sensor effects", kept[2])
    scenes._ground_truth = timed("ground truth", kept[3])
    used = time.process_time()
    for index in range(samples):
        training[index]
    used = time.process_time() - used
    Scene.view, View.image, scenes.sensor_effects, scenes._ground_truth = kept
    spent["layout"] = used - sum(spent.values())
    listed = ", ".join(f"{name} {1000 * s / samples:.0f} ms" for name, s in spent.items())
    print(f"a sample: {listed}")


def spread(training: TrainingScenes, samples: int) -> None:
    truths = [training[index].ground_truth for index in range(samples)]
    disparity = np.concatenate([truth.occ.disparity.ravel() for truth in truths])
    flow = np.concatenate([np.linalg.norm(truth.occ.flow, axis=-1).ravel() for truth in truths])
    for name, values, edges in (
        ("disparity", disparity, DISPARITY_EDGES),
        ("flow", flow, FLOW_EDGES),
    ):
        known = values[np.isfinite(values)]
        share = 100 * np.histogram(known, edges)[0] / values.size
        rows = (
            f"{low}-{high}: {part:.1f} %"
            for low, high, part in zip(edges[:-1], edges[1:], share, strict=True)
        )
        print(f"{name}, px: {', '.join(rows)}; unknown: {100 - share.sum():.1f} %")
    for name in ("disparity", "disparity_next", "flow"):
        seen = np.mean([np.isfinite(getattr(truth.noc, name)).mean() for truth in truths])
        print(f"visible for {name}: {100 * seen:.0f} % of the pixels")


if __name__ == "__main__":
    sys.exit(main())
