"""The rendered SceneFlow data sets: FlyingThings3D in the layout of its subset, and the full release's Driving and Monkaa.

Reference: Mayer et al., "A Large Dataset to Train Convolutional Networks for Disparity, Optical Flow, and Scene Flow
Estimation", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwarf_ros.formats import read_flo, read_image, read_pfm
from dwarf_ros.recordings.folders import FRAME_ID
from dwarf_ros.samples import Maps, Sample, SampleTruth, make_sample
from dwarf_ros.types import InputError, StereoCamera, StereoFrame

PARTS = ("train", "val")

_PERIOD = 100_000_000
"""Time between two frames, ns: rendered scenes have none, so they get KITTI's 10 Hz."""

_SIZE = (960, 540)
_FOCAL_LENGTH = 1050.0
_SHORT_FOCAL_LENGTH = 450.0
_SHORT_FOLDER = "15mm_focallength"
_BASELINE = 1.0  # in the renderer's unit of length, taken for a meter

_IMAGE_SUFFIXES = (".png", ".webp")

# The first that is there is taken; the release comes as PNG and as WebP.
_PASSES = (
    "frames_cleanpass",
    "frames_cleanpass_webp",
    "frames_finalpass",
    "frames_finalpass_webp",
)

_SUBSET_TREE = (
    "image_clean/left/0000000.png, image_clean/right/0000000.png, disparity/left/0000000.pfm, "
    "disparity_change/left/into_future/0000000.pfm, flow/left/into_future/0000000.flo, in train/ or val/"
)
_RELEASE_TREE = (
    "frames_cleanpass/SCENE/left/0000.png, frames_cleanpass/SCENE/right/0000.png, disparity/SCENE/left/0000.pfm, "
    "disparity_change/SCENE/into_future/left/0000.pfm, "
    "optical_flow/SCENE/into_future/left/OpticalFlowIntoFuture_0000_L.pfm"
)


@dataclass(frozen=True)
class _Files:
    number: int
    left: Path
    right: Path
    next_left: Path
    next_right: Path
    disparity: Path
    disparity_change: Path
    flow: Path

    @property
    def images(self) -> tuple[Path, Path, Path, Path]:
        return self.left, self.right, self.next_left, self.next_right


class _RenderedPairs:
    """Pairs of consecutive rendered frames with dense ground truth."""

    def __init__(self, title: str, names: list[str], files: list[_Files]) -> None:
        self.title = title
        self.names = names
        self._files = files

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return make_sample(self.names[index], self.frames(index), self.ground_truth(index))

    def images(self, index: int) -> tuple[Path, Path, Path, Path]:
        """Files of a sample's left and right image, previous then current."""
        return self._files[index].images

    def frames(self, index: int) -> tuple[StereoFrame, StereoFrame]:
        """A sample's two frames, 0.1 s apart.

        The camera is the one that the data sets were rendered with, for images of 960 x 540 px, baseline 1 m for the
        renderer's one unit of length; None for images of another size.

        Raises:
            InputError: an image is missing, damaged or of another size than the others.
        """
        files = self._files[index]
        images = [read_image(file) for file in files.images]
        height, width = images[0].shape[:2]
        for file, image in zip(files.images, images, strict=True):
            if image.shape[:2] != (height, width):
                raise InputError(
                    f"{file}: image is {image.shape[1]} x {image.shape[0]} px, expected {width} x {height} px as "
                    f"{files.left}"
                )
        camera = _camera(files.left) if (width, height) == _SIZE else None
        stamp = files.number * _PERIOD
        return (
            StereoFrame(images[0], images[1], stamp, camera, FRAME_ID),
            StereoFrame(images[2], images[3], stamp + _PERIOD, camera, FRAME_ID),
        )

    def ground_truth(self, index: int) -> SampleTruth:
        """A sample's ground truth, for every pixel, hidden ones too.

        The subset stores the left image's disparities as negative numbers, the full release as positive ones; both come
        out positive. Where a disparity is not, or a value is not finite, it is unknown.

        Raises:
            InputError: a file is missing, damaged or of another kind or size.
        """
        files = self._files[index]
        disparity = _read_gray_pfm(files.disparity)
        change = _read_gray_pfm(files.disparity_change)
        if change.shape != disparity.shape:
            raise InputError(
                f"{files.disparity_change}: map is {change.shape[1]} x {change.shape[0]} px, expected "
                f"{disparity.shape[1]} x {disparity.shape[0]} px as {files.disparity}"
            )
        sign = np.float32(-1 if np.count_nonzero(disparity < 0) * 2 > disparity.size else 1)
        disparity_next = sign * (disparity + change)
        disparity = sign * disparity
        return SampleTruth(Maps(_known(disparity), _known(disparity_next), _read_flow(files.flow)))


