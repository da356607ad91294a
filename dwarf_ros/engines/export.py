"""The network as a file for other programs, checked before it is written."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dwarf_ros.engines import choose_engine, count_gpus
from dwarf_ros.engines.conversion import read_exported
from dwarf_ros.engines.graph import metadata, require, tensorflow_function
from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.files import partial_file, refusing_unwritable
from dwarf_ros.network.codec import INPUTS, OUTPUTS, check_size
from dwarf_ros.types import InputError

FORMATS = ("onnx", "savedmodel", "tensorrt")

TOLERANCE_PX = 0.01
"""Largest accepted difference from the Keras model for outputs up to 100 px; above, a ten thousandth of the output."""

_CHECKS = 3

Images = dict[str, np.ndarray]


def export(
    weights: str | Path, out: Path, format: str = "onnx", height: int = 384, width: int = 1280
) -> float:
    """Write the network of a weights file for other programs.

    Inputs are left_t0, right_t0, left_t1, right_t1, outputs disparity, disparity_change and forward_flow, as those of
    `dwarf_ros.network.build`, for one pair of frames of a fixed size. A description is stored in ONNX's metadata, in a
    SavedModel's `assets.extra/dwarf.json`, or in the name (JSON) of a TensorRT plan, which runs only on the kind of GPU
    that it was built on.

    Args:
        weights: a weights file.
        out: file (onnx, tensorrt) or folder (savedmodel) to write; it appears whole or not at all, once its outputs for
            three inputs agree with the Keras model's.
        format: one of FORMATS.
        height: of the images, px, a multiple of 64.
        width: of the images, px, a multiple of 64.

    Returns:
        Largest difference from the Keras model's outputs, px.

    Raises:
        InputError: an unknown format, a size that is not a multiple of 64 px, weights that cannot be read, a missing package
            or GPU, an existing folder, a path that cannot be written to, or outputs that differ.
    """
    if format not in FORMATS:
        raise InputError(f"format: {format!r} is unknown, expected {', '.join(FORMATS)}")
    check_size(height, width)
    if format == "savedmodel" and out.exists():
        raise InputError(f"{out}: exists, expected the name of a new folder")
    if format != "savedmodel" and out.is_dir():
        raise InputError(f"{out}: is a folder, expected the name of a file")
    if not out.parent.is_dir():
        raise InputError(f"{out}: {out.parent} is not a folder")
    if format == "onnx":
        require("onnx", "onnx", "tf2onnx", "onnxruntime")
    if format == "tensorrt":
        require("tensorrt", "tensorrt", "polygraphy")
        require("onnx", "onnx", "tf2onnx")
        if not count_gpus():
            raise InputError("format: tensorrt given without a GPU, expected one")
        # Makes TensorFlow, which runs the Keras model, leave memory for TensorRT.
        choose_engine("tensorflow")
    network = NetworkSource(weights)
    shape = (1, height, width, 3)
    if format == "savedmodel":
        return _export_saved_model(network, shape, out)
    with refusing_unwritable(out), partial_file(out, out.suffix) as partial:
        if format == "onnx":
            read_exported(network, shape, lambda file: shutil.copyfile(file, partial))
            run = _onnx_runner(partial)
        else:
            read_exported(network, shape, lambda file: _write_plan(network, shape, file, partial))
            run = _plan_runner(partial)
        return _check(network, run, shape, out)


def _export_saved_model(network: NetworkSource, shape: tuple[int, ...], out: Path) -> float:
    import tensorflow as tf

    with (
        refusing_unwritable(out),
        tempfile.TemporaryDirectory(prefix=".dwarf_", dir=out.parent) as beside,
    ):
        folder = Path(beside, "model")
        try:
            _write_saved_model(network, shape, folder)
            difference = _check(network, _saved_model_runner(folder), shape, out)
        except tf.errors.OpError as error:
            reason = error.message.partition("\n")[0]
            raise InputError(f"{out}: cannot be written: {reason}") from error
        except UnicodeEncodeError:
            raise InputError(f"{out}: TensorFlow expects the folder's path in UTF-8") from None
        folder.replace(out)
    return difference


def _check(
    network: NetworkSource, run: Callable[[Images], Images], shape: tuple[int, ...], out: Path
) -> float:
    model = network.model()
    import tensorflow as tf

    # TensorFlow's default on a GPU rounds to ten bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    largest = 0.0
    for seed in range(_CHECKS):
        images = _example(seed, shape)
        outputs = run(images)
        for name, expected in model(images, training=False).items():
            expected = np.asarray(expected)
            difference = np.abs(outputs[name] - expected)
            largest = max(largest, float(difference.max()))
            if not (difference <= TOLERANCE_PX * np.maximum(1.0, 0.01 * np.abs(expected))).all():
                raise InputError(
                    f"{out}: not written: {name} differs from the Keras model's by {difference.max():.3g} px, "
                    f"expected at most {TOLERANCE_PX} px"
                )
    return largest


def _example(seed: int, shape: tuple[int, ...]) -> Images:
    """A texture with detail at all scales, shifted by a few pixels between the views."""
    import cv2

    _, height, width, channels = shape
    rng = np.random.default_rng(seed)
    texture = np.zeros((height, width, channels), np.float32)
    for cells in (2, 4, 8, 16, 32, 64):
        noise = rng.random((cells, cells, channels), dtype=np.float32)
        texture += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    texture = (texture - texture.min()) / np.ptp(texture)
    shifts = [(0, 0), *rng.integers(-12, 13, (len(INPUTS) - 1, 2))]
    return {
        name: np.roll(texture, shift, axis=(0, 1))[None]
        for name, shift in zip(INPUTS, shifts, strict=True)
    }


def _onnx_runner(file: Path) -> Callable[[Images], Images]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(OUTPUTS, session.run(list(OUTPUTS), images), strict=True))


def _write_saved_model(network: NetworkSource, shape: tuple[int, ...], folder: Path) -> None:
    function, signature = tensorflow_function(network, shape)
    import tensorflow as tf

    def serve(**images: tf.Tensor) -> dict[str, tf.Tensor]:
        return dict(zip(OUTPUTS, function(*(images[name] for name in INPUTS)), strict=True))

    module = tf.Module()
    # A SavedModel stores the variables that are attributes of the module.
    module.kept = [variable.value for variable in network.model().variables]
    module.serve = tf.function(serve, autograph=False)
    concrete = module.serve.get_concrete_function(**{spec.name: spec for spec in signature})
    tf.saved_model.save(module, str(folder), signatures=concrete)
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "dwarf.json").write_text(json.dumps(metadata(network, shape), indent=1))


def _saved_model_runner(folder: Path) -> Callable[[Images], Images]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    serve = loaded.signatures["serving_default"]

    def run(images: Images) -> Images:
        outputs = serve(**{name: tf.constant(image) for name, image in images.items()})
        return {name: output.numpy() for name, output in outputs.items()}

    return run


def _write_plan(
    network: NetworkSource, shape: tuple[int, ...], onnx_file: Path, plan: Path
) -> None:
    from polygraphy.backend.trt import EngineBytesFromNetwork, NetworkFromOnnxPath
    from polygraphy.exception import PolygraphyException

    try:
        builder, definition, parser = NetworkFromOnnxPath(str(onnx_file))()
        definition.name = json.dumps(metadata(network, shape))
        # Float32 throughout: the default configuration has no reduced precision.
        plan.write_bytes(EngineBytesFromNetwork((builder, definition, parser))())
    except PolygraphyException as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{plan.name}: TensorRT cannot build it: {reason}") from error


def _plan_runner(plan: Path) -> Callable[[Images], Images]:
    from polygraphy.backend.trt import EngineFromBytes, TrtRunner

    engine = EngineFromBytes(plan.read_bytes())()

    def run(images: Images) -> Images:
        with TrtRunner(engine) as runner:
            outputs = runner.infer({name: np.ascontiguousarray(images[name]) for name in images})
            return {name: np.array(outputs[name]) for name in OUTPUTS}

    return run
