"""Pairs left with right images, and each stereo pair with the one before; independent of ROS.

The synchronizers of message_filters do not handle time that jumps back, and one message from the future makes them drop all
later ones. This one queues each side in order of arrival and remembers no more than it can match.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dwarf_ros.types import StereoCamera

Image = TypeVar("Image")

NO_PARTNER = "no partner"
DUPLICATE = "duplicate stamp"
TIME_JUMP = "time jumped back"
NO_CAMERA = "no calibration"
SIZE_MISMATCH = "size differs"
GAP = "gap"
RESTART = "camera changed"


@dataclass(frozen=True, eq=False)
class StereoPair(Generic[Image]):
    """A left and a right image of one instant, not decoded yet.

    Attributes:
        stamp: the left image's time, ns.
        left, right: the images as received.
        camera: the calibration in force when the pair was made.
    """

    stamp: int
    left: Image
    right: Image
    camera: StereoCamera


@dataclass(frozen=True, eq=False)
class ConsecutivePairs(Generic[Image]):
    """A stereo pair and the one before it; `previous.stamp < current.stamp`."""

    previous: StereoPair[Image]
    current: StereoPair[Image]


@dataclass(eq=False)
class _Entry(Generic[Image]):
    stamp: int
    size: tuple[int, int]
    image: Image


@dataclass(eq=False)
class _Side(Generic[Image]):
    """Images of one camera that wait for their partner, in order of arrival."""

    queue: deque[_Entry[Image]]
    newest: int | None = None
    matched: int | None = None
    intervals: deque[int] = field(default_factory=lambda: deque(maxlen=8))


@dataclass(eq=False)
class Synchronizer(Generic[Image]):
    """Pairs left with right by stamp, and each pair with the one before. For one thread.

    A left and a right image belong together if their stamps are equal, or differ by at most the tolerance and are nearest
    to each other; the difference stays under half the time between two frames, whatever the tolerance.

    Attributes:
        tolerance_s: largest difference of left and right stamps, s; 0: equal stamps only.
        queue_size: number of images of each side that wait for a partner, at least 1.
        max_frame_gap_s: stereo pairs farther apart in time are not paired with each other, s.
        camera: calibration of the images to come, None while unknown; set by `set_camera`.
        drops: how many images (no partner, duplicate), stereo pairs (no calibration, size differs) or steps from one
            stereo pair to the next (gap, time jumped back, camera changed) were lost, by cause.
        notices: cause and line of the last few events worth a log message; the reader clears them.
        last_difference_s: between the stamps of the last image and the nearest on the other side, s; None before any.
    """

    tolerance_s: float = 0.01
    queue_size: int = 10
    max_frame_gap_s: float = 1.0
    camera: StereoCamera | None = None
    drops: Counter[str] = field(default_factory=Counter)
    notices: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=8))
    last_difference_s: float | None = None

    def __post_init__(self) -> None:
        self._left: _Side[Image] = _Side(deque())
        self._right: _Side[Image] = _Side(deque())
        self._previous: StereoPair[Image] | None = None
        self._uncalibrated: tuple[_Entry[Image], _Entry[Image]] | None = None

    def set_camera(self, camera: StereoCamera | None) -> None:
        """Set the calibration; it also applies to a pair of images received just before."""
        self.camera = camera
        if camera is not None and self._uncalibrated is not None:
            (left, right), self._uncalibrated = self._uncalibrated, None
            self._pair(left, right)

    def add_left(
        self, stamp: int, size: tuple[int, int], image: Image
    ) -> ConsecutivePairs[Image] | None:
        """Add a left image with its stamp, ns, and (width, height), px; returns two stereo pairs once complete."""
        return self._add("left", _Entry(stamp, size, image))

    def add_right(
        self, stamp: int, size: tuple[int, int], image: Image
    ) -> ConsecutivePairs[Image] | None:
        """Add a right image, as `add_left`."""
        return self._add("right", _Entry(stamp, size, image))

    def is_losing_images(self) -> bool:
        """Whether the last image is half a frame or more away from the nearest on the other side."""
        if self.last_difference_s is None:
            return False
        closest_frames = min((*self._left.intervals, *self._right.intervals), default=0)
        return 0 < closest_frames <= round(self.last_difference_s * 2e9)

    def waiting(self) -> tuple[int, int]:
        """Numbers of left and right images that wait for a partner."""
        return len(self._left.queue), len(self._right.queue)

    def _add(self, name: str, entry: _Entry[Image]) -> ConsecutivePairs[Image] | None:
        own, other = (self._left, self._right) if name == "left" else (self._right, self._left)
        if entry.stamp in (own.newest, own.matched) or any(
            entry.stamp == waiting.stamp for waiting in own.queue
        ):
            self.drops[DUPLICATE] += 1
            return None
        if own.newest is not None and entry.stamp < own.newest:
            self._jump_back(name, own, entry.stamp)
        elif own.newest is not None:
            own.intervals.append(entry.stamp - own.newest)
        own.newest = entry.stamp

        partner = self._partner(entry, own, other)
        if partner is None:
            own.queue.append(entry)
            if len(own.queue) > self.queue_size:
                own.queue.popleft()
                self.drops[NO_PARTNER] += 1
            return None
        # Images that arrived before the partner would break the order of the pairs if matched later.
        while other.queue.popleft() is not partner:
            self.drops[NO_PARTNER] += 1
        self.drops[NO_PARTNER] += len(own.queue)
        own.queue.clear()
        own.matched, other.matched = entry.stamp, partner.stamp
        left, right = (entry, partner) if own is self._left else (partner, entry)
        return self._pair(left, right)

    def _jump_back(self, name: str, side: _Side[Image], stamp: int) -> None:
        assert side.newest is not None
        back_s = (side.newest - stamp) * 1e-9
        line = f"time of the {name} images jumped back by {back_s:.3f} s: restarting"
        self.notices.append((TIME_JUMP, line))
        kept = [waiting for waiting in side.queue if waiting.stamp < stamp]
        self.drops[NO_PARTNER] += len(side.queue) - len(kept)
        side.queue = deque(kept)
        side.intervals.clear()

    def _partner(
        self, entry: _Entry[Image], own: _Side[Image], other: _Side[Image]
    ) -> _Entry[Image] | None:
        if not other.queue:
            return None
        nearest = min(other.queue, key=lambda waiting: abs(waiting.stamp - entry.stamp))
        difference = abs(nearest.stamp - entry.stamp)
        self.last_difference_s = difference * 1e-9
        # Until the frame rate is known, only equal stamps are certain to belong together.
        closest_frames = min((*own.intervals, *other.intervals), default=0)
        tolerance = min(round(self.tolerance_s * 1e9), (closest_frames - 1) // 2)
        return nearest if difference <= max(tolerance, 0) else None

    def _pair(self, left: _Entry[Image], right: _Entry[Image]) -> ConsecutivePairs[Image] | None:
        previous, self._previous = self._previous, None
        if self._uncalibrated is not None:
            self.drops[NO_CAMERA] += 1
            self._uncalibrated = None
        if left.size != right.size:
            self.drops[SIZE_MISMATCH] += 1
            self._notice_size(left.size, "left images", right.size, "right images")
            return None
        if self.camera is None:
            self._uncalibrated = (left, right)
            return None
        if left.size != (self.camera.width, self.camera.height):
            self.drops[SIZE_MISMATCH] += 1
            calibrated = (self.camera.width, self.camera.height)
            self._notice_size(left.size, "images", calibrated, "calibration")
            return None
        current = StereoPair(left.stamp, left.image, right.image, self.camera)
        self._previous = current
        if previous is None:
            return None
        if current.stamp <= previous.stamp:
            self.drops[TIME_JUMP] += 1
            return None
        if not previous.camera.is_close(current.camera):
            self.drops[RESTART] += 1
            self.notices.append((RESTART, "image size or calibration changed: restarting"))
            return None
        gap_s = (current.stamp - previous.stamp) * 1e-9
        if gap_s > self.max_frame_gap_s:
            self.drops[GAP] += 1
            allowed = f"more than {self.max_frame_gap_s:g} s"
            line = f"{gap_s:.3f} s between two frames, {allowed}: restarting"
            self.notices.append((GAP, line))
            return None
        return ConsecutivePairs(previous, current)

    def _notice_size(
        self, size: tuple[int, int], name: str, other_size: tuple[int, int], other_name: str
    ) -> None:
        line = (
            f"{name} are {size[0]} x {size[1]} px but {other_name}: {other_size[0]} x {other_size[1]} px, "
            "expected one size"
        )
        self.notices.append((SIZE_MISMATCH, line))
