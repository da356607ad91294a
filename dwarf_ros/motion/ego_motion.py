"""The camera's own motion from scene flow: the motion that the static part of the scene agrees on."""

from __future__ import annotations

import numpy as np

from dwarf_ros.geometry import back_project, depth_from_disparity
from dwarf_ros.motion.rigid import (
    DISPARITY_SIGMA,
    Matches,
    exponential,
    fit,
    linearized,
    logarithm,
    score,
)
from dwarf_ros.types import EgoMotion, SceneFlow

_FEWEST = 64
"""Matches needed."""

_NEAREST, _FARTHEST = 0.05, 1e6
"""Depths, m, between which points are used."""

_LEAST_PARALLAX = 2 * DISPARITY_SIGMA
_FEWEST_NEAR = 30
"""Matches needed whose parallax, px, says how far away they are."""

_MATCHES, _FEW = 1500, 400
"""Matches that the motion is fitted to, and that hypotheses are compared on."""

_HYPOTHESES = 40
_ROWS, _COLUMNS, _DEPTHS = 8, 16, 12
"""Image cells and depth bins that the matches are spread over."""

_GATE = 22.5
"""99.9 % quantile of chi-square with six degrees of freedom."""


def estimate_ego_motion(
    scene_flow: SceneFlow,
    previous: np.ndarray | None = None,
    prior: EgoMotion | None = None,
) -> EgoMotion:
    """The camera's motion that explains most of the scene, spread across image and depth.

    Hypotheses from random triples of pixels, from rest, from the previous motion and from the prior are compared by a
    robust cost; the best are refined by iteratively reweighted least squares. A prior takes part in the fit unless it
    contradicts the images.

    Args:
        scene_flow: with a camera.
        previous: 4 x 4 motion of the pair before, as a hypothesis.
        prior: motion known from elsewhere, such as wheel odometry, with its covariance.

    Returns:
        EgoMotion; with a reason instead of a transform where the scene does not determine it.
    """
    return fit_ego_motion(scene_flow, previous, prior)[0]


