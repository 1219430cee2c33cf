"""Scores of distributions against SciPy, linear programs and torchmetrics; calibration; halves of votes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linprog
from scipy.spatial import distance
from sklearn.linear_model import LogisticRegression

from helpers import emotions, metrics

FER7 = emotions.distances(emotions.FER7)


def pairs(num=60, num_classes=7, seed=0):
    """Draw shares of ten votes, many of them 0, and predictions that are never 0."""
    rng = np.random.default_rng(seed)
    p = rng.multinomial(10, rng.dirichlet(np.full(num_classes, 0.4)), num) / 10
    return p, rng.dirichlet(np.full(num_classes, 0.5), num)


def row_by_row(function, p, q):
    return np.array([function(a, b) for a, b in zip(p, q, strict=True)])


ORACLES = {
    "KL": lambda p, q: stats.entropy(p, q),
    "JS": lambda p, q: distance.jensenshannon(p, q) ** 2,
    "MSE": lambda p, q: distance.sqeuclidean(p, q) / len(p),
    "TV": lambda p, q: distance.cityblock(p, q) / 2,
    "Chebyshev": distance.chebyshev,
    "Canberra": distance.canberra,
    "cosine": lambda p, q: 1 - distance.cosine(p, q),
    "intersection": lambda p, q: 1 - distance.braycurtis(p, q),
}


@pytest.mark.parametrize("name", ORACLES)
def test_scores_of_each_face_equal_scipy_s(name):
    p, q = pairs()
    found = metrics.distribution_scores(FER7)[name](p, q)
    assert found.shape == (60,)
    np.testing.assert_allclose(found, row_by_row(ORACLES[name], p, q), rtol=1e-9, atol=1e-12)


def test_clark_of_a_pair_worked_on_paper():
    """Differences over sums: 1/3, 1, 0 / 0 and 1/3, so the root of 11/9."""
    p, q = np.array([[0.4, 0.2, 0.0, 0.4]]), np.array([[0.2, 0.0, 0.0, 0.8]])
    scores = metrics.distribution_scores(1 - np.eye(4))
    assert scores["Clark"](p, q) == pytest.approx(np.sqrt(11 / 9))
    assert scores["Canberra"](p, q) == pytest.approx(5 / 3)


def test_every_score_is_perfect_for_the_truth_and_for_nothing_else():
    p, q = pairs()
    for name, score in metrics.distribution_scores(FER7).items():
        best = 1.0 if name in metrics.HIGHER_IS_BETTER else 0.0
        np.testing.assert_allclose(score(p, p), best, atol=1e-7)
        worse = score(p, q)
        assert (worse < 1).all() if best else (worse > 0).all()


# --- earth


def cheapest_plan(p, q, cost):
    """Return the earth mover's distance of one pair, as a linear program over all plans."""
    size = len(p)
    plan = np.arange(size * size).reshape(size, size)
    sums = np.zeros((2 * size, size * size))
    for i in range(size):
        sums[i, plan[i]] = sums[size + i, plan[:, i]] = 1
    return linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([p, q]), method="highs").fun


def euclidean(num_classes, seed=0):
    at = np.random.default_rng(seed).normal(size=(num_classes, 2))
    return distance.cdist(at, at)


@pytest.mark.parametrize(
    "cost",
    [FER7, emotions.distances(emotions.FERPLUS8), euclidean(3), euclidean(9), euclidean(13), 1 - np.eye(5)],
    ids=["FER7", "FERPLUS8", "three", "nine", "thirteen", "all alike"],
)
def test_earth_moved_equals_a_linear_program_a_face(cost):
    p, q = pairs(40, len(cost))
    expected = row_by_row(lambda a, b: cheapest_plan(a, b, cost), p, q)
    np.testing.assert_allclose(metrics.emd(p, q, cost), expected, atol=1e-6)


def test_earth_on_a_line_equals_scipy_s():
    at = np.array([0.0, 0.5, 2.0, 3.0, 7.0])
    p, q = pairs(50, 5)
    expected = row_by_row(lambda a, b: stats.wasserstein_distance(at, at, a, b), p, q)
    np.testing.assert_allclose(metrics.emd(p, q, abs(at[:, None] - at)), expected, atol=1e-6)


def test_earth_between_two_classes_and_where_all_are_one_apart():
    p, q = pairs(20, 2)
    np.testing.assert_allclose(metrics.emd(p, q, np.array([[0, 3.0], [3, 0]])), 3 * abs(p - q)[:, 0])
    p, q = pairs(20, 6)
    np.testing.assert_allclose(metrics.emd(p, q, 1 - np.eye(6)), abs(p - q).sum(axis=1) / 2, atol=1e-6)


