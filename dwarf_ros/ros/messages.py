"""ROS messages to arrays and back, with the conventions of REP-103, 104, 117 and 118.

Headers of all that is published carry the reference frame's stamp and the left camera's optical frame.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header
from stereo_msgs.msg import DisparityImage

from dwarf_ros import geometry, visualization
from dwarf_ros.camera_messages import IMAGE_ENCODINGS as IMAGE_ENCODINGS
from dwarf_ros.camera_messages import camera_from_messages as camera_from_messages
from dwarf_ros.camera_messages import camera_info_fields
from dwarf_ros.camera_messages import image_from_message as image_from_message
from dwarf_ros.ros import distro
from dwarf_ros.types import InputError, SceneFlow, StereoCamera

INVALID_DISPARITY = -1.0
DEFAULT_MIN_DISPARITY = 0.5
# Semi-global matching resolves sixteenths of a pixel; the network's steps are finer.
_DISPARITY_STEP = 1.0 / 16.0

_DEFAULT_ENCODINGS = {
    ("uint8", 1): "mono8",
    ("uint8", 3): "rgb8",
    ("uint16", 1): "mono16",
    ("float32", 1): "32FC1",
    ("float32", 2): "32FC2",
}

_CLOUD_FIELDS = ("x", "y", "z", "rgb", "vx", "vy", "vz")


def ns_from_stamp(msg_stamp: Time) -> int:
    """Time of a stamp, ns."""
    return msg_stamp.sec * 1_000_000_000 + msg_stamp.nanosec


def stamp_from_ns(ns: int) -> Time:
    """Stamp of a time, ns.

    Raises:
        InputError: the time does not fit into a stamp's 32-bit seconds.
    """
    seconds, nanoseconds = divmod(int(ns), 1_000_000_000)
    if not -(2**31) <= seconds < 2**31:
        raise InputError(f"stamp: {ns} ns, expected seconds that fit into 32 bits")
    return Time(sec=seconds, nanosec=nanoseconds)


def image_message(
    image: np.ndarray, stamp_ns: int, frame_id: str, encoding: str | None = None
) -> Image:
    """Image message of an array.

    Args:
        image: H x W or H x W x C.
        stamp_ns: time of exposure, ns.
        frame_id: the camera's optical frame.
        encoding: as in sensor_msgs/image_encodings.hpp; None: mono8, rgb8, mono16, 32FC1 or 32FC2 by dtype and shape.

    Raises:
        InputError: the array is no image, or not one of that encoding.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    layout = (image.dtype.name, channels)
    if image.ndim not in (2, 3) or (encoding is None and layout not in _DEFAULT_ENCODINGS):
        raise InputError(
            f"image: array is {image.dtype} {image.shape}, expected grey or RGB pixels, or floats"
        )
    try:
        return distro.bridge().cv2_to_imgmsg(
            image, encoding or _DEFAULT_ENCODINGS[layout], _header(stamp_ns, frame_id)
        )
    except TypeError as error:
        raise InputError(f"image: {error}") from None


def camera_info_messages(
    camera: StereoCamera, stamp_ns: int, frame_id: str
) -> tuple[CameraInfo, CameraInfo]:
    """Left and right CameraInfo of a rectified pair without distortion; both carry the left camera's frame (REP-104)."""
    left, right = (
        CameraInfo(header=_header(stamp_ns, frame_id), **vars(fields))
        for fields in camera_info_fields(camera)
    )
    return left, right


