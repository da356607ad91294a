"""The street of a drive: buildings, trees, posts, parked vehicles, and traffic that collides with nothing.

World: x to the right across the street, y down, z along it, m; the ground is y = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from dwarf_ros.synthetic.materials import Coat, Color
from dwarf_ros.synthetic.objects import add_tree, add_vehicle, add_walker
from dwarf_ros.synthetic.painting import SIZE
from dwarf_ros.synthetic.scene import ELLIPSOID, Finish, Polygon
from dwarf_ros.synthetic.shapes import UPRIGHT, Builder, pose_of, rectangle, rotation

_LANE, _KERB, _FACADE = 3.5, 5.9, 9.4
"""Cross section: width of a lane, and distance of the pavement and the buildings from the middle."""

_BEHIND, _AHEAD = 60.0, 260.0
"""How far the street extends behind the camera's first position and beyond its last."""

_LINE = (214.0, 214.0, 210.0)
_GROUND = np.eye(3)[[0, 2]]
_PALETTE = np.array(
    [
        (235, 235, 232), (176, 180, 186), (92, 95, 102), (172, 30, 30), (36, 66, 140),
        (222, 170, 36), (32, 98, 76), (205, 105, 30), (108, 150, 194), (120, 108, 92),
    ]
)  # fmt: skip
_WALLS = np.array(
    [
        (186, 120, 98), (212, 190, 148), (222, 214, 198), (170, 180, 190), (206, 166, 134),
        (160, 138, 120), (188, 198, 170), (228, 202, 160),
    ]
)  # fmt: skip


class CameraPath:
    """Forward at a steady speed in the right-hand lane, heading where it goes, with the sway of a vehicle."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.speed, self._height = rng.uniform(5.0, 9.0), rng.uniform(1.5, 1.8)
        # Sums of sines for lateral, heave, m, yaw, pitch, roll, rad: amplitude and lowest frequency, Hz.
        degree = math.radians(1.0)
        sways = (
            (0.35, 0.1),
            (0.02, 0.7),
            (2 * degree, 0.15),
            (0.5 * degree, 0.6),
            (0.4 * degree, 0.5),
        )
        self._waves = [
            (
                amplitude * rng.uniform(0.6, 1.0, 3) * (0.6, 0.3, 0.1),
                2 * np.pi * lowest * rng.uniform(0.8, 1.2, 3) * (1.0, 2.3, 4.7),
                rng.uniform(0, 2 * np.pi, 3),
            )
            for amplitude, lowest in sways
        ]

    def pose(self, time: float) -> np.ndarray:
        """Left camera to world at a time, s: 4 x 4."""
        lateral, heave, yaw, pitch, roll = (
            float((a * np.sin(f * time + p)).sum()) for a, f, p in self._waves
        )
        amplitude, frequency, phase = self._waves[0]
        drift = float((amplitude * frequency * np.cos(frequency * time + phase)).sum())
        yaw, pitch = yaw + math.atan2(drift, self.speed), pitch - math.radians(1.0)
        x, y, z = np.eye(3)
        turn = rotation(yaw * y) @ rotation(pitch * x) @ rotation(roll * z)
        position = np.array([_LANE / 2 + lateral, heave - self._height, self.speed * time])
        return pose_of(turn, position)


@dataclass(frozen=True)
class _Motion:
    """A place on the ground, a speed, m/s, and a yaw rate, rad/s, that stay; at yaw 0, rad, it heads along z."""

    x: float
    z: float
    yaw: float = 0.0
    speed: float = 0.0
    yaw_rate: float = 0.0

    def at(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, z, m, and yaw, rad, at the given times, s."""
        turned = self.yaw_rate * times
        # The chord of an arc points half way between its two headings; np.sinc(a) is sin(pi a) / (pi a).
        chord, mean = self.speed * times * np.sinc(turned / (2 * np.pi)), self.yaw + turned / 2
        return self.x + chord * np.sin(mean), self.z + chord * np.cos(mean), self.yaw + turned


