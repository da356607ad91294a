"""The `dwarf` command: one module per group of commands, each option next to the call that it feeds."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from dwarf_ros import __version__
from dwarf_ros.cli import bag, inference, live, network, training, viewing
from dwarf_ros.cli.options import Parser
from dwarf_ros.signals import raising_interrupts
from dwarf_ros.types import InputError

_ROS_COMMANDS = ("node", "play", "record", "view")


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns 0 when done, 2 with one line on stderr for bad input."""
    arguments, ros_arguments = split_ros_arguments(sys.argv[1:] if argv is None else argv)
    options = make_parser().parse_args(arguments)
    if ros_arguments and options.command not in _ROS_COMMANDS:
        return _fail(f"{options.command} does not use ROS, but got {' '.join(ros_arguments)}")
    options.ros_arguments = ros_arguments
    logging.basicConfig(format="dwarf: %(message)s", level=logging.INFO, stream=sys.stderr)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        with raising_interrupts():
            return run(options)
    except InputError as error:
        parser: Parser = options.parser
        return _fail(parser.name_option(str(error)))
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        return 130


def run_node() -> int:
    """`ros2 run dwarf_ros dwarf_node`: the live node alone."""
    return main(["node", *sys.argv[1:]])


def make_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="dwarf", description="Scene flow from a stereo camera, live in ROS 2 or offline."
    )
    parser.add_argument("--version", action="version", version=f"dwarf_ros {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (inference, live, viewing, bag, training, network):
        group.add_commands(commands)
    return parser


def split_ros_arguments(argv: list[str]) -> tuple[list[str], list[str]]:
    """The arguments for argparse, and those from --ros-args on, which are for rclpy."""
    if "--ros-args" not in argv:
        return argv, []
    start = argv.index("--ros-args")
    return argv[:start], argv[start:]


def _fail(message: str) -> int:
    print(f"dwarf: error: {message}", file=sys.stderr)
    return 2
