"""Labels of two sources: their mean where they agree, the first elsewhere."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dwarf_ros.inference.fusion import AGREEMENT, mean_where_they_agree, with_classical_disparity
from dwarf_ros.samples import Maps
from dwarf_ros.types import StereoFrame


@given(st.floats(1, 200, width=32), st.floats(-5, 5, width=32))
def test_a_value_stays_between_those_that_agree(value, difference):
    first, second = np.float32([value]), np.float32([value + difference])
    fused = mean_where_they_agree(first, second)
    agrees = abs(second - first)[0] <= AGREEMENT
    assert fused == ((first + second) / 2 if agrees else first)


def test_what_is_unknown_stays_unknown_and_what_is_missing_is_kept():
    fused = mean_where_they_agree(np.float32([np.nan, 4]), np.float32([4, np.nan]))
    assert np.isnan(fused[0])
    assert fused[1] == 4


def test_disparities_of_both_times_are_averaged():
    texture = np.random.default_rng(0).integers(0, 256, (160, 400, 3), np.uint8)
    frame = StereoFrame(texture[:, :384], texture[:, 12:396])
    size = (160, 384)
    flow = np.zeros((*size, 2), np.float32)
    labels = Maps(np.full(size, 12.5, np.float32), np.full(size, 12.5, np.float32), flow)
    fused = with_classical_disparity(labels, frame, frame)
    inside = np.s_[20:-20, 100:-20]
    assert np.abs(np.median(fused.disparity[inside]) - 12.25) < 0.05
    assert np.abs(np.median(fused.disparity_next[inside]) - 12.25) < 0.05
    assert fused.flow is labels.flow
