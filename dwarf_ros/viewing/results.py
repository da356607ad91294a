"""Results to be looked at: from a folder of them, or estimated as they are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwarf_ros.estimators import EstimatorChoice, choose_estimator, load
from dwarf_ros.evaluation.kitti.rules import read_maps
from dwarf_ros.formats import read_disparity_png, read_flow_png
from dwarf_ros.recordings.bag import is_bag
from dwarf_ros.recordings.folders import StereoSequence, open_sequence
from dwarf_ros.recordings.truth import Recording, consecutive_pairs, open_truth
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.types import InputError, SceneFlow, StereoFrame

FOLDERS = ("disp_0", "disp_1", "flow")


@dataclass(frozen=True, eq=False)
class Result:
    """Scene flow of one reference frame, and what is known beside it.

    Attributes:
        name: fit to name a file.
        scene_flow: the answer.
        left: the reference's left image, uint8 RGB, H x W x 3; None where it is not known.
        estimator: what computed it, in words; "" where that is not known.
        seconds: how long estimating took, s; None where it was done before.
        truth: None where it is not known.
    """

    name: str
    scene_flow: SceneFlow
    left: np.ndarray | None = None
    estimator: str = ""
    seconds: float | None = None
    truth: SampleTruth | None = None


@dataclass(frozen=True, eq=False)
class Results:
    """Results in order of time, read or estimated when they are asked for.

    Attributes:
        source: where they are from, in words.
        names: of each.
        read: from its number to a result; raises InputError where a file is missing or damaged.
    """

    source: str
    names: Sequence[str]
    read: Callable[[int], Result]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Result]:
        return (self.read(index) for index in range(len(self)))

    def only(self, name: str) -> Results:
        """The one of that name, or of that number, from 0.

        Raises:
            InputError: there is none.
        """
        if name in self.names:
            index = list(self.names).index(name)
        elif name.isdecimal() and int(name) < len(self):
            index = int(name)
        else:
            raise InputError(
                f"--frame: {name}: not in {self.source}, expected a number from 0 to {len(self) - 1} or a name such as "
                f"{self.names[0]}"
            )
        return Results(self.source, [self.names[index]], lambda _: self.read(index))


def is_prediction(source: Path) -> bool:
    """Whether a folder holds results as `dwarf predict` and `dwarf infer` write them."""
    return all((source / folder).is_dir() for folder in FOLDERS)


def open_results(
    source: Path,
    images: Path | None = None,
    ground_truth: Path | None = None,
    choice: EstimatorChoice | None = None,
    namespace: str | None = None,
    remap: Mapping[str, str] | None = None,
) -> Results:
    """Results of a folder of them, or those that a bag holds; or of every two consecutive frames, estimated here.

    Args:
        source: a folder with disp_0, disp_1 and flow; or a bag or folder of images that `open_sequence` reads. From a bag
            that holds what the node published on `estimate`, that is taken, unless an estimator is given.
        images: the images that a folder of results is of, as `open_sequence` reads them; adds the left image, metres and
            times.
        ground_truth: in KITTI's layout, for some or all of the results.
        choice: the estimator to run; not used for a folder of results. None: the default one, where nothing is recorded.
        namespace: of the camera in a bag of several.
        remap: topics of other names in a bag.

    Raises:
        InputError: there is nothing of the kind, or the images or the ground truth are of something else.
    """
    source = Path(source)
    if not source.exists():
        raise InputError(
            f"{source}: no such file or folder, expected a folder of results, a folder of stereo images or a bag"
        )
    if is_prediction(source):
        return _predicted(source, images, ground_truth)
    if images is not None:
        raise InputError(
            f"--images: {images} given, but {source} is no folder of results (disp_0, disp_1, flow), expected one"
        )
    if choice is None and is_bag(source):
        # rosbags takes a while to load.
        from dwarf_ros.viewing.recorded import recorded_results

        recorded = recorded_results(source, namespace)
        if recorded is not None and ground_truth is not None:
            raise InputError(
                f"--ground-truth: {ground_truth} given for answers recorded in {source}, expected --estimator NAME to "
                "estimate them anew"
            )
        if recorded is not None:
            return recorded
    recording = open_sequence(source, namespace, remap)
    return _estimated(source, recording, ground_truth, choice or choose_estimator())


def _predicted(source: Path, images: Path | None, ground_truth: Path | None) -> Results:
    names = sorted(file.stem for file in (source / "disp_0").glob("*.png"))
    if not names:
        raise InputError(f"{source / 'disp_0'}: no results, expected PNG files")
    if ground_truth is not None and not ground_truth.is_dir():
        raise InputError(f"--ground-truth: {ground_truth}: no such folder")
    recording, frames = None, {}
    if images is not None:
        recording = open_sequence(images)
        if not isinstance(recording, StereoSequence):
            raise InputError(f"--images: {images}: is a bag, expected a folder of images")
        frames = {file.stem: index for index, file in enumerate(recording.left_files)}
        missing = next((name for name in names if name not in frames), None)
        if missing is not None:
            raise InputError(
                f"--images: {images}: no left image of {missing}.png, which {source} has a result of"
            )

    def read(index: int) -> Result:
        name = names[index]
        disparity = read_disparity_png(source / "disp_0" / f"{name}.png")
        disparity_next = read_disparity_png(source / "disp_1" / f"{name}.png")
        flow = read_flow_png(source / "flow" / f"{name}.png")
        if not disparity.shape == disparity_next.shape == flow.shape[:2]:
            raise InputError(f"{source}: disp_0, disp_1 and flow of {name}.png differ in size")
        frame, dt = None, 0.0
        if recording is not None:
            number = frames[name]
            frame = recording[number]
            dt = _time_to_next(recording, number)
            if frame.left.shape[:2] != disparity.shape:
                raise InputError(
                    f"{images}: left image of {name}.png is {frame.left.shape[1]} x {frame.left.shape[0]} px, expected "
                    f"{disparity.shape[1]} x {disparity.shape[0]} px as its result in {source}"
                )
        valid = np.isfinite(disparity) & np.isfinite(disparity_next) & np.isfinite(flow).all(-1)
        scene_flow = SceneFlow(
            disparity,
            disparity_next,
            flow,
            valid,
            stamp=frame.stamp if frame else 0,
            dt=dt,
            camera=frame.camera if frame else None,
            frame_id=frame.frame_id if frame else "",
        )
        truth = None
        if ground_truth is not None:
            _, noc, occ = read_maps(source, ground_truth, f"{name}.png")
            truth = _truth(occ, noc)
        return Result(name, scene_flow, None if frame is None else frame.left, truth=truth)

    return Results(str(source), names, read)


def _truth(occ: Maps, noc: Maps) -> SampleTruth | None:
    """None where all maps are missing."""
    known = any(values is not None for values in vars(occ).values())
    return SampleTruth(occ, noc) if known else None


def _time_to_next(recording: Recording, frame: int) -> float:
    """Time to the next frame of the scene, s; 0 where there is none."""
    stamps, scenes = recording.stamps, recording.scenes
    if frame + 1 == len(recording) or scenes[frame + 1] != scenes[frame]:
        return 0.0
    return (stamps[frame + 1] - stamps[frame]) * 1e-9


def _estimated(
    source: Path,
    recording: Recording,
    ground_truth: Path | None,
    choice: EstimatorChoice,
) -> Results:
    pairs = consecutive_pairs(recording)
    if not pairs:
        raise InputError(
            f"{source}: {len(recording)} frames, expected two consecutive ones of a scene"
        )
    truths = None if ground_truth is None else open_truth(ground_truth, recording)
    loaded = load(choice)
    files: Sequence[Path] | None = getattr(recording, "left_files", None)
    names = [files[a].stem if files else f"{a:06d}" for a, _ in pairs]
    if len(set(names)) < len(names):
        names = [f"{a:06d}" for a, _ in pairs]
    last: dict[int, StereoFrame] = {}

    def frame(number: int) -> StereoFrame:
        """Each frame is in two pairs, one after the other."""
        if number not in last:
            while len(last) > 1:
                last.pop(next(iter(last)))
            last[number] = recording[number]
        return last[number]

    def read(index: int) -> Result:
        previous, current = pairs[index]
        frames = frame(previous), frame(current)
        start = time.monotonic()
        scene_flow = loaded.estimate(*frames)
        seconds = time.monotonic() - start
        truth = None if truths is None else truths.read(previous)
        by = f"{loaded.name} on {loaded.engine}"
        return Result(names[index], scene_flow, frames[0].left, by, seconds, truth)

    return Results(str(source), names, read)
