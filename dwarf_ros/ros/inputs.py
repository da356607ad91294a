"""The node's four input topics: subscriptions, calibration, and the pairing of their images."""

from __future__ import annotations

import functools
import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
    qos_profile_sensor_data,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dwarf_ros.recordings.camera_messages import (
    camera_from_messages,
    compressed_image_size,
    image_from_compressed,
    image_from_message,
)
from dwarf_ros.ros import distro
from dwarf_ros.ros.log import ThrottledLog
from dwarf_ros.ros.messages import ns_from_stamp
from dwarf_ros.ros.parameters import QOS_OVERRIDES
from dwarf_ros.ros.statistics import Statistics, listed
from dwarf_ros.ros.synchronizer import TIME_JUMP, ConsecutivePairs, Synchronizer
from dwarf_ros.types import InputError, StereoCamera

LEFT, RIGHT = "left/image_rect", "right/image_rect"
LEFT_INFO, RIGHT_INFO = "left/camera_info", "right/camera_info"
INPUT_TOPICS = {LEFT: Image, LEFT_INFO: CameraInfo, RIGHT: Image, RIGHT_INFO: CameraInfo}
UNREADABLE = "unreadable"
LOST_IMAGES = "large images are being lost, see Quality of service in docs/camera.md"
# A topic is silent, and the node stalled, after this time.
STALLED_S = 2.0


# Calibrations are small and may be latched: the highest quality that all publishers offer is taken.
_INFO_QOS = (
    qos_profile_sensor_data,
    QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE),
    QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    ),
)
_ADAPT_PERIOD_S = 0.5
# From the discovery of a publisher to its first message, at most.
_SETTLING_S = 3.0
# Topics that are named where an input has no publisher.
_LISTED = 3


@dataclass(frozen=True, eq=False)
class Received:
    """An image message, the topic that it arrived on, and when (monotonic clock, s)."""

    message: Image | CompressedImage
    topic: str
    arrived_s: float


def decode(received: Received) -> np.ndarray:
    """Pixels of a received image, uint8 or uint16, grey or RGB.

    Raises:
        InputError: the message holds no image that can be decoded.
    """
    if isinstance(received.message, CompressedImage):
        return image_from_compressed(received.message, received.topic)
    return image_from_message(received.message, received.topic)


