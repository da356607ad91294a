"""Compressed images whose headers lie or whose data is damaged."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from dwarf_ros.recordings.camera_messages import compressed_image_size, image_from_compressed
from dwarf_ros.types import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 32, 3), np.uint8)


def message(data: bytes) -> SimpleNamespace:
    return SimpleNamespace(format="bgr8; png compressed bgr8", data=data)


def with_size(width: int, height: int) -> bytes:
    """A PNG with another size in its header, its check sum included."""
    data = bytearray(cv2.imencode(".png", PIXELS)[1].tobytes())
    struct.pack_into(">II", data, 16, width, height)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.parametrize("size", [(8000, 8000), (33, 20), (32, 200), (1 << 20, 1 << 20), (0, 20)])
def test_a_png_with_a_lying_header_is_one_line(size):
    with pytest.raises(InputError) as raised:
        image_from_compressed(message(with_size(*size)), "/left")
    assert str(raised.value).startswith("/left: ")
    assert "\n" not in str(raised.value)


def test_a_jpeg_with_a_lying_header_takes_no_memory():
    data = bytearray(cv2.imencode(".jpg", PIXELS)[1].tobytes())
    place = data.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", data, place, 8000, 8000)
    with pytest.raises(InputError, match="header says 8000 x 8000 px"):
        image_from_compressed(message(bytes(data)))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_an_image_that_is_cut_short_is_no_image(suffix, capfd):
    data = cv2.imencode(suffix, PIXELS)[1].tobytes()
    assert image_from_compressed(message(data)).shape == PIXELS.shape
    for length in (len(data) - 2, len(data) // 2, 30):
        with pytest.raises(InputError, match="/left: "):
            image_from_compressed(message(data[:length]), "/left")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_what_compresses_best_is_not_taken_for_a_lie(suffix):
    data = cv2.imencode(suffix, np.zeros((2000, 3000), np.uint8))[1].tobytes()
    assert compressed_image_size(data) == (3000, 2000)
    assert image_from_compressed(message(data)).shape == (2000, 3000)
