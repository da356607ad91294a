"""Checkpoints: weights, state of the optimizer and progress of a training in one safetensors file.

Files appear whole or not at all. Tensors of the network are named as in a published checkpoint under `network/`, those of the
optimizer are numbered under `optimizer/`; the header holds the rest as JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dwarf_ros.files import refusing_unwritable, write_atomically
from dwarf_ros.network.weights import check_shape, named_variables
from dwarf_ros.types import InputError

if TYPE_CHECKING:
    import keras

FORMAT = "dwarf_ros checkpoint 1"
_NAME = re.compile(r"step-([0-9]{8,})\.safetensors")


@dataclass(frozen=True)
class TrainingState:
    """Progress of a training.

    Attributes:
        step: steps done.
        config: its configuration, as returned by `config_values`.
        best_score: lowest score of the validations so far; None before the first.
    """

    step: int
    config: dict[str, Any]
    best_score: float | None = None


def find_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints in a folder, oldest step first; empty if the folder does not exist."""
    if not folder.is_dir():
        return []
    found = [
        (int(match[1]), file) for file in folder.iterdir() if (match := _NAME.fullmatch(file.name))
    ]
    return [file for _, file in sorted(found)]


def write_checkpoint(
    folder: Path, model: keras.Model, optimizer: Any, state: TrainingState, keep: int
) -> Path:
    """Write a checkpoint of a network and its optimizer, and remove all but the last `keep` in the folder.

    Raises:
        InputError: it cannot be written, e.g. because the disk is full; earlier ones are kept.
    """
    from safetensors.numpy import save

    tensors = {f"network/{name}": _array(v) for name, v in named_variables(model).items()}
    for index, variable in enumerate(optimizer.variables):
        tensors[f"optimizer/{index:04d}"] = _array(variable)
    file = folder / f"step-{state.step:08d}.safetensors"
    data = save(tensors, {"format": FORMAT, "state": json.dumps(asdict(state))})
    with refusing_unwritable(file):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(file, data, durable=True)
    for old in find_checkpoints(folder)[:-keep]:
        old.unlink()
    return file


def read_state(file: Path) -> TrainingState:
    """Read the progress stored in a checkpoint.

    Raises:
        InputError: the file is damaged or not a checkpoint.
    """
    with _opened(file) as tensors:
        return _state(file, tensors)


def restore(file: Path, model: keras.Model, optimizer: Any) -> TrainingState:
    """Load weights and optimizer state from a checkpoint.

    Args:
        file: written by `write_checkpoint`.
        model: the network, as `build` makes it.
        optimizer: built for the network's variables.

    Raises:
        InputError: the file is damaged, not a checkpoint, or does not match the network or the optimizer.
    """
    variables = {f"network/{name}": v for name, v in named_variables(model).items()}
    for index, variable in enumerate(optimizer.variables):
        variables[f"optimizer/{index:04d}"] = variable
    with _opened(file) as tensors:
        state = _state(file, tensors)
        stored = set(tensors.keys())
        for name in sorted(stored ^ set(variables)):
            problem = "is unknown to this training" if name in stored else "is missing"
            raise InputError(f"{file}: tensor {name} {problem}")
        for name, variable in variables.items():
            values = tensors.get_tensor(name)
            check_shape(f"{file}: tensor {name}", values.shape, tuple(variable.shape))
            variable.assign(values.astype(np.dtype(variable.dtype)))
    return state


def _array(variable: keras.Variable) -> np.ndarray:
    from keras import ops

    # Contiguous, because safetensors writes the raw memory.
    values = ops.convert_to_numpy(variable.value)
    return np.array(values, order="C")


def _opened(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(str(file), framework="np")
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file}: is no whole checkpoint ({error}), expected one of dwarf train"
        ) from None


def _state(file: Path, tensors: Any) -> TrainingState:
    metadata = tensors.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise InputError(
            f"{file}: header names format {metadata.get('format')!r}, expected {FORMAT!r}"
        )
    return TrainingState(**json.loads(metadata["state"]))
