"""Losses against distributions: SciPy's values, earth moved by a linear program, gradients, halves."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.optimize import linprog
from scipy.spatial import distance

from helpers import emotions, losses

EVERY = losses.divergences(emotions.FER7)
DISTANCES = emotions.distances(emotions.FER7)
UNITS = {"l1": 2.0, "js": np.log(2), "emd": DISTANCES.max()}  # of the losses that are bounded, the bound


def pairs(num=24, num_classes=7, seed=0, zeros=True):
    """Draw logits and targets, in some of which classes have nobody."""
    rng = np.random.default_rng(seed)
    p = rng.multinomial(10, rng.dirichlet(np.ones(num_classes)), num) / 10 if zeros else None
    p = rng.dirichlet(np.ones(num_classes), num) if p is None else p
    return torch.from_numpy(rng.normal(size=(num, num_classes)) * 2), torch.from_numpy(p)


def cheapest_plan(p, q, cost):
    """Return the earth mover's distance of one pair, as a linear program over all plans."""
    size = len(p)
    plan = np.arange(size * size).reshape(size, size)
    sums = np.zeros((2 * size, size * size))
    for i in range(size):
        sums[i, plan[i]] = sums[size + i, plan[:, i]] = 1
    return linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([p, q]), method="highs").fun


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
    logits, p = pairs()
    expected = BY_HAND[name](p.numpy(), logits.softmax(1).numpy()).mean()
    assert float(EVERY[name](logits, p)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_smaller_than_being_right(name):
    logits, p = pairs(zeros=False)
    right, wrong = EVERY[name](p.log(), p), EVERY[name](logits, p)
    if name not in ("cross-entropy", "reverse-kl"):
        assert float(right) == pytest.approx(0.0, abs=1e-9)
    assert wrong > right
    at = p.log().requires_grad_()
    [slope] = torch.autograd.grad(EVERY[name](at, p), at)
    if "l1" not in name:  # which has a corner there
        assert float(slope.abs().max()) < (1e-3 if name == "reverse-kl" else 1e-6)


@pytest.mark.parametrize("name", [name for name in EVERY if "+" not in name])
def test_gradients_equal_finite_differences(name):
    logits, p = pairs(2)
    logits.requires_grad_()
    loss = EVERY[name]
    if "emd" in name:  # whose gradient is exact where the iteration has converged
        loss = partial(losses.emd, distances=torch.from_numpy(DISTANCES), steps=120)
    assert torch.autograd.gradcheck(lambda x: loss(x, p), logits, atol=1e-6, rtol=1e-3)


def test_the_gradients_of_kl_and_cross_entropy_are_one():
    logits, p = pairs()
    logits.requires_grad_()
    slopes = [torch.autograd.grad(EVERY[name](logits, p), logits)[0] for name in ("kl", "cross-entropy")]
    torch.testing.assert_close(*slopes)
    torch.testing.assert_close(slopes[0], (logits.softmax(1) - p) / len(p))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_values_and_gradients_are_finite_for_logits_of_ten_thousand(name, dtype):
    """Each class in turn at the top or at the bottom, against votes, certainty and an even target."""
    top = torch.cat([torch.eye(7) * 2e4 - 1e4, -torch.eye(7) * 2e4 + 1e4, torch.zeros(1, 7)])
    targets = torch.cat([torch.eye(7), torch.full((1, 7), 1 / 7), torch.tensor([[0.7, 0.3, 0, 0, 0, 0, 0]])])
    logits = top.repeat_interleave(len(targets), 0).to(dtype).requires_grad_()
    for p in (targets.repeat(len(top), 1), targets.repeat(len(top), 1).to(dtype)):
        value = EVERY[name](logits, p)
        [slope] = torch.autograd.grad(value, logits)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert slope.isfinite().all()
    if name in UNITS:
        assert value.item() <= UNITS[name] + 0.02


@pytest.mark.parametrize("name", EVERY)
def test_each_pair_alone_is_finite_too(name):
    """A mean hides a NaN of one sign under none; an infinite row would hide behind another."""
    for size in (1e4, 200.0, 90.0):
        for right in (False, True):
            logits = torch.tensor([[size, -size, 0.0, 0, 0, 0, 0]], requires_grad=True)
            p = torch.eye(7)[[0 if right else 1]]
            value = EVERY[name](logits, p)
            [slope] = torch.autograd.grad(value, logits)
            assert value.isfinite()
            assert slope.isfinite().all()
            assert not right or value.item() < 0.01


@pytest.mark.parametrize("name", EVERY)
def test_targets_that_are_no_distributions_are_refused(name):
    logits, p = pairs(3)
    for wrong in (p * 2, p - 0.1, p * torch.nan, p * 0.9, torch.zeros_like(p)):
        spoilt = torch.cat([p[:2], wrong[2:]])
        with pytest.raises(ValueError, match=r"row 2 sums to .* divide counts by their sum"):
            EVERY[name](logits, spoilt)
    with pytest.raises(ValueError, match="shape of the logits"):
        EVERY[name](logits, p[:, :6])


# --- earth


def test_earth_moved_comes_to_the_linear_program_as_it_gets_less_smooth():
    logits, p = pairs(6)
    q, cost = logits.softmax(1).numpy(), torch.from_numpy(DISTANCES)
    exact = np.array([cheapest_plan(a, b / b.sum(), DISTANCES) for a, b in zip(p.numpy(), q, strict=True)])

    def smooth(epsilon, steps):
        rows = zip(logits, p, strict=True)
        return np.array([float(losses.emd(x[None], y[None], cost, epsilon, steps)) for x, y in rows])

    far = [abs(smooth(epsilon, 100) - exact).max() for epsilon in (0.2, 0.1, 0.05, 0.02)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < 0.03
    usual = smooth(0.1, 30)
    assert np.corrcoef(usual, exact)[0, 1] > 0.98
    np.testing.assert_allclose(usual, smooth(0.1, 300), atol=2e-3)


def test_the_gradient_of_earth_moved_is_near_after_the_usual_steps():
    logits, p = pairs(16)
    logits.requires_grad_()
    few, many = (
        torch.autograd.grad(losses.emd(logits, p, torch.from_numpy(DISTANCES), steps=steps), logits)[0]
        for steps in (30, 400)
    )
    assert float((few - many).abs().max()) < 0.03 * float(many.abs().max())


@pytest.mark.parametrize("flip", [False, True])
def test_earth_between_two_certain_classes_costs_their_distance(flip):
    """Sure of one class where another is true: whatever the smoothness, everything is carried that far."""
    i, j = (0, 3) if flip else (4, 5)
    logits = torch.full((1, 7), -1e4)
    logits[0, i] = 1e4
    value = losses.emd(logits, torch.eye(7)[[j]], torch.from_numpy(DISTANCES))
    assert float(value) == pytest.approx(DISTANCES[i, j], rel=1e-5)


def test_earth_knows_which_mistake_is_near():
    names = emotions.FERPLUS8
    cost = torch.from_numpy(emotions.distances(names))
    anger, contempt, happiness = (names.index(word) for word in ("anger", "contempt", "happiness"))
    sure = torch.eye(8) * 20
    near, far = (losses.emd(sure[[k]], torch.eye(8)[[anger]], cost) for k in (contempt, happiness))
    same = [losses.kl_divergence(sure[[k]], torch.eye(8)[[anger]]) for k in (contempt, happiness)]
    assert float(near) < 0.1 < 1.0 < float(far)
    assert float(same[0]) == pytest.approx(float(same[1]))


def test_distances_of_another_size_are_refused():
    logits, p = pairs(2)
    with pytest.raises(ValueError, match="distances must be 7 x 7"):
        losses.emd(logits, p, torch.zeros(8, 8))


# --- put together


def test_every_divergence_brings_a_batch_to_its_target():
    """Gradient descent on the logits themselves ends where the loss says that it is right."""
    _, p = pairs(4, zeros=False)
    for name, divergence in EVERY.items():
        logits = torch.zeros_like(p, requires_grad=True)
        optimizer = torch.optim.Adam([logits], lr=0.1)
        for _ in range(80):
            optimizer.zero_grad()
            divergence(logits, p).backward()
            optimizer.step()
        assert (logits.softmax(1) - p).abs().max().item() < 0.03, name


def test_classes_without_a_place_are_named():
    with pytest.raises(ValueError, match="no place in valence and arousal for serene, quiet"):
        emotions.distances(("neutral", "serene", "quiet"))


def test_places_are_weighted_means_of_what_is_known():
    distribution = np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    degrees = np.array([[0.0, 0.3], [0.6, 0.0], [np.nan, 0.9]])
    found = emotions.places_of(("a", "b", "c"), distribution, degrees)
    assert found["a"] == pytest.approx((0.2, 0.2))
    assert found["b"] == pytest.approx((0.6, 0.0))
    assert "c" not in found
