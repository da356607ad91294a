"""The rules of the KITTI 2015 scene-flow benchmark (Menze and Geiger, CVPR 2015), to the pixel of its development kit.

Measures: D1 and D2 (disparity at both times), Fl (optical flow) and SF (an outlier in any of the three). Regions: "occ"
counts every pixel with ground truth, "noc" only those that are not occluded. Estimates are filled before they are scored;
the figures with `_est` count only the pixels that had an estimate before.

KITTI 2012 has no map of objects, no ground truth for D2 and so none for SF: there D1 and Fl are counted, and every pixel only
under "all".
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dwarf_ros.formats import read_disparity_png, read_flow_png, read_image
from dwarf_ros.geometry import back_project, depth_from_disparity
from dwarf_ros.metrics import (
    BandErrors,
    MotionErrors,
    PixelErrors,
    disparity_error,
    disparity_errors,
    disparity_outliers,
    end_point_error,
    errors_by_band,
    flow_errors,
    flow_outliers,
    magnitude,
    motion_errors,
    motion_outliers,
)
from dwarf_ros.recordings.calibration import read_calibration
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError, StereoCamera
from dwarf_ros.visualization.error_maps import disparity_severity, flow_severity, paint_errors
from dwarf_ros.workers import check_workers, map_over

MEASURES = ("D1", "D2", "Fl", "SF")
REGIONS = ("occ", "noc")

# What the development kit scores where nothing could be filled in.
_UNFILLED_DISPARITY = -1.0
_UNFILLED_FLOW = 0.0

# Folder of each measure's results, and the folders that may hold its ground truth: KITTI 2015's, then KITTI 2012's.
_RESULTS = {"D1": "disp_0", "D2": "disp_1", "Fl": "flow"}
_TRUTHS = {"D1": ("disp_{}_0", "disp_{}"), "D2": ("disp_{}_1",), "Fl": ("flow_{}",)}
_OBJECTS = "obj_map"

# Where the ground truth may have its calibrations, and whether they are of the colour cameras: KITTI 2015's, KITTI 2012's.
_CALIBRATIONS = {"calib_cam_to_cam": True, "calib": False}

# What errors are sorted by, and the bands.
BANDS = {
    "distance": (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, np.inf),  # m
    "disparity": (0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, np.inf),  # px
    "flow": (0.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, np.inf),  # px
    "motion": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, np.inf),  # m
}

# Below this many images a process, starting processes costs more than it saves.
_IMAGES_PER_PROCESS = 8


def fill_disparity(disparity: np.ndarray) -> np.ndarray:
    """Fill the gaps of a disparity map as the development kit does before scoring.

    In each row a gap becomes the smaller of its two neighbours, and the ends of the row are continued outwards; then the
    first and the last row that hold anything are continued to the top and the bottom.

    Args:
        disparity: float32 H x W, px; NaN or negative where unknown.

    Returns:
        float32 H x W, px; NaN only in rows without any estimate that lie between two rows with one, or everywhere where
        nothing is known.
    """
    return _fill(disparity[..., None], disparity >= 0)[..., 0]


def fill_flow(flow: np.ndarray) -> np.ndarray:
    """Fill the gaps of optical flow as the development kit does before scoring; as `fill_disparity`, for u and v by themselves.

    Args:
        flow: float32 H x W x 2, px; NaN where unknown.

    Returns:
        float32 H x W x 2, px; NaN only in empty rows between two others, or everywhere where nothing is known.
    """
    return _fill(flow, _flow_known(flow))


class Tally(NamedTuple):
    """Outliers among pixels."""

    outliers: int = 0
    pixels: int = 0

    @property
    def percent(self) -> float | None:
        """Per cent of outliers; None where no pixel was counted."""
        return 100 * self.outliers / self.pixels if self.pixels else None


_NO_PIXELS = Tally()


@dataclass(frozen=True)
class OutlierCounts:
    """Raw pixel counts of one measure in one region; two of them can be added.

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

    def __add__(self, other: OutlierCounts) -> OutlierCounts:
        return OutlierCounts(
            *(
                Tally(a.outliers + b.outliers, a.pixels + b.pixels)
                for a, b in zip(self._tallies(), other._tallies(), strict=True)
            )
        )

    @property
    def density(self) -> float | None:
        """Per cent of the ground truth's pixels with an estimate; None where no pixel was counted."""
        return 100 * self.all_est.pixels / self.all.pixels if self.all.pixels else None

    def to_dict(self) -> dict[str, float | None]:
        """Per cent of outliers under bg, bg_est, fg, fg_est, all and all_est, and density, %; None where no pixel counts."""
        names = ("bg", "bg_est", "fg", "fg_est", "all", "all_est")
        rates = {name: tally.percent for name, tally in zip(names, self._tallies(), strict=True)}
        return {**rates, "density": self.density}

    def _tallies(self) -> tuple[Tally, ...]:
        return (self.bg, self.bg_est, self.fg, self.fg_est, self.all, self.all_est)


