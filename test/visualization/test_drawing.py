"""The arrangement of pictures."""

from __future__ import annotations

import numpy as np

from dwarf_ros.visualization.drawing import over_dimmed, side_by_side, stacked


def test_pictures_join_without_loss():
    tall = np.full((30, 10, 3), 200, dtype=np.uint8)
    wide = np.full((10, 40, 3), 100, dtype=np.uint8)
    row = side_by_side([tall, wide], gap=5)
    assert row.shape == (30, 55, 3)
    assert np.array_equal(row[:, :10], tall)
    assert np.array_equal(row[:10, 15:], wide)
    column = stacked([tall, wide], gap=5)
    assert column.shape == (45, 40, 3)
    assert np.array_equal(column[35:], wide)


def test_unknown_pixels_show_the_dimmed_image():
    picture = np.full((4, 6, 3), (200, 10, 10), dtype=np.uint8)
    image = np.full((4, 6, 3), 100, dtype=np.uint8)
    known = np.zeros((4, 6), dtype=bool)
    known[:, :3] = True
    shown = over_dimmed(picture, known, image)
    assert (shown[:, :3] == (200, 10, 10)).all()
    assert (shown[:, 3:] == 30).all()
    assert over_dimmed(picture, known, None) is picture
    assert over_dimmed(picture, known, image[:2]) is picture
