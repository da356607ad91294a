from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from dwarf_ros import network
from dwarf_ros.formats import read_image
from dwarf_ros.network.weights import named_variables
from dwarf_ros.training.checkpoints import find_checkpoints
from dwarf_ros.training.config import learning_rate, parse_config
from dwarf_ros.training.data import TrainingItems, make_batch, open_samples
from dwarf_ros.training.devices import find_devices
from dwarf_ros.training.trainer import (
    averaged_weights,
    loss_names,
    make_learner,
    make_model,
    predict,
    train,
    validate,
)
from dwarf_ros.types import InputError


def learn(learner, config, batch, step):
    """The losses before the step, in the order of `loss_names`, and 0: nobody said stop."""
    return np.asarray(learner.step(batch, learning_rate(config.optimizer, step, config.steps)))


def logged(out):
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def events(folder):
    """Step to scalars and pictures of each event file, in their order; and the steps that files begin at."""
    pytest.importorskip("tensorboardX", reason="it writes for TensorBoard, and is optional")
    from tensorboardX.proto.event_pb2 import SessionLog
    from tensorflow.compat.v1.train import summary_iterator

    found, begun = {}, []
    for file in sorted(
        folder.glob("events.out.tfevents.*"), key=lambda file: file.stat().st_mtime_ns
    ):
        for event in summary_iterator(str(file)):
            if event.session_log.status == SessionLog.START:
                begun.append(event.step)
            for value in event.summary.value:
                encoded = value.image.encoded_image_string
                found.setdefault(event.step, {})[value.tag] = encoded or value.simple_value
    return found, begun


def tensors(file):
    from safetensors.numpy import load_file

    return load_file(file)


