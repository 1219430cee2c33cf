"""The cache: never stale, never torn, and found again."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import datasets
from helpers.datasets import cache, fer2013

RNG = np.random.default_rng(0)
LONG_AGO = 1_600_000_000


def write_csv(root: Path, pixels: np.ndarray) -> Path:
    lines = [f"{i % 7},{' '.join(map(str, p.ravel()))},Training" for i, p in enumerate(pixels)]
    root.mkdir(exist_ok=True)
    (root / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *lines]) + "\n")
    return root


@pytest.fixture
def pixels() -> np.ndarray:
    return RNG.integers(100, 256, (5, 48, 48), dtype=np.uint8)  # three digits each: every csv has one size


@pytest.fixture
def root(tmp_path, pixels) -> Path:
    return write_csv(tmp_path, pixels)


@pytest.fixture
def readings(monkeypatch) -> list[Path]:
    """Which csv files were parsed, in order."""
    seen, read_csv = [], fer2013.read_csv
    monkeypatch.setattr(fer2013, "read_csv", lambda path: seen.append(path) or read_csv(path))
    return seen


def caches(root: Path) -> list[Path]:
    return sorted((root / "cache").glob("fer2013-*"))


def same(one: datasets.FaceSet, other: datasets.FaceSet) -> None:
    assert one.columns().keys() == other.columns().keys()
    for name, values in one.columns().items():
        np.testing.assert_array_equal(values, other.columns()[name])
        assert values.dtype == other.columns()[name].dtype
    assert (one.name, one.classes, one.rejected) == (other.name, other.classes, other.rejected)


def test_the_second_load_reads_nothing_and_gives_the_same(root, readings):
    file = root / "fer2013.csv"
    file.write_text(file.read_text() + "9,1 2,Training\n")
    first, second = (datasets.load("fer2013", root) for _ in range(2))
    assert len(readings) == 1
    same(first, second)
    same(second, fer2013.read(root, 48))
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    assert len(second.rejected) == 1


def test_drawn_faces_come_back_alike(drawn_faces, tmp_path):
    first = cache.remember("x", tmp_path, [], [], {}, lambda: drawn_faces)
    same(first, drawn_faces)
    same(first, cache.remember("x", tmp_path, [], [], {}, lambda: pytest.fail("built again")))


@pytest.mark.parametrize("pause", [0, 2.2])
def test_a_changed_file_of_the_same_size_and_date_is_read_again(root, pixels, readings, pause):
    os.utime(root / "fer2013.csv", (LONG_AGO, LONG_AGO))
    datasets.load("fer2013", root)
    time.sleep(pause)  # beyond two seconds the digest is remembered
    datasets.load("fer2013", root)
    size = (root / "fer2013.csv").stat().st_size
    write_csv(root, pixels[::-1])
    os.utime(root / "fer2013.csv", (LONG_AGO, LONG_AGO))
    assert (root / "fer2013.csv").stat().st_size == size
    np.testing.assert_array_equal(datasets.load("fer2013", root).images, pixels[::-1])
    assert len(readings) == 2
    assert len(caches(root)) == 1  # the old one is gone


def test_a_touched_file_is_not_read_again(root, readings):
    datasets.load("fer2013", root)
    os.utime(root / "fer2013.csv", (LONG_AGO, LONG_AGO))
    datasets.load("fer2013", root)
    assert len(readings) == 1


def test_a_digest_is_remembered_once_a_file_has_settled(root, monkeypatch):
    time.sleep(2.2)
    hashed = []
    monkeypatch.setattr(cache, "sha256", lambda file: hashed.append(file.name) or "0" * 64)
    for _ in range(2):
        cache.Digests(root).of([root / "fer2013.csv"], root)
    assert hashed == ["fer2013.csv"]
    (root / "digests.json").write_text("{torn")
    cache.Digests(root).of([root / "fer2013.csv"], root)
    assert len(hashed) == 2


def test_a_fresh_file_is_hashed_each_time(root, monkeypatch):
    hashed = []
    monkeypatch.setattr(cache, "sha256", lambda file: hashed.append(file.name) or "0" * 64)
    for _ in range(2):
        cache.Digests(root).of([root / "fer2013.csv"], root)
    assert len(hashed) == 2


def test_each_option_and_each_version_of_the_code_has_its_own(root, readings, monkeypatch, tmp_path):
    datasets.load("fer2013", root)
    datasets.load("fer2013", root, image_size=24)
    datasets.load("fer2013", root, layout="csv")
    assert len(readings) == len(caches(root)) == 3
    newer = tmp_path / "newer.py"
    newer.write_text(Path(fer2013.__file__).read_text() + "# newer\n")
    monkeypatch.setattr(fer2013, "__file__", str(newer))
    datasets.load("fer2013", root)
    assert len(readings) == 4
    assert len(caches(root)) == 3  # in place of the older code's


def test_the_code_that_counts_is_what_the_layout_imports():
    names = {path.name for path in datasets._code(datasets.LAYOUTS["ferplus"])}
    assert {"ferplus.py", "fer2013.py", "tables.py", "images.py", "emotions.py"} <= names
    assert not {"muxspace.py", "audit.py", "synthetic.py"} & names


def flip(file: Path, place: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "a pixel": lambda folder: flip(folder / "images.npy"),
    "the head of the pixels": lambda folder: flip(folder / "images.npy", 8),
    "pixels cut off": lambda folder: os.truncate(folder / "images.npy", 3000),
    "no pixels": lambda folder: (folder / "images.npy").unlink(),
    "a label": lambda folder: flip(folder / "labels.npz", 200),
    "labels emptied": lambda folder: (folder / "labels.npz").write_bytes(b""),
    "a class in the manifest": lambda folder: rewrite(folder, "anger", "angst"),
    "manifest torn": lambda folder: os.truncate(folder / "manifest.json", 100),
    "manifest another thing": lambda folder: (folder / "manifest.json").write_text("[1, 2]"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
}


def rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / "manifest.json").read_text()
    assert old in text
    (folder / "manifest.json").write_text(text.replace(old, new))


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_cache_is_named_and_built_again(root, pixels, readings, case):
    datasets.load("fer2013", root)
    (folder,) = caches(root)
    DAMAGES[case](folder)
    with pytest.warns(UserWarning, match=rf"the cache .*{folder.name} is damaged .* built again"):
        faces = datasets.load("fer2013", root)
    np.testing.assert_array_equal(faces.images, pixels)
    assert len(readings) == 2
    datasets.load("fer2013", root)
    assert len(readings) == 2
    assert caches(root) == [folder]


def test_the_manifest_has_the_sha256_of_each_file(root):
    datasets.load("fer2013", root)
    (folder,) = caches(root)
    about = json.loads((folder / "manifest.json").read_text())["about"]
    assert about["files"].keys() == {"images.npy", "labels.npz"}
    for name, digest in about["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_a_build_that_fails_leaves_nothing(root, monkeypatch):
    def fails(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", fails)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("fer2013", root)
    assert not list((root / "cache").glob("*"))


def test_a_full_disk_leaves_the_faces_in_memory(root, pixels, monkeypatch):
    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.warns(UserWarning, match="could not be written.*No space left.*stay in memory"):
        faces = datasets.load("fer2013", root)
    np.testing.assert_array_equal(faces.images, pixels)
    assert not caches(root)


def test_what_a_killed_build_left_is_swept_once_it_is_old(root):
    for name, age in (("building-old", 7200), ("building-new", 10)):
        left = root / "cache" / name
        left.mkdir(parents=True)
        (left / "images.npy").write_bytes(b"half")
        os.utime(left, (time.time() - age,) * 2)
    datasets.load("fer2013", root)
    assert [p.name for p in (root / "cache").glob("building-*")] == ["building-new"]


def test_a_file_that_changes_while_it_is_read_is_not_cached(root, pixels, monkeypatch):
    read_csv = fer2013.read_csv

    def meanwhile(path):
        table = read_csv(path)
        write_csv(root, pixels[:3])
        return table

    monkeypatch.setattr(fer2013, "read_csv", meanwhile)
    with pytest.raises(RuntimeError, match=r"changed while fer2013 was being read; load it again"):
        datasets.load("fer2013", root)
    assert not caches(root)


def test_a_folder_that_cannot_be_written_is_cached_elsewhere(root, pixels, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    (root / "cache").write_text("a file stands where the folder should")
    np.testing.assert_array_equal(datasets.load("fer2013", root).images, pixels)
    assert caches(elsewhere / "data")


def test_a_moved_set_keeps_its_cache(root, readings, tmp_path_factory):
    datasets.load("fer2013", root)
    moved = tmp_path_factory.mktemp("moved") / "faces"
    root.rename(moved)
    datasets.load("fer2013", moved)
    assert len(readings) == 1


def test_two_builders_at_once_leave_one_whole_set(root, pixels):
    """The second finds the first one's folder in its place when it is done."""
    faces = fer2013.read(root, 48)
    target = root / "cache" / "fer2013-0123"
    digests = cache.Digests(root)
    for shift in (0, 1):
        twin = replace(faces, labels=(faces.labels + shift) % 7)
        stored = cache._store(twin, target, "request", digests)
        np.testing.assert_array_equal(stored.labels, twin.labels)
    assert [p.name for p in (root / "cache").glob("*") if p.is_dir()] == ["fer2013-0123"]
