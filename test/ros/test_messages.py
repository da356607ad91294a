"""Messages to arrays and back, with the conventions that are easy to get wrong."""

from __future__ import annotations

import array
import math
import struct
import sys
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs")

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from dwarf_ros import geometry
from dwarf_ros.recordings import camera_messages
from dwarf_ros.recordings.scene_flow_messages import scene_flow_from_message
from dwarf_ros.ros import messages
from dwarf_ros.types import InputError, SceneFlow, StereoCamera

CAMERA = StereoCamera(
    fx=100.0, fy=110.0, cx=20.0, cy=11.0, cx_right=23.0, baseline=0.4, width=40, height=24
)
NOT_A_NUMBER = np.float32(np.nan)


def scene_flow(dt: float = -0.1, camera: StereoCamera | None = CAMERA) -> SceneFlow:
    rng = np.random.default_rng(3)
    disparity = rng.uniform(4, 30, (24, 40)).astype(np.float32)
    disparity_next = disparity + rng.normal(0, 0.5, (24, 40)).astype(np.float32)
    flow = rng.normal(0, 3, (24, 40, 2)).astype(np.float32)
    disparity[0, :5] = NOT_A_NUMBER
    flow[1, :5] = NOT_A_NUMBER
    valid = np.isfinite(disparity) & np.isfinite(flow[..., 0])
    valid[2, :5] = False
    return SceneFlow(
        disparity,
        disparity_next,
        flow,
        valid,
        stamp=1_700_000_000_123_456_789,
        dt=dt,
        camera=camera,
        frame_id="left_optical",
    )


def pixels(message: Image, dtype: type, channels: int) -> np.ndarray:
    shape = (message.height, message.width, channels)
    return np.frombuffer(message.data, dtype).reshape(shape).squeeze()


def result_or_error(call: Callable, *arguments: object) -> object:
    """What a call returns, or the InputError that it raises; any other exception fails the test."""
    try:
        return call(*arguments)
    except InputError as error:
        return error


# Stamps


@given(st.integers(-(2**31) * 10**9, 2**31 * 10**9 - 1))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_a_stamp_keeps_every_nanosecond(ns):
    stamp = messages.stamp_from_ns(ns)
    assert 0 <= stamp.nanosec < 10**9
    assert messages.ns_from_stamp(stamp) == ns


@pytest.mark.parametrize("ns", [2**31 * 10**9, -(2**31) * 10**9 - 1])
def test_a_time_beyond_a_stamp_is_refused(ns):
    with pytest.raises(InputError, match=f"stamp: {ns} ns"):
        messages.stamp_from_ns(ns)


# Camera images

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14
GREY = RGB[..., 0]
GREY16 = GREY.astype(np.uint16) * 257 + 1
ALPHA = np.full((2, 3, 1), 9, np.uint8)


@pytest.mark.parametrize(
    ("encoding", "sent", "expected"),
    [
        ("mono8", GREY, GREY),
        ("8UC1", GREY, GREY),
        ("mono16", GREY16, GREY16),
        ("16UC1", GREY16, GREY16),
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", np.concatenate([RGB, ALPHA], axis=2), RGB),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], axis=2), RGB),
    ],
)
@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("big_endian", [False, True])
def test_every_encoding_comes_out_grey_or_rgb(encoding, sent, expected, padding, big_endian):
    wire = sent.astype(sent.dtype.newbyteorder(">" if big_endian else "<"))
    rows = [row.tobytes() + b"\xee" * padding for row in wire]
    message = Image(height=2, width=3, encoding=encoding, step=len(rows[0]))
    message.is_bigendian = int(big_endian)
    message.data = array.array("B", b"".join(rows))
    image = camera_messages.image_from_message(message)
    assert image.dtype == expected.dtype
    np.testing.assert_array_equal(image, expected)
    # The last row's padding may be missing.
    message.data = message.data[: len(message.data) - padding]
    np.testing.assert_array_equal(camera_messages.image_from_message(message), expected)


