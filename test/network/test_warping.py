"""Samplers against NumPy and against the libraries whose conventions they follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.network.warping import (
    enlarge_bilinear,
    enlarge_convex,
    warp_along_disparity_zero_outside,
    warp_along_flow_border_replicated,
)

quick = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.tuples(*[st.integers(1, 2), st.integers(1, 6), st.integers(1, 9), st.integers(1, 4)])
spreads = st.sampled_from([0.0, 0.4, 3.0, 40.0, 1e6])


def drawn(size, channels, spread, seed, whole):
    """An image and motions of it, every second time whole pixels."""
    rng = np.random.default_rng(seed)
    image = rng.normal(size=size).astype(np.float32)
    motion = (rng.normal(size=(*size[:3], channels)) * spread).astype(np.float32)
    return image, np.round(motion) if whole else motion


def bilinear_with_clipped_weights(image, disparity):
    """The published sampler: corners are clipped to the image and weights are distances to the clipped corners."""
    batch, height, width, _ = image.shape
    warped = np.zeros(image.shape, np.float64)
    for b, y, x in np.ndindex(batch, height, width):
        position = float(np.float32(x) + disparity[b, y, x, 0])
        x0, y0 = int(np.floor(position)), y
        x0c, x1c = np.clip([x0, x0 + 1], 0, width - 1)
        y0c, y1c = np.clip([y0, y0 + 1], 0, height - 1)
        warped[b, y, x] = (
            (x1c - position) * (y1c - y) * image[b, y0c, x0c]
            + (x1c - position) * (y - y0c) * image[b, y1c, x0c]
            + (position - x0c) * (y1c - y) * image[b, y0c, x1c]
            + (position - x0c) * (y - y0c) * image[b, y1c, x1c]
        )
    return warped


def bilinear_with_replicated_border(image, flow):
    batch, height, width, _ = image.shape
    warped = np.zeros(image.shape, np.float64)
    for b, y, x in np.ndindex(batch, height, width):
        px = np.clip(float(np.float32(x) + flow[b, y, x, 0]), 0, width - 1)
        py = np.clip(float(np.float32(y) + flow[b, y, x, 1]), 0, height - 1)
        x0, y0 = int(px), int(py)
        x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
        a, c = px - x0, py - y0
        above = (1 - a) * image[b, y0, x0] + a * image[b, y0, x1]
        below = (1 - a) * image[b, y1, x0] + a * image[b, y1, x1]
        warped[b, y, x] = (1 - c) * above + c * below
    return warped


@quick
@given(size=sizes, spread=spreads, seed=st.integers(0, 99), whole=st.booleans())
def test_disparity_warp_is_the_published_sampler(size, spread, seed, whole):
    image, disparity = drawn(size, 1, spread, seed, whole)
    warped = np.asarray(warp_along_disparity_zero_outside(image, disparity))
    np.testing.assert_allclose(
        warped, bilinear_with_clipped_weights(image, disparity), rtol=1e-4, atol=1e-4
    )


@quick
@given(size=sizes, spread=spreads, seed=st.integers(0, 99), whole=st.booleans())
def test_flow_warp_replicates_the_border(size, spread, seed, whole):
    image, flow = drawn(size, 2, spread, seed, whole)
    warped = np.asarray(warp_along_flow_border_replicated(image, flow))
    np.testing.assert_allclose(
        warped, bilinear_with_replicated_border(image, flow), rtol=1e-4, atol=1e-4
    )


def test_disparity_warp_without_motion_loses_only_last_row_and_column():
    image = 1 + np.random.default_rng(0).random((2, 5, 7, 3), dtype=np.float32)
    warped = np.asarray(warp_along_disparity_zero_outside(image, np.zeros((2, 5, 7, 1), "f")))
    np.testing.assert_array_equal(warped[:, :-1, :-1], image[:, :-1, :-1])
    assert not warped[:, -1].any()
    assert not warped[:, :, -1].any()


def test_flow_warp_without_motion_is_the_image():
    image = np.random.default_rng(0).random((2, 5, 7, 3), dtype=np.float32)
    warped = np.asarray(warp_along_flow_border_replicated(image, np.zeros((2, 5, 7, 2), "f")))
    np.testing.assert_array_equal(warped, image)


def test_signs_of_the_motions():
    """A right camera sees a point further left; flow points to where the pixel goes."""
    base = np.random.default_rng(1).random((1, 8, 24, 2), dtype=np.float32)
    right = np.roll(base, -3, axis=2)
    warped = np.asarray(
        warp_along_disparity_zero_outside(right, np.full((1, 8, 24, 1), -3.0, np.float32))
    )
    np.testing.assert_array_equal(warped[:, :-1, 3:-1], base[:, :-1, 3:-1])
    later = np.roll(base, (2, -4), axis=(1, 2))
    flow = np.broadcast_to(np.array([-4.0, 2.0], np.float32), (1, 8, 24, 2))
    warped = np.asarray(warp_along_flow_border_replicated(later, flow))
    np.testing.assert_array_equal(warped[:, :-2, 4:], base[:, :-2, 4:])


@quick
@given(
    size=sizes,
    factor=st.sampled_from([1, 2, 3, 4, 8]),
    seed=st.integers(0, 99),
)
def test_enlargement_is_interpolation_at_the_convention_s_positions(size, factor, seed):
    maps = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    batch, height, width, channels = size

    def positions(length):
        return np.clip(np.arange(length * factor) / factor, 0, length - 1)

    expected = np.empty((batch, height * factor, width * factor, channels))
    for b, c in np.ndindex(batch, channels):
        rows = np.stack(
            [np.interp(positions(width), np.arange(width), row) for row in maps[b, :, :, c]]
        )
        expected[b, :, :, c] = np.stack(
            [np.interp(positions(height), np.arange(height), column) for column in rows.T], axis=1
        )
    enlarged = np.asarray(enlarge_bilinear(maps, factor))
    np.testing.assert_allclose(enlarged, expected, atol=1e-5)


def test_enlargement_agrees_with_tensorflow_1():
    tf = pytest.importorskip("tensorflow")
    maps = np.random.default_rng(2).normal(size=(2, 6, 10, 2)).astype(np.float32)
    of_tensorflow = tf.raw_ops.ResizeBilinear(
        images=maps, size=(24, 40), align_corners=False, half_pixel_centers=False
    )
    np.testing.assert_allclose(np.asarray(enlarge_bilinear(maps, 4)), of_tensorflow, atol=1e-5)


@quick
@given(size=sizes, factor=st.sampled_from([1, 2, 8]), seed=st.integers(0, 99))
def test_convex_enlargement_mixes_the_nine_pixels_around(size, factor, seed):
    rng = np.random.default_rng(seed)
    batch, height, width, channels = size
    maps = rng.normal(size=size).astype(np.float32)
    logits = rng.normal(size=(batch, height, width, factor * factor * 9)).astype(np.float32)
    enlarged = np.asarray(enlarge_convex(maps, logits, factor))
    assert enlarged.shape == (batch, height * factor, width * factor, channels)
    b, y, x = (int(rng.integers(n)) for n in (batch, height * factor, width * factor))
    row, column = y // factor, x // factor
    around = [
        maps[b, min(max(row + j, 0), height - 1), min(max(column + i, 0), width - 1)]
        for j in (-1, 0, 1)
        for i in (-1, 0, 1)
    ]
    place = (y % factor) * factor + x % factor
    weights = np.exp(logits[b, row, column, 9 * place : 9 * place + 9])
    np.testing.assert_allclose(
        enlarged[b, y, x], weights @ np.array(around) / weights.sum(), atol=1e-5
    )
