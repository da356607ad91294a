"""A seeded generator of stereo drives through a street, with ground truth from the geometry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwarf_ros.files import write_atomically
from dwarf_ros.formats import write_image
from dwarf_ros.synthetic.renderer import View
from dwarf_ros.synthetic.shading import render
from dwarf_ros.synthetic.shapes import Builder
from dwarf_ros.synthetic.street import CameraPath, Street
from dwarf_ros.synthetic.textures import street_bank
from dwarf_ros.synthetic.truth import hidden_in, motion_of
from dwarf_ros.types import InputError, SceneFlow, StereoCamera, StereoFrame

_BORDER = 1e-6
"""How far outside the centers of the outer pixels a visible point may be, px: rounding must not push points out."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Exact scene flow from one frame of a drive to another, and what is hidden.

    A pixel stands for the point where the ray through its center meets the first surface.

    Attributes:
        scene_flow: float32, see `SceneFlow`. ``valid`` is True where the geometry is known, whether or not the point is
            visible in the other images: everywhere except in the sky and at points that the other frame's camera has
            passed (less than 0.02 m in front of its plane). In the sky, which is at infinity, both disparities are NaN and the
            flow is that of the camera's rotation alone. A point that the other camera has passed has neither flow nor
            disparity_next (NaN).
        disparity_occluded: bool H x W; True where the point seen in the left image is hidden in the right image of the
            same time, or outside it.
        flow_occluded: bool H x W; True where it is hidden in the left image of the other frame, or outside it. Inside is
            between the centers of the first and the last pixel, where that image can be interpolated.
        static: bool H x W; True on objects that do not move in the world; False in the sky.
    """

    scene_flow: SceneFlow
    disparity_occluded: np.ndarray
    flow_occluded: np.ndarray
    static: np.ndarray


class ProceduralDrive:
    """A short stereo sequence of a drive through a street, rendered frame by frame on demand.

    The same arguments give the same bytes in any order. The camera drives forward on the right of a
    street with slight yaw, pitch and roll, past standing objects; other vehicles drive ahead, approach, cross and turn,
    and people walk. ``len(drive)`` is the number of frames, ``drive[i]`` renders frame i as `StereoFrame`.

    Args:
        seed: which drive, >= 0.
        frames: number of frames, >= 1.
        width, height: image size, px.
        baseline: distance between the cameras, m, > 0.
        focal_length: of both cameras, px, > 0; None is 0.75 * width (a horizontal field of view of 67 degrees).
        rate: frames per second, Hz, > 0.
        frame_id: name of the left camera's optical frame.

    Attributes:
        camera: both cameras; the principal point is the center of the image.
        poses: float64 N x 4 x 4, left camera of each frame to the left camera of frame 0, m, in the optical frame
            (REP-103); the first is the identity.
        stamps: time of each frame, ns, from 0.
        scenes: 0 for each frame: they are all of one scene.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        seed: int = 0,
        frames: int = 20,
        width: int = 640,
        height: int = 384,
        baseline: float = 0.54,
        focal_length: float | None = None,
        rate: float = 10.0,
        frame_id: str = "left_camera_optical_frame",
    ) -> None:
        if seed < 0:
            raise InputError(f"procedural drive: seed is {seed}, expected >= 0")
        if frames < 1:
            raise InputError(f"procedural drive: frames is {frames}, expected >= 1")
        if not (math.isfinite(rate) and rate > 0):
            raise InputError(f"procedural drive: rate is {rate:g} Hz, expected > 0")
        focal = 0.75 * width if focal_length is None else focal_length
        cx, cy = (width - 1) / 2, (height - 1) / 2
        self.camera = StereoCamera(focal, focal, cx, cy, cx, baseline, width, height)
        self.frame_id = frame_id
        self.stamps = [round(i * 1e9 / rate) for i in range(frames)]
        self.scenes = [0] * frames
        rng = np.random.default_rng([seed, 0x5CE7E])
        path = CameraPath(rng)
        times = np.array(self.stamps) * 1e-9
        world = np.stack([path.pose(time) for time in times])
        self.poses = np.linalg.inv(world[0]) @ world
        self.poses[0] = np.eye(4)
        builder = Builder(rng, street_bank(), self.camera, dimmest=0.65)
        builder.scene.motions = np.linalg.inv(world)
        street = Street(builder, path, times)
        street.build()
        self._scene, self._sky = builder.scene, street.sky

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, index: int) -> StereoFrame:
        """Frame `index`, rendered now.

        Raises:
            IndexError: no such frame.
        """
        index = self._index(index)
        left, right = (
            render(self._view(index, offset), street_bank())
            for offset in (0.0, self.camera.baseline)
        )
        return StereoFrame(left, right, self.stamps[index], self.camera, self.frame_id)

    def __iter__(self) -> Iterator[StereoFrame]:
        return (self[index] for index in range(len(self)))

    def ground_truth(self, reference: int, other: int) -> GroundTruth:
        """Scene flow from frame `reference` to frame `other`, which may be before it or the same.

        Raises:
            IndexError: no such frame.
        """
        reference, other = self._index(reference), self._index(other)
        camera = self.camera
        left = self._view(reference, 0.0)
        x = np.arange(camera.width, dtype=np.float64)
        y = np.arange(camera.height, dtype=np.float64)[:, None]
        inverse_depth = left.exact_inverse_depth()
        motion = motion_of(left, inverse_depth, reference, other)
        sky = motion.objects == self._sky + 1
        known = ~sky & ~motion.passed

        gain = camera.fx * camera.baseline
        disparity, disparity_next = gain * inverse_depth, gain * motion.inverse_depth
        flow = np.stack([motion.x - x, motion.y - y], axis=-1)
        flow[motion.passed] = np.nan
        scene_flow = SceneFlow(
            disparity=np.where(sky, np.nan, disparity).astype(np.float32),
            disparity_next=np.where(known, disparity_next, np.nan).astype(np.float32),
            flow=flow.astype(np.float32),
            valid=known,
            stamp=self.stamps[reference],
            dt=(self.stamps[other] - self.stamps[reference]) * 1e-9,
            camera=camera,
            frame_id=self.frame_id,
        )
        right, left_next = self._view(reference, camera.baseline), self._view(other, 0.0)
        hidden_next = hidden_in(left_next, left, motion.x, motion.y, motion.inverse_depth, _BORDER)
        return GroundTruth(
            scene_flow=scene_flow,
            disparity_occluded=hidden_in(right, left, x - disparity, y, inverse_depth, _BORDER),
            flow_occluded=motion.passed | hidden_next,
            static=motion.objects == 0,
        )

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"procedural drive: no frame {index}, there are {len(self)}")
        return index % len(self)

    def _view(self, index: int, offset: float) -> View:
        return View(self._scene, index, offset, self.camera)


