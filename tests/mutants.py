"""Everything that reads a file, fed with damaged ones: each answers, or refuses in one of the ways it lists.

Tests take a few dozen of these, ``python -m benchmarks.reading fuzz`` as many as are asked for.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from helpers import datasets, images, training

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
_LIKELY = np.frombuffer(b"0123456789 ,;.-+e\"'\n\r\t\0\xff\xfe()[]{}<>/\\", dtype=np.uint8)
_EXTREME = np.array([0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], dtype=np.uint32)


def mutant(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file changed in one to four ways: a bit flipped, bytes set, put in, taken out, moved, cut."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        at, length = int(random.integers(max(1, len(changed)))), int(random.integers(1, 9))
        junk = random.bytes(length) if random.random() < 0.5 else bytes(random.choice(_LIKELY, length))
        kind = int(random.integers(7))
        if kind == 0 and changed:
            changed[at] ^= 1 << int(random.integers(8))
        else:
            moved = changed[: length * int(random.integers(1, 20))]
            new = (b"", junk, junk, b"", b"", moved, random.choice(_EXTREME).tobytes())[kind]
            end = (at, at + length, at, at + length, len(changed), at + length, at + 4)[kind]
            changed[at:end] = new
    return bytes(changed)


def saved(pixels: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
    """Return an image as the bytes of a file."""
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, format, **options)
    return stream.getvalue()


def array(values: object) -> bytes:
    """Return an array as the bytes of a file."""
    stream = io.BytesIO()
    np.save(stream, np.array(values), allow_pickle=False)
    return stream.getvalue()


def put(file: Path, data: bytes) -> Path:
    """Write a file and the folders above it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def refused(work: Callable[[], object], error: type[Exception] = ValueError) -> object:
    """Return what work gives, None where it refuses in one line; all other errors go through."""
    try:
        return work()
    except error as caught:
        line = str(caught)
    assert line, "no reason is given"
    assert "\n" not in line
    return None


def _image_files() -> tuple[bytes, ...]:
    turned, palette, deep = Image.Exif(), Image.fromarray(RGB).quantize(16), GREY.astype(np.uint16) * 257
    turned[0x0112] = 6
    return (
        *(saved(RGB, format) for format in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")),
        *(saved(np.dstack([RGB, GREY]), format) for format in ("PNG", "WEBP", "TIFF")),
        *(saved(palette, format) for format in ("PNG", "GIF", "BMP")),
        *(saved(deep, format) for format in ("PNG", "TIFF", "PPM")),
        saved(Image.fromarray(GREY > 127), "TIFF", compression="group4"),
        saved(RGB, "JPEG", progressive=True, exif=turned),
        saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
    )


def _row(seed: int, label: int, usage: str = "Training") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, 2304)
    return f"{label},{' '.join(map(str, pixels.tolist()))},{usage}\n".encode()


CSV = b"emotion,pixels,Usage\n" + _row(0, 3) + _row(1, 6, "PublicTest") + _row(2, 1)
VOTES = (
    b"Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    b"Training,fer0.png,0,8,0,1,0,1,0,0,0,0\nPublicTest,fer1.png,9,0,0,1,0,0,0,0,0,0\n"
    b"Training,fer2.png,0,0,0,1,0,7,1,0,1,0\n"
)
LEGEND = b"user.id,image,emotion\n1,A_B_0001.png,anger\n2,A_B_0002.png,HAPPINESS\n3,web-3.png,neutral\n"
LIST = b"train_00001.jpg 4\ntest_0001.jpg 7\n"
RANKS = ",".join(["0.5", "0.5", *["0"] * 11]).encode()
FACE = saved(GREY)
AFFECTNET = {f"annotations/{key}_{kind}.npy": array(value) for key in (1, 2) for kind, value in
             {"exp": "3", "val": "0.5", "aro": "-0.25", "lnd": np.arange(136.0)}.items()}  # fmt: skip
