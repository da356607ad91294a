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

_SAMPLES = 160


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


def find_segments(evidence: Evidence, moving: np.ndarray) -> list[Segment]:
    """Group moving pixels that are near one another in space and move alike.

    Args:
        evidence: see there.
        moving: bool h x w.

    Returns:
        segments, largest first, whose pixels agree on one rigid motion that differs significantly from the static scene's.
    """
    camera = evidence.camera
    depth = (
        camera.fx
        * camera.baseline
        / np.maximum(evidence.disparity - np.float32(camera.cx - camera.cx_right), np.float32(0.1))
    )
    # Cut where the depth steps by more than its noise and the gap allow.
    tolerance = _GAP + depth * depth * np.float32(2.0 / (camera.fx * camera.baseline))
    kernel = np.ones((3, 3), np.uint8)
    unknown = ~np.isfinite(depth)
    step = cv2.dilate(np.where(unknown, np.float32(0), depth), kernel)
    step -= cv2.erode(np.where(unknown, np.float32(1e6), depth), kernel)
    connected = (moving & (step < 2 * tolerance)).astype(np.uint8)
    count, labels = cv2.connectedComponents(connected, connectivity=8)
    if count == 1:
        return []
    flat = np.flatnonzero(labels)
    label = labels.ravel()[flat]
    order = np.argsort(label, kind="stable")
    parts = np.split(flat[order], np.flatnonzero(np.diff(label[order])) + 1)
    parts = [part for part in parts if part.size >= _FEWEST_VALID // 2]
    segments = []
    for group in _merged(evidence, depth, parts):
        valid = np.count_nonzero(evidence.valid.ravel()[group])
        if valid < max(_FEWEST_VALID, _LEAST_VALID * group.size):
            continue
        segment = _fitted(evidence, group)
        if segment is not None:
            segments.append(segment)
    return sorted(segments, key=lambda segment: -segment.pixels.size)


def _points(evidence: Evidence, depth: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    width = evidence.disparity.shape[1]
    return back_project(
        evidence.columns.ravel()[pixels % width],
        evidence.rows.ravel()[pixels // width],
        depth.ravel()[pixels],
        evidence.camera,
    )


def _merged(evidence: Evidence, depth: np.ndarray, parts: list[np.ndarray]) -> list[np.ndarray]:
    """Join parts whose boxes in space are near and whose motions in the image, relative to the scene, are alike."""
    boxes, motions = [], []
    for part in parts:
        some = part[:: max(1, part.size // 200)]
        points = _points(evidence, depth, some)
        boxes.append(np.percentile(points, [10, 90], axis=0))
        motions.append(
            [
                _median(seen.ravel()[some] - predicted.ravel()[some])
                for seen, predicted in zip(evidence.seen, evidence.predicted, strict=True)
            ]
        )
    group = list(range(len(parts)))
    gain = evidence.camera.fx * evidence.camera.baseline
    for a in range(len(parts)):
        for b in range(a):
            far = max(boxes[a][1, 2], boxes[b][1, 2])
            gap = np.maximum(boxes[a][0] - boxes[b][1], boxes[b][0] - boxes[a][1])
            allowed = np.array([_GAP, _GAP, _GAP + 2 * far * far / gain])
            difference = np.abs(np.subtract(motions[a], motions[b]))
            if (gap < allowed).all() and (difference < 2 + 0.3 * np.abs(motions[a])).all():
                group = [group[b] if g == group[a] else g for g in group]
    return [
        np.concatenate([part for part, g in zip(parts, group, strict=True) if g == number])
        for number in sorted(set(group))
    ]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else 0.0


def _fitted(evidence: Evidence, pixels: np.ndarray) -> Segment | None:
    camera, width = evidence.camera, evidence.disparity.shape[1]
    some = pixels[:: max(1, pixels.size // _SAMPLES)]
    seen = np.column_stack([values.ravel()[some] for values in evidence.seen]).astype(np.float64)
    known = np.isfinite(seen[:, :2]).all(axis=1)
    some, seen = some[known], seen[known]
    if some.size < 8:
        return None
    parallax = evidence.disparity.ravel()[some] - np.float32(camera.cx - camera.cx_right)
    points = back_project(
        evidence.columns.ravel()[some % width],
        evidence.rows.ravel()[some // width],
        camera.fx * camera.baseline / np.maximum(parallax, np.float32(0.1)),
        camera,
    ).astype(np.float64)
    matches = Matches(points, seen, np.ones(some.size), np.zeros(some.size, np.int64), camera)
    # About the object's own center, so that its turning and its moving are told apart.
    center = np.median(points, axis=0)
    information = np.diag(1 / np.square([4.0, 1.0, 6.0, 0.02, 0.15, 0.02]))
    about = np.eye(6)
    about[:3, 3:] = -np.array(
        [[0, -center[2], center[1]], [center[2], 0, -center[0]], [-center[1], center[0], 0]]
    )
    information = about.T @ information @ about
    found = fit(matches, evidence.motion, iterations=8, prior=(evidence.motion, information))
    low, high = np.percentile(points, [5, 95], axis=0)
    # Mismatches do not move as one; those on the ground are flat.
    most_noise = _MOST_NOISE * max(1.0, evidence.noise) * (1 if pixels.size < _LARGE else 1.5)
    if found.agreeing.mean() < 0.5 or found.noise > most_noise or high[1] - low[1] < _LOWEST:
        return None
    return Segment(pixels, found, (low + high) / 2, high - low)
