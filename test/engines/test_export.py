"""Exported files: they answer as the Keras model, say what they are, and appear whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from dwarf_ros.engines import export as exporting
from dwarf_ros.engines.export import export
from dwarf_ros.network.codec import OUTPUTS
from dwarf_ros.types import InputError

pytest.importorskip("tensorflow")


def check_answer(answer, expected):
    assert set(answer) == set(OUTPUTS)
    for name in OUTPUTS:
        np.testing.assert_allclose(answer[name], expected[name], rtol=0, atol=1e-3)


def check_metadata(told):
    assert told["producer"].startswith("dwarf_ros ")
    assert told["preset"] == "dwarf_lite"
    assert told["input_size"] == "128 x 64 px (width x height)"
    assert "negative" in told["outputs"]
    assert "px" in told["outputs"]


@pytest.mark.timeout(300)
def test_onnx(lite, tmp_path):
    for package in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(package)
    import onnxruntime

    file, pictures, expected = lite
    out = tmp_path / "lite.onnx"
    assert export(file, out, "onnx", 64, 128) < 1e-3
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    answer = session.run(list(OUTPUTS), pictures)
    check_answer(dict(zip(OUTPUTS, answer, strict=True)), expected)
    check_metadata(session.get_modelmeta().custom_metadata_map)
    assert [path.name for path in tmp_path.iterdir()] == ["lite.onnx"]


@pytest.mark.timeout(300)
def test_saved_model(lite, tmp_path):
    import tensorflow as tf

    file, pictures, expected = lite
    out = tmp_path / "lite"
    assert export(file, out, "savedmodel", 64, 128) < 1e-3
    serve = tf.saved_model.load(str(out)).signatures["serving_default"]
    answer = serve(**{name: tf.constant(picture) for name, picture in pictures.items()})
    check_answer({name: value.numpy() for name, value in answer.items()}, expected)
    check_metadata(json.loads((out / "assets.extra" / "dwarf.json").read_text()))
    assert [path.name for path in tmp_path.iterdir()] == ["lite"]


@pytest.mark.timeout(600)
def test_plan(lite, tmp_path):
    for package in ("tensorrt", "polygraphy", "onnx", "tf2onnx"):
        pytest.importorskip(package)
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    file, pictures, expected = lite
    out = tmp_path / "lite.plan"
    assert export(file, out, "tensorrt", 64, 128) < 1e-2
    engine = EngineFromBytes(out.read_bytes())()
    with TrtRunner(engine) as runner:
        check_answer(runner.infer(pictures), expected)
    check_metadata(json.loads(engine.name))
    assert [path.name for path in tmp_path.iterdir()] == ["lite.plan"]


def test_without_tensorrt_a_plan_is_refused_in_one_line(lite, tmp_path):
    if find_spec("tensorrt") and find_spec("polygraphy"):
        pytest.skip("TensorRT is installed")
    with pytest.raises(InputError, match=r"not installed: pip install 'dwarf_ros\[tensorrt\]'$"):
        export(lite[0], tmp_path / "lite.plan", "tensorrt", 64, 128)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_is_not_written(lite, tmp_path, monkeypatch):
    def wrong(folder):
        def run(images):
            size = images["left_t0"].shape[:3]
            return {name: np.full((*size, 1), 1e4, np.float32) for name in OUTPUTS}

        return run

    monkeypatch.setattr(exporting, "_write_saved_model", lambda network, shape, out: out.mkdir())
    monkeypatch.setattr(exporting, "_saved_model_runner", wrong)
    with pytest.raises(InputError, match=r"not written: disparity differs from the Keras model's"):
        export(lite[0], tmp_path / "lite", "savedmodel", 64, 128)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_named(lite, tmp_path):
    file = lite[0]
    for arguments, message in (
        (("caffe", 64, 128), "format: 'caffe' is unknown, expected onnx, savedmodel, tensorrt"),
        (("savedmodel", 60, 128), "height: 60 px, expected a multiple of 64 px"),
        (("savedmodel", 64, 0), "width: 0 px, expected a multiple of 64 px"),
    ):
        with pytest.raises(InputError, match=message):
            export(file, tmp_path / "out", *arguments)
    with pytest.raises(InputError, match="is not a folder"):
        export(file, tmp_path / "none" / "out", "savedmodel", 64, 128)
    with pytest.raises(InputError, match="exists, expected the name of a new folder"):
        export(file, tmp_path, "savedmodel", 64, 128)
    with pytest.raises(InputError, match="no such weights file"):
        export(tmp_path / "none.safetensors", tmp_path / "out", "savedmodel", 64, 128)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_utf_8_is_written(lite, tmp_path):
    pytest.importorskip("tf2onnx")
    out = tmp_path / os.fsdecode(b"caf\xe9.onnx")
    export(lite[0], out, "onnx", 64, 128)
    assert out.stat().st_size > 1_000_000
    assert list(tmp_path.iterdir()) == [out]


def test_a_disk_that_is_full_is_one_line(lite, tmp_path):
    out = tmp_path / "saved"
    limited = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        "from pathlib import Path\n"
        "from dwarf_ros.engines.export import export\n"
        "from dwarf_ros.types import InputError\n"
        "try: export(sys.argv[1], Path(sys.argv[2]), 'savedmodel', 64, 128)\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(lite[0]), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(f"{out}: cannot be written: "), done.stderr
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
