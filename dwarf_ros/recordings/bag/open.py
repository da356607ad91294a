"""Opening a bag as a recording of a stereo camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.recordings.bag.info import survey
from dwarf_ros.recordings.bag.storage import MESSAGE_TYPES, MessageKey, Storage
from dwarf_ros.recordings.camera_messages import image_from_compressed, image_from_message
from dwarf_ros.recordings.recording import Recording
from dwarf_ros.types import InputError, StereoCamera


def open_bag(
    bag: Path, namespace: str | None = None, remap: Mapping[str, str] | None = None
) -> Recording:
    """Open a bag folder, or one .mcap or .db3 file, as a recording.

    All image headers are read once, so that a large bag takes as long as its file takes to read; images are not kept.
    Left and right belong together if their stamps differ by at most 10 ms, less than half the time between two frames, and
    each is the other's nearest. CompressedImage is taken where there is no Image.

    Args:
        bag: folder or file.
        namespace: of left/image_rect and its like; None: the only one that there is.
        remap: topics of other names, such as {"left/image_rect": "/front/left/image_mono"}; a camera_info that is not
            named is expected beside its image.

    Raises:
        InputError: it is no bag, or is damaged, or holds no stereo frames that can be used; the message says why.
    """
    storage = Storage(Path(bag))
    info, frames = survey(storage, namespace, remap)
    if frames is None:
        raise InputError(f"{bag}: {info.problems[0]}")
    return Recording(
        path=Path(bag),
        names=[f"{index:06d}" for index in range(len(frames.stamps))],
        stamps=frames.stamps,
        scenes=frames.scenes,
        frame_id=frames.frame_id,
        poses=frames.poses,
        files=None,
        _reader=_BagFrameReader(storage, frames.keys, frames.scenes, frames.cameras),
    )


def decode_image(message: Any, name: str) -> np.ndarray:
    """Pixels of a bag's Image or CompressedImage, as `image_from_message` gives them.

    Raises:
        InputError: as `image_from_message` and `image_from_compressed`.
    """
    raw = message.__msgtype__ == MESSAGE_TYPES["image"]
    return (image_from_message if raw else image_from_compressed)(message, name)


@dataclass(frozen=True, eq=False)
class _BagFrameReader:
    """Images of a bag, with the camera of each scene."""

    storage: Storage
    keys: Sequence[tuple[MessageKey, MessageKey]]
    scenes: Sequence[int]
    cameras: Sequence[StereoCamera]

    def camera(self, scene: int) -> StereoCamera:
        return self.cameras[scene]

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        keys, camera = self.keys[index], self.cameras[self.scenes[index]]
        names = [f"{self.storage.path}: {topic} at {stamp} ns" for topic, _, stamp in keys]
        left, right = map(decode_image, self.storage.find(keys), names)
        if left.shape != right.shape or left.dtype != right.dtype:
            raise InputError(
                f"{names[1]}: image is {right.dtype} {right.shape}, expected {left.dtype} {left.shape} as the left one"
            )
        if left.shape[:2] != (camera.height, camera.width):
            raise InputError(
                f"{names[0]}: image is {left.shape[1]} x {left.shape[0]} px, expected {camera.width} x "
                f"{camera.height} px as its camera_info"
            )
        return left, right, camera
