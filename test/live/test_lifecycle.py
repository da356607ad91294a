"""The client of a node's lifecycle state, against the real node."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy")

from ros_fixtures import CLASSICAL

from dwarf_ros.live.lifecycle import NodeClient
from dwarf_ros.types import InputError


def test_without_a_node_there_is_no_state(ros_environment):
    with NodeClient() as client:
        assert client.state() == ""
        assert not client.is_active()
        assert client.status == {}


def test_the_state_follows_the_nodes_transitions(start_node, rig):
    start_node(*CLASSICAL, "-p", "autostart:=false", active=False)
    with NodeClient() as client:
        assert client.state(timeout_s=20) == "unconfigured"
        for transition, state in (("configure", "inactive"), ("activate", "active")):
            assert rig.transition(transition)
            assert client.state(timeout_s=5) == state
        end = time.monotonic() + 5
        while not client.is_active():
            assert time.monotonic() < end
        assert client.status["estimator"] == "classical"


def test_the_reason_of_a_node_that_cannot_be_configured_is_raised(start_node):
    start_node("-p", "estimator:=magic", "-r", "__ns:=/robot", active=False)

    def wait_until_active() -> None:
        end = time.monotonic() + 20
        with NodeClient("/robot/dwarf") as client:
            while not client.is_active():
                assert time.monotonic() < end

    with pytest.raises(InputError, match=r"^estimator: 'magic' is unknown"):
        wait_until_active()
