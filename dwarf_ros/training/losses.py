"""The losses of the network, in keras.ops.

The true scene flow is batch x H x W x 4, px, in the network's own signs and order: disparity and disparity_change (both
negative: x_right - x_left), u, v; NaN where unknown, which is masked channel by channel before anything is computed, so that
it reaches neither a loss nor a gradient.

Reference: Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020.
"""

from __future__ import annotations

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
        The averages, batch x H / factor x W / factor x C, 0 where nothing is known; and 1 where something is, else 0.
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
    """Weighted sum of `level_loss` over levels: the published loss for FlyingThings3D, without its regularisation.

    Args:
        outputs: of a network built with all_levels; `level_6`, ... are read.
        truth: as for `level_loss`.
        level_weights: level to its weight.
        flow_weight: as for `level_loss`.
    """
    return sum(
        weight * level_loss(outputs[f"level_{level}"], truth, flow_weight)
        for level, weight in level_weights.items()
    )


def finest_loss(
    outputs: Mapping[str, Tensor], truth: Tensor, weight: float = 0.001, flow_weight: float = 0.5
) -> Tensor:
    """L1 norm of the full-size answer's error over channels, summed over known pixels, averaged over the batch.

    The published loss for KITTI's sparse ground truth: the finest level enlarged to full resolution instead of the truth
    reduced. Both are divided by SCALE_FACTOR, as in `level_loss`.

    Args:
        outputs: of the network: `disparity`, `disparity_change`, `forward_flow`, px.
        truth: as for `level_loss`.
        weight: factor of the loss.
        flow_weight: factor of the terms of u and v.
    """
    motion = ops.concatenate(
        [outputs["disparity"], outputs["disparity_change"], outputs["forward_flow"]], axis=-1
    )
    values, known = _known(truth)
    return weight * _masked_l1(motion / SCALE_FACTOR, values, known, flow_weight)


def squared_weights(weights: list[Tensor]) -> Tensor:
    """Sum of the squares of all weights, which the published training adds to the loss 0.0004 times."""
    return sum(ops.sum(ops.square(weight)) for weight in weights)


def _known(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Truth with 0 in place of NaN, and 1 where it was known, else 0."""
    unknown = ops.isnan(truth)
    values = ops.where(unknown, ops.zeros_like(truth), truth)
    return values, ops.cast(ops.logical_not(unknown), truth.dtype)


def _masked_l1(prediction: Tensor, truth: Tensor, known: Tensor, flow_weight: float) -> Tensor:
    # The sum runs over too many pixels for half precision.
    error = ops.abs(ops.cast(prediction, truth.dtype) - truth / SCALE_FACTOR) * known
    weights = ops.convert_to_tensor([1.0, 1.0, flow_weight, flow_weight], dtype=truth.dtype)
    return ops.mean(ops.sum(error * weights, axis=(1, 2, 3)))
