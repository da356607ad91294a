"""Estimates of a live run, written and compared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.evaluation.bag_evaluation import Difference, difference_between, estimate_pair
from dwarf_ros.live.processes import read_run
from dwarf_ros.live.recorder import BagRecorder
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.write import MessageEncoder
from dwarf_ros.recordings.scene_flow_messages import SCENE_FLOW_TYPE
from dwarf_ros.types import SceneFlow


def record_estimates(
    folder: Path, estimates: Iterable[tuple[int, SceneFlow]], topic: str = "/estimate"
) -> None:
    """Write a bag with estimates of `tester`, each with the time of its reception, ns."""
    bag = BagRecorder(folder, {topic: SCENE_FLOW_TYPE})
    encoder = MessageEncoder(bag.store, "")
    for received, scene_flow in estimates:
        bag.add(topic, received, encoder.scene_flow(scene_flow, "tester"))
    bag.close()
    assert bag.error is None


def difference_from_offline(source: Path, run: Path, choice: EstimatorChoice) -> Difference:
    """Largest difference between what the node estimated and what the estimator estimates here for the same pairs."""
    recording = open_recording(source)
    estimates, live = read_run(run)
    total = Difference()
    for estimate in live:
        pair = (estimate.reference.index, estimate.other.index)
        offline = estimate_pair(recording, choice, pair)
        total += difference_between(estimates[estimate.number].scene_flow, offline)
    return total
