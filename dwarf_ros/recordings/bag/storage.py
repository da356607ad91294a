"""Access to rosbag2 files without ROS: which files are one, their topics, and their messages."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dwarf_ros.recordings.scene_flow_messages import SCENE_FLOW_TYPE, scene_flow_definition
from dwarf_ros.types import InputError

MESSAGE_TYPES = {
    "image": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "camera_info": "sensor_msgs/msg/CameraInfo",
    "tf": "tf2_msgs/msg/TFMessage",
}
TF_TOPIC = "/tf"

_KEPT_MESSAGES = 6
# Farther ahead in log time, ns, an index is faster than reading on.
_READ_ON = 2_000_000_000
_STORAGE_SUFFIXES = (".mcap", ".db3")


def is_bag(source: Path) -> bool:
    """Whether a path is a rosbag2 folder, or one of its .mcap or .db3 files."""
    source = Path(source)
    try:
        if not source.is_dir():
            return source.suffix in _STORAGE_SUFFIXES
        if storage_files(source):
            return True
        with (source / "metadata.yaml").open("rb") as file:
            return b"rosbag2_bagfile_information" in file.read(4096)
    except OSError:
        return False


def storage_files(folder: Path) -> list[Path]:
    """The .mcap and .db3 files of a folder, those compressed as a whole too."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.name.removesuffix(".zstd").endswith(_STORAGE_SUFFIXES)
    )


def typestore() -> Any:
    """Definitions of the messages as in ROS 2 Jazzy; those used here have been the same in every ROS 2 since Foxy."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise InputError(
            "rosbags: not installed, expected `pip install rosbags` to read and write bags"
        ) from None
    return get_typestore(Stores.ROS2_JAZZY)


def register_scene_flow(store: Any, definition: str) -> None:
    """Add dwarf_ros/SceneFlow, as the text of its message file defines it, to the definitions of messages."""
    from rosbags.typesys import get_types_from_msg

    types = get_types_from_msg(definition, SCENE_FLOW_TYPE)
    store.register({SCENE_FLOW_TYPE: types[SCENE_FLOW_TYPE]})


@contextlib.contextmanager
def _reading(bag: Path) -> Iterator[None]:
    """Damaged files show in the libraries as errors of every kind; to the user they are one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{bag}: {reason[:200] or type(error).__name__}, expected a whole rosbag2 recording"
        ) from None


MessageKey = tuple[str, int, int]
"""Where to find a message: its topic, log time and stamp, ns."""


@dataclass
class _Place:
    """Where reading has come to: a file without an index is read from its start for whatever is not read on."""

    ahead: Iterator[tuple[str, int, Any]] = field(default_factory=lambda: iter(()))
    topics: frozenset[str] = frozenset()
    log_time: int = -_READ_ON
    to_the_end: bool = False
    passed: deque[tuple[MessageKey, Any]] = field(
        default_factory=lambda: deque(maxlen=_KEPT_MESSAGES)
    )


def _close(reader: Any, place: _Place) -> None:
    # SQLite does not close what is still being read.
    place.ahead = iter(())
    reader.close()


class Storage:
    """An open bag. Several threads may read; what was passed last is kept, which is enough to read on frame by frame."""

    def __init__(self, path: Path) -> None:
        self.store = typestore()
        from rosbags.interfaces import MessageDefinitionFormat
        from rosbags.rosbag2 import Reader

        self.path = path
        self._lock = threading.Lock()
        self._place = _Place()
        with _reading(path):
            self._reader = Reader(_readable(path))
            self._reader.open()
            for connection in self._reader.connections:
                if connection.msgtype == SCENE_FLOW_TYPE:
                    # The bag's own definition, where it has one, may be of another version.
                    own = connection.msgdef
                    known = own.format is MessageDefinitionFormat.MSG and own.data
                    register_scene_flow(self.store, known or scene_flow_definition())
                    break
        self.close = weakref.finalize(self, _close, self._reader, self._place)

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.path,)

    @property
    def types(self) -> dict[str, str]:
        """Type of each topic; of those under one name, the first."""
        return {c.topic: c.msgtype for c in reversed(self._reader.connections)}

    @property
    def counts(self) -> dict[str, int]:
        """How many messages each topic has."""
        counts: dict[str, int] = {}
        for connection in self._reader.connections:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return counts

    @property
    def times(self) -> tuple[int, int]:
        """Log times of the first and the last message, ns; 0 and 0 where there is none."""
        if self._reader.message_count == 0:
            return 0, 0
        return self._reader.start_time, self._reader.end_time - 1

    def messages(
        self, topics: Sequence[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, Any]]:
        """Topic, log time in ns and content of the messages of some topics, in order of log time.

        Raises:
            InputError: the file is damaged.
        """
        types = self.types
        connections = [
            c for c in self._reader.connections if c.topic in topics and c.msgtype == types[c.topic]
        ]
        if not connections:
            return
        with _reading(self.path):
            for connection, log_time, raw in self._reader.messages(connections, start, stop):
                message = self.store.deserialize_cdr(raw, connection.msgtype)
                yield connection.topic, log_time, message

    def find(self, wanted: Sequence[MessageKey]) -> list[Any]:
        """The messages at some places.

        Raises:
            InputError: the file is damaged, or changed since its messages were counted.
        """
        topics = frozenset(topic for topic, _, _ in wanted)
        place = self._place
        with self._lock:
            found = {key: message for key, message in place.passed if key in wanted}
            for attempt in range(2):
                missing = [key[1] for key in wanted if key not in found]
                if not missing:
                    break
                first, last = min(missing), max(missing)
                follows = (
                    place.topics == topics and place.log_time <= first <= place.log_time + _READ_ON
                )
                if attempt or not follows or not place.to_the_end:
                    # From where reading was, for a thread may yet ask for what lies between.
                    window = (place.log_time, None) if follows else (first, last + 1)
                    place.ahead = self.messages(sorted(topics), *window)
                    place.topics, place.to_the_end = topics, follows
                for topic, log_time, message in place.ahead:
                    key = (topic, log_time, header_stamp(message))
                    place.log_time = log_time
                    place.passed.append((key, message))
                    if key in wanted:
                        found.setdefault(key, message)
                    if len(found) == len(wanted) or log_time > last:
                        break
        try:
            return [found[key] for key in wanted]
        except KeyError as error:
            topic, _, stamp = error.args[0]
            raise InputError(
                f"{self.path}: no message on {topic} at {stamp} ns any more, expected a bag that nothing writes to"
            ) from None


def _readable(path: Path) -> Path:
    """The folder or file for the library to open."""
    if not path.exists():
        raise InputError(f"{path}: no such bag, expected a rosbag2 folder, .mcap or .db3 file")
    if not path.is_dir() or (path / "metadata.yaml").is_file():
        if not is_bag(path):
            raise InputError(f"{path}: not a bag, expected a rosbag2 folder, .mcap or .db3 file")
        return path
    files = storage_files(path)
    if not files:
        raise InputError(f"{path}: not a bag, expected metadata.yaml and .mcap or .db3 files in it")
    if len(files) > 1:
        raise InputError(
            f"{path}: no metadata.yaml for its {len(files)} files, expected one (`ros2 bag reindex` writes it)"
        )
    return files[0]


def header_stamp(message: Any) -> int:
    """Stamp of a message's header, ns."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
