"""Error measures of disparity, optical flow and 3D scene flow.

NaN means unknown in all arrays. Counts and sums can be added (`a + b`), so that figures over many images are pooled over all
pixels instead of being averages of averages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from dwarf_ros.types import InputError

# KITTI's outlier: more than 3 px and more than 5 % of the true magnitude.
OUTLIER_PX = 3.0
OUTLIER_RELATIVE = 0.05

# Added to the true motion, m, before dividing by it, as PointPWC-Net's evaluation does.
_MOTION_FLOOR = 1e-4


class Additive:
    """Base of dataclasses of counts and sums: `a + b` adds them field by field, and dicts key by key."""

    def __add__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return type(self)(*(add(getattr(self, name), getattr(other, name)) for name in names))


def add(a: Any, b: Any) -> Any:
    """Sum of two values, or of two dicts key by key; a key that only one of them has keeps its value."""
    if isinstance(a, dict):
        return {**a, **{key: add(a[key], value) if key in a else value for key, value in b.items()}}
    return a + b


def disparity_error(estimate: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Absolute disparity error, px.

    Args:
        estimate: float32, any shape, px; NaN where unknown.
        ground_truth: the same.

    Returns:
        float32, the same shape; NaN where either is unknown.

    Raises:
        InputError: the shapes differ.
    """
    _check_shapes(estimate, ground_truth, "disparity")
    return np.abs(estimate - ground_truth)


