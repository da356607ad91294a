"""Engines: both give what the Keras model gives, and say in one line what they lack."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from dwarf_ros import engines
from dwarf_ros.engines import choose_engine, load_engine
from dwarf_ros.types import InputError

pytest.importorskip("tensorflow")

INPUTS = ("left_t0", "right_t0", "left_t1", "right_t1")


def images(height: int, width: int, batch: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(height + width)
    return {name: rng.random((batch, height, width, 3), dtype=np.float32) for name in INPUTS}


@pytest.fixture(scope="module")
def small_model():
    """A network with the inputs and outputs of the real one and a single layer: quick to compile."""
    import keras

    keras.utils.set_random_seed(1)
    inputs = {name: keras.Input((None, None, 3), name=name) for name in INPUTS}
    joined = keras.layers.Concatenate()([inputs[name] for name in INPUTS])
    sizes = {"forward_flow": 2, "disparity": 1, "disparity_change": 1}
    outputs = {
        name: keras.layers.Conv2D(size, 3, padding="same", name=name)(joined)
        for name, size in sizes.items()
    }
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module", params=["dwarf", "dwarf_lite"])
def network_answer(request):
    """An untrained network, pictures, and the Keras model's answer to them.

    All kinds of layers are there; a shorter range of the cost volumes makes the graph quick to convert.
    """
    import keras

    from dwarf_ros import network
    from dwarf_ros.network.presets import find_preset

    keras.utils.set_random_seed(2)
    preset = dataclasses.replace(find_preset(request.param), max_displacement=1)
    model = network.build(preset)
    pictures = images(64, 128)
    return model, pictures, as_numpy(model(pictures))


def as_numpy(outputs) -> dict[str, np.ndarray]:
    return {name: np.asarray(output) for name, output in outputs.items()}


def assert_same(outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Equal to 1e-4 px, and something to compare."""
    assert outputs.keys() == expected.keys()
    for name, answer in expected.items():
        assert np.abs(answer).max() > 0.1, name
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], answer, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("name", engines.ENGINES)
def test_a_network_is_answered_as_by_keras(network_answer, name):
    pytest.importorskip(name)
    model, pictures, expected = network_answer
    engine = load_engine(name, model)
    assert engine.name == name
    outputs = engine.run(pictures)
    assert outputs["forward_flow"].shape == (1, 64, 128, 2)
    assert outputs["disparity"].shape == outputs["disparity_change"].shape == (1, 64, 128, 1)
    assert_same(outputs, expected)


@pytest.mark.parametrize("name", engines.ENGINES)
def test_the_shape_may_change_from_run_to_run(small_model, name):
    pytest.importorskip(name)
    engine = load_engine(name, small_model)
    for pictures in (images(64, 64), images(64, 128), images(64, 64), images(64, 64, batch=2)):
        assert_same(engine.run(pictures), as_numpy(small_model(pictures)))


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_answer_stays_when_the_next_one_comes(small_model, name):
    pytest.importorskip(name)
    engine = load_engine(name, small_model)
    first = engine.run(images(64, 64))
    kept = {key: value.copy() for key, value in first.items()}
    engine.run({key: 1 - value for key, value in images(64, 64).items()})
    assert_same(first, kept)


def test_auto_is_an_engine_that_suits_the_hardware(small_model):
    import tensorflow as tf

    chosen = choose_engine("auto")
    if tf.config.list_physical_devices("GPU"):
        assert chosen == "tensorflow"
    else:
        pytest.importorskip("openvino")
        assert chosen == "openvino"
    assert load_engine("auto", small_model).name == chosen


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [({"tensorflow"}, "tensorflow"), ({"tensorflow", "openvino"}, "openvino")],
)
def test_auto_takes_what_is_installed(monkeypatch, installed, chosen):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("a GPU is visible: auto is tensorflow whatever is installed")
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in installed else None)
    assert choose_engine("auto") == chosen


@pytest.mark.parametrize(
    ("installed", "asked", "missing"),
    [
        (set(), "auto", "tensorflow"),
        (set(), "openvino", "tensorflow and openvino"),
        ({"openvino"}, "tensorflow", "tensorflow"),
        ({"tensorflow"}, "openvino", "openvino"),
    ],
)
def test_what_is_not_installed_is_named_with_the_cure(monkeypatch, installed, asked, missing):
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name in installed else None)
    with pytest.raises(InputError) as error:
        choose_engine(asked)
    assert str(error.value).startswith(f"engine: {missing} not installed")
    assert "pip install 'dwarf_ros[cpu]'" in str(error.value)


def test_unknown_engine():
    with pytest.raises(
        InputError, match=r"'caffe' is unknown, expected auto, tensorflow, openvino"
    ):
        choose_engine("caffe")


def in_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_another_keras_backend_is_named():
    pytest.importorskip("jax")
    run = in_python(
        "from dwarf_ros.engines import choose_engine\n"
        "from dwarf_ros.types import InputError\n"
        "try: choose_engine('auto')\n"
        "except InputError as error: print(error)",
        KERAS_BACKEND="jax",
    )
    assert run.stdout.splitlines() == [
        "engine: Keras runs on jax, expected its tensorflow backend (set KERAS_BACKEND=tensorflow)"
    ]


def test_openvino_sends_and_leaves_nothing(tmp_path):
    pytest.importorskip("openvino")
    run = in_python(
        "import sys, dwarf_ros.engines.openvino\n"
        "print('openvino' in sys.modules, sys.modules['openvino_telemetry'])",
        HOME=str(tmp_path),
    )
    assert run.stdout.splitlines() == ["True None"], run.stderr
    assert not (tmp_path / "intel").exists()


def test_bfloat16_is_nearly_the_same_under_openvino_and_refused_elsewhere(small_model):
    openvino = pytest.importorskip("openvino")
    with pytest.raises(InputError, match="precision: bf16 given to engine tensorflow"):
        load_engine("tensorflow", small_model, "bf16")
    with pytest.raises(InputError, match="precision: 'f8' is unknown, expected f32 or bf16"):
        load_engine("openvino", small_model, "f8")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(InputError, match="this processor has no bfloat16"):
            load_engine("openvino", small_model, "bf16")
        return
    pictures = images(64, 64)
    exact = load_engine("openvino", small_model).run(pictures)
    rounded = load_engine("openvino", small_model, "bf16").run(pictures)
    for name, output in rounded.items():
        difference = np.abs(output - exact[name]).max()
        assert 0 < difference < 0.05 * np.abs(exact[name]).max()


def test_a_fraction_of_a_gpus_memory_needs_a_gpu():
    from dwarf_ros.engines.tensorflow import find_gpus

    if find_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"gpu_memory_fraction: 0\.5 given and TensorFlow sees no"):
        choose_engine("tensorflow", 0.5)
