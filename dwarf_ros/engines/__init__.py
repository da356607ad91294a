"""What runs the network's graph: TensorFlow or OpenVINO, chosen by name."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

import numpy as np

from dwarf_ros.types import InputError

if TYPE_CHECKING:
    import keras

ENGINES = ("tensorflow", "openvino")
PRECISIONS = ("f32", "bf16")


class Engine(Protocol):
    """A network made ready for one kind of hardware."""

    @property
    def name(self) -> str:
        """One of `ENGINES`."""

    def run(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs, float32 N x H x W x C each, for its inputs, float32 N x H x W x 3 each."""


def check_name(name: str) -> None:
    """Raise InputError where the name is neither an engine's nor `auto`."""
    if name not in ("auto", *ENGINES):
        raise InputError(f"engine: {name!r} is unknown, expected auto, {', '.join(ENGINES)}")


def check_precision(precision: str, engine: str) -> None:
    """Raise InputError where the engine, one of `ENGINES`, does not compute in that precision."""
    if precision not in PRECISIONS:
        raise InputError(f"precision: {precision!r} is unknown, expected {' or '.join(PRECISIONS)}")
    if precision != "f32" and engine != "openvino":
        raise InputError(
            f"precision: {precision} given to engine {engine}, expected f32, or engine openvino"
        )


def choose_engine(name: str = "auto", gpu_memory_fraction: float = 0.0) -> str:
    """The engine that a name stands for; to be asked before the network is built.

    `auto` is tensorflow where it sees a GPU, else openvino where it is installed, else tensorflow. A GPU is told
    to hand out its memory as it is needed, or no more than a fraction of it, which is possible only before anything is
    placed on it.

    Args:
        name: one of `ENGINES`, or `auto`.
        gpu_memory_fraction: largest part of each GPU's memory to take, above 0 to 1; 0: as it is needed.

    Raises:
        InputError: an unknown name, an engine that is not installed or cannot run under this Keras backend, or a
            fraction with no GPU to apply it to, or too late.
    """
    check_name(name)
    # OpenVINO reads the network from a TensorFlow graph.
    missing = [
        p for p in ("tensorflow", "openvino") if find_spec(p) is None and p in (name, "tensorflow")
    ]
    if missing:
        raise InputError(
            f"engine: {' and '.join(missing)} not installed, expected by {name}: pip install 'dwarf_ros[cpu]'"
        )
    # TensorFlow announces itself on stderr at length.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise InputError(
            f"engine: Keras runs on {backend}, expected its tensorflow backend (set KERAS_BACKEND=tensorflow)"
        )
    from dwarf_ros.engines.tensorflow import find_gpus, limit_gpu_memory

    gpus = find_gpus()
    if gpu_memory_fraction:
        limit_gpu_memory(gpu_memory_fraction)
    if name != "auto":
        return name
    return "openvino" if find_spec("openvino") is not None and not gpus else "tensorflow"


def load_engine(name: str, model: keras.Model, precision: str = "f32") -> Engine:
    """Engine that runs the given network.

    Args:
        name: one of `ENGINES`, or `auto` (see `choose_engine`).
        model: a network of `dwarf_ros.network`.
        precision: one of `PRECISIONS`.

    Raises:
        InputError: see `choose_engine`, or a precision that the engine or this machine does not compute in.
    """
    chosen = choose_engine(name)
    check_precision(precision, chosen)
    if chosen == "openvino":
        from dwarf_ros.engines.openvino import OpenVinoEngine

        return OpenVinoEngine(model, precision)
    from dwarf_ros.engines.tensorflow import TensorFlowEngine

    return TensorFlowEngine(model)
