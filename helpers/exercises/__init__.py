"""Checks of the exercises: each ``check_...`` takes the function you wrote and tries it on random inputs.

It prints a tick, or the first input on which something else was expected, and returns True or False. It
raises nothing and changes nothing; an exercise without an answer says so, and the notebook runs on. Inputs,
reference and the name that is printed are the check's own, so a teacher can grade by what it returns.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.exercises.judging import Case, equals, judge

Random = np.random.Generator


def _named(names: str, values: Iterable) -> Case:
    return dict(zip(names.split(), values, strict=True))


@equals(lambda random: {"landmarks": random.uniform(0, 48, (random.integers(2, 6), 68, 2))})
def check_eye_opening(landmarks: np.ndarray) -> np.ndarray:
    """Check landmarks ``[N, 68, 2]`` to ``[N]``: mean distance of the lids over that of the outer corners."""
    upper, lower = landmarks[:, [37, 38, 43, 44]], landmarks[:, [41, 40, 47, 46]]
    lids = np.linalg.norm(upper - lower, axis=2).mean(axis=1)
    return lids / np.linalg.norm(landmarks[:, 36] - landmarks[:, 45], axis=1)


@equals(
    lambda random: {"votes": random.integers(0, 5, (3, random.integers(2, 5))) + 2 * np.eye(1, dtype=int)}
)
def check_rater_agreement(votes: np.ndarray) -> np.ndarray:
    """Check votes ``[N, K]`` to ``[N]``: the probability that two different raters chose the same class."""
    raters = votes.sum(axis=1)
    return (votes * (votes - 1)).sum(axis=1) / (raters * (raters - 1))


def _images_with_copies(random: Random) -> Case:
    train, test = (random.integers(0, 256, (num, 6, 6), dtype=np.uint8) for num in (8, 5))
    train[random.permutation(8)[:3]] = test[random.integers(0, 5, 3)]
    test[4] = train[0]
    test[4, 0, 0] ^= 1  # one grey level in one pixel: no copy
    return {"train": train, "test": test}


@equals(_images_with_copies)
def check_without_copies(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Check the mask ``[N]`` of training images ``[N, H, W]`` that copy no test image ``[M, H, W]``."""
    return ~(train[:, None] == test[None]).all(axis=(2, 3)).any(axis=1)


def check_split_by_person(answer: Callable[[np.ndarray, float, int], np.ndarray]) -> bool:
    """Check subjects ``[N]``, share and seed to a mask ``[N]`` of test faces with nobody on both sides."""

    def draw(random: Random) -> Case:
        people = random.choice(10_000, 60, replace=False)
        subject = random.permutation(np.repeat(people, random.integers(3, 9, 60)))
        share, seed = float(random.choice([0.2, 0.3])), int(random.integers(1000))
        return {"subject": subject, "share": share, "seed": seed}

    def complaint(case: Case, result: Any) -> str | None:
        subject, share, seed = case.values()
        mask = np.asarray(result)
        if mask.dtype.kind != "b" or mask.shape != subject.shape:
            return f"true and false of shape {subject.shape} were expected, {mask.dtype} {mask.shape} came"
        if both := len(np.intersect1d(subject[mask], subject[~mask])):
            return f"{both} people are on both sides"
        if abs(mask.mean() - share) > 0.05:
            return f"{mask.mean():.0%} of the faces are test faces"
        again, *others = (answer(subject.copy(), share, seed + i) for i in range(4))
        if not np.array_equal(mask, again):
            return "the same seed gave another split the second time"
        return "other seeds give the same split" if all(np.array_equal(mask, o) for o in others) else None

    return judge("split_by_person", answer, draw, complaint)


def _gradients(random: Random) -> Case:
    degrees = random.uniform(0, 180, random.integers(3, 7))
    degrees[0] = random.choice([1.0, 179.0])  # beyond the middle of an outermost bin: the circle closes
    lengths = random.uniform(0, 9, len(degrees))
    return {"lengths": lengths, "degrees": degrees, "bins": int(random.integers(4, 10))}


@equals(_gradients)
def check_soft_histogram(lengths: np.ndarray, degrees: np.ndarray, bins: int) -> np.ndarray:
    """Check a histogram ``[bins]`` in which each pixel shares its gradient between the two nearest bins.

    It takes lengths ``[P]`` and directions ``[P]`` in degrees from 0 to below 180. The middle of bin i is
    (i + 1/2) * 180 / bins, and the half circle is closed.
    """
    width = 180 / bins
    apart = np.abs(degrees[:, None] - (np.arange(bins) + 0.5) * width)
    return lengths @ np.clip(1 - np.minimum(apart, 180 - apart) / width, 0, None)


