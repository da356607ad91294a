"""Pictures and videos of results."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.evaluation.kitti.error_images import (
    disparity_error_image,
    flow_error_image,
    scene_flow_error_image,
)
from dwarf_ros.files import partial_file, refusing_unwritable
from dwarf_ros.formats import write_image
from dwarf_ros.geometry import depth_from_disparity
from dwarf_ros.progress import Progress, counted
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.types import InputError
from dwarf_ros.viewing.motion import MotionHistory
from dwarf_ros.viewing.results import Result, Results
from dwarf_ros.visualization.birds_eye import seen_from_above
from dwarf_ros.visualization.colors import (
    confidence_color,
    depth_color,
    disparity_color,
    disparity_scale,
    flow_color,
    flow_scale,
)
from dwarf_ros.visualization.drawing import over_dimmed, resized, side_by_side, stacked, titled
from dwarf_ros.visualization.error_maps import error_legend
from dwarf_ros.visualization.legends import (
    UNKNOWN_NOTE,
    Key,
    confidence_legend,
    depth_legend,
    disparity_legend,
    flow_legend,
    flow_strip,
    symbol_legend,
)
from dwarf_ros.visualization.objects import (
    MOVING_COLOR,
    draw_objects,
    motion_note,
    no_motion_reason,
    object_color,
    paint_motion_mask,
)
from dwarf_ros.visualization.panels import Scales, scene_flow_panel, valid_maps

PANEL_WIDTH = 1280
# Frame rate of a video if the times of the results are unknown.
DEFAULT_RATE_HZ = 5.0
_MARGIN = 12
_KEY_SIZE = 320
_SMOOTH = cv2.INTER_AREA


def picture_of(result: Result, kind: str = "panel", width: int = PANEL_WIDTH) -> np.ndarray:
    """Picture of a result with a title and a legend.

    Args:
        result: what to show.
        kind: one of `KINDS`.
        width: of a panel, px; the other pictures have the width of the images.

    Returns:
        uint8 RGB.

    Raises:
        InputError: the kind is unknown, or the result lacks what it needs.
    """
    if kind not in KINDS:
        raise InputError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    missing = _missing(result, kind)
    if missing:
        raise InputError(f"{result.name}: no picture of kind {kind}: {missing}")
    return panel(result, width) if kind == "panel" else _DRAWN[kind](result)


def kinds_of(result: Result) -> list[str]:
    """The kinds of picture that can be drawn of a result."""
    return [kind for kind in KINDS if not _missing(result, kind)]


def _missing(result: Result, kind: str) -> str:
    """What is missing for a picture of that kind; "" if nothing is."""
    if kind == "left" and result.left is None:
        return "no left image, expected the images of the results"
    if kind in ("depth", "above") and result.scene_flow.camera is None:
        return "no calibration, expected images with one"
    if kind == "moving" and result.left is None:
        return "no left image, expected the images of the results"
    if kind == "moving" and result.scene_flow.motion_mask is None:
        return f"no ego-motion ({no_motion_reason(result.scene_flow.ego_motion)}), expected refined estimates"
    if kind == "confidence" and result.scene_flow.confidence is None:
        return "no confidence, expected refined estimates"
    if kind == "errors" and result.truth is None:
        return "no ground truth for it"
    return ""


def panel(result: Result, width: int = PANEL_WIDTH, scales: Scales | None = None) -> np.ndarray:
    """All of a result in one picture, with error maps below if there is ground truth; uint8 RGB, `width` px wide."""
    sheet = scene_flow_panel(
        result.left,
        result.scene_flow,
        result.name,
        result.estimator,
        width,
        scales,
        result.objects,
        result.trajectory,
    )
    if result.truth is None:
        return sheet
    errors = _errors(result, (width - 3 * _MARGIN) // 2)
    below = np.full((errors.shape[0] + _MARGIN, width, 3), sheet[0, 0], dtype=np.uint8)
    below[: errors.shape[0], _MARGIN : _MARGIN + errors.shape[1]] = errors
    return np.vstack([sheet, below])


def _left(result: Result) -> np.ndarray:
    assert result.left is not None
    return result.left


def _disparity(result: Result) -> np.ndarray:
    disparity, _ = valid_maps(result.scene_flow)
    largest = disparity_scale(disparity)
    legend = disparity_legend(disparity.shape[1], largest, result.scene_flow.camera)
    picture = titled(_shown(result, disparity_color(disparity, largest)), "Disparity", result.name)
    return np.vstack([picture, legend])


def _depth(result: Result) -> np.ndarray:
    camera = result.scene_flow.camera
    assert camera is not None
    depth = depth_from_disparity(valid_maps(result.scene_flow)[0], camera)
    known = depth[np.isfinite(depth)]
    farthest = nice_number(min(100.0, float(np.percentile(known, 95)))) if known.size else 100.0
    colors = over_dimmed(depth_color(depth, farthest), np.isfinite(depth), result.left)
    picture = titled(colors, "Depth", result.name)
    return np.vstack([picture, depth_legend(depth.shape[1], farthest)])


def _flow(result: Result) -> np.ndarray:
    _, flow = valid_maps(result.scene_flow)
    fastest = flow_scale(flow)
    dt = abs(result.scene_flow.dt) * 1e3
    note = f"{result.name}, in {dt:.0f} ms" if dt else result.name
    strip = flow_strip(flow.shape[1], fastest, UNKNOWN_NOTE if result.left is not None else "")
    return np.vstack(
        [titled(_shown(result, flow_color(flow, fastest)), "Optical flow", note), strip]
    )


def _shown(result: Result, colors: np.ndarray) -> np.ndarray:
    return over_dimmed(colors, result.scene_flow.valid, result.left)


def _key(result: Result) -> np.ndarray:
    return flow_legend(_KEY_SIZE, flow_scale(valid_maps(result.scene_flow)[1]))


def _above(result: Result) -> np.ndarray:
    return seen_from_above(result.scene_flow, 720, 780, result.objects, result.trajectory)


def moving_picture(result: Result) -> np.ndarray:
    """Left image with the motion mask and the moving objects, a title and a legend; uint8 RGB.

    Args:
        result: with a left image and a motion mask.
    """
    left, scene_flow = result.left, result.scene_flow
    assert left is not None
    assert scene_flow.motion_mask is not None
    painted = paint_motion_mask(left, scene_flow.motion_mask)
    marked = draw_objects(painted, result.objects, left.shape[:2], tint=0.0)
    keys: list[Key] = [
        ("square", MOVING_COLOR, "moving"),
        ("square", (128, 128, 128), "bright: static, dimmed: unknown"),
        ("box", object_color(0), "object: id, speed over ground"),
    ]
    return np.vstack(
        [
            titled(
                marked, f"Moving objects, {result.name}", motion_note(scene_flow, result.objects)
            ),
            symbol_legend(left.shape[1], keys),
        ]
    )


def _confidence(result: Result) -> np.ndarray:
    confidence = result.scene_flow.confidence
    assert confidence is not None
    colors = over_dimmed(confidence_color(confidence), np.isfinite(confidence), result.left)
    picture = titled(colors, "Confidence", "0: likely wrong, 1: certain")
    return np.vstack([picture, confidence_legend(confidence.shape[1])])


def _errors(result: Result, width: int | None = None) -> np.ndarray:
    """The benchmark's error images, two per row, above their color bar; each `width` px wide, or as wide as fits a page."""
    pictures = []
    for name, image in _error_images(result):
        wide = width or min(image.shape[1], (PANEL_WIDTH - _MARGIN) // 2)
        if wide != image.shape[1]:
            image = resized(image, wide, round(image.shape[0] * wide / image.shape[1]))
        pictures.append(titled(image, f"{name} error", "darkened: occluded"))
    rows = [side_by_side(pictures[i : i + 2], _MARGIN) for i in range(0, len(pictures), 2)]
    return np.vstack([stacked(rows, _MARGIN), error_legend(max(row.shape[1] for row in rows))])


def _error_images(result: Result) -> list[tuple[str, np.ndarray]]:
    assert result.truth is not None
    flow = result.scene_flow
    estimate = Maps(flow.disparity, flow.disparity_next, flow.flow)
    occ, noc = _regions(result.truth)
    images = []
    for name, kind in (("Disparity", "disparity"), ("Next disparity", "disparity_next")):
        if getattr(occ, kind) is not None:
            maps = (getattr(one, kind) for one in (estimate, noc, occ))
            images.append((name, disparity_error_image(*maps)))
    if occ.flow is not None and noc.flow is not None:
        images.append(("Optical flow", flow_error_image(flow.flow, noc.flow, occ.flow)))
    if all(values is not None for maps in (occ, noc) for values in vars(maps).values()):
        images.append(("Scene flow", scene_flow_error_image(estimate, noc, occ)))
    return images


def _regions(truth: SampleTruth) -> tuple[Maps, Maps]:
    """Ground truth with and without occluded pixels; the same twice if they are not distinguished."""
    noc = truth.noc or Maps()
    seen = {kind: getattr(noc, kind) for kind in vars(noc)}
    whole = vars(truth.occ)
    return truth.occ, Maps(**{k: whole[k] if seen[k] is None else seen[k] for k in seen})


_DRAWN: dict[str, Callable[[Result], np.ndarray]] = {
    "left": _left,
    "disparity": _disparity,
    "depth": _depth,
    "flow": _flow,
    "key": _key,
    "above": _above,
    "moving": moving_picture,
    "confidence": _confidence,
    "errors": _errors,
}
KINDS = ("panel", *_DRAWN)
"""The kinds of picture. `key` is the legend of optical flow, `above` the scene from above, `moving` the motion mask
and the moving objects. `depth` and `above` need a calibration, `left` and `moving` the images, `moving` and `confidence`
refined estimates, and `errors` ground truth."""


def write_pictures(
    results: Results,
    out: Path,
    kinds: Sequence[str] = ("panel",),
    progress: Progress | None = None,
) -> list[Path]:
    """Draw results into files.

    Args:
        results: what to show; only the first one if `out` is a file.
        out: a file (.png or .jpg) for one picture, else a folder for NAME_KIND.png of each result, created if missing.
        kinds: of picture, from `KINDS`; "all" draws every kind that is possible for the result.
        progress: receives the number of results done and the total.

    Returns:
        The files.

    Raises:
        InputError: `out` cannot be written or is a file although several kinds are requested; and as `picture_of`.
    """
    as_file = out.suffix.lower() in (".png", ".jpg", ".jpeg")
    if as_file and (len(kinds) != 1 or "all" in kinds):
        raise InputError(f"out: {out} is a file for one picture, expected a folder for several")
    for kind in kinds:
        if kind not in (*KINDS, "all"):
            raise InputError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)} or all")
    with refusing_unwritable(out):
        (out.parent if as_file else out).mkdir(parents=True, exist_ok=True)
        if as_file:
            write_image(out, picture_of(MotionHistory().add(results.read(0)), kinds[0]))
            return [out]
        files, history = [], MotionHistory()
        for result in map(history.add, counted(results, len(results), progress)):
            for kind in kinds_of(result) if "all" in kinds else kinds:
                files.append(out / f"{result.name}_{kind}.png")
                write_image(files[-1], picture_of(result, kind))
        return files


