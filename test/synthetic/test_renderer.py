"""Views of flat and curved surfaces against closed forms and against casting every ray at every surface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwarf_ros.synthetic.renderer import View
from dwarf_ros.synthetic.scene import (
    CYLINDER,
    ELLIPSOID,
    Finish,
    Polygon,
    Quadric,
    Scene,
    frustum,
)
from dwarf_ros.synthetic.shading import render
from dwarf_ros.synthetic.textures import texture_bank
from dwarf_ros.types import StereoCamera

CAMERA = StereoCamera(100.0, 100.0, 47.5, 31.5, 47.5, 0.5, 96, 64)
PLAIN = Finish(texture=0, texels=100.0)
SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
X, Y = np.eye(3)[:2]


def at(x=0.0, y=0.0, z=0.0):
    pose = np.eye(4)
    pose[:3, 3] = x, y, z
    return pose


def add_card(scene, pose, half, along=X, up=Y, facing=0, finish=PLAIN):
    body = scene.add_standing(pose)
    scene.polygons.append(Polygon(body, np.zeros(3), along, up, SQUARE * half, finish, facing))


def pixels():
    y, x = np.mgrid[: CAMERA.height, : CAMERA.width].astype(float)
    return x.ravel(), y.ravel()


def random_scene(seed):
    rng = np.random.default_rng(seed)
    scene = Scene()
    add_card(scene, at(z=12), 100)
    for _ in range(25):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        pose = at(*rng.uniform(-2, 2, 2), rng.uniform(2, 9))
        pose[:3, :3] = turn
        body = scene.add_standing(pose)
        if rng.random() < 0.5:
            angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 8))))
            corners = rng.uniform(0.3, 2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            scene.polygons.append(Polygon(body, np.zeros(3), X, Y, corners, PLAIN))
        else:
            frame = np.diag([*rng.uniform(0.1, 0.9, 3), 1])
            form = (ELLIPSOID, CYLINDER, frustum(rng.uniform(0, 0.9)))[rng.integers(3)]
            scene.quadrics.append(Quadric(body, frame, form, PLAIN))
    return scene


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_each_pixel_sees_the_nearest_of_all_surfaces(seed, offset):
    view = View(random_scene(seed), 0, offset, CAMERA)
    x, y = pixels()
    count = len(view.scene.objects())
    depths = np.stack([view.cast(np.full(x.size, k), x, y) for k in range(count)])
    nearest = depths.argmax(axis=0)
    drawn = view.surface.ravel()
    # Rays that graze an outline, or where two surfaces cross, may go either way.
    order = np.sort(depths, axis=0)
    clear = order[-1] > order[-2] * (1 + 1e-5)
    assert (drawn != nearest)[clear].mean() < 2e-3
    same = drawn == nearest
    np.testing.assert_allclose(
        view.inverse_depth.ravel()[same], depths.max(axis=0)[same], rtol=2e-6
    )
    assert len(np.unique(drawn)) > 8


def test_depths_of_a_ball_and_of_a_slanted_plane():
    scene = Scene()
    body = scene.add_standing(at(z=5))
    scene.quadrics.append(Quadric(body, np.diag([2.0, 2.0, 2.0, 1.0]), ELLIPSOID, PLAIN))
    view = View(scene, 0, 0.0, CAMERA)
    x, y = pixels()
    ray = np.stack([(x - 47.5) / 100, (y - 31.5) / 100, np.ones_like(x)])
    ray /= np.linalg.norm(ray, axis=0)
    along = 5 * ray[2]
    square = along**2 - (25 - 4)
    hit = square > 0
    distance = along - np.sqrt(np.where(hit, square, 0))
    assert ((view.surface.ravel() == 0) == hit).all()
    np.testing.assert_allclose(
        view.inverse_depth.ravel()[hit], 1 / (distance * ray[2])[hit], rtol=1e-6
    )

    scene = Scene()
    slope = np.array([0, np.cos(0.7), np.sin(0.7)])
    add_card(scene, at(z=6), 3, up=slope)
    view = View(scene, 0, 0.0, CAMERA)
    seen = view.surface.ravel() == 0
    # The plane through (0, 0, 6): z = 6 + y tan(0.7), and y = z (row - 31.5) / 100.
    expected = (1 - np.tan(0.7) * (y - 31.5) / 100) / 6
    np.testing.assert_allclose(view.inverse_depth.ravel()[seen], expected[seen], rtol=1e-6)
    assert 0.2 < seen.mean() < 1


def test_crossing_cards_meet_where_they_are_equally_far():
    scene = Scene()
    for sign in (-1, 1):
        add_card(scene, at(z=6), 4, along=np.array([np.cos(0.6), 0, sign * np.sin(0.6)]))
    view = View(scene, 0, 0.0, CAMERA)
    # Each is nearer on its own side of the middle column, 47.5.
    assert (view.surface[:, 2:47] == 1).all()
    assert (view.surface[:, 49:94] == 0).all()


def test_what_a_card_hides_of_a_wall_is_as_wide_as_their_disparities_differ():
    scene = Scene()
    add_card(scene, at(z=10), 20)
    add_card(scene, at(z=2.5), 0.5)
    left, right = View(scene, 0, 0.0, CAMERA), View(scene, 0, CAMERA.baseline, CAMERA)
    x, y = pixels()
    inverse = left.inverse_depth.ravel().astype(float)
    disparity = CAMERA.fx * CAMERA.baseline * inverse
    hidden = right.hides(left.surface.ravel(), x - disparity, y, inverse).reshape(64, 96)
    # The card: disparity 20, columns 47.5 +- 20; the wall: disparity 5; so 15 columns on its left, and the image's edge.
    assert (left.surface[32, 28:68] == 1).all()
    expected = np.zeros(96, bool)
    expected[:5] = True
    expected[28 - 15 : 28] = True
    assert (hidden[32] == expected).all()
    assert (hidden[2] == (np.arange(96) < 5)).all()


def test_the_far_side_of_a_ball_is_hidden_by_itself():
    scene = Scene()
    before, after = at(z=5), at(z=5)
    after[:3, :3] = [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]
    body = scene.add_moving(np.stack([before, after]))
    scene.quadrics.append(Quadric(body, np.diag([1.0, 1.0, 1.0, 1.0]), ELLIPSOID, PLAIN))
    view = View(scene, 1, 0.0, CAMERA)
    number, x, y = np.zeros(2, int), np.full(2, 47.5), np.full(2, 31.5)
    assert view.hides(number, x, y, np.array([1 / 4, 1 / 6])).tolist() == [False, True]
    # Between pixels, where it is at its nearest.
    np.testing.assert_allclose(view.cast(number, x, y), 1 / 4)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_hidden_is_what_any_surface_is_before(seed):
    scene = random_scene(seed)
    left, right = View(scene, 0, 0.0, CAMERA), View(scene, 0, CAMERA.baseline, CAMERA)
    x, y = pixels()
    inverse = left.inverse_depth.ravel().astype(float)
    number = left.surface.ravel().astype(int)
    there = x - CAMERA.fx * CAMERA.baseline * inverse
    hidden = right.hides(number, there, y, inverse)
    nearest = np.max(
        [right.cast(np.full(x.size, k), there, y) for k in range(len(right.scene.objects()))],
        axis=0,
    )
    inside = (there >= 0) & (there <= CAMERA.width - 1)
    assert hidden[~inside].all()
    # Only what is seen at the pixels about a point is looked at.
    assert (hidden != (nearest > inverse * (1 + 1e-4)))[inside].mean() < 0.01
    assert 0.03 < hidden[inside].mean() < 0.6


def test_faces_turned_away_are_not_seen():
    for facing, seen in ((0, True), (1, False), (-1, True)):
        scene = Scene()
        # cross(x, y) points away from the camera.
        add_card(scene, at(z=3), 1, facing=facing)
        assert (View(scene, 0, 0.0, CAMERA).surface == 0).any() == seen


def test_an_outline_shares_its_pixels():
    bank = texture_bank(0, 1)
    white = Finish(texture=0, texels=1.0, gain=(0, 0, 0), offset=(200, 200, 200))
    black = Finish(texture=0, texels=1.0, gain=(0, 0, 0))
    for shift in (0.0, 0.1, 0.25, 0.4):
        scene = Scene()
        add_card(scene, at(z=10), 20, finish=black)
        # 20 px wide about column 47.5 + shift: its left edge goes through the pixel of column 38.
        add_card(scene, at(x=shift / 50, z=2), 0.2, finish=white)
        row = render(View(scene, 0, 0.0, CAMERA), bank)[32, :, 0].astype(float)
        assert abs(row.sum() / 200 - 20) < 0.02
        assert abs(row[38] - 200 * (1 - shift)) <= 1
    # Two faces of one box: no darker line where they meet.
    scene = Scene()
    add_card(scene, at(z=10), 20, finish=black)
    body = scene.add_standing(at(z=4))
    for sign in (-1, 1):
        along = np.array([np.cos(0.5), 0, sign * np.sin(0.5)])
        corners = np.array([(0, -0.5), (sign * 0.5, -0.5), (sign * 0.5, 0.5), (0, 0.5)])
        origin = np.array([0.007, 0, 0])
        scene.polygons.append(Polygon(body, origin, along, Y, corners, white))
    image = render(View(scene, 0, 0.0, CAMERA), bank)
    assert (image[24:40, 40:56] == 200).all()


def test_textures_are_not_aliased():
    bank = texture_bank(0, 1)
    scene = Scene()
    # A ground seen at a grazing angle, many texels per pixel far off.
    ground = Finish(texture=0, texels=400.0)
    add_card(scene, at(y=1.0, z=50), 49.9, up=np.array([0, 0, 1.0]), finish=ground)
    image = render(View(scene, 0, 0.0, CAMERA), bank).astype(float)
    rows = View(scene, 0, 0.0, CAMERA).surface[:, 48] == 0
    far = np.flatnonzero(rows)[:6]
    assert np.abs(image[far].mean(axis=1) - bank.mean[0]).max() < 12
    near = image[-4:].std()
    assert image[far].std(axis=1).max() < max(0.6 * near, 3)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(left=st.floats(-1.0, 0.9), width=st.floats(0.001, 1.0), opacity=st.floats(0, 1))
def test_a_decal_covers_its_part_of_each_pixel(left, width, opacity):
    scene = Scene()
    add_card(scene, at(z=2), 10, finish=replace(PLAIN, gain=(0, 0, 0)))
    # Behind the card: it is painted on it all the same, and on nothing else.
    paint = Finish(texture=0, texels=1.0, offset=(200, 200, 200))
    corners = np.array([(left, -1), (left + width, -1), (left + width, 1), (left, 1)])
    scene.add_decal(Polygon(0, np.array([0, 0, 0.001]), X, Y, corners, paint), 0, opacity)
    view = View(scene, 0, 0.0, CAMERA)
    assert (view.surface == 0).all()
    row = render(view, texture_bank(0, 1))[32, :, 0].astype(float)
    edges = 47.5 + 100 * np.array([left, left + width]) / 2.001
    columns = np.arange(96)
    covered = np.clip(
        np.minimum(edges[1], columns + 0.5) - np.maximum(edges[0], columns - 0.5), 0, 1
    )
    assert np.abs(row - 200 * opacity * covered).max() <= 0.51


def test_decals_on_other_surfaces_and_out_of_view_change_nothing():
    scene = Scene()
    add_card(scene, at(z=2), 10)
    plain = render(View(scene, 0, 0.0, CAMERA), texture_bank(0, 1))
    for surface, z in ((1, 0.0), (0, -5.0)):
        scene.add_decal(Polygon(0, np.array([0, 0, z]), X, Y, SQUARE, PLAIN), surface, 1.0)
    assert (render(View(scene, 0, 0.0, CAMERA), texture_bank(0, 1)) == plain).all()