@pytest.mark.parametrize("tile", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_bayer_mosaic_of_one_colour_comes_out_in_that_colour(tile, bits):
    colour = {"r": 200, "g": 120, "b": 40}
    scale = 257 if bits == 16 else 1
    cell = np.array([[colour[tile[0]], colour[tile[1]]], [colour[tile[2]], colour[tile[3]]]])
    mosaic = np.tile(cell * scale, (4, 4)).astype(np.uint16 if bits == 16 else np.uint8)
    message = messages.image_message(mosaic, 0, "camera", f"bayer_{tile}{bits}")
    image = camera_messages.image_from_message(message)
    assert image.dtype == mosaic.dtype
    expected = np.array([colour[c] * scale for c in "rgb"])
    np.testing.assert_array_equal(image[2:-2, 2:-2], np.broadcast_to(expected, (4, 4, 3)))


# Compressed images


def compressed(
    image: np.ndarray, extension: str, format_: str = "rgb8; jpeg compressed bgr8"
) -> CompressedImage:
    bgr = image[..., ::-1] if image.ndim == 3 else image
    file = cv2.imencode(extension, np.ascontiguousarray(bgr))[1]
    message = CompressedImage(format=format_)
    message.data = array.array("B", file.tobytes())
    return message


@pytest.mark.parametrize("image", [GREY, RGB, GREY16])
def test_a_png_comes_out_to_the_last_bit_and_says_its_size(image):
    message = compressed(image, ".png")
    back = camera_messages.image_from_compressed(message)
    assert back.dtype == image.dtype
    np.testing.assert_array_equal(back, image)
    assert camera_messages.compressed_image_size(message.data) == (3, 2)


@pytest.mark.parametrize("shape", [(24, 40), (24, 40, 3)])
def test_a_jpeg_comes_out_nearly_and_says_its_size(shape):
    image = np.full(shape, 90, np.uint8)
    image[..., :10, :] = 200
    message = compressed(image, ".jpg")
    back = camera_messages.image_from_compressed(message)
    assert back.shape == shape
    assert np.abs(back.astype(int) - image).mean() < 3
    assert camera_messages.compressed_image_size(message.data) == (40, 24)


def test_a_jpegs_colours_are_not_swapped():
    image = np.zeros((16, 16, 3), np.uint8)
    image[...] = (200, 100, 20)
    back = camera_messages.image_from_compressed(compressed(image, ".jpg"))
    np.testing.assert_allclose(back, image, atol=4)


def test_a_compressed_bayer_mosaic_comes_out_in_colour():
    mosaic = np.tile(np.array([[200, 120], [120, 40]], np.uint8), (4, 4))
    message = compressed(mosaic, ".png", "bayer_rggb8; png compressed ")
    image = camera_messages.image_from_compressed(message)
    np.testing.assert_array_equal(image[2:-2, 2:-2], np.broadcast_to([200, 120, 40], (4, 4, 3)))


def png_header(side: int) -> bytes:
    """The start of a PNG of side x side px, 8-bit RGB."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + header + check


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "top: data starts with , expected a JPEG or a PNG"),
        (b"GIF89a", "top: data starts with 47494638, expected a JPEG or a PNG"),
        (b"\x89PNG\r\n\x1a\n", "top: data has 8 bytes and no image size"),
        (b"\xff\xd8\xff\xe0\x00", "top: data has 5 bytes and no image size"),
        (
            png_header(0x7FFFFFFF),
            "top: size is 2147483647 x 2147483647 px, expected 1 to 67108864 pixels",
        ),
        (
            png_header(1),
            "top: offset 33: PNG is cut short",
        ),
    ],
)
def test_a_compressed_image_that_is_none_is_one_line(data, expected):
    message = CompressedImage(format="png")
    message.data = array.array("B", data)
    with pytest.raises(InputError) as caught:
        camera_messages.image_from_compressed(message, "top")
    assert str(caught.value).startswith(expected)


def spoilt(**changes) -> Image:
    message = messages.image_message(RGB, 0, "camera")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (spoilt(encoding="yuv422"), "top: encoding is 'yuv422', expected one of mono8, "),
        (spoilt(encoding="x" * 5000), "top: encoding is 'xxx"),
        (spoilt(step=8), "top: row step is 8 bytes, expected at least 9 bytes for 3 px of rgb8"),
        (spoilt(data=array.array("B", bytes(17))), "top: data has 17 bytes, expected 18 bytes"),
        (spoilt(data=array.array("B")), "top: data has 0 bytes, expected 18 bytes"),
        (spoilt(height=0), "top: size is 3 x 0 px"),
        (spoilt(width=0), "top: size is 0 x 2 px"),
        (spoilt(height=2**32 - 1), "top: data has 18 bytes"),
    ],
)
def test_an_image_that_is_none_is_one_line(message, expected):
    with pytest.raises(InputError) as caught:
        camera_messages.image_from_message(message, "top")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    height=st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1)),
    width=st.one_of(st.integers(0, 5), st.integers(0, 2**32 - 1)),
    step=st.one_of(st.integers(0, 20), st.integers(0, 2**32 - 1)),
    encoding=st.sampled_from([*camera_messages.IMAGE_ENCODINGS, "", "8UC2", "nonsense"]),
    big_endian=st.integers(0, 255),
    size=st.integers(0, 100),
)
def test_any_image_message_is_an_image_or_one_error(
    height, width, step, encoding, big_endian, size
):
    message = Image(
        height=height, width=width, step=step, encoding=encoding, is_bigendian=big_endian
    )
    message.data = array.array("B", bytes(size))
    image = result_or_error(camera_messages.image_from_message, message)
    if isinstance(image, np.ndarray):
        assert image.shape[:2] == (height, width)
        assert image.dtype in (np.uint8, np.uint16)
    else:
        assert "\n" not in str(image)


@pytest.mark.parametrize(
    ("image", "encoding"),
    [
        (GREY, "mono8"),
        (RGB, "rgb8"),
        (GREY16, "mono16"),
        (GREY.astype(np.float32), "32FC1"),
        (RGB[..., :2].astype(np.float32), "32FC2"),
    ],
)
def test_an_array_goes_out_in_its_natural_encoding(image, encoding):
    message = messages.image_message(image[:, ::-1], 1_500_000_000, "camera")
    assert message.encoding == encoding
    assert (message.height, message.width) == (2, 3)
    assert message.step == len(message.data) // 2
    assert message.is_bigendian == (sys.byteorder == "big")
    assert messages.ns_from_stamp(message.header.stamp) == 1_500_000_000
    assert message.header.frame_id == "camera"
    assert isinstance(message.data, array.array)
    channels = image.shape[2] if image.ndim == 3 else 1
    np.testing.assert_array_equal(pixels(message, image.dtype, channels), image[:, ::-1])


def test_an_array_that_is_no_image_is_refused():
    with pytest.raises(InputError, match=r"image: array is float64 \(2, 3\)"):
        messages.image_message(GREY.astype(np.float64), 0, "camera")
    with pytest.raises(InputError, match=r"image: .*bgr8"):
        messages.image_message(GREY, 0, "camera", "bgr8")


# Cameras


def test_a_camera_survives_the_way_to_two_messages_and_back():
    left, right = messages.camera_info_messages(CAMERA, 5, "left_optical")
    assert camera_messages.camera_from_messages(left, right) == CAMERA
    assert left.header == right.header
    assert left.header.frame_id == "left_optical"
    assert right.p[3] == pytest.approx(-CAMERA.fx * CAMERA.baseline)
    np.testing.assert_array_equal(np.reshape(left.k, (3, 3)), np.reshape(left.p, (3, 4))[:, :3])


def test_the_baseline_is_that_between_both_cameras_not_to_the_origin():
    left, right = messages.camera_info_messages(CAMERA, 0, "camera")
    # The numbers of KITTI's colour cameras.
    left.p[3], right.p[3] = 44.85728, -339.5242
    left.p[0] = right.p[0] = left.p[5] = right.p[5] = 721.5377
    assert camera_messages.camera_from_messages(left, right).baseline == pytest.approx(
        0.53273, abs=1e-5
    )


@given(
    binning=st.sampled_from([(0, 0), (1, 1), (2, 2), (2, 4)]),
    offset=st.tuples(st.integers(0, 10), st.integers(0, 5)),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_binning_and_region_of_interest_keep_every_point_at_its_place(binning, offset):
    left, right = messages.camera_info_messages(CAMERA, 0, "camera")
    for info in (left, right):
        info.binning_x, info.binning_y = binning
        info.roi.x_offset, info.roi.y_offset = offset
        info.roi.width, info.roi.height = 28, 16
    camera = camera_messages.camera_from_messages(left, right)
    scale_x, scale_y = (max(b, 1) for b in binning)
    assert (camera.width, camera.height) == (28 // scale_x, 16 // scale_y)
    assert camera.baseline == pytest.approx(CAMERA.baseline)
    point = np.array([0.3, -0.1, 4.0])
    for cx, scaled_cx in ((CAMERA.cx, camera.cx), (CAMERA.cx_right, camera.cx_right)):
        full = CAMERA.fx * point[0] / point[2] + cx
        assert camera.fx * point[0] / point[2] + scaled_cx == pytest.approx(
            (full - offset[0]) / scale_x
        )
    full = CAMERA.fy * point[1] / point[2] + CAMERA.cy
    assert camera.fy * point[1] / point[2] + camera.cy == pytest.approx(
        (full - offset[1]) / scale_y
    )


def baseless(left: CameraInfo, right: CameraInfo) -> None:
    right.p[3] = 0.0


def swapped(left: CameraInfo, right: CameraInfo) -> None:
    left.p[3], right.p[3] = right.p[3], left.p[3]


def not_a_number(left: CameraInfo, right: CameraInfo) -> None:
    left.p[2] = math.nan


def uncalibrated(left: CameraInfo, right: CameraInfo) -> None:
    right.p = [0.0] * 12


def other_size(left: CameraInfo, right: CameraInfo) -> None:
    right.width = 20


def other_rows(left: CameraInfo, right: CameraInfo) -> None:
    for info in (left, right):
        info.roi.height = 10
    right.roi.y_offset = 4


def outside(left: CameraInfo, right: CameraInfo) -> None:
    left.roi.x_offset = 39
    left.roi.width = 2


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (baseless, "/l and /r: camera: baseline is 0 m, expected > 0"),
        (swapped, "/l and /r: camera: baseline is -0.4 m, expected > 0"),
        (not_a_number, "/l and /r: camera: left projection matrix holds a number that is not"),
        (uncalibrated, "/l and /r: camera: right projection matrix has focal lengths 0, 0 px"),
        (other_size, "/l and /r: sizes are 40 x 24 and 20 x 24 px"),
        (other_rows, "/l and /r: regions of interest start at rows 0 and 4"),
        (outside, "/l: region of interest 2 x 24 px at (39, 0)"),
    ],
)
def test_a_broken_calibration_is_one_line_that_names_the_topics(spoil, expected):
    left, right = messages.camera_info_messages(CAMERA, 0, "camera")
    spoil(left, right)
    with pytest.raises(InputError) as caught:
        camera_messages.camera_from_messages(left, right, "/l", "/r")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(width=64), min_size=24, max_size=24),
    st.lists(st.integers(0, 2**32 - 1), min_size=8, max_size=8),
)
def test_any_two_camera_infos_are_a_camera_or_one_error(projection, sizes):
    left, right = CameraInfo(), CameraInfo()
    left.p, right.p = projection[:12], projection[12:]
    for info, (width, height, binning, offset) in zip(
        (left, right), (sizes[:4], sizes[4:]), strict=True
    ):
        info.width, info.height, info.binning_x, info.roi.x_offset = width, height, binning, offset
    camera = result_or_error(camera_messages.camera_from_messages, left, right)
    if isinstance(camera, StereoCamera):
        assert camera.baseline > 0
    else:
        assert "\n" not in str(camera)


# What the node publishes


def test_the_disparity_image_turns_into_depth_by_its_own_numbers():
    answer = scene_flow()
    message = messages.disparity_message(answer, min_disparity=8.0)
    values = pixels(message.image, np.float32, 1)
    known = values != -1
    assert not np.isnan(values).any()
    assert message.min_disparity == 8.0
    assert values[known].min() >= message.min_disparity
    assert values[known].max() < message.max_disparity
    raw = np.nan_to_num(answer.disparity - (CAMERA.cx - CAMERA.cx_right))
    np.testing.assert_array_equal(known, raw >= 8.0)
    depth = pixels(messages.depth_message(answer, min_disparity=8.0), np.float32, 1)
    np.testing.assert_array_equal(np.isfinite(depth), known)
    np.testing.assert_allclose(message.f * message.t / values[known], depth[known], rtol=1e-6)
    window = message.valid_window
    assert (window.x_offset, window.y_offset, window.width, window.height) == (0, 0, 40, 24)
    assert message.delta_d > 0
    for header in (message.header, message.image.header):
        assert messages.ns_from_stamp(header.stamp) == answer.stamp
        assert header.frame_id == "left_optical"


def test_an_answer_without_any_disparity_still_is_a_valid_message():
    answer = scene_flow()
    answer.disparity[:] = NOT_A_NUMBER
    message = messages.disparity_message(answer)
    assert (pixels(message.image, np.float32, 1) == -1).all()
    assert 0 < message.min_disparity < message.max_disparity


def test_depth_is_in_metres_and_unknown_beyond_its_limits():
    answer = scene_flow()
    depth = pixels(messages.depth_message(answer, max_depth_m=3.0), np.float32, 1)
    expected = CAMERA.fx * CAMERA.baseline / (answer.disparity + 3.0)
    near = np.isfinite(expected) & (expected <= 3.0)
    np.testing.assert_allclose(depth[near], expected[near], rtol=1e-6)
    assert np.isnan(depth[~near]).all()
    assert 0 < near.sum() < near.size


def test_flow_is_as_estimated_and_its_colour_is_forward_in_time():
    answer = scene_flow()
    message = messages.flow_message(answer)
    assert message.encoding == "32FC2"
    np.testing.assert_array_equal(pixels(message, np.float32, 2), answer.flow)

    answer.flow[:] = (4.0, 0.0)
    to_the_left = messages.flow_color_message(answer)
    answer.flow[:] = (-4.0, 0.0)
    to_the_right = messages.flow_color_message(answer)
    assert to_the_left.encoding == to_the_right.encoding == "rgb8"
    # On the colour wheel right is red, left is cyan.
    red, green, blue = pixels(to_the_right, np.uint8, 3)[5, 5].astype(int)
    assert red > max(green, blue)
    red, green, blue = pixels(to_the_left, np.uint8, 3)[5, 5].astype(int)
    assert red < min(green, blue)


def test_disparity_is_coloured_in_steps_and_black_where_unknown():
    answer = scene_flow()
    answer.disparity[:] = 20.0
    answer.disparity[3, 4] = np.nan
    message = messages.disparity_color_message(answer)
    assert message.encoding == "rgb8"
    picture = pixels(message, np.uint8, 3)
    assert not picture[3, 4].any()
    answer.disparity[:] = 21.0
    closer = pixels(messages.disparity_color_message(answer), np.uint8, 3)
    # One scale for both: what is nearer is lighter.
    assert closer[0, 0].astype(int).sum() > picture[0, 0].astype(int).sum()


@pytest.mark.parametrize("dt", [-0.1, 0.1])
def test_the_cloud_is_organised_and_moves_forward_in_time(dt):
    answer = scene_flow(dt)
    left = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    cloud = messages.cloud_message(answer, left, max_depth_m=3.0)
    assert (cloud.height, cloud.width) == (24, 40)
    assert (cloud.point_step, cloud.row_step) == (28, 28 * 40)
    assert len(cloud.data) == 28 * 40 * 24
    assert not cloud.is_dense
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        (name, 4 * i, 7, 1) for i, name in enumerate(("x", "y", "z", "rgb", "vx", "vy", "vz"))
    ]
    values = np.frombuffer(cloud.data, np.float32).reshape(24, 40, 7)
    depth = pixels(messages.depth_message(answer, max_depth_m=3.0), np.float32, 1)
    np.testing.assert_array_equal(values[..., 2], depth)

    row, column = 10, 7
    assert np.isfinite(depth[row, column])
    u, v = answer.flow[row, column]
    depth_next = CAMERA.fx * CAMERA.baseline / (answer.disparity_next[row, column] + 3.0)
    here = point(column, row, depth[row, column])
    there = point(column + u, row + v, depth_next)
    np.testing.assert_allclose(values[row, column, :3], here, rtol=1e-4)
    np.testing.assert_allclose(values[row, column, 4:], (there - here) / dt, rtol=1e-3, atol=1e-3)
    known = np.isfinite(depth)
    np.testing.assert_array_equal(np.isfinite(values[..., 4]), known & answer.valid)
    assert np.isnan(values[~known][:, [0, 1, 2, 4, 5, 6]]).all()
    packed = values[..., 3].copy().view(np.uint32)
    np.testing.assert_array_equal(packed >> 16 & 255, left[..., 0])
    np.testing.assert_array_equal(packed & 255, left[..., 2])


def point(x: float, y: float, depth: float) -> np.ndarray:
    return np.array([(x - CAMERA.cx) / CAMERA.fx, (y - CAMERA.cy) / CAMERA.fy, 1.0]) * depth


@pytest.mark.parametrize("dt", [-0.1, 0.1])
def test_markers_are_one_list_of_lines_along_the_clouds_motion(dt):
    answer = scene_flow(dt)
    left = np.zeros((24, 40, 3), np.uint8)
    cloud = np.frombuffer(
        messages.cloud_message(answer, left, max_depth_m=3.0).data, np.float32
    ).reshape(24, 40, 7)
    (marker,) = messages.markers_message(answer, spacing_px=8, max_depth_m=3.0).markers
    assert (marker.type, marker.action) == (marker.LINE_LIST, marker.ADD)
    assert marker.header.frame_id == "left_optical"
    assert messages.ns_from_stamp(marker.header.stamp) == answer.stamp
    assert marker.lifetime.sec + marker.lifetime.nanosec > 0
    assert (marker.pose.orientation.w, marker.scale.x > 0) == (1.0, True)
    sampled = cloud[4::8, 4::8].reshape(-1, 7)
    sampled = sampled[np.isfinite(sampled[:, 4])]
    assert 0 < len(sampled) < 15
    ends = np.array([(p.x, p.y, p.z) for p in marker.points]).reshape(-1, 2, 3)
    np.testing.assert_allclose(ends[:, 0], sampled[:, :3], rtol=1e-5, atol=1e-6)
    way = sampled[:, 4:] * messages.MARKER_TIME_S
    np.testing.assert_allclose(ends[:, 1] - ends[:, 0], way, rtol=1e-3, atol=1e-4)
    assert len(marker.colors) == len(marker.points)
    speed = np.linalg.norm(sampled[:, 4:], axis=1)
    fast, slow = (marker.colors[2 * i] for i in (speed.argmax(), speed.argmin()))
    assert (fast.r, fast.g, fast.b) != (slow.r, slow.g, slow.b)


def test_without_any_motion_known_the_marker_is_deleted():
    answer = scene_flow()
    answer.valid[:] = False
    (marker,) = messages.markers_message(answer).markers
    assert (marker.action, len(marker.points)) == (marker.DELETE, 0)


@pytest.mark.parametrize("spacing_px", [1, 7, 1000])
def test_any_spacing_of_markers_will_do(spacing_px):
    (marker,) = messages.markers_message(scene_flow(), spacing_px).markers
    assert len(marker.points) % 2 == 0


def test_velocities_of_a_pair_without_time_between_are_refused():
    for publish in (
        lambda: messages.cloud_message(scene_flow(0.0), np.zeros((24, 40, 3), np.uint8)),
        lambda: messages.markers_message(scene_flow(0.0)),
    ):
        with pytest.raises(InputError, match="scene flow: dt is 0 s"):
            publish()


@pytest.mark.parametrize("dt", [-0.1, 0.1])
def test_the_cloud_holds_what_geometry_computes(dt):
    # More rows than are computed at a time.
    rng = np.random.default_rng(5)
    camera = StereoCamera(100.0, 110.0, 20.0, 30.0, 23.0, 0.4, 40, 61)
    disparity = rng.uniform(-5, 30, (61, 40)).astype(np.float32)
    disparity[rng.random((61, 40)) < 0.2] = NOT_A_NUMBER
    answer = SceneFlow(
        disparity,
        rng.uniform(-5, 30, (61, 40)).astype(np.float32),
        rng.normal(0, 3, (61, 40, 2)).astype(np.float32),
        rng.random((61, 40)) < 0.8,
        dt=dt,
        camera=camera,
    )
    left = np.zeros((61, 40, 3), np.uint8)
    cloud = np.frombuffer(messages.cloud_message(answer, left, min_disparity=1e-3).data, np.float32)
    points, _ = geometry.scene_flow_points(answer)
    values = cloud.reshape(61, 40, 7)
    np.testing.assert_allclose(values[..., :3], points, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values[..., 4:], geometry.velocities(answer), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("publish", [messages.disparity_message, messages.depth_message])
def test_depth_without_a_camera_is_refused(publish):
    with pytest.raises(InputError, match="scene flow: no camera"):
        publish(scene_flow(camera=None))


def test_a_min_disparity_of_zero_is_refused():
    with pytest.raises(InputError, match="min_disparity: 0 px, expected > 0 px"):
        messages.disparity_message(scene_flow(), min_disparity=0.0)


@pytest.mark.parametrize("camera", [CAMERA, None])
def test_the_whole_answer_survives_its_message(camera):
    pytest.importorskip("dwarf_ros.msg")
    answer = scene_flow(camera=camera)
    message = messages.scene_flow_message(answer, "classical")
    assert message.estimator == "classical"
    back = scene_flow_from_message(message)
    for name in ("disparity", "disparity_next", "flow", "valid"):
        np.testing.assert_array_equal(getattr(back, name), getattr(answer, name))
    assert (back.stamp, back.other_stamp) == (answer.stamp, answer.other_stamp)
    assert back.dt == pytest.approx(answer.dt)
    assert (back.camera, back.frame_id) == (answer.camera, answer.frame_id)


def test_an_answer_with_a_truncated_image_is_one_line():
    pytest.importorskip("dwarf_ros.msg")
    message = messages.scene_flow_message(scene_flow())
    message.flow.data = message.flow.data[:-8]
    with pytest.raises(InputError, match="scene flow: flow is '32FC2' with row step 320 bytes"):
        scene_flow_from_message(message)


def test_a_real_image_comes_back_to_the_last_bit(real_data):
    file = next(iter(sorted((real_data("kitti_odometry") / "image_l").iterdir())))
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    back = camera_messages.image_from_message(messages.image_message(image, 0, "camera"))
    np.testing.assert_array_equal(back, image)