def write_drive(drive: ProceduralDrive, folder: Path) -> None:
    """Write a drive as a folder that `open_folder` reads.

    ``image_l/000000.png`` and ``image_r/``; ``calib.txt`` with the left and right projection matrices ``P0:`` and ``P1:``
    (row-major, px, last column px times m); ``times.txt``, s; ``poses.txt``, the upper three rows of each `poses`,
    row-major, as KITTI odometry's.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    camera = drive.camera
    for side in ("image_l", "image_r"):
        (folder / side).mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(drive):
        write_image(folder / "image_l" / f"{index:06d}.png", frame.left)
        write_image(folder / "image_r" / f"{index:06d}.png", frame.right)
    rows = []
    for name, cx, translation in (
        ("P0", camera.cx, 0.0),
        ("P1", camera.cx_right, -camera.fx * camera.baseline),
    ):
        matrix = np.zeros((3, 4))
        matrix[[0, 1, 2], [0, 1, 2]] = camera.fx, camera.fy, 1.0
        matrix[0, 2:], matrix[1, 2] = (cx, translation), camera.cy
        rows.append(f"{name}: " + _numbers(matrix))
    write_atomically(folder / "calib.txt", _lines(rows))
    write_atomically(
        folder / "times.txt",
        _lines([f"{stamp // 10**9}.{stamp % 10**9:09d}" for stamp in drive.stamps]),
    )
    write_atomically(folder / "poses.txt", _lines([_numbers(pose[:3]) for pose in drive.poses]))


def _numbers(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.12e}" for value in matrix.ravel())


def _lines(rows: list[str]) -> bytes:
    return "".join(row + "\n" for row in rows).encode("ascii")
