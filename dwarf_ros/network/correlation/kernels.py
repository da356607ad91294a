"""What a framework's face of the library offers, and the checks that both faces share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Tensor = Any

DTYPES = ("float32", "float16", "bfloat16")
"""Types of the maps; sums are float32 throughout."""


@dataclass(frozen=True)
class Kernels:
    """The library's functions on a framework's own tensors, differentiable by that framework.

    Attributes:
        correlate: (first, second, reach_y, reach_x, depth, slope) -> volume.
        cost_volumes: ((left_t0, right_t0, left_t1, right_t1), reach_x, depth, slope) -> volumes.
        correlate_gradient: (first, second, volume, cotangent, reach_y, reach_x, depth, slope) -> gradients by first and second.
        cost_volumes_gradient: (features, volumes, cotangent, reach_x, depth, slope) -> four gradients.
        compiles: the functions can be part of a graph that XLA compiles.
    """

    correlate: Callable[..., Tensor]
    cost_volumes: Callable[..., Tensor]
    correlate_gradient: Callable[..., tuple[Tensor, ...]]
    cost_volumes_gradient: Callable[..., tuple[Tensor, ...]]
    compiles: bool


def check_maps(maps: dict[str, Tensor]) -> None:
    """Whether feature maps go together.

    Args:
        maps: name -> tensor; sides that are not known yet are None.

    Raises:
        ValueError: a map is not batch x H x W x C, of a type that is not one of DTYPES, or unlike the first.
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
    """Whether displacements can be correlated over.

    Raises:
        ValueError: one is not a whole number from 0 to 1024.
    """
    for name, reach in reaches.items():
        if not isinstance(reach, int) or not 0 <= reach <= 1024:
            raise ValueError(
                f"correlation: {name} is {reach!r}, expected a whole number, 0 to 1024"
            )


def _name_of(dtype: Any) -> str:
    return str(getattr(dtype, "name", dtype))
