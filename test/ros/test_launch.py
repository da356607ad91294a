"""The launch file: what can be told from its text, and a real launch where launch is installed."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from dwarf_ros.ros.inputs import INPUT_TOPICS
from dwarf_ros.ros.parameters import PARAMETERS as NODE_PARAMETERS

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "dwarf.launch.py"
ARGUMENTS = {
    "namespace",
    "estimator",
    "engine",
    "weights",
    "reference",
    "frame_id",
    "params_file",
    "left_image",
    "right_image",
    "left_camera_info",
    "right_camera_info",
    "rviz",
    "use_sim_time",
    "log_level",
}

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


def constants() -> dict[str, dict[str, str]]:
    """The dictionaries that the launch file defines, read without running it."""
    tree = ast.parse(LAUNCH_FILE.read_text(), filename=str(LAUNCH_FILE))
    return {
        statement.targets[0].id: ast.literal_eval(statement.value)
        for statement in tree.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict)
    }


def test_the_parameters_and_topics_that_it_offers_are_the_nodes():
    offered = constants()
    assert set(offered["PARAMETERS"]) <= set(NODE_PARAMETERS)
    assert set(offered["INPUTS"].values()) == set(INPUT_TOPICS)
    assert {*offered["PARAMETERS"], *offered["INPUTS"]} <= ARGUMENTS


def test_the_files_that_it_names_are_there_and_the_profile_is_the_nodes():
    text = LAUNCH_FILE.read_text()
    for name in re.findall(r'CONFIG / "([^"]+)"', text):
        assert (REPOSITORY / "config" / name).is_file()
    assert "import PROFILE_VARIABLES" in text


def test_every_argument_has_a_default_and_a_description():
    launch_description_sources = pytest.importorskip("launch.launch_description_sources")
    pytest.importorskip("launch_ros")
    description = launch_description_sources.get_launch_description_from_python_launch_file(
        str(LAUNCH_FILE)
    )
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert set(arguments) == ARGUMENTS
    for name, argument in arguments.items():
        assert argument.default_value is not None, name
        assert len(argument.description) > 10, name


@pytest.fixture
def installed_package(tmp_path) -> Path:
    """Prefix in which this checkout is installed as colcon would, and an rviz2 that only notes how it is called."""
    prefix = tmp_path / "prefix"
    executables = {
        "dwarf_ros/dwarf_node": f'exec "{sys.executable}" -m dwarf_ros.ros.node "$@"',
        "rviz2/rviz2": f"printf '%s\\n' \"$@\" > '{tmp_path}/rviz2.part'\n"
        f"mv '{tmp_path}/rviz2.part' '{tmp_path}/rviz2.arguments'",
    }
    index = prefix / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    for name, script in executables.items():
        executable = prefix / "lib" / name
        executable.parent.mkdir(parents=True)
        executable.write_text(f"#!/bin/sh\n{script}\n")
        executable.chmod(0o755)
        (prefix / "share" / executable.parent.name).mkdir()
        (index / executable.parent.name).touch()
    return prefix


def test_a_launched_node_has_the_namespace_topics_and_parameters_given(
    ros_environment, installed_package, tmp_path, rig
):
    pytest.importorskip("launch_ros")
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    queue_size: 3\n    estimator: magic\n")
    log = tmp_path / "launch.log"
    paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    prefixes = [str(installed_package), os.environ.get("AMENT_PREFIX_PATH", "")]
    with log.open("w") as stream:
        launched = subprocess.Popen(
            [
                *(sys.executable, "-c", LAUNCHER, str(LAUNCH_FILE)),
                "namespace:=robot",
                "estimator:=classical",
                "left_image:=/camera/left",
                "frame_id:=eye",
                "rviz:=true",
                f"params_file:={parameters}",
            ],
            env={
                **ros_environment,
                "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                "AMENT_PREFIX_PATH": os.pathsep.join(filter(None, prefixes)),
                "ROS_LOG_DIR": str(tmp_path),
            },
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    try:
        end = time.monotonic() + 30
        while "active: waiting for" not in log.read_text():
            assert launched.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        assert (
            "/camera/left, /robot/left/camera_info, /robot/right/image_rect, "
            "/robot/right/camera_info" in log.read_text()
        )
        assert "estimator classical" in log.read_text()
        rviz = tmp_path / "rviz2.arguments"
        while not rviz.exists():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        said = rviz.read_text().splitlines()
        assert said[said.index("--fixed-frame") + 1] == "eye"
        assert Path(said[said.index("--display-config") + 1]).is_file()
        assert {"left/image_rect:=/camera/left", "__ns:=/robot"} <= set(said)
        from rcl_interfaces.srv import GetParameters

        values = rig.call(
            GetParameters,
            "/robot/dwarf/get_parameters",
            GetParameters.Request(names=["queue_size", "use_sim_time", "frame_id"]),
        ).values
        assert (values[0].integer_value, values[1].bool_value) == (3, False)
        assert values[2].string_value == "eye"
        launched.send_signal(signal.SIGINT)
        assert launched.wait(timeout=15) == 0, log.read_text()
    finally:
        if launched.poll() is None:
            launched.kill()
            launched.wait()
    assert "process has finished cleanly" in log.read_text()
