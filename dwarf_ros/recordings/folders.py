"""Folders of stereo images: KITTI's layouts and plain pairs of folders."""

from __future__ import annotations

import contextlib
import re
from calendar import timegm
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TypeVar

import numpy as np

from dwarf_ros.formats import read_image
from dwarf_ros.recordings.calibration import Calibration, load_calibration
from dwarf_ros.recordings.kitti_layout import SCENE_NAME
from dwarf_ros.recordings.recording import Recording
from dwarf_ros.types import InputError, StereoCamera

FRAME_ID = "left_camera_optical_frame"
"""frame_id of every frame of a folder: both images of a rectified pair are in the left camera's frame."""

_PERIOD = 100_000_000
"""Time between frames where a layout has no times: 10 Hz, as KITTI's cameras, ns."""

_BETWEEN_SCENES = 10_000_000_000
"""From the last frame of a scene to the first of the next, ns: too far apart to be taken for consecutive frames."""

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp"}

# Left and right folder, and whether they are the color pair (None: the images themselves tell). Color comes first.
_PAIRS: tuple[tuple[str, str, bool | None], ...] = (
    ("image_02/data", "image_03/data", True),
    ("image_2", "image_3", True),
    ("colored_0", "colored_1", True),
    ("image_00/data", "image_01/data", False),
    ("image_0", "image_1", False),
    ("image_l", "image_r", None),
    ("left", "right", None),
    ("image_left", "image_right", None),
)

_Row = TypeVar("_Row")

_KNOWN_LAYOUTS = (
    "a KITTI odometry sequence (image_2/ image_3/ or image_0/ image_1/, calib.txt), a KITTI raw drive (image_02/data/ "
    "image_03/data/, calib_cam_to_cam.txt in the folder above), KITTI 2012 or 2015 (training/image_2/000000_10.png, "
    "image_3/, calib_cam_to_cam/ or calib/), or left/ right/ and calib.txt or left.yaml right.yaml"
)


@dataclass(frozen=True, eq=False)
class _FolderFrameReader:
    """Images in files, with the calibration of each scene."""

    files: Sequence[tuple[Path, Path]]
    scenes: Sequence[int]
    calibrations: Sequence[Calibration]

    def camera(self, scene: int) -> StereoCamera:
        calibration = self.calibrations[scene]
        return calibration.camera(*(calibration.size or (1, 1)))

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        left_file, right_file = self.files[index]
        left, right = read_image(left_file), read_image(right_file)
        if left.shape[:2] != right.shape[:2]:
            raise InputError(
                f"{right_file}: image is {_size(right)}, expected {_size(left)} as {left_file}"
            )
        if left.shape != right.shape or left.dtype != right.dtype:
            raise InputError(
                f"{right_file}: image is {_kind(right)}, expected {_kind(left)} as {left_file}"
            )
        height, width = left.shape[:2]
        return left, right, self.calibrations[self.scenes[index]].camera(width, height)


def open_folder(source: Path) -> Recording:
    """Open a folder of stereo images with their calibration.

    Recognized, the color pair where there is a gray one too:

    - a KITTI odometry sequence: ``image_2/ image_3/`` or ``image_0/ image_1/``, ``calib.txt``, ``times.txt`` (s; where it is
      absent, 10 Hz by file number), poses in ``poses.txt`` or, as released, in ``../../poses/NN.txt``;
    - a KITTI raw drive (rectified, "_sync"): ``image_02/data/ image_03/data/`` or ``image_00/ image_01/``,
      ``timestamps.txt`` beside ``data/``, ``calib_cam_to_cam.txt`` in the drive or the folder above;
    - KITTI 2012 and 2015, stereo or multi-view: ``training/`` or ``testing/``, or the folder that holds them (training is
      taken), with ``colored_0/ colored_1/``, ``image_0/ image_1/`` or ``image_2/ image_3/``; file NNNNNN_FF.png is frame FF
      (from 100 on of more digits) of scene NNNNNN, whose calibration is ``calib/NNNNNN.txt`` or ``calib_cam_to_cam/NNNNNN.txt``;
    - two plain folders ``left/ right/`` (or ``image_left/ image_right/``, ``image_l/ image_r/``) with ``calib.txt`` or
      ``left.yaml`` and ``right.yaml``, and ``times.txt`` and ``poses.txt`` where there are any.

    Args:
        source: the folder.

    Raises:
        InputError: no such folder or layout, no images, an image without its partner, no calibration or one that cannot be
            used, or times or poses that do not fit the images.
    """
    source = Path(source)
    try:
        return _open(source)
    except OSError as error:
        raise InputError(
            f"{error.filename or source}: {error.strerror or error}, expected a readable folder"
        ) from None


