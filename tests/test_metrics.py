"""Scores against scikit-learn, SciPy, torchmetrics, krippendorff, the literature; simulated intervals."""

from __future__ import annotations

from functools import partial

import krippendorff
import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from scipy import stats
from scipy.optimize import linprog
from scipy.spatial import distance
from torchmetrics.functional.classification import multiclass_calibration_error

from helpers import emotions, metrics

TIGHT = {"rel": 1e-6, "abs": 1e-9}
FER7 = emotions.distances(emotions.FER7)


def answers(num=400, num_classes=7, seed=0, skill=0.6):
    rng = np.random.default_rng(seed)
    labels = rng.choice(num_classes, size=num, p=rng.dirichlet(np.ones(num_classes)))
    return labels, np.where(rng.random(num) < skill, labels, rng.integers(num_classes, size=num))


def pairs(num=60, num_classes=7, seed=0):
    """Return shares of ten votes, many of them 0, and predictions that are never 0."""
    rng = np.random.default_rng(seed)
    p = rng.multinomial(10, rng.dirichlet(np.full(num_classes, 0.4)), num) / 10
    return p, rng.dirichlet(np.full(num_classes, 0.5), num)


def row_by_row(function, p, q):
    return np.array([function(a, b) for a, b in zip(p, q, strict=True)])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (metrics.accuracy, oracle.accuracy_score),
        (metrics.macro_f1, partial(oracle.f1_score, average="macro")),
        (metrics.weighted_f1, partial(oracle.f1_score, average="weighted")),
        (metrics.balanced_accuracy, oracle.balanced_accuracy_score),
        (metrics.cohens_kappa, oracle.cohen_kappa_score),
    ],
)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_class_scores_equal_scikit_learn(ours, theirs, seed):
    labels, predictions = answers(seed=seed, skill=seed / 4)
    for rows in (slice(None), slice(9)):  # of the few, most lack a class
        expected = theirs(labels[rows], predictions[rows])
        assert ours(labels[rows], predictions[rows]) == pytest.approx(expected, **TIGHT)


def test_scores_over_given_classes_and_of_each_class_equal_scikit_learn():
    labels, predictions = answers(num_classes=5)
    for ours, theirs in (
        (metrics.macro_f1, oracle.f1_score),
        (metrics.balanced_accuracy, oracle.recall_score),
    ):
        expected = theirs(labels, predictions, labels=[1, 3, 6], average="macro", zero_division=0)
        assert ours(labels, predictions, [1, 3, 6]) == pytest.approx(expected, **TIGHT)
    theirs = oracle.precision_recall_fscore_support(labels, predictions, labels=range(6), zero_division=0)
    for ours, expected in zip(metrics.per_class(labels, predictions, num_classes=6), theirs, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-9)  # the sixth class never occurs
    table = metrics.confusion(labels, predictions, 7)  # truth in rows
    np.testing.assert_array_equal(table, oracle.confusion_matrix(labels, predictions, labels=range(7)))


@pytest.mark.parametrize("ties", [False, True])
def test_threshold_curves_equal_scikit_learn(ties):
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.3
    score = rng.normal(size=300) + positive
    score = np.round(score * 2) if ties else score
    curve = metrics.roc(positive, score)
    x, y, _ = oracle.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose([curve.x, curve.y], [x, y], atol=1e-12)
    mann_whitney = stats.mannwhitneyu(score[positive], score[~positive]).statistic
    assert curve.area == pytest.approx(mann_whitney / positive.sum() / (~positive).sum(), **TIGHT)
    curve = metrics.precision_recall(positive, score)
    precision, recall, _ = oracle.precision_recall_curve(positive, score)
    np.testing.assert_allclose([curve.x, curve.y], [recall[-2::-1], precision[-2::-1]], atol=1e-12)
    assert curve.area == pytest.approx(oracle.average_precision_score(positive, score), **TIGHT)


