"""A file becomes pixels: every mode against NumPy, every kind of damage against one sentence."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from mutants import GREY, saved
from PIL import Image

from helpers import datasets, images

RNG = np.random.default_rng(0)
FACE = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)


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


def test_a_transparent_shade_is_white_and_the_first_frame_counts():
    shade = int(GREY[3, 4])
    pixels = images.read(saved(GREY, transparency=shade))
    np.testing.assert_array_equal(pixels, np.where(shade == GREY, 255, GREY))
    first, second = (Image.fromarray(np.dstack([x] * 3)) for x in (GREY, 255 - GREY))
    for format, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        animation = saved(first, format, save_all=True, append_images=[second], **options)
        np.testing.assert_array_equal(images.read(animation), GREY)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_cut_off(format):
    deep = np.concatenate([RNG.integers(0, 65536, 594), [0, 1, 128, 129, 65534, 65535]]).reshape(20, 30)
    pixels = images.read(saved(deep.astype(np.uint16), format))
    np.testing.assert_array_equal(pixels, np.rint(deep * 255 / 65535))


def hamming_weights(source: int, target: int) -> np.ndarray:
    """Hamming-windowed sinc of half-width one new pixel, row by row of sum 1."""
    scale = source / target
    centre = (np.arange(target)[:, None] + 0.5) * scale
    x = (np.arange(source)[None, :] + 0.5 - centre) / scale
    window = np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)
    return window / window.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("side", "size"), [(61, 20), (61, 33), (61, 48), (32, 16), (48, 16)])
def test_shrinking_weighs_areas_and_by_a_whole_number_takes_means(side, size):
    pixels = RNG.integers(0, 256, (side, side), dtype=np.uint8)
    weights = hamming_weights(side, size)
    if side % size == 0:
        weights = np.kron(np.eye(size), np.full(side // size, size / side))
    assert np.abs(images.read(saved(pixels), size) - weights @ pixels @ weights.T).max() <= 2


def test_a_square_is_cut_from_the_middle_and_arrays_are_resized_as_files_are():
    wide = np.zeros((16, 48), dtype=np.uint8)
    wide[:, 16:32] = GREY[:16, :16]
    np.testing.assert_array_equal(images.read(saved(wide), 16), GREY[:16, :16])
    np.testing.assert_array_equal(images.read(saved(np.ascontiguousarray(wide.T)), 16), GREY[:16, :16].T)
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


PNG = saved(GREY)
REFUSED = {
    "empty": (b"", "is empty", "download it again"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer", "git lfs pull"),
    "web page": (b"\xef\xbb\xbf\r\n<!DOCTYPE html><html>Log in</html>", "web page", "log in"),
    "text": (b"not a picture at all, only words " * 10, "no image of a known format", "save it as"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format", "JPEG"),
    "cut png": (PNG[:300], "cannot be decoded", "get the file again"),
    "cut jpeg": (saved(FACE, "JPEG")[:-200], "cannot be decoded", "get the file again"),
    "a byte of a png changed": (PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:], "cannot", "again"),
    "bomb": (png_header(20000, 20000), "million pixels", "scale it down"),
    "large": (png_header(7100, 7100), "million pixels", "scale it down"),
    "one pixel": (saved(np.zeros((1, 1), np.uint8)), "1 x 1 pixels are too small", "larger"),
    "floating point": (saved(GREY.astype(np.float32), "TIFF"), "floating-point", "8 bits"),
    "32 bits": (saved(GREY.astype(np.int32) << 20, "TIFF"), "32-bit", "8 or 16 bits"),
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


def test_what_is_no_file_is_named(tmp_path, monkeypatch):
    for source, message in (
        (tmp_path / "nobody.png", r"nobody\.png: no such file; check its name"),
        (tmp_path, "is a folder; give the path of a file in it"),
        (Image.fromarray(GREY), "no such file"),
    ):
        with pytest.raises(images.PictureError, match=message):
            images.read(source)
    (tmp_path / "me.png").write_bytes(PNG)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    np.testing.assert_array_equal(images.read("~/me.png"), GREY)


HEIGHT, WIDTH = 24, 40


def smooth(channels: int) -> np.ndarray:
    """Slopes that no turn or mirror image leaves as they were, and that lossy files keep."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    parts = [60 + 2.5 * x + 3 * y, 220 - 2 * x - 2 * y, 30 + 4 * x + y, 40 + 4.5 * x + y]
    return np.stack([part.clip(0, 255) for part in parts[:channels]], axis=-1).round().astype(np.uint8)


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(float).reshape(*alpha.shape, *[1] * (pixels.ndim - 2)) / 255
    return share * pixels + (1 - share) * 255


