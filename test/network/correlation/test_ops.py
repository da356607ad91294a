"""Correlations against slow loops."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.network.correlation.ops import correlation_1d, correlation_2d, correlation_3d

sizes = st.tuples(*[st.integers(1, 2), st.integers(1, 5), st.integers(1, 7), st.integers(1, 6)])
quick = settings(max_examples=12, deadline=None, derandomize=True)


def pair(size, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=size).astype(np.float32) for _ in range(2)]


def looped(first, second, rows, columns):
    """Mean over channels of first[y, x] * second[y + j, x + i], a channel for each j of rows and i of columns."""
    batch, height, width, _ = first.shape
    volume = np.zeros((batch, height, width, len(rows) * len(columns)))
    for y in range(height):
        for x in range(width):
            for channel, (j, i) in enumerate((j, i) for j in rows for i in columns):
                if 0 <= y + j < height and 0 <= x + i < width:
                    product = first[:, y, x].astype(np.float64) * second[:, y + j, x + i]
                    volume[:, y, x, channel] = product.mean(axis=-1)
    return volume


@quick
@given(size=sizes, radius=st.integers(0, 4), seed=st.integers(0, 99))
def test_horizontal_correlation_is_the_loop(size, radius, seed):
    left, right = pair(size, seed)
    volume = np.asarray(correlation_1d(left, right, radius))
    expected = looped(left, right, [0], range(-radius, radius + 1))
    np.testing.assert_allclose(volume, expected, atol=1e-5)


@quick
@given(size=sizes, radius=st.integers(0, 3), seed=st.integers(0, 99))
def test_correlation_over_both_axes_is_the_loop_with_y_outer(size, radius, seed):
    first, second = pair(size, seed)
    reach = range(-radius, radius + 1)
    volume = np.asarray(correlation_2d(first, second, radius))
    np.testing.assert_allclose(volume, looped(first, second, reach, reach), atol=1e-5)


@quick
@given(size=sizes, radius=st.integers(0, 2), depth=st.integers(0, 3), seed=st.integers(0, 99))
def test_3d_correlation_moves_the_second_volume_along_its_channels(size, radius, depth, seed):
    volume_t0, volume_t1 = pair(size, seed)
    reach = range(-radius, radius + 1)
    channels = size[-1]
    expected = []
    for k in range(-depth, depth + 1):
        moved = np.zeros_like(volume_t1)
        for c in range(channels):
            if 0 <= c + k < channels:
                moved[..., c] = volume_t1[..., c + k]
        expected.append(looped(volume_t0, moved, reach, reach))
    volume = np.asarray(correlation_3d(volume_t0, volume_t1, radius, depth))
    assert volume.shape[-1] == (2 * depth + 1) * (2 * radius + 1) ** 2
    np.testing.assert_allclose(volume, np.concatenate(expected, axis=-1), atol=1e-5)


def test_features_moved_by_a_disparity_peak_at_its_channel():
    rng = np.random.default_rng(5)
    left = rng.normal(size=(1, 4, 32, 64)).astype(np.float32)
    right = np.roll(left, -3, axis=2)
    best = np.asarray(correlation_1d(left, right, 4)).argmax(axis=-1)
    assert (best[:, :, 4:-4] == 4 - 3).all()
