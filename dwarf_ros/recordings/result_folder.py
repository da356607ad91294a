"""Scene flow on disk as KITTI's benchmark takes it: one 16-bit PNG per map and reference frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwarf_ros.files import remove_partial_files
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    write_disparity_png,
    write_flow_png,
)
from dwarf_ros.recordings.kitti_layout import FLOW, RESULT_FOLDERS
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError, SceneFlow


@dataclass(frozen=True)
class ResultFolder:
    """A folder with disp_0/, disp_1/ and flow/: results, or labels for training."""

    path: Path

    @property
    def folders(self) -> list[Path]:
        """The three folders."""
        return [self.path / name for name in RESULT_FOLDERS]

    def files(self, name: str) -> list[Path]:
        """The three files of a reference frame, whose name has no suffix."""
        return [folder / f"{name}.png" for folder in self.folders]

    def exists(self) -> bool:
        """Whether all three folders exist."""
        return all(folder.is_dir() for folder in self.folders)

    def names(self) -> set[str]:
        """Reference frames for which all three files exist."""
        return set.intersection(*({file.stem for file in f.glob("*.png")} for f in self.folders))

    def create(self) -> None:
        """Make the folders where they are missing."""
        for folder in self.folders:
            folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, scene_flow: SceneFlow | Maps) -> None:
        """Write all three maps of a reference frame.

        Raises:
            OSError: a file cannot be written.
        """
        maps = scene_flow.disparity, scene_flow.disparity_next, scene_flow.flow
        for file, values in zip(self.files(name), maps, strict=True):
            assert values is not None
            write = write_flow_png if file.parent.name == FLOW else write_disparity_png
            write(file, values)

    def read(self, name: str) -> Maps:
        """All three maps of a reference frame, px; NaN where invalid.

        Raises:
            InputError: a file is missing, damaged or of another kind, or the sizes differ.
        """
        disparity, disparity_next, flow = map(read_map, self.files(name))
        if not disparity.shape == disparity_next.shape == flow.shape[:2]:
            raise InputError(f"{self.path}: disp_0, disp_1 and flow of {name}.png differ in size")
        return Maps(disparity, disparity_next, flow)

    def remove_partial_files(self) -> None:
        """Remove files that interrupted processes did not finish."""
        for folder in self.folders:
            remove_partial_files(folder)


def read_map(file: Path) -> np.ndarray:
    """A disparity map (float32 H x W, px), or optical flow (H x W x 2) from a folder named flow...; NaN where invalid.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    return (read_flow_png if file.parent.name.startswith(FLOW) else read_disparity_png)(file)
