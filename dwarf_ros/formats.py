"""Image, disparity and optical-flow files: KITTI's 16-bit PNG, PFM, Middlebury .flo, and ordinary images.

Every reader takes the file apart before it trusts it: a file that is cut short, damaged or of another kind is refused
with an InputError that names the file, where it went wrong, what was found and what was expected. Every writer puts the
file beside its place and then renames it, so a reader never sees half of one.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dwarf_ros.files import PathLike, refusing_unwritable, write_atomically
from dwarf_ros.types import InputError

# Far above any camera, far below what would exhaust memory on a damaged header.
_MAX_PIXELS = 1 << 27

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GRAY, _PNG_RGB = 0, 2
_PNG_COLOR_TYPES = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGBA"}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_BIT_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}

_FLO_MAGIC = 202021.25
_FLO_UNKNOWN_ABOVE = 1e9
_FLO_UNKNOWN = 1e10


def read_image(path: PathLike) -> np.ndarray:
    """Ordinary image (PNG, JPEG, WebP, TIFF, BMP, PGM, PPM) as it is stored.

    Returns:
        uint8 or uint16; H x W where the file is gray, else H x W x 3 RGB. Palettes are expanded, alpha is dropped, and an
        orientation tag is ignored, because a calibration speaks of the stored pixels.

    Raises:
        InputError: the file cannot be read, is no such image, is damaged or cut short, or does not hold 8 or 16 bit.
    """
    data = _read(path)
    size = None
    if data.startswith(_PNG_SIGNATURE):
        header = _check_png(path, data)
        size = (header.height, header.width)
    elif data.startswith(b"\xff\xd8"):
        size = _check_jpeg(path, data)
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    image = _decode(path, data, flags, size)
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: pixels are {image.dtype}, expected an 8-bit or 16-bit image")
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write an ordinary image, in the format that the file name's suffix names.

    Args:
        path: .png (8 or 16 bit), or another suffix that OpenCV writes (.jpg, .bmp, ...), for 8 bit.
        image: uint8 or uint16; H x W gray or H x W x 3 RGB.

    Raises:
        InputError: another dtype or shape, no such format, or the file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if image.dtype != np.uint8 and not (image.dtype == np.uint16 and suffix == ".png"):
        raise InputError(f"{path}: pixels are {image.dtype}, expected uint8 (or uint16 for .png)")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or image.size == 0:
        raise InputError(f"{path}: shape is {image.shape}, expected H x W gray or H x W x 3 RGB")
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _write(path, _encode(path, suffix, pixels))


def read_disparity_png(path: PathLike) -> np.ndarray:
    """KITTI disparity map: 16-bit gray PNG, disparity = value / 256, 0 is invalid.

    Returns:
        float32 H x W, px, x_left - x_right > 0; NaN where invalid.

    Raises:
        InputError: the file cannot be read, is damaged or cut short, or is not a 16-bit gray PNG.
    """
    values = _read_png16(path, _PNG_GRAY, "a KITTI disparity map")
    disparity = values.astype(np.float32) * np.float32(1 / 256)
    disparity[values == 0] = np.nan
    return disparity


def write_disparity_png(path: PathLike, disparity: np.ndarray) -> None:
    """Write a KITTI disparity map.

    Args:
        path: the PNG to write.
        disparity: H x W, px. NaN, infinite and negative are written as 0, which is invalid. All others are rounded to
            1/256 px and clipped to 1/256 .. 65535/256 px, so a valid pixel stays valid, as in KITTI's development kit.

    Raises:
        InputError: the array is not H x W, or the file cannot be written.
    """
    if disparity.ndim != 2 or disparity.size == 0:
        raise InputError(f"{path}: disparity has shape {disparity.shape}, expected H x W")
    valid = np.isfinite(disparity) & (disparity >= 0)
    scaled = np.rint(np.where(valid, disparity, 0).astype(np.float64) * 256.0)
    values = np.where(valid, np.clip(scaled, 1, 65535), 0).astype(np.uint16)
    _write(path, _encode(path, ".png", values))


def read_flow_png(path: PathLike) -> np.ndarray:
    """KITTI optical flow: 16-bit RGB PNG, u and v = (value - 32768) / 64, third channel 0 is invalid.

    Returns:
        float32 H x W x 2, px, u positive to the right, v downwards; both NaN where invalid.

    Raises:
        InputError: the file cannot be read, is damaged or cut short, or is not a 16-bit RGB PNG.
    """
    values = _read_png16(path, _PNG_RGB, "a KITTI optical flow map")
    # OpenCV hands out BGR: channel 0 is the file's third.
    flow = np.empty((*values.shape[:2], 2), dtype=np.float32)
    flow[..., 0], flow[..., 1] = values[..., 2], values[..., 1]
    flow -= np.float32(32768)
    flow *= np.float32(1 / 64)
    flow[values[..., 0] == 0] = np.nan
    return flow


def write_flow_png(path: PathLike, flow: np.ndarray) -> None:
    """Write a KITTI optical flow map.

    Args:
        path: the PNG to write.
        flow: H x W x 2, px. A pixel is invalid where either component is not finite; all others are rounded to 1/64 px
            and clipped to -512 .. 511.98 px.

    Raises:
        InputError: the array is not H x W x 2, or the file cannot be written.
    """
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise InputError(f"{path}: flow has shape {flow.shape}, expected H x W x 2")
    valid = np.isfinite(flow).all(axis=2)
    scaled = np.rint(np.where(valid[..., None], flow, 0).astype(np.float64) * 64.0 + 32768.0)
    values = np.zeros((*flow.shape[:2], 3), dtype=np.uint16)
    values[..., 0] = valid
    values[..., 2:0:-1] = np.clip(scaled, 0, 65535)
    values[~valid] = 0
    _write(path, _encode(path, ".png", values))


def read_pfm(path: PathLike) -> np.ndarray:
    """Portable float map, gray or color, either byte order.

    Returns:
        float32 H x W ("Pf") or H x W x 3 ("PF"), first row at the top (the file stores the last row first). Values are as
        stored: infinite and NaN stay, and the header's scale only tells the byte order.

    Raises:
        InputError: the file cannot be read, its header is malformed, or it does not hold exactly the bytes it announces.
    """
    data = _read(path)
    head = data[:256]
    if head[:2] not in (b"Pf", b"PF"):
        raise InputError(f"{path}: offset 0: found {head[:2]!r}, expected 'Pf' or 'PF' of a PFM")
    match = re.match(rb"P[fF]\s+(\S+)\s+(\S+)\s+(\S+)(?:[ \t\r]*\n|\s)", head)
    if match is None:
        raise InputError(
            f"{path}: offset 2: PFM header is incomplete, expected width, height and scale"
        )
    width = _header_size(path, "width", match.group(1), match.start(1))
    height = _header_size(path, "height", match.group(2), match.start(2))
    try:
        scale = float(match.group(3).decode("ascii"))
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale) or scale == 0:
        raise InputError(
            f"{path}: offset {match.start(3)}: PFM scale is {_quote(match.group(3))}, "
            "expected a number that is not 0"
        )
    channels = 3 if head[:2] == b"PF" else 1
    _check_size(path, width, height)
    values = _floats(
        path, data, match.end(), "<f4" if scale < 0 else ">f4", width, height, channels
    )
    image = values.reshape(height, width, channels)[::-1]
    return np.ascontiguousarray(image if channels == 3 else image[..., 0])


def write_pfm(path: PathLike, image: np.ndarray) -> None:
    """Write a portable float map, little-endian.

    Args:
        path: the file to write.
        image: H x W or H x W x 3, written as float32, first row at the top.

    Raises:
        InputError: another shape, or the file cannot be written.
    """
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)) or image.size == 0:
        raise InputError(f"{path}: PFM has shape {image.shape}, expected H x W or H x W x 3")
    height, width = image.shape[:2]
    kind = "Pf" if image.ndim == 2 else "PF"
    header = f"{kind}\n{width} {height}\n-1.0\n".encode("ascii")
    _write(path, header + np.ascontiguousarray(image[::-1], dtype="<f4").tobytes())


def read_flo(path: PathLike) -> np.ndarray:
    """Middlebury optical flow (.flo).

    Returns:
        float32 H x W x 2, px, u positive to the right, v downwards; both NaN where the file says unknown (a component
        above 1e9 in magnitude, or NaN).

    Raises:
        InputError: the file cannot be read, its header is malformed, or it does not hold exactly the bytes it announces.
    """
    data = _read(path)
    if len(data) < 12:
        raise InputError(
            f"{path}: offset {len(data)}: file ends, expected the 12 bytes of a .flo header"
        )
    magic, width, height = struct.unpack("<fii", data[:12])
    if magic != _FLO_MAGIC:
        raise InputError(f"{path}: offset 0: found {data[:4]!r}, expected 'PIEH' of a .flo file")
    _check_size(path, width, height)
    values = _floats(path, data, 12, "<f4", width, height, 2)
    flow = values.reshape(height, width, 2)
    known = (np.abs(flow) <= _FLO_UNKNOWN_ABOVE).all(axis=2)
    flow[~known] = np.nan
    return flow


def write_flo(path: PathLike, flow: np.ndarray) -> None:
    """Write Middlebury optical flow (.flo).

    Args:
        path: the file to write.
        flow: H x W x 2, px, written as float32; a pixel with a component that is not finite is written as unknown.

    Raises:
        InputError: another shape, or the file cannot be written.
    """
    if flow.ndim != 3 or flow.shape[2] != 2 or flow.size == 0:
        raise InputError(f"{path}: flow has shape {flow.shape}, expected H x W x 2")
    height, width = flow.shape[:2]
    known = np.isfinite(flow).all(axis=2, keepdims=True)
    values = np.where(known, flow, _FLO_UNKNOWN).astype("<f4")
    _write(path, struct.pack("<fii", _FLO_MAGIC, width, height) + values.tobytes())


@dataclass(frozen=True)
class _PngHeader:
    width: int
    height: int
    bit_depth: int
    color_type: int

    @property
    def kind(self) -> str:
        return f"{self.bit_depth}-bit {_PNG_COLOR_TYPES[self.color_type]} PNG"


def _read(path: PathLike) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read: {reason}") from error


def _write(path: PathLike, data: bytes) -> None:
    with refusing_unwritable(path):
        write_atomically(path, data)


def _quote(token: bytes) -> str:
    return repr(token[:40].decode("ascii", "backslashreplace"))


def _header_size(path: PathLike, name: str, token: bytes, offset: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,9}", token):
        raise InputError(
            f"{path}: offset {offset}: PFM {name} is {_quote(token)}, expected a whole number of px"
        )
    return int(token)


def _check_size(path: PathLike, width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > _MAX_PIXELS:
        raise InputError(
            f"{path}: header says {width} x {height} px, expected at least 1 x 1 and at most {_MAX_PIXELS} pixels"
        )


def _floats(
    path: PathLike, data: bytes, offset: int, dtype: str, width: int, height: int, channels: int
) -> np.ndarray:
    expected = offset + width * height * channels * 4
    if len(data) != expected:
        raise InputError(
            f"{path}: offset {min(len(data), expected)}: file has {len(data)} bytes, expected {expected} "
            f"for {width} x {height} px with {channels} channel{'s' if channels > 1 else ''}"
        )
    return np.frombuffer(data, dtype=dtype, offset=offset).astype(np.float32)


def _decode(path: PathLike, data: bytes, flags: int, size: tuple[int, int] | None) -> np.ndarray:
    image = decode_silently(data, flags)
    if image is None or image.size == 0 or image.shape[2:] not in ((), (3,)):
        raise InputError(
            f"{path}: {len(data)} bytes beginning with {data[:4]!r} cannot be decoded, expected a whole image file"
        )
    if size is not None and image.shape[:2] != size:
        raise InputError(
            f"{path}: decodes to {image.shape[1]} x {image.shape[0]} px, "
            f"but its header says {size[1]} x {size[0]} px"
        )
    return image


def check_encoded(name: PathLike, data: bytes) -> None:
    """Refuse a PNG or JPEG that is cut short, damaged or of another size than its header says.

    Raises:
        InputError: it is so; the message begins with the name.
    """
    if data.startswith(_PNG_SIGNATURE):
        _check_png(name, data)
    elif data.startswith(b"\xff\xd8"):
        _check_jpeg(name, data)


def decode_silently(data: bytes | np.ndarray, flags: int) -> np.ndarray | None:
    """`cv2.imdecode`, or None where it fails; OpenCV's own messages about a damaged image stay off stderr."""
    if not len(data):
        return None
    # Set for the whole process, because images are decoded by several threads.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with contextlib.suppress(cv2.error):
        return cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    return None


