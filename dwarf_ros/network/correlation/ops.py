"""Correlations of feature maps over a range of displacements, zero outside the image.

Slices name all four axes, here and in the rest of the network: OpenVINO 2026.4 corrupts memory when it compiles a graph
with several shorter slices of one tensor.
"""

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
    return _correlation(left, right, 0, max_displacement)


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
    return _correlation(first, second, max_displacement, max_displacement)


def correlation_3d(
    volume_t0: Tensor, volume_t1: Tensor, max_displacement: int, max_depth_displacement: int
) -> Tensor:
    """Correlation of two disparity cost volumes over both image axes and the disparity axis.

    Args:
        volume_t0: batch x H x W x C, one channel per disparity.
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
            correlation_2d(volume_t0, padded[:, :, :, k : k + channels], max_displacement)
            for k in range(2 * depth + 1)
        ],
        axis=-1,
    )


def cost_volumes(
    left_t0: Tensor,
    right_t0: Tensor,
    left_t1: Tensor,
    right_t1: Tensor,
    max_displacement: int,
    max_depth_displacement: int,
    negative_slope: float,
) -> Tensor:
    """The cost volumes of one level of the network.

    Args:
        left_t0: features, batch x H x W x C.
        right_t0: the same shape, as the others.
        left_t1: warped to left_t0 along the flow so far.
        right_t1: likewise.
        max_displacement: r, px.
        max_depth_displacement: D, channels.
        negative_slope: of the leaky ReLU after each volume; 1 disables it.

    Returns:
        batch x H x W x N, side by side: stereo at t0 and at t1 (2r + 1 channels each), the 3D correlation of the two
        ((2D + 1) * (2r + 1)**2) and flow ((2r + 1)**2).
    """

    def activated(volume: Tensor) -> Tensor:
        return volume if negative_slope == 1 else ops.leaky_relu(volume, negative_slope)

    stereo_t0 = activated(correlation_1d(left_t0, right_t0, max_displacement))
    stereo_t1 = activated(correlation_1d(left_t1, right_t1, max_displacement))
    temporal = correlation_3d(stereo_t0, stereo_t1, max_displacement, max_depth_displacement)
    flow = correlation_2d(left_t0, left_t1, max_displacement)
    return ops.concatenate([stereo_t0, stereo_t1, activated(temporal), activated(flow)], axis=-1)


def _correlation(first: Tensor, second: Tensor, reach_y: int, reach_x: int) -> Tensor:
    """Mean over C of first[y, x] * second[y + j, x + i], a channel for each |j| <= reach_y (outer) and |i| <= reach_x.

    Rows are cut into tiles of 2 * reach_x pixels. All candidates of a tile lie in a window of two tiles, so one matrix product
    per row of displacements replaces a product and a sum per displacement. This computes nearly twice what is needed, but
    takes half the time forward and a third of the time backward on a CPU, and the graph is six times smaller.
    """
    batch, height, width, _ = ops.shape(first)
    channels = first.shape[-1]
    side = 2 * reach_x + 1
    tile = max(2 * reach_x, 1)
    tiles = (width + tile - 1) // tile
    tiled_width = tiles * tile

    def cut(rows: Tensor) -> Tensor:
        return ops.reshape(rows, (batch, -1, tile, channels))

    # ops.slice, whose gradient TensorFlow computes several times faster than that of indexing.
    first = ops.pad(first, ((0, 0), (0, 0), (0, tile), (0, 0)))
    first = cut(ops.slice(first, (0, 0, 0, 0), (batch, height, tiled_width, channels)))
    second = ops.pad(second, ((0, 0), (reach_y, reach_y), (reach_x, 2 * tile), (0, 0)))
    rows = (batch, height + 2 * reach_y, tiled_width, channels)
    windows = ops.concatenate(
        [cut(ops.slice(second, (0, 0, start, 0), rows)) for start in (0, tile)], axis=2
    )
    windows = ops.transpose(windows, (0, 1, 3, 2))
    size = (batch, height * tiles, channels, 2 * tile)
    products = [
        ops.matmul(first, ops.slice(windows, (0, j * tiles, 0, 0), size))
        for j in range(2 * reach_y + 1)
    ]
    # Pixel t of a tile is matched with columns t to t + 2 * reach_x of its window: a diagonal band. Reading the flattened
    # product in rows that are one column longer shifts row t by t columns to the left, so the band is the first columns.
    flat = ops.stack([ops.reshape(product, (-1, 2 * tile**2)) for product in products], axis=1)
    flat = ops.pad(flat, ((0, 0), (0, 0), (0, tile)))
    band = ops.reshape(flat, (-1, len(products), tile, 2 * tile + 1))
    band = ops.slice(band, (0, 0, 0, 0), (batch * height * tiles, len(products), tile, side))
    band = ops.transpose(band, (0, 2, 1, 3))
    band = ops.reshape(band, (batch, height, tiled_width, len(products) * side))
    size = (batch, height, width, len(products) * side)
    return ops.slice(band, (0, 0, 0, 0), size) / channels
