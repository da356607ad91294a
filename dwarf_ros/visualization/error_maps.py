"""The KITTI benchmark's error images: blue is within its threshold of 3 px or 5 %, yellow to red beyond.

Reference: Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015, and the benchmark's development kit.
"""

from __future__ import annotations

import numpy as np

from dwarf_ros.metrics import disparity_error, end_point_error, magnitude
from dwarf_ros.types import InputError
from dwarf_ros.visualization.drawing import color_bar

ERROR_EDGES = np.array([0.0625, 0.125, 0.25, 0.5, 1, 2, 4, 8, 16], dtype=np.float32)
"""Where the colors change: errors in units of the outlier threshold (3 px or 5 %)."""

ERROR_COLORS = np.array(
    [
        (49, 54, 149),
        (69, 117, 180),
        (116, 173, 209),
        (171, 217, 233),
        (224, 243, 248),
        (254, 224, 144),
        (253, 174, 97),
        (244, 109, 67),
        (215, 48, 39),
        (165, 0, 38),
    ],
    dtype=np.uint8,
)
"""RGB, from small to large errors."""


def disparity_severity(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Disparity errors in units of KITTI's outlier threshold: 1 is 3 px or 5 %, whichever is larger.

    Args:
        estimate: float32 H x W, px.
        truth: the same shape; NaN where unknown.

    Returns:
        float32 H x W; NaN where unknown.
    """
    return _severity(disparity_error(estimate, truth), np.abs(truth))


def flow_severity(estimate: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """End-point errors in the units of `disparity_severity`; the arrays are float32 H x W x 2, px."""
    return _severity(end_point_error(estimate, truth), magnitude(truth))


def paint_errors(severity: np.ndarray, known: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Error image in the benchmark's colors.

    Args:
        severity: float32 H x W, as of `disparity_severity`.
        known: bool H x W, the pixels with ground truth; each is painted 3 x 3 px large.
        visible: bool H x W, the pixels with ground truth that are not occluded; the others are painted at half brightness.

    Returns:
        uint8 RGB, H x W x 3; black without ground truth.

    Raises:
        InputError: the shapes differ.
    """
    if known.shape != visible.shape:
        raise InputError(
            f"error image: noc ground truth has shape {visible.shape} but occ {known.shape}, expected one shape"
        )
    colors = ERROR_COLORS[np.searchsorted(ERROR_EDGES, severity, side="right").clip(max=9)]
    colors[~visible] >>= 1
    height, width = known.shape
    image = np.zeros((height, width, 3), dtype=np.uint8)
    # All pixels except those at the border also paint their neighbors. The development kit paints row by row, so the last
    # pixel to reach a place wins.
    inner, inner_colors = known[1:-1, 1:-1], colors[1:-1, 1:-1]
    for y in (2, 1, 0):
        for x in (2, 1, 0):
            place = image[y : y + height - 2, x : x + width - 2]
            place[inner] = inner_colors[inner]
    return image


def error_legend(width: int) -> np.ndarray:
    """Color bar of error images in px; above a magnitude of 60 px, 5 % of it counts as 3 px.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    count = len(ERROR_COLORS)
    ticks = [((i + 1) / count, f"{3 * edge:.2g} px") for i, edge in enumerate(ERROR_EDGES)]
    return color_bar(width, ERROR_COLORS, ticks)


def _severity(error: np.ndarray, true_magnitude: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.fmin(error / np.float32(3), np.float32(20) * error / true_magnitude)
