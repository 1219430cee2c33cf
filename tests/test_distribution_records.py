"""What notebook 06 shows of longer measurements: the way to the best, raters beside networks, each seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import r2_score

from benchmarks import cycles, distributions, seeing
from helpers import datasets, emotions, faces, metrics, models, training

RECORDS = Path(__file__).resolve().parents[1] / "data" / "results"
TIGHT = {"rel": 1e-9}


def pairs(num=400, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.dirichlet(np.full(num_classes, 0.5), num) for _ in range(2))


# --- how far it is


def test_the_way_is_0_at_the_class_shares_1_at_the_truth_and_linear_in_the_divergence():
    p, q = pairs()
    prior = p.mean(axis=0)
    assert distributions.way(p, np.tile(prior, (len(p), 1)), prior).value == pytest.approx(0)
    assert distributions.way(p, p, prior).value == pytest.approx(1)
    left, whole = stats.entropy(p, q, axis=1), stats.entropy(p, np.tile(prior, (len(p), 1)), axis=1)
    found = distributions.way(p, q, prior)
    assert found.value == pytest.approx(1 - left.sum() / whole.sum(), **TIGHT)
    assert found.low < found.value < found.high


def test_the_way_by_exact_p_is_the_way_by_votes_but_for_chance():
    """By votes: from the divergence of the class shares to that of p itself."""
    p, q = pairs(60_000)
    q = 0.6 * p + 0.4 * q
    prior = np.tile(p.mean(axis=0), (len(p), 1))
    votes = np.random.default_rng(1).multinomial(10, p) / 10
    least, said, most = (stats.entropy(votes, each, axis=1).mean() for each in (p, q, prior))
    exact = distributions.way(p[:20_000], q[:20_000], prior[0])
    assert exact.value == pytest.approx((most - said) / (most - least), abs=0.01)


def test_what_is_explained_of_the_action_units_equals_scikit_learn_s():
    rng = np.random.default_rng(0)
    units = rng.random((50, 17))
    foretold = units + rng.normal(0.2, 0.3, units.shape)
    expected = r2_score(units, foretold, multioutput="raw_values")
    np.testing.assert_allclose(list(distributions.explained(units, foretold).values()), expected)


def test_faces_drawn_for_the_limits_are_those_of_the_workbook_where_nothing_is_made_easier(tmp_path):
    plain, kept = distributions.drawn(70, 3), datasets.load("synthetic", tmp_path, num_faces=70, seed=3)
    for column in ("images", "labels", "distribution", "votes", "action_units", "subject"):
        np.testing.assert_array_equal(getattr(plain, column), getattr(kept, column))


def test_easier_faces_differ_in_nothing_but_what_is_named():
    plain = distributions.drawn(70, 3)
    for how in distributions.EASIER.values():
        easier = distributions.drawn(70, 3, **how)
        np.testing.assert_array_equal(easier.votes, plain.votes)
        np.testing.assert_array_equal(easier.action_units, plain.action_units)
        assert easier.images.shape != plain.images.shape or (easier.images != plain.images).any()
    one = distributions.drawn(70, 3, **distributions.EASIER["both"])
    at_rest = one.images[one.action_units.max(axis=1) == 0]
    assert len(at_rest) > 1
    assert np.abs(at_rest.astype(int) - at_rest[0]).mean() < 10  # grey levels: grain alone is left


def test_movement_is_the_action_units_times_how_far_the_person_s_face_moves():
    told = distributions.movement(300, 5)
    sides = told.images.reshape(-1, 17, 2)
    assert sides.min() == 0
    p = faces.class_probabilities(faces.sample(64, 5, size=16).action_units).numpy()
    np.testing.assert_allclose(told.distribution[:64], p, atol=1e-6)  # the same faces, seen by nobody
    assert (sides.max(axis=(1, 2)) > 1).any()  # some move farther than the average person ever does


def alike(pictures):
    """Return how each picture correlates with the mean of all, on average."""
    rows = stats.zscore(pictures.reshape(len(pictures), -1).astype(float), axis=1)
    return np.mean([np.corrcoef(row, rows.mean(axis=0))[0, 1] for row in rows])


def test_faces_are_placed_by_eyes_and_nose_and_keep_their_proportions():
    some = distributions.drawn(200, 3)
    where = some.landmarks.mean(axis=0)
    upright = distributions.placed(some, some.landmarks, where)
    assert upright.images.dtype == np.uint8
    there = distributions.placed(upright, np.tile(where, (200, 1, 1)), where)
    np.testing.assert_array_equal(there.images, upright.images)  # a second time changes nothing
    as_it_was, now = (alike(each.images[:, 12:36, 8:40]) for each in (some, upright))
    assert now > as_it_was + 0.03


def test_what_was_missed_of_landmarks_is_a_distance_in_pixels():
    truth = np.random.default_rng(0).uniform(0, 48, (5, 68, 2))
    assert cycles.missed_by(truth, truth + [3, 4])["all"] == pytest.approx(5)
    wrong = truth.copy()
    wrong[:, :27] += 9  # no part of eyes and nose
    assert cycles.missed_by(truth, wrong)["eyes and nose"] == 0


def grid_of(net, images):
    """Return the map that the dense layers read, ``[B, C, 6, 6]``."""
    seen = {}
    net.dense.register_forward_hook(lambda _, given, __: seen.update(map=given[0]))
    net(images)
    return seen["map"].unflatten(1, (-1, 6, 6))


def test_two_parts_of_a_face_start_alike_and_each_goes_its_own_way():
    options = {"stem": "unshuffle", "widths": (8, 8, 4), "pool_first": True, "readout": "grid"}
    net = models.FaceCNN({"labels": 7}, **options).eval()
    images = torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    whole, parts = grid_of(net, images), cycles.TwoParts(net).eval()
    assert models.num_parameters(parts) > models.num_parameters(net)
    far = [0, 1, 4, 5]  # rows that look no further than their part of the picture reaches
    torch.testing.assert_close(grid_of(parts, images)[:, :, far], whole[:, :, far])
    with torch.no_grad():
        parts.lower[2][0].weight += 1
    changed = (grid_of(parts, images) - whole).abs().amax(dim=(0, 1, 3)) > 0.01
    assert not changed[:2].any()
    assert changed[3:].all()


def test_a_network_that_looks_closer_starts_with_the_answers_it_had_and_learns_others():
    options = {"stem": "unshuffle", "widths": (8, 8, 4), "pool_first": True, "readout": "grid"}
    parts = cycles.TwoParts(models.FaceCNN({"labels": 7}, **options)).eval()
    images = torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    before, parameters = parts(images)["labels"], models.num_parameters(parts)
    closer = cycles.look_closer(parts).eval()
    assert models.num_parameters(closer) == parameters + 2 * (2 * 8 * 8 * 9 + 2 * 8 + 8)
    torch.testing.assert_close(closer(images)["labels"], before)
    seen = []
    closer.upper[0][1].register_forward_hook(lambda _, __, maps: seen.append(maps.shape[2:]))
    closer.train()(images)["labels"].square().mean().backward()
    assert seen == [(16, 24)]  # two thirds of the map, not yet pooled
    for blocks in (closer.upper, closer.lower):
        assert blocks[0][1].added[-1].weight.grad.abs().max() > 0


def test_the_reader_of_the_record_goes_as_far_as_the_record_says(tmp_path):
    record, seed = recorded("cycles"), distributions.JUDGED_SEED
    judged = datasets.load("synthetic", tmp_path, num_faces=1000, seed=seed)
    reader, prior, said = cycles.recorded(), np.array(record["class shares"]), record["strangers"][-1]
    far = cycles.how_far(reader.answers(judged, looks=[cycles.STRAIGHT]), judged, prior)
    for name, slack in (("way", 0.02), ("below Bayes", 0.01)):  # a quarter of the faces, in half precision
        assert far[name][1] < said[name][0] < far[name][2]
        assert far[name][0] == pytest.approx(said[name][0], abs=slack)


def test_five_looks_go_further_than_one(tmp_path):
    new = recorded("cycles")["judged anew"]
    assert new["five looks"]["way"][0] > new["one look"]["way"][0]
    faces, reader = distributions.drawn(300, 5), cycles.recorded()
    p, prior = faces.distribution.astype(float), faces.distribution.mean(axis=0, dtype=float)
    every = [reader.answers(faces, looks=[look])["labels"] for look in cycles.LOOKS]
    together = reader.answers(faces)["labels"]
    assert np.allclose(together, np.mean(every, axis=0), atol=1e-5)
    ways = [distributions.way(p, metrics.softmax(logits), prior).value for logits in every]
    assert distributions.way(p, metrics.softmax(together), prior).value > max(ways)


def test_the_weights_of_another_network_are_no_reader(tmp_path):
    training.save_weights(models.FaceCNN(7), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="weights of another network than this Reader"):
        cycles.recorded(tmp_path / "other.json")


def test_a_cycle_that_is_there_is_not_trained_again(tmp_path):
    some = distributions.drawn(80, 3)
    parts = [some.select(slice(64)), some.select(slice(64, None))]
    config = replace(cycles.CONFIG, epochs=1, batch_size=16)

    def tried(num_epochs, parts):
        net = distributions.better(some.classes, 0, widths=(4, 4, 4))
        took = cycles.cycle(net, parts, replace(config, epochs=num_epochs), tmp_path / "cycle")
        return took, training.predict(net, some)["labels"]

    first, again = tried(1, lambda: parts), tried(1, None)
    assert first[0] == again[0]
    np.testing.assert_allclose(first[1], again[1], atol=1e-6)
    with pytest.raises(TypeError):
        tried(2, None)  # an epoch is missing, so it asks for faces


# --- what can be seen


def test_the_reader_looks_at_the_faces_of_the_workbook():
    given = seeing.scene(3, torch.arange(64), 24)
    grain = (given.textures["grain"][:, 0] * given.view["noise"][:, None, None]).flatten(1)
    drawn = faces.sample(64, 3, size=24).images.flatten(1)
    seen = ((given.pixels(24) + grain).clamp(0, 1) * 255 + 0.5).byte()
    assert (seen == drawn).float().mean() > 0.999


def test_looking_leaves_less_open_and_nothing_is_read_off_a_picture_that_is_all_grain():
    given, before = seeing.scene(3, torch.arange(4), 24), 0.04 * torch.eye(34, dtype=torch.float64)
    known = torch.full((17,), 0.02, dtype=torch.float64)  # of the mean of two sides
    after = seeing.uncertainty(given, 24, before).diagonal(dim1=1, dim2=2)
    assert (after < known).all()
    clear = [faces.ACTION_UNITS.index(name) for name in ("AU12", "AU26")]  # a smile and a dropped jaw
    assert (after[:, clear] < known[clear] / 5).all()
    sharper = seeing.uncertainty(seeing.scene(3, torch.arange(4), 48), 48, before)
    assert sharper.diagonal(dim1=1, dim2=2).mean() < after.mean()
    view = given.view | {"noise": torch.full((4,), 1e6)}
    blind = seeing.uncertainty(replace(given, view=view), 24, before)
    torch.testing.assert_close(blind, torch.diag(known).expand(4, -1, -1))


def test_a_reader_who_is_certain_says_p_and_one_who_is_not_says_it_less_sharply():
    units = faces.sample(64, 3, size=16).action_units.double()
    p = faces.class_probabilities(units)
    certain = seeing.answers(units, torch.zeros(64, 17, 17, dtype=torch.float64), torch.Generator())
    torch.testing.assert_close(certain, p, atol=1e-3, rtol=0)
    wide = 0.05 * torch.eye(17, dtype=torch.float64).expand(64, -1, -1)
    assert seeing.answers(units, wide, torch.Generator()).amax(1).mean() < p.amax(1).mean() - 0.05


# --- raters and networks on one task


def rated(num=300, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(7, 0.4), num)
    votes = rng.multinomial(10, p)
    votes[0] = np.eye(7, dtype=int)[2]  # a single vote: no halves
    return p, SimpleNamespace(votes=votes)


def test_raters_class_shares_and_networks_foretell_the_same_five_votes():
    p, judged = rated()
    prior, distances = p.mean(axis=0), emotions.distances(emotions.FER7)
    found = distributions.halves(judged, prior, {"truth": [p], "twice": [p, p]}, distances)
    assert list(found) == ["class shares", "five raters", "truth", "twice"]
    kl = {name: each["mean"]["KL"] for name, each in found.items()}
    assert kl["truth"] == kl["twice"] < kl["five raters"] < kl["class shares"]
    for name, each in found.items():
        for score, (low, high) in each["interval_over_faces"].items():
            assert low <= each["mean"][score] <= high, (name, score)


def test_the_same_five_votes_are_foretold_as_counted_by_hand():
    p, judged = rated()
    some, others = metrics.split_half(judged.votes[1:], seed=0)
    np.testing.assert_allclose(5 * (some + others), judged.votes[1:])
    prior = p.mean(axis=0)
    raters = stats.entropy(others, (5 * some + prior) / 6, axis=1).mean()
    truth = stats.entropy(others, p[1:], axis=1).mean()
    found = distributions.halves(judged, prior, {"truth": [p]}, emotions.distances(emotions.FER7))
    assert found["five raters"]["mean"]["KL"] == pytest.approx(raters, **TIGHT)
    assert found["truth"]["mean"]["KL"] == pytest.approx(truth, **TIGHT)


# --- the records


def recorded(part):
    return json.loads((RECORDS / f"distributions_{part}.json").read_text())


def test_on_real_votes_every_loss_has_three_seeds_and_stands_between_floor_and_raters():
    record = recorded("ferplus")
    raw = [name for name in record["losses"] if not name.endswith(", T")]
    assert raw == list(distributions.terms(emotions.FERPLUS8))
    for name in raw:
        for row in (record["losses"][name], record["losses"][f"{name}, T"]):
            assert len(row["seeds"]) == len(record["trainings"][name]) == 3
            for score, (low, high) in row["interval_over_faces"].items():
                assert low <= row["mean"][score] <= high
                assert row["mean"][score] == pytest.approx(np.mean([one[score] for one in row["seeds"]]))
    halves = record["halves"]
    assert list(halves) == ["class shares", "five raters", *raw]
    assert (
        halves["kl"]["interval_over_faces"]["KL"][1] < halves["class shares"]["interval_over_faces"]["KL"][0]
    )
