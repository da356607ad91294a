"""Writing rosbag2 bags without ROS."""

from __future__ import annotations

import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dwarf_ros.recordings.bag.storage import MESSAGE_TYPES, TF_TOPIC, typestore
from dwarf_ros.recordings.bag.topics import namespace_prefix
from dwarf_ros.recordings.bag.transforms import MAP_FROM_OPTICAL, quaternion_of
from dwarf_ros.recordings.camera_messages import CameraInfoFields, camera_info_fields
from dwarf_ros.recordings.recording import Recording
from dwarf_ros.recordings.scene_flow_messages import (
    CAMERA_FIELDS,
    OPTIONAL_MAPS,
    SCENE_FLOW_TYPE,
    ego_motion_fields,
)
from dwarf_ros.types import InputError, SceneFlow, as_rgb8

_log = logging.getLogger(__name__)

_SIDES = ("left", "right")
_MAP = "map"

# A source without a date counts from 0, which ROS takes for "no time" and from which nothing can be subtracted.
_UNDATED_BELOW = 1_000_000_000_000
_STAMP_LIMIT = 2**31 * 1_000_000_000


def create_bag(
    recording: Recording,
    out: Path,
    storage: Literal["mcap", "sqlite3"] = "mcap",
    namespace: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write a recording as a rosbag2 folder, as if two cameras had been recorded.

    Topics in the namespace: left/image_rect and right/image_rect (mono8, mono16 or rgb8 as the source; 16-bit color is
    converted to rgb8), left/camera_info and right/camera_info. All headers have the left camera's frame_id. With poses, /tf
    has the transform from map to that frame at each frame's stamp; map is the first pose's world with x forward and z up
    (REP-103). Messages are timed by their stamps. Stamps that start before 1000 s after the epoch are no dates and are
    shifted by 1000 s. A frame that cannot be read is left out and logged.

    Args:
        recording: at least one frame.
        out: folder to create; it appears whole or not at all, and must not exist.
        storage: file format.
        namespace: of the topics, such as "stereo".
        progress: called after each frame with its number from 1 and the total.

    Returns:
        how many frames were written.

    Raises:
        InputError: the folder exists or cannot be written, the namespace is not valid, rosbags is not installed, or no frame of
            the recording can be read.
    """
    if storage not in ("mcap", "sqlite3"):
        raise InputError(f"storage: {storage!r}, expected mcap or sqlite3")
    prefix = namespace_prefix(namespace)
    out = Path.cwd() / out
    if out.exists() or out.is_symlink():
        raise InputError(f"{out}: exists already, expected the name of a new bag")
    # The library gives SQLite the path as a URI.
    if storage == "sqlite3" and (forbidden := re.search("[?#%]", str(out))):
        raise InputError(f"{out}: has {forbidden[0]!r}, expected a path without ? # % for sqlite3")
    if not len(recording):
        raise InputError(f"{out}: the source has no frames, expected at least one to write")
    store = typestore()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise _write_error(out, error) from None
    try:
        # The files inside are named after the folder, so that it must have its name from the start.
        written = _write_bag(recording, beside / out.name, storage, prefix, store, progress)
        (beside / out.name).rename(out)
        return written
    except InputError:
        raise
    # Of SQLite and of the library, whose errors have no common base.
    except Exception as error:
        raise _write_error(out, error) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_error(out: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{out}: {reason}, expected a folder that can be written")


def _write_bag(
    recording: Recording,
    folder: Path,
    storage: Literal["mcap", "sqlite3"],
    prefix: str,
    store: Any,
    progress: Callable[[int, int], None] | None,
) -> int:
    written = 0
    stamps, poses = recording.stamps, recording.poses
    shift = _UNDATED_BELOW if stamps[0] < _UNDATED_BELOW else 0
    for stamp in (stamps[0] + shift, stamps[-1] + shift):
        if not 0 <= stamp < _STAMP_LIMIT:
            raise InputError(f"{folder.name}: time {stamp} ns, expected seconds in 31 bits")
    encode = MessageEncoder(store, recording.frame_id)
    with bag_writer(folder, storage) as writer:
        infos = [
            add_topic(writer, store, f"{prefix}/{side}/camera_info", MESSAGE_TYPES["camera_info"])
            for side in _SIDES
        ]
        images = [
            add_topic(writer, store, f"{prefix}/{side}/image_rect", MESSAGE_TYPES["image"])
            for side in _SIDES
        ]
        tf = MESSAGE_TYPES["tf"]
        transforms = add_topic(writer, store, TF_TOPIC, tf) if poses is not None else None
        for index in range(len(recording)):
            if progress is not None:
                progress(index + 1, len(recording))
            try:
                left, right, camera = recording.read(index)
            except InputError as error:
                _log.warning("frame %d is left out: %s", index, error)
                if written == 0 and index == len(recording) - 1:
                    raise
                continue
            written += 1
            stamp = stamps[index] + shift
            for connection, fields in zip(infos, camera_info_fields(camera), strict=True):
                writer.write(connection, stamp, encode.camera_info(fields, stamp))
            for connection, image in zip(images, (left, right), strict=True):
                writer.write(connection, stamp, encode.image(image, stamp))
            if poses is not None and transforms is not None:
                writer.write(transforms, stamp, encode.transform(poses[index], stamp))
    return written


def bag_writer(folder: Path, storage: Literal["mcap", "sqlite3"] = "mcap") -> Any:
    """The library's writer of a new bag, a context manager."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    # 9 is the version that ROS 2 Jazzy writes.
    return Writer(folder, version=9, storage_plugin=plugin)


def add_topic(writer: Any, store: Any, topic: str, msgtype: str) -> Any:
    """Add a topic to a bag that is being written; the connection to write its messages to."""
    return writer.add_connection(topic, msgtype, typestore=store, offered_qos_profiles=[_qos()])


def _qos() -> Any:
    """Reliable and volatile, the last 10 kept, no deadlines: as the player offers, and as ros2 bag records it."""
    from rosbags import interfaces as rosbags

    forever = rosbags.QosTime(9_223_372_036, 854_775_807)
    return rosbags.Qos(
        history=rosbags.QosHistory.KEEP_LAST,
        depth=10,
        reliability=rosbags.QosReliability.RELIABLE,
        durability=rosbags.QosDurability.VOLATILE,
        deadline=forever,
        lifespan=forever,
        liveliness=rosbags.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )


@dataclass(frozen=True)
class MessageEncoder:
    """Serialises arrays as messages.

    Attributes:
        store: definitions of the messages.
        frame_id: of the headers.
    """

    store: Any
    frame_id: str

    def _header(self, stamp: int, frame_id: str) -> Any:
        return self.store.types["std_msgs/msg/Header"](self._time(stamp), frame_id)

    def _time(self, stamp: int) -> Any:
        return self.store.types["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))

    def _serialize(self, msgtype: str, **fields: Any) -> bytes | memoryview:
        return self.store.serialize_cdr(self.store.types[msgtype](**fields), msgtype)

    def image(self, image: np.ndarray, stamp: int) -> bytes | memoryview:
        """A camera image, uint8 or uint16, gray or RGB; RGB becomes rgb8."""
        if image.ndim == 3:
            image = as_rgb8(image)
        encoding = "rgb8" if image.ndim == 3 else f"mono{8 * image.itemsize}"
        message = self._image(image, encoding, stamp)
        return self.store.serialize_cdr(message, MESSAGE_TYPES["image"])

    def _image(self, image: np.ndarray, encoding: str, stamp: int) -> Any:
        return self.store.types[MESSAGE_TYPES["image"]](
            header=self._header(stamp, self.frame_id),
            height=image.shape[0],
            width=image.shape[1],
            encoding=encoding,
            is_bigendian=int(sys.byteorder == "big"),
            step=image.nbytes // max(image.shape[0], 1),
            data=np.ascontiguousarray(image).reshape(-1).view(np.uint8),
        )

    def camera_info(self, fields: CameraInfoFields, stamp: int) -> bytes | memoryview:
        """One side of a camera's calibration."""
        region = self.store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        return self._serialize(
            MESSAGE_TYPES["camera_info"],
            header=self._header(stamp, self.frame_id),
            width=fields.width,
            height=fields.height,
            distortion_model=fields.distortion_model,
            d=np.array(fields.d),
            k=np.array(fields.k),
            r=np.array(fields.r),
            p=np.array(fields.p),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    def transform(self, pose: np.ndarray, stamp: int) -> bytes | memoryview:
        """A pose of the left camera, 4 x 4, as a message of /tf."""
        in_map = MAP_FROM_OPTICAL @ pose
        types = self.store.types
        transform = types["geometry_msgs/msg/TransformStamped"](
            self._header(stamp, _MAP),
            self.frame_id,
            types["geometry_msgs/msg/Transform"](
                types["geometry_msgs/msg/Vector3"](*in_map[:3, 3].tolist()),
                types["geometry_msgs/msg/Quaternion"](*quaternion_of(in_map[:3, :3]).tolist()),
            ),
        )
        return self._serialize(MESSAGE_TYPES["tf"], transforms=[transform])

    def scene_flow(self, scene_flow: SceneFlow, estimator: str) -> bytes | memoryview:
        """Scene flow as dwarf_ros/SceneFlow, which the store must have; camera numbers are 0 where unknown."""
        stamp, camera = scene_flow.stamp, scene_flow.camera
        return self._serialize(
            SCENE_FLOW_TYPE,
            header=self._header(stamp, scene_flow.frame_id),
            other_stamp=self._time(scene_flow.other_stamp),
            estimator=estimator,
            **{name: getattr(camera, name) if camera else 0.0 for name in CAMERA_FIELDS},
            disparity=self._image(scene_flow.disparity, "32FC1", stamp),
            disparity_next=self._image(scene_flow.disparity_next, "32FC1", stamp),
            flow=self._image(scene_flow.flow, "32FC2", stamp),
            valid=self._image(scene_flow.valid.astype(np.uint8) * np.uint8(255), "mono8", stamp),
            **{
                name: self._image(values, encoding, stamp)
                if (values := getattr(scene_flow, name)) is not None
                else self._image(np.zeros((0, 0), np.uint8), "", stamp)
                for name, encoding in OPTIONAL_MAPS.items()
            },
            **ego_motion_fields(scene_flow.ego_motion),
        )
