"""What README.md states as fact is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import dwarf_ros

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table rows of one section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_topics_are_those_the_node_publishes():
    pytest.importorskip("rclpy")
    from dwarf_ros.ros.inputs import INPUT_TOPICS
    from dwarf_ros.ros.outputs import OUTPUTS

    stated = {topic for row in rows("Topics") for topic in re.findall(r"`([^`]+)`", row[0])}
    assert stated == {*INPUT_TOPICS, *OUTPUTS, "/diagnostics"}


def test_commands_exist(capsys):
    from dwarf_ros.cli import main

    stated = {re.match(r"`dwarf ([a-z-]+)", row[0]) for row in rows("The command line")}
    names = {match.group(1) for match in stated if match}
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = set(re.findall(r"^    ([a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert names == listed


def test_every_page_is_linked():
    linked = set(re.findall(r"\]\(docs/(\w+\.md)\)", README))
    pages = {page.name for page in (REPOSITORY / "docs").glob("*.md")}
    # The API is only in what `make docs` builds.
    assert linked == pages - {"api.md"}


def test_four_commands_lead_from_a_clone_to_the_node():
    section = README.split("\n## On a robot")[1].split("\n## ")[0]
    commands = section.split("```bash\n")[1].split("```")[0].splitlines()
    starts = ("mkdir -p ~/ws/src && git clone", "rosdep install", "colcon build", "ros2 launch")
    assert [c.startswith(start) for c, start in zip(commands, starts, strict=True)] == [True] * 4


def test_estimators_and_engines_are_those_there_are():
    from dwarf_ros.engines import ENGINES
    from dwarf_ros.estimators import ESTIMATORS

    titles = {"tensorflow": "TensorFlow", "openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
    assert "Engines are " + " and ".join(
        [", ".join(titles[name] for name in ENGINES[:-1]), titles[ENGINES[-1]]]
    ) in README.replace("\n", " ")
    stated = re.findall(r"^\| `(\w+)` \|.*\|$", README, re.M)
    assert [name for name in stated if name in (*ESTIMATORS, "auto")] == [*ESTIMATORS, "auto"]


def test_the_paper_is_cited_and_the_version_is_the_packages():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == dwarf_ros.__version__
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == [
        *("Aleotti", "Poggi", "Tosi", "Mattoccia")
    ]
    assert paper["identifiers"][0]["value"] == "arXiv:1911.10090"