def evaluate_maps(
    estimate: Maps, ground_truth: Maps, objects: np.ndarray | None = None
) -> dict[str, OutlierCounts]:
    """Counts of one image against one region's ground truth, by measure: D1, D2, Fl and SF.

    Args:
        estimate: as estimated (not filled).
        ground_truth: of the same size.
        objects: H x W, 0 background, other values an object; None where there is no such map, then every pixel is counted
            under `all` alone.

    Returns:
        the measures that both have maps for; SF where all three are there.

    Raises:
        InputError: the sizes differ.
    """
    return _evaluate(_fill_maps(estimate), _maps_by_measure(ground_truth), objects)


def evaluate_disparity(
    estimate: np.ndarray, ground_truth: np.ndarray, objects: np.ndarray | None = None
) -> OutlierCounts:
    """D1 or D2 of one image; arguments as the disparity and the objects of `evaluate_maps`."""
    return evaluate_maps(Maps(disparity=estimate), Maps(disparity=ground_truth), objects)["D1"]


def evaluate_flow(
    estimate: np.ndarray, ground_truth: np.ndarray, objects: np.ndarray | None = None
) -> OutlierCounts:
    """Fl of one image; arguments as the flow and the objects of `evaluate_maps`."""
    return evaluate_maps(Maps(flow=estimate), Maps(flow=ground_truth), objects)["Fl"]


# Measure (D1, D2, Fl, SF) -> region (occ, noc) -> counts.
Counts = dict[str, dict[str, OutlierCounts]]


@dataclass(frozen=True)
class ImageErrors:
    """How large the errors of an image are; those of two images can be added.

    Attributes:
        pixels: measure (D1, D2, Fl) -> region (occ, noc) -> errors of the filled estimate, px.
        motion: region -> errors of the 3D motion from one frame to the next relative to the camera, m, where all three
            ground truths are known and nothing of the estimate had to be filled; empty without a calibration.
        bands: (measure, quantity) -> errors of region occ (of noc where there is no other) by bands of BANDS' quantity.
            The quantities are the ground truth's: distance (m; disparity, px, without a calibration), flow, the length
            of the optical flow (px), and motion, the length of the 3D motion (m). The measures are D1, D2 and Fl (px),
            and 3D, as `motion` (m).
    """

    pixels: dict[str, dict[str, PixelErrors]] = field(default_factory=dict)
    motion: dict[str, MotionErrors] = field(default_factory=dict)
    bands: dict[tuple[str, str], BandErrors] = field(default_factory=dict)

    def __add__(self, other: ImageErrors) -> ImageErrors:
        measures = [m for m in MEASURES if m in self.pixels or m in other.pixels]
        return ImageErrors(
            {m: _added(self.pixels.get(m, {}), other.pixels.get(m, {})) for m in measures},
            _added(self.motion, other.motion),
            _added(self.bands, other.bands),
        )


def _added(a: dict, b: dict) -> dict:
    return {**a, **{key: a[key] + value if key in a else value for key, value in b.items()}}


