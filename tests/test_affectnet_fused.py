"""The AffectNetFused layout: rows by hand, each kind of damage among good ones, the way there and back."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from helpers import datasets, emotions, faces
from helpers.datasets import affectnet, layouts

ROW = "0.3,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.1,0.1"


def write(folder, key, row=ROW, picture=True):
    """Write one made picture and its row; None for no row."""
    for below in ("images", "annotations"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(key).integers(0, 256, (40, 40), dtype=np.uint8)
    if picture:
        Image.fromarray(pixels).save(folder / "images" / f"{key}.jpg")
    if row is not None:
        data = row if isinstance(row, bytes) else row.encode()
        (folder / "annotations" / f"{key}_prob_rank.txt").write_bytes(data)


def load(root):
    return datasets.load("affectnet_fused", root, image_size=32)


def peak(column):
    return ",".join("0.88" if i == column else "0.01" for i in range(13))


@pytest.mark.parametrize("top", ["", "affectnet_fused", "AffectNetFused", "affectnet"])
def test_values_are_read_in_the_order_of_the_set(tmp_path, top):
    for column in range(13):
        write(tmp_path / top, column, peak(column) + "\n")
    found = load(tmp_path)
    assert found.classes[:4] == ("neutral", "happiness", "sadness", "surprise")
    assert found.classes[4:8] == ("fear", "disgust", "anger", "contempt")
    assert found.classes[8:] == ("serene", "contemplative", "secure", "untroubled", "quiet")
    keys = [int(re.search(r"(\d+)\.jpg", source)[1]) for source in found.source]
    assert found.labels.tolist() == keys
    np.testing.assert_allclose(found.distribution[np.arange(13), keys], 0.88, rtol=1e-6)
    np.testing.assert_allclose(found.distribution.sum(axis=1), 1, atol=1e-6)
    assert (found.rejected, found.notes, found.valence_arousal) == ((), (), None)


DAMAGE = {
    "twelve": (",".join(["0.5", "0.5", *["0"] * 10]), "12 values instead of 13"),
    "fourteen": (ROW + ",0", "14 values instead of 13"),
    "negative": (ROW.replace("0.3", "0.5").replace("0.1,0.1", "0.1,-0.1"), "-0.1 is no probability"),
    "nan": (ROW.replace("0.3", "nan"), "nan is no probability"),
    "infinite": (ROW.replace("0.3", "inf"), "inf is no probability"),
    "zeros": (",".join(["0"] * 13), "the values sum to 0, not to 1"),
    "sums to .998": (ROW.replace("0.3", "0.298"), "the values sum to 0.998, not to 1"),
    "sums to 1.5": (ROW.replace("0.3", "0.8"), "the values sum to 1.5, not to 1"),
    "a word": (ROW.replace("0.3", "high"), "to float: 'high'"),
    "a gap": (ROW.replace("0.3", ""), "to float: ''"),
    "spaces for commas": (ROW.replace(",", " "), "could not convert string to float"),
    "two rows": (ROW + "\n" + ROW + "\n", "2 rows instead of 1"),
    "empty": ("", "is empty"),
    "blank": (" \n\n", "is empty"),
    "git-lfs": ("version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
    "binary": (bytes(range(128, 256)), "could not convert string to float"),
    "missing": (None, "has no annotation *_prob_rank.txt"),
}


def test_damaged_rows_among_good_ones_are_named_and_no_good_one_is_lost(tmp_path):
    order = [*DAMAGE, *range(20)]
    np.random.default_rng(0).shuffle(order)
    damaged = {}
    for key, case in enumerate(order):
        row, words = DAMAGE.get(case, (peak(key % 13), None))
        write(tmp_path, key, row)
        if words:
            damaged[key] = words
    found = load(tmp_path)
    assert len(found) == 20
    assert len(found) + len(found.rejected) == len(order)
    named = {int(re.search(r"(\d+)[._]", each.file)[1]): each for each in found.rejected}
    assert set(named) == set(damaged)
    for key, rejection in named.items():
        assert damaged[key] in rejection.reason, order[key]
        assert rejection.remedy
        assert "\n" not in str(rejection)
        assert (rejection.file, rejection.row) == (f"images/{key}.jpg", 0)


@pytest.mark.parametrize(("first", "kept"), [("0.3009", True), ("0.2991", True), ("0.3011", False)])
def test_a_thousandth_is_rounding_and_more_is_not(tmp_path, first, kept):
    write(tmp_path, 1, ROW.replace("0.3", first))
    write(tmp_path, 2)
    for _ in range(2):  # the second time from the cache
        found = load(tmp_path)
        assert len(found) == 1 + kept
        assert len(found.rejected) == 1 - kept
        np.testing.assert_allclose(found.distribution.sum(axis=1), 1, atol=1e-6)
        assert len(found.notes) == kept
        if kept:
            assert found.notes[0].startswith("1 of 2 rows sum to 1 only within 0.001")


def test_what_belongs_to_nothing_is_listed(tmp_path):
    write(tmp_path, 1)
    write(tmp_path, 2, picture=False)
    write(tmp_path, 3, row=None)
    write(tmp_path, 4)
    (tmp_path / "images" / "4.jpg").write_bytes(b"no picture")
    (tmp_path / "annotations" / "readme.txt").write_text("1")
    np.save(tmp_path / "annotations" / "1_exp.npy", np.array("1"))
    found = load(tmp_path)
    assert len(found) == 1
    assert {each.file: each.reason for each in found.rejected} == {
        "annotations/2_prob_rank.txt": "has no image in images/",
        "annotations/readme.txt": affectnet.ODD,
        "images/3.jpg": "has no annotation *_prob_rank.txt",
        "images/4.jpg": "no image of a known format",
    }


def test_two_pictures_of_one_name_share_a_row_and_both_count(tmp_path):
    write(tmp_path, 1)
    Image.new("L", (40, 40), 9).save(tmp_path / "images" / "1.png")
    found = load(tmp_path)
    assert sorted(found.source.tolist()) == ["images/1.jpg", "images/1.png"]


def test_valence_and_arousal_are_read_where_they_lie(tmp_path):
    for key in (1, 2, 3, 4):
        write(tmp_path, key)
    for key, value in ((1, "0.5"), (2, "-2"), (3, "7")):
        np.save(tmp_path / "annotations" / f"{key}_val.npy", np.array(value))
        np.save(tmp_path / "annotations" / f"{key}_aro.npy", np.array("-0.25"))
    found = load(tmp_path)
    nan = np.nan
    np.testing.assert_array_equal(found.valence_arousal, [[0.5, -0.25], [nan, -0.25], [nan, nan]])
    [rejection] = found.rejected
    assert "3_val.npy holds 7" in rejection.reason


def test_what_the_writer_wrote_comes_back(drawn_faces, tmp_path):
    some = drawn_faces.select(np.arange(60))
    drawn = faces.sample(60, seed=0, size=16)
    fused = faces.fused_probabilities(drawn.action_units, drawn.class_probabilities).numpy()
    split = np.array(["train", "validation", "test"])[np.arange(60) % 3]
    layouts.write_affectnet_fused(replace(some, split=split), fused, tmp_path)
    back = load(tmp_path)
    assert (len(back), back.rejected) == (60, ())
    rows = np.array([int(re.search(r"(\d+)\.jpg", source)[1]) for source in back.source])
    np.testing.assert_allclose(
        back.distribution, fused[rows], atol=7e-6
    )  # thirteen times half of the last digit
    np.testing.assert_allclose(back.valence_arousal, some.valence_arousal[rows], atol=1e-5)
    np.testing.assert_array_equal(back.split, split[rows])
    assert [len(part) for part in back.splits(seed=0, leaks="keep")] == [20, 20, 20]
    merged = emotions.places_of(back.classes, back.distribution, back.valence_arousal)
    assert set(merged) == set(back.classes)


def test_affectnet_is_read_as_before_where_rows_lie_beside_it(drawn_faces, tmp_path):
    some = drawn_faces.select(np.arange(12))
    fused = np.full((12, 13), 1 / 13)
    layouts.write_affectnet_fused(some, fused, tmp_path)
    plain = datasets.load("affectnet", tmp_path)
    assert (len(plain), plain.rejected) == (12, ())


def test_a_mistake_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no affectnet_fused in .*data/README\.md"):
        load(tmp_path)
    write(tmp_path, 1, "1,2")
    with pytest.raises(ValueError, match="none of 1 rows or images can be used.*2 values instead of 13"):
        load(tmp_path)
