"""Disparity of one stereo frame: a cost volume along rows at 1/8, a hourglass that corrects it, a last step at 1/4.

Disparities are px of the image in the network's sign, negative: x_right - x_left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from dwarf_ros.network.correlation.ops import correlation_1d
from dwarf_ros.network.lite.encoder import Features
from dwarf_ros.network.lite.layers import (
    Enlarge,
    Float32Layer,
    Refined,
    Scale,
    Shape,
    Split,
    best_index,
    concatenated,
    convolution,
    linear,
    projection,
    residual,
    unit,
)
from dwarf_ros.network.presets import LitePreset
from dwarf_ros.network.warping import warp_along_flow_border_replicated

Tensor = Any

SHARPNESS = 15.0
"""Factor of cosines before a softmax; what is learned starts at 1, so that it can change quickly."""

_IMPOSSIBLE = -1e4
_WINDOW = 2
_LOOKUP_RADIUS = 4


class Stereo(NamedTuple):
    """Disparities of a frame and what led to them.

    Attributes:
        eighth: batch x H / 8 x W / 8 x 1.
        certainty: of the matches at 1/8, the probability near the best one; in [0, 1].
        quarter: batch x H / 4 x W / 4 x 1, the estimate.
        hidden: features at 1/4.
        logits: of the candidates at 1/8, -(D - 1) .. 0 cells; for training.
        quarter_logits: of the candidates at 1/4, -4 .. 4 cells around the disparity at 1/8; for training.
    """

    eighth: Tensor
    certainty: Tensor
    quarter: Tensor
    hidden: Tensor
    logits: Tensor
    quarter_logits: Tensor


class DisparityVolume(Float32Layer):
    """Cosines of a left cell with the right cells of its row, D - 1 .. 0 cells to its left; 0 outside the image.

    Input: features of the left and right images. Output: batch x H x W x D.
    """

    def __init__(self, disparities: int, name: str) -> None:
        super().__init__(name)
        self.disparities = disparities

    def call(self, inputs: list[Tensor]) -> Tensor:
        """The volume: a band of the products of all cells of a row, sheared to be upright."""
        left, right = (unit(features) for features in inputs)
        batch, height, width, _ = ops.shape(left)
        margin = self.disparities - 1
        right = ops.pad(right, ((0, 0), (0, 0), (margin, 0), (0, 0)))
        cosines = ops.matmul(left, ops.transpose(right, (0, 1, 3, 2)))
        row = width + margin
        flat = ops.pad(
            ops.reshape(cosines, (batch, height, width * row)), ((0, 0), (0, 0), (0, width))
        )
        sheared = ops.reshape(flat, (batch, height, width, row + 1))
        return sheared[:, :, :, : self.disparities]

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """A channel per disparity."""
        return (*input_shape[0][:3], self.disparities)


class DisparityFromVolume(Float32Layer):
    """Mean disparity near the best match, weighted by the softmax of the corrected volume.

    Input: the volume and its correction. Output: the disparity (px of the image), the probability near the best match, and
    the logits.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)

    def build(self, input_shape: list[Shape]) -> None:
        """Make the sharpness."""
        self.sharpness = self.add_weight(shape=(1,), initializer="ones", name="sharpness")

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """As described above."""
        volume, correction = inputs
        # An open size leaves the number of channels of the sheared volume open, too.
        width, disparities = ops.shape(volume)[2], correction.shape[-1]
        candidates = np.arange(-(disparities - 1), 1, dtype=np.float32)
        columns = ops.cast(ops.arange(width), "float32")
        outside = ops.cast(columns[:, None] + candidates[None] < 0, "float32")
        logits = SHARPNESS * self.sharpness * volume + correction
        logits = logits + _IMPOSSIBLE * outside[None, None]
        best = ops.cast(best_index(logits), "float32")[..., None]
        # Offsets from the best match are small: half precision is enough for them.
        offsets = np.arange(disparities, dtype=np.float32) - best
        near = ops.cast(ops.abs(offsets) < _WINDOW + 0.5, "float32")
        largest = ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
        weights = ops.exp(logits - largest)
        total = ops.sum(weights * near, axis=-1, keepdims=True)
        mean = ops.sum(weights * near * offsets, axis=-1, keepdims=True) / total
        certainty = total / ops.sum(weights, axis=-1, keepdims=True)
        return 8.0 * (best - (disparities - 1) + mean), certainty, logits

    def compute_output_shape(self, input_shape: list[Shape]) -> tuple[Shape, Shape, Shape]:
        """Of the three."""
        one = (*input_shape[0][:3], 1)
        return one, one, input_shape[0]


