"""What the recipe of dwarf_lite owes to each of its parts: python benchmarks/training_recipe.py OUT [STEPS].

Short trainings that differ from the recipe (config/train/lite_procedural.yaml, with a schedule as short and fewer samples) in
one thing each, all validated on the same held-out procedural drives. OUT gets a folder a training, and after each of them
recipe.json and recipe.html with the curves. A training that is there already is not repeated.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dwarf_ros.evaluation.charts import Chart, Series
from dwarf_ros.evaluation.report import Report, Table, write_report
from dwarf_ros.files import write_atomically
from dwarf_ros.network.presets import DWARF_LITE, PRESETS
from dwarf_ros.progress import show_progress
from dwarf_ros.training.config import TrainingConfig, read_config
from dwarf_ros.training.trainer import train

RECIPE = Path("config/train/lite_procedural.yaml")
STEPS = 600
SAMPLES = 800
"""Of each source: rendering is not to take longer than learning."""

VALIDATIONS = 4
MEASURES = {"D1 outliers": "D1", "Fl outliers": "Fl"}

# The published way at the size of dwarf_lite: six levels, each of which predicts what it has seen in its cost volumes.
PUBLISHED_WAY = replace(
    DWARF_LITE,
    name="published_way",
    encoder_channels=(16, 32, 64, 96, 128, 128),
    encoder_convolutions=(2, 2, 2, 2, 2, 2),
    matching=False,
    convex_enlargement=False,
)


def published_way(config: TrainingConfig) -> TrainingConfig:
    weights = {6: 0.32, 5: 0.08, 4: 0.02, 3: 0.01}
    loss = replace(config.loss, level_weights=weights, matching_weight=0.0)
    return replace(config, preset=PUBLISHED_WAY.name, loss=loss)


VARIANTS: dict[str, Callable[[TrainingConfig], TrainingConfig]] = {
    "the recipe": lambda config: config,
    "without the loss of matches": lambda config: replace(
        config, loss=replace(config.loss, matching_weight=0.0)
    ),
    "as published, six levels": published_way,
    "half the learning rate": lambda config: replace(
        config,
        optimizer=replace(config.optimizer, learning_rate=config.optimizer.learning_rate / 2),
    ),
    "without drives": lambda config: replace(config, data=config.data[:1]),
}


def main() -> int:
    out = Path(sys.argv[1])
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else STEPS
    PRESETS[PUBLISHED_WAY.name] = PUBLISHED_WAY
    curves = {}
    for name, vary in VARIANTS.items():
        folder = out / name.replace(" ", "_").replace(",", "")
        log = folder / "log.jsonl"
        done = (folder / "last.safetensors").is_file()
        if not done and not run(vary(short(steps)), folder, name):
            return 130
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        curves[name] = [line for line in lines if "D1 outliers" in line]
        write_atomically(out / "recipe.json", json.dumps(curves, indent=1).encode())
        write_report(out / "recipe.html", report(curves, steps))
    for name, curve in curves.items():
        print(f"{name}: " + ", ".join(f"{key} {curve[-1][key]:.1f} %" for key in MEASURES))
    return 0


def short(steps: int, samples: int = SAMPLES, validations: int = VALIDATIONS) -> TrainingConfig:
    """The recipe with so many steps, so many samples of each source, and validated so often."""
    config = read_config(RECIPE)
    assert config.validation is not None
    return replace(
        config,
        steps=steps,
        data=tuple(replace(data, count=samples) for data in config.data),
        validation=replace(config.validation, every=max(1, steps // validations)),
        checkpoints=replace(config.checkpoints, every=steps),
    )


def run(config: TrainingConfig, folder: Path, name: str) -> bool:
    """Train, as far as it was left to; whether it was left to the end."""
    with show_progress(name) as progress:
        return train(config, folder, resume=True, progress=progress).finished


def report(curves: dict[str, list[dict[str, float]]], steps: int) -> Report:
    """Curves and a table of the last figures."""
    charts = [
        Chart(
            f"{short_name} on held-out drives",
            "line",
            "steps",
            "outliers [%]",
            [
                Series(name, [p["step"] for p in curve], [p[key] for p in curve])
                for name, curve in curves.items()
            ],
        )
        for key, short_name in MEASURES.items()
    ]
    rows = [
        [name, *(f"{curve[-1][key]:.1f}" for key in MEASURES)] for name, curve in curves.items()
    ]
    table = Table(f"After {steps} steps", ["training", *(f"{key} [%]" for key in MEASURES)], rows)
    return Report(title="What dwarf_lite learns from", charts=charts, tables=[table])


if __name__ == "__main__":
    sys.exit(main())
