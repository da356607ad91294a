import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dwarf_ros.formats import (
    read_disparity_png,
    read_flo,
    read_flow_png,
    read_image,
    read_pfm,
    write_disparity_png,
    write_flo,
    write_flow_png,
    write_image,
    write_pfm,
)
from dwarf_ros.types import InputError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NAN = np.float32(np.nan)

quick = settings(
    derandomize=True,
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
sizes = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width, height, bit_depth, color_type, scanlines, interlace=0, extra=b""):
    header = struct.pack(">IIBBBBB", width, height, bit_depth, color_type, 0, 0, interlace)
    return (
        PNG_SIGNATURE
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(scanlines))
        + chunk(b"IEND", b"")
    )


def gray16_scanlines(values):
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)


# --- what KITTI's files mean -------------------------------------------------------------------------------------------


def test_disparity_png_is_value_over_256_and_0_is_invalid(tmp_path):
    file = tmp_path / "d.png"
    file.write_bytes(png(4, 1, 16, 0, gray16_scanlines(np.array([[0, 1, 256, 65535]]))))
    disparity = read_disparity_png(file)
    assert disparity.dtype == np.float32
    np.testing.assert_array_equal(disparity, [[NAN, 1 / 256, 1, 65535 / 256]])


def test_flow_png_is_value_minus_2_15_over_64_and_the_third_channel_says_valid(tmp_path):
    row = np.array([[[32768, 32768 + 64, 1], [0, 65535, 7], [40000, 40000, 0]]])
    file = tmp_path / "f.png"
    file.write_bytes(png(3, 1, 16, 2, gray16_scanlines(row.reshape(1, 9))))
    flow = read_flow_png(file)
    assert flow.dtype == np.float32
    np.testing.assert_array_equal(flow, [[[0, 1], [-512, 32767 / 64], [NAN, NAN]]])


def test_written_disparity_keeps_what_is_valid_valid(tmp_path):
    file = tmp_path / "d.png"
    given_px = np.array(
        [[0, 1e-6, 1 / 512, 1.5 / 256, 2.6 / 256, 300, -1e-6, -3, NAN, np.inf, -np.inf]]
    )
    write_disparity_png(file, given_px.astype(np.float32))
    stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert stored.tolist() == [[1, 1, 1, 2, 3, 65535, 0, 0, 0, 0, 0]]


def test_written_flow_is_rounded_clipped_and_invalid_where_either_part_is_unknown(tmp_path):
    file = tmp_path / "f.png"
    given_px = np.array([[[0.4 / 64, -0.6 / 64], [600, -600], [NAN, 1], [1, np.inf]]])
    write_flow_png(file, given_px.astype(np.float32))
    stored = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert stored.tolist() == [[[32768, 32767, 1], [65535, 0, 1], [0, 0, 0], [0, 0, 0]]]


# --- round trips -------------------------------------------------------------------------------------------------------


@quick
@given(values=hnp.arrays(np.uint16, sizes))
def test_disparity_round_trip_is_exact_for_every_16_bit_value(tmp_path, values):
    file = tmp_path / "d.png"
    disparity = np.where(values == 0, NAN, values.astype(np.float32) / 256)
    write_disparity_png(file, disparity)
    np.testing.assert_array_equal(read_disparity_png(file), disparity)


def test_every_16_bit_value_survives_in_disparity_and_flow(tmp_path):
    values = np.arange(65536, dtype=np.float32).reshape(256, 256)
    write_disparity_png(tmp_path / "d.png", values / 256)
    stored = read_disparity_png(tmp_path / "d.png")
    np.testing.assert_array_equal(stored.ravel()[1:], values.ravel()[1:] / 256)
    flow = np.stack([values, values[::-1, ::-1]], axis=2) / 64 - 512
    write_flow_png(tmp_path / "f.png", flow)
    np.testing.assert_array_equal(read_flow_png(tmp_path / "f.png"), flow)


