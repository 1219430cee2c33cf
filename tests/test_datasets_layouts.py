"""Every layout from files on disk to a face set: what is good loads, what is not is named."""

from __future__ import annotations

import csv
import importlib
import io
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import saved
from PIL import Image

from helpers import datasets, emotions
from helpers.datasets import fer2013, layouts
from helpers.datasets import reading as tables

RNG = np.random.default_rng(0)
GOOD = 4
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 301072766\n"
HTML = "<!DOCTYPE html>\n<html><title>Sign in</title></html>\n"


def words(pixels) -> str:
    return " ".join(map(str, np.ravel(pixels).tolist()))


FACES = RNG.integers(0, 256, (GOOD, 48, 48), dtype=np.uint8)
PIXELS = words(FACES[0])
HEADER = "emotion,pixels,Usage"
ROWS = [
    f"{i},{words(face)},{use}"
    for i, face, use in zip(
        (0, 6, 3, 1), FACES, ("Training", "Training", "PublicTest", "Training"), strict=True
    )
]


def write_csv(root: Path, lines: list[str], end: str = "\n", name: str = "fer2013.csv") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(end.join(lines).encode("utf-8", "surrogateescape") + end.encode())
    return root


def write_picture(file: Path, pixels: np.ndarray = FACES[0], format: str = "PNG") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, format)


def face(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)


# --- FER2013, the csv


