"""Sensor effects: what they change, how much, and what they leave alone."""

from __future__ import annotations

import numpy as np

from dwarf_ros.synthetic.sensor import _desaturated, _shifted, sensor_effects


def images(value=128):
    y, x = np.mgrid[:96, :128]
    pattern = value + 60 * np.sin(x / 7) * np.cos(y / 5)
    return [np.repeat(pattern[..., None], 3, axis=2).astype(np.uint8)] * 4


def test_no_strength_changes_nothing():
    before = images()
    after = sensor_effects(before, np.random.default_rng(0), 0)
    assert all((a == b).all() for a, b in zip(after, before, strict=True))


def test_the_same_draw_gives_the_same_images_and_inputs_stay_as_they_are():
    before = images()
    kept = before[0].copy()
    first, second = (sensor_effects(before, np.random.default_rng(5)) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (before[0] == kept).all()
    assert [image.dtype for image in first] == [np.uint8] * 4


def test_images_of_a_sample_differ_less_than_samples_do():
    means = []
    for seed in range(40):
        after = sensor_effects(images(), np.random.default_rng(seed))
        means.append([image.mean(axis=(0, 1)) for image in after])
    means = np.array(means)
    between_samples = means.mean(axis=(1, 2)).std()
    between_images = means.mean(axis=2).std(axis=1).mean()
    between_colors = means.std(axis=2).mean()
    assert between_samples > 10
    assert 0.5 < between_images < 0.6 * between_samples
    assert between_colors > 2


def test_noise_is_every_images_own():
    flat = [np.full((96, 128, 3), 128, np.uint8)] * 4
    spreads = []
    for seed in range(12):
        after = [i.astype(float) for i in sensor_effects(flat, np.random.default_rng(seed))]
        noise = [image - np.mean(image, axis=(0, 1)) for image in after]
        # Vignetting is smooth: it goes with the difference of neighbours.
        noise = [np.diff(n, axis=1) / np.sqrt(2) for n in noise]
        spreads.append(np.std(noise[0]))
        if spreads[-1] > 1:
            assert abs(np.corrcoef(noise[0].ravel(), noise[2].ravel())[0, 1]) < 0.1
    assert max(spreads) > 2
    assert min(spreads) < 1.5


def test_only_right_images_are_shifted_down():
    y = np.arange(96, dtype=float)[:, None]
    ramp = np.repeat((2 * y + 20 + np.zeros((96, 128)))[..., None], 3, axis=2).astype(np.uint8)
    moved = _shifted(ramp, 1.0, 0.0)
    assert (moved[3:] == ramp[2:-1]).all()
    half = _shifted(ramp, 0.5, 0.0)
    assert np.abs(half[5:-5].astype(float) - (ramp[5:-5] - 1.0)).max() <= 1


def test_colors_are_drawn_to_gray_of_the_same_brightness():
    colors = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    brightness = colors @ np.array([0.299, 0.587, 0.114])
    faint, none = (_desaturated(colors, saturation).astype(float) for saturation in (0.5, 0.0))
    assert np.abs(faint - (colors + brightness[..., None]) / 2).max() <= 1
    assert np.abs(none - brightness[..., None]).max() <= 1
    samples = [
        sensor_effects([colors] * 4, np.random.default_rng(seed))[0].astype(float)
        for seed in range(40)
    ]
    # Noise is each channel's own, so that the channels' correlation tells.
    gray = [
        np.corrcoef(image[..., 0].ravel(), image[..., 2].ravel())[0, 1] > 0.9 for image in samples
    ]
    assert 5 < sum(gray) < 30
