"""Robust fit of one rigid motion to scene flow: residuals in the image, weighted by what their noise allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dwarf_ros.types import StereoCamera

FLOW_SIGMA = 0.35
"""Standard deviation of optical flow that is right, px."""

DISPARITY_SIGMA = 0.35
"""Standard deviation of a disparity that is right, px."""

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


def whitened(
    matches: Matches, motion: np.ndarray, jacobian: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """Residuals of matches for a rigid motion, divided by their standard deviations.

    The noise is that of flow and next disparity plus the effect of the disparity's own noise on the prediction.

    Args:
        matches: N of them.
        motion: float64 ... x 4 x 4, of points from the reference's camera frame to the other's.
        jacobian: whether that of the residuals is wanted.

    Returns:
        residuals: float64 ... x N x 3; infinite where the point ends behind the camera.
        jacobian: ... x N x 3 x 6 of the prediction with respect to xi in ``motion @ exp(xi)``; zeros where the point ends
            behind the camera. None where not wanted.
    """
    camera = matches.camera
    points, seen = matches.points, matches.seen
    rotation = motion[..., :3, :3]
    moved_rotation = points @ np.swapaxes(rotation, -1, -2)
    moved = moved_rotation + motion[..., None, :3, 3]
    z = moved[..., 2]
    behind = z < _NEAREST
    inverse = 1 / np.where(behind, 1, z)
    x, y = moved[..., 0] * inverse, moved[..., 1] * inverse
    fx, fy, gain = camera.fx, camera.fy, camera.fx * camera.baseline
    residual = np.stack(
        [
            seen[..., 0] - camera.cx - fx * x,
            seen[..., 1] - camera.cy - fy * y,
            seen[..., 2] - (camera.cx - camera.cx_right) - gain * inverse,
        ],
        axis=-1,
    )
    # Effect of the disparity's noise: a point p moves by -p / parallax for each px.
    parallax = gain / points[..., 2]
    along = moved_rotation * (-DISPARITY_SIGMA / parallax)[..., None]
    effect = np.stack(
        [
            fx * inverse * (along[..., 0] - x * along[..., 2]) / FLOW_SIGMA,
            fy * inverse * (along[..., 1] - y * along[..., 2]) / FLOW_SIGMA,
            -gain * inverse * inverse * along[..., 2] / DISPARITY_SIGMA,
        ],
        axis=-1,
    )
    missing = np.isnan(residual[..., 2])
    residual[missing, 2] = 0
    effect[missing, 2] = 0
    residual /= np.array([FLOW_SIGMA, FLOW_SIGMA, DISPARITY_SIGMA])
    square = np.einsum("...i,...i->...", effect, effect)
    # (I + a a^T)^(-1/2) = I - shrink a a^T
    shrink = (1 - 1 / np.sqrt(1 + square)) / np.maximum(square, 1e-12)
    residual -= (shrink * np.einsum("...i,...i->...", effect, residual))[..., None] * effect
    residual[behind] = np.inf
    if not jacobian:
        return residual, None
    zero = np.zeros_like(x)
    scale = inverse / FLOW_SIGMA
    by_point = np.stack(
        [
            np.stack([fx * scale, zero, -fx * scale * x], axis=-1),
            np.stack([zero, fy * scale, -fy * scale * y], axis=-1),
            np.stack([zero, zero, -gain / DISPARITY_SIGMA * inverse * inverse], axis=-1),
        ],
        axis=-2,
    )
    by_point[missing, 2] = 0
    by_point -= shrink[..., None, None] * effect[..., :, None] * np.einsum(
        "...i,...ij->...j", effect, by_point
    )[..., None, :]
    by_point[behind] = 0
    by_point = by_point @ rotation[..., None, :, :]
    return residual, np.concatenate(
        [by_point, np.cross(points[..., None, :], by_point)], axis=-1
    )


def score(matches: Matches, motion: np.ndarray, tolerance: float) -> np.ndarray:
    """Robust cost of each motion, 0 (all agree) to 1: float64 ... x 4 x 4 to ....

    Args:
        matches: what they are to explain.
        motion: the motions.
        tolerance: Mahalanobis length of the residual that counts half.
    """
    residual, _ = whitened(matches, motion, jacobian=False)
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
    iterations: int = 15,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
) -> Fit:
    """Gauss-Newton with Geman-McClure weights whose width follows the median residual.

    Args:
        matches: at least 3.
        start: 4 x 4 motion to start from.
        iterations: at most.
        prior: 4 x 4 motion and the 6 x 6 inverse covariance of its error, as of `Fit.covariance`.
    """
    motion = start
    information = np.zeros((6, 6)) if prior is None else prior[1]
    noise = 1.0
    for _ in range(iterations):
        residual, jacobian = whitened(matches, motion)
        weight, noise = _robust_weights(residual, matches.weights)
        flat = jacobian.reshape(-1, 6)
        weighted = flat * np.repeat(weight / noise**2, 3)[:, None]
        hessian = flat.T @ weighted + information
        residual[~np.isfinite(residual)] = 0
        gradient = residual.ravel() @ weighted
        if prior is not None:
            gradient = gradient + information @ logarithm(np.linalg.inv(motion) @ prior[0])
        step = np.linalg.solve(hessian + 1e-9 * np.trace(hessian) / 6 * np.eye(6), gradient)
        # No camera moves this far between two frames that can be matched.
        step *= min(1.0, 10 / max(np.linalg.norm(step[:3]), 1e-9), 0.5 / max(np.linalg.norm(step[3:]), 1e-9))
        motion = motion @ exponential(step)
        if np.abs(step[:3]).max() < 1e-5 and np.abs(step[3:]).max() < 1e-6:
            break
    residual, jacobian = whitened(matches, motion)
    weight, noise = _robust_weights(residual, matches.weights)
    length = np.sqrt(np.einsum("ni,ni->n", residual, residual))
    return Fit(
        motion,
        _covariance(residual, jacobian, weight, matches.cells, information, noise),
        length < 3.4 * noise,
        noise,
    )


def _robust_weights(residual: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    length = np.einsum("ni,ni->n", residual, residual)
    np.sqrt(length, out=length)
    # 1.54: the median length of three normal numbers.
    noise = float(np.clip(np.median(length) / 1.54, 0.3, 10.0))
    with np.errstate(over="ignore"):
        return weights / (1 + (length / (3 * noise)) ** 2) ** 2, noise


def _covariance(
    residual: np.ndarray,
    jacobian: np.ndarray,
    weight: np.ndarray,
    cells: np.ndarray,
    information: np.ndarray,
    noise: float,
) -> np.ndarray:
    """Sandwich estimate that takes the errors within each cell of the image as dependent (Liang and Zeger, 1986)."""
    residual = np.where(np.isfinite(residual), residual, 0)
    gradient = np.einsum("nri,nr->ni", jacobian, residual * weight[:, None])
    by_cell = np.stack(
        [np.bincount(cells, gradient[:, axis], minlength=int(cells.max()) + 1) for axis in range(6)]
    )
    flat = jacobian.reshape(-1, 6)
    hessian = flat.T @ (flat * np.repeat(weight, 3)[:, None])
    hessian += information * noise**2
    bread = np.linalg.inv(hessian + 1e-12 * np.trace(hessian) * np.eye(6))
    middle = by_cell @ by_cell.T + information * noise**4
    covariance = bread @ middle @ bread
    return (covariance + covariance.T) / 2
