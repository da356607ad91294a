"""One contract for what comes with apt ROS and for the stand-ins: the tests run against whichever is there."""

from __future__ import annotations

import array
import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sensor_msgs")

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from dwarf_ros.ros import distro
from dwarf_ros.types import InputError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["stand-in", "installed"])
def bridge(request) -> Any:
    if request.param == "stand-in":
        return distro.CvBridge()
    bridge = pytest.importorskip("cv_bridge").CvBridge()
    if distro.bridge().__class__ is not bridge.__class__:
        pytest.skip("the installed cv_bridge does not work with this NumPy or OpenCV")
    return bridge


@pytest.fixture(params=["stand-in", "installed"])
def subscriber(request) -> Any:
    if request.param == "stand-in":
        return distro.Subscriber
    return pytest.importorskip("message_filters").Subscriber


@pytest.mark.parametrize(
    ("encoding", "dtype", "channels"),
    [
        ("mono8", np.uint8, 1),
        ("mono16", np.uint16, 1),
        ("rgb8", np.uint8, 3),
        ("bgra8", np.uint8, 4),
        ("bayer_rggb8", np.uint8, 1),
        ("32FC1", np.float32, 1),
        ("32FC2", np.float32, 2),
        ("8UC3", np.uint8, 3),
    ],
)
def test_a_bridge_keeps_pixels_and_header(bridge, encoding, dtype, channels):
    shape = (3, 5) if channels == 1 else (3, 5, channels)
    image = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    header = Header(frame_id="camera")
    message = bridge.cv2_to_imgmsg(image, encoding, header)
    assert (message.height, message.width, message.encoding) == (3, 5, encoding)
    assert message.step == 5 * channels * np.dtype(dtype).itemsize
    assert message.header.frame_id == "camera"
    assert isinstance(message.data, array.array)
    back = bridge.imgmsg_to_cv2(message)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, image)


def test_a_bridge_names_an_encoding_by_the_array_where_none_is_given(bridge):
    assert bridge.cv2_to_imgmsg(np.zeros((2, 2, 3), np.uint8)).encoding == "8UC3"
    assert bridge.cv2_to_imgmsg(np.zeros((2, 2), np.float32)).encoding == "32FC1"


def test_a_bridge_reads_either_byte_order_and_rows_padded_by_whole_pixels(bridge):
    values = np.array([[1, 515], [1027, 65535]], np.uint16)
    for big_endian, order in ((0, "<u2"), (1, ">u2")):
        message = Image(height=2, width=2, encoding="mono16", is_bigendian=big_endian, step=6)
        padded = np.concatenate([values, np.full((2, 1), 77, np.uint16)], axis=1)
        message.data = array.array("B", padded.astype(order).tobytes())
        back = bridge.imgmsg_to_cv2(message)
        assert back.dtype == np.uint16
        np.testing.assert_array_equal(back, values)


def test_a_bridge_refuses_an_encoding_that_does_not_fit_with_a_type_error(bridge):
    with pytest.raises(TypeError):
        bridge.cv2_to_imgmsg(np.zeros((2, 2), np.uint8), "bgr8")
    with pytest.raises((TypeError, RuntimeError)):
        bridge.imgmsg_to_cv2(Image(height=1, width=1, step=1, encoding="nonsense"))


def test_a_subscriber_hands_each_message_to_everyone_in_order(subscriber, rig):
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.qos_overriding_options import QoSOverridingOptions

    heard: list[tuple[str, str]] = []
    created = subscriber(
        rig.node,
        Image,
        "left/image_rect",
        qos_profile=qos_profile_sensor_data,
        qos_overriding_options=QoSOverridingOptions.with_default_policies(),
    )
    created.registerCallback(lambda message, who: heard.append((who, message.encoding)), "first")
    created.registerCallback(lambda message: heard.append(("second", message.encoding)))
    publisher = rig.publishers["left/image_rect"]
    rig.wait_for(publisher.get_subscription_count)
    rig.spin(0.2)
    publisher.publish(Image(encoding="mono8"))
    rig.wait_for(lambda: len(heard) == 2)
    assert heard == [("first", "mono8"), ("second", "mono8")]
    assert rig.node.has_parameter("qos_overrides./left/image_rect.subscription.depth")
    rig.node.destroy_subscription(created.sub)
    rig.wait_for(lambda: not publisher.get_subscription_count())


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def test_the_installed_package_is_taken_where_it_is():
    chosen_is_stand_in = distro.subscriber_class() is distro.Subscriber
    assert chosen_is_stand_in is not installed("message_filters")
    if not installed("cv_bridge"):
        assert isinstance(distro.bridge(), distro.CvBridge)


def test_a_bridge_that_gets_colours_or_byte_order_wrong_is_found_out():
    class Swapped(distro.CvBridge):
        def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
            return super().imgmsg_to_cv2(img_msg, desired_encoding)[..., ::-1]

    class Blind(distro.CvBridge):
        def imgmsg_to_cv2(self, img_msg, desired_encoding="passthrough"):
            img_msg.is_bigendian = 0
            return super().imgmsg_to_cv2(img_msg, desired_encoding)

    distro._try_bridge(distro.CvBridge())
    for broken in (Swapped(), Blind()):
        with pytest.raises(ValueError, match="not preserved"):
            distro._try_bridge(broken)


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    inherited = {
        name: value for name, value in os.environ.items() if name not in distro.PROFILE_VARIABLES
    }
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


PREPARE = (
    "import os; from dwarf_ros.ros.distro import *; prepare_environment(); "
    "print([os.environ.get(name) for name in PROFILE_VARIABLES])"
)


def test_large_images_get_a_profile_unless_the_user_chose_one():
    profile = str(REPOSITORY / "config" / "fastdds.xml")
    assert run_python(PREPARE).stdout.strip() == str([profile, profile])
    mine = run_python(PREPARE, FASTRTPS_DEFAULT_PROFILES_FILE="/mine.xml")
    assert mine.stdout.strip() == str(["/mine.xml", None])


def test_without_rclpy_one_line_says_how_to_get_it():
    hidden = run_python(
        "import sys; sys.modules['rclpy'] = None\n"
        "from dwarf_ros.ros.distro import prepare_environment\n"
        "from dwarf_ros.types import InputError\n"
        "try: prepare_environment()\n"
        "except InputError as error: print(error)"
    )
    assert hidden.stdout.startswith("ROS 2: rclpy cannot be imported (")
    assert "pip install 'dwarf_ros[ros]'" in hidden.stdout
    assert hidden.stdout.count("\n") == 1
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("home", [None, "/proc/1"])
def test_ros_logs_elsewhere_where_the_home_folder_cannot_be_written(home, monkeypatch, tmp_path):
    for name in ("ROS_LOG_DIR", "ROS_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    distro.prepare_environment()
    assert Path(os.environ["ROS_LOG_DIR"]).parent == tmp_path


@pytest.mark.parametrize("name", ["ROS_LOG_DIR", "ROS_HOME"])
def test_a_named_log_folder_is_used_or_refused(name, monkeypatch, tmp_path):
    monkeypatch.delenv("ROS_LOG_DIR", raising=False)
    monkeypatch.setenv(name, str(tmp_path / "logs"))
    distro.prepare_environment()
    assert (tmp_path / "logs").is_dir()
    monkeypatch.setenv(name, "/proc/1/logs")
    with pytest.raises(InputError, match=f"^{name}: /proc/1/logs cannot be written"):
        distro.prepare_environment()
