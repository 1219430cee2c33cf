"""What every loss is given, brought to a form in which it can be computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch.nn import functional

Outputs = torch.Tensor | Mapping[str, torch.Tensor]
Loss = Callable[[Outputs, Mapping[str, torch.Tensor]], torch.Tensor]

TOLERANCE = 1e-2
"""How far the sum of a distribution may be from 1: what bfloat16 makes of one that was exact."""


def of_head(outputs: Outputs, name: str) -> torch.Tensor:
    """Return what one head put out, or what there is where the network has one head only.

    Args:
        outputs: of the network.
        name: of the head.
    """
    return outputs[name] if isinstance(outputs, Mapping) else outputs


def as_float(values: torch.Tensor) -> torch.Tensor:
    """Return values in float32 at least: half precision has too few digits for sums and logarithms.

    Args:
        values: of any float type.
    """
    return values if values.dtype == torch.float64 else values.float()


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Return the logarithms of the probabilities, in float32 at least.

    Args:
        logits: ``[B, K]``, of any float type.
    """
    return functional.log_softmax(as_float(logits), dim=1)


def distribution(p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return the target of a loss in the type it is computed in.

    A row that is no distribution is refused. On an accelerator, where looking would make the program wait,
    it becomes NaN, and so does the loss, which ``training.fit`` reports with the faces.

    Args:
        p: ``[B, K]``, each row sums to 1.
        log_q: ``[B, K]``, what it is compared with.

    Raises:
        ValueError: another shape, or a row that is negative somewhere or does not sum to 1.
    """
    if p.shape != log_q.shape:
        raise ValueError(f"targets {tuple(p.shape)} must have the shape of the logits {tuple(log_q.shape)}")
    p = p.to(log_q)
    fits = ((p.sum(dim=1) - 1).abs() <= TOLERANCE) & (p >= 0).all(dim=1)  # NaN does not fit
    if p.device.type != "cpu":
        return torch.where(fits[:, None], p, torch.nan)
    if not fits.all():
        row = int((~fits).nonzero()[0])
        sums = f"row {row} sums to {p[row].sum():.4g}, with {p[row].min():.4g} as its least"
        raise ValueError(f"targets must be 0 or more and sum to 1; {sums}; divide counts by their sum")
    return p
