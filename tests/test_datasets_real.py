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


def test_fer2013_has_the_official_counts_and_the_279_leaks_it_is_known_for(fer2013):
    public = "validation" if (fer2013.split == "validation").any() else "test"
    assert (counts(fer2013, "train"), counts(fer2013, public)) == (TRAINING, PUBLIC_TEST)
    assert not fer2013.rejected
    audit = datasets.audit(fer2013)
    row = audit.duplicates.set_index(["split", "other"]).loc[public, "train"]
    assert row["faces"] - row["blank"] == 279
    assert not audit.conflicts.empty  # one image, two labels
    parts, published = fer2013.splits(seed=0), fer2013.splits(seed=0, leaks="keep")
    assert not any(datasets.leaked(parts[later], parts[0]).any() for later in (1, 2))
    assert datasets.leaked(published[2], published[0]).any()
    assert len(parts[0]) + len(parts[0].rejected) == len(published[0])


def test_fer2013_as_folders_has_the_same_faces(workbook_data, fer2013):
    folders = load(workbook_data, "fer2013", layout="folders")
    assert len(folders) + len(folders.rejected) == len(fer2013)
    listed = [
        sorted((x.tobytes(), y, s) for x, y, s in zip(each.images, each.labels, each.split, strict=True))
        for each in (folders, fer2013)
    ]
    assert listed[0] == listed[1]


def test_ferplus_keeps_or_lists_every_row_and_agrees_as_far_as_is_known(workbook_data, fer2013):
    kept = {}
    for rule in ("majority", "drop", "distribution"):
        faces = load(workbook_data, "ferplus", rule=rule)
        assert len(faces) + len(faces.rejected) == len(fer2013)
        kept[rule] = set(faces.source.tolist())
    assert kept["majority"] < kept["drop"] < kept["distribution"]
    row = {source: i for i, source in enumerate(fer2013.source.tolist())}
    before = fer2013.labels[[row[source] for source in faces.source.tolist()]]
    same = np.array(fer2013.classes)[before] == np.array(faces.classes)[faces.labels]
    assert same[faces.split != "train"].mean() == pytest.approx(0.636, abs=0.02)


def test_muxspace_keeps_people_apart(workbook_data):
    faces, more = (load(workbook_data, "muxspace", contempt=kept) for kept in (False, True))
    assert counts(faces, "")[faces.classes.index("neutral")] / len(faces) == pytest.approx(0.51, abs=0.02)
    assert len(more) - len(faces) == (more.labels == more.classes.index("contempt")).sum() > 0
    parts = faces.splits(seed=0)
    assert not datasets.audit(parts).subjects["faces"].any()
    assert [len(part) / len(faces) for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
