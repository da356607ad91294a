"""Exact motion of what a view shows, from the geometry of its scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dwarf_ros.synthetic.renderer import CRACK, View
from dwarf_ros.synthetic.scene import NEAR


@dataclass(frozen=True, eq=False)
class Motion:
    """Where the points in a left image are at another time: arrays of H x W, float64 where not stated.

    Attributes:
        x, y: pixels in the left image of that time.
        inverse_depth: 1/m there; 0 for points that the camera has passed.
        passed: bool; True where the point is less than `NEAR` in front of the camera's plane, or behind it.
        objects: int32; number of the object plus one if it moves in the world, else 0.
    """

    x: np.ndarray
    y: np.ndarray
    inverse_depth: np.ndarray
    passed: np.ndarray
    objects: np.ndarray


def motion_of(left: View, inverse_depth: np.ndarray, before: int, after: int) -> Motion:
    """Motion of the points that the rays through the pixels' centers meet.

    Args:
        left: view of the left camera at time `before`.
        inverse_depth: of each pixel there, float64 H x W, 1/m.
        before: index of its time.
        after: index of the other time.
    """
    camera, scene = left.camera, left.scene
    x = np.arange(camera.width, dtype=np.float64)
    y = np.arange(camera.height, dtype=np.float64)[:, None]
    project = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    back = np.linalg.inv(project)
    # In homogeneous pixel coordinates over depth: moved = turn (x, y, 1) + shift / depth. Most of the scene stands.
    camera_motion = scene.motions[after] @ np.linalg.inv(scene.motions[before])
    turn, shift = project @ camera_motion[:3, :3] @ back, project @ camera_motion[:3, 3]
    moved = [
        (turn[k, 0] * x + (turn[k, 1] * y + turn[k, 2])) + shift[k] * inverse_depth
        for k in range(3)
    ]
    # The last label is for pixels without a surface.
    moving = sorted(scene.moving)
    label = np.zeros(len(scene.poses) + 1, np.int32)
    label[moving] = np.array(moving, np.int32) + 1
    objects = label[np.append(scene.objects(), -1)].take(left.surface.astype(np.intp))
    at = np.flatnonzero(objects)
    if len(at):
        first, second = (
            np.stack([scene.poses[k][time] for k in moving]) for time in (before, after)
        )
        motion = second @ np.linalg.inv(first)
        turns, shifts = project @ motion[:, :3, :3] @ back, motion[:, :3, 3] @ project.T
        which = np.searchsorted(moving, objects.ravel()[at] - 1)
        down, across = np.divmod(at, camera.width)
        nearness = inverse_depth.ravel()[at]
        for k in range(3):
            parts = [np.ascontiguousarray(turns[:, k, j]).take(which) for j in range(3)]
            value = parts[0] * across + parts[1] * down + parts[2]
            moved[k].ravel()[at] = value + shifts[:, k].take(which) * nearness
    scale = moved[2]
    passed = (scale < NEAR * inverse_depth) | (scale <= 0)
    np.copyto(scale, np.inf, where=passed)
    np.divide(1, scale, out=scale)
    return Motion(moved[0] * scale, moved[1] * scale, inverse_depth * scale, passed, objects)


def hidden_in(
    view: View, left: View, x: np.ndarray, y: np.ndarray, inverse_depth: np.ndarray,
    border: float = CRACK,
) -> np.ndarray:  # fmt: skip
    """Whether the points that a left view shows are hidden in another view at pixels x, y, or outside it: bool H x W.

    `border` is how far outside the centers of the outer pixels still counts as inside, px.
    """
    number = left.surface.ravel().astype(np.intp)
    y = np.broadcast_to(y, x.shape)
    return view.hides(number, x.ravel(), y.ravel(), inverse_depth.ravel(), border).reshape(x.shape)
