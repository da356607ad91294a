"""What does not move as the static scene does, grouped in space and fitted with one rigid motion for each object."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dwarf_ros.geometry import back_project, rigid_prediction
from dwarf_ros.motion.rigid import Fit, Matches, fit
from dwarf_ros.types import StereoCamera

SIGNIFICANT = 25.0
"""Squared Mahalanobis length beyond which a pixel's motion is not that of the static scene."""

_FEWEST_VALID = 25
"""Trusted pixels of an object, at half the size: fewer are not told from errors."""

_LEAST_VALID = 0.3
"""Part of an object's pixels that are trusted."""

_GAP = 0.8
"""Parts of one object are at most this far from one another, m, beside what the noise of their depth allows."""

_LOWEST = 0.3
"""Objects are at least this high, m."""

_MOST_NOISE = 1.2
"""Residuals within an object, as a multiple of what is expected of estimates that are right."""

_LARGE = 500
"""Pixels, at half the size, of an object that may have half as much noise again: errors are seldom that large."""

_LEAST_GAIN = 0.05
"""What moves explains the images better by this cost, averaged over the object."""

_SAMPLES = 120
_CELLS = 16
"""Pixels of an object that its motion is fitted to, and groups of neighbors whose errors are taken as dependent."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """An estimate at every second pixel of every second row, beside the prediction of a static scene.

    Attributes:
        camera: of the full-size images.
        motion: 4 x 4 of the static scene.
        columns, rows: float32 1 x w and h x 1, px of the full-size image.
        disparity: float32 h x w, px; filled where unknown.
        known: bool h x w, the disparity was not filled.
        seen: estimated column, row and disparity in the other frame, each float32 h x w, px.
        predicted: the same for a static scene.
        valid: bool h x w, the estimate is trusted.
        noise: standard deviation of the estimate on the static scene, as a multiple of what `rigid` expects.
    """

    camera: StereoCamera
    motion: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    disparity: np.ndarray
    known: np.ndarray
    seen: tuple[np.ndarray, np.ndarray, np.ndarray]
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray]
    valid: np.ndarray
    noise: float


@dataclass(frozen=True, eq=False)
class Segment:
    """Pixels that move together.

    Attributes:
        pixels: flat indices into the half-size maps.
        fit: their rigid motion, of points from the reference's camera frame to the other's.
        center: of their points in the reference's camera frame, m.
        size: of their points' box along the camera's axes, m.
    """

    pixels: np.ndarray
    fit: Fit
    center: np.ndarray
    size: np.ndarray


def deviation(evidence: Evidence, pixels: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis length of the difference between estimate and static scene.

    Equivalent, to first order, to that of the 3D displacement with sigma_Z = Z^2 / (f B) sigma_disparity.

    Args:
        evidence: see there.
        pixels: flat indices N.

    Returns:
        float32 N; chi-square with three degrees of freedom where the scene is static and the noise as expected.
    """
    camera, motion = evidence.camera, evidence.motion
    width = evidence.disparity.shape[1]
    x = evidence.columns.ravel()[pixels % width]
    y = evidence.rows.ravel()[pixels // width]
    disparity = evidence.disparity.ravel()[pixels]
    # The effect of the disparity's noise on the prediction, by a difference of half a px.
    more = rigid_prediction(x, y, disparity + np.float32(0.5), camera, motion)[:3]
    flow_sigma = 0.5 + 0.04 * np.hypot(
        evidence.predicted[0].ravel()[pixels] - x, evidence.predicted[1].ravel()[pixels] - y
    )
    residuals, effects = [], []
    sigmas = (flow_sigma, flow_sigma, np.float32(0.7))
    for seen, predicted, moved, sigma in zip(
        evidence.seen, evidence.predicted, more, sigmas, strict=True
    ):
        here = predicted.ravel()[pixels]
        residual = (seen.ravel()[pixels] - here) / sigma
        missing = np.isnan(residual)
        residual[missing] = 0
        residuals.append(residual)
        effects.append(np.where(missing, 0, (moved - here) / sigma))
    along = sum(r * e for r, e in zip(residuals, effects, strict=True))
    effect = sum(e * e for e in effects)
    return sum(r * r for r in residuals) - along * along / (1 + effect)


def find_segments(
    evidence: Evidence, moving: np.ndarray, gain: np.ndarray | None = None
) -> list[Segment]:
    """Group moving pixels that are near one another in space and move alike.

    Args:
        evidence: see there.
        moving: bool h x w.
        gain: float32 h x w, cost by which the estimate explains the images better than the static scene; None where it is
            not known.

    Returns:
        segments, largest first, whose pixels agree on one rigid motion.
    """
    camera, width = evidence.camera, moving.shape[1]
    gain_of_parallax = camera.fx * camera.baseline
    parallax = evidence.disparity - np.float32(camera.cx - camera.cx_right)
    depth = np.float32(gain_of_parallax) / np.maximum(parallax, np.float32(0.1))
    # Cut where the depth steps by more than its noise and the gap allow.
    tolerance = _GAP + depth * depth * np.float32(2.0 / gain_of_parallax)
    kernel = np.ones((3, 3), np.uint8)
    unknown = ~np.isfinite(depth)
    step = cv2.dilate(np.where(unknown, np.float32(0), depth), kernel)
    step -= cv2.erode(np.where(unknown, np.float32(1e6), depth), kernel)
    connected = (moving & (step < 2 * tolerance)).astype(np.uint8)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(connected, connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= _FEWEST_VALID // 2
    large[0] = False
    if not large.any():
        return []
    number = np.cumsum(large) - 1
    pixels = np.flatnonzero(large[labels])
    part = number[labels.ravel()[pixels]]
    points = back_project(
        evidence.columns.ravel()[pixels % width],
        evidence.rows.ravel()[pixels // width],
        depth.ravel()[pixels],
        camera,
    )
    group = _grouped(evidence, pixels, part, points)[part]
    segments = []
    for chosen in range(int(group.max()) + 1):
        member = group == chosen
        members = pixels[member]
        valid = np.count_nonzero(evidence.valid.ravel()[members])
        if valid < max(_FEWEST_VALID, _LEAST_VALID * members.size):
            continue
        if gain is not None and gain.ravel()[members].mean() < _LEAST_GAIN:
            continue
        segment = _fitted(evidence, members, points[member])
        if segment is not None:
            segments.append(segment)
    return sorted(segments, key=lambda segment: -segment.pixels.size)


def _grouped(
    evidence: Evidence, pixels: np.ndarray, part: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Group of each part: parts whose boxes in space are near and whose motions in the image are alike are one.

    Args:
        evidence: see there.
        pixels: flat indices N.
        part: int N, part that each pixel is of, from 0.
        points: float32 N x 3, m.
    """
    count = np.bincount(part)
    motions = []
    for seen, predicted in zip(evidence.seen, evidence.predicted, strict=True):
        motions.append(np.nan_to_num(seen.ravel()[pixels] - predicted.ravel()[pixels]))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(part, values) / count

    center = np.column_stack([mean(points[:, axis]) for axis in range(3)])
    square = np.column_stack([mean(points[:, axis] ** 2) for axis in range(3)])
    # About from the 10 % to the 90 % quantile.
    half = 1.4 * np.sqrt(np.maximum(square - center**2, 0))
    low, high = center - half, center + half
    motion = np.column_stack([mean(values) for values in motions])
    gap = np.maximum(low[:, None] - high[None], low[None] - high[:, None])
    far = np.maximum(high[:, None, 2], high[None, :, 2])
    gap[..., 2] -= 2 * far * far / (evidence.camera.fx * evidence.camera.baseline)
    difference = np.abs(motion[:, None] - motion[None])
    alike = (difference < 2 + 0.3 * np.abs(motion[:, None])).all(axis=-1)
    near = (gap < _GAP).all(axis=-1) & alike & alike.T
    # The smallest number that each part is joined to, until nothing changes.
    group = np.arange(count.size)
    while True:
        joined = np.where(near, group[None], count.size).min(axis=1)
        if (joined == group).all():
            return np.unique(group, return_inverse=True)[1]
        group = joined


def _fitted(evidence: Evidence, pixels: np.ndarray, points: np.ndarray) -> Segment | None:
    """The segment of pixels, flat indices N, at points, float32 N x 3, m; None where they do not move as one."""
    low, high = np.sort(points, axis=0)[[points.shape[0] // 20, -1 - points.shape[0] // 20]]
    # Mismatches on the ground are flat.
    if high[1] - low[1] < _LOWEST:
        return None
    step = max(1, pixels.size // _SAMPLES)
    some, points = pixels[::step], points[::step].astype(np.float64)
    seen = np.column_stack([values.ravel()[some] for values in evidence.seen]).astype(np.float64)
    known = np.isfinite(seen[:, :2]).all(axis=1)
    points, seen = points[known], seen[known]
    if len(points) < 8:
        return None
    cells = np.arange(len(points)) * _CELLS // len(points)
    matches = Matches(points, seen, np.ones(len(points)), cells, evidence.camera)
    # About the object's own center, so that rotation and translation are separate.
    center = np.median(points, axis=0)
    information = np.diag(1 / np.square([4.0, 1.0, 6.0, 0.02, 0.15, 0.02]))
    about = np.eye(6)
    about[:3, 3:] = -np.array(
        [[0, -center[2], center[1]], [center[2], 0, -center[0]], [-center[1], center[0], 0]]
    )
    information = about.T @ information @ about
    found = fit(matches, evidence.motion, iterations=6, prior=(evidence.motion, information))
    # Mismatches do not move as one.
    most_noise = _MOST_NOISE * max(1.0, evidence.noise) * (1 if pixels.size < _LARGE else 1.5)
    if found.agreeing.mean() < 0.5 or found.noise > most_noise:
        return None
    low, high = low.astype(np.float64), high.astype(np.float64)
    return Segment(pixels, found, (low + high) / 2, high - low)
