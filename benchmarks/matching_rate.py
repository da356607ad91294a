"""How often features alone find the right cell: python benchmarks/matching_rate.py WEIGHTS --kitti DIR [--teacher FILE] [--drives N].

Every cell of the left image is matched with the cell of the largest cosine, along its row in the right image (stereo) and in the
whole next left image (flow), without smoothness and without a decoder. A pixel with ground truth that is not occluded counts as
right if the displacement of its cell is right within one cell (stereo) or 1.5 cells (flow). WEIGHTS are those of dwarf_lite_v2, or of
its encoder; FILE those of ptlflow's gmflow_refine, whose convolutional features are compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros import network
from dwarf_ros.datasets.splits import open_dataset
from dwarf_ros.network.codec import padding
from dwarf_ros.network.weights import load_encoder
from dwarf_ros.samples import Maps, Sample
from dwarf_ros.training.data import DriveSamples
from dwarf_ros.training.features import teacher_features

HELD_OUT_SEED = 1_000_000
CELLS = {16: "sixteenth", 8: "eighth"}

Images = list[np.ndarray]
Features = dict[str, np.ndarray]


def conditions() -> dict[str, Callable[[Images], Images]]:
    """From left_t0, right_t0, left_t1 to the same images under worse conditions."""
    noise = np.random.default_rng(0).normal(0, 10, (3, 384, 1280, 1))

    def changed(image: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(values), 0, 255).astype(image.dtype)

    return {
        "clean": lambda images: images,
        "a quarter of the brightness": lambda images: [changed(i, i * 0.25) for i in images],
        "blurred by 2 px": lambda images: [cv2.GaussianBlur(i, (0, 0), 2) for i in images],
        "others 1.5 times as bright": lambda images: [
            images[0],
            *(changed(i, i * 1.5) for i in images[1:]),
        ],
        "noise of sigma 10": lambda images: [
            changed(i, i + n[: i.shape[0], : i.shape[1]])
            for i, n in zip(images, noise, strict=True)
        ],
    }


def main() -> int:
    options = parsed()
    encoders = {"dwarf_lite_v2": student(options.weights)}
    if options.teacher:
        encoders["gmflow"] = lambda images: teacher(images, options.teacher)
    print("| scene | images | encoder | 16 px: stereo | flow | 8 px: stereo | flow |")
    print("|---|---|---|---|---|---|---|")
    for name, samples in sets(options):
        for condition, change in conditions().items():
            for encoder_name, encoder in encoders.items():
                rates = np.mean([rates_of(s, change, encoder) for s in samples], axis=0)
                row = " | ".join(f"{rate:.1f}" for rate in rates)
                print(f"| {name} | {condition} | {encoder_name} | {row} |", flush=True)
    return 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--kitti", type=Path, help="folder of KITTI 2012")
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--drives", type=int, default=0)
    return parser.parse_args()


def sets(options: argparse.Namespace) -> Iterator[tuple[str, list[Sample]]]:
    if options.kitti:
        kitti = open_dataset("kitti2012", options.kitti)
        for index in range(len(kitti)):
            yield kitti[index].name, [kitti[index]]
    if options.drives:
        drives = DriveSamples(HELD_OUT_SEED, 2 * options.drives, 384, 1280)
        yield f"{options.drives} drives", [drives[2 * n] for n in range(options.drives)]


def student(weights: Path) -> Callable[[Images], list[Features]]:
    model = network.build_encoder("dwarf_lite_v2")
    load_encoder(model, weights)

    def features(images: Images) -> list[Features]:
        four = [np.float32(image[None]) / 255 for image in (*images, images[0])]
        found = model(dict(zip(network.INPUTS, four, strict=True)))
        return [
            {name: np.asarray(maps[index]) for name, maps in found.items()} for index in range(3)
        ]

    return features


def teacher(images: Images, weights: Path) -> list[Features]:
    found = [teacher_features(image, weights) for image in images]
    return [dict(zip(("eighth", "sixteenth"), maps, strict=True)) for maps in found]


def rates_of(
    sample: Sample,
    change: Callable[[Images], Images],
    encoder: Callable[[Images], list[Features]],
) -> list[float]:
    """Per cent of the pixels: stereo and flow with cells of 16 px, then of 8 px."""
    images = [sample.previous.left, sample.previous.right, sample.current.left]
    margins = padding(*images[0].shape[:2])
    padded = [np.pad(image, (*margins, (0, 0)), mode="reflect") for image in change(images)]
    truth = sample.ground_truth.noc or sample.ground_truth.occ
    found = encoder(padded)
    rates = []
    for cell, name in CELLS.items():
        left, right, following = (unit(features[name]) for features in found)
        rates.append(stereo_rate(left, right, truth, margins, cell))
        rates.append(flow_rate(left, following, truth, margins, cell))
    return rates


def unit(features: np.ndarray) -> np.ndarray:
    features = features.astype(np.float32)
    return features / np.linalg.norm(features, axis=-1, keepdims=True)


def stereo_rate(
    left: np.ndarray, right: np.ndarray, truth: Maps, margins: tuple, cell: int
) -> float:
    cosines = np.einsum("yxc,yzc->yxz", left, right)
    columns = np.arange(left.shape[1])
    cosines[:, columns > columns[:, None]] = -2
    matched = columns - cosines.argmax(axis=-1)
    error = np.abs(at_pixels(matched, truth.disparity, margins, cell) - truth.disparity / cell)
    return 100 * float((error[np.isfinite(error)] <= 1).mean())


def flow_rate(
    first: np.ndarray, second: np.ndarray, truth: Maps, margins: tuple, cell: int
) -> float:
    height, width, channels = first.shape
    best = (first.reshape(-1, channels) @ second.reshape(-1, channels).T).argmax(axis=1)
    rows, columns = np.mgrid[:height, :width]
    best = best.reshape(height, width)
    matched = np.stack([best % width - columns, best // width - rows], axis=-1)
    at = at_pixels(matched, truth.flow, margins, cell)
    error = np.linalg.norm(at - truth.flow / cell, axis=-1)
    return 100 * float((error[np.isfinite(error)] <= 1.5).mean())


def at_pixels(values: np.ndarray, truth: np.ndarray, margins: tuple, cell: int) -> np.ndarray:
    """Values of the cells, which are centered on every `cell`-th pixel, at the pixels of the image before it was padded."""
    (top, _), (left, _) = margins
    height, width = truth.shape[:2]
    rows = np.minimum((np.arange(height) + top + cell // 2) // cell, values.shape[0] - 1)
    columns = np.minimum((np.arange(width) + left + cell // 2) // cell, values.shape[1] - 1)
    return values[rows[:, None], columns]


if __name__ == "__main__":
    sys.exit(main())
