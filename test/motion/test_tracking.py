"""Objects keep their ids over frames, gaps and the camera's own motion."""

from __future__ import annotations

import numpy as np
from motion_fixtures import CAMERA, motion_of, scene_flow_of, street

from dwarf_ros.motion.objects import find_objects
from dwarf_ros.motion.tracking import Tracker
from dwarf_ros.types import MOVING, STATIC, EgoMotion, SceneFlow

DT = 0.1
MOTION = motion_of((0.0, 0.0, -0.5), (0.0, 0.0, 0.0))
"""The camera drives at 5 m/s."""


def frame(number: int, velocity: float = 8.0, present: bool = True) -> SceneFlow:
    """A box of 2 x 1.5 m ahead, 12 m before the camera at first, driving the same way, as `refine` returns it."""
    depth = street()
    time = number * DT
    distance = 12.0 + (velocity - 5.0) * time
    rows = (np.arange(CAMERA.height)[:, None] - CAMERA.cy) / CAMERA.fy * distance
    columns = (np.arange(CAMERA.width)[None] - CAMERA.cx) / CAMERA.fx * distance
    box = (np.abs(columns) < 1) & (rows > 0.1) & (rows < 1.55) & present
    depth = np.where(box, distance, depth)
    own = motion_of((0, 0, velocity * DT), (0, 0, 0))
    scene_flow = scene_flow_of(depth, MOTION, moving=box, own=own, dt=DT)
    return SceneFlow(
        scene_flow.disparity,
        scene_flow.disparity_next,
        scene_flow.flow,
        scene_flow.valid,
        stamp=number * 10**8,
        dt=DT,
        camera=CAMERA,
        ego_motion=EgoMotion(MOTION, 1e-6 * np.eye(6), 0.9),
        motion_mask=np.where(box, np.uint8(MOVING), np.uint8(STATIC)),
    )


def test_object_has_place_size_velocity_and_time_to_collision():
    (found,) = find_objects(frame(0, velocity=-4.0))
    assert np.allclose(found.position, (0, 0.8, 12), atol=0.2)
    assert np.allclose(found.size, (2, 1.4, 0), atol=0.3)
    assert np.allclose(found.velocity, (0, 0, -4), atol=0.3)
    # The camera comes nearer at 5 m/s, the object at 4.
    assert np.isclose(found.time_to_collision, 12 / 9, atol=0.1)
    assert np.linalg.eigvalsh(found.velocity_covariance).min() > 0
    x, y, width, height = found.box
    assert found.mask.shape == (height, width)
    marked = (frame(0, velocity=-4.0).motion_mask == MOVING)[y : y + height, x : x + width]
    assert np.mean(found.mask == marked) > 0.9


def test_what_does_not_come_nearer_never_collides():
    (found,) = find_objects(frame(0, velocity=8.0))
    assert found.time_to_collision == np.inf


def test_id_stays_and_velocity_is_filtered():
    tracker = Tracker()
    for number in range(8):
        (found,) = tracker.update(frame(number))
        assert found.id == 0
    assert np.allclose(found.velocity, (0, 0, 8), atol=0.3)
    assert np.isclose(found.position[2], 12 + 3 * 0.7, atol=0.3)


def test_id_survives_three_missed_frames():
    tracker = Tracker()
    tracker.update(frame(0))
    for number in (1, 2, 3):
        (found,) = tracker.update(frame(number, present=False))
        assert found.id == 0
        assert found.mask is None
        assert np.isclose(found.position[2], 12 + 0.3 * number, atol=0.3)
    assert tracker.update(frame(4))[0].id == 0


def test_fourth_missed_frame_ends_a_track():
    tracker = Tracker()
    tracker.update(frame(0))
    for number in (1, 2, 3, 4):
        found = tracker.update(frame(number, present=False))
    assert found == []
    assert tracker.update(frame(5))[0].id == 1


def test_what_stands_for_a_second_is_dropped():
    tracker = Tracker()
    tracker.update(frame(0, velocity=2.0))
    for number in range(1, 9):
        assert len(tracker.update(frame(number, velocity=0.0))) == 1
    for number in range(9, 14):
        found = tracker.update(frame(number, velocity=0.0))
    assert found == []


def test_jumps_of_time_start_anew():
    tracker = Tracker()
    tracker.update(frame(5))
    assert tracker.update(frame(3))[0].id == 1
    assert tracker.update(frame(40))[0].id == 2


def test_tracks_do_not_accumulate():
    tracker = Tracker()
    for number in range(60):
        tracker.update(frame(number % 7, present=number % 3 > 0))
    assert len(tracker) <= 1


def test_nothing_is_found_without_ego_motion():
    scene_flow = scene_flow_of(street(), MOTION)
    assert find_objects(scene_flow) == []
    assert Tracker().update(scene_flow) == []
