"""Distillation: labels for recordings without ground truth, made by a teacher and kept where they are consistent.

A teacher is any estimator, or a folder of maps that any other stereo or optical flow network made. Its answers are kept
where those of left and right and of forward and backward agree; what is left are proxy labels in KITTI's format, and a
network that learns from them gets used to a camera and a place.

To adapt the shipped weights to a recording of your own (a bag or a folder that `open_recording` reads):

    dwarf distill RECORDING --teacher classical --hold-out 20 --out out/adapt
    dwarf train config/train/adapt.yaml
    dwarf bag evaluate out/adapt/held_out --estimator dwarf_lite --out out/adapt_before
    dwarf bag evaluate out/adapt/held_out --weights out/train/adapt/best.safetensors --out out/adapt_after

The last fifth of the frames is held out: nothing is learnt from it, and the two reports tell before from after by how well
each answer agrees with the images, with itself and with the motion of the camera. A slow teacher is worth while: `--teacher
dwarf` labels for dwarf_lite at leisure, and `--workers` shares the work out. After an interruption the same command goes on.

Reference: Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros import __version__
from dwarf_ros.datasets.splits import PROXIES
from dwarf_ros.estimators import EstimatorChoice, load_once
from dwarf_ros.estimators.classical import look_up
from dwarf_ros.files import file_sha256, remove_partial_files, write_atomically
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    write_disparity_png,
    write_flow_png,
    write_image,
)
from dwarf_ros.geometry import (
    aligned_frame,
    forward_backward_error,
    left_right_error,
    mirrored_frame,
)
from dwarf_ros.progress import Progress
from dwarf_ros.recordings import Recording, open_recording
from dwarf_ros.recordings.kitti_layout import SCENE_NAME
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError, StereoCamera, StereoFrame
from dwarf_ros.workers import check_workers, map_over

RECORD = "distillation.json"
"""Says what a folder's labels were made with; written before the first of them."""

TRAINING, HELD_OUT = "training", "held_out"

_IMAGES = ("image_2", "image_3")

# What a record is compared by, in words, in the order in which a difference is told.
_COMPARED = {
    "source": "source",
    "frames": "frames of the source",
    "namespace": "namespace",
    "remap": "topics",
    "teacher": "teacher",
    "engine": "engine",
    "weights_sha256": "SHA-256 of the weights",
    "maps": "maps",
    "threshold_px": "threshold in px",
    "hold_out_percent": "per cent held out",
    "version": "version of dwarf_ros",
}

# KITTI's files hold nothing larger, px.
_LARGEST_DISPARITY, _LARGEST_FLOW = 255.99, 511.9


@dataclass(frozen=True, eq=False)
class TeacherMaps:
    """What a teacher says of a pair of frames, and what it can be checked by; None where there is none.

    Attributes:
        maps: its answer for the reference's left image.
        right: disparity of the reference's right image, x_left - x_right at its pixels, float32 H x W, px; NaN where
            unknown.
        right_next: the same of the other frame's right image.
        backward_flow: optical flow from the other frame's left image to the reference's, float32 H x W x 2, px; NaN where
            unknown.
    """

    maps: Maps
    right: np.ndarray | None = None
    right_next: np.ndarray | None = None
    backward_flow: np.ndarray | None = None


@dataclass(frozen=True)
class DistillationSummary:
    """What `distill` did.

    Attributes:
        out: the folder of labels.
        pairs: labelled pairs of frames in it, those held out included.
        held_out: those of them that are held out.
        labelled: those that this call made; the others were there before.
        teacher, engine: what made them.
        density: per cent of all pixels that have a label, by its folder.
        seconds: wall time of this call, s.
    """

    out: Path
    pairs: int
    held_out: int
    labelled: int
    teacher: str
    engine: str
    density: dict[str, float]
    seconds: float


