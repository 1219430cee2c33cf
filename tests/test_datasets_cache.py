"""The cache: never stale, never torn, and found again."""

from __future__ import annotations

import inspect
import os
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers import datasets
from helpers.datasets import fer2013, reading

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
    monkeypatch.setattr(fer2013, "read_csv", lambda path, *rest: seen.append(path) or read_csv(path, *rest))
    return seen


def caches(root: Path) -> list[Path]:
    return sorted((root / "cache").glob("fer2013-*"))


def test_the_second_load_reads_nothing_and_gives_the_same(root, readings, drawn_faces, tmp_path_factory):
    file = root / "fer2013.csv"
    file.write_text(file.read_text() + "9,1 2,Training\n")
    first, second = (datasets.load("fer2013", root) for _ in range(2))
    assert len(readings) == 1
    read = fer2013.read(root, reading.Pixels(48))  # without the cache, in memory
    again = [datasets.load("synthetic", root, num_faces=210, seed=0) for _ in range(2)]
    for one, other in ((first, second), (second, read), (again[0], drawn_faces), (again[1], drawn_faces)):
        assert one.columns().keys() == other.columns().keys()
        for name, values in one.columns().items():
            np.testing.assert_array_equal(values, other.columns()[name])
            assert values.dtype == other.columns()[name].dtype
        assert (one.name, one.classes, one.rejected) == (other.name, other.classes, other.rejected)
        assert one.digest() == other.digest()
    for faces in (first, second):
        assert isinstance(faces.images, np.memmap)
        assert not faces.images.flags.writeable
        assert len(faces.rejected) == 1
    moved = tmp_path_factory.mktemp("moved") / "faces"
    root.rename(moved)
    datasets.load("fer2013", moved)
    assert len(readings) == 2  # one of them is the test's own


def test_changed_files_are_said_and_read_again_even_with_the_old_size_and_date(root, pixels, readings):
    os.utime(root / "fer2013.csv", (LONG_AGO, LONG_AGO))
    datasets.load("fer2013", root)
    write_csv(root, pixels[::-1])
    os.utime(root / "fer2013.csv", (LONG_AGO, LONG_AGO))
    with pytest.warns(UserWarning, match=r"the files of fer2013 in .* have changed: they are read again"):
        faces = datasets.load("fer2013", root)
    np.testing.assert_array_equal(faces.images, pixels[::-1])
    assert (len(readings), len(caches(root))) == (2, 1)


def test_each_option_has_its_own_and_newer_code_takes_the_place_of_older(root, readings, monkeypatch):
    for options in ({}, {"image_size": 24}, {"layout": "csv"}):
        datasets.load("fer2013", root, **options)
    assert len(readings) == len(caches(root)) == 3
    monkeypatch.setattr(datasets, "_code", lambda: "newer")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing of the reader's own has changed
        datasets.load("fer2013", root)
    assert (len(readings), len(caches(root))) == (4, 3)


def flip(folder: Path, pattern: str, place: int = -1) -> None:
    [file] = folder.glob(pattern)
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / "manifest.json").read_text()
    assert old in text
    (folder / "manifest.json").write_text(text.replace(old, new))


