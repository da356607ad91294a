"""The shipped weights are what their card says."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros import load_estimator
from dwarf_ros.estimators import shipped_weights
from dwarf_ros.evaluation.metrics import disparity_errors, flow_errors
from dwarf_ros.network.weights import read_header
from dwarf_ros.training.data import DriveSamples

LITE = shipped_weights("dwarf_lite")


def test_weights_are_small_and_have_a_card():
    assert read_header(LITE).preset == "dwarf_lite"
    assert LITE.stat().st_size < 10e6
    card = (LITE.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"## {file.name}" in card for file in LITE.parent.glob("*.safetensors"))


def test_they_have_learnt_disparity_and_flow():
    """On a held-out drive, far better than to say that nothing moves; the card has the figures of many."""
    pytest.importorskip("tensorflow")
    sample = DriveSamples(1_000_000, 1, 320, 640)[0]
    answer = load_estimator("dwarf_lite", engine="tensorflow").estimate(
        sample.previous, sample.current
    )
    truth = sample.ground_truth.occ
    for measure, estimate, true in (
        (disparity_errors, answer.disparity, truth.disparity),
        (disparity_errors, answer.disparity_next, truth.disparity_next),
        (flow_errors, answer.flow, truth.flow),
    ):
        learnt, nothing = measure(estimate, true), measure(np.zeros_like(true), true)
        assert learnt.mean < nothing.mean / 4
        assert learnt.outlier_rate < nothing.outlier_rate / 2
