"""Disparity to depth and points, optical flow to 3D motion; knows cameras, nothing of ROS or Keras.

Points are in the left camera's optical frame (REP-103): x right, y down, z forward, m. Unknown is NaN (REP-117).
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from dwarf_ros.types import InputError, SceneFlow, StereoCamera, StereoFrame

_SMALLEST = np.nextafter(np.float32(0), np.float32(1))


def least_parallax(
    camera: StereoCamera, max_depth: float = np.inf, min_disparity: float = 0.0
) -> np.float32:
    """The smallest parallax, px, that is at least min_disparity, px, and no farther than max_depth, m; > 0."""
    farthest = camera.fx * camera.baseline / max_depth
    return np.float32(max(min_disparity, farthest, float(_SMALLEST)))


_BLOCK = 32
"""Rows."""


def depth_from_disparity(
    disparity: np.ndarray,
    camera: StereoCamera,
    least_parallax: np.float32 = _SMALLEST,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Depth along the optical axis.

    Args:
        disparity: x_left - x_right, px, any shape; NaN where unknown.
        camera: the pair it was measured with.
        least_parallax: smaller parallaxes are unknown, px, > 0.
        out: float32 array of the same shape to write to.

    Returns:
        ``fx * baseline / parallax``, m, float32, same shape, with the parallax ``disparity - (cx - cx_right)``; NaN where
        the disparity is unknown or the parallax is smaller than least_parallax.
    """
    offset = np.float32(camera.cx - camera.cx_right)
    parallax = np.asarray(disparity, dtype=np.float32) - offset
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.divide(np.float32(camera.fx * camera.baseline), parallax, out=out)
    _clear_unless(parallax >= least_parallax, depth)
    return depth


def _clear_unless(known: np.ndarray, values: np.ndarray) -> None:
    """Set float32 values to NaN where they are not known; setting all bits is several times faster than a mask."""
    bits = known.astype(np.int32)
    bits -= 1
    np.bitwise_or(values.view(np.int32), bits, out=values.view(np.int32))


def disparity_from_depth(depth: np.ndarray, camera: StereoCamera) -> np.ndarray:
    """Disparity x_left - x_right, px, of points at the given depth, m; the inverse of `depth_from_disparity`."""
    return camera.fx * camera.baseline / depth + (camera.cx - camera.cx_right)


def back_project(
    x: np.ndarray, y: np.ndarray, depth: np.ndarray, camera: StereoCamera
) -> np.ndarray:
    """Points seen at pixel columns x and rows y at the given depth, m; float32, broadcast shape + (3,)."""
    shape = np.broadcast_shapes(np.shape(x), np.shape(y), np.shape(depth))
    points = np.empty((*shape, 3), dtype=np.float32)
    np.multiply((x - camera.cx) / camera.fx, depth, out=points[..., 0], casting="same_kind")
    np.multiply((y - camera.cy) / camera.fy, depth, out=points[..., 1], casting="same_kind")
    points[..., 2] = depth
    return points


def points_from_depth(depth: np.ndarray, camera: StereoCamera) -> np.ndarray:
    """Organised points of a depth map: H x W, m, to H x W x 3, m, float32; NaN where the depth is NaN."""
    rows, columns = _pixel_grid(depth.shape)
    return back_project(columns, rows, depth, camera)


def scene_flow_points(scene_flow: SceneFlow) -> tuple[np.ndarray, np.ndarray]:
    """Position of every pixel in both frames.

    Returns:
        points: at the reference's time, float32 H x W x 3, m; NaN where the disparity is unknown.
        points_next: the same surface points at the other frame's time, in the camera's frame of that time, float32
            H x W x 3, m; NaN where the scene flow is not valid.

    Raises:
        InputError: the scene flow has no camera.
    """
    camera = _camera_of(scene_flow)
    points = points_from_depth(depth_from_disparity(scene_flow.disparity, camera), camera)
    rows, columns = _pixel_grid(scene_flow.disparity.shape)
    depth_next = depth_from_disparity(
        np.where(scene_flow.valid, scene_flow.disparity_next, np.float32(np.nan)), camera
    )
    points_next = back_project(
        columns + scene_flow.flow[..., 0], rows + scene_flow.flow[..., 1], depth_next, camera
    )
    return points, points_next


