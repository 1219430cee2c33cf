"""How to train: one frozen record, the optimiser it names and the learning rate at each moment."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from helpers import models, one_of
from helpers.batches import Augment

OPTIMIZERS = ("adamw", "adam", "sgd", "muon")
SCHEDULES = ("one-cycle", "cosine", "step", "plateau", "constant")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

_NAMES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
_KINDS = {"int": numbers.Integral, "float": numbers.Real, "float | None": numbers.Real | None}
_KINDS |= {"str": str, "bool": bool, "Augment | None": Augment | None}
_SPANS = dict.fromkeys(("epochs", "plateau_patience"), "[1, inf)")
_SPANS |= dict.fromkeys(("weight_decay", "warmup", "step_size", "patience", "grad_clip"), "[0, inf)")
_SPANS |= dict.fromkeys(("lr_decay", "gamma"), "(0, 1]") | dict.fromkeys(("momentum", "ema"), "[0, 1)")
_SPANS |= {"lr": "(0, inf)", "plateau_factor": "(0, 1)", "seed": f"[0, {2**32})"}
_SPANS |= {"batch_size": "[2, inf)"}  # batch norm needs two


@dataclass(frozen=True)
class Config:
    """How to train a network.

    Args:
        epochs: passes over the training set.
        batch_size: images a step.
        lr: highest learning rate; the schedule scales it.
        lr_decay: the learning rate of each stage of the network as a share of that of the stage after it; the
            head has the whole of ``lr``. 1 for the same everywhere (see ``models.stages``).
        optimizer: "adamw", "adam", "sgd" (with Nesterov momentum) or "muon" (:class:`Muon`).
        weight_decay: pull towards zero; on weights only, not on biases and batch norm.
        momentum: of SGD and Muon.
        schedule: "one-cycle" rises and falls linearly to zero (Smith 2018, arXiv 1803.09820); "cosine" falls
            along a half wave; "step" multiplies by ``gamma`` every ``step_size`` epochs; "plateau" multiplies
            by ``plateau_factor`` after ``plateau_patience`` epochs without progress; "constant" stays.
        warmup: how long the learning rate rises from zero: below 1 a share of the training, from 1 on epochs.
            None for 0.2 with "one-cycle" and 0 otherwise.
        step_size: epochs, for "step"; 0 for steps after 50 % and 75 % of the training.
        gamma: factor, for "step".
        plateau_patience: epochs, for "plateau".
        plateau_factor: factor, for "plateau".
        plateau_monitor: the validation metric that "plateau" watches, or "loss"; "" for ``monitor``.
        ema: decay a step of the running mean of the weights that is validated and kept; 0 for none.
        patience: epochs without a better ``monitor`` after which training ends; 0 for never.
        monitor: the validation metric that picks the best epoch, or "loss", of which less is better.
        minimise: less of ``monitor`` is better.
        grad_clip: largest norm of the gradient; 0 for no limit.
        augment: how to change the training images, or None.
        precision: "auto" takes the half precision that the chip has; or "float32", "bfloat16", "float16".
        compile: let ``torch.compile`` make the network faster, where it can; the first steps take minutes.
        seed: of order, augmentation and dropout, below 2**32.

    Raises:
        ValueError: a value of another type or outside its range, or an unknown name.
    """

    epochs: int = 10
    batch_size: int = 128
    lr: float = 1e-3
    lr_decay: float = 1.0
    optimizer: str = "adamw"
    weight_decay: float = 0.01
    momentum: float = 0.9
    schedule: str = "one-cycle"
    warmup: float | None = None
    step_size: int = 0
    gamma: float = 0.1
    plateau_patience: int = 3
    plateau_factor: float = 0.5
    plateau_monitor: str = ""
    ema: float = 0.0
    patience: int = 0
    monitor: str = "accuracy"
    minimise: bool = False
    grad_clip: float = 0.0
    augment: Augment | None = field(default_factory=Augment)
    precision: str = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in ((each.name, each.type) for each in fields(self)):
            value, span = getattr(self, name), _SPANS.get(name, "")
            if name in _NAMES:
                one_of(name, value, _NAMES[name])
            fits = isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind == "bool")
            if fits and span and value is not None:
                low, high = map(float, span[1:-1].split(","))  # NaN lies in no span
                fits = low < value < high or (value == low and span[0] == "[")
                fits = fits or (value == high and span[-1] == "]")
                if fits:  # NumPy's numbers do not go into JSON
                    object.__setattr__(self, name, int(value) if kind == "int" else float(value))
            if not fits:
                raise ValueError(f"Config({name}={value!r}): must be {kind}{span and f' in {span}'}")

    @property
    def lower_is_better(self) -> bool:
        """Whether less of the monitored metric is better."""
        return self.minimise or self.monitor == "loss"

    @property
    def warmup_share(self) -> float:
        """The share of the training in which the learning rate rises from zero."""
        if self.warmup is None:
            return 0.2 if self.schedule == "one-cycle" else 0.0
        return self.warmup if self.warmup < 1 else min(1.0, self.warmup / self.epochs)


def lr_factor(
    schedule: str, progress: float, warmup: float = 0.0, step: float = 0.0, gamma: float = 0.1
) -> float:
    """Return the learning rate as a fraction of the highest one.

    Args:
        schedule: one of ``SCHEDULES``; "plateau" counts as constant here, what it takes off comes on top.
        progress: the share of the training that is done, from 0 to 1.
        warmup: the share in which it rises linearly from zero.
        step: the share after which "step" multiplies by ``gamma``, again and again; 0 for 50 % and 75 %.
        gamma: factor of "step".
    """
    if progress < warmup:
        return progress / warmup
    left = (1 - progress) / (1 - warmup)
    if schedule == "step":
        return gamma ** (progress // step if step else (progress >= 0.5) + (progress >= 0.75))
    return {"one-cycle": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}.get(schedule, 1.0)


FEWEST = 16  # rows and columns from which it is worth it: below are heads and the first layer on grey images


class Muon(torch.optim.AdamW):
    """AdamW, but for a matrix the step is its momentum made orthogonal (Jordan et al. 2024).

    A gradient is large in few directions; with all its singular values near 1 the rare ones count as much. A
    kernel ``[O, I, h, w]`` is a matrix of O rows. Steps are made as large as AdamW's, so that its learning
    rates and weight decays serve (Liu et al. 2025, arXiv 2502.16982). What has fewer than ``FEWEST`` rows or
    columns, and each vector, goes by AdamW. Of ``momentum``, in [0, 1), a new gradient leaves that share.
    """

    _step_supports_amp_scaling = True  # or a gradient scaler would wait for the device at every step

    def __init__(self, params: Any, lr: float, momentum: float = 0.95, **adamw: Any) -> None:
        super().__init__(params, lr, **adamw)
        for group in self.param_groups:
            group.setdefault("momentum", momentum)

    @torch.no_grad()
    def step(self) -> None:
        """Do a step. Gradients of matrices are used up."""
        overflow = getattr(self, "found_inf", None)  # of float16: the step is left out, decided on the device
        for weight, group in ((weight, each) for each in self.param_groups for weight in each["params"]):
            if weight.grad is None or weight.ndim < 2 or min(len(weight), weight[0].numel()) < FEWEST:
                continue
            state, keep, gradient = self.state[weight], group["momentum"], weight.grad
            if not state:
                state["step"] = torch.tensor(0.0)  # AdamW wants one when it loads a state
                state["momentum_buffer"] = torch.zeros_like(weight)
            mean = state["momentum_buffer"]
            if overflow is not None:
                gradient = torch.where(overflow > 0, mean, gradient)
            mean.lerp_(gradient, 1 - keep)
            rows = gradient.lerp(mean, keep).flatten(1)  # Nesterov's
            step = orthogonal(rows).view_as(weight) * (0.2 * max(rows.shape) ** 0.5)
            step.add_(weight, alpha=group["weight_decay"])
            weight.add_(step if overflow is None else step * (1 - overflow), alpha=-group["lr"])
            weight.grad = None  # or AdamW would take a step too
        super().step()


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix of the same singular vectors whose singular values lie near 1, from 0.7 to 1.2.

    Newton and Schulz's iteration, with Jordan's coefficients, run on the product of the matrix with its
    transpose: a kernel of 256 rows and 2304 columns takes a third of the operations.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    gram = matrix @ matrix.T
    square = gram.trace().clamp(min=torch.finfo(gram.dtype).tiny)
    gram, whole = gram / square, torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(5):
        factor = -4.775 * gram + 2.0315 * gram @ gram
        factor.diagonal().add_(3.4445)
        gram, whole = factor @ gram @ factor, factor @ whole
    return whole @ matrix / square.sqrt()


def make_optimizer(model: nn.Module, config: Config, also: nn.Module | None = None) -> torch.optim.Optimizer:
    """Return the optimiser of a network and of what else is learned; a group has its share of the rate."""
    named, groups = dict(model.named_parameters()), []
    stages = [list(named)] if config.lr_decay == 1 else reversed(models.stages(model))
    for depth, names in enumerate(stages):  # the head first
        parameters = [named[name] for name in names] + (list(also.parameters()) if also and not depth else [])
        parameters = [p for p in parameters if p.requires_grad]
        share = config.lr_decay**depth
        for decay, chosen in (
            (config.weight_decay, [p for p in parameters if p.ndim > 1]),
            (0.0, [p for p in parameters if p.ndim <= 1]),  # biases and batch norm
        ):
            group = {"params": chosen, "share": share, "lr": config.lr * share, "weight_decay": decay}
            groups += [group] if chosen else []
    if not groups:
        raise ValueError("every part of the network is frozen: nothing is left to learn")
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "muon": Muon, "sgd": torch.optim.SGD}
    how: dict[str, Any] = {"fused": all(p.device.type in {"cpu", "cuda"} for p in named.values())}
    if config.optimizer in ("sgd", "muon"):
        how["momentum"] = config.momentum
    if config.optimizer == "sgd":
        how["nesterov"] = config.momentum > 0
    return kinds[config.optimizer](groups, config.lr, **how)


@torch.no_grad()
def average_weights(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running mean of the weights towards those of now; counts are taken as they are."""
    # not state_dict(): what two names share is in there twice
    every = ([*net.parameters(), *net.buffers()] for net in (averaged, model))
    pairs = list(zip(*every, strict=True))
    mine, now = map(list, zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True))
    get_ema_multi_avg_fn(decay)(mine, now, None)
    for count, new in pairs:
        if not count.is_floating_point():
            count.copy_(new)


