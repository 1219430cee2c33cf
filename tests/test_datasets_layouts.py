"""Every layout from files on disk to a face set: what is good loads, what is not is named."""

from __future__ import annotations

import importlib
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mutants import put, saved

from helpers import datasets, emotions
from helpers.datasets import fer2013, layouts, reading

RNG = np.random.default_rng(0)
GOOD = 4


def words(pixels) -> str:
    return " ".join(map(str, np.ravel(pixels).tolist()))


FACES = RNG.integers(0, 256, (GOOD, 48, 48), dtype=np.uint8)
PIXELS = words(FACES[0])
HEADER = "emotion,pixels,Usage"
USES = ("Training", "Training", "PublicTest", "Training")
ROWS = [f"{i},{words(face)},{use}" for i, face, use in zip((0, 6, 3, 1), FACES, USES, strict=True)]


def write_csv(root: Path, lines: list[str], end: str = "\n", name: str = "fer2013.csv") -> Path:
    put(root / name, end.join([*lines, ""]).encode("utf-8", "surrogateescape"))
    return root


def face(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), dtype=np.uint8)


def write_image(file: Path, seed: int = 0) -> None:
    put(file, saved(face(seed)))


def names(faces: datasets.FaceSet) -> list[str]:
    return [faces.classes[label] for label in faces.labels]


def check_fer2013(faces: datasets.FaceSet) -> None:
    np.testing.assert_array_equal(faces.images, FACES)
    assert not faces.rejected
    assert names(faces) == ["anger", "neutral", "happiness", "disgust"]
    assert faces.split.tolist() == ["train", "train", "test", "train"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("place", ["icml_face_data.csv", "fer2013.csv/fer2013.csv", "any-master/fer2013.csv"])
def test_csv_in_its_places_and_either_line_ending(tmp_path, place, end):
    faces = datasets.load("fer2013", write_csv(tmp_path, [HEADER, *ROWS], end, place))
    check_fer2013(faces)
    assert faces.source.tolist() == [f"{Path(place).name}:{row}" for row in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (" emotion, Usage, pixels", "{0},{2},{1}"),
        ("\ufeffEmotion,Pixels,USAGE", "{0},{1},{2}"),
        ('"emotion","pixels","Usage"', '"{0}","{1}","{2}"'),
        (HEADER, " {0} ,  {1}  , {2} "),
        ("id,emotion,pixels,Usage", "17,{0},{1},{2}"),
        (HEADER.replace(",", ";"), "{0};{1};{2}"),
        (HEADER.replace(",", "\t"), "{0}\t{1}\t{2}"),
        (HEADER, "{0}.0,{1},{2}"),
    ],
)
def test_csv_written_otherwise(tmp_path, header, row):
    rows = [row.format(*each.split(",")) for each in ROWS]
    check_fer2013(datasets.load("fer2013", write_csv(tmp_path, [header, *rows, ""])))


def test_kaggles_train_csv_is_training_and_another_sets_is_left_alone(tmp_path):
    rows = [row.rsplit(",", 1)[0] for row in ROWS]
    faces = datasets.load("fer2013", write_csv(tmp_path / "a", ["emotion,pixels", *rows], name="train.csv"))
    assert faces.split.tolist() == ["train"] * GOOD
    with pytest.raises(FileNotFoundError, match=r"it holds train\.csv"):
        datasets.load("fer2013", write_csv(tmp_path / "b", ["id,label", "1,2"], name="train.csv"))
    rows = [*ROWS[:3], ROWS[3].replace("Training", "PrivateTest")]
    faces = datasets.load("fer2013", write_csv(tmp_path / "c", [HEADER, *rows]))
    assert faces.split.tolist() == ["train", "train", "validation", "test"]


def with_pixel(word: str, place: int = 9) -> str:
    pixels = PIXELS.split(" ")
    pixels[place] = word
    return f"2,{' '.join(pixels)},Training"


