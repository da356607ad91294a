"""What camera messages mean: pixels of sensor_msgs/Image and CompressedImage, calibration of sensor_msgs/CameraInfo.

Any object with the fields of the message will do, whoever read it: rclpy for the live node, rosbags for a file.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from dwarf_ros.formats import check_encoded, decode_silently, least_jpeg_bytes, least_png_bytes
from dwarf_ros.types import InputError, StereoCamera

# Bytes a pixel and the conversion to gray or RGB. An 8UC3 image says nothing of its channels' order: OpenCV's is assumed.
_COLOR_CONVERSIONS: dict[str, tuple[int, int | None]] = {
    "mono8": (1, None),
    "8UC1": (1, None),
    "mono16": (2, None),
    "16UC1": (2, None),
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "8UC3": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    # OpenCV names a Bayer tile by its second row's second and third pixel, ROS by its first row's first two.
    "bayer_rggb8": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": (1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": (2, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": (2, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": (2, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": (2, cv2.COLOR_BayerGB2RGB),
}
_SIXTEEN_BIT = ("mono16", "16UC1", *(name for name in _COLOR_CONVERSIONS if name[-2:] == "16"))
IMAGE_ENCODINGS = tuple(_COLOR_CONVERSIONS)


class ImageMessage(Protocol):
    """The fields of sensor_msgs/Image that describe its pixels."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class CompressedImageMessage(Protocol):
    """The fields of sensor_msgs/CompressedImage that describe its pixels."""

    format: str
    data: Any


class CameraInfoMessage(Protocol):
    """The fields of sensor_msgs/CameraInfo that describe a rectified camera."""

    height: int
    width: int
    p: Any
    binning_x: int
    binning_y: int
    roi: Any


def image_from_message(msg: ImageMessage, name: str = "image") -> np.ndarray:
    """Pixels of a camera image.

    Args:
        msg: any of `IMAGE_ENCODINGS`, either byte order, rows padded or not.
        name: what an error calls it, usually the topic.

    Returns:
        uint8 or uint16; gray H x W, or RGB H x W x 3 (Bayer mosaics are interpolated, alpha is dropped).

    Raises:
        InputError: another encoding, no pixels, a row step too small for the width, or less data than rows.
    """
    row_bytes = check_image_message(msg, name)
    pixel_bytes, conversion = _COLOR_CONVERSIONS[msg.encoding]
    pixels = _pixels(msg, row_bytes, pixel_bytes)
    return pixels if conversion is None else _converted(pixels, conversion, msg.encoding, name)


def check_image_message(msg: ImageMessage, name: str = "image") -> int:
    """Bytes of a row without padding, if `image_from_message` can read the image.

    Raises:
        InputError: as `image_from_message`.
    """
    if msg.encoding not in IMAGE_ENCODINGS:
        raise InputError(
            f"{name}: encoding is {msg.encoding[:40]!r}, expected one of {', '.join(IMAGE_ENCODINGS)}"
        )
    row_bytes = msg.width * _COLOR_CONVERSIONS[msg.encoding][0]
    if msg.width == 0 or msg.height == 0:
        raise InputError(
            f"{name}: size is {msg.width} x {msg.height} px, expected at least 1 x 1 px"
        )
    if msg.step < row_bytes:
        raise InputError(
            f"{name}: row step is {msg.step} bytes, expected at least {row_bytes} bytes for "
            f"{msg.width} px of {msg.encoding}"
        )
    # The last row's padding may be missing, as senders of sub-images leave it out.
    expected_bytes = msg.step * (msg.height - 1) + row_bytes
    if len(msg.data) < expected_bytes:
        raise InputError(
            f"{name}: data has {len(msg.data)} bytes, expected {expected_bytes} bytes for "
            f"{msg.width} x {msg.height} px of {msg.encoding} with row step {msg.step} bytes"
        )
    return row_bytes


def _converted(pixels: np.ndarray, conversion: int, encoding: str, name: str) -> np.ndarray:
    try:
        return cv2.cvtColor(pixels, conversion)
    except cv2.error:
        raise InputError(
            f"{name}: size is {pixels.shape[1]} x {pixels.shape[0]} px, too small for a {encoding[:40]} image"
        ) from None


