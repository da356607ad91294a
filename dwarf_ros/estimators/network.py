"""Scene flow by the DWARF network, for images of any size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dwarf_ros.estimators.pair import lands_inside, require_one_size, seconds_between
from dwarf_ros.geometry import aligned_frame
from dwarf_ros.network.codec import decode, encode
from dwarf_ros.types import SceneFlow, StereoFrame

if TYPE_CHECKING:
    from dwarf_ros.engines import Engine


class NetworkEstimator:
    """A network run by an engine.

    The images are reflected at their borders to a multiple of 64 px, evenly on both sides (an odd pixel goes to the bottom
    or right). `valid` is True where both disparities are positive and the flow points into the image.

    Reference: Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020.

    Attributes:
        name: of the network's preset.
        engine: name of the engine.
    """

    def __init__(self, name: str, engine: Engine) -> None:
        """Estimate with a network that an engine has loaded.

        Args:
            name: of the network's preset.
            engine: runs the network.
        """
        self.name, self.engine, self._engine = name, engine.name, engine

    def warm_up(self, width: int, height: int) -> None:
        """Compile the network for images of this size, px; takes seconds to minutes the first time."""
        black = np.zeros((height, width, 3), np.uint8)
        self.estimate(StereoFrame(black, black), StereoFrame(black, black, stamp=1))

    def estimate(self, previous: StereoFrame, current: StereoFrame) -> SceneFlow:
        """Scene flow from the first frame, the reference, to the second.

        Returns:
            SceneFlow with the first frame's stamp, camera (aligned, see `aligned_frame`) and frame_id; dt is negative where
            it is the newer one. Flow
            is given everywhere, disparities where they are positive.

        Raises:
            InputError: the frames differ in size.
        """
        require_one_size(previous, current)
        previous, current = aligned_frame(previous), aligned_frame(current)
        images = np.stack([previous.left, previous.right, current.left, current.right])
        outputs = self._engine.run(encode(images[None]))
        disparity, disparity_next, flow = decode(outputs, *images.shape[1:3])
        return known_scene_flow(disparity[0], disparity_next[0], flow[0], previous, current)


def known_scene_flow(
    disparity: np.ndarray,
    disparity_next: np.ndarray,
    flow: np.ndarray,
    previous: StereoFrame,
    current: StereoFrame,
) -> SceneFlow:
    """SceneFlow of two frames from one item of what `network.codec.decode` returns; disparities <= 0 become NaN."""
    disparity, disparity_next = (
        np.where(values > 0, values, np.float32(np.nan)) for values in (disparity, disparity_next)
    )
    return SceneFlow(
        disparity=disparity,
        disparity_next=disparity_next,
        flow=flow,
        valid=lands_inside(flow) & np.isfinite(disparity) & np.isfinite(disparity_next),
        stamp=previous.stamp,
        dt=seconds_between(previous, current),
        camera=previous.camera,
        frame_id=previous.frame_id,
    )
