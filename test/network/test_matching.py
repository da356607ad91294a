"""Scene flow straight from correlations, on features that moved by known displacements."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from dwarf_ros.network.correlation.ops import correlation_1d, correlation_2d, correlation_3d
from dwarf_ros.network.matching import GlobalMatching, LocalMatching, normalize_channels
from dwarf_ros.network.presets import SCALE_FACTOR

RNG = np.random.default_rng(11)
HEIGHT, WIDTH, CHANNELS = 7, 12, 64


def sharp(layer):
    """The layer with a softmax that picks the best match."""
    layer.sharpness.assign(ops.ones_like(layer.sharpness) * 20)
    return layer


def drawn(height=HEIGHT, width=WIDTH):
    return RNG.normal(size=(2, height, width, CHANNELS)).astype(np.float32)


def test_normalised_features_have_zero_mean_and_unit_variance():
    features = drawn() * 30 + 5
    normalized = np.asarray(normalize_channels(features))
    np.testing.assert_allclose(normalized.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(normalized.var(axis=-1), 1, atol=1e-3)
    assert not np.asarray(normalize_channels(np.full((1, 2, 2, 8), 3.0, np.float32))).any()


def test_every_pixel_is_found_wherever_it_went():
    """Rows move by disparities of their own, and the image's pixels are shuffled as a whole."""
    left_t0 = drawn()
    disparities = RNG.integers(0, WIDTH, HEIGHT)
    right_t0 = np.stack([np.roll(left_t0[:, y], -d, axis=1) for y, d in enumerate(disparities)], axis=1)  # fmt: skip
    order = RNG.permutation(HEIGHT * WIDTH)
    left_t1 = left_t0.reshape(2, -1, CHANNELS)[:, order].reshape(left_t0.shape)
    right_t1 = np.roll(left_t1, -2, axis=2)
    layer = sharp(GlobalMatching(4, name="global"))
    scene_flow, sure, stereo, flow = layer([left_t0, right_t0, left_t1, right_t1])
    motion = np.asarray(scene_flow) * SCALE_FACTOR / 2**4
    assert stereo.shape == (2, HEIGHT, WIDTH, WIDTH)
    assert flow.shape == (2, HEIGHT * WIDTH, HEIGHT * WIDTH)
    for y, d in enumerate(disparities):
        np.testing.assert_allclose(motion[:, y, d:, 0], -d, atol=1e-2)
    target = np.argsort(order).reshape(HEIGHT, WIDTH)
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    np.testing.assert_allclose(motion[..., 2], np.broadcast_to(target % WIDTH - x, (2, HEIGHT, WIDTH)), atol=1e-2)  # fmt: skip
    np.testing.assert_allclose(motion[..., 3], np.broadcast_to(target // WIDTH - y, (2, HEIGHT, WIDTH)), atol=1e-2)  # fmt: skip
    followed = np.broadcast_to(target % WIDTH >= 2, (2, HEIGHT, WIDTH))
    np.testing.assert_allclose(motion[..., 1][followed], -2, atol=1e-2)
    assert np.asarray(sure)[..., 2].min() > 0.99


def test_nothing_is_matched_to_the_right_of_its_column():
    left = drawn()
    right = np.roll(left, 1, axis=2)
    _, _, stereo, _ = GlobalMatching(4, name="one_sided")([left, right, left, right])
    match = np.asarray(ops.softmax(stereo, axis=-1))
    assert not np.triu(match[0, 0], k=1).any()
    assert (np.tril(match[0, 0]) > 0).sum() == WIDTH * (WIDTH + 1) / 2


def test_fresh_matches_are_those_of_a_tempered_softmax():
    left, right = drawn(1, 6), drawn(1, 6)
    scene_flow, sure, stereo, _ = GlobalMatching(4, name="fresh")([left, right, left, right])
    a, b = (np.asarray(normalize_channels(f))[0, 0] for f in (left, right))
    logits = np.where(np.tri(6, dtype=bool), 20 * a @ b.T / CHANNELS, -np.inf)
    match = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(sure[0, 0, :, 0], match.max(axis=1), atol=1e-4)
    disparity = match @ np.arange(6) - np.arange(6)
    np.testing.assert_allclose(scene_flow[0, 0, :, 0], disparity * 16 / 20, atol=1e-4)
    assert np.asarray(stereo)[0, 0][np.triu_indices(6, 1)].max() < -1000


def test_local_matches_add_to_the_scene_flow_that_they_are_around():
    level, moved = 3, {"disparity": -3, "disparity_change": 2, "flow": (4, -1)}
    base = drawn(12, 24)

    def roll(x, y=0):
        return np.roll(base, (y, x), axis=(1, 2))

    stereo_t0 = correlation_1d(base, roll(moved["disparity"]), 4)
    stereo_t1 = correlation_1d(base, roll(moved["disparity_change"]), 4)
    volumes = ops.concatenate(
        [
            stereo_t0,
            stereo_t1,
            correlation_3d(stereo_t0, stereo_t1, 4, 0),
            correlation_2d(base, roll(*moved["flow"]), 4),
        ],
        axis=-1,
    )
    center = RNG.normal(size=(2, 12, 24, 4)).astype(np.float32)
    layer = sharp(LocalMatching(level, 4, name="local"))
    scene_flow, logits = layer([volumes, center])
    assert logits.shape == (2, 12, 24, 9 + 9 + 81)
    found = (np.asarray(scene_flow) - center)[:, 4:-4, 4:-4] * SCALE_FACTOR / 2**level
    np.testing.assert_allclose(found, np.broadcast_to([-3, 2, 4, -1], found.shape), atol=1e-2)
    assert layer.compute_output_shape([volumes.shape, center.shape]) == (
        scene_flow.shape,
        logits.shape,
    )


@pytest.mark.parametrize("size", [(4, 6), (None, None)])
def test_shapes_are_known_before_anything_is_computed(size):
    features = [keras.Input((*size, 8)) for _ in range(4)]
    outputs = GlobalMatching(4, name="shapes")(features)
    height, width = size
    pixels = height * width if height else None
    assert [output.shape for output in outputs] == [
        (None, height, width, 4),
        (None, height, width, 3),
        (None, height, width, width),
        (None, pixels, pixels),
    ]
