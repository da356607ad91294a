"""The whole of `dwarf_lite_v2`: four images to scene flow."""

from __future__ import annotations

from typing import Any

import keras

from dwarf_ros.network.lite.encoder import Features, encode
from dwarf_ros.network.lite.flow import (
    coarse_flow,
    disparity_difference,
    enlarged_hidden,
    sigmoid,
    update_flow,
)
from dwarf_ros.network.lite.layers import (
    Enlarge,
    EnlargeConvex,
    Float32Layer,
    Scale,
    Shape,
    Split,
    SplitBatch,
    Subsample,
    concatenated,
    convolution,
    linear,
)
from dwarf_ros.network.lite.stereo import Stereo, match_stereo
from dwarf_ros.network.presets import LitePreset

Tensor = Any


class Modalities(Float32Layer):
    """Channels of a scene flow as disparity, disparity at the other time, and flow."""

    def call(self, motion: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three maps."""
        return motion[:, :, :, 0:1], motion[:, :, :, 1:2], motion[:, :, :, 2:4]

    def compute_output_shape(self, input_shape: Shape) -> tuple[Shape, Shape, Shape]:
        """Of the three."""
        size = input_shape[:3]
        return (*size, 1), (*size, 1), (*size, 2)


def scene_flow(
    stacked: Tensor, preset: LitePreset
) -> tuple[tuple[Tensor, ...], Tensor, dict[str, Tensor]]:
    """Scene flow of pairs of stereo frames.

    Args:
        stacked: left_t0, right_t0, left_t1, right_t1 along the batch: 4 N x H x W x 3, float32 RGB in [0, 1].
        preset: sizes of the network.

    Returns:
        Disparity, disparity at the other time (both negative) and flow, N x H x W x C, px; the probabilities that disparity and
        flow are no outliers, N x H x W x 2; and what `dwarf_ros.training.stage_losses` reads, by name.
    """
    features = encode(stacked, preset)
    images = [
        Features(*parts)
        for parts in zip(
            *(
                SplitBatch(4, name=f"images_{level}", dtype=maps.dtype)(maps)
                for level, maps in zip(Features._fields, features, strict=True)
            ),
            strict=True,
        )
    ]
    left_t0, right_t0, left_t1, right_t1 = images
    both_left, both_right = (
        Features(
            *(keras.layers.Concatenate(axis=0)(list(maps)) for maps in zip(*pair, strict=True))
        )
        for pair in ((left_t0, left_t1), (right_t0, right_t1))
    )
    both = match_stereo(both_left, both_right, preset)
    stereo, stereo_next = (
        Stereo(*parts)
        for parts in zip(
            *(
                SplitBatch(2, name=f"frames_{name}", dtype=maps.dtype)(maps)
                for name, maps in zip(Stereo._fields, both, strict=True)
            ),
            strict=True,
        )
    )
    motion, stages = pair_motion(left_t0, left_t1, stereo, stereo_next)
    stages |= {
        "stereo_eighth": stereo.eighth,
        "stereo_logits": stereo.logits,
        "stereo_quarter_logits": stereo.quarter_logits,
        "full": motion,
    }
    logits = Enlarge(8, name="confidence_enlarged")(stages["confidence_logits"])
    return Modalities(name="modalities")(motion), sigmoid(logits, "confidences"), stages


def pair_motion(
    first: Features, second: Features, stereo: Stereo, stereo_next: Stereo
) -> tuple[Tensor, dict[str, Tensor]]:
    """Scene flow of the first frame's left image from both frames' features and disparities.

    Returns:
        Disparity, next disparity, u, v at full size, batch x H x W x 4, px; and the stages before it.
    """
    disparity = Subsample(2, name="pair.disparity_eighth")(stereo.quarter)
    coarse = coarse_flow(
        first,
        second,
        Subsample(2, name="pair.disparity_sixteenth")(disparity),
        Subsample(2, name="pair.certainty_sixteenth")(stereo.certainty),
    )
    flow, hidden = enlarged_hidden(coarse)
    updates = []
    for index in range(2):
        flow, hidden = update_flow(index, first.eighth, second.eighth, flow, hidden, disparity)
        updates.append(flow)
    disparity_of_next = Subsample(2, name="change.disparity_of_next")(stereo_next.quarter)
    difference = disparity_difference(disparity, disparity_of_next, flow, hidden)

    mixture = linear(hidden, 36, "enlarge_2.logits", kernel=1, gain=1.0)
    enlarged = EnlargeConvex(2, name="enlarge_2")(
        [concatenated(flow, difference, dtype="float32"), mixture]
    )
    flow_quarter, difference_quarter = Split(2, name="pair.quarter")(enlarged)
    next_quarter = keras.layers.Add(dtype="float32")([stereo.quarter, difference_quarter])
    motion = concatenated(stereo.quarter, next_quarter, flow_quarter, dtype="float32")
    x = concatenated(stereo.hidden, Scale(1 / 40, name="mask.scaled")(motion))
    mixture = linear(convolution(x, 32, "mask.0"), 144, "mask.1", kernel=1, gain=1.0)
    stages = {
        "flow_matched": coarse.matched,
        "flow_reliability": coarse.reliability,
        "flow_filled": coarse.filled,
        "flow_sixteenth": coarse.refined,
        **{f"flow_update_{index}": update for index, update in enumerate(updates)},
        "quarter": motion,
        "confidence_logits": linear(hidden, 2, "confidence"),
    }
    return EnlargeConvex(4, name="enlarge_4")([motion, mixture]), stages
