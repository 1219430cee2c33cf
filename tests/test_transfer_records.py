"""What is measured on photographs: classes are joined by name, drops and gains are as defined."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from benchmarks import cross_set, transfer
from helpers import datasets, emotions, metrics

RECORDED = ("fer2013", "muxspace")
"""The sets from which a network has been tried on the other one."""
FOLDER_ORDER = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")


def faces_of(classes, num=3):
    """Return pictures whose brightness says which expression they show, labelled in this set's order."""
    labels = np.repeat(np.arange(len(classes)), num)
    shade = np.array([20 * FOLDER_ORDER.index(name) for name in classes], np.uint8)
    images = np.broadcast_to(shade[labels][:, None, None], (len(labels), 16, 16))
    names = np.array([str(i) for i in range(len(labels))])
    return datasets.FaceSet("made", images, labels, tuple(classes), np.full(len(labels), ""), names)


def assert_joined_rightly(faces):
    """Assert that every face of the seven classes is numbered by what its picture shows."""
    part = cross_set.shared(faces)
    seen = [FOLDER_ORDER[shade // 20] for shade in part.images[:, 0, 0]]
    assert len(part) == 3 * 7
    assert [emotions.FER7[label] for label in part.labels] == seen


@pytest.mark.parametrize("classes", [emotions.FER7, emotions.FERPLUS8, emotions.AFFECTNET8, FOLDER_ORDER])
def test_classes_are_joined_by_name_whatever_their_order(classes):
    assert_joined_rightly(faces_of(classes))


@pytest.mark.parametrize("pair", list(itertools.combinations(range(7), 2)))
def test_a_permuted_class_map_is_found(pair):
    order = list(emotions.FER7)
    order[pair[0]], order[pair[1]] = order[pair[1]], order[pair[0]]
    with pytest.raises(AssertionError):
        assert_joined_rightly(replace(faces_of(emotions.FER7), classes=tuple(order)))


def test_a_set_without_one_of_the_classes_is_named():
    with pytest.raises(ValueError, match="made has no disgust"):
        cross_set.shared(faces_of([name for name in emotions.FER7 if name != "disgust"]))


def answers(num, rate, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(7, size=num)
    return labels, np.where(random.random(num) < rate, labels, (labels + 1) % 7)


def test_the_drop_has_the_interval_of_two_independent_shares():
    own, other = answers(2000, 0.8), answers(1000, 0.6, seed=1)
    found = cross_set.drop((*own, None), (*other, None), metrics.accuracy)
    shares = [np.mean(labels == said) for labels, said in (own, other)]
    wide = 1.96 * np.sqrt(sum(p * (1 - p) / n for p, n in zip(shares, (2000, 1000), strict=True)))
    assert found["value"] == pytest.approx(shares[0] - shares[1])
    assert found["low"] == pytest.approx(found["value"] - wide, abs=0.15 * wide)
    assert found["high"] == pytest.approx(found["value"] + wide, abs=0.15 * wide)


def test_faces_of_one_person_are_drawn_together():
    labels, said = answers(200, 0.7)
    same = np.tile(labels, 9), np.tile(said, 9)
    people = np.tile(np.arange(200), 9)
    alone = cross_set.drop((labels, said, None), (labels, said, None), metrics.accuracy)
    grouped = cross_set.drop((*same, people), (*same, people), metrics.accuracy)
    width, grouped_width = (each["high"] - each["low"] for each in (alone, grouped))
    assert grouped_width == pytest.approx(width, rel=0.2), "nine copies of a person are no more evidence"
    unknown = cross_set.drop((*same, np.full(1800, -1)), (*same, None), metrics.accuracy)
    assert unknown["high"] - unknown["low"] < 0.5 * width


def test_a_summary_over_seeds_is_that_of_scipy():
    values = [0.41, 0.44, 0.40]
    found = transfer.over_seeds(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    rows = [
        {"start": start, "labels": 100, "seed": seed, "accuracy": {"value": value}}
        for start, shift in (("scratch", 0.0), ("drawn faces, fine-tuned", 0.05))
        for seed, value in enumerate(np.array(values) + shift)
    ]
    scratch, tuned = transfer.summary(rows)
    assert "gain" not in scratch
    assert tuned["gain"]["value"] == pytest.approx(0.05)
    assert tuned["gain"]["high"] - tuned["gain"]["low"] == pytest.approx(0, abs=1e-9), "seeds are paired"


@pytest.mark.parametrize("name", RECORDED)
def test_the_record_of_a_set_agrees_with_its_confusions(name, root):
    record = json.loads((root / "data/results" / f"cross_set_{name}.json").read_text(encoding="utf-8"))
    assert list(record["test"])[0] == name
    recalls = []
    for part in record["test"].values():
        table = np.array(part["confusion"])
        assert table.sum() == part["faces"]
        assert part["accuracy"]["value"] == pytest.approx(np.trace(table) / table.sum())
        recalls.append(np.mean(np.diag(table)[table.sum(1) > 0] / table.sum(1)[table.sum(1) > 0]))
        assert part["macro_recall"]["value"] == pytest.approx(recalls[-1])
    lost = record["drop"]["macro_recall"]
    assert lost["value"] == pytest.approx(recalls[0] - recalls[1])
    assert lost["low"] < lost["value"] < lost["high"]


@pytest.mark.parametrize("name", RECORDED)
def test_no_two_classes_of_the_record_are_swapped(name, root):
    """Read with two classes exchanged, away from home, the answers would be worse: for every pair.

    Two that are never answered cannot be told apart; a network taught by Muxspace has three of them.
    """
    record = json.loads((root / "data/results" / f"cross_set_{name}.json").read_text(encoding="utf-8"))
    table = np.array(list(record["test"].values())[1]["confusion"])
    enough = np.flatnonzero(table.sum(axis=1) >= 10)  # Muxspace has next to no fear and disgust
    said = set(np.flatnonzero(table.sum(axis=0)))
    assert len(enough) >= 5
    assert len(said) >= 4
    for one, two in itertools.combinations(enough, 2):
        order = np.arange(7)
        order[[one, two]] = two, one
        if {one, two} & said:
            assert np.trace(table[:, order]) < np.trace(table), f"{emotions.FER7[one]}, {emotions.FER7[two]}"


def test_the_label_efficiency_of_the_record_is_that_of_its_rows(root):
    record = json.loads((root / "data/results/transfer_fer2013.json").read_text(encoding="utf-8"))
    assert record["summary"] == transfer.summary(record["rows"])
    seeds = {}
    for row in record["rows"]:
        seeds.setdefault((row["labels"], row["start"]), []).append(row["seed"])
    numbers = {labels for labels, _ in seeds} - {0}
    assert numbers > set(transfer.STEPS) - {0}, "and one more: all of them"
    assert max(numbers) > 25_000
    for labels in numbers:
        for start in ("scratch", "drawn faces, frozen", "drawn faces, fine-tuned"):
            assert seeds[labels, start] == [0, 1, 2]
