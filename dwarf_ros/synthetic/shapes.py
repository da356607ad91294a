"""Shapes and their finishes: what the objects of all synthetic scenes are built from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dwarf_ros.synthetic.materials import SKY, Coat, Material, scaled
from dwarf_ros.synthetic.painting import SIZE
from dwarf_ros.synthetic.scene import CYLINDER, Finish, Polygon, Quadric, Scene
from dwarf_ros.synthetic.textures import TextureBank
from dwarf_ros.types import StereoCamera


def rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation by a vector, rad, 3 x 3 (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def pose_of(turn: np.ndarray, position: np.ndarray) -> np.ndarray:
    """4 x 4 pose of a rotation and a position."""
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, position
    return pose


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniformly distributed."""
    return float(math.exp(rng.uniform(math.log(low), math.log(max(low, high)))))


def rectangle(width: float, height: float) -> np.ndarray:
    """Corners about the origin, 4 x 2."""
    x, y = width / 2, height / 2
    return np.array([(-x, -y), (x, -y), (x, y), (-x, y)])


@dataclass
class Builder:
    """Adds shapes and objects to a scene.

    Attributes:
        rng: what all is drawn from.
        textures: the bank that finishes refer to.
        camera: of the scene.
        max_disparity, max_flow: largest of objects, px, see `too_fast`.
        natural: coats look like real materials; else they are arbitrary.
        dimmest: least light on a box's face.
        scene: what is built.
    """

    rng: np.random.Generator
    textures: TextureBank
    camera: StereoCamera
    max_disparity: float = math.inf
    max_flow: float = math.inf
    natural: bool = False
    dimmest: float = 0.4

    def __post_init__(self) -> None:
        self.scene = Scene()

    @property
    def reach(self) -> float:
        """Disparity times depth, px m."""
        return self.camera.fx * self.camera.baseline

    def coat(self) -> Coat:
        """Any colors."""
        rng = self.rng
        texture = int(rng.integers(self.textures.count))
        gain = rng.uniform(0.6, 1.5) + rng.normal(0, 0.12, 3)
        kind = rng.random()
        if kind < 0.1:
            # Almost no texture: a painted wall, a clear sky.
            gain *= rng.uniform(0.0, 0.08)
        elif kind < 0.25:
            gain *= rng.uniform(0.15, 0.5)
        mean = self.textures.mean[texture]
        aim = np.clip(mean + rng.normal(0, 45) + rng.normal(0, 20, 3), 15, 240)
        return Coat(texture, tuple(gain.tolist()), tuple((aim - gain * mean).tolist()))

    def material(self, material: Material) -> Coat:
        """Colors of a material; in scenes that need not look real, any."""
        if not self.natural:
            return self.coat()
        rng, textures = self.rng, self.textures
        known = [k for k, kind in enumerate(textures.kinds) if kind in material.kinds]
        texture = (
            known[int(rng.integers(len(known)))] if known else int(rng.integers(textures.count))
        )
        gain = rng.uniform(*material.gain) * np.ones(3)
        # The material's colors replace the texture's.
        aim = rng.uniform(*material.brightness) + rng.normal(0, material.chroma, 3) + material.tint
        offset = aim - gain * textures.mean[texture]
        return Coat(texture, tuple(gain.tolist()), tuple(offset.tolist()))

    def flat(
        self, coat: Coat, size: float, depth: float, light: float = 1.0, angle: float = 0.0
    ) -> Finish:
        """Finish of a flat face of about `size` m at a depth, m; the angle, rad, is for coats with a span."""
        rng = self.rng
        if coat.span is None:
            pixels = size * self.camera.fx / max(depth, 0.1)
            # From two texels per pixel to six pixels per texel.
            texels = SIZE * log_uniform(rng, 0.35, 2.5) / size
            texels *= min(1.0, max(pixels / 60, 0.35))
            turn, angle, *shift = rng.random(4).tolist()
            angle = math.pi * (0.0, 0.5, 2 * angle - 1)[int(3 * turn)]
        else:
            texels, shift = SIZE / coat.span, rng.random(2).tolist()
        return Finish(
            texture=coat.texture,
            texels=texels,
            angle=angle,
            shift=(2 * SIZE * shift[0], 2 * SIZE * shift[1]),
            gain=scaled(coat.gain, light),
            offset=scaled(coat.offset, light),
        )

    def round(self, coat: Coat, repeats: int | None = None) -> Finish:
        """Finish of a curved surface, its texture repeated around the axis."""
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

    # Shapes, in the frame of an object, given by its number. All lengths are in m.

    def polygon(
        self, obj: int, origin: np.ndarray, axes: np.ndarray, corners: np.ndarray, finish: Finish, facing: int = 0
    ) -> None:  # fmt: skip
        """A convex polygon: see `Polygon`; rows 0 and 1 of `axes` are its axes."""
        self.scene.polygons.append(Polygon(obj, origin, axes[0], axes[1], corners, finish, facing))

    def card(
        self, obj: int, center: np.ndarray, axes: np.ndarray, size: tuple[float, float], coat: Coat, depth: float,
        light: float = 1.0, corners: int = 4, facing: int = 0, angle: float = 0.0,
    ) -> None:  # fmt: skip
        """A flat face about a center."""
        outline = rectangle(*size)
        if corners != 4:
            angles = np.sort(self.rng.uniform(0, 2 * np.pi / corners, corners))
            angles += 2 * np.pi * np.arange(corners) / corners
            outline = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (np.array(size) / 2)
        finish = self.flat(coat, max(size), depth, light, angle)
        self.polygon(obj, center, axes, outline, finish, facing)

    def box(
        self, obj: int, center: np.ndarray, size: np.ndarray, coats: list[Coat], depth: float
    ) -> None:
        """A box about a center along the object's axes, each face lit differently.

        Six coats are those of the left, right, upper, lower, rear and front face; of fewer, each face draws one.
        """
        for axis in range(3):
            first, second = (axis + 1) % 3, (axis + 2) % 3
            for sign in (-1, 1):
                offset = np.zeros(3)
                offset[axis] = sign * size[axis] / 2
                light = float(self.rng.uniform(self.dimmest, 1.15))
                face = 2 * axis + (sign > 0)
                coat = coats[face if len(coats) == 6 else int(self.rng.integers(len(coats)))]
                sides = (float(size[first]), float(size[second]))
                self.card(
                    obj, center + offset, np.eye(3)[[first, second]], sides, coat, depth, light,
                    facing=sign, angle=math.pi / 2 if axis == 0 else 0.0,
                )  # fmt: skip

    def quadric(
        self, obj: int, center: np.ndarray, axes: np.ndarray, radii: np.ndarray, form: tuple[float, float, float],
        finish: Finish,
    ) -> None:  # fmt: skip
        """A quadric about a center; columns of `axes` are its axes, the last that of revolution."""
        self.scene.quadrics.append(Quadric(obj, pose_of(axes * radii, center), form, finish))

    def post(self, obj: int, foot: np.ndarray, height: float, radius: float, coat: Coat) -> None:
        """An upright tube."""
        middle = foot - np.array([0, height / 2, 0])
        radii = np.array([radius, radius, height / 2])
        self.quadric(obj, middle, UPRIGHT, radii, CYLINDER, self.round(coat, 1))

    def too_fast(self, before: np.ndarray, after: np.ndarray, size: float) -> bool:
        """Whether a ball of diameter `size` m comes too near at either time, or moves too far in the image."""
        camera = self.camera
        places = []
        for pose in (before, after):
            x, y, z = pose[:3, 3]
            if z - size / 2 < self.reach / self.max_disparity:
                return True
            places.append((camera.fx * x / z, camera.fy * y / z, camera.fx * size / z))
        (x, y, pixels), (next_x, next_y, next_pixels) = places
        growth = abs(next_pixels - pixels) / 2
        return math.hypot(next_x - x, next_y - y) + growth > self.max_flow

    def backdrop(self, disparity: float, contrast: float = 1.0) -> None:
        """The six sides of a hollow box around everything, with about the given disparity, px, where it is nearest."""
        rng = self.rng
        radius = self.reach / disparity
        turn = rotation(rng.normal(0, [0.15, 0.6, 0.15]))
        obj = self.scene.add_standing(np.eye(4))
        coat = self.material(SKY)
        mean = self.textures.mean[coat.texture]
        gain = np.array(coat.gain)
        offset = coat.offset + (1 - contrast) * gain * mean
        coat = Coat(coat.texture, tuple((gain * contrast).tolist()), tuple(offset.tolist()))
        two = not self.natural and contrast == 1 and rng.random() < 0.5
        coats = [coat, self.coat() if two else coat]
        half = radius * rng.uniform(0.8, 1.4, 3)
        for axis in range(3):
            sides = [(axis + 1) % 3, (axis + 2) % 3]
            for sign in (-1, 1):
                center = sign * half[axis] * turn[:, axis]
                finish = self.flat(coats[axis % 2], radius * rng.uniform(0.5, 1.5), radius)
                outline = rectangle(*(2 * half[sides]))
                self.polygon(obj, center, turn[:, sides].T, outline, finish, -sign)


UPRIGHT = np.stack([[1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]], axis=1)
"""Axes of a quadric of revolution that stands upright: columns."""
