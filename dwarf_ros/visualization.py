"""Pictures of optical flow, disparity and 3D motion; all are uint8 RGB.

Unknown values (NaN) are black in every picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from dwarf_ros.geometry import (
    camera_motion,
    disparity_from_depth,
    independent_motion,
    scene_flow_points,
    velocities_over_ground,
)
from dwarf_ros.types import SceneFlow, StereoCamera

_ANGLES = 1024
_RADII = 256
_PAPER = (22, 24, 29)
_GRID = (58, 62, 70)
_INK = (226, 229, 234)
_FAINT_INK = (150, 156, 166)
_STILL = (190, 196, 206)
# From a colour bar's ends to the sides of its strip, px.
BAR_MARGIN = 8
# Rows of a top view below the camera's place, for its scale and labels.
_BEHIND = 56


def flow_color(flow: np.ndarray, max_magnitude: float | None = None) -> np.ndarray:
    """Optical flow on the Middlebury colour wheel: hue is the direction, saturation the magnitude.

    Args:
        flow: float H x W x 2, px; u to the right, v downwards; NaN where unknown.
        max_magnitude: magnitude of full saturation, px, > 0; larger ones are drawn darker. None: the 99th percentile
            of this flow's magnitudes, at least 1 px.

    Returns:
        uint8 RGB, H x W x 3; still pixels white, right red, down yellow, left cyan, up violet; unknown black.

    Reference:
        Baker et al., A Database and Evaluation Methodology for Optical Flow, IJCV 2011.
    """
    flow = np.asarray(flow, dtype=np.float32)
    u, v = cv2.split(np.ascontiguousarray(flow))
    if max_magnitude is None:
        max_magnitude = flow_scale(flow)
    magnitude, angle = cv2.cartToPolar(u, v)
    known = np.isfinite(magnitude)
    # The row is the radius (the last one: beyond the wheel), the column the angle.
    row = np.minimum(magnitude * np.float32((_RADII - 2) / max_magnitude), np.float32(_RADII - 1))
    column = angle * np.float32(_ANGLES / (2 * np.pi))
    row[~known] = 0
    column[~known] = 0
    index = np.rint(row).astype(np.int32)
    index *= _ANGLES
    index += np.rint(column).astype(np.int32) & (_ANGLES - 1)
    packed = _wheel_table()[index]
    packed[~known] = 0
    return _unpack(packed)


def flow_scale(flow: np.ndarray) -> float:
    """Magnitude, px, that `flow_color` draws at full saturation: the 99th percentile, at least 1 px.

    Args:
        flow: float H x W x 2, px; NaN where unknown.
    """
    return max(_percentile(np.hypot(*_thin(flow, 2).T), 99.0), 1.0)


def disparity_color(disparity: np.ndarray, max_disparity: float | None = None) -> np.ndarray:
    """Disparity on a colour map whose lightness grows with it: far is dark violet, near is yellow.

    Args:
        disparity: float H x W, px; NaN where unknown.
        max_disparity: disparity of the brightest colour, px, > 0. None: `disparity_scale` of this one.

    Returns:
        uint8 RGB, H x W x 3; unknown black, which the map itself never is.
    """
    disparity = np.asarray(disparity, dtype=np.float32)
    if max_disparity is None:
        max_disparity = disparity_scale(disparity)
    return _mapped(disparity, max_disparity, cv2.COLORMAP_PLASMA)


def disparity_scale(disparity: np.ndarray) -> float:
    """Disparity, px, that `disparity_color` draws brightest: the 99th percentile, at least 1 px.

    Args:
        disparity: float H x W, px; NaN where unknown.
    """
    return max(_percentile(_thin(disparity, 1)[:, 0], 99.0), 1.0)


def depth_color(depth: np.ndarray, max_depth: float) -> np.ndarray:
    """Depth on a colour map whose lightness falls with it: near is yellow, max_depth and beyond are dark violet.

    Args:
        depth: float H x W, m; NaN where unknown.
        max_depth: depth of the darkest colour, m, > 0.

    Returns:
        uint8 RGB, H x W x 3; unknown black, which the map itself never is.
    """
    depth = np.asarray(depth, dtype=np.float32)
    nearness = np.float32(max_depth) - np.minimum(depth, np.float32(max_depth))
    return _mapped(nearness, max_depth, cv2.COLORMAP_VIRIDIS)


def speed_color(speed: np.ndarray, max_speed: float) -> np.ndarray:
    """Speed from 0 (blue) over green to max_speed, m/s (red): float H x W to uint8 RGB H x W x 3; NaN black."""
    # The map's two ends are too dark to see on a dark ground.
    spread = np.asarray(speed, dtype=np.float32) / np.float32(max_speed)
    return _mapped(0.12 + 0.76 * np.clip(spread, 0.0, 1.0), 1.0, cv2.COLORMAP_TURBO)


def moving_points(
    scene_flow: SceneFlow,
    motion: np.ndarray,
    min_residual: float = 2.0,
    min_speed: float = 1.0,
    max_speed: float = 60.0,
) -> np.ndarray:
    """Where the scene moves on its own, cleaned of specks: bool H x W, made for looking at, not for measuring.

    Args:
        scene_flow: with a camera and dt not 0.
        motion: the camera's, as of `geometry.camera_motion`.
        min_residual: image motion that a still scene does not explain, px; where pixels move fast, a twentieth of
            their flow, as in KITTI's measure of an outlier.
        min_speed: speed over ground, m/s.
        max_speed: what moves faster is a wrong match, m/s.
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
    """Scene from above: the camera at the bottom looks up, x to the right, on a grid in metres.

    Still points are grey, the brighter the more of them stand above each other; moving ones have the colour of their
    speed, and each group of them that keeps together an arrow as long as its way in arrow_s.

    Args:
        points: float ... x 3, m, in the left camera's optical frame; NaN where unknown.
        velocities: float, same shape, m/s, over ground (`geometry.velocities_over_ground`).
        moving: bool ..., the points to draw as moving.
        width: of the picture, px, at least 100.
        height: of the picture, px, at least 100.
        max_depth: distance ahead at the upper edge, m.
        max_speed: speed of the last colour, m/s; None: the fastest group's, rounded up, at least 2.
        arrow_s: how much of its way an arrow shows, s.
        unit: of the velocities, as it is written.

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
    still = inside & ~moving
    cell = row[inside].astype(np.int64) * width + column[inside].astype(np.int64)

    def per_cell(weights: np.ndarray) -> np.ndarray:
        sums = np.bincount(cell, weights[inside], height * width).reshape(height, width)
        return sums.astype(np.float64)

    picture = _metric_grid(width, height, scale)
    density = cv2.GaussianBlur(per_cell(still.astype(np.float32)), (3, 3), 0)
    opacity = np.minimum(0.9, 0.28 * np.log1p(density))[..., None]
    picture = (picture + opacity * (np.array(_STILL) - picture)).astype(np.uint8)

    # A point is drawn as a small disc, or distant things would be a sprinkle of single pixels.
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
    for tail_column, tail_row, to_right, to_front in arrows:
        _arrow(
            picture,
            (round(tail_column), round(tail_row)),
            (to_right * scale * arrow_s, -to_front * scale * arrow_s),
            f"{math.hypot(to_right, to_front):.1f} {unit}",
        )
    _camera_symbol(picture, width / 2, height - _BEHIND)
    bar = min(170, width - 50)
    _horizontal_bar(
        picture,
        (14, height - 34, bar, 9),
        speed_color(np.linspace(0, 1, bar)[None], 1.0),
        [(0.0, "0"), (1.0, f"{max_speed:.0f} {unit}")],
    )
    return picture


def _arrows(
    count: np.ndarray, right: np.ndarray, ahead: np.ndarray, squares: np.ndarray, scale: float
) -> list[tuple[float, float, float, float]]:
    """Column and row, px, and mean velocity right and ahead, m/s, of each group of moving points seen from above.

    Args:
        count: moving points in each cell.
        right: sums of their velocities to the right, m/s.
        ahead: sums of their velocities ahead, m/s.
        squares: sums of their squared speeds, m2/s2.
        scale: cells a metre; points closer than about a metre are one group.
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
    # Noise makes specks, and groups whose points fly apart.
    kept = (
        (area >= max(8.0, 0.2 * scale**2))
        & (points >= 0.01 * points.sum())
        & (spread < right**2 + ahead**2)
    )
    return list(zip(column[kept], row[kept], right[kept], ahead[kept], strict=True))