TWO = {"images/1.png": FACE, "images/2.png": FACE}
LEGENDS = {f"images/{name}.png": FACE for name in ("A_B_0001", "A_B_0002", "web-3")}
ALIGNED = {f"Image/aligned/{name}_aligned.jpg": FACE for name in ("train_00001", "test_0001")}
SETS: dict[str, tuple[dict[str, bytes], dict, int | None]] = {
    "fer2013": ({"fer2013.csv": CSV}, {}, None),
    "ferplus": ({"fer2013.csv": CSV, "fer2013new.csv": VOTES}, {"rule": "distribution"}, 3),
    "muxspace": ({"data/legend.csv": LEGEND} | LEGENDS, {}, None),
    "rafdb": ({"EmoLabel/list_patition_label.txt": LIST} | ALIGNED, {}, None),
    "affectnet": (AFFECTNET | TWO, {}, 2),
    "affectnet_fused": ({f"annotations/{key}_prob_rank.txt": RANKS for key in (1, 2)} | TWO, {}, 2),
    "folder": ({"happy/1.png": FACE, "sad/2.png": FACE}, {}, 2),
}
"""Set to whole files of it in its layout, its options, and its rows or images where they stay."""


def write_set(name: str, root: Path, **changed: bytes) -> Path:
    """Write a whole set; ``changed`` has other content for files, named by their endings."""
    for place, data in SETS[name][0].items():
        put(root / place, next((new for ending, new in changed.items() if place.endswith(ending)), data))
    return root


def check_set(name: str, root: Path, num: int | None = None) -> bool:
    """Read a set; whatever was damaged in it, what is loaded makes sense and what is not is explained."""
    options = {"image_size": 16} if "csv" not in "".join(SETS[name][0]) else {}
    faces = refused(lambda: datasets.load(name, root, **options, **SETS[name][1]))
    if faces is None:
        return False
    assert all(each.reason and each.remedy and "\n" not in str(each) for each in faces.rejected)
    if faces.distribution is not None:
        np.testing.assert_allclose(faces.distribution.sum(axis=1), 1, atol=1e-5)
    if faces.valence_arousal is not None:
        assert np.nanmax(np.abs(faces.valence_arousal), initial=0) <= 1
    assert num is None or len(faces) + len(faces.rejected) == num
    return True


def _set_reader(name: str, place: str) -> Callable[[bytes, Path], bool]:
    def read(data: bytes, root: Path) -> bool:
        num = SETS[name][2]
        if name == "fer2013":
            num = sum(bool(line.strip()) for line in data.split(b"\n")[1:])
        return check_set(name, write_set(name, root, **{place: data}), num)

    return read


def _image(data: bytes, _: Path) -> bool:
    pixels = refused(lambda: images.read(data, 16), images.PictureError)
    assert pixels is None or (pixels.shape, pixels.dtype) == ((16, 16), np.uint8)
    return pixels is not None


def network() -> nn.Module:
    """Return a small network, each time with the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def _weights(data: bytes, root: Path) -> bool:
    model, before = network(), network().state_dict()
    file = put(root / "best.safetensors", data)
    taken = refused(lambda: training.load_weights(model, file) or True)
    assert all(torch.equal(before[name], values) for name, values in model.state_dict().items())
    return bool(taken)


with tempfile.TemporaryDirectory() as _folder:
    training.save_weights(network(), Path(_folder) / "best.safetensors")
    WEIGHTS = (Path(_folder) / "best.safetensors").read_bytes()

READERS: dict[str, tuple[tuple[bytes, ...], Callable[[bytes, Path], bool]]] = {
    "image": (_image_files(), _image),
    "fer2013.csv": ((CSV,), _set_reader("fer2013", "fer2013.csv")),
    "fer2013new.csv": ((VOTES,), _set_reader("ferplus", "fer2013new.csv")),
    "legend.csv": ((LEGEND,), _set_reader("muxspace", "legend.csv")),
    "list_patition_label.txt": ((LIST,), _set_reader("rafdb", "label.txt")),
    "folder": (_image_files()[:8], _set_reader("folder", "1.png")),
    "*_exp.npy": ((array("3"), array(3)), _set_reader("affectnet", "1_exp.npy")),
    "*_val.npy": ((array("0.5"), array(-2.0)), _set_reader("affectnet", "1_val.npy")),
    "*_lnd.npy": ((array(np.arange(136.0)),), _set_reader("affectnet", "1_lnd.npy")),
    "*_prob_rank.txt": ((RANKS,), _set_reader("affectnet_fused", "1_prob_rank.txt")),
    "best.safetensors": ((WEIGHTS,), _weights),
}
"""Name to whole files, and a function that reads one in a folder of its own and says whether it was taken."""


def tried(name: str, data: bytes, root: Path) -> bool:
    """Return whether a reader takes a file; what it must not raise goes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damage that it then refuses; and the cache's
        return READERS[name][1](data, root)
