"""Free scenes: textured boxes, cards, balls, tubes, rods and gratings, each with its own rigid motion, in a hollow box."""

from __future__ import annotations

import math

import numpy as np

from dwarf_ros.synthetic.materials import Coat
from dwarf_ros.synthetic.scene import CYLINDER, ELLIPSOID, frustum
from dwarf_ros.synthetic.shapes import Builder, log_uniform, pose_of, rectangle, rotation
from dwarf_ros.types import StereoCamera


def build_free_scene(b: Builder, disparity: float, flow: float) -> None:
    """Add everything to the scene.

    Args:
        b: builds it.
        disparity: largest, px.
        flow: longest, px.
    """
    rng, focal = b.rng, b.camera.fx
    far = log_uniform(rng, 0.5, min(14.0, disparity / 4))
    depth = b.reach / far
    steady = rng.random() < 0.25
    part = 0.0 if steady else float(rng.uniform(0.1, 0.9))
    turn = part * flow / focal * rng.uniform(0, 1) * _direction(rng)
    turn[2] = rng.normal(0, 0.05) * (not steady)
    step = part * flow * b.reach / disparity / focal * _direction(rng)
    step[2] *= 3
    b.scene.motions = np.stack([np.eye(4), pose_of(rotation(turn), step)])
    b.backdrop(far)
    if rng.random() < 0.5:
        _add_planes(b, depth)
    for _ in range(int(rng.integers(12, 36))):
        _add_object(b, far, disparity, flow)


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(0, 1, 3)
    return vector / np.linalg.norm(vector)


def _add_planes(b: Builder, depth: float) -> None:
    """A floor, and sometimes a wall, across the whole scene."""
    rng = b.rng
    span = 6 * depth
    for kind in range(int(rng.integers(1, 3))):
        coat = b.coat()
        height = depth * rng.uniform(0.08, 0.4)
        tilt = rotation(rng.normal(0, [0.2, 0.1, 0.15]))
        if kind == 0:
            center, axes = np.array([0, height, 0]), np.array([[1.0, 0, 0], [0, 0, 1.0]])
        else:
            side = rng.choice([-1.0, 1.0])
            center = np.array([side * rng.uniform(1, 4) * height, 0, 0])
            axes = np.array([[0, 1.0, 0], [0, 0, 1.0]])
        obj = b.scene.add_standing(np.eye(4))
        finish = b.flat(coat, 4 * height, 3 * height)
        turned = np.stack([tilt @ axes[0], tilt @ axes[1]])
        b.polygon(obj, tilt @ center, turned, rectangle(2 * span, 2 * span), finish)


def _add_object(b: Builder, far: float, limit: float, flow: float) -> None:
    """An object with its own motion, or standing, at a random place in the image."""
    rng, camera = b.rng, b.camera
    # Log-uniform, uniform, and near: small disparities are common and large ones not rare.
    kind = rng.random()
    if kind < 0.35:
        disparity = log_uniform(rng, 1.3 * far, limit)
    else:
        least = 1.3 * far if kind < 0.75 else 0.6 * limit
        disparity = float(rng.uniform(least, limit))
    depth = b.reach / disparity
    pixels = log_uniform(rng, 20, 0.75 * camera.width)
    size = pixels * depth / camera.fx
    # Objects reach towards the camera: their front, not their middle, has the drawn disparity.
    depth += 0.35 * size
    x = rng.uniform(-0.1, 1.1) * camera.width
    y = rng.uniform(-0.1, 1.1) * camera.height
    before = pose_of(rotation(rng.normal(0, 0.9, 3)), _point(camera, x, y, depth))
    obj = _placed(b, before, depth, size, flow)
    _add_shape(b, obj, size, depth)


def _point(camera: StereoCamera, x: float, y: float, depth: float) -> np.ndarray:
    return depth * np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0])


