"""Stereo recordings and bags for tests."""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from dwarf_ros.recordings.bag.mcap import zstd
from dwarf_ros.types import StereoCamera

STORE = get_typestore(Stores.ROS2_JAZZY)
CAMERA = StereoCamera(
    fx=30.0, fy=31.0, cx=15.5, cy=9.5, cx_right=16.25, baseline=0.3, width=32, height=20
)
MS = 1_000_000
S = 1_000_000_000
START = 1_700_000_000 * S
STORAGES = ("mcap", "sqlite3")
TOPICS = ("left/image_rect", "right/image_rect", "left/camera_info", "right/camera_info")


@dataclass
class Source:
    """Frames of noise."""

    kind: str = "rgb8"
    count: int = 5
    camera: StereoCamera = CAMERA
    first: int = START
    poses: np.ndarray | None = None
    frame_id: str = "eye"

    @property
    def stamps(self) -> list[int]:
        return [self.first + 100 * MS * i for i in range(self.count)]

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        dtype = np.uint16 if self.kind.endswith("16") else np.uint8
        shape = (2, self.camera.height, self.camera.width, 3)[: 4 if "rgb" in self.kind else 3]
        left, right = np.random.default_rng(index).integers(0, np.iinfo(dtype).max, shape, dtype)
        return left, right, self.camera


def header(stamp: int, frame_id: str = "eye") -> Any:
    time = STORE.types["builtin_interfaces/msg/Time"](*divmod(stamp, S))
    return STORE.types["std_msgs/msg/Header"](time, frame_id)


