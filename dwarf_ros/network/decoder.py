"""Scene flow from four feature pyramids, coarse to fine.

The channels of scene flow are always disparity, disparity_change, u, v. disparity_change is the disparity at t1 of the pixels
of left_t0, not a difference. Inside the network the unit is full-resolution pixels divided by SCALE_FACTOR, and disparities
are negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from dwarf_ros.network.correlation import load as load_correlation
from dwarf_ros.network.encoder import activated_convolution
from dwarf_ros.network.initializers import Initializer, bilinear, fan_in_normal
from dwarf_ros.network.matching import GlobalMatching, LocalMatching, normalize_channels
from dwarf_ros.network.presets import NEGATIVE_SLOPE, SCALE_FACTOR, Preset
from dwarf_ros.network.warping import (
    enlarge_bilinear,
    enlarge_convex,
    warp_along_disparity_zero_outside,
    warp_along_flow_border_replicated,
)

Tensor = Any

MODALITIES = {"disparity": 1, "disparity_change": 1, "optical_flow": 2}
"""Number of channels of each of the three estimates, in the order of the scene-flow channels."""


class CostVolumes(keras.layers.Layer):
    """Warps the features of one level with a coarser scene flow and correlates them.

    Input: features of left_t0, right_t0, left_t1, right_t1 (batch x H x W x C) and, except at the first level, the scene flow so
    far (batch x H x W x 4). Output: batch x H x W x N, the volumes of `correlation.ops.cost_volumes`; activated, or for presets
    with `matching` correlation coefficients in [-1, 1]. Always float32, because coordinates need it.
    """

    def __init__(self, preset: Preset, level: int, name: str, correlation: str = "ops") -> None:
        super().__init__(name=name, dtype="float32")
        self.preset = preset
        self.level = level
        implementation = load_correlation(correlation)
        self.cost_volumes = implementation.cost_volumes
        self.supports_jit = implementation.compiles

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Compute the volumes."""
        left_t0, right_t0, left_t1, right_t1 = inputs[:4]
        matching = self.preset.matching
        if len(inputs) == 5:
            scene_flow = inputs[4] * (SCALE_FACTOR / 2**self.level)
            disparity, disparity_change, u, v = ops.split(scene_flow, 4, axis=-1)
            flow = ops.concatenate([u, v], axis=-1)
            flow_to_right = ops.concatenate([u + disparity_change, v], axis=-1)
            if matching:
                to_right = ops.concatenate([disparity, ops.zeros_like(disparity)], axis=-1)
                right_t0 = warp_along_flow_border_replicated(right_t0, to_right)
            else:
                right_t0 = warp_along_disparity_zero_outside(right_t0, disparity)
            left_t1 = warp_along_flow_border_replicated(left_t1, flow)
            right_t1 = warp_along_flow_border_replicated(right_t1, flow_to_right)
        if matching:
            left_t0, right_t0, left_t1, right_t1 = map(
                normalize_channels, (left_t0, right_t0, left_t1, right_t1)
            )
        radius, depth = self.preset.max_displacement, self.preset.max_depth_displacement
        slope = 1.0 if matching else NEGATIVE_SLOPE
        return self.cost_volumes(left_t0, right_t0, left_t1, right_t1, radius, depth, slope)

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """Batch, H, W and number of displacements."""
        side = 2 * self.preset.max_displacement + 1
        depths = 2 * self.preset.max_depth_displacement + 1
        return (*input_shape[0][:3], 2 * side + depths * side**2 + side**2)


