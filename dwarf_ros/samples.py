"""A sample of a data set: two consecutive stereo frames and, where it is known, their true scene flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from dwarf_ros.types import InputError, StereoFrame


@dataclass(frozen=True, eq=False)
class Maps:
    """The scene flow of one image, estimated or true, map by map; None where a map is missing.

    Attributes:
        disparity: disparity of the reference frame, float32 H x W, px; NaN where unknown.
        disparity_next: disparity of the same surface points in the other frame, float32 H x W, px; NaN where unknown.
        flow: optical flow from the reference's left image to the other's, float32 H x W x 2, px; NaN where unknown.
    """

    disparity: np.ndarray | None = None
    disparity_next: np.ndarray | None = None
    flow: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class SampleTruth:
    """What is known to be true of a sample.

    Attributes:
        occ: maps of every pixel with ground truth.
        noc: the same, NaN where the point is hidden in one of the images; None where the data set does not tell.
        objects: H x W, 0 background, other values a moving object; None where the data set does not tell.
    """

    occ: Maps
    noc: Maps | None = None
    objects: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """Two consecutive stereo frames, and the truth about the first one's pixels.

    Attributes:
        name: unique in the data set and fit to name a file, e.g. "000010_10".
        previous, current: the frames, `previous` being the reference.
        ground_truth: None where it is unknown.
    """

    name: str
    previous: StereoFrame
    current: StereoFrame
    ground_truth: SampleTruth | None = None


class Dataset(Protocol):
    """Samples on disk: listed and checked when it is made, read when they are asked for."""

    @property
    def title(self) -> str:
        """What it is, in words, with its part or split."""

    @property
    def names(self) -> Sequence[str]:
        """Name of each sample, in order."""

    def __len__(self) -> int:
        """Number of samples."""

    def __getitem__(self, index: int) -> Sample:
        """Frames and truth of a sample.

        Raises:
            IndexError: no such sample.
            InputError: a file is missing, damaged or of another size than the others.
        """

    def images(self, index: int) -> tuple[Path, Path, Path, Path]:
        """Files of a sample's left and right image, previous then current."""

    def frames(self, index: int) -> tuple[StereoFrame, StereoFrame]:
        """A sample's two frames, without its truth.

        Raises:
            InputError: an image is missing, damaged or of another size than the others.
        """


def make_sample(
    name: str, frames: tuple[StereoFrame, StereoFrame], truth: SampleTruth | None
) -> Sample:
    """Sample of frames and truth that have been read.

    Raises:
        InputError: the truth is of another size than the images.
    """
    if truth is not None:
        height, width = frames[0].left.shape[:2]
        known = {f"{kind} {key}": m for kind in ("occ", "noc") for key, m in _maps(truth, kind)}
        known["object"] = truth.objects
        for kind, values in known.items():
            if values is not None and values.shape[:2] != (height, width):
                raise InputError(
                    f"{name}: {kind} ground truth is {values.shape[1]} x {values.shape[0]} px, expected "
                    f"{width} x {height} px as the images"
                )
    return Sample(name, *frames, truth)


def _maps(truth: SampleTruth, kind: str) -> list[tuple[str, np.ndarray | None]]:
    maps = truth.occ if kind == "occ" else truth.noc
    return [] if maps is None else list(vars(maps).items())
