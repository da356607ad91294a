"""The compiled library as XLA FFI calls, for JAX."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dwarf_ros.network.correlation.cuda.kernels import Attributes, Kernels, Tensor, Tensors

HANDLERS = ("Correlation", "CorrelationGradient", "CostVolumes", "CostVolumesGradient")
"""The library's functions; their symbols are Dwarf<name>Cpu and Dwarf<name>Cuda."""


def sees_gpu() -> bool:
    """Whether JAX computes on a GPU."""
    import jax

    return jax.default_backend() == "gpu"


@functools.cache
def load_kernels(library: Path) -> Kernels:
    """The calls of a library, with their gradients.

    Raises:
        OSError: the file cannot be loaded.
        AttributeError: it lacks a handler, or jax is older than 0.5.
    """
    import jax
    import numpy as np

    handlers = ctypes.CDLL(str(library))
    for name in HANDLERS:
        for platform, suffix in (("cpu", "Cpu"), ("CUDA", "Cuda")):
            symbol = f"Dwarf{name}{suffix}"
            if suffix == "Cpu" or hasattr(handlers, symbol):
                handler = jax.ffi.pycapsule(getattr(handlers, symbol))
                jax.ffi.register_ffi_target(_target(library, name), handler, platform=platform)

    def call(
        handler: str, channels: Sequence[int], tensors: Tensors, attributes: Attributes
    ) -> Sequence[Tensor]:
        shape, dtype = tensors[0].shape[:3], tensors[0].dtype
        outputs = [jax.ShapeDtypeStruct((*shape, depth), dtype) for depth in channels]
        # The handlers are strict about the types of their attributes.
        typed = {
            key: np.float32(value) if key == "slope" else np.int64(value)
            for key, value in attributes
        }
        target = _target(library, handler)
        return jax.ffi.ffi_call(target, outputs, vmap_method="sequential")(*tensors, **typed)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0, 2))
    def forward(function: str, inputs: Tensors, attributes: Attributes) -> Tensor:
        reach = dict(attributes)
        side, depth = 2 * int(reach["reach_x"]) + 1, int(reach["depth"])
        if function == "Correlation":
            channels = (2 * depth + 1) * (2 * int(reach["reach_y"]) + 1) * side
        else:
            channels = 2 * side + (2 * depth + 2) * side**2
        return call(function, [channels], inputs, attributes)[0]

    def gradient(
        function: str, inputs: Tensors, output: Tensor, cotangent: Tensor, attributes: Attributes
    ) -> Tensors:
        channels = [one.shape[-1] for one in inputs]
        if function == "CostVolumes":
            # The handler's working memory.
            channels.append(2 * (2 * int(dict(attributes)["reach_x"]) + 1))
        tensors = (*inputs, output, cotangent)
        return tuple(call(f"{function}Gradient", channels, tensors, attributes)[: len(inputs)])

    def forward_kept(function: str, inputs: Tensors, attributes: Attributes) -> tuple[Any, ...]:
        output = forward(function, inputs, attributes)
        return output, (inputs, output)

    def backward(
        function: str, attributes: Attributes, kept: tuple[Tensors, Tensor], cotangent: Tensor
    ) -> tuple[Tensors]:
        inputs, output = kept
        return (gradient(function, inputs, output, cotangent, attributes),)

    forward.defvjp(forward_kept, backward)
    return Kernels(forward, gradient, compiles=True)


def _target(library: Path, name: str) -> str:
    """The name under which JAX knows a handler; it must differ from file to file."""
    return f"Dwarf{name}.{hashlib.sha256(bytes(library.resolve())).hexdigest()[:12]}"
