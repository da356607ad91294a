"""Consistency of scene flow with the images, with itself and with the known motion of the camera, without ground truth.

Errors of all pixels of many frames are pooled in histograms, so medians are over all pixels, in constant memory. These figures do
not know which pixels belong to moving objects, and the error itself must not decide it: every valid pixel counts, and the median
and the percentage within 3 px describe the static scene.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from dwarf_ros.estimators import Estimator
from dwarf_ros.evaluation.odometry import motion_error
from dwarf_ros.geometry import (
    aligned_frame,
    forward_backward_error,
    left_right_error,
    mirrored_frame,
    rigid_scene_flow,
    sample,
)
from dwarf_ros.metrics import OUTLIER_PX, Additive, end_point_error
from dwarf_ros.motion.ego_motion import estimate_ego_motion
from dwarf_ros.types import STATIC, InputError, SceneFlow, StereoFrame

# Width of the histogram's bins, px, and their number; the last bin holds all errors from 100 px.
_BIN = 0.01
_BINS = 10_001

# ITU-R BT.601; a grey image keeps its values.
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _no_errors() -> np.ndarray:
    return np.zeros(_BINS, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ErrorDistribution(Additive):
    """Histogram of errors in px; two of them can be added.

    Attributes:
        counts: int64, how many errors are nearest to 0, 0.01, 0.02 ... px; the last counts all from 100 px on.
        within_3: pixels with an error of at most 3 px.
    """

    counts: np.ndarray = field(default_factory=_no_errors)
    within_3: int = 0

    @classmethod
    def of(cls, error: np.ndarray, counted: np.ndarray | None = None) -> ErrorDistribution:
        """Count errors, px, any shape, NaN where unknown; only where `counted` (bool, the same shape) is True."""
        error = error[np.isfinite(error) if counted is None else np.isfinite(error) & counted]
        nearest = np.minimum(np.rint(error / np.float32(_BIN)), _BINS - 1).astype(np.int64)
        counts = np.bincount(nearest, minlength=_BINS).astype(np.int64)
        return cls(counts, int(np.count_nonzero(error <= OUTLIER_PX)))

    @property
    def pixels(self) -> int:
        """How many pixels were counted."""
        return int(self.counts.sum())

    def percentile(self, percent: float) -> float:
        """Error that at least this share of the pixels, %, does not exceed, px, to 0.01 px; NaN if nothing was counted."""
        if not self.pixels:
            return math.nan
        rank = max(1, math.ceil(self.pixels * percent / 100))
        return _BIN * int(np.searchsorted(np.cumsum(self.counts), rank))

    @property
    def median(self) -> float:
        """Median error, px, to 0.01 px; NaN if nothing was counted."""
        return self.percentile(50)

    @property
    def within_3_percent(self) -> float:
        """Per cent of pixels with an error of at most 3 px; NaN if nothing was counted."""
        return 100 * self.within_3 / self.pixels if self.pixels else math.nan


@dataclass(frozen=True)
class PhotometricError(Additive):
    """Absolute differences of grey levels, 0 ... 255, summed up; two of them can be added.

    Attributes:
        total: sum over the pixels, with the other image warped to the reference.
        total_unwarped: the same pixels, without warping the other image, as a baseline.
        pixels: valid pixels whose target lies in the other image.
    """

    total: float = 0.0
    total_unwarped: float = 0.0
    pixels: int = 0

    @property
    def mean(self) -> float:
        """Mean absolute difference, grey levels; NaN if nothing was counted."""
        return self.total / self.pixels if self.pixels else math.nan

    @property
    def mean_unwarped(self) -> float:
        """Mean absolute difference without warping, grey levels; NaN if nothing was counted."""
        return self.total_unwarped / self.pixels if self.pixels else math.nan


@dataclass(frozen=True)
class PhotometricErrors(Additive):
    """Photometric errors of the three images that scene flow warps to the reference's left image.

    Attributes:
        left_next: the other frame's left image, by the flow.
        right: the reference frame's right image, by the disparity.
        right_next: the other frame's right image, by the flow and the next disparity.
    """

    left_next: PhotometricError = PhotometricError()
    right: PhotometricError = PhotometricError()
    right_next: PhotometricError = PhotometricError()


@dataclass(frozen=True)
class RigidSceneErrors(Additive):
    """Deviation of scene flow from that of a static scene under a known camera motion.

    Attributes:
        flow: end-point errors of the optical flow, px.
        disparity_next: absolute errors of the next disparity, px.
    """

    flow: ErrorDistribution = field(default_factory=ErrorDistribution)
    disparity_next: ErrorDistribution = field(default_factory=ErrorDistribution)


@dataclass(frozen=True)
class CameraMotionErrors(Additive):
    """Sums of the deviations of camera motions from those of the poses; two of them can be added.

    Attributes:
        rotation: sum of the angles between the two rotations, degrees.
        translation: sum of the distances between the two translations, m.
        pairs: number of motions compared.
    """

    rotation: float = 0.0
    translation: float = 0.0
    pairs: int = 0

    @property
    def mean_rotation(self) -> float:
        """Mean angle, degrees; NaN if nothing was compared."""
        return self.rotation / self.pairs if self.pairs else math.nan

    @property
    def mean_translation(self) -> float:
        """Mean distance, m; NaN if nothing was compared."""
        return self.translation / self.pairs if self.pairs else math.nan


@dataclass(frozen=True)
class Consistency(Additive):
    """All figures that need no ground truth; two of them can be added.

    Attributes:
        photometric: see `photometric_errors`.
        left_right: see `left_right_errors`.
        forward_backward: see `forward_backward_errors`.
        rigid_scene: see `rigid_scene_errors`, with the motion of the poses; empty where they are not known.
        fitted_scene: the same with the motion that most of the estimate's own pixels agree on: how much of the estimate is
            one rigid motion, whatever the poses say. Empty without a camera.
        flicker: see `flicker_of`, by the motion of the poses where they are known.
        motion: the one motion against the other: what the poses' own error may be, or the estimate's.
    """

    photometric: PhotometricErrors = field(default_factory=PhotometricErrors)
    left_right: ErrorDistribution = field(default_factory=ErrorDistribution)
    forward_backward: ErrorDistribution = field(default_factory=ErrorDistribution)
    rigid_scene: RigidSceneErrors = field(default_factory=RigidSceneErrors)
    fitted_scene: RigidSceneErrors = field(default_factory=RigidSceneErrors)
    flicker: ErrorDistribution = field(default_factory=ErrorDistribution)
    motion: CameraMotionErrors = field(default_factory=CameraMotionErrors)


def check_consistency(
    scene_flow: SceneFlow,
    estimator: Estimator,
    reference: StereoFrame,
    other: StereoFrame,
    motion: np.ndarray | None = None,
) -> Consistency:
    """All the consistency figures of one estimate; the estimator runs twice more, backwards and on the mirrored pair.

    Args:
        scene_flow: estimated by the estimator for (reference, other), or to be compared with it.
        estimator: estimates the optical flow back and the right image's disparity.
        reference: the frame that the estimate is for.
        other: the other frame.
        motion: 4x4 rigid motion of points from the reference's camera frame to the other's, m; None where it is unknown.

    Raises:
        InputError: the frames differ in size, or there is a motion but no camera.
    """
    reference, other = aligned_frame(reference), aligned_frame(other)
    backward = estimator.estimate(other, reference)
    mirrored = estimator.estimate(mirrored_frame(reference), mirrored_frame(other))
    fitted = fitted_motion(scene_flow)
    best = fitted if motion is None else motion
    return Consistency(
        photometric_errors(scene_flow, reference, other),
        left_right_errors(scene_flow, mirrored.disparity[:, ::-1]),
        forward_backward_errors(scene_flow, backward.flow),
        RigidSceneErrors() if motion is None else rigid_scene_errors(scene_flow, motion),
        RigidSceneErrors() if fitted is None else rigid_scene_errors(scene_flow, fitted),
        ErrorDistribution() if best is None else flicker_of(scene_flow, backward, best),
        CameraMotionErrors()
        if motion is None or fitted is None
        else camera_motion_errors(fitted, motion),
    )


def fitted_motion(scene_flow: SceneFlow) -> np.ndarray | None:
    """The camera's motion, 4 x 4, by the estimate itself; None where it does not determine one."""
    ego_motion = scene_flow.ego_motion or estimate_ego_motion(scene_flow)
    return ego_motion.transform


