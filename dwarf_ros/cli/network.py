"""`dwarf export`, `quantize`, `benchmark` and `import-checkpoint`: the network and its weights."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from dwarf_ros.cli import options as shared
from dwarf_ros.cli.options import Commands, Parser, add_command


def add_commands(commands: Commands) -> None:
    """Add the commands of this group."""
    _add_export(commands)
    _add_quantize(commands)
    _add_benchmark(commands)
    _add_import_checkpoint(commands)


def _add_weights(parser: Parser) -> None:
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="weights file")


def _add_export(commands: Commands) -> None:
    parser = add_command(commands, "export", _export)
    _add_weights(parser)
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="file (onnx, tensorrt) or folder (savedmodel)"
    )
    parser.add_argument(
        "--format",
        default="onnx",
        metavar="FORMAT",
        help="onnx, savedmodel or tensorrt (default: onnx)",
    )
    shared.add_size_option(parser)


def _export(options: argparse.Namespace) -> int:
    """Write the network for other programs, checked against Keras.

    Example: dwarf export model/dwarf_lite.safetensors dwarf_lite.onnx
    """
    from dwarf_ros.engines.export import export

    height, width = shared.image_size(options)
    difference = export(options.weights, options.out, options.format, height, width)
    print(f"{options.out}: within {difference:.2g} px of Keras on three inputs")
    return 0


def _add_quantize(commands: Commands) -> None:
    parser = add_command(commands, "quantize", _quantize)
    _add_weights(parser)
    shared.add_size_option(parser)


def _quantize(options: argparse.Namespace) -> int:
    """Prepare precision int8 for images of one size.

    Example: dwarf quantize model/dwarf_lite.safetensors --size 384x1280
    """
    from dwarf_ros.evaluation.quantization import change_in_words, quantize_for_drives

    height, width = shared.image_size(options)
    print(change_in_words(quantize_for_drives(options.weights, height, width)))
    return 0


def _add_benchmark(commands: Commands) -> None:
    parser = add_command(commands, "benchmark", _benchmark)
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--preset",
        default="dwarf_lite",
        metavar="NAME",
        help="network with fresh weights (default: dwarf_lite)",
    )
    network.add_argument("--weights", type=Path, metavar="FILE", help="weights file")
    parser.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="NAME",
        help="tensorflow, openvino, onnxruntime or auto; may be repeated (default: all installed)",
    )
    parser.add_argument(
        "--precision",
        action="append",
        default=[],
        metavar="NAME",
        help="f32, tf32, bf16 or int8; may be repeated (default: f32 and bf16)",
    )
    shared.add_size_option(parser)
    parser.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="timed runs per engine (default: 20)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out/benchmark"),
        metavar="DIR",
        help="folder for benchmark.json and report.html (default: out/benchmark)",
    )


def _benchmark(options: argparse.Namespace) -> int:
    """Time the engines, and compare them with the limits of this machine.

    Example: dwarf benchmark --engine openvino --precision f32
    """
    from dwarf_ros.evaluation.benchmark import (
        COLUMNS,
        configurations,
        run_benchmark,
        save_fresh_weights,
        timing_rows,
        write_benchmark,
    )
    from dwarf_ros.progress import show_progress

    height, width = shared.image_size(options)
    chosen = configurations(options.engine, options.precision)
    with TemporaryDirectory() as folder:
        weights = options.weights
        if weights is None:
            weights = Path(folder) / f"{options.preset}.safetensors"
            save_fresh_weights(options.preset, weights)
        with show_progress("rounds") as progress:
            (result,) = run_benchmark([weights], chosen, height, width, options.rounds, progress)
    write_benchmark(result, options.out)
    for row in (COLUMNS, *timing_rows(result)):
        print(
            "  ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row)
        )
    print(options.out / "report.html")
    return 0


def _add_import_checkpoint(commands: Commands) -> None:
    parser = add_command(commands, "import-checkpoint", _import_checkpoint)
    parser.add_argument(
        "prefix", metavar="PREFIX", help="checkpoint path without .index and .data-*"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="weights file to write")


def _import_checkpoint(options: argparse.Namespace) -> int:
    """Convert a published TF-1 checkpoint to a weights file.

    Example: dwarf import-checkpoint checkpoints/DWARF dwarf.safetensors
    """
    from dwarf_ros.network.tf1_checkpoint import import_checkpoint

    left_out = import_checkpoint(options.prefix, options.out)
    for name in left_out:
        print(f"left out: {name}")
    print(f"{options.out}: weights of the dwarf preset; {len(left_out)} variables left out")
    return 0
