"""Objects and the motion mask on the camera image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwarf_ros.types import MOVING, STATIC, UNKNOWN, EgoMotion
from dwarf_ros.visualization.objects import (
    camera_speed,
    draw_objects,
    motion_note,
    object_color,
    object_label,
    paint_motion_mask,
)


@pytest.mark.parametrize("scale", [1, 2])
def test_boxes_are_around_the_objects_at_any_size(moving_object, scale):
    image = np.full((80 * scale, 160 * scale, 3), 100, np.uint8)
    picture = draw_objects(image, [moving_object()], (80, 160))
    assert picture.shape == image.shape
    changed = (picture != image).any(-1)
    # The label is above the box, which starts in row 30 and column 60.
    box = changed[30 * scale : 50 * scale, 60 * scale : 100 * scale]
    assert box.all()
    assert not changed[53 * scale :].any()
    assert not changed[:, : 57 * scale].any()
    assert changed[: 29 * scale].any()
    assert (image == 100).all()


def test_labels_do_not_cover_each_other(moving_object):
    image = np.zeros((200, 400, 3), np.uint8)
    two = [
        moving_object(1, box=(100, 80, 40, 20)),
        moving_object(2, box=(110, 82, 40, 20), position=(0, 30)),
    ]
    picture = draw_objects(image, two, (200, 400), tint=0.0)
    for item in two:
        assert (picture == object_color(item.id)).all(-1).sum() > 600


def test_objects_without_pixels_are_left_out(moving_object):
    image = np.full((80, 160, 3), 100, np.uint8)
    missed = replace(moving_object(), mask=None, box=None)
    assert np.array_equal(draw_objects(image, [missed], (80, 160)), image)


def test_labels_name_id_and_speed(moving_object):
    assert object_label(moving_object(velocity=(3.0, 4.0))) == "#3 5.0 m/s"
    assert object_color(1) == object_color(9) != object_color(2)


def test_the_mask_dims_the_unknown_and_tints_what_moves():
    left = np.full((1, 3, 3), 200, np.uint8)
    static, unknown, moving = paint_motion_mask(
        left, np.array([[STATIC, UNKNOWN, MOVING]], np.uint8)
    )[0].astype(int)
    assert (static == 200).all()
    assert (unknown == 60).all()
    assert moving[0] > moving[2] + 80


def test_the_note_has_the_speed_or_the_reason(scene, moving_object):
    scene_flow = scene(-0.1)
    assert camera_speed(scene_flow) == pytest.approx(3.0)
    assert motion_note(scene_flow, []) == "camera 3.0 m/s, no moving objects"
    assert motion_note(scene_flow, [moving_object()]) == "camera 3.0 m/s, 1 moving object"
    unknown = replace(scene_flow, ego_motion=EgoMotion(reason="too little texture"))
    assert motion_note(unknown, []) == "no ego-motion: too little texture"
    assert camera_speed(scene(0.0)) is None
    assert motion_note(scene(0.0), []) == "camera moved 0.30 m, time unknown"
