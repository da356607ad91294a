"""Conversion in a process of its own: TensorFlow stays out of this one, and how it ends is told here in one line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dwarf_ros.engines import conversion
from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.types import InputError

pytest.importorskip("tensorflow")


def test_an_engine_runs_without_tensorflow_in_its_process(lite):
    pytest.importorskip("openvino")
    file, _, _ = lite
    script = (
        "import sys, numpy as np\n"
        "from dwarf_ros.engines import load_engine\n"
        "from dwarf_ros.network import INPUTS\n"
        f"engine = load_engine('openvino', {str(file)!r})\n"
        "answer = engine.run({name: np.zeros((1, 64, 64, 3), np.float32) for name in INPUTS})\n"
        "print(answer['disparity'].shape, {'tensorflow', 'keras'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "(1, 64, 64, 1) set()\n", done.stderr


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("kill -9 $$", r"was ended by signal 9 \(is there enough memory\?\)"),
        ("kill -15 $$", "was ended by signal 15$"),
        ("echo no room >&2; exit 1", "failed: no room$"),
    ],
)
def test_a_process_that_fails_is_named(lite, tmp_path, monkeypatch, ending, reason):
    file, _, _ = lite
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{ending}\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    made = tmp_path / "model.xml"
    with pytest.raises(InputError, match=f"the conversion {reason}"):
        conversion.convert(NetworkSource(file), (1, 64, 64, 3), made)
    assert not made.exists()


@pytest.mark.parametrize(
    "user_settings",
    [
        {"backend": "torch"},
        {"floatx": "float16"},
        {"image_data_format": "channels_first"},
    ],
)
def test_settings_of_other_work_with_keras_do_not_matter(
    lite, tmp_path, monkeypatch, user_settings
):
    file, _, _ = lite
    (tmp_path / ".keras").mkdir()
    (tmp_path / ".keras" / "keras.json").write_text(json.dumps(user_settings), encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.setenv("DWARF_CACHE_DIR", str(tmp_path / "cache"))
    conversion.check(NetworkSource(file))
