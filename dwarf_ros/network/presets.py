"""The variants of the network."""

from __future__ import annotations

from dataclasses import dataclass

from dwarf_ros.types import InputError

SCALE_FACTOR = 20.0
"""Inside the network, motion is in full-resolution pixels divided by this, at every level."""

NEGATIVE_SLOPE = 0.1
"""Slope of all leaky ReLUs for negative values."""

SIZE_MULTIPLE = 64
"""Height and width of the input must be multiples of this, px."""


@dataclass(frozen=True)
class Preset:
    """The sizes of one variant of the network.

    `dwarf` is the network as published (Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks
    Knowledge", AAAI 2020): 19.6 M parameters, 236.7 GMAC for 384 x 1280 px. It loads published checkpoints.

    `dwarf_lite` is a smaller variant of this package. It stops at level 3, a grid of 8 px, and has no dense connections. It is
    designed to learn quickly: level 4 matches every pixel with all others, each finer level adds the displacement that its
    correlations favor, and the convolutions only correct the result. So estimates are meaningful before training, and
    the features can be trained to match directly. At full size, each pixel is a learned mixture of nearby motions of the
    grid, which keeps edges sharp.

    Attributes:
        name: identifies the preset in files and options.
        encoder_channels: feature channels of each level, starting at level 1; the first estimate is made at the last level.
        encoder_convolutions: number of convolutions in each level of the encoder; the first one has stride 2.
        trunk_channels: of the convolutions that the three heads of a level share.
        head_channels: of the convolutions of each head before its prediction.
        context_channels, context_dilations: of the context network that refines each prediction of the finest level; with
            `matching`, of every level.
        finest_level: level of the last estimate, which is then upsampled by 2**finest_level.
        dense: each convolution of trunk and heads appends its output to its input instead of replacing it.
        matching: the motion of a level is that of the coarser one (at the coarsest level: from matching each pixel with all
            others), plus the mean of the displacements weighted by the softmax of their correlations, plus the output of the
            convolutions. Features are normalized before they are correlated (zero mean, unit variance over the channels of each
            pixel), and the border of the right image is replicated when it is warped. False, as published: the output of
            the convolutions alone.
        convex_enlargement: each pixel at full size is a learned mixture of the 3 x 3 motions around it on the finest grid;
            False, as published, upsamples bilinearly.
        max_displacement: range of the correlations in x and y, pixels of the level.
        max_depth_displacement: range of the 3D correlation along the disparity axis, channels.
    """

    name: str
    encoder_channels: tuple[int, ...]
    encoder_convolutions: tuple[int, ...]
    trunk_channels: tuple[int, ...]
    head_channels: tuple[int, ...]
    context_channels: tuple[int, ...]
    context_dilations: tuple[int, ...]
    finest_level: int
    dense: bool
    matching: bool
    convex_enlargement: bool
    max_displacement: int = 4
    max_depth_displacement: int = 0

    @property
    def coarsest_level(self) -> int:
        """Level of the first estimate: 1 / 2**level of the input's height and width."""
        return len(self.encoder_channels)


@dataclass(frozen=True)
class LitePreset:
    """Sizes of `dwarf_lite_v2`, which is designed to be learned in an hour or two on a small machine.

    Its encoder works on images of half the size and is distilled from a strong teacher's. Stereo is estimated per frame: a cost
    volume along rows at 1/8, a hourglass, a last step at 1/4. Optical flow is estimated per pair: all cells at 1/16 are matched
    with all others, and two refinements at 1/8 follow. The full-size estimate is a learned mixture, per pixel, of nearby
    cells, so that edges stay sharp.

    Attributes:
        name: of the preset.
        encoder_channels: of the stem at 1/2, and at 1/4, 1/8 and 1/16.
        feature_channels: of the features that are matched.
        disparities: number of disparities searched, cells of 8 px.
    """

    name: str = "dwarf_lite_v2"
    encoder_channels: tuple[int, int, int, int] = (24, 24, 64, 128)
    feature_channels: int = 128
    disparities: int = 32


DWARF = Preset(
    name="dwarf",
    encoder_channels=(16, 32, 64, 96, 128, 196),
    encoder_convolutions=(3, 3, 3, 3, 3, 3),
    trunk_channels=(128, 128, 96),
    head_channels=(64, 32),
    context_channels=(128, 128, 128, 96, 64, 32),
    context_dilations=(1, 2, 4, 8, 16, 1),
    finest_level=2,
    dense=True,
    matching=False,
    convex_enlargement=False,
)

DWARF_LITE = Preset(
    name="dwarf_lite",
    encoder_channels=(16, 32, 64, 128),
    encoder_convolutions=(2, 2, 3, 4),
    trunk_channels=(128, 96, 64),
    head_channels=(48, 32),
    context_channels=(64, 64, 64, 48, 32),
    context_dilations=(1, 2, 4, 8, 1),
    finest_level=3,
    dense=False,
    matching=True,
    convex_enlargement=True,
)

DWARF_LITE_V2 = LitePreset()

PRESETS: dict[str, Preset | LitePreset] = {
    preset.name: preset for preset in (DWARF, DWARF_LITE, DWARF_LITE_V2)
}


def find_preset(name: str) -> Preset | LitePreset:
    """The preset of that name.

    Raises:
        InputError: there is none.
    """
    if name not in PRESETS:
        raise InputError(f"preset: got {name!r}, expected one of {', '.join(PRESETS)}")
    return PRESETS[name]