def test_log_loss_equals_scikit_learn_and_stays_finite():
    labels, p = np.random.default_rng(0).integers(7, size=60), pairs()[1]
    assert metrics.log_loss(labels, p) == pytest.approx(oracle.log_loss(labels, p, labels=range(7)), **TIGHT)
    np.testing.assert_allclose(metrics.softmax(np.float32([[1e4, 0.0, -1e4]])), [[1, 0, 0]])
    assert metrics.log_loss([0], [[0.0, 1.0]]) == pytest.approx(-np.log(2.0**-52))
    assert metrics.log_loss(labels, np.full_like(p, 1 / 7)) == pytest.approx(np.log(7), **TIGHT)


@pytest.mark.parametrize("num_bins", [5, 15])
def test_calibration_errors_equal_torchmetrics(num_bins):
    """The soft one is the hard one of every vote: as if a face stood there ten times, each with one label."""
    p, q = pairs(400)
    votes = np.concatenate([np.repeat(np.arange(7), each) for each in np.round(10 * p).astype(int)])
    labels = np.random.default_rng(1).integers(7, size=400)
    for truth, one, shown in ((labels, labels, q), (p, votes, np.repeat(q, 10, axis=0))):
        how = {"num_classes": 7, "n_bins": num_bins, "norm": "l1"}
        theirs = multiclass_calibration_error(torch.from_numpy(shown), torch.from_numpy(one), **how)
        ours = metrics.expected_calibration_error(truth, q, num_bins)
        assert ours == pytest.approx(float(theirs), abs=1e-6)
    assert metrics.calibration(labels, q)[:, 0].sum() == 400
    assert metrics.calibration([0], [[0.5, 0.5]], 2)[0, 0] == 1  # a bin holds its upper edge
    assert metrics.expected_calibration_error(p, p) == pytest.approx(0.0, abs=1e-12)
    assert metrics.expected_calibration_error(p.argmax(axis=1), p) > 0.2


def test_temperature_minimises_the_log_loss_and_undoes_a_factor():
    rng, p = np.random.default_rng(0), pairs(500)[1]
    for factor in (0.3, 4.0):
        assert metrics.temperature(factor * np.log(p), p) == pytest.approx(factor, rel=1e-4)
    labels, logits = (p.cumsum(axis=1) > rng.random((500, 1))).argmax(axis=1), 5 * np.log(p + 1e-3)
    best = metrics.temperature(logits, labels)
    losses = [oracle.log_loss(labels, metrics.softmax(logits / t)) for t in (best, 0.95 * best, 1.05 * best)]
    assert losses[0] == min(losses)


def numbers(num=200, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-1, 1, size=(num, 2))
    return truth, 0.6 * truth + rng.normal(0.1, 0.2, size=truth.shape)


def lin(truth, predicted):
    """Return Pearson's r times C_b = 2 / (v + 1/v + u²), u from population moments (Lin 1989)."""
    v = stats.tstd(truth) / stats.tstd(predicted)
    u = (truth.mean() - predicted.mean()) / np.sqrt(np.std(truth) * np.std(predicted))
    return stats.pearsonr(truth, predicted).statistic * 2 / (v + 1 / v + u**2)


ORACLES = {
    "rmse": lambda t, p: oracle.mean_squared_error(t, p) ** 0.5,
    "mae": oracle.mean_absolute_error,
    "r2": oracle.r2_score,
    "pearson": lambda t, p: stats.pearsonr(t, p).statistic,
    "ccc": lin,
    "sagr": lambda t, p: oracle.accuracy_score(t > 0, p > 0),
}


@pytest.mark.parametrize("name", ORACLES)
def test_scores_of_numbers_equal_their_oracle_and_leave_unknown_truth_out(name):
    ours, theirs = getattr(metrics, name), ORACLES[name]
    truth, predicted = numbers()
    expected = [theirs(truth[:, i], predicted[:, i]) for i in range(2)]
    np.testing.assert_allclose(ours(truth, predicted), expected, rtol=1e-6)
    truth[::3, 1] = np.nan
    known = ~np.isnan(truth[:, 1])
    assert ours(truth, predicted)[1] == pytest.approx(theirs(truth[known, 1], predicted[known, 1]), **TIGHT)
    predicted[5, 0] = np.nan  # a broken prediction is not hidden
    assert np.isnan(ours(truth, predicted)[0])
    assert np.isnan(ours(np.full(5, np.nan), np.zeros(5)))