BAD_ROWS = {
    "2,7,Training": "1 pixels instead of 2304",
    f"2,{PIXELS.rsplit(' ', 1)[0]},Training": "2303 pixels instead of 2304",
    f"2,{PIXELS} 7,Training": "2305 pixels instead of 2304",
    with_pixel("256"): "pixel '256' is no whole number from 0 to 255",
    with_pixel("65791"): "pixel '65791' is no",
    with_pixel("0044", 0): "pixel '0044' is no",
    with_pixel("-1"): "pixel '-1' is no",
    with_pixel("7.5", -1): "pixel '7.5' is no",
    with_pixel("nan"): "pixel 'nan' is no",
    with_pixel("٧"): "pixel '٧' is no",
    with_pixel("\udcff"): "pixel '\ufffd' is no",
    f"2,{PIXELS.replace(' ', chr(9))},Training": "is no whole number",
    f"2,[{PIXELS}],Training": "is no whole number",
    f"7,{PIXELS},Training": "emotion '7' is not one of 0 to 6",
    f"3.5,{PIXELS},Training": "emotion '3.5' is not one of 0 to 6",
    f",{PIXELS},Training": "emotion '' is not one of 0 to 6",
    f"2,{PIXELS},Trainig": "Usage 'Trainig' is not known; did you mean 'Training'",
    f"2,{PIXELS}": "2 fields instead of 3",
    f"2,{PIXELS.replace(' ', ',')},Training": "2306 fields instead of 3",
    HEADER: "emotion 'emotion' is not one of 0 to 6",
}


def test_malformed_rows_are_named_and_the_others_load(tmp_path):
    lines = [HEADER]
    for bad in BAD_ROWS:
        lines += [*ROWS, bad]
    write_csv(tmp_path, lines)
    with open(tmp_path / "fer2013.csv", "a") as file:
        file.write(f"2,{PIXELS[:3000]}")  # a last row that was cut
    faces = datasets.load("fer2013", tmp_path)
    np.testing.assert_array_equal(faces.images, np.concatenate([FACES] * len(BAD_ROWS)))
    expected = [*enumerate(BAD_ROWS.values(), start=1), (len(BAD_ROWS) + 0.2, "2 fields instead of 3")]
    for (number, reason), rejection in zip(expected, faces.rejected, strict=True):
        assert (rejection.file, rejection.row) == ("fer2013.csv", round(5 * number + 1))
        assert reason in rejection.reason
        assert rejection.remedy
        assert "\n" not in str(rejection)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1\n", r"fer2013\.csv: is a git-lfs pointer.*git lfs pull"),
        ("<!DOCTYPE html>\n<html></html>\n", r"fer2013\.csv: is a web page.*log in"),
        ("", r"fer2013\.csv: is empty; download it again"),
        ("PK\x03\x04" + "x" * 50, r"fer2013\.csv: is an archive; unpack it first"),
        ("\ufeffemotion", "is in UTF-16; save it in UTF-8"),
        ("\n".join(ROWS), r"first row has no column 'emotion'"),
        ("emotion,pixls,Usage\n", r"no column 'pixels'; nearest is .pixls.; needs emotion, pixels"),
        (HEADER + "\n", r"none of 0 rows or images can be used"),
        (HEADER + "\n9,1 2 3,Training\n", r"none of 1 .*fer2013\.csv, row 2: emotion '9'"),
    ],
)
def test_a_file_that_is_no_such_csv_is_recognised(tmp_path, text, message):
    put(tmp_path / "fer2013.csv", text.encode("utf-16-le" if text == "\ufeffemotion" else "utf-8"))
    with pytest.raises(ValueError, match=message) as caught:
        datasets.load("fer2013", tmp_path)
    assert "\n" not in str(caught.value)


def strictly(text: bytes) -> np.ndarray | None:
    """What a row of pixels says, number by number; None where it says nothing valid."""
    numbers = [n for n in text.strip(b" ").split(b" ") if n]
    if len(numbers) != 2304 or not all(re.fullmatch(rb"[0-9]{1,3}", n) and int(n) < 256 for n in numbers):
        return None
    return np.array([int(n) for n in numbers])


CHANGE = st.tuples(
    st.integers(0, 19), st.integers(0, 9000), st.sampled_from([b"", b" ", b"0", b"7", b"-", b" 3 ", b"\t"])
)


