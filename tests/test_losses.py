"""Losses against PyTorch, scikit-learn, SciPy and linear programs; gradients; half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linprog
from scipy.spatial import distance
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from helpers import emotions, losses, metrics

EVERY = losses.divergences(emotions.FER7)
DISTANCES = emotions.distances(emotions.FER7)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BOUNDS = {"l1": 2.0, "js": np.log(2), "emd": DISTANCES.max()}


def batch(num=24, seed=0, zeros=True):
    """Return logits, labels and distributions; with zeros, shares of ten votes."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(7), num)
    p = rng.multinomial(10, shares[0], num) / 10 if zeros else shares
    labels = torch.from_numpy(rng.integers(7, size=num))
    return torch.from_numpy(rng.normal(size=(num, 7)) * 2), labels, torch.from_numpy(p)


def numbers(num=200, seed=0):
    """Return predicted and true valence and arousal, of which a third is unknown."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-1, 1, size=(num, 2))
    predicted = 0.5 * truth + rng.normal(0.1, 0.2, size=truth.shape)
    truth[rng.random(truth.shape) < 0.3] = np.nan
    return torch.from_numpy(predicted), torch.from_numpy(truth)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_equals_torch_for_labels_of_any_integer_type(smoothing):
    logits, labels, _ = batch()
    expected = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    for dtype in (torch.int64, torch.int32, torch.uint8):
        ours = losses.cross_entropy(logits, labels.to(dtype), label_smoothing=smoothing)
        torch.testing.assert_close(ours, expected)


def test_weights_weigh_faces_whatever_their_scale_also_with_smoothing():
    logits, labels, _ = batch()
    weight = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)
    expected = log_loss(labels, logits.softmax(1), sample_weight=weight[labels], labels=range(7))
    assert float(losses.cross_entropy(logits, labels, weight=weight)) == pytest.approx(expected, rel=1e-6)
    soft = functional.one_hot(labels, 7) * 0.8 + 0.2 / 7
    each = functional.cross_entropy(logits, soft, reduction="none")
    expected = torch.tensor(np.average(each, weights=weight[labels]))
    for scaled in (weight, (1000 * weight).tolist()):  # a list will do
        ours = losses.on_labels(label_smoothing=0.2, weight=scaled)(logits, {"labels": labels})
        torch.testing.assert_close(ours, expected)
    assert float(losses.cross_entropy(logits, labels, weight=torch.zeros(7))) == 0.0


def test_class_weights_equal_scikit_learn_s_balanced_ones():
    labels = np.repeat(np.arange(4), [50, 5, 20, 1])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(losses.class_weights(labels, 4), expected, rtol=1e-6)
    for power in (0.0, 0.5, 1.0):
        weights = losses.class_weights(labels, 6, power=power)
        assert float(weights[labels].mean()) == pytest.approx(1.0, rel=1e-6)
        assert weights[4:].tolist() == [0.0, 0.0]
        assert float(weights[1] / weights[0]) == pytest.approx(10**power, rel=1e-6)


BY_HAND = {
    "mse": lambda p, q: np.mean((p - q) ** 2, axis=1),
    "l1": lambda p, q: distance.cdist(p, q, "cityblock").diagonal(),
    "cross-entropy": lambda p, q: stats.entropy(p, axis=1) + stats.entropy(p, q, axis=1),
    "kl": lambda p, q: stats.entropy(p, q, axis=1),
    "reverse-kl": lambda p, q: stats.entropy(q, 0.999 * p + 0.001 / p.shape[1], axis=1),
    "js": lambda p, q: distance.jensenshannon(p, q, axis=1) ** 2,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_values_equal_scipy_s(name):
    logits, _, p = batch()
    expected = BY_HAND[name](p.numpy(), logits.softmax(1).numpy()).mean()
    assert float(EVERY[name](logits, p)) == pytest.approx(expected, rel=1e-9)
    mixed = EVERY[name](logits.float(), p)  # a float64 target, float32 logits
    assert (mixed.dtype, float(mixed)) == (torch.float32, pytest.approx(expected, rel=1e-4))


def test_sums_of_two_losses_are_what_their_names_say():
    logits, _, p = batch()
    parts = {name: EVERY[name](logits, p) for name in EVERY}
    torch.testing.assert_close(parts["kl+emd"], parts["kl"] + parts["emd"])
    torch.testing.assert_close(parts["js+l1"], parts["js"] + parts["l1"] / 2)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_smaller_than_being_right_and_descent_ends_there(name):
    logits, _, p = batch(4, zeros=False)
    right = EVERY[name](p.log(), p)
    if name not in ("cross-entropy", "reverse-kl"):
        assert float(right) == pytest.approx(0.0, abs=1e-9)
    assert EVERY[name](logits, p) > right
    at = torch.zeros_like(p, requires_grad=True)
    optimizer = torch.optim.Adam([at], lr=0.1)
    for _ in range(80):
        optimizer.zero_grad()
        EVERY[name](at, p).backward()
        optimizer.step()
    assert (at.softmax(1) - p).abs().max().item() < 0.03


def test_gradients_equal_finite_differences():
    logits, labels, p = batch(2)
    check, distances = torch.autograd.gradcheck, torch.from_numpy(DISTANCES)
    logits.requires_grad_()
    assert check(lambda x: losses.cross_entropy(x, labels, label_smoothing=0.1), logits)
    for name in BY_HAND:
        assert check(lambda x, loss=EVERY[name]: loss(x, p), logits, atol=1e-6, rtol=1e-3)
    # exact where the iteration has converged, and near after the usual steps
    assert check(lambda x: losses.emd(x, p, distances, steps=120), logits, atol=1e-6, rtol=1e-3)
    few, many = (
        torch.autograd.grad(losses.emd(logits, p, distances, steps=steps), logits)[0] for steps in (30, 400)
    )
    assert float((few - many).abs().max()) < 0.03 * float(many.abs().max())
    predicted, truth = numbers(6)
    assert check(lambda x: losses.ccc_loss(x, truth) + losses.mse(x, truth), predicted.requires_grad_())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", EVERY)
def test_values_and_gradients_are_finite_for_logits_of_ten_thousand(name, dtype):
    """Each class in turn at the top or at the bottom, against votes, certainty, an even target."""
    top = torch.cat([torch.eye(7) * 2e4 - 1e4, -torch.eye(7) * 2e4 + 1e4, torch.zeros(1, 7)])
    targets = torch.cat([torch.eye(7), torch.full((1, 7), 1 / 7), torch.tensor([[0.7, 0.3, 0, 0, 0, 0, 0]])])
    for size in (1.0, 0.02, 0.009):
        logits = (size * top).repeat_interleave(len(targets), 0).to(dtype).requires_grad_()
        for p in (targets.repeat(len(top), 1), targets.repeat(len(top), 1).to(dtype)):
            value = EVERY[name](logits, p)  # an infinite row, or a NaN, would make the mean none
            [slope] = torch.autograd.grad(value, logits)
            assert value.dtype == torch.float32
            assert value.isfinite()
            assert slope.isfinite().all()
            assert value.item() <= BOUNDS.get(name, np.inf) + 0.02


def cheapest_plan(p, q, cost):
    """Return the earth mover's distance of one pair, as a linear program over all plans."""
    plan = np.arange(len(p) ** 2).reshape(len(p), -1)
    sums = np.array([np.isin(plan, each).ravel() for each in (*plan, *plan.T)], float)
    return linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([p, q]), method="highs").fun


