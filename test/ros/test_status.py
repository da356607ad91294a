"""The status of the running node on /diagnostics."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_fixtures import (
    CLASSICAL,
    status_values,
)
from sensor_msgs.msg import Image


def test_two_cameras_have_two_names_in_the_diagnostics(start_node, rig):
    for name in ("front", "rear"):
        start_node(*CLASSICAL, "-r", f"__ns:=/{name}", name=f"/{name}/dwarf")
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.wait_for(lambda: len({s.status[0].name for s in statuses}) == 2)
    assert {(s.status[0].name, s.status[0].hardware_id) for s in statuses} == {
        (f"/{name}/dwarf: scene flow", f"/{name}/left/image_rect") for name in ("front", "rear")
    }


def test_diagnostics_count_pairs_and_name_estimator_and_engine(start_node, rig):
    start_node(*CLASSICAL)
    flows = rig.listen("flow", Image)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    rig.connect()
    rig.feed_until(lambda: len(flows) >= 3)
    count = len(statuses)
    rig.feed_until(lambda: len(statuses) > count + 1)
    status = statuses[-1].status[0]
    values = {value.key: value.value for value in status.values}
    assert status.level == DiagnosticStatus.OK
    assert status.name == "/dwarf: scene flow"
    assert (values["estimator"], values["engine"]) == ("classical", "opencv")
    assert int(values["accepted"]) >= int(values["estimated"]) >= 3
    assert float(values["median latency (ms)"]) > 0


def test_diagnostics_come_at_once_when_the_state_changes_and_time_every_stage(start_node, rig):
    process = start_node(*CLASSICAL)
    statuses = rig.listen("/diagnostics", DiagnosticArray)
    flows = rig.listen("flow", Image)
    rig.connect()
    rig.feed_until(lambda: len(flows) >= 3)
    rig.wait_for(lambda: statuses and float(status_values(statuses[-1].status[0])["rate out (Hz)"]))
    values = status_values(statuses[-1].status[0])
    for stage in ("latency", "wait for partner", "queue", "decode", "network", "encode"):
        assert 0 < float(values[f"median {stage} (ms)"]) <= float(values[f"p95 {stage} (ms)"])
    assert float(values["rate left/image_rect (Hz)"]) > 0
    assert 10 < float(values["memory (MiB)"]) < 10_000
    # Off and on at once: each state is there to be heard for less than the second between two reports.
    inactive = "inactive: ros2 lifecycle set /dwarf activate"
    for transition, told in (("deactivate", inactive), ("activate", "active")):
        statuses.clear()
        assert rig.transition(transition)
        start_s = time.monotonic()
        rig.wait_for(lambda told=told: any(s.status[0].message == told for s in statuses))
        assert time.monotonic() - start_s < 5
    assert process.stop() == 0
