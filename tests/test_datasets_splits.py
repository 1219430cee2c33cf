"""A cut keeps its promises: nobody and no image on two sides, classes in proportion, each time alike."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import datasets, emotions
from helpers.datasets import faceset as splitting

ALL = ("train", "validation", "test")


def faces(
    num: int = 400,
    seed: int = 0,
    num_images: int | None = None,
    num_people: int | None = None,
    official: tuple[str, ...] = ("",),
    **columns: np.ndarray,
) -> datasets.FaceSet:
    """Small faces: as many different images and people as said, each face of a random split and class."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (num_images or num, 4, 4), dtype=np.uint8)
    which = rng.integers(0, num_images, num) if num_images else np.arange(num)
    labels = rng.choice(7, num, p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17])
    made = {"images": pictures[which], "labels": labels}
    made |= {"split": rng.choice(list(official), num).astype("U10"), "classes": emotions.FER7}
    made |= {"source": np.array([f"test:{i}" for i in range(num)])}
    made |= {"subject": rng.integers(-1, num_people, num) if num_people else None}
    return datasets.FaceSet("test", **(made | columns))


def pixels(part: datasets.FaceSet) -> set[bytes]:
    return {image.tobytes() for image in part.images}


def people(part: datasets.FaceSet) -> set[int]:
    return set() if part.subject is None else set(part.subject.tolist()) - {-1}


NUMBERS = {"num": st.integers(0, 300), "seed": st.integers(0, 10_000)}
NUMBERS |= {"num_images": st.none() | st.integers(1, 300), "num_people": st.none() | st.integers(1, 100)}
OFFICIAL = st.sampled_from([("",), ("train", "test"), ("train", "validation"), ALL, ("train",)])


@given(
    case=st.fixed_dictionaries(NUMBERS),
    official=OFFICIAL,
    seed=st.integers(0, 99),
    leaks=st.sampled_from(["drop", "keep"]),
)
def test_every_face_is_in_one_part_or_listed_and_neither_pixels_nor_people_cross(case, official, seed, leaks):
    whole = faces(**case, official=official)
    parts = whole.splits(seed, leaks=leaks)
    kept = Counter(source for part in parts for source in part.source.tolist())
    left_out = Counter(r.file for part in parts for r in part.rejected)
    assert kept + left_out == Counter(whole.source.tolist())
    row = {source: i for i, source in enumerate(whole.source.tolist())}
    for part in parts:
        origin = [row[source] for source in part.source.tolist()]
        for name, values in part.columns().items():
            np.testing.assert_array_equal(values, whole.columns()[name][origin])
    cut = {0, *(k for k in (1, 2) if ALL[k] not in whole.split)}
    for i, j in combinations(range(3), 2):
        ours = {i, j} <= cut  # the others are the owner's
        assert leaks == "keep" or not pixels(parts[i]) & pixels(parts[j])
        assert not (ours and (pixels(parts[i]) & pixels(parts[j]) or people(parts[i]) & people(parts[j])))


def test_an_official_split_stays_and_keep_is_the_set_as_it_came():
    whole = faces(num_images=300, official=ALL)
    dropped = whole.splits()
    for part, fewer, name in zip(whole.splits(leaks="keep"), dropped, ALL, strict=True):
        np.testing.assert_array_equal(part.source, whole.source[whole.split == name])
        assert Counter(part.source) == Counter(fewer.source) + Counter(r.file for r in fewer.rejected)
        assert not part.rejected
    assert {r.reason for r in dropped[1].rejected} == {"pixel-identical to a test face"}
    assert {r.reason for r in dropped[0].rejected} == {"pixel-identical to a validation or test face"}
    whole = faces(num=1000, official=("train", "test"))
    train, validation, test = whole.splits(validation=0.25, test=0.7)
    assert len(train) + len(validation) == (whole.split == "train").sum() == 1000 - len(test)
    assert abs(len(validation) - 0.25 * (1000 - len(test))) <= 7  # one a class, by rounding
    assert set(validation.split.tolist()) == {"train"}


