"""The launch file that plays a recording into the node: its text, and a real launch where launch is installed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from live_fixtures import difference_from_offline

from dwarf_ros.estimators import choose_estimator
from dwarf_ros.live.replay import evaluate_run
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "replay.launch.py"


def declared() -> dict[str, str]:
    """Name and description of each argument that the file declares itself, from the text."""
    tree = ast.parse(LAUNCH_FILE.read_text())
    found = {}
    for node in ast.walk(tree):
        called = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if called == "DeclareLaunchArgument" and isinstance(node.args[0], ast.Constant):
            keywords = {keyword.arg: keyword.value for keyword in node.keywords}
            found[node.args[0].value] = ast.literal_eval(keywords["description"])
    return found


def test_every_argument_is_described_and_used():
    text = LAUNCH_FILE.read_text()
    arguments = declared()
    for name, description in arguments.items():
        assert len(description) > 10, name
        assert f'argument("{name}")' in text or f'"{name}": ' in text, name


def test_the_nodes_own_arguments_are_declared_once():
    text = LAUNCH_FILE.read_text()
    assert declared().keys() == {"source", "rate", "loop", "record", "reference"}
    node_text = (REPOSITORY / "launch" / "dwarf.launch.py").read_text()
    for name in re.findall(r'argument\("([a-z_]+)"\)', text):
        assert name in declared() or f'"{name}"' in node_text, name


def test_it_offers_all_that_the_nodes_launch_file_offers():
    sources = pytest.importorskip("launch.launch_description_sources")
    pytest.importorskip("launch_ros")
    offered = [
        {
            argument.name
            for argument in sources.get_launch_description_from_python_launch_file(
                str(file)
            ).get_launch_arguments()
        }
        for file in (LAUNCH_FILE, LAUNCH_FILE.with_name("dwarf.launch.py"))
    ]
    assert offered[0] == offered[1] | declared().keys()


def test_a_launched_replay_is_recorded_and_ends_by_itself(launch, tmp_path):
    drive = tmp_path / "drive"
    write_drive(ProceduralDrive(seed=4, frames=4, width=256, height=128), drive)
    run = tmp_path / "run"
    launched = launch.start(
        LAUNCH_FILE,
        f"source:={drive}",
        f"record:={run}",
        "rate:=2.0",
        "estimator:=classical",
        "namespace:=robot",
    )
    try:
        assert launched.wait(timeout=100) == 0, launch.log()
    finally:
        launched.kill()
    choice = choose_estimator("classical", refine="none")
    evaluation = evaluate_run(drive, run, choice)
    assert evaluation.live.played == 4
    assert evaluation.live.answered + sum(evaluation.live.dropped.values()) == 3
    assert difference_from_offline(drive, run, choice).largest <= 1e-3
