"""One way to be interrupted."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from dwarf_ros.signals import INTERRUPTS, raising_interrupts, stop_requests

every_signal = pytest.mark.parametrize("number", INTERRUPTS)


@pytest.fixture(autouse=True)
def nothing_is_ignored():
    """The shell that runs the tests may ignore signals, as nohup does."""
    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    for number, handler in before.items():
        if handler is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@every_signal
def test_signals_raise_in_the_block_alone(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), raising_interrupts():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


@every_signal
def test_the_first_signal_asks_to_stop_and_the_second_raises(number):
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_other_threads_may_enter_the_blocks():
    def run():
        with raising_interrupts(), stop_requests() as stop:
            entered.append(stop.is_set())

    entered = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert entered == [False]


def test_a_hangup_that_is_ignored_stays_so_and_an_ignored_interrupt_does_not():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTS}
    try:
        with raising_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_is_ignored_at_the_end_of_a_block_stays_so_after_it():
    code = """
import os, signal
from dwarf_ros.signals import *
with raising_interrupts():
    ignore_interrupts()
for number in INTERRUPTS:
    os.kill(os.getpid(), number)
print("alive")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "alive\n"
