"""Losses of `dwarf_lite_v2` on each of its stages, robust against wrong labels, and of the distillation of its features.

Ground truth is batch x H x W x 4, px, in the network's signs: disparity and disparity_change (negative), u, v; NaN where unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops

from dwarf_ros.network.warping import enlarge_bilinear

Tensor = Any

STAGE_WEIGHTS = {
    "stereo_matches": 1.0,
    "stereo_eighth": 0.3,
    "quarter_matches": 0.3,
    "disparity_quarter": 0.4,
    "flow_filled": 0.2,
    "flow_sixteenth": 0.3,
    "flow_update_0": 0.3,
    "flow_update_1": 0.5,
    "change_quarter": 0.3,
    "D1": 1.0,
    "D2": 0.7,
    "Fl": 1.0,
    "reliability": 0.1,
    "confidence": 0.1,
}
"""Weights of the terms of `stage_losses`, in their order."""

FEATURE_WEIGHTS = {
    "eighth": 1.0,
    "sixteenth": 1.0,
    "eighth_rows": 0.5,
    "sixteenth_rows": 0.5,
    "sixteenth_image": 0.25,
}
"""Weights of the terms of `feature_losses`, in their order."""

_RIGHT_WITHIN = 12.0
"""A match at 1/16 is reliable if it is right within this, px: it is then refined from there."""

_SIMILARITY_TEMPERATURE = 0.07
_ROWS, _CELLS = 4, 8
"""Every fourth row and eighth cell is enough to compare similarities by."""


def stage_losses(outputs: Mapping[str, Tensor], truth: Tensor) -> list[Tensor]:
    """Terms of the loss of every stage, weighted by STAGE_WEIGHTS.

    Motions are compared by `robust_error`, matches by their cross-entropy with the true one, and the network's opinion of its
    own reliability by whether it is right.

    Args:
        outputs: of `network.build("dwarf_lite_v2", all_levels=True)`.
        truth: as described above.
    """
    outputs = {name: ops.cast(values, "float32") for name, values in outputs.items()}
    sixteenth, eighth, quarter = (truth_at(truth, cell) for cell in (16, 8, 4))
    full = known(truth)
    coarse = ops.stop_gradient(enlarge_bilinear(outputs["stereo_eighth"], 2))
    motion = outputs["full"]
    at_eighth = motion[:, ::8, ::8]
    terms = {
        "stereo_matches": _match_loss(
            outputs["stereo_logits"], eighth[0][..., :1] / 8, eighth[1][..., :1], last=0
        ),
        "stereo_eighth": _disparity_loss(outputs["stereo_eighth"], eighth, 0),
        "quarter_matches": _match_loss(
            outputs["stereo_quarter_logits"],
            (quarter[0][..., :1] - coarse) / 4,
            quarter[1][..., :1],
            last=outputs["stereo_quarter_logits"].shape[-1] // 2,
        ),
        "disparity_quarter": _disparity_loss(outputs["quarter"][..., :1], quarter, 0),
        "flow_filled": _flow_loss(outputs["flow_filled"], sixteenth),
        "flow_sixteenth": _flow_loss(outputs["flow_sixteenth"], sixteenth),
        "flow_update_0": _flow_loss(outputs["flow_update_0"], eighth),
        "flow_update_1": _flow_loss(outputs["flow_update_1"], eighth),
        "change_quarter": _disparity_loss(outputs["quarter"][:, ::2, ::2, 1:2], eighth, 1),
        "D1": _disparity_loss(motion[..., :1], full, 0),
        "D2": _disparity_loss(motion[..., 1:2], full, 1),
        "Fl": _flow_loss(motion[..., 2:], full),
        "reliability": _reliability_loss(outputs, sixteenth),
        "confidence": _confidence_loss(outputs["confidence_logits"], at_eighth, eighth),
    }
    return [weight * terms[name] for name, weight in STAGE_WEIGHTS.items()]


def robust_error(error: Tensor, length: Tensor) -> Tensor:
    """Error that grows with its logarithm, so that a wrong label counts little more than a large error.

    Args:
        error: px, >= 0.
        length: of the true disparity or flow, px: as KITTI's outliers, long ones may have larger errors.
    """
    return 1.5 * ops.log1p(error / (1.0 + length / 60.0) / 1.5)


def truth_at(truth: Tensor, cell: int) -> tuple[Tensor, Tensor]:
    """Ground truth of a grid: the mean of the known ones of the 2 x 2 px at each cell's place, and 1 where there is one.

    Not of the whole cell, whose mean belongs to no surface at an edge.
    """
    batch, height, width, channels = truth.shape
    size = (batch or -1, height // cell, cell, width // cell, cell, channels)
    values, is_known = known(ops.reshape(truth, size)[:, :, :2, :, :2])
    count = ops.sum(is_known, axis=(2, 4))
    return ops.sum(values, axis=(2, 4)) / ops.maximum(count, 1.0), ops.cast(count > 0, "float32")


def known(truth: Tensor) -> tuple[Tensor, Tensor]:
    """Ground truth with 0 where it is unknown, and 1 where it is known, else 0."""
    unknown = ops.isnan(truth)
    values = ops.where(unknown, ops.zeros_like(truth), truth)
    return values, ops.cast(ops.logical_not(unknown), "float32")


def feature_losses(outputs: Mapping[str, Tensor], teacher: Tensor) -> list[Tensor]:
    """Terms of the loss of the distillation of features, weighted by FEATURE_WEIGHTS.

    Features should point the same way as the teacher's; and cells should resemble the others of their row (where stereo looks)
    and of the image (where optical flow looks) as they do for the teacher.

    Args:
        outputs: `eighth` and `sixteenth`, batch x h x w x C.
        teacher: the same, float32 batch x (h w + h w / 4) x C, one after the other, row by row.
    """
    batch = outputs["eighth"].shape[0] or -1
    lengths = [outputs[name].shape[1] * outputs[name].shape[2] for name in ("eighth", "sixteenth")]
    parts = ops.split(teacher, [lengths[0]], axis=1)
    terms: dict[str, Tensor] = {}
    for name, target in zip(("eighth", "sixteenth"), parts, strict=True):
        shape = (batch, *outputs[name].shape[1:])
        student, target = unit(outputs[name]), unit(ops.reshape(target, shape))
        terms[name] = 1.0 - ops.mean(ops.sum(student * target, axis=-1))
        rows = [maps[:, :: _ROWS if name == "eighth" else 1] for maps in (student, target)]
        terms[f"{name}_rows"] = _similarity_loss(rows[0], rows[0], rows[1], rows[1])
    cells = [ops.reshape(maps, (batch, -1, maps.shape[-1])) for maps in (student, target)]
    some = [maps[:, ::_CELLS] for maps in cells]
    terms["sixteenth_image"] = _similarity_loss(some[0], cells[0], some[1], cells[1])
    return [weight * terms[name] for name, weight in FEATURE_WEIGHTS.items()]


def unit(features: Tensor) -> Tensor:
    """Features of unit length, float32."""
    features = ops.cast(features, "float32")
    return features * ops.rsqrt(ops.sum(ops.square(features), axis=-1, keepdims=True) + 1e-6)


def _similarity_loss(some: Tensor, others: Tensor, target: Tensor, target_others: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the similarities of some cells with others from the teacher's."""

    def logits(first: Tensor, second: Tensor) -> Tensor:
        return ops.matmul(first, ops.swapaxes(second, -1, -2)) / _SIMILARITY_TEMPERATURE

    wanted = ops.log_softmax(logits(target, target_others), axis=-1)
    found = ops.log_softmax(logits(some, others), axis=-1)
    return ops.mean(ops.sum(ops.exp(wanted) * (wanted - found), axis=-1))


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    # One more than the weights, so that a sample with little ground truth counts little.
    return ops.sum(values * weights) / (ops.sum(weights) + 1.0)


