"""Curves and pictures of a training for TensorBoard, whatever the backend.

tensorboardX writes them: it is small, needs neither TensorFlow nor Torch, and so serves both backends with one code. Where it is
not installed there is the log alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np


class EventFile:
    """What TensorBoard reads of a run: `events.out.tfevents.*` in its folder.

    Args:
        folder: of the run; exists.
        step: the last step done before; TensorBoard forgets what other files of the folder tell of later ones.

    Raises:
        OSError: a file cannot be written, here and in all that follows.
        ImportError: tensorboardX is not installed.
    """

    def __init__(self, folder: Path, step: int) -> None:
        # Not its SummaryWriter: that writes from a thread, which a full disk would leave waiting for good.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        self._writer = EventsWriter(str(folder / "events"), f".step-{step}")
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each curve."""
        self._add(step, [self._summary.Value(tag=tag, simple_value=v) for tag, v in values.items()])

    def picture(self, step: int, tag: str, image: np.ndarray) -> None:
        """Add a picture, uint8 RGB."""
        encoded = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()
        height, width = image.shape[:2]
        picture = self._summary.Image(
            encoded_image_string=encoded, height=height, width=width, colorspace=3
        )
        self._add(step, [self._summary.Value(tag=tag, image=picture)])

    def flush(self) -> None:
        """Have on disk what was added."""
        self._writer.flush()

    def close(self) -> None:
        """Have all on disk; nothing can be added any more."""
        self._writer.close()

    def _add(self, step: int, values: list[Any]) -> None:
        self._write(step, summary=self._summary(value=values))

    def _write(self, step: int, **content: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, **content))
