"""Everything that reads a file, fed with damaged ones: each answers, or refuses in one of the ways it lists.

Tests take a few hundred of these, ``python -m benchmarks.fuzz`` as many as are asked for.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from helpers import datasets, emotions, images, training
from helpers.datasets import (
    affectnet,
    affectnet_fused,
    archives,
    cache,
    fer2013,
    ferplus,
    folder,
    muxspace,
    tables,
)

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
RGB = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


class Broken(AssertionError):
    """A reader kept its word neither way."""


@dataclass(frozen=True)
class Reader:
    """Something that reads a file.

    Args:
        seeds: files that it reads.
        read: reads a file's bytes, in a folder that is its own; returns whether it took them. It raises what
            the reader may not raise, and ``Broken`` where an answer makes no sense.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], bool]


def mutant(data: bytes, random: np.random.Generator) -> bytes:
    """Return a file changed in one to four ways: bytes flipped, set, put in, taken out, moved, or cut off.

    Args:
        data: the whole file.
        random: where the changes come from.
    """
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 5))):
        size = max(1, len(changed))
        at, length = int(random.integers(size)), int(random.integers(1, 9))
        junk = random.bytes(length) if random.random() < 0.5 else bytes(random.choice(_LIKELY, length))
        kind = int(random.integers(8))
        if kind == 0 and changed:
            changed[at] ^= 1 << int(random.integers(8))
        elif kind in (1, 2):
            changed[at : at + length] = junk
        elif kind == 3:
            changed[at:at] = junk
        elif kind == 4:
            del changed[at : at + length]
        elif kind == 5:
            del changed[at:]
        elif kind == 6:
            changed[at : at + length] = changed[: length * int(random.integers(1, 20))]
        elif kind == 7:
            changed[at : at + 4] = random.choice(_EXTREME).tobytes()
    return bytes(changed)


_LIKELY = np.frombuffer(b"0123456789 ,;.-+e\"'\n\r\t\0\xff\xfe()[]{}<>/\\", dtype=np.uint8)
_EXTREME = np.array([0, 1, 0x7F, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF], dtype=np.uint32)


def _one_line(error: Exception) -> None:
    text = str(error)
    if not text or "\n" in text:
        raise Broken(f"not one line: {text!r}")


def _refusal(error: images.PictureError | datasets.Rejection) -> None:
    if not (error.reason and error.remedy) or "\n" in str(error):
        raise Broken(f"no reason, no remedy or not one line: {error}")


# ---------------------------------------------------------------- pictures


def _saved(pixels: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(stream, format, **options)
    return stream.getvalue()


def _pictures() -> tuple[bytes, ...]:
    turned = Image.Exif()
    turned[0x0112] = 6
    rgba, palette = np.dstack([RGB, GREY]), Image.fromarray(RGB).quantize(16)
    deep = GREY.astype(np.uint16) * 257
    return (
        *(_saved(RGB, format) for format in ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "PPM")),
        *(_saved(GREY, format) for format in ("PNG", "JPEG", "PPM", "TIFF")),
        *(_saved(rgba, format) for format in ("PNG", "WEBP", "TIFF")),
        *(_saved(palette, format) for format in ("PNG", "GIF", "BMP")),
        *(_saved(deep, format) for format in ("PNG", "TIFF", "PPM")),
        _saved(Image.fromarray(GREY > 127), "PNG"),
        _saved(Image.fromarray(GREY > 127), "TIFF", compression="group4"),
        _saved(RGB, "JPEG", progressive=True, exif=turned),
        _saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"),
        _saved(RGB, "TIFF", compression="tiff_lzw"),
        _saved(palette, "GIF", save_all=True, append_images=[palette]),
    )


def _picture(data: bytes, _: Path) -> bool:
    try:
        pixels = images.read(data, 16)
    except images.PictureError as error:
        _refusal(error)
        return False
    if pixels.shape != (16, 16) or pixels.dtype != np.uint8:
        raise Broken(f"{pixels.dtype} of shape {pixels.shape}")
    return True


# ---------------------------------------------------------------- sets


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


