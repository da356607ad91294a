"""`dwarf node`, `play`, `record` and `demo`: the live node, what feeds it and what writes down its output."""

from __future__ import annotations

import argparse
from pathlib import Path

from dwarf_ros.cli import options as shared
from dwarf_ros.cli.options import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    add_command(commands, "node", _node)
    _add_play(commands)
    _add_record(commands)
    _add_demo(commands)


def prepare_ros() -> None:
    """Call this before importing anything of ros/ or live/: without rclpy it raises InputError with one line."""
    from dwarf_ros.ros.distro import prepare_environment

    prepare_environment()


def _node(options: argparse.Namespace) -> int:
    """Run the live ROS 2 node; parameters and remappings follow --ros-args.

    Example: dwarf node --ros-args -p estimator:=classical
    """
    prepare_ros()
    from dwarf_ros.ros.node import main as run_node

    return run_node(options.ros_arguments)


def _add_play(commands: Commands) -> None:
    parser = add_command(commands, "play", _play)
    parser.add_argument(
        "source", type=Path, metavar="SOURCE", help="folder with stereo images, or bag"
    )
    shared.add_rate_option(
        parser, "frames per second of wall time (default: the source's own rate)"
    )
    parser.add_argument("--loop", action="store_true", help="start again after the last frame")
    parser.add_argument("--clock", action="store_true", help="publish /clock from the stamps")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="append a JSON line for each published frame"
    )
    parser.add_argument(
        "--wait",
        dest="wait_s",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="longest wait for a subscriber before the first frame (default: 5)",
    )
    shared.add_topic_options(parser)


def _play(options: argparse.Namespace) -> int:
    """Publish a stereo sequence as ROS 2 topics.

    Example: dwarf play data/sequence --rate 5
    """
    prepare_ros()
    from dwarf_ros.live.player import play

    return play(
        options.source,
        rate_hz=options.rate_hz,
        loop=options.loop,
        clock=options.clock,
        log=options.log,
        wait_s=options.wait_s,
        namespace=options.namespace,
        remap=shared.remapped_topics(options),
        ros_arguments=options.ros_arguments,
    )


def _add_record(commands: Commands) -> None:
    parser = add_command(commands, "record", _record)
    parser.add_argument("out", type=Path, metavar="DIR", help="bag to write, a new folder")
    parser.add_argument("--expected", type=int, metavar="N", help="end after N estimates")
    parser.add_argument(
        "--idle-timeout",
        dest="idle_timeout_s",
        type=float,
        metavar="SECONDS",
        help="end when nothing has been received for this time",
    )
    parser.add_argument(
        "--reference",
        choices=("previous", "current"),
        default="previous",
        help="the node's parameter of this name (default: previous)",
    )


def _record(options: argparse.Namespace) -> int:
    """Write what the node publishes to a bag.

    Example: dwarf record out/recording --idle-timeout 10
    """
    prepare_ros()
    from dwarf_ros.live.recorder import record

    return record(
        options.out,
        expected=options.expected,
        idle_timeout_s=options.idle_timeout_s,
        reference=options.reference,
        ros_arguments=options.ros_arguments,
    )


def _add_demo(commands: Commands) -> None:
    parser = add_command(commands, "demo", _demo)
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="SOURCE",
        help="folder with stereo images (default: a synthetic drive with ground truth)",
    )
    shared.add_out_option(parser)
    shared.add_rate_option(parser, "frames per second (default: 2)", default=2.0)
    shared.add_estimator_options(parser)


def _demo(options: argparse.Namespace) -> int:
    """Play a drive through the live node and show what it publishes.

    Example: dwarf demo --out out/demo
    """
    prepare_ros()
    from dwarf_ros.live.demo import run_demo

    return run_demo(options.source, options.out, shared.choose(options), rate_hz=options.rate_hz)