@dataclass(frozen=True)
class Evaluation:
    """The scores of a folder of results.

    Attributes:
        images: counts of each image, by file name.
        skipped: measures that could not be scored, and why.
        errors: how large the errors of each image are, by file name.
    """

    images: dict[str, Counts]
    skipped: dict[str, str]
    errors: dict[str, ImageErrors] = field(default_factory=dict)

    @property
    def pooled_errors(self) -> ImageErrors:
        """Errors over all pixels of all images."""
        return sum(self.errors.values(), start=ImageErrors())

    @property
    def pooled(self) -> Counts:
        """Counts over all pixels of all images."""
        pooled: Counts = {}
        for measure in MEASURES:
            for counts in self.images.values():
                for region, count in counts.get(measure, {}).items():
                    regions = pooled.setdefault(measure, {})
                    regions[region] = regions.get(region, OutlierCounts()) + count
        return pooled

    def to_dict(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Pooled per cent by measure, region and column, ready for JSON; measures that were skipped are left out."""
        return {
            measure: {region: count.to_dict() for region, count in regions.items()}
            for measure, regions in self.pooled.items()
        }


def evaluate_folder(
    results: Path,
    ground_truth: Path,
    workers: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = None,
) -> Evaluation:
    """Score a folder of results as submitted to KITTI.

    Every image of the ground truth must have a result; other results are not looked at. A measure without a folder of
    results, or without ground truth, is skipped. Images are scored one after the other, so memory does not grow with
    their number.

    Args:
        results: folder with disp_0, disp_1 and flow, or some of them: 16-bit PNG.
        ground_truth: folder with disp_occ_0, disp_noc_0, disp_occ_1, disp_noc_1, flow_occ, flow_noc and obj_map (KITTI
            2015), or disp_occ, disp_noc, flow_occ, flow_noc (KITTI 2012). Where calib_cam_to_cam (2015) or calib (2012) has a
            calibration for every image, errors are told in metres too.
        workers: as in `dwarf_ros.workers.map_over`, to share the images among Ray's workers; None: processes of this machine.
        progress: called after each image with the number of images done and in all.
        processes: to share the images among, >= 1, where `workers` is None; None: as the machine has processors and the
            number of images is worth.

    Raises:
        InputError: a folder or an image is missing, an image is damaged or of another kind or size than its ground truth,
            or nothing is there to be scored.
    """
    check_workers(workers)
    if processes is not None and processes < 1:
        raise InputError(f"processes: {processes}, expected at least 1")
    if workers is not None:
        # A worker need not be in the folder that this process is in.
        results, ground_truth = Path(results).absolute(), Path(ground_truth).absolute()
    layout, skipped = _find_layout(Path(results), Path(ground_truth))
    names = sorted(frozenset().union(*(task.names for task in layout.tasks)))
    if workers is not None:
        scores = map_over(partial(_evaluate_image, layout), names, workers)
    else:
        processes = min(processes or _worthwhile_processes(len(names)), len(names))
        scores = _evaluate_images(layout, names, processes)
    images: dict[str, Counts] = {}
    errors: dict[str, ImageErrors] = {}
    for name, score in zip(names, scores, strict=True):
        images[name], errors[name] = score
        if progress is not None:
            progress(len(images), len(names))
    return Evaluation(images, skipped, errors)


def read_maps(results: Path, ground_truth: Path, name: str) -> tuple[Maps, Maps, Maps]:
    """What `evaluate_folder` scores of one image.

    Args:
        results: as for `evaluate_folder`.
        ground_truth: the same.
        name: file name of the image.

    Returns:
        the estimate (not filled), and the ground truth without and with occluded pixels, either standing in for the
        other where it is absent; each with the maps that are scored of this image.

    Raises:
        InputError: as `evaluate_folder`.
    """
    layout, _ = _find_layout(Path(results), Path(ground_truth))
    maps: dict[str, dict[str, np.ndarray]] = {"estimate": {}, "noc": {}, "occ": {}}
    for task in layout.tasks:
        if name in task.names:
            maps["estimate"][task.measure] = task.read(task.results / name)
            for region, other in (("noc", "occ"), ("occ", "noc")):
                folder = task.truths.get(region) or task.truths[other]
                maps[region][task.measure] = task.read(folder / name)
    estimate, noc, occ = (Maps(m.get("D1"), m.get("D2"), m.get("Fl")) for m in maps.values())
    return estimate, noc, occ


def disparity_error_image(
    estimate: np.ndarray, true_noc: np.ndarray, true_occ: np.ndarray
) -> np.ndarray:
    """The benchmark's error image of a disparity map: blue is right, red is wrong, on a logarithmic scale.

    Args:
        estimate: float32 H x W, px, as estimated (it is filled here); NaN where invalid.
        true_noc: ground truth without occluded pixels, float32 H x W, px; NaN where unknown; pixels unknown here are painted
            at half brightness.
        true_occ: ground truth, float32 H x W, px; NaN where unknown; pixels known here are painted, 3 x 3 each.

    Returns:
        uint8 RGB, H x W x 3; black where there is no ground truth. Shades of blue are
        within 3 px or 5 %, yellow to red beyond both.

    Raises:
        InputError: the sizes differ.
    """
    error = disparity_severity(_filled_disparity(estimate).values, true_occ)
    return paint_errors(error, ~np.isnan(true_occ), true_noc >= 0)


def flow_error_image(
    estimate: np.ndarray, true_noc: np.ndarray, true_occ: np.ndarray
) -> np.ndarray:
    """The benchmark's error image of optical flow; as `disparity_error_image`, with float32 H x W x 2 maps, px.

    Raises:
        InputError: the sizes differ.
    """
    error = flow_severity(_filled_flow(estimate).values, true_occ)
    return paint_errors(error, _flow_known(true_occ), _flow_known(true_noc))


def scene_flow_error_image(estimate: Maps, true_noc: Maps, true_occ: Maps) -> np.ndarray:
    """The benchmark's error image of scene flow: at each pixel the worst of the three errors.

    Args:
        estimate: all three maps, as estimated (they are filled here).
        true_noc: all three maps of the ground truth without occluded pixels.
        true_occ: all three maps of the ground truth. As in the development kit, the flow decides what is painted (here) and
            what is dimmed (in true_noc); a disparity that is unknown there takes no part.

    Returns:
        uint8 RGB, H x W x 3, as `disparity_error_image`.

    Raises:
        InputError: the sizes differ, or a map is missing.
    """
    filled = _fill_maps(estimate)
    truth = _maps_by_measure(true_occ)
    noc = _maps_by_measure(true_noc)
    if not filled.keys() == truth.keys() == noc.keys() == set(_RESULTS):
        raise InputError(
            "scene flow error image: a map is missing, expected disparity, disparity_next and flow"
        )
    error = flow_severity(filled["Fl"].values, truth["Fl"])
    for measure in ("D1", "D2"):
        error = np.fmax(error, disparity_severity(filled[measure].values, truth[measure]))
    return paint_errors(error, _flow_known(truth["Fl"]), _flow_known(noc["Fl"]))


class _Filled(NamedTuple):
    values: np.ndarray  # filled, and the development kit's stand-in where that was not possible
    known: np.ndarray  # bool H x W, before filling


class _MeasureScore(NamedTuple):
    outlier: np.ndarray
    true_known: np.ndarray
    estimate_known: np.ndarray


@dataclass(frozen=True)
class _Task:
    measure: str
    results: Path
    truths: dict[str, Path]  # by region
    names: frozenset[str]

    def read(self, file: Path) -> np.ndarray:
        return read_flow_png(file) if self.measure == "Fl" else read_disparity_png(file)


@dataclass(frozen=True)
class _Layout:
    tasks: list[_Task]
    objects: Path | None
    calibrations: tuple[Path, bool] | None  # folder, and whether it is of colour cameras

    def camera(self, name: str, height: int, width: int) -> StereoCamera | None:
        if self.calibrations is None:
            return None
        folder, colour = self.calibrations
        return read_calibration(_calibration_file(folder, name), width, height, colour)


class _Score(NamedTuple):
    counts: Counts
    errors: ImageErrors


def _fill(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    if known.all():
        return values.copy()
    height, width = known.shape
    columns = np.arange(width, dtype=np.int32)
    left = np.maximum.accumulate(np.where(known, columns, -1), axis=1)
    right = np.minimum.accumulate(np.where(known, columns, width)[:, ::-1], axis=1)[:, ::-1]
    # A row's ends have one neighbour only: they take it for both.
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


def _flow_known(flow: np.ndarray) -> np.ndarray:
    return ~(np.isnan(flow[..., 0]) | np.isnan(flow[..., 1]))


def _filled_disparity(estimate: np.ndarray) -> _Filled:
    values = fill_disparity(estimate)
    values[np.isnan(values)] = _UNFILLED_DISPARITY
    return _Filled(values, estimate >= 0)


def _filled_flow(estimate: np.ndarray) -> _Filled:
    values = fill_flow(estimate)
    values[np.isnan(values)] = _UNFILLED_FLOW
    return _Filled(values, _flow_known(estimate))


def _maps_by_measure(maps: Maps) -> dict[str, np.ndarray]:
    by_measure = {"D1": maps.disparity, "D2": maps.disparity_next, "Fl": maps.flow}
    return {measure: values for measure, values in by_measure.items() if values is not None}


def _fill_maps(estimate: Maps) -> dict[str, _Filled]:
    return {
        measure: _fill_measure(measure, values)
        for measure, values in _maps_by_measure(estimate).items()
    }


def _fill_measure(measure: str, estimate: np.ndarray) -> _Filled:
    return _filled_flow(estimate) if measure == "Fl" else _filled_disparity(estimate)


def _evaluate(
    estimates: dict[str, _Filled], truths: dict[str, np.ndarray], objects: np.ndarray | None
) -> dict[str, OutlierCounts]:
    scores = {}
    for measure, estimate in estimates.items():
        if measure in truths:
            truth = truths[measure]
            if measure == "Fl":
                outlier, known = flow_outliers(estimate.values, truth), _flow_known(truth)
            else:
                outlier, known = disparity_outliers(estimate.values, truth), ~np.isnan(truth)
            scores[measure] = _MeasureScore(outlier, known, estimate.known)
    if scores.keys() == set(_RESULTS):
        first, second, flow = scores["D1"], scores["D2"], scores["Fl"]
        scores["SF"] = _MeasureScore(
            first.outlier | second.outlier | flow.outlier,
            first.true_known & second.true_known & flow.true_known,
            first.estimate_known,
        )
    return {measure: _count(score, objects) for measure, score in scores.items()}


def _count(score: _MeasureScore, objects: np.ndarray | None) -> OutlierCounts:
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


def _find_layout(results: Path, ground_truth: Path) -> tuple[_Layout, dict[str, str]]:
    for folder in (results, ground_truth):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    tasks = []
    skipped = {}
    for measure, subfolder in _RESULTS.items():
        estimates = _png_names(results / subfolder)
        truths = {
            region: path
            for region in REGIONS
            for path in [ground_truth / name.format(region) for name in reversed(_TRUTHS[measure])]
            if path.is_dir()
        }
        if not estimates:
            skipped[measure] = f"no PNG in {results / subfolder}"
        elif not truths:
            skipped[measure] = f"no {_TRUTHS[measure][0].format('occ')} in {ground_truth}"
        else:
            tasks.append(_make_task(measure, results / subfolder, estimates, truths))
    if not tasks:
        raise InputError(
            f"{results}: nothing to evaluate against {ground_truth}: {'; '.join(skipped.values())}"
        )
    if skipped:
        skipped["SF"] = f"needs D1, D2 and Fl, but {', '.join(skipped)} skipped"
    names = frozenset().union(*(task.names for task in tasks))
    calibrations = _find_calibrations(ground_truth, names)
    objects = ground_truth / _OBJECTS
    if not objects.is_dir():
        return _Layout(tasks, None, calibrations), skipped
    for name in sorted(names - _png_names(objects)):
        raise InputError(f"{objects / name}: missing, expected an object map for every image")
    return _Layout(tasks, objects, calibrations), skipped


def _find_calibrations(ground_truth: Path, names: frozenset[str]) -> tuple[Path, bool] | None:
    for subfolder, colour in _CALIBRATIONS.items():
        folder = ground_truth / subfolder
        if all(_calibration_file(folder, name).is_file() for name in names):
            return folder, colour
    return None


def _calibration_file(folder: Path, name: str) -> Path:
    return folder / f"{name.partition('_')[0].removesuffix('.png')}.txt"


def _make_task(measure: str, results: Path, estimates: set[str], truths: dict[str, Path]) -> _Task:
    by_region = {region: _png_names(folder) for region, folder in truths.items()}
    names = frozenset().union(*by_region.values())
    if not names:
        raise InputError(f"{next(iter(truths.values()))}: holds no PNG, expected ground truth")
    for region, folder in truths.items():
        for name in sorted(names - by_region[region]):
            raise InputError(f"{folder / name}: missing, expected the same images in every region")
    for name in sorted(names - estimates):
        raise InputError(
            f"{results / name}: missing, expected a result for each of the {len(names)} images of the ground truth"
        )
    return _Task(measure, results, truths, names)


def _png_names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.png") if not path.name.startswith(".")}


def _worthwhile_processes(images: int) -> int:
    return max(1, min(len(os.sched_getaffinity(0)), images // _IMAGES_PER_PROCESS))


def _evaluate_images(layout: _Layout, names: list[str], processes: int) -> Iterator[_Score]:
    evaluate = partial(_evaluate_image, layout)
    if processes == 1:
        yield from map(evaluate, names)
        return
    # Not forked: the caller may hold threads and a deep-learning runtime.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield from pool.map(evaluate, names)


def _evaluate_image(layout: _Layout, name: str) -> _Score:
    tasks = [task for task in layout.tasks if name in task.names]
    objects = None if layout.objects is None else _read_objects(layout.objects / name)
    estimates = {}
    for task in tasks:
        estimates[task.measure] = _fill_measure(task.measure, task.read(task.results / name))
    height, width = next(iter(estimates.values())).known.shape
    camera = layout.camera(name, height, width)
    counts: Counts = {}
    errors = ImageErrors()
    for region in REGIONS:
        truths = {}
        for task in tasks:
            if region in task.truths:
                file = task.truths[region] / name
                truths[task.measure] = truth = task.read(file)
                _check_size(task.results / name, estimates[task.measure].known, file, truth)
                if objects is not None and layout.objects is not None:
                    _check_size(layout.objects / name, objects, file, truth)
        for measure, count in _evaluate(estimates, truths, objects).items():
            counts.setdefault(measure, {})[region] = count
        errors += _region_errors(region, estimates, truths, camera, with_bands=not errors.bands)
    return _Score(counts, errors)


def _region_errors(
    region: str,
    estimates: dict[str, _Filled],
    truths: dict[str, np.ndarray],
    camera: StereoCamera | None,
    with_bands: bool,
) -> ImageErrors:
    errors = ImageErrors()
    flow_length = magnitude(truths["Fl"]).ravel() if with_bands and "Fl" in truths else None
    for measure, truth in truths.items():
        channels = truth.shape[2:]
        unknown = truth[..., 0] if channels else truth
        places = np.flatnonzero(~np.isnan(unknown))
        true = truth.reshape(-1, *channels)[places]
        estimate = estimates[measure].values.reshape(-1, *channels)[places]
        summed_up = flow_errors if channels else disparity_errors
        errors.pixels[measure] = {region: summed_up(estimate, true)}
        if not with_bands:
            continue
        error = end_point_error(estimate, true) if channels else disparity_error(estimate, true)
        outlier = (flow_outliers if channels else disparity_outliers)(estimate, true)
        quantities = {}
        if "D1" in truths:
            disparity = truths["D1"].ravel()[places]
            if camera is None:
                quantities["disparity"] = disparity
            else:
                quantities["distance"] = depth_from_disparity(disparity, camera)
        if flow_length is not None:
            quantities["flow"] = flow_length[places]
        for quantity, values in quantities.items():
            bands = errors_by_band(error, outlier, values, BANDS[quantity])
            errors.bands[measure, quantity] = bands
    if camera is not None and truths.keys() == set(_RESULTS):
        _add_motion_errors(errors, region, estimates, truths, camera, with_bands)
    return errors


def _add_motion_errors(
    errors: ImageErrors,
    region: str,
    estimates: dict[str, _Filled],
    truths: dict[str, np.ndarray],
    camera: StereoCamera,
    with_bands: bool,
) -> None:
    known = _flow_known(truths["Fl"])
    for measure in _RESULTS:
        known &= estimates[measure].known
    rows, columns = np.nonzero(known & ~np.isnan(truths["D1"]) & ~np.isnan(truths["D2"]))

    def position_and_motion(maps: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        first, second, flow = (maps[measure][rows, columns] for measure in _RESULTS)
        points = back_project(columns, rows, depth_from_disparity(first, camera), camera)
        depth_next = depth_from_disparity(second, camera)
        moved = back_project(columns + flow[:, 0], rows + flow[:, 1], depth_next, camera)
        return points, moved - points

    points, true = position_and_motion(truths)
    _, estimate = position_and_motion({m: filled.values for m, filled in estimates.items()})
    errors.motion[region] = motion_errors(estimate, true)
    if with_bands:
        error, outlier = end_point_error(estimate, true), motion_outliers(estimate, true)
        for quantity, values in (("distance", points[:, 2]), ("motion", magnitude(true))):
            bands = errors_by_band(error, outlier, values, BANDS[quantity])
            errors.bands["3D", quantity] = bands


def _read_objects(file: Path) -> np.ndarray:
    objects = read_image(file)
    if objects.ndim != 2:
        raise InputError(f"{file}: is a colour image, expected a grey object map")
    return objects


def _check_size(file: Path, values: np.ndarray, truth_file: Path, truth: np.ndarray) -> None:
    if values.shape[:2] != truth.shape[:2]:
        raise InputError(
            f"{file}: is {values.shape[1]} x {values.shape[0]} px, "
            f"expected {truth.shape[1]} x {truth.shape[0]} px as in {truth_file}"
        )
