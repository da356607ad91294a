"""Engines: both give what the Keras model gives, and say in one line what they lack."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from dwarf_ros import engines
from dwarf_ros.engines import choose_engine, load_engine
from dwarf_ros.network.codec import INPUTS
from dwarf_ros.types import InputError

pytest.importorskip("tensorflow")

# Largest difference from float32 Keras. Random weights answer with up to 100 px, and pass errors on as trained ones do not.
TOLERANCES_PX = {
    ("tensorflow", "f32"): 1e-3,
    ("tensorflow", "bf16"): 6.0,
    ("openvino", "f32"): 1e-3,
    ("openvino", "bf16"): 6.0,
    ("onnxruntime", "f32"): 1e-3,
}


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
    return keras.Model(inputs, outputs, name="small")


def as_numpy(outputs) -> dict[str, np.ndarray]:
    return {name: np.asarray(output) for name, output in outputs.items()}


def assert_same(
    outputs: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 1e-4
) -> None:
    """Equal to the tolerance, px, and something to compare."""
    assert outputs.keys() == expected.keys()
    for name, answer in expected.items():
        assert np.abs(answer).max() > 0.1, name
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], answer, rtol=0, atol=tolerance, err_msg=name)


def skip_without(engine: str, precision: str = "f32") -> None:
    for package in {"onnxruntime": ("onnxruntime", "onnx", "tf2onnx")}.get(engine, (engine,)):
        pytest.importorskip(package)
    if engine == "openvino" and precision == "bf16":
        from dwarf_ros.engines.openvino import has_bfloat16

        if not has_bfloat16():
            pytest.skip("this processor has no bfloat16")


# Making an ONNX file of the published network takes half a minute, and several on a busy machine.
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("network", "name", "precision"),
    [
        (network, *which)
        for network in ("golden", "lite")
        for which in TOLERANCES_PX
        # Converting either network takes long; the exported dwarf_lite has a test of its own.
        if (network, which[0]) != ("lite", "onnxruntime")
    ],
)
def test_a_network_is_answered_as_by_keras(request, network, name, precision):
    skip_without(name, precision)
    file, pictures, expected = request.getfixturevalue(network)
    engine = load_engine(name, file, precision)
    assert engine.name == name
    assert_same(engine.run(pictures), expected, TOLERANCES_PX[name, precision])


@pytest.mark.parametrize("name", engines.ENGINES)
def test_the_shape_may_change_from_run_to_run(small_model, name):
    skip_without(name)
    engine = load_engine(name, small_model)
    for pictures in (images(64, 64), images(64, 128), images(64, 64), images(64, 64, batch=2)):
        assert_same(engine.run(pictures), as_numpy(small_model(pictures)))


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_answer_stays_when_the_next_one_comes(small_model, name):
    skip_without(name)
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
    assert load_engine(chosen, small_model).name == chosen


@pytest.mark.parametrize(
    ("installed", "chosen"),
    [
        ({"tensorflow"}, "tensorflow"),
        ({"tensorflow", "openvino"}, "openvino"),
        ({"tensorflow", "onnxruntime"}, "tensorflow"),
        ({"tensorflow", "onnxruntime", "onnx", "tf2onnx"}, "onnxruntime"),
        ({"tensorflow", *engines.ENGINES, "onnx", "tf2onnx"}, "openvino"),
    ],
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
        InputError, match=r"'caffe' is unknown, expected auto, tensorflow, openvino, onnxruntime"
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


def test_another_keras_backend_is_named(small_model):
    pytest.importorskip("jax")
    run = in_python(
        "import keras\n"
        "from dwarf_ros.engines import load_engine\n"
        "from dwarf_ros.types import InputError\n"
        "inputs = keras.Input((1,))\n"
        "try: load_engine('tensorflow', keras.Model(inputs, inputs))\n"
        "except InputError as error: print(error)",
        KERAS_BACKEND="jax",
    )
    assert run.stdout.splitlines() == [
        "engine: Keras runs on jax, expected its tensorflow backend (set KERAS_BACKEND=tensorflow)"
    ], run.stderr


def test_openvino_sends_and_leaves_nothing(tmp_path):
    pytest.importorskip("openvino")
    run = in_python(
        "import sys, dwarf_ros.engines.openvino\n"
        "print('openvino' in sys.modules, sys.modules['openvino_telemetry'])",
        HOME=str(tmp_path),
    )
    assert run.stdout.splitlines() == ["True None"], run.stderr
    assert not (tmp_path / "intel").exists()


def test_precisions_that_are_not_to_be_had_are_named(small_model):
    for engine, precision, message in (
        ("onnxruntime", "bf16", "precision: bf16 given to engine onnxruntime, expected auto, f32"),
        ("tensorflow", "f8", "precision: 'f8' is unknown, expected auto, f32, tf32, bf16, int8"),
        ("tensorflow", "int8", "precision: int8 given to engine tensorflow, expected auto, f32"),
        ("tensorflow", "bf16", "precision: mixed_bfloat16 needs a weights file"),
        ("tensorflow", "tf32", "precision: tf32 given and TensorFlow sees no GPU"),
        ("openvino", "int8", "small is not quantized for 64 x 64 px, expected: dwarf quantize"),
    ):
        if find_spec(engine) is None or (precision == "tf32" and engines.count_gpus()):
            continue
        with pytest.raises(InputError) as error:
            load_engine(engine, small_model, precision).run(images(64, 64))
        assert message in str(error.value)


def test_bfloat16_is_refused_where_the_processor_lacks_it(small_model, monkeypatch):
    pytest.importorskip("openvino")
    from dwarf_ros.engines import openvino

    monkeypatch.setattr(openvino, "has_bfloat16", lambda: False)
    with pytest.raises(InputError, match="this processor has no bfloat16"):
        load_engine("openvino", small_model, "bf16")
    assert_same(
        load_engine("openvino", small_model, "auto").run(images(64, 64)),
        as_numpy(small_model(images(64, 64))),
    )


def test_a_later_start_needs_neither_keras_nor_tensorflow(lite, tmp_path):
    pytest.importorskip("openvino")
    file, pictures, expected = lite
    load_engine("openvino", file).run(pictures)
    np.savez(tmp_path / "pictures.npz", **pictures)
    run = in_python(
        "import sys, numpy as np\n"
        "from dwarf_ros.engines import choose_engine, load_engine\n"
        f"answer = load_engine(choose_engine(), {str(file)!r}).run(dict(np.load({str(tmp_path / 'pictures.npz')!r})))\n"
        f"np.savez({str(tmp_path / 'answer.npz')!r}, **answer)\n"
        "print({'keras', 'tensorflow'} & set(sys.modules))",
    )
    if engines.count_gpus():
        pytest.skip("a GPU is visible: auto is tensorflow")
    assert run.stdout.splitlines() == ["set()"], run.stderr
    with np.load(tmp_path / "answer.npz") as answer:
        assert_same(dict(answer), expected, 1e-3)


def test_damaged_weights_are_refused_when_the_engine_is_loaded(lite, tmp_path):
    pytest.importorskip("openvino")
    from safetensors.numpy import load_file, save_file

    from dwarf_ros.network.weights import FORMAT, FORMAT_VERSION

    tensors = load_file(lite[0])
    del tensors["dwarf/Encoder/level_1/Conv/weights"]
    file = tmp_path / "damaged.safetensors"
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "preset": "dwarf_lite"}
    save_file(tensors, file, metadata=header)
    with pytest.raises(InputError, match="tensor dwarf/Encoder/level_1/Conv/weights is missing"):
        load_engine("openvino", file)


def test_a_fraction_of_a_gpus_memory_needs_a_gpu(small_model):
    from dwarf_ros.engines.tensorflow import find_gpus

    if find_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"gpu_memory_fraction: 0\.5 given and TensorFlow sees no"):
        load_engine("tensorflow", small_model, gpu_memory_fraction=0.5)


def test_warps_count_columns_in_bfloat16():
    """Beyond column 256, where bfloat16 cannot count, as before it."""
    skip_without("openvino", "bf16")
    import keras

    from dwarf_ros.network.warping import warp_along_flow_border_replicated

    keras.utils.set_random_seed(3)
    inputs = {name: keras.Input((64, 640, 3), batch_size=1, name=name) for name in INPUTS}
    convolution = keras.layers.Conv2D(8, 3, padding="same")(inputs["left_t0"])
    shift = keras.layers.Conv2D(2, 3, padding="same", kernel_initializer="zeros")
    flow = shift(inputs["left_t0"])
    shift.bias.assign([2.25, 0.5])
    warped = keras.layers.Conv2D(2, 3, padding="same")(
        warp_along_flow_border_replicated(convolution, flow)
    )
    model = keras.Model(
        inputs,
        dict.fromkeys(("disparity", "disparity_change", "forward_flow"), warped),
        name="warp",
    )
    pictures = images(64, 640)
    exact = load_engine("openvino", model).run(pictures)["forward_flow"]
    rounded = load_engine("openvino", model, "bf16").run(pictures)["forward_flow"]
    error = np.abs(rounded - exact).mean(axis=(0, 1, 3)) / np.abs(exact).mean()
    assert error[256:].mean() < 2 * error[:256].mean() < 0.04
