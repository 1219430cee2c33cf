"""What the multitask notebook counts with and trains on: scores against oracles, losses, learned weights."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from test_training import Faces, network, same, scores, stop_at
from torch import nn
from torch.nn import functional

from benchmarks import multitask
from helpers import datasets, faces, losses, metrics, models, training

TIGHT = {"rel": 1e-6, "abs": 1e-9}

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", sections B and C: answers, 0 where
# there is none, and the nominal alpha he works out.
BY_HAND = {
    "two observers, five categories": (
        [[1, 1, 2, 2, 4, 3, 3, 3, 5, 4, 4, 1], [2, 1, 2, 2, 2, 3, 3, 3, 5, 4, 4, 4]],
        0.692,
    ),
    "four observers, gaps": (
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
            [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
        ],
        0.743,
    ),
}


# ---------------------------------------------------------------- raters


@pytest.mark.parametrize("case", BY_HAND)
def test_krippendorff_s_alpha_as_he_works_it_out(case):
    answers, alpha = BY_HAND[case]
    assert metrics.krippendorff_alpha(metrics.tally(*np.array(answers) - 1)) == pytest.approx(alpha, abs=5e-4)


def raters(num=80, num_raters=4, num_classes=6, seed=0, missing=0.3):
    rng = np.random.default_rng(seed)
    truth = rng.integers(num_classes, size=num)
    guess = rng.integers(num_classes, size=(num_raters, num))
    answers = np.where(rng.random(guess.shape) < 0.6, truth, guess)
    return np.where(rng.random(guess.shape) < missing, -1, answers)


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("num_raters", [2, 5])
def test_krippendorff_s_alpha_equals_the_published_package(num_raters, missing):
    reason = "pip install krippendorff to compare alpha with the published package"
    package = pytest.importorskip("krippendorff", reason=reason)
    answers = raters(num_raters=num_raters, missing=missing)
    theirs = package.alpha(np.where(answers < 0, np.nan, answers), level_of_measurement="nominal")
    assert metrics.krippendorff_alpha(metrics.tally(*answers)) == pytest.approx(theirs, **TIGHT)


@pytest.mark.parametrize("seed", range(3))
def test_krippendorff_s_alpha_equals_counting_the_pairs(seed):
    """Each pair within a face counts 1 / (m - 1); the pool is all answers that have a partner."""
    answers = raters(20, seed=seed)
    pairs, pool = [], []
    for face in answers.T:
        given = face[face >= 0]
        if len(given) >= 2:
            pool += given.tolist()
            pairs += [
                ((given[i] != given[j]) / (len(given) - 1))
                for i in range(len(given))
                for j in range(len(given))
                if i != j
            ]
    pool = np.array(pool)
    by_chance = (pool[:, None] != pool).sum() / (len(pool) - 1)
    expected = 1 - sum(pairs) / by_chance
    assert metrics.krippendorff_alpha(metrics.tally(*answers)) == pytest.approx(expected, **TIGHT)


def test_alpha_of_two_raters_is_kappa_with_the_pooled_frequencies_and_n_minus_1():
    """Scott's pi corrected for the small sample: alpha = 1 - (1 - pi) (n - 1) / n, n answers in all."""
    one, other = raters(60, 2, missing=0.0)
    pooled = np.bincount(np.append(one, other)) / 120
    pi = (np.mean(one == other) - pooled @ pooled) / (1 - pooled @ pooled)
    alpha = metrics.krippendorff_alpha(metrics.tally(one, other))
    assert alpha == pytest.approx(1 - (1 - pi) * 119 / 120, **TIGHT)
    assert metrics.fleiss_kappa(metrics.tally(one, other)) == pytest.approx(pi, **TIGHT)


