"""Labels by teachers: what is kept, where it goes, and that a network learns from it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import keras
import numpy as np
import pytest

from dwarf_ros import network
from dwarf_ros.datasets.kitti import Kitti2015MultiView
from dwarf_ros.datasets.splits import Proxies
from dwarf_ros.estimators import (
    EstimatorChoice,
    choose_estimator,
    load,
)
from dwarf_ros.evaluation.bag_evaluation import evaluate_recording
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    read_image,
    write_disparity_png,
    write_flow_png,
    write_image,
)
from dwarf_ros.inference.distill import RECORD, distill
from dwarf_ros.metrics import disparity_errors, flow_errors
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.write import create_bag
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.training.config import parse_config
from dwarf_ros.training.data import open_samples
from dwarf_ros.training.trainer import make_model, train, validate
from dwarf_ros.types import InputError, StereoCamera

CLASSICAL = choose_estimator("classical", refine="none")

FRAMES, LEARNT = 20, 14
PAIRS = FRAMES - 2
WIDTH, HEIGHT = 192, 96
DISPARITY, SHIFT = 6, 3
CAMERA = StereoCamera(100, 100, 96, 48, 96, 0.5, WIDTH, HEIGHT)


def views(texture, frame, offsets=(0, DISPARITY)):
    start = 20 + SHIFT * frame
    return [texture[:, start + offset : start + offset + WIDTH] for offset in offsets]


@pytest.fixture(scope="module")
def texture():
    rng = np.random.default_rng(0)
    return cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, 400, 3), np.uint8), (0, 0), 1.5)


@pytest.fixture(scope="module")
def wall(texture, tmp_path_factory):
    """Texture that passes sideways: the same disparity and optical flow everywhere."""
    root = tmp_path_factory.mktemp("wall")
    for side in ("left", "right"):
        (root / side).mkdir()
    for frame in range(FRAMES):
        for side, image in zip(("left", "right"), views(texture, frame), strict=True):
            write_image(root / side / f"{frame:06d}.png", image)
    row = "100 0 96 {} 0 100 48 0 0 0 1 0"
    (root / "calib.txt").write_text(f"P0: {row.format(0)}\nP1: {row.format(-50)}\n")
    (root / "times.txt").write_text("".join(f"{100 + 0.2 * i:.9f}\n" for i in range(FRAMES)))
    return root


@pytest.fixture(scope="module")
def labelled(wall, tmp_path_factory):
    """What one process makes of the wall without interruption."""
    out = tmp_path_factory.mktemp("labelled") / "out"
    summary = distill(wall, out, CLASSICAL, hold_out=30)
    assert (summary.pairs, summary.held_out, summary.labelled) == (PAIRS, 5, PAIRS)
    assert (summary.teacher, summary.engine) == ("classical", "opencv")
    assert list(summary.density) == list(RESULT_FOLDERS)
    return out


@pytest.fixture(scope="module")
def drive():
    return ProceduralDrive(seed=12, frames=6, width=256, height=128)


@pytest.fixture(scope="module")
def recorded_drive(drive, tmp_path_factory):
    """The drive as a folder of images and as a bag."""
    root = tmp_path_factory.mktemp("drive")
    write_drive(drive, root / "folder")
    create_bag(open_recording(root / "folder"), root / "bag")
    return root


def files(out):
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*.*"))}


def labels(folder, name):
    return (
        read_disparity_png(folder / "disp_0" / f"{name}.png"),
        read_disparity_png(folder / "disp_1" / f"{name}.png"),
        read_flow_png(folder / "flow" / f"{name}.png"),
    )


# What is kept.


def test_labels_by_the_camera_s_motion_are_added(recorded_drive, tmp_path):
    plain, rigid = (
        distill(recorded_drive / "folder", tmp_path / str(added), CLASSICAL, rigid=added)
        for added in (False, True)
    )
    assert rigid.density["disp_0"] == plain.density["disp_0"]
    for name in ("disp_1", "flow"):
        assert rigid.density[name] > plain.density[name] + 3
    assert json.loads((tmp_path / "True" / RECORD).read_text())["rigid"] is True
    with pytest.raises(InputError, match="begun with rigid labels True, now it is False"):
        distill(recorded_drive / "folder", tmp_path / "True", CLASSICAL)


def test_kept_pixels_of_classical_are_more_accurate_than_those_dropped(
    drive, recorded_drive, tmp_path
):
    summary = distill(recorded_drive / "folder", tmp_path / "out", CLASSICAL)
    assert all(40 < density < 95 for density in summary.density.values())
    pooled = {}
    for index in range(2):
        answer = load(choose_estimator("classical")).estimate(drive[index], drive[index + 1])
        truth = drive.ground_truth(index, index + 1).scene_flow
        kept = labels(tmp_path / "out" / "training", f"{index:06d}")
        for name, measure, given, label in zip(
            ("disparity", "disparity_next", "flow"),
            (disparity_errors, disparity_errors, flow_errors),
            (answer.disparity, answer.disparity_next, answer.flow),
            kept,
            strict=True,
        ):
            true = getattr(truth, name)
            dropped = np.where(np.isfinite(label), np.float32(np.nan), given)
            for part, values in (("kept", label), ("all", given), ("dropped", dropped)):
                errors = measure(values, true)
                pooled[name, part] = pooled[name, part] + errors if (name, part) in pooled else errors  # fmt: skip
    rates = {key: errors.outlier_rate for key, errors in pooled.items()}
    for name in ("disparity", "disparity_next", "flow"):
        assert rates[name, "kept"] < 5, rates
        assert rates[name, "kept"] < 0.8 * rates[name, "all"], rates
        assert rates[name, "kept"] < 0.25 * rates[name, "dropped"], rates


# Where it goes.


def test_labels_and_images_lie_as_a_data_set_and_a_sequence(wall, labelled):
    source = open_recording(wall)
    for part, frames in (("training", range(LEARNT)), ("held_out", range(LEARNT, FRAMES))):
        folder = labelled / part
        sequence = open_recording(folder)
        assert sequence.names == [f"{i:06d}" for i in frames]
        assert sequence.stamps == [source.stamps[i] for i in frames]
        assert sequence[0].camera == source[0].camera == CAMERA
        assert sequence.files[1][0].samefile(source.files[frames[1]][0])
        assert np.array_equal(sequence[1].right, source[frames[1]].right)
        samples = Proxies(folder)
        assert samples.names == [f"{i:06d}" for i in frames[:-1]]
        inside = np.s_[20:-20, 40:-40]
        maps = samples[0].ground_truth.occ
        assert np.nanmedian(maps.disparity[inside]) == pytest.approx(DISPARITY, abs=0.2)
        assert np.nanmedian(maps.disparity_next[inside]) == pytest.approx(DISPARITY, abs=0.2)
        assert np.nanmedian(maps.flow[inside][..., 0]) == pytest.approx(-SHIFT, abs=0.2)
        assert np.isfinite(maps.disparity[inside]).mean() > 0.9
        assert np.isnan(maps.disparity[:, :DISPARITY]).all()
        assert np.isnan(maps.flow[:, :SHIFT]).all()
    assert not list(labelled.rglob(".*"))


def test_images_are_copied_to_where_they_cannot_be_linked(wall, labelled):
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == wall.stat().st_dev:
        pytest.skip("no second file system to write to: /dev/shm is absent or the same")
    with TemporaryDirectory(dir=memory) as elsewhere:
        out = Path(elsewhere) / "out"
        distill(wall, out, CLASSICAL, hold_out=30)
        assert files(out) == files(labelled)
        copy = out / "training" / "image_2" / "000000.png"
        assert not copy.samefile(wall / "left" / "000000.png")


def test_poses_go_with_the_frames(wall, tmp_path):
    posed = tmp_path / "posed"
    shutil.copytree(wall, posed)
    rows = (f"1 0 0 {i} 0 1 0 0 0 0 1 {2 * i}\n" for i in range(FRAMES))
    (posed / "poses.txt").write_text("".join(rows))
    distill(posed, tmp_path / "out", CLASSICAL, hold_out=30)
    poses = open_recording(tmp_path / "out" / "held_out").poses
    assert poses[:, :3, 3].tolist() == [[i, 0, 2 * i] for i in range(LEARNT, FRAMES)]


def test_a_bag_gets_the_labels_of_its_images(wall, labelled, tmp_path):
    create_bag(open_recording(wall), tmp_path / "bag")
    out = tmp_path / "out"
    assert distill(tmp_path / "bag", out, CLASSICAL, hold_out=30).pairs == PAIRS
    for name, content in files(labelled).items():
        if Path(name).parent.name in RESULT_FOLDERS:
            assert (out / name).read_bytes() == content, name
        elif name.endswith(".png"):
            assert np.array_equal(read_image(out / name), read_image(labelled / name)), name
    steps = np.diff(open_recording(out / "training").stamps)
    assert set(steps) == {200_000_000}
    assert Proxies(out / "held_out").frames(0)[0].camera == CAMERA


@dataclass
class Recorded:
    """Grey frames, the third of which comes long after the second, with another camera."""

    texture: np.ndarray
    stamps = (2000 * 10**9, 2000 * 10**9 + 10**8, 2100 * 10**9, 2100 * 10**9 + 10**8)
    poses = None
    frame_id = "camera"

    def __len__(self):
        return len(self.stamps)

    def read(self, index):
        left, right = (np.ascontiguousarray(v[..., 0]) for v in views(self.texture, index))
        return left, right, replace(CAMERA, baseline=0.5 + index // 2)


def test_there_is_no_label_from_one_scene_of_a_bag_to_the_next(texture, tmp_path):
    create_bag(Recorded(texture), tmp_path / "bag")
    distill(tmp_path / "bag", tmp_path / "out", CLASSICAL)
    folder = tmp_path / "out" / "training"
    names = sorted(file.stem for file in (folder / "flow").iterdir())
    assert names == ["000000_00", "000001_00"]
    sequence = open_recording(folder)
    assert sequence.scenes == [0, 0, 1, 1]
    assert [sequence[i].camera.baseline for i in (0, 3)] == [0.5, 1.5]
    assert sequence.read(2)[0].ndim == 2
    assert Proxies(tmp_path / "out").names == names


def test_kitti_itself_gets_labels_beside_its_images(texture, tmp_path):
    training = tmp_path / "kitti" / "training"
    for folder in ("image_2", "image_3", "calib_cam_to_cam"):
        (training / folder).mkdir(parents=True)
    row = "100 0 96 {} 0 100 48 0 0 0 1 0"
    for scene in ("000000", "000001"):
        text = f"P_rect_02: {row.format(0)}\nP_rect_03: {row.format(-50)}\n"
        (training / "calib_cam_to_cam" / f"{scene}.txt").write_text(text)
        for frame in range(3):
            for side, image in zip(("image_2", "image_3"), views(texture, frame), strict=True):
                write_image(training / side / f"{scene}_{frame:02d}.png", image)
    before = files(tmp_path / "kitti")
    for source in ("kitti", "kitti/training"):
        with pytest.raises(InputError, match=r"^hold_out: .*kitti is the source itself"):
            distill(tmp_path / source, tmp_path / "kitti", CLASSICAL, hold_out=50)
    assert files(tmp_path / "kitti") == before

    assert distill(tmp_path / "kitti", tmp_path / "kitti", CLASSICAL).pairs == 4
    added = files(tmp_path / "kitti").keys() - before.keys()
    names = ("000000_00", "000000_01", "000001_00", "000001_01")
    expected = {f"training/{folder}/{name}.png" for folder in RESULT_FOLDERS for name in names}
    assert added == {RECORD, *expected}
    assert Proxies(tmp_path / "kitti").names == list(names)

    shutil.rmtree(tmp_path / "kitti" / "training" / "flow")
    (tmp_path / "kitti" / RECORD).unlink()
    with pytest.raises(InputError, match=r"training/disp_0/\d+_\d+\.png: is there but no"):
        distill(tmp_path / "kitti", tmp_path / "kitti", CLASSICAL)
    distill(tmp_path / "kitti", tmp_path / "apart", CLASSICAL, hold_out=50)
    assert Kitti2015MultiView(tmp_path / "apart").names == list(names[:2])
    assert Proxies(tmp_path / "apart" / "held_out").names == list(names[2:])


# Begun, interrupted, gone on with.


@pytest.fixture
def partly_done(labelled, tmp_path):
    """A folder that lacks one file of a pair, all labels of another and an image."""
    out = tmp_path / "partly"
    shutil.copytree(labelled, out)
    (out / "training" / "disp_1" / "000002.png").unlink()
    for folder in RESULT_FOLDERS:
        (out / "held_out" / folder / "000015.png").unlink()
        (out / "held_out" / folder / ".000015.png.12-0.part").write_bytes(b"half")
    (out / "training" / "image_3" / "000005.png").unlink()
    return out


def test_what_is_there_is_not_made_again(wall, partly_done, labelled):
    steps = []
    times = {file: file.stat().st_mtime_ns for file in partly_done.rglob("*.png")}
    summary = distill(
        wall, partly_done, CLASSICAL, hold_out=30, progress=lambda *step: steps.append(step)
    )
    assert (summary.pairs, summary.labelled) == (PAIRS, 2)
    assert steps == [(done, PAIRS) for done in range(PAIRS + 1)]
    assert files(partly_done) == files(labelled)
    for file, time in times.items():
        assert file.stat().st_mtime_ns == time or file.stem in ("000002", "000015")
    again = distill(wall, partly_done, CLASSICAL, hold_out=30)
    assert again.labelled == 0
    assert again.density == summary.density
    assert 60 < again.density["disp_1"] <= again.density["flow"] < 100


DISTILL = """
import sys
from pathlib import Path
from dwarf_ros.estimators import choose_estimator
from dwarf_ros.inference.distill import distill

