"""What README.md states as fact is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """Cells of the table rows of one section."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_parameters_are_those_the_node_declares():
    pytest.importorskip("rclpy")
    from dwarf_ros.ros.node import PARAMETERS

    stated = {row[0].strip("`"): row[1:] for row in rows("Parameters")[2:]}
    declared = {
        name: [
            f"`{str(spec.default).lower() if isinstance(spec.default, bool) else spec.default}`"
            if spec.default != ""
            else '`""`',
            spec.description,
            spec.changes,
        ]
        for name, spec in PARAMETERS.items()
    }
    assert stated == declared


def test_topics_are_those_the_node_publishes():
    pytest.importorskip("rclpy")
    from dwarf_ros.ros.node import INPUT_TOPICS, OUTPUTS

    stated = {topic for row in rows("Topics") for topic in re.findall(r"`([^`]+)`", row[0])}
    assert stated == {*INPUT_TOPICS, *OUTPUTS, "estimate", "/diagnostics"}


def test_commands_exist(capsys):
    from dwarf_ros.cli import main

    stated = {re.match(r"`dwarf ([a-z-]+)", row[0]) for row in rows("The command")}
    names = {match.group(1) for match in stated if match}
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = set(re.findall(r"^    ([a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert names == listed


def test_pictures_and_linked_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).resolve().parents[1] / link).exists(), link