def test_alpha_at_its_ends():
    same_answers = np.array([0, 1, 2, 0, 1])
    assert metrics.krippendorff_alpha(metrics.tally(same_answers, same_answers)) == 1.0
    assert np.isnan(metrics.krippendorff_alpha([[3, 0], [2, 0]]))
    coins = np.random.default_rng(0).integers(3, size=(2, 40_000))
    assert metrics.krippendorff_alpha(metrics.tally(*coins)) == pytest.approx(0.0, abs=0.01)


def test_tally_counts_answers_and_leaves_gaps_out():
    np.testing.assert_array_equal(metrics.tally([0, 2, -1], [0, 1, -1]), [[2, 0, 0], [0, 1, 1], [0, 0, 0]])
    assert metrics.tally([0, 1], num_classes=7).shape == (2, 7)


# ---------------------------------------------------------------- thresholds


def scored(num=300, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    positive = rng.random(num) < 0.3
    score = rng.normal(size=num) + positive
    return positive, np.round(score * 2) if ties else score


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_roc_equals_scikit_learn(ties, seed):
    positive, score = scored(seed=seed, ties=ties)
    curve = metrics.roc(positive, score)
    x, y, _ = oracle.roc_curve(positive, score, drop_intermediate=False)
    np.testing.assert_allclose(curve.x, x, atol=1e-12)
    np.testing.assert_allclose(curve.y, y, atol=1e-12)
    assert curve.area == pytest.approx(oracle.roc_auc_score(positive, score), **TIGHT)
    pairs = stats.mannwhitneyu(score[positive], score[~positive]).statistic
    assert curve.area == pytest.approx(pairs / positive.sum() / (~positive).sum(), **TIGHT)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_precision_and_recall_equal_scikit_learn(ties, seed):
    positive, score = scored(seed=seed, ties=ties)
    curve = metrics.precision_recall(positive, score)
    precision, recall, _ = oracle.precision_recall_curve(positive, score)
    np.testing.assert_allclose(curve.x, recall[-2::-1], atol=1e-12)  # its last point is none of a threshold
    np.testing.assert_allclose(curve.y, precision[-2::-1], atol=1e-12)
    assert curve.area == pytest.approx(oracle.average_precision_score(positive, score), **TIGHT)


def test_a_score_that_knows_nothing_gets_a_half_and_the_share_of_the_class():
    positive = np.arange(1000) % 10 == 0
    assert metrics.roc(positive, np.zeros(1000)).area == 0.5
    assert metrics.precision_recall(positive, np.zeros(1000)).area == pytest.approx(0.1)
    assert metrics.roc(positive, positive).area == metrics.precision_recall(positive, positive).area == 1.0


# ---------------------------------------------------------------- valence and arousal


def degrees(num=200, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-1, 1, size=(num, 2))
    predicted = 0.6 * truth + rng.normal(0.1, 0.2, size=truth.shape)
    return truth, predicted


def torchmetrics_pearson(truth, predicted):
    from torchmetrics.functional import pearson_corrcoef

    return float(pearson_corrcoef(torch.from_numpy(predicted), torch.from_numpy(truth)))


ORACLES = {
    "mae": (metrics.mae, oracle.mean_absolute_error),
    "r2": (metrics.r2, oracle.r2_score),
    "pearson": (metrics.pearson, lambda t, p: stats.pearsonr(t, p).statistic),
    "pearson by torchmetrics": (metrics.pearson, torchmetrics_pearson),
    "sagr": (metrics.sagr, lambda t, p: oracle.accuracy_score(t > 0, p > 0)),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ORACLES)
def test_scores_equal_their_oracle_and_leave_unknown_truth_out(name, seed):
    ours, theirs = ORACLES[name]
    truth, predicted = degrees(seed=seed)
    expected = [theirs(truth[:, i], predicted[:, i]) for i in range(2)]
    np.testing.assert_allclose(ours(truth, predicted), expected, rtol=1e-6)
    truth[::3, 1] = np.nan
    known = ~np.isnan(truth[:, 1])
    assert ours(truth, predicted)[1] == pytest.approx(theirs(truth[known, 1], predicted[known, 1]), **TIGHT)
    assert ours(truth, predicted)[0] == pytest.approx(expected[0], **TIGHT)


@pytest.mark.parametrize("score", [metrics.mae, metrics.r2, metrics.pearson, metrics.sagr])
def test_a_broken_prediction_is_not_hidden_and_nothing_known_is_no_score(score):
    truth, predicted = degrees(20)
    predicted[3, 0] = np.nan
    assert np.isnan(score(truth, predicted)[0])
    assert np.isfinite(score(truth, predicted)[1])
    assert np.isnan(score(np.full(5, np.nan), np.zeros(5)))


@pytest.mark.parametrize("value", [0.1, 1 / 3, -0.7])
def test_scores_of_what_is_constant_are_undefined_not_noise(value):
    still, moving = np.full(7, value), np.linspace(-1, 1, 7)
    assert np.isnan(metrics.r2(still, moving))
    assert np.isnan(metrics.pearson(still, moving))
    assert np.isnan(metrics.pearson(moving, still))


def test_the_mean_explains_nothing_and_one_sign_is_right_as_often_as_it_occurs():
    truth = degrees()[0][:, 0]
    assert metrics.r2(truth, np.full_like(truth, truth.mean())) == pytest.approx(0.0, abs=1e-12)
    assert metrics.sagr(truth, np.ones_like(truth)) == np.mean(truth > 0)
    assert metrics.sagr([0.0, 0.5, -0.5, 0.0], [0.0, 0.1, 0.1, 0.1]) == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_within_class_ccc_equals_torchmetrics_class_by_class(seed):
    """torchmetrics divides variances by n - 1 and the difference of means by nothing; undo the first."""
    from torchmetrics.functional import concordance_corrcoef

    truth, predicted = (column[:, 0] for column in degrees(seed=seed))
    labels = np.random.default_rng(seed).choice(4, size=len(truth), p=[0.6, 0.25, 0.1, 0.05])
    total = weight = 0.0
    for k in range(4):
        x, y = torch.from_numpy(truth[labels == k]), torch.from_numpy(predicted[labels == k])
        theirs, n = float(concordance_corrcoef(y, x)), len(x)
        spread = float(x.var() + y.var())
        apart = float((x.mean() - y.mean()) ** 2)
        total += n * theirs * (spread + apart) / (spread + apart * n / (n - 1))
        weight += n
    assert metrics.within_class_ccc(labels, truth, predicted) == pytest.approx(total / weight, rel=1e-6)


def test_knowing_the_class_alone_scores_nothing_within_it():
    rng = np.random.default_rng(0)
    labels = rng.integers(5, size=400)
    centers = rng.uniform(-0.8, 0.8, size=(5, 2))
    truth = centers[labels] + rng.normal(0, 0.1, size=(400, 2))
    means = np.stack([truth[labels == k].mean(axis=0) for k in range(5)])
    assert (metrics.ccc(truth, means[labels]) > 0.9).all()
    np.testing.assert_allclose(metrics.within_class_ccc(labels, truth, means[labels]), 0, atol=1e-12)
    np.testing.assert_allclose(metrics.within_class_ccc(labels, truth, truth), 1)


def test_within_class_ccc_leaves_out_what_is_unknown_and_classes_of_one():
    truth, predicted = (column[:, 0] for column in degrees(30))
    labels = np.repeat([0, 1, 2], [20, 9, 1])
    expected = 20 * metrics.ccc(truth[:20], predicted[:20]) + 9 * metrics.ccc(truth[20:29], predicted[20:29])
    assert metrics.within_class_ccc(labels, truth, predicted) == pytest.approx(expected / 29, **TIGHT)
    truth[20:29] = np.nan
    expected = metrics.ccc(truth[:20], predicted[:20])
    assert metrics.within_class_ccc(labels, truth, predicted) == pytest.approx(expected, **TIGHT)
    predicted[0] = np.nan
    assert np.isnan(metrics.within_class_ccc(labels, truth, predicted))
    assert np.isnan(metrics.within_class_ccc([0, 1], [0.1, 0.2], [0.1, 0.2]))


def test_scores_for_the_loop_read_a_head_of_their_own_or_a_shared_one():
    truth, predicted = degrees(40)
    targets = {"valence_arousal": truth}
    for i, name in enumerate(("valence", "arousal")):
        score = metrics.on_dimension(metrics.ccc, name)
        expected = pytest.approx(metrics.ccc(truth[:, i], predicted[:, i]), **TIGHT)
        assert score(predicted, targets) == expected
        assert score({"valence_arousal": predicted, "labels": truth}, targets) == expected
        assert score({name: predicted[:, i : i + 1], "labels": truth}, targets) == expected


# ---------------------------------------------------------------- losses


def heads(num=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        "labels": torch.randn(num, 7, generator=generator, dtype=torch.float64),
        "valence": torch.randn(num, 1, generator=generator, dtype=torch.float64),
        "arousal": torch.randn(num, 1, generator=generator, dtype=torch.float64),
    }
    truth = torch.rand(num, 2, generator=generator, dtype=torch.float64) * 2 - 1
    return outputs, {"labels": torch.randint(7, (num,), generator=generator), "valence_arousal": truth}


TERMS = {
    "labels": losses.on_labels(),
    "valence": losses.on_dimension("valence"),
    "arousal": losses.on_dimension("arousal"),
}


def test_the_loss_of_one_dimension_is_torch_s_on_its_column():
    outputs, targets = heads()
    for i, name in enumerate(("valence", "arousal")):
        column = targets["valence_arousal"][:, i]
        expected = functional.mse_loss(outputs[name].squeeze(1), column)
        torch.testing.assert_close(losses.on_dimension(name)(outputs, targets), expected)
        expected = losses.ccc_loss(outputs[name].squeeze(1), column)
        torch.testing.assert_close(losses.on_dimension(name, losses.ccc_loss)(outputs, targets), expected)


def test_fixed_weights_add_up_what_they_say():
    outputs, targets = heads()
    values = {name: term(outputs, targets) for name, term in TERMS.items()}
    loss = losses.weighted_sum(TERMS, {"valence": 3.0, "arousal": 0.0})
    torch.testing.assert_close(loss(outputs, targets), values["labels"] + 3 * values["valence"])
    torch.testing.assert_close(losses.weighted_sum(TERMS, {})(outputs, targets), sum(values.values()))


def test_learned_weights_are_the_likelihoods_of_the_paper():
    """-log N(y | f, sigma²) less its constant for the degrees, CE / sigma² + log sigma for the labels."""
    outputs, targets = heads()
    loss = losses.UncertaintyWeighted(TERMS, ["valence", "arousal"]).double()
    sigma = torch.tensor([0.7, 0.2, 1.5], dtype=torch.float64)
    with torch.no_grad():
        loss.slow.copy_(2 * sigma.log())
    expected = functional.cross_entropy(outputs["labels"], targets["labels"]) / sigma[0] ** 2 + sigma[0].log()
    for i, name in enumerate(("valence", "arousal")):
        normal = torch.distributions.Normal(outputs[name].squeeze(1), sigma[i + 1])
        constant = 0.5 * np.log(2 * np.pi)
        expected = expected - normal.log_prob(targets["valence_arousal"][:, i]).mean() - constant
    torch.testing.assert_close(loss(outputs, targets), expected)
    assert loss.weights()["valence"] == pytest.approx(0.5 / 0.2**2, rel=1e-6)


def test_learned_weights_settle_where_the_noise_is_that_of_the_task():
    outputs, targets = heads()
    loss = losses.UncertaintyWeighted(TERMS, ["valence", "arousal"], speed=5.0)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.02)
    for _ in range(800):
        optimizer.zero_grad()
        loss(outputs, targets).backward()
        optimizer.step()
    values = {name: float(term(outputs, targets)) for name, term in TERMS.items()}
    assert loss.weights()["valence"] == pytest.approx(0.5 / values["valence"], rel=0.01)
    assert loss.weights()["arousal"] == pytest.approx(0.5 / values["arousal"], rel=0.01)
    assert loss.weights()["labels"] == pytest.approx(1 / (2 * values["labels"]), rel=0.01)


