import math
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwarf_ros.metrics import (
    MotionErrors,
    PixelErrors,
    area_under_sparsification,
    disparity_error,
    disparity_errors,
    disparity_outliers,
    end_point_error,
    errors_by_band,
    flow_errors,
    flow_outliers,
    motion_errors,
    motion_outliers,
)
from dwarf_ros.types import InputError

NAN = np.nan
quick = settings(derandomize=True, deadline=None, max_examples=40)


def array(*values):
    return np.array(values, dtype=np.float32)


def vectors(count, length, bound=100):
    numbers = st.floats(-bound, bound, width=32) | st.just(NAN)
    return hnp.arrays(np.float32, (count, length), elements=numbers)


def test_end_point_error_is_the_euclidean_distance():
    flow = array([3, 4], [0, 0], [NAN, 1])
    np.testing.assert_array_equal(end_point_error(flow, np.zeros_like(flow)), array(5, 0, NAN))
    motion = array([1, 2, 2])
    np.testing.assert_array_equal(end_point_error(motion, -motion), array(6))


def test_disparity_error_is_absolute_and_nan_where_either_is_unknown():
    error = disparity_error(array(1, 5, NAN, 2), array(3, 4, 1, NAN))
    np.testing.assert_array_equal(error, array(2, 1, NAN, NAN))


@pytest.mark.parametrize(
    ("truth", "estimate", "outlier"),
    [
        (10, 13, False),  # exactly 3 px
        (10, 13.01, True),
        (10, 6.99, True),
        (100, 104.9, False),  # 4.9 %
        (100, 105, True),  # 5 %: the development kit's single-precision quotient is above its 0.05
        (100, 95, True),
        (100, 105.1, True),
        (0.5, 3.5, False),
        (0.5, 3.6, True),
        (10, NAN, True),
        (NAN, 10, False),
        (NAN, NAN, False),
    ],
)
def test_disparity_outlier_needs_3_px_and_5_per_cent(truth, estimate, outlier):
    assert disparity_outliers(array(estimate), array(truth)).tolist() == [outlier]


@pytest.mark.parametrize(
    ("truth", "estimate", "outlier"),
    [
        ([0, 0], [0, 3], False),
        ([0, 0], [0, 3.01], True),  # no relative test where nothing moves
        ([60, 80], [60, 84.9], False),
        ([60, 80], [60, 85.1], True),
        ([3, 4], [6, 8], True),
        ([3, 4], [NAN, 8], True),
        ([NAN, NAN], [6, 8], False),
    ],
)
def test_flow_outlier_needs_3_px_and_5_per_cent_of_its_length(truth, estimate, outlier):
    assert flow_outliers(array(estimate), array(truth)).item() is outlier


def test_pixel_errors_count_strictly_above_and_leave_out_the_unknown():
    truth = np.full(8, 50, dtype=np.float32)
    truth[7] = NAN
    errors = disparity_errors(truth + array(0, 1, 1.5, 3, 3.5, 6, NAN, 0), truth)
    assert errors == PixelErrors(
        total=15.0, over_1=4, over_3=2, over_5=1, outliers=2, pixels=6, missing=1
    )
    assert errors.mean == pytest.approx(2.5)
    assert errors.rate_1 == pytest.approx(100 * 4 / 6)
    assert errors.rate_3 == pytest.approx(100 * 2 / 6)
    assert errors.rate_5 == pytest.approx(100 / 6)
    assert errors.outlier_rate == pytest.approx(100 * 2 / 6)
    assert errors.density == pytest.approx(100 * 6 / 7)


def test_flow_errors_of_a_known_shift():
    truth = np.zeros((4, 5, 2), dtype=np.float32)
    errors = flow_errors(truth + array(3, 4), truth)
    assert (errors.mean, errors.rate_3, errors.rate_5, errors.pixels) == (5.0, 100.0, 0.0, 20)


def test_nothing_to_count_is_nan_not_zero():
    empty = np.full((2, 3), NAN, dtype=np.float32)
    errors = disparity_errors(empty, empty)
    assert errors == PixelErrors()
    assert math.isnan(errors.mean)
    assert math.isnan(errors.outlier_rate)
    assert math.isnan(MotionErrors().accuracy_strict)


@pytest.mark.parametrize(
    ("truth_m", "error_m", "strict", "relaxed", "outlier"),
    [
        (0.1, 0.04, True, True, True),  # 4 cm, but 40 %
        (2.0, 0.09, True, True, False),  # 9 cm, but 4.5 %
        (0.5, 0.09, False, True, True),
        (1.2, 0.11, False, True, False),
        (0.0, 0.06, False, True, True),
        (1.0, 0.2, False, False, True),
        (10.0, 0.4, True, True, True),  # 4 %, but 40 cm
    ],
)
def test_motion_accuracy_takes_the_kinder_and_outliers_the_harsher_of_metre_and_per_cent(
    truth_m, error_m, strict, relaxed, outlier
):
    truth = array([0, 0, truth_m])
    errors = motion_errors(truth + array(error_m, 0, 0), truth)
    assert (errors.strict, errors.relaxed, errors.outliers) == (strict, relaxed, outlier)
    assert errors.mean == pytest.approx(error_m, rel=1e-5)
    assert errors.points == 1


