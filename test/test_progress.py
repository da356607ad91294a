from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time

import pytest

from dwarf_ros import progress
from dwarf_ros.progress import counted, show_progress


@pytest.fixture
def every_call(monkeypatch):
    monkeypatch.setattr(progress, "_PLAIN_PERIOD", 0.0)


def track(items, total, label):
    with show_progress(label) as report:
        yield from counted(items, total, report)


def test_items_pass_through_in_order(capsys):
    assert list(track("abc", 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == ["letters: 3 of 3"]


def test_plain_lines_count_and_tell_the_time_left(capsys, every_call):
    for _ in track(range(3), 3, "frames"):
        time.sleep(0.01)
    first, *between, last = capsys.readouterr().err.splitlines()
    assert (first, last) == ("frames: 0 of 3", "frames: 3 of 3")
    assert len(between) == 2
    assert all(re.fullmatch(r"frames: [12] of 3, 0:00:00 left", line) for line in between)


def test_plain_lines_are_few(capsys):
    for _ in track(range(1000), 1000, "frames"):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_items_are_counted_without_a_report():
    assert list(counted("abc", 3, None)) == ["a", "b", "c"]


def test_the_end_is_told_once(capsys):
    with show_progress("answers") as report:
        for _ in range(3):
            report(11, 11)
    assert capsys.readouterr().err.splitlines() == ["answers: 11 of 11"]


def test_what_was_done_before_is_no_sign_of_speed(capsys, every_call, monkeypatch):
    now = iter([100.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with show_progress("frames") as report:
        report(900, 1000)
        report(901, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "frames: 900 of 1000",
        "frames: 901 of 1000, 0:16:30 left",
    ]


def test_a_terminal_gets_a_bar():
    code = """from dwarf_ros.progress import counted, show_progress
with show_progress('seven') as report:
    list(counted(range(7), 7, report))"""
    screen, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", code], stderr=terminal, env={**os.environ, "TERM": "xterm"}
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(screen, 65536):
            shown += chunk
    except OSError:  # a closed pseudo-terminal says so in this way
        pass
    os.close(screen)
    assert child.wait(30) == 0
    assert b"seven" in shown
    assert b"7/7" in shown
    assert b"\x1b[" in shown
