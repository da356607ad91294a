"""The correlation's CUDA kernels, right and fast? python benchmarks/correlation.py [--sanitizer] [--json FILE].

Builds the library and a program of its own with the nvcc that is there, then
- compares every kernel with the CPU kernel in slices of wider maps (with --sanitizer also under compute-sanitizer's tools),
- times the kernels alone, cold, against a large copy and a copy of the same bytes (KITTI's levels, batch 1),
- through JAX compares forward and backward with float64 and 100 runs with one another, bit by bit,
- and times them there against keras.ops compiled by XLA.
Needs g++, nvcc, a GPU and JAX; Keras for the comparison with keras.ops (KERAS_BACKEND=jax); no TensorFlow. Without a GPU
it checks the CPU kernel through JAX and times nothing. Exits with 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
# The program that is timed needs memory too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

from dwarf_ros.network.correlation.cuda import build, jax_binding
from dwarf_ros.network.correlation.cuda.kernels import Kernels, find_fault

SLOPE = 0.1
TYPES = ("float32", "float16", "bfloat16")
RUNS = 100
REPEATS = 20
CALLS = 16
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
LEVELS = {
    "level 2": (1, 96, 320, 32),
    "level 3": (1, 48, 160, 64),
    "level 4": (1, 24, 80, 96),
    "level 5": (1, 12, 40, 128),
    "level 6": (1, 6, 20, 196),
}
"""Features of a 384 x 1280 px image, batch x H x W x C."""

CASES = {
    "1D": (0, 4, 0),
    "2D": (4, 4, 0),
    "3D": (4, 4, 1),
    "far": (6, 11, 0),
}
"""Reach in y, in x and along the channels."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sanitizer", action="store_true", help="also under compute-sanitizer")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    gpu = jax_binding.sees_gpu()
    report: dict[str, Any] = {"jax": jax.__version__, "gpu": gpu}
    faults = []
    with tempfile.TemporaryDirectory() as temporary:
        begun = time.perf_counter()
        nvcc = shutil.which("nvcc") if gpu else None
        (library,) = build.build(["jax"], nvcc=nvcc, folder=Path(temporary))
        report["architectures"] = build.architectures_of(library)
        report["build_s"] = round(time.perf_counter() - begun, 1)
        print(
            f"built for {report['architectures'] or 'the CPU'} in {report['build_s']} s", flush=True
        )
        if gpu and nvcc:
            faults += native(Path(temporary), nvcc, options.sanitizer, report)
        kernels = jax_binding.load_kernels(library)
        faults += against_float64(kernels, report)
        faults += repeated(kernels, RUNS if gpu else 3)
        try:
            import keras
        except ImportError:
            print("no Keras: keras.ops is not compared with")
        else:
            report["keras"] = keras.__version__
            fault = find_fault(kernels)
            faults += [f"self-check: {fault}"] if fault else []
            faults += gradients_against_ops(kernels)
            if gpu:
                against_xla(kernels, report)
    report["faults"] = faults
    print("\n".join(faults) or "nothing wrong")
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))
    return 1 if faults else 0


def native(folder: Path, nvcc: str, sanitizer: bool, report: dict[str, Any]) -> list[str]:
    """The program beside this file: its checks, under the sanitizer too, and its times."""
    program = folder / "correlation"
    sources = [Path(__file__).with_suffix(".cu")]
    sources += [build.SOURCES / name for name in ("correlation.cu", "correlation.cc")]
    flags = ["-std=c++17", "-O3", "-lineinfo", "-DDWARF_CUDA", f"-I{build.SOURCES}"]
    newest = report["architectures"].split()[-1].removeprefix("sm_")
    flags.append(f"-gencode=arch=compute_{newest},code=sm_{newest}")
    subprocess.run([nvcc, *flags, *map(str, sources), "-o", str(program)], check=True)
    faults = []
    checks = {"kernels": [str(program), "check"], "large": [str(program), "large"]}
    for tool in TOOLS if sanitizer else ():
        sanitized = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "9"]
        checks[tool] = [*sanitized, *checks["kernels"]]
    report["checks"] = {}
    for name, command in checks.items():
        done = subprocess.run(command, capture_output=True, text=True)
        lines = (done.stdout + done.stderr).strip().splitlines()
        report["checks"][name] = lines[-20:]
        print(f"{name}: exit code {done.returncode}: {lines[-1] if lines else ''}", flush=True)
        if done.returncode:
            faults += [f"{name}: {line}" for line in lines[:10]]
    done = subprocess.run([str(program), "time"], capture_output=True, text=True)
    if done.returncode:
        return [*faults, f"times: {done.stderr.strip()}"]
    card, *cases = (json.loads(line) for line in done.stdout.splitlines())
    report["card"], report["kernels"] = card, cases
    print(f"{card['card']}: copy {card['copy_gb_s']:.0f} GB/s")
    columns = ["forward_us", "forward_us_strip_4", "forward_us_strip_8", "forward_us_in_cache"]
    columns += ["copy_of_the_same_bytes_us", "share_of_large_copy", "backward_us"]
    print("case, type, " + ", ".join(columns))
    for case in cases:
        print(f"{case['case']}, {case['type']}, " + ", ".join(str(case[c]) for c in columns))
    return faults


