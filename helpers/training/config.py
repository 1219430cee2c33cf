"""How to train: one frozen record, the optimiser it names and the learning rate at each moment."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from helpers import did_you_mean, models
from helpers.batches import Augment

OPTIMIZERS = ("adamw", "adam", "sgd", "muon")
SCHEDULES = ("one-cycle", "cosine", "step", "plateau", "constant")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")

_NAMES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
_TYPES = {
    "monitor": str,
    "plateau_monitor": str,
    "minimise": bool,
    "compile": bool,
    "augment": Augment | None,
}
_RANGES = {
    "epochs": (int, "1 or more", lambda value: value >= 1),
    "batch_size": (int, "2 or more (batch norm needs two)", lambda value: value >= 2),
    "lr": (float, "above 0", lambda value: 0 < value < math.inf),
    "lr_decay": (float, "above 0 and at most 1", lambda value: 0 < value <= 1),
    "weight_decay": (float, "0 or more", lambda value: 0 <= value < math.inf),
    "momentum": (float, "from 0 to below 1", lambda value: 0 <= value < 1),
    "warmup": (float, "0 or more", lambda value: 0 <= value < math.inf),
    "step_size": (int, "0 or more", lambda value: value >= 0),
    "gamma": (float, "above 0 and at most 1", lambda value: 0 < value <= 1),
    "plateau_patience": (int, "1 or more", lambda value: value >= 1),
    "plateau_factor": (float, "above 0 and below 1", lambda value: 0 < value < 1),
    "ema": (float, "from 0 to below 1", lambda value: 0 <= value < 1),
    "patience": (int, "0 or more", lambda value: value >= 0),
    "grad_clip": (float, "0 or more (0: no limit)", lambda value: 0 <= value < math.inf),
    "seed": (int, f"from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32),
}


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
        seed: of order, augmentation and dropout, from 0 to 2**32 - 1.

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
        for name, known in _NAMES.items():
            value = getattr(self, name)
            if value not in known:
                near = did_you_mean(value, known) if isinstance(value, str) else ""
                raise ValueError(f"unknown {name} {value!r}{near}; known: {', '.join(known)}")
        for name, kind in _TYPES.items():
            if not isinstance(getattr(self, name), kind):
                wanted = getattr(kind, "__name__", "Augment or None").replace("str", "a name")
                raise ValueError(f"Config({name}={getattr(self, name)!r}): must be {wanted}")
        for name, (kind, wanted, fits) in _RANGES.items():
            value = getattr(self, name)
            if name == "warmup" and value is None:
                continue
            is_number = isinstance(value, numbers.Integral if kind is int else numbers.Real)
            if not is_number or isinstance(value, bool) or not fits(value):  # NaN fits nowhere
                whole = "a whole number, " if kind is int else ""
                raise ValueError(f"Config({name}={value!r}): must be {whole}{wanted}")
            object.__setattr__(self, name, kind(value))  # NumPy's numbers do not go into JSON

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
    if schedule == "one-cycle":
        return left
    if schedule == "cosine":
        return 0.5 * (1 - math.cos(math.pi * left))
    if schedule == "step":
        return gamma ** (progress // step if step else (progress >= 0.5) + (progress >= 0.75))
    return 1.0


FEWEST = 16
"""Rows and columns from which a weight is worth it: below are heads and the first layer on grey images."""
COEFFICIENTS = (3.4445, -4.775, 2.0315)
ROUNDS = 5


class Muon(torch.optim.AdamW):
    """AdamW, but for a matrix the step is its momentum made orthogonal (Jordan et al. 2024).

    A gradient is large in few directions; with all its singular values near 1 the rare ones count as much. A
    kernel ``[O, I, h, w]`` is a matrix of O rows. Steps are made as large as AdamW's, so that its learning
    rates and weight decays serve (Liu et al. 2025, arXiv 2502.16982). What has fewer than ``FEWEST`` rows or
    columns, and each vector, goes by AdamW. Of ``momentum``, in [0, 1), a new gradient leaves that share.
    """

    _step_supports_amp_scaling = True  # or a gradient scaler would wait for the device at every step

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        fused: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, fused=fused)
        for group in self.param_groups:
            group.setdefault("momentum", momentum)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do a step, and return what ``closure`` gave. Gradients of matrices are used up."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None and is_matrix(weight):
                    self._turn(weight, group)
                    weight.grad = None  # or AdamW would take a step too
        super().step()
        return loss

    @torch.no_grad()
    def _turn(self, weight: Tensor, group: dict[str, Any]) -> None:
        state, keep, overflow = self.state[weight], group["momentum"], getattr(self, "found_inf", None)
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW wants one when it loads a state
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean, gradient = state["momentum_buffer"], weight.grad
        if overflow is not None:  # of float16: this step is left out, decided on the device
            gradient = torch.where(overflow > 0, mean, gradient)
        mean.lerp_(gradient, 1 - keep)
        ahead = gradient.lerp(mean, keep)  # Nesterov's
        rows = ahead.flatten(1)
        step = orthogonal(rows).view_as(ahead) * (0.2 * max(rows.shape) ** 0.5)
        step.add_(weight, alpha=group["weight_decay"])
        weight.add_(step if overflow is None else step * (1 - overflow), alpha=-group["lr"])


def is_matrix(weight: Tensor) -> bool:
    """Return whether a weight is one whose momentum is made orthogonal."""
    return weight.ndim > 1 and min(len(weight), weight[0].numel()) >= FEWEST


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix of the same singular vectors whose singular values lie near 1, from 0.7 to 1.2.

    Newton and Schulz's iteration, with Jordan's coefficients, run on the product of the matrix with its
    transpose, which is smaller: a kernel of 256 rows and 2304 columns takes a third of the operations.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = COEFFICIENTS
    gram = matrix @ matrix.T
    square = gram.trace().clamp(min=torch.finfo(gram.dtype).tiny)
    gram, whole = gram / square, torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    for _ in range(ROUNDS):
        factor = b * gram + c * gram @ gram
        factor.diagonal().add_(a)
        gram, whole = factor @ gram @ factor, factor @ whole
    return whole @ matrix / square.sqrt()


def make_optimizer(model: nn.Module, config: Config, also: nn.Module | None = None) -> torch.optim.Optimizer:
    """Return the optimiser, weight decay on weights only; a group's "share" of the learning rate is its own.

    Args:
        model: the network; parameters that ask for no gradient are left out.
        config: which optimiser, and its numbers.
        also: what else is learned, at the head's learning rate.

    Raises:
        ValueError: nothing is left to learn.
    """
    groups: list[dict[str, Any]] = []
    for share, parameters in _by_depth(model, config.lr_decay, also):
        common = {"share": share, "lr": config.lr * share}
        trained = [p for p in parameters if p.requires_grad]
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
        return Muon(groups, config.lr, momentum=config.momentum, fused=fused)
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
