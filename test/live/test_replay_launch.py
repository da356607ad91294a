"""The launch file that plays a recording into the node: its text, and a real launch where launch is installed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from dwarf_ros.estimators import choose_estimator
from dwarf_ros.live.replay import compare_with_offline, evaluate_run
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "replay.launch.py"

LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(argument.split(":=", 1)) for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(
        PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments
    )
]))
sys.exit(service.run())
"""

EXECUTABLES = {
    "dwarf": "dwarf_ros.cli",
    "dwarf_node": "dwarf_ros.ros.node",
}


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


@pytest.fixture
def installed_package(tmp_path) -> Path:
    """Prefix in which this checkout is installed as colcon would."""
    prefix = tmp_path / "prefix"
    for folder in ("lib/dwarf_ros", "share/dwarf_ros", "share/ament_index/resource_index/packages"):
        (prefix / folder).mkdir(parents=True)
    (prefix / "share/ament_index/resource_index/packages/dwarf_ros").touch()
    for name, module in EXECUTABLES.items():
        script = prefix / "lib/dwarf_ros" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -u -m {module} "$@"\n')
        script.chmod(0o755)
    return prefix


def test_a_launched_replay_is_recorded_and_ends_by_itself(
    ros_environment, installed_package, tmp_path
):
    pytest.importorskip("launch_ros")
    drive = tmp_path / "drive"
    write_drive(ProceduralDrive(seed=4, frames=4, width=256, height=128), drive)
    run = tmp_path / "run"
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    prefixes = [str(installed_package), os.environ.get("AMENT_PREFIX_PATH", "")]
    launched = subprocess.run(
        [
            *(sys.executable, "-c", LAUNCHER, str(LAUNCH_FILE)),
            f"source:={drive}",
            f"record:={run}",
            "rate:=2.0",
            "estimator:=classical",
            "namespace:=robot",
        ],
        env={
            **ros_environment,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "AMENT_PREFIX_PATH": os.pathsep.join(filter(None, prefixes)),
            "ROS_LOG_DIR": str(tmp_path),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert launched.returncode == 0, launched.stdout
    choice = choose_estimator("classical")
    evaluation = evaluate_run(drive, run, choice)
    assert evaluation.live.played == 4
    assert evaluation.live.answered + sum(evaluation.live.dropped.values()) == 3
    assert compare_with_offline(drive, run, choice).largest <= 1e-3
