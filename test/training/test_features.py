"""Distillation of features: what is cached, cropped and learned; the teacher itself is not needed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dwarf_ros.formats import write_image
from dwarf_ros.training.features import FeatureImages, FeatureItem, cropped
from dwarf_ros.types import InputError


def cached_images(root, cache, count=2, height=70, width=140):
    """Images, and features of a teacher that sees only where a cell is."""
    for index in range(count):
        name = f"{index}.png"
        image = np.random.default_rng(index).integers(0, 256, (height, width, 3), np.uint8)
        write_image(root / name, image)
        rows, columns = height // 16, width // 16
        maps = {}
        for key, factor in (("eighth", 2), ("sixteenth", 1)):
            place = np.indices((factor * rows, factor * columns)) // factor
            maps[key] = np.repeat(np.moveaxis(place, 0, -1), 64, axis=-1).astype(np.float16)
        cache.mkdir(exist_ok=True)
        np.savez(cache / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.npz", **maps)


def test_cached_features_are_read(tmp_path):
    (tmp_path / "images").mkdir()
    cached_images(tmp_path / "images", tmp_path / "cache")
    images = FeatureImages(tmp_path / "images", tmp_path / "no.pkl", tmp_path / "cache")
    assert len(images) == 2
    item = images.item(1)
    assert item.image.shape == (64, 128, 3)
    assert item.eighth.shape == (8, 16, 128)
    assert item.sixteenth.shape == (4, 8, 128)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        FeatureImages(tmp_path, tmp_path / "no.pkl", tmp_path)


def test_a_crop_cuts_features_where_it_cuts_the_image():
    place = np.indices((96, 160))
    image = np.stack([place[0] // 16, place[1] // 16, place[0] * 0], axis=-1).astype(np.uint8)
    sixteenth = image[::16, ::16].astype(np.float16)
    eighth = image[::8, ::8].astype(np.float16)
    crop = cropped(FeatureItem(image, eighth, sixteenth), 64, 96, np.random.default_rng(2))
    assert crop.image.shape == (64, 96, 3)
    assert (crop.image[::16, ::16] == crop.sixteenth).all()
    assert (crop.image[::8, ::8] == crop.eighth).all()
    assert cropped(FeatureItem(image, eighth, sixteenth), 128, 96, np.random.default_rng(2)) is None


def test_a_short_training_brings_features_closer(tmp_path):
    from dwarf_ros.training.config import parse_config
    from dwarf_ros.training.trainer import train

    (tmp_path / "images").mkdir()
    cached_images(tmp_path / "images", tmp_path / "cache", count=4)
    (tmp_path / "teacher.pkl").touch()
    config = parse_config(
        {
            "preset": "dwarf_lite_v2",
            "steps": 4,
            "batch_size": 1,
            "data": {
                "source": "images",
                "root": str(tmp_path / "images"),
                "teacher": str(tmp_path / "teacher.pkl"),
                "cache": str(tmp_path / "cache"),
            },
            "augmentation": {"height": 64, "width": 128, "exposure": [0.5, 1.5], "blur": 1.0},
            "loss": {"kind": "features"},
            "optimizer": {"learning_rate": 3e-3},
        }
    )
    outcome = train(config, tmp_path / "out")
    assert outcome.finished
    assert outcome.weights is not None
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    import json

    losses = [record["loss"] for record in map(json.loads, lines) if "loss" in record]
    assert losses[-1] < losses[0]
