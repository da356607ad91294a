"""Line charts, bar charts and histograms, laid out for an SVG picture: where each mark, tick and label goes, in px."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, TypeGuard

WIDTH, HEIGHT = 640, 330
LEFT, RIGHT, TOP, BOTTOM = 62, 626, 14, 272

# More points than this are drawn as a line without a mark at each.
_MOST_MARKS = 60
# Of a bar chart's group, what its bars take.
_GROUP_SHARE = 0.78
_TICK_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)

# From a value to its place, px.
_Scale = Callable[[float], float]


@dataclass(frozen=True)
class Series:
    """One line, or one set of bars, of a chart.

    Attributes:
        name: for the legend.
        x: line: numbers that rise; bar: the groups' names; histogram: the edges of the bins, one more than y.
        y: a number each; None or NaN leaves a gap.
    """

    name: str
    x: Sequence[float | str]
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


@dataclass(frozen=True)
class Tick:
    """A label on an axis and where it is, px."""

    place: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A bar, px, of the series with this index, and what it says."""

    series: int
    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point of a line, px, of the series with this index, and what it says."""

    series: int
    x: float
    y: float
    text: str


@dataclass
class Drawing:
    """A chart laid out in WIDTH x HEIGHT px, y downwards; the axes cross at (LEFT, BOTTOM).

    Attributes:
        chart: what is drawn.
        x_ticks: on the x axis.
        y_ticks: on the y axis.
        bars: of bar charts and histograms.
        lines: index of the series, and points as an SVG polyline has them.
        marks: points of the lines, where there are not too many.
        baseline: where y is 0.
    """

    chart: Chart
    x_ticks: list[Tick] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    baseline: float = BOTTOM

    @property
    def empty(self) -> bool:
        """Whether there is nothing to see."""
        return not self.bars and not self.lines

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The numbers drawn, as heads and rows; of the first 500 places on the x axis."""
        heads = [
            self.chart.x_label,
            *(f"{s.name}: {self.chart.y_label}" for s in self.chart.series),
        ]
        rows: dict[str, list[str]] = {}
        for index, series in enumerate(self.chart.series):
            for label, y in zip(_x_texts(self.chart, series), series.y, strict=True):
                row = rows.setdefault(label, ["–"] * len(self.chart.series))
                if _is_number(y):
                    row[index] = f"{y:.4g}"
        return heads, [[label, *row] for label, row in list(rows.items())[:500]]


def draw(chart: Chart) -> Drawing:
    """Lay out a chart. The y axis begins at 0, or below where values do."""
    drawing = Drawing(chart)
    values = [y for series in chart.series for y in series.y if _is_number(y)]
    low, high, step = _axis(min([0.0, *values]), max([0.0, *values]))

    def down(value: float) -> float:
        return BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP)

    drawing.y_ticks = [Tick(down(value), text) for value, text in _ticks(low, high, step)]
    drawing.baseline = down(0.0)
    if chart.kind == "bar":
        _draw_bars(drawing, down)
    else:
        _draw_over_numbers(drawing, down)
    return drawing


def _draw_bars(drawing: Drawing, down: _Scale) -> None:
    series = drawing.chart.series
    groups = [str(name) for name in series[0].x]
    share = (RIGHT - LEFT) / max(1, len(groups))
    width = share * _GROUP_SHARE / len(series)
    drawing.x_ticks = [Tick(LEFT + (g + 0.5) * share, name) for g, name in enumerate(groups)]
    for index, one in enumerate(series):
        for group, y in enumerate(one.y):
            if _is_number(y):
                x = LEFT + (group + 0.5) * share + (index - len(series) / 2) * width
                text = f"{one.name}, {groups[group]}: {y:.4g}"
                drawing.bars.append(_bar(index, x, width, y, down, text))


def _draw_over_numbers(drawing: Drawing, down: _Scale) -> None:
    chart = drawing.chart
    everywhere = [float(x) for series in chart.series for x in series.x if _is_number(x)]
    left, right = min(everywhere, default=0.0), max(everywhere, default=1.0)
    if left == right:
        right = left + 1.0

    def across(value: float) -> float:
        return LEFT + (value - left) / (right - left) * (RIGHT - LEFT)

    ticks = _ticks(left, right, _step(left, right))
    drawing.x_ticks = [Tick(across(value), text) for value, text in ticks]
    for index, series in enumerate(chart.series):
        if chart.kind == "histogram":
            labels = _x_texts(chart, series)
            for (start, end), y, label in zip(pairwise(series.x), series.y, labels, strict=True):
                if _is_number(y) and y:
                    begin, width = across(float(start)), across(float(end)) - across(float(start))
                    text = f"{series.name}, {label}: {y:.4g}"
                    drawing.bars.append(_bar(index, begin, width, y, down, text))
        else:
            _draw_line(drawing, index, series, across, down)


def _draw_line(drawing: Drawing, index: int, series: Series, across: _Scale, down: _Scale) -> None:
    with_marks = len(series.y) <= _MOST_MARKS
    piece: list[str] = []
    for x, y in zip((*series.x, None), (*series.y, None), strict=True):
        if x is not None and _is_number(y):
            place = across(float(x)), down(y)
            piece.append(f"{place[0]:.1f},{place[1]:.1f}")
            if with_marks:
                text = f"{series.name}, {float(x):.4g}: {y:.4g}"
                drawing.marks.append(Mark(index, *place, text))
            continue
        if piece:
            drawing.lines.append((index, " ".join(piece)))
        piece = []


def _bar(index: int, x: float, width: float, y: float, down: _Scale, text: str) -> Bar:
    top, bottom = sorted((down(0.0), down(y)))
    return Bar(index, x, top, max(0.5, width - 1), bottom - top, text)


def _x_texts(chart: Chart, series: Series) -> list[str]:
    if chart.kind == "bar":
        return [str(x) for x in series.x]
    if chart.kind == "histogram":
        return [f"{float(a):.4g} to {float(b):.4g}" for a, b in pairwise(series.x)]
    return [f"{float(x):.6g}" for x in series.x]


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Ends of an axis that holds both values and begins and ends on a tick, and the distance between its ticks."""
    if low == high:
        high = low + 1.0
    step = _step(low, high)
    return math.floor(low / step) * step, math.ceil(high / step - 1e-9) * step, step


def _ticks(low: float, high: float, step: float) -> list[tuple[float, str]]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = [n * step for n in range(first, last + 1)]
    if step < 1e-4 or max(abs(low), abs(high)) >= 1e7:
        return [(value, f"{value:.4g}") for value in values]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if not math.isclose(float(f"{step:.{decimals}f}"), step):  # 2.5 times a power of ten
        decimals += 1
    return [(value, f"{value:.{decimals}f}") for value in values]


def _step(low: float, high: float) -> float:
    """Distance between ticks: 1, 2, 2.5 or 5 times a power of ten, four to eight of them."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    return power * next(step for step in _TICK_STEPS if step * power >= rough * 0.999)


def _is_number(value: float | str | None) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
