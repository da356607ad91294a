"""The procedural drive: pictures that agree with their ground truth, and ground truth that agrees with geometry."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dwarf_ros.geometry import points_from_depth, scene_flow_points
from dwarf_ros.recordings import open_recording
from dwarf_ros.synthetic.drives import ProceduralDrive, write_drive
from dwarf_ros.types import InputError, StereoFrame

SMALL = {"width": 320, "height": 192, "frames": 8}


@pytest.fixture(scope="module", params=[0, 3])
def drive(request):
    return ProceduralDrive(request.param, **SMALL)


def pixel_grid(shape):
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return x, y


def sample(image, x, y):
    """Bilinear, at any positions inside the image; NaN positions give NaN or rubbish, to be masked by the caller."""
    x, y = np.nan_to_num(x, nan=-9.0), np.nan_to_num(y, nan=-9.0)
    return cv2.remap(np.asarray(image, np.float32), x, y, cv2.INTER_LINEAR)


def relative_pose(drive, reference, other):
    """Left camera of frame `reference` to that of frame `other`, 4 x 4."""
    return np.linalg.inv(drive.poses[other]) @ drive.poses[reference]


def static_error(drive, reference, other):
    """3D end-point error, m, of static points against the camera's motion."""
    truth = drive.ground_truth(reference, other)
    points, points_next = scene_flow_points(truth.scene_flow)
    motion = relative_pose(drive, reference, other)
    moved = points.astype(np.float64) @ motion[:3, :3].T + motion[:3, 3]
    return np.linalg.norm(moved - points_next, axis=-1)[truth.scene_flow.valid & truth.static]