def disparity_message(
    scene_flow: SceneFlow, min_disparity: float = DEFAULT_MIN_DISPARITY
) -> DisparityImage:
    """Disparity of the reference frame, px, with what turns it into depth: Z = f * T / d.

    The image holds x_left - x_right - (cx_left - cx_right); -1 where unknown or below min_disparity, because viewers cast
    to integers.

    Args:
        scene_flow: with a camera.
        min_disparity: px, > 0; smaller ones are left out.

    Raises:
        InputError: the scene flow has no camera, or min_disparity is not positive.
    """
    camera = _camera_of(scene_flow)
    if not min_disparity > 0:
        raise InputError(f"min_disparity: {min_disparity:g} px, expected > 0 px")
    disparity = scene_flow.disparity - np.float32(camera.cx - camera.cx_right)
    known = disparity >= min_disparity
    disparity = np.where(known, disparity, np.float32(INVALID_DISPARITY))
    # Whole steps of 16 px keep viewers, which scale their colours by it, from flickering.
    largest = max(float(disparity.max(initial=0.0)), min_disparity)
    message = DisparityImage(
        header=_header(scene_flow.stamp, scene_flow.frame_id),
        image=image_message(disparity, scene_flow.stamp, scene_flow.frame_id),
        f=camera.fx,
        t=camera.baseline,
        min_disparity=float(min_disparity),
        max_disparity=16.0 * (largest // 16.0 + 1.0),
        delta_d=_DISPARITY_STEP,
    )
    message.valid_window.width = camera.width
    message.valid_window.height = camera.height
    return message


def depth_message(
    scene_flow: SceneFlow,
    max_depth_m: float = np.inf,
    min_disparity: float = DEFAULT_MIN_DISPARITY,
) -> Image:
    """Depth of the reference frame, m, 32FC1; NaN where unknown, beyond max_depth_m, or under min_disparity px (REP-118).

    Raises:
        InputError: the scene flow has no camera.
    """
    camera = _camera_of(scene_flow)
    depth = geometry.depth_from_disparity(scene_flow.disparity, camera)
    depth[~(depth <= _farthest(camera, max_depth_m, min_disparity))] = np.nan
    return image_message(depth, scene_flow.stamp, scene_flow.frame_id)


def _farthest(camera: StereoCamera, max_depth_m: float, min_disparity: float) -> float:
    return min(max_depth_m, camera.fx * camera.baseline / min_disparity)


def flow_message(scene_flow: SceneFlow) -> Image:
    """Optical flow (u, v) from the reference to the other frame, px, 32FC2; NaN where unknown."""
    return image_message(scene_flow.flow, scene_flow.stamp, scene_flow.frame_id)


def flow_color_message(scene_flow: SceneFlow) -> Image:
    """Optical flow on the colour wheel, rgb8; always the motion forward in time, whichever frame is the reference."""
    flow = -scene_flow.flow if scene_flow.dt < 0 else scene_flow.flow
    return image_message(
        visualization.flow_color(flow), scene_flow.stamp, scene_flow.frame_id, "rgb8"
    )


def cloud_message(
    scene_flow: SceneFlow,
    left: np.ndarray,
    max_depth_m: float = np.inf,
    min_disparity: float = DEFAULT_MIN_DISPARITY,
) -> PointCloud2:
    """Organised cloud of the reference frame with a velocity at each point.

    Fields x, y, z in m and vx, vy, vz in m/s, float32, left camera's optical frame, forward in time; rgb packed as
    0x00RRGGBB into a float32. NaN where unknown (REP-117), so is_dense is false.

    Args:
        scene_flow: with a camera and dt != 0.
        left: the reference frame's left image, uint8 RGB, H x W x 3.
        max_depth_m: farther points are left out, m.
        min_disparity: points of smaller disparity are left out, px.

    Raises:
        InputError: the scene flow has no camera, or dt is 0 s.
    """
    points, points_next = geometry.scene_flow_points(scene_flow)
    height, width = scene_flow.disparity.shape
    cells = np.empty((height, width, len(_CLOUD_FIELDS)), dtype=np.float32)
    cells[..., 0:3] = points
    packed = left.astype(np.uint32)
    cells[..., 4:7] = geometry.velocities_between(points, points_next, scene_flow.dt)
    farthest = _farthest(_camera_of(scene_flow), max_depth_m, min_disparity)
    cells[~(points[..., 2] <= farthest)] = np.nan
    cells[..., 3] = (packed[..., 0] << 16 | packed[..., 1] << 8 | packed[..., 2]).view(np.float32)

    cloud = distro.cloud_creator()(
        _header(scene_flow.stamp, scene_flow.frame_id),
        [
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(_CLOUD_FIELDS)
        ],
        cells.reshape(-1).view([(name, np.float32) for name in _CLOUD_FIELDS]),
    )
    # create_cloud takes an organised array's rows for its width; the points themselves are in the right order.
    cloud.height, cloud.width = height, width
    cloud.row_step = cloud.point_step * width
    return cloud


@functools.cache
def scene_flow_type() -> Any:
    """The message class dwarf_ros.msg.SceneFlow.

    Raises:
        InputError: the message was not built.
    """
    try:
        from dwarf_ros.msg import SceneFlow as SceneFlowMessage
    except ImportError:
        raise InputError(
            "dwarf_ros.msg: the SceneFlow message is not built, expected `colcon build` or "
            "`pip install --no-build-isolation .` of this package, which build it"
        ) from None
    return SceneFlowMessage


def scene_flow_message(scene_flow: SceneFlow, estimator: str = "") -> Any:
    """The whole answer as one dwarf_ros/SceneFlow: what `SceneFlow` holds, NaN where unknown, camera numbers 0 where unknown.

    Args:
        scene_flow: with or without a camera.
        estimator: name of what computed it.

    Raises:
        InputError: the message was not built.
    """
    message = scene_flow_type()(
        header=_header(scene_flow.stamp, scene_flow.frame_id), estimator=estimator
    )
    message.other_stamp = stamp_from_ns(scene_flow.other_stamp)
    for name in ("disparity", "disparity_next", "flow"):
        image = image_message(getattr(scene_flow, name), scene_flow.stamp, scene_flow.frame_id)
        setattr(message, name, image)
    valid = scene_flow.valid.astype(np.uint8) * np.uint8(255)
    message.valid = image_message(valid, scene_flow.stamp, scene_flow.frame_id)
    if scene_flow.camera is not None:
        for name in ("fx", "fy", "cx", "cy", "cx_right", "baseline"):
            setattr(message, name, float(getattr(scene_flow.camera, name)))
    return message


def scene_flow_from_message(msg: Any) -> SceneFlow:
    """Inverse of `scene_flow_message`.

    Raises:
        InputError: images of other encodings, or of sizes that differ, or camera numbers of no rectified pair.
    """
    layouts = {
        "disparity": ("32FC1", 4),
        "disparity_next": ("32FC1", 4),
        "flow": ("32FC2", 8),
        "valid": ("mono8", 1),
    }
    arrays = {}
    for name, (encoding, pixel_bytes) in layouts.items():
        image = getattr(msg, name)
        expected_bytes = image.width * image.height * pixel_bytes
        if (image.encoding, image.step, len(image.data)) != (
            encoding,
            image.width * pixel_bytes,
            expected_bytes,
        ):
            raise InputError(
                f"scene flow: {name} is {image.encoding[:40]!r} with row step {image.step} bytes and {len(image.data)} "
                f"bytes, expected {encoding!r} with {expected_bytes} bytes for {image.width} x {image.height} px"
            )
        arrays[name] = distro.bridge().imgmsg_to_cv2(image)
    camera = None
    if msg.fx != 0:
        camera = StereoCamera(
            fx=msg.fx,
            fy=msg.fy,
            cx=msg.cx,
            cy=msg.cy,
            cx_right=msg.cx_right,
            baseline=msg.baseline,
            width=msg.disparity.width,
            height=msg.disparity.height,
        )
    stamp = ns_from_stamp(msg.header.stamp)
    return SceneFlow(
        disparity=arrays["disparity"],
        disparity_next=arrays["disparity_next"],
        flow=arrays["flow"],
        valid=arrays["valid"] > 0,
        stamp=stamp,
        dt=(ns_from_stamp(msg.other_stamp) - stamp) * 1e-9,
        camera=camera,
        frame_id=msg.header.frame_id,
    )


def _camera_of(scene_flow: SceneFlow) -> StereoCamera:
    if scene_flow.camera is None:
        raise InputError("scene flow: no camera, expected a calibration to compute depth")
    return scene_flow.camera


def _header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)
