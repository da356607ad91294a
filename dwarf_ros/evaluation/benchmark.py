"""How fast the engines run a network, compared with the least time that it could take on this machine.

Each engine runs in a separate process, whose memory is measured. The processes take turns, so that other load on the
machine affects all engines alike.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from dwarf_ros.evaluation.charts import Chart, Series
from dwarf_ros.evaluation.quantization import (
    change_in_words,
    drive_images,
    quantize_for_drives,
)
from dwarf_ros.evaluation.report import Figure, Report, Table, Value, write_report
from dwarf_ros.evaluation.workload import (
    Ceilings,
    Workload,
    count_workload,
    measure_ceilings,
)
from dwarf_ros.files import write_atomically
from dwarf_ros.network.codec import check_size
from dwarf_ros.progress import Progress
from dwarf_ros.types import InputError


@dataclass
class Timing:
    """One engine at one precision.

    Attributes:
        engine, precision: that were timed.
        first_s: from loading the engine to the end of its first run.
        seconds: of each timed run.
        peak_memory: largest resident memory of its process, bytes; not that of a conversion, which is a separate process.
        layer_seconds: by kind of layer, if the engine reports it.
        error: why there is no timing; "" if there is.
    """

    engine: str
    precision: str
    first_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    peak_memory: int = 0
    layer_seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def name(self) -> str:
        """Engine and precision."""
        return f"{self.engine} {self.precision}"

    @property
    def median(self) -> float:
        """Median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """95th percentile of the seconds."""
        return float(np.percentile(self.seconds, 95))


@dataclass(frozen=True)
class Benchmark:
    """Result of `run_benchmark` for one preset at one image size.

    Attributes:
        preset: name of the network's preset.
        height, width: of the images, px.
        machine, cores: name of the processor, and how many of its cores this process may use.
        ceilings: speed of the machine.
        work: required for one run.
        timings: of each engine.
        int8_accuracy: change by quantization (`engines.quantization.quantize`), if int8 was timed.
    """

    preset: str
    height: int
    width: int
    machine: str
    cores: int
    ceilings: Ceilings
    work: Workload
    timings: list[Timing]
    int8_accuracy: dict[str, Any] | None = None

    @property
    def floor_s(self) -> float:
        """The least time that one run could take in float32, limited by arithmetic or by memory."""
        arithmetic = 2 * self.work.macs / self.ceilings.flops
        return max(arithmetic, self.work.bytes / self.ceilings.bytes_per_second)

    def as_json(self) -> dict[str, Any]:
        """All figures, in s, bytes, FLOP and px."""
        return asdict(self) | {
            "floor_s": self.floor_s,
            "timings": [
                asdict(timing)
                | (
                    {
                        "median_s": timing.median,
                        "p95_s": timing.p95,
                        "per_second": 1 / timing.median,
                        "times_floor": timing.median / self.floor_s,
                    }
                    if timing.seconds
                    else {}
                )
                for timing in self.timings
            ],
        }


def run_benchmark(
    weights: Sequence[str | Path],
    configurations: Sequence[tuple[str, str]],
    height: int = 384,
    width: int = 1280,
    rounds: int = 20,
    progress: Progress | None = None,
) -> list[Benchmark]:
    """Time networks on engines, each in a separate process, in turns.

    Args:
        weights: weights files, one or more.
        configurations: engine and precision of each; an unavailable one is reported, not raised.
        height: of the images, px, a multiple of 64.
        width: of the images, px, a multiple of 64.
        rounds: timed runs of each engine, after one that is not counted.
        progress: receives the number of rounds done and in total.

    Returns:
        The result for each weights file.

    Raises:
        InputError: a size that is not a multiple of 64 px, no rounds, weights that cannot be read, or no engine that runs.
    """
    check_size(height, width)
    if rounds < 1:
        raise InputError(f"rounds: {rounds}, expected at least 1")
    from dwarf_ros.network.weights import read_header

    presets = [read_header(file).preset for file in weights]
    int8_accuracy: list[dict[str, Any] | None] = [None for _ in weights]
    if ("openvino", "int8") in configurations and find_spec("nncf") and find_spec("openvino"):
        int8_accuracy = [quantize_for_drives(file, height, width) for file in weights]
    timings = [[Timing(engine, precision) for engine, precision in configurations] for _ in weights]
    with _started(weights, timings, drive_images(0, height, width)) as runners:
        for done in range(rounds):
            if progress is not None:
                progress(done, rounds)
            for timing, pipe in runners:
                _take(timing, pipe, "run")
        if progress is not None:
            progress(rounds, rounds)
        for timing, pipe in runners:
            _take(timing, pipe, "end")
    for failed in timings:
        if all(timing.error for timing in failed):
            raise InputError(f"benchmark: no engine runs; {failed[0].name}: {failed[0].error}")
    ceilings = measure_ceilings()
    return [
        Benchmark(
            preset=preset,
            height=height,
            width=width,
            machine=_machine(),
            cores=len(os.sched_getaffinity(0)),
            ceilings=ceilings,
            work=count_workload(file, height, width),
            timings=measured,
            int8_accuracy=accuracy,
        )
        for preset, file, measured, accuracy in zip(
            presets, weights, timings, int8_accuracy, strict=True
        )
    ]


