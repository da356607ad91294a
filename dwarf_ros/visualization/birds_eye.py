"""The scene from above: static points, moving points and their velocities."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from dwarf_ros.geometry import (
    camera_motion,
    independent_motion,
    scene_flow_points,
    velocities_over_ground,
)
from dwarf_ros.types import SceneFlow
from dwarf_ros.visualization.colors import speed_color
from dwarf_ros.visualization.drawing import (
    FAINT_INK,
    INK,
    PAPER,
    horizontal_bar,
    titled,
    write_text,
)

_GRID = (58, 62, 70)
_STATIC = (190, 196, 206)
# Height of the area behind the camera, px, with the color bar and labels.
_BEHIND = 56


def moving_points(
    scene_flow: SceneFlow,
    motion: np.ndarray,
    min_residual: float = 2.0,
    min_speed: float = 1.0,
    max_speed: float = 60.0,
) -> np.ndarray:
    """Pixels that move over ground, without specks: bool H x W, for display only.

    Args:
        scene_flow: with a camera and dt not 0.
        motion: of the camera, from `geometry.camera_motion`.
        min_residual: smallest image motion that a static scene does not explain, px; at least 5 % of the pixel's flow, as in
            KITTI's definition of an outlier.
        min_speed: smallest speed over ground, m/s.
        max_speed: largest speed, m/s; faster points are treated as wrong matches.
    """
    speed = np.linalg.norm(velocities_over_ground(scene_flow, motion), axis=-1)
    residual = independent_motion(scene_flow, motion)
    magnitude = np.linalg.norm(scene_flow.flow, axis=-1)
    with np.errstate(invalid="ignore"):
        moving = residual > np.maximum(min_residual, 0.05 * magnitude)
        moving &= (speed > min_speed) & (speed < max_speed)
    size = 3 if moving.shape[1] < 400 else 5
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.morphologyEx(moving.astype(np.uint8), cv2.MORPH_OPEN, kernel).astype(bool)


def birds_eye_view(
    points: np.ndarray,
    velocities: np.ndarray,
    moving: np.ndarray,
    *,
    width: int = 600,
    height: int = 840,
    max_depth: float = 40.0,
    max_speed: float | None = None,
    arrow_s: float = 0.5,
    unit: str = "m/s",
) -> np.ndarray:
    """Scene from above on a grid in meters: the camera is at the bottom and looks up; x points to the right.

    Static points are gray, brighter where more of them fall on one pixel. Moving points have the color of their speed. Each
    group of moving points has an arrow as long as its displacement in arrow_s.

    Args:
        points: float ... x 3, m, in the left camera's optical frame; NaN where unknown.
        velocities: float, same shape, m/s, over ground (`geometry.velocities_over_ground`).
        moving: bool ..., which points to draw as moving.
        width: of the picture, px, at least 100.
        height: of the picture, px, at least 100.
        max_depth: distance ahead at the top edge, m.
        max_speed: speed of the last color, m/s; None: that of the fastest group, rounded up, at least 2.
        arrow_s: time that an arrow represents, s.
        unit: label of the velocities' unit.

    Returns:
        uint8 RGB, height x width x 3.
    """
    points = np.asarray(points, dtype=np.float32).reshape(-1, 3)
    velocities = np.asarray(velocities, dtype=np.float32).reshape(-1, 3)
    moving = np.asarray(moving).reshape(-1)
    scale = (height - _BEHIND) / max_depth
    with np.errstate(invalid="ignore"):
        column = width / 2 + points[:, 0] * scale
        row = height - _BEHIND - points[:, 2] * scale
        inside = (points[:, 2] > 0) & (row >= 0) & (column >= 0) & (column < width)
    moving = moving & inside & np.isfinite(velocities).all(axis=-1)
    static = inside & ~moving
    cell = row[inside].astype(np.int64) * width + column[inside].astype(np.int64)

    def per_cell(weights: np.ndarray) -> np.ndarray:
        sums = np.bincount(cell, weights[inside], height * width).reshape(height, width)
        return sums.astype(np.float64)

    picture = _metric_grid(width, height, scale)
    density = cv2.GaussianBlur(per_cell(static.astype(np.float32)), (3, 3), 0)
    opacity = np.minimum(0.9, 0.28 * np.log1p(density))[..., None]
    picture = (picture + opacity * (np.array(_STATIC) - picture)).astype(np.uint8)

    # Each point is drawn as a small disc; otherwise distant objects would be scattered single pixels.
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)).astype(np.float64)

    def moving_sum(weights: np.ndarray) -> np.ndarray:
        return cv2.filter2D(per_cell(np.where(moving, weights, 0.0)), -1, disc)

    count = moving_sum(np.ones(len(points)))
    right, ahead = moving_sum(velocities[:, 0]), moving_sum(velocities[:, 2])
    squares = moving_sum(velocities[:, 0] ** 2 + velocities[:, 2] ** 2)
    speed = np.hypot(right, ahead) / np.maximum(count, 1.0)
    arrows = _arrows(count, right, ahead, squares, scale)
    if max_speed is None:
        max_speed = float(np.ceil(max([2.0, *(math.hypot(*arrow[2:]) for arrow in arrows)])))
    colored = speed_color(speed, max_speed)
    picture[count > 0] = colored[count > 0]
    _label_grid(picture, scale)
    for tail_column, tail_row, to_right, to_front in arrows:
        _arrow(
            picture,
            (round(tail_column), round(tail_row)),
            (to_right * scale * arrow_s, -to_front * scale * arrow_s),
            f"{math.hypot(to_right, to_front):.1f} {unit}",
        )
    _camera_symbol(picture, width / 2, height - _BEHIND)
    bar = min(170, width - 50)
    horizontal_bar(
        picture,
        (14, height - 34, bar, 9),
        speed_color(np.linspace(0, 1, bar)[None], 1.0),
        [(0.0, "0"), (1.0, f"{max_speed:.0f} {unit}")],
    )
    if width >= 360:
        motion = f"motion in {arrow_s:g} s" if unit == "m/s" else f"{arrow_s:g} times the motion"
        for above, text in ((26, "gray: static"), (11, f"arrow: {motion}")):
            write_text(picture, text, bar + 40, height - above, size=0.38, color=FAINT_INK)
    return picture


def has_motion(scene_flow: SceneFlow) -> bool:
    """Whether there is a camera and enough valid pixels to estimate its motion and what moves."""
    camera = scene_flow.camera
    if camera is None:
        return False
    with np.errstate(invalid="ignore"):
        finite = scene_flow.valid & (scene_flow.disparity > camera.cx - camera.cx_right)
    return int(np.count_nonzero(finite)) >= 16


def seen_from_above(
    scene_flow: SceneFlow, width: int, height: int, max_speed: float | None = None
) -> np.ndarray:
    """`birds_eye_view` of one estimate with a title; uint8 RGB, (height + 28) x width x 3.

    Args:
        scene_flow: one that `has_motion`; if its dt is 0, motion is in m per frame.
        width: px.
        height: without the title, px.
        max_speed: speed of the last color, m/s; None: that of the fastest group.
    """
    timed = scene_flow.dt != 0
    if not timed:
        scene_flow = replace(scene_flow, dt=1.0)
    motion = camera_motion(scene_flow)
    points, _ = scene_flow_points(scene_flow)
    points[~scene_flow.valid] = np.nan
    picture = birds_eye_view(
        points,
        velocities_over_ground(scene_flow, motion),
        moving_points(scene_flow, motion, 2.0, *((1.0, 60.0) if timed else (0.1, 6.0))),
        width=width,
        height=height,
        max_speed=max_speed,
        arrow_s=0.5 if timed else 5.0,
        unit="m/s" if timed else "m",
    )
    own = float(np.linalg.norm(motion[:3, 3]) / abs(scene_flow.dt))
    if timed:
        return titled(picture, "From above: speed over ground", f"camera: {own:.1f} m/s")
    return titled(picture, "From above: motion over ground in one frame", f"camera: {own:.2f} m")


def _arrows(
    count: np.ndarray, right: np.ndarray, ahead: np.ndarray, squares: np.ndarray, scale: float
) -> list[tuple[float, float, float, float]]:
    """Center (column, row), px, and mean velocity (right, ahead), m/s, of each group of moving points.

    Args:
        count: number of moving points in each cell.
        right: sums of their velocities to the right, m/s.
        ahead: sums of their velocities ahead, m/s.
        squares: sums of their squared speeds, m2/s2.
        scale: cells per meter; points less than about a meter apart form one group.
    """
    reach = max(3, int(1.2 * scale) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    occupied = count > 0.5
    number, labels = cv2.connectedComponents(
        cv2.morphologyEx(occupied.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    )
    group = labels[occupied]
    rows, columns = np.nonzero(occupied)
    count = count[occupied]

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(group, weights, number)

    points, area = total(count), total(np.ones(len(group)))
    with np.errstate(invalid="ignore"):
        column, row = total(columns * count) / points, total(rows * count) / points
        right, ahead = total(right[occupied]) / points, total(ahead[occupied]) / points
        spread = total(squares[occupied]) / points - right**2 - ahead**2
    # Noise produces specks, and groups whose velocities disagree.
    kept = (
        (area >= max(8.0, 0.2 * scale**2))
        & (points >= 0.01 * points.sum())
        & (spread < right**2 + ahead**2)
    )
    return list(zip(column[kept], row[kept], right[kept], ahead[kept], strict=True))


def _arrow(
    picture: np.ndarray, start: tuple[int, int], displacement: tuple[float, float], text: str
) -> None:
    """Draw an arrow of that displacement, px, with a text behind its tail."""
    length = math.hypot(*displacement)
    end = (round(start[0] + displacement[0]), round(start[1] + displacement[1]))
    for color, thickness in ((PAPER, 5), (INK, 2)):
        tip = min(0.4, 9 / max(1.0, length))
        cv2.arrowedLine(picture, start, end, color, thickness, cv2.LINE_AA, tipLength=tip)
    right, down = (side / max(1.0, length) for side in displacement)
    column, row = start[0] - right * 34, start[1] - down * 14 + 4
    write_text(picture, text, column, row, anchor="center", background=PAPER)


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
            y = height - _BEHIND + 16
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
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], INK, cv2.LINE_AA)
