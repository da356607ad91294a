"""The demo as users run it: node, player and recorder in processes of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dwarf_ros.estimators import EstimatorChoice, choose_estimator
from dwarf_ros.formats import read_image
from dwarf_ros.live.demo import run_demo
from dwarf_ros.synthetic.drives import ProceduralDrive
from dwarf_ros.types import InputError

CLASSICAL = choose_estimator("classical", refine="none")

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def own_checkout(ros_environment, monkeypatch) -> None:
    """Let the demo's processes import the package from here, wherever the test runs."""
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.mark.parametrize("reference", ["current", "previous"])
def test_demo_answers_every_pair_of_a_drive(own_checkout, tmp_path, capsys, reference):
    drive = ProceduralDrive(seed=4, frames=4, width=256, height=128)
    code = run_demo(None, tmp_path, CLASSICAL, reference=reference, drive=drive)
    said = capsys.readouterr()
    assert code == 0, said
    document = json.loads((tmp_path / "figures.json").read_text())
    summary, frames = document["summary"], document["frames"]
    assert summary["accepted"] == summary["answers"] == 3
    assert summary["estimator"] == "classical"
    pairs = [(frame["frame"], frame["other"]) for frame in frames]
    earlier_first = [(0, 1), (1, 2), (2, 3)]
    assert pairs == (
        earlier_first if reference == "previous" else [(b, a) for a, b in earlier_first]
    )
    for frame in frames:
        assert 0 < frame["latency_ms"] < 20_000
        assert 20 < frame["valid_percent"] < 100
        # With the ground truth of another frame, or of the other direction, half the flow would be wrong.
        assert frame["disparity_epe_px"] < 2
        assert frame["flow_epe_px"] < 3
        assert frame["d1_percent"] < 15
        assert frame["fl_percent"] < 25
        assert frame["motion_epe_m"] < 1
    pictures = sorted((tmp_path / "pictures").iterdir())
    assert [picture.name for picture in pictures] == [f"frame_{a:06d}.png" for a, _ in pairs]
    assert read_image(pictures[0]).shape[1:] == (1100, 3)
    table = said.out.splitlines()
    assert sum(line.split()[:1] == [str(frames[0]["frame"])] for line in table) == 1
    assert any("3 estimates of 3 accepted pairs (100 %)" in line for line in table)
    assert_no_child_is_left()


def test_estimator_that_does_not_exist_is_named(own_checkout, tmp_path):
    drive = ProceduralDrive(seed=4, frames=2, width=128, height=64)
    with pytest.raises(InputError, match="no_such_thing"):
        run_demo(None, tmp_path, EstimatorChoice("no_such_thing", None, "opencv"), drive=drive)
    assert_no_child_is_left()


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan"), float("inf")])
def test_rate_must_be_positive(tmp_path, rate_hz):
    with pytest.raises(InputError, match="rate_hz: "):
        run_demo(None, tmp_path, CLASSICAL, rate_hz)


def test_source_that_is_no_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run_demo(tmp_path / "nowhere", tmp_path / "out", CLASSICAL)


def test_out_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: "):
        run_demo(None, tmp_path / "file", CLASSICAL)


def assert_no_child_is_left() -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
