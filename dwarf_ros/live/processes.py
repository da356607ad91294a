"""A live run in three processes: a player, the node, and a recorder of its estimates."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dwarf_ros.estimators import EstimatorChoice
from dwarf_ros.live.lifecycle import NodeClient
from dwarf_ros.live.recorder import READY, SUMMARY, read_summary
from dwarf_ros.progress import show_progress
from dwarf_ros.recordings.bag.estimates import RecordedEstimates, open_estimates
from dwarf_ros.ros.distro import prepare_environment
from dwarf_ros.signals import raising_interrupts
from dwarf_ros.types import InputError

RECORDING = "recording"
PLAYER_LOG = "player.jsonl"

# In the order of `Recording.topics`.
_NODE_TOPICS = ("left/image_rect", "right/image_rect", "left/camera_info", "right/camera_info")

# Loading a network for the first time compiles its graph.
_ACTIVE_WAIT_S = 180.0
_READY_WAIT_S = 30.0
# Longer than any estimator takes for one pair, and than the period of the node's diagnostics.
_IDLE_S = 6.0
_PLAYER_MARGIN_S = 60.0
_RECORDER_MARGIN_S = 60.0
_STOP_WAIT_S = 5.0


class LiveError(RuntimeError):
    """A live run cannot continue; the message is one line."""


@dataclass(frozen=True)
class Played:
    """One line of the player's log: number in the sequence, header stamp and wall time of publication, ns."""

    index: int
    stamp_ns: int
    wall_ns: int


def prepare_run(out: Path) -> None:
    """Create the folder, and remove the results of an earlier run.

    Raises:
        InputError: it cannot be created.
    """
    recording = out / RECORDING
    try:
        out.mkdir(parents=True, exist_ok=True)
        for file in (
            *recording.glob("*.mcap"),
            recording / "metadata.yaml",
            recording / SUMMARY,
            out / PLAYER_LOG,
        ):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"out: {out}: {error.strerror}, expected a folder to write to") from None


def estimator_arguments(choice: EstimatorChoice) -> list[str]:
    """The node's arguments, after --ros-args, for an estimator."""
    parameters: dict[str, object] = {"estimator": choice.name, "refine": choice.refine}
    if choice.weights is not None:
        parameters |= {
            "weights": choice.weights,
            "engine": choice.engine,
            "precision": choice.precision,
            "gpu_memory_fraction": choice.gpu_memory_fraction,
        }
    return [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]


def play_into_node(
    source: Path,
    frames: int,
    pairs: int,
    out: Path,
    rate_hz: float,
    reference: str,
    node_arguments: Sequence[str],
    topics: Sequence[str] | None,
    say: Callable[[str], None],
) -> None:
    """Play a recording into the live node and record its estimates, on a ROS domain of its own unless ROS_DOMAIN_ID is set.

    `out` gets recording/ (a bag, and the summary), player.jsonl and the logs of the three processes. They end with the
    call, also when a signal ends it.

    Args:
        source: what `open_recording` reads.
        frames: how many it has.
        pairs: number of estimates to expect.
        out: folder that `prepare_run` created.
        rate_hz: frames per second of wall time.
        reference: the node's parameter of this name.
        node_arguments: further ones for the node, after --ros-args.
        topics: the recording's, which are published under the names that the node expects.
        say: receives one line per step.

    Raises:
        LiveError: a process failed or took too long.
        InputError: the node cannot be configured with these arguments.
    """
    node_arguments = ["-p", f"reference:={reference}", *node_arguments]
    prepare_environment()
    # For this process, too: it asks the node for its state.
    domain = os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 101))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    with raising_interrupts(), ExitStack() as stack:

        def start(name: str, *arguments: str) -> _Child:
            command = [sys.executable, "-u", "-m", "dwarf_ros.cli", *arguments]
            return stack.enter_context(_Child(name, command, out / f"{name}.log"))

        node = start("node", "node", "--ros-args", *node_arguments)
        with NodeClient() as client:
            node.wait_for(client.is_active, _ACTIVE_WAIT_S, "active")
            estimator, engine = client.status["estimator"], client.status["engine"]
        say(f"node is active with estimator {estimator} on {engine}; domain {domain}")
        recorder = start(
            "recorder",
            "record",
            str(out / RECORDING),
            f"--expected={pairs}",
            f"--idle-timeout={max(_IDLE_S, 3 / rate_hz)}",
            f"--reference={reference}",
        )
        recorder.wait_for(lambda: READY in recorder.log(), _READY_WAIT_S, "ready")
        say(f"playing {frames} frames of {source} at {rate_hz:g} Hz")
        player = start(
            "player",
            "play",
            str(source),
            f"--rate={rate_hz}",
            f"--log={out / PLAYER_LOG}",
            *_renaming(topics),
        )
        log = out / PLAYER_LOG
        with show_progress("playing") as report:

            def update() -> None:
                report(log.read_bytes().count(b"\n") if log.is_file() else 0, frames)

            player.wait(frames / rate_hz + _PLAYER_MARGIN_S, node, update)
            recorder.wait(_RECORDER_MARGIN_S, node, update)
        node.stop()


