"""Access to rosbag2 files without ROS: which files are one, their topics, and their messages."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from dwarf_ros.recordings.bag.mcap import McapFile, zstd
from dwarf_ros.recordings.bag.sqlite import SqliteFile
from dwarf_ros.recordings.scene_flow_messages import SCENE_FLOW_TYPE, scene_flow_definition
from dwarf_ros.types import InputError

MESSAGE_TYPES = {
    "image": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "camera_info": "sensor_msgs/msg/CameraInfo",
    "tf": "tf2_msgs/msg/TFMessage",
}
TF_TOPIC = "/tf"

_log = logging.getLogger(__name__)

_KEPT_MESSAGES = 6
# Farther ahead in log time, ns, an index is faster than reading on.
_READ_ON = 2_000_000_000
_STORAGE_SUFFIXES = (".mcap", ".db3")
_COMPRESSED_SUFFIX = ".zstd"
_COMPRESSED_MESSAGE = b"\x28\xb5\x2f\xfd"
_LARGEST_METADATA = 1 << 24
_BLOCK = 1 << 20

_File: TypeAlias = McapFile | SqliteFile


def is_bag(source: Path) -> bool:
    """Whether a path is a rosbag2 folder, or one of its .mcap or .db3 files."""
    source = Path(source)
    try:
        if not source.is_dir():
            return _is_storage(source)
        if storage_files(source):
            return True
        with (source / "metadata.yaml").open("rb") as file:
            return b"rosbag2_bagfile_information" in file.read(4096)
    except OSError:
        return False


def storage_files(folder: Path) -> list[Path]:
    """The .mcap and .db3 files of a folder, those compressed as a whole too."""
    return sorted(file for file in folder.iterdir() if _is_storage(file))


def _is_storage(file: Path) -> bool:
    return file.name.removesuffix(_COMPRESSED_SUFFIX).endswith(_STORAGE_SUFFIXES)


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


def _close(files: list[_File], place: _Place) -> None:
    # SQLite does not close what is still being read.
    place.ahead = iter(())
    for file in files:
        file.close()


class Storage:
    """An open bag. Several threads may read; what was passed last is kept, which is enough to read on frame by frame.

    Of a damaged bag all that is whole is read.

    Raises:
        InputError: it is no bag, or nothing of it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.store = typestore()
        self.path = path
        self._lock = threading.Lock()
        self._place = _Place()
        self._lost: dict[str, set[int]] = {}
        with _reading(path):
            self._files, self._damage = _open_files(path)
            self.close = weakref.finalize(self, _close, self._files, self._place)
            for file in self._files:
                for channel in file.channels.values():
                    if channel.type == SCENE_FLOW_TYPE:
                        # The bag's own definition, where it has one, may be of another version.
                        register_scene_flow(
                            self.store, channel.definition or scene_flow_definition()
                        )
                        return

    def __reduce__(self) -> tuple[Any, ...]:
        return Storage, (self.path,)

    @property
    def types(self) -> dict[str, str]:
        """Type of each topic, with its encoding where that is not ROS 2's; of several under one name, the first."""
        types: dict[str, str] = {}
        for file in self._files:
            for channel in file.channels.values():
                kind = channel.type or "no type"
                known = kind if channel.encoding == "cdr" else f"{kind} ({channel.encoding})"
                types.setdefault(channel.topic, known)
        return types

    @property
    def counts(self) -> dict[str, int]:
        """How many messages each topic has."""
        counts: Counter[str] = Counter()
        for file in self._files:
            for number, channel in file.channels.items():
                counts[channel.topic] += file.counts[number]
        return counts

    @property
    def times(self) -> tuple[int, int]:
        """Log times of the first and the last message, ns; 0 and 0 where there is none."""
        spans = [span for file in self._files if (span := file.times) is not None]
        if not spans:
            return 0, 0
        return min(start for start, _ in spans), max(end for _, end in spans)

    @property
    def damage(self) -> list[str]:
        """What could not be read so far, a sentence each."""
        lost = [
            f"{len(times)} messages on {topic} cannot be read"
            for topic, times in self._lost.items()
        ]
        return [*self._damage, *(line for file in self._files for line in file.damage), *lost]

    def messages(
        self, topics: Sequence[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, Any]]:
        """Topic, log time in ns and content of the messages of some topics, in order of log time within each file.

        A message that is damaged is left out and counted in `damage`.

        Raises:
            InputError: the file cannot be read any more.
        """
        types = self.types
        window = {
            name: time for name, time in (("start", start), ("stop", stop)) if time is not None
        }
        with _reading(self.path):
            for file in self._files:
                channels = {
                    number: channel
                    for number, channel in file.channels.items()
                    if channel.topic in topics
                    and channel.encoding == "cdr"
                    and channel.type == types[channel.topic]
                }
                if not channels:
                    continue
                for log_time, number, raw in file.messages(channels, **window):
                    channel = channels[number]
                    try:
                        if raw.startswith(_COMPRESSED_MESSAGE):
                            raw = zstd().decompress(raw)
                        message = self.store.deserialize_cdr(raw, channel.type)
                    except Exception:  # the library has no error of its own for damaged messages
                        self._lost.setdefault(channel.topic, set()).add(log_time)
                        continue
                    yield channel.topic, log_time, message

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