class FlyingThings3D(_RenderedPairs):
    """FlyingThings3D in the layout of the subset release: each frame that has optical flow into the future, and the next."""

    def __init__(self, root: Path, part: str | None = None) -> None:
        """List the samples and check the layout.

        Args:
            root: the folder with train/ and val/ in it, or one that holds image_clean/ and the others itself.
            part: train or val; None: root itself where it holds flow/, else train.

        Raises:
            InputError: an unknown part, or a folder or file is missing; the message names the first, and what is expected.
        """
        root = Path(root)
        if part is not None and part not in PARTS:
            raise InputError(f"part {part!r} is unknown, expected {' or '.join(PARTS)}")
        if part is None and not (root / "flow").is_dir():
            part = "train"
        folder = root if part is None else root / part
        tree = f"FlyingThings3D: {_SUBSET_TREE}"
        listing = _Listing(tree)
        flows = folder / "flow" / "left" / "into_future"
        names = listing.names(flows)
        left, right = (folder / "image_clean" / side for side in ("left", "right"))
        suffix = listing.image_suffix(left)
        files = []
        for name in names:
            stem, number = _number(flows / name, Path(name).stem, tree)
            following = f"{number + 1:0{len(stem)}d}{suffix}"
            files.append(
                _Files(
                    number,
                    listing.file(left / f"{stem}{suffix}"),
                    listing.file(right / f"{stem}{suffix}"),
                    listing.file(left / following),
                    listing.file(right / following),
                    listing.file(folder / "disparity" / "left" / f"{stem}.pfm"),
                    listing.file(
                        folder / "disparity_change" / "left" / "into_future" / f"{stem}.pfm"
                    ),
                    flows / name,
                )
            )
        title = "FlyingThings3D" if part is None else f"FlyingThings3D, {part}"
        super().__init__(title, [Path(name).stem for name in names], files)