def consistent_maps(answer: TeacherMaps, threshold: float) -> Maps:
    """A teacher's answer where it is consistent, NaN elsewhere.

    A disparity is kept where that of the right image's pixel it leads to differs by no more than the threshold. Optical
    flow is kept where the way along it and back along the backward flow ends no further than the threshold from where it
    began. The next disparity is kept where the flow is and where it agrees with the right image of its own time. What there
    is nothing to check by is kept, except what a KITTI file cannot hold.

    Args:
        answer: all three maps.
        threshold: px.
    """
    disparity, disparity_next, flow = _all(answer.maps)
    with np.errstate(invalid="ignore"):
        keep = disparity <= _LARGEST_DISPARITY
        keep_next = disparity_next <= _LARGEST_DISPARITY
        keep_flow = (np.abs(flow) <= _LARGEST_FLOW).all(axis=-1)
        if answer.right is not None:
            keep &= left_right_error(disparity, answer.right) <= threshold
        if answer.backward_flow is not None:
            keep_flow &= forward_backward_error(flow, answer.backward_flow) <= threshold
        keep_next &= keep_flow
        if answer.right_next is not None:
            keep_next &= left_right_error(disparity_next, answer.right_next, flow) <= threshold
    return Maps(
        np.where(keep, disparity, np.float32(np.nan)),
        np.where(keep_next, disparity_next, np.float32(np.nan)),
        np.where(keep_flow[..., None], flow, np.float32(np.nan)),
    )


def distill(
    source: Path,
    out: Path,
    teacher: EstimatorChoice | Path,
    threshold: float = 1.0,
    hold_out: float = 0.0,
    namespace: str | None = None,
    remap: Mapping[str, str] | None = None,
    workers: str | None = None,
    progress: Progress | None = None,
) -> DistillationSummary:
    """Label every two consecutive frames of a source.

    In out/training/ are image_2/ and image_3/ (linked to the source's files, or copied where that cannot be; those of a bag
    as PNG), disp_0/, disp_1/ and flow/, named as the images (in a bag by the number of the frame), and calib.txt, times.txt
    and, where they are known, poses.txt: the data set `proxies` for `dwarf train`, and a sequence for every other command.
    Frames of several scenes are laid out as KITTI's multi-view: NNNNNN_FF.png is frame FF of scene NNNNNN, and each scene
    has its calib_cam_to_cam/NNNNNN.txt. The last frames go to out/held_out/ if some are to be held out.

    KITTI 2015 itself as `out`, with its training/ as the source, gets the three folders of labels beside its images and
    nothing else, which is how `KittiSplit` mixes them with ground truth.

    A file appears whole or not at all, and a pair whose files are there is done: called again after an interruption it goes
    on where it stopped. What the labels were made with is recorded in distillation.json. Two calls must not fill one folder
    at the same time.

    Args:
        source: folder or bag that `open_recording` reads.
        out: folder to fill; made where it is missing.
        teacher: an estimator, which runs four times per pair: forward, backward, and on the mirrored images of both
            frames. Or a folder of maps that something else estimated, KITTI's 16-bit PNGs, each named after the frame
            whose pixels it describes, as `out` names them: disp_0/ (of every frame), flow/ (to the next frame), or one of
            the two; and optionally disp_1/ (else it is looked up in the next frame's disp_0 along the flow), disp_right/
            (of every right image, x_left - x_right) and flow_back/ (to the previous frame), which the others are then
            checked by.
        threshold: of `consistent_maps`, px.
        hold_out: per cent of the frames, the last ones, that go to held_out/.
        namespace: of the camera in a bag, as for `open_recording`.
        remap: topics of a bag, as for `open_recording`.
        workers: as in `dwarf_ros.workers.map_over`; each loads the teacher once.
        progress: called at the start and after each pair.

    Raises:
        InputError: the source has no pair of frames or cannot be read, the teacher cannot be loaded or has no maps for a
            frame, an option is out of its range, or the folder holds something else.
    """
    start = time.monotonic()
    check_workers(workers)
    if not (math.isfinite(threshold) and threshold > 0):
        raise InputError(f"threshold: {threshold:g} px, expected > 0 px")
    if not 0 <= hold_out < 100:
        raise InputError(f"hold-out: {hold_out:g} %, expected from 0 to less than 100 %")
    teacher = _check_teacher(teacher)
    source, out = Path(source).absolute(), Path(out).absolute()
    task = _Task.of(
        open_recording(source, namespace, remap), source, out, hold_out, teacher, threshold
    )
    _begin(task, out, _record(task, source, hold_out, namespace, remap))

    if progress is not None:
        progress(0, len(task.pairs))
    kept = np.zeros(len(PROXIES), np.int64)
    pixels = made = 0
    use_gpu = isinstance(teacher, EstimatorChoice) and teacher.weights is not None
    results = map_over(partial(_label_pair, task), task.pairs, workers, use_gpu)
    for count, labelled in enumerate(results, start=1):
        kept += labelled.kept
        pixels += labelled.pixels
        made += labelled.made
        if progress is not None:
            progress(count, len(task.pairs))
    _remove_partial_files(task)
    return DistillationSummary(
        out,
        len(task.pairs),
        sum(task.folders[index].name == HELD_OUT for index in task.pairs),
        made,
        *_name_of(teacher),
        {name: 100 * float(n) / pixels for name, n in zip(PROXIES, kept, strict=True)},
        time.monotonic() - start,
    )


