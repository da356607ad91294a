"""The `dwarf` command: one module per group of commands, each option next to the call that it feeds."""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Callable

from dwarf_ros import __version__
from dwarf_ros.cli import bag, inference, live, network, training, viewing
from dwarf_ros.cli.options import Parser
from dwarf_ros.engines.cache import keras_home
from dwarf_ros.signals import raising_interrupts
from dwarf_ros.types import InputError

_ROS_COMMANDS = ("node", "play", "record", "view")


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 when done; 2 with one line on stderr for bad input, or where standard output cannot be written; 130 after an
        interruption; 141, without a word, where the reader of standard output has gone.
    """
    # A file's name may be of any bytes, and standard output says it as it is.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EFBIG, errno.EIO, errno.ENOSPC):
            raise
        _discard_output()
        return _fail(f"standard output: {error.strerror}")


def _run(argv: list[str]) -> int:
    arguments, ros_arguments = split_ros_arguments(argv)
    options = make_parser().parse_args(arguments)
    if ros_arguments and options.command not in _ROS_COMMANDS:
        return _fail(f"{options.command} does not use ROS, but got {' '.join(ros_arguments)}")
    options.ros_arguments = ros_arguments
    logging.basicConfig(format="dwarf: %(message)s", level=logging.INFO, stream=sys.stderr)
    os.environ["KERAS_HOME"] = str(keras_home())
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


def _discard_output() -> None:
    """Let what is still to be written to standard output, also when Python ends, go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _fail(message: str) -> int:
    print(f"dwarf: error: {message}", file=sys.stderr)
    return 2