class RowLookup(Float32Layer):
    """Cosines of left cells with right cells near a disparity.

    Input: features of left and right, and the disparity, px of the image. Output: the cosines of 2 r + 1 cells; the mean
    displacement, px of the image, by their softmax; the softmax's peak; and the logits.
    """

    def __init__(self, radius: int, cell: int, name: str) -> None:
        super().__init__(name)
        self.radius, self.cell = radius, cell

    def build(self, input_shape: list[Shape]) -> None:
        """Make the sharpness."""
        self.sharpness = self.add_weight(shape=(1,), initializer="ones", name="sharpness")

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As described above."""
        left, right, disparity = inputs
        left, right = unit(left), unit(right)
        shift = ops.stop_gradient(disparity) / self.cell
        shift = ops.concatenate([shift, ops.zeros_like(shift)], axis=-1)
        right = warp_along_flow_border_replicated(right, shift)
        cosines = correlation_1d(left, right, self.radius) * left.shape[-1]
        logits = cosines * (SHARPNESS * self.sharpness)
        match = ops.softmax(logits, axis=-1)
        steps = np.arange(-self.radius, self.radius + 1, dtype=np.float32)[:, None] * self.cell
        return cosines, ops.matmul(match, steps), ops.max(match, axis=-1, keepdims=True), logits

    def compute_output_shape(self, input_shape: list[Shape]) -> tuple[Shape, Shape, Shape, Shape]:
        """Of the four."""
        size = input_shape[0][:3]
        side = 2 * self.radius + 1
        return (*size, side), (*size, 1), (*size, 1), (*size, side)


def match_stereo(left: Features, right: Features, preset: LitePreset) -> Stereo:
    """Disparity of rectified frames."""
    volume = DisparityVolume(preset.disparities, name="stereo.volume")([left.eighth, right.eighth])
    x = _hourglass(volume, left.eighth)
    correction = linear(x, preset.disparities, "stereo.correction")
    eighth, certainty, logits = DisparityFromVolume(name="stereo.disparity")([volume, correction])
    fine = Scale(8.0, name="stereo.fine_scaled")(linear(x, 1, "stereo.fine"))
    eighth = keras.layers.Add(dtype="float32")([eighth, fine])

    coarse = Enlarge(2, name="stereo.enlarged")(eighth)
    context = Enlarge(2, name="quarter.context")(projection(24, "stereo.hidden")(x))
    left_quarter, right_quarter = _quarter_features(left, right)
    cosines, found, peak, quarter_logits = RowLookup(_LOOKUP_RADIUS, 4, name="quarter.lookup")(
        [left_quarter, right_quarter, coarse]
    )
    known = concatenated(coarse, found, dtype="float32")
    x = concatenated(
        Scale(4.0, name="quarter.cosines")(cosines),
        left_quarter,
        context,
        Scale(1 / 20, name="quarter.known")(known),
        peak,
    )
    x = convolution(x, 48, "quarter.0")
    x = convolution(x, 32, "quarter.1", dilation=2)
    hidden = convolution(x, 32, "quarter.2")
    gate, fine = Split(1, name="quarter.split", gate=True)(linear(hidden, 2, "quarter.head"))
    quarter = Refined(4.0, name="quarter.refined")([coarse, found, gate, fine])
    return Stereo(eighth, certainty, quarter, hidden, logits, quarter_logits)


def _hourglass(volume: Tensor, features: Tensor) -> Tensor:
    """Features at 1/8 that have seen the volume at 1/8, 1/16 and 1/32."""
    volume = Scale(4.0, name="stereo.scaled")(volume)
    features = convolution(features, 48, "stereo.features", kernel=1)
    x = convolution(concatenated(volume, features), 64, "stereo.in")
    eighth = residual(x, 64, "stereo.a")
    x = convolution(eighth, 96, "stereo.down_4", stride=2)
    sixteenth = residual(x, 96, "stereo.b")
    x = convolution(sixteenth, 128, "stereo.down_5", stride=2)
    x = residual(x, 128, "stereo.c0")
    x = residual(x, 128, "stereo.c1", dilation=2)
    x = Enlarge(2, name="stereo.up_4")(projection(96, "stereo.to_4")(x))
    x = residual(keras.layers.Add()([sixteenth, x]), 96, "stereo.d")
    x = Enlarge(2, name="stereo.up_3")(projection(64, "stereo.to_3")(x))
    return convolution(keras.layers.Add()([eighth, x]), 64, "stereo.e")


def _quarter_features(left: Features, right: Features) -> list[Tensor]:
    """Features to match at 1/4: those of the stem, and what 1/8 knows."""
    reduce, enlarge = projection(24, "quarter.eighth"), Enlarge(2, name="quarter.enlarged")
    mix = projection(32, "quarter.mix")
    return [
        mix(concatenated(image.quarter, enlarge(reduce(image.eighth)))) for image in (left, right)
    ]
