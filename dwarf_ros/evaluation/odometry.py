"""Errors of visual odometry: per frame, over segments as KITTI's odometry benchmark reports them, and of the trajectory.

Geiger, Lenz and Urtasun, "Are we ready for autonomous driving? The KITTI vision benchmark suite", CVPR 2012; absolute
trajectory error: Sturm et al., "A benchmark for the evaluation of RGB-D SLAM systems", IROS 2012.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SEGMENT_LENGTHS = (100, 200, 300, 400, 500, 600, 700, 800)
"""Of KITTI's benchmark, m."""

_SEGMENT_STEP = 10
"""Segments start at every tenth frame, as in KITTI's development kit."""


@dataclass(frozen=True)
class OdometryErrors:
    """Errors of a sequence of ego-motions.

    Attributes:
        pairs: of frames compared.
        missing: of them, those without ego-motion; the trajectory repeats the previous motion there.
        distance_m: length of the true trajectory.
        frame_translation_percent: sum of the errors per pair over the distance; None if the camera does not move.
        frame_rotation_degrees: mean error per pair; None without ego-motions.
        segments: number of segments of 100 to 800 m.
        translation_percent: KITTI's translation error, mean over segments; None if the recording is shorter than 100 m.
        rotation_degrees_per_m: KITTI's rotation error; None as above.
        absolute_trajectory_m: root mean square of the distance between both trajectories after rigid alignment.
        drift_percent: distance between both ends, started together, over the distance; None if the camera does not move.
    """

    pairs: int
    missing: int
    distance_m: float
    frame_translation_percent: float | None
    frame_rotation_degrees: float | None
    segments: int
    translation_percent: float | None
    rotation_degrees_per_m: float | None
    absolute_trajectory_m: float
    drift_percent: float | None


@dataclass(frozen=True)
class Odometry:
    """Visual odometry of a recording.

    Attributes:
        errors: of the motions against the poses.
        positions: x and z, m, of each frame in the first frame's left camera frame, by the motions.
        true_positions: the same by the poses.
    """

    errors: OdometryErrors
    positions: list[tuple[float, float]]
    true_positions: list[tuple[float, float]]


def recording_odometry(
    pairs: Sequence[tuple[int, int]], motions: Sequence[np.ndarray | None], poses: np.ndarray
) -> Odometry:
    """Odometry of the longest run of consecutive pairs.

    Args:
        pairs: numbers of the reference and of the other frame of each estimate, at least one.
        motions: of each pair, as of `odometry_errors`.
        poses: of all frames, float64 N x 4 x 4, left camera to world, m.
    """
    starts = [i for i, (a, b) in enumerate(pairwise(pairs), start=1) if a[1] != b[0]]
    bounds = [0, *starts, len(pairs)]
    first, last = max(pairwise(bounds), key=lambda bound: bound[1] - bound[0])
    frames = [pairs[first][0], *(pair[1] for pair in pairs[first:last])]
    true = np.linalg.inv(poses[frames[0]]) @ poses[frames]
    return Odometry(
        odometry_errors(motions[first:last], true),
        _ground_plane(trajectory(motions[first:last])),
        _ground_plane(true),
    )


def _ground_plane(poses: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(z)) for x, _, z in poses[:, :3, 3]]


