"""Quantization of a network for one image size, calibrated on synthetic drives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.network.codec import check_size, encode
from dwarf_ros.synthetic.drives import ProceduralDrive

CALIBRATION_SEEDS = range(24)
HELD_OUT_SEEDS = range(1000, 1008)


def drive_images(seed: int, height: int, width: int) -> dict[str, np.ndarray]:
    """The network's inputs for the first two frames of a procedural drive, float32 1 x H x W x 3 each, in [0, 1]."""
    first, second = ProceduralDrive(seed, 2, width, height)
    return encode(np.stack([first.left, first.right, second.left, second.right])[None])


def quantize_for_drives(weights: str | Path, height: int, width: int) -> dict[str, Any]:
    """Create the 8-bit integer network that engine openvino runs with precision int8, and keep it in the cache.

    Args:
        weights: a weights file.
        height: of the images as the network sees them, px, a multiple of 64.
        width: of the images as the network sees them, px, a multiple of 64.

    Returns:
        The result of `engines.quantization.quantize`.

    Raises:
        InputError: a size that is not a multiple of 64 px, weights that cannot be read, or NNCF is not installed.
    """
    check_size(height, width)
    from dwarf_ros.engines import choose_engine
    from dwarf_ros.engines.graph import require

    choose_engine("openvino")
    require("quantize", "nncf")
    from dwarf_ros.engines.quantization import quantize
    from dwarf_ros.engines.source import NetworkSource

    return quantize(
        NetworkSource(weights),
        [drive_images(seed, height, width) for seed in CALIBRATION_SEEDS],
        [drive_images(seed, height, width) for seed in HELD_OUT_SEEDS],
    )


def change_in_words(accuracy: dict[str, Any]) -> str:
    """The result of `quantize_for_drives` as a sentence."""
    changes = ", ".join(
        f"{name} {change['mean']:.2f} px" for name, change in accuracy["change_px"].items()
    )
    return (
        f"Mean change by int8 on {accuracy['measured_on']} synthetic drives that it was not calibrated on: "
        f"{changes}."
    )
