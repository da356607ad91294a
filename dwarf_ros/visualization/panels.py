"""Panels that show one scene flow: left image, disparity, optical flow and the scene from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dwarf_ros.types import SceneFlow
from dwarf_ros.visualization.birds_eye import has_motion, seen_from_above
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


@dataclass(frozen=True)
class Scales:
    """What the last colors of a panel represent.

    Attributes:
        disparity: px.
        flow: px.
        speed: m/s (m per frame if times are unknown); None: that of the fastest group.
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
    """One picture of one estimate: left image, disparity, optical flow and, with a camera, the scene from above.

    Motion is always shown forward in time, whichever frame is the reference. If dt is 0 (the frames' times are unknown), it is
    shown in m per frame.

    Args:
        left: left image of the reference frame, uint8 RGB H x W x 3; None omits it.
        scene_flow: the estimate; invalid pixels show the dimmed left image, or black without it.
        title: on the left of the heading.
        note: on the right of the heading.
        width: of the picture, px.
        scales: of the colors; None: chosen for this estimate.

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
        size = f"{image_width} x {image_height} px"
        image = [titled(resized(left, column, row), "Left image", size)]

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
    head[:] = PAPER
    write_text(head, title, 4, 26, size=0.68, font=FONT_BOLD)
    write_text(head, note, inner - 4, 26, size=0.5, color=FAINT_INK, anchor="right")
    sheet = np.empty((body.shape[0] + 40 + 2 * margin, width, 3), dtype=np.uint8)
    sheet[:] = PAPER
    sheet[margin : margin + 40, margin : margin + inner] = head
    sheet[margin + 40 : -margin, margin : margin + body.shape[1]] = body
    return sheet


def valid_maps(scene_flow: SceneFlow) -> tuple[np.ndarray, np.ndarray]:
    """Disparity, H x W, and optical flow forward in time, H x W x 2, px; NaN where the scene flow is invalid."""
    disparity = np.where(scene_flow.valid, scene_flow.disparity, np.float32(np.nan))
    forward = -scene_flow.flow if scene_flow.dt < 0 else scene_flow.flow
    return disparity, np.where(scene_flow.valid[..., None], forward, np.float32(np.nan))
