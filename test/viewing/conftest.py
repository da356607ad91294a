"""A small scene with its estimate, and a drive on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from dwarf_ros.formats import write_disparity_png, write_flow_png
from dwarf_ros.geometry import disparity_from_depth, rigid_scene_flow
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import MOVING, EgoMotion, SceneFlow, StereoCamera
from dwarf_ros.viewing.results import Result

CAMERA = StereoCamera(fx=200, fy=200, cx=80, cy=40, cx_right=80, baseline=0.5, width=160, height=80)
STAMP = 1_700_000_000_000_000_000


def _make_result(name: str = "000003", stamp: int = STAMP, dt: float = 0.1) -> Result:
    """A wall 12 m away that the camera passes sideways at 3 m/s; a patch amid it moves right at 10 m/s more."""
    disparity = np.full((80, 160), disparity_from_depth(np.array(12.0), CAMERA), dtype=np.float32)
    motion, own = np.eye(4), np.eye(4)
    motion[0, 3], own[0, 3] = -0.3, 1.0
    flow, disparity_next = rigid_scene_flow(disparity, CAMERA, motion)
    flow[30:50, 60:100] = rigid_scene_flow(disparity, CAMERA, motion @ own)[0][30:50, 60:100]
    valid = np.ones(disparity.shape, dtype=bool)
    valid[:, :20] = False
    blobs = np.random.default_rng(2).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    left = cv2.resize(blobs, (160, 80))
    mask = np.zeros(disparity.shape, np.uint8)
    mask[30:50, 60:100] = MOVING
    confidence = np.full(disparity.shape, 0.5, np.float32)
    ego_motion = EgoMotion(motion, np.eye(6) * 1e-6, 0.9)
    scene_flow = SceneFlow(
        disparity,
        disparity_next,
        flow,
        valid,
        stamp,
        dt,
        CAMERA,
        "eye",
        confidence,
        confidence,
        ego_motion,
        mask,
    )
    truth = SampleTruth(Maps(disparity + 1, disparity_next, flow))
    return Result(name, scene_flow, left, "classical on opencv", 0.25, truth)


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """Function from a name, a stamp (ns) and a time between frames (s) to a result."""
    return _make_result


@pytest.fixture
def result() -> Result:
    return _make_result()


@pytest.fixture(scope="session")
def drive(tmp_path_factory) -> Path:
    """Four frames with calibration, on disk."""
    folder = tmp_path_factory.mktemp("viewing") / "drive"
    write_drive(ProceduralDrive(seed=4, frames=4, width=192, height=96), folder)
    return folder


@pytest.fixture
def prediction(tmp_path, drive) -> Path:
    """Results of the drive's first two frames, as dwarf predict writes them."""
    folder = tmp_path / "results"
    for name in RESULT_FOLDERS:
        (folder / name).mkdir(parents=True)
    flow = np.zeros((96, 192, 2), dtype=np.float32)
    for name in ("000000", "000001"):
        write_disparity_png(folder / "disp_0" / f"{name}.png", flow[..., 0] + 20)
        write_disparity_png(folder / "disp_1" / f"{name}.png", flow[..., 0] + 21)
        write_flow_png(folder / "flow" / f"{name}.png", flow + 2)
    return folder
