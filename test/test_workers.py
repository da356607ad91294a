from __future__ import annotations

import functools
import importlib
import itertools
import os
import sys

import pytest

from dwarf_ros.types import InputError
from dwarf_ros.workers import check_workers, map_over

# A module of its own, because a worker must be able to import what is loaded once a process.
JOB = """
import functools, os, signal

@functools.cache
def load(folder):
    (folder / f"loaded-by-{os.getpid()}").touch(exist_ok=False)

def square(folder, fatal, item):
    load(folder)
    if item == fatal and not (folder / "has-died").exists():
        (folder / "has-died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item, os.getpid()
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
    with pytest.raises(InputError, match=r"^workers: 2 needs Ray.*pip install 'dwarf_ros\[ray\]'$"):
        list(map_over(abs, [1], "2"))


def test_ray_gives_results_in_order_though_a_worker_is_killed(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    (tmp_path / "squaring_job.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    square = importlib.import_module("squaring_job").square
    taken = []

    def items():
        for item in range(20):
            taken.append(item)
            yield item

    results = map_over(functools.partial(square, tmp_path, 3), items(), "2")
    first = next(results)
    assert len(taken) == 6, "no more items are under way than workers have use for"
    squares, workers = zip(first, *results, strict=True)
    assert squares == tuple(item * item for item in range(20))
    assert (tmp_path / "has-died").exists()
    assert os.getpid() not in workers
    loaded = {int(file.name.rpartition("-")[2]) for file in tmp_path.glob("loaded-by-*")}
    assert set(workers) <= loaded
    assert not ray.is_initialized(), "what was started is ended"
