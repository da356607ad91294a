"""What a training run is told: dataclasses read from YAML, checked key by key."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dwarf_ros.datasets.augmentation import Augmentation
from dwarf_ros.datasets.splits import DATASETS
from dwarf_ros.network.presets import PRESETS, SIZE_MULTIPLE, Preset
from dwarf_ros.types import InputError

GENERATED = ("procedural", "drives")
"""Sources that are rendered and not read from a folder."""


@dataclass(frozen=True)
class Data:
    """Samples with ground truth.

    Attributes:
        source: `procedural` (random scenes), `drives` (procedural drives), or a data set's name.
        root: folder of a data set; left out for what is generated.
        split: part of a data set.
        seed: of what is generated.
        count: how many samples are generated; of a data set, how many at most are used (the first).
        repeat: how often each pass takes every sample, so that a few count as much as the many of another source.
        height, width: size of what is generated, px.
        frames: of each of the `drives`; every two neighbouring ones are a sample, and backwards in time another.
        vary_cameras: `drives` of different focal lengths, baselines and frame rates, instead of those of one vehicle.
        max_disparity, max_flow: about the largest of `procedural`, px.
        drives: part of the scenes of `procedural` that are drives; the others are seen by a camera that moves freely.
        effects: strength of the sensor effects of `procedural`, from 0 to 1.
        images: half of the textures of `procedural` are parts of these photos: a folder, or "scikit-image" for those that
            come with that package.
        cache: folder where generated samples are kept once they are rendered, about 4 MB each at 320 x 448 px; with a count
            well below steps * batch_size most are then read back instead, with other crops and colours each time.
            None keeps none.
    """

    source: str = "procedural"
    root: Path | None = None
    split: str | None = None
    seed: int = 0
    count: int | None = None
    repeat: int = 1
    height: int = 320
    width: int = 448
    frames: int = 2
    vary_cameras: bool = False
    max_disparity: float = 192.0
    max_flow: float = 250.0
    drives: float = 0.4
    effects: float = 1.0
    images: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Loss:
    """What is minimised.

    Attributes:
        kind: `levels`: every level against the truth reduced by area averaging; `finest`: the full-size answer alone.
        level_weights: weight of each level, for `levels`; level 0 is the full-size answer.
        matching_weight: of the cross-entropy of the network's matches, for `levels` and presets that have them.
        weight: of the loss, for `finest`.
        flow_weight: factor of the terms of optical flow.
        regularization: factor of the sum of the squares of all weights.
    """

    kind: Literal["levels", "finest"] = "levels"
    level_weights: dict[int, float] = field(default_factory=dict)
    matching_weight: float = 0.0
    weight: float = 0.001
    flow_weight: float = 0.5
    regularization: float = 0.0


@dataclass(frozen=True)
class Optimizer:
    """Adam, or with weight decay AdamW, and the learning rate over the steps.

    Attributes:
        learning_rate: the highest.
        schedule: `constant`, `steps` (halved at each of `halve_at`) or `cosine` (down to a hundredth at the last step).
        halve_at: steps, rising.
        warm_up_steps: over which the learning rate rises from 0.
        weight_decay: of AdamW; 0 is Adam.
        clip_norm: largest norm of all gradients together; None leaves them as they are.
        ema: momentum of the running average of the weights, which is what is validated and kept; None takes the
            weights themselves.
    """

    learning_rate: float = 1e-4
    schedule: Literal["constant", "steps", "cosine"] = "constant"
    halve_at: tuple[int, ...] = ()
    warm_up_steps: int = 0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None


@dataclass(frozen=True)
class Validation:
    """Held-out samples, answered with the weights that would be kept.

    Attributes:
        data: the samples.
        every: steps between validations; there is one at the end in any case.
    """

    data: Data
    every: int = 1000


@dataclass(frozen=True)
class Checkpoints:
    """How often the state of the training is written, and how many of the last are kept."""

    every: int = 1000
    keep: int = 3


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes:
        preset: of the network.
        steps: how many in all.
        batch_size: samples a step.
        seed: of the weights, the order of the samples and what is drawn for them.
        weights: file to start from; None starts from fresh weights.
        precision: `float32`, or `mixed_bfloat16`, which keeps weights in float32 and computes in bfloat16.
        workers: processes that make batches; 0 makes them between the steps.
        log_every: steps that a line of the log tells the mean of.
        data: one or several; each pass takes every sample of all of them once.
        augmentation, loss, optimizer, validation, checkpoints: see there; no validation where it is left out.
    """

    preset: str
    steps: int
    batch_size: int
    data: tuple[Data, ...]
    augmentation: Augmentation
    loss: Loss
    optimizer: Optimizer
    seed: int = 0
    weights: Path | None = None
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    workers: int = 0
    log_every: int = 1
    validation: Validation | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)


