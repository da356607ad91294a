"""Batches of augmented samples, each of which depends on the configuration and the step alone."""

from __future__ import annotations

import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from dwarf_ros.datasets.augmentation import (
    TrainingItem,
    augment,
    degraded,
    make_item,
    noisy,
    recolored,
)
from dwarf_ros.datasets.splits import open_dataset
from dwarf_ros.files import write_atomically
from dwarf_ros.network.codec import SIGNS
from dwarf_ros.samples import Maps, Sample, SampleTruth
from dwarf_ros.synthetic.drives import ProceduralDrive
from dwarf_ros.synthetic.scenes import TrainingScenes
from dwarf_ros.training.config import GENERATED, IMAGES, Data, TrainingConfig
from dwarf_ros.training.features import FeatureImages, cropped
from dwarf_ros.types import InputError
from dwarf_ros.workers import map_over

_MIN_FREE_BYTES = 1 << 30
"""Free bytes required to use a folder in memory; containers often have 64 MiB, too little for large batches."""

# Seeds that separate the random numbers of different uses.
_ORDER, _DRAWS, _CAMERAS = 1, 2, 3


@dataclass(frozen=True, eq=False)
class Batch:
    """Input of a training step.

    Attributes:
        images: uint8 batch x 4 x H x W x 3: left_t0, right_t0, left_t1, right_t1.
        truth: for the loss `features`, see `_feature_batch`; else float32 batch x H x W x 4, px, in the order and signs of the network's outputs: disparity and next disparity (both
            negative), u, v; NaN where unknown.
    """

    images: np.ndarray
    truth: np.ndarray


class Samples(Protocol):
    """Labeled samples by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class DriveSamples:
    """Consecutive frames of procedural drives, forwards and backwards in time.

    Args:
        seed: of the first drive; each further drive has the next seed.
        count: number of samples.
        height, width: image size, px.
        frames: of each drive; its samples are the first pair of frames forwards, then backwards, then the second pair, ...
        vary_cameras: vary focal length (0.6 to 0.95 of the width), baseline (0.35 to 0.7 m) and frame rate (5 to 15 Hz) instead
            of using those of `ProceduralDrive`.
    """

    seed: int
    count: int
    height: int
    width: int
    frames: int = 2
    vary_cameras: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Sample of a drive; `occ` has all its pixels, `noc` those visible in the other images."""
        if not 0 <= index < self.count:
            raise IndexError(f"no sample {index}, there are {self.count}")
        number, place = divmod(index, 2 * (self.frames - 1))
        drive = self._drive(self.seed + number)
        pair = place // 2, place // 2 + 1
        first, second = pair if place % 2 == 0 else pair[::-1]
        truth = drive.ground_truth(first, second)
        flow = truth.scene_flow
        occ = Maps(flow.disparity, flow.disparity_next, flow.flow)
        noc = Maps(
            _without(occ.disparity, truth.disparity_occluded),
            _without(occ.disparity_next, truth.flow_occluded),
            _without(occ.flow, truth.flow_occluded),
        )
        name = f"drive_{self.seed + number:06d}_{first}_{second}"
        return Sample(name, drive[first], drive[second], SampleTruth(occ, noc))

    def _drive(self, seed: int) -> ProceduralDrive:
        if not self.vary_cameras:
            return ProceduralDrive(seed, self.frames, self.width, self.height)
        rng = np.random.default_rng([seed, _CAMERAS])
        return ProceduralDrive(
            seed,
            self.frames,
            self.width,
            self.height,
            baseline=rng.uniform(0.35, 0.7),
            focal_length=self.width * rng.uniform(0.6, 0.95),
            rate=rng.uniform(5, 15),
        )


class _First:
    """The first samples of a data set."""

    def __init__(self, samples: Samples, count: int) -> None:
        self._samples, self._count = samples, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


