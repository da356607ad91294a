"""The bars of benchmarks/soak.py, in a shorter form; its times are not asserted."""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from dwarf_ros.types import InputError, StereoCamera

SOAK = Path(__file__).resolve().parents[2] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look for their module.
    sys.modules["soak"] = module
    spec.loader.exec_module(module)
    return module


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), offset_ms=st.sampled_from([0, 1, 7, 15, 16]))
def test_a_looped_lossy_stream_of_a_late_camera_is_paired_and_never_wrongly(soak, seed, offset_ms):
    result = soak.looped_stream(seed, offset_ms * 1_000_000)
    assert result.wrong == 0
    assert len(result.whole) == 3
    for matched, whole in zip(result.matched, result.whole, strict=True):
        assert whole > 80
        assert 0.95 * whole <= matched <= whole


def test_a_pairing_without_any_loss_is_whole(soak):
    result = soak.looped_stream(1, loss=0.0, duplicates=0.0)
    assert result.matched == result.whole == [120, 120, 120]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**64))
def test_any_mutation_of_a_message_is_an_answer_or_one_error(soak, seed):
    _, decode = soak.mutated_message(random.Random(seed))
    answer: object
    try:
        answer = decode()
    except InputError as error:
        answer = str(error)
    if isinstance(answer, str):
        assert "\n" not in answer
        assert len(answer) < 1000
    elif isinstance(answer, StereoCamera):
        assert answer.baseline > 0
    else:
        assert isinstance(answer, np.ndarray)
        assert answer.dtype in (np.uint8, np.uint16)
        assert answer.ndim in (2, 3)


def test_a_short_run_under_too_many_frames_ends_cleanly(soak, ros_environment):
    camera = replace(soak.CAMERA, cx=160.0, cx_right=160.0, cy=64.0, width=320, height=128)
    run = soak.live_run(6.0, camera, rate_hz=60.0)
    assert run.errors == []
    assert run.code == 0
    assert run.latencies_ms
    assert run.threads[-1] >= run.threads[len(run.threads) // 2]
    assert all(mib > 10 for _, mib in run.memory_mib)
    accepted, estimated = int(run.values["accepted"]), int(run.values["estimated"])
    dropped = sum(int(n) for key, n in run.values.items() if key.startswith("dropped: "))
    # One may be with the worker and one in its mailbox while they are counted.
    assert estimated + dropped <= accepted <= estimated + dropped + 2
    assert estimated >= 1
    assert os.environ["ROS_DOMAIN_ID"] == ros_environment["ROS_DOMAIN_ID"]