def camera_motion_errors(motion: np.ndarray, true_motion: np.ndarray) -> CameraMotionErrors:
    """Compare two rigid motions (4x4, m)."""
    translation, rotation = motion_error(true_motion, motion)
    return CameraMotionErrors(math.degrees(rotation), translation, 1)


def flicker_of(
    scene_flow: SceneFlow, following: SceneFlow, motion: np.ndarray
) -> ErrorDistribution:
    """How much the estimated depth of static points changes from one frame to the next, other than by the camera's motion.

    Args:
        scene_flow: with a camera. Its valid pixels count; with a motion mask, the static ones of them.
        following: an estimate for the other frame.
        motion: 4x4 rigid motion of points from the reference's camera frame to the other's, m.

    Returns:
        absolute change, % of the depth. Points hidden in the other frame count too.

    Raises:
        InputError: the scene flow has no camera.
    """
    camera = scene_flow.camera
    if camera is None:
        raise InputError("scene flow: no camera, expected a calibration to compare depths")
    flow, expected = rigid_scene_flow(scene_flow.disparity, camera, motion)
    columns, rows = _pixel_grid(expected.shape)
    known = np.where(following.valid, following.disparity, np.float32(np.nan))
    found = sample(known, columns + flow[..., 0], rows + flow[..., 1])
    offset = np.float32(camera.cx - camera.cx_right)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = 100 * np.abs((expected - offset) / (found - offset) - 1)
    counted = scene_flow.valid & (found > offset)
    if scene_flow.motion_mask is not None:
        counted &= scene_flow.motion_mask == STATIC
    return ErrorDistribution.of(change, counted)


