"""ROS messages to arrays and back, with the conventions of REP-103, 104, 117 and 118.

Headers carry the reference frame's stamp and the left camera's optical frame.
"""

from __future__ import annotations

import array
import functools
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Duration, Time
from geometry_msgs.msg import Point
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from stereo_msgs.msg import DisparityImage
from visualization_msgs.msg import Marker, MarkerArray

from dwarf_ros.geometry import (
    depth_from_disparity,
    least_parallax,
    position_and_velocity_planes,
)
from dwarf_ros.recordings.camera_messages import camera_info_fields
from dwarf_ros.recordings.scene_flow_messages import OPTIONAL_MAPS, ego_motion_fields
from dwarf_ros.ros import distro
from dwarf_ros.types import MOVING, InputError, SceneFlow, StereoCamera
from dwarf_ros.visualization.colors import disparity_color, disparity_scale, flow_color

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
# Rows computed at a time, so that intermediate results stay in the processor's cache.
_BLOCK_ROWS = 24

# A line of scene_flow_markers is the displacement in this time; it disappears after this time without a new one.
MARKER_TIME_S = 0.2
MARKER_LIFETIME_S = 1.0
# Speed at the end of the color scale, m/s.
MARKER_MAX_SPEED = 20.0
DEFAULT_MARKER_SPACING_PX = 24


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
        InputError: the array is no image, or does not match the encoding.
    """
    channels = image.shape[2] if image.ndim == 3 else 1
    layout = (image.dtype.name, channels)
    if image.ndim not in (2, 3) or (encoding is None and layout not in _DEFAULT_ENCODINGS):
        raise InputError(
            f"image: array is {image.dtype} {image.shape}, expected grey or RGB pixels, or floats"
        )
    try:
        return distro.bridge().cv2_to_imgmsg(
            image, encoding or _DEFAULT_ENCODINGS[layout], header_of(stamp_ns, frame_id)
        )
    except TypeError as error:
        raise InputError(f"image: {error}") from None


def camera_info_messages(
    camera: StereoCamera, stamp_ns: int, frame_id: str
) -> tuple[CameraInfo, CameraInfo]:
    """Left and right CameraInfo of a rectified pair without distortion; both carry the left camera's frame (REP-104)."""
    left, right = (
        CameraInfo(header=header_of(stamp_ns, frame_id), **vars(fields))
        for fields in camera_info_fields(camera)
    )
    return left, right


def camera_info_message(scene_flow: SceneFlow) -> CameraInfo:
    """CameraInfo of the left image and the depth, with the size, stamp and frame_id of the scene flow.

    Raises:
        InputError: the scene flow has no camera.
    """
    camera = _camera_of(scene_flow)
    return camera_info_messages(camera, scene_flow.stamp, scene_flow.frame_id)[0]


