"""What an evaluation found: a table on the terminal, JSON, CSV, and one HTML page that needs no other file.

`Report` is what a page shows, in plain data: key figures, notes, tables, charts, and a list of frames, of which the worst
are shown in pictures. `write_report` makes the page of it, whatever was evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

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
        emphasised: indices of rows to set apart.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""
    decimals: int = 2
    emphasised: Sequence[int] = ()


@dataclass(frozen=True)
class Series:
    """One line, or one set of bars, of a chart.

    Attributes:
        name: for the legend.
        x: line: numbers that rise; bar: the groups' names; histogram: the edges of the bins, one more than y.
        y: a number each; None or NaN leaves a gap.
    """

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """A chart with labelled axes; all its series share them.

    Attributes:
        title: its heading.
        kind: how the series are drawn; those of a bar chart name the same groups.
        x_label: what the x axis shows, with its unit ("distance [m]").
        y_label: what the y axis shows, with its unit.
        series: at least one.
        note: a sentence below it.
    """

    title: str
    kind: Literal["line", "bar", "histogram"]
    x_label: str
    y_label: str
    series: Sequence[Series]
    note: str = ""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a frame.

    Attributes:
        title: its caption, also read out in its place.
        image: uint8 RGB, H x W x 3.
    """

    title: str
    image: np.ndarray


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
        max_pictured: how many of the worst frames are shown in pictures.
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
    max_pictured: int = 20


def write_report(file: Path, report: Report) -> None:
    """Write the page, beside its place and then renamed.

    Args:
        file: the HTML file.
        report: what it shows.

    Raises:
        InputError: the file cannot be written.
    """
