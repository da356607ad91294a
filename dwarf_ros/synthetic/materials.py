"""What surfaces are made of."""

from __future__ import annotations

from dataclasses import dataclass

Color = tuple[float, float, float]


def scaled(color: Color, factor: float) -> Color:
    """A darker or brighter color."""
    return color[0] * factor, color[1] * factor, color[2] * factor


@dataclass(frozen=True)
class Coat:
    """What the faces of an object have in common.

    Attributes:
        texture: index in the bank.
        gain: RGB, multiplies the texture.
        offset: RGB, 0 to 255, added.
        span: width and height of the texture, m; None: each face draws its own, and an angle.
    """

    texture: int
    gain: Color
    offset: Color
    span: float | None = None


@dataclass(frozen=True)
class Material:
    """A kind of coat, such as real streets are mostly made of.

    Attributes:
        kinds: textures to choose from; none: all.
        gain: range of the texture's.
        brightness: range of the mean, 0 to 255; a sky may be brighter than a camera can resolve.
        chroma: standard deviation of the color channels about it.
        tint: RGB, added.
    """

    kinds: tuple[str, ...]
    gain: tuple[float, float]
    brightness: tuple[float, float]
    chroma: float
    tint: Color = (0.0, 0.0, 0.0)


ROAD = Material(("noise", "photo"), (0.15, 0.75), (55, 150), 4)
PAVEMENT = Material(("noise", "tiles", "cells", "photo"), (0.25, 1.0), (70, 190), 7)
LAWN = Material(("noise", "leaves", "ridges", "photo"), (0.7, 1.6), (55, 130), 8, (-6, 12, -22))
BUILDING = Material(("facade", "tiles", "shapes", "noise", "photo"), (0.7, 1.7), (50, 200), 16)
_LEAFY = ("leaves", "noise", "cells", "ridges", "photo")
FOLIAGE = Material(_LEAFY, (1.0, 2.2), (40, 115), 9, (-8, 10, -16))
TRUNK = Material(("noise", "ridges", "marble", "photo"), (0.4, 1.2), (25, 110), 7)
PAINT = Material((), (0.0, 0.5), (20, 245), 28)
GLASS = Material(("shapes", "facade", "noise", "photo"), (0.3, 0.9), (25, 100), 7)
LINE = Material(("noise", "photo"), (0.05, 0.3), (170, 250), 5)
SKY = Material(("noise", "photo"), (0.0, 0.2), (180, 330), 5, (-8, 0, 10))
