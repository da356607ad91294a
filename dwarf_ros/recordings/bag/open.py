"""Opening a bag as a recording of a stereo camera."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from pathlib import Path

from dwarf_ros.recordings.bag.frames import BagFrameReader
from dwarf_ros.recordings.bag.info import survey
from dwarf_ros.recordings.bag.storage import Storage
from dwarf_ros.recordings.recording import Recording
from dwarf_ros.types import InputError

_log = logging.getLogger(__name__)


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
        raise InputError(f"{bag}: {'; '.join((info.problems[0], *storage.damage[:1]))}")
    for line in (*info.unused, *storage.damage):
        _warn_once(f"{bag}: {line}")
    return Recording(
        path=Path(bag),
        names=[f"{index:06d}" for index in range(len(frames.stamps))],
        stamps=frames.stamps,
        scenes=frames.scenes,
        frame_id=frames.frame_id,
        poses=frames.poses,
        files=None,
        _reader=BagFrameReader(storage, frames),
        topics=info.stereo.base_names if info.stereo is not None else None,
    )


@functools.cache
def _warn_once(line: str) -> None:
    _log.warning(line)