@pytest.fixture
def eager():
    """Without compiling, which takes longer than the few steps of a test."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def full(settings):
    """Everything that a run can have: averages, validation, clipping, a schedule."""

    def values(**changes):
        validation = {**settings()["data"], "count": 1}
        base = {
            "steps": 4,
            "optimizer": {
                "schedule": "cosine",
                "warm_up_steps": 1,
                "weight_decay": 1e-4,
                "clip_norm": 10,
                "ema": 0.5,
            },
            "validation": {"data": validation, "every": 2},
            "checkpoints": {"every": 2, "keep": 2},
        }
        return settings(**{**base, **changes})

    return values


def test_an_interrupted_and_resumed_run_is_as_one_that_was_not(eager, full, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    config = parse_config(full())
    outcome = train(config, whole)
    assert (outcome.step, outcome.finished) == (4, True)
    assert outcome.weights == whole / "best.safetensors"
    assert set(outcome.scores) == {f"{m} {k}" for m in ("D1", "D2", "Fl") for k in ("EPE", "outliers")}  # fmt: skip

    def interrupt(done, total):
        if done == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped = train(config, parts, progress=interrupt)
    assert (stopped.step, stopped.finished) == (1, False)
    (parts / "log.jsonl").open("a").write('{"step": 2, "loss": 0}\n{"step": 2, "lo')
    resumed = train(parse_config(full(workers=1)), parts, resume=True)
    assert resumed.finished

    names = [[file.name for file in find_checkpoints(out / "checkpoints")] for out in (whole, parts)]  # fmt: skip
    assert names[0] == names[1] == ["step-00000002.safetensors", "step-00000004.safetensors"]
    for name in ("last.safetensors", "best.safetensors", f"checkpoints/{names[0][-1]}"):
        one, two = tensors(whole / name), tensors(parts / name)
        assert one.keys() == two.keys()
        for tensor, values in one.items():
            assert np.allclose(values, two[tensor], rtol=0, atol=1e-5), tensor
    one, two = logged(whole), logged(parts)
    assert [line["step"] for line in one] == [1, 2, 2, 3, 4, 4]
    for a, b in zip(one, two, strict=True):
        assert a.get("learning_rate") == b.get("learning_rate")
        assert a.keys() == b.keys()
        assert a.get("loss", 0) == pytest.approx(b.get("loss", 0), rel=1e-5)
    assert (whole / "panels" / "step-00000004.png").is_file()

    names = loss_names(config)
    assert math.fsum(one[0][name] for name in names[1:]) == pytest.approx(one[0]["loss"], rel=0.01)
    if keras.backend.backend() != "tensorflow":
        return
    for out, starts in ((whole, [1]), (parts, [1, 2])):
        found, begun = events(out)
        assert begun == starts
        for line in logged(out):
            group = "training" if "loss" in line else "validation"
            for name in line.keys() - {"step"}:
                assert found[line["step"]][f"{group}/{name}"] == pytest.approx(line[name], rel=1e-6)
    panel = read_image(whole / "panels" / "step-00000004.png")
    encoded = np.frombuffer(found[4]["validation/panel"], np.uint8)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(float) - panel).mean() < 10


def test_a_folder_with_a_training_is_neither_overwritten_nor_continued_otherwise(
    eager, settings, tmp_path
):
    train(parse_config(settings(steps=1)), tmp_path)
    with pytest.raises(InputError, match="contains a training already, expected resume or another"):
        train(parse_config(settings(steps=1)), tmp_path)
    with pytest.raises(InputError, match=r"^seed: got 5, expected 0 as in the training that "):
        train(parse_config(settings(steps=1, seed=5)), tmp_path, resume=True)


def test_one_sample_is_learnt(settings):
    """The small form of what the whole dwarf_lite does with a drive."""
    plain = {"zoom_probability": 0, "photometric_probability": 0, "flip_probability": 0}
    changes = {"data": {"count": 1}, "batch_size": 1, "steps": 150, "augmentation": plain}
    config = parse_config(settings(**changes, optimizer={"learning_rate": 1e-2, "schedule": "cosine"}))  # fmt: skip
    samples = open_samples(*config.data)
    batch = make_batch(config, TrainingItems(config.data), 0)
    model = make_model(config)
    learner = make_learner(model, config, find_devices())
    for step in range(config.steps):
        learn(learner, config, batch, step)
    learner.sync()
    scores, panel = validate(model, samples)
    assert scores["D1 EPE"] < 5 / 4
    assert scores["D2 EPE"] < 6 / 4
    assert scores["Fl EPE"] < np.hypot(3, 1) / 4
    assert panel.shape[2] == 3
    estimate = predict(model, samples[0])
    assert [each.shape for each in estimate] == [(64, 128), (64, 128), (64, 128, 2)]
    motion = np.dstack(estimate)
    assert np.median(motion, axis=(0, 1)) == pytest.approx([5, 6, 3, -1], abs=1)


def test_averages_replace_the_weights_only_while_they_are_asked_for(eager, full):
    config = parse_config(full())
    items = TrainingItems(config.data)
    model = make_model(config)
    learner = make_learner(model, config, find_devices())
    kernel = next(iter(named_variables(model).values()))
    history = []
    for step in range(2):
        learn(learner, config, make_batch(config, items, step), step)
        learner.sync()
        history.append(np.array(kernel.numpy()))
    with averaged_weights(model):
        assert np.allclose(kernel.numpy(), (history[0] + history[1]) / 2, atol=1e-7)
    assert np.array_equal(kernel.numpy(), history[1])


def test_weights_to_start_from_and_mixed_precision(eager, settings, tmp_path):
    first = tmp_path / "first.safetensors"
    network.save(make_model(parse_config(settings())), first, "a test")
    config = parse_config(settings(weights=str(first), precision="mixed_bfloat16", seed=9))
    model = make_model(config)
    assert keras.config.dtype_policy().name == "float32"
    assert model.get_layer("Encoder.level_1.Conv").compute_dtype == "bfloat16"
    variables = named_variables(model)
    for name, values in tensors(first).items():
        assert variables[name].dtype == "float32"
        assert np.array_equal(variables[name].numpy(), values)
    batch = make_batch(config, TrainingItems(config.data), 0)
    learner = make_learner(model, config, find_devices())
    losses = [learn(learner, config, batch, step)[0] for step in range(3)]
    assert losses[2] < losses[0]


def test_a_loss_that_is_no_longer_finite_ends_the_run(eager, settings, tmp_path):
    config = parse_config(settings(optimizer={"learning_rate": 1e30}))
    with pytest.raises(InputError, match=r"^loss: is (nan|inf) at step \d.*learning_rate, 1e\+30"):
        train(config, tmp_path)


_LOSSES = """
import json, sys
import numpy as np
from dwarf_ros.network.presets import PRESETS, Preset
values, preset = json.load(sys.stdin)
PRESETS["tiny"] = Preset(**{k: tuple(v) if isinstance(v, list) else v for k, v in preset.items()})
from dwarf_ros.training.config import learning_rate, parse_config
from dwarf_ros.training.data import TrainingItems, make_batch
from dwarf_ros.training.devices import find_devices
from dwarf_ros.training.trainer import make_learner, make_model
values["loss"]["level_weights"] = {int(k): v for k, v in values["loss"]["level_weights"].items()}
config = parse_config(values)
items = TrainingItems(config.data)
learner = make_learner(make_model(config), config, find_devices())
losses = [np.asarray(learner.step(make_batch(config, items, s), learning_rate(config.optimizer, s, config.steps))) for s in range(3)]
print(json.dumps([values.tolist() for values in losses]))
"""


@pytest.mark.timeout(400)
def test_both_backends_have_the_same_first_losses(eager, full):
    if find_spec("jax") is None:
        pytest.skip("jax is not installed")
    from dwarf_ros.network.presets import PRESETS

    values = full()
    config = parse_config(values)
    items = TrainingItems(config.data)
    learner = make_learner(make_model(config), config, find_devices())
    here = [learn(learner, config, make_batch(config, items, s), s) for s in range(3)]

    other = "tensorflow" if keras.backend.backend() == "jax" else "jax"
    answer = subprocess.run(
        [sys.executable, "-c", _LOSSES],
        input=json.dumps([values, vars(PRESETS["tiny"])]),
        env={
            **os.environ,
            "KERAS_BACKEND": other,
            "JAX_PLATFORMS": "cpu",
            # Two devices, each with half of the batch.
            "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=2",
        },
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    there = json.loads(answer.stdout.splitlines()[-1])
    assert np.array(there) == pytest.approx(np.array(here), rel=2e-5)