class SceneFlowRelease(_RenderedPairs):
    """Driving or Monkaa as in the full SceneFlow release: every frame but the last of each scene, and the next.

    The clean pass is taken, or the final pass where only that is there. A sample is named by its scene's folders and its
    number: "35mm_focallength-scene_forwards-fast-0001", "funnyworld_x2-0000".
    """

    def __init__(self, root: Path) -> None:
        """List the samples and check the layout.

        Args:
            root: the folder of Driving or of Monkaa, with frames_cleanpass/ and the others in it.

        Raises:
            InputError: a folder or file is missing; the message names the first, and what is expected.
        """
        root = Path(root)
        tree = f"SceneFlow: {_RELEASE_TREE}"
        listing = _Listing(tree)
        passes = [root / name for name in _PASSES]
        frames = next((folder for folder in passes if folder.is_dir()), passes[0])
        for folder in (
            frames,
            *(root / name for name in ("disparity", "disparity_change", "optical_flow")),
        ):
            if not folder.is_dir():
                raise InputError(f"{folder}: missing, expected {tree}")
        names, files = [], []
        for left in sorted(frames.rglob("left")):
            scene = left.parent.relative_to(frames)
            suffix = listing.image_suffix(left)
            stems = [Path(name).stem for name in listing.names(left)]
            for stem in stems[:-1]:
                _, number = _number(left / f"{stem}{suffix}", stem, tree)
                following = f"{number + 1:0{len(stem)}d}{suffix}"
                flow = f"OpticalFlowIntoFuture_{stem}_L.pfm"
                names.append("-".join((*scene.parts, stem)))
                files.append(
                    _Files(
                        number,
                        left / f"{stem}{suffix}",
                        listing.file(left.parent / "right" / f"{stem}{suffix}"),
                        listing.file(left / following),
                        listing.file(left.parent / "right" / following),
                        listing.file(root / "disparity" / scene / "left" / f"{stem}.pfm"),
                        listing.file(
                            root
                            / "disparity_change"
                            / scene
                            / "into_future"
                            / "left"
                            / f"{stem}.pfm"
                        ),
                        listing.file(root / "optical_flow" / scene / "into_future" / "left" / flow),
                    )
                )
        if not files:
            raise InputError(f"{frames / 'SCENE' / 'left'}: missing, expected {tree}")
        super().__init__(f"SceneFlow release, {root.resolve().name}", names, files)


class _Listing:
    """Which files are there; each folder is read once, because there are tens of thousands of files."""

    def __init__(self, tree: str) -> None:
        self._tree = tree
        self._folders: dict[Path, set[str]] = {}

    def names(self, folder: Path) -> list[str]:
        if folder not in self._folders:
            if not folder.is_dir():
                raise InputError(f"{folder}: missing, expected {self._tree}")
            names = {file.name for file in folder.iterdir() if not file.name.startswith(".")}
            if not names:
                raise InputError(f"{folder}: empty, expected {self._tree}")
            self._folders[folder] = names
        return sorted(self._folders[folder])

    def file(self, file: Path) -> Path:
        if file.parent not in self._folders:
            self.names(file.parent)
        if file.name not in self._folders[file.parent]:
            raise InputError(f"{file}: missing, expected {self._tree}")
        return file

    def image_suffix(self, folder: Path) -> str:
        first = Path(self.names(folder)[0])
        if first.suffix not in _IMAGE_SUFFIXES:
            raise InputError(f"{folder / first}: not a PNG or WebP image, expected {self._tree}")
        return first.suffix


def _number(file: Path, stem: str, tree: str) -> tuple[str, int]:
    if not (stem.isascii() and stem.isdigit() and len(stem) <= 9):
        raise InputError(f"{file}: not named by a frame number, expected {tree}")
    return stem, int(stem)


def _camera(left: Path) -> StereoCamera:
    focal_length = _SHORT_FOCAL_LENGTH if _SHORT_FOLDER in left.parts else _FOCAL_LENGTH
    width, height = _SIZE
    center = (width - 1) / 2, (height - 1) / 2
    return StereoCamera(
        fx=focal_length,
        fy=focal_length,
        cx=center[0],
        cy=center[1],
        cx_right=center[0],
        baseline=_BASELINE,
        width=width,
        height=height,
    )


def _read_gray_pfm(file: Path) -> np.ndarray:
    values = read_pfm(file)
    if values.ndim != 2:
        raise InputError(f"{file}: is a colour PFM, expected a grey one, a map of disparities")
    return values


def _read_flow(file: Path) -> np.ndarray:
    if file.suffix != ".pfm":
        return read_flo(file)
    values = read_pfm(file)
    if values.ndim != 3:
        raise InputError(f"{file}: is a grey PFM, expected a colour one, optical flow")
    flow = np.ascontiguousarray(values[..., :2])
    flow[~np.isfinite(flow).all(axis=2)] = np.nan
    return flow


def _known(disparity: np.ndarray) -> np.ndarray:
    disparity[~(np.isfinite(disparity) & (disparity > 0))] = np.nan
    return disparity
