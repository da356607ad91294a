"""Estimates of a teacher, kept where they are consistent.

Reference: Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwarf_ros.estimators import Estimator, EstimatorChoice
from dwarf_ros.estimators.classical import look_up
from dwarf_ros.geometry import (
    aligned_frame,
    forward_backward_error,
    left_right_error,
    mirrored_frame,
)
from dwarf_ros.motion.refined import load_once
from dwarf_ros.recordings.kitti_layout import (
    DISPARITY,
    FLOW,
    LARGEST_DISPARITY,
    LARGEST_FLOW,
    RESULT_FOLDERS,
)
from dwarf_ros.recordings.result_folder import read_map
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError, StereoFrame


@dataclass(frozen=True, eq=False)
class TeacherMaps:
    """A teacher's estimate for a pair of frames, and maps to check it by; None if unavailable.

    Attributes:
        maps: for the left image of the reference.
        right: disparity of the right image of the reference, x_left - x_right at its pixels, float32 H x W, px; NaN where unknown.
        right_next: the same of the right image of the other frame.
        backward_flow: optical flow from the other frame's left image to the reference's, float32 H x W x 2, px; NaN where unknown.
    """

    maps: Maps
    right: np.ndarray | None = None
    right_next: np.ndarray | None = None
    backward_flow: np.ndarray | None = None


def check_teacher(teacher: EstimatorChoice | Path) -> EstimatorChoice | Path:
    """The teacher, a folder as an absolute path.

    Raises:
        InputError: the folder has no maps.
    """
    if isinstance(teacher, EstimatorChoice):
        return teacher
    maps = Path(teacher).absolute()
    if not any((maps / kind).is_dir() for kind in (DISPARITY, FLOW)):
        raise InputError(f"{maps}: no maps, expected disp_0/ or flow/ with 16-bit PNG files")
    return maps


def name_of(teacher: EstimatorChoice | Path) -> tuple[str, str]:
    """Name and engine of a teacher."""
    return ("folder", "none") if isinstance(teacher, Path) else (teacher.name, teacher.engine)


def consistent_maps(estimate: TeacherMaps, threshold: float) -> Maps:
    """A teacher's estimate where it is consistent, NaN elsewhere.

    A disparity is kept if the disparity of the right image at its target differs by no more than the threshold. Optical flow is
    kept if following it and the backward flow ends no further than the threshold from the start. The next disparity is kept if
    the flow is and if it agrees with the right image of its own time. Maps that cannot be checked are kept, except for values
    that a KITTI file cannot hold.

    Args:
        estimate: all three maps.
        threshold: px.
    """
    disparity, disparity_next, flow = _all(estimate.maps)
    with np.errstate(invalid="ignore"):
        keep = disparity <= LARGEST_DISPARITY
        keep_next = disparity_next <= LARGEST_DISPARITY
        keep_flow = (np.abs(flow) <= LARGEST_FLOW).all(axis=-1)
        if estimate.right is not None:
            keep &= left_right_error(disparity, estimate.right) <= threshold
        if estimate.backward_flow is not None:
            keep_flow &= forward_backward_error(flow, estimate.backward_flow) <= threshold
        keep_next &= keep_flow
        if estimate.right_next is not None:
            keep_next &= left_right_error(disparity_next, estimate.right_next, flow) <= threshold
    return Maps(
        np.where(keep, disparity, np.float32(np.nan)),
        np.where(keep_next, disparity_next, np.float32(np.nan)),
        np.where(keep_flow[..., None], flow, np.float32(np.nan)),
    )


def ask_teacher(
    teacher: EstimatorChoice | Path,
    frames: tuple[StereoFrame, StereoFrame],
    names: tuple[str, str],
) -> TeacherMaps:
    """Estimate a pair of frames, forward, backward and mirrored, or read the teacher's maps of it.

    Args:
        teacher: an estimator, or a folder of maps.
        frames: the reference and the next frame.
        names: of their files, without suffix.

    Raises:
        InputError: a map is missing, damaged or of another size than the images.
    """
    if isinstance(teacher, Path):
        return _read_maps(teacher, *names, frames[0].left.shape[:2])
    estimator = load_once(teacher)
    frames = aligned_frame(frames[0]), aligned_frame(frames[1])
    answer = estimator.estimate(*frames)
    backward = estimator.estimate(*frames[::-1])
    right, right_next = _disparities_of_right(estimator, frames)
    maps = Maps(answer.disparity, answer.disparity_next, answer.flow)
    return TeacherMaps(maps, right, right_next, backward.flow)


def _disparities_of_right(
    estimator: Estimator, frames: tuple[StereoFrame, StereoFrame]
) -> list[np.ndarray]:
    """Disparity of each frame's right image, from the mirrored images."""
    from dwarf_ros.estimators.ptlflow import PtlflowEstimator

    mirrored = [mirrored_frame(frame) for frame in frames]
    if isinstance(estimator, PtlflowEstimator):
        # Its passes are slow and independent: the flows are not needed.
        return [estimator.disparity(frame)[:, ::-1] for frame in mirrored]
    pairs = (mirrored, mirrored[::-1])
    return [estimator.estimate(*pair).disparity[:, ::-1] for pair in pairs]


def _read_maps(folder: Path, name: str, following: str, size: tuple[int, ...]) -> TeacherMaps:
    def read(kind: str, of: str) -> np.ndarray | None:
        if not (folder / kind).is_dir():
            return None
        file = folder / kind / f"{of}.png"
        values = read_map(file)
        if values.shape[:2] != size:
            raise InputError(
                f"{file}: map is {values.shape[1]} x {values.shape[0]} px, expected {size[1]} x {size[0]} px as the images"
            )
        return values

    disparity, disparity_next, flow = (read(kind, name) for kind in RESULT_FOLDERS)
    if disparity is None:
        disparity = np.full(size, np.nan, np.float32)
    if flow is None:
        flow = np.full((*size, 2), np.nan, np.float32)
    elif disparity_next is None:
        then = read(DISPARITY, following)
        # Unknown flow leads outside the image, where no disparity is found.
        disparity_next = None if then is None else look_up(then, np.nan_to_num(flow, nan=1e6))
    if disparity_next is None:
        disparity_next = np.full(size, np.nan, np.float32)
    return TeacherMaps(
        Maps(disparity, disparity_next, flow),
        read("disp_right", name),
        read("disp_right", following),
        read("flow_back", following),
    )


def _all(maps: Maps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    assert maps.disparity is not None
    assert maps.disparity_next is not None
    assert maps.flow is not None
    return maps.disparity, maps.disparity_next, maps.flow
