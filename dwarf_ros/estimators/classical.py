"""Scene flow without learning: disparity by semi-global matching, optical flow by dense inverse search."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from dwarf_ros.estimators.pair import lands_inside, require_one_size, seconds_between
from dwarf_ros.geometry import aligned_camera, aligned_frame
from dwarf_ros.types import SceneFlow, StereoFrame

# OpenCV's matchers read beyond the border of smaller images or reject them.
_SMALLEST_SIDE = 128


class ClassicalEstimator:
    """Disparity by OpenCV's SGBM, optical flow by OpenCV's DIS; no weights, any size.

    Disparities are matched from left to right and, at half the size, from right to left, and kept where the two agree
    (within one pixel at half size). The disparity at the other time is sampled where the flow points. `valid` is True where
    the disparity is known at both times, the flow points into the image, and the backward flow returns to the pixel.

    Flow is given everywhere, including where it is not valid; disparities above an eighth of the width are not searched.

    References: Hirschmueller, "Stereo Processing by Semiglobal Matching and Mutual Information", PAMI 2008; Kroeger et
    al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016.
    """

    name = "classical"
    engine = "opencv"

    def __init__(self) -> None:
        # Full resolution is more accurate than the preset's half; fewer patches and iterations make up for the time. The
        # backward flow only confirms the forward flow, for which half resolution is enough.
        self._forward_flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._forward_flow.setFinestScale(0)
        self._forward_flow.setPatchStride(4)
        self._forward_flow.setVariationalRefinementIterations(3)
        self._backward_flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        # OpenCV uses one core for most of this, so the flows are computed in parallel with the disparities.
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="optical_flow")
        self._disparities: list[tuple[StereoFrame, np.ndarray]] = []

    def warm_up(self, width: int, height: int) -> None:
        """Nothing to prepare."""

    def estimate(self, previous: StereoFrame, current: StereoFrame) -> SceneFlow:
        """Scene flow from the first frame, the reference, to the second.

        The disparities of both frames are kept for the next call, because consecutive pairs share a frame (the same
        object).

        Returns:
            SceneFlow with the first frame's stamp, camera (aligned, see `aligned_frame`) and frame_id; dt is negative where
            it is the newer one.

        Raises:
            InputError: the frames differ in size.
        """
        require_one_size(previous, current)
        left, left_next = _enlarged(_gray(previous.left)), _enlarged(_gray(current.left))
        forward = self._threads.submit(self._forward_flow.calc, left, left_next, None)
        backward = self._threads.submit(self._backward_flow.calc, left_next, left, None)
        disparity, disparity_current = self._disparities_of(previous, current)
        height, width = disparity.shape
        flow = _bounded(forward.result()[:height, :width])
        confirmed = lands_inside(flow) & returns(flow, backward.result()[:height, :width])
        disparity_next = look_up(disparity_current, flow)
        return SceneFlow(
            disparity=disparity.copy(),
            disparity_next=disparity_next,
            flow=flow,
            valid=confirmed & np.isfinite(disparity) & np.isfinite(disparity_next),
            stamp=previous.stamp,
            dt=seconds_between(previous, current),
            camera=aligned_camera(previous.camera),
            frame_id=previous.frame_id,
        )

    def _disparities_of(self, *frames: StereoFrame) -> list[np.ndarray]:
        known = self._disparities
        self._disparities = []
        for frame in frames:
            found = [disparity for seen, disparity in known if seen is frame]
            disparity = found[0] if found else consistent_disparity(aligned_frame(frame))
            self._disparities.append((frame, disparity))
        return [disparity for _, disparity in self._disparities]


def consistent_disparity(frame: StereoFrame) -> np.ndarray:
    """Disparity of the frame's left image where matching from the right image, at half the size, agrees within 2 px.

    Returns:
        x_left - x_right, px, float32 H x W, > 0, in steps of 1/16; NaN where unknown.
    """
    left, right = _gray(frame.left), _gray(frame.right)
    height, width = left.shape
    left, right = _enlarged(left), _enlarged(right)
    search = 16 * max(1, -(-width // 128))
    from_left = _semi_global_matching(left, right, search)
    # The backward search only confirms, for which half the size works as well, at a seventh of the cost. Mirroring and
    # swapping the images turns the search from the right image into one from the left.
    from_right = _semi_global_matching(
        _halved(right)[:, ::-1], _halved(left)[:, ::-1], 16 * -(-search // 32)
    )[:, ::-1]

    rows, columns = (np.arange(length, dtype=np.int32) for length in left.shape)
    # Sixteenths of a pixel, rounded to the nearest column of the right image.
    column_right = columns - ((from_left.astype(np.int32) + 8) >> 4)
    seen = from_right[rows[:, None] // 2, np.clip(column_right, 0, len(columns) - 1) // 2]
    agree = (column_right >= 0) & (from_left > 0) & (seen > 0)
    agree &= np.abs(2 * seen.astype(np.int32) - from_left) <= 32
    sixteenths = np.where(agree, from_left, np.int16(-16))
    cv2.filterSpeckles(sixteenths, -16, 50, 32)

    disparity = sixteenths[:height, :width].astype(np.float32) / 16
    disparity[disparity <= 0] = np.nan
    return disparity


def look_up(disparity: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Disparity where the flow points, interpolated bilinearly.

    Args:
        disparity: of the image that the flow points into, px, float32 H x W; NaN where unknown.
        flow: (u, v), px, float32 H x W x 2.

    Returns:
        px, float32 H x W; NaN outside the image, and where one of the four surrounding pixels is unknown or differs
        from another by more than 1 px (a border between two surfaces).
    """
    height, width = disparity.shape
    x = np.arange(width, dtype=np.float32) + flow[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
    x0 = np.clip(np.floor(x), 0, max(width - 2, 0))
    y0 = np.clip(np.floor(y), 0, max(height - 2, 0))
    right, below = min(1, width - 1), min(1, height - 1) * width
    flat = disparity.ravel()
    index = y0.astype(np.int32) * width + x0.astype(np.int32)
    upper_left, upper_right = flat.take(index), flat.take(index + right)
    lower_left, lower_right = flat.take(index + below), flat.take(index + below + right)
    nearest = np.minimum(np.minimum(upper_left, upper_right), np.minimum(lower_left, lower_right))
    farthest = np.maximum(np.maximum(upper_left, upper_right), np.maximum(lower_left, lower_right))
    weight_x, weight_y = x - x0, y - y0
    upper = upper_left + weight_x * (upper_right - upper_left)
    lower = lower_left + weight_x * (lower_right - lower_left)
    found = upper + weight_y * (lower - upper)
    found[~(lands_inside(flow) & (farthest - nearest <= 1))] = np.nan
    return found


def returns(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Whether the backward flow leads from a pixel's target back to the pixel.

    Args:
        forward: (u, v) from the first image to the second, px, float32 H x W x 2.
        backward: the same from the second to the first.

    Returns:
        bool H x W: True where the path forward and back ends within 1 px + 5 % of the flow's length.
    """
    height, width = forward.shape[:2]
    x = np.arange(width, dtype=np.float32) + forward[..., 0]
    y = np.arange(height, dtype=np.float32)[:, None] + forward[..., 1]
    back = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    astray = np.hypot(forward[..., 0] + back[..., 0], forward[..., 1] + back[..., 1])
    return astray <= 1 + 0.05 * np.hypot(forward[..., 0], forward[..., 1])


def _semi_global_matching(reference: np.ndarray, other: np.ndarray, search: int) -> np.ndarray:
    # Without a margin SGBM leaves the first `search` columns empty.
    reference, other = (
        cv2.copyMakeBorder(image, 0, 0, search, 0, cv2.BORDER_REPLICATE)
        for image in (reference, other)
    )
    block = 3
    matcher = cv2.StereoSGBM.create(
        minDisparity=0,
        numDisparities=search,
        blockSize=block,
        P1=16 * block * block,
        P2=128 * block * block,
        preFilterCap=31,
        mode=cv2.STEREO_SGBM_MODE_SGBM_3WAY,
    )
    return matcher.compute(reference, other)[:, search:]


def _bounded(flow: np.ndarray) -> np.ndarray:
    # Longer flows are failures of DIS; a target that far outside the image is not valid in any case.
    reach = np.float32(2 * max(flow.shape[:2]))
    return np.clip(np.nan_to_num(flow, copy=False), -reach, reach)


def _gray(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def _halved(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    return cv2.resize(image, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)


def _enlarged(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    bottom, right = max(0, _SMALLEST_SIDE - height), max(0, _SMALLEST_SIDE - width)
    if not bottom and not right:
        return image
    return cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
