"""Files that are damaged, vanish, or cannot be written: each is named, good ones load, nothing is torn."""

from __future__ import annotations

import ast
import errno
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import shutil
import struct
import sys
import time
import zipfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import READERS, mutant, tried
from PIL import Image
from test_affectnet import DAMAGE as BAD_ANNOTATIONS
from test_affectnet import good as good_annotations
from test_affectnet_fused import DAMAGE as BAD_RANKS
from test_affectnet_fused import write as write_fused
from test_datasets_layouts import BAD_LEGEND, BAD_PICTURES, BAD_ROWS, BAD_VOTES, LEGEND, NO_CSV
from test_images import REFUSED as BAD_FILES
from test_robust_training import LOSSES, Heads, fit, same

from helpers import datasets, emotions, files, losses, training
from helpers.datasets import cache

RNG = np.random.default_rng(0)


def picture(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def put(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


# --- bad input, in every set of pictures


def tree(root: Path, bad: bytes) -> datasets.FaceSet:
    for number in range(3):
        put(root / "mine" / "happy" / f"{number}.png", picture(number))
    put(root / "mine" / "happy" / "bad.png", bad)
    return datasets.load("folder", root, path="mine")


def fer2013(root: Path, bad: bytes) -> datasets.FaceSet:
    for number, part in enumerate(("train", "train", "test")):
        put(root / "fer2013" / part / "fear" / f"{number}.png", picture(number))
    put(root / "fer2013" / "train" / "fear" / "bad.png", bad)
    return datasets.load("fer2013", root)


def muxspace(root: Path, bad: bytes) -> datasets.FaceSet:
    names = [line.split(",")[1] for line in LEGEND[1:]]
    for number, name in enumerate([*names, "bad.png"]):
        put(root / "muxspace" / "images" / name, bad if name == "bad.png" else picture(number))
    put(root / "muxspace" / "data" / "legend.csv", "\n".join([*LEGEND, "1,bad.png,fear", ""]).encode())
    return datasets.load("muxspace", root)


def affectnet(root: Path, bad: bytes) -> datasets.FaceSet:
    good_annotations(root / "affectnet", 4)
    put(root / "affectnet" / "images" / "101.jpg", bad)
    return datasets.load("affectnet", root)


def affectnet_fused(root: Path, bad: bytes) -> datasets.FaceSet:
    for key in range(4):
        write_fused(root / "affectnet_fused", key)
    put(root / "affectnet_fused" / "images" / "3.jpg", bad)
    return datasets.load("affectnet_fused", root)


SETS = {"folder": (tree, 3), "fer2013": (fer2013, 3), "muxspace": (muxspace, 4)}
SETS |= {"affectnet": (affectnet, 3), "affectnet_fused": (affectnet_fused, 3)}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("name", SETS)
def test_a_bad_picture_is_named_and_the_good_ones_load(tmp_path, name, case):
    make, num_good = SETS[name]
    data, reason, remedy = BAD_FILES[case]
    faces = make(tmp_path, data)
    [rejection] = faces.rejected
    assert len(faces) == num_good
    assert rejection.file.rsplit("/", 1)[-1] in ("bad.png", "101.jpg", "3.jpg")
    assert reason in rejection.reason
    assert remedy in rejection.remedy
    assert "\n" not in str(rejection)


def test_there_are_enough_cases_and_every_reader_has_some():
    mixed = len(BAD_FILES) * len(SETS)
    rows = (BAD_ROWS, BAD_LEGEND, BAD_VOTES, BAD_PICTURES, BAD_ANNOTATIONS, BAD_RANKS, NO_CSV)
    assert mixed + sum(map(len, rows)) >= 120
    assert set(datasets.LAYOUTS) - {"synthetic"} <= {*SETS, "ferplus"}


# --- readers raise nothing unlisted


def mutants(name: str) -> st.SearchStrategy[bytes]:
    """Damaged files of a reader; ``python -m benchmarks.fuzz`` reads a million of them."""
    wholes, seeds = st.sampled_from(READERS[name].seeds), st.integers(0, 2**32 - 1)
    return st.builds(lambda whole, seed: mutant(whole, np.random.default_rng(seed)), wholes, seeds)


ANY_BYTES = st.binary(max_size=300) | st.text(max_size=100).map(str.encode)


def feed(name: str, folder: Path, seed: int, num: int) -> int:
    """Let Hypothesis feed a reader with so many files; return how many it really did."""
    fed = itertools.count()

    @hypothesis.seed(seed)
    @settings(max_examples=num, derandomize=False)
    @given(data=mutants(name) | ANY_BYTES)
    def read(data):
        next(fed)
        tried(name, data, folder)

    read()
    return next(fed)


@pytest.mark.parametrize("name", READERS)
def test_what_hypothesis_thinks_of_is_taken_or_refused(tmp_path, name):
    assert feed(name, tmp_path, seed=0, num=40) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_minute_of_hypothesis_finds_nothing(tmp_path, name):
    until, num = time.monotonic() + 60, 0
    for seed in itertools.count(1):
        num += feed(name, tmp_path, seed, 1000)
        if time.monotonic() > until:
            break
    print(name, num)
    assert num >= 1000


@pytest.mark.parametrize("name", READERS)
def test_every_seed_is_taken(tmp_path, name):
    """A reader that refuses everything would pass the tests above."""
    for number, seed in enumerate(READERS[name].seeds):
        assert tried(name, seed, tmp_path / str(number)) or not (tmp_path / str(number)).mkdir()


# --- silent rot


@pytest.mark.parametrize("num", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_every_flipped_byte_of_a_cached_set_is_found(tmp_path, monkeypatch, num):
    monkeypatch.setattr(cache, "_SETTLED", 0.0)  # digests are remembered at once: the harder case
    random, built = np.random.default_rng(num), []

    def build():
        built.append(1)
        return datasets.FaceSet(
            "made",
            images=np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8),
            labels=np.arange(40) % 7,
            classes=emotions.FER7,
            split=np.full(40, "", dtype="U10"),
            source=np.array([f"x:{i}" for i in range(40)]),
        )

    def load():
        return cache.remember("made", tmp_path, [], [], {}, build)

    whole, named = np.array(load().images), 0  # a copy: the file itself is going to be damaged
    [folder] = (tmp_path / "cache").glob("made-*")
    for _ in range(num):
        file = sorted(folder.iterdir())[int(random.integers(3))]
        data = bytearray(file.read_bytes())
        place, bit = int(random.integers(len(data))), 1 << int(random.integers(8))
        data[place] ^= bit
        file.write_bytes(data)
        before = len(built)
        if file.name == "manifest.json" and chr(data[place]).isspace() and chr(data[place] ^ bit).isspace():
            data[place] ^= bit  # one blank for another means the same
            file.write_bytes(data)
            named += 1
            continue
        with pytest.warns(UserWarning, match=rf"the cache .*{folder.name} is damaged .* built again"):
            faces = load()
        named += len(built) == before + 1
        np.testing.assert_array_equal(faces.images, whole)
    assert named == num


def test_every_flipped_byte_of_weights_is_found(tmp_path):
    """In the header too: the name of the checksum itself, or the type that the bytes are read as."""
    model, path, random = torch.nn.BatchNorm1d(3), tmp_path / "best.safetensors", np.random.default_rng(0)
    training.save_weights(model, path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << int(random.integers(8))
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"is damaged|of another network"):
            training.load_weights(model, path)
    path.write_bytes(whole.replace(b'"sha256"', b'"sha257"'))
    with pytest.raises(ValueError, match="is damaged"):
        training.load_weights(model, path)


# --- what a label means


def test_no_sentinel_reaches_a_loss(tmp_path):
    """-2, classes 8 to 10 and gaps: a loss gets labels of the set and degrees from -1 to 1, or NaN."""
    from test_affectnet import write

    for key in range(44):
        write(tmp_path, key, key % 11, val=-2 if key % 3 == 0 else 0.5, aro=-2.0 if key % 4 == 0 else -0.5)
    faces = datasets.load("affectnet", tmp_path, image_size=16)
    seen = []
    plain = losses.on_valence_arousal(losses.ccc_loss)

    def looking(outputs, targets):
        seen.append({name: values.clone() for name, values in targets.items()})
        return plain(outputs, targets) + losses.on_labels()(
            {"labels": outputs["labels"].repeat(1, 3)}, targets
        )

    config = training.Config(epochs=2, batch_size=8, monitor="loss")
    training.fit(Heads(), faces, faces, looking, {}, config, device="cpu", progress=False)
    labels = torch.cat([each["labels"] for each in seen])
    degrees = torch.cat([each["valence_arousal"] for each in seen])
    assert set(labels.tolist()) == set(range(8))
    known = degrees[~degrees.isnan()]
    assert set(known.tolist()) == {0.5, -0.5}
    assert degrees.isnan().any()
    assert len(faces) + len(faces.rejected) == 44


def test_permuted_classes_are_noticed(tmp_path):
    """The same pictures as csv and as folders: a swap of two class names makes the two disagree."""
    from test_datasets_layouts import FACES, HEADER, ROWS, write_csv

    names = {"0": "angry", "6": "neutral", "3": "happy", "1": "disgust"}
    table = datasets.load("fer2013", write_csv(tmp_path / "csv", [HEADER, *ROWS]))
    expected = {
        image.tobytes(): table.classes[y] for image, y in zip(table.images, table.labels, strict=True)
    }

    def disagreeing(words: dict[str, str], root: Path) -> int:
        for number, (pixels, row) in enumerate(zip(FACES, ROWS, strict=True)):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            put(root / "fer2013" / "train" / words[row[0]] / f"{number}.png", stream.getvalue())
        faces = datasets.load("fer2013", root)
        pairs = zip(faces.images, faces.labels, strict=True)
        return sum(expected[image.tobytes()] != faces.classes[label] for image, label in pairs)

    assert disagreeing(names, tmp_path / "right") == 0
    swapped = names | {"0": names["1"], "1": names["0"]}
    assert disagreeing(swapped, tmp_path / "swapped") == 2
    words = sorted(["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"])
    alphabetic = dict(zip("0123456", words, strict=True))
    assert disagreeing(alphabetic, tmp_path / "alphabetic") == 1  # ImageFolder's 6 is surprise


# --- a disk that is full, cannot be written, or goes away


class Disk:
    """A disk that takes so many more bytes, and fails each write after them in the way that is asked for."""

    def __init__(self, monkeypatch, room: int, error: int = errno.ENOSPC) -> None:
        self.room, self.error = room, error
        fdopen = os.fdopen
        monkeypatch.setattr(files.os, "fdopen", lambda *words: self.Stream(self, fdopen(*words)))

    class Stream:
        def __init__(self, disk, stream) -> None:
            self.disk, self.stream = disk, stream

        def write(self, data) -> int:
            self.disk.room -= memoryview(data).nbytes
            if self.disk.room < 0:
                raise OSError(self.disk.error, os.strerror(self.disk.error))
            return self.stream.write(data)

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            self.stream.close()

        def __getattr__(self, name):
            return getattr(self.stream, name)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


@pytest.mark.parametrize(
    ("room", "error"),
    [
        (0, errno.EROFS),
        (300, errno.EIO),
        (2_000, errno.EDQUOT),
        *((room, errno.ENOSPC) for room in (2_000, 9_000, 14_000, 20_000, 30_000, 200_000)),
    ],
)
def test_a_full_disk_leaves_the_old_checkpoint_and_a_retry_goes_on(tmp_path, monkeypatch, room, error):
    """The disk ends in the second half of a training; with room again it goes on to the same end."""
    stop, calls = training.Stop(), iter(range(1000))

    def stopping(outputs, targets):
        if next(calls) == 6:
            stop.request()
        return LOSSES["labels"]()(outputs, targets)

    whole = Heads()
    fit(whole, LOSSES["labels"](), epochs=2)
    fit(Heads(), stopping, run=tmp_path, stop=stop, epochs=2)
    _, kept = training.Run(tmp_path).load_state()
    model, caught = Heads(seed=1), None
    with monkeypatch.context() as patch:
        Disk(patch, room, error)
        try:
            fit(model, LOSSES["labels"](), run=tmp_path, epochs=2)
        except OSError as raised:
            caught = raised
    assert not [name for name in contents(tmp_path) if ".unfinished" in name]
    training.load_weights(Heads(), tmp_path / "best.safetensors")
    if caught is None:  # there was room enough
        assert room >= 30_000
    else:
        assert (caught.errno, "\n" in str(caught)) == (error, False)
        assert re.search(rf"{tmp_path}/[\w.]+", str(caught))
        assert "what was there before stays; make room" in str(caught)
        _, left = training.Run(tmp_path).load_state()
        assert not left or left["at"]["epoch"] >= kept["at"]["epoch"]
        model = Heads(seed=2) if left else Heads()
        fit(model, LOSSES["labels"](), run=tmp_path, epochs=2)
    assert same(model, whole)


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk, as root on Linux"
)
def test_a_disk_that_is_really_full_leaves_the_old_file(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k tmpfs '{disk}' 2>/dev/null"):
        pytest.skip("no disk can be mounted here")
    try:
        run = training.Run(disk / "run")
        run.save_state({"weights": torch.arange(9.0)}, {"epoch": 1})
        with pytest.raises(OSError, match=r"No space left.*state\.safetensors"):
            run.save_state({"weights": torch.zeros(300_000)}, {"epoch": 1})
        assert torch.equal(training.Run(disk / "run").load_state()[0]["weights"], torch.arange(9.0))
        assert [path.name for path in (disk / "run").iterdir()] == ["state.safetensors"]
        run.save_state({"weights": torch.ones(9)}, {"epoch": 1})
        assert torch.equal(run.load_state()[0]["weights"], torch.ones(9))
    finally:
        os.system(f"umount '{disk}'")


def test_a_folder_that_vanishes_is_made_again_and_a_file_in_its_place_is_named(tmp_path):
    """As a Drive does that is unmounted: the next epoch writes it anew; where it cannot, it says so."""
    folder, model, whole = tmp_path / "runs" / "one", Heads(), Heads()
    vanish = {1: lambda: shutil.rmtree(tmp_path / "runs")}
    config = training.Config(epochs=3, batch_size=24, lr=0.01, precision="float32")

    def go(model, run, on_epoch=None):
        from test_robust_training import faces, score

        given = {"run": run, "device": "cpu", "progress": False, "on_epoch": on_epoch}
        sets = faces(), faces(1, 48)
        return training.fit(model, *sets, LOSSES["labels"](), {"accuracy": score}, config, **given)

    go(model, folder, lambda history: vanish.pop(len(history.epochs), lambda: None)())
    go(whole, None)
    assert same(model, whole)
    assert (folder / "history.csv").exists()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        go(Heads(), tmp_path / "taken" / "run")


def test_a_set_on_a_disk_that_cannot_be_written_still_loads(tmp_path, monkeypatch):
    """As Kaggle mounts its data sets."""
    for number in range(3):
        put(tmp_path / "happy" / f"{number}.png", picture(number))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    make = Path.mkdir

    def refusing(self, *given, **more):
        if tmp_path in self.parents and elsewhere not in self.parents and self.name == "cache":
            raise OSError(errno.EROFS, "Read-only file system", str(self))
        return make(self, *given, **more)

    monkeypatch.setattr(Path, "mkdir", refusing)
    assert len(datasets.load("folder", tmp_path, classes=("happiness",))) == 3
    monkeypatch.chdir(tmp_path)


# --- nothing executes


class Payload:
    """Unpickled, it would leave a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def payloads(mark: Path) -> dict[str, bytes]:
    pickled = pickle.dumps(Payload(mark))
    stream, torched, zipped = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(stream, np.array([Payload(mark)], dtype=object), allow_pickle=True)
    torch.save({"weights": Payload(mark)}, torched)
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("labels.npy", stream.getvalue())
        archive.writestr("images.npy", stream.getvalue())
    header = f"{{'descr': __import__('pathlib').Path({str(mark)!r}).touch(), 'shape': ()}}\n".encode()
    return {
        "pickle": pickled,
        "pickle of protocol 0": pickle.dumps(Payload(mark), protocol=0),
        "array of objects": stream.getvalue(),
        "arrays of objects": zipped.getvalue(),
        "torch": torched.getvalue(),
        "torch with its checksum": hashlib.sha256(torched.getvalue()).digest() + torched.getvalue(),
        "code in a header": b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header,
        "yaml": f"!!python/object/apply:pathlib.Path.touch ['{mark}']\n".encode(),
        "csv formula": f"image,emotion\n=cmd|' /C touch {mark}'!A0,anger\n".encode(),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n"
        + f"({mark}) (w) file closefile\n".encode(),
        "svg": f"<?xml version='1.0'?><!DOCTYPE s [<!ENTITY x SYSTEM 'file://{mark}'>]><svg>&x;</svg>".encode(),
    }


@pytest.mark.parametrize("name", READERS)
def test_nothing_that_is_read_is_executed(tmp_path, name):
    mark = tmp_path / "executed"
    for kind, data in payloads(mark).items():
        tried(name, data, tmp_path / "read")
        assert not mark.exists(), kind


def test_the_payloads_would_leave_their_mark(tmp_path):
    mark = tmp_path / "executed"
    for kind in ("pickle", "pickle of protocol 0"):
        pickle.loads(payloads(mark)[kind])
        assert mark.exists()
        mark.unlink()
    np.load(io.BytesIO(payloads(mark)["array of objects"]), allow_pickle=True)
    assert mark.exists()


UNSAFE = {  # beside what test_structure looks for
    "torchvision.io": "its decoders kill the process on one bad byte",
    "torch.hub.load": "it runs what it downloads",
    "torch.jit.load": "it runs what it loads",
    "os.system": "a file's name becomes a command",
    "yaml.load": "it makes any object",
    "extractall": "it writes wherever the archive says",
}


def unsafe(code: str) -> set[str]:
    """Return which unsafe names a program uses, however it imports them."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
        if isinstance(node, ast.Attribute):
            found |= {ast.unparse(node), node.attr}
    return {name for name in UNSAFE if any(f"{each}.".startswith(f"{name}.") for each in found)}


def test_no_unsafe_reader_is_used_and_the_search_finds_them(root):
    notebooks = [json.loads(path.read_text(encoding="utf-8")) for path in root.glob("0*.ipynb")]
    cells = (cell for notebook in notebooks for cell in notebook["cells"] if cell["cell_type"] == "code")
    programs = ["".join(cell["source"]) for cell in cells]
    programs += [path.read_text(encoding="utf-8") for path in (root / "helpers").rglob("*.py")]
    assert {name for program in programs for name in unsafe(program)} == set()
    calls = (
        "from torchvision import io",
        "torchvision.io.decode_image(f)",
        "yaml.load(f)",
        "t.extractall(p)",
    )
    assert all(unsafe(call) for call in (*calls, "torch.hub.load(r)", "torch.jit.load(f)", "os.system(c)"))
