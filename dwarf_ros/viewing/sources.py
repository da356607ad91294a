"""Results from a folder of them or from a bag, or estimated from stereo frames."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dwarf_ros.estimators import EstimatorChoice, choose_estimator
from dwarf_ros.evaluation.kitti.folder import read_maps
from dwarf_ros.motion.refined import load
from dwarf_ros.recordings import Recording, open_recording
from dwarf_ros.recordings.bag.storage import is_bag
from dwarf_ros.recordings.kitti_layout import DISPARITY
from dwarf_ros.recordings.result_folder import ResultFolder
from dwarf_ros.recordings.truth import open_truth
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.types import InputError, SceneFlow, StereoFrame
from dwarf_ros.viewing.motion import with_motion
from dwarf_ros.viewing.recorded import recorded_results
from dwarf_ros.viewing.results import Result, Results


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
        source: a folder with disp_0, disp_1 and flow; or a bag or folder of images that `open_recording` reads. From a bag
            that holds what the node published on `estimate`, that is taken, unless an estimator is given.
        images: the images that a folder of results is of, as `open_recording` reads them; adds the left image, meters and
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
    results = ResultFolder(source)
    if results.exists():
        return _predicted(results, images, ground_truth)
    if images is not None:
        raise InputError(
            f"images: {images} given, but {source} is no folder of results (disp_0, disp_1, flow), expected one"
        )
    if choice is None and is_bag(source):
        recorded = recorded_results(source, namespace)
        if recorded is not None and ground_truth is not None:
            raise InputError(
                f"ground_truth: {ground_truth} given for estimates recorded in {source}, expected the "
                "name of an estimator to estimate them anew"
            )
        if recorded is not None:
            return recorded
    recording = open_recording(source, namespace, remap)
    return _estimated(source, recording, ground_truth, choice or choose_estimator())


def _predicted(results: ResultFolder, images: Path | None, ground_truth: Path | None) -> Results:
    source = results.path
    names = sorted(file.stem for file in (source / DISPARITY).glob("*.png"))
    if not names:
        raise InputError(f"{source / DISPARITY}: no results, expected PNG files")
    if ground_truth is not None and not ground_truth.is_dir():
        raise InputError(f"ground_truth: {ground_truth}: no such folder")
    recording, frames = None, {}
    if images is not None:
        recording = open_recording(images)
        if recording.files is None:
            raise InputError(f"images: {images}: is a bag, expected a folder of images")
        frames = {name: index for index, name in enumerate(recording.names)}
        missing = next((name for name in names if name not in frames), None)
        if missing is not None:
            raise InputError(
                f"images: {images}: no left image of {missing}.png, which {source} has a result of"
            )

    def read(index: int) -> Result:
        name = names[index]
        maps = results.read(name)
        disparity, disparity_next, flow = maps.disparity, maps.disparity_next, maps.flow
        assert disparity is not None
        assert disparity_next is not None
        assert flow is not None
        frame, following, dt = None, None, 0.0
        if recording is not None:
            number = frames[name]
            frame = recording[number]
            dt = _time_to_next(recording, number)
            following = recording[number + 1] if dt else None
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
        if frame is not None and following is not None:
            scene_flow = with_motion(scene_flow, frame, following)
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
    pairs = recording.pairs()
    truths = None if ground_truth is None else open_truth(ground_truth, recording)
    loaded = load(choice)
    names = [recording.names[a] for a, _ in pairs]
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
