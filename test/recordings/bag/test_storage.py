"""Bags in odd states: reindexed, compressed, split, or with files missing."""

from __future__ import annotations

import pytest
from bag_fixtures import MS, STAMPS, recording, write_bag, write_mcap

from dwarf_ros.recordings.bag.info import bag_info
from dwarf_ros.recordings.bag.mcap import zstd
from dwarf_ros.recordings.bag.open import open_bag
from dwarf_ros.types import InputError


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("identifier", ['""', "other"])
def test_the_name_of_a_file_tells_its_storage(tmp_path, storage, identifier):
    path = write_bag(tmp_path / "bag", recording(STAMPS), storage)
    text = (path / "metadata.yaml").read_text()
    (path / "metadata.yaml").write_text(
        text.replace(f"storage_identifier: {storage}", f"storage_identifier: {identifier}")
    )
    assert len(open_bag(path)) == 6


def test_a_compressed_file_is_read_without_metadata(tmp_path):
    stamps = [STAMPS[0] + 100 * MS * number for number in range(60)]
    whole = write_mcap(tmp_path / "bag.mcap", recording(stamps)).read_bytes()
    folder = tmp_path / "bag"
    folder.mkdir()
    packed = folder / "bag.mcap.zstd"
    packed.write_bytes(zstd().compress(whole))
    for path in (folder, packed):
        assert len(open_bag(path)) == 60
    packed.write_bytes(packed.read_bytes()[:-100])
    info = bag_info(folder)
    assert 0 < info.frames < 60
    assert any("ends early" in note for note in info.notes)
    packed.write_bytes(b"no zstd at all")
    with pytest.raises(InputError, match="`zstd -d` can decompress"):
        open_bag(folder)


def test_messages_compressed_one_by_one_are_read(tmp_path):
    from bag_fixtures import STORE
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for topic, log_time, message in recording(STAMPS):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
            writer.write(connections[topic], log_time, STORE.serialize_cdr(message, kind))
    assert len(open_bag(tmp_path / "bag")) == 6


def test_of_a_split_bag_the_files_that_are_there_are_read(tmp_path):
    messages = recording(STAMPS)
    folder = tmp_path / "bag"
    folder.mkdir()
    write_mcap(folder / "bag_0.mcap", messages[:12])
    write_mcap(folder / "bag_1.mcap", messages[12:])
    assert open_bag(folder).stamps == STAMPS
    (folder / "bag_1.mcap").write_bytes(b"damaged")
    info = bag_info(folder)
    assert info.frames == 3
    assert any("bag_1.mcap" in note for note in info.notes)
    names = "\n  - ".join(["", "bag_0.mcap", "bag_1.mcap", "bag_2.mcap"])
    (folder / "metadata.yaml").write_text(
        f"rosbag2_bagfile_information:\n  relative_file_paths:{names}\n"
    )
    assert any("bag_2.mcap: no such file" in note for note in bag_info(folder).notes)
