"""What the records under data/results promise, and that the scripts behind them count as they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks import bayes_ceiling, cycles, distributions, gpu, real, records
from helpers import datasets, emotions, faces, models, training


def record(name):
    return json.loads((records.RESULTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _here(root, monkeypatch):
    monkeypatch.chdir(root)


def test_the_way_is_0_at_the_class_shares_and_1_at_the_truth():
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.full(7, 0.5), 400) for _ in range(2))
    prior = p.mean(axis=0)
    assert cycles.way(p, np.tile(prior, (400, 1)), prior).value == pytest.approx(0)
    assert cycles.way(p, p, prior).value == pytest.approx(1)
    left, whole = stats.entropy(p, q, axis=1), stats.entropy(p, np.tile(prior, (400, 1)), axis=1)
    found = cycles.way(p, q, prior)
    assert found.value == pytest.approx(1 - left.sum() / whole.sum(), rel=1e-9)
    assert found.low < found.value < found.high


def test_the_network_of_the_record_goes_as_far_as_the_record_says(root, tmp_path):
    known, reader = record("distributions_cycles"), cycles.recorded(root / cycles.RECORD)
    judged = datasets.load("synthetic", tmp_path, num_faces=600, seed=distributions.JUDGED_SEED)
    recorded, prior = known["strangers"][-1], np.array(known["class shares"])
    far = cycles.how_far(reader.predict(judged, looks=[cycles.STRAIGHT]), judged, prior)
    for name, slack in (("way", 0.03), ("below Bayes", 0.015)):  # a seventh of the faces
        assert far[name][1] < recorded[name][0] < far[name][2]
        assert far[name][0] == pytest.approx(recorded[name][0], abs=slack)
    best = known["judged anew"]["best possible"]
    assert far["CCC valence"][0] > 0.93 * best["CCC valence"]
    assert known["judged anew"]["five looks"]["way"][0] > known["judged anew"]["one look"]["way"][0] > 0.89
    training.save_weights(models.FaceCNN(7), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="Reader"):
        cycles.recorded(tmp_path / "other.json")


def test_what_can_be_read_off_an_image_depends_on_its_noise_and_a_certain_reader_predicts_p():
    given, before = bayes_ceiling.scene(3, torch.arange(4), 24), 0.04 * torch.eye(34, dtype=torch.float64)
    known = torch.full((17,), 0.02, dtype=torch.float64)  # of the mean of two sides
    after = bayes_ceiling.uncertainty(given, 24, before).diagonal(dim1=1, dim2=2)
    assert (after < known).all()
    view = given.view | {"noise": torch.full((4,), 1e6)}
    blind = bayes_ceiling.uncertainty(replace(given, view=view), 24, before)
    torch.testing.assert_close(blind, torch.diag(known).expand(4, -1, -1))
    units = faces.sample(64, 3, size=16).action_units.double()
    p = faces.class_probabilities(units)
    sure = bayes_ceiling.predictions(units, torch.zeros(64, 17, 17, dtype=torch.float64), torch.Generator())
    torch.testing.assert_close(sure, p, atol=1e-3, rtol=0)
    wide = 0.05 * torch.eye(17, dtype=torch.float64).expand(64, -1, -1)
    unsure = bayes_ceiling.predictions(units, wide, torch.Generator())
    assert unsure.amax(1).mean() < p.amax(1).mean() - 0.05


def test_on_real_votes_every_loss_has_three_seeds_and_stands_between_floor_and_raters():
    known = record("distributions_ferplus")
    raw = [name for name in known["losses"] if not name.endswith(", T")]
    assert raw == list(distributions.terms(emotions.FERPLUS8))
    for name in raw:
        found = known["losses"][name]
        assert len(found["seeds"]) == len(known["trainings"][name]) == 3
        for score, (low, high) in found["interval_over_faces"].items():
            assert low <= found["mean"][score] <= high
    divergence = {name: each["interval_over_faces"]["KL"] for name, each in known["halves"].items()}
    assert divergence["five raters"][1] < divergence["kl"][0] < divergence["class shares"][0]


@pytest.mark.parametrize("classes", [emotions.FER7, emotions.FERPLUS8, emotions.AFFECTNET8])
def test_classes_of_two_sets_are_joined_by_name(classes):
    labels = np.arange(len(classes)).repeat(2)
    images = np.zeros((len(labels), 8, 8), np.uint8) + labels[:, None, None].astype(np.uint8)
    empty = np.full(len(labels), "")
    part = real.shared(datasets.FaceSet("made", images, labels, tuple(classes), empty, empty))
    assert len(part) == 14
    meant = [classes[shade] for shade in part.images[:, 0, 0]]
    assert [emotions.FER7[label] for label in part.labels] == meant


@pytest.mark.parametrize("name", ["cross_set_fer2013", "cross_set_muxspace"])
def test_the_record_of_a_drop_agrees_with_its_parts(name):
    known = record(name)
    own, other = (known["test"][each] for each in known["test"])
    for score, lost in known["drop"].items():
        assert lost["value"] == pytest.approx(own[score]["value"] - other[score]["value"], abs=1e-9)
        assert lost["low"] < lost["value"] < lost["high"]


def test_the_script_for_a_gpu_runs_in_small_on_a_cpu(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    monkeypatch.setattr("sys.argv", ["benchmarks/gpu.py", "--tiny", "--data", str(tmp_path)])
    gpu.main()
    found = record("gpu")
    assert found["checks"]["furthest weight of a resumed run"] == 0
    assert found["checks"]["half precision is finite"]
    assert found["speeds"]["face-cnn"]["ratio"][0] > 0
    assert found["drawing"]["faces_per_second"] > 0
    assert "the part on accuracy is left out" in capsys.readouterr().out
