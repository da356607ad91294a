"""The `dwarf` command: one thin function a subcommand."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

from dwarf_ros import __version__
from dwarf_ros.signals import raising_interrupts
from dwarf_ros.types import InputError

if TYPE_CHECKING:
    from dwarf_ros.estimators import EstimatorChoice
    from dwarf_ros.viewing.results import Results


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; 0 when done, 2 with one line on stderr for bad input."""
    arguments, ros_arguments = _split_ros_arguments(sys.argv[1:] if argv is None else argv)
    options = _parser().parse_args(arguments)
    if ros_arguments and options.command not in _ROS_COMMANDS:
        print(
            f"dwarf: error: {options.command} does not talk ROS, but got {' '.join(ros_arguments)}",
            file=sys.stderr,
        )
        return 2
    options.ros_arguments = ros_arguments
    logging.basicConfig(format="dwarf: %(message)s", level=logging.INFO, stream=sys.stderr)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        with raising_interrupts():
            return run(options)
    except InputError as error:
        print(f"dwarf: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"dwarf: error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run_node() -> int:
    """What `ros2 run dwarf_ros dwarf_node` runs: the live node alone."""
    return main(["node", *sys.argv[1:]])


_ROS_COMMANDS = ("node", "play", "record", "view")


def _split_ros_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
    """What is for argparse, and everything from --ros-args on, which is for rclpy."""
    if "--ros-args" not in argv:
        return argv, []
    start = argv.index("--ros-args")
    return argv[:start], argv[start:]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one line, without the usage, which --help gives."""
        self.exit(2, f"dwarf: error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dwarf", description="Scene flow from a stereo camera, live in ROS 2 or offline."
    )
    parser.add_argument("--version", action="version", version=f"dwarf_ros {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    infer = _command(commands, "infer", _infer, "two stereo frames to disparity and optical flow")
    for image in ("left_t0", "right_t0", "left_t1", "right_t1"):
        infer.add_argument(image, type=Path, metavar=image.upper(), help="rectified image file")
    infer.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    infer.add_argument(
        "--calib",
        type=Path,
        metavar="FILE",
        help="calibration of the pair (KITTI text or ROS YAML); adds metres to the pictures",
    )
    _add_estimator_options(infer)

    importer = _command(
        commands, "import-checkpoint", _import_checkpoint, "a published TF-1 checkpoint to weights"
    )
    importer.add_argument(
        "prefix", metavar="PREFIX", help="checkpoint path without .index and .data-*"
    )
    importer.add_argument("out", type=Path, metavar="OUT", help="weights file to write")

    _command(
        commands, "node", _node, "the live ROS 2 node; parameters and remappings after --ros-args"
    )

    play = _command(commands, "play", _play, "publish a stereo sequence as ROS 2 topics")
    play.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder with stereo images, or bag"
    )
    play.add_argument(
        "--rate",
        type=float,
        metavar="HZ",
        help="frames a second of wall time (default: the source's own rate)",
    )
    play.add_argument("--loop", action="store_true", help="start again after the last frame")
    play.add_argument("--clock", action="store_true", help="publish /clock from the stamps")
    play.add_argument(
        "--log", type=Path, metavar="FILE", help="append a JSON line for each frame published"
    )
    play.add_argument(
        "--wait",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="longest wait for a subscriber before the first frame (default: 5)",
    )
    _add_topic_options(play)

    record = _command(commands, "record", _record, "write what the node publishes to files")
    record.add_argument("out", type=Path, metavar="DIR", help="folder to write to")
    record.add_argument("--expected", type=int, metavar="N", help="end after N answers")
    record.add_argument(
        "--idle-timeout", type=float, metavar="SECONDS", help="end when nothing came for this time"
    )
    record.add_argument(
        "--reference",
        choices=("previous", "current"),
        default="previous",
        help="the node's parameter of this name (default: previous)",
    )

    demo = _command(
        commands, "demo", _demo, "play a drive into the live node and show what it publishes"
    )
    demo.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="SOURCE",
        help="folder with stereo images (default: a procedural drive with ground truth)",
    )
    demo.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    demo.add_argument(
        "--rate", type=float, default=2.0, metavar="HZ", help="frames a second (default: 2)"
    )
    _add_estimator_options(demo)

    predict = _command(
        commands, "predict", _predict, "a data set's scene flow, in a folder as submitted to KITTI"
    )
    predict.add_argument(
        "dataset",
        metavar="DATASET",
        help="such as kitti2015; an unknown one is answered with the list",
    )
    predict.add_argument("root", type=Path, metavar="ROOT", help="folder of the data set")
    predict.add_argument(
        "--split", metavar="NAME", help="training, testing or one of the published splits"
    )
    predict.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to fill; one that is begun is gone on with",
    )
    _add_submission_option(predict)
    _add_estimator_options(predict)
    _add_workers_option(predict)

    picture = _command(commands, "picture", _picture, "draw scene flow: panels, maps, errors")
    _add_results_options(picture)
    picture.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="a .png or .jpg for one picture, or a folder for those of all frames",
    )
    picture.add_argument(
        "--kind",
        action="append",
        metavar="KIND",
        help="panel (default), left, disparity, depth, flow, key, above, errors or all; may be repeated",
    )
    picture.add_argument("--frame", metavar="N", help="number or name of the only frame to draw")

    video = _command(commands, "video", _video, "scene flow of a run as a video")
    _add_results_options(video)
    video.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".mp4 file to write (VP9)"
    )
    video.add_argument(
        "--rate", type=float, metavar="HZ", help="frames a second (default: those of the source)"
    )
    video.add_argument(
        "--width", type=int, default=1280, metavar="PX", help="of the video (default: 1280)"
    )

    view = _command(
        commands, "view", _view, "look at scene flow in a browser, of a running node or of files"
    )
    _add_results_options(view, live=True)
    view.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to serve on; all who reach it see everything (default: 127.0.0.1, this machine only)",
    )
    view.add_argument(
        "--port",
        type=int,
        default=9090,
        metavar="PORT",
        help="of the page; the data is on the next one (default: 9090)",
    )
    view.add_argument(
        "--save", type=Path, metavar="FILE", help="write a recording (.rrd) in place of serving"
    )

    export = _command(
        commands, "export", _export, "the network for other programs, checked against Keras"
    )
    export.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file")
    export.add_argument(
        "out", type=Path, metavar="OUT", help="file (onnx, tensorrt) or folder (savedmodel)"
    )
    export.add_argument(
        "--format", default="onnx", metavar="FORMAT", help="onnx, savedmodel or tensorrt (onnx)"
    )
    _add_size_option(export)

    quantize = _command(
        commands, "quantize", _quantize, "prepare precision int8 for images of a size"
    )
    quantize.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file")
    _add_size_option(quantize)

    benchmark = _command(
        commands, "benchmark", _benchmark, "time the engines beside what this machine could reach"
    )
    of = benchmark.add_mutually_exclusive_group()
    of.add_argument(
        "--preset", default="dwarf_lite", metavar="NAME", help="with fresh weights (dwarf_lite)"
    )
    of.add_argument("--weights", type=Path, metavar="FILE", help="weights file")
    benchmark.add_argument(
        "--engine", action="append", default=[], metavar="NAME", help="one of several (all)"
    )
    benchmark.add_argument(
        "--precision",
        action="append",
        default=[],
        metavar="NAME",
        help="one of several: f32, tf32, bf16, int8 (f32 and bf16)",
    )
    _add_size_option(benchmark)
    benchmark.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="timed answers of each engine (20)"
    )
    benchmark.add_argument(
        "--out",
        type=Path,
        default=Path("out/benchmark"),
        metavar="DIR",
        help="folder for benchmark.json and report.html (out/benchmark)",
    )

    evaluate = _command(
        commands,
        "evaluate",
        _evaluate,
        "score a folder of results as KITTI's development kit does, or pack it for the benchmark",
    )
    evaluate.add_argument(
        "results", type=Path, metavar="RESULTS", help="folder with disp_0, disp_1, flow"
    )
    evaluate.add_argument(
        "ground_truth",
        type=Path,
        nargs="?",
        metavar="GROUND_TRUTH",
        help="training folder of KITTI 2015 or 2012; not needed for --submission alone",
    )
    for format_, what in (
        ("json", "outliers in per cent"),
        ("csv", "figures of every image"),
        ("html", "report with pictures"),
    ):
        evaluate.add_argument(f"--{format_}", type=Path, metavar="FILE", help=f"write the {what}")
    _add_submission_option(evaluate)
    _add_workers_option(evaluate)

    train = _command(commands, "train", _train, "train the network as a configuration says")
    train.add_argument(
        "config", type=Path, metavar="CONFIG", help="such as config/train/lite_procedural.yaml"
    )
    train.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (default: out/train/NAME)"
    )
    train.add_argument(
        "--resume", action="store_true", help="go on from the folder's last checkpoint"
    )

    distill = _command(
        commands, "distill", _distill, "label a recording by a teacher, to learn from the labels"
    )
    distill.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder with stereo images, or bag"
    )
    distill.add_argument(
        "--teacher",
        required=True,
        metavar="NAME",
        help="dwarf, dwarf_lite, classical, auto, or folder: the maps of --maps",
    )
    distill.add_argument("--weights", type=Path, metavar="FILE", help="weights of a network")
    distill.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help="tensorflow, openvino or auto (default: auto)",
    )
    distill.add_argument(
        "--maps",
        type=Path,
        metavar="DIR",
        help="disp_0/, flow/ (and disp_1/, disp_right/, flow_back/) as KITTI's 16-bit PNGs, made elsewhere",
    )
    distill.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder to fill; one that is begun is gone on with",
    )
    distill.add_argument(
        "--threshold",
        type=float,
        default=1.0,
        metavar="PX",
        help="largest disagreement of left and right, forward and backward (default: 1)",
    )
    distill.add_argument(
        "--hold-out",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="of the frames, the last ones, put apart to be judged by (default: 0)",
    )
    _add_topic_options(distill)
    _add_workers_option(distill)

    bag = commands.add_parser("bag", help="rosbag2 recordings, without ROS")
    bag_commands = bag.add_subparsers(dest="bag_command", required=True, metavar="COMMAND")
    create = _command(
        bag_commands, "create", _bag_create, "a recording from a folder of stereo images"
    )
    create.add_argument("source", type=Path, metavar="SOURCE", help="folder with stereo images")
    create.add_argument("out", type=Path, metavar="OUT", help="recording to write")
    create.add_argument("--storage", choices=("mcap", "sqlite3"), default="mcap")
    create.add_argument(
        "--namespace", default="", metavar="NS", help="of the topics (default: none)"
    )
    info = _command(
        bag_commands, "info", _bag_info, "what a recording holds, and whether the node can use it"
    )
    info.add_argument("bag", type=Path, metavar="BAG", help="folder, .mcap or .db3 file")
    _add_topic_options(info)
    judge = _command(
        bag_commands,
        "evaluate",
        _bag_evaluate,
        "run the estimator over every pair of a recording and report how consistent it is",
    )
    judge.add_argument(
        "bag", type=Path, metavar="BAG", help="recording, or folder with stereo images"
    )
    judge.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    judge.add_argument(
        "--ground-truth", type=Path, metavar="DIR", help="ground truth in KITTI's layout"
    )
    answers = judge.add_mutually_exclusive_group()
    answers.add_argument(
        "--live", action="store_true", help="play it into the live node and judge its answers"
    )
    answers.add_argument(
        "--recorded",
        type=Path,
        metavar="DIR",
        help="judge the answers that replay.launch.py recorded there",
    )
    judge.add_argument(
        "--rate",
        type=float,
        default=2.0,
        metavar="HZ",
        help="frames a second with --live (default: 2)",
    )
    _add_estimator_options(judge)
    _add_workers_option(judge)
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    parser.set_defaults(run=run)
    return parser


def _add_topic_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--namespace", metavar="NS", help="of the stereo camera in a bag that has several"
    )
    parser.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="NAME:=TOPIC",
        help="topic of a bag to take for left/image_rect or one of the other three",
    )


def _remap(options: argparse.Namespace) -> dict[str, str]:
    pairs = [rule.partition(":=") for rule in options.remap]
    for (name, sign, topic), rule in zip(pairs, options.remap, strict=True):
        if not (name and sign and topic):
            raise InputError(f"--remap: {rule!r}, expected NAME:=TOPIC")
    return {name: topic for name, _, topic in pairs}


def _add_submission_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="ZIP",
        help="check the results against the rules of the KITTI 2015 benchmark and pack them",
    )


def _write_submission(results: Path, zip_file: Path) -> None:
    from dwarf_ros.evaluation.kitti.submission import write_submission
    from dwarf_ros.progress import show_progress

    with show_progress("checking the submission") as report:
        files = write_submission(results, zip_file, progress=report)
    print(f"{zip_file}: {files} files")


def _add_workers_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers",
        metavar="N",
        help="fan out by Ray over N processes or a cluster, ray://host:port (default: here)",
    )


def _add_estimator_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--estimator",
        default="auto",
        metavar="NAME",
        help="dwarf, dwarf_lite, classical or auto (default: auto)",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of a network")
    parser.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help="tensorflow, openvino or auto (default: auto)",
    )


def _choice(options: argparse.Namespace) -> EstimatorChoice:
    from dwarf_ros.estimators import choose_estimator

    return choose_estimator(options.estimator, options.weights, options.engine)


def _teacher(options: argparse.Namespace) -> EstimatorChoice | Path:
    from dwarf_ros.estimators import ESTIMATORS, choose_estimator

    name, weights, maps = options.teacher, options.weights, options.maps
    if name == "folder":
        if weights is not None:
            raise InputError(f"--weights: {weights} given to the teacher folder, expected none")
        if maps is None:
            raise InputError(
                "--maps: none given to the teacher folder, expected the folder of its maps"
            )
        return maps
    if name not in ("auto", *ESTIMATORS):
        raise InputError(
            f"--teacher: {name!r} is unknown, expected auto, {', '.join(ESTIMATORS)} or folder"
        )
    if maps is not None:
        raise InputError(f"--maps: {maps} given to the teacher {name}, expected none")
    return choose_estimator(name, weights, options.engine)


def _add_results_options(parser: argparse.ArgumentParser, live: bool = False) -> None:
    files = "folder of results, folder with stereo images, or bag"
    if live:
        parser.add_argument(
            "source",
            nargs="?",
            default="",
            metavar="SOURCE",
            help=f"{files}, .rrd file, or namespace of a running node such as /stereo (default: a running node)",
        )
    else:
        parser.add_argument("source", type=Path, metavar="SOURCE", help=files)
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="images that a folder of results is of; adds the left image, metres and times",
    )
    parser.add_argument(
        "--ground-truth", type=Path, metavar="DIR", help="in KITTI's layout; adds error maps"
    )
    _add_topic_options(parser)
    _add_estimator_options(parser)


def _results(options: argparse.Namespace) -> Results:
    from dwarf_ros.viewing.sources import open_results

    choice = _choice(options)
    # What a bag has recorded is taken unless an estimator is named.
    named = options.estimator != "auto" or options.weights is not None
    return open_results(
        Path(options.source),
        options.images,
        options.ground_truth,
        choice if named else None,
        options.namespace,
        _remap(options),
    )


def _picture(options: argparse.Namespace) -> int:
    from dwarf_ros.progress import show_progress
    from dwarf_ros.viewing.pictures import write_pictures

    results = _results(options)
    if options.frame is not None:
        results = results.only(options.frame)
    with show_progress("drawing") as report:
        files = write_pictures(results, options.out, options.kind or ["panel"], report)
    print(f"{options.out}: {len(files)} picture{'s' if len(files) > 1 else ''}")
    return 0


def _video(options: argparse.Namespace) -> int:
    from dwarf_ros.progress import show_progress
    from dwarf_ros.viewing.pictures import write_video

    results = _results(options)
    with show_progress("drawing") as report:
        frames = write_video(results, options.out, options.rate, options.width, report)
    print(f"{options.out}: {frames} frames")
    return 0


def _view(options: argparse.Namespace) -> int:
    source = Path(options.source)
    if not options.source or (options.source.startswith("/") and not source.exists()):
        _prepare_ros()
        from dwarf_ros.live.view import view

        namespace = options.source or options.namespace or ""
        return view(namespace, options.bind, options.port, options.save, options.ros_arguments)

    from dwarf_ros.progress import show_progress
    from dwarf_ros.viewing.viewer import save_results, view_file, view_results

    if source.suffix == ".rrd":
        view_file(source, options.bind, options.port)
        return 0
    results = _results(options)
    with show_progress("showing") as report:
        if options.save is not None:
            save_results(results, options.save, report)
        else:
            view_results(results, options.bind, options.port, report)
    if options.save is not None:
        print(f"{options.save}: {len(results)} frames")
    return 0


def _infer(options: argparse.Namespace) -> int:
    from dwarf_ros.estimators import load
    from dwarf_ros.formats import (
        read_image,
        write_disparity_png,
        write_flow_png,
        write_image,
    )
    from dwarf_ros.recordings.calibration import read_calibration
    from dwarf_ros.types import StereoFrame
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
        camera = read_calibration(options.calib, width, height, colour=images[0].ndim == 3)
    previous = StereoFrame(images[0], images[1], camera=camera)
    current = StereoFrame(images[2], images[3], camera=camera)
    estimator = load(_choice(options))
    scene_flow = estimator.estimate(previous, current)

    name = f"{paths[0].stem}.png"
    for folder in ("disp_0", "disp_1", "flow", "pictures"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    write_disparity_png(options.out / "disp_0" / name, scene_flow.disparity)
    write_disparity_png(options.out / "disp_1" / name, scene_flow.disparity_next)
    write_flow_png(options.out / "flow" / name, scene_flow.flow)
    pictures = {
        "disparity": disparity_color(scene_flow.disparity),
        "flow": flow_color(scene_flow.flow),
        "scene_flow": scene_flow_panel(
            previous.left, scene_flow, paths[0].name, f"{estimator.name} on {estimator.engine}"
        ),
    }
    for picture, pixels in pictures.items():
        write_image(options.out / "pictures" / f"{paths[0].stem}_{picture}.png", pixels)
    print(
        f"{options.out}: disp_0, disp_1, flow and pictures of {name} by {estimator.name} on "
        f"{estimator.engine}; scene flow valid at {100 * scene_flow.valid.mean():.1f} % of the pixels"
    )
    return 0


def _import_checkpoint(options: argparse.Namespace) -> int:
    from dwarf_ros.network.tf1_checkpoint import import_checkpoint

    left_out = import_checkpoint(options.prefix, options.out)
    for name in left_out:
        print(f"left out: {name}")
    print(f"{options.out}: weights of the dwarf preset; {len(left_out)} variables left out")
    return 0


def _prepare_ros() -> None:
    """To be called before anything of ros/ is imported, so that a machine without rclpy is told so in one line."""
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()


def _node(options: argparse.Namespace) -> int:
    _prepare_ros()
    from dwarf_ros.ros.node import main as run_node

    return run_node(options.ros_arguments)


def _play(options: argparse.Namespace) -> int:
    _prepare_ros()
    from dwarf_ros.live.player import play

    return play(
        options.source,
        rate_hz=options.rate,
        loop=options.loop,
        clock=options.clock,
        log=options.log,
        wait_s=options.wait,
        namespace=options.namespace,
        remap=_remap(options),
        ros_arguments=options.ros_arguments,
    )


def _record(options: argparse.Namespace) -> int:
    _prepare_ros()
    from dwarf_ros.live.recorder import record

    return record(
        options.out,
        expected=options.expected,
        idle_timeout_s=options.idle_timeout,
        reference=options.reference,
        ros_arguments=options.ros_arguments,
    )


def _demo(options: argparse.Namespace) -> int:
    _prepare_ros()
    from dwarf_ros.live.demo import run_demo

    return run_demo(
        options.source,
        options.out,
        _choice(options),
        rate_hz=options.rate,
    )


def _predict(options: argparse.Namespace) -> int:
    from dwarf_ros.datasets.splits import open_dataset
    from dwarf_ros.inference.predict import predict
    from dwarf_ros.progress import show_progress

    dataset = open_dataset(options.dataset, options.root, options.split)
    choice = _choice(options)
    with show_progress("predicting") as report:
        summary = predict(
            dataset,
            options.out,
            choice,
            workers=options.workers,
            progress=report,
        )
    print(
        f"{options.out}: {summary.samples} samples by {summary.estimator} on {summary.engine}, "
        f"{summary.predicted} of them now, in {summary.seconds:.1f} s"
    )
    if options.submission is not None:
        _write_submission(options.out, options.submission)
    return 0


def _add_size_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        default="384x1280",
        metavar="HxW",
        help="of the images, px, multiples of 64 (384x1280)",
    )


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise InputError(f"--size: got {text!r}, expected HEIGHTxWIDTH in px, such as 384x1280")
    return int(height), int(width)


def _export(options: argparse.Namespace) -> int:
    from dwarf_ros.engines.export import export

    height, width = _size(options.size)
    difference = export(options.weights, options.out, options.format, height, width)
    print(f"{options.out}: within {difference:.2g} px of Keras on three inputs")
    return 0


def _quantize(options: argparse.Namespace) -> int:
    from dwarf_ros.evaluation.quantization import change_in_words, quantize_for_drives

    print(change_in_words(quantize_for_drives(options.weights, *_size(options.size))))
    return 0


def _benchmark(options: argparse.Namespace) -> int:
    from dwarf_ros.evaluation.benchmark import (
        COLUMNS,
        configurations,
        run_benchmark,
        save_fresh_weights,
        timing_rows,
        write_benchmark,
    )
    from dwarf_ros.progress import show_progress

    height, width = _size(options.size)
    found = configurations(options.engine, options.precision)
    with TemporaryDirectory() as folder:
        weights = options.weights
        if weights is None:
            weights = Path(folder) / f"{options.preset}.safetensors"
            save_fresh_weights(options.preset, weights)
        with show_progress("rounds") as progress:
            (result,) = run_benchmark([weights], found, height, width, options.rounds, progress)
    write_benchmark(result, options.out)
    for row in (COLUMNS, *timing_rows(result)):
        print(
            "  ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row)
        )
    print(options.out / "report.html")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
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
        _write_submission(options.results, options.submission)
    return 0


def _train(options: argparse.Namespace) -> int:
    from dwarf_ros.training.config import read_config

    # First, because Keras takes seconds to load, too long for the news of a misspelt key.
    config = read_config(options.config)

    from dwarf_ros.progress import show_progress
    from dwarf_ros.training.trainer import train

    out = options.out or Path("out/train") / options.config.stem
    with show_progress("steps") as report:
        outcome = train(config, out, options.resume, report)
    for name, value in outcome.scores.items():
        print(f"{name}: {value:.3f}")
    if not outcome.finished:
        print(f"{out}: stopped at step {outcome.step}; --resume goes on from there")
        return 130
    if outcome.weights is not None:
        print(f"{outcome.weights}: after {outcome.step} steps")
    return 0


def _distill(options: argparse.Namespace) -> int:
    from dwarf_ros.inference.distill import distill
    from dwarf_ros.progress import show_progress

    teacher = _teacher(options)
    with show_progress("labelling") as report:
        summary = distill(
            options.source,
            options.out,
            teacher,
            threshold=options.threshold,
            hold_out=options.hold_out,
            namespace=options.namespace,
            remap=_remap(options),
            workers=options.workers,
            progress=report,
        )
    density = ", ".join(f"{name} {percent:.1f} %" for name, percent in summary.density.items())
    print(
        f"{options.out}: {summary.pairs} pairs by {summary.teacher} on {summary.engine}, "
        f"{summary.held_out} of them held out, {summary.labelled} labelled now in {summary.seconds:.1f} s; "
        f"pixels with a label: {density}"
    )
    return 0


def _bag_create(options: argparse.Namespace) -> int:
    from dwarf_ros.progress import show_progress
    from dwarf_ros.recordings import open_recording
    from dwarf_ros.recordings.bag.write import create_bag

    recording = open_recording(options.source)
    with show_progress("writing") as report:
        create_bag(recording, options.out, options.storage, options.namespace, report)
    print(f"{options.out}: {len(recording)} stereo frames in {options.storage}")
    return 0


def _bag_info(options: argparse.Namespace) -> int:
    from dwarf_ros.recordings.bag.info import bag_info, print_bag_info

    print_bag_info(bag_info(options.bag, options.namespace, _remap(options)))
    return 0


def _bag_evaluate(options: argparse.Namespace) -> int:
    from dwarf_ros.evaluation.bag_report import evaluate_bag, print_evaluation

    choice = _choice(options)
    arguments = {
        "ground_truth": options.ground_truth,
        "workers": options.workers,
    }
    if options.live or options.recorded is not None:
        _prepare_ros()
        from dwarf_ros.live.processes import LiveError
        from dwarf_ros.live.replay import evaluate_recorded, replay_bag

        try:
            if options.live:
                evaluation = replay_bag(options.bag, options.out, choice, options.rate, **arguments)
            else:
                evaluation = evaluate_recorded(
                    options.bag, options.out, options.recorded, choice, **arguments
                )
        except LiveError as error:
            print(f"dwarf: replay failed: {error}; the run is in {options.out}", file=sys.stderr)
            return 1
    else:
        evaluation = evaluate_bag(options.bag, options.out, choice, **arguments)
    print_evaluation(evaluation)
    print(f"{options.out}: report.html, evaluation.json, frames.csv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
