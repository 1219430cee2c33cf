"""An audit counts what was put there to be found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy

from helpers import datasets, emotions

RNG = np.random.default_rng(0)


def face_set(images, labels, split=None, **columns) -> datasets.FaceSet:
    num = len(images)
    split = np.array(split or [""] * num, dtype="U10")
    source = np.array([f"test:{i}" for i in range(num)])
    images = np.asarray(images, dtype=np.uint8)
    return datasets.FaceSet("test", images, np.asarray(labels), emotions.FER7, split, source, **columns)


def noise(num: int, side: int = 32) -> np.ndarray:
    return RNG.integers(0, 256, (num, side, side), dtype=np.uint8)


@pytest.fixture
def planted() -> datasets.FaceSet:
    """Ten faces: one twice in train and once in test, there with another label; a blank one in both."""
    images = noise(10)
    images[1] = images[7] = images[0]
    images[2] = images[8] = 0
    subject = np.array([1, 1, -1, 2, 3, -1, 4, 1, -1, 2])
    return face_set(images, [0, 0, 1, 2, 3, 4, 5, 6, 1, 0], ["train"] * 6 + ["test"] * 4, subject=subject)


def test_copies_people_balance_and_brightness_are_counted(planted):
    audit = datasets.audit(planted)
    table = audit.duplicates.set_index(["split", "other"])
    pairs = [("train", "train"), ("train", "test"), ("test", "train"), ("test", "test")]
    assert table.loc[pairs, "faces"].tolist() == [1, 3, 2, 0]
    assert table.loc[pairs, "share"].tolist() == pytest.approx([1 / 6, 3 / 6, 2 / 4, 0])
    assert table.loc[pairs, "blank"].tolist() == [0, 1, 1, 0]
    groups = audit.copies.groupby("group")["source"].apply(set).tolist()
    assert sorted(groups, key=len) == [{"test:2", "test:8"}, {"test:0", "test:1", "test:7"}]
    assert set(audit.conflicts["source"]) == {"test:0", "test:1", "test:7"}
    assert set(audit.conflicts["label"]) == {"anger", "neutral"}
    assert audit.subjects.values.tolist() == [["train", "test", 2, 3, 0.5], ["test", "train", 2, 2, 0.5]]
    assert audit.balance["train"].tolist() == [2, 1, 1, 1, 1, 0, 0]
    assert audit.balance["test"].tolist() == [1, 1, 0, 0, 0, 1, 1]
    assert audit.balance["share"].tolist() == [0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]
    train = planted.images[:6].reshape(6, -1).astype(float)
    light = [train.mean(), train.mean(axis=1).std(), train.std(axis=1).mean(), 1]
    np.testing.assert_allclose(audit.brightness.loc["train"], light, rtol=1e-5)
    test, train = planted.select(slice(6, 10)), planted.select(slice(0, 6))
    assert datasets.leaked(test, train).tolist() == [False, True, True, False]


def test_a_clean_cut_shares_nothing_and_lists_what_it_left_out(planted):
    audit = datasets.audit(planted.splits(test=0.3))
    across = audit.duplicates[audit.duplicates["split"] != audit.duplicates["other"]]
    assert not across["faces"].any()
    assert set(audit.rejects["split"]) == {"train"}
    assert set(audit.rejects["kind"]) == {"pixel-identical to a validation or test face"}
    why = [datasets.Rejection("x.csv", row, f"{row} pixels instead of 2304", "mend it") for row in (7, 9)]
    table = datasets.audit(replace(planted, rejected=tuple(why))).rejects
    assert table[["row", "kind"]].values.tolist() == [[row, "… pixels instead of …"] for row in (7, 9)]


def test_entropy_is_scipys_and_valence_and_arousal_are_looked_at_by_class():
    share = RNG.dirichlet(np.full(7, 0.4), 60).astype(np.float32)
    share[0], share[1] = np.eye(7)[2], [0.5, 0.5, 0, 0, 0, 0, 0]
    labels = np.where(np.arange(60) == 5, 0, share.argmax(axis=1))
    table = datasets.audit(face_set(noise(60), labels, distribution=share)).entropy
    for name, row in table.iterrows():
        here = labels == emotions.FER7.index(name)
        differs = (share[here].argmax(axis=1) != labels[here]).mean()
        bits, unsure = entropy(share[here], base=2, axis=1).mean(), (share[here].max(axis=1) <= 0.5).mean()
        np.testing.assert_allclose(row.astype(float), [here.sum(), bits, unsure, differs], rtol=1e-5)
    degrees = np.array([[0.5, 0.1], [-0.5, 0.3], [np.nan, 0.2], [-0.6, 0.6]], dtype=np.float32)
    table = datasets.audit(face_set(noise(4), [3, 3, 3, 0], valence_arousal=degrees)).valence_arousal
    expected = [3, 1, 0, 0.2, 0.5, 0.1, 1]  # faces, unknown, means, deviations, contradicting
    np.testing.assert_allclose(table.loc["happiness"].astype(float), expected, atol=1e-6)
    assert table.loc["anger", "contradicting"] == 0


def test_near_copies_are_found_and_strangers_are_not():
    def photograph(seed: int, *box: int) -> np.ndarray:
        small = np.random.default_rng(seed).integers(0, 256, (7, 7), dtype=np.uint8)
        large = Image.fromarray(small).resize((100, 100), Image.Resampling.BICUBIC)
        return np.asarray(large.crop(box or (0, 0, 100, 100)).resize((48, 48)))

    originals = [photograph(seed) for seed in range(40)]
    again = [photograph(seed, 2, 2, 99, 99) // 2 + 60 for seed in range(5)]
    others = [*(photograph(seed) for seed in range(100, 120)), originals[9], np.full((48, 48), 9)]
    parts = {"train": face_set(originals, [0] * 40), "test": face_set([*again, *others], [0] * 27)}
    table = datasets.audit(parts, near=True).near_duplicates
    expected = {f"test:{i}": f"test:{i}" for i in range(5)}
    assert dict(zip(table["source"], table["twin"], strict=True)) == expected


def test_color_faces_and_a_set_without_splits_people_or_distributions():
    images = RNG.integers(0, 256, (4, 3, 20, 24), dtype=np.uint8)
    images[3] = images[0]
    audit = datasets.audit(face_set(images, [0, 1, 2, 3], ["train"] * 3 + ["test"]), near=True)
    assert audit.duplicates.set_index(["split", "other"])["faces"]["test", "train"] == 1
    assert audit.near_duplicates.empty
    assert audit.brightness["mean"]["train"] == pytest.approx(images[:3].mean(), abs=0.6)
    audit = datasets.audit(face_set(noise(5), [0, 1, 2, 3, 4]))
    assert audit.duplicates[["split", "other", "faces"]].values.tolist() == [["all", "all", 0]]
    full = {name for name, table in vars(audit).items() if len(table)}
    assert full == {"duplicates", "balance", "brightness"}


def test_what_was_left_out_is_said_by_reason(planted):
    assert datasets.left_out(planted) == ""
    reasons = ["unknown expression 'suprise'"] * 36 + ["is empty"] * 2
    rejected = tuple(datasets.Rejection(f"{i}.png", 0, reason, "mend it") for i, reason in enumerate(reasons))
    assert datasets.left_out(replace(planted, rejected=rejected), most=1).split("\n  ") == [
        "38 of 48 rows or images are left out",
        "36 times: 0.png: unknown expression 'suprise'; mend it",
        "and 1 more reasons",
    ]
