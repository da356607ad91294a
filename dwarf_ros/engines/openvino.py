"""The network compiled by OpenVINO for the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwarf_ros.engines.cache import cache_folder, cached, is_whole
from dwarf_ros.engines.conversion import convert
from dwarf_ros.engines.quiet_openvino import ov
from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.network.codec import INPUTS, OUTPUTS
from dwarf_ros.types import InputError

MODEL_FILE = "model.xml"


def has_bfloat16() -> bool:
    """Whether this machine's processor supports bfloat16."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class LayerTime(NamedTuple):
    """Name, kind and time (s) of a layer of the compiled network."""

    name: str
    kind: str
    seconds: float


class OpenVinoEngine:
    """Runs a network in float32, bfloat16 or 8-bit integers, compiled for the shape of the images.

    The first run of each shape converts and compiles the network, which takes seconds; a change of shape compiles it again.
    Later starts read the converted network from the cache, without Keras and TensorFlow.
    """

    name = "openvino"

    def __init__(self, network: NetworkSource, precision: str = "f32") -> None:
        """Compile nothing yet, because the shape is not known.

        Args:
            network: what to run.
            precision: f32, bf16 or int8.

        Raises:
            InputError: bf16 on a processor without bfloat16.
        """
        self._network = network
        if precision == "bf16" and not has_bfloat16():
            raise InputError("precision: bf16 given, expected f32: this processor has no bfloat16")
        self._precision = precision
        self._shape: tuple[int, ...] = ()
        self._compiled: ov.CompiledModel | None = None

    def run(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs, float32 N x H x W x C each, for its inputs, float32 N x H x W x 3 each."""
        shape = images[INPUTS[0]].shape
        if self._compiled is None or shape != self._shape:
            # The old network is released first: two at once may not fit into memory.
            self._compiled = None
            self._compiled, self._shape = self._compile(shape), shape
        results = self._compiled([images[name] for name in INPUTS])
        return {name: results[index].copy() for index, name in enumerate(OUTPUTS)}

    def layer_times(self, images: dict[str, np.ndarray]) -> list[LayerTime]:
        """Median time of each layer of the network over three runs; compiles it again, with profiling."""
        compiled = self._compile(images[INPUTS[0]].shape, PERF_COUNT="YES")
        request = compiled.create_infer_request()
        times: list[list[float]] = []
        for _ in range(4):
            request.infer([images[name] for name in INPUTS])
            times.append([one.real_time.total_seconds() for one in request.profiling_info])
        middle = np.median(times[1:], axis=0)
        return [
            LayerTime(one.node_name, one.node_type, float(seconds))
            for one, seconds in zip(request.profiling_info, middle, strict=True)
            if seconds > 0
        ]

    def _compile(self, shape: tuple[int, ...], **options: str) -> ov.CompiledModel:
        if self._precision == "int8":
            model = read_quantized(self._network, shape)
        else:
            model = read_converted(self._network, shape)
        return compiled(model, self._precision, **options)


def compiled(model: ov.Model, precision: str, **options: str) -> ov.CompiledModel:
    """The network compiled for the CPU; with int8, what is not quantized runs in the processor's fastest floating point.

    Args:
        model: of `read_converted`, or with int8 of `read_quantized`.
        precision: f32, bf16 or int8.
        options: OpenVINO's properties, by name.
    """
    if precision == "int8":
        precision = "bf16" if has_bfloat16() else "f32"
    # By default OpenVINO uses bfloat16 where the processor supports it.
    options |= {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    return ov.Core().compile_model(model, "CPU", options)


def read_converted(network: NetworkSource, shape: tuple[int, ...]) -> ov.Model:
    """The network converted for one shape, now or at an earlier start."""
    entry = network.entry("openvino", shape, "openvino")
    return cached(entry, lambda folder: convert(network, shape, folder / MODEL_FILE), _read)


def quantized_entry(network: NetworkSource, shape: tuple[int, ...]) -> str:
    """Name of the cache entry of the network in 8-bit integers for one shape."""
    return network.entry("int8", shape)


def read_quantized(network: NetworkSource, shape: tuple[int, ...]) -> ov.Model:
    """The network in 8-bit integers for one shape.

    Raises:
        InputError: it has not been quantized for this shape.
    """
    folder = cache_folder() / quantized_entry(network, shape)
    if not is_whole(folder):
        _, height, width, _ = shape
        raise InputError(
            f"precision: int8 given, and {network.name} is not quantized for {width} x {height} px, expected: "
            f"dwarf quantize {network.file or 'WEIGHTS'} --size {height}x{width}"
        )
    return _read(folder)


def _read(folder: Path) -> ov.Model:
    return ov.Core().read_model(folder / MODEL_FILE)
