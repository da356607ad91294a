"""Mutated files and messages: each reader returns a result or raises one InputError."""

from __future__ import annotations

import functools
import struct
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from bag_fixtures import STAMPS, STORE, camera_info, compressed, image, recording, write_bag
from bag_fixtures import write_mcap as write_mcap_file
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.formats import (
    read_disparity_png,
    read_flo,
    read_flow_png,
    read_image,
    read_pfm,
    write_disparity_png,
    write_flo,
    write_flow_png,
    write_pfm,
)
from dwarf_ros.recordings.bag.info import bag_info
from dwarf_ros.recordings.bag.open import open_bag
from dwarf_ros.recordings.calibration import load_calibration
from dwarf_ros.recordings.camera_messages import (
    camera_from_messages,
    image_from_compressed,
    image_from_message,
)
from dwarf_ros.types import InputError

KITTI = "".join(f"P{index}: 700 0 600 {-380.0 * index} 0 700 180 0 0 0 1 0\n" for index in range(2))
YAML = """image_width: 32
image_height: 20
camera_name: left
projection_matrix:
  rows: 3
  cols: 4
  data: [30.0, 0.0, 16.0, 0.0, 0.0, 30.0, 10.0, 0.0, 0.0, 0.0, 1.0, 0.0]
"""
PNG = b"\x89PNG\r\n\x1a\n"
NOISE = np.random.default_rng(0).integers(0, 256, (20, 32, 3), np.uint8)
SMOOTH = np.linspace(1, 60, 12 * 16, dtype=np.float32).reshape(12, 16)


def encoded(suffix: str) -> bytes:
    return cv2.imencode(suffix, NOISE)[1].tobytes()


def written(write: Callable[[Path, np.ndarray], None], values: np.ndarray) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(file := Path(folder) / "map", values)
        return file.read_bytes()


def bag_bytes(storage: str, **variant: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        messages = recording(STAMPS[:3])
        if storage == "mcap":
            return write_mcap_file(Path(folder) / "bag.mcap", messages, **variant).read_bytes()
        return (write_bag(Path(folder) / "bag", messages, storage) / "bag.db3").read_bytes()


def read_bag(path: Path) -> None:
    info = bag_info(path)
    try:
        bag = open_bag(path)
    except InputError:
        assert info.problems
        raise
    read = 0
    for index in range(len(bag)):
        try:
            left, right, _ = bag.read(index)
        except InputError:
            continue
        assert left.shape == right.shape
        read += 1
    # What `bag info` calls usable can be read.
    assert info.problems or read >= 2


def deserialized(read: Callable[[Any], Any], kind: str) -> Callable[[Path], None]:
    """Reader of a message as CDR; what is no CDR any more never reaches the package."""

    def read_message(path: Path) -> None:
        try:
            message = STORE.deserialize_cdr(path.read_bytes(), f"sensor_msgs/msg/{kind}")
        except Exception:  # the library's own
            return
        read(message)

    return read_message


def compressed_file(path: Path) -> None:
    image_from_compressed(SimpleNamespace(format="bgr8; png compressed", data=path.read_bytes()))


def serialized(message: Any) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def right_yaml(path: Path) -> None:
    path.with_name("right.yaml").write_text(YAML.replace("16.0, 0.0", "16.0, -9.0", 1))
    load_calibration(path, color=False)


CASES: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], Any]]] = {
    "PNG": ("x.png", lambda: encoded(".png"), read_image),
    "JPEG": ("x.jpg", lambda: encoded(".jpg"), read_image),
    "TIFF": ("x.tif", lambda: encoded(".tif"), read_image),
    "PPM": ("x.ppm", lambda: encoded(".ppm"), read_image),
    "disparity": (
        "x.png",
        lambda: written(lambda p, a: write_disparity_png(p, a), SMOOTH),
        read_disparity_png,
    ),
    "flow": (
        "x.png",
        lambda: written(write_flow_png, np.dstack([SMOOTH, SMOOTH])),
        read_flow_png,
    ),
    "PFM": ("x.pfm", lambda: written(write_pfm, SMOOTH), read_pfm),
    "flo": ("x.flo", lambda: written(write_flo, np.dstack([SMOOTH, SMOOTH])), read_flo),
    "calibration": ("calib.txt", KITTI.encode, lambda p: load_calibration(p, color=False)),
    "YAML": ("left.yaml", YAML.encode, right_yaml),
    "CameraInfo": (
        "x",
        lambda: serialized(camera_info(0, -9.0)),
        deserialized(lambda m: camera_from_messages(camera_info(0, 0.0), m), "CameraInfo"),
    ),
    "Image": (
        "x",
        lambda: serialized(image(0, NOISE, "rgb8")),
        deserialized(image_from_message, "Image"),
    ),
    "PNG as CompressedImage": ("x.png", lambda: encoded(".png"), compressed_file),
    "CompressedImage PNG": (
        "x",
        lambda: serialized(compressed(0, NOISE)),
        deserialized(image_from_compressed, "CompressedImage"),
    ),
    "CompressedImage JPEG": (
        "x",
        lambda: serialized(compressed(0, NOISE, "jpg")),
        deserialized(image_from_compressed, "CompressedImage"),
    ),
    "MCAP": ("bag.mcap", lambda: bag_bytes("mcap"), read_bag),
    "MCAP zstd": ("bag.mcap", lambda: bag_bytes("mcap", compression="zstd"), read_bag),
    "MCAP unindexed": (
        "bag.mcap",
        lambda: bag_bytes("mcap", per_chunk=0, summary=False),
        read_bag,
    ),
    "sqlite3": ("bag.db3", lambda: bag_bytes("sqlite3"), read_bag),
}