@pytest.mark.parametrize("value", [0.1, 1 / 3, -0.7])
def test_scores_of_what_is_constant_are_undefined_not_noise(value):
    still, moving = np.full(7, value), np.linspace(-1, 1, 7)
    undefined = [metrics.r2(still, moving), metrics.pearson(still, moving), metrics.pearson(moving, still)]
    assert np.isnan([*undefined, metrics.ccc(still, still), metrics.cohens_kappa([1, 1], [1, 1])]).all()
    assert metrics.sagr([0.0, 0.5, -0.5, 0.0], [0.0, 0.1, 0.1, -0.1]) == 0.5


def test_within_class_ccc_is_lins_class_by_class_and_nothing_for_knowing_the_class_alone():
    truth, predicted = numbers()
    rng = np.random.default_rng(0)
    labels = rng.choice(4, size=len(truth), p=[0.6, 0.25, 0.1, 0.05])
    parts = [labels == k for k in range(4)]
    each = [[lin(truth[part, i], predicted[part, i]) for i in (0, 1)] for part in parts]
    expected = np.average(each, axis=0, weights=[part.sum() for part in parts])
    np.testing.assert_allclose(metrics.within_class_ccc(labels, truth, predicted), expected, rtol=1e-6)
    labels, centers = rng.integers(5, size=400), rng.uniform(-0.8, 0.8, size=(5, 2))
    truth = centers[labels] + rng.normal(0, 0.1, size=(400, 2))
    means = np.stack([truth[labels == k].mean(axis=0) for k in range(5)])
    assert (metrics.ccc(truth, means[labels]) > 0.7).all()
    np.testing.assert_allclose(metrics.within_class_ccc(labels, truth, means[labels]), 0, atol=1e-12)
    assert np.isnan(metrics.within_class_ccc([0, 1], [0.1, 0.2], [0.2, 0.1]))  # classes of one do not count


BY_SCIPY = {
    "KL": lambda p, q: stats.entropy(p, q),
    "JS": lambda p, q: distance.jensenshannon(p, q) ** 2,
    "MSE": lambda p, q: distance.sqeuclidean(p, q) / len(p),
    "L1": distance.cityblock,
    "TV": lambda p, q: distance.cityblock(p, q) / 2,
    "Chebyshev": distance.chebyshev,
    "Canberra": distance.canberra,
    "cosine": lambda p, q: 1 - distance.cosine(p, q),
    "intersection": lambda p, q: 1 - distance.braycurtis(p, q),
}


def test_scores_of_each_face_equal_scipy_s_and_are_perfect_for_the_truth():
    p, q = pairs()
    scores = metrics.distribution_scores(FER7)
    assert set(scores) == {*BY_SCIPY, "EMD", "Clark"}
    for name, score in scores.items():
        best = 1.0 if name in ("cosine", "intersection") else 0.0
        np.testing.assert_allclose(score(p, p), best, atol=1e-7)
        if name in BY_SCIPY:
            np.testing.assert_allclose(score(p, q), row_by_row(BY_SCIPY[name], p, q), rtol=1e-9, atol=1e-12)
    # differences over sums of a pair on paper: 1/3, 1, 0 / 0 and 1/3
    clark = scores["Clark"]([[0.4, 0.2, 0.0, 0.4]], [[0.2, 0.0, 0.0, 0.8]])
    assert clark == pytest.approx(np.sqrt(11 / 9))
    np.testing.assert_array_equal(scores["EMD"](p, q), metrics.emd(p, q, FER7))
    np.testing.assert_allclose(metrics.kl_divergence([[1.0, 0.0]], [[0.0, 1.0]]), [np.inf])
    np.testing.assert_allclose(metrics.entropy(p), stats.entropy(p, axis=1), atol=1e-12)


