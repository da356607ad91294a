"""Images to the network's input, and the network's output to maps: padding, scaling, names and signs.

The network takes float32 images in [0, 1] whose sides are multiples of 64 px. Its disparities are x_right - x_left, negative
for points in front of the cameras, and `disparity_change` is the disparity at t1, not a difference. Everywhere else in this
package disparities are x_left - x_right, positive, and the second one is called `disparity_next`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from dwarf_ros.network.presets import SIZE_MULTIPLE
from dwarf_ros.types import InputError

INPUTS = ("left_t0", "right_t0", "left_t1", "right_t1")
"""Names of the four images, in the order in which the network stacks them."""

OUTPUTS = ("disparity", "disparity_change", "forward_flow")
"""Names of the network's outputs, in the order of an exported graph's outputs."""

SIGNS = np.array([-1, -1, 1, 1], np.float32)
"""Between (disparity, disparity_next, u, v) and the concatenated `OUTPUTS`; a factor, in either direction."""

_Images = TypeVar("_Images")


def check_size(height: int | None, width: int | None) -> None:
    """Raise InputError unless the sides, px, are multiples of 64 px or None, which is any."""
    for side, length in (("height", height), ("width", width)):
        if length is not None and (length <= 0 or length % SIZE_MULTIPLE):
            raise InputError(f"{side}: {length} px, expected a multiple of {SIZE_MULTIPLE} px")


def padding(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows to add above and below an image, and columns left and right, so that it fits the network.

    Both sides become multiples of 64 px; an odd pixel goes to the bottom or right.
    """
    rows, columns = -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)


def encode(images: np.ndarray) -> dict[str, np.ndarray]:
    """The network's inputs for batches of images, reflected at their borders where the size does not fit.

    Args:
        images: uint8 RGB, batch x 4 x H x W x 3; the four are in the order of `INPUTS`.

    Returns:
        For each of `INPUTS`, float32 batch x H' x W' x 3 in [0, 1]; H' and W' are H and W rounded up to multiples of 64.
    """
    margins = padding(*images.shape[2:4])
    if any(map(any, margins)):
        images = np.pad(images, ((0, 0), (0, 0), *margins, (0, 0)), mode="reflect")
    return by_name(images.astype(np.float32) / np.float32(255))


def by_name(images: _Images) -> dict[str, _Images]:
    """The four images of each item of a batch, an array or tensor batch x 4 x H x W x 3, by the names in `INPUTS`."""
    return {name: images[:, index] for index, name in enumerate(INPUTS)}  # type: ignore[index]


def decode(
    outputs: Mapping[str, np.ndarray], height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps of the pixels of left_t0, cropped to the size of the images that `encode` was given.

    Args:
        outputs: of the network, by the names in `OUTPUTS`, batch x H' x W' x C, px.
        height: of the images, px.
        width: of the images, px.

    Returns:
        disparity and disparity_next, batch x H x W, px, x_left - x_right; not positive where the network found none. And
        the flow (u, v), batch x H x W x 2, px, u to the right, v downwards. All float32.
    """
    (top, _), (left, _) = padding(height, width)
    disparity, disparity_next, flow = (
        np.asarray(outputs[name], np.float32)[:, top : top + height, left : left + width]
        for name in OUTPUTS
    )
    return -disparity[..., 0], -disparity_next[..., 0], np.ascontiguousarray(flow)
