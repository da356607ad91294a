from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from dwarf_ros.datasets.flyingthings3d import FlyingThings3D, SceneFlowRelease
from dwarf_ros.formats import read_image, read_pfm, write_flo, write_image, write_pfm
from dwarf_ros.types import InputError

SHAPE = (8, 12)


def image(seed, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def make(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def full(value):
    return np.full(SHAPE, value, np.float32)


def flow():
    return np.dstack([full(3), full(-2)])


def subset(folder, frames=3, shape=SHAPE):
    """Frames 4, 5, ...: the last one has images alone, as in the release."""
    for frame in range(4, 4 + frames):
        name = f"{frame:07d}"
        for side, seed in (("left", 0), ("right", 100)):
            write_image(make(folder / f"image_clean/{side}/{name}.png"), image(frame + seed, shape))
        disparity = full(-10.0 * frame)
        disparity[0, 0] = np.nan
        write_pfm(make(folder / f"disparity/left/{name}.pfm"), disparity)
        if frame < 3 + frames:
            # Nearer by 2 px, which is a change of -2 where disparities are negative; in one place it passes the camera.
            change = full(-2)
            change[0, 1] = 1000
            write_pfm(make(folder / f"disparity_change/left/into_future/{name}.pfm"), change)
            motion = flow()
            motion[0, 2, 0] = np.nan
            write_flo(make(folder / f"flow/left/into_future/{name}.flo"), motion)
    return folder


def release(root, scene, frames=3, passes="frames_cleanpass", suffix=".png"):
    for frame in range(1, 1 + frames):
        name = f"{frame:04d}"
        for side, seed in (("left", 0), ("right", 100)):
            write_image(make(root / passes / scene / side / f"{name}{suffix}"), image(frame + seed))
        write_pfm(make(root / "disparity" / scene / "left" / f"{name}.pfm"), full(10.0 * frame))
        change = root / "disparity_change" / scene / "into_future" / "left" / f"{name}.pfm"
        write_pfm(make(change), full(2))
        motion = root / "optical_flow" / scene / "into_future" / "left"
        write_pfm(
            make(motion / f"OpticalFlowIntoFuture_{name}_L.pfm"), np.dstack([flow(), full(0)])
        )
    return root


def test_the_subset_pairs_frames_that_have_flow_with_the_next(tmp_path):
    subset(tmp_path / "train")
    dataset = FlyingThings3D(tmp_path, "train")
    assert dataset.title == "FlyingThings3D, train"
    assert dataset.names == ["0000004", "0000005"]
    clean = tmp_path / "train" / "image_clean"
    assert dataset.images(1) == (
        clean / "left" / "0000005.png",
        clean / "right" / "0000005.png",
        clean / "left" / "0000006.png",
        clean / "right" / "0000006.png",
    )
    sample = dataset[1]
    assert np.array_equal(sample.current.right, read_image(dataset.images(1)[3]))
    assert sample.current.stamp - sample.previous.stamp == 100_000_000


def test_the_subsets_negative_disparities_come_out_positive(tmp_path):
    subset(tmp_path)
    truth = FlyingThings3D(tmp_path)[1].ground_truth
    assert truth.noc is None
    assert truth.objects is None
    disparity, disparity_next = truth.occ.disparity, truth.occ.disparity_next
    assert disparity[4, 4] == 50
    assert disparity_next[4, 4] == 52
    assert np.isnan(disparity[0, 0])
    assert np.isnan(disparity_next[0, 0])
    assert disparity[0, 1] == 50
    assert np.isnan(disparity_next[0, 1])
    assert truth.occ.flow[4, 4].tolist() == [3, -2]
    assert np.isnan(truth.occ.flow[0, 2]).all()


def test_the_subset_without_part_is_train_or_the_folder_itself(tmp_path):
    subset(tmp_path / "train")
    subset(tmp_path / "val", frames=2)
    assert len(FlyingThings3D(tmp_path)) == 2
    assert len(FlyingThings3D(tmp_path, "val")) == 1
    inside = FlyingThings3D(tmp_path / "val")
    assert (inside.title, inside.names) == ("FlyingThings3D", ["0000004"])


def test_the_camera_is_known_at_the_size_that_was_rendered(tmp_path):
    subset(tmp_path / "full", frames=2, shape=(540, 960))
    subset(tmp_path / "small", frames=2)
    camera = FlyingThings3D(tmp_path / "full").frames(0)[0].camera
    assert (camera.fx, camera.cx, camera.cy, camera.baseline) == (1050, 479.5, 269.5, 1)
    assert FlyingThings3D(tmp_path / "small").frames(0)[0].camera is None


@pytest.mark.parametrize(
    "path",
    [
        "flow/left/into_future",
        "image_clean/left",
        "image_clean/right",
        "image_clean/left/0000006.png",
        "image_clean/right/0000004.png",
        "disparity/left",
        "disparity/left/0000005.pfm",
        "disparity_change/left/into_future/0000004.pfm",
    ],
)
def test_what_the_subset_lacks_is_named(tmp_path, path):
    subset(tmp_path / "train")
    missing = tmp_path / "train" / path
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    expected = f"^{re.escape(str(missing))}: missing, expected FlyingThings3D: image_clean/left/"
    with pytest.raises(InputError, match=expected):
        FlyingThings3D(tmp_path, "train")


def test_strange_names_are_refused(tmp_path):
    subset(tmp_path)
    (tmp_path / "flow/left/into_future/last.flo").write_bytes(b"")
    with pytest.raises(InputError, match=r"last\.flo: not named by a frame number"):
        FlyingThings3D(tmp_path)


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"^part 'test' is unknown, expected train or val$"):
        FlyingThings3D(tmp_path, "test")


def test_maps_of_two_sizes_are_refused(tmp_path):
    subset(tmp_path)
    file = tmp_path / "disparity_change/left/into_future/0000004.pfm"
    write_pfm(file, full(0)[:, :5])
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(file))}: map is 5 x 8 px, expected 12 x 8"
    ):
        FlyingThings3D(tmp_path).ground_truth(0)


