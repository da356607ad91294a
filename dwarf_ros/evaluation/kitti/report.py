"""Scores of a folder of KITTI results for people and programs: a table on the terminal, JSON, CSV and an HTML page."""

from __future__ import annotations

import csv
import datetime
import io
import json as json_format
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from dwarf_ros.evaluation.charts import Chart, Series
from dwarf_ros.evaluation.kitti.error_images import (
    disparity_error_image,
    flow_error_image,
    scene_flow_error_image,
)
from dwarf_ros.evaluation.kitti.folder import (
    ImageErrors,
    KittiEvaluation,
    evaluate_folder,
    read_maps,
)
from dwarf_ros.evaluation.kitti.published import PUBLISHED
from dwarf_ros.evaluation.kitti.rules import MEASURES, Counts
from dwarf_ros.evaluation.report import (
    ColorScale,
    Figure,
    Frame,
    Picture,
    Report,
    Table,
    Value,
    write_report,
)
from dwarf_ros.files import write_atomically
from dwarf_ros.formats import read_image
from dwarf_ros.inference.predict import RECORD
from dwarf_ros.metrics import BandErrors, PixelErrors
from dwarf_ros.recordings.kitti_layout import REGIONS
from dwarf_ros.types import InputError, as_rgb8
from dwarf_ros.visualization.colors import disparity_color, disparity_scale, flow_color, flow_scale
from dwarf_ros.visualization.error_maps import ERROR_COLORS, ERROR_EDGES

if TYPE_CHECKING:
    from rich.console import Console

_NAMES = {
    "D1": "disparity",
    "D2": "disparity of the next frame",
    "Fl": "optical flow",
    "SF": "scene flow",
}
_COLUMNS = ("bg", "bg_est", "fg", "fg_est", "all", "all_est", "density")
_QUANTITIES = {
    "distance": ("distance", "m"),
    "disparity": ("true disparity", "px"),
    "flow": ("length of the true optical flow", "px"),
    "motion": ("true 3D motion", "m"),
}
# Where a KITTI folder keeps the reference frame's left image: 2015's, 2012's in color, 2012's in grey.
_IMAGES = ("image_2", "colored_0", "image_0")


def evaluate(
    results: Path,
    ground_truth: Path,
    json: Path | None = None,
    csv: Path | None = None,
    html: Path | None = None,
    workers: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    method: str = "",
    date: datetime.date | None = None,
) -> KittiEvaluation:
    """Score a folder of results as submitted to KITTI, and write what was asked for once all of it is scored.

    Args:
        results: as for `kitti.evaluate_folder`.
        ground_truth: the same.
        json: file for the pooled per cent of outliers, as `KittiEvaluation.to_dict` gives them.
        csv: file for the table of `csv_text`.
        html: file for the page of `kitti_report`.
        workers: as for `kitti.evaluate_folder`.
        progress: the same.
        method: what computed the results, for the page; "": what `dwarf predict` recorded there, else the folder's name.
        date: for the page; None: today.

    Raises:
        InputError: as `kitti.evaluate_folder`, or a file cannot be written; then none of them is written if its folder
            is missing.
    """
    for file in (json, csv, html):
        if file is not None and not file.parent.is_dir():
            raise InputError(
                f"{file}: no such folder {file.parent}, expected one to write the file to"
            )
        if file is not None and file.is_dir():
            raise InputError(f"{file}: is a folder, expected a file to write")
    evaluation = evaluate_folder(results, ground_truth, workers, progress)
    if json is not None:
        write_atomically(json, (json_format.dumps(evaluation.to_dict(), indent=2) + "\n").encode())
    if csv is not None:
        write_atomically(csv, csv_text(evaluation).encode())
    if html is not None:
        report = kitti_report(
            evaluation,
            results,
            ground_truth,
            method or _recorded_method(results) or Path(results).resolve().name,
            date or datetime.date.today(),
        )
        write_report(html, report)
    return evaluation


def print_table(evaluation: KittiEvaluation, console: Console | None = None) -> None:
    """Print the scores, pooled over all images, and what was skipped, on the terminal (a rich Console; None: stdout)."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = console or Console()
    table = RichTable(title=f"Outliers in % over {_images(len(evaluation.images))}")
    for name in ("", "pixels", "bg", "fg", "all", "all_est", "density %", "EPE px", "AUSE px"):
        table.add_column(name, justify="right" if name not in ("", "pixels") else "left")
    errors = evaluation.pooled_errors
    for measure, regions in evaluation.pooled.items():
        for region, counts in regions.items():
            rates = counts.to_dict()
            shown = [rates[column] for column in ("bg", "fg", "all", "all_est", "density")]
            pixels = errors.pixels.get(measure, {}).get(region)
            shown.append(pixels.mean if pixels else None)
            shown.append(_sparsification(errors, measure, region))
            table.add_row(measure, region, *map(_text, shown), end_section=region == [*regions][-1])
    console.print(table)
    for region, motion in errors.motion.items():
        console.print(
            f"3D motion, {region}: EPE {motion.mean:.3f} m, {motion.accuracy_strict:.2f} % within 5 cm or 5 %, "
            f"{motion.accuracy_relaxed:.2f} % within 10 cm or 10 %, over {motion.points} points",
            highlight=False,
            soft_wrap=True,
        )
    for measure, reason in evaluation.skipped.items():
        console.print(f"{measure} skipped: {reason}", highlight=False, markup=False, soft_wrap=True)


def csv_text(evaluation: KittiEvaluation) -> str:
    """The scores as comma-separated values: one line for each image, measure and region, and for all images together.

    Columns: image ("all images" for the pooled lines, which come first), measure (D1, D2, Fl, SF, and 3D for the 3D
    motion), region (occ, noc), per cent of outliers bg, bg_est, fg, fg_est, all, all_est, density in %, epe (px; m for 3D),
    over_1px, over_3px, over_5px (%), within_5cm, within_10cm (% of points, as FlowNet3D's Acc3DS and Acc3DR), ause (px,
    mean over images). Empty where there is nothing to say.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    sizes = ("epe", "over_1px", "over_3px", "over_5px", "within_5cm", "within_10cm", "ause")
    writer.writerow(["image", "measure", "region", *_COLUMNS, *sizes])
    entries = [("all images", evaluation.pooled, evaluation.pooled_errors)]
    entries += [(n, c, evaluation.errors[n]) for n, c in evaluation.images.items()]
    for image, scores, errors in entries:
        for measure, regions in scores.items():
            for region, counts in regions.items():
                rates = counts.to_dict()
                numbers = [rates[column] for column in _COLUMNS]
                numbers += _sizes(errors.pixels.get(measure, {}).get(region))
                numbers += [None, None, _sparsification(errors, measure, region)]
                writer.writerow([image, measure, region, *map(_csv_number, numbers)])
        for region, motion in errors.motion.items():
            figures = (motion.mean, motion.accuracy_strict, motion.accuracy_relaxed)
            epe, strict, relaxed = map(_csv_number, figures)
            blank = [""] * len(_COLUMNS)
            writer.writerow([image, "3D", region, *blank, epe, "", "", "", strict, relaxed, ""])
    return out.getvalue()


