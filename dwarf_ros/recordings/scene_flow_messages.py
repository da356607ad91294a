"""What dwarf_ros/SceneFlow messages mean.

Any object with the fields of the message will do, whoever read it: rclpy from a topic, rosbags from a file.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dwarf_ros.share import share_directory
from dwarf_ros.types import EgoMotion, InputError, SceneFlow, StereoCamera

SCENE_FLOW_TYPE = "dwarf_ros/msg/SceneFlow"
OPTIONAL_MAPS = {
    "disparity_confidence": "32FC1",
    "flow_confidence": "32FC1",
    "motion_mask": "mono8",
}
"""Images that may be empty, with their encodings."""

CAMERA_FIELDS = ("fx", "fy", "cx", "cy", "cx_right", "baseline")


def scene_flow_definition() -> str:
    """The text of SceneFlow.msg.

    Raises:
        FileNotFoundError: the package is not installed whole.
    """
    return (share_directory() / "msg" / "SceneFlow.msg").read_text(encoding="utf-8")


def scene_flow_from_message(msg: Any, name: str = "scene flow") -> SceneFlow:
    """Scene flow of a dwarf_ros/SceneFlow message.

    Args:
        msg: the message.
        name: what an error calls it.

    Raises:
        InputError: an image has another encoding or size, or the numbers are no rectified camera's.
    """
    camera = None
    try:
        if msg.fx != 0:
            numbers = {field: getattr(msg, field) for field in CAMERA_FIELDS}
            camera = StereoCamera(**numbers, width=msg.disparity.width, height=msg.disparity.height)
        stamp = _nanoseconds(msg.header.stamp)
        return SceneFlow(
            disparity=_map(msg.disparity, "disparity", "32FC1"),
            disparity_next=_map(msg.disparity_next, "disparity_next", "32FC1"),
            flow=_map(msg.flow, "flow", "32FC2"),
            valid=_map(msg.valid, "valid", "mono8") > 0,
            stamp=stamp,
            dt=(_nanoseconds(msg.other_stamp) - stamp) * 1e-9,
            camera=camera,
            frame_id=msg.header.frame_id,
            ego_motion=_ego_motion(msg),
            **{
                field: _map(getattr(msg, field), field, encoding)
                for field, encoding in OPTIONAL_MAPS.items()
                if getattr(msg, field).width
            },
        )
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def ego_motion_fields(ego_motion: EgoMotion | None) -> dict[str, Any]:
    """The fields of the message about ego-motion."""
    fields: dict[str, Any] = {
        "ego_motion": np.zeros(0),
        "ego_motion_covariance": np.zeros(0),
        "static_fraction": 0.0,
        "no_ego_motion": "",
    }
    if ego_motion is None:
        return fields
    if ego_motion.transform is None or ego_motion.covariance is None:
        return fields | {"no_ego_motion": ego_motion.reason or ""}
    return fields | {
        "ego_motion": ego_motion.transform.ravel(),
        "ego_motion_covariance": ego_motion.covariance.ravel(),
        "static_fraction": float(ego_motion.static_fraction),
    }


def _ego_motion(msg: Any) -> EgoMotion | None:
    if not len(msg.ego_motion):
        return EgoMotion(reason=msg.no_ego_motion) if msg.no_ego_motion else None
    sizes = len(msg.ego_motion), len(msg.ego_motion_covariance)
    if sizes != (16, 36):
        raise InputError(
            f"ego_motion and its covariance have {sizes[0]} and {sizes[1]} numbers, expected 16 and 36"
        )
    return EgoMotion(
        np.array(msg.ego_motion).reshape(4, 4),
        np.array(msg.ego_motion_covariance).reshape(6, 6),
        msg.static_fraction,
    )


def _nanoseconds(stamp: Any) -> int:
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def _map(image: Any, name: str, encoding: str) -> np.ndarray:
    """A copy of an image's values in this machine's byte order."""
    dtype = np.dtype(np.uint8 if encoding == "mono8" else np.float32)
    channels = 2 if encoding == "32FC2" else 1
    row_bytes = image.width * channels * dtype.itemsize
    expected = (encoding, row_bytes, image.height * row_bytes)
    if (image.encoding, image.step, len(image.data)) != expected:
        raise InputError(
            f"{name} is {image.encoding[:40]!r} with row step {image.step} bytes and {len(image.data)} bytes, "
            f"expected {encoding!r} with {expected[2]} bytes for {image.width} x {image.height} px"
        )
    values = np.frombuffer(image.data, dtype.newbyteorder(">" if image.is_bigendian else "<"))
    shape = (image.height, image.width, 2) if channels == 2 else (image.height, image.width)
    return values.astype(dtype).reshape(shape)
