"""Evaluation of recordings: a procedural drive whose truth is known, from a folder and from a bag."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dwarf_ros.estimators import choose_estimator
from dwarf_ros.evaluation.bag_evaluation import (
    METRICS,
    difference_between,
    evaluate_recording,
)
from dwarf_ros.evaluation.bag_report import evaluate_bag, print_evaluation
from dwarf_ros.formats import write_disparity_png, write_flow_png, write_image
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.write import create_bag
from dwarf_ros.recordings.truth import open_truth
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import InputError, SceneFlow

CLASSICAL = choose_estimator("classical")
DRIVE = {"seed": 4, "frames": 4, "width": 256, "height": 128}


@dataclass(frozen=True)
class TrueEstimates:
    """The truth of the drive, with an error in px put into all of it."""

    error: float = 0.0

    def __call__(self, frame: int) -> SceneFlow:
        true = ProceduralDrive(**DRIVE).ground_truth(frame, frame + 1).scene_flow
        error = np.float32(self.error)
        flow = true.flow + np.array([0, error], np.float32)
        return SceneFlow(
            true.disparity + error,
            true.disparity_next + error,
            flow,
            true.valid,
            true.stamp,
            true.dt,
            true.camera,
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    write_drive(ProceduralDrive(**DRIVE), folder)
    return folder


@pytest.fixture(scope="module")
def bag(folder, tmp_path_factory) -> Path:
    bag = tmp_path_factory.mktemp("bags") / "drive"
    create_bag(open_recording(folder), bag)
    return bag


@pytest.fixture(scope="module")
def truth_folder(tmp_path_factory) -> Path:
    """Ground truth of the first and the third frame in KITTI 2015's layout; the fourth has no next frame."""
    folder = tmp_path_factory.mktemp("truth")
    drive = ProceduralDrive(**DRIVE)
    for name in ("disp_occ_0", "disp_occ_1", "flow_occ", "disp_noc_0", "disp_noc_1", "flow_noc"):
        (folder / name).mkdir()
    for frame in (0, 2):
        truth = drive.ground_truth(frame, frame + 1)
        true, name = truth.scene_flow, f"{frame:06d}.png"
        hidden = truth.disparity_occluded | truth.flow_occluded
        for region, unknown in (("occ", ~true.valid), ("noc", ~true.valid | hidden)):
            for folder_name, disparity in (("0", true.disparity), ("1", true.disparity_next)):
                values = np.where(unknown, np.float32(np.nan), disparity)
                write_disparity_png(folder / f"disp_{region}_{folder_name}" / name, values)
            flow = np.where(unknown[..., None], np.float32(np.nan), true.flow)
            write_flow_png(folder / f"flow_{region}" / name, flow)
    return folder


