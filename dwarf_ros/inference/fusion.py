"""Labels from several sources: a teacher's, those of `classical` where they are more precise, and those of the static scene.

A network's labels are dense but a tenth of a pixel coarse; semi-global matching is more precise where both agree. The rigid scene
flow of static pixels reaches what no consistency check can confirm: points that are occluded or leave the image.
"""

from __future__ import annotations

import numpy as np

from dwarf_ros.geometry import rigid_scene_flow
from dwarf_ros.motion.ego_motion import estimate_ego_motion
from dwarf_ros.samples import Maps
from dwarf_ros.types import SceneFlow

AGREEMENT = 1.0
"""A classical disparity replaces a teacher's from which it differs by no more than this, px."""

STATIC = 1.0
"""A pixel is static if the teacher's flow differs from the rigid one by no more than this, px + 2 % of its length."""

_NEIGHBORHOOD = 41
"""Side of the window in which static pixels vouch for those without a label, px."""

_STATIC_SHARE = 0.9


def fuse(teacher: Maps, classical: Maps, estimate: SceneFlow) -> Maps:
    """Fuse the labels of one pair of frames.

    Args:
        teacher: consistent labels of a teacher, NaN where there is none.
        classical: consistent labels of `classical`, likewise.
        estimate: the teacher's whole estimate, with a camera; its ego-motion gives the labels of static pixels.

    Returns:
        Disparity, disparity_next and flow, float32, px; NaN where no source has a label.
    """
    assert teacher.disparity is not None
    assert teacher.disparity_next is not None
    assert teacher.flow is not None
    disparity = _more_precise(teacher.disparity, classical.disparity)
    disparity_next = _more_precise(teacher.disparity_next, classical.disparity_next)
    flow = teacher.flow.copy()
    rigid = rigid_labels(estimate, teacher.flow)
    if rigid is not None:
        rigid_flow, rigid_next, is_static = rigid
        missing = is_static & ~np.isfinite(flow[..., 0])
        flow[missing] = rigid_flow[missing]
        missing = is_static & ~np.isfinite(disparity_next)
        disparity_next[missing] = rigid_next[missing]
    return Maps(disparity, disparity_next, flow)


def rigid_labels(
    estimate: SceneFlow, flow: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Flow and next disparity of the static scene.

    Args:
        estimate: scene flow with a camera; pixels without disparity get no label.
        flow: labels of the flow, px, float32 H x W x 2; NaN where unknown. A pixel is static where they agree with the rigid
            flow, and an unknown pixel where nine of ten known ones around it are.

    Returns:
        Flow (H x W x 2) and next disparity (H x W) of all pixels, px, NaN without disparity, and where they are labels; None
        where the ego-motion cannot be estimated.
    """
    import cv2

    motion = estimate_ego_motion(estimate)
    if motion.transform is None or estimate.camera is None:
        return None
    rigid_flow, rigid_next = rigid_scene_flow(estimate.disparity, estimate.camera, motion.transform)
    length = np.linalg.norm(flow, axis=-1)
    with np.errstate(invalid="ignore"):
        agrees = np.linalg.norm(rigid_flow - flow, axis=-1) <= STATIC + 0.02 * length
    is_known = np.isfinite(length) & np.isfinite(rigid_next)
    window = (_NEIGHBORHOOD, _NEIGHBORHOOD)
    known = cv2.boxFilter(is_known.astype(np.float32), -1, window)
    static = cv2.boxFilter((agrees & is_known).astype(np.float32), -1, window)
    around = (static >= _STATIC_SHARE * known) & (known > 0.05)
    is_static = np.where(is_known, agrees, around) & np.isfinite(rigid_next)
    return rigid_flow, rigid_next, is_static


def _more_precise(teacher: np.ndarray, classical: np.ndarray | None) -> np.ndarray:
    if classical is None:
        return teacher.copy()
    with np.errstate(invalid="ignore"):
        agrees = np.abs(teacher - classical) <= AGREEMENT
    return np.where(agrees, classical, teacher)