@dataclass(frozen=True, eq=False)
class _Task:
    """What a process needs to label any pair.

    Attributes:
        recording: the frames.
        names: of each frame's files, without their suffix.
        folders: where each frame goes, out/training or out/held_out.
        pairs: number of the earlier frame of each pair.
        in_place: the images are those of the source itself.
        teacher: an estimator, or a folder of maps.
        threshold: px.
    """

    recording: Recording
    names: list[str]
    folders: list[Path]
    pairs: list[int]
    in_place: bool
    teacher: EstimatorChoice | Path
    threshold: float

    @classmethod
    def of(
        cls,
        recording: Recording,
        source: Path,
        out: Path,
        hold_out: float,
        teacher: EstimatorChoice | Path,
        threshold: float,
    ) -> _Task:
        frames = len(recording)
        learnt = frames - round(frames * hold_out / 100)
        folders = [out / (TRAINING if i < learnt else HELD_OUT) for i in range(frames)]
        pairs = [i for i, j in recording.pairs() if folders[i] == folders[j]]
        for part in (TRAINING, *([HELD_OUT] if hold_out else [])):
            if not any(folders[i].name == part for i in pairs):
                raise InputError(
                    f"hold-out: {hold_out:g} % of {frames} frames leave no pair for {part}, expected two frames of one scene"
                )
        first = recording.files[0][0].parent if recording.files else None
        own = out / TRAINING / _IMAGES[0]
        in_place = first is not None and own.is_dir() and first.samefile(own)
        if in_place and hold_out:
            raise InputError(f"hold-out: {out} is the source itself, expected another folder")
        return cls(recording, _names(recording), folders, pairs, in_place, teacher, threshold)

    def parts(self) -> dict[Path, list[int]]:
        """The frames of each folder."""
        members: dict[Path, list[int]] = {}
        for index, folder in enumerate(self.folders):
            members.setdefault(folder, []).append(index)
        return members

    def images(self, index: int) -> tuple[Path, Path]:
        """Where the images of a frame go."""
        files = self.recording.files
        suffix = files[index][0].suffix if files else ".png"
        left, right = (self.folders[index] / f / f"{self.names[index]}{suffix}" for f in _IMAGES)
        return left, right

    def labels(self, index: int) -> tuple[Path, Path, Path]:
        """Where the labels of a pair go."""
        first, second, flow = (
            self.folders[index] / f / f"{self.names[index]}.png" for f in PROXIES
        )
        return first, second, flow


@dataclass(frozen=True)
class _Labelled:
    """Pixels of each label's map that have one, pixels of the image, and whether the labels were made now."""

    kept: list[int]
    pixels: int
    made: bool


