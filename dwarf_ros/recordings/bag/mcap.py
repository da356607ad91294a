"""Reading .mcap files, whole or damaged, indexed or not (specification: mcap.dev/spec)."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dwarf_ros.types import InputError

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK = 0x02, 0x03, 0x04, 0x05, 0x06
_CHUNK_INDEX, _STATISTICS, _DATA_END = 0x08, 0x0B, 0x0F
_FOOTER_SIZE = 9 + 20 + len(_MAGIC)
_LARGEST_SUMMARY = 1 << 28
_LARGEST_CHUNK = 1 << 31
# Messages outside of chunks are read in blocks of about this size.
_BLOCK = 1 << 20
_LAST_TIME = (1 << 63) - 1


@dataclass(frozen=True)
class Channel:
    """Messages of one type under one topic.

    Attributes:
        topic, type: as in the bag.
        encoding: of its messages; "cdr" is ROS 2's.
        definition: of the type, in the syntax of .msg files; "" where the bag has none.
    """

    topic: str
    type: str
    encoding: str = "cdr"
    definition: str = ""


@dataclass
class _Block:
    """A chunk, or a stretch of messages outside of chunks: log times, ns, and place in the file, bytes."""

    start: int
    end: int
    offset: int
    length: int
    is_chunk: bool


class _Damaged(Exception):
    """What is wrong with a part of the file."""


class McapFile:
    """An open .mcap file. Without a usable index the file is read once from start to end.

    Attributes:
        channels: by number.
        counts: messages of each channel.
        damage: what could not be read, a sentence each; grows while messages are read.

    Raises:
        InputError: it is no .mcap file.
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        self.counts: Counter[int] = Counter()
        self.damage: list[str] = []
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._blocks: list[_Block] = []
        self._file = path.open("rb")
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            if self._size == 0:
                raise InputError(f"{path}: empty file, expected an .mcap file")
            if os.pread(self._file.fileno(), 8, 0) != _MAGIC:
                raise InputError(f"{path}: does not start as an .mcap file, expected one")
            if not self._read_summary():
                self._scan()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def times(self) -> tuple[int, int] | None:
        """Log times of the first and the last message, ns; None where there is none."""
        if not self._blocks:
            return None
        return min(b.start for b in self._blocks), max(b.end for b in self._blocks)

    def messages(
        self, channels: Collection[int], start: int = 0, stop: int = _LAST_TIME
    ) -> Iterator[tuple[int, int, bytes]]:
        """Log time in ns, channel and content of the messages of some channels, in order of log time, stop excluded."""
        blocks = sorted(
            (block for block in self._blocks if block.start < stop and block.end >= start),
            key=lambda block: block.start,
        )
        pending: list[tuple[int, int, int, bytes]] = []
        order = itertools.count()
        for block in blocks:
            while pending and pending[0][0] <= block.start:
                log_time, _, channel, data = heapq.heappop(pending)
                yield log_time, channel, data
            for channel, log_time, body in self._messages_of(block):
                if channel in channels and start <= log_time < stop:
                    heapq.heappush(pending, (log_time, next(order), channel, bytes(body)))
        while pending:
            log_time, _, channel, data = heapq.heappop(pending)
            yield log_time, channel, data

    def _messages_of(self, block: _Block) -> Iterator[tuple[int, int, memoryview]]:
        try:
            content = self._read(block.offset, block.length)
            records = self._chunk(content) if block.is_chunk else content
            for opcode, body in _records(records):
                if opcode == _MESSAGE:
                    yield _message(body)
        except _Damaged as error:
            self._note(f"{self.path.name}: {error} in the messages at byte {block.offset}")

    def _note(self, sentence: str) -> None:
        if sentence not in self.damage:
            self.damage.append(sentence)

    def _read(self, offset: int, length: int) -> memoryview:
        data = os.pread(self._file.fileno(), length, offset)
        if len(data) < length:
            raise _Damaged("end of file")
        return memoryview(data)

    def _read_summary(self) -> bool:
        """Whether the summary at the file's end tells all channels, counts and chunks."""
        if self._size < len(_MAGIC) + _FOOTER_SIZE:
            return False
        end = self._size - _FOOTER_SIZE
        footer = self._read(end, _FOOTER_SIZE)
        start = struct.unpack_from("<Q", footer, 9)[0]
        if footer[-8:] != _MAGIC or footer[0] != _FOOTER or start == 0:
            return False
        counts: dict[int, int] = {}
        total = chunks = -1
        try:
            if not len(_MAGIC) <= start < end or end - start > _LARGEST_SUMMARY:
                raise _Damaged("place of the summary is wrong")
            for opcode, body in _records(self._read(start, end - start)):
                if opcode in (_SCHEMA, _CHANNEL):
                    self._define(opcode, body)
                elif opcode == _CHUNK_INDEX:
                    first, last, offset, length = struct.unpack_from("<QQQQ", body)
                    if offset + length > start or length < 9 or not first <= last < _LAST_TIME:
                        raise _Damaged("place of a chunk is wrong")
                    self._blocks.append(_Block(first, last, offset + 9, length - 9, is_chunk=True))
                elif opcode == _STATISTICS:
                    total, chunks = struct.unpack_from("<Q18xI", body)
                    size = struct.unpack_from("<I", body, 42)[0]
                    counts = dict(struct.iter_unpack("<HQ", body[46 : 46 + size]))
        except (_Damaged, struct.error):
            self._note(f"{self.path.name}: its index is damaged")
        else:
            self.counts.update(counts)
            known = all(channel in self.channels for channel in counts)
            complete = chunks == len(self._blocks) and sum(counts.values()) == total
            if known and complete and (total == 0 or self._blocks):
                return True
        self.channels.clear()
        self._schemas.clear()
        self.counts.clear()
        self._blocks.clear()
        return False

    def _scan(self) -> None:
        """Read the file from its start as far as it is whole."""
        position, opcode = len(_MAGIC), 0
        loose: _Block | None = None
        try:
            while opcode not in (_DATA_END, _FOOTER):
                opcode, length = struct.unpack("<BQ", self._read(position, 9))
                content = position + 9
                position = content + length
                if opcode == _CHUNK:
                    loose = None
                    self._scan_chunk(content, min(length, self._size - content))
                if position > self._size:
                    raise _Damaged("end of file")
                if opcode in (_SCHEMA, _CHANNEL):
                    with contextlib.suppress(_Damaged):
                        self._define(opcode, self._read(content, length))
                elif opcode == _MESSAGE and length >= 22:
                    channel, log_time = struct.unpack("<H4xQ", self._read(content, 14))
                    if log_time >= _LAST_TIME:
                        continue
                    self.counts[channel] += 1
                    if loose is None or loose.length > _BLOCK:
                        loose = _Block(log_time, log_time, content - 9, 0, is_chunk=False)
                        self._blocks.append(loose)
                    loose.length = position - loose.offset
                    loose.start = min(loose.start, log_time)
                    loose.end = max(loose.end, log_time)
        except _Damaged:
            self._note(
                f"{self.path.name}: ends after {self._size} bytes without its end record; what is whole is read "
                "(`mcap recover` makes a whole file of it)"
            )

    def _scan_chunk(self, offset: int, length: int) -> None:
        times = []
        try:
            for opcode, body in _records(self._chunk(self._read(offset, length))):
                if opcode in (_SCHEMA, _CHANNEL):
                    self._define(opcode, body)
                elif opcode == _MESSAGE:
                    channel, log_time, _ = _message(body)
                    self.counts[channel] += 1
                    times.append(log_time)
        except _Damaged as error:
            self._note(f"{self.path.name}: {error} in the messages at byte {offset}")
        if times:
            self._blocks.append(_Block(min(times), max(times), offset, length, is_chunk=True))

    def _chunk(self, content: memoryview) -> memoryview:
        """The records of a chunk, decompressed; of one that is cut off, as many as there are."""
        try:
            size, crc, name_length = struct.unpack_from("<16xQII", content)
            name = bytes(content[32 : 32 + name_length])
            (stored,) = struct.unpack_from("<Q", content, 32 + name_length)
        except struct.error:
            raise _Damaged("end of file") from None
        if size > _LARGEST_CHUNK:
            raise _Damaged(f"chunk of {size} bytes")
        data = content[40 + name_length :][:stored]
        records = memoryview(_decompress(bytes(data), name, size) if name else data)
        if len(data) == stored and (len(records) != size or (crc and zlib.crc32(records) != crc)):
            raise _Damaged("wrong check sum")
        return records

    def _define(self, opcode: int, body: memoryview) -> None:
        """Take up a schema or a channel; both may be repeated."""
        try:
            (number,) = struct.unpack_from("<H", body)
            if opcode == _SCHEMA:
                name, position = _text(body, 2)
                encoding, position = _text(body, position)
                definition, _ = _text(body, position)
                self._schemas[number] = name, encoding, definition
                return
            (schema,) = struct.unpack_from("<H", body, 2)
            topic, position = _text(body, 4)
            encoding, _ = _text(body, position)
        except (struct.error, UnicodeDecodeError):
            raise _Damaged("damaged record") from None
        if schema and schema not in self._schemas:
            raise _Damaged("channel without its schema")
        kind, syntax, definition = self._schemas.get(schema, ("", "", ""))
        self.channels[number] = Channel(
            topic, kind, encoding, definition if syntax == "ros2msg" else ""
        )


