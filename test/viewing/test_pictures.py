"""Pictures and videos of results: sizes, legends, what is missing, and that videos play."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from dwarf_ros.formats import read_image
from dwarf_ros.samples import Maps, SampleTruth
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import InputError
from dwarf_ros.viewing.motion import MotionHistory
from dwarf_ros.viewing.pictures import (
    KINDS,
    kinds_of,
    nice_number,
    panel,
    picture_of,
    steady_scales,
    write_pictures,
    write_video,
)
from dwarf_ros.viewing.results import Results
from dwarf_ros.visualization.drawing import BAR_MARGIN
from dwarf_ros.visualization.error_maps import ERROR_COLORS, error_legend
from dwarf_ros.visualization.panels import Scales


@pytest.fixture
def sequence(make_result):
    """Function from a number to as many results, 0.1 s apart."""

    def make(count: int) -> Results:
        names = [f"{i:06d}" for i in range(count)]
        return Results("here", names, lambda i: make_result(names[i], i * 100_000_000))

    return make


def test_there_is_a_picture_of_everything_that_is_known(result):
    assert kinds_of(result) == list(KINDS)
    for kind in KINDS:
        picture = picture_of(result, kind, width=640)
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
    assert picture_of(result, width=640).shape[1] == 640


def test_what_is_not_known_is_one_line_that_says_what_it_takes(result):
    bare = replace(
        result,
        left=None,
        truth=None,
        scene_flow=replace(result.scene_flow, camera=None, flow_confidence=None),
    )
    assert kinds_of(bare) == ["panel", "disparity", "flow", "key"]
    for kind, what in (
        ("left", "images"),
        ("depth", "calibration"),
        ("above", "calibration"),
        ("moving", "images"),
        ("confidence", "refined"),
        ("errors", "ground truth"),
    ):
        with pytest.raises(InputError, match=what) as error:
            picture_of(bare, kind)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="jet"):
        picture_of(bare, "jet")


def test_nearer_is_brighter_in_disparity_and_in_depth(result):
    slope = np.linspace(40, 4, 160, dtype=np.float32)
    near_to_far = np.broadcast_to(slope, (80, 160)).copy()
    scene_flow = replace(result.scene_flow, disparity=near_to_far)
    for kind in ("disparity", "depth"):
        row = picture_of(replace(result, scene_flow=scene_flow), kind)[28 + 40, 25:]
        luminance = row.astype(float) @ (0.2126, 0.7152, 0.0722)
        assert luminance[0] - luminance[-1] > 100
        assert (np.diff(luminance) < 3).all()
    # What is not valid shows the dimmed left image, or black without one.
    unknown = picture_of(result, "depth")[30, 5]
    assert unknown.min() == unknown.max() < 80
    assert not picture_of(replace(result, left=None), "depth")[30, 5].any()


def test_error_maps_have_the_benchmarks_colours_and_a_scale(result):
    picture = picture_of(result, "errors")
    # One px wrong everywhere: between an eighth and a quarter... of the outlier threshold times 4.
    disparity = picture[28 + 40, 40:80].reshape(-1, 3)
    colors, counts = np.unique(disparity, axis=0, return_counts=True)
    assert tuple(colors[counts.argmax()]) == tuple(ERROR_COLORS[3])
    legend = error_legend(520)
    bar = legend[5, BAR_MARGIN:-BAR_MARGIN]
    for index, color in enumerate(ERROR_COLORS):
        assert tuple(bar[round((index + 0.5) * len(bar) / len(ERROR_COLORS))]) == tuple(color)


def test_ground_truth_of_one_map_is_enough_for_its_error_map(result):
    occ = Maps(flow=result.scene_flow.flow + 1)
    one = picture_of(replace(result, truth=SampleTruth(occ)), "errors")
    assert one.shape[0] == 28 + 80 + 30
    whole = panel(result, 640)
    assert whole.shape[0] > panel(replace(result, truth=None), 640).shape[0]


def test_pictures_are_written_to_a_file_or_a_folder(tmp_path, sequence):
    results = sequence(2)
    file = tmp_path / "new" / "one.png"
    assert write_pictures(results, file) == [file]
    assert np.array_equal(read_image(file), picture_of(MotionHistory().add(results.read(0))))
    done = []
    files = write_pictures(
        results, tmp_path / "all", ["flow", "above"], lambda *counts: done.append(counts)
    )
    assert [f.name for f in files] == [
        *("000000_flow.png", "000000_above.png", "000001_flow.png", "000001_above.png")
    ]
    assert done == [(0, 2), (1, 2), (2, 2)]
    kinds = {f.stem.split("_")[1] for f in write_pictures(results, tmp_path / "each", ["all"])}
    assert kinds == set(KINDS)


@pytest.mark.parametrize(
    ("out", "kinds", "what"),
    [
        ("one.png", ["all"], "folder for several"),
        ("one.png", ["flow", "left"], "folder for several"),
        ("folder", ["jet"], "kind"),
        ("file/folder", ["flow"], "cannot be written"),
    ],
)
def test_pictures_that_cannot_be_written_are_one_line(tmp_path, sequence, out, kinds, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=what) as error:
        write_pictures(sequence(1), tmp_path / out, kinds)
    assert "\n" not in str(error.value)


def frames_of(file) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(file))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def test_a_video_shows_each_result_in_its_time(tmp_path, sequence):
    results = sequence(3)
    file = tmp_path / "new" / "run.mp4"
    assert write_video(results, file, width=481) == 3
    frames, rate_hz = frames_of(file)
    assert rate_hz == pytest.approx(10.0)
    assert len(frames) == 3
    assert [f.name for f in file.parent.iterdir()] == ["run.mp4"]
    result = results.read(2)
    expected = panel(result, 481, steady_scales(result, None))
    size = (expected.shape[1] & ~1, expected.shape[0] & ~1)
    expected = cv2.resize(expected, size, interpolation=cv2.INTER_AREA)
    assert frames[2].shape == expected.shape
    assert np.abs(frames[2].astype(int) - expected).mean() < 12
    # The codec that browsers play: the sample description says so.
    assert b"vp09" in file.read_bytes()


def test_a_video_has_the_rate_asked_for(tmp_path, sequence):
    write_video(sequence(2), tmp_path / "run.mp4", rate_hz=4.0, width=320)
    assert frames_of(tmp_path / "run.mp4")[1] == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("out", "options", "what"),
    [
        ("run.avi", {}, r"\.mp4"),
        ("run.mp4", {"rate_hz": 0.0}, "rate_hz"),
        ("run.mp4", {"rate_hz": float("nan")}, "rate_hz"),
        ("run.mp4", {"width": 10}, "width"),
        ("file/run.mp4", {}, r"file/run\.mp4: cannot be written"),
    ],
)
def test_a_video_that_cannot_be_written_is_one_line(tmp_path, sequence, out, options, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=what) as error:
        write_video(sequence(1), tmp_path / out, **options)
    assert "\n" not in str(error.value)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_no_video_and_is_one_line(tmp_path):
    """A limit of the size of files stands for it."""
    write_drive(ProceduralDrive(seed=4, frames=4, width=256, height=128), tmp_path / "drive")
    out = tmp_path / "run.mp4"
    limited = [
        "bash",
        "-c",
        'ulimit -f 8; exec "$@"',
        "bash",
        sys.executable,
        "-m",
        "dwarf_ros.cli",
    ]
    command = [*limited, "video", str(tmp_path / "drive"), "--out", str(out)]
    result = subprocess.run(
        [*command, "--estimator", "classical"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2, result
    assert "frames could be written" in result.stderr.splitlines()[-1]
    assert "moov" not in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["drive"]


def test_a_video_may_have_a_name_that_is_not_utf8(tmp_path, sequence):
    out = tmp_path / os.fsdecode(b"\xe9.mp4")
    assert write_video(sequence(2), out, width=320) == 2
    assert out.stat().st_size > 1000


def test_damaged_results_are_left_out_of_a_video(tmp_path, make_result, caplog):
    damaged = {1}

    def read(index: int):
        if index in damaged:
            raise InputError("damaged")
        return make_result()

    results = Results("here", ["a", "b"], read)
    assert write_video(results, tmp_path / "run.mp4", width=320) == 1
    assert "b is left out: damaged" in caplog.text
    (tmp_path / "run.mp4").unlink()
    damaged.add(0)
    with pytest.raises(InputError, match="damaged"):
        write_video(results, tmp_path / "run.mp4", width=320)
    assert not list(tmp_path.iterdir())


def test_scales_stay_while_they_fit(result):
    first = steady_scales(result, None)
    assert steady_scales(result, first) == first
    close = Scales(first.disparity * 1.2, first.flow * 0.9)
    assert steady_scales(result, close) == close
    far = Scales(first.disparity * 9, first.flow / 9)
    assert steady_scales(result, far) == first


@pytest.mark.parametrize(
    ("value", "nice"), [(1, 1), (1.2, 1.5), (17, 20), (20, 20), (61, 80), (81, 100), (0.03, 0.03)]
)
def test_nice_numbers_are_round_and_not_below(value, nice):
    assert nice_number(value) == pytest.approx(nice)
