"""Scene flow of scenes with known motion, for the tests of `motion`."""

from __future__ import annotations

import numpy as np

from dwarf_ros.geometry import disparity_from_depth, rigid_prediction
from dwarf_ros.motion.rigid import exponential
from dwarf_ros.types import SceneFlow, StereoCamera

CAMERA = StereoCamera(
    fx=300, fy=310, cx=160, cy=60, cx_right=158, baseline=0.5, width=320, height=160
)


def street(camera: StereoCamera = CAMERA, scale: float = 1.0) -> np.ndarray:
    """Depth, m, of a ground 1.6 m below the camera between two walls, up to 60 m; times the scale."""
    rows = (np.arange(camera.height)[:, None] - camera.cy) / camera.fy
    columns = (np.arange(camera.width)[None] - camera.cx) / camera.fx
    with np.errstate(divide="ignore"):
        ground = np.where(rows > 0, 1.6 / rows, np.inf)
        walls = 7.0 / np.abs(columns)
    return scale * np.minimum(np.minimum(ground, walls), 60.0)


def scene_flow_of(
    depth: np.ndarray,
    motion: np.ndarray,
    camera: StereoCamera = CAMERA,
    moving: np.ndarray | None = None,
    own: np.ndarray | None = None,
    dt: float = 0.1,
    noise: float = 0.0,
    seed: int = 0,
) -> SceneFlow:
    """Exact scene flow of a depth map; where `moving`, points move by `motion @ own`; with noise, px."""
    disparity = disparity_from_depth(depth, camera).astype(np.float32)
    columns = np.arange(camera.width, dtype=np.float32)[None]
    rows = np.arange(camera.height, dtype=np.float32)[:, None]
    x, y, after, _ = rigid_prediction(columns, rows, disparity, camera, motion)
    if moving is not None and own is not None:
        for value, other in zip(
            (x, y, after),
            rigid_prediction(columns, rows, disparity, camera, motion @ own),
            strict=False,
        ):
            value[moving] = other[moving]
    flow = np.dstack([x - columns, y - rows])
    if noise:
        rng = np.random.default_rng(seed)
        for values in (flow, disparity, after):
            values += rng.normal(0, noise, values.shape).astype(np.float32)
    valid = np.isfinite(after) & (after > 0) & (disparity > 0)
    valid &= (x >= 0) & (x <= camera.width - 1) & (y >= 0) & (y <= camera.height - 1)
    return SceneFlow(disparity, after, flow, valid, dt=dt, camera=camera)


def motion_of(
    translation: tuple[float, float, float], rotation: tuple[float, float, float]
) -> np.ndarray:
    """4 x 4 motion of a translation, m, and a rotation vector, rad."""
    return exponential(np.array([*translation, *rotation], float))
