"""The stereo frames of a bag: where they are, and their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from dwarf_ros.recordings.bag.storage import MESSAGE_TYPES, MessageKey, Storage
from dwarf_ros.recordings.camera_messages import image_from_compressed, image_from_message
from dwarf_ros.types import InputError, StereoCamera, as_rgb8


@dataclass(frozen=True, eq=False)
class BagFrames:
    """The stereo frames of a bag, as `Recording` describes them, with the camera of each scene and the place of each image."""

    stamps: Sequence[int]
    scenes: Sequence[int]
    cameras: Sequence[StereoCamera]
    frame_id: str
    poses: np.ndarray | None
    keys: Sequence[tuple[MessageKey, MessageKey]]


@dataclass(frozen=True, eq=False)
class BagFrameReader:
    """Images of a bag, with the camera of each scene."""

    storage: Storage
    frames: BagFrames

    def camera(self, scene: int) -> StereoCamera:
        """Camera of a scene."""
        return self.frames.cameras[scene]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        """As `Recording.read`; where left and right differ in color or depth, both become uint8 RGB, as in the live node."""
        keys = self.frames.keys[index]
        camera = self.frames.cameras[self.frames.scenes[index]]
        names = [f"{self.storage.path}: {topic} at {stamp} ns" for topic, _, stamp in keys]
        left, right = map(decode_image, self.storage.find(keys), names)
        for image, name in zip((left, right), names, strict=True):
            if image.shape[:2] != (camera.height, camera.width):
                raise InputError(
                    f"{name}: image is {image.shape[1]} x {image.shape[0]} px, expected {camera.width} x "
                    f"{camera.height} px as its camera_info"
                )
        if left.shape != right.shape or left.dtype != right.dtype:
            return as_rgb8(left), as_rgb8(right), camera
        return left, right, camera

    def problem(self) -> str | None:
        """Why no two consecutive frames can be decoded; None where some can."""
        reason = ""
        for a, b in pairwise(range(len(self.frames.stamps))):
            if self.frames.scenes[a] != self.frames.scenes[b]:
                continue
            try:
                self.read(a)
                self.read(b)
            except InputError as error:
                reason = reason or str(error).removeprefix(f"{self.storage.path}: ")
            else:
                return None
        return f"no two consecutive frames can be decoded: {reason}"


def decode_image(message: Any, name: str) -> np.ndarray:
    """Pixels of a bag's Image or CompressedImage, as `image_from_message` gives them.

    Raises:
        InputError: as `image_from_message` and `image_from_compressed`.
    """
    raw = message.__msgtype__ == MESSAGE_TYPES["image"]
    return (image_from_message if raw else image_from_compressed)(message, name)