@pytest.mark.parametrize("distance", [losses.mse, losses.ccc_loss])
def test_missing_values_are_masked_never_zeroed(distance):
    """What the network says of a face whose valence is unknown changes neither loss nor gradient."""
    terms = {**TERMS, "valence": losses.on_dimension("valence", distance)}
    for loss in (losses.weighted_sum(terms, {"valence": 2.0}), losses.UncertaintyWeighted(terms)):
        outputs, targets = heads()
        targets["valence_arousal"][::2, 0] = torch.nan
        outputs["valence"].requires_grad_()
        value = loss(outputs, targets)
        value.backward()
        grad = outputs["valence"].grad.squeeze(1)
        assert value.isfinite()
        assert (grad[::2] == 0).all()
        assert (grad[1::2] != 0).all()
        moved = {**outputs, "valence": outputs["valence"].detach().clone()}
        moved["valence"][::2] += 7.0
        torch.testing.assert_close(loss(moved, targets), value)
        targets["valence_arousal"][::2, 0] = 0.0  # what a careless reader makes of an unknown value
        assert not torch.isclose(loss(outputs, targets), value)


def test_a_batch_of_unknown_degrees_teaches_no_weight():
    outputs, targets = heads()
    targets["valence_arousal"][:, 0] = torch.nan
    loss = losses.UncertaintyWeighted(TERMS, ["valence", "arousal"])
    loss(outputs, targets).backward()
    assert loss.slow.grad[1] == 0
    assert (loss.slow.grad[[0, 2]] != 0).all()


