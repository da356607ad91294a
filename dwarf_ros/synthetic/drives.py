"""A seeded generator of stereo drives through a street of textured bodies, with ground truth from the geometry.

Every surface is a flat face (a trapezoid) of a rigid body: the ground, buildings, pavements, trees, vehicles and walkers
standing, or moving on circular arcs. A face is seen through a homography, so that 1 / depth and the texture coordinates
over depth are affine in the pixel, and rays are cast exactly, in float64. Colours are filtered for the pixel that sees
them: textures by a mip map with several taps along the long axis of the pixel's footprint (Williams, "Pyramidal
parametrics", SIGGRAPH 1983; McCormack et al., "Feline", SIGGRAPH 1999), lane markings by their exact integral, and pixels
that more than one face touches by several rays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.files import write_atomically
from dwarf_ros.formats import write_image
from dwarf_ros.types import InputError, SceneFlow, StereoCamera, StereoFrame

_NEAR = 0.05
"""Surfaces nearer than this to the camera's plane are not seen, m."""

_EDGE = 1e-9
"""How far a face reaches beyond its edges, as a part of its size: adjoining faces leave no crack between them."""

_TEXTURE = 512
"""Width and height of a texture, texels."""

_LEVELS = 10
_MOST_TAPS = 16
_BORDER = _MOST_TAPS // 2 + 1
"""Texels about each mip level that its taps may reach."""

_PART = 65536
"""Samples that are coloured at a time."""

_SUBSAMPLES = 3
"""Rays along each axis of a pixel that more than one face touches."""

_LANE = 3.5
_KERB = 5.9
_FACADE = 9.4
"""The street's cross section: width of a lane, and where the pavement and the buildings begin, m from its middle."""

_GROUND_WIDTH = 2000.0
_GROUND_TILE = 4.0
_MARGIN_BEHIND = 60.0
_MARGIN_AHEAD = 260.0


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """Exact scene flow from one frame of a drive to another, and what is hidden.

    A pixel stands for the point where the ray through its centre meets the first surface.

    Attributes:
        scene_flow: float32, see `SceneFlow`. ``valid`` is True where the geometry is known, whether or not the point is
            visible in the other images: everywhere but in the sky, and but for points that the other frame's camera has
            passed (less than 0.05 m before its plane). In the sky, which is at infinity, both disparities are NaN and the
            flow is that of the camera's rotation alone. A point that the other camera has passed has neither flow nor
            disparity_next (NaN).
        disparity_occluded: bool H x W; True where the point seen in the left image is hidden in the right image of the
            same time, or outside it.
        flow_occluded: bool H x W; True where it is hidden in the left image of the other frame, or outside it. Inside is
            between the centres of the first and the last pixel, where that image can be interpolated.
        static: bool H x W; True on bodies that do not move in the world; False in the sky.
    """

    scene_flow: SceneFlow
    disparity_occluded: np.ndarray
    flow_occluded: np.ndarray
    static: np.ndarray


class ProceduralDrive:
    """A short stereo sequence of a drive through a street, rendered frame by frame as it is asked for.

    The same arguments give the same bytes, whatever was asked for before. The camera drives forward on the right of a
    street with slight yaw, pitch and roll, past standing bodies; other vehicles go ahead, come towards it, cross and turn,
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
        camera: both cameras; the principal point is the centre of the image.
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
        duration = (frames - 1) / rate
        self._motion = _CameraMotion.draw(rng)
        self._scene = _build_scene(rng, self._motion, duration)
        world = np.stack([self._motion.pose(stamp * 1e-9) for stamp in self.stamps])
        self._world_poses = world
        self.poses = np.linalg.inv(world[0]) @ world
        self.poses[0] = np.eye(4)

    def __len__(self) -> int:
        return len(self.stamps)

    def __getitem__(self, index: int) -> StereoFrame:
        """Frame `index`, rendered now.

        Raises:
            IndexError: no such frame.
        """
        index = self._index(index)
        left = _render(self._view(index, 0.0))
        right = _render(self._view(index, self.camera.baseline))
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
        right = self._view(reference, camera.baseline)
        left_next = self._view(other, 0.0)

        x, y = _pixel_centres(camera)
        face, inverse_depth = _cast_grid(left)
        face, inverse_depth = face.ravel(), inverse_depth.ravel()
        sky = face == left.sky
        u, v = _surface_coordinates(left, face, inverse_depth, x, y)

        def project(view: _View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            image_x, image_y, depth = _project(view, face, u, v)
            direction = np.stack([x[sky], y[sky], np.ones(np.count_nonzero(sky))])
            with np.errstate(divide="ignore", invalid="ignore"):
                at_infinity = view.infinity @ np.linalg.solve(left.infinity, direction)
                image_x[sky], image_y[sky] = at_infinity[:2] / at_infinity[2]
            depth[sky] = np.where(at_infinity[2] > 0, np.inf, -np.inf)
            return image_x, image_y, depth

        right_x, right_y, right_depth = project(right)
        next_x, next_y, next_depth = project(left_next)
        passed = next_depth < _NEAR
        next_x[passed] = next_y[passed] = np.nan
        known = ~sky & ~passed

        focal_baseline = camera.fx * camera.baseline
        offset = camera.cx - camera.cx_right
        disparity = np.where(sky, np.nan, focal_baseline * inverse_depth + offset)
        with np.errstate(divide="ignore"):
            disparity_next = np.where(known, focal_baseline / next_depth + offset, np.nan)
        shape = (camera.height, camera.width)
        scene_flow = SceneFlow(
            disparity=disparity.astype(np.float32).reshape(shape),
            disparity_next=disparity_next.astype(np.float32).reshape(shape),
            flow=np.stack([next_x - x, next_y - y], axis=-1).astype(np.float32).reshape(*shape, 2),
            valid=known.reshape(shape),
            stamp=self.stamps[reference],
            dt=(self.stamps[other] - self.stamps[reference]) * 1e-9,
            camera=camera,
            frame_id=self.frame_id,
        )
        moving = np.append(self._scene.moving, True)[np.append(self._scene.body, -1)]
        return GroundTruth(
            scene_flow=scene_flow,
            disparity_occluded=~_visible(right, face, right_x, right_y, right_depth).reshape(shape),
            flow_occluded=~_visible(left_next, face, next_x, next_y, next_depth).reshape(shape),
            static=~moving[face].reshape(shape),
        )

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"procedural drive: no frame {index}, there are {len(self)}")
        return index % len(self)

    def _view(self, index: int, offset: float) -> _View:
        pose = self._world_poses[index].copy()
        pose[:3, 3] += pose[:3, 0] * offset
        return _look(self._scene, self.stamps[index] * 1e-9, pose, self.camera)


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
        matrix = [
            camera.fx,
            0.0,
            cx,
            translation,
            0.0,
            camera.fy,
            camera.cy,
            0.0,
            0.0,
            0.0,
            1.0,
            0.0,
        ]
        rows.append(f"{name}: " + " ".join(f"{value:.12e}" for value in matrix))
    write_atomically(folder / "calib.txt", _lines(rows))
    write_atomically(
        folder / "times.txt",
        _lines([f"{stamp // 10**9}.{stamp % 10**9:09d}" for stamp in drive.stamps]),
    )
    poses = [" ".join(f"{value:.12e}" for value in pose[:3].ravel()) for pose in drive.poses]
    write_atomically(folder / "poses.txt", _lines(poses))


def _lines(rows: list[str]) -> bytes:
    return "".join(row + "\n" for row in rows).encode("ascii")


# ---------------------------------------------------------------------------------------------------------------------
# The camera's motion. World: x right across the street, y down, z along it, m; the ground is y = 0.


@dataclass(frozen=True)
class _Sway:
    """A sum of sines: smooth, bounded, and known at any time."""

    amplitudes: np.ndarray
    frequencies: np.ndarray
    phases: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, amplitude: float, lowest: float) -> _Sway:
        return cls(
            amplitude * rng.uniform(0.6, 1.0, 3) * np.array([0.6, 0.3, 0.1]),
            2 * np.pi * lowest * np.array([1.0, 2.3, 4.7]) * rng.uniform(0.8, 1.2, 3),
            rng.uniform(0, 2 * np.pi, 3),
        )

    def at(self, time: float) -> float:
        return float((self.amplitudes * np.sin(self.frequencies * time + self.phases)).sum())

    def rate(self, time: float) -> float:
        waves = np.cos(self.frequencies * time + self.phases)
        return float((self.amplitudes * self.frequencies * waves).sum())


@dataclass(frozen=True)
class _CameraMotion:
    """Forward at a steady speed in the right-hand lane, turned the way it goes, with the sway of a vehicle."""

    speed: float
    height: float
    lateral: _Sway
    heave: _Sway
    yaw: _Sway
    pitch: _Sway
    roll: _Sway

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _CameraMotion:
        return cls(
            speed=rng.uniform(5.0, 9.0),
            height=rng.uniform(1.5, 1.8),
            lateral=_Sway.draw(rng, 0.35, 0.10),
            heave=_Sway.draw(rng, 0.02, 0.7),
            yaw=_Sway.draw(rng, math.radians(2.0), 0.15),
            pitch=_Sway.draw(rng, math.radians(0.5), 0.6),
            roll=_Sway.draw(rng, math.radians(0.4), 0.5),
        )

    def position(self, time: float) -> np.ndarray:
        """Of the left camera in the world, m."""
        return np.array(
            [
                _LANE / 2 + self.lateral.at(time),
                -self.height + self.heave.at(time),
                self.speed * time,
            ]
        )

    def pose(self, time: float) -> np.ndarray:
        """Left camera to world, 4 x 4."""
        yaw = math.atan2(self.lateral.rate(time), self.speed) + self.yaw.at(time)
        pitch, roll = self.pitch.at(time) - math.radians(1.0), self.roll.at(time)
        about_x = np.array(
            [
                [1, 0, 0],
                [0, math.cos(pitch), -math.sin(pitch)],
                [0, math.sin(pitch), math.cos(pitch)],
            ]
        )
        about_z = np.array(
            [[math.cos(roll), -math.sin(roll), 0], [math.sin(roll), math.cos(roll), 0], [0, 0, 1]]
        )
        pose = np.eye(4)
        pose[:3, :3] = _about_y(yaw) @ about_x @ about_z
        pose[:3, 3] = self.position(time)
        return pose


def _about_y(yaw: float | np.ndarray) -> np.ndarray:
    """Rotation that turns forward (+z) towards the right (+x); shape of yaw + (3, 3)."""
    yaw = np.asarray(yaw, dtype=np.float64)
    cos, sin, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    rows = [[cos, zero, sin], [zero, one, zero], [-sin, zero, cos]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


# ---------------------------------------------------------------------------------------------------------------------
# Textures: RGB and, in the fourth channel, how far a body's own colour tints the texel.


@dataclass(frozen=True, eq=False)
class _Atlas:
    """All textures with their mip levels in one image, each level with a border.

    Attributes:
        texels: uint8 H x W x 4.
        columns: float32, where in it the left edge of each level is, px.
        rows: float32, where the upper edge of each texture is, px.
        names: index of each texture.
        tiled: bool, one a texture; False: it does not repeat, its edge goes on.
    """

    texels: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    names: dict[str, int]
    tiled: np.ndarray


@lru_cache(maxsize=1)
def _atlas() -> _Atlas:
    tiled, single = _paint_tiled_textures(), _paint_single_textures()
    textures = {**tiled, **single}
    sizes = [_TEXTURE >> level for level in range(_LEVELS)]
    columns = _BORDER + np.cumsum([0] + [size + 2 * _BORDER for size in sizes])
    rows = _BORDER + np.arange(len(textures)) * (_TEXTURE + 2 * _BORDER)
    texels = np.zeros((rows[-1] + _TEXTURE + _BORDER, columns[-1] - _BORDER, 4), np.uint8)
    for row, (name, texture) in zip(rows, textures.items(), strict=True):
        border = cv2.BORDER_WRAP if name in tiled else cv2.BORDER_REPLICATE
        for column, size in zip(columns[:-1], sizes, strict=True):
            level = cv2.resize(texture, (size, size), interpolation=cv2.INTER_AREA)
            level = cv2.copyMakeBorder(level, *(_BORDER,) * 4, border)
            top, left, whole = row - _BORDER, column - _BORDER, size + 2 * _BORDER
            texels[top : top + whole, left : left + whole] = np.clip(np.rint(level), 0, 255)
    names = {name: index for index, name in enumerate(textures)}
    # Where coordinate 0, the outer edge of the first texel, is for remap, which counts from that texel's centre.
    left, upper = (starts.astype(np.float32) - np.float32(0.5) for starts in (columns[:-1], rows))
    return _Atlas(texels, left, upper, names, np.array([name in tiled for name in textures]))


def _noise(rng: np.random.Generator, slope: float = 1.0, size: int = _TEXTURE) -> np.ndarray:
    """Noise that tiles, with amplitude falling as frequency ** -slope: mean 0, standard deviation 1."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) * frequency**-slope
    noise = np.fft.irfft2(spectrum, (size, size))
    return (noise / noise.std()).astype(np.float32)


