"""Shapes of dwarf_lite, trained equally: what each costs and how well it does: python benchmarks/lite_shapes.py OUT [STEPS].

Each learns from the recipe of config/train/lite_procedural.yaml, with a schedule as short, and is scored on held-out
procedural drives; then all are timed in turn at 384 x 1280 px, on an otherwise idle machine, by what engine and precision
`auto` stand for. OUT gets a folder a training, shapes.json and shapes.html; a training that is there already is not repeated.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from training_recipe import run, short

from dwarf_ros import network
from dwarf_ros.engines import choose_engine, load_engine
from dwarf_ros.evaluation.quantization import drive_images
from dwarf_ros.evaluation.report import Report, Table, Value, write_report
from dwarf_ros.evaluation.workload import workload_of
from dwarf_ros.files import write_atomically
from dwarf_ros.network.presets import DWARF_LITE, PRESETS
from dwarf_ros.training.config import TrainingConfig

STEPS = 2000
SAMPLES = 1150
"""Of each source."""

DRIVES = 16
ROUNDS = 30
HEIGHT, WIDTH = 384, 1280

NARROW = {
    "trunk_channels": (96, 64, 48),
    "head_channels": (32, 24),
    "context_channels": (48, 48, 48, 32, 24),
}
SHAPES = {
    "two convolutions a level": replace(
        DWARF_LITE, name="shallow", encoder_convolutions=(2, 2, 2, 2)
    ),
    "deeper encoder (dwarf_lite)": DWARF_LITE,
    "deeper encoder, narrow decoder": replace(DWARF_LITE, name="narrow", **NARROW),
}

COLUMNS = (
    *("shape", "weights [M]", "work [GMAC]", "time [ms]", "times dwarf_lite"),
    *("D1 [%]", "D2 [%]", "Fl [%]"),
)


def main() -> int:
    out = Path(sys.argv[1])
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
    PRESETS.update({preset.name: preset for preset in SHAPES.values()})
    for name, preset in SHAPES.items():
        folder = out / preset.name
        done = (folder / "last.safetensors").is_file()
        if not done and not run(training(preset.name, steps), folder, name):
            return 130
    files = {name: out / preset.name / "last.safetensors" for name, preset in SHAPES.items()}
    # As models: the process that converts files knows the shipped presets alone.
    models = {name: network.load(file, height=HEIGHT, width=WIDTH) for name, file in files.items()}
    seconds = timed(models)
    of_lite = seconds["deeper encoder (dwarf_lite)"]
    rows: list[list[Value]] = []
    for name, file in files.items():
        model = models[name]
        *_, last = (file.parent / "log.jsonl").read_text(encoding="utf-8").splitlines()
        scores = json.loads(last)
        median = float(np.median(seconds[name]))
        ratio = float(np.median(np.divide(seconds[name], of_lite)))
        outliers = [scores[f"{measure} outliers"] for measure in ("D1", "D2", "Fl")]
        cost = model.count_params() / 1e6, workload_of(model).macs / 1e9, 1e3 * median, ratio
        rows.append([name, *cost, *outliers])
    table = Table(f"After {steps} steps of two samples", COLUMNS, rows, decimals=2)
    write_atomically(out / "shapes.json", json.dumps([COLUMNS, *rows], indent=1).encode())
    write_report(out / "shapes.html", Report(title="Shapes of dwarf_lite", tables=[table]))
    for row in rows:
        print(
            "  ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row)
        )
    return 0


def training(preset: str, steps: int) -> TrainingConfig:
    """The recipe with so many steps, validated at the end alone."""
    config = short(steps, SAMPLES, 1)
    assert config.validation is not None
    held_out = replace(config.validation.data, count=DRIVES)
    validation = replace(config.validation, data=held_out)
    return replace(config, preset=preset, validation=validation)


def timed(models: dict[str, keras.Model]) -> dict[str, list[float]]:
    """Seconds of each answer of each network, the networks in turn."""
    images = drive_images(0, HEIGHT, WIDTH)
    engines = {name: load_engine(choose_engine(), model, "auto") for name, model in models.items()}
    for engine in engines.values():
        engine.run(images)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(images)
            seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