@quick
@given(
    values=sizes.flatmap(lambda size: hnp.arrays(np.float32, (*size, 2))),
    big_endian=st.booleans(),
)
def test_float_formats_round_trip(tmp_path, values, big_endian):
    gray = values[..., 0]
    color = np.concatenate([values, values[..., :1]], axis=2)
    for image, kind in ((gray, "Pf"), (color, "PF")):
        file = tmp_path / "x.pfm"
        if big_endian:
            header = f"{kind}\n{image.shape[1]} {image.shape[0]}\n1.0\n".encode()
            file.write_bytes(header + image[::-1].astype(">f4").tobytes())
        else:
            write_pfm(file, image)
        np.testing.assert_array_equal(read_pfm(file), image)
    write_flo(tmp_path / "x.flo", values)
    known = np.isfinite(values).all(axis=2) & (np.abs(values) <= 1e9).all(axis=2)
    expected = np.where(known[..., None], values, NAN)
    np.testing.assert_array_equal(read_flo(tmp_path / "x.flo"), expected)


@quick
@given(
    image=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: sizes.flatmap(
            lambda size: st.sampled_from([size, (*size, 3)]).flatmap(
                lambda shape: hnp.arrays(dtype, shape)
            )
        )
    )
)
def test_png_image_round_trip_is_exact(tmp_path, image):
    write_image(tmp_path / "i.png", image)
    stored = read_image(tmp_path / "i.png")
    assert stored.dtype == image.dtype
    np.testing.assert_array_equal(stored, image)


def test_pfm_stores_the_last_row_first(tmp_path):
    write_pfm(tmp_path / "x.pfm", np.array([[1.0], [2.0]], dtype=np.float32))
    assert (tmp_path / "x.pfm").read_bytes() == b"Pf\n1 2\n-1.0\n" + struct.pack("<ff", 2, 1)


def test_flo_bytes_are_middlebury_s(tmp_path):
    write_flo(tmp_path / "x.flo", np.array([[[1, -2], [NAN, 0]]], dtype=np.float32))
    expected = b"PIEH" + struct.pack("<ii", 2, 1) + struct.pack("<ffff", 1, -2, 1e10, 1e10)
    assert (tmp_path / "x.flo").read_bytes() == expected


@pytest.mark.parametrize("header", [b"Pf 2 1 \n-1.0\n", b"Pf\r\n2 1\r\n-1\r\n", b"Pf\n2\n1\n-2.5 "])
def test_pfm_headers_as_found_in_the_wild(tmp_path, header):
    (tmp_path / "x.pfm").write_bytes(header + struct.pack("<ff", 3, 4))
    np.testing.assert_array_equal(read_pfm(tmp_path / "x.pfm"), [[3, 4]])


# --- ordinary images ---------------------------------------------------------------------------------------------------


def test_image_channels_are_rgb_in_file_and_array(tmp_path):
    file = tmp_path / "i.png"
    file.write_bytes(png(2, 1, 8, 2, b"\0" + bytes([255, 0, 0, 0, 0, 255])))
    assert read_image(file).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    write_image(tmp_path / "o.png", read_image(file))
    assert cv2.imread(str(tmp_path / "o.png")).tolist() == [[[0, 0, 255], [255, 0, 0]]]


def test_palette_alpha_and_few_bits_are_expanded(tmp_path):
    file = tmp_path / "i.png"
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60]))
    file.write_bytes(png(2, 1, 8, 3, b"\0\0\1", extra=palette))
    assert read_image(file).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    file.write_bytes(png(1, 1, 8, 6, b"\0" + bytes([1, 2, 3, 0])))
    assert read_image(file).tolist() == [[[1, 2, 3]]]
    file.write_bytes(png(4, 1, 1, 0, b"\0\xa0"))
    assert read_image(file).tolist() == [[255, 0, 255, 0]]


def test_interlaced_png_is_read(tmp_path):
    values = np.arange(1, 13 * 9 + 1).reshape(9, 13) * 500
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
    scanlines = b"".join(
        gray16_scanlines(values[row::row_step, column::column_step])
        for column, row, column_step, row_step in (*passes, (0, 1, 1, 2))
    )
    (tmp_path / "d.png").write_bytes(png(13, 9, 16, 0, scanlines, interlace=1))
    np.testing.assert_array_equal(
        read_disparity_png(tmp_path / "d.png"), values.astype(np.float32) / 256
    )


def jpeg(height=16, width=24):
    ramp = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
    return cv2.imencode(".jpg", ramp)[1].tobytes()


