"""What one pass over a bag's stereo topics tells: which images are pairs, and their cameras, scenes and poses."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dwarf_ros.recordings.bag.storage import (
    MESSAGE_TYPES,
    TF_TOPIC,
    Storage,
    header_stamp,
)
from dwarf_ros.recordings.bag.topics import StereoTopics
from dwarf_ros.recordings.bag.transforms import MAP_FROM_OPTICAL, rotation_of
from dwarf_ros.recordings.camera_messages import (
    camera_from_messages,
    check_compressed_image,
    check_image_message,
)
from dwarf_ros.types import InputError, StereoCamera

SCENE_GAP = 1_000_000_000
"""Frames farther apart in time than this are no pair, ns; as the live node takes it."""
TOLERANCE = 10_000_000
"""Largest difference of left and right stamps, ns; as the live node takes it."""
_POSE_TOLERANCE = 1_000_000


@dataclass(frozen=True)
class Layout:
    """What an image's header says besides its time, and why the image cannot be read, "" if it can."""

    width: int
    height: int
    encoding: str
    frame_id: str
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.width} x {self.height} px {self.encoding}"


@dataclass
class Column:
    """Times of a topic's messages, ns, in order of log time, and which of `kinds` each is."""

    stamps: array[int] = field(default_factory=lambda: array("q"))
    log_times: array[int] = field(default_factory=lambda: array("q"))
    kind: array[int] = field(default_factory=lambda: array("L"))
    kinds: list[Any] = field(default_factory=list)
    _numbers: dict[Any, int] = field(default_factory=dict)

    def add(self, stamp: int, log_time: int, kind: Any) -> None:
        """Append a message."""
        self.stamps.append(stamp)
        self.log_times.append(log_time)
        number = self._numbers.setdefault(kind, len(self.kinds))
        if number == len(self.kinds):
            self.kinds.append(kind)
        self.kind.append(number)

    def of(self, index: int) -> Any:
        """Kind of a message."""
        return self.kinds[self.kind[index]]


@dataclass(frozen=True)
class _Calibration:
    """The numbers of a CameraInfo, comparable."""

    height: int
    width: int
    p: tuple[float, ...]
    binning_x: int
    binning_y: int
    roi: _Region


@dataclass(frozen=True)
class _Region:
    x_offset: int
    y_offset: int
    height: int
    width: int


def _calibration(message: Any) -> _Calibration:
    roi = message.roi
    return _Calibration(
        height=message.height,
        width=message.width,
        p=tuple(message.p.tolist()),
        binning_x=message.binning_x,
        binning_y=message.binning_y,
        roi=_Region(roi.x_offset, roi.y_offset, roi.height, roi.width),
    )


@dataclass
class Index:
    """What one pass over the stereo topics and /tf found."""

    images: tuple[Column, Column] = field(default_factory=lambda: (Column(), Column()))
    infos: tuple[Column, Column] = field(default_factory=lambda: (Column(), Column()))
    pose_stamps: array[int] = field(default_factory=lambda: array("q"))
    pose_values: array[float] = field(default_factory=lambda: array("d"))


def read_index(storage: Storage, topics: StereoTopics, tf: bool) -> Index:
    """Read all headers of the stereo topics and, if `tf`, the left camera's poses on /tf; pixels are not decoded."""
    index = Index()
    columns = {
        topics.left_image: index.images[0],
        topics.right_image: index.images[1],
        topics.left_camera_info: index.infos[0],
        topics.right_camera_info: index.infos[1],
    }
    first = next(storage.messages([topics.left_image]), None)
    frame_id = first[2].header.frame_id if first is not None else None
    for topic, log_time, message in storage.messages([*columns, *([TF_TOPIC] if tf else [])]):
        if topic == TF_TOPIC:
            for transform in message.transforms:
                if transform.child_frame_id == frame_id:
                    index.pose_stamps.append(header_stamp(transform))
                    move, turn = transform.transform.translation, transform.transform.rotation
                    index.pose_values.extend(
                        (move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w)
                    )
            continue
        kind: Layout | _Calibration
        if topic in (topics.left_camera_info, topics.right_camera_info):
            kind = _calibration(message)
        else:
            kind = _layout(message, topic)
        columns[topic].add(header_stamp(message), log_time, kind)
    return index


def _layout(message: Any, topic: str) -> Layout:
    frame_id = message.header.frame_id
    problem = ""
    if message.__msgtype__ == MESSAGE_TYPES["image"]:
        try:
            check_image_message(message, topic)
        except InputError as error:
            problem = str(error)
        return Layout(message.width, message.height, message.encoding, frame_id, problem)
    width = height = 0
    try:
        width, height = check_compressed_image(message, topic)
    except InputError as error:
        problem = str(error)
    return Layout(width, height, message.format, frame_id, problem)


def runs_of(stamps: np.ndarray) -> np.ndarray:
    """Number of the stretch of each message, from 0; a new one where time jumps back by more than a scene's gap."""
    return np.concatenate([[0], np.cumsum(np.diff(stamps) < -SCENE_GAP)])


