"""Augmentation of training items: what changes the images changes disparity, disparity_next and flow with them.

An item's two stereo pairs stay rectified: there is no rotation, which would move matching points of a pair to different
rows, and no mirror image, in which the left camera becomes the right one.

Gamma, brightness, colour and zoom are those of Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks
Knowledge", AAAI 2020; flip and shrinking are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dwarf_ros.samples import Maps, Sample
from dwarf_ros.types import InputError

_SMOOTH = 0.5
"""Interpolated truth is kept where it is nearer than this to its nearest pixel, px; elsewhere there is an edge."""


@dataclass(frozen=True, eq=False)
class TrainingItem:
    """Four images and the truth about the first.

    Attributes:
        images: left_t0, right_t0, left_t1, right_t1; uint8 4 x H x W x 3, RGB.
        truth: float32 H x W x 4, px, for the pixels of left_t0: disparity and disparity_next (positive), u, v; NaN where
            unknown.
    """

    images: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Augmentation:
    """What is drawn for each item.

    Attributes:
        height, width: of the crop, px.
        zoom: range of the enlargement before the crop; below 1 shrinks.
        zoom_probability: of zooming at all.
        stretch: the largest further factor between the enlargement of x and of y, >= 1.
        flip_probability: of turning the item upside down.
        photometric_probability: of an image getting gamma, brightness and colour of its own.
        gamma, brightness, colour: their ranges; colour is a factor for each channel.
        grey_probability: of an item losing its colours.
        noise: largest standard deviation of the noise of an item's images, grey levels; every second item has noise.
    """

    height: int
    width: int
    zoom: tuple[float, float] = (1.0, 1.8)
    zoom_probability: float = 0.5
    stretch: float = 1.0
    flip_probability: float = 0.0
    photometric_probability: float = 1.0
    gamma: tuple[float, float] = (0.8, 1.2)
    brightness: tuple[float, float] = (0.5, 2.0)
    colour: tuple[float, float] = (0.8, 1.2)
    grey_probability: float = 0.0
    noise: float = 0.0


def make_item(sample: Sample) -> TrainingItem:
    """Item of a sample, with the truth about all pixels (`occ`), whether hidden elsewhere or not.

    Raises:
        InputError: the sample has no ground truth.
    """
    if sample.ground_truth is None:
        raise InputError(f"{sample.name}: has no ground truth, expected samples to learn from")
    frames = (sample.previous, sample.current)
    images = np.stack([image for frame in frames for image in (frame.left, frame.right)])
    return TrainingItem(images, _stacked(sample.ground_truth.occ, images.shape[1:3]))


def augment(item: TrainingItem, settings: Augmentation, rng: np.random.Generator) -> TrainingItem:
    """Item of settings.height x settings.width px: zoomed, cropped, flipped and recoloured at random.

    An item that is smaller than the crop is reflected at its borders, without truth there.
    """
    item = padded(item, settings.height, settings.width)
    height, width = item.truth.shape[:2]
    zoom = rng.uniform(*settings.zoom) if rng.random() < settings.zoom_probability else 1.0
    stretch = settings.stretch ** rng.uniform(-0.5, 0.5)
    rows = min(height, max(1, round(settings.height / (zoom / stretch))))
    columns = min(width, max(1, round(settings.width / (zoom * stretch))))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    item = cropped(item, top, left, rows, columns)
    item = resized(item, settings.height, settings.width)
    if rng.random() < settings.flip_probability:
        item = flipped_vertically(item)
    return noisy(recoloured(item, settings, rng), settings, rng)


def cropped(item: TrainingItem, top: int, left: int, height: int, width: int) -> TrainingItem:
    """The same window of all four images and of the truth; motions stay as they are."""
    window = np.s_[top : top + height, left : left + width]
    return TrainingItem(item.images[:, *window], item.truth[window])


def padded(item: TrainingItem, height: int, width: int) -> TrainingItem:
    """At least height x width px: images reflected evenly around, truth unknown there."""
    rows = max(0, height - item.truth.shape[0])
    columns = max(0, width - item.truth.shape[1])
    if not rows and not columns:
        return item
    around = (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)
    return TrainingItem(
        np.pad(item.images, ((0, 0), *around), mode="reflect"),
        np.pad(item.truth, around, constant_values=np.float32(np.nan)),
    )


def resized(item: TrainingItem, height: int, width: int) -> TrainingItem:
    """Another size; disparities and u are scaled as the width, v as the height.

    Truth is interpolated where it is smooth and taken from the nearest pixel at edges, and unknown where that one is.
    """
    rows, columns = item.truth.shape[:2]
    if (rows, columns) == (height, width):
        return item
    shrinks = height < rows and width < columns
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    images = np.stack([cv2.resize(i, (width, height), interpolation=way) for i in item.images])

    y = (np.arange(height) + 0.5) * (rows / height) - 0.5
    x = (np.arange(width) + 0.5) * (columns / width) - 0.5
    nearest = item.truth[_nearest(y, rows)[:, None], _nearest(x, columns)]
    between = cv2.resize(item.truth, (width, height), interpolation=cv2.INTER_LINEAR)
    with np.errstate(invalid="ignore"):
        truth = np.where(np.abs(between - nearest) < _SMOOTH, between, nearest)
    scale_x, scale_y = width / columns, height / rows
    return TrainingItem(images, truth * np.array([scale_x, scale_x, scale_x, scale_y], np.float32))


def flipped_vertically(item: TrainingItem) -> TrainingItem:
    """Upside down: rows in reverse and v negated; disparities and u go with their pixels."""
    truth = item.truth[::-1] * np.array([1, 1, 1, -1], np.float32)
    return TrainingItem(np.ascontiguousarray(item.images[:, ::-1]), truth)


def recoloured(
    item: TrainingItem, settings: Augmentation, rng: np.random.Generator
) -> TrainingItem:
    """Gamma, brightness and colour drawn for each image by itself; the truth stays as it is."""
    images = item.images.copy()
    levels = np.arange(256)[:, None] / 255
    for index, image in enumerate(item.images):
        if rng.random() < settings.photometric_probability:
            shade = levels ** rng.uniform(*settings.gamma) * rng.uniform(*settings.brightness)
            table = np.clip(shade * rng.uniform(*settings.colour, 3), 0, 1)
            images[index] = cv2.LUT(image, np.rint(255 * table).astype(np.uint8)[None])
    return replace(item, images=images)


def noisy(item: TrainingItem, settings: Augmentation, rng: np.random.Generator) -> TrainingItem:
    """Colours lost, or noise that is alike in the three channels, at random; the truth stays as it is."""
    images = item.images
    if rng.random() < settings.grey_probability:
        grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        images = np.repeat(np.stack(grey)[..., None], 3, axis=-1)
    if settings.noise and rng.random() < 0.5:
        noise = rng.standard_normal((*images.shape[:3], 1), np.float32)
        noise *= np.float32(rng.uniform(0, settings.noise))
        images = np.rint(np.clip(images + noise, 0, 255)).astype(np.uint8)
    return replace(item, images=images)


def _nearest(positions: np.ndarray, size: int) -> np.ndarray:
    return np.clip(np.floor(positions + 0.5).astype(np.intp), 0, size - 1)


def _stacked(maps: Maps, size: tuple[int, ...]) -> np.ndarray:
    truth = np.full((*size, 4), np.nan, np.float32)
    if maps.disparity is not None:
        truth[..., 0] = maps.disparity
    if maps.disparity_next is not None:
        truth[..., 1] = maps.disparity_next
    if maps.flow is not None:
        truth[..., 2:] = maps.flow
    return truth
