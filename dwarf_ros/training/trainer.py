"""The training loop: the same on every Keras backend, resumable at every checkpoint.

A run's folder holds `config.yaml`, `log.jsonl` (a JSON object a line), `checkpoints/`, `panels/` (pictures of the first
validation sample), `best.safetensors` (weights with the lowest validation score) and, when it is done, `last.safetensors`.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import keras
import numpy as np

from dwarf_ros import network
from dwarf_ros.datasets.formats import write_atomically, write_image
from dwarf_ros.datasets.samples import Sample
from dwarf_ros.estimators.network import padding
from dwarf_ros.network.weights import named_variables
from dwarf_ros.progress import Progress
from dwarf_ros.training.checkpoints import (
    TrainingState,
    find_checkpoints,
    read_state,
    restore,
    write_checkpoint,
)
from dwarf_ros.training.config import TrainingConfig, check_config, config_values, learning_rate
from dwarf_ros.training.data import (
    Batch,
    Samples,
    TrainingItems,
    check_batch_size,
    network_images,
    network_truth,
    open_batches,
    open_samples,
)
from dwarf_ros.training.losses import (
    finest_loss,
    matching_loss,
    multilevel_loss,
    squared_weights,
)
from dwarf_ros.types import InputError, SceneFlow
from dwarf_ros.visualization import scene_flow_panel

_MAY_CHANGE = ("workers", "validation", "checkpoints", "log_every")
"""Keys of the configuration that a resumed run may have otherwise: the weights do not depend on them."""


class Errors(Protocol):
    """Errors of some pixels, px; two of them can be added. `dwarf_ros.evaluation.metrics` has one."""

    def __add__(self, other: Self) -> Self: ...

    @property
    def mean(self) -> float:
        """Mean error, px; NaN where nothing was counted."""

    @property
    def outlier_rate(self) -> float:
        """Per cent of outliers; NaN where nothing was counted."""


Measure = Callable[[np.ndarray, np.ndarray], Errors]
"""Errors of an estimated map against the true one, float32, px, NaN where unknown."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: steps done.
        finished: False where a signal stopped it before the last step.
        weights: what it leaves to use: the best by validation, else the last; None before there are any.
        scores: of the last validation, e.g. "D1 outliers"; empty without one.
    """

    step: int
    finished: bool
    weights: Path | None
    scores: dict[str, float]


def train(
    config: TrainingConfig,
    out: Path,
    disparity_errors: Measure,
    flow_errors: Measure,
    resume: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train a network; SIGTERM and SIGINT write a checkpoint and end it early.

    Args:
        config: what to do.
        out: folder of the run.
        disparity_errors: what a validation measures of disparities, as `dwarf_ros.evaluation.metrics` has it.
        flow_errors: the same of optical flow.
        resume: continue from the folder's last checkpoint, or begin where there is none.
        progress: called after each step.

    Raises:
        InputError: the configuration does not fit the data, the folder holds another run, a file cannot be read or
            written, or the loss is no longer finite.
    """
    check_config(config)
    items = TrainingItems(config.data)
    check_batch_size(config, items)
    held_out = (
        open_samples(config.validation.data, "validation.data") if config.validation else None
    )
    last = _last_checkpoint(config, out, resume)

    model = make_model(config)
    run = _Run(config, out, model, held_out, {"disparity": disparity_errors, "flow": flow_errors})
    if last is not None:
        run.state = replace(restore(last, model, model.optimizer), config=run.state.config)
    run.begin()
    report = progress or (lambda done, total: None)
    report(run.state.step, config.steps)
    with _signals() as stop, open_batches(config, items, run.state.step) as batches:
        while run.state.step < config.steps and not stop.is_set():
            started = time.monotonic()
            batch = next(batches)
            run.step(batch, time.monotonic() - started)
            report(run.state.step, config.steps)
    return run.end()


