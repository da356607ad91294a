"""Scene flow from correlations alone: the mean of all candidate displacements, weighted by a softmax over their correlations.

The logits are outputs too, because training compares them with the true displacements.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from dwarf_ros.network.presets import SCALE_FACTOR
from dwarf_ros.network.warping import warp_along_flow_border_replicated

Tensor = Any

_INITIAL_SHARPNESS = {"global": 20.0, "local": 10.0}
"""Factor of the correlations before the softmax. It multiplies a learned factor that starts at 1, so that it can change
quickly."""

_IMPOSSIBLE = -1e4
"""Logit of impossible matches."""


def normalize_channels(features: Tensor) -> Tensor:
    """Features with zero mean and unit variance over the channels of each pixel; constant features become zero."""
    centered = features - ops.mean(features, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centered), axis=-1, keepdims=True)
    return centered * ops.rsqrt(variance + 1e-4)


class GlobalMatching(keras.layers.Layer):
    """Scene flow from the correlations of all pairs of pixels, and the probability of each match.

    Input: features of left_t0, right_t0, left_t1, right_t1 (batch x H x W x C). The disparity at t1 is matched for the pixels of
    left_t1 and looked up along the flow. Output, float32:

    - scene flow, batch x H x W x 4, full-resolution px / SCALE_FACTOR;
    - the probability of the best match for disparity, disparity at t1 and flow, batch x H x W x 3;
    - logits of the candidates for the disparity, the columns of right_t0, batch x H x W x W;
    - logits of the candidates for the flow, the pixels of left_t1 row by row, batch x (H * W) x (H * W).

    Reference: Xu et al., "GMFlow: Learning Optical Flow via Global Matching", CVPR 2022, section 3.2.
    """

    def __init__(self, level: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.level = level
        self.sharpness = self.add_weight(shape=(2,), initializer="ones", name="sharpness")

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scene flow, probabilities and logits, as described above."""
        left_t0, right_t0, left_t1, right_t1 = map(normalize_channels, inputs)
        of_stereo, of_flow = ops.split(_INITIAL_SHARPNESS["global"] * self.sharpness, 2)
        disparity, sure, stereo_logits = _match_rows(left_t0, right_t0, of_stereo)
        disparity_t1, sure_t1, _ = _match_rows(left_t1, right_t1, of_stereo)
        flow, sure_flow, flow_logits = _match_images(left_t0, left_t1, of_flow)
        at_t1 = warp_along_flow_border_replicated(
            ops.concatenate([disparity_t1, sure_t1], axis=-1), flow
        )
        disparity_change, sure_change = ops.split(at_t1, 2, axis=-1)
        scene_flow = ops.concatenate([disparity, disparity_change, flow], axis=-1)
        return (
            scene_flow * (2**self.level / SCALE_FACTOR),
            ops.concatenate([sure, sure_change, sure_flow], axis=-1),
            stereo_logits,
            flow_logits,
        )

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """Shapes of scene flow, probabilities and logits."""
        batch, height, width, _ = input_shape[0]
        pixels = height * width if height and width else None
        size = (batch, height, width)
        return (*size, 4), (*size, 3), (*size, width), (batch, pixels, pixels)


class LocalMatching(keras.layers.Layer):
    """Scene flow close to a given one, from the correlations of `CostVolumes`.

    Input: the volumes, batch x H x W x N, and the scene flow at their center, batch x H x W x 4 (full-resolution
    px / SCALE_FACTOR).

    Output, float32: the scene flow in the same form, and the logits of the candidates, batch x H x W x
    (2 (2r + 1) + (2r + 1)**2): displacements up to r pixels of the level for the disparity, the disparity at t1 and the flow (y
    outer, x inner).
    """

    def __init__(self, level: int, radius: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.level, self.radius = level, radius
        self.sharpness = self.add_weight(shape=(3,), initializer="ones", name="sharpness")

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Scene flow and logits, as described above."""
        volumes, center = inputs
        side = 2 * self.radius + 1
        steps = np.arange(-self.radius, self.radius + 1, dtype=np.float32)
        plane = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
        candidates = (steps[:, None], steps[:, None], plane)
        correlations = (
            volumes[:, :, :, :side],
            volumes[:, :, :, side : 2 * side],
            volumes[:, :, :, -(side**2) :],
        )
        factors = ops.split(_INITIAL_SHARPNESS["local"] * self.sharpness, 3)
        logits = [c * factor for c, factor in zip(correlations, factors, strict=True)]
        found = [
            ops.matmul(ops.softmax(values, axis=-1), places)
            for values, places in zip(logits, candidates, strict=True)
        ]
        step = 2**self.level / SCALE_FACTOR
        return center + step * ops.concatenate(found, axis=-1), ops.concatenate(logits, axis=-1)

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """Shapes of scene flow and logits."""
        side = 2 * self.radius + 1
        return input_shape[1], (*input_shape[1][:3], 2 * side + side**2)


def _match_rows(left: Tensor, right: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Disparity (negative), its probability and its logits; a match to the right of the pixel's column is impossible."""
    width, channels = ops.shape(left)[2], left.shape[-1]
    correlation = ops.matmul(left, ops.transpose(right, (0, 1, 3, 2))) / channels
    columns = ops.cast(ops.arange(width), "float32")
    behind = ops.cast(columns[None, :] > columns[:, None], "float32")
    logits = correlation * sharpness + _IMPOSSIBLE * behind
    match = ops.softmax(logits, axis=-1)
    disparity = ops.matmul(match, columns[:, None]) - columns[None, None, :, None]
    return disparity, ops.max(match, axis=-1, keepdims=True), logits


def _match_images(
    first: Tensor, second: Tensor, sharpness: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Flow, its probability and its logits."""
    batch, height, width, _ = ops.shape(first)
    channels = first.shape[-1]
    size = (batch, height * width, channels)
    first, second = ops.reshape(first, size), ops.reshape(second, size)
    logits = ops.matmul(first, ops.transpose(second, (0, 2, 1))) / channels * sharpness
    match = ops.softmax(logits, axis=-1)
    x = ops.tile(ops.cast(ops.arange(width), "float32")[None, :], (height, 1))
    y = ops.tile(ops.cast(ops.arange(height), "float32")[:, None], (1, width))
    places = ops.reshape(ops.stack([x, y], axis=-1), (height * width, 2))
    flow = ops.reshape(ops.matmul(match, places) - places[None], (batch, height, width, 2))
    sure = ops.max(match, axis=-1, keepdims=True)
    return flow, ops.reshape(sure, (batch, height, width, 1)), logits
