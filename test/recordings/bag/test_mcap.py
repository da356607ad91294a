"""Legal and damaged .mcap files: what is whole is read, and what is not is reported."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_fixtures import MS, STAMPS, recording, write_mcap

from dwarf_ros.recordings.bag.info import bag_info
from dwarf_ros.recordings.bag.mcap import McapFile
from dwarf_ros.recordings.bag.open import open_bag
from dwarf_ros.types import InputError

MESSAGES = recording(STAMPS)


def assert_whole(path: Path) -> None:
    bag = open_bag(path)
    assert bag.stamps == STAMPS
    for index, stamp in enumerate(STAMPS):
        left, right, _ = bag.read(index)
        assert (left == stamp // MS % 251).all()
        assert (right == stamp // MS % 251).all()
    info = bag_info(path)
    assert info.problems == info.notes == info.unused == ()
    assert {topic.count for topic in info.topics if "my_" not in topic.name} == {6}


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"per_chunk": 0},
        {"per_chunk": 0, "summary": False},
        {"message_index": False},
        {"summary": False},
        {"repeated": False},
        {"message_index": False, "repeated": False},
        {"profile": ""},
        {"profile": "x-other", "summary": False},
        {"compression": "zstd"},
        {"compression": "lz4", "summary": False},
        {"foreign": ("json", "protobuf")},
        {"foreign": ("json",), "summary": False, "profile": ""},
    ],
    ids=str,
)
def test_legal_files_are_read_whole(tmp_path, variant):
    path = write_mcap(tmp_path / "bag.mcap", MESSAGES, **variant)
    assert_whole(path)
    for encoding in variant.get("foreign", ()):
        kinds = {topic.name: topic.type for topic in bag_info(path).topics}
        assert kinds[f"/my_{encoding}"] == f"my.{encoding} ({encoding})"


def test_messages_out_of_order_are_sorted(tmp_path):
    path = write_mcap(tmp_path / "bag.mcap", MESSAGES[::-1], per_chunk=3)
    file = McapFile(path)
    times = [log_time for log_time, _, _ in file.messages(file.channels)]
    assert times == sorted(times)
    assert len(times) == len(MESSAGES)
    window = [t for t, _, _ in file.messages(file.channels, times[5], times[9])]
    assert window == [time for time in times if times[5] <= time < times[9]]
    file.close()


@pytest.mark.parametrize("compression", ["", "zstd", "lz4"])
@pytest.mark.parametrize("per_chunk", [0, 4, 100])
def test_a_recording_that_is_cut_off_keeps_what_is_whole(tmp_path, per_chunk, compression):
    path = write_mcap(tmp_path / "bag.mcap", MESSAGES, per_chunk, compression, summary=False)
    data = path.read_bytes()
    if per_chunk == 0 and compression:
        pytest.skip("no chunks to compress")
    path.write_bytes(data[: int(0.8 * len(data))])
    info = bag_info(path)
    # A chunk of LZ4 that is cut off may have nothing that is whole.
    if per_chunk < 100 or not compression:
        assert 3 <= info.frames < 6
        assert not info.problems
    assert any("mcap recover" in note or "end of" in note for note in info.notes), info


def test_a_damaged_chunk_loses_its_messages_only(tmp_path):
    for summary in (True, False):
        path = write_mcap(tmp_path / f"{summary}.mcap", MESSAGES, 4, "zstd", summary=summary)
        whole = open_bag(path)
        assert len(whole) == 6
        block = whole._reader.storage._files[0]._blocks[2]
        data = bytearray(path.read_bytes())
        for position in range(block.offset + 60, block.offset + block.length, 7):
            data[position] ^= 0x55
        path.write_bytes(data)
        info = bag_info(path)
        assert info.frames == 5
        assert any("in the messages at byte" in note for note in info.notes)


def test_what_is_no_mcap_file_is_one_line(tmp_path):
    path = tmp_path / "bag.mcap"
    for data, expected in ((b"", "empty file"), (b"x" * 100, "does not start as an .mcap file")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=expected) as raised:
            open_bag(path)
        assert "\n" not in str(raised.value)
