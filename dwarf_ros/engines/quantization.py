"""The network in 8-bit integers, by post-training quantization of the OpenVINO model."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.engines.cache import cached
from dwarf_ros.engines.graph import require
from dwarf_ros.engines.openvino import (
    MODEL_FILE,
    compiled,
    quantized_entry,
    read_converted,
)
from dwarf_ros.engines.quiet_openvino import ov
from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.network.codec import INPUTS, OUTPUTS

Images = dict[str, np.ndarray]

ACCURACY_FILE = "accuracy.json"

FLOATING_KINDS = (
    *("MatMul", "ConvolutionBackpropData", "Multiply", "Add", "Subtract"),
    *("ReduceMean", "ReduceSum", "ReduceMax", "Power", "Divide", "Exp"),
)
"""Operations that stay in floating point: cost volumes, matching, upsampling, warping and normalization."""

_FINE_CHANNELS = 32
_COARSE_GRID = 16
_MOST_MOTION_CHANNELS = 2


def quantize(
    network: NetworkSource, calibration: Sequence[Images], held_out: Sequence[Images]
) -> dict[str, Any]:
    """Quantize the network for the shape of the images and measure the change, once; later calls read the cache.

    Reference: the post-training quantization of NNCF, https://github.com/openvinotoolkit/nncf.

    Args:
        network: to quantize.
        calibration: inputs of the network, all of one shape, that determine the ranges of the integers.
        held_out: other inputs, on which the change is measured.

    Returns:
        What is stored beside the quantized network: `calibrated_on` and `measured_on`, numbers of inputs, and `change_px`,
        the result of `measure_change` against float32.

    Raises:
        InputError: NNCF is not installed.
    """
    require("quantize", "openvino", "nncf")
    shape = calibration[0][INPUTS[0]].shape

    def make(folder: Path) -> None:
        import nncf

        # NNCF logs each operation that it skips.
        nncf.set_log_level(logging.WARNING)

        model = read_converted(network, shape)
        quantized = nncf.quantize(
            model,
            nncf.Dataset(calibration, lambda images: [images[name] for name in INPUTS]),
            # Asymmetric activations, because leaky ReLU leaves few values below zero.
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(
                names=floating_convolutions(model), types=list(FLOATING_KINDS), validate=False
            ),
        )
        ov.save_model(quantized, folder / MODEL_FILE, compress_to_fp16=False)
        accuracy = {
            "calibrated_on": len(calibration),
            "measured_on": len(held_out),
            "change_px": measure_change(
                compiled(read_converted(network, shape), "f32"),
                compiled(ov.Core().read_model(folder / MODEL_FILE), "int8"),
                held_out,
            ),
        }
        (folder / ACCURACY_FILE).write_text(json.dumps(accuracy, indent=1), encoding="utf-8")

    def read(folder: Path) -> dict[str, Any]:
        return json.loads((folder / ACCURACY_FILE).read_text(encoding="utf-8"))

    return cached(quantized_entry(network, shape), make, read)


def floating_convolutions(model: ov.Model) -> list[str]:
    """Names of the convolutions that stay in floating point, because they cost accuracy and save little time.

    In the encoder: those that read the images or at most 32 channels, whose details all matching depends on. In the decoder:
    those on grids of 16 px and coarser, whose errors propagate to all finer levels; the first one on each finer grid, whose
    correlations, features and motions differ too much for one range; those that output a motion; and the mixture of the
    full-size output (1 x 1). Quantizing these too changes the output of a trained `dwarf_lite` several times as much.
    """
    batch, height, *_ = model.input(0).shape
    names = []
    for node in model.get_ops():
        if node.get_type_name() != "Convolution":
            continue
        images, _, rows, _ = node.get_output_shape(0)
        made, read, *kernel = node.get_input_shape(1)
        if images > batch:
            floats = read <= _FINE_CHANNELS
        else:
            floats = rows * _COARSE_GRID <= height or _is_first_of_grid(node)
        if floats or made <= _MOST_MOTION_CHANNELS or kernel == [1, 1]:
            names.append(node.get_friendly_name())
    return names


def _is_first_of_grid(convolution: ov.Node) -> bool:
    """Whether the input comes from no convolution with an output of the same size, directly or through other operations."""
    size = list(convolution.get_output_shape(0))
    found, waiting = set(), [convolution.input_value(0).get_node()]
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in found:
            continue
        found.add(node.get_friendly_name())
        if node.get_type_name() == "Convolution":
            batch, _, *grid = node.get_output_shape(0)
            if [batch, *grid] == [size[0], *size[2:]]:
                return False
        else:
            waiting += [value.get_node() for value in node.input_values()]
    return True


def measure_change(
    exact: ov.CompiledModel, changed: ov.CompiledModel, samples: Sequence[Images]
) -> dict[str, dict[str, float]]:
    """How far one compiled network's outputs are from another's, px.

    Returns:
        For each of `OUTPUTS` the `mean` and `p99` of the length of the difference, over all pixels of all samples, and
        `mean_answer`, the mean length of the exact output.
    """
    differences: list[list[np.ndarray]] = [[] for _ in OUTPUTS]
    lengths: list[list[np.ndarray]] = [[] for _ in OUTPUTS]
    for images in samples:
        inputs = [images[name] for name in INPUTS]
        outputs, others = exact(inputs), changed(inputs)
        for index in range(len(OUTPUTS)):
            lengths[index].append(np.linalg.norm(outputs[index], axis=-1).ravel())
            difference = outputs[index] - others[index]
            differences[index].append(np.linalg.norm(difference, axis=-1).ravel())
    return {
        name: {
            "mean": float(np.mean(differences[index])),
            "p99": float(np.percentile(differences[index], 99)),
            "mean_answer": float(np.mean(lengths[index])),
        }
        for index, name in enumerate(OUTPUTS)
    }
