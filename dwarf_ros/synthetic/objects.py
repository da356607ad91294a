"""Objects that stand or move on the ground, in their own frame: x right, y down, z forward, the ground at y = 0, m."""

from __future__ import annotations

import numpy as np

from dwarf_ros.synthetic.materials import Coat
from dwarf_ros.synthetic.scene import CYLINDER, ELLIPSOID
from dwarf_ros.synthetic.shapes import UPRIGHT, Builder, rotation


def add_vehicle(
    b: Builder, obj: int, size: tuple[float, float, float], depth: float,
    paint: Coat, cabin: list[Coat], wheels: Coat,
) -> None:  # fmt: skip
    """A car, van or bus of a width, height and length, with wheels if its depth, m, is not over 30.

    Its first six polygons are the faces of the lower part, see `Builder.box`.
    """
    wide, high, long = size
    lower = high * (0.6 if long < 5 else 0.35)
    center = np.array([0, -0.2 - (lower - 0.2) / 2, 0])
    b.box(obj, center, np.array([wide, lower - 0.2, long]), [paint], depth)
    top = long * (0.55 if long < 5 else 0.98)
    center = np.array([0, -(lower + high) / 2, -0.1 * (long - top)])
    b.box(obj, center, np.array([0.9 * wide, high - lower, top]), cabin, depth)
    if depth > 30:
        return
    axes = np.stack([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]], axis=1)
    for side, place in ((-1, -0.32), (-1, 0.32), (1, -0.32), (1, 0.32)):
        middle = np.array([side * (wide / 2 - 0.09), -0.32, place * long])
        radii = np.array([0.32, 0.32, 0.1])
        b.quadric(obj, middle, axes, radii, CYLINDER, b.round(wheels, 2))
        hub = middle + np.array([side * 0.1, 0, 0])
        b.card(obj, hub, axes.T, (0.64, 0.64), wheels, depth, corners=7, facing=side)


def add_walker(b: Builder, obj: int, high: float, clothes: Coat, legs: Coat, head: Coat) -> None:
    """A person of a height."""
    for side in (-0.1, 0.1):
        foot = np.array([side, 0, float(b.rng.uniform(-0.1, 0.1))])
        b.post(obj, foot, 0.5 * high, 0.08, legs)
    for part, radii, coat in (
        (0.65, (0.24, 0.16, 0.22 * high), clothes),
        (0.92, (0.1, 0.12, 0.08 * high), head),
    ):
        center = np.array([0, -part * high, 0])
        b.quadric(obj, center, UPRIGHT, np.array(radii), ELLIPSOID, b.round(coat, 1))


def add_tree(
    b: Builder, obj: int, foot: np.ndarray, size: tuple[float, float], lumps: int,
    trunk: Coat, crown: Coat,
) -> None:  # fmt: skip
    """A tree at a place: the height of its trunk, the radius of its crown, and the number of ellipsoids in that."""
    rng, (high, wide) = b.rng, size
    b.post(obj, foot, high, float(rng.uniform(0.08, 0.25)), trunk)
    for _ in range(lumps):
        radii = wide * rng.uniform(0.5, 1.0, 3)
        middle = foot - [0, high + 0.7 * wide, 0] + 0.4 * wide * rng.normal(0, 1, 3)
        turn = rotation(rng.normal(0, 0.5, 3))
        b.quadric(obj, middle, turn, radii, ELLIPSOID, b.round(crown, int(rng.integers(3, 9))))


def add_fence(b: Builder, obj: int, x: float, kerb: float, coat: Coat) -> None:
    """A railing along z at x, m, on a kerb."""
    rng = b.rng
    start, count = float(rng.uniform(3, 10)), int(rng.integers(8, 20))
    gap, high = float(rng.uniform(0.2, 0.9)), float(rng.uniform(0.7, 1.6))
    axes = np.array([[0, 0, 1.0], [0, 1.0, 0]])
    for k in range(count):
        center = np.array([x, -kerb - high / 2, start + k * gap])
        b.card(obj, center, axes, (0.06, high), coat, start)
    long = (count - 1) * gap
    for part in (0.3, 0.9):
        center = np.array([x, -kerb - part * high, start + long / 2])
        b.card(obj, center, axes, (long, 0.07), coat, start)
