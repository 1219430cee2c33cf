"""Scores against scikit-learn, SciPy, torchmetrics and cases from the literature; intervals by simulation."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from math import comb

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from helpers import metrics

TIGHT = {"rel": 1e-6, "abs": 1e-9}

# Fourteen raters, ten subjects, five classes: the worked example of Fleiss' kappa that textbooks and
# encyclopedias print, with agreement 0.378, chance 0.213 and kappa 0.210.
FLEISS_TABLE = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def answers(num=400, num_classes=7, seed=0, skill=0.6):
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, size=num, p=rng.dirichlet(np.ones(num_classes)))
    return labels, np.where(rng.random(num) < skill, labels, rng.integers(num_classes, size=num))


def probabilities(num=400, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(num_classes, size=num), rng.dirichlet(np.full(num_classes, 0.4), size=num)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.accuracy, oracle.accuracy_score),
        (metrics.macro_f1, partial(oracle.f1_score, average="macro")),
        (metrics.balanced_accuracy, oracle.balanced_accuracy_score),
        (metrics.cohens_kappa, oracle.cohen_kappa_score),
    ],
)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_class_scores_equal_scikit_learn(ours, theirs, seed):
    labels, predictions = answers(seed=seed, skill=seed / 5)
    assert ours(labels, predictions) == pytest.approx(theirs(labels, predictions), **TIGHT)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_macro_f1_equals_scikit_learn_where_classes_are_missing(pairs):
    labels, predictions = np.array(pairs).T
    theirs = oracle.f1_score(labels, predictions, average="macro", zero_division=0)
    assert metrics.macro_f1(labels, predictions) == pytest.approx(theirs, **TIGHT)


def test_macro_scores_over_given_classes_equal_scikit_learn():
    labels, predictions = answers(num_classes=5)
    chosen = [1, 3, 6]
    theirs = oracle.f1_score(labels, predictions, labels=chosen, average="macro", zero_division=0)
    assert metrics.macro_f1(labels, predictions, chosen) == pytest.approx(theirs, **TIGHT)
    theirs = oracle.recall_score(labels, predictions, labels=chosen, average="macro", zero_division=0)
    assert metrics.balanced_accuracy(labels, predictions, chosen) == pytest.approx(theirs, **TIGHT)


def test_per_class_scores_equal_scikit_learn_also_for_a_class_that_never_occurs():
    labels, predictions = answers(num_classes=5)
    found = metrics.per_class(labels, predictions, num_classes=6)
    theirs = oracle.precision_recall_fscore_support(labels, predictions, labels=range(6), zero_division=0)
    for ours, expected in zip(found, theirs, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-9)
    assert found.support[5] == 0


def test_confusion_has_truth_in_rows():
    np.testing.assert_array_equal(
        metrics.confusion([0, 0, 1], [0, 2, 1], 3), [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    )
    labels, predictions = answers()
    theirs = oracle.confusion_matrix(labels, predictions, labels=range(7))
    np.testing.assert_array_equal(metrics.confusion(labels, predictions, 7), theirs)


def test_kappa_of_two_who_know_one_class_is_not_a_number():
    assert np.isnan(metrics.cohens_kappa([1, 1], [1, 1]))
    assert metrics.cohens_kappa([0, 1, 0, 1], [1, 0, 1, 0]) == pytest.approx(-1.0)


def test_log_loss_equals_scikit_learn_and_stays_finite():
    labels, p = probabilities()
    assert metrics.log_loss(labels, p) == pytest.approx(oracle.log_loss(labels, p, labels=range(7)), **TIGHT)
    assert metrics.log_loss([0], [[0.0, 1.0]]) == pytest.approx(-np.log(2.0**-52))
    assert metrics.log_loss(labels, np.full_like(p, 1 / 7)) == pytest.approx(np.log(7), **TIGHT)


@pytest.mark.parametrize("num_bins", [5, 15, 30])
def test_calibration_error_equals_torchmetrics(num_bins):
    from torchmetrics.functional.classification import multiclass_calibration_error

    labels, p = probabilities(2000)
    theirs = multiclass_calibration_error(
        torch.from_numpy(p), torch.from_numpy(labels), num_classes=7, n_bins=num_bins, norm="l1"
    )
    assert metrics.expected_calibration_error(labels, p, num_bins) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_of_a_forecaster_who_is_right_as_often_as_he_says():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1.0, size=200_000)
    p = np.stack([sure, 1 - sure], axis=1)
    honest = np.where(rng.random(len(sure)) < sure, 0, 1)
    assert metrics.expected_calibration_error(honest, p) < 0.01
    assert metrics.expected_calibration_error(np.zeros_like(honest), p) == pytest.approx(0.25, abs=0.01)
    assert metrics.calibration(honest, p)[:, 0].sum() == len(sure)


def test_softmax_equals_torch_and_survives_huge_logits():
    logits = np.random.default_rng(0).normal(size=(50, 7)) * 30
    expected = torch.from_numpy(logits).log_softmax(dim=-1).numpy()
    # a sum of exponentials that is 1 + little rounds at 2^-52, which each chip's exp does in its own way
    np.testing.assert_allclose(np.log(metrics.softmax(logits)), expected, rtol=1e-9, atol=2.0**-51)
    np.testing.assert_allclose(metrics.softmax(np.float32([[1e4, 0.0, -1e4]])), [[1, 0, 0]])


def test_kl_equals_torch_for_each_face():
    p, q = probabilities(seed=1)[1], probabilities(seed=2)[1]
    p[:, 0] = 0
    p /= p.sum(axis=1, keepdims=True)
    expected = torch.nn.functional.kl_div(torch.from_numpy(q).log(), torch.from_numpy(p), reduction="none")
    np.testing.assert_allclose(metrics.kl_divergence(p, q), expected.sum(dim=1), rtol=1e-9)
    np.testing.assert_allclose(metrics.kl_divergence([[1.0, 0.0]], [[0.0, 1.0]]), [np.inf])
    np.testing.assert_allclose(metrics.kl_divergence([[1.0, 0.0]], [[1.0, 0.0]]), [0.0])


@pytest.mark.parametrize("seed", range(4))
def test_rmse_equals_scikit_learn_and_leaves_unknown_truth_out(seed):
    rng = np.random.default_rng(seed)
    truth, predicted = rng.normal(size=(2, 300, 2))
    theirs = [oracle.mean_squared_error(truth[:, i], predicted[:, i]) ** 0.5 for i in range(2)]
    np.testing.assert_allclose(metrics.rmse(truth, predicted), theirs, rtol=1e-9)
    gaps = np.where(rng.random(truth.shape) < 0.3, np.nan, truth)
    known = ~np.isnan(gaps[:, 1])
    expected = oracle.mean_squared_error(truth[known, 1], predicted[known, 1]) ** 0.5
    assert metrics.rmse(gaps, predicted)[1] == pytest.approx(expected, **TIGHT)


@pytest.mark.parametrize("seed", range(4))
def test_ccc_equals_pearson_times_the_bias_correction(seed):
    """Lin (1989): Pearson's r times C_b = 2 / (v + 1/v + u^2), u from population moments."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.2, 0.5, size=12)
    predicted = 0.6 * truth + rng.normal(-0.1, 0.2, size=12)
    v = stats.tstd(truth) / stats.tstd(predicted)
    u = (truth.mean() - predicted.mean()) / np.sqrt(np.std(truth) * np.std(predicted))
    expected = stats.pearsonr(truth, predicted).statistic * 2 / (v + 1 / v + u**2)
    assert metrics.ccc(truth, predicted) == pytest.approx(expected, **TIGHT)


