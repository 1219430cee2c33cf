"""How to train: one frozen record, the optimiser it names and the learning rate at each moment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn

from helpers import did_you_mean
from helpers.batches import Augment

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("one-cycle", "cosine", "step", "plateau", "constant")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Config:
    """How to train a network.

    Args:
        epochs: passes over the training set.
        batch_size: images a step.
        lr: highest learning rate; the schedule scales it.
        optimizer: "adamw", "adam" or "sgd" (with Nesterov momentum).
        weight_decay: pull towards zero; on weights only, not on biases and batch norm.
        momentum: of SGD.
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


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return the optimiser that the configuration names, with weight decay on weights only.

    Args:
        model: the network; parameters that ask for no gradient are left out.
        config: which optimiser, and its numbers.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.device.type in {"cpu", "cuda"} for p in trained)
    if config.optimizer == "sgd":
        nesterov = config.momentum > 0
        return torch.optim.SGD(groups, config.lr, config.momentum, nesterov=nesterov, fused=fused)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(groups, config.lr, fused=fused)
