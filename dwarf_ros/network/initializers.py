"""Initial values of the weights.

NumPy draws them, seeded from Python's random generator like Keras' own initializers (`keras.utils.set_random_seed`). So every
backend starts from the same weights, and none compiles a sampler for each shape.
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
    """Normal distribution with mean 0 and variance gain / fan-in.

    Args:
        gain: variance of a linear layer's output if its input has variance 1.
        transposed: the kernel belongs to a transposed convolution with stride 2 (H, W, out, in) instead of H, W, in, out.
    """

    def initialize(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        taps = math.prod(shape[:2])
        fan_in = taps // 4 * shape[3] if transposed else taps * shape[2]
        generator = np.random.default_rng(random.getrandbits(64))
        values = generator.standard_normal(shape, dtype=np.float32) * math.sqrt(gain / fan_in)
        return ops.convert_to_tensor(values, dtype=dtype)

    return initialize


def he_normal() -> Initializer:
    """The initializer of He et al. ("Delving Deep into Rectifiers", ICCV 2015) for the network's leaky ReLU.

    With a smaller variance the signal shrinks over the encoder's 18 layers until the cost volumes are nearly zero.
    """
    return fan_in_normal(2.0 / (1.0 + NEGATIVE_SLOPE**2))


def bilinear(shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
    """Kernel of a 4x4 transposed convolution with stride 2 (H, W, out, in) that upsamples each channel bilinearly."""
    profile = np.array([0.25, 0.75, 0.75, 0.25])
    kernel = np.outer(profile, profile)[:, :, None, None] * np.eye(shape[2], shape[3])
    return ops.convert_to_tensor(kernel, dtype=dtype)