def pair_stamps(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers of the left and right messages that belong together, in order of time."""
    sides = [np.array(stamps, np.int64) for stamps in (left, right)]
    runs = [runs_of(stamps) for stamps in sides]
    pairs: list[tuple[int, int]] = []
    for run in range(int(min(runs[0][-1], runs[1][-1])) + 1):
        members = [np.flatnonzero(number == run) for number in runs]
        # Sorted, and of equal stamps the first.
        kept = [
            who[np.unique(stamps[who], return_index=True)[1]]
            for stamps, who in zip(sides, members, strict=True)
        ]
        a, b = sides[0][kept[0]], sides[1][kept[1]]
        nearest = _nearest(a, b)
        mutual = _nearest(b, a)[nearest] == np.arange(len(a))
        steps = [float(np.median(np.diff(side))) for side in (a, b) if len(side) > 1]
        tolerance = min([TOLERANCE, *((step - 1) // 2 for step in steps)])
        matched = np.flatnonzero(mutual & (np.abs(a - b[nearest]) <= tolerance))
        pairs += [(int(kept[0][i]), int(kept[1][nearest[i]])) for i in matched]
    return pairs


def _nearest(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Index of the nearest of the others, which are sorted, for each value."""
    after = np.searchsorted(others, values).clip(max=len(others) - 1)
    before = (after - 1).clip(min=0)
    return np.where(
        np.abs(values - others[before]) <= np.abs(others[after] - values), before, after
    )


def pairing_problem(left: Sequence[int], right: Sequence[int]) -> str:
    """Why no left and right image are a pair."""
    a, b = np.array(left, np.int64), np.sort(np.array(right, np.int64))
    difference = float(np.median(np.abs(a - b[_nearest(a, b)]))) * 1e-6
    return (
        f"left and right stamps do not match: {difference:.3f} ms apart (median), expected at most "
        f"{TOLERANCE * 1e-6:g} ms and under half the time between frames"
    )


def calibrated_pairs(
    pairs: list[tuple[int, int]], index: Index, topics: StereoTopics
) -> tuple[list[tuple[tuple[int, int], StereoCamera]], list[str]]:
    """The pairs that can be used with their cameras, and a sentence for each cause why others cannot."""
    left, right = index.images
    frames = []
    causes: dict[str, int] = {}
    cameras: dict[tuple[Any, Any], StereoCamera | str] = {}
    for i, j in pairs:
        left_info, right_info = (_in_force(column, left.log_times[i]) for column in index.infos)
        infos = left_info, right_info
        if infos not in cameras:
            try:
                cameras[infos] = camera_from_messages(
                    left_info, right_info, topics.left_camera_info, topics.right_camera_info
                )
            except InputError as error:
                cameras[infos] = str(error)
        camera = cameras[infos]
        cause = left.of(i).problem or right.of(j).problem or None
        sizes = [(layout.width, layout.height) for layout in (left.of(i), right.of(j))]
        if cause is not None:
            pass
        elif sizes[0] != sizes[1]:
            cause = (
                f"sizes differ: left {sizes[0][0]} x {sizes[0][1]} px, right {sizes[1][0]} x {sizes[1][1]} px, "
                "expected one size"
            )
        elif isinstance(camera, str):
            cause = camera
        elif sizes[0] != (camera.width, camera.height):
            cause = (
                f"images are {sizes[0][0]} x {sizes[0][1]} px but camera_info is for {camera.width} x "
                f"{camera.height} px, expected one size"
            )
        if cause is None and isinstance(camera, StereoCamera):
            frames.append(((i, j), camera))
        elif cause is not None:
            causes[cause] = causes.get(cause, 0) + 1
    return frames, [f"{cause} ({count} of {len(pairs)} pairs)" for cause, count in causes.items()]


def _in_force(infos: Column, log_time: int) -> Any:
    """The last calibration that came up to a time, or the first."""
    position = int(np.searchsorted(infos.log_times, log_time, side="right")) - 1
    return infos.of(max(position, 0))


def scenes_of(
    stamps: list[int], cameras: list[StereoCamera]
) -> tuple[list[int], list[StereoCamera]]:
    """Scene of each frame, and the camera of each scene."""
    scenes, of_scene = [0], [cameras[0]]
    for index in range(1, len(stamps)):
        step = stamps[index] - stamps[index - 1]
        if not 0 < step <= SCENE_GAP or not cameras[index].is_close(of_scene[-1]):
            of_scene.append(cameras[index])
        scenes.append(len(of_scene) - 1)
    return scenes, of_scene


def poses_of(index: Index, stamps: list[int]) -> tuple[np.ndarray | None, int]:
    """Left camera to world of each frame, N x 4 x 4, where /tf has them all; and how many it has."""
    if not index.pose_stamps:
        return None, 0
    times = np.array(index.pose_stamps, np.int64)
    order = np.argsort(times, kind="stable")
    wanted = np.array(stamps, np.int64)
    nearest = order[_nearest(wanted, times[order])]
    found = np.abs(times[nearest] - wanted) <= _POSE_TOLERANCE
    values = np.array(index.pose_values, np.float64).reshape(-1, 7)[nearest]
    found &= np.isfinite(values).all(axis=1) & (np.linalg.norm(values[:, 3:], axis=1) > 0)
    if not found.all():
        return None, int(found.sum())
    poses = np.tile(np.eye(4), (len(stamps), 1, 1))
    poses[:, :3, 3] = values[:, :3]
    poses[:, :3, :3] = [rotation_of(quaternion) for quaternion in values[:, 3:]]
    return MAP_FROM_OPTICAL.T @ poses, len(stamps)
