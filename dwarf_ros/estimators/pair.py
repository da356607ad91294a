"""Helpers of all estimators: checks of a pair of frames and of the flow between them."""

from __future__ import annotations

import numpy as np

from dwarf_ros.types import InputError, StereoFrame


def require_one_size(previous: StereoFrame, current: StereoFrame) -> None:
    """Raise InputError if the images of the two frames differ in size."""
    if previous.left.shape != current.left.shape:
        sizes = [f"{f.left.shape[1]} x {f.left.shape[0]} px" for f in (previous, current)]
        raise InputError(
            f"frames: images are {sizes[0]} at one time and {sizes[1]} at the other, expected one size"
        )


def seconds_between(previous: StereoFrame, current: StereoFrame) -> float:
    """Time from the first to the second frame, s; negative where the first is the newer one."""
    return (current.stamp - previous.stamp) / 1e9


def lands_inside(flow: np.ndarray) -> np.ndarray:
    """Whether a pixel's target lies in the other image.

    Args:
        flow: (u, v) in px, float32 H x W x 2; NaN where unknown.

    Returns:
        bool H x W: True where (x + u, y + v) lies between the centers of the image's outermost pixels.
    """
    height, width = flow.shape[:2]
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
