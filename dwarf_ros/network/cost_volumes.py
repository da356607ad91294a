"""Correlations of feature maps over a range of displacements, zero outside the image."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def correlation_1d(left: Tensor, right: Tensor, max_displacement: int) -> Tensor:
    """Horizontal correlation.

    Args:
        left: batch x H x W x C.
        right: the same shape.
        max_displacement: r, px.

    Returns:
        batch x H x W x (2r + 1); channel i is the mean over C of left[x] * right[x + i - r].
    """
    radius = max_displacement
    width = ops.shape(left)[2]
    padded = ops.pad(right, ((0, 0), (0, 0), (radius, radius), (0, 0)))
    return ops.concatenate(
        [
            ops.mean(left * padded[:, :, i : i + width], axis=-1, keepdims=True)
            for i in range(2 * radius + 1)
        ],
        axis=-1,
    )


def correlation_2d(first: Tensor, second: Tensor, max_displacement: int) -> Tensor:
    """Correlation over both image axes.

    Args:
        first: batch x H x W x C.
        second: the same shape.
        max_displacement: r, px, in x and in y.

    Returns:
        batch x H x W x (2r + 1)**2; channel (2r + 1) * j + i is the mean over C of
        first[y, x] * second[y + j - r, x + i - r].
    """
    radius = max_displacement
    height, width = ops.shape(first)[1:3]
    padded = ops.pad(second, ((0, 0), (radius, radius), (radius, radius), (0, 0)))
    return ops.concatenate(
        [
            ops.mean(first * padded[:, j : j + height, i : i + width], axis=-1, keepdims=True)
            for j in range(2 * radius + 1)
            for i in range(2 * radius + 1)
        ],
        axis=-1,
    )


def correlation_3d(
    volume_t0: Tensor, volume_t1: Tensor, max_displacement: int, max_depth_displacement: int
) -> Tensor:
    """Correlation of two disparity cost volumes over both image axes and the disparity axis.

    Args:
        volume_t0: batch x H x W x C, one channel a disparity.
        volume_t1: the same shape.
        max_displacement: r, px, in x and in y.
        max_depth_displacement: D, channels.

    Returns:
        batch x H x W x ((2D + 1) * (2r + 1)**2): for k = -D..D the `correlation_2d` of volume_t0 with volume_t1 moved
        by k channels, so that channel c meets channel c + k, zero beyond the volume's ends.
    """
    depth = max_depth_displacement
    channels = volume_t1.shape[-1]
    padded = ops.pad(volume_t1, ((0, 0), (0, 0), (0, 0), (depth, depth)))
    return ops.concatenate(
        [
            correlation_2d(volume_t0, padded[..., k : k + channels], max_displacement)
            for k in range(2 * depth + 1)
        ],
        axis=-1,
    )