def _records(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Opcode and content of each record."""
    position = 0
    while position < len(data):
        if position + 9 > len(data):
            raise _Damaged("end of data")
        opcode, length = struct.unpack_from("<BQ", data, position)
        position += 9
        if length > len(data) - position:
            raise _Damaged("end of data")
        yield opcode, data[position : position + length]
        position += length


def _message(body: memoryview) -> tuple[int, int, memoryview]:
    """Channel, log time and content of a message."""
    if len(body) < 22:
        raise _Damaged("message without a header")
    channel, log_time = struct.unpack_from("<H4xQ", body)
    if log_time >= _LAST_TIME:
        raise _Damaged(f"log time {log_time} ns")
    return channel, log_time, body[22:]


def _text(body: memoryview, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<I", body, position)
    end = position + 4 + length
    if end > len(body):
        raise struct.error("text is cut off")
    return bytes(body[position + 4 : end]).decode(), end


def zstd() -> Any:
    """Python's module for Zstandard, part of it since 3.14."""
    if sys.version_info >= (3, 14):
        from compression import zstd as module
    else:
        from backports import zstd as module
    return module


def _decompress(data: bytes, name: bytes, size: int) -> bytes:
    """At most `size` bytes; fewer where the data is cut off."""
    if name == b"zstd":
        decompressor = zstd().ZstdDecompressor()
    elif name == b"lz4":
        from lz4.frame import LZ4FrameDecompressor

        decompressor = LZ4FrameDecompressor()
    else:
        raise _Damaged(f"unknown compression {name[:20]!r}")
    try:
        return decompressor.decompress(data, max_length=size)
    except Exception as error:  # each library has its own
        raise _Damaged(" ".join(str(error).split())[:80]) from None
