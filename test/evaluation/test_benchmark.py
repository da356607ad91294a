"""The benchmark: what it counts, what it measures, and what it writes."""

from __future__ import annotations

import json

import pytest

from dwarf_ros.evaluation.benchmark import (
    Benchmark,
    Timing,
    configurations,
    make_report,
    run_benchmark,
    save_fresh_weights,
    write_benchmark,
)
from dwarf_ros.evaluation.workload import Ceilings, Workload
from dwarf_ros.types import InputError


@pytest.fixture
def measured():
    """A benchmark as it might come out: the floor is 20 ms by arithmetic and 10 ms by memory."""
    timings = [
        Timing("tensorflow", "f32", 9.0, [0.1, 0.2, 0.3], 10**9),
        Timing("openvino", "bf16", 3.0, [0.05, 0.04, 0.06], 5 * 10**8, {"Conv": 0.03, "Add": 0.01}),
        Timing("openvino", "int8", error="not quantised"),
    ]
    work = Workload(10**9, 10**8, {"encoder": 4 * 10**8, "level 2": 6 * 10**8})
    accuracy = {"measured_on": 8, "change_px": {"disparity": {"mean": 0.125}}}
    ceilings = Ceilings(1e11, 1e10)
    return Benchmark("dwarf", 64, 128, "a machine", 2, ceilings, work, timings, accuracy)


def test_figures(measured):
    assert measured.floor_s == pytest.approx(0.02)
    told = measured.as_json()["timings"]
    assert told[0]["median_s"] == pytest.approx(0.2)
    assert told[0]["p95_s"] == pytest.approx(0.29)
    assert told[1]["per_second"] == pytest.approx(20)
    assert told[1]["times_floor"] == pytest.approx(2.5)
    assert told[2]["error"] == "not quantised"
    assert "median_s" not in told[2]


def test_report(measured, tmp_path):
    report = make_report(measured)
    assert report.tables[0].rows[1] == [
        "openvino bf16",
        50.0,
        pytest.approx(59.0),
        20.0,
        2.5,
        500.0,
        3.0,
    ]
    assert report.tables[1].rows == [["Conv", pytest.approx(75.0)], ["Add", pytest.approx(25.0)]]
    assert report.tables[2].rows[0] == ["encoder", 0.4, pytest.approx(40.0)]
    assert "8 synthetic drives that it was not calibrated on: disparity 0.12 px" in report.notes[-2]
    assert report.notes[-1] == "openvino int8: not quantised"
    write_benchmark(measured, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["preset"] == "dwarf"
    assert "openvino bf16" in (tmp_path / "out" / "report.html").read_text()


def test_engines_are_timed_in_their_own_processes(tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("tensorflow")
    weights = tmp_path / "lite.safetensors"
    save_fresh_weights("dwarf_lite", weights)
    seen: list[tuple[int, int]] = []
    benchmark, again = run_benchmark(
        [weights, weights],
        [("openvino", "f32"), ("onnxruntime", "bf16")],
        64,
        128,
        rounds=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    ran, refused = benchmark.timings
    assert len(ran.seconds) == 3
    assert all(0 < second < ran.first_s for second in ran.seconds)
    # Keras and TensorFlow, which take more than that, convert in a process of their own.
    assert 5e7 < ran.peak_memory < 4e8
    assert "Convolution" in ran.layer_seconds
    assert refused.error
    assert not refused.seconds
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert benchmark.preset == "dwarf_lite"
    assert benchmark.work.macs > 1e8
    assert len(again.timings[0].seconds) == 3


def test_engines_and_precisions_to_time(monkeypatch):
    from dwarf_ros.evaluation import benchmark

    monkeypatch.setattr(benchmark, "find_spec", lambda name: name != "onnxruntime" or None)
    assert configurations() == [
        ("tensorflow", "f32"),
        ("tensorflow", "bf16"),
        ("openvino", "f32"),
        ("openvino", "bf16"),
    ]
    assert configurations(["onnxruntime"], ["f32", "int8"]) == [("onnxruntime", "f32")]
    assert configurations([], ["int8"]) == [("openvino", "int8")]
    for engines, precisions, message in (
        (["steam"], [], "engine: 'steam' is unknown"),
        ([], ["f8"], "precision: 'f8' is unknown"),
        (["onnxruntime"], ["bf16"], "precision: bf16 given to onnxruntime, expected one that"),
    ):
        with pytest.raises(InputError, match=message):
            configurations(engines, precisions)


def test_what_cannot_be_measured_is_named(tmp_path):
    with pytest.raises(InputError, match="height: 60 px, expected a multiple of 64 px"):
        run_benchmark([tmp_path / "none"], [("openvino", "f32")], 60, 128)
    with pytest.raises(InputError, match="rounds: 0, expected at least 1"):
        run_benchmark([tmp_path / "none"], [("openvino", "f32")], 64, 128, rounds=0)
    with pytest.raises(InputError, match="no such weights file"):
        run_benchmark([tmp_path / "none"], [("openvino", "f32")], 64, 128)