def _label_pair(task: _Task, index: int) -> _Labelled:
    files = task.labels(index)
    made = not all(file.is_file() for file in files)
    if made:
        frames = task.recording[index], task.recording[index + 1]
        maps = consistent_maps(_ask(task, index, frames), task.threshold)
    for frame in (index, index + 1):
        _place_images(task, frame)
    if made:
        disparity, disparity_next, flow = _all(maps)
        write_disparity_png(files[0], disparity)
        write_disparity_png(files[1], disparity_next)
        write_flow_png(files[2], flow)
    else:
        disparity, disparity_next = (read_disparity_png(file) for file in files[:2])
        flow = read_flow_png(files[2])
    known = (np.isfinite(values) for values in (disparity, disparity_next, flow[..., 0]))
    return _Labelled([int(np.count_nonzero(k)) for k in known], disparity.size, made)


def _ask(task: _Task, index: int, frames: tuple[StereoFrame, StereoFrame]) -> TeacherMaps:
    if isinstance(task.teacher, Path):
        size = frames[0].left.shape[:2]
        return _read_maps(task.teacher, task.names[index], task.names[index + 1], size)
    estimator = load_once(task.teacher)
    frames = aligned_frame(frames[0]), aligned_frame(frames[1])
    answer = estimator.estimate(*frames)
    backward = estimator.estimate(*frames[::-1])
    mirrored = [mirrored_frame(frame) for frame in frames]
    right = estimator.estimate(*mirrored).disparity[:, ::-1]
    right_next = estimator.estimate(*mirrored[::-1]).disparity[:, ::-1]
    maps = Maps(answer.disparity, answer.disparity_next, answer.flow)
    return TeacherMaps(maps, right, right_next, backward.flow)


def _read_maps(folder: Path, name: str, following: str, size: tuple[int, ...]) -> TeacherMaps:
    def read(kind: str, of: str) -> np.ndarray | None:
        if not (folder / kind).is_dir():
            return None
        file = folder / kind / f"{of}.png"
        values = (read_flow_png if kind.startswith("flow") else read_disparity_png)(file)
        if values.shape[:2] != size:
            raise InputError(
                f"{file}: map is {values.shape[1]} x {values.shape[0]} px, expected {size[1]} x {size[0]} px as the images"
            )
        return values

    disparity, disparity_next, flow = read("disp_0", name), read("disp_1", name), read("flow", name)
    if disparity is None:
        disparity = np.full(size, np.nan, np.float32)
    if flow is None:
        flow = np.full((*size, 2), np.nan, np.float32)
    elif disparity_next is None:
        then = read("disp_0", following)
        # What is unknown leads out of the image, where nothing is found.
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


def _place_images(task: _Task, index: int) -> None:
    targets = task.images(index)
    if all(target.is_file() for target in targets):
        return
    recording = task.recording
    if recording.files is None:
        for target, image in zip(targets, recording.read(index)[:2], strict=True):
            write_image(target, image)
        return
    for target, file in zip(targets, recording.files[index], strict=True):
        if target.is_file():
            continue
        try:
            target.hardlink_to(file.resolve())
        except FileExistsError:
            # Another worker was faster: a frame belongs to two pairs.
            continue
        except OSError:
            write_atomically(target, file.read_bytes())


def _names(recording: Recording) -> list[str]:
    scenes = recording.scenes
    if recording.files is not None or scenes[-1] == 0:
        return list(recording.names)
    first = {scene: scenes.index(scene) for scene in set(scenes)}
    return [f"{scene:06d}_{i - first[scene]:02d}" for i, scene in enumerate(scenes)]


def _check_teacher(teacher: EstimatorChoice | Path) -> EstimatorChoice | Path:
    if isinstance(teacher, EstimatorChoice):
        return teacher
    maps = Path(teacher).absolute()
    if not any((maps / kind).is_dir() for kind in ("disp_0", "flow")):
        raise InputError(f"{maps}: no maps, expected disp_0/ or flow/ with 16-bit PNG files")
    return maps


def _name_of(teacher: EstimatorChoice | Path) -> tuple[str, str]:
    return ("folder", "none") if isinstance(teacher, Path) else (teacher.name, teacher.engine)


