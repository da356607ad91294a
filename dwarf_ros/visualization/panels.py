"""Panels that show one scene flow: left image, disparity, optical flow and the scene from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dwarf_ros.types import MovingObject, SceneFlow
from dwarf_ros.visualization.birds_eye import seen_from_above
from dwarf_ros.visualization.colors import disparity_color, disparity_scale, flow_color, flow_scale
from dwarf_ros.visualization.drawing import (
    FAINT_INK,
    FONT_BOLD,
    PAPER,
    over_dimmed,
    resized,
    side_by_side,
    stacked,
    titled,
    write_text,
)
from dwarf_ros.visualization.legends import UNKNOWN_NOTE, disparity_legend, flow_strip
from dwarf_ros.visualization.objects import draw_objects, motion_note


@dataclass(frozen=True)
class Scales:
    """What the last colors of a panel represent.

    Attributes:
        disparity: px.
        flow: px.
    """

    disparity: float
    flow: float


def scene_flow_panel(
    left: np.ndarray | None,
    scene_flow: SceneFlow,
    title: str = "",
    note: str = "",
    width: int = 1280,
    scales: Scales | None = None,
    objects: Sequence[MovingObject] = (),
    trajectory: np.ndarray | None = None,
) -> np.ndarray:
    """One picture of one estimate: left image, disparity, optical flow and, with a camera, the scene from above.

    Objects have boxes on the left image and in the view from above. Motion is always shown forward in time, whichever
    frame is the reference.

    Args:
        left: left image of the reference frame, uint8 RGB H x W x 3; None omits it.
        scene_flow: the estimate; invalid pixels show the dimmed left image, or black without it.
        title: on the left of the heading.
        note: on the right of the heading.
        width: of the picture, px.
        scales: of the colors; None: chosen for this estimate.
        objects: moving objects at the reference's time.
        trajectory: positions of the camera so far, oldest first, float N x 3, m, in the reference's camera frame.

    Returns:
        uint8 RGB, `width` px wide.
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
        # Without a camera there is no view from above.
        column = inner if scene_flow.camera is None else round(0.6 * inner)
    row = round(column * image_height / image_width)
    density = f"{100 * scene_flow.valid.mean():.0f} % of pixels valid"
    image = []
    if left is not None:
        marked = draw_objects(resized(left, column, row), objects, scene_flow.valid.shape)
        image = [titled(marked, "Left image", _image_note(scene_flow, objects))]

    def drawn(colors: np.ndarray) -> np.ndarray:
        return resized(over_dimmed(colors, scene_flow.valid, left), column, row)

    if scene_flow.camera is None:
        heading, density = "Disparity", f"{density}; no calibration, so no depth"
    else:
        heading = "Disparity and depth"
    near = np.vstack(
        [
            titled(drawn(disparity_color(disparity, nearest)), heading, density),
            disparity_legend(column, nearest, scene_flow.camera),
        ]
    )
    dt = f"in {abs(scene_flow.dt) * 1e3:.0f} ms" if scene_flow.dt else "to the next frame"
    strip = flow_strip(column, fastest, UNKNOWN_NOTE if left is not None else "")
    motion = np.vstack([titled(drawn(flow_color(flow, fastest)), "Optical flow", dt), strip])
    camera = scene_flow.camera
    if wide:
        body = stacked([*image, near, motion], margin)
        if camera is not None:
            size = inner - column - margin, body.shape[0]
            body = side_by_side(
                [body, seen_from_above(scene_flow, *size, objects, trajectory)], margin
            )
    else:
        above = []
        if camera is not None:
            above = [seen_from_above(scene_flow, column, motion.shape[0], objects, trajectory)]
        body = stacked(
            [side_by_side([*image, near], margin), side_by_side([motion, *above], margin)], margin
        )
    head = np.empty((40, inner, 3), dtype=np.uint8)
    head[:] = PAPER
    write_text(head, title, 4, 26, size=0.68, font=FONT_BOLD)
    write_text(head, note, inner - 4, 26, size=0.5, color=FAINT_INK, anchor="right")
    sheet = np.empty((body.shape[0] + 40 + 2 * margin, width, 3), dtype=np.uint8)
    sheet[:] = PAPER
    sheet[margin : margin + 40, margin : margin + inner] = head
    sheet[margin + 40 : -margin, margin : margin + body.shape[1]] = body
    return sheet


def _image_note(scene_flow: SceneFlow, objects: Sequence[MovingObject]) -> str:
    if scene_flow.ego_motion is not None:
        return motion_note(scene_flow, objects)
    height, width = scene_flow.valid.shape
    return f"{width} x {height} px"


def valid_maps(scene_flow: SceneFlow) -> tuple[np.ndarray, np.ndarray]:
    """Disparity, H x W, and optical flow forward in time, H x W x 2, px; NaN where the scene flow is invalid."""
    disparity = np.where(scene_flow.valid, scene_flow.disparity, np.float32(np.nan))
    forward = -scene_flow.flow if scene_flow.dt < 0 else scene_flow.flow
    return disparity, np.where(scene_flow.valid[..., None], forward, np.float32(np.nan))