@given(seed=st.integers(0, 2**32 - 1), changes=st.lists(CHANGE, max_size=6))
def test_rows_parsed_at_once_are_those_python_parses_one_by_one(seed, changes, tmp_path_factory):
    rng = np.random.default_rng(seed)
    texts = [words(row).encode() for row in rng.integers(0, 256, (20, 2304))]  # more than a block holds
    for row, place, new in changes:
        text, place = texts[row], place % len(texts[row])
        texts[row] = text[:place] + new + text[place + 1 :]
    path = tmp_path_factory.mktemp("rows") / "fer2013.csv"
    put(path, HEADER.encode() + b"\n" + b"\n".join(b"3," + text + b",Training" for text in texts))
    expected = {number: strictly(text) for number, text in enumerate(texts, start=2)}
    table, rejected = fer2013.read_csv(path, pixels := reading.Pixels(48))
    assert [each.row for each in rejected] == [n for n, row in expected.items() if row is None]
    assert table["row"].tolist() == [n for n, row in expected.items() if row is not None]
    for number, image in zip(table["row"], pixels.close(), strict=True):
        np.testing.assert_array_equal(image.ravel(), expected[number])


def test_folders_and_csv_agree_whatever_the_order_of_folders(tmp_path):
    places = ("train/angry", "train/Neutral", "Test/HAPPY", "train/disgust")
    for pixels, place in zip(FACES, places, strict=True):
        put(tmp_path / "fer2013" / place / "1.png", saved(pixels))
    write_image(tmp_path / "muxspace" / "images" / "3.png")  # nothing beside it is read
    faces = datasets.load("fer2013", tmp_path)
    order = [faces.source.tolist().index(f"fer2013/{place}/1.png") for place in places]
    check_fer2013(faces.select(order))
    assert (len(faces), faces.classes) == (GOOD, emotions.FER7)
    write_csv(tmp_path, [HEADER, *ROWS[:2]])  # goes before the folders unless asked
    assert len(datasets.load("fer2013", tmp_path)) == 2
    assert len(datasets.load("fer2013", tmp_path, layout="folders")) == GOOD


USAGES = ("Training", "PublicTest", "PrivateTest", "Odd")


@pytest.mark.parametrize("parts", [USAGES, ("Training", "Public Test")])
def test_folders_named_after_the_usage_also_at_the_root(tmp_path, parts):
    top = tmp_path / "fer2013" if len(parts) == 4 else tmp_path
    for part in parts:
        write_image(top / part / "0_angry" / "1.png")
    faces = datasets.load("fer2013", tmp_path, layout="folders")
    expected = ["train", "validation", "test"] if len(parts) == 4 else ["train", "test"]
    assert sorted(faces.split.tolist()) == sorted(expected)
    assert len(faces) + len(faces.rejected) == len(parts)


BAD_IMAGES = {
    "happy/empty.png": (b"", "is empty"),
    "happy/notes.txt": (b"taken on Monday, with the good lamp", "no image of a known format"),
    "happpy/typo.png": (b"x", "unknown expression 'happpy'; did you mean 'happy'"),
    "3/number.png": (b"x", "unknown expression '3'"),
    "loose.png": (b"x", "lies in no class folder"),
}


def test_a_tree_loads_what_is_good_and_names_the_rest(tmp_path):
    for number, name in enumerate(("Happy", "SADNESS", "neutral", "afraid")):
        write_image(tmp_path / name / f"{number}.png", number)
    for place, (data, _) in BAD_IMAGES.items():
        put(tmp_path / place, data)
    for name in (".DS_Store", "Happy/Thumbs.db", "Happy/._1.png", "@eaDir/1.png", "__MACOSX/1.png"):
        put(tmp_path / name, b"x")
    faces = datasets.load("folder", tmp_path)
    assert faces.classes == ("fear", "happiness", "sadness", "neutral")
    assert sorted(faces.source.tolist()) == ["Happy/0.png", "SADNESS/1.png", "afraid/3.png", "neutral/2.png"]
    for pixels, label, source in zip(faces.images, faces.labels, faces.source, strict=True):
        np.testing.assert_array_equal(pixels, face(int(source[-5])))
        assert faces.classes[label] == ("happiness", "sadness", "neutral", "fear")[int(source[-5])]
    assert {r.file for r in faces.rejected} == set(BAD_IMAGES)
    assert all(BAD_IMAGES[each.file][1] in each.reason and each.remedy for each in faces.rejected)
    assert set(faces.split.tolist()) == {""}


