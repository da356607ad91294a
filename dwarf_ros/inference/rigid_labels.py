"""Labels for static pixels from disparity and ego-motion, where a teacher has none."""

from __future__ import annotations

import cv2
import numpy as np

from dwarf_ros.geometry import rigid_scene_flow
from dwarf_ros.motion.refinement import refine
from dwarf_ros.recordings.kitti_layout import LARGEST_DISPARITY, LARGEST_FLOW
from dwarf_ros.samples import Maps
from dwarf_ros.types import MOVING, SceneFlow, StereoFrame

_MARGIN = 15
"""Pixels closer to a moving object than this, px, get no label: its outline is not known better."""

_WINDOW = 9
"""Pixels with a step of the disparity within this window, px, get no label: matching widens what is in front."""


def with_rigid_labels(maps: Maps, reference: StereoFrame, other: StereoFrame) -> Maps:
    """Add flow and next disparity that follow from the camera's motion: of points that are occluded or leave the image.

    Pixels get a label that have a disparity but lack one, do not move, and are neither near a moving object nor at a step of
    the disparity. Labels that exist stay as they are.

    Args:
        maps: consistent labels, all three maps.
        reference: the frame of the labels.
        other: the other frame.

    Returns:
        the maps as they are if the frames have no calibration or the scene does not determine the camera's motion.
    """
    disparity, disparity_next, flow = maps.disparity, maps.disparity_next, maps.flow
    assert disparity is not None
    assert disparity_next is not None
    assert flow is not None
    if reference.camera is None:
        return maps
    known = np.isfinite(flow).all(axis=-1)
    scene_flow = refine(
        SceneFlow(
            disparity,
            disparity_next,
            flow,
            known & np.isfinite(disparity) & np.isfinite(disparity_next),
            reference.stamp,
            (other.stamp - reference.stamp) / 1e9,
            reference.camera,
        ),
        reference.left,
        other.left,
        reference.right,
    )
    ego_motion, mask = scene_flow.ego_motion, scene_flow.motion_mask
    if ego_motion is None or ego_motion.transform is None or mask is None:
        return maps
    rigid, rigid_next = rigid_scene_flow(disparity, reference.camera, ego_motion.transform)
    around = np.ones((2 * _MARGIN + 1, 2 * _MARGIN + 1), np.uint8)
    usable = cv2.dilate((mask == MOVING).astype(np.uint8), around) == 0
    with np.errstate(invalid="ignore"):
        usable &= _is_smooth(disparity) & (rigid_next > 0) & (rigid_next <= LARGEST_DISPARITY)
        usable &= (np.abs(rigid) <= LARGEST_FLOW).all(axis=-1)
    return Maps(
        disparity,
        np.where(usable & np.isnan(disparity_next), rigid_next, disparity_next),
        np.where((usable & ~known)[..., None], rigid, flow),
    )


def _is_smooth(disparity: np.ndarray) -> np.ndarray:
    """Whether the known disparities around differ by less than 1 px and 10 %."""
    window, far = np.ones((_WINDOW, _WINDOW), np.uint8), np.float32(1e6)
    unknown = np.isnan(disparity)
    largest = cv2.dilate(np.where(unknown, -far, disparity), window)
    smallest = cv2.erode(np.where(unknown, far, disparity), window)
    return largest - smallest < 1 + 0.1 * disparity