class Cached:
    """Generated samples, rendered once and then read from a folder.

    Raises:
        InputError: the folder holds samples of other settings, or cannot be written.
    """

    def __init__(self, samples: Samples, settings: str, folder: Path) -> None:
        self._samples, self._folder = samples, folder
        file = folder / "settings.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                write_atomically(file, settings.encode())
            found = file.read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(f"cache: {folder} cannot be used: {error.strerror}") from None
        if found != settings:
            raise InputError(f"cache: {folder} holds samples of {found}, expected {settings}")

    def __len__(self) -> int:
        return len(self._samples)

    def item(self, index: int) -> TrainingItem:
        """The item of a sample."""
        file = self._folder / f"{index:08d}.npz"
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return TrainingItem(arrays["images"], arrays["truth"])
        except (OSError, ValueError, KeyError, BadZipFile):
            # Missing or damaged: rendered again.
            item = make_item(self._samples[index])
        content = BytesIO()
        np.savez(content, images=item.images, truth=item.truth)
        write_atomically(file, content.getvalue())
        return item


def open_samples(data: Data, key: str = "data") -> Samples:
    """Open the samples that a configuration names.

    Args:
        data: the source.
        key: name of the source in error messages.

    Raises:
        InputError: the folder is not laid out as the data set, or the split is unknown.
    """
    try:
        samples = _open(data)
    except InputError as error:
        raise InputError(f"{key}: {error}") from None
    if data.source not in GENERATED and data.count is not None and data.count < len(samples):
        return _First(samples, data.count)
    return samples


def _open(data: Data) -> Samples:
    if data.source == "drives":
        return DriveSamples(
            data.seed, data.count or 0, data.height, data.width, data.frames, data.vary_cameras
        )
    if data.source == "procedural":
        return TrainingScenes(
            data.seed,
            data.count or 0,
            data.height,
            data.width,
            max_disparity=data.max_disparity,
            max_flow=data.max_flow,
            drives=data.drives,
            effects=data.effects,
            images=data.images,
        )
    return open_dataset(data.source, data.root or Path(), data.split)


class TrainingItems:
    """The items of all sources of a training, one source after the other.

    Raises:
        InputError: a source cannot be opened.
    """

    def __init__(self, data: tuple[Data, ...]) -> None:
        self._items: list[Callable[[int], Any]] = []
        self._lengths: list[int] = []
        self._ends = [0]
        for index, entry in enumerate(data):
            key = f"data[{index}]" if len(data) > 1 else "data"
            if entry.source == IMAGES:
                self._add_images(entry)
                continue
            samples = open_samples(entry, key)
            if entry.cache is None:
                self._items.append(partial(_item, samples))
            else:
                # These settings do not change a sample.
                settings = str(replace(entry, cache=None, count=None, repeat=1))
                self._items.append(Cached(samples, settings, entry.cache).item)
            self._lengths.append(len(samples))
            self._ends.append(self._ends[-1] + entry.repeat * len(samples))

    def _add_images(self, entry: Data) -> None:
        assert entry.root is not None
        assert entry.teacher is not None
        assert entry.cache is not None
        images = FeatureImages(entry.root, entry.teacher, entry.cache)
        count = min(len(images), entry.count or len(images))
        self._items.append(images.item)
        self._lengths.append(count)
        self._ends.append(self._ends[-1] + entry.repeat * count)

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
        """The item: a `TrainingItem`, or a `FeatureItem` of the source `images`."""
        source = bisect_right(self._ends, index) - 1
        return self._items[source]((index - self._ends[source]) % self._lengths[source])


def _item(samples: Samples, index: int) -> TrainingItem:
    return make_item(samples[index])


def check_batch_size(config: TrainingConfig, items: TrainingItems) -> None:
    """Raise InputError if a batch is larger than the data set."""
    if config.batch_size > len(items):
        raise InputError(
            f"batch_size: got {config.batch_size}, expected no more than the {len(items)} samples of data"
        )


def make_batch(config: TrainingConfig, items: TrainingItems, step: int) -> Batch:
    """The batch of a step, counted from 0.

    Every pass over the items has its own order, and the augmentation of an item depends on the number of items before it.
    """
    if config.loss.kind == "features":
        return _feature_batch(config, items, step)
    numbers = range(step * config.batch_size, (step + 1) * config.batch_size)
    augmented = []
    for number in numbers:
        item, rng = _drawn(config, items, number)
        augmented.append(augment(item, config.augmentation, rng))
    truth = np.stack([item.truth for item in augmented])
    return Batch(np.stack([item.images for item in augmented]), truth * SIGNS)


