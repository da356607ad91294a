"""Weights files: safetensors, which runs no code when it is read, with a header that says what the weights are of.

Tensors are named as the variables of a published checkpoint (`dwarf/Encoder/level_1/Conv/weights`, ...) and are laid out
as in it: convolutions H x W x in x out, transposed convolutions H x W x out x in.
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


@dataclass(frozen=True)
class WeightsHeader:
    """What a weights file says of itself.

    Attributes:
        preset: name of the preset that the weights fit.
        version: of the package that wrote the file.
        origin: where the weights come from, in words.
    """

    preset: str
    version: str
    origin: str


def named_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Variables of a model that `build` made, under their names in a published checkpoint."""
    published = {"kernel": "weights", "bias": "biases"}
    return {
        f"dwarf/{layer.name.replace('.', '/')}/{published.get(variable.name, variable.name)}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def save(model: keras.Model, file: str | Path, origin: str, half_precision: bool = False) -> None:
    """Write the weights of a model that `build` made; the file appears whole or not at all.

    Args:
        model: of a preset that has a name.
        file: to write; its folder must exist.
        origin: where the weights come from, for the header.
        half_precision: store float16, half the size, instead of float32; `load` turns them into float32 again.

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
    """What a weights file says of itself, without reading the weights or loading Keras.

    Args:
        file: written by `save`.
        preset: name of the preset that the file must be of; None takes any.

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
    """The network with the preset and weights of a file; inputs and outputs are those of `build`.

    Args:
        file: written by `save`.
        preset: name of the preset that the file must be of; None takes any.
        height: fixes the input's height, px; None leaves it open.
        width: the same for its width, px.
        correlation: as of `build`.

    Raises:
        InputError: the file is missing, truncated, not safetensors, not written by `save` or by a newer one, of another
            preset, or a tensor in it is missing, misshapen, neither float32 nor float16, or unknown to the preset.
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


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Refuse weights of another shape.

    Raises:
        InputError: the shapes differ.
    """
    if shape != expected:
        raise InputError(f"{name} has shape {shape}, expected {expected}")


def _opened(file: Path) -> Any:
    """The file as safetensors' reader, which checks that header and length agree."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise InputError(f"{file}: no such weights file")
    try:
        return safe_open(str(file), framework="np")
    except SafetensorError as error:
        raise InputError(
            f"{file}: not a whole safetensors file ({error}), expected weights written by dwarf"
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
