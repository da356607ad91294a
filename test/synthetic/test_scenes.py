"""Training scenes: exact truth that agrees with the pictures, the limits, and the same sample from any worker."""

from __future__ import annotations

import math
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest

from dwarf_ros.geometry import rigid_scene_flow
from dwarf_ros.motion.ego_motion import estimate_ego_motion
from dwarf_ros.synthetic.road_scenes import build_road_scene
from dwarf_ros.synthetic.scenes import TrainingScenes
from dwarf_ros.types import InputError, SceneFlow

SMALL = {"height": 160, "width": 224, "textures": 8}


@pytest.fixture(scope="module")
def clean():
    scenes = TrainingScenes(1, 20, effects=0, **SMALL)
    return [scenes[index] for index in range(8)]


def sample(image, x, y):
    x, y = np.nan_to_num(x, nan=-9.0), np.nan_to_num(y, nan=-9.0)
    return cv2.remap(np.asarray(image, np.float32), x, y, cv2.INTER_LINEAR)


def fingerprint(index):
    made = TrainingScenes(2, 10, height=64, width=96, textures=3)[index]
    truth = made.ground_truth
    arrays = [made.previous.left, made.previous.right, made.current.left, made.current.right]
    for maps in (truth.occ, truth.noc):
        arrays += [maps.disparity, maps.disparity_next, maps.flow]
    return made.name, [array.tobytes() for array in (*arrays, truth.objects)]


def test_any_process_makes_the_same_sample_in_any_order():
    here = [fingerprint(index) for index in range(4)]
    # A process of its own, and another order.
    script = (
        "import runpy, sys, zlib\n"
        "fingerprint = runpy.run_path(sys.argv[1])['fingerprint']\n"
        "print(*(zlib.crc32(repr(fingerprint(index)).encode()) for index in (3, 1, 0, 2)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, __file__], check=True, capture_output=True, timeout=60
    )
    there = [int(word) for word in answer.stdout.split()]
    assert there == [zlib.crc32(repr(here[index]).encode()) for index in (3, 1, 0, 2)]
    assert len({name for name, _ in here}) == 4
    assert len({arrays[0] for _, arrays in here}) == 4
    scenes = TrainingScenes(2, 10, height=64, width=96, textures=3)
    assert (scenes[-1].previous.left == scenes[9].previous.left).all()
    with pytest.raises(IndexError):
        scenes[10]