def _placed(b: Builder, before: np.ndarray, depth: float, size: float, flow: float) -> int:
    """A new object, which mostly moves."""
    rng, camera = b.rng, b.camera
    if rng.random() < 0.2:
        return b.scene.add_standing(before)
    reach = flow * float(rng.uniform(0, 1) ** rng.choice([0.5, 1.5]))
    angle = rng.uniform(0, 2 * np.pi)
    shift = reach * np.array([math.cos(angle), rng.uniform(0.3, 1) * math.sin(angle)])
    point = before[:3, 3]
    x = camera.fx * point[0] / point[2] + camera.cx + shift[0]
    y = camera.fy * point[1] / point[2] + camera.cy + shift[1]
    # No nearer than the largest disparity allows, no farther than half of it at once.
    ratio = math.exp(float(np.clip(rng.normal(0, 0.12) * min(1, reach / 20), -0.4, 0.4)))
    nearest = b.reach / b.max_disparity + 0.5 * size
    turn = rng.normal(0, 0.25, 3) * min(1.0, reach / 60)
    after = pose_of(
        rotation(turn) @ before[:3, :3], _point(camera, x, y, max(depth * ratio, nearest))
    )
    if b.too_fast(before, after, size):
        return b.scene.add_standing(before)
    return b.scene.add_moving(np.stack([before, after]))


def _add_shape(b: Builder, obj: int, size: float, depth: float) -> None:
    """A random shape of about `size` m around the object's origin."""
    rng = b.rng
    coat = b.coat()
    origin, axes = np.zeros(3), np.eye(3)
    kind = rng.random()
    if kind < 0.28:
        sizes = size * rng.uniform(0.25, 0.75, 3)
        b.box(obj, origin, sizes, [coat, b.coat()], depth)
    elif kind < 0.48:
        sides = (size * rng.uniform(0.4, 1), size * rng.uniform(0.4, 1))
        b.card(obj, origin, axes, sides, coat, depth, 1.0, int(rng.integers(3, 8)))
    elif kind < 0.66:
        radii = 0.5 * size * rng.uniform(0.35, 1.0, 3)
        b.quadric(obj, origin, axes, radii, ELLIPSOID, b.round(coat))
    elif kind < 0.76:
        radius = size * rng.uniform(0.12, 0.4)
        radii = np.array([radius, radius, 0.5 * size])
        form = CYLINDER if rng.random() < 0.5 else frustum(float(rng.uniform(0, 0.8)))
        b.quadric(obj, origin, axes, radii, form, b.round(coat))
    elif kind < 0.86:
        # A rod, two to six pixels wide.
        radius = rng.uniform(1, 3) * depth / b.camera.fx
        radii = np.array([radius, radius, size])
        b.quadric(obj, origin, axes, radii, CYLINDER, b.round(coat, 1))
    elif kind < 0.93:
        _add_grating(b, obj, size, depth, coat)
    else:
        # A dumb-bell: one rigid object of three parts.
        other = b.coat()
        radius = size * rng.uniform(0.1, 0.25)
        for sign in (-1, 1):
            radii = radius * rng.uniform(0.6, 1.2, 3)
            end = np.array([0, 0, sign * size / 2])
            b.quadric(obj, end, axes, radii, ELLIPSOID, b.round(coat))
        radii = np.array([0.3 * radius, 0.3 * radius, size / 2])
        b.quadric(obj, origin, axes, radii, CYLINDER, b.round(other, 1))


def _add_grating(b: Builder, obj: int, size: float, depth: float, coat: Coat) -> None:
    """Thin bars side by side in a frame."""
    rng = b.rng
    bars = int(rng.integers(3, 8))
    thick = max(1.2 * depth / b.camera.fx, size / bars * rng.uniform(0.08, 0.3))
    axes = np.eye(3)[:2]
    for place in np.linspace(-0.5, 0.5, bars) * size:
        b.card(obj, np.array([place, 0, 0]), axes, (thick, 0.8 * size), coat, depth)
    for place in (-0.4 * size, 0.4 * size):
        b.card(obj, np.array([0, place, 0]), axes, (size + thick, thick), coat, depth)
