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
each answer agrees with the images, with itself and with the motion of the camera. A slow teacher is worthwhile: `dwarf` can
label for dwarf_lite, and several workers share the work. Called again after an interruption, `distill` resumes.

Reference: Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros import __version__
from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.files import write_atomically
from dwarf_ros.formats import write_image
from dwarf_ros.geometry import aligned_frame
from dwarf_ros.inference.fusion import with_classical_disparity
from dwarf_ros.inference.resumable import ResumableFolder
from dwarf_ros.inference.rigid_labels import with_rigid_labels
from dwarf_ros.inference.teachers import ask_teacher, check_teacher, consistent_maps, name_of
from dwarf_ros.progress import Progress
from dwarf_ros.recordings import Recording, open_recording
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS, SCENE_NAME
from dwarf_ros.recordings.result_folder import ResultFolder
from dwarf_ros.types import InputError, StereoCamera
from dwarf_ros.workers import check_workers, map_over

RECORD = "distillation.json"
"""Says what a folder's labels were made with; written before the first of them."""

TRAINING, HELD_OUT = "training", "held_out"

_IMAGES = ("image_2", "image_3")

# What records are compared by, in words, in the order in which a difference is reported.
_COMPARED = {
    "source": "source",
    "frames": "frames of the source",
    "namespace": "namespace",
    "remap": "topics",
    "teacher": "teacher",
    "engine": "engine",
    "refine": "refinement",
    "weights_sha256": "SHA-256 of the weights",
    "maps": "maps",
    "threshold_px": "threshold in px",
    "rigid": "rigid labels",
    "fuse": "disparities averaged with classical",
    "hold_out_percent": "per cent held out",
    "version": "version of dwarf_ros",
}


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