def _pixels(msg: ImageMessage, row_bytes: int, pixel_bytes: int) -> np.ndarray:
    """A copy of the pixels in this machine's byte order, uint8 or uint16, H x W or H x W x C."""
    rows = np.ndarray((msg.height, row_bytes), np.uint8, buffer=msg.data, strides=(msg.step, 1))
    rows = rows.copy()
    if msg.encoding in _SIXTEEN_BIT:
        return rows.view(">u2" if msg.is_bigendian else "<u2").astype(np.uint16, copy=False)
    return rows if pixel_bytes == 1 else rows.reshape(msg.height, msg.width, pixel_bytes)


def compressed_image_size(data: Any, name: str = "image") -> tuple[int, int]:
    """Width and height, px, that a JPEG or PNG file says it has; the picture itself is not looked at.

    Args:
        data: the file's bytes.
        name: what an error calls it, usually the topic.

    Raises:
        InputError: neither of the two formats, an incomplete header, or more pixels than any camera has.
    """
    start = bytes(memoryview(data)[:_LONGEST_HEADER])
    try:
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height, depth, kind = struct.unpack_from(">IIBB", start, 16)
            least_bytes = least_png_bytes(width, height, depth, kind)
        elif start.startswith(b"\xff\xd8"):
            width, height = _jpeg_size(start)
            least_bytes = least_jpeg_bytes(width, height)
        else:
            raise InputError(
                f"{name}: data starts with {start[:4].hex()}, expected a JPEG or a PNG"
            )
    except struct.error:
        raise InputError(
            f"{name}: data has {len(data)} bytes and no image size, expected a whole JPEG or PNG"
        ) from None
    if not 0 < width * height <= _MOST_PIXELS:
        raise InputError(
            f"{name}: size is {width} x {height} px, expected 1 to {_MOST_PIXELS} pixels"
        )
    # Before memory is taken for it.
    if len(data) < least_bytes:
        raise InputError(
            f"{name}: header says {width} x {height} px, expected more than {len(data)} bytes for so many"
        )
    return width, height


# A JPEG's size may come after pictures and color profiles that are embedded in it.
_LONGEST_HEADER = 1 << 20
_MOST_PIXELS = 1 << 26


def _jpeg_size(start: bytes) -> tuple[int, int]:
    """Width and height of a JPEG from its start-of-frame segment; struct.error where there is none."""
    position = 2
    while True:
        fill, marker, length = struct.unpack_from(">BBH", start, position)
        if fill != 0xFF or length < 2:
            raise struct.error("no segment")
        # C4, C8 and CC lie between the starts of a frame but are none.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", start, position + 5)
            return width, height
        position += 2 + length


def check_compressed_image(msg: CompressedImageMessage, name: str = "image") -> tuple[int, int]:
    """Width and height, px, if the image is a whole JPEG or PNG; the picture itself is not decoded.

    Raises:
        InputError: as `image_from_compressed`.
    """
    size = compressed_image_size(msg.data, name)
    check_encoded(name, bytes(msg.data))
    return size


def image_from_compressed(msg: CompressedImageMessage, name: str = "image") -> np.ndarray:
    """Pixels of a compressed camera image, as image_transport's `compressed` sends it.

    Args:
        msg: JPEG or PNG; its format may begin with the encoding before compression, as in "bayer_rggb8; png compressed".
        name: what an error calls it, usually the topic.

    Returns:
        As of `image_from_message`.

    Raises:
        InputError: no JPEG or PNG, one that is damaged, or of other pixels than 8 or 16 bit gray or color.
    """
    size = check_compressed_image(msg, name)
    pixels = decode_silently(msg.data, cv2.IMREAD_UNCHANGED)
    if (
        pixels is None
        or pixels.dtype not in (np.uint8, np.uint16)
        or pixels.shape[2:] not in ((), (1,), (3,), (4,))
    ):
        raise InputError(
            f"{name}: {len(msg.data)} bytes of format {msg.format[:40]!r} cannot be decoded, expected a whole JPEG or PNG"
        )
    if pixels.shape[1::-1] != size:
        raise InputError(
            f"{name}: decodes to {pixels.shape[1]} x {pixels.shape[0]} px, expected {size[0]} x {size[1]} px as its "
            "header says"
        )
    conversion: int | None = {3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}.get(
        pixels.shape[2] if pixels.ndim == 3 else 1
    )
    encoding = msg.format.split(";")[0].strip()
    if pixels.ndim == 2 and encoding.startswith("bayer_"):
        conversion = _COLOR_CONVERSIONS.get(encoding, (1, None))[1]
    return pixels if conversion is None else _converted(pixels, conversion, encoding, name)


