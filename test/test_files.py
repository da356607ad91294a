"""Files that appear whole or not at all."""

import os
import subprocess
import sys
import threading

import pytest

from dwarf_ros.files import (
    file_sha256,
    partial_file,
    refusing_unwritable,
    remove_partial_files,
    write_atomically,
)
from dwarf_ros.types import InputError


def write_by_name(path, data):
    with partial_file(path) as partial:
        partial.write_bytes(data)


writers = pytest.mark.parametrize("write", [write_atomically, write_by_name])


@writers
def test_a_file_is_replaced_whole_or_not_at_all(write, tmp_path):
    file = tmp_path / "x.bin"
    write(file, b"first")
    write(file, b"second")
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert file.read_bytes() == b"second"


@writers
def test_a_failed_write_leaves_nothing_behind(write, tmp_path):
    (tmp_path / "folder.bin").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write(tmp_path / "folder.bin", b"data")
    assert caught.value.filename == str(tmp_path / "folder.bin")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.bin"]
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "none" / "x.bin", b"data")


def test_a_block_that_raises_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "x.mp4"
    file.write_bytes(b"first")

    def fail():
        with partial_file(file, ".mp4") as partial:
            assert partial.suffix == ".mp4"
            partial.write_bytes(b"sec")
            raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]
    assert file.read_bytes() == b"first"


def limited(command, *arguments):
    """What a Python process with files of at most 8 kB prints; a full disk fails in the same calls."""
    code = f"import sys; from pathlib import Path; from dwarf_ros.files import *; {command}"
    limit = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash"]
    run = [*limit, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, check=False)


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_the_old_one(tmp_path):
    file = tmp_path / "x.bin"
    file.write_bytes(b"old")
    result = limited("write_atomically(sys.argv[1], bytes(100_000))", file)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"OSError: [Errno 27] File too large: '{file}'"
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert file.read_bytes() == b"old"


@writers
def test_links_are_followed(write, tmp_path):
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.bin"
    link.symlink_to("real/x.bin")
    for data in (b"first", b"second"):
        write(link, data)
        assert link.is_symlink()
        assert (tmp_path / "real" / "x.bin").read_bytes() == data
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["x.bin"]


@writers
def test_a_fifo_is_written_to(write, tmp_path):
    fifo, got = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    write(fifo, b"data" * 50_000)
    reader.join(10)
    assert got == [b"data" * 50_000]
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"]
    assert fifo.is_fifo()


@pytest.mark.parametrize("write", ["write_atomically(link, b'data\\n')", "by_name()"])
@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_standard_output_is_written_to_under_any_name(write, kind, tmp_path):
    link, out = tmp_path / "stdout", tmp_path / "out"
    link.symlink_to("/proc/self/fd/1")
    code = f"""
import sys
from dwarf_ros.files import *
link = sys.argv[1]
def by_name():
    with partial_file(link) as partial:
        partial.write_bytes(b"data\\n")
print("before")
{write}
print("after")
"""
    command = [sys.executable, "-c", code, str(link)]
    if kind == "pipe":
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    else:
        with out.open("w") as stream:
            subprocess.run(command, stdout=stream, check=True)
        text = out.read_text()
    assert text == "before\ndata\nafter\n"
    assert link.is_symlink()


def test_the_full_device_is_an_error():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        write_atomically("/dev/full", b"data")


@writers
def test_names_that_are_not_utf8_are_written(write, tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    write(folder / "x.bin", b"data")
    assert [path.name for path in folder.iterdir()] == ["x.bin"]
    assert (folder / "x.bin").read_bytes() == b"data"


def test_a_library_gets_a_name_that_it_can_open(tmp_path):
    with partial_file(tmp_path / os.fsdecode(b"\xe9.mp4"), ".mp4") as partial:
        str(partial).encode()
        partial.write_bytes(b"data")
    assert [os.fsencode(path.name) for path in tmp_path.iterdir()] == [b"\xe9.mp4"]


def test_what_killed_processes_left_is_removed(tmp_path):
    for name in (".x.png.12-0.part", ".x.mp4.12-1.part.mp4", ".hidden", "x.part"):
        (tmp_path / name).touch()
    remove_partial_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "x.part"]


def test_errors_become_the_one_line_that_users_see(tmp_path):
    with (
        pytest.raises(InputError, match=r"x\.bin: cannot be written: No such file or directory"),
        refusing_unwritable(tmp_path / "none" / "x.bin"),
    ):
        write_atomically(tmp_path / "none" / "x.bin", b"data")


def test_the_checksum_is_sha_256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "none")