def fit_ego_motion(
    scene_flow: SceneFlow, previous: np.ndarray | None, prior: EgoMotion | None
) -> tuple[EgoMotion, float]:
    """As `estimate_ego_motion`, with the noise of the static pixels: see `rigid.Fit`."""
    reason, matches = _matches(scene_flow)
    if matches is None:
        return EgoMotion(reason=reason), 0.0
    starts = [np.eye(4)]
    if previous is not None and np.isfinite(previous).all():
        starts.append(previous)
    if prior is not None and prior.transform is not None:
        starts.append(prior.transform)
    candidates = _hypotheses(matches, np.stack(starts))
    few = matches.take(np.arange(0, len(matches), max(1, len(matches) // _FEW)))
    costs = score(few, candidates, tolerance=8.0)
    coarse = _polished(few, candidates[np.argsort(costs)[:3]])
    costs = score(matches, coarse, tolerance=4.0)
    found = fit(matches, coarse[int(np.argmin(costs))])
    if prior is not None and prior.transform is not None and prior.covariance is not None:
        difference = logarithm(np.linalg.inv(found.motion) @ prior.transform)
        if difference @ np.linalg.solve(found.covariance + prior.covariance, difference) < _GATE:
            information = np.linalg.inv(prior.covariance)
            found = fit(matches, found.motion, prior=(prior.transform, information))
    fraction = float(matches.weights[found.agreeing].sum() / matches.weights.sum())
    if fraction < 0.3:
        reason = f"only {100 * fraction:.0f} % of the pixels agree on one motion"
        return EgoMotion(reason=reason), found.noise
    depth = matches.points[found.agreeing, 2]
    parallax = matches.camera.fx * matches.camera.baseline / depth
    if np.count_nonzero(parallax > _LEAST_PARALLAX) < _FEWEST_NEAR:
        return EgoMotion(reason="the scene is too distant for its depth to be known"), found.noise
    sigma = np.sqrt(np.diag(found.covariance))
    if not np.isfinite(sigma).all() or sigma[:3].max() > 0.5 or sigma[3:].max() > 0.02:
        reason = "the scene does not determine the motion (flat, distant or without texture)"
        return EgoMotion(reason=reason), found.noise
    return EgoMotion(found.motion, found.covariance, fraction), found.noise


def _polished(matches: Matches, motions: np.ndarray) -> np.ndarray:
    """A few steps of `rigid.optimized` for several motions at once: float64 K x 4 x 4."""
    for _ in range(5):
        residual, jacobian = linearized(matches, motions)
        length = np.sqrt(np.einsum("kni,kni->kn", residual, residual))
        noise = np.clip(np.median(length, axis=1, keepdims=True) / 1.54, 0.3, 10.0)
        with np.errstate(over="ignore"):
            weight = matches.weights / (1 + (length / (3 * noise)) ** 2) ** 2
        flat = jacobian.reshape(len(motions), -1, 6)
        weighted = np.swapaxes(flat * np.repeat(weight, 3, axis=1)[..., None], 1, 2)
        hessian = weighted @ flat
        damping = 1e-9 * np.trace(hessian, axis1=1, axis2=2) + 1e-12
        residual = np.where(np.isfinite(residual), residual, 0).reshape(len(motions), -1, 1)
        steps = np.linalg.solve(hessian + damping[:, None, None] * np.eye(6), weighted @ residual)
        motions = motions @ exponential(np.clip(steps[..., 0], -2, 2))
    return motions


def _matches(scene_flow: SceneFlow) -> tuple[str | None, Matches | None]:
    """Valid pixels, spread across image and depth; or the reason why there are too few."""
    camera = scene_flow.camera
    if camera is None:
        return "no calibration", None
    if scene_flow.dt == 0:
        return "dt is 0", None
    height, width = scene_flow.valid.shape
    step = max(1, round(np.sqrt(height * width / 24000)))
    grid = np.s_[step // 2 :: step, step // 2 :: step]
    depth = depth_from_disparity(scene_flow.disparity[grid], camera)
    flow, disparity_next = scene_flow.flow[grid], scene_flow.disparity_next[grid]
    parallax = disparity_next - np.float32(camera.cx - camera.cx_right)
    with np.errstate(invalid="ignore"):
        known = (
            scene_flow.valid[grid]
            & (depth > _NEAREST)
            & (depth < _FARTHEST)
            & np.isfinite(flow).all(axis=-1)
            & (parallax > 0)
        )
    rows, columns = np.nonzero(known)
    if rows.size < _FEWEST:
        return (
            f"{rows.size} valid pixels of {known.size} looked at, expected at least {_FEWEST}",
            None,
        )
    depth, seen_flow, disparity_next = (
        depth[rows, columns],
        flow[rows, columns],
        disparity_next[rows, columns],
    )
    cell = rows * _ROWS // known.shape[0] * _COLUMNS + columns * _COLUMNS // known.shape[1]
    depth_bin = np.clip(np.floor(3 * np.log2(depth / depth.min())), 0, _DEPTHS - 1).astype(np.int64)
    # At most so many of each cell and depth, in an order that does not depend on the content.
    order = np.random.default_rng(0).permutation(rows.size)
    stratum = (cell * _DEPTHS + depth_bin)[order]
    by_stratum = np.argsort(stratum, kind="stable")
    ordered = stratum[by_stratum]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.arange(ordered.size) - np.repeat(first, np.diff(np.append(first, ordered.size)))
    chosen = order[by_stratum[rank < 10]]
    chosen = np.random.default_rng(1).permutation(chosen)[:_MATCHES]
    count = np.bincount(depth_bin[chosen], minlength=_DEPTHS)
    weights = 1 / np.sqrt(count[depth_bin[chosen]])
    rows, columns = rows * step + step // 2, columns * step + step // 2
    points = back_project(columns, rows, depth, camera)
    seen = np.column_stack([columns + seen_flow[:, 0], rows + seen_flow[:, 1], disparity_next])
    return None, Matches(
        points[chosen].astype(np.float64),
        seen[chosen].astype(np.float64),
        weights / weights.mean(),
        cell[chosen],
        camera,
    )


def _hypotheses(matches: Matches, starts: np.ndarray) -> np.ndarray:
    """The given motions and those of random triples of matches: float64 K x 4 x 4."""
    rng = np.random.default_rng(2)
    probability = matches.weights / matches.weights.sum()
    motions = np.repeat(starts[-1:], _HYPOTHESES, axis=0)
    triples = matches.take(rng.choice(len(matches), (_HYPOTHESES, 3), p=probability))
    for _ in range(3):
        residual, jacobian = linearized(triples, motions)
        residual = np.where(np.isfinite(residual), residual, 0).reshape(_HYPOTHESES, 9, 1)
        jacobian = jacobian.reshape(_HYPOTHESES, 9, 6)
        transposed = np.swapaxes(jacobian, 1, 2)
        # A hundredth of a px: triples in a line leave a rotation open.
        hessian = transposed @ jacobian + np.diag([1.0, 1.0, 1.0, 100.0, 100.0, 100.0])
        steps = np.linalg.solve(hessian, transposed @ residual)[..., 0]
        motions = motions @ exponential(np.clip(steps, -3, 3))
    return np.concatenate([starts, motions])
