"""The golden forward pass and a network that holds its weights."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def golden():
    """One forward pass of the published implementation: images, raw level-2 predictions and cropped outputs."""
    with np.load(DATA / "golden_forward.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def published_shapes():
    """Name -> shape of the 246 variables of a published checkpoint."""
    lines = (DATA / "tf1_checkpoint_variables.txt").read_text().splitlines()
    return {
        name: tuple(int(side) for side in shape.split("x"))
        for name, shape in (line.split() for line in lines)
    }


@pytest.fixture(scope="session")
def golden_weights(published_shapes):
    """Name -> the weights with which the golden pass was computed."""

    def draw(name, shape):
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("/biases"):
            return rng.normal(0, 0.05, shape).astype(np.float32)
        values = rng.normal(0, 1, shape) * np.sqrt(2 / np.prod(shape[:-1]))
        return values.astype(np.float32)

    return {name: draw(name, shape) for name, shape in published_shapes.items()}


@pytest.fixture(scope="session")
def golden_model(golden_weights):
    """The published network with the golden weights, answering with every level."""
    from dwarf_ros.network import build
    from dwarf_ros.network.weights import named_variables

    model = build("dwarf", all_levels=True)
    for name, variable in named_variables(model).items():
        variable.assign(golden_weights[name])
    return model


@pytest.fixture(scope="session")
def lite_model():
    """A fresh dwarf_lite, the same each time."""
    import keras

    from dwarf_ros.network import build

    keras.utils.set_random_seed(0)
    return build("dwarf_lite")


@pytest.fixture(scope="session")
def assert_golden(golden):
    """Function that compares a network's answer, dict of arrays, with the golden pass."""

    def check(outputs):
        for name in ("disparity", "disparity_change", "forward_flow"):
            cropped = np.asarray(outputs[name])[0, 4:124, 6:186]
            np.testing.assert_allclose(cropped, golden[f"out_{name}"], rtol=0, atol=1e-3)
        if "level_2" in outputs:
            raw = [golden[f"raw_{n}"] for n in ("disparity", "disparity_change", "forward_flow")]
            error = np.asarray(outputs["level_2"]) - np.concatenate(raw, axis=-1)
            assert np.abs(error).max() * 20 <= 1e-3

    return check
