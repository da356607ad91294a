"""Data sets and their parts by name, the five published splits of KITTI 2015 for training, and folders of proxy labels.

The splits are those of Aleotti et al., "Learning End-to-End Scene Flow by Distilling Single Tasks Knowledge", AAAI 2020:
either the benchmark's sparse ground truth at frame 10, or proxies, the dense estimates of other methods, at every frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from dwarf_ros.datasets import flyingthings3d, kitti
from dwarf_ros.datasets.flyingthings3d import FlyingThings3D, SceneFlowRelease
from dwarf_ros.datasets.kitti import Kitti2012, Kitti2015, Kitti2015MultiView, KittiDrive
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS
from dwarf_ros.recordings.result_folder import ResultFolder
from dwarf_ros.samples import Dataset, Sample, SampleTruth, make_sample
from dwarf_ros.types import InputError, StereoFrame

DATASETS = (
    "kitti2015",
    "kitti2015_multiview",
    "kitti2012",
    "kitti_drive",
    "flyingthings3d",
    "driving",
    "monkaa",
    "proxies",
)

_BENCHMARK_FRAME = 10


class SplitEntry(NamedTuple):
    """One sample of a split: a frame of a KITTI 2015 training scene, paired with the next, and what it is labelled with."""

    sequence: int
    frame: int
    kind: Literal["ground_truth", "proxy"]

    @property
    def name(self) -> str:
        """The sample's name, e.g. "000010_10"."""
        return f"{self.sequence:06d}_{self.frame:02d}"


@dataclass(frozen=True)
class _Split:
    sequences: int
    proxies: bool
    ground_truth: bool

    def entries(self) -> list[SplitEntry]:
        frames = range(20) if self.proxies else (_BENCHMARK_FRAME,)
        return [
            SplitEntry(sequence, frame, self._kind(frame))
            for sequence in range(self.sequences)
            for frame in frames
        ]

    def _kind(self, frame: int) -> Literal["ground_truth", "proxy"]:
        return "ground_truth" if self.ground_truth and frame == _BENCHMARK_FRAME else "proxy"


_SPLITS = {
    "kitti_160": _Split(160, proxies=False, ground_truth=True),
    "kitti_multiview_partial": _Split(160, proxies=True, ground_truth=False),
    "kitti_mixed": _Split(160, proxies=True, ground_truth=True),
    "kitti_multiview": _Split(200, proxies=True, ground_truth=False),
    "kitti_200": _Split(200, proxies=False, ground_truth=True),
}

SPLITS = tuple(_SPLITS)


def split(name: str, root: Path) -> list[SplitEntry]:
    """Samples of a published split, in order; their images are there.

    kitti_160: scenes 0 to 159, frame 10, ground truth (the other 40 scenes validate). kitti_multiview_partial: the same
    scenes, frames 00 to 19, proxies; kitti_mixed: as that one, with ground truth at frame 10. kitti_multiview: scenes 0 to
    199, frames 00 to 19, proxies. kitti_200: scenes 0 to 199, frame 10, ground truth.

    Args:
        name: one of `SPLITS`.
        root: KITTI 2015, the folder with training/ in it; with proxies the multi-view release.

    Raises:
        InputError: an unknown name, or a folder, an image or a calibration is missing.
    """
    return _open_split(name, root)[1]


