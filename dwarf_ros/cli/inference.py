"""`dwarf infer`, `predict` and `evaluate`: scene flow of images and data sets, and its errors."""

from __future__ import annotations

import argparse
from pathlib import Path

from dwarf_ros.cli import options as shared
from dwarf_ros.cli.options import Commands, add_command
from dwarf_ros.types import InputError


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    _add_infer(commands)
    _add_predict(commands)
    _add_evaluate(commands)


def _add_infer(commands: Commands) -> None:
    parser = add_command(commands, "infer", _infer)
    for image in ("left_t0", "right_t0", "left_t1", "right_t1"):
        parser.add_argument(image, type=Path, metavar=image.upper(), help="rectified image file")
    shared.add_out_option(parser)
    parser.add_argument(
        "--calib",
        type=Path,
        metavar="FILE",
        help="calibration of the stereo camera (KITTI text or ROS YAML); adds meters to the pictures, motion.json and moving/",
    )
    shared.add_estimator_options(parser)


def _infer(options: argparse.Namespace) -> int:
    """Estimate disparity and optical flow from two stereo frames.

    Example: dwarf infer left_0.png right_0.png left_1.png right_1.png --calib calib.txt --out out
    """
    import json
    from dataclasses import replace

    from dwarf_ros.files import write_atomically
    from dwarf_ros.formats import read_image, write_image
    from dwarf_ros.motion.refined import load
    from dwarf_ros.motion.tracking import Tracker
    from dwarf_ros.recordings.calibration import read_calibration
    from dwarf_ros.recordings.result_folder import ResultFolder, ego_motion_document
    from dwarf_ros.recordings.white_level import log_white_level, white_level
    from dwarf_ros.types import StereoFrame, as_rgb8
    from dwarf_ros.visualization.colors import disparity_color, flow_color
    from dwarf_ros.visualization.panels import scene_flow_panel

    paths = (options.left_t0, options.right_t0, options.left_t1, options.right_t1)
    images = [read_image(path) for path in paths]
    height, width = images[0].shape[:2]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != (height, width):
            raise InputError(
                f"{path}: image is {image.shape[1]} x {image.shape[0]} px, expected "
                f"{width} x {height} px as {paths[0]}"
            )
    camera = None
    if options.calib is not None:
        camera = read_calibration(options.calib, width, height, color=images[0].ndim == 3)
    white = white_level(images)
    log_white_level(white, str(paths[0]))
    images = [as_rgb8(image, str(path), white) for path, image in zip(paths, images, strict=True)]
    previous = StereoFrame(images[0], images[1], camera=camera)
    # The time between the frames is unknown and changes nothing that is written, but ego-motion asks for one.
    current = StereoFrame(images[2], images[3], stamp=100_000_000, camera=camera)
    estimator = load(shared.choose(options))
    scene_flow = replace(estimator.estimate(previous, current), dt=0.0)

    name = f"{paths[0].stem}.png"
    results = ResultFolder(options.out)
    results.create()
    results.write(paths[0].stem, scene_flow)
    (options.out / "pictures").mkdir(exist_ok=True)
    pictures = {
        "disparity": disparity_color(scene_flow.disparity),
        "flow": flow_color(scene_flow.flow),
        "scene_flow": scene_flow_panel(
            previous.left,
            scene_flow,
            paths[0].name,
            f"{estimator.name} on {estimator.engine}",
            objects=Tracker().update(scene_flow),
        ),
    }
    for picture, pixels in pictures.items():
        write_image(options.out / "pictures" / f"{paths[0].stem}_{picture}.png", pixels)
    ego_motion = scene_flow.ego_motion
    if ego_motion is not None and camera is not None:
        document = json.dumps(ego_motion_document(ego_motion), indent=1) + "\n"
        write_atomically(options.out / "motion.json", document.encode())
        results.write_moving(paths[0].stem, scene_flow)
    if ego_motion is not None and ego_motion.reason is not None:
        print(f"no ego-motion: {ego_motion.reason}; the estimate is not refined")
    print(
        f"{options.out}: disp_0, disp_1, flow and pictures of {name} by {estimator.name} on "
        f"{estimator.engine}; scene flow valid at {100 * scene_flow.valid.mean():.1f} % of the pixels"
    )
    return 0


def _add_predict(commands: Commands) -> None:
    parser = add_command(commands, "predict", _predict)
    parser.add_argument(
        "dataset", metavar="DATASET", help="such as kitti2015; an unknown name prints the list"
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder of the data set")
    parser.add_argument(
        "--split", metavar="NAME", help="training, testing or one of the published splits"
    )
    shared.add_out_option(parser, "folder to fill; resumes a folder that was begun")
    shared.add_submission_option(parser)
    shared.add_estimator_options(parser)
    shared.add_workers_option(parser)


def _predict(options: argparse.Namespace) -> int:
    """Estimate the scene flow of a data set, in the format of a KITTI submission.

    Example: dwarf predict kitti2015 data/kitti2015 --split testing --out out/kitti2015
    """
    from dwarf_ros.datasets.splits import open_dataset
    from dwarf_ros.inference.predict import predict
    from dwarf_ros.progress import show_progress

    dataset = open_dataset(options.dataset, options.root, options.split)
    choice = shared.choose(options)
    with show_progress("predicting") as report:
        summary = predict(dataset, options.out, choice, workers=options.workers, progress=report)
    print(
        f"{options.out}: {summary.samples} samples by {summary.estimator} on {summary.engine}, "
        f"{summary.predicted} of them now, in {summary.seconds:.1f} s"
    )
    if options.submission is not None:
        shared.write_submission(options.out, options.submission)
    return 0


def _add_evaluate(commands: Commands) -> None:
    parser = add_command(commands, "evaluate", _evaluate)
    parser.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder with disp_0, disp_1, flow"
    )
    parser.add_argument(
        "ground_truth",
        type=Path,
        nargs="?",
        metavar="GROUND_TRUTH",
        help="training folder of KITTI 2015 or 2012; not needed for --submission alone",
    )
    for format_, what in (
        ("json", "outliers in percent"),
        ("csv", "figures of every image"),
        ("html", "report with pictures"),
    ):
        parser.add_argument(f"--{format_}", type=Path, metavar="FILE", help=f"write the {what}")
    shared.add_submission_option(parser)
    shared.add_workers_option(parser)


def _evaluate(options: argparse.Namespace) -> int:
    """Score a folder of results as KITTI's development kit does, or pack it for the benchmark.

    Example: dwarf evaluate out/kitti2015 data/kitti2015/training --html report.html
    """
    from dwarf_ros.evaluation.kitti.report import evaluate, print_table
    from dwarf_ros.progress import show_progress

    files = {name: getattr(options, name) for name in ("json", "csv", "html")}
    if options.ground_truth is not None:
        with show_progress("scoring") as report:
            evaluation = evaluate(
                options.results,
                options.ground_truth,
                workers=options.workers,
                progress=report,
                **files,
            )
        print_table(evaluation)
    elif options.submission is None or any(files.values()):
        raise InputError("GROUND_TRUTH: missing, expected the folder to score against")
    if options.submission is not None:
        shared.write_submission(options.results, options.submission)
    return 0
