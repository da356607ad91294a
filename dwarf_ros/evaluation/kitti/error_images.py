"""The benchmark's error images: blue is right, red is wrong, on a logarithmic scale."""

from __future__ import annotations

import numpy as np

from dwarf_ros.evaluation.kitti.rules import (
    MAPS,
    filled_map,
    filled_maps,
    flow_known,
    maps_by_measure,
)
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError
from dwarf_ros.visualization.error_maps import disparity_severity, flow_severity, paint_errors


def disparity_error_image(
    estimate: np.ndarray, true_noc: np.ndarray, true_occ: np.ndarray
) -> np.ndarray:
    """Error image of a disparity map.

    Args:
        estimate: float32 H x W, px, not filled; NaN where invalid.
        true_noc: ground truth without occluded pixels, float32 H x W, px; NaN where unknown, which is painted at half brightness.
        true_occ: ground truth, float32 H x W, px; NaN where unknown; known pixels are painted, 3 x 3 each.

    Returns:
        uint8 RGB, H x W x 3; black without ground truth. Shades of blue are within 3 px or 5 %, yellow to red beyond both.

    Raises:
        InputError: the sizes differ.
    """
    error = disparity_severity(filled_map("D1", estimate).values, true_occ)
    return paint_errors(error, ~np.isnan(true_occ), true_noc >= 0)


def flow_error_image(
    estimate: np.ndarray, true_noc: np.ndarray, true_occ: np.ndarray
) -> np.ndarray:
    """Error image of optical flow: as `disparity_error_image`, with float32 H x W x 2 maps, px.

    Raises:
        InputError: the sizes differ.
    """
    error = flow_severity(filled_map("Fl", estimate).values, true_occ)
    return paint_errors(error, flow_known(true_occ), flow_known(true_noc))


def scene_flow_error_image(estimate: Maps, true_noc: Maps, true_occ: Maps) -> np.ndarray:
    """Error image of scene flow: the largest of the three errors at each pixel.

    Args:
        estimate: all three maps, not filled.
        true_noc: all three maps of the ground truth without occluded pixels; as in the development kit, its flow decides what is
            dimmed.
        true_occ: all three maps of the ground truth; its flow decides what is painted. Unknown disparities are ignored.

    Returns:
        uint8 RGB, H x W x 3, as `disparity_error_image`.

    Raises:
        InputError: the sizes differ, or a map is missing.
    """
    filled = filled_maps(estimate)
    truth = maps_by_measure(true_occ)
    noc = maps_by_measure(true_noc)
    if not filled.keys() == truth.keys() == noc.keys() == MAPS.keys():
        raise InputError(
            "scene flow error image: a map is missing, expected disparity, disparity_next and flow"
        )
    error = flow_severity(filled["Fl"].values, truth["Fl"])
    for measure in ("D1", "D2"):
        error = np.fmax(error, disparity_severity(filled[measure].values, truth[measure]))
    return paint_errors(error, flow_known(truth["Fl"]), flow_known(noc["Fl"]))