def least_png_bytes(width: int, height: int, bit_depth: int, color_type: int) -> int:
    """Bytes that a PNG of this size has at least: deflate makes data at most 1032 times smaller."""
    row = width * bit_depth * _PNG_CHANNELS.get(color_type, 1) // 8 + 1
    return height * row // 1033


def least_jpeg_bytes(width: int, height: int) -> int:
    """Bytes that a JPEG of this size has at least, at a bit for eight blocks of 64 pixels."""
    return width * height // 4096


def _check_bytes(path: PathLike, size: tuple[int, int], data: bytes, least: int) -> None:
    """Refuse a header of another size before memory is taken for it."""
    if len(data) < least:
        raise InputError(
            f"{path}: header says {size[0]} x {size[1]} px, expected more than {len(data)} bytes for so many"
        )


def _encode(path: PathLike, suffix: str, pixels: np.ndarray) -> bytes:
    try:
        done, data = cv2.imencode(suffix, pixels)
    except cv2.error:
        done = False
    if not done:
        raise InputError(
            f"{path}: {'gray' if pixels.ndim == 2 else 'color'} images cannot be written as {suffix!r}, expected .png"
        )
    return data.tobytes()


def _read_png16(path: PathLike, color_type: int, what: str) -> np.ndarray:
    data = _read(path)
    expected = f"a 16-bit {_PNG_COLOR_TYPES[color_type]} PNG, {what}"
    if not data.startswith(_PNG_SIGNATURE):
        raise InputError(f"{path}: offset 0: found {data[:8]!r}, expected {expected}")
    header = _check_png(path, data)
    if header.bit_depth != 16 or header.color_type != color_type:
        raise InputError(f"{path}: found {header.kind}, expected {expected}")
    color = cv2.IMREAD_ANYCOLOR if color_type == _PNG_RGB else cv2.IMREAD_GRAYSCALE
    flags = cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION | color
    values = _decode(path, data, flags, (header.height, header.width))
    if values.dtype != np.uint16 or values.ndim != (3 if color_type == _PNG_RGB else 2):
        raise InputError(f"{path}: decodes to {values.dtype} {values.shape}, expected {expected}")
    return values


