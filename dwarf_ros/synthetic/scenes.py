"""Random 3D scenes for training: samples of two stereo frames with exact scene flow, generated on demand.

Two kinds: road scenes and free scenes, after the idea of Mayer et al., "A Large Dataset to Train Convolutional Networks for
Disparity, Optical Flow, and Scene Flow Estimation", CVPR 2016. Any process can generate any sample: it depends only on the
seed and its index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dwarf_ros.samples import Maps, Sample, SampleTruth
from dwarf_ros.synthetic.free_scenes import build_free_scene
from dwarf_ros.synthetic.renderer import View
from dwarf_ros.synthetic.road_scenes import build_road_scene
from dwarf_ros.synthetic.sensor import sensor_effects
from dwarf_ros.synthetic.shading import render
from dwarf_ros.synthetic.shapes import Builder, log_uniform
from dwarf_ros.synthetic.textures import TextureBank, texture_bank
from dwarf_ros.synthetic.truth import hidden_in, motion_of
from dwarf_ros.types import InputError, StereoCamera, StereoFrame

_RATE = 10.0
"""Frame rate of the stamps, Hz."""


_LIMITS = {
    "seed": (0, 2**63), "count": (1, 2**40), "height": (64, 8192), "width": (64, 8192),
    "max_disparity": (8, 2048), "max_flow": (8, 2048), "drives": (0, 1), "effects": (0, 1),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class TrainingScenes:
    """A training set of random scenes, generated sample by sample.

    The same arguments give the same bytes in any order and process. A sample's `occ` maps
    hold every pixel whose values are within `max_disparity` and `max_flow`, others are NaN, as are those that the camera
    passes before the current frame; its `noc` maps are NaN where the
    point is outside the images that the map speaks of, or hidden there: the right image for the disparity, the current
    left image for the flow, both current images for the next disparity. Maps are those of the point that the ray through
    a pixel's center meets; `objects` is the object's number plus one if it moves in the world, else 0.

    Args:
        seed: which set, >= 0. Sets of different seeds share no sample and no texture.
        count: number of samples, >= 1.
        height, width: image size, px, at least 64.
        max_disparity: largest disparity, px, at least 8; each scene draws its own below it.
        max_flow: longest flow, px, at least 8; each scene draws its own below it.
        drives: part of the scenes that are drives, 0 to 1; the others are free scenes.
        effects: strength of the sensor effects, see `sensor_effects`; 0 leaves the images as they were rendered.
        textures: number of textures that the scenes share, 1 to 80 (1.5 MB each).
        images: half of the textures are parts of these photos: a folder, or "scikit-image" for those that come with that
            package. None: all are procedural.

    Raises:
        InputError: an argument is out of its range, or there are no such images.
    """

    seed: int = 0
    count: int = 100_000
    height: int = 320
    width: int = 448
    max_disparity: float = 192.0
    max_flow: float = 250.0
    drives: float = 0.4
    effects: float = 1.0
    textures: int = 64
    images: Path | str | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"training scenes: {name} is {value}, expected {low} to {high}")
        # Built here so that bad settings are reported at once, and so that forked processes share it.
        self._bank()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def title(self) -> str:
        """A short description."""
        return f"training scenes, seed {self.seed}"

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, generated now.

        Raises:
            IndexError: no such sample.
        """
        if not -self.count <= index < self.count:
            raise IndexError(f"training scenes: no sample {index}, there are {self.count}")
        index %= self.count
        rng = np.random.default_rng([self.seed, index, 0x5CE4E5])
        builder, disparity, flow = self._builder(rng)
        if rng.random() < self.drives:
            build_road_scene(builder)
        else:
            build_free_scene(builder, disparity, flow)
        camera, bank = builder.camera, self._bank()
        # Left then right, previous then current.
        views = [
            View(builder.scene, time, eye * camera.baseline, camera)
            for time in (0, 1)
            for eye in (0, 1)
        ]
        images = [render(view, bank) for view in views]
        if self.effects:
            images = sensor_effects(images, rng, self.effects)
        return Sample(
            name=f"{self.seed}_{index:08d}",
            previous=StereoFrame(images[0], images[1], 0, camera),
            current=StereoFrame(images[2], images[3], round(1e9 / _RATE), camera),
            ground_truth=_ground_truth(views, self.max_disparity, self.max_flow),
        )

    def _builder(self, rng: np.random.Generator) -> tuple[Builder, float, float]:
        """A builder with a random camera, and the largest disparity and flow of the scene, px."""
        width, height = self.width, self.height
        focal = width * log_uniform(rng, 0.55, 1.7)
        baseline = log_uniform(rng, 0.08, 0.8)
        cx = (width - 1) / 2 + rng.normal(0, 0.03) * width
        cy = (height - 1) / 2 + rng.normal(0, 0.05) * height
        camera = StereoCamera(focal, focal, cx, cy, cx, baseline, width, height)
        # Half of the scenes have objects as near as allowed; their motions are uniform or mostly small.
        disparity = self.max_disparity * float(rng.choice([rng.uniform(0.2, 1), 1.0]))
        flow = self.max_flow * float(rng.uniform(0.02, 1.0) ** rng.choice([0.3, 2.5]))
        builder = Builder(rng, self._bank(), camera, self.max_disparity, self.max_flow)
        return builder, disparity, flow

    def _bank(self) -> TextureBank:
        return texture_bank(self.seed, self.textures, self.images)


def _ground_truth(views: list[View], max_disparity: float, max_flow: float) -> SampleTruth:
    """Maps of the previous left image, in float64 until they are stored."""
    left, right, left_next, right_next = views
    camera = left.camera
    inverse_depth = left.inverse_depth.astype(np.float64)
    motion = motion_of(left, inverse_depth, 0, 1)
    x = np.arange(camera.width, dtype=np.float64)
    y = np.arange(camera.height, dtype=np.float64)[:, None]
    gain = camera.fx * camera.baseline
    disparity, disparity_next = gain * inverse_depth, gain * motion.inverse_depth
    flow = np.empty((*inverse_depth.shape, 2), np.float32)
    np.subtract(motion.x, x, out=flow[..., 0], casting="same_kind")
    np.subtract(motion.y, y, out=flow[..., 1], casting="same_kind")
    nowhere = left.surface < 0
    if nowhere.any():
        for values in (disparity, disparity_next, flow):
            values[nowhere] = np.nan
    hidden = hidden_in(right, left, x - disparity, y, inverse_depth)
    hidden_next = motion.passed | hidden_in(
        left_next, left, motion.x, motion.y, motion.inverse_depth
    )
    hidden_right = hidden_next | hidden_in(
        right_next, left, motion.x - disparity_next, motion.y, motion.inverse_depth
    )
    # Only now: a point that need not be learned still hides others.
    with np.errstate(invalid="ignore"):
        unknown = motion.passed | (flow[..., 0] ** 2 + flow[..., 1] ** 2 > max_flow**2)
        disparity[disparity > max_disparity] = np.nan
        disparity_next[motion.passed | (disparity_next > max_disparity)] = np.nan
    # Both components at once: several times faster.
    flow.view(np.complex64)[unknown] = complex(np.nan, np.nan)
    known = (disparity.astype(np.float32), disparity_next.astype(np.float32), flow)
    seen = tuple(values.copy() for values in known)
    for values, mask in zip(seen[:2], (hidden, hidden_right), strict=True):
        values[mask] = np.nan
    seen[2].view(np.complex64)[hidden_next] = complex(np.nan, np.nan)
    return SampleTruth(Maps(*known), Maps(*seen), motion.objects)
