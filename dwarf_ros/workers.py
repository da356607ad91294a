"""One function over many items: here, or fanned out over the worker processes of Ray, on this machine or a cluster."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dwarf_ros.types import InputError

_LOCAL = re.compile(r"[1-9][0-9]{0,3}")
_CLUSTER = re.compile(r"ray://[^/\s:]+:[0-9]{1,5}")

# Enough that no worker waits for its next item, few enough that memory does not grow with the number of items.
_ITEMS_PER_WORKER = 3

# A worker can be killed for what it does not answer for: too little memory, a machine taken away.
_TRIES_AFTER_DEATH = 3

# Images and maps stay in files; what travels is small.
_OBJECT_STORE_BYTES = 128 << 20

_LONGEST_REASON = 300

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def check_workers(workers: str | None) -> None:
    """Raise InputError where `workers` is not what `map_over` takes; nothing is started."""
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

    With workers an item whose worker dies is tried again by another, up to three times, so the function must be able to
    begin an item anew. A few items a worker are under way at once. What a function loads once a process (functools.cache)
    is loaded once a worker. On a cluster every machine needs this package and the files, under the same absolute paths.

    Args:
        function: of one item; with workers one that can be pickled, such as a function of a module or a partial of one.
        items: whatever the function takes.
        workers: None: in this process; "4": four processes of this machine; "ray://host:port": a running Ray cluster.
            A Ray that this process has joined already is used as it is, whatever its size.
        use_gpu: the function uses a GPU: where there are any, the workers of a machine share them out evenly, and on a
            cluster each has one.

    Raises:
        InputError: `workers` is none of these, Ray is not installed or cannot be reached, or an item's workers died four
            times over.
        Exception: what the function raises, once the results before it have been given.
    """
    check_workers(workers)
    if workers is None:
        return map(function, items)
    return _map_by_ray(function, items, workers, use_gpu)


def _map_by_ray(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: str, use_gpu: bool
) -> Iterator[_Result]:
    with _joined(workers) as ray:
        resources = ray.cluster_resources()
        processes = max(1, int(resources.get("CPU", 1)))
        gpus = resources.get("GPU", 0) if use_gpu else 0
        share = 1 / math.ceil(processes / gpus if _LOCAL.fullmatch(workers) else 1) if gpus else 0
        task = ray.remote(num_cpus=1, num_gpus=share, max_retries=_TRIES_AFTER_DEATH)(_apply)
        shared = ray.put(function)
        under_way: deque[Any] = deque()
        remaining = iter(items)
        try:
            while True:
                room = processes * _ITEMS_PER_WORKER - len(under_way)
                for item in itertools.islice(remaining, room):
                    under_way.append(task.remote(shared, item))
                if not under_way:
                    return
                yield _result(ray, under_way.popleft())
        finally:
            for reference in under_way:
                ray.cancel(reference)


def _apply(function: Callable[[_Item], _Result], item: _Item) -> _Result:
    return function(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        # Ray's own message is the worker's traceback; what is caught for its message must be what was raised.
        raise getattr(error, "cause", None) or error from error
    except ray.exceptions.RayError as error:
        raise InputError(
            f"workers: an item was given up after {_TRIES_AFTER_DEATH + 1} tries: {_line(error)}"
        ) from error


@contextmanager
def _joined(workers: str) -> Iterator[Any]:
    """The ray module, connected; disconnected at the end if it was not before, with what was started for it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = _LOCAL.fullmatch(workers)
    # A Ray of this machine alone still listens to the network. A client has to be told to show the token that it has.
    # Ray reads this when it is imported, and later would take half of it.
    if "ray" not in sys.modules and (local or _has_token()):
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise InputError(
            f"workers: {workers} needs Ray, which is not installed: pip install 'dwarf_ros[ray]'"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    try:
        if local:
            ray.init(
                address="local",
                num_cpus=int(workers),
                object_store_memory=_OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            with warnings.catch_warnings():
                # That there is nobody is said by the error as well.
                warnings.simplefilter("ignore")
                ray.init(workers, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, TimeoutError, ImportError) as error:
        raise InputError(f"workers: {workers}: Ray cannot be joined: {_line(error)}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _has_token() -> bool:
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or (Path.home() / ".ray" / "auth_token").is_file()


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:_LONGEST_REASON]}"
