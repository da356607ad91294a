"""The `dwarf` command: one thin function a subcommand."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from dwarf_ros import __version__
from dwarf_ros.types import InputError


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
        return run(options)
    except InputError as error:
        print(f"dwarf: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run_node() -> int:
    """What `ros2 run dwarf_ros dwarf_node` runs: the live node alone."""
    return main(["node", *sys.argv[1:]])


_ROS_COMMANDS = ("node", "play")


def _split_ros_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
    """What is for argparse, and everything from --ros-args on, which is for rclpy."""
    if "--ros-args" not in argv:
        return argv, []
    start = argv.index("--ros-args")
    return argv[:start], argv[start:]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    play.add_argument("source", type=Path, metavar="SOURCE", help="folder with stereo images")
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
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:])
    parser.set_defaults(run=run)
    return parser


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


def _infer(options: argparse.Namespace) -> int:
    from dwarf_ros.datasets.calibration import read_calibration
    from dwarf_ros.datasets.formats import (
        read_image,
        write_disparity_png,
        write_flow_png,
        write_image,
    )
    from dwarf_ros.estimators import load_estimator
    from dwarf_ros.types import StereoFrame
    from dwarf_ros.visualization import disparity_color, flow_color, scene_flow_panel

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
    estimator = load_estimator(options.estimator, options.weights, options.engine)
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


def _node(options: argparse.Namespace) -> int:
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()
    from dwarf_ros.ros.node import main as run_node

    return run_node(options.ros_arguments)


def _play(options: argparse.Namespace) -> int:
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()
    from dwarf_ros.ros.player import play

    return play(
        options.source,
        rate_hz=options.rate,
        loop=options.loop,
        clock=options.clock,
        log=options.log,
        ros_arguments=options.ros_arguments,
    )


def _demo(options: argparse.Namespace) -> int:
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()
    from dwarf_ros.ros.demo import run_demo

    return run_demo(
        options.source,
        options.out,
        rate_hz=options.rate,
        estimator=options.estimator,
        weights=options.weights,
        engine=options.engine,
    )


if __name__ == "__main__":
    sys.exit(main())
