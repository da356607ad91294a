"""The compiled library as functions on a framework's tensors, and the check that it computes what keras.ops does.

The library returns the same bits on every run: no sum depends on timing.
`python -m dwarf_ros.network.correlation.cuda.build` builds it.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.network.correlation import ops
from dwarf_ros.network.presets import NEGATIVE_SLOPE

Tensor = Any
Tensors = tuple[Tensor, ...]
Attributes = tuple[tuple[str, int | float], ...]
"""Names and values, in a form that JAX can hash."""

DTYPES = ("float32", "float16", "bfloat16")
"""Types of the feature maps; sums are always float32."""

_IMAGES = ("left_t0", "right_t0", "left_t1", "right_t1")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernels:
    """The compiled library, called through one framework.

    Attributes:
        forward: (function, inputs, attributes) -> output, differentiable by the framework. The functions are `Correlation` and
            `CostVolumes`.
        gradient: (function, inputs, output, cotangent, attributes) -> the gradients with respect to the inputs.
        compiles: whether the functions can be part of a graph that XLA compiles.
    """

    forward: Callable[[str, Tensors, Attributes], Tensor]
    gradient: Callable[[str, Tensors, Tensor, Tensor, Attributes], Tensors]
    compiles: bool

    def correlate(
        self,
        first: Tensor,
        second: Tensor,
        reach_y: int,
        reach_x: int,
        depth: int = 0,
        slope: float = 1.0,
    ) -> Tensor:
        """One correlation volume, as `correlation.h` defines it.

        Args:
            first: batch x H x W x C, of one of DTYPES.
            second: the same shape and type.
            reach_y: vertical displacements from -reach_y to reach_y, px.
            reach_x: the same horizontally, px.
            depth: the same along the channels.
            slope: of the leaky ReLU for negative values; 1 disables it.
        """
        check_maps({"first": first, "second": second})
        check_reach(reach_y=reach_y, reach_x=reach_x, depth=depth)
        attributes = (("reach_y", reach_y), ("reach_x", reach_x), ("depth", depth))
        return self.forward("Correlation", (first, second), (*attributes, ("slope", slope)))

    def cost_volumes(
        self,
        left_t0: Tensor,
        right_t0: Tensor,
        left_t1: Tensor,
        right_t1: Tensor,
        max_displacement: int,
        max_depth_displacement: int,
        negative_slope: float,
    ) -> Tensor:
        """The same as `ops.cost_volumes`.

        Raises:
            ValueError: the maps differ in shape or type, or a displacement is out of range.
        """
        features = (left_t0, right_t0, left_t1, right_t1)
        check_maps(dict(zip(_IMAGES, features, strict=True)))
        check_reach(
            max_displacement=max_displacement, max_depth_displacement=max_depth_displacement
        )
        attributes = (("reach_x", max_displacement), ("depth", max_depth_displacement))
        return self.forward("CostVolumes", features, (*attributes, ("slope", negative_slope)))


def check_maps(maps: dict[str, Tensor]) -> None:
    """Check that feature maps can be correlated with one another.

    Args:
        maps: name -> tensor; sides that are not known yet are None.

    Raises:
        ValueError: a map is not batch x H x W x C, its type is not one of DTYPES, or it differs from the first.
    """
    (name, first), *_ = maps.items()
    for other, tensor in maps.items():
        if len(tensor.shape) != 4:
            raise ValueError(
                f"correlation: {other} has shape {tuple(tensor.shape)}, expected batch x H x W x C"
            )
        dtype, expected = _name_of(tensor.dtype), _name_of(first.dtype)
        if dtype not in DTYPES:
            raise ValueError(f"correlation: {other} is {dtype}, expected {', '.join(DTYPES)}")
        if dtype != expected:
            raise ValueError(f"correlation: {other} is {dtype}, expected {expected} as {name}")
        sides = zip(tensor.shape, first.shape, strict=True)
        if any(a != b for a, b in sides if a is not None and b is not None):
            raise ValueError(
                f"correlation: {other} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(first.shape)} as {name}"
            )


def check_reach(**reaches: int) -> None:
    """Check ranges of displacements.

    Raises:
        ValueError: one is not a whole number from 0 to 1024.
    """
    for name, reach in reaches.items():
        if not isinstance(reach, int) or not 0 <= reach <= 1024:
            raise ValueError(
                f"correlation: {name} is {reach!r}, expected a whole number, 0 to 1024"
            )


def find_fault(kernels: Kernels) -> str:
    """What is wrong with a library's forward pass on a small input, in one line; empty if nothing is.

    The inputs are small whole numbers, which are exact even where keras.ops computes matrix products in tf32.
    """
    rng = np.random.default_rng(0)
    # Several tiles of the GPU's kernels, none of them full.
    shape = (2, 7, 21, 8)
    features = tuple(rng.integers(-2, 3, shape).astype(np.float32) for _ in _IMAGES)
    first, second = features[:2]
    of_level: tuple[Any, ...] = (*features, 2, 1, NEGATIVE_SLOPE)
    pairs = {
        "1D correlation": (
            kernels.correlate(first, second, 0, 2),
            ops.correlation_1d(first, second, 2),
        ),
        "2D correlation": (
            kernels.correlate(first, second, 2, 2),
            ops.correlation_2d(first, second, 2),
        ),
        "3D correlation": (
            kernels.correlate(first, second, 2, 2, 1),
            ops.correlation_3d(first, second, 2, 1),
        ),
        "cost volumes": (kernels.cost_volumes(*of_level), ops.cost_volumes(*of_level)),
    }
    for name, (ours, reference) in pairs.items():
        ours, reference = np.asarray(ours, np.float32), np.asarray(reference, np.float32)
        # The 3D volume within the cost volumes is not made of whole numbers any more.
        tolerance = 1e-2 if name == "cost volumes" else 1e-5
        # Written so that NaN fails.
        if ours.shape != reference.shape or not (np.abs(ours - reference) <= tolerance).all():
            return f"its {name} differs from that of keras.ops"
    return ""


@functools.cache
def load(backend: str, library: Path | None = None, required: bool = True) -> Kernels | None:
    """The library for a Keras backend, loaded and checked once per process; None if keras.ops must be used instead.

    The reason is logged: as a warning if the library is required or a GPU could have used it.

    Args:
        backend: name of Keras's backend.
        library: its file; None: where the build command puts it.
        required: False: use the library only if there is a GPU and it was built with CUDA.
    """
    # Imported here because it is also a command, and Python warns if that is already imported.
    from dwarf_ros.network.correlation.cuda import build, jax_binding, tensorflow_binding

    bindings: dict[str, Any] = {"tensorflow": tensorflow_binding, "jax": jax_binding}
    if backend not in bindings:
        level = logging.WARNING if required else logging.INFO
        _log.log(
            level, "correlation: no kernels for the backend %s, using keras.ops instead", backend
        )
        return None
    binding = bindings[backend]
    if not required and not binding.sees_gpu():
        return None
    file = library or build.library_file(backend)
    if not file.is_file():
        _log.warning(
            "correlation: no library %s, using keras.ops instead; build it with "
            "python -m dwarf_ros.network.correlation.cuda.build",
            file,
        )
        return None
    if not required and not build.architectures_of(file):
        _log.warning(
            "correlation: library %s was built without CUDA, using keras.ops instead", file
        )
        return None
    try:
        kernels = binding.load_kernels(file)
        fault = find_fault(kernels)
    except Exception as error:
        # Whatever the reason, the network can do without the library.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        fault = f"it fails: {lines[0]}"
    if fault:
        _log.warning(
            "correlation: library %s is not used, using keras.ops instead: %s", file, fault
        )
        return None
    return kernels


def _name_of(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype))
