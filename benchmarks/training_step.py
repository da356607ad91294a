"""Where the time of a training step goes: python benchmarks/training_step.py CONFIG [--steps N] [--workers W] [--json FILE].

Data (one process makes a batch), forward (the losses), backward (their gradients) and update (clipping and the optimiser), each in ms,
on one device and with a batch that lies there already; then the training's own loop with its workers: samples/s, and the share of
the time that the device waits. The bar for that share is 10 %. KERAS_BACKEND says on which backend.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np

from dwarf_ros.training.config import TrainingConfig, read_config
from dwarf_ros.training.data import Batch, TrainingItems, make_batch, open_batches
from dwarf_ros.training.devices import Learner, find_devices, inputs
from dwarf_ros.training.trainer import losses, make_learner, make_model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=20, help="steps that are timed")
    parser.add_argument("--workers", type=int, help="instead of those of the configuration")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    config = read_config(options.config)
    if options.workers is not None:
        config = replace(config, workers=options.workers)
    if find_devices().replicas > 1:
        parser.error("expected one device: CUDA_VISIBLE_DEVICES leaves the others out")

    figures = measure(config, options.steps)
    print(f"{options.config}: {config.preset}, {config.precision}, batch {config.batch_size}")
    print(f"{figures['backend']} on {figures['device']}; load {figures['load']:.1f}")
    for part, milliseconds in figures["milliseconds"].items():
        print(f"{part:>22} {milliseconds:9.1f} ms")
    loop = figures["loop"]
    print(
        f"with {config.workers} workers: {loop['samples_per_second']:.1f} samples/s, "
        f"the device waits {loop['waiting_percent']:.0f} % of the time"
    )
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(config: TrainingConfig, steps: int) -> dict[str, Any]:
    cv2.setNumThreads(1)
    items = TrainingItems(config.data)
    make_batch(config, items, 0)
    made = [seconds(lambda n=n: make_batch(config, items, n)) for n in range(1, 5)]

    model = make_model(config)
    learner = make_learner(model, config, find_devices())
    batch, forward, gradients = on_device(config, model, make_batch(config, items, 0))
    parts: dict[str, Callable[[], Any]] = {
        "forward": forward,
        "gradients": gradients,
        "step": lambda: np.asarray(learner.step(batch, 1e-6)),
    }
    for part in parts.values():
        part()
        part()
    times: dict[str, list[float]] = {name: [] for name in parts}
    # In turn, so that what else the machine does meets all alike.
    for _ in range(steps):
        for name, part in parts.items():
            times[name].append(seconds(part))
    forward_, gradients_, step = (statistics.median(values) for values in times.values())
    loop = loop_seconds(config, items, learner, steps)
    return {
        "backend": f"keras {keras.__version__}, {keras.backend.backend()}",
        "device": device_name(),
        "load": os.getloadavg()[0],
        "preset": config.preset,
        "precision": config.precision,
        "batch_size": config.batch_size,
        "crop": [config.augmentation.height, config.augmentation.width],
        "milliseconds": {
            "data, one process": 1000 * statistics.median(made),
            "forward": 1000 * forward_,
            "backward": 1000 * (gradients_ - forward_),
            "update": 1000 * (step - gradients_),
            "step": 1000 * step,
            "step of the loop": 1000 * loop,
        },
        "loop": {
            "workers": config.workers,
            "samples_per_second": config.batch_size / loop,
            "waiting_percent": 100 * max(0.0, 1 - step / loop),
        },
    }


def loop_seconds(
    config: TrainingConfig, items: TrainingItems, learner: Learner, steps: int
) -> float:
    """Seconds a step as the trainer does it, after the batches that workers made in advance are used up."""
    warm_up = 3 + 3 * config.workers
    config = replace(config, steps=warm_up + steps + 1)
    started = 0.0
    with open_batches(config, items, 0) as batches:
        batch = next(batches)
        for step in range(warm_up + steps):
            if step == warm_up:
                started = time.perf_counter()
            report = learner.step(batch, 1e-6)
            batch = next(batches)
            np.asarray(report)
        return (time.perf_counter() - started) / steps


def on_device(
    config: TrainingConfig, model: keras.Model, batch: Batch
) -> tuple[Batch, Callable[[], Any], Callable[[], Any]]:
    """The batch on the device, and what computes its losses, and their gradients: both wait for the result."""
    backend = keras.backend.backend()
    variables = [variable.value for variable in model.trainable_variables]
    if backend == "tensorflow":
        import tensorflow as tf

        batch = Batch(tf.identity(batch.images), tf.identity(batch.truth))

        @tf.function(autograph=False)
        def forward(batch_: Any) -> Any:
            return losses(config, model(inputs(batch_[0]), training=True), batch_[1], variables)[0]

        @tf.function(autograph=False)
        def gradients(batch_: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = forward(batch_)
            slopes = tape.gradient(loss, variables, unconnected_gradients="zero")
            # One number, which needs them all.
            return tf.add_n([tf.reduce_sum(slope) for slope in slopes])

        given = (batch.images, batch.truth)
        return batch, lambda: np.asarray(forward(given)), lambda: np.asarray(gradients(given))

    import jax

    batch = Batch(jax.device_put(batch.images), jax.device_put(batch.truth))
    others = [variable.value for variable in model.non_trainable_variables]

    def loss(trainable: Any, images: Any, truth: Any) -> Any:
        outputs, _ = model.stateless_call(trainable, others, inputs(images), training=True)
        return losses(config, outputs, truth, trainable)[0]

    compiled = jax.jit(loss), jax.jit(jax.grad(loss))
    given = (variables, batch.images, batch.truth)
    return (
        batch,
        lambda: jax.block_until_ready(compiled[0](*given)),
        lambda: jax.block_until_ready(compiled[1](*given)),
    )


def device_name() -> str:
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"


def seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
