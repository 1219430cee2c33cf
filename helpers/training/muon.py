"""An optimiser for matrices, whose steps turn them in all directions alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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
