"""A cache of converted networks, in the user's cache folder, for later starts."""

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
"""Environment variable with the folder of the cache."""

_MANIFEST = "manifest.json"

_Value = TypeVar("_Value")


def cache_folder() -> Path:
    """Folder of the entries: $DWARF_CACHE_DIR, else dwarf_ros in $XDG_CACHE_HOME or in ~/.cache.

    Reference: XDG Base Directory Specification 0.8.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification says to ignore relative paths.
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "dwarf_ros"


def keras_home() -> Path:
    """Folder for KERAS_HOME in a process of our own, so that Keras does not read the user's keras.json.

    The network fixes its own data format and precision; settings of other work must not change them.
    """
    return cache_folder() / "keras"


def cached(name: str, make: Callable[[Path], None], read: Callable[[Path], _Value]) -> _Value:
    """The result of `read` for the entry of that name; calls `make` first if the entry is missing or damaged.

    An entry appears whole or not at all, so several processes may request it at once. If the cache cannot be written to,
    the entry is deleted after it is read.

    Args:
        name: of the entry; must contain everything that changes its content.
        make: fills the empty folder that it receives.
        read: receives the entry's folder; its result must not need the files afterwards, unless it has them open.
    """
    folder = cache_folder() / name
    if is_whole(folder):
        try:
            return read(folder)
        except Exception as error:
            # The files are intact but unreadable, for example by a newer version of a package.
            _log().warning("%s: cannot be read (%s); making it again", folder, _line(error))
            _remove(folder)
    elif folder.exists():
        _log().warning("%s: damaged; making it again", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder.parent))
    except OSError as error:
        _log().warning("%s: cannot be written to (%s), so nothing is cached", folder.parent, error)
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
    """Whether an entry exists and its files are unchanged."""
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
    # rename() replaces only an empty folder. An entry that another process has put there meanwhile is as good.
    for _ in range(2):
        try:
            partial.rename(folder)
            return
        except OSError:
            if is_whole(folder):
                return
            _remove(folder)


def _remove(folder: Path) -> None:
    # Renamed first, so that no process finds half of it.
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
