"""The cost volumes of the network, computed by keras.ops or by compiled kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dwarf_ros.types import InputError

CHOICES = ("auto", "ops", "cuda")
"""`auto`: compiled kernels if there is a GPU and they are built and correct, else keras.ops; `ops`: keras.ops; `cuda`: the
compiled kernels, on the CPU if there is no GPU, and keras.ops if they cannot be used."""


@dataclass(frozen=True)
class Correlation:
    """An implementation of the network's cost volumes.

    Attributes:
        name: `ops` or `cuda`.
        cost_volumes: with the arguments of `ops.cost_volumes`.
        compiles: whether XLA can compile a graph that contains it; with TensorFlow, `cuda` cannot.
    """

    name: str
    cost_volumes: Callable[..., Any]
    compiles: bool


def load(choice: str = "auto") -> Correlation:
    """The implementation to use with Keras's backend.

    Args:
        choice: one of CHOICES.

    Raises:
        InputError: an unknown choice.
    """
    if choice not in CHOICES:
        raise InputError(f"correlation: got {choice!r}, expected one of {', '.join(CHOICES)}")
    if choice != "ops":
        import keras

        from dwarf_ros.network.correlation.cuda import kernels

        loaded = kernels.load(keras.backend.backend(), required=choice == "cuda")
        if loaded is not None:
            return Correlation("cuda", loaded.cost_volumes, loaded.compiles)
    from dwarf_ros.network.correlation import ops

    return Correlation("ops", ops.cost_volumes, compiles=True)
