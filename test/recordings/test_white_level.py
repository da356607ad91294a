"""16-bit images that use fewer bits are scaled by the range in use, the same live and offline."""

from __future__ import annotations

import numpy as np
import pytest
from bag_fixtures import STAMPS, image, recording, write_bag

from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.white_level import FULL_RANGE, StreamWhiteLevel, white_level
from dwarf_ros.types import as_rgb8


def noise(bits: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, (40, 64), np.uint16)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_in_use_are_found(bits):
    assert white_level([noise(bits), noise(8)]) == (1 << bits) - 1
    assert white_level([noise(bits)[..., None].repeat(3, 2)]) == (1 << bits) - 1


def test_hot_pixels_and_8_bit_images_do_not_count():
    dark = np.full((400, 400), 900, np.uint16)
    dark[0, 0] = 65535
    assert white_level([dark]) == 1023
    assert white_level([np.zeros((4, 4), np.uint8)]) == FULL_RANGE


def test_a_stream_keeps_its_range_and_logs_it_once(caplog):
    caplog.set_level("INFO")
    level = StreamWhiteLevel()
    assert level.of(noise(12), noise(12, 1)) == 4095
    assert level.of(noise(8), noise(10)) == 4095
    assert level.of(noise(12, 2)) == 4095
    assert [r.message for r in caplog.records] == [
        "images: 16-bit pixels use 12 bits: 0 to 4095 is scaled to 8 bits"
    ]
    assert level.of(noise(14)) == 16383
    assert level.of(noise(12)) == 16383


def test_as_rgb8_scales_by_white():
    values = np.array([[0, 2047, 4095, 5000]], np.uint16)
    assert as_rgb8(values, white=4095)[0, :, 0].tolist() == [0, 127, 255, 255]
    full = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    assert (as_rgb8(full)[..., 0] == np.rint(full / 257)).all()


@pytest.mark.parametrize("bits", [12, 16])
def test_a_bag_of_12_bits_keeps_its_gray_levels(tmp_path, bits):
    pixels = np.linspace(0, (1 << bits) - 1, 20 * 32).astype(np.uint16).reshape(20, 32)
    messages = [
        (topic, time, image(time // 10**8 * 10**8, pixels, "mono16") if "image" in topic else m)
        for topic, time, m in recording(STAMPS)
    ]
    bag = open_recording(write_bag(tmp_path / "bag", messages))
    assert bag.read(0)[0].dtype == np.uint16
    for index in range(len(bag)):
        assert len(np.unique(bag[index].left)) == 256