def test_warping_the_other_images_gives_the_left_image(clean):
    errors = []
    for made in clean:
        noc, left = made.ground_truth.noc, made.previous.left.astype(np.float32)
        y, x = np.mgrid[: left.shape[0], : left.shape[1]].astype(np.float32)
        next_x, next_y = x + noc.flow[..., 0], y + noc.flow[..., 1]
        for image, at_x, at_y in (
            (made.previous.right, x - noc.disparity, y),
            (made.current.left, next_x, next_y),
            (made.current.right, next_x - noc.disparity_next, next_y),
        ):
            seen = np.isfinite(at_x + at_y)
            # Pixels that an outline passes through mix two surfaces.
            seen = cv2.erode(seen.astype(np.uint8), np.ones((3, 3)), borderValue=0) > 0
            if seen.mean() < 0.1:
                continue
            step = [
                np.abs(sample(image, at_x + dx, at_y + dy) - left)[seen].mean()
                for dx, dy in ((0, 0), (0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
            ]
            assert step[0] < min(step[1:])
            errors.append(step[0])
    assert len(errors) > 15
    assert np.median(errors) < 2.5
    assert max(errors) < 8


def test_what_stands_moves_as_the_camera_says():
    scenes = TrainingScenes(5, 20, drives=1, effects=0, **SMALL)
    for index in range(4):
        made = scenes[index]
        truth, camera = made.ground_truth, made.previous.camera
        still = (truth.objects == 0) & np.isfinite(truth.occ.flow[..., 0])
        valid = still & np.isfinite(truth.occ.disparity) & np.isfinite(truth.occ.disparity_next)
        scene_flow = SceneFlow(
            truth.occ.disparity,
            truth.occ.disparity_next,
            truth.occ.flow,
            valid,
            dt=0.1,
            camera=camera,
        )
        motion = estimate_ego_motion(scene_flow).transform
        flow, disparity_next = rigid_scene_flow(truth.occ.disparity, camera, motion)
        assert np.abs(flow - truth.occ.flow)[valid].max() < 0.02
        assert np.abs(disparity_next - truth.occ.disparity_next)[valid].max() < 0.01
        assert valid.mean() > 0.2


def test_truth_is_whole_and_within_the_limits(clean):
    for made in clean:
        truth = made.ground_truth
        for maps in (truth.occ, truth.noc):
            assert maps.disparity.dtype == maps.flow.dtype == np.float32
            assert np.nanmin(maps.disparity) > 0
            assert np.nanmax(maps.disparity) <= 192
            assert np.nanmax(np.hypot(*np.moveaxis(maps.flow, -1, 0))) <= 250
        assert np.isfinite(truth.occ.disparity).mean() > 0.97
        assert np.isfinite(truth.occ.flow).mean() > 0.8
        for name in ("disparity", "disparity_next", "flow"):
            occ, noc = getattr(truth.occ, name), getattr(truth.noc, name)
            seen = np.isfinite(noc)
            assert (occ[seen] == noc[seen]).all()
            assert seen.mean() < 1


def test_tails_are_covered():
    scenes = TrainingScenes(0, 60, effects=0, textures=2, height=96, width=448)
    disparity, flow = [], []
    for index in range(30):
        occ = scenes[index].ground_truth.occ
        disparity.append(occ.disparity[::4, ::4].ravel())
        flow.append(np.linalg.norm(occ.flow[::4, ::4], axis=-1).ravel())
    disparity, flow = np.concatenate(disparity), np.concatenate(flow)
    for values, edges, least in (
        (disparity, (0, 2, 8, 32, 96, 128, 160, 192), 0.01),
        (flow, (0, 2, 8, 32, 64, 100, 150, 200, 250), 0.004),
    ):
        parts = np.histogram(values[np.isfinite(values)], edges)[0] / values.size
        assert parts.min() > least


def test_drives_hold_the_geometry_of_a_vehicle_with_a_stereo_camera():
    """KITTI's: baseline 0.54 m, focal length 0.58 of the width, 1.65 m high, 0 to 20 m/s, turning up to 0.3 rad/s."""
    scenes = TrainingScenes(0, 100, textures=2)
    rows = []
    for index in range(100):
        builder, _, _ = scenes._builder(np.random.default_rng([3, index]))
        build_road_scene(builder)
        camera, motion = builder.camera, builder.scene.motions[1]
        yaw = abs(math.atan2(motion[0, 2], motion[2, 2]))
        # The second object is the road, that the first camera sees from its height.
        height = builder.scene.poses[1][0][1, 3]
        focal = camera.fx / camera.width
        rows.append((camera.baseline, focal, height, -motion[2, 3] * 10, yaw * 10))
    low, high = np.quantile(rows, [0.15, 0.85], axis=0)
    assert (low < (0.54, 0.58, 1.65, 0.5, 0.03)).all()
    assert (high > (0.54, 0.58, 1.65, 14.0, 0.3)).all()
    assert np.max(rows, axis=0)[3] > 20


def test_smaller_limits_make_smaller_motions():
    scenes = TrainingScenes(0, 20, max_disparity=48, max_flow=20, effects=0, **SMALL)
    known = []
    for index in range(6):
        occ = scenes[index].ground_truth.occ
        assert np.nanmax(occ.disparity) <= 48
        assert np.nanmax(np.linalg.norm(occ.flow, axis=-1)) <= 20
        known.append(np.isfinite(occ.disparity + occ.flow[..., 0]).mean())
    assert np.mean(known) > 0.85


def test_sensor_effects_leave_the_truth_alone():
    pair = [TrainingScenes(3, 5, effects=e, **SMALL)[2] for e in (0, 1)]
    assert (pair[0].ground_truth.occ.flow == pair[1].ground_truth.occ.flow)[
        np.isfinite(pair[0].ground_truth.occ.flow)
    ].all()
    assert (pair[0].previous.left != pair[1].previous.left).mean() > 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"count": 0}, "count is 0"),
        ({"width": 10}, "width is 10, expected 64"),
        ({"max_disparity": 4}, "max_disparity is 4"),
        ({"max_flow": float("nan")}, "max_flow is nan"),
        ({"drives": 2}, "drives is 2"),
        ({"textures": 500}, "textures: 500"),
        ({"images": "/nowhere/photos"}, "/nowhere/photos is no folder"),
    ],
)
def test_bad_settings_are_reported_in_one_line(settings, message):
    with pytest.raises(InputError, match=message) as error:
        TrainingScenes(**settings)
    assert "\n" not in str(error.value)