L, COLOR, FOUR = smooth(1)[..., 0], smooth(3), smooth(4)
CLEAR = FOUR[..., 3]
DEEP = (L.astype(np.uint16) * 256 + RNG.integers(0, 256, L.shape)).astype(np.uint16)
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


def palette() -> Image.Image:
    image = Image.fromarray(L)
    image.putpalette(PALETTE.tobytes())
    return image


PAPER = (255.0 - COLOR) * (255.0 - CLEAR[..., None]) / 255  # what ink leaves of white
MODES: dict[str, tuple[Callable[[], Image.Image], np.ndarray]] = {
    "L": (lambda: Image.fromarray(L), L),
    "RGB": (lambda: Image.fromarray(COLOR), COLOR),
    "RGBA": (lambda: Image.fromarray(np.dstack([COLOR, CLEAR])), over_white(COLOR, CLEAR)),
    "LA": (lambda: Image.fromarray(np.dstack([L, CLEAR])), over_white(L, CLEAR)),
    "P": (palette, PALETTE[L]),
    "CMYK": (lambda: Image.frombytes("CMYK", (WIDTH, HEIGHT), FOUR.tobytes()), PAPER),
    "16-bit": (lambda: Image.fromarray(DEEP), DEEP / 257.0),
    "1-bit": (lambda: Image.fromarray(L > 140), (L > 140) * 255.0),
}
KINDS = {  # what each format can hold, and how it is asked to lose nothing
    "PNG": (("L", "RGB", "RGBA", "LA", "P", "16-bit", "1-bit"), {}),
    "TIFF": (("L", "RGB", "RGBA", "P", "CMYK", "16-bit", "1-bit"), {}),
    "JPEG": (("L", "RGB", "CMYK"), {"quality": 100}),
    "WEBP": (("L", "RGB", "RGBA"), {"lossless": True}),
}
CASES = [(kind, mode, turn) for kind, (modes, _) in KINDS.items() for mode in modes for turn in UPRIGHT]
CASES += [("BMP", "RGB", None), ("BMP", "P", None), ("GIF", "L", None), ("PPM", "1-bit", None)]


def packed(kind: str, mode: str, turn: int | None) -> bytes:
    options, tags = dict(KINDS.get(kind, ((), {}))[1]), Image.Exif()
    if turn:
        tags[0x0112] = turn
        options["exif"] = tags
    if (kind, mode) == ("JPEG", "RGB"):
        options["subsampling"] = 0
    return saved(MODES[mode][0](), kind, **options)


@pytest.mark.parametrize(("kind", "mode", "turn"), CASES)
def test_every_mode_comes_upright_and_right_in_every_turn(kind, mode, turn):
    right = np.moveaxis(np.atleast_3d(MODES[mode][1]).astype(float), -1, 0)
    expected = np.stack([UPRIGHT[turn or 1](part) for part in right])
    color = images.read(packed(kind, mode, turn), color=True)
    assert color.shape == (3, *expected.shape[1:])
    lost = 1 if (kind, mode) == ("JPEG", "RGB") else 0  # by its own change of colour space, before ours
    assert np.abs(color - expected).max() <= 2 + lost
    weights = [1] if len(expected) == 1 else [0.299, 0.587, 0.114]
    grey = np.tensordot(weights, expected, axes=1)
    assert np.abs(images.read(packed(kind, mode, turn)) - grey).max() <= 2


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("TIFF", "16-bit"), ("JPEG", "RGB")])
@pytest.mark.parametrize(("turn", "color"), [(1, True), (6, False)])
def test_every_door_gives_the_same_bytes(tmp_path, kind, mode, turn, color):
    """A set on disk, a file by its path, by its bytes, and a square cut out of a decoded picture."""
    data = packed(kind, mode, turn)
    file = tmp_path / "happy" / f"1.{kind.lower()}"
    file.parent.mkdir()
    file.write_bytes(data)
    (trained,) = datasets.load("folder", tmp_path, image_size=16, color=color).images
    np.testing.assert_array_equal(images.read(data, 16, color), trained)
    np.testing.assert_array_equal(images.read(file, 16, color), trained)
    whole = images.read(data, color=color)
    height, width = whole.shape[-2:]
    side = min(height, width)
    cut = images.cut(whole, (width - side) // 2, (height - side) // 2, side, 16, color)
    np.testing.assert_array_equal(cut, trained)