def test_jpeg_is_read_as_stored_whatever_its_orientation_tag(tmp_path):
    tag = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + tag + struct.pack("<I", 0)
    whole = jpeg()
    turned = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:]
    (tmp_path / "i.jpg").write_bytes(turned)
    assert read_image(tmp_path / "i.jpg").shape == (16, 24)


@pytest.mark.parametrize("suffix", [".bmp", ".pgm", ".tiff", ".webp"])
def test_other_formats_are_read_and_refused_when_cut(tmp_path, suffix, capfd):
    image = np.random.default_rng(0).integers(0, 255, (20, 30), dtype=np.uint8)
    file = tmp_path / f"i{suffix}"
    write_image(file, image)
    assert read_image(file).shape[:2] == (20, 30)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"100 bytes .* cannot be decoded"):
        read_image(file)


def test_float_image_is_refused(tmp_path):
    write_pfm(tmp_path / "i.pfm", np.ones((2, 2), dtype=np.float32))
    with pytest.raises(InputError, match="pixels are float32, expected an 8-bit or 16-bit image"):
        read_image(tmp_path / "i.pfm")


# --- what is refused ---------------------------------------------------------------------------------------------------

GRAY16 = png(3, 2, 16, 0, gray16_scanlines(np.full((2, 3), 700)))
GRAY8 = png(3, 2, 8, 0, b"\0\1\1\1" * 2)
RGB16 = png(3, 2, 16, 2, gray16_scanlines(np.full((2, 9), 700)))
RGB8 = png(3, 2, 8, 2, (b"\0" + b"\1" * 9) * 2)


@pytest.mark.parametrize(
    ("reader", "data", "message"),
    [
        (read_disparity_png, GRAY8, "found 8-bit gray PNG, expected a 16-bit gray PNG"),
        (read_disparity_png, RGB16, "found 16-bit RGB PNG, expected a 16-bit gray PNG"),
        (read_flow_png, GRAY16, "found 16-bit gray PNG, expected a 16-bit RGB PNG"),
        (read_flow_png, RGB8, "found 8-bit RGB PNG, expected a 16-bit RGB PNG"),
        (read_disparity_png, jpeg(), "offset 0: found .* expected a 16-bit gray PNG"),
        (read_disparity_png, b"", "offset 0: found b'', expected"),
        (read_disparity_png, GRAY16[:-12], f"offset {len(GRAY16) - 12}: PNG is cut short"),
        (read_disparity_png, GRAY16[:50], "offset 50: PNG is cut short"),
        (read_disparity_png, GRAY16[:8], "offset 8: PNG is cut short"),
        (read_disparity_png, GRAY16[:45] + b"?" + GRAY16[46:], "offset 33: check sum .*'IDAT'"),
        (read_disparity_png, png(0, 2, 16, 0, b""), "header says 0 x 2 px"),
        (read_disparity_png, png(70000, 70000, 16, 0, b"x"), "header says 70000 x 70000 px"),
        (read_disparity_png, png(3, 2, 16, 3, b""), "bit depth 16 with color type 3"),
        (read_disparity_png, png(3, 2, 16, 0, b"", interlace=2), "interlace 2, expected"),
        (read_disparity_png, PNG_SIGNATURE + chunk(b"IEND", b""), "first PNG chunk is 'IEND'"),
        (read_disparity_png, GRAY16[:33] + GRAY16[8:], "offset 33: second IHDR"),
        (read_disparity_png, png(3, 2, 16, 0, b"\0" * 5), "cannot be decoded"),
        (read_image, b"", "0 bytes .* cannot be decoded"),
        (read_image, b"not an image", "12 bytes beginning with b'not ' cannot be decoded"),
        (read_image, GRAY8[:-20], "PNG is cut short"),
        (read_image, jpeg()[:-2], f"offset {len(jpeg()) - 2}: JPEG is cut short"),
        (read_image, jpeg()[:-60], "JPEG is cut short"),
        (read_image, jpeg()[:100], "offset 100: JPEG is cut short"),
        (read_image, b"\xff\xd8\xff\xd9", "JPEG has no frame header"),
        (read_image, b"\xff\xd8\x00\x01\x02\x03", "offset 2: found .* expected a JPEG marker"),
        (read_image, b"\xff\xd8\xff\xe0\x00\x01", "JPEG segment of 1 bytes"),
        (read_pfm, b"P5\n1 1\n255\n\0", "offset 0: found b'P5', expected 'Pf' or 'PF'"),
        (read_pfm, b"Pf\n1 1", "offset 2: PFM header is incomplete"),
        (read_pfm, b"Pf\nx 1\n-1\n", "offset 3: PFM width is 'x'"),
        (read_pfm, b"Pf\n1 -1\n-1\n", "offset 5: PFM height is '-1'"),
        (read_pfm, b"Pf\n0 1\n-1\n", "header says 0 x 1 px"),
        (read_pfm, b"Pf\n99999999 99999999\n-1\n", "header says 99999999 x 99999999 px"),
        (read_pfm, b"Pf\n1 1\nabc\n\0\0\0\0", "offset 7: PFM scale is 'abc'"),
        (read_pfm, b"Pf\n1 1\n0\n\0\0\0\0", "PFM scale is '0'"),
        (read_pfm, b"Pf\n1 1\nnan\n\0\0\0\0", "PFM scale is 'nan'"),
        (
            read_pfm,
            b"Pf\n1 1\n-1\n\0\0\0",
            "offset 13: file has 13 bytes, expected 14 .* 1 channel$",
        ),
        (read_pfm, b"PF\n1 1\n-1\n" + b"\0" * 13, "offset 22: file has 23 bytes, expected 22"),
        (read_flo, b"PIEH\1\0\0", "offset 7: file ends, expected the 12 bytes"),
        (read_flo, b"HEIP" + struct.pack("<ii", 1, 1), "offset 0: found b'HEIP', expected 'PIEH'"),
        (read_flo, b"PIEH" + struct.pack("<ii", -1, 1), "header says -1 x 1 px"),
        (read_flo, b"PIEH" + struct.pack("<ii", 2**31 - 1, 9), "header says 2147483647 x 9 px"),
        (
            read_flo,
            b"PIEH" + struct.pack("<ii", 1, 1) + b"\0" * 7,
            "file has 19 bytes, expected 20",
        ),
    ],
)
def test_malformed_files_are_refused_by_name(tmp_path, reader, data, message):
    file = tmp_path / "some file"
    file.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        reader(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reader", [read_image, read_disparity_png, read_flow_png, read_pfm, read_flo]
)
def test_missing_file_or_folder_is_one_line(tmp_path, reader):
    with pytest.raises(InputError, match=r"none\.png: cannot be read: No such file"):
        reader(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        reader(tmp_path)


def test_a_cut_png_is_refused_without_noise_from_the_decoder(tmp_path, capfd):
    write_disparity_png(tmp_path / "d.png", np.ones((40, 50), dtype=np.float32))
    whole = (tmp_path / "d.png").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "d.png").write_bytes(whole[:length])
        with pytest.raises(InputError):
            read_image(tmp_path / "d.png")
    assert capfd.readouterr().err == ""


