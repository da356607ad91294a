"""The configuration of a training run: dataclasses that pydantic checks, read from YAML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from dwarf_ros.datasets.splits import DATASETS
from dwarf_ros.network.presets import PRESETS, SIZE_MULTIPLE, LitePreset
from dwarf_ros.types import InputError

try:
    from pydantic import (
        AfterValidator,
        BeforeValidator,
        Field,
        NonNegativeFloat,
        PlainSerializer,
        PositiveFloat,
        StrictBool,
        TypeAdapter,
        ValidationError,
    )
    from pydantic.dataclasses import dataclass
except ImportError:
    raise InputError(
        "training: needs pydantic 2, which is not installed: pip install 'dwarf_ros[train]'"
    ) from None

from dwarf_ros.datasets.augmentation import Augmentation

GENERATED = ("procedural", "drives")
"""Sources that are rendered, not read from a folder."""

IMAGES = "images"
"""Source of single images with a teacher's features, for the loss `features`."""


def _rising(steps: tuple[int, ...]) -> tuple[int, ...]:
    if any(a >= b for a, b in pairwise(steps)):
        raise ValueError("rising steps")
    return steps


def _sequence(value: Any) -> Any:
    return (value,) if isinstance(value, Mapping) else value


# Strict, because pydantic takes true and "3" for integers otherwise.
Count = Annotated[int, Field(strict=True, ge=1)]
NonNegativeInt = Annotated[int, Field(strict=True, ge=0)]
Side = Annotated[int, Field(strict=True, ge=SIZE_MULTIPLE)]
File = Annotated[Path, AfterValidator(Path.expanduser), PlainSerializer(str)]

_OPTIONS: Any = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, config=_OPTIONS)
class Data:
    """Samples with ground truth.

    Attributes:
        source: `procedural` (random scenes), `drives` (procedural drives), the name of a data set, or `images` (single ones with
            the features of a teacher).
        root: folder of a data set or of images; omitted for generated sources.
        split: part of a data set.
        seed: of generated samples.
        count: number of samples to generate; for a data set, the number of samples to use at most, from the first.
        repeat: how often each pass uses every sample, to balance small sources against large ones.
        height, width: size of generated images, px.
        frames: frames of each of the `drives`; every two consecutive ones give a sample forwards and one backwards in time.
        vary_cameras: `drives` of different focal lengths, baselines and frame rates, instead of those of one vehicle.
        max_disparity, max_flow: approximate maximum of `procedural`, px.
        drives: fraction of the `procedural` scenes that are drives; in the others the camera moves freely.
        effects: strength of the sensor effects of `procedural`, from 0 to 1.
        images: photos for half of the textures of `procedural`: a folder, or "scikit-image" for those in that package.
        cache: folder for rendered samples, about 4 MB each at 320 x 448 px. With a count well below steps * batch_size most
            samples are then read instead of rendered, with new crops and colors each time. None disables it. For `images`, the
            folder of the features, which is required.
        teacher: for `images`, weights of ptlflow's gmflow_refine.
    """

    source: str = "procedural"
    root: File | None = None
    split: str | None = None
    seed: NonNegativeInt = 0
    count: NonNegativeInt | None = None
    repeat: Count = 1
    height: Side = 320
    width: Side = 448
    frames: Annotated[int, Field(strict=True, ge=2)] = 2
    vary_cameras: StrictBool = False
    max_disparity: float = 192.0
    max_flow: float = 250.0
    drives: float = 0.4
    effects: float = 1.0
    images: str | None = None
    cache: File | None = None
    teacher: File | None = None


@dataclass(frozen=True, config=_OPTIONS)
class Loss:
    """The loss to minimize.

    Attributes:
        kind: `levels`: every level against the ground truth reduced by area averaging; `finest`: the full-size estimate only;
            `stages`: every stage of dwarf_lite_v2; `features`: the features of dwarf_lite_v2's encoder against a teacher's.
        level_weights: weight of each level, for `levels`; level 0 is the full-size estimate.
        matching_weight: weight of the cross-entropy of the matches, for `levels` and presets with matching.
        weight: of the loss, for `finest`.
        flow_weight: factor of the terms of optical flow.
        regularization: factor of the sum of the squares of all weights.
    """

    kind: Literal["levels", "finest", "stages", "features"] = "levels"
    level_weights: dict[int, float] = Field(default_factory=dict)
    matching_weight: NonNegativeFloat = 0.0
    weight: PositiveFloat = 0.001
    flow_weight: NonNegativeFloat = 0.5
    regularization: NonNegativeFloat = 0.0