@equals(lambda r: {"a": r.normal(size=(3, 4)), "b": r.normal(size=(2, 4)), "gamma": r.uniform(0.1, 2)})
def check_rbf_kernel(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
    """Check exp(-gamma |a - b|²), ``[N, M]``, of every row of a ``[N, D]`` with every row of b ``[M, D]``."""
    return np.exp(-gamma * scipy.spatial.distance.cdist(a, b, "sqeuclidean"))


@equals(lambda random: {"scores": random.normal(0, 2, 6), "sides": random.choice([-1, 1], 6)})
def check_hinge_loss(scores: np.ndarray, sides: np.ndarray) -> float:
    """Check the mean of max(0, 1 - side * score), of scores ``[N]`` for sides ``[N]`` of -1 or 1."""
    return float(np.mean([max(0.0, 1 - side * score) for score, side in zip(scores, sides, strict=True)]))


@equals(lambda r: _named("size kernel stride padding", r.integers([8, 1, 1, 0], [65, 8, 4, 4]).tolist()))
def check_output_size(size: int, kernel: int, stride: int, padding: int) -> int:
    """Check the side length in pixels of a convolution's output."""
    return len(range(-padding, size + padding - kernel + 1, stride))


def _logits(random: Random) -> Case:
    logits = torch.tensor(random.normal(0, random.choice([1, 10, 1e4]), (3, 4))).float()
    return {"logits": logits, "labels": torch.tensor(random.integers(0, 4, 3))}


@equals(_logits)
def check_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Check the mean cross-entropy of logits ``[N, K]`` and labels ``[N]``, finite for large logits too."""
    return functional.cross_entropy(logits.double(), labels)


def _step(random: Random) -> Case:
    steps, warmup = int(random.integers(20, 100)), int(random.integers(1, 10))
    step = int(random.choice([0, warmup - 1, warmup, steps - 1, int(random.integers(steps))]))
    return {"step": step, "steps": steps, "warmup": warmup, "peak": float(10 ** random.uniform(-4, 0))}


@equals(_step, tolerance=1e-7)
def check_learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Check a rate with linear warm-up from 0 at step 0 to the peak, and a cosine to 0 at ``steps``."""
    if step < warmup:
        return peak * step / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


@equals(lambda random: {"labels": random.choice([0, 1, 2, 4], 12), "num_classes": 6})  # two stay empty
def check_class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Check labels ``[N]`` to class weights ``[K]``: N / (K n_k), and 0 for a class without a face."""
    counts = [int((labels == k).sum()) for k in range(num_classes)]
    return np.array([len(labels) / (num_classes * n) if n else 0.0 for n in counts])


@equals(lambda random: {"weight": torch.tensor(random.normal(size=(4, 3, 3, 3))).float()})
def check_grey_stem(weight: Tensor) -> Tensor:
    """Check weights ``[O, 3, k, k]`` to ``[O, 1, k, k]`` that give for grey what those gave for it as RGB."""
    return weight.sum(dim=1, keepdim=True)


def check_freeze(answer: Callable[[nn.Module, str], None]) -> bool:
    """Check that, after a network in training mode was given with its head's name, only the head learns.

    A training step must change neither other weights nor the running statistics of batch norm.
    """

    def draw(random: Random) -> Case:
        body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        parts = {"body": body, "flat": nn.Flatten(), "head": nn.Linear(4, int(random.integers(2, 6)))}
        return {"model": nn.Sequential(OrderedDict(parts)), "head": "head"}

    def complaint(case: Case, _: Any) -> str | None:
        model = case["model"]
        before = copy.deepcopy(model.state_dict())
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained:
            return "no parameter is left to train"
        model(torch.rand(8, 1, 8, 8)).square().mean().backward()
        torch.optim.SGD(trained, 1.0).step()
        changed = [n for n, v in model.state_dict().items() if not torch.equal(v, before[n])]
        if wrong := [name for name in changed if not name.startswith("head.")]:
            return f"a training step changed {', '.join(wrong)}"
        return None if {"head.weight", "head.bias"} <= set(changed) else "the head does not learn"

    return judge("freeze", answer, draw, complaint)


@equals(
    lambda r: {"num_layers": int(r.integers(2, 7)), "lr": r.random(), "decay": r.random()}, tolerance=1e-7
)
def check_layer_rates(num_layers: int, lr: float, decay: float) -> np.ndarray:
    """Check rates from first to last layer: the last has ``lr``, each other ``decay`` times the next."""
    return lr * decay ** np.arange(num_layers)[::-1]


def _partly_known(random: Random) -> Case:
    predicted, truth = torch.tensor(random.uniform(-1, 1, (2, 4, 2)))
    truth[torch.tensor(random.random((4, 2)) < random.choice([0.3, 1.0]))] = torch.nan
    return {"predicted": predicted, "truth": truth}


@equals(_partly_known)
def check_masked_mse(predicted: Tensor, truth: Tensor) -> float:
    """Check the mean squared error of predictions ``[N, 2]`` where truth ``[N, 2]`` is known, else 0."""
    known = ~truth.isnan()
    return float((predicted - truth)[known].square().mean()) if known.any() else 0.0


@equals(lambda random: _named("predicted truth", random.choice([-0.7, -0.1, 0.0, 0.2, 0.9], (2, 9))))
def check_sign_agreement(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Check the share of predictions ``[N]`` with the sign of the truth ``[N]``; 0 is a sign of its own."""
    return float(np.mean(np.sign(predicted) == np.sign(truth)))


@equals(lambda random: {"truth": random.uniform(-1, 1, 10), "labels": random.choice([0, 2, 5], 10)})
def check_class_means(truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Check truth ``[N]`` and labels ``[N]`` to ``[N]``: the mean of the truth over each face's class."""
    return np.array([truth[labels == label].mean() for label in labels])


def _shifted(random: Random) -> Case:
    truth = random.uniform(-1, 1, 8)
    predicted = random.uniform(-1.5, 1.5) * truth + random.normal(0, 0.3, 8) + random.normal(0, 0.5)
    return {"predicted": predicted, "truth": truth}


@equals(_shifted, tolerance=1e-6)
def check_ccc(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Check the concordance correlation (Lin 1989) of two ``[N]``, variances divided by n."""
    (var_p, covariance), (_, var_t) = np.cov(predicted, truth, bias=True)
    return 2 * covariance / (var_p + var_t + (predicted.mean() - truth.mean()) ** 2)


def _two_distributions(random: Random) -> Case:
    p, q = random.dirichlet(np.ones(int(random.integers(3, 6))), (2, 3))
    p[0, 0], q[1, 1], p[2, 2], q[2, 2] = 0, 0, 0, 0
    return {"p": p / p.sum(axis=1, keepdims=True), "q": q / q.sum(axis=1, keepdims=True)}


@equals(_two_distributions)
def check_total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Check half the sum of absolute differences, ``[N]``, of p ``[N, K]`` and q ``[N, K]``."""
    return np.clip(p - q, 0, None).sum(axis=1)


@equals(_two_distributions)
def check_jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Check the Jensen-Shannon divergence in nats, ``[N]``, of p ``[N, K]`` and q ``[N, K]``."""
    return scipy.spatial.distance.jensenshannon(p, q, axis=1) ** 2


@equals(_two_distributions)
def check_ordered_emd(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Check the earth mover's distance, ``[N]``, of p and q ``[N, K]``, classes in a row, one step apart."""
    places, distance = np.arange(p.shape[1]), scipy.stats.wasserstein_distance
    return np.array([distance(places, places, *rows) for rows in zip(p, q, strict=True)])


def _confidences(random: Random) -> Case:
    confidence = np.append(random.uniform(0.01, 1, 11), 1.0)
    return {"confidence": confidence, "right": random.random(12) < confidence, "bins": 5}


@equals(_confidences)
def check_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int) -> float:
    """Check the expected calibration error of confidence ``[N]`` and hits ``[N]``, over bins (low, high]."""
    sums = np.bincount(np.ceil(confidence * bins).astype(int), right - confidence)
    return float(np.abs(sums).sum() / len(right))


@equals(lambda random: _named("maps slopes", random.normal(size=(2, 3, 2, 2))))
def check_weighted_map(maps: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Check maps and gradients ``[C, H, W]`` to Grad-CAM's ``[H, W]``: the ReLU of the weighted sum."""
    return np.clip(np.einsum("c,chw->hw", slopes.mean(axis=(1, 2)), maps), 0, None)


# a wrong rule is often right by chance, so more trials
@equals(lambda random: {"heat": random.normal(size=(3, 4)), "inside": random.random((3, 4)) < 0.5}, trials=60)
def check_pointing_hit(heat: np.ndarray, inside: np.ndarray) -> bool:
    """Check whether the maximum of heat ``[H, W]`` is inside ``[H, W]`` (pointing game, Zhang 2016)."""
    return bool(inside[heat == heat.max()][0])


@equals(lambda random: {"shares": np.sort(random.random(6)), "scores": random.random(6)})
def check_area(shares: np.ndarray, scores: np.ndarray) -> float:
    """Check the area under scores ``[S]`` over unevenly spaced shares ``[S]``, by trapezoids."""
    return scipy.integrate.trapezoid(scores, shares)


@equals(
    lambda random: {"a": (a := random.normal(size=(3, 3))), "b": np.exp(a) + random.normal(0, 0.5, (3, 3))}
)
def check_rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Check Spearman's rank correlation of two heat maps ``[H, W]`` without ties."""
    return scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic
