from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest

from dwarf_ros.datasets.kitti import Kitti2012, Kitti2015, Kitti2015MultiView, KittiDrive
from dwarf_ros.datasets.splits import (
    DATASETS,
    SPLITS,
    KittiSplit,
    Proxies,
    SplitEntry,
    open_dataset,
    split,
)
from dwarf_ros.formats import write_disparity_png, write_flow_png, write_image
from dwarf_ros.recordings.kitti_layout import RESULT_FOLDERS
from dwarf_ros.types import InputError

SHAPE = (4, 6)
ROW = "20 0 3 {} 0 20 2 0 0 0 1 0"
TRUTHS = ("disp_occ_0", "disp_noc_0", "disp_occ_1", "disp_noc_1", "flow_occ", "flow_noc", "obj_map")

COUNTS = {
    "kitti_160": (160, 160, 0),
    "kitti_multiview_partial": (160, 0, 160 * 20),
    "kitti_mixed": (160, 160, 160 * 19),
    "kitti_multiview": (200, 0, 200 * 20),
    "kitti_200": (200, 200, 0),
}


@pytest.fixture(scope="module")
def kitti(tmp_path_factory):
    """All 200 scenes with 21 frames each; its files are names of a few."""
    root = tmp_path_factory.mktemp("kitti")
    training = root / "training"
    image, maps = root / "image.png", {True: root / "flow.png", False: root / "disparity.png"}
    write_image(image, np.full((*SHAPE, 3), 7, np.uint8))
    write_disparity_png(maps[False], np.full(SHAPE, 5, np.float32))
    write_flow_png(maps[True], np.full((*SHAPE, 2), 5, np.float32))
    objects = root / "objects.png"
    write_image(objects, np.zeros(SHAPE, np.uint8))
    calibration = root / "calibration.txt"
    calibration.write_text(f"P_rect_02: {ROW.format(0)}\nP_rect_03: {ROW.format(-10)}\n")
    for folder in ("image_2", "image_3", "calib_cam_to_cam", *TRUTHS):
        (training / folder).mkdir(parents=True)
    for scene in range(200):
        os.link(calibration, training / "calib_cam_to_cam" / f"{scene:06d}.txt")
        for camera in ("image_2", "image_3"):
            for frame in range(21):
                os.link(image, training / camera / f"{scene:06d}_{frame:02d}.png")
        for truth in TRUTHS:
            source = objects if truth == "obj_map" else maps[truth.startswith("flow")]
            os.link(source, training / truth / f"{scene:06d}_10.png")
    return root


@pytest.fixture
def own_kitti(kitti, tmp_path):
    """A copy of its own, to be damaged."""
    shutil.copytree(kitti / "training", tmp_path / "training", copy_function=os.link)
    return tmp_path


def test_the_five_published_splits():
    assert set(SPLITS) == set(COUNTS)


@pytest.mark.parametrize("name", SPLITS)
def test_a_split_has_its_scenes_frames_and_labels(kitti, name):
    scenes, truths, proxies = COUNTS[name]
    entries = split(name, kitti)
    kinds = [entry.kind for entry in entries]
    assert (kinds.count("ground_truth"), kinds.count("proxy")) == (truths, proxies)
    frames = range(20) if proxies else [10]
    assert [entry[:2] for entry in entries] == [(s, f) for s in range(scenes) for f in frames]
    assert {entry.frame for entry in entries if entry.kind == "ground_truth"} <= {10}


def test_an_entry_names_its_sample():
    assert SplitEntry(7, 3, "proxy").name == "000007_03"


def test_an_unknown_split_is_refused(kitti):
    with pytest.raises(InputError, match=r"^split: 'kitti_40' is unknown, expected kitti_160, "):
        split("kitti_40", kitti)


@pytest.mark.parametrize(
    ("name", "missing"),
    [("kitti_160", "000159_10"), ("kitti_multiview", "000199_20"), ("kitti_200", "000199_10")],
)
def test_a_missing_scene_is_named(own_kitti, name, missing):
    for camera in ("image_2", "image_3"):
        for file in (own_kitti / "training" / camera).glob(f"{missing[:6]}_*.png"):
            if file.stem >= missing:
                file.unlink()
    file = own_kitti / "training" / "image_2" / f"{missing}.png"
    with pytest.raises(InputError, match=rf"^{re.escape(str(file))}: missing.* {name}: frames"):
        split(name, own_kitti)


def test_a_scene_beyond_the_split_may_be_missing(own_kitti):
    for folder in ("image_2", "image_3"):
        for file in (own_kitti / "training" / folder).glob("00018*_*.png"):
            file.unlink()
    assert len(split("kitti_160", own_kitti)) == 160
    with pytest.raises(InputError, match=r"000180_10\.png: missing"):
        split("kitti_200", own_kitti)


def test_samples_are_labelled_by_ground_truth_or_proxy(own_kitti):
    training = own_kitti / "training"
    for folder in ("disp_0", "disp_1", "flow"):
        (training / folder).mkdir()
    write_disparity_png(training / "disp_0" / "000002_09.png", np.full(SHAPE, 1, np.float32))
    write_disparity_png(training / "disp_1" / "000002_09.png", np.full(SHAPE, 2, np.float32))
    write_flow_png(training / "flow" / "000002_09.png", np.full((*SHAPE, 2), 3, np.float32))
    dataset = KittiSplit("kitti_mixed", own_kitti)
    assert dataset.title == "KITTI 2015, kitti_mixed"
    proxy, truth = dataset[2 * 20 + 9], dataset[2 * 20 + 10]
    assert (proxy.name, truth.name) == ("000002_09", "000002_10")
    maps = proxy.ground_truth.occ
    values = [maps.disparity, maps.disparity_next, maps.flow]
    assert [float(m.flat[0]) for m in values] == [1, 2, 3]
    assert proxy.ground_truth.noc is None
    assert truth.ground_truth.noc is not None
    assert float(truth.ground_truth.occ.disparity[0, 0]) == 5
    with pytest.raises(InputError, match=r"training/disp_0/000000_00\.png: cannot be read"):
        dataset[0]
    assert dataset.images(0)[2].name == "000000_01.png"
    assert dataset.frames(0)[0].left.shape == (*SHAPE, 3)


