"""Files that appear whole or not at all, their clean-up, and their checksums.

Errors of the system are raised as OSError with the file's name in `filename`; `refusing_unwritable` turns them into the one
line that users see.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dwarf_ros.types import InputError

PathLike = str | os.PathLike[str]

_partial_numbers = itertools.count()


def write_atomically(path: PathLike, data: bytes, durable: bool = False) -> None:
    """Write a file so that a reader sees all of it or what was there before.

    The data is written beside the file, which is then replaced; links are followed. What exists and is no regular file
    (a FIFO, a terminal, /dev/stdout) is written to as it is.

    Args:
        path: the file; its folder exists.
        data: all that it will hold.
        durable: return only once the data has reached the disk.

    Raises:
        OSError: the file cannot be written: no such folder, no permission, no space.
    """
    with _errors_named(path):
        if _is_special(path):
            with _opened_special(path) as stream:
                stream.write(data)
            return
        with _replacing(path) as partial, partial.open("wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())


@contextlib.contextmanager
def partial_file(path: PathLike, suffix: str = "") -> Iterator[Path]:
    """A file that a library can write by its name; when the block ends, `path` has its content as by `write_atomically`.

    If the block raises, `path` stays as it was. The file to write lies beside `path`, or in a temporary folder where `path`
    is no regular file or has a name that is not UTF-8, which many libraries cannot open.

    Args:
        path: the file; its folder exists.
        suffix: end of the name to write to, for a library that tells formats by it.

    Raises:
        OSError: the file cannot be written. Errors of the block pass unchanged.
    """
    if not _is_special(path) and _is_utf8(path):
        with _replacing(path, suffix) as partial:
            yield partial
        return
    with tempfile.TemporaryDirectory(prefix="dwarf_") as folder:
        partial = Path(folder) / f"output{suffix}"
        yield partial
        with _errors_named(path), partial.open("rb") as source:
            if _is_special(path):
                with _opened_special(path) as stream:
                    shutil.copyfileobj(source, stream)
            else:
                with _replacing(path, suffix) as beside, beside.open("wb") as stream:
                    shutil.copyfileobj(source, stream)


@contextlib.contextmanager
def refusing_unwritable(path: PathLike) -> Iterator[None]:
    """Turn an OSError of the block into an InputError that says that `path` cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def remove_partial_files(folder: Path) -> None:
    """Remove what killed processes left in a folder of the files that they were writing."""
    for file in folder.glob(".*.part*"):
        file.unlink(missing_ok=True)


def file_sha256(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _replacing(path: PathLike, suffix: str = "") -> Iterator[Path]:
    """A name beside the file that `path` leads to, which replaces it when the block ends."""
    target = Path(os.path.realpath(path))
    number = next(_partial_numbers)
    partial = target.with_name(f".{target.name}.{os.getpid()}-{number}.part{suffix}")
    try:
        yield partial
        with _errors_named(path):
            partial.replace(target)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _errors_named(path: PathLike) -> Iterator[None]:
    """Give each OSError the name that the caller knows; errors of writing have none, those of opening a partial file's."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def _is_special(path: PathLike) -> bool:
    """Whether `path` exists and has to be written in place: it is no regular file, or an output of this process."""
    try:
        status = Path(path).stat()
    except OSError:
        return False
    return not stat.S_ISREG(status.st_mode) or _own_output(status) is not None


def _own_output(status: os.stat_result) -> int | None:
    """The descriptor, standard output or standard error, of the file that `status` is of."""
    for descriptor in (1, 2):
        with contextlib.suppress(OSError):
            if os.path.samestat(status, os.fstat(descriptor)):
                return descriptor
    return None


@contextlib.contextmanager
def _opened_special(path: PathLike) -> Iterator[BinaryIO]:
    # Its own outputs are written through their descriptors: opened anew, a file would be written from its start.
    descriptor = _own_output(Path(path).stat())
    if descriptor is None:
        with Path(path).open("wb") as stream:
            yield stream
        return
    for text in (sys.stdout, sys.stderr):
        text.flush()
    with os.fdopen(os.dup(descriptor), "wb") as stream:
        yield stream


def _is_utf8(path: PathLike) -> bool:
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return False
    return True
