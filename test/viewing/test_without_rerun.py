"""Where rerun-sdk is not installed, that is said in one line, and pictures are drawn all the same."""

from __future__ import annotations

import sys

import pytest

from dwarf_ros.types import InputError
from dwarf_ros.viewing.pictures import picture_of
from dwarf_ros.viewing.results import Results
from dwarf_ros.viewing.viewer import save_results, view_file, view_results


def test_what_to_install_is_said(monkeypatch, tmp_path, result):
    monkeypatch.setitem(sys.modules, "rerun", None)
    monkeypatch.setitem(sys.modules, "rerun_cli", None)
    results = Results("here", ["a"], lambda _: result)
    file = tmp_path / "run.rrd"
    file.touch()
    for look in (
        lambda: save_results(results, tmp_path / "new.rrd"),
        lambda: view_results(results),
        lambda: view_file(file),
    ):
        with pytest.raises(InputError, match=r"pip install 'dwarf_ros\[viz\]'") as error:
            look()
        assert "\n" not in str(error.value)
    assert picture_of(result, "flow").any()
