import json
import math
import re
import shutil
import subprocess

import numpy as np
import pytest

from dwarf_ros.evaluation.report import (
    Chart,
    ColourScale,
    Figure,
    Frame,
    Picture,
    Report,
    Series,
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
        "colour_scales": [ColourScale("error", [(1, 2, 3)], ["< 1"])],
    }  # fmt: skip
    return Report(**{**report, **changes})


@pytest.fixture
def page(tmp_path):
    file = tmp_path / "page.html"
    write_report(file, example())
    return file


PROBE = """
<script>
addEventListener("load", async () => {
  const seen = {errors: window.seenErrors, sorted: {}};
  await Promise.all([...document.images].map(image => image.decode().catch(() => {})));
  seen.images = [...document.images].map(image => [image.naturalWidth, image.alt !== ""]);
  seen.requests = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
  const names = table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  for (const [id, errors] of [["#frames table", 2], ["main > section table", 1]]) {
    const table = document.querySelector(id);
    const orders = [["", names(table), ""]];
    for (const column of [errors, errors, 0, 0]) {
      const head = table.tHead.rows[0].cells[column];
      head.querySelector("button").click();
      orders.push([head.textContent, names(table), head.getAttribute("aria-sort")]);
    }
    seen.sorted[id] = orders;
  }
  seen.wider = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  seen.ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  seen.links = [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1));
  seen.names = [...document.querySelectorAll("svg.plot")].map(svg => document.getElementById(svg.getAttribute("aria-labelledby")).textContent);
  document.body.replaceChildren();
  document.body.textContent = "SEEN" + JSON.stringify(seen).replaceAll("<", "\\\\u003c") + "SEEN";
});
</script>
</body>
"""
LISTENER = """<head>
<script>
window.seenErrors = [];
addEventListener("error", event => seenErrors.push(String(event.message)), true);
addEventListener("securitypolicyviolation", event => seenErrors.push("blocked " + event.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...what) => seenErrors.push(what.join(" "));
</script>
"""


def open_in_chromium(page, tmp_path, width=1400, addition=""):
    """What a browser finds in the page, after clicks on its tables' heads."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine to open the page with")
    source = page.read_text(encoding="utf-8")
    probed = tmp_path / f"probed_{width}.html"
    source = source.replace("<head>\n", LISTENER, 1).replace("</body>\n", addition + PROBE, 1)
    probed.write_text(source, encoding="utf-8")
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    command += ["--no-first-run", "--disable-background-networking", "--disable-component-update"]
    command += ["--disable-sync", f"--user-data-dir={tmp_path / f'profile_{width}'}"]
    command += [f"--window-size={width},900", "--virtual-time-budget=10000"]
    command += ["--dump-dom", probed.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    found = re.search("<body>SEEN(.*)SEEN</body>", done.stdout, re.DOTALL)
    assert found, f"{done.returncode}: {done.stdout[-500:]} {done.stderr[-500:]}"
    text = found.group(1).replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&")
    return json.loads(text)


def test_the_page_in_a_browser(page, tmp_path):
    seen = open_in_chromium(page, tmp_path)
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


def test_the_page_fits_a_narrow_window(page, tmp_path):
    assert open_in_chromium(page, tmp_path, width=500)["wider"] == 0


def test_the_page_may_not_load_anything(page, tmp_path):
    images = ["https://example.org/a.png", "https://example.org/b.png"]
    outside = f'<img src="{images[0]}" alt="x"><i style="background: url({images[1]})">x</i>'
    errors = open_in_chromium(page, tmp_path, addition=outside)["errors"]
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
