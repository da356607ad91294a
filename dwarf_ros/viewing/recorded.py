"""What a running node published, out of a bag that recorded it; without ROS."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.recordings.camera_messages import image_from_compressed, image_from_message
from dwarf_ros.share import share_directory
from dwarf_ros.types import InputError, SceneFlow, StereoCamera, as_rgb8
from dwarf_ros.viewing.results import Result, Results

_TYPE = "dwarf_ros/msg/SceneFlow"
_TOPIC = "estimate"
# An answer is recorded at most so long after its image, ns.
_LATEST = 5_000_000_000


def recorded_results(bag: Path, namespace: str | None = None) -> Results | None:
    """The answers on a bag's topic `estimate`, with the left images that it holds of the same stamps; None without any.

    Args:
        bag: folder or file.
        namespace: of the node; None: the only one that there is.

    Raises:
        InputError: the bag is damaged, or several nodes' answers are in it and none is chosen.
    """
    reader = _open(bag)
    found = {c.topic: c for c in reader.connections if c.msgtype == _TYPE and c.msgcount}
    if namespace is not None:
        wanted = "/".join(["", *filter(None, namespace.split("/")), _TOPIC])
        found = {topic: c for topic, c in found.items() if topic == wanted}
    if not found:
        reader.close()
        return None
    if len(found) > 1:
        raise InputError(
            f"{bag}: answers on {', '.join(sorted(found))}, expected one: choose it by --namespace"
        )
    ((topic, connection),) = found.items()
    with _reading(bag):
        times = [time for _, time, _ in reader.messages([connection])]
    image_topic = topic.removesuffix(_TOPIC) + "left/image_rect"
    images = [
        c for c in reader.connections if c.topic in (image_topic, f"{image_topic}/compressed")
    ]

    def read(index: int) -> Result:
        time = times[index]
        with _reading(bag):
            # Answers of one log time are told apart by their place among them.
            place = index - times.index(time)
            raw = [raw for _, _, raw in reader.messages([connection], time, time + 1)][place]
            message = reader.deserialize(raw, _TYPE)
            scene_flow = _scene_flow(message, bag)
            left = None
            for image, _, raw in (
                reader.messages(images, time - _LATEST, time + 1) if images else ()
            ):
                candidate = reader.deserialize(raw, image.msgtype)
                if candidate.header.stamp == message.header.stamp:
                    compressed = image.topic.endswith("/compressed")
                    decode = image_from_compressed if compressed else image_from_message
                    left = as_rgb8(decode(candidate, f"{bag}: {image.topic}"))
                    break
        if left is not None and left.shape[:2] != scene_flow.valid.shape:
            left = None
        return Result(f"{index:06d}", scene_flow, left, message.estimator)

    return Results(str(bag), [f"{index:06d}" for index in range(len(times))], read)


def _open(bag: Path) -> Any:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    # A bag that does not hold the definitions of its messages.
    with contextlib.suppress(OSError):
        text = (share_directory() / "msg" / "SceneFlow.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, _TYPE))
    with _reading(bag):
        reader = AnyReader([bag], default_typestore=store)
        reader.open()
    return reader


@contextlib.contextmanager
def _reading(bag: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # damaged files show in the libraries as errors of every kind
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{bag}: {reason}, expected a whole rosbag2 recording") from None


def _scene_flow(message: Any, bag: Path) -> SceneFlow:
    height, width = message.disparity.height, message.disparity.width
    camera = None
    if message.fx != 0:
        numbers = {n: getattr(message, n) for n in ("fx", "fy", "cx", "cy", "cx_right", "baseline")}
        camera = StereoCamera(**numbers, width=width, height=height)
    stamp, other = (s.sec * 10**9 + s.nanosec for s in (message.header.stamp, message.other_stamp))
    return SceneFlow(
        disparity=_pixels(message.disparity, "32FC1", bag),
        disparity_next=_pixels(message.disparity_next, "32FC1", bag),
        flow=_pixels(message.flow, "32FC2", bag),
        valid=_pixels(message.valid, "mono8", bag) > 0,
        stamp=stamp,
        dt=(other - stamp) * 1e-9,
        camera=camera,
        frame_id=message.header.frame_id,
    )


def _pixels(image: Any, encoding: str, bag: Path) -> np.ndarray:
    dtype = np.dtype(np.uint8 if encoding == "mono8" else np.float32)
    channels = 2 if encoding == "32FC2" else 1
    size = image.height * image.width * channels * dtype.itemsize
    if image.encoding != encoding or len(image.data) != size:
        raise InputError(
            f"{bag}: a map on {_TOPIC} is {image.encoding[:40]!r} with {len(image.data)} bytes, expected {encoding!r} with "
            f"{size} bytes"
        )
    values = np.frombuffer(image.data, dtype.newbyteorder(">" if image.is_bigendian else "<"))
    shape = (image.height, image.width, 2) if channels == 2 else (image.height, image.width)
    return values.astype(dtype).reshape(shape)
