"""Scene flow on disk as KITTI's benchmark takes it: one 16-bit PNG per map and reference frame; and motion beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.files import remove_partial_files, write_atomically
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    read_image,
    write_disparity_png,
    write_flow_png,
    write_image,
)
from dwarf_ros.recordings.kitti_layout import FLOW, RESULT_FOLDERS
from dwarf_ros.samples import Maps
from dwarf_ros.types import UNKNOWN, EgoMotion, InputError, SceneFlow

MOTION, MOVING_PIXELS = "motion", "moving"
DISPARITY_CONFIDENCE, FLOW_CONFIDENCE = "confidence_disparity", "confidence_flow"
MOTION_FOLDERS = (MOTION, MOVING_PIXELS, DISPARITY_CONFIDENCE, FLOW_CONFIDENCE)


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

    @property
    def motion_folders(self) -> list[Path]:
        """Folders of ego-motion, moving pixels and confidence."""
        return [self.path / name for name in MOTION_FOLDERS]

    def write_motion(self, name: str, scene_flow: SceneFlow) -> None:
        """Write what the refinement of a reference frame found.

        motion/NAME.json is as of `ego_motion_document`; moving/NAME.png is 8-bit: 0 static, 255 moving, 127 unknown;
        confidence_disparity/NAME.png and confidence_flow/NAME.png are 16-bit, 65535 for a confidence of 1, and exist only
        with ego-motion. Without calibration or refinement nothing is written.

        Raises:
            OSError: a file cannot be written.
        """
        if scene_flow.ego_motion is None or scene_flow.camera is None:
            return
        document = json.dumps(ego_motion_document(scene_flow.ego_motion)) + "\n"
        write_atomically(self._made(MOTION) / f"{name}.json", document.encode())
        self.write_moving(name, scene_flow)
        for folder, confidence in (
            (DISPARITY_CONFIDENCE, scene_flow.disparity_confidence),
            (FLOW_CONFIDENCE, scene_flow.flow_confidence),
        ):
            if confidence is not None:
                values = np.rint(np.clip(confidence, 0, 1) * 65535).astype(np.uint16)
                write_image(self._made(folder) / f"{name}.png", values)

    def write_moving(self, name: str, scene_flow: SceneFlow) -> None:
        """Write moving/NAME.png; see `write_motion`.

        Raises:
            OSError: the file cannot be written.
        """
        mask = scene_flow.motion_mask
        if mask is None:
            mask = np.full(scene_flow.disparity.shape, UNKNOWN, np.uint8)
        write_image(self._made(MOVING_PIXELS) / f"{name}.png", mask)

    def read_confidences(self, name: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Confidence of disparity and of flow, float32 H x W, 0 to 1; None where there is no file.

        Raises:
            InputError: a file is damaged or of another kind.
        """
        disparity, flow = (
            read_confidence(self.path / folder / f"{name}.png")
            for folder in (DISPARITY_CONFIDENCE, FLOW_CONFIDENCE)
        )
        return disparity, flow

    def _made(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(exist_ok=True)
        return folder

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


def ego_motion_document(ego_motion: EgoMotion) -> dict[str, Any]:
    """Ego-motion ready for JSON.

    Returns:
        transform (4 x 4, of points from the reference's left camera frame to the other's, m), covariance (6 x 6, of
        translation in m and rotation in rad, see `EgoMotion`) and static_percent (of the pixels used, those that agree);
        or reason, why it is unknown.
    """
    if ego_motion.transform is None or ego_motion.covariance is None:
        return {"reason": ego_motion.reason}
    return {
        "transform": ego_motion.transform.tolist(),
        "covariance": ego_motion.covariance.tolist(),
        "static_percent": 100 * ego_motion.static_fraction,
    }


def read_confidence(file: Path) -> np.ndarray | None:
    """Confidence of a 16-bit PNG, float32 H x W, 0 to 1; None where the file is missing.

    Raises:
        InputError: the file is damaged or of another kind.
    """
    if not file.is_file():
        return None
    values = read_image(file)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise InputError(
            f"{file}: {values.dtype} {values.shape}, expected a 16-bit gray PNG of confidence"
        )
    return values.astype(np.float32) / 65535


def read_map(file: Path) -> np.ndarray:
    """A disparity map (float32 H x W, px), or optical flow (H x W x 2) from a folder named flow...; NaN where invalid.

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    return (read_flow_png if file.parent.name.startswith(FLOW) else read_disparity_png)(file)
