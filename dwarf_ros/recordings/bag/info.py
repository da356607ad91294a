"""What a bag holds, and whether a stereo estimator can use it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import numpy as np

from dwarf_ros.recordings.bag.frames import BagFrameReader, BagFrames
from dwarf_ros.recordings.bag.index import (
    SCENE_GAP,
    Column,
    Index,
    calibrated_pairs,
    pair_stamps,
    pairing_problem,
    poses_of,
    read_index,
    runs_of,
    scenes_of,
)
from dwarf_ros.recordings.bag.storage import (
    MESSAGE_TYPES,
    TF_TOPIC,
    Storage,
    storage_files,
)
from dwarf_ros.recordings.bag.topics import (
    StereoTopics,
    expected_types,
    find_topics,
    topic_problems,
)
from dwarf_ros.types import InputError, StereoCamera

_log = logging.getLogger(__name__)

_LONG_INTERVAL = 1.5
_LARGE_BAG = 2 << 30


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
        stereo: names of the stereo camera's topics; None where they are unknown.
        image: size and encoding of the left images, "1226 x 370 px rgb8"; None where there are none.
        camera: calibration of the first stereo pair; None where there is none.
        frames: stereo pairs that can be used.
        paired: left and right images whose stamps match, whether or not they can be used.
        left_images, right_images: how many came.
        scenes: stretches of frames without a gap over 1 s, a jump back in time or a new calibration.
        posed_frames: frames with a pose on /tf.
        problems: why nothing here can use it, a sentence each; empty where it can be used.
        unused: why some stereo pairs cannot be used, a sentence each.
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
    unused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def compressed(self) -> bool:
        """Whether one of the stereo camera's images is a sensor_msgs/CompressedImage."""
        images = self.stereo.names[:2] if self.stereo is not None else ()
        return any(t.name in images and t.type == MESSAGE_TYPES["compressed"] for t in self.topics)

    @property
    def node_can_use(self) -> bool:
        """Whether the live node can use what `ros2 bag play` publishes of it."""
        return not self.problems and not self.compressed


def bag_info(
    bag: Path, namespace: str | None = None, remap: Mapping[str, str] | None = None
) -> BagInfo:
    """What a bag holds, and whether a stereo estimator can use it, and if not, why not.

    The arguments are those of `open_bag`.

    Raises:
        InputError: it is no bag, or is damaged.
    """
    storage = Storage(Path(bag))
    try:
        info, frames = survey(storage, namespace, remap)
        # Whether compressed pictures are whole shows only when they are decoded.
        if frames is not None and not info.problems:
            problem = BagFrameReader(storage, frames).problem()
            info = replace(info, problems=(problem,) if problem else ())
        return replace(info, notes=(*info.notes, *storage.damage))
    finally:
        storage.close()


def survey(
    storage: Storage, namespace: str | None, remap: Mapping[str, str] | None
) -> tuple[BagInfo, BagFrames | None]:
    """What is in a bag, and its stereo frames where nothing is in the way."""
    path, types, counts = storage.path, storage.types, storage.counts
    start, end = storage.times
    files = [path] if path.is_file() else storage_files(path)
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
        topics = find_topics(types, namespace, remap or {})
    except InputError as error:
        return replace(info, problems=(str(error),)), None
    problems = topic_problems(types, topics)
    info = replace(info, stereo=topics, problems=tuple(problems))
    if any(types.get(name) not in expected_types(name, topics) for name in topics.names):
        return info, None
    index = read_index(storage, topics, types.get(TF_TOPIC) == MESSAGE_TYPES["tf"])
    columns = dict(zip(topics.names, (*index.images, *index.infos), strict=True))
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
    pairs = pair_stamps(left.stamps, right.stamps)
    info = replace(
        info,
        left_images=len(left.stamps),
        right_images=len(right.stamps),
        paired=len(pairs),
        image=str(left.of(0)),
    )
    if len(left.stamps) > 1 and len(set(left.stamps)) == 1:
        problem = (
            f"all {len(left.stamps)} left images have one stamp, {left.stamps[0] * 1e-9:.3f} s, expected the time at "
            "which each was taken"
        )
        return replace(info, problems=(problem,)), None
    if not pairs:
        return replace(info, problems=(pairing_problem(left.stamps, right.stamps),)), None
    frames, causes = calibrated_pairs(pairs, index, topics)
    if not frames:
        return replace(info, problems=tuple(causes)), None

    stamps = [left.stamps[pair[0]] for pair, _ in frames]
    scenes, cameras = scenes_of(stamps, [camera for _, camera in frames])
    poses, posed = poses_of(index, stamps)
    info = replace(
        info,
        camera=cameras[0],
        frames=len(frames),
        scenes=len(cameras),
        posed_frames=posed,
    )
    info = replace(
        info,
        problems=tuple(_scene_problems(stamps, scenes)),
        unused=tuple(causes),
        notes=tuple(_notes(info, index)),
    )
    keys = [
        (
            (topics.left_image, left.log_times[i], left.stamps[i]),
            (topics.right_image, right.log_times[j], right.stamps[j]),
        )
        for (i, j), _ in frames
    ]
    frames_found = BagFrames(stamps, scenes, cameras, left.of(0).frame_id, poses, keys)
    return info, frames_found


def _scene_problems(stamps: Sequence[int], scenes: Sequence[int]) -> list[str]:
    """Why there is nothing to estimate from frames that can be read."""
    if len(set(scenes)) < len(scenes):
        return []
    if len(stamps) == 1:
        return ["only one stereo frame, expected a series of frames"]
    steps = [later - earlier for earlier, later in pairwise(stamps) if later > earlier]
    closest = f", the closest are {min(steps) * 1e-9:.3f} s apart" if steps else ""
    return [
        f"no two consecutive frames within {SCENE_GAP * 1e-9:g} s and of one calibration{closest}, expected a series of "
        "frames"
    ]


def _mean_rate(count: int, duration: int) -> float | None:
    return (count - 1) / (duration * 1e-9) if count > 1 and duration > 0 else None


def _timed(topic: TopicInfo, column: Column) -> TopicInfo:
    """A topic with what the stamps of its messages say."""
    if not column.stamps:
        return replace(topic, count=0, rate_hz=None)
    stamps = np.array(column.stamps, np.int64)
    runs = runs_of(stamps)
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


def _notes(info: BagInfo, index: Index) -> list[str]:
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
    """Print a bag's information as text, on a terminal in its width and in color.

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
    stereo = info.stereo.names if info.stereo is not None else ()
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
    for note in (*info.notes, *info.unused):
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
    if info.stereo == find_topics({}, prefix, {}):
        return f" (in namespace {escape(prefix)})" if prefix else ""
    names = ("left/image_rect", "right/image_rect", "left/camera_info", "right/camera_info")
    arguments = [
        f"-r {name}:={topic}" for name, topic in zip(names, info.stereo.names, strict=True)
    ]
    return escape(f" with --ros-args {' '.join(arguments)}")