def test_the_smooth_earth_mover_comes_to_the_linear_program():
    logits, _, p = batch(6)
    q, cost = logits.softmax(1).numpy(), torch.from_numpy(DISTANCES)
    exact = np.array([cheapest_plan(a, b / b.sum(), DISTANCES) for a, b in zip(p.numpy(), q, strict=True)])

    def smooth(epsilon, steps):
        rows = zip(logits, p, strict=True)
        return np.array([float(losses.emd(x[None], y[None], cost, epsilon, steps)) for x, y in rows])

    far = [abs(smooth(epsilon, 100) - exact).max() for epsilon in (0.2, 0.1, 0.05, 0.02)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.03
    np.testing.assert_allclose(smooth(0.1, 30), smooth(0.1, 300), atol=2e-3)


def test_ccc_loss_and_mse_equal_the_metrics_on_what_is_known():
    predicted, truth = numbers()
    expected = metrics.ccc(truth.numpy(), predicted.numpy())
    assert float(losses.ccc_loss(predicted, truth)) == pytest.approx(1 - expected.mean(), rel=1e-9)
    assert float(losses.ccc_loss(predicted[:, 0], truth[:, 0])) == pytest.approx(1 - expected[0], rel=1e-9)
    known = ~truth.isnan()
    torch.testing.assert_close(
        losses.mse(predicted, truth), functional.mse_loss(predicted[known], truth[known])
    )
    line = torch.linspace(-1, 1, 9)
    assert float(losses.ccc_loss(torch.full((9,), 0.3), line)) == pytest.approx(1.0)
    assert float(losses.ccc_loss(-line, line)) == pytest.approx(2.0)
    assert losses.ccc_loss(line.bfloat16(), line).dtype == torch.float32


@pytest.mark.parametrize("loss", [losses.mse, losses.ccc_loss])
def test_unknown_values_leave_no_trace_in_the_gradient(loss):
    predicted, truth = numbers()
    loss(predicted.requires_grad_(), truth).backward()
    assert (predicted.grad[truth.isnan()] == 0).all()
    assert (predicted.grad[~truth.isnan()] != 0).all()
    nothing = torch.randn(4, 2, requires_grad=True)
    value = loss(nothing, torch.full((4, 2), torch.nan))
    value.backward()
    assert value.item() == 0.0
    assert (nothing.grad == 0).all()


TERMS = {"labels": losses.on_labels()}
TERMS |= {name: losses.on_dimension(name) for name in ("valence", "arousal")}


def heads(num=64):
    logits, labels, p = batch(num)
    predicted, truth = (values.nan_to_num() for values in numbers(num))
    outputs = {"labels": logits, "valence": predicted[:, :1], "arousal": predicted[:, 1:]}
    return outputs, {"labels": labels, "distribution": p, "valence_arousal": truth}


def test_losses_for_the_loop_find_their_head_and_target():
    outputs, targets = heads()
    both = torch.cat([outputs["valence"], outputs["arousal"]], dim=1)
    for given in (outputs["labels"], outputs):
        expected = functional.cross_entropy(outputs["labels"], targets["labels"])
        torch.testing.assert_close(losses.on_labels()(given, targets), expected)
        expected = losses.kl_divergence(outputs["labels"], targets["distribution"])
        torch.testing.assert_close(losses.on_distribution()(given, targets), expected)
    for i, name in enumerate(("valence", "arousal")):
        expected = losses.ccc_loss(both[:, i], targets["valence_arousal"][:, i])
        torch.testing.assert_close(losses.on_dimension(name, losses.ccc_loss)(outputs, targets), expected)


def test_fixed_weights_add_up_what_they_say():
    outputs, targets = heads()
    values = {name: term(outputs, targets) for name, term in TERMS.items()}
    loss = losses.weighted_sum(TERMS, {"valence": 3.0, "arousal": 0.0})
    torch.testing.assert_close(loss(outputs, targets), values["labels"] + 3 * values["valence"])
    torch.testing.assert_close(losses.weighted_sum(TERMS, {})(outputs, targets), sum(values.values()))


def test_learned_weights_are_the_likelihoods_of_the_paper():
    """-log N(y | f, sigma²) less its constant for the numbers, CE / sigma² + log sigma for the labels."""
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


def test_a_batch_of_which_nothing_is_known_teaches_no_weight():
    outputs, targets = heads()
    targets["valence_arousal"][:, 0] = torch.nan
    loss = losses.UncertaintyWeighted(TERMS, ["valence", "arousal"])
    loss(outputs, targets).backward()
    assert loss.slow.grad[1] == 0
    assert (loss.slow.grad[[0, 2]] != 0).all()


LOGITS, LABELS, SHARES = batch(3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.on_labels(label_smoothing=10), "label_smoothing must be in"),
        (lambda: losses.on_labels(weight=[1.0, -1.0]), "0 or more"),
        (lambda: losses.on_labels(weight=[1.0] * 6)(LOGITS, {"labels": LABELS}), "6 weights for 7 classes"),
        (lambda: losses.cross_entropy(LOGITS, torch.tensor([0, 9, 1])), "0 to 6; row 1 has 9"),
        (lambda: losses.cross_entropy(LOGITS, torch.tensor([0, 1, -1])), "0 to 6; row 2 has -1"),
        (lambda: losses.cross_entropy(LOGITS, functional.one_hot(LABELS, 7)), "argmax"),
        (lambda: losses.cross_entropy(LOGITS, LABELS.float()), "integers"),
        (lambda: losses.class_weights([], 7), "one or more"),
        (lambda: losses.class_weights([0, 7], 7), "0 to 6"),
        (lambda: losses.emd(LOGITS, SHARES, torch.zeros(8, 8)), "distances must be 7 x 7"),
        (lambda: losses.kl_divergence(LOGITS, SHARES[:, :6]), "shape of the logits"),
        (lambda: losses.divergences(("neutral", "serene")), "no place in valence and arousal for serene"),
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


@pytest.mark.parametrize("name", EVERY)
def test_targets_that_are_no_distributions_are_refused(name):
    for wrong in (SHARES * 2, SHARES - 0.1, SHARES * torch.nan, SHARES * 0.9, torch.zeros_like(SHARES)):
        with pytest.raises(ValueError, match=r"row 2 sums to .* divide counts by their sum"):
            EVERY[name](LOGITS, torch.cat([SHARES[:2], wrong[2:]]))
