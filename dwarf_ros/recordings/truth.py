"""Ground truth of a recording's frames, in KITTI's layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dwarf_ros.formats import read_disparity_png, read_flow_png, read_image
from dwarf_ros.recordings.kitti_layout import OBJECT_FOLDER, REGIONS, find_truth_folders
from dwarf_ros.recordings.recording import Recording
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.types import InputError

_SCENE_FRAME = re.compile(r"(\d{6})_(\d{2})\.png")
_FRAME = re.compile(r"\d+\.png")


@dataclass(frozen=True, eq=False)
class TruthFolder:
    """Ground truth in KITTI's layout, for some frames of a recording.

    Attributes:
        folders: by map (disparity, disparity_next, flow) and region (occ, noc).
        objects: folder of object maps, None where there is none.
        names: file of each frame that has one, by the frame's number.
    """

    folders: Mapping[str, Mapping[str, Path]]
    objects: Path | None
    names: Mapping[int, str]

    def read(self, frame: int) -> SampleTruth | None:
        """Ground truth of a frame; None where it has none.

        Raises:
            InputError: a file is missing, damaged or of another kind.
        """
        name = self.names.get(frame)
        if name is None:
            return None
        maps: dict[str, Maps] = {}
        for region in REGIONS:
            values = {
                kind: read_flow_png(folders[region] / name)
                if kind == "flow"
                else read_disparity_png(folders[region] / name)
                for kind, folders in self.folders.items()
                if region in folders
            }
            if values:
                maps[region] = Maps(**values)
        objects = None if self.objects is None else read_image(self.objects / name)
        if objects is not None and objects.ndim != 2:
            raise InputError(f"{self.objects}/{name}: is a color image, expected a gray object map")
        return SampleTruth(maps.get("occ") or maps["noc"], maps.get("noc"), objects)


def open_truth(folder: Path, recording: Recording) -> TruthFolder:
    """Find the ground truth of a recording's frames: disp_occ_0/, disp_occ_1/, flow_occ/ and the like, or some of them.

    A file belongs to the frame with its image's name where the recording is a folder of images. In a bag, NNNNNN.png is the
    frame of that number, from 0; and SSSSSS_FF.png is of the scene in that place among the scenes with ground truth: its
    frame FF, or FF - 10 where the scene has only frames from 10 on, as KITTI 2015 without its multi-view extension.

    Raises:
        InputError: no such folder, no ground truth in it, or none for these frames.
    """
    if not folder.is_dir():
        raise InputError(f"ground_truth: {folder}: no such folder")
    folders = find_truth_folders(folder)
    present = {
        kind: {file.name for file in next(iter(regions.values())).glob("*.png")}
        for kind, regions in folders.items()
    }
    files = sorted(set().union(*present.values()))
    if not files:
        raise InputError(
            f"ground_truth: {folder}: no ground truth, expected disp_occ_0/, disp_occ_1/ or flow_occ/ (KITTI 2015), "
            "or disp_occ/ or flow_occ/ (2012), with PNG files"
        )
    names = _names_by_frame(files, recording)
    answered = {frame for frame, _ in recording.pairs()}
    names = {frame: name for frame, name in names.items() if frame in answered}
    if not names:
        raise InputError(
            f"ground_truth: {folder}: {files[0]} and {len(files) - 1} more are for none of the {len(recording)} frames, "
            "expected files named as the images or by the number of the frame (000000.png)"
        )
    kept = {kind: folders[kind] for kind, there in present.items() if there}
    objects = folder / OBJECT_FOLDER
    return TruthFolder(kept, objects if objects.is_dir() else None, names)


def _names_by_frame(files: list[str], recording: Recording) -> dict[int, str]:
    if recording.files is not None:
        numbers = {f"{name}.png": index for index, name in enumerate(recording.names)}
        return {numbers[file]: file for file in files if file in numbers}
    names = {int(file[:-4]): file for file in files if _FRAME.fullmatch(file)}
    of_scenes = [match for match in map(_SCENE_FRAME.fullmatch, files) if match]
    known = sorted({match[1] for match in of_scenes})
    members: dict[int, list[int]] = {}
    for index, scene in enumerate(recording.scenes):
        members.setdefault(scene, []).append(index)
    if known and len(known) != len(members):
        raise InputError(
            f"ground_truth: files of {len(known)} scenes ({of_scenes[0][0]} ...), but the recording has {len(members)}, "
            "expected as many"
        )
    for match in of_scenes:
        frames = members[known.index(match[1])]
        position = int(match[2])
        position = position if position < len(frames) else position - 10
        if 0 <= position < len(frames):
            names[frames[position]] = match[0]
    return names
