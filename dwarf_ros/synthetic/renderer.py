"""Views of rigid bodies with flat and curved surfaces: images, inverse depths and exact motion, one ray a pixel.

A flat surface is a convex polygon: in a view 1 / depth, and its coordinates over depth, are affine in the pixel. A curved
one is a quadric of revolution (ellipsoid, cylinder, frustum): 1 / depth is the root of a quadratic equation. The nearest
surface at a pixel's centre is what the pixel's ground truth speaks of; where an outline passes through the pixel, its
colour is mixed with what lies behind. Textures are filtered for the pixel's footprint.

Poses take points, m, to the left camera's optical frame (REP-103). Images are H x W, x to the right, y downwards, px.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from dwarf_ros.synthetic.textures import PERIOD, TextureBank, rows_of
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

_PART = 1 << 15
"""Pixels that are coloured at a time."""


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
    _plane: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
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
        self._plane.append((origin, along, up))
        self._outline.append(corners)
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
            padded = np.empty((self.polygons, most, 2))
            for row, outline in zip(padded, self._outline, strict=True):
                row[: len(outline)] = outline
                row[len(outline) :] = outline[0]
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
            values = [(f.texels, f.angle, *f.shift) for f in self._polygon_finish]
            texels, angle, *shift = np.array(values).T
            cos, sin = texels * np.cos(angle), texels * np.sin(angle)
            texture[:, 1:, 0] = np.stack(shift, axis=1)
            texture[:, 1, 1], texture[:, 1, 2] = cos, -sin
            texture[:, 2, 1], texture[:, 2, 2] = sin, cos
            self._layout = _Layout(
                plane=np.array(self._plane, np.float64).transpose(0, 2, 1),
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
        surface: int16 H x W, number of the surface at each pixel's centre; -1 where there is none.
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
        self.surface = np.full((self.height, self.width), -1, np.int16)
        self.inverse_depth = np.full((self.height, self.width), _FARTHEST, np.float32)
        self._draw()

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
        cut = np.flatnonzero(~whole)
        if len(cut):
            self._box[cut] = self._boxes(*self._extent_clipped(corners[cut]))
        self._box[:count][~seen] = 0

    def _boxes(self, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """First column, the column after the last, and the rows alike, of extents N x 2, and the pixels next to them."""
        limits = np.array([self.width, self.height])
        # These leave no NaN.
        low = np.fmin(np.fmax(np.floor(low) - 1, 0), limits)
        high = np.fmin(np.fmax(np.ceil(high) + 2, 0), limits)
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1).astype(int)

    def _extent_clipped(self, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Least and greatest image coordinates, N x 2, px, of what is in front of polygons, corners N x 3 x K, that reach
        behind the camera; where nothing is, the greatest are less.
        """
        after = np.roll(corners, -1, axis=2)
        front = corners[:, 2] >= NEAR
        with np.errstate(divide="ignore", invalid="ignore"):
            part = (NEAR - corners[:, 2]) / (after[:, 2] - corners[:, 2])
            points = np.concatenate([corners, corners + part[:, None] * (after - corners)], axis=2)
            image = (self._project[:2] @ points) / points[:, 2:]
        known = np.concatenate([front, front != (after[:, 2] >= NEAR)], axis=1)[:, None]
        low = np.where(known, image, np.inf).min(axis=2)
        return low, np.where(known, image, -np.inf).max(axis=2)

    def _prepare_quadrics(self, poses: np.ndarray) -> None:
        scene = self._scene
        first, count = scene.polygons, len(scene._form)
        self._form = np.array(scene._form).reshape(-1, 3)
        self._ray = np.zeros((count, 3, 3))
        self._origin = np.zeros((count, 3))
        self._constant = np.zeros(count)
        self._half = np.zeros((count, 3))
        self._discriminant = np.zeros((count, 3, 3))
        if not count:
            return
        pose = poses[scene._quadric_body] @ np.stack(scene._frame)
        back = np.linalg.inv(pose)
        # In the quadric's frame a pixel's ray is `origin + depth * ray (x, y, 1)`.
        self._ray = back[:, :3, :3] @ self._to_ray
        self._origin = back[:, :3, 3]
        # So that at pixel p, (x, y, 1), 1 / depth solves constant w^2 + 2 (half . p) w + (square of the ray) = 0.
        weight = np.ones((count, 3))
        weight[:, 2] = self._form[:, 0]
        normal = weight * self._origin
        normal[:, 2] += self._form[:, 1]
        self._half = (normal[:, None] @ self._ray)[:, 0]
        self._constant = (weight * self._origin**2).sum(axis=1) + self._form[:, 2]
        self._constant += 2 * self._form[:, 1] * self._origin[:, 2]
        square = self._ray.transpose(0, 2, 1) @ (weight[:, :, None] * self._ray)
        self._discriminant = self._half[:, :, None] * self._half[:, None]
        self._discriminant -= self._constant[:, None, None] * square
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

    def _draw(self) -> None:
        """Draw all surfaces, the farther first: the nearer at a pixel's centre stays."""
        polygons = self._scene.polygons
        low, high, first = self._spans()
        columns = np.arange(self.width, dtype=np.int16)
        x = np.arange(self.width, dtype=np.float64)
        y = np.arange(self.height, dtype=np.float64)
        box = self._box
        number = np.flatnonzero((box[:, 0] < box[:, 1]) & (box[:, 2] < box[:, 3]))
        number = number[np.argsort(-self._depth[number], kind="stable")]
        for index in number.tolist():
            x0, x1, y0, y1 = box[index].tolist()
            if index < polygons:
                a, b, c = self._affine[index, 0].tolist()
                across, down = a * x[x0:x1], b * y[y0:y1] + c
                depth = across.astype(np.float32) + down.astype(np.float32)[:, None]
                mask = depth > self.inverse_depth[y0:y1, x0:x1]
                begin = first[index] + y0
                starts, ends = low[begin : begin + y1 - y0], high[begin : begin + y1 - y0]
                if starts.max() > x0:
                    mask &= columns[x0:x1] >= starts[:, None]
                if ends.min() < x1 - 1:
                    mask &= columns[x0:x1] <= ends[:, None]
            else:
                depth, mask = self._curved_depth(index - polygons, x[x0:x1], y[y0:y1, None])
                mask &= depth > self.inverse_depth[y0:y1, x0:x1]
            # Several times faster than numpy's assignment through a mask.
            mask = mask.view(np.uint8)
            cv2.copyTo(depth, mask, self.inverse_depth[y0:y1, x0:x1])
            cv2.copyTo(np.full(mask.shape, index, np.int16), mask, self.surface[y0:y1, x0:x1])

    def _spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and last column of each polygon in each row of its box, which is drawn in about them.

        Returns:
            Two arrays, int16, of all rows of all polygons, and where in them row 0 of each polygon is, or would be.
        """
        count = self._scene.polygons
        box = self._box[:count]
        rows = np.where(box[:, 0] < box[:, 1], box[:, 3] - box[:, 2], 0)
        start = np.cumsum(rows) - rows
        first = start - box[:, 2]
        number = np.repeat(np.arange(count), rows)
        y = (np.arange(len(number)) - first.take(number)).astype(np.float64)
        low, high = np.full(len(y), -np.inf), np.full(len(y), np.inf)
        for k in range(self._edges.shape[1]):
            at = (
                np.flatnonzero(self._scene.layout().count.take(number) > k)
                if k > 2
                else slice(None)
            )
            along, down, rest = (self._edges[:, k, j].take(number[at]) for j in range(3))
            reach = down * y[at] + rest + _CRACK
            with np.errstate(divide="ignore", invalid="ignore"):
                crossing = -reach / along
            # An edge along the row is beyond all columns, or before them.
            level = np.abs(along) < 1e-9
            crossing[level] = np.where(reach[level] < 0, np.inf, -np.inf)
            low[at] = np.where(level | (along > 0), np.maximum(low[at], crossing), low[at])
            high[at] = np.where(level | (along > 0), high[at], np.minimum(high[at], crossing))
        low = np.clip(np.ceil(low), box[number, 0], box[number, 1]).astype(np.int16)
        high = np.clip(np.floor(high), box[number, 0] - 1, box[number, 1] - 1).astype(np.int16)
        drawn = np.flatnonzero(rows)
        if len(drawn):
            starts, hit = start[drawn], low <= high
            box[drawn, 0] = np.minimum.reduceat(np.where(hit, low, self.width), starts)
            box[drawn, 1] = np.maximum.reduceat(np.where(hit, high, -1), starts) + 1
            box[drawn, 2] = np.minimum.reduceat(np.where(hit, y, self.height), starts)
            box[drawn, 3] = np.maximum.reduceat(np.where(hit, y, -1), starts) + 1
        return low, high, first

    def _curved_depth(
        self, index: int, x: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inverse depth, float32, of a quadric at columns x and rows y (R x 1), and where a ray meets it."""
        (xx, xy, x1), (_, yy, y1), (_, _, one) = self._discriminant[index].tolist()
        square = (2 * xy * y) * x
        square += xx * x * x + 2 * x1 * x
        square += yy * y * y + (2 * y1 * y + one)
        hit = square >= 0
        np.maximum(square, 0, out=square)
        root = np.sqrt(square, out=square)
        constant = float(self._constant[index])
        # The greater root is the nearer; it is the second where the camera is within the surface or its continuation.
        root *= 1 / abs(constant)
        a, b, c = (self._half[index] / -constant).tolist()
        middle = a * x + (b * y + c)
        depth = middle + root
        if self._form[index, 0] != 1.0:
            origin = self._origin[index, 2]
            a, b, c = self._ray[index, 2].tolist()
            along = a * x + (b * y + c)
            near = np.abs(along + origin * depth) <= depth
            far = middle - root
            hit &= near | (np.abs(along + origin * far) <= far)
            depth = np.where(near, depth, far)
        return depth.astype(np.float32), hit

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
        chosen = np.flatnonzero(~flat)
        if len(chosen):
            index = number[chosen] - self._scene.polygons
            x, y = x[chosen], y[chosen]
            square = self._square(index, x, y)
            root = np.sqrt(np.maximum(square, 0))
            half = self._on_plane(self._half, index, x, y)
            along = self._on_plane(self._ray[:, 2], index, x, y)
            constant, origin = self._constant.take(index), self._origin[:, 2].take(index)
            open_ended = self._form[:, 0].take(index) != 1.0
            best = np.zeros(len(chosen))
            for sign in (-1, 1):
                depth = (sign * root - half) / constant
                hit = (square >= 0) & (depth > _FARTHEST)
                hit &= ~open_ended | (np.abs(along + origin * depth) <= depth)
                np.copyto(best, depth, where=hit & (depth > best))
            result[chosen] = best
        return result

    def _square(self, index: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Values of the quadrics' discriminants at pixels: positive where a ray meets the quadric."""
        columns = (self._on_plane(self._discriminant[:, k], index, x, y) for k in range(3))
        first, second, third = columns
        return first * x + second * y + third

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
            x: its column in this view, px, finite.
            y: its row.
            inverse_depth: its own in this view, 1/m.

        Returns:
            bool N.
        """
        inside = (x >= -_CRACK) & (x <= self.width - 1 + _CRACK)
        inside &= (y >= -_CRACK) & (y <= self.height - 1 + _CRACK)
        hidden = ~inside
        left, top = (
            np.minimum(np.maximum(values, 0), last - 2).astype(np.intp)
            for values, last in ((x, self.width), (y, self.height))
        )
        start = top * self.width + left
        # Most points lie amid their own surface. Flat ones cannot hide themselves.
        polygons = self._scene.polygons
        curved = np.arange(len(self._body)) >= polygons
        flat = self.surface.ravel()
        steps = (0, 1, self.width, self.width + 1)
        same = flat[: -steps[3]] == flat[steps[3] :]
        for step in steps[1:3]:
            same &= flat[: -steps[3]] == flat[step : step - steps[3]]
        check = np.where(same, flat[: -steps[3]], -2).take(start) != number.astype(np.int16)
        # A curved one's far side is behind what lies between the four pixels, for 1 / depth is concave on its near side.
        amid = np.flatnonzero(inside & ~check & (number >= polygons))
        if len(amid):
            across, down = x[amid] - left[amid], y[amid] - top[amid]
            corner = [self.inverse_depth.ravel().take(start[amid] + step) for step in steps]
            upper = corner[0] + across * (corner[1] - corner[0])
            lower = corner[2] + across * (corner[3] - corner[2])
            between = upper + down * (lower - upper)
            check[amid] = between > inverse_depth[amid] * (1 + _TOLERANCE)
        chosen = np.flatnonzero(check & inside)
        number, start = number[chosen], start[chosen]
        x, y, inverse_depth = x[chosen], y[chosen], inverse_depth[chosen] * (1 + _TOLERANCE)
        # Polygons are convex: one that is seen in all four pixels is there between them.
        corners = [flat.take(start + step) for step in steps]
        within = same.take(start)
        looks = []
        for k, there in enumerate(corners):
            check = (there >= 0) & ((there != number) | curved[there])
            for before in corners[:k]:
                check &= there != before
            at = np.flatnonzero(check)
            looks.append((at, there.take(at)))
        at, there = (np.concatenate(parts) for parts in zip(*looks, strict=True))
        nearer = self.cast(there, x.take(at), y.take(at), within.take(at)) > inverse_depth.take(at)
        hidden[chosen[at[nearer]]] = True
        return hidden

    def image(self, textures: TextureBank) -> np.ndarray:
        """The picture, uint8 RGB, H x W x 3."""
        shader = _Shader(self, textures)
        colours = shader.colours()
        pixel, other, part = self._mixture()
        rows = rows_of(colours)
        mixture = rows[pixel].view(np.float32).reshape(-1, 4)
        mixture += part[:, None] * (rows[other].view(np.float32).reshape(-1, 4) - mixture)
        rows[pixel] = rows_of(mixture)
        # Rounds and clips.
        image = cv2.add(colours, 0.0, dtype=cv2.CV_8U).reshape(self.height, self.width, 4)
        return cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)

    def _mixture(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where outlines pass through pixels.

        Returns:
            The pixels; of each the neighbour, that shows what is beyond the outline; and the part of the pixel that is
            beyond, float32. Pixels may be there more than once.
        """
        flat = self.surface.ravel()
        pairs = []
        for step in (1, self.width):
            differ = np.flatnonzero(flat[step:] != flat[:-step])
            if step == 1:
                differ = differ[(differ + 1) % self.width != 0]
            pairs += [(differ, differ + step), (differ + step, differ)]
        here, there = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        known = flat[here] >= 0
        here, there = here[known], there[known]
        number = flat[here].astype(np.intp)
        y, x = np.divmod(here, self.width)
        next_y, next_x = np.divmod(there, self.width)
        beyond, ends, depth = self._beyond(number, next_x, next_y)
        # What ends on the way to the neighbour, and is not behind what is seen there, has its outline between the two.
        depth = np.where(number < self._scene.polygons, depth, self.inverse_depth.ravel()[here])
        ends &= depth * (1 + _EDGE) > self.inverse_depth.ravel()[there]
        at = np.flatnonzero(ends)
        here, there, beyond = here[at], there[at], beyond[at]
        inner, _, _ = self._beyond(number[at], x[at], y[at])
        return (
            np.concatenate([there, here]),
            np.concatenate([here, there]),
            np.concatenate([1 - beyond, inner]).astype(np.float32),
        )

    def _beyond(
        self, number: np.ndarray, x: np.ndarray, y: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Part of pixels that is beyond surfaces' outlines, whether their centres are, and polygons' inverse depths."""
        polygons = self._scene.polygons
        part, ends, depth = (
            np.zeros(len(number)),
            np.zeros(len(number), bool),
            np.zeros(len(number)),
        )
        flat = np.flatnonzero(number < polygons)
        if len(flat):
            depth[flat] = self._on_plane(self._affine[:, 0], number[flat], x[flat], y[flat])
            count = self._scene.layout().count.take(number[flat])
            for k in range(self._edges.shape[1]):
                if k > 2:
                    flat = flat[count > k]
                    count = count[count > k]
                margin = self._on_plane(self._edges[:, k], number[flat], x[flat], y[flat])
                part[flat] += np.clip(0.5 - margin, 0, 1)
                ends[flat] |= margin < 0
        curved = np.flatnonzero(number >= polygons)
        if len(curved):
            index, x, y = number[curved] - polygons, x[curved], y[curved]
            slopes = [self._on_plane(self._discriminant[:, k], index, x, y) for k in range(3)]
            margin = (slopes[0] * x + slopes[1] * y + slopes[2]) / (
                2 * np.hypot(slopes[0], slopes[1]) + 1e-300
            )
            part[curved] = np.clip(0.5 - margin, 0, 1)
            ends[curved] = margin < 0
        return np.minimum(part, 1, out=part), ends, depth


class _Shader:
    """Colours of points on the surfaces of a view."""

    def __init__(self, view: View, textures: TextureBank) -> None:
        self.view, self.textures = view, textures
        scene = view._scene
        finishes = scene._polygon_finish + scene._quadric_finish
        self.finishes = finishes
        self.texture = np.array([finish.texture for finish in finishes], np.float32)
        self.gain = np.array([(*finish.gain, 0) for finish in finishes], np.float32)
        self.offset = np.array([(*finish.offset, 0) for finish in finishes], np.float32)
        # One contiguous table a coefficient: gathering from it is what most of the time goes to.
        self.table = np.zeros((8, len(finishes)), np.float32)
        affine = view._affine.reshape(-1, 9).T[[0, 1, 3, 4, 5, 6, 7, 8]]
        self.table[:, : scene.polygons] = affine
        self.table[2:] /= PERIOD

    def colours(self) -> np.ndarray:
        """float32 N x 4, of all pixels, row by row."""
        view = self.view
        number = view.surface.astype(np.intp)
        curved = self._curved(number.ravel(), view.inverse_depth.ravel())
        result = np.empty((view.height * view.width, 4), np.float32)
        # In parts that stay in the processor's cache.
        step = max(1, _PART // view.width)
        for top in range(0, view.height, step):
            self._part(number, slice(top, min(view.height, top + step)), curved, result)
        return result

    def _part(
        self, number: np.ndarray, rows: slice, curved: tuple[np.ndarray, np.ndarray], result: np.ndarray
    ) -> None:  # fmt: skip
        """Put colours of some rows of pixels, that show the given surfaces, in the result."""
        view = self.view
        number = number[rows]
        x = np.arange(view.width, dtype=np.float32)
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        depth = 1 / view.inverse_depth[rows]
        # Curved surfaces get nought from the table and are filled in after.
        w_x, w_y, s_x, s_y, s, t_x, t_y, t = (column.take(number) for column in self.table)
        for value, slope_x, slope_y in ((s, s_x, s_y), (t, t_x, t_y)):
            value += slope_x * x
            value += slope_y * y
            value *= depth
            for slope, along in ((slope_x, w_x), (slope_y, w_y)):
                slope -= value * along
                slope *= depth
        places, values = curved
        begin = rows.start * view.width
        first, last = np.searchsorted(places, (begin, begin + number.size))
        at = places[first:last] - begin
        if len(at):
            for target, found in zip(
                (s, t, s_x, s_y, t_x, t_y), values[:, first:last], strict=False
            ):
                target.ravel()[at] = found
        area = s_x * t_y
        area -= s_y * t_x
        wider = (s_x * s_x + t_x * t_x) > (s_y * s_y + t_y * t_y)
        mask = wider.view(np.uint8)
        cv2.copyTo(s_x, mask, s_y)
        cv2.copyTo(t_x, mask, t_y)
        number = number.ravel()
        footprints = (v.ravel() for v in (s, t, s_y, t_y, area))
        colours = self.textures.fetch(self.texture.take(number), *footprints)
        colours *= rows_of(self.gain).take(number).view(np.float32).reshape(-1, 4)
        out = result[begin : begin + len(number)]
        np.add(colours, rows_of(self.offset).take(number).view(np.float32).reshape(-1, 4), out=out)
        if len(at):
            lit = rows_of(out).take(at).view(np.float32).reshape(-1, 4)
            lit *= values[6, first:last, None]
            rows_of(out)[at] = rows_of(lit)

    def _curved(
        self, number: np.ndarray, inverse_depth: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of curved surfaces, and float32 7 x N of theirs: texture coordinates s and t, the slopes of s and t
        along x and y, and how well they are lit.
        """
        view = self.view
        first = view._scene.polygons
        places = np.flatnonzero(number >= first)
        values = np.empty((7, len(places)), np.float32)
        if not len(places):
            return places, values
        index = number[places] - first
        y, x = (value.astype(np.float32) for value in np.divmod(places, view.width))
        depth = 1 / inverse_depth[places]
        finishes = self.finishes[first:]
        frame = np.stack(view._scene._frame)[:, :3, :3]
        length = np.linalg.norm(frame, axis=1)
        around = np.array([finish.texels / (2 * np.pi) for finish in finishes])
        tables = np.concatenate(
            [
                view._ray.reshape(-1, 9).T,
                view._origin.T,
                view._form[:, :2].T,
                [around, around * length[:, 2] / length[:, 0]],
                np.array([(*np.divide(f.shift, PERIOD), f.shade, *f.light) for f in finishes]).T,
            ]
        ).astype(np.float32)
        taken = [table.take(index) for table in tables]
        ray = (taken[0:3], taken[3:6], taken[6:9])
        a, b, around, along, shift_s, shift_t, shade = taken[12:19]
        e = [row[0] * x + row[1] * y + row[2] for row in ray]
        point = [e[k] * depth + taken[9 + k] for k in range(3)]
        normal = (point[0], point[1], a * point[2] + b)
        # Along the tangent plane: normal . (ray * depth) stays the same.
        facing = normal[0] * e[0] + normal[1] * e[1] + normal[2] * e[2]
        facing[np.abs(facing) < 1e-9] = 1e-9
        around_radius2 = around / np.maximum(
            point[0] * point[0] + point[1] * point[1], np.float32(1e-4)
        )
        # Somewhat less exact than the arc tangent, but the same wherever the point is seen from.
        angle = cv2.phase(point[0], point[1]).ravel()
        values[0] = around * (angle - np.float32(np.pi)) + shift_s
        values[1] = along * point[2] + shift_t
        for k in range(2):
            turn = normal[0] * ray[0][k] + normal[1] * ray[1][k] + normal[2] * ray[2][k]
            nearer = turn / facing
            move = [(ray[j][k] - e[j] * nearer) * depth for j in range(3)]
            values[2 + k] = around_radius2 * (point[0] * move[1] - point[1] * move[0])
            values[4 + k] = along * move[2]
        length = np.sqrt(normal[0] * normal[0] + normal[1] * normal[1] + normal[2] * normal[2])
        lit = normal[0] * taken[19] + normal[1] * taken[20] + normal[2] * taken[21]
        values[6] = 1 - shade * (np.float32(0.5) - np.float32(0.5) * lit / (length + 1e-9))
        return places, values