def _open_files(path: Path) -> tuple[list[_File], list[str]]:
    """The files of a bag in order of time, and why others could not be opened."""
    paths, damage = _paths_of(path)
    files: list[_File] = []
    errors = []
    for file in paths:
        try:
            files.append(_open_file(file, damage))
        except (InputError, OSError) as error:
            errors.append(error)
    if not files:
        raise errors[0]
    damage += [str(error) for error in errors]
    return sorted(files, key=lambda file: file.times or (0, 0)), damage


def _open_file(path: Path, damage: list[str]) -> _File:
    if path.name.endswith(_COMPRESSED_SUFFIX):
        # The file stays open when the folder goes.
        with tempfile.TemporaryDirectory(prefix="dwarf_") as folder:
            _log.info("%s: decompressing it into a temporary folder", path)
            whole = Path(folder) / path.name.removesuffix(_COMPRESSED_SUFFIX)
            if not _decompress_file(path, whole):
                damage.append(f"{path.name}: its compressed data ends early; what is whole is read")
            try:
                return _open_file(whole, damage)
            except InputError as error:
                raise InputError(str(error).replace(str(whole), str(path))) from None
    return McapFile(path) if path.name.endswith(".mcap") else SqliteFile(path)


def _decompress_file(source: Path, target: Path) -> bool:
    """Decompress a file as far as it goes; whether all of it is there."""
    decompressor = zstd().ZstdDecompressor()
    try:
        with source.open("rb") as stream, target.open("wb") as out:
            while data := stream.read(_BLOCK):
                while data or not decompressor.needs_input:
                    if decompressor.eof:
                        decompressor = zstd().ZstdDecompressor()
                    out.write(decompressor.decompress(data, max_length=_BLOCK))
                    data = decompressor.unused_data if decompressor.eof else b""
    except zstd().ZstdError as error:
        raise InputError(
            f"{source}: {error}, expected a file that `zstd -d` can decompress"
        ) from None
    return decompressor.eof


def _paths_of(path: Path) -> tuple[list[Path], list[str]]:
    """The storage files of a bag, and what is wrong with the list of them."""
    if not path.exists():
        raise InputError(f"{path}: no such bag, expected a rosbag2 folder, .mcap or .db3 file")
    if not is_bag(path):
        raise InputError(f"{path}: not a bag, expected a rosbag2 folder, .mcap or .db3 file")
    if not path.is_dir():
        return [path], []
    files = storage_files(path)
    damage: list[str] = []
    metadata = path / "metadata.yaml"
    if metadata.is_file():
        names = _listed_files(metadata)
        if names:
            present = [path / name for name in names if (path / name).is_file()]
            missing = [name for name in names if not (path / name).is_file()]
            if not present:
                raise InputError(f"{path}: no {missing[0]}, expected it as metadata.yaml names it")
            return present, [
                f"{name}: no such file, but metadata.yaml names it" for name in missing
            ]
        damage.append("metadata.yaml: damaged; all files of the folder are read")
    if not files:
        raise InputError(f"{path}: no .mcap or .db3 file in it, expected one beside metadata.yaml")
    # A recorder that was killed leaves its split files, bag_0.mcap, bag_1.mcap, without metadata.
    series = {re.sub(r"_\d+(?=\.)", "", file.name) for file in files}
    if len(files) > 1 and (len(series) > 1 or any("_" not in file.stem for file in files)):
        raise InputError(
            f"{path}: no metadata.yaml for its {len(files)} files, expected one (`ros2 bag reindex` writes it)"
        )
    return files, damage


def _listed_files(metadata: Path) -> list[str]:
    """Names of the files that metadata.yaml lists; none where it is damaged."""
    import yaml

    try:
        if metadata.stat().st_size > _LARGEST_METADATA:
            return []
        content = yaml.safe_load(metadata.read_bytes())
        names = [
            Path(name).name
            for name in content["rosbag2_bagfile_information"]["relative_file_paths"]
        ]
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []
    return names if all(_is_storage(Path(name)) for name in names) else []


def header_stamp(message: Any) -> int:
    """Stamp of a message's header, ns."""
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
