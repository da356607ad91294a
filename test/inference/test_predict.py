from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from dwarf_ros.datasets.kitti import Kitti2012, KittiDrive
from dwarf_ros.estimators import EstimatorChoice, choose_estimator
from dwarf_ros.evaluation.kitti.folder import evaluate_folder
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    read_image,
    write_image,
)
from dwarf_ros.inference.predict import RECORD, predict
from dwarf_ros.motion.refined import load_estimator
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS as FOLDERS
from dwarf_ros.recordings.result_folder import (
    MOTION_FOLDERS,
    ResultFolder,
    ego_motion_document,
)
from dwarf_ros.types import InputError

CLASSICAL = choose_estimator("classical")

FRAMES = 25
WIDTH, HEIGHT = 192, 96
DISPARITY, SHIFT = 6, 3


@pytest.fixture(scope="module")
def drive(tmp_path_factory):
    """A wall of texture that passes sideways: the same disparity and optical flow everywhere."""
    root = tmp_path_factory.mktemp("drive")
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, (HEIGHT, 512, 3), dtype=np.uint8)
    texture = cv2.GaussianBlur(texture, (0, 0), 1.5)
    for camera, offset in (("left", 0), ("right", DISPARITY)):
        (root / camera).mkdir()
        for frame in range(FRAMES):
            start = 20 + SHIFT * frame + offset
            write_image(root / camera / f"{frame:06d}.png", texture[:, start : start + WIDTH])
    row = "100 0 96 {} 0 100 48 0 0 0 1 0"
    (root / "calib.txt").write_text(f"P0: {row.format(0)}\nP1: {row.format(-50)}\n")
    return root


@pytest.fixture(scope="module")
def results(drive, tmp_path_factory):
    """What one process makes of the drive without interruption."""
    out = tmp_path_factory.mktemp("results") / "out"
    summary = predict(KittiDrive(drive), out, CLASSICAL)
    assert (summary.samples, summary.predicted) == (FRAMES - 1, FRAMES - 1)
    return out


@pytest.fixture
def partly_done(results, tmp_path):
    """A folder of results that lacks the last four samples."""
    out = tmp_path / "out"
    shutil.copytree(results, out)
    for frame in range(FRAMES - 5, FRAMES - 1):
        for file in out.rglob(f"{frame:06d}.*"):
            file.unlink()
    return out


