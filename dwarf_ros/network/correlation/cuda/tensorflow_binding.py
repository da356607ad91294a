"""The compiled library as TensorFlow ops."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from dwarf_ros.network.correlation.cuda.kernels import Attributes, Kernels, Tensor, Tensors


def sees_gpu() -> bool:
    """Whether TensorFlow has a GPU to compute on."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@functools.cache
def load_kernels(library: Path) -> Kernels:
    """The ops of a library, with their gradients registered. A process can load only one library.

    Raises:
        tensorflow.errors.OpError: the file cannot be loaded, or its ops are already registered.
    """
    import tensorflow as tf

    ops = tf.load_op_library(str(library))
    forwards = {"Correlation": ops.dwarf_correlation, "CostVolumes": ops.dwarf_cost_volumes}
    gradients = {
        "Correlation": ops.dwarf_correlation_gradient,
        "CostVolumes": ops.dwarf_cost_volumes_gradient,
    }

    def forward(function: str, inputs: Tensors, attributes: Attributes) -> Tensor:
        return forwards[function](*inputs, **dict(attributes))

    def gradient(
        function: str, inputs: Tensors, output: Tensor, cotangent: Tensor, attributes: Attributes
    ) -> Tensors:
        return tuple(gradients[function](*inputs, output, cotangent, **dict(attributes)))

    def register(function: str, names: tuple[str, ...]) -> None:
        @tf.RegisterGradient(f"Dwarf{function}")
        def _(op: Any, cotangent: Tensor) -> Tensors:
            attributes = tuple((name, op.get_attr(name)) for name in names)
            return gradient(function, tuple(op.inputs), op.outputs[0], cotangent, attributes)

    register("Correlation", ("reach_y", "reach_x", "depth", "slope"))
    register("CostVolumes", ("reach_x", "depth", "slope"))
    return Kernels(forward, gradient, compiles=False)
