"""The scene from above: static points, moving objects with their velocities, and the camera's path."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from dwarf_ros.geometry import scene_flow_points
from dwarf_ros.types import MOVING, MovingObject, SceneFlow
from dwarf_ros.visualization.drawing import FAINT_INK, INK, PAPER, titled, write_text
from dwarf_ros.visualization.legends import Key, symbol_legend
from dwarf_ros.visualization.objects import (
    camera_note,
    object_color,
    object_label,
)

EGO_COLOR = (90, 160, 255)
"""RGB of the camera and its path."""

ARROW_S = 0.5
"""Time that an object's arrow represents, s."""

_AHEAD_S = 1.0
_GRID = (58, 62, 70)
_STATIC = (190, 196, 206)
# Height of the area behind the camera, with labels, px.
_BEHIND = 30
_INSET = 108
# Shortest path worth a map, m.
_LEAST_PATH = 1.0


def birds_eye_view(
    points: np.ndarray,
    objects: Sequence[MovingObject] = (),
    *,
    path: np.ndarray | None = None,
    trajectory: np.ndarray | None = None,
    width: int = 600,
    height: int = 840,
    max_depth: float = 40.0,
) -> np.ndarray:
    """Scene from above on a grid in meters: the camera is at the bottom and looks up; x points to the right.

    Points are gray, brighter where more of them fall on one pixel, and those of objects have the object's color. Each
    object has a box as large as its visible surface, id and speed over ground, and an arrow as long as its displacement
    in `ARROW_S`. Objects without pixels in this frame are left out.

    Args:
        points: float H x W x 3, m, in the left camera's optical frame; NaN where unknown.
        objects: in the same frame; their pixels refer to the rows and columns of `points`.
        path: positions of the camera in the near future, float N x 3, m.
        trajectory: its positions so far, oldest first, float N x 3, m; drawn as a small map.
        width: of the picture, px, at least 100.
        height: of the picture, px, at least 100.
        max_depth: distance ahead at the top edge, m.

    Returns:
        uint8 RGB, height x width x 3.
    """
    scale = (height - _BEHIND) / max_depth
    objects = [item for item in objects if item.box is not None and item.mask is not None]
    places = np.asarray(points, dtype=np.float32)
    picture = _metric_grid(width, height, scale)

    def cells(some: np.ndarray) -> np.ndarray:
        """Number of points that fall on each pixel, height x width."""
        with np.errstate(invalid="ignore"):
            column = width / 2 + some[..., 0] * scale
            row = height - _BEHIND - some[..., 2] * scale
            inside = (some[..., 2] > 0) & (row >= 0) & (column >= 0) & (column < width)
        cell = row[inside].astype(np.int64) * width + column[inside].astype(np.int64)
        return np.bincount(cell, minlength=height * width).reshape(height, width).astype(np.float64)

    static = places.copy()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    surfaces = []
    for item in objects:
        assert item.box is not None
        x, y, w, h = item.box
        surfaces.append((cv2.dilate(cells(places[y : y + h, x : x + w][item.mask]), disc), item))
        static[y : y + h, x : x + w][item.mask] = np.nan
    density = cv2.GaussianBlur(cells(static), (3, 3), 0)
    opacity = np.minimum(0.9, 0.28 * np.log1p(density))[..., None]
    picture = (picture + opacity * (np.array(_STATIC) - picture)).astype(np.uint8)
    for count, item in surfaces:
        opacity = np.minimum(0.7, 0.3 * np.log1p(count))[..., None]
        picture = (picture + opacity * (np.array(object_color(item.id)) - picture)).astype(np.uint8)

    def pixel(position: np.ndarray) -> tuple[int, int]:
        return (
            round(width / 2 + float(position[0]) * scale),
            round(height - _BEHIND - float(position[2]) * scale),
        )

    _label_grid(picture, scale)
    if path is not None and len(path) > 1:
        line = np.array([pixel(position) for position in path], dtype=np.int32)
        cv2.polylines(picture, [line], False, PAPER, 5, cv2.LINE_AA)
        cv2.polylines(picture, [line], False, EGO_COLOR, 2, cv2.LINE_AA)
    for item in objects:
        half = item.size / 2
        half[1] = 0
        box = pixel(item.position - half), pixel(item.position + half)
        cv2.rectangle(picture, *box, object_color(item.id), 1, cv2.LINE_AA)
        end = pixel(item.position + ARROW_S * item.velocity)
        _arrow(picture, pixel(item.position), end, object_color(item.id))
    for item in objects:
        half = item.size / 2
        left, near = pixel(item.position - half)
        right, far = pixel(item.position + half)
        if near < 0 or far >= height or right < 0 or left >= width:
            continue
        # Behind the tail of the arrow, but in the picture.
        row = near + 18 if item.velocity[2] > 0 else far - 8
        write_text(
            picture,
            object_label(item),
            (left + right) / 2,
            min(max(row, 16), height - _BEHIND - 6),
            color=object_color(item.id),
            anchor="center",
            background=PAPER,
        )
    _camera_symbol(picture, width / 2, height - _BEHIND)
    if trajectory is not None and width >= 3 * _INSET and height >= 3 * _INSET:
        _draw_trajectory(picture, trajectory)
    return picture


