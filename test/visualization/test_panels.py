"""Panels: layout, scales, and what they can do without."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.types import SceneFlow, StereoCamera
from dwarf_ros.visualization.colors import disparity_scale, flow_scale
from dwarf_ros.visualization.panels import Scales, scene_flow_panel


@pytest.mark.parametrize("dt", [0.1, -0.1, 0.0])
def test_panel_has_the_specified_width_and_shows_objects(scene, moving_object, dt):
    left = np.full((80, 160, 3), 128, dtype=np.uint8)
    scene_flow = scene(dt)
    panel = scene_flow_panel(
        left, scene_flow, "Frame 3", "a note", width=900, objects=[moving_object()]
    )
    assert panel.dtype == np.uint8
    assert panel.shape[1:] == (900, 3)
    without = scene_flow_panel(left, scene_flow, "Frame 3", "a note", width=900)
    changed = (panel != without).any(-1)
    # On the left image, and from above.
    assert changed[:350, :500].any()
    assert changed[70:-80, 560:].any()


def test_panel_has_the_scales_asked_for_and_needs_no_image(scene):
    left = np.full((80, 160, 3), 128, dtype=np.uint8)
    estimate = scene(0.1)
    own = scene_flow_panel(left, estimate, width=900)
    given = Scales(disparity_scale(estimate.disparity), flow_scale(estimate.flow))
    assert np.array_equal(scene_flow_panel(left, estimate, width=900, scales=given), own)
    wider = Scales(2 * given.disparity, 3 * given.flow)
    assert not np.array_equal(scene_flow_panel(left, estimate, width=900, scales=wider), own)
    without = scene_flow_panel(None, estimate, width=900)
    assert without.shape[1] == 900
    assert without.shape[0] < own.shape[0]


def test_panel_works_without_a_camera_or_an_estimate(scene):
    left = np.full((80, 160, 3), 128, dtype=np.uint8)
    unknown = np.full((80, 160), np.nan, dtype=np.float32)
    flow = np.dstack([unknown, unknown])
    nowhere = np.zeros((80, 160), dtype=bool)
    for camera in (None, scene(0.1).camera):
        panel = scene_flow_panel(
            left, SceneFlow(unknown, unknown, flow, nowhere, dt=0.1, camera=camera), width=700
        )
        assert panel.shape[1] == 700


def test_square_images_are_laid_out_two_by_two():
    size = 64
    camera = StereoCamera(60, 60, 32, 32, 32, 0.5, size, size)
    disparity = np.full((size, size), 5, dtype=np.float32)
    flow = np.zeros((size, size, 2), dtype=np.float32)
    scene_flow = SceneFlow(
        disparity, disparity, flow, np.ones((size, size), dtype=bool), dt=0.1, camera=camera
    )
    panel = scene_flow_panel(np.zeros((size, size, 3), np.uint8), scene_flow, width=800)
    assert 0.8 < panel.shape[0] / panel.shape[1] < 1.3
