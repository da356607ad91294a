"""The network as a TensorFlow graph, on a GPU where TensorFlow sees one."""

from __future__ import annotations

import ctypes

import numpy as np
import tensorflow as tf

from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.network.codec import OUTPUTS
from dwarf_ros.types import InputError


def find_gpus() -> list[str]:
    """Names of the GPUs that TensorFlow sees; makes TensorFlow allocate their memory as needed."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        limited = tf.config.get_logical_device_configuration(gpu)
        if limited or tf.config.experimental.get_memory_growth(gpu):
            continue
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            # The GPU is in use already, which fixes how its memory is allocated.
            break
    return [gpu.name for gpu in gpus]


def limit_gpu_memory(fraction: float) -> None:
    """Let TensorFlow take no more than that fraction, above 0 to 1, of each GPU's memory in this process.

    Raises:
        InputError: TensorFlow sees no GPU, has used one already, or the size of its memory is unknown.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        raise InputError(
            f"gpu_memory_fraction: {fraction:g} given and TensorFlow sees no GPU, expected 0"
        )
    for index, gpu in enumerate(gpus):
        limit_mib = int(fraction * _gpu_memory_bytes(index) / 2**20)
        known = tf.config.get_logical_device_configuration(gpu)
        if known and known[0].memory_limit == limit_mib:
            continue
        try:
            # TensorFlow supports either growth or a limit.
            tf.config.experimental.set_memory_growth(gpu, False)
            tf.config.set_logical_device_configuration(
                gpu, [tf.config.LogicalDeviceConfiguration(memory_limit=limit_mib)]
            )
        except (RuntimeError, ValueError):
            raise InputError(
                f"gpu_memory_fraction: {fraction:g} given after the GPU was used, expected before its first use: restart"
            ) from None


def _gpu_memory_bytes(index: int) -> int:
    """Size of a GPU's memory, from CUDA's driver, because TensorFlow does not report it."""
    memory, device = ctypes.c_size_t(), ctypes.c_int()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
        failed = (
            cuda.cuInit(0)
            or cuda.cuDeviceGet(ctypes.byref(device), index)
            or cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
        )
    except OSError:
        failed = 1
    if failed:
        raise InputError("gpu_memory_fraction: the size of the GPU's memory is unknown, expected 0")
    return memory.value


class TensorFlowEngine:
    """Runs a network as a tf.function, traced once per shape, and compiled by XLA on a GPU."""

    name = "tensorflow"

    def __init__(self, network: NetworkSource, precision: str = "f32") -> None:
        """Read the weights.

        Args:
            network: what to run.
            precision: f32; tf32, for the convolutions of a GPU; or bf16, for everything except coordinates.

        Raises:
            InputError: the weights are damaged, tf32 without a GPU, or bf16 for a network that is not in a file.
        """
        on_gpu = bool(find_gpus())
        if precision == "tf32" and not on_gpu:
            raise InputError(
                "precision: tf32 given and TensorFlow sees no GPU, expected f32 or bf16"
            )
        model = network.model("mixed_bfloat16" if precision == "bf16" else "float32")
        # TensorFlow's default is tf32, which rounds to ten bits.
        tf.config.experimental.enable_tensor_float_32_execution(precision != "f32")
        # On the CPU XLA is slower than TensorFlow's own kernels.
        self._graph = tf.function(
            lambda images: model(images, training=False), autograph=False, jit_compile=on_gpu
        )

    def run(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs, float32 N x H x W x C each, for its inputs, float32 N x H x W x 3 each."""
        inputs = {name: tf.convert_to_tensor(image) for name, image in images.items()}
        outputs = self._graph(inputs)
        return {name: outputs[name].numpy() for name in OUTPUTS}
