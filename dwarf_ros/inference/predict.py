"""Scene flow of a whole data set, as a folder of results in the format that KITTI's benchmark takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dwarf_ros import __version__
from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.inference.resumable import ResumableFolder
from dwarf_ros.motion.refined import load_once
from dwarf_ros.recordings.result_folder import ResultFolder
from dwarf_ros.samples import Dataset
from dwarf_ros.types import InputError
from dwarf_ros.workers import check_workers, map_over

RECORD = "prediction.json"
"""The settings of a folder of results; written before the first result."""

# Settings that must not change, and what messages call them, in the order of comparison.
_COMPARED = {
    "dataset": "data set",
    "estimator": "estimator",
    "engine": "engine",
    "refine": "refinement",
    "weights_sha256": "SHA-256 of the weights",
    "version": "version of dwarf_ros",
}


@dataclass(frozen=True)
class PredictionSummary:
    """Outcome of `predict`.

    Attributes:
        out: the folder of results.
        samples: samples of the data set, all of which have results now.
        predicted: samples estimated by this call; the others had results before.
        estimator, engine: used for all of them.
        seconds: wall time of this call, s.
    """

    out: Path
    samples: int
    predicted: int
    estimator: str
    engine: str
    seconds: float


def predict(
    dataset: Dataset,
    out: Path,
    choice: EstimatorChoice,
    workers: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PredictionSummary:
    """Estimate the scene flow of every sample and fill a folder with disp_0, disp_1 and flow, as submitted to KITTI.

    With refinement, motion, moving, confidence_disparity and confidence_flow are filled too; see `ResultFolder.write_motion`.

    Files appear whole or not at all, and samples whose three files exist are done, so that an interrupted call can be resumed by
    calling again. All results of a folder are of one data set, estimator, engine, weights file and version, recorded in
    prediction.json together with the sizes of the images, in bytes, to notice images that have changed. Two calls must not fill
    one folder at the same time.

    Args:
        dataset: the names of its samples name the files, e.g. 000010_10.png.
        out: the folder, made if missing.
        choice: the estimator.
        workers: as in `dwarf_ros.workers.map_over`; each loads the estimator once.
        progress: called at the start and after each sample with the number of samples done and in total.

    Raises:
        InputError: the estimator cannot be loaded, `workers` are not available, an image is missing, damaged, or has changed
            since the folder was begun, or the folder holds other results.
    """
    start = time.monotonic()
    check_workers(workers)
    results = ResultFolder(Path(out).absolute())
    folders = (
        results.folders if choice.refine == "none" else [*results.folders, *results.motion_folders]
    )
    folder = ResumableFolder(results.path / RECORD, "dwarf predict", _COMPARED, folders)
    _begin(folder, dataset, _settings(dataset, choice))
    done = results.names()
    pending = [i for i, name in enumerate(dataset.names) if name not in done]
    kept = len(dataset) - len(pending)
    if progress is not None:
        progress(kept, len(dataset))
    predict_one = partial(_predict_sample, dataset, results, choice)
    if pending:
        done_now = map_over(predict_one, pending, workers, use_gpu=choice.weights is not None)
        for count, _ in enumerate(done_now, start=kept + 1):
            if progress is not None:
                progress(count, len(dataset))
    folder.remove_partial_files()
    return PredictionSummary(
        results.path,
        len(dataset),
        len(pending),
        choice.name,
        choice.engine,
        time.monotonic() - start,
    )


def _predict_sample(
    dataset: Dataset, results: ResultFolder, choice: EstimatorChoice, index: int
) -> None:
    estimate = load_once(choice).estimate(*dataset.frames(index))
    # First: a sample is done when its three maps exist.
    results.write_motion(dataset.names[index], estimate)
    results.write(dataset.names[index], estimate)


def _settings(dataset: Dataset, choice: EstimatorChoice) -> dict[str, Any]:
    return {
        "version": __version__,
        "dataset": dataset.title,
        "estimator": choice.name,
        "engine": choice.engine,
        "refine": choice.refine,
        "weights": None if choice.weights is None else str(choice.weights),
        "weights_sha256": choice.weights_sha256,
        "image_bytes": {
            name: [_size(file) for file in dataset.images(index)]
            for index, name in enumerate(dataset.names)
        },
    }


def _begin(folder: ResumableFolder, dataset: Dataset, settings: dict[str, Any]) -> None:
    begun_sizes, sizes = folder.begin(settings).get("image_bytes"), settings["image_bytes"]
    if not isinstance(begun_sizes, dict) or not all(
        isinstance(of_sample, list) and len(of_sample) == 4 for of_sample in begun_sizes.values()
    ):
        raise folder.not_a_record()
    if sizes.keys() != begun_sizes.keys():
        name = min(sizes.keys() ^ begun_sizes.keys())
        raise InputError(
            f"{folder.record}: folder was begun with {len(begun_sizes)} samples, now there are {len(sizes)} (sample {name} is "
            "in only one of them); expected the same, or another folder"
        )
    for index, name in enumerate(dataset.names):
        for image, size, before in zip(
            dataset.images(index), sizes[name], begun_sizes[name], strict=True
        ):
            if size != before:
                raise InputError(
                    f"{image}: has {size} bytes but had {before} when {folder.record.parent} was begun; "
                    "expected the same image, or another folder"
                )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
