"""Layers of `dwarf_lite_v2`, in keras.ops.

Coordinates, similarities and motions are float32 whatever the network computes in. A cell of the grid at 1/k of the image is
at the image's pixel k * (column, row).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from dwarf_ros.network.warping import (
    enlarge_bilinear,
    enlarge_convex,
    warp_along_flow_border_replicated,
)

Tensor = Any
Shape = tuple[int | None, ...]

NEGATIVE_SLOPE = 0.1


class Float32Layer(keras.layers.Layer):
    """A layer that computes in float32 under every policy."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__(name=name, dtype="float32")


class InstanceNormalization(keras.layers.Layer):
    """Zero mean and unit variance over each image's pixels, per channel, then a learned scale and offset.

    Reference: Ulyanov et al., "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016.
    """

    def build(self, input_shape: Shape) -> None:
        """Make the scale and the offset."""
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")
        self.offset = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="offset")

    def call(self, x: Tensor) -> Tensor:
        """Batch x H x W x C, in the dtype of the input; statistics are float32."""
        values = ops.cast(x, "float32")
        mean = ops.mean(values, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(values), axis=(1, 2), keepdims=True) - ops.square(mean)
        factor = ops.rsqrt(ops.maximum(variance, 0.0) + 1e-5) * ops.cast(self.scale, "float32")
        shift = ops.cast(self.offset, "float32") - mean * factor
        return x * ops.cast(factor, x.dtype) + ops.cast(shift, x.dtype)


class Enlarge(Float32Layer):
    """Bilinear enlargement by a whole factor."""

    def __init__(self, factor: int, name: str) -> None:
        super().__init__(name)
        self.factor = factor

    def call(self, maps: Tensor) -> Tensor:
        """Batch x factor H x factor W x C."""
        return enlarge_bilinear(maps, self.factor)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """H and W times the factor."""
        return enlarged_shape(input_shape, self.factor)


class EnlargeConvex(Float32Layer):
    """Enlargement in which each pixel is a learned mixture of the 3 x 3 cells around it; see `enlarge_convex`."""

    def __init__(self, factor: int, name: str) -> None:
        super().__init__(name)
        self.factor = factor

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Batch x factor H x factor W x C, of the maps and the logits of the mixture."""
        maps, logits = inputs
        return enlarge_convex(maps, logits, self.factor)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """H and W times the factor."""
        return enlarged_shape(input_shape[0], self.factor)


def enlarged_shape(shape: Shape, factor: int) -> Shape:
    """Shape of a map that is `factor` times as high and wide."""
    batch, *size, channels = shape
    return (batch, *(side and side * factor for side in size), channels)


class LeakySum(keras.layers.Layer):
    """Leaky ReLU of a sum.

    Not by `leaky_relu`: TensorFlow 2.21 fuses a convolution, a sum and a leaky ReLU on the CPU and loses the ReLU's slope.
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        """The shape of both."""
        total = inputs[0] + inputs[1]
        return ops.maximum(total, NEGATIVE_SLOPE * total)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """As the first."""
        return input_shape[0]


