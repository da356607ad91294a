"""From four feature pyramids to scene flow, coarse to fine.

Scene-flow channels are always disparity, disparity_change, u, v, where disparity_change is the disparity at t1 of the
pixels of left_t0 and not a difference. Inside the network they are full-resolution pixels divided by SCALE_FACTOR, with
disparities negative.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dwarf_ros.network.cost_volumes import correlation_1d, correlation_2d, correlation_3d
from dwarf_ros.network.encoder import activated_convolution, leaky_relu
from dwarf_ros.network.initializers import Initializer, bilinear, fan_in_normal
from dwarf_ros.network.presets import COARSEST_LEVEL, SCALE_FACTOR, Preset
from dwarf_ros.network.warping import (
    enlarge_bilinear,
    warp_along_disparity_zero_outside,
    warp_along_flow_border_replicated,
)

Tensor = Any

MODALITIES = {"disparity": 1, "disparity_change": 1, "optical_flow": 2}
"""Channels of each of the three estimates, in the order of the scene-flow channels."""


def normalize_channels(features: Tensor) -> Tensor:
    """Features with zero mean and unit variance over the channels of each pixel; constant ones become zero."""
    centred = features - ops.mean(features, axis=-1, keepdims=True)
    variance = ops.mean(ops.square(centred), axis=-1, keepdims=True)
    return centred * ops.rsqrt(variance + 1e-4)


class CostVolumes(keras.layers.Layer):
    """Warps the features of one level with the coarser level's scene flow and correlates them.

    Input: features of left_t0, right_t0, left_t1, right_t1 (batch x H x W x C) and, below the coarsest level, the
    upsampled scene flow (batch x H x W x 4). Output: batch x H x W x N, the activated volumes of stereo at t0, stereo
    at t1, both over time (3D), and flow. Always float32, because coordinates are.
    """

    def __init__(self, preset: Preset, level: int, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.preset = preset
        self.level = level

    def call(self, inputs: list[Tensor]) -> Tensor:
        """The volumes, as described above."""
        left_t0, right_t0, left_t1, right_t1 = inputs[:4]
        if len(inputs) == 5:
            scene_flow = inputs[4] * (SCALE_FACTOR / 2**self.level)
            disparity, disparity_change, u, v = ops.split(scene_flow, 4, axis=-1)
            flow = ops.concatenate([u, v], axis=-1)
            flow_to_right = ops.concatenate([u + disparity_change, v], axis=-1)
            right_t0 = warp_along_disparity_zero_outside(right_t0, disparity)
            left_t1 = warp_along_flow_border_replicated(left_t1, flow)
            right_t1 = warp_along_flow_border_replicated(right_t1, flow_to_right)
        if self.preset.normalize_features:
            left_t0, right_t0, left_t1, right_t1 = map(
                normalize_channels, (left_t0, right_t0, left_t1, right_t1)
            )
        radius = self.preset.max_displacement
        volume_t0 = leaky_relu(correlation_1d(left_t0, right_t0, radius))
        volume_t1 = leaky_relu(correlation_1d(left_t1, right_t1, radius))
        volume_3d = leaky_relu(
            correlation_3d(volume_t0, volume_t1, radius, self.preset.max_depth_displacement)
        )
        volume_flow = leaky_relu(correlation_2d(left_t0, left_t1, radius))
        return ops.concatenate([volume_t0, volume_t1, volume_3d, volume_flow], axis=-1)

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """Batch, H, W and the number of displacements."""
        side = 2 * self.preset.max_displacement + 1
        depths = 2 * self.preset.max_depth_displacement + 1
        return (*input_shape[0][:3], 2 * side + depths * side**2 + side**2)


class EnlargedMotion(keras.layers.Layer):
    """The finest level's prediction of one modality, in px and at the input's size; batch x H x W x C, float32."""

    def __init__(self, preset: Preset, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.factor = 2**preset.finest_level
        self.half_pixel_centers = preset.half_pixel_centers

    def call(self, prediction: Tensor) -> Tensor:
        """The prediction times SCALE_FACTOR, enlarged."""
        return enlarge_bilinear(prediction * SCALE_FACTOR, self.factor, self.half_pixel_centers)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """The input's size."""
        batch, *size, channels = input_shape
        return (batch, *(side and side * self.factor for side in size), channels)