def _check_png(path: PathLike, data: bytes) -> _PngHeader:
    """Walk a PNG's chunks to IEND, check sums included (PNG specification, ISO/IEC 15948).

    OpenCV's decoder may answer a truncated file with a half-decoded image and prints its complaints; hence this first.
    """
    header = None
    offset = len(_PNG_SIGNATURE)
    chunk = b""
    while chunk != b"IEND":
        length, chunk = struct.unpack(">I4s", data[offset : offset + 8].ljust(8, b"\0"))
        end = offset + 12 + length
        if end > len(data):
            raise InputError(
                f"{path}: offset {len(data)}: PNG is cut short, expected it to run on to its IEND chunk"
            )
        body = data[offset + 8 : end - 4]
        if zlib.crc32(body, zlib.crc32(chunk)) != int.from_bytes(data[end - 4 : end], "big"):
            raise InputError(
                f"{path}: offset {offset}: check sum of PNG chunk {_quote(chunk)} is wrong, "
                "expected an undamaged file"
            )
        if header is None:
            header = _png_header(path, chunk, body)
        elif chunk == b"IHDR":
            raise InputError(f"{path}: offset {offset}: second IHDR chunk, expected one")
        offset = end
    assert header is not None
    least = least_png_bytes(header.width, header.height, header.bit_depth, header.color_type)
    _check_bytes(path, (header.width, header.height), data, least)
    return header


