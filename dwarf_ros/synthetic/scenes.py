"""Random 3D scenes for training: samples of two stereo frames with exact scene flow, made as they are asked for.

Two kinds: drives (a ground, walls along it, vehicles, trees, posts and fences, the camera going forward) and free scenes
(textured boxes, cards, balls, tubes, rods and gratings, each with its own rigid motion, in a hollow box, after the
idea of Mayer et al., "A Large Dataset to Train Convolutional Networks for Disparity, Optical Flow, and Scene Flow
Estimation", CVPR 2016). Any process can make any sample: it depends on the seed and its index alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dwarf_ros.samples import Maps, Sample, SampleTruth
from dwarf_ros.synthetic.renderer import (
    CYLINDER,
    ELLIPSOID,
    NEAR,
    Finish,
    Scene,
    View,
    frustum,
)
from dwarf_ros.synthetic.sensor import sensor_effects
from dwarf_ros.synthetic.textures import SIZE, TextureBank, texture_bank
from dwarf_ros.types import InputError, StereoCamera, StereoFrame

_RATE = 10.0
"""Frames per second of the stamps, Hz."""


class TrainingScenes:
    """A training set of random scenes, made sample by sample.

    The same arguments give the same bytes, whatever was asked for before and in whichever process. A sample's `occ` maps
    hold every pixel whose values are within `max_disparity` and `max_flow`, others are NaN, as are those that the camera
    passes before the current frame; its `noc` maps are NaN where the
    point is outside the images that the map speaks of, or hidden there: the right image for the disparity, the current
    left image for the flow, both current images for the next disparity. Maps are those of the point that the ray through
    a pixel's centre meets; `objects` is the body's number plus one for bodies that move on their own, else 0.

    Args:
        seed: which set, >= 0. Sets of different seeds share no sample and no texture.
        count: number of samples, >= 1.
        height, width: image size, px, at least 64.
        max_disparity: largest disparity, px, at least 8; each scene draws its own below it.
        max_flow: longest flow, px, at least 8; each scene draws its own below it.
        drives: part of the scenes that are drives, 0 .. 1; the others are free scenes.
        effects: strength of the sensor effects, see `sensor_effects`; 0 leaves the images as they were rendered.
        textures: number of textures that the scenes share, 1 to 80 (1.5 MB each).
        images: half of the textures are parts of these photos: a folder, or "scikit-image" for those that come with that
            package. None: all are procedural.

    Raises:
        InputError: an argument is out of its range, or there are no such images.
    """

    def __init__(
        self,
        seed: int = 0,
        count: int = 100_000,
        height: int = 320,
        width: int = 448,
        max_disparity: float = 192.0,
        max_flow: float = 250.0,
        drives: float = 0.4,
        effects: float = 1.0,
        textures: int = 64,
        images: Path | str | None = None,
    ) -> None:
        for name, value, low, high in (
            ("seed", seed, 0, 2**63),
            ("count", count, 1, 2**40),
            ("height", height, 64, 8192),
            ("width", width, 64, 8192),
            ("max_disparity", max_disparity, 8, 2048),
            ("max_flow", max_flow, 8, 2048),
            ("drives", drives, 0, 1),
            ("effects", effects, 0, 1),
        ):
            if not low <= value <= high:
                raise InputError(f"training scenes: {name} is {value}, expected {low} to {high}")
        self.seed, self.count = seed, count
        self.height, self.width = height, width
        self.max_disparity, self.max_flow = max_disparity, max_flow
        self.drives, self.effects = drives, effects
        self.textures, self.images = textures, images
        # Made here so that bad settings are told at once, and so that forked processes share it.
        self._bank()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def title(self) -> str:
        """What it is, in words."""
        return f"training scenes, seed {self.seed}"

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, made now.

        Raises:
            IndexError: no such sample.
        """
        if not -self.count <= index < self.count:
            raise IndexError(f"training scenes: no sample {index}, there are {self.count}")
        index %= self.count
        rng = np.random.default_rng([self.seed, index, 0x5CE4E5])
        builder = _Builder(self, rng, self._bank())
        if rng.random() < self.drives:
            builder.drive()
        else:
            builder.free()
        camera, scene, bank = builder.camera, builder.scene, self._bank()
        # Left then right, previous then current.
        views = [
            scene.view(time, eye * camera.baseline, camera) for time in (0, 1) for eye in (0, 1)
        ]
        images = [view.image(bank) for view in views]
        if self.effects:
            images = sensor_effects(images, rng, self.effects)
        name = f"{self.seed}_{index:08d}"
        return Sample(
            name=name,
            previous=StereoFrame(images[0], images[1], 0, camera),
            current=StereoFrame(images[2], images[3], round(1e9 / _RATE), camera),
            ground_truth=_ground_truth(
                scene,
                views,
                camera,
                builder.camera_motion,
                builder.moving,
                self.max_disparity,
                self.max_flow,
            ),
        )

    def _bank(self) -> TextureBank:
        return texture_bank(self.seed, self.textures, self.images)