def test_ccc_divides_by_n():
    """For two points, (0, 1) against (1, 2): population moments give 2 * .25 / (.25 + .25 + 1) = 1/3."""
    assert metrics.ccc([0.0, 1.0], [1.0, 2.0]) == pytest.approx(1 / 3)


def test_ccc_masks_unknown_truth_but_not_a_broken_prediction():
    truth, predicted = np.random.default_rng(0).normal(size=(2, 50))
    gaps = truth.copy()
    gaps[:10] = np.nan
    assert metrics.ccc(gaps, predicted) == pytest.approx(metrics.ccc(truth[10:], predicted[10:]), **TIGHT)
    assert np.isnan(metrics.ccc(truth, np.where(np.arange(50) == 20, np.nan, predicted)))
    assert np.isnan(metrics.ccc(np.full(4, np.nan), np.zeros(4)))
    assert np.isnan(metrics.ccc(np.ones(4), np.ones(4)))
    assert metrics.ccc(np.stack([truth, gaps], 1), np.stack([predicted, predicted], 1)).shape == (2,)


def test_fleiss_kappa_of_the_textbook_table():
    assert metrics.fleiss_kappa(FLEISS_TABLE) == pytest.approx(0.210, abs=5e-4)


def test_fleiss_kappa_equals_torchmetrics():
    from torchmetrics.functional.nominal import fleiss_kappa

    rng = np.random.default_rng(0)
    votes = np.stack([rng.multinomial(10, rng.dirichlet(np.ones(8) / 3)) for _ in range(200)])
    theirs = float(fleiss_kappa(torch.from_numpy(votes), mode="counts"))
    assert metrics.fleiss_kappa(votes) == pytest.approx(theirs, abs=2e-5)  # it adds 1e-5 to the denominator


