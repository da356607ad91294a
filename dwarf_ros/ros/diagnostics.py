"""What the live node counts, and how it says so on /diagnostics and in its last log line."""

from __future__ import annotations

import statistics
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dwarf_ros.ros.messages import stamp_from_ns

BUSY = "busy"
NO_SUBSCRIBER = "no subscriber"
FAILED = "failed"
STOPPED = "stopped"


@dataclass(eq=False)
class Statistics:
    """Counts of consecutive stereo pairs since the node started; for any thread.

    Attributes:
        accepted: complete pairs handed to the worker; each is answered or dropped in the end.
        answered: pairs that were estimated and published.
        dropped: accepted pairs that were not answered, by cause.
        last_error: one line, empty while nothing failed.
        failing: whether the last pair that the worker took failed.
        latencies_s: from the arrival of a pair's last image until its answer was published, s; the last ones.
    """

    accepted: int = 0
    answered: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    last_error: str = ""
    failing: bool = False
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=200))
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def accept(self) -> None:
        """A pair was handed to the worker."""
        with self._lock:
            self.accepted += 1

    def answer(self, latency_s: float) -> None:
        """A pair was published, latency_s after its last image had come."""
        with self._lock:
            self.answered += 1
            self.failing = False
            self.latencies_s.append(latency_s)

    def drop(self, cause: str) -> None:
        """An accepted pair will not be answered."""
        with self._lock:
            self.dropped[cause] += 1

    def fail(self, error: str) -> None:
        """An accepted pair could not be answered because of an error, one line."""
        with self._lock:
            self.dropped[FAILED] += 1
            self.failing = True
            self.last_error = error

    def median_latency_s(self) -> float | None:
        """Median of the last latencies, s; None before the first answer."""
        with self._lock:
            return statistics.median(self.latencies_s) if self.latencies_s else None

    def summary(self, unpaired: Mapping[str, int]) -> str:
        """One line of everything counted; `unpaired` are the synchroniser's drops, which never became a pair."""
        with self._lock:
            line = f"accepted {self.accepted} pairs, answered {self.answered}, dropped {_listed(self.dropped)}"
        return f"{line}; not paired: {_listed(unpaired)}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {cause}" for cause, n in sorted(counts.items()) if n) or "none"


def diagnostics_message(
    node_name: str,
    stamp_ns: int,
    level: bytes,
    message: str,
    values: Mapping[str, object],
) -> DiagnosticArray:
    """One status of the node: a level of DiagnosticStatus, one line, and values by key."""
    status = DiagnosticStatus(
        level=level,
        name=f"{node_name}: scene flow",
        message=message,
        hardware_id="",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
    array = DiagnosticArray(status=[status])
    array.header.stamp = stamp_from_ns(stamp_ns)
    return array


def values_of(counted: Statistics, unpaired: Mapping[str, int]) -> dict[str, object]:
    """Key and value of every count: accepted, answered, dropped and not paired by cause, median latency, last error."""
    latency = counted.median_latency_s()
    return {
        "accepted": counted.accepted,
        "answered": counted.answered,
        **{f"dropped: {cause}": n for cause, n in sorted(counted.dropped.items())},
        **{f"not paired: {cause}": n for cause, n in sorted(unpaired.items()) if n},
        "median latency (ms)": "" if latency is None else f"{latency * 1e3:.1f}",
        "last error": counted.last_error,
    }
