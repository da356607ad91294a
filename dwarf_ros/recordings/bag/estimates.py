"""What a running node published on its topic `estimate`, out of a bag that recorded it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dwarf_ros.recordings.bag.frames import decode_image
from dwarf_ros.recordings.bag.storage import MessageKey, Storage, header_stamp
from dwarf_ros.recordings.scene_flow_messages import SCENE_FLOW_TYPE, scene_flow_from_message
from dwarf_ros.recordings.white_level import white_level
from dwarf_ros.types import InputError, SceneFlow, as_rgb8

ESTIMATE_TOPIC = "estimate"

# An estimate is recorded at most so long after its image, ns.
_LATEST = 5_000_000_000


@dataclass(frozen=True, eq=False)
class Estimate:
    """One estimate of a node.

    Attributes:
        scene_flow: what it published.
        received: time at which it was recorded, ns since 1970.
        estimator: name of what computed it.
    """

    scene_flow: SceneFlow
    received: int
    estimator: str


@dataclass(frozen=True, eq=False)
class RecordedEstimates:
    """The estimates of a node in the order in which they were recorded, read when they are asked for; can be pickled.

    Attributes:
        path: the bag.
        topic: where the node published them; "" where there are none.
    """

    path: Path
    topic: str
    _storage: Storage = field(repr=False)
    _keys: Sequence[MessageKey] = field(repr=False)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Estimate:
        """Estimate `index`.

        Raises:
            IndexError: no such estimate.
            InputError: the bag is damaged, or the message is of no scene flow.
        """
        key = self._keys[index]
        (message,) = self._storage.find([key])
        scene_flow = scene_flow_from_message(message, f"{self.path}: {self.topic} at {key[2]} ns")
        return Estimate(scene_flow, key[1], message.estimator)

    def __iter__(self) -> Iterator[Estimate]:
        return (self[index] for index in range(len(self)))

    def left_image(self, index: int) -> np.ndarray | None:
        """The left image that estimate `index` is of, uint8 RGB, H x W x 3; None where the bag does not hold it.

        Raises:
            InputError: the bag is damaged, or the image cannot be decoded.
        """
        _, log_time, stamp = self._keys[index]
        image = self.topic.removesuffix(ESTIMATE_TOPIC) + "left/image_rect"
        topics = (image, f"{image}/compressed")
        for topic, _, message in self._storage.messages(topics, log_time - _LATEST, log_time + 1):
            if header_stamp(message) == stamp:
                left = decode_image(message, f"{self.path}: {topic}")
                return as_rgb8(left, white=white_level([left]))
        return None


def open_estimates(bag: Path, namespace: str | None = None) -> RecordedEstimates:
    """The estimates that a bag holds; none where there are none.

    Args:
        bag: folder or file.
        namespace: of the node; None: the only one that there is.

    Raises:
        InputError: it is no bag or damaged, or it has estimates of several nodes and none is chosen.
    """
    storage = Storage(Path(bag))
    counts = storage.counts
    found = [topic for topic, kind in storage.types.items() if kind == SCENE_FLOW_TYPE]
    found = sorted(topic for topic in found if counts[topic])
    if namespace is not None:
        wanted = "/".join(["", *filter(None, namespace.split("/")), ESTIMATE_TOPIC])
        found = [topic for topic in found if topic == wanted]
    if len(found) > 1:
        raise InputError(
            f"{bag}: estimates on {', '.join(found)}, expected one: choose it by its namespace"
        )
    keys = [
        (topic, log_time, header_stamp(message))
        for topic, log_time, message in storage.messages(found)
    ]
    return RecordedEstimates(Path(bag), found[0] if found else "", storage, keys)
