"""Scene flow of a whole data set, as a folder of results in the format that KITTI's benchmark takes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dwarf_ros import __version__
from dwarf_ros.estimators import EstimatorChoice, load_once
from dwarf_ros.files import file_sha256, remove_partial_files, write_atomically
from dwarf_ros.formats import write_disparity_png, write_flow_png
from dwarf_ros.samples import Dataset
from dwarf_ros.types import InputError
from dwarf_ros.workers import check_workers, map_over

RECORD = "prediction.json"
"""Says what a folder of results was made with; written before the first result."""

FOLDERS = ("disp_0", "disp_1", "flow")

# What a record is compared by, in words, in the order in which a difference is told.
_COMPARED = {
    "dataset": "data set",
    "estimator": "estimator",
    "engine": "engine",
    "weights_sha256": "SHA-256 of the weights",
    "version": "version of dwarf_ros",
}


@dataclass(frozen=True)
class PredictionSummary:
    """What `predict` did.

    Attributes:
        out: the folder of results.
        samples: samples of the data set; each has its results now.
        predicted: those that this call made; the others were there before.
        estimator, engine: what made them.
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

    A file appears whole or not at all, and a sample whose three files are there is done: called again after an
    interruption it goes on where it stopped. A folder's results are all of one data set, estimator, engine, weights file
    and version, recorded in prediction.json, together with the sizes of the images, in bytes, by which an image that has
    changed since is noticed. Two calls must not fill one folder at the same time.

    Args:
        dataset: its samples' names name the files, e.g. 000010_10.png.
        out: the folder; made where it is missing.
        choice: the estimator.
        workers: as in `dwarf_ros.workers.map_over`; each loads the estimator once.
        progress: called at the start and after each sample with the number of samples done and in all.

    Raises:
        InputError: the estimator cannot be loaded, `workers` cannot be had, an image is missing, damaged, or has changed
            since the folder was begun, or the folder holds results of something else.
    """
    start = time.monotonic()
    check_workers(workers)
    out = Path(out).absolute()
    _begin(out, dataset, _record(dataset, choice))
    done = set.intersection(*({file.name for file in (out / name).iterdir()} for name in FOLDERS))
    pending = [i for i, name in enumerate(dataset.names) if f"{name}.png" not in done]
    kept = len(dataset) - len(pending)
    if progress is not None:
        progress(kept, len(dataset))
    predict_one = partial(_predict_sample, dataset, out, choice)
    if pending:
        results = map_over(predict_one, pending, workers, use_gpu=choice.weights is not None)
        for count, _ in enumerate(results, start=kept + 1):
            if progress is not None:
                progress(count, len(dataset))
    for name in FOLDERS:
        remove_partial_files(out / name)
    return PredictionSummary(
        out, len(dataset), len(pending), choice.name, choice.engine, time.monotonic() - start
    )


def _predict_sample(dataset: Dataset, out: Path, choice: EstimatorChoice, index: int) -> None:
    name = dataset.names[index]
    estimate = load_once(choice).estimate(*dataset.frames(index))
    write_disparity_png(out / "disp_0" / f"{name}.png", estimate.disparity)
    write_disparity_png(out / "disp_1" / f"{name}.png", estimate.disparity_next)
    write_flow_png(out / "flow" / f"{name}.png", estimate.flow)


def _record(dataset: Dataset, choice: EstimatorChoice) -> dict[str, Any]:
    return {
        "version": __version__,
        "dataset": dataset.title,
        "estimator": choice.name,
        "engine": choice.engine,
        "weights": None if choice.weights is None else str(choice.weights),
        "weights_sha256": None if choice.weights is None else file_sha256(choice.weights),
        "image_bytes": {
            name: [_size(file) for file in dataset.images(index)]
            for index, name in enumerate(dataset.names)
        },
    }


def _begin(out: Path, dataset: Dataset, record: dict[str, Any]) -> None:
    try:
        for name in FOLDERS:
            (out / name).mkdir(parents=True, exist_ok=True)
        if (out / RECORD).exists():
            _compare(out / RECORD, dataset, record)
            return
        for name in FOLDERS:
            other = next((out / name).iterdir(), None)
            if other is not None:
                raise InputError(
                    f"{other}: is there but no {out / RECORD}, expected an empty folder or one that dwarf predict began"
                )
    except OSError as error:
        raise InputError(
            f"{error.filename or out}: {error.strerror or error}, expected a folder to write to"
        ) from None
    write_atomically(out / RECORD, (json.dumps(record) + "\n").encode())


def _compare(file: Path, dataset: Dataset, record: dict[str, Any]) -> None:
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read: {error}") from None
    begun_sizes = begun.get("image_bytes") if isinstance(begun, dict) else None
    if not isinstance(begun_sizes, dict) or not all(
        isinstance(sizes, list) and len(sizes) == 4 for sizes in begun_sizes.values()
    ):
        raise InputError(f"{file}: is no record of a prediction, expected one of dwarf predict")
    for key, words in _COMPARED.items():
        if begun.get(key) != record[key]:
            raise InputError(
                f"{file}: folder was begun with {words} {begun.get(key)}, now it is {record[key]}; "
                "expected the same, or another folder"
            )
    sizes = record["image_bytes"]
    if sizes.keys() != begun_sizes.keys():
        name = min(sizes.keys() ^ begun_sizes.keys())
        raise InputError(
            f"{file}: folder was begun with {len(begun_sizes)} samples, now there are {len(sizes)} (sample {name} is in one "
            "of them alone); expected the same, or another folder"
        )
    for index, name in enumerate(dataset.names):
        for image, size, before in zip(
            dataset.images(index), sizes[name], begun_sizes[name], strict=True
        ):
            if size != before:
                raise InputError(
                    f"{image}: has {size} bytes but had {before} when {file.parent} was begun; "
                    "expected the same image, or another folder"
                )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
