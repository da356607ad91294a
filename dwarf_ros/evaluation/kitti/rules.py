"""The rules of the KITTI 2015 scene-flow benchmark, to the pixel of its development kit.

Measures: D1 and D2 (disparity of both frames), Fl (optical flow) and SF (an outlier in any of the three). Regions: "occ"
counts all pixels with ground truth, "noc" only those that are not occluded. Estimates are filled before they are scored; the
figures with `_est` count only the pixels that had an estimate before.

KITTI 2012 has no object maps and no ground truth for D2, hence none for SF: D1 and Fl are counted, and all pixels only under
"all".

Reference: Menze and Geiger, "Object Scene Flow for Autonomous Vehicles", CVPR 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dwarf_ros.metrics import Additive, disparity_outliers, flow_outliers
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError

MAPS = {"D1": "disparity", "D2": "disparity_next", "Fl": "flow"}
"""The map that a measure scores, as an attribute of `Maps`."""

FOLDERS = dict(zip(MAPS, RESULT_FOLDERS, strict=True))
"""Folder of the results that a measure scores."""

MEASURES = (*MAPS, "SF")

# The development kit's values where nothing could be filled in.
_UNFILLED_DISPARITY = -1.0
_UNFILLED_FLOW = 0.0


def fill_disparity(disparity: np.ndarray) -> np.ndarray:
    """Fill the gaps of a disparity map as the development kit does before scoring.

    Within a row, a gap takes the smaller of its two neighbors, and the outermost values extend to the ends of the row; then the
    first and the last row with values extend to the top and the bottom.

    Args:
        disparity: float32 H x W, px; NaN or negative where unknown.

    Returns:
        float32 H x W, px; NaN only in empty rows between two others, or everywhere if nothing is known.
    """
    return _fill(disparity[..., None], disparity >= 0)[..., 0]


def fill_flow(flow: np.ndarray) -> np.ndarray:
    """Fill the gaps of optical flow as the development kit does before scoring: as `fill_disparity`, u and v separately.

    Args:
        flow: float32 H x W x 2, px; NaN where unknown.

    Returns:
        float32 H x W x 2, px; NaN only in empty rows between two others, or everywhere if nothing is known.
    """
    return _fill(flow, flow_known(flow))


def flow_known(flow: np.ndarray) -> np.ndarray:
    """Bool H x W, where optical flow (H x W x 2) is known."""
    return ~np.isnan(flow).any(axis=-1)


class Tally(NamedTuple):
    """Outliers among pixels; two tallies can be added."""

    outliers: int = 0
    pixels: int = 0

    def __add__(self, other: Tally) -> Tally:  # type: ignore[override]
        return Tally(self.outliers + other.outliers, self.pixels + other.pixels)

    @property
    def percent(self) -> float | None:
        """Per cent of outliers; None without pixels."""
        return 100 * self.outliers / self.pixels if self.pixels else None


_NO_PIXELS = Tally()


@dataclass(frozen=True)
class OutlierCounts(Additive):
    """Pixel counts of one measure in one region; two of them can be added.

    Attributes:
        bg, fg, all: pixels of the background, of moving objects, and both, after filling.
        bg_est, fg_est, all_est: the same, only where the estimate was valid before filling.
    """

    bg: Tally = _NO_PIXELS
    bg_est: Tally = _NO_PIXELS
    fg: Tally = _NO_PIXELS
    fg_est: Tally = _NO_PIXELS
    all: Tally = _NO_PIXELS
    all_est: Tally = _NO_PIXELS

    @property
    def density(self) -> float | None:
        """Per cent of the pixels with ground truth that have an estimate; None without pixels."""
        return 100 * self.all_est.pixels / self.all.pixels if self.all.pixels else None

    def to_dict(self) -> dict[str, float | None]:
        """Per cent of outliers under bg, bg_est, fg, fg_est, all and all_est, and density, %; None without pixels."""
        rates = {name: tally.percent for name, tally in vars(self).items()}
        return {**rates, "density": self.density}


# Measure (D1, D2, Fl, SF) -> region (occ, noc) -> counts.
Counts = dict[str, dict[str, OutlierCounts]]


class Filled(NamedTuple):
    """A filled map.

    Attributes:
        values: with the development kit's values where nothing could be filled in.
        known: bool H x W, where there was an estimate before.
    """

    values: np.ndarray
    known: np.ndarray


def filled_map(measure: str, estimate: np.ndarray) -> Filled:
    """Fill the map of a measure (D1, D2, Fl) for scoring."""
    flow = measure == "Fl"
    values = fill_flow(estimate) if flow else fill_disparity(estimate)
    values[np.isnan(values)] = _UNFILLED_FLOW if flow else _UNFILLED_DISPARITY
    return Filled(values, flow_known(estimate) if flow else estimate >= 0)


def maps_by_measure(maps: Maps) -> dict[str, np.ndarray]:
    """The maps that are present, by measure (D1, D2, Fl)."""
    return {
        measure: values
        for measure, name in MAPS.items()
        if (values := getattr(maps, name)) is not None
    }


def filled_maps(estimate: Maps) -> dict[str, Filled]:
    """`filled_map` of the maps that are present, by measure."""
    return {m: filled_map(m, values) for m, values in maps_by_measure(estimate).items()}


def evaluate_maps(
    estimate: Maps, ground_truth: Maps, objects: np.ndarray | None = None
) -> dict[str, OutlierCounts]:
    """Counts of one image against the ground truth of one region, by measure: D1, D2, Fl and SF.

    Args:
        estimate: not filled.
        ground_truth: of the same size.
        objects: H x W, 0 background, other values an object; None without such a map, then all pixels count only under `all`.

    Returns:
        the measures for which both have maps; SF if all three are there.

    Raises:
        InputError: the sizes differ.
    """
    return count_outliers(filled_maps(estimate), maps_by_measure(ground_truth), objects)


def count_outliers(
    estimates: dict[str, Filled], truths: dict[str, np.ndarray], objects: np.ndarray | None
) -> dict[str, OutlierCounts]:
    """As `evaluate_maps`, of maps by measure that are filled already."""
    scores = {}
    for measure, estimate in estimates.items():
        if measure in truths:
            truth = truths[measure]
            if measure == "Fl":
                outlier, known = flow_outliers(estimate.values, truth), flow_known(truth)
            else:
                outlier, known = disparity_outliers(estimate.values, truth), ~np.isnan(truth)
            scores[measure] = _Score(outlier, known, estimate.known)
    if scores.keys() == MAPS.keys():
        first, second, flow = scores["D1"], scores["D2"], scores["Fl"]
        scores["SF"] = _Score(
            first.outlier | second.outlier | flow.outlier,
            first.true_known & second.true_known & flow.true_known,
            first.estimate_known,
        )
    return {measure: _count(score, objects) for measure, score in scores.items()}


class _Score(NamedTuple):
    outlier: np.ndarray
    true_known: np.ndarray
    estimate_known: np.ndarray


def _fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    if known.all():
        return values.copy()
    height, width = known.shape
    columns = np.arange(width, dtype=np.int32)
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, columns, width)[:, ::-1], axis=1)[:, ::-1]
    # The ends of a row have one neighbor, which is used for both sides.
    left, right = np.where(left < 0, right, left), np.where(right == width, left, right)
    occupied = known.any(axis=1)
    left[~occupied] = right[~occupied] = 0
    row_starts = (np.arange(height, dtype=np.int32) * width)[:, None]
    pixels = values.reshape(height * width, values.shape[2])
    filled = np.minimum(
        np.take(pixels, row_starts + left, axis=0), np.take(pixels, row_starts + right, axis=0)
    )
    filled[~occupied] = np.nan
    present = np.flatnonzero(occupied)
    if present.size:
        filled[: present[0]] = filled[present[0]]
        filled[present[-1] + 1 :] = filled[present[-1]]
    return filled


def _count(score: _Score, objects: np.ndarray | None) -> OutlierCounts:
    if objects is not None and objects.shape != score.outlier.shape:
        raise InputError(
            f"object map has shape {objects.shape}, expected {score.outlier.shape} as the ground truth"
        )

    def tally(counted: np.ndarray) -> Tally:
        outliers = np.count_nonzero(counted & score.outlier)
        return Tally(int(outliers), int(np.count_nonzero(counted)))

    known = score.true_known
    known_est = known & score.estimate_known
    total, total_est = tally(known), tally(known_est)
    if objects is None:
        return OutlierCounts(all=total, all_est=total_est)
    foreground = objects != 0
    fg, fg_est = tally(known & foreground), tally(known_est & foreground)
    return OutlierCounts(
        bg=Tally(total.outliers - fg.outliers, total.pixels - fg.pixels),
        bg_est=Tally(total_est.outliers - fg_est.outliers, total_est.pixels - fg_est.pixels),
        fg=fg,
        fg_est=fg_est,
        all=total,
        all_est=total_est,
    )
