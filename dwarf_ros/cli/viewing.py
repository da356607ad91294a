"""`dwarf picture`, `video` and `view`: scene flow to look at."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dwarf_ros.cli import options as shared
from dwarf_ros.cli.live import prepare_ros
from dwarf_ros.cli.options import Commands, Parser, add_command

if TYPE_CHECKING:
    from dwarf_ros.viewing.results import Results

_FILES = "folder of results, folder with stereo images, or bag"


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    _add_picture(commands)
    _add_video(commands)
    _add_view(commands)


def _add_results_options(parser: Parser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="images that a folder of results was estimated from; adds the left image, meters and times",
    )
    parser.add_argument(
        "--ground-truth", type=Path, metavar="DIR", help="in KITTI's layout; adds error maps"
    )
    shared.add_topic_options(parser)
    shared.add_estimator_options(parser)


def _results(options: argparse.Namespace) -> Results:
    from dwarf_ros.viewing.sources import open_results

    choice = shared.choose(options)
    # Estimates that a bag holds are shown unless the user names an estimator.
    named = options.estimator != "auto" or options.weights is not None
    return open_results(
        Path(options.source),
        options.images,
        options.ground_truth,
        choice if named else None,
        options.namespace,
        shared.remapped_topics(options),
    )


def _add_picture(commands: Commands) -> None:
    parser = add_command(commands, "picture", _picture)
    parser.add_argument("source", type=Path, metavar="SOURCE", help=_FILES)
    _add_results_options(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE|DIR",
        help="a .png or .jpg for one picture, or a folder for the pictures of all frames",
    )
    parser.add_argument(
        "--kind",
        action="append",
        metavar="KIND",
        help="panel (default), left, disparity, depth, flow, key, above, moving, confidence, errors or all; may be repeated",
    )
    parser.add_argument("--frame", metavar="N", help="number or name of the only frame to draw")


def _picture(options: argparse.Namespace) -> int:
    """Draw scene flow: panels, maps, errors.

    Example: dwarf picture data/sequence --frame 0 --out frame.png
    """
    from dwarf_ros.progress import show_progress
    from dwarf_ros.viewing.pictures import write_pictures

    results = _results(options)
    if options.frame is not None:
        results = results.only(options.frame)
    with show_progress("drawing") as report:
        files = write_pictures(results, options.out, options.kind or ["panel"], report)
    print(f"{options.out}: {len(files)} picture{'s' if len(files) > 1 else ''}")
    return 0


def _add_video(commands: Commands) -> None:
    parser = add_command(commands, "video", _video)
    parser.add_argument("source", type=Path, metavar="SOURCE", help=_FILES)
    _add_results_options(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".mp4 file to write (VP9)"
    )
    shared.add_rate_option(parser, "frames per second (default: the source's own rate)")
    parser.add_argument(
        "--width", type=int, default=1280, metavar="PX", help="of the video (default: 1280)"
    )


def _video(options: argparse.Namespace) -> int:
    """Write scene flow as a video.

    Example: dwarf video data/sequence --out sequence.mp4
    """
    from dwarf_ros.progress import show_progress
    from dwarf_ros.viewing.pictures import write_video

    results = _results(options)
    with show_progress("drawing") as report:
        frames = write_video(results, options.out, options.rate_hz, options.width, report)
    print(f"{options.out}: {frames} frames")
    return 0


def _add_view(commands: Commands) -> None:
    parser = add_command(commands, "view", _view)
    parser.add_argument(
        "source",
        nargs="?",
        default="",
        metavar="SOURCE",
        help=f"{_FILES}, .rrd file, or namespace of a running node such as /stereo (default: a running node)",
    )
    _add_results_options(parser)
    parser.add_argument(
        "--bind",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="to listen on; everybody who can reach it sees everything (default: 127.0.0.1, this machine only)",
    )
    parser.add_argument(
        "--port",
        type=int,
        default=9090,
        metavar="PORT",
        help="of the page; the data is served on the next port (default: 9090)",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write a recording (.rrd) instead of serving"
    )


def _view(options: argparse.Namespace) -> int:
    """Show scene flow in a browser, from a running node or from files.

    Example: dwarf view data/sequence
    """
    source = Path(options.source)
    if not options.source or (options.source.startswith("/") and not source.exists()):
        prepare_ros()
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