def _ground_truth(
    scene: Scene,
    views: list[View],
    camera: StereoCamera,
    camera_motion: np.ndarray,
    moving: set[int],
    max_disparity: float,
    max_flow: float,
) -> SampleTruth:
    """Maps of the previous left image, in float64 until they are stored."""
    left, right, left_next, right_next = views
    surface = left.surface.ravel()
    number = surface.astype(np.intp)
    x = np.arange(camera.width, dtype=np.float64)
    y = np.arange(camera.height, dtype=np.float64)[:, None]
    inverse_depth = left.inverse_depth.astype(np.float64)
    project = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    back = np.linalg.inv(project)
    # In homogeneous pixel coordinates over depth: moved = turn (x, y, 1) + shift / depth. Most of the scene stands.
    turn, shift = project @ camera_motion[:3, :3] @ back, project @ camera_motion[:3, 3]
    moved = [
        (turn[k, 0] * x + (turn[k, 1] * y + turn[k, 2])) + shift[k] * inverse_depth
        for k in range(3)
    ]
    # Body of each surface that moves on its own, counted from 1; 0: it stands. The last is for no surface.
    bodies = sorted(moving)
    label = np.zeros(len(scene.bodies) + 1, np.int32)
    label[bodies] = np.array(bodies, np.int32) + 1
    body = np.append(scene.surface_bodies(), -1)
    objects = label[body].take(number)
    at = np.flatnonzero(objects)
    if len(at):
        before, after = (np.stack([scene.bodies[k][time] for k in bodies]) for time in (0, 1))
        motion = after @ np.linalg.inv(before)
        turns, shifts = project @ motion[:, :3, :3] @ back, motion[:, :3, 3] @ project.T
        which = np.searchsorted(bodies, objects[at] - 1)
        down, across = np.divmod(at, camera.width)
        nearness = inverse_depth.ravel()[at]
        for k in range(3):
            parts = [np.ascontiguousarray(turns[:, k, j]).take(which) for j in range(3)]
            value = parts[0] * across + parts[1] * down + parts[2]
            moved[k].ravel()[at] = value + shifts[:, k].take(which) * nearness
    # A point that comes nearer than this to the camera's plane counts as passed; so does one that no surface is at.
    scale = moved[2]
    passed = (scale < NEAR * inverse_depth) | (scale <= 0)
    np.copyto(scale, np.inf, where=passed)
    np.divide(1, scale, out=scale)
    next_x, next_y = moved[0] * scale, moved[1] * scale
    next_inverse = inverse_depth * scale
    gain = camera.fx * camera.baseline
    disparity, disparity_next = gain * inverse_depth, gain * next_inverse
    flow = np.empty((*inverse_depth.shape, 2), np.float32)
    np.subtract(next_x, x, out=flow[..., 0], casting="same_kind")
    np.subtract(next_y, y, out=flow[..., 1], casting="same_kind")
    nowhere = left.surface < 0
    if nowhere.any():
        for values in (disparity, disparity_next, flow):
            values[nowhere] = np.nan

    def hidden_in(
        view: View, x: np.ndarray, y: np.ndarray, inverse_depth: np.ndarray
    ) -> np.ndarray:
        values = (np.ravel(v) for v in (x, np.broadcast_to(y, x.shape), inverse_depth))
        return view.hides(number, *values).reshape(x.shape)

    hidden = hidden_in(right, x - disparity, y, inverse_depth)
    hidden_next = passed | hidden_in(left_next, next_x, next_y, next_inverse)
    hidden_right = hidden_next | hidden_in(
        right_next, next_x - disparity_next, next_y, next_inverse
    )
    # Only now: a point that is not to be learnt still hides others.
    with np.errstate(invalid="ignore"):
        unknown = passed | (flow[..., 0] ** 2 + flow[..., 1] ** 2 > max_flow**2)
        disparity[disparity > max_disparity] = np.nan
        disparity_next[passed | (disparity_next > max_disparity)] = np.nan
    # Both components at once: several times faster.
    flow.view(np.complex64)[unknown] = complex(np.nan, np.nan)
    known = (disparity.astype(np.float32), disparity_next.astype(np.float32), flow)
    seen = tuple(values.copy() for values in known)
    for values, mask in zip(seen[:2], (hidden, hidden_right), strict=True):
        values[mask] = np.nan
    seen[2].view(np.complex64)[hidden_next] = complex(np.nan, np.nan)
    return SampleTruth(
        occ=Maps(*known), noc=Maps(*seen), objects=objects.reshape(left.surface.shape)
    )


# ---------------------------------------------------------------------------------------------------------------------
# Composition. Poses are body to left camera; a drive's and a free scene's bodies are laid out at the previous frame.


