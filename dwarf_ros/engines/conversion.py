"""Converts a network in a separate process, so that the memory that TensorFlow needs for it is released.

The process runs this module: python -m dwarf_ros.engines.conversion WEIGHTS [FILE BATCH HEIGHT WIDTH].
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dwarf_ros.engines.cache import cached, keras_home
from dwarf_ros.engines.graph import write_onnx, write_openvino
from dwarf_ros.engines.source import NetworkSource
from dwarf_ros.types import InputError

_WRITERS = {".onnx": write_onnx, ".xml": write_openvino}

_ONNX_FILE = "model.onnx"

_Value = TypeVar("_Value")


def check(network: NetworkSource) -> None:
    """Check that a weights file is whole, unless something was made from it before, which proves it.

    Raises:
        InputError: as for `NetworkSource.model`.
    """
    if network.file is not None and not network.is_known():
        _run(network.file)


def convert(network: NetworkSource, shape: tuple[int, ...], file: Path) -> None:
    """Write the file that an engine reads; a network without a weights file is converted in this process.

    Args:
        network: to write.
        shape: of each input, N x H x W x 3; both sides multiples of 64 px.
        file: to write, .onnx or OpenVINO's .xml.

    Raises:
        InputError: as for `write_onnx` and `write_openvino`, or the process was killed.
    """
    if network.file is None:
        _WRITERS[file.suffix](network, shape, file)
    else:
        _run(network.file, str(file), *map(str, shape[:3]))


def read_exported(
    network: NetworkSource, shape: tuple[int, ...], read: Callable[[Path], _Value]
) -> _Value:
    """The result of `read` for the network's ONNX file for one shape, written now or at an earlier start.

    Raises:
        InputError: as for `convert`.
    """
    entry = network.entry("onnx", shape, "tf2onnx")
    return cached(
        entry,
        lambda folder: convert(network, shape, folder / _ONNX_FILE),
        lambda folder: read(folder / _ONNX_FILE),
    )


def _run(weights: Path, *arguments: str) -> None:
    command = [sys.executable, "-P", "-m", __name__, str(weights), *arguments]
    environment = os.environ | {
        "KERAS_BACKEND": "tensorflow",
        "KERAS_HOME": str(keras_home()),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    *_, last = ["", *done.stderr.decode(errors="replace").splitlines()]
    if done.returncode == 2:
        raise InputError(last)
    if done.returncode < 0:
        number = -done.returncode
        hint = " (is there enough memory?)" if number == signal.SIGKILL else ""
        raise InputError(f"{weights}: the conversion was ended by signal {number}{hint}")
    if done.returncode:
        raise InputError(f"{weights}: the conversion failed: {last}")


def main() -> int:
    """Check or convert what the command line names; an InputError is the last line on stderr, with exit code 2."""
    weights, *rest = sys.argv[1:]
    try:
        network = NetworkSource(weights)
        network.model()
        if rest:
            file, *shape = rest
            batch, height, width = map(int, shape)
            _WRITERS[Path(file).suffix](network, (batch, height, width, 3), Path(file))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
