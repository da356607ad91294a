from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from dwarf_ros.datasets.augmentation import make_item
from dwarf_ros.network.codec import SIGNS
from dwarf_ros.training.config import parse_config
from dwarf_ros.training.data import (
    DriveSamples,
    TrainingItems,
    check_batch_size,
    make_batch,
    open_batches,
)
from dwarf_ros.types import InputError


def same(a, b):
    return np.array_equal(a.images, b.images) and np.array_equal(a.truth, b.truth, equal_nan=True)


def test_a_batch_is_a_function_of_its_step(settings):
    config = parse_config(settings())
    items = TrainingItems(config.data)
    first = make_batch(config, items, 3)
    make_batch(config, items, 0)
    assert same(make_batch(config, TrainingItems(config.data), 3), first)
    assert not same(make_batch(config, items, 4), first)


def test_each_pass_takes_every_sample_once_in_an_order_of_its_own(settings):
    plain = {"zoom_probability": 0, "photometric_probability": 0, "flip_probability": 0}
    config = parse_config(settings(augmentation=plain))
    items = TrainingItems(config.data)
    orders = []
    for turn in range(4):
        batches = [make_batch(config, items, 2 * turn + half) for half in (0, 1)]
        orders.append([truth[0, 0, 0] for batch in batches for truth in batch.truth])
    assert all(sorted(order) == [-8, -7, -6, -5] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_disparities_are_negative_for_the_network_and_flow_is_as_it_was(settings):
    plain = {"zoom_probability": 0, "photometric_probability": 0, "flip_probability": 0}
    config = parse_config(settings(augmentation=plain))
    batch = make_batch(config, TrainingItems(config.data), 0)
    disparity, disparity_change, u, v = batch.truth[0, 0, 0]
    assert (disparity_change, u, v) == (disparity - 1, 3, -1)
    assert disparity < 0
    assert (batch.truth * SIGNS)[0, 0, 0].tolist() == [-disparity, -disparity_change, 3, -1]


def test_workers_make_the_same_batches_even_if_one_is_killed(settings):
    config = parse_config(settings(workers=1))
    items = TrainingItems(config.data)
    with open_batches(config, items, 1) as batches:
        made = [next(batches)]
        (worker,) = children()
        os.kill(worker, signal.SIGKILL)
        replacements = set()
        for batch in batches:
            made.append(batch)
            replacements |= set(children()) - {worker}
    assert replacements
    assert len(made) == 5
    for step, batch in enumerate(made, start=1):
        assert same(batch, make_batch(config, items, step))


def test_an_unreadable_sample_is_named_by_the_worker(settings, rendered, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in rendered.iterdir():
        (copy / part.name).symlink_to(part)
    (copy / "disparity").unlink()
    (copy / "disparity" / "left").mkdir(parents=True)
    for file in (rendered / "disparity" / "left").iterdir():
        (copy / "disparity" / "left" / file.name).write_bytes(b"Pf\n")
    config = parse_config(settings(workers=1, data={"root": str(copy)}))
    items = TrainingItems(config.data)
    with (
        open_batches(config, items, 0) as batches,
        pytest.raises(InputError, match=r"copy/disparity/left/000000\d\.pfm"),
    ):
        next(batches)


def test_a_batch_larger_than_the_data_set_is_refused(settings):
    config = parse_config(settings(batch_size=5))
    with pytest.raises(
        InputError, match=r"^batch_size: got 5, expected no more than the 4 samples of data$"
    ):
        check_batch_size(config, TrainingItems(config.data))


def test_the_first_samples_alone_can_be_asked_for(settings):
    config = parse_config(settings(data={"count": 3}))
    assert len(TrainingItems(config.data)) == 3


def test_a_folder_of_another_layout_is_named_with_its_key(settings, tmp_path):
    config = parse_config(settings(data={"root": str(tmp_path)}))
    with pytest.raises(InputError, match=r"^data: .*expected"):
        TrainingItems(config.data)


def test_drives_are_made_anew_alike_and_hide_nothing_in_occ():
    samples = DriveSamples(7, 2, 64, 128)
    sample, again = samples[1], samples[1]
    assert len(samples) == 2
    assert np.array_equal(sample.current.right, again.current.right)
    occ, noc = sample.ground_truth.occ, sample.ground_truth.noc
    assert np.isfinite(occ.flow).sum() > np.isfinite(noc.flow).sum() > 0
    assert make_item(sample).truth.shape == (64, 128, 4)
    with pytest.raises(IndexError):
        samples[2]


def test_a_drive_gives_its_pairs_of_frames_in_both_directions():
    samples = DriveSamples(3, 6, 64, 128, frames=3, vary_cameras=True)
    names = [samples[index].name for index in range(6)]
    assert names[:4] == [f"drive_000003_{pair}" for pair in ("0_1", "1_0", "1_2", "2_1")]
    assert names[4:] == ["drive_000004_0_1", "drive_000004_1_0"]
    forward, backward = samples[0], samples[1]
    assert np.array_equal(forward.previous.left, backward.current.left)
    assert np.array_equal(forward.current.right, backward.previous.right)
    assert forward.previous.camera == backward.previous.camera
    assert forward.previous.camera != samples[4].previous.camera
    # What is ahead comes nearer forwards in time and goes away backwards.
    growth = [s.ground_truth.occ.disparity_next - s.ground_truth.occ.disparity for s in (forward, backward)]  # fmt: skip
    assert np.nanmedian(growth[0]) > 0 > np.nanmedian(growth[1])


def test_sources_follow_one_another(settings, rendered):
    folder = {"source": "flyingthings3d", "root": str(rendered)}
    both = parse_config(settings(data=[folder, {**folder, "count": 2, "repeat": 2}]))
    items = TrainingItems(both.data)
    assert len(items) == 8
    for index, same_as in ((4, 0), (5, 1), (6, 0), (7, 1)):
        assert np.array_equal(items[index].truth, items[same_as].truth, equal_nan=True)
        assert not np.array_equal(items[index].truth, items[3].truth, equal_nan=True)
    with pytest.raises(InputError, match=r"^data\[1\]: .*expected"):
        TrainingItems(parse_config(settings(data=[folder, {**folder, "root": str(rendered / "image_clean")}])).data)  # fmt: skip


def children():
    """Processes of this one that make batches."""
    import multiprocessing

    return [p.pid for p in multiprocessing.active_children()]


def test_cached_samples_are_rendered_once_and_damage_is_mended(settings, tmp_path):
    data = {"source": "procedural", "count": 3, "height": 64, "width": 96}
    plain = parse_config(settings(data=[data]))
    expected = make_batch(plain, TrainingItems(plain.data), 0)
    cache = tmp_path / "scenes"
    config = parse_config(settings(data=[{**data, "cache": str(cache)}]))
    assert same(make_batch(config, TrainingItems(config.data), 0), expected)
    files = sorted(cache.glob("*.npz"))
    assert len(files) == config.batch_size
    before = [file.stat().st_mtime_ns for file in files]
    assert same(make_batch(config, TrainingItems(config.data), 0), expected)
    assert [file.stat().st_mtime_ns for file in files] == before
    files[0].write_bytes(files[0].read_bytes()[:1000])
    assert same(make_batch(config, TrainingItems(config.data), 0), expected)


def test_a_cache_of_other_samples_is_refused(settings, tmp_path):
    data = {"source": "procedural", "count": 3, "height": 64, "width": 96}
    for seed, count in ((1, 3), (1, 5)):
        values = {**data, "seed": seed, "count": count, "cache": str(tmp_path)}
        TrainingItems(parse_config(settings(data=[values])).data)
    with pytest.raises(
        InputError, match=r"cache: .* holds samples of .*seed=1.*, expected .*seed=2"
    ):
        TrainingItems(
            parse_config(settings(data=[{**data, "seed": 2, "cache": str(tmp_path)}])).data
        )
