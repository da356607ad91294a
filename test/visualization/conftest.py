"""A scene with one moving block."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.geometry import disparity_from_depth, rigid_scene_flow
from dwarf_ros.types import SceneFlow, StereoCamera

CAMERA = StereoCamera(fx=200, fy=200, cx=80, cy=40, cx_right=80, baseline=0.5, width=160, height=80)


@pytest.fixture
def scene():
    """dt -> scene without a ground, 15 m away, that the camera passes sideways; its middle moves over ground."""

    def make(dt):
        disparity = np.full((80, 160), disparity_from_depth(np.array(15.0), CAMERA), np.float32)
        motion, own = np.eye(4), np.eye(4)
        motion[0, 3] = -0.3 if dt >= 0 else 0.3
        own[0, 3] = 1.0
        flow, disparity_next = rigid_scene_flow(disparity, CAMERA, motion)
        flow[30:50, 60:100] = rigid_scene_flow(disparity, CAMERA, motion @ own)[0][30:50, 60:100]
        valid = np.ones(disparity.shape, dtype=bool)
        return SceneFlow(disparity, disparity_next, flow, valid, dt=dt, camera=CAMERA)

    return make


@pytest.fixture
def colored():
    """Picture -> rows and columns of the pixels that are neither gray nor the bluish dark ground."""

    def find(picture):
        channels = picture.astype(int)
        return np.argwhere(channels.max(-1) - channels.min(-1) > 60)

    return find
