"""Time and memory of scoring 200 images of KITTI's size: python benchmarks/kitti_evaluation.py [PROCESSES].

The images are synthetic: as large and as dense as real results and ground truth, and no easier to decompress. The bar is
60 s on two processes.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.evaluation.kitti.folder import evaluate_folder
from dwarf_ros.formats import write_disparity_png, write_flow_png, write_image

IMAGES = 200
DISTINCT = 4
HEIGHT, WIDTH = 375, 1242
NOISE_PX = 0.4
TRUTH_DENSITY = {"occ": 0.2, "noc": 0.17}


def main() -> int:
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    with tempfile.TemporaryDirectory() as folder:
        results, truth = Path(folder) / "results", Path(folder) / "ground_truth"
        for number in range(DISTINCT):
            write_example(results, truth, number)
        for file in sorted(Path(folder).glob("*/*/*.png")):
            for number in range(int(file.stem[:6]) + DISTINCT, IMAGES, DISTINCT):
                os.link(file, file.with_name(f"{number:06d}_10.png"))
        start = time.perf_counter()
        evaluation = evaluate_folder(results, truth, workers=str(processes))
        seconds = time.perf_counter() - start
    child = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"images: {len(evaluation.images)} of {WIDTH} x {HEIGHT} px, all four measures, occ and noc"
    )
    print(f"processes: {processes}")
    print(f"time: {seconds:.1f} s ({1000 * seconds / len(evaluation.images):.0f} ms an image)")
    print(f"processor time of the child processes: {child.ru_utime + child.ru_stime:.1f} s")
    print(
        f"peak memory: {own.ru_maxrss / 1024:.0f} MiB in this process, "
        f"{child.ru_maxrss / 1024:.0f} MiB in the largest child"
    )
    return 0


def write_example(results: Path, truth: Path, number: int) -> None:
    rng = np.random.default_rng(number)
    name = f"{number:06d}_10.png"
    maps = [smooth(rng, low=2, high=90) for _ in range(2)]
    flow = np.stack([smooth(rng, low=-60, high=60), smooth(rng, low=-20, high=20)], axis=2)
    draw = rng.random((HEIGHT, WIDTH))
    for folder in ("disp_0", "disp_1", "flow"):
        (results / folder).mkdir(parents=True, exist_ok=True)
    for region in TRUTH_DENSITY:
        for folder in (f"disp_{region}_0", f"disp_{region}_1", f"flow_{region}", "obj_map"):
            (truth / folder).mkdir(parents=True, exist_ok=True)
    for time_index, disparity in enumerate(maps):
        estimate = disparity + rng.normal(0, NOISE_PX, disparity.shape).astype(np.float32)
        write_disparity_png(results / f"disp_{time_index}" / name, blurred(estimate))
        for region, density in TRUTH_DENSITY.items():
            known = np.where(draw < density, disparity, np.float32(np.nan))
            write_disparity_png(truth / f"disp_{region}_{time_index}" / name, known)
    estimate = flow + rng.normal(0, NOISE_PX, flow.shape).astype(np.float32)
    write_flow_png(results / "flow" / name, blurred(estimate))
    for region, density in TRUTH_DENSITY.items():
        known = np.where((draw < density)[..., None], flow, np.float32(np.nan))
        write_flow_png(truth / f"flow_{region}" / name, known)
    objects = (smooth(rng, low=0, high=1) > 0.7).astype(np.uint8)
    write_image(truth / "obj_map" / name, objects)


def smooth(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    coarse = rng.uniform(low, high, (6, 16)).astype(np.float32)
    return cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def blurred(noisy: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(noisy, (0, 0), 2)


if __name__ == "__main__":
    sys.exit(main())
