"""AffectNet and AffectNetFused: annotations by hand, each kind of damage, what is unknown stays unknown."""

from __future__ import annotations

import re

import numpy as np
import pytest
from mutants import array, put, saved
from PIL import Image

from helpers import datasets, emotions, images

RANKS = "0.3,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.05,0.1,0.1"


def write(folder, key, ranks=None, **values):
    """Write one image with its annotations; those that are None get no file."""
    pixels = np.random.default_rng(int(key)).integers(0, 256, (64, 64), dtype=np.uint8)
    put(folder / "images" / f"{key}.png", saved(pixels))
    given = {} if ranks else {"exp": 1, "val": 0.5, "aro": -0.25, "lnd": np.arange(136.0) / 4}
    for kind, value in (given | values).items():
        if value is not None:
            value = str(value) if np.ndim(value) == 0 else value  # as most copies have it
            put(folder / "annotations" / f"{key}_{kind}.npy", array(value))
    if ranks is not None:
        put(folder / "annotations" / f"{key}_prob_rank.txt", ranks.encode())


def load(root, name="affectnet", **options):
    return datasets.load(name, root, image_size=32, **options)


def keys(faces):
    return [int(re.search(r"(\d+)\.png", source)[1]) for source in faces.source.tolist()]


def reasons(faces):
    assert all(each.remedy and "\n" not in str(each) for each in faces.rejected)
    return {re.sub(r".*/", "", each.file): each.reason for each in faces.rejected}


@pytest.mark.parametrize("top", ["", "Dataset"])
def test_what_is_good_is_read_and_pixels_stay_with_their_annotations(tmp_path, top):
    for key in range(20):
        value = key / 20 if key % 2 else np.array([key / 20])  # numbers as text, and as they are
        write(tmp_path / top, key, exp=key % 11, val=value, aro=-2 if key == 3 else -key / 20)
    put(tmp_path / top / "images" / "14.png", b"no image")
    faces = load(tmp_path)
    assert faces.classes == emotions.AFFECTNET8
    assert sorted(keys(faces)) == [key for key in range(20) if key % 11 < 8 and key != 14]
    assert faces.valence_arousal.dtype == faces.landmarks.dtype == np.float32
    for row, key in enumerate(keys(faces)):
        assert faces.labels[row] == key % 11
        expected = [key / 20, np.nan if key == 3 else -key / 20]  # -2 is unknown, never 0
        np.testing.assert_allclose(faces.valence_arousal[row], expected, rtol=1e-6)
        file = tmp_path / top / "images" / f"{key}.png"
        np.testing.assert_array_equal(faces.images[row], images.read(file, 32))
    words = reasons(faces)
    assert words["8.png"] == "annotated as none of the expressions (expression 8)"
    assert words["9.png"] == "annotated as uncertain (expression 9)"
    assert words["10.png"] == "annotated as no face (expression 10)"
    assert len(faces) + len(faces.rejected) == 20


def test_options_and_kinds_that_nobody_has(tmp_path):
    for key in (1, 2):
        write(tmp_path, key, exp=5 + key, val=None, aro=None, lnd=None)
    faces = load(tmp_path, num_classes=7, color=True)
    assert (faces.classes, faces.labels.tolist()) == (emotions.AFFECTNET8[:7], [6])
    assert (faces.landmarks, faces.valence_arousal) == (None, None)
    assert faces.images.shape == (1, 3, 32, 32)
    assert reasons(faces) == {"2.png": "contempt is the eighth class"}
    with pytest.raises(ValueError, match="num_classes=7 or num_classes=8, not 6"):
        load(tmp_path, num_classes=6)


@pytest.mark.parametrize("turn", [1, 6])
def test_landmarks_follow_the_pixels(tmp_path, turn):
    """Three bright dots at landmarks of a wide image must be found where the landmarks are moved to."""
    dots, points = np.array([[60, 20], [100, 20], [80, 70]]), np.zeros((68, 2))
    pixels = np.zeros((96, 160), np.uint8)
    for x, y in dots:
        pixels[y - 4 : y + 5, x - 4 : x + 5] = 255
    points[[36, 45, 57]] = dots
    write(tmp_path, 7, lnd=points)  # as pairs
    exif = Image.Exif()
    exif[0x0112] = turn  # 6: to be turned to the right, which the pixels here are not yet
    upright = pixels if turn == 1 else np.ascontiguousarray(np.rot90(pixels))
    put(tmp_path / "images" / "7.png", saved(upright, exif=exif))
    faces = load(tmp_path)
    y, x = np.mgrid[:32, :32]
    for place in faces.landmarks[0, [36, 45, 57]]:
        near = faces.images[0] * (np.maximum(abs(x - place[0]), abs(y - place[1])) < 4.5)
        centre = np.array([(near * x).sum(), (near * y).sum()]) / near.sum()
        assert centre == pytest.approx(place, abs=0.1)  # not the 0.33 of half a pixel


@pytest.mark.parametrize("parts", [(30, 8), (30, 8, 5), (0, 8)])
def test_the_published_folders_are_splits_and_nothing_is_chosen_by_the_published_scores(tmp_path, parts):
    for number, (part, num) in enumerate(zip(("train_set", "val_set", "test_set"), parts, strict=False)):
        for key in range(num):
            write(tmp_path / "affectnet" / part, 100 * number + key)
    faces = load(tmp_path)
    sizes = [len(part) for part in faces.splits(seed=0)]
    if not parts[0]:
        assert set(faces.split.tolist()) == {""}  # one part alone has no splits
    elif len(parts) == 3:
        assert sizes == [30, 8, 5]
    else:
        assert sizes[2] == 8
        assert sizes[0] + sizes[1] == 30 > sizes[0]


