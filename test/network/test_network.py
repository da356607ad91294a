"""The network as a whole: parity with the published implementation, shapes, gradients, cost."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from dwarf_ros.network import build, save
from dwarf_ros.network.codec import INPUTS
from dwarf_ros.network.presets import DWARF_LITE, PRESETS
from dwarf_ros.network.weights import named_variables
from dwarf_ros.types import InputError

CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)

FORWARD_PASS = """
import sys
import keras, numpy as np
from dwarf_ros.network import load
from dwarf_ros.network.codec import INPUTS
weights, images, out = sys.argv[1:]
with np.load(images) as arrays:
    images = {name: arrays[name] for name in INPUTS}
outputs = load(weights)(images)
np.savez(out, backend=keras.backend.backend(), **{k: np.asarray(v) for k, v in outputs.items()})
"""


def drawn_images(batch, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.random((batch, height, width, 3), dtype=np.float32) for name in INPUTS}


def test_published_forward_pass_is_reproduced(golden_model, golden, assert_golden):
    outputs = golden_model({name: golden[name] for name in INPUTS})
    assert_golden(outputs)
    assert {name: value.shape[1:3] for name, value in outputs.items()} == {
        "disparity": (128, 192),
        "disparity_change": (128, 192),
        "forward_flow": (128, 192),
    } | {f"level_{level}": (128 >> level, 192 >> level) for level in (0, *range(2, 7))}


def test_published_forward_pass_is_reproduced_under_jax(golden_model, assert_golden, tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    save(golden_model, tmp_path / "golden.safetensors", origin="golden")
    data = Path(__file__).parent / "data" / "golden_forward.npz"
    out = tmp_path / "out.npz"
    arguments = [str(tmp_path / "golden.safetensors"), str(data), str(out)]
    # Compiling, not computing, takes the time here.
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    subprocess.run([sys.executable, "-c", FORWARD_PASS, *arguments], env=environment, check=True)
    with np.load(out) as outputs:
        assert str(outputs["backend"]) == "jax"
        assert_golden(dict(outputs))


def test_published_names_shapes_and_number_of_parameters(golden_model, published_shapes):
    variables = named_variables(golden_model)
    assert {name: tuple(variable.shape) for name, variable in variables.items()} == published_shapes
    assert golden_model.count_params() == 19_618_196


def test_a_batch_is_answered_image_by_image(lite_model):
    images = drawn_images(3, 64, 128)
    together = lite_model(images)
    for index in range(3):
        alone = lite_model({name: value[index : index + 1] for name, value in images.items()})
        for name, value in alone.items():
            np.testing.assert_allclose(
                np.asarray(together[name])[index], np.asarray(value)[0], atol=1e-4
            )


def test_a_traced_graph_of_open_size_answers_like_the_eager_one(lite_model):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.function is TensorFlow's")
    import tensorflow as tf

    open_size = tf.TensorSpec((None, None, None, 3), tf.float32)
    traced = tf.function(lambda images: lite_model(images, training=False)).get_concrete_function(
        dict.fromkeys(INPUTS, open_size)
    )
    for size in ((1, 128, 64), (2, 64, 192)):
        images = {name: tf.constant(image) for name, image in drawn_images(*size).items()}
        eager = lite_model(images)
        for name, value in traced(images).items():
            assert value.shape == (*size, 2 if name == "forward_flow" else 1)
            np.testing.assert_allclose(value, eager[name], atol=1e-4)


def test_fixed_size_is_the_size_of_the_model():
    model = build(DWARF_LITE, height=64, width=192, all_levels=True)
    assert {name: image.shape for name, image in model.input.items()} == dict.fromkeys(
        INPUTS, (None, 64, 192, 3)
    )
    assert {name: value.shape for name, value in model.output.items()} == {
        "disparity": (None, 64, 192, 1),
        "disparity_change": (None, 64, 192, 1),
        "forward_flow": (None, 64, 192, 2),
        "level_4": (None, 4, 12, 4),
        "level_3": (None, 8, 24, 4),
        "level_0": (None, 64, 192, 4),
        "global_stereo": (None, 4, 12, 12),
        "global_flow": (None, 4 * 12, 4 * 12),
        "local_4": (None, 4, 12, 99),
        "center_4": (None, 4, 12, 4),
        "local_3": (None, 8, 24, 99),
        "center_3": (None, 8, 24, 4),
    }


@pytest.mark.parametrize("size", [{"height": 375}, {"width": 1242}, {"height": 0}])
def test_size_that_is_no_multiple_of_64_is_refused(size):
    (side, length), *_ = size.items()
    with pytest.raises(InputError, match=f"{side}: {length} px, expected a multiple of 64"):
        build("dwarf_lite", **size)


def test_unknown_preset_is_refused():
    with pytest.raises(InputError, match="'dwarfish', expected one of dwarf, dwarf_lite"):
        build("dwarfish")


@pytest.mark.parametrize("preset", ["dwarf", "dwarf_lite"])
def test_every_weight_has_a_gradient(preset, request):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with tensorflow here")
    import tensorflow as tf

    model = request.getfixturevalue("golden_model" if preset == "dwarf" else "lite_model")
    with tf.GradientTape() as tape:
        outputs = model(drawn_images(1, 128, 128), training=True)
        loss = sum(
            tf.reduce_mean(tf.square(outputs[name] - 1.0))
            for name in ("disparity", "disparity_change", "forward_flow")
        )
    variables = named_variables(model)
    gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
    for name, gradient in zip(variables, gradients, strict=True):
        assert gradient is not None, name
        assert np.isfinite(gradient).all(), name
        assert np.any(gradient), name


def test_fresh_network_predicts_little_motion_from_live_features():
    """At the start of training warps must not throw the features out of the image, nor correlations be all zero.

    Presets that match start from what they find instead.
    """
    preset = replace(
        DWARF_LITE,
        encoder_channels=(16, 32, 64, 96, 128, 128),
        encoder_convolutions=(2, 2, 2, 2, 2, 2),
        matching=False,
        convex_enlargement=False,
    )
    keras.utils.set_random_seed(3)
    model = build(preset)
    images = drawn_images(1, 128, 128)
    flow = np.asarray(model(images)["forward_flow"])
    assert 0 < np.abs(flow).max() < 20
    volumes = keras.Model(model.input, model.get_layer("decoder.block_3.cost_volumes").output)
    assert np.asarray(volumes(images)).std() > 0.02


def multiply_accumulates(model, preset):
    """Of one frame, from the model's layers at its fixed input size."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, CONVOLUTIONS):
            transposed = isinstance(layer, keras.layers.Conv2DTranspose)
            _, height, width, _ = (layer.input if transposed else layer.output).shape
            images = len(INPUTS) if layer.name.startswith("Encoder.") else 1
            total += images * height * width * int(np.prod(layer.kernel.shape))
        elif layer.name.endswith(".cost_volumes"):
            _, height, width, channels = layer.input[0].shape
            side = 2 * preset.max_displacement + 1
            depths = 2 * preset.max_depth_displacement + 1
            per_pixel = channels * (2 * side + side**2) + depths * side**2 * side
            total += height * width * per_pixel
        elif layer.name == "decoder.matching":
            _, height, width, channels = layer.input[0].shape
            total += height * width * (2 * width + height * width) * channels
    return total


def test_lite_takes_a_fraction_of_the_arithmetic():
    cost = {
        name: multiply_accumulates(build(name, height=384, width=1280), PRESETS[name])
        for name in ("dwarf", "dwarf_lite")
    }
    assert cost["dwarf"] == pytest.approx(236.7e9, rel=0.002)
    assert cost["dwarf_lite"] == pytest.approx(20.4e9, rel=0.01)
