"""Error maps; `test/evaluation/kitti/test_rules.py` compares them with the development kit."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.types import InputError
from dwarf_ros.visualization.error_maps import (
    ERROR_COLORS,
    disparity_severity,
    flow_severity,
    paint_errors,
)


def test_severity_is_one_at_3_px_or_5_percent():
    truth = np.array([[10.0, 60.0, 100.0, np.nan]], np.float32)
    errors = np.array([[3.0, 3.0, 5.0, 1.0]], np.float32)
    severity = disparity_severity(truth + errors, truth)
    np.testing.assert_allclose(severity[0, :3], 1.0, rtol=1e-6)
    assert np.isnan(severity[0, 3])
    flow = np.dstack([truth, np.zeros_like(truth)])
    along = np.dstack([errors, np.zeros_like(errors)])
    np.testing.assert_allclose(flow_severity(flow + along, flow), severity, rtol=1e-6)


def test_occluded_pixels_are_darkened():
    severity = np.full((3, 7), 100.0, np.float32)
    known = np.zeros((3, 7), bool)
    known[1, [1, 5]] = True
    visible = known.copy()
    visible[1, 5] = False
    image = paint_errors(severity, known, visible)
    assert (image[:, :3] == ERROR_COLORS[-1]).all()
    assert (image[:, 4:] == ERROR_COLORS[-1] // 2).all()
    assert not image[:, 3].any()
    with pytest.raises(InputError, match="expected one shape"):
        paint_errors(severity, known, visible[:2])
