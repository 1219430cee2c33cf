"""An optimiser for matrices, whose steps turn them in all directions alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

FEWEST = 16
"""Rows and columns from which a weight is worth it: below are heads and the first layer on grey pictures."""
COEFFICIENTS = (3.4445, -4.775, 2.0315)
ROUNDS = 5


class Muon(torch.optim.AdamW):
    """AdamW, but for a matrix the step is its momentum made orthogonal (Jordan et al. 2024).

    A gradient is large in few directions; with all its singular values near 1 the rare ones count as much. A
    kernel ``[O, I, h, w]`` is a matrix of O rows. Steps are made as large as AdamW's, so that its learning
    rates and weight decays serve (Liu et al. 2025, arXiv 2502.16982). What has fewer than ``FEWEST`` rows or
    columns, and each vector, goes by AdamW.

    Args:
        params: tensors or groups, as for every optimiser of PyTorch.
        lr: learning rate.
        weight_decay: share that is taken off a weight, times the learning rate.
        momentum: share of the running mean of the gradients that a new one leaves, in [0, 1).
    """

    def __init__(self, params: Any, lr: float = 1e-3, weight_decay: float = 0.01, momentum: float = 0.95):
        super().__init__(params, lr, weight_decay=weight_decay)
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
        state, keep = self.state[weight], group["momentum"]
        if not state:
            state["step"] = torch.tensor(0.0)  # AdamW wants one when it loads a state
            state["momentum_buffer"] = torch.zeros_like(weight)
        mean = state["momentum_buffer"].lerp_(weight.grad, 1 - keep)
        ahead = weight.grad.lerp(mean, keep)  # Nesterov's
        rows = ahead.flatten(1)
        step = orthogonal(rows).view_as(ahead)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(step, alpha=-0.2 * max(rows.shape) ** 0.5 * group["lr"])


def is_matrix(weight: Tensor) -> bool:
    """Return whether a weight is one whose momentum is made orthogonal.

    Args:
        weight: of a network.
    """
    return weight.ndim > 1 and min(len(weight), weight[0].numel()) >= FEWEST


def orthogonal(matrix: Tensor) -> Tensor:
    """Return a matrix of the same singular vectors whose singular values lie near 1, from 0.7 to 1.2.

    Newton and Schulz's iteration, with Jordan's coefficients. It is run on the product of the matrix with its
    transpose, which is smaller: a kernel of 256 rows and 2304 columns takes a third of the operations.

    Args:
        matrix: ``[R, C]``.
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
