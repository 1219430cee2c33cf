"""The one way a file becomes pixels.

Whatever a picture was saved as, what comes out is 8 bits a channel, upright, grey or RGB:

- the format is known from the content, not from the name, and is one of ``FORMATS``;
- a camera's rotation (EXIF) is applied; of an animation the first frame is taken;
- 16 bits a channel are scaled to 8 (65535 becomes 255), not cut off at 255;
- what is transparent is laid over white;
- grey is ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B, as Pillow computes it;
- for a square, the central square of the shorter side is cut out, so that no face is stretched; shrunk, each
  new pixel is the mean of the area it covers (weighted by Hamming's window where the ratio is no whole
  number, since areas would differ in size), and enlarging is bilinear.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded; JPEG includes the multi-picture files of phones, PPM also PGM and PBM."""

MAX_PIXELS = 50_000_000
"""A picture that claims more is not decoded: a file of some kilobytes can unpack to gigabytes."""

MIN_SIDE = 8
"""Pixels; whatever is smaller holds no face."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


class PictureError(ValueError):
    """A file is no picture that can be used.

    Args:
        where: the file, or "picture" where it came as bytes.
        reason: what is wrong with it.
        remedy: what the reader can do about it.
    """

    def __init__(self, where: str, reason: str, remedy: str) -> None:
        super().__init__(f"{where}: {reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def read(file: str | Path | bytes, size: int | None = None, color: bool = False) -> np.ndarray:
    """Decode a picture.

    Args:
        file: a path, or the content of a file.
        size: side of the square to return in pixels; None returns the whole picture.
        color: RGB instead of grey.

    Returns:
        uint8 ``[H, W]``, or ``[3, H, W]`` with ``color``.

    Raises:
        PictureError: the file is not there, is damaged, or is no picture of a known kind.
    """
    where = "picture" if isinstance(file, bytes) else str(file)
    try:
        with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as stream:
            _refuse_stand_in(where, stream)
            image = _decode(where, stream, color)
    except PictureError:
        raise
    except UnidentifiedImageError:
        raise PictureError(where, "no picture of a known format", f"save it as one of {_names()}") from None
    except Image.DecompressionBombError:
        raise _too_large(where) from None
    except FileNotFoundError:
        raise PictureError(where, "no such file", "check its name") from None
    except Exception as error:  # a damaged file can make a decoder raise anything at all
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise PictureError(where, f"cannot be decoded ({reason})", "get the file again") from error
    return _array(image if size is None else _square(image, size))


def _decode(where: str, stream, color: bool) -> Image.Image:
    with Image.open(stream, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(where)
        if min(image.size) < MIN_SIDE:
            size = f"{image.width} x {image.height}"
            raise PictureError(where, f"{size} pixels are too small for a face", "use a larger picture")
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # a copy of the largest pictures would take 200 MB
        return _flatten(where, image).convert("RGB" if color else "L")


def _flatten(where: str, image: Image.Image) -> Image.Image:
    """Return the picture in mode L or RGB: 8 bits, opaque."""
    if image.mode in _SIXTEEN_BIT or image.mode == "I":
        return _eight_bits(where, np.asarray(image))
    if image.mode == "F":
        raise PictureError(where, "pixels are floating-point numbers of unknown range", "save it with 8 bits")
    if image.has_transparency_data:
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _eight_bits(where: str, values: np.ndarray) -> Image.Image:
    if values.min() < 0 or values.max() > 65535:
        raise PictureError(where, "32-bit pixels of unknown range", "save it with 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))  # 65535 / 255 = 257


def _square(image: Image.Image, size: int) -> Image.Image:
    side = min(image.size)
    return _resampled(image, (image.width - side) // 2, (image.height - side) // 2, side, size)


def _resampled(image: Image.Image, left: int, top: int, side: int, size: int) -> Image.Image:
    shrinking = Image.Resampling.HAMMING if side % size else Image.Resampling.BOX
    kind = shrinking if size < side else Image.Resampling.BILINEAR
    # cut first: resize(box=...) would let what lies beside the square into its edges
    return image.crop((left, top, left + side, top + side)).resize((size, size), kind)


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.array(image)
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return grey images as squares of another size, the same way as :func:`read`.

    Args:
        pixels: uint8 ``[N, H, W]``.
        size: side in pixels.

    Returns:
        uint8 ``[N, size, size]``; ``pixels`` itself where it has that size.
    """
    if pixels.shape[1:] == (size, size):
        return pixels
    squares = [_array(_square(Image.fromarray(p), size)) for p in pixels]
    return np.stack(squares) if squares else np.empty((0, size, size), dtype=np.uint8)


