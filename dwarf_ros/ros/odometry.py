"""The camera's path, accumulated from the ego-motion of consecutive estimates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dwarf_ros.motion.rigid import cross_matrices, exponential, logarithm
from dwarf_ros.recordings.bag.transforms import MAP_FROM_OPTICAL
from dwarf_ros.types import SceneFlow, StereoCamera, same_camera

LONGEST_GAP_S = 1.0
"""Time without an estimate that constant velocity bridges; after a longer one the path starts anew."""


@dataclass(frozen=True, eq=False)
class Pose:
    """Where the left camera is, and how it moves, at the reference's time.

    Attributes:
        pose: float64 4 x 4, from the left camera's optical frame to the frame odom, m.
        pose_covariance: float64 6 x 6 (translation in m, rotation in rad) along the axes of odom.
        twist: float64 6, linear m/s and angular rad/s, along the axes of the optical frame.
        twist_covariance: float64 6 x 6.
    """

    pose: np.ndarray
    pose_covariance: np.ndarray
    twist: np.ndarray
    twist_covariance: np.ndarray


class Odometry:
    """Accumulates ego-motion into a path that starts at the origin.

    It starts anew where time runs backwards or jumps by over `LONGEST_GAP_S`, and where the calibration or the direction
    in time changes. Shorter gaps, of frames that were not estimated, are bridged at constant velocity.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start anew at the origin."""
        self._pose = np.eye(4)
        self._covariance = np.zeros((6, 6))
        self._reached: int | None = None
        self._camera: StereoCamera | None = None
        self._forward = False

    def update(self, scene_flow: SceneFlow) -> Pose | None:
        """The pose of the reference frame's camera; None where the scene flow has no ego-motion.

        Args:
            scene_flow: of the pair after that of the previous call.
        """
        ego_motion, dt = scene_flow.ego_motion, scene_flow.dt
        if ego_motion is None or ego_motion.transform is None or ego_motion.covariance is None:
            return None
        if dt == 0:
            return None
        first, last = sorted((scene_flow.stamp, scene_flow.other_stamp))
        forward = dt > 0
        # Motion of the camera from the earlier frame to the later one, in the earlier one's axes, and its covariance in
        # the later one's.
        step, covariance = ego_motion.transform, ego_motion.covariance
        if forward:
            adjoint = _adjoint(step)
            step, covariance = np.linalg.inv(step), adjoint @ covariance @ adjoint.T
        velocity = logarithm(step) / abs(dt)
        gap = 0.0 if self._reached is None else (first - self._reached) * 1e-9
        if (
            not -1e-6 <= gap <= LONGEST_GAP_S
            or not same_camera(self._camera, scene_flow.camera)
            or self._forward != forward
        ):
            self.reset()
            gap = 0.0
        if gap > 0:
            # The velocity of the gap is a guess: as uncertain as the step itself, over its time.
            self._advance(exponential(velocity * gap), covariance * (gap / dt) ** 2)
        self._camera, self._forward = scene_flow.camera, forward
        self._reached = last
        twist_covariance = covariance / dt**2
        if forward:
            pose = self._at(velocity, twist_covariance)
            self._advance(step, covariance)
            return pose
        self._advance(step, covariance)
        return self._at(velocity, twist_covariance)

    def _advance(self, step: np.ndarray, covariance: np.ndarray) -> None:
        adjoint = _adjoint(np.linalg.inv(step))
        self._pose = self._pose @ step
        self._covariance = adjoint @ self._covariance @ adjoint.T + covariance

    def _at(self, twist: np.ndarray, twist_covariance: np.ndarray) -> Pose:
        pose = MAP_FROM_OPTICAL @ self._pose
        turn = np.kron(np.eye(2), pose[:3, :3])
        return Pose(pose, turn @ self._covariance @ turn.T, twist, twist_covariance)


def _adjoint(motion: np.ndarray) -> np.ndarray:
    """6 x 6 matrix that takes small motions (translation, rotation) from one frame's axes to the other's."""
    rotation = motion[:3, :3]
    adjoint = np.kron(np.eye(2), rotation)
    adjoint[:3, 3:] = cross_matrices(motion[:3, 3]) @ rotation
    return adjoint
