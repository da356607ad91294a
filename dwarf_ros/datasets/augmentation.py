"""Augmentation of training items: images and ground truth are transformed together.

The stereo pairs stay rectified: no rotation, which would move matching points to different rows, and no horizontal flip, which
would swap the cameras.

Gamma, brightness, color and zoom follow Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge",
AAAI 2020; vertical flip and shrinking are additions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import cv2
import numpy as np
from pydantic import AfterValidator, Field, NonNegativeFloat
from pydantic.dataclasses import dataclass as pydantic_dataclass

from dwarf_ros.network.presets import SIZE_MULTIPLE
from dwarf_ros.samples import Maps, Sample
from dwarf_ros.types import InputError

_SMOOTH = 0.5
"""Interpolated ground truth that differs from its nearest pixel by more than this, px, lies at an edge and is dropped."""


@dataclass(frozen=True, eq=False)
class TrainingItem:
    """Two stereo frames and the ground truth of the first.

    Attributes:
        images: left_t0, right_t0, left_t1, right_t1; uint8 4 x H x W x 3, RGB.
        truth: float32 H x W x 4, px, at the pixels of left_t0: disparity and disparity_next (positive), u, v; NaN where unknown.
    """

    images: np.ndarray
    truth: np.ndarray


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1]:
        raise ValueError("two rising numbers > 0")
    return limits


Side = Annotated[int, Field(strict=True, gt=0, multiple_of=SIZE_MULTIPLE)]
Probability = Annotated[float, Field(ge=0, le=1)]
Limits = Annotated[tuple[float, float], AfterValidator(_ordered)]


@pydantic_dataclass(frozen=True, config={"extra": "forbid", "allow_inf_nan": False})
class Augmentation:
    """Ranges that are sampled for each item.

    Attributes:
        height, width: size of the crop, px.
        zoom: range of the scale factor before cropping; values below 1 shrink.
        zoom_probability: probability of any zoom.
        stretch: maximum ratio between the scale factors of x and y, >= 1.
        flip_probability: probability of a vertical flip.
        photometric_probability: probability, per image, of independent gamma, brightness and color.
        gamma, brightness, color: their ranges; color is a factor per channel.
        gray_probability: probability of conversion to grey.
        noise: maximum standard deviation of the noise, grey levels; half of the items get noise.
        exposure: factor of the brightness of all images together; half of the items get one.
        unequal_exposure: largest ratio between the brightness of single images, >= 1; 0.3 of the items get one.
        blur: maximum standard deviation of a Gaussian blur, px: a fifth of the items get it in all images, and a tenth in one.
        glare_probability: probability of a bright spot in one image.
        jpeg_probability: probability of JPEG artifacts in one image.
    """

    height: Side
    width: Side
    zoom: Limits = (1.0, 1.8)
    zoom_probability: Probability = 0.5
    stretch: Annotated[float, Field(ge=1)] = 1.0
    flip_probability: Probability = 0.0
    photometric_probability: Probability = 1.0
    gamma: Limits = (0.8, 1.2)
    brightness: Limits = (0.5, 2.0)
    color: Limits = (0.8, 1.2)
    gray_probability: Probability = 0.0
    noise: NonNegativeFloat = 0.0
    exposure: Limits = (1.0, 1.0)
    unequal_exposure: Annotated[float, Field(ge=1)] = 1.0
    blur: NonNegativeFloat = 0.0
    glare_probability: Probability = 0.0
    jpeg_probability: Probability = 0.0


def make_item(sample: Sample) -> TrainingItem:
    """Item of a sample with the ground truth of all pixels (`occ`), occluded or not.

    Raises:
        InputError: the sample has no ground truth.
    """
    if sample.ground_truth is None:
        raise InputError(f"{sample.name}: has no ground truth, expected labeled samples")
    frames = (sample.previous, sample.current)
    images = np.stack([image for frame in frames for image in (frame.left, frame.right)])
    return TrainingItem(images, _stacked(sample.ground_truth.occ, images.shape[1:3]))


def augment(item: TrainingItem, settings: Augmentation, rng: np.random.Generator) -> TrainingItem:
    """Zoom, crop, flip and recolor an item at random to settings.height x settings.width px.

    Items smaller than the crop are reflected at their borders, without ground truth there.
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
    item = recolored(item, settings, rng)
    return noisy(replace(item, images=degraded(item.images, settings, rng)), settings, rng)


def cropped(item: TrainingItem, top: int, left: int, height: int, width: int) -> TrainingItem:
    """The same window of all images and the ground truth."""
    window = np.s_[top : top + height, left : left + width]
    return TrainingItem(item.images[:, *window], item.truth[window])


