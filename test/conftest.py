"""What every test may ask for: the real images, where this machine has them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["ros_fixtures", "training_fixtures"]

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


@pytest.fixture(scope="session")
def quantize_apart():
    """`quantize_for_drives` in a process of its own: after NNCF a training in the same process ends in a segmentation fault."""

    def quantize(weights: Path, height: int, width: int, calibration: list, held_out: list) -> dict:
        """What it measured."""
        script = (
            "import json\n"
            "from dwarf_ros.evaluation import quantization\n"
            f"quantization.CALIBRATION_SEEDS, quantization.HELD_OUT_SEEDS = {calibration}, {held_out}\n"
            f"accuracy = quantization.quantize_for_drives({str(weights)!r}, {height}, {width})\n"
            "print(json.dumps(accuracy))"
        )
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return quantize


class WorkerKiller:
    """Progress of `map_over` that kills one of its processes when an item is done.

    Attributes:
        killed: the process; None before.
    """

    killed: int | None = None

    def __call__(self, done: int, total: int) -> None:
        workers = multiprocessing.active_children()
        if done and workers and self.killed is None:
            self.killed = workers[0].pid
            os.kill(self.killed, signal.SIGKILL)


@pytest.fixture
def worker_killer():
    return WorkerKiller()
