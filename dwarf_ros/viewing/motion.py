"""Moving objects with lasting ids and the camera's trajectory, over results in order of time."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from dwarf_ros.motion.refinement import refine
from dwarf_ros.motion.rigid import exponential, logarithm
from dwarf_ros.motion.tracking import Tracker
from dwarf_ros.types import SceneFlow, StereoFrame
from dwarf_ros.viewing.results import Result

_LONGEST_GAP = 1.0
"""Time between results, s, beyond which the trajectory starts anew; so it does where time runs backwards."""

_LONGEST_TRAJECTORY = 2000


class MotionHistory:
    """Adds objects and the trajectory to results: `add` each in order of time."""

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._latest: SceneFlow | None = None
        self._pose = np.eye(4)
        self._positions: deque[np.ndarray] = deque(maxlen=_LONGEST_TRAJECTORY)

    def add(self, result: Result) -> Result:
        """The result with its objects and the trajectory up to it."""
        scene_flow = result.scene_flow
        objects = self._tracker.update(scene_flow)
        motion = self._motion_since_latest(scene_flow)
        self._latest = scene_flow
        if motion is None:
            self._positions.clear()
            self._pose = np.eye(4)
        else:
            self._pose = self._pose @ np.linalg.inv(motion)
        self._positions.append(self._pose[:3, 3].copy())
        # From the first frame's axes to this one's.
        trajectory = (np.array(self._positions) - self._pose[:3, 3]) @ self._pose[:3, :3]
        return replace(result, objects=objects, trajectory=trajectory)

    def _motion_since_latest(self, scene_flow: SceneFlow) -> np.ndarray | None:
        """4 x 4 motion of static points from the latest reference's camera frame to this one's; None where unknown."""
        latest = self._latest
        if latest is None:
            return None
        gap = (scene_flow.stamp - latest.stamp) * 1e-9
        # With a positive dt the earlier estimate spans the time between both, otherwise the later one.
        source = latest if latest.dt > 0 else scene_flow
        ego_motion = source.ego_motion
        if not 0 < gap <= _LONGEST_GAP or ego_motion is None or ego_motion.transform is None:
            return None
        if source.dt == 0:
            return None
        return exponential(logarithm(ego_motion.transform) * (gap / source.dt))


def with_motion(scene_flow: SceneFlow, reference: StereoFrame, other: StereoFrame) -> SceneFlow:
    """The scene flow with ego-motion and motion mask where it has none; its maps are unchanged.

    Args:
        scene_flow: an estimate, refined or not.
        reference: the frame that it is of.
        other: the other frame.
    """
    if scene_flow.ego_motion is not None and scene_flow.motion_mask is not None:
        return scene_flow
    refined = refine(scene_flow, reference.left, other.left, reference.right)
    return replace(scene_flow, ego_motion=refined.ego_motion, motion_mask=refined.motion_mask)
