"""A tiny preset, rendered samples and a small training configuration."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.formats import write_flo, write_image, write_pfm
from dwarf_ros.network.presets import PRESETS, Preset

HEIGHT, WIDTH = 64, 128

# Two levels of a few channels: every kind of layer is there, and it is compiled in seconds.
TINY = Preset(
    name="tiny",
    encoder_channels=(4, 4, 6, 6, 8),
    encoder_convolutions=(2, 2, 2, 2, 2),
    trunk_channels=(8,),
    head_channels=(6,),
    context_channels=(6,),
    context_dilations=(1,),
    finest_level=4,
    dense=False,
    matching=True,
    convex_enlargement=True,
)


@pytest.fixture
def tiny_preset(monkeypatch):
    monkeypatch.setitem(PRESETS, TINY.name, TINY)


@pytest.fixture(scope="session")
def rendered(tmp_path_factory):
    """Four samples in the layout of FlyingThings3D: a texture 5 to 8 px before the cameras that moves by (3, -1)."""
    root = tmp_path_factory.mktemp("flyingthings3d")
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (HEIGHT + 40, WIDTH + 80, 3), np.uint8)
    for frame in range(5):
        name = f"{frame:07d}"
        for side, shift in (("left", 0), ("right", 5 + frame)):
            file = root / f"image_clean/{side}/{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            y, x = 20 + frame, 40 - 3 * frame + shift
            write_image(file, texture[y : y + HEIGHT, x : x + WIDTH])
        if frame == 4:
            break
        size = (HEIGHT, WIDTH)
        for folder, write, values in (
            ("disparity/left", write_pfm, np.full(size, -5.0 - frame)),
            ("disparity_change/left/into_future", write_pfm, np.full(size, -1.0)),
            ("flow/left/into_future", write_flo, np.tile([3.0, -1.0], (*size, 1))),
        ):
            (root / folder).mkdir(parents=True, exist_ok=True)
            suffix = "flo" if write is write_flo else "pfm"
            write(root / folder / f"{name}.{suffix}", values.astype(np.float32))
    return root


@pytest.fixture
def settings(rendered, tiny_preset):
    """Function from changes to the values of a small, valid configuration."""

    def values(**changes):
        base = {
            "preset": "tiny",
            "steps": 6,
            "batch_size": 2,
            "data": {"source": "flyingthings3d", "root": str(rendered)},
            "augmentation": {"height": HEIGHT, "width": WIDTH, "flip_probability": 0.5},
            "loss": {
                "level_weights": {5: 0.08, 4: 0.02, 0: 0.0003},
                "matching_weight": 1.0,
                "regularization": 1e-4,
            },
            "optimizer": {"learning_rate": 1e-3},
        }
        for key, change in changes.items():
            if isinstance(change, dict) and isinstance(base.get(key), dict):
                base[key] = {**base[key], **change}
            else:
                base[key] = change
        return base

    return values
