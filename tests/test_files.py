"""Rows of a file: what NumPy would give, read only when asked for."""

from __future__ import annotations

import os

import numpy as np
import pytest

from helpers import files
from helpers.datasets import faceset


@pytest.fixture
def stored(tmp_path) -> np.memmap:
    array = np.random.default_rng(0).integers(0, 256, (40, 5, 6), dtype=np.uint8)
    np.save(tmp_path / "images.npy", array)
    return np.load(tmp_path / "images.npy", mmap_mode="r")


@pytest.mark.parametrize(
    "which", [3, -1, slice(4, 30, 7), [9, 2, 2, 39], np.array([], dtype=int), np.arange(40) % 3 == 0], ids=str
)
def test_an_index_gives_what_numpy_gives(stored, which):
    rows, array = files.Rows(stored), np.array(stored)
    assert np.array_equal(rows[which], array[which])
    assert np.asarray(rows).tobytes() == array.tobytes()
    assert (rows.shape, rows.ndim, rows.nbytes, len(rows)) == (array.shape, 3, array.nbytes, 40)


def test_fewer_rows_of_fewer_rows(stored):
    rows, array = files.Rows(stored[5:35]), np.array(stored)[5:35]
    some = rows.select(slice(2, 20)).select(np.array([7, 0, 7]))
    assert np.array_equal(some[:], array[2:20][[7, 0, 7]])
    assert some.shape == (3, 5, 6)
    assert np.array_equal(files.Rows(stored[::2])[3], stored[6])


def test_a_file_that_was_cut_is_named(stored):
    rows = files.Rows(stored)
    with open(rows.path, "r+b") as file:
        file.truncate(rows.offset + 100)
    assert len(rows[0]) == 5
    with pytest.raises(OSError, match=r"images.npy ends before row 39"):
        rows[39]


def test_a_choice_of_a_large_set_stays_in_its_file(stored, monkeypatch):
    faces = faceset.FaceSet(
        "some", stored, np.arange(40) % 7, tuple("abcdefg"), np.full(40, ""), np.arange(40).astype(str)
    )
    assert isinstance(faces.select([4, 2]).images, np.ndarray)
    monkeypatch.setattr(faceset, "_IN_MEMORY", 100)
    chosen = faces.select(np.array([4, 2, 11])).select([2, 0])
    assert isinstance(chosen.images, files.Rows)
    assert np.array_equal(chosen.images[:], stored[[11, 4]])
    assert chosen.labels.tolist() == [4, 4]
    assert "2 grey faces of 5 x 6" in repr(chosen)


def test_a_file_is_whole_readable_and_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls, sync, rename, path = [], os.fsync, os.replace, tmp_path / "a" / "scores.csv"
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append("sync") or sync(descriptor))
    monkeypatch.setattr(os, "replace", lambda *names: calls.append("rename") or rename(*names))
    with files.replacing(path) as file:
        file.write(b"1,2\n")
    assert calls == ["sync", "rename"]
    assert os.name != "posix" or path.stat().st_mode & 0o777 == 0o644
    monkeypatch.setattr(os, "chmod", lambda *_: os.listdir(tmp_path / "none"))  # an OSError
    with files.replacing(path) as file:  # on a drive without permissions
        file.write(b"3,4\n")
    assert path.read_bytes() == b"3,4\n"


def test_a_rename_that_is_refused_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    refusals, rename = [1, 2], os.replace

    def now_and_then(*names):
        if refusals:
            raise PermissionError(13, f"in use by another program ({refusals.pop()})")
        rename(*names)

    monkeypatch.setattr(os, "replace", now_and_then)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    with files.replacing(tmp_path / "scores.csv") as file:
        file.write(b"new")
    assert (tmp_path / "scores.csv").read_bytes() == b"new"
    refusals.extend(range(9))
    with (
        pytest.raises(OSError, match=r"in use .*what was there before stays.*scores.csv"),
        files.replacing(tmp_path / "scores.csv") as file,
    ):
        file.write(b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    assert (tmp_path / "scores.csv").read_bytes() == b"new"


def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path):
    (tmp_path / "scores.csv").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / "scores.csv") as file:
        file.write(b"half" * (1 // 0))
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
    assert (tmp_path / "scores.csv").read_bytes() == b"old"
    (tmp_path / ".unfinished-scores.csv-1").write_bytes(b"left by a killed process")
    files.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
