"""Options that several commands share, and the values that they stand for.

An option's `dest` is the name of the argument that it feeds, so that an error that begins with that name can be shown with
the option instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from dwarf_ros.types import InputError

if TYPE_CHECKING:
    from dwarf_ros.estimators import EstimatorChoice


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, and knows the option that sets an argument."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and one line, without the usage, which --help shows."""
        self.exit(2, f"dwarf: error: {message} (see {self.prog} --help)\n")

    def name_option(self, message: str) -> str:
        """An error about the argument `name`, "name: ...", as an error about the option that sets it."""
        name, colon, rest = message.partition(":")
        for action in self._actions:
            if colon and action.dest == name and action.option_strings:
                return f"{action.option_strings[-1]}:{rest}"
        return message


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int]) -> Parser:
    """A parser for one command; its help is the docstring of the function that runs it."""
    description, _, example = cleandoc(run.__doc__ or name).partition("\n\nExample: ")
    summary = f"{description[0].lower()}{description[1:].rstrip('.')}"
    epilog = f"example: {example}"
    parser = commands.add_parser(name, help=summary, description=description, epilog=epilog)
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_out_option(parser: argparse.ArgumentParser, help: str = "folder to write to") -> None:
    """--out, which is required."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=help)


def add_rate_option(
    parser: argparse.ArgumentParser, help: str, default: float | None = None
) -> None:
    """--rate, which feeds the argument `rate_hz`."""
    parser.add_argument(
        "--rate", dest="rate_hz", type=float, default=default, metavar="HZ", help=help
    )


def add_estimator_options(parser: argparse.ArgumentParser) -> None:
    """The options that `choose` reads."""
    parser.add_argument(
        "--estimator",
        default="auto",
        metavar="NAME",
        help="dwarf, dwarf_lite, dwarf_lite_v2, classical, ptlflow:MODEL or auto (default: auto)",
    )
    add_network_options(parser)
    add_refine_option(parser)


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """--weights and --engine."""
    parser.add_argument("--weights", type=Path, metavar="FILE", help="weights of the network")
    parser.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help="tensorflow, openvino, onnxruntime or auto (default: auto)",
    )


def add_refine_option(parser: argparse.ArgumentParser, default: str = "rigid") -> None:
    """--refine."""
    parser.add_argument(
        "--refine",
        choices=("rigid", "none"),
        default=default,
        help=f"rigid: improve estimates by the camera's own motion and that of objects (default: {default})",
    )


def choose(options: argparse.Namespace) -> EstimatorChoice:
    """The estimator that the options ask for."""
    from dwarf_ros.estimators import choose_estimator

    return choose_estimator(
        options.estimator, options.weights, options.engine, refine=options.refine
    )


def add_topic_options(parser: argparse.ArgumentParser) -> None:
    """--namespace and --remap, for bags."""
    parser.add_argument(
        "--namespace", metavar="NS", help="of the stereo camera, for a bag with several"
    )
    parser.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="NAME:=TOPIC",
        help="topic of a bag to use as left/image_rect or another input; may be repeated",
    )


def remapped_topics(options: argparse.Namespace) -> dict[str, str]:
    """Topics by input, as --remap gives them."""
    pairs = [rule.partition(":=") for rule in options.remap]
    for (name, sign, topic), rule in zip(pairs, options.remap, strict=True):
        if not (name and sign and topic):
            raise InputError(f"remap: got {rule!r}, expected NAME:=TOPIC")
    return {name: topic for name, _, topic in pairs}


def add_workers_option(parser: argparse.ArgumentParser) -> None:
    """--workers."""
    parser.add_argument(
        "--workers",
        metavar="N",
        help="number of processes, or a Ray cluster, ray://host:port (default: this process)",
    )


def add_size_option(parser: argparse.ArgumentParser) -> None:
    """--size, which `image_size` reads."""
    parser.add_argument(
        "--size",
        default="384x1280",
        metavar="HxW",
        help="height and width of the images, px, multiples of 64 (default: 384x1280)",
    )


def image_size(options: argparse.Namespace) -> tuple[int, int]:
    """Height and width, px."""
    height, _, width = options.size.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise InputError(f"size: got {options.size!r}, expected HxW in px, such as 384x1280")
    from dwarf_ros.network.codec import check_size

    try:
        check_size(int(height), int(width))
    except InputError as error:
        raise InputError(f"size: {error}") from None
    return int(height), int(width)


def add_submission_option(parser: argparse.ArgumentParser) -> None:
    """--submission, which `write_submission` reads."""
    parser.add_argument(
        "--submission",
        type=Path,
        metavar="ZIP",
        help="check the results against the rules of the KITTI 2015 benchmark and pack them",
    )


def write_submission(results: Path, zip_file: Path) -> None:
    """Check and pack a folder of results."""
    from dwarf_ros.evaluation.kitti.submission import write_submission
    from dwarf_ros.progress import show_progress

    with show_progress("checking the submission") as report:
        files = write_submission(results, zip_file, progress=report)
    print(f"{zip_file}: {files} files")
