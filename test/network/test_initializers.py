"""First values of the weights."""

from __future__ import annotations

import cv2
import keras
import numpy as np

from dwarf_ros.network.encoder import leaky_relu
from dwarf_ros.network.initializers import bilinear, fan_in_normal, he_normal


def test_he_initialisation_keeps_the_signal_through_eighteen_layers():
    keras.utils.set_random_seed(3)
    signal = np.random.default_rng(3).normal(size=(2048, 128)).astype(np.float32)
    for _ in range(18):
        kernel = np.asarray(he_normal()((1, 1, 128, 128)))[0, 0]
        signal = np.asarray(leaky_relu(signal @ kernel))
    assert 0.5 < np.sqrt(np.mean(signal**2)) < 2


def test_transposed_convolution_keeps_the_variance():
    keras.utils.set_random_seed(4)
    layer = keras.layers.Conv2DTranspose(
        8, 4, strides=2, padding="same", kernel_initializer=fan_in_normal(1.0, transposed=True)
    )
    maps = np.random.default_rng(4).normal(size=(1, 16, 16, 64)).astype(np.float32)
    inner = np.asarray(layer(maps))[:, 1:-1, 1:-1]
    assert 0.8 < inner.std() < 1.2


def test_the_seed_decides_the_weights():
    drawn = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        drawn.append(np.asarray(he_normal()((3, 3, 4, 4))))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.any(drawn[0] != drawn[2])


def test_bilinear_kernel_enlarges_by_two():
    layer = keras.layers.Conv2DTranspose(
        2, 4, strides=2, padding="same", kernel_initializer=bilinear
    )
    maps = np.random.default_rng(5).normal(size=(1, 6, 7, 2)).astype(np.float32)
    enlarged = cv2.resize(maps[0], (14, 12), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(
        np.asarray(layer(maps))[0, 1:-1, 1:-1], enlarged[1:-1, 1:-1], atol=1e-5
    )
