"""The sizes of the network, by name."""

from __future__ import annotations

from dataclasses import dataclass

from dwarf_ros.types import InputError

COARSEST_LEVEL = 6
"""Level of the first estimate: 1 / 2**6 of the input's height and width."""

SCALE_FACTOR = 20.0
"""Inside the network motions are full-resolution pixels divided by this, at every level."""

NEGATIVE_SLOPE = 0.1
"""Slope of every leaky ReLU for negative values."""

SIZE_MULTIPLE = 2**COARSEST_LEVEL
"""Height and width of the input are multiples of this, px."""


@dataclass(frozen=True)
class Preset:
    """The shape of one variant of the network.

    `dwarf` is the network as published (Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks
    Knowledge", AAAI 2020): 19.6 M parameters, 236.7 GMAC for 384 x 1280 px. It loads published checkpoints.

    `dwarf_lite` is ours: 4.1 M parameters, 20.9 GMAC. It saves by stopping at level 3, a grid of 8 px, and by leaving out the
    dense connections. The alternative of about equal cost, half the width down to level 2, has 2.0 M parameters,
    matches with 16 channels at its finest level and spends most of its arithmetic there, while large motions are decided at
    the coarse levels, where a teacher's estimates of the same level can be imitated one to one. It also takes longer (0.096 s
    against 0.075 s a frame, bfloat16, two cores). The price is the grid: KITTI 2012's ground truth itself, averaged
    over 8 px and enlarged again, has 1.3 to 2.1 % of outliers (3 px and 5 %), over 4 px 0.3 to 0.5 %. Features are
    normalised before they are correlated, without which training from scratch hardly starts.

    Attributes:
        name: what files and options call it.
        encoder_channels: feature channels of levels 1 to 6.
        trunk_channels: of the convolutions that the three heads of a level share.
        head_channels: of the convolutions of each head before its prediction.
        context_channels, context_dilations: of the context network that refines each prediction of the finest level.
        finest_level: where the estimate ends, before it is enlarged by 2**finest_level.
        dense: each convolution of trunk and heads appends its output to its input, instead of replacing it.
        normalize_features: features have zero mean and unit variance over the channels of each pixel before images
            are correlated, so that the correlation is a coefficient in [-1, 1].
        half_pixel_centers: the last enlargement takes pixels as areas, which fits predictions trained against
            area-averaged ground truth; False is TensorFlow 1's way: the corners' centres coincide.
        max_displacement: range of the correlations in x and y, pixels of the level.
        max_depth_displacement: range of the 3D correlation along the disparity axis, channels.
    """

    name: str
    encoder_channels: tuple[int, ...]
    trunk_channels: tuple[int, ...]
    head_channels: tuple[int, ...]
    context_channels: tuple[int, ...]
    context_dilations: tuple[int, ...]
    finest_level: int
    dense: bool
    normalize_features: bool
    half_pixel_centers: bool
    max_displacement: int = 4
    max_depth_displacement: int = 0


DWARF = Preset(
    name="dwarf",
    encoder_channels=(16, 32, 64, 96, 128, 196),
    trunk_channels=(128, 128, 96),
    head_channels=(64, 32),
    context_channels=(128, 128, 128, 96, 64, 32),
    context_dilations=(1, 2, 4, 8, 16, 1),
    finest_level=2,
    dense=True,
    normalize_features=False,
    half_pixel_centers=False,
)

DWARF_LITE = Preset(
    name="dwarf_lite",
    encoder_channels=(16, 32, 64, 96, 128, 128),
    trunk_channels=(128, 96, 64),
    head_channels=(48, 32),
    context_channels=(64, 64, 64, 64, 48, 32),
    context_dilations=(1, 2, 4, 8, 16, 1),
    finest_level=3,
    dense=False,
    normalize_features=True,
    half_pixel_centers=True,
)

PRESETS = {preset.name: preset for preset in (DWARF, DWARF_LITE)}


def find_preset(name: str) -> Preset:
    """Preset of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PRESETS:
        raise InputError(f"preset: got {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
