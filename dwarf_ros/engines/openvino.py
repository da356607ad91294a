"""The network compiled by OpenVINO for the CPU."""

from __future__ import annotations

import sys

import keras
import numpy as np
import tensorflow as tf

# OpenVINO reports its import and every conversion to its maker, and leaves files in the home directory, unless this
# package of its is missing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402

from dwarf_ros.types import InputError  # noqa: E402


class OpenVinoEngine:
    """Runs a network in float32 or bfloat16, compiled for the shape of the images; another shape compiles it anew.

    The first run of a shape converts and compiles the network, which takes seconds.
    """

    name = "openvino"

    def __init__(self, model: keras.Model, precision: str = "f32") -> None:
        """Keep the network until the shape is known.

        Args:
            model: a network of `dwarf_ros.network`.
            precision: f32 or bf16.

        Raises:
            InputError: this machine's processor does not compute in bfloat16.
        """
        self._model = model
        self._outputs = sorted(model.output)
        self._core = ov.Core()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in capabilities:
            raise InputError("precision: bf16 given, expected f32: this processor has no bfloat16")
        self._precision = precision
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._compiled: ov.CompiledModel | None = None

    def run(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs, float32 N x H x W x C each, for its inputs, float32 N x H x W x 3 each."""
        shapes = {name: image.shape for name, image in images.items()}
        if self._compiled is None or shapes != self._shapes:
            # The old network is let go first: two of them at once may not fit the memory.
            self._compiled = None
            self._compiled, self._shapes = self._compile(shapes), shapes
        results = self._compiled([images[name] for name in self._shapes])
        return {name: results[index].copy() for index, name in enumerate(self._outputs)}

    def _compile(self, shapes: dict[str, tuple[int, ...]]) -> ov.CompiledModel:
        names = list(shapes)

        def forward(*images: tf.Tensor) -> list[tf.Tensor]:
            # In a fixed order, because the names of a graph's outputs do not outlive the conversion.
            outputs = self._model(dict(zip(names, images, strict=True)), training=False)
            return [outputs[name] for name in self._outputs]

        signature = [tf.TensorSpec(shapes[name], tf.float32, name=name) for name in names]
        traced = tf.function(forward, autograph=False).get_concrete_function(*signature)
        # Left to itself OpenVINO computes in bfloat16 where the processor can.
        options = {"INFERENCE_PRECISION_HINT": self._precision, "PERFORMANCE_HINT": "LATENCY"}
        return self._core.compile_model(ov.convert_model(traced), "CPU", options)