@pytest.fixture(scope="module")
def evaluated(bag, truth_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new"
    return evaluate_bag(bag, out, CLASSICAL, truth_folder), out


def test_every_pair_of_a_bag_is_answered_and_judged(evaluated):
    evaluation, _ = evaluated
    assert (evaluation.estimator, evaluation.engine) == ("classical", "opencv")
    assert [(pair.frame, pair.other) for pair in evaluation.pairs] == [(0, 1), (1, 2), (2, 3)]
    assert (evaluation.frames, evaluation.posed, evaluation.truths) == (4, True, 2)
    assert evaluation.live is None
    summary = evaluation.summary
    assert 30 < summary["valid_percent"] < 100
    assert summary["rigid_scene_flow_median_px"] < 1
    assert summary["photometric_left_next"] < 0.5 * summary["photometric_left_next_unwarped"]
    assert summary["D1_noc_percent"] < summary["D1_occ_percent"] < 20
    assert summary["Fl_occ_percent"] < summary["SF_occ_percent"] < 50
    assert 0 < summary["motion_epe_m"] < 2
    assert summary["live_difference_px"] is None
    assert 0 < summary["flicker_median_percent"] < 5
    for name in ("D1", "Fl"):
        assert summary[f"{name}_ause_confidence_px"] > 0
        assert summary[f"{name}_ause_valid_px"] > 0
    assert (evaluation.odometry.errors.pairs, evaluation.odometry.errors.missing) == (3, 0)
    assert 0 < evaluation.odometry.errors.frame_translation_percent < 20
    assert len(evaluation.odometry.positions) == len(evaluation.odometry.true_positions) == 4
    assert evaluation.pairs[1].figures["SF_occ_percent"] is None
    assert evaluation.pairs[2].figures["SF_occ_percent"] is not None


def test_what_was_found_is_written(evaluated, capsys):
    evaluation, out = evaluated
    assert {file.name for file in out.iterdir()} == {"evaluation.json", "frames.csv", "report.html"}
    document = json.loads((out / "evaluation.json").read_text())
    assert document["summary"] == evaluation.summary
    assert [pair["frame"] for pair in document["pairs"]] == [0, 1, 2]
    with (out / "frames.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["frame"]) for row in rows] == [0, 1, 2]
    for row, pair in zip(rows, evaluation.pairs, strict=True):
        shown = pair.figures["rigid_scene_flow_median_px"]
        assert float(row["rigid_scene_flow_median_px"]) == pytest.approx(shown, rel=1e-5)
    assert rows[1]["SF_occ_percent"] == ""
    page = (out / "report.html").read_text()
    assert "data:image" in page
    assert "2 of 3 pairs have ground truth" in page
    print_evaluation(evaluation)
    printed = capsys.readouterr().out
    assert "3D motion: end-point error" in printed
    assert "odometry: absolute trajectory error" in printed
    assert "Trajectory from above" in page
    assert f"{evaluation.summary['SF_occ_percent']:.3f}" in printed


def test_a_folder_gives_the_same_figures_as_its_bag(folder, truth_folder, evaluated):
    evaluation = evaluate_recording(folder, CLASSICAL, truth_folder)
    for key, value in evaluated[0].summary.items():
        # The poses go through quaternions in the bag.
        assert evaluation.summary[key] == pytest.approx(value, abs=0.011), key


def test_workers_change_nothing(bag, truth_folder, evaluated):
    evaluation = evaluate_recording(bag, CLASSICAL, truth_folder, workers="2")
    assert (evaluation.frames, evaluation.truths) == (evaluated[0].frames, evaluated[0].truths)
    figures, expected = (
        [e.summary, *(pair.figures for pair in e.pairs)] for e in (evaluation, evaluated[0])
    )
    for values, expected_values in zip(figures, expected, strict=True):
        assert values.keys() == expected_values.keys()
        for name, value in values.items():
            # The last digits of a fitted motion hang on how many threads NumPy's linear algebra has.
            wanted = expected_values[name]
            same = wanted is None and value is None
            assert same or value == pytest.approx(wanted, rel=1e-9), name


def test_the_truth_has_no_errors_and_errors_put_in_are_found(folder, truth_folder):
    found = [
        evaluate_recording(
            folder, CLASSICAL, truth_folder, pairs=[(0, 1)], recorded=TrueEstimates(px)
        ).summary
        for px in (0.0, 2.0, 8.0)
    ]
    true = found[0]
    for name in ("D1", "D2", "Fl", "SF"):
        assert true[f"{name}_occ_percent"] == true[f"{name}_noc_percent"] == 0
        assert found[2][f"{name}_noc_percent"] > 60
    # KITTI's files are in 1/256 and 1/64 px.
    assert true["disparity_epe_px"] < 1 / 256
    assert true["flow_epe_px"] < 1 / 32
    assert true["rigid_scene_flow_median_px"] < 0.02
    # Far away a step of the files is more than 5 cm.
    assert true["motion_strict_percent"] > 90
    for key in (
        "disparity_epe_px",
        "flow_epe_px",
        "motion_epe_m",
        "rigid_scene_flow_median_px",
        "photometric_left_next",
        "left_right_median_px",
        "forward_backward_median_px",
        "live_difference_px",
    ):
        values = [summary[key] for summary in found]
        if key == "live_difference_px":
            # Against the classical answers, which are wrong by more somewhere.
            assert min(values) > 1
        else:
            assert values[0] < values[1] < values[2], key
    assert found[1]["flow_epe_px"] == pytest.approx(2, abs=0.05)
    assert found[1]["disparity_epe_px"] == pytest.approx(2, abs=0.01)


def test_without_poses_the_answers_own_motion_remains(folder, tmp_path):
    for name in ("image_l", "image_r", "calib.txt", "times.txt"):
        (tmp_path / name).symlink_to(folder / name)
    evaluation = evaluate_recording(tmp_path, CLASSICAL, pairs=[(0, 1)])
    assert not evaluation.posed
    assert evaluation.summary["rigid_scene_flow_median_px"] is None
    assert evaluation.summary["motion_rotation_degrees"] is None
    assert evaluation.summary["fitted_scene_flow_median_px"] < 1


def test_keys_are_unique_and_name_their_units():
    keys = [measure.key for measure in METRICS]
    assert len(set(keys)) == len(keys)
    endings = {"px": "_px", "%": "_percent", "m": "_m", "degrees": "_degrees"}
    for measure in METRICS:
        assert measure.key.endswith(endings.get(measure.unit, "")), measure


def test_difference_is_the_largest_of_what_both_have():
    one = TrueEstimates()(0)
    other = TrueEstimates(0.25)(0)
    other.valid[0, :5] = ~one.valid[0, :5]
    found = difference_between(one, other)
    assert found.largest == pytest.approx(0.25, abs=1e-4)
    assert (found.one_sided, found.pairs) == (5, 1)
    assert difference_between(one, one).largest == 0
    assert (found + difference_between(one, one)).pairs == 2
    small = SceneFlow(one.disparity[:9], one.disparity_next[:9], one.flow[:9], one.valid[:9])
    with pytest.raises(InputError, match="256 x 9 px"):
        difference_between(one, small)


def scenes(folder: Path, frames: dict[str, tuple[int, ...]]) -> None:
    """A folder in KITTI 2015's layout with these frames of these scenes."""
    image = np.zeros((32, 64, 3), np.uint8)
    for name in ("image_2", "image_3", "calib_cam_to_cam"):
        (folder / name).mkdir(parents=True)
    for scene, numbers in frames.items():
        for side in ("image_2", "image_3"):
            for number in numbers:
                write_image(folder / side / f"{scene}_{number:02d}.png", image)
        lines = [
            f"P_rect_{camera}: 60 0 32 {offset} 0 60 16 0 0 0 1 0"
            for camera, offset in (("02", 0), ("03", -30))
        ]
        (folder / "calib_cam_to_cam" / f"{scene}.txt").write_text("\n".join(lines) + "\n")


def empty_truth(folder: Path, *names: str) -> Path:
    (folder / "flow_occ").mkdir(parents=True)
    for name in names:
        write_flow_png(folder / "flow_occ" / name, np.zeros((32, 64, 2), np.float32))
    return folder


@pytest.mark.parametrize("frames", [(10, 11), tuple(range(21))])
@pytest.mark.parametrize("as_bag", [False, True])
def test_truth_of_scenes_finds_its_frames(tmp_path, frames, as_bag):
    scenes(tmp_path / "kitti", {"000003": frames, "000007": frames})
    source = tmp_path / "kitti"
    if as_bag:
        source = tmp_path / "bag"
        create_bag(open_recording(tmp_path / "kitti"), source)
    truth = empty_truth(tmp_path / "truth", "000003_10.png", "000007_10.png")
    recording = open_recording(source)
    place = frames.index(10)
    found = open_truth(truth, recording)
    assert found.names == {place: "000003_10.png", place + len(frames): "000007_10.png"}
    assert found.read(place).occ.flow.shape == (32, 64, 2)
    assert found.read(place).noc is found.read(place).occ.disparity is None
    assert found.read(place + 1) is None
    last = len(frames) - 1
    assert (last, last + 1) not in recording.pairs()


def test_truth_that_does_not_fit_is_one_line(bag, tmp_path):
    recording = open_recording(bag)
    cases = {
        "nowhere": tmp_path / "nowhere",
        "no ground truth": tmp_path,
        "none of the 4 frames": empty_truth(tmp_path / "other", "000003.png", "000009.png"),
        "files of 1 scenes": empty_truth(tmp_path / "two", "000000_10.png"),
    }
    scenes(tmp_path / "kitti", {"000003": (0, 1), "000007": (0, 1)})
    two = tmp_path / "two_scenes"
    create_bag(open_recording(tmp_path / "kitti"), two)
    for message, folder in cases.items():
        with pytest.raises(InputError, match=message) as error:
            open_truth(folder, open_recording(two) if "scenes" in message else recording)
        assert "\n" not in str(error.value)


def test_truth_of_another_size_is_one_line(bag, tmp_path):
    truth = empty_truth(tmp_path / "truth", "000000.png")
    with pytest.raises(InputError, match="64 x 32 px"):
        evaluate_bag(bag, tmp_path / "out", CLASSICAL, truth)


def test_what_cannot_be_evaluated_is_named(bag, folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: "):
        evaluate_bag(bag, tmp_path / "file", CLASSICAL)
    with pytest.raises(InputError, match="workers"):
        evaluate_bag(bag, tmp_path / "out", CLASSICAL, workers="some")
    one = tmp_path / "one"
    write_drive(ProceduralDrive(seed=1, frames=1, width=64, height=64), one)
    with pytest.raises(InputError, match="1 frames"):
        evaluate_bag(one, tmp_path / "out", CLASSICAL)


def test_kitti_bag_is_evaluated_with_its_poses(real_data, tmp_path):
    create_bag(open_recording(real_data("kitti_odometry")), tmp_path / "bag")
    evaluation = evaluate_recording(tmp_path / "bag", CLASSICAL, pairs=[(4, 5)])
    assert evaluation.posed
    assert evaluation.summary["rigid_scene_flow_median_px"] < 2.5
    assert evaluation.summary["fitted_scene_flow_median_px"] < 1
    assert evaluation.summary["photometric_left_next"] < 8
    assert evaluation.summary["left_right_median_px"] < 0.5


def test_a_recording_whose_name_is_not_utf_8_gets_its_report(folder, tmp_path):
    copy = tmp_path / os.fsdecode(b"caf\xe9")
    shutil.copytree(folder, copy)
    evaluate_bag(copy, tmp_path / "out", CLASSICAL)
    assert "caf" in (tmp_path / "out" / "report.html").read_text()


def test_a_frame_that_cannot_be_read_is_left_out_and_counted(folder, tmp_path, caplog):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    images = sorted(copy.glob("image_?/*.png"))
    images[0].write_bytes(images[0].read_bytes()[:100])
    evaluation = evaluate_bag(copy, tmp_path / "out", CLASSICAL)
    assert evaluation.unread == 1
    assert len(evaluation.pairs) == evaluation.frames - 2
    assert "PNG is cut short" in evaluation.unread_reason
    assert "cannot be read" in caplog.text
    assert "1 pairs are left out" in (tmp_path / "out" / "report.html").read_text()
    for image in images:
        image.write_bytes(b"")
    with pytest.raises(InputError, match="expected a whole image file"):
        evaluate_bag(copy, tmp_path / "out", CLASSICAL)
