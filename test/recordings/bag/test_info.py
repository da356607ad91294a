"""`bag info` and what opens a bag agree on whether it can be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bag_fixtures import (
    MS,
    STAMPS,
    START,
    S,
    camera_info,
    compressed,
    image,
    recording,
    write_bag,
)

from dwarf_ros.recordings.bag.info import bag_info
from dwarf_ros.recordings.bag.open import open_bag
from dwarf_ros.types import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (20, 32, 3), np.uint8)


def with_images(path: Path, *images: object) -> Path:
    """A bag with a compressed image for each of `images`, on both sides, a frame each."""
    messages = [m for m in recording(STAMPS[: len(images)]) if "camera_info" in m[0]]
    for number, message in enumerate(images):
        for side in ("left", "right"):
            topic = f"/{side}/image_rect/compressed"
            messages.append((topic, STAMPS[number] + 6 * MS, message))
    return write_bag(path, sorted(messages, key=lambda message: message[1]))


def other_encoding(path: Path) -> Path:
    messages = [
        (
            t,
            time,
            image(time // 10**8 * 10**8, np.zeros((20, 64), np.uint8), "yuv422_yuy2", width=32),
        )
        if "image" in t
        else (t, time, m)
        for t, time, m in recording(STAMPS)
    ]
    return write_bag(path, messages)


def h264(path: Path) -> Path:
    images = [compressed(stamp, NOISE) for stamp in STAMPS]
    for message in images:
        message.format = "h264"
        message.data = np.frombuffer(b"\0\0\0\1\x67" + bytes(50), np.uint8)
    return with_images(path, *images)


def damaged_data(path: Path) -> Path:
    images = [compressed(stamp, NOISE, "jpg") for stamp in STAMPS]
    for message in images:
        # The size is there, the picture is not.
        message.data = message.data[:-300]
    return with_images(path, *images)


UNUSABLE = {
    "encoding": (other_encoding, "encoding is 'yuv422_yuy2', expected one of mono8"),
    "h264": (h264, "data starts with 00000001, expected a JPEG or a PNG"),
    "equal stamps": (
        lambda path: write_bag(path, [(t, n, m) for n, (t, _, m) in enumerate(recording(STAMPS[:1]) * 3, START)]),
        "all 3 left images have one stamp",
    ),
    "slow": (
        lambda path: write_bag(path, recording([START + 2 * S * n for n in range(3)])),
        "no two consecutive frames within 1 s and of one calibration, the closest are 2.000 s apart",
    ),
    "one frame": (lambda path: write_bag(path, recording(STAMPS[:1])), "only one stereo frame"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNUSABLE)
def test_what_cannot_be_evaluated_is_not_called_usable(tmp_path, case):
    make, expected = UNUSABLE[case]
    path = make(tmp_path / "bag")
    info = bag_info(path)
    assert expected in info.problems[0]
    assert not info.node_can_use
    # The table of topics is there all the same.
    assert sum(topic.count for topic in info.topics) == 4 * info.left_images
    with pytest.raises(InputError):
        open_bag(path).pairs()


def test_pictures_that_cannot_be_decoded_are_found(tmp_path):
    path = damaged_data(tmp_path / "bag")
    assert "JPEG is cut short" in bag_info(path).problems[0]
    with pytest.raises(InputError, match="JPEG is cut short"):
        open_bag(path)


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path):
    images = [compressed(stamp, NOISE) for stamp in STAMPS]
    images[2].data = np.zeros(40, np.uint8)
    path = with_images(tmp_path / "bag", *images)
    info = bag_info(path)
    assert (info.frames, info.problems) == (5, ())
    assert "expected a JPEG or a PNG (1 of 6 pairs)" in info.unused[0]
    bag = open_bag(path)
    assert bag.stamps == STAMPS[:2] + STAMPS[3:]
    assert bag.topics == (
        "/left/image_rect",
        "/right/image_rect",
        "/left/camera_info",
        "/right/camera_info",
    )


def test_left_and_right_of_two_kinds_become_color(tmp_path):
    messages = [
        (t, time, image(STAMPS[0], NOISE, "rgb8") if t == "/right/image_rect" else m)
        for t, time, m in recording(STAMPS[:1])
    ]
    left, right, _ = open_bag(write_bag(tmp_path / "bag", messages)).read(0)
    assert left.shape == right.shape == (20, 32, 3)


def test_jitter_of_the_calibration_is_no_new_scene(tmp_path):
    messages = recording(STAMPS)
    for number, (topic, time, _) in enumerate(messages):
        if topic == "/right/camera_info":
            messages[number] = (topic, time, camera_info(START, -9.0 + 1e-5 * number))
    assert open_bag(write_bag(tmp_path / "bag", messages)).scenes == [0] * 6
