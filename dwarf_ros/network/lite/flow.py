"""Optical flow and the next disparity of a pair of frames: all-pairs matching at 1/16, two refinements at 1/8.

Flows are px of the image, (u to the right, v downwards).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from dwarf_ros.network.correlation.ops import correlation_2d
from dwarf_ros.network.lite.encoder import Features
from dwarf_ros.network.lite.layers import (
    Enlarge,
    Fill,
    Float32Layer,
    Inside,
    Mix,
    Refined,
    Scale,
    Shape,
    Split,
    Warp,
    best_index,
    concatenated,
    convolution,
    linear,
    projection,
    residual,
    unit,
    window,
)
from dwarf_ros.network.lite.stereo import SHARPNESS
from dwarf_ros.network.warping import warp_along_flow_border_replicated

Tensor = Any

_GLOBAL_SHARPNESS = 20.0
_GLOBAL_RADIUS = 2
_LOCAL_RADIUS = 4
_FARTHEST_RETURN = 8.0


class GlobalFlow(Float32Layer):
    """Optical flow from the best of all matches between two images.

    Input: features at 1/16 of both. Output: the flow, px of the image, which is the mean over the 5 x 5 cells around the best
    match weighted by a softmax; evidence (peak cosine, peak probability, cells between a cell and the best match of its
    best match); the cosines of the 25 cells; and all cosines, batch x H W x H W.

    Reference: Xu et al., "GMFlow: Learning Optical Flow via Global Matching", CVPR 2022.
    """

    def build(self, input_shape: list[Shape]) -> None:
        """Make the sharpness."""
        self.sharpness = self.add_weight(shape=(1,), initializer="ones", name="sharpness")

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As described above."""
        first, second = (unit(features) for features in inputs)
        batch, height, width, channels = ops.shape(first)
        cells = height * width
        first = ops.reshape(first, (batch, cells, channels))
        second = ops.reshape(second, (batch, cells, channels))
        cosines = ops.matmul(first, ops.transpose(second, (0, 2, 1)))
        there = _best_of_second(cosines, height, width)
        distance = _return_distance(_best_of_first(cosines, height, width), there, width)
        distance = ops.minimum(distance, _FARTHEST_RETURN) / (_FARTHEST_RETURN / 2)
        x = ops.reshape(there % width, (batch, height, width))
        y = ops.reshape(there // width, (batch, height, width))
        around = cosines_around(cosines, x, y, _GLOBAL_RADIUS)
        match = ops.softmax(around * (_GLOBAL_SHARPNESS * self.sharpness), axis=-1)
        columns = ops.cast(ops.arange(width), "float32")[None, None, :]
        rows = ops.cast(ops.arange(height), "float32")[None, :, None]
        whole = ops.stack(
            [ops.cast(x, "float32") - columns, ops.cast(y, "float32") - rows], axis=-1
        )
        flow = 16.0 * (whole + ops.matmul(match, window(_GLOBAL_RADIUS)))
        evidence = ops.concatenate(
            [
                ops.max(around, axis=-1, keepdims=True),
                ops.max(match, axis=-1, keepdims=True),
                ops.reshape(distance, (batch, height, width, 1)),
            ],
            axis=-1,
        )
        return flow, evidence, around, cosines

    def compute_output_shape(self, input_shape: list[Shape]) -> tuple[Shape, Shape, Shape, Shape]:
        """Of the four."""
        batch, height, width, _ = input_shape[0]
        cells = height * width if height and width else None
        size = (batch, height, width)
        side = 2 * _GLOBAL_RADIUS + 1
        return (*size, 2), (*size, 3), (*size, side**2), (batch, cells, cells)


class CosinesAround(Float32Layer):
    """Cosines of the 5 x 5 cells around where a flow leads, read from those of all pairs, and the flow's part below a cell.

    Input: all cosines, and the flow at 1/16, px of the image. Output: batch x H x W x 27.
    """

    def call(self, inputs: list[Tensor]) -> Tensor:
        """As described above."""
        cosines, flow = inputs
        _, height, width, _ = ops.shape(flow)
        cells = ops.stop_gradient(flow) / 16.0
        whole = ops.round(ops.clip(cells, -4000.0, 4000.0))
        x = ops.cast(whole[:, :, :, 0], "int32") + ops.arange(width, dtype="int32")[None, None]
        y = ops.cast(whole[:, :, :, 1], "int32") + ops.arange(height, dtype="int32")[None, :, None]
        around = cosines_around(cosines, x, y, _GLOBAL_RADIUS)
        return ops.concatenate([around, cells - whole], axis=-1)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        """27 channels."""
        return (*input_shape[1][:3], (2 * _GLOBAL_RADIUS + 1) ** 2 + 2)


class FlowLookup(Float32Layer):
    """Cosines of cells with those near where a flow leads, on the grid of the features.

    Input: features of both images, and the flow, px of the image. Output: the cosines of (2 r + 1)**2 cells, row by row; the
    mean displacement, px of the image, by their softmax; and the softmax's peak.
    """

    def __init__(self, radius: int, cell: int, name: str) -> None:
        super().__init__(name)
        self.radius, self.cell = radius, cell

    def build(self, input_shape: list[Shape]) -> None:
        """Make the sharpness."""
        self.sharpness = self.add_weight(shape=(1,), initializer="ones", name="sharpness")

    def call(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """As described above."""
        first, second, flow = inputs
        first, second = unit(first), unit(second)
        second = warp_along_flow_border_replicated(second, ops.stop_gradient(flow) / self.cell)
        cosines = correlation_2d(first, second, self.radius) * first.shape[-1]
        match = ops.softmax(cosines * (SHARPNESS * self.sharpness), axis=-1)
        found = ops.matmul(match, window(self.radius, self.cell))
        return cosines, found, ops.max(match, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: list[Shape]) -> tuple[Shape, Shape, Shape]:
        """Of the three."""
        size = input_shape[0][:3]
        return (*size, (2 * self.radius + 1) ** 2), (*size, 2), (*size, 1)


class CoarseFlow(NamedTuple):
    """Flow at 1/16 and what led to it.

    Attributes:
        matched: by cosines alone.
        reliability: probability that `matched` is right, as the network sees it.
        filled: reliable matches, and what is around them elsewhere.
        refined: the estimate.
        hidden: features.
    """

    matched: Tensor
    reliability: Tensor
    filled: Tensor
    refined: Tensor
    hidden: Tensor


def coarse_flow(
    first: Features, second: Features, disparity: Tensor, certainty: Tensor
) -> CoarseFlow:
    """Flow at 1/16 from all-pairs matching.

    Args:
        first: features of the reference's left image.
        second: features of the other left image.
        disparity: of the reference at 1/16, px of the image.
        certainty: of that disparity.
    """
    matched, evidence, around, cosines = GlobalFlow(name="flow.global")(
        [first.sixteenth, second.sixteenth]
    )
    small = Scale(1 / 40, name="flow.small")
    x = concatenated(
        Scale(4.0, name="flow.cosines")(around),
        convolution(first.sixteenth, 48, "flow.features", kernel=1),
        evidence,
        small(matched),
        small(disparity),
        certainty,
    )
    x = convolution(x, 96, "flow.a0")
    x = residual(x, 96, "flow.a1", dilation=2)
    x = residual(x, 96, "flow.a2", dilation=4)
    reliability = sigmoid(linear(x, 1, "flow.reliability"), "flow.reliable")
    means = Fill((3, 7, 17), name="flow.fill")([matched, reliability])
    logits, correction = Split(4, name="flow.a_split")(linear(x, 6, "flow.a_head"))
    candidates = concatenated(matched, means, dtype="float32")
    filled = Mix(2, 16.0, name="flow.a_mix")([candidates, logits, correction])
    around = CosinesAround(name="flow.around")([cosines, filled])
    x = concatenated(x, Scale(4.0, name="flow.around_scaled")(around), small(filled))
    x = convolution(x, 96, "flow.b0")
    x = residual(x, 96, "flow.b1")
    x = residual(x, 96, "flow.b2", dilation=3)
    correction = Scale(16.0, name="flow.correction")(linear(x, 2, "flow.b_head"))
    refined = keras.layers.Add(dtype="float32")([filled, correction])
    return CoarseFlow(matched, reliability, filled, refined, x)


def update_flow(
    index: int, first: Tensor, second: Tensor, flow: Tensor, hidden: Tensor, disparity: Tensor
) -> tuple[Tensor, Tensor]:
    """One refinement at 1/8.

    Args:
        index: number of the refinement, for the names of its layers.
        first: features at 1/8 of the reference's left image.
        second: features of the other left image.
        flow: at 1/8, px of the image.
        hidden: features of the step before.
        disparity: at 1/8, px of the image.

    Returns:
        The flow, and features for the next step.
    """
    name = f"update_{index}"
    cosines, found, peak = FlowLookup(_LOCAL_RADIUS, 8, name=f"{name}.lookup")(
        [first, second, flow]
    )
    small = Scale(1 / 40, name=f"{name}.small")
    x = concatenated(
        convolution(Scale(4.0, name=f"{name}.cosines")(cosines), 64, f"{name}.corr", kernel=1),
        convolution(first, 32, f"{name}.features", kernel=1),
        hidden,
        small(flow),
        small(found),
        peak,
        small(disparity),
        Inside(8, name=f"{name}.inside")(flow),
    )
    x = convolution(x, 80, f"{name}.0")
    x = convolution(x, 64, f"{name}.1", dilation=2)
    x = convolution(x, 64, f"{name}.2", dilation=4)
    hidden = convolution(x, 64, f"{name}.3")
    gate, correction = Split(1, name=f"{name}.split", gate=True)(linear(hidden, 3, f"{name}.head"))
    return Refined(8.0, name=f"{name}.refined")([flow, found, gate, correction]), hidden


def disparity_difference(
    disparity: Tensor, disparity_of_next: Tensor, flow: Tensor, hidden: Tensor
) -> Tensor:
    """Disparity of the reference's points at the other time less that at their own, at 1/8.

    Looked up where the flow leads; where that cannot be trusted, taken from around.

    Args:
        disparity: of the reference, px of the image.
        disparity_of_next: of the other frame, px of the image.
        flow: px of the image.
        hidden: features of the last refinement.
    """
    looked_up = Warp(8, name="change.looked_up")([disparity_of_next, flow])
    difference = keras.layers.Subtract(dtype="float32")([looked_up, disparity])
    x = concatenated(
        hidden,
        Scale(1 / 10, name="change.scaled")(difference),
        Scale(1 / 40, name="change.disparity")(disparity),
        Scale(1 / 40, name="change.flow")(flow),
        Inside(8, name="change.inside")(flow),
    )
    x = convolution(x, 64, "change.0")
    x = convolution(x, 48, "change.1", dilation=3)
    trust = sigmoid(linear(x, 1, "change.trusted"), "change.trust")
    means = Fill((5, 15), name="change.fill")([difference, trust])
    logits, correction = Split(3, name="change.split")(linear(x, 4, "change.head"))
    candidates = concatenated(difference, means, dtype="float32")
    return Mix(1, 8.0, name="change.mix")([candidates, logits, correction])


def enlarged_hidden(coarse: CoarseFlow) -> tuple[Tensor, Tensor]:
    """Flow and features of 1/16 on the grid of 1/8."""
    flow = Enlarge(2, name="pair.flow_enlarged")(coarse.refined)
    hidden = projection(48, "pair.hidden")(coarse.hidden)
    return flow, Enlarge(2, name="pair.hidden_enlarged")(hidden)


def sigmoid(x: Tensor, name: str) -> Tensor:
    """Logits as probabilities, float32."""
    return keras.layers.Activation("sigmoid", dtype="float32", name=name)(x)


def cosines_around(cosines: Tensor, x: Tensor, y: Tensor, radius: int) -> Tensor:
    """Cosines of the cells around one cell per cell, row by row; 0 outside the image.

    Args:
        cosines: batch x H W x H W.
        x: column, int32 batch x H x W.
        y: row, likewise.
        radius: of the window, cells.

    Returns:
        Batch x H x W x (2 radius + 1)**2.
    """
    batch, height, width = ops.shape(x)
    cells = height * width
    start = ops.reshape(ops.arange(batch * cells, dtype="int32") * cells, (batch, height, width))
    flat = ops.reshape(cosines, (-1,))
    taps = []
    for step_y in range(-radius, radius + 1):
        for step_x in range(-radius, radius + 1):
            column, row = x + step_x, y + step_y
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
            taps.append(ops.take(flat, start + place) * ops.cast(inside, "float32"))
    return ops.stack(taps, axis=-1)


def _best_of_second(cosines: Tensor, height: int, width: int) -> Tensor:
    """Cell of the second image that matches each cell of the first best; int32 batch x H W.

    Best row first, then best column: engines take ten times as long to search all cells at once.
    """
    batch, cells = ops.shape(cosines)[:2]
    rows = ops.reshape(cosines, (batch, cells, height, width))
    row = best_index(ops.max(rows, axis=3))
    start = ops.reshape(ops.arange(batch * cells, dtype="int32") * height, (batch, cells))
    best_row = ops.take(ops.reshape(cosines, (-1, width)), start + row, axis=0)
    return row * width + best_index(best_row)


def _best_of_first(cosines: Tensor, height: int, width: int) -> Tensor:
    """Cell of the first image that matches each cell of the second best; int32 batch x H W."""
    batch, cells = ops.shape(cosines)[:2]
    rows = ops.reshape(cosines, (batch, height, width, cells))
    row = best_index(ops.transpose(ops.max(rows, axis=2), (0, 2, 1)))
    # Of the best row's cells, all cosines with the cell of the second image.
    start = ops.reshape(ops.arange(batch, dtype="int32") * cells * cells, (batch, 1, 1))
    cell = ops.arange(cells, dtype="int32")[None, :, None]
    columns = ops.arange(width, dtype="int32")[None, None]
    index = start + (row[..., None] * width + columns) * cells + cell
    return row * width + best_index(ops.take(ops.reshape(cosines, (-1,)), index))


def _return_distance(best: Tensor, there: Tensor, width: int) -> Tensor:
    """Cells between each cell and the best match of its best match; batch x H W."""
    batch, cells = ops.shape(there)
    start = ops.arange(batch, dtype="int32")[:, None] * cells
    back = ops.take(ops.reshape(best, (-1,)), there + start)
    own = ops.arange(cells, dtype="int32")[None]
    x = ops.cast(back % width - own % width, "float32")
    y = ops.cast(back // width - own // width, "float32")
    return ops.sqrt(ops.square(x) + ops.square(y) + 1e-6)