EVERY, MIXED = np.arange(2000), np.random.default_rng(1)
SUBJECTS = {  # who is on the faces, and how far a class may be from its share
    "unknown": (np.full(2000, -1), 1),
    "many": (MIXED.integers(-1, 150, 2000), 4),
    "one with 500": (np.where(EVERY < 500, 7, MIXED.integers(-1, 300, 2000)), 20),
    "two with 200": (np.where(EVERY < 400, EVERY // 200, -1), 1),  # faces that stand alone make up for it
}


@pytest.mark.parametrize("case", SUBJECTS)
def test_each_class_is_cut_in_proportion(case):
    subject, tolerance = SUBJECTS[case]
    whole = faces(num=2000, subject=subject)
    for part, share in zip(whole.splits(seed=1), (0.7, 0.1, 0.2), strict=True):
        wanted = share * np.bincount(whole.labels, minlength=7)
        assert np.abs(np.bincount(part.labels, minlength=7) - wanted).max() <= tolerance


def test_the_seed_decides_and_no_part_is_cut_where_none_is_asked_for():
    whole = faces(num_people=60)
    once, again, other = (whole.splits(seed=s)[2].source.tolist() for s in (5, 5, 6))
    assert once == again != other
    assert [len(part) for part in faces().splits(validation=0, test=0)] == [400, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.5, "test": 0.5}, "must be fractions that leave some to train on"),
        ({"validation": -0.1}, "must be fractions that leave some to train on"),
        ({"leaks": "dropp"}, "unknown leaks 'dropp'; did you mean 'drop'"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        faces().splits(**options)


@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 5)), max_size=12))
def test_groups_are_those_of_a_search(pairs):
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    groups = splitting.components(columns[:, 0], columns[:, 1])
    reach = np.eye(len(columns), dtype=bool)
    for i, j in combinations(range(len(columns)), 2):
        reach[i, j] = reach[j, i] = ((columns[i] == columns[j]) & (columns[i] >= 0)).any()
    for _ in columns:
        reach = reach @ reach
    np.testing.assert_array_equal(groups[:, None] == groups[None, :], reach)


def test_select_takes_masks_positions_and_slices():
    whole = faces(num_people=9)
    mask = whole.labels == 3
    choices = [(mask, np.flatnonzero(mask)), ([5, 1, 1], [5, 1, 1]), (slice(2, 9, 3), [2, 5, 8]), ([], [])]
    for which, expected in choices:
        chosen = whole.select(which)
        assert len(chosen) == len(expected)
        for name, values in chosen.columns().items():
            np.testing.assert_array_equal(values, whole.columns()[name][list(expected)])
    for which in (mask[:-1], [400]):
        with pytest.raises(IndexError):
            whole.select(which)


def test_four_classes_add_up_what_seven_had_and_a_class_in_no_group_is_listed(drawn_faces):
    four = drawn_faces.merged()
    assert four.classes == ("anger+disgust", "fear+sadness", "happiness", "neutral+surprise")
    members = {"anger": 0, "disgust": 0, "fear": 1, "sadness": 1, "happiness": 2, "neutral": 3, "surprise": 3}
    index = np.array([members[name] for name in drawn_faces.classes])
    assert four.labels.tolist() == index[drawn_faces.labels].tolist()
    for name in ("votes", "distribution"):
        values = getattr(drawn_faces, name)
        expected = np.stack([values[:, index == i].sum(axis=1) for i in range(4)], axis=1)
        np.testing.assert_allclose(getattr(four, name), expected, rtol=1e-5)
    two = drawn_faces.merged({"good": ("happy",), "bad": ("anger", "disgust", "Fearful", "sad")})
    gone = np.isin(drawn_faces.labels, [5, 6])
    assert (len(two), two.classes) == ((~gone).sum(), ("good", "bad"))
    np.testing.assert_allclose(two.distribution.sum(axis=1), 1, rtol=1e-5)
    assert [r.file for r in two.rejected] == drawn_faces.source[gone].tolist()
    assert {r.reason for r in two.rejected} == {"'surprise' is in no group", "'neutral' is in no group"}
    with pytest.raises(ValueError, match="unknown expression 'hapy'; did you mean 'happy'"):
        drawn_faces.merged({"good": ("hapy",)})


@pytest.mark.parametrize("labels", [[1, 2, 7], [-1, 0, 1], [0.0, 1.0, 2.0], np.eye(3, dtype=int), [0, 1]])
def test_labels_that_are_no_classes_are_refused_and_numpys_usual_type_becomes_float32(labels):
    with pytest.raises(ValueError, match=r"test: labels .* class|test: 2 labels for 3 images"):
        faces(3, labels=np.array(labels))
    assert faces(3, distribution=np.full((3, 7), 1 / 7)).distribution.dtype == np.float32


def test_a_face_whose_votes_are_in_no_group_gets_even_shares():
    classes, share = ("happiness", "sadness", "fear"), np.array([[0, 0, 1.0], [0.2, 0.3, 0.5]])
    some = faces(2, labels=np.array([0, 1]), classes=classes, distribution=share)
    merged = some.merged({"good": ("happiness",), "bad": ("sadness",)})
    assert merged.distribution == pytest.approx(np.array([[0.5, 0.5], [0.4, 0.6]]))