def test_a_split_for_ground_truth_without_any_says_so(own_kitti):
    for truth in TRUTHS:
        shutil.rmtree(own_kitti / "training" / truth)
    dataset = KittiSplit("kitti_160", own_kitti)
    with pytest.raises(InputError, match=r"training/disp_occ_0/000000_10\.png: missing"):
        dataset[0]


@pytest.mark.parametrize(
    ("name", "part", "kind", "samples"),
    [
        ("kitti2015", None, Kitti2015, 200),
        ("kitti2015", "training", Kitti2015, 200),
        ("kitti2015", "kitti_160", KittiSplit, 160),
        ("kitti2015_multiview", None, Kitti2015MultiView, 4000),
        ("kitti2015_multiview", "kitti_mixed", KittiSplit, 3200),
        ("kitti_drive", None, KittiDrive, 4000),
    ],
)
def test_data_sets_by_name(kitti, name, part, kind, samples):
    dataset = open_dataset(name, kitti, part)
    assert type(dataset) is kind
    assert len(dataset) == samples


def write_labels(folder, name, value):
    for kind in RESULT_FOLDERS:
        (folder / kind).mkdir(exist_ok=True)
    write_disparity_png(folder / "disp_0" / f"{name}.png", np.full(SHAPE, value, np.float32))
    write_disparity_png(folder / "disp_1" / f"{name}.png", np.full(SHAPE, value + 1, np.float32))
    write_flow_png(folder / "flow" / f"{name}.png", np.full((*SHAPE, 2), -value, np.float32))


@pytest.mark.parametrize("cameras", [("image_2", "image_3"), ("left", "right")])
def test_proxies_are_the_labelled_pairs_of_a_folder(tmp_path, cameras):
    for camera in cameras:
        (tmp_path / camera).mkdir()
        for frame in range(5):
            image = np.full((*SHAPE, 3), 10 * frame, np.uint8)
            write_image(tmp_path / camera / f"{frame:06d}.png", image)
    (tmp_path / "calib.txt").write_text(f"P0: {ROW.format(0)}\nP1: {ROW.format(-10)}\n")
    with pytest.raises(InputError, match=r": no labels, expected disp_0, disp_1, flow as dwarf"):
        open_dataset("proxies", tmp_path)
    # The last frame has no next one; frame 2 lacks a file.
    for frame in (0, 2, 3, 4):
        write_labels(tmp_path, f"{frame:06d}", frame + 1)
    (tmp_path / "disp_1" / "000002.png").unlink()
    dataset = open_dataset("proxies", tmp_path)
    assert type(dataset) is Proxies
    assert dataset.title == f"proxies, stereo drive {tmp_path.name}"
    assert dataset.names == ["000000", "000003"]
    assert len(dataset) == 2
    sample = dataset[1]
    assert [int(f.left[0, 0, 0]) for f in (sample.previous, sample.current)] == [30, 40]
    assert [file.stem for file in dataset.images(1)] == ["000003", "000003", "000004", "000004"]
    maps = sample.ground_truth.occ
    assert [float(m.flat[0]) for m in (maps.disparity, maps.disparity_next, maps.flow)] == [
        4,
        5,
        -4,
    ]
    write_flow_png(tmp_path / "flow" / "000003.png", np.ones((4, 5, 2), np.float32))
    with pytest.raises(InputError, match=r"disp_0, disp_1 and flow of 000003\.png differ in size$"):
        dataset[1]
    (tmp_path / "flow" / "000003.png").write_bytes(b"no flow")
    with pytest.raises(InputError, match=r"flow/000003\.png: "):
        dataset[1]


def test_real_data_sets_by_name(real_data):
    assert type(open_dataset("kitti2012", real_data("kitti2012"))) is Kitti2012
    assert len(open_dataset("kitti_drive", real_data("kitti_odometry"))) == 11
    with pytest.raises(InputError, match=r"train/flow/left/into_future: missing"):
        open_dataset("flyingthings3d", real_data("flyingthings3d"))


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_refuses_a_folder_that_is_none(tmp_path, name):
    for root in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}.*expected") as caught:
            open_dataset(name, root)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [
        ("kitti", None, r"^data set: 'kitti' is unknown, expected kitti2015, kitti2015_multiview"),
        ("kitti2015", "val", r"^split: 'val' is unknown for kitti2015, expected training, testing"),
        ("kitti2012", "kitti_160", r"^split: 'kitti_160' is unknown for kitti2012, expected train"),
        ("flyingthings3d", "testing", r"^split: 'testing' is unknown for .*, expected train, val$"),
        ("driving", "train", r"^split: 'train' is unknown for driving, which has none$"),
    ],
)
def test_unknown_names_are_refused(kitti, name, part, message):
    with pytest.raises(InputError, match=message):
        open_dataset(name, kitti, part)


def test_flyingthings3d_by_name(tmp_path):
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match=r"/val/flow/left/into_future: missing"):
        open_dataset("flyingthings3d", tmp_path, "val")
