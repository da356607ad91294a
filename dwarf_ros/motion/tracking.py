"""Moving objects over time: each keeps its id and a filtered velocity while it is seen again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from dwarf_ros.motion.objects import find_objects
from dwarf_ros.motion.rigid import exponential, logarithm
from dwarf_ros.types import EgoMotion, MovingObject, SceneFlow, StereoCamera, same_camera

_GATE = 16.3
"""99.9 % quantile of chi-square with three degrees of freedom."""

_LEAST_GATE = 2.0
"""A detection this near, m, always fits: the visible part of an object changes."""

_ACCELERATION = 3.0
"""Standard deviation of the acceleration, m/s^2."""

_MOST_MISSES = 3
"""Frames in a row without a detection that a track survives."""

_SLOWEST = 0.5
"""Below this speed, m/s, an object counts as static ..."""

_STATIC_SECONDS = 1.0
"""... and is dropped after this time."""

_LONGEST_GAP = 1.0
"""Time between frames, s, beyond which all tracks start anew; so do they where time runs backwards."""


@dataclass
class _Track:
    id: int
    latest: MovingObject
    state: np.ndarray
    """Position, m, and velocity over ground, m/s, along the axes of the latest reference frame."""
    covariance: np.ndarray
    misses: int = 0
    static_since: int | None = None


class _Frame(NamedTuple):
    """What is remembered of the previous frame."""

    stamp: int
    dt: float
    camera: StereoCamera | None
    ego_motion: EgoMotion | None


class Tracker:
    """Assigns objects to tracks, nearest first, and filters them with constant velocity over ground (Kalman filter)."""

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._latest: _Frame | None = None

    def __len__(self) -> int:
        return len(self._tracks)

    def reset(self) -> None:
        """Forget all tracks; their ids are not used again."""
        self._tracks, self._latest = [], None

    def update(self, scene_flow: SceneFlow) -> list[MovingObject]:
        """Objects of a frame with the ids of their tracks.

        Tracks start anew where time runs backwards or jumps by over a second, and where the calibration changes.

        Args:
            scene_flow: as of `refine`, of the frame after that of the previous call; without its images.

        Returns:
            the objects seen in this frame, and those missed for at most three frames at their predicted pose (without
            pixels), with filtered velocities along this reference's axes; none that has been static for a second.
        """
        objects = find_objects(scene_flow)
        frame = _Frame(scene_flow.stamp, scene_flow.dt, scene_flow.camera, scene_flow.ego_motion)
        stamp, dt, latest = frame.stamp, 0.0, self._latest
        camera_motion = np.eye(4)
        if latest is not None:
            dt = (stamp - latest.stamp) * 1e-9
            if not 0 < dt <= _LONGEST_GAP or not same_camera(latest.camera, frame.camera):
                self.reset()
            else:
                camera_motion = _motion_between(latest, frame, dt)
        self._latest = frame
        for track in self._tracks:
            _predict(track, dt, camera_motion)
        assigned = self._assign(objects)
        for track in self._tracks:
            if track.id not in assigned:
                track.misses += 1
        for index, item in enumerate(objects):
            owner = next((t for t in self._tracks if assigned.get(t.id) == index), None)
            if owner is None and item.speed < _SLOWEST:
                continue
            if owner is None:
                self._tracks.append(_started(self._next_id, item))
                self._next_id += 1
            else:
                _correct(owner, item)
        for track in self._tracks:
            if np.linalg.norm(track.state[3:]) >= _SLOWEST:
                track.static_since = None
            elif track.static_since is None:
                track.static_since = stamp
        self._tracks = [
            track
            for track in self._tracks
            if track.misses <= _MOST_MISSES
            and (
                track.static_since is None or (stamp - track.static_since) * 1e-9 < _STATIC_SECONDS
            )
        ]
        return [_reported(track) for track in self._tracks]

    def _assign(self, objects: list[MovingObject]) -> dict[int, int]:
        """Index of the object of each track that has one, by the track's id."""
        costs = []
        for track in self._tracks:
            for index, item in enumerate(objects):
                difference = item.position - track.state[:3]
                covariance = track.covariance[:3, :3] + item.position_covariance
                square = float(difference @ np.linalg.solve(covariance, difference))
                near = float(np.linalg.norm(difference))
                if square < _GATE or near < _LEAST_GATE:
                    costs.append((min(square, _GATE * near / _LEAST_GATE), track.id, index))
        assigned: dict[int, int] = {}
        taken = set()
        for _, track_id, index in sorted(costs):
            if track_id not in assigned and index not in taken:
                assigned[track_id] = index
                taken.add(index)
        return assigned


def _motion_between(earlier: _Frame, later: _Frame, dt: float) -> np.ndarray:
    """4 x 4 motion of static points from one reference's camera frame to the next, at constant velocity over gaps."""
    # With a positive dt the earlier estimate spans the time between both, otherwise the later one.
    source = earlier if earlier.dt > 0 else later
    ego_motion = source.ego_motion
    if ego_motion is None or ego_motion.transform is None:
        return np.eye(4)
    return exponential(logarithm(ego_motion.transform) * (dt / source.dt))


def _predict(track: _Track, dt: float, camera_motion: np.ndarray) -> None:
    step = np.eye(6)
    step[:3, 3:] = dt * np.eye(3)
    noise = np.array([[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]]) * _ACCELERATION**2
    track.state = step @ track.state
    track.covariance = step @ track.covariance @ step.T + np.kron(noise, np.eye(3))
    both = np.kron(np.eye(2), camera_motion[:3, :3])
    track.state = both @ track.state
    track.state[:3] += camera_motion[:3, 3]
    track.covariance = both @ track.covariance @ both.T


def _started(number: int, item: MovingObject) -> _Track:
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = item.position_covariance
    covariance[3:, 3:] = item.velocity_covariance
    return _Track(number, item, np.concatenate([item.position, item.velocity]), covariance)


def _correct(track: _Track, item: MovingObject) -> None:
    measured = np.concatenate([item.position, item.velocity])
    noise = np.zeros((6, 6))
    noise[:3, :3] = item.position_covariance
    noise[3:, 3:] = item.velocity_covariance
    gain = np.linalg.solve(track.covariance + noise, track.covariance).T
    track.state = track.state + gain @ (measured - track.state)
    keep = np.eye(6) - gain
    track.covariance = keep @ track.covariance @ keep.T + gain @ noise @ gain.T
    track.latest, track.misses = item, 0


def _reported(track: _Track) -> MovingObject:
    pose = track.latest.pose.copy()
    seen = track.misses == 0
    if not seen:
        pose[:3, 3] = track.state[:3]
    return replace(
        track.latest,
        id=track.id,
        pose=pose,
        velocity=track.state[3:].copy(),
        position_covariance=track.latest.position_covariance
        if seen
        else track.covariance[:3, :3].copy(),
        velocity_covariance=track.covariance[3:, 3:].copy(),
        mask=track.latest.mask if seen else None,
        box=track.latest.box if seen else None,
    )
