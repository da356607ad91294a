"""The library as TensorFlow ops."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from dwarf_ros.network.correlation.kernels import Kernels

Tensor = Any


def sees_gpu() -> bool:
    """Whether TensorFlow has a GPU to compute on."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def load_kernels(library: Path) -> Kernels:
    """The ops of a library, with their gradients registered. A process can load only one library.

    Raises:
        tensorflow.errors.OpError: the file cannot be loaded or its ops are there already.
    """
    import tensorflow as tf

    ops = tf.load_op_library(str(library))

    def correlate(
        first: Tensor, second: Tensor, reach_y: int, reach_x: int, depth: int, slope: float
    ) -> Tensor:
        return ops.dwarf_correlation(
            first, second, reach_y=reach_y, reach_x=reach_x, depth=depth, slope=slope
        )

    def cost_volumes(
        features: tuple[Tensor, ...], reach_x: int, depth: int, slope: float
    ) -> Tensor:
        return ops.dwarf_cost_volumes(*features, reach_x=reach_x, depth=depth, slope=slope)

    def correlate_gradient(
        first: Tensor,
        second: Tensor,
        volume: Tensor,
        cotangent: Tensor,
        reach_y: int,
        reach_x: int,
        depth: int,
        slope: float,
    ) -> tuple[Tensor, ...]:
        return tuple(
            ops.dwarf_correlation_gradient(
                first,
                second,
                volume,
                cotangent,
                reach_y=reach_y,
                reach_x=reach_x,
                depth=depth,
                slope=slope,
            )
        )

    def cost_volumes_gradient(
        features: tuple[Tensor, ...],
        volumes: Tensor,
        cotangent: Tensor,
        reach_x: int,
        depth: int,
        slope: float,
    ) -> tuple[Tensor, ...]:
        return tuple(
            ops.dwarf_cost_volumes_gradient(
                *features, volumes, cotangent, reach_x=reach_x, depth=depth, slope=slope
            )
        )

    @tf.RegisterGradient("DwarfCorrelation")
    def _of_correlation(op: Any, cotangent: Tensor) -> tuple[Tensor, ...]:
        first, second = op.inputs
        attributes = {name: op.get_attr(name) for name in ("reach_y", "reach_x", "depth", "slope")}
        return correlate_gradient(first, second, op.outputs[0], cotangent, **attributes)

    @tf.RegisterGradient("DwarfCostVolumes")
    def _of_cost_volumes(op: Any, cotangent: Tensor) -> tuple[Tensor, ...]:
        attributes = {name: op.get_attr(name) for name in ("reach_x", "depth", "slope")}
        return cost_volumes_gradient(tuple(op.inputs), op.outputs[0], cotangent, **attributes)

    return Kernels(
        correlate,
        cost_volumes,
        correlate_gradient,
        cost_volumes_gradient,
        compiles=False,
    )