@dataclass(frozen=True, config=_OPTIONS)
class Optimizer:
    """Adam, or AdamW with weight decay, and the learning rate over the steps.

    Attributes:
        learning_rate: the maximum.
        schedule: `constant`, `steps` (halved at each of `halve_at`) or `cosine` (down to a hundredth at the last step).
        halve_at: steps, rising.
        warm_up_steps: number of steps over which the learning rate rises from 0.
        weight_decay: of AdamW; 0 selects Adam.
        clip_norm: maximum norm of all gradients together; None disables clipping.
        accumulate: number of steps whose gradients are averaged for one update.
        ema: momentum of the running average of the weights, which is validated and saved; None uses the weights themselves.
    """

    learning_rate: PositiveFloat = 1e-4
    schedule: Literal["constant", "steps", "cosine"] = "constant"
    halve_at: Annotated[tuple[int, ...], AfterValidator(_rising)] = ()
    warm_up_steps: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat | None = None
    accumulate: Count = 1
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None


@dataclass(frozen=True, config=_OPTIONS)
class Validation:
    """Evaluation of the weights that would be saved, on held-out samples.

    Attributes:
        data: the samples.
        every: steps between validations; the last step is always validated.
    """

    data: Data
    every: Count = 1000


@dataclass(frozen=True, config=_OPTIONS)
class Checkpoints:
    """Steps between checkpoints, and how many of the latest are kept."""

    every: Count = 1000
    keep: Count = 3


@dataclass(frozen=True, config=_OPTIONS)
class TrainingConfig:
    """A training run.

    Attributes:
        preset: of the network.
        steps: total number.
        batch_size: samples per step.
        seed: of the weights, the order of the samples and the augmentation.
        weights: file to start from; None starts from random weights.
        encoder: weights that a training with the loss `features` left, to start dwarf_lite_v2's encoder from.
        freeze_encoder: leave dwarf_lite_v2's encoder as it is.
        precision: `float32`, or `mixed_bfloat16`, which keeps weights in float32 and computes in bfloat16.
        workers: processes that prepare batches; 0 prepares them between the steps.
        log_every: steps averaged in each line of the log.
        data: one or several sources; each pass uses every sample of all of them once.
        augmentation, loss, optimizer, validation, checkpoints: see there; no validation if omitted.
    """

    preset: str
    steps: Count
    batch_size: Count
    data: Annotated[tuple[Data, ...], BeforeValidator(_sequence)]
    augmentation: Augmentation
    loss: Loss
    optimizer: Optimizer
    seed: NonNegativeInt = 0
    weights: File | None = None
    encoder: File | None = None
    freeze_encoder: StrictBool = False
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    workers: NonNegativeInt = 0
    log_every: Count = 1
    validation: Validation | None = None
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)


_ADAPTER = TypeAdapter(TrainingConfig)
_SECTIONS: dict[str, Any] = {
    "data": Data,
    "augmentation": Augmentation,
    "loss": Loss,
    "optimizer": Optimizer,
    "validation": Validation,
    "checkpoints": Checkpoints,
}

# What is expected instead, by pydantic's type of error; {names} are from its context.
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "dict": "a mapping of numbers",
    "tuple": "a list",
    "dataclass": "a mapping of keys to values",
    "greater_than": "> {gt}",
    "greater_than_equal": ">= {ge}",
    "less_than": "< {lt}",
    "less_than_equal": "<= {le}",
    "multiple_of": "a multiple of {multiple_of} px",
    "value_error": "{error}",
}


def read_config(file: str | Path) -> TrainingConfig:
    """Read a configuration from a YAML file; paths in it are relative to the working directory.

    Raises:
        InputError: the file is missing or not YAML, or a key is unknown, missing, of the wrong type or out of range.
    """
    import yaml

    file = Path(file)
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}, expected a training configuration") from None
    except UnicodeDecodeError:
        raise InputError(
            f"{file}: is not text, expected a training configuration in YAML"
        ) from None
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        raise InputError(f"{file}: is not YAML{line}, expected a training configuration") from None
    try:
        return parse_config(values)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def parse_config(values: Any) -> TrainingConfig:
    """Check a configuration given as nested mappings, as read from YAML.

    Raises:
        InputError: a key is unknown, missing, of the wrong type or out of range, or a folder or file is missing; one line that
            names the key.
    """
    try:
        config = _ADAPTER.validate_python(values)
    except ValidationError as problems:
        single = isinstance(values, Mapping) and not _is_list(values.get("data"))
        raise InputError(_describe(problems, single)) from None
    check_config(config)
    return config


