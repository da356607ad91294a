from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from dwarf_ros.datasets.kitti import Kitti2012, Kitti2015, Kitti2015MultiView, KittiDrive
from dwarf_ros.formats import (
    read_image,
    write_disparity_png,
    write_flow_png,
    write_image,
)
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.bag.write import create_bag
from dwarf_ros.types import InputError

WIDTH, HEIGHT = 24, 16
FOCAL_LENGTH, BASELINE = 20.0, 0.5
TRUTHS_2015 = ("disp_occ_0", "disp_noc_0", "disp_occ_1", "disp_noc_1", "flow_occ", "flow_noc")
TRUTHS_2012 = ("disp_occ", "disp_noc", "flow_occ", "flow_noc")


def matrix(camera):
    shift = -FOCAL_LENGTH * BASELINE * (camera % 2)
    return f"{FOCAL_LENGTH} 0 12 {shift} 0 {FOCAL_LENGTH} 8 0 0 0 1 0"


def write_images(folder, cameras, names, colour=True):
    for side, camera in enumerate(cameras):
        (folder / camera).mkdir(parents=True, exist_ok=True)
        for seed, name in enumerate(names):
            shape = (HEIGHT, WIDTH, 3) if colour else (HEIGHT, WIDTH)
            image = np.random.default_rng(2 * seed + side).integers(0, 256, shape, np.uint8)
            write_image(folder / camera / f"{name}.png", image)


def write_calibrations(folder, scenes, prefix):
    folder.mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        rows = [f"{prefix}{camera}: {matrix(camera)}\n" for camera in range(4)]
        (folder / f"{scene:06d}.txt").write_text("".join(rows))


def write_truths(folder, truths, names):
    for value, truth in enumerate(truths, start=1):
        (folder / truth).mkdir(parents=True, exist_ok=True)
        for name in names:
            values = np.full((HEIGHT, WIDTH), value, np.float32)
            values[0] = np.nan
            if truth.startswith("disp"):
                write_disparity_png(folder / truth / f"{name}.png", values)
            else:
                write_flow_png(folder / truth / f"{name}.png", np.dstack([values, -values]))


def kitti2015(root, part="training", scenes=(0, 3), frames=(10, 11), truth=True):
    names = [f"{scene:06d}_{frame:02d}" for scene in scenes for frame in frames]
    write_images(root / part, ("image_2", "image_3"), names)
    write_calibrations(root / part / "calib_cam_to_cam", scenes, "P_rect_0")
    if truth:
        benchmark = [name for name in names if name.endswith("_10")]
        write_truths(root / part, TRUTHS_2015, benchmark)
        write_images(root / part, ("obj_map",), benchmark, colour=False)
    return root


def kitti2012(root, cameras=("image_0", "image_1"), colour=False):
    names = [f"{scene:06d}_{frame:02d}" for scene in (1, 2) for frame in (10, 11)]
    write_images(root / "training", cameras, names, colour)
    write_calibrations(root / "training" / "calib", (1, 2), "P")
    write_truths(root / "training", TRUTHS_2012, names[::2])
    return root


def test_kitti2015_pairs_frame_10_with_11(tmp_path):
    dataset = Kitti2015(kitti2015(tmp_path, frames=(9, 10, 11, 12)))
    assert dataset.title == "KITTI 2015 scene flow, training"
    assert dataset.names == ["000000_10", "000003_10"]
    assert len(dataset) == 2
    folder = tmp_path / "training"
    assert dataset.images(1) == (
        folder / "image_2" / "000003_10.png",
        folder / "image_3" / "000003_10.png",
        folder / "image_2" / "000003_11.png",
        folder / "image_3" / "000003_11.png",
    )
    sample = dataset[1]
    for file, image in zip(
        dataset.images(1),
        (sample.previous.left, sample.previous.right, sample.current.left, sample.current.right),
        strict=True,
    ):
        assert np.array_equal(image, read_image(file))
    assert sample.current.stamp - sample.previous.stamp == 100_000_000
    assert sample.previous.camera.baseline == pytest.approx(BASELINE)
    with pytest.raises(IndexError):
        dataset[2]


def test_kitti2015_ground_truth_goes_to_its_maps(tmp_path):
    truth = Kitti2015(kitti2015(tmp_path))[0].ground_truth
    maps = [truth.occ.disparity, truth.noc.disparity, truth.occ.disparity_next]
    maps += [truth.noc.disparity_next, truth.occ.flow[..., 0], truth.noc.flow[..., 0]]
    for value, values in enumerate(maps, start=1):
        assert np.all(values[1:] == value)
        assert np.isnan(values[0]).all()
    assert np.array_equal(truth.occ.flow[1:, :, 1], -truth.occ.flow[1:, :, 0])
    objects = tmp_path / "training" / "obj_map" / "000000_10.png"
    assert np.array_equal(truth.objects, read_image(objects))


