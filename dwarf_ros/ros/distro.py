"""Differences between ROS 2 from apt and from PyPI.

PyPI lacks cv_bridge, message_filters and sensor_msgs_py. Where they are missing or do not work, stand-ins with the same API replace them, no
larger than this package's use.
"""

from __future__ import annotations

import array
import functools
import importlib
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.share import share_directory
from dwarf_ros.types import InputError

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

_log = logging.getLogger(__name__)


def prepare_environment() -> None:
    """Prepare this process for `rclpy.init`; call it first in every command that uses ROS.

    Fast DDS gets a profile in which images fit into shared memory (config/fastdds.xml), unless the environment names one
    (`PROFILE_VARIABLES`). Where the home folder is missing or cannot be written, as in a container or a systemd unit, ROS
    logs to a temporary folder, unless ROS_LOG_DIR or ROS_HOME names one.

    Raises:
        InputError: rclpy cannot be imported, the package's own files are not installed, or the named log folder cannot be
            written.
    """
    _choose_log_folder()
    if not any(os.environ.get(name) for name in PROFILE_VARIABLES):
        try:
            profile = share_directory() / "config" / "fastdds.xml"
        except FileNotFoundError as error:
            raise InputError(str(error)) from None
        for name in PROFILE_VARIABLES:
            os.environ[name] = str(profile)
    try:
        importlib.import_module("rclpy")
    except ImportError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"ROS 2: rclpy cannot be imported ({reason}), expected a sourced ROS 2 "
            "(source /opt/ros/$ROS_DISTRO/setup.bash) or its wheels (pip install 'dwarf_ros[ros]')"
        ) from None


def _choose_log_folder() -> None:
    """Where rcl's own choice (rcl_logging_interface) cannot be written, rclpy.init fails without naming the reason."""
    named = next((name for name in ("ROS_LOG_DIR", "ROS_HOME") if os.environ.get(name)), None)
    home = os.environ.get("HOME", "")
    folder = Path(os.environ[named] if named else Path(home, ".ros", "log"))
    try:
        if not named and not home:
            raise OSError("HOME is not set")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if named:
            raise InputError(
                f"{named}: {folder} cannot be written ({error.strerror or error}), expected a folder for logs"
            ) from None
        os.environ["ROS_LOG_DIR"] = tempfile.mkdtemp(prefix="dwarf_ros_log_")
        _log.info("ROS logs to %s: the home folder cannot be written", os.environ["ROS_LOG_DIR"])


class CvBridgeError(TypeError):
    """The stand-in for cv_bridge cannot convert a message or an array."""


