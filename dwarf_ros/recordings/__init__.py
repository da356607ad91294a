"""Recordings of stereo cameras: folders of images and rosbag2 bags, their calibrations and ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dwarf_ros.recordings.bag.open import open_bag
from dwarf_ros.recordings.bag.storage import is_bag
from dwarf_ros.recordings.folders import open_folder
from dwarf_ros.recordings.recording import Recording
from dwarf_ros.types import InputError


def open_recording(
    source: Path, namespace: str | None = None, remap: Mapping[str, str] | None = None
) -> Recording:
    """Open a folder of stereo images with their calibration (`open_folder`), or a rosbag2 recording of them (`open_bag`).

    Args:
        source: the folder or bag.
        namespace: of the camera in a bag of several, as for `open_bag`.
        remap: topics of other names in a bag, as for `open_bag`.

    Raises:
        InputError: as `open_folder` and `open_bag`, or topics are chosen of what is no bag.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(f"{source}: no such file or folder, expected a bag or a folder of images")
    if is_bag(source):
        return open_bag(source, namespace, remap)
    if namespace is not None or remap:
        raise InputError(f"{source}: not a bag, expected one to choose topics from")
    return open_folder(source)
