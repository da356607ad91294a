"""The network that an engine runs: what identifies it, and the Keras model when it must be converted."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dwarf_ros import __version__
from dwarf_ros.engines.cache import cache_folder
from dwarf_ros.types import InputError

if TYPE_CHECKING:
    import keras


class NetworkSource:
    """A weights file, read only when it must be converted, or a Keras model.

    Attributes:
        name: of the preset.
        file: the weights file, or None where a model was given.
    """

    def __init__(self, source: keras.Model | str | Path, preset: str | None = None) -> None:
        """Identify the network, without Keras if its weights are in a file.

        Args:
            source: a weights file, or a model of `dwarf_ros.network`.
            preset: of a weights file whose header has been read already; None reads it.

        Raises:
            InputError: the file is missing or truncated.
        """
        if isinstance(source, str | Path):
            self.file: Path | None = Path(source)
            self._model: keras.Model | None = None
            if preset is None:
                from dwarf_ros.network.weights import read_header

                preset = read_header(self.file).preset
            self.name = preset
        else:
            self.file, self.name, self._model = None, source.name, source

    @cached_property
    def digest(self) -> str:
        """Hexadecimal digits that change with the weights, the network's code, and the versions of both packages."""
        digest = hashlib.blake2b(digest_size=12)
        digest.update(f"{__version__} {version('keras')} {self.name}".encode())
        for file in sorted((Path(__file__).parents[1] / "network").rglob("*.py")):
            digest.update(file.read_bytes())
        if self.file is not None:
            digest.update(self.file.read_bytes())
        else:
            for variable in self.model().variables:
                digest.update(f"{variable.path} {variable.shape}".encode())
                digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
        return digest.hexdigest()

    def model(self, dtype_policy: str = "float32") -> keras.Model:
        """The Keras model, with a dtype policy of Keras.

        Raises:
            InputError: the weights file is damaged, another policy than float32 is requested and there is no weights file,
                or Keras does not run on TensorFlow, which the engines need.
        """
        # TensorFlow logs at length to stderr.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        try:
            import keras
        except ImportError as error:
            raise InputError(
                f"engine: Keras cannot be loaded ({error}), expected its tensorflow backend "
                "(KERAS_BACKEND or keras.json may ask for another)"
            ) from None

        if keras.backend.backend() != "tensorflow":
            raise InputError(
                f"engine: Keras runs on {keras.backend.backend()}, expected its tensorflow backend "
                "(set KERAS_BACKEND=tensorflow)"
            )
        if dtype_policy == "float32" and self._model is not None:
            return self._model
        if self.file is None:
            raise InputError(
                f"precision: {dtype_policy} needs a weights file, and a model was given"
            )
        from dwarf_ros import network

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(dtype_policy)
        try:
            model = network.load(self.file, self.name)
        finally:
            keras.config.set_dtype_policy(before)
        if dtype_policy == "float32":
            self._model = model
        return model

    def is_known(self) -> bool:
        """Whether the cache has an entry made from these weights."""
        return any(cache_folder().glob(f"{self._entry_prefix}*"))

    def entry(self, kind: str, shape: tuple[int, ...], *tools: str) -> str:
        """Name of the cache entry for one product of this network.

        Args:
            kind: of product.
            shape: of each input, N x H x W x 3.
            tools: packages on whose versions the product depends.
        """
        batch, height, width, _ = shape
        versions = "".join(f"-{tool}{version(tool)}" for tool in tools)
        return f"{self._entry_prefix}{kind}-{batch}x{height}x{width}{versions}"

    @property
    def _entry_prefix(self) -> str:
        return f"{self.name}-{self.digest}-"
