"""The log of a training run: JSON lines, and curves and images for TensorBoard on every backend.

tensorboardX writes the latter without TensorFlow or PyTorch. If it is not installed, only the JSON lines are written.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from dwarf_ros.files import refusing_unwritable, write_atomically
from dwarf_ros.formats import write_image


class RunLog:
    """Writes `config.yaml`, `log.jsonl`, `panels/` and TensorBoard's `events.out.tfevents.*` to the folder of a run.

    Log lines that a crash left after the last checkpoint are removed, and TensorBoard discards such points.

    Args:
        folder: created if missing.
        config: values of the configuration.
        step: the last step done.

    Raises:
        InputError: a file cannot be written, here and in all methods.
    """

    def __init__(self, folder: Path, config: dict[str, Any], step: int) -> None:
        self._folder, self._lines, self._events = folder, folder / "log.jsonl", None
        with refusing_unwritable(self._folder):
            folder.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(config, sort_keys=False)
            write_atomically(folder / "config.yaml", text.encode())
            lines = self._lines.read_bytes().splitlines() if self._lines.is_file() else []
            kept = [line for line in lines if _step_of(line) <= step]
            write_atomically(self._lines, b"".join(line + b"\n" for line in kept))
            try:
                # Not SummaryWriter: it writes from a thread, which a full disk would block forever.
                from tensorboardX.event_file_writer import EventsWriter
                from tensorboardX.proto import event_pb2, summary_pb2
            except ImportError:
                return
            self._event, self._summary = event_pb2.Event, summary_pb2.Summary
            self._events = EventsWriter(str(folder / "events"), f".step-{step}")
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write_event(step + 1, session_log=start)

    def scalars(self, step: int, values: dict[str, float], group: str) -> None:
        """Add a line to the log and a point to each curve; `group` names the curves' group."""
        with refusing_unwritable(self._folder):
            with self._lines.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"step": step, **values}) + "\n")
            if self._events is not None:
                points = [
                    self._summary.Value(tag=f"{group}/{name}", simple_value=value)
                    for name, value in values.items()
                ]
                self._write_event(step, summary=self._summary(value=points))

    def panel(self, step: int, image: np.ndarray) -> None:
        """Add a picture of the validation, uint8 RGB."""
        with refusing_unwritable(self._folder):
            panels = self._folder / "panels"
            panels.mkdir(exist_ok=True)
            write_image(panels / f"step-{step:08d}.png", image)
            if self._events is not None:
                encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
                height, width = image.shape[:2]
                picture = self._summary.Image(
                    encoded_image_string=encoded, height=height, width=width, colorspace=3
                )
                value = self._summary.Value(tag="validation/panel", image=picture)
                self._write_event(step, summary=self._summary(value=[value]))

    def flush(self) -> None:
        """Write buffered events to disk."""
        if self._events is not None:
            with refusing_unwritable(self._folder):
                self._events.flush()

    def close(self) -> None:
        """Write everything to disk; nothing can be added afterwards."""
        if self._events is not None:
            with refusing_unwritable(self._folder):
                self._events.close()

    def _write_event(self, step: int, **content: Any) -> None:
        assert self._events is not None
        self._events.write_event(self._event(wall_time=time.time(), step=step, **content))


def _step_of(line: bytes) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
