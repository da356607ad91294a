"""The losses of the network, in keras.ops.

The ground truth is batch x H x W x 4, px, in the order and signs of the network's outputs: disparity and next disparity (both
negative: x_right - x_left), u, v; NaN where unknown. Unknown values are masked per channel first, so that they reach neither a
loss nor a gradient.

Reference: Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from keras import ops

from dwarf_ros.network.presets import SCALE_FACTOR

Tensor = Any


def reduce_by_area(truth: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Average the known values of each square of factor x factor pixels.

    Args:
        truth: batch x H x W x C, NaN where unknown; H and W multiples of factor.
        factor: side of the squares, px.

    Returns:
        The averages, batch x H / factor x W / factor x C, 0 where nothing is known; and a mask, 1 where something is known, else 0.
    """
    batch, height, width, channels = ops.shape(truth)
    squares = ops.reshape(
        truth, (batch, height // factor, factor, width // factor, factor, channels)
    )
    values, known = _known(squares)
    count = ops.sum(known, axis=(2, 4))
    mean = ops.sum(values, axis=(2, 4)) / ops.maximum(count, ops.ones_like(count))
    return mean, ops.cast(count > 0, truth.dtype)


def level_loss(prediction: Tensor, truth: Tensor, flow_weight: float) -> Tensor:
    """L1 norm of one level's error over channels, summed over its pixels, averaged over the batch.

    Args:
        prediction: batch x H / 2**level x W / 2**level x 4, full-resolution px / SCALE_FACTOR.
        truth: batch x H x W x 4, full-resolution px, NaN where unknown; reduced by area averaging.
        flow_weight: factor of the terms of u and v.
    """
    mean, known = reduce_by_area(truth, truth.shape[1] // prediction.shape[1])
    return _masked_l1(prediction, mean, known, flow_weight)


def multilevel_loss(
    outputs: Mapping[str, Tensor],
    truth: Tensor,
    level_weights: Mapping[int, float],
    flow_weight: float = 0.5,
) -> Tensor:
    """Weighted sum of `level_loss` over levels: the published loss for FlyingThings3D, without regularization.

    Args:
        outputs: of a network built with all_levels; `level_6`, ... are read.
        truth: as for `level_loss`.
        level_weights: weight of each level.
        flow_weight: as for `level_loss`.
    """
    return sum(
        weight * level_loss(outputs[f"level_{level}"], truth, flow_weight)
        for level, weight in level_weights.items()
    )


def finest_loss(
    outputs: Mapping[str, Tensor], truth: Tensor, weight: float = 0.001, flow_weight: float = 0.5
) -> Tensor:
    """L1 norm of the error of the full-size estimate over channels, summed over known pixels, averaged over the batch.

    The published loss for KITTI's sparse ground truth: the finest level is enlarged to full resolution, instead of reducing the
    ground truth. Both are divided by SCALE_FACTOR, as in `level_loss`.

    Args:
        outputs: of the network, px: `disparity`, `disparity_change`, `forward_flow`.
        truth: as for `level_loss`.
        weight: factor of the loss.
        flow_weight: factor of the terms of u and v.
    """
    motion = ops.concatenate(
        [outputs["disparity"], outputs["disparity_change"], outputs["forward_flow"]], axis=-1
    )
    values, known = _known(truth)
    return weight * _masked_l1(motion / SCALE_FACTOR, values, known, flow_weight)


def matching_loss(outputs: Mapping[str, Tensor], truth: Tensor) -> Tensor:
    """Cross-entropy between the true displacements and the matching scores of the network.

    For presets with `matching`: the mean over the pixels whose true match is among the candidates, then over the images, summed over
    the two global and the three local matches of each level. A match between two candidates is shared linearly. The ground
    truth is that of the central pixel of each cell, because an average across an edge matches nothing. The local match of
    the next disparity counts where the flow is correct within a pixel; elsewhere other points are matched.

    Args:
        outputs: of a network built with all_levels: `global_stereo`, `global_flow`, `local_4`, `center_4`, ...
        truth: as for `level_loss`.
    """
    losses = _global_matching_losses(outputs["global_stereo"], outputs["global_flow"], truth)
    for name, logits in outputs.items():
        kind, _, level = name.partition("_")
        if kind == "local":
            losses += _local_matching_losses(logits, outputs[f"center_{level}"], truth)
    return sum(losses)


def _global_matching_losses(stereo: Tensor, flow: Tensor, truth: Tensor) -> list[Tensor]:
    height, width = stereo.shape[1:3]
    motion, known = _at_centers(truth, truth.shape[1] // height)
    columns = ops.arange(width, dtype=truth.dtype)
    rows = ops.arange(height, dtype=truth.dtype)
    known_stereo, _, known_u, known_v = (known[..., channel] for channel in range(4))

    right = columns + motion[..., 0]
    stereo_loss = _cross_entropy(
        stereo, _shares(right, columns), known_stereo * _within(right, columns)
    )

    x, y = columns + motion[..., 2], rows[:, None] + motion[..., 3]
    shares = _shares(y, rows)[..., :, None] * _shares(x, columns)[..., None, :]
    shares = ops.reshape(shares, (-1, height * width, height * width))
    inside = known_u * known_v * _within(x, columns) * _within(y, rows)
    return [stereo_loss, _cross_entropy(flow, shares, ops.reshape(inside, (-1, height * width)))]


def _local_matching_losses(logits: Tensor, center: Tensor, truth: Tensor) -> list[Tensor]:
    factor = truth.shape[1] // logits.shape[1]
    motion, known = _at_centers(truth, factor)
    center = ops.cast(ops.stop_gradient(center), truth.dtype) * (SCALE_FACTOR / factor)
    away = motion - center
    # Candidates of two rows and a square: 2 * side + side**2 = (side + 1)**2 - 1.
    side = math.isqrt(logits.shape[-1] + 1) - 1
    steps = ops.arange(side, dtype=truth.dtype) - side // 2
    of_disparity, of_next, of_flow = (
        logits[..., :side],
        logits[..., side : 2 * side],
        logits[..., 2 * side :],
    )
    disparity, following, u, v = (away[..., channel] for channel in range(4))
    known_disparity, known_next, known_u, known_v = (known[..., channel] for channel in range(4))
    known_flow = known_u * known_v
    followed = ops.cast((ops.abs(u) < 1) & (ops.abs(v) < 1), truth.dtype) * known_flow
    shares = _shares(v, steps)[..., :, None] * _shares(u, steps)[..., None, :]
    shares = ops.reshape(shares, (*of_flow.shape[:-1], side**2))
    return [
        _cross_entropy(
            of_disparity, _shares(disparity, steps), known_disparity * _within(disparity, steps)
        ),
        _cross_entropy(
            of_next, _shares(following, steps), known_next * _within(following, steps) * followed
        ),
        _cross_entropy(of_flow, shares, known_flow * _within(u, steps) * _within(v, steps)),
    ]


def squared_weights(weights: list[Tensor]) -> Tensor:
    """Sum of the squares of all weights, which the published training adds to the loss with a factor of 0.0004."""
    return sum(ops.sum(ops.square(weight)) for weight in weights)


def _known(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Ground truth with 0 instead of NaN, and a mask, 1 where it is known, else 0."""
    unknown = ops.isnan(truth)
    values = ops.where(unknown, ops.zeros_like(truth), truth)
    return values, ops.cast(ops.logical_not(unknown), truth.dtype)


def _masked_l1(prediction: Tensor, truth: Tensor, known: Tensor, flow_weight: float) -> Tensor:
    # Half precision cannot sum this many pixels.
    error = ops.abs(ops.cast(prediction, truth.dtype) - truth / SCALE_FACTOR) * known
    weights = ops.convert_to_tensor([1.0, 1.0, flow_weight, flow_weight], dtype=truth.dtype)
    return ops.mean(ops.sum(error * weights, axis=(1, 2, 3)))


def _at_centers(truth: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Ground truth of the central pixel of each cell of factor x factor pixels, in pixels of the level, and its mask."""
    values, known = _known(truth[:, factor // 2 :: factor, factor // 2 :: factor])
    return values / factor, known


def _shares(positions: Tensor, candidates: Tensor) -> Tensor:
    """Linear weights of the candidates, one apart, for each position: ... x number of candidates."""
    return ops.relu(1.0 - ops.abs(positions[..., None] - candidates))


def _within(positions: Tensor, candidates: Tensor) -> Tensor:
    """1 for positions between the first and the last candidate, else 0."""
    return ops.cast((positions >= candidates[0]) & (positions <= candidates[-1]), positions.dtype)


def _cross_entropy(logits: Tensor, shares: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy of softmax and shares: mean over the known pixels of each image, then over the images.

    Images without known pixels count as 0.
    """
    log_probability = ops.log_softmax(ops.cast(logits, shares.dtype), axis=-1)
    # Impossible candidates have no share, but 0 times their logit must not become large.
    losses = -ops.sum(shares * ops.maximum(log_probability, -30.0), axis=-1)
    axes = tuple(range(1, len(losses.shape)))
    return ops.mean(ops.sum(losses * known, axes) / ops.maximum(ops.sum(known, axes), 1.0))
