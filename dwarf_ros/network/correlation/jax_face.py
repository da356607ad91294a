"""The library as XLA FFI calls, for JAX."""

from __future__ import annotations

import ctypes
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dwarf_ros.network.correlation.kernels import Kernels

Tensor = Any

HANDLERS = (
    "DwarfCorrelation",
    "DwarfCorrelationGradient",
    "DwarfCostVolumes",
    "DwarfCostVolumesGradient",
)
"""What the library calls its functions, before Cpu or Cuda."""


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
            if suffix == "Cpu" or hasattr(handlers, name + suffix):
                handler = jax.ffi.pycapsule(getattr(handlers, name + suffix))
                jax.ffi.register_ffi_target(_target(library, name), handler, platform=platform)

    def call(
        name: str, channels: Sequence[int], tensors: Sequence[Tensor], **attributes: int | float
    ) -> Sequence[Tensor]:
        shape, dtype = tensors[0].shape[:3], tensors[0].dtype
        outputs = [jax.ShapeDtypeStruct((*shape, depth), dtype) for depth in channels]
        # The handlers are strict about the types of their attributes.
        typed = {
            key: np.float32(value) if key == "slope" else np.int64(value)
            for key, value in attributes.items()
        }
        target = _target(library, name)
        return jax.ffi.ffi_call(target, outputs, vmap_method="sequential")(*tensors, **typed)

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
            call(
                "DwarfCorrelationGradient",
                [first.shape[-1]] * 2,
                (first, second, volume, cotangent),
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
        # The last output is working memory.
        channels = [features[0].shape[-1]] * 4 + [2 * (2 * reach_x + 1)]
        outputs = call(
            "DwarfCostVolumesGradient",
            channels,
            (*features, volumes, cotangent),
            reach_x=reach_x,
            depth=depth,
            slope=slope,
        )
        return tuple(outputs[:4])

    @functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
    def correlate(
        first: Tensor, second: Tensor, reach_y: int, reach_x: int, depth: int, slope: float
    ) -> Tensor:
        channels = (2 * depth + 1) * (2 * reach_y + 1) * (2 * reach_x + 1)
        attributes = {"reach_y": reach_y, "reach_x": reach_x, "depth": depth, "slope": slope}
        return call("DwarfCorrelation", [channels], (first, second), **attributes)[0]

    def correlate_forwards(first: Tensor, second: Tensor, *attributes: Any) -> tuple:
        volume = correlate(first, second, *attributes)
        return volume, (first, second, volume)

    def correlate_backwards(*arguments: Any) -> tuple[Tensor, ...]:
        reach_y, reach_x, depth, slope, (first, second, volume), cotangent = arguments
        return correlate_gradient(first, second, volume, cotangent, reach_y, reach_x, depth, slope)

    correlate.defvjp(correlate_forwards, correlate_backwards)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
    def cost_volumes(
        features: tuple[Tensor, ...], reach_x: int, depth: int, slope: float
    ) -> Tensor:
        side = 2 * reach_x + 1
        channels = 2 * side + (2 * depth + 2) * side**2
        attributes = {"reach_x": reach_x, "depth": depth, "slope": slope}
        return call("DwarfCostVolumes", [channels], features, **attributes)[0]

    def cost_volumes_forwards(features: tuple[Tensor, ...], *attributes: Any) -> tuple:
        volumes = cost_volumes(features, *attributes)
        return volumes, (features, volumes)

    def cost_volumes_backwards(*arguments: Any) -> tuple[tuple[Tensor, ...]]:
        reach_x, depth, slope, (features, volumes), cotangent = arguments
        return (cost_volumes_gradient(features, volumes, cotangent, reach_x, depth, slope),)

    cost_volumes.defvjp(cost_volumes_forwards, cost_volumes_backwards)

    return Kernels(
        correlate,
        cost_volumes,
        correlate_gradient,
        cost_volumes_gradient,
        compiles=True,
    )


def _target(library: Path, name: str) -> str:
    """The name under which JAX knows a handler; another file's is another, which JAX insists on."""
    return f"{name}.{hashlib.sha256(bytes(library.resolve())).hexdigest()[:12]}"
