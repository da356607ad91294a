"""Whole and damaged .db3 files."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from bag_fixtures import STAMPS, recording, write_bag

from dwarf_ros.recordings.bag.info import bag_info
from dwarf_ros.recordings.bag.open import open_bag
from dwarf_ros.types import InputError


def test_a_message_that_is_damaged_is_lost_alone(tmp_path):
    path = write_bag(tmp_path / "bag", recording(STAMPS), "sqlite3")
    with sqlite3.connect(path / "bag.db3") as database:
        database.execute(
            "UPDATE messages SET data = X'00010000' WHERE id = (SELECT max(messages.id) FROM messages "
            "JOIN topics ON topic_id = topics.id WHERE name = '/left/image_rect')"
        )
    database.close()
    info = bag_info(path)
    assert info.frames == 5
    assert "1 messages on /left/image_rect cannot be read" in info.notes


@pytest.mark.parametrize("name", ["a?b#c%41", os.fsdecode(b"caf\xe9")])
def test_any_name_is_read(tmp_path, name):
    path = write_bag(tmp_path / "bag", recording(STAMPS), "sqlite3")
    assert len(open_bag(path.rename(tmp_path / name))) == 6


def test_a_log_that_is_not_merged_is_reported(tmp_path):
    path = write_bag(tmp_path / "bag", recording(STAMPS), "sqlite3")
    (path / "bag.db3-wal").write_bytes(b"x")
    assert any("wal_checkpoint" in note for note in bag_info(path).notes)


def test_a_damaged_schema_is_one_line(tmp_path):
    path = write_bag(tmp_path / "bag", recording(STAMPS), "sqlite3") / "bag.db3"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"message_definitions(\n", b'message_definitions("\n\n'[:21], 1))
    with pytest.raises(InputError, match="expected a database of rosbag2") as raised:
        open_bag(path)
    assert "\n" not in str(raised.value)


def test_what_is_no_database_is_one_line(tmp_path):
    file = Path(tmp_path / "bag.db3")
    for data in (b"", b"x" * 5000):
        file.write_bytes(data)
        with pytest.raises(InputError, match="expected a database of rosbag2"):
            open_bag(file)
