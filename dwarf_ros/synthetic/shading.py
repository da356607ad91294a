"""Images of views: textures filtered for the footprint of each pixel, decals, and outlines that share their pixels."""

from __future__ import annotations

import cv2
import numpy as np

from dwarf_ros.synthetic.renderer import View, affine_at
from dwarf_ros.synthetic.textures import PERIOD, TextureBank, rows_of

_EDGE = 2e-3
"""How much farther, relatively, a surface may be that shares a pixel with what its outline hides."""

_PART = 1 << 15
"""Pixels that are shaded at a time."""


class _Shader:
    """Colors of points on the surfaces of a view."""

    def __init__(self, view: View, textures: TextureBank) -> None:
        self.view, self.textures = view, textures
        scene = view.scene
        finishes = [p.finish for p in scene.polygons] + [q.finish for q in scene.quadrics]
        self.texture = np.array([finish.texture for finish in finishes], np.float32)
        self.gain = np.array([(*finish.gain, 0) for finish in finishes], np.float32)
        self.offset = np.array([(*finish.offset, 0) for finish in finishes], np.float32)
        # One contiguous table per coefficient: gathering from it takes most of the time.
        self.table = np.zeros((8, len(finishes)), np.float32)
        affine = view.affine.reshape(-1, 9).T[[0, 1, 3, 4, 5, 6, 7, 8]]
        self.table[:, : len(scene.polygons)] = affine
        self.table[2:] /= PERIOD

    def colors(self) -> np.ndarray:
        """float32 N x 4, of all pixels, row by row."""
        view = self.view
        number = view.surface.astype(np.intp)
        curved = self._curved(number.ravel(), view.inverse_depth.ravel())
        result = np.empty((view.height * view.width, 4), np.float32)
        # In parts that stay in the processor's cache.
        step = max(1, _PART // view.width)
        for top in range(0, view.height, step):
            self._part(number, slice(top, min(view.height, top + step)), curved, result)
        self._decals(result.reshape(view.height, view.width, 4))
        return result

    def _decals(self, colors: np.ndarray) -> None:
        """Paint the decals, H x W x 4, each pixel by the part of it that they cover."""
        view = self.view
        for box, (polygon, surface, opacity) in zip(
            view.decal_boxes.tolist(), view.scene.decals, strict=True
        ):
            x0, x1, y0, y1 = box
            covered = opacity * (view.surface[y0:y1, x0:x1] == surface)
            if not covered.any():
                continue
            x, y = np.arange(x0, x1), np.arange(y0, y1)[:, None]
            margin = [np.minimum(a * x + (b * y + c), 0.5) for a, b, c in view.edges[polygon, :4]]
            # Opposite edges: what is between them, of a square about the pixel's center.
            covered *= np.maximum(margin[0] + margin[2], 0) * np.maximum(margin[1] + margin[3], 0)
            part = colors[y0:y1, x0:x1]
            part += covered[..., None].astype(np.float32) * (self.offset[polygon] - part)

    def _part(
        self, number: np.ndarray, rows: slice, curved: tuple[np.ndarray, np.ndarray], result: np.ndarray
    ) -> None:  # fmt: skip
        """Put the colors of some rows of pixels into the result."""
        view = self.view
        number = number[rows]
        x = np.arange(view.width, dtype=np.float32)
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
        depth = 1 / view.inverse_depth[rows]
        # Curved surfaces get zeros from the table and are filled in below.
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
        colors = self.textures.fetch(self.texture.take(number), *footprints)
        colors *= rows_of(self.gain).take(number).view(np.float32).reshape(-1, 4)
        out = result[begin : begin + len(number)]
        np.add(colors, rows_of(self.offset).take(number).view(np.float32).reshape(-1, 4), out=out)
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
        first = len(view.scene.polygons)
        places = np.flatnonzero(number >= first)
        values = np.empty((7, len(places)), np.float32)
        if not len(places):
            return places, values
        index = number[places] - first
        y, x = (value.astype(np.float32) for value in np.divmod(places, view.width))
        depth = 1 / inverse_depth[places]
        quadrics = view.scene.quadrics
        finishes = [quadric.finish for quadric in quadrics]
        frame = np.stack([quadric.frame for quadric in quadrics])[:, :3, :3]
        length = np.linalg.norm(frame, axis=1)
        around = np.array([finish.texels / (2 * np.pi) for finish in finishes])
        tables = np.concatenate(
            [
                view.ray.reshape(-1, 9).T,
                view.origin.T,
                view.form[:, :2].T,
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


def render(view: View, textures: TextureBank) -> np.ndarray:
    """The picture, uint8 RGB, H x W x 3."""
    shader = _Shader(view, textures)
    colors = shader.colors()
    pixel, other, part = _mixture(view)
    rows = rows_of(colors)
    mixture = rows[pixel].view(np.float32).reshape(-1, 4)
    mixture += part[:, None] * (rows[other].view(np.float32).reshape(-1, 4) - mixture)
    rows[pixel] = rows_of(mixture)
    # Rounds and clips.
    image = cv2.add(colors, 0.0, dtype=cv2.CV_8U).reshape(view.height, view.width, 4)
    return cv2.cvtColor(image, cv2.COLOR_RGBA2RGB)


def _mixture(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where outlines pass through pixels.

    Returns:
        The pixels; of each the neighbor that shows what is beyond the outline; and the part of the pixel that is
        beyond it, float32. Pixels may occur more than once.
    """
    flat = view.surface.ravel()
    pairs = []
    for step in (1, view.width):
        differ = np.flatnonzero(flat[step:] != flat[:-step])
        if step == 1:
            differ = differ[(differ + 1) % view.width != 0]
        pairs += [(differ, differ + step), (differ + step, differ)]
    here, there = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    known = flat[here] >= 0
    here, there = here[known], there[known]
    number = flat[here].astype(np.intp)
    y, x = np.divmod(here, view.width)
    next_y, next_x = np.divmod(there, view.width)
    beyond, ends, depth = _beyond(view, number, next_x, next_y)
    # A surface that ends before the neighbor, and is not behind what is visible there, has its outline between the two.
    depth = np.where(number < len(view.scene.polygons), depth, view.inverse_depth.ravel()[here])
    ends &= depth * (1 + _EDGE) > view.inverse_depth.ravel()[there]
    at = np.flatnonzero(ends)
    here, there, beyond = here[at], there[at], beyond[at]
    inner, _, _ = _beyond(view, number[at], x[at], y[at])
    return (
        np.concatenate([there, here]),
        np.concatenate([here, there]),
        np.concatenate([1 - beyond, inner]).astype(np.float32),
    )


def _beyond(
    view: View, number: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Part of pixels that is beyond surfaces' outlines, whether their centers are, and polygons' inverse depths."""
    polygons = len(view.scene.polygons)
    part, ends, depth = (
        np.zeros(len(number)),
        np.zeros(len(number), bool),
        np.zeros(len(number)),
    )
    flat = np.flatnonzero(number < polygons)
    if len(flat):
        depth[flat] = affine_at(view.affine[:, 0], number[flat], x[flat], y[flat])
        count = view.scene.layout().count.take(number[flat])
        for k in range(view.edges.shape[1]):
            if k > 2:
                flat = flat[count > k]
                count = count[count > k]
            margin = affine_at(view.edges[:, k], number[flat], x[flat], y[flat])
            part[flat] += np.clip(0.5 - margin, 0, 1)
            ends[flat] |= margin < 0
    curved = np.flatnonzero(number >= polygons)
    if len(curved):
        index, x, y = number[curved] - polygons, x[curved], y[curved]
        slopes = [affine_at(view.discriminant[:, k], index, x, y) for k in range(3)]
        margin = (slopes[0] * x + slopes[1] * y + slopes[2]) / (
            2 * np.hypot(slopes[0], slopes[1]) + 1e-300
        )
        part[curved] = np.clip(0.5 - margin, 0, 1)
        ends[curved] = margin < 0
    return np.minimum(part, 1, out=part), ends, depth
