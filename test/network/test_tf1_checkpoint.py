"""Import of published checkpoints, from checkpoints that the tests write."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from dwarf_ros.network import load
from dwarf_ros.network.codec import INPUTS
from dwarf_ros.network.tf1_checkpoint import import_checkpoint
from dwarf_ros.network.weights import read_header
from dwarf_ros.types import InputError

FIRST = "dwarf/Encoder/level_1/Conv/weights"
LAST = "dwarf/decoder/block_2/estimator/context_network_disparity_change/Conv_6/biases"


def write_checkpoint(prefix, variables):
    tf = pytest.importorskip("tensorflow")
    names = list(variables)
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(variables[name]) for name in names],
    )
    return prefix


def refusal(prefix, out):
    with pytest.raises(InputError) as caught:
        import_checkpoint(prefix, out)
    message = str(caught.value)
    assert message.startswith(f"{prefix}: ")
    assert "\n" not in message
    assert not out.exists()
    return message


@pytest.fixture(scope="module")
def zeros(published_shapes):
    return {name: np.zeros(shape, np.float32) for name, shape in published_shapes.items()}


def test_published_checkpoint_gives_the_published_answers(
    golden_weights, golden, assert_golden, tmp_path
):
    optimiser = {
        f"{name}/{slot}": np.ones_like(value)
        for name, value in golden_weights.items()
        if name.endswith("/biases")
        for slot in ("Adam", "Adam_1")
    }
    optimiser |= {"beta1_power": np.float32(0.9), "beta2_power": np.float32(0.999)}
    optimiser |= {"global_step": np.int64(1_200_000)}
    prefix = write_checkpoint(tmp_path / "model-1200000", golden_weights | optimiser)
    out = tmp_path / "dwarf.safetensors"
    assert import_checkpoint(prefix, out) == sorted(optimiser)
    header = read_header(out)
    assert (header.preset, header.origin) == ("dwarf", "TensorFlow 1 checkpoint model-1200000")
    assert_golden(load(out)({name: golden[name] for name in INPUTS}))


@pytest.mark.parametrize("name", [FIRST, LAST])
def test_missing_variable_is_named(zeros, name, tmp_path):
    partial = {other: array for other, array in zeros.items() if other != name}
    prefix = write_checkpoint(tmp_path / "model", partial)
    message = refusal(prefix, tmp_path / "out")
    assert message.endswith(f"variable {name} is missing from the checkpoint")


def test_misshapen_and_mistyped_variables_are_named(zeros, tmp_path):
    out = tmp_path / "out"
    prefix = write_checkpoint(tmp_path / "shape", zeros | {LAST: np.zeros(2, np.float32)})
    assert refusal(prefix, out).endswith(f"variable {LAST} has shape (2,), expected (1,)")
    prefix = write_checkpoint(tmp_path / "type", zeros | {LAST: np.zeros(1, np.int32)})
    assert refusal(prefix, out).endswith(f"variable {LAST} is int32, expected floating point")


def test_damaged_checkpoint_is_refused(zeros, tmp_path):
    out = tmp_path / "out"
    prefix = write_checkpoint(tmp_path / "model", zeros)
    data = tmp_path / "model.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    assert "cannot be read" in refusal(prefix, out)
    index = tmp_path / "model.index"
    index.write_bytes(index.read_bytes()[:100])
    assert "not a readable TensorFlow 1 checkpoint" in refusal(prefix, out)
    assert "no such TensorFlow 1 checkpoint" in refusal(tmp_path / "absent", out)


def test_lack_of_tensorflow_is_said(monkeypatch, tmp_path):
    (tmp_path / "model.index").touch()
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    message = refusal(tmp_path / "model", tmp_path / "out")
    assert "needs tensorflow, which" in message
