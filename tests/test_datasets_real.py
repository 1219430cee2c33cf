"""The real sets, where WORKBOOK_DATA names a folder with them: known counts, known traps."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import datasets

pytestmark = pytest.mark.real

TRAINING = [3995, 436, 4097, 7215, 4830, 3171, 4965]
PUBLIC_TEST = [467, 56, 496, 895, 653, 415, 607]


def load(folder, name: str, **options) -> datasets.FaceSet:
    try:
        return datasets.load(name, folder, **options)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def fer2013(workbook_data) -> datasets.FaceSet:
    return load(workbook_data, "fer2013", layout="csv")


def counts(faces: datasets.FaceSet, split: str) -> list[int]:
    return np.bincount(faces.labels[faces.split == split], minlength=len(faces.classes)).tolist()


def test_fer2013_has_the_official_class_counts(fer2013):
    public = "validation" if (fer2013.split == "validation").any() else "test"
    assert counts(fer2013, "train") == TRAINING
    assert counts(fer2013, public) == PUBLIC_TEST
    assert not fer2013.rejected


def test_fer2013_leaks_the_279_faces_it_is_known_for(fer2013):
    public = "validation" if (fer2013.split == "validation").any() else "test"
    audit = datasets.audit(fer2013)
    row = audit.duplicates.set_index(["split", "other"]).loc[public, "train"]
    assert row["faces"] - row["blank"] == 279
    marked = datasets.leaked(
        fer2013.select(fer2013.split == public), fer2013.select(fer2013.split == "train")
    )
    assert marked.sum() == row["faces"]
    assert not audit.conflicts.empty  # one picture, two labels


def test_fer2013_is_cut_without_leaks(fer2013):
    train, validation, test = fer2013.splits(seed=0)
    assert not datasets.leaked(test, train).any()
    assert not datasets.leaked(test, validation).any()
    assert not datasets.leaked(validation, train).any()
    as_published = fer2013.splits(seed=0, leaks="keep")
    assert datasets.leaked(as_published[2], as_published[0]).any()
    assert len(train) + len(train.rejected) == len(as_published[0])


def test_fer2013_as_folders_has_the_same_faces(workbook_data, fer2013):
    folders = load(workbook_data, "fer2013", layout="folders")
    assert len(folders) + len(folders.rejected) == len(fer2013)
    for split in ("train", "test"):
        assert counts(folders, split) == counts(fer2013, split)
    for faces in (folders, fer2013):
        assert faces.classes == ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    assert _listed(folders) == _listed(fer2013)


def _listed(faces: datasets.FaceSet) -> list[tuple[bytes, int, str]]:
    columns = zip(faces.images, faces.labels.tolist(), faces.split.tolist(), strict=True)
    return sorted((pixels.tobytes(), label, split) for pixels, label, split in columns)


def test_ferplus_keeps_or_lists_every_row(workbook_data, fer2013):
    kept = {}
    for rule in ("majority", "drop", "distribution"):
        faces = load(workbook_data, "ferplus", rule=rule)
        assert len(faces) + len(faces.rejected) == len(fer2013)
        first, second = -np.sort(-faces.votes, axis=1)[:, :2].T
        assert (first > {"majority": faces.votes.sum(axis=1) / 2, "drop": second}.get(rule, 0)).all()
        kept[rule] = set(faces.source.tolist())
    assert kept["majority"] < kept["drop"] < kept["distribution"]


def test_ferplus_agrees_with_fer2013_as_far_as_is_known(workbook_data, fer2013):
    """On PublicTest and PrivateTest alike, FER+'s first choice is FER2013's label for 64 % of the faces."""
    votes = load(workbook_data, "ferplus", rule="distribution")
    row = {source: i for i, source in enumerate(fer2013.source.tolist())}
    before = fer2013.labels[[row[source] for source in votes.source.tolist()]]
    same = np.array(fer2013.classes)[before] == np.array(votes.classes)[votes.labels]
    assert same[votes.split != "train"].mean() == pytest.approx(0.636, abs=0.02)


def test_muxspace_keeps_people_apart(workbook_data):
    faces = load(workbook_data, "muxspace")
    shares = np.bincount(faces.labels, minlength=7) / len(faces)
    assert shares[faces.classes.index("neutral")] == pytest.approx(0.51, abs=0.02)
    for rejection in faces.rejected:
        assert rejection.reason
        assert rejection.remedy
    parts = faces.splits(seed=0)
    shared = datasets.audit(parts).subjects
    assert not shared["faces"].any()
    assert [len(part) / len(faces) for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.01)


def test_muxspace_shares_people_where_it_is_cut_at_random(workbook_data):
    faces = load(workbook_data, "muxspace")
    order = np.random.default_rng(0).permutation(len(faces))
    cut = {"train": faces.select(order[: -len(faces) // 5]), "test": faces.select(order[-len(faces) // 5 :])}
    table = datasets.audit(cut).subjects.set_index(["split", "other"])
    assert table["share"]["test", "train"] > 0.4


def test_muxspace_without_contempt_differs_by_contempt_alone(workbook_data):
    seven, eight = (load(workbook_data, "muxspace", contempt=kept) for kept in (False, True))
    contempt = eight.classes.index("contempt")
    assert len(eight) - len(seven) == (eight.labels == contempt).sum() > 0
    assert len(eight) + len(eight.rejected) == len(seven) + len(seven.rejected)
