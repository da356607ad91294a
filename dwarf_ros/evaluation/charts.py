"""Line charts, bar charts and histograms as SVG, drawn by matplotlib."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeGuard
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Longer lines are drawn without a marker at each point.
_MAX_MARKERS = 60
# Fraction of a group's width that its bars cover.
_GROUP_FILL = 0.78
_MAX_TABLE_ROWS = 500

_INK, _FAINT, _GRID = "#1b1f27", "#5a6372", "#e4e7ec"
_COLORS = ("#0b62b4", "#cf4c00", "#00875f", "#9a4a86", "#b98500", "#3d8ec4")
# The page's own names of these colors, which change with its color scheme.
_VARIABLES = {_INK: "ink", _FAINT: "faint", _GRID: "grid"}
_VARIABLES |= {color: f"s{index}" for index, color in enumerate(_COLORS)}

_STYLE: Any = {
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "font.size": 9,
    "grid.color": _GRID,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "dwarf_ros",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
}


@dataclass(frozen=True)
class Series:
    """One line, or one set of bars, of a chart.

    Attributes:
        name: for the legend.
        x: line: rising numbers; path: any; bar: names of the groups; histogram: edges of the bins, one more than y.
        y: values; None or NaN leaves a gap.
    """

    name: str
    x: Sequence[float | str]
    y: Sequence[float | None]


@dataclass(frozen=True)
class Chart:
    """A chart with labeled axes, shared by all its series.

    Attributes:
        title: heading.
        kind: how the series are drawn; those of a bar chart name the same groups.
        x_label: quantity and unit of the x axis ("distance [m]").
        y_label: quantity and unit of the y axis.
        series: at least one.
        note: a sentence below the chart.
    """

    title: str
    kind: Literal["line", "bar", "histogram", "path"]
    x_label: str
    y_label: str
    series: Sequence[Series]
    note: str = ""

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The values as column heads and rows, for at most 500 places on the x axis."""
        heads = [self.x_label, *(f"{s.name}: {self.y_label}" for s in self.series)]
        rows: dict[str, list[str]] = {}
        for index, series in enumerate(self.series):
            for label, y in zip(self.labels(series), series.y, strict=True):
                row = rows.setdefault(label, ["–"] * len(self.series))
                if _is_number(y):
                    row[index] = f"{y:.4g}"
        return heads, [[label, *row] for label, row in list(rows.items())[:_MAX_TABLE_ROWS]]

    def labels(self, series: Series) -> list[str]:
        """Name of each value of a series: its group, its bin or its x."""
        if self.kind == "bar":
            return [str(x) for x in series.x]
        if self.kind == "histogram":
            return [f"{float(a):.4g} to {float(b):.4g}" for a, b in pairwise(series.x)]
        return [f"{float(x):.6g}" for x in series.x]


def chart_svg(chart: Chart, number: int | None = None) -> str:
    """Draw a chart as an SVG element; equal charts give equal text.

    Args:
        chart: the chart.
        number: of the chart on an HTML page, to keep its ids unique; the page's CSS then sets the colors, and the title is left
            to the page. None: a picture of its own, with title, on white.
    """
    import matplotlib
    from matplotlib.figure import Figure

    hints: dict[str, str] = {}
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.4, 3.3), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        known = [y for series in chart.series for y in series.y if _is_number(y)]
        if known:
            _draw_bars(axes, chart, hints) if chart.kind == "bar" else _draw_curves(axes, chart)
            if chart.kind == "path":
                axes.set_aspect("equal", adjustable="datalim")
            else:
                axes.axhline(0, color=_FAINT, linewidth=0.8)
        else:
            axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center")
        if chart.kind != "path" and min(known, default=0) >= 0:
            axes.set_ylim(bottom=0, top=None if any(known) else 1)
        if known and (len(chart.series) > 1 or chart.kind in ("line", "path")):
            longest = max(len(series.name) for series in chart.series)
            columns = max(1, min(len(chart.series), 90 // (longest + 6)))
            figure.legend(loc="outside upper left", ncols=columns)
        if number is None:
            figure.suptitle(chart.title, x=0.02, ha="left", fontweight="bold")
        picture = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(picture, format="svg", transparent=number is not None, metadata=metadata)
    return _finish(picture.getvalue(), chart, number, hints)


def _draw_bars(axes: Axes, chart: Chart, hints: dict[str, str]) -> None:
    groups = chart.labels(chart.series[0])
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    width = _GROUP_FILL / len(chart.series)
    for index, series in enumerate(chart.series):
        offset = (index - (len(chart.series) - 1) / 2) * width
        bars = [(group, y) for group, y in enumerate(series.y) if _is_number(y)]
        places = [group + offset for group, _ in bars]
        heights = [y for _, y in bars]
        color = _COLORS[index % len(_COLORS)]
        drawn = axes.bar(places, heights, 0.95 * width, label=series.name, color=color)
        for bar, (group, y) in zip(drawn, bars, strict=True):
            identifier = f"bar-{index}-{group}"
            bar.set_gid(identifier)
            hints[identifier] = f"{series.name}, {groups[group]}: {y:.4g}"


def _draw_curves(axes: Axes, chart: Chart) -> None:
    axes.margins(x=0 if chart.kind == "histogram" else 0.01)
    for index, series in enumerate(chart.series):
        style: dict[str, Any] = {"label": series.name, "color": _COLORS[index % len(_COLORS)]}
        x = [float(x) for x in series.x]
        y = [y if _is_number(y) else math.nan for y in series.y]
        if chart.kind == "histogram":
            axes.stairs(y, x, fill=True, alpha=0.6 if len(chart.series) > 1 else 1, **style)
        else:
            axes.plot(x, y, marker="o" if len(y) <= _MAX_MARKERS else "", markersize=4, **style)


def _finish(source: str, chart: Chart, number: int | None, hints: dict[str, str]) -> str:
    """Matplotlib's file as an element with a title and hints, ready to be put into a page."""
    svg = source[source.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    for identifier, text in hints.items():
        svg = svg.replace(f'id="{identifier}">', f'id="{identifier}"><title>{escape(text)}</title>')
    name = "chart" if number is None else f"chart-{number}"
    svg = re.sub(r'( id="| xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    if number is not None:
        for color, variable in _VARIABLES.items():
            svg = svg.replace(color, f"var(--{variable})")
    numbers = "" if number is None else ". The numbers are in the table below."
    title = escape(f"{chart.title}: {chart.y_label} against {chart.x_label}{numbers}")
    head = f'<svg class="plot" role="img" aria-labelledby="{name}"'
    title = f'<title id="{name}">{title}</title>'
    return re.sub(r"<svg([^>]*>)", lambda match: f"{head}{match[1]}{title}", svg, count=1)


def _is_number(value: float | str | None) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
