"""Counts, rates and latencies of the stereo pairs that the node handles."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from dwarf_ros.types import SceneFlow

BUSY = "busy"
FAILED = "failed"
NO_SUBSCRIBER = "no subscriber"
SKIPPED = "skipped"
STOPPED = "stopped"
WARMING_UP = "warming up"

WAIT, QUEUE, DECODE, NETWORK, ENCODE = "wait for partner", "queue", "decode", "network", "encode"
STAGES = (WAIT, QUEUE, DECODE, NETWORK, ENCODE)

_RATE_WINDOW_S = 5.0
_LATENCIES = 200


@dataclass(frozen=True)
class MotionSummary:
    """The camera's motion of one estimate, for diagnostics.

    Attributes:
        static_percent: pixels used that agree with it.
        speed: m/s.
        yaw_rate: turn about the camera's upward axis, to the left positive (REP-103), deg/s.
        reason: why there is no ego-motion, else empty.
    """

    static_percent: float = math.nan
    speed: float = math.nan
    yaw_rate: float = math.nan
    reason: str = ""

    @classmethod
    def of(cls, scene_flow: SceneFlow) -> MotionSummary:
        """The summary of an estimate."""
        ego_motion = scene_flow.ego_motion
        if ego_motion is None:
            return cls(reason="not computed: refine is none")
        if ego_motion.transform is None or scene_flow.dt == 0:
            return cls(reason=ego_motion.reason or "two frames of one time")
        # The pose of the other frame's camera in the reference's camera frame.
        pose = np.linalg.inv(ego_motion.transform)
        return cls(
            100 * ego_motion.static_fraction,
            float(np.linalg.norm(pose[:3, 3])) / abs(scene_flow.dt),
            float(np.degrees(np.arctan2(-pose[0, 2], pose[2, 2]))) / scene_flow.dt,
        )

    def values(self) -> dict[str, str]:
        """By key of /diagnostics; empty strings where unknown."""
        numbers = {
            "static pixels (%)": self.static_percent,
            "speed (m/s)": self.speed,
            "yaw rate (deg/s)": self.yaw_rate,
        }
        shown = {key: "" if math.isnan(n) else f"{n:.2f}" for key, n in numbers.items()}
        return shown | {"no ego-motion": self.reason}


@dataclass(eq=False)
class Statistics:
    """Counts of consecutive stereo pairs since the node started; thread-safe.

    Attributes:
        accepted: complete pairs handed to the worker; each is estimated or dropped in the end.
        estimated: pairs that were estimated and published.
        dropped: accepted pairs that were not estimated, by cause.
        last_error: one line, empty while nothing failed.
        failing: whether the last pair that the worker took failed.
        latencies_s: from the arrival of a pair's last image until its estimate was published, s; the last ones.
        stages_s: its parts by stage of `STAGES`, s; the last ones. The wait for the partner comes before it.
        motion: of the last estimate; None before the first.
        clock: monotonic time, s.
    """

    accepted: int = 0
    estimated: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    last_error: str = ""
    failing: bool = False
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    stages_s: dict[str, deque[float]] = field(
        default_factory=lambda: {stage: deque(maxlen=_LATENCIES) for stage in STAGES}
    )
    motion: MotionSummary | None = None
    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._started_s = self.clock()
        # Up to 1 kHz.
        self._times_s: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=5000))

    def tick(self, event: str) -> None:
        """Count an event for `rate_hz`."""
        with self._lock:
            self._times_s[event].append(self.clock())

    def accept(self) -> None:
        """A pair was handed to the worker."""
        self.tick("in")
        with self._lock:
            self.accepted += 1

    def estimate(self, latency_s: float, stages_s: Mapping[str, float]) -> None:
        """A pair was published, latency_s after its last image arrived."""
        self.tick("out")
        with self._lock:
            self.estimated += 1
            self.failing = False
            self.latencies_s.append(latency_s)
            for stage, seconds in stages_s.items():
                self.stages_s[stage].append(seconds)

    def drop(self, cause: str) -> None:
        """An accepted pair will not be estimated."""
        with self._lock:
            self.dropped[cause] += 1

    def fail(self, error: str) -> None:
        """An accepted pair could not be estimated because of an error, one line."""
        with self._lock:
            self.dropped[FAILED] += 1
            self.failing = True
            self.last_error = error

    def rate_hz(self, event: str) -> float:
        """Rate of an event over the last 5 s, Hz; "in" is pairs accepted, "out" pairs estimated."""
        now_s = self.clock()
        window_s = min(_RATE_WINDOW_S, now_s - self._started_s)
        with self._lock:
            times_s = self._times_s[event]
            while times_s and times_s[0] < now_s - _RATE_WINDOW_S:
                times_s.popleft()
            return len(times_s) / window_s if window_s > 0 else 0.0

    def latencies_ms(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile, ms, of the latency ("latency") and of each stage; empty before the first."""
        with self._lock:
            series = {"latency": list(self.latencies_s)} | {
                stage: list(seconds) for stage, seconds in self.stages_s.items()
            }
        return {
            name: (float(np.median(seconds)) * 1e3, float(np.percentile(seconds, 95)) * 1e3)
            for name, seconds in series.items()
            if seconds
        }

    def drops(self) -> dict[str, int]:
        """Accepted pairs that were not estimated, by cause."""
        with self._lock:
            return dict(sorted(self.dropped.items()))

    def summary(self, unpaired: Mapping[str, int]) -> str:
        """All counts in one line; `unpaired` are the synchronizer's drops, which never became a pair."""
        with self._lock:
            line = f"accepted {self.accepted} pairs, estimated {self.estimated}, dropped {listed(self.dropped)}"
        return f"{line}; not paired: {listed(unpaired)}"


def listed(counts: Mapping[str, int]) -> str:
    """Counts by cause as "2 gap, 1 no partner", or "none"."""
    return ", ".join(f"{n} {cause}" for cause, n in sorted(counts.items()) if n) or "none"


def values_of(counted: Statistics, unpaired: Mapping[str, int]) -> dict[str, object]:
    """Counts, rates, latencies and the last error, by their key on /diagnostics."""
    values: dict[str, object] = {
        "accepted": counted.accepted,
        "estimated": counted.estimated,
        **{f"dropped: {cause}": n for cause, n in counted.drops().items()},
        **{f"not paired: {cause}": n for cause, n in sorted(unpaired.items()) if n},
        "rate in (Hz)": f"{counted.rate_hz('in'):.1f}",
        "rate out (Hz)": f"{counted.rate_hz('out'):.1f}",
    }
    times_ms = counted.latencies_ms()
    for name in ("latency", *STAGES):
        median, p95 = (f"{ms:.1f}" for ms in times_ms[name]) if name in times_ms else ("", "")
        values[f"median {name} (ms)"] = median
        values[f"p95 {name} (ms)"] = p95
    motion = counted.motion or MotionSummary()
    return {**values, **motion.values(), "last error": counted.last_error}
