"""Live replays: node, player and recorder in processes of their own, judged as the offline answers are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from live_fixtures import difference_from_offline, record_estimates

from dwarf_ros.estimators import choose_estimator
from dwarf_ros.evaluation.bag_evaluation import estimate_pair, evaluate_recording
from dwarf_ros.evaluation.bag_report import print_evaluation
from dwarf_ros.live.processes import LiveError
from dwarf_ros.live.replay import evaluate_run, replay_bag
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.write import create_bag
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import InputError, SceneFlow

REPOSITORY = Path(__file__).resolve().parents[2]
CLASSICAL = choose_estimator("classical", refine="none")
# The player's stamps: those of the recording, moved on.
SHIFT = 1_700_000_000_000_000_000


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    write_drive(ProceduralDrive(seed=4, frames=4, width=256, height=128), folder / "files")
    create_bag(open_recording(folder / "files"), folder / "bag")
    return folder / "bag"


def child_processes() -> set[str]:
    """Numbers of this process's children; the test runner has some of its own."""
    lists = Path("/proc/self/task").glob("*/children")
    return {number for children in lists for number in children.read_text().split()}


def test_live_answers_are_the_offline_ones(ros_environment, monkeypatch, bag, tmp_path, capsys):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    before = child_processes()
    live = replay_bag(bag, tmp_path, CLASSICAL, 2.0)
    assert child_processes() <= before
    answered = [(pair.frame, pair.other) for pair in live.pairs]
    assert answered == sorted(answered)
    # A busy machine may drop a pair, and the node then says so.
    assert set(answered) <= {(0, 1), (1, 2), (2, 3)}
    assert len(answered) >= 2
    assert (live.live.played, live.live.accepted) == (4, 3)
    assert live.live.answered == len(answered) == 3 - sum(live.live.dropped.values())
    assert all(0 < pair.latency_ms < 20_000 for pair in live.pairs)
    assert live.live.latency_median_ms <= live.live.latency_p95_ms
    assert 1.5 < live.live.rate_in_hz < 2.5
    assert live.live.rate_out_hz > 0

    assert live.summary["live_difference_px"] <= 1e-3
    assert live.summary["live_one_sided_pixels"] == 0
    difference = difference_from_offline(bag, tmp_path, CLASSICAL)
    assert difference.largest <= 1e-3
    assert difference.pairs == len(answered)

    offline = evaluate_recording(bag, CLASSICAL, pairs=answered)
    for key, value in offline.summary.items():
        if not key.startswith("live"):
            assert live.summary[key] == pytest.approx(value, abs=0.02, nan_ok=True), key

    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert document["live"]["answered"] == len(answered)
    assert "latency_ms" in (tmp_path / "frames.csv").read_text().splitlines()[0]
    page = (tmp_path / "report.html").read_text()
    assert "latency, median" in page
    print_evaluation(live)
    assert "latency, 95th percentile" in capsys.readouterr().out
    assert page.count("data:image") >= len(answered)


def make_run(
    run: Path, bag: Path, error: float = 0.0, backwards: bool = False, answered: bool = True
) -> Path:
    """What a live run over the bag leaves, its second answer wrong by `error` px."""
    recording = open_recording(bag)
    run.mkdir()
    start = recording.stamps[0]
    lines = []
    for index, stamp in enumerate(recording.stamps):
        wall = SHIFT + index * 500_000_000
        lines.append(
            json.dumps({"index": index, "stamp_ns": stamp - start + SHIFT, "wall_ns": wall})
        )
    (run / "player.jsonl").write_text("\n".join(lines) + "\n")
    estimates = []
    for index in (0, 2):
        pair = (index + 1, index) if backwards else (index, index + 1)
        answer = estimate_pair(recording, CLASSICAL, pair)
        flow = answer.flow + np.float32(error if index == 2 else 0)
        moved = SceneFlow(
            answer.disparity,
            answer.disparity_next,
            flow,
            answer.valid,
            answer.stamp - start + SHIFT,
            answer.dt,
            answer.camera,
        )
        received = SHIFT + (index + 1) * 500_000_000 + 70_000_000
        estimates.append((received, moved))
    record_estimates(run / "recording", estimates if answered else [])
    values = {"accepted": "3", "dropped: busy": "1"}
    status = {"level": 0, "message": "", "values": values}
    summary = {"diagnostics": {"dwarf: scene flow": status}}
    (run / "recording" / "summary.json").write_text(json.dumps(summary))
    return run


def test_recorded_run_is_judged_with_latency_and_drops(bag, tmp_path):
    run = make_run(tmp_path / "run", bag, error=0.125)
    evaluation = evaluate_run(bag, run, CLASSICAL)
    assert [(pair.frame, pair.other) for pair in evaluation.pairs] == [(0, 1), (2, 3)]
    assert [pair.latency_ms for pair in evaluation.pairs] == pytest.approx([70, 70])
    live = evaluation.live
    assert (live.played, live.accepted, live.answered, live.dropped) == (4, 3, 2, {"busy": 1})
    assert live.rate_in_hz == pytest.approx(2)
    assert live.rate_out_hz == pytest.approx(1)
    differences = [pair.figures["live_difference_px"] for pair in evaluation.pairs]
    assert differences[0] == 0
    assert differences[1] == pytest.approx(0.125, abs=1e-4)
    difference = difference_from_offline(bag, run, CLASSICAL)
    assert difference.largest == pytest.approx(0.125, abs=1e-4)
    assert (difference.pairs, difference.one_sided) == (2, 0)


def test_answers_that_cannot_be_compared_are_refused(bag, tmp_path):
    backwards = make_run(tmp_path / "backwards", bag, backwards=True)
    with pytest.raises(InputError, match="reference: previous"):
        evaluate_run(bag, backwards, CLASSICAL)
    stranger = make_run(tmp_path / "stranger", bag)
    log = stranger / "player.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(LiveError, match="never played"):
        evaluate_run(bag, stranger, CLASSICAL)
    empty = make_run(tmp_path / "empty", bag, answered=False)
    with pytest.raises(LiveError, match="no estimates"):
        evaluate_run(bag, empty, CLASSICAL)


def test_arguments_that_cannot_be_used_are_named(bag, tmp_path):
    with pytest.raises(InputError, match="rate_hz: "):
        replay_bag(bag, tmp_path, CLASSICAL, 0.0)
    with pytest.raises(InputError, match="nowhere"):
        replay_bag(tmp_path / "nowhere", tmp_path / "out", CLASSICAL)