def config_values(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as nested mappings of plain values, the inverse of `parse_config`."""
    return _ADAPTER.dump_python(config)


def check_config(config: TrainingConfig) -> None:
    """Check what depends on several keys, and that folders and files exist; data sets are not opened.

    Raises:
        InputError: one line that names the key.
    """
    _expect(config.preset in PRESETS, "preset", config.preset, f"one of {', '.join(PRESETS)}")
    for key in ("weights", "encoder"):
        file = getattr(config, key)
        _expect(file is None or file.is_file(), key, file, "a file that exists")
    _expect(bool(config.data), "data", None, "at least one source")
    for index, data in enumerate(config.data):
        _check_data(data, f"data[{index}]" if len(config.data) > 1 else "data")
    if config.validation is not None:
        _check_data(config.validation.data, "validation.data")
    _check_loss(config)


def _check_loss(config: TrainingConfig) -> None:
    loss, preset = config.loss, PRESETS[config.preset]
    is_lite = isinstance(preset, LitePreset)
    kinds = ("stages", "features") if is_lite else ("levels", "finest")
    _expect(loss.kind in kinds, "loss.kind", loss.kind, f"{' or '.join(kinds)} for {preset.name}")
    single = [data.source == IMAGES for data in config.data]
    expected = "images for the loss features, and only for it"
    source = config.data[0].source
    _expect(all(s == (loss.kind == "features") for s in single), "data.source", source, expected)
    for key in ("encoder", "freeze_encoder"):
        value = getattr(config, key)
        _expect(is_lite or not value, key, value, f"none for {preset.name}")
    if isinstance(preset, LitePreset):
        return
    if loss.kind == "levels":
        levels = (0, *range(preset.finest_level, preset.coarsest_level + 1))
        expected = f"weights > 0 of some of the levels {', '.join(map(str, levels))}"
        fits = bool(loss.level_weights) and all(
            level in levels and weight > 0 for level, weight in loss.level_weights.items()
        )
        _expect(fits, "loss.level_weights", loss.level_weights, expected)
    fits = not loss.matching_weight or preset.matching
    expected = f"0: {preset.name} has no matches to learn from"
    _expect(fits, "loss.matching_weight", loss.matching_weight, expected)


def learning_rate(settings: Optimizer, step: int, steps: int) -> float:
    """Learning rate at a step, counted from 0, of a run with this number of steps."""
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
    sources = (*GENERATED, *DATASETS, IMAGES)
    _expect(data.source in sources, f"{key}.source", data.source, f"one of {', '.join(sources)}")
    if data.source in GENERATED:
        _expect(data.count is not None, f"{key}.count", None, "how many samples to generate")
        _expect(data.root is None, f"{key}.root", data.root, f"none: {data.source} is generated")
    else:
        found = data.root is not None and data.root.is_dir()
        _expect(found, f"{key}.root", data.root, f"a folder with {data.source}")
    if data.source == IMAGES:
        _expect(data.cache is not None, f"{key}.cache", None, "a folder for the features")
        found = data.teacher is not None and data.teacher.is_file()
        _expect(
            found, f"{key}.teacher", data.teacher, "weights of gmflow_refine, a file that exists"
        )
    elif data.source not in GENERATED:
        expected = "none: the samples are files already"
        _expect(data.cache is None, f"{key}.cache", data.cache, expected)


def _expect(fits: bool, key: str, value: Any, expected: str) -> None:
    if not fits:
        raise InputError(f"{key}: got {_shown(value)}, expected {expected}")


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    return repr(str(value) if isinstance(value, Path) else value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 1


def _describe(problems: ValidationError, single_source: bool) -> str:
    """One line about the first problem, unknown keys first."""
    errors = problems.errors(include_url=False)
    error = min(errors, key=lambda error: error["type"] != "unexpected_keyword_argument")
    kind, place, context = error["type"], list(error["loc"]), error.get("ctx", {})
    if single_source and place[:2] == ["data", 0]:
        del place[1]
    key = ""
    for part in place:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    if kind == "missing":
        return f"{key}: is missing"
    if kind == "unexpected_keyword_argument":
        names = [part for part in place[:-1] if isinstance(part, str)]
        section = _SECTIONS[names[-1]] if names else TrainingConfig
        return f"{key}: is unknown, expected {', '.join(f.name for f in fields(section))}"
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ")
        expected = f"one of {choices}"
    else:
        template = _EXPECTED.get(kind) or _EXPECTED.get(kind.partition("_")[0], error["msg"])
        expected = template.format(**context)
    return f"{key or 'configuration'}: got {_shown(error['input'])}, expected {expected}"
