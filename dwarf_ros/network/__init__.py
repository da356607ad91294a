"""The DWARF network in keras.ops: the same graph and the same weights under TensorFlow and JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dwarf_ros.network.codec import INPUTS, OUTPUTS, check_size
from dwarf_ros.network.presets import SCALE_FACTOR, LitePreset, Preset, find_preset
from dwarf_ros.network.weights import load, save
from dwarf_ros.types import InputError

if TYPE_CHECKING:
    import keras

__all__ = ["build", "load", "save"]


def build(
    preset: str | Preset | LitePreset = "dwarf",
    height: int | None = None,
    width: int | None = None,
    all_levels: bool = False,
    correlation: str = "ops",
) -> keras.Model:
    """Build the network with random weights.

    Input: dict of `left_t0`, `right_t0`, `left_t1`, `right_t1`, each batch x H x W x 3, float32 RGB in [0, 1]; H and W are
    multiples of 64 px.

    Output: dict of float32 maps of the same size, px, for the pixels of left_t0, with the signs of the published network:
    `disparity` (batch x H x W x 1; negative: x_right - x_left), `disparity_change` (the disparity of the same points at t1,
    also negative; despite its name not a difference) and `forward_flow` (batch x H x W x 2: u to the right, v down).

    Args:
        preset: a preset or its name.
        height: height of the input, px, for engines that need a fixed one; None leaves it open.
        width: width of the input, px, likewise.
        all_levels: also output what the losses need: `level_6` (or the coarsest) down to the finest, `level_2` or `level_3`, and
            `level_0`, the estimate at full size. Each is batch x H / 2**level x W / 2**level x 4 (disparity,
            disparity_change, u, v) in full-resolution px divided by `presets.SCALE_FACTOR`. Presets with `matching` add the
            `matches` of `decoder.Decoded`.
        correlation: implementation of the cost volumes, one of `correlation.CHOICES`.

    Raises:
        InputError: the preset is unknown, or a size is not a multiple of 64 px.
    """
    import keras

    from dwarf_ros.network import decoder, encoder

    if isinstance(preset, str):
        preset = find_preset(preset)
    check_size(height, width)

    images = {name: keras.Input((height, width, 3), dtype="float32", name=name) for name in INPUTS}
    if isinstance(preset, LitePreset):
        from dwarf_ros.network.lite.model import scene_flow

        stacked = keras.layers.Concatenate(axis=0, dtype="float32")(list(images.values()))
        motion, confidence, stages = scene_flow(stacked, preset)
        outputs = dict(zip(OUTPUTS, motion, strict=True)) | {"confidence": confidence}
        outputs |= stages if all_levels else {}
        return keras.Model(images, outputs, name=preset.name)
    stacked = keras.layers.Concatenate(axis=0)([images[name] for name in INPUTS])
    pyramid = encoder.encode(stacked, preset)
    of_levels = [keras.ops.split(features, len(INPUTS), axis=0) for features in pyramid]
    pyramids = [[level[image] for level in of_levels] for image in range(len(INPUTS))]
    decoded = decoder.decode(pyramids, preset, correlation)

    full_size = decoder.Modalities(SCALE_FACTOR, "modalities")(decoded.levels[0])
    outputs = dict(zip(OUTPUTS, full_size, strict=True))
    if all_levels:
        outputs |= {f"level_{level}": motion for level, motion in decoded.levels.items()}
        outputs |= decoded.matches
    return keras.Model(images, outputs, name=preset.name)


def build_encoder(preset: str) -> keras.Model:
    """Build the encoder of `dwarf_lite_v2` alone, to be trained by itself; its layers are named as in the whole network.

    Input: as `build`. Output: dict of `eighth` and `sixteenth`, the features of all images, 4 batch x H / k x W / k x C: those of
    every left_t0 first, then of every right_t0, ...
    """
    import keras

    from dwarf_ros.network.lite.encoder import encode

    sizes = find_preset(preset)
    if not isinstance(sizes, LitePreset):
        raise InputError(f"preset: got {preset!r}, expected dwarf_lite_v2")
    images = {name: keras.Input((None, None, 3), dtype="float32", name=name) for name in INPUTS}
    stacked = keras.layers.Concatenate(axis=0, dtype="float32")(list(images.values()))
    features = encode(stacked, sizes)
    outputs = {"eighth": features.eighth, "sixteenth": features.sixteenth}
    return keras.Model(images, outputs, name=sizes.name)
