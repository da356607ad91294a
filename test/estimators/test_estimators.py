"""load_estimator: which estimator a name stands for, and one line for each thing that is wrong."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import dwarf_ros
from dwarf_ros.estimators import BEST, shipped_weights
from dwarf_ros.share import share_directory
from dwarf_ros.types import InputError, StereoFrame


@pytest.fixture
def share(tmp_path, monkeypatch):
    """An empty folder in the place of the one that holds model/."""
    monkeypatch.setattr("dwarf_ros.estimators.share_directory", lambda: tmp_path)
    (tmp_path / "model").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def lite_weights(tmp_path_factory):
    pytest.importorskip("tensorflow")
    from dwarf_ros import network

    file = tmp_path_factory.mktemp("weights") / "any_name.safetensors"
    network.save(network.build("dwarf_lite"), file, origin="a test: random, untrained")
    return file


def refusal(*args, **kwargs) -> str:
    with pytest.raises(InputError) as error:
        dwarf_ros.load_estimator(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_importing_the_package_loads_no_heavy_library():
    heavy = "{'cv2', 'keras', 'tensorflow', 'jax', 'openvino', 'rclpy'}"
    code = f"import sys, dwarf_ros.estimators, dwarf_ros.engines; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_classical_needs_nothing():
    estimator = dwarf_ros.load_estimator("classical")
    assert (estimator.name, estimator.engine) == ("classical", "opencv")
    frame = StereoFrame(np.zeros((40, 50), np.uint8), np.zeros((40, 50), np.uint8))
    assert estimator.estimate(frame, frame).disparity.shape == (40, 50)


def test_auto_is_the_most_accurate_that_is_shipped(share, lite_weights):
    assert dwarf_ros.load_estimator().name == BEST == "classical"
    (share / "model" / "dwarf_lite.safetensors").write_bytes(lite_weights.read_bytes())
    assert dwarf_ros.load_estimator().name == BEST
    assert dwarf_ros.load_estimator("dwarf_lite", engine="tensorflow").name == "dwarf_lite"


def test_auto_takes_the_preset_that_the_weights_are_of(lite_weights):
    estimator = dwarf_ros.load_estimator("auto", weights=str(lite_weights), engine="tensorflow")
    assert (estimator.name, estimator.engine) == ("dwarf_lite", "tensorflow")


def test_shipped_weights_lie_in_the_share_directory():
    assert shipped_weights("dwarf") == share_directory() / "model" / "dwarf.safetensors"


def test_unknown_estimator():
    message = refusal("raft")
    assert all(name in message for name in ("'raft'", "auto", "dwarf", "dwarf_lite", "classical"))


@pytest.mark.parametrize("name", ["auto", "classical", "dwarf"])
def test_unknown_engine(share, name):
    message = refusal(name, engine="tensorrt")
    assert all(engine in message for engine in ("'tensorrt'", "auto", "tensorflow", "openvino"))


@pytest.mark.parametrize("name", ["dwarf", "dwarf_lite"])
def test_no_weights_given_and_none_shipped(share, name):
    assert str(share / "model" / f"{name}.safetensors") in refusal(name)


@pytest.mark.parametrize("name", ["auto", "dwarf_lite"])
def test_weights_file_is_missing(tmp_path, name):
    pytest.importorskip("tensorflow")
    missing = tmp_path / "absent.safetensors"
    assert str(missing) in refusal(name, weights=missing)


def test_weights_given_to_classical(lite_weights):
    message = refusal("classical", weights=lite_weights)
    assert str(lite_weights) in message
    assert "classical" in message


def test_weights_of_another_preset(lite_weights):
    message = refusal("dwarf", weights=lite_weights)
    assert str(lite_weights) in message
    assert "dwarf_lite" in message


def test_truncated_weights(lite_weights, tmp_path):
    half = tmp_path / "half.safetensors"
    content = lite_weights.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    assert str(half) in refusal("auto", weights=half)


def test_a_precision_given_to_classical():
    assert refusal("classical", precision="bf16") == (
        "precision: bf16 given to the classical estimator, expected auto or f32"
    )
