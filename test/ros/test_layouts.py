"""The layouts for RViz and Foxglove: each topic, type and quality of service against the real node's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy")

from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSCompatibility,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
    qos_profile_sensor_data,
)

from dwarf_ros.recordings.folders import FRAME_ID
from dwarf_ros.ros.inputs import INPUT_TOPICS

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = REPOSITORY / "config"

RVIZ_TYPES = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/PointCloud2": "sensor_msgs/msg/PointCloud2",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/Odometry": "nav_msgs/msg/Odometry",
}
FOXGLOVE_3D = {"sensor_msgs/msg/PointCloud2", "visualization_msgs/msg/MarkerArray"}
CLOUD_CHANNELS = {"x", "y", "z", "rgb", "vx", "vy", "vz"}


@dataclass(frozen=True)
class Shown:
    """A topic that a layout shows, under its name in the root namespace, and what may carry it."""

    topic: str
    types: frozenset[str]
    qos: QoSProfile | None = None


def rviz() -> dict[str, Any]:
    return yaml.safe_load((CONFIG / "dwarf.rviz").read_text())["Visualization Manager"]


def rviz_displays() -> list[dict[str, Any]]:
    return [display for display in rviz()["Displays"] if "Topic" in display]


def shown_by_rviz() -> Iterator[Shown]:
    for display in rviz_displays():
        topic = display["Topic"]
        qos = QoSProfile(
            depth=topic["Depth"],
            history=HistoryPolicy[topic["History Policy"].replace(" ", "_").upper()],
            reliability=ReliabilityPolicy[topic["Reliability Policy"].replace(" ", "_").upper()],
            durability=DurabilityPolicy[topic["Durability Policy"].upper()],
            liveliness=LivelinessPolicy.AUTOMATIC,
        )
        # Relative, so that it follows the namespace that RViz is launched in.
        assert not topic["Value"].startswith("/")
        yield Shown("/" + topic["Value"], frozenset({RVIZ_TYPES[display["Class"]]}), qos)


def foxglove() -> dict[str, Any]:
    return json.loads((CONFIG / "dwarf.foxglove.json").read_text())


def shown_by_foxglove() -> Iterator[Shown]:
    for name, panel in foxglove()["configById"].items():
        kind = name.partition("!")[0]
        if kind == "Image":
            yield Shown(panel["imageMode"]["imageTopic"], frozenset({"sensor_msgs/msg/Image"}))
        elif kind == "3D":
            for topic in panel["topics"]:
                yield Shown(topic, frozenset(FOXGLOVE_3D))
        elif kind == "Plot":
            for path in panel["paths"]:
                topic, field = path["value"].rsplit(".", 1)
                assert field == "data"
                yield Shown(topic, frozenset({"std_msgs/msg/Float64"}))
        else:
            assert kind == "DiagnosticStatusPanel"
            yield Shown(panel["topicToRender"], frozenset({"diagnostic_msgs/msg/DiagnosticArray"}))


def test_each_topic_shown_is_the_nodes_in_type_and_quality_of_service(start_node, rig):
    start_node("-p", "estimator:=classical")
    shown = [*shown_by_rviz(), *shown_by_foxglove()]
    inputs = {"/" + topic for topic in INPUT_TOPICS}

    def ends(topic: str) -> list[Any]:
        """What the node has there; the rig publishes the inputs."""
        if topic in inputs:
            return rig.node.get_subscriptions_info_by_topic(topic)
        return rig.node.get_publishers_info_by_topic(topic)

    rig.wait_for(lambda: all(ends(one.topic) for one in shown))
    for one in shown:
        (end,) = ends(one.topic)
        assert end.topic_type in one.types, one.topic
        if one.qos is None:
            continue
        # A camera may publish as sensor data, which asks for no more.
        published = qos_profile_sensor_data if one.topic in inputs else end.qos_profile
        compatibility, reason = qos_check_compatible(published, one.qos)
        assert compatibility == QoSCompatibility.OK, f"{one.topic}: {reason}"


@pytest.mark.parametrize("shown", [shown_by_rviz, shown_by_foxglove])
def test_what_a_newcomer_wants_to_see_is_there(shown):
    topics = [one.topic for one in shown()]
    assert {
        "/left/image_rect",
        "/disparity_color",
        "/flow_color",
        "/scene_flow_markers",
        "/moving_objects_markers",
        "/motion_mask",
    } <= set(topics)
    assert topics.count("/scene_flow") == 2


def test_clouds_are_shown_by_colour_and_by_speed():
    ways = {
        (display["Color Transformer"], display["Channel Name"])
        for display in rviz_displays()
        if display["Class"].endswith("PointCloud2")
    }
    assert ways == {("RGB8", "vz"), ("Intensity", "vz")}
    clouds = [
        panel["topics"]["/scene_flow"]
        for name, panel in foxglove()["configById"].items()
        if name.startswith("3D!")
    ]
    assert {(cloud["colorMode"], cloud["colorField"]) for cloud in clouds} == {
        ("rgb", "rgb"),
        ("colormap", "vz"),
    }
    assert {cloud["colorField"] for cloud in clouds} <= CLOUD_CHANNELS


def test_the_fixed_frame_is_that_of_what_dwarf_play_publishes():
    assert rviz()["Global Options"]["Fixed Frame"] == FRAME_ID
    for name, panel in foxglove()["configById"].items():
        if name.startswith("3D!"):
            assert panel["followTf"] == FRAME_ID
    assert f'FRAME_ID = "{FRAME_ID}"' in (REPOSITORY / "launch" / "dwarf.launch.py").read_text()


def test_every_panel_of_the_foxglove_layout_is_laid_out_once():
    def panels(layout: Any) -> list[str]:
        if isinstance(layout, str):
            return [layout]
        return panels(layout["first"]) + panels(layout["second"])

    document = foxglove()
    assert sorted(panels(document["layout"])) == sorted(document["configById"])