def _drawn(
    config: TrainingConfig, items: TrainingItems, number: int
) -> tuple[Any, np.random.Generator]:
    """The item that comes as that number, and what its augmentation is drawn from."""
    turn, place = divmod(number, len(items))
    item = items[int(_order(config.seed, turn, len(items))[place])]
    return item, np.random.default_rng([config.seed, _DRAWS, number])


def _feature_batch(config: TrainingConfig, items: TrainingItems, step: int) -> Batch:
    """Four single images per sample, which the encoder takes as the images of two frames, and the teacher's features.

    The features of a sample are float32 4 x (h w + h w / 4) x C: those at 1/8 and those at 1/16, row by row.
    """
    settings = config.augmentation
    images: list[np.ndarray] = []
    features: list[np.ndarray] = []
    number = step * 4 * config.batch_size
    while len(images) < 4 * config.batch_size:
        item, rng = _drawn(config, items, number)
        # Where an image is too small for the crop, the next step's first comes instead.
        number += 1
        crop = cropped(item, settings.height, settings.width, rng)
        if crop is None:
            continue
        clean = TrainingItem(crop.image[None], np.zeros((*crop.image.shape[:2], 4), np.float32))
        seen = recolored(clean, settings, rng)
        seen = replace(seen, images=degraded(seen.images, settings, rng))
        images.append(noisy(seen, settings, rng).images[0])
        parts = [maps.reshape(-1, maps.shape[-1]) for maps in (crop.eighth, crop.sixteenth)]
        features.append(np.concatenate(parts).astype(np.float32))
    shape = (config.batch_size, 4)
    return Batch(
        np.stack(images).reshape(*shape, *images[0].shape),
        np.stack(features).reshape(*shape, *features[0].shape),
    )


@contextmanager
def open_batches(
    config: TrainingConfig, items: TrainingItems, first_step: int, part: int = 0, parts: int = 1
) -> Iterator[Iterator[Batch]]:
    """Batches of the steps from `first_step` to the last, in order, prepared by worker processes if there are any.

    Of each batch, only one of `parts` equal parts is prepared.

    Raises:
        InputError: a sample cannot be read, or the workers died four times in a row.
    """
    # A part of a batch is a batch of a training with smaller ones.
    config = replace(config, batch_size=config.batch_size // parts)
    steps = range(first_step * parts + part, config.steps * parts, parts)
    if config.workers == 0:
        yield (make_batch(config, items, step) for step in steps)
        return
    # Batches are passed in files in memory: a worker that is killed while it sends one would block a pipe forever.
    with TemporaryDirectory(prefix="dwarf_batches_", dir=_memory()) as folder:
        files: Any = map_over(
            partial(_write_batch, config, Path(folder)), steps, str(config.workers)
        )
        with closing(files):
            yield map(_take_batch, files)


def _memory() -> Path | None:
    """Folder in memory with enough free space for the batches in progress, if there is one."""
    folder = Path("/dev/shm")
    usable = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > _MIN_FREE_BYTES
    return folder if usable else None


def _write_batch(config: TrainingConfig, folder: Path, step: int) -> tuple[Path, Path]:
    batch = make_batch(config, _items(config.data), step)
    files = folder / f"{step}_images.npy", folder / f"{step}_truth.npy"
    for file, values in zip(files, (batch.images, batch.truth), strict=True):
        np.save(file, values)
    return files


def _take_batch(files: tuple[Path, Path]) -> Batch:
    batch = Batch(*(np.load(file, allow_pickle=False) for file in files))
    for file in files:
        file.unlink()
    return batch


@lru_cache(maxsize=1)
def _items(data: tuple[Data, ...]) -> TrainingItems:
    return TrainingItems(data)


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, _ORDER, turn]).permutation(count)


def _without(values: np.ndarray | None, hidden: np.ndarray) -> np.ndarray | None:
    if values is None:
        return None
    values = values.copy()
    values[hidden] = np.nan
    return values
