"""Calibrations of rectified stereo pairs: KITTI's text formats and ROS camera_info YAML files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dwarf_ros.types import InputError, StereoCamera

_LARGEST_FILE = 1 << 20
_PROJECTION_KEY = re.compile(r"P(?:_rect_0)?([0-3])")
_SIZE_KEY = re.compile(r"S_rect_0([0-3])")
_KEY = re.compile(r"[A-Za-z]\w*")


@dataclass(frozen=True, eq=False)
class Calibration:
    """The projection matrices of a rectified stereo pair, as a file states them.

    Attributes:
        file: where they were read, for messages.
        left, right: 3 x 4 projection matrices, px (last column px times m), float64.
        size: width and height of the images that they are for, px; None where the file does not say.
    """

    file: Path
    left: np.ndarray
    right: np.ndarray
    size: tuple[int, int] | None

    def camera(self, width: int, height: int) -> StereoCamera:
        """The stereo camera of images of width x height px.

        Raises:
            InputError: the file is for another image size, or its matrices are of no rectified stereo pair (focal
                lengths differ or are not positive, baseline not positive).
        """
        if self.size is not None and self.size != (width, height):
            raise InputError(
                f"{self.file}: calibration is for images of {self.size[0]} x {self.size[1]} px, but the images are "
                f"{width} x {height} px, expected the rectified images that belong to it"
            )
        try:
            return StereoCamera.from_projection_matrices(self.left, self.right, width, height)
        except InputError as error:
            raise InputError(f"{self.file}: {error}") from None

    @property
    def left_offset(self) -> np.ndarray:
        """Where the left camera is in the frame of the rig's camera 0 (KITTI's poses are of that one), m, float64 (3,)."""
        return -np.linalg.solve(self.left[:, :3], self.left[:, 3])


def read_calibration(file: Path, width: int, height: int, color: bool) -> StereoCamera:
    """Stereo camera of a pair of images of width x height px; `load_calibration` says which files are read.

    Raises:
        InputError: as `load_calibration`, or the calibration is for another image size.
    """
    return load_calibration(file, color).camera(width, height)


def load_calibration(file: Path, color: bool) -> Calibration:
    """Projection matrices of a stereo pair from one file.

    Read are KITTI's odometry calib.txt and 2012 calib/NNNNNN.txt (rows ``P0:`` .. ``P3:``, or rows of 12 numbers without
    a name), its calib_cam_to_cam.txt of raw drives and 2015 scenes (``P_rect_00:`` .. ``P_rect_03:``, ``S_rect_..``), and
    the YAML file of the left camera that ROS's camera_calibration writes; the right camera's must lie beside it, under
    the same name with "right" in place of "left".

    Args:
        file: the calibration.
        color: in a KITTI file with four cameras, take the color pair (2 and 3), not the gray one (0 and 1). A file
            with just two cameras has only one pair to take.

    Raises:
        InputError: the file is missing, not readable as one of these, lacks the pair, or describes no rectified stereo
            pair (see `StereoCamera.from_projection_matrices`).
    """
    file = Path(file)
    if file.suffix.lower() in (".yaml", ".yml"):
        calibration = _from_ros_yaml(file)
    else:
        calibration = _from_kitti_text(file, color)
    calibration.camera(*(calibration.size or (1, 1)))
    for matrix in (calibration.left, calibration.right):
        if not np.array_equal(matrix[2, :3], (0, 0, 1)):
            raise InputError(
                f"{file}: third row of a projection matrix begins {matrix[2, :3].tolist()}, expected 0 0 1"
            )
    return calibration


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise InputError(
                f"{file}: {file.stat().st_size} bytes long, expected a calibration text file of at most 1 MiB"
            )
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{file}: {error.strerror or error}, expected a calibration file"
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file, expected a calibration") from None


def _floats(values: list[Any]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None


def _from_kitti_text(file: Path, color: bool) -> Calibration:
    named: dict[int, np.ndarray] = {}
    unnamed: list[np.ndarray] = []
    sizes: dict[int, tuple[int, int]] = {}
    for number, line in enumerate(_read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        key, separator, rest = line.partition(":")
        key = key.strip()
        if not separator:
            key, rest = "", line
        projection = _PROJECTION_KEY.fullmatch(key)
        size = _SIZE_KEY.fullmatch(key)
        if separator and not projection and not size:
            if not _KEY.fullmatch(key):
                raise InputError(
                    f"{file}: line {number} is {line[:40]!r}, expected a row such as 'P0: ' and 12 numbers"
                )
            continue
        values = _floats(rest.split())
        expected = 2 if size else 12
        if values is None or len(values) != expected:
            found = "not only numbers" if values is None else f"{len(values)} numbers"
            raise InputError(
                f"{file}: line {number} ({key or 'a projection matrix'}) holds {found}, expected {expected}"
            )
        if size:
            if not all(np.isfinite(values)):
                raise InputError(
                    f"{file}: line {number} ({key}) is not finite, expected a size in px"
                )
            sizes[int(size[1])] = (round(values[0]), round(values[1]))
        elif projection:
            if int(projection[1]) in named:
                raise InputError(f"{file}: line {number} repeats {key}, expected it once")
            named[int(projection[1])] = np.array(values).reshape(3, 4)
        else:
            unnamed.append(np.array(values).reshape(3, 4))

    if unnamed and named:
        raise InputError(
            f"{file}: projection matrices with and without a name, expected one or the other"
        )
    if unnamed:
        if len(unnamed) not in (2, 4):
            raise InputError(
                f"{file}: {len(unnamed)} projection matrices, expected 2 (left, right) or 4 (P0 to P3)"
            )
        named = dict(enumerate(unnamed))
    if not named:
        raise InputError(
            f"{file}: no projection matrix, expected rows P0 to P3 or P_rect_00 to P_rect_03 of 12 numbers"
        )
    pair = (2, 3) if color and len(named) > 2 else (0, 1)
    if len(named) == 2:
        pair = tuple(sorted(named))  # type: ignore[assignment]
    missing = [f"P{index}" for index in pair if index not in named]
    if missing:
        raise InputError(
            f"{file}: projection matrices {', '.join(f'P{index}' for index in sorted(named))} but no {missing[0]}, "
            f"expected the pair P{pair[0]} and P{pair[1]}"
        )
    left, right = pair
    return Calibration(file, named[left], named[right], sizes.get(left))


def _from_ros_yaml(left_file: Path) -> Calibration:
    if "left" not in left_file.name:
        raise InputError(
            f"{left_file}: no 'left' in the file's name, expected the left camera's file (such as left.yaml) with the "
            "right camera's beside it (right.yaml)"
        )
    right_file = left_file.with_name(left_file.name.replace("left", "right"))
    left, size = _read_camera_info(left_file)
    right, right_size = _read_camera_info(right_file)
    if size != right_size:
        raise InputError(
            f"{right_file}: images of {right_size[0]} x {right_size[1]} px, expected {size[0]} x {size[1]} px as in "
            f"{left_file.name}"
        )
    return Calibration(left_file, left, right, size)


def _read_camera_info(file: Path) -> tuple[np.ndarray, tuple[int, int]]:
    text = _read_text(file)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{file}: not YAML ({line}), expected a camera_info file") from None
    if not isinstance(content, dict):
        raise InputError(
            f"{file}: no camera_info in it, expected image_width, image_height and projection_matrix"
        )
    matrix: Any = content.get("projection_matrix")
    data = matrix.get("data") if isinstance(matrix, dict) else None
    values = _floats(data) if isinstance(data, list) else None
    if values is None or len(values) != 12:
        raise InputError(
            f"{file}: no projection_matrix with data of 12 numbers, expected a camera_info file"
        )
    size = (content.get("image_width"), content.get("image_height"))
    if not all(type(length) is int and length > 0 for length in size):
        raise InputError(
            f"{file}: image_width is {size[0]!r} and image_height {size[1]!r}, expected two whole numbers of px"
        )
    return np.array(values).reshape(3, 4), (int(size[0]), int(size[1]))  # type: ignore[arg-type]