def camera_from_messages(
    left: CameraInfoMessage,
    right: CameraInfoMessage,
    left_name: str = "left camera_info",
    right_name: str = "right camera_info",
) -> StereoCamera:
    """Camera of the images that the two messages describe.

    Binning and region of interest are applied to the intrinsics of the full image (REP-104), and the baseline comes from
    both projection matrices, whose x translations may both differ from 0.

    Raises:
        InputError: the two do not describe one rectified pair (StereoCamera), or differ in size, binning or rows.
    """
    described = f"{left_name} and {right_name}"
    left_matrix, left_size, left_rows = _scaled_projection(left, left_name)
    right_matrix, right_size, right_rows = _scaled_projection(right, right_name)
    if left_size != right_size:
        raise InputError(
            f"{described}: sizes are {left_size[0]} x {left_size[1]} and {right_size[0]} x {right_size[1]} px, "
            "expected one size"
        )
    if left_rows != right_rows:
        raise InputError(
            f"{described}: regions of interest start at rows {left_rows} and {right_rows}, expected one row"
        )
    try:
        return StereoCamera.from_projection_matrices(left_matrix, right_matrix, *left_size)
    except InputError as error:
        raise InputError(f"{described}: {error}") from None


def _scaled_projection(
    info: CameraInfoMessage, name: str
) -> tuple[np.ndarray, tuple[int, int], int]:
    """3x4 projection matrix, size in px of the image as sent, and first row of its region of interest."""
    matrix = np.array(info.p, dtype=np.float64).reshape(3, 4)
    roi = info.roi
    # 0 stands for "not binned" and for "the whole image".
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    width, height = roi.width or info.width, roi.height or info.height
    if roi.x_offset + width > info.width or roi.y_offset + height > info.height:
        raise InputError(
            f"{name}: region of interest {width} x {height} px at ({roi.x_offset}, {roi.y_offset}), "
            f"expected one inside {info.width} x {info.height} px"
        )
    matrix[0, 2] -= roi.x_offset
    matrix[1, 2] -= roi.y_offset
    matrix[0] /= binning_x
    matrix[1] /= binning_y
    return matrix, (width // binning_x, height // binning_y), roi.y_offset


@dataclass(frozen=True)
class CameraInfoFields:
    """The numbers of one side's sensor_msgs/CameraInfo, under its names: d, k (3 x 3), r (3 x 3) and p (3 x 4) row by row."""

    width: int
    height: int
    distortion_model: str
    d: list[float]
    k: list[float]
    r: list[float]
    p: list[float]


def camera_info_fields(camera: StereoCamera) -> tuple[CameraInfoFields, CameraInfoFields]:
    """Left and right calibration of a rectified pair without distortion, both in the left camera's frame (REP-104).

    The right projection matrix carries the baseline: p[3] = -fx * baseline, px m.
    """
    fx, fy, cy = camera.fx, camera.fy, camera.cy
    sides = [
        CameraInfoFields(
            width=camera.width,
            height=camera.height,
            distortion_model="plumb_bob",
            d=[0.0] * 5,
            k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
            r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            p=[fx, 0.0, cx, offset, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
        )
        for cx, offset in ((camera.cx, 0.0), (camera.cx_right, -fx * camera.baseline))
    ]
    return sides[0], sides[1]