def report(done, total):
    print(done, flush=True)

distill(Path(sys.argv[1]), Path(sys.argv[2]), choose_estimator("classical", refine="none"), hold_out=30, progress=report)
"""


def test_an_interrupted_run_goes_on_where_it_stopped(wall, labelled, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-c", DISTILL, str(wall), str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        for line in child.stdout:
            if line == "3\n":
                child.send_signal(signal.SIGKILL)
                break
        child.stdout.read()
        assert child.wait() == -signal.SIGKILL
    summary = distill(wall, out, CLASSICAL, hold_out=30)
    assert 0 < summary.labelled <= PAIRS - 3
    assert files(out) == files(labelled)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 2.0}, "threshold in px 1.0, now it is 2.0"),
        ({"hold_out": 40}, "per cent held out 30.0, now it is 40.0"),
        ({"teacher": "folder"}, "teacher classical, now it is folder"),
        ({"source": "other"}, "source wall0, now it is other"),
    ],
)
def test_a_folder_of_other_settings_is_refused(wall, labelled, tmp_path, options, words):
    arguments = {"source": wall, "teacher": CLASSICAL, "hold_out": 30, **options}
    if arguments["teacher"] == "folder":
        (tmp_path / "disp_0").mkdir()
        arguments["teacher"] = tmp_path
    if arguments["source"] == "other":
        arguments["source"] = tmp_path / "other"
        shutil.copytree(wall, tmp_path / "other")
    before = files(labelled)
    message = rf"^{re.escape(str(labelled / RECORD))}: folder was begun with {words}; expected"
    with pytest.raises(InputError, match=message):
        distill(out=labelled, **arguments)
    assert files(labelled) == before


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_damaged_record_is_named(wall, partly_done, text):
    (partly_done / RECORD).write_text(text)
    with pytest.raises(InputError, match=rf"^{re.escape(str(partly_done / RECORD))}: "):
        distill(wall, partly_done, CLASSICAL, hold_out=30)


def test_files_of_others_are_not_added_to(wall, partly_done):
    (partly_done / RECORD).unlink()
    with pytest.raises(InputError, match=r"disp_0/\d+\.png: is there but no .*distillation\.json"):
        distill(wall, partly_done, CLASSICAL, hold_out=30)


def test_workers_give_the_same_labels_though_one_is_killed(wall, labelled, tmp_path, worker_killer):
    out = tmp_path / "out"
    summary = distill(wall, out, CLASSICAL, hold_out=30, workers="2", progress=worker_killer)
    assert worker_killer.killed
    assert summary.pairs == PAIRS
    assert files(out) == files(labelled)


# Maps made elsewhere.


@pytest.fixture
def maps(tmp_path):
    """Folder of all maps for the wall; those of frame 4 are wrong in places."""
    folder = tmp_path / "maps"
    for name in ("disp_0", "disp_right", "flow", "flow_back"):
        (folder / name).mkdir(parents=True)
    for frame in range(FRAMES):
        disparity = np.full((HEIGHT, WIDTH), DISPARITY, np.float32)
        flow = np.tile(np.array([-SHIFT, 0], np.float32), (HEIGHT, WIDTH, 1))
        write_disparity_png(folder / "disp_right" / f"{frame:06d}.png", disparity)
        write_flow_png(folder / "flow_back" / f"{frame:06d}.png", -flow)
        if frame == 4:
            disparity[:30] = 20
            disparity[30:40] = np.nan
            flow[50:60] = 9
        write_disparity_png(folder / "disp_0" / f"{frame:06d}.png", disparity)
        write_flow_png(folder / "flow" / f"{frame:06d}.png", flow)
    return folder


def rows_with_labels(values):
    known = np.isfinite(values if values.ndim == 2 else values[..., 0])
    return set(np.flatnonzero(known.any(axis=1)))


def test_maps_made_elsewhere_are_checked_by_those_of_the_other_directions(wall, maps, tmp_path):
    summary = distill(wall, tmp_path / "out", maps)
    assert (summary.teacher, summary.engine, summary.pairs) == ("folder", "none", FRAMES - 1)
    everything = set(range(HEIGHT))
    disparity, disparity_next, flow = labels(tmp_path / "out" / "training", "000004")
    assert rows_with_labels(disparity) == everything - set(range(40))
    assert rows_with_labels(flow) == everything - set(range(50, 60))
    assert rows_with_labels(disparity_next) == everything - set(range(50, 60))
    assert (disparity_next[np.isfinite(disparity_next)] == DISPARITY).all()
    assert np.isnan(disparity[:, :DISPARITY]).all()
    assert np.isnan(flow[:, :SHIFT]).all()
    # Of the pair before, frame 4 is the later one. The looked-up row between 29 and 30 would be a mixture.
    assert rows_with_labels(labels(tmp_path / "out" / "training", "000003")[1]) == everything - set(range(40))  # fmt: skip


def test_maps_alone_are_taken_as_they_are(wall, maps, tmp_path):
    for folder in ("disp_right", "flow_back"):
        shutil.rmtree(maps / folder)
    (maps / "disp_1").mkdir()
    for frame in range(FRAMES - 1):
        shutil.copy(maps / "disp_0" / f"{frame:06d}.png", maps / "disp_1" / f"{frame:06d}.png")
    (maps / "disp_0" / f"{FRAMES - 1:06d}.png").unlink()
    distill(wall, tmp_path / "out", maps)
    for folder in RESULT_FOLDERS:
        one, other = (read_image(f / folder / "000004.png") for f in (maps, tmp_path / "out" / "training"))  # fmt: skip
        assert np.array_equal(one, other)


@pytest.mark.parametrize(
    ("absent", "there"), [("flow", ["disp_0"]), ("disp_0", ["flow"])], ids=["stereo", "flow"]
)
def test_maps_of_one_task_are_labels_of_that_task(wall, maps, tmp_path, absent, there):
    shutil.rmtree(maps / absent)
    summary = distill(wall, tmp_path / "out", maps)
    assert [name for name, density in summary.density.items() if density > 0] == there
    sample = Proxies(tmp_path / "out")[0]
    known = [np.isfinite(values).any() for values in vars(sample.ground_truth.occ).values()]
    assert known == [name in there for name in RESULT_FOLDERS]


def test_a_map_that_does_not_fit_is_named(wall, maps, tmp_path):
    file = maps / "disp_right" / "000003.png"
    write_disparity_png(file, np.ones((HEIGHT, WIDTH - 1), np.float32))
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}: map is 191 x 96 px, expected"):
        distill(wall, tmp_path / "out", maps)
    file.unlink()
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}: cannot be read: No such"):
        distill(wall, tmp_path / "out", maps)


# What is refused.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher": Path("/nowhere")}, "/nowhere: no maps, expected disp_0/ or flow/"),
        ({"threshold": 0}, "threshold: 0 px, expected > 0 px"),
        ({"threshold": float("nan")}, "threshold: nan px, expected > 0 px"),
        ({"hold_out": 100}, "hold_out: 100 %, expected from 0 to less than 100 %"),
        ({"hold_out": 5}, "hold_out: 5 % of 20 frames leave no pair for held_out, expected two frames"),
        ({"hold_out": 95}, "hold_out: 95 % of 20 frames leave no pair for training, expected two frames"),
        ({"namespace": "front"}, "not a bag, expected one to choose topics from"),
        ({"workers": "many"}, "workers: 'many', expected"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_in_one_line(wall, tmp_path, options, message):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        distill(**{"source": wall, "out": tmp_path / "out", "teacher": CLASSICAL, **options})
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_sources_without_a_pair_are_refused(wall, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        distill(tmp_path / "absent", tmp_path / "out", CLASSICAL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: empty folder, expected"):
        distill(tmp_path / "empty", tmp_path / "out", CLASSICAL)
    one = tmp_path / "one"
    shutil.copytree(wall, one)
    for file in [f for f in one.rglob("*.png") if f.stem != "000000"]:
        file.unlink()
    with pytest.raises(InputError, match=r"one: 1 frames, expected at least two of one scene$"):
        distill(one, tmp_path / "out", CLASSICAL)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file.*expected a folder to write to$"):
        distill(wall, tmp_path / "file", CLASSICAL)


def test_a_damaged_image_is_named(wall, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(wall, damaged)
    file = damaged / "left" / "000002.png"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}: offset \d+: PNG is cut short"):
        distill(damaged, tmp_path / "out", CLASSICAL)


# From a recording to an adapted network.


@contextmanager
def eagerly():
    """Without compiling, which takes longer than a few answers."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


