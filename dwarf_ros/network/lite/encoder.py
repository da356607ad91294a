"""The encoder of `dwarf_lite_v2`, small enough to be distilled from a strong teacher's in minutes."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from dwarf_ros.network.lite.layers import (
    Enlarge,
    Float32Layer,
    InstanceNormalization,
    Shape,
    concatenated,
    projection,
)
from dwarf_ros.network.presets import LitePreset

Tensor = Any

# Of ImageNet's images, RGB in [0, 1].
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """Features of images, batch x H / k x W / k x C.

    Attributes:
        quarter: k = 4, of the stem; for detail.
        eighth: k = 8, to be matched by their cosines.
        sixteenth: k = 16, likewise.
    """

    quarter: Tensor
    eighth: Tensor
    sixteenth: Tensor


class HalfSize(Float32Layer):
    """Images at half the size, normalized; from RGB in [0, 1]."""

    def call(self, images: Tensor) -> Tensor:
        """Batch x H / 2 x W / 2 x 3."""
        half = ops.average_pool(images, 2, 2)
        return (half - np.array(_MEAN, np.float32)) / np.array(_DEVIATION, np.float32)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Half of H and W."""
        batch, *size, channels = input_shape
        return (batch, *(side and side // 2 for side in size), channels)


def encode(images: Tensor, preset: LitePreset) -> Features:
    """Features of images.

    Args:
        images: batch x H x W x 3, float32 RGB in [0, 1]; H and W multiples of 64.
        preset: sizes of the network.
    """
    stem, second, third, fourth = preset.encoder_channels
    x = _convolution(HalfSize(name="encoder.half_size")(images), stem, "stem")
    quarter = _convolution(x, second, "level_2", stride=2)
    x = _convolution(quarter, third, "level_3", stride=2)
    x = _block(x, third, "level_3.block_0")
    eighth = _block(x, third, "level_3.block_1")
    x = _convolution(eighth, fourth, "level_4", stride=2)
    x = _block(x, fourth, "level_4.block_0")
    x = _block(x, fourth, "level_4.block_1", dilation=2)
    sixteenth = projection(preset.feature_channels, "encoder.out_4")(x)
    # What is matched at 1/8 sees as far as what is matched at 1/16.
    far = Enlarge(2, name="encoder.enlarged")(projection(third, "encoder.up_3")(x))
    both = concatenated(eighth, far)
    return Features(quarter, projection(preset.feature_channels, "encoder.out_3")(both), sixteenth)


def _convolution(
    x: Tensor, channels: int, name: str, stride: int = 1, dilation: int = 1, activated: bool = True
) -> Tensor:
    name = f"encoder.{name}"
    if stride == 2:
        x = keras.layers.ZeroPadding2D(1)(x)
    x = keras.layers.Conv2D(
        channels,
        3,
        strides=stride,
        dilation_rate=dilation,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)
    x = InstanceNormalization(name=f"{name}.norm")(x)
    return keras.layers.ReLU()(x) if activated else x


def _block(x: Tensor, channels: int, name: str, dilation: int = 1) -> Tensor:
    y = _convolution(x, channels, f"{name}.0", dilation=dilation)
    y = _convolution(y, channels, f"{name}.1", dilation=dilation, activated=False)
    return keras.layers.ReLU()(keras.layers.Add()([x, y]))