def open_scenes(source: Path, left: str, right: str, color: bool) -> Recording:
    """Open the KITTI 2012 or 2015 scenes of a folder that may hold more than one pair of cameras, as `open_folder` does.

    Args:
        source: training/ or testing/.
        left: folder of the left images in it, e.g. "image_2".
        right: folder of the right images in it.
        color: whether these are the color cameras.

    Raises:
        InputError: as `open_folder`, or an image is not named as one of a scene (000010_10.png).
    """
    left_files, right_files = _partners(source / left, source / right)
    for file in left_files:
        if not SCENE_NAME.fullmatch(file.stem):
            raise InputError(
                f"{file}: not a frame of a scene, expected a name such as 000010_10.png"
            )
    return _open_scenes(source, left_files, right_files, color)


def _open(source: Path) -> Recording:
    if not source.is_dir():
        what = "not a folder" if source.exists() else "no such folder"
        raise InputError(f"{source}: {what}, expected a folder of stereo images")
    if not any(source.iterdir()):
        raise InputError(f"{source}: empty folder, expected {_KNOWN_LAYOUTS}")
    pair = _find_pair(source)
    if pair is None:
        for part in ("training", "testing"):
            if (source / part).is_dir():
                return _open(source / part)
        raise InputError(f"{source}: unknown layout, expected {_KNOWN_LAYOUTS}")
    left_files, right_files = _partners(source / pair[0], source / pair[1])
    color = pair[2]
    if all(SCENE_NAME.fullmatch(file.stem) for file in left_files):
        return _open_scenes(source, left_files, right_files, bool(color))
    return _open_single(source, left_files, right_files, color)


def _find_pair(source: Path) -> tuple[str, str, bool | None] | None:
    halves: list[tuple[str, str]] = []
    for left, right, color in _PAIRS:
        present = [(source / folder).is_dir() for folder in (left, right)]
        if all(present):
            return left, right, color
        if any(present):
            halves.append((left, right) if present[0] else (right, left))
    if halves:
        there, missing = halves[0]
        raise InputError(
            f"{source / missing}: no such folder, expected one beside {there}/ for the other camera"
        )
    return None


def _partners(left_folder: Path, right_folder: Path) -> tuple[list[Path], list[Path]]:
    left_files = _images(left_folder)
    right_files = _images(right_folder)
    _check_partners(left_files, right_folder, right_files, left_folder)
    return left_files, [right_folder / file.name for file in left_files]


def _images(folder: Path) -> list[Path]:
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in _IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise InputError(f"{folder}: no images, expected files such as 000000.png")
    return sorted(files, key=_natural_key)


def _natural_key(file: Path) -> tuple[list[str | int], str]:
    """Sorts frame2 before frame10."""
    parts = re.split(r"(\d+)", file.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], file.name


def _check_partners(
    left_files: list[Path], right_folder: Path, right_files: list[Path], left_folder: Path
) -> None:
    counts = f"{len(left_files)} left and {len(right_files)} right images"
    for files, others, folder in (
        (left_files, right_files, right_folder),
        (right_files, left_files, left_folder),
    ):
        names = {file.name for file in others}
        missing = next((file for file in files if file.name not in names), None)
        if missing is not None:
            raise InputError(
                f"{folder / missing.name}: missing ({counts}), expected the partner of {missing}"
            )


