"""An audit counts what was put there to be found."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy

from helpers import datasets, emotions

RNG = np.random.default_rng(0)


def face_set(images, labels, split=None, **columns) -> datasets.FaceSet:
    num = len(images)
    return datasets.FaceSet(
        "test",
        images=np.asarray(images, dtype=np.uint8),
        labels=np.asarray(labels),
        classes=emotions.FER7,
        split=np.array(split or [""] * num, dtype="U10"),
        source=np.array([f"test:{i}" for i in range(num)]),
        **columns,
    )


def noise(num: int, side: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (num, side, side), dtype=np.uint8)


@pytest.fixture
def planted() -> datasets.FaceSet:
    """Ten faces: one twice in train and once in test, there with another label; a blank one in both."""
    images = noise(10)
    images[1] = images[7] = images[0]
    images[2] = images[8] = 0
    labels = [0, 0, 1, 2, 3, 4, 5, 6, 1, 0]
    subject = np.array([1, 1, -1, 2, 3, -1, 4, 1, -1, 2])
    return face_set(images, labels, ["train"] * 6 + ["test"] * 4, subject=subject)


def test_copies_are_counted_within_and_across(planted):
    table = datasets.audit(planted).duplicates.set_index(["split", "other"])
    assert table["faces"].to_dict() == {
        ("train", "train"): 1,
        ("train", "test"): 3,
        ("test", "train"): 2,
        ("test", "test"): 0,
    }
    assert table["share"]["train", "test"] == 3 / 6
    assert table["share"]["test", "train"] == 2 / 4
    assert table["blank"].to_dict() == {
        ("train", "train"): 0,
        ("train", "test"): 1,
        ("test", "train"): 1,
        ("test", "test"): 0,
    }


def test_copies_are_listed_and_conflicts_among_them(planted):
    audit = datasets.audit(planted)
    groups = audit.copies.groupby("group")["source"].apply(set).tolist()
    assert sorted(groups, key=len) == [{"test:2", "test:8"}, {"test:0", "test:1", "test:7"}]
    assert set(audit.conflicts["source"]) == {"test:0", "test:1", "test:7"}
    assert set(audit.conflicts["label"]) == {"anger", "neutral"}


def test_shared_people_are_counted(planted):
    table = datasets.audit(planted).subjects.set_index(["split", "other"])
    assert table["subjects"].to_dict() == {("train", "test"): 2, ("test", "train"): 2}
    assert table["faces"].to_dict() == {("train", "test"): 3, ("test", "train"): 2}


def test_a_clean_cut_shares_nothing(planted):
    audit = datasets.audit(planted.splits(test=0.3))
    across = audit.duplicates[audit.duplicates["split"] != audit.duplicates["other"]]
    assert not across["faces"].any()
    assert set(audit.rejects["split"]) == {"train"}
    assert set(audit.rejects["kind"]) == {"pixel-identical to a validation or test face"}


def test_balance_and_brightness_are_what_numpy_counts(planted):
    audit = datasets.audit(planted)
    train = planted.images[:6].reshape(6, -1).astype(float)
    assert audit.balance["train"].tolist() == [2, 1, 1, 1, 1, 0, 0]
    assert audit.balance["test"].tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert audit.balance["share"].tolist() == [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]
    row = audit.brightness.loc["train"]
    np.testing.assert_allclose(row["mean"], train.mean(), rtol=1e-6)
    np.testing.assert_allclose(row["deviation"], train.mean(axis=1).std(), rtol=1e-6)
    np.testing.assert_allclose(row["contrast"], train.std(axis=1).mean(), rtol=1e-5)
    assert audit.brightness["blank"].tolist() == [1, 1]


def test_entropy_is_scipys():
    share = RNG.dirichlet(np.full(7, 0.4), 60).astype(np.float32)
    share[0] = np.eye(7)[2]
    share[1] = [0.5, 0.5, 0, 0, 0, 0, 0]
    labels = share.argmax(axis=1)
    table = datasets.audit(face_set(noise(60), labels, distribution=share)).entropy
    for name, row in table.iterrows():
        here = labels == emotions.FER7.index(name)
        assert row["faces"] == here.sum()
        np.testing.assert_allclose(row["entropy"], entropy(share[here], base=2, axis=1).mean(), rtol=1e-5)
        assert row["ambiguous"] == pytest.approx((share[here].max(axis=1) <= 0.5).mean())


def test_rejects_are_listed_by_kind(planted):
    rejected = tuple(
        datasets.Rejection("x.csv", row, f"{row} pixels instead of 2304", "correct the row") for row in (7, 9)
    )
    whole = datasets.FaceSet(**{**vars(planted), "rejected": rejected})
    table = datasets.audit(whole).rejects
    assert table["row"].tolist() == [7, 9]
    assert table["kind"].tolist() == ["… pixels instead of …"] * 2


def test_leaked_marks_the_copies(planted):
    test, train = planted.select(slice(6, 10)), planted.select(slice(0, 6))
    assert datasets.leaked(test, train).tolist() == [False, True, True, False]


def photograph(seed: int) -> Image.Image:
    """A smooth random picture, larger than what is kept of it."""
    small = np.random.default_rng(seed).integers(0, 256, (7, 7), dtype=np.uint8)
    return Image.fromarray(small).resize((100, 100), Image.Resampling.BICUBIC)


def test_near_copies_are_found_and_strangers_are_not():
    originals = [np.asarray(photograph(seed).resize((48, 48))) for seed in range(40)]
    again = [
        np.asarray(photograph(seed).crop((2, 2, 99, 99)).resize((48, 48))) // 2 + 60 for seed in range(5)
    ]
    strangers = [np.asarray(photograph(seed).resize((48, 48))) for seed in range(100, 120)]
    exact, blank = originals[9], np.full((48, 48), 9)
    train = face_set(originals, [0] * 40)
    test = face_set([*again, *strangers, exact, blank], [0] * 27)
    alike, where = datasets.most_alike(test, train)
    assert where[:5].tolist() == list(range(5))
    assert where[25] == 9
    assert alike[25] == pytest.approx(1, abs=1e-5)
    assert alike[26] == 0
    table = datasets.audit({"train": train, "test": test}, near=True).near_duplicates
    assert dict(zip(table["source"], table["twin"], strict=True)) == {
        f"test:{i}": f"test:{i}" for i in range(5)
    }


def test_color_faces_are_audited_too():
    images = RNG.integers(0, 256, (4, 3, 20, 24), dtype=np.uint8)
    images[3] = images[0]
    audit = datasets.audit(face_set(images, [0, 1, 2, 3], ["train"] * 3 + ["test"]), near=True)
    assert audit.duplicates.set_index(["split", "other"])["faces"]["test", "train"] == 1
    assert audit.near_duplicates.empty
    assert audit.brightness["mean"]["train"] == pytest.approx(images[:3].mean(), abs=0.6)


def test_a_set_without_splits_people_or_distributions_is_one_table():
    audit = datasets.audit(face_set(noise(5), [0, 1, 2, 3, 4]))
    assert audit.duplicates[["split", "other", "faces"]].values.tolist() == [["all", "all", 0]]
    assert audit.copies.empty
    assert audit.conflicts.empty
    assert audit.subjects.empty
    assert audit.entropy.empty
    assert audit.near_duplicates.empty


def test_valence_and_arousal_are_looked_at_by_class():
    degrees = np.array([[0.5, 0.1], [-0.5, 0.3], [np.nan, 0.2], [-0.6, 0.6]], dtype=np.float32)
    labels = [emotions.FER7.index(name) for name in ("happiness", "happiness", "happiness", "anger")]
    table = datasets.audit(face_set(noise(4), labels, valence_arousal=degrees)).valence_arousal
    row = table.loc["happiness"]
    assert (row["faces"], row["unknown"], row["contradicting"]) == (3, 1, 1)
    np.testing.assert_allclose(
        row[["valence", "arousal", "valence_sd"]].astype(float), [0, 0.2, 0.5], atol=1e-6
    )
    assert table.loc["anger", "contradicting"] == 0
    assert datasets.audit(face_set(noise(4), labels)).valence_arousal.empty


def test_what_was_left_out_is_said_by_reason(planted):
    assert datasets.left_out(planted) == ""
    reasons = ["unknown expression 'suprise'"] * 36 + ["is empty"] * 2
    rejected = tuple(datasets.Rejection(f"{i}.png", 0, reason, "mend it") for i, reason in enumerate(reasons))
    whole = datasets.FaceSet(**{**vars(planted), "rejected": rejected})
    assert datasets.left_out(whole, most=1).split("\n  ") == [
        "38 of 48 rows or images are left out",
        "36 times: 0.png: unknown expression 'suprise'; mend it",
        "and 1 more reasons",
    ]


@pytest.mark.parametrize("labels", [[1, 2, 7], [-1, 0, 1], [0.0, 1.0, 2.0], np.eye(3, dtype=int)])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match=r"test: labels .* class"):
        face_set(noise(3), labels)


def test_numpys_usual_type_becomes_float32():
    faces = face_set(
        noise(3), [0, 1, 2], valence_arousal=np.zeros((3, 2)), distribution=np.full((3, 7), 1 / 7)
    )
    assert faces.valence_arousal.dtype == faces.distribution.dtype == np.float32