def test_a_tree_with_splits_words_and_sizes_of_its_own(tmp_path):
    for number, place in enumerate(("Training/happy/a/1.png", "val/bored/2.png", "TEST/happy/3.png")):
        write_image(tmp_path / "mine" / place, number)
    faces = datasets.load("folder", tmp_path, 24, path="mine", classes=("happiness", "bored"), color=True)
    order = np.argsort([source[-5] for source in faces.source])
    assert faces.split[order].tolist() == ["train", "validation", "test"]
    assert (faces.classes, faces.labels[order].tolist()) == (("happiness", "bored"), [0, 1, 0])
    means = face(0).reshape(24, 2, 24, 2).mean(axis=(1, 3))
    assert np.abs(faces.images[order[0]] - means).max() <= 1
    only = datasets.load("folder", tmp_path, path="mine", classes=("happiness",))
    assert [r.file for r in only.rejected] == ["mine/val/bored/2.png"]


def test_links_are_followed_but_not_in_circles_and_none_is_lost(tmp_path):
    write_image(tmp_path / "store" / "happy" / "1.png")
    write_image(tmp_path / "mine" / "sad" / "2.png")
    (tmp_path / "mine" / "happy").symlink_to(tmp_path / "store" / "happy")
    (tmp_path / "store" / "happy" / "back").symlink_to(tmp_path / "mine" / "sad")
    (tmp_path / "mine" / "sad" / "again").symlink_to(tmp_path / "store" / "happy")
    (tmp_path / "mine" / "sad" / "3.png").symlink_to(tmp_path / "nothing.png")
    faces = datasets.load("folder", tmp_path, path="mine")
    assert {source[-5] for source in faces.source.tolist()} == {"1", "2"}
    assert {str(r).split(": ")[1] for r in faces.rejected} == {"no such file; check its name"}


@pytest.mark.skipif(os.name == "nt", reason="its names are Unicode")
def test_names_that_are_no_utf8_are_read_and_shown(tmp_path):
    folder = os.fsencode(tmp_path / "happy")
    os.mkdir(folder)
    for name, data in ((b"caf\xe9.png", saved(FACES[0])), (b"bad\xff.png", b"x")):
        put(Path(os.fsdecode(folder + b"/" + name)), data)
    for _ in range(2):  # the second time from the cache
        faces = datasets.load("folder", tmp_path)
        assert faces.source.tolist() == ["happy/caf\\xe9.png"]
        assert str(faces.rejected[0]).startswith("happy/bad\\xff.png: no image")


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
        write_image(tmp_path / "KDEF" / "AF01" / f"AF0{1 + number % 2}{code}S.JPG", number)
    faces = datasets.load("folder", tmp_path, path="KDEF")
    assert names(faces) == [codes[s[-7:-5]] for s in faces.source.tolist()]
    assert sorted(np.bincount(faces.subject).tolist()) == [3, 3]


