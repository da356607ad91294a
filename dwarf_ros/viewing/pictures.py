"""Pictures and videos of results: what `dwarf picture` and `dwarf video` make."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.evaluation.kitti.rules import (
    disparity_error_image,
    flow_error_image,
    scene_flow_error_image,
)
from dwarf_ros.files import partial_file, refusing_unwritable
from dwarf_ros.formats import write_image
from dwarf_ros.geometry import depth_from_disparity
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.types import InputError
from dwarf_ros.viewing.results import Result, Results
from dwarf_ros.visualization.birds_eye import has_motion, seen_from_above
from dwarf_ros.visualization.colors import (
    depth_color,
    disparity_color,
    disparity_scale,
    flow_color,
    flow_scale,
)
from dwarf_ros.visualization.drawing import side_by_side, stacked, titled
from dwarf_ros.visualization.error_maps import error_legend
from dwarf_ros.visualization.legends import (
    depth_legend,
    disparity_legend,
    flow_legend,
    with_flow_wheel,
)
from dwarf_ros.visualization.panels import Scales, scene_flow_panel, valid_maps

PANEL_WIDTH = 1280
# Frames a second of a video of results whose times are not known.
DEFAULT_RATE_HZ = 5.0
# Speed over ground of the last colour of a video, m/s.
_FASTEST = 20.0
_MARGIN = 12
_KEY_SIZE = 320
_SMOOTH = cv2.INTER_AREA


def picture_of(result: Result, kind: str = "panel", width: int = PANEL_WIDTH) -> np.ndarray:
    """Picture of a result with its title, and its legend or scale bar.

    Args:
        result: what is shown.
        kind: one of `KINDS`.
        width: of a panel, px; the other pictures have the images' width.

    Returns:
        uint8 RGB.

    Raises:
        InputError: no such kind, or the result has not what it takes.
    """
    if kind not in KINDS:
        raise InputError(f"--kind: {kind!r} is unknown, expected {', '.join(KINDS)}")
    missing = _missing(result, kind)
    if missing:
        raise InputError(f"--kind: no {kind} of {result.name}: {missing}")
    return panel(result, width) if kind == "panel" else _DRAWN[kind](result)


def kinds_of(result: Result) -> list[str]:
    """The kinds of picture that there can be of a result."""
    return [kind for kind in KINDS if not _missing(result, kind)]


def _missing(result: Result, kind: str) -> str:
    """What a picture of that kind would take, in words; "" where nothing is missing."""
    if kind == "left" and result.left is None:
        return "no images, expected --images"
    if kind == "depth" and result.scene_flow.camera is None:
        return "no calibration, expected --images with one"
    if kind == "above" and not has_motion(result.scene_flow):
        return "no calibration or hardly a valid pixel, expected --images with one"
    if kind == "errors" and result.truth is None:
        return "no ground truth, expected --ground-truth with some for it"
    return ""


def panel(result: Result, width: int = PANEL_WIDTH, scales: Scales | None = None) -> np.ndarray:
    """All of a result in one picture, with error maps below where there is ground truth; uint8 RGB, width wide."""
    sheet = scene_flow_panel(
        result.left, result.scene_flow, result.name, result.estimator, width, scales=scales
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
    picture = titled(disparity_color(disparity, largest), "Disparity", result.name)
    return np.vstack([picture, legend])


def _depth(result: Result) -> np.ndarray:
    camera = result.scene_flow.camera
    assert camera is not None
    depth = depth_from_disparity(valid_maps(result.scene_flow)[0], camera)
    known = depth[np.isfinite(depth)]
    farthest = nice_number(min(100.0, float(np.percentile(known, 95)))) if known.size else 100.0
    picture = titled(depth_color(depth, farthest), "Depth", result.name)
    return np.vstack([picture, depth_legend(depth.shape[1], farthest)])


def _flow(result: Result) -> np.ndarray:
    _, flow = valid_maps(result.scene_flow)
    fastest = flow_scale(flow)
    dt = abs(result.scene_flow.dt) * 1e3
    note = f"{result.name}, in {dt:.0f} ms" if dt else result.name
    return titled(with_flow_wheel(flow_color(flow, fastest), fastest), "Optical flow", note)


def _key(result: Result) -> np.ndarray:
    return flow_legend(_KEY_SIZE, flow_scale(valid_maps(result.scene_flow)[1]))


def _above(result: Result) -> np.ndarray:
    return seen_from_above(result.scene_flow, 720, 720)


def _errors(result: Result, width: int | None = None) -> np.ndarray:
    """The benchmark's error images, two in a row, over their scale; each of that width, px, or as it is."""
    pictures = []
    for name, image in _error_images(result):
        if width is not None:
            height = round(image.shape[0] * width / image.shape[1])
            image = cv2.resize(image, (width, height), None, 0, 0, _SMOOTH)
        pictures.append(titled(image, f"{name} error"))
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
    """Truth with and without occluded pixels; where they are not told apart, the same twice."""
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
    "errors": _errors,
}
KINDS = ("panel", *_DRAWN)
"""What there are pictures of: key is that to the colours of flow, above the scene seen from above; depth and above need a
calibration, left the images, and errors ground truth."""