def cheapest_plan(p, q, cost):
    """Return the earth mover's distance of one pair, as a linear program over all plans."""
    plan = np.arange(len(p) ** 2).reshape(len(p), -1)
    sums = np.array([np.isin(plan, each).ravel() for each in (*plan, *plan.T)], float)
    return linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([p, q]), method="highs").fun


@pytest.mark.parametrize("size", [2, 3, 7, 8, 13])
def test_earth_moved_equals_a_linear_program_a_face(size):
    places = np.random.default_rng(0).normal(size=(size, 2))
    cost = distance.cdist(places, places)
    p, q = pairs(30, size)
    expected = row_by_row(lambda a, b: cheapest_plan(a, b, cost), p, q)
    np.testing.assert_allclose(metrics.emd(p, q, cost), expected, atol=1e-6)


@pytest.mark.parametrize(
    "cost",
    [
        np.ones((7, 7)),
        np.zeros((7, 7)),
        FER7 + np.triu(np.ones((7, 7)), 1) / 99,
        FER7[:6, :6],
        np.where(FER7 > 1, 9, FER7),
    ],
)
def test_distances_that_are_none_are_refused(cost):
    with pytest.raises(ValueError, match="distances must be"):
        metrics.emd(*pairs(3), cost)


# Fourteen raters, ten subjects, five classes: the textbook example of Fleiss' kappa, which is 0.210.
TEXTBOOK = ["0 0 0 0 14", "0 2 6 4 2", "0 0 3 5 6", "0 3 9 2 0", "2 2 8 1 1", "7 7 0 0 0", "3 2 6 3 0"]
TEXTBOOK += ["2 5 3 2 2", "6 5 2 1 0", "0 2 2 3 7"]
# Krippendorff (2011), section C: four observers, 0 where there is no answer; his alpha is 0.743.
OBSERVERS = ["123321412000", "123322412503", "033323422510", "123324412510"]


def test_agreement_of_the_textbooks():
    votes = np.array([row.split() for row in TEXTBOOK], dtype=int)
    assert metrics.fleiss_kappa(votes) == pytest.approx(0.210, abs=5e-4)
    given = np.array([list(row) for row in OBSERVERS], dtype=int) - 1
    assert metrics.krippendorff_alpha(metrics.tally(*given)) == pytest.approx(0.743, abs=5e-4)
    np.testing.assert_array_equal(metrics.tally([0, 2, -1], [0, 1, -1]), [[2, 0, 0], [0, 1, 1], [0, 0, 0]])
    assert metrics.tally([0, 1], num_classes=7).shape == (2, 7)
    assert metrics.fleiss_kappa(np.vstack([votes, np.eye(5, dtype=int)])) == metrics.fleiss_kappa(votes)


@pytest.mark.parametrize(("num_raters", "missing"), [(2, 0.0), (5, 0.3)])
def test_alpha_equals_the_published_package(num_raters, missing):
    rng = np.random.default_rng(num_raters)
    guess = rng.integers(6, size=(num_raters, 80))
    given = np.where(rng.random(guess.shape) < 0.6, rng.integers(6, size=80), guess)
    given = np.where(rng.random(guess.shape) < missing, -1, given)
    theirs = krippendorff.alpha(np.where(given < 0, np.nan, given), level_of_measurement="nominal")
    assert metrics.krippendorff_alpha(metrics.tally(*given)) == pytest.approx(theirs, **TIGHT)
    assert np.isnan(metrics.krippendorff_alpha([[3, 0], [2, 0]]))


@pytest.mark.parametrize("strict", [False, True])
def test_rater_accuracy_equals_holding_out_every_vote(strict):
    votes, held_out = np.random.default_rng(1).multinomial(5, [0.4, 0.3, 0.2, 0.1], size=60), []
    for row in votes:
        cast = np.repeat(np.arange(4), row)
        for held in range(5):
            others = np.bincount(np.delete(cast, held), minlength=4)
            leaders = np.flatnonzero(others == others.max())
            if not strict or 2 * others.max() > others.sum():
                held_out.append((cast[held] in leaders) / len(leaders))
    assert metrics.rater_accuracy(votes, strict) == pytest.approx(np.mean(held_out), **TIGHT)