def write_video(
    results: Results,
    out: Path,
    rate_hz: float | None = None,
    width: int = PANEL_WIDTH,
    progress: Progress | None = None,
) -> int:
    """Write the panels of results as a video: VP9 in MP4, which browsers, VLC and FFmpeg play.

    The scales of the colors change only when the motion in the scene changes considerably. Objects keep their ids.

    Args:
        results: what to show.
        out: file that ends in .mp4; it is written atomically.
        rate_hz: frame rate; None: that of the results, or `DEFAULT_RATE_HZ` if their times are unknown.
        width: of the video, px; odd widths are reduced by one pixel.
        progress: receives the number of results done and the total.

    Returns:
        Number of frames.

    Raises:
        InputError: `out` cannot be written, the rate or width is out of range, or this OpenCV has no encoder for it.
    """
    if out.suffix.lower() != ".mp4":
        raise InputError(f"out: {out}: expected a file that ends in .mp4")
    if rate_hz is not None and not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"rate_hz: {rate_hz:g} Hz, expected > 0 Hz")
    if width < 320:
        raise InputError(f"width: {width} px, expected at least 320 px")
    writer, scales, size, history = None, None, (0, 0), MotionHistory()
    drawn = 0
    with refusing_unwritable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    # OpenCV chooses the container by the suffix.
    with partial_file(out, ".mp4") as partial:
        for result in map(history.add, counted(results, len(results), progress)):
            scales = steady_scales(result, scales)
            picture = panel(result, width, scales)
            if writer is None:
                size = (picture.shape[1] & ~1, picture.shape[0] & ~1)
                dt = abs(result.scene_flow.dt)
                writer = _writer(partial, rate_hz or (1 / dt if dt else DEFAULT_RATE_HZ), size, out)
            if picture.shape[1::-1] != size:
                picture = cv2.resize(picture, size, None, 0, 0, _SMOOTH)
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            drawn += 1
        assert writer is not None
        writer.release()
        # The encoder does not report a full disk.
        written = _count_frames(partial)
        if written != drawn:
            raise InputError(
                f"{out}: {written} of {drawn} frames could be written, expected space for all on the disk"
            )
    return written


