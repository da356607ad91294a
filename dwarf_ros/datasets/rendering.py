"""Views of rigid bodies with flat and curved surfaces: images, inverse depths and exact motion, one ray a pixel.

A flat surface is a convex polygon: in a view 1 / depth, and its coordinates over depth, are affine in the pixel. A curved
one is a quadric of revolution (ellipsoid, cylinder, frustum): 1 / depth is the root of a quadratic equation. The nearest
surface at a pixel's centre is what the pixel's ground truth speaks of; where an outline passes through the pixel, its
colour is mixed with what lies behind. Textures are filtered for the pixel's footprint.

Poses take points, m, to the left camera's optical frame (REP-103). Images are H x W, x to the right, y downwards, px.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np

from dwarf_ros.datasets.textures import SIZE, TextureBank, rows_of
from dwarf_ros.types import StereoCamera

NEAR = 0.02
"""Surfaces nearer than this to the camera's plane may not be seen, m."""

_TOLERANCE = 1e-4
"""How much nearer, as a part, another surface must be to hide a point."""

_CRACK = 1e-3
"""How far a surface reaches beyond its outline, px."""

_EDGE = 2e-3
"""How much farther, as a part, a surface may be that takes its part of a pixel that its outline passes through."""

_FARTHEST = 1e-7
"""Least inverse depth that is drawn, 1/m."""