def disparity_message(
    scene_flow: SceneFlow, min_disparity: float = DEFAULT_MIN_DISPARITY
) -> DisparityImage:
    """Disparity of the reference frame, px, with the numbers for depth: Z = f * T / d.

    The image holds x_left - x_right - (cx_left - cx_right); -1 where unknown or below min_disparity, because viewers cast
    to integers.

    Args:
        scene_flow: with a camera.
        min_disparity: smaller ones are unknown, px, > 0.

    Raises:
        InputError: the scene flow has no camera, or min_disparity is not positive.
    """
    camera = _camera_of(scene_flow)
    if not min_disparity > 0:
        raise InputError(f"min_disparity: {min_disparity:g} px, expected > 0 px")
    disparity = scene_flow.disparity - np.float32(camera.cx - camera.cx_right)
    disparity = np.where(
        disparity >= np.float32(min_disparity), disparity, np.float32(INVALID_DISPARITY)
    )
    # Whole steps of 16 px keep viewers, which scale their colors by it, from flickering.
    largest = max(float(disparity.max(initial=0.0)), min_disparity)
    message = DisparityImage(
        header=header_of(scene_flow.stamp, scene_flow.frame_id),
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


def disparity_color_message(scene_flow: SceneFlow) -> Image:
    """Disparity on a color map, rgb8, for viewers that do not show DisparityImage; black where unknown."""
    # Whole steps of 16 px keep the colors from flickering.
    brightest = 16.0 * (disparity_scale(scene_flow.disparity) // 16.0 + 1.0)
    picture = disparity_color(scene_flow.disparity, brightest)
    return image_message(picture, scene_flow.stamp, scene_flow.frame_id, "rgb8")


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
    nearest = least_parallax(camera, max_depth_m, min_disparity)
    depth = np.empty_like(scene_flow.disparity)
    for rows in _row_blocks(len(depth)):
        depth_from_disparity(scene_flow.disparity[rows], camera, nearest, out=depth[rows])
    return image_message(depth, scene_flow.stamp, scene_flow.frame_id)


def _row_blocks(height: int) -> Iterator[slice]:
    return (slice(row, row + _BLOCK_ROWS) for row in range(0, height, _BLOCK_ROWS))


def flow_message(scene_flow: SceneFlow) -> Image:
    """Optical flow (u, v) from the reference to the other frame, px, 32FC2; NaN where unknown."""
    return image_message(scene_flow.flow, scene_flow.stamp, scene_flow.frame_id)


def flow_color_message(scene_flow: SceneFlow) -> Image:
    """Optical flow on the color wheel, rgb8; always the motion forward in time, whichever frame is the reference."""
    flow = -scene_flow.flow if scene_flow.dt < 0 else scene_flow.flow
    return image_message(flow_color(flow), scene_flow.stamp, scene_flow.frame_id, "rgb8")


def cloud_message(
    scene_flow: SceneFlow,
    left: np.ndarray,
    max_depth_m: float = np.inf,
    min_disparity: float = DEFAULT_MIN_DISPARITY,
    over_ground: bool = False,
) -> PointCloud2:
    """Organized cloud of the reference frame with a velocity at each point.

    Fields x, y, z in m and vx, vy, vz in m/s, float32, left camera's optical frame, forward in time; rgb packed as
    0x00RRGGBB into a float32. NaN where unknown (REP-117), so is_dense is false.

    Args:
        scene_flow: with a camera and dt != 0.
        left: the reference frame's left image, uint8 RGB, H x W x 3.
        max_depth_m: farther points are unknown, m.
        min_disparity: points of smaller disparity are unknown, px.
        over_ground: velocities against the static scene, where ego-motion is known, instead of the camera.

    Raises:
        InputError: the scene flow has no camera, or dt is 0 s.
    """
    height, width = scene_flow.disparity.shape
    point_step = 4 * len(_CLOUD_FIELDS)
    # Points are written to the message's own memory, because copying 13 MB at 1242 x 375 px is slow.
    data = array.array("B", (0,)) * (height * width * point_step)
    cells = np.frombuffer(data, np.float32).reshape(height, width, len(_CLOUD_FIELDS))
    for rows in _row_blocks(height):
        position, velocity = position_and_velocity_planes(
            scene_flow, rows, slice(None), max_depth_m, min_disparity, over_ground
        )
        # The bytes of 0xAARRGGBB, lowest first, are blue, green, red, alpha.
        color = cv2.cvtColor(left[rows], cv2.COLOR_RGB2BGRA).view("<u4")[..., 0]
        color &= np.uint32(0x00FFFFFF)
        packed = color.astype(np.uint32, copy=False).view(np.float32)
        cv2.merge([*position, packed, *velocity], cells[rows])
    cloud = PointCloud2(
        header=header_of(scene_flow.stamp, scene_flow.frame_id),
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(_CLOUD_FIELDS)
        ],
        is_bigendian=sys.byteorder == "big",
        point_step=point_step,
        row_step=point_step * width,
        is_dense=False,
    )
    # Not in the constructor, which copies byte by byte.
    cloud.data = data
    return cloud


def markers_message(
    scene_flow: SceneFlow,
    spacing_px: int = DEFAULT_MARKER_SPACING_PX,
    max_depth_m: float = np.inf,
    min_disparity: float = DEFAULT_MIN_DISPARITY,
    over_ground: bool = False,
) -> MarkerArray:
    """One LINE_LIST marker: from every spacing_px-th pixel's point a line along its motion, colored by its speed.

    A line is the displacement in `MARKER_TIME_S`, forward in time, in the left camera's optical frame, m; blue is slow, red is `MARKER_MAX_SPEED` m/s or more. It lives `MARKER_LIFETIME_S`; without any line the marker
    is deleted.

    Args:
        scene_flow: with a camera and dt != 0.
        spacing_px: distance between the pixels that have a line, px, >= 1.
        max_depth_m: farther points are unknown, m.
        min_disparity: points of smaller disparity are unknown, px.
        over_ground: displacements against the static scene, where ego-motion is known, instead of the camera: only
            moving pixels have a line.

    Raises:
        InputError: the scene flow has no camera, or dt is 0 s.
    """
    rows, columns = (
        slice(min(spacing_px, size) // 2, None, spacing_px) for size in scene_flow.disparity.shape
    )
    position, velocity = position_and_velocity_planes(
        scene_flow, rows, columns, max_depth_m, min_disparity, over_ground
    )
    known = np.isfinite(velocity[2])
    if over_ground and scene_flow.motion_mask is not None:
        known &= scene_flow.motion_mask[rows, columns] == MOVING
    start = np.stack([axis[known] for axis in position], axis=-1).astype(np.float64)
    velocities = np.stack([axis[known] for axis in velocity], axis=-1)
    ends = np.stack([start, start + MARKER_TIME_S * velocities], axis=1).reshape(-1, 3)
    palette = _marker_colors()
    level = np.linalg.norm(velocities, axis=-1) * ((len(palette) - 1) / MARKER_MAX_SPEED)
    level = np.minimum(level, len(palette) - 1).astype(int).repeat(2)
    marker = Marker(
        header=header_of(scene_flow.stamp, scene_flow.frame_id),
        ns="scene_flow",
        type=Marker.LINE_LIST,
        action=Marker.ADD if len(ends) else Marker.DELETE,
        points=[Point(x=x, y=y, z=z) for x, y, z in ends.tolist()],
        colors=[palette[i] for i in level.tolist()],
        lifetime=Duration(sec=int(MARKER_LIFETIME_S)),
    )
    marker.pose.orientation.w = 1.0
    marker.scale.x = 0.03
    return MarkerArray(markers=[marker])


@functools.cache
def _marker_colors() -> list[ColorRGBA]:
    levels = np.linspace(0, 255, 64).astype(np.uint8)
    colors = cv2.applyColorMap(levels[None], cv2.COLORMAP_TURBO)[0, :, ::-1] / 255.0
    return [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in colors.tolist()]


def own_message_type(name: str) -> Any:
    """A message class of dwarf_ros.msg, for example SceneFlow.

    Raises:
        InputError: the package's messages were not built.
    """
    try:
        return getattr(importlib.import_module("dwarf_ros.msg"), name)
    except (ImportError, AttributeError):
        raise InputError(
            f"dwarf_ros.msg: the {name} message is not built, expected `colcon build` or "
            "`pip install --no-build-isolation .` of this package, which build it"
        ) from None


def scene_flow_message(scene_flow: SceneFlow, estimator: str = "") -> Any:
    """A dwarf_ros/SceneFlow of a whole estimate; NaN where unknown, and 0 for all numbers of an unknown camera.

    Args:
        scene_flow: with or without a camera.
        estimator: its name.

    Raises:
        InputError: the message was not built.
    """
    message = own_message_type("SceneFlow")(
        header=header_of(scene_flow.stamp, scene_flow.frame_id), estimator=estimator
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
    for name, encoding in OPTIONAL_MAPS.items():
        values = getattr(scene_flow, name)
        if values is not None:
            image = image_message(values, scene_flow.stamp, scene_flow.frame_id, encoding)
            setattr(message, name, image)
    for name, value in ego_motion_fields(scene_flow.ego_motion).items():
        setattr(message, name, value)
    return message


def _camera_of(scene_flow: SceneFlow) -> StereoCamera:
    if scene_flow.camera is None:
        raise InputError("scene flow: no camera, expected a calibration to compute depth")
    return scene_flow.camera


def header_of(stamp_ns: int, frame_id: str) -> Header:
    """Header of a stamp, ns, and a frame."""
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)