def image(
    stamp: int, pixels: np.ndarray | None = None, encoding: str = "mono8", **fields: Any
) -> Any:
    if pixels is None:
        pixels = np.full((20, 32), stamp // MS % 251, np.uint8)
    values = {
        "header": header(stamp),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": pixels[0].nbytes,
        "data": np.frombuffer(pixels.tobytes(), np.uint8),
    }
    return STORE.types["sensor_msgs/msg/Image"](**{**values, **fields})


def camera_info(stamp: int, offset: float, width: int = 32) -> Any:
    roi = STORE.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    p = np.array([30.0, 0, 16, offset, 0, 30, 10, 0, 0, 0, 1, 0])
    return STORE.types["sensor_msgs/msg/CameraInfo"](
        header(stamp), 20, width, "plumb_bob", np.zeros(5), p[:9], p[:9], p, 0, 0, roi
    )


def write_bag(path: Path, messages: list[tuple[str, int, Any]], storage: str = "mcap") -> Path:
    """A bag of topics, log times in ns and messages, as any recorder might have made it."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    with Writer(path, version=8, storage_plugin=plugin) as writer:
        connections: dict[str, Any] = {}
        for topic, log_time, message in messages:
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], log_time, STORE.serialize_cdr(message, kind))
    return path


def recording(
    stamps: list[int], late: int = 0, prefix: str = "", delay: int = 5 * MS
) -> list[tuple[str, int, Any]]:
    """Messages of a stereo camera; the right images' stamps are late by some ns, all are logged after a delay."""
    messages = []
    for number, stamp in enumerate(stamps):
        log_time = START + 100 * MS * number + delay
        messages += [
            (f"{prefix}/left/camera_info", log_time, camera_info(stamp, 0.0)),
            (f"{prefix}/right/camera_info", log_time, camera_info(stamp + late, -9.0)),
            (f"{prefix}/left/image_rect", log_time, image(stamp)),
            (f"{prefix}/right/image_rect", log_time + MS, image(stamp + late)),
        ]
    return messages


STAMPS = [START + 100 * MS * i for i in range(6)]


def compressed(stamp: int, pixels: np.ndarray, kind: str = "png", encoding: str = "bgr8") -> Any:
    data = cv2.imencode(f".{kind}", pixels)[1].reshape(-1)
    return STORE.types["sensor_msgs/msg/CompressedImage"](
        header(stamp), f"{encoding}; {kind} compressed {encoding}", data
    )


def write_mcap(
    path: Path,
    messages: list[tuple[str, int, Any]],
    per_chunk: int = 4,
    compression: str = "",
    profile: str = "ros2",
    message_index: bool = True,
    summary: bool = True,
    repeated: bool = True,
    foreign: Sequence[str] = (),
) -> Path:
    """An .mcap file of topics, log times in ns and messages.

    Args:
        path: the file.
        messages: what it holds.
        per_chunk: messages in each chunk; 0: no chunks, as `ros2 bag record --storage-preset-profile fastwrite` writes.
        compression: of the chunks.
        profile: in the header.
        message_index: whether each chunk has its message index.
        summary: whether there is one.
        repeated: whether schemas and channels are repeated in it.
        foreign: encodings of further channels with a message each, such as json.
    """
    topics = {topic: message.__msgtype__ for topic, _, message in messages}
    numbers = {topic: number for number, topic in enumerate(topics, start=1)}
    definitions = b"".join(
        _record(3, "<H", number, topics[topic], "ros2msg", STORE.generate_msgdef(topics[topic], ros_version=2)[0])
        + _record(4, "<HH", number, number, topic, "cdr", "")
        for topic, number in numbers.items()
    )  # fmt: skip
    data: list[tuple[int, int, bytes]] = [
        (numbers[topic], log_time, bytes(STORE.serialize_cdr(message, message.__msgtype__)))
        for topic, log_time, message in messages
    ]
    for number, encoding in enumerate(foreign, start=100):
        schema = "jsonschema" if encoding == "json" else encoding
        definitions += _record(3, "<H", number, f"my.{encoding}", schema, "{}")
        definitions += _record(4, "<HH", number, number, f"/my_{encoding}", encoding, "")
        data.append((number, data[0][1], b"{}"))
    file = bytearray(b"\x89MCAP0\r\n" + _record(1, "", profile, "test"))
    indices = b""
    if not per_chunk:
        file += definitions + b"".join(map(_message, data))
    for start in range(0, len(data), per_chunk) if per_chunk else ():
        part = data[start : start + per_chunk]
        records = (definitions if start == 0 else b"") + b"".join(map(_message, part))
        packed = {"": bytes, "zstd": zstd().compress, "lz4": lz4.frame.compress}[compression](
            records
        )
        times = [log_time for _, log_time, _ in part]
        chunk = _record(
            6, "<QQQI", min(times), max(times), len(records), zlib.crc32(records), compression,
            struct.pack("<Q", len(packed)) + packed,
        )  # fmt: skip
        place, offsets = len(file), b""
        file += chunk
        for number in sorted({number for number, _, _ in part}) if message_index else ():
            offsets += struct.pack("<HQ", number, len(file))
            entries = b"".join(struct.pack("<QQ", time, 0) for n, time, _ in part if n == number)
            file += _record(7, "<HI", number, len(entries), entries)
        indices += _record(
            8, "<QQQQI", min(times), max(times), place, len(chunk), len(offsets),
            offsets + struct.pack("<Q", len(file) - place - len(chunk)), compression,
            struct.pack("<QQ", len(packed), len(records)),
        )  # fmt: skip
    file += _record(15, "<I", 0)
    start = len(file) if summary else 0
    if summary:
        counts = Counter(number for number, _, _ in data)
        listed = b"".join(struct.pack("<HQ", *count) for count in sorted(counts.items()))
        times = [log_time for _, log_time, _ in data]
        file += (definitions if repeated else b"") + indices
        file += _record(
            11, "<QHIIIIQQI", len(data), len(counts), len(counts), 0, 0, (indices and -(-len(data) // per_chunk)) or 0,
            min(times), max(times), len(listed), listed,
        )  # fmt: skip
    path.write_bytes(file + _record(2, "<QQI", start, 0, 0) + b"\x89MCAP0\r\n")
    return path


def _record(opcode: int, layout: str, *values: Any) -> bytes:
    """A record of numbers in a layout of struct, then texts with their length, or bytes as they are."""
    count = sum(letter.isalpha() for letter in layout)
    body = struct.pack(layout, *values[:count])
    for value in values[count:]:
        text = value.encode() if isinstance(value, str) else value
        body += struct.pack("<I", len(text)) + text if isinstance(value, str) else text
    return struct.pack("<BQ", opcode, len(body)) + body


def _message(data: tuple[int, int, bytes]) -> bytes:
    number, log_time, content = data
    return _record(5, "<HIQQ", number, 0, log_time, log_time, content)