def motion_between(pose: np.ndarray, other_pose: np.ndarray) -> np.ndarray:
    """4x4 rigid motion of points from one camera's frame to another's, m, by their poses (4x4, camera to world, m)."""
    return np.linalg.inv(other_pose) @ pose


def rigid_scene_errors(
    scene_flow: SceneFlow, motion: np.ndarray, static: np.ndarray | None = None
) -> RigidSceneErrors:
    """Compare flow and next disparity with what disparity and camera motion predict.

    Args:
        scene_flow: with a camera.
        motion: 4x4 rigid motion of points from the reference's camera frame to the other's, m, from poses.
        static: bool H x W, pixels known to stand still; None counts every valid pixel, moving objects too.

    Raises:
        InputError: the scene flow has no camera.
    """
    if scene_flow.camera is None:
        raise InputError("scene flow: no camera, expected a calibration to predict a rigid scene")
    flow, disparity_next = rigid_scene_flow(scene_flow.disparity, scene_flow.camera, motion)
    counted = scene_flow.valid if static is None else scene_flow.valid & static
    return RigidSceneErrors(
        ErrorDistribution.of(end_point_error(scene_flow.flow, flow), counted),
        ErrorDistribution.of(np.abs(scene_flow.disparity_next - disparity_next), counted),
    )


def photometric_errors(
    scene_flow: SceneFlow, reference: StereoFrame, other: StereoFrame
) -> PhotometricErrors:
    """Warp the other three images to the reference's left image and compare grey levels (ITU-R BT.601, 0 ... 255).

    Valid pixels count whose target lies in the image that is warped. A point that is hidden there counts with the surface
    that hides it, so even the truth has an error at the borders of what is near.

    Raises:
        InputError: the frames differ in size from the scene flow.
    """
    left, right, left_next, right_next = (
        _gray(image) for image in (reference.left, reference.right, other.left, other.right)
    )
    for image in (left, left_next):
        if image.shape != scene_flow.disparity.shape:
            raise InputError(
                f"frames: images are {image.shape[1]} x {image.shape[0]} px, expected {scene_flow.disparity.shape[1]} "
                f"x {scene_flow.disparity.shape[0]} px as the scene flow"
            )
    columns, rows = _pixel_grid(left.shape)
    columns_next, rows_next = columns + scene_flow.flow[..., 0], rows + scene_flow.flow[..., 1]

    def compare(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> PhotometricError:
        difference = np.abs(sample(image, x, y) - left)
        counted = scene_flow.valid & np.isfinite(difference)
        return PhotometricError(
            float(difference[counted].sum(dtype=np.float64)),
            float(np.abs(image - left)[counted].sum(dtype=np.float64)),
            int(np.count_nonzero(counted)),
        )

    return PhotometricErrors(
        compare(left_next, columns_next, rows_next),
        compare(right, columns - scene_flow.disparity, rows),
        compare(right_next, columns_next - scene_flow.disparity_next, rows_next),
    )


def left_right_errors(scene_flow: SceneFlow, right_disparity: np.ndarray) -> ErrorDistribution:
    """Compare a pixel's disparity with that of the right image's pixel it leads to.

    Args:
        scene_flow: its valid pixels count whose partner lies in the right image and has a disparity.
        right_disparity: of the right image, x_left - x_right at each of its pixels, px, float32 H x W; NaN where unknown.

    Returns:
        absolute differences, px. Points hidden from the right camera count too.
    """
    error = left_right_error(scene_flow.disparity, right_disparity)
    return ErrorDistribution.of(error, scene_flow.valid)


def forward_backward_errors(scene_flow: SceneFlow, backward_flow: np.ndarray) -> ErrorDistribution:
    """Follow the flow to the other frame and the backward flow from there: how far from the pixel it ends.

    Args:
        scene_flow: its valid pixels count whose target lies in the other image.
        backward_flow: from the other frame's left image to the reference's, px, float32 H x W x 2; NaN where unknown.

    Returns:
        distances, px. Points hidden in the other frame count too.
    """
    error = forward_backward_error(scene_flow.flow, backward_flow)
    return ErrorDistribution.of(error, scene_flow.valid)


def _gray(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) @ _LUMA


def _pixel_grid(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape
    columns = np.arange(width, dtype=np.float32)[None, :]
    rows = np.arange(height, dtype=np.float32)[:, None]
    return np.broadcast_to(columns, shape), np.broadcast_to(rows, shape)
