from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from dwarf_ros.training.losses import (
    finest_loss,
    level_loss,
    multilevel_loss,
    reduce_by_area,
    squared_weights,
)

NAN = np.nan


def one_channel(rows):
    return np.array(rows, np.float64)[None, :, :, None]


def test_area_reduction_averages_what_is_known():
    truth = one_channel([[1, 2, NAN, NAN], [3, 6, NAN, 8], [NAN, NAN, 0, 0], [NAN, NAN, 0, 4]])
    mean, known = reduce_by_area(truth, 2)
    assert np.array_equal(np.squeeze(mean), [[3, 8], [0, 1]])
    assert np.array_equal(np.squeeze(known), [[1, 1], [0, 1]])


def test_area_reduction_masks_channel_by_channel():
    truth = np.stack([np.full((1, 2, 2), NAN), np.full((1, 2, 2), 5.0)], axis=-1)
    mean, known = reduce_by_area(truth, 2)
    assert np.asarray(mean).tolist() == [[[[0, 5]]]]
    assert np.asarray(known).tolist() == [[[[0, 1]]]]


def test_level_loss_sums_over_pixels_and_channels_and_averages_over_the_batch():
    truth = np.zeros((2, 4, 4, 4))
    truth[0] = [-20, -40, 60, -80]
    prediction = np.zeros((2, 2, 2, 4))
    # The first of two images has 4 pixels with errors 1, 2, 3 and 4, the last two counted half.
    assert float(level_loss(prediction, truth, 0.5)) == pytest.approx(4 * (1 + 2 + 1.5 + 2) / 2)
    prediction[0] = [-1, -2, 3, -4]
    assert float(level_loss(prediction, truth, 0.5)) == 0


def test_multilevel_loss_weights_the_levels():
    truth = np.tile([-20.0, 0, 0, 0], (1, 64, 64, 1))
    outputs = {f"level_{n}": np.zeros((1, 64 >> n, 64 >> n, 4)) for n in (6, 5, 4)}
    weights = {6: 0.5, 5: 0.25}
    assert float(multilevel_loss(outputs, truth, weights)) == pytest.approx(0.5 * 1 + 0.25 * 4)


def test_finest_loss_counts_known_pixels_of_the_full_size_answer():
    truth = np.full((1, 2, 3, 4), NAN)
    truth[0, 0, 0] = [-10, NAN, 4, 6]
    truth[0, 1, 2] = [NAN, -30, NAN, NAN]
    zero = np.zeros((1, 2, 3, 1))
    outputs = {"disparity": zero, "disparity_change": zero, "forward_flow": np.zeros((1, 2, 3, 2))}
    assert float(finest_loss(outputs, truth, 0.1, 0.5)) == pytest.approx(0.1 * (10 + 30 + 5) / 20)
    outputs["disparity"] = zero - 10
    outputs["disparity_change"] = zero - 30
    assert float(finest_loss(outputs, truth, 0.1, 0.5)) == pytest.approx(0.1 * 5 / 20)


def test_half_precision_is_summed_in_the_precision_of_the_truth():
    truth = np.full((1, 128, 128, 4), -20.0, np.float32)
    prediction = ops.cast(ops.zeros((1, 128, 128, 4)), "bfloat16")
    assert float(level_loss(prediction, truth, 1.0)) == 4 * 128 * 128


def test_squared_weights_adds_all_up():
    assert float(squared_weights([np.array([1.0, 2.0]), np.array([[3.0]])])) == 14


def random_truth(rng):
    truth = rng.normal(0, 30, (2, 64, 128, 4))
    truth[rng.random(truth.shape) < 0.4] = NAN
    truth[0, :32, :32] = NAN
    return truth


@pytest.mark.parametrize("kind", ["levels", "finest"])
def test_gradients_agree_with_finite_differences(kind):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(1)
    truth = random_truth(rng)
    if kind == "levels":
        shapes = {f"level_{n}": (2, 64 >> n, 128 >> n, 4) for n in (6, 5, 4, 3)}
        weights = {6: 0.3, 5: 0.1, 4: 0.05, 3: 0.02}

        def loss(outputs):
            return multilevel_loss(outputs, truth, weights)
    else:
        channels = {"disparity": 1, "disparity_change": 1, "forward_flow": 2}
        shapes = {name: (2, 64, 128, count) for name, count in channels.items()}

        def loss(outputs):
            return finest_loss(outputs, truth)

    start = {name: tf.constant(rng.normal(0, 1, shape)) for name, shape in shapes.items()}
    way = {name: tf.constant(rng.normal(0, 1, shape)) for name, shape in shapes.items()}
    with tf.GradientTape() as tape:
        tape.watch(start)
        value = loss(start)
    gradients = tape.gradient(value, start)
    assert value.dtype == tf.float64
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    slope = sum(float(tf.reduce_sum(gradients[name] * way[name])) for name in start)

    def moved(distance):
        return float(loss({name: start[name] + distance * way[name] for name in start}))

    assert slope == pytest.approx((moved(1e-7) - moved(-1e-7)) / 2e-7, rel=1e-4)


def test_gradient_of_the_regularisation():
    tf = pytest.importorskip("tensorflow")
    weight = tf.constant([0.5, -2.0], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(weight)
        value = squared_weights([weight])
    assert tape.gradient(value, weight).numpy().tolist() == [1, -4]


def test_unknown_truth_reaches_no_gradient():
    tf = pytest.importorskip("tensorflow")
    truth = np.full((1, 64, 64, 4), NAN)
    prediction = tf.zeros((1, 2, 2, 4), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(prediction)
        value = level_loss(prediction, truth, 0.5)
    assert float(value) == 0
    assert not np.any(tape.gradient(value, prediction))
