"""The checks of the exercises: every one takes the right answer, and finds what usually goes wrong."""

from __future__ import annotations

import inspect
import math

import model_answers
import numpy as np
import pytest
from model_answers import (
    calibration_error,
    class_weights,
    eye_opening,
    freeze,
    grey_stem,
    jensen_shannon,
    layer_rates,
    learning_rate,
    ordered_emd,
    pointing_hit,
    rbf_kernel,
    soft_histogram,
    split_by_person,
    total_variation,
    without_copies,
)
from scipy import integrate, stats
from torch.nn import functional

from helpers import exercises

CHECKS = {name: check for name, check in vars(exercises).items() if name.startswith("check_")}
RIGHT = {name: getattr(model_answers, name.removeprefix("check_")) for name in CHECKS}


def not_closed(lengths, degrees, bins):
    place = degrees / (180 / bins) - 0.5
    low, histogram = np.floor(place).astype(int), np.zeros(bins)
    for at, share in ((low, 1 - place + low), (low + 1, place - low)):
        inside = (at >= 0) & (at < bins)
        np.add.at(histogram, at[inside], (share * lengths)[inside])
    return histogram


def everything_frozen(model, head):
    model.requires_grad_(False).eval()


def statistics_forgotten(model, head):
    for name, part in model.named_children():
        part.requires_grad_(name == head)


def bias_frozen(model, head):
    freeze(model, head)
    model.head.bias.requires_grad_(False)


def back_in_training_mode(model, head):
    freeze(model, head)
    model.train()


def changes_its_argument(p, q):
    right = total_variation(p, q)
    p.fill(0)
    return right


WRONG = {
    "eye_opening": [
        lambda x: eye_opening(x[:, ::-1]),
        lambda x: eye_opening(x) * np.linalg.norm(x[:, 36] - x[:, 45], axis=1),
    ],
    "rater_agreement": [lambda v: v.max(1) / v.sum(1), lambda v: ((v / v.sum(1, keepdims=True)) ** 2).sum(1)],
    "without_copies": [
        lambda a, b: ~without_copies(a, b),
        lambda a, b: np.array([not any(abs(x.astype(int) - y).max() <= 1 for y in b) for x in a]),
    ],
    "split_by_person": [
        lambda subject, share, seed: np.random.default_rng(seed).random(len(subject)) < share,
        lambda subject, share, seed: split_by_person(subject, share / 2, seed),
        lambda subject, share, seed: split_by_person(subject, share, 0),
        lambda subject, share, seed: split_by_person(subject, share, None),
    ],
    "soft_histogram": [
        not_closed,
        lambda lengths, degrees, bins: soft_histogram(lengths, (degrees + 90 / bins) % 180, bins),
    ],
    "rbf_kernel": [
        lambda a, b, gamma: rbf_kernel(a, b, 1 / gamma),
        lambda a, b, gamma: np.exp(-gamma * np.sqrt(-np.log(rbf_kernel(a, b, 1)))),
    ],
    "hinge_loss": [lambda f, y: (1 - y * f).mean(), lambda f, y: np.maximum(0, -y * f).mean()],
    "output_size": [lambda n, k, s, p: (n + 2 * p - k) / s + 1, lambda n, k, s, p: (n + p - k) // s + 1],
    "cross_entropy": [
        lambda z, y: -(z.exp() / z.exp().sum(1, keepdim=True)).log()[range(len(y)), y].mean(),
        lambda z, y: functional.cross_entropy(z.softmax(1), y),
    ],
    "learning_rate": [
        lambda step, steps, warmup, peak: peak * min(1, step / warmup),
        lambda step, steps, warmup, peak: learning_rate(step + 1, steps, warmup, peak),
    ],
    "class_weights": [
        lambda y, k: len(y) / (k * np.bincount(y, minlength=k)),
        lambda y, k: class_weights(y, y.max() + 1),
    ],
    "grey_stem": [lambda w: w.mean(dim=1, keepdim=True), lambda w: w[:, :1], lambda w: grey_stem(w).numpy()],
    "freeze": [everything_frozen, statistics_forgotten, bias_frozen, back_in_training_mode],
    "layer_rates": [
        lambda n, lr, decay: layer_rates(n, lr, decay)[::-1],
        lambda n, lr, decay: layer_rates(n + 1, lr, decay)[:-1],
    ],
    "masked_mse": [
        lambda p, t: (p - t.nan_to_num()).square().mean(),
        lambda p, t: (p - t).square().nanmean(),
    ],
    "sign_agreement": [lambda p, t: np.mean((p > 0) == (t > 0)), lambda p, t: np.mean(p * t >= 0)],
    "class_means": [
        lambda t, y: np.array([t[y == k].mean() for k in np.unique(y)]),
        lambda t, y: np.array([np.median(t[y == k]) for k in y]),
    ],
    "ccc": [
        lambda p, t: 2 * np.cov(p, t)[0, 1] / (p.var() + t.var() + (p.mean() - t.mean()) ** 2),
        lambda p, t: 2 * np.cov(p, t, bias=True)[0, 1] / (p.var() + t.var()),
    ],
    "total_variation": [lambda p, q: np.abs(p - q).mean(1) / 2, changes_its_argument],
    "jensen_shannon": [
        lambda p, q: (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))).sum(axis=1) / 2,
        lambda p, q: jensen_shannon(p, q) / math.log(2),
    ],
    "ordered_emd": [total_variation, lambda p, q: ordered_emd(p, q) / p.shape[1]],
    "calibration_error": [lambda c, r, b: np.abs(r - c).mean(), lambda c, r, b: calibration_error(c, r, 10)],
    "weighted_map": [
        lambda m, s: (s.mean((1, 2))[:, None, None] * m).sum(0),
        lambda m, s: np.maximum((s * m).sum(0), 0),
    ],
    "pointing_hit": [
        lambda h, m: bool(m[np.abs(h) == np.abs(h).max()][0]),
        lambda h, m: int(pointing_hit(h, m)),
    ],
    "area": [lambda x, y: integrate.trapezoid(y, dx=0.2), lambda x, y: np.sum(np.diff(x) * y[1:])],
    "rank_correlation": [
        lambda a, b: np.corrcoef(a.ravel(), b.ravel())[0, 1],
        lambda a, b: stats.kendalltau(a.ravel(), b.ravel()).statistic,
    ],
}
REFUSED = [  # whatever the exercise is
    lambda result: None,
    lambda result: "happy",
    lambda result: [[1], [2, 3]],
    lambda result: np.asarray(result)[..., None],
    lambda result: 2 * np.asarray(result, dtype=float),
    lambda result: np.asarray(result, dtype=float) * np.nan,
]


