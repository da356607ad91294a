"""The `dwarf` command as a user types it: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dwarf_ros.cli import make_parser, split_ros_arguments
from dwarf_ros.formats import (
    read_disparity_png,
    read_flow_png,
    read_image,
    write_disparity_png,
    write_image,
)
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive


def dwarf(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dwarf_ros.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def assert_one_line_error(result: subprocess.CompletedProcess[str], *words: object) -> None:
    assert result.returncode == 2, result
    lines = [line for line in result.stderr.splitlines() if line.startswith("dwarf: error: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert str(word) in lines[0]


@pytest.fixture(scope="module")
def quadruple(tmp_path_factory) -> list[Path]:
    """Two stereo frames of a procedural drive as image files."""
    folder = tmp_path_factory.mktemp("quadruple")
    drive = ProceduralDrive(seed=1, frames=2, width=320, height=192)
    paths = []
    for time in range(2):
        for side in ("left", "right"):
            paths.append(folder / f"{side}_{time}.png")
            write_image(paths[-1], getattr(drive[time], side))
    return paths


def test_infer_writes_the_three_maps_and_pictures(quadruple, tmp_path):
    result = dwarf("infer", *quadruple, "--out", tmp_path / "out", "--estimator", "classical")
    assert result.returncode == 0, result.stderr
    drive = ProceduralDrive(seed=1, frames=2, width=320, height=192)
    truth = drive.ground_truth(0, 1).scene_flow
    disparity = read_disparity_png(tmp_path / "out/disp_0/left_0.png")
    disparity_next = read_disparity_png(tmp_path / "out/disp_1/left_0.png")
    flow = read_flow_png(tmp_path / "out/flow/left_0.png")
    assert np.nanmedian(np.abs(disparity - truth.disparity)) < 0.5
    assert np.nanmedian(np.abs(disparity_next - truth.disparity_next)) < 0.5
    assert np.nanmedian(np.linalg.norm(flow - truth.flow, axis=-1)) < 1.0
    for picture in ("disparity", "flow", "scene_flow"):
        assert read_image(tmp_path / f"out/pictures/left_0_{picture}.png").std() > 10
    assert "classical on opencv" in result.stdout


def test_infer_with_a_calibration_writes_motion_too(quadruple, tmp_path):
    drive = ProceduralDrive(seed=1, frames=2, width=320, height=192)
    camera = drive.camera
    rows = [
        f"P{side}: {camera.fx} 0 {cx} {x} 0 {camera.fy} {camera.cy} 0 0 0 1 0"
        for side, cx, x in ((0, camera.cx, 0), (1, camera.cx_right, -camera.fx * camera.baseline))
    ]
    (tmp_path / "calib.txt").write_text("\n".join(rows) + "\n")
    arguments = ("infer", *quadruple, "--estimator", "classical")
    calibrated = (*arguments, "--calib", tmp_path / "calib.txt")
    result = dwarf(*calibrated, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "out/motion.json").read_text())
    assert set(document) == {"transform", "covariance", "static_percent"}
    true = np.linalg.inv(drive.poses[1]) @ drive.poses[0]
    assert np.abs(np.array(document["transform"]) - true)[:3, 3].max() < 0.1
    assert np.array(document["covariance"]).shape == (6, 6)
    assert 30 < document["static_percent"] <= 100
    moving = read_image(tmp_path / "out/moving/left_0.png")
    assert moving.shape == (192, 320)
    assert set(np.unique(moving)) <= {0, 127, 255}

    unrefined = dwarf(*calibrated, "--out", tmp_path / "none", "--refine", "none")
    assert unrefined.returncode == 0, unrefined.stderr
    assert not (tmp_path / "none/motion.json").exists()
    uncalibrated = dwarf(*arguments, "--out", tmp_path / "uncalibrated")
    assert "no calibration" in uncalibrated.stdout
    assert not (tmp_path / "uncalibrated/moving").exists()
    same = [
        (tmp_path / name / "flow/left_0.png").read_bytes()
        for name in ("none", "uncalibrated", "out")
    ]
    assert same[0] == same[1] != same[2]


def test_infer_without_an_estimator_says_which_one_it_took(quadruple, tmp_path):
    result = dwarf("infer", *quadruple, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "classical on opencv" in result.stdout


def test_unequal_image_sizes(quadruple, tmp_path):
    small = tmp_path / "small.png"
    write_image(small, np.zeros((96, 100, 3), np.uint8))
    arguments = [*quadruple[:3], small]
    result = dwarf("infer", *arguments, "--out", tmp_path / "out")
    assert_one_line_error(result, small, "100 x 96", "320 x 192")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["missing", "truncated", "text"])
def test_unreadable_image(quadruple, tmp_path, damage):
    bad = tmp_path / "bad.png"
    if damage == "truncated":
        bad.write_bytes(quadruple[0].read_bytes()[:-500])
    elif damage == "text":
        bad.write_text("not an image")
    result = dwarf("infer", bad, *quadruple[1:], "--out", tmp_path / "out")
    assert_one_line_error(result, bad)


def test_missing_and_broken_calibration(quadruple, tmp_path):
    result = dwarf("infer", *quadruple, "--out", tmp_path, "--calib", tmp_path / "calib.txt")
    assert_one_line_error(result, tmp_path / "calib.txt")
    (tmp_path / "calib.txt").write_text("P0: 1 2 three\n")
    result = dwarf("infer", *quadruple, "--out", tmp_path, "--calib", tmp_path / "calib.txt")
    assert_one_line_error(result, tmp_path / "calib.txt")


def test_baseline_that_is_not_positive(quadruple, tmp_path):
    row = "300 0 160 {} 0 300 96 0 0 0 1 0"
    (tmp_path / "calib.txt").write_text(f"P0: {row.format(0)}\nP1: {row.format(150)}\n")
    result = dwarf("infer", *quadruple, "--out", tmp_path, "--calib", tmp_path / "calib.txt")
    assert_one_line_error(result, tmp_path / "calib.txt", "baseline", "-0.5 m")


def test_weights_that_are_missing_or_of_another_preset(quadruple, tmp_path):
    absent = tmp_path / "absent.safetensors"
    result = dwarf("infer", *quadruple, "--out", tmp_path, "--estimator=dwarf", "--weights", absent)
    assert_one_line_error(result, absent)

    pytest.importorskip("tensorflow")
    from dwarf_ros import network

    lite = tmp_path / "lite.safetensors"
    network.save(network.build("dwarf_lite"), lite, origin="a test")
    result = dwarf("infer", *quadruple, "--out", tmp_path, "--estimator=dwarf", "--weights", lite)
    assert_one_line_error(result, lite, "dwarf_lite")


def test_unknown_estimator_and_engine(quadruple, tmp_path):
    result = dwarf("infer", *quadruple, "--out", tmp_path, "--estimator", "magic")
    assert_one_line_error(result, "magic", "classical")
    result = dwarf("infer", *quadruple, "--out", tmp_path, "--engine", "steam")
    assert_one_line_error(result, "steam", "openvino")


def test_folder_that_cannot_be_written(quadruple, tmp_path):
    (tmp_path / "file").touch()
    result = dwarf("infer", *quadruple, "--out", tmp_path / "file", "--estimator", "classical")
    assert_one_line_error(result, tmp_path / "file")


def test_option_that_is_no_number(tmp_path):
    result = dwarf("play", tmp_path, "--rate", "fast")
    assert_one_line_error(result, "--rate", "fast")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--expected=0", "--idle-timeout=-1"])
def test_recording_that_would_end_at_once(tmp_path, option):
    result = dwarf("record", tmp_path, option)
    assert_one_line_error(result, f"error: {option.split('=')[0]}: ")


def test_play_of_an_empty_folder(tmp_path):
    result = dwarf("play", tmp_path)
    assert_one_line_error(result, tmp_path)


def test_import_of_a_checkpoint_that_is_not_there(tmp_path):
    pytest.importorskip("tensorflow")
    result = dwarf("import-checkpoint", tmp_path / "model", tmp_path / "out.safetensors")
    assert_one_line_error(result, tmp_path / "model")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "absent.safetensors", "out.onnx"], ["absent.safetensors"]),
        (["export", "absent.safetensors", "out.onnx", "--size=384"], ["--size", "'384'"]),
        (["quantize", "absent.safetensors", "--size=60x128"], ["--size: height: 60 px"]),
        (["quantize", "absent.safetensors"], ["absent.safetensors"]),
        (["benchmark", "--weights=absent.safetensors"], ["absent.safetensors"]),
        (["benchmark", "--engine=abacus"], ["'abacus'", "auto"]),
        (["distill", "absent", "--teacher=classical", "--out=labels"], ["absent"]),
        (["picture", "absent", "--out=pictures"], ["absent"]),
        (["video", "absent", "--out=run.mp4"], ["absent"]),
        (["view", "absent"], ["absent"]),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_line(arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line_error(dwarf(*arguments), *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--teacher=guru"], "--teacher: 'guru' is unknown, expected auto, dwarf, dwarf_lite, dwarf_lite_v2, classical, ptlflow:MODEL or folder"),
        (["--weights=w.safetensors"], "--weights: w.safetensors given to the classical estimator"),
        (["--teacher=dwarf", "--weights=none.safetensors"], "none.safetensors: "),
        (["--engine=steam"], "--engine: 'steam' is unknown"),
        (["--maps=m"], "--maps: m given to the teacher classical, expected none"),
        (["--teacher=folder"], "--maps: none given to the teacher folder, expected a folder"),
        (["--teacher=folder", "--maps=m", "--weights=w"], "--weights: w given to the teacher folder"),
        (["--threshold=0"], "--threshold: 0 px, expected > 0 px"),
        (["--hold-out=100"], "--hold-out: 100 %, expected from 0 to less than 100 %"),
    ],
)  # fmt: skip
def test_wrong_options_of_distill_are_named(tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    result = dwarf("distill", "recording", "--out=labels", "--teacher=classical", *options)
    assert_one_line_error(result, words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["bag", "evaluate"], ["demo"], ["picture"]])
def test_an_estimator_that_does_not_exist_is_named(tmp_path, command):
    out = tmp_path / "out"
    result = dwarf(*command, tmp_path, "--out", out, "--estimator=no_such_thing")
    assert_one_line_error(result, "--estimator", "no_such_thing")
    assert not out.exists()


def test_an_error_about_an_argument_names_the_option_that_sets_it():
    options = make_parser().parse_args(["play", "folder"])
    parser = options.parser
    assert parser.name_option("rate_hz: 0 Hz, expected > 0 Hz") == "--rate: 0 Hz, expected > 0 Hz"
    assert parser.name_option("wait_s: -1 s") == "--wait: -1 s"
    for other in ("source: missing", "folder: no such file", "rate_hz", ""):
        assert parser.name_option(other) == other


def test_every_command_has_an_example_that_can_be_parsed(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    parser = make_parser()
    listed = re.findall(r"^    ([a-z-]+)", parser.format_help(), re.MULTILINE)
    commands = [[name] for name in listed if name != "bag"]
    commands += [["bag", name] for name in ("create", "info", "evaluate")]
    assert len(commands) == 19
    for words in commands:
        shown = dwarf(*words, "--help")
        assert shown.returncode == 0
        (example,) = re.findall(r"^example: dwarf (.*)", shown.stdout, re.MULTILINE)
        arguments, _ = split_ros_arguments(shlex.split(example))
        assert arguments[: len(words)] == words
        make_parser().parse_args(arguments)


def test_ros_arguments_are_refused_where_they_mean_nothing(tmp_path):
    result = dwarf("import-checkpoint", "a", tmp_path / "b", "--ros-args", "-p", "x:=1")
    assert_one_line_error(result, "import-checkpoint", "--ros-args")


def test_evaluate_writes_the_kit_s_verdict(real_data, tmp_path):
    devkit = real_data("devkit_small")
    files = [f"--{kind}={tmp_path / f'report.{kind}'}" for kind in ("json", "csv", "html")]
    result = dwarf("evaluate", devkit / "res", devkit / "gt", *files)
    assert result.returncode == 0, result.stderr
    verdict = json.loads((tmp_path / "report.json").read_text())
    assert verdict["SF"]["occ"]["all"] == pytest.approx(85.7480, abs=5e-5)
    assert verdict["D1"]["noc"]["density"] == pytest.approx(60.9566, abs=5e-5)
    assert "85.75" in result.stdout
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert (tmp_path / "report.csv").read_text().count("\n") > 6


def damage(results: Path, kind: str) -> Path:
    """Damage one file of a folder of results; returns the file."""
    disparity = results / "disp_0" / "000003_10.png"
    if kind == "wrong size":
        write_disparity_png(disparity, np.ones((10, 20), np.float32))
    elif kind == "8 bit":
        write_image(disparity, np.zeros((60, 80), np.uint8))
    elif kind == "missing":
        disparity.unlink()
    elif kind == "flow for disparity":
        disparity.write_bytes((results / "flow" / "000003_10.png").read_bytes())
    return disparity


@pytest.mark.parametrize("kind", ["wrong size", "8 bit", "missing", "flow for disparity"])
def test_evaluate_names_the_bad_file_and_writes_nothing(real_data, tmp_path, kind):
    devkit = real_data("devkit_small")
    results = tmp_path / "results"
    for file in (devkit / "res").rglob("*.png"):
        copy = results / file.relative_to(devkit / "res")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    bad = damage(results, kind)
    out = tmp_path / "out"
    out.mkdir()
    result = dwarf("evaluate", results, devkit / "gt", "--json", out / "a.json")
    assert_one_line_error(result, bad)
    assert not list(out.iterdir())


def test_evaluate_needs_something_to_do(tmp_path):
    assert_one_line_error(dwarf("evaluate", tmp_path), "GROUND_TRUTH")


def test_predict_fills_a_folder_that_evaluate_scores(real_data, tmp_path):
    kitti = real_data("kitti2012")
    arguments = ("predict", "kitti2012", kitti, "--out", tmp_path, "--estimator", "classical")
    result = dwarf(*arguments)
    assert result.returncode == 0, result.stderr
    assert "2 of them now" in result.stdout
    assert "0 of them now" in dwarf(*arguments).stdout
    scored = dwarf("evaluate", tmp_path, kitti / "training", "--json", tmp_path / "scores.json")
    assert scored.returncode == 0, scored.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["D1"]["occ"]["all"] < 12
    assert scores["Fl"]["occ"]["all"] < 27
    assert "D2" not in scores


def test_unknown_data_set_and_split(tmp_path):
    assert_one_line_error(
        dwarf("predict", "mars", tmp_path, "--out", tmp_path / "o"), "mars", "kitti2015"
    )
    result = dwarf("predict", "kitti2015", tmp_path, "--out", tmp_path / "o", "--split", "half")
    assert_one_line_error(result, "half", "kitti_200")
    assert not (tmp_path / "o").exists()


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bag")
    write_drive(ProceduralDrive(seed=2, frames=3, width=256, height=128), folder / "drive")
    result = dwarf("bag", "create", folder / "drive", folder / "recording")
    assert result.returncode == 0, result.stderr
    return folder / "recording"


def test_bag_info_says_that_the_node_could_use_it(bag):
    result = dwarf("bag", "info", bag)
    assert result.returncode == 0, result.stderr
    assert "/left/image_rect" in result.stdout
    assert "can be used by the live node" in result.stdout


def test_bag_create_does_not_overwrite(bag):
    assert_one_line_error(dwarf("bag", "create", bag, bag), bag)


def test_bag_that_is_none(tmp_path):
    assert_one_line_error(dwarf("bag", "info", tmp_path), tmp_path)


def test_remap_that_is_none(bag):
    assert_one_line_error(dwarf("bag", "info", bag, "--remap", "left"), "--remap", "left")


def test_bag_evaluate_reports(bag, tmp_path):
    result = dwarf("bag", "evaluate", bag, "--out", tmp_path, "--estimator", "classical")
    assert result.returncode == 0, result.stderr
    assert "2 pairs" in result.stdout
    for name in ("report.html", "evaluation.json", "frames.csv"):
        assert (tmp_path / name).stat().st_size > 100


def test_training_configuration_that_is_wrong(tmp_path):
    (tmp_path / "bad.yaml").write_text("presett: dwarf_lite\n")
    assert_one_line_error(dwarf("train", tmp_path / "bad.yaml"), tmp_path / "bad.yaml", "presett")
    assert_one_line_error(dwarf("train", tmp_path / "none.yaml"), tmp_path / "none.yaml")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_that_is_full_is_one_line(quadruple, tmp_path, unbuffered):
    command = [sys.executable, "-m", "dwarf_ros.cli", "infer", *map(str, quadruple)]
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [*command, "--out", str(tmp_path / "out"), "--estimator", "classical"],
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert_one_line_error(result, "standard output: No space left on device")


def test_a_closed_pipe_ends_a_command_quietly(quadruple, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "dwarf_ros.cli", "infer", *map(str, quadruple)),
            *("--out", str(tmp_path / "out"), "--estimator", "classical"),
        ],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert result.returncode == 141
    assert "rror" not in result.stderr