def test_testing_has_no_ground_truth(tmp_path):
    dataset = Kitti2015(kitti2015(tmp_path, "testing", truth=False), "testing")
    assert dataset.names == ["000000_10", "000003_10"]
    assert dataset[0].ground_truth is None


def test_training_without_any_ground_truth_is_for_prediction(tmp_path):
    assert Kitti2015(kitti2015(tmp_path, truth=False))[0].ground_truth is None


def test_multi_view_pairs_each_frame_with_the_next_of_its_scene(tmp_path):
    dataset = Kitti2015MultiView(kitti2015(tmp_path, frames=(9, 10, 11)))
    assert dataset.names == ["000000_09", "000000_10", "000003_09", "000003_10"]
    assert [sample.ground_truth is not None for sample in dataset] == [False, True, False, True]
    assert dataset.images(2)[2].name == "000003_10.png"
    for sample in dataset:
        assert sample.current.stamp - sample.previous.stamp == 100_000_000


def test_kitti2012_has_neither_second_disparity_nor_objects(tmp_path):
    dataset = Kitti2012(kitti2012(tmp_path))
    assert dataset.names == ["000001_10", "000002_10"]
    truth = dataset[0].ground_truth
    assert truth.objects is None
    assert truth.occ.disparity_next is None
    assert truth.noc.disparity_next is None
    assert np.all(truth.occ.disparity[1:] == 1)
    assert np.all(truth.noc.flow[1:, :, 0] == 4)
    assert np.array_equal(dataset[0].previous.left[..., 0], dataset[0].previous.left[..., 2])


def test_kitti2012_takes_the_colour_cameras_where_they_are(tmp_path):
    kitti2012(tmp_path)
    kitti2012(tmp_path, ("colored_0", "colored_1"), colour=True)
    # Another benchmark's cameras, unpacked in the same place.
    write_images(tmp_path / "training", ("image_2", "image_3"), ["000001_10", "000001_11"])
    assert Kitti2012(tmp_path).images(0)[1].parent.name == "colored_1"


@pytest.mark.parametrize(
    "path",
    [
        "training",
        "training/image_2",
        "training/image_3",
        "training/calib_cam_to_cam",
        "training/image_2/000003_11.png",
        "training/image_3/000003_11.png",
        "training/calib_cam_to_cam/000003.txt",
        *[f"training/{name}" for name in TRUTHS_2015],
        "training/disp_noc_1/000003_10.png",
        "training/obj_map/000000_10.png",
    ],
)
def test_what_is_missing_is_named(tmp_path, path):
    kitti2015(tmp_path)
    missing = tmp_path / path
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(InputError, match=re.escape(str(missing))) as caught:
        Kitti2015(tmp_path)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_message_shows_a_correct_tree(tmp_path):
    with pytest.raises(InputError) as caught:
        Kitti2015(tmp_path / "wrong")
    training = tmp_path / "wrong" / "training"
    assert str(caught.value) == (
        f"{training}: missing, expected KITTI 2015 scene flow: {training}/ with image_2/ and image_3/ (000000_10.png "
        "000000_11.png), calib_cam_to_cam/ (000000.txt) and, for ground truth, disp_occ_0/ disp_noc_0/ disp_occ_1/ "
        "disp_noc_1/ flow_occ/ flow_noc/ obj_map/ (000000_10.png)"
    )


def test_the_frame_after_the_benchmarks_is_missing_on_both_sides(tmp_path):
    kitti2015(tmp_path)
    for camera in ("image_2", "image_3"):
        (tmp_path / "training" / camera / "000000_11.png").unlink()
    with pytest.raises(InputError, match=r"image_2/000000_11\.png: missing"):
        Kitti2015(tmp_path)


def test_a_hole_in_a_multi_view_scene_is_named(tmp_path):
    kitti2015(tmp_path, frames=(7, 8, 9, 10))
    for camera in ("image_2", "image_3"):
        (tmp_path / "training" / camera / "000000_09.png").unlink()
    with pytest.raises(InputError, match=r"image_2/000000_09\.png: missing"):
        Kitti2015MultiView(tmp_path)


def test_a_stray_image_is_named(tmp_path):
    kitti2015(tmp_path)
    for camera in ("image_2", "image_3"):
        folder = tmp_path / "training" / camera
        shutil.copy(folder / "000000_10.png", folder / "copy.png")
    with pytest.raises(InputError, match=r"copy\.png: not a frame of a scene"):
        Kitti2015(tmp_path)


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^part 'validation' is unknown, expected training or"):
        Kitti2015(tmp_path, "validation")