@functools.cache
def sample(name: str) -> bytes:
    return CASES[name][1]()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, overwritten, doubled or removed in places, near the ends more often."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 6)):
        size = len(changed)
        if size == 0:
            break
        place = int(rng.integers(size) if rng.random() < 0.6 else min(rng.integers(64), size - 1))
        length = int(rng.choice([1, 1, 1, 2, 4, 8, 64]))
        operation = rng.integers(6)
        if operation == 0:
            changed[place] ^= 1 << int(rng.integers(8))
        elif operation == 1:
            changed[place : place + length] = rng.bytes(min(length, size - place))
        elif operation == 2:
            value = int(rng.choice([0, 0x7F, 0x80, 0xFF]))
            changed[place : place + length] = bytes([value]) * min(length, size - place)
        elif operation == 3:
            del changed[place : place + length]
        elif operation == 4:
            changed[place:place] = changed[place : place + length]
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def repaired(data: bytes) -> bytes:
    """A PNG with the check sums of its chunks, so that more than these is tried."""
    result, position = bytearray(PNG), len(PNG)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        body = data[position + 4 : position + 8 + length]
        result += struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body))
        position += 12 + length
    return bytes(result)


def check(name: str, seed: int, folder: Path) -> None:
    """A result or one InputError of one line for one mutation."""
    file, _, read = CASES[name]
    path = folder / file
    rng = np.random.default_rng(seed)
    data = mutated(sample(name), rng)
    path.write_bytes(repaired(data) if data.startswith(PNG) and rng.random() < 0.7 else data)
    line = ""
    try:
        read(path)
    except InputError as error:
        line = str(error)
    assert "\n" not in line


@pytest.mark.parametrize("name", CASES)
def test_mutated_input_is_a_result_or_one_line(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")

    @given(st.integers(0, 2**32 - 1))
    @settings(derandomize=True, deadline=None, max_examples=25, database=None)
    def run(seed: int) -> None:
        check(name, seed, folder)

    run()


@pytest.mark.parametrize("name", CASES)
def test_unchanged_input_is_read(name, tmp_path):
    path = tmp_path / CASES[name][0]
    path.write_bytes(sample(name))
    CASES[name][2](path)
