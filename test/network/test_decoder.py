"""What the decoder does to features before it correlates them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dwarf_ros.network.decoder import CostVolumes
from dwarf_ros.network.presets import DWARF, DWARF_LITE

RNG = np.random.default_rng(7)
FEATURES = [RNG.normal(size=(1, 6, 40, 16)).astype(np.float32) for _ in range(4)]


def test_normalised_volumes_ignore_the_features_scale():
    layer = CostVolumes(DWARF_LITE, 6, name="lite")
    once = np.asarray(layer(FEATURES))
    np.testing.assert_allclose(np.asarray(layer([10 * f for f in FEATURES])), once, atol=1e-3)
    assert np.abs(once).max() <= 1.001
    assert once.min() < -0.2, "coefficients are not activated"
    published = CostVolumes(DWARF, 6, name="published")
    assert np.abs(np.asarray(published([10 * f for f in FEATURES]))).max() > 10


def test_depth_range_widens_the_3d_volume():
    layer = CostVolumes(replace(DWARF, max_depth_displacement=2), 6, name="deep")
    volumes = np.asarray(layer(FEATURES))
    assert volumes.shape[-1] == 9 + 9 + 5 * 81 + 81
    assert layer.compute_output_shape([f.shape for f in FEATURES]) == volumes.shape


def test_scene_flow_aligns_all_four_images():
    """Views moved by a constant scene flow correlate best at no displacement once they are warped with it."""
    level, disparity, disparity_change, flow = 3, -16.0, -8.0, (24.0, -16.0)
    left_t0 = RNG.normal(size=(1, 12, 40, 64)).astype(np.float32)
    pixels = 2**level

    def moved(x, y):
        return np.roll(left_t0, (int(y / pixels), int(x / pixels)), axis=(1, 2))

    views = [left_t0, moved(disparity, 0), moved(*flow), moved(flow[0] + disparity_change, flow[1])]
    scene_flow = np.broadcast_to(
        np.array([disparity, disparity_change, *flow], np.float32) / 20, (1, 12, 40, 4)
    )
    layer = CostVolumes(DWARF, level, name="warped")
    volumes = np.asarray(layer([*views, scene_flow]))[:, 4:-4, 8:-8]
    assert (volumes[..., :9].argmax(axis=-1) == 4).all()
    assert (volumes[..., 9:18].argmax(axis=-1) == 4).all()
    assert (volumes[..., 18 + 81 :].argmax(axis=-1) == 40).all()


def test_coefficients_are_matched_at_the_border_too():
    """Where the warp leaves the image its border goes on, for presets that match."""
    left_t0 = np.repeat(RNG.normal(size=(1, 6, 1, 64)).astype(np.float32), 40, axis=2)
    scene_flow = np.full((1, 6, 40, 4), -16 / 20, np.float32)
    for preset, expected in ((DWARF_LITE, 1.0), (DWARF, 0.0)):
        volumes = CostVolumes(preset, 3, name=f"{preset.name}_border")([left_t0] * 4 + [scene_flow])
        assert abs(np.asarray(volumes)[0, 2, 0, 4] - expected) < 1e-3
