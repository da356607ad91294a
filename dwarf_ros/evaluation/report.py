"""What an evaluation found, as one HTML page that needs no other file.

`Report` is what a page shows, in plain data: key figures, notes, tables, charts, and a list of frames, of which the worst
are shown in pictures. `write_report` makes the page of it, whatever was evaluated.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np

from dwarf_ros.evaluation.charts import Chart, chart_svg
from dwarf_ros.files import refusing_unwritable, write_atomically

# Wider pictures are reduced; about as wide as KITTI's.
_PICTURE_WIDTH = 1248
# With color at full resolution, as error maps have small colored spots.
_JPEG = (
    *(cv2.IMWRITE_JPEG_QUALITY, 80),
    *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)

# None and NaN are shown as a dash.
Value = str | float | int | None


@dataclass(frozen=True)
class Figure:
    """A key figure, shown large at the top.

    Attributes:
        label: what it is ("Fl, all pixels").
        value: a number, or text that is shown as it is; None or NaN where it is unknown.
        unit: of the value ("%", "px", "Hz"), "" for none.
        note: a few words below it.
        decimals: of a float.
    """

    label: str
    value: Value
    unit: str = ""
    note: str = ""
    decimals: int = 2


@dataclass(frozen=True)
class Table:
    """A table; it can be sorted by a click on a column's head.

    Attributes:
        title: its heading.
        columns: their heads, units included ("EPE [px]").
        rows: one value a column each; None or NaN where unknown.
        note: a sentence below it.
        decimals: of the floats.
        emphasized: indices of rows to set apart.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""
    decimals: int = 2
    emphasized: Sequence[int] = ()


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a frame.

    Attributes:
        title: its caption, also read out in its place.
        image: uint8 RGB, H x W x 3.
    """

    title: str
    image: np.ndarray


@dataclass(frozen=True)
class ColorScale:
    """What the colors in the pictures mean.

    Attributes:
        title: of the scale, with the unit.
        colors: RGB, 0..255.
        labels: one a color.
    """

    title: str
    colors: Sequence[tuple[int, int, int]]
    labels: Sequence[str]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image, or one pair of frames, in the list that is sorted by error.

    Attributes:
        name: of the image or frame.
        values: a value for each of the report's `frame_columns`.
        pictures: makes its pictures; called only for the frames that are shown, one after the other. None: it has none.
    """

    name: str
    values: Sequence[Value]
    pictures: Callable[[], Sequence[Picture]] | None = None


@dataclass(frozen=True, eq=False)
class Report:
    """What a page shows, from top to bottom.

    Attributes:
        title: of the page.
        subtitle: one line: what was evaluated, by what, when.
        figures: key figures.
        notes: sentences: how the numbers came about, what was skipped and why.
        tables: in order.
        charts: in order.
        frame_columns: heads of the frames' values, units included.
        frames: in any order; listed by sort_column, largest first, those without a number last.
        sort_column: which of frame_columns is the error that frames are sorted by.
        frame_noun: what a frame is called: "image", "pair".
        max_pictured: how many of the worst frames are shown in pictures.
        picture_note: a sentence above the pictures.
        color_scales: what the pictures' colors mean.
    """

    title: str
    subtitle: str = ""
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    frame_columns: Sequence[str] = ()
    frames: Sequence[Frame] = ()
    sort_column: int = 0
    frame_noun: str = "image"
    max_pictured: int = 20
    picture_note: str = ""
    color_scales: Sequence[ColorScale] = ()


def write_report(file: Path, report: Report) -> None:
    """Write the page, beside its place and then renamed. It asks for nothing outside itself.

    Args:
        file: the HTML file.
        report: what it shows. Pictures are drawn one frame after the other, and kept as PNG or JPEG, whichever is
            smaller, of at most 1248 px width.

    Raises:
        InputError: the file cannot be written.
    """
    frames = sorted(report.frames, key=lambda frame: _worst_first(frame.values[report.sort_column]))
    pictured = [frame for frame in frames if frame.pictures is not None][: report.max_pictured]
    page = (
        _environment()
        .get_template("report.html.jinja")
        .render(
            report=report,
            charts=[(chart, chart_svg(chart, n)) for n, chart in enumerate(report.charts, 1)],
            frames=frames,
            pictured=_with_pictures(pictured),
            anchors={frame: f"frame-{place}" for place, frame in enumerate(pictured)},
        )
    )
    with refusing_unwritable(file):
        write_atomically(file, page.encode(errors="replace"))


def write_chart(file: Path, chart: Chart) -> None:
    """Write a chart as an SVG file of its own, with title and legend, on white.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(file, chart_svg(chart).encode(errors="replace"))


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(shown=_shown, sort_key=_sort_key)
    return environment


@dataclass(frozen=True)
class _Encoded:
    title: str
    width: int
    height: int
    uri: str


def _with_pictures(frames: Sequence[Frame]) -> Iterator[tuple[Frame, list[_Encoded]]]:
    for frame in frames:
        assert frame.pictures is not None
        yield frame, [_encode(picture) for picture in frame.pictures()]


def _encode(picture: Picture) -> _Encoded:
    image = picture.image
    height, width = image.shape[:2]
    if width > _PICTURE_WIDTH:
        height, width = max(1, round(height * _PICTURE_WIDTH / width)), _PICTURE_WIDTH
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    jpeg, png = cv2.imencode(".jpg", bgr, _JPEG)[1], cv2.imencode(".png", bgr)[1]
    kind, data = ("png", png) if png.size <= jpeg.size else ("jpeg", jpeg)
    uri = f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
    return _Encoded(picture.title, width, height, uri)


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _worst_first(value: Value) -> tuple[bool, float]:
    number = _is_number(value)
    return not number, -float(value or 0) if number else 0.0


def _shown(value: Value, decimals: int = 2) -> str:
    if isinstance(value, float):
        return f"{value:.{decimals}f}" if math.isfinite(value) else "–"
    return "–" if value is None else str(value)


def _sort_key(value: Value) -> str:
    """What the page sorts by: a number in full, text as it is, nothing where the value is unknown."""
    if isinstance(value, str):
        return value
    return repr(value) if _is_number(value) else ""
