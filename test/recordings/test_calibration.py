from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.recordings.calibration import load_calibration, read_calibration
from dwarf_ros.types import InputError, StereoCamera


def projection(tx: float = 0.0, f: float = 720.0, cx: float = 600.0, cy: float = 180.0) -> list:
    return [f, 0.0, cx, tx, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]


def row(values: list[float]) -> str:
    return " ".join(f"{value:.12e}" for value in values)


FOUR = [projection(0.0), projection(-386.0), projection(45.0), projection(-339.0)]
GRAY_BASELINE = 386.0 / 720.0
COLOR_BASELINE = (45.0 + 339.0) / 720.0


def kitti_text(names: list[str], matrices: list[list[float]]) -> str:
    return "".join(f"{name}: {row(matrix)}\n" for name, matrix in zip(names, matrices, strict=True))


def camera_info(tx: float, width: int = 1242, height: int = 375) -> dict:
    return {
        "image_width": width,
        "image_height": height,
        "camera_name": "stereo",
        "projection_matrix": {"rows": 3, "cols": 4, "data": projection(tx)},
    }


@pytest.mark.parametrize(
    ("color", "baseline"),
    [(False, GRAY_BASELINE), (True, COLOR_BASELINE)],
    ids=["gray", "color"],
)
@pytest.mark.parametrize(
    "text",
    [
        kitti_text(["P0", "P1", "P2", "P3"], FOUR) + "Tr: " + row(projection()) + "\n",
        "".join(row(matrix) + "\n" for matrix in FOUR),
        "calib_time: 09-Jan-2012 13:57:47\ncorner_dist: 9.950000e-02\n"
        + kitti_text([f"P_rect_0{i}" for i in range(4)], FOUR)
        + "".join(f"S_rect_0{i}: 1.242000e+03 3.750000e+02\nD_0{i}: 1 2 3 4 5\n" for i in range(4)),
    ],
    ids=["odometry", "bare rows", "cam_to_cam"],
)
def test_every_kitti_format_gives_the_pair_that_was_asked_for(tmp_path, text, color, baseline):
    file = tmp_path / "calib.txt"
    file.write_text(text)
    camera = read_calibration(file, 1242, 375, color)
    assert camera.baseline == pytest.approx(baseline, rel=1e-9)
    assert (camera.fx, camera.cx, camera.cy, camera.cx_right) == (720.0, 600.0, 180.0, 600.0)
    assert (camera.width, camera.height) == (1242, 375)


@pytest.mark.parametrize("names", [["P0", "P1"], ["P2", "P3"], ["P_rect_02", "P_rect_03"]])
@pytest.mark.parametrize("color", [False, True])
def test_a_file_with_two_cameras_has_one_pair(tmp_path, names, color):
    file = tmp_path / "000027.txt"
    file.write_text(kitti_text(names, FOUR[:2]))
    assert read_calibration(file, 10, 10, color).baseline == pytest.approx(GRAY_BASELINE)


def test_ros_yaml_takes_the_right_camera_beside_the_left(tmp_path):
    left, right = tmp_path / "stereo_left.yaml", tmp_path / "stereo_right.yaml"
    left.write_text(yaml.safe_dump(camera_info(0.0)))
    right.write_text(yaml.safe_dump(camera_info(-144.0)))
    assert read_calibration(left, 1242, 375, color=True) == StereoCamera(
        720.0, 720.0, 600.0, 180.0, 600.0, 0.2, 1242, 375
    )
    with pytest.raises(InputError, match=r"stereo_left\.yaml: .* 1242 x 375 px, but .* 640 x 480"):
        read_calibration(left, 640, 480, color=True)