def make_model(config: TrainingConfig) -> keras.Model:
    """The network with its first weights, its loss and its optimiser, ready for `train_step`.

    Raises:
        InputError: the weights to start from are damaged or of another preset.
    """
    keras.utils.set_random_seed(config.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        plain = network.build(config.preset, all_levels=True)
    finally:
        keras.config.set_dtype_policy(policy)
    if config.weights is not None:
        first = named_variables(network.load(config.weights, config.preset))
        for name, variable in named_variables(plain).items():
            variable.assign(first[name].value)

    class Trained(keras.Model):
        def compute_loss(
            self, x: Any = None, y: Any = None, y_pred: Any = None, *_: Any, **__: Any
        ) -> Any:
            loss = _loss(config, y_pred, y)
            if config.loss.regularization:
                weights = self.trainable_variables
                loss = loss + config.loss.regularization * squared_weights(weights)
            return loss

    model = Trained(plain.inputs, plain.output, name=plain.name)
    # Compiling with XLA takes long and gains nothing on TensorFlow; without it JAX would not compile at all.
    model.compile(_optimizer(config), jit_compile=keras.backend.backend() == "jax")
    model.optimizer.build(model.trainable_variables)
    return model


def train_step(model: keras.Model, config: TrainingConfig, batch: Batch, step: int) -> float:
    """Learn from one batch as step `step`, counted from 0; the loss before it."""
    model.optimizer.learning_rate = learning_rate(config.optimizer, step, config.steps)
    logs = model.train_on_batch(network_images(batch.images), batch.truth, return_dict=True)
    return float(logs["loss"])


def predict(model: keras.Model, sample: Sample) -> np.ndarray:
    """Estimate of a sample, reflected at its borders to a size that fits the network.

    Returns:
        float32 H x W x 4, px: disparity and disparity_next (positive for points before the cameras), u, v.
    """
    frames = (sample.previous, sample.current)
    images = np.stack([image for frame in frames for image in (frame.left, frame.right)])
    height, width = images.shape[1:3]
    margin = padding(height, width)
    padded = np.pad(images, ((0, 0), *margin), mode="reflect")
    outputs = model.predict_on_batch(network_images(padded[None]))
    names = ("disparity", "disparity_change", "forward_flow")
    motion = np.concatenate([np.asarray(outputs[name][0]) for name in names], axis=-1)
    (top, _), (left, _), _ = margin
    return network_truth(motion[top : top + height, left : left + width].astype(np.float32))


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """The running average in place of the weights, if the optimiser keeps one, until the block is left."""
    if not model.optimizer.use_ema or not int(model.optimizer.iterations.numpy()):
        yield
        return
    variables = model.trainable_variables
    before = [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]
    model.optimizer.finalize_variable_values(variables)
    try:
        yield
    finally:
        for variable, values in zip(variables, before, strict=True):
            variable.assign(values)


def validate(
    model: keras.Model, samples: Samples, measures: dict[str, Measure]
) -> tuple[dict[str, float], np.ndarray]:
    """Errors over held-out samples with all their ground truth (`occ`), pooled over pixels.

    Args:
        model: the network.
        samples: with ground truth.
        measures: `disparity` and `flow`.

    Returns:
        End-point errors (px) and KITTI outliers (per cent) of D1, D2 and Fl, those that there is truth for; and a picture
        of the first sample's answer, uint8 RGB.
    """
    pooled: dict[str, Any] = {}
    panel = np.zeros((1, 1, 3), np.uint8)
    for index in range(len(samples)):
        sample = samples[index]
        estimate = predict(model, sample)
        if index == 0:
            panel = _panel(sample, estimate)
        truth = sample.ground_truth
        if truth is None:
            raise InputError(f"validation.data: {sample.name} has no ground truth")
        for name, measure, values, true in (
            ("D1", "disparity", estimate[..., 0], truth.occ.disparity),
            ("D2", "disparity", estimate[..., 1], truth.occ.disparity_next),
            ("Fl", "flow", estimate[..., 2:], truth.occ.flow),
        ):
            if true is not None:
                errors = measures[measure](np.ascontiguousarray(values), true)
                pooled[name] = pooled[name] + errors if name in pooled else errors
    scores = {}
    for name, errors in pooled.items():
        scores[f"{name} EPE"] = errors.mean
        scores[f"{name} outliers"] = errors.outlier_rate
    return scores, panel


class _Run:
    """What changes while a network is trained: the model, the state and the files."""

    def __init__(
        self,
        config: TrainingConfig,
        out: Path,
        model: keras.Model,
        held_out: Samples | None,
        measures: dict[str, Measure],
    ) -> None:
        self._config, self._out, self._model = config, out, model
        self._held_out, self._measures = held_out, measures
        self._losses: list[float] = []
        self._seconds = [0.0, 0.0]
        self.scores: dict[str, float] = {}
        self.state = TrainingState(0, _stored(config))
        self._written: int | None = None

    def begin(self) -> None:
        """Write the configuration, and a log without what a crash left after the last checkpoint."""
        import yaml

        log = self._out / "log.jsonl"
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(config_values(self._config), sort_keys=False)
            write_atomically(self._out / "config.yaml", text.encode())
            lines = log.read_bytes().splitlines() if log.is_file() else []
            kept = [line for line in lines if _step_of(line) <= self.state.step]
            write_atomically(log, b"".join(line + b"\n" for line in kept))
        except OSError as error:
            raise InputError(f"{self._out}: cannot be written: {error.strerror}") from None

    def step(self, batch: Batch, waited: float) -> None:
        """Learn from a batch, and write what is due."""
        config, number = self._config, self.state.step
        started = time.monotonic()
        try:
            loss = train_step(self._model, config, batch, number)
        except Exception as error:
            # TensorFlow's gathering refuses to follow motions that are no longer numbers.
            if type(error).__name__ != "InvalidArgumentError":
                raise
            loss = math.nan
        if not math.isfinite(loss):
            raise InputError(
                f"loss: is {loss} at step {number + 1}, expected a finite number (is optimizer.learning_rate, "
                f"{config.optimizer.learning_rate:g}, too high?)"
            )
        self._losses.append(loss)
        self._seconds[0] += waited
        self._seconds[1] += time.monotonic() - started
        done = number + 1
        self.state = replace(self.state, step=done)
        last = done == config.steps
        if done % config.log_every == 0 or last:
            self._log_losses()
        if config.validation and (last or done % config.validation.every == 0):
            self._validate()
        if last or done % config.checkpoints.every == 0:
            self._write()

    def end(self) -> Outcome:
        """Write what was not due yet, leave the weights, and tell what was reached."""
        if self._losses:
            self._log_losses()
        if self.state.step != self._written:
            self._write()
        best, last = self._out / "best.safetensors", self._out / "last.safetensors"
        finished = self.state.step == self._config.steps
        if finished:
            self._save(last)
        weights = next((file for file in (best, last) if file.is_file()), None)
        return Outcome(self.state.step, finished, weights, self.scores)

    def _write(self) -> None:
        write_checkpoint(
            self._out / "checkpoints",
            self._model,
            self._model.optimizer,
            self.state,
            self._config.checkpoints.keep,
        )
        self._written = self.state.step

    def _save(self, file: Path) -> None:
        with averaged_weights(self._model):
            sources = ", ".join(data.source for data in self._config.data)
            origin = f"dwarf train, {sources}, step {self.state.step}"
            network.save(self._model, file, origin)

    def _validate(self) -> None:
        assert self._held_out is not None
        with averaged_weights(self._model):
            self.scores, panel = validate(self._model, self._held_out, self._measures)
        self._log({"step": self.state.step, **self.scores})
        panels = self._out / "panels"
        panels.mkdir(exist_ok=True)
        write_image(panels / f"step-{self.state.step:08d}.png", panel)
        score = sum(value for name, value in self.scores.items() if name.endswith("EPE"))
        if self.state.best_score is None or score < self.state.best_score:
            self.state = replace(self.state, best_score=score)
            self._save(self._out / "best.safetensors")

    def _log_losses(self) -> None:
        steps = len(self._losses)
        waited, learnt = (seconds / steps for seconds in self._seconds)
        rate = learning_rate(self._config.optimizer, self.state.step - 1, self._config.steps)
        self._log(
            {
                "step": self.state.step,
                "loss": math.fsum(self._losses) / steps,
                "learning_rate": rate,
                "data_seconds": round(waited, 4),
                "step_seconds": round(learnt, 4),
            }
        )
        self._losses, self._seconds = [], [0.0, 0.0]

    def _log(self, values: dict[str, Any]) -> None:
        try:
            with (self._out / "log.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(values) + "\n")
        except OSError as error:
            raise InputError(
                f"{self._out / 'log.jsonl'}: cannot be written: {error.strerror}"
            ) from None


def _loss(config: TrainingConfig, outputs: Any, truth: Any) -> Any:
    loss = config.loss
    if loss.kind == "finest":
        return finest_loss(outputs, truth, loss.weight, loss.flow_weight)
    total = multilevel_loss(outputs, truth, loss.level_weights, loss.flow_weight)
    if loss.matching_weight:
        total = total + loss.matching_weight * matching_loss(outputs, truth)
    return total


def _optimizer(config: TrainingConfig) -> keras.optimizers.Optimizer:
    settings = config.optimizer
    options: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "global_clipnorm": settings.clip_norm,
        "use_ema": settings.ema is not None,
        "ema_momentum": settings.ema or 0.99,
    }
    if settings.weight_decay:
        return keras.optimizers.AdamW(weight_decay=settings.weight_decay, **options)
    return keras.optimizers.Adam(**options)


def _last_checkpoint(config: TrainingConfig, out: Path, resume: bool) -> Path | None:
    found = find_checkpoints(out / "checkpoints")
    if not found:
        return None
    if not resume:
        raise InputError(f"{out}: holds a training already, expected --resume or another folder")
    before, now = read_state(found[-1]).config, _stored(config)
    for key in (*before, *now):
        if key not in _MAY_CHANGE and before.get(key) != now.get(key):
            raise InputError(
                f"{key}: got {now.get(key)!r}, expected {before.get(key)!r} as in the training that {out} holds"
            )
    return found[-1]


def _stored(config: TrainingConfig) -> dict[str, Any]:
    return json.loads(json.dumps(config_values(config)))


def _step_of(line: bytes) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _panel(sample: Sample, estimate: np.ndarray) -> np.ndarray:
    disparity, disparity_next = (
        np.where(estimate[..., i] > 0, estimate[..., i], np.float32(np.nan)) for i in (0, 1)
    )
    flow = np.ascontiguousarray(estimate[..., 2:])
    frame = sample.previous
    seconds = (sample.current.stamp - frame.stamp) * 1e-9
    scene_flow = SceneFlow(
        disparity,
        disparity_next,
        flow,
        np.isfinite(disparity) & np.isfinite(disparity_next),
        frame.stamp,
        seconds,
        frame.camera,
    )
    return scene_flow_panel(frame.left, scene_flow, sample.name)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second one ends the process as ever."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
