"""A recording: a time series of stereo frames, whether a folder or a bag holds them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from dwarf_ros.recordings.white_level import log_white_level, white_level
from dwarf_ros.types import InputError, StereoCamera, StereoFrame, as_rgb8

# Frames that are looked at for the range of 16-bit images.
_SAMPLES = 5


class FrameReader(Protocol):
    """Where the images of a recording come from; can be pickled, and used by several threads."""

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        """As `Recording.read`."""

    def camera(self, scene: int) -> StereoCamera:
        """As `Recording.camera`."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Stereo frames in order of time; images are read when a frame is asked for.

    ``len()`` is the number of frames and ``recording[i]`` the frame i as `StereoFrame`, uint8 RGB. It can be pickled, and
    read by several threads.

    Attributes:
        path: the folder or bag.
        names: of each frame: its left image's file name without suffix, or in a bag its number as 000000.
        stamps: time of each frame, ns, strictly increasing within a scene.
        scenes: index of the scene of each frame, from 0; frames of two scenes are no pair.
        frame_id: name of the left camera's optical frame.
        poses: float64 N x 4 x 4, left camera of each frame to world, m, in the optical frame (REP-103); None where
            unknown.
        files: left and right image file of each frame; None in a bag.
        topics: left and right image and camera_info of a bag, without /compressed; None in a folder.
    """

    path: Path
    names: Sequence[str]
    stamps: Sequence[int]
    scenes: Sequence[int]
    frame_id: str
    poses: np.ndarray | None
    files: Sequence[tuple[Path, Path]] | None
    _reader: FrameReader = field(repr=False)
    topics: tuple[str, str, str, str] | None = None

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, index: int) -> StereoFrame:
        """Frame `index` with its camera.

        Raises:
            IndexError: no such frame.
            InputError: as `read`.
        """
        left, right, camera = self.read(index)
        left, right = self.as_rgb8(left), self.as_rgb8(right)
        return StereoFrame(left, right, self.stamps[index], camera, self.frame_id)

    def as_rgb8(self, image: np.ndarray) -> np.ndarray:
        """An image that `read` returned as uint8 RGB, H x W x 3; 16 bits are scaled by the range that the recording uses."""
        return as_rgb8(image, white=self._white_level if image.dtype == np.uint16 else 255)

    @cached_property
    def _white_level(self) -> int:
        """White of 16-bit images, of some frames from all over the recording: the same in every process."""
        images: list[np.ndarray] = []
        for index in np.linspace(0, len(self) - 1, _SAMPLES).round().astype(int):
            with suppress(InputError):
                images += self.read(int(index))[:2]
        white = white_level(images)
        log_white_level(white, str(self.path))
        return white

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        """Left and right image of frame `index` as they were recorded, and their camera.

        Returns:
            uint8 or uint16; H x W where they are gray, H x W x 3 RGB where they have color.

        Raises:
            IndexError: no such frame.
            InputError: an image cannot be read or decoded, left and right differ in size or kind, or the calibration is
                for another size.
        """
        return self._reader.read(index)

    def camera(self, scene: int) -> StereoCamera:
        """Camera of a scene; width and height are 1 where only the images tell their size.

        Raises:
            InputError: the calibration is of no rectified stereo pair.
        """
        return self._reader.camera(scene)

    def pairs(self) -> list[tuple[int, int]]:
        """Numbers of every two consecutive frames of one scene.

        Raises:
            InputError: there are none.
        """
        pairs = [(a, b) for a, b in pairwise(range(len(self))) if self.scenes[a] == self.scenes[b]]
        if not pairs:
            raise InputError(f"{self.path}: {len(self)} frames, expected at least two of one scene")
        return pairs
