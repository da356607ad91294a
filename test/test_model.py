"""The shipped weights are what their card says."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros import load_estimator
from dwarf_ros.engines import load_engine
from dwarf_ros.estimators import shipped_weights
from dwarf_ros.evaluation.quantization import drive_images
from dwarf_ros.metrics import disparity_errors, flow_errors
from dwarf_ros.network.weights import read_header
from dwarf_ros.training.data import DriveSamples

LITE = shipped_weights("dwarf_lite")

HEIGHT, WIDTH = 128, 256
HELD_OUT_SEED = 1000

# Largest mean difference from float32 Keras; docs/deploying.md states them.
TOLERANCES_PX = {
    ("tensorflow", "f32"): 0.001,
    ("tensorflow", "bf16"): 0.1,
    ("openvino", "f32"): 0.001,
    ("openvino", "bf16"): 0.1,
    ("openvino", "int8"): 0.3,
    ("onnxruntime", "f32"): 0.001,
}
_NEEDED = {"int8": ("nncf",), "onnxruntime": ("onnx", "tf2onnx")}


def test_weights_are_small_and_have_a_card():
    assert read_header(LITE).preset == "dwarf_lite"
    assert LITE.stat().st_size < 10e6
    card = (LITE.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"## {file.name}" in card for file in LITE.parent.glob("*.safetensors"))


def test_the_second_version_is_as_accurate_on_a_drive_as_its_card_says():
    estimator = load_estimator("dwarf_lite_v2", engine="tensorflow", refine="none")
    sample = DriveSamples(HELD_OUT_SEED, 2, 320, 640)[0]
    estimate = estimator.estimate(sample.previous, sample.current)
    truth = sample.ground_truth.occ
    assert disparity_errors(estimate.disparity, truth.disparity).outlier_rate < 20
    assert flow_errors(estimate.flow, truth.flow).outlier_rate < 40


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


@pytest.fixture(scope="module")
def answered():
    """Two frames of a held-out drive, and what the Keras model answers to them."""
    pytest.importorskip("tensorflow")
    from dwarf_ros import network

    images = drive_images(HELD_OUT_SEED, HEIGHT, WIDTH)
    outputs = network.load(LITE)(images)
    return images, {name: np.asarray(output) for name, output in outputs.items()}


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("engine", "precision"), TOLERANCES_PX)
def test_every_engine_and_precision_answers_alike(answered, quantize_apart, engine, precision):
    for package in (engine, *_NEEDED.get(engine, ()), *_NEEDED.get(precision, ())):
        pytest.importorskip(package)
    if engine == "openvino" and precision == "bf16":
        from dwarf_ros.engines.openvino import has_bfloat16

        if not has_bfloat16():
            pytest.skip("this processor has no bfloat16")
    if precision == "int8":
        quantize_apart(LITE, HEIGHT, WIDTH, list(range(6)), [HELD_OUT_SEED])
    images, expected = answered
    answer = load_engine(engine, LITE, precision).run(images)
    for name, exact in expected.items():
        length = np.linalg.norm(exact, axis=-1).mean()
        change = np.linalg.norm(answer[name] - exact, axis=-1).mean()
        assert length > 1, name
        assert change < TOLERANCES_PX[engine, precision], name
