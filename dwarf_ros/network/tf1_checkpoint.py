"""Conversion of published TensorFlow 1 checkpoints to weights files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.types import InputError


def import_checkpoint(prefix: str | Path, out: str | Path) -> list[str]:
    """Convert a published checkpoint of the network to a weights file of preset `dwarf`.

    Args:
        prefix: path of the checkpoint's files without `.index` or `.data-00000-of-00001`.
        out: weights file to write.

    Returns:
        Sorted names of the variables in the checkpoint that the network does not use (optimizer slots, training step).

    Raises:
        InputError: TensorFlow is not installed, there is no such checkpoint or it is damaged, a variable is missing, has
            another shape or is not floating point, or the weights file cannot be written.
    """
    reader = _reader(prefix)
    from dwarf_ros.network import build
    from dwarf_ros.network.weights import check_shape, named_variables, save

    shapes = reader.get_variable_to_shape_map()
    model = build("dwarf")
    variables = named_variables(model)
    for name, variable in variables.items():
        if name not in shapes:
            raise InputError(f"{prefix}: variable {name} is missing from the checkpoint")
        check_shape(f"{prefix}: variable {name}", tuple(shapes[name]), tuple(variable.shape))
        array = _read(reader, prefix, name)
        if array.dtype.kind != "f":
            raise InputError(f"{prefix}: variable {name} is {array.dtype}, expected floating point")
        variable.assign(array.astype(np.float32))
    save(model, out, origin=f"TensorFlow 1 checkpoint {Path(prefix).name}")
    return sorted(set(shapes) - set(variables))


def _reader(prefix: str | Path) -> Any:
    if not Path(f"{prefix}.index").is_file():
        raise InputError(
            f"{prefix}: no such TensorFlow 1 checkpoint (no {prefix}.index), expected the common part of "
            "the names of its files"
        )
    try:
        import tensorflow as tf
    except ImportError as error:
        raise InputError(
            f"{prefix}: reading TensorFlow 1 checkpoints needs tensorflow, which is not installed for {sys.executable}"
        ) from error
    try:
        return tf.train.load_checkpoint(str(prefix))
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{prefix}: not a readable TensorFlow 1 checkpoint: {_line(error)}"
        ) from error


def _read(reader: Any, prefix: str | Path, name: str) -> np.ndarray:
    import tensorflow as tf

    try:
        return reader.get_tensor(name)
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as error:
        raise InputError(f"{prefix}: variable {name} cannot be read: {_line(error)}") from error


def _line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).splitlines()), type(error).__name__)