def velocities(scene_flow: SceneFlow) -> np.ndarray:
    """Velocity of every pixel's surface point relative to the camera, forward in time.

    Returns:
        float32 H x W x 3, m/s, in the left camera's optical frame; NaN where the scene flow is not valid. A negative
        dt (the reference is the newer frame) turns the motion round, so that the velocity still points forward in time.

    Raises:
        InputError: the scene flow has no camera, or dt is 0.
    """
    points, points_next = scene_flow_points(scene_flow)
    return velocities_between(points, points_next, scene_flow.dt)


def velocities_between(points: np.ndarray, points_next: np.ndarray, dt: float) -> np.ndarray:
    """Velocity, m/s, of points, m, that are at points_next, m, after dt, s (negative: before)."""
    _check_dt(dt)
    return (points_next - points) * np.float32(1.0 / dt)


def _check_dt(dt: float) -> None:
    if dt == 0:
        raise InputError("scene flow: dt is 0 s, expected two frames of different times")


def position_and_velocity_planes(
    scene_flow: SceneFlow,
    rows: slice,
    columns: slice,
    max_depth: float = np.inf,
    min_disparity: float = 0.0,
    over_ground: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Positions and velocities of some pixels, as of `scene_flow_points` and `velocities`, but plane by plane and faster.

    Args:
        scene_flow: with a camera and dt != 0.
        rows: of the pixels; a block that fits into the processor's cache is fastest.
        columns: of the pixels.
        max_depth: farther points are unknown, m.
        min_disparity: points of smaller disparity are unknown, px.
        over_ground: velocities against the static scene, where the scene flow's ego-motion is known, instead of the
            camera.

    Returns:
        position: x, y and z in m, each float32 rows x columns; NaN where unknown.
        velocity: vx, vy and vz in m/s, forward in time, the same; NaN also where the scene flow is not valid.

    Raises:
        InputError: the scene flow has no camera, or dt is 0.
    """
    camera = _camera_of(scene_flow)
    _check_dt(scene_flow.dt)
    height, width = scene_flow.disparity.shape
    y, x = (
        ((np.arange(size)[part] - center) / focal_length).astype(np.float32)
        for size, part, center, focal_length in (
            (height, rows, camera.cy, camera.fy),
            (width, columns, camera.cx, camera.fx),
        )
    )
    nearest = least_parallax(camera, max_depth, min_disparity)
    z = depth_from_disparity(scene_flow.disparity[rows, columns], camera, nearest)
    position = [z * x[None], z * y[:, None], z]
    z_next = depth_from_disparity(scene_flow.disparity_next[rows, columns], camera)
    _clear_unless(scene_flow.valid[rows, columns], z_next)
    u, v = cv2.split(np.ascontiguousarray(scene_flow.flow[rows, columns]))
    for component, slope, focal_length in ((u, x[None], camera.fx), (v, y[:, None], camera.fy)):
        component *= np.float32(1 / focal_length)
        component += slope
        component *= z_next
    velocity = [u, v, z_next]
    ego_motion = scene_flow.ego_motion
    if over_ground and ego_motion is not None and ego_motion.transform is not None:
        back = np.linalg.inv(ego_motion.transform).astype(np.float32)
        velocity = [row[0] * u + row[1] * v + row[2] * z_next + row[3] for row in back[:3]]
    for component, before in zip(velocity, position, strict=True):
        component -= before
        component *= np.float32(1.0 / scene_flow.dt)
    return position, velocity


def rigid_scene_flow(
    disparity: np.ndarray, camera: StereoCamera, motion: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image motion of a scene that stands still while the camera moves.

    Args:
        disparity: at the reference's time, px, H x W; NaN where unknown.
        camera: the pair it was measured with.
        motion: 4x4 rigid motion of points from the reference's camera frame to the other's, as `EgoMotion.transform`.

    Returns:
        flow: float32 H x W x 2, px, and disparity_next: float32 H x W, px, as in `SceneFlow`; NaN where the disparity
            is unknown or the point ends behind the camera.
    """
    rows, columns = _pixel_grid(disparity.shape)
    flow = np.empty((*disparity.shape, 2), dtype=np.float32)
    disparity_next = np.empty(disparity.shape, dtype=np.float32)
    # Block by block, so that what is in between stays in the processor's cache.
    for top in range(0, disparity.shape[0], _BLOCK):
        part = slice(top, top + _BLOCK)
        x, y, disparity_next[part], _ = rigid_prediction(
            columns, rows[part], disparity[part], camera, motion
        )
        np.subtract(x, columns, out=flow[part, :, 0])
        np.subtract(y, rows[part], out=flow[part, :, 1])
    return flow, disparity_next


def rigid_prediction(
    columns: np.ndarray,
    rows: np.ndarray,
    disparity: np.ndarray,
    camera: StereoCamera,
    motion: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where points are seen after a rigid motion.

    Args:
        columns: of the points in the reference's left image, px, float32, of a shape that broadcasts to the disparity's.
        rows: the same.
        disparity: of the points at the reference's time, px, float32; NaN where unknown.
        camera: the pair it was measured with.
        motion: 4x4 rigid motion of points from the reference's camera frame to the other's.

    Returns:
        columns, rows and disparities in the other frame, px, float32; NaN where the disparity is unknown or says that the
        point is beyond infinity, or where the point ends behind the camera; and by what the depth is multiplied, float32.
    """
    # In homogeneous pixel coordinates over depth: moved = turn (x, y, 1) + shift / depth. This is exact at infinity.
    project = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    turn = (project @ motion[:3, :3] @ np.linalg.inv(project)).astype(np.float32)
    gain = camera.fx * camera.baseline
    shift = (project @ motion[:3, 3] / gain).astype(np.float32)
    offset = np.float32(camera.cx - camera.cx_right)
    parallax = disparity - offset
    with np.errstate(invalid="ignore"):
        parallax[~(parallax >= 0)] = np.nan
        moved = []
        for axis in range(3):
            value = shift[axis] * parallax
            value += turn[axis, 0] * columns + (turn[axis, 1] * rows + turn[axis, 2])
            moved.append(value)
        x, y, scale = moved
        scale[~(scale > 1e-6)] = np.nan
        inverse = 1 / scale
        x *= inverse
        y *= inverse
        parallax *= inverse
    parallax += offset
    return x, y, parallax, scale


def velocities_over_ground(scene_flow: SceneFlow, motion: np.ndarray) -> np.ndarray:
    """Velocity of every pixel's surface point over ground, forward in time.

    Args:
        scene_flow: with a camera.
        motion: 4x4, of the camera, as `EgoMotion.transform`.

    Returns:
        float32 H x W x 3, m/s, along the axes of the reference's camera frame; NaN where the scene flow is not valid.

    Raises:
        InputError: the scene flow has no camera, or dt is 0.
    """
    points, points_next = scene_flow_points(scene_flow)
    back = np.linalg.inv(motion).astype(np.float32)
    return velocities_between(points, points_next @ back[:3, :3].T + back[:3, 3], scene_flow.dt)


def aligned_camera(camera: StereoCamera | None) -> StereoCamera | None:
    """The camera with `cx_right` equal to `cx`; the same object where there is none or they agree within 1/32 px."""
    if camera is None or abs(camera.cx - camera.cx_right) < 1 / 32:
        return camera
    return replace(camera, cx_right=camera.cx)


def aligned_frame(frame: StereoFrame) -> StereoFrame:
    """The frame with its right image shifted so that points at infinity have disparity 0.

    Rectification need not give both images one principal point, but stereo matching searches from 0 px upwards.

    Returns:
        The frame of `aligned_camera`, the right image's border repeated where nothing was seen; the same object where
        its camera needs no change.
    """
    camera, aligned = frame.camera, aligned_camera(frame.camera)
    if camera is None or aligned is camera:
        return frame
    shift = np.array([[1, 0, camera.cx - camera.cx_right], [0, 1, 0]])
    right = cv2.warpAffine(
        frame.right,
        shift,
        (camera.width, camera.height),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return replace(frame, right=right, camera=aligned)


def mirrored_frame(frame: StereoFrame) -> StereoFrame:
    """The frame with its images exchanged and mirrored, which is a stereo frame again.

    The disparity estimated of it, mirrored back (``[:, ::-1]``), is the disparity of the given frame's right image.
    """
    camera = frame.camera
    if camera is not None:
        last = camera.width - 1
        camera = replace(camera, cx=last - camera.cx_right, cx_right=last - camera.cx)
    return replace(frame, left=frame.right[:, ::-1], right=frame.left[:, ::-1], camera=camera)


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear interpolation.

    Args:
        image: float32 H x W or H x W x C.
        x: columns, px, float32; NaN where unknown.
        y: rows, the same.

    Returns:
        float32, the shape of x (and C); NaN where the place is unknown or not between the centres of the image's first
        and last pixels, or where one of the four pixels around it is NaN.
    """
    height, width = image.shape[:2]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = np.where(inside, x, 0), np.where(inside, y, 0)
    # The last column and row are reached with the full weight of the right and lower neighbour.
    x0 = np.minimum(x.astype(np.int32), max(width - 2, 0))
    y0 = np.minimum(y.astype(np.int32), max(height - 2, 0))
    right, below = min(1, width - 1), min(1, height - 1) * width
    pixels = image.reshape(height * width, *image.shape[2:])
    index = y0 * width + x0
    weight_x, weight_y = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    if image.ndim == 3:
        weight_x, weight_y = weight_x[..., None], weight_y[..., None]

    def between(left: np.ndarray) -> np.ndarray:
        value = pixels.take(left, axis=0)
        return value + weight_x * (pixels.take(left + right, axis=0) - value)

    upper, lower = between(index), between(index + below)
    found = upper + weight_y * (lower - upper)
    found[~inside] = np.nan
    return found


def left_right_error(
    disparity: np.ndarray, right_disparity: np.ndarray, flow: np.ndarray | None = None
) -> np.ndarray:
    """How far a pixel's disparity is from that of the right image's pixel it leads to.

    Args:
        disparity: of a left image's points, px, float32 H x W; NaN where unknown.
        right_disparity: of the right image of that time, x_left - x_right at each of its pixels, px, float32 H x W; NaN
            where unknown.
        flow: where the points are in the left image of that time, from where they are in the array, px, float32 H x W x 2;
            None where they have not moved.

    Returns:
        absolute differences, px, float32 H x W; NaN where a disparity is unknown or the partner is outside the right
        image. Points hidden from the right camera have one too.
    """
    rows, columns = _pixel_grid(disparity.shape)
    x, y = columns - disparity, np.broadcast_to(rows, disparity.shape)
    if flow is not None:
        x, y = x + flow[..., 0], y + flow[..., 1]
    return np.abs(sample(right_disparity, x, y) - disparity)


def forward_backward_error(flow: np.ndarray, backward_flow: np.ndarray) -> np.ndarray:
    """How far from a pixel the way along the flow and back ends.

    Args:
        flow: from one image to another, px, float32 H x W x 2; NaN where unknown.
        backward_flow: the same from the other image to the one.

    Returns:
        distances, px, float32 H x W; NaN where a flow is unknown or the target is outside the other image. Points hidden
        in the other image have one too.
    """
    rows, columns = _pixel_grid(flow.shape[:2])
    back = sample(backward_flow, columns + flow[..., 0], rows + flow[..., 1])
    return np.hypot(flow[..., 0] + back[..., 0], flow[..., 1] + back[..., 1])


def _camera_of(scene_flow: SceneFlow) -> StereoCamera:
    if scene_flow.camera is None:
        raise InputError("scene flow: no camera, expected a calibration to compute 3D points")
    return scene_flow.camera


def _pixel_grid(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape
    rows = np.arange(height, dtype=np.float32)[:, None]
    columns = np.arange(width, dtype=np.float32)[None, :]
    return rows, columns
