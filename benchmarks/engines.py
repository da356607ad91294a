"""Engines against the plain TensorFlow graph: time and memory for one pair of frames, as ratios.

    python benchmarks/engines.py [--size 384x1280] [--rounds 20] [--weights dwarf=FILE dwarf_lite=FILE] [--out DIR]

On an otherwise idle machine: the engines of both presets answer in turn, and the ratios are to the median of `dwarf` under engine
tensorflow in float32. Without weights untrained ones are timed, whose int8 accuracy means nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from dwarf_ros.evaluation.benchmark import (
    Benchmark,
    run_benchmark,
    save_fresh_weights,
    write_benchmark,
)
from dwarf_ros.progress import show_progress

CONFIGURATIONS = (
    ("tensorflow", "f32"),
    ("openvino", "f32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
    ("onnxruntime", "f32"),
)


def print_ratios(benchmark: Benchmark, plain_s: float) -> None:
    for timing in benchmark.timings:
        if timing.error:
            print(f"{benchmark.preset:10s} {timing.name:16s} {timing.error}")
            continue
        print(
            f"{benchmark.preset:10s} {timing.name:16s} {1e3 * timing.median:8.1f} ms  {timing.median / plain_s:5.3f} of plain  "
            f"{timing.median / benchmark.floor_s:5.2f} x floor  {timing.peak_memory / 1e6:6.0f} MB"
        )
    for name, change in (benchmark.int8_accuracy or {}).get("change_px", {}).items():
        print(f"{benchmark.preset:10s} int8 changes {name} by {change['mean']:.3f} px on average")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="384x1280", help="HEIGHTxWIDTH, px")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--weights", nargs="*", default=[], metavar="PRESET=FILE")
    parser.add_argument("--out", type=Path, default=Path("out/engines"))
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    files = dict(pair.split("=", 1) for pair in options.weights)
    presets = ("dwarf", "dwarf_lite")
    with tempfile.TemporaryDirectory() as folder:
        for preset in presets:
            if preset not in files:
                files[preset] = f"{folder}/{preset}.safetensors"
                save_fresh_weights(preset, Path(files[preset]))
        with show_progress("rounds") as report:
            measured = run_benchmark(
                [files[preset] for preset in presets],
                CONFIGURATIONS,
                height,
                width,
                options.rounds,
                report,
            )
    for benchmark in measured:
        write_benchmark(benchmark, options.out / benchmark.preset)
        print_ratios(benchmark, measured[0].timings[0].median)


if __name__ == "__main__":
    main()
