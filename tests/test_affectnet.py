"""The AffectNet layout: every annotation by hand, each kind of damage, what is unknown stays unknown."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import center_of_mass

from helpers import datasets, emotions, images

HERE = ("annotations", "images")


def write(folder, key, exp=1, val=0.5, aro=-0.25, lnd=None, *, as_text=True, size=(64, 64), name=None):
    """Write one made picture with its annotations; those that are None get no file."""
    for below in HERE:
        (folder / below).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(int(key)).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "images" / (name or f"{key}.jpg"))
    points = np.arange(136.0) / 4 if lnd is None else lnd
    given = {"exp": exp, "val": val, "aro": aro, "lnd": points}
    for kind, value in given.items():
        if kind != "lnd" and value is not None:
            value = np.array(str(value)) if as_text else np.array(value)
        if value is not None and value is not False:
            np.save(folder / "annotations" / f"{key}_{kind}.npy", value, allow_pickle=False)


def good(folder, num=3, first=100):
    for i in range(num):
        write(folder, first + i, exp=i % 7)


def load(root, **options):
    return datasets.load("affectnet", root, image_size=32, **options)


def reasons(faces):
    return {re.sub(r".*/", "", rejection.file): rejection.reason for rejection in faces.rejected}


# --- what is there is read


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "numbers"])
@pytest.mark.parametrize("top", ["", "affectnet", "AffectNet", "Dataset"])
def test_labels_degrees_and_landmarks(tmp_path, as_text, top):
    for code in range(8):
        write(tmp_path / top, code, code, val=code / 10, aro=-code / 10, as_text=as_text)
    faces = load(tmp_path)
    assert faces.classes == emotions.AFFECTNET8
    assert [faces.classes[label] for label in faces.labels] == list(emotions.AFFECTNET8)
    steps = np.arange(8, dtype=np.float32) / 10
    np.testing.assert_allclose(faces.valence_arousal, np.stack([steps, -steps], 1), rtol=1e-6)
    assert faces.valence_arousal.dtype == faces.landmarks.dtype == np.float32
    assert faces.images.shape == (8, 32, 32)
    assert faces.landmarks.shape == (8, 68, 2)
    assert set(faces.split.tolist()) == {""}
    assert faces.subject is None
    assert not faces.rejected


def test_pixels_stay_with_their_annotations_when_others_are_rejected(tmp_path):
    for key in range(20):
        write(tmp_path, key, exp=key % 11, val=key / 20)
    (tmp_path / "images" / "14.jpg").write_bytes(b"no picture")
    faces = load(tmp_path)
    kept = [key for key in map(str, range(20)) if int(key) % 11 < 8 and key != "14"]
    assert sorted(faces.source.tolist()) == sorted(f"images/{key}.jpg" for key in kept)
    for row, source in enumerate(faces.source.tolist()):
        key = int(re.search(r"\d+", source)[0])
        assert faces.labels[row] == key % 11
        assert faces.valence_arousal[row, 0] == pytest.approx(key / 20)
        np.testing.assert_array_equal(faces.images[row], images.read(tmp_path / source, 32))
    assert len(faces) + len(faces.rejected) == 20


def test_seven_classes_do_without_contempt(tmp_path):
    write(tmp_path, 1, exp=6)
    write(tmp_path, 2, exp=7)
    faces = load(tmp_path, num_classes=7)
    assert faces.classes == emotions.AFFECTNET8[:7]
    assert faces.labels.tolist() == [6]
    assert reasons(faces) == {"2.jpg": "contempt is the eighth class"}
    assert "num_classes=8" in faces.rejected[0].remedy
    assert len(load(tmp_path, num_classes=8)) == 2


def test_minus_two_is_unknown_and_never_zero(tmp_path):
    write(tmp_path, 1, val=-2, aro=-2)
    write(tmp_path, 2, val="-2.0", aro=0.5)
    write(tmp_path, 3, val=np.float64(-2), aro=0.0, as_text=False)
    write(tmp_path, 4, val=0, aro=-1)
    nan = np.nan
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.valence_arousal, [[nan, nan], [nan, 0.5], [nan, 0.0], [0.0, -1.0]])
    assert not faces.rejected


@pytest.mark.parametrize(
    ("code", "words"), [(8, "none of the expressions"), (9, "uncertain"), (10, "no face")]
)
def test_codes_that_are_no_class_are_rejected_by_their_meaning(tmp_path, code, words):
    good(tmp_path)
    write(tmp_path, 1, exp=code, val=-2, aro=-2)
    faces = load(tmp_path)
    assert len(faces) == 3
    assert reasons(faces) == {"1.jpg": f"annotated as {words} (expression {code})"}


def test_landmarks_follow_the_pixels(tmp_path):
    """Three bright dots at landmarks of a wide picture must be found where the landmarks are moved to."""
    dots, (width, height) = np.array([[60, 20], [100, 20], [80, 70]]), (160, 96)
    pixels = np.zeros((height, width), dtype=np.uint8)
    for x, y in dots:
        pixels[y - 4 : y + 5, x - 4 : x + 5] = 255
    points = np.zeros((68, 2))
    points[[36, 45, 57]] = dots
    write(tmp_path, 7, lnd=points.ravel(), name="7.png")
    Image.fromarray(pixels).save(tmp_path / "images" / "7.png")
    faces = load(tmp_path)
    found = faces.landmarks[0, [36, 45, 57]]
    for x, y in found:
        window = np.zeros((32, 32))
        window[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = 1
        assert center_of_mass(faces.images[0] * window) == pytest.approx(
            (y, x), abs=0.1
        )  # not the 0.33 of half a pixel


def test_landmarks_may_come_as_68_pairs(tmp_path):
    flat = np.random.default_rng(0).uniform(0, 63, 136)
    write(tmp_path, 1, lnd=flat)
    write(tmp_path, 2, lnd=flat.reshape(68, 2))
    faces = load(tmp_path)
    np.testing.assert_array_equal(faces.landmarks[0], faces.landmarks[1])
    np.testing.assert_allclose(faces.landmarks[0], (flat.reshape(68, 2) + 0.5) / 2 - 0.5, rtol=1e-5)


def test_a_turned_picture_has_the_size_of_the_upright_one(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("L", (40, 20)).save(tmp_path / "turned.jpg", exif=turned)
    upright = images.read(tmp_path / "turned.jpg")
    assert images.size(tmp_path / "turned.jpg") == upright.shape[::-1] == (20, 40)


def test_in_color(tmp_path):
    good(tmp_path)
    assert load(tmp_path, color=True).images.shape == (3, 3, 32, 32)


def test_kinds_that_nobody_has_are_left_out(tmp_path):
    for key in range(4):
        write(tmp_path, key, lnd=False)
    faces = load(tmp_path)
    assert faces.landmarks is None
    assert len(faces) == 4
    for key in range(4):
        for kind in ("val", "aro"):
            (tmp_path / "annotations" / f"{key}_{kind}.npy").unlink()
    assert load(tmp_path).valence_arousal is None


# --- splits


def test_the_published_folders_are_splits_and_nothing_is_chosen_by_the_published_scores(tmp_path):
    good(tmp_path / "affectnet" / "train_set", 30)
    good(tmp_path / "affectnet" / "val_set", 8, first=500)
    faces = load(tmp_path)
    assert {source.split("/")[1]: split for source, split in zip(faces.source, faces.split, strict=True)} == {
        "train_set": "train",
        "val_set": "test",
    }
    train, validation, test = faces.splits(seed=0)
    assert len(test) == 8
    assert len(train) + len(validation) == 30
    assert len(validation) > 0


def test_with_a_test_folder_validation_is_validation(tmp_path):
    for number, part in enumerate(("train_set", "val_set", "test_set")):
        good(tmp_path / part, 3 + number, first=100 * number)
    faces = load(tmp_path)
    assert [len(part) for part in faces.splits(seed=0)] == [3, 4, 5]


def test_one_part_alone_has_no_splits(tmp_path):
    good(tmp_path / "val_set", 4)
    assert set(load(tmp_path).split.tolist()) == {""}


# --- what is damaged is named


def save(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def header(text):
    """A file that begins like an array and whose header says something else."""
    text = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


DAMAGE = {
    "missing exp": ("exp", None, r"has no annotation \*_exp\.npy"),
    "missing val": ("val", None, r"has no annotation \*_val\.npy"),
    "missing aro": ("aro", None, r"has no annotation \*_aro\.npy"),
    "missing lnd": ("lnd", None, r"has no annotation \*_lnd\.npy"),
    "empty": ("exp", b"", "1_exp.npy is empty"),
    "git-lfs": ("val", b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
    "web page": ("aro", b"<!DOCTYPE html><html>", "is a web page"),
    "text": ("exp", b"7\n", "1_exp.npy cannot be read"),
    "pickle": ("exp", save(np.array({"exp": 7}, dtype=object)), "1_exp.npy cannot be read .*allow_pickle"),
    "cut short": ("lnd", save(np.arange(136.0))[:-9], "1_lnd.npy cannot be read"),
    "cut in the header": ("lnd", save(np.arange(136.0))[:40], "1_lnd.npy cannot be read"),
    "zip": ("exp", b"PK\x03\x04" + bytes(40), "1_exp.npy cannot be read"),
    "claims terabytes": (
        "val",
        header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}"),
        "1_val.npy cannot be read",
    ),
    "code in the header": ("val", header("__import__('os').abort()"), "1_val.npy cannot be read"),
    "two numbers": ("val", save(np.zeros(2)), "1_val.npy holds float64 of shape"),
    "a word": ("val", save(np.array("high")), "1_val.npy holds <U4 of shape"),
    "a date": ("val", save(np.array("2017", dtype="M8[Y]")), r"1_val.npy holds datetime64\[Y\] of shape"),
    "a record": ("aro", save(np.zeros((), dtype="f8,f8")), "1_aro.npy holds .* of shape"),
    "no character": ("exp", save(np.array("3")).replace(b"3\0\0\0", b"3\0\0\x80"), "1_exp.npy holds <U1 of"),
    "nothing": ("exp", save(np.zeros(0)), "1_exp.npy holds float64 of shape"),
    "class 11": ("exp", save(np.array("11")), "1_exp.npy holds 11, no expression"),
    "class -1": ("exp", save(np.array(-1)), "1_exp.npy holds -1, no expression"),
    "class 1.5": ("exp", save(np.array(1.5)), "1_exp.npy holds 1.5, no expression"),
    "class nan": ("exp", save(np.array("nan")), "1_exp.npy holds nan, no expression"),
    "valence 3": ("val", save(np.array("3.0")), "1_val.npy holds 3, not a number from -1 to 1"),
    "arousal -1.5": ("aro", save(np.array(-1.5)), "1_aro.npy holds -1.5, not a number from -1 to 1"),
    "arousal nan": ("aro", save(np.array(np.nan)), "1_aro.npy holds nan, not a number"),
    "67 points": ("lnd", save(np.zeros(134)), r"1_lnd.npy holds float64 of shape \(134,\), not 68 points"),
    "points of text": ("lnd", save(np.array(["1"] * 136)), "1_lnd.npy holds <U1 of shape"),
    "a point nowhere": ("lnd", save(np.full(136, np.inf)), "1_lnd.npy holds float64"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_one_damaged_annotation_costs_one_face(tmp_path, case):
    kind, content, words = DAMAGE[case]
    good(tmp_path)
    write(tmp_path, 1)
    file = tmp_path / "annotations" / f"1_{kind}.npy"
    file.unlink() if content is None else file.write_bytes(content)
    faces = load(tmp_path)
    assert len(faces) == 3
    [rejection] = faces.rejected
    assert rejection.file == "images/1.jpg"
    assert re.search(words, rejection.reason)
    assert "\n" not in str(rejection)
    assert rejection.remedy


def test_nothing_is_lost_in_silence(tmp_path):
    good(tmp_path, 5)
    write(tmp_path, 1, exp=9)
    write(tmp_path, 2)
    (tmp_path / "images" / "2.jpg").unlink()
    Image.new("L", (20, 20)).save(tmp_path / "images" / "3.jpg")
    (tmp_path / "annotations" / "list.txt").write_text("1\n2\n")
    faces = load(tmp_path)
    assert len(faces) == 5
    assert reasons(faces) == {
        "1.jpg": "annotated as uncertain (expression 9)",
        "2_aro.npy": "has no image in images/",
        "3.jpg": "has no annotation *_aro.npy",
        "list.txt": "is no annotation (named <image>_exp.npy, _val, _aro, _lnd or _prob_rank.txt)",
    }


def test_a_mistake_is_named(tmp_path):
    good(tmp_path)
    with pytest.raises(ValueError, match="num_classes=7 or num_classes=8, not 6"):
        load(tmp_path, num_classes=6)
    with pytest.raises(FileNotFoundError, match=r"looked for annotations.*data/README\.md"):
        datasets.load("affectnet", tmp_path / "images")
    for file in (tmp_path / "images").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="none of 3 rows or images can be used"):
        load(tmp_path)