def _arrow(
    picture: np.ndarray, start: tuple[int, int], way: tuple[float, float], text: str
) -> None:
    """Arrow along `way`, px, with a text behind its tail."""
    length = math.hypot(*way)
    end = (round(start[0] + way[0]), round(start[1] + way[1]))
    for color, thickness in ((_PAPER, 5), (_INK, 2)):
        tip = min(0.4, 9 / max(1.0, length))
        cv2.arrowedLine(picture, start, end, color, thickness, cv2.LINE_AA, tipLength=tip)
    right, down = way[0] / max(1.0, length), way[1] / max(1.0, length)
    column, row = start[0] - right * 34, start[1] - down * 14 + 4
    for color, thickness in ((_PAPER, 4), (_INK, 1)):
        _text(picture, text, column, row, color=color, anchor="centre", thickness=thickness)


def _metric_grid(width: int, height: int, scale: float) -> np.ndarray:
    """Ground with a line every 1, 2, 5, 10 ... m, so that their labels have room."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[:] = _PAPER
    spacing = next((m for m in (1, 2, 5, 10, 20, 50) if m * scale >= 60), 100)
    centre, base = width / 2, height - _BEHIND
    for metres in range(0, int(height / scale) + 1, spacing):
        row = round(base - metres * scale)
        cv2.line(picture, (0, row), (width, row), _GRID, 1)
        if metres and row > 16:
            _text(picture, f"{metres} m", 6, row - 5, color=_FAINT_INK)
    for metres in range(-spacing * int(centre / scale / spacing), int(centre / scale) + 1, spacing):
        column = round(centre + metres * scale)
        cv2.line(picture, (column, 0), (column, height), _GRID, 1)
        if metres:
            _text(picture, f"{metres:+d} m", column, base + 16, color=_FAINT_INK, anchor="centre")
    return picture


def _camera_symbol(picture: np.ndarray, column: float, row: float) -> None:
    corners = np.array([(column, row - 11), (column - 7, row + 6), (column + 7, row + 6)])
    cv2.fillPoly(picture, [np.rint(corners).astype(np.int32)], _INK, cv2.LINE_AA)


def _text(
    picture: np.ndarray,
    text: str,
    x: float,
    y: float,
    *,
    size: float = 0.42,
    color: tuple[int, int, int] = _INK,
    font: int = cv2.FONT_HERSHEY_SIMPLEX,
    anchor: str = "left",
    thickness: int = 1,
) -> int:
    """Text with its baseline at row y, kept inside; anchor says what x is: left, centre or right. Its width, px."""
    (width, _), _ = cv2.getTextSize(text, font, size, 1)
    left = {"left": x, "centre": x - width / 2, "right": x - width}[anchor]
    left = min(max(left, 2), picture.shape[1] - width - 2)
    cv2.putText(picture, text, (round(left), round(y)), font, size, color, thickness, cv2.LINE_AA)
    return width


def _horizontal_bar(
    picture: np.ndarray,
    box: tuple[int, int, int, int],
    colors: np.ndarray,
    ticks: list[tuple[float, str]],
) -> None:
    """Colour bar in box (x, y, width, height), px, of colours 1 x width x 3, with ticks (share of the width, text) under it."""
    x, y, width, height = box
    picture[y : y + height, x : x + width] = colors
    for share, text in ticks:
        column = x + round(share * (width - 1))
        cv2.line(picture, (column, y), (column, y + height + 2), _INK, 1)
        _text(picture, text, column, y + height + 15, size=0.38, anchor="centre")


def titled(picture: np.ndarray, title: str, note: str = "") -> np.ndarray:
    """Picture under a strip with a title on the left and a note on the right; uint8 RGB, 28 px taller."""
    strip = np.empty((28, picture.shape[1], 3), dtype=np.uint8)
    strip[:] = _PAPER
    used = _text(strip, title, 4, 19, size=0.5, font=cv2.FONT_HERSHEY_DUPLEX)
    # A narrow picture has no room for both.
    if used + cv2.getTextSize(note, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)[0][0] + 20 < strip.shape[1]:
        _text(strip, note, strip.shape[1] - 4, 19, color=_FAINT_INK, anchor="right")
    return np.vstack([strip, picture])


def color_bar(width: int, colors: np.ndarray, ticks: list[tuple[float, str]]) -> np.ndarray:
    """Strip with a colour bar and labels under it.

    Args:
        width: of the strip, px; the bar begins and ends `BAR_MARGIN` px from its sides.
        colors: of the bar from left to right, uint8 RGB, N x 3.
        ticks: share of the bar's width, from 0 to 1, and text of each label.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    strip = np.empty((30, width, 3), dtype=np.uint8)
    strip[:] = _PAPER
    bar = width - 2 * BAR_MARGIN
    columns = np.arange(bar) * len(colors) // bar
    _horizontal_bar(strip, (BAR_MARGIN, 3, bar, 9), colors[columns][None], ticks)
    return strip