def seen_from_above(
    scene_flow: SceneFlow,
    width: int,
    height: int,
    objects: Sequence[MovingObject] = (),
    trajectory: np.ndarray | None = None,
) -> np.ndarray:
    """`birds_eye_view` of one estimate with a title and a legend; uint8 RGB, height x width x 3.

    Args:
        scene_flow: with a camera.
        width: px.
        height: px.
        objects: at the reference's time.
        trajectory: positions of the camera so far, oldest first, float N x 3, m, in the reference's camera frame.
    """
    points, _ = scene_flow_points(scene_flow)
    points[~scene_flow.valid] = np.nan
    if scene_flow.motion_mask is not None:
        stray = scene_flow.motion_mask == MOVING
        for item in objects:
            if item.box is not None and item.mask is not None:
                x, y, w, h = item.box
                stray[y : y + h, x : x + w] &= ~item.mask
        points[stray] = np.nan
    path = _path_ahead(scene_flow)
    keys: list[Key] = [("square", _STATIC, "static")]
    if path is not None:
        keys += [
            ("box", object_color(0), "moving: id, speed over ground"),
            ("arrow", object_color(0), f"its motion in {ARROW_S:g} s"),
            ("line", EGO_COLOR, f"path of the camera in {_AHEAD_S:g} s"),
        ]
    legend = symbol_legend(width, keys)
    view = birds_eye_view(
        points,
        objects,
        path=path,
        trajectory=trajectory,
        width=width,
        height=height - 28 - legend.shape[0],
    )
    note = camera_note(scene_flow)
    if path is None:
        # There is more room than in the title.
        write_text(view, note, width / 2, 20, anchor="center", background=PAPER)
        note = ""
    return np.vstack([titled(view, "From above", note), legend])


def _path_ahead(scene_flow: SceneFlow) -> np.ndarray | None:
    """Positions of the camera in the next `_AHEAD_S` at its present motion, N x 3, m; None without ego-motion."""
    ego_motion, dt = scene_flow.ego_motion, scene_flow.dt
    if ego_motion is None or ego_motion.transform is None or dt == 0:
        return None
    # Pose of the later frame's camera in the earlier one's.
    step = np.linalg.inv(ego_motion.transform) if dt > 0 else ego_motion.transform
    count = min(100, max(1, round(_AHEAD_S / abs(dt))))
    pose, path = np.eye(4), [np.zeros(3)]
    for _ in range(count):
        pose = pose @ step
        path.append(pose[:3, 3])
    return np.array(path)


def _draw_trajectory(picture: np.ndarray, trajectory: np.ndarray) -> None:
    """Small map of the way so far, in the lower right corner, which the camera does not see."""
    steps = np.linalg.norm(np.diff(trajectory, axis=0), axis=1)
    length = float(steps.sum())
    if length < _LEAST_PATH:
        return
    height, width = picture.shape[:2]
    flat = trajectory[:, [0, 2]] * (1, -1)
    low, high = flat.min(0), flat.max(0)
    room = _INSET - 36
    scale = room / float(max(high - low))
    x, y = width - _INSET - 6, height - _BEHIND - _INSET - 4
    picture[y : y + _INSET, x : x + _INSET] = PAPER
    cv2.rectangle(picture, (x, y), (x + _INSET - 1, y + _INSET - 1), _GRID, 1)
    middle = np.array([x + _INSET / 2, y + _INSET / 2 - 8])
    line = np.rint(middle + scale * (flat - (low + high) / 2)).astype(np.int32)
    cv2.polylines(picture, [line], False, EGO_COLOR, 2, cv2.LINE_AA)
    cv2.circle(picture, tuple(map(int, line[-1])), 4, INK, -1, cv2.LINE_AA)
    text = f"trajectory {length:.3g} m" if length < 1000 else f"trajectory {length / 1e3:.2f} km"
    write_text(picture, text, x + _INSET / 2, y + _INSET - 7, size=0.38, anchor="center")


def _arrow(
    picture: np.ndarray, start: tuple[int, int], end: tuple[int, int], color: tuple[int, int, int]
) -> None:
    length = math.dist(start, end)
    if length < 3:
        return
    for ink, thickness in ((PAPER, 5), (color, 2)):
        tip = min(0.4, 9 / length)
        cv2.arrowedLine(picture, start, end, ink, thickness, cv2.LINE_AA, tipLength=tip)


def _metric_grid(width: int, height: int, scale: float) -> np.ndarray:
    """Ground with a line every 1, 2, 5, 10 ... m, far enough apart for the labels."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[:] = PAPER
    rows, columns = _grid_lines(width, height, scale)
    for row in rows.values():
        cv2.line(picture, (0, row), (width, row), _GRID, 1)
    for column in columns.values():
        cv2.line(picture, (column, 0), (column, height), _GRID, 1)
    return picture


def _label_grid(picture: np.ndarray, scale: float) -> None:
    height, width = picture.shape[:2]
    rows, columns = _grid_lines(width, height, scale)
    for meters, row in rows.items():
        if meters and row > 16:
            write_text(picture, f"{meters} m", 6, row - 5, color=FAINT_INK, background=PAPER)
    for meters, column in columns.items():
        if meters:
            y = height - _BEHIND + 18
            write_text(picture, f"{meters:+d} m", column, y, color=FAINT_INK, anchor="center")


def _grid_lines(width: int, height: int, scale: float) -> tuple[dict[int, int], dict[int, int]]:
    """Rows by the distance ahead, m, and columns by the distance to the right, m."""
    spacing = next((m for m in (1, 2, 5, 10, 20, 50) if m * scale >= 60), 100)
    ahead = range(0, int(height / scale) + 1, spacing)
    sideways = spacing * int(width / 2 / scale / spacing)
    rows = {meters: round(height - _BEHIND - meters * scale) for meters in ahead}
    right = range(-sideways, int(width / 2 / scale) + 1, spacing)
    return rows, {meters: round(width / 2 + meters * scale) for meters in right}


def _camera_symbol(picture: np.ndarray, column: float, row: float) -> None:
    corners = np.array([(column, row - 11), (column - 7, row + 6), (column + 7, row + 6)])
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], EGO_COLOR, cv2.LINE_AA)