class Subsample(Float32Layer):
    """Every `step`-th cell of a grid: the cells that the coarser grid has too."""

    def __init__(self, step: int, name: str) -> None:
        super().__init__(name)
        self.step = step

    def call(self, maps: Tensor) -> Tensor:
        """Batch x H / step x W / step x C."""
        return maps[:, :: self.step, :: self.step, :]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """H and W divided by the step, rounded up."""
        batch, *size, channels = input_shape
        return (batch, *(side and -(-side // self.step) for side in size), channels)


class Scale(Float32Layer):
    """Values times a constant."""

    def __init__(self, factor: float, name: str) -> None:
        super().__init__(name)
        self.factor = factor

    def call(self, maps: Tensor) -> Tensor:
        """The same shape."""
        return maps * self.factor

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """As the input."""
        return input_shape


class Split(Float32Layer):
    """The first channels and the others; the first after a sigmoid where they are a gate."""

    def __init__(self, first: int, name: str, gate: bool = False) -> None:
        super().__init__(name)
        self.first, self.gate = first, gate

    def call(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps."""
        first, others = maps[:, :, :, : self.first], maps[:, :, :, self.first :]
        return (ops.sigmoid(first) if self.gate else first), others

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape]:
        """Of the two maps."""
        *size, channels = input_shape
        return (*size, self.first), (*size, channels and channels - self.first)


class Refined(Float32Layer):
    """A motion plus a gated displacement plus a correction: base + gate * found + scale * correction."""

    def __init__(self, scale: float, name: str) -> None:
        super().__init__(name)
        self.scale = scale

    def call(self, inputs: list[Tensor]) -> Tensor:
        """The refined motion, px of the image, of base, found, gate and correction."""
        base, found, gate, correction = inputs
        return base + gate * found + self.scale * correction

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """As the base."""
        return input_shape[0]


class Mix(Float32Layer):
    """A mixture of candidate motions, plus a correction.

    Input: the candidates side by side (batch x H x W x K C), the logits of their weights (K) and the correction (C).
    """

    def __init__(self, channels: int, scale: float, name: str) -> None:
        super().__init__(name)
        self.channels, self.scale = channels, scale

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Batch x H x W x C."""
        candidates, logits, correction = inputs
        weights = ops.softmax(logits, axis=-1)
        total = self.scale * correction
        for index in range(logits.shape[-1]):
            first = index * self.channels
            candidate = candidates[:, :, :, first : first + self.channels]
            total = total + weights[:, :, :, index : index + 1] * candidate
        return total

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """As the correction."""
        return (*input_shape[0][:3], self.channels)


class Fill(Float32Layer):
    """Weighted means of a motion over windows of growing size: what unreliable cells take from reliable ones around."""

    def __init__(self, sides: tuple[int, ...], name: str) -> None:
        super().__init__(name)
        self.sides = sides

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Batch x H x W x (len(sides) C), of the motion (C) and its weights (1)."""
        values, weights = inputs
        channels = values.shape[-1]
        weights = weights + 1e-3
        both = ops.concatenate([values * weights, weights], axis=-1)
        means = []
        for side in self.sides:
            sums = ops.average_pool(both, (side, 1), 1, padding="same")
            sums = ops.average_pool(sums, (1, side), 1, padding="same")
            means.append(sums[:, :, :, :channels] / sums[:, :, :, channels:])
        return ops.concatenate(means, axis=-1)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """A motion per side."""
        *size, channels = input_shape[0]
        return (*size, channels and channels * len(self.sides))


class Warp(Float32Layer):
    """Maps sampled where a flow (px of the image) leads, on a grid with cells of so many pixels."""

    def __init__(self, cell: int, name: str) -> None:
        super().__init__(name)
        self.cell = cell

    def call(self, inputs: list[Tensor]) -> Tensor:
        """The maps at the flow's start."""
        maps, flow = inputs
        return warp_along_flow_border_replicated(maps, flow / self.cell)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """As the maps."""
        return input_shape[0]


class Inside(Float32Layer):
    """1 where a flow (px of the image) stays in the grid, -1 outside, between them within a cell of the border."""

    def __init__(self, cell: int, name: str) -> None:
        super().__init__(name)
        self.cell = cell

    def call(self, flow: Tensor) -> Tensor:
        """Batch x H x W x 1."""
        _, height, width, _ = ops.shape(flow)
        x = ops.cast(ops.arange(width), "float32")[None, None, :] + flow[:, :, :, 0] / self.cell
        y = ops.cast(ops.arange(height), "float32")[None, :, None] + flow[:, :, :, 1] / self.cell
        right, bottom = ops.cast(width - 1, "float32"), ops.cast(height - 1, "float32")
        margin = ops.minimum(ops.minimum(x, right - x), ops.minimum(y, bottom - y))
        return ops.clip(margin + 1.0, -1.0, 1.0)[..., None]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """One channel."""
        return (*input_shape[:3], 1)


class SplitBatch(keras.layers.Layer):
    """A stack of images split into equal parts along the batch; with `pairs`, every second part is joined."""

    def __init__(self, parts: int, name: str, dtype: str | None = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.parts = parts

    def call(self, stacked: Tensor) -> tuple[Tensor, ...]:
        """The parts, in order."""
        return tuple(ops.split(stacked, self.parts, axis=0))

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, ...]:
        """Of each part."""
        batch = input_shape[0] and input_shape[0] // self.parts
        return ((batch, *input_shape[1:]),) * self.parts


def unit(features: Tensor) -> Tensor:
    """Features of unit length, float32: their products are cosines."""
    features = ops.cast(features, "float32")
    return features * ops.rsqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + 1e-6)


def best_index(values: Tensor) -> Tensor:
    """Index of the largest value of the last axis, int32.

    Not `ops.argmax`, for which Keras emits an operation (Bitcast) that OpenVINO does not know.
    """
    return ops.cast(ops.top_k(values, 1)[1][..., 0], "int32")


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with the network's slope."""
    return ops.leaky_relu(x, negative_slope=NEGATIVE_SLOPE)


def convolution(
    x: Tensor, channels: int, name: str, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Convolution and leaky ReLU; with stride 2, cell i is centered on cell 2 i of the input."""
    if stride == 2:
        x = keras.layers.ZeroPadding2D(kernel // 2)(x)
    return keras.layers.Conv2D(
        channels,
        kernel,
        strides=stride,
        dilation_rate=dilation,
        padding="valid" if stride == 2 else "same",
        activation=leaky_relu,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def linear(x: Tensor, channels: int, name: str, kernel: int = 3, gain: float = 0.1) -> Tensor:
    """Convolution without activation, of initial variance `gain` / fan-in."""
    initializer = keras.initializers.VarianceScaling(gain, "fan_in")
    return keras.layers.Conv2D(
        channels, kernel, padding="same", kernel_initializer=initializer, name=name
    )(x)


def projection(channels: int, name: str) -> Callable[[Tensor], Tensor]:
    """A 1x1 convolution without activation, which may be applied to several maps."""
    return keras.layers.Conv2D(channels, 1, name=name)


def residual(x: Tensor, channels: int, name: str, dilation: int = 1) -> Tensor:
    """Residual block of two convolutions.

    Reference: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """
    y = convolution(x, channels, f"{name}.0", dilation=dilation)
    y = linear(y, channels, f"{name}.1", gain=0.3)
    return LeakySum(name=f"{name}.relu")([x, y])


def concatenated(*maps: Tensor, dtype: str | None = None) -> Tensor:
    """Maps joined along their channels; dtype None is that of the network."""
    return keras.layers.Concatenate(dtype=dtype)(list(maps))


def window(radius: int, cell: int = 1) -> np.ndarray:
    """Displacements of a window, row by row: float32 (2 radius + 1)**2 x 2 of (x, y), times `cell`."""
    steps = np.arange(-radius, radius + 1, dtype=np.float32) * cell
    return np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
