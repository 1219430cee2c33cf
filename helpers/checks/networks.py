"""Answers to the exercises of notebook 03: sizes, losses, learning rates, weights of classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from helpers.checks.judging import Case, equals, judge


def check_output_size(answer: Callable[[int, int, int, int], int]) -> None:
    """Check the side of what a convolution puts out.

    Args:
        answer: side of the input, side of the kernel, stride and padding, in pixels, to the output's side.
    """

    def draw(random: np.random.Generator) -> Case:
        kernel = int(random.integers(1, 8))
        sizes = {"size": int(random.integers(8, 65)), "kernel": kernel}
        return sizes | {"stride": int(random.integers(1, 4)), "padding": int(random.integers(0, kernel))}

    def reference(size: int, kernel: int, stride: int, padding: int) -> int:
        layer = torch.nn.Conv2d(1, 1, kernel, stride, padding, device="meta")
        return layer(torch.empty(1, 1, size, size, device="meta")).shape[-1]

    judge(answer, draw, equals(reference))


def check_cross_entropy(answer: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
    """Check the mean cross-entropy, finite for logits however large.

    Args:
        answer: logits ``[N, K]`` and labels ``[N]`` to a number.
    """

    def draw(random: np.random.Generator) -> Case:
        scale = float(random.choice([1, 10, 1e4]))
        logits = torch.tensor(random.normal(0, scale, (3, 4)), dtype=torch.float32)
        return {"logits": logits, "labels": torch.tensor(random.integers(0, 4, 3))}

    judge(answer, draw, equals(lambda logits, labels: functional.cross_entropy(logits.double(), labels)))


def check_learning_rate(answer: Callable[[int, int, int, float], float]) -> None:
    """Check a learning rate that rises linearly over the warm-up and falls to zero on half a cosine.

    Args:
        answer: step, number of steps, steps of warm-up and highest rate to the step's rate: step 0 has 0,
            step ``warmup`` the highest, and step ``steps`` would have 0 again.
    """

    def draw(random: np.random.Generator) -> Case:
        steps, warmup = int(random.integers(20, 100)), int(random.integers(1, 10))
        places = [0, warmup - 1, warmup, steps - 1, int(random.integers(steps))]
        return {
            "step": int(random.choice(places)),
            "steps": steps,
            "warmup": warmup,
            "peak": float(10 ** random.uniform(-4, 0)),
        }

    def reference(step: int, steps: int, warmup: int, peak: float) -> float:
        if step < warmup:
            return peak * step / warmup
        return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

    judge(answer, draw, equals(lambda *case: reference(*case), tolerance=1e-7))


def check_class_weights(answer: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Check weights that make every class count the same: N / (K n_k), and 0 for a class without a face.

    Args:
        answer: labels ``[N]`` and the number of classes K to ``[K]``.
    """

    def draw(random: np.random.Generator) -> Case:
        labels = random.integers(0, 4, 12)
        labels[labels == random.integers(4)] = 4  # at least one class stays empty
        return {"labels": labels, "num_classes": 6}

    def reference(labels: np.ndarray, num_classes: int) -> np.ndarray:
        counts = [int((labels == k).sum()) for k in range(num_classes)]
        return np.array([len(labels) / (num_classes * n) if n else 0.0 for n in counts])

    judge(answer, draw, equals(reference))