def check_fer2013(faces: datasets.FaceSet) -> None:
    np.testing.assert_array_equal(faces.images, FACES)
    assert faces.labels.tolist() == [0, 6, 3, 1]
    assert faces.split.tolist() == ["train", "train", "test", "train"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_csv_in_either_line_ending(tmp_path, end):
    faces = datasets.load("fer2013", write_csv(tmp_path, [HEADER, *ROWS], end))
    check_fer2013(faces)
    assert faces.classes == emotions.FER7
    assert faces.source.tolist() == [f"fer2013.csv:{row}" for row in (2, 3, 4, 5)]
    assert not faces.rejected


PLACES = ["fer2013/fer2013.csv", "icml_face_data.csv", "fer2013.csv/fer2013.csv", "any-master/fer2013.csv"]


@pytest.mark.parametrize("place", PLACES)
def test_csv_in_other_places(tmp_path, place):
    check_fer2013(datasets.load("fer2013", write_csv(tmp_path, [HEADER, *ROWS], name=place)))


@pytest.mark.parametrize(
    ("header", "change"),
    [
        (" emotion, Usage, pixels", lambda e, p, u: f"{e},{u},{p}"),
        ("\ufeffEmotion,Pixels,USAGE", lambda e, p, u: f"{e},{p},{u.upper()}"),
        ('"emotion","pixels","Usage"', lambda e, p, u: f'"{e}","{p}","{u}"'),
        (HEADER, lambda e, p, u: f" {e} ,  {p.replace(' ', '  ')} , {u} "),
        ("id,emotion,pixels,Usage", lambda e, p, u: f"17,{e},{p},{u}"),
        (HEADER.replace(",", ";"), lambda e, p, u: f"{e};{p};{u}"),
        (HEADER.replace(",", "\t"), lambda e, p, u: f"{e}\t{p}\t{u}"),
        (HEADER, lambda e, p, u: f"{e}.0,{p},{u}"),
    ],
    ids=[
        "icml order",
        "casing and BOM",
        "quotes",
        "spaces",
        "another column",
        "semicolons",
        "tabs",
        "floats",
    ],
)
def test_csv_written_otherwise(tmp_path, header, change):
    rows = [change(*row.split(",")) for row in ROWS]
    faces = datasets.load("fer2013", write_csv(tmp_path, [header, *rows, ""]))
    check_fer2013(faces)
    assert not faces.rejected


def test_public_test_is_validation_where_there_is_a_private_test(tmp_path):
    rows = [*ROWS[:3], ROWS[3].replace("Training", "PrivateTest")]
    faces = datasets.load("fer2013", write_csv(tmp_path, [HEADER, *rows]))
    assert faces.split.tolist() == ["train", "train", "validation", "test"]


def with_pixels(change) -> str:
    return f"2,{change(PIXELS.split(' '))},Training"


BAD_ROWS = {
    "one pixel short": (with_pixels(lambda p: " ".join(p[:-1])), "2303 pixels instead of 2304"),
    "one pixel over": (with_pixels(lambda p: " ".join([*p, "7"])), "2305 pixels instead of 2304"),
    "no pixels": ("2,,Training", "0 pixels instead of 2304"),
    "one pixel": ("2,7,Training", "1 pixels instead of 2304"),
    "256": (with_pixels(lambda p: " ".join([*p[:-1], "256"])), "pixel '256' is not from 0 to 255"),
    "300": (with_pixels(lambda p: " ".join(["300", *p[1:]])), "pixel '300' is not from 0 to 255"),
    "999": (with_pixels(lambda p: " ".join(["999", *p[1:]])), "pixel '999' is not from 0 to 255"),
    "1000": (with_pixels(lambda p: " ".join(["1000", *p[1:]])), "pixel '1000' is not from 0 to 255"),
    "65791": (with_pixels(lambda p: " ".join([p[0], "65791", *p[2:]])), "pixel '65791' is not from"),
    "0044": (with_pixels(lambda p: " ".join(["0044", *p[1:]])), "pixel '0044' is not from 0 to 255"),
    "-1": (with_pixels(lambda p: " ".join(["-1", *p[1:]])), "'-1' among the pixels is no whole number"),
    "+1": (with_pixels(lambda p: " ".join(["+1", *p[1:]])), "'+1' among the pixels is no whole number"),
    "7.5": (with_pixels(lambda p: " ".join([*p[:-1], "7.5"])), "'7.5' among the pixels is no whole"),
    "1e2": (with_pixels(lambda p: " ".join([*p[:9], "1e2", *p[10:]])), "'1e2' among the pixels is no"),
    "0x1F": (with_pixels(lambda p: " ".join([*p[:9], "0x1F", *p[10:]])), "'0x1F' among the pixels is no"),
    "nan": (with_pixels(lambda p: " ".join([*p[:9], "nan", *p[10:]])), "'nan' among the pixels is no whole"),
    "a letter": (with_pixels(lambda p: " ".join([*p[:9], "l7", *p[10:]])), "'l7' among the pixels is no"),
    "semicolons": (with_pixels(";".join), "among the pixels is no whole number"),
    "tabs": (with_pixels("\t".join), "among the pixels is no whole number"),
    "brackets": (with_pixels(lambda p: "[" + " ".join(p) + "]"), "among the pixels is no whole number"),
    "a NUL": (with_pixels(lambda p: "\0" + " ".join(p)), "among the pixels is no whole number"),
    "arabic digits": (with_pixels(lambda p: " ".join(["٧", *p[1:]])), "'٧' among the pixels is no whole"),
    "no UTF-8": (with_pixels(lambda p: " ".join(["\udcff", *p[1:]])), "among the pixels is no whole"),
    "emotion 7": (f"7,{PIXELS},Training", "emotion '7' is not one of 0 to 6"),
    "emotion -1": (f"-1,{PIXELS},Training", "emotion '-1' is not one of 0 to 6"),
    "emotion 3.5": (f"3.5,{PIXELS},Training", "emotion '3.5' is not one of 0 to 6"),
    "emotion in words": (f"happy,{PIXELS},Training", "emotion 'happy' is not one of 0 to 6"),
    "no emotion": (f",{PIXELS},Training", "emotion '' is not one of 0 to 6"),
    "Usage in another word": (f"2,{PIXELS},Trainig", "Usage 'Trainig' is not known; did you mean 'Training'"),
    "no Usage": (f"2,{PIXELS},", "Usage '' is not known"),
    "two fields": (f"2,{PIXELS}", "2 fields instead of 3"),
    "four fields": (f"2,{PIXELS},Training,", "4 fields instead of 3"),
    "commas between pixels": (with_pixels(",".join), "2306 fields instead of 3"),
    "one word": ("hello", "1 fields instead of 3"),
    "a header again": (HEADER, "emotion 'emotion' is not one of 0 to 6"),
    "columns swapped": (f"Training,{PIXELS},2", "emotion 'Training' is not one of 0 to 6"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_malformed_row_is_named_and_the_others_load(tmp_path, case):
    bad, reason = BAD_ROWS[case]
    faces = datasets.load("fer2013", write_csv(tmp_path, [HEADER, *ROWS[:2], bad, *ROWS[2:]]))
    check_fer2013(faces)
    (rejection,) = faces.rejected
    assert (rejection.file, rejection.row) == ("fer2013.csv", 4)
    assert reason in rejection.reason
    assert rejection.remedy
    assert "\n" not in str(rejection)


def test_all_malformed_rows_together_are_counted(tmp_path):
    lines = [HEADER]
    for bad, _ in BAD_ROWS.values():
        lines += [*ROWS, bad]
    faces = datasets.load("fer2013", write_csv(tmp_path, lines))
    assert len(faces) == GOOD * len(BAD_ROWS)
    assert len(faces) + len(faces.rejected) == len(lines) - 1
    assert [r.row for r in faces.rejected] == [i for i in range(2, len(lines) + 1) if (i - 1) % 5 == 0]


def test_a_last_row_that_was_cut_is_rejected(tmp_path):
    (tmp_path / "fer2013.csv").write_text("\n".join([HEADER, *ROWS]) + f"\n2,{PIXELS[:3000]}")
    faces = datasets.load("fer2013", tmp_path)
    check_fer2013(faces)
    assert [str(r) for r in faces.rejected] == [
        "fer2013.csv, row 6: 2 fields instead of 3; correct the row, or get the csv again"
    ]


NO_CSV = {
    "git-lfs pointer": (LFS, r"fer2013\.csv: is a git-lfs pointer.*git lfs pull"),
    "web page": (HTML, r"fer2013\.csv: is a web page.*log in"),
    "empty": ("", r"fer2013\.csv: is empty; download it again"),
    "archive": ("PK\x03\x04" + "x" * 50, r"fer2013\.csv: is an archive; unpack it first"),
    "no header": ("\n".join(ROWS), r"first row has no column 'emotion'"),
    "a misspelt column": (
        f"emotion,pixls,Usage\n2,{PIXELS}\n",
        r"no column 'pixels'; nearest is .pixls.; needs emotion, pixels",
    ),
    "header only": (HEADER + "\n", r"none of 0 rows or images can be used"),
    "only bad rows": (HEADER + "\n9,1 2 3,Training\n", r"none of 1 .*fer2013\.csv, row 2: emotion '9'"),
}


@pytest.mark.parametrize("case", NO_CSV)
def test_a_file_that_is_no_such_csv_is_recognised(tmp_path, case):
    text, message = NO_CSV[case]
    (tmp_path / "fer2013.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load("fer2013", tmp_path)
    assert "\n" not in str(caught.value)


def test_utf16_is_recognised(tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(HEADER.encode("utf-16"))
    with pytest.raises(ValueError, match="is in UTF-16; save it in UTF-8"):
        datasets.load("fer2013", tmp_path)


def strictly(text: bytes) -> np.ndarray | None:
    """What a row of pixels says, number by number; None where it says nothing valid."""
    numbers = text.strip(b" ").split(b" ")
    numbers = [n for n in numbers if n]
    if len(numbers) != 2304 or not all(re.fullmatch(rb"[0-9]{1,3}", n) and int(n) < 256 for n in numbers):
        return None
    return np.array([int(n) for n in numbers])


@given(seed=st.integers(0, 2**32 - 1), widest=st.sampled_from([1, 10, 100, 256]), space=st.integers(1, 3))
def test_pixels_are_read_as_python_reads_them(seed, widest, space):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, widest, 2304).astype(str)
    text = (" " * space).join(values.tolist()).encode()
    np.testing.assert_array_equal(fer2013.parse_pixels(text), strictly(text))


@given(
    seed=st.integers(0, 2**32 - 1),
    places=st.lists(st.integers(0, 8000), min_size=1, max_size=4),
    junk=st.lists(st.sampled_from(b"0123456789  -.,;e\t\0\xff"), min_size=4, max_size=4),
)
def test_a_changed_row_is_read_as_python_reads_it_or_refused(seed, places, junk):
    text = bytearray(words(np.random.default_rng(seed).integers(0, 256, 2304)).encode())
    for place, byte in zip(places, junk, strict=False):
        text[place % len(text)] = byte
    expected = strictly(bytes(text))
    if expected is None:
        with pytest.raises(ValueError, match="pixel"):
            fer2013.parse_pixels(bytes(text))
    else:
        np.testing.assert_array_equal(fer2013.parse_pixels(bytes(text)), expected)


@given(
    seed=st.integers(0, 2**32 - 1),
    changes=st.lists(
        st.tuples(
            st.integers(0, 19),
            st.integers(0, 9000),
            st.sampled_from([b"", b" ", b"0", b"7", b"-", b" 3 ", b"\t"]),
        ),
        max_size=6,
    ),
)
def test_rows_parsed_at_once_are_those_parsed_one_by_one(seed, changes, tmp_path_factory):
    rng = np.random.default_rng(seed)
    texts = [words(row).encode() for row in rng.integers(0, 256, (20, 2304))]  # more than a block holds
    for row, place, put in changes:
        text, place = texts[row], place % len(texts[row])
        texts[row] = text[:place] + put + text[place + 1 :]
    path = tmp_path_factory.mktemp("rows") / "fer2013.csv"
    path.write_bytes(HEADER.encode() + b"\n" + b"\n".join(b"3," + text + b",Training" for text in texts))
    expected = {number: strictly(text) for number, text in enumerate(texts, start=2)}
    table = fer2013.read_csv(path, pixels := tables.Pixels(48))
    assert [rejected.row for rejected in table.rejected] == [n for n, row in expected.items() if row is None]
    np.testing.assert_array_equal(table.row, [n for n, row in expected.items() if row is not None])
    for number, image in zip(table.row, pixels.close(), strict=True):
        np.testing.assert_array_equal(image.ravel(), expected[number])


def test_too_few_pixels_in_one_row_and_too_many_in_the_next_are_both_refused(tmp_path):
    rows = [words([7] * num) for num in (2304, 2303, 2305, 2304)]
    path = tmp_path / "fer2013.csv"
    path.write_text("\n".join([HEADER.strip(), *(f"3,{row},Training" for row in rows)]))
    table = fer2013.read_csv(path, tables.Pixels(48))
    reasons = [(rejected.row, rejected.reason) for rejected in table.rejected]
    assert reasons == [(3, "2303 pixels instead of 2304"), (4, "2305 pixels instead of 2304")]


# --- FER2013, image folders


def test_folders_and_csv_agree_whatever_the_order_of_folders(tmp_path):
    names = {0: "angry", 6: "Neutral", 3: "HAPPY", 1: "disgust"}
    for pixels, row in zip(FACES, ROWS, strict=True):
        emotion, _, use = row.split(",")
        part = {"Training": "train", "PublicTest": "Test"}[use]
        write_picture(tmp_path / "fer2013" / part / names[int(emotion)] / "1.png", pixels)
    faces = datasets.load("fer2013", tmp_path)
    found = {
        (faces.classes[y], s, x.tobytes())
        for x, y, s in zip(faces.images, faces.labels, faces.split, strict=True)
    }
    table = datasets.load("fer2013", write_csv(tmp_path / "csv", [HEADER, *ROWS]))
    expected = {
        (table.classes[y], s, x.tobytes())
        for x, y, s in zip(table.images, table.labels, table.split, strict=True)
    }
    assert found == expected
    assert faces.classes == emotions.FER7
    assert "fer2013/train/HAPPY/1.png" not in faces.source
    assert "fer2013/train/Neutral/1.png" in faces.source


def test_the_csv_goes_before_the_folders_unless_asked(tmp_path):
    write_csv(tmp_path, [HEADER, *ROWS])
    write_picture(tmp_path / "fer2013" / "train" / "sad" / "1.png")
    assert len(datasets.load("fer2013", tmp_path)) == GOOD
    assert len(datasets.load("fer2013", tmp_path, layout="folders")) == 1
    with pytest.raises(ValueError, match="unknown layout='folder'; did you mean 'folders'"):
        datasets.load("fer2013", tmp_path, layout="folder")


def test_folders_may_start_at_the_root_and_nothing_beside_them_is_read(tmp_path):
    write_picture(tmp_path / "Train" / "sad" / "1.png", face(1))
    write_picture(tmp_path / "test" / "fear" / "2.png", face(2))
    write_picture(tmp_path / "muxspace" / "images" / "3.png", face(3))
    faces = datasets.load("fer2013", tmp_path)
    assert sorted(faces.source.tolist()) == ["Train/sad/1.png", "test/fear/2.png"]
    assert not faces.rejected


# --- trees of pictures

BAD_PICTURES = {
    "happy/pointer.png": (LFS.encode(), "git-lfs pointer"),
    "happy/page.jpg": (HTML.encode(), "web page"),
    "happy/empty.png": (b"", "is empty"),
    "happy/notes.txt": (b"taken on Monday, with the good lamp", "no image of a known format"),
    "happpy/typo.png": (b"x", "unknown expression 'happpy'; did you mean 'happy'"),
    "3/number.png": (b"x", "unknown expression '3'"),
    "loose.png": (b"x", "lies in no class folder"),
}


def test_a_tree_loads_what_is_good_and_names_the_rest(tmp_path):
    for number, name in enumerate(("Happy", "SADNESS", "neutral", "afraid")):
        write_picture(tmp_path / name / f"{number}.png", face(number))
    for place, (data, _) in BAD_PICTURES.items():
        file = tmp_path / place
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)
    for ignored in (".DS_Store", "Happy/Thumbs.db", "Happy/.hidden.png"):
        (tmp_path / ignored).write_bytes(b"x")
    faces = datasets.load("folder", tmp_path)
    assert faces.classes == ("fear", "happiness", "sadness", "neutral")
    assert sorted(faces.source.tolist()) == ["Happy/0.png", "SADNESS/1.png", "afraid/3.png", "neutral/2.png"]
    for pixels, label, source in zip(faces.images, faces.labels, faces.source, strict=True):
        number = int(source[-5])
        np.testing.assert_array_equal(pixels, face(number))
        assert faces.classes[label] == ("happiness", "sadness", "neutral", "fear")[number]
    assert {r.file for r in faces.rejected} == set(BAD_PICTURES)
    for rejection in faces.rejected:
        assert BAD_PICTURES[rejection.file][1] in rejection.reason
        assert rejection.remedy
    assert set(faces.split.tolist()) == {""}


def test_a_tree_with_splits_and_subfolders(tmp_path):
    for number, place in enumerate(("Training/happy/a/1.png", "val/sad/2.png", "TEST/happy/3.png")):
        write_picture(tmp_path / "mine" / place, face(number))
    faces = datasets.load("folder", tmp_path, path="mine")
    assert dict(zip(faces.source.tolist(), faces.split.tolist(), strict=True)) == {
        "mine/Training/happy/a/1.png": "train",
        "mine/val/sad/2.png": "validation",
        "mine/TEST/happy/3.png": "test",
    }


def test_a_tree_with_words_of_its_own(tmp_path):
    write_picture(tmp_path / "bored" / "1.png", face(1))
    write_picture(tmp_path / "happy" / "2.png", face(2))
    faces = datasets.load("folder", tmp_path, classes=("happiness", "bored"))
    assert faces.classes == ("happiness", "bored")
    assert dict(zip(faces.source.tolist(), faces.labels.tolist(), strict=True)) == {
        "bored/1.png": 1,
        "happy/2.png": 0,
    }
    only = datasets.load("folder", tmp_path, classes=("happiness",))
    assert only.source.tolist() == ["happy/2.png"]
    assert [r.file for r in only.rejected] == ["bored/1.png"]


def test_a_tree_in_color(tmp_path):
    rgb = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    write_picture(tmp_path / "happy" / "1.png", rgb)
    write_picture(tmp_path / "happy" / "2.png", FACES[0])
    faces = datasets.load("folder", tmp_path, color=True)
    np.testing.assert_array_equal(faces.images, [rgb.transpose(2, 0, 1), np.stack([FACES[0]] * 3)])


def test_another_size_is_decoded_anew(tmp_path):
    write_picture(tmp_path / "happy" / "1.png", FACES[0])
    halved = datasets.load("folder", tmp_path, image_size=24).images[0]
    means = FACES[0].reshape(24, 2, 24, 2).mean(axis=(1, 3))
    assert np.abs(halved - means).max() <= 1
    np.testing.assert_array_equal(datasets.load("folder", tmp_path).images[0], FACES[0])


# --- Muxspace

LEGEND = [
    "user.id,image,emotion",
    "628,Ada_Lovelace_0001.jpg,anger",
    "628,Ada_Lovelace_0002.jpg,HAPPINESS",
    "dwdii,George_W_Bush_0001.jpg,Happiness",
    "dwdii,web-2868588k.jpg,neutral",
]
LAST = "dwdii,George_W_Bush_0002.jpg,Sadness"
BAD_LEGEND = {
    "no such picture": (["1,Nobody_0001.jpg,anger"], ["no image 'Nobody_0001.jpg'"]),
    "outside of the folder": (["1,../data/legend.csv,anger"], ["no image '../data/legend.csv'"]),
    "absolute": (["1,/etc/passwd,anger"], ["no image '/etc/passwd'"]),
    "unknown word": (["1,Extra_0001.jpg,angerr"], ["unknown expression 'angerr'; did you mean 'anger'"]),
    "no word": (["1,Extra_0001.jpg,"], ["unknown expression ''"]),
    "two fields": (["1,Extra_0001.jpg"], ["2 fields instead of 3"]),
    "four fields": (["1,Extra_0001.jpg,anger,fear"], ["4 fields instead of 3"]),
    "eighth class": (["1,Extra_0001.jpg,Contempt"], ["'contempt' has too few faces"]),
    "two labels": (
        ["1,Extra_0001.jpg,anger", "2,Extra_0001.jpg,sadness"],
        ["'Extra_0001.jpg' is labelled both anger and sadness"] * 2,
    ),
    "said twice": (
        ["1,Ada_Lovelace_0001.jpg,Anger"],
        ["'Ada_Lovelace_0001.jpg' repeats an earlier row"],
    ),
    "no name": (["1,,anger"], ["no image ''"]),
    "an open quote": (['1,"Extra_0001.jpg,anger'], ["2 fields instead of 3"]),
    "an endless field": (["1,Extra_0001.jpg," + "x" * 200_000], ["1 fields instead of 3"]),
    "a NUL": (["1,Extra\0_0001.jpg,anger"], ["no image 'Extra\\x00_0001.jpg'"]),
}


def write_muxspace(root: Path, rows: list[str], top: str = "muxspace") -> Path:
    base = root / top
    (base / "data").mkdir(parents=True)
    (base / "data" / "legend.csv").write_text("\n".join([*LEGEND, *rows, LAST]) + "\n")
    for number, row in enumerate([*LEGEND[1:], LAST]):
        write_picture(base / "images" / row.split(",")[1], face(number))
    return root


def check_muxspace(faces: datasets.FaceSet) -> None:
    names = [faces.classes[label] for label in faces.labels]
    assert names == ["anger", "happiness", "happiness", "neutral", "sadness"]
    for number, pixels in enumerate(faces.images):
        np.testing.assert_array_equal(pixels, face(number))
    ada, again, bush, unknown, also_bush = faces.subject
    assert ada == again >= 0
    assert bush == also_bush not in (ada, -1)
    assert unknown == -1


@pytest.mark.parametrize("top", ["muxspace", "facial_expressions", "."])
def test_muxspace_in_its_places(tmp_path, top):
    faces = datasets.load("muxspace", write_muxspace(tmp_path, [], top))
    check_muxspace(faces)
    assert faces.classes == emotions.FER7
    assert not faces.rejected


@pytest.mark.parametrize("case", BAD_LEGEND)
def test_a_row_of_the_legend_that_does_not_fit_is_named(tmp_path, case):
    rows, reasons = BAD_LEGEND[case]
    write_muxspace(tmp_path, rows)
    if any("Extra" in row for row in rows):
        write_picture(tmp_path / "muxspace" / "images" / "Extra_0001.jpg", face(9))
    faces = datasets.load("muxspace", tmp_path)
    check_muxspace(faces)
    named = [r for r in faces.rejected if r.row]
    assert [r.row for r in named] == list(range(6, 6 + len(rows)))
    for rejection, reason in zip(named, reasons, strict=True):
        assert reason in rejection.reason
        assert rejection.remedy


def test_a_picture_without_a_row_is_named(tmp_path):
    write_muxspace(tmp_path, [])
    write_picture(tmp_path / "muxspace" / "images" / "Extra_0001.jpg")
    faces = datasets.load("muxspace", tmp_path)
    assert [str(r) for r in faces.rejected] == [
        "muxspace/images/Extra_0001.jpg: has no row in legend.csv; add a row to use it"
    ]
    assert len(faces) + len(faces.rejected) == 6


def test_contempt_stays_where_it_is_asked_for(tmp_path):
    write_muxspace(tmp_path, ["1,Extra_0001.jpg,Contempt"])
    write_picture(tmp_path / "muxspace" / "images" / "Extra_0001.jpg", face(9))
    faces = datasets.load("muxspace", tmp_path, contempt=True)
    assert faces.classes == (*emotions.FER7, "contempt")
    assert faces.classes[faces.labels[-2]] == "contempt"
    assert not faces.rejected


def test_a_webp_named_jpg_and_a_color_picture_are_read(tmp_path):
    write_muxspace(tmp_path, ["1,Extra_0001.jpg,fear"])
    rgb = RNG.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "WEBP", lossless=True)
    (tmp_path / "muxspace" / "images" / "Extra_0001.jpg").write_bytes(stream.getvalue())
    faces = datasets.load("muxspace", tmp_path)
    np.testing.assert_array_equal(faces.images[-2], np.asarray(Image.fromarray(rgb).convert("L")))


# --- FER+

VOTES_HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
VOTES = [  # the votes of the four good rows
    "Training,fer0000000.png,0,0,0,1,8,1,0,0,0,0",
    "Training,fer0000001.png,6,0,1,1,0,0,0,0,2,0",
    "PublicTest,fer0028638.png,0,9,0,0,0,0,0,0,0,0",
    "Training,fer0000002.png,1,0,0,0,2,7,0,0,0,0",
]


def write_ferplus(root: Path, rows: list[str] = ROWS, votes: list[str] = VOTES) -> Path:
    write_csv(root, [VOTES_HEADER, *votes], name="fer2013new.csv")
    return write_csv(root, [HEADER, *rows])


def test_votes_are_joined_row_for_row(tmp_path):
    faces = datasets.load("ferplus", write_ferplus(tmp_path))
    assert faces.classes == emotions.FERPLUS8
    assert [faces.classes[label] for label in faces.labels] == ["anger", "neutral", "happiness", "disgust"]
    assert faces.votes.tolist() == [[int(n) for n in row.split(",")[2:10]] for row in VOTES]
    np.testing.assert_allclose(faces.distribution.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(faces.distribution[1], np.array([6, 0, 1, 1, 0, 0, 0, 0]) / 8, rtol=1e-6)
    np.testing.assert_array_equal(faces.images, FACES)
    assert faces.split.tolist() == ["train", "train", "test", "train"]
    assert not faces.rejected


def always(reason: str) -> dict[str, str]:
    return dict.fromkeys(("majority", "drop", "distribution"), reason)


FOUR = "fear and contempt are tied"
BAD_VOTES = {  # row: what each rule says of it, None where it is kept
    "unanimous": ("x.png,0,0,0,10,0,0,0,0,0,0", {"majority": None, "drop": None, "distribution": None}),
    "half": (
        "x.png,0,5,0,3,2,0,0,0,0,0",
        {"majority": "5 of 10 votes are no majority", "drop": None, "distribution": None},
    ),
    "tie": (
        "x.png,0,0,0,0,1,1,4,4,0,0",
        {"majority": "4 of 10 votes are no majority", "drop": FOUR, "distribution": None},
    ),
    "as many do not know": (
        "x.png,0,0,0,4,1,1,0,0,4,0",
        {"majority": "4 of 10 votes are no majority", "drop": None, "distribution": None},
    ),
    "blank name": (
        ",0,0,0,10,0,0,0,0,0,0",
        always("no file name"),
    ),
    "nobody knows": (
        "x.png,2,2,0,0,0,0,0,0,6,0",
        always("most votes name no expression"),
    ),
    "no face": (
        "x.png,0,0,0,0,0,0,0,0,0,10",
        always("most votes name no expression"),
    ),
    "no votes": (
        "x.png,0,0,0,0,0,0,0,0,0,0",
        always("most votes name no expression"),
    ),
    "eleven": (
        "x.png,0,0,0,10,0,0,0,0,0,1",
        always("11 votes of 10 raters"),
    ),
    "negative": (
        "x.png,-1,0,0,10,0,0,0,0,0,1",
        always("'-1' is no number of votes"),
    ),
    "a word": (
        "x.png,0,0,0,ten,0,0,0,0,0,1",
        always("'ten' is no number of votes"),
    ),
    "a blank": (
        "x.png,0,0,0,10,,0,0,0,0,0",
        always("'' is no number of votes"),
    ),
    "a field missing": (
        "x.png,0,0,0,10,0,0,0,0,0",
        always("11 fields instead of 12"),
    ),
}


@pytest.mark.parametrize("rule", ["majority", "drop", "distribution"])
@pytest.mark.parametrize("case", BAD_VOTES)
def test_each_rule_keeps_or_names_a_row(tmp_path, case, rule):
    votes, said = BAD_VOTES[case]
    extra = f"4,{words(face(5))},Training"
    write_ferplus(tmp_path, [*ROWS, extra], [*VOTES, f"Training,{votes}"])
    faces = datasets.load("ferplus", tmp_path, rule=rule)
    np.testing.assert_array_equal(faces.images[:GOOD], FACES)
    assert len(faces) + len(faces.rejected) == 5
    if said[rule] is None:
        np.testing.assert_array_equal(faces.images[-1], face(5))
    else:
        (rejection,) = faces.rejected
        assert (rejection.file, rejection.row) == ("fer2013new.csv", 6)
        assert said[rule] in rejection.reason


def test_tied_votes_take_the_first_class_under_distribution(tmp_path):
    write_ferplus(tmp_path, ROWS[:1], ["Training,x.png,0,0,0,0,1,1,4,4,0,0"])
    faces = datasets.load("ferplus", tmp_path, rule="distribution")
    assert faces.classes[faces.labels[0]] == "fear"
    np.testing.assert_allclose(faces.distribution[0], np.array([0, 0, 0, 0, 1, 1, 4, 4]) / 10, rtol=1e-6)


def test_single_votes_can_be_taken_for_slips(tmp_path):
    write_ferplus(tmp_path, ROWS[:1], ["Training,x.png,5,0,0,1,1,0,2,1,0,0"])
    with pytest.raises(ValueError, match="5 of 10 votes are no majority"):
        datasets.load("ferplus", tmp_path)
    faces = datasets.load("ferplus", tmp_path, min_votes=2)
    assert faces.votes[0].tolist() == [5, 0, 0, 0, 0, 0, 2, 0]


def test_a_row_malformed_in_both_files_is_counted_once(tmp_path):
    rows, votes = [*ROWS, "9,1 2,Training"], [*VOTES, "Training,x.png,ten,0,0,0,0,0,0,0,0,0"]
    faces = datasets.load("ferplus", write_ferplus(tmp_path, rows, votes))
    assert len(faces) + len(faces.rejected) == 5
    rows = [ROWS[0], "9,1 2,Training", *ROWS[1:]]  # the join goes on by row
    votes = [VOTES[0], "Training,x.png,0,0,0,10,0,0,0,0,0,0", *VOTES[1:]]
    faces = datasets.load("ferplus", write_ferplus(tmp_path, rows, votes))
    np.testing.assert_array_equal(faces.images, FACES)
    assert [faces.classes[label] for label in faces.labels] == ["anger", "neutral", "happiness", "disgust"]


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has 4 rows, fer2013new\.csv 3; .*get both again"):
        datasets.load("ferplus", write_ferplus(tmp_path, votes=VOTES[:3]))
    with pytest.raises(ValueError, match=r"row 4 is 'PublicTest' in fer2013\.csv, 'Training' in fer2013new"):
        datasets.load("ferplus", write_ferplus(tmp_path, votes=[*VOTES[:2], VOTES[3], VOTES[2]]))
    with pytest.raises(ValueError, match=r"row 4 is blank in one of fer2013\.csv and fer2013new\.csv"):
        datasets.load("ferplus", write_ferplus(tmp_path, votes=[*VOTES[:2], "", *VOTES[2:3], "torn"]))


def test_votes_for_other_faces_are_noticed(tmp_path):
    emotion = RNG.integers(0, 7, 300)
    rows = [f"{e},{PIXELS},Training" for e in emotion]

    def votes(names: np.ndarray) -> list[str]:
        index = [emotions.FERPLUS8.index(emotions.FER7[e]) for e in names]
        return [f"Training,x.png,{','.join(map(str, np.eye(10, dtype=int)[i] * 10))}" for i in index]

    assert len(datasets.load("ferplus", write_ferplus(tmp_path, rows, votes(emotion)))) == 300
    with pytest.raises(ValueError, match=r"is for other faces: \d+% of the faces"):
        datasets.load("ferplus", write_ferplus(tmp_path, rows, votes(np.roll(emotion, 1))))


def test_an_unknown_rule_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="unknown rule='majorty'; did you mean 'majority'.; known: majority"):
        datasets.load("ferplus", write_ferplus(tmp_path), rule="majorty")


# --- small tables


@given(
    cells=st.lists(
        st.tuples(*[st.text(st.characters(exclude_characters="\r\n\ufeff", codec="utf-8"), max_size=8)] * 2),
        max_size=8,
    )
)
def test_a_table_gives_back_what_was_written(tmp_path_factory, cells):
    file = tmp_path_factory.mktemp("table") / "t.csv"
    with open(file, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL).writerows([("image", "emotion"), *cells])
    rows, rejected = tables.table(file, ("image", "emotion"))
    assert [(r["image"], r["emotion"]) for _, r in rows] == [(a.strip(), b.strip()) for a, b in cells]
    assert not rejected


# --- load


def test_drawn_faces_have_everything(drawn_faces):
    assert drawn_faces.classes == emotions.FER7
    assert drawn_faces.images.shape == (210, 48, 48)
    assert drawn_faces.images.dtype == np.uint8
    np.testing.assert_allclose(drawn_faces.distribution.sum(axis=1), 1, rtol=1e-5)
    assert drawn_faces.landmarks.shape == (210, 68, 2)
    assert drawn_faces.action_units.shape == (210, 17)
    assert np.abs(drawn_faces.valence_arousal).max() <= 1
    assert (drawn_faces.votes.sum(axis=1) == 10).all()
    assert len(set(drawn_faces.subject.tolist())) > 1


@pytest.mark.parametrize("name", ["fer2013", "ferplus", "muxspace"])
def test_a_missing_set_says_where_it_looked_and_how_to_get_it(tmp_path, root, name):
    with pytest.raises(FileNotFoundError, match=r"looked for .*data/README\.md") as caught:
        datasets.load(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert f"\n## `{name}`" in (root / "data" / "README.md").read_text(encoding="utf-8")


def test_not_found_lists_what_lies_there(tmp_path):
    for name in ("fer2013.tar.gz", "notes.txt", ".hidden", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "face").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load("fer2013", tmp_path)
    text = str(caught.value)
    assert "it holds face/, fer2013.tar.gz, notes.txt; unpack fer2013.tar.gz first" in text
    assert "\n" not in text
    with pytest.raises(FileNotFoundError, match="looked for nowhere.*it holds face/"):
        datasets.load("folder", tmp_path, path="nowhere")
    with pytest.raises(FileNotFoundError, match=r"looked for fer2013\.csv.*that folder does not exist"):
        datasets.load("fer2013", tmp_path / "not" / "there")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda root: datasets.load("fer2103", root), "unknown data set 'fer2103'; did you mean 'fer2013'"),
        (lambda root: datasets.load("zzz", root), "unknown data set 'zzz'; known: synthetic, fer2013"),
        (lambda root: datasets.load(num_face=3, root=root), "no option 'num_face'; did you mean 'num_faces'"),
        (lambda root: datasets.load("muxspace", root, x=3), "no option 'x'; known: contempt, color"),
        (lambda root: datasets.load(root=root, image_size=4), "image_size must be .* 8 to 1024, not 4"),
        (lambda root: datasets.load(root=root, image_size=48.0), "image_size must be .* not 48.0"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


# --- layouts and files as people have them


def test_kaggles_train_csv_is_training_and_another_sets_is_left_alone(tmp_path):
    rows = [row.rsplit(",", 1)[0] for row in ROWS]
    faces = datasets.load("fer2013", write_csv(tmp_path / "a", ["emotion,pixels", *rows], name="train.csv"))
    assert set(faces.split.tolist()) == {"train"}
    assert len(faces) == GOOD
    with pytest.raises(FileNotFoundError, match=r"it holds train\.csv"):
        datasets.load("fer2013", write_csv(tmp_path / "b", ["id,label", "1,2"], name="train.csv"))


@pytest.mark.parametrize("private", [True, False])
def test_folders_named_after_the_usage(tmp_path, private):
    parts = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test", "Odd": None}
    for part in parts if private else ("Training", "Public Test"):
        write_picture(tmp_path / "fer2013" / part / "0_angry" / "1.png")
        write_picture(tmp_path / "fer2013" / part / "happy" / "2.png")
    faces = datasets.load("fer2013", tmp_path, layout="folders")
    found = {source.split("/")[1]: split for source, split in zip(faces.source, faces.split, strict=True)}
    expected = {part: split for part, split in parts.items() if split}
    assert found == (expected if private else {"Training": "train", "Public Test": "test"})
    assert {rejection.file.split("/")[1] for rejection in faces.rejected} == ({"Odd"} if private else set())


def test_links_are_followed_but_not_in_circles_and_none_is_lost(tmp_path):
    for word in ("happy", "sad"):
        write_picture(tmp_path / "store" / word / "1.png")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "happy").symlink_to(tmp_path / "store" / "happy")
    write_picture(mine / "sad" / "2.png")
    (mine / "sad" / "again").symlink_to(mine)
    (mine / "sad" / "3.png").symlink_to(tmp_path / "nothing.png")
    faces = datasets.load("folder", tmp_path, path="mine")
    assert sorted(faces.source.tolist()) == ["mine/happy/1.png", "mine/sad/2.png"]
    assert [str(r) for r in faces.rejected] == ["mine/sad/3.png: no such file; check its name"]


def test_what_desktops_and_network_drives_leave_is_no_face(tmp_path):
    write_picture(tmp_path / "happy" / "1.png")
    for name in ("@eaDir/1.png", "happy/@eaDir/1.png", ".@__thumb/1.png", "happy/._1.png", "__MACOSX/1.png"):
        write_picture(tmp_path / name)
    faces = datasets.load("folder", tmp_path)
    assert faces.source.tolist() == ["happy/1.png"]
    assert not faces.rejected


@pytest.mark.skipif(os.name == "nt", reason="its names are Unicode")
def test_names_that_are_no_utf8_are_read_and_shown(tmp_path):
    folder = os.fsencode(tmp_path / "happy")
    os.mkdir(folder)
    for name in (b"caf\xe9.png", b"bad\xff.png"):
        with open(folder + b"/" + name, "wb") as file:
            file.write(b"x" if name[0] == ord("b") else saved(FACES[0]))
    for _ in range(2):  # the second time from the cache
        faces = datasets.load("folder", tmp_path)
        assert faces.source.tolist() == ["happy/caf\\xe9.png"]
        assert str(faces.rejected[0]).startswith("happy/bad\\xff.png: no image")
        str(faces.rejected[0]).encode()


def test_kdefs_names_tell_expression_and_person(tmp_path):
    codes = {
        "AF": "fear",
        "AN": "anger",
        "DI": "disgust",
        "HA": "happiness",
        "NE": "neutral",
        "SU": "surprise",
    }
    for number, code in enumerate(codes):
        write_picture(tmp_path / "KDEF" / "AF01" / f"AF0{1 + number % 2}{code}S.JPG", face(number))
    faces = datasets.load("folder", tmp_path, path="KDEF")
    assert [faces.classes[label] for label in faces.labels] == [
        codes[s[-7:-5]] for s in faces.source.tolist()
    ]
    assert sorted(np.bincount(faces.subject).tolist()) == [3, 3]


@pytest.mark.parametrize("top", ["", "RAF-DB", "RAF-DB/basic", "basic"])
def test_rafdb_as_its_owners_give_it(tmp_path, top):
    lines = [
        "train_00001.jpg 4",
        "train_00002.jpg 1",
        "test_0001.jpg 7",
        "test_0002.jpg 9",
        "test_0003.jpg 2",
        "",
    ]
    for number, line in enumerate(lines[:4]):
        write_picture(tmp_path / top / "Image" / "aligned" / f"{line[:-6]}_aligned.jpg", face(number))
    write_picture(tmp_path / top / "Image" / "aligned" / "extra_aligned.jpg")
    write_csv(tmp_path / top, lines, name="EmoLabel/list_patition_label.txt")
    faces = datasets.load("rafdb", tmp_path)
    assert [faces.classes[label] for label in faces.labels] == ["happiness", "surprise", "neutral"]
    assert faces.split.tolist() == ["train", "train", "test"]
    for number, pixels in enumerate(faces.images):
        np.testing.assert_array_equal(pixels, face(number))
    assert [r.row for r in faces.rejected] == [4, 5, 0, 0]


def test_reading_a_set_takes_a_block_of_it_not_all(tmp_path):
    """2,000 images of 287 MB took 582 MB when they were decoded side by side in memory."""
    pixels = RNG.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    write_picture(tmp_path / "happy" / "0.png", pixels)
    for number in range(1, 500):
        os.link(tmp_path / "happy" / "0.png", tmp_path / "happy" / f"{number}.png")
    tracemalloc.start()
    faces = datasets.load("folder", tmp_path, image_size=224, color=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert faces.images.nbytes == 500 * 3 * 224**2
    assert peak < 0.9 * faces.images.nbytes
    np.testing.assert_array_equal(faces.images[499], pixels.transpose(2, 0, 1))


def test_the_layout_that_the_page_on_data_shows_works(tmp_path, root, monkeypatch):
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(\"\"\"JAFFE.*?)```", text, flags=re.DOTALL)
    (tmp_path / "jaffe_layout.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(datasets.LAYOUTS, "jaffe", importlib.import_module("jaffe_layout"))
    for number, name in enumerate(("KA.AN1.39", "KA.HA1.29", "KL.NE2.3")):
        write_picture(tmp_path / "jaffe" / f"{name}.tiff", face(number), "TIFF")
    (tmp_path / "jaffe" / "KL.SU1.9.tiff").write_bytes(b"")
    faces = datasets.load("jaffe", tmp_path)
    assert [faces.classes[label] for label in faces.labels] == ["anger", "happiness", "neutral"]
    assert faces.subject.tolist() == [0, 0, 1]
    assert [r.file for r in faces.rejected] == ["jaffe/KL.SU1.9.tiff"]


# --- what is written in a real layout comes back as it was


def names(faces: datasets.FaceSet) -> list[str]:
    return [faces.classes[label] for label in faces.labels]


def test_what_is_written_comes_back(drawn_faces, tmp_path):
    some = drawn_faces.select(np.arange(60))
    layouts.write_ferplus(some, tmp_path)
    layouts.write_muxspace(some, tmp_path)
    layouts.write_affectnet(some, tmp_path)
    csv_, votes = datasets.load("fer2013", tmp_path), datasets.load("ferplus", tmp_path, rule="distribution")
    np.testing.assert_array_equal(csv_.images, some.images)
    assert names(csv_) == names(some)
    shares = some.votes / some.votes.sum(1, keepdims=True)
    columns = [votes.classes.index(name) for name in some.classes]
    np.testing.assert_allclose(votes.distribution[:, columns], shares, atol=1e-6)
    people = datasets.load("muxspace", tmp_path)
    assert sorted(names(people)) == sorted(names(some))
    assert len(np.unique(people.subject)) == len(np.unique(some.subject))
    web = datasets.load("affectnet", tmp_path)
    order = np.argsort([int(source.rsplit("/", 1)[1].split(".")[0]) for source in web.source])
    assert [names(web)[i] for i in order] == names(some)
    np.testing.assert_allclose(web.valence_arousal[order], some.valence_arousal, atol=1e-5)
    np.testing.assert_allclose(web.landmarks[order], some.landmarks, atol=0.6)
    assert not any(each.rejected for each in (csv_, votes, people, web))


def test_what_a_layout_cannot_hold_is_refused_before_anything_is_written(drawn_faces, tmp_path):
    some = drawn_faces.select(np.arange(60))
    with pytest.raises(
        ValueError, match="fer2013 cannot be written from 'synthetic': it needs grey images of 48"
    ):
        layouts.write_fer2013(replace(some, images=some.images[:, :40]), tmp_path)
    with pytest.raises(ValueError, match="this layout cannot be written from 'synthetic': it needs votes"):
        layouts.write_ferplus(replace(some, votes=None), tmp_path)
    with pytest.raises(ValueError, match="affectnet_fused: distribution must be"):
        layouts.write_affectnet_fused(some, np.zeros((60, 8)), tmp_path)
    assert not list(tmp_path.iterdir())
