"""The network as a graph with fixed shapes, in the formats that engines other than TensorFlow read."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dwarf_ros import __version__
from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.network.codec import OUTPUTS
from dwarf_ros.types import InputError

ONNX_OPSET = 18


def require(extra: str, *packages: str) -> None:
    """Raise InputError if a package is not installed, with the extra that installs it."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InputError(
            f"engine: {' and '.join(missing)} not installed: pip install 'dwarf_ros[{extra}]'"
        )


def tensorflow_function(network: NetworkSource, shape: tuple[int, ...]) -> tuple[Any, list[Any]]:
    """The network as a function of left_t0, right_t0, left_t1, right_t1 that returns the list of `OUTPUTS`.

    A list in a fixed order, because not every conversion keeps the names of outputs.

    Returns:
        The tf.function and its signature: each input is float32 of `shape`, N x H x W x 3.
    """
    model = network.model()
    import tensorflow as tf

    from dwarf_ros.network.codec import INPUTS

    def forward(*images: tf.Tensor) -> list[tf.Tensor]:
        outputs = model(dict(zip(INPUTS, images, strict=True)), training=False)
        return [outputs[name] for name in OUTPUTS]

    signature = [tf.TensorSpec(shape, tf.float32, name=name) for name in INPUTS]
    return tf.function(forward, autograph=False), signature


def metadata(network: NetworkSource, shape: tuple[int, ...]) -> dict[str, str]:
    """Description that is stored in an exported file: names and values."""
    _, height, width, _ = shape
    return {
        "producer": f"dwarf_ros {__version__}",
        "preset": network.name,
        "input_size": f"{width} x {height} px (width x height)",
        "inputs": "left_t0, right_t0, left_t1, right_t1: float32 N x H x W x 3, rectified RGB in [0, 1]",
        "outputs": "of the pixels of left_t0, float32 N x H x W x C, px. disparity: x_right - x_left, negative. "
        "disparity_change: the disparity at t1 of the same points, likewise negative; not a difference. "
        "forward_flow: u to the right, v downwards, from left_t0 to left_t1",
    }


def write_onnx(network: NetworkSource, shape: tuple[int, ...], file: Path) -> None:
    """Write the network as ONNX, inputs and outputs named as the Keras model's, with `metadata` in it.

    Args:
        network: what to write.
        shape: of each input, N x H x W x 3; both sides multiples of 64 px.
        file: to write.

    Raises:
        InputError: a package is missing, or as for `NetworkSource.model`.
    """
    require("onnx", "onnx", "tf2onnx")
    function, signature = tensorflow_function(network, shape)
    import onnx
    import tf2onnx

    # tf2onnx logs each of its passes.
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=ONNX_OPSET)
    names = {value.name: name for value, name in zip(model.graph.output, OUTPUTS, strict=True)}
    for value in model.graph.output:
        value.name = names[value.name]
    for node in model.graph.node:
        for ends in (node.input, node.output):
            for index, end in enumerate(ends):
                ends[index] = names.get(end, end)
    model.producer_name, model.producer_version = "dwarf_ros", __version__
    onnx.helper.set_model_props(model, metadata(network, shape))
    onnx.checker.check_model(model)
    file.write_bytes(model.SerializeToString())


def write_openvino(network: NetworkSource, shape: tuple[int, ...], file: Path) -> None:
    """Write the network as OpenVINO's .xml and, beside it, .bin.

    Directly from TensorFlow: three to six times as fast as through ONNX, and the compiled network is as fast and as exact.

    Args:
        network: what to write.
        shape: of each input, N x H x W x 3; both sides multiples of 64 px.
        file: the .xml to write.

    Raises:
        InputError: as for `NetworkSource.model`.
    """
    function, signature = tensorflow_function(network, shape)
    from dwarf_ros.engines.quiet_openvino import ov

    model = ov.convert_model(function.get_concrete_function(*signature))
    ov.save_model(model, file, compress_to_fp16=False)