# ---------------------------------------------------------------- a loss that learns, in the loop


class Brightness(Faces):
    """Pictures whose brighter half tells the label and whose brightness tells the valence."""

    def __init__(self, num=96, seed=0):
        super().__init__(num, seed)
        valence = self.images.reshape(num, -1).mean(axis=1) / 64 - 2
        self.valence_arousal = np.stack([valence, np.full(num, np.nan)], axis=1).astype(np.float32)


class TwoHeads(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        self.body, self.degree = network(seed=seed), nn.Linear(2, 1)

    def forward(self, images):
        logits = self.body(images)
        return {"labels": logits, "valence": self.degree(logits)}


def learning_loss():
    terms = {"labels": losses.on_labels(), "valence": losses.on_dimension("valence")}
    return losses.UncertaintyWeighted(terms, ["valence"], speed=3.0)


def fit(model, loss, run=None, stop=None, counted=None, **settings):
    config = training.Config(
        **{"epochs": 4, "batch_size": 16, "lr": 0.01, "precision": "float32", **settings}
    )
    score = {"accuracy": metrics.on_labels(metrics.accuracy)}
    if counted:
        loss.terms["labels"] = stop_at(counted, stop.request, loss.terms["labels"])
    return training.fit(
        model,
        Brightness(),
        Brightness(64, 1),
        loss,
        score,
        config,
        run=run,
        stop=stop,
        device="cpu",
        progress=False,
    )


def test_the_loop_trains_the_loss_with_the_network():
    loss = learning_loss()
    before = loss.weights()
    fit(TwoHeads(), loss)
    assert all(loss.weights()[name] != before[name] for name in before)


def test_it_is_trained_as_adam_would_train_it():
    """One step of Adam from rest moves a number by its learning rate, whatever the gradient."""
    loss = learning_loss()
    fit(TwoHeads(), loss, epochs=1, batch_size=96, lr=0.01, schedule="constant", warmup=0.0, optimizer="adam")
    np.testing.assert_allclose(loss.slow.detach().abs().numpy(), 0.01, rtol=1e-4)


def test_weight_decay_does_not_pull_on_it():
    for decay in (0.0, 0.5):
        loss = learning_loss()
        fit(TwoHeads(), loss, epochs=1, batch_size=96, weight_decay=decay, schedule="constant", warmup=0.0)
        np.testing.assert_allclose(loss.slow.detach().abs().numpy(), 0.01, rtol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"optimizer": "sgd", "ema": 0.9}])