class Inputs:
    """Subscribes to `INPUT_TOPICS` and pairs what arrives.

    Args:
        node: subscribes; its parameters are read for every image.
        statistics: rates of the image topics, and the last error.
        log: receives warnings about the input.
        drops: counts images that did not become a pair, by cause; continued here.
        on_pairs: called with every two consecutive stereo pairs, and when the last image arrived (monotonic clock, s).
        on_size: called with the size of every image that fits the calibration, px.

    Attributes:
        names: full name of each of `INPUT_TOPICS`, as subscribed to.

    Raises:
        Exception: rclpy refuses a quality of service.
    """

    def __init__(
        self,
        node: Node,
        statistics: Statistics,
        log: ThrottledLog,
        drops: Counter[str],
        on_pairs: Callable[[ConsecutivePairs[Received], float], None],
        on_size: Callable[[int, int], None],
    ) -> None:
        self._node = node
        self._statistics = statistics
        self._log = log
        self._on_pairs = on_pairs
        self._on_size = on_size
        # As image_transport names compressed images, also after remapping.
        self.names = {
            topic: node.resolve_topic_name(topic) + "/compressed" * self._is_compressed(topic)
            for topic in INPUT_TOPICS
        }
        self._synchronizer: Synchronizer[Received] = Synchronizer(
            queue_size=self._parameter("queue_size"), drops=drops
        )
        self._drops_seen: Counter[str] = Counter(drops)
        self._infos: dict[str, CameraInfo] = {}
        self._received_s: dict[str, float] = {}
        # When a publisher of each topic was first seen.
        self._published_s: dict[str, float] = {}
        self._incompatible: dict[str, str] = {}
        self._subscribers: dict[str, Any] = {}
        # Index in _INFO_QOS.
        self._info_qos = {LEFT_INFO: 0, RIGHT_INFO: 0}
        self._adapted_s = 0.0
        try:
            for topic in INPUT_TOPICS:
                self._subscribe(topic)
        except Exception:
            self.destroy()
            raise

    def destroy(self) -> None:
        """Unsubscribe."""
        for subscriber in self._subscribers.values():
            self._node.destroy_subscription(subscriber.sub)
        self._subscribers.clear()

    def adapt(self) -> None:
        """Note which topics have publishers, and subscribe to camera_info with the quality that they offer; call it often."""
        if time.monotonic() - self._adapted_s < _ADAPT_PERIOD_S:
            return
        self._adapted_s = time.monotonic()
        for topic, name in self.names.items():
            if self._node.count_publishers(name) == 0:
                self._published_s.pop(topic, None)
            else:
                self._published_s.setdefault(topic, self._adapted_s)
        for topic, level in self._info_qos.items():
            name = self.names[topic]
            offered = [p.qos_profile for p in self._node.get_publishers_info_by_topic(name)]
            if not offered or self._is_overridden(name):
                continue
            best = 0
            if all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered):
                latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
                best = 2 if latched else 1
            if best != level:
                self._info_qos[topic] = best
                self._node.destroy_subscription(self._subscribers[topic].sub)
                self._subscribe(topic)

    def _is_overridden(self, name: str) -> bool:
        """Whether the user has chosen a quality of service for a topic of camera_info."""
        prefix = f"qos_overrides.{name}.subscription."
        chosen = [self._parameter(prefix + policy) for policy in ("reliability", "durability")]
        return chosen != ["best_effort", "volatile"]

    def note_progress(self) -> None:
        """Remember the drops so far; `missing` names later ones only."""
        self._drops_seen = Counter(self._synchronizer.drops)

    def missing(self) -> str:
        """Why no stereo pairs arrive, as far as the node can tell; one line."""
        silent = [self._hint(topic) for topic in INPUT_TOPICS if self._is_silent(topic)]
        if silent:
            return f"nothing on {', '.join(silent)}"
        synchronizer = self._synchronizer
        if synchronizer.camera is None:
            return f"the calibration cannot be used: {self._statistics.last_error}"
        difference_s, tolerance_s = synchronizer.last_difference_s, synchronizer.tolerance_s
        if synchronizer.is_losing_images():
            return "left and right images of one time do not both arrive: " + LOST_IMAGES
        if difference_s is not None and difference_s > tolerance_s:
            return (
                f"stamps of left and right differ by {difference_s * 1e3:.3f} ms, "
                f"more than sync_tolerance_s and approximate_sync allow ({tolerance_s * 1e3:g} ms)"
            )
        lost = listed(synchronizer.drops - self._drops_seen)
        return f"images arrive but do not pair ({lost if lost != 'none' else 'one frame only'})"

    def _is_silent(self, topic: str) -> bool:
        if INPUT_TOPICS[topic] is CameraInfo:
            return topic not in self._infos
        return time.monotonic() - self._received_s.get(topic, -math.inf) >= STALLED_S

    def _hint(self, topic: str) -> str:
        name = self.names[topic]
        publishers = self._node.count_publishers(name)
        if publishers == 0:
            found = self._elsewhere(topic)
            if found:
                return f"{name} (no publisher; found {', '.join(found)})"
            return f"{name} (no publisher)"
        if topic in self._incompatible:
            policy = self._incompatible[topic]
            return f"{name} ({publishers} publisher(s), QoS does not match: {policy})"
        if topic in self._received_s:
            silent_s = time.monotonic() - self._received_s[topic]
            return f"{name} ({publishers} publisher(s), silent for {silent_s:.0f} s)"
        if self._is_new(topic):
            return f"{name} ({publishers} publisher(s), nothing sent yet)"
        return f"{name} ({publishers} publisher(s), check QoS)"

    def is_settling(self) -> bool:
        """Whether a silent topic has had a publisher for too short a time to expect a message."""
        return any(
            self._is_silent(topic)
            and self._is_new(topic)
            and self._node.count_publishers(self.names[topic]) > 0
            for topic in INPUT_TOPICS
        )

    def _is_new(self, topic: str) -> bool:
        """Whether nothing has arrived yet, and the publisher appeared a moment ago."""
        now_s = time.monotonic()
        seen_s = self._published_s.get(topic, now_s)
        return topic not in self._received_s and now_s - seen_s < _SETTLING_S

    def _elsewhere(self, topic: str) -> list[str]:
        """Topics of the right type that others publish under another name, the most similar first."""
        node = self._node
        types = {"sensor_msgs/msg/CameraInfo"}
        if INPUT_TOPICS[topic] is Image:
            types = {"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"}
        own = node.get_publisher_names_and_types_by_node(node.get_name(), node.get_namespace())
        known = {*self.names.values(), *(name for name, _ in own)}
        found = [
            name
            for name, kinds in node.get_topic_names_and_types()
            if types & set(kinds) and name not in known and node.count_publishers(name)
        ]
        side = topic.split("/")[0]
        found.sort(key=lambda name: (f"/{topic}" not in name, side not in name, name))
        return found[:_LISTED]

    def _parameter(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    def _is_compressed(self, topic: str) -> bool:
        return INPUT_TOPICS[topic] is Image and self._parameter("image_transport") == "compressed"

    def _subscribe(self, topic: str) -> None:
        callback = self._on_image
        overrides: QoSOverridingOptions | None = QOS_OVERRIDES
        if INPUT_TOPICS[topic] is CameraInfo:
            callback = self._on_camera_info
            level = self._info_qos[topic]
            qos = _INFO_QOS[level]
            if level > 0:
                # The parameters that the first subscription declared would override this one.
                overrides = None
        elif self._parameter("reliable"):
            qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
        else:
            qos = qos_profile_sensor_data
        subscriber = distro.subscriber_class()(
            self._node,
            CompressedImage if self._is_compressed(topic) else INPUT_TOPICS[topic],
            self.names[topic],
            qos_profile=qos,
            qos_overriding_options=overrides,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=functools.partial(self._on_incompatible_qos, topic)
            ),
        )
        subscriber.registerCallback(functools.partial(callback, topic))
        self._subscribers[topic] = subscriber

    def _on_image(self, topic: str, message: Image | CompressedImage) -> None:
        now_s = time.monotonic()
        self._received_s[topic] = now_s
        self._statistics.tick(topic)
        name = self.names[topic]
        synchronizer = self._synchronizer
        try:
            size = (
                compressed_image_size(message.data, name)
                if isinstance(message, CompressedImage)
                else (message.width, message.height)
            )
        except InputError as error:
            synchronizer.drops[UNREADABLE] += 1
            self._log.warn(topic, str(error))
            return
        camera = synchronizer.camera
        if camera is not None and size == (camera.width, camera.height):
            self._on_size(*size)
        approximate = self._parameter("approximate_sync")
        synchronizer.tolerance_s = self._parameter("sync_tolerance_s") if approximate else 0.0
        synchronizer.max_frame_gap_s = self._parameter("max_frame_gap_s")
        add = synchronizer.add_left if topic == LEFT else synchronizer.add_right
        pairs = add(ns_from_stamp(message.header.stamp), size, Received(message, name, now_s))
        while synchronizer.notices:
            cause, line = synchronizer.notices.popleft()
            # Time jumps back at every turn of a recording that is played in a loop.
            (self._log.info if cause == TIME_JUMP else self._log.warn)(cause, line)
        if pairs is not None:
            self._on_pairs(pairs, now_s)

    def _on_camera_info(self, topic: str, message: CameraInfo) -> None:
        known = self._infos.get(topic)
        if known is not None and _calibration(known) == _calibration(message):
            return
        self._infos[topic] = message
        if len(self._infos) < 2:
            return
        camera: StereoCamera | None = None
        try:
            camera = camera_from_messages(
                *(self._infos[t] for t in (LEFT_INFO, RIGHT_INFO)),
                *(self.names[t] for t in (LEFT_INFO, RIGHT_INFO)),
            )
        except InputError as error:
            self._statistics.last_error = str(error)
            self._log.error("calibration", f"{error}; waiting for a usable calibration")
        self._synchronizer.set_camera(camera)

    def _on_incompatible_qos(self, topic: str, event: QoSRequestedIncompatibleQoSInfo) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        self._incompatible[topic] = policy
        name = self.names[topic]
        self._log.warn(
            f"QoS {topic}",
            f"{name}: the publisher does not offer the {policy} that the node requests, so nothing "
            f"arrives; set qos_overrides.{name}.subscription.{policy}",
        )


def _calibration(info: CameraInfo) -> tuple[Any, ...]:
    # The matrix as bytes, in which NaN equals NaN: otherwise every message of a broken calibration would be new.
    size = (info.width, info.height, info.binning_x, info.binning_y)
    return (info.p.tobytes(), *size, info.roi)
