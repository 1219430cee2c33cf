"""Rows of a file: what NumPy would give, read only when asked for."""

from __future__ import annotations

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
