"""Moving objects and static scene on the camera image."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dwarf_ros.types import MOVING, STATIC, EgoMotion, MovingObject, SceneFlow
from dwarf_ros.visualization.drawing import FONT, PAPER

_COLORS = (
    (255, 150, 40),
    (70, 225, 110),
    (255, 95, 190),
    (250, 220, 60),
    (60, 215, 225),
    (255, 85, 75),
    (185, 140, 255),
    (190, 230, 60),
)
MOVING_COLOR = (255, 120, 0)


def object_color(number: int) -> tuple[int, int, int]:
    """RGB of the object with that id; eight colors take turns."""
    return _COLORS[number % len(_COLORS)]


def object_label(item: MovingObject) -> str:
    """Id and speed over ground, such as "#3 12.4 m/s"."""
    return f"#{item.id} {item.speed:.1f} m/s"


def draw_objects(
    picture: np.ndarray,
    objects: Sequence[MovingObject],
    shape: tuple[int, int],
    tint: float = 0.4,
) -> np.ndarray:
    """Picture with the pixels of each object tinted, and its box, id and speed over ground.

    Args:
        picture: the reference's left image at any size, uint8 RGB.
        objects: those without pixels in this frame are left out.
        shape: height and width of the left image that the objects' boxes refer to, px.
        tint: opacity of the tint, 0 to 1.

    Returns:
        uint8 RGB, as large as the picture.
    """
    picture = picture.copy()
    scale = np.array([picture.shape[1] / shape[1], picture.shape[0] / shape[0]])
    boxes = []
    for item in objects:
        if item.box is None or item.mask is None:
            continue
        corner, size = np.array(item.box[:2]), np.array(item.box[2:])
        left, top = np.rint(corner * scale).astype(int)
        right, bottom = np.maximum(
            np.rint((corner + size) * scale).astype(int), (left + 1, top + 1)
        )
        place = picture[top:bottom, left:right]
        mask = cv2.resize(
            item.mask.astype(np.uint8), place.shape[1::-1], interpolation=cv2.INTER_NEAREST
        )
        color = object_color(item.id)
        tinted = place + tint * (np.array(color) - place)
        place[mask > 0] = tinted[mask > 0].astype(np.uint8)
        boxes.append((item, (int(left), int(top), int(right), int(bottom))))
    for item, (left, top, right, bottom) in boxes:
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), PAPER, 3)
        cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), object_color(item.id), 2)
    labels: list[tuple[int, int, int, int]] = []
    # The nearest object's label takes its place first.
    for item, box in sorted(boxes, key=lambda pair: float(pair[0].position[2])):
        labels.append(_write_label(picture, object_label(item), item.id, box, labels))
    return picture


def _write_label(
    picture: np.ndarray,
    text: str,
    number: int,
    box: tuple[int, int, int, int],
    taken: list[tuple[int, int, int, int]],
) -> tuple[int, int, int, int]:
    """Write a label above the box, or where it does not cover another; return its left, top, right and bottom, px."""
    (width, height), _ = cv2.getTextSize(text, FONT, 0.45, 1)
    width, height = width + 8, height + 9
    rows, columns = picture.shape[:2]
    left, top, _, bottom = box
    left = max(0, min(left, columns - width))
    candidates = [(left, y) for y in (top - height, bottom, top, top - 2 * height, bottom + height)]
    x, y = candidates[0][0], max(0, min(candidates[0][1], rows - height))
    for column, row in candidates:
        free = all(
            column >= other[2]
            or column + width <= other[0]
            or row >= other[3]
            or row + height <= other[1]
            for other in taken
        )
        if free and 0 <= row <= rows - height:
            x, y = column, row
            break
    cv2.rectangle(picture, (x, y), (x + width - 1, y + height - 1), object_color(number), -1)
    cv2.putText(picture, text, (x + 4, y + height - 5), FONT, 0.45, PAPER, 1, cv2.LINE_AA)
    return x, y, x + width, y + height


def paint_motion_mask(left: np.ndarray, motion_mask: np.ndarray) -> np.ndarray:
    """Left image with moving pixels tinted in `MOVING_COLOR`, static ones unchanged and unknown ones dimmed; uint8 RGB."""
    picture = (0.3 * left).astype(np.uint8)
    picture[motion_mask == STATIC] = left[motion_mask == STATIC]
    moving = motion_mask == MOVING
    picture[moving] = (0.45 * left[moving] + 0.55 * np.array(MOVING_COLOR)).astype(np.uint8)
    return picture


def motion_note(scene_flow: SceneFlow, objects: Sequence[MovingObject]) -> str:
    """The camera's motion and the number of moving objects, as far as they are known."""
    note = camera_note(scene_flow)
    if camera_speed(scene_flow) is None:
        return note
    seen = sum(item.box is not None for item in objects)
    return f"{note}, {seen or 'no'} moving object{'' if seen == 1 else 's'}"


def camera_note(scene_flow: SceneFlow) -> str:
    """The camera's speed over ground; its displacement if the time between the frames is unknown; or why there is none."""
    ego_motion = scene_flow.ego_motion
    if ego_motion is None or ego_motion.transform is None:
        return f"no ego-motion: {no_motion_reason(ego_motion)}"
    speed = camera_speed(scene_flow)
    if speed is None:
        return f"camera moved {np.linalg.norm(ego_motion.transform[:3, 3]):.2f} m, time unknown"
    return f"camera {speed:.1f} m/s"


def no_motion_reason(ego_motion: EgoMotion | None) -> str:
    """Why there is no ego-motion, in a few words."""
    return (ego_motion.reason if ego_motion is not None else None) or "not computed"


def camera_speed(scene_flow: SceneFlow) -> float | None:
    """Speed of the camera over ground, m/s; None without ego-motion or times."""
    ego_motion = scene_flow.ego_motion
    if ego_motion is None or ego_motion.transform is None or scene_flow.dt == 0:
        return None
    return float(np.linalg.norm(ego_motion.transform[:3, 3]) / abs(scene_flow.dt))
