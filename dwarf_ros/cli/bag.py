"""`dwarf bag create`, `info` and `evaluate`: rosbag2 recordings, without ROS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dwarf_ros.cli import options as shared
from dwarf_ros.cli.live import prepare_ros
from dwarf_ros.cli.options import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    bag = commands.add_parser("bag", help="work with rosbag2 recordings, without ROS")
    bag_commands = bag.add_subparsers(dest="bag_command", required=True, metavar="COMMAND")
    _add_create(bag_commands)
    _add_info(bag_commands)
    _add_evaluate(bag_commands)


def _add_create(commands: Commands) -> None:
    parser = add_command(commands, "create", _create)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder with stereo images")
    parser.add_argument("out", type=Path, metavar="OUT", help="bag to write")
    parser.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap", help="(default: mcap)"
    )
    parser.add_argument(
        "--namespace", default="", metavar="NS", help="of the topics (default: none)"
    )


def _create(options: argparse.Namespace) -> int:
    """Write a bag from a folder of stereo images.

    Example: dwarf bag create data/sequence out/bag
    """
    from dwarf_ros.progress import show_progress
    from dwarf_ros.recordings import open_recording
    from dwarf_ros.recordings.bag.write import create_bag

    recording = open_recording(options.source)
    with show_progress("writing") as report:
        frames = create_bag(recording, options.out, options.storage, options.namespace, report)
    print(f"{options.out}: {frames} stereo frames in {options.storage}")
    return 0


def _add_info(commands: Commands) -> None:
    parser = add_command(commands, "info", _info)
    parser.add_argument("bag", type=Path, metavar="BAG", help="folder, .mcap or .db3 file")
    shared.add_topic_options(parser)


def _info(options: argparse.Namespace) -> int:
    """Show what a bag contains, and whether the node can use it.

    Example: dwarf bag info recording.mcap
    """
    from dwarf_ros.recordings.bag.info import bag_info, print_bag_info

    print_bag_info(bag_info(options.bag, options.namespace, shared.remapped_topics(options)))
    return 0


def _add_evaluate(commands: Commands) -> None:
    parser = add_command(commands, "evaluate", _evaluate)
    parser.add_argument("bag", type=Path, metavar="BAG", help="bag, or folder with stereo images")
    shared.add_out_option(parser)
    parser.add_argument(
        "--ground-truth", type=Path, metavar="DIR", help="ground truth in KITTI's layout"
    )
    estimates = parser.add_mutually_exclusive_group()
    estimates.add_argument(
        "--live",
        action="store_true",
        help="play it through the live node and evaluate what the node publishes",
    )
    estimates.add_argument(
        "--recorded",
        type=Path,
        metavar="DIR",
        help="evaluate what replay.launch.py recorded there",
    )
    shared.add_rate_option(parser, "frames per second with --live (default: 2)", default=2.0)
    shared.add_estimator_options(parser)
    shared.add_workers_option(parser)


def _evaluate(options: argparse.Namespace) -> int:
    """Estimate every pair of frames of a recording and report how consistent the estimates are.

    Example: dwarf bag evaluate recording.mcap --out out/evaluation
    """
    from dwarf_ros.evaluation.bag_report import evaluate_bag, print_evaluation

    bag, out, choice = options.bag, options.out, shared.choose(options)
    arguments = {"ground_truth": options.ground_truth, "workers": options.workers}
    if options.live or options.recorded is not None:
        prepare_ros()
        from dwarf_ros.live.processes import LiveError
        from dwarf_ros.live.replay import evaluate_recorded, replay_bag

        try:
            if options.live:
                evaluation = replay_bag(bag, out, choice, options.rate_hz, **arguments)
            else:
                evaluation = evaluate_recorded(bag, out, options.recorded, choice, **arguments)
        except LiveError as error:
            print(f"dwarf: replay failed: {error}; the run is in {out}", file=sys.stderr)
            return 1
    else:
        evaluation = evaluate_bag(bag, out, choice, **arguments)
    print_evaluation(evaluation)
    print(f"{out}: report.html, evaluation.json, frames.csv")
    return 0
