"""Poses of a camera as the transforms of /tf."""

from __future__ import annotations

import numpy as np

MAP_FROM_OPTICAL = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)
"""Axes of a map (x forward, y left, z up; REP-103) in those of a camera (x right, y down, z forward), as columns."""


def quaternion_of(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (x, y, z, w) nearest to a 3 x 3 rotation (Bar-Itzhack, 2000)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    symmetric = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    return np.linalg.eigh(symmetric)[1][:, -1]


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """3 x 3 rotation of a quaternion (x, y, z, w) of any length but 0."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