def _disparity_loss(estimate: Tensor, truth: tuple[Tensor, Tensor], channel: int) -> Tensor:
    values, is_known = (maps[..., channel : channel + 1] for maps in truth)
    return _mean(robust_error(ops.abs(estimate - values), ops.abs(values)), is_known)


def _flow_known(truth: tuple[Tensor, Tensor]) -> Tensor:
    return truth[1][..., 2:3] * truth[1][..., 3:4]


def _length(vectors: Tensor) -> Tensor:
    # The gradient of a square root has no limit at 0.
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + 1e-4)


def _flow_loss(estimate: Tensor, truth: tuple[Tensor, Tensor]) -> Tensor:
    values = truth[0][..., 2:]
    return _mean(robust_error(_length(estimate - values), _length(values)), _flow_known(truth))


def _match_loss(logits: Tensor, position: Tensor, is_known: Tensor, last: int) -> Tensor:
    """Cross-entropy of matches with the true one, which is shared between the two candidates around it.

    Args:
        logits: of the candidates, whole cells up to `last`.
        position: of the true one, cells.
        is_known: 1 where it is known; only those within the candidates count.
        last: position of the last candidate.
    """
    candidates = np.arange(last - logits.shape[-1] + 1, last + 1, dtype=np.float32)
    within = (position >= candidates[0]) & (position <= candidates[-1])
    shares = ops.relu(1.0 - ops.abs(position - candidates))
    log_probability = ops.maximum(ops.log_softmax(logits, axis=-1), -30.0)
    entropy = -ops.sum(shares * log_probability, axis=-1, keepdims=True)
    return _mean(entropy, is_known * ops.cast(within, "float32"))


def _reliability_loss(outputs: Mapping[str, Tensor], truth: tuple[Tensor, Tensor]) -> Tensor:
    probability = ops.clip(outputs["flow_reliability"], 1e-4, 1 - 1e-4)
    error = _length(outputs["flow_matched"] - truth[0][..., 2:])
    right = ops.stop_gradient(ops.cast(error < _RIGHT_WITHIN, "float32"))
    entropy = right * ops.log(probability) + (1.0 - right) * ops.log(1.0 - probability)
    return -_mean(entropy, _flow_known(truth))


def _confidence_loss(logits: Tensor, motion: Tensor, truth: tuple[Tensor, Tensor]) -> Tensor:
    disparity, flow = truth[0][..., :1], truth[0][..., 2:]
    terms = []
    for channel, error, length, is_known in (
        (0, ops.abs(motion[..., :1] - disparity), ops.abs(disparity), truth[1][..., :1]),
        (1, _length(motion[..., 2:] - flow), _length(flow), _flow_known(truth)),
    ):
        right = (error < 3.0) | (error < 0.05 * length)
        right = ops.stop_gradient(ops.cast(right, "float32"))
        logit = logits[..., channel : channel + 1]
        entropy = ops.relu(logit) - logit * right + ops.log1p(ops.exp(-ops.abs(logit)))
        terms.append(_mean(entropy, is_known))
    return terms[0] + terms[1]