@dataclass
class Street:
    """A street while it is built.

    Attributes:
        b: adds shapes to the scene.
        path: of the camera.
        times: of the frames, s.
    """

    b: Builder
    path: CameraPath
    times: np.ndarray
    _taken: list[tuple[np.ndarray, float]] = field(default_factory=list)

    def build(self) -> None:
        """Add everything to the scene, whose motions must be set."""
        b, rng, scene = self.b, self.b.rng, self.b.scene
        duration = float(self.times[-1])
        first, last = -_BEHIND, self.path.speed * duration + _AHEAD
        self._checked = np.arange(0, duration + 0.1, 0.1)
        camera = np.stack([self.path.pose(time)[[0, 2], 3] for time in self._checked])
        self._taken.append((np.stack([camera, camera - (0, 2.0)], axis=1), 1.5))

        self._world = scene.add_standing(np.eye(4))
        asphalt = self._coat("grain", np.full(3, rng.uniform(85, 125)), 0.15, 4.0)
        ground = b.flat(asphalt, 4.0, 4.0)
        origin = np.array([0, 0, (first + last) / 2])
        b.polygon(self._world, origin, _GROUND, rectangle(2000, last - first + 1200), ground)
        self._add_sky()
        crossings = [rng.uniform(26.0, 40.0)]
        while crossings[-1] < last - 90.0:
            crossings.append(crossings[-1] + rng.uniform(60.0, 110.0))
        self._add_markings(first, last)
        self._trunk = self._coat("ridges", np.array([96, 82, 66]), 0.3, 1.0)
        gap = 6.5
        ends = [end for crossing in crossings for end in (crossing - gap, crossing + gap)]
        ends = [first, *ends, last]
        for side in (-1, 1):
            for start, end in zip(ends[::2], ends[1::2], strict=True):
                self._add_block(side, start, end)
        self._add_traffic(duration, crossings)

    def _coat(
        self, kind: str, color: np.ndarray, contrast: float, span: float | None = None
    ) -> Coat:
        """A texture of a kind whose standard deviation is a part of the color's brightness."""
        textures = self.b.textures
        known = [k for k, name in enumerate(textures.kinds) if name == kind]
        texture = known[int(self.b.rng.integers(len(known)))]
        color = np.asarray(color, np.float64)
        gain = contrast / 40 * color
        offset = color - gain * textures.mean[texture]
        return Coat(texture, tuple(gain.tolist()), tuple(offset.tolist()), span)

    def _add_sky(self) -> None:
        """A dome that only the camera's rotation moves."""
        b, rng = self.b, self.b.rng
        poses = b.scene.motions.copy()
        poses[:, :3, 3] = 0
        self.sky = b.scene.add_moving(poses)
        # Three repeats around, so that the texture's height is about that from the horizon to the zenith.
        finish = Finish(b.textures.kinds.index("sky"), 3.0, shift=(2 * SIZE * rng.random(), 0.0))
        b.quadric(self.sky, np.zeros(3), UPRIGHT, np.full(3, 1e6), ELLIPSOID, finish)

    def _paint(
        self, obj: int, center: tuple[float, ...], size: tuple[float, ...], color: Color,
        opacity: float, surface: int = 0, axes: np.ndarray = _GROUND,
    ) -> None:  # fmt: skip
        """Paint a rectangle on the ground, or on another surface, in an object's frame."""
        finish = Finish(0, 1.0, offset=color)
        polygon = Polygon(obj, np.array(center), axes[0], axes[1], rectangle(*size), finish)
        self.b.scene.add_decal(polygon, surface, opacity)

    def _shade(
        self, obj: int, x: float, z: float, width: float, length: float, opacity: float
    ) -> None:
        """A shadow on the ground."""
        self._paint(obj, (x, 0, z), (width, length), (0, 0, 0), opacity)

    def _add_markings(self, first: float, last: float) -> None:
        for x in (-_LANE, _LANE):
            self._paint(self._world, (x, 0, (first + last) / 2), (0.14, last - first), _LINE, 0.65)
        for z in np.arange(math.ceil(first / 9) * 9, last, 9.0):
            self._paint(self._world, (0, 0, z), (0.15, 3.0), _LINE, 0.65)

    def _add_block(self, side: int, start: float, end: float) -> None:
        """Pavement with buildings or gardens, trees, posts and parked vehicles, on one side between two crossings."""
        rng = self.b.rng
        middle, length = (start + end) / 2, end - start
        paving = self._coat("tiles", np.full(3, rng.uniform(140, 180)), 0.2, 3.0)
        self._add_box((side * (_KERB + 20), 0.14, middle), (40, 0.14, length), paving)
        place = start + 0.4
        while place < end - 6.4:
            wide = min(float(rng.choice([6, 12, 12, 18])), 6 * ((end - 0.4 - place) // 6))
            if rng.random() < 0.85:
                self._add_building(side, place + wide / 2, wide - 0.02)
            else:
                lawn = self._coat("leaves", np.array([88, 112, 58]), 0.25, 2.0)
                top = side * (_FACADE + 8.6), 0.3, place + wide / 2
                self._add_box(top, (16, 0.3, wide), lawn)
                for offset in (0.3, 0.7):
                    x = side * (_FACADE + rng.uniform(4, 6))
                    self._add_tree(x, place + offset * wide)
            place += wide
        for places, steps, add in (
            ((1, 4), (8, 17), self._add_tree),
            ((2, 9), (20, 30), self._add_lamp_post),
            ((3, 7), (6.2, 8.5), self._add_parked),
        ):
            place = start + rng.uniform(*places)
            while place < end - 2.5:
                add(side * (_KERB + 0.9), place)
                place += rng.uniform(*steps)

    def _add_box(
        self, top: tuple[float, float, float], size: tuple[float, float, float], *coats: Coat
    ) -> None:
        """A box by the middle of its top, x, height, z, and its width, height and length."""
        center = np.array([top[0], size[1] / 2 - top[1], top[2]])
        self.b.box(self._world, center, np.array(size, np.float64), list(coats), 10.0)

    def _add_building(self, side: int, z: float, wide: float) -> None:
        rng = self.b.rng
        color = rng.choice(_WALLS) * rng.uniform(0.8, 1.1)
        wall = self._coat("facade", color, rng.uniform(0.12, 0.2), 12.0)
        shop = self._coat("shapes", rng.uniform(90, 150, 3), 0.27, 6.0)
        stone = self._coat("grain", color * 0.9, 0.1, 3.0)
        x, floors = side * (_FACADE + 6 + rng.choice([0.0, 0.0, 1.0])), 2.0 * rng.integers(1, 4)
        self._add_box((x, 3.5, z), (12, 3.5, wide), shop)
        self._add_box((x, 3.8, z), (12.4, 0.3, wide), stone)
        self._add_box((x, 3.8 + 3 * floors, z), (12, 3 * floors, wide), wall)
        self._add_box((x, 4.3 + 3 * floors, z), (12.8, 0.5, wide), stone)
        if rng.random() < 0.5:
            reach = rng.uniform(1.0, 5.5)
            self._shade(self._world, side * (_KERB - reach / 2), z, reach, 0.8 * wide, 0.35)

    def _add_tree(self, x: float, z: float) -> None:
        b, rng = self.b, self.b.rng
        crown = self._coat("leaves", np.array([70, 96, 48]) * rng.uniform(0.7, 1.3), 0.28)
        size = rng.uniform(2.4, 3.2), rng.uniform(0.9, 1.5)
        add_tree(b, self._world, np.array([x, 0, z]), size, 3, self._trunk, crown)
        self._shade(self._world, x - math.copysign(2.0, x), z + 1, 2.5, 2.5, 0.3)

    def _add_lamp_post(self, x: float, z: float) -> None:
        foot, height = np.array([x - math.copysign(0.4, x), 0, z]), self.b.rng.uniform(2.5, 6)
        metal = self._coat("grain", np.full(3, self.b.rng.uniform(60, 160)), 0.15)
        self.b.post(self._world, foot, height, self.b.rng.uniform(0.06, 0.1), metal)

    def _add_parked(self, x: float, z: float) -> None:
        rng = self.b.rng
        if rng.random() < 0.7:
            yaw = (0.0 if x > 0 else np.pi) + rng.normal(0, 0.02)
            place = math.copysign(_KERB - 1.15 + rng.normal(0, 0.06), x)
            self._add_vehicle(_Motion(place, z, yaw), kinds=0.9)

    def _free(self, motion: _Motion, width: float, length: float) -> bool:
        """Whether an object meets nothing added so far nor the camera; if so, its space is taken from now on."""
        count = max(1, math.ceil(length / width))
        along = (np.arange(count) - (count - 1) / 2) * (length / count)
        x, z, yaw = (v[:, None] for v in motion.at(self._checked[: None if motion.speed else 1]))
        discs = np.stack([x + along * np.sin(yaw), z + along * np.cos(yaw)], axis=-1)
        radius = math.hypot(width, length / count) / 2
        low, high = discs.min(axis=(0, 1)) - radius, discs.max(axis=(0, 1)) + radius
        for other, other_radius in self._taken:
            first, last = other.min(axis=(0, 1)), other.max(axis=(0, 1))
            if (first - other_radius > high).any() or (last + other_radius < low).any():
                continue
            distance = np.linalg.norm(discs[:, :, None] - other[:, None], axis=-1)
            if distance.min() < radius + other_radius:
                return False
        self._taken.append((discs, radius))
        return True

    def _place(self, motion: _Motion) -> int:
        """A new object on the ground."""
        if not motion.speed:
            turn = rotation(np.array([0, motion.yaw, 0]))
            return self.b.scene.add_standing(pose_of(turn, np.array([motion.x, 0, motion.z])))
        poses = [
            pose_of(rotation(np.array([0, yaw, 0])), np.array([x, 0, z]))
            for x, z, yaw in zip(*motion.at(self.times), strict=True)
        ]
        return self.b.scene.add_moving(self.b.scene.motions @ np.stack(poses))

    def _add_vehicle(self, motion: _Motion, kinds: float = 1.0) -> None:
        """A car, a van or, with kinds over 0.9, a bus, if there is space."""
        b, rng = self.b, self.b.rng
        kind = kinds * rng.random()
        if kind < 0.72:
            size = rng.uniform(1.7, 1.85), rng.uniform(1.4, 1.6), rng.uniform(3.8, 4.8)
        elif kind < 0.9:
            size = rng.uniform(1.9, 2.1), rng.uniform(2.0, 2.5), rng.uniform(5.0, 5.8)
        else:
            size = 2.45, 3.1, 10.5
        if not self._free(motion, size[0], size[2]):
            return
        obj, (wide, high, long) = self._place(motion), size
        paint = self._coat("grain", rng.choice(_PALETTE) * rng.uniform(0.85, 1.1), 0.12, 2.0)
        glass = self._coat("shapes", np.array([76, 86, 98]), 0.25, 2.5)
        wheels = self._coat("cells", np.full(3, 60.0), 0.5)
        sides = paint if 5 <= long < 10 else glass
        face = len(b.scene.polygons)
        add_vehicle(b, obj, size, 10.0, paint, [sides, sides, paint, paint, glass, glass], wheels)
        for end, color in ((4, (190, 26, 22)), (5, (240, 238, 225))):
            z, y = (end - 4.5) * long, -high * (0.45 if long < 5 else 0.25)
            lamps = (-0.37, 0.17, color), (0.37, 0.17, color), (0.0, 0.28, (230, 226, 190))
            for x, width, light in lamps:
                center, extent = (x * wide, y, z), (width * wide, 0.14)
                self._paint(obj, center, extent, light, 0.9, face + end, np.eye(3)[:2])
        for spread in (0.0, 0.25, 0.5):
            self._shade(obj, 0, 0, wide + spread, long + spread, 0.16)

    def _add_walker(self, motion: _Motion) -> None:
        b, rng = self.b, self.b.rng
        if not self._free(motion, 0.5, 0.5):
            return
        obj = self._place(motion)
        clothes, legs = (self._coat("tiles", rng.uniform(30, 200, 3), 0.3) for _ in range(2))
        head = self._coat("noise", np.array([205, 165, 140]) * rng.uniform(0.5, 1.1), 0.15)
        add_walker(b, obj, rng.uniform(1.6, 1.9), clothes, legs, head)
        self._shade(obj, 0, 0, 0.5, 0.3, 0.4)

    def _add_traffic(self, duration: float, crossings: list[float]) -> None:
        """What moves; `drift` turns it a little."""
        rng, camera_speed = self.b.rng, self.path.speed

        def drift() -> float:
            return float(rng.normal(0, 0.01)) / max(1.0, duration)

        ahead, speed = rng.uniform(11.0, 19.0), camera_speed * rng.uniform(1.0, 1.25)
        while ahead < 150.0:
            x = _LANE / 2 + rng.normal(0, 0.15)
            self._add_vehicle(_Motion(x, ahead, 0.0, speed, drift()))
            ahead += rng.uniform(14.0, 40.0)
        oncoming, speed = rng.uniform(9.0, 20.0), rng.uniform(5.0, 10.0)
        while oncoming < 60.0 + (speed + camera_speed) * duration:
            x = rng.normal(0, 0.15) - _LANE / 2
            self._add_vehicle(_Motion(x, oncoming, np.pi, speed, drift()))
            oncoming += rng.uniform(10.0, 26.0)
        for side in (-1, 1):
            place = rng.uniform(6.0, 14.0)
            while place < 80.0 + camera_speed * duration:
                x, yaw = side * (_KERB + rng.uniform(1.7, 2.8)), float(rng.choice([0.0, np.pi]))
                self._add_walker(_Motion(x, place, yaw, rng.uniform(1.0, 1.6), drift()))
                place += rng.uniform(5.0, 20.0)
        for crossing in crossings:
            reached = max(0.0, (crossing - 25.0) / camera_speed)
            for side in (-1, 1):
                lane, yaw = crossing + side * _LANE / 2, -side * np.pi / 2
                for _ in range(3):
                    speed = rng.uniform(4.0, 8.0)
                    x = side * (rng.uniform(-8.0, 22.0) + speed * reached)
                    self._add_vehicle(_Motion(x, lane, yaw, speed, drift()))
                turn, x = rng.uniform(0.25, 0.5), side * rng.uniform(6.0, 12.0)
                self._add_vehicle(_Motion(x, lane, yaw, 6.0 * turn, -0.6 * turn), kinds=0.7)
                for _ in range(2):
                    x, near = side * rng.uniform(2.0, 8.0), rng.choice([-5.4, 5.2])
                    z = crossing + near + rng.normal(0, 0.2)
                    self._add_walker(_Motion(x, z, yaw, rng.uniform(1.1, 1.7), drift()))