def read_config(file: str | Path) -> TrainingConfig:
    """Configuration from a YAML file; folders and files in it are relative to where the command runs.

    Raises:
        InputError: the file is missing or no YAML, or a key is unknown, missing, of another type or out of its range.
    """
    import yaml

    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}, expected a training configuration") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{file}: is not text, expected a training configuration in YAML"
        ) from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        raise InputError(f"{file}: is not YAML{line}, expected a training configuration") from None
    try:
        return parse_config(values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def parse_config(values: Any) -> TrainingConfig:
    """Configuration from nested mappings, as YAML gives them.

    Raises:
        InputError: a key is unknown, missing, of another type or out of its range, or a folder or file is missing.
    """
    config = _convert(values, TrainingConfig, "configuration")
    check_config(config)
    return config


def config_values(config: TrainingConfig) -> dict[str, Any]:
    """Configuration as nested mappings of plain values, which `parse_config` takes back."""
    return _plain(config)


def check_config(config: TrainingConfig) -> None:
    """Refuse values out of their ranges, and folders or files that are missing; the data set itself is not opened.

    Raises:
        InputError: one line that names the key.
    """
    _expect(config.preset in PRESETS, "preset", config.preset, f"one of {', '.join(PRESETS)}")
    for key in ("steps", "batch_size", "log_every"):
        _expect(getattr(config, key) >= 1, key, getattr(config, key), ">= 1")
    for key in ("seed", "workers"):
        _expect(getattr(config, key) >= 0, key, getattr(config, key), ">= 0")
    if config.weights is not None:
        _expect(config.weights.is_file(), "weights", config.weights, "a file that exists")
    _expect(bool(config.data), "data", None, "at least one source")
    for index, data in enumerate(config.data):
        _check_data(data, f"data[{index}]" if len(config.data) > 1 else "data")
    _check_augmentation(config.augmentation)
    _check_loss(config.loss, PRESETS[config.preset])
    _check_optimizer(config.optimizer)
    if config.validation is not None:
        _check_data(config.validation.data, "validation.data")
        _expect(config.validation.every >= 1, "validation.every", config.validation.every, ">= 1")
    for key in ("every", "keep"):
        value = getattr(config.checkpoints, key)
        _expect(value >= 1, f"checkpoints.{key}", value, ">= 1")


def learning_rate(settings: Optimizer, step: int, steps: int) -> float:
    """Learning rate of a step, counted from 0, of so many."""
    rate = settings.learning_rate
    if step < settings.warm_up_steps:
        return rate * (step + 1) / settings.warm_up_steps
    if settings.schedule == "steps":
        return rate * 0.5 ** sum(step >= change for change in settings.halve_at)
    if settings.schedule == "cosine":
        part = (step - settings.warm_up_steps) / max(1, steps - 1 - settings.warm_up_steps)
        return rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(part, 1.0))))
    return rate


def _check_data(data: Data, key: str) -> None:
    expected = f"one of {', '.join((*GENERATED, *DATASETS))}"
    _expect(data.source in (*GENERATED, *DATASETS), f"{key}.source", data.source, expected)
    if data.count is not None:
        _expect(data.count >= 1, f"{key}.count", data.count, ">= 1")
    _expect(data.repeat >= 1, f"{key}.repeat", data.repeat, ">= 1")
    if data.source in GENERATED:
        _expect(data.count is not None, f"{key}.count", None, "how many samples to generate")
        _expect(data.root is None, f"{key}.root", data.root, f"none: {data.source} is generated")
        _expect(data.seed >= 0, f"{key}.seed", data.seed, ">= 0")
        _expect(data.frames >= 2, f"{key}.frames", data.frames, ">= 2")
        for side in ("height", "width"):
            length = getattr(data, side)
            _expect(length >= SIZE_MULTIPLE, f"{key}.{side}", length, f">= {SIZE_MULTIPLE} px")
    else:
        found = data.root is not None and data.root.is_dir()
        _expect(found, f"{key}.root", data.root, f"a folder with {data.source}")
        _expect(
            data.cache is None, f"{key}.cache", data.cache, "none: the samples are files already"
        )


def _check_augmentation(settings: Augmentation) -> None:
    for side in ("height", "width"):
        length = getattr(settings, side)
        fits = length > 0 and length % SIZE_MULTIPLE == 0
        _expect(fits, f"augmentation.{side}", length, f"a multiple of {SIZE_MULTIPLE} px")
    for name in ("zoom", "gamma", "brightness", "colour"):
        low, high = getattr(settings, name)
        ordered = 0 < low <= high
        _expect(ordered, f"augmentation.{name}", [low, high], "two rising numbers > 0")
    for name in (
        "zoom_probability",
        "flip_probability",
        "photometric_probability",
        "grey_probability",
    ):
        value = getattr(settings, name)
        _expect(0 <= value <= 1, f"augmentation.{name}", value, "from 0 to 1")
    _expect(settings.noise >= 0, "augmentation.noise", settings.noise, ">= 0")
    _expect(settings.stretch >= 1, "augmentation.stretch", settings.stretch, ">= 1")


