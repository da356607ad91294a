import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwarf_ros.evaluation.kitti.rules import (
    OutlierCounts,
    Tally,
    evaluate_maps,
    fill_disparity,
    fill_flow,
)
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError

NAN = np.float32(np.nan)
quick = settings(derandomize=True, deadline=None, max_examples=60)


def array(rows):
    return np.array(rows, dtype=np.float32)


def evaluate_disparity(estimate, truth, objects=None):
    return evaluate_maps(Maps(disparity=estimate), Maps(disparity=truth), objects)["D1"]


def evaluate_flow(estimate, truth):
    return evaluate_maps(Maps(flow=estimate), Maps(flow=truth))["Fl"]


# --- filling -----------------------------------------------------------------------------------------------------------


def filled_pixel_by_pixel(values, known):
    """The rules as a person would follow them, for one channel."""
    values, known = values.copy(), known.copy()
    height, width = values.shape
    for row in range(height):
        present = [x for x in range(width) if known[row, x]]
        for x in range(width):
            if not present or known[row, x]:
                continue
            left = [p for p in present if p < x]
            right = [p for p in present if p > x]
            neighbours = left[-1:] + right[:1]
            values[row, x] = min(values[row, p] for p in neighbours)
        if present:
            known[row] = True
    for x in range(width):
        present = [y for y in range(height) if known[y, x]]
        for y in range(height):
            if present and y < present[0]:
                values[y, x] = values[present[0], x]
            elif present and y > present[-1]:
                values[y, x] = values[present[-1], x]
            elif not known[y, x]:
                values[y, x] = NAN
    return values


shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))
holes = st.just(float("nan")) | st.floats(0, 100, width=32)


@quick
@given(disparity=shapes.flatmap(lambda s: hnp.arrays(np.float32, s, elements=holes)))
def test_filling_follows_the_rules_pixel_by_pixel(disparity):
    before = disparity.copy()
    filled = fill_disparity(disparity)
    np.testing.assert_array_equal(filled, filled_pixel_by_pixel(disparity, disparity >= 0))
    np.testing.assert_array_equal(disparity, before)


@quick
@given(
    flow=shapes.flatmap(
        lambda s: hnp.arrays(np.float32, (*s, 2), elements=st.floats(-50, 50, width=32))
    ),
    data=st.data(),
)
def test_flow_is_filled_channel_by_channel(flow, data):
    known = data.draw(hnp.arrays(np.bool_, flow.shape[:2]))
    flow[~known] = NAN
    filled = fill_flow(flow)
    for channel in range(2):
        expected = filled_pixel_by_pixel(flow[..., channel], known)
        np.testing.assert_array_equal(filled[..., channel], expected)


def test_filling_an_example_by_hand():
    disparity = array([[NAN] * 4, [NAN, 5, NAN, 3], [NAN] * 4, [-1, -1, 7, NAN], [NAN] * 4])
    expected = [[5, 5, 3, 3], [5, 5, 3, 3], [NAN] * 4, [7] * 4, [7] * 4]
    np.testing.assert_array_equal(fill_disparity(disparity), expected)
    assert np.isnan(fill_disparity(array([[NAN, NAN]]))).all()


# --- counting ----------------------------------------------------------------------------------------------------------


def test_counts_by_region_of_the_image_and_by_what_was_estimated():
    truth = array([[10, 10, 10, 10, NAN]])
    estimate = array([[10, 20, NAN, 30, 10]])
    objects = np.array([[0, 0, 0, 3, 1]], dtype=np.uint8)
    # The gap is filled with 20, the smaller neighbour.
    assert evaluate_disparity(estimate, truth, objects) == OutlierCounts(
        bg=Tally(2, 3), bg_est=Tally(1, 2), fg=Tally(1, 1), fg_est=Tally(1, 1), all=Tally(3, 4), all_est=Tally(2, 3)
    )  # fmt: skip
    without_objects = evaluate_disparity(estimate, truth)
    assert without_objects == OutlierCounts(all=Tally(3, 4), all_est=Tally(2, 3))
    assert without_objects.density == 75
    assert without_objects.to_dict() == {
        "bg": None, "bg_est": None, "fg": None, "fg_est": None,
        "all": 75.0, "all_est": pytest.approx(200 / 3), "density": 75.0,
    }  # fmt: skip


def test_what_cannot_be_filled_counts_as_disparity_minus_1_and_flow_0():
    nothing = np.full((1, 3), NAN, dtype=np.float32)
    # Off by 2.5 and by 3 px from -1, and by 5.
    assert evaluate_disparity(nothing, array([[1.5, 2, 4]])).all == Tally(1, 3)
    no_flow = np.full((1, 2, 2), NAN, dtype=np.float32)
    counts = evaluate_flow(no_flow, array([[[0, 2.5], [4, 0]]]))
    assert (counts.all, counts.all_est) == (Tally(1, 2), Tally(0, 0))


def test_scene_flow_is_wrong_where_any_part_is_over_pixels_where_all_are_known():
    truth = Maps(array([[9, 9, 9, NAN]]), array([[9, 9, 9, 9]]), np.zeros((1, 4, 2), np.float32))
    flow = np.zeros((1, 4, 2), np.float32)
    flow[0, 2] = 9
    estimate = Maps(array([[99, 9, NAN, 9]]), array([[9, 9, 9, 99]]), flow)
    counts = evaluate_maps(estimate, truth)
    assert list(counts) == ["D1", "D2", "Fl", "SF"]
    assert counts["SF"].all == Tally(2, 3)
    assert counts["SF"].all_est == Tally(1, 2)  # the third pixel had no estimate in D1


def test_measures_without_maps_are_left_out():
    one = array([[1]])
    assert list(evaluate_maps(Maps(disparity=one), Maps(disparity=one, flow=one[..., None]))) == [
        "D1"
    ]


@pytest.mark.parametrize("objects", [None, np.zeros((2, 3), np.uint8)])
def test_sizes_that_differ_are_refused(objects):
    truth = np.ones((2, 2), np.float32)
    estimate = truth if objects is not None else np.ones((2, 3), np.float32)
    with pytest.raises(InputError, match=r"shape \(2, 3\)"):
        evaluate_disparity(estimate, truth, objects)
