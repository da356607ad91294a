"""Conversion in a process of its own: TensorFlow stays out of this one, and how it ends is told here in one line."""

from __future__ import annotations

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
    [("kill -9 $$", "by signal 9"), ("echo no room >&2; exit 1", "no room")],
)
def test_a_process_that_ends_early_is_named(lite, tmp_path, monkeypatch, ending, reason):
    file, _, _ = lite
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{ending}\n", encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    made = tmp_path / "model.xml"
    with pytest.raises(InputError, match=rf"conversion ended early \({reason}\), expected"):
        conversion.convert(NetworkSource(file), (1, 64, 64, 3), made)
    assert not made.exists()