def _faces(read: Callable[[], datasets.FaceSet], num: int | None = None) -> bool:
    """Check what a set's reader makes of a folder; ``num`` is how many rows or pictures there are."""
    try:
        faces = read()
    except ValueError as error:
        _one_line(error)
        return False
    for rejection in faces.rejected:
        _refusal(rejection)
    if len(faces) and not (faces.labels.min() >= 0 and faces.labels.max() < len(faces.classes)):
        raise Broken(f"labels from {faces.labels.min()} to {faces.labels.max()}")
    if faces.distribution is not None and not np.allclose(faces.distribution.sum(axis=1), 1, atol=1e-5):
        raise Broken("a distribution does not sum to 1")
    if faces.valence_arousal is not None and not (np.abs(faces.valence_arousal[_known(faces)]) <= 1).all():
        raise Broken("valence or arousal beyond 1")
    if num is not None and len(faces) + len(faces.rejected) != num:
        raise Broken(f"{len(faces)} loaded and {len(faces.rejected)} rejected of {num}")
    return bool(len(faces))


def _known(faces: datasets.FaceSet) -> np.ndarray:
    return ~np.isnan(faces.valence_arousal)


def _lines(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.split(b"\n")[1:])


def _put(place: Path, name: str, data: bytes) -> Path:
    file = place / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def _csv(data: bytes, place: Path) -> bool:
    _put(place, "fer2013.csv", data)
    return _faces(lambda: fer2013.read(place, 48), _lines(data))


def _pixels(data: bytes, _: Path) -> bool:
    try:
        pixels = fer2013.parse_pixels(data)
    except ValueError as error:
        _one_line(error)
        return False
    if pixels.shape != (2304,) or pixels.tolist() != [int(word) for word in data.split()]:
        raise Broken("other pixels than Python reads")
    return True


def _votes(data: bytes, place: Path) -> bool:
    _put(place, "fer2013.csv", CSV)
    _put(place, "fer2013new.csv", data)
    return _faces(lambda: ferplus.read(place, 48, rule="distribution"), 3)


def _legend(data: bytes, place: Path) -> bool:
    _put(place, "data/legend.csv", data)
    for number, name in enumerate(("A_B_0001.png", "A_B_0002.png", "web-3.png")):
        if not (place / "images" / name).exists():
            _put(place, f"images/{name}", _saved(GREY + np.uint8(number), "PNG"))
    return _faces(lambda: muxspace.read(place, 16))


def _tree(data: bytes, place: Path) -> bool:
    _put(place, "happy/1.png", data)
    _put(place, "sad/2.png", _saved(GREY, "PNG"))
    return _faces(lambda: folder.read(place, 16), 2)


def _annotation(kind: str) -> Callable[[bytes, Path], bool]:
    values = {"exp": "3", "val": "0.5", "aro": "-0.25"}

    def read(data: bytes, place: Path) -> bool:
        for key in ("1", "2") if not (place / "images").exists() else ():
            for name, value in values.items():
                _put(place, f"annotations/{key}_{name}.npy", _array(np.array(value)))
            _put(place, f"annotations/{key}_lnd.npy", _array(np.arange(136.0)))
            _put(place, f"images/{key}.png", _saved(GREY, "PNG"))
        _put(place, f"annotations/1_{kind}.npy", data)
        return _faces(lambda: affectnet.read(place, 16), 2)

    return read


def _ranks(data: bytes, place: Path) -> bool:
    for key in ("1", "2") if not (place / "images").exists() else ():
        _put(place, f"annotations/{key}_prob_rank.txt", ",".join(["0.5", "0.5", *["0"] * 11]).encode())
        _put(place, f"images/{key}.png", _saved(GREY, "PNG"))
    _put(place, "annotations/1_prob_rank.txt", data)
    return _faces(lambda: affectnet_fused.read(place, 16), 2)


def _array(values: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=False)
    return stream.getvalue()


def _table(data: bytes, place: Path) -> bool:
    try:
        rows, rejected = tables.read(_put(place, "t.csv", data), ("image", "emotion"))
    except ValueError as error:
        _one_line(error)
        return False
    for rejection in rejected:
        _refusal(rejection)
    if any(set(fields) < {"image", "emotion"} for _, fields in rows):
        raise Broken("a row lacks a column")
    return True


def _word(data: bytes, _: Path) -> bool:
    try:
        return emotions.canonical(data.decode("utf-8", "replace")) in emotions.FUSED13
    except ValueError as error:
        _one_line(error)
        return False


# ---------------------------------------------------------------- what the workbook wrote itself


