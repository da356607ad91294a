"""dwarf_lite_v2: shapes, gradients, cost, and what its layers compute."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from dwarf_ros.evaluation.workload import workload_of
from dwarf_ros.network import build, build_encoder, load, save
from dwarf_ros.network.codec import INPUTS
from dwarf_ros.network.lite.flow import GlobalFlow, cosines_around
from dwarf_ros.network.lite.layers import Fill, InstanceNormalization, Mix
from dwarf_ros.network.lite.stereo import DisparityVolume
from dwarf_ros.network.weights import load_encoder, named_variables
from dwarf_ros.types import InputError


def drawn_images(batch: int, height: int, width: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.random((batch, height, width, 3), dtype=np.float32) for name in INPUTS}


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return build("dwarf_lite_v2", all_levels=True)


def test_outputs_have_the_size_of_the_image(network):
    outputs = network(drawn_images(2, 64, 128))
    assert outputs["disparity"].shape == (2, 64, 128, 1)
    assert outputs["disparity_change"].shape == (2, 64, 128, 1)
    assert outputs["forward_flow"].shape == (2, 64, 128, 2)
    assert outputs["confidence"].shape == (2, 64, 128, 2)
    confidence = np.asarray(outputs["confidence"])
    assert ((confidence >= 0) & (confidence <= 1)).all()


def test_every_weight_has_a_gradient(network):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("gradients are taken with tensorflow here")
    import tensorflow as tf

    with tf.GradientTape() as tape:
        outputs = network(drawn_images(1, 64, 128), training=True)
        loss = sum(tf.reduce_mean(tf.square(value - 1.0)) for value in outputs.values())
    variables = named_variables(network)
    gradients = tape.gradient(loss, [variable.value for variable in variables.values()])
    for name, gradient in zip(variables, gradients, strict=True):
        assert gradient is not None, name
        assert np.isfinite(gradient).all(), name


def test_the_encoder_takes_less_than_three_gmac_per_image():
    work = workload_of(build("dwarf_lite_v2", height=384, width=1280))
    assert work.macs_of_parts["encoder"] <= 4 * 3e9
    assert work.macs < 30e9


def test_the_encoder_is_trained_by_itself_and_read_into_the_network(network, tmp_path):
    keras.utils.set_random_seed(1)
    encoder = build_encoder("dwarf_lite_v2")
    save(encoder, tmp_path / "encoder.safetensors", origin="test")
    load_encoder(network, tmp_path / "encoder.safetensors")
    ours = named_variables(network)
    for name, variable in named_variables(encoder).items():
        np.testing.assert_array_equal(ours[name].numpy(), variable.numpy())
    with pytest.raises(InputError, match="is missing"):
        load(tmp_path / "encoder.safetensors")


def test_the_volume_holds_the_cosines_of_each_disparity():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 1, 3, 10, 8)).astype(np.float32)
    volume = np.asarray(DisparityVolume(4, "volume")([left, right]))
    left, right = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (left, right))
    for channel, disparity in enumerate((3, 2, 1, 0)):
        expected = np.zeros((1, 3, 10), np.float32)
        shifted = right[:, :, : 10 - disparity]
        expected[:, :, disparity:] = (left[:, :, disparity:] * shifted).sum(-1)
        np.testing.assert_allclose(volume[..., channel], expected, atol=1e-4)


@given(st.integers(-3, 3), st.integers(-2, 2))
@settings(derandomize=True, deadline=None, max_examples=10)
def test_global_flow_finds_a_translation(x, y):
    rng = np.random.default_rng(1)
    world = rng.normal(size=(1, 20, 24, 128)).astype(np.float32)
    first, second = world[:, 5:15, 5:19], world[:, 5 - y : 15 - y, 5 - x : 19 - x]
    flow, evidence, _, _ = GlobalFlow(name="flow")([first, second])
    inside = np.s_[0, 3:-3, 4:-4]
    np.testing.assert_allclose(
        np.asarray(flow)[inside], np.broadcast_to([16.0 * x, 16.0 * y], (4, 6, 2)), atol=2
    )
    assert np.asarray(evidence)[inside][..., 2].max() < 0.01


def test_cosines_around_a_cell_are_zero_outside_the_image():
    cosines = np.arange(36, dtype=np.float32).reshape(1, 6, 6)
    x = np.zeros((1, 2, 3), np.int32)
    around = np.asarray(cosines_around(cosines, x, x, 1))
    assert (around[0, 0, 0] == [0, 0, 0, 0, 0, 1, 0, 3, 4]).all()


def test_fill_takes_from_what_has_weight():
    values = np.zeros((1, 9, 9, 1), np.float32)
    weights = np.zeros((1, 9, 9, 1), np.float32)
    values[0, 4, 4], weights[0, 4, 4] = 5.0, 1.0
    filled = np.asarray(Fill((3,), "fill")([values, weights]))
    assert filled[0, 3, 3, 0] == pytest.approx(5.0, rel=0.02)
    assert filled[0, 0, 0, 0] == 0


def test_a_mixture_lies_between_its_candidates():
    candidates = ops.convert_to_tensor(np.array([[[[1.0, 2.0, 5.0, 6.0]]]], np.float32))
    logits = np.zeros((1, 1, 1, 2), np.float32)
    correction = np.ones((1, 1, 1, 2), np.float32)
    mixed = np.asarray(Mix(2, 10.0, "mix")([candidates, logits, correction]))
    np.testing.assert_allclose(mixed[0, 0, 0], [13.0, 14.0])


def test_instance_normalization_ignores_brightness_and_contrast():
    x = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype(np.float32)
    layer = InstanceNormalization()
    np.testing.assert_allclose(layer(x), layer(3 * x + 7), atol=1e-3)