def padded(item: TrainingItem, height: int, width: int) -> TrainingItem:
    """Pad to at least height x width px: images are reflected, ground truth is unknown there."""
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
    """Resize; disparities and u scale with the width, v with the height.

    Ground truth is interpolated where it is smooth and taken from the nearest pixel at edges.
    """
    rows, columns = item.truth.shape[:2]
    if (rows, columns) == (height, width):
        return item
    shrinks = height < rows and width < columns
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    images = np.stack([cv2.resize(i, (width, height), interpolation=method) for i in item.images])

    y = (np.arange(height) + 0.5) * (rows / height) - 0.5
    x = (np.arange(width) + 0.5) * (columns / width) - 0.5
    nearest = item.truth[_nearest(y, rows)[:, None], _nearest(x, columns)]
    between = cv2.resize(item.truth, (width, height), interpolation=cv2.INTER_LINEAR)
    with np.errstate(invalid="ignore"):
        truth = np.where(np.abs(between - nearest) < _SMOOTH, between, nearest)
    scale_x, scale_y = width / columns, height / rows
    return TrainingItem(images, truth * np.array([scale_x, scale_x, scale_x, scale_y], np.float32))


def flipped_vertically(item: TrainingItem) -> TrainingItem:
    """Flip upside down; v is negated."""
    truth = item.truth[::-1] * np.array([1, 1, 1, -1], np.float32)
    return TrainingItem(np.ascontiguousarray(item.images[:, ::-1]), truth)


def recolored(item: TrainingItem, settings: Augmentation, rng: np.random.Generator) -> TrainingItem:
    """Apply random gamma, brightness and color to each image independently."""
    images = item.images.copy()
    levels = np.arange(256)[:, None] / 255
    for index, image in enumerate(item.images):
        if rng.random() < settings.photometric_probability:
            shade = levels ** rng.uniform(*settings.gamma) * rng.uniform(*settings.brightness)
            table = np.clip(shade * rng.uniform(*settings.color, 3), 0, 1)
            images[index] = cv2.LUT(image, np.rint(255 * table).astype(np.uint8)[None])
    return replace(item, images=images)


def degraded(images: np.ndarray, settings: Augmentation, rng: np.random.Generator) -> np.ndarray:
    """Darken, blur, dazzle and compress images at random, together or one of them.

    Args:
        images: uint8 N x H x W x 3.
        settings: how much.
        rng: what is drawn from.
    """
    values = images.astype(np.float32)
    if settings.exposure != (1.0, 1.0) and rng.random() < 0.5:
        values *= np.float32(np.exp(rng.uniform(*np.log(settings.exposure))))
    if settings.unequal_exposure > 1 and rng.random() < 0.3:
        ratio = np.log(settings.unequal_exposure) / 2
        values *= np.exp(rng.uniform(-ratio, ratio, (len(values), 1, 1, 1))).astype(np.float32)
    if rng.random() < settings.glare_probability:
        values[rng.integers(len(values))] += _glare(values.shape[1:3], rng)
    if settings.blur:
        draw, sigma = rng.random(), rng.uniform(0.3, max(0.3, settings.blur))
        one = int(rng.integers(len(values)))
        for index in range(len(values)) if draw < 0.2 else [one] if draw < 0.3 else []:
            values[index] = cv2.GaussianBlur(values[index], (0, 0), sigma)
    degraded_images = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    if rng.random() < settings.jpeg_probability:
        one, quality = int(rng.integers(len(values))), int(rng.integers(30, 90))
        _, content = cv2.imencode(".jpg", degraded_images[one], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = cv2.imdecode(content, cv2.IMREAD_COLOR)
        assert decoded is not None
        degraded_images[one] = decoded
    return degraded_images


def _glare(size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A bright spot, float32 H x W x 1, grey levels."""
    y, x = (rng.uniform(0, length) for length in size)
    radius, peak = size[0] * rng.uniform(0.15, 0.8), rng.uniform(25, 160)
    rows, columns = np.ogrid[: size[0], : size[1]]
    spot = peak * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2))
    return spot[..., None].astype(np.float32)


def noisy(item: TrainingItem, settings: Augmentation, rng: np.random.Generator) -> TrainingItem:
    """Convert to grey or add noise, equal in the three channels, at random."""
    images = item.images
    if rng.random() < settings.gray_probability:
        gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
        images = np.repeat(np.stack(gray)[..., None], 3, axis=-1)
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