def kitti_report(
    evaluation: KittiEvaluation, results: Path, ground_truth: Path, method: str, date: datetime.date
) -> Report:
    """What the HTML page shows of an evaluation.

    Args:
        evaluation: of these results against this ground truth.
        results: read again for the pictures.
        ground_truth: the same; its image_2, colored_0 or image_0 are shown where they are there.
        method: what computed the results.
        date: of the evaluation.
    """
    pooled, errors = evaluation.pooled, evaluation.pooled_errors
    frames = [
        Frame(
            Path(name).stem,
            _frame_values(evaluation, name, pooled, errors),
            partial(_pictures, Path(results), Path(ground_truth), name),
        )
        for name in evaluation.images
    ]
    return Report(
        title=f"KITTI evaluation of {method}",
        subtitle=f"{results} against {ground_truth}, {_images(len(evaluation.images))}, {date.isoformat()}",
        figures=_figures(evaluation),
        notes=_notes(evaluation),
        tables=_tables(evaluation, method),
        charts=_charts(errors.bands),
        frame_columns=_frame_columns(pooled, errors),
        frames=frames,
        sort_column=len(pooled) - 1,
        picture_note=(
            "Error images as the benchmark draws them: blue is within 3 px or 5 %, yellow to red is an outlier, on a "
            "logarithmic scale; occluded pixels at half brightness, black without ground truth."
        ),
        color_scales=[_error_scale()],
    )


