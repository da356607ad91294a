"""Legends of pictures: color bars of disparity and depth, the color wheel of optical flow."""

from __future__ import annotations

import math

import cv2
import numpy as np

from dwarf_ros.geometry import disparity_from_depth
from dwarf_ros.types import StereoCamera
from dwarf_ros.visualization.colors import (
    DEPTH_RATIO,
    confidence_color,
    depth_color,
    disparity_color,
    flow_color,
)
from dwarf_ros.visualization.drawing import BAR_MARGIN, FONT, INK, PAPER, color_bar, write_text

UNKNOWN_NOTE = "dimmed image: unknown"

Key = tuple[str, tuple[int, int, int], str]
"""Entry of a legend: a symbol (square, box, line or arrow), its color, and what it means."""


def disparity_legend(
    width: int, max_disparity: float, camera: StereoCamera | None = None
) -> np.ndarray:
    """Color bar of `disparity_color` with disparities in px at its ends and, with a camera, depths in m along it.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    ramp = np.linspace(0, max_disparity, width - 2 * BAR_MARGIN, dtype=np.float32)[None]
    ticks = [(0.0, "0 px"), (1.0, f"{max_disparity:.0f} px")]
    if camera is not None:
        taken = [0.06, 0.94]
        for depth in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100):
            share = float(disparity_from_depth(np.array(depth), camera)) / max_disparity
            if all(abs(share - other) > 0.07 for other in taken) and 0.06 < share < 0.94:
                ticks.append((share, f"{depth} m"))
                taken.append(share)
    return color_bar(width, disparity_color(ramp, max_disparity)[0], ticks)


def depth_legend(width: int, max_depth: float) -> np.ndarray:
    """Color bar of `depth_color` in m, on its logarithmic scale up to max_depth.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    nearest = max_depth / DEPTH_RATIO
    ramp = np.geomspace(nearest, max_depth, width - 2 * BAR_MARGIN, dtype=np.float32)[None]
    ticks = [(1.0, f"{max_depth:g} m")]
    for depth in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100):
        share = math.log(depth / nearest) / math.log(DEPTH_RATIO)
        if 0.02 < share < 0.94:
            ticks.append((share, f"{depth:g} m"))
    return color_bar(width, depth_color(ramp, max_depth)[0], ticks)


def flow_wheel(radius: int) -> np.ndarray:
    """The color wheel of `flow_color`: uint8 RGB, (2 * radius + 1) px wide and high, black outside the disc."""
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    flow = np.dstack(np.meshgrid(offsets, offsets)) / np.float32(radius)
    flow[np.hypot(flow[..., 0], flow[..., 1]) > 1] = np.nan
    return flow_color(flow, 1.0)


def flow_legend(size: int, max_magnitude: float) -> np.ndarray:
    """Legend of `flow_color`: the color wheel with its directions and its radii in px.

    Args:
        size: width and height of the picture, px, at least 160.
        max_magnitude: magnitude at the wheel's rim, px.

    Returns:
        uint8 RGB, size x size x 3.
    """
    picture = np.empty((size, size, 3), dtype=np.uint8)
    picture[:] = PAPER
    center, radius = size // 2, size // 2 - 40
    place = slice(center - radius, center + radius + 1)
    wheel = flow_wheel(radius)
    disc = wheel.any(axis=-1)
    picture[place, place][disc] = wheel[disc]
    for share in (0.5, 1.0):
        # On the diagonal, away from the names of the directions.
        ring = round(share * radius)
        cv2.circle(picture, (center, center), ring, PAPER, 1, cv2.LINE_AA)
        text = f"{share * max_magnitude:.3g} px"
        along = 0.7071 * ring + (4 if share == 1.0 else 0)
        color = INK if share == 1.0 else PAPER
        write_text(picture, text, center + along, center + along + 12, color=color)
    for text, column, row, anchor in (
        ("right", size - 38, center + 4, "left"),
        ("left", 36, center + 4, "right"),
        ("up", center, center - radius - 10, "center"),
        ("down", center, center + radius + 22, "center"),
    ):
        write_text(picture, text, column, row, anchor=anchor)
    return picture


def flow_strip(width: int, max_magnitude: float, note: str = "") -> np.ndarray:
    """Small legend of `flow_color`: the color wheel and the magnitude at its rim, px.

    Args:
        width: of the strip, px.
        max_magnitude: magnitude at the wheel's rim, px.
        note: further text.

    Returns:
        uint8 RGB, 58 x width x 3; without the wheel if it is narrower than 64 px.
    """
    strip = np.empty((58, width, 3), dtype=np.uint8)
    strip[:] = PAPER
    if width < 64:
        return strip
    radius = 25
    wheel = flow_wheel(radius)
    disc = wheel.any(axis=-1)
    strip[4 : 5 + 2 * radius, 4 : 5 + 2 * radius][disc] = wheel[disc]
    lines = (f"hue: direction, rim: {max_magnitude:.3g} px", note)
    for row, text in zip((26, 43), lines, strict=True):
        write_text(strip, text, 64, row, size=0.38)
    return strip


def confidence_legend(width: int) -> np.ndarray:
    """Color bar of `confidence_color`.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    ramp = np.linspace(0, 1, width - 2 * BAR_MARGIN, dtype=np.float32)[None]
    ticks = [(0.0, "0"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1")]
    return color_bar(width, confidence_color(ramp)[0], ticks)


def symbol_legend(width: int, keys: list[Key]) -> np.ndarray:
    """Strip of symbols and what they mean, in as many lines as they need.

    Returns:
        uint8 RGB, (20 * lines + 4) x width x 3.
    """
    placed, x, line = [], 8, 0
    for symbol, color, text in keys:
        wide = 26 + cv2.getTextSize(text, FONT, 0.38, 1)[0][0]
        if x > 8 and x + wide > width:
            x, line = 8, line + 1
        placed.append((symbol, color, text, x, line * 20 + 12))
        x += wide + 16
    strip = np.empty((20 * (line + 1) + 4, width, 3), dtype=np.uint8)
    strip[:] = PAPER
    for symbol, color, text, x, y in placed:
        if symbol == "square":
            cv2.rectangle(strip, (x + 4, y - 5), (x + 14, y + 5), color, -1)
        elif symbol == "box":
            cv2.rectangle(strip, (x + 2, y - 5), (x + 16, y + 5), color, 2)
        elif symbol == "line":
            cv2.line(strip, (x, y), (x + 18, y), color, 2, cv2.LINE_AA)
        else:
            cv2.arrowedLine(strip, (x, y), (x + 18, y), color, 2, cv2.LINE_AA, tipLength=0.4)
        write_text(strip, text, x + 24, y + 4, size=0.38)
    return strip