def odometry_errors(motions: Sequence[np.ndarray | None], poses: np.ndarray) -> OdometryErrors:
    """Compare the ego-motions of consecutive frames with the true poses.

    Args:
        motions: N - 1 motions, at least one, float64 4 x 4, of points from each frame's left camera frame to the next one's,
            m; None where unknown.
        poses: float64 N x 4 x 4, true, left camera to world, m.
    """
    true_motions = [np.linalg.inv(b) @ a for a, b in pairwise(poses)]
    known = [(m, t) for m, t in zip(motions, true_motions, strict=True) if m is not None]
    errors = [motion_error(motion, true) for motion, true in known]
    distance = _distances(poses)[-1]
    compared = sum(float(np.linalg.norm(true[:3, 3])) for _, true in known)
    estimated = trajectory(motions, poses[0])
    by_segment = segment_errors(estimated, poses)
    count = len(by_segment)
    end = float(np.linalg.norm(estimated[-1, :3, 3] - poses[-1, :3, 3]))
    return OdometryErrors(
        pairs=len(true_motions),
        missing=len(true_motions) - len(known),
        distance_m=distance,
        frame_translation_percent=_percent(sum(t for t, _ in errors), compared),
        frame_rotation_degrees=math.degrees(sum(r for _, r in errors) / len(errors))
        if errors
        else None,
        segments=count,
        translation_percent=100 * sum(t for t, _ in by_segment) / count if count else None,
        rotation_degrees_per_m=math.degrees(sum(r for _, r in by_segment) / count)
        if count
        else None,
        absolute_trajectory_m=absolute_trajectory_error(estimated, poses),
        drift_percent=_percent(end, distance),
    )


def trajectory(motions: Sequence[np.ndarray | None], start: np.ndarray | None = None) -> np.ndarray:
    """Poses of the camera by its motions.

    Args:
        motions: as of `odometry_errors`. Where one is None the previous motion is repeated; before the first the camera rests.
        start: 4 x 4 pose of the first frame; None: the identity.

    Returns:
        float64 N x 4 x 4, left camera to world, m.
    """
    poses = [np.eye(4) if start is None else start]
    latest = np.eye(4)
    for motion in motions:
        latest = latest if motion is None else motion
        poses.append(poses[-1] @ np.linalg.inv(latest))
    return np.stack(poses)


def motion_error(motion: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Length, m, and angle, rad, of the difference of two rigid motions or poses, 4 x 4."""
    difference = np.linalg.inv(motion) @ true
    # The sine too: near 0 the cosine alone cannot tell small angles.
    axis = difference[[2, 0, 1], [1, 2, 0]] - difference[[1, 2, 0], [2, 0, 1]]
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(difference[:3, :3]) - 1) / 2
    return float(np.linalg.norm(difference[:3, 3])), math.atan2(sine, cosine)


def segment_errors(poses: np.ndarray, true_poses: np.ndarray) -> list[tuple[float, float]]:
    """Errors over all segments of `SEGMENT_LENGTHS` along the true trajectory.

    Args:
        poses: float64 N x 4 x 4, camera to world, m; only motions between them count.
        true_poses: the same.

    Returns:
        for each segment its error in translation (m per m) and in rotation (rad per m).
    """
    distances = _distances(true_poses)
    errors = []
    for first in range(0, len(true_poses), _SEGMENT_STEP):
        for length in SEGMENT_LENGTHS:
            last = int(np.searchsorted(distances, distances[first] + length, side="right"))
            if last == len(true_poses):
                break
            motion, true = (np.linalg.inv(p[first]) @ p[last] for p in (poses, true_poses))
            translation, rotation = motion_error(motion, true)
            errors.append((translation / length, rotation / length))
    return errors


def absolute_trajectory_error(poses: np.ndarray, true_poses: np.ndarray) -> float:
    """Root mean square distance, m, of the positions after the rigid alignment that makes it smallest.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, without scale.

    Args:
        poses: float64 N x 4 x 4, camera to world, m.
        true_poses: the same.
    """
    positions = poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)
    true = true_poses[:, :3, 3] - true_poses[:, :3, 3].mean(axis=0)
    u, _, v = np.linalg.svd(true.T @ positions)
    handed = np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))])
    difference = true - positions @ (u @ handed @ v).T
    return math.sqrt(float(np.mean(np.sum(difference**2, axis=1))))


def _distances(poses: np.ndarray) -> list[float]:
    """Length of the trajectory up to each pose, m."""
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    return [0.0, *np.cumsum(steps).tolist()]


def _percent(part: float, whole: float) -> float | None:
    return 100 * part / whole if whole > 0 else None