def _png_header(path: PathLike, chunk: bytes, body: bytes) -> _PngHeader:
    if chunk != b"IHDR" or len(body) != 13:
        raise InputError(
            f"{path}: offset 8: first PNG chunk is {_quote(chunk)} of {len(body)} bytes, expected IHDR of 13"
        )
    width, height, bit_depth, color_type, compression, filtering, interlace = struct.unpack(
        ">IIBBBBB", body
    )
    _check_size(path, width, height)
    if bit_depth not in _PNG_BIT_DEPTHS.get(color_type, ()):
        raise InputError(
            f"{path}: offset 24: PNG has bit depth {bit_depth} with color type {color_type}, "
            "expected a combination that the PNG specification knows"
        )
    if compression != 0 or filtering != 0 or interlace > 1:
        raise InputError(
            f"{path}: offset 26: PNG has compression {compression}, filter {filtering}, interlace {interlace}, "
            "expected 0, 0, and 0 or 1"
        )
    return _PngHeader(width, height, bit_depth, color_type)


def _check_jpeg(path: PathLike, data: bytes) -> tuple[int, int]:
    """Walk a JPEG's segments to its end marker and return its height and width (ITU-T T.81)."""
    size = None
    offset = 2
    while True:
        marker = data[offset : offset + 4]
        if marker[:2] == b"\xff\xd9":
            break
        if len(marker) == 4 and marker[0] != 0xFF:
            raise InputError(
                f"{path}: offset {offset}: found {marker[:2]!r}, expected a JPEG marker"
            )
        if marker[:2] == b"\xff\xff":  # fill bytes may precede any marker
            offset += 1
            continue
        length = int.from_bytes(marker[2:], "big")
        if len(marker) < 4 or offset + 2 + length > len(data):
            raise InputError(
                f"{path}: offset {len(data)}: JPEG is cut short, expected it to run on to its end marker"
            )
        if length < 2:
            raise InputError(
                f"{path}: offset {offset}: JPEG segment of {length} bytes, expected at least 2"
            )
        kind = marker[1]
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and length >= 8:
            height, width = struct.unpack(">HH", data[offset + 5 : offset + 9])
            _check_size(path, width, height)
            size = (height, width)
        offset += 2 + length
        if (
            kind == 0xDA
        ):  # start of scan: entropy-coded data up to the next marker that is no restart
            following = _JPEG_MARKER.search(data, offset)
            offset = following.start() if following else len(data)
    if size is None:
        raise InputError(f"{path}: JPEG has no frame header, expected one with its size")
    _check_bytes(path, size[::-1], data, least_jpeg_bytes(*size))
    return size


_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
