"""Networks in files, with pictures and what Keras answers to them. What engines make of them is shared by the session's cache."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from dwarf_ros.network.codec import INPUTS, OUTPUTS, encode
from dwarf_ros.synthetic.drives import ProceduralDrive

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

GOLDEN = Path(__file__).parents[1] / "network" / "data" / "golden_forward.npz"


@pytest.fixture(scope="session")
def drive_images():
    """Function from a seed to the network's inputs for two frames of a made drive, 64 x 128 px."""

    def make(seed: int) -> dict[str, np.ndarray]:
        """Two frames of a made drive."""
        first, second = ProceduralDrive(seed, 2, width=128, height=64)
        views = np.stack([first.left, first.right, second.left, second.right])
        return encode(views[None])

    return make


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """The published network with the weights of the golden pass in a file, its pictures, and the Keras model's answer."""
    from dwarf_ros import network
    from dwarf_ros.network.weights import named_variables

    model = network.build("dwarf")
    for name, variable in named_variables(model).items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        shape = tuple(variable.shape)
        if name.endswith("/biases"):
            variable.assign(rng.normal(0, 0.05, shape).astype(np.float32))
        else:
            values = rng.normal(0, 1, shape) * np.sqrt(2 / np.prod(shape[:-1]))
            variable.assign(values.astype(np.float32))
    file = tmp_path_factory.mktemp("golden") / "dwarf.safetensors"
    network.save(model, file, origin="a test: the golden weights")
    with np.load(GOLDEN) as arrays:
        pictures = {name: arrays[name] for name in INPUTS}
        published = {name: arrays[f"out_{name}"] for name in OUTPUTS}
    answer = {name: np.asarray(output) for name, output in model(pictures).items()}
    for name in OUTPUTS:
        np.testing.assert_allclose(answer[name][0, 4:124, 6:186], published[name], atol=1e-3)
    return file, pictures, answer


@pytest.fixture(scope="session")
def lite(tmp_path_factory, drive_images):
    """An untrained dwarf_lite in a file, pictures of a drive, and the Keras model's answer."""
    import keras

    from dwarf_ros import network

    keras.utils.set_random_seed(2)
    model = network.build("dwarf_lite")
    file = tmp_path_factory.mktemp("lite") / "dwarf_lite.safetensors"
    network.save(model, file, origin="a test: untrained")
    pictures = drive_images(1)
    return file, pictures, {name: np.asarray(output) for name, output in model(pictures).items()}