@dataclass(frozen=True)
class Finish:
    """What covers a surface.

    Attributes:
        texture: index in the bank.
        texels: texels of the first level to a metre (flat), or repeats round the axis, a whole number (curved).
        angle: of the texture on a flat surface, rad.
        shift: of the texture, texels.
        gain: RGB, multiplies the texture.
        offset: RGB, 0 .. 255, added.
        shade: on curved surfaces, how much darker the side away from `light` is, 0 .. 1.
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


@dataclass
class Scene:
    """The surfaces of a scene while it is built: polygons first, quadrics after them, as their numbers go.

    Attributes:
        bodies: 4 x 4 poses of each body, body to left camera, at both times.
    """

    bodies: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    _polygon_body: list[int] = field(default_factory=list)
    _plane: list[np.ndarray] = field(default_factory=list)
    _outline: list[np.ndarray] = field(default_factory=list)
    _facing: list[int] = field(default_factory=list)
    _quadric_body: list[int] = field(default_factory=list)
    _frame: list[np.ndarray] = field(default_factory=list)
    _form: list[tuple[float, float, float]] = field(default_factory=list)
    _polygon_finish: list[Finish] = field(default_factory=list)
    _quadric_finish: list[Finish] = field(default_factory=list)
    _layout: _Layout | None = None

    def add_body(self, before: np.ndarray, after: np.ndarray) -> int:
        """A rigid body by its pose, body to left camera, 4 x 4, at both times; gives its number."""
        self.bodies.append((before, after))
        return len(self.bodies) - 1

    def add_polygon(
        self,
        body: int,
        origin: np.ndarray,
        along: np.ndarray,
        up: np.ndarray,
        corners: np.ndarray,
        finish: Finish,
        facing: int = 0,
    ) -> None:
        """A convex polygon: `origin + u * along + v * up`, m, in the body's frame, axes of unit length and square.

        Args:
            body: its number.
            origin: 3, m.
            along: 3, axis of u.
            up: 3, axis of v.
            corners: K x 2, (u, v), m, in either sense of turning.
            finish: what covers it.
            facing: 1: it is only seen from the side that `cross(along, up)` points to, as a closed body's faces are;
                -1: only from the other; 0: from both.
        """
        self._polygon_body.append(body)
        self._plane.append(np.stack([origin, along, up], axis=1).astype(np.float64))
        self._outline.append(np.asarray(corners, np.float64))
        self._facing.append(facing)
        self._polygon_finish.append(finish)

    def add_quadric(
        self,
        body: int,
        frame: np.ndarray,
        form: tuple[float, float, float],
        finish: Finish,
    ) -> None:
        """The surface x^2 + y^2 + a z^2 + 2 b z + c = 0, -1 <= z <= 1, of a frame that may be scaled.

        Args:
            body: its number.
            frame: 4 x 4, affine, from that frame to the body's, m.
            form: (a, b, c): see `ELLIPSOID`, `CYLINDER` and `frustum`.
            finish: what covers it.
        """
        self._quadric_body.append(body)
        self._frame.append(frame)
        self._form.append(form)
        self._quadric_finish.append(finish)

    def view(self, time: int, offset: float, camera: StereoCamera) -> View:
        """What a camera sees that stands `offset` m to the right of the left one, at time 0 or 1."""
        return View(self, time, offset, camera)

    @property
    def polygons(self) -> int:
        """Number of polygons, and so the number of the first quadric."""
        return len(self._polygon_body)

    def surface_bodies(self) -> np.ndarray:
        """Body of each surface, int."""
        return np.array(self._polygon_body + self._quadric_body, dtype=np.intp)

    def layout(self) -> _Layout:
        """The polygons as arrays, with what does not depend on the view."""
        if self._layout is None or len(self._layout.plane) != self.polygons:
            most = max(len(outline) for outline in self._outline)
            # Shorter outlines repeat their first corner, and so end in edges of no length, which cut nothing off.
            order = np.arange(most)
            padded = np.stack([o[np.where(order < len(o), order, 0)] for o in self._outline])
            step = np.roll(padded, -1, axis=1) - padded
            cross = padded[..., 0] * step[..., 1] - padded[..., 1] * step[..., 0]
            turned = np.where(cross.sum(axis=1) < 0, -1.0, 1.0)[:, None]
            edges = np.zeros((len(padded), most, 3))
            edges[..., 1], edges[..., 2] = -turned * step[..., 1], turned * step[..., 0]
            edges[..., 0] = -edges[..., 1] * padded[..., 0] - edges[..., 2] * padded[..., 1]
            corners = np.ones((len(padded), 3, most))
            corners[:, 1:] = padded.transpose(0, 2, 1)
            texture = np.zeros((len(padded), 3, 3))
            texture[:, 0, 0] = 1
            for matrix, finish in zip(texture, self._polygon_finish, strict=True):
                cos, sin = math.cos(finish.angle), math.sin(finish.angle)
                matrix[1:, 0] = finish.shift
                matrix[1:, 1:] = finish.texels * np.array([[cos, -sin], [sin, cos]])
            self._layout = _Layout(
                plane=np.stack(self._plane),
                corners=corners,
                edges=edges,
                count=np.array([len(outline) for outline in self._outline]),
                texture=texture,
            )
        return self._layout


@dataclass(frozen=True, eq=False)
class _Layout:
    """Polygons: `plane` F x 3 x 3 (origin, along, up); `corners` F x 3 x K and `edges` F x K x 3 in (1, u, v), edges
    positive inside; `count` of corners; `texture` F x 3 x 3 from (1, u, v) to (1, s, t).
    """

    plane: np.ndarray
    corners: np.ndarray
    edges: np.ndarray
    count: np.ndarray
    texture: np.ndarray


ELLIPSOID = (1.0, 0.0, -1.0)
CYLINDER = (0.0, 0.0, -1.0)


def frustum(top: float) -> tuple[float, float, float]:
    """Form of a cone's part: radius 1 at z = -1 and `top`, 0 .. 1, at z = 1."""
    middle, slope = (1 + top) / 2, (1 - top) / 2
    return (-slope * slope, middle * slope, -middle * middle)