def smooth(mask):
    """Pixels all of whose 3 x 3 neighborhood is in the mask."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0


def test_warping_the_other_images_gives_the_left_image(drive):
    first, second = drive[3], drive[4]
    truth, back = drive.ground_truth(3, 4), drive.ground_truth(4, 3)
    flow = truth.scene_flow
    x, y = pixel_grid(flow.valid.shape)
    next_x, next_y = x + flow.flow[..., 0], y + flow.flow[..., 1]
    seen_next = flow.valid & ~truth.flow_occluded
    right_next_x = next_x - flow.disparity_next
    hidden = sample(back.disparity_occluded, next_x, next_y) > 0

    def error(image, x, y, mask):
        difference = np.abs(sample(image, x, y) - first.left)[mask]
        assert mask.mean() > 0.4
        return difference.mean(), np.median(difference)

    cases = (
        (first.right, x - flow.disparity, y, flow.valid & ~truth.disparity_occluded),
        (second.left, next_x, next_y, seen_next),
        (second.right, right_next_x, next_y, seen_next & ~hidden & (right_next_x >= 0)),
    )
    for image, at_x, at_y, mask in cases:
        mean, median = error(image, at_x, at_y, mask)
        assert mean < 3.0
        assert median < 1.5
        for dx, dy in ((0.25, 0), (-0.25, 0), (0, 0.25), (0, -0.25)):
            assert (
                error(image, at_x + np.float32(dx), at_y + np.float32(dy), mask)[1] > 1.1 * median
            )


def test_static_points_move_with_the_camera(drive):
    for reference, other in ((3, 4), (4, 3), (0, 7), (7, 0)):
        error = static_error(drive, reference, other)
        assert len(error) > 0.3 * 320 * 192
        assert np.median(error) < 1e-5
        assert np.percentile(error, 99) < 1e-3


def test_moving_points_do_not_move_with_the_camera(drive):
    truth = drive.ground_truth(3, 4)
    points, points_next = scene_flow_points(truth.scene_flow)
    motion = relative_pose(drive, 3, 4)
    travelled = np.linalg.norm(points @ motion[:3, :3].T + motion[:3, 3] - points_next, axis=-1)
    moving = truth.scene_flow.valid & ~truth.static
    assert moving.mean() > 0.005
    speed = travelled[moving] / truth.scene_flow.dt
    assert speed.min() > 0.5
    assert speed.max() < 20.0


def test_forward_and_backward_flow_cancel(drive):
    truth, back = drive.ground_truth(2, 5), drive.ground_truth(5, 2)
    flow = truth.scene_flow
    x, y = pixel_grid(flow.valid.shape)
    next_x, next_y = x + flow.flow[..., 0], y + flow.flow[..., 1]
    returning = sample(back.scene_flow.flow, next_x, next_y)
    mask = smooth(flow.valid & ~truth.flow_occluded)
    mask &= sample(smooth(back.scene_flow.valid & ~back.flow_occluded), next_x, next_y) == 1
    error = np.linalg.norm(returning + flow.flow, axis=-1)[mask]
    assert mask.mean() > 0.3
    assert np.median(error) < 0.005
    assert np.percentile(error, 90) < 0.1


def test_disparity_next_is_the_other_frames_disparity(drive):
    truth, other = drive.ground_truth(2, 5), drive.ground_truth(5, 5)
    flow = truth.scene_flow
    x, y = pixel_grid(flow.valid.shape)
    found = sample(other.scene_flow.disparity, x + flow.flow[..., 0], y + flow.flow[..., 1])
    mask = smooth(flow.valid & ~truth.flow_occluded) & np.isfinite(found)
    error = np.abs(found - flow.disparity_next)[mask]
    assert mask.mean() > 0.3
    assert np.median(error) < 0.002
    assert np.percentile(error, 90) < 0.05


def test_disparity_occlusion_is_what_stands_before(drive):
    truth = drive.ground_truth(3, 3)
    disparity = truth.scene_flow.disparity
    visible = truth.scene_flow.valid & ~truth.disparity_occluded
    x, _ = pixel_grid(disparity.shape)
    right_x = x - disparity
    assert truth.disparity_occluded[right_x < -0.01].all()
    nearer, agrees = [], []
    for row in range(disparity.shape[0]):
        seen = visible[row]
        if seen.sum() < 2:
            continue
        order = np.argsort(right_x[row, seen])
        known_x, known = right_x[row, seen][order], disparity[row, seen][order]
        # Leave the pixels themselves out: every other one is looked up among the rest.
        expected = np.interp(known_x[1:-1:2], known_x[::2], known[::2])
        agrees.append(np.abs(expected - known[1:-1:2]))
        # On the left: on the right it may be something that only the right image holds.
        hidden = truth.disparity_occluded[row] & (right_x[row] > known_x[0])
        hidden &= right_x[row] < disparity.shape[1] / 2
        before = np.interp(right_x[row, hidden], known_x, known)
        nearer.append(before - disparity[row, hidden])
    assert np.median(np.concatenate(agrees)) < 0.02
    assert np.percentile(np.concatenate(agrees), 90) < 0.5
    nearer = np.concatenate(nearer)
    assert len(nearer) > 100
    assert (nearer > 0).mean() > 0.95


def test_flow_occlusion_is_what_stands_before(drive):
    truth, other = drive.ground_truth(1, 6), drive.ground_truth(6, 6)
    flow = truth.scene_flow
    height, width = flow.valid.shape
    x, y = pixel_grid((height, width))
    next_x, next_y = x + flow.flow[..., 0], y + flow.flow[..., 1]
    with np.errstate(invalid="ignore"):
        inside = (next_x >= 0) & (next_x <= width - 1) & (next_y >= 0) & (next_y <= height - 1)
    assert truth.flow_occluded[~inside].all()
    known = flow.valid & inside
    column, row = (np.rint(np.where(known, at, 0)).astype(int) for at in (next_x, next_y))
    there = np.nan_to_num(other.scene_flow.disparity, nan=0.0)[row, column]
    hidden = known & truth.flow_occluded
    assert hidden.sum() > 100
    assert (there[hidden] > flow.disparity_next[hidden]).mean() > 0.9
    shown = known & ~truth.flow_occluded
    assert (np.abs(there - flow.disparity_next)[shown] < 1.0).mean() > 0.95


def test_the_road_is_flat(drive):
    truth = drive.ground_truth(0, 0)
    disparity = truth.scene_flow.disparity
    parallax = disparity.astype(np.float64)
    points = points_from_depth(drive.camera.fx * drive.camera.baseline / parallax, drive.camera)
    road = points[-40:, 140:200].reshape(-1, 3).astype(np.float64)
    centered = road - road.mean(axis=0)
    normal = np.linalg.svd(centered, full_matrices=False)[2][2]
    assert np.abs(centered @ normal).max() < 1e-4
    assert 1.3 < abs(road.mean(axis=0) @ normal) < 2.0


def test_sky_moves_with_the_cameras_rotation_alone(drive):
    truth = drive.ground_truth(2, 6)
    flow = truth.scene_flow
    sky = np.isnan(flow.disparity)
    assert 0.01 < sky.mean() < 0.6
    assert not flow.valid[sky].any()
    assert not truth.static[sky].any()
    assert np.isnan(flow.disparity_next[sky]).all()
    camera = drive.camera
    intrinsics = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
    homography = intrinsics @ relative_pose(drive, 2, 6)[:3, :3] @ np.linalg.inv(intrinsics)
    x, y = pixel_grid(sky.shape)
    moved = np.stack([x[sky], y[sky], np.ones(sky.sum())], axis=-1) @ homography.T
    expected = moved[:, :2] / moved[:, 2:] - np.stack([x[sky], y[sky]], axis=-1)
    np.testing.assert_allclose(flow.flow[sky], expected, atol=1e-4)


def test_a_frame_against_itself(drive):
    truth = drive.ground_truth(5, 5)
    flow = truth.scene_flow
    assert np.nanmax(np.abs(flow.flow)) < 1e-6
    np.testing.assert_allclose(flow.disparity_next, flow.disparity, rtol=1e-6)
    assert not truth.flow_occluded.any()
    assert flow.dt == 0


def test_points_that_the_camera_has_passed_are_unknown():
    drive = ProceduralDrive(1, frames=21, width=160, height=96, rate=5.0)
    truth = drive.ground_truth(0, 20)
    flow = truth.scene_flow
    passed = np.isfinite(flow.disparity) & ~flow.valid
    assert passed.mean() > 0.1
    assert np.isnan(flow.flow[passed]).all()
    assert np.isnan(flow.disparity_next[passed]).all()
    assert truth.flow_occluded[passed].all()
    assert np.isfinite(flow.flow[flow.valid]).all()
    assert not drive.ground_truth(20, 0).scene_flow.valid[np.isnan(flow.disparity)].all()


def test_the_same_seed_gives_the_same_bytes_in_any_order():
    arguments = {"width": 96, "height": 64, "frames": 4}
    forwards, backwards = ProceduralDrive(7, **arguments), ProceduralDrive(7, **arguments)
    frames = [forwards[i] for i in range(4)]
    for index in (3, 1, 2, 0, -1):
        again = backwards[index]
        assert again.left.tobytes() == frames[index].left.tobytes()
        assert again.right.tobytes() == frames[index].right.tobytes()
        assert again.stamp == frames[index].stamp
    first, second = forwards.ground_truth(0, 2), backwards.ground_truth(0, 2)
    assert first.scene_flow.flow.tobytes() == second.scene_flow.flow.tobytes()
    np.testing.assert_array_equal(forwards.poses, backwards.poses)
    other = ProceduralDrive(8, **arguments)
    assert np.abs(other[0].left.astype(int) - frames[0].left).mean() > 10
    assert np.abs(frames[1].left.astype(int) - frames[0].left).mean() > 1


def test_frames_stamps_and_poses():
    drive = ProceduralDrive(2, frames=3, width=64, height=48, rate=30.0, frame_id="cam")
    frame = drive[1]
    assert isinstance(frame, StereoFrame)
    assert (frame.left.shape, frame.left.dtype) == ((48, 64, 3), np.uint8)
    assert frame.camera is drive.camera
    assert frame.frame_id == "cam"
    assert drive.stamps == [0, 33_333_333, 66_666_667]
    assert (len(drive), drive.scenes) == (3, [0, 0, 0])
    assert len(list(drive)) == 3
    truth = drive.ground_truth(2, 0)
    assert truth.scene_flow.stamp == drive.stamps[2]
    assert truth.scene_flow.other_stamp == 0
    assert truth.scene_flow.frame_id == "cam"
    assert drive.poses.shape == (3, 4, 4)
    np.testing.assert_array_equal(drive.poses[0], np.eye(4))
    rotations = drive.poses[:, :3, :3]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1), np.eye(3)[None].repeat(3, 0), atol=1e-12
    )
    assert drive.poses[2, 2, 3] > 0.25
    with pytest.raises(IndexError, match="no frame 3"):
        drive[3]
    with pytest.raises(IndexError, match="no frame -4"):
        drive.ground_truth(0, -4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed is -1, expected >= 0"),
        ({"frames": 0}, "frames is 0, expected >= 1"),
        ({"rate": 0.0}, "rate is 0 Hz, expected > 0"),
        ({"rate": float("nan")}, "rate is nan Hz"),
        ({"width": 0, "focal_length": 100.0}, "image size is 0 x 384 px"),
        ({"baseline": -0.5}, "baseline is -0.5 m"),
        ({"focal_length": 0.0}, "focal length fx is 0 px"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ProceduralDrive(**arguments)


# Without shrinking, which takes minutes here.
@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**31),
    width=st.integers(1, 130),
    height=st.integers(1, 90),
    baseline=st.floats(0.02, 2.0),
    zoom=st.floats(0.3, 3.0),
    rate=st.floats(1.0, 60.0),
)
def test_any_camera(seed, width, height, baseline, zoom, rate):
    drive = ProceduralDrive(seed, 3, width, height, baseline, zoom * width, rate)
    frame = drive[1]
    assert frame.left.shape == frame.right.shape == (height, width, 3)
    for reference, other in ((0, 2), (2, 0)):
        truth = drive.ground_truth(reference, other)
        flow = truth.scene_flow
        assert (flow.disparity[flow.valid] > 0).all()
        assert (flow.disparity_next[flow.valid] > 0).all()
        assert np.isfinite(flow.flow[flow.valid]).all()
        assert not truth.static[np.isnan(flow.disparity)].any()
        error = static_error(drive, reference, other)
        assert len(error) == 0 or np.median(error) < 1e-4
        # Nothing stands in the camera's way.
        distance = np.linalg.norm(scene_flow_points(flow)[0], axis=-1)
        assert np.nanmin(distance, initial=np.inf) > 0.5


def test_texture_enough_for_classical_matching():
    drive = ProceduralDrive(0)
    first, second, truth = drive[5], drive[6], drive.ground_truth(5, 6)
    flow = truth.scene_flow
    left, right, following = (
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (first.left, first.right, second.left)
    )
    matcher = cv2.StereoSGBM_create(0, 96, 5, 200, 800, 1, 63, 10, 100, 2)
    disparity = matcher.compute(left, right) / 16
    error = np.abs(disparity - flow.disparity)
    answered = flow.valid & ~truth.disparity_occluded & (disparity > 0)
    assert answered[:, 96:].mean() > 0.7
    assert (error > np.maximum(3, 0.05 * flow.disparity))[answered].mean() < 0.03
    estimate = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(
        left, following, None
    )
    error = np.linalg.norm(estimate - flow.flow, axis=-1)
    limit = np.maximum(3, 0.05 * np.linalg.norm(flow.flow, axis=-1))
    assert (error > limit)[flow.valid & ~truth.flow_occluded].mean() < 0.15


def test_written_drive_is_read_back(tmp_path):
    drive = ProceduralDrive(4, frames=3, width=80, height=48, baseline=0.3)
    write_drive(drive, tmp_path / "drive")
    sequence = open_recording(tmp_path / "drive")
    assert len(sequence) == 3
    assert list(sequence.stamps) == drive.stamps
    np.testing.assert_allclose(sequence.poses, drive.poses, atol=1e-9)
    for index in range(3):
        read, rendered = sequence[index], drive[index]
        np.testing.assert_array_equal(read.left, rendered.left)
        np.testing.assert_array_equal(read.right, rendered.right)
        assert read.camera.baseline == pytest.approx(0.3)
        assert read.camera.fx == pytest.approx(drive.camera.fx)
        assert (read.camera.cx, read.camera.cx_right) == (drive.camera.cx, drive.camera.cx_right)