def _cached(which: str) -> tuple[tuple[bytes, ...], Callable[[bytes, Path], bool]]:
    num = 6
    made = datasets.FaceSet(
        "made",
        images=RNG.integers(0, 256, (num, 8, 8), dtype=np.uint8),
        labels=np.arange(num) % 7,
        classes=emotions.FER7,
        split=np.full(num, "", dtype="U10"),
        source=np.array([f"x:{i}" for i in range(num)]),
    )
    with tempfile.TemporaryDirectory() as place:
        cache._fill(Path(place), made, "request")
        built = {file.name: file.read_bytes() for file in Path(place).iterdir()}

    def read(data: bytes, place: Path) -> bool:
        for name, content in built.items():
            _put(place, name, data if name == which else content)
        try:
            found = cache._read(place, cache.Digests(place / "none"))
        except (OSError, ValueError, KeyError, TypeError):  # what load() takes for damage, and builds again
            return False
        same = np.array_equal(found.images, made.images) and np.array_equal(found.labels, made.labels)
        if not same or found.classes != made.classes:
            raise Broken("other faces than were kept")
        return True

    return (built[which],), read


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))


def _weights(data: bytes, place: Path) -> bool:
    model = _network()
    before = [values.clone() for values in model.state_dict().values()]
    try:
        training.load_weights(model, _put(place, "best.safetensors", data))
    except ValueError as error:
        _one_line(error)
        return False
    finally:
        if not all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True)):
            raise Broken("other weights than were kept")
    return True


def _state(data: bytes, place: Path) -> bool:
    _put(place, "state.safetensors", data)
    try:
        state, about = training.Run(place).load_state()
    except ValueError as error:
        _one_line(error)
        return False
    if about != {"epoch": 3} or not torch.equal(state["weights"], torch.arange(9.0)):
        raise Broken("another state than was kept")
    return True


def _kept() -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as place:
        run = training.Run(place)
        run.save_state({"weights": torch.arange(9.0)}, {"epoch": 3})
        training.save_weights(_network(), run.best)
        return (Path(place) / "state.safetensors").read_bytes(), run.best.read_bytes()


def _archive(data: bytes, place: Path) -> bool:
    file = _put(place, "data.archive", data)
    try:
        found = archives.extract(file, place / "out")
    except ValueError as error:
        _one_line(error)
        return False
    outside = [each for each in place.iterdir() if each.name not in ("data.archive", "out")]
    if outside or not all(each.is_file() and not each.is_symlink() for each in found):
        raise Broken(f"wrote {outside or found}")
    return True


def _archives() -> tuple[bytes, ...]:
    packed, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.csv", b"1,2\n" * 50)
        archive.writestr("a/c.txt", b"text")
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name in ("a/b.csv", "a/c.txt"):
            info = tarfile.TarInfo(name)
            info.size = 200
            archive.addfile(info, io.BytesIO(b"1,2\n" * 50))
    return packed.getvalue(), tarred.getvalue(), gzip.compress(tarred.getvalue())


STATE, WEIGHTS = _kept()
READERS = {
    "picture": Reader(_pictures(), _picture),
    "pixels of a row": Reader((_row(0, 3).split(b",")[1],), _pixels),
    "fer2013.csv": Reader((CSV,), _csv),
    "fer2013new.csv": Reader((VOTES,), _votes),
    "legend.csv": Reader((LEGEND,), _legend),
    "table": Reader((LEGEND, b'image,emotion\n"a,b",happy\n'), _table),
    "folder": Reader(_pictures()[:8], _tree),
    "*_exp.npy": Reader((_array(np.array("3")), _array(np.array(3))), _annotation("exp")),
    "*_val.npy": Reader((_array(np.array("0.5")), _array(np.array(-2.0))), _annotation("val")),
    "*_lnd.npy": Reader((_array(np.arange(136.0)),), _annotation("lnd")),
    "*_prob_rank.txt": Reader((b"0.1,0.5," + b",".join([b"0.04"] * 10) + b",0.0\n",), _ranks),
    "word": Reader(tuple(name.encode() for name in emotions.FUSED13), _word),
    "images.npy": Reader(*_cached("images.npy")),
    "labels.npz": Reader(*_cached("labels.npz")),
    "manifest.json": Reader(*_cached("manifest.json")),
    "state.safetensors": Reader((STATE,), _state),
    "best.safetensors": Reader((WEIGHTS,), _weights),
    "archive": Reader(_archives(), _archive),
}
"""Name to reader: everything in the workbook that reads a file."""


def tried(name: str, data: bytes, place: Path) -> bool:
    """Return whether a reader takes a file; what it must not raise goes through.

    Args:
        name: one of ``READERS``.
        data: the file.
        place: an empty folder, or one that this reader was tried in before.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damage that it then refuses
        return READERS[name].read(data, place)


def explained(name: str, data: bytes, error: BaseException) -> str:
    """Return one line that says which file a reader failed on.

    Args:
        name: the reader.
        data: the file.
        error: what it raised.
    """
    return json.dumps({"reader": name, "error": repr(error)[:300], "file": data.hex()[:4000]})
