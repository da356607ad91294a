"""The network run by ONNX Runtime on the CPU."""

from __future__ import annotations

import os

import numpy as np
import onnxruntime

from dwarf_ros.engines.conversion import read_exported
from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.network.codec import INPUTS, OUTPUTS


class OnnxRuntimeEngine:
    """Runs a network in float32, from an ONNX file for the shape of the images.

    The first run of each shape writes the file, which takes up to a minute; later starts read it from the cache, without
    Keras and TensorFlow.
    """

    name = "onnxruntime"

    def __init__(self, network: NetworkSource) -> None:
        self._network = network
        self._shape: tuple[int, ...] = ()
        self._session: onnxruntime.InferenceSession | None = None

    def run(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs, float32 N x H x W x C each, for its inputs, float32 N x H x W x 3 each."""
        shape = images[INPUTS[0]].shape
        if self._session is None or shape != self._shape:
            self._session = None
            self._session, self._shape = self._open(shape), shape
        inputs = {name: np.ascontiguousarray(images[name]) for name in INPUTS}
        return dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), inputs), strict=True))

    def _open(self, shape: tuple[int, ...]) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        # The default is one thread per core of the machine, including cores that this process may not use.
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        return read_exported(
            self._network,
            shape,
            lambda file: onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            ),
        )
