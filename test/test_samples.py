from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros.samples import Maps, SampleTruth, make_sample
from dwarf_ros.types import InputError, StereoFrame

IMAGE = np.zeros((4, 6, 3), np.uint8)
FRAMES = (StereoFrame(IMAGE, IMAGE), StereoFrame(IMAGE, IMAGE, stamp=1))


def disparity(width=6):
    return np.ones((4, width), np.float32)


def test_a_sample_carries_frames_and_truth():
    truth = SampleTruth(Maps(disparity(), flow=np.zeros((4, 6, 2), np.float32)))
    sample = make_sample("000010_10", FRAMES, truth)
    assert (sample.name, sample.previous, sample.current) == ("000010_10", *FRAMES)
    assert sample.ground_truth is truth


def test_a_sample_may_have_no_truth():
    assert make_sample("000010_10", FRAMES, None).ground_truth is None


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        (SampleTruth(Maps(disparity(5))), "occ disparity"),
        (SampleTruth(Maps(disparity()), Maps(disparity_next=disparity(5))), "noc disparity_next"),
        (SampleTruth(Maps(flow=np.zeros((4, 5, 2), np.float32))), "occ flow"),
        (SampleTruth(Maps(), objects=np.zeros((4, 5), np.uint8)), "object"),
    ],
)
def test_truth_of_another_size_is_refused(truth, words):
    message = f"000010_10: {words} ground truth is 5 x 4 px, expected 6 x 4 px as the images"
    with pytest.raises(InputError, match=f"^{message}$"):
        make_sample("000010_10", FRAMES, truth)