def disparity_legend(
    width: int, max_disparity: float, camera: StereoCamera | None = None
) -> np.ndarray:
    """Colour bar of `disparity_color`: disparity in px at its ends and, with a camera, depths in m along it.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    ramp = np.linspace(0, max_disparity, width - 2 * BAR_MARGIN, dtype=np.float32)[None]
    ticks = [(0.0, "0 px"), (1.0, f"{max_disparity:.0f} px")]
    if camera is not None:
        taken = [0.06, 0.94]
        for depth in (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100):
            share = float(disparity_from_depth(np.array(depth), camera)) / max_disparity
            if all(abs(share - other) > 0.07 for other in taken) and 0.06 < share < 0.94:
                ticks.append((share, f"{depth} m"))
                taken.append(share)
    return color_bar(width, disparity_color(ramp, max_disparity)[0], ticks)


def depth_legend(width: int, max_depth: float) -> np.ndarray:
    """Scale bar of `depth_color` in m, from 0 to max_depth.

    Returns:
        uint8 RGB, 30 x width x 3.
    """
    ramp = np.linspace(0, max_depth, width - 2 * BAR_MARGIN, dtype=np.float32)[None]
    step = next((m for m in (1, 2, 5, 10, 20, 50) if max_depth / m <= 6), 100)
    metres = range(0, int(max_depth) + 1, step)
    ticks = [(m / max_depth, f"{m} m") for m in metres]
    return color_bar(width, depth_color(ramp, max_depth)[0], ticks)


def flow_wheel(radius: int) -> np.ndarray:
    """The colour wheel of `flow_color` as a disc; uint8 RGB, side 2 * radius + 1 px, black outside the disc."""
    offsets = np.arange(-radius, radius + 1, dtype=np.float32)
    flow = np.dstack(np.meshgrid(offsets, offsets)) / np.float32(radius)
    flow[np.hypot(flow[..., 0], flow[..., 1]) > 1] = np.nan
    return flow_color(flow, 1.0)


def flow_legend(size: int, max_magnitude: float) -> np.ndarray:
    """Key to pictures of optical flow: the colour wheel, its directions, and its radii in px.

    Args:
        size: side of the picture, px, at least 160.
        max_magnitude: magnitude at the wheel's rim, px.

    Returns:
        uint8 RGB, size x size x 3.
    """
    picture = np.empty((size, size, 3), dtype=np.uint8)
    picture[:] = _PAPER
    centre, radius = size // 2, size // 2 - 40
    place = slice(centre - radius, centre + radius + 1)
    wheel = flow_wheel(radius)
    disc = wheel.any(axis=-1)
    picture[place, place][disc] = wheel[disc]
    for share in (0.5, 1.0):
        # Slanting down, where neither a direction's name nor the other label is.
        ring = round(share * radius)
        cv2.circle(picture, (centre, centre), ring, _PAPER, 1, cv2.LINE_AA)
        text = f"{share * max_magnitude:.3g} px"
        along = 0.7071 * ring + (4 if share == 1.0 else 0)
        color = _INK if share == 1.0 else _PAPER
        _text(picture, text, centre + along, centre + along + 12, color=color)
    for text, column, row, anchor in (
        ("right", size - 38, centre + 4, "left"),
        ("left", 36, centre + 4, "right"),
        ("up", centre, centre - radius - 10, "centre"),
        ("down", centre, centre + radius + 22, "centre"),
    ):
        _text(picture, text, column, row, anchor=anchor)
    return picture


def with_flow_wheel(picture: np.ndarray, max_magnitude: float) -> np.ndarray:
    """Copy of a flow picture with the colour wheel in its lower right corner; its rim is max_magnitude, px."""
    picture = picture.copy()
    height, width = picture.shape[:2]
    radius = max(14, min(height, width) // 8)
    if height < 2 * radius + 32 or width < 2 * radius + 16:
        return picture
    wheel = flow_wheel(radius)
    disc = wheel.any(axis=-1)
    x, y = width - 2 * radius - 9, height - 2 * radius - 25
    picture[y - 7 :, x - 8 :] = _PAPER
    picture[y : y + 2 * radius + 1, x : x + 2 * radius + 1][disc] = wheel[disc]
    _text(picture, f"{max_magnitude:.0f} px", x + radius, height - 7, size=0.38, anchor="centre")
    return picture


def side_by_side(pictures: list[np.ndarray], gap: int = 10) -> np.ndarray:
    """Pictures in a row, top edges aligned, with a dark gap between and below the shorter ones; uint8 RGB."""
    return _joined(pictures, gap, axis=1)


def stacked(pictures: list[np.ndarray], gap: int = 10) -> np.ndarray:
    """Pictures in a column, left edges aligned; uint8 RGB."""
    return _joined(pictures, gap, axis=0)


def _joined(pictures: list[np.ndarray], gap: int, axis: int) -> np.ndarray:
    across = 1 - axis
    length = sum(p.shape[axis] for p in pictures) + gap * (len(pictures) - 1)
    breadth = max(p.shape[across] for p in pictures)
    joined = np.empty((length, breadth, 3) if axis == 0 else (breadth, length, 3), dtype=np.uint8)
    joined[:] = _PAPER
    start = 0
    for picture in pictures:
        place = [slice(0, picture.shape[0]), slice(0, picture.shape[1])]
        place[axis] = slice(start, start + picture.shape[axis])
        joined[tuple(place)] = picture
        start += picture.shape[axis] + gap
    return joined


@dataclass(frozen=True)
class Scales:
    """What the brightest or last colours of a panel stand for.

    Attributes:
        disparity: px.
        flow: px.
        speed: m/s (m where times are unknown); None: that of the fastest group seen.
    """

    disparity: float
    flow: float
    speed: float | None = None


def scene_flow_panel(
    left: np.ndarray | None,
    scene_flow: SceneFlow,
    title: str = "",
    note: str = "",
    width: int = 1280,
    scales: Scales | None = None,
) -> np.ndarray:
    """One picture of one answer: left image, disparity, optical flow and, with a camera, what moves seen from above.

    Motion is always shown forward in time, whichever frame is the reference; where dt is 0 (the frames' times are not
    known) it is shown in m from frame to frame.

    Args:
        left: the reference's left image, uint8 RGB H x W x 3; None: it is left out.
        scene_flow: the answer for it; what is not valid is drawn black.
        title: left in the head line.
        note: right in the head line.
        width: of the picture, px.
        scales: of the colours; None: this answer's own, which differ from the next one's.

    Returns:
        uint8 RGB, width wide, as high as it takes.
    """
    disparity, flow = valid_maps(scene_flow)
    scales = scales or Scales(disparity_scale(disparity), flow_scale(flow))
    nearest, fastest = scales.disparity, scales.flow
    margin = 12
    image_height, image_width = scene_flow.valid.shape
    wide = image_width >= 2 * image_height
    inner = width - 2 * margin
    column = (inner - margin) // 2
    if wide:
        # Without a camera there is nothing to be seen from above.
        column = inner if scene_flow.camera is None else round(0.6 * inner)
    row = round(column * image_height / image_width)
    density = f"{100 * scene_flow.valid.mean():.0f} % of the pixels valid"
    image = []
    if left is not None:
        size = f"{image_width} x {image_height} px"
        image = [titled(_resized(left, column, row), "Left image", size)]
    near = np.vstack(
        [
            titled(
                _resized(disparity_color(disparity, nearest), column, row),
                "Disparity and depth",
                density,
            ),
            disparity_legend(column, nearest, scene_flow.camera),
        ]
    )
    wheel = with_flow_wheel(_resized(flow_color(flow, fastest), column, row), fastest)
    dt = f"in {abs(scene_flow.dt) * 1e3:.0f} ms" if scene_flow.dt else "to the next frame"
    motion = titled(wheel, "Optical flow", dt)
    if wide:
        body = stacked([*image, near, motion], margin)
        if has_motion(scene_flow):
            view = seen_from_above(
                scene_flow, inner - column - margin, body.shape[0] - 28, scales.speed
            )
            body = side_by_side([body, view], margin)
    else:
        above = []
        if has_motion(scene_flow):
            above = [seen_from_above(scene_flow, column, row, scales.speed)]
        body = stacked(
            [side_by_side([*image, near], margin), side_by_side([motion, *above], margin)], margin
        )
    head = np.empty((40, inner, 3), dtype=np.uint8)
    head[:] = _PAPER
    _text(head, title, 4, 26, size=0.68, font=cv2.FONT_HERSHEY_DUPLEX)
    _text(head, note, inner - 4, 26, size=0.5, color=_FAINT_INK, anchor="right")
    sheet = np.empty((body.shape[0] + 40 + 2 * margin, width, 3), dtype=np.uint8)
    sheet[:] = _PAPER
    sheet[margin : margin + 40, margin : margin + inner] = head
    sheet[margin + 40 : -margin, margin : margin + body.shape[1]] = body
    return sheet


def valid_maps(scene_flow: SceneFlow) -> tuple[np.ndarray, np.ndarray]:
    """Disparity, H x W, and optical flow forward in time, H x W x 2, px; NaN where the scene flow is not valid."""
    disparity = np.where(scene_flow.valid, scene_flow.disparity, np.float32(np.nan))
    forward = -scene_flow.flow if scene_flow.dt < 0 else scene_flow.flow
    return disparity, np.where(scene_flow.valid[..., None], forward, np.float32(np.nan))


def has_motion(scene_flow: SceneFlow) -> bool:
    """Whether there is a camera, and enough valid pixels to tell its motion and what moves by itself."""
    camera = scene_flow.camera
    if camera is None:
        return False
    with np.errstate(invalid="ignore"):
        finite = scene_flow.valid & (scene_flow.disparity > camera.cx - camera.cx_right)
    return int(np.count_nonzero(finite)) >= 16


def seen_from_above(
    scene_flow: SceneFlow, width: int, height: int, max_speed: float | None = None
) -> np.ndarray:
    """Titled `birds_eye_view` of one answer, with what moves over ground; uint8 RGB, (height + 28) x width x 3.

    Args:
        scene_flow: one that `has_motion`; where its dt is 0 motion is in m from frame to frame.
        width: px.
        height: without the title, px.
        max_speed: speed of the last colour, m/s; None: the fastest group's.
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


