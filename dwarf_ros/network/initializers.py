"""First values of the weights.

They are drawn by NumPy, seeded from Python's generator as Keras' own initialisers are (`keras.utils.set_random_seed`), so
that every backend starts from the same weights and none compiles a sampler for each shape.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from dwarf_ros.network.presets import NEGATIVE_SLOPE

Tensor = Any
Initializer = Callable[..., Tensor]


def fan_in_normal(gain: float, transposed: bool = False) -> Initializer:
    """Normal distribution of mean 0 and variance gain / number of weights that an output value sums over.

    Args:
        gain: variance of a linear layer's output where its input has variance 1.
        transposed: the kernel is one of a transposed convolution with stride 2 (H, W, out, in), not H, W, in, out.
    """

    def initialize(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        taps = math.prod(shape[:2])
        fan_in = taps // 4 * shape[3] if transposed else taps * shape[2]
        generator = np.random.default_rng(random.getrandbits(64))
        values = generator.standard_normal(shape, dtype=np.float32) * math.sqrt(gain / fan_in)
        return ops.convert_to_tensor(values, dtype=dtype)

    return initialize


def he_normal() -> Initializer:
    """He et al.'s (ICCV 2015, "Delving Deep into Rectifiers") for the network's leaky ReLU.

    With less, the signal fades over the encoder's 18 layers until the cost volumes hold nothing to learn from.
    """
    return fan_in_normal(2.0 / (1.0 + NEGATIVE_SLOPE**2))


def bilinear(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
    """Kernel of a 4x4 transposed convolution with stride 2 (H, W, out, in) that enlarges each channel bilinearly."""
    profile = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = np.outer(profile, profile)[:, :, None, None] * np.eye(shape[2], shape[3])
    return ops.convert_to_tensor(kernel, dtype=dtype)
