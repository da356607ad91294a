"""The launch file: what can be told from its text, and a real launch where launch is installed."""

from __future__ import annotations

import ast
import re
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from dwarf_ros.live.lifecycle import NodeClient
from dwarf_ros.ros.inputs import INPUT_TOPICS
from dwarf_ros.ros.parameters import PARAMETERS as NODE_PARAMETERS

REPOSITORY = Path(__file__).resolve().parents[2]
LAUNCH_FILE = REPOSITORY / "launch" / "dwarf.launch.py"
ARGUMENTS = {
    "namespace",
    "estimator",
    "engine",
    "weights",
    "precision",
    "refine",
    "image_transport",
    "reliable",
    "reference",
    "frame_id",
    "autostart",
    "params_file",
    "left_image",
    "right_image",
    "left_camera_info",
    "right_camera_info",
    "rviz",
    "use_sim_time",
    "log_level",
}


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


def test_a_launched_node_has_the_namespace_topics_and_parameters_given(launch, tmp_path, rig):
    parameters = tmp_path / "mine.yaml"
    parameters.write_text("/**:\n  ros__parameters:\n    queue_size: 3\n    estimator: magic\n")
    # An rviz2 that only notes its arguments.
    rviz = tmp_path / "rviz2.arguments"
    launch.install(
        "rviz2/rviz2", f"printf '%s\\n' \"$@\" > '{rviz}.part'\nmv '{rviz}.part' '{rviz}'"
    )
    launched = launch.start(
        LAUNCH_FILE,
        "namespace:=robot",
        "estimator:=classical",
        "left_image:=/camera/left",
        "frame_id:=eye",
        "rviz:=true",
        f"params_file:={parameters}",
    )
    try:
        end = time.monotonic() + 30
        while "active: waiting for" not in launch.log() or not rviz.exists():
            assert launched.poll() is None, launch.log()
            assert time.monotonic() < end, launch.log()
            time.sleep(0.1)
        assert (
            "/camera/left, /robot/left/camera_info, /robot/right/image_rect, "
            "/robot/right/camera_info" in launch.log()
        )
        assert "estimator classical" in launch.log()
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
        assert launched.wait(timeout=15) == 0, launch.log()
    finally:
        if launched.poll() is None:
            launched.kill()
            launched.wait()
    assert "process has finished cleanly" in launch.log()


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("params_file:=/no/such.yaml", "params_file: /no/such.yaml: no such file"),
        ("rviz:=true", "rviz: rviz2 is not installed"),
    ],
)
def test_a_wrong_argument_is_one_error_before_anything_starts(launch, argument, line):
    launched = launch.start(LAUNCH_FILE, argument)
    assert launched.wait(timeout=30) == 1
    assert launch.log().count("[ERROR]") == 1
    assert line in launch.log()
    assert "process started" not in launch.log()


def test_a_node_without_autostart_waits_to_be_configured(launch):
    launched = launch.start(LAUNCH_FILE, "estimator:=classical", "autostart:=false")
    try:
        with NodeClient() as client:
            assert client.state(timeout_s=20) == "unconfigured"
    finally:
        launched.send_signal(signal.SIGINT)
        assert launched.wait(timeout=15) == 0, launch.log()