def files(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.*"))}


def times(out):
    return {file: file.stat().st_mtime_ns for file in sorted(out.rglob("*.png"))}


def test_a_folder_as_submitted_to_kitti(results):
    names = [f"{frame:06d}.png" for frame in range(FRAMES - 1)]
    assert sorted(path.name for path in results.iterdir()) == sorted(
        [*FOLDERS, *MOTION_FOLDERS, RECORD]
    )
    for folder in FOLDERS:
        assert sorted(path.name for path in (results / folder).iterdir()) == names
    inside = np.s_[20:-20, 40:-40]
    disparity = read_disparity_png(results / "disp_0" / "000003.png")
    disparity_next = read_disparity_png(results / "disp_1" / "000003.png")
    flow = read_flow_png(results / "flow" / "000003.png")
    assert np.nanmedian(disparity[inside]) == pytest.approx(DISPARITY, abs=0.2)
    assert np.nanmedian(disparity_next[inside]) == pytest.approx(DISPARITY, abs=0.5)
    assert np.nanmedian(flow[inside][..., 0]) == pytest.approx(-SHIFT, abs=0.2)


def test_the_files_are_those_of_the_estimator(drive, results):
    dataset = KittiDrive(drive)
    estimate = load_estimator("classical").estimate(*dataset.frames(5))
    written = read_disparity_png(results / "disp_0" / "000005.png")
    assert np.nanmax(np.abs(written - estimate.disparity)) <= 1 / 512
    assert np.nanmax(np.abs(read_flow_png(results / "flow" / "000005.png") - estimate.flow)) <= (
        1 / 128
    )


def test_motion_and_confidence_are_beside_the_maps(drive, results):
    estimate = load_estimator("classical").estimate(*KittiDrive(drive).frames(5))
    document = json.loads((results / "motion/000005.json").read_text())
    assert document == ego_motion_document(estimate.ego_motion)
    moving = read_image(results / "moving/000005.png")
    if estimate.motion_mask is None:
        assert (moving == 127).all()
    else:
        np.testing.assert_array_equal(moving, estimate.motion_mask)
        confidences = ResultFolder(results).read_confidences("000005")
        for found, true in zip(
            confidences, (estimate.disparity_confidence, estimate.flow_confidence), strict=True
        ):
            np.testing.assert_allclose(found, true, atol=1e-5)


def test_without_refinement_there_are_maps_only(drive, tmp_path):
    predict(KittiDrive(drive), tmp_path, choose_estimator("classical", refine="none"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FOLDERS, RECORD])
    with pytest.raises(InputError, match="refinement none, now it is rigid"):
        predict(KittiDrive(drive), tmp_path, CLASSICAL)


def test_the_record_says_what_made_the_results(drive, results):
    record = json.loads((results / RECORD).read_text())
    assert record["dataset"] == f"stereo drive {drive.name}"
    assert (record["estimator"], record["engine"]) == ("classical", "opencv")
    assert record["weights"] is None
    assert record["weights_sha256"] is None
    sizes = [file.stat().st_size for file in KittiDrive(drive).images(7)]
    assert record["image_bytes"]["000007"] == sizes


def test_progress_goes_from_what_is_there_to_all(drive, partly_done):
    steps = []
    predict(KittiDrive(drive), partly_done, CLASSICAL, progress=lambda *step: steps.append(step))
    assert steps == [(done, FRAMES - 1) for done in range(FRAMES - 5, FRAMES)]


def test_nothing_is_done_twice(drive, partly_done, results):
    before = times(partly_done)
    summary = predict(KittiDrive(drive), partly_done, CLASSICAL)
    assert (summary.samples, summary.predicted) == (FRAMES - 1, 4)
    after = times(partly_done)
    assert {file: after[file] for file in before} == before
    assert files(partly_done) == files(results)
    assert predict(KittiDrive(drive), partly_done, CLASSICAL).predicted == 0
    assert times(partly_done) == after


def test_a_sample_that_lacks_a_file_is_made_anew(drive, partly_done, results):
    (partly_done / "disp_1" / "000002.png").unlink()
    assert predict(KittiDrive(drive), partly_done, CLASSICAL).predicted == 5
    assert files(partly_done) == files(results)


def test_what_a_killed_writer_left_is_no_result_and_goes(drive, partly_done, results):
    for folder in FOLDERS:
        (partly_done / folder / ".000023.png.12-0.part").write_bytes(b"half")
    assert predict(KittiDrive(drive), partly_done, CLASSICAL).predicted == 4
    assert files(partly_done) == files(results)


PREDICT = """
import signal
# Whoever runs the tests in the background may have it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
import sys
from pathlib import Path
from dwarf_ros.datasets.kitti import KittiDrive
from dwarf_ros.estimators import choose_estimator
from dwarf_ros.inference.predict import predict

def report(done, total):
    print(done, flush=True)

predict(KittiDrive(Path(sys.argv[1])), Path(sys.argv[2]), choose_estimator("classical"), progress=report)
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_goes_on_where_it_stopped(drive, results, tmp_path, blow):
    out = tmp_path / "out"
    command = [sys.executable, "-c", PREDICT, str(drive), str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        for line in child.stdout:
            if line == "4\n":
                child.send_signal(blow)
                break
        child.stdout.read()
        assert child.wait() not in (0, 2)
    before = times(out)
    whole = [
        name
        for name in (file.name for file in (out / "flow").glob("*.png"))
        if all((out / folder / name).is_file() for folder in FOLDERS)
    ]
    assert 4 <= len(whole) < FRAMES - 1
    summary = predict(KittiDrive(drive), out, CLASSICAL)
    assert summary.predicted == FRAMES - 1 - len(whole)
    after = times(out)
    for name in whole:
        for folder in FOLDERS:
            assert after[out / folder / name] == before[out / folder / name]
    assert files(out) == files(results)


def change_record(out, key, value):
    record = json.loads((out / RECORD).read_text())
    record[key] = value
    (out / RECORD).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("estimator", "dwarf", "estimator dwarf, now it is classical"),
        ("engine", "tensorflow", "engine tensorflow, now it is opencv"),
        ("weights_sha256", "ab12", "SHA-256 of the weights ab12, now it is None"),
        ("dataset", "KITTI 2012, training", "data set KITTI 2012, training, now it is stereo"),
        ("version", "0.0.1", "version of dwarf_ros 0.0.1, now it is"),
    ],
)
def test_a_folder_of_something_else_is_refused(drive, partly_done, key, value, words):
    change_record(partly_done, key, value)
    before = files(partly_done)
    message = rf"^{re.escape(str(partly_done / RECORD))}: folder was begun with {words}"
    with pytest.raises(InputError, match=message):
        predict(KittiDrive(drive), partly_done, CLASSICAL)
    assert files(partly_done) == before


def test_other_samples_are_refused(drive, partly_done, tmp_path):
    longer = tmp_path / drive.name
    shutil.copytree(drive, longer)
    for camera in ("left", "right"):
        shutil.copy(longer / camera / "000000.png", longer / camera / f"{FRAMES:06d}.png")
    with pytest.raises(
        InputError, match=r"begun with 24 samples, now there are 25 \(sample 000024"
    ):
        predict(KittiDrive(longer), partly_done, CLASSICAL)


def test_a_changed_image_is_named(drive, partly_done, tmp_path):
    changed = tmp_path / drive.name
    shutil.copytree(drive, changed)
    file = changed / "right" / "000004.png"
    write_image(file, 255 - read_image(file) // 2)
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(file))}: has \d+ bytes but had \d+ when"
    ):
        predict(KittiDrive(changed), partly_done, CLASSICAL)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"image_bytes": 3}', '{"image_bytes": {"a": 1}}'])
def test_a_damaged_record_is_named(drive, partly_done, text):
    (partly_done / RECORD).write_text(text)
    with pytest.raises(InputError, match=rf"^{re.escape(str(partly_done / RECORD))}: "):
        predict(KittiDrive(drive), partly_done, CLASSICAL)


def test_results_of_others_are_not_added_to(drive, partly_done):
    (partly_done / RECORD).unlink()
    with pytest.raises(InputError, match=r"disp_0/\d+\.png: is there but no .*prediction\.json"):
        predict(KittiDrive(drive), partly_done, CLASSICAL)


@pytest.mark.parametrize("workers", [None, "2"])
def test_a_damaged_image_is_named_and_nothing_is_half_written(drive, tmp_path, workers):
    damaged = tmp_path / "drive"
    shutil.copytree(drive, damaged)
    file = damaged / "left" / "000009.png"
    file.write_bytes(file.read_bytes()[:-50])
    out = tmp_path / "out"
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}: offset \d+: PNG is cut short"):
        predict(KittiDrive(damaged), out, CLASSICAL, workers=workers)
    for folder in FOLDERS:
        assert not (out / folder / "000008.png").exists()
        for result in (out / folder).glob("*.png"):
            assert read_image(result).shape[:2] == (HEIGHT, WIDTH)


def test_a_missing_image_is_named(drive, tmp_path):
    lacking = tmp_path / "drive"
    shutil.copytree(drive, lacking)
    dataset = KittiDrive(lacking)
    (lacking / "left" / "000009.png").unlink()
    with pytest.raises(InputError, match=r"left/000009\.png: cannot be read: No such file"):
        predict(dataset, tmp_path / "out", CLASSICAL)


def test_a_file_in_place_of_the_folder(drive, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match=r"out.*expected a folder to write to$"):
        predict(KittiDrive(drive), tmp_path / "out", CLASSICAL)


def test_wrong_workers_are_refused_before_anything_is_written(drive, tmp_path):
    with pytest.raises(InputError, match=r"^workers: 'many', expected"):
        predict(KittiDrive(drive), tmp_path / "out", CLASSICAL, workers="many")
    assert not (tmp_path / "out").exists()


def test_what_auto_comes_to_without_loading_it():
    assert choose_estimator("classical") == EstimatorChoice("classical", None, "opencv")
    assert choose_estimator().name in ("classical", "dwarf_lite")


def test_workers_give_the_same_results_though_one_is_killed(
    drive, results, tmp_path, worker_killer
):
    out = tmp_path / "out"
    summary = predict(KittiDrive(drive), out, CLASSICAL, workers="2", progress=worker_killer)
    assert worker_killer.killed
    assert summary.predicted == FRAMES - 1
    assert files(out) == files(results)


def test_evaluation_by_workers_is_the_same(real_data):
    folder = real_data("devkit_small")
    alone = evaluate_folder(folder / "res", folder / "gt")
    shared = evaluate_folder(folder / "res", folder / "gt", workers="2")
    assert shared.images == alone.images
    assert shared.to_dict() == alone.to_dict()


def test_real_images_are_predicted_and_scored(real_data, tmp_path):
    root = real_data("kitti2012")
    predict(Kitti2012(root), tmp_path / "out", CLASSICAL)
    scores = evaluate_folder(tmp_path / "out", root / "training").to_dict()
    assert scores["D1"]["occ"]["all"] < 15
    assert scores["Fl"]["occ"]["all"] < 30