# --- writing -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none/x\.png: cannot be written: No such file"):
        write_image(tmp_path / "none" / "x.png", np.ones((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("writer", "array"),
    [
        (write_disparity_png, np.ones((2, 2, 1), np.float32)),
        (write_disparity_png, np.ones((0, 2), np.float32)),
        (write_flow_png, np.ones((2, 2, 3), np.float32)),
        (write_flo, np.ones((2, 2), np.float32)),
        (write_pfm, np.ones((2, 2, 2), np.float32)),
        (write_image, np.ones((2, 2, 2), np.uint8)),
        (write_image, np.ones((2, 2), np.float32)),
    ],
)
def test_arrays_of_another_shape_are_not_written(tmp_path, writer, array):
    with pytest.raises(InputError, match="expected"):
        writer(tmp_path / "x.png", array)
    assert list(tmp_path.iterdir()) == []


def test_a_format_that_cannot_hold_the_image_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gray images cannot be written as '\.xyz'"):
        write_image(tmp_path / "i.xyz", np.ones((2, 2), np.uint8))
    with pytest.raises(InputError, match="pixels are uint16, expected uint8"):
        write_image(tmp_path / "i.jpg", np.ones((2, 2), np.uint16))


# --- fuzz --------------------------------------------------------------------------------------------------------------


def with_right_check_sums(data):
    """The PNG with every chunk's check sum made right, as far as its chunks can be followed."""
    parts, offset = [data[:8]], 8
    while offset + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[offset : offset + 8])
        body = data[offset + 8 : offset + 8 + length]
        parts.append(chunk(kind, body) if len(body) == length else data[offset:])
        offset += 12 + length
    return b"".join(parts)


def seeds():
    rng = np.random.default_rng(3)
    gray8 = rng.integers(0, 255, (9, 11), dtype=np.uint8)
    flow = rng.normal(0, 20, (9, 11, 2)).astype("<f4")
    yield read_disparity_png, png(11, 9, 16, 0, gray16_scanlines(gray8.astype(np.uint16) * 200))
    yield read_flow_png, png(3, 9, 16, 2, gray16_scanlines(gray8[:, :9].astype(np.uint16) * 200))
    yield read_image, cv2.imencode(".png", gray8)[1].tobytes()
    yield read_image, cv2.imencode(".jpg", gray8)[1].tobytes()
    yield read_image, cv2.imencode(".pgm", gray8)[1].tobytes()
    yield read_image, cv2.imencode(".bmp", gray8)[1].tobytes()
    yield read_pfm, b"Pf\n11 9\n-1.0\n" + flow[..., 0].tobytes()
    yield read_pfm, b"PF\n2 1\n1.0\n" + flow[0, :3].tobytes()
    yield read_flo, b"PIEH" + struct.pack("<ii", 11, 9) + flow.tobytes()


SEEDS = list(seeds())


@settings(quick, max_examples=60)
@pytest.mark.parametrize("seed", range(len(SEEDS)))
@given(data=st.data())
def test_damaged_files_give_an_array_or_an_input_error(tmp_path, seed, data):
    reader, whole = SEEDS[seed]
    damaged = bytearray(whole)
    # Headers decide most, so half of the damage goes there.
    places = st.one_of(st.integers(0, min(60, len(whole)) - 1), st.integers(0, len(whole) - 1))
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(places)] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))
    damaged = bytes(damaged[:length]) + data.draw(st.binary(max_size=8))
    if damaged.startswith(PNG_SIGNATURE) and data.draw(st.booleans()):
        damaged = with_right_check_sums(damaged)
    file = tmp_path / "damaged"
    file.write_bytes(damaged)
    refusal, result = None, None
    try:
        result = reader(file)
    except InputError as error:
        refusal = str(error)
    if refusal is None:
        assert isinstance(result, np.ndarray)
        assert result.size > 0
    else:
        assert refusal.startswith(f"{file}: ")
        assert "\n" not in refusal