def _resized(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    shrinks = width < picture.shape[1]
    return cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


def _mapped(values: np.ndarray, largest: float, colormap: int) -> np.ndarray:
    """Values from 0 to largest, H x W, on one of OpenCV's colour maps, RGB; NaN black."""
    if values.size == 0:
        # OpenCV divides by zero then, which ends the process.
        return np.empty((*values.shape, 3), dtype=np.uint8)
    known = np.isfinite(values)
    level = np.zeros(values.shape, dtype=np.uint8)
    scaled = np.clip(values * np.float32(255.0 / largest), 0.0, 255.0)
    level[known] = np.rint(scaled[known]).astype(np.uint8)
    picture = cv2.cvtColor(cv2.applyColorMap(level, colormap), cv2.COLOR_BGR2RGB)
    picture[~known] = 0
    return picture


def _thin(values: np.ndarray, channels: int) -> np.ndarray:
    """Evenly spread sample of at most about 60 000 pixels, N x channels."""
    height, width = values.shape[:2]
    step = max(1, int(np.sqrt(height * width / 40_000)))
    return values[::step, ::step].reshape(-1, channels)


def _percentile(values: np.ndarray, percent: float) -> float:
    known = values[np.isfinite(values)]
    return float(np.percentile(known, percent)) if known.size else 0.0


@lru_cache(maxsize=1)
def _wheel_table() -> np.ndarray:
    """Packed colours by radius (row) and angle (column), flattened."""
    segments = (
        (15, (255, 0, 0), (255, 255, 0)),
        (6, (255, 255, 0), (0, 255, 0)),
        (4, (0, 255, 0), (0, 255, 255)),
        (11, (0, 255, 255), (0, 0, 255)),
        (13, (0, 0, 255), (255, 0, 255)),
        (6, (255, 0, 255), (255, 0, 0)),
    )
    hues = np.concatenate(
        [np.linspace(start, end, count, endpoint=False) for count, start, end in segments]
    )
    position = np.arange(_ANGLES) / _ANGLES * len(hues)
    bins = np.arange(len(hues) + 1)
    hue = np.stack(
        [np.interp(position, bins, np.append(hues[:, c], hues[0, c])) for c in range(3)], axis=-1
    )
    radius = np.arange(_RADII - 1)[:, None, None] / (_RADII - 2)
    table = np.concatenate([255 - radius * (255 - hue), 0.75 * hue[None]])
    return _pack(np.rint(table).astype(np.uint8).reshape(-1, 3))


def _pack(rgb: np.ndarray) -> np.ndarray:
    """N x 3 uint8 to N words, so that a look-up moves one word a pixel."""
    opaque = np.zeros((len(rgb), 4), dtype=np.uint8)
    opaque[:, :3] = rgb
    return opaque.view(np.uint32)[:, 0]


def _unpack(packed: np.ndarray) -> np.ndarray:
    """H x W words to H x W x 3 uint8."""
    return cv2.cvtColor(
        np.ascontiguousarray(packed).view(np.uint8).reshape(*packed.shape, 4), cv2.COLOR_RGBA2RGB
    )
