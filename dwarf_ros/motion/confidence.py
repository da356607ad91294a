"""How far a refined estimate is to be trusted: probability, by a logistic model, that its error is below 3 px.

The models' weights were fitted to procedural drives and KITTI 2012 with the estimators `classical` and `dwarf_lite`.
"""

from __future__ import annotations

import cv2
import numpy as np

from dwarf_ros.motion.segmentation import Evidence

_DISPARITY_WEIGHTS = (
    0.315,
    -1.151,
    2.142,
    -5.248,
    0.217,
    0.342,
    -0.97,
    1.536,
    -6.474,
    -0.496,
    4.738,
)
_DISPARITY_BIAS = 1.641
_FLOW_WEIGHTS = (0.409, 1.425, -6.912, -0.318, -0.54, 1.692, -0.054, -2.396, 0.035)
_FLOW_BIAS = 1.627

_LARGEST = 50.0
"""Differences, px, beyond this tell no more."""


def confidences(
    evidence: Evidence,
    labels: np.ndarray,
    refined_cost: np.ndarray,
    own_cost: np.ndarray,
    stereo_cost: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of disparity and of flow, 0 to 1, float32 at a quarter of the size.

    Args:
        evidence: at half the size, h x w.
        labels: 0 static, else the number of the object.
        refined_cost: warping cost of the refined flow; 1 outside the image.
        own_cost: the same of the estimate's own flow.
        stereo_cost: the same between left and right image; None where there was no right image.
    """
    valid = evidence.valid.astype(np.float32)
    known = evidence.known.astype(np.float32)
    disparity = np.nan_to_num(evidence.disparity)
    window = np.ones((5, 5), np.uint8)
    spread = cv2.dilate(disparity, window) - cv2.erode(disparity, window)
    refined, own = cv2.blur(refined_cost, (5, 5)), cv2.blur(own_cost, (5, 5))
    cost = cv2.blur(np.minimum(refined_cost, 0.5), (5, 5))
    known_around, valid_around = cv2.blur(known, (5, 5)), cv2.blur(valid, (9, 9))
    stereo = np.zeros_like(disparity) if stereo_cost is None else cv2.blur(stereo_cost, (5, 5))

    # The windows see what is between the pixels that are left.
    few = np.s_[::2, ::2]
    visible = (refined_cost[few] < 1).astype(np.float32)
    static = (labels[few] == 0).astype(np.float32)
    cost = cost[few] * visible
    worse = np.maximum(refined[few] - own[few], 0) * visible * static
    (seen_x, seen_y), (x, y) = (
        (places[0][few], places[1][few]) for places in (evidence.seen, evidence.predicted)
    )
    difference = np.nan_to_num(np.hypot(seen_x - x, seen_y - y), nan=_LARGEST)
    disagreement = np.log1p(np.minimum(difference, _LARGEST)) * static
    moved = np.hypot(x - evidence.columns[few], y - evidence.rows[few])
    length = np.log1p(np.nan_to_num(moved, nan=500.0))
    known, valid, known_around, valid_around, disparity, spread, stereo = (
        values[few]
        for values in (known, valid, known_around, valid_around, disparity, spread, stereo)
    )

    disparity_logit = _logit(
        (known, np.log1p(spread), known_around, np.minimum(stereo, 0.5), np.log1p(disparity), valid,
         valid_around, visible, cost, disagreement * visible, worse),
        _DISPARITY_WEIGHTS,
        _DISPARITY_BIAS,
    )  # fmt: skip
    flow_logit = _logit(
        (disparity_logit, visible, cost, disagreement, disagreement * visible, worse, length,
         1 - static, valid),
        _FLOW_WEIGHTS,
        _FLOW_BIAS,
    )  # fmt: skip
    return _probability(disparity_logit), _probability(flow_logit)


def _logit(features: tuple[np.ndarray, ...], weights: tuple[float, ...], bias: float) -> np.ndarray:
    total = np.full(features[0].shape, bias, np.float32)
    for feature, weight in zip(features, weights, strict=True):
        total += np.float32(weight) * feature
    return total


def _probability(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))