def _open_scenes(
    source: Path, left_files: list[Path], right_files: list[Path], color: bool
) -> Recording:
    stamps: list[int] = []
    scenes: list[int] = []
    calibrations: list[Calibration] = []
    scene_name, start = "", 0
    for file in left_files:
        name, number = file.stem.split("_")
        time = int(number) * _PERIOD
        if name != scene_name:
            calibrations.append(_scene_calibration(source, name, color))
            start = stamps[-1] + _BETWEEN_SCENES - time if stamps else 0
            scene_name = name
        stamps.append(start + time)
        scenes.append(len(calibrations) - 1)
    return _recording(source, left_files, right_files, stamps, scenes, calibrations)


def _scene_calibration(source: Path, scene: str, color: bool) -> Calibration:
    candidates = [source / folder / f"{scene}.txt" for folder in ("calib_cam_to_cam", "calib")]
    for file in candidates:
        if file.is_file():
            return load_calibration(file, color)
    raise InputError(
        f"{source}: no calibration of scene {scene}, expected {candidates[0]} (2015) or {candidates[1]} (2012)"
    )


def _open_single(
    source: Path, left_files: list[Path], right_files: list[Path], color: bool | None
) -> Recording:
    if color is None:
        color = _has_color(left_files)
    calibration = _single_calibration(source, color)
    times = source / "times.txt"
    timestamps = left_files[0].parent.parent / "timestamps.txt"
    numbers = _numbers(left_files)
    if times.is_file():
        stamps = _pick(_read_times(times), times, left_files, numbers)
    elif left_files[0].parent.name == "data" and timestamps.is_file():
        stamps = _pick(_read_timestamps(timestamps), timestamps, left_files, numbers)
    else:
        stamps = [number * _PERIOD for number in numbers or range(len(left_files))]
    for index in range(1, len(stamps)):
        if stamps[index] <= stamps[index - 1]:
            raise InputError(
                f"{times if times.is_file() else timestamps}: time of {left_files[index].name} is "
                f"{(stamps[index] - stamps[index - 1]) / 1e9:g} s after the frame before, expected > 0 s"
            )
    poses = _find_poses(source)
    picked = None
    if poses is not None:
        picked = np.stack(_pick(list(_read_poses(poses)), poses, left_files, numbers))
        picked[:, :3, 3] += picked[:, :3, :3] @ calibration.left_offset
    scenes = [0] * len(left_files)
    return _recording(source, left_files, right_files, stamps, scenes, [calibration], picked)


def _has_color(files: list[Path]) -> bool:
    """Whether the first image that can be read has color."""
    for file in files[:-1]:
        with contextlib.suppress(InputError):
            return read_image(file).ndim == 3
    return read_image(files[-1]).ndim == 3


def _recording(
    source: Path,
    left_files: list[Path],
    right_files: list[Path],
    stamps: list[int],
    scenes: list[int],
    calibrations: list[Calibration],
    poses: np.ndarray | None = None,
) -> Recording:
    files = list(zip(left_files, right_files, strict=True))
    return Recording(
        path=source,
        names=[file.stem for file in left_files],
        stamps=stamps,
        scenes=scenes,
        frame_id=FRAME_ID,
        poses=poses,
        files=files,
        _reader=_FolderFrameReader(files, scenes, calibrations),
    )