def _count_frames(file: Path) -> int:
    """Number of frames of a video that can be decoded."""
    video = cv2.VideoCapture(str(file))
    count = 0
    while video.grab():
        count += 1
    video.release()
    return count


def _writer(file: Path, rate_hz: float, size: tuple[int, int], out: Path) -> cv2.VideoWriter:
    # FFmpeg would report a damaged file itself; -8 is its AV_LOG_QUIET.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    file.touch()
    codec = cv2.VideoWriter.fourcc(*"vp09")
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, codec, rate_hz, size)
    if not writer.isOpened():
        raise InputError(
            f"{out}: OpenCV {cv2.__version__} has no encoder for VP9 in MP4, expected one with FFmpeg and libvpx "
            "(pip install opencv-python-headless)"
        )
    return writer


def steady_scales(result: Result, before: Scales | None) -> Scales:
    """Scales for the next result of a sequence: the previous ones while they roughly fit, else the next round numbers."""
    disparity, flow = valid_maps(result.scene_flow)
    return Scales(
        _steady(disparity_scale(disparity), before.disparity if before else 0.0),
        _steady(flow_scale(flow), before.flow if before else 0.0),
    )


def _steady(wanted: float, before: float) -> float:
    return before if 0.4 * before <= wanted <= 1.15 * before else nice_number(wanted)


def nice_number(value: float) -> float:
    """The smallest number of the form (1, 1.5, 2, 3, 4, 5, 6 or 8) x 10^n that is at least `value`, > 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= value * 0.999)
