import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.evaluation.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, Chart, Series, draw
from dwarf_ros.evaluation.report import write_chart

quick = settings(derandomize=True, deadline=None, max_examples=80)
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)
gaps = st.none() | st.just(math.nan) | numbers


@quick
@given(values=st.lists(st.lists(gaps, min_size=3, max_size=3), min_size=1, max_size=4))
def test_bars_are_as_long_as_their_values_and_side_by_side(values):
    series = [Series(f"s{n}", ("a", "b", "c"), ys) for n, ys in enumerate(values)]
    drawing = draw(Chart("title", "bar", "x", "y", series))
    known = [y for ys in values for y in ys if y is not None and math.isfinite(y)]
    assert len(drawing.bars) == len(known)
    assert drawing.empty == (not known)
    scale = (drawing.y_ticks[0].place - drawing.y_ticks[-1].place) / (
        float(drawing.y_ticks[-1].text) - float(drawing.y_ticks[0].text) or 1
    )
    for bar, y in zip(drawing.bars, known, strict=True):
        assert bar.height == pytest.approx(abs(y) * scale, rel=1e-3, abs=0.1)
        assert (bar.y if y < 0 else bar.y + bar.height) == pytest.approx(drawing.baseline)
        assert LEFT <= bar.x <= bar.x + bar.width <= RIGHT
        assert TOP - 1e-6 <= bar.y <= bar.y + bar.height <= BOTTOM + 1e-6
    for one in drawing.bars:
        for other in drawing.bars:
            assert one is other or one.x + one.width <= other.x or other.x + other.width <= one.x


@quick
@given(low=st.floats(-1e5, 0), size=st.floats(1e-4, 1e6))
def test_ticks_are_round_evenly_spaced_and_tell_their_place(low, size):
    drawing = draw(Chart("t", "line", "x", "y", [Series("s", (0, 1), (low, low + size))]))
    values = [float(tick.text) for tick in drawing.y_ticks]
    assert 3 <= len(values) <= 10
    steps = [b - a for a, b in pairwise(values)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert min(steps) > 0
    places = [tick.place for tick in drawing.y_ticks]
    assert (places[0], places[-1]) == (pytest.approx(BOTTOM), pytest.approx(TOP))


def test_a_line_breaks_where_nothing_is_known():
    series = Series("s", (0, 1, 2, 3), (1, None, 1, 2))
    drawing = draw(Chart("t", "line", "x", "y", [series]))
    assert [points.count(",") for _, points in drawing.lines] == [1, 2]
    assert [mark.text for mark in drawing.marks] == ["s, 0: 1", "s, 2: 1", "s, 3: 2"]
    assert drawing.marks[-1].x == RIGHT
    assert drawing.table == (["x", "s: y"], [["0", "1"], ["1", "–"], ["2", "1"], ["3", "2"]])


def test_long_lines_have_no_marks():
    drawing = draw(Chart("t", "line", "x", "y", [Series("s", range(200), range(200))]))
    assert drawing.marks == []
    assert drawing.lines[0][1].count(",") == 200


def test_bins_of_a_histogram_have_their_own_widths():
    drawing = draw(Chart("t", "histogram", "x", "y", [Series("s", (0, 1, 4), (3, 5))]))
    narrow, wide = drawing.bars
    assert wide.width + 1 == pytest.approx(3 * (narrow.width + 1))
    assert narrow.text == "s, 0 to 1: 3"
    assert drawing.table[1] == [["0 to 1", "3"], ["1 to 4", "5"]]


def test_nothing_to_draw_is_drawn_as_empty_axes():
    for kind in ("line", "bar", "histogram"):
        drawing = draw(Chart("t", kind, "x", "y", [Series("s", (), ())]))
        assert drawing.empty
        assert [drawing.y_ticks[0].text, drawing.y_ticks[-1].text] == ["0.0", "1.0"]


def test_chart_as_a_picture_of_its_own(tmp_path):
    names = ["the first <of> some", "another of them", "and one with a longer name", "last"]
    series = [Series(name, [0, 1, 2], [0.5 + i, None, 1.5 + i]) for i, name in enumerate(names)]
    chart = Chart("Errors & rates", "line", "step", "error [px]", series)
    write_chart(tmp_path / "chart.svg", chart)
    root = ElementTree.fromstring((tmp_path / "chart.svg").read_text(encoding="utf-8"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "Errors & rates"
    assert texts[1:5] == names
    assert {"step", "error [px]"} <= set(texts)
    left, top, width, height = map(float, root.get("viewBox", "").split())
    assert (left, top + height) == (0, HEIGHT)
    keys = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("class")]
    assert len(keys) == len(names)
    assert all(float(key.get("y", "nan")) > top for key in keys)
    assert all(0 <= float(key.get("x", "nan")) < width for key in keys)
    points = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(points) == 2 * len(names)


def test_a_single_histogram_has_no_legend(tmp_path):
    chart = Chart("Latency", "histogram", "ms", "answers", [Series("all", [0, 1, 2], [3, 4])])
    write_chart(tmp_path / "chart.svg", chart)
    root = ElementTree.fromstring((tmp_path / "chart.svg").read_text(encoding="utf-8"))
    bars = [e for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("class")]
    assert len(bars) == 2
