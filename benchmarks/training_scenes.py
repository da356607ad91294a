"""How fast training scenes are made, and how far disparities and flows reach in them.

    python benchmarks/training_scenes.py [--samples N] [--processes N] [--height H] [--width W] [--json FILE]

Four views, ground truth and occlusions, with the sensor effects as they are by default: samples a second of one core, by
wall clock and by processor time (which a busy machine disturbs less), the parts of a sample, the same over 1, 2, ... worker
processes, and the spread of disparities and flows. The bar is 8 samples/s a core at 320 x 448 px.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dwarf_ros.files import write_atomically
from dwarf_ros.synthetic import scenes
from dwarf_ros.synthetic.scenes import TrainingScenes

BAR = 8.0
DISPARITY_EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192)
FLOW_EDGES = (0, 0.5, 1, 2, 4, 8, 16, 32, 64, 100, 150, 200, 250)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=48, help="samples of each measurement")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="most workers")
    parser.add_argument("--height", type=int, default=320, help="px")
    parser.add_argument("--width", type=int, default=448, help="px")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    size: dict[str, Any] = {"height": options.height, "width": options.width}
    load = os.getloadavg()[0]
    print(
        f"{options.samples} samples of four {options.width} x {options.height} px views; "
        f"{os.cpu_count()} cores, load {load:.1f}"
    )
    figures: dict[str, object] = {"samples": options.samples, **size, "load": load}
    figures["one_core"] = one_core(TrainingScenes(0, **size), options.samples)
    figures["parts_ms"] = parts(TrainingScenes(0, **size), options.samples)
    figures["processes"] = scaling(size, options.samples, options.processes)
    figures["spread"] = spread(TrainingScenes(0, effects=0, **size), options.samples)
    if options.json:
        write_atomically(options.json, (json.dumps(figures, indent=1) + "\n").encode())
    return 0


def one_core(training: TrainingScenes, samples: int) -> dict[str, float]:
    training[0]
    wall, used = time.perf_counter(), time.process_time()
    for index in range(samples):
        training[index]
    wall, used = time.perf_counter() - wall, time.process_time() - used
    print(
        f"\none process: {samples / wall:.1f} samples/s, {samples / used:.1f} a second of processor time "
        f"(bar: {BAR:.0f})"
    )
    return {"samples_per_s": samples / wall, "samples_per_processor_s": samples / used}


def parts(training: TrainingScenes, samples: int) -> dict[str, float]:
    """Processor time of the parts of a sample, ms, taken by timing the functions it is made of."""
    spent: dict[str, float] = {}

    def timed(name: str, function: Callable) -> Callable:
        def call(*args: object, **named: object) -> object:
            begun = time.process_time()
            result = function(*args, **named)
            spent[name] = spent.get(name, 0.0) + time.process_time() - begun
            return result

        return call

    parts_of = {
        "View": "visibility, four views",
        "render": "color, four views",
        "sensor_effects": "sensor effects",
        "_ground_truth": "ground truth",
    }
    kept = {name: getattr(scenes, name) for name in parts_of}
    for name, title in parts_of.items():
        setattr(scenes, name, timed(title, kept[name]))
    used = time.process_time()
    for index in range(samples):
        training[index]
    used = time.process_time() - used
    for name, function in kept.items():
        setattr(scenes, name, function)
    spent["layout"] = used - sum(spent.values())
    spent["whole"] = used
    each = {name: 1000 * seconds / samples for name, seconds in spent.items()}
    print("\npart of a sample            ms      %")
    for name, milliseconds in each.items():
        print(f"{name:24s} {milliseconds:5.1f}  {100 * milliseconds / each['whole']:5.1f}")
    return each


_TRAINING: list[TrainingScenes] = []


def _start(size: dict[str, Any]) -> None:
    cv2.setNumThreads(1)
    _TRAINING[:] = [TrainingScenes(0, **size)]
    _TRAINING[0][0]


def _make(indices: range) -> float:
    """Make samples; processor time, s."""
    used = time.process_time()
    for index in indices:
        _TRAINING[0][index]
    return time.process_time() - used


def scaling(size: dict[str, Any], samples: int, most: int) -> list[dict[str, float]]:
    """Rates of 1, 2, 4, ... worker processes that make equally many samples each, against one's."""
    counts = sorted({*(2**k for k in range(most.bit_length()) if 2**k <= most), most})
    print("\nworkers  samples/s  of linear  a second of processor time, each")
    rows: list[dict[str, float]] = []
    # Not forked, as the trainer's.
    context = multiprocessing.get_context("spawn")
    for count in counts:
        with context.Pool(count, _start, (size,)) as pool:
            # All are ready when each has had something to do.
            pool.map(_make, [range(1)] * count, chunksize=1)
            wall = time.perf_counter()
            # Small pieces, so that all end together.
            pieces = [range(k, min(k + 4, count * samples)) for k in range(0, count * samples, 4)]
            used = sum(pool.imap_unordered(_make, pieces))
            wall = time.perf_counter() - wall
        rate = count * samples / wall
        ratio = rate / (count * rows[0]["samples_per_s"]) if rows else 1.0
        own = count * samples / used
        rows.append(
            {
                "workers": count,
                "samples_per_s": rate,
                "of_linear": ratio,
                "samples_per_processor_s": own,
            }
        )
        print(f"{count:7d} {rate:10.1f} {ratio:10.2f} {own:33.1f}")
    return rows


def spread(training: TrainingScenes, samples: int) -> dict[str, object]:
    """Shares of all pixels by disparity and by flow, per cent, and how many of them are visible in the other images."""
    made = (training[index].ground_truth for index in range(samples))
    truths = [(truth.occ, truth.noc) for truth in made if truth is not None]
    found: dict[str, object] = {}
    for name, edges in (
        ("disparity", DISPARITY_EDGES),
        ("disparity_next", DISPARITY_EDGES),
        ("flow", FLOW_EDGES),
    ):
        maps = [getattr(occ, name) for occ, _ in truths]
        values = np.concatenate(
            [(np.linalg.norm(m, axis=-1) if m.ndim == 3 else m).ravel() for m in maps]
        )
        share = 100 * np.histogram(values[np.isfinite(values)], edges)[0] / values.size
        seen = 100 * np.mean([np.isfinite(getattr(noc, name)).mean() for _, noc in truths])
        print(
            f"\n{name}, px          % of pixels ({seen:.0f} % of all visible in the other images)"
        )
        for low, high, part in zip(edges[:-1], edges[1:], share, strict=True):
            print(f"{low:7g} - {high:<7g} {part:6.2f}  {'#' * round(2 * part)}")
        print(f"{'unknown':17s} {100 - share.sum():6.2f}")
        found[name] = {"edges_px": edges, "percent": share.tolist(), "visible_percent": seen}
    return found


if __name__ == "__main__":
    sys.exit(main())
