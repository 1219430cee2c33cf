"""Pixels are right in every mode and turn: every kind of file against NumPy, the same bytes at every door."""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from test_images import UPRIGHT, exif

from helpers import datasets, images

HEIGHT, WIDTH = 24, 40
RNG = np.random.default_rng(0)


def smooth(channels: int) -> np.ndarray:
    """Slopes that no turn or mirror image leaves as they were, and that lossy files keep."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    parts = [60 + 2.5 * x + 3 * y, 220 - 2 * x - 2 * y, 30 + 4 * x + y, 40 + 4.5 * x + y]
    return np.stack([part.clip(0, 255) for part in parts[:channels]], axis=-1).round().astype(np.uint8)


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


def grey(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(float) if pixels.ndim == 2 else luma(pixels)


def over_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha.astype(float) / 255
    share = share if pixels.ndim == 2 else share[..., None]
    return share * pixels + (1 - share) * 255


L, RGB, FOUR = smooth(1)[..., 0], smooth(3), smooth(4)
ALPHA = FOUR[..., 3]
DEEP = (L.astype(np.uint16) * 256 + RNG.integers(0, 256, L.shape)).astype(np.uint16)
BITS = L > 140
PALETTE = RNG.integers(0, 256, (256, 3), dtype=np.uint8)


def palette() -> Image.Image:
    image = Image.fromarray(L)
    image.putpalette(PALETTE.tobytes())
    return image


def cmyk() -> Image.Image:
    return Image.frombytes("CMYK", (WIDTH, HEIGHT), FOUR.tobytes())


PAPER = (255.0 - RGB) * (255.0 - ALPHA[..., None]) / 255  # what ink leaves of white
MODES: dict[str, tuple[Callable[[], Image.Image], np.ndarray]] = {
    "L": (lambda: Image.fromarray(L), L),
    "RGB": (lambda: Image.fromarray(RGB), RGB),
    "RGBA": (lambda: Image.fromarray(np.dstack([RGB, ALPHA])), over_white(RGB, ALPHA)),
    "LA": (lambda: Image.fromarray(np.dstack([L, ALPHA])), over_white(L, ALPHA)),
    "P": (palette, PALETTE[L]),
    "CMYK": (cmyk, PAPER),
    "16-bit": (lambda: Image.fromarray(DEEP), DEEP / 257.0),
    "1-bit": (lambda: Image.fromarray(BITS), BITS * 255.0),
}
KINDS = {  # what each format can hold, and how it is asked to lose nothing
    "PNG": (("L", "RGB", "RGBA", "LA", "P", "16-bit", "1-bit"), {}),
    "TIFF": (("L", "RGB", "RGBA", "P", "CMYK", "16-bit", "1-bit"), {}),
    "JPEG": (("L", "RGB", "CMYK"), {"quality": 100, "subsampling": 0}),
    "WEBP": (("L", "RGB", "RGBA"), {"lossless": True}),
}
CASES = [(kind, mode) for kind, (modes, _) in KINDS.items() for mode in modes]
UNTURNED = [(kind, mode) for kind in ("BMP", "GIF", "PPM") for mode in ("L", "RGB", "P", "1-bit")]
CANNOT = {("GIF", "RGB"), ("PPM", "P")}  # a GIF has a palette, a PPM has none


def packed(kind: str, mode: str, turn: int | None = None) -> bytes:
    stream = io.BytesIO()
    made, options = MODES[mode][0](), dict(KINDS.get(kind, ((), {}))[1])
    if turn:
        options["exif"] = exif(turn)
    if mode == "CMYK" and kind == "JPEG":  # Pillow writes as Adobe does, with the ink inverted
        options.pop("subsampling")
    made.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize(("kind", "mode"), CASES)
def test_every_mode_comes_upright_and_right_in_every_turn(kind, mode, turn):
    expected = np.stack([UPRIGHT[turn](part) for part in np.moveaxis(np.atleast_3d(MODES[mode][1]), -1, 0)])
    expected = expected.astype(float)  # bytes would wrap around
    data = packed(kind, mode, turn)
    color = images.read(data, color=True)
    assert color.shape == (3, *expected.shape[1:])
    lost = 1 if (kind, mode) == ("JPEG", "RGB") else 0  # by its own change of colour space, before ours
    assert np.abs(color - expected).max() <= 2 + lost
    found = images.read(data)
    assert np.abs(found - grey(np.moveaxis(expected, 0, -1).squeeze())).max() <= 2


@pytest.mark.parametrize(("kind", "mode"), [case for case in UNTURNED if case not in CANNOT])
def test_what_has_no_turn_is_right_too(kind, mode):
    expected = MODES[mode][1]
    assert np.abs(images.read(packed(kind, mode)) - grey(np.asarray(expected))).max() <= 2


@pytest.mark.parametrize("turn", [1, 3, 6])
@pytest.mark.parametrize(("kind", "mode"), CASES)
@pytest.mark.parametrize("color", [False, True])
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


@pytest.mark.skipif(sys.platform != "linux", reason="asks for the memory as Linux tells it")
def test_the_largest_picture_needs_less_than_seven_hundred_megabytes(root):
    """A small file may hold 50 million transparent pixels, 200 MB; three copies are made, not five."""
    script = """
        import io
        from PIL import Image
        from helpers import images
        side, stream = int(images.MAX_PIXELS**0.5), io.BytesIO()
        Image.new("RGBA", (side, side), (1, 2, 3, 4)).save(stream, "PNG", compress_level=1)
        images.read(stream.getvalue(), 48)
        # not getrusage, which counts what the process was before it became this program
        [peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
        print(int(peak) // 1024)
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert int(ran.stdout or 10**6) < 700, ran.stderr