def _record(
    task: _Task,
    source: Path,
    hold_out: float,
    namespace: str | None,
    remap: Mapping[str, str] | None,
) -> dict[str, Any]:
    name, engine = _name_of(task.teacher)
    weights = task.teacher.weights if isinstance(task.teacher, EstimatorChoice) else None
    return {
        "version": __version__,
        "source": source.resolve().name,
        "frames": len(task.recording),
        "namespace": namespace,
        "remap": dict(remap or {}),
        "teacher": name,
        "engine": engine,
        "weights_sha256": None if weights is None else file_sha256(weights),
        "maps": str(task.teacher) if isinstance(task.teacher, Path) else None,
        "threshold_px": float(task.threshold),
        "hold_out_percent": float(hold_out),
    }


def _begin(task: _Task, out: Path, record: dict[str, Any]) -> None:
    """Make the folders and what describes the sequences in them, or see that they are of the same settings."""
    try:
        if (out / RECORD).exists():
            _compare(out / RECORD, record)
        else:
            for folder in (*PROXIES, *([] if task.in_place else _IMAGES)):
                for part in (TRAINING, HELD_OUT):
                    other = next((out / part / folder).glob("*"), None)
                    if other is not None:
                        raise InputError(
                            f"{other}: is there but no {out / RECORD}, expected an empty folder or one that dwarf distill "
                            "began"
                        )
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())
        for part_folder, members in task.parts().items():
            for folder in (*PROXIES, *_IMAGES):
                (part_folder / folder).mkdir(parents=True, exist_ok=True)
            if not task.in_place:
                _describe(task, part_folder, members)
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: {error.strerror or error}, expected a folder to write to"
        ) from None


def _compare(file: Path, record: dict[str, Any]) -> None:
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    if not isinstance(begun, dict):
        raise InputError(f"{file}: is no record of a distillation, expected one of dwarf distill")
    for key, words in _COMPARED.items():
        if begun.get(key) != record[key]:
            raise InputError(
                f"{file}: folder was begun with {words} {begun.get(key)}, now it is {record[key]}; expected the same, or "
                "another folder"
            )


def _describe(task: _Task, part: Path, members: list[int]) -> None:
    """Calibration, times and poses of a part, as `open_recording` reads them."""
    recording = task.recording
    if all(SCENE_NAME.fullmatch(name) for name in task.names):
        (part / "calib_cam_to_cam").mkdir(exist_ok=True)
        names = {recording.scenes[i]: task.names[i].partition("_")[0] for i in members}
        for scene, name in names.items():
            rows = _calibration_rows(recording.camera(scene), ("P_rect_02", "P_rect_03"))
            write_atomically(part / "calib_cam_to_cam" / f"{name}.txt", _lines(rows))
        return
    write_atomically(
        part / "calib.txt", _lines(_calibration_rows(recording.camera(0), ("P0", "P1")))
    )
    stamps = (recording.stamps[index] for index in members)
    times = (f"{stamp // 10**9}.{stamp % 10**9:09d}" for stamp in stamps)
    write_atomically(part / "times.txt", _lines(times))
    if recording.poses is not None:
        poses = (recording.poses[index][:3].ravel() for index in members)
        rows = [" ".join(f"{value:.12e}" for value in pose) for pose in poses]
        write_atomically(part / "poses.txt", _lines(rows))


def _calibration_rows(camera: StereoCamera, names: tuple[str, str]) -> list[str]:
    rows = []
    shift = -camera.fx * camera.baseline
    for name, cx, offset in zip(names, (camera.cx, camera.cx_right), (0.0, shift), strict=True):
        matrix = (camera.fx, 0, cx, offset, 0, camera.fy, camera.cy, 0, 0, 0, 1, 0)
        rows.append(f"{name}: " + " ".join(f"{value:.12e}" for value in matrix))
    return rows


def _lines(rows: Iterable[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode("ascii")


def _remove_partial_files(task: _Task) -> None:
    """Remove what killed processes left of the files they were writing."""
    for part in set(task.folders):
        for name in (*PROXIES, *([] if task.in_place else _IMAGES)):
            remove_partial_files(part / name)
