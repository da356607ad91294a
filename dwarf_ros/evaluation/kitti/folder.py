"""Scores of a folder of results against ground truth in KITTI's layout."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from dwarf_ros.evaluation.kitti.rules import (
    FOLDERS,
    MAPS,
    MEASURES,
    Counts,
    Filled,
    count_outliers,
    filled_map,
    flow_known,
)
from dwarf_ros.formats import read_image
from dwarf_ros.geometry import back_project, depth_from_disparity
from dwarf_ros.metrics import (
    Additive,
    BandErrors,
    MotionErrors,
    PixelErrors,
    Sparsification,
    add,
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
from dwarf_ros.recordings.kitti_layout import (
    OBJECT_FOLDER,
    REGIONS,
    TRUTH_FOLDERS,
    find_truth_folders,
)
from dwarf_ros.recordings.result_folder import (
    DISPARITY_CONFIDENCE,
    FLOW_CONFIDENCE,
    read_confidence,
    read_map,
)
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError, StereoCamera
from dwarf_ros.workers import check_workers, map_over

# Folders with the calibrations of the ground truth, and whether they are of the color cameras: KITTI 2015, KITTI 2012.
_CALIBRATIONS = {"calib_cam_to_cam": True, "calib": False}

# Folders of the confidence of each measure, beside the results.
_CONFIDENCES = {"D1": DISPARITY_CONFIDENCE, "D2": FLOW_CONFIDENCE, "Fl": FLOW_CONFIDENCE}

# Edges of the bands into which errors are sorted.
BANDS = {
    "distance": (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, np.inf),  # m
    "disparity": (0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, np.inf),  # px
    "flow": (0.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, np.inf),  # px
    "motion": (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, np.inf),  # m
}

# With fewer images per process, starting processes costs more than it saves.
_IMAGES_PER_PROCESS = 8


@dataclass(frozen=True)
class ImageErrors(Additive):
    """Error magnitudes of an image; those of two images can be added.

    Attributes:
        pixels: measure (D1, D2, Fl) -> region (occ, noc) -> errors of the filled estimate, px.
        motion: region -> errors of the 3D motion from one frame to the next relative to the camera, m, at pixels with all three
            ground truths and without filled estimates; empty without a calibration.
        bands: (measure, quantity) -> errors of region occ (else noc) by bands of a quantity in `BANDS`. The quantities are those
            of the ground truth: distance (m; without a calibration disparity, px), flow: the length of the optical flow (px),
            and motion: the length of the 3D motion (m). The measures are D1, D2 and Fl (px), and 3D, as `motion` (m).
        sparsification: measure -> region -> AUSE of the confidence, px, where there is an estimate; empty without confidence.
    """

    pixels: dict[str, dict[str, PixelErrors]] = field(default_factory=dict)
    motion: dict[str, MotionErrors] = field(default_factory=dict)
    bands: dict[tuple[str, str], BandErrors] = field(default_factory=dict)
    sparsification: dict[str, dict[str, Sparsification]] = field(default_factory=dict)


@dataclass(frozen=True)
class KittiEvaluation:
    """The scores of a folder of results.

    Attributes:
        images: counts of each image, by file name.
        skipped: measures that could not be scored, and why.
        errors: error magnitudes of each image, by file name.
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
        for counts in self.images.values():
            pooled = add(pooled, counts)
        return {measure: pooled[measure] for measure in MEASURES if measure in pooled}

    def to_dict(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Pooled per cent by measure, region and column, for JSON; skipped measures are omitted."""
        return {
            measure: {region: count.to_dict() for region, count in regions.items()}
            for measure, regions in self.pooled.items()
        }


def evaluate_folder(
    results: Path,
    ground_truth: Path,
    workers: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> KittiEvaluation:
    """Score a folder of results as submitted to KITTI.

    Every image of the ground truth must have a result; other results are ignored. A measure without results or ground truth is
    skipped. Memory does not grow with the number of images.

    Args:
        results: folder with disp_0, disp_1 and flow, or some of them: 16-bit PNG; and confidence_disparity and confidence_flow
            as of `ResultFolder.write_motion`, or none of them.
        ground_truth: folder with disp_occ_0, disp_noc_0, disp_occ_1, disp_noc_1, flow_occ, flow_noc and obj_map (KITTI
            2015), or disp_occ, disp_noc, flow_occ, flow_noc (KITTI 2012). If calib_cam_to_cam (2015) or calib (2012) has a
            calibration for every image, errors in metres are included.
        workers: as in `dwarf_ros.workers.map_over`; None: as many processes of this machine as are worthwhile.
        progress: called after each image with the number of images done and in total.

    Raises:
        InputError: a folder or an image is missing, an image is damaged or of another kind or size than its ground truth, or
            there is nothing to score.
    """
    check_workers(workers)
    if workers is not None:
        # Workers of a cluster have another working directory.
        results, ground_truth = Path(results).absolute(), Path(ground_truth).absolute()
    layout, skipped = _find_layout(Path(results), Path(ground_truth))
    names = sorted(frozenset().union(*(task.names for task in layout.tasks)))
    if workers is None:
        processes = min(len(os.sched_getaffinity(0)), len(names) // _IMAGES_PER_PROCESS)
        workers = str(processes) if processes > 1 else None
    images: dict[str, Counts] = {}
    errors: dict[str, ImageErrors] = {}
    scores = map_over(partial(_evaluate_image, layout), names, workers)
    for name, (counts, image_errors) in zip(names, scores, strict=True):
        images[name], errors[name] = counts, image_errors
        if progress is not None:
            progress(len(images), len(names))
    return KittiEvaluation(images, skipped, errors)


def read_maps(results: Path, ground_truth: Path, name: str) -> tuple[Maps, Maps, Maps]:
    """What `evaluate_folder` scores of one image.

    Args:
        results: as for `evaluate_folder`.
        ground_truth: as for `evaluate_folder`.
        name: file name of the image.

    Returns:
        the estimate (not filled), and the ground truth without and with occluded pixels, each replaced by the other if it is
        absent; each with the maps that are scored of this image.

    Raises:
        InputError: as `evaluate_folder`.
    """
    layout, _ = _find_layout(Path(results), Path(ground_truth))
    estimate: dict[str, np.ndarray] = {}
    truths: dict[str, dict[str, np.ndarray]] = {"noc": {}, "occ": {}}
    for task in layout.tasks:
        if name in task.names:
            kind = MAPS[task.measure]
            estimate[kind] = read_map(task.results / name)
            for region, other in (("noc", "occ"), ("occ", "noc")):
                folder = task.truths.get(region) or task.truths[other]
                truths[region][kind] = read_map(folder / name)
    return Maps(**estimate), Maps(**truths["noc"]), Maps(**truths["occ"])


@dataclass(frozen=True)
class _Task:
    measure: str
    results: Path
    truths: dict[str, Path]  # by region
    names: frozenset[str]


@dataclass(frozen=True)
class _Layout:
    tasks: list[_Task]
    objects: Path | None
    calibrations: tuple[Path, bool] | None  # folder, and whether they are of the color cameras

    def camera(self, name: str, height: int, width: int) -> StereoCamera | None:
        if self.calibrations is None:
            return None
        folder, color = self.calibrations
        return read_calibration(_calibration_file(folder, name), width, height, color)


def _find_layout(results: Path, ground_truth: Path) -> tuple[_Layout, dict[str, str]]:
    for folder in (results, ground_truth):
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    tasks = []
    skipped = {}
    found = find_truth_folders(ground_truth)
    for measure, subfolder in FOLDERS.items():
        estimates = _png_names(results / subfolder)
        truths = found.get(MAPS[measure], {})
        if not estimates:
            skipped[measure] = f"no PNG in {results / subfolder}"
        elif not truths:
            expected = TRUTH_FOLDERS[MAPS[measure]][0].format("occ")
            skipped[measure] = f"no {expected} in {ground_truth}"
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
    objects = ground_truth / OBJECT_FOLDER
    if not objects.is_dir():
        return _Layout(tasks, None, calibrations), skipped
    for name in sorted(names - _png_names(objects)):
        raise InputError(f"{objects / name}: missing, expected an object map for every image")
    return _Layout(tasks, objects, calibrations), skipped


def _find_calibrations(ground_truth: Path, names: frozenset[str]) -> tuple[Path, bool] | None:
    for subfolder, color in _CALIBRATIONS.items():
        folder = ground_truth / subfolder
        if all(_calibration_file(folder, name).is_file() for name in names):
            return folder, color
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


def _evaluate_image(layout: _Layout, name: str) -> tuple[Counts, ImageErrors]:
    tasks = [task for task in layout.tasks if name in task.names]
    objects = None if layout.objects is None else _read_objects(layout.objects / name)
    estimates, confidences = {}, {}
    for task in tasks:
        estimates[task.measure] = filled_map(task.measure, read_map(task.results / name))
        file = task.results.parent / _CONFIDENCES[task.measure] / name
        confidence = read_confidence(file)
        if confidence is not None:
            _check_size(file, confidence, task.results / name, estimates[task.measure].known)
            confidences[task.measure] = confidence
    height, width = next(iter(estimates.values())).known.shape
    camera = layout.camera(name, height, width)
    counts: Counts = {}
    errors = ImageErrors()
    for region in REGIONS:
        truths = {}
        for task in tasks:
            if region in task.truths:
                file = task.truths[region] / name
                truths[task.measure] = truth = read_map(file)
                _check_size(task.results / name, estimates[task.measure].known, file, truth)
                if objects is not None and layout.objects is not None:
                    _check_size(layout.objects / name, objects, file, truth)
        for measure, count in count_outliers(estimates, truths, objects).items():
            counts.setdefault(measure, {})[region] = count
        errors += _region_errors(region, estimates, truths, camera, with_bands=not errors.bands)
        errors += ImageErrors(
            sparsification={
                measure: {region: _sparsification(estimates[measure], truths[measure], confidence)}
                for measure, confidence in confidences.items()
                if measure in truths
            }
        )
    return counts, errors


def _sparsification(estimate: Filled, truth: np.ndarray, confidence: np.ndarray) -> Sparsification:
    error = (end_point_error if truth.ndim == 3 else disparity_error)(estimate.values, truth)
    return Sparsification.of(error[estimate.known], confidence[estimate.known])


def _region_errors(
    region: str,
    estimates: dict[str, Filled],
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
    if camera is not None and truths.keys() == MAPS.keys():
        _add_motion_errors(errors, region, estimates, truths, camera, with_bands)
    return errors


def _add_motion_errors(
    errors: ImageErrors,
    region: str,
    estimates: dict[str, Filled],
    truths: dict[str, np.ndarray],
    camera: StereoCamera,
    with_bands: bool,
) -> None:
    known = flow_known(truths["Fl"])
    for measure in MAPS:
        known &= estimates[measure].known
    rows, columns = np.nonzero(known & ~np.isnan(truths["D1"]) & ~np.isnan(truths["D2"]))

    def position_and_motion(maps: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        first, second, flow = (maps[measure][rows, columns] for measure in MAPS)
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
        raise InputError(f"{file}: is a color image, expected a gray object map")
    return objects


def _check_size(file: Path, values: np.ndarray, truth_file: Path, truth: np.ndarray) -> None:
    if values.shape[:2] != truth.shape[:2]:
        raise InputError(
            f"{file}: is {values.shape[1]} x {values.shape[0]} px, "
            f"expected {truth.shape[1]} x {truth.shape[0]} px as in {truth_file}"
        )