class CvBridge:
    """Stand-in for cv_bridge.CvBridge: images to arrays and back, without color conversion."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> np.ndarray:
        """Pixels of an Image message, H x W [x C], in the message's own encoding and this machine's byte order.

        Raises:
            CvBridgeError: an encoding that is unknown, or any but "passthrough" desired.
            TypeError: less data than height and step require.
        """
        if desired_encoding != "passthrough":
            raise CvBridgeError(f"encoding {desired_encoding!r} desired, expected 'passthrough'")
        dtype, channels = _pixel_layout(img_msg.encoding)
        wire = dtype.newbyteorder(">" if img_msg.is_bigendian else "<")
        shape: tuple[int, ...] = (img_msg.height, img_msg.width)
        strides: tuple[int, ...] = (img_msg.step, dtype.itemsize * channels)
        if channels > 1:
            shape, strides = (*shape, channels), (*strides, dtype.itemsize)
        pixels = np.ndarray(shape, wire, buffer=img_msg.data, strides=strides)
        return np.ascontiguousarray(pixels.astype(dtype, copy=False))

    def cv2_to_imgmsg(
        self, cvim: np.ndarray, encoding: str = "passthrough", header: Any = None
    ) -> Any:
        """Image message of an array, H x W [x C].

        Raises:
            CvBridgeError: the encoding is unknown or does not match the array.
        """
        from sensor_msgs.msg import Image

        channels = cvim.shape[2] if cvim.ndim == 3 else 1
        own = f"{_DEPTH_NAMES.get(cvim.dtype.name, cvim.dtype.name)}C{channels}"
        if encoding == "passthrough":
            encoding = own
        if _pixel_layout(encoding) != (cvim.dtype, channels):
            raise CvBridgeError(f"encoding {encoding!r} given for an image of type {own}")
        message = Image(height=cvim.shape[0], width=cvim.shape[1], encoding=encoding)
        if header is not None:
            message.header = header
        message.is_bigendian = int(sys.byteorder == "big")
        message.step = cvim.shape[1] * channels * cvim.dtype.itemsize
        data = array.array("B")
        data.frombytes(np.ascontiguousarray(cvim).reshape(-1).view(np.uint8).data)
        message.data = data
        return message


_DEPTH_NAMES = {
    "uint8": "8U",
    "int8": "8S",
    "uint16": "16U",
    "int16": "16S",
    "int32": "32S",
    "float32": "32F",
    "float64": "64F",
}
_NAMED_ENCODINGS = {
    "mono8": ("uint8", 1),
    "mono16": ("uint16", 1),
    **{f"{order}8": ("uint8", len(order)) for order in ("rgb", "bgr", "rgba", "bgra")},
    **{f"{order}16": ("uint16", len(order)) for order in ("rgb", "bgr", "rgba", "bgra")},
    **{f"bayer_{tile}8": ("uint8", 1) for tile in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{tile}16": ("uint16", 1) for tile in ("rggb", "bggr", "gbrg", "grbg")},
}
_TYPE_ENCODINGS = {
    f"{depth}C{channels}": (name, channels)
    for name, depth in _DEPTH_NAMES.items()
    for channels in (1, 2, 3, 4)
}


def _pixel_layout(encoding: str) -> tuple[np.dtype, int]:
    """Dtype and number of channels of an encoding of sensor_msgs/image_encodings.hpp."""
    layout = _NAMED_ENCODINGS.get(encoding) or _TYPE_ENCODINGS.get(encoding)
    if layout is None:
        raise CvBridgeError(f"encoding {encoding!r} is unknown")
    return np.dtype(layout[0]), layout[1]


class Subscriber:
    """Stand-in for message_filters.Subscriber: a subscription with any number of callbacks."""

    def __init__(self, node: Any, msg_type: Any, topic: str, **kwargs: Any) -> None:
        """Subscribe as `rclpy.node.Node.create_subscription` would with the same arguments."""
        self.node = node
        self.topic = topic
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        kwargs.setdefault("qos_profile", 10)
        self.sub = node.create_subscription(msg_type, topic, self.callback, **kwargs)

    def registerCallback(self, cb: Callable[..., Any], *args: Any) -> int:
        """Call `cb(message, *args)` for every message."""
        self.callbacks[len(self.callbacks)] = (cb, args)
        return len(self.callbacks) - 1

    def callback(self, msg: Any) -> None:
        """Pass a message to every callback."""
        for cb, args in self.callbacks.values():
            cb(msg, *args)


@functools.cache
def bridge() -> Any:
    """cv_bridge's CvBridge if it is installed and works with this NumPy and OpenCV, else the stand-in."""
    try:
        candidate = importlib.import_module("cv_bridge").CvBridge()
        _try_bridge(candidate)
    except ModuleNotFoundError:
        return CvBridge()
    except Exception as error:  # a build against another NumPy or OpenCV fails in many ways
        _log.info("cv_bridge is installed but does not work here (%s)", error)
        return CvBridge()
    return candidate


def _try_bridge(candidate: Any) -> None:
    """Raise if a bridge has one of the faults of released cv_bridges with NumPy 2 and OpenCV 5."""
    from sensor_msgs.msg import Image

    color = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    if (candidate.imgmsg_to_cv2(candidate.cv2_to_imgmsg(color, "bgr8")) != color).any():
        raise ValueError("a bgr8 image is not preserved")
    big_endian = Image(height=1, width=2, encoding="mono16", is_bigendian=1, step=4)
    big_endian.data = array.array("B", [1, 2, 3, 4])
    if candidate.imgmsg_to_cv2(big_endian).tolist() != [[0x0102, 0x0304]]:
        raise ValueError("a big-endian image is not preserved")


def subscriber_class() -> type[Any]:
    """`message_filters.Subscriber`, else the stand-in."""
    try:
        return importlib.import_module("message_filters").Subscriber
    except ModuleNotFoundError:
        return Subscriber


def create_cloud() -> Callable[[Any, list[Any], np.ndarray], Any]:
    """`sensor_msgs_py.point_cloud2.create_cloud`, else the stand-in."""
    try:
        return importlib.import_module("sensor_msgs_py.point_cloud2").create_cloud
    except ModuleNotFoundError:
        return unorganized_cloud


def unorganized_cloud(header: Any, fields: list[Any], points: np.ndarray) -> Any:
    """Stand-in for sensor_msgs_py.point_cloud2.create_cloud: a cloud of one row.

    Args:
        header: of the message.
        fields: float32, one after the other.
        points: float32, N x the number of fields.
    """
    from sensor_msgs.msg import PointCloud2

    step = 4 * len(fields)
    cloud = PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=sys.byteorder == "big",
        point_step=step,
        row_step=step * len(points),
        is_dense=False,
    )
    # Not in the constructor, which copies byte by byte.
    cloud.data = array.array("B", np.ascontiguousarray(points, np.float32).tobytes())
    return cloud
