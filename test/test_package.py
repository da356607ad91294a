"""The package as it is declared, built and installed: package.xml, setup.cfg, msg/ and the code say the same."""

from __future__ import annotations

import configparser
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest

import dwarf_ros

REPOSITORY = Path(__file__).resolve().parents[1]
# Of the core requirements, those that rosdep can install.
ROSDEP_KEYS = {
    "Jinja2": "python3-jinja2",
    "PyYAML": "python3-yaml",
    "matplotlib": "python3-matplotlib",
    "numpy": "python3-numpy",
    "opencv-python-headless": "python3-opencv",
    "rich": "python3-rich",
    "rosbags": "python3-rosbags-pip",
}


@pytest.fixture(scope="module")
def manifest() -> ElementTree.Element:
    return ElementTree.parse(REPOSITORY / "package.xml").getroot()


@pytest.fixture(scope="module")
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return parser


@pytest.fixture(scope="module")
def scene_flow_message():
    """The generated message class; absent only where it cannot be built."""
    pytest.importorskip("rclpy")
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"the message cannot be built here: no {tool}")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("the message cannot be built here: no Python.h")
    return importlib.import_module("dwarf_ros.msg").SceneFlow


def declared_in(manifest: ElementTree.Element, *tags: str) -> set[str]:
    return {element.text or "" for tag in tags for element in manifest.iter(tag)}


def requirement_names(lines: str) -> set[str]:
    return {re.split(r"[\[<>=;! ]", line)[0] for line in lines.split("\n") if line}


def test_versions_agree(manifest, metadata):
    assert manifest.findtext("version") == dwarf_ros.__version__
    assert metadata["metadata"]["version"] == dwarf_ros.__version__
    assert importlib.metadata.version("dwarf_ros") == dwarf_ros.__version__


def test_name_description_licence_and_maintainer_agree(manifest, metadata):
    maintainer = manifest.find("maintainer")
    assert metadata["metadata"]["name"] == manifest.findtext("name")
    assert metadata["metadata"]["description"] == manifest.findtext("description")
    assert metadata["metadata"]["license"] == manifest.findtext("license")
    assert metadata["metadata"]["author"] == maintainer.text
    assert metadata["metadata"]["author_email"] == maintainer.get("email")
    assert (REPOSITORY / manifest.find("license").get("file")).is_file()


def test_what_rosdep_can_install_is_in_package_xml(manifest, metadata):
    required = requirement_names(metadata["options"]["install_requires"])
    keys = {key for name, key in ROSDEP_KEYS.items() if name in required}
    assert keys <= declared_in(manifest, "depend", "exec_depend")


def test_ros_packages_that_deptry_leaves_out_are_in_package_xml(manifest):
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    ignored = settings["tool"]["deptry"]["per_rule_ignores"]
    # A module of Python 3.14.
    ros = [name for name in ignored["DEP001"] if name != "compression"]
    assert ros == ignored["DEP003"]
    assert set(ros) <= declared_in(manifest, "depend", "exec_depend")


def test_messages_in_the_message_are_dependencies(manifest):
    text = "".join(
        file.read_text(encoding="utf-8") for file in sorted((REPOSITORY / "msg").glob("*.msg"))
    )
    cmake = (REPOSITORY / "msg" / "CMakeLists.txt").read_text(encoding="utf-8")
    packages = {kind.split("/")[0] for kind in message_fields(text).values() if "/" in kind}
    packages.discard("dwarf_ros")
    assert packages <= declared_in(manifest, "depend")
    assert packages == set(re.search(r"DEPENDENCIES ([\w ]+)", cmake)[1].split())


@pytest.mark.parametrize("command", ["dwarf", "dwarf_node"])
def test_commands_resolve(command):
    if command == "dwarf_node":
        pytest.importorskip("rclpy")
    entries = importlib.metadata.distribution("dwarf_ros").entry_points
    entry = entries.select(group="console_scripts", name=command)
    assert callable(entry[command].load())


def message_fields(text: str) -> dict[str, str]:
    """Type by name of a message definition's fields, in order."""
    lines = (line.split("#")[0].split() for line in text.splitlines())
    return {name: kind for kind, name in filter(None, lines)}


def test_installed_message_is_the_one_in_msg(scene_flow_message):
    text = (REPOSITORY / "msg" / "SceneFlow.msg").read_text(encoding="utf-8")
    generated = scene_flow_message.get_fields_and_field_types()
    kinds = {"float64": "double", "float64[]": "sequence<double>"}
    defined = {name: kinds.get(kind, kind) for name, kind in message_fields(text).items()}
    assert list(generated.items()) == list(defined.items())


def test_message_survives_serialisation(scene_flow_message):
    from rclpy.serialization import deserialize_message, serialize_message

    message = scene_flow_message(estimator="classical", fx=721.5, cx_right=609.0, baseline=0.54)
    message.header.frame_id = "left_optical"
    message.header.stamp.sec, message.header.stamp.nanosec = 17, 999_999_999
    message.other_stamp.sec = 16
    message.flow.height, message.flow.width, message.flow.encoding = 1, 1, "32FC2"
    message.flow.data.frombytes(bytes(range(8)))
    message.valid.data.frombytes(b"\xff")
    again = deserialize_message(serialize_message(message), scene_flow_message)
    assert again == message
    assert again.flow.data.tobytes() == bytes(range(8))
    assert again.header.stamp.nanosec == 999_999_999


@pytest.fixture(scope="module")
def build_without_cmake(tmp_path_factory):
    """The finished build of a wheel from a copy of the checkout, where no cmake is found; and that wheel's folder."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    for name in ("config", "dwarf_ros", "launch", "model", "msg", "resource"):
        if (REPOSITORY / name).is_dir():
            shutil.copytree(
                REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
            )
    for name in ("package.xml", "pyproject.toml", "setup.cfg", "setup.py"):
        shutil.copy(REPOSITORY / name, source)
    (folder / "empty").mkdir()
    done = subprocess.run(
        [sys.executable, "setup.py", "bdist_wheel", "--dist-dir", str(folder / "dist")],
        cwd=source,
        env={**os.environ, "PATH": str(folder / "empty")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done, folder


def test_a_build_without_messages_succeeds_with_one_warning(build_without_cmake):
    done, folder = build_without_cmake
    warnings = [line for line in done.stderr.splitlines() if line.startswith("dwarf_ros: WARNING:")]
    assert len(warnings) == 1
    assert "`estimate`" in warnings[0]
    assert "cmake" in warnings[0] or "rosidl_default_generators" in warnings[0]
    (wheel,) = (folder / "dist").glob("*.whl")
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "/msg/" in name]


def test_the_wheel_holds_every_file_of_the_package(build_without_cmake):
    _, folder = build_without_cmake
    (wheel,) = (folder / "dist").glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = f"dwarf_ros-{dwarf_ros.__version__}.data/data/share"
    source = folder / "source"
    expected = {
        file.relative_to(source).as_posix() for file in (source / "dwarf_ros").rglob("*.py")
    }
    expected |= {
        f"{data}/dwarf_ros/{file.relative_to(source).as_posix()}"
        for part in ("config", "launch", "model")
        for file in (source / part).rglob("*")
        if file.is_file()
    }
    expected |= {
        f"{data}/dwarf_ros/package.xml",
        f"{data}/ament_index/resource_index/packages/dwarf_ros",
    }
    assert expected <= names


def test_importing_the_package_is_light():
    code = "import sys, dwarf_ros, dwarf_ros.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {"cv2", "jax", "keras", "numpy", "openvino", "rclpy", "tensorflow"}
    assert not heavy & set(done.stdout.split())