def _rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation by a vector, rad, 3 x 3 (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def _pose(rotation: np.ndarray, position: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(math.exp(rng.uniform(math.log(low), math.log(max(low, high)))))


_Colour = tuple[float, float, float]


def _scaled(colour: _Colour, factor: float) -> _Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


@dataclass(frozen=True)
class _Coat:
    """Colours of a body: what its faces have in common."""

    texture: int
    gain: _Colour
    offset: _Colour


def _coat(texture: int, gain: np.ndarray, offset: np.ndarray) -> _Coat:
    first, second = gain.tolist(), offset.tolist()
    return _Coat(texture, (first[0], first[1], first[2]), (second[0], second[1], second[2]))


@dataclass(frozen=True)
class _Material:
    """What real streets are mostly made of.

    Attributes:
        kinds: textures that it may have; none: all.
        gain: least and greatest, of the texture.
        brightness: least and greatest mean, 0 .. 255; a sky may be brighter than cameras can tell.
        chroma: deviation of the colour channels from it.
        tint: RGB, added.
    """

    kinds: tuple[str, ...]
    gain: tuple[float, float]
    brightness: tuple[float, float]
    chroma: float
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)


_ROAD = _Material(("noise", "photo"), (0.15, 0.75), (55, 150), 4)
_PAVEMENT = _Material(("noise", "tiles", "cells", "photo"), (0.25, 1.0), (70, 190), 7)
_LAWN = _Material(("noise", "leaves", "ridges", "photo"), (0.7, 1.6), (55, 130), 8, (-6, 12, -22))
_BUILDING = _Material(("facade", "tiles", "shapes", "noise", "photo"), (0.7, 1.7), (50, 200), 16)
_FOLIAGE = _Material(
    ("leaves", "noise", "cells", "ridges", "photo"), (1.0, 2.2), (40, 115), 9, (-8, 10, -16)
)
_TRUNK = _Material(("noise", "ridges", "marble", "photo"), (0.4, 1.2), (25, 110), 7)
_PAINT = _Material((), (0.0, 0.5), (20, 245), 28)
_GLASS = _Material(("shapes", "facade", "noise", "photo"), (0.3, 0.9), (25, 100), 7)
_LINE = _Material(("noise", "photo"), (0.05, 0.3), (170, 250), 5)
_SKY = _Material(("noise", "photo"), (0.0, 0.2), (180, 330), 5, (-8, 0, 10))


class _Builder:
    """Lays out one scene."""

    def __init__(
        self, settings: TrainingScenes, rng: np.random.Generator, textures: TextureBank
    ) -> None:
        self.settings, self.rng, self.textures = settings, rng, textures
        width, height = settings.width, settings.height
        focal = width * _log_uniform(rng, 0.55, 1.7)
        baseline = _log_uniform(rng, 0.08, 0.8)
        cx = (width - 1) / 2 + rng.normal(0, 0.03) * width
        cy = (height - 1) / 2 + rng.normal(0, 0.05) * height
        self.camera = StereoCamera(focal, focal, cx, cy, cx, baseline, width, height)
        self.scene = Scene()
        self.moving: set[int] = set()
        self.reach = focal * baseline
        # Half of the scenes have bodies as near as allowed; their motions are even or mostly small.
        self.disparity = settings.max_disparity * float(rng.choice([rng.uniform(0.2, 1), 1.0]))
        self.flow = settings.max_flow * float(rng.uniform(0.02, 1.0) ** rng.choice([0.3, 2.5]))
        self.camera_motion = np.eye(4)
        self.natural = False

    # -- finishes

    def coat(self) -> _Coat:
        rng = self.rng
        texture = int(rng.integers(self.textures.count))
        gain = rng.uniform(0.6, 1.5) + rng.normal(0, 0.12, 3)
        kind = rng.random()
        if kind < 0.1:
            # Next to no texture: a painted wall, a clear sky.
            gain *= rng.uniform(0.0, 0.08)
        elif kind < 0.25:
            gain *= rng.uniform(0.15, 0.5)
        mean = self.textures.mean[texture]
        aim = np.clip(mean + rng.normal(0, 45) + rng.normal(0, 20, 3), 15, 240)
        return _coat(texture, gain, aim - gain * mean)

    def material(self, material: _Material) -> _Coat:
        """A body's colours; in scenes that do not mean to look real, any."""
        if not self.natural:
            return self.coat()
        rng, textures = self.rng, self.textures
        known = [k for k, kind in enumerate(textures.kinds) if kind in material.kinds]
        texture = (
            known[int(rng.integers(len(known)))] if known else int(rng.integers(textures.count))
        )
        mean = textures.mean[texture]
        gain = rng.uniform(*material.gain) * np.ones(3)
        # The texture's own colours give way to the material's.
        aim = rng.uniform(*material.brightness) + rng.normal(0, material.chroma, 3) + material.tint
        return _coat(texture, gain, aim - gain * mean)

    def flat(self, coat: _Coat, size: float, depth: float, light: float = 1.0) -> Finish:
        """Finish of a flat face of about `size` m at a depth, m."""
        rng = self.rng
        pixels = size * self.camera.fx / max(depth, 0.1)
        # From two texels a pixel to six pixels a texel.
        texels = SIZE * _log_uniform(rng, 0.35, 2.5) / size
        texels *= min(1.0, max(pixels / 60, 0.35))
        turn, angle, *shift = rng.random(4).tolist()
        return Finish(
            texture=coat.texture,
            texels=texels,
            angle=math.pi * (0.0, 0.5, 2 * angle - 1)[int(3 * turn)],
            shift=(2 * SIZE * shift[0], 2 * SIZE * shift[1]),
            gain=_scaled(coat.gain, light),
            offset=_scaled(coat.offset, light),
        )

    def round(self, coat: _Coat, repeats: int | None = None) -> Finish:
        rng = self.rng
        x, y, z = rng.normal(0, 1, 3).tolist()
        length = math.sqrt(x * x + y * y + z * z)
        shade, *shift = rng.random(3).tolist()
        return Finish(
            texture=coat.texture,
            texels=float(repeats or rng.integers(1, 4)),
            shift=(2 * SIZE * shift[0], 2 * SIZE * shift[1]),
            gain=coat.gain,
            offset=coat.offset,
            shade=0.8 * shade,
            light=(x / length, y / length, z / length),
        )

    # -- shapes, in a body's frame

    def card(
        self, body: int, centre: np.ndarray, axes: np.ndarray, size: tuple[float, float], coat: _Coat,
        depth: float, light: float = 1.0, corners: int = 4, facing: int = 0,
    ) -> None:  # fmt: skip
        """A flat face about a centre, m; rows 0 and 1 of `axes` are its axes."""
        wide, high = size[0] / 2, size[1] / 2
        if corners == 4:
            outline = np.array([(-wide, -high), (wide, -high), (wide, high), (-wide, high)])
        else:
            angles = np.sort(self.rng.uniform(0, 2 * np.pi / corners, corners))
            angles += 2 * np.pi * np.arange(corners) / corners
            outline = np.stack([wide * np.cos(angles), high * np.sin(angles)], axis=1)
        finish = self.flat(coat, max(size), depth, light)
        self.scene.add_polygon(body, centre, axes[0], axes[1], outline, finish, facing)

    def box(
        self, body: int, centre: np.ndarray, size: np.ndarray, coats: list[_Coat], depth: float
    ) -> None:
        """A box about a centre, its edges along the body's axes, m; each side lit by its own light."""
        for axis in range(3):
            first, second = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            for sign in (-1, 1):
                offset = np.zeros(3)
                offset[axis] = sign * size[axis] / 2
                light = float(self.rng.uniform(0.4, 1.15))
                coat = coats[int(self.rng.integers(len(coats)))]
                sides = (float(size[(axis + 1) % 3]), float(size[(axis + 2) % 3]))
                axes = np.stack([first, second])
                self.card(body, centre + offset, axes, sides, coat, depth, light, facing=sign)

    def quadric(
        self, body: int, centre: np.ndarray, axes: np.ndarray, radii: np.ndarray,
        form: tuple[float, float, float], finish: Finish,
    ) -> None:  # fmt: skip
        """A quadric about a centre; columns of `axes` are its axes, the last that of revolution; radii in m."""
        self.scene.add_quadric(body, _pose(axes * radii, centre), form, finish)

    def post(self, body: int, foot: np.ndarray, height: float, radius: float, coat: _Coat) -> None:
        """An upright tube, m."""
        axes = np.stack([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]], axis=1)
        middle = foot - np.array([0, height / 2, 0])
        self.quadric(
            body,
            middle,
            axes,
            np.array([radius, radius, height / 2]),
            CYLINDER,
            self.round(coat, 1),
        )

    # -- bodies

    def too_fast(self, before: np.ndarray, after: np.ndarray, size: float) -> bool:
        """Whether a ball of diameter `size` m comes too near at either time, or moves too far in the image."""
        camera = self.camera
        nearest = self.reach / self.settings.max_disparity
        places = []
        for pose in (before, after):
            x, y, z = pose[:3, 3]
            if z - size / 2 < nearest:
                return True
            places.append((camera.fx * x / z, camera.fy * y / z, camera.fx * size / z))
        (x, y, pixels), (next_x, next_y, next_pixels) = places
        growth = abs(next_pixels - pixels) / 2
        return math.hypot(next_x - x, next_y - y) + growth > self.settings.max_flow

    def standing(self, before: np.ndarray) -> int:
        """A body that stays where it is in the world."""
        return self.scene.add_body(before, self.camera_motion @ before)

    def going(self, before: np.ndarray, after: np.ndarray) -> int:
        """A body that moves on its own."""
        body = self.scene.add_body(before, after)
        self.moving.add(body)
        return body

    def backdrop(self, disparity: float, contrast: float = 1.0) -> None:
        """The six sides of a hollow box about everything; where it is nearest its disparity is about the given one, px."""
        rng = self.rng
        radius = self.reach / disparity
        turn = _rotation(rng.normal(0, [0.15, 0.6, 0.15]))
        body = self.standing(np.eye(4))
        coat = self.material(_SKY)
        mean = self.textures.mean[coat.texture]
        gain = np.array(coat.gain)
        coat = _coat(coat.texture, gain * contrast, coat.offset + (1 - contrast) * gain * mean)
        two = not self.natural and contrast == 1 and rng.random() < 0.5
        coats = [coat, self.coat() if two else coat]
        half = radius * rng.uniform(0.8, 1.4, 3)
        for axis in range(3):
            first, second = (axis + 1) % 3, (axis + 2) % 3
            for sign in (-1, 1):
                centre = sign * half[axis] * turn[:, axis]
                sides = (2 * half[first], 2 * half[second])
                axes = turn[:, [first, second]].T
                outline = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * sides / 2
                finish = self.flat(coats[axis % 2], radius * rng.uniform(0.5, 1.5), radius)
                self.scene.add_polygon(body, centre, axes[0], axes[1], outline, finish, -sign)

    # -- free scenes

    def free(self) -> None:
        rng, camera = self.rng, self.camera
        far = _log_uniform(rng, 0.5, min(14.0, self.disparity / 4))
        depth = self.reach / far
        steady = rng.random() < 0.25
        part = 0.0 if steady else float(rng.uniform(0.1, 0.9))
        turn = part * self.flow / camera.fx * rng.uniform(0, 1) * self.direction3()
        turn[2] = rng.normal(0, 0.05) * (not steady)
        step = part * self.flow * self.reach / self.disparity / camera.fx * self.direction3()
        step[2] *= 3
        self.camera_motion = _pose(_rotation(turn), step)
        self.backdrop(far)
        if rng.random() < 0.5:
            self.slanted_planes(depth)
        count = int(rng.integers(12, 36))
        for _ in range(count):
            self.flying(far)

    def direction3(self) -> np.ndarray:
        vector = self.rng.normal(0, 1, 3)
        vector /= np.linalg.norm(vector)
        return vector

    def slanted_planes(self, depth: float) -> None:
        """A floor, and sometimes a wall, across the whole scene."""
        rng = self.rng
        span = 6 * depth
        for kind in range(int(rng.integers(1, 3))):
            coat = self.coat()
            height = depth * rng.uniform(0.08, 0.4)
            tilt = _rotation(rng.normal(0, [0.2, 0.1, 0.15]))
            if kind == 0:
                centre, axes = np.array([0, height, 0]), np.array([[1.0, 0, 0], [0, 0, 1.0]])
            else:
                side = rng.choice([-1.0, 1.0])
                centre = np.array([side * rng.uniform(1, 4) * height, 0, 0])
                axes = np.array([[0, 1.0, 0], [0, 0, 1.0]])
            body = self.standing(np.eye(4))
            outline = span * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
            finish = self.flat(coat, 4 * height, 3 * height)
            self.scene.add_polygon(
                body, tilt @ centre, tilt @ axes[0], tilt @ axes[1], outline, finish
            )

    def flying(self, far: float) -> None:
        """A body with its own motion, or standing, at a random place of the image."""
        rng, camera = self.rng, self.camera
        # Even in the logarithm, evenly, and near: small disparities are common and large ones not rare.
        kind = rng.random()
        if kind < 0.35:
            disparity = _log_uniform(rng, 1.3 * far, self.disparity)
        else:
            least = 1.3 * far if kind < 0.75 else 0.6 * self.disparity
            disparity = float(rng.uniform(least, self.disparity))
        depth = self.reach / disparity
        pixels = _log_uniform(rng, 20, 0.75 * camera.width)
        size = pixels * depth / camera.fx
        # Bodies reach towards the camera: their front, not their middle, has the drawn disparity.
        depth += 0.35 * size
        x = rng.uniform(-0.1, 1.1) * camera.width
        y = rng.uniform(-0.1, 1.1) * camera.height
        before = _pose(_rotation(rng.normal(0, 0.9, 3)), self.point(x, y, depth))
        body = self.moved(before, depth, size)
        self.shape(body, size, depth)

    def point(self, x: float, y: float, depth: float) -> np.ndarray:
        camera = self.camera
        return depth * np.array([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, 1.0])

    def moved(self, before: np.ndarray, depth: float, size: float) -> int:
        rng, camera = self.rng, self.camera
        if rng.random() < 0.2:
            return self.standing(before)
        share = float(rng.uniform(0, 1) ** rng.choice([0.5, 1.5]))
        angle = rng.uniform(0, 2 * np.pi)
        shift = (
            self.flow * share * np.array([math.cos(angle), rng.uniform(0.3, 1) * math.sin(angle)])
        )
        point = before[:3, 3]
        x = camera.fx * point[0] / point[2] + camera.cx + shift[0]
        y = camera.fy * point[1] / point[2] + camera.cy + shift[1]
        # No nearer than the largest disparity allows, no farther than half of it at once.
        ratio = math.exp(
            float(np.clip(rng.normal(0, 0.12) * min(1, self.flow * share / 20), -0.4, 0.4))
        )
        nearest = self.reach / self.settings.max_disparity + 0.5 * size
        turn = rng.normal(0, 0.25, 3) * min(1.0, self.flow * share / 60)
        after = _pose(
            _rotation(turn) @ before[:3, :3], self.point(x, y, max(depth * ratio, nearest))
        )
        if self.too_fast(before, after, size):
            return self.standing(before)
        return self.going(before, after)

    def shape(self, body: int, size: float, depth: float) -> None:
        """One of the free bodies, of about `size` m, about the body's origin."""
        rng = self.rng
        coat = self.coat()
        origin, axes = np.zeros(3), np.eye(3)
        kind = rng.random()
        if kind < 0.28:
            sizes = size * rng.uniform(0.25, 0.75, 3)
            self.box(body, origin, sizes, [coat, self.coat()], depth)
        elif kind < 0.48:
            sides = (size * rng.uniform(0.4, 1), size * rng.uniform(0.4, 1))
            self.card(body, origin, axes, sides, coat, depth, 1.0, int(rng.integers(3, 8)))
        elif kind < 0.66:
            radii = 0.5 * size * rng.uniform(0.35, 1.0, 3)
            self.quadric(body, origin, axes, radii, ELLIPSOID, self.round(coat))
        elif kind < 0.76:
            radius = size * rng.uniform(0.12, 0.4)
            radii = np.array([radius, radius, 0.5 * size])
            form = CYLINDER if rng.random() < 0.5 else frustum(float(rng.uniform(0, 0.8)))
            self.quadric(body, origin, axes, radii, form, self.round(coat))
        elif kind < 0.86:
            # A rod, two to six pixels wide.
            radius = rng.uniform(1, 3) * depth / self.camera.fx
            radii = np.array([radius, radius, size])
            self.quadric(body, origin, axes, radii, CYLINDER, self.round(coat, 1))
        elif kind < 0.93:
            self.grating(body, size, depth, coat)
        else:
            # A dumb-bell: one rigid body of three parts.
            other = self.coat()
            radius = size * rng.uniform(0.1, 0.25)
            for sign in (-1, 1):
                radii = radius * rng.uniform(0.6, 1.2, 3)
                self.quadric(
                    body,
                    np.array([0, 0, sign * size / 2]),
                    axes,
                    radii,
                    ELLIPSOID,
                    self.round(coat),
                )
            radii = np.array([0.3 * radius, 0.3 * radius, size / 2])
            self.quadric(body, origin, axes, radii, CYLINDER, self.round(other, 1))

    def grating(self, body: int, size: float, depth: float, coat: _Coat) -> None:
        """Thin bars side by side in a frame."""
        rng = self.rng
        bars = int(rng.integers(3, 8))
        thick = max(1.2 * depth / self.camera.fx, size / bars * rng.uniform(0.08, 0.3))
        axes = np.eye(3)[:2]
        for place in np.linspace(-0.5, 0.5, bars) * size:
            self.card(body, np.array([place, 0, 0]), axes, (thick, 0.8 * size), coat, depth)
        for place in (-0.4 * size, 0.4 * size):
            self.card(body, np.array([0, place, 0]), axes, (size + thick, thick), coat, depth)

    # -- drives

    def drive(self) -> None:
        """Axes at the previous frame: x right, y down, z forward, the ground `height` m below the camera, slanted."""
        rng, camera = self.rng, self.camera
        self.natural = rng.random() < 0.75
        # Whole pictures of a vehicle's camera as often as parts of them.
        focal = camera.width * float(rng.uniform(0.48, 0.8)) if rng.random() < 0.5 else camera.fx
        # A real baseline: sizes in a street are given, not drawn.
        baseline = float(rng.uniform(0.12, 0.8)) * min(1.0, self.settings.max_disparity / 192)
        self.camera = StereoCamera(
            focal,
            focal,
            camera.cx,
            camera.cy,
            camera.cx_right,
            baseline,
            camera.width,
            camera.height,
        )
        camera = self.camera
        self.reach = focal * baseline
        height = float(rng.uniform(1.0, 2.4))
        pace = min(1.0, self.settings.max_flow / 250)
        speed = rng.choice([0.0, rng.uniform(0, 0.8), rng.uniform(0.3, 2.2)], p=[0.1, 0.4, 0.5])
        speed = pace * float(speed)
        # Mostly straight on, and now and then round a corner.
        yaw = pace * float(rng.normal(0, rng.choice([0.003, 0.015, 0.08], p=[0.4, 0.3, 0.3])))
        turn = np.array([pace * rng.normal(0, 0.006), -yaw, pace * rng.normal(0, 0.004)])
        step = np.array([pace * rng.normal(0, 0.03), pace * rng.normal(0, 0.02), -speed])
        if rng.random() < 0.1:
            step[2] = -step[2]
        self.camera_motion = _pose(_rotation(turn), step)
        ground = _pose(_rotation(rng.normal(0, [0.05, 0.0, 0.03])), np.array([0, height, 0]))
        # Mostly a plain sky.
        contrast = float(rng.choice([0.0, rng.uniform(0, 0.4), 1.0], p=[0.3, 0.5, 0.2]))
        self.backdrop(float(rng.uniform(0.2, 1.2)) * self.reach / 200, contrast)

        road = self.standing(ground)
        span = 400.0
        outline = np.array([(-span, -span), (span, -span), (span, span), (-span, span)])
        finish = self.flat(self.material(_ROAD), 6.0, 8.0)
        self.on_road(road, outline, finish, 0.0)
        edge = float(rng.uniform(3.0, 9.0))
        if rng.random() < 0.5:
            self.lane_markings(road, edge)
        if rng.random() < 0.6:
            self.shadows(road, finish, edge)
        for side in (-1, 1):
            self.roadside(ground, side * edge)
        for _ in range(int(rng.integers(2, 8))):
            self.vehicle(ground, edge, pace)
        for _ in range(int(rng.integers(0, 5))):
            self.walker(ground, edge, pace)

    def on_road(self, road: int, outline: np.ndarray, finish: Finish, lift: float) -> None:
        """Something flat on the road, its outline (x, z), m, and a little above it, m."""
        x, z = np.eye(3)[[0, 2]]
        self.scene.add_polygon(road, np.array([0, -lift, 0]), x, z, outline, finish)

    def lane_markings(self, road: int, edge: float) -> None:
        rng = self.rng
        finish = self.flat(self.material(_LINE), 2.0, 6.0)
        half = float(rng.uniform(0.05, 0.1))

        def line(x: float, start: float, end: float) -> None:
            outline = [(x - half, start), (x + half, start), (x + half, end), (x - half, end)]
            self.on_road(road, np.array(outline), finish, 0.01)

        for x in (0.4 - edge, edge - 0.4):
            line(x, -5.0, 150.0)
        x, place = float(rng.uniform(-0.5, 0.5) * edge), float(rng.uniform(-2, 6))
        dash, gap = float(rng.uniform(1.5, 6)), float(rng.uniform(1.5, 9))
        for _ in range(int(rng.integers(4, 9))):
            line(x, place, place + dash)
            place += dash + gap

    def shadows(self, road: int, finish: Finish, edge: float) -> None:
        """Where the road is in the shade of what stands beside it: its own texture, darker."""
        rng = self.rng
        dark = float(rng.uniform(0.25, 0.7))
        finish = replace(
            finish, gain=_scaled(finish.gain, dark), offset=_scaled(finish.offset, dark)
        )
        side = float(rng.choice([-1.0, 1.0]))
        for layer in range(int(rng.integers(1, 6))):
            z, long = _log_uniform(rng, 3, 50), float(rng.uniform(1, 12))
            reach = side * edge * float(rng.uniform(-0.8, 0.8))
            skew = float(rng.normal(0, 3))
            corners = [
                (side * edge, z),
                (reach, z + skew),
                (reach, z + skew + long),
                (side * edge, z + long),
            ]
            # One above the other: where they overlap they are no darker.
            self.on_road(road, np.array(corners), finish, 0.004 + 0.001 * layer)

    def at(self, ground: np.ndarray, x: float, z: float, yaw: float) -> np.ndarray:
        """Pose of a body that stands on the ground, y downwards and z forward."""
        return ground @ _pose(_rotation(np.array([0, yaw, 0])), np.array([x, 0, z]))

    def roadside(self, ground: np.ndarray, x: float) -> None:
        """Pavement, buildings, trees, posts and fences on one side."""
        rng = self.rng
        side = math.copysign(1.0, x)
        body = self.standing(ground)
        kerb = float(rng.uniform(0.05, 0.3))
        coat = self.material(_LAWN if rng.random() < 0.4 else _PAVEMENT)
        self.box(
            body, np.array([x + side * 8, -kerb / 2, 40.0]), np.array([16.0, kerb, 120.0]), [coat], 10.0
        )  # fmt: skip
        place = float(rng.uniform(-8, 4))
        front = x + side * rng.uniform(1.5, 7)
        while place < 90:
            wide, high = float(rng.uniform(5, 22)), float(rng.uniform(2.5, 16))
            if rng.random() < 0.75:
                size = np.array([rng.uniform(5, 12), high, wide])
                centre = np.array([front + side * size[0] / 2, -high / 2, place + wide / 2])
                hedge = rng.random() < 0.4
                self.box(
                    body, centre, size, [self.material(_FOLIAGE if hedge else _BUILDING)], 15.0
                )
            place += wide + float(rng.choice([0.0, rng.uniform(0, 8)]))
        place = float(rng.uniform(2, 8))
        gap = _log_uniform(rng, 3, 20)
        trunk, crown = self.material(_TRUNK), self.material(_FOLIAGE)
        trees = rng.random() < 0.5
        while place < 60:
            foot = np.array([x + side * rng.uniform(0.3, 1.2), -kerb, place])
            if trees:
                high, wide = float(rng.uniform(1.5, 3)), float(rng.uniform(1.2, 2.6))
                self.post(body, foot, high, float(rng.uniform(0.08, 0.25)), trunk)
                # Crowns are lumpy.
                for _ in range(3 if place < 20 else 1):
                    radii = wide * rng.uniform(0.5, 1.0, 3)
                    middle = foot - [0, high + 0.7 * wide, 0] + 0.4 * wide * rng.normal(0, 1, 3)
                    turn = _rotation(rng.normal(0, 0.5, 3))
                    self.quadric(
                        body,
                        middle,
                        turn,
                        radii,
                        ELLIPSOID,
                        self.round(crown, int(rng.integers(3, 9))),
                    )
            else:
                self.post(
                    body, foot, float(rng.uniform(0.8, 5)), float(rng.uniform(0.03, 0.1)), trunk
                )
            place += gap * float(rng.uniform(0.7, 1.3))
        if rng.random() < 0.35:
            self.fence(body, x, kerb)

    def fence(self, body: int, x: float, kerb: float) -> None:
        rng = self.rng
        coat = self.material(_PAINT)
        start, count, gap = (
            float(rng.uniform(3, 10)),
            int(rng.integers(8, 20)),
            float(rng.uniform(0.2, 0.9)),
        )
        axes = np.array([[0, 0, 1.0], [0, 1.0, 0]])
        high = float(rng.uniform(0.7, 1.6))
        for k in range(count):
            centre = np.array([x, -kerb - high / 2, start + k * gap])
            self.card(body, centre, axes, (0.06, high), coat, start)
        for part in (0.3, 0.9):
            centre = np.array([x, -kerb - part * high, start + (count - 1) * gap / 2])
            self.card(body, centre, axes, ((count - 1) * gap, 0.07), coat, start)

    def driven(
        self, ground: np.ndarray, x: float, z: float, yaw: float, way: float, turned: float, size: float
    ) -> int | None:  # fmt: skip
        """A body on the ground that goes `way` m ahead and turns by `turned` rad; None where it would come too near."""
        before = self.at(ground, x, z, yaw)
        heading = yaw + turned / 2
        end = x + way * math.sin(heading), z + way * math.cos(heading)
        after = self.camera_motion @ self.at(ground, *end, yaw + turned * (way > 0))
        if self.too_fast(before, after, size):
            return None
        return self.going(before, after) if way > 0 else self.standing(before)

    def vehicle(self, ground: np.ndarray, edge: float, pace: float) -> None:
        rng = self.rng
        long = float(rng.choice([rng.uniform(3.5, 5), rng.uniform(5, 11)], p=[0.8, 0.2]))
        high = float(rng.uniform(1.3, 1.6) if long < 5 else rng.uniform(2, 3.4))
        wide = float(rng.uniform(1.6, 2.0) if long < 5 else rng.uniform(1.9, 2.5))
        z = 2.5 + long / 2 + _log_uniform(rng, 1.0, 50)
        x = float(rng.uniform(-edge + 1, edge - 1))
        yaw = float(rng.choice([0, np.pi, rng.uniform(-np.pi, np.pi)], p=[0.4, 0.4, 0.2]))
        yaw += rng.normal(0, 0.05)
        way = pace * float(rng.choice([0.0, rng.uniform(0, 2.0)], p=[0.3, 0.7]))
        body = self.driven(ground, x, z, yaw, way, float(rng.normal(0, 0.03)), long)
        if body is None:
            return
        paint, glass, dark = (self.material(m) for m in (_PAINT, _GLASS, _GLASS))
        lower = high * (0.6 if long < 5 else 0.35)
        self.box(
            body,
            np.array([0, -0.2 - (lower - 0.2) / 2, 0]),
            np.array([wide, lower - 0.2, long]),
            [paint],
            z,
        )
        top = long * (0.55 if long < 5 else 0.98)
        self.box(
            body, np.array([0, -(lower + high) / 2, -0.1 * (long - top)]),
            np.array([0.9 * wide, high - lower, top]), [glass, paint], z,
        )  # fmt: skip
        if z > 30:
            # Wheels farther off are hardly to be seen.
            return
        axes = np.stack([[0, 1.0, 0], [0, 0, 1.0], [1.0, 0, 0]], axis=1)
        for side, place in ((-1, -0.32), (-1, 0.32), (1, -0.32), (1, 0.32)):
            middle = np.array([side * (wide / 2 - 0.09), -0.32, place * long])
            radii = np.array([0.32, 0.32, 0.1])
            self.quadric(body, middle, axes, radii, CYLINDER, self.round(dark, 2))
            hub = middle + np.array([side * 0.1, 0, 0])
            self.card(body, hub, axes.T, (0.64, 0.64), dark, z, corners=7, facing=side)

    def walker(self, ground: np.ndarray, edge: float, pace: float) -> None:
        rng = self.rng
        high = float(rng.uniform(1.5, 1.9))
        x, z = float(rng.uniform(-edge - 2, edge + 2)), 3 + _log_uniform(rng, 1, 25)
        yaw = float(rng.uniform(-np.pi, np.pi))
        body = self.driven(
            ground, x, z, yaw, pace * float(rng.uniform(0, 0.3)), float(rng.normal(0, 0.1)), 0.6
        )
        if body is None:
            return
        axes = np.stack([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]], axis=1)
        clothes, legs, head = self.coat(), self.coat(), self.coat()
        for side in (-0.1, 0.1):
            foot = np.array([side, 0, float(rng.uniform(-0.1, 0.1))])
            self.post(body, foot, 0.5 * high, 0.08, legs)
        self.quadric(
            body, np.array([0, -0.65 * high, 0]), axes, np.array([0.24, 0.16, 0.22 * high]),
            ELLIPSOID, self.round(clothes, 1),
        )  # fmt: skip
        self.quadric(
            body, np.array([0, -0.92 * high, 0]), axes, np.array([0.1, 0.12, 0.08 * high]),
            ELLIPSOID, self.round(head, 1),
        )  # fmt: skip
