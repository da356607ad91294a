"""Optical flow, disparity, depth and confidence as colors; pictures are uint8 RGB, and unknown values (NaN) are black."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

DEPTH_RATIO = 32
"""Largest to smallest depth that `depth_color` distinguishes."""

_ANGLES = 1024
_RADII = 256


def flow_color(flow: np.ndarray, max_magnitude: float | None = None) -> np.ndarray:
    """Optical flow on the Middlebury color wheel: the hue is the direction, the saturation the magnitude.

    Args:
        flow: float H x W x 2, px; u to the right, v downwards; NaN where unknown.
        max_magnitude: magnitude of full saturation, px, > 0; larger ones are drawn darker. None: `flow_scale` of this flow.

    Returns:
        uint8 RGB, H x W x 3: zero is white, right red, down yellow, left cyan, up violet; unknown is black.

    Reference:
        Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
    """
    flow = np.asarray(flow, dtype=np.float32)
    u, v = cv2.split(np.ascontiguousarray(flow))
    if max_magnitude is None:
        max_magnitude = flow_scale(flow)
    magnitude, angle = cv2.cartToPolar(u, v)
    known = np.isfinite(magnitude)
    # The row is the radius (the last row is for larger magnitudes), the column the angle.
    row = np.minimum(magnitude * np.float32((_RADII - 2) / max_magnitude), np.float32(_RADII - 1))
    column = angle * np.float32(_ANGLES / (2 * np.pi))
    row[~known] = 0
    column[~known] = 0
    index = np.rint(row).astype(np.int32)
    index *= _ANGLES
    index += np.rint(column).astype(np.int32) & (_ANGLES - 1)
    packed = _wheel_table()[index]
    packed[~known] = 0
    return _unpack(packed)


def flow_scale(flow: np.ndarray) -> float:
    """Magnitude, px, that `flow_color` draws at full saturation: the 99th percentile, at least 1 px.

    Args:
        flow: float H x W x 2, px; NaN where unknown.
    """
    return max(_percentile(np.hypot(*_thin(flow, 2).T), 99.0), 1.0)


def disparity_color(disparity: np.ndarray, max_disparity: float | None = None) -> np.ndarray:
    """Disparity on the plasma color map: far is dark violet, near is yellow.

    Args:
        disparity: float H x W, px; NaN where unknown.
        max_disparity: disparity of the brightest color, px, > 0. None: `disparity_scale` of this map.

    Returns:
        uint8 RGB, H x W x 3; unknown is black, which is not on the color map.
    """
    disparity = np.asarray(disparity, dtype=np.float32)
    if max_disparity is None:
        max_disparity = disparity_scale(disparity)
    return _mapped(disparity, max_disparity, cv2.COLORMAP_PLASMA)


def disparity_scale(disparity: np.ndarray) -> float:
    """Disparity, px, that `disparity_color` draws brightest: the 99th percentile, at least 1 px.

    Args:
        disparity: float H x W, px; NaN where unknown.
    """
    return max(_percentile(_thin(disparity, 1)[:, 0], 99.0), 1.0)


def depth_color(depth: np.ndarray, max_depth: float) -> np.ndarray:
    """Depth on the viridis color map, logarithmically: max_depth / 32 and below is yellow, max_depth and beyond dark violet.

    Args:
        depth: float H x W, m; NaN where unknown.
        max_depth: depth of the darkest color, m, > 0.

    Returns:
        uint8 RGB, H x W x 3; unknown is black, which is not on the color map.
    """
    depth = np.asarray(depth, dtype=np.float32)
    octaves = np.log2(
        np.float32(max_depth) / np.maximum(depth, np.float32(max_depth / DEPTH_RATIO))
    )
    return _mapped(octaves, math.log2(DEPTH_RATIO), cv2.COLORMAP_VIRIDIS)


def confidence_color(confidence: np.ndarray) -> np.ndarray:
    """Confidence, float H x W, from 0 (dark blue) to 1 (yellow): uint8 RGB, H x W x 3; NaN is black."""
    return _mapped(np.asarray(confidence, dtype=np.float32), 1.0, cv2.COLORMAP_CIVIDIS)


def _mapped(values: np.ndarray, largest: float, colormap: int) -> np.ndarray:
    """Values from 0 to `largest`, H x W, on one of OpenCV's color maps; RGB, NaN is black."""
    if values.size == 0:
        # OpenCV would divide by zero, which ends the process.
        return np.empty((*values.shape, 3), dtype=np.uint8)
    known = np.isfinite(values)
    level = np.zeros(values.shape, dtype=np.uint8)
    scaled = np.clip(values * np.float32(255.0 / largest), 0.0, 255.0)
    level[known] = np.rint(scaled[known]).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(level, colormap), cv2.COLOR_BGR2RGB)
    picture[~known] = 0
    return picture


def _thin(values: np.ndarray, channels: int) -> np.ndarray:
    """Evenly spaced sample of at most about 60 000 pixels, N x channels."""
    height, width = values.shape[:2]
    step = max(1, int(np.sqrt(height * width / 40_000)))
    return values[::step, ::step].reshape(-1, channels)


def _percentile(values: np.ndarray, percent: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.percentile(known, percent)) if known.size else 0.0


@lru_cache(maxsize=1)
def _wheel_table() -> np.ndarray:
    """Packed colors by radius (row) and angle (column), flattened."""
    segments = (
        (15, (255, 0, 0), (255, 255, 0)),
        (6, (255, 255, 0), (0, 255, 0)),
        (4, (0, 255, 0), (0, 255, 255)),
        (11, (0, 255, 255), (0, 0, 255)),
        (13, (0, 0, 255), (255, 0, 255)),
        (6, (255, 0, 255), (255, 0, 0)),
    )
    hues = np.concatenate(
        [np.linspace(start, end, count, endpoint=False) for count, start, end in segments]
    )
    position = np.arange(_ANGLES) / _ANGLES * len(hues)
    bins = np.arange(len(hues) + 1)
    hue = np.stack(
        [np.interp(position, bins, np.append(hues[:, c], hues[0, c])) for c in range(3)], axis=-1
    )
    radius = np.arange(_RADII - 1)[:, None, None] / (_RADII - 2)
    table = np.concatenate([255 - radius * (255 - hue), 0.75 * hue[None]])
    return _pack(np.rint(table).astype(np.uint8).reshape(-1, 3))


def _pack(rgb: np.ndarray) -> np.ndarray:
    """N x 3 uint8 to N words, so that a look-up moves one word per pixel."""
    opaque = np.zeros((len(rgb), 4), dtype=np.uint8)
    opaque[:, :3] = rgb
    return opaque.view(np.uint32)[:, 0]


def _unpack(packed: np.ndarray) -> np.ndarray:
    """H x W words to H x W x 3 uint8."""
    return cv2.cvtColor(
        np.ascontiguousarray(packed).view(np.uint8).reshape(*packed.shape, 4), cv2.COLOR_RGBA2RGB
    )
