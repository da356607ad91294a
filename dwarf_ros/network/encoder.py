"""The feature pyramid of one image."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dwarf_ros.network.initializers import he_normal
from dwarf_ros.network.presets import NEGATIVE_SLOPE, Preset

Tensor = Any


def leaky_relu(x: Tensor) -> Tensor:
    """Leaky ReLU with the network's slope."""
    return ops.leaky_relu(x, negative_slope=NEGATIVE_SLOPE)


def activated_convolution(
    x: Tensor, channels: int, name: str, stride: int = 1, dilation: int = 1
) -> Tensor:
    """3x3 convolution and leaky ReLU of batch x H x W x C."""
    return keras.layers.Conv2D(
        channels,
        3,
        strides=stride,
        dilation_rate=dilation,
        padding="same",
        activation=leaky_relu,
        kernel_initializer=he_normal(),
        name=name,
    )(x)


def encode(images: Tensor, preset: Preset) -> list[Tensor]:
    """Features of all levels, starting at level 1.

    Args:
        images: batch x H x W x 3, float in [0, 1]; H and W multiples of 64.
        preset: the sizes of the network.

    Returns:
        Item l - 1 is level l: batch x H / 2**l x W / 2**l x channels.
    """
    pyramid = []
    features = images
    depths = zip(preset.encoder_channels, preset.encoder_convolutions, strict=True)
    for level, (channels, convolutions) in enumerate(depths, start=1):
        scope = f"Encoder.level_{level}"
        features = activated_convolution(features, channels, f"{scope}.Conv", stride=2)
        for index in range(1, convolutions):
            features = activated_convolution(features, channels, f"{scope}.Conv_{index}")
        pyramid.append(features)
    return pyramid
