"""The codec: padding, names and scale of the network's input; cropping, signs and names of its output."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.network.codec import INPUTS, OUTPUTS, SIGNS, decode, encode, padding


@given(height=st.integers(1, 400), width=st.integers(1, 1300))
@settings(derandomize=True, deadline=None, max_examples=100)
def test_padding_reaches_the_next_multiple_of_64_evenly(height, width):
    for size, (before, after) in zip((height, width), padding(height, width), strict=True):
        assert (size + before + after) % 64 == 0
        assert before + after < 64
        assert after - before in (0, 1)


def test_padding_of_a_kitti_frame():
    assert padding(375, 1242) == ((4, 5), (19, 19))


def test_images_for_the_network_are_named_and_scaled():
    images = np.zeros((2, 4, 64, 128, 3), np.uint8)
    images[:, 1] = 255
    named = encode(images)
    assert {name: float(values.mean()) for name, values in named.items()} == {
        "left_t0": 0,
        "right_t0": 1,
        "left_t1": 0,
        "right_t1": 0,
    }
    assert all(v.dtype == np.float32 and v.shape == (2, 64, 128, 3) for v in named.values())


def test_images_are_reflected_at_their_borders():
    images = np.random.default_rng(1).integers(0, 256, (1, 4, 51, 61, 3), np.uint8)
    for name, image in zip(INPUTS, images[0], strict=True):
        expected = np.pad(image, ((6, 7), (1, 2), (0, 0)), mode="reflect") / 255
        assert np.array_equal(encode(images)[name][0], expected.astype(np.float32))


@given(height=st.integers(1, 130), width=st.integers(1, 130))
@settings(derandomize=True, deadline=None, max_examples=20)
def test_decoding_crops_to_the_encoded_pixels_and_turns_the_signs(height, width):
    images = np.random.default_rng(2).integers(0, 256, (1, 4, height, width, 3), np.uint8)
    left = encode(images)["left_t0"]
    outputs = dict(zip(OUTPUTS, (left[..., :1], left[..., 1:2], left[..., 1:]), strict=True))
    maps = decode(outputs, height, width)
    expected = images[:, 0].astype(np.float32) / np.float32(255)
    assert np.array_equal(maps[0], -expected[..., 0])
    assert np.array_equal(maps[1], -expected[..., 1])
    assert np.array_equal(maps[2], expected[..., 1:])
    joined = np.concatenate([outputs[name] for name in OUTPUTS], axis=-1) * SIGNS
    assert np.array_equal(
        decode(outputs, height, width)[0][0, 0, 0], joined[0, *_top_left(height, width), 0]
    )


def _top_left(height: int, width: int) -> tuple[int, int]:
    (top, _), (left, _) = padding(height, width)
    return top, left
