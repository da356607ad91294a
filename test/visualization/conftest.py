"""A scene with one moving block."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.geometry import disparity_from_depth, rigid_scene_flow
from dwarf_ros.types import MOVING, EgoMotion, MovingObject, SceneFlow, StereoCamera

CAMERA = StereoCamera(fx=200, fy=200, cx=80, cy=40, cx_right=80, baseline=0.5, width=160, height=80)


@pytest.fixture
def scene():
    """dt -> scene 15 m away that the camera passes sideways at 3 m/s; its middle moves."""

    def make(dt):
        disparity = np.full((80, 160), disparity_from_depth(np.array(15.0), CAMERA), np.float32)
        motion, own = np.eye(4), np.eye(4)
        motion[0, 3] = -0.3 if dt >= 0 else 0.3
        own[0, 3] = 1.0
        flow, disparity_next = rigid_scene_flow(disparity, CAMERA, motion)
        flow[30:50, 60:100] = rigid_scene_flow(disparity, CAMERA, motion @ own)[0][30:50, 60:100]
        valid = np.ones(disparity.shape, dtype=bool)
        mask = np.zeros(disparity.shape, np.uint8)
        mask[30:50, 60:100] = MOVING
        return SceneFlow(
            disparity,
            disparity_next,
            flow,
            valid,
            dt=dt,
            camera=CAMERA,
            ego_motion=EgoMotion(motion, np.eye(6) * 1e-4, 0.9),
            motion_mask=mask,
        )

    return make


@pytest.fixture
def moving_object():
    """Function from an id, a position (right, ahead), m, and a velocity (right, ahead), m/s, to an object of 20 x 40 px."""

    def make(number=3, position=(0.0, 15.0), velocity=(8.0, 0.0), box=(60, 30, 40, 20)):
        pose = np.eye(4)
        pose[[0, 2], 3] = position
        return MovingObject(
            id=number,
            pose=pose,
            size=np.array([3.0, 1.5, 0.5]),
            velocity=np.array([velocity[0], 0.0, velocity[1]]),
            position_covariance=np.eye(3),
            velocity_covariance=np.eye(3),
            mask=np.ones((box[3], box[2]), dtype=bool),
            box=box,
        )

    return make


@pytest.fixture
def colored():
    """Picture -> rows and columns of the pixels that are neither gray nor the bluish dark ground."""

    def find(picture):
        channels = picture.astype(int)
        return np.argwhere(channels.max(-1) - channels.min(-1) > 60)

    return find
