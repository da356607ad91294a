"""Scenes of rigid objects with flat and curved surfaces, from which views are rendered.

Poses take points, m, to the left camera's optical frame (REP-103: x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

NEAR = 0.02
"""Surfaces nearer than this to the camera's plane may not be seen, m."""

ELLIPSOID = (1.0, 0.0, -1.0)
CYLINDER = (0.0, 0.0, -1.0)


def frustum(top: float) -> tuple[float, float, float]:
    """Form of a truncated cone: radius 1 at z = -1 and `top`, 0 to 1, at z = 1."""
    middle, slope = (1 + top) / 2, (1 - top) / 2
    return (-slope * slope, middle * slope, -middle * middle)


@dataclass(frozen=True)
class Finish:
    """The appearance of a surface.

    Attributes:
        texture: index in the bank.
        texels: texels of the first level per meter (flat), or repeats around the axis, a whole number (curved).
        angle: of the texture on a flat surface, rad.
        shift: of the texture, texels.
        gain: RGB, multiplies the texture.
        offset: RGB, 0 to 255, added.
        shade: how much darker the side of a curved surface away from `light` is, 0 to 1.
        light: direction towards the light, in a curved surface's own frame.
    """

    texture: int
    texels: float
    angle: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shade: float = 0.0
    light: tuple[float, float, float] = (0.0, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Polygon:
    """A convex polygon: `origin + u * along + v * up`, m, in its object's frame.

    Attributes:
        obj: number of its object.
        origin: 3, m.
        along, up: 3, axes of u and v, of unit length and perpendicular.
        corners: K x 2, (u, v), m, in either direction.
        finish: its appearance.
        facing: 1: visible only from the side that `cross(along, up)` points to, like the faces of a closed object; -1:
            only from the other; 0: from both.
    """

    obj: int
    origin: np.ndarray
    along: np.ndarray
    up: np.ndarray
    corners: np.ndarray
    finish: Finish
    facing: int = 0


@dataclass(frozen=True, eq=False)
class Quadric:
    """The surface x^2 + y^2 + a z^2 + 2 b z + c = 0, -1 <= z <= 1, of a frame that may be scaled.

    Attributes:
        obj: number of its object.
        frame: 4 x 4, affine, from that frame to the object's, m.
        form: (a, b, c): `ELLIPSOID`, `CYLINDER` or `frustum`.
        finish: its appearance.
    """

    obj: int
    frame: np.ndarray
    form: tuple[float, float, float]
    finish: Finish


@dataclass
class Scene:
    """Objects and their surfaces. Surfaces are numbered: polygons first, then quadrics.

    Attributes:
        motions: T x 4 x 4, from the world to the left camera at each time.
        poses: of each object: T x 4 x 4, object to left camera at each time.
        moving: objects that move in the world.
        polygons, quadrics: the surfaces.
        decals: (polygon, surface, opacity): paint and shadows. A decal is not a surface: it covers the part of `surface`
            that the polygon, a quadrilateral, has in front of it with the polygon's `offset` color. The polygon counts
            among `polygons` but is never seen itself.
    """

    motions: np.ndarray = field(default_factory=lambda: np.stack([np.eye(4)] * 2))
    poses: list[np.ndarray] = field(default_factory=list)
    moving: set[int] = field(default_factory=set)
    polygons: list[Polygon] = field(default_factory=list)
    quadrics: list[Quadric] = field(default_factory=list)
    decals: list[tuple[int, int, float]] = field(default_factory=list)
    _layout: Layout | None = None

    def add_standing(self, pose: np.ndarray) -> int:
        """Add an object that does not move, by its pose in the world, 4 x 4; returns its number."""
        self.poses.append(self.motions @ pose)
        return len(self.poses) - 1

    def add_moving(self, poses: np.ndarray) -> int:
        """Add an object that moves, by its poses in the left camera, T x 4 x 4; returns its number."""
        self.poses.append(poses)
        self.moving.add(len(self.poses) - 1)
        return len(self.poses) - 1

    def add_decal(self, polygon: Polygon, surface: int, opacity: float) -> None:
        """Paint a quadrilateral on a surface."""
        self.decals.append((len(self.polygons), surface, opacity))
        self.polygons.append(polygon)

    def objects(self) -> np.ndarray:
        """Object of each surface, int."""
        surfaces: list[Polygon | Quadric] = [*self.polygons, *self.quadrics]
        return np.array([surface.obj for surface in surfaces], dtype=np.intp)

    def layout(self) -> Layout:
        """The polygons as arrays: what does not depend on the view."""
        if self._layout is None or len(self._layout.plane) != len(self.polygons):
            self._layout = Layout.of(self.polygons)
        return self._layout


@dataclass(frozen=True, eq=False)
class Layout:
    """Polygons as arrays.

    Attributes:
        plane: F x 3 x 3, columns origin, along, up.
        corners: F x 3 x K, (1, u, v).
        edges: F x K x 3, affine in (1, u, v), positive inside.
        count: F, number of corners.
        facing: F.
        texture: F x 3 x 3, from (1, u, v) to (1, s, t), texels.
    """

    plane: np.ndarray
    corners: np.ndarray
    edges: np.ndarray
    count: np.ndarray
    facing: np.ndarray
    texture: np.ndarray

    @classmethod
    def of(cls, polygons: list[Polygon]) -> Layout:
        """Arrays of a scene's polygons."""
        count = np.array([len(p.corners) for p in polygons])
        # Shorter outlines repeat their first corner: edges without length cut nothing off.
        padded = np.empty((len(polygons), count.max(), 2))
        for row, p in zip(padded, polygons, strict=True):
            row[: len(p.corners)] = p.corners
            row[len(p.corners) :] = p.corners[0]
        step = np.roll(padded, -1, axis=1) - padded
        cross = padded[..., 0] * step[..., 1] - padded[..., 1] * step[..., 0]
        turned = np.where(cross.sum(axis=1) < 0, -1.0, 1.0)[:, None]
        edges = np.zeros((*padded.shape[:2], 3))
        edges[..., 1], edges[..., 2] = -turned * step[..., 1], turned * step[..., 0]
        edges[..., 0] = -edges[..., 1] * padded[..., 0] - edges[..., 2] * padded[..., 1]
        corners = np.ones((len(padded), 3, padded.shape[1]))
        corners[:, 1:] = padded.transpose(0, 2, 1)
        texture = np.zeros((len(padded), 3, 3))
        texture[:, 0, 0] = 1
        values = [(p.finish.texels, p.finish.angle, *p.finish.shift) for p in polygons]
        texels, angle, *shift = np.array(values).T
        cos, sin = texels * np.cos(angle), texels * np.sin(angle)
        texture[:, 1:, 0] = np.stack(shift, axis=1)
        texture[:, 1, 1], texture[:, 1, 2] = cos, -sin
        texture[:, 2, 1], texture[:, 2, 2] = sin, cos
        plane = np.array([(p.origin, p.along, p.up) for p in polygons], np.float64)
        facing = np.array([p.facing for p in polygons])
        return cls(plane.transpose(0, 2, 1), corners, edges, count, facing, texture)