def test_fleiss_kappa_equals_counting_the_pairs():
    votes = np.random.default_rng(2).multinomial(6, [0.5, 0.3, 0.2], size=30)
    cast = [np.repeat(np.arange(3), row) for row in votes]
    same = [np.mean([a == b for a, b in permutations(row, 2)]) for row in cast]
    pool = np.concatenate(cast)
    by_chance = np.mean(pool[:, None] == pool)
    expected = (np.mean(same) - by_chance) / (1 - by_chance)
    assert metrics.fleiss_kappa(votes) == pytest.approx(expected, **TIGHT)


def test_raters_who_toss_coins_have_no_kappa():
    votes = np.random.default_rng(0).multinomial(10, [0.5, 0.3, 0.2], size=20_000)
    assert metrics.fleiss_kappa(votes) == pytest.approx(0.0, abs=0.005)


def rater_accuracy_by_hand(votes, strict):
    """Hold out each vote in turn, as one would on paper."""
    scores = []
    for row in np.asarray(votes):
        cast = np.repeat(np.arange(len(row)), row)
        for held in range(len(cast)):
            others = np.bincount(np.delete(cast, held), minlength=len(row))
            leaders = np.flatnonzero(others == others.max())
            if not strict or 2 * others.max() > others.sum():
                scores.append((cast[held] in leaders) / len(leaders))
    return np.mean(scores)


@pytest.mark.parametrize("strict", [False, True])
def test_rater_accuracy_equals_holding_out_every_vote(strict):
    votes = np.random.default_rng(1).multinomial(5, [0.4, 0.3, 0.2, 0.1], size=60)
    expected = rater_accuracy_by_hand(votes, strict)
    assert metrics.rater_accuracy(votes, strict) == pytest.approx(expected, **TIGHT)


def test_mcnemar_equals_the_exact_binomial_test():
    labels = np.zeros(60, dtype=int)
    a, b = labels.copy(), labels.copy()
    a[:5], b[5:19] = 1, 1  # b alone is right 5 times, a alone 14 times
    assert metrics.mcnemar(labels, a, b) == pytest.approx(stats.binomtest(5, 19, 0.5).pvalue, **TIGHT)
    assert metrics.mcnemar(labels, a, b) == pytest.approx(2 * sum(comb(19, k) for k in range(6)) / 2**19)
    assert metrics.mcnemar(labels, b, a) == metrics.mcnemar(labels, a, b)
    assert metrics.mcnemar(labels, a, a) == 1.0


def test_interval_prints_as_the_notebooks_show_it():
    interval = metrics.Interval(0.6519, 0.6361, 0.6668)
    assert str(interval) == f"{interval}" == "0.652 [0.636, 0.667]"
    assert f"{interval:.1%}" == "65.2% [63.6%, 66.7%]"


def test_bootstrap_is_near_scipy_s():
    labels, predictions = answers(600)
    ours = metrics.bootstrap(metrics.macro_f1, labels, predictions, resamples=1000)
    theirs = stats.bootstrap(
        (labels, predictions),
        partial(oracle.f1_score, average="macro"),
        paired=True,
        vectorized=False,
        n_resamples=1000,
        method="percentile",
        random_state=1,
    ).confidence_interval
    assert ours.value == pytest.approx(oracle.f1_score(labels, predictions, average="macro"), **TIGHT)
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.1 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.1 * width)


