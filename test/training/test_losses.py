from __future__ import annotations

import numpy as np
import pytest
from keras import ops

from dwarf_ros.training.losses import (
    finest_loss,
    level_loss,
    matching_loss,
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


@pytest.mark.parametrize("kind", ["levels", "finest", "matching"])
def test_gradients_agree_with_finite_differences(kind):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(1)
    truth = random_truth(rng)
    if kind == "levels":
        shapes = {f"level_{n}": (2, 64 >> n, 128 >> n, 4) for n in (6, 5, 4, 3)}
        weights = {6: 0.3, 5: 0.1, 4: 0.05, 3: 0.02}

        def loss(outputs):
            return multilevel_loss(outputs, truth, weights)
    elif kind == "matching":
        # Scene flow that the local candidates are around is not learnt from them: it would be led to what they see.
        center = rng.normal(0, 1, (2, 8, 16, 4))
        shapes = {
            "global_stereo": (2, 4, 8, 8),
            "global_flow": (2, 32, 32),
            "local_3": (2, 8, 16, 99),
        }

        def loss(outputs):
            return matching_loss({**outputs, "center_3": center}, truth)
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


def matches(truth, logit=0.0, center=None):
    """What a network answers that finds every partner with a logit, at levels of 16 px (global) and 8 px (local)."""
    batch, height, width, _ = truth.shape
    h, w = height // 16, width // 16
    coarse = truth[:, 8::16, 8::16] / 16
    stereo, flow = np.zeros((batch, h, w, w)), np.zeros((batch, h, w, h, w))
    for b, y, x in np.ndindex(batch, h, w):
        d, _, u, v = coarse[b, y, x]
        if np.isfinite(d) and 0 <= round(x + d) < w:
            stereo[b, y, x, round(x + d)] = logit
        if np.isfinite(u) and 0 <= round(x + u) < w and 0 <= round(y + v) < h:
            flow[b, y, x, round(y + v), round(x + u)] = logit
    fine = truth[:, 4::8, 4::8] / 8
    center = np.zeros_like(fine) if center is None else center
    local = np.zeros((*fine.shape[:3], 99))
    for b, y, x in np.ndindex(*fine.shape[:3]):
        d, c, u, v = fine[b, y, x] - center[b, y, x] * 20 / 8
        for channel, step in ((0, d), (9, c)):
            if abs(step) <= 4:
                local[b, y, x, channel + 4 + round(step)] = logit
        if abs(u) <= 4 and abs(v) <= 4:
            local[b, y, x, 18 + 9 * (4 + round(v)) + 4 + round(u)] = logit
    return {
        "global_stereo": stereo,
        "global_flow": flow.reshape(batch, h * w, h * w),
        "local_3": local,
        "center_3": center,
        "level_3": np.zeros_like(fine),
    }


def test_matches_without_preference_cost_the_logarithm_of_their_number():
    truth = np.zeros((1, 64, 96, 4))
    expected = np.log(6) + np.log(4 * 6) + 2 * np.log(9) + np.log(81)
    assert float(matching_loss(matches(truth), truth)) == pytest.approx(expected)


def test_right_matches_cost_nothing_and_wrong_ones_do():
    truth = np.tile([-16.0, -8.0, 16.0, 0.0], (1, 64, 96, 1))
    center = np.broadcast_to(truth[:, 4::8, 4::8] / 20, (1, 8, 12, 4))
    right = matches(truth, 25, center)
    assert float(matching_loss(right, truth)) < 1e-6
    for name in ("global_stereo", "global_flow", "local_3"):
        wrong = {**right, name: np.roll(right[name], 1, axis=-1)}
        assert float(matching_loss(wrong, truth)) > 20


def test_a_partner_between_candidates_is_divided_between_them():
    truth = np.tile([-8.0, 0.0, 0.0, 0.0], (1, 16, 64, 1))
    outputs = matches(truth, 25)
    columns = np.arange(4)
    # Half a pixel to the left of its own column: that one and the one before it share.
    shared = np.full((1, 1, 4, 4), -25.0)
    shared[..., columns, columns] = 0
    shared[..., columns[1:], columns[:-1]] = 0
    outputs["global_stereo"] = shared
    assert float(matching_loss(outputs, truth)) == pytest.approx(np.log(2), abs=1e-3)


def test_what_is_unknown_or_out_of_reach_is_not_learnt():
    truth = np.full((1, 32, 64, 4), NAN)
    assert float(matching_loss(matches(np.zeros_like(truth)), truth)) == 0
    far = np.tile([-500.0, -500.0, 500.0, 500.0], (1, 32, 64, 1))
    assert float(matching_loss(matches(np.zeros_like(far)), far)) == 0
    # The local flow starts 1.5 px of the level away from the truth, so that the disparity at t1 was matched elsewhere.
    lost = np.tile([0.0, 0.0, 12.0, 0.0], (1, 32, 64, 1))
    outputs = matches(lost, 25)
    before = float(matching_loss(outputs, lost))
    outputs["local_3"][..., 9:18] = np.roll(outputs["local_3"][..., 9:18], 1, axis=-1)
    assert float(matching_loss(outputs, lost)) == before