def write_pictures(
    results: Results,
    out: Path,
    kinds: Sequence[str] = ("panel",),
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Draw results into files.

    Args:
        results: what is shown; into a file, the first of them.
        out: a file (.png or .jpg) for one picture; else a folder, made where it is missing, for NAME_KIND.png of all.
        kinds: of picture, see `KINDS`; "all" stands for those that there can be of a result.
        progress: called with how many results are done and how many there are.

    Returns:
        The files.

    Raises:
        InputError: `out` cannot be written or is a file for several kinds, or as `picture_of`.
    """
    as_file = out.suffix.lower() in (".png", ".jpg", ".jpeg")
    if as_file and (len(kinds) != 1 or "all" in kinds):
        raise InputError(f"--out: {out}: is a file for one picture, expected a folder for several")
    for kind in kinds:
        if kind not in (*KINDS, "all"):
            raise InputError(f"--kind: {kind!r} is unknown, expected {', '.join(KINDS)} or all")
    try:
        (out.parent if as_file else out).mkdir(parents=True, exist_ok=True)
        if as_file:
            write_image(out, picture_of(results.read(0), kinds[0]))
            return [out]
        files = []
        for number, result in enumerate(results):
            if progress is not None:
                progress(number, len(results))
            for kind in kinds_of(result) if "all" in kinds else kinds:
                files.append(out / f"{result.name}_{kind}.png")
                write_image(files[-1], picture_of(result, kind))
        if progress is not None:
            progress(len(results), len(results))
        return files
    except OSError as error:
        raise InputError(
            f"--out: {out}: {error.strerror or error}, expected to write there"
        ) from None


def write_video(
    results: Results,
    out: Path,
    rate_hz: float | None = None,
    width: int = PANEL_WIDTH,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Panels of results, one after another, as a video: VP9 in MP4, which browsers, VLC and FFmpeg play.

    Its colours keep their meaning from frame to frame as long as the scene's motion is of the same order.

    Args:
        results: what is shown.
        out: file that ends in .mp4; it appears whole or not at all.
        rate_hz: frames a second; None: those of the results, `DEFAULT_RATE_HZ` where their times are not known.
        width: of the video, px; an odd one loses a pixel.
        progress: called with how many results are done and how many there are.

    Returns:
        Number of frames.

    Raises:
        InputError: `out` cannot be written, rate or width are not positive, or this OpenCV has no encoder for it.
    """
    if out.suffix.lower() != ".mp4":
        raise InputError(f"--out: {out}: expected a file that ends in .mp4")
    if rate_hz is not None and not (math.isfinite(rate_hz) and rate_hz > 0):
        raise InputError(f"--rate: {rate_hz:g} Hz, expected > 0 Hz")
    if width < 320:
        raise InputError(f"--width: {width} px, expected at least 320 px")
    writer, scales, size = None, None, (0, 0)
    with refusing_unwritable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    # The name's end tells OpenCV the container.
    with partial_file(out, ".mp4") as partial:
        for number, result in enumerate(results):
            if progress is not None:
                progress(number, len(results))
            scales = steady_scales(result, scales)
            picture = panel(result, width, scales)
            if writer is None:
                size = (picture.shape[1] & ~1, picture.shape[0] & ~1)
                dt = abs(result.scene_flow.dt)
                writer = _writer(partial, rate_hz or (1 / dt if dt else DEFAULT_RATE_HZ), size, out)
            if picture.shape[1::-1] != size:
                picture = cv2.resize(picture, size, None, 0, 0, _SMOOTH)
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        assert writer is not None
        writer.release()
    if progress is not None:
        progress(len(results), len(results))
    return len(results)


def _writer(file: Path, rate_hz: float, size: tuple[int, int], out: Path) -> cv2.VideoWriter:
    file.touch()
    codec = cv2.VideoWriter.fourcc(*"vp09")
    writer = cv2.VideoWriter(str(file), cv2.CAP_FFMPEG, codec, rate_hz, size)
    if not writer.isOpened():
        raise InputError(
            f"--out: {out}: OpenCV {cv2.__version__} has no encoder for VP9 in MP4, expected one with FFmpeg and libvpx "
            "(pip install opencv-python-headless)"
        )
    return writer


def steady_scales(result: Result, before: Scales | None) -> Scales:
    """Scales for a result in a sequence: those before as long as they fit it within a factor, else round numbers above."""
    disparity, flow = valid_maps(result.scene_flow)
    return Scales(
        _steady(disparity_scale(disparity), before.disparity if before else 0.0),
        _steady(flow_scale(flow), before.flow if before else 0.0),
        None if result.scene_flow.dt == 0 else _FASTEST,
    )


def _steady(wanted: float, before: float) -> float:
    return before if 0.4 * before <= wanted <= 1.15 * before else nice_number(wanted)


def nice_number(value: float) -> float:
    """The smallest of 1, 1.5, 2, 3, 4, 5, 6 and 8 times a power of ten that is not below a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(n * power for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * power >= value * 0.999)
