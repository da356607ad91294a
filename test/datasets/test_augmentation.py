from __future__ import annotations

import cv2
import numpy as np
import pytest

from dwarf_ros.datasets.augmentation import (
    Augmentation,
    TrainingItem,
    augment,
    cropped,
    flipped_vertically,
    make_item,
    padded,
    recolored,
    resized,
)
from dwarf_ros.samples import Maps, Sample, SampleTruth
from dwarf_ros.synthetic.drives import ProceduralDrive
from dwarf_ros.types import InputError, StereoFrame

SIZE = (96, 192)
LEFT, RIGHT, LEFT_NEXT, RIGHT_NEXT = range(4)


@pytest.fixture(scope="module")
def item():
    """A drive's first pair; truth only where the point is seen in all four images."""
    drive = ProceduralDrive(3, frames=2, height=SIZE[0], width=SIZE[1])
    truth = drive.ground_truth(0, 1)
    flow = truth.scene_flow
    made = make_item(
        Sample(
            "drive",
            drive[0],
            drive[1],
            SampleTruth(Maps(flow.disparity, flow.disparity_next, flow.flow)),
        )
    )
    made.truth[truth.disparity_occluded | truth.flow_occluded] = np.nan
    return made


def warping_errors(item):
    """Median difference of left_t0 from each other image, fetched along the truth, in grey levels of 255."""
    d, d_next, u, v = np.moveaxis(item.truth, -1, 0)
    y, x = np.mgrid[: d.shape[0], : d.shape[1]].astype(np.float32)
    smooth = [cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32) for image in item.images]
    known = np.isfinite(item.truth).all(axis=-1)
    errors = []
    for image, (to_x, to_y) in zip(
        smooth[1:], ((x - d, y), (x + u, y + v), (x + u - d_next, y + v)), strict=True
    ):
        inside = known & (to_x >= 0) & (to_x <= d.shape[1] - 1)
        inside &= (to_y >= 0) & (to_y <= d.shape[0] - 1)
        fetched = cv2.remap(image, np.nan_to_num(to_x), np.nan_to_num(to_y), cv2.INTER_LINEAR)
        assert inside.sum() > 0.1 * inside.size
        errors.append(np.median(np.abs(fetched - smooth[LEFT]).mean(axis=-1)[inside]))
    return errors


def plain(**changes):
    return Augmentation(
        **{
            "height": 64,
            "width": 128,
            "zoom_probability": 0,
            "photometric_probability": 0,
            **changes,
        }
    )


def test_truth_of_the_item_holds_before_anything_is_changed(item):
    assert max(warping_errors(item)) < 4
    wrong = TrainingItem(item.images, item.truth + np.float32(4))
    assert min(warping_errors(wrong)) > 1.5 * max(warping_errors(item))


@pytest.mark.parametrize(
    "change",
    [
        lambda item: flipped_vertically(item),
        lambda item: cropped(item, 10, 20, 64, 128),
        lambda item: resized(item, 150, 320),
        lambda item: resized(item, 120, 160),
        lambda item: resized(item, 64, 128),
        lambda item: padded(item, 128, 256),
    ],
    ids=["flip", "crop", "enlarge", "stretch", "shrink", "pad"],
)
def test_images_still_match_along_the_truth(item, change):
    before = max(warping_errors(item))
    assert max(warping_errors(change(item))) < 1.3 * before + 0.5


@pytest.mark.parametrize("seed", range(4))
def test_images_still_match_after_all_that_is_drawn(item, seed):
    settings = plain(zoom=(0.7, 1.8), zoom_probability=1.0, stretch=1.3, flip_probability=0.5)
    changed = augment(item, settings, np.random.default_rng(seed))
    assert changed.images.shape == (4, 64, 128, 3)
    assert changed.truth.shape == (64, 128, 4)
    assert changed.truth.dtype == np.float32
    assert max(warping_errors(changed)) < 1.3 * max(warping_errors(item)) + 1


def test_flip_turns_v_round_and_keeps_the_rest():
    truth = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    images = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)
    flipped = flipped_vertically(TrainingItem(images, truth))
    assert flipped.truth[0, 1].tolist() == [*truth[1, 1, :3], -truth[1, 1, 3]]
    assert np.array_equal(flipped.images[:, 0], images[:, 1])


def test_resizing_scales_disparities_and_u_as_the_width_and_v_as_the_height():
    truth = np.full((10, 20, 4), 6, np.float32)
    changed = resized(TrainingItem(np.zeros((4, 10, 20, 3), np.uint8), truth), 20, 30)
    assert changed.truth[5, 5].tolist() == [9, 9, 9, 12]


def test_resizing_mixes_no_truth_across_an_edge_nor_with_the_unknown():
    truth = np.full((8, 8, 4), 2, np.float32)
    truth[:, 4:] = 40
    truth[0] = np.nan
    changed = resized(TrainingItem(np.zeros((4, 8, 8, 3), np.uint8), truth), 16, 16).truth
    assert set(np.unique(changed[2:])) == {4, 80}
    assert np.isnan(changed[:2]).all()
    assert np.isfinite(changed[2:]).all()


def test_what_is_padded_has_no_truth(item):
    changed = padded(item, 101, 192)
    assert changed.images.shape == (4, 101, 192, 3)
    assert np.isnan(changed.truth[:2]).all()
    assert np.isnan(changed.truth[98:]).all()
    assert np.array_equal(changed.truth[2:98], item.truth, equal_nan=True)
    assert np.array_equal(changed.images[:, 1], item.images[:, 1])


def test_each_image_is_recolored_by_itself_and_truth_stays():
    grey = TrainingItem(np.full((4, 4, 4, 3), 100, np.uint8), np.zeros((4, 4, 4), np.float32))
    changed = recolored(grey, plain(photometric_probability=1.0), np.random.default_rng(0))
    colours = {tuple(image[0, 0]) for image in changed.images}
    assert len(colours) == 4
    assert changed.truth is grey.truth
    assert np.array_equal(grey.images, np.full((4, 4, 4, 3), 100))


def test_gamma_brightness_and_colour_are_applied_in_that_order():
    grey = TrainingItem(np.full((4, 1, 1, 3), 128, np.uint8), np.zeros((1, 1, 4), np.float32))
    settings = plain(
        photometric_probability=1.0, gamma=(1.2, 1.2), brightness=(0.5, 0.5), color=(1.1, 1.1)
    )
    changed = recolored(grey, settings, np.random.default_rng(0))
    assert np.unique(changed.images).tolist() == [round(255 * (128 / 255) ** 1.2 * 0.5 * 1.1)]


def test_the_same_numbers_are_drawn_from_the_same_seed(item):
    settings = Augmentation(64, 128, flip_probability=0.5)
    first, second, other = (
        augment(item, settings, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.truth, second.truth, equal_nan=True)
    assert not np.array_equal(first.images, other.images)


def test_samples_without_truth_are_refused(item):
    frame = StereoFrame(item.images[0], item.images[1])
    with pytest.raises(InputError, match=r"000001: has no ground truth"):
        make_item(Sample("000001", frame, frame))


def test_truth_that_a_data_set_lacks_is_unknown(item):
    frame = StereoFrame(item.images[0], item.images[1])
    disparity = np.ones(SIZE, np.float32)
    made = make_item(Sample("a", frame, frame, SampleTruth(Maps(disparity))))
    assert np.array_equal(made.truth[..., 0], disparity)
    assert np.isnan(made.truth[..., 1:]).all()