class KittiSplit:
    """The samples of a published split.

    A proxy is a triple of KITTI's 16-bit PNGs beside the images, as `dwarf distill` writes them: training/disp_0,
    training/disp_1 and training/flow. It is looked for when a sample's truth is read.

    Attributes:
        entries: scene, frame and kind of label of each sample.
    """

    def __init__(self, name: str, root: Path) -> None:
        """As `split`."""
        self.title = f"KITTI 2015, {name}"
        self._dataset, self.entries = _open_split(name, root)
        self._training = Path(root) / "training"
        self.names = [entry.name for entry in self.entries]
        index_of = {name: index for index, name in enumerate(self._dataset.names)}
        self._indices = [index_of[name] for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return make_sample(self.names[index], self.frames(index), self.ground_truth(index))

    def images(self, index: int) -> tuple[Path, Path, Path, Path]:
        """Files of a sample's left and right image, previous then current."""
        return self._dataset.images(self._indices[index])

    def frames(self, index: int) -> tuple[StereoFrame, StereoFrame]:
        """A sample's two frames; see `Kitti2015`."""
        return self._dataset.frames(self._indices[index])

    def ground_truth(self, index: int) -> SampleTruth:
        """A sample's ground truth or proxy, as its entry says; a proxy is under `occ`.

        Raises:
            InputError: a file is missing, damaged or of another kind.
        """
        if self.entries[index].kind == "ground_truth":
            truth = self._dataset.ground_truth(self._indices[index])
            if truth is None:
                raise InputError(
                    f"{self._training / 'disp_occ_0' / self.names[index]}.png: missing, expected ground truth for {self.title}"
                )
            return truth
        return SampleTruth(ResultFolder(self._training).read(self.names[index]))


class Proxies:
    """The labelled pairs of a folder that `dwarf distill` wrote, or of any other folder of images with labels beside them."""

    def __init__(self, root: Path) -> None:
        """List the samples.

        Args:
            root: a folder that `open_folder` reads, with disp_0/, disp_1/ and flow/ beside the folders of its images, named
                as the earlier image of each pair; pairs without labels are left out.

        Raises:
            InputError: as `KittiDrive`, or there are no labels.
        """
        self._drive = KittiDrive(root)
        self._labels = ResultFolder(self._drive.images(0)[0].parent.parent)
        labeled = self._labels.names()
        self._indices = [i for i, name in enumerate(self._drive.names) if name in labeled]
        if not self._indices:
            raise InputError(
                f"{self._labels.path}: no labels, expected {', '.join(RESULT_FOLDERS)} as dwarf distill writes them"
            )
        self.title = f"proxies, {self._drive.title}"
        self.names = [self._drive.names[index] for index in self._indices]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        truth = SampleTruth(self._labels.read(self.names[index]))
        return make_sample(self.names[index], self.frames(index), truth)

    def images(self, index: int) -> tuple[Path, Path, Path, Path]:
        """Files of a sample's left and right image, previous then current."""
        return self._drive.images(self._indices[index])

    def frames(self, index: int) -> tuple[StereoFrame, StereoFrame]:
        """A sample's two frames; see `KittiDrive`."""
        return self._drive.frames(self._indices[index])


def open_dataset(name: str, root: Path, split: str | None = None) -> Dataset:
    """Data set by name.

    Args:
        name: one of `DATASETS`. kitti_drive is a raw or odometry drive, or any other folder of images that `open_folder`
            reads; proxies is such a folder with labels beside the images (`Proxies`).
        root: its folder.
        split: training or testing, or one of `SPLITS`, for KITTI 2015 (default: training); training or testing for KITTI
            2012; train or val for FlyingThings3D; None for the others, which have one part.

    Raises:
        InputError: an unknown name or split, or the layout is not the data set's.
    """
    if name not in DATASETS:
        raise InputError(f"data set: {name!r} is unknown, expected {', '.join(DATASETS)}")
    parts = _PARTS.get(name, ())
    if split is not None and split not in parts:
        expected = f"expected {', '.join(parts)}" if parts else "which has none"
        raise InputError(f"split: {split!r} is unknown for {name}, {expected}")
    try:
        return _open(name, Path(root), split)
    except OSError as error:
        raise InputError(
            f"{error.filename or root}: {error.strerror or error}, expected a readable folder"
        ) from None


def _open(name: str, root: Path, split: str | None) -> Dataset:
    if split is not None and split in SPLITS:
        return KittiSplit(split, root)
    if name == "kitti2015":
        return Kitti2015(root, split or "training")
    if name == "kitti2015_multiview":
        return Kitti2015MultiView(root, split or "training")
    if name == "kitti2012":
        return Kitti2012(root, split or "training")
    if name == "kitti_drive":
        return KittiDrive(root)
    if name == "proxies":
        return Proxies(root)
    return FlyingThings3D(root, split) if name == "flyingthings3d" else SceneFlowRelease(root)


_PARTS = {
    "kitti2015": (*kitti.PARTS, *SPLITS),
    "kitti2015_multiview": (*kitti.PARTS, *SPLITS),
    "kitti2012": kitti.PARTS,
    "flyingthings3d": flyingthings3d.PARTS,
}


def _open_split(name: str, root: Path) -> tuple[Kitti2015 | Kitti2015MultiView, list[SplitEntry]]:
    if name not in _SPLITS:
        raise InputError(f"split: {name!r} is unknown, expected {', '.join(SPLITS)}")
    dataset = (Kitti2015MultiView if _SPLITS[name].proxies else Kitti2015)(root)
    present = frozenset(dataset.names)
    entries = _SPLITS[name].entries()
    for entry in entries:
        if entry.name not in present:
            file = dataset.images(0)[0].with_name(f"{entry.name}.png")
            if file.exists():
                file = file.with_name(f"{entry._replace(frame=entry.frame + 1).name}.png")
            frames = "00 to 20" if _SPLITS[name].proxies else "10 and 11"
            raise InputError(
                f"{file}: missing, expected for {name}: frames {frames} of scenes 000000 to "
                f"{_SPLITS[name].sequences - 1:06d}"
            )
    return dataset, entries
