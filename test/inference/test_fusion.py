"""Fused labels: precise disparities where sources agree, rigid ones where static pixels have none."""

import numpy as np

from dwarf_ros.geometry import rigid_scene_flow
from dwarf_ros.inference.fusion import AGREEMENT, fuse
from dwarf_ros.samples import Maps
from dwarf_ros.types import SceneFlow, StereoCamera

SHAPE = (120, 240)
CAMERA = StereoCamera(
    fx=200.0,
    fy=200.0,
    cx=120.0,
    cy=60.0,
    cx_right=120.0,
    baseline=0.5,
    width=SHAPE[1],
    height=SHAPE[0],
)


def static_scene() -> SceneFlow:
    """A rough surface, seen by a camera that moves forward."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disparity = (8 + 6 * rows / SHAPE[0] + 2 * np.sin(columns / 20)).astype(np.float32)
    motion = np.eye(4)
    motion[2, 3] = -0.5
    flow, disparity_next = rigid_scene_flow(disparity, CAMERA, motion)
    valid = np.ones(SHAPE, bool)
    return SceneFlow(disparity, disparity_next, flow, valid, stamp=0, dt=0.1, camera=CAMERA)


def test_static_pixels_without_a_label_get_the_rigid_one():
    scene = static_scene()
    teacher = Maps(scene.disparity.copy(), scene.disparity_next.copy(), scene.flow.copy())
    teacher.flow[40:50, 60:80] = np.nan
    teacher.disparity_next[40:50, 60:80] = np.nan
    fused = fuse(teacher, Maps(), scene)
    assert np.abs(fused.flow - scene.flow)[40:50, 60:80].max() < 0.1
    assert np.abs(fused.disparity_next - scene.disparity_next)[40:50, 60:80].max() < 0.1


def test_what_moves_vouches_for_nothing():
    scene = static_scene()
    scene.flow[30:70, 40:110, 0] += 8
    teacher = Maps(scene.disparity.copy(), scene.disparity_next.copy(), scene.flow.copy())
    teacher.flow[45:55, 60:80] = np.nan
    fused = fuse(teacher, Maps(), scene)
    assert np.isnan(fused.flow[45:55, 60:80]).all()
    assert (fused.flow[30:40, 50:100] == scene.flow[30:40, 50:100]).all()


def test_a_classical_disparity_counts_where_it_agrees():
    scene = static_scene()
    classical = scene.disparity + np.float32(AGREEMENT / 2)
    classical[:60] += 5
    teacher = Maps(scene.disparity, scene.disparity_next, scene.flow)
    fused = fuse(teacher, Maps(classical), scene)
    assert (fused.disparity[:60] == scene.disparity[:60]).all()
    assert (fused.disparity[60:] == classical[60:]).all()
