"""Time of ego-motion, refinement and objects beside that of an estimator: python benchmarks/motion.py [--estimator NAME] [--size WxH] [--pairs N].

On one core (taskset is not needed: the process binds itself). Times on a shared machine vary; compare their ratio.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable


def main() -> int:
    options = parsed()
    # Before numpy and OpenCV start their threads.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import cv2

    from dwarf_ros.motion.refined import load_estimator
    from dwarf_ros.motion.refinement import refine
    from dwarf_ros.motion.tracking import Tracker
    from dwarf_ros.synthetic.drives import ProceduralDrive

    cv2.setNumThreads(1)
    width, height = map(int, options.size.split("x"))
    drive = ProceduralDrive(1_000_000, options.pairs + 1, width, height)
    frames = list(drive)
    estimator = load_estimator(options.estimator, refine="none")
    estimator.warm_up(width, height)
    tracker = Tracker()
    seconds: dict[str, list[float]] = {estimator.name: [], "refine": [], "objects and tracks": []}

    def timed(name: str, call: Callable) -> object:
        start = time.process_time()
        result = call()
        seconds[name].append(time.process_time() - start)
        return result

    for previous, current in itertools.pairwise(frames):
        found = timed(estimator.name, lambda p=previous, c=current: estimator.estimate(p, c))
        for _ in range(3):
            refined = timed(
                "refine",
                lambda p=previous, c=current, f=found: refine(f, p.left, c.left, p.right),
            )
        timed("objects and tracks", lambda r=refined: tracker.update(r))
    medians = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
    print(f"{width}x{height}, median of the processor's time on one core:")
    for name, median in medians.items():
        part = median / medians[estimator.name]
        print(f"  {name:20} {1e3 * median:7.1f} ms  {part:5.2f} of {estimator.name}")
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--estimator", default="classical")
    parser.add_argument("--size", default="1242x375")
    parser.add_argument("--pairs", type=int, default=6)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