def test_frames_of_two_sizes_are_no_pair(tmp_path):
    kitti2015(tmp_path)
    for camera in ("image_2", "image_3"):
        file = tmp_path / "training" / camera / "000000_11.png"
        write_image(file, read_image(file)[:, :20])
    with pytest.raises(InputError, match=r"000000_11\.png: image is 20 x 16 px, expected 24 x 16"):
        Kitti2015(tmp_path).frames(0)


def test_a_colour_object_map_is_refused(tmp_path):
    kitti2015(tmp_path)
    folder = tmp_path / "training"
    shutil.copy(folder / "image_2" / "000000_10.png", folder / "obj_map" / "000000_10.png")
    with pytest.raises(InputError, match=r"obj_map/000000_10\.png: is a color image"):
        Kitti2015(tmp_path).ground_truth(0)


def odometry(root, frames):
    write_images(root, ("image_0", "image_1"), [f"{i:06d}" for i in range(frames)], colour=False)
    (root / "calib.txt").write_text("".join(f"P{i}: {matrix(i)}\n" for i in range(4)))
    (root / "poses.txt").write_text(
        "".join(f"1 0 0 {i} 0 1 0 0 0 0 1 {2 * i}\n" for i in range(frames))
    )
    return root


def test_a_drive_pairs_consecutive_frames_and_knows_its_poses(tmp_path):
    drive = KittiDrive(odometry(tmp_path / "00", 4))
    assert drive.title == "stereo drive 00"
    assert drive.names == ["000000", "000001", "000002"]
    assert drive.poses[3, 2, 3] == 6
    assert drive[1].ground_truth is None
    assert [file.name for file in drive.images(1)] == ["000001.png"] * 2 + ["000002.png"] * 2


def test_a_raw_drive(tmp_path):
    drive = tmp_path / "2011_09_26" / "2011_09_26_drive_0001_sync"
    names = [f"{i:010d}" for i in range(2)]
    write_images(drive, ("image_02/data", "image_03/data"), names)
    rows = [f"P_rect_0{i}: {matrix(i)}\n" for i in range(4)]
    (drive.parent / "calib_cam_to_cam.txt").write_text("".join(rows))
    dataset = KittiDrive(drive)
    assert dataset.names == ["0000000000"]
    assert dataset.poses is None
    assert dataset[0].previous.camera.baseline == pytest.approx(BASELINE)


def test_a_drive_of_one_frame_has_no_pair(tmp_path):
    with pytest.raises(InputError, match="1 frames, expected at least two of one scene"):
        KittiDrive(odometry(tmp_path, 1))


def test_a_bag_is_no_drive(tmp_path):
    bag = tmp_path / "bag"
    drive = open_recording(odometry(tmp_path / "drive", 2))
    create_bag(drive, bag)
    with pytest.raises(InputError, match="bag: is a bag, expected a folder of stereo images"):
        KittiDrive(bag)


def test_real_kitti2012(real_data):
    dataset = Kitti2012(real_data("kitti2012"))
    assert dataset.names == ["000027_10", "000138_10"]
    sample = dataset[0]
    truth = sample.ground_truth
    assert sample.previous.camera.baseline == pytest.approx(0.537, abs=1e-3)
    known = np.isfinite(truth.occ.disparity)
    assert 0.1 < known.mean() < 0.5
    assert np.isfinite(truth.noc.disparity).sum() < known.sum()
    assert truth.occ.flow.shape == (*known.shape, 2)


def test_real_kitti2015_colour(real_data):
    dataset = Kitti2015(real_data("kitti2015_color"))
    assert dataset.names == Kitti2015MultiView(real_data("kitti2015_color")).names == ["000010_10"]
    sample = dataset[0]
    assert sample.ground_truth is None
    assert sample.previous.camera.baseline == pytest.approx(0.5327, abs=1e-4)
    assert not np.array_equal(sample.previous.left[..., 0], sample.previous.left[..., 2])


def test_real_odometry(real_data):
    drive = KittiDrive(real_data("kitti_odometry"))
    assert len(drive) == 11
    assert drive.poses.shape == (12, 4, 4)
    assert drive[10].current.left.shape == (370, 1226, 3)


def test_without_object_maps_objects_are_unknown(tmp_path):
    shutil.rmtree(kitti2015(tmp_path) / "training" / "obj_map")
    truth = Kitti2015(tmp_path)[0].ground_truth
    assert truth.objects is None
    assert np.isfinite(truth.occ.disparity).any()
