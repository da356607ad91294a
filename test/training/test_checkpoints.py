from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from dwarf_ros.training.checkpoints import (
    TrainingState,
    find_checkpoints,
    read_state,
    restore,
    write_checkpoint,
)
from dwarf_ros.types import InputError

CONFIG = {"steps": 5, "loss": {"level_weights": {"6": 0.3}}}


def small_model(seed, width=2):
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 3))
    answer = keras.layers.Conv2D(width, 3, name="Encoder.level_1.Conv")(image)
    model = keras.Model(image, answer)
    model.compile(keras.optimizers.Adam(use_ema=True), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def values(model):
    variables = (*model.variables, *model.optimizer.variables)
    return [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]


def test_weights_and_optimiser_come_back(tmp_path):
    model = small_model(0)
    rng = np.random.default_rng(0)
    for variable in model.optimizer.variables:
        variable.assign(rng.integers(1, 9, variable.shape).astype(variable.dtype))
    state = TrainingState(7, CONFIG, 1.5)
    file = write_checkpoint(tmp_path / "new", model, model.optimizer, state, keep=1)
    assert file.name == "step-00000007.safetensors"
    other = small_model(1)
    assert not np.array_equal(values(other)[0], values(model)[0])
    assert restore(file, other, other.optimizer) == state == read_state(file)
    assert all(map(np.array_equal, values(other), values(model)))


def test_the_last_are_kept_in_order_of_their_steps(tmp_path):
    model = small_model(0)
    (tmp_path / "notes.txt").touch()
    for step in (9, 20, 100):
        state = TrainingState(step, CONFIG)
        write_checkpoint(tmp_path, model, model.optimizer, state, keep=2)
    names = [file.name for file in find_checkpoints(tmp_path)]
    assert names == ["step-00000020.safetensors", "step-00000100.safetensors"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes.txt", *names]
    assert find_checkpoints(tmp_path / "nowhere") == []


def test_a_checkpoint_that_cannot_be_written_leaves_those_before_it(tmp_path, monkeypatch):
    model = small_model(0)
    first = write_checkpoint(tmp_path, model, model.optimizer, TrainingState(1, CONFIG), keep=1)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_checkpoint(tmp_path, model, model.optimizer, TrainingState(2, CONFIG), keep=1)
    assert list(tmp_path.iterdir()) == [first]


def test_what_does_not_fit_is_refused(tmp_path):
    model = small_model(0)
    file = write_checkpoint(tmp_path, model, model.optimizer, TrainingState(1, CONFIG), keep=1)
    wider = small_model(0, width=3)
    with pytest.raises(
        InputError, match=re.escape("has shape (3, 3, 3, 2), expected (3, 3, 3, 3)")
    ):
        restore(file, wider, wider.optimizer)
    plain = small_model(0)
    with pytest.raises(InputError, match=r"tensor optimizer/\d{4} is unknown to this training"):
        restore(file, plain, keras.optimizers.SGD())


@pytest.mark.parametrize("damage", ["short", "noise", "foreign"])
def test_damaged_files_are_refused(tmp_path, damage):
    from safetensors.numpy import save

    model = small_model(0)
    file = write_checkpoint(tmp_path, model, model.optimizer, TrainingState(1, CONFIG), keep=1)
    whole = file.read_bytes()
    noise = np.random.default_rng(0).bytes(500)
    foreign = save({"a": np.zeros(2)})
    file.write_bytes({"short": whole[:-9], "noise": noise, "foreign": foreign}[damage])
    with pytest.raises(InputError, match=re.escape(str(file))) as refused:
        read_state(file)
    assert "\n" not in str(refused.value)
