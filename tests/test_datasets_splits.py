"""A cut keeps its promises: nobody and no picture on two sides, classes in proportion, each time alike."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import datasets, emotions
from helpers.datasets import faceset as splitting


def faces(
    num: int = 400,
    seed: int = 0,
    num_pictures: int | None = None,
    num_people: int | None = None,
    official: tuple[str, ...] = ("",),
) -> datasets.FaceSet:
    """Small faces: as many different pictures and people as said, each face of a random split and class."""
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (num_pictures or num, 4, 4), dtype=np.uint8)
    which = rng.integers(0, num_pictures, num) if num_pictures else np.arange(num)
    return datasets.FaceSet(
        "test",
        images=pictures[which],
        labels=rng.choice(7, num, p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17]),
        classes=emotions.FER7,
        split=rng.choice(list(official), num).astype("U10"),
        source=np.array([f"test:{i}" for i in range(num)]),
        subject=rng.integers(-1, num_people, num) if num_people else None,
    )


def pixels(part: datasets.FaceSet) -> set[bytes]:
    return {image.tobytes() for image in part.images}


def people(part: datasets.FaceSet) -> set[int]:
    return set(part.subject.tolist()) - {-1}


CASES = st.fixed_dictionaries(
    {
        "num": st.integers(0, 300),
        "seed": st.integers(0, 10_000),
        "num_pictures": st.none() | st.integers(1, 300),
        "num_people": st.none() | st.integers(1, 100),
    }
)
OFFICIAL = st.sampled_from(
    [("",), ("train", "test"), ("train", "validation"), ("train", "validation", "test"), ("train",)]
)


@given(case=CASES, official=OFFICIAL, seed=st.integers(0, 99), leaks=st.sampled_from(["drop", "keep"]))
def test_every_face_is_in_one_part_or_listed(case, official, seed, leaks):
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


@given(case=CASES, official=OFFICIAL, seed=st.integers(0, 99))
def test_identical_pixels_never_cross(case, official, seed):
    parts = faces(**case, official=official).splits(seed)
    for one, other in combinations(parts, 2):
        assert not pixels(one) & pixels(other)


@given(case=CASES, seed=st.integers(0, 99))
def test_people_never_cross_a_cut(case, seed):
    whole = faces(**{**case, "num_people": case["num_people"] or 5})
    for one, other in combinations(whole.splits(seed), 2):
        assert not people(one) & people(other)
        assert not pixels(one) & pixels(other)


@given(case=CASES, seed=st.integers(0, 99))
def test_people_and_pixels_stay_together_where_validation_is_cut_from_train(case, seed):
    whole = faces(**{**case, "num_people": case["num_people"] or 5}, official=("train", "test"))
    for leaks in ("drop", "keep"):
        train, validation, _ = whole.splits(seed, leaks=leaks)
        assert not people(train) & people(validation)
        assert not pixels(train) & pixels(validation)


def test_an_official_split_stays_and_keep_is_the_set_as_it_came():
    whole = faces(num_pictures=300, official=("train", "validation", "test"))
    for part, name in zip(whole.splits(leaks="keep"), ("train", "validation", "test"), strict=True):
        np.testing.assert_array_equal(part.source, whole.source[whole.split == name])
        assert not part.rejected
    train, validation, test = whole.splits()
    np.testing.assert_array_equal(test.source, whole.source[whole.split == "test"])
    assert {r.reason for r in validation.rejected} == {"pixel-identical to a test face"}
    assert {r.reason for r in train.rejected} == {"pixel-identical to a validation or test face"}


def test_drop_and_keep_differ_by_the_copies_alone():
    whole = faces(num_pictures=300, official=("train", "test"))
    for dropped, kept in zip(whole.splits(seed=3), whole.splits(seed=3, leaks="keep"), strict=True):
        assert Counter(kept.source) == Counter(dropped.source) + Counter(r.file for r in dropped.rejected)


def test_a_validation_part_is_cut_from_train_only():
    whole = faces(num=1000, official=("train", "test"))
    train, validation, test = whole.splits(validation=0.25, test=0.7)
    num_train = int((whole.split == "train").sum())
    assert len(test) == 1000 - num_train
    assert abs(len(validation) - 0.25 * num_train) <= 7  # one a class, by rounding
    assert set(whole.split[np.isin(whole.source, validation.source)].tolist()) == {"train"}


@pytest.mark.parametrize(("num_people", "tolerance"), [(None, 1), (150, 4)])
def test_each_class_is_cut_in_proportion(num_people, tolerance):
    whole = faces(num=2000, num_people=num_people)
    for part, share in zip(whole.splits(seed=1), (0.7, 0.1, 0.2), strict=True):
        counts = np.bincount(part.labels, minlength=7)
        wanted = share * np.bincount(whole.labels, minlength=7)
        assert np.abs(counts - wanted).max() <= tolerance


def test_a_person_with_very_many_faces_does_not_upset_the_cut():
    whole = faces(num=2000, num_people=300)
    whole.subject[:500] = 7
    for part, share in zip(whole.splits(seed=1), (0.7, 0.1, 0.2), strict=True):
        assert abs(len(part) - share * 2000) < 20


def test_faces_that_stand_alone_make_up_for_those_that_do_not():
    whole = faces(num=2000, num_people=1)
    whole.subject[:] = np.where(np.arange(2000) < 400, np.arange(2000) // 200, -1)
    for part, share in zip(whole.splits(seed=1), (0.7, 0.1, 0.2), strict=True):
        wanted = share * np.bincount(whole.labels, minlength=7)
        assert np.abs(np.bincount(part.labels, minlength=7) - wanted).max() <= 1


def test_the_seed_decides():
    whole = faces(num_people=60)
    again, other = (whole.splits(seed=s)[2].source.tolist() for s in (5, 6))
    assert whole.splits(seed=5)[2].source.tolist() == again
    assert again != other


def test_no_part_where_none_is_asked_for():
    train, validation, test = faces().splits(validation=0, test=0)
    assert (len(train), len(validation), len(test)) == (400, 0, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.5, "test": 0.5}, "must be fractions that leave some to train on"),
        ({"validation": -0.1}, "must be fractions that leave some to train on"),
        ({"test": 1.5}, "must be fractions that leave some to train on"),
        ({"leaks": "dropp"}, "unknown leaks='dropp'; did you mean 'drop'"),
    ],
)
def test_a_cut_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        faces().splits(**options)


def test_groups_are_chained_by_equal_entries():
    person = np.array([0, 0, 1, -1, -1, 2])
    picture = np.array([5, 6, 6, 7, 7, 8])
    groups = splitting.components(person, picture)
    assert len({*groups[:3]}) == 1
    assert len({*groups[3:5]}) == 1
    assert len({groups[0], groups[3], groups[5]}) == 3
    assert len(set(splitting.components(np.array([-1, -1, -1])).tolist())) == 3


@given(
    st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 5)), max_size=12),
)
def test_groups_are_those_of_a_search(pairs):
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    groups = splitting.components(columns[:, 0], columns[:, 1])
    reach = np.eye(len(columns), dtype=bool)
    for i, j in combinations(range(len(columns)), 2):
        reach[i, j] = reach[j, i] = ((columns[i] == columns[j]) & (columns[i] >= 0)).any()
    for _ in columns:
        reach = reach @ reach
    np.testing.assert_array_equal(groups[:, None] == groups[None, :], reach)


def test_fingerprints_are_equal_where_the_pixels_are():
    images = np.random.default_rng(0).integers(0, 2, (60, 2, 2), dtype=np.uint8)
    prints = splitting.fingerprints(images)
    expected = (images[:, None] == images[None]).all(axis=(2, 3))
    np.testing.assert_array_equal(prints[:, None] == prints[None, :], expected)


# --- FaceSet


def test_select_takes_masks_positions_and_slices():
    whole = faces(num_people=9)
    mask = whole.labels == 3
    for which, expected in (
        (mask, np.flatnonzero(mask)),
        ([5, 1, 1], [5, 1, 1]),
        (slice(2, 9, 3), [2, 5, 8]),
        ([], []),
    ):
        chosen = whole.select(which)
        assert len(chosen) == len(expected)
        for name, values in chosen.columns().items():
            np.testing.assert_array_equal(values, whole.columns()[name][list(expected)])
    with pytest.raises(IndexError):
        whole.select(mask[:-1])
    with pytest.raises(IndexError):
        whole.select([400])


def test_columns_of_another_length_are_refused():
    whole = faces()
    with pytest.raises(ValueError, match="test: 399 labels for 400 images"):
        datasets.FaceSet("test", whole.images, whole.labels[1:], whole.classes, whole.split, whole.source)


def test_four_classes_add_up_what_seven_had(drawn_faces):
    four = drawn_faces.merged()
    assert four.classes == ("anger+disgust", "fear+sadness", "happiness", "neutral+surprise")
    members = {"anger": 0, "disgust": 0, "fear": 1, "sadness": 1, "happiness": 2, "neutral": 3, "surprise": 3}
    expected = [members[drawn_faces.classes[label]] for label in drawn_faces.labels]
    assert four.labels.tolist() == expected
    a, d = (drawn_faces.classes.index(name) for name in ("anger", "disgust"))
    np.testing.assert_allclose(
        four.distribution[:, 0], drawn_faces.distribution[:, a] + drawn_faces.distribution[:, d], rtol=1e-5
    )
    np.testing.assert_array_equal(four.votes[:, 0], drawn_faces.votes[:, a] + drawn_faces.votes[:, d])
    assert (four.votes.sum(axis=1) == 10).all()


def test_a_class_in_no_group_is_listed():
    whole = faces()
    two = whole.merged({"good": ("happy",), "bad": ("anger", "disgust", "Fearful", "sad")})
    gone = np.isin(whole.labels, [5, 6])
    assert len(two) == (~gone).sum()
    assert [r.file for r in two.rejected] == whole.source[gone].tolist()
    assert {r.reason for r in two.rejected} == {"'surprise' is in no group", "'neutral' is in no group"}
    assert two.classes == ("good", "bad")
    with pytest.raises(ValueError, match="unknown expression 'hapy'; did you mean 'happy'"):
        whole.merged({"good": ("hapy",)})
