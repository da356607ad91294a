"""Procedural textures of many kinds: each function gives uint8 RGB, SIZE x SIZE."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

SIZE = 384
"""Width and height of a texture, texels."""


def _octaves(rng: np.random.Generator, slope: float, channels: int = 1) -> np.ndarray:
    """Sum of octaves of value noise whose amplitude falls as frequency ** -slope; about zero mean, unit deviation."""
    total = np.zeros((SIZE, SIZE, channels), np.float32)
    cells = 3
    while cells <= SIZE:
        grid = rng.standard_normal((cells, cells, channels), dtype=np.float32)
        grown = cv2.resize(grid, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        total += grown.reshape(total.shape) * np.float32(cells**-slope)
        cells *= 2
    total -= total.mean(axis=(0, 1))
    return total / (total.std(axis=(0, 1)) + np.float32(1e-6))


def _color(rng: np.random.Generator) -> np.ndarray:
    """RGB, grayish as often as not."""
    gray = rng.uniform(20, 235)
    spread = rng.choice([6.0, 18.0, 50.0])
    return np.clip(gray + rng.normal(0, spread, 3), 5, 250).astype(np.float32)


def _ramp(rng: np.random.Generator, values: np.ndarray, colors: int) -> np.ndarray:
    """Values of -1.5 .. 1.5 through a ramp of random colors."""
    knots = np.linspace(-1.5, 1.5, colors)
    palette = np.stack([_color(rng) for _ in range(colors)])
    flat = values.ravel()
    channels = [np.interp(flat, knots, palette[:, k]) for k in range(3)]
    return np.stack(channels, axis=-1).reshape(*values.shape[:2], 3)


def _finish(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """A texture with fine grain and large stains."""
    grain = _octaves(rng, rng.uniform(0.0, 0.6)) * rng.uniform(0, 14)
    stains = _octaves(rng, rng.uniform(1.0, 1.5)) * rng.uniform(0, 16)
    return np.clip(image + grain + stains + 0.5, 0, 255).astype(np.uint8)


def _grid() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE
    return axis[None, :], axis[:, None]


def _noise(rng: np.random.Generator) -> np.ndarray:
    return _finish(rng, _ramp(rng, _octaves(rng, rng.uniform(0.1, 1.4)), int(rng.integers(2, 6))))


def _color_noise(rng: np.random.Generator) -> np.ndarray:
    noise = _octaves(rng, rng.uniform(0.2, 1.3), 3)
    return _finish(rng, _color(rng) + noise * rng.uniform(15, 60))


def _marble(rng: np.random.Generator) -> np.ndarray:
    x, y = _grid()
    angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 16)
    warp = _octaves(rng, rng.uniform(0.8, 1.4))[..., 0] * rng.uniform(0.3, 2.5)
    wave = np.sin(2 * np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + warp)
    return _finish(rng, _ramp(rng, 1.4 * wave, int(rng.integers(2, 5))))


def _ridges(rng: np.random.Generator) -> np.ndarray:
    ridges = 1.4 - 2.2 * np.abs(_octaves(rng, rng.uniform(0.5, 1.2))) ** 0.7
    return _finish(rng, _ramp(rng, ridges, int(rng.integers(2, 5))))


def _cells(rng: np.random.Generator) -> np.ndarray:
    """Voronoi cells, each of its own color, or shaded by the distance from their middle."""
    count = int(rng.choice([20, 60, 160]))
    canvas = np.full((SIZE, SIZE), 255, np.uint8)
    x, y = rng.integers(0, SIZE, (2, count))
    canvas[y, x] = 0
    distance, label = cv2.distanceTransformWithLabels(canvas, cv2.DIST_L2, 5)
    palette = np.stack([_color(rng) for _ in range(int(label.max()) + 1)])
    image = palette[label]
    shade = distance / (SIZE / math.sqrt(count))
    return _finish(rng, image * (1 + rng.uniform(-0.7, 0.4) * np.clip(shade, 0, 1))[..., None])


def _tiles(rng: np.random.Generator) -> np.ndarray:
    """Bricks, slabs or a chequered floor."""
    rows = int(rng.integers(2, 24))
    columns = max(2, int(rows * rng.uniform(0.4, 1.2)))
    shift = rng.choice([0.0, 0.5])
    joint = rng.uniform(0.0, 0.1)
    base, other, spread = _color(rng), _color(rng), rng.uniform(3, 35)
    chequered = rng.random() < 0.35
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = _color(rng)
    for row in range(rows):
        top, bottom = (int((row + e) * SIZE / rows) for e in (joint / 2, 1 - joint / 2))
        for column in range(-1, columns + 1):
            start = column + shift * (row % 2)
            left = int((start + joint / 2) * SIZE / columns)
            right = int((start + 1 - joint / 2) * SIZE / columns)
            tone = other if chequered and (row + column) % 2 else base
            image[top:bottom, max(0, left) : max(0, right)] = tone + rng.normal(0, spread)
    return _finish(rng, image)


def _shapes(rng: np.random.Generator) -> np.ndarray:
    """Discs, rectangles, overlapping lines and bars, as on posters and shop fronts."""
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = _color(rng)
    largest = rng.choice([12, 40, 110])
    for _ in range(int(rng.integers(20, 90))):
        color = tuple(float(c) for c in _color(rng))
        x, y = (int(v) for v in rng.integers(0, SIZE, 2))
        a, b = (int(v) for v in rng.integers(3, largest, 2))
        kind = rng.integers(4)
        if kind == 0:
            cv2.ellipse(image, (x, y), (a, b), float(rng.uniform(0, 180)), 0, 360, color, -1)
        elif kind == 1:
            cv2.rectangle(image, (x, y), (x + a, y + b), color, -1)
        elif kind == 2:
            end = (x + 3 * int(rng.normal(0, a)), y + 3 * int(rng.normal(0, b)))
            cv2.line(image, (x, y), end, color, int(rng.integers(1, 8)))
        else:
            # Bars of one height and many widths look like writing from afar.
            high = int(rng.integers(6, 30))
            for _ in range(8):
                wide = int(rng.integers(2, max(3, high // 2)))
                cv2.rectangle(image, (x, y), (x + wide, y + high), color, -1)
                x += wide + int(rng.integers(2, 2 + high // 2))
    return _finish(rng, image)


def _facade(rng: np.random.Generator) -> np.ndarray:
    rows, columns = (int(v) for v in rng.integers(2, 9, 2))
    return paint_facade(rng, rows, columns)


def paint_facade(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows of windows in a wall."""
    image = np.empty((SIZE, SIZE, 3), np.float32)
    image[:] = _color(rng)
    wide, high = SIZE / columns * rng.uniform(0.3, 0.85), SIZE / rows * rng.uniform(0.3, 0.85)
    frame, glass = _color(rng), _color(rng)
    for row in range(rows):
        for column in range(columns):
            left = int((column + 0.5) * SIZE / columns - wide / 2)
            top = int((row + 0.5) * SIZE / rows - high / 2)
            right, bottom = int(left + wide), int(top + high)
            image[max(0, top - 2) : bottom + 2, max(0, left - 2) : right + 2] = frame
            image[top:bottom, left:right] = glass + rng.normal(0, 18)
            fold = int(rng.uniform(0, 0.7) * (bottom - top))
            image[top : top + fold, left:right] += rng.uniform(0, 60)
    return _finish(rng, image)