@contextmanager
def _started(
    weights: Sequence[str | Path], timings: list[list[Timing]], images: dict[str, np.ndarray]
) -> Iterator[list[tuple[Timing, Connection]]]:
    """One process per timing, which has run once, and the pipe to it; they end with the block."""
    context = multiprocessing.get_context("spawn")
    processes, runners = [], []
    try:
        for file, of_file in zip(weights, timings, strict=True):
            for timing in of_file:
                ours, theirs = context.Pipe()
                arguments = (theirs, timing.engine, timing.precision, str(file), images)
                process = context.Process(target=_serve, args=arguments, daemon=True)
                process.start()
                theirs.close()
                processes.append(process)
                runners.append((timing, ours))
                # One at a time, so that the first runs do not slow each other down.
                _take(timing, ours, "first")
        yield runners
    finally:
        for (_, pipe), process in zip(runners, processes, strict=True):
            pipe.close()
            process.join(10)
            process.terminate()


def configurations(
    engines: Sequence[str] = (), precisions: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Engines and precisions to time: every supported combination of the requested ones.

    Args:
        engines: of `engines.ENGINES`, or `auto`; none: those installed.
        precisions: of `engines.PRECISIONS`; none: all but tf32 and int8.

    Raises:
        InputError: an unknown engine or precision, or none of the engines supports any of the precisions.
    """
    from dwarf_ros.engines import (
        ENGINES,
        PRECISIONS_OF,
        check_name,
        check_precision,
        choose_engine,
    )

    for engine in engines:
        check_name(engine)
    engines = [choose_engine() if engine == "auto" else engine for engine in engines]
    for precision in precisions:
        if not any(precision in each for each in PRECISIONS_OF.values()):
            check_precision(precision, "tensorflow")
    found = [
        (engine, precision)
        for engine in engines or [engine for engine in ENGINES if find_spec(engine)]
        for precision in precisions or ("f32", "bf16")
        if precision in PRECISIONS_OF.get(engine, ())
    ]
    if not found:
        raise InputError(
            f"precision: {', '.join(precisions)} given to {', '.join(engines) or 'what is installed'}, expected one that "
            "an engine supports"
        )
    return found


def save_fresh_weights(preset: str, file: Path) -> None:
    """Write untrained weights, which are as slow as trained ones.

    Raises:
        InputError: an unknown preset.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from dwarf_ros import network

    network.save(network.build(preset), file, origin="untrained, for timing")


def _take(timing: Timing, pipe: Connection, command: str) -> None:
    """Send a command to a process and store its reply, unless the process has failed before."""
    if timing.error:
        return
    try:
        pipe.send(command)
        what, value = pipe.recv()
    except (EOFError, OSError):
        what, value = "error", "its process ended early"
    if what == "error":
        timing.error = value
    elif command == "first":
        timing.first_s = value
    elif command == "run":
        timing.seconds.append(value)
    else:
        timing.peak_memory, timing.layer_seconds = value


def _serve(
    pipe: Connection, engine: str, precision: str, weights: str, images: dict[str, np.ndarray]
) -> None:
    """The process of one engine: replies to `first`, `run` and `end`."""
    runner = None
    while True:
        try:
            command = pipe.recv()
        except EOFError:
            return
        try:
            start = time.perf_counter()
            if command == "end":
                # Before profiling, which needs memory of its own.
                memory = _peak_memory()
                pipe.send(("done", (memory, _layer_seconds(runner, images))))
                continue
            if runner is None:
                from dwarf_ros.engines import choose_engine, load_engine

                runner = load_engine(choose_engine(engine), weights, precision)
            runner.run(images)
            pipe.send(("done", time.perf_counter() - start))
        except InputError as error:
            pipe.send(("error", str(error)))


def _peak_memory() -> int:
    # Not getrusage, whose maximum a process inherits from its parent.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) * 1024


def _layer_seconds(runner: Any, images: dict[str, np.ndarray]) -> dict[str, float]:
    if not hasattr(runner, "layer_times"):
        return {}
    kinds: dict[str, float] = {}
    for layer in runner.layer_times(images):
        kinds[layer.kind] = kinds.get(layer.kind, 0.0) + layer.seconds
    return dict(sorted(kinds.items(), key=lambda kind: -kind[1]))


def _machine() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def write_benchmark(benchmark: Benchmark, out: Path) -> None:
    """Write benchmark.json, and report.html with tables and charts, into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "benchmark.json", json.dumps(benchmark.as_json(), indent=1).encode())
    write_report(out / "report.html", make_report(benchmark))


def timing_rows(benchmark: Benchmark) -> list[list[Value]]:
    """For each engine: name, median and p95 in ms, runs per second, multiple of the floor, peak memory in MB, first run in s."""
    return [
        [
            timing.name,
            1e3 * timing.median if timing.seconds else None,
            1e3 * timing.p95 if timing.seconds else None,
            1 / timing.median if timing.seconds else None,
            timing.median / benchmark.floor_s if timing.seconds else None,
            timing.peak_memory / 1e6 if timing.seconds else None,
            timing.first_s if timing.seconds else None,
        ]
        for timing in benchmark.timings
    ]


COLUMNS = (
    *("engine", "median [ms]", "p95 [ms]", "rate [1/s]"),
    *("times the floor", "peak memory [MB]", "first run [s]"),
)


def make_report(benchmark: Benchmark) -> Report:
    """The page that `write_benchmark` writes."""
    ran = [timing for timing in benchmark.timings if timing.seconds]
    names = [timing.name for timing in ran]
    layered = [timing for timing in ran if timing.layer_seconds]
    kinds = list(dict.fromkeys(kind for timing in layered for kind in timing.layer_seconds))
    ceilings, work = benchmark.ceilings, benchmark.work
    fastest = min(ran, key=lambda timing: timing.median)
    tables = [Table("Engines", COLUMNS, timing_rows(benchmark), decimals=1)]
    if layered:
        rows: list[list[Value]] = [
            [
                kind,
                *(
                    100 * timing.layer_seconds.get(kind, 0.0) / sum(timing.layer_seconds.values())
                    for timing in layered
                ),
            ]
            for kind in kinds[:12]
        ]
        columns = ["kind of layer", *(f"{timing.name} [%]" for timing in layered)]
        tables.append(Table("Share of the time by kind of layer", columns, rows, decimals=1))
    shares: list[list[Value]] = [
        [part, macs / 1e9, 100 * macs / work.macs] for part, macs in work.macs_of_parts.items()
    ]
    tables.append(Table("Arithmetic", ["part", "GMAC", "share [%]"], shares))
    return Report(
        title=f"{benchmark.preset} at {benchmark.width} x {benchmark.height} px",
        subtitle=f"{benchmark.machine}, {benchmark.cores} cores",
        figures=[
            Figure("fastest engine", fastest.name),
            Figure("its median", 1e3 * fastest.median, "ms"),
            Figure("its rate", 1 / fastest.median, "Hz"),
            Figure("floor in float32", 1e3 * benchmark.floor_s, "ms"),
        ],
        notes=[
            f"Ceilings measured in the same run: {ceilings.flops / 1e9:.0f} GFLOP/s in a float32 matrix product, "
            f"{ceilings.bytes_per_second / 1e9:.1f} GB/s in a copy. One run takes {work.macs / 1e9:.1f} GMAC and at "
            f"least {work.bytes / 1e6:.0f} MB of memory traffic. bf16 and int8 may be faster than the floor, which is that of "
            "float32.",
            *([change_in_words(benchmark.int8_accuracy)] if benchmark.int8_accuracy else []),
            *(f"{timing.name}: {timing.error}" for timing in benchmark.timings if timing.error),
        ],
        tables=tables,
        charts=[
            Chart(
                "Time per run",
                "bar",
                "engine",
                "time [ms]",
                [
                    Series("median", names, [1e3 * timing.median for timing in ran]),
                    Series("p95", names, [1e3 * timing.p95 for timing in ran]),
                    Series("float32 floor", names, [1e3 * benchmark.floor_s] * len(ran)),
                ],
            ),
            Chart(
                "Peak memory",
                "bar",
                "engine",
                "memory [MB]",
                [Series("resident", names, [timing.peak_memory / 1e6 for timing in ran])],
            ),
        ],
    )
