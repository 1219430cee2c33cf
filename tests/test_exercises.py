"""The answers to the exercises: every check takes the right one, and finds what usually goes wrong."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn
from torch.nn import functional

from helpers import exercises
from helpers.exercises import judging

# --- the teacher's answers, written another way than the checks' own references where that is possible ---


def eye_opening(landmarks):
    lids = [(37, 41), (38, 40), (43, 47), (44, 46)]
    distances = [np.hypot(*(landmarks[:, a] - landmarks[:, b]).T) for a, b in lids]
    return sum(distances) / 4 / np.hypot(*(landmarks[:, 36] - landmarks[:, 45]).T)


def rater_agreement(votes):
    def of_one(row):
        raters = np.repeat(np.arange(len(row)), row)
        same = [a == b for i, a in enumerate(raters) for j, b in enumerate(raters) if i != j]
        return np.mean(same)

    return np.array([of_one(row) for row in votes])


def without_copies(train, test):
    known = {image.tobytes() for image in test}
    return np.array([image.tobytes() not in known for image in train])


def split_by_person(subject, share, seed):
    people = np.random.default_rng(seed).permutation(np.unique(subject))
    chosen, faces = [], 0
    for person in people:
        if faces < share * len(subject):
            chosen.append(person)
            faces += np.sum(subject == person)
    return np.isin(subject, chosen)


def soft_histogram(lengths, degrees, bins):
    histogram, width = np.zeros(bins), 180 / bins
    for length, degree in zip(lengths, degrees, strict=True):
        place = degree / width - 0.5
        low = math.floor(place)
        histogram[low % bins] += length * (1 - (place - low))
        histogram[(low + 1) % bins] += length * (place - low)
    return histogram


def rbf_kernel(a, b, gamma):
    return np.exp(-gamma * (np.sum(a**2, 1)[:, None] + np.sum(b**2, 1) - 2 * a @ b.T))


def hinge_loss(scores, sides):
    return np.maximum(0, 1 - sides * scores).mean()


def output_size(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) // stride + 1


def cross_entropy(logits, labels):
    shifted = logits - logits.max(dim=1, keepdim=True).values
    log_p = shifted - shifted.exp().sum(dim=1, keepdim=True).log()
    return -log_p[torch.arange(len(labels)), labels].mean()


def learning_rate(step, steps, warmup, peak):
    if step < warmup:
        return peak * step / warmup
    return peak * math.cos(math.pi / 2 * (step - warmup) / (steps - warmup)) ** 2


def class_weights(labels, num_classes):
    counts = np.bincount(labels, minlength=num_classes)
    return np.where(counts > 0, len(labels) / (num_classes * np.maximum(counts, 1)), 0)


def grey_stem(weight):
    return weight.sum(dim=1, keepdim=True)


def freeze(model, head):
    for name, part in model.named_children():
        if name != head:
            part.requires_grad_(False)
            part.eval()


def layer_rates(num_layers, lr, decay):
    return [lr * decay ** (num_layers - 1 - i) for i in range(num_layers)]


def masked_mse(predicted, truth):
    known = ~truth.isnan()
    return torch.where(known, predicted - truth.nan_to_num(), 0).square().sum() / known.sum().clamp(min=1)


def sign_agreement(predicted, truth):
    return np.mean(np.sign(predicted) == np.sign(truth))


def class_means(truth, labels):
    sums, counts = np.bincount(labels, truth), np.bincount(labels)
    return (sums / np.maximum(counts, 1))[labels]


def ccc(predicted, truth):
    covariance = np.cov(predicted, truth, bias=True)
    gap = predicted.mean() - truth.mean()
    return 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + gap**2)


def total_variation(p, q):
    return np.abs(p - q).sum(axis=1) / 2


def _kl(p, q):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0).sum(axis=1)


def jensen_shannon(p, q):
    return (_kl(p, (p + q) / 2) + _kl(q, (p + q) / 2)) / 2


def ordered_emd(p, q):
    return np.abs(np.cumsum(p - q, axis=1)).sum(axis=1)


def calibration_error(confidence, right, bins):
    owner = np.ceil(confidence * bins).astype(int) - 1
    gaps = [right[owner == i].sum() - confidence[owner == i].sum() for i in range(bins)]
    return np.abs(gaps).sum() / len(right)


def weighted_map(maps, slopes):
    return np.maximum((slopes.mean(axis=(1, 2))[:, None, None] * maps).sum(axis=0), 0)


def pointing_hit(heat, inside):
    return bool(inside.ravel()[heat.argmax()])


def area(shares, scores):
    return np.sum(np.diff(shares) * (scores[1:] + scores[:-1]) / 2)


def rank_correlation(a, b):
    return np.corrcoef(a.ravel().argsort().argsort(), b.ravel().argsort().argsort())[0, 1]


# --- what usually goes wrong, at least five a check ---


def spoils(right, change):
    """Return a function that gives the right answer, and changes its first argument."""

    def wrong(first, *rest):
        result = right(first, *rest)
        change(first)
        return result

    return wrong


def _all_frozen(model, head):
    model.requires_grad_(False).eval()


def _statistics_forgotten(model, head):
    for name, part in model.named_children():
        part.requires_grad_(name == head)


def _head_frozen(model, head):
    getattr(model, head).requires_grad_(False)
    model.body.eval()


def _only_eval(model, head):
    model.body.eval()


def _weights_only(model, head):
    freeze(model, head)
    model.head.bias.requires_grad_(False)


def _train_again(model, head):
    freeze(model, head)
    model.train()


def _not_closed(lengths, degrees, bins):
    place = degrees / (180 / bins) - 0.5
    low = np.floor(place).astype(int)
    histogram = np.zeros(bins)
    for at, share in ((low, 1 - place + low), (low + 1, place - low)):
        inside = (at >= 0) & (at < bins)
        np.add.at(histogram, at[inside], (share * lengths)[inside])
    return histogram


def _nearest_bin(lengths, degrees, bins):
    return np.bincount((degrees // (180 / bins)).astype(int), lengths, bins)


def _edges_as_middles(lengths, degrees, bins):
    return soft_histogram(lengths, (degrees + 90 / bins) % 180, bins)


def _naive_cross_entropy(logits, labels):
    return -(logits.exp() / logits.exp().sum(1, keepdim=True)).log()[range(len(labels)), labels].mean()


def _poisoned(predicted, truth):
    return (predicted - truth.nan_to_num()).square().mean()


def _split_faces(subject, share, seed):
    return np.random.default_rng(seed).random(len(subject)) < share


def _one_seed(subject, share, seed):
    return split_by_person(subject, share, 0)


def _no_seed(subject, share, seed):
    return split_by_person(subject, share, None)


def _half_of_people(subject, share, seed):
    return split_by_person(subject, 0.5, seed)


def _train_mask(subject, share, seed):
    return ~split_by_person(subject, share, seed)


def _naive_js(p, q):
    m = (p + q) / 2
    with np.errstate(all="ignore"):
        return 0.5 * (p * np.log(p / m) + q * np.log(q / m)).sum(axis=1)


ANSWERS = {
    exercises.check_eye_opening: (
        eye_opening,
        lambda x: eye_opening(x)[:, None],
        lambda x: 4 * eye_opening(x),
        lambda x: eye_opening(x).mean(),
        lambda x: eye_opening(x) * np.linalg.norm(x[:, 36] - x[:, 45], axis=1),
        lambda x: eye_opening(x[:, ::-1]),
        lambda x: np.abs(x[:, [37, 38, 43, 44], 1] - x[:, [41, 40, 47, 46], 1]).mean(1),
    ),
    exercises.check_rater_agreement: (
        rater_agreement,
        lambda v: v.max(1) / v.sum(1),
        lambda v: ((v / v.sum(1, keepdims=True)) ** 2).sum(1),
        lambda v: rater_agreement(v).mean(),
        lambda v: 1 - rater_agreement(v),
        lambda v: (v * (v - 1)).sum(1) / v.sum(1) ** 2,
    ),
    exercises.check_without_copies: (
        without_copies,
        lambda a, b: ~without_copies(a, b),
        lambda a, b: without_copies(a, b).astype(float),
        lambda a, b: np.flatnonzero(without_copies(a, b)),
        lambda a, b: a[without_copies(a, b)],
        lambda a, b: np.array([not any(abs(x.astype(int) - y).max() <= 1 for y in b) for x in a]),
        lambda a, b: without_copies(b, a),
    ),
    exercises.check_split_by_person: (
        split_by_person,
        _split_faces,
        _one_seed,
        _no_seed,
        _half_of_people,
        _train_mask,
        lambda *case: np.flatnonzero(split_by_person(*case)),
        lambda *case: None,
    ),
    exercises.check_soft_histogram: (
        soft_histogram,
        _not_closed,
        _nearest_bin,
        _edges_as_middles,
        lambda lengths, degrees, bins: soft_histogram(np.ones_like(lengths), degrees, bins),
        lambda *case: soft_histogram(*case) / soft_histogram(*case).sum(),
        lambda lengths, degrees, bins: soft_histogram(lengths, 180 - degrees, bins),
    ),
    exercises.check_rbf_kernel: (
        rbf_kernel,
        lambda a, b, gamma: rbf_kernel(a, b, gamma).T,
        lambda a, b, gamma: rbf_kernel(a, b, 1 / gamma),
        lambda a, b, gamma: np.exp(-gamma * np.sqrt(-np.log(rbf_kernel(a, b, 1)))),
        lambda a, b, gamma: -np.log(rbf_kernel(a, b, gamma)),
        lambda a, b, gamma: rbf_kernel(a, b, -gamma),
        lambda a, b, gamma: rbf_kernel(a, a, gamma),
    ),
    exercises.check_hinge_loss: (
        hinge_loss,
        lambda f, y: np.maximum(0, 1 - y * f),
        lambda f, y: np.maximum(0, 1 - y * f).sum(),
        lambda f, y: (1 - y * f).mean(),
        lambda f, y: np.maximum(0, -y * f).mean(),
        lambda f, y: np.maximum(0, 1 + y * f).mean(),
    ),
    exercises.check_output_size: (
        output_size,
        lambda n, k, s, p: (n + 2 * p - k) / s + 1,
        lambda n, k, s, p: (n + p - k) // s + 1,
        lambda n, k, s, p: (n + 2 * p - k) // s,
        lambda n, k, s, p: n // s,
        lambda n, k, s, p: -(-(n + 2 * p - k) // s) + 1,
    ),
    exercises.check_cross_entropy: (
        cross_entropy,
        _naive_cross_entropy,
        lambda z, y: cross_entropy(z, y) * len(y),
        lambda z, y: functional.nll_loss(z, y),
        lambda z, y: functional.cross_entropy(z.softmax(1), y),
        lambda z, y: cross_entropy(z, y) / math.log(2),
        lambda z, y: functional.cross_entropy(z, y, reduction="none"),
    ),
    exercises.check_learning_rate: (
        learning_rate,
        lambda step, steps, warmup, peak: peak * math.cos(math.pi / 2 * step / steps) ** 2,
        lambda step, steps, warmup, peak: peak * min(1, step / warmup),
        lambda step, steps, warmup, peak: learning_rate(step, steps, warmup, 1),
        lambda step, steps, warmup, peak: learning_rate(step + 1, steps, warmup, peak),
        lambda step, steps, warmup, peak: peak * (1 - step / steps),
        lambda step, steps, warmup, peak: learning_rate(step, steps + warmup, warmup, peak),
    ),
    exercises.check_class_weights: (
        class_weights,
        lambda y, k: len(y) / (k * np.bincount(y, minlength=k)),
        lambda y, k: np.bincount(y, minlength=k) / len(y),
        lambda y, k: class_weights(y, k) / class_weights(y, k).sum(),
        lambda y, k: class_weights(y, y.max() + 1),
        lambda y, k: k * class_weights(y, k),
        lambda y, k: class_weights(y, k)[y],
    ),
    exercises.check_grey_stem: (
        grey_stem,
        lambda w: w.mean(dim=1, keepdim=True),
        lambda w: w.sum(dim=1),
        lambda w: w[:, :1],
        lambda w: w,
        lambda w: grey_stem(w).numpy(),
        lambda w: w.sum(dim=0, keepdim=True),
    ),
    exercises.check_freeze: (
        freeze,
        _all_frozen,
        _statistics_forgotten,
        _head_frozen,
        _only_eval,
        _weights_only,
        _train_again,
        lambda model, head: None,
    ),
    exercises.check_layer_rates: (
        layer_rates,
        lambda n, lr, decay: layer_rates(n, lr, decay)[::-1],
        lambda n, lr, decay: layer_rates(n + 1, lr, decay),
        lambda n, lr, decay: layer_rates(n + 1, lr, decay)[:-1],
        lambda n, lr, decay: [lr - decay * i for i in range(n)][::-1],
        lambda n, lr, decay: [lr] * n,
    ),
    exercises.check_masked_mse: (
        masked_mse,
        _poisoned,
        lambda p, t: (p - t).square().mean(),
        lambda p, t: (p - t).square().nanmean(),
        lambda p, t: masked_mse(p, t) * (~t.isnan()).sum(),
        lambda p, t: masked_mse(p, t) ** 0.5,
        lambda p, t: masked_mse(p[~t.isnan().any(1)], t[~t.isnan().any(1)]),
    ),
    exercises.check_sign_agreement: (
        sign_agreement,
        lambda p, t: np.mean(p * t > 0),
        lambda p, t: np.mean((p > 0) == (t > 0)),
        lambda p, t: np.mean(p * t >= 0),
        lambda p, t: np.sum(np.sign(p) == np.sign(t)),
        lambda p, t: np.sign(p) == np.sign(t),
    ),
    exercises.check_class_means: (
        class_means,
        lambda t, y: np.full_like(t, t.mean()),
        lambda t, y: np.array([t[y == k].mean() for k in np.unique(y)]),
        lambda t, y: np.array([np.median(t[y == k]) for k in y]),
        lambda t, y: t,
        lambda t, y: np.array([t[y == k].sum() for k in y]),
        spoils(class_means, lambda t: t.sort()),
    ),
    exercises.check_ccc: (
        ccc,
        lambda p, t: np.corrcoef(p, t)[0, 1],
        lambda p, t: 1 - ccc(p, t),
        lambda p, t: 2 * np.cov(p, t)[0, 1] / (p.var() + t.var() + (p.mean() - t.mean()) ** 2),
        lambda p, t: 2 * np.cov(p, t, bias=True)[0, 1] / (p.var() + t.var()),
        lambda p, t: 2 * np.cov(p, t, bias=True)[0, 1] / (p.std() + t.std() + (p.mean() - t.mean()) ** 2),
    ),
    exercises.check_total_variation: (
        total_variation,
        lambda p, q: np.abs(p - q).sum(1),
        lambda p, q: np.abs(p - q).mean(1) / 2,
        lambda p, q: np.abs(p - q).sum() / 2,
        lambda p, q: ((p - q) ** 2).sum(1) / 2,
        lambda p, q: (p - q).sum(1) / 2,
        lambda p, q: np.abs(p - q).max(1),
    ),
    exercises.check_jensen_shannon: (
        jensen_shannon,
        _naive_js,
        lambda p, q: jensen_shannon(p, q) ** 0.5,
        lambda p, q: jensen_shannon(p, q) / math.log(2),
        lambda p, q: _kl(p, (p + q) / 2),
        lambda p, q: 2 * jensen_shannon(p, q),
        lambda p, q: jensen_shannon(p, q).mean(),
    ),
    exercises.check_ordered_emd: (
        ordered_emd,
        lambda p, q: total_variation(p, q),
        lambda p, q: np.abs(np.cumsum(p - q, axis=0)).sum(1),
        lambda p, q: (np.cumsum(p - q, axis=1) ** 2).sum(1),
        lambda p, q: ordered_emd(p, q) / p.shape[1],
        lambda p, q: np.cumsum(p - q, axis=1).sum(1),
    ),
    exercises.check_calibration_error: (
        calibration_error,
        lambda c, r, b: abs(r.mean() - c.mean()),
        lambda c, r, b: np.abs(r - c).mean(),
        lambda c, r, b: calibration_error(c, r, 10),
        lambda c, r, b: calibration_error(c, r, b) * len(c),
        lambda c, r, b: np.mean([abs(r[i] - c[i]) for i in range(b)]),
        spoils(calibration_error, lambda c: c.sort()),
    ),
    exercises.check_weighted_map: (
        weighted_map,
        lambda m, s: (s.mean((1, 2))[:, None, None] * m).sum(0),
        lambda m, s: np.maximum(s.mean((1, 2))[:, None, None] * m, 0).sum(0),
        lambda m, s: np.maximum((s * m).sum(0), 0),
        lambda m, s: np.maximum((s.sum((1, 2))[:, None, None] * m).sum(0), 0),
        lambda m, s: np.maximum((s.mean(0) * m).sum(0), 0),
    ),
    exercises.check_pointing_hit: (
        pointing_hit,
        lambda h, m: bool(m.ravel()[h.argmin()]),
        lambda h, m: bool(m[np.abs(h) == np.abs(h).max()][0]),
        lambda h, m: int(pointing_hit(h, m)),
        lambda h, m: h.argmax(),
        lambda h, m: bool(h[m].mean() > h[~m].mean()) if m.any() and not m.all() else True,
    ),
    exercises.check_area: (
        area,
        lambda x, y: y.mean(),
        lambda x, y: integrate.trapezoid(y, dx=0.2),
        lambda x, y: np.sum(np.diff(x) * y[1:]),
        lambda x, y: np.sum(np.diff(x) * y[:-1]),
        lambda x, y: 1 - area(x, y),
    ),
    exercises.check_rank_correlation: (
        rank_correlation,
        lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1],
        lambda a, b: stats.kendalltau(a.ravel(), b.ravel()).statistic,
        lambda a, b: np.corrcoef(a.argsort().ravel(), b.argsort().ravel())[0, 1],
        lambda a, b: 1 - rank_correlation(a, b),
        lambda a, b: stats.spearmanr(a.ravel(), b.ravel()).pvalue,
    ),
}
CALLS = [(check, wrong) for check, (_, *wrongs) in ANSWERS.items() for wrong in wrongs]


def heard(capsys, check, answer) -> str:
    check(answer)
    said = capsys.readouterr().out
    assert said.count("\n") == 1, "one line"
    return said


def test_every_check_is_tried():
    assert {check.__name__ for check in ANSWERS} == {name for name in vars(exercises) if name.startswith("check_")}
    assert all(len(answers) >= 6 for answers in ANSWERS.values()), "five wrong ones at least"


@pytest.mark.parametrize("check", ANSWERS, ids=lambda check: check.__name__)
def test_the_right_answer_is_taken(check, capsys):
    for _ in range(5):
        assert heard(capsys, check, ANSWERS[check][0]).startswith("✅")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("check", "wrong"), CALLS, ids=lambda value: getattr(value, "__name__", ""))
def test_wrong_answers_are_found(check, wrong, capsys):
    assert heard(capsys, check, wrong).startswith("❌")


@pytest.mark.parametrize("check", ANSWERS, ids=lambda check: check.__name__)
def test_a_stub_waits_and_other_types_are_refused(check, capsys):
    def stub(*_):
        raise NotImplementedError

    assert "waits for your answer" in heard(capsys, check, stub)
    for odd in ("happy", object(), [[1], [2, 3]], {}):
        assert heard(capsys, check, lambda *_, odd=odd: odd).startswith("❌") or check is exercises.check_freeze
    assert heard(capsys, check, lambda: 0).startswith("❌")


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_is_caught(error, capsys):
    def broken(*_):
        raise error

    said = heard(capsys, exercises.check_area, broken)
    line = inspect.getsourcelines(broken)[1] + 1
    assert f"it raised {type(error).__name__}" in said
    assert f"(line {line})" in said


def test_what_was_expected_and_what_came_is_said(capsys):
    said = heard(capsys, exercises.check_output_size, lambda *_: -7)
    assert "was expected, -7 came" in said
    assert all(word in said for word in ("size=", "kernel=", "stride=", "padding="))
    said = heard(capsys, exercises.check_total_variation, lambda p, q: 0.0)
    assert "the shape (3,) was expected, () came" in said
    assert "it returned nothing" in heard(capsys, exercises.check_area, lambda *_: None)


def test_an_argument_that_was_changed_is_named(capsys):
    wrong = spoils(total_variation, lambda p: p.fill(0))
    assert "it changed its argument p" in heard(capsys, exercises.check_total_variation, wrong)


def test_inputs_are_new_at_every_call(capsys):
    seen = []
    for _ in range(2):
        exercises.check_area(lambda shares, scores: seen.append(scores.copy()) or area(shares, scores))
    capsys.readouterr()
    assert len({values.tobytes() for values in seen}) == 2 * judging.TRIALS


def test_tensors_and_arrays_are_both_answers(capsys):
    as_tensor = lambda p, q: torch.tensor(total_variation(p, q))  # noqa: E731
    assert heard(capsys, exercises.check_total_variation, as_tensor).startswith("✅")
    assert heard(capsys, exercises.check_layer_rates, lambda *c: np.array(layer_rates(*c))).startswith("✅")


def test_a_network_is_left_to_the_answer(capsys):
    class Seen:
        model: nn.Module | None = None

    def keep(model, head):
        Seen.model = model
        freeze(model, head)

    assert heard(capsys, exercises.check_freeze, keep).startswith("✅")
    assert isinstance(Seen.model, nn.Module)