_GENTLE = {"schedule": "cosine", "warmup": 0.1, "grad_clip": 1.0, "patience": 5}

RECIPES = {
    "face-cnn": Config(epochs=20, batch_size=64, lr_decay=0.7, weight_decay=0.05, warmup=0.2),
    "face-cnn-fast": Config(epochs=20, batch_size=64, lr_decay=0.7, weight_decay=0.05, warmup=0.2),
    "resnet18": Config(epochs=15, batch_size=64, lr_decay=0.6, weight_decay=0.05, **_GENTLE),
    "resnet34": Config(epochs=15, batch_size=64, lr=7e-4, lr_decay=0.6, weight_decay=0.05, **_GENTLE),
    "resnet50": Config(epochs=15, batch_size=64, lr=5e-4, lr_decay=0.6, weight_decay=0.05, **_GENTLE),
    "efficientnet_b0": Config(epochs=20, batch_size=64, lr_decay=0.8, weight_decay=0.01, **_GENTLE),
    "efficientnet_lite0": Config(epochs=20, batch_size=64, lr_decay=0.8, weight_decay=0.01, **_GENTLE),
    "vit_b_16": Config(epochs=12, batch_size=32, lr=3e-4, lr_decay=0.75, weight_decay=0.05, **_GENTLE),
}
"""Name of a network to how its whole can be fine-tuned, after its head was trained on frozen features.

Starting points, to be changed on validation faces: ``dataclasses.replace(RECIPES["resnet18"], epochs=5)``.
The head takes the highest learning rate and each stage below it ``lr_decay`` of the one above (Howard and
Ruder 2018, arXiv 1801.06146, divide by 2.6; Bao et al. 2022, arXiv 2106.08254, take 0.65 to 0.75 for a
transformer). Networks with more stages get a decay nearer to 1, so that the first is not left out.
"""