@quick
@given(data=st.data())
def test_counts_of_parts_add_up_to_the_counts_of_the_whole(data):
    count = data.draw(st.integers(2, 20))
    cut = data.draw(st.integers(0, count))
    for function, length in ((flow_errors, 2), (motion_errors, 3)):
        estimate = data.draw(vectors(count, length))
        truth = data.draw(vectors(count, length))
        whole = function(estimate, truth)
        parts = function(estimate[:cut], truth[:cut]) + function(estimate[cut:], truth[cut:])
        assert astuple(parts)[1:] == astuple(whole)[1:]
        assert parts.total == pytest.approx(whole.total)


@quick
@given(estimate=vectors(12, 2), truth=vectors(12, 2))
def test_errors_are_ordered_and_bounded(estimate, truth):
    errors = flow_errors(estimate, truth)
    assert errors.over_5 <= errors.over_3 <= errors.over_1 <= errors.pixels
    assert errors.outliers <= errors.over_3
    assert errors.pixels + errors.missing == np.count_nonzero(np.isfinite(truth).all(axis=1))
    exchanged = flow_errors(truth, estimate)
    assert exchanged.total == pytest.approx(errors.total)


@quick
@given(truth=vectors(12, 3))
def test_the_truth_itself_has_no_error(truth):
    errors = motion_errors(truth, truth)
    known = np.count_nonzero(np.isfinite(truth).all(axis=1))
    assert errors == MotionErrors(total=0.0, strict=known, relaxed=known, points=known)


@pytest.mark.parametrize(
    "function", [disparity_errors, disparity_outliers, flow_errors, flow_outliers, motion_errors]
)
def test_different_shapes_are_refused(function):
    with pytest.raises(InputError, match=r"shape \(2, 3\) but the ground truth \(3, 2\)"):
        function(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32))


# --- bands -------------------------------------------------------------------------------------------------------------


@quick
@given(
    pixels=st.lists(
        st.tuples(
            st.sampled_from([0.5, 2.0, 4.0, float("nan")]),
            st.booleans(),
            st.sampled_from([-1.0, 0.0, 4.9, 5.0, 9.0, 1e9, float("nan")]),
        )
    ),
    split=st.integers(0, 10),
)
def test_errors_by_band_pixel_by_pixel_and_added_up(pixels, split):
    edges = (0.0, 5.0, 10.0, math.inf)

    def bands(some):
        error = np.array([p[0] for p in some], np.float32)
        quantity = np.array([p[2] for p in some], np.float32)
        return errors_by_band(error, np.array([p[1] for p in some], bool), quantity, edges)

    result = bands(pixels)
    for band, (low, high) in enumerate(pairwise(edges)):
        inside = [p for p in pixels if low <= p[2] < high and not math.isnan(p[0])]
        assert result.pixels[band] == len(inside)
        assert result.total[band] == pytest.approx(sum(p[0] for p in inside))
        assert result.outliers[band] == sum(p[1] for p in inside)
        if inside:
            assert result.means[band] == pytest.approx(result.total[band] / len(inside))
            rate = 100 * result.outliers[band] / len(inside)
            assert result.outlier_rates[band] == pytest.approx(rate)
        else:
            assert math.isnan(result.means[band])
            assert math.isnan(result.outlier_rates[band])
    assert bands(pixels[:split]) + bands(pixels[split:]) == result


def test_outliers_of_3d_motion_are_off_by_30_cm_or_10_per_cent():
    true = np.array([[10, 0, 0], [10, 0, 0], [1, 0, 0], [1, 0, 0], [np.nan, 0, 0]], np.float32)
    off = np.array([0.29, 0.31, 0.09, 0.11, 0], np.float32)
    estimate = true + np.stack([off, off * 0, off * 0], axis=1)
    assert motion_outliers(estimate, true).tolist() == [False, True, False, True, False]
    assert motion_errors(estimate, true).outliers == 2


def test_area_under_sparsification_is_0_for_the_order_of_the_errors():
    error = np.random.default_rng(2).exponential(1, (40, 50)).astype(np.float32)
    assert area_under_sparsification(error, -error) == pytest.approx(0, abs=1e-9)
    best, constant, worst = (
        area_under_sparsification(error, confidence)
        for confidence in (1 / (1 + error + 0.1), np.ones_like(error), error)
    )
    assert best < constant < worst


def test_area_under_sparsification_by_hand():
    error = np.array([1, 0, np.nan, 3], np.float32)
    # Most confident first: 3, 1, 0; means 3, 2, 4/3; by error 0, 1/2, 4/3.
    found = area_under_sparsification(error, np.array([0.5, 0.1, 0.9, 0.9], np.float32))
    assert found == pytest.approx((3 + 1.5 + 0) / 3)
    assert math.isnan(area_under_sparsification(error, np.full(4, np.nan, np.float32)))


def test_area_under_sparsification_does_not_depend_on_the_order_of_ties():
    error = np.arange(6, dtype=np.float32)
    valid = np.array([True, False, True, False, True, False])
    found = area_under_sparsification(error, valid)
    assert found == pytest.approx(area_under_sparsification(error[::-1], valid[::-1]))