DAMAGES = {
    "a pixel": lambda folder: flip(folder, "images*"),
    "no pixels": lambda folder: next(folder.glob("images*")).unlink(),
    "a label": lambda folder: flip(folder, "labels*", 200),
    "a class in the manifest": lambda folder: rewrite(folder, "anger", "angst"),
    "manifest torn": lambda folder: os.truncate(folder / "manifest.json", 100),
    "manifest another thing": lambda folder: (folder / "manifest.json").write_text("[1, 2]"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_cache_is_named_and_built_again(root, pixels, readings, case):
    datasets.load("fer2013", root)
    (folder,) = caches(root)
    DAMAGES[case](folder)
    with pytest.warns(UserWarning, match=rf"the cache .*{folder.name} is damaged .* built again"):
        faces = datasets.load("fer2013", root)
    np.testing.assert_array_equal(faces.images, pixels)
    datasets.load("fer2013", root)
    assert (len(readings), caches(root)) == (2, [folder])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_build_leaves_nothing_and_a_full_disk_the_faces(root, pixels, monkeypatch, error):
    def fails(*_args, **_options):
        raise error

    monkeypatch.setattr(np, "savez", fails)
    if isinstance(error, OSError):
        with pytest.warns(UserWarning, match=r"could not be written.*No space left.*stay in memory"):
            np.testing.assert_array_equal(datasets.load("fer2013", root).images, pixels)
    else:
        with pytest.raises(KeyboardInterrupt):
            datasets.load("fer2013", root)
    assert not list((root / "cache").rglob("*"))


def test_what_a_killed_build_left_is_swept_once_it_is_old(root):
    datasets.load("fer2013", root)
    (folder,) = caches(root)
    for name, age in (("images-old.npy", 7200), ("images-new.npy", 10)):
        (folder / name).write_bytes(b"half")
        os.utime(folder / name, (time.time() - age,) * 2)
    rewrite(folder, "anger", "angst")
    with pytest.warns(UserWarning, match="damaged"):
        datasets.load("fer2013", root)
    assert not (folder / "images-old.npy").exists()
    assert (folder / "images-new.npy").exists()


def test_a_file_that_changes_while_it_is_read_is_not_cached(root, pixels, monkeypatch):
    read_csv = fer2013.read_csv
    monkeypatch.setattr(
        fer2013, "read_csv", lambda *given: (read_csv(*given), write_csv(root, pixels[:3]))[0]
    )
    with pytest.raises(RuntimeError, match=r"changed while fer2013 was being read; load it again"):
        datasets.load("fer2013", root)
    assert not caches(root)


def test_a_folder_that_cannot_be_written_is_cached_elsewhere(root, pixels, monkeypatch, tmp_path_factory):
    """As Kaggle mounts its data sets; and the same set under another root is not taken for it."""
    elsewhere, other = tmp_path_factory.mktemp("elsewhere"), tmp_path_factory.mktemp("other")
    monkeypatch.chdir(elsewhere)
    write_csv(other, pixels[::-1])
    for folder, expected in ((root, pixels), (other, pixels[::-1])):
        (folder / "cache").write_text("a file stands where the folder should")
        np.testing.assert_array_equal(datasets.load("fer2013", folder).images, expected)
    assert len(caches(elsewhere / "data")) == 2


@pytest.mark.filterwarnings("ignore")
def test_four_builders_at_once_all_get_the_set(root, pixels):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(datasets.load, ["fer2013"] * 4, [root] * 4))
    for faces in (*found, datasets.load("fer2013", root)):
        np.testing.assert_array_equal(faces.images, pixels)


def test_a_digest_names_the_content_and_nothing_else(drawn_faces):
    digest = drawn_faces.digest()
    renamed = replace(drawn_faces, name="other", source=drawn_faces.source[::-1], notes=("x",))
    assert renamed.digest() == digest
    images, labels = drawn_faces.images.copy(), drawn_faces.labels.copy()
    images[3, 5, 7] ^= 1
    labels[0] = (labels[0] + 1) % 7
    split = np.array(["train"] * 210, dtype="U10")
    changes = {"images": images, "labels": labels, "split": split, "classes": drawn_faces.classes[::-1]}
    changes |= {"votes": None, "valence_arousal": drawn_faces.valence_arousal + np.float32(1e-6)}
    digests = [replace(drawn_faces, **{name: values}).digest() for name, values in changes.items()]
    digests.append(drawn_faces.select(np.arange(210)[::-1]).digest())
    assert len({*digests, digest}) == len(digests) + 1


def test_a_first_load_passes_few_functions_in_few_files(root):
    passed, here = set(), str(Path(inspect.getfile(datasets)).parents[1])

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(here) and not code.co_name.startswith("<"):
            passed.add((code.co_filename, code.co_name))

    sys.setprofile(note)
    try:
        datasets.load("fer2013", root)
    finally:
        sys.setprofile(None)
    assert len(passed) < 25
    assert len({file for file, _ in passed}) < 5
