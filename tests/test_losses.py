"""Losses of labels and numbers against PyTorch, scikit-learn and SciPy; gradients; half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from helpers import losses, metrics

HALVES = (torch.float32, torch.bfloat16, torch.float16)


def batch(num=64, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    logits = torch.from_numpy(rng.normal(size=(num, num_classes)) * 3)
    p = rng.dirichlet(np.full(num_classes, 0.3), size=num)
    p[:, 2] = 0.0
    p /= p.sum(axis=1, keepdims=True)
    return logits, torch.from_numpy(rng.integers(num_classes, size=num)), torch.from_numpy(p)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_equals_torch(smoothing):
    logits, labels, _ = batch()
    expected = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(losses.cross_entropy(logits, labels, label_smoothing=smoothing), expected)


def test_weighted_cross_entropy_equals_scikit_learn_with_weighted_faces():
    logits, labels, _ = batch()
    weight = torch.rand(7, generator=torch.Generator().manual_seed(1)) + 0.1
    expected = log_loss(labels, logits.softmax(1), sample_weight=weight[labels], labels=range(7))
    assert float(losses.cross_entropy(logits, labels, weight=weight)) == pytest.approx(expected, rel=1e-6)
    scaled = losses.cross_entropy(logits, labels, weight=weight * 1000)
    torch.testing.assert_close(scaled, losses.cross_entropy(logits, labels, weight=weight))


def test_smoothing_and_weights_together_weigh_faces_not_classes():
    """The definition written out: each face's soft-target loss times the weight of its label."""
    logits, labels, _ = batch()
    weight = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)
    soft = functional.one_hot(labels, 7) * 0.8 + 0.2 / 7
    each = functional.cross_entropy(logits, soft, reduction="none")
    expected = torch.tensor(np.average(each, weights=weight[labels]))
    ours = losses.cross_entropy(logits, labels, label_smoothing=0.2, weight=weight)
    torch.testing.assert_close(ours, expected)


def test_a_batch_without_weight_costs_nothing():
    logits, labels, _ = batch()
    assert float(losses.cross_entropy(logits, labels, weight=torch.zeros(7))) == 0.0


def test_losses_on_distributions_equal_torch_and_scipy():
    logits, _, p = batch()
    q = logits.softmax(dim=1)
    ours = losses.kl_divergence(logits, p)
    torch.testing.assert_close(ours, functional.kl_div(q.log(), p, reduction="batchmean"))
    assert float(ours) == pytest.approx(stats.entropy(p, q, axis=1).mean(), rel=1e-9)
    torch.testing.assert_close(losses.soft_cross_entropy(logits, p), functional.cross_entropy(logits, p))
    assert float(losses.kl_divergence(q.log(), q)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_losses_and_gradients_stay_finite_in_half_precision(dtype, scale):
    logits, labels, p = batch()
    for loss in (
        lambda x: losses.cross_entropy(x, labels, label_smoothing=0.1),
        lambda x: losses.soft_cross_entropy(x, p),
        lambda x: losses.kl_divergence(x, p),
    ):
        given = (logits / logits.abs().max() * scale).to(dtype).requires_grad_()
        value = loss(given)
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert given.grad.isfinite().all()


def test_gradients_equal_finite_differences():
    logits, labels, p = batch(5)
    truth = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth[1, 0] = torch.nan
    predicted = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2).sin().requires_grad_()
    weight = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)
    logits.requires_grad_()
    check = torch.autograd.gradcheck
    assert check(lambda x: losses.cross_entropy(x, labels, label_smoothing=0.1, weight=weight), logits)
    assert check(lambda x: losses.kl_divergence(x, p), logits)
    assert check(lambda x: losses.ccc_loss(x, truth), predicted)
    assert check(lambda x: losses.mse(x, truth), predicted)


