"""Labels by the camera's motion, on a drive whose scene flow is known exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwarf_ros.inference.rigid_labels import with_rigid_labels
from dwarf_ros.samples import Maps
from dwarf_ros.synthetic.drives import ProceduralDrive
from dwarf_ros.types import StereoFrame


@pytest.fixture(scope="module")
def drive() -> ProceduralDrive:
    return ProceduralDrive(seed=6, frames=2, width=640, height=320)


def visible(truth) -> Maps:
    """What a perfect teacher that only sees unoccluded points would keep."""
    true, hidden = truth.scene_flow, truth.flow_occluded
    return Maps(
        true.disparity,
        np.where(hidden, np.float32(np.nan), true.disparity_next),
        np.where(hidden[..., None], np.float32(np.nan), true.flow),
    )


def test_static_points_out_of_sight_get_the_right_labels(drive):
    truth = drive.ground_truth(0, 1)
    maps = visible(truth)
    labeled = with_rigid_labels(maps, drive[0], drive[1])
    added = np.isnan(maps.flow[..., 0]) & np.isfinite(labeled.flow[..., 0])
    hidden = np.isfinite(truth.scene_flow.flow[..., 0]) & np.isnan(maps.flow[..., 0])
    assert np.count_nonzero(added & hidden) > 0.3 * np.count_nonzero(hidden)
    error = np.linalg.norm(labeled.flow - truth.scene_flow.flow, axis=-1)[added & hidden]
    assert np.mean(error < 3) > 0.9
    error = np.abs(labeled.disparity_next - truth.scene_flow.disparity_next)[added & hidden]
    assert np.mean(error < 3) > 0.9
    assert labeled.flow.dtype == labeled.disparity_next.dtype == np.float32


def test_labels_that_exist_stay(drive):
    maps = visible(drive.ground_truth(0, 1))
    labeled = with_rigid_labels(maps, drive[0], drive[1])
    for before, after in zip(vars(maps).values(), vars(labeled).values(), strict=True):
        known = np.isfinite(before)
        np.testing.assert_array_equal(after[known], before[known])
    np.testing.assert_array_equal(labeled.disparity, maps.disparity)


def test_without_calibration_or_texture_nothing_is_added(drive):
    maps = visible(drive.ground_truth(0, 1))
    plain = [replace(frame, camera=None) for frame in (drive[0], drive[1])]
    assert with_rigid_labels(maps, *plain) is maps
    black = np.zeros_like(drive[0].left)
    dark = [StereoFrame(black, black, drive[i].stamp, drive.camera) for i in range(2)]
    assert with_rigid_labels(maps, *dark) is maps
