"""Network estimator: padding, cropping and signs, whatever the size and depth of the pictures."""

from __future__ import annotations

import numpy as np
import pytest

from dwarf_ros import load_estimator
from dwarf_ros.types import InputError, StereoCamera, StereoFrame

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights for dwarf_lite, with answers of both signs."""
    from dwarf_ros import network

    model = network.build("dwarf_lite")
    rng = np.random.default_rng(11)
    for variable in model.trainable_variables:
        shape = variable.shape
        spread = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.05
        variable.assign(rng.normal(0, spread, shape))
    file = tmp_path_factory.mktemp("weights") / "dwarf_lite.safetensors"
    network.save(model, file, origin="a test: random, untrained")
    return file


@pytest.fixture(scope="module")
def estimator(weights):
    return load_estimator(weights=weights, engine="tensorflow")


def frames(height: int, width: int, seed: int = 0, **more) -> list[StereoFrame]:
    pictures = np.random.default_rng(seed).integers(0, 256, (2, 2, height, width, 3), np.uint8)
    return [StereoFrame(*pictures[i], stamp=10**9 + i * 10**8, **more) for i in range(2)]


def test_answer_is_the_networks_padded_cropped_and_turned(estimator, weights):
    from dwarf_ros import network

    previous, current = frames(51, 61)
    answer = estimator.estimate(previous, current)
    # 51 x 61 in 64 x 64: 6 rows above and 7 below, 1 column left and 2 right.
    views = zip(
        ("left_t0", "right_t0", "left_t1", "right_t1"),
        (previous.left, previous.right, current.left, current.right),
        strict=True,
    )
    inputs = {
        name: (np.pad(view, ((6, 7), (1, 2), (0, 0)), mode="reflect") / 255).astype(np.float32)[
            None
        ]
        for name, view in views
    }
    outputs = network.load(weights)(inputs)
    expected = {name: np.asarray(output)[0, 6:57, 1:62] for name, output in outputs.items()}

    np.testing.assert_allclose(answer.flow, expected["forward_flow"], rtol=0, atol=1e-4)
    for name, output in (("disparity", "disparity"), ("disparity_next", "disparity_change")):
        disparity, prediction = getattr(answer, name), expected[output][..., 0]
        assert 0 < np.isfinite(disparity).mean() < 1
        clear = np.abs(prediction) > 1e-4
        assert np.array_equal(np.isfinite(disparity)[clear], (prediction < 0)[clear])
        known = np.isfinite(disparity)
        np.testing.assert_allclose(disparity[known], -prediction[known], rtol=0, atol=1e-4)


def test_valid_is_what_is_known_and_stays_in_the_picture(estimator):
    answer = estimator.estimate(*frames(51, 61))
    rows, columns = np.indices((51, 61))
    x, y = columns + answer.flow[..., 0], rows + answer.flow[..., 1]
    inside = (x >= 0) & (x <= 60) & (y >= 0) & (y <= 50)
    known = np.isfinite(answer.disparity) & np.isfinite(answer.disparity_next)
    assert np.array_equal(answer.valid, inside & known)
    assert answer.valid.any()
    assert not inside.all()


def test_stamps_camera_and_frame_id_are_those_of_the_reference(estimator):
    camera = StereoCamera(50, 50, 30, 25, 30, 0.1, 61, 51)
    previous, current = frames(51, 61, camera=camera, frame_id="left_camera")
    forward = estimator.estimate(previous, current)
    assert (forward.stamp, forward.camera, forward.frame_id) == (10**9, camera, "left_camera")
    assert forward.dt == pytest.approx(0.1)
    backward = estimator.estimate(current, previous)
    assert backward.stamp == current.stamp
    assert backward.dt == pytest.approx(-0.1)
    assert not np.array_equal(backward.flow, forward.flow)


def test_grey_16_bit_pictures_give_the_same_as_8_bit_colour(estimator):
    colour = frames(60, 64)
    grey = [f.left[:, :, 0] for f in colour]
    eight = [StereoFrame(np.dstack([g] * 3), np.dstack([g] * 3)) for g in grey]
    sixteen = [StereoFrame(*[g.astype(np.uint16) * 257] * 2) for g in grey]
    assert np.array_equal(estimator.estimate(*eight).flow, estimator.estimate(*sixteen).flow)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 7), (64, 64)])
def test_pictures_down_to_a_pixel_are_answered(estimator, size):
    answer = estimator.estimate(*frames(*size))
    assert answer.disparity.shape == size
    assert np.isfinite(answer.flow).all()
    assert answer.flow.flags.c_contiguous


def test_two_sizes_are_refused(estimator):
    with pytest.raises(InputError, match=r"61 x 51 px .* 64 x 60 px"):
        estimator.estimate(frames(51, 61)[0], frames(60, 64)[1])


def test_names_say_what_runs(estimator):
    assert (estimator.name, estimator.engine) == ("dwarf_lite", "tensorflow")
