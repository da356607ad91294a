from __future__ import annotations

import functools
import importlib
import itertools
import math
import os
import sys

import pytest

from dwarf_ros.types import InputError
from dwarf_ros.workers import check_workers, map_over

# A module of its own, because a worker must be able to import what is loaded once a process.
JOB = """
import functools, os, signal, time

@functools.cache
def load(folder):
    (folder / f"loaded-by-{os.getpid()}").touch(exist_ok=False)

def square(folder, fatal, item):
    load(folder)
    if item == fatal and not (folder / "has-died").exists():
        (folder / "has-died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item, os.getpid()

def visible_gpu(item):
    time.sleep(0.2)
    return os.environ["CUDA_VISIBLE_DEVICES"]
"""


def test_in_this_process_it_is_map():
    assert list(map_over(lambda item: 2 * item, [3, 1, 2])) == [6, 2, 4]


def test_in_this_process_items_are_taken_one_by_one():
    results = map_over(lambda item: -item, itertools.count())
    assert [next(results), next(results)] == [0, -1]


@pytest.mark.parametrize(
    "workers", ["0", "-1", "two", "", "1.5", "ray://host", "http://host:1", "ray://a b:1", "12345"]
)
def test_other_workers_are_refused(workers):
    with pytest.raises(InputError, match=r"^workers: '.*', expected a number of processes"):
        map_over(abs, [1], workers)


@pytest.mark.parametrize("workers", [None, "1", "16", "ray://head.example:10001"])
def test_workers_that_are_taken(workers):
    assert check_workers(workers) is None


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^workers: ray://h:1 needs Ray.*pip install 'dwarf_ros\[ray\]'$"):  # fmt: skip
        list(map_over(abs, [1], "ray://h:1"))


@pytest.fixture
def square(tmp_path, monkeypatch):
    (tmp_path / "squaring_job.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield importlib.import_module("squaring_job").square
    del sys.modules["squaring_job"]


@pytest.fixture
def ray(square):
    """Ray on this machine, to which this process is connected."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def check_results_though_a_worker_is_killed(square, folder, workers):
    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    results = map_over(functools.partial(square, folder, 3), items(), workers)
    first = next(results)
    assert len(taken) == 6, "no more items are in progress than the workers need"
    squares, processes = zip(first, *results, strict=True)
    assert squares == tuple(item * item for item in range(20))
    assert (folder / "has-died").exists()
    assert os.getpid() not in processes
    loaded = {int(file.name.rpartition("-")[2]) for file in folder.glob("loaded-by-*")}
    assert set(processes) <= loaded


def test_processes_give_results_in_order_though_one_is_killed(square, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    check_results_though_a_worker_is_killed(square, tmp_path, "2")


def test_ray_gives_results_in_order_though_a_worker_is_killed(square, ray, tmp_path):
    check_results_though_a_worker_is_killed(square, tmp_path, "ray://connected.already:10001")
    assert ray.is_initialized(), "a connection that was there stays"


def test_an_error_of_the_function_comes_after_the_results_before_it():
    results = map_over(math.sqrt, [4.0, -1.0, 9.0], "1")
    assert next(results) == 2.0
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        next(results)


def test_workers_that_always_die_are_given_up():
    with pytest.raises(InputError, match=r"^workers: worker processes died 4 times in a row"):
        list(map_over(os._exit, [1], "1"))


def test_local_workers_share_the_gpus(square, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    job = sys.modules["squaring_job"]
    assert set(map_over(job.visible_gpu, range(12), "2", use_gpu=True)) == {"3", "5"}


def test_modules_of_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('numpy.py of the current folder')")
    monkeypatch.chdir(tmp_path)
    # A worker imports OpenCV, and that NumPy, before its first item.
    assert list(map_over(math.sqrt, [1, 4], "2")) == [1.0, 2.0]
