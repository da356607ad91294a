"""`dwarf train` and `distill`: learning, and labels to learn from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dwarf_ros.cli import options as shared
from dwarf_ros.cli.options import Commands, add_command
from dwarf_ros.types import InputError

if TYPE_CHECKING:
    from dwarf_ros.estimators import EstimatorChoice


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    _add_train(commands)
    _add_distill(commands)


def _add_train(commands: Commands) -> None:
    parser = add_command(commands, "train", _train)
    parser.add_argument(
        "config", type=Path, metavar="CONFIG", help="such as config/train/lite_procedural.yaml"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (default: out/train/NAME)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="resume from the folder's last checkpoint"
    )


def _train(options: argparse.Namespace) -> int:
    """Train the network by a configuration.

    Example: dwarf train config/train/lite_procedural.yaml --out out/train
    """
    from dwarf_ros.training.config import read_config

    # First, because Keras takes seconds to load: too long to wait for the error about a misspelt key.
    config = read_config(options.config)

    from dwarf_ros.progress import show_progress
    from dwarf_ros.training.trainer import train

    out = options.out or Path("out/train") / options.config.stem
    with show_progress("steps") as report:
        outcome = train(config, out, options.resume, report)
    for name, value in outcome.scores.items():
        print(f"{name}: {value:.3f}")
    if not outcome.finished:
        print(f"{out}: stopped at step {outcome.step}; --resume continues from there")
        return 130
    if outcome.weights is not None:
        print(f"{outcome.weights}: after {outcome.step} steps")
    return 0


def _add_distill(commands: Commands) -> None:
    parser = add_command(commands, "distill", _distill)
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder with stereo images, or bag"
    )
    parser.add_argument(
        "--teacher",
        required=True,
        metavar="NAME",
        help="dwarf, dwarf_lite, dwarf_lite_v2, classical, auto, ptlflow:MODEL, or folder: the maps of --maps",
    )
    shared.add_network_options(parser)
    shared.add_refine_option(parser, default="none")
    parser.add_argument(
        "--maps",
        type=Path,
        metavar="DIR",
        help="disp_0/, flow/ (and disp_1/, disp_right/, flow_back/) of another program, as KITTI's 16-bit PNGs",
    )
    shared.add_out_option(parser, "folder to fill; resumes a folder that was begun")
    parser.add_argument(
        "--threshold",
        type=float,
        default=1.0,
        metavar="PX",
        help="largest left-right and forward-backward disagreement (default: 1)",
    )
    parser.add_argument(
        "--rigid",
        action="store_true",
        help="add labels of static points that are occluded or leave the image, from disparity and ego-motion",
    )
    parser.add_argument(
        "--fuse",
        action="store_true",
        help="average disparities with those of classical where both agree within 1 px",
    )
    parser.add_argument(
        "--hold-out",
        type=float,
        default=0.0,
        metavar="PERCENT",
        help="of the frames, the last ones, kept apart for validation (default: 0)",
    )
    shared.add_topic_options(parser)
    shared.add_workers_option(parser)


def _distill(options: argparse.Namespace) -> int:
    """Label a recording with a teacher's estimates, for training.

    Example: dwarf distill recording.mcap --teacher classical --out out/labels
    """
    from dwarf_ros.inference.distill import distill
    from dwarf_ros.progress import show_progress

    teacher = _teacher(options)
    with show_progress("labeling") as report:
        summary = distill(
            options.source,
            options.out,
            teacher,
            threshold=options.threshold,
            hold_out=options.hold_out,
            rigid=options.rigid,
            fuse=options.fuse,
            namespace=options.namespace,
            remap=shared.remapped_topics(options),
            workers=options.workers,
            progress=report,
        )
    density = ", ".join(f"{name} {percent:.1f} %" for name, percent in summary.density.items())
    print(
        f"{options.out}: {summary.pairs} pairs by {summary.teacher} on {summary.engine}, "
        f"{summary.held_out} of them held out, {summary.labelled} labeled now in {summary.seconds:.1f} s; "
        f"pixels with a label: {density}"
    )
    return 0


def _teacher(options: argparse.Namespace) -> EstimatorChoice | Path:
    from dwarf_ros.estimators import ESTIMATORS, PTLFLOW, choose_estimator

    name, weights, maps = options.teacher, options.weights, options.maps
    if name == "folder":
        if weights is not None:
            raise InputError(f"weights: {weights} given to the teacher folder, expected none")
        if maps is None:
            raise InputError("maps: none given to the teacher folder, expected a folder of maps")
        return maps
    is_ptlflow = name.startswith(PTLFLOW)
    if not is_ptlflow and name not in ("auto", *ESTIMATORS):
        raise InputError(
            f"teacher: {name!r} is unknown, expected auto, {', '.join(ESTIMATORS)}, {PTLFLOW}MODEL or folder"
        )
    if maps is not None:
        raise InputError(f"maps: {maps} given to the teacher {name}, expected none")
    # bfloat16 is precise enough for labels and four times as fast, where the processor has it.
    precision = "auto" if is_ptlflow else "f32"
    return choose_estimator(name, weights, options.engine, precision, refine=options.refine)
