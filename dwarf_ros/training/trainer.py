"""The training loop, the same on every Keras backend and resumable at every checkpoint.

The folder of a run holds `config.yaml`, `log.jsonl` (one JSON object per line), the same curves and pictures for TensorBoard,
`checkpoints/`, `panels/` (pictures of the first validation sample), `best.safetensors` (weights with the lowest validation score)
and, at the end, `last.safetensors`. If several machines train together, the first writes these files and all read the checkpoints,
so they must share the folder.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from dwarf_ros import network
from dwarf_ros.estimators.network import known_scene_flow
from dwarf_ros.metrics import PixelErrors, disparity_errors, flow_errors
from dwarf_ros.network.codec import decode, encode
from dwarf_ros.network.weights import ENCODER, load_encoder, named_variables
from dwarf_ros.progress import Progress
from dwarf_ros.samples import Sample
from dwarf_ros.signals import stop_requests
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
    open_batches,
    open_samples,
)
from dwarf_ros.training.devices import Devices, Learner, check_share, find_devices
from dwarf_ros.training.log import RunLog
from dwarf_ros.training.losses import (
    finest_loss,
    matching_loss,
    multilevel_loss,
    squared_weights,
)
from dwarf_ros.training.stage_losses import (
    FEATURE_WEIGHTS,
    STAGE_WEIGHTS,
    feature_losses,
    stage_losses,
)
from dwarf_ros.types import InputError
from dwarf_ros.visualization.panels import scene_flow_panel

_MAY_CHANGE = ("workers", "validation", "checkpoints", "log_every")
"""Keys of the configuration that may change when a run is resumed, because the weights do not depend on them."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        step: steps done.
        finished: False if a signal stopped it before the last step.
        weights: the best by validation, else the last; None before the first.
        scores: of the last validation, e.g. "D1 outliers"; empty without validation.
    """

    step: int
    finished: bool
    weights: Path | None
    scores: dict[str, float]


def train(
    config: TrainingConfig,
    out: Path,
    resume: bool = False,
    progress: Progress | None = None,
) -> Outcome:
    """Train a network on all devices; SIGINT, SIGTERM and SIGHUP write a checkpoint and end it early.

    Args:
        config: of the run.
        out: folder of the run, shared by all machines.
        resume: continue from the last checkpoint in the folder, or start if there is none.
        progress: called after each step.

    Raises:
        InputError: the configuration does not fit the data or the devices, the folder holds another run, a file cannot be
            read or written, the loss is not finite, or another machine stopped responding.
    """
    check_config(config)
    items = TrainingItems(config.data)
    check_batch_size(config, items)
    devices = find_devices()
    check_share(config.batch_size, devices)
    held_out = (
        open_samples(config.validation.data, "validation.data") if config.validation else None
    )
    last = _last_checkpoint(config, out, resume)

    model = make_model(config)
    state = TrainingState(0, _stored(config))
    if last is not None:
        state = replace(restore(last, model, model.optimizer), config=state.config)
    if devices.total(state.step) != state.step * devices.processes:
        raise InputError(
            f"{out}: holds step {state.step} here and another on other machines, expected one shared folder"
        )
    # The first process alone writes.
    log = RunLog(out, config_values(config), state.step) if devices.process == 0 else None
    run = _Run(config, out, devices, model, state, held_out, log)
    report = progress or (lambda done, total: None)
    report(run.state.step, config.steps)
    place = devices.process, devices.processes
    with (
        closing(log) if log else nullcontext(),
        stop_requests() as stop,
        open_batches(config, items, state.step, *place) as batches,
    ):
        batch, stopped = next(batches, None), False
        while batch is not None and not stopped:
            batch, stopped_elsewhere = run.step(batch, lambda: next(batches, None), stop.is_set())
            report(run.state.step, config.steps)
            # All processes stop after the same step: the others would wait for one that stopped.
            stopped = stopped_elsewhere if devices.processes > 1 else stop.is_set()
        outcome = run.end()
    devices.total(0)
    return outcome


def make_model(config: TrainingConfig) -> keras.Model:
    """Build the network with its initial weights and its optimizer.

    Raises:
        InputError: the weights to start from are damaged or of another preset.
    """
    keras.utils.set_random_seed(config.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        if config.loss.kind == "features":
            model = network.build_encoder(config.preset)
        else:
            model = network.build(config.preset, all_levels=True)
    finally:
        keras.config.set_dtype_policy(policy)
    if config.weights is not None:
        first = named_variables(network.load(config.weights, config.preset))
        for name, variable in named_variables(model).items():
            variable.assign(first[name].value)
    if config.encoder is not None:
        load_encoder(model, config.encoder)
    if config.freeze_encoder:
        for layer in model.layers:
            layer.trainable = not layer.name.startswith(ENCODER)
    # On TensorFlow, XLA takes long to compile and gains nothing; on JAX there is no other way to compile.
    model.compile(_optimizer(config), jit_compile=keras.backend.backend() == "jax")
    model.optimizer.build(model.trainable_variables)
    return model


def make_learner(model: keras.Model, config: TrainingConfig, devices: Devices) -> Learner:
    """Learner for a network of `make_model`; `loss_names` names its losses."""
    return devices.learner(model, lambda *values: losses(config, *values))


def losses(config: TrainingConfig, outputs: Any, truth: Any, weights: list[Any]) -> Any:
    """Losses of a batch, a vector, in the order of `loss_names`."""
    loss = config.loss
    if loss.kind == "finest":
        parts = []
        total = finest_loss(outputs, truth, loss.weight, loss.flow_weight)
    elif loss.kind == "stages":
        parts = stage_losses(outputs, truth)
        total = sum(parts)
    elif loss.kind == "features":
        # The encoder's outputs are in the order of the images of all samples.
        cells, channels = truth.shape[2:]
        teacher = ops.reshape(ops.swapaxes(truth, 0, 1), (-1, cells, channels))
        parts = feature_losses(outputs, teacher)
        total = sum(parts)
    else:
        parts = [
            multilevel_loss(outputs, truth, {level: weight}, loss.flow_weight)
            for level, weight in loss.level_weights.items()
        ]
        if loss.matching_weight:
            parts.append(loss.matching_weight * matching_loss(outputs, truth))
        total = sum(parts)
    if loss.regularization:
        total = total + loss.regularization * squared_weights(weights)
    return ops.stack([total, *parts])


def loss_names(config: TrainingConfig) -> list[str]:
    """Names of the losses of a step: `loss`, which is minimized, and its weighted parts if it has several."""
    if config.loss.kind == "finest":
        return ["loss"]
    if config.loss.kind in ("stages", "features"):
        terms = STAGE_WEIGHTS if config.loss.kind == "stages" else FEATURE_WEIGHTS
        return ["loss", *(f"loss_{name}" for name in terms)]
    levels = [f"loss_level_{level}" for level in config.loss.level_weights]
    return ["loss", *levels, *(["loss_matching"] if config.loss.matching_weight else [])]


def predict(model: keras.Model, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate of a sample: disparity, disparity_next and flow, as `network.codec.decode` returns them, of one item."""
    frames = (sample.previous, sample.current)
    images = np.stack([image for frame in frames for image in (frame.left, frame.right)])
    outputs = model.predict_on_batch(encode(images[None]))
    disparity, disparity_next, flow = decode(outputs, *images.shape[1:3])
    return disparity[0], disparity_next[0], flow[0]


@contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Context that replaces the weights by their running average, if the optimizer keeps one."""
    if not model.optimizer.use_ema or not int(model.optimizer.iterations.numpy()):
        yield
        return
    variables = model.trainable_variables
    before = [np.array(ops.convert_to_numpy(variable.value)) for variable in variables]
    model.optimizer.finalize_variable_values(variables)
    for variable in variables:
        # On JAX these are the optimizer's own arrays, whose memory a prediction may reuse.
        variable.assign(np.array(ops.convert_to_numpy(variable.value)))
    try:
        yield
    finally:
        for variable, values in zip(variables, before, strict=True):
            variable.assign(values)


def validate(model: keras.Model, samples: Samples) -> tuple[dict[str, float], np.ndarray]:
    """Errors on held-out samples with all their ground truth (`occ`), pooled over pixels.

    Args:
        model: the network.
        samples: with ground truth.

    Returns:
        End-point errors (px) and KITTI outliers (per cent) of those of D1, D2 and Fl that have ground truth; and a picture of
        the first sample's estimate, uint8 RGB.
    """
    pooled: dict[str, PixelErrors] = {}
    panel = np.zeros((1, 1, 3), np.uint8)
    for index in range(len(samples)):
        sample = samples[index]
        estimate = predict(model, sample)
        if index == 0:
            scene_flow = known_scene_flow(*estimate, sample.previous, sample.current)
            panel = scene_flow_panel(sample.previous.left, scene_flow, sample.name)
        truth = sample.ground_truth
        if truth is None:
            raise InputError(f"validation.data: {sample.name} has no ground truth")
        for name, measure, values, true in (
            ("D1", disparity_errors, estimate[0], truth.occ.disparity),
            ("D2", disparity_errors, estimate[1], truth.occ.disparity_next),
            ("Fl", flow_errors, estimate[2], truth.occ.flow),
        ):
            if true is not None:
                pooled[name] = pooled.get(name, PixelErrors()) + measure(values, true)
    scores = {}
    for name, errors in pooled.items():
        scores[f"{name} EPE"] = errors.mean
        scores[f"{name} outliers"] = errors.outlier_rate
    return scores, panel


class _Run:
    """State of a training: model, progress and files."""

    def __init__(
        self,
        config: TrainingConfig,
        out: Path,
        devices: Devices,
        model: keras.Model,
        state: TrainingState,
        held_out: Samples | None,
        log: RunLog | None,
    ) -> None:
        self._config, self._out, self._devices, self._model = config, out, devices, model
        self._learner = make_learner(model, config, devices)
        self._held_out, self._log = held_out, log
        self._losses: list[list[float]] = []
        self._seconds = [0.0, 0.0]
        self._written: int | None = None
        self.scores: dict[str, float] = {}
        self.state = state

    def step(
        self, batch: Batch, fetch: Callable[[], Batch | None], stop: bool
    ) -> tuple[Batch | None, bool]:
        """Learn from a batch, and validate and write files when due.

        Args:
            batch: the part of this process.
            fetch: returns the next batch; called while the devices compute.
            stop: this process asks all processes to stop.

        Returns:
            The next batch, and whether any process asked to stop.
        """
        config, done = self._config, self.state.step + 1
        started = time.monotonic()
        try:
            rate = learning_rate(config.optimizer, done - 1, config.steps)
            report = self._learner.step(batch, rate, stop)
            fetched = time.monotonic()
            following = fetch()
            waited = time.monotonic() - fetched
            *values, stops = np.asarray(report).tolist()
        except Exception as error:
            self._explain(error, done)
            raise
        _check_loss(values[0], done, config)
        self._losses.append(values)
        self._seconds[0] += waited
        self._seconds[1] += time.monotonic() - started - waited
        self.state = replace(self.state, step=done)
        last = done == config.steps
        if done % config.log_every == 0 or last:
            self._log_losses()
        if config.validation and (last or done % config.validation.every == 0):
            self._validate()
        if last or done % config.checkpoints.every == 0:
            self._write()
        return following, stops > 0

    def _explain(self, error: Exception, step: int) -> None:
        """Raise InputError for errors of the backend that have a known cause."""
        if type(error).__name__ == "InvalidArgumentError":
            # TensorFlow's gather fails on displacements that are not finite.
            _check_loss(math.nan, step, self._config)
        elif self._devices.processes > 1 and type(error).__module__.startswith(
            ("tensorflow", "jax")
        ):
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"step {step}: another process of the training stopped responding ({reason}), "
                "expected all of them to continue; resume from the last checkpoint"
            ) from None

    def end(self) -> Outcome:
        """Write the remaining files and the weights, and report the outcome."""
        if self._losses:
            self._log_losses()
        if self.state.step != self._written:
            self._write()
        if self._log is None:
            return Outcome(self.state.step, self.state.step == self._config.steps, None, {})
        best, last = self._out / "best.safetensors", self._out / "last.safetensors"
        finished = self.state.step == self._config.steps
        if finished:
            self._save(last)
        weights = next((file for file in (best, last) if file.is_file()), None)
        return Outcome(self.state.step, finished, weights, self.scores)

    def _write(self) -> None:
        if self._log is not None:
            self._learner.sync()
            write_checkpoint(
                self._out / "checkpoints",
                self._model,
                self._model.optimizer,
                self.state,
                self._config.checkpoints.keep,
            )
            self._log.flush()
        self._written = self.state.step

    def _save(self, file: Path) -> None:
        with averaged_weights(self._model):
            sources = ", ".join(data.source for data in self._config.data)
            origin = f"dwarf train, {sources}, step {self.state.step}"
            network.save(self._model, file, origin)

    def _validate(self) -> None:
        assert self._held_out is not None
        if self._log is None:
            return
        self._learner.sync()
        with averaged_weights(self._model):
            self.scores, panel = validate(self._model, self._held_out)
        self._log.scalars(self.state.step, self.scores, "validation")
        self._log.panel(self.state.step, panel)
        self._log.flush()
        score = sum(value for name, value in self.scores.items() if name.endswith("EPE"))
        if self.state.best_score is None or score < self.state.best_score:
            self.state = replace(self.state, best_score=score)
            self._save(self._out / "best.safetensors")

    def _log_losses(self) -> None:
        steps = len(self._losses)
        means = (math.fsum(values) / steps for values in zip(*self._losses, strict=True))
        waited, learned = (seconds / steps for seconds in self._seconds)
        rate = learning_rate(self._config.optimizer, self.state.step - 1, self._config.steps)
        values = {
            **dict(zip(loss_names(self._config), means, strict=True)),
            "learning_rate": rate,
            "data_seconds": round(waited, 4),
            "step_seconds": round(learned, 4),
        }
        if self._log is not None:
            self._log.scalars(self.state.step, values, "training")
        self._losses, self._seconds = [], [0.0, 0.0]


def _check_loss(loss: float, step: int, config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        raise InputError(
            f"loss: is {loss} at step {step}, expected a finite number (is optimizer.learning_rate, "
            f"{config.optimizer.learning_rate:g}, too high?)"
        )


def _optimizer(config: TrainingConfig) -> keras.optimizers.Optimizer:
    settings = config.optimizer
    options: dict[str, Any] = {
        "learning_rate": settings.learning_rate,
        "global_clipnorm": settings.clip_norm,
        "use_ema": settings.ema is not None,
        "ema_momentum": settings.ema or 0.99,
        "gradient_accumulation_steps": settings.accumulate if settings.accumulate > 1 else None,
    }
    if settings.weight_decay:
        return keras.optimizers.AdamW(weight_decay=settings.weight_decay, **options)
    return keras.optimizers.Adam(**options)


def _last_checkpoint(config: TrainingConfig, out: Path, resume: bool) -> Path | None:
    found = find_checkpoints(out / "checkpoints")
    if not found:
        return None
    if not resume:
        raise InputError(f"{out}: contains a training already, expected resume or another folder")
    before, now = read_state(found[-1]).config, _stored(config)
    for key in (*before, *now):
        if key not in _MAY_CHANGE and before.get(key) != now.get(key):
            raise InputError(
                f"{key}: got {now.get(key)!r}, expected {before.get(key)!r} as in the training that {out} holds"
            )
    return found[-1]


def _stored(config: TrainingConfig) -> dict[str, Any]:
    return json.loads(json.dumps(config_values(config)))
