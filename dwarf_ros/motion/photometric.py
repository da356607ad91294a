"""How well two images agree where a flow says they should, at half their size."""

from __future__ import annotations

import cv2
import numpy as np

_NEIGHBORS = ((-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1))

_CONTRAST = 8.0
"""Units of the descriptor for each gray level; it saturates at 16 levels to either side."""

_LONGEST_ROW = 1024
"""cv2.remap takes at most 32767 columns or rows."""

Descriptors = tuple[np.ndarray, np.ndarray]
"""Soft census of an image at half its size: two uint8 h x w x 4, see `descriptors`."""


def descriptors(image: np.ndarray) -> Descriptors:
    """Soft census around every second pixel of every second row.

    Saturated differences of the halved image to its eight neighbors: they do not depend on the brightness and little on
    the exposure.

    Args:
        image: uint8 H x W x 3 RGB or H x W gray.

    Returns:
        two uint8 (H + 1) // 2 x (W + 1) // 2 x 4.
    """
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    small = cv2.pyrDown(gray)
    channels = []
    for column, row in _NEIGHBORS:
        kernel = np.zeros((3, 3), np.float32)
        kernel[1, 1], kernel[1 + row, 1 + column] = -_CONTRAST, _CONTRAST
        channels.append(cv2.filter2D(small, cv2.CV_8U, kernel, delta=128))
    return cv2.merge(channels[:4]), cv2.merge(channels[4:])


def warping_cost(
    reference: Descriptors,
    other: Descriptors,
    columns: np.ndarray,
    rows: np.ndarray,
    unknown: float = 1.0,
) -> np.ndarray:
    """Difference between the reference's descriptors and those of the other image at the given places.

    Args:
        reference: of size h x w, or a part of it.
        other: of the other image.
        columns: of the full-size image, px, float32 h x w; NaN where unknown.
        rows: the same.
        unknown: what is returned where the place is unknown or outside the image.

    Returns:
        float32 h x w, 0 (the same) to 1.
    """
    height, width = other[0].shape[:2]
    x, y = columns * np.float32(0.5), rows * np.float32(0.5)
    # Written so that NaN is outside.
    outside = ~((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1))
    if outside.any():
        x[outside] = y[outside] = 0
    places = cv2.convertMaps(x, y, cv2.CV_16SC2)
    total = np.zeros(outside.shape, np.uint16)
    for mine, theirs in zip(reference, other, strict=True):
        warped = cv2.remap(theirs, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference = cv2.absdiff(mine, warped)
        mean = cv2.transform(difference, np.full((1, 4), 0.25, np.float32))
        total += mean.reshape(outside.shape)
    cost = total * np.float32(1 / 510)
    if outside.any():
        cost[outside] = unknown
    return cost


def warping_cost_at(
    reference: Descriptors,
    other: Descriptors,
    pixels: np.ndarray,
    columns: np.ndarray,
    rows: np.ndarray,
    unknown: float = 1.0,
) -> np.ndarray:
    """As `warping_cost`, for some pixels: flat indices N into the reference's, and float32 N; returns float32 N."""
    padded = -(-pixels.size // _LONGEST_ROW) * _LONGEST_ROW
    shape = (-1, min(_LONGEST_ROW, padded))

    def rectangle(values: np.ndarray) -> np.ndarray:
        return np.pad(values, (0, padded - values.size)).reshape(shape)

    index = rectangle(pixels)
    mine = tuple(part.reshape(-1, 4)[index] for part in reference)
    cost = warping_cost(mine, other, rectangle(columns), rectangle(rows), unknown)
    return cost.ravel()[: pixels.size]


def has_texture(parts: Descriptors) -> bool:
    """Whether the image differs from its surroundings in at least one of a hundred pixels."""
    flat = parts[0].reshape(parts[0].shape[0], -1)
    low, high = 128 - 3 * _CONTRAST, 128 + 3 * _CONTRAST
    return flat.size - cv2.countNonZero(cv2.inRange(flat, low, high)) > flat.size / 100
