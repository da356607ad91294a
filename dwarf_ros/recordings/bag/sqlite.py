"""Reading .db3 files, rosbag2's databases, whole or damaged."""

from __future__ import annotations

import os
import sqlite3
from array import array
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from dwarf_ros.recordings.bag.mcap import Channel
from dwarf_ros.types import InputError

_LAST_TIME = (1 << 63) - 1


class SqliteFile:
    """An open .db3 file, with the attributes and methods of `McapFile`.

    Raises:
        InputError: it is no database of rosbag2.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.damage: list[str] = []
        # Quoted as bytes, for names with ? # % or of no valid UTF-8; the folder may be read-only.
        uri = f"file:{quote(os.fsencode(path.absolute()))}?immutable=1"
        try:
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise InputError(f"{path}: {_line(error)}, expected a database of rosbag2") from None
        self._database.text_factory = lambda text: text.decode(errors="replace")
        try:
            self._read_channels()
        except sqlite3.Error as error:
            self.close()
            raise InputError(f"{path}: {_line(error)}, expected a database of rosbag2") from None
        self._read_index()
        log = path.with_name(f"{path.name}-wal")
        if log.is_file() and log.stat().st_size:
            self.damage.append(
                f"{log.name}: its messages are not read (`sqlite3 {path.name} 'PRAGMA wal_checkpoint'` adds them)"
            )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @property
    def times(self) -> tuple[int, int] | None:
        """As of `McapFile`."""
        return (int(self._times[0]), int(self._times[-1])) if len(self._times) else None

    def messages(
        self, channels: Collection[int], start: int = 0, stop: int = _LAST_TIME
    ) -> Iterator[tuple[int, int, bytes]]:
        """As of `McapFile`."""
        first, last = np.searchsorted(self._times, [start, stop])
        for index in range(first, last):
            channel = int(self._topics[index])
            if channel not in channels:
                continue
            number = int(self._numbers[index])
            try:
                row = self._database.execute(
                    "SELECT data FROM messages WHERE id = ?", (number,)
                ).fetchone()
            except sqlite3.Error as error:
                self._note(f"{self.path.name}: {_line(error)} in message {number}")
                continue
            if row is None or not isinstance(row[0], bytes):
                self._note(f"{self.path.name}: no data in message {number}")
                continue
            yield int(self._times[index]), channel, row[0]

    def _note(self, sentence: str) -> None:
        if sentence not in self.damage:
            self.damage.append(sentence)

    def _read_channels(self) -> None:
        definitions: dict[str, str] = {}
        try:
            rows = self._database.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            definitions = {str(name): text for name, kind, text in rows if kind == "ros2msg"}
        except sqlite3.Error:
            pass  # older than Iron
        rows = self._database.execute("SELECT id, name, type, serialization_format FROM topics")
        for number, topic, kind, encoding in rows:
            definition = definitions.get(str(kind), "")
            self.channels[number] = Channel(str(topic), str(kind), str(encoding), str(definition))

    def _read_index(self) -> None:
        """Places of all messages, in order of log time; their data is left where it is."""
        numbers, topics, times = array("q"), array("q"), array("q")
        try:
            rows = self._database.execute("SELECT id, topic_id, timestamp FROM messages")
            for row in rows:
                if not all(isinstance(value, int) for value in row) or not 0 <= row[2] < _LAST_TIME:
                    self._note(f"{self.path.name}: message {row[0]} has no topic or time")
                    continue
                for column, value in zip((numbers, topics, times), row, strict=True):
                    column.append(value)
        except sqlite3.Error as error:
            self._note(f"{self.path.name}: {_line(error)} after {len(numbers)} messages")
        order = np.argsort(np.array(times, np.int64), kind="stable")
        self._numbers, self._topics, self._times = (
            np.array(column, np.int64)[order] for column in (numbers, topics, times)
        )
        self.counts.update(topics)


def _line(error: sqlite3.Error) -> str:
    """SQLite's message, which may quote the whole schema, in one line."""
    return " ".join(str(error).split())[:200]
