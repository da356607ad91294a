"""rosbag2 files without ROS: written from a stereo sequence, looked into, and read back as one."""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import sys
import tempfile
import threading
import weakref
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol, TextIO

import cv2
import numpy as np

from dwarf_ros.recordings.camera_messages import (
    CameraInfoFields,
    camera_from_messages,
    camera_info_fields,
    image_from_message,
)
from dwarf_ros.types import InputError, StereoCamera, StereoFrame, as_rgb8

_log = logging.getLogger(__name__)

_SIDES = ("left", "right")
_TYPES = {
    "image": "sensor_msgs/msg/Image",
    "compressed": "sensor_msgs/msg/CompressedImage",
    "camera_info": "sensor_msgs/msg/CameraInfo",
    "tf": "tf2_msgs/msg/TFMessage",
}
_TF = "/tf"
_MAP = "map"
# Axes of a map (x forward, y left, z up; REP-103) in those of a camera (x right, y down, z forward), as columns.
_MAP_FROM_OPTICAL = np.array(
    [[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
)

# A source without a date counts from 0, which ROS takes for "no time" and from which nothing can be subtracted.
_UNDATED_BELOW = 1_000_000_000_000
_STAMP_LIMIT = 2**31 * 1_000_000_000

_SCENE_GAP = 1_000_000_000
"""Frames farther apart in time than this are no pair, ns; as the live node takes it."""
_TOLERANCE = 10_000_000
"""Largest difference of left and right stamps, ns; as the live node takes it."""
_POSE_TOLERANCE = 1_000_000
_LONG_INTERVAL = 1.5
_LARGE_BAG = 2 << 30
_KEPT_MESSAGES = 6
# Farther ahead in log time, ns, an index is faster than reading on.
_READ_ON = 2_000_000_000
_STORAGE_SUFFIXES = (".mcap", ".db3")


class StereoSource(Protocol):
    """What a bag is made from: a stereo sequence, wherever it lies."""

    @property
    def stamps(self) -> Sequence[int]:
        """Time of each frame, ns, strictly increasing."""

    @property
    def poses(self) -> np.ndarray | None:
        """float64 N x 4 x 4, left camera to world, m, in the optical frame; None where unknown."""

    @property
    def frame_id(self) -> str:
        """Name of the left camera's optical frame."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        """Left and right image, uint8 or uint16, grey or RGB, and their camera."""


def is_bag(source: Path) -> bool:
    """Whether a path is a rosbag2 folder, or one of its .mcap or .db3 files."""
    source = Path(source)
    try:
        if not source.is_dir():
            return source.suffix in _STORAGE_SUFFIXES
        if _storage_files(source):
            return True
        with (source / "metadata.yaml").open("rb") as file:
            return b"rosbag2_bagfile_information" in file.read(4096)
    except OSError:
        return False


def _storage_files(folder: Path) -> list[Path]:
    """The .mcap and .db3 files of a folder, those compressed as a whole too."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.name.removesuffix(".zstd").endswith(_STORAGE_SUFFIXES)
    )


def create_bag(
    sequence: StereoSource,
    out: Path,
    storage: Literal["mcap", "sqlite3"] = "mcap",
    namespace: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a stereo sequence as a rosbag2 folder, as if two cameras had been recorded.

    In the namespace: left/image_rect and right/image_rect (mono8, mono16 or rgb8 as the source; 16-bit colour becomes
    rgb8), left/camera_info and right/camera_info. All headers carry the frame of the left camera. Where there are poses, /tf
    has map -> that frame at each frame's stamp; the map's x points forward, its z up (REP-103) from the first pose's
    world. tf rather than a path: its size grows with the frames, not with their square, and a cloud in the camera's
    frame is seen in the map without more. Messages are timed by their stamps, which are the sequence's; times from the
    first 1000 s of the epoch are no dates and are moved on by 1000 s.

    Args:
        sequence: at least one frame.
        out: folder to make; it is written beside and renamed, and must not exist.
        storage: file format.
        namespace: of the four topics, such as "stereo".
        progress: called after each frame with the number of frames done and in all.

    Raises:
        InputError: the folder exists or cannot be written, the namespace is no name, rosbags is not installed, or a frame of
            the sequence cannot be read.
    """
    if storage not in ("mcap", "sqlite3"):
        raise InputError(f"--storage: {storage!r}, expected mcap or sqlite3")
    prefix = _namespace_prefix(namespace)
    out = Path.cwd() / out
    if out.exists() or out.is_symlink():
        raise InputError(f"{out}: exists already, expected the name of a bag to make")
    # The library gives SQLite the path as a URI.
    if storage == "sqlite3" and (forbidden := re.search("[?#%]", str(out))):
        raise InputError(f"{out}: has {forbidden[0]!r}, expected a path without ? # % for sqlite3")
    if not len(sequence):
        raise InputError(f"{out}: the source has no frames, expected at least one to write")
    store = _typestore()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise _write_error(out, error) from None
    try:
        # The files inside are named after the folder, so that it must have its name from the start.
        _write_bag(sequence, beside / out.name, storage, prefix, store, progress)
        (beside / out.name).rename(out)
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
    sequence: StereoSource,
    folder: Path,
    storage: str,
    prefix: str,
    store: Any,
    progress: Callable[[int, int], None] | None,
) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    stamps, poses = sequence.stamps, sequence.poses
    shift = _UNDATED_BELOW if stamps[0] < _UNDATED_BELOW else 0
    for stamp in (stamps[0] + shift, stamps[-1] + shift):
        if not 0 <= stamp < _STAMP_LIMIT:
            raise InputError(f"{folder.name}: time {stamp} ns, expected seconds in 31 bits")
    encode = _Encoder(store, sequence.frame_id)
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    # 9 is the version that ROS 2 Jazzy writes.
    with Writer(folder, version=9, storage_plugin=plugin) as writer:

        def add(topic: str, kind: str) -> Any:
            return writer.add_connection(
                topic, _TYPES[kind], typestore=store, offered_qos_profiles=[_qos()]
            )

        infos = [add(f"{prefix}/{side}/camera_info", "camera_info") for side in _SIDES]
        images = [add(f"{prefix}/{side}/image_rect", "image") for side in _SIDES]
        transforms = add(_TF, "tf") if poses is not None else None
        for index in range(len(sequence)):
            left, right, camera = sequence.read(index)
            stamp = stamps[index] + shift
            for connection, fields in zip(infos, camera_info_fields(camera), strict=True):
                writer.write(connection, stamp, encode.camera_info(fields, stamp))
            for connection, image in zip(images, (left, right), strict=True):
                writer.write(connection, stamp, encode.image(image, stamp))
            if poses is not None and transforms is not None:
                writer.write(transforms, stamp, encode.transform(poses[index], stamp))
            if progress is not None:
                progress(index + 1, len(sequence))


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


def _typestore() -> Any:
    """Definitions of the messages as in ROS 2 Jazzy; those used here have been the same in every ROS 2 since Foxy."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError:
        raise InputError(
            "rosbags: not installed, expected `pip install rosbags` to read and write bags"
        ) from None
    return get_typestore(Stores.ROS2_JAZZY)


@dataclass(frozen=True)
class _Encoder:
    """Arrays to serialised messages."""

    store: Any
    frame_id: str

    def _header(self, stamp: int, frame_id: str) -> Any:
        types = self.store.types
        time = types["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000))
        return types["std_msgs/msg/Header"](time, frame_id)

    def _serialise(self, kind: str, **fields: Any) -> bytes | memoryview:
        message = self.store.types[_TYPES[kind]](**fields)
        return self.store.serialize_cdr(message, _TYPES[kind])

    def image(self, image: np.ndarray, stamp: int) -> bytes | memoryview:
        if image.ndim == 3:
            image = as_rgb8(image)
        encoding = "rgb8" if image.ndim == 3 else f"mono{8 * image.itemsize}"
        return self._serialise(
            "image",
            header=self._header(stamp, self.frame_id),
            height=image.shape[0],
            width=image.shape[1],
            encoding=encoding,
            is_bigendian=int(sys.byteorder == "big"),
            step=image[0].nbytes,
            data=np.ascontiguousarray(image).reshape(-1).view(np.uint8),
        )

    def camera_info(self, fields: CameraInfoFields, stamp: int) -> bytes | memoryview:
        region = self.store.types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        return self._serialise(
            "camera_info",
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
        in_map = _MAP_FROM_OPTICAL @ pose
        types = self.store.types
        transform = types["geometry_msgs/msg/TransformStamped"](
            self._header(stamp, _MAP),
            self.frame_id,
            types["geometry_msgs/msg/Transform"](
                types["geometry_msgs/msg/Vector3"](*in_map[:3, 3].tolist()),
                types["geometry_msgs/msg/Quaternion"](*_quaternion(in_map[:3, :3]).tolist()),
            ),
        )
        return self._serialise("tf", transforms=[transform])


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Unit quaternion (x, y, z, w) nearest to a 3 x 3 rotation (Bar-Itzhack, 2000)."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    symmetric = np.array(
        [
            [a - e - i, b + d, c + g, h - f],
            [b + d, e - a - i, f + h, c - g],
            [c + g, f + h, i - a - e, d - b],
            [h - f, c - g, d - b, a + e + i],
        ]
    )
    return np.linalg.eigh(symmetric)[1][:, -1]


def _rotation(quaternion: np.ndarray) -> np.ndarray:
    """3 x 3 rotation of a quaternion (x, y, z, w) of any length but 0."""
    x, y, z, w = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@contextlib.contextmanager
def _reading(bag: Path) -> Iterator[None]:
    """Damaged files show in the libraries as errors of every kind; to the user they are one line."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{bag}: {reason[:200] or type(error).__name__}, expected a whole rosbag2 recording"
        ) from None


_Key = tuple[str, int, int]
"""Where to find a message: its topic, log time and stamp, ns."""


@dataclass
class _Place:
    """Where reading has come to: a file without an index is read from its start for whatever is not read on."""

    ahead: Iterator[tuple[str, int, Any]] = field(default_factory=lambda: iter(()))
    topics: frozenset[str] = frozenset()
    log_time: int = -_READ_ON
    to_the_end: bool = False
    passed: deque[tuple[_Key, Any]] = field(default_factory=lambda: deque(maxlen=_KEPT_MESSAGES))


def _close(reader: Any, place: _Place) -> None:
    # SQLite does not close what is still being read.
    place.ahead = iter(())
    reader.close()


class _Storage:
    """An open bag. Several threads may read; what was passed last is kept, which is enough to read on frame by frame."""

    def __init__(self, path: Path) -> None:
        self.store = _typestore()
        from rosbags.rosbag2 import Reader

        self.path = path
        self._lock = threading.Lock()
        self._place = _Place()
        with _reading(path):
            self._reader = Reader(_readable(path))
            self._reader.open()
        self.close = weakref.finalize(self, _close, self._reader, self._place)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Storage, (self.path,)

    @property
    def types(self) -> dict[str, str]:
        """Type of each topic; of those under one name, the first."""
        return {c.topic: c.msgtype for c in reversed(self._reader.connections)}

    @property
    def counts(self) -> dict[str, int]:
        """How many messages each topic has."""
        counts: dict[str, int] = {}
        for connection in self._reader.connections:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
        return counts

    @property
    def times(self) -> tuple[int, int]:
        """Log times of the first and the last message, ns; 0 and 0 where there is none."""
        if self._reader.message_count == 0:
            return 0, 0
        return self._reader.start_time, self._reader.end_time - 1

    def messages(
        self, topics: Sequence[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, Any]]:
        """Topic, log time in ns and content of the messages of some topics, in order of log time.

        Raises:
            InputError: the file is damaged.
        """
        types = self.types
        connections = [
            c for c in self._reader.connections if c.topic in topics and c.msgtype == types[c.topic]
        ]
        if not connections:
            return
        with _reading(self.path):
            for connection, log_time, raw in self._reader.messages(connections, start, stop):
                message = self.store.deserialize_cdr(raw, connection.msgtype)
                yield connection.topic, log_time, message

    def find(self, wanted: Sequence[_Key]) -> list[Any]:
        """The messages at some places.

        Raises:
            InputError: the file is damaged, or changed since its messages were counted.
        """
        topics = frozenset(topic for topic, _, _ in wanted)
        place = self._place
        with self._lock:
            found = {key: message for key, message in place.passed if key in wanted}
            for attempt in range(2):
                missing = [key[1] for key in wanted if key not in found]
                if not missing:
                    break
                first, last = min(missing), max(missing)
                follows = (
                    place.topics == topics and place.log_time <= first <= place.log_time + _READ_ON
                )
                if attempt or not follows or not place.to_the_end:
                    # From where reading was, for a thread may yet ask for what lies between.
                    window = (place.log_time, None) if follows else (first, last + 1)
                    place.ahead = self.messages(sorted(topics), *window)
                    place.topics, place.to_the_end = topics, follows
                for topic, log_time, message in place.ahead:
                    key = (topic, log_time, _stamp(message))
                    place.log_time = log_time
                    place.passed.append((key, message))
                    if key in wanted:
                        found.setdefault(key, message)
                    if len(found) == len(wanted) or log_time > last:
                        break
        try:
            return [found[key] for key in wanted]
        except KeyError as error:
            topic, _, stamp = error.args[0]
            raise InputError(
                f"{self.path}: no message on {topic} at {stamp} ns any more, expected a bag that nothing writes to"
            ) from None


def _readable(path: Path) -> Path:
    """The folder or file for the library to open."""
    if not path.exists():
        raise InputError(f"{path}: no such bag, expected a rosbag2 folder, .mcap or .db3 file")
    if not path.is_dir() or (path / "metadata.yaml").is_file():
        if not is_bag(path):
            raise InputError(f"{path}: not a bag, expected a rosbag2 folder, .mcap or .db3 file")
        return path
    files = _storage_files(path)
    if not files:
        raise InputError(f"{path}: not a bag, expected metadata.yaml and .mcap or .db3 files in it")
    if len(files) > 1:
        raise InputError(
            f"{path}: no metadata.yaml for its {len(files)} files, expected one (`ros2 bag reindex` writes it)"
        )
    return files[0]


def _stamp(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


@dataclass(frozen=True)
class StereoTopics:
    """Absolute names of a stereo camera's topics in a bag."""

    left_image: str
    right_image: str
    left_camera_info: str
    right_camera_info: str


@dataclass(frozen=True)
class TopicInfo:
    """What is known of a topic; the last four are None but for the stereo camera's topics, whose headers were read.

    Attributes:
        name, type: as in the bag.
        count: number of messages.
        rate_hz: by the median time between stamps, or by count and time where headers were not read; None under two.
        longest_gap_s: longest time between one stamp and the next, s.
        long_gaps: how many such times are over 1.5 times their median, which a lost frame makes.
        log_delay_s: median of log time minus stamp, s.
        jumps_back: how often the stamps jump back.
    """

    name: str
    type: str
    count: int
    rate_hz: float | None = None
    longest_gap_s: float | None = None
    long_gaps: int | None = None
    log_delay_s: float | None = None
    jumps_back: int | None = None


@dataclass(frozen=True)
class BagInfo:
    """What a bag holds, and whether a stereo estimator can use it.

    Attributes:
        path: the bag.
        size_bytes: of its files.
        start_ns, duration_s: by log time.
        topics: by name.
        stereo: names of the stereo camera's topics; None where they are not to be told.
        image: size and encoding of the left images, "1226 x 370 px rgb8"; None where there are none.
        camera: calibration of the first stereo pair; None where there is none.
        frames: stereo pairs that can be used.
        paired: left and right images whose stamps match, whether or not they can be used.
        left_images, right_images: how many came.
        scenes: stretches of frames without a gap over 1 s, a jump back in time or a new calibration.
        posed_frames: frames with a pose on /tf.
        problems: why nothing here can use it, a sentence each; empty where it can be used.
        notes: what a user should know all the same.
    """

    path: Path
    size_bytes: int
    start_ns: int
    duration_s: float
    topics: tuple[TopicInfo, ...]
    stereo: StereoTopics | None = None
    image: str | None = None
    camera: StereoCamera | None = None
    frames: int = 0
    paired: int = 0
    left_images: int = 0
    right_images: int = 0
    scenes: int = 0
    posed_frames: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def compressed(self) -> bool:
        """Whether one of the stereo camera's images is a sensor_msgs/CompressedImage."""
        images = _names(self.stereo)[:2] if self.stereo is not None else ()
        return any(t.name in images and t.type == _TYPES["compressed"] for t in self.topics)

    @property
    def node_can_use(self) -> bool:
        """Whether the live node can use what `ros2 bag play` publishes of it."""
        return not self.problems and not self.compressed


@dataclass(frozen=True, eq=False)
class BagSequence:
    """The stereo frames of a bag, in the order in which they came; images are read when a frame is asked for.

    Of the same use as a `StereoSequence` on disk. It can be pickled, and read by several threads.

    Attributes:
        path: the bag.
        stamps: the left image's stamp of each frame, ns, strictly increasing within a scene.
        scenes: index of the scene of each frame, from 0; a new one after a gap over 1 s, where time jumps back or the
            calibration changes. Frames of two scenes are no pair.
        cameras: calibration of each scene.
        frame_id: frame of the first left image.
        poses: float64 N x 4 x 4, left camera of each frame to world, m, in the optical frame (REP-103), where /tf has that
            frame at every stamp; else None. The world is the parent frame on /tf with its axes turned to an optical
            frame's.
        info: what else is in the bag.
    """

    path: Path
    stamps: Sequence[int]
    scenes: Sequence[int]
    cameras: Sequence[StereoCamera]
    frame_id: str
    poses: np.ndarray | None
    info: BagInfo
    _storage: _Storage = field(repr=False)
    _keys: Sequence[tuple[_Key, _Key]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, index: int) -> StereoFrame:
        """Frame `index` with its camera.

        Raises:
            IndexError: no such frame.
            InputError: as `read`.
        """
        left, right, camera = self.read(index)
        return StereoFrame(left, right, self.stamps[index], camera, self.frame_id)

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray, StereoCamera]:
        """Left and right image of frame `index` as they are in the bag, and their camera.

        Returns:
            uint8 or uint16; H x W where they are grey, H x W x 3 RGB where they have colour.

        Raises:
            IndexError: no such frame.
            InputError: the file is damaged, an image cannot be decoded, or the two are of different kinds.
        """
        keys, camera = self._keys[index], self.cameras[self.scenes[index]]
        names = [f"{self.path}: {topic} at {stamp} ns" for topic, _, stamp in keys]
        left, right = (
            _decode(message, name)
            for message, name in zip(self._storage.find(keys), names, strict=True)
        )
        if left.shape != right.shape or left.dtype != right.dtype:
            raise InputError(
                f"{names[1]}: image is {right.dtype} {right.shape}, expected {left.dtype} {left.shape} as the left one"
            )
        if left.shape[:2] != (camera.height, camera.width):
            raise InputError(
                f"{names[0]}: image is {left.shape[1]} x {left.shape[0]} px, expected {camera.width} x "
                f"{camera.height} px as its camera_info"
            )
        return left, right, camera


def _decode(message: Any, name: str) -> np.ndarray:
    """Pixels of an Image or CompressedImage, grey or RGB."""
    if message.__msgtype__ == _TYPES["image"]:
        return image_from_message(message, name)
    flags = cv2.IMREAD_UNCHANGED
    pixels = cv2.imdecode(message.data, flags) if len(message.data) else None
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: cannot be decoded as {message.format[:40]!r}, expected a compressed 8 or 16-bit image"
        )
    if pixels.ndim == 2:
        return pixels
    conversion = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGB
    return cv2.cvtColor(pixels, conversion)


def open_bag(
    bag: Path, namespace: str | None = None, remap: Mapping[str, str] | None = None
) -> BagSequence:
    """Open a bag folder, or one .mcap or .db3 file, as a stereo sequence.

    All image headers are read once, so that a large bag takes as long as its file takes to read; images are not kept.
    Left and right belong together if their stamps differ by at most 10 ms, less than half the time between two frames, and
    each is the other's nearest. CompressedImage is taken where there is no Image.

    Args:
        bag: folder or file.
        namespace: of left/image_rect and its like; None: the only one that there is.
        remap: topics of other names, such as {"left/image_rect": "/front/left/image_mono"}; a camera_info that is not
            named is expected beside its image.

    Raises:
        InputError: it is no bag, or is damaged, or holds no stereo frames that can be used; the message says why.
    """
    storage = _Storage(Path(bag))
    info, sequence = _survey(storage, namespace, remap)
    if sequence is None:
        raise InputError(f"{bag}: {info.problems[0]}")
    return sequence


def bag_info(
    bag: Path, namespace: str | None = None, remap: Mapping[str, str] | None = None
) -> BagInfo:
    """What a bag holds, and whether a stereo estimator can use it, and if not, why not.

    The arguments are those of `open_bag`.

    Raises:
        InputError: it is no bag, or is damaged.
    """
    storage = _Storage(Path(bag))
    try:
        return _survey(storage, namespace, remap)[0]
    finally:
        storage.close()


def _namespace_prefix(namespace: str) -> str:
    """What to put before "/left/image_rect"."""
    stripped = namespace.strip("/")
    if stripped and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", stripped, re.ASCII):
        raise InputError(f"--namespace: {namespace!r}, expected a name such as stereo or car/front")
    return f"/{stripped}" if stripped else ""


def _find_topics(
    types: Mapping[str, str], namespace: str | None, remap: Mapping[str, str]
) -> StereoTopics:
    """Names of the stereo topics; they need not all be there.

    Raises:
        InputError: they could be in several namespaces, or what is remapped is none of them.
    """
    known = [f"{side}/{name}" for name in ("image_rect", "camera_info") for side in _SIDES]
    for name in remap:
        if name not in known:
            raise InputError(f"--remap: {name!r}, expected one of {', '.join(known)}")
    if namespace is None:
        pattern = re.compile(r"(.*)/(?:left|right)/image_rect(?:/compressed)?")
        found = sorted({match[1] for name in types if (match := pattern.fullmatch(name))})
        if len(found) > 1 and not all(f"{side}/image_rect" in remap for side in _SIDES):
            names = ", ".join(prefix or "/" for prefix in found)
            raise InputError(
                f"stereo topics in {len(found)} namespaces ({names}), expected one: choose it by --namespace"
            )
        prefix = found[0] if found else ""
    else:
        prefix = _namespace_prefix(namespace)
    images = []
    for side in _SIDES:
        name = remap.get(f"{side}/image_rect", f"{prefix}/{side}/image_rect")
        name = f"/{name.lstrip('/')}"
        compressed = f"{name}/compressed"
        images.append(compressed if name not in types and compressed in types else name)
    infos = []
    for side, image in zip(_SIDES, images, strict=True):
        beside = image.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        infos.append(f"/{remap.get(f'{side}/camera_info', beside).lstrip('/')}")
    return StereoTopics(*images, *infos)


@dataclass(frozen=True)
class _Layout:
    """What an image's header says besides its time."""

    width: int
    height: int
    encoding: str
    frame_id: str

    def __str__(self) -> str:
        return f"{self.width} x {self.height} px {self.encoding}"


@dataclass
class _Column:
    """Times of a topic's messages, ns, in order of log time, and which of `kinds` each is."""

    stamps: array[int] = field(default_factory=lambda: array("q"))
    log_times: array[int] = field(default_factory=lambda: array("q"))
    kind: array[int] = field(default_factory=lambda: array("L"))
    kinds: list[Any] = field(default_factory=list)

    def add(self, stamp: int, log_time: int, kind: Any) -> None:
        self.stamps.append(stamp)
        self.log_times.append(log_time)
        if not self.kinds or self.kinds[self.kind[-1]] != kind:
            if kind not in self.kinds:
                self.kinds.append(kind)
            self.kind.append(self.kinds.index(kind))
        else:
            self.kind.append(self.kind[-1])

    def of(self, index: int) -> Any:
        return self.kinds[self.kind[index]]


@dataclass(frozen=True)
class _Calibration:
    """The numbers of a CameraInfo, comparable."""

    height: int
    width: int
    p: tuple[float, ...]
    binning_x: int
    binning_y: int
    roi: _Region


@dataclass(frozen=True)
class _Region:
    x_offset: int
    y_offset: int
    height: int
    width: int


def _calibration(message: Any) -> _Calibration:
    roi = message.roi
    return _Calibration(
        height=message.height,
        width=message.width,
        p=tuple(message.p.tolist()),
        binning_x=message.binning_x,
        binning_y=message.binning_y,
        roi=_Region(roi.x_offset, roi.y_offset, roi.height, roi.width),
    )


@dataclass
class _Index:
    """What one pass over the stereo topics and /tf found."""

    images: tuple[_Column, _Column] = field(default_factory=lambda: (_Column(), _Column()))
    infos: tuple[_Column, _Column] = field(default_factory=lambda: (_Column(), _Column()))
    pose_stamps: array[int] = field(default_factory=lambda: array("q"))
    pose_values: array[float] = field(default_factory=lambda: array("d"))


def _read_index(storage: _Storage, topics: StereoTopics, tf: bool) -> _Index:
    index = _Index()
    columns = {
        topics.left_image: index.images[0],
        topics.right_image: index.images[1],
        topics.left_camera_info: index.infos[0],
        topics.right_camera_info: index.infos[1],
    }
    first = next(storage.messages([topics.left_image]), None)
    frame_id = first[2].header.frame_id if first is not None else None
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for topic, log_time, message in storage.messages([*columns, *([_TF] if tf else [])]):
        if topic == _TF:
            for transform in message.transforms:
                if transform.child_frame_id == frame_id:
                    index.pose_stamps.append(_stamp(transform))
                    move, turn = transform.transform.translation, transform.transform.rotation
                    index.pose_values.extend(
                        (move.x, move.y, move.z, turn.x, turn.y, turn.z, turn.w)
                    )
            continue
        kind: _Layout | _Calibration
        if topic in (topics.left_camera_info, topics.right_camera_info):
            kind = _calibration(message)
        elif message.__msgtype__ == _TYPES["image"]:
            kind = _Layout(message.width, message.height, message.encoding, message.header.frame_id)
        else:
            # Decoding them all would take long; one that differs is found when it is read.
            key = (topic, message.format)
            if key not in sizes:
                height, width = _decode(message, f"{storage.path}: {topic}").shape[:2]
                sizes[key] = (width, height)
            kind = _Layout(*sizes[key], message.format, message.header.frame_id)
        columns[topic].add(_stamp(message), log_time, kind)
    return index


def _survey(
    storage: _Storage, namespace: str | None, remap: Mapping[str, str] | None
) -> tuple[BagInfo, BagSequence | None]:
    """What is in a bag, and its stereo frames where nothing is in the way."""
    path, types, counts = storage.path, storage.types, storage.counts
    start, end = storage.times
    files = [path] if path.is_file() else _storage_files(path)
    info = BagInfo(
        path=path,
        size_bytes=sum(file.stat().st_size for file in files),
        start_ns=start,
        duration_s=(end - start) * 1e-9,
        topics=tuple(
            TopicInfo(name, types[name], counts[name], _mean_rate(counts[name], end - start))
            for name in sorted(types)
        ),
    )
    if info.size_bytes > _LARGE_BAG:
        _log.info("%s: reading %.1f GB once", path, info.size_bytes * 1e-9)
    try:
        topics = _find_topics(types, namespace, remap or {})
    except InputError as error:
        return replace(info, problems=(str(error),)), None
    problems = _topic_problems(types, topics)
    info = replace(info, stereo=topics, problems=tuple(problems))
    if any(types.get(name) not in _expected_types(name, topics) for name in _names(topics)):
        return info, None
    index = _read_index(storage, topics, types.get(_TF) == _TYPES["tf"])
    columns = dict(zip(_names(topics), (*index.images, *index.infos), strict=True))
    info = replace(
        info,
        topics=tuple(
            _timed(topic, columns[topic.name]) if topic.name in columns else topic
            for topic in info.topics
        ),
    )
    # Counted here: a damaged metadata.yaml may promise what is not there.
    problems += [
        f"no messages on {name}"
        for name, column in columns.items()
        if name in types and not column.stamps
    ]
    if problems:
        return replace(info, problems=tuple(problems)), None

    left, right = index.images
    pairs = _pair(left.stamps, right.stamps)
    info = replace(
        info,
        left_images=len(left.stamps),
        right_images=len(right.stamps),
        paired=len(pairs),
        image=str(left.of(0)),
    )
    if not pairs:
        return replace(info, problems=(_pairing_problem(left.stamps, right.stamps),)), None
    frames, causes = _calibrated(pairs, index, topics)
    if not frames:
        return replace(info, problems=tuple(causes)), None

    stamps = [left.stamps[pair[0]] for pair, _ in frames]
    scenes, cameras = _scenes(stamps, [camera for _, camera in frames])
    poses, posed = _poses(index, stamps)
    info = replace(
        info,
        camera=cameras[0],
        frames=len(frames),
        scenes=len(cameras),
        posed_frames=posed,
    )
    info = replace(info, notes=(*_notes(info, index), *causes))
    keys = [
        (
            (topics.left_image, left.log_times[i], left.stamps[i]),
            (topics.right_image, right.log_times[j], right.stamps[j]),
        )
        for (i, j), _ in frames
    ]
    frame_id = left.of(0).frame_id
    sequence = BagSequence(path, stamps, scenes, cameras, frame_id, poses, info, storage, keys)
    return info, sequence


def _names(topics: StereoTopics) -> tuple[str, str, str, str]:
    return (
        topics.left_image,
        topics.right_image,
        topics.left_camera_info,
        topics.right_camera_info,
    )


def _expected_types(name: str, topics: StereoTopics) -> tuple[str | None, ...]:
    """Types that a topic may have; None: it may be absent."""
    if name in (topics.left_image, topics.right_image):
        return (_TYPES["image"], _TYPES["compressed"], None)
    return (_TYPES["camera_info"], None)


def _topic_problems(types: Mapping[str, str], topics: StereoTopics) -> list[str]:
    if not types:
        return ["no topics, expected left/image_rect and right/image_rect"]
    problems = []
    for name in _names(topics):
        expected = _expected_types(name, topics)
        if name not in types:
            problems.append(f"no {name}" + _instead(name, types, expected[0]))
        elif types[name] not in expected:
            problems.append(f"{name} is {types[name]}, expected {expected[0]}")
    return problems


def _instead(name: str, types: Mapping[str, str], wanted: str | None) -> str:
    """What the user may have meant."""
    raw = name.replace("image_rect", "image_raw")
    if raw != name and raw in types:
        return f", only {raw}, which is not rectified: expected rectified images (image_proc makes them)"
    others = sorted(other for other, kind in types.items() if kind == wanted)
    listed = f"; of that type there are {', '.join(others[:6])}" if others else ""
    return f", expected {wanted}{listed}"


def _mean_rate(count: int, duration: int) -> float | None:
    return (count - 1) / (duration * 1e-9) if count > 1 and duration > 0 else None


def _runs(stamps: np.ndarray) -> np.ndarray:
    """Number of the stretch of each message, from 0; a new one where time jumps back by more than a scene's gap."""
    return np.concatenate([[0], np.cumsum(np.diff(stamps) < -_SCENE_GAP)])


def _timed(topic: TopicInfo, column: _Column) -> TopicInfo:
    """A topic with what the stamps of its messages say."""
    if not column.stamps:
        return replace(topic, count=0, rate_hz=None)
    stamps = np.array(column.stamps, np.int64)
    runs = _runs(stamps)
    steps = np.concatenate(
        [np.diff(np.sort(stamps[runs == run])) for run in range(int(runs[-1]) + 1)]
    )
    typical = float(np.median(steps)) if len(steps) else 0.0
    return TopicInfo(
        topic.name,
        topic.type,
        len(stamps),
        rate_hz=1e9 / typical if typical > 0 else None,
        longest_gap_s=float(steps.max()) * 1e-9 if len(steps) else None,
        long_gaps=int((steps > _LONG_INTERVAL * typical).sum()),
        log_delay_s=float(np.median(np.array(column.log_times, np.int64) - stamps)) * 1e-9,
        jumps_back=int((np.diff(stamps) < 0).sum()),
    )


def _pair(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Numbers of the left and right messages that belong together, in order of time."""
    sides = [np.array(stamps, np.int64) for stamps in (left, right)]
    runs = [_runs(stamps) for stamps in sides]
    pairs: list[tuple[int, int]] = []
    for run in range(int(min(runs[0][-1], runs[1][-1])) + 1):
        members = [np.flatnonzero(number == run) for number in runs]
        # Sorted, and of equal stamps the first.
        kept = [
            who[np.unique(stamps[who], return_index=True)[1]]
            for stamps, who in zip(sides, members, strict=True)
        ]
        a, b = sides[0][kept[0]], sides[1][kept[1]]
        nearest = _nearest(a, b)
        mutual = _nearest(b, a)[nearest] == np.arange(len(a))
        steps = [float(np.median(np.diff(side))) for side in (a, b) if len(side) > 1]
        tolerance = min([_TOLERANCE, *((step - 1) // 2 for step in steps)])
        matched = np.flatnonzero(mutual & (np.abs(a - b[nearest]) <= tolerance))
        pairs += [(int(kept[0][i]), int(kept[1][nearest[i]])) for i in matched]
    return pairs


def _nearest(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Index of the nearest of the others, which are sorted, for each value."""
    after = np.searchsorted(others, values).clip(max=len(others) - 1)
    before = (after - 1).clip(min=0)
    return np.where(
        np.abs(values - others[before]) <= np.abs(others[after] - values), before, after
    )


def _pairing_problem(left: Sequence[int], right: Sequence[int]) -> str:
    a, b = np.array(left, np.int64), np.sort(np.array(right, np.int64))
    difference = float(np.median(np.abs(a - b[_nearest(a, b)]))) * 1e-6
    return (
        f"left and right stamps do not match: {difference:.3f} ms apart (median), expected at most "
        f"{_TOLERANCE * 1e-6:g} ms and under half the time between frames"
    )


def _calibrated(
    pairs: list[tuple[int, int]], index: _Index, topics: StereoTopics
) -> tuple[list[tuple[tuple[int, int], StereoCamera]], list[str]]:
    """The pairs that can be used with their cameras, and a sentence for each cause why others cannot."""
    left, right = index.images
    frames = []
    causes: dict[str, int] = {}
    cameras: dict[tuple[Any, Any], StereoCamera | str] = {}
    for i, j in pairs:
        left_info, right_info = (_in_force(column, left.log_times[i]) for column in index.infos)
        infos = left_info, right_info
        if infos not in cameras:
            try:
                cameras[infos] = camera_from_messages(
                    left_info, right_info, topics.left_camera_info, topics.right_camera_info
                )
            except InputError as error:
                cameras[infos] = str(error)
        camera, cause = cameras[infos], None
        sizes = [(layout.width, layout.height) for layout in (left.of(i), right.of(j))]
        if sizes[0] != sizes[1]:
            cause = (
                f"sizes differ: left {sizes[0][0]} x {sizes[0][1]} px, right {sizes[1][0]} x {sizes[1][1]} px, "
                "expected one size"
            )
        elif isinstance(camera, str):
            cause = camera
        elif sizes[0] != (camera.width, camera.height):
            cause = (
                f"images are {sizes[0][0]} x {sizes[0][1]} px but camera_info is for {camera.width} x "
                f"{camera.height} px, expected one size"
            )
        if cause is None and isinstance(camera, StereoCamera):
            frames.append(((i, j), camera))
        elif cause is not None:
            causes[cause] = causes.get(cause, 0) + 1
    return frames, [f"{cause} ({count} of {len(pairs)} pairs)" for cause, count in causes.items()]


def _in_force(infos: _Column, log_time: int) -> Any:
    """The last calibration that came up to a time, or the first."""
    position = int(np.searchsorted(infos.log_times, log_time, side="right")) - 1
    return infos.of(max(position, 0))


def _scenes(stamps: list[int], cameras: list[StereoCamera]) -> tuple[list[int], list[StereoCamera]]:
    """Scene of each frame, and the camera of each scene."""
    scenes, of_scene = [0], [cameras[0]]
    for index in range(1, len(stamps)):
        step = stamps[index] - stamps[index - 1]
        if not 0 < step <= _SCENE_GAP or cameras[index] != cameras[index - 1]:
            of_scene.append(cameras[index])
        scenes.append(len(of_scene) - 1)
    return scenes, of_scene


def _poses(index: _Index, stamps: list[int]) -> tuple[np.ndarray | None, int]:
    """Left camera to world of each frame, N x 4 x 4, where /tf has them all; and how many it has."""
    if not index.pose_stamps:
        return None, 0
    times = np.array(index.pose_stamps, np.int64)
    order = np.argsort(times, kind="stable")
    wanted = np.array(stamps, np.int64)
    nearest = order[_nearest(wanted, times[order])]
    found = np.abs(times[nearest] - wanted) <= _POSE_TOLERANCE
    values = np.array(index.pose_values, np.float64).reshape(-1, 7)[nearest]
    found &= np.isfinite(values).all(axis=1) & (np.linalg.norm(values[:, 3:], axis=1) > 0)
    if not found.all():
        return None, int(found.sum())
    poses = np.tile(np.eye(4), (len(stamps), 1, 1))
    poses[:, :3, 3] = values[:, :3]
    poses[:, :3, :3] = [_rotation(quaternion) for quaternion in values[:, 3:]]
    return _MAP_FROM_OPTICAL.T @ poses, len(stamps)


def _notes(info: BagInfo, index: _Index) -> list[str]:
    """What a user should know of a bag that can be used."""
    notes = []
    if info.compressed:
        notes.append(
            "images are compressed: `dwarf play` decodes them, `ros2 bag play` does not (image_transport's republish does)"
        )
    alone = info.left_images + info.right_images - 2 * info.paired
    if alone:
        notes.append(f"{alone} images have no partner of the same time")
    if index.pose_stamps and info.posed_frames < info.frames:
        notes.append(
            f"/tf has a pose for {info.posed_frames} of {info.frames} frames, expected all: poses are not used"
        )
    frame_ids = sorted({layout.frame_id for column in index.images for layout in column.kinds})
    if len(frame_ids) > 1:
        notes.append(
            f"images have frames {', '.join(frame_ids)}: the left camera's is taken (REP-104)"
        )
    left = index.images[0]
    delay_s = float(np.median(np.array(left.log_times) - np.array(left.stamps))) * 1e-9
    if abs(delay_s) > 1.0:
        notes.append(
            f"log times are {delay_s:.3f} s after the stamps, expected under 1 s: a /clock by log time does not fit them"
        )
    return notes


def print_bag_info(info: BagInfo, file: TextIO | None = None) -> None:
    """Print a bag's information as text, on a terminal in its width and in colour.

    Args:
        info: from `bag_info`.
        file: where to print; None: standard output.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(file=file, highlight=False)
    if not console.is_terminal:
        console = Console(file=file, highlight=False, width=160)
    size = f"{info.size_bytes / 1e6:.1f} MB"
    console.print(
        f"[bold]{escape(str(info.path))}[/]  {size}, {info.duration_s:.3f} s from {info.start_ns * 1e-9:.3f} s"
    )
    stereo = _names(info.stereo) if info.stereo is not None else ()
    table = Table("topic", "type", box=None, pad_edge=False)
    for heading in ("count", "rate Hz", "longest gap s", "gaps", "log - stamp ms", "back"):
        table.add_column(heading, justify="right")
    for topic in info.topics:
        timed = topic.log_delay_s is not None
        table.add_row(
            f"[bold]{escape(topic.name)}[/]" if topic.name in stereo else escape(topic.name),
            escape(topic.type),
            str(topic.count),
            "-" if topic.rate_hz is None else f"{topic.rate_hz:.2f}",
            "-" if topic.longest_gap_s is None else f"{topic.longest_gap_s:.3f}",
            str(topic.long_gaps) if timed else "-",
            f"{topic.log_delay_s * 1e3:.1f}" if topic.log_delay_s is not None else "-",
            str(topic.jumps_back) if timed else "-",
        )
    console.print(table)
    console.print(
        f"gaps: times between stamps over {_LONG_INTERVAL:g} of their median; back: jumps back in time",
        style="dim",
    )
    if info.image is not None:
        console.print(
            f"images: {escape(info.image)}; {info.left_images} left, {info.right_images} right, {info.paired} pairs"
        )
    if info.camera is not None:
        camera = info.camera
        console.print(
            f"camera: baseline {camera.baseline:.4f} m, focal length {camera.fx:.2f} px, "
            f"{camera.width} x {camera.height} px"
        )
        console.print(
            f"frames: {info.frames} in {info.scenes} scene{'s' if info.scenes > 1 else ''}, {info.posed_frames} with a pose"
        )
    for note in info.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    if info.problems:
        console.print("[red]cannot be used:[/]")
    for problem in info.problems:
        console.print(f"  - {escape(problem)}", soft_wrap=True)
    if not info.problems:
        where = "the live node and `dwarf play`" if info.node_can_use else "`dwarf play` only"
        console.print(f"[green]can be used[/] by {where}{_how(info)}", soft_wrap=True)


def _how(info: BagInfo) -> str:
    """How to start the node for it, where its topics are not under their own names."""
    from rich.markup import escape

    if info.stereo is None or not info.node_can_use:
        return ""
    prefix = info.stereo.left_image.removesuffix("/left/image_rect")
    if info.stereo == _find_topics({}, prefix, {}):
        return f" (in namespace {escape(prefix)})" if prefix else ""
    names = ("left/image_rect", "right/image_rect", "left/camera_info", "right/camera_info")
    arguments = [
        f"-r {name}:={topic}" for name, topic in zip(names, _names(info.stereo), strict=True)
    ]
    return escape(f" with --ros-args {' '.join(arguments)}")
