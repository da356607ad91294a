"""The losses of dwarf_lite_v2: zero at the truth, blind where nothing is known, mild with wrong labels."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwarf_ros.network import build
from dwarf_ros.network.codec import INPUTS
from dwarf_ros.training.stage_losses import (
    FEATURE_WEIGHTS,
    STAGE_WEIGHTS,
    feature_losses,
    robust_error,
    stage_losses,
    truth_at,
)


@given(st.floats(0, 500), st.floats(0, 500), st.floats(0, 300))
def test_a_larger_error_costs_more_but_ever_less(first, second, length):
    small, large = sorted((np.float32(first), np.float32(second)))
    costs = [float(robust_error(error, np.float32(length))) for error in (small, large)]
    assert 0 <= costs[0] <= costs[1]
    assert costs[1] - costs[0] <= large - small + 1e-4


def test_truth_of_a_cell_is_that_of_its_place():
    truth = np.full((1, 16, 16, 4), np.nan, np.float32)
    truth[0, 8, 8], truth[0, 9, 9] = 1.0, 3.0
    truth[0, 4, 4] = 100.0
    values, known = truth_at(keras.ops.convert_to_tensor(truth), 8)
    assert np.asarray(values)[0, 1, 1].tolist() == [2.0] * 4
    assert np.asarray(known)[0, :, :, 0].tolist() == [[0, 0], [0, 1]]


def outputs_of(motion: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of a network that is right everywhere."""
    shape = motion.shape[:3]
    names = {"stereo_eighth": (8, slice(0, 1)), "quarter": (4, slice(0, 4))}
    names |= {"flow_filled": (16, slice(2, 4)), "flow_sixteenth": (16, slice(2, 4))}
    names |= {"flow_matched": (16, slice(2, 4))}
    names |= {f"flow_update_{index}": (8, slice(2, 4)) for index in (0, 1)}
    outputs = {name: motion[:, ::k, ::k, part] for name, (k, part) in names.items()}
    eighth, quarter, sixteenth = ((shape[0], shape[1] // k, shape[2] // k) for k in (8, 4, 16))
    outputs["stereo_logits"] = np.zeros((*eighth, 32), np.float32)
    outputs["stereo_quarter_logits"] = np.zeros((*quarter, 9), np.float32)
    outputs["flow_reliability"] = np.full((*sixteenth, 1), 0.9999, np.float32)
    outputs["confidence_logits"] = np.full((*eighth, 2), 20, np.float32)
    outputs["full"] = motion
    return {name: keras.ops.convert_to_tensor(values) for name, values in outputs.items()}


def test_the_truth_costs_next_to_nothing():
    motion = np.zeros((1, 64, 64, 4), np.float32) + np.float32([-20, -24, 6, 2])
    terms = stage_losses(outputs_of(motion), keras.ops.convert_to_tensor(motion))
    for name, term in zip(STAGE_WEIGHTS, terms, strict=True):
        if not name.endswith("matches"):
            assert float(term) < 0.02, name


def test_where_nothing_is_known_nothing_is_lost():
    motion = np.full((1, 64, 64, 4), -5, np.float32)
    unknown = np.full_like(motion, np.nan)
    terms = stage_losses(outputs_of(motion), keras.ops.convert_to_tensor(unknown))
    assert [float(term) for term in terms] == [0.0] * len(STAGE_WEIGHTS)


def test_losses_of_the_network_are_finite():
    keras.utils.set_random_seed(0)
    network = build("dwarf_lite_v2", all_levels=True)
    rng = np.random.default_rng(0)
    images = {name: rng.random((1, 64, 128, 3), np.float32) for name in INPUTS}
    truth = rng.normal(0, 20, (1, 64, 128, 4)).astype(np.float32)
    truth[..., :2] = -np.abs(truth[..., :2])
    truth[:, ::3] = np.nan
    terms = stage_losses(network(images), keras.ops.convert_to_tensor(truth))
    assert np.isfinite([float(term) for term in terms]).all()


def test_the_teachers_own_features_cost_nothing():
    rng = np.random.default_rng(0)
    eighth = rng.normal(size=(2, 8, 16, 6)).astype(np.float32)
    sixteenth = rng.normal(size=(2, 4, 8, 6)).astype(np.float32)
    teacher = np.concatenate([eighth.reshape(2, -1, 6), sixteenth.reshape(2, -1, 6)], axis=1)
    outputs = {"eighth": 3 * eighth, "sixteenth": sixteenth}
    outputs = {name: keras.ops.convert_to_tensor(values) for name, values in outputs.items()}
    terms = feature_losses(outputs, keras.ops.convert_to_tensor(teacher))
    assert len(terms) == len(FEATURE_WEIGHTS)
    assert sum(map(float, terms)) == pytest.approx(0, abs=1e-3)
