"""The least time that the network could take on this machine: its arithmetic and memory traffic, and the machine's limits."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

_PARTS = (
    "encoder",
    "matching",
    "stereo",
    "flow",
    *(f"level {level}" for level in (6, 5, 4, 3, 2)),
    "context",
    "full size",
)


_STEREO = ("stereo.", "quarter.")


@dataclass(frozen=True)
class Ceilings:
    """Speed of one large float32 matrix product (FLOP/s) and of one large copy (bytes/s, read and written)."""

    flops: float
    bytes_per_second: float


@dataclass(frozen=True)
class Workload:
    """The least that one run of the network requires.

    Attributes:
        macs: multiply-accumulate operations of convolutions, cost volumes and matching.
        bytes: memory traffic, if the weights are read once, and each layer's float32 output is written once and read once.
        macs_of_parts: `macs` by part of the network.
    """

    macs: int
    bytes: int
    macs_of_parts: dict[str, int]


def measure_ceilings(size: int = 2048, repeats: int = 5) -> Ceilings:
    """The fastest of several matrix products of `size` x `size`, and of several copies of 256 MB."""
    rng = np.random.default_rng(0)
    left, right = rng.random((2, size, size), dtype=np.float32)
    product = np.empty_like(left)
    source = np.ones(2**26, np.float32)
    target = np.empty_like(source)

    def best(work: Any) -> float:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        return min(times)

    return Ceilings(
        flops=2 * size**3 / best(lambda: np.matmul(left, right, out=product)),
        bytes_per_second=2 * source.nbytes / best(lambda: np.copyto(target, source)),
    )


def count_workload(weights: str | Path, height: int, width: int) -> Workload:
    """Workload of the network in a weights file for one pair of frames."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from dwarf_ros import network

    return workload_of(network.load(weights, height=height, width=width))


def workload_of(model: keras.Model) -> Workload:
    """Workload of a network with a fixed input size for one pair of frames."""
    import keras

    from dwarf_ros.network.decoder import CostVolumes
    from dwarf_ros.network.lite.flow import FlowLookup, GlobalFlow
    from dwarf_ros.network.lite.stereo import DisparityVolume, RowLookup
    from dwarf_ros.network.matching import GlobalMatching

    parts: dict[str, int] = {}
    results = 0
    for layer in model.layers:
        outputs = layer.output if isinstance(layer.output, list | tuple) else [layer.output]
        images = _images(layer.name)
        elements = sum(_elements(output) for output in outputs if hasattr(output, "shape"))
        macs = 0
        if isinstance(layer, keras.layers.Conv2D):
            macs = elements * int(np.prod(layer.kernel.shape[:3]))
        elif isinstance(layer, keras.layers.Conv2DTranspose):
            macs = _elements(layer.input) * int(np.prod(layer.kernel.shape[:3]))
        elif isinstance(layer, CostVolumes):
            macs = _correlation_macs(layer)
        elif isinstance(layer, GlobalMatching):
            macs = _matching_macs(layer)
        elif isinstance(layer, DisparityVolume | RowLookup | FlowLookup | GlobalFlow):
            macs = _lookup_macs(layer)
        part = _part(layer.name)
        parts[part] = parts.get(part, 0) + images * macs
        results += images * elements
    weights = sum(int(np.prod(variable.shape)) for variable in model.variables)
    in_order = {part: parts[part] for part in _PARTS if parts.get(part)}
    return Workload(sum(in_order.values()), 4 * (weights + 2 * results), in_order)


def _correlation_macs(layer: Any) -> int:
    _, height, width, channels = layer.input[0].shape
    side = 2 * layer.preset.max_displacement + 1
    depths = 2 * layer.preset.max_depth_displacement + 1
    return height * width * (2 * side * channels + side**2 * (channels + depths * side))


def _matching_macs(layer: Any) -> int:
    _, height, width, channels = layer.input[0].shape
    # Along the rows of both stereo pairs, and between all pixels of the left images.
    return height * width * (2 * width + height * width) * channels


def _lookup_macs(layer: Any) -> int:
    """Of dwarf_lite_v2's matching layers: each compares a cell with a number of others."""
    _, height, width, channels = layer.input[0].shape
    others = layer.output[-1] if type(layer).__name__ == "GlobalFlow" else layer.output
    others = others[0] if isinstance(others, list | tuple) else others
    return height * width * channels * int(others.shape[-1])


def _elements(tensor: Any) -> int:
    return int(np.prod([side for side in tensor.shape if side is not None]))


def _images(name: str) -> int:
    """Images that a layer processes as a batch: the encoders four, the stereo of dwarf_lite_v2 two."""
    if name.startswith(("Encoder.", "encoder.")):
        return 4
    return 2 if name.startswith(_STEREO) else 1


def _part(name: str) -> str:
    if name.startswith(("Encoder.", "encoder.")):
        return "encoder"
    if name.startswith(_STEREO):
        return "stereo"
    if name.startswith(("flow.", "pair.", "update_", "change.")):
        return "flow"
    if "context_network" in name:
        return "context"
    if name == "decoder.matching":
        return "matching"
    if name.startswith("decoder.block_"):
        return f"level {name.removeprefix('decoder.block_')[0]}"
    return "full size"