DAMAGE = {
    "no exp": ("exp", None, r"has no annotation \*_exp\.npy"),
    "no val": ("val", None, r"has no annotation \*_val\.npy"),
    "no lnd": ("lnd", None, r"has no annotation \*_lnd\.npy"),
    "empty": ("exp", b"", "1_exp.npy is empty"),
    "git-lfs": ("val", b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
    "text": ("exp", b"7\n", "1_exp.npy cannot be read"),
    "cut short": ("lnd", array(np.arange(136.0))[:-9], "1_lnd.npy cannot be read"),
    "two numbers": ("val", array(np.zeros(2)), "1_val.npy holds 2 values of float64 instead of 1 numbers"),
    "a word": ("val", array("high"), "1_val.npy holds 1 values of <U4"),
    "a record": ("aro", array(np.zeros((), dtype="f8,f8")), "1_aro.npy holds 1 values of"),
    "class 11": ("exp", array("11"), "1_exp.npy holds 11, no expression"),
    "class 1.5": ("exp", array(1.5), "1_exp.npy holds 1.5, no expression"),
    "class nan": ("exp", array("nan"), "1_exp.npy holds nan, no expression"),
    "arousal -1.5": ("aro", array(-1.5), "1_aro.npy holds -1.5, not a number from -1 to 1"),
    "arousal nan": ("aro", array(np.nan), "1_aro.npy holds nan, not a number"),
    "67 points": ("lnd", array(np.zeros(134)), "1_lnd.npy holds 134 values of float64 instead of 136"),
    "a point nowhere": ("lnd", array(np.full(136, np.inf)), "1_lnd.npy holds points that are nowhere"),
}


def test_a_damaged_annotation_costs_one_face_and_nothing_is_lost_in_silence(tmp_path):
    for number, (kind, content, _) in enumerate(DAMAGE.values()):
        write(tmp_path, number)
        file = tmp_path / "annotations" / f"{number}_{kind}.npy"
        file.unlink() if content is None else file.write_bytes(content)
    for key in (50, 51):
        write(tmp_path, key)
    (tmp_path / "images" / "51.png").unlink()
    put(tmp_path / "annotations" / "list.txt", b"1\n2\n")
    faces = load(tmp_path)
    assert keys(faces) == [50]
    words = reasons(faces)
    assert words.pop("51_aro.npy") == "has no image in images/"
    assert words.pop("list.txt").startswith("is no annotation (named <image>_exp.npy")
    assert words.keys() == {f"{number}.png" for number in range(len(DAMAGE))}
    for number, (_, _, expected) in enumerate(DAMAGE.values()):
        assert re.search(expected.replace("1_", f"{number}_"), words[f"{number}.png"])


BAD_RANKS = {
    ",".join(["0.5", "0.5", *["0"] * 10]): "holds 12 values of float64 instead of 13 numbers",
    RANKS + ",0": "holds 14 values",
    RANKS.replace("0.3", "0.5").replace("0.1,0.1", "0.1,-0.1"): "-0.1 is no probability",
    RANKS.replace("0.3", "nan"): "nan is no probability",
    RANKS.replace("0.3", "inf"): "the values sum to inf, not to 1",
    ",".join(["0"] * 13): "the values sum to 0, not to 1",
    RANKS.replace("0.3", "0.298"): "the values sum to 0.998, not to 1",
    RANKS.replace("0.3", "high"): "cannot be read (could not convert string to float: 'high')",
    RANKS.replace("0.3", ""): "cannot be read",
    RANKS + "\n" + RANKS + "\n": "cannot be read",
    " \n\n": "is empty",
}


def test_distributions_are_read_in_the_order_of_the_set_and_damaged_ones_are_named(tmp_path):
    for column in range(13):
        write(tmp_path, column, ",".join("0.88" if i == column else "0.01" for i in range(13)) + "\n")
    for number, row in enumerate(BAD_RANKS, start=20):
        write(tmp_path, number, row)
    found = load(tmp_path, "affectnet_fused")
    assert found.classes == (*emotions.AFFECTNET8, "serene", "contemplative", "secure", "untroubled", "quiet")
    assert found.labels.tolist() == keys(found)
    assert sorted(keys(found)) == list(range(13))
    np.testing.assert_allclose(found.distribution[np.arange(13), keys(found)], 0.88, rtol=1e-6)
    np.testing.assert_allclose(found.distribution.sum(axis=1), 1, atol=1e-6)
    assert (found.notes, found.valence_arousal) == ((), None)
    words = reasons(found)
    for number, why in enumerate(BAD_RANKS.values(), start=20):
        assert why in words.pop(f"{number}.png")
    assert not words


@pytest.mark.parametrize(("first", "kept"), [("0.3009", True), ("0.2991", True), ("0.3011", False)])
def test_a_thousandth_is_rounding_and_more_is_not(tmp_path, first, kept):
    write(tmp_path, 1, RANKS.replace("0.3", first))
    write(tmp_path, 2, RANKS, val=-2, aro=-0.25)
    for _ in range(2):  # the second time from the cache
        found = load(tmp_path, "affectnet_fused")
        assert (len(found), len(found.rejected), len(found.notes)) == (1 + kept, 1 - kept, kept)
        np.testing.assert_allclose(found.distribution.sum(axis=1), 1, atol=1e-6)
        np.testing.assert_array_equal(found.valence_arousal[-1], [np.nan, -0.25])
    assert not kept or found.notes[0].startswith("1 of 2 rows sum to 1 only within 0.001")
