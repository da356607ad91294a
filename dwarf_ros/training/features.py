"""Single images with the features that GMFlow's convolutional encoder finds in them, to distill them into a smaller encoder.

The teacher sees clean images of half the size; its features at 1/8 and 1/16 of the full size are computed once and cached.
Only the student's images are augmented.

Reference: Xu et al., "GMFlow: Learning Optical Flow via Global Matching", CVPR 2022.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import cv2
import numpy as np

from dwarf_ros.files import refusing_unwritable, write_atomically
from dwarf_ros.formats import read_image
from dwarf_ros.types import InputError

CELL = 16
"""Crops start and end at multiples of this, px, where the grid of the features does."""

_SUFFIXES = (".png", ".jpg", ".jpeg")
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)


@dataclass(frozen=True, eq=False)
class FeatureItem:
    """An image and a teacher's features of it.

    Attributes:
        image: uint8 H x W x 3, RGB; H and W multiples of CELL.
        eighth: float16 H / 8 x W / 8 x 128.
        sixteenth: float16 H / 16 x W / 16 x 128.
    """

    image: np.ndarray
    eighth: np.ndarray
    sixteenth: np.ndarray


class FeatureImages:
    """The images of a folder and its subfolders, with the teacher's features.

    Args:
        root: folder of PNG and JPEG files.
        teacher: weights of ptlflow's `gmflow_refine`, a state dictionary; read without executing code.
        cache: folder for the features, about 2.4 MB per KITTI image.

    Raises:
        InputError: the folder holds no image.
    """

    def __init__(self, root: Path, teacher: Path, cache: Path) -> None:
        self._files = sorted(file for file in root.rglob("*") if file.suffix in _SUFFIXES)
        if not self._files:
            raise InputError(f"root: {root} holds no image, expected PNG or JPEG files")
        self._root, self._teacher, self._cache = root, teacher, cache

    def __len__(self) -> int:
        return len(self._files)

    def item(self, index: int) -> FeatureItem:
        """Read an image and its features, which are computed where they are not cached.

        Raises:
            InputError: the image is damaged or the cache cannot be written.
        """
        file = self._files[index]
        image = read_image(file)
        height, width = (length // CELL * CELL for length in image.shape[:2])
        image = image[:height, :width]
        name = hashlib.sha256(str(file.relative_to(self._root)).encode()).hexdigest()[:16]
        cached = self._cache / f"{name}.npz"
        try:
            with np.load(cached, allow_pickle=False) as arrays:
                return FeatureItem(image, arrays["eighth"], arrays["sixteenth"])
        except (OSError, ValueError, KeyError, BadZipFile):
            # Missing or damaged.
            eighth, sixteenth = teacher_features(image, self._teacher)
        content = BytesIO()
        np.savez(content, eighth=eighth, sixteenth=sixteenth)
        with refusing_unwritable(cached):
            cached.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(cached, content.getvalue())
        return FeatureItem(image, eighth, sixteenth)


def cropped(
    item: FeatureItem, height: int, width: int, rng: np.random.Generator
) -> FeatureItem | None:
    """A random window of an item, or None if the item is smaller."""
    rows, columns = (
        (have - want) // CELL
        for have, want in zip(item.image.shape[:2], (height, width), strict=True)
    )
    if rows < 0 or columns < 0:
        return None
    top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))

    def window(maps: np.ndarray, cells: int) -> np.ndarray:
        y, x = top * cells, left * cells
        return maps[y : y + height * cells // CELL, x : x + width * cells // CELL]

    return FeatureItem(window(item.image, CELL), window(item.eighth, 2), window(item.sixteenth, 1))


def teacher_features(image: np.ndarray, weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """GMFlow's features of the image at half the size.

    Args:
        image: uint8 H x W x 3, RGB; H and W multiples of CELL.
        weights: of ptlflow's `gmflow_refine`.

    Returns:
        float16 H / 8 x W / 8 x 128 and H / 16 x W / 16 x 128.
    """
    import torch

    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    values = (half / np.float32(255) - _MEAN) / _DEVIATION
    batch = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1))[None])
    # Half precision changes the direction of the features by less than a degree or two.
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = _backbone(weights)(batch)
    eighth, sixteenth = (maps[0].float().permute(1, 2, 0).half().numpy() for maps in found)
    return eighth, sixteenth


@lru_cache(maxsize=1)
def _backbone(weights: Path) -> Any:
    from dwarf_ros.estimators.ptlflow import load_network, require_ptlflow

    require_ptlflow("ptlflow:gmflow_refine")
    return load_network("gmflow_refine", weights).backbone
