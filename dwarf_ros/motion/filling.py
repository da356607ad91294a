"""Disparity where none is known, chosen among the known ones around by how well the images agree."""

from __future__ import annotations

import cv2
import numpy as np

from dwarf_ros.geometry import rigid_prediction
from dwarf_ros.motion.photometric import Descriptors, warping_cost_at
from dwarf_ros.types import StereoCamera

_OUTSIDE = 0.05
"""Cost where the point is outside the other image: about that of a good match, so that none is preferred for it."""

_PENALTIES = (0.0, 0.01, 0.01, 0.03)
"""Added to the costs of the candidates: the background among the left and right neighbor is right most of the time."""

_WINDOW = 7

_MOST_COST = 0.2
"""A filled disparity is not safe where the images differ by more."""


def fill_disparity(
    disparity: np.ndarray,
    camera: StereoCamera,
    motion: np.ndarray,
    reference: Descriptors,
    other: Descriptors,
) -> tuple[np.ndarray, np.ndarray]:
    """Disparity map of a static scene without gaps, at half the size.

    Each unknown pixel takes the nearest known disparity to the left, right, above or below, or that of a point at
    infinity: the one that the camera's motion moves to where the other image looks most alike, averaged over 7 x 7 px.

    Args:
        disparity: of every second pixel of every second row, full-size px, float32 h x w; NaN where unknown.
        camera: of the full-size images.
        motion: 4x4 rigid motion of points from the reference's camera frame to the other's.
        reference: descriptors of the reference's left image.
        other: descriptors of the other frame's left image.

    Returns:
        disparity: float32 h x w; NaN only where nothing is known.
        safe: bool h x w; True where it was known, and where the nearest known ones to both sides are of one surface.
    """
    known = np.isfinite(disparity)
    pixels = np.flatnonzero(~known)
    if pixels.size in (0, disparity.size):
        return disparity, known
    rows, columns = np.divmod(pixels, disparity.shape[1])
    left, right = _nearest_along_rows(disparity, known, rows, columns)
    above, below = _nearest_along_rows(disparity.T, known.T, columns, rows)
    background = np.fmin(left, right)
    background = np.where(np.isnan(background), np.fmin(above, below), background)
    # Nothing but the sky reaches up to the image's border most of the time.
    sky = np.where(np.isnan(above), np.float32(-0.02), np.float32(0))
    infinity = np.full_like(left, max(camera.cx - camera.cx_right, 0) + 0.05)
    candidates = (background, above, below, infinity)

    x, y = (2 * columns).astype(np.float32), (2 * rows).astype(np.float32)
    share = np.zeros(disparity.shape, np.float32)
    share.ravel()[pixels] = 1
    share = cv2.blur(share, (_WINDOW, _WINDOW)).ravel()[pixels]
    best = np.full(pixels.shape, np.inf, np.float32)
    found = np.full(pixels.shape, np.nan, np.float32)
    image = np.zeros(disparity.shape, np.float32)
    for candidate, penalty in zip(candidates, (*_PENALTIES[:3], _PENALTIES[3] + sky), strict=True):
        next_x, next_y, _, _ = rigid_prediction(x, y, candidate, camera, motion)
        cost = warping_cost_at(reference, other, pixels, next_x, next_y, _OUTSIDE)
        image.ravel()[pixels] = cost
        cost = cv2.blur(image, (_WINDOW, _WINDOW)).ravel()[pixels] / share + penalty
        better = (cost < best) & np.isfinite(candidate)
        best[better], found[better] = cost[better], candidate[better]
    filled = disparity.copy()
    filled.ravel()[pixels] = found
    agree = np.abs(left - right) < 1 + 0.05 * left
    agree |= np.abs(above - below) < 1 + 0.05 * above
    known.ravel()[pixels] = agree & (best < _MOST_COST)
    return filled, known


def _nearest_along_rows(
    values: np.ndarray, known: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Nearest known value to the left and to the right of the given pixels; NaN where there is none."""
    width = values.shape[1]
    index = np.arange(width, dtype=np.int32)
    to_left = np.maximum.accumulate(np.where(known, index, -1), axis=1)[rows, columns]
    reverse = np.maximum.accumulate(np.where(known, width - 1 - index, -1)[:, ::-1], axis=1)
    to_right = width - 1 - reverse[:, ::-1][rows, columns]
    left = np.where(to_left < 0, np.float32(np.nan), values[rows, to_left])
    right = np.where(to_right >= width, np.float32(np.nan), values[rows, to_right % width])
    return left, right