def test_halves_add_up_to_the_votes_and_are_random():
    votes = np.random.default_rng(0).multinomial(10, [0.5, 0.3, 0.2], size=4000)
    first, second = metrics.split_half(votes, seed=1)
    np.testing.assert_allclose(5 * first + 5 * second, votes)
    counts = np.round(5 * first[(votes == [5, 3, 2]).all(axis=1), 0]).astype(int)
    expected = stats.hypergeom(10, 5, 5).pmf(np.arange(6))
    np.testing.assert_allclose(np.bincount(counts, minlength=6) / len(counts), expected, atol=0.08)
    assert not np.array_equal(first, metrics.split_half(votes, seed=2)[0])
    np.testing.assert_array_equal(metrics.split_half(np.array([[3, 0], [0, 7]]))[0], [[1, 0], [0, 1]])
    found = metrics.smoothed(np.array([[0.6, 0.4, 0.0]]), np.array([0.5, 0.2, 0.3]), num_votes=5)
    np.testing.assert_allclose(found, [[3.5 / 6, 2.2 / 6, 0.3 / 6]])


def test_mcnemar_equals_the_exact_binomial_test():
    labels = np.zeros(60, dtype=int)
    a, b = labels.copy(), labels.copy()
    a[:5], b[5:19] = 1, 1  # b alone is right 5 times, a alone 14 times
    assert metrics.mcnemar(labels, a, b) == pytest.approx(stats.binomtest(5, 19, 0.5).pvalue, **TIGHT)
    assert metrics.mcnemar(labels, b, a) == metrics.mcnemar(labels, a, b)
    assert metrics.mcnemar(labels, a, a) == 1.0


def test_bootstrap_is_near_scipy_s():
    labels, predictions = answers(600)
    f1 = partial(oracle.f1_score, average="macro")
    ours = metrics.bootstrap(metrics.macro_f1, labels, predictions)
    how = {"paired": True, "vectorized": False, "n_resamples": 1000, "method": "percentile"}
    theirs = stats.bootstrap((labels, predictions), f1, random_state=1, **how).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(f1(labels, predictions), **TIGHT)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.1 * width)


def test_bootstrap_takes_the_same_rows_of_every_array_and_repeats_with_its_seed():
    x = np.random.default_rng(0).normal(size=(200, 3))
    interval = metrics.bootstrap(lambda a, b: float(abs(a - 2 * b).max()), 2 * x, x)
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert str(interval) == f"{interval}" == "0.000 [0.000, 0.000]"
    assert f"{metrics.Interval(0.6519, 0.6361, 0.6668):.1%}" == "65.2% [63.6%, 66.7%]"
    one, same, other = (metrics.bootstrap(np.mean, x[:, 0], seed=seed) for seed in (3, 3, 4))
    assert one == same != other


def people(rng):
    """Return hits on forty people, ten faces each: whom the model knows it gets right more often."""
    ease = rng.beta(1.0, 1.0, size=40)
    return (rng.random((40, 10)) < ease[:, None]).ravel(), np.repeat(np.arange(40), 10)


def coverage(sample, true_value, grouped, tries=150):
    """Return the share of simulated data sets whose 90 % interval holds the true value."""
    rng, inside = np.random.default_rng(0), 0
    for i in range(tries):
        values, groups = sample(rng)
        how = {"groups": groups} if grouped else {}
        interval = metrics.bootstrap(np.mean, values, resamples=300, seed=i, level=0.9, **how)
        inside += interval.low <= true_value <= interval.high
    return inside / tries


def test_a_90_per_cent_interval_holds_the_truth_and_faces_of_one_person_need_groups():
    # 3 standard errors of 150 tries are .07
    assert 0.83 < coverage(lambda rng: (rng.random(200) < 0.7, None), 0.7, grouped=False) < 0.97
    assert coverage(people, 0.5, grouped=True) > 0.83
    assert coverage(people, 0.5, grouped=False) < 0.75
    right = people(np.random.default_rng(0))[0]
    alone = metrics.bootstrap(np.mean, right, groups=np.full(len(right), -1))  # nobody knows whom
    plain = metrics.bootstrap(np.mean, right)
    assert alone.high - alone.low == pytest.approx(plain.high - plain.low, rel=0.1)