def prediction_convolution(features: Tensor, channels: int, name: str) -> Tensor:
    """Linear 3x3 convolution to motion channels.

    It starts at a tenth of a linear layer's usual variance, so that the first warps move features by a few pixels; a
    hundredth took twice as many steps to fit a single batch.
    """
    return keras.layers.Conv2D(
        channels,
        3,
        padding="same",
        kernel_initializer=fan_in_normal(0.1),
        name=name,
    )(features)


def concatenated(maps: list[Tensor]) -> Tensor:
    """Maps joined along their channels."""
    return keras.layers.Concatenate()(maps)


def upsampled(maps: dict[str, Tensor], scope: str, initializer: Initializer) -> Tensor:
    """Each modality's maps enlarged by two, to its number of channels, by a learned 4x4 transposed convolution; joined."""
    return concatenated(
        [
            keras.layers.Conv2DTranspose(
                channels,
                4,
                strides=2,
                padding="same",
                kernel_initializer=initializer,
                name=f"{scope}.{_short(name)}",
            )(maps[name])
            for name, channels in MODALITIES.items()
        ]
    )


def convolution_chain(x: Tensor, channels: tuple[int, ...], scope: str, dense: bool) -> Tensor:
    """Activated convolutions in a row; densely connected ones append their output to their input."""
    for index, width in enumerate(channels):
        y = activated_convolution(x, width, f"{scope}.estimator_block_{index}.Conv")
        x = concatenated([x, y]) if dense else y
    return x


def refined(prediction: Tensor, features: Tensor, preset: Preset, scope: str) -> Tensor:
    """Prediction plus what the context network, whose dilated convolutions see far around, finds in the features."""
    names = ["Conv", *(f"Conv_{index}" for index in range(1, len(preset.context_channels) + 1))]
    widths = zip(preset.context_channels, preset.context_dilations, strict=True)
    for name, (width, dilation) in zip(names, widths, strict=False):
        features = activated_convolution(features, width, f"{scope}.{name}", dilation=dilation)
    correction = prediction_convolution(features, prediction.shape[-1], f"{scope}.{names[-1]}")
    return keras.layers.Add()([prediction, correction])


def decode(pyramids: list[list[Tensor]], preset: Preset) -> dict[int, dict[str, Tensor]]:
    """Scene flow of every level.

    Args:
        pyramids: features of levels 1 to 6 (`encode`) of left_t0, right_t0, left_t1, right_t1.
        preset: the network's sizes.

    Returns:
        Level (coarsest first) -> "disparity", "disparity_change" (1 channel each), "optical_flow" (2 channels):
        batch x H / 2**level x W / 2**level x channels, full-resolution px / SCALE_FACTOR.
    """
    predictions: dict[int, dict[str, Tensor]] = {}
    from_coarser: list[Tensor] = []
    for level in range(COARSEST_LEVEL, preset.finest_level - 1, -1):
        block = f"decoder.block_{level}"
        scope = f"{block}.estimator"
        features = [pyramid[level - 1] for pyramid in pyramids]
        volumes = CostVolumes(preset, level, f"{block}.cost_volumes")(features + from_coarser[:1])
        x = concatenated([volumes, features[0], *from_coarser]) if from_coarser else volumes
        trunk = convolution_chain(x, preset.trunk_channels, scope, preset.dense)

        motions, hidden = {}, {}
        for name, channels in MODALITIES.items():
            head = f"{scope}.{name}"
            hidden[name] = convolution_chain(trunk, preset.head_channels, head, preset.dense)
            motions[name] = prediction_convolution(hidden[name], channels, f"{head}.Conv")
        if level > preset.finest_level:
            from_coarser = [
                upsampled(motions, f"{scope}.upsample_motion_vectors", bilinear),
                upsampled(
                    hidden, f"{scope}.upsample_features", fan_in_normal(1.0, transposed=True)
                ),
            ]
        else:
            for name in MODALITIES:
                context = f"{scope}.context_network_{_short(name)}"
                motions[name] = refined(motions[name], hidden[name], preset, context)
        predictions[level] = motions
    return predictions


def _short(modality: str) -> str:
    """A modality as the published checkpoints' layers beside the heads call it."""
    return "flow" if modality == "optical_flow" else modality
