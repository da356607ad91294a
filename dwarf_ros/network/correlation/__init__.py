"""Correlations of feature maps by the library's own kernels, on CUDA where there is a GPU and on the CPU where there is none.

They answer as `cost_volumes` does, which computes the same in keras.ops, and give the same bits on every run: nothing is added
up in an order that depends on timing. `python -m dwarf_ros.network.correlation.build` builds the library; `load` finds it, checks its
answers and falls back on keras.ops where it is absent or wrong.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.network.correlation import jax_face, tensorflow_face
from dwarf_ros.network.correlation.kernels import Kernels, check_maps, check_reach
from dwarf_ros.network.presets import NEGATIVE_SLOPE
from dwarf_ros.types import InputError

Tensor = Any

CHOICES = ("auto", "ops", "cuda")
"""How to correlate: `cuda` if there is a GPU and a library with kernels for it, else `ops`; keras.ops; the library."""

_FACES = {"tensorflow": tensorflow_face, "jax": jax_face}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Correlations:
    """The correlations of the network, computed in one of two ways.

    Attributes:
        name: `ops` or `cuda`.
        correlation_1d: as `cost_volumes.correlation_1d`.
        correlation_2d: as `cost_volumes.correlation_2d`.
        correlation_3d: as `cost_volumes.correlation_3d`.
        cost_volumes: (left_t0, right_t0, left_t1, right_t1, max_displacement, max_depth_displacement, negative_slope) -> the
            volumes of a level in one map, batch x H x W x N: stereo at t0 and t1, both over time (3D), and flow, each after a
            leaky ReLU of that slope; 1 leaves them as they are.
        compiles: XLA can compile a graph of them: not that of TensorFlow with `cuda`.
    """

    name: str
    correlation_1d: Callable[..., Tensor]
    correlation_2d: Callable[..., Tensor]
    correlation_3d: Callable[..., Tensor]
    cost_volumes: Callable[..., Tensor]
    compiles: bool


def load(choice: str = "auto", library: Path | None = None) -> Correlations:
    """The correlations of that choice for Keras's backend; checked, once a process, when they are the library's.

    Where the library is absent, cannot be loaded or answers otherwise than keras.ops, it is left alone, with one warning if it
    was asked for or if there is a GPU that it could have used.

    Args:
        choice: one of CHOICES. `cuda` without a GPU runs the library's CPU kernel.
        library: its file; None: where the build command puts it.

    Raises:
        InputError: an unknown choice.
    """
    if choice not in CHOICES:
        raise InputError(f"correlation: got {choice!r}, expected one of {', '.join(CHOICES)}")
    if choice == "ops":
        return _of_ops()
    import keras

    return _load(choice, keras.backend.backend(), library)


def from_kernels(kernels: Kernels) -> Correlations:
    """The correlations of a loaded library, unchecked."""

    def correlation_1d(left: Tensor, right: Tensor, max_displacement: int) -> Tensor:
        check_maps({"left": left, "right": right})
        check_reach(max_displacement=max_displacement)
        return kernels.correlate(left, right, 0, max_displacement, 0, 1.0)

    def correlation_2d(first: Tensor, second: Tensor, max_displacement: int) -> Tensor:
        check_maps({"first": first, "second": second})
        check_reach(max_displacement=max_displacement)
        return kernels.correlate(first, second, max_displacement, max_displacement, 0, 1.0)

    def correlation_3d(
        volume_t0: Tensor, volume_t1: Tensor, max_displacement: int, max_depth_displacement: int
    ) -> Tensor:
        check_maps({"volume_t0": volume_t0, "volume_t1": volume_t1})
        check_reach(
            max_displacement=max_displacement, max_depth_displacement=max_depth_displacement
        )
        reach = max_displacement
        return kernels.correlate(volume_t0, volume_t1, reach, reach, max_depth_displacement, 1.0)

    def cost_volumes(
        left_t0: Tensor,
        right_t0: Tensor,
        left_t1: Tensor,
        right_t1: Tensor,
        max_displacement: int,
        max_depth_displacement: int,
        negative_slope: float,
    ) -> Tensor:
        features = {
            "left_t0": left_t0,
            "right_t0": right_t0,
            "left_t1": left_t1,
            "right_t1": right_t1,
        }
        check_maps(features)
        check_reach(
            max_displacement=max_displacement, max_depth_displacement=max_depth_displacement
        )
        return kernels.cost_volumes(
            tuple(features.values()), max_displacement, max_depth_displacement, negative_slope
        )

    return Correlations(
        "cuda", correlation_1d, correlation_2d, correlation_3d, cost_volumes, kernels.compiles
    )


def find_fault(kernels: Kernels) -> str:
    """What is wrong with a library's answers to a small input, in one line; empty where nothing is.

    The volumes are compared with those of keras.ops, of small whole numbers, which are exact even where its matrix products are
    computed in tf32. A correlation is linear in each of its operands, so that a gradient is right if its product with any other
    operand is the cotangent's product with that operand's volume.
    """
    rng = np.random.default_rng(0)
    reach, depth = 2, 1
    # Several tiles of the GPU's kernels, none of them whole.
    shape = (2, 7, 21, 8)
    features = tuple(rng.integers(-2, 3, shape).astype(np.float32) for _ in range(4))
    ours, reference = from_kernels(kernels), _of_ops()
    # The 3D volume among the cost volumes is not of whole numbers any more.
    cases = {
        "correlation_1d": (features[:2], (reach,), 1e-5),
        "correlation_2d": (features[:2], (reach,), 1e-5),
        "correlation_3d": (features[:2], (reach, depth), 1e-5),
        "cost_volumes": (features, (reach, depth, NEGATIVE_SLOPE), 1e-2),
    }
    volumes = {}
    for function, (inputs, reaches, tolerance) in cases.items():
        volumes[function] = _array(getattr(ours, function)(*inputs, *reaches))
        expected = _array(getattr(reference, function)(*inputs, *reaches))
        if not _alike(volumes[function], expected, tolerance):
            return f"its {function} differs from that of keras.ops"

    attributes = (reach, reach, depth, 1.0)
    volume = volumes["correlation_3d"]
    cotangent = rng.normal(size=volume.shape).astype(np.float32)
    gradients = kernels.correlate_gradient(*features[:2], volume, cotangent, *attributes)
    for operand, gradient in enumerate(map(_array, gradients)):
        moved = list(features[:2])
        moved[operand] = features[2]
        volume = _array(kernels.correlate(*moved, *attributes))
        if not _alike(_product(gradient, features[2]), _product(cotangent, volume), 1e-2):
            return f"its gradient by operand {operand + 1} is not that of its correlation"

    # Scaling left_t0 scales stereo_t0, the 3D volume and flow alike, whatever the leaky ReLU does: by Euler's theorem the
    # gradient's product with left_t0 is the cotangent's with those volumes. The other images likewise.
    volume = volumes["cost_volumes"]
    cotangent = rng.normal(size=volume.shape).astype(np.float32)
    gradients = kernels.cost_volumes_gradient(
        features, volume, cotangent, reach, depth, NEGATIVE_SLOPE
    )
    side = 2 * reach + 1
    products = (cotangent * volume).sum(axis=(0, 1, 2), dtype=np.float64)
    parts = np.split(products, np.cumsum([side, side, (2 * depth + 1) * side**2]))
    stereo_t0, stereo_t1, temporal, flow = (part.sum() for part in parts)
    totals = (
        stereo_t0 + temporal + flow,
        stereo_t0 + temporal,
        stereo_t1 + temporal + flow,
        stereo_t1 + temporal,
    )
    for image, gradient, total in zip(features, map(_array, gradients), totals, strict=True):
        if not _alike(_product(image, gradient), total, 1e-2):
            return "its gradient of the cost volumes is wrong"
    return ""


@functools.cache
def _load(choice: str, backend: str, library: Path | None) -> Correlations:
    # Not at the top: it is a command as well, and Python warns of one that is imported already.
    from dwarf_ros.network.correlation import build

    warn = _log.warning if choice == "cuda" else _log.info
    if backend not in _FACES:
        warn("correlation: no kernels for the backend %s, keras.ops instead", backend)
        return _of_ops()
    file = library or build.library_file(backend)
    if choice == "auto":
        if not _FACES[backend].sees_gpu():
            return _of_ops()
        warn = _log.warning
    if not file.is_file():
        warn(
            "correlation: no library %s, keras.ops instead; "
            "python -m dwarf_ros.network.correlation.build builds it",
            file,
        )
        return _of_ops()
    if choice == "auto" and not build.architectures_of(file):
        warn("correlation: library %s was built without CUDA, keras.ops instead", file)
        return _of_ops()
    try:
        kernels = _FACES[backend].load_kernels(file)
        fault = find_fault(kernels)
    except Exception as error:
        # Whatever keeps it from loading or answering, the network can do without it.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        fault = f"it fails: {lines[0]}"
    if fault:
        warn("correlation: library %s is not used, keras.ops instead: %s", file, fault)
        return _of_ops()
    return from_kernels(kernels)


def _of_ops() -> Correlations:
    from keras import ops

    from dwarf_ros.network.correlation import ops as volumes

    def cost_volumes(
        left_t0: Tensor,
        right_t0: Tensor,
        left_t1: Tensor,
        right_t1: Tensor,
        max_displacement: int,
        max_depth_displacement: int,
        negative_slope: float,
    ) -> Tensor:
        def activated(volume: Tensor) -> Tensor:
            return volume if negative_slope == 1 else ops.leaky_relu(volume, negative_slope)

        stereo_t0 = activated(volumes.correlation_1d(left_t0, right_t0, max_displacement))
        stereo_t1 = activated(volumes.correlation_1d(left_t1, right_t1, max_displacement))
        temporal = volumes.correlation_3d(
            stereo_t0, stereo_t1, max_displacement, max_depth_displacement
        )
        flow = volumes.correlation_2d(left_t0, left_t1, max_displacement)
        return ops.concatenate(
            [stereo_t0, stereo_t1, activated(temporal), activated(flow)], axis=-1
        )

    return Correlations(
        "ops",
        volumes.correlation_1d,
        volumes.correlation_2d,
        volumes.correlation_3d,
        cost_volumes,
        compiles=True,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor, np.float32)


def _product(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b, dtype=np.float64))


def _alike(value: Any, expected: Any, tolerance: float) -> bool:
    """Of one shape and close; NaN never is."""
    return np.shape(value) == np.shape(expected) and bool(
        np.all(np.abs(np.subtract(value, expected)) <= tolerance)
    )