def test_a_folder_and_a_bag_get_the_same_labels(recorded_drive, tmp_path):
    for source in ("folder", "bag"):
        summary = distill(recorded_drive / source, tmp_path / source, CLASSICAL, hold_out=34)
        assert (summary.pairs, summary.held_out) == (4, 1)
    by_folder, by_bag = (
        {name: content for name, content in files(tmp_path / source).items() if "image" not in name}
        for source in ("folder", "bag")
    )
    same = [name for name in by_folder if name.endswith(".png")]
    assert len(same) == 4 * len(RESULT_FOLDERS)
    assert all(by_folder[name] == by_bag[name] for name in same)
    assert Proxies(tmp_path / "bag" / "held_out").names == ["000004"]


def test_a_network_adapts_to_a_recording_by_its_proxies(labelled, settings, tmp_path):
    """The recipe of config/train/adapt.yaml, small."""
    weights = tmp_path / "shipped.safetensors"
    network.save(make_model(parse_config(settings())), weights, "a test")
    data = {"source": "proxies", "root": str(labelled / "training"), "count": None}
    held_out = {**data, "root": str(labelled / "held_out")}
    config = parse_config(
        settings(
            steps=100,
            batch_size=1,
            weights=str(weights),
            data=data,
            augmentation={"zoom_probability": 0, "photometric_probability": 0, "flip_probability": 0},
            loss={"kind": "finest", "regularization": 0.0},
            optimizer={"learning_rate": 1e-2, "schedule": "cosine"},
            validation={"data": held_out, "every": 1000},
        )
    )  # fmt: skip
    samples = open_samples(config.validation.data)
    with eagerly():
        before, _ = validate(make_model(config), samples)
    outcome = train(config, tmp_path / "run")
    assert outcome.finished
    disparities = [scores["D1 EPE"] + scores["D2 EPE"] for scores in (before, outcome.scores)]
    assert disparities[1] < 0.5 * disparities[0]

    choice = EstimatorChoice("tiny", outcome.weights, "tensorflow")
    with eagerly():
        report = evaluate_recording(labelled / "held_out", choice)
    assert (report.frames, len(report.pairs)) == (len(samples) + 1, len(samples))
    assert report.summary["valid_percent"] > 20
    assert report.summary["photometric_right"] < report.summary["photometric_right_unwarped"]