def distill(
    source: Path,
    out: Path,
    teacher: EstimatorChoice | Path,
    threshold: float = 1.0,
    hold_out: float = 0.0,
    namespace: str | None = None,
    remap: Mapping[str, str] | None = None,
    workers: str | None = None,
    rigid: bool = False,
    fuse: bool = False,
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
        rigid: add labels that follow from the camera's motion, see `with_rigid_labels`.
        fuse: average disparities with those of classical, see `with_classical_disparity`.
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
        raise InputError(f"hold_out: {hold_out:g} %, expected from 0 to less than 100 %")
    teacher = check_teacher(teacher)
    source, out = Path(source).absolute(), Path(out).absolute()
    task = _Task.of(
        open_recording(source, namespace, remap),
        source,
        out,
        hold_out,
        teacher,
        threshold,
        rigid,
        fuse,
    )
    folder = ResumableFolder(out / RECORD, "dwarf distill", _COMPARED, task.output_folders())
    folder.begin(_settings(task, source, hold_out, namespace, remap))
    if not task.in_place:
        for part, members in task.parts().items():
            _describe(task, part, members)

    if progress is not None:
        progress(0, len(task.pairs))
    kept = np.zeros(len(RESULT_FOLDERS), np.int64)
    pixels = made = 0
    use_gpu = isinstance(teacher, EstimatorChoice) and teacher.weights is not None
    results = map_over(partial(_label_pair, task), task.pairs, workers, use_gpu)
    for count, labelled in enumerate(results, start=1):
        kept += labelled.kept
        pixels += labelled.pixels
        made += labelled.made
        if progress is not None:
            progress(count, len(task.pairs))
    folder.remove_partial_files()
    return DistillationSummary(
        out,
        len(task.pairs),
        sum(task.folders[index].name == HELD_OUT for index in task.pairs),
        made,
        *name_of(teacher),
        {name: 100 * float(n) / pixels for name, n in zip(RESULT_FOLDERS, kept, strict=True)},
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
        rigid: whether to add labels by the camera's motion.
        fuse: whether to average disparities with those of classical.
    """

    recording: Recording
    names: list[str]
    folders: list[Path]
    pairs: list[int]
    in_place: bool
    teacher: EstimatorChoice | Path
    threshold: float
    rigid: bool
    fuse: bool

    @classmethod
    def of(
        cls,
        recording: Recording,
        source: Path,
        out: Path,
        hold_out: float,
        teacher: EstimatorChoice | Path,
        threshold: float,
        rigid: bool,
        fuse: bool,
    ) -> _Task:
        frames = len(recording)
        learnt = frames - round(frames * hold_out / 100)
        folders = [out / (TRAINING if i < learnt else HELD_OUT) for i in range(frames)]
        pairs = [i for i, j in recording.pairs() if folders[i] == folders[j]]
        for part in (TRAINING, *([HELD_OUT] if hold_out else [])):
            if not any(folders[i].name == part for i in pairs):
                raise InputError(
                    f"hold_out: {hold_out:g} % of {frames} frames leave no pair for {part}, expected two frames of one scene"
                )
        first = recording.files[0][0].parent if recording.files else None
        own = out / TRAINING / _IMAGES[0]
        in_place = first is not None and own.is_dir() and first.samefile(own)
        if in_place and hold_out:
            raise InputError(f"hold_out: {out} is the source itself, expected another folder")
        return cls(
            recording, _names(recording), folders, pairs, in_place, teacher, threshold, rigid, fuse
        )

    def parts(self) -> dict[Path, list[int]]:
        """The frames of each folder."""
        members: dict[Path, list[int]] = {}
        for index, folder in enumerate(self.folders):
            members.setdefault(folder, []).append(index)
        return members

    def output_folders(self) -> list[Path]:
        """Where labels and images go."""
        names = RESULT_FOLDERS if self.in_place else (*RESULT_FOLDERS, *_IMAGES)
        return [part / name for part in self.parts() for name in names]

    def images(self, index: int) -> tuple[Path, Path]:
        """Where the images of a frame go."""
        files = self.recording.files
        suffix = files[index][0].suffix if files else ".png"
        left, right = (self.folders[index] / f / f"{self.names[index]}{suffix}" for f in _IMAGES)
        return left, right


@dataclass(frozen=True)
class _Labelled:
    """Pixels of each label's map that have one, pixels of the image, and whether the labels were made now."""

    kept: list[int]
    pixels: int
    made: bool


def _label_pair(task: _Task, index: int) -> _Labelled:
    name, following = task.names[index : index + 2]
    labels = ResultFolder(task.folders[index])
    made = not all(file.is_file() for file in labels.files(name))
    if made:
        frames = task.recording[index], task.recording[index + 1]
        maps = consistent_maps(ask_teacher(task.teacher, frames, (name, following)), task.threshold)
        if task.rigid or task.fuse:
            # An estimator sees aligned frames; the maps of a folder are of the frames as they are.
            of_estimator = isinstance(task.teacher, EstimatorChoice)
            reference, other = map(aligned_frame, frames) if of_estimator else frames
            maps = with_classical_disparity(maps, reference, other) if task.fuse else maps
            maps = with_rigid_labels(maps, reference, other) if task.rigid else maps
    for frame in (index, index + 1):
        _place_images(task, frame)
    if made:
        labels.write(name, maps)
    else:
        maps = labels.read(name)
    known = [np.isfinite(values) for values in vars(maps).values()]
    counts = [int(np.count_nonzero(k if k.ndim == 2 else k[..., 0])) for k in known]
    return _Labelled(counts, known[0].size, made)


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


def _settings(
    task: _Task,
    source: Path,
    hold_out: float,
    namespace: str | None,
    remap: Mapping[str, str] | None,
) -> dict[str, Any]:
    name, engine = name_of(task.teacher)
    choice = task.teacher if isinstance(task.teacher, EstimatorChoice) else None
    return {
        "version": __version__,
        "source": source.resolve().name,
        "frames": len(task.recording),
        "namespace": namespace,
        "remap": dict(remap or {}),
        "teacher": name,
        "engine": engine,
        "refine": None if choice is None else choice.refine,
        "weights_sha256": None if choice is None else choice.weights_sha256,
        "maps": str(task.teacher) if isinstance(task.teacher, Path) else None,
        "threshold_px": float(task.threshold),
        "rigid": task.rigid,
        "fuse": task.fuse,
        "hold_out_percent": float(hold_out),
    }


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