def _recorded_method(results: Path) -> str:
    """Estimator and engine of results that `dwarf predict` made; "" for others."""
    try:
        record = json_format.loads((results / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    if not isinstance(record, dict) or "estimator" not in record:
        return ""
    return f"{record['estimator']} on {record.get('engine')}"


def _figures(evaluation: KittiEvaluation) -> list[Figure]:
    figures = []
    for measure, regions in evaluation.pooled.items():
        region = _whole(regions)
        occluded = "all pixels" if region == "occ" else "pixels that are not occluded"
        note = f"outliers, {_NAMES[measure]}, {occluded}"
        figures.append(Figure(measure, regions[region].all.percent, "%", note))
    motion = evaluation.pooled_errors.motion
    if motion:
        region = _whole(motion)
        figures.append(
            Figure("3D EPE", motion[region].mean, "m", "mean error of the 3D motion", decimals=3)
        )
        figures.append(
            Figure("Acc3DS", motion[region].accuracy_strict, "%", "within 5 cm or 5 % of the truth")
        )
    return figures


def _notes(evaluation: KittiEvaluation) -> list[str]:
    notes = [f"{measure} was skipped: {reason}." for measure, reason in evaluation.skipped.items()]
    notes.append(
        "An outlier is off by more than 3 px and more than 5 %; SF counts a pixel that is one in D1, D2 or Fl. occ: all pixels "
        "with ground truth; noc: those that are not occluded; bg: background; fg: moving objects; est: only where there "
        "was an estimate. Gaps are filled before scoring, as the benchmark's development kit does."
    )
    notes.append("EPE is the mean end-point error in px over the same pixels, gaps filled as well.")
    if evaluation.pooled_errors.motion:
        notes.append(
            "3D motion is that of each point from one frame to the next, relative to the camera, where all three ground truths "
            "are known and nothing had to be filled. Acc3DS: within 5 cm or 5 %; Acc3DR: within 10 cm or 10 %; Outliers3D: "
            "off by more than 30 cm or 10 % (FlowNet3D, PointPWC-Net)."
        )
    else:
        notes.append(
            "No errors in meters: they need D1, D2, Fl and a calibration of every image beside the ground truth."
        )
    return notes


def _tables(evaluation: KittiEvaluation, method: str) -> list[Table]:
    pooled, errors = evaluation.pooled, evaluation.pooled_errors
    outliers: list[list[Value]] = []
    sizes: list[list[Value]] = []
    rates = [c.to_dict() for regions in pooled.values() for c in regions.values()]
    # Without a map of objects there is neither background nor foreground.
    shown = [column for column in _COLUMNS if any(row[column] is not None for row in rates)]
    for measure, regions in pooled.items():
        for region, counts in regions.items():
            row = counts.to_dict()
            outliers.append([measure, region, *(row[column] for column in shown)])
    for measure, by_region in errors.pixels.items():
        for region, pixels in by_region.items():
            ause = _sparsification(errors, measure, region)
            sizes.append([measure, region, *_sizes(pixels), pixels.pixels, ause])
    tables = [
        Table(
            "Outliers",
            ["measure", "pixels", *(f"{column} [%]" for column in shown)],
            outliers,
            "Pooled over all pixels of all images.",
            emphasized=[place for place, row in enumerate(outliers) if row[0] == "SF"],
        ),
        Table(
            "End-point errors",
            [
                "measure",
                "pixels",
                "EPE [px]",
                "> 1 px [%]",
                "> 3 px [%]",
                "> 5 px [%]",
                "counted",
                "AUSE [px]",
            ],
            sizes,
            "AUSE: area under the sparsification error of the confidence, mean over images; 0 if the confidence falls wherever "
            "the error rises. Pixels that had to be filled do not count."
            if errors.sparsification
            else "",
        ),
    ]
    if errors.motion:
        rows: list[list[Value]] = [
            [region, m.mean, m.accuracy_strict, m.accuracy_relaxed, m.outlier_rate, m.points]
            for region, m in errors.motion.items()
        ]
        columns = ["pixels", "EPE3D [m]", "Acc3DS [%]", "Acc3DR [%]", "Outliers3D [%]", "points"]
        tables.append(Table("3D motion", columns, rows, decimals=3))
    tables.append(_published_table(evaluation, method))
    return tables


def _published_table(evaluation: KittiEvaluation, method: str) -> Table:
    own: list[Value] = [method]
    for measure in MEASURES:
        regions = evaluation.pooled.get(measure)
        own.append(regions[_whole(regions)].all.percent if regions else None)
    own.append("this evaluation")
    rows: list[list[Value]] = [own]
    for other in PUBLISHED:
        source = f"{other.source} ({other.note})" if other.note else other.source
        rows.append([other.method, other.D1, other.D2, other.Fl, other.SF, source])
    return Table(
        "Beside published figures",
        ["method", *(f"{measure} [%]" for measure in MEASURES), "source"],
        rows,
        "The published figures are of KITTI 2015's test images, over all pixels, as their sources state them; a comparison "
        "holds as far as the images evaluated here are alike.",
        emphasized=[0],
    )


def _charts(bands: dict[tuple[str, str], BandErrors]) -> list[Chart]:
    charts = []
    for quantity, (name, unit) in _QUANTITIES.items():
        by_measure = {m: b for (m, q), b in bands.items() if q == quantity}
        in_px = {m: b for m, b in by_measure.items() if m != "3D"}
        in_meters = {m: b for m, b in by_measure.items() if m == "3D"}
        label = f"{name} [{unit}]"
        if in_px:
            series = [_series(m, b, b.outlier_rates) for m, b in in_px.items()]
            charts.append(
                Chart(f"Outliers by {name}", "bar", label, "outliers [%]", series, _counted(in_px))
            )
            series = [_series(m, b, b.means) for m, b in in_px.items()]
            charts.append(Chart(f"End-point error by {name}", "bar", label, "EPE [px]", series))
        if in_meters:
            series = [_series("3D motion", b, b.means) for b in in_meters.values()]
            note = _counted(in_meters)
            title = f"Error of the 3D motion by {name}"
            charts.append(Chart(title, "bar", label, "EPE [m]", series, note))
    return charts


def _series(name: str, bands: BandErrors, values: tuple[float, ...]) -> Series:
    return Series(name, _band_names(bands.edges), values)


def _band_names(edges: tuple[float, ...]) -> list[str]:
    names = [f"{low:g}–{high:g}" for low, high in pairwise(edges)]
    if math.isinf(edges[-1]):
        names[-1] = f"≥ {edges[-2]:g}"
    return names


def _counted(by_measure: dict[str, BandErrors]) -> str:
    """How many pixels each band has, so that nobody trusts a band of a few."""
    bands = next(iter(by_measure.values()))
    counts = zip(_band_names(bands.edges), bands.pixels, strict=True)
    return "Pixels: " + ", ".join(f"{name}: {_short(pixels)}" for name, pixels in counts) + "."


def _short(count: int) -> str:
    if count >= 10_000_000:
        return f"{count / 1e6:.0f} M"
    return f"{count / 1e3:.0f} k" if count >= 10_000 else str(count)


def _frame_columns(pooled: Counts, errors: ImageErrors) -> list[str]:
    columns = [f"{measure} [%]" for measure in pooled]
    columns += [f"{measure} EPE [px]" for measure in errors.pixels]
    return [*columns, "3D EPE [m]"] if errors.motion else columns


def _frame_values(
    evaluation: KittiEvaluation, name: str, pooled: Counts, pooled_errors: ImageErrors
) -> list[Value]:
    counts, errors = evaluation.images[name], evaluation.errors[name]
    values: list[Value] = []
    for measure in pooled:
        regions = counts.get(measure)
        values.append(regions[_whole(regions)].all.percent if regions else None)
    for measure in pooled_errors.pixels:
        by_region = errors.pixels.get(measure)
        values.append(by_region[_whole(by_region)].mean if by_region else None)
    if pooled_errors.motion:
        values.append(errors.motion[_whole(errors.motion)].mean if errors.motion else None)
    return values


def _pictures(results: Path, ground_truth: Path, name: str) -> list[Picture]:
    estimate, noc, occ = read_maps(results, ground_truth, name)
    pictures = []
    candidates = [ground_truth / folder / name for folder in _IMAGES]
    for file in [candidate for candidate in candidates if candidate.is_file()][:1]:
        pictures.append(Picture("left image", as_rgb8(read_image(file), str(file))))
    for measure, key in (("D1", "disparity"), ("D2", "disparity_next")):
        value, true_noc, true_occ = (getattr(maps, key) for maps in (estimate, noc, occ))
        if value is not None:
            largest = disparity_scale(true_occ)
            caption = f"{_NAMES[measure]}, brightest at {largest:.0f} px"
            pictures.append(Picture(caption, disparity_color(value, largest)))
            error = disparity_error_image(value, true_noc, true_occ)
            pictures.append(Picture(f"{measure} error", error))
    if estimate.flow is not None and noc.flow is not None and occ.flow is not None:
        largest = flow_scale(occ.flow)
        caption = f"{_NAMES['Fl']}, full color at {largest:.0f} px"
        pictures.append(Picture(caption, flow_color(estimate.flow, largest)))
        pictures.append(Picture("Fl error", flow_error_image(estimate.flow, noc.flow, occ.flow)))
    if all(one is not None for one in vars(occ).values()):
        # Beside the left image, where there is one; the others stand in pairs.
        place = len(pictures) % 2
        error = scene_flow_error_image(estimate, noc, occ)
        pictures.insert(place or len(pictures), Picture("SF error", error))
    return pictures


def _error_scale() -> ColorScale:
    edges = [f"{3 * edge:.2g}" for edge in ERROR_EDGES]
    labels = [f"< {edges[0]}", *(f"{a}–{b}" for a, b in pairwise(edges))]
    labels.append(f"≥ {edges[-1]}")
    colors = [(int(r), int(g), int(b)) for r, g, b in ERROR_COLORS]
    return ColorScale(
        "Error in px up to a magnitude of 60 px; above it, 5 % count as 3 px", colors, labels
    )


def _whole(regions: dict) -> str:
    """The region that stands for all pixels: occ where it is there."""
    return next(region for region in REGIONS if region in regions)


def _sizes(errors: PixelErrors | None) -> list[float | None]:
    if errors is None:
        return [None] * 4
    return [errors.mean, errors.rate_1, errors.rate_3, errors.rate_5]


def _sparsification(errors: ImageErrors, measure: str, region: str) -> float | None:
    """AUSE of the confidence, px; None without confidence."""
    found = errors.sparsification.get(measure, {}).get(region)
    return None if found is None or not found.images else found.mean


def _text(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.2f}"


def _csv_number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"
