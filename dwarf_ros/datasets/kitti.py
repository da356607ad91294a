"""KITTI's data sets: scene flow 2015 (stereo and multi-view), 2012, and raw and odometry drives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from dwarf_ros.formats import read_disparity_png, read_flow_png, read_image
from dwarf_ros.recordings import Recording
from dwarf_ros.recordings.bag.storage import is_bag
from dwarf_ros.recordings.folders import open_folder, open_scenes
from dwarf_ros.samples import Maps, Sample, SampleTruth, make_sample
from dwarf_ros.types import InputError, StereoFrame

PARTS = ("training", "testing")

_BENCHMARK_FRAME = "10"
"""The frame of a scene that the benchmarks ask for, and the one that has ground truth."""


@dataclass(frozen=True)
class _Layout:
    title: str
    cameras: tuple[
        tuple[str, str, bool], ...
    ]  # left and right folder, and whether they are in color
    calibration: str
    disparity: str
    flow: str
    every_frame: bool = False
    disparity_next: str | None = None
    objects: str | None = None

    @property
    def truths(self) -> list[str]:
        maps = [self.disparity, self.disparity_next, self.flow]
        return [name.format(kind) for name in maps if name for kind in ("occ", "noc")]

    def tree(self, root: Path, part: str) -> str:
        """What a correct folder looks like, in a line."""
        cameras = " or ".join(f"{left}/ and {right}/" for left, right, _ in self.cameras)
        images = (
            "000000_00.png 000000_01.png ..." if self.every_frame else "000000_10.png 000000_11.png"
        )
        tree = f"{root / part}/ with {cameras} ({images}), {self.calibration}/ (000000.txt)"
        if part == "training":
            folders = [*self.truths, *([self.objects] if self.objects else [])]
            tree += f" and, for ground truth, {'/ '.join(folders)}/ (000000_10.png)"
        return f"{self.title}: {tree}"


_KITTI_2015 = _Layout(
    title="KITTI 2015 scene flow",
    cameras=(("image_2", "image_3", True),),
    calibration="calib_cam_to_cam",
    disparity="disp_{}_0",
    disparity_next="disp_{}_1",
    flow="flow_{}",
    objects="obj_map",
)

_KITTI_2015_MULTIVIEW = _Layout(
    **{**vars(_KITTI_2015), "title": "KITTI 2015 multi-view", "every_frame": True}
)

_KITTI_2012 = _Layout(
    title="KITTI 2012",
    cameras=(("colored_0", "colored_1", True), ("image_0", "image_1", False)),
    calibration="calib",
    disparity="disp_{}",
    flow="flow_{}",
)


class _FramePairs:
    """Pairs of frames of a recording, as samples.

    Attributes:
        title: of the data set.
        names: of the samples.
    """

    title: str
    names: list[str]
    _sequence: Recording
    _pairs: list[tuple[int, int]]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return make_sample(self.names[index], self.frames(index), self.ground_truth(index))

    def images(self, index: int) -> tuple[Path, Path, Path, Path]:
        """Files of a sample's left and right image, previous then current."""
        assert self._sequence.files is not None
        first, second = (self._sequence.files[number] for number in self._pairs[index])
        return (*first, *second)

    def frames(self, index: int) -> tuple[StereoFrame, StereoFrame]:
        """A sample's two frames.

        Raises:
            InputError: an image is missing, damaged or of another size than the others.
        """
        previous, current = (self._sequence[number] for number in self._pairs[index])
        if current.left.shape != previous.left.shape:
            files = self.images(index)
            raise InputError(
                f"{files[2]}: image is {current.left.shape[1]} x {current.left.shape[0]} px, expected "
                f"{previous.left.shape[1]} x {previous.left.shape[0]} px as {files[0]}"
            )
        return previous, current

    def ground_truth(self, index: int) -> SampleTruth | None:
        """A sample's ground truth; None where there is none."""
        return None


