"""The commands, links and tables of the pages: what can be run here is run, as it stands there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted(page for page in DOCS.glob("*.md") if page.name != "parameters.md"),
]
# In the order in which a page has them; what is not run says why, unseen by a reader of the built page.
BLOCK = re.compile(r"(?:<!-- not run: ([^\n]+) -->\n)?^```(\w*)[^\n]*\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    not_run: str

    @property
    def commands(self) -> list[list[str]]:
        lines = self.text.replace("\\\n", " ").splitlines()
        split = (shlex.split(line, comments=True) for line in lines)
        return [words for words in split if words]


def blocks_of(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(language, text, reason) for reason, language, text in found]


def names(pages: list[Path]) -> list[str]:
    return [str(page.relative_to(REPOSITORY)) for page in pages]


@pytest.fixture(scope="module")
def example_data(tmp_path_factory) -> Path:
    """What docs/index.md says to begin with."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(REPOSITORY / "config", folder / "config")
    script = DOCS / "example_data.py"
    subprocess.run([sys.executable, script], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_block_is_of_a_kind_that_is_checked(page):
    for block in blocks_of(page):
        assert block.language in ("bash", "python", "yaml", "text"), block.text
    fences = page.read_text(encoding="utf-8").count("\n```")
    assert fences == 2 * len(blocks_of(page))


RUN = [
    page
    for page in PAGES
    if any(b.language in ("bash", "python") and not b.not_run for b in blocks_of(page))
]


@pytest.mark.parametrize("page", RUN, ids=names(RUN))
def test_blocks_that_can_run_here_run(page, example_data, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    shutil.copytree(example_data, folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shutil.which("dwarf") is None:
        pytest.skip("the package is not installed as the pages say: no dwarf on the PATH")
    for block in blocks_of(page):
        if block.not_run or block.language not in ("bash", "python"):
            continue
        if block.language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", block.text]
        else:
            command = [sys.executable, "-c", block.text]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, f"{block.text}\n{ended.stdout}\n{ended.stderr}"


def test_every_page_is_looked_at():
    assert {"camera.md", "bags.md", "kitti.md", "adapting.md"} <= {page.name for page in RUN}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_options_and_names_of_all_commands_exist(page):
    """Those of blocks that are not run, too."""
    from dwarf_ros.cli import make_parser, split_ros_arguments

    for block in blocks_of(page):
        if block.language != "bash":
            continue
        for words in block.commands:
            if words[0] == "dwarf":
                make_parser().parse_args(split_ros_arguments(words[1:])[0])
            elif words[:3] == ["ros2", "launch", "dwarf_ros"]:
                text = (REPOSITORY / "launch" / words[3]).read_text(encoding="utf-8")
                text += (REPOSITORY / "launch" / "dwarf.launch.py").read_text(encoding="utf-8")
                for word in words[4:]:
                    name = word.partition(":=")[0]
                    assert word.startswith("--") or f'"{name}"' in text, word
            elif words[0] == "make":
                makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
                targets = [word for word in words[1:] if "=" not in word]
                assert all(re.search(rf"^{target}:", makefile, re.M) for target in targets), words


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_parameters_exist(page):
    pytest.importorskip("rclpy")
    from dwarf_ros.ros.parameters import PARAMETERS

    for block in blocks_of(page):
        given = []
        if block.language == "yaml":
            content = yaml.safe_load(block.text)
            assert isinstance(content, dict)
            if "/**" in content:
                given = list(content["/**"]["ros__parameters"])
        elif block.language == "bash":
            for words in block.commands:
                # Nodes of other packages have parameters of their own.
                if words[0] != "dwarf" and "dwarf_ros" not in words:
                    continue
                options = pairwise(words)
                given += [
                    word.partition(":=")[0]
                    for option, word in options
                    if option == "-p" and ":=" in word
                ]
        assert set(given) <= {*PARAMETERS, "qos_overrides", "use_sim_time"}


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_pictures_and_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), link
        if anchor:
            assert anchor in anchors_of(file), link


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


def test_every_page_has_a_picture_or_a_table():
    for page in DOCS.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert "](pictures/" in text or "\n|---" in text, page


def test_pictures_are_used_and_small():
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = list((DOCS / "pictures").iterdir())
    assert pictures
    for picture in pictures:
        assert f"pictures/{picture.name}" in pages, picture
    assert sum(picture.stat().st_size for picture in pictures) < 3_000_000


def test_every_page_is_in_the_contents():
    contents = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def files(entries):
        for entry in entries:
            (value,) = entry.values()
            yield from [value] if isinstance(value, str) else files(value)

    assert sorted(files(contents)) == sorted(page.name for page in DOCS.glob("*.md"))


def test_tables_are_as_the_code_makes_them(monkeypatch):
    pytest.importorskip("rclpy")
    monkeypatch.syspath_prepend(DOCS)
    import make_assets

    for name, (page, lines) in make_assets.TABLES.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        assert make_assets.with_table(text, name, lines()) == text, f"{page}: make docs-assets"


def test_drawings_show_the_presets(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    from network_drawing import network_drawing

    from dwarf_ros.network.presets import DWARF, DWARF_LITE

    for preset in (DWARF, DWARF_LITE):
        file = DOCS / "pictures" / f"network_{preset.name}.svg"
        assert file.read_text(encoding="utf-8") == network_drawing(preset), "make docs-assets"


def test_messages_that_the_diagnostics_page_explains_are_in_the_code():
    """So that a line that is reworded is reworded there, too."""
    code = "".join(
        file.read_text(encoding="utf-8")
        for file in sorted((REPOSITORY / "dwarf_ros" / "ros").glob("*.py"))
    )
    code = re.sub(r'"\s*\n\s*f?"', "", re.sub(r"\{[^{}]*\}", "...", code))
    page = (DOCS / "diagnostics.md").read_text(encoding="utf-8").split("## Counters")[0]
    symptoms = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    quoted = [text for symptom in symptoms for text in re.findall(r"`([^`]+)`", symptom)]
    pieces = [
        piece.strip(" ()`")
        for text in quoted
        for piece in re.split(r"\.\.\.|/left/image_rect|\(1", text)
    ]
    pieces = [piece for piece in pieces if len(piece) > 6]
    assert len(pieces) > 12
    for piece in pieces:
        assert piece in code, piece


def test_pages_build_without_warnings(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    pytest.importorskip("mkdocstrings_handlers.python", reason="the extra docs is not installed")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--quiet",
        "--strict",
        "--site-dir",
        tmp_path / "site",
    ]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert ended.returncode == 0, ended.stderr
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    assert "load_estimator" in api
    pages = "".join(page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("*.html"))
    # Pages are looked at on robots without a network, too.
    assert not re.findall(r"<(?:script|link)[^>]+(?:src|href)=\"https?://", pages)


def test_curves_of_the_recipe_are_drawn_from_its_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import make_assets

    points = [{"step": step, "D1 outliers": 90.0 - step, "Fl outliers": 60.0} for step in (10, 20)]
    (tmp_path / "recipe.json").write_text(
        json.dumps({"the recipe": points, "without drives": points})
    )
    chart = make_assets.training_recipe(tmp_path / "recipe.json")
    assert [series.name for series in chart.series] == ["the recipe", "without drives"]
    assert [(list(series.x), list(series.y)) for series in chart.series] == [
        ([10, 20], [80, 70])
    ] * 2