@pytest.mark.parametrize("groups", [None, np.arange(300) // 3])
def test_the_fast_path_of_means_equals_the_slow_one(groups):
    labels, predictions = answers(300)
    fast = metrics.bootstrap(metrics.accuracy, labels, predictions, groups=groups)
    slow = metrics.bootstrap(lambda a, b: np.mean(a == b), labels, predictions, groups=groups)
    mean = metrics.bootstrap(np.mean, labels == predictions, groups=groups)
    for interval in (slow, mean):
        assert vars(fast) == pytest.approx(vars(interval), **TIGHT)


def test_bootstrap_takes_the_same_rows_of_every_array():
    x = np.random.default_rng(0).normal(size=(200, 3))
    interval = metrics.bootstrap(lambda a, b: float(abs(a - 2 * b).max()), 2 * x, x)
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_bootstrap_repeats_with_its_seed():
    values = np.random.default_rng(0).normal(size=100)
    assert metrics.bootstrap(np.mean, values, seed=3) == metrics.bootstrap(np.mean, values, seed=3)
    assert metrics.bootstrap(np.mean, values, seed=3) != metrics.bootstrap(np.mean, values, seed=4)


def coverage(draw, true_value, tries=400, **options):
    """Share of simulated data sets whose interval holds the true value."""
    rng = np.random.default_rng(0)
    inside = 0
    for i in range(tries):
        values, groups = draw(rng)
        grouped = {"groups": groups} if options.get("grouped") else {}
        interval = metrics.bootstrap(np.mean, values, resamples=400, seed=i, level=0.9, **grouped)
        inside += interval.low <= true_value <= interval.high
    return inside / tries


def test_a_90_percent_interval_holds_the_truth_90_times_in_100():
    share = coverage(lambda rng: (rng.random(200) < 0.7, None), 0.7)
    assert 0.86 < share < 0.94  # 4 standard errors of 400 tries are 0.06


def people(rng):
    """Forty people, ten faces each; whom the model knows it gets right more often."""
    ease = rng.beta(1.0, 1.0, size=40)
    return (rng.random((40, 10)) < ease[:, None]).ravel(), np.repeat(np.arange(40), 10)


def test_faces_of_one_person_need_groups():
    assert coverage(people, 0.5, tries=150, grouped=True) > 0.84
    assert coverage(people, 0.5, tries=150) < 0.75


def test_faces_of_unknown_people_stand_alone():
    right = people(np.random.default_rng(0))[0]
    alone = metrics.bootstrap(np.mean, right, groups=np.full(len(right), -1))
    plain = metrics.bootstrap(np.mean, right)
    assert alone.high - alone.low == pytest.approx(plain.high - plain.low, rel=0.1)


@pytest.mark.parametrize("score", [metrics.macro_f1, metrics.balanced_accuracy])
def test_a_draw_that_misses_a_rare_class_is_not_the_better_for_it(score):
    """The rare class is never found: without it a draw would score 1 in place of 1/2."""
    labels = np.array([0] * 199 + [1])
    interval = metrics.bootstrap(score, labels, np.zeros(200, dtype=int))
    assert interval.value <= interval.high <= 0.5


def test_bootstrap_leaves_undefined_draws_out():
    labels = np.array([0] * 10 + [1])
    kappa = metrics.bootstrap(metrics.cohens_kappa, labels, labels)
    assert (kappa.low, kappa.high) == (1.0, 1.0)


def test_metrics_for_the_loop_read_logits_and_heads():
    logits = np.array([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    targets = {"labels": np.array([0, 1, 1])}
    score = metrics.on_labels(metrics.accuracy)
    assert score(logits, targets) == pytest.approx(2 / 3)
    assert score({"labels": logits, "other": -logits}, targets) == pytest.approx(2 / 3)
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.tensor([0, 1, 1]))
    loss = metrics.on_probabilities(metrics.log_loss)
    assert loss(logits, targets) == pytest.approx(float(expected), **TIGHT)
    targets["distribution"] = metrics.softmax(logits)
    divergence = metrics.on_probabilities(metrics.kl_divergence, "distribution")
    assert divergence(logits, targets) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.accuracy([], []), "equally long"),
        (lambda: metrics.accuracy([0, 1], [0]), "equally long"),
        (lambda: metrics.accuracy([0, 1], [[0.1, 0.9], [0.2, 0.8]]), "argmax"),
        (lambda: metrics.accuracy([0, -1], [0, 1]), "integers from 0"),
        (lambda: metrics.accuracy([0.0, 1.0], [0, 1]), "integers from 0"),
        (lambda: metrics.confusion([0, 7], [0, 1], num_classes=7), "num_classes=7"),
        (lambda: metrics.log_loss([0], [[3.0, 1.0]]), "softmax"),
        (lambda: metrics.ccc(np.zeros(3), np.zeros(4)), "same shape"),
        (lambda: metrics.fleiss_kappa([[0.5, 0.5]]), "counts"),
        (lambda: metrics.fleiss_kappa([[1, 0]]), "two votes"),
        (lambda: metrics.bootstrap(np.mean, np.zeros(0)), "one length"),
        (lambda: metrics.bootstrap(metrics.ccc, np.zeros(3), np.zeros(4), level=0.9), "one length|shape"),
        (lambda: metrics.bootstrap(np.mean, np.zeros(3), level=95), "level"),
    ],
)
def test_a_mistake_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