def test_the_left_offset_is_where_the_camera_is(tmp_path):
    """P x = K (x + t), so the camera is at -t of camera 0."""
    file = tmp_path / "calib.txt"
    file.write_text(kitti_text(["P0", "P1", "P2", "P3"], FOUR))
    np.testing.assert_allclose(load_calibration(file, True).left_offset, [-45.0 / 720.0, 0, 0])
    np.testing.assert_allclose(load_calibration(file, False).left_offset, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no projection matrix"),
        ("calib_time: now\n", "no projection matrix"),
        (kitti_text(["P0"], FOUR[:1]), "no P1, expected the pair P0 and P1"),
        (row(FOUR[0]) + "\n", "1 projection matrices, expected 2"),
        (kitti_text(["P0", "P1", "P2"], FOUR[:3]), "no P3, expected the pair P2 and P3"),
        (kitti_text(["P0", "P1"], FOUR[:2]).replace("P1: ", "P1: 3 "), "line 2 .* 13 numbers"),
        (kitti_text(["P0", "P1"], FOUR[:2])[:-30], "line 2 .* expected 12"),
        (kitti_text(["P0", "P1"], FOUR[:2]).replace("7.2", "x"), "line 1 .* not only numbers"),
        (kitti_text(["P0", "P0"], FOUR[:2]), "line 2 repeats P0"),
        (kitti_text(["P0", "P1"], [FOUR[0], FOUR[0]]), "baseline is 0 m, expected > 0"),
        (kitti_text(["P0", "P1"], [FOUR[1], FOUR[0]]), "baseline is -0.536111 m, expected > 0"),
        (kitti_text(["P0", "P1"], [FOUR[0], projection(-386, f=500)]), "focal lengths differ"),
        (kitti_text(["P0", "P1"], [[0.0] * 12] * 2), "focal lengths 0, 0 px"),
        (kitti_text(["P0", "P1"], FOUR[:2]).replace("1.000000000000e+00", "nan"), "not finite"),
        (kitti_text(["P0", "P1"], FOUR[:2]).replace("1.000000000000e+00", "2"), "expected 0 0 1"),
        ("\x89PNG and more\n", "line 1 .* holds not only numbers"),
    ],
)
def test_a_broken_kitti_file_is_one_line_that_names_it(tmp_path, text, expected):
    file = tmp_path / "calib.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=expected) as raised:
        read_calibration(file, 1242, 375, color=True)
    assert str(raised.value).startswith(str(file))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("a: [", None, r"left\.yaml: not YAML"),
        ("!!python/object/apply:os.getcwd []", None, r"left\.yaml: not YAML"),
        ("- 1", None, r"left\.yaml: no camera_info"),
        ({"projection_matrix": None}, None, r"left\.yaml: no projection_matrix"),
        (camera_info(0.0, width=0), None, r"left\.yaml: image_width is 0"),
        (camera_info(0.0), None, r"right\.yaml: No such file"),
        (camera_info(0.0), camera_info(-144.0, width=640), r"right\.yaml: images of 640 x 375 px"),
        (camera_info(0.0), camera_info(144.0), r"left\.yaml: camera: baseline is -0.2 m"),
    ],
)
def test_a_broken_yaml_pair_is_one_line_that_names_the_file(tmp_path, left, right, expected):
    for name, content in (("left.yaml", left), ("right.yaml", right)):
        if content is not None:
            text = content if isinstance(content, str) else yaml.safe_dump(content)
            (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=expected) as raised:
        read_calibration(tmp_path / "left.yaml", 1242, 375, color=False)
    assert "\n" not in str(raised.value)


def test_what_is_no_calibration_file_at_all(tmp_path):
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    large = tmp_path / "video.mp4"
    large.write_bytes(bytes((1 << 20) + 1))
    only = tmp_path / "camera.yaml"
    only.write_text("")
    for file, expected in [
        (tmp_path / "absent.txt", "No such file"),
        (tmp_path, "Is a directory"),
        (binary, "not a text file"),
        (large, "1048577 bytes long"),
        (only, "no 'left' in the file's name"),
    ]:
        with pytest.raises(InputError, match=expected):
            read_calibration(file, 10, 10, color=False)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_a_camera_or_an_input_error(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from([".txt", ".yaml"]))
    file = folder / f"left{suffix}"
    if suffix == ".txt":
        content = kitti_text(["P0", "P1", "P2", "P3"], FOUR).encode()
    else:
        content = yaml.safe_dump(camera_info(0.0)).encode()
        (folder / "right.yaml").write_text(yaml.safe_dump(camera_info(-100.0)))
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    file.write_bytes(content[:start] + data.draw(st.binary(max_size=8)) + content[end:])
    try:
        outcome: StereoCamera | InputError = read_calibration(file, 1242, 375, color=True)
    except InputError as error:
        outcome = error
    if isinstance(outcome, StereoCamera):
        assert outcome.baseline > 0
    else:
        assert str(folder) in str(outcome)
        assert "\n" not in str(outcome)


@pytest.mark.parametrize(
    ("name", "file", "color", "baseline"),
    [
        ("kitti_odometry", "calib.txt", False, 0.5372),
        ("kitti2012", "training/calib/000027.txt", False, 0.5372),
        ("kitti2015_color", "training/calib_cam_to_cam/000010.txt", True, 0.5327),
        ("kitti2015_color", "training/calib_cam_to_cam/000010.txt", False, 0.5372),
    ],
)
def test_real_calibrations(real_data, name, file, color, baseline):
    path: Path = real_data(name) / file
    assert read_calibration(path, 1242, 375, color).baseline == pytest.approx(baseline, abs=5e-5)
