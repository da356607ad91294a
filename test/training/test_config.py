from __future__ import annotations

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from dwarf_ros.training.config import (
    Optimizer,
    config_values,
    learning_rate,
    parse_config,
    read_config,
)
from dwarf_ros.types import InputError

READY = sorted((Path(__file__).parents[2] / "config" / "train").glob("*.yaml"))


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_ready_configurations_are_valid_once_their_files_are_there(file, tmp_path, monkeypatch):
    values = yaml.safe_load(file.read_text())
    monkeypatch.chdir(tmp_path)
    sources = values["data"] if isinstance(values["data"], list) else [values["data"]]
    for data in (*sources, values.get("validation", {}).get("data", {})):
        if "root" in data:
            Path(data["root"]).mkdir(parents=True, exist_ok=True)
    files = [values.get(key) for key in ("weights", "encoder")]
    for name in (*files, *(data.get("teacher") for data in sources)):
        if name is not None:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()
    config = read_config(file)
    assert config_values(config)["steps"] == values["steps"]
    assert parse_config(config_values(config)) == config


def test_the_published_schedule_and_loss():
    file = next(file for file in READY if file.stem == "flyingthings3d")
    values = yaml.safe_load(file.read_text())
    assert values["loss"]["level_weights"] == {6: 0.005, 5: 0.01, 4: 0.02, 3: 0.08, 2: 0.32}
    settings = Optimizer(**{**values["optimizer"], "halve_at": (400_000, 600_000, 800_000, 10**6)})
    rates = [
        learning_rate(settings, step, values["steps"])
        for step in (0, 399_999, 400_000, 600_000, 800_000, 1_199_999)
    ]
    assert rates == [1e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5, 6.25e-6]


def test_warm_up_and_cosine():
    settings = Optimizer(learning_rate=2.0, schedule="cosine", warm_up_steps=4)
    rates = [learning_rate(settings, step, 11) for step in range(11)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[7] == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert rates[10] == pytest.approx(0.02)
    assert all(a > b for a, b in pairwise(rates[4:]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1}, "learning_rate: is unknown, expected preset, steps, "),
        ({"data": {"sauce": 1}}, "data.sauce: is unknown, expected source, root, "),
        ({"steps": "many"}, "steps: got 'many', expected a whole number"),
        ({"steps": 1.5}, "steps: got 1.5, expected a whole number"),
        ({"steps": True}, "steps: got True, expected a whole number"),
        ({"steps": 0}, "steps: got 0, expected >= 1"),
        ({"preset": "dwarfs"}, "preset: got 'dwarfs', expected one of dwarf, dwarf_lite"),
        ({"precision": "half"}, "precision: got 'half', expected one of float32, mixed_bfloat16"),
        ({"optimizer": []}, r"optimizer: got [], expected a mapping of keys to values"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate: got 0, expected > 0"),
        ({"optimizer": {"learning_rate": -1e-4}}, "optimizer.learning_rate: got -0.0001, expected > 0"),
        ({"optimizer": {"learning_rate": "fast"}}, "optimizer.learning_rate: got 'fast', expected a number"),
        ({"optimizer": {"learning_rate": math.nan}}, "optimizer.learning_rate: got nan, expected a number"),
        ({"optimizer": {"halve_at": [5, 3]}}, "optimizer.halve_at: got [5, 3], expected rising steps"),
        ({"optimizer": {"ema": 1}}, "optimizer.ema: got 1, expected < 1"),
        ({"data": {"root": "nowhere"}}, "data.root: got 'nowhere', expected a folder with flyingthings3d"),
        ({"data": {"root": None}}, "data.root: got nothing, expected a folder with flyingthings3d"),
        ({"data": {"source": "imagenet"}}, "data.source: got 'imagenet', expected one of procedural, drives, "),
        ({"data": {"source": "drives"}}, "data.count: got nothing, expected how many samples to generate"),
        ({"weights": "nowhere.safetensors"}, "weights: got 'nowhere.safetensors', expected a file that exists"),
        ({"augmentation": {"height": 100}}, "augmentation.height: got 100, expected a multiple of 64 px"),
        ({"augmentation": {"zoom": [2, 1]}}, "augmentation.zoom: got [2, 1], expected two rising numbers > 0"),
        ({"augmentation": {"zoom": 2}}, "augmentation.zoom: got 2, expected a list"),
        ({"augmentation": {"flip_probability": 2}}, "augmentation.flip_probability: got 2, expected <= 1"),
        ({"loss": {"level_weights": {2: 1}}}, "loss.level_weights: got {2: 1.0}, expected weights > 0 of some of the levels 0, 4, 5"),
        ({"loss": {"level_weights": 3}}, "loss.level_weights: got 3, expected a mapping of numbers"),
        ({"checkpoints": {"keep": 0}}, "checkpoints.keep: got 0, expected >= 1"),
        ({"data": {"repeat": 0}}, "data.repeat: got 0, expected >= 1"),
        ({"data": []}, "data: got nothing, expected at least one source"),
        ({"data": [{"source": "drives", "count": 3, "frames": 1}]}, "data.frames: got 1, expected >= 2"),
        ({"data": [{"source": "drives", "count": 3, "vary_cameras": 1}]}, "data.vary_cameras: got 1, expected true or false"),
        ({"data": [{"source": "drives", "count": 3}, {"source": "drives"}]}, "data[1].count: got nothing, expected how many"),
        ({"data": {"cache": "somewhere"}}, "data.cache: got 'somewhere', expected none: the samples are files already"),
        ({"loss": {"matching_weight": -1}}, "loss.matching_weight: got -1, expected >= 0"),
        ({"preset": "dwarf", "loss": {"level_weights": {6: 1, 5: 1, 4: 1}}}, "loss.matching_weight: got 1.0, expected 0: dwarf has no matches to learn from"),
        ({"augmentation": {"noise": -1}}, "augmentation.noise: got -1, expected >= 0"),
        ({"validation": {"every": 5}}, "validation.data: is missing"),
    ],
)  # fmt: skip
def test_bad_values_are_named_in_one_line(settings, changes, message):
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        parse_config(settings(**changes))
    assert "\n" not in str(refused.value)


def test_a_missing_key_is_named(settings):
    values = settings()
    del values["batch_size"]
    with pytest.raises(InputError, match=r"^batch_size: is missing$"):
        parse_config(values)


def test_numbers_that_yaml_takes_for_text_are_numbers(settings, tmp_path):
    text = yaml.safe_dump(settings()).replace("learning_rate: 0.001", "learning_rate: 1e-3")
    assert "1e-3" in text
    (tmp_path / "run.yaml").write_text(text)
    assert read_config(tmp_path / "run.yaml").optimizer.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory, expected a training configuration"),
        (b"a: [1", "is not YAML in line 1, expected a training configuration"),
        (b"\xff\xfe\x00", "is not text, expected a training configuration in YAML"),
        (b"", "configuration: got nothing, expected a mapping of keys to values"),
        (b"steps: 3", "preset: is missing"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, content, message):
    file = tmp_path / "run.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError, match=re.escape(f"{file}: {message}")) as refused:
        read_config(file)
    assert "\n" not in str(refused.value)
