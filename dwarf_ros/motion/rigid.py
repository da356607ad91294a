"""Robust fit of one rigid motion to scene flow: residuals in the image, weighted by what their noise allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dwarf_ros.types import StereoCamera

FLOW_SIGMA = 0.35
"""Standard deviation of optical flow that is right, px."""

DISPARITY_SIGMA = 0.7
"""Standard deviation of a disparity that is right, px."""

SHARED_FLOW_SIGMA = 0.045
SHARED_DISPARITY_SIGMA = 0.09
SHARED_FLOW_SCALE = 0.0045
"""Errors that all pixels have in common: of the flow, px, the disparities, px, and of the flow as a part of its length;
all of them where the noise is as expected, and in proportion to it."""

_BETWEEN_CELLS = 3.0
"""By how much variances are larger than if cells of the image were independent."""

_NEAREST = 0.05
"""A point that comes nearer than this to the camera's plane, m, is behind it."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Points of the reference and where scene flow sees them in the other frame.

    Attributes:
        points: float64 N x 3, in the reference's left camera frame, m.
        seen: float64 N x 3, column, row and disparity in the other frame, px; the disparity may be NaN.
        weights: float64 N, how much each counts.
        cells: int N, part of the image each is in; errors within one are taken as dependent.
        camera: calibration.
    """

    points: np.ndarray
    seen: np.ndarray
    weights: np.ndarray
    cells: np.ndarray
    camera: StereoCamera

    def __len__(self) -> int:
        return len(self.points)

    def take(self, chosen: np.ndarray) -> Matches:
        """Some of the matches."""
        return Matches(
            self.points[chosen],
            self.seen[chosen],
            self.weights[chosen],
            self.cells[chosen],
            self.camera,
        )


def exponential(xi: np.ndarray) -> np.ndarray:
    """4 x 4 rigid motions of translations, m, and rotation vectors, rad (Rodrigues' formula): ... x 6 to ... x 4 x 4.

    The translation is applied as it is, not along the screw, which is the same to first order.
    """
    rotation = xi[..., 3:]
    angle = np.linalg.norm(rotation, axis=-1)[..., None, None]
    cross = cross_matrices(rotation)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = np.where(angle > 1e-8, np.sin(angle) / angle, 1.0)
        second = np.where(angle > 1e-8, (1 - np.cos(angle)) / angle**2, 0.5)
    motion = np.zeros((*xi.shape[:-1], 4, 4))
    motion[..., :3, :3] = np.eye(3) + first * cross + second * cross @ cross
    motion[..., :3, 3] = xi[..., :3]
    motion[..., 3, 3] = 1
    return motion


def cross_matrices(vectors: np.ndarray) -> np.ndarray:
    """Matrices that multiply like the cross product from the left: ... x 3 to ... x 3 x 3."""
    matrices = np.zeros((*vectors.shape, 3))
    for row, column, axis, sign in (
        (0, 1, 2, -1), (0, 2, 1, 1), (1, 0, 2, 1), (1, 2, 0, -1), (2, 0, 1, -1), (2, 1, 0, 1),
    ):  # fmt: skip
        matrices[..., row, column] = sign * vectors[..., axis]
    return matrices


def logarithm(motion: np.ndarray) -> np.ndarray:
    """The inverse of `exponential` for rotations below half a turn: 4 x 4 to 6."""
    rotation = motion[:3, :3]
    axis = np.array(
        [
            rotation[2, 1] - rotation[1, 2],
            rotation[0, 2] - rotation[2, 0],
            rotation[1, 0] - rotation[0, 1],
        ]
    )
    sine = np.linalg.norm(axis) / 2
    angle = np.arctan2(sine, (np.trace(rotation) - 1) / 2)
    return np.concatenate([motion[:3, 3], axis / 2 * (angle / sine if sine > 1e-12 else 1.0)])


class _Projection(NamedTuple):
    """Matches moved into the other frame; all float64 ... x N [x 3]."""

    residual: np.ndarray
    """Whitened; infinite where the point ends behind the camera."""
    effect: np.ndarray
    """Of the disparity's noise on the prediction, in units of the estimate's own noise."""
    shrink: np.ndarray
    """(I + effect effect^T)^(-1/2) = I - shrink effect effect^T."""
    x: np.ndarray
    y: np.ndarray
    inverse: np.ndarray
    """1 / depth, and column and row over the focal length."""
    behind: np.ndarray
    missing: np.ndarray


def _project(matches: Matches, motion: np.ndarray) -> _Projection:
    camera, points, seen = matches.camera, matches.points, matches.seen
    rotated = points @ np.swapaxes(motion[..., :3, :3], -1, -2)
    moved = rotated + motion[..., None, :3, 3]
    behind = moved[..., 2] < _NEAREST
    inverse = 1 / np.where(behind, 1, moved[..., 2])
    x, y = moved[..., 0] * inverse, moved[..., 1] * inverse
    fx, fy, gain = camera.fx, camera.fy, camera.fx * camera.baseline
    residual = np.empty(moved.shape)
    residual[..., 0] = (seen[..., 0] - camera.cx - fx * x) / FLOW_SIGMA
    residual[..., 1] = (seen[..., 1] - camera.cy - fy * y) / FLOW_SIGMA
    offset = camera.cx - camera.cx_right
    residual[..., 2] = (seen[..., 2] - offset - gain * inverse) / DISPARITY_SIGMA
    # A point p moves by -p / parallax for each px of disparity.
    toward = points[..., 2] * (-DISPARITY_SIGMA / gain)
    scale = inverse * toward / FLOW_SIGMA
    effect = np.empty(moved.shape)
    effect[..., 0] = fx * scale * (rotated[..., 0] - x * rotated[..., 2])
    effect[..., 1] = fy * scale * (rotated[..., 1] - y * rotated[..., 2])
    effect[..., 2] = (-gain / DISPARITY_SIGMA) * inverse * inverse * toward * rotated[..., 2]
    missing = np.broadcast_to(np.isnan(seen[..., 2]), behind.shape)
    residual[missing, 2] = 0
    effect[missing, 2] = 0
    square = np.einsum("...i,...i->...", effect, effect)
    shrink = (1 - 1 / np.sqrt(1 + square)) / np.maximum(square, 1e-12)
    with np.errstate(invalid="ignore", over="ignore"):
        residual -= (shrink * np.einsum("...i,...i->...", effect, residual))[..., None] * effect
    residual[behind] = np.inf
    return _Projection(residual, effect, shrink, x, y, inverse, behind, missing)


def residuals(matches: Matches, motion: np.ndarray) -> np.ndarray:
    """Residuals of matches for a rigid motion, divided by their standard deviations.

    The noise is that of flow and next disparity plus the effect of the disparity's own noise on the prediction.

    Args:
        matches: N of them.
        motion: float64 ... x 4 x 4, of points from the reference's camera frame to the other's.

    Returns:
        float64 ... x N x 3; infinite where the point ends behind the camera, 0 where the next disparity is unknown.
    """
    return _project(matches, motion).residual


def linearized(matches: Matches, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residuals and their derivatives.

    Args:
        matches: N of them.
        motion: float64 ... x 4 x 4.

    Returns:
        residuals: as of `residuals`.
        jacobian: float64 ... x N x 3 x 6 of the prediction, divided as the residuals, with respect to xi in
            ``motion @ exponential(xi)``; zeros where the point ends behind the camera.
    """
    camera, at = matches.camera, _project(matches, motion)
    by_point = np.zeros((*at.residual.shape, 3))
    scale = at.inverse / FLOW_SIGMA
    by_point[..., 0, 0] = camera.fx * scale
    by_point[..., 0, 2] = -camera.fx * scale * at.x
    by_point[..., 1, 1] = camera.fy * scale
    by_point[..., 1, 2] = -camera.fy * scale * at.y
    gain = camera.fx * camera.baseline
    by_point[..., 2, 2] = (-gain / DISPARITY_SIGMA) * at.inverse * at.inverse
    by_point[at.missing, 2] = 0
    along = np.einsum("...i,...ij->...j", at.effect, by_point)
    by_point -= (at.shrink[..., None] * at.effect)[..., None] * along[..., None, :]
    by_point[at.behind] = 0
    by_point = by_point @ motion[..., None, :3, :3]
    jacobian = np.empty((*at.residual.shape, 6))
    jacobian[..., :3] = by_point
    x, y, z = (matches.points[..., None, axis] for axis in range(3))
    jacobian[..., 3] = y * by_point[..., 2] - z * by_point[..., 1]
    jacobian[..., 4] = z * by_point[..., 0] - x * by_point[..., 2]
    jacobian[..., 5] = x * by_point[..., 1] - y * by_point[..., 0]
    return at.residual, jacobian


def score(matches: Matches, motion: np.ndarray, tolerance: float) -> np.ndarray:
    """Robust cost of each motion, 0 (all agree) to 1: float64 ... x 4 x 4 to ....

    Args:
        matches: what they are to explain.
        motion: the motions.
        tolerance: Mahalanobis length of the residual that counts half.
    """
    residual = residuals(matches, motion)
    square = np.einsum("...i,...i->...", residual, residual) / tolerance**2
    with np.errstate(invalid="ignore"):
        cost = np.where(np.isfinite(square), square / (1 + square), 1.0)
    return cost @ matches.weights / matches.weights.sum()


@dataclass(frozen=True, eq=False)
class Fit:
    """A rigid motion fitted to matches.

    Attributes:
        motion: float64 4 x 4.
        covariance: float64 6 x 6 of xi in ``true motion = motion @ exp(xi)``, (m, rad).
        agreeing: bool N, the matches it explains.
        noise: standard deviation of the agreeing residuals as a multiple of what was assumed.
    """

    motion: np.ndarray
    covariance: np.ndarray
    agreeing: np.ndarray
    noise: float


def fit(
    matches: Matches,
    start: np.ndarray,
    iterations: int = 8,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
) -> Fit:
    """The motion that most matches agree on, near a first guess.

    Args:
        matches: at least 3.
        start: 4 x 4 motion to start from.
        iterations: at most.
        prior: 4 x 4 motion and the 6 x 6 inverse covariance of its error, as of `Fit.covariance`.
    """
    motion = optimized(matches, start, iterations, prior)
    information = np.zeros((6, 6)) if prior is None else prior[1]
    residual, jacobian = linearized(matches, motion)
    weight, noise = _robust_weights(residual, matches.weights)
    length = np.sqrt(np.einsum("ni,ni->n", residual, residual))
    residual[~np.isfinite(residual)] = 0
    covariance = _covariance(matches, motion, residual, jacobian, weight, information, noise)
    return Fit(motion, covariance, length < 3.4 * noise, noise)


def optimized(
    matches: Matches,
    start: np.ndarray,
    iterations: int,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Gauss-Newton with Geman-McClure weights whose width follows the median residual; see `fit`."""
    motion = start
    information = np.zeros((6, 6)) if prior is None else prior[1]
    for _ in range(iterations):
        residual, jacobian = linearized(matches, motion)
        weight, noise = _robust_weights(residual, matches.weights)
        flat = jacobian.reshape(-1, 6)
        weighted = flat * np.repeat(weight / noise**2, 3)[:, None]
        hessian = flat.T @ weighted + information
        residual[~np.isfinite(residual)] = 0
        gradient = residual.ravel() @ weighted
        if prior is not None:
            gradient = gradient + information @ logarithm(np.linalg.inv(motion) @ prior[0])
        damping = 1e-9 * np.trace(hessian) / 6 + 1e-12
        step = np.linalg.solve(hessian + damping * np.eye(6), gradient)
        # No camera moves this far between two frames that can be matched.
        step /= max(np.linalg.norm(step[:3]) / 10, np.linalg.norm(step[3:]) / 0.5, 1.0)
        motion = motion @ exponential(step)
        if np.abs(step[:3]).max() < 1e-4 and np.abs(step[3:]).max() < 1e-5:
            break
    return motion


def _robust_weights(residual: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    length = np.einsum("ni,ni->n", residual, residual)
    np.sqrt(length, out=length)
    # 1.54: the median length of three normal numbers.
    noise = float(np.clip(np.median(length) / 1.54, 0.3, 10.0))
    with np.errstate(over="ignore"):
        return weights / (1 + (length / (3 * noise)) ** 2) ** 2, noise


def _covariance(
    matches: Matches,
    motion: np.ndarray,
    residual: np.ndarray,
    jacobian: np.ndarray,
    weight: np.ndarray,
    information: np.ndarray,
    noise: float,
) -> np.ndarray:
    """Sandwich estimate, and the effect of errors that all pixels share.

    Errors within a cell of the image are taken as dependent (Liang and Zeger, Biometrika 1986).
    """
    gradient = np.einsum("nri,nr->ni", jacobian, residual * weight[:, None])
    by_cell = np.stack([np.bincount(matches.cells, gradient[:, axis]) for axis in range(6)])
    flat = jacobian.reshape(-1, 6)
    hessian = flat.T @ (flat * np.repeat(weight, 3)[:, None]) + information * noise**2
    bread = np.linalg.inv(hessian + 1e-12 * np.trace(hessian) * np.eye(6))
    shared = np.einsum(
        "nri,knr->ik", jacobian, _shared_errors(matches, motion) * weight[:, None], optimize=True
    )
    shared *= noise
    middle = _BETWEEN_CELLS * by_cell @ by_cell.T + shared @ shared.T + information * noise**4
    covariance = bread @ middle @ bread
    return (covariance + covariance.T) / 2


def _shared_errors(matches: Matches, motion: np.ndarray) -> np.ndarray:
    """Whitened residuals of errors of one standard deviation in all flows, disparities and flow lengths: 4 x N x 3."""
    at, camera, points = _project(matches, motion), matches.camera, matches.points
    errors = np.zeros((4, len(matches), 3))
    errors[0, :, 0] = errors[1, :, 1] = SHARED_FLOW_SIGMA / FLOW_SIGMA
    errors[2] = -at.effect
    errors[2, :, 2] += 1
    errors[2] *= SHARED_DISPARITY_SIGMA / DISPARITY_SIGMA
    errors[3, :, 0] = camera.fx * (at.x - points[:, 0] / points[:, 2])
    errors[3, :, 1] = camera.fy * (at.y - points[:, 1] / points[:, 2])
    errors[3] *= SHARED_FLOW_SCALE / FLOW_SIGMA
    along = np.einsum("ni,kni->kn", at.effect, errors)
    errors -= (at.shrink * along)[..., None] * at.effect
    errors[:, at.behind] = 0
    return errors