def valence_arousal(num=200, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(-1, 1, size=(num, 2))
    predicted = 0.5 * truth + rng.normal(0.1, 0.2, size=truth.shape)
    truth[rng.random(truth.shape) < 0.3] = np.nan
    return torch.from_numpy(predicted), torch.from_numpy(truth)


def test_ccc_loss_and_mse_equal_the_metrics_on_what_is_known():
    predicted, truth = valence_arousal()
    expected = 1 - metrics.ccc(truth.numpy(), predicted.numpy()).mean()
    assert float(losses.ccc_loss(predicted, truth)) == pytest.approx(expected, rel=1e-9)
    known = ~truth.isnan()
    torch.testing.assert_close(
        losses.mse(predicted, truth), functional.mse_loss(predicted[known], truth[known])
    )
    one = losses.ccc_loss(predicted[:, 0], truth[:, 0])
    assert float(one) == pytest.approx(1 - metrics.ccc(truth[:, 0].numpy(), predicted[:, 0].numpy()))


@pytest.mark.parametrize("loss", [losses.mse, losses.ccc_loss])
def test_unknown_values_leave_no_trace_in_the_gradient(loss):
    predicted, truth = valence_arousal()
    predicted.requires_grad_()
    loss(predicted, truth).backward()
    assert predicted.grad.isfinite().all()
    assert (predicted.grad[truth.isnan()] == 0).all()
    assert (predicted.grad[~truth.isnan()] != 0).all()


@pytest.mark.parametrize("loss", [losses.mse, losses.ccc_loss])
def test_a_batch_of_which_nothing_is_known_costs_nothing(loss):
    predicted = torch.randn(4, 2, requires_grad=True)
    value = loss(predicted, torch.full((4, 2), torch.nan))
    value.backward()
    assert value.item() == 0.0
    assert (predicted.grad == 0).all()


def test_ccc_loss_of_a_constant_prediction_is_one():
    truth = torch.linspace(-1, 1, 9)
    assert float(losses.ccc_loss(torch.full((9,), 0.3), truth)) == pytest.approx(1.0)
    assert float(losses.ccc_loss(-truth, truth)) == pytest.approx(2.0)
    assert losses.ccc_loss(truth.bfloat16(), truth).dtype == torch.float32


def test_class_weights_equal_scikit_learn_s_balanced_ones():
    labels = np.repeat(np.arange(4), [50, 5, 20, 1])
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(losses.class_weights(labels, 4), expected, rtol=1e-6)
    for power in (0.0, 0.5, 1.0):
        weights = losses.class_weights(labels, 6, power=power)
        assert float(weights[labels].mean()) == pytest.approx(1.0, rel=1e-6)
        assert weights[4:].tolist() == [0.0, 0.0]
    half = losses.class_weights(labels, 4, power=0.5)
    assert float(half[1] / half[0]) == pytest.approx(np.sqrt(10), rel=1e-6)


def test_losses_for_the_loop_find_their_head_and_target():
    logits, labels, p = batch()
    predicted, truth = valence_arousal(64)
    targets = {"labels": labels, "distribution": p, "valence_arousal": truth}
    heads = {"labels": logits, "valence_arousal": predicted}
    for outputs in (logits, heads):
        torch.testing.assert_close(
            losses.on_labels()(outputs, targets), functional.cross_entropy(logits, labels)
        )
        torch.testing.assert_close(
            losses.on_distribution()(outputs, targets), losses.kl_divergence(logits, p)
        )
    both = losses.on_valence_arousal(losses.ccc_loss)(heads, targets)
    torch.testing.assert_close(both, losses.ccc_loss(predicted, truth))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.on_labels(label_smoothing=10), "label_smoothing must be in"),
        (lambda: losses.on_labels(weight=torch.tensor([1.0, -1.0])), "0 or more"),
        (lambda: losses.class_weights([], 7), "one or more"),
        (lambda: losses.class_weights([0, 7], 7), "0 to 6"),
    ],
)
def test_a_mistake_is_named_in_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