def end_point_error(estimate: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Euclidean distance between vectors: end-point error of optical flow (px) or of 3D motion (m).

    Args:
        estimate: float32 ... x C; NaN where unknown.
        ground_truth: the same.

    Returns:
        float32, the shape without its last axis; NaN where either is unknown.

    Raises:
        InputError: the shapes differ.
    """
    _check_shapes(estimate, ground_truth, "vector field")
    return magnitude(estimate - ground_truth)


def magnitude(vectors: np.ndarray) -> np.ndarray:
    """Length of vectors: float32 ... x C to float32 without the last axis."""
    squares = np.square(vectors[..., 0])
    for channel in range(1, vectors.shape[-1]):
        squares += np.square(vectors[..., channel])
    return np.sqrt(squares)


def disparity_outliers(estimate: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """KITTI's outliers of a disparity map: error > 3 px and > 5 % of the true disparity (Menze and Geiger, CVPR 2015).

    Args:
        estimate: float32, any shape, px; NaN where unknown.
        ground_truth: the same.

    Returns:
        bool, the same shape; False where the ground truth is unknown, True where only the estimate is.

    Raises:
        InputError: the shapes differ.
    """
    return _outliers(disparity_error(estimate, ground_truth), np.abs(ground_truth))


def flow_outliers(estimate: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """KITTI's outliers of optical flow: end-point error > 3 px and > 5 % of the true length (Menze and Geiger, CVPR 2015).

    Args:
        estimate: float32 ... x 2, px; NaN where unknown.
        ground_truth: the same.

    Returns:
        bool, the shape without its last axis; False where the ground truth is unknown, True where only the estimate is.
        Where the true flow is 0, the 3 px alone decide.

    Raises:
        InputError: the shapes differ.
    """
    return _outliers(end_point_error(estimate, ground_truth), magnitude(ground_truth))


@dataclass(frozen=True)
class PixelErrors(Additive):
    """Sums of errors in px; two of them can be added.

    Attributes:
        total: sum of all errors, px.
        over_1, over_3, over_5: pixels with an error above 1, 3 and 5 px.
        outliers: pixels that are outliers by KITTI's rule (> 3 px and > 5 %).
        pixels: pixels where both the estimate and the ground truth are known.
        missing: pixels where only the ground truth is known; not included in the other fields.
    """

    total: float = 0.0
    over_1: int = 0
    over_3: int = 0
    over_5: int = 0
    outliers: int = 0
    pixels: int = 0
    missing: int = 0

    @property
    def mean(self) -> float:
        """Mean error, px; NaN if nothing was counted."""
        return _ratio(self.total, self.pixels)

    @property
    def rate_1(self) -> float:
        """Per cent of pixels with an error above 1 px; NaN if nothing was counted."""
        return 100 * _ratio(self.over_1, self.pixels)

    @property
    def rate_3(self) -> float:
        """Per cent of pixels with an error above 3 px; NaN if nothing was counted."""
        return 100 * _ratio(self.over_3, self.pixels)

    @property
    def rate_5(self) -> float:
        """Per cent of pixels with an error above 5 px; NaN if nothing was counted."""
        return 100 * _ratio(self.over_5, self.pixels)

    @property
    def outlier_rate(self) -> float:
        """Per cent of KITTI outliers; NaN if nothing was counted."""
        return 100 * _ratio(self.outliers, self.pixels)

    @property
    def density(self) -> float:
        """Per cent of the pixels with ground truth that have an estimate; NaN if there are none."""
        return 100 * _ratio(self.pixels, self.pixels + self.missing)


def disparity_errors(estimate: np.ndarray, ground_truth: np.ndarray) -> PixelErrors:
    """Sum the errors of a disparity map: float32, one shape, px, NaN where unknown.

    Raises:
        InputError: the shapes differ.
    """
    error = disparity_error(estimate, ground_truth)
    return _pixel_errors(error, np.abs(ground_truth))


def flow_errors(estimate: np.ndarray, ground_truth: np.ndarray) -> PixelErrors:
    """Sum the end-point errors of optical flow: float32 ... x 2, one shape, px, NaN where unknown.

    Raises:
        InputError: the shapes differ.
    """
    error = end_point_error(estimate, ground_truth)
    return _pixel_errors(error, magnitude(ground_truth))


@dataclass(frozen=True)
class MotionErrors(Additive):
    """Sums of errors of 3D motion; two of them can be added.

    The measures are those of FlowNet3D (Liu, Qi and Guibas, CVPR 2019) and PointPWC-Net (Wu et al., ECCV 2020), but pooled
    over points instead of averaged over scenes.

    Attributes:
        total: sum of all 3D end-point errors, m.
        strict: points with an error below 0.05 m or below 5 % of the true motion (Acc3DS).
        relaxed: points with an error below 0.1 m or below 10 % (Acc3DR).
        outliers: points with an error above 0.3 m or above 10 % (Outliers3D).
        points: points where both the estimate and the ground truth are known.
    """

    total: float = 0.0
    strict: int = 0
    relaxed: int = 0
    outliers: int = 0
    points: int = 0

    @property
    def mean(self) -> float:
        """Mean 3D end-point error (EPE3D), m; NaN if nothing was counted."""
        return _ratio(self.total, self.points)

    @property
    def accuracy_strict(self) -> float:
        """Per cent of points below 0.05 m or 5 %; NaN if nothing was counted."""
        return 100 * _ratio(self.strict, self.points)

    @property
    def accuracy_relaxed(self) -> float:
        """Per cent of points below 0.1 m or 10 %; NaN if nothing was counted."""
        return 100 * _ratio(self.relaxed, self.points)

    @property
    def outlier_rate(self) -> float:
        """Per cent of points above 0.3 m or 10 %; NaN if nothing was counted."""
        return 100 * _ratio(self.outliers, self.points)


def motion_errors(estimate: np.ndarray, ground_truth: np.ndarray) -> MotionErrors:
    """Sum the errors of 3D motion.

    Args:
        estimate: displacement of each point from one frame to the other, float32 ... x 3, m; NaN where unknown.
        ground_truth: the same.

    Raises:
        InputError: the shapes differ.
    """
    error = end_point_error(estimate, ground_truth)
    known = np.isfinite(error)
    error = error[known].astype(np.float64)
    relative = error / (magnitude(ground_truth)[known] + _MOTION_FLOOR)
    return MotionErrors(
        total=float(error.sum()),
        strict=int(np.count_nonzero((error < 0.05) | (relative < 0.05))),
        relaxed=int(np.count_nonzero((error < 0.1) | (relative < 0.1))),
        outliers=int(np.count_nonzero(motion_outliers(estimate, ground_truth))),
        points=error.size,
    )


@dataclass(frozen=True)
class BandErrors:
    """Sums of errors by bands of another quantity, such as distance; two with the same bands can be added.

    Attributes:
        edges: limits of the bands, rising, one more than there are bands; the last may be infinite. A band includes its lower
            edge.
        total: sum of the errors in each band.
        outliers: outliers in each band.
        pixels: pixels counted in each band.
    """

    edges: tuple[float, ...]
    total: tuple[float, ...]
    outliers: tuple[int, ...]
    pixels: tuple[int, ...]

    def __add__(self, other: BandErrors) -> BandErrors:
        pairs = zip(self._sums(), other._sums(), strict=True)
        sums = (tuple(x + y for x, y in zip(a, b, strict=True)) for a, b in pairs)
        return BandErrors(self.edges, *sums)

    def _sums(self) -> tuple[tuple, tuple, tuple]:
        return self.total, self.outliers, self.pixels

    @property
    def means(self) -> tuple[float, ...]:
        """Mean error of each band; NaN if nothing was counted."""
        return tuple(map(_ratio, self.total, self.pixels))

    @property
    def outlier_rates(self) -> tuple[float, ...]:
        """Per cent of outliers in each band; NaN if nothing was counted."""
        return tuple(
            100 * _ratio(*counts) for counts in zip(self.outliers, self.pixels, strict=True)
        )


def errors_by_band(
    error: np.ndarray, outlier: np.ndarray, quantity: np.ndarray, edges: tuple[float, ...]
) -> BandErrors:
    """Sum errors by bands of a quantity.

    Args:
        error: float32, any shape, px or m; NaN where unknown.
        outlier: bool, the same shape.
        quantity: float32, the same shape, in the unit of the edges; NaN where unknown.
        edges: of the bands, rising; values outside are not counted.
    """
    bands = len(edges) - 1
    band = np.searchsorted(np.array(edges), quantity, side="right") - 1
    counted = np.isfinite(error) & np.isfinite(quantity) & (band >= 0) & (band < bands)
    band = band[counted]
    return BandErrors(
        edges,
        tuple(np.bincount(band, error[counted], bands).tolist()),
        tuple(np.bincount(band[outlier[counted]], minlength=bands).tolist()),
        tuple(np.bincount(band, minlength=bands).tolist()),
    )


def motion_outliers(estimate: np.ndarray, ground_truth: np.ndarray) -> np.ndarray:
    """Outliers of 3D motion: error > 0.3 m or > 10 % of the true motion (FlowNet3D's and PointPWC-Net's Outliers3D).

    Args:
        estimate: displacement of each point, float32 ... x 3, m; NaN where unknown.
        ground_truth: the same.

    Returns:
        bool, the shape without its last axis; False where either is unknown.

    Raises:
        InputError: the shapes differ.
    """
    error = end_point_error(estimate, ground_truth).astype(np.float64)
    return (error > 0.3) | (error / (magnitude(ground_truth) + _MOTION_FLOOR) > 0.1)


def area_under_sparsification(error: np.ndarray, confidence: np.ndarray) -> float:
    """Area under the sparsification error (AUSE): how far the order of the confidence is from that of the error.

    The mean error of the most confident part of the pixels less that of the part with the smallest errors, averaged over
    parts from nothing to all (Ilg et al., "Uncertainty Estimates and Multi-Hypotheses Networks for Optical Flow", ECCV 2018,
    without their division by the mean error). 0: the confidence falls wherever the error rises. Pixels of the same
    confidence are in random order, so that a constant confidence gives the same value everywhere.

    Args:
        error: float32, any shape, px or m; NaN where unknown.
        confidence: float32 or bool, the same shape; larger is better; NaN where unknown.

    Returns:
        px or m, >= 0; NaN where nothing is known.

    Raises:
        InputError: the shapes differ.
    """
    _check_shapes(confidence, error, "confidence")
    known = np.isfinite(error) & np.isfinite(confidence)
    error, confidence = error[known].astype(np.float64), confidence[known].astype(np.float64)
    if error.size == 0:
        return math.nan
    _, level, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    expected = np.repeat(np.bincount(level, error) / count, count)
    kept = np.arange(1, error.size + 1)
    by_confidence = np.cumsum(expected) / kept
    by_error = np.cumsum(np.sort(error)) / kept
    return float(np.mean(by_confidence - by_error))


@dataclass(frozen=True)
class Sparsification(Additive):
    """Areas under the sparsification error (AUSE) of images; those of two can be added.

    Attributes:
        total: sum over the images, px.
        images: how many there are.
    """

    total: float = 0.0
    images: int = 0

    @classmethod
    def of(cls, error: np.ndarray, confidence: np.ndarray | None) -> Sparsification:
        """Of one image, as `area_under_sparsification`; of none where nothing is known."""
        if confidence is None:
            return cls()
        area = area_under_sparsification(error, confidence)
        return cls() if math.isnan(area) else cls(area, 1)

    @property
    def mean(self) -> float:
        """Mean over the images, px; NaN if there are none."""
        return _ratio(self.total, self.images)


def _outliers(error: np.ndarray, true_magnitude: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = error / true_magnitude
    # The development kit divides in single precision and compares with the double 0.05, which is just below its
    # single-precision neighbor: an error of exactly 5 % is an outlier there.
    outlier = (error > OUTLIER_PX) & (relative >= np.float32(OUTLIER_RELATIVE))
    return outlier | (np.isnan(error) & ~np.isnan(true_magnitude))


def _pixel_errors(error: np.ndarray, true_magnitude: np.ndarray) -> PixelErrors:
    known = np.isfinite(error)
    missing = np.count_nonzero(~known & np.isfinite(true_magnitude))
    outliers = np.count_nonzero(_outliers(error, true_magnitude) & known)
    error = error[known]
    return PixelErrors(
        total=float(error.sum(dtype=np.float64)),
        over_1=int(np.count_nonzero(error > 1)),
        over_3=int(np.count_nonzero(error > 3)),
        over_5=int(np.count_nonzero(error > 5)),
        outliers=int(outliers),
        pixels=error.size,
        missing=int(missing),
    )


def _check_shapes(estimate: np.ndarray, ground_truth: np.ndarray, what: str) -> None:
    if estimate.shape != ground_truth.shape:
        raise InputError(
            f"{what}: estimate has shape {estimate.shape} but the ground truth {ground_truth.shape}, expected one shape"
        )


def _ratio(part: float, whole: int) -> float:
    return part / whole if whole else math.nan
