"""Engines run the network's graph: TensorFlow, OpenVINO or ONNX Runtime, chosen by name."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dwarf_ros.types import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dwarf_ros.engines.source import NetworkSource

ENGINES = ("tensorflow", "openvino", "onnxruntime")
PRECISIONS = ("f32", "tf32", "bf16", "int8")

PRECISIONS_OF = {
    "tensorflow": ("f32", "tf32", "bf16"),
    "openvino": ("f32", "bf16", "int8"),
    "onnxruntime": ("f32",),
}
"""Precisions that each engine supports; tf32 only on a GPU, bf16 under openvino only where the processor has it."""

_EXTRAS = {"tensorflow": "cpu", "openvino": "cpu", "onnxruntime": "onnx"}


class Engine(Protocol):
    """Runs a network on one kind of hardware."""

    @property
    def name(self) -> str:
        """One of `ENGINES`."""

    def run(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs, float32 N x H x W x C each, for its inputs, float32 N x H x W x 3 each."""


def check_name(name: str) -> None:
    """Raise InputError unless the name is an engine's or `auto`."""
    if name not in ("auto", *ENGINES):
        raise InputError(f"engine: {name!r} is unknown, expected auto, {', '.join(ENGINES)}")


def check_precision(precision: str, engine: str) -> None:
    """Raise InputError unless the engine, one of `ENGINES`, supports the precision or it is `auto`."""
    if precision not in ("auto", *PRECISIONS):
        raise InputError(
            f"precision: {precision!r} is unknown, expected auto, {', '.join(PRECISIONS)}"
        )
    if precision not in ("auto", *PRECISIONS_OF[engine]):
        raise InputError(
            f"precision: {precision} given to engine {engine}, expected auto, {', '.join(PRECISIONS_OF[engine])}"
        )


def choose_engine(name: str = "auto") -> str:
    """The engine that a name stands for; call it before anything is placed on a GPU.

    `auto` is tensorflow where TensorFlow sees a GPU, else the fastest engine that is installed: openvino, onnxruntime,
    tensorflow. TensorFlow then allocates GPU memory as needed, instead of all of it at once.

    Args:
        name: one of `ENGINES`, or `auto`.

    Raises:
        InputError: an unknown name, or an engine that is not installed.
    """
    check_name(name)
    # The other engines run what is converted from a TensorFlow graph.
    needed = ["tensorflow"] if name == "auto" else sorted({"tensorflow", name}, reverse=True)
    missing = [package for package in needed if find_spec(package) is None]
    if missing:
        raise InputError(
            f"engine: {' and '.join(missing)} not installed, expected by {name}: "
            f"pip install 'dwarf_ros[{_EXTRAS.get(name, 'cpu')}]'"
        )
    on_gpu = False
    if name in ("auto", "tensorflow") and count_gpus():
        # TensorFlow logs at length to stderr, and takes seconds to load.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from dwarf_ros.engines.tensorflow import find_gpus

        on_gpu = bool(find_gpus())
    if name != "auto":
        return name
    if on_gpu:
        return "tensorflow"
    if find_spec("openvino") is not None:
        return "openvino"
    exporting = all(find_spec(package) for package in ("onnxruntime", "onnx", "tf2onnx"))
    return "onnxruntime" if exporting else "tensorflow"


def count_gpus() -> int:
    """Number of GPUs that CUDA's driver sees; 0 without a driver."""
    import ctypes

    count = ctypes.c_int()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        failed = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    except OSError:
        return 0
    return 0 if failed else count.value


def load_engine(
    name: str,
    network: NetworkSource | keras.Model | str | Path,
    precision: str = "f32",
    gpu_memory_fraction: float = 0.0,
) -> Engine:
    """Engine that runs the given network.

    Args:
        name: one of `ENGINES`, which must be installed; see `choose_engine`.
        network: a weights file, or a model of `dwarf_ros.network`.
        precision: one of `PRECISIONS`, or `auto`: the fastest that needs no preparation and that the hardware supports.
        gpu_memory_fraction: largest part of each GPU's memory that TensorFlow may take, above 0 to 1; 0: no limit.

    Raises:
        InputError: weights that cannot be read, a precision that the engine or this machine does not support, or a
            fraction without a GPU or after TensorFlow has used it.
    """
    from dwarf_ros.engines.source import NetworkSource

    check_precision(precision, name)
    if gpu_memory_fraction:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from dwarf_ros.engines.tensorflow import limit_gpu_memory

        limit_gpu_memory(gpu_memory_fraction)
    if not isinstance(network, NetworkSource):
        network = NetworkSource(network)
    if name != "tensorflow":
        from dwarf_ros.engines.conversion import check

        check(network)
    if name == "openvino":
        from dwarf_ros.engines.openvino import OpenVinoEngine, has_bfloat16

        if precision == "auto":
            precision = "bf16" if has_bfloat16() else "f32"
        return OpenVinoEngine(network, precision)
    if name == "onnxruntime":
        from dwarf_ros.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(network)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from dwarf_ros.engines.tensorflow import TensorFlowEngine, find_gpus

    if precision == "auto":
        precision = "tf32" if find_gpus() else "f32"
    return TensorFlowEngine(network, precision)
