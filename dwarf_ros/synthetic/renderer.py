"""Views of a scene by casting one ray per pixel: the nearest surfaces, their depths, and what they hide.

In a view, the 1 / depth of a polygon, and its coordinates over depth, are affine in the pixel. The 1 / depth of a quadric
is the root of a quadratic equation. Ground truth describes the surface at a pixel's center. Images are H x W, x to the
right, y downwards, px.
"""

from __future__ import annotations

import cv2
import numpy as np

from dwarf_ros.synthetic.scene import NEAR, Scene
from dwarf_ros.types import StereoCamera

_TOLERANCE = 1e-4
"""How much nearer, relatively, another surface must be to hide a point."""

CRACK = 1e-3
"""How far a surface reaches beyond its outline, px."""

_FARTHEST = 1e-7
"""Least inverse depth that is drawn, 1/m."""


class View:
    """A scene as one camera sees it at one time.

    Attributes:
        surface: int16 H x W, number of the surface at each pixel's center; -1 where there is none.
        inverse_depth: float32 H x W, its inverse depth, 1/m; almost 0 where there is none.
    """

    def __init__(self, scene: Scene, time: int, offset: float, camera: StereoCamera) -> None:
        self.camera = camera
        self.width, self.height = camera.width, camera.height
        cx = camera.cx if offset == 0 else camera.cx_right
        self._to_ray = np.array(
            [[1 / camera.fx, 0, -cx / camera.fx], [0, 1 / camera.fy, -camera.cy / camera.fy], [0, 0, 1]]
        )  # fmt: skip
        self._project = np.array([[camera.fx, 0, cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
        self.scene = scene
        self._polygons = len(scene.polygons)
        self._surfaces = self._polygons + len(scene.quadrics)
        poses = np.stack([pose[time] for pose in scene.poses])
        poses[:, 0, 3] -= offset
        self._prepare_polygons(poses)
        self._prepare_quadrics(poses)
        number = np.int16 if self._surfaces < 1 << 15 else np.int32
        self.surface = np.full((self.height, self.width), -1, number)
        self.inverse_depth = np.full((self.height, self.width), _FARTHEST, np.float32)
        self._draw()

    def _prepare_polygons(self, poses: np.ndarray) -> None:
        count = self._polygons
        self._depth = np.empty(self._surfaces)
        self._box = np.zeros((self._surfaces, 4), int)
        self.affine = np.zeros((count, 3, 3))
        self.edges = np.zeros((count, 0, 3))
        self.decal_boxes = self._box[:0]
        if not count:
            return
        layout = self.scene.layout()
        pose = poses[[polygon.obj for polygon in self.scene.polygons]]
        plane = pose[:, :3, :3] @ layout.plane
        plane[:, :, 0] += pose[:, :3, 3]
        # The determinant is how far the plane is from the camera, positive where its normal points away.
        distance = np.linalg.det(plane)
        seen = (np.abs(distance) > 1e-9) & (distance * layout.facing <= 0)
        # `plane` holds points; its inverse gives (1, u, v) / depth for a pixel.
        rows = np.zeros_like(plane)
        rows[seen] = np.linalg.inv(plane[seen]) @ self._to_ray
        self.affine = layout.texture @ rows
        edges = layout.edges @ rows
        slope = np.hypot(edges[..., 0], edges[..., 1])
        self.edges = edges / np.maximum(slope, 1e-12)[..., None]
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
        decals = [polygon for polygon, _, _ in self.scene.decals]
        self.decal_boxes = self._box[decals]
        self._box[decals] = 0

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
        quadrics = self.scene.quadrics
        first, count = self._polygons, len(quadrics)
        self.form = np.array([quadric.form for quadric in quadrics]).reshape(-1, 3)
        self.ray = np.zeros((count, 3, 3))
        self.origin = np.zeros((count, 3))
        self._constant = np.zeros(count)
        self._half = np.zeros((count, 3))
        self.discriminant = np.zeros((count, 3, 3))
        if not count:
            return
        pose = poses[[q.obj for q in quadrics]] @ np.stack([q.frame for q in quadrics])
        back = np.linalg.inv(pose)
        # In the quadric's frame a pixel's ray is `origin + depth * ray (x, y, 1)`.
        self.ray = back[:, :3, :3] @ self._to_ray
        self.origin = back[:, :3, 3]
        # So that at pixel p, (x, y, 1), 1 / depth solves constant w^2 + 2 (half . p) w + (square of the ray) = 0.
        weight = np.ones((count, 3))
        weight[:, 2] = self.form[:, 0]
        normal = weight * self.origin
        normal[:, 2] += self.form[:, 1]
        self._half = (normal[:, None] @ self.ray)[:, 0]
        self._constant = (weight * self.origin**2).sum(axis=1) + self.form[:, 2]
        self._constant += 2 * self.form[:, 1] * self.origin[:, 2]
        square = self.ray.transpose(0, 2, 1) @ (weight[:, :, None] * self.ray)
        self.discriminant = self._half[:, :, None] * self._half[:, None]
        self.discriminant -= self._constant[:, None, None] * square
        self._depth[first:] = pose[:, 2, 3]
        cube = np.array([[x, y, z, 1] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]).T
        corners = pose[:, :3] @ cube
        front = corners[:, 2] >= NEAR
        # The outline's tangents along the axes, from the dual conics of an ellipsoid, or of a tube's two ends.
        ball = self.form[:, 0] == 1
        onto = self._project @ pose[:, :3]
        low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        # The squared radius of an end, where z is -1 or 1, is -(a + 2 b z + c).
        for z in (-1.0, 1.0):
            radius = np.sqrt(np.maximum(-(self.form @ np.array([1, 2 * z, 1])), 0))
            radius[ball] = 1
            reach = onto[:, :, :2] * radius[:, None, None]
            depth_axis = np.where(ball[:, None], onto[:, :, 2], 0)
            center = onto[:, :, 3] + np.where(ball, 0, z)[:, None] * onto[:, :, 2]
            spread = (reach**2).sum(axis=2) + depth_axis**2 - center**2
            mixed = (reach[:, :2] * reach[:, 2:]).sum(axis=2) + depth_axis[:, :2] * depth_axis[
                :, 2:
            ]
            mixed -= center[:, :2] * center[:, 2:]
            with np.errstate(divide="ignore", invalid="ignore"):
                root = np.sqrt(np.maximum(mixed**2 - spread[:, 2:] * spread[:, :2], 0))
                ends = (mixed - root) / spread[:, 2:], (mixed + root) / spread[:, 2:]
            low, high = np.minimum(low, np.minimum(*ends)), np.maximum(high, np.maximum(*ends))
        box = self._boxes(low, high)
        box[~front.all(axis=1)] = (0, self.width, 0, self.height)
        box[~front.any(axis=1)] = 0
        self._box[first:] = box

    def _draw(self) -> None:
        """Draw all surfaces, the farther first: the nearer at a pixel's center stays."""
        polygons = self._polygons
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
                a, b, c = self.affine[index, 0].tolist()
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
            cv2.copyTo(
                np.full(mask.shape, index, self.surface.dtype), mask, self.surface[y0:y1, x0:x1]
            )

    def _spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First and last column of each polygon in each row of its box, which shrinks to fit them.

        Returns:
            Two arrays, int16, of all rows of all polygons, and where in them row 0 of each polygon is, or would be.
        """
        count = self._polygons
        box = self._box[:count]
        rows = np.where(box[:, 0] < box[:, 1], box[:, 3] - box[:, 2], 0)
        start = np.cumsum(rows) - rows
        first = start - box[:, 2]
        number = np.repeat(np.arange(count), rows)
        y = (np.arange(len(number)) - first.take(number)).astype(np.float64)
        low, high = np.full(len(y), -np.inf), np.full(len(y), np.inf)
        for k in range(self.edges.shape[1]):
            at = (
                np.flatnonzero(self.scene.layout().count.take(number) > k) if k > 2 else slice(None)
            )
            along, down, rest = (self.edges[:, k, j].take(number[at]) for j in range(3))
            reach = down * y[at] + rest + CRACK
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
        (xx, xy, x1), (_, yy, y1), (_, _, one) = self.discriminant[index].tolist()
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
        if self.form[index, 0] != 1.0:
            origin = self.origin[index, 2]
            a, b, c = self.ray[index, 2].tolist()
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
        flat = number < self._polygons
        chosen = np.flatnonzero(flat)
        if len(chosen):
            depth = affine_at(self.affine[:, 0], number[chosen], x[chosen], y[chosen])
            result[chosen] = np.where(depth > _FARTHEST, depth, 0)
            count = self.scene.layout().count
            if within is not None:
                chosen = chosen[~within[chosen]]
            for k in range(self.edges.shape[1]):
                # What has been missed, or has no such edge, needs no further look.
                index = number[chosen]
                chosen = chosen[(count.take(index) > k) & (result[chosen] > 0)]
                index = number[chosen]
                margin = affine_at(self.edges[:, k], index, x[chosen], y[chosen])
                result[chosen[margin < -CRACK]] = 0
        chosen = np.flatnonzero(~flat)
        if len(chosen):
            index = number[chosen] - self._polygons
            x, y = x[chosen], y[chosen]
            square = self._square(index, x, y)
            root = np.sqrt(np.maximum(square, 0))
            half = affine_at(self._half, index, x, y)
            along = affine_at(self.ray[:, 2], index, x, y)
            constant, origin = self._constant.take(index), self.origin[:, 2].take(index)
            open_ended = self.form[:, 0].take(index) != 1.0
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
        columns = (affine_at(self.discriminant[:, k], index, x, y) for k in range(3))
        first, second, third = columns
        return first * x + second * y + third

    def exact_inverse_depth(self) -> np.ndarray:
        """Inverse depth of each pixel's surface, float64 H x W, 1/m, as `inverse_depth` has it in float32."""
        number = self.surface.ravel().astype(np.intp)
        y, x = np.divmod(np.arange(number.size), self.width)
        exact = self.cast(number, x, y, np.ones(number.size, bool)).reshape(self.surface.shape)
        # Rays that graze a curved surface may miss it by rounding.
        return np.where(exact > 0, exact, self.inverse_depth)

    def hides(
        self, number: np.ndarray, x: np.ndarray, y: np.ndarray, inverse_depth: np.ndarray,
        border: float = CRACK,
    ) -> np.ndarray:  # fmt: skip
        """Whether points are hidden in this view by what is seen in the four pixels around them, or outside the image.

        Args:
            number: surface of each point, N.
            x: its column in this view, px, finite.
            y: its row.
            inverse_depth: its own in this view, 1/m.
            border: how far outside the centers of the outer pixels a point may be, px.

        Returns:
            bool N.
        """
        inside = (x >= -border) & (x <= self.width - 1 + border)
        inside &= (y >= -border) & (y <= self.height - 1 + border)
        hidden = ~inside
        left, top = (
            np.minimum(np.maximum(values, 0), max(size - 2, 0)).astype(np.intp)
            for values, size in ((x, self.width), (y, self.height))
        )
        start = top * self.width + left
        # Most points lie inside their own surface. Flat ones cannot hide themselves.
        polygons = self._polygons
        curved = np.arange(self._surfaces) >= polygons
        flat = self.surface.ravel()
        # An image may be one pixel wide or high.
        right, down = min(1, self.width - 1), self.width * min(1, self.height - 1)
        steps = (0, right, down, right + down)
        first = flat[: flat.size - steps[3]]
        same = np.ones(len(first), bool)
        for step in steps[1:]:
            same &= first == flat[step : step + len(first)]
        check = np.where(same, first, -2).take(start) != number.astype(flat.dtype)
        # A curved surface's far side is behind what lies between the four pixels: 1 / depth is concave on the near side.
        own = np.flatnonzero(inside & ~check & (number >= polygons))
        if len(own):
            across, down = x[own] - left[own], y[own] - top[own]
            corner = [self.inverse_depth.ravel().take(start[own] + step) for step in steps]
            upper = corner[0] + across * (corner[1] - corner[0])
            lower = corner[2] + across * (corner[3] - corner[2])
            between = upper + down * (lower - upper)
            check[own] = between > inverse_depth[own] * (1 + _TOLERANCE)
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


def affine_at(rows: np.ndarray, index: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of affine functions, rows[index], at pixels."""
    first, second, third = (np.ascontiguousarray(rows[:, k]).take(index) for k in range(3))
    return first * x + second * y + third
