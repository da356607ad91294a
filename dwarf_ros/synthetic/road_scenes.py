"""Road scenes: a ground with walls, vehicles, trees, posts and fences along it, and the camera going forward."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dwarf_ros.synthetic import materials
from dwarf_ros.synthetic.materials import scaled
from dwarf_ros.synthetic.objects import add_fence, add_tree, add_vehicle, add_walker
from dwarf_ros.synthetic.scene import Finish
from dwarf_ros.synthetic.shapes import Builder, log_uniform, pose_of, rectangle, rotation


def build_road_scene(b: Builder) -> None:
    """Add everything to the scene, which also gets another camera.

    Axes at the previous frame: x right, y down, z forward, the ground `height` m below the camera, slanted.
    """
    rng, camera = b.rng, b.camera
    b.natural = rng.random() < 0.75
    # Whole pictures of a vehicle's camera as often as parts of them.
    focal = camera.width * float(rng.uniform(0.48, 0.8)) if rng.random() < 0.5 else camera.fx
    # A real baseline: sizes in a street are given, not drawn.
    baseline = float(rng.uniform(0.12, 0.8)) * min(1.0, b.max_disparity / 192)
    b.camera = replace(camera, fx=focal, fy=focal, baseline=baseline)
    height = float(rng.uniform(1.0, 2.4))
    pace = min(1.0, b.max_flow / 250)
    speed = rng.choice([0.0, rng.uniform(0, 0.8), rng.uniform(0.3, 2.2)], p=[0.1, 0.4, 0.5])
    speed = pace * float(speed)
    # Mostly straight on, and now and then round a corner.
    yaw = pace * float(rng.normal(0, rng.choice([0.003, 0.015, 0.08], p=[0.4, 0.3, 0.3])))
    turn = np.array([pace * rng.normal(0, 0.006), -yaw, pace * rng.normal(0, 0.004)])
    step = np.array([pace * rng.normal(0, 0.03), pace * rng.normal(0, 0.02), -speed])
    if rng.random() < 0.1:
        step[2] = -step[2]
    b.scene.motions = np.stack([np.eye(4), pose_of(rotation(turn), step)])
    ground = pose_of(rotation(rng.normal(0, [0.05, 0.0, 0.03])), np.array([0, height, 0]))
    # Mostly a plain sky.
    contrast = float(rng.choice([0.0, rng.uniform(0, 0.4), 1.0], p=[0.3, 0.5, 0.2]))
    b.backdrop(float(rng.uniform(0.2, 1.2)) * b.reach / 200, contrast)

    road = b.scene.add_standing(ground)
    finish = b.flat(b.material(materials.ROAD), 6.0, 8.0)
    _add_on_road(b, road, rectangle(800, 800), finish, 0.0)
    edge = float(rng.uniform(3.0, 9.0))
    if rng.random() < 0.5:
        _add_lane_markings(b, road, edge)
    if rng.random() < 0.6:
        _add_shadows(b, road, finish, edge)
    for side in (-1, 1):
        _add_roadside(b, ground, side * edge)
    for _ in range(int(rng.integers(2, 8))):
        _add_vehicle(b, ground, edge, pace)
    for _ in range(int(rng.integers(0, 5))):
        _add_walker(b, ground, edge, pace)


def _add_on_road(b: Builder, road: int, outline: np.ndarray, finish: Finish, lift: float) -> None:
    """Something flat on the road, its outline (x, z), m, and a little above it, m."""
    b.polygon(road, np.array([0, -lift, 0]), np.eye(3)[[0, 2]], outline, finish)


def _add_lane_markings(b: Builder, road: int, edge: float) -> None:
    rng = b.rng
    finish = b.flat(b.material(materials.LINE), 2.0, 6.0)
    half = float(rng.uniform(0.05, 0.1))

    def line(x: float, start: float, end: float) -> None:
        outline = [(x - half, start), (x + half, start), (x + half, end), (x - half, end)]
        _add_on_road(b, road, np.array(outline), finish, 0.01)

    for x in (0.4 - edge, edge - 0.4):
        line(x, -5.0, 150.0)
    x, place = float(rng.uniform(-0.5, 0.5) * edge), float(rng.uniform(-2, 6))
    dash, gap = float(rng.uniform(1.5, 6)), float(rng.uniform(1.5, 9))
    for _ in range(int(rng.integers(4, 9))):
        line(x, place, place + dash)
        place += dash + gap


def _add_shadows(b: Builder, road: int, finish: Finish, edge: float) -> None:
    """Where the road is in the shade of what stands beside it: its own texture, darker."""
    rng = b.rng
    dark = float(rng.uniform(0.25, 0.7))
    finish = replace(finish, gain=scaled(finish.gain, dark), offset=scaled(finish.offset, dark))
    side = float(rng.choice([-1.0, 1.0]))
    for layer in range(int(rng.integers(1, 6))):
        z, long = log_uniform(rng, 3, 50), float(rng.uniform(1, 12))
        reach = side * edge * float(rng.uniform(-0.8, 0.8))
        skew = float(rng.normal(0, 3))
        corners = [
            (side * edge, z),
            (reach, z + skew),
            (reach, z + skew + long),
            (side * edge, z + long),
        ]
        # One above the other: where they overlap they are no darker.
        _add_on_road(b, road, np.array(corners), finish, 0.004 + 0.001 * layer)


def _at(ground: np.ndarray, x: float, z: float, yaw: float) -> np.ndarray:
    """Pose of an object that stands on the ground, y downwards and z forward."""
    return ground @ pose_of(rotation(np.array([0, yaw, 0])), np.array([x, 0, z]))


def _add_roadside(b: Builder, ground: np.ndarray, x: float) -> None:
    """Pavement, buildings, trees, posts and fences on one side."""
    rng = b.rng
    side = math.copysign(1.0, x)
    obj = b.scene.add_standing(ground)
    kerb = float(rng.uniform(0.05, 0.3))
    coat = b.material(materials.LAWN if rng.random() < 0.4 else materials.PAVEMENT)
    b.box(
        obj, np.array([x + side * 8, -kerb / 2, 40.0]), np.array([16.0, kerb, 120.0]), [coat], 10.0
    )  # fmt: skip
    place = float(rng.uniform(-8, 4))
    front = x + side * rng.uniform(1.5, 7)
    while place < 90:
        wide, high = float(rng.uniform(5, 22)), float(rng.uniform(2.5, 16))
        if rng.random() < 0.75:
            size = np.array([rng.uniform(5, 12), high, wide])
            center = np.array([front + side * size[0] / 2, -high / 2, place + wide / 2])
            hedge = rng.random() < 0.4
            b.box(
                obj,
                center,
                size,
                [b.material(materials.FOLIAGE if hedge else materials.BUILDING)],
                15.0,
            )
        place += wide + float(rng.choice([0.0, rng.uniform(0, 8)]))
    place = float(rng.uniform(2, 8))
    gap = log_uniform(rng, 3, 20)
    trunk, crown = b.material(materials.TRUNK), b.material(materials.FOLIAGE)
    trees = rng.random() < 0.5
    while place < 60:
        foot = np.array([x + side * rng.uniform(0.3, 1.2), -kerb, place])
        if trees:
            crown_size = float(rng.uniform(1.5, 3)), float(rng.uniform(1.2, 2.6))
            add_tree(b, obj, foot, crown_size, 3 if place < 20 else 1, trunk, crown)
        else:
            b.post(obj, foot, float(rng.uniform(0.8, 5)), float(rng.uniform(0.03, 0.1)), trunk)
        place += gap * float(rng.uniform(0.7, 1.3))
    if rng.random() < 0.35:
        add_fence(b, obj, x, kerb, b.material(materials.PAINT))


def _driven(
    b: Builder, ground: np.ndarray, x: float, z: float, yaw: float, displacement: float, turned: float, size: float
) -> int | None:  # fmt: skip
    """An object on the ground that moves `displacement` m ahead and turns by `turned` rad; None if it would come too near."""
    before = _at(ground, x, z, yaw)
    heading = yaw + turned / 2
    end = x + displacement * math.sin(heading), z + displacement * math.cos(heading)
    after = b.scene.motions[1] @ _at(ground, *end, yaw + turned * (displacement > 0))
    if b.too_fast(before, after, size):
        return None
    if displacement > 0:
        return b.scene.add_moving(np.stack([before, after]))
    return b.scene.add_standing(before)


def _add_vehicle(b: Builder, ground: np.ndarray, edge: float, pace: float) -> None:
    rng = b.rng
    long = float(rng.choice([rng.uniform(3.5, 5), rng.uniform(5, 11)], p=[0.8, 0.2]))
    high = float(rng.uniform(1.3, 1.6) if long < 5 else rng.uniform(2, 3.4))
    wide = float(rng.uniform(1.6, 2.0) if long < 5 else rng.uniform(1.9, 2.5))
    z = 2.5 + long / 2 + log_uniform(rng, 1.0, 50)
    x = float(rng.uniform(-edge + 1, edge - 1))
    yaw = float(rng.choice([0, np.pi, rng.uniform(-np.pi, np.pi)], p=[0.4, 0.4, 0.2]))
    yaw += rng.normal(0, 0.05)
    displacement = pace * float(rng.choice([0.0, rng.uniform(0, 2.0)], p=[0.3, 0.7]))
    obj = _driven(b, ground, x, z, yaw, displacement, float(rng.normal(0, 0.03)), long)
    if obj is None:
        return
    paint, glass, dark = (
        b.material(m) for m in (materials.PAINT, materials.GLASS, materials.GLASS)
    )
    add_vehicle(b, obj, (wide, high, long), z, paint, [glass, paint], dark)


def _add_walker(b: Builder, ground: np.ndarray, edge: float, pace: float) -> None:
    rng = b.rng
    high = float(rng.uniform(1.5, 1.9))
    x, z = float(rng.uniform(-edge - 2, edge + 2)), 3 + log_uniform(rng, 1, 25)
    yaw = float(rng.uniform(-np.pi, np.pi))
    displacement, turned = pace * float(rng.uniform(0, 0.3)), float(rng.normal(0, 0.1))
    obj = _driven(b, ground, x, z, yaw, displacement, turned, 0.6)
    if obj is None:
        return
    add_walker(b, obj, high, b.coat(), b.coat(), b.coat())