def test_the_files_that_are_damaged_above_are_whole(tmp_path):
    for number, (reader, whole) in enumerate(SEEDS):
        file = tmp_path / str(number)
        file.write_bytes(whole)
        assert reader(file).size > 0


# --- real files --------------------------------------------------------------------------------------------------------


def test_real_submission_files(real_data):
    folder = real_data("kitti_submission")
    for name, reader in (("disp_0", read_disparity_png), ("flow", read_flow_png)):
        values = reader(folder / name / "000139_10.png")
        assert values.shape[:2] == (375, 1242)
        assert np.isfinite(values).mean() > 0.99


def test_real_flyingthings3d_pfm(real_data):
    file = next(real_data("flyingthings3d").glob("disparity/left/*.pfm"))
    disparity = read_pfm(file)
    assert disparity.shape == (540, 960)
    assert 0 < disparity.min() < disparity.max() < 960


def test_real_images_are_read_as_opencv_reads_them(real_data):
    for name, file in itertools.product(["image_2", "image_3"], ["000010_10.png", "000010_11.png"]):
        path = real_data("kitti2015_color") / "training" / name / file
        image = read_image(path)
        np.testing.assert_array_equal(image[..., ::-1], cv2.imread(str(path)))


@pytest.mark.parametrize("suffix", [".tif", ".pgm", ".ppm", ".webp", ".bmp"])
def test_opencv_says_nothing_of_a_file_that_is_cut(tmp_path, suffix, capfd):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    data = cv2.imencode(suffix, pixels[..., 0] if suffix == ".pgm" else pixels)[1].tobytes()
    file = tmp_path / f"image{suffix}"
    for length in (9, 30, len(data) // 2, len(data) - 3):
        file.write_bytes(data[:length])
        with pytest.raises(InputError, match="expected a whole image file"):
            read_image(file)
    assert capfd.readouterr().err == ""
