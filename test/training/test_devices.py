from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import pytest

from dwarf_ros.network.codec import encode
from dwarf_ros.network.presets import PRESETS
from dwarf_ros.training.config import parse_config
from dwarf_ros.training.devices import TensorFlowDevices, check_share, find_devices, inputs
from dwarf_ros.training.trainer import train
from dwarf_ros.types import InputError

TIME_LIMIT = 300
"""Seconds for processes that run beside others."""

_TRAIN = """
import json, os, signal, sys
from pathlib import Path
told = json.load(sys.stdin)
from dwarf_ros.network.presets import PRESETS, Preset
PRESETS["tiny"] = Preset(**{k: tuple(v) if isinstance(v, list) else v for k, v in told["preset"].items()})
if told["devices"] > 1:
    import tensorflow as tf
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * told["devices"])
    tf.config.run_functions_eagerly(True)
from dwarf_ros.training.config import parse_config
from dwarf_ros.training.trainer import train
told["values"]["loss"]["level_weights"] = {int(k): v for k, v in told["values"]["loss"]["level_weights"].items()}
def progress(done, total):
    if done == told["interrupt"]:
        os.kill(os.getpid(), signal.SIGTERM)
out = Path(told["out"])
outcome = train(parse_config(told["values"]), out, told["resume"], progress)
print(json.dumps([outcome.step, outcome.finished, outcome.weights is not None]))
"""


class Processes:
    """Processes of the TensorFlow backend that train; all have ended when the block is left."""

    def __init__(self):
        self._stack = ExitStack()

    def __enter__(self):
        self._stack.__enter__()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def start(self, values, out, devices=1, interrupt=None, resume=False, **environment):
        process = subprocess.Popen(
            [sys.executable, "-c", _TRAIN],
            env={
                **os.environ,
                "KERAS_BACKEND": "tensorflow",
                "CUDA_VISIBLE_DEVICES": "",
                **environment,
            },
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        told = {
            "values": values,
            "preset": vars(PRESETS["tiny"]),
            "out": str(out),
            "devices": devices,
            "interrupt": interrupt,
            "resume": resume,
        }
        process.stdin.write(json.dumps(told))
        process.stdin.close()
        process.stdin = None
        return process

    def start_cluster(self, values, out, processes=2, **options):
        """Of the first process alone `interrupt` is heeded."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(processes)]
            for opened in sockets:
                opened.bind(("127.0.0.1", 0))
            workers = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]
        started = []
        for index in range(processes):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": workers}, "task": task})
            started.append(self.start(values, out, TF_CONFIG=config, **options))
            options.pop("interrupt", None)
        return started


def answer(process):
    out, error = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0, error[-3000:]
    return json.loads(out.splitlines()[-1])


def curve(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def run(values, out, **options):
    return train(parse_config(values), out, **options)


def interrupt_at(step):
    def progress(done, total):
        if done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return progress


@pytest.fixture
def eager():
    """Without compiling, which takes longer than the few steps of a test."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.distribute is TensorFlow's")
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.timeout(2 * TIME_LIMIT)
def test_processes_and_local_devices_learn_as_one_device(eager, settings, tmp_path):
    """One process begins a training, two go on until one of them is told to stop, and one ends it."""
    values = settings(
        steps=10,
        batch_size=4,
        optimizer={"learning_rate": 2e-4, "clip_norm": 1.0, "ema": 0.5, "weight_decay": 1e-4},
        checkpoints={"every": 100},
    )
    one, two, local = (tmp_path / name for name in ("one", "two", "local"))
    assert run(values, two, progress=interrupt_at(1)).step == 1
    with Processes() as processes:
        cluster = processes.start_cluster(values, two, interrupt=8, resume=True)
        devices = processes.start(values, local, devices=2, interrupt=3)
        run(values, one)
        assert answer(devices) == [3, False, False]
        ended = [answer(process) for process in cluster]
    # What the first was told before a step the other hears of in it.
    assert ended in ([[9, False, False]] * 2, [[10, True, True], [10, True, False]])
    assert run(values, two, resume=True).finished
    expected = curve(one)
    assert len(expected) == 10
    for out, steps in ((two, 10), (local, 3)):
        found = curve(out)
        assert list(found) == list(expected)[:steps]
        differences = [abs(loss / expected[step] - 1) for step, loss in found.items()]
        assert max(differences) < 1e-4, differences


def test_a_batch_is_split_evenly():
    devices = find_devices()
    check_share(3 * devices.replicas, devices)
    devices.replicas = 2
    with pytest.raises(
        InputError, match=r"^batch_size: got 3, expected a multiple of the 2 devices"
    ):
        check_share(3, devices)


@pytest.mark.parametrize(
    "told",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
    ],
)
def test_machines_that_are_told_wrongly_are_refused(told, monkeypatch):
    pytest.importorskip("tensorflow", reason="TF_CONFIG is TensorFlow's")
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(
        InputError, match=f"^TF_CONFIG: got {re.escape(repr(told))}, expected such as "
    ):
        TensorFlowDevices()


def test_images_are_scaled_as_the_network_takes_them():
    images = np.arange(4 * 64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(1, 4, 64, 64, 3)
    scaled = inputs(images)
    assert list(scaled) == ["left_t0", "right_t0", "left_t1", "right_t1"]
    for name, values in encode(images).items():
        assert np.allclose(keras.ops.convert_to_numpy(scaled[name]), values, rtol=1e-7), name
