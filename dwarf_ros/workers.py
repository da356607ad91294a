"""One function over many items: in this process, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dwarf_ros.signals import ignore_terminal
from dwarf_ros.types import InputError

_LOCAL = re.compile(r"[1-9][0-9]{0,3}")
_CLUSTER = re.compile(r"ray://[^/\s:]+:[0-9]{1,5}")

# Enough to keep all workers busy, few enough that memory does not grow with the number of items.
_ITEMS_PER_WORKER = 3

# A worker can die of something that is not its fault, such as too little memory.
_RETRIES = 3

_MAX_REASON_LENGTH = 300

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def check_workers(workers: str | None) -> None:
    """Raise InputError if `workers` is not valid for `map_over`; nothing is started."""
    if workers is not None and not _LOCAL.fullmatch(workers) and not _CLUSTER.fullmatch(workers):
        raise InputError(
            f"workers: {workers!r}, expected a number of processes from 1 to 9999, or a Ray cluster as ray://host:port"
        )


def map_over(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    workers: str | None = None,
    use_gpu: bool = False,
) -> Iterator[_Result]:
    """Results of a function for each item, in the order of the items, as `map` gives them.

    If a worker dies, its items are repeated by another one, up to three times, so the function must be able to repeat an item.
    Each worker has a few items in progress. What the function caches per process (functools.cache) is loaded once per worker. On
    a cluster, every machine needs this package and the files under the same absolute paths.

    Args:
        function: of one item; with workers it must be picklable, such as a function of a module or a partial of one.
        items: arguments of the function.
        workers: None: this process; "4": four processes of this machine; "ray://host:port": a running Ray cluster. If this
            process is already connected to Ray, that connection is used.
        use_gpu: the function uses a GPU: local workers share the GPUs of the machine evenly, each worker of a cluster has one.

    Raises:
        InputError: `workers` is invalid, Ray is not installed or cannot be reached, or the workers of an item died four times.
        Exception: raised by the function, after the results before it.
    """
    check_workers(workers)
    if workers is None:
        return map(function, items)
    if _LOCAL.fullmatch(workers):
        return _map_locally(function, items, int(workers), use_gpu)
    return _map_by_ray(function, items, workers, use_gpu)


def _map_locally(
    function: Callable[[_Item], _Result], items: Iterable[_Item], processes: int, use_gpu: bool
) -> Iterator[_Result]:
    remaining = iter(items)
    in_progress: deque[tuple[_Item, Future[_Result] | None]] = deque()
    deaths = 0
    pool = _start_pool(function, processes, use_gpu)
    try:
        while True:
            free = processes * _ITEMS_PER_WORKER - len(in_progress)
            in_progress.extend((item, None) for item in itertools.islice(remaining, free))
            if not in_progress:
                return
            try:
                in_progress = deque(
                    (item, future or pool.submit(_call, item)) for item, future in in_progress
                )
                _, first = in_progress[0]
                assert first is not None
                result = first.result()
            except BrokenProcessPool:
                deaths += 1
                if deaths > _RETRIES:
                    raise InputError(
                        f"workers: worker processes died {deaths} times in a row, expected them to stay alive (is there enough "
                        f"memory for {processes}?)"
                    ) from None
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _start_pool(function, processes, use_gpu)
                in_progress = deque((item, _finished(future)) for item, future in in_progress)
                continue
            deaths = 0
            in_progress.popleft()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _finished(future: Future[_Result] | None) -> Future[_Result] | None:
    """The future if it has a result that a dead worker did not take along."""
    done = future is not None and future.done() and not future.cancelled()
    return future if done and not isinstance(future.exception(), BrokenProcessPool) else None  # type: ignore[union-attr]


def _start_pool(function: Callable, processes: int, use_gpu: bool) -> ProcessPoolExecutor:
    # Not forked: this process may hold threads and a deep-learning runtime.
    context = multiprocessing.get_context("spawn")
    gpus = context.SimpleQueue()
    names = _gpus() if use_gpu else []
    for index in range(processes if names else 0):
        gpus.put(names[index % len(names)])
    return ProcessPoolExecutor(
        processes, context, _start_worker, (function, gpus if names else None)
    )


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return sorted(file.name[6:] for file in Path("/dev").glob("nvidia[0-9]*"))


_function: Callable


def _start_worker(function: Callable, gpus: Any) -> None:
    global _function
    import cv2

    # The main process ends the workers.
    ignore_terminal()
    cv2.setNumThreads(1)
    if gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus.get()
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    _function = function


def _call(item: Any) -> Any:
    return _function(item)


def _map_by_ray(
    function: Callable[[_Item], _Result], items: Iterable[_Item], address: str, use_gpu: bool
) -> Iterator[_Result]:
    with _connected(address) as ray:
        resources = ray.cluster_resources()
        processes = max(1, int(resources.get("CPU", 1)))
        gpus = 1 if use_gpu and resources.get("GPU") else 0
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=_RETRIES)(_apply)
        shared = ray.put(function)
        in_progress: deque[Any] = deque()
        remaining = iter(items)
        try:
            while True:
                free = processes * _ITEMS_PER_WORKER - len(in_progress)
                for item in itertools.islice(remaining, free):
                    in_progress.append(task.remote(shared, item))
                if not in_progress:
                    return
                yield _result(ray, in_progress.popleft())
        finally:
            for reference in in_progress:
                ray.cancel(reference)


def _apply(function: Callable[[_Item], _Result], item: _Item) -> _Result:
    return function(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Raise what the function raised: the message of Ray's own error is the traceback of the worker.
        raise getattr(error, "cause", None) or error from error
    except ray.exceptions.RayError as error:
        raise InputError(
            f"workers: gave up an item after {_RETRIES + 1} attempts: {_line(error)}"
        ) from error


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The ray module, connected; disconnected at the end if it was not connected before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # A client sends the token that it has only if this is set, and Ray reads it when it is imported.
    if "ray" not in sys.modules and _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise InputError(
            f"workers: {address} needs Ray, which is not installed: pip install 'dwarf_ros[ray]'"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    try:
        with warnings.catch_warnings():
            # The error reports an unreachable cluster too.
            warnings.simplefilter("ignore")
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
        raise InputError(f"workers: {address}: cannot connect to Ray: {_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _has_token() -> bool:
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_MAX_REASON_LENGTH]}"
