"""One loss of several, with weights that stay or weights that are learned."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import nn

from helpers.losses import given


def weighted_sum(terms: Mapping[str, given.Loss], weights: Mapping[str, float]) -> given.Loss:
    """Return ``loss(outputs, targets)``: several losses, each times a weight that stays.

    Args:
        terms: name of a task to its loss.
        weights: name of a task to its weight, 0 or more; a task without one weighs 1.

    Raises:
        ValueError: no task, or a weight that is negative or belongs to no task.
    """
    factors = {name: float(weights.get(name, 1.0)) for name in terms}
    if not terms or set(weights) - set(terms) or min(factors.values()) < 0:
        known = ", ".join(terms) or "no task"
        raise ValueError(f"weights must be 0 or more, each for one of {known}, not {dict(weights)}")

    def loss(outputs: given.Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return sum(factors[name] * term(outputs, targets) for name, term in terms.items())

    return loss


class UncertaintyWeighted(nn.Module):
    """Several losses whose weights are learned with the network: Kendall, Gal and Cipolla 2018.

    Each task i has a noise level sigma_i, learned as s_i = log sigma_i². A regression's squared error counts
    with exp(-s) / 2, a classification's cross-entropy with exp(-s), and each task adds s / 2 (equations 7 and
    10 of arXiv 1705.07115, as their code has it), without which all weights would fall to 0. Where the
    squared error is as good as it gets, sigma² is that error: what is noisy counts less.

    ``training.fit`` trains these numbers with the network. The loss itself can fall below 0.

    Args:
        terms: name of a task to its loss.
        squared: names of the tasks whose loss is a squared error; the others count as cross-entropies.
        speed: the s move so many times as fast as Adam's learning rate would move them; a short training
            needs it, since Adam moves a number by about its learning rate a step, however large its gradient.

    Raises:
        ValueError: no task, a name in ``squared`` that is none, or a speed that is not above 0.
    """

    def __init__(
        self, terms: Mapping[str, given.Loss], squared: Collection[str] = (), speed: float = 1.0
    ) -> None:
        super().__init__()
        if not terms or set(squared) - set(terms) or not speed > 0:
            raise ValueError(
                f"needs tasks, squared among them and a speed above 0, not {list(terms)}, {squared}, {speed}"
            )
        self.terms, self.speed = dict(terms), speed
        self.slow = nn.Parameter(torch.zeros(len(terms)))  # s / speed, from sigma = 1
        halves = torch.tensor([0.5 if name in squared else 1.0 for name in terms])
        self.register_buffer("factor", halves, persistent=False)

    def forward(self, outputs: given.Outputs, targets: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of the losses and of s / 2.

        Args:
            outputs: what the network put out.
            targets: the batch's targets by name.
        """
        values = torch.stack([term(outputs, targets) for term in self.terms.values()])
        s = self.slow * self.speed
        each = self.factor * torch.exp(-s) * values + s / 2
        # a loss of exactly 0 had nothing to judge by: no task's noise may be learned from it
        return torch.where(values == 0, values, each).sum()

    def weights(self) -> dict[str, float]:
        """Return what each task's loss is multiplied with now."""
        now = self.factor * torch.exp(-self.slow.detach() * self.speed)
        return dict(zip(self.terms, now.tolist(), strict=True))
