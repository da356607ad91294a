import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwarf_ros.evaluation.kitti.error_images import (
    disparity_error_image,
    flow_error_image,
    scene_flow_error_image,
)
from dwarf_ros.samples import Maps
from dwarf_ros.types import InputError

NAN = np.float32(np.nan)
quick = settings(derandomize=True, deadline=None, max_examples=60)
shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))


BLUE, LIGHT_BLUE, YELLOW, DARK_RED = (49, 54, 149), (224, 243, 248), (254, 224, 144), (165, 0, 38)


@pytest.mark.parametrize(
    ("truth", "error", "color"),
    [
        (10, 0, BLUE),
        (10, 0.18, BLUE),  # 0.06 of 3 px
        (10, 0.19, (69, 117, 180)),
        (10, 1, (171, 217, 233)),
        (10, 2.9, LIGHT_BLUE),
        (10, 3.1, YELLOW),
        (100, 4.9, LIGHT_BLUE),  # under 5 %
        (100, 5.1, YELLOW),
        (10, 60, DARK_RED),
    ],
)
def test_error_colors(truth, error, color):
    true = np.full((3, 3), truth, dtype=np.float32)
    assert disparity_error_image(true + np.float32(error), true, true)[1, 1].tolist() == [*color]
    flow = np.zeros((3, 3, 2), np.float32)
    flow[..., 1] = -truth
    image = flow_error_image(flow + np.array([error, 0], np.float32), flow, flow)
    assert image[1, 1].tolist() == [*color]


@quick
@given(data=st.data())
def test_error_image_paints_3_by_3_row_by_row_and_dims_the_occluded(data):
    shape = data.draw(shapes)
    occ = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([5.0, float("nan")])))
    occluded = data.draw(hnp.arrays(np.bool_, shape))
    errors = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 3.5, 70.0])))
    image = disparity_error_image(np.nan_to_num(occ) + errors, np.where(occluded, NAN, occ), occ)
    colors = {0.0: BLUE, 3.5: YELLOW, 70.0: DARK_RED}
    expected = np.zeros((*shape, 3), np.uint8)
    for y in range(1, shape[0] - 1):
        for x in range(1, shape[1] - 1):
            if not np.isnan(occ[y, x]):
                color = np.array(colors[float(errors[y, x])])
                expected[y - 1 : y + 2, x - 1 : x + 2] = color // 2 if occluded[y, x] else color
    np.testing.assert_array_equal(image, expected)


def test_scene_flow_error_image_shows_the_worst_part():
    true = Maps(
        np.full((3, 3), 10, np.float32),
        np.full((3, 3), 10, np.float32),
        np.full((3, 3, 2), 10, np.float32),
    )
    image = scene_flow_error_image(true, true, true)
    assert image[1, 1].tolist() == [*BLUE]
    for name in ("disparity", "disparity_next", "flow"):
        wrong = Maps(**{**vars(true), name: getattr(true, name) + np.float32(90)})
        assert scene_flow_error_image(wrong, true, true)[1, 1].tolist() == [*DARK_RED]
    no_truth = Maps(np.full((3, 3), NAN, np.float32), true.disparity_next, true.flow)
    assert scene_flow_error_image(true, true, no_truth)[1, 1].tolist() == [*BLUE]
    with pytest.raises(InputError, match="a map is missing"):
        scene_flow_error_image(Maps(flow=true.flow), true, true)


def test_an_error_image_of_another_size_is_refused():
    true = np.ones((3, 3), np.float32)
    with pytest.raises(InputError, match="expected one shape"):
        disparity_error_image(true, true[:2], true)
