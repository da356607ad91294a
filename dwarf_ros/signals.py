"""Interruption by SIGINT (Ctrl-C), SIGTERM (kill, systemd, containers) and SIGHUP (a terminal that closes): all end alike."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def raising_interrupts() -> Iterator[None]:
    """In the block, SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt."""
    with _handling(signal.default_int_handler):
        yield


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """An event that the first SIGINT, SIGTERM or SIGHUP in the block sets; the next one raises KeyboardInterrupt."""
    stop = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if stop.is_set():
            signal.default_int_handler(number, frame)
        stop.set()

    with _handling(handle):
        yield stop


def ignore_interrupts() -> None:
    """From here on this process ignores SIGINT, SIGTERM and SIGHUP, because it is ending."""
    for number in _handled():
        signal.signal(number, signal.SIG_IGN)


def ignore_terminal() -> None:
    """From here on this process ignores what a terminal sends to all of a group; the process that started it ends it."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def _handled() -> list[signal.Signals]:
    # Whoever runs a command under nohup wants SIGHUP ignored. A shell that runs a command in the background has SIGINT
    # ignored, and it is handled all the same.
    hangup_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in INTERRUPTS if number != signal.SIGHUP or not hangup_ignored]


@contextlib.contextmanager
def _handling(handler: Callable[[int, Any], Any]) -> Iterator[None]:
    """Handlers for the block, where this is the main thread, which alone may set them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in _handled()}
    try:
        yield
    finally:
        for number, former in before.items():
            # What the block has chosen to ignore stays ignored.
            if signal.getsignal(number) is handler:
                signal.signal(number, former)