def _renaming(topics: Sequence[str] | None) -> list[str]:
    """Arguments that rename a recording's topics as the node expects them."""
    if topics is None:
        return []
    rules = [f"{topic}:=/{name}" for topic, name in zip(topics, _NODE_TOPICS, strict=True)]
    return ["--ros-args", *(word for rule in rules for word in ("-r", rule))]


class _Child:
    """A process that ends with its block, and logs to a file."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait until a condition holds.

        Raises:
            LiveError: the process ended, or it took too long.
        """
        end = time.monotonic() + timeout_s
        while not condition():
            self.check_running()
            if time.monotonic() > end:
                raise LiveError(f"the {self.name} is not {what} after {timeout_s:g} s")
            time.sleep(0.05)

    def wait(self, timeout_s: float, needed: _Child, update: Callable[[], None]) -> None:
        """Wait until it has ended with code 0.

        Args:
            timeout_s: longest wait, s.
            needed: another process, which must not end before.
            update: called repeatedly meanwhile.

        Raises:
            LiveError: it failed, or took too long, or the other one ended.
        """
        end = time.monotonic() + timeout_s
        while (code := self._process.poll()) is None:
            needed.check_running()
            if time.monotonic() > end:
                raise LiveError(f"the {self.name} has not ended after {timeout_s:g} s")
            update()
            time.sleep(0.1)
        if code != 0:
            raise LiveError(f"the {self.name} ended with code {code}: {self._last_line()}")

    def check_running(self) -> None:
        if (code := self._process.poll()) is not None:
            raise LiveError(f"the {self.name} ended early, with code {code}: {self._last_line()}")

    def stop(self) -> None:
        """End it: by SIGINT, then SIGTERM, then SIGKILL."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            self._process.send_signal(number)
            try:
                self._process.wait(_STOP_WAIT_S)
            except subprocess.TimeoutExpired:
                continue

    def _last_line(self) -> str:
        lines = self.log().split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


@dataclass(frozen=True)
class LiveEstimate:
    """An estimate of a live run.

    Attributes:
        number: in the run's `RecordedEstimates`.
        reference, other: the frames that it is of.
        received: wall time at which it came, ns.
    """

    number: int
    reference: Played
    other: Played
    received: int


def read_run(run: Path) -> tuple[RecordedEstimates, list[LiveEstimate]]:
    """The recorded estimates of a live run, and of which frames they are, in order of the frames.

    Args:
        run: folder with the recorder's recording/ and the player's player.jsonl.

    Raises:
        LiveError: there is no player's log, or an estimate is of a frame that was not played.
        InputError: the recording is missing or damaged.
    """
    played = {frame.stamp_ns: frame for frame in read_player_log(run)}
    estimates = open_estimates(run / RECORDING)
    found = []
    for number, estimate in enumerate(estimates):
        scene_flow = estimate.scene_flow
        reference, other = played.get(scene_flow.stamp), played.get(scene_flow.other_stamp)
        if reference is None or other is None:
            raise LiveError(
                f"{run / RECORDING}: the estimate at {scene_flow.stamp} ns is of a frame that was never played"
            )
        found.append(LiveEstimate(number, reference, other, estimate.received))
    return estimates, sorted(found, key=lambda e: (e.reference.index, e.other.index))


def read_player_log(out: Path) -> list[Played]:
    """What the player published, in order.

    Raises:
        LiveError: its log is missing or damaged.
    """
    file = out / PLAYER_LOG
    try:
        return [Played(**json.loads(line)) for line in file.read_text().splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise LiveError(f"{file}: {error}, expected the player's log") from None


def node_values(out: Path) -> dict[str, str]:
    """Values of the node's last diagnostics by key: estimator, engine and counts.

    Raises:
        InputError: the recorder's summary is missing or damaged.
    """
    diagnostics = read_summary(out / RECORDING)["diagnostics"]
    found = (status for name, status in diagnostics.items() if name.endswith("scene flow"))
    return next((status["values"] for status in found), {})


def mean_rate_hz(times_ns: Sequence[int]) -> float | None:
    """Mean rate of sorted times, ns; None for fewer than two, or without time between them."""
    if len(times_ns) < 2 or times_ns[-1] == times_ns[0]:
        return None
    return (len(times_ns) - 1) * 1e9 / (times_ns[-1] - times_ns[0])