def cut(pixels: np.ndarray, left: int, top: int, side: int, size: int, color: bool = False) -> np.ndarray:
    """Return a square out of a decoded picture, the same way as :func:`read` makes one of a whole file.

    Args:
        pixels: uint8 ``[H, W]``, or ``[3, H, W]`` of RGB.
        left: column where the square begins; beyond the picture its edge is repeated.
        top: row where the square begins.
        side: of the square in the picture, in pixels.
        size: side of what is returned, in pixels.
        color: RGB instead of grey.

    Returns:
        uint8 ``[size, size]``, or ``[3, size, size]`` with ``color``.
    """
    rows, columns = (
        _with_neighbours(begin, side, size, length)
        for begin, length in ((top, pixels.shape[-2]), (left, pixels.shape[-1]))
    )
    part = pixels[..., rows.clip(0, pixels.shape[-2] - 1)[:, None], columns.clip(0, pixels.shape[-1] - 1)]
    image = Image.fromarray(part if part.ndim == 2 else np.ascontiguousarray(part.transpose(1, 2, 0)))
    flat = image.convert("RGB" if color else "L")
    return _array(_resampled(flat, left - int(columns[0]), top - int(rows[0]), side, size))


def _with_neighbours(begin: int, side: int, size: int, length: int) -> np.ndarray:
    """Return rows (or columns) of a square and those beside it that its outermost new pixels are made of."""
    reach = side // size + 2
    first = max(begin - reach, min(begin, 0))
    last = min(begin + side + reach, max(begin + side, length))
    return np.arange(first, last)


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return a picture in grey, uint8 ``[H, W]``; luma as :func:`read` computes it.

    Args:
        pixels: uint8 ``[H, W]``, or ``[3, H, W]`` of RGB.
    """
    if pixels.ndim == 2:
        return pixels
    return np.array(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert("L"))


def size(file: str | Path) -> tuple[int, int]:
    """Return how many pixels wide and high a picture is, upright, from its head alone.

    Args:
        file: a picture that :func:`read` takes.
    """
    with Image.open(file, formats=FORMATS) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return image.size[::-1] if turned else image.size


def on_square(points: np.ndarray, width: int, height: int, size: int) -> np.ndarray:
    """Return where points of a picture come to lie on the square that :func:`read` makes of it.

    Args:
        points: ``[..., 2]``, (x, y) in pixels of the picture; whole numbers are the centres of pixels.
        width: of the picture in pixels.
        height: of the picture in pixels.
        size: side of the square in pixels.
    """
    side = min(width, height)
    corner = (width - side) // 2, (height - side) // 2
    return (points + 0.5 - np.array(corner)) * (size / side) - 0.5


def stand_in(head: bytes) -> tuple[str, str] | None:
    """Recognise what often lies where data should: a git-lfs pointer, a web page, nothing.

    Args:
        head: the first bytes of the file; 200 are enough.

    Returns:
        Reason and remedy, or None where it is none of these.
    """
    start = head[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty", "download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the data itself", "run `git lfs pull`, or download the file"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not the data itself", "log in where it is offered and download it again"
    return None


def _refuse_stand_in(where: str, stream) -> None:
    found = stand_in(stream.read(200))
    if found:
        raise PictureError(where, *found)
    stream.seek(0)


def _too_large(where: str) -> PictureError:
    return PictureError(where, f"more than {MAX_PIXELS // 1_000_000} million pixels", "scale it down first")


def _names() -> str:
    return ", ".join(FORMATS)