class _Scenes(_FramePairs):
    """Frames NNNNNN_FF of a training/ or testing/ folder, each paired with the next one of its scene."""

    _layout: ClassVar[_Layout]

    def __init__(self, root: Path, part: str = "training") -> None:
        """List the samples and check the layout.

        Args:
            root: the folder with training/ and testing/ in it.
            part: training or testing.

        Raises:
            InputError: an unknown part; or a folder, an image or a calibration is missing, or some ground truth is where
                other ground truth is there. The message names the first that is missing and what is expected.
        """
        if part not in PARTS:
            raise InputError(f"part {part!r} is unknown, expected {' or '.join(PARTS)}")
        self.root = Path(root)
        self.part = part
        self.title = f"{self._layout.title}, {part}"
        self._folder = self.root / part
        self._sequence = self._open()
        self._pairs = self._find_pairs()
        self.names = [self._sequence.names[first] for first, _ in self._pairs]
        present = [(self._folder / name).is_dir() for name in self._layout.truths]
        self._has_truth = part == "training" and any(present)
        if self._has_truth:
            self._check_truths()

    def ground_truth(self, index: int) -> SampleTruth | None:
        """A sample's ground truth; None where there is none.

        Raises:
            InputError: a file is missing, damaged or of another kind.
        """
        name = f"{self.names[index]}.png"
        if not self._has_truth or not name.endswith(f"_{_BENCHMARK_FRAME}.png"):
            return None
        objects = None
        if self._layout.objects is not None and (self._folder / self._layout.objects).is_dir():
            file = self._folder / self._layout.objects / name
            objects = read_image(file)
            if objects.ndim != 2:
                raise InputError(f"{file}: is a color image, expected a gray object map")
        return SampleTruth(self._maps("occ", name), self._maps("noc", name), objects)

    def _maps(self, kind: str, name: str) -> Maps:
        layout = self._layout
        disparity_next = None
        if layout.disparity_next is not None:
            file = self._folder / layout.disparity_next.format(kind) / name
            disparity_next = read_disparity_png(file)
        return Maps(
            read_disparity_png(self._folder / layout.disparity.format(kind) / name),
            disparity_next,
            read_flow_png(self._folder / layout.flow.format(kind) / name),
        )

    def _missing(self, path: Path) -> InputError:
        return InputError(f"{path}: missing, expected {self._layout.tree(self.root, self.part)}")

    def _open(self) -> Recording:
        layout = self._layout
        cameras = layout.cameras[0]
        for candidate in reversed(layout.cameras):
            if any((self._folder / name).is_dir() for name in candidate[:2]):
                cameras = candidate
        left, right, color = cameras
        for path in (
            self._folder,
            *(self._folder / name for name in (left, right, layout.calibration)),
        ):
            if not path.is_dir():
                raise self._missing(path)
        return open_scenes(self._folder, left, right, color)

    def _find_pairs(self) -> list[tuple[int, int]]:
        files = [left for left, _ in self._sequence.files or ()]
        pairs = []
        for index, file in enumerate(files):
            scene, frame = file.stem.split("_")
            if not self._layout.every_frame and frame != _BENCHMARK_FRAME:
                continue
            following = file.with_name(f"{scene}_{int(frame) + 1:02d}{file.suffix}")
            later = files[index + 1] if index + 1 < len(files) else None
            if later == following:
                pairs.append((index, index + 1))
            elif not self._layout.every_frame or (later and later.name.startswith(f"{scene}_")):
                raise self._missing(following)
        if not pairs:
            raise self._missing(files[0].with_name(f"{files[0].stem[:6]}_{_BENCHMARK_FRAME}.png"))
        return pairs

    def _check_truths(self) -> None:
        names = [f"{name}.png" for name in self.names if name.endswith(f"_{_BENCHMARK_FRAME}")]
        folders = list(self._layout.truths)
        # Copies of the benchmark often lack it; then nothing is known of background and foreground.
        if self._layout.objects is not None and (self._folder / self._layout.objects).is_dir():
            folders.append(self._layout.objects)
        for folder in (self._folder / name for name in folders):
            if not folder.is_dir():
                raise self._missing(folder)
            present = {file.name for file in folder.iterdir()}
            for name in names:
                if name not in present:
                    raise self._missing(folder / name)


class Kitti2015(_Scenes):
    """KITTI 2015 scene flow: 200 training and 200 testing scenes, frame 10 of each paired with frame 11.

    Reference: Menze and Geiger, "Object scene flow for autonomous vehicles", CVPR 2015.
    """

    _layout = _KITTI_2015


class Kitti2015MultiView(_Scenes):
    """KITTI 2015 multi-view: the scenes of `Kitti2015` from frame 00 to 20, each paired with the next.

    Frame 10 has ground truth where the scene-flow release is unpacked in the same place.
    """

    _layout = _KITTI_2015_MULTIVIEW


class Kitti2012(_Scenes):
    """KITTI 2012: 194 training and 195 testing scenes, frame 10 of each paired with frame 11; color where it is there.

    Its ground truth has no disparity of the second frame and no objects.

    Reference: Geiger, Lenz and Urtasun, "Are we ready for autonomous driving?", CVPR 2012.
    """

    _layout = _KITTI_2012


class KittiDrive(_FramePairs):
    """Every two consecutive frames of a KITTI raw or odometry drive, or of any folder of images that `open_folder` reads.

    Attributes:
        poses: float64 N x 4 x 4 for the N frames, left camera to world, m; sample i is of frames i and i + 1. None where
            they are unknown.
    """

    def __init__(self, folder: Path) -> None:
        """List the samples and check the layout.

        Raises:
            InputError: as `open_folder`, it is a bag, or there is no pair of consecutive frames.
        """
        if is_bag(folder):
            raise InputError(f"{folder}: is a bag, expected a folder of stereo images")
        self._sequence = open_folder(folder)
        self._pairs = self._sequence.pairs()
        self.title = f"stereo drive {Path(folder).resolve().name}"
        self.names = [self._sequence.names[first] for first, _ in self._pairs]

    @property
    def poses(self) -> np.ndarray | None:
        """As described under `KittiDrive`."""
        return self._sequence.poses
