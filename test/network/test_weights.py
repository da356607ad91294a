"""Weights files: round trips, headers, and every way in which one is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import dwarf_ros
from dwarf_ros.network import load, save
from dwarf_ros.network.presets import DWARF_LITE
from dwarf_ros.network.weights import WeightsHeader, named_variables, read_header
from dwarf_ros.types import InputError

TENSOR = "dwarf/decoder/block_3/estimator/disparity/Conv/weights"


@pytest.fixture(scope="module")
def lite_file(lite_model, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "lite.safetensors"
    save(lite_model, file, origin="fresh")
    return file


def rewritten(source, target, tensors=None, **metadata):
    """A copy of a weights file with other tensors or header entries."""
    header = {
        "format": "dwarf_ros weights",
        "format_version": "1",
        "preset": "dwarf_lite",
        "version": "0",
        "origin": "",
    }
    save_file(load_file(source) if tensors is None else tensors, target, metadata=header | metadata)
    return target


def refusal(file, **options):
    with pytest.raises(InputError) as caught:
        load(file, **options)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    return message


def test_round_trip_keeps_weights_and_says_what_they_are(lite_model, lite_file):
    assert read_header(lite_file) == WeightsHeader("dwarf_lite", dwarf_ros.__version__, "fresh")
    model = load(lite_file, preset="dwarf_lite", height=64, width=128)
    assert model.name == "dwarf_lite"
    assert model.output["disparity"].shape == (None, 64, 128, 1)
    loaded = named_variables(model)
    for name, variable in named_variables(lite_model).items():
        np.testing.assert_array_equal(loaded[name].numpy(), variable.numpy())
    assert [path.name for path in lite_file.parent.iterdir()] == [lite_file.name]


def test_half_precision_is_half_the_size_and_loads_as_float32(lite_model, lite_file, tmp_path):
    file = tmp_path / "half.safetensors"
    save(lite_model, file, origin="fresh", half_precision=True)
    assert file.stat().st_size < 0.51 * lite_file.stat().st_size
    loaded = named_variables(load(file))
    for name, variable in named_variables(lite_model).items():
        assert loaded[name].dtype == "float32"
        np.testing.assert_allclose(loaded[name].numpy(), variable.numpy(), rtol=1e-3, atol=1e-6)


def test_weights_beyond_float16_are_not_stored_as_such(lite_file, tmp_path):
    model = load(lite_file)
    kernel = named_variables(model)[TENSOR]
    kernel.assign(np.full(kernel.shape, 1e6, np.float32))
    with pytest.raises(InputError, match=f"{TENSOR} does not fit float16"):
        save(model, tmp_path / "large.safetensors", origin="", half_precision=True)
    assert not list(tmp_path.iterdir())


def test_another_preset_is_refused(lite_file, tmp_path):
    assert "weights are of preset dwarf_lite, expected dwarf" in refusal(lite_file, preset="dwarf")
    with pytest.raises(InputError, match="weights are of preset dwarf_lite, expected dwarf"):
        read_header(lite_file, preset="dwarf")
    unknown = rewritten(lite_file, tmp_path / "unknown", preset="dwarf_huge")
    assert "preset 'dwarf_huge', expected one of dwarf, dwarf_lite" in refusal(unknown)


def test_missing_misshapen_mistyped_and_unknown_tensors_are_named(lite_file, tmp_path):
    whole = load_file(lite_file)
    missing = {name: array for name, array in whole.items() if name != TENSOR}
    cases = {
        "missing": (missing, f"tensor {TENSOR} is missing"),
        "misshapen": (
            whole | {TENSOR: np.zeros((3, 3, 8, 1), np.float32)},
            f"tensor {TENSOR} has shape (3, 3, 8, 1), expected (3, 3, 32, 1)",
        ),
        "mistyped": (
            whole | {TENSOR: np.zeros((3, 3, 32, 1), np.int32)},
            f"tensor {TENSOR} is I32, expected F32 or F16",
        ),
        "unknown": (whole | {"surplus": np.zeros(1, np.float32)}, "tensor surplus is unknown"),
    }
    for name, (tensors, message) in cases.items():
        assert message in refusal(rewritten(lite_file, tmp_path / name, tensors))


def test_other_files_are_refused(lite_file, tmp_path):
    assert "no such weights file" in refusal(tmp_path / "absent.safetensors")
    assert "no such weights file" in refusal(tmp_path)
    text = tmp_path / "text.safetensors"
    text.write_text("weights, honestly")
    assert "not a complete safetensors file" in refusal(text)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": np.zeros(3, np.float32)}, foreign)
    assert "header names format None, expected 'dwarf_ros weights'" in refusal(foreign)
    newer = rewritten(lite_file, tmp_path / "newer.safetensors", format_version="2")
    assert "format version '2', expected '1'" in refusal(newer)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(kept=st.floats(0, 1, exclude_max=True))
def test_truncated_file_is_refused_wherever_it_ends(lite_file, kept):
    content = lite_file.read_bytes()
    file = lite_file.with_name("truncated")
    file.write_bytes(content[: int(kept * len(content))])
    message = refusal(file)
    file.unlink()
    assert "not a complete safetensors file" in message


@settings(max_examples=60, deadline=None, derandomize=True)
@given(position=st.integers(0, 4000), value=st.integers(0, 255))
def test_damaged_header_is_read_or_refused(lite_file, position, value):
    content = bytearray(lite_file.read_bytes())
    content[position] = value
    file = lite_file.with_name("damaged")
    file.write_bytes(content)
    try:
        read = read_header(file).preset
    except InputError as error:
        read = str(error)
    file.unlink()
    assert read == "dwarf_lite" or read.startswith(f"{file}: ")


def test_unwritable_place_is_refused_and_leaves_nothing(lite_model, tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        save(lite_model, tmp_path / "absent" / "lite.safetensors", origin="")
    with pytest.raises(InputError, match="cannot be written: Is a directory"):
        save(lite_model, tmp_path, origin="")
    assert not list(tmp_path.iterdir())


def test_model_of_a_preset_without_a_name_of_ours_is_not_saved(tmp_path):
    import dataclasses

    from dwarf_ros.network import build

    model = build(dataclasses.replace(DWARF_LITE, name="trial"))
    with pytest.raises(InputError, match="preset 'trial', expected one of dwarf, dwarf_lite"):
        save(model, tmp_path / "trial.safetensors", origin="")