def exact_volume(first: np.ndarray, second: np.ndarray, reaches: tuple[int, ...]) -> np.ndarray:
    """The correlation by its definition, in float64, without the leaky ReLU."""
    reach_y, reach_x, depth = reaches
    _, height, width, channels = first.shape
    margins = [(0, 0), (reach_y, reach_y), (reach_x, reach_x), (depth, depth)]
    padded = np.pad(second, margins)
    volume = [
        np.einsum(
            "bhwc,bhwc->bhw", first, padded[:, j : j + height, i : i + width, k : k + channels]
        )
        for k in range(2 * depth + 1)
        for j in range(2 * reach_y + 1)
        for i in range(2 * reach_x + 1)
    ]
    return np.stack(volume, axis=-1) / channels


def exact_gradients(
    first: np.ndarray, second: np.ndarray, weights: np.ndarray, reaches: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the sum of weights * exact_volume, in float64."""
    reach_y, reach_x, depth = reaches
    _, height, width, channels = first.shape
    padded = np.pad(second, [(0, 0), (reach_y, reach_y), (reach_x, reach_x), (depth, depth)])
    of_first, of_padded = np.zeros_like(first), np.zeros_like(padded)
    index = 0
    for k in range(2 * depth + 1):
        for j in range(2 * reach_y + 1):
            for i in range(2 * reach_x + 1):
                there = np.s_[:, j : j + height, i : i + width, k : k + channels]
                weight = weights[..., index, None] / channels
                of_first += weight * padded[there]
                of_padded[there] += weight * first
                index += 1
    inside = tuple(slice(before, -before or None) for before in (0, reach_y, reach_x, depth))
    return of_first, of_padded[inside]


def against_float64(kernels: Kernels, report: dict[str, Any]) -> list[str]:
    """Forward and backward of each case and type, on fresh random maps of sizes that tiles do not divide."""
    rng = np.random.default_rng()
    faults = []
    report["error"] = {}
    sizes = {"odd": (2, 29, 53, 23), "level 3": LEVELS["level 3"]}
    for size_name, size in sizes.items():
        for name, reaches in CASES.items():
            if size_name == "level 3" and name not in ("1D", "2D"):
                continue
            for dtype in TYPES:
                first, second = (jnp.asarray(rng.normal(size=size), dtype=dtype) for _ in range(2))
                exact_first, exact_second = (
                    np.asarray(a.astype(jnp.float32), np.float64) for a in (first, second)
                )
                volume, pull_back = jax.vjp(
                    lambda a, b, reaches=reaches: kernels.correlate(a, b, *reaches, SLOPE),
                    first,
                    second,
                )
                cotangent = jnp.asarray(rng.normal(size=volume.shape), dtype=dtype)
                found = [volume, *pull_back(cotangent)]
                expected = exact_volume(exact_first, exact_second, reaches)
                # The slope is that of the volume as it is stored: next to zero its sign may differ from the exact one's.
                positive = np.asarray(volume.astype(jnp.float32)) > 0
                weights = np.asarray(cotangent.astype(jnp.float32), np.float64)
                weights = np.where(positive, weights, SLOPE * weights)
                expected_all = [
                    np.where(expected > 0, expected, SLOPE * expected),
                    *exact_gradients(exact_first, exact_second, weights, reaches),
                ]
                limit = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
                for part, got, want in zip(
                    ("forward", "by first", "by second"), found, expected_all, strict=True
                ):
                    got = np.asarray(got.astype(jnp.float32), np.float64)
                    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
                    label = f"{size_name}, {name}, {dtype}, {part}"
                    report["error"][label] = error
                    if not error <= limit:
                        faults.append(
                            f"float64: {label}: relative error {error:.2e} over {limit:.0e}"
                        )
    worst = {d: max(e for k, e in report["error"].items() if f" {d}," in k) for d in TYPES}
    print("relative error against float64, at most: " + json.dumps(worst), flush=True)
    return faults


def gradients_against_ops(kernels: Kernels) -> list[str]:
    """Whether the gradients of a level's volumes are those of keras.ops."""
    from dwarf_ros.network.correlation import ops

    rng = np.random.default_rng(5)
    features = [jnp.asarray(rng.normal(size=(2, 29, 53, 24)), jnp.float32) for _ in range(4)]
    pulled = []
    # Matrix products in tf32 would differ by more than the limit.
    with jax.default_matmul_precision("highest"):
        for function in (kernels.cost_volumes, ops.cost_volumes):
            volumes, pull_back = jax.vjp(lambda *f, g=function: g(*f, 4, 1, SLOPE), *features)
            cotangent = np.random.default_rng(6).normal(size=volumes.shape)
            pulled.append(pull_back(jnp.asarray(cotangent, jnp.float32)))
    faults = []
    for image, ours, theirs in zip(range(4), *pulled, strict=True):
        error = float(jnp.linalg.norm(ours - theirs) / jnp.linalg.norm(theirs))
        if not error <= 1e-4:
            faults.append(f"keras.ops: gradient of image {image + 1}: relative error {error:.2e}")
    return faults


def repeated(kernels: Kernels, runs: int) -> list[str]:
    """Whether a level's volumes and their gradients have the same bits in every run."""
    rng = np.random.default_rng(3)
    size = (2, 48, 161, 36)
    features = tuple(jnp.asarray(rng.normal(size=size), jnp.float32) for _ in range(4))

    @jax.jit
    def level(features: tuple, cotangent: jax.Array) -> tuple:
        volumes, pull_back = jax.vjp(lambda f: kernels.cost_volumes(*f, 4, 0, SLOPE), features)
        return volumes, pull_back(cotangent)

    cotangent = jnp.asarray(rng.normal(size=(*size[:3], 180)), jnp.float32)
    first = [np.asarray(a).tobytes() for a in jax.tree.leaves(level(features, cotangent))]
    for run in range(1, runs):
        again = [np.asarray(a).tobytes() for a in jax.tree.leaves(level(features, cotangent))]
        if again != first:
            return [f"bits: run {run + 1} of {runs} differs from the first"]
    print(f"{runs} runs, the same bits", flush=True)
    return []


def call_time(function: Callable[..., Any], sets: list[tuple]) -> float:
    """Median microseconds of a call among CALLS in one compiled graph, on maps that take turns."""
    compiled = jax.jit(lambda inputs: [function(*maps) for maps in inputs])
    jax.block_until_ready(compiled(sets))
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        jax.block_until_ready(compiled(sets))
        times.append(1e6 * (time.perf_counter() - begun) / len(sets))
    return statistics.median(times)


def forward(correlate: Callable[..., Any], reaches: tuple, *maps: jax.Array) -> Any:
    return correlate(*maps, *reaches)


def backward(correlate: Callable[..., Any], reaches: tuple, *maps: jax.Array) -> Any:
    volume, pull_back = jax.vjp(lambda *inputs: correlate(*inputs, *reaches), *maps)
    return pull_back(volume)


def against_xla(kernels: Kernels, report: dict[str, Any]) -> None:
    """Times of the kernels and of keras.ops, both in graphs that XLA compiled; forward, and forward with backward."""
    from dwarf_ros.network.correlation import ops

    functions = {
        "correlation_1d": (lambda a, b, r: kernels.correlate(a, b, 0, r), ops.correlation_1d),
        "correlation_2d": (lambda a, b, r: kernels.correlate(a, b, r, r), ops.correlation_2d),
        "cost_volumes": (kernels.cost_volumes, ops.cost_volumes),
    }
    report["xla"] = []
    rng = np.random.default_rng(4)
    print("case, pass, ours us, keras.ops us, times as fast")
    for level, size in LEVELS.items():
        for name, implementations in functions.items():
            count, reaches = (4, (4, 0, SLOPE)) if name == "cost_volumes" else (2, (4,))
            maps = [
                tuple(jnp.asarray(rng.normal(size=size), jnp.float32) for _ in range(count))
                for _ in range(CALLS)
            ]
            for part in ("forward", "backward"):
                measured = []
                for implementation in implementations:
                    function = functools.partial(
                        forward if part == "forward" else backward, implementation, reaches
                    )
                    measured.append(call_time(function, maps))
                case = {
                    "case": f"{name} {level}",
                    "pass": part,
                    "factor": measured[1] / measured[0],
                }
                case |= {"ours_us": measured[0], "ops_us": measured[1]}
                report["xla"].append(case)
                print(
                    f"{case['case']}, {part}, {measured[0]:.1f}, {measured[1]:.1f}, {case['factor']:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    sys.exit(main())
