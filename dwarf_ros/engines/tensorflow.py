"""The network as a TensorFlow graph, on a GPU where TensorFlow sees one."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


def find_gpus() -> list[str]:
    """Names of the GPUs that TensorFlow sees, each told to hand out its memory as it is needed."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        if tf.config.experimental.get_memory_growth(gpu):
            continue
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:
            # Whoever used the GPU first has settled how its memory is handed out.
            break
    return [gpu.name for gpu in gpus]


class TensorFlowEngine:
    """Runs a network as a tf.function, traced once a shape."""

    name = "tensorflow"

    def __init__(self, model: keras.Model) -> None:
        self._graph = tf.function(lambda images: model(images, training=False), autograph=False)

    def run(self, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The network's outputs, float32 N x H x W x C each, for its inputs, float32 N x H x W x 3 each."""
        inputs = {name: tf.convert_to_tensor(image) for name, image in images.items()}
        return {name: output.numpy() for name, output in self._graph(inputs).items()}