def _check_loss(loss: Loss, preset: Preset) -> None:
    if loss.kind == "levels":
        levels = (0, *range(preset.finest_level, preset.coarsest_level + 1))
        expected = f"weights > 0 of some of the levels {', '.join(map(str, levels))}"
        fits = bool(loss.level_weights) and all(
            level in levels and weight > 0 for level, weight in loss.level_weights.items()
        )
        _expect(fits, "loss.level_weights", loss.level_weights, expected)
    fits = loss.matching_weight == 0 or (loss.matching_weight > 0 and preset.matching)
    expected = ">= 0" if preset.matching else f"0: {preset.name} has no matches to learn from"
    _expect(fits, "loss.matching_weight", loss.matching_weight, expected)
    _expect(loss.weight > 0, "loss.weight", loss.weight, "> 0")
    _expect(loss.flow_weight >= 0, "loss.flow_weight", loss.flow_weight, ">= 0")
    _expect(loss.regularization >= 0, "loss.regularization", loss.regularization, ">= 0")


def _check_optimizer(settings: Optimizer) -> None:
    _expect(settings.learning_rate > 0, "optimizer.learning_rate", settings.learning_rate, "> 0")
    rising = list(settings.halve_at) == sorted(set(settings.halve_at))
    _expect(rising, "optimizer.halve_at", list(settings.halve_at), "rising steps")
    for name in ("warm_up_steps", "weight_decay"):
        value = getattr(settings, name)
        _expect(value >= 0, f"optimizer.{name}", value, ">= 0")
    if settings.clip_norm is not None:
        _expect(settings.clip_norm > 0, "optimizer.clip_norm", settings.clip_norm, "> 0")
    if settings.ema is not None:
        _expect(0 < settings.ema < 1, "optimizer.ema", settings.ema, "between 0 and 1")


def _expect(fits: bool, key: str, value: Any, expected: str) -> None:
    if not fits:
        shown = (
            "nothing" if value is None else repr(str(value) if isinstance(value, Path) else value)
        )
        raise InputError(f"{key}: got {shown}, expected {expected}")


def _convert(value: Any, kind: Any, key: str) -> Any:
    """Value of YAML as a type of a field."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _convert_mapping(value, kind, key)
    if origin is types.UnionType:
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else _convert(value, inner, key)
    if origin is Literal:
        _expect(value in arguments, key, value, f"one of {', '.join(arguments)}")
        return value
    if origin is tuple:
        open_ended = arguments[-1] is Ellipsis
        if isinstance(value, Mapping) and dataclasses.is_dataclass(arguments[0]):
            return (_convert(value, arguments[0], key),)
        many = isinstance(value, list | tuple) and (open_ended or len(value) == len(arguments))
        wanted = "a list" if open_ended else f"a list of {len(arguments)} numbers"
        _expect(many, key, value, wanted)
        return tuple(_convert(item, arguments[0], f"{key}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        _expect(isinstance(value, Mapping), key, value, "a mapping of numbers")
        return {
            _convert(name, arguments[0], f"{key} (key)"): _convert(
                item, arguments[1], f"{key}[{name}]"
            )
            for name, item in value.items()
        }
    return _convert_scalar(value, kind, key)


def _convert_mapping(value: Any, kind: Any, key: str) -> Any:
    _expect(isinstance(value, Mapping), key, value, "a mapping of keys to values")
    prefix = "" if kind is TrainingConfig else f"{key}."
    hints = typing.get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise InputError(f"{prefix}{name}: is unknown, expected {', '.join(hints)}")
    for entry in dataclasses.fields(kind):
        optional = (
            entry.default is not dataclasses.MISSING
            or entry.default_factory is not dataclasses.MISSING
        )
        if entry.name not in value and not optional:
            raise InputError(f"{prefix}{entry.name}: is missing")
    return kind(**{n: _convert(v, hints[n], f"{prefix}{n}") for n, v in value.items()})


def _convert_scalar(value: Any, kind: Any, key: str) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool:
        _expect(isinstance(value, bool), key, value, "true or false")
        return value
    if kind is float:
        # YAML 1.1 takes 1e-4 for text.
        if isinstance(value, str):
            try:
                value, number = float(value), True
            except ValueError:
                number = False
        _expect(number and math.isfinite(value), key, value, "a number")
        return float(value)
    if kind is int:
        _expect(number and value == int(value), key, value, "a whole number")
        return int(value)
    _expect(isinstance(value, str | Path), key, value, "text" if kind is str else "a path")
    return kind(value).expanduser() if kind is Path else kind(value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
