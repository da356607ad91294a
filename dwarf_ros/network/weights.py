"""Weights files: safetensors, which cannot execute code, with a header that names the preset.

Tensors have the names of the variables in a published checkpoint (`dwarf/Encoder/level_1/Conv/weights`, ...) and their layout:
convolutions H x W x in x out, transposed convolutions H x W x out x in.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dwarf_ros import __version__
from dwarf_ros.files import refusing_unwritable, write_atomically
from dwarf_ros.network.presets import PRESETS
from dwarf_ros.types import InputError

if TYPE_CHECKING:
    import keras

FORMAT = "dwarf_ros weights"
FORMAT_VERSION = "1"
STORED_DTYPES = ("F32", "F16")

ENCODER = "encoder."
"""How the names of the layers of dwarf_lite_v2's encoder begin."""


@dataclass(frozen=True)
class WeightsHeader:
    """Header of a weights file.

    Attributes:
        preset: name of the preset of the weights.
        version: of the package that wrote the file.
        origin: where the weights come from, as text.
    """

    preset: str
    version: str
    origin: str


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Variables of a model from `build`, by their names in a published checkpoint."""
    published = {"kernel": "weights", "bias": "biases"}
    return {
        f"dwarf/{layer.name.replace('.', '/')}/{published.get(variable.name, variable.name)}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def save(model: keras.Model, file: str | Path, origin: str, half_precision: bool = False) -> None:
    """Write the weights of a model from `build`, atomically.

    Args:
        model: of one of PRESETS.
        file: output file; its folder must exist.
        origin: where the weights come from, for the header.
        half_precision: store float16 instead of float32, half the size; `load` converts to float32.

    Raises:
        InputError: the model's preset is not one of PRESETS, weights are too large for float16, or the file cannot be
            written.
    """
    from safetensors.numpy import save as serialize

    file = Path(file)
    if model.name not in PRESETS:
        raise InputError(
            f"{file}: model is of preset {model.name!r}, expected one of {', '.join(PRESETS)}"
        )
    tensors = {}
    for name, variable in named_variables(model).items():
        array = np.asarray(variable.numpy(), dtype=np.float32)
        if half_precision:
            with np.errstate(over="ignore"):
                array = array.astype(np.float16)
            if not np.isfinite(array).all():
                raise InputError(f"{file}: {name} does not fit float16, expected |weight| < 65520")
        tensors[name] = np.ascontiguousarray(array)
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "preset": model.name,
        "version": __version__,
        "origin": origin,
    }
    with refusing_unwritable(file):
        write_atomically(file, serialize(tensors, metadata=metadata))


def read_header(file: str | Path, preset: str | None = None) -> WeightsHeader:
    """Read the header of a weights file, without its weights and without Keras.

    Args:
        file: written by `save`.
        preset: name of the preset that is expected; None accepts any.

    Raises:
        InputError: the file is missing, truncated, not safetensors, not written by `save`, or of another preset.
    """
    with _opened(Path(file)) as tensors:
        return _header(Path(file), tensors, preset)


def load(
    file: str | Path,
    preset: str | None = None,
    height: int | None = None,
    width: int | None = None,
    correlation: str = "ops",
) -> keras.Model:
    """Build the network of a weights file; inputs and outputs are those of `build`.

    Args:
        file: written by `save`.
        preset: name of the preset that is expected; None accepts any.
        height: height of the input, px; None leaves it open.
        width: width of the input, px, likewise.
        correlation: as for `build`.

    Raises:
        InputError: the file is missing, truncated, not safetensors, not written by `save` or by a newer one, of another
            preset, or one of its tensors is missing, unknown, of another shape, or neither float32 nor float16.
    """
    from dwarf_ros.network import build

    file = Path(file)
    with _opened(file) as tensors:
        header = _header(file, tensors, preset)
        model = build(header.preset, height=height, width=width, correlation=correlation)
        variables = named_variables(model)
        unknown = sorted(set(tensors.keys()) - set(variables))
        if unknown:
            raise InputError(f"{file}: tensor {unknown[0]} is unknown to preset {header.preset}")
        present = set(tensors.keys())
        for name, variable in variables.items():
            if name not in present:
                raise InputError(f"{file}: tensor {name} is missing")
            stored = tensors.get_slice(name)
            check_shape(f"{file}: tensor {name}", tuple(stored.get_shape()), tuple(variable.shape))
            if stored.get_dtype() not in STORED_DTYPES:
                raise InputError(
                    f"{file}: tensor {name} is {stored.get_dtype()}, expected {' or '.join(STORED_DTYPES)}"
                )
            variable.assign(tensors.get_tensor(name).astype(np.float32))
    return model


def load_encoder(model: keras.Model, file: str | Path) -> None:
    """Assign the weights of dwarf_lite_v2's encoder from a file, which may hold nothing else.

    Raises:
        InputError: the file is missing, damaged, of another preset, or lacks a tensor.
    """
    file = Path(file)
    with _opened(file) as tensors:
        _header(file, tensors, model.name)
        present = set(tensors.keys())
        for name, variable in named_variables(model).items():
            if not name.startswith(f"dwarf/{ENCODER.replace('.', '/')}"):
                continue
            if name not in present:
                raise InputError(f"{file}: tensor {name} is missing")
            stored = tensors.get_tensor(name)
            check_shape(f"{file}: tensor {name}", stored.shape, tuple(variable.shape))
            variable.assign(stored.astype(np.float32))


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Check the shape of a tensor.

    Raises:
        InputError: the shapes differ.
    """
    if shape != expected:
        raise InputError(f"{name} has shape {shape}, expected {expected}")


def _opened(file: Path) -> Any:
    """The reader of safetensors, which checks that header and length agree."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise InputError(f"{file}: no such weights file")
    try:
        return safe_open(str(file), framework="np")
    except SafetensorError as error:
        raise InputError(
            f"{file}: not a complete safetensors file ({error}), expected weights written by dwarf"
        ) from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from error


def _header(file: Path, tensors: Any, preset: str | None) -> WeightsHeader:
    metadata = tensors.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{file}: header names format {metadata.get('format')!r}, expected {FORMAT!r}"
        )
    if metadata.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{file}: header names format version {metadata.get('format_version')!r}, "
            f"expected {FORMAT_VERSION!r} (was it written by a newer version?)"
        )
    if metadata.get("preset") not in PRESETS:
        raise InputError(
            f"{file}: weights are of preset {metadata.get('preset')!r}, expected one of {', '.join(PRESETS)}"
        )
    if preset is not None and metadata["preset"] != preset:
        raise InputError(f"{file}: weights are of preset {metadata['preset']}, expected {preset}")
    return WeightsHeader(
        preset=metadata["preset"],
        version=metadata.get("version", ""),
        origin=metadata.get("origin", ""),
    )
