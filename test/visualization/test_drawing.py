"""The arrangement of pictures."""

from __future__ import annotations

import numpy as np

from dwarf_ros.visualization.drawing import side_by_side, stacked


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
