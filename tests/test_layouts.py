"""What is written in a real layout comes back through the real reader as it was."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import datasets, emotions, faces
from helpers.datasets import layouts


@pytest.fixture
def some(drawn_faces):
    return drawn_faces.select(np.arange(60))


def _names(faces):
    return [faces.classes[label] for label in faces.labels]


def test_fer2013_comes_back(some, tmp_path):
    layouts.write_fer2013(some, tmp_path)
    back = datasets.load("fer2013", tmp_path)
    np.testing.assert_array_equal(back.images, some.images)
    assert _names(back) == _names(some)
    assert not back.rejected


def test_ferplus_comes_back(some, tmp_path):
    layouts.write_ferplus(some, tmp_path)
    back = datasets.load("ferplus", tmp_path, rule="distribution")
    assert len(back) == len(some)
    shares = some.votes / some.votes.sum(1, keepdims=True)
    for column, name in enumerate(some.classes):
        np.testing.assert_allclose(
            back.distribution[:, back.classes.index(name)], shares[:, column], atol=1e-6
        )


def test_muxspace_comes_back(some, tmp_path):
    layouts.write_muxspace(some, tmp_path)
    back = datasets.load("muxspace", tmp_path)
    assert len(back) == len(some)
    assert sorted(_names(back)) == sorted(_names(some))
    assert len(np.unique(back.subject)) == len(np.unique(some.subject))
    means = [np.sort(part.images.mean(axis=(1, 2))) for part in (back, some)]
    np.testing.assert_allclose(*means, atol=2)


def test_affectnet_comes_back(some, tmp_path):
    layouts.write_affectnet(some, tmp_path)
    back = datasets.load("affectnet", tmp_path)
    assert len(back) == len(some)
    order = np.argsort([int(source.rsplit("/", 1)[1].split(".")[0]) for source in back.source])
    assert [_names(back)[i] for i in order] == _names(some)
    np.testing.assert_allclose(back.valence_arousal[order], some.valence_arousal, atol=1e-5)
    np.testing.assert_allclose(back.landmarks[order], some.landmarks, atol=0.6)


def test_affectnet_fused_holds_thirteen_values_a_face(some, tmp_path):
    drawn = faces.sample(60, seed=0, size=16)
    fused = faces.fused_probabilities(drawn.action_units, drawn.class_probabilities).numpy()
    top = layouts.write_affectnet_fused(some, fused, tmp_path)
    for i in (0, 59):
        values = np.loadtxt(top / "train_set" / "annotations" / f"{i}_prob_rank.txt", delimiter=",")
        np.testing.assert_allclose(values, fused[i], atol=1e-6)
    assert fused.shape[1] == len(emotions.FUSED13)


def test_what_a_layout_cannot_hold_is_refused_in_one_line(some, tmp_path):
    with pytest.raises(
        ValueError, match="fer2013: cannot be written from 'synthetic', it needs grey images of 48"
    ):
        layouts.write_fer2013(
            some.select(slice(3)).__class__(**{**vars(some), "images": some.images[:, :40]}), tmp_path
        )
    with pytest.raises(ValueError, match="affectnet_fused: distribution must be"):
        layouts.write_affectnet_fused(some, np.zeros((60, 8)), tmp_path)
    assert not list(tmp_path.iterdir())