class _Canvas:
    """A texture while it is painted, at twice its size so that edges come out smooth; lengths are parts of its side."""

    side = 2 * _TEXTURE

    def __init__(self, colour: tuple[int, int, int], tint: float) -> None:
        self.texels = np.empty((self.side, self.side, 4), np.float32)
        self.texels[:] = (*colour, 255 * tint)

    def rectangle(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        colour: tuple[float, float, float],
        tint: float = 0.0,
    ) -> None:
        x0, y0, x1, y1 = (round(edge * self.side) for edge in (left, top, right, bottom))
        self.texels[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = (*colour, 255 * tint)

    def disc(self, x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
        centre = (round(x * self.side), round(y * self.side))
        axes = (round(rx * self.side), round(ry * self.side))
        cv2.ellipse(self.texels, centre, axes, 0, 0, 360, (*colour, 0), -1, cv2.LINE_8)

    def finish(self, noise: np.ndarray, amplitude: float) -> np.ndarray:
        texture = cv2.resize(self.texels, (_TEXTURE, _TEXTURE), interpolation=cv2.INTER_AREA)
        texture[..., :3] += amplitude * noise[..., None]
        return np.clip(texture, 0, 255)


def _grain(rng: np.random.Generator, mean: tuple[int, int, int], amplitude: float) -> np.ndarray:
    """Fine and coarse noise about one colour, with a little noise of hue."""
    texture = np.empty((_TEXTURE, _TEXTURE, 4), np.float32)
    texture[..., :3] = mean
    texture[..., 3] = 255
    texture[..., :3] += amplitude * (0.75 * _noise(rng, 0.8) + 0.25 * _noise(rng, 0.2))[..., None]
    hue = _noise(rng)
    for channel in range(3):
        texture[..., channel] += 0.08 * amplitude * np.roll(hue, 170 * channel, axis=1)
    return np.clip(texture, 0, 255)


def _facade(
    rng: np.random.Generator, columns: int, window: tuple[float, float], blocks: int
) -> np.ndarray:
    """A wall of 12 m x 12 m with four floors of windows, each of the given part of its bay."""
    canvas = _Canvas((205, 205, 205), 1.0)
    pitch = 1 / blocks if blocks else 1.0
    for row in range(blocks):
        for column in range(-1, blocks // 2):
            grey = 205 + rng.normal(0, 9)
            left = (column + 0.5 * (row % 2)) * 2 * pitch
            canvas.rectangle(left, row * pitch, left + 2 * pitch, (row + 1) * pitch, (175,) * 3, 1)
            joint = 0.06 * pitch
            canvas.rectangle(
                left + joint,
                row * pitch + joint,
                left + 2 * pitch,
                (row + 1) * pitch,
                (grey,) * 3,
                1,
            )
    wide, high = window[0] / columns, window[1] / 4
    for row in range(4):
        canvas.rectangle(0, row / 4, 1, row / 4 + 0.012, (170, 168, 165), 0.7)
        for column in range(columns):
            left = (column + (1 - window[0]) / 2) / columns
            top = (row + (1 - window[1]) * 0.45) / 4
            canvas.rectangle(
                left - 0.008,
                top - 0.008,
                left + wide + 0.008,
                top + high + 0.014,
                (228, 226, 220),
                0.2,
            )
            glass = rng.uniform(35, 85)
            canvas.rectangle(left, top, left + wide, top + high, (glass, glass * 1.08, glass * 1.2))
            sky = rng.uniform(0.2, 0.6) * high
            canvas.rectangle(
                left, top, left + wide, top + sky, (glass + 45, glass + 55, glass + 70)
            )
            if rng.random() < 0.6:
                cloth = rng.uniform(130, 215) + rng.uniform(-22, 22, 3)
                edge = rng.uniform(0.15, 0.45) * wide
                canvas.rectangle(left, top, left + edge, top + high, tuple(cloth))
                canvas.rectangle(
                    left + wide - edge * 0.7, top, left + wide, top + high, tuple(cloth)
                )
            middle = left + wide / 2
            canvas.rectangle(middle - 0.004, top, middle + 0.004, top + high, (225, 223, 218), 0.2)
            canvas.rectangle(
                left,
                top + high * 0.35,
                left + wide,
                top + high * 0.35 + 0.006,
                (225, 223, 218),
                0.2,
            )
            canvas.rectangle(
                left - 0.012,
                top + high + 0.008,
                left + wide + 0.012,
                top + high + 0.02,
                (150, 148, 145),
                0.5,
            )
    return canvas.finish(_noise(rng, 0.9), 9)


def _glass_front(rng: np.random.Generator) -> np.ndarray:
    """Office wall of 12 m x 12 m: bands of glass between panels."""
    canvas = _Canvas((150, 155, 160), 0.8)
    for row in range(4):
        for column in range(8):
            left, top = column / 8, row / 4
            glass = rng.uniform(50, 130)
            canvas.rectangle(
                left + 0.008,
                top + 0.02,
                left + 0.117,
                top + 0.17,
                (glass * 0.8, glass, glass * 1.15),
            )
            canvas.rectangle(
                left + 0.008, top + 0.02, left + 0.117, top + 0.02 + rng.uniform(0.02, 0.13),
                (glass * 0.9 + 35, glass + 40, glass * 1.05 + 45),
            )  # fmt: skip
            panel = 190 + rng.normal(0, 12)
            canvas.rectangle(left + 0.004, top + 0.178, left + 0.121, top + 0.247, (panel,) * 3, 1)
    return canvas.finish(_noise(rng, 0.9), 8)


def _shop_front(rng: np.random.Generator) -> np.ndarray:
    """Ground floor of 12 m x 3.5 m: three shops, each with a sign, a window and a door."""
    canvas = _Canvas((165, 162, 158), 0.7)
    for column in range(3):
        left = column / 3
        sign = rng.uniform(30, 220, 3)
        canvas.rectangle(left + 0.01, 0.04, left + 0.323, 0.2, tuple(sign))
        letters = tuple(np.where(sign.mean() > 120, 30.0, 235.0) * np.ones(3))
        place = left + 0.05
        while place < left + 0.27:
            width = rng.uniform(0.008, 0.02)
            canvas.rectangle(place, 0.08, place + width, 0.16, letters)
            place += width + 0.008
        canvas.rectangle(left + 0.012, 0.25, left + 0.23, 0.88, (210, 208, 204), 0.3)
        canvas.rectangle(left + 0.018, 0.27, left + 0.224, 0.86, (62, 68, 76))
        for _ in range(14):
            x, y = left + rng.uniform(0.02, 0.19), rng.uniform(0.3, 0.75)
            canvas.rectangle(
                x,
                y,
                x + rng.uniform(0.008, 0.03),
                y + rng.uniform(0.04, 0.11),
                tuple(rng.uniform(60, 235, 3)),
            )
        canvas.rectangle(left + 0.245, 0.25, left + 0.315, 1.0, (70, 62, 55), 0.3)
        canvas.rectangle(left + 0.253, 0.3, left + 0.307, 0.75, (95, 105, 115))
    canvas.rectangle(0, 0.93, 1, 1.0, (110, 108, 105), 0.4)
    return canvas.finish(_noise(rng, 0.9), 8)


def _slabs(rng: np.random.Generator, count: int, mean: float) -> np.ndarray:
    """Square slabs with joints."""
    canvas = _Canvas((95, 95, 95), 1.0)
    for row in range(count):
        for column in range(count):
            grey = mean + rng.normal(0, 10)
            left, top = column / count, row / count
            canvas.rectangle(
                left + 0.004, top + 0.004, left + 1 / count - 0.004, top + 1 / count - 0.004,
                (grey, grey * 0.98, grey * 0.95), 1,
            )  # fmt: skip
    return canvas.finish(_noise(rng, 0.7), 10)


def _paint_tiled_textures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    leaves = _grain(rng, (78, 108, 52), 26)
    spots = _noise(rng, 0.6)
    leaves[..., :3] *= np.clip(0.8 + 0.3 * spots, 0.35, 1.5)[..., None]
    stretched = cv2.resize(_noise(rng, 0.7, _TEXTURE // 8), (_TEXTURE // 8, _TEXTURE))
    bark = _grain(rng, (112, 94, 76), 14)
    bark[..., :3] += 16 * np.tile(stretched, (1, 8))[..., None]
    return {
        "asphalt": _grain(rng, (112, 112, 115), 15),
        "broad": _grain(rng, (128, 128, 128), 40),
        "clouds": np.clip(128 + 45 * _noise(rng, 1.5), 0, 255)[..., None].repeat(4, axis=2),
        "paving": _slabs(rng, 6, 168),
        "concrete": _slabs(rng, 2, 180),
        "grass": _grain(rng, (104, 122, 70), 22),
        "leaves": np.clip(leaves, 0, 255),
        "bark": np.clip(bark, 0, 255),
        "brick": _facade(rng, 4, (0.46, 0.52), 36),
        "plaster": _facade(rng, 4, (0.5, 0.6), 0),
        "stone": _facade(rng, 6, (0.5, 0.62), 16),
        "office": _glass_front(rng),
        "shop": _shop_front(rng),
    }


def _paint_single_textures() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    dark, glass, lamp, signal = (34, 34, 36), (52, 60, 70), (240, 238, 225), (190, 26, 22)

    def body() -> _Canvas:
        return _Canvas((235, 235, 235), 1.0)

    noise = _noise(rng, 1.1)

    def finish(canvas: _Canvas, amplitude: float = 7) -> np.ndarray:
        shift = tuple(rng.integers(0, _TEXTURE, 2))
        return canvas.finish(np.roll(noise, shift, axis=(0, 1)), amplitude)

    def wheels(canvas: _Canvas, places: tuple[float, ...], rx: float, ry: float) -> None:
        canvas.rectangle(0, 0.86, 1, 1, dark)
        for x in places:
            canvas.disc(x, 1 - ry, rx * 1.12, ry * 1.1, dark)
            canvas.disc(x, 1 - ry, rx, ry, (52, 52, 54))
            canvas.disc(x, 1 - ry, 0.62 * rx, 0.62 * ry, (176, 178, 182))
            canvas.disc(x, 1 - ry, 0.2 * rx, 0.2 * ry, (70, 70, 72))

    side = body()
    for x in (0.3, 0.52, 0.73):
        side.rectangle(x, 0.02, x + 0.004, 0.8, (70, 70, 70), 0.6)
    side.rectangle(0, 0.3, 1, 0.33, (190, 190, 190), 1)
    for x in (0.33, 0.55):
        side.rectangle(x, 0.16, x + 0.05, 0.22, (60, 60, 62))
    side.rectangle(0.95, 0.1, 1, 0.28, lamp)
    side.rectangle(0, 0.08, 0.05, 0.3, signal)
    wheels(side, (0.18, 0.8), 0.078, 0.36)

    front = body()
    front.rectangle(0.24, 0.3, 0.76, 0.56, (40, 40, 42))
    for y in (0.36, 0.43, 0.5):
        front.rectangle(0.26, y, 0.74, y + 0.025, (130, 132, 136))
    front.rectangle(0.03, 0.2, 0.22, 0.42, lamp)
    front.rectangle(0.78, 0.2, 0.97, 0.42, lamp)
    front.rectangle(0, 0.78, 1, 1, dark)
    front.rectangle(0.36, 0.64, 0.64, 0.76, (232, 232, 226))

    rear = body()
    rear.rectangle(0.02, 0.14, 0.2, 0.4, signal)
    rear.rectangle(0.8, 0.14, 0.98, 0.4, signal)
    rear.rectangle(0.12, 0.5, 0.88, 0.515, (80, 80, 80), 0.5)
    rear.rectangle(0.33, 0.28, 0.67, 0.44, (232, 226, 170))
    for x in np.linspace(0.36, 0.61, 6):
        rear.rectangle(x, 0.31, x + 0.025, 0.41, (40, 40, 44))
    rear.rectangle(0, 0.76, 1, 1, dark)

    hood = body()
    for x in (0.12, 0.88):
        hood.rectangle(x - 0.006, 0, x + 0.006, 1, (120, 120, 120), 0.9)
    for y in (0.28, 0.8):
        hood.rectangle(0, y, 1, y + 0.008, (90, 90, 90), 0.8)

    windows = body()
    windows.rectangle(0.05, 0.14, 0.95, 0.9, glass)
    windows.rectangle(0.05, 0.14, 0.95, 0.4, (96, 110, 124))
    for x in (0.46, 0.8):
        windows.rectangle(x, 0.1, x + 0.035, 0.95, (225, 225, 225), 1)

    screen = body()
    screen.rectangle(0.05, 0.1, 0.95, 0.94, glass)
    screen.rectangle(0.05, 0.1, 0.95, 0.45, (104, 120, 136))
    for x in (0.24, 0.64):
        screen.rectangle(x, 0.66, x + 0.12, 0.94, (36, 38, 42))

    van_side = body()
    van_side.rectangle(0.72, 0.12, 0.93, 0.42, glass)
    van_side.rectangle(0.72, 0.12, 0.93, 0.22, (100, 116, 130))
    stripe = tuple(rng.uniform(30, 200, 3))
    van_side.rectangle(0.04, 0.3, 0.66, 0.5, stripe)
    place = 0.08
    while place < 0.6:
        width = rng.uniform(0.01, 0.035)
        van_side.rectangle(place, 0.34, place + width, 0.46, lamp)
        place += width + 0.012
    for x in (0.35, 0.69, 0.95):
        van_side.rectangle(x, 0.05, x + 0.004, 0.84, (110, 110, 110), 0.8)
    wheels(van_side, (0.18, 0.82), 0.075, 0.17)

    van_front = body()
    van_front.rectangle(0.06, 0.1, 0.94, 0.45, glass)
    van_front.rectangle(0.06, 0.1, 0.94, 0.24, (104, 120, 136))
    van_front.rectangle(0.25, 0.6, 0.75, 0.72, (45, 45, 48))
    van_front.rectangle(0.04, 0.58, 0.2, 0.72, lamp)
    van_front.rectangle(0.8, 0.58, 0.96, 0.72, lamp)
    van_front.rectangle(0, 0.88, 1, 1, dark)

    van_rear = body()
    van_rear.rectangle(0.495, 0.04, 0.505, 0.86, (70, 70, 70), 0.6)
    for x in (0.08, 0.55):
        van_rear.rectangle(x, 0.12, x + 0.37, 0.42, glass)
        van_rear.rectangle(x, 0.12, x + 0.37, 0.24, (100, 114, 126))
    van_rear.rectangle(0.01, 0.5, 0.08, 0.75, signal)
    van_rear.rectangle(0.92, 0.5, 0.99, 0.75, signal)
    van_rear.rectangle(0.34, 0.66, 0.66, 0.75, (232, 226, 170))
    van_rear.rectangle(0, 0.88, 1, 1, dark)

    bus_side = body()
    for column in range(6):
        left = 0.03 + column * 0.16
        bus_side.rectangle(left, 0.14, left + 0.145, 0.5, glass)
        bus_side.rectangle(left, 0.14, left + 0.145, rng.uniform(0.2, 0.34), (96, 112, 128))
    bus_side.rectangle(0, 0.58, 1, 0.64, (245, 245, 240))
    bus_side.rectangle(0.15, 0.66, 0.6, 0.8, tuple(rng.uniform(40, 200, 3)))
    wheels(bus_side, (0.2, 0.78), 0.045, 0.15)

    shirt = body()
    shirt.rectangle(0.4, 0, 0.6, 0.12, (214, 170, 140))
    for y in np.linspace(0.2, 0.9, 6):
        shirt.rectangle(0, y, 1, y + 0.05, tuple(rng.uniform(100, 250, 3)), 0.6)
    legs = _Canvas((62, 66, 92), 0.2)
    legs.rectangle(0.48, 0.1, 0.52, 1, (30, 30, 36))
    legs.rectangle(0, 0.9, 1, 1, (40, 32, 28))
    head = _Canvas((218, 176, 148), 0.0)
    head.rectangle(0, 0, 1, 0.38, (70, 50, 36))
    for x in (0.28, 0.62):
        head.rectangle(x, 0.5, x + 0.12, 0.58, (40, 36, 36))

    return {
        "car side": finish(side),
        "car front": finish(front),
        "car rear": finish(rear),
        "car hood": finish(hood, 8),
        "car windows": finish(windows),
        "car screen": finish(screen),
        "van side": finish(van_side),
        "van front": finish(van_front),
        "van rear": finish(van_rear),
        "bus side": finish(bus_side),
        "shirt": finish(shirt, 12),
        "legs": finish(legs, 10),
        "head": finish(head, 10),
    }


# ---------------------------------------------------------------------------------------------------------------------
# The scene


@dataclass(frozen=True)
class _Part:
    """A box, or one that narrows towards its top, that stands on a body: m, in the body's frame (z forward, y down).

    Attributes:
        width, length, height: of its base along x and z, and upwards.
        textures: of the rear, the right, the front and the left side and the top.
        tint: colour that multiplies the texture's, about 1.
        bottom: height of its base above the body's origin.
        x, z: middle of its base.
        top_width, top_length: of its top; None: as the base.
        top_shift: how far the top's middle lies before the base's.
        tile: width and height of one repeat of a texture that tiles.
    """

    width: float
    length: float
    height: float
    textures: tuple[str, str, str, str, str]
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bottom: float = 0.0
    x: float = 0.0
    z: float = 0.0
    top_width: float | None = None
    top_length: float | None = None
    top_shift: float = 0.0
    tile: tuple[float, float] = (4.0, 4.0)


def _arc(
    yaw: float | np.ndarray,
    speed: float | np.ndarray,
    yaw_rate: float | np.ndarray,
    time: float | np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Way along x and z, m, and yaw, rad, after a time, s, at a steady speed, m/s, and yaw rate, rad/s."""
    turned = yaw_rate * time
    # The chord of the arc points half way between its two headings; np.sinc(a) is sin(pi a) / (pi a).
    chord = speed * time * np.sinc(turned / (2 * np.pi))
    mean = yaw + turned / 2
    return chord * np.sin(mean), chord * np.cos(mean), np.asarray(yaw + turned)


@dataclass(frozen=True)
class _Body:
    """A rigid body on the ground that goes forward at a steady speed and turns at a steady rate."""

    parts: tuple[_Part, ...]
    x: float
    z: float
    yaw: float = 0.0
    speed: float = 0.0
    yaw_rate: float = 0.0

    def position(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, z, m, and yaw, rad, at the given times, s."""
        right, forward, yaw = _arc(self.yaw, self.speed, self.yaw_rate, times)
        return self.x + right, self.z + forward, yaw

    def discs(self, times: np.ndarray) -> tuple[np.ndarray, float]:
        """Discs that cover the body's base: centres T x K x 2, m, and their radius, m."""
        width = max(part.width for part in self.parts)
        length = max(part.length for part in self.parts)
        count = max(1, math.ceil(length / width))
        along = (np.arange(count) - (count - 1) / 2) * (length / count)
        x, z, yaw = self.position(times)
        centres = np.stack(
            [x[:, None] + along * np.sin(yaw)[:, None], z[:, None] + along * np.cos(yaw)[:, None]],
            -1,
        )
        return centres, math.hypot(width, length / count) / 2


@dataclass(frozen=True, eq=False)
class _Scene:
    """All faces and bodies as arrays; face 0 is the ground.

    A face is ``corner + u * along + v * up`` in its body's frame, 0 <= v <= 1, ``taper[0] * v <= u <= 1 - taper[1] * v``;
    ``cross(along, up)`` points outwards.

    Attributes:
        body: int F. corner, along, up: F x 3, m. taper: F x 2.
        texture: int F, in the atlas. texture_scale, texture_offset: F x 2, texture repeats for u and v.
        tint: float32 F x 3.
        start: B x 3: x, z, yaw of each body at time 0, m and rad. speed, yaw_rate: B, m/s and rad/s.
        moving: bool B.
        shadow: S x 3: a body that darkens the ground, half its width and half its length, m.
        sun: unit vector towards the sun.
        haze: RGB of the sky at the horizon; zenith: RGB overhead.
    """

    body: np.ndarray
    corner: np.ndarray
    along: np.ndarray
    up: np.ndarray
    taper: np.ndarray
    texture: np.ndarray
    texture_scale: np.ndarray
    texture_offset: np.ndarray
    tint: np.ndarray
    start: np.ndarray
    speed: np.ndarray
    yaw_rate: np.ndarray
    moving: np.ndarray
    shadow: np.ndarray
    sun: np.ndarray
    haze: np.ndarray
    zenith: np.ndarray
    haze_distance: float
    cloud_offset: np.ndarray


@dataclass
class _Faces:
    """The faces of a scene while it is built."""

    rng: np.random.Generator
    body: list[int] = field(default_factory=list)
    corner: list[np.ndarray] = field(default_factory=list)
    along: list[np.ndarray] = field(default_factory=list)
    up: list[np.ndarray] = field(default_factory=list)
    taper: list[tuple[float, float]] = field(default_factory=list)
    texture: list[int] = field(default_factory=list)
    scale: list[tuple[float, float]] = field(default_factory=list)
    offset: list[tuple[float, float]] = field(default_factory=list)
    tint: list[tuple[float, float, float]] = field(default_factory=list)

    def add_quadrilateral(
        self,
        body: int,
        corners: np.ndarray,
        texture: str,
        tint: tuple[float, float, float],
        tile: tuple[float, float],
        mirrored: bool,
    ) -> None:
        """Add the trapezoid with corners bottom left, bottom right, top right, top left, seen from outside."""
        atlas = _atlas()
        along = corners[1] - corners[0]
        length2 = along @ along
        left = (corners[3] - corners[0]) @ along / length2
        right = (corners[1] - corners[2]) @ along / length2
        up = corners[3] - corners[0] - left * along
        index = atlas.names[texture]
        if atlas.tiled[index]:
            # Whole quarters of a wall, upwards from its foot, so that its windows stay whole.
            offset = (float(self.rng.integers(0, 4)) / 4, 0.0)
            scale = (math.sqrt(length2) / tile[0], -float(np.linalg.norm(up)) / tile[1])
        else:
            scale = (-1.0, -1.0) if mirrored else (1.0, -1.0)
            offset = (1.0, 1.0) if mirrored else (0.0, 1.0)
        self.body.append(body)
        self.corner.append(corners[0])
        self.along.append(along)
        self.up.append(up)
        self.taper.append((left, right))
        self.texture.append(index)
        self.scale.append(scale)
        self.offset.append(offset)
        self.tint.append(tint)

    def add_part(self, body: int, part: _Part) -> None:
        def ring(width: float, length: float, height: float, z: float) -> np.ndarray:
            x, z0, z1 = width / 2, z - length / 2, z + length / 2
            corners = [(-x, -height, z0), (x, -height, z0), (x, -height, z1), (-x, -height, z1)]
            return np.array(corners) + np.array([part.x, 0.0, 0.0])

        base = ring(part.width, part.length, part.bottom, part.z)
        top = ring(
            part.width if part.top_width is None else part.top_width,
            part.length if part.top_length is None else part.top_length,
            part.bottom + part.height,
            part.z + part.top_shift,
        )
        sides = [(k, (k + 1) % 4) for k in range(4)]
        quadrilaterals = [np.stack([base[k], base[n], top[n], top[k]]) for k, n in sides]
        quadrilaterals.append(top)
        textures = list(part.textures)
        if part.bottom > 0:
            quadrilaterals.append(base[[3, 2, 1, 0]])
            textures.append(part.textures[4])
        for k, (corners, texture) in enumerate(zip(quadrilaterals, textures, strict=True)):
            self.add_quadrilateral(body, corners, texture, part.tint, part.tile, mirrored=k == 3)


def _car(rng: np.random.Generator) -> tuple[_Part, ...]:
    paint = _paint_colour(rng)
    lower = rng.uniform(0.8, 0.95)
    length = rng.uniform(3.8, 4.6)
    estate = rng.random() < 0.35
    sides = ("car rear", "car side", "car front", "car side", "car hood")
    cabin = ("car screen", "car windows", "car screen", "car windows", "car hood")
    return (
        _Part(1.8, length, lower, sides, paint, top_width=1.7, top_length=length - 0.18),
        _Part(
            1.66, length * (0.7 if estate else 0.58), rng.uniform(0.55, 0.68), cabin, paint,
            bottom=lower, z=-0.12 * length, top_width=1.3,
            top_length=length * (0.52 if estate else 0.34), top_shift=-0.06 if estate else -0.1,
        ),
    )  # fmt: skip


def _van(rng: np.random.Generator) -> tuple[_Part, ...]:
    sides = ("van rear", "van side", "van front", "van side", "car hood")
    length = rng.uniform(4.8, 5.6)
    return (
        _Part(
            2.0, length, rng.uniform(2.0, 2.4), sides, _paint_colour(rng),
            top_width=1.86, top_length=length - 0.5, top_shift=-0.2,
        ),
    )  # fmt: skip


def _bus(rng: np.random.Generator) -> tuple[_Part, ...]:
    sides = ("van rear", "bus side", "van front", "bus side", "car hood")
    return (_Part(2.45, 10.5, 3.0, sides, _paint_colour(rng)),)


def _walker(rng: np.random.Generator) -> tuple[_Part, ...]:
    height = rng.uniform(0.92, 1.08)
    colour = tuple(rng.uniform(0.4, 1.1, 3))
    return (
        _Part(0.36, 0.26, 0.85 * height, ("legs",) * 5),
        _Part(
            0.5, 0.28, 0.6 * height, ("shirt",) * 5, colour, bottom=0.85 * height, top_width=0.42
        ),
        _Part(0.2, 0.22, 0.27 * height, ("head",) * 5, bottom=1.45 * height),
    )


def _tree(rng: np.random.Generator) -> tuple[_Part, ...]:
    height, crown = rng.uniform(2.3, 3.0), rng.uniform(2.2, 3.2)
    green = tuple(np.array([1.0, 1.0, 1.0]) * rng.uniform(0.75, 1.2) + rng.uniform(-0.12, 0.12, 3))
    return (
        _Part(0.3, 0.3, height, ("bark",) * 5, tile=(1.0, 2.0)),
        _Part(
            0.7 * crown, 0.7 * crown, 0.45 * crown, ("leaves",) * 5, green,
            bottom=height, top_width=crown, top_length=crown, tile=(2.5, 2.5),
        ),
        _Part(
            crown, crown, 0.8 * crown, ("leaves",) * 5, green,
            bottom=height + 0.45 * crown, top_width=0.4 * crown, top_length=0.4 * crown, tile=(2.5, 2.5),
        ),
    )  # fmt: skip


def _building(
    rng: np.random.Generator, width: float, depth: float, floors: int
) -> tuple[_Part, ...]:
    """Its front is its right side (+x): `width` runs along z."""
    wall = str(rng.choice(["brick", "brick", "plaster", "stone", "office"]))
    palette = np.array(
        [
            [0.80, 0.52, 0.42], [0.92, 0.82, 0.64], [0.96, 0.93, 0.86], [0.74, 0.78, 0.82],
            [0.90, 0.72, 0.58], [0.70, 0.60, 0.52], [0.82, 0.86, 0.74], [1.0, 0.88, 0.70],
        ]
    )  # fmt: skip
    colour = tuple(rng.choice(palette) * rng.uniform(0.85, 1.08))
    parts = []
    base = 3.5
    sides = ("concrete", "shop", "concrete", "concrete", "concrete")
    parts.append(
        _Part(depth, width, base, sides, tuple(rng.uniform(0.75, 1.05, 3)), tile=(12.0, 3.5))
    )
    parts.append(
        _Part(depth + 0.3, width, 0.3, ("concrete",) * 5, colour, bottom=base, tile=(3, 3))
    )
    parts.append(
        _Part(
            depth,
            width,
            3.0 * floors,
            (wall,) * 4 + ("concrete",),
            colour,
            bottom=base + 0.3,
            tile=(12, 12),
        )
    )
    parts.append(
        _Part(
            depth + 0.6, width, 0.5, ("concrete",) * 5, colour,
            bottom=base + 0.3 + 3.0 * floors, tile=(3, 3),
        )
    )  # fmt: skip
    return tuple(parts)


def _paint_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    palette = np.array(
        [
            [0.95, 0.95, 0.95], [0.72, 0.74, 0.77], [0.30, 0.31, 0.34], [0.72, 0.10, 0.10],
            [0.12, 0.26, 0.58], [0.92, 0.70, 0.12], [0.10, 0.40, 0.30], [0.85, 0.42, 0.10],
            [0.45, 0.62, 0.80],
        ]
    )  # fmt: skip
    red, green, blue = rng.choice(palette) * rng.uniform(0.9, 1.1)
    return float(red), float(green), float(blue)


def _build_scene(rng: np.random.Generator, motion: _CameraMotion, duration: float) -> _Scene:
    first, last = -_MARGIN_BEHIND, motion.speed * duration + _MARGIN_AHEAD
    crossings = [rng.uniform(26.0, 40.0)]
    while crossings[-1] < last - 90.0:
        crossings.append(crossings[-1] + rng.uniform(60.0, 110.0))
    bodies = _street(rng, first, last, crossings)
    bodies += _traffic(rng, motion, duration, crossings, bodies)
    ground = _Body((), 0.0, 0.0)
    bodies.insert(0, ground)

    faces = _Faces(rng)
    x, z0, z1 = _GROUND_WIDTH / 2, first - 400.0, last + 800.0
    corners = np.array([(-x, 0, z0), (x, 0, z0), (x, 0, z1), (-x, 0, z1)])
    faces.add_quadrilateral(0, corners, "asphalt", (1, 1, 1), (_GROUND_TILE, _GROUND_TILE), False)
    for index, body in enumerate(bodies):
        for part in body.parts:
            faces.add_part(index, part)

    azimuth, elevation = rng.uniform(-np.pi, np.pi), rng.uniform(0.5, 1.0)
    sun = [
        math.cos(elevation) * math.sin(azimuth), -math.sin(elevation), math.cos(elevation) * math.cos(azimuth)
    ]  # fmt: skip
    shadows = [
        (index, body.parts[0].width / 2, body.parts[0].length / 2)
        for index, body in enumerate(bodies)
        if body.parts and body.parts[0].textures[0] in ("car rear", "van rear", "legs")
    ]
    speed = np.array([body.speed for body in bodies])
    yaw_rate = np.array([body.yaw_rate for body in bodies])
    return _Scene(
        body=np.array(faces.body),
        corner=np.array(faces.corner),
        along=np.array(faces.along),
        up=np.array(faces.up),
        taper=np.array(faces.taper),
        texture=np.array(faces.texture),
        texture_scale=np.array(faces.scale),
        texture_offset=np.array(faces.offset),
        tint=np.array(faces.tint, dtype=np.float32),
        start=np.array([(body.x, body.z, body.yaw) for body in bodies]),
        speed=speed,
        yaw_rate=yaw_rate,
        moving=(speed != 0) | (yaw_rate != 0),
        shadow=np.array(shadows).reshape(-1, 3),
        sun=np.array(sun),
        haze=np.array([206, 214, 224], np.float32) + np.float32(rng.uniform(-10, 10)),
        zenith=np.array([96, 142, 206], np.float32) + rng.uniform(-6, 12, 3).astype(np.float32),
        haze_distance=rng.uniform(350.0, 700.0),
        cloud_offset=rng.uniform(0, 1, 2),
    )


def _street(
    rng: np.random.Generator, first: float, last: float, crossings: list[float]
) -> list[_Body]:
    """What stands: pavements with buildings or gardens, trees and parked vehicles, between the crossings."""
    bodies = []
    gap = 6.5
    starts = [first] + [crossing + gap for crossing in crossings]
    ends = [crossing - gap for crossing in crossings] + [last]
    for side in (-1, 1):
        # A building faces its right side (+x): turned half round on the right of the street.
        yaw = 0.0 if side < 0 else np.pi
        for start, end in zip(starts, ends, strict=True):
            middle, length = (start + end) / 2, end - start
            width = 40.0
            paving = _Part(
                width,
                length,
                0.14,
                ("concrete",) * 4 + ("paving",),
                (0.95, 0.93, 0.9),
                tile=(3.0, 3.0),
            )
            bodies.append(_Body((paving,), side * (_KERB + width / 2), middle))
            place = start + 0.4
            while place < end - 9.4:
                wide = float(rng.choice([9, 12, 15, 18]))
                wide = min(wide, 3.0 * math.floor((end - 0.4 - place) / 3.0))
                if rng.random() < 0.8:
                    floors, depth = int(rng.integers(1, 6)), 12.0
                    setback = float(rng.choice([0.0, 0.0, 1.0]))
                    x = side * (_FACADE + setback + depth / 2)
                    building = _building(rng, wide - 0.02, depth, floors)
                    bodies.append(_Body(building, x, place + wide / 2, yaw))
                else:
                    lawn = _Part(
                        16.0, wide - 0.6, 0.3, ("concrete",) * 4 + ("grass",), tile=(3.0, 3.0)
                    )
                    bodies.append(_Body((lawn,), side * (_FACADE + 8.6), place + wide / 2, yaw))
                    for offset in (0.3, 0.7):
                        x = side * (_FACADE + rng.uniform(4.0, 6.0))
                        bodies.append(
                            _Body(_tree(rng), x, place + offset * wide, rng.uniform(0, 1))
                        )
                place += wide
            place = start + rng.uniform(1.0, 4.0)
            while place < end - 1.0:
                bodies.append(_Body(_tree(rng), side * (_KERB + 0.75), place, rng.uniform(0, 1.5)))
                place += rng.uniform(8.0, 17.0)
            place = start + rng.uniform(3.0, 7.0)
            while place < end - 4.0:
                if rng.random() < 0.7:
                    vehicle = _van(rng) if rng.random() < 0.2 else _car(rng)
                    turned = 0.0 if side > 0 else np.pi
                    yaw_here = turned + rng.normal(0, 0.02)
                    x = side * (_KERB - 1.15 + rng.normal(0, 0.06))
                    bodies.append(_Body(vehicle, x, place, yaw_here))
                place += rng.uniform(6.2, 8.5)
    return bodies


def _traffic(
    rng: np.random.Generator,
    motion: _CameraMotion,
    duration: float,
    crossings: list[float],
    standing: list[_Body],
) -> list[_Body]:
    """What moves, on paths that meet neither the camera, nor each other, nor what stands, while the drive lasts."""
    times = np.arange(0, duration + 0.1, 0.1)
    camera = np.stack([motion.position(time)[[0, 2]] for time in times])
    taken = [(np.stack([camera, camera - (0, 2.0)], axis=1), 1.5)]
    taken += [
        body.discs(times[:1])
        for body in standing
        if body.parts[0].width < 3 and body.parts[0].height > 0.3
    ]
    bodies: list[_Body] = []

    def add(body: _Body) -> None:
        centres, radius = body.discs(times)
        low, high = centres.min(axis=(0, 1)) - radius, centres.max(axis=(0, 1)) + radius
        for other, other_radius in taken:
            first, last = (
                other.min(axis=(0, 1)) - other_radius,
                other.max(axis=(0, 1)) + other_radius,
            )
            if (first > high).any() or (last < low).any():
                continue
            distance = np.linalg.norm(centres[:, :, None] - other[:, None], axis=-1)
            if distance.min() < radius + other_radius:
                return
        taken.append((centres, radius))
        bodies.append(body)

    def vehicle() -> tuple[_Part, ...]:
        kind = rng.random()
        return _car(rng) if kind < 0.72 else _van(rng) if kind < 0.92 else _bus(rng)

    def drift() -> float:
        return float(rng.normal(0, 0.01)) / max(1.0, duration)

    ahead = motion.position(0.0)[2] + rng.uniform(11.0, 19.0)
    speed = motion.speed * rng.uniform(1.0, 1.25)
    while ahead < 150.0:
        add(_Body(vehicle(), _LANE / 2 + rng.normal(0, 0.15), ahead, 0.0, speed, drift()))
        ahead += rng.uniform(14.0, 40.0)
    oncoming = rng.uniform(9.0, 20.0)
    speed = rng.uniform(5.0, 10.0)
    while oncoming < 60.0 + (speed + motion.speed) * duration:
        add(_Body(vehicle(), -_LANE / 2 + rng.normal(0, 0.15), oncoming, np.pi, speed, drift()))
        oncoming += rng.uniform(10.0, 26.0)
    for side in (-1, 1):
        place = rng.uniform(6.0, 14.0)
        while place < 80.0 + motion.speed * duration:
            turned = float(rng.choice([0.0, np.pi]))
            x = side * (_KERB + rng.uniform(1.7, 2.8))
            add(_Body(_walker(rng), x, place, turned, rng.uniform(1.0, 1.6), drift()))
            place += rng.uniform(5.0, 20.0)
    for crossing in crossings:
        reached = max(0.0, (crossing - 25.0) / motion.speed)
        for side in (-1, 1):
            for _ in range(3):
                speed = rng.uniform(4.0, 8.0)
                start = side * (rng.uniform(-8.0, 22.0) + speed * reached)
                heading = -side * np.pi / 2
                add(_Body(vehicle(), start, crossing + side * _LANE / 2, heading, speed, drift()))
            turn = rng.uniform(0.25, 0.5)
            start = side * rng.uniform(6.0, 12.0)
            add(
                _Body(
                    _car(rng),
                    start,
                    crossing + side * _LANE / 2,
                    -side * np.pi / 2,
                    6.0 * turn,
                    -turn * 0.6,
                )
            )
            for _ in range(2):
                walk = side * rng.uniform(2.0, 8.0)
                near = crossing + float(rng.choice([-5.4, 5.2])) + rng.normal(0, 0.2)
                add(
                    _Body(
                        _walker(rng), walk, near, -side * np.pi / 2, rng.uniform(1.1, 1.7), drift()
                    )
                )
    return bodies


# ---------------------------------------------------------------------------------------------------------------------
# Rays


@dataclass(frozen=True, eq=False)
class _View:
    """A scene at one instant, as one camera sees it.

    Attributes:
        scene: what is seen.
        camera: image size and intrinsics (the left camera's: both have the same).
        pose: camera to world, 4 x 4.
        place: B x 3, x, z, yaw of each body now, m and rad.
        light: float32 F, how brightly each face is lit.
        project: F x 3 x 3, (u, v, 1) on a face to homogeneous pixel; the third is the depth, m.
        inverse: F x 3 x 3, pixel (x, y, 1) to (u, v, 1) / depth; only that of `seen` faces is defined.
        edges: F x 4 x 3, affine in the pixel, >= 0 inside the face's four edges.
        seen: faces that look towards the camera and reach into the image, nearest first.
        bounds: F x 4, first and last column + 1, first and last row + 1 of the image that a seen face can reach.
        infinity: 3 x 3, direction in the world to homogeneous pixel.
    """

    scene: _Scene
    camera: StereoCamera
    pose: np.ndarray
    place: np.ndarray
    light: np.ndarray
    project: np.ndarray
    inverse: np.ndarray
    edges: np.ndarray
    seen: np.ndarray
    bounds: np.ndarray
    infinity: np.ndarray

    @property
    def sky(self) -> int:
        """What stands for a face where there is none."""
        return len(self.project)


def _look(scene: _Scene, time: float, pose: np.ndarray, camera: StereoCamera) -> _View:
    right, forward, yaw = _arc(scene.start[:, 2], scene.speed, scene.yaw_rate, time)
    x, z = scene.start[:, 0] + right, scene.start[:, 1] + forward
    to_world = _about_y(yaw)[scene.body]
    place = np.stack([x, np.zeros_like(x), z], axis=-1)[scene.body]

    along, up, corner = (
        np.einsum("fij,fj->fi", to_world, v) for v in (scene.along, scene.up, scene.corner)
    )
    normal = np.cross(along, up)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    # Half the sky's light on a wall, all of it on a roof, and the sun's.
    light = 0.62 - 0.14 * normal[:, 1] + 0.42 * np.maximum(normal @ scene.sun, 0.0)

    to_camera = pose[:3, :3].T
    intrinsics = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    vectors = np.stack([along, up, corner + place - pose[:3, 3]], axis=-1)
    vectors = to_camera @ vectors
    facing = np.einsum("fi,fi->f", np.cross(vectors[..., 0], vectors[..., 1]), vectors[..., 2])
    size = np.linalg.norm(vectors[..., 0], axis=1) * np.linalg.norm(vectors[..., 1], axis=1)
    project = intrinsics @ vectors

    bounds = _image_bounds(project, scene.taper, camera)
    inside = (bounds[:, 0] < bounds[:, 1]) & (bounds[:, 2] < bounds[:, 3])
    # A face seen more edge-on than this has no inverse worth having, and covers no pixel.
    seen = np.flatnonzero(inside & (facing < -1e-9 * size))
    middle = project[:, 2] @ np.array([0.5, 0.5, 1.0])
    seen = seen[np.argsort(middle[seen], kind="stable")]

    inverse = np.full_like(project, np.nan)
    inverse[seen] = np.linalg.inv(project[seen])
    u, v, w = inverse[:, 0], inverse[:, 1], inverse[:, 2]
    left, right = scene.taper[:, :1], scene.taper[:, 1:]
    edges = np.stack(
        [
            v + _EDGE * w,
            (1 + _EDGE) * w - v,
            u - left * v + _EDGE * w,
            (1 + _EDGE) * w - u - right * v,
        ],
        axis=1,
    )
    return _View(
        scene=scene,
        camera=camera,
        pose=pose,
        place=np.stack([x, z, yaw], axis=-1),
        light=light.astype(np.float32),
        project=project,
        inverse=inverse,
        edges=edges,
        seen=seen,
        bounds=bounds,
        infinity=intrinsics @ to_camera,
    )


def _image_bounds(project: np.ndarray, taper: np.ndarray, camera: StereoCamera) -> np.ndarray:
    """Pixels that each face can reach, with one to spare: F x 4, half-open, columns then rows; empty where none."""
    count = len(project)
    zero, one = np.zeros(count), np.ones(count)
    u = np.stack([zero, one, 1 - taper[:, 1], taper[:, 0]], axis=1)
    v = np.stack([zero, zero, one, one], axis=1)
    corners = np.einsum("fij,fkj->fki", project, np.stack([u, v, np.ones_like(u)], axis=-1))
    # The polygon's part before the near plane: its corners there, and where its sides cross that plane.
    following = np.roll(corners, -1, axis=1)
    depth, next_depth = corners[..., 2] - _NEAR, following[..., 2] - _NEAR
    crosses = depth * next_depth < 0
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(crosses, depth / (depth - next_depth), 0.0)[..., None]
    points = np.concatenate([corners, corners + part * (following - corners)], axis=1)
    use = np.concatenate([depth >= 0, crosses], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        image = points[..., :2] / points[..., 2:]
    lowest = np.where(use[..., None], image, np.inf).min(axis=1)
    highest = np.where(use[..., None], image, -np.inf).max(axis=1)
    size = np.array([camera.width, camera.height])
    first = np.clip(np.floor(lowest - 1), 0, size)
    last = np.clip(np.ceil(highest + 2), 0, size)
    return np.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], axis=1).astype(np.intp)


def _pixel_centres(camera: StereoCamera) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: camera.height, : camera.width].astype(np.float64)
    return x.ravel(), y.ravel()


def _cast_grid(view: _View) -> tuple[np.ndarray, np.ndarray]:
    """First face that the ray through each pixel's centre meets (the sky: `view.sky`), and 1 / depth there (0): H x W."""
    shape = (view.camera.height, view.camera.width)
    face = np.full(shape, view.sky)
    nearest = np.zeros(shape)
    columns, rows = np.arange(shape[1], dtype=np.float64), np.arange(shape[0], dtype=np.float64)
    for index in view.seen:
        x0, x1, y0, y1 = view.bounds[index]
        x, y = columns[x0:x1], rows[y0:y1, None]

        def plane(a: np.ndarray, x: np.ndarray = x, y: np.ndarray = y) -> np.ndarray:
            return a[0] * x + (a[1] * y + a[2])

        inverse_depth = plane(view.inverse[index, 2])
        hit = inverse_depth > nearest[y0:y1, x0:x1]
        if not hit.any():
            continue
        for edge in view.edges[index]:
            hit &= plane(edge) >= 0
        np.copyto(nearest[y0:y1, x0:x1], inverse_depth, where=hit)
        np.copyto(face[y0:y1, x0:x1], index, where=hit)
    return face, nearest


def _cast_points(
    view: _View, x: np.ndarray, y: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """As `_cast_grid`, for the rays through any points of the image, px, N; outside of it or NaN: the sky.

    Only the given faces, which must be `seen`, are met.
    """
    # In order of rows, a face's points are in one slice. Indices of rows sort fast as int16.
    inside = (x > -1) & (x < view.camera.width) & (y > -1) & (y < view.camera.height)
    row = np.where(inside, np.rint(np.where(inside, y, 0)), -2).astype(np.int16)
    order = np.argsort(row, kind="stable")
    row, x, y = row[order], x[order], y[order]
    face = np.full(len(x), view.sky)
    nearest = np.zeros(len(x))
    bounds = view.bounds[faces]
    starts = np.searchsorted(row, bounds[:, 2] - 1)
    ends = np.searchsorted(row, bounds[:, 3], side="right")
    for index, start, end in zip(faces, starts, ends, strict=True):
        x0, x1 = view.bounds[index, :2]
        part_x = x[start:end]
        chosen = start + np.flatnonzero((part_x > x0 - 1) & (part_x < x1))
        if not len(chosen):
            continue
        part_x, part_y = x[chosen], y[chosen]

        def plane(a: np.ndarray, x: np.ndarray = part_x, y: np.ndarray = part_y) -> np.ndarray:
            return a[0] * x + a[1] * y + a[2]

        inverse_depth = plane(view.inverse[index, 2])
        hit = inverse_depth > nearest[chosen]
        for edge in view.edges[index]:
            hit &= plane(edge) >= 0
        chosen = chosen[hit]
        nearest[chosen] = inverse_depth[hit]
        face[chosen] = index
    found_face, found_nearest = np.empty_like(face), np.empty_like(nearest)
    found_face[order], found_nearest[order] = face, nearest
    return found_face, found_nearest


def _surface_coordinates(
    view: _View, face: np.ndarray, inverse_depth: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(u, v) on its face of the point that each ray meets; NaN in the sky. All N."""
    inverse = np.concatenate([view.inverse, np.full((1, 3, 3), np.nan)])
    u, v = (inverse[face, k, 0] * x + inverse[face, k, 1] * y + inverse[face, k, 2] for k in (0, 1))
    with np.errstate(invalid="ignore"):
        return u / inverse_depth, v / inverse_depth


def _project(
    view: _View, face: np.ndarray, u: np.ndarray, v: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel x, y and depth, m, of points (u, v) on faces; all N."""
    project = np.concatenate([view.project, np.full((1, 3, 3), np.nan)])
    x, y, depth = (
        project[face, k, 0] * u + project[face, k, 1] * v + project[face, k, 2] for k in range(3)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return x / depth, y / depth, depth


def _visible(
    view: _View, face: np.ndarray, x: np.ndarray, y: np.ndarray, depth: np.ndarray
) -> np.ndarray:
    """Whether points on faces are seen at their pixels, at their depth, m (the sky's: inf): bool N."""
    camera = view.camera
    # Float32 rounding must not push the point of the last pixel out.
    spare = 1e-6
    visible = (depth >= _NEAR) & (x >= -spare) & (x <= camera.width - 1 + spare)
    visible &= (y >= -spare) & (y <= camera.height - 1 + spare)
    towards = np.zeros(view.sky + 1, bool)
    towards[view.seen] = towards[view.sky] = True
    visible &= towards[face]
    candidates = np.flatnonzero(visible)
    first, nearest = _cast_points(view, x[candidates], y[candidates], view.seen)
    # In the sky nothing may be seen; elsewhere nothing nearer than the point, which rounding moves.
    visible[candidates] = (first == face[candidates]) | (nearest < (1 + 1e-6) / depth[candidates])
    return visible


# ---------------------------------------------------------------------------------------------------------------------
# Colours


def _render(view: _View) -> np.ndarray:
    """The image: uint8 RGB, H x W x 3."""
    camera = view.camera
    face, _ = _cast_grid(view)
    x, y = _pixel_centres(camera)
    paint = _paint(view)
    image = _shade(view, paint, face.ravel(), x, y, 1.0).reshape(camera.height, camera.width, 3)

    mixed = np.zeros(face.shape, bool)
    for ahead, behind in (
        (np.s_[:, 1:], np.s_[:, :-1]),
        (np.s_[1:], np.s_[:-1]),
        (np.s_[1:, 1:], np.s_[:-1, :-1]),
        (np.s_[1:, :-1], np.s_[:-1, 1:]),
    ):
        differs = face[ahead] != face[behind]
        mixed[ahead] |= differs
        mixed[behind] |= differs
    rows, columns = np.nonzero(mixed)
    steps = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
    offset_y, offset_x = (offsets.ravel() for offsets in np.meshgrid(steps, steps, indexing="ij"))
    x = (columns + offset_x[:, None]).ravel()
    y = (rows + offset_y[:, None]).ravel()
    present = np.isin(view.seen, np.unique(face))
    face, _ = _cast_points(view, x, y, view.seen[present])
    colours = _shade(view, paint, face, x, y, 1 / _SUBSAMPLES)
    image[rows, columns] = colours.reshape(len(offset_x), len(rows), 3).mean(axis=0)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Paint:
    """How each face of a view is coloured; the sky comes last.

    Attributes:
        to_texel: 3 x 3 x F, pixel (x, y, 1) to (s, t, 1) / depth; s and t are texels.
        texture: int F, in the atlas. tint: float32 F x 3. light: float32 F.
        to_world: 3 x 3, pixel (x, y, 1) to its ray's direction in the world.
    """

    to_texel: np.ndarray
    texture: np.ndarray
    tint: np.ndarray
    light: np.ndarray
    to_world: np.ndarray


def _paint(view: _View) -> _Paint:
    scene = view.scene
    # The clouds are a plane above the camera, which only its rotation moves.
    to_world = np.linalg.inv(view.infinity)
    clouds = np.stack([0.25 * to_world[0], 0.25 * to_world[2], -to_world[1]])
    to_texel = np.concatenate([view.inverse, clouds[None]])
    scale = np.concatenate([scene.texture_scale, [[1.0, 1.0]]])[:, :, None]
    offset = np.concatenate([scene.texture_offset, [scene.cloud_offset]])[:, :, None]
    to_texel[:, :2] = _TEXTURE * (scale * to_texel[:, :2] + offset * to_texel[:, 2:])
    return _Paint(
        to_texel=np.ascontiguousarray(to_texel.transpose(1, 2, 0)),
        texture=np.append(scene.texture, _atlas().names["clouds"]),
        tint=np.concatenate([scene.tint, np.ones((1, 3), np.float32)]),
        light=np.append(view.light, np.float32(1)),
        to_world=to_world,
    )


def _shade(
    view: _View, paint: _Paint, face: np.ndarray, x: np.ndarray, y: np.ndarray, size: float
) -> np.ndarray:
    """Colour of faces seen at pixels x, y through squares of the given size, px: float32 N x 3, 0 to 255."""
    # In parts that stay in the processor's cache.
    parts = [slice(start, start + _PART) for start in range(0, len(face), _PART)]
    colours = [_shade_part(view, paint, face[p], x[p], y[p], size) for p in parts]
    return np.concatenate(colours) if colours else np.zeros((0, 3), np.float32)


def _shade_part(
    view: _View, paint: _Paint, face: np.ndarray, x: np.ndarray, y: np.ndarray, size: float
) -> np.ndarray:
    scene = view.scene
    a = [[column.take(face) for column in row] for row in paint.to_texel]
    s, t, w = (row[0] * x + row[1] * y + row[2] for row in a)
    sky = np.flatnonzero(face == view.sky)
    elevation = w[sky] / np.linalg.norm(
        paint.to_world @ np.stack([x[sky], y[sky], np.ones(len(sky))]), axis=0
    )
    # Towards the horizon the clouds' plane is cut off.
    w[sky] = np.maximum(w[sky], 0.03)
    depth = 1 / w
    s *= depth
    t *= depth
    step = depth * size
    gradient = [
        ((a[row][column] - value * a[2][column]) * step).astype(np.float32)
        for row, value in ((0, s), (1, t))
        for column in (0, 1)
    ]
    texel = _sample(paint.texture.take(face), s, t, gradient)

    colour = paint.tint.take(face, axis=0)
    colour -= 1
    colour *= texel[:, 3:] * np.float32(1 / 255)
    colour += 1
    colour *= texel[:, :3]
    colour *= paint.light.take(face)[:, None]
    ground = np.flatnonzero(face == 0)
    if len(ground):
        on_ground = [g[ground] for g in gradient]
        colour[ground] = _shade_ground(view, colour[ground], s[ground], t[ground], on_ground)
    clear = np.exp((depth * (-1 / scene.haze_distance)).astype(np.float32))[:, None]
    colour -= scene.haze
    colour *= clear
    colour += scene.haze
    colour[sky] = _sky_colour(scene, texel[sky, 0], elevation)
    return colour


def _sky_colour(scene: _Scene, cloud: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Clouds before a blue that pales towards the horizon; elevation: sine of the angle above it."""
    height = np.clip(elevation, 0, 1).astype(np.float32)[:, None]
    blue = scene.haze + (1 - np.exp(-3.5 * height)) * (scene.zenith - scene.haze)
    cover = np.clip((cloud[:, None] - 105) / 90, 0, 1) * np.clip(5 * height, 0, 1) * np.float32(0.9)
    white = np.float32(244) - np.float32(0.12) * np.abs(cloud[:, None] - 150)
    return blue + cover * (white - blue)


def _shade_ground(
    view: _View, colour: np.ndarray, s: np.ndarray, t: np.ndarray, gradient: list[np.ndarray]
) -> np.ndarray:
    """Asphalt with large patches, lane markings and the darkness under vehicles."""
    scene = view.scene
    metres = _GROUND_TILE / _TEXTURE
    corner, tile = scene.corner[0], scene.texture_offset[0] * _GROUND_TILE
    x = (s * metres - tile[0] + corner[0]).astype(np.float32)
    z = (tile[1] - t * metres + corner[2]).astype(np.float32)
    broad = np.float32(_GROUND_TILE / 47.0)
    texture = np.full(len(s), _atlas().names["broad"])
    # Wide patches may be blurred as much across the view as along it: one tap does.
    blur, none = broad * np.maximum.reduce(np.abs(gradient)), np.zeros_like(gradient[0])
    patches = _sample(texture, s * broad, t * broad, [blur, none, none, blur])
    patches = patches[:, :1] * np.float32(1 / 128)
    colour = colour * (np.float32(0.7) + np.float32(0.3) * patches)

    wide = np.maximum((np.abs(gradient[0]) + np.abs(gradient[1])) * np.float32(metres), 1e-3)
    long = np.maximum((np.abs(gradient[2]) + np.abs(gradient[3])) * np.float32(metres), 1e-3)
    lines = _stripe(np.abs(x), _LANE + 0.02, 0.07, wide) * np.float32(0.9)
    lines += _stripe(x, 0.0, 0.075, wide) * _dashes(z, 9.0, 3.0, long)
    worn = np.clip(lines * (1.25 - 0.45 * patches[:, 0]), 0, 1).astype(np.float32)[:, None]
    colour += worn * (np.float32(214) - colour)

    for body, half_width, half_length in scene.shadow:
        at_x, at_z, yaw = view.place[int(body)]
        reach = math.hypot(half_width, half_length) + 1.0
        near = np.flatnonzero((np.abs(x - at_x) < reach) & (np.abs(z - at_z) < reach))
        if not len(near):
            continue
        from_x, from_z = x[near] - np.float32(at_x), z[near] - np.float32(at_z)
        across = np.abs(from_x * math.cos(yaw) - from_z * math.sin(yaw)) - half_width
        along = np.abs(from_x * math.sin(yaw) + from_z * math.cos(yaw)) - half_length
        distance = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
        dark = 0.5 * np.exp(-((distance / 0.3) ** 2))
        colour[near] *= (1 - dark).astype(np.float32)[:, None]
    return colour


def _stripe(x: np.ndarray, centre: float, half: float, width: np.ndarray) -> np.ndarray:
    """Part that a stripe covers of an interval of the given width about x."""
    from_centre = x - np.float32(centre)
    high = np.clip(from_centre + width / 2, -half, half)
    return (high - np.clip(from_centre - width / 2, -half, half)) / width


def _dashes(z: np.ndarray, period: float, dash: float, length: np.ndarray) -> np.ndarray:
    """Part that dashes, one a period, cover of an interval of the given length about z."""

    def covered(end: np.ndarray) -> np.ndarray:
        whole = np.floor(end / period)
        return whole * dash + np.minimum(end - whole * period, dash)

    return (covered(z + length / 2) - covered(z - length / 2)) / length


def _sample(
    texture: np.ndarray, s: np.ndarray, t: np.ndarray, gradient: list[np.ndarray]
) -> np.ndarray:
    """Mean of textures over parallelograms.

    Args:
        texture: int N, in the atlas.
        s: middles, texels of level 0, float64 N.
        t: the same, downwards.
        gradient: sides (ds/dx, ds/dy, dt/dx, dt/dy), texels, float32 N each.

    Returns:
        float32 N x 4, 0 to 255.
    """
    atlas = _atlas()
    sx, sy, tx, ty = gradient
    length_x, length_y = sx * sx + tx * tx, sy * sy + ty * ty
    longest = np.maximum(np.maximum(length_x, length_y), np.float32(1e-12))
    area = np.maximum(np.abs(sx * ty - sy * tx), longest / _MOST_TAPS**2)
    # The taps lie along the longer side, each as wide as the parallelogram is across it.
    half_log = 0.5 * np.log2(longest)
    log_area = np.log2(area)
    taps = np.clip(np.rint(2 * half_log - log_area), 0, math.log2(_MOST_TAPS))
    lod = np.clip(np.maximum(log_area - half_log, half_log - taps), 0, _LEVELS - 1.001)
    taps = taps.astype(np.int8)
    first = length_x >= length_y
    along_s, along_t = np.where(first, sx, sy), np.where(first, tx, ty)

    tiled = atlas.tiled[texture] * float(_TEXTURE)
    s = (s - np.floor(s * (1 / _TEXTURE)) * tiled).astype(np.float32)
    t = (t - np.floor(t * (1 / _TEXTURE)) * tiled).astype(np.float32)
    rows = atlas.rows.take(texture)
    result = np.empty((len(s), 4), np.float32)
    for power in range(int(math.log2(_MOST_TAPS)) + 1):
        chosen = np.flatnonzero(taps == power)
        if len(chosen):
            count = 1 << power
            offsets = ((np.arange(count) + 0.5) / count - 0.5).astype(np.float32)[:, None]
            tap_s = s[chosen] + offsets * along_s[chosen]
            tap_t = t[chosen] + offsets * along_t[chosen]
            result[chosen] = _fetch(atlas, rows[chosen], tap_s, tap_t, lod[chosen])
    return result


def _fetch(
    atlas: _Atlas, rows: np.ndarray, s: np.ndarray, t: np.ndarray, lod: np.ndarray
) -> np.ndarray:
    """Mean over taps (s, t), T x N, of trilinearly filtered textures: float32 N x 4."""
    fine = lod.astype(np.intp)
    shrink = np.exp2(-fine.astype(np.float32))
    low = _fetch_level(atlas, rows, s, t, fine, shrink)
    high = _fetch_level(atlas, rows, s, t, fine + 1, shrink * np.float32(0.5))
    return low + (lod - fine).astype(np.float32)[:, None] * (high - low)


def _fetch_level(
    atlas: _Atlas,
    rows: np.ndarray,
    s: np.ndarray,
    t: np.ndarray,
    level: np.ndarray,
    shrink: np.ndarray,
) -> np.ndarray:
    # remap takes images of less than 32768 px a side.
    width = 1024
    shape = (-(-s.size // width), width)
    column, row = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for image, values, start in ((column, s, atlas.columns.take(level)), (row, t, rows)):
        place = image.reshape(-1)[: s.size].reshape(s.shape)
        np.multiply(values, shrink, out=place)
        place += start
    texels = cv2.remap(atlas.texels, column, row, cv2.INTER_LINEAR).reshape(-1, 4)[: s.size]
    if len(s) == 1:
        return texels.astype(np.float32)
    flat = texels.reshape(len(s), -1)
    return cv2.reduce(flat, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F).reshape(-1, 4)
