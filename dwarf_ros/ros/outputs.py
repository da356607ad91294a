"""What the node publishes of an estimate, each topic only while somebody subscribes to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float64
from stereo_msgs.msg import DisparityImage
from visualization_msgs.msg import MarkerArray

from dwarf_ros.ros import messages, motion_messages
from dwarf_ros.ros.odometry import Pose
from dwarf_ros.ros.parameters import QOS_OVERRIDES
from dwarf_ros.types import InputError, MovingObject, SceneFlow

LATENCY_TOPIC = "debug/latency_ms"
TF_TOPIC = "/tf"


@dataclass(frozen=True, eq=False)
class Estimate:
    """What messages are made from.

    Attributes:
        scene_flow: of the pair, with a camera and the published frame_id.
        left: the reference frame's left image, uint8 RGB, H x W x 3.
        max_depth_m, min_disparity, marker_spacing_px, odom_frame: the node's parameters of these names.
        over_ground: whether velocities are those over ground, where ego-motion is known.
        objects: that move, tracked; empty unless a topic of `OBJECT_TOPICS` is wanted.
        pose: of the camera; None without ego-motion, or unless a topic of `POSE_TOPICS` is wanted.
        estimator: its name.
        arrived_s: when the last image of the pair arrived, monotonic clock, s.
    """

    scene_flow: SceneFlow
    left: np.ndarray
    max_depth_m: float
    min_disparity: float
    marker_spacing_px: int
    odom_frame: str
    over_ground: bool
    estimator: str
    arrived_s: float
    objects: Sequence[MovingObject] = ()
    pose: Pose | None = None


@dataclass(frozen=True)
class Output:
    """A topic's message type and how its message is made.

    Attributes:
        message_type: a message class, or the name of one of this package's own, which may not be built.
        encode: computed only while the topic has subscribers; None: nothing is published for this estimate.
    """

    message_type: Any
    encode: Callable[[Estimate], Any]


def _if_posed(encode: Callable[..., Any]) -> Callable[[Estimate], Any]:
    return lambda e: None if e.pose is None else encode(e.pose, e.scene_flow, e.odom_frame)


# To add a topic: its message in messages.py, a row here, and a row in the README's table of topics.
OUTPUTS = {
    "estimate": Output(
        "SceneFlow", lambda e: messages.scene_flow_message(e.scene_flow, e.estimator)
    ),
    "disparity": Output(
        DisparityImage, lambda e: messages.disparity_message(e.scene_flow, e.min_disparity)
    ),
    "disparity_color": Output(Image, lambda e: messages.disparity_color_message(e.scene_flow)),
    "depth": Output(
        Image, lambda e: messages.depth_message(e.scene_flow, e.max_depth_m, e.min_disparity)
    ),
    # As depth, for consumers such as depth_image_proc, which expect it beside the image.
    "camera_info": Output(CameraInfo, lambda e: messages.camera_info_message(e.scene_flow)),
    "flow": Output(Image, lambda e: messages.flow_message(e.scene_flow)),
    "flow_color": Output(Image, lambda e: messages.flow_color_message(e.scene_flow)),
    "scene_flow": Output(
        PointCloud2,
        lambda e: messages.cloud_message(
            e.scene_flow, e.left, e.max_depth_m, e.min_disparity, e.over_ground
        ),
    ),
    "scene_flow_markers": Output(
        MarkerArray,
        lambda e: messages.markers_message(
            e.scene_flow, e.marker_spacing_px, e.max_depth_m, e.min_disparity, e.over_ground
        ),
    ),
    "odometry": Output(Odometry, _if_posed(motion_messages.odometry_message)),
    "motion_mask": Output(Image, lambda e: motion_messages.motion_mask_message(e.scene_flow)),
    "moving_objects": Output(
        "MovingObjectArray",
        lambda e: motion_messages.moving_objects_message(e.scene_flow, e.objects),
    ),
    "moving_objects_markers": Output(
        MarkerArray, lambda e: motion_messages.object_markers_message(e.scene_flow, e.objects)
    ),
    "moving_points": Output(
        PointCloud2,
        lambda e: motion_messages.moving_points_message(
            e.scene_flow, e.max_depth_m, e.min_disparity
        ),
    ),
    "static_points": Output(
        PointCloud2,
        lambda e: motion_messages.static_points_message(
            e.scene_flow, e.max_depth_m, e.min_disparity
        ),
    ),
    "time_to_collision": Output(
        Image, lambda e: motion_messages.time_to_collision_message(e.scene_flow)
    ),
    "confidence": Output(Image, lambda e: motion_messages.confidence_message(e.scene_flow)),
    # Last, so that it includes the time to publish the others.
    LATENCY_TOPIC: Output(Float64, lambda e: Float64(data=(time.monotonic() - e.arrived_s) * 1e3)),
}


OBJECT_TOPICS = {"moving_objects", "moving_objects_markers"}
"""Topics that need tracked objects."""

POSE_TOPICS = {"odometry", TF_TOPIC}
"""Topics that need the camera's path."""


class Publishers:
    """The node's lifecycle publishers of `OUTPUTS`, and of /tf with parameter `publish_tf`.

    Args:
        node: creates and owns the publishers. It logs a warning for a topic whose message type is not built.

    Raises:
        InputError: `publish_tf` without tf2_msgs.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        self._outputs = dict(OUTPUTS)
        if node.get_parameter("publish_tf").value:
            self._outputs = {
                TF_TOPIC: Output(
                    motion_messages.tf_message_type(), _if_posed(motion_messages.transform_message)
                ),
                **self._outputs,
            }
        for topic, output in self._outputs.items():
            message_type = output.message_type
            if isinstance(message_type, str):
                try:
                    message_type = messages.own_message_type(message_type)
                except InputError as error:
                    node.get_logger().warning(f"no topic {topic}: {error}")
                    continue
            self._publishers[topic] = node.create_lifecycle_publisher(
                message_type,
                topic,
                QoSProfile(depth=2),
                qos_overriding_options=QOS_OVERRIDES,
            )

    def wanted(self) -> list[str]:
        """Topics with subscribers, in the order of `OUTPUTS`; none if only the latency has some."""
        topics = [t for t, p in self._publishers.items() if p.get_subscription_count() > 0]
        return topics if topics != [LATENCY_TOPIC] else []

    def publish(self, topics: Collection[str], estimate: Estimate) -> None:
        """Encode and publish an estimate on these topics."""
        for topic in topics:
            message = self._outputs[topic].encode(estimate)
            if message is not None:
                self._publishers[topic].publish(message)

    def destroy(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
