"""The one way a file becomes pixels: 8 bits a channel, upright, grey or RGB, whatever it was saved as.

- The format is known from the content, not from the name, and is one of ``FORMATS``.
- A camera's rotation (EXIF) is applied; of an animation the first frame is taken.
- 16 bits a channel are scaled to 8 (65535 becomes 255), not cut off; what is transparent is laid over white.
- Grey is ITU-R 601 luma, 0.299 R + 0.587 G + 0.114 B, as Pillow computes it.
- A square is the central one of the shorter side, so that no face is stretched; shrunk, each new pixel is the
  mean of the area it covers (weighted by Hamming's window where the ratio is no whole number, since areas
  would differ in size), and enlarging is bilinear.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded; JPEG includes the multi-picture files of phones, PPM also PGM and PBM."""
MAX_PIXELS = 50_000_000  # what claims more is not decoded: some kilobytes can unpack to gigabytes
MIN_SIDE = 8  # whatever is smaller holds no face
_LARGE = f"more than {MAX_PIXELS // 1_000_000} million pixels", "scale it down first"


class PictureError(ValueError):
    """A file is no image that can be used: where, what is wrong with it, and what the reader can do."""

    def __init__(self, where: str, reason: str, remedy: str) -> None:
        super().__init__(f"{where}: {reason}; {remedy}")
        self.reason, self.remedy = reason, remedy


def read(file: str | Path | bytes, size: int | None = None, color: bool = False) -> np.ndarray:
    """Decode an image, from its path or content, to uint8 ``[H, W]``, or ``[3, H, W]`` of RGB with ``color``.

    ``size`` is the side of the square to return, in pixels; None returns the whole image. What is damaged,
    not there or no image of a known kind raises PictureError.
    """
    where, known = ("image", "") if isinstance(file, bytes) else (str(file), os.path.expanduser(str(file)))
    if known and not os.path.isfile(known):
        folder = ("is a folder", "give the path of a file in it")
        raise PictureError(where, *(folder if os.path.isdir(known) else ("no such file", "check its name")))
    try:
        with open(known, "rb") if known else io.BytesIO(file) as stream:
            if found := stand_in(stream.read(200)):
                raise PictureError(where, *found)
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as image:
                image = _flat(where, image).convert("RGB" if color else "L")
    except PictureError:
        raise
    except UnidentifiedImageError:
        why = "no image of a known format", f"save it as one of {', '.join(FORMATS)}"
        raise PictureError(where, *why) from None
    except Image.DecompressionBombError:
        raise PictureError(where, *_LARGE) from None
    except Exception as error:  # a damaged file can make a decoder raise anything at all
        reason = str(error).split("\n", 1)[0] or type(error).__name__
        raise PictureError(where, f"cannot be decoded ({reason})", "get the file again") from error
    return _array(image if size is None else _square(image, size))


def _flat(where: str, image: Image.Image) -> Image.Image:
    """Return an opened image upright and opaque, in 8 bits."""
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(where, *_LARGE)
    if min(image.size) < MIN_SIDE:
        reason = f"{image.width} x {image.height} pixels are too small for a face"
        raise PictureError(where, reason, "use a larger image")
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # a copy of the largest images would take 200 MB
    if image.mode == "F":
        raise PictureError(where, "pixels are floating-point numbers of unknown range", "save it with 8 bits")
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(where, "32-bit pixels of unknown range", "save it with 8 or 16 bits")
        values = (values.astype(np.uint32) + 128) // 257  # 65535 = 255 * 257
        return Image.fromarray(values.astype(np.uint8))
    if image.has_transparency_data:
        clear = image if image.mode == "RGBA" else image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), clear).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _square(image: Image.Image, size: int, box: tuple[int, int, int] | None = None) -> Image.Image:
    """Return a square of an image, left, top and side of ``box`` or the central one, in another size."""
    side = min(image.size)
    left, top, side = box or ((image.width - side) // 2, (image.height - side) // 2, side)
    shrinking = Image.Resampling.HAMMING if side % size else Image.Resampling.BOX
    kind = shrinking if size < side else Image.Resampling.BILINEAR
    # cut first: resize(box=...) would let what lies beside the square into its edges
    return image.crop((left, top, left + side, top + side)).resize((size, size), kind)


def _array(image: Image.Image) -> np.ndarray:
    pixels = np.array(image)
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return grey images ``[N, H, W]`` as squares of another size, as :func:`read` does."""
    if pixels.shape[1:] == (size, size):
        return pixels
    squares = [_array(_square(Image.fromarray(each), size)) for each in pixels]
    return np.array(squares, dtype=np.uint8).reshape(-1, size, size)


def cut(pixels: np.ndarray, left: int, top: int, side: int, size: int, color: bool = False) -> np.ndarray:
    """Return a square out of a decoded image, the same way as :func:`read` makes one of a whole file.

    It begins at ``left`` and ``top`` of ``pixels``, uint8 ``[H, W]`` or ``[3, H, W]`` of RGB; beyond the
    image, its edge is repeated. ``side`` pixels become ``size``, grey or RGB.
    """
    reach, (height, width) = side // size + 2, pixels.shape[-2:]  # what the outermost new pixels are made of
    rows, columns = (
        np.arange(max(begin - reach, min(begin, 0)), min(begin + side + reach, max(begin + side, length)))
        for begin, length in ((top, height), (left, width))
    )
    part = pixels[..., rows.clip(0, height - 1)[:, None], columns.clip(0, width - 1)]
    flat = _image(part).convert("RGB" if color else "L")
    return _array(_square(flat, size, (left - int(columns[0]), top - int(rows[0]), side)))


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return an image, ``[H, W]`` or ``[3, H, W]`` of RGB, in grey ``[H, W]``, as :func:`read` does."""
    return pixels if pixels.ndim == 2 else np.array(_image(pixels).convert("L"))


def on_square(points: np.ndarray, file: str | Path, size: int) -> np.ndarray:
    """Return where points (x, y) of an upright image come to lie on its square; whole numbers are centres."""
    with Image.open(file, formats=FORMATS) as image:  # its head alone
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        around = np.array(image.size[::-1] if turned else image.size)
    corner = (around - around.min()) // 2
    return (points + 0.5 - corner) * (size / around.min()) - 0.5


def stand_in(head: bytes) -> tuple[str, str] | None:
    """Return reason and remedy where 200 first bytes are no data: a git-lfs pointer, a web page, nothing."""
    start = head[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start:
        return "is empty", "download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the data itself", "run `git lfs pull`, or download the file"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not the data itself", "log in where it is offered and download it again"
    return None