def heard(capsys, name, answer, passes: bool) -> str:
    assert CHECKS[name](answer) is passes
    said = capsys.readouterr().out
    assert said.count("\n") == 1, "one line"
    assert said[1:].lstrip("\ufe0f").startswith(f" {name.removeprefix('check_')}: ")
    return said


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", CHECKS)
def test_right_answers_are_taken_wrong_ones_found_and_a_stub_waits(name, capsys):
    def stub(*_):
        raise NotImplementedError

    for _ in range(5):
        assert heard(capsys, name, RIGHT[name], True).startswith("✅")
    wrong = WRONG[name.removeprefix("check_")]
    if name != "check_freeze":  # it returns nothing
        wrong = wrong + [lambda *case, spoil=spoil: spoil(RIGHT[name](*case)) for spoil in REFUSED]
    for answer in wrong:
        assert heard(capsys, name, answer, False).startswith("❌"), inspect.getsource(answer)
    assert "waits for your answer" in heard(capsys, name, stub, False)


@pytest.mark.parametrize("error", [ZeroDivisionError("by\nzero"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_is_raised_is_caught(error, capsys):
    def broken(*_):
        raise error

    said = heard(capsys, "check_area", broken, False)
    assert f"it raised {type(error).__name__}" in said
    assert f"(line {inspect.getsourcelines(broken)[1] + 1})" in said


@pytest.mark.parametrize(
    ("name", "answer", "words"),
    [
        ("output_size", lambda *_: -7, ["expected, -7 came", "size=", "kernel=", "stride=", "padding="]),
        ("total_variation", lambda p, q: 0.0, ["the shape (3,) was expected, () came"]),
        ("total_variation", changes_its_argument, ["it changed its argument p"]),
        ("area", lambda *_: None, ["it returned nothing"]),
    ],
)
def test_what_was_expected_and_what_came_is_said(name, answer, words, capsys):
    said = heard(capsys, f"check_{name}", answer, False)
    assert [word for word in words if word not in said] == []