@pytest.mark.parametrize(
    "cost",
    [
        np.ones((7, 7)),
        np.zeros((7, 7)),
        np.triu(FER7),
        FER7[:6, :6],
        np.where(np.arange(49).reshape(7, 7) % 7 == 3, 9, FER7),
        np.array([[0, 1, 5.0], [1, 0, 1], [5, 1, 0]]),
    ],
)
def test_distances_that_are_none_are_refused(cost):
    size = 3 if len(cost) == 3 else 7
    with pytest.raises(ValueError, match="distances must be") as caught:
        metrics.emd(*pairs(3, size), cost)
    assert "\n" not in str(caught.value)


# --- how sure


def test_entropy_equals_scipy_s():
    p, _ = pairs()
    np.testing.assert_allclose(metrics.entropy(p), stats.entropy(p, axis=1), atol=1e-12)


@pytest.mark.parametrize("num_bins", [5, 15])
def test_soft_calibration_error_is_the_hard_one_of_every_vote(num_bins):
    """Ten votes a face: as if the face stood there ten times, each time with one rater's label."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    p, q = pairs(400)
    labels = np.concatenate([np.repeat(np.arange(7), votes) for votes in np.round(10 * p).astype(int)])
    theirs = multiclass_calibration_error(
        torch.from_numpy(np.repeat(q, 10, axis=0)), torch.from_numpy(labels), 7, n_bins=num_bins, norm="l1"
    )
    assert metrics.expected_calibration_error(p, q, num_bins) == pytest.approx(float(theirs), abs=1e-6)


def test_certain_votes_make_the_soft_error_the_hard_one():
    _, q = pairs(300)
    labels = np.random.default_rng(1).integers(7, size=300)
    soft = metrics.expected_calibration_error(np.eye(7)[labels], q)
    assert soft == pytest.approx(metrics.expected_calibration_error(labels, q))


def test_the_truth_itself_is_calibrated_softly_but_not_by_its_labels():
    _, p = pairs(2000)
    assert metrics.expected_calibration_error(p, p) == pytest.approx(0.0, abs=1e-12)
    assert metrics.expected_calibration_error(p.argmax(axis=1), p) > 0.2


# --- temperature


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_temperature_undoes_what_the_logits_were_multiplied_by(factor):
    _, p = pairs(500)
    assert metrics.temperature(factor * np.log(p), p) == pytest.approx(factor, rel=1e-4)


def test_temperature_of_two_classes_equals_a_logistic_regression_without_intercept():
    rng = np.random.default_rng(0)
    z = rng.normal(size=2000) * 3
    labels = (rng.random(2000) < 1 / (1 + np.exp(-z / 2.5))).astype(int)
    fitted = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10).fit(z[:, None], labels)
    found = metrics.temperature(np.stack([np.zeros(2000), z], axis=1), labels)
    assert found == pytest.approx(1 / fitted.coef_[0, 0], rel=1e-4)


def test_temperature_changes_no_answer_and_lowers_the_loss():
    p, q = pairs(300)
    logits = 5 * np.log(q)
    heat = metrics.temperature(logits, p)
    before, after = (metrics.softmax(logits / t) for t in (1.0, heat))
    np.testing.assert_array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert metrics.kl_divergence(p, after).mean() < metrics.kl_divergence(p, before).mean()


# --- halves


def test_halves_add_up_to_the_votes_and_are_drawn_by_chance():
    votes = np.random.default_rng(0).multinomial(10, [0.5, 0.3, 0.2], size=4000)
    first, second = metrics.split_half(votes, seed=1)
    np.testing.assert_allclose(5 * first + 5 * second, votes)
    np.testing.assert_allclose(first.mean(axis=0), second.mean(axis=0), atol=0.02)
    counts = np.round(5 * first[(votes == [5, 3, 2]).all(axis=1), 0]).astype(int)
    expected = stats.hypergeom(10, 5, 5).pmf(np.arange(6))
    np.testing.assert_allclose(np.bincount(counts, minlength=6) / len(counts), expected, atol=0.08)
    assert not np.array_equal(first, metrics.split_half(votes, seed=2)[0])


def test_of_an_odd_number_one_rater_is_left_out():
    first, second = metrics.split_half(np.array([[3, 0], [0, 7]]))
    np.testing.assert_array_equal(first, [[1, 0], [0, 1]])
    np.testing.assert_array_equal(second, first)


def test_smoothed_counts_the_prior_as_votes():
    found = metrics.smoothed(np.array([[0.6, 0.4, 0.0]]), np.array([0.5, 0.2, 0.3]), num_votes=5)
    np.testing.assert_allclose(found, [[3.5 / 6, 2.2 / 6, 0.3 / 6]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.split_half([[0.5, 0.5]]), "counts"),
        (lambda: metrics.split_half([[1, 0]]), "two votes"),
        (lambda: metrics.temperature(np.zeros((3, 2)), np.zeros((3, 4))), "same shape"),
        (lambda: metrics.kl_divergence(np.zeros((3, 2)), np.zeros((3, 4))), "same shape"),
    ],
)
def test_a_mistake_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
