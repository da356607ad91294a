import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from dwarf_ros.evaluation.charts import Chart, Series, chart_svg
from dwarf_ros.evaluation.report import write_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(chart, number=None):
    return ElementTree.fromstring(chart_svg(chart, number))


def texts(root):
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def extent(element):
    """Left, top, right and bottom of the path in a group, px."""
    numbers = re.findall(r"-?[\d.]+", element.find(f"{SVG}path").get("d"))
    x, y = list(map(float, numbers[::2])), list(map(float, numbers[1::2]))
    return min(x), min(y), max(x), max(y)


def bars(root):
    found = [g for g in root.iter(f"{SVG}g") if re.search(r"-bar-\d", g.get("id", ""))]
    return {g.get("id").partition("bar-")[2]: (g.find(f"{SVG}title").text, extent(g)) for g in found}  # fmt: skip


def line(root):
    (path,) = [p for p in root.iter(f"{SVG}path") if "fill: none; stroke: #0b62b4; stroke-width: 1.5" in p.get("style", "")][:1]  # fmt: skip
    return path.get("d")


def test_bars_are_as_long_as_their_values_and_side_by_side():
    values = [(3.0, None, -1.5), (math.nan, 2.0, 0.75)]
    series = [Series(f"s{n}", ("a", "b", "c"), ys) for n, ys in enumerate(values)]
    found = bars(drawn(Chart("title", "bar", "x", "y", series)))
    known = {"0-0": 3.0, "0-2": -1.5, "1-1": 2.0, "1-2": 0.75}
    assert found.keys() == known.keys()
    scale = (found["0-0"][1][3] - found["0-0"][1][1]) / 3.0
    baseline = found["0-0"][1][3]
    for name, value in known.items():
        text, (_, top, _, bottom) = found[name]
        assert text == f"s{name[0]}, {'abc'[int(name[2])]}: {value:.4g}"
        assert bottom - top == pytest.approx(abs(value) * scale, rel=1e-3)
        assert (top if value < 0 else bottom) == pytest.approx(baseline, abs=0.01)
    places = sorted(box[::2] for _, box in found.values())
    assert all(a[1] < b[0] for a, b in pairwise(places))


def test_a_line_breaks_where_nothing_is_known():
    chart = Chart("t", "line", "x", "y", [Series("s", (0, 1, 2, 3, 4), (1, 3, None, 1, 2))])
    root = drawn(chart)
    assert line(root).count("M") == 2, "two pieces"
    assert len(list(root.iter(f"{SVG}use"))) >= 4, "a marker for each known point"
    assert chart.table == (["x", "s: y"], [["0", "1"], ["1", "3"], ["2", "–"], ["3", "1"], ["4", "2"]])  # fmt: skip


def test_long_lines_have_no_markers():
    short, long = (
        drawn(Chart("t", "line", "x", "y", [Series("s", range(n), range(n))])) for n in (60, 61)
    )
    assert len(list(short.iter(f"{SVG}use"))) >= 60 > len(list(long.iter(f"{SVG}use")))


def test_bins_of_a_histogram_have_their_own_widths():
    chart = Chart("t", "histogram", "x", "y", [Series("s", (0, 1, 4), (3, 5))])
    (steps,) = [p for p in drawn(chart).iter(f"{SVG}path") if "#0b62b4" in p.get("style", "")]
    x = sorted({round(float(n), 2) for n in re.findall(r"[ML] (-?[\d.]+)", steps.get("d"))})
    assert x[2] - x[1] == pytest.approx(3 * (x[1] - x[0]), rel=1e-3)
    assert chart.table[1] == [["0 to 1", "3"], ["1 to 4", "5"]]


@pytest.mark.parametrize("kind", ["line", "bar", "histogram"])
def test_nothing_to_draw_is_drawn_as_empty_axes(kind):
    shown = texts(drawn(Chart("t", kind, "x", "y", [Series("s", (), ())])))
    assert "nothing was measured" in shown
    assert {"0.0", "1.0"} <= set(shown)


def test_a_chart_on_a_page_has_ids_and_colors_of_the_page():
    chart = Chart("<t> & more", "bar", "m", "%", [Series("a {} $x$", ("p",), (1,))] * 2)
    svg = chart_svg(chart, 7)
    assert svg == chart_svg(chart, 7)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-labelledby") == "chart-7" == root.find(f"{SVG}title").get("id")
    assert root.find(f"{SVG}title").text.startswith("<t> & more: % against m. ")
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(set(identifiers)) == len(identifiers)
    assert all(identifier.startswith("chart-7") for identifier in identifiers)
    references = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert set(references) <= set(identifiers)
    assert "var(--s0)" in svg
    assert not re.search(r"(fill|stroke): #(0b62b4|1b1f27|5a6372)", svg)
    assert "a {} $x$" in texts(root)


def test_chart_as_a_picture_of_its_own(tmp_path):
    names = ["the first <of> some", "another of them", "and one with a longer name", "last"]
    series = [Series(name, [0, 1, 2], [0.5 + i, None, 1.5 + i]) for i, name in enumerate(names)]
    chart = Chart("Errors & rates", "line", "step", "error [px]", series)
    write_chart(tmp_path / "chart.svg", chart)
    root = ElementTree.fromstring((tmp_path / "chart.svg").read_text(encoding="utf-8"))
    assert {"Errors & rates", "step", "error [px]", *names} <= set(texts(root))
    assert root.get("width", "").endswith("pt")


def test_a_single_histogram_has_no_legend():
    chart = Chart("Latency", "histogram", "ms", "answers", [Series("all", [0, 1, 2], [3, 4])])
    assert "all" not in texts(drawn(chart))
