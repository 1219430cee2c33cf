"""How to train: one frozen record, the optimiser it names and the learning rate at each moment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from helpers import did_you_mean, models
from helpers.batches import Augment
from helpers.training.muon import Muon

OPTIMIZERS = ("adamw", "adam", "sgd", "muon")
SCHEDULES = ("one-cycle", "cosine", "step", "plateau", "constant")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Config:
    """How to train a network.

    Args:
        epochs: passes over the training set.
        batch_size: images a step.
        lr: highest learning rate; the schedule scales it.
        lr_decay: the learning rate of each stage of the network as a share of that of the stage after it; the
            head has the whole of ``lr``. 1 for the same everywhere (see ``models.stages``).
        optimizer: "adamw", "adam", "sgd" (with Nesterov momentum) or "muon" (:mod:`helpers.training.muon`).
        weight_decay: pull towards zero; on weights only, not on biases and batch norm.
        momentum: of SGD and Muon.
        schedule: "one-cycle" rises and falls linearly to zero (Smith 2018, arXiv 1803.09820); "cosine"
            falls along a half wave; "step" divides by ten at 50 % and 75 %; "plateau" halves after
            ``plateau_patience`` epochs without a better ``monitor``; "constant" stays.
        warmup: fraction of the training in which the learning rate rises from zero.
        plateau_patience: epochs, for the schedule "plateau".
        ema: decay a step of the running mean of the weights that is validated and kept; 0 for none.
        patience: epochs without a better ``monitor`` after which training ends; 0 for never.
        monitor: the validation metric that picks the best epoch, or "loss", of which less is better.
        minimise: less of ``monitor`` is better.
        grad_clip: largest norm of the gradient; 0 for no limit.
        augment: how to change the training images, or None.
        precision: "auto" takes the half precision that the chip has; or "float32", "bfloat16", "float16".
        seed: of order, augmentation and dropout, from 0 to 2**32 - 1.

    Raises:
        ValueError: a value outside its range, or an unknown name.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    lr_decay: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: str = "one-cycle"
    warmup: float = 0.2
    plateau_patience: int = 3
    ema: float = 0.0
    patience: int = 0
    monitor: str = "accuracy"
    minimise: bool = False
    grad_clip: float = 0.0
    augment: Augment | None = field(default_factory=Augment)
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        names = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for argument, known in names.items():
            value = getattr(self, argument)
            if value not in known:
                raise ValueError(
                    f"unknown {argument} {value!r}{did_you_mean(value, known)}; known: {', '.join(known)}"
                )
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2 (batch norm needs two)")
        _require(0 < self.lr < math.inf, "lr", self.lr, "above 0")
        _require(0 < self.lr_decay <= 1, "lr_decay", self.lr_decay, "above 0 and at most 1")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        _require(0 <= self.warmup < 1, "warmup", self.warmup, "from 0 to below 1")
        _require(0 <= self.ema < 1, "ema", self.ema, "from 0 to below 1")
        _require(0 <= self.seed < 2**32, "seed", self.seed, f"from 0 to {2**32 - 1}")

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the monitored metric is better."""
        return self.minimise or self.monitor == "loss"


def _require(holds: bool, argument: str, value: object, wanted: str) -> None:
    if not holds:
        raise ValueError(f"Config({argument}={value}): must be {wanted}")


def lr_factor(schedule: str, progress: float, warmup: float = 0.0) -> float:
    """Return the learning rate as a fraction of the highest one.

    Args:
        schedule: one of ``SCHEDULES``; "plateau" counts as constant here, what it takes off comes on top.
        progress: the share of the training that is done, from 0 to 1.
        warmup: the share in which it rises linearly from zero.
    """
    if progress < warmup:
        return progress / warmup
    left = (1 - progress) / (1 - warmup)
    if schedule == "one-cycle":
        return left
    if schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    if schedule == "step":
        return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01
    return 1.0


def make_optimizer(model: nn.Module, config: Config, also: nn.Module | None = None) -> torch.optim.Optimizer:
    """Return the optimiser that the configuration names, with weight decay on weights only.

    Each of its groups has a "share": what part of the learning rate is its own.

    Args:
        model: the network; parameters that ask for no gradient are left out.
        config: which optimiser, and its numbers.
        also: what else is learned, at the head's learning rate.

    Raises:
        ValueError: nothing is left to learn.
    """
    groups: list[dict[str, Any]] = []
    for share, parameters in _by_depth(model, config.lr_decay, also):
        trained = [p for p in parameters if p.requires_grad]
        common = {"share": share, "lr": config.lr * share}
        weights, others = ([p for p in trained if (p.ndim > 1) == high] for high in (True, False))
        groups.append({"params": weights, "weight_decay": config.weight_decay, **common})
        groups.append({"params": others, "weight_decay": 0.0, **common})
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("every part of the network is frozen: nothing is left to learn")
    fused = all(p.device.type in {"cpu", "cuda"} for group in groups for p in group["params"])
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, config.lr, config.momentum, nesterov=nesterov, fused=fused)
    if config.optimizer == "muon":
        return Muon(groups, config.lr, momentum=config.momentum)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(groups, config.lr, fused=fused)


def _by_depth(model: nn.Module, decay: float, also: nn.Module | None) -> Iterator[tuple[float, list]]:
    """Yield parameters with their share of the learning rate, those of the head first."""
    extra = [] if also is None else list(also.parameters())
    if decay == 1:
        yield 1.0, [*model.parameters(), *extra]
        return
    named = dict(model.named_parameters())
    for depth, names in enumerate(reversed(models.stages(model))):
        yield decay**depth, [named[name] for name in names] + (extra if depth == 0 else [])
