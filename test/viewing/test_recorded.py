"""Estimates that a bag holds are read back as they were published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from dwarf_ros.recordings.scene_flow_messages import OPTIONAL_MAPS, ego_motion_fields
from dwarf_ros.types import InputError
from dwarf_ros.viewing.results import Result
from dwarf_ros.viewing.sources import open_results

REPOSITORY = Path(__file__).resolve().parents[2]
TYPE = "dwarf_ros/msg/SceneFlow"


@pytest.fixture(scope="module")
def store() -> Any:
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg((REPOSITORY / "msg" / "SceneFlow.msg").read_text(), TYPE))
    return store


class Recorder:
    """Makes the messages that the node publishes."""

    def __init__(self, store: Any) -> None:
        self.types = store.types

    def time(self, ns: int) -> Any:
        return self.types["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)

    def header(self, stamp: int) -> Any:
        return self.types["std_msgs/msg/Header"](stamp=self.time(stamp), frame_id="eye")

    def image(self, pixels: np.ndarray, encoding: str, stamp: int) -> Any:
        data = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
        height, width = pixels.shape[:2]
        return self.types["sensor_msgs/msg/Image"](
            header=self.header(stamp),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=len(data) // max(height, 1),
            data=data,
        )

    def estimate(self, result: Result) -> Any:
        flow = result.scene_flow
        return self.types[TYPE](
            header=self.header(flow.stamp),
            other_stamp=self.time(flow.other_stamp),
            estimator="dwarf_lite",
            **{
                n: getattr(flow.camera, n) for n in ("fx", "fy", "cx", "cy", "cx_right", "baseline")
            },
            disparity=self.image(flow.disparity, "32FC1", flow.stamp),
            disparity_next=self.image(flow.disparity_next, "32FC1", flow.stamp),
            flow=self.image(flow.flow, "32FC2", flow.stamp),
            valid=self.image(flow.valid.astype(np.uint8) * 255, "mono8", flow.stamp),
            **{n: self.image(np.zeros((0, 0)), "", flow.stamp) for n in OPTIONAL_MAPS},
            **ego_motion_fields(flow.ego_motion),
        )


@pytest.fixture
def record(tmp_path, store, make_result):
    """Function that writes a bag with three answers and the left images of two of them, in some namespaces."""

    def write(
        storage: str, *namespaces: str, compressed: bool = False
    ) -> tuple[Path, list[Result]]:
        folder = tmp_path / "bag"
        make = Recorder(store)
        results = [make_result(stamp=10**18 + i * 10**8, dt=-0.1) for i in range(3)]
        with Writer(folder, version=9, storage_plugin=StoragePlugin[storage]) as writer:
            for namespace in namespaces:
                topic = f"{namespace}/left/image_rect" + ("/compressed" if compressed else "")
                kind = f"sensor_msgs/msg/{'CompressedImage' if compressed else 'Image'}"
                images = writer.add_connection(topic, kind, typestore=store)
                answers = writer.add_connection(f"{namespace}/estimate", TYPE, typestore=store)
                for number, result in enumerate(results):
                    stamp = result.scene_flow.stamp
                    if number < 2:
                        image = make.image(result.left, "rgb8", stamp)
                        if compressed:
                            data = cv2.imencode(".png", result.left[..., ::-1])[1]
                            image = store.types[kind](make.header(stamp), "rgb8; png", data)
                        writer.write(images, stamp, store.serialize_cdr(image, kind))
                    data = store.serialize_cdr(make.estimate(result), TYPE)
                    writer.write(answers, stamp + 5 * 10**7, data)
        return folder, results

    return write


@pytest.mark.parametrize(
    ("storage", "namespace", "compressed"),
    [("MCAP", "", False), ("SQLITE3", "/robot", False), ("MCAP", "/robot", True)],
)
def test_answers_come_back_with_their_images(record, storage, namespace, compressed):
    bag, expected = record(storage, namespace, compressed=compressed)
    results = open_results(bag)
    assert len(results) == 3
    for read, published in zip(results, expected, strict=True):
        for name in ("disparity", "disparity_next", "flow", "valid"):
            found, true = (getattr(r.scene_flow, name) for r in (read, published))
            np.testing.assert_array_equal(found, true)
            assert found.dtype == true.dtype
        assert read.scene_flow.stamp == published.scene_flow.stamp
        assert read.scene_flow.dt == pytest.approx(-0.1)
        assert read.scene_flow.camera == published.scene_flow.camera
        assert read.scene_flow.frame_id == "eye"
        assert read.estimator == "dwarf_lite"
    for read, published in zip(list(results)[:2], expected, strict=False):
        assert np.array_equal(read.left, published.left)
    assert results.read(2).left is None


def test_several_nodes_are_chosen_from_by_namespace(record):
    bag, _ = record("MCAP", "/a", "/b")
    with pytest.raises(InputError, match="by its namespace") as error:
        open_results(bag)
    assert "/a/estimate, /b/estimate" in str(error.value)
    assert len(open_results(bag, namespace="b")) == 3


def test_ground_truth_is_for_what_is_estimated_here(record, tmp_path):
    bag, _ = record("MCAP", "")
    with pytest.raises(InputError, match="name of an estimator"):
        open_results(bag, ground_truth=tmp_path)


def test_a_damaged_bag_is_one_line_that_names_it(record):
    bag, _ = record("MCAP", "")
    file = next(bag.glob("*.mcap"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert len(list(open_results(bag))) < 3
    file.write_bytes(b"")
    with pytest.raises(InputError, match="bag") as error:
        list(open_results(bag))
    assert "\n" not in str(error.value)
