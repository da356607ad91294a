"""Sampling of maps between pixels: backward warping along disparities and flows, and upsampling.

Coordinates and weights are always float32, because half precision cannot represent all columns of an image. Pixels are
gathered from the flattened map, which every inference engine supports.
"""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

_LARGEST_LOGIT = 30.0


def warp_along_disparity_zero_outside(image: Tensor, disparity: Tensor) -> Tensor:
    """Sample each row of `image` at x + disparity, linearly; zero outside the image.

    As published, the interpolation weights are distances to neighbors that were first clipped to the image. Hence the result
    is also zero where x + disparity is exactly the last column, and in the whole last row. The published weights were trained
    with this behavior.

    Args:
        image: batch x H x W x C.
        disparity: batch x H x W x 1, px of this image, with the network's sign: negative for points in front of the cameras if
            `image` is from the right camera.

    Returns:
        batch x H x W x C, in the dtype of `image`.
    """
    batch, height, width, channels = ops.shape(image)
    disparity = ops.cast(disparity, "float32")
    columns = ops.arange(width)[None, None, :, None]
    rows = ops.arange(height)[None, :, None, None]
    left = columns + whole_shift(disparity, width)
    left_clipped = ops.clip(left, 0, width - 1)
    right_clipped = ops.clip(left + 1, 0, width - 1)
    to_left = ops.cast(left_clipped - columns, "float32")
    to_right = ops.cast(right_clipped - columns, "float32")
    not_last_row = ops.cast(rows < height - 1, "float32")

    flat = ops.reshape(image, (-1, channels))
    row_start = ops.reshape(ops.arange(batch), (-1, 1, 1, 1)) * (height * width) + rows * width

    def at(column: Tensor) -> Tensor:
        return ops.cast(ops.take(flat, ops.squeeze(row_start + column, axis=-1), axis=0), "float32")

    warped = (to_right - disparity) * at(left_clipped) + (disparity - to_left) * at(right_clipped)
    return ops.cast(warped * not_last_row, image.dtype)


def whole_shift(displacement: Tensor, size: Tensor) -> Tensor:
    """Displacements rounded down to whole pixels, int32, limited to +-(size + 1).

    Positions are integers and kept apart from displacements, because an engine that computes in bfloat16 represents
    integers only up to 256.
    """
    reach = ops.cast(size + 1, "float32")
    return ops.cast(ops.clip(ops.floor(displacement), -reach, reach), "int32")


def warp_along_flow_border_replicated(image: Tensor, flow: Tensor) -> Tensor:
    """Sample `image` at (x + u, y + v), bilinearly, with its border replicated.

    Args:
        image: batch x H x W x C.
        flow: batch x H x W x 2 (u to the right, v down), px of this image.

    Returns:
        batch x H x W x C, in the dtype of `image`.
    """
    batch, height, width, channels = ops.shape(image)
    u, v = ops.split(ops.cast(flow, "float32"), 2, axis=-1)
    x_fraction, y_fraction = u - ops.floor(u), v - ops.floor(v)
    left = ops.arange(width)[None, None, :, None] + whole_shift(u, width)
    top = ops.arange(height)[None, :, None, None] + whole_shift(v, height)

    flat = ops.reshape(image, (-1, channels))
    image_start = ops.reshape(ops.arange(batch), (-1, 1, 1, 1)) * (height * width)

    def at(row: Tensor, column: Tensor) -> Tensor:
        row, column = ops.clip(row, 0, height - 1), ops.clip(column, 0, width - 1)
        index = ops.squeeze(image_start + row * width + column, axis=-1)
        return ops.cast(ops.take(flat, index, axis=0), "float32")

    above = (1.0 - x_fraction) * at(top, left) + x_fraction * at(top, left + 1)
    below = (1.0 - x_fraction) * at(top + 1, left) + x_fraction * at(top + 1, left + 1)
    return ops.cast((1.0 - y_fraction) * above + y_fraction * below, image.dtype)


def enlarge_bilinear(maps: Tensor, factor: int) -> Tensor:
    """Upsample maps bilinearly by a factor; values are not scaled, and the border is replicated.

    Output pixel i is at i / factor of the input, the default of TensorFlow 1 (align_corners = False).

    Args:
        maps: batch x H x W x C.
        factor: whole number, at least 1.

    Returns:
        batch x (H * factor) x (W * factor) x C.
    """
    batch, height, width, channels = ops.shape(maps)

    def phases(here: Tensor, after: Tensor) -> list[Tensor]:
        weights = [phase / factor for phase in range(factor)]
        return [here * (1.0 - weight) + after * weight for weight in weights]

    below = ops.concatenate([maps[:, 1:, :, :], maps[:, -1:, :, :]], axis=1)
    tall = ops.stack(phases(maps, below), axis=2)
    tall = ops.reshape(tall, (batch, height * factor, width, channels))
    right = ops.concatenate([tall[:, :, 1:, :], tall[:, :, -1:, :]], axis=2)
    wide = ops.stack(phases(tall, right), axis=3)
    return ops.reshape(wide, (batch, height * factor, width * factor, channels))


def enlarge_convex(maps: Tensor, logits: Tensor, factor: int) -> Tensor:
    """Upsample maps by a factor; each output pixel is a mixture of the 3 x 3 input pixels around it.

    Reference: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020, section 3.3.

    Args:
        maps: batch x H x W x C; the border is replicated.
        logits: batch x H x W x (factor * factor * 9); for each output pixel within an input pixel, row by row, the logits of the
            nine input pixels, row by row. Their softmax are the weights.
        factor: whole number, at least 1.

    Returns:
        batch x (H * factor) x (W * factor) x C.
    """
    batch, height, width, channels = ops.shape(maps)
    tall = ops.concatenate([maps[:, :1, :, :], maps, maps[:, -1:, :, :]], axis=1)
    padded = ops.concatenate([tall[:, :, :1, :], tall, tall[:, :, -1:, :]], axis=2)
    around = ops.stack(
        [
            padded[:, row : row + height, column : column + width, :]
            for row in range(3)
            for column in range(3)
        ],
        axis=3,
    )
    # Not ops.softmax, which takes engines three times as long over so few values. Limited instead of less their largest.
    logits = ops.reshape(logits, (batch, height, width, factor * factor, 9))
    weights = ops.exp(ops.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT))
    mixed = ops.matmul(weights, around) / ops.sum(weights, axis=-1, keepdims=True)
    mixed = ops.reshape(mixed, (batch, height, width, factor, factor, channels))
    mixed = ops.transpose(mixed, (0, 1, 3, 2, 4, 5))
    return ops.reshape(mixed, (batch, height * factor, width * factor, channels))