@pytest.mark.parametrize("call", [3, 8, 15])
def test_stopped_and_resumed_with_its_loss_is_the_same_to_the_bit(tmp_path, settings, call):
    whole, loss = TwoHeads(), learning_loss()
    history = fit(whole, loss, **settings)
    stop = training.Stop()
    stopped = fit(TwoHeads(), learning_loss(), tmp_path, stop, call, **settings)
    assert stopped.stopped
    model, again = TwoHeads(seed=9), learning_loss()
    resumed = fit(model, again, tmp_path, **settings)
    assert same(model, whole)
    assert scores(resumed) == scores(history)
    assert torch.equal(again.slow, loss.slow)


def test_another_kind_of_loss_starts_anew(tmp_path):
    stop = training.Stop()
    fit(TwoHeads(), learning_loss(), tmp_path, stop, 8)
    fixed = losses.weighted_sum(learning_loss().terms, {})
    assert len(fit(TwoHeads(), fixed, tmp_path).epochs) == 4


# ---------------------------------------------------------------- what the record is made with


def test_a_record_holds_student_s_interval_over_seeds():
    values = [0.61, 0.64, 0.66]
    found = multitask.over_seeds([{"accuracy": value} for value in values])
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert found["mean"]["accuracy"] - found["half_width"]["accuracy"] == pytest.approx(low, **TIGHT)
    assert found["mean"]["accuracy"] + found["half_width"]["accuracy"] == pytest.approx(high, **TIGHT)
    assert multitask.over_seeds([{"accuracy": 0.61}])["half_width"] == {"accuracy": None}


