"""Bags written, looked into and read back; and what is wrong with a bag said in one line."""

from __future__ import annotations

import io
import pickle
import shutil
import sqlite3
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from bag_fixtures import (
    CAMERA,
    MS,
    STAMPS,
    START,
    STORAGES,
    STORE,
    TOPICS,
    S,
    Source,
    camera_info,
    compressed,
    image,
    recording,
    write_bag,
    write_mcap,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import Reader, StoragePlugin, Writer

from dwarf_ros.formats import write_image
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.index import pair_stamps
from dwarf_ros.recordings.bag.info import BagInfo, bag_info, print_bag_info
from dwarf_ros.recordings.bag.mcap import McapFile
from dwarf_ros.recordings.bag.open import open_bag
from dwarf_ros.recordings.bag.storage import is_bag
from dwarf_ros.recordings.bag.transforms import quaternion_of, rotation_of
from dwarf_ros.recordings.bag.write import create_bag
from dwarf_ros.types import InputError, StereoCamera


def poses(count: int) -> np.ndarray:
    """Random rigid motions, up to half turns."""
    rng = np.random.default_rng(3)
    result = np.tile(np.eye(4), (count, 1, 1))
    for pose in result:
        pose[:3, :3] = cv2.Rodrigues(rng.uniform(-1.8, 1.8, 3))[0]
        pose[:3, 3] = rng.normal(0, 100, 3)
    return result


def assert_same_frames(bag: Any, source: Any) -> None:
    assert len(bag) == len(source)
    for index in range(len(source)):
        for given_, expected in zip(bag.read(index), source.read(index), strict=True):
            if isinstance(expected, np.ndarray):
                assert given_.dtype == expected.dtype
                np.testing.assert_array_equal(given_, expected)
            else:
                assert given_ == expected


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("kind", ["mono8", "mono16", "rgb8"])
def test_what_is_written_is_read_back(tmp_path, storage, kind):
    source = Source(kind, poses=poses(5))
    done = []
    create_bag(
        source, tmp_path / "new" / "bag", storage, progress=lambda *counts: done.append(counts)
    )
    assert done == [(i, 5) for i in range(1, 6)]
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["bag"]
    file = tmp_path / "new" / "bag" / ("bag.mcap" if storage == "mcap" else "bag.db3")
    for path in (tmp_path / "new" / "bag", file):
        bag = open_recording(path)
        assert_same_frames(bag, source)
        assert bag.stamps == source.stamps
        assert bag.scenes == [0] * 5
        assert bag.frame_id == "eye"
        np.testing.assert_allclose(bag.poses, source.poses, rtol=0, atol=1e-12)
        frame = bag[2]
        assert (frame.stamp, frame.camera, frame.frame_id) == (source.stamps[2], CAMERA, "eye")
        with pytest.raises(IndexError):
            bag.read(5)


def test_color_of_16_bits_becomes_8(tmp_path):
    create_bag(Source("rgb16"), tmp_path / "bag")
    left, right, _ = open_bag(tmp_path / "bag").read(1)
    expected = Source("rgb16").read(1)
    for pixels, wide in zip((left, right), expected[:2], strict=True):
        assert pixels.dtype == np.uint8
        assert np.abs(pixels.astype(float) - wide / 257.0).max() <= 0.5


def test_times_without_a_date_do_not_start_at_zero(tmp_path):
    create_bag(Source(first=0), tmp_path / "undated")
    assert open_bag(tmp_path / "undated").stamps == [1000 * S + 100 * MS * i for i in range(5)]


def test_scenes_stay_scenes(tmp_path):
    root = tmp_path / "training"
    for scene, width in (("000001", 32), ("000002", 40)):
        for name in (f"{scene}_10.png", f"{scene}_11.png"):
            for folder in ("image_2", "image_3"):
                (root / folder).mkdir(parents=True, exist_ok=True)
                noise = np.random.default_rng(width).integers(0, 256, (20, width, 3), np.uint8)
                write_image(root / folder / name, noise)
        (root / "calib_cam_to_cam").mkdir(exist_ok=True)
        (root / "calib_cam_to_cam" / f"{scene}.txt").write_text(
            f"P_rect_02: 30 0 16 3 0 30 10 0 0 0 1 0\nP_rect_03: 30 0 16 -{width} 0 30 10 0 0 0 1 0\n"
        )
    source = open_recording(tmp_path)
    create_bag(source, tmp_path / "bag", namespace="/car/front/")
    bag = open_recording(tmp_path / "bag")
    assert bag.scenes == source.scenes == [0, 0, 1, 1]
    assert np.diff(bag.stamps).tolist() == np.diff(source.stamps).tolist()
    assert [bag.camera(scene).baseline for scene in range(2)] == pytest.approx([35 / 30, 43 / 30])
    assert_same_frames(bag, source)
    assert bag.poses is None
    info = bag_info(tmp_path / "bag")
    assert info.stereo.left_image == "/car/front/left/image_rect"
    assert (info.frames, info.scenes, info.posed_frames) == (4, 2, 0)


@pytest.mark.parametrize("name", ["kitti_odometry", "kitti2012"])
def test_real_sequences_come_back_whole(real_data, tmp_path, name):
    source = open_recording(real_data(name))
    create_bag(source, tmp_path / "bag")
    bag = open_recording(tmp_path / "bag")
    assert_same_frames(bag, source)
    assert list(bag.scenes) == list(source.scenes)
    assert np.diff(bag.stamps).tolist() == np.diff(source.stamps).tolist()
    assert (bag.poses is None) == (source.poses is None)
    if source.poses is not None:
        # The poses on disk have seven digits, so that their rotations are not quite such.
        np.testing.assert_allclose(bag.poses, source.poses, rtol=0, atol=1e-6)
    info = bag_info(tmp_path / "bag")
    assert info.problems == info.notes == ()
    assert info.camera == source.read(0)[2]


@given(st.lists(st.floats(-4, 4), min_size=3, max_size=3))
@settings(derandomize=True, deadline=None, max_examples=50)
def test_a_rotation_is_its_quaternion(vector):
    rotation = cv2.Rodrigues(np.array(vector))[0]
    quaternion = quaternion_of(rotation)
    assert np.linalg.norm(quaternion) == pytest.approx(1.0)
    np.testing.assert_allclose(rotation_of(quaternion), rotation, rtol=0, atol=1e-12)


def test_a_quaternion_turns_as_ros_says():
    # Yaw of 90 degrees: x to y.
    np.testing.assert_allclose(
        rotation_of(np.array([0.0, 0.0, 1.0, 1.0])) @ [1, 0, 0], [0, 1, 0], atol=1e-15
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_the_map_of_the_poses_has_its_z_up(tmp_path, storage):
    forward = np.tile(np.eye(4), (2, 1, 1))
    forward[1, :3, 3] = [1.0, 2.0, 30.0]
    create_bag(Source(count=2, poses=forward), tmp_path / "bag", storage)
    with Reader(tmp_path / "bag") as reader:
        connections = [c for c in reader.connections if c.topic == "/tf"]
        messages = [
            STORE.deserialize_cdr(raw, c.msgtype).transforms
            for c, _, raw in reader.messages(connections)
        ]
    transform = messages[1][0]
    assert len(messages) == 2
    assert (transform.header.frame_id, transform.child_frame_id) == ("map", "eye")
    move, turn = transform.transform.translation, transform.transform.rotation
    # 30 m forward, 1 m to the right, 2 m down.
    assert (move.x, move.y, move.z) == (30.0, -1.0, -2.0)
    axes = rotation_of(np.array([turn.x, turn.y, turn.z, turn.w]))
    np.testing.assert_allclose(axes @ [0, 0, 1], [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(axes @ [0, 1, 0], [0, 0, -1], atol=1e-15)


# The fields of version 9, which ROS 2 Jazzy writes and reads without a default for any of them.
METADATA_FIELDS = {
    *("version", "storage_identifier", "duration", "starting_time", "message_count"),
    *("topics_with_message_count", "compression_format", "compression_mode"),
    *("relative_file_paths", "files", "custom_data", "ros_distro"),
}
QOS_FIELDS = {
    *("history", "depth", "reliability", "durability", "deadline", "lifespan"),
    *("liveliness", "liveliness_lease_duration", "avoid_ros_namespace_conventions"),
}


@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_has_all_that_playing_needs(tmp_path, storage):
    create_bag(Source(poses=poses(5)), tmp_path / "bag", storage, "stereo")
    content = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    metadata = content["rosbag2_bagfile_information"]
    assert set(metadata) == METADATA_FIELDS
    assert (metadata["version"], metadata["storage_identifier"]) == (9, storage)
    assert metadata["message_count"] == 25
    assert metadata["duration"] == {"nanoseconds": 400 * MS}
    assert metadata["starting_time"] == {"nanoseconds_since_epoch": START}
    [file] = metadata["files"]
    assert metadata["relative_file_paths"] == [file["path"]]
    assert (tmp_path / "bag" / file["path"]).is_file()
    assert set(file) == {"path", "starting_time", "duration", "message_count"}
    topics = {entry["topic_metadata"]["name"]: entry for entry in content_topics(metadata)}
    assert sorted(topics) == sorted(["/tf", *(f"/stereo/{name}" for name in TOPICS)])
    for entry in topics.values():
        assert entry["message_count"] == 5
        topic = entry["topic_metadata"]
        assert topic["serialization_format"] == "cdr"
        assert topic["type_description_hash"] == STORE.hash_rihs01(topic["type"])
        assert len(topic["type_description_hash"]) == len("RIHS01_") + 64
        [qos] = topic["offered_qos_profiles"]
        assert set(qos) == QOS_FIELDS
        names = [qos[name] for name in ("history", "reliability", "durability", "liveliness")]
        assert names == ["keep_last", "reliable", "volatile", "automatic"]
        # What rmw calls an infinite duration.
        assert qos["deadline"] == qos["lifespan"] == {"sec": 9223372036, "nsec": 854775807}
    with Reader(tmp_path / "bag" / file["path"]) as reader:
        for connection in reader.connections:
            assert "MSG: std_msgs/Header" in connection.msgdef.data


def content_topics(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    return metadata["topics_with_message_count"]


def test_ros_reads_the_messages_and_their_types_are_its_own(tmp_path):
    rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import CameraInfo, Image

    from dwarf_ros.recordings.camera_messages import camera_from_messages, image_from_message
    from dwarf_ros.ros.messages import camera_info_messages, image_message

    source = Source("mono16", count=1)
    create_bag(source, tmp_path / "bag")
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("types", context=context)
    received = {}
    try:
        with Reader(tmp_path / "bag") as reader:
            for connection, _, raw in reader.messages():
                kind = Image if connection.msgtype.endswith("Image") else CameraInfo
                received[connection.topic] = deserialize_message(raw, kind)
                node.create_publisher(kind, connection.topic, 1)
                [endpoint] = node.get_publishers_info_by_topic(connection.topic)
                ours = STORE.hash_rihs01(connection.msgtype)
                assert ours == f"RIHS01_{bytes(endpoint.topic_type_hash.value).hex()}"
    finally:
        node.destroy_node()
        context.try_shutdown()
    left, right, camera = source.read(0)
    expected = dict(
        zip(
            (f"/{name}" for name in TOPICS),
            (
                image_message(left, START, "eye"),
                image_message(right, START, "eye"),
                *camera_info_messages(camera, START, "eye"),
            ),
            strict=True,
        )
    )
    assert received == expected
    np.testing.assert_array_equal(image_from_message(received["/left/image_rect"]), left)
    infos = received["/left/camera_info"], received["/right/camera_info"]
    assert camera_from_messages(*infos) == CAMERA


def test_a_bag_that_exists_is_never_touched(tmp_path):
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "kept").write_text("kept")
    with pytest.raises(InputError, match="bag: exists already"):
        create_bag(Source(), tmp_path / "bag")
    assert (tmp_path / "bag" / "kept").read_text() == "kept"


@pytest.mark.parametrize("storage", STORAGES)
def test_nothing_is_left_of_a_bag_that_could_not_be_finished(tmp_path, storage):
    class Broken(Source):
        def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
            if index == 3:
                raise OSError(28, "No space left on device")
            return super().read(index)

    with pytest.raises(InputError, match="No space left on device"):
        create_bag(Broken(), tmp_path / "bag", storage)
    assert list(tmp_path.iterdir()) == []


def test_a_frame_that_cannot_be_read_is_not_written(tmp_path, caplog):
    class Damaged(Source):
        broken = (0, 3)

        def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
            if index in self.broken:
                raise InputError(f"{index:06d}.png: truncated")
            return super().read(index)

    source = Damaged()
    assert create_bag(source, tmp_path / "bag") == 3
    assert open_bag(tmp_path / "bag").stamps == [source.stamps[index] for index in (1, 2, 4)]
    assert "frame 3 is left out: 000003.png: truncated" in caplog.text
    source.broken = range(5)
    with pytest.raises(InputError, match=r"000004\.png"):
        create_bag(source, tmp_path / "none")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bag"]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"count": 0}, {}, "no frames, expected at least one"),
        ({"first": 2**31 * S}, {}, "expected seconds in 31 bits"),
        ({}, {"storage": "zip"}, "storage: 'zip', expected mcap or sqlite3"),
        ({}, {"namespace": "1st"}, "namespace: '1st', expected a name"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, change, arguments, message):
    with pytest.raises(InputError, match=message):
        create_bag(replace(Source(), **change), tmp_path / "bag", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/bag: .*expected a folder that can be written"):
        create_bag(Source(), tmp_path / "file" / "bag")
    with pytest.raises(InputError, match=r"without [?] # % for sqlite3"):
        create_bag(Source(), tmp_path / "bag#1", "sqlite3")
    create_bag(Source(), tmp_path / "bag#1", "mcap")
    assert len(open_bag(tmp_path / "bag#1")) == 5


@pytest.mark.parametrize("storage", STORAGES)
def test_a_recording_of_another_maker_is_read(tmp_path, storage):
    path = write_bag(tmp_path / "bag", recording(STAMPS, late=3 * MS), storage)
    bag = open_bag(path)
    assert bag.stamps == STAMPS
    assert bag.camera(0).baseline == pytest.approx(0.3)
    for index, stamp in enumerate(STAMPS):
        left, right, _ = bag.read(index)
        assert (left == stamp // MS % 251).all()
        assert (right == (stamp // MS + 3) % 251).all()
    info = bag_info(bag.path)
    topic = next(topic for topic in info.topics if topic.name == "/right/image_rect")
    assert topic.count == 6
    assert topic.rate_hz == pytest.approx(10.0)
    assert topic.longest_gap_s == pytest.approx(0.1)
    assert topic.long_gaps == topic.jumps_back == 0
    # Logged 6 ms after the left stamp.
    assert topic.log_delay_s == pytest.approx(0.003)
    assert info.node_can_use
    assert info.notes == ()


def test_lost_frames_and_jumps_are_counted_and_part_scenes(tmp_path):
    stamps = [START + 100 * MS * i for i in (0, 1, 2, 4, 5, 30, 31, 10, 11)]
    lost = [*recording(stamps)[:7], *recording(stamps)[8:]]
    assert recording(stamps)[7][0] == "/right/image_rect"
    bag = open_bag(write_bag(tmp_path / "bag", lost))
    lost_right = [stamps[0], *stamps[2:]]
    assert bag.stamps == lost_right
    assert bag.scenes == [0, 0, 0, 0, 1, 1, 2, 2]
    left, _, _ = bag.read(7)
    assert (left == stamps[8] // MS % 251).all()
    topics = {topic.name: topic for topic in bag_info(bag.path).topics}
    assert topics["/left/image_rect"].jumps_back == 1
    assert topics["/left/image_rect"].long_gaps == 2
    assert topics["/left/image_rect"].longest_gap_s == pytest.approx(2.5)
    assert topics["/right/image_rect"].count == 8
    assert bag_info(bag.path).paired == 8
    assert "1 images have no partner of the same time" in bag_info(bag.path).notes


def test_a_new_calibration_begins_a_scene(tmp_path):
    messages = recording(STAMPS)
    for number, (topic, log_time, _) in enumerate(messages):
        if topic == "/right/camera_info" and log_time > STAMPS[3]:
            messages[number] = (topic, log_time, camera_info(STAMPS[3], -12.0))
    bag = open_bag(write_bag(tmp_path / "bag", messages))
    assert bag.scenes == [0, 0, 0, 1, 1, 1]
    assert [bag.camera(scene).baseline for scene in range(2)] == pytest.approx([0.3, 0.4])
    assert bag.read(5)[2] == bag.camera(1)


BAYER = np.random.default_rng(0).integers(0, 256, (20, 32), np.uint8)
ENCODED = {
    "bgr8": (np.dstack([BAYER, BAYER // 2, BAYER // 3]), {}, np.dstack([BAYER // 3, BAYER // 2, BAYER])),
    "bayer_rggb8": (BAYER, {}, cv2.cvtColor(BAYER, cv2.COLOR_BayerBG2RGB)),
    "mono16": ((BAYER.astype(np.uint16) * 201).astype(">u2"), {"is_bigendian": 1}, BAYER.astype(np.uint16) * 201),
    "mono8": (BAYER, {"width": 28}, BAYER[:, :28]),
}  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODED)
def test_encodings_are_those_of_the_live_node(tmp_path, encoding):
    pixels, fields, expected = ENCODED[encoding]
    message = image(START, pixels, encoding, **fields)
    messages = [
        ("/left/camera_info", START, camera_info(START, 0.0, message.width)),
        ("/right/camera_info", START, camera_info(START, -9.0, message.width)),
        ("/left/image_rect", START, message),
        ("/right/image_rect", START, message),
    ]
    left, right, _ = open_bag(write_bag(tmp_path / "bag", messages)).read(0)
    assert left.dtype == expected.dtype
    np.testing.assert_array_equal(left, expected)
    np.testing.assert_array_equal(right, expected)


def test_compressed_images_are_read_but_not_for_the_node(tmp_path):
    bgr = np.dstack([BAYER, BAYER // 2, BAYER // 3])
    messages = [
        (f"{topic}/compressed", log_time, compressed(STAMPS[(log_time - START) // (100 * MS)], bgr))
        if topic.endswith("image_rect")
        else (topic, log_time, message)
        for topic, log_time, message in recording(STAMPS[:2], prefix="/cam")
    ]
    path = write_bag(tmp_path / "bag", messages)
    bag = open_recording(path)
    left, right, camera = bag.read(0)
    np.testing.assert_array_equal(left, bgr[..., ::-1])
    np.testing.assert_array_equal(right, bgr[..., ::-1])
    assert camera.baseline == pytest.approx(0.3)
    assert bag_info(bag.path).stereo.left_camera_info == "/cam/left/camera_info"
    assert not bag_info(bag.path).node_can_use
    assert "images are compressed" in bag_info(bag.path).notes[0]
    assert "`dwarf play` only" in printed(bag_info(bag.path))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a_compressed_bayer_image_is_read_in_color(tmp_path, pattern):
    rgb = {"r": 200, "g": 120, "b": 40}
    tile = np.array([rgb[color] for color in pattern], np.uint8).reshape(2, 2)
    mosaic = compressed(STAMPS[0], np.tile(tile, (10, 16)), encoding=f"bayer_{pattern}8")
    messages = [
        (f"{topic}/compressed", log_time, mosaic)
        if topic.endswith("image_rect")
        else (topic, log_time, message)
        for topic, log_time, message in recording(STAMPS[:1])
    ]
    left, right, _ = open_recording(write_bag(tmp_path / "bag", messages)).read(0)
    assert left.shape == right.shape
    np.testing.assert_array_equal(left[5, 5], (200, 120, 40))


def test_names_can_be_given(tmp_path):
    names = {"/left/image_rect": "/a/mono", "/right/image_rect": "/b/mono", "/left/camera_info": "/a/camera_info", "/right/camera_info": "/other"}  # fmt: skip
    messages = [(names[topic], *rest) for topic, *rest in recording(STAMPS)]
    path = write_bag(tmp_path / "bag", messages)
    info = bag_info(path)
    assert info.problems[0].startswith("no /left/image_rect, expected sensor_msgs/msg/Image; ")
    assert "/a/mono, /b/mono" in info.problems[0]
    remap = {"left/image_rect": "/a/mono", "right/image_rect": "b/mono"}
    assert "no /b/camera_info" in bag_info(path, remap=remap).problems[0]
    remap["right/camera_info"] = "/other"
    bag = open_bag(path, remap=remap)
    assert bag.stamps == STAMPS
    assert "-r right/camera_info:=/other" in printed(bag_info(path, remap=remap))
    with pytest.raises(InputError, match="remap: 'left/image', expected one of left/image_rect"):
        open_bag(path, remap={"left/image": "/a/mono"})


def test_of_several_cameras_one_is_chosen(tmp_path):
    path = write_bag(
        tmp_path / "bag",
        [*recording(STAMPS[:2], prefix="/front"), *recording(STAMPS, prefix="/rear")],
    )
    with pytest.raises(InputError, match=r"in 2 namespaces \(/front, /rear\).*namespace"):
        open_recording(path)
    assert "2 namespaces" in bag_info(path).problems[0]
    assert len(open_bag(path, namespace="rear")) == 6
    info = bag_info(path, namespace="/front")
    assert info.frames == 2
    assert "(in namespace /front)" in printed(info)


def without(topic: str, messages: list[Any]) -> list[Any]:
    return [message for message in messages if message[0] != topic]


def changed(topic: str, message: Any) -> list[Any]:
    return [
        (name, log_time, message if name == topic else kept)
        for name, log_time, kept in recording(STAMPS[:1])
    ]


UNUSABLE = {
    "no right camera_info": (
        without("/right/camera_info", recording(STAMPS)),
        "no /right/camera_info, expected sensor_msgs/msg/CameraInfo; of that type there are /left/camera_info",
    ),
    "raw": (
        [("/left/image_raw", START, image(START)), ("/right/image_rect", START, image(START))],
        "no /left/image_rect, only /left/image_raw, which is not rectified",
    ),
    "baseline": (
        changed("/right/camera_info", camera_info(START, 9.0)),
        "baseline is -0.3 m, expected > 0",
    ),
    "stamps": (
        recording(STAMPS, late=25 * MS),
        "left and right stamps do not match: 25.000 ms apart (median), expected at most 10 ms",
    ),
    "sizes": (
        changed("/right/image_rect", image(START, np.zeros((10, 32), np.uint8))),
        "sizes differ: left 32 x 20 px, right 32 x 10 px, expected one size (1 of 1 pairs)",
    ),
    "calibrated for another size": (
        [
            (n, t, camera_info(START, -9.0 * ("right" in n), 64) if "info" in n else m)
            for n, t, m in recording(STAMPS[:1])
        ],
        "images are 32 x 20 px but camera_info is for 64 x 20 px",
    ),
    "type": (
        changed("/left/image_rect", camera_info(START, 0.0)),
        "/left/image_rect is sensor_msgs/msg/CameraInfo, expected sensor_msgs/msg/Image",
    ),
    "empty": ([], "no topics, expected left/image_rect and right/image_rect"),
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("case", UNUSABLE)
def test_why_a_bag_cannot_be_used(tmp_path, case, storage):
    messages, problem = UNUSABLE[case]
    path = write_bag(tmp_path / "bag", messages, storage)
    info = bag_info(path)
    assert problem in info.problems[0]
    assert not info.node_can_use
    text = " ".join(printed(info).split())
    assert "cannot be used:" in text
    assert problem in text
    with pytest.raises(InputError) as raised:
        open_recording(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert problem in str(raised.value)
    assert "\n" not in str(raised.value)


def test_topics_without_messages_are_said(tmp_path):
    path = tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in TOPICS:
            kind = "CameraInfo" if "info" in topic else "Image"
            writer.add_connection(f"/{topic}", f"sensor_msgs/msg/{kind}", typestore=STORE)
    info = bag_info(path)
    assert info.problems[0] == "no messages on /left/image_rect"
    assert info.duration_s == 0
    assert "no messages" in printed(info)


def test_unknown_types_beside_the_camera_do_no_harm(tmp_path):
    path = tmp_path / "bag"
    with Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        odd = writer.add_connection(
            "/odd", "odd_msgs/msg/Odd", msgdef="int32 x\n", rihs01="RIHS01_" + "0" * 64
        )
        writer.write(odd, START, b"\0\1\0\0\7\0\0\0")
        connections = {}
        for topic, log_time, message in recording(STAMPS):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], log_time, STORE.serialize_cdr(message, kind))
    bag = open_bag(path)
    assert len(bag) == 6
    assert "odd_msgs/msg/Odd" in printed(bag_info(bag.path))


def printed(info: BagInfo) -> str:
    stream = io.StringIO()
    print_bag_info(info, stream)
    return stream.getvalue()


def test_the_text_says_what_matters(tmp_path):
    create_bag(Source(poses=poses(5)), tmp_path / "bag", namespace="stereo")
    text = printed(bag_info(tmp_path / "bag"))
    for part in (
        "/stereo/right/camera_info",
        "sensor_msgs/msg/CameraInfo",
        "10.00",
        "32 x 20 px rgb8; 5 left, 5 right, 5 pairs",
        "baseline 0.3000 m, focal length 30.00 px",
        "5 in 1 scene, 5 with a pose",
        "can be used by the live node and `dwarf play` (in namespace /stereo)",
    ):
        assert part in text


def test_poses_are_taken_whole_or_not_at_all(tmp_path):
    path = tmp_path / "bag"
    create_bag(Source(poses=poses(5)), path, "sqlite3")
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute(
            "DELETE FROM messages WHERE timestamp = ? AND topic_id = "
            "(SELECT id FROM topics WHERE name = '/tf')",
            (START + 200 * MS,),
        )
    database.close()
    bag = open_bag(path)
    assert bag.poses is None
    assert (
        bag_info(bag.path).notes[0]
        == "/tf has a pose for 4 of 5 frames, expected all: poses are not used"
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_threads_and_copies_read_the_same(tmp_path, storage):
    source = Source(count=12)
    create_bag(source, tmp_path / "bag", storage)
    bag = open_bag(tmp_path / "bag")
    order = np.random.default_rng(0).permutation(np.tile(np.arange(12), 4)).tolist()
    with ThreadPoolExecutor(4) as pool:
        for index, (left, right, _) in zip(order, pool.map(bag.read, order), strict=True):
            np.testing.assert_array_equal(left, source.read(index)[0])
            np.testing.assert_array_equal(right, source.read(index)[1])
    assert_same_frames(pickle.loads(pickle.dumps(bag)), source)


def test_a_file_without_an_index_is_not_read_again_for_each_frame(tmp_path, monkeypatch):
    stamps = [START + 100 * MS * i for i in range(30)]
    path = write_mcap(
        tmp_path / "bag.mcap", recording(stamps, late=2 * MS), per_chunk=0, summary=False
    )
    bag = open_recording(path)
    assert bag.stamps == stamps
    scans = []
    scan = McapFile.messages

    def counted(*arguments: Any, **window: Any) -> Any:
        scans.append(arguments)
        return scan(*arguments, **window)

    monkeypatch.setattr(McapFile, "messages", counted)
    # Neighbours are asked for out of turn by threads, and twice by whoever compares each frame with the next.
    order = [0, *(j for i in range(0, 28, 2) for j in (i + 2, i + 1, i + 1, i + 2))]
    for index in order:
        left, right, _ = bag.read(index)
        assert (left == stamps[index] // MS % 251).all()
        assert (right == (stamps[index] // MS + 2) % 251).all()
    # Once for the first, once for all that follow it.
    assert len(scans) == 2


@pytest.mark.parametrize("storage", STORAGES)
def test_memory_does_not_grow_with_the_images(tmp_path, storage):
    camera = replace(CAMERA, width=320, height=240)
    create_bag(Source(count=60, camera=camera), tmp_path / "bag", storage)
    frame_bytes = 2 * 320 * 240 * 3
    tracemalloc.start()
    try:
        bag = open_bag(tmp_path / "bag")
        for index in range(len(bag)):
            bag.read(index)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Of 60 frames; a chunk of an .mcap file holds several.
    assert peak < 20 * frame_bytes


def test_bags_are_told_from_folders(tmp_path):
    create_bag(Source(), tmp_path / "bag")
    assert is_bag(tmp_path / "bag")
    assert is_bag(tmp_path / "bag" / "bag.mcap")
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert is_bag(tmp_path / "bag")
    assert len(open_bag(tmp_path / "bag")) == 5
    assert not is_bag(tmp_path)
    assert not is_bag(tmp_path / "none")
    (tmp_path / "metadata.yaml").write_text("camera: left\n")
    assert not is_bag(tmp_path)
    with pytest.raises(InputError, match="not a bag, expected a rosbag2 folder"):
        open_bag(tmp_path)
    with pytest.raises(InputError, match="no such file or folder, expected a bag"):
        open_recording(tmp_path / "none.mcap")
    shutil.copy(tmp_path / "bag" / "bag.mcap", tmp_path / "bag" / "bag_1.mcap")
    with pytest.raises(InputError, match=r"no metadata\.yaml for its 2 files"):
        open_bag(tmp_path / "bag")


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped or overwritten in places."""
    if rng.random() < 0.4:
        return data[: rng.integers(len(data))]
    changed = bytearray(data)
    for _ in range(rng.integers(1, 20)):
        # Headers, definitions and indices are at the ends.
        near = min(len(data), 20_000)
        position = int(rng.integers(near)) if rng.random() < 0.5 else -1 - int(rng.integers(near))
        changed[position] = rng.integers(256)
    return bytes(changed)


@pytest.mark.parametrize("file", ["bag.mcap", "bag.db3", "metadata.yaml"])
def test_damaged_files_are_one_line_or_frames(tmp_path, file):
    path = tmp_path / "bag"
    create_bag(
        Source("mono8", count=3, poses=poses(3)), path, "sqlite3" if "db3" in file else "mcap"
    )
    whole = (path / file).read_bytes()
    rng = np.random.default_rng(11)
    lines = []
    for _ in range(60):
        (path / file).write_bytes(damage(whole, rng))
        for use in (bag_info, read_all):
            try:
                use(path)
            except InputError as error:
                lines.append(str(error))
    # What is whole is read, and metadata.yaml is not needed for it.
    assert (len(lines) > 0) == (file != "metadata.yaml")
    for line in lines:
        assert str(path) in line
        assert "\n" not in line


def read_all(path: Path) -> None:
    bag = open_bag(path)
    for index in range(len(bag)):
        left, right, _ = bag.read(index)
        assert left.shape == right.shape


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=20, unique=True),
    st.lists(st.integers(0, 40), min_size=1, max_size=20, unique=True),
    st.integers(-9, 9),
)
@settings(derandomize=True, deadline=None, max_examples=100)
def test_pairs_are_those_of_the_same_frame(left_frames, right_frames, late_ms):
    """Frames 100 ms apart, of which each side lost some, out of order within a second."""
    # Out of order, but never by a second: what jumps back farther is another run.
    left_frames = sorted(left_frames, key=lambda frame: (frame // 5, -frame))
    right_frames = sorted(right_frames)
    left = [START + 100 * MS * frame for frame in left_frames]
    right = [START + 100 * MS * frame + late_ms * MS for frame in right_frames]
    pairs = [(left_frames[i], right_frames[j]) for i, j in pair_stamps(left, right)]
    assert pairs == [(frame, frame) for frame in sorted({*left_frames} & {*right_frames})]


def test_equal_stamps_pair_once():
    assert pair_stamps([1, 1, 100 * MS], [1, 100 * MS, 100 * MS]) == [(0, 0), (2, 1)]
