"""Pairs over time: nothing wrong, nothing twice, nothing kept for ever, whatever comes."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.ros.synchronizer import (
    DUPLICATE,
    GAP,
    NO_CAMERA,
    NO_PARTNER,
    RESTART,
    SIZE_MISMATCH,
    TIME_JUMP,
    ConsecutivePairs,
    Synchronizer,
)
from dwarf_ros.types import StereoCamera

MS = 1_000_000
SIZE = (160, 96)
CAMERA = StereoCamera(120.0, 120.0, 80.0, 48.0, 80.0, 0.5, *SIZE)


def feed(synchronizer: Synchronizer, events: list[tuple[str, float]]) -> list[ConsecutivePairs]:
    """Give ("left" | "right", time in ms) one after another; what came out."""
    emitted = []
    for side, stamp_ms in events:
        add = synchronizer.add_left if side == "left" else synchronizer.add_right
        pairs = add(round(stamp_ms * MS), SIZE, (side, stamp_ms))
        if pairs is not None:
            emitted.append(pairs)
    return emitted


def stamps(emitted: list[ConsecutivePairs]) -> list[tuple[float, float]]:
    return [(p.previous.stamp / MS, p.current.stamp / MS) for p in emitted]


def both(*stamps_ms: float) -> list[tuple[str, float]]:
    return [(side, stamp) for stamp in stamps_ms for side in ("left", "right")]


def lost(synchronizer: Synchronizer) -> dict[str, int]:
    return {cause: n for cause, n in synchronizer.drops.items() if n}


def test_equal_stamps_pair_and_each_pair_follows_the_one_before():
    synchronizer = Synchronizer(camera=CAMERA)
    emitted = feed(synchronizer, both(0, 100, 200))
    assert stamps(emitted) == [(0, 100), (100, 200)]
    assert emitted[1].previous is emitted[0].current
    current = emitted[1].current
    assert (current.left, current.right) == (("left", 200), ("right", 200))
    assert current.camera is CAMERA
    assert lost(synchronizer) == {}


def test_one_side_may_run_ahead_by_as_much_as_the_queue_holds():
    frames = [100.0 * i for i in range(6)]
    ahead = [("left", t) for t in frames] + [("right", t) for t in frames]
    assert len(feed(Synchronizer(camera=CAMERA, queue_size=6), ahead)) == 5
    short = Synchronizer(camera=CAMERA, queue_size=4)
    assert stamps(feed(short, ahead)) == [(200, 300), (300, 400), (400, 500)]
    # Two left images fell out of the queue, and their two partners wait.
    assert lost(short) == {NO_PARTNER: 4}


def test_stamps_within_the_tolerance_pair_once_the_frame_rate_is_known():
    events = [(side, t + (4 if side == "right" else 0)) for side, t in both(0, 33, 66, 99)]
    assert stamps(feed(Synchronizer(camera=CAMERA, tolerance_s=0.005), events)) == [
        (33, 66),
        (66, 99),
    ]
    exact = Synchronizer(camera=CAMERA, tolerance_s=0.003)
    assert feed(exact, events) == []
    assert exact.last_difference_s == pytest.approx(0.004)


def test_an_equal_stamp_is_preferred_to_a_near_one():
    synchronizer = Synchronizer(camera=CAMERA, tolerance_s=0.02)
    events = [("left", 0), ("left", 50), ("right", 50), ("left", 100), ("right", 100)]
    assert stamps(feed(synchronizer, events)) == [(50, 100)]


def test_a_lost_image_does_not_pair_its_partner_with_the_next_frame():
    synchronizer = Synchronizer(camera=CAMERA, tolerance_s=0.01)
    # 100 Hz: a neighbouring frame is as near as the tolerance allows.
    events = both(0, 10, 20)
    events.remove(("right", 10))
    assert stamps(feed(synchronizer, events)) == [(0, 20)]


def test_duplicates_are_ignored():
    synchronizer = Synchronizer(camera=CAMERA)
    events = [event for event in both(0, 100, 200) for _ in range(2)]
    assert stamps(feed(synchronizer, events)) == [(0, 100), (100, 200)]
    assert lost(synchronizer) == {DUPLICATE: 6}


def test_stamps_all_zero_give_nothing_and_keep_nothing():
    synchronizer = Synchronizer(camera=CAMERA)
    assert feed(synchronizer, both(*[0] * 50)) == []
    assert synchronizer.waiting() == (0, 0)
    assert lost(synchronizer) == {DUPLICATE: 98}


def test_time_jumping_back_starts_anew_and_is_said():
    synchronizer = Synchronizer(camera=CAMERA)
    emitted = feed(synchronizer, [*both(1000, 1100), ("left", 1200), *both(0, 100)])
    assert stamps(emitted) == [(1000, 1100), (0, 100)]
    assert any("left images jumped back by 1.200 s" in line for _, line in synchronizer.notices)
    assert lost(synchronizer) == {TIME_JUMP: 1, NO_PARTNER: 1}


def test_a_gap_is_not_bridged():
    synchronizer = Synchronizer(camera=CAMERA, max_frame_gap_s=0.5)
    assert stamps(feed(synchronizer, both(0, 600, 700))) == [(600, 700)]
    assert lost(synchronizer) == {GAP: 1}
    assert "0.600 s between two frames, more than 0.5 s" in synchronizer.notices[0][1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_an_image_from_the_future_costs_no_good_one(side):
    synchronizer = Synchronizer(camera=CAMERA, queue_size=3)
    events = both(*range(0, 2000, 100))
    events.insert(9, (side, 1_000_000))
    emitted = feed(synchronizer, events)
    assert stamps(emitted) == [(t, t + 100.0) for t in range(0, 1900, 100)]


def test_a_dead_camera_fills_no_memory_and_comes_back():
    synchronizer = Synchronizer(camera=CAMERA, queue_size=5)
    feed(synchronizer, [("left", 100.0 * i) for i in range(1000)])
    assert synchronizer.waiting() == (5, 0)
    assert stamps(feed(synchronizer, both(100_000, 100_100))) == [(100_000, 100_100)]


def test_images_of_two_sizes_or_of_another_size_than_the_calibration_do_not_pair():
    synchronizer: Synchronizer = Synchronizer(camera=CAMERA)
    synchronizer.add_left(0, SIZE, "l")
    assert synchronizer.add_right(0, (80, 48), "r") is None
    assert "left images are 160 x 96 px but right images: 80 x 48 px" in synchronizer.notices[-1][1]
    synchronizer.add_left(MS, (80, 48), "l")
    assert synchronizer.add_right(MS, (80, 48), "r") is None
    assert "images are 80 x 48 px but calibration: 160 x 96 px" in synchronizer.notices[-1][1]
    assert lost(synchronizer) == {SIZE_MISMATCH: 2}


def test_a_new_calibration_starts_anew():
    synchronizer = Synchronizer(camera=CAMERA)
    emitted = feed(synchronizer, both(0, 100))
    synchronizer.set_camera(replace(CAMERA, baseline=0.4))
    emitted += feed(synchronizer, both(200, 300))
    assert stamps(emitted) == [(0, 100), (200, 300)]
    assert [p.current.camera.baseline for p in emitted] == [0.5, 0.4]
    assert lost(synchronizer) == {RESTART: 1}


def test_the_last_pair_before_the_first_calibration_is_not_lost():
    synchronizer: Synchronizer = Synchronizer()
    assert feed(synchronizer, both(0, 100)) == []
    synchronizer.set_camera(CAMERA)
    assert stamps(feed(synchronizer, both(200))) == [(100, 200)]
    assert lost(synchronizer) == {NO_CAMERA: 1}


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["left", "right"]),
        st.one_of(st.integers(0, 400), st.integers(-(10**9), 10**9)),
    ),
    max_size=80,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(EVENTS, st.sampled_from([0.0, 0.003, 0.05, 10.0]), st.integers(1, 8))
def test_whatever_comes_pairs_are_within_tolerance_increasing_once_and_memory_is_bounded(
    events, tolerance_s, queue_size
):
    synchronizer = Synchronizer(
        camera=CAMERA, tolerance_s=tolerance_s, queue_size=queue_size, max_frame_gap_s=1e9
    )
    last = None
    for number, (side, stamp_ms) in enumerate(events):
        add = synchronizer.add_left if side == "left" else synchronizer.add_right
        pairs = add(stamp_ms * MS, SIZE, (number, stamp_ms))
        assert max(synchronizer.waiting()) <= queue_size
        if pairs is None:
            continue
        for pair in (pairs.previous, pairs.current):
            assert abs(pair.left[1] - pair.right[1]) <= tolerance_s * 1e3
            assert pair.stamp == pair.left[1] * MS
        assert pairs.previous.stamp < pairs.current.stamp
        # Both images of the newer pair are newer arrivals than those of the older one: none is used twice.
        assert pairs.current.left[0] > pairs.previous.left[0]
        assert pairs.current.right[0] > pairs.previous.right[0]
        if last is not None and pairs.previous is not last:
            assert pairs.previous.left[0] > last.left[0]
            assert pairs.previous.right[0] > last.right[0]
        last = pairs.current
    assert len(synchronizer.notices) <= 8


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(0, 16))
def test_a_looped_lossy_stream_with_a_late_camera_pairs_what_arrived_and_never_wrongly(
    seed, delay_ms
):
    rng = random.Random(seed)
    period_ms, frames, loops = 33, 120, 3
    arrivals = []
    for loop in range(loops):
        for frame in range(frames):
            now = (loop * frames + frame) * period_ms
            for side, delay in (("left", 0), ("right", delay_ms)):
                if rng.random() < 0.05:
                    continue
                for _ in range(1 + (rng.random() < 0.01)):
                    arrivals.append((now + delay, side, loop, frame))
    arrivals.sort(key=lambda arrival: arrival[0])
    synchronizer: Synchronizer = Synchronizer(camera=CAMERA, max_frame_gap_s=1e9)
    matched: set[tuple[int, int]] = set()
    for _, side, loop, frame in arrivals:
        add = synchronizer.add_left if side == "left" else synchronizer.add_right
        pairs = add(frame * period_ms * MS, SIZE, (loop, frame))
        if pairs is not None:
            for pair in (pairs.previous, pairs.current):
                assert pair.left == pair.right
            matched |= {pairs.previous.left, pairs.current.left}
    for loop in range(loops):
        whole = [
            {f for _, s, n, f in arrivals if n == loop and s == side} for side in ("left", "right")
        ]
        expected = whole[0] & whole[1]
        assert len([m for m in matched if m[0] == loop]) >= 0.95 * len(expected)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=40),
    st.integers(-4, 4),
)
def test_without_jumps_every_frame_whose_two_images_arrive_is_in_order(kept, offset_ms):
    synchronizer = Synchronizer(camera=CAMERA, tolerance_s=0.0049, queue_size=3)
    events = []
    for frame, (left, right) in enumerate(kept):
        if left:
            events.append(("left", 10.0 * frame))
        if right:
            events.append(("right", 10.0 * frame + offset_ms))
    emitted = feed(synchronizer, events)
    for pairs in emitted:
        assert pairs.current.right[1] - pairs.current.left[1] == offset_ms
    whole = [frame for frame, sides in enumerate(kept) if all(sides)]
    if offset_ms == 0:
        expected = [(10.0 * a, 10.0 * b) for a, b in itertools.pairwise(whole)]
        assert stamps(emitted) == expected