def _leaves(rng: np.random.Generator) -> np.ndarray:
    """Overlapping leaves or blades, bright above dark."""
    image = np.empty((SIZE, SIZE, 3), np.float32)
    base, tilt = _color(rng), rng.uniform(0, 180)
    image[:] = base * 0.3
    long, slim = rng.uniform(4, 14), rng.uniform(0.15, 0.8)
    loose = rng.choice([15.0, 180.0])
    count = int(min(5 * SIZE * SIZE / (long * long * slim * 8), 2500))
    positions = rng.uniform(0, SIZE, (count, 2))
    for k, (x, y) in enumerate(positions):
        color = base * (0.3 + 0.8 * k / count) + rng.normal(0, 14)
        angle = tilt + rng.normal(0, loose)
        cv2.ellipse(
            image, (int(x), int(y)), (int(long), max(1, int(long * slim))), float(angle), 0, 360,
            tuple(float(c) for c in color), -1,
        )  # fmt: skip
    return _finish(rng, image)


def paint_grain(rng: np.random.Generator) -> np.ndarray:
    """Asphalt, plaster or lacquer: fine noise."""
    noise = _octaves(rng, 0.45) + 0.3 * _octaves(rng, 0.6, 3)
    return np.clip(128 + 40 * noise, 0, 255).astype(np.uint8)


def paint_sky(rng: np.random.Generator) -> np.ndarray:
    """Clouds on a blue that is paler towards the first row, the horizon."""
    height = np.linspace(0, 1, SIZE, dtype=np.float32)[:, None, None]
    blue = np.array([206, 214, 224], np.float32) - (1 - np.exp(-4 * height)) * np.array(
        [106, 70, 18], np.float32
    )
    cover = np.clip(0.3 + 0.7 * _octaves(rng, 0.9), 0, 1) * np.clip(12 * height, 0, 0.9)
    return (blue + cover * (np.array([244, 244, 246], np.float32) - blue) + 0.5).astype(np.uint8)


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "noise": _noise,
    "color_noise": _color_noise,
    "marble": _marble,
    "ridges": _ridges,
    "cells": _cells,
    "tiles": _tiles,
    "shapes": _shapes,
    "facade": _facade,
    "leaves": _leaves,
}