def test_a_network_is_a_teacher(wall, settings, tmp_path):
    weights, others = tmp_path / "weights.safetensors", tmp_path / "others.safetensors"
    model = make_model(parse_config(settings()))
    network.save(model, weights, "a test")
    network.save(model, others, "another test")
    short = tmp_path / "short"
    shutil.copytree(wall, short)
    for file in [f for f in short.rglob("*.png") if f.stem > "000001"]:
        file.unlink()
    teacher, other = (choose_estimator("auto", file, "tensorflow") for file in (weights, others))
    with eagerly():
        summary = distill(short, tmp_path / "out", teacher, threshold=5)
    assert (summary.teacher, summary.engine, summary.pairs) == ("tiny", "tensorflow", 1)
    frames = Proxies(tmp_path / "out").frames(0)
    estimate = load(teacher).estimate(*frames)
    flow = labels(tmp_path / "out" / "training", "000000")[2]
    known = np.isfinite(flow).all(axis=-1)
    assert known.any()
    assert np.abs(flow - estimate.flow)[known].max() <= 1 / 64
    assert len(json.loads((tmp_path / "out" / RECORD).read_text())["weights_sha256"]) == 64
    with pytest.raises(InputError, match="begun with SHA-256 of the weights"):
        distill(short, tmp_path / "out", other, threshold=5)
