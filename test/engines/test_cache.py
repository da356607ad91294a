"""The cache: made once, whole or not at all, and made again when it is damaged."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dwarf_ros.engines.cache import cache_folder, cached


class Maker:
    """Writes an entry, and knows how often it did."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, folder: Path) -> None:
        self.made += 1
        (folder / "sub").mkdir()
        (folder / "sub" / "value").write_text(f"value {self.made}")


def read(folder: Path) -> str:
    return (folder / "sub" / "value").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DWARF_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_entry_is_made_once(folder):
    make = Maker()
    assert [cached("a", make, read), cached("a", make, read)] == ["value 1", "value 1"]
    assert cached("b", make, read) == "value 2"
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


@pytest.mark.parametrize("file", ["sub/value", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncate", "change", "remove"])
def test_a_damaged_entry_is_made_again(folder, file, damage):
    make = Maker()
    cached("a", make, read)
    broken = folder / "a" / file
    if damage == "remove":
        broken.unlink()
    elif damage == "truncate":
        broken.write_bytes(broken.read_bytes()[:3])
    else:
        broken.write_bytes(broken.read_bytes()[:-2] + b"xx")
    assert cached("a", make, read) == "value 2"
    assert cached("a", make, read) == "value 2"


def test_an_entry_that_cannot_be_read_is_made_again(folder):
    make = Maker()
    cached("a", make, read)

    def refuse_the_first(path: Path) -> str:
        if read(path) == "value 1":
            raise RuntimeError("of an older version")
        return read(path)

    assert cached("a", make, refuse_the_first) == "value 2"
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_what_fails_leaves_nothing(folder):
    def fail(path: Path) -> None:
        (path / "half").write_text("half")
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        cached("a", fail, read)
    assert list(folder.iterdir()) == []
    assert cached("a", Maker(), read) == "value 1"


def test_many_may_ask_at_once(folder):
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: cached("a", Maker(), read), range(16)))
    assert values == ["value 1"] * 16
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_without_a_place_to_write_nothing_is_kept(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("DWARF_CACHE_DIR", str(tmp_path / "file"))
    make = Maker()
    assert [cached("a", make, read), cached("a", make, read)] == ["value 1", "value 2"]
    assert "nothing is cached" in caplog.text


def test_where_it_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("DWARF_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "dwarf_ros"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "dwarf_ros"
    assert "DWARF_CACHE_DIR" not in os.environ
