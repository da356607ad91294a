"""Progress of long work: a bar with the remaining time on a terminal, and a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

Progress = Callable[[int, int], None]
"""Called with the number done and the total, first before anything is done."""

_PLAIN_PERIOD = 5.0

_Item = TypeVar("_Item")


@contextmanager
def show_progress(label: str) -> Iterator[Progress]:
    """Show progress on stderr in the block, which reports it through the function that it receives.

    What was done before the first call does not count towards the speed, from which the remaining time is estimated.
    """
    if sys.stderr.isatty():
        with _bar(label) as report:
            yield report
    else:
        yield _PlainLines(label)


def counted(items: Iterable[_Item], total: int, report: Progress | None) -> Iterator[_Item]:
    """The items of an iterable; each is reported as done when the next one is requested.

    Args:
        items: what is worked on.
        total: how many there are.
        report: receives the progress, if there is one.
    """
    report = report or (lambda done, total: None)
    report(0, total)
    for done, item in enumerate(items, start=1):
        yield item
        report(done, total)


@contextmanager
def _bar(label: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task: TaskID | None = None

        def report(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(label, total=total, completed=done)
            bar.update(task, completed=done, total=total)

        yield report


class _PlainLines:
    def __init__(self, label: str) -> None:
        self._label = label
        self._start: tuple[float, int] | None = None
        self._last = 0.0
        self._shown = -1

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._start is None:
            self._start = now, done
            self._last = now
        start, done_before = self._start
        if done == self._shown or (done < total and now - self._last < _PLAIN_PERIOD):
            return
        self._last, self._shown = now, done
        line = f"{self._label}: {done} of {total}"
        if done_before < done < total:
            left = (now - start) / (done - done_before) * (total - done)
            line += f", {timedelta(seconds=round(left))} left"
        print(line, file=sys.stderr, flush=True)
