"""What was made of a network once and is read again at later starts, in folders of the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

FOLDER_VARIABLE = "DWARF_CACHE_DIR"
"""Environment variable that names the folder of the cache."""

_MANIFEST = "manifest.json"

_Value = TypeVar("_Value")


def cache_folder() -> Path:
    """Where entries lie: $DWARF_CACHE_DIR, else dwarf_ros in $XDG_CACHE_HOME or in ~/.cache.

    Reference: XDG Base Directory Specification 0.8.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification has relative paths ignored.
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "dwarf_ros"


def keras_home() -> Path:
    """Folder for KERAS_HOME in a process of our own, so that Keras does not read the user's keras.json.

    The network fixes its own data format and precision; settings of other work must not change them.
    """
    return cache_folder() / "keras"


def cached(name: str, make: Callable[[Path], None], read: Callable[[Path], _Value]) -> _Value:
    """What `read` makes of the entry of that name, which `make` makes first where it is missing or damaged.

    An entry appears whole or not at all, so that many processes may ask for it at once. Where the cache cannot be
    written to, the entry lasts only until it is read.

    Args:
        name: of the entry; whatever changes its content must be in it.
        make: fills the empty folder that it is given.
        read: is given the entry's folder; what it returns must not need the files any more, or have them open.
    """
    folder = cache_folder() / name
    if is_whole(folder):
        try:
            return read(folder)
        except Exception as error:
            # The files are as they were written, and yet whatever reads them refuses: they are made anew.
            _log().warning("%s: cannot be read (%s), so it is made again", folder, _line(error))
            _remove(folder)
    elif folder.exists():
        _log().warning("%s: damaged, so it is made again", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    except OSError as error:
        _log().warning("%s: cannot be written to (%s), so nothing is kept", folder.parent, error)
        with tempfile.TemporaryDirectory() as temporary:
            make(Path(temporary))
            return read(Path(temporary))
    try:
        make(partial)
        _write_manifest(partial)
        _put_in_place(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return read(folder)


def is_whole(folder: Path) -> bool:
    """Whether an entry is there and its files are as they were written."""
    try:
        digests = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return all(_digest(folder / file) == digest for file, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _write_manifest(folder: Path) -> None:
    digests = {
        str(file.relative_to(folder)): _digest(file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    (folder / _MANIFEST).write_text(json.dumps(digests, indent=1), encoding="utf-8")


def _put_in_place(partial: Path, folder: Path) -> None:
    # A folder replaces only an empty one. What another process has put there meanwhile is as good.
    for _ in range(2):
        try:
            partial.rename(folder)
            return
        except OSError:
            if is_whole(folder):
                return
            _remove(folder)


def _remove(folder: Path) -> None:
    # Renamed first, so that nobody finds half of it.
    with contextlib.suppress(OSError):
        discarded = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        folder.rename(discarded)
        shutil.rmtree(discarded, ignore_errors=True)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _log() -> logging.Logger:
    return logging.getLogger("dwarf_ros")