def _single_calibration(source: Path, color: bool) -> Calibration:
    if (source / "left.yaml").is_file():
        return load_calibration(source / "left.yaml", color)
    candidates = [source / "calib.txt", source / "calib_cam_to_cam.txt"]
    # The folder above the path as it is given, which may be a link, and above what it leads to.
    above = [
        path / "calib_cam_to_cam.txt"
        for path in (source.absolute().parent, source.resolve().parent)
    ]
    if (source / "image_02").is_dir() or (source / "image_00").is_dir():
        candidates = [candidates[1], *above]
    for file in candidates:
        if file.is_file():
            return load_calibration(file, color)
    raise InputError(
        f"{source}: no calibration, expected "
        + (
            str(above[0])
            if above[0] in candidates
            else "calib.txt, or left.yaml and right.yaml, in it"
        )
    )


def _numbers(files: list[Path]) -> list[int] | None:
    """Frame numbers where every file is named by one (000012.png), None else; longer names are not numbers of frames."""
    stems = [file.stem for file in files]
    if all(stem.isascii() and stem.isdigit() and len(stem) <= 10 for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return None


def _pick(
    rows: list[_Row], file: Path, images: list[Path], numbers: list[int] | None
) -> list[_Row]:
    """The row of each image: by frame number, so that a part of a drive keeps its own, or else one per file."""
    if numbers is not None and numbers[-1] < len(rows):
        return [rows[number] for number in numbers]
    if len(rows) == len(images):
        return rows
    raise InputError(f"{file}: {len(rows)} rows, expected one for each of {len(images)} images")


def _read_lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}, expected a text file") from None
    except UnicodeDecodeError:
        raise InputError(f"{file}: not a text file, expected numbers") from None
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _read_times(file: Path) -> list[int]:
    stamps = []
    for number, line in enumerate(_read_lines(file), start=1):
        try:
            stamp = int((Decimal(line.strip()) * 1_000_000_000).to_integral_value())
        except (InvalidOperation, ValueError, OverflowError):
            raise InputError(
                f"{file}: line {number} is {line[:40]!r}, expected a time in s"
            ) from None
        if not 0 <= stamp < 1 << 62:
            raise InputError(
                f"{file}: line {number} is {line[:40]!r}, expected a time from 0 to 4e9 s"
            )
        stamps.append(stamp)
    return stamps


def _read_timestamps(file: Path) -> list[int]:
    """KITTI raw: a date and time of day a line, with nanoseconds; taken as UTC, since only differences matter."""
    stamps = []
    for number, line in enumerate(_read_lines(file), start=1):
        whole, _, fraction = line.strip().partition(".")
        try:
            seconds = timegm(datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").timetuple())
            stamps.append(seconds * 1_000_000_000 + int(f"{fraction:0<9.9}"))
        except ValueError:
            raise InputError(
                f"{file}: line {number} is {line[:40]!r}, expected a time such as '2011-09-26 13:02:25.964389445'"
            ) from None
    return stamps


def _find_poses(source: Path) -> Path | None:
    inside = source / "poses.txt"
    if inside.is_file():
        return inside
    # As it is given, which may be a link, and what it leads to.
    for folder in (source.absolute(), source.resolve()):
        released = folder.parent.parent / "poses" / f"{folder.name}.txt"
        if folder.parent.name == "sequences" and released.is_file():
            return released
    return None


def _read_poses(file: Path) -> np.ndarray:
    """KITTI odometry: a row of 12 numbers a frame, the 3 x 4 pose of camera 0 in the world, m; returns N x 4 x 4."""
    lines = _read_lines(file)
    poses = np.tile(np.eye(4), (len(lines), 1, 1))
    for number, line in enumerate(lines, start=1):
        try:
            values = np.array([float(word) for word in line.split()])
        except ValueError:
            values = np.empty(0)
        if values.size != 12 or not np.isfinite(values).all():
            raise InputError(
                f"{file}: line {number} is {line[:40]!r}, expected 12 numbers, a 3 x 4 camera pose"
            )
        poses[number - 1, :3] = values.reshape(3, 4)
    return poses


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"


def _kind(image: np.ndarray) -> str:
    return f"{8 * image.itemsize}-bit {'gray' if image.ndim == 2 else 'color'}"
