"""What results are found where, and what is said where there are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from dwarf_ros.estimators import choose_estimator
from dwarf_ros.formats import write_disparity_png, write_image
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.write import create_bag
from dwarf_ros.types import InputError
from dwarf_ros.viewing.sources import open_results

CLASSICAL = choose_estimator("classical")


def one_line(error: pytest.ExceptionInfo[InputError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_every_two_consecutive_frames_are_estimated_when_they_are_asked_for(drive):
    results = open_results(drive, choice=CLASSICAL)
    assert list(results.names) == ["000000", "000001", "000002"]
    for index, result in enumerate(results):
        frame = open_recording(drive)[index]
        assert np.array_equal(result.left, frame.left)
        assert result.scene_flow.stamp == frame.stamp
        assert result.scene_flow.dt == pytest.approx(0.1)
        assert result.estimator == "classical on opencv"
        assert result.seconds > 0
    only = results.only("000002")
    assert len(only) == 1
    assert only.read(0).name == "000002"
    assert np.array_equal(results.only("2").read(0).left, only.read(0).left)


@pytest.mark.parametrize("name", ["3", "-1", "000003", "x"])
def test_a_frame_that_is_not_there_is_one_line(drive, name):
    with pytest.raises(InputError, match="frame: ") as error:
        open_results(drive, choice=CLASSICAL).only(name)
    assert "0 to 2" in one_line(error)


def test_a_bag_is_estimated_as_its_images_are(drive, tmp_path):
    create_bag(open_recording(drive), tmp_path / "bag", "mcap", "")
    from_bag = open_results(tmp_path / "bag", choice=CLASSICAL).read(1)
    from_files = open_results(drive, choice=CLASSICAL).read(1)
    assert np.array_equal(from_bag.left, from_files.left)
    np.testing.assert_array_equal(from_bag.scene_flow.flow, from_files.scene_flow.flow)


def test_a_folder_of_results_is_read_as_it_is(prediction):
    results = open_results(prediction)
    assert list(results.names) == ["000000", "000001"]
    result = results.read(1)
    assert result.left is None
    assert result.scene_flow.camera is None
    assert result.scene_flow.dt == 0
    assert result.scene_flow.valid.all()
    assert (result.scene_flow.disparity == 20).all()
    assert (result.scene_flow.disparity_next == 21).all()
    assert (result.scene_flow.flow == 2).all()


def test_its_images_add_camera_and_time(prediction, drive):
    result = open_results(prediction, images=drive).read(1)
    frame = open_recording(drive)[1]
    assert np.array_equal(result.left, frame.left)
    assert result.scene_flow.camera == frame.camera
    assert result.scene_flow.dt == pytest.approx(0.1)


def test_ground_truth_is_that_of_the_same_name(prediction, drive, tmp_path):
    truth = tmp_path / "truth" / "disp_occ_0"
    truth.mkdir(parents=True)
    true = np.full((96, 192), 22, dtype=np.float32)
    for name in ("000000.png", "000001.png"):
        write_disparity_png(truth / name, true)
    for source in (prediction, drive):
        found = open_results(source, ground_truth=truth.parent, choice=CLASSICAL).read(0).truth
        assert (found.occ.disparity == 22).all()
        assert found.occ.flow is None


def test_wrong_input_is_one_line_that_names_it(prediction, drive, tmp_path):
    def said(*arguments: Path, **options: Path) -> str:
        with pytest.raises(InputError) as error:
            open_results(*arguments, choice=CLASSICAL, **options)
        return one_line(error)

    assert "nowhere" in said(tmp_path / "nowhere")
    assert "images" in said(drive, images=drive)
    assert "two of one scene" in said(write_single_frame(tmp_path / "single"))
    (tmp_path / "few").mkdir()
    write_single_frame(tmp_path / "few" / "images")
    assert "000001.png" in said(prediction, images=tmp_path / "few" / "images")
    assert "no such folder" in said(prediction, ground_truth=tmp_path / "nowhere")
    for file in (prediction / "disp_0").iterdir():
        file.unlink()
    assert "no results" in said(prediction)


def test_maps_of_different_sizes_are_one_line(prediction, drive):
    for folder in ("disp_0", "disp_1"):
        write_disparity_png(prediction / folder / "000000.png", np.ones((8, 8), dtype=np.float32))
    with pytest.raises(InputError, match="differ in size") as error:
        open_results(prediction).read(0)
    one_line(error)


def write_single_frame(folder: Path) -> Path:
    for side in ("left", "right"):
        (folder / side).mkdir(parents=True)
        write_image(folder / side / "000000.png", np.zeros((96, 192, 3), dtype=np.uint8))
    (folder / "calib.txt").write_text(
        "P2: 100 0 96 0 0 100 48 0 0 0 1 0\nP3: 100 0 96 -50 0 100 48 0 0 0 1 0\n"
    )
    return folder


def test_results_of_damaged_frames_are_left_out(drive, tmp_path, caplog):
    copy = tmp_path / "drive"
    shutil.copytree(drive, copy)
    left = [file for file, _ in open_recording(copy).files]
    left[0].write_bytes(left[0].read_bytes()[:100])
    results = open_results(copy, choice=CLASSICAL)
    assert [result.name for result in results] == ["000001", "000002"]
    assert "000000 is left out: " in caplog.text
    for file in left:
        file.write_bytes(b"")
    with pytest.raises(InputError, match="expected a whole image file"):
        list(open_results(copy, choice=CLASSICAL))
