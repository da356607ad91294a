"""What every test may ask for: the real images, where this machine has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data():
    """Function from the name of a real data set to its folder; skips the test where it is absent."""
    root = Path(os.environ.get("DWARF_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

    def folder(name: str) -> Path:
        path = root / name
        if not path.is_dir():
            pytest.skip(f"real data {name} is absent: no {path} (set DWARF_TEST_DATA)")
        return path

    return folder


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What tests make of networks is kept apart from the user's cache, and only while they run."""
    os.environ["DWARF_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
