"""Answers to the exercises of notebook 04: stems, frozen layers, learning rates by depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from helpers.checks.judging import Case, equals, judge


def check_grey_stem(answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Check the weights with which a grey picture gives what the same picture gave as RGB.

    Args:
        answer: weights ``[O, 3, k, k]`` of a convolution to ``[O, 1, k, k]``.
    """

    def draw(random: np.random.Generator) -> Case:
        return {"weight": torch.tensor(random.normal(size=(4, 3, 3, 3)), dtype=torch.float32)}

    def complaint(case: Case, result: Any) -> str | None:
        if not isinstance(result, torch.Tensor) or result.shape != (4, 1, 3, 3):
            return f"a tensor [4, 1, 3, 3] was expected, {_kind(result)} came"
        grey = torch.rand(2, 1, 8, 8)
        expected = functional.conv2d(grey.repeat(1, 3, 1, 1), case["weight"])
        far = (functional.conv2d(grey, result) - expected).abs().max()
        return f"the answers to a grey picture differ by {far:.3g}" if not far < 1e-4 else None

    judge(answer, draw, complaint)


def check_freeze(answer: Callable[[nn.Module, str], None]) -> None:
    """Check that a network learns in its head only, and that its batch normalisation keeps what it knows.

    Args:
        answer: a network and the name of its head; changes the network so that a training step in training
            mode moves nothing but the head. It is called after ``model.train()``.
    """

    def draw(random: np.random.Generator) -> Case:
        body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        model = nn.Sequential()
        model.add_module("body", body)
        model.add_module("flat", nn.Flatten())
        model.add_module("head", nn.Linear(4, int(random.integers(2, 6))))
        return {"model": model.train(), "head": "head"}

    def complaint(case: Case, _: Any) -> str | None:
        model = case["model"]
        before = {name: value.clone() for name, value in model.state_dict().items()}
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not learning:
            return "nothing is left that learns"
        model(torch.rand(8, 1, 8, 8)).square().mean().backward()
        torch.optim.SGD(learning, 1.0).step()
        moved = [n for n, v in model.state_dict().items() if not torch.equal(v, before[n])]
        if wrong := [name for name in moved if not name.startswith("head.")]:
            return f"a training step moved {', '.join(wrong)}"
        return None if {"head.weight", "head.bias"} <= set(moved) else "the head does not learn"

    judge(answer, draw, complaint)


def check_layer_rates(answer: Callable[[int, float, float], list[float]]) -> None:
    """Check learning rates by depth: the last layer's is the highest, each other ``decay`` times the next.

    Args:
        answer: number of layers, highest rate and decay to the rates from the first layer to the last.
    """

    def draw(random: np.random.Generator) -> Case:
        rates = {"lr": float(10 ** random.uniform(-4, 0)), "decay": float(random.uniform(0.3, 0.9))}
        return {"num_layers": int(random.integers(2, 7)), **rates}

    def reference(num_layers: int, lr: float, decay: float) -> np.ndarray:
        return lr * decay ** np.arange(num_layers)[::-1]

    judge(answer, draw, equals(reference, tolerance=1e-7))


def _kind(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