class View:
    """A scene as one camera sees it at one time.

    Attributes:
        surface: int32 H x W, number of the surface at each pixel's centre; -1 where there is none.
        inverse_depth: float32 H x W, its inverse depth, 1/m; next to 0 where there is none.
    """

    def __init__(self, scene: Scene, time: int, offset: float, camera: StereoCamera) -> None:
        self.camera = camera
        self.width, self.height = camera.width, camera.height
        cx = camera.cx if offset == 0 else camera.cx_right
        self._to_ray = np.array(
            [[1 / camera.fx, 0, -cx / camera.fx], [0, 1 / camera.fy, -camera.cy / camera.fy], [0, 0, 1]]
        )  # fmt: skip
        self._project = np.array([[camera.fx, 0, cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
        self._scene = scene
        self._body = scene.surface_bodies()
        poses = np.stack([body[time] for body in scene.bodies])
        poses[:, 0, 3] -= offset
        self._prepare_polygons(poses)
        self._prepare_quadrics(poses)
        self._columns = np.arange(self.width, dtype=np.float64)
        self._rows = np.arange(self.height, dtype=np.float64)
        self.surface = np.full((self.height, self.width), -1, np.int32)
        self.inverse_depth = np.full((self.height, self.width), _FARTHEST, np.float32)
        # Where an outline passes: the other surface in the pixel, its inverse depth and its part of the pixel.
        self._other = np.zeros((self.height, self.width), np.int32)
        self._other_depth = np.zeros((self.height, self.width), np.float32)
        self._other_part = np.zeros((self.height, self.width), np.float32)
        for index in np.argsort(self._depth, kind="stable")[::-1]:
            if index < scene.polygons:
                self._draw_polygon(int(index))
            else:
                self._draw_quadric(int(index) - scene.polygons)

    def _prepare_polygons(self, poses: np.ndarray) -> None:
        scene = self._scene
        count = scene.polygons
        self._depth = np.empty(count + len(scene._form))
        self._box = np.zeros((count + len(scene._form), 4), int)
        self._affine = np.zeros((count, 3, 3))
        self._edges = np.zeros((count, 0, 3))
        if not count:
            return
        layout = scene.layout()
        pose = poses[scene._polygon_body]
        plane = pose[:, :3, :3] @ layout.plane
        plane[:, :, 0] += pose[:, :3, 3]
        # The determinant is how far the plane is from the camera, positive where its normal points away.
        distance = np.linalg.det(plane)
        seen = (np.abs(distance) > 1e-9) & (distance * scene._facing <= 0)
        # `plane` holds points; its inverse gives (1, u, v) / depth for a pixel.
        rows = np.zeros_like(plane)
        rows[seen] = np.linalg.inv(plane[seen]) @ self._to_ray
        self._affine = layout.texture @ rows
        edges = layout.edges @ rows
        slope = np.hypot(edges[..., 0], edges[..., 1])
        self._edges = edges / np.maximum(slope, 1e-12)[..., None]
        corners = plane @ layout.corners
        self._depth[:count] = corners[:, 2].mean(axis=1)
        front = corners[:, 2] >= NEAR
        whole = front.all(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            image = (self._project[:2] @ corners) / corners[:, 2:]
        self._box[:count] = self._boxes(image.min(axis=2), image.max(axis=2))
        for index in np.flatnonzero(~whole):
            self._box[index] = self._bounds_clipped(corners[index])
        self._box[:count][~seen] = 0

    def _boxes(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """First column, the column after the last, and the rows alike, of extents N x 2, and the pixels next to them."""
        limits = np.array([self.width, self.height])
        low = np.clip(np.nan_to_num(np.floor(low)) - 1, 0, limits)
        high = np.clip(np.nan_to_num(np.ceil(high)) + 2, 0, limits)
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1).astype(int)

    def _bounds_clipped(self, corners: np.ndarray) -> np.ndarray:
        """Bounds of a polygon, corners 3 x K, that reaches behind the camera."""
        points = []
        for point, after in zip(corners.T, np.roll(corners, -1, axis=1).T, strict=True):
            if point[2] >= NEAR:
                points.append(point)
            if (point[2] >= NEAR) != (after[2] >= NEAR):
                points.append(point + (NEAR - point[2]) / (after[2] - point[2]) * (after - point))
        if not points:
            return np.zeros(4, int)
        front = np.stack(points, axis=1)
        image = self._project[:2] @ front / front[2]
        return self._boxes(image.min(axis=1)[None], image.max(axis=1)[None])[0]

    def _prepare_quadrics(self, poses: np.ndarray) -> None:
        scene = self._scene
        first, count = scene.polygons, len(scene._form)
        self._form = np.array(scene._form).reshape(-1, 3)
        self._ray = np.zeros((count, 3, 3))
        self._origin = np.zeros((count, 3))
        if not count:
            return
        pose = poses[scene._quadric_body] @ np.stack(scene._frame)
        back = np.linalg.inv(pose)
        # In the quadric's frame a pixel's ray is `origin + depth * ray (x, y, 1)`.
        self._ray = back[:, :3, :3] @ self._to_ray
        self._origin = back[:, :3, 3]
        self._depth[first:] = pose[:, 2, 3]
        cube = np.array([[x, y, z, 1] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]).T
        corners = pose[:, :3] @ cube
        front = corners[:, 2] >= NEAR
        # The outline's tangents along the axes, from the dual conics of an ellipsoid, or of a tube's two ends.
        ball = self._form[:, 0] == 1
        onto = self._project @ pose[:, :3]
        low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        # The squared radius of an end, where z is -1 or 1, is -(a + 2 b z + c).
        for z in (-1.0, 1.0):
            radius = np.sqrt(np.maximum(-(self._form @ np.array([1, 2 * z, 1])), 0))
            radius[ball] = 1
            reach = onto[:, :, :2] * radius[:, None, None]
            depth_axis = np.where(ball[:, None], onto[:, :, 2], 0)
            centre = onto[:, :, 3] + np.where(ball, 0, z)[:, None] * onto[:, :, 2]
            spread = (reach**2).sum(axis=2) + depth_axis**2 - centre**2
            mixed = (reach[:, :2] * reach[:, 2:]).sum(axis=2) + depth_axis[:, :2] * depth_axis[
                :, 2:
            ]
            mixed -= centre[:, :2] * centre[:, 2:]
            with np.errstate(divide="ignore", invalid="ignore"):
                root = np.sqrt(np.maximum(mixed**2 - spread[:, 2:] * spread[:, :2], 0))
                ends = (mixed - root) / spread[:, 2:], (mixed + root) / spread[:, 2:]
            low, high = np.minimum(low, np.minimum(*ends)), np.maximum(high, np.maximum(*ends))
        box = self._boxes(low, high)
        box[~front.all(axis=1)] = (0, self.width, 0, self.height)
        box[~front.any(axis=1)] = 0
        self._box[first:] = box

    def _window(self, number: int) -> tuple[slice, slice] | None:
        x0, x1, y0, y1 = self._box[number]
        if x0 >= x1 or y0 >= y1:
            return None
        return slice(y0, y1), slice(x0, x1)

    def _draw_polygon(self, index: int) -> None:
        window = self._window(index)
        if window is None:
            return
        edges = self._edges[index, : self._scene.layout().count[index]]
        x = window[1].start, window[1].stop - 1
        y = window[0].start, window[0].stop - 1
        ends = edges @ np.array([[x[0], x[1], x[0], x[1]], [y[0], y[0], y[1], y[1]], [1, 1, 1, 1]])
        if (ends < -0.5).all(axis=1).any():
            return
        rows = np.concatenate([self._affine[index, :1], edges[(ends < 0.5).any(axis=1)]])
        across = (rows[:, :1] * self._columns[window[1]]).astype(np.float32)
        down = (rows[:, 1:2] * self._rows[window[0]] + rows[:, 2:]).astype(np.float32)
        values = across[:, None, :] + down[:, :, None]
        margin = values[1:].min(axis=0) if len(values) > 1 else None
        self._put(index, window, values[0], margin)

    def _draw_quadric(self, index: int) -> None:
        number = self._scene.polygons + index
        window = self._window(number)
        if window is None:
            return
        x, y = self._columns[None, window[1]], self._rows[window[0], None]
        ray, origin, (a, b, _) = self._ray[index], self._origin[index], self._form[index]
        ex, ey, ez = (row[0] * x + (row[1] * y + row[2]) for row in ray)
        constant = self._value(index)
        half = ex * origin[0] + ey * origin[1] + ez * (a * origin[2] + b)
        discriminant = half * half - constant * (ex * ex + ey * ey + a * (ez * ez))
        root = np.sqrt(np.maximum(discriminant, 0))
        # The greater root is the nearer; it is the second where the camera is within the surface or its continuation.
        sign = 1.0 if constant > 0 else -1.0
        depth = (-half + sign * root) / constant
        # Distance to the outline, px, to first order.
        slope = [
            half * (ray[0, k] * origin[0] + ray[1, k] * origin[1] + ray[2, k] * (a * origin[2] + b))
            - constant * (ex * ray[0, k] + ey * ray[1, k] + a * (ez * ray[2, k]))
            for k in (0, 1)
        ]
        margin = discriminant / (2 * np.hypot(*slope) + 1e-30)
        if a != 1.0:
            hit = np.abs(ez + origin[2] * depth) <= depth
            far = (-half - sign * root) / constant
            hit_far = np.abs(ez + origin[2] * far) <= far
            depth = np.where(hit | ~hit_far, depth, far)
            margin = np.where(hit | hit_far, margin, -1.0)
        self._put(number, window, depth.astype(np.float32), margin.astype(np.float32))

    def _value(self, index: int) -> float:
        x, y, z = self._origin[index]
        a, b, c = self._form[index]
        return float(x * x + y * y + a * z * z + 2 * b * z + c)

    def _put(
        self,
        number: int,
        window: tuple[slice, slice],
        depth: np.ndarray,
        margin: np.ndarray | None,
    ) -> None:
        """Draw a surface: its inverse depth, and how far pixels are within its outline, px; None: all are."""
        old_depth, old = self.inverse_depth[window], self.surface[window]
        part = self._other_part[window]
        inside = depth > old_depth
        rim = None
        if margin is not None:
            places = np.flatnonzero(np.abs(margin) < 0.5)
            # Adjoining faces leave no crack between them.
            inside &= margin >= -_CRACK
            if len(places):
                rim = np.divmod(places, margin.shape[1])
                rim_margin = margin[rim]
                outside = rim_margin < -_CRACK
                # The faces of an edge are equally far there: the one beyond it belongs to the pixel all the same.
                taken = inside[rim] | (outside & (depth[rim] * (1 + _EDGE) > old_depth[rim]))
                rim = rim[0][taken], rim[1][taken]
                outside, rim_margin = outside[taken], rim_margin[taken]
                rim_old, rim_old_depth = old[rim], old_depth[rim]
                before, before_part = self._other[window][rim], part[rim]
                before_depth = self._other_depth[window][rim]
        np.copyto(old_depth, depth, where=inside)
        np.copyto(old, np.int32(number), where=inside)
        np.copyto(part, np.float32(0), where=inside)
        if rim is not None:
            body = self._body
            kept = (before_part > 0) & (body[before] == body[number]) & ~outside
            other = np.where(outside, number, np.where(kept, before, rim_old))
            self._other[window][rim] = other
            self._other_depth[window][rim] = np.where(
                outside, depth[rim], np.where(kept, before_depth, rim_old_depth)
            )
            part[rim] = np.where(other >= 0, np.maximum(0.5 - np.abs(rim_margin), 0), 0)

    def cast(
        self, number: np.ndarray, x: np.ndarray, y: np.ndarray, within: np.ndarray | None = None
    ) -> np.ndarray:
        """Inverse depth, 1/m, float64 N, of given surfaces on rays through (x, y), px; 0 where a ray misses.

        Args:
            number: of each surface, N.
            x: column of each ray, px.
            y: its row.
            within: bool N, polygons that are known to be hit.
        """
        result = np.zeros(len(number))
        flat = number < self._scene.polygons
        chosen = np.flatnonzero(flat)
        if len(chosen):
            depth = self._on_plane(self._affine[:, 0], number[chosen], x[chosen], y[chosen])
            result[chosen] = np.where(depth > _FARTHEST, depth, 0)
            count = self._scene.layout().count
            if within is not None:
                chosen = chosen[~within[chosen]]
            for k in range(self._edges.shape[1]):
                # What has been missed, or has no such edge, needs no further look.
                index = number[chosen]
                chosen = chosen[(count.take(index) > k) & (result[chosen] > 0)]
                index = number[chosen]
                margin = self._on_plane(self._edges[:, k], index, x[chosen], y[chosen])
                result[chosen[margin < -_CRACK]] = 0
        for chosen in _by_number(number, np.flatnonzero(~flat)):
            quadric = int(number[chosen[0]]) - self._scene.polygons
            e = (
                np.stack([x[chosen], y[chosen], np.ones(len(chosen))], axis=1)
                @ self._ray[quadric].T
            )
            origin, (a, b, _) = self._origin[quadric], self._form[quadric]
            constant = self._value(quadric)
            half = e[:, 0] * origin[0] + e[:, 1] * origin[1] + e[:, 2] * (a * origin[2] + b)
            square = half * half - constant * (e[:, 0] ** 2 + e[:, 1] ** 2 + a * e[:, 2] ** 2)
            root = np.sqrt(np.maximum(square, 0))
            best = np.zeros(len(chosen))
            for sign in (-1, 1):
                depth = (-half + sign * root) / constant
                hit = (square >= 0) & (depth > _FARTHEST)
                if a != 1.0:
                    hit &= np.abs(e[:, 2] + origin[2] * depth) <= depth
                best = np.maximum(best, np.where(hit, depth, 0))
            result[chosen] = best
        return result

    @staticmethod
    def _on_plane(rows: np.ndarray, index: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Values of affine functions, rows[index], at pixels."""
        first, second, third = (np.ascontiguousarray(rows[:, k]).take(index) for k in range(3))
        return first * x + second * y + third

    def hides(
        self, number: np.ndarray, x: np.ndarray, y: np.ndarray, inverse_depth: np.ndarray
    ) -> np.ndarray:
        """Whether points are hidden in this view by what is seen in the four pixels about them, or outside the image.

        Args:
            number: surface of each point, N.
            x: its column in this view, px; NaN counts as outside.
            y: its row.
            inverse_depth: its own in this view, 1/m.

        Returns:
            bool N.
        """
        with np.errstate(invalid="ignore"):
            inside = (x >= -_CRACK) & (x <= self.width - 1 + _CRACK)
            inside &= (y >= -_CRACK) & (y <= self.height - 1 + _CRACK)
        hidden = ~inside
        left = np.where(inside, x, 0).astype(np.intp).clip(0, self.width - 2)
        top = np.where(inside, y, 0).astype(np.intp).clip(0, self.height - 2)
        start = top * self.width + left
        # Most points lie amid their own surface. Flat ones cannot hide themselves.
        polygons = self._scene.polygons
        curved = np.arange(len(self._body)) >= polygons
        flat = self.surface.ravel()
        steps = (0, 1, self.width, self.width + 1)
        check = curved.take(number)
        own = number.astype(np.int32)
        for step in steps:
            check |= flat.take(start + step) != own
        chosen = np.flatnonzero(check & inside)
        number, start = number[chosen], start[chosen]
        x, y, inverse_depth = x[chosen], y[chosen], inverse_depth[chosen] * (1 + _TOLERANCE)
        covered = np.zeros(len(chosen), bool)
        # Polygons are convex: one that is seen in all four pixels is there between them.
        corners = [flat.take(start + step) for step in steps]
        within = (
            (corners[0] == corners[1]) & (corners[0] == corners[2]) & (corners[0] == corners[3])
        )
        seen: list[np.ndarray] = []
        for there in corners:
            check = ~covered & (there >= 0)
            check &= (there != number) | curved[there]
            for before in seen:
                check &= there != before
            seen.append(there)
            at = np.flatnonzero(check)
            if len(at):
                covered[at] |= self.cast(there[at], x[at], y[at], within[at]) > inverse_depth[at]
        hidden[chosen] |= covered
        return hidden

    def image(self, textures: TextureBank) -> np.ndarray:
        """The picture, uint8 RGB, H x W x 3."""
        shader = _Shader(self, textures)
        y, x = np.divmod(np.arange(self.width * self.height, dtype=np.int32), self.width)
        x32, y32 = x.astype(np.float32), y.astype(np.float32)
        colours = shader.colours(
            self.surface.ravel().astype(np.intp), x32, y32, self.inverse_depth.ravel()
        )
        part = self._other_part.ravel()
        mixed = np.flatnonzero(part > 0)
        if len(mixed):
            other = shader.colours(
                self._other.ravel()[mixed].astype(np.intp),
                x32[mixed],
                y32[mixed],
                self._other_depth.ravel()[mixed],
            )
            rows = rows_of(colours)
            mixture = rows[mixed].view(np.float32).reshape(-1, 4)
            mixture += part[mixed, None] * (other - mixture)
            rows[mixed] = rows_of(mixture)
        colours += 0.5
        np.clip(colours, 0, 255, out=colours)
        image = colours.astype(np.uint8).reshape(self.height, self.width, 4)
        return cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)


def _by_number(number: np.ndarray, places: np.ndarray) -> list[np.ndarray]:
    """Those of an array's places, int M, that hold the same number, together."""
    if not len(places):
        return []
    values = number[places]
    order = np.argsort(values.astype(np.int16), kind="stable")
    return np.split(places[order], np.flatnonzero(np.diff(values[order])) + 1)


class _Shader:
    """Colours of points on the surfaces of a view."""

    def __init__(self, view: View, textures: TextureBank) -> None:
        self.view, self.textures = view, textures
        scene = view._scene
        finishes = scene._polygon_finish + scene._quadric_finish
        self.finishes = finishes
        self.texture = np.array([finish.texture for finish in finishes])
        self.gain = np.array([(*finish.gain, 0) for finish in finishes], np.float32)
        self.offset = np.array([(*finish.offset, 0) for finish in finishes], np.float32)
        # One contiguous table a coefficient: gathering from it is what most of the time goes to.
        table = np.zeros((8, len(finishes)), np.float32)
        table[:, : scene.polygons] = view._affine.reshape(-1, 9).T[[0, 1, 3, 4, 5, 6, 7, 8]]
        self.table = table

    def colours(
        self, number: np.ndarray, x: np.ndarray, y: np.ndarray, inverse_depth: np.ndarray
    ) -> np.ndarray:
        """float32 N x 4, of surfaces at pixels (x, y), px, and inverse depths, 1/m."""
        # Curved surfaces get nought from the table and are filled in after.
        depth = 1 / np.maximum(inverse_depth, np.float32(_FARTHEST))
        w_x, w_y, s_x, s_y, s_1, t_x, t_y, t_1 = (column.take(number) for column in self.table)
        s = (s_x * x + s_y * y + s_1) * depth
        t = (t_x * x + t_y * y + t_1) * depth
        s_x -= s * w_x
        s_x *= depth
        s_y -= s * w_y
        s_y *= depth
        t_x -= t * w_x
        t_x *= depth
        t_y -= t * w_y
        t_y *= depth
        shade = self._curved(number, x, y, inverse_depth, s, t, s_x, s_y, t_x, t_y)
        area = np.abs(s_x * t_y - s_y * t_x)
        long_x = s_x * s_x + t_x * t_x
        long_y = s_y * s_y + t_y * t_y
        first = long_x >= long_y
        along_s, along_t = np.where(first, s_x, s_y), np.where(first, t_x, t_y)
        across = area / np.sqrt(np.maximum(np.maximum(long_x, long_y), np.float32(1e-12)))
        colours = self.textures.fetch(self.texture.take(number), s, t, along_s, along_t, across)
        colours *= self.gain.take(number, axis=0)
        colours += self.offset.take(number, axis=0)
        if shade is not None:
            colours *= shade[:, None]
        return colours

    def _curved(
        self, number: np.ndarray, x: np.ndarray, y: np.ndarray, inverse_depth: np.ndarray,
        s: np.ndarray, t: np.ndarray, s_x: np.ndarray, s_y: np.ndarray, t_x: np.ndarray, t_y: np.ndarray,
    ) -> np.ndarray | None:  # fmt: skip
        """Fill in the texture coordinates and their slopes on curved surfaces; every point's shade, None: all are lit."""
        view = self.view
        first = view._scene.polygons
        curved = np.flatnonzero(number >= first)
        if not len(curved):
            return None
        shades = np.ones(len(number), np.float32)
        for at in _by_number(number, curved):
            index = int(number[at[0]]) - first
            finish = self.finishes[index + first]
            ray = view._ray[index].astype(np.float32)
            origin = view._origin[index].astype(np.float32)
            a, b, _ = view._form[index].astype(np.float32)
            px, py, depth = x[at], y[at], 1 / inverse_depth[at]
            e = [ray[k, 0] * px + ray[k, 1] * py + ray[k, 2] for k in range(3)]
            point = [e[k] * depth + origin[k] for k in range(3)]
            normal = (point[0], point[1], a * point[2] + b)
            # Along the tangent plane: normal . (ray * depth) stays the same.
            facing = normal[0] * e[0] + normal[1] * e[1] + normal[2] * e[2]
            facing = np.where(np.abs(facing) < 1e-9, np.float32(1e-9), facing)
            radius2 = np.maximum(point[0] ** 2 + point[1] ** 2, np.float32(1e-4))
            around = np.float32(SIZE * finish.texels / np.pi)
            axes = np.linalg.norm(view._scene._frame[index][:3, :3], axis=0)
            along = around * np.float32(axes[2] / axes[0])
            s[at] = around * np.arctan2(point[1], point[0]) + np.float32(finish.shift[0])
            t[at] = along * point[2] + np.float32(finish.shift[1])
            for k, slope_s, slope_t in ((0, s_x, t_x), (1, s_y, t_y)):
                column = ray[:, k]
                turn = normal[0] * column[0] + normal[1] * column[1] + normal[2] * column[2]
                nearer = -turn / facing
                move = [(column[j] + e[j] * nearer) * depth for j in range(3)]
                slope_s[at] = around * (point[0] * move[1] - point[1] * move[0]) / radius2
                slope_t[at] = along * move[2]
            if finish.shade:
                length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2) + 1e-9
                lit = sum(n * c for n, c in zip(normal, finish.light, strict=True)) / length
                shades[at] = 1 - finish.shade * (0.5 - 0.5 * lit)
        return shades