@pytest.mark.parametrize("score", [metrics.macro_f1, metrics.balanced_accuracy])
def test_a_sample_that_misses_a_rare_class_does_not_score_higher_for_it(score):
    """The rare class is never found: without it a sample would score 1 in place of 1/2."""
    labels = np.array([0] * 199 + [1])
    interval = metrics.bootstrap(score, labels, np.zeros(200, dtype=int))
    assert interval.value <= interval.high <= 0.5
    kappa = metrics.bootstrap(metrics.cohens_kappa, labels[190:], labels[190:])  # undefined without it
    assert (kappa.low, kappa.high) == (1.0, 1.0)


def test_metrics_for_the_loop_read_logits_and_heads():
    logits = np.array([[3.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    targets = {"labels": np.array([0, 1, 1]), "distribution": metrics.softmax(logits)}
    for outputs in (logits, {"labels": logits, "distribution": logits, "other": -logits}):
        assert metrics.on_labels(metrics.accuracy)(outputs, targets) == pytest.approx(2 / 3)
        expected = oracle.log_loss(targets["labels"], metrics.softmax(logits))
        assert metrics.on_probabilities(metrics.log_loss)(outputs, targets) == pytest.approx(expected)
        divergence = metrics.on_probabilities(metrics.kl_divergence, "distribution")
        assert divergence(outputs, targets) == pytest.approx(0.0, abs=1e-12)
    truth, predicted = numbers(40)
    for i, name in enumerate(("valence", "arousal")):
        expected = pytest.approx(metrics.ccc(truth[:, i], predicted[:, i]))
        for outputs in (predicted, {"valence_arousal": predicted}, {name: predicted[:, i : i + 1]}):
            assert metrics.on_dimension(metrics.ccc, name)(outputs, {"valence_arousal": truth}) == expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.accuracy([0, 1], [0]), "equally long"),
        (lambda: metrics.macro_f1([0, 1], [[0.1, 0.9], [0.2, 0.8]]), "argmax"),
        (lambda: metrics.accuracy([0, -1], [0, 1]), "integers from 0"),
        (lambda: metrics.accuracy([0.0, 1.0], [0, 1]), "integers from 0"),
        (lambda: metrics.confusion([0, 7], [0, 1], num_classes=7), "num_classes=7"),
        (lambda: metrics.log_loss([0], [[3.0, 1.0]]), "softmax"),
        (lambda: metrics.ccc(np.zeros(3), np.zeros(4)), "same shape"),
        (lambda: metrics.kl_divergence(np.zeros((3, 2)), np.zeros((3, 4))), "same shape"),
        (lambda: metrics.fleiss_kappa([[0.5, 0.5]]), "counts"),
        (lambda: metrics.fleiss_kappa([[1, 0]]), "two votes"),
        (lambda: metrics.split_half([[1, 0], [2, 1]]), "fewer than two votes"),
        (lambda: metrics.tally([0.5, 1.0]), "rows of classes"),
        (lambda: metrics.tally([0, 7], num_classes=7), "rows of classes from 0 to 6"),
        (lambda: metrics.bootstrap(metrics.accuracy, np.zeros(3, int), np.zeros(4, int)), "one length"),
        (lambda: metrics.bootstrap(np.mean, np.zeros(3), level=95), "level"),
    ],
)
def test_a_mistake_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_emd_of_thirteen_classes_survives_the_last_digits_of_float32():
    p, z = np.random.default_rng(0).dirichlet(np.full(13, 0.3), 400).astype("f4"), np.eye(13, dtype="f4") * 9
    q = metrics.softmax(z[np.arange(400) % 13] + p)
    apart = np.abs(np.subtract.outer(np.arange(13.0), np.arange(13.0)))
    assert np.isfinite(metrics.emd(p.astype(float), q, apart)).all()
