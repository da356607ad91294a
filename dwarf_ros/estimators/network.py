"""Scene flow by the DWARF network: images of any size in, padded, run by an engine, cropped, signs turned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dwarf_ros.estimators.pair import lands_inside, require_one_size, seconds_between
from dwarf_ros.geometry import aligned_frame
from dwarf_ros.types import SceneFlow, StereoFrame


class NetworkEstimator:
    """A network with trained weights, run by an engine.

    The images are reflected at their borders to a multiple of 64 px, evenly around (an odd pixel at the bottom or
    right). `valid` is True where both disparities are positive and the flow points into the image.

    Reference: Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020.
    """

    def __init__(
        self,
        weights: Path,
        preset: str | None = None,
        engine: str = "auto",
        precision: str = "f32",
    ) -> None:
        """Load the weights and make the engine ready.

        Args:
            weights: a weights file.
            preset: what the weights must be of; None takes the preset that the file is of.
            engine: `tensorflow`, `openvino`, `onnxruntime` or `auto`.
            precision: `f32`, `tf32`, `bf16`, `int8` or `auto`; see `engines.load_engine`.

        Raises:
            InputError: the file is missing, damaged or of another preset, or the engine is unknown or not installed, or
                does not compute in that precision.
        """
        from dwarf_ros.engines import choose_engine, load_engine
        from dwarf_ros.engines.source import NetworkSource

        # First, because a GPU's memory is settled before the network is placed on it.
        self.engine: str = choose_engine(engine)
        network = NetworkSource(weights, preset)
        self.name: str = network.name
        self._engine = load_engine(self.engine, network, precision)

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
        height, width = previous.left.shape[:2]
        margin = padding(height, width)
        views = {
            "left_t0": previous.left,
            "right_t0": previous.right,
            "left_t1": current.left,
            "right_t1": current.right,
        }
        outputs = self._engine.run(
            {name: _network_input(image, margin) for name, image in views.items()}
        )
        (top, _), (left, _), _ = margin
        motion = {
            name: output[0, top : top + height, left : left + width]
            for name, output in outputs.items()
        }
        disparity = _positive_disparity(motion["disparity"])
        disparity_next = _positive_disparity(motion["disparity_change"])
        flow = np.ascontiguousarray(motion["forward_flow"])
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


def padding(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Pixels to add before and after each axis of an H x W x C image to make it fit the network.

    Both sides become multiples of 64 px; an odd pixel goes to the bottom or right.
    """
    from dwarf_ros.network.presets import SIZE_MULTIPLE

    rows, columns = -height % SIZE_MULTIPLE, -width % SIZE_MULTIPLE
    return (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)


def _network_input(
    image: np.ndarray, margin: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
) -> np.ndarray:
    padded = np.pad(image, margin, mode="reflect")
    return (padded.astype(np.float32) / np.float32(255))[None]


def _positive_disparity(prediction: np.ndarray) -> np.ndarray:
    # The network's disparities are x_right - x_left.
    disparity = -prediction[..., 0]
    disparity[~(disparity > 0)] = np.nan
    return disparity