def test_images_of_two_sizes_are_refused(tmp_path):
    subset(tmp_path)
    file = tmp_path / "image_clean/right/0000005.png"
    write_image(file, image(0)[:, :5])
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(file))}: image is 5 x 8 px, expected 12 x 8"
    ):
        FlyingThings3D(tmp_path).frames(0)


def test_a_colour_map_is_no_disparity(tmp_path):
    subset(tmp_path)
    write_pfm(tmp_path / "disparity/left/0000004.pfm", np.dstack([full(1)] * 3))
    with pytest.raises(InputError, match=r"0000004\.pfm: is a colour PFM, expected a grey one"):
        FlyingThings3D(tmp_path).ground_truth(0)


def test_driving_pairs_all_frames_but_the_last_of_each_scene(tmp_path):
    for lens in ("15mm_focallength", "35mm_focallength"):
        release(tmp_path / "driving", f"{lens}/scene_forwards/fast")
    dataset = SceneFlowRelease(tmp_path / "driving")
    assert dataset.title == "SceneFlow release, driving"
    assert dataset.names == [
        "15mm_focallength-scene_forwards-fast-0001",
        "15mm_focallength-scene_forwards-fast-0002",
        "35mm_focallength-scene_forwards-fast-0001",
        "35mm_focallength-scene_forwards-fast-0002",
    ]
    truth = dataset[3].ground_truth
    assert np.all(truth.occ.disparity == 20)
    assert np.all(truth.occ.disparity_next == 22)
    assert np.array_equal(truth.occ.flow, flow())


def test_the_short_lens_has_another_camera(tmp_path):
    for lens in ("15mm_focallength", "35mm_focallength"):
        release(tmp_path, f"{lens}/scene_forwards/fast", frames=2)
    for file in tmp_path.rglob("*.png"):
        write_image(file, image(0, (540, 960)))
    dataset = SceneFlowRelease(tmp_path)
    assert [dataset.frames(index)[0].camera.fx for index in range(2)] == [450, 1050]


def test_monkaa_with_the_final_pass_alone(tmp_path):
    release(tmp_path, "funnyworld_x2", passes="frames_finalpass_webp", suffix=".webp")
    dataset = SceneFlowRelease(tmp_path)
    assert dataset.names == ["funnyworld_x2-0001", "funnyworld_x2-0002"]
    assert dataset[0].previous.left.shape == (*SHAPE, 3)


@pytest.mark.parametrize(
    "path",
    [
        "frames_cleanpass",
        "disparity",
        "disparity_change",
        "optical_flow",
        "frames_cleanpass/eating/right",
        "frames_cleanpass/eating/left/0002.png",
        "frames_cleanpass/eating/right/0003.png",
        "disparity/eating/left/0001.pfm",
        "disparity_change/eating/into_future/left/0002.pfm",
        "optical_flow/eating/into_future/left/OpticalFlowIntoFuture_0001_L.pfm",
    ],
)
def test_what_the_release_lacks_is_named(tmp_path, path):
    release(tmp_path, "eating")
    missing = tmp_path / path
    shutil.rmtree(missing) if missing.is_dir() else missing.unlink()
    with pytest.raises(
        InputError, match=f"^{re.escape(str(missing))}: missing, expected SceneFlow"
    ):
        SceneFlowRelease(tmp_path)


def test_a_release_without_scenes_is_refused(tmp_path):
    for name in ("frames_cleanpass", "disparity", "disparity_change", "optical_flow"):
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="frames_cleanpass/SCENE/left: missing"):
        SceneFlowRelease(tmp_path)


def test_a_real_map_comes_out_positive(tmp_path, real_data):
    """The one that is here is stored as the full release does, as positive numbers; turned round, as the subset does."""
    stored = read_pfm(real_data("flyingthings3d") / "disparity/left/A-0032-0006.pfm")
    for sign, folder in ((1, "release"), (-1, "subset")):
        root = subset(tmp_path / folder, frames=2)
        write_pfm(root / "disparity/left/0000004.pfm", sign * stored)
        write_pfm(
            root / "disparity_change/left/into_future/0000004.pfm", np.full_like(stored, sign)
        )
        truth = FlyingThings3D(root).ground_truth(0)
        assert np.array_equal(truth.occ.disparity, stored)
        assert np.array_equal(truth.occ.disparity_next, stored + np.float32(1))
    assert 1 < stored.min() < stored.max() < 200