def test_reading_a_set_takes_a_block_of_it_not_all(tmp_path):
    """2,000 images of 287 MB took 582 MB when they were decoded side by side in memory."""
    pixels = RNG.integers(0, 256, (224, 224, 3), dtype=np.uint8)
    put(tmp_path / "happy" / "0.png", saved(pixels))
    for number in range(1, 400):
        os.link(tmp_path / "happy" / "0.png", tmp_path / "happy" / f"{number}.png")
    tracemalloc.start()
    faces = datasets.load("folder", tmp_path, image_size=224, color=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.9 * faces.images.nbytes
    np.testing.assert_array_equal(faces.images[399], pixels.transpose(2, 0, 1))


LEGEND = ["user.id,image,emotion", "628,Ada_Lovelace_0001.jpg,anger", "628,Ada_Lovelace_0002.jpg,HAPPINESS"]
LEGEND += ["dwdii,George_W_Bush_0001.jpg,Happiness", "dwdii,web-2868588k.jpg,neutral"]
LEGEND += ["dwdii,George_W_Bush_0002.jpg,Sadness"]
BAD_LEGEND = {
    "1,Nobody_0001.jpg,anger": "no image 'Nobody_0001.jpg'",
    "1,../data/legend.csv,anger": "no image '../data/legend.csv'",
    "1,Extra_0001.jpg,angerr": "unknown expression 'angerr'; did you mean 'anger'",
    "1,Extra_0002.jpg": "2 fields instead of 3",
    "1,Extra_0003.jpg,Contempt": "'contempt' has too few faces",
    "1,Extra_0004.jpg,anger": "'Extra_0004.jpg' is labelled both anger and sadness",
    "2,Extra_0004.jpg,sadness": "'Extra_0004.jpg' is labelled both anger and sadness",
    "2,Ada_Lovelace_0001.jpg,Anger": "'Ada_Lovelace_0001.jpg' repeats an earlier row",
    '1,"Extra_0001.jpg,anger': "2 fields instead of 3",
    "1,Extra_0005.jpg," + "x" * 200_000: "1 fields instead of 3",
    "1,Extra\0_0001.jpg,anger": "no image 'Extra\\x00_0001.jpg'",
}


@pytest.mark.parametrize("top", ["facial_expressions-master", "."])
def test_muxspace_names_each_row_and_image_that_does_not_fit(tmp_path, top):
    write_csv(tmp_path / top, [*LEGEND, *BAD_LEGEND], name="data/legend.csv")
    for number, row in enumerate(LEGEND[1:]):
        write_image(tmp_path / top / "images" / row.split(",")[1], number)
    for number in (1, 3, 4, 9):
        write_image(tmp_path / top / "images" / f"Extra_000{number}.jpg")
    faces = datasets.load("muxspace", tmp_path)
    assert names(faces) == ["anger", "happiness", "happiness", "neutral", "sadness"]
    assert faces.classes == emotions.FER7
    np.testing.assert_array_equal(faces.images, [face(number) for number in range(5)])
    assert faces.subject.tolist() == [0, 0, 1, -1, 1]
    found = sorted((each.row, each.reason) for each in faces.rejected if each.row)
    for (row, reason), (number, expected) in zip(found, enumerate(BAD_LEGEND.values(), start=7), strict=True):
        assert row == number
        assert expected in reason
    assert [each.reason for each in faces.rejected if not each.row] == ["has no row in legend.csv"]
    more = datasets.load("muxspace", tmp_path, contempt=True)
    assert names(more)[-1] == "contempt"
    assert len(more) + len(more.rejected) == len(faces) + len(faces.rejected)


@pytest.mark.parametrize("top", ["", "RAF-DB/basic"])
def test_rafdb_as_its_owners_give_it(tmp_path, top):
    lines = ["train_00001.jpg 4", "train_00002.jpg 1", "test_0001.jpg 7", "test_0002.jpg 9", "test_3.jpg 2"]
    for number, line in enumerate(lines[:4]):
        write_image(tmp_path / top / "Image" / "aligned" / f"{line[:-6]}_aligned.jpg", number)
    write_image(tmp_path / top / "Image" / "aligned" / "extra_aligned.jpg")
    write_csv(tmp_path / top, lines, name="EmoLabel/list_patition_label.txt")
    faces = datasets.load("rafdb", tmp_path)
    assert names(faces) == ["happiness", "surprise", "neutral"]
    assert faces.split.tolist() == ["train", "train", "test"]
    np.testing.assert_array_equal(faces.images, [face(number) for number in range(3)])
    assert [r.row for r in faces.rejected] == [4, 5, 0, 0]


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


HALF, TIE = "5 of 10 votes are no majority", "4 of 10 votes are no majority"
BAD_VOTES = {  # row: what the rules "majority", "drop" and "distribution" say of it, None where it is kept
    "x.png,0,0,0,10,0,0,0,0,0,0": (None, None, None),
    "x.png,0,5,0,3,2,0,0,0,0,0": (HALF, None, None),
    "x.png,0,0,0,0,1,1,4,4,0,0": (TIE, "fear and contempt are tied", None),
    "x.png,0,0,0,4,1,1,0,0,4,0": (TIE, None, None),
    ",0,0,0,10,0,0,0,0,0,0": ("no file name",) * 3,
    "x.png,2,2,0,0,0,0,0,0,6,0": ("most votes name no expression",) * 3,
    "x.png,0,0,0,0,0,0,0,0,0,0": ("most votes name no expression",) * 3,
    "x.png,0,0,0,10,0,0,0,0,0,1": ("11 votes of 10 raters",) * 3,
    "x.png,-1,0,0,10,0,0,0,0,0,1": ("'-1' is no number of votes",) * 3,
    "x.png,0,0,0,10,,0,0,0,0,0": ("'' is no number of votes",) * 3,
    "x.png,0,0,0,10,0,0,0,0,0": ("11 fields instead of 12",) * 3,
}


@pytest.mark.parametrize("rule", [0, 1, 2])
def test_votes_are_joined_row_for_row_and_each_rule_keeps_or_names_a_row(tmp_path, rule):
    extra = [f"4,{words(face(n))},Training" for n in range(len(BAD_VOTES))]
    write_ferplus(tmp_path, [*ROWS, *extra], [*VOTES, *(f"Training,{votes}" for votes in BAD_VOTES)])
    faces = datasets.load("ferplus", tmp_path, rule=("majority", "drop", "distribution")[rule])
    assert faces.classes == emotions.FERPLUS8
    check_fer2013(faces.select(slice(0, GOOD)))
    assert faces.votes[:GOOD].tolist() == [[int(n) for n in row.split(",")[2:10]] for row in VOTES]
    np.testing.assert_allclose(faces.distribution[1], np.array([6, 0, 1, 1, 0, 0, 0, 0]) / 8, rtol=1e-6)
    said = [each[rule] for each in BAD_VOTES.values()]
    kept = [face(n) for n, reason in enumerate(said) if reason is None]
    np.testing.assert_array_equal(faces.images[GOOD:], kept)
    expected = [(n + 6, reason) for n, reason in enumerate(said) if reason]
    found = sorted((each.row, each.reason) for each in faces.rejected)
    assert all(a == b and reason in text for (a, text), (b, reason) in zip(found, expected, strict=True))
    if rule == 2:  # of tied classes, the first
        assert names(faces)[GOOD + 2] == "fear"


def test_single_votes_can_be_taken_for_slips_and_two_malformed_files_count_once(tmp_path):
    votes = ["Training,x.png,5,0,0,1,1,0,2,1,0,0", "Training,x.png,ten,0,0,0,0,0,0,0,0,0"]
    write_ferplus(tmp_path, [ROWS[0], "9,1 2,Training"], votes)
    with pytest.raises(ValueError, match="none of 2 rows"):
        datasets.load("ferplus", tmp_path, rule="majority")
    faces = datasets.load("ferplus", tmp_path, min_votes=2)
    assert faces.votes.tolist() == [[5, 0, 0, 0, 0, 0, 2, 0]]
    assert len(faces) + len(faces.rejected) == 2


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    together = "both must be of one release"
    with pytest.raises(ValueError, match=rf"row 5 is in one of fer2013\.csv and .* alone; {together}"):
        datasets.load("ferplus", write_ferplus(tmp_path, votes=VOTES[:3]))
    with pytest.raises(ValueError, match=rf"row 4 has another Usage in fer2013\.csv than in .*; {together}"):
        datasets.load("ferplus", write_ferplus(tmp_path, votes=[*VOTES[:2], VOTES[3], VOTES[2]]))
    with pytest.raises(ValueError, match=rf"row 4 is in one of .*; {together}"):
        datasets.load("ferplus", write_ferplus(tmp_path, votes=[*VOTES[:2], "", *VOTES[2:3], "torn"]))
    index = RNG.integers(0, 7, 300)
    votes = [f"Training,x.png,{words(np.eye(10, dtype=int)[i] * 10).replace(' ', ',')}" for i in index]
    for shift in (0, 1):
        codes = [emotions.FER7.index(emotions.FERPLUS8[i]) for i in np.roll(index, shift)]
        write_ferplus(tmp_path, [f"{code},{PIXELS},Training" for code in codes], votes)
        if shift == 0:
            assert len(datasets.load("ferplus", tmp_path)) == 300
        else:
            with pytest.raises(ValueError, match=rf"is for other faces: \d+% have one label.*; {together}"):
                datasets.load("ferplus", tmp_path)


@pytest.mark.parametrize("name", [name for name in datasets.LAYOUTS if name not in ("synthetic", "folder")])
def test_a_missing_set_says_where_it_looked_what_lies_there_and_how_to_get_it(tmp_path, root, name):
    for entry in ("fer2013.tar.gz", "notes.txt", ".hidden", "Thumbs.db", "face/x"):
        put(tmp_path / entry, b"x")
    with pytest.raises(FileNotFoundError, match=r"looked for .*data/README\.md") as caught:
        datasets.load(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "it holds face/, fer2013.tar.gz, notes.txt; unpack fer2013.tar.gz first" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert f"\n## `{name}`" in (root / "data" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError, match="that folder does not exist"):
        datasets.load(name, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="looked for nowhere.*it holds face/"):
        datasets.load("folder", tmp_path, path="nowhere")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("fer2103", {}, "unknown data set 'fer2103'; did you mean 'fer2013'"),
        ("zzz", {}, "unknown data set 'zzz'; known: synthetic, fer2013"),
        ("synthetic", {"num_face": 3}, "unknown option .*'num_face'; did you mean 'num_faces'"),
        ("muxspace", {"x": 3}, "unknown option .*'x'; known: contempt, color"),
        ("fer2013", {"layout": "folder"}, "unknown layout 'folder'; did you mean 'folders'"),
        ("ferplus", {"rule": "majorty"}, "unknown rule 'majorty'; did you mean 'majority'.; known: majority"),
        ("synthetic", {"image_size": 4}, "image_size must be .* 8 to 1024, not 4"),
        ("synthetic", {"image_size": 48.0}, "image_size must be .* not 48.0"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name, write_ferplus(tmp_path), **options)


def test_the_layout_that_the_page_on_data_shows_works(tmp_path, root, monkeypatch):
    text = (root / "data" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(\"\"\"JAFFE.*?)```", text, flags=re.DOTALL)
    (tmp_path / "jaffe_layout.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(datasets.LAYOUTS, "jaffe", importlib.import_module("jaffe_layout"))
    for number, name in enumerate(("KA.AN1.39", "KA.HA1.29", "KL.NE2.3")):
        put(tmp_path / "jaffe" / f"{name}.tiff", saved(face(number), "TIFF"))
    put(tmp_path / "jaffe" / "KL.SU1.9.tiff", b"")
    faces = datasets.load("jaffe", tmp_path)
    assert names(faces) == ["anger", "happiness", "neutral"]
    assert faces.subject.tolist() == [0, 0, 1]
    assert [r.file for r in faces.rejected] == ["jaffe/KL.SU1.9.tiff"]


def test_what_is_written_comes_back(drawn_faces, tmp_path):
    some = drawn_faces.select(np.arange(60))
    fused = RNG.dirichlet(np.ones(13), 60)
    layouts.write_ferplus(some, tmp_path)
    layouts.write_muxspace(some, tmp_path)
    layouts.write_affectnet_fused(some, fused, tmp_path)
    csv, votes = datasets.load("fer2013", tmp_path), datasets.load("ferplus", tmp_path, rule="distribution")
    np.testing.assert_array_equal(csv.images, some.images)
    assert names(csv) == names(some)
    columns = [votes.classes.index(name) for name in some.classes]
    shares = some.votes / some.votes.sum(1, keepdims=True)
    np.testing.assert_allclose(votes.distribution[:, columns], shares, atol=1e-6)
    people = datasets.load("muxspace", tmp_path)
    assert sorted(names(people)) == sorted(names(some))
    assert len(np.unique(people.subject)) == len(np.unique(some.subject))
    web, thirteen = datasets.load("affectnet", tmp_path), datasets.load("affectnet_fused", tmp_path)
    rows = np.array([int(Path(source).stem) for source in web.source.tolist()])
    assert names(web) == [names(some)[row] for row in rows]
    np.testing.assert_allclose(web.valence_arousal, some.valence_arousal[rows], atol=1e-5)
    np.testing.assert_allclose(web.landmarks, some.landmarks[rows], atol=1e-3)
    np.testing.assert_allclose(thirteen.distribution, fused[rows], atol=7e-6)  # 13 times half the last digit
    assert not any(each.rejected for each in (csv, votes, people, web, thirteen))


def test_what_a_layout_cannot_hold_is_refused_before_anything_is_written(drawn_faces, tmp_path):
    some = drawn_faces.select(np.arange(60))
    with pytest.raises(ValueError, match="cannot be written from 'synthetic': it needs grey images of 48"):
        layouts.write_fer2013(replace(some, images=some.images[:, :40]), tmp_path)
    with pytest.raises(ValueError, match="this layout cannot be written from 'synthetic': it needs votes"):
        layouts.write_ferplus(replace(some, votes=None), tmp_path)
    with pytest.raises(ValueError, match=r"needs a distribution \[N, 13\]"):
        layouts.write_affectnet_fused(some, np.zeros((60, 8)), tmp_path)
    assert not list(tmp_path.iterdir())