def test_networks_together_average_probabilities_not_logits():
    sure, torn = np.log([[0.98, 0.02]]), np.log([[0.3, 0.7]])
    both = [{"labels": x, "valence": np.array([[v]])} for x, v in ((sure + 5, 0.2), (torn, 0.6))]
    together = multitask.averaged(both)
    np.testing.assert_allclose(together["labels"], [[0.64, 0.36]])
    np.testing.assert_allclose(together["valence"], [[0.4]])


def test_local_contrast_equals_scipy_s_boxes_and_forgets_the_light():
    images = torch.randn(3, 1, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def blurred(image):
        for _ in range(2):  # SciPy calls "mirror" what PyTorch calls "reflect"
            image = ndimage.uniform_filter(image, 7, mode="mirror")
        return image

    for ours, image in zip(models.LocalContrast(3)(images), images[:, 0].numpy(), strict=True):
        centred = image - blurred(image)
        expected = centred / (np.sqrt(blurred(centred**2)) + 0.125)
        np.testing.assert_allclose(ours[0].numpy(), expected, atol=1e-9)
    light = torch.linspace(-2, 2, 48, dtype=torch.float64)  # from one side to the other
    lit, plain = (models.LocalContrast(3)(100 * (images + add))[..., 14:-14] for add in (light, 0))
    torch.testing.assert_close(lit, plain, atol=1e-6, rtol=0)


def test_the_longer_training_learns_votes_and_muscles_beside_the_numbers(tmp_path):
    drawn = datasets.load("synthetic", tmp_path, num_faces=64)
    known = multitask.with_units(drawn)
    targets = {name: torch.tensor(getattr(known, name)) for name in ("distribution", "valence_arousal")}
    outputs, _ = heads(64)
    outputs["units"] = torch.rand(64, 17, dtype=torch.float64)
    shares = torch.tensor(drawn.votes) / 10.0
    expected = functional.cross_entropy(outputs["labels"], shares.double())
    expected += 20 * functional.mse_loss(outputs["units"], torch.tensor(drawn.action_units).double())
    for i, name in enumerate(multitask.NUMBERS):
        expected += 1 - metrics.ccc(drawn.valence_arousal[:, i], outputs[name][:, 0].numpy())
    torch.testing.assert_close(multitask.thorough()(outputs, targets), expected, rtol=1e-6, atol=0)


def test_a_record_says_how_much_of_each_muscle_is_seen(tmp_path):
    drawn = datasets.load("synthetic", tmp_path, num_faces=64)
    outputs = {name: values.numpy() for name, values in heads(64)[0].items()}
    outputs["units"] = 0.5 * drawn.action_units + 0.1
    found = multitask.judge(outputs, drawn, outputs)
    assert found["accuracy"] == oracle.accuracy_score(drawn.labels, outputs["labels"].argmax(axis=1))
    for i, name in enumerate(faces.ACTION_UNITS):
        expected = oracle.r2_score(drawn.action_units[:, i], outputs["units"][:, i])
        assert found[f"R² {name}"] == pytest.approx(expected, **TIGHT)


def test_the_floor_of_a_record_is_what_a_constant_scores():
    judged = Faces(4)
    judged.labels, judged.valence_arousal = np.array([0, 2, 2, 1]), degrees(4)[0]
    labels, truth, floor = judged.labels, judged.valence_arousal, multitask.floor(judged)
    assert floor["accuracy"] == oracle.accuracy_score(labels, [2] * 4)
    for i, name in enumerate(multitask.NUMBERS):
        mean = np.full(4, truth[:, i].mean())
        expected = oracle.mean_squared_error(truth[:, i], mean) ** 0.5
        assert floor[f"RMSE {name}"] == pytest.approx(expected, **TIGHT)


# ---------------------------------------------------------------- mistakes


@given(st.integers(2, 40), st.integers(2, 5), st.integers(0, 2**16))
def test_alpha_is_never_above_one(num, num_raters, seed):
    alpha = metrics.krippendorff_alpha(metrics.tally(*raters(num, num_raters, missing=0.0, seed=seed)))
    assert alpha <= 1 or np.isnan(alpha)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.krippendorff_alpha([[1, 0]]), "two votes"),
        (lambda: metrics.tally([0.5, 1.0]), "rows of classes"),
        (lambda: metrics.tally([0, 7], num_classes=7), "rows of classes from 0 to 6"),
        (lambda: metrics.roc([True], [np.nan]), "NaN"),
        (lambda: metrics.roc([True, False], [0.1]), "inconsistent"),
        (lambda: metrics.within_class_ccc([0, 1], np.zeros(3), np.zeros(3)), "2 labels for 3 faces"),
        (lambda: metrics.mae(np.zeros(3), np.zeros(4)), "same shape"),
        (lambda: metrics.on_dimension(metrics.ccc, "joy"), "known: valence, arousal"),
        (lambda: losses.on_dimension("joy"), "known: valence, arousal"),
        (lambda: losses.weighted_sum(TERMS, {"joy": 1.0}), "each for one of labels, valence, arousal"),
        (lambda: losses.weighted_sum(TERMS, {"valence": -1.0}), "must be 0 or more"),
        (lambda: losses.weighted_sum({}, {}), "no task"),
        (lambda: losses.UncertaintyWeighted({}), "needs tasks"),
        (lambda: losses.UncertaintyWeighted(TERMS, ["joy"]), "squared among them"),
        (lambda: losses.UncertaintyWeighted(TERMS, speed=0), "speed above 0"),
    ],
)
def test_a_mistake_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
