"""ROS messages of the camera's own motion, of moving objects, and of what is static and what moves."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovariance,
    Quaternion,
    TransformStamped,
    TwistWithCovariance,
    Vector3,
)
from nav_msgs.msg import Odometry
from sensor_msgs.msg import Image, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from dwarf_ros.geometry import position_and_velocity_planes
from dwarf_ros.recordings.bag.transforms import quaternion_of
from dwarf_ros.ros import distro
from dwarf_ros.ros.messages import (
    DEFAULT_MIN_DISPARITY,
    MARKER_LIFETIME_S,
    header_of,
    image_message,
    own_message_type,
)
from dwarf_ros.ros.odometry import Pose as CameraPose
from dwarf_ros.types import MOVING, STATIC, UNKNOWN, InputError, MovingObject, SceneFlow

_log = logging.getLogger(__name__)

# Displacement that an object's arrow shows, s.
ARROW_TIME_S = 0.5

# A depth that shrinks more slowly than this, m/s, leads to no collision.
_SLOWEST_APPROACH = 0.1


def motion_mask_message(scene_flow: SceneFlow) -> Image:
    """Static or moving, mono8: 0 static, 255 moving, 127 unknown, which is everywhere without ego-motion."""
    mask = scene_flow.motion_mask
    if mask is None:
        mask = np.full(scene_flow.disparity.shape, UNKNOWN, np.uint8)
    return image_message(mask, scene_flow.stamp, scene_flow.frame_id, "mono8")


def confidence_message(scene_flow: SceneFlow) -> Image:
    """Confidence of the estimate, 32FC1, 0 to 1; where it was not computed, 1 where valid, else 0."""
    confidence = scene_flow.confidence
    if confidence is None:
        confidence = scene_flow.valid.astype(np.float32)
    return image_message(confidence, scene_flow.stamp, scene_flow.frame_id, "32FC1")


def time_to_collision_message(scene_flow: SceneFlow) -> Image:
    """Time until each point reaches the camera's plane at its present relative speed, s, 32FC1.

    Infinity where a point does not come nearer, NaN where the scene flow is not valid.

    Raises:
        InputError: the scene flow has no camera, or dt is 0 s.
    """
    whole = slice(None)
    position, velocity = position_and_velocity_planes(scene_flow, whole, whole)
    approach = -velocity[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        seconds = np.where(approach > _SLOWEST_APPROACH, position[2] / approach, np.float32(np.inf))
    seconds[np.isnan(approach)] = np.nan
    return image_message(
        seconds.astype(np.float32, copy=False), scene_flow.stamp, scene_flow.frame_id, "32FC1"
    )


def moving_points_message(
    scene_flow: SceneFlow,
    max_depth_m: float = np.inf,
    min_disparity: float = DEFAULT_MIN_DISPARITY,
) -> PointCloud2:
    """Unorganized cloud of the moving points: x, y, z in m, and vx, vy, vz over ground in m/s, float32.

    Raises:
        InputError: the scene flow has no camera, or dt is 0 s.
    """
    return _points(scene_flow, MOVING, max_depth_m, min_disparity)


def static_points_message(
    scene_flow: SceneFlow,
    max_depth_m: float = np.inf,
    min_disparity: float = DEFAULT_MIN_DISPARITY,
) -> PointCloud2:
    """Unorganized cloud of the static points: x, y, z in m, float32.

    Raises:
        InputError: the scene flow has no camera, or dt is 0 s.
    """
    return _points(scene_flow, STATIC, max_depth_m, min_disparity)


def _points(
    scene_flow: SceneFlow, kind: int, max_depth_m: float, min_disparity: float
) -> PointCloud2:
    whole = slice(None)
    position, velocity = position_and_velocity_planes(
        scene_flow, whole, whole, max_depth_m, min_disparity, over_ground=True
    )
    names, planes = ["x", "y", "z"], position
    if kind == MOVING:
        names, planes = [*names, "vx", "vy", "vz"], [*position, *velocity]
    chosen = np.isfinite(position[2]) & (
        np.zeros_like(position[2], bool)
        if scene_flow.motion_mask is None
        else scene_flow.motion_mask == kind
    )
    fields = [
        PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
        for i, name in enumerate(names)
    ]
    points = np.stack([plane[chosen] for plane in planes], axis=-1).astype(np.float32, copy=False)
    header = header_of(scene_flow.stamp, scene_flow.frame_id)
    return distro.create_cloud()(header, fields, points)


def odometry_message(pose: CameraPose, scene_flow: SceneFlow, odom_frame: str = "odom") -> Odometry:
    """The left camera in the frame odom, where it was first seen at the origin (REP-105).

    The pose is of the optical frame; odom's axes are those that a vehicle's would have, x forward and z up. The twist is
    along the axes of the optical frame, `child_frame_id`.
    """
    return Odometry(
        header=header_of(scene_flow.stamp, odom_frame),
        child_frame_id=scene_flow.frame_id,
        pose=PoseWithCovariance(
            pose=_pose(pose.pose), covariance=pose.pose_covariance.ravel().tolist()
        ),
        twist=_twist(pose.twist, pose.twist_covariance),
    )


def transform_message(pose: CameraPose, scene_flow: SceneFlow, odom_frame: str = "odom") -> Any:
    """tf2_msgs/TFMessage from odom to the left camera's optical frame.

    Raises:
        InputError: tf2_msgs is not installed.
    """
    transform = TransformStamped(
        header=header_of(scene_flow.stamp, odom_frame), child_frame_id=scene_flow.frame_id
    )
    at = _pose(pose.pose)
    transform.transform.rotation = at.orientation
    for axis in "xyz":
        setattr(transform.transform.translation, axis, getattr(at.position, axis))
    return tf_message_type()(transforms=[transform])


def tf_message_type() -> Any:
    """The class tf2_msgs/TFMessage.

    Raises:
        InputError: tf2_msgs is not installed.
    """
    try:
        return importlib.import_module("tf2_msgs.msg").TFMessage
    except ImportError:
        raise InputError("publish_tf: tf2_msgs is not installed, expected ROS 2 from apt") from None


def moving_objects_message(scene_flow: SceneFlow, objects: Sequence[MovingObject]) -> Any:
    """dwarf_ros/MovingObjectArray of the tracked objects.

    Raises:
        InputError: the message was not built.
    """
    array = own_message_type("MovingObjectArray")(
        header=header_of(scene_flow.stamp, scene_flow.frame_id)
    )
    array.objects = [_object_message(item) for item in objects]
    return array


def _object_message(item: MovingObject) -> Any:
    position, velocity = np.zeros((6, 6)), np.zeros((6, 6))
    position[:3, :3], velocity[:3, :3] = item.position_covariance, item.velocity_covariance
    x, y, width, height = item.box or (0, 0, 0, 0)
    return own_message_type("MovingObject")(
        id=item.id,
        pose=PoseWithCovariance(pose=_pose(item.pose), covariance=position.ravel().tolist()),
        size=_vector(item.size),
        velocity=_twist(np.concatenate([item.velocity, np.zeros(3)]), velocity),
        time_to_collision=item.time_to_collision,
        box=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
    )


def object_markers_message(scene_flow: SceneFlow, objects: Sequence[MovingObject]) -> MarkerArray:
    """A box, an arrow over ground and a text with id and speed for each object; everything older is deleted.

    An arrow is the displacement in `ARROW_TIME_S`.
    """
    header = header_of(scene_flow.stamp, scene_flow.frame_id)
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in objects:
        color = _colors()[item.id % len(_colors())]
        shared = {
            "header": header,
            "id": item.id,
            "action": Marker.ADD,
            "lifetime": Duration(sec=int(MARKER_LIFETIME_S)),
        }
        box = Marker(ns="box", type=Marker.CUBE, pose=_pose(item.pose), **shared)
        box.scale = _vector(np.maximum(item.size, 0.1))
        box.color = ColorRGBA(r=color.r, g=color.g, b=color.b, a=0.4)
        arrow = Marker(ns="velocity", type=Marker.ARROW, color=color, **shared)
        arrow.pose.orientation.w = 1.0
        arrow.points = [
            _point(item.position),
            _point(item.position + ARROW_TIME_S * item.velocity),
        ]
        arrow.scale.x, arrow.scale.y = 0.1, 0.25
        text = Marker(ns="text", type=Marker.TEXT_VIEW_FACING, color=color, **shared)
        text.pose = _pose(item.pose)
        # y points down.
        text.pose.position.y -= float(item.size[1]) / 2 + 0.4
        text.scale.z = 0.5
        text.text = f"{item.id}: {item.speed:.1f} m/s"
        markers += [box, arrow, text]
    return MarkerArray(markers=markers)


@functools.cache
def _colors() -> list[ColorRGBA]:
    rgb = ((0.9, 0.3, 0.1), (0.1, 0.6, 0.9), (0.2, 0.8, 0.2), (0.9, 0.7, 0.1), (0.8, 0.3, 0.8))
    return [ColorRGBA(r=r, g=g, b=b, a=1.0) for r, g, b in rgb]


def _pose(pose: np.ndarray) -> Pose:
    x, y, z, w = quaternion_of(pose[:3, :3]).tolist()
    return Pose(position=_point(pose[:3, 3]), orientation=Quaternion(x=x, y=y, z=z, w=w))


def _twist(twist: np.ndarray, covariance: np.ndarray) -> TwistWithCovariance:
    message = TwistWithCovariance(covariance=covariance.ravel().tolist())
    message.twist.linear, message.twist.angular = _vector(twist[:3]), _vector(twist[3:])
    return message


def _point(values: np.ndarray) -> Point:
    x, y, z = (float(value) for value in values)
    return Point(x=x, y=y, z=z)


def _vector(values: np.ndarray) -> Vector3:
    x, y, z = (float(value) for value in values)
    return Vector3(x=x, y=y, z=z)
