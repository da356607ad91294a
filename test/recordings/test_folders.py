from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import yaml

from dwarf_ros.formats import write_image
from dwarf_ros.recordings import open_recording
from dwarf_ros.recordings.folders import FRAME_ID
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import InputError

WIDTH, HEIGHT = 24, 16
FOCAL = 20.0
OFFSETS = (0.0, -10.0, 2.0, -8.0)
GRAY_BASELINE = 10.0 / FOCAL
COLOR_BASELINE = (2.0 + 8.0) / FOCAL
MS = 1_000_000


def matrix(tx: float) -> list[float]:
    return [FOCAL, 0.0, 12.0, tx, 0.0, FOCAL, 8.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def write_calibration(file: Path, prefix: str = "P", cameras: int = 4) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [" ".join(map(str, matrix(tx))) for tx in OFFSETS[:cameras]]
    file.write_text("".join(f"{prefix}{i}: {row}\n" for i, row in enumerate(rows)))


def image(seed: int, color: bool, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    shape = (height, width, 3) if color else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_pair(
    root: Path, folders: tuple[str, str], names: list[str], color: bool, width: int = WIDTH
) -> None:
    for side, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index, name in enumerate(names):
            write_image(root / folder / name, image(2 * index + side, color, width))


def numbered(count: int, digits: int = 6) -> list[str]:
    return [f"{i:0{digits}d}.png" for i in range(count)]


def odometry(root: Path, frames: int = 3, color: bool = True, gray: bool = False) -> Path:
    if color:
        write_pair(root, ("image_2", "image_3"), numbered(frames), True)
    if gray:
        write_pair(root, ("image_0", "image_1"), numbered(frames), False)
    write_calibration(root / "calib.txt")
    return root


def plain(root: Path, frames: int = 3) -> Path:
    write_pair(root, ("left", "right"), numbered(frames), True)
    write_calibration(root / "calib.txt", cameras=2)
    return root


def test_kitti_odometry(tmp_path):
    root = odometry(tmp_path / "dataset" / "sequences" / "07", gray=True)
    (root / "times.txt").write_text("0.000000e+00\n1.036224e-01\n2.072830e-01\n")
    pose = "1 0 0 {x} 0 1 0 0 0 0 1 {z}\n"
    (tmp_path / "dataset" / "poses").mkdir()
    (tmp_path / "dataset" / "poses" / "07.txt").write_text(
        "".join(pose.format(x=0, z=i) for i in range(3))
    )
    sequence = open_recording(root)
    assert len(sequence) == 3
    assert sequence.stamps == [0, 103_622_400, 207_283_000]
    assert sequence.scenes == [0, 0, 0]
    frame = sequence[1]
    np.testing.assert_array_equal(frame.left, image(2, True))
    np.testing.assert_array_equal(frame.right, image(3, True))
    assert (frame.stamp, frame.frame_id) == (103_622_400, FRAME_ID)
    assert frame.camera is not None
    assert frame.camera.baseline == pytest.approx(COLOR_BASELINE)
    assert (frame.camera.width, frame.camera.height) == (WIDTH, HEIGHT)
    # The file's poses are of camera 0; camera 2 looks on from 2 / 20 m to its left.
    assert sequence.poses is not None
    np.testing.assert_allclose(sequence.poses[2][:3, 3], [-0.1, 0, 2])


def test_a_linked_sequence_keeps_its_poses_whether_they_lie_beside_the_link_or_its_target(tmp_path):
    pose = "".join(f"1 0 0 {i} 0 1 0 0 0 0 1 0\n" for i in range(3))
    for real, link in (("a/sequences/07", "elsewhere"), ("store", "b/sequences/07")):
        root = odometry(tmp_path / real)
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(root)
        file = tmp_path / ("a" if "sequences" in real else "b") / "poses" / "07.txt"
        file.parent.mkdir()
        file.write_text(pose)
        assert open_recording(tmp_path / link).poses is not None


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    root = odometry(tmp_path, color=False, gray=True)
    (root / "times.txt").write_text("0.5\n1\n2\n")
    for name in ("calib.txt", "times.txt"):
        (root / name).write_bytes(b"\xef\xbb\xbf" + (root / name).read_bytes())
    sequence = open_recording(root)
    assert sequence.stamps[0] == 500 * MS
    assert sequence[0].camera.baseline == pytest.approx(GRAY_BASELINE)


def test_kitti_odometry_without_times_goes_by_file_number(tmp_path):
    root = odometry(tmp_path, frames=5, color=False, gray=True)
    for side in ("image_0", "image_1"):
        (root / side / "000002.png").unlink()
    sequence = open_recording(root)
    assert sequence.stamps == [0, 100 * MS, 300 * MS, 400 * MS]
    assert sequence.poses is None
    assert sequence[0].camera.baseline == pytest.approx(GRAY_BASELINE)


def test_a_part_of_a_sequence_keeps_its_own_times_and_poses(tmp_path):
    root = odometry(tmp_path, frames=6, color=False, gray=True)
    (root / "times.txt").write_text("".join(f"{i * i / 8}\n" for i in range(6)))
    (root / "poses.txt").write_text("".join(f"1 0 0 0 0 1 0 0 0 0 1 {i}\n" for i in range(6)))
    for name in ("000000.png", "000003.png"):
        (root / "image_0" / name).unlink()
        (root / "image_1" / name).unlink()
    sequence = open_recording(root)
    assert sequence.stamps == [i * i * 125 * MS for i in (1, 2, 4, 5)]
    assert sequence.poses is not None
    assert sequence.poses[:, 2, 3].tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize("cameras", [("00", "01"), ("02", "03")])
def test_kitti_raw_drive(tmp_path, cameras):
    root = tmp_path / "2011_09_26" / "2011_09_26_drive_0001_sync"
    color = cameras == ("02", "03")
    write_pair(root, tuple(f"image_{c}/data" for c in cameras), numbered(3, 10), color)
    write_calibration(root.parent / "calib_cam_to_cam.txt", "P_rect_0")
    (root / f"image_{cameras[0]}" / "timestamps.txt").write_text(
        "2011-09-26 13:02:59.964389445\n2011-09-26 13:03:00.067990\n2011-09-26 13:03:00.171\n"
    )
    sequence = open_recording(root)
    assert np.diff(sequence.stamps).tolist() == [103_600_555, 103_010_000]
    assert sequence[2].camera.baseline == pytest.approx(COLOR_BASELINE if color else GRAY_BASELINE)


def test_a_long_scene_has_frames_of_three_digits(tmp_path):
    names = [f"000000_{frame}.png" for frame in ("98", "99", "100")]
    write_pair(tmp_path, ("image_2", "image_3"), names, True)
    write_calibration(tmp_path / "calib" / "000000.txt")
    sequence = open_recording(tmp_path)
    assert [file.name for file in [left for left, _ in sequence.files]] == names
    assert sequence.scenes == [0, 0, 0]
    assert set(np.diff(sequence.stamps)) == {100 * MS}
    # A time of day with a fraction of a second is no frame of a scene.
    (tmp_path / "times").mkdir()
    write_pair(tmp_path / "times", ("left", "right"), ["120000_000123.png"], True)
    write_calibration(tmp_path / "times" / "calib.txt")
    assert len(open_recording(tmp_path / "times")) == 1


@pytest.mark.parametrize(
    ("folders", "calibration", "baseline"),
    [
        (("image_0", "image_1"), "calib", GRAY_BASELINE),
        (("colored_0", "colored_1"), "calib", COLOR_BASELINE),
        (("image_2", "image_3"), "calib_cam_to_cam", COLOR_BASELINE),
    ],
    ids=["2012 gray", "2012 color", "2015"],
)
def test_kitti_scenes(tmp_path, folders, calibration, baseline):
    """Each scene has its own size and camera, and no frame is near another scene's in time."""
    root = tmp_path / "training"
    color = folders[0] != "image_0"
    names = ["000003_09.png", "000003_10.png", "000003_11.png"]
    write_pair(root, folders, names, color)
    write_pair(root, folders, ["000140_00.png", "000140_20.png"], color, width=WIDTH + 2)
    for scene in ("000003", "000140"):
        prefix = "P" if calibration == "calib" else "P_rect_0"
        write_calibration(root / calibration / f"{scene}.txt", prefix)
    for source in (tmp_path, root):
        sequence = open_recording(source)
        assert sequence.scenes == [0, 0, 0, 1, 1]
        steps = np.diff(sequence.stamps)
        assert steps[[0, 1, 3]].tolist() == [100 * MS, 100 * MS, 2000 * MS]
        assert steps[2] >= 10_000 * MS
        assert [frame.camera.width for frame in sequence] == [WIDTH] * 3 + [WIDTH + 2] * 2
        assert sequence[0].camera.baseline == pytest.approx(baseline)
        assert [left.name for left, _ in sequence.files[:3]] == names


def test_training_is_taken_before_testing(tmp_path):
    for part, scene in (("testing", "000001"), ("training", "000002")):
        write_pair(tmp_path / part, ("image_2", "image_3"), [f"{scene}_10.png"], True)
        write_calibration(tmp_path / part / "calib_cam_to_cam" / f"{scene}.txt", "P_rect_0")
    assert open_recording(tmp_path).files[0][0].name == "000002_10.png"
    assert open_recording(tmp_path / "testing").files[0][0].name == "000001_10.png"


@pytest.mark.parametrize("folders", [("left", "right"), ("image_left", "image_right")])
def test_plain_folders_with_ros_calibrations(tmp_path, folders):
    write_pair(tmp_path, folders, ["frame2.bmp", "frame10.bmp", "frame1.bmp"], False)
    for name, tx in (("left", 0.0), ("right", -6.0)):
        info = {
            "image_width": WIDTH,
            "image_height": HEIGHT,
            "projection_matrix": {"rows": 3, "cols": 4, "data": matrix(tx)},
        }
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(info))
    sequence = open_recording(tmp_path)
    assert [file.name for file in [left for left, _ in sequence.files]] == [
        "frame1.bmp",
        "frame2.bmp",
        "frame10.bmp",
    ]
    assert sequence.stamps == [0, 100 * MS, 200 * MS]
    left, right, camera = sequence.read(0)
    assert left.shape == right.shape == (HEIGHT, WIDTH)
    assert camera.baseline == pytest.approx(0.3)
    assert sequence[0].left.shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("color", [False, True])
def test_plain_images_tell_which_pair_of_four_cameras_is_theirs(tmp_path, color):
    write_pair(tmp_path, ("left", "right"), numbered(1), color)
    write_calibration(tmp_path / "calib.txt")
    expected = COLOR_BASELINE if color else GRAY_BASELINE
    assert open_recording(tmp_path)[0].camera.baseline == pytest.approx(expected)


def test_images_are_read_when_they_are_asked_for(tmp_path):
    sequence = open_recording(odometry(tmp_path))
    broken = tmp_path / "image_3" / "000001.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    assert sequence[0].stamp == 0
    assert sequence[-1].stamp == 200 * MS
    with pytest.raises(InputError, match=r"image_3/000001\.png"):
        sequence[1]
    with pytest.raises(IndexError):
        sequence[3]


def test_files_that_are_no_images_are_passed_over(tmp_path):
    root = odometry(tmp_path)
    (root / "image_2" / ".DS_Store").write_text("x")
    (root / "image_2" / "._000000.png").write_text("x")
    (root / "image_3" / "notes.txt").write_text("x")
    assert len(open_recording(root)) == 3


def remove_last_right(root: Path) -> None:
    (root / "right" / "000002.png").unlink()


def remove_first_left(root: Path) -> None:
    (root / "left" / "000000.png").unlink()


def remove_images(root: Path) -> None:
    for file in (root / "left").iterdir():
        file.unlink()


def remove_right_folder(root: Path) -> None:
    (root / "right").rename(root / "elsewhere")


def remove_both_folders(root: Path) -> None:
    (root / "right").rename(root / "elsewhere")
    (root / "left").rename(root / "nowhere")


def remove_calibration(root: Path) -> None:
    (root / "calib.txt").unlink()


def swap_calibration(root: Path) -> None:
    lines = (root / "calib.txt").read_text().splitlines()
    (root / "calib.txt").write_text(f"P0{lines[1][2:]}\nP1{lines[0][2:]}\n")


def text(name: str, content: str):
    def write(root: Path) -> None:
        (root / name).write_text(content)

    return write


FAULTS = [
    (remove_last_right, r"right/000002\.png: missing \(3 left and 2 right images\)"),
    (remove_first_left, r"left/000000\.png: missing \(2 left and 3 right images\)"),
    (remove_images, r"left: no images"),
    (remove_right_folder, r"right: no such folder, expected one beside left/"),
    (remove_both_folders, r"unknown layout, expected a KITTI odometry sequence"),
    (remove_calibration, r"no calibration, expected calib\.txt, or left\.yaml and right\.yaml"),
    (swap_calibration, r"calib\.txt: camera: baseline is -0\.5 m, expected > 0"),
    (text("calib.txt", "P0: 1 2 3\n"), r"calib\.txt: line 1 \(P0\) holds 3 numbers, expected 12"),
    (text("times.txt", "0\n0.1\n"), r"times\.txt: 2 rows, expected one for each of 3 images"),
    (text("times.txt", "0\n0.1\nsoon\n"), r"times\.txt: line 3 is 'soon', expected a time in s"),
    (text("times.txt", "0\nnan\n1\n"), r"times\.txt: line 2 is 'nan', expected a time"),
    (text("times.txt", "0\n1e400\n1\n"), r"times\.txt: line 2 is '1e400', expected a time"),
    (text("times.txt", "0\n-1\n1\n"), r"times\.txt: line 2 is '-1', expected a time"),
    (text("times.txt", "0\n0.2\n0.1\n"), r"times\.txt: time of 000002\.png is -0\.1 s after"),
    (text("poses.txt", "1 0 0 0 0 1 0 0 0 0 1 0\n"), r"poses\.txt: 1 rows, expected one for each"),
    (text("poses.txt", "1 0 0\n"), r"poses\.txt: line 1 is '1 0 0', expected 12 numbers"),
    (
        text("poses.txt", "inf 0 0 0 0 1 0 0 0 0 1 0\n"),
        r"poses\.txt: line 1 .* expected 12 numbers",
    ),
]


@pytest.mark.parametrize(("damage", "expected"), FAULTS, ids=[fault[1] for fault in FAULTS])
def test_a_fault_is_one_line_that_names_the_file(tmp_path, damage, expected):
    root = plain(tmp_path / "drive")
    assert len(open_recording(root)) == 3
    damage(root)
    with pytest.raises(InputError, match=expected) as raised:
        open_recording(root)
    assert str(raised.value).startswith(str(root))
    assert "\n" not in str(raised.value)


def test_a_source_that_is_no_folder_of_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, expected in (
        ("absent", "absent: no such file or folder"),
        ("file", "file: not a folder"),
        ("empty", "empty: empty folder, expected a KITTI odometry sequence"),
    ):
        with pytest.raises(InputError, match=expected):
            open_recording(tmp_path / name)


def test_a_raw_drive_without_its_calibration_says_where_it_belongs(tmp_path):
    root = tmp_path / "2011_09_26" / "2011_09_26_drive_0001_sync"
    write_pair(root, ("image_02/data", "image_03/data"), numbered(1, 10), True)
    with pytest.raises(InputError, match=r"expected .*/2011_09_26/calib_cam_to_cam\.txt"):
        open_recording(root)
    write_calibration(root.parent / "calib_cam_to_cam.txt", "P_rect_0")
    (root / "image_02" / "timestamps.txt").write_text("yesterday\n")
    with pytest.raises(InputError, match=r"timestamps\.txt: line 1 is 'yesterday'"):
        open_recording(root)


def test_a_scene_without_its_calibration_says_where_it_belongs(tmp_path):
    write_pair(tmp_path, ("image_2", "image_3"), ["000007_10.png"], True)
    with pytest.raises(InputError, match=r"scene 000007, expected .*calib_cam_to_cam/000007\.txt"):
        open_recording(tmp_path)


def test_images_that_do_not_belong_together(tmp_path):
    root = plain(tmp_path)
    write_image(root / "right" / "000000.png", image(0, True, width=WIDTH - 1))
    write_image(root / "right" / "000001.png", image(0, False))
    sequence = open_recording(root)
    with pytest.raises(
        InputError, match=r"right/000000\.png: image is 23 x 16 px, expected 24 x 16"
    ):
        sequence[0]
    with pytest.raises(
        InputError, match=r"right/000001\.png: image is 8-bit gray, expected 8-bit c"
    ):
        sequence[1]


def test_a_calibration_for_another_size_is_refused(tmp_path):
    """A drive that was not rectified has the camera's size, not the calibration's."""
    root = plain(tmp_path)
    write_calibration(root / "calib.txt", "P_rect_0")
    with (root / "calib.txt").open("a") as file:
        file.writelines(f"S_rect_0{i}: 1242 375\n" for i in range(4))
    with pytest.raises(
        InputError, match=r"calib\.txt: .* 1242 x 375 px, but the images are 24 x 16"
    ):
        open_recording(root)[0]


def test_a_procedural_drive_comes_back_as_it_was_written(tmp_path):
    drive = ProceduralDrive(seed=3, frames=3, width=96, height=64, rate=15.0)
    write_drive(drive, tmp_path / "drive")
    sequence = open_recording(tmp_path / "drive")
    assert list(sequence.stamps) == list(drive.stamps)
    for index in range(3):
        read, made = sequence[index], drive[index]
        np.testing.assert_array_equal(read.left, made.left)
        np.testing.assert_array_equal(read.right, made.right)
        assert (read.stamp, read.frame_id) == (made.stamp, made.frame_id)
        assert astuple(read.camera) == pytest.approx(astuple(made.camera), rel=1e-11)
    assert sequence.poses is not None
    np.testing.assert_allclose(sequence.poses, drive.poses, atol=1e-11)


def test_real_odometry(real_data):
    sequence = open_recording(real_data("kitti_odometry"))
    assert len(sequence) == 12
    assert set(np.diff(sequence.stamps)) == {100 * MS}
    left, right, camera = sequence.read(11)
    assert left.shape == right.shape == (370, 1226)
    assert camera.baseline == pytest.approx(379.8145 / 707.0912, rel=1e-12)
    assert sequence.poses is not None
    assert sequence.poses.shape == (12, 4, 4)
    np.testing.assert_allclose(
        sequence.poses[:, :3, :3] @ sequence.poses[:, :3, :3].transpose(0, 2, 1),
        np.tile(np.eye(3), (12, 1, 1)),
        atol=1e-5,
    )
    assert sequence.poses[1, 2, 3] == pytest.approx(1.198998)


@pytest.mark.parametrize(
    ("name", "names", "scenes", "shapes"),
    [
        (
            "kitti2012",
            ["000027_09", "000027_10", "000027_11", "000138_10", "000138_11"],
            [0, 0, 0, 1, 1],
            [(376, 1241), (375, 1242)],
        ),
        ("kitti2015_color", ["000010_10", "000010_11"], [0, 0], [(375, 1242, 3)]),
    ],
)
def test_real_scenes(real_data, name, names, scenes, shapes):
    sequence = open_recording(real_data(name))
    assert sequence.names == names
    assert sequence.scenes == scenes
    firsts = [scenes.index(scene) for scene in sorted(set(scenes))]
    assert [sequence.read(index)[0].shape for index in firsts] == shapes
