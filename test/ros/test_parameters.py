"""Parameters of the running node, their table and their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from rclpy.parameter import parameter_value_to_python
from rclpy.qos import DurabilityPolicy
from ros_fixtures import (
    CLASSICAL,
    FLOW,
    float_image,
    stamp_of,
)
from sensor_msgs.msg import Image

from dwarf_ros.ros import parameters

REPOSITORY = Path(__file__).resolve().parents[2]


def test_parameters_change_while_it_runs_or_are_refused_with_a_reason(start_node, rig):
    start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    depths = rig.listen("depth", Image)
    rig.connect()
    rig.feed_until(lambda: depths)
    assert np.isfinite(float_image(depths[-1])).any()

    assert rig.set_parameter("reference", "previous").successful
    assert rig.set_parameter("max_depth_m", 5.0).successful
    assert rig.set_parameter("frame_id", "elsewhere").successful
    rig.feed_until(
        lambda: flows and all(m[-1].header.frame_id == "elsewhere" for m in (flows, depths))
    )
    assert stamp_of(flows[-1]) < rig.stamp(rig.frames)
    assert np.nanmedian(float_image(flows[-1])[..., 0]) == pytest.approx(FLOW, abs=0.1)
    assert np.isnan(float_image(depths[-1])).mean() > 0.9

    for name, value, reason in (
        ("reference", "both", "expected current or previous"),
        ("estimator", "dwarf", "deactivate and clean up first"),
        ("queue_size", 5, "deactivate and clean up first"),
        ("max_depth_m", -1.0, "out of range"),
        ("autostart", False, "read-only"),
        ("process_every_n", 0, "out of range"),
        ("image_transport", "compressed", "deactivate and clean up first"),
    ):
        result = rig.set_parameter(name, value)
        assert not result.successful
        assert reason in result.reason


def test_an_unchanged_dump_of_the_parameters_can_be_loaded(start_node, rig):
    start_node(*CLASSICAL, "-p", "max_depth_m:=30")
    for name, spec in parameters.PARAMETERS.items():
        values = {"estimator": "classical", "max_depth_m": 30.0}
        result = rig.set_parameter(name, values.get(name, spec.default))
        assert result.successful, result.reason
    assert rig.set_parameter("max_depth_m", 40).successful
    assert not rig.set_parameter("max_depth_m", "far").successful


def test_durability_can_be_overridden(start_node, rig):
    policy = "qos_overrides./depth.publisher.durability:=transient_local"
    start_node(*CLASSICAL, "-p", policy)
    (end,) = rig.node.get_publishers_info_by_topic("/depth")
    assert end.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL


def test_the_table_of_parameters_is_generated_from_their_declarations():
    stated = (REPOSITORY / "docs" / "parameters.md").read_text(encoding="utf-8")
    assert stated == parameters.parameter_table()
    assert all(spec.description in stated for spec in parameters.PARAMETERS.values())


def test_the_parameters_that_ros_knows_are_those_of_the_table(start_node, rig):
    from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters

    start_node("-p", "autostart:=false", active=False)
    names = rig.call(ListParameters, "dwarf/list_parameters", ListParameters.Request()).result.names
    own = {n for n in names if not n.startswith(("qos_overrides", "start_type", "use_sim_time"))}
    assert own == set(parameters.PARAMETERS)
    request = DescribeParameters.Request(names=sorted(own))
    described = rig.call(DescribeParameters, "dwarf/describe_parameters", request).descriptors
    values = rig.call(
        GetParameters, "dwarf/get_parameters", GetParameters.Request(names=sorted(own))
    ).values
    for descriptor, value in zip(described, values, strict=True):
        spec = parameters.PARAMETERS[descriptor.name]
        assert descriptor.description == spec.description
        assert not descriptor.read_only
        ranges = [*descriptor.integer_range, *descriptor.floating_point_range]
        assert [(r.from_value, r.to_value) for r in ranges] == [spec.between][: len(ranges)]
        assert bool(ranges) == (spec.between is not None)
        if descriptor.name != "autostart":
            assert parameter_value_to_python(value) == spec.default


def test_the_parameter_file_lists_every_parameter_with_its_default():
    listed = yaml.safe_load((REPOSITORY / "config" / "dwarf.yaml").read_text())
    defaults = {name: spec.default for name, spec in parameters.PARAMETERS.items()}
    assert listed["/**"]["ros__parameters"] == defaults
