"""The bank of textures: the same for the same arguments, mirrored, filtered, and fed by photos."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.formats import write_image
from dwarf_ros.synthetic import textures
from dwarf_ros.synthetic.painting import KINDS, SIZE
from dwarf_ros.synthetic.textures import PERIOD, photo_files, street_bank, texture_bank
from dwarf_ros.types import InputError


def fetch(bank, s, t, length=0.5, across=0.5, texture=0):
    s = np.atleast_1d(np.asarray(s, np.float32))
    full = np.ones(s.shape, np.float32)
    values = [value / PERIOD for value in (s, full * t, full * length, full * 0)]
    return bank.fetch(full * texture, *values, full * length * across / PERIOD**2)[:, :3]


def test_the_same_arguments_give_the_same_texels():
    first = texture_bank.__wrapped__(3, 4)
    second = texture_bank.__wrapped__(3, 4)
    assert (first.texels == second.texels).all()
    assert (first.texels != texture_bank.__wrapped__(4, 4).texels).any()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_paints_a_whole_texture_with_contrast(kind):
    texture = kind(np.random.default_rng(1))
    assert texture.shape == (SIZE, SIZE, 3)
    assert texture.dtype == np.uint8
    assert texture.std() > 1
    assert (texture != kind(np.random.default_rng(2))).any()


def test_texels_are_found_where_they_are_and_mirrored_beyond():
    bank = texture_bank(0, 2)
    s = np.arange(SIZE) + 0.5
    for texture in (0, 1):
        row = bank.texels[texture * (SIZE + 2) + 1 + 100, 1 : SIZE + 1, :3]
        # The first level only for footprints of no more than a texel.
        found = fetch(bank, s, 100.5, 0.6, 0.6, texture)
        assert np.abs(found - row).max() <= 1
        for shifted in (-s, 2 * SIZE - s, 2 * SIZE + s, s - 4 * SIZE):
            assert np.abs(fetch(bank, shifted, 100.5, 0.6, 0.6, texture) - row).max() <= 1


def test_wide_footprints_see_means():
    bank = texture_bank(0, 2)
    s = np.linspace(0, SIZE, 50)
    strip = bank.texels[1 : SIZE + 1, 1 : SIZE + 1, :3].astype(float)
    assert np.abs(fetch(bank, s, 200.0, 4000.0, 4000.0) - strip.mean(axis=(0, 1))).max() < 40
    spread = [fetch(bank, s, 200.0, size, size).std(axis=0).mean() for size in (1, 30, 200)]
    assert spread[0] > spread[1] > spread[2]
    # Drawn out along s alone: what differs down the texture is kept, what differs across is not.
    down = np.concatenate([fetch(bank, 190.0, t, 64.0, 1.0) for t in np.arange(20, 360, 5.0)])
    expected = np.stack(
        [strip[int(t) - 1 : int(t) + 1, 158:222].mean(axis=(0, 1)) for t in np.arange(20, 360, 5.0)]
    )
    assert np.corrcoef(down[:, 1], expected[:, 1])[0, 1] > 0.9


def test_street_textures_are_alike_in_brightness_and_contrast():
    bank = street_bank()
    assert bank.kinds[-1] == "sky"
    for texture in range(bank.count - 1):
        strip = bank.texels[texture * (SIZE + 2) + 1 :][:SIZE, 1 : SIZE + 1, :3].astype(float)
        assert abs(strip.mean() - 128) < 6
        assert 30 < strip.std() < 42


def test_photos_of_a_folder_are_used(tmp_path):
    (tmp_path / "deeper").mkdir()
    write_image(tmp_path / "deeper" / "red.png", np.full((40, 60, 3), (250, 3, 5), np.uint8))
    (tmp_path / "damaged.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("no photo")
    assert [file.name for file in photo_files(tmp_path)] == ["damaged.png", "red.png"]
    bank = texture_bank(0, 4, tmp_path)
    red = [np.abs(mean - (250, 3, 5)).max() < 1 for mean in bank.mean]
    assert red == [True, False, True, False]
    assert [kind == "photo" for kind in bank.kinds] == red


def test_photos_that_are_not_there_are_reported(tmp_path):
    with pytest.raises(InputError, match="holds no image"):
        texture_bank(0, 2, tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        texture_bank(0, 2, tmp_path / "none")
    (tmp_path / "small.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"small\.png"):
        texture_bank(0, 2, tmp_path)
    with pytest.raises(InputError, match="textures: 0, expected 1 to 80"):
        texture_bank(0, 0)


def test_photos_of_scikit_image():
    pytest.importorskip("skimage")
    assert len(photo_files(textures.SCIKIT_IMAGE)) > 5


def test_scikit_image_that_is_not_installed_is_reported(monkeypatch):
    monkeypatch.setattr(textures.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="scikit-image is not installed"):
        photo_files(textures.SCIKIT_IMAGE)
