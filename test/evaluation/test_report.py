import math
import re

import numpy as np
import pytest

from dwarf_ros.evaluation.charts import Chart, Series
from dwarf_ros.evaluation.report import (
    ColorScale,
    Figure,
    Frame,
    Picture,
    Report,
    Table,
    write_report,
)
from dwarf_ros.types import InputError

ERRORS = {
    "plain": 2.5,
    "worst": 11.0,
    "unknown": math.nan,
    "<b>&\"'": 9.25,
    "none": None,
    "ten": 10,
}


def picture(value, width=40):
    return Picture(f"picture {value}", np.full((20, width, 3), value, np.uint8))


def example(**changes):
    frames = [
        Frame(name, (3, error), lambda n=number: [picture(n), picture(n + 100, width=2000)])
        for number, (name, error) in enumerate(ERRORS.items())
    ]
    report = {
        "title": "Evaluation of <script>alert(1)</script>",
        "subtitle": "of nothing & nobody",
        "figures": [Figure("rate", 9.876, "Hz", "as received"), Figure("drops", 3), Figure("x", None)],
        "notes": ["D2 was skipped."],
        "tables": [
            Table("Methods", ["method", "D1 [%]"], [["b", 1.5], ["a", None], ["c", 1.25]], "note")
        ],
        "charts": [
            Chart("Line", "line", "time [s]", "error [px]", [Series("one", (0, 1), (1, 2))]),
            Chart("Bars", "bar", "m", "%", [Series(s, ("a", "b"), (1, None)) for s in ("p", "q")]),
            Chart("Bins", "histogram", "latency [ms]", "frames", [Series("h", (0, 5, 9), (2, 4))]),
            Chart("Nothing", "bar", "m", "%", [Series("p", ("a",), (None,))]),
        ],
        "frame_columns": ["frames", "error [px]"],
        "frames": frames,
        "sort_column": 1,
        "max_pictured": 3,
        "color_scales": [ColorScale("error", [(1, 2, 3)], ["< 1"])],
    }  # fmt: skip
    return Report(**{**report, **changes})


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.html"
    write_report(file, example())
    return file


def test_the_page_in_a_browser(page, in_chromium):
    seen = in_chromium(page)
    assert seen["errors"] == []
    assert seen["requests"] == []
    assert seen["images"] == [[40, True], [1248, True]] * 3
    first, down, up, by_name, by_name_up = seen["sorted"]["#frames table"]
    worst_first = ["worst", "ten", "<b>&\"'", "plain"]
    assert first[1][:4] == worst_first
    assert set(first[1][4:]) == {"unknown", "none"}
    # Sorted by error already, so the first click turns it round; the unknown stay last.
    assert down == ["error [px]", [*reversed(worst_first), *first[1][4:]], "ascending"]
    assert up == ["error [px]", first[1], "descending"]
    assert by_name == [
        "image",
        ["<b>&\"'", "none", "plain", "ten", "unknown", "worst"],
        "ascending",
    ]
    assert by_name_up[1:] == [by_name[1][::-1], "descending"]
    assert [order[1:] for order in seen["sorted"]["main > section table"]] == [
        [["b", "a", "c"], ""],
        [["b", "c", "a"], "descending"],
        [["c", "b", "a"], "ascending"],
        [["a", "b", "c"], "ascending"],
        [["c", "b", "a"], "descending"],
    ]
    assert set(seen["links"]) <= set(seen["ids"])
    assert len(seen["links"]) == 3
    assert len(set(seen["ids"])) == len(seen["ids"])
    assert seen["names"][0].startswith("Line: error [px] against time [s]")


def test_the_page_fits_a_narrow_window(page, in_chromium):
    assert in_chromium(page, width=500)["wider"] == 0


def test_the_page_may_not_load_anything(page, in_chromium):
    images = ["https://example.org/a.png", "https://example.org/b.png"]
    outside = f'<img src="{images[0]}" alt="x"><i style="background: url({images[1]})">x</i>'
    errors = in_chromium(page, addition=outside)["errors"]
    assert {f"blocked {image}" for image in images} <= set(errors)


def test_the_page_refers_to_nothing_outside_and_escapes_what_it_shows(page):
    source = page.read_text(encoding="utf-8")
    assert "<script>alert" not in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source
    assert "&lt;b&gt;&amp;&#34;&#39;" in source
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>]{0,12})""", source)
    assert references
    assert all(reference.startswith(("data:image/", "#")) for reference in references)
    for shown in ("9.88", "of nothing &amp; nobody", "D2 was skipped.", "nothing was measured"):
        assert shown in source
    assert "Pictures of the worst 3 of 6 images" in source


def test_pictures_are_made_only_of_the_worst_one_after_the_other(tmp_path):
    made = []

    def pictures(number):
        made.append(number)
        return [picture(number)]

    frames = [Frame(f"f{n}", (n,), lambda n=n: pictures(n)) for n in range(50)]
    frames.append(Frame("without pictures", (99,)))
    report = example(frames=frames, frame_columns=["error"], sort_column=0, frame_noun="pair")
    write_report(tmp_path / "page.html", report)
    assert made == [49, 48, 47]
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Every pair, the worst first" in source
    assert source.index("without pictures") < source.index(">f49<")


def test_an_empty_report_is_a_page(tmp_path):
    write_report(tmp_path / "page.html", Report("Nothing"))
    assert "<h1>Nothing</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none/page\.html: cannot be written"):
        write_report(tmp_path / "none" / "page.html", Report("Nothing"))
