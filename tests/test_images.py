"""A file becomes pixels: every mode against NumPy, every kind of damage against one sentence."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from helpers import images

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
FACE = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)


def saved(image: Image.Image | np.ndarray, format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, format, **options)
    return stream.getvalue()


def luma(rgb: np.ndarray) -> np.ndarray:
    """ITU-R 601, rounded to the nearest whole number."""
    return np.rint(rgb.astype(float) @ [0.299, 0.587, 0.114])


@pytest.mark.parametrize("format", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_grey_files_give_their_own_pixels(format):
    np.testing.assert_array_equal(images.read(saved(GREY, format)), GREY)


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "PPM"])
def test_color_files_give_their_own_pixels_channel_first(format):
    np.testing.assert_array_equal(images.read(saved(RGB, format), color=True), RGB.transpose(2, 0, 1))


def test_lossless_webp_gives_its_own_pixels():
    np.testing.assert_array_equal(
        images.read(saved(RGB, "WEBP", lossless=True), color=True), RGB.transpose(2, 0, 1)
    )


@pytest.mark.parametrize("format", ["JPEG", "MPO", "WEBP"])
def test_lossy_files_come_close(format):
    smooth = np.stack([FACE, FACE[::-1], FACE.T], axis=-1)
    pixels = images.read(saved(smooth, format, quality=95), color=True)
    assert np.abs(pixels - smooth.transpose(2, 0, 1).astype(int)).mean() < 3


def test_grey_is_itu_601():
    assert np.abs(images.read(saved(RGB)) - luma(RGB)).max() <= 1  # Pillow's weights have 16 bits
    np.testing.assert_array_equal(images.read(saved(RGB)), np.asarray(Image.fromarray(RGB).convert("L")))


def test_grey_repeated_is_color():
    np.testing.assert_array_equal(images.read(saved(GREY), color=True), np.stack([GREY] * 3))


def test_one_bit_is_black_and_white():
    bits = GREY > 127
    for format in ("PNG", "TIFF", "BMP", "PPM"):
        np.testing.assert_array_equal(images.read(saved(Image.fromarray(bits), format)), bits * 255)


def test_palette_is_looked_up():
    palette = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(GREY)
    image.putpalette(palette.tobytes())
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        pixels = images.read(saved(image, format), color=True)
        np.testing.assert_array_equal(pixels, palette[GREY].transpose(2, 0, 1))


def over_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(float) / 255
    return share * color + (1 - share) * 255


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_transparent_is_laid_over_white(format):
    rgba = np.dstack([RGB, ALPHA])
    pixels = images.read(saved(rgba, format), color=True).transpose(1, 2, 0)
    assert np.abs(pixels - over_white(RGB, ALPHA[..., None])).max() <= 1


def test_transparent_grey_is_laid_over_white():
    image = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
    assert np.abs(images.read(saved(image)) - over_white(GREY, ALPHA)).max() <= 1


def test_a_transparent_shade_is_white():
    shade = int(GREY[3, 4])
    pixels = images.read(saved(GREY, transparency=shade))
    np.testing.assert_array_equal(pixels, np.where(shade == GREY, 255, GREY))


def test_a_transparent_palette_entry_is_white():
    image = Image.fromarray(GREY)
    image.putpalette(np.repeat(np.arange(256), 3).astype(np.uint8).tobytes())
    entry = int(GREY[3, 4])
    pixels = images.read(saved(image, transparency=entry))
    np.testing.assert_array_equal(pixels, np.where(entry == GREY, 255, GREY))


def test_cmyk_is_ink_on_paper():
    cmyk = np.dstack([RGB, ALPHA])
    image = Image.frombytes("CMYK", (30, 20), cmyk.tobytes())
    light = (255.0 - RGB) * (255.0 - ALPHA[..., None]) / 255
    pixels = images.read(saved(image, "TIFF"), color=True).transpose(1, 2, 0)
    assert np.abs(pixels - light).max() <= 1


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_cut_off(format):
    deep = np.concatenate([RNG.integers(0, 65536, 594), [0, 1, 128, 129, 65534, 65535]]).reshape(20, 30)
    pixels = images.read(saved(deep.astype(np.uint16), format))
    np.testing.assert_array_equal(pixels, np.rint(deep * 255 / 65535))


def test_big_endian_sixteen_bits():
    deep = RNG.integers(0, 65536, (20, 30)).astype(">u2")
    image = Image.frombytes("I;16B", (30, 20), deep.tobytes())
    np.testing.assert_array_equal(images.read(saved(image, "TIFF")), np.rint(deep.astype(float) / 257))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


UPRIGHT = {  # what the viewer must do, by the EXIF standard's table
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_turned_photo_comes_upright(orientation):
    pixels = images.read(saved(GREY, exif=exif(orientation)))
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](GREY))


@pytest.mark.parametrize(("format", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})])
def test_the_first_frame_counts(format, options):
    first, second = (Image.fromarray(np.dstack([x] * 3)) for x in (GREY, 255 - GREY))
    animation = saved(first, format, save_all=True, append_images=[second], **options)
    np.testing.assert_array_equal(images.read(animation), GREY)


def test_the_content_decides_not_the_name(tmp_path):
    file = tmp_path / "face.jpg"
    file.write_bytes(saved(RGB, "WEBP", lossless=True))
    np.testing.assert_array_equal(images.read(file, color=True), RGB.transpose(2, 0, 1))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_shrinking_by_a_whole_number_takes_means(factor):
    side = 16
    pixels = RNG.integers(0, 256, (side * factor, side * factor), dtype=np.uint8)
    means = pixels.reshape(side, factor, side, factor).mean(axis=(1, 3))
    assert np.abs(images.read(saved(pixels), side) - means).max() <= 1


def hamming_weights(source: int, target: int) -> np.ndarray:
    """Hamming-windowed sinc of half-width one new pixel, row by row of sum 1."""
    scale = source / target
    centre = (np.arange(target)[:, None] + 0.5) * scale
    x = (np.arange(source)[None, :] + 0.5 - centre) / scale
    window = np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)
    return window / window.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("size", [20, 33, 48])
def test_shrinking_by_another_ratio_weighs_areas(size):
    pixels = RNG.integers(0, 256, (61, 61), dtype=np.uint8)
    weights = hamming_weights(61, size)
    assert np.abs(images.read(saved(pixels), size) - weights @ pixels @ weights.T).max() <= 2


@pytest.mark.parametrize("size", [20, 32, 47, 64, 100])
def test_resizing_keeps_a_flat_picture_flat_and_a_mean(size):
    assert (images.read(saved(np.full((64, 64), 77, np.uint8)), size) == 77).all()
    assert abs(images.read(saved(FACE), size).mean() - FACE.mean()) <= 1  # two passes, each rounded


def test_a_square_is_cut_from_the_middle():
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 16:32] = GREY[:16, :16]
    np.testing.assert_array_equal(images.read(saved(wide), 16), GREY[:16, :16])
    np.testing.assert_array_equal(images.read(saved(np.ascontiguousarray(wide.T)), 16), GREY[:16, :16].T)


def test_arrays_are_resized_as_files_are():
    stack = RNG.integers(0, 256, (3, 48, 48), dtype=np.uint8)
    for size in (24, 40, 48, 64):
        from_files = [images.read(saved(pixels), size) for pixels in stack]
        np.testing.assert_array_equal(images.resize(stack, size), from_files)
    assert images.resize(stack[:0], 24).shape == (0, 24, 24)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 270964830\n"
REFUSED = {
    "empty": (b"", "is empty", "download it again"),
    "blank": (b"  \r\n \n", "is empty", "download it again"),
    "git-lfs pointer": (LFS, "git-lfs pointer", "git lfs pull"),
    "web page": (b"\xef\xbb\xbf\r\n<!DOCTYPE html><html>Log in</html>", "web page", "log in"),
    "web page without doctype": (b"<HTML><body>404</body></HTML>", "web page", "log in"),
    "svg": (b"<?xml version='1.0'?><svg/>", "web page", "download"),
    "text": (b"not a picture at all, only words " * 10, "no image of a known format", "save it as"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format", "JPEG"),
    "pdf": (b"%PDF-1.4\n%%EOF" + b" " * 99, "no image of a known format", "PNG"),
    "zip": (b"PK\x03\x04" + bytes(100), "no image of a known format", "WEBP"),
    "cut png": (saved(GREY)[:300], "cannot be decoded", "get the file again"),
    "cut jpeg": (saved(FACE, "JPEG")[:-200], "cannot be decoded", "get the file again"),
    "cut webp": (saved(RGB, "WEBP")[:80], "cannot be decoded", "get the file again"),
    "a byte of a png changed": (
        saved(GREY)[:200] + bytes([saved(GREY)[200] ^ 1]) + saved(GREY)[201:],
        "cannot",
        "again",
    ),
    "bomb": (png_header(20000, 20000), "million pixels", "scale it down"),
    "larger bomb": (png_header(2**31 - 1, 2**31 - 1), "million pixels", "scale it down"),
    "one pixel": (saved(np.zeros((1, 1), np.uint8)), "1 x 1 pixels are too small", "larger"),
    "a line": (saved(np.zeros((1, 400), np.uint8)), "400 x 1 pixels are too small", "larger"),
    "floating point": (saved(GREY.astype(np.float32), "TIFF"), "floating-point", "8 bits"),
    "32 bits": (saved(GREY.astype(np.int32) << 20, "TIFF"), "32-bit", "8 or 16 bits"),
    "negative": (saved(GREY.astype(np.int32) - 99, "TIFF"), "32-bit", "8 or 16 bits"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_is_refused_in_one_line(case, tmp_path):
    data, reason, remedy = REFUSED[case]
    file = tmp_path / "face.png"
    file.write_bytes(data)
    for source in (data, file):
        with pytest.raises(images.PictureError) as caught:
            images.read(source, 48)
        assert reason in caught.value.reason
        assert remedy in caught.value.remedy
        assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(images.PictureError, match=r"nobody\.png: no such file; check its name"):
        images.read(tmp_path / "nobody.png")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(images.PictureError, match="cannot be decoded"):
        images.read(tmp_path)


def outcome(data: bytes) -> np.ndarray | images.PictureError:
    try:
        return images.read(data, 16)
    except images.PictureError as error:
        return error


WHOLE = [saved(RGB, format) for format in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM")]


@pytest.mark.filterwarnings("ignore:.*Read")  # what Pillow says of a cut TIFF before it gives up
@given(
    whole=st.sampled_from(WHOLE),
    place=st.floats(0, 1, exclude_max=True),
    junk=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_damage_gives_pixels_or_a_refusal_and_nothing_else(whole, place, junk, cut):
    at = int(place * len(whole))
    damaged = whole[:at] if cut else whole[:at] + junk + whole[at + len(junk) :]
    result = outcome(damaged)
    if isinstance(result, images.PictureError):
        assert "\n" not in str(result)
        assert result.reason
        assert result.remedy
    else:
        assert result.shape == (16, 16)
        assert result.dtype == np.uint8