class EnlargedMotion(keras.layers.Layer):
    """Upsamples the scene flow of the finest level to the size of the input: batch x H x W x C, float32.

    Input: the scene flow (full-resolution px / SCALE_FACTOR, as the output) and, for presets with `convex_enlargement`, the
    logits of `enlarge_convex`.
    """

    def __init__(self, preset: Preset, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.factor = 2**preset.finest_level

    def call(self, inputs: list[Tensor]) -> Tensor:
        """Upsample the scene flow."""
        if len(inputs) == 2:
            return enlarge_convex(inputs[0], inputs[1], self.factor)
        return enlarge_bilinear(inputs[0], self.factor)

    def compute_output_shape(self, input_shape: list[tuple]) -> tuple:
        """The size of the input."""
        batch, *size, channels = input_shape[0]
        return (batch, *(side and side * self.factor for side in size), channels)


class Modalities(keras.layers.Layer):
    """Splits a scene flow into one map for each of MODALITIES and multiplies them by a factor; float32."""

    def __init__(self, factor: float, name: str) -> None:
        super().__init__(name=name, dtype="float32")
        self.factor = factor

    def call(self, scene_flow: Tensor) -> list[Tensor]:
        """Split the scene flow, in the order of MODALITIES."""
        motion = scene_flow * self.factor
        return [motion[:, :, :, 0:1], motion[:, :, :, 1:2], motion[:, :, :, 2:4]]


def prediction_convolution(features: Tensor, channels: int, name: str) -> Tensor:
    """Linear 3x3 convolution that predicts motion.

    Its initial variance is a tenth of the usual one, so that the first warps move features by a few pixels. With a hundredth,
    fitting a single batch took twice as many steps.
    """
    return keras.layers.Conv2D(
        channels,
        3,
        padding="same",
        kernel_initializer=fan_in_normal(0.1),
        name=name,
    )(features)


def concatenated(maps: list[Tensor], dtype: str | None = None) -> Tensor:
    """Concatenate maps along their channels; dtype None means that of the network."""
    return keras.layers.Concatenate(dtype=dtype)(maps)


def upsampled(
    maps: dict[str, Tensor], scope: str, initializer: Initializer, dtype: str | None = None
) -> Tensor:
    """Upsample the maps of each modality by two with a learned 4x4 transposed convolution, and concatenate them."""
    enlarged = [
        keras.layers.Conv2DTranspose(
            channels,
            4,
            strides=2,
            padding="same",
            kernel_initializer=initializer,
            dtype=dtype,
            name=f"{scope}.{_short(name)}",
        )(maps[name])
        for name, channels in MODALITIES.items()
    ]
    return concatenated(enlarged, dtype)


def convolution_chain(x: Tensor, channels: tuple[int, ...], scope: str, dense: bool) -> Tensor:
    """A sequence of activated convolutions; with dense connections each appends its output to its input."""
    for index, width in enumerate(channels):
        y = activated_convolution(x, width, f"{scope}.estimator_block_{index}.Conv")
        x = concatenated([x, y]) if dense else y
    return x


def refined(prediction: Tensor, features: Tensor, preset: Preset, scope: str) -> Tensor:
    """Prediction plus the correction by the context network, whose dilated convolutions have a large receptive field."""
    names = ["Conv", *(f"Conv_{index}" for index in range(1, len(preset.context_channels) + 1))]
    widths = zip(preset.context_channels, preset.context_dilations, strict=True)
    for name, (width, dilation) in zip(names, widths, strict=False):
        features = activated_convolution(features, width, f"{scope}.{name}", dilation=dilation)
    correction = prediction_convolution(features, prediction.shape[-1], f"{scope}.{names[-1]}")
    return keras.layers.Add()([prediction, correction])


@dataclass(frozen=True)
class Decoded:
    """Output of the decoder.

    Attributes:
        levels: level (coarsest first) -> its scene flow, batch x H / 2**level x W / 2**level x 4, full-resolution px /
            SCALE_FACTOR; level 0 is the finest one, upsampled.
        matches: for presets with `matching`, the input of the matching loss: `global_stereo` and `global_flow`, the logits of
            `GlobalMatching`; for each level `local_<level>`, the logits of `LocalMatching`, and `center_<level>`, the scene flow at
            their center.
    """

    levels: dict[int, Tensor]
    matches: dict[str, Tensor]


def decode(pyramids: list[list[Tensor]], preset: Preset, correlation: str = "ops") -> Decoded:
    """Scene flow of every level and at the size of the input.

    Args:
        pyramids: features of all levels (`encode`) of left_t0, right_t0, left_t1, right_t1.
        preset: the sizes of the network.
        correlation: one of `correlation.CHOICES`.
    """
    levels: dict[int, Tensor] = {}
    matches: dict[str, Tensor] = {}
    from_coarser: list[Tensor] = []
    if preset.matching:
        coarsest = [pyramid[-1] for pyramid in pyramids]
        matching = GlobalMatching(preset.coarsest_level, "decoder.matching")
        *from_coarser, stereo, flow = matching(coarsest)
        matches |= {"global_stereo": stereo, "global_flow": flow}
    for level in range(preset.coarsest_level, preset.finest_level - 1, -1):
        block = f"decoder.block_{level}"
        scope = f"{block}.estimator"
        features = [pyramid[level - 1] for pyramid in pyramids]
        volumes = CostVolumes(preset, level, f"{block}.cost_volumes", correlation)(
            features + from_coarser[:1]
        )
        if preset.matching:
            center = from_coarser[0]
            local = LocalMatching(level, preset.max_displacement, f"{block}.matching")
            from_coarser[0], logits = local([volumes, center])
            matches |= {f"local_{level}": logits, f"center_{level}": center}
        known = [volumes, features[0], *from_coarser] if from_coarser else [volumes]
        x = concatenated(known) if from_coarser else volumes
        trunk = convolution_chain(x, preset.trunk_channels, scope, preset.dense)

        motions, hidden = {}, {}
        for name, channels in MODALITIES.items():
            head = f"{scope}.{name}"
            hidden[name] = convolution_chain(trunk, preset.head_channels, head, preset.dense)
            motions[name] = prediction_convolution(hidden[name], channels, f"{head}.Conv")
            if level == preset.finest_level or preset.matching:
                context = f"{scope}.context_network_{_short(name)}"
                motions[name] = refined(motions[name], hidden[name], preset, context)
        levels[level] = concatenated(list(motions.values()), "float32")
        if preset.matching:
            levels[level] = keras.layers.Add(dtype="float32")([from_coarser[0], levels[level]])
            split = Modalities(1.0, f"{block}.modalities")(levels[level])
            motions = dict(zip(MODALITIES, split, strict=True))
        if level > preset.finest_level:
            from_coarser = [
                upsampled(motions, f"{scope}.upsample_motion_vectors", bilinear, "float32"),
                upsampled(
                    hidden, f"{scope}.upsample_features", fan_in_normal(1.0, transposed=True)
                ),
            ]
    finest = [levels[preset.finest_level]]
    if preset.convex_enlargement:
        enlargement = keras.layers.Conv2D(
            9 * 4**preset.finest_level,
            1,
            kernel_initializer=fan_in_normal(0.1),
            name=f"{scope}.enlargement",
        )
        finest.append(enlargement(concatenated(list(hidden.values()))))
    levels[0] = EnlargedMotion(preset, name="enlarged_motion")(finest)
    return Decoded(levels, matches)


def _short(modality: str) -> str:
    """Name of a modality in the published checkpoints' layers outside the heads."""
    return "flow" if modality == "optical_flow" else modality
