"""The earth mover's distance as a loss: what carrying a prediction's probability to its place would cost.

The exact distance is a linear program a face. Entropy makes it smooth and lets a whole batch be solved by
repeated log-sum-exp (Sinkhorn's algorithm; Cuturi 2013, arXiv 1306.0895):

    OT(a, b) = min over plans P of <P, C> + epsilon KL(P | a b),

whose solution has potentials f and g with OT = <a, f> + <b, g>. Taking half of OT(a, a) and OT(b, b) off
makes it 0 where a = b and positive elsewhere (the Sinkhorn divergence; Feydy et al. 2019, arXiv 1810.08278);
towards epsilon = 0 it is the exact distance, ``metrics.emd``.
"""

from __future__ import annotations

import torch

from helpers.losses import given

EPSILON = 0.1
"""How smooth, in the unit of the ground distance; the places of the expressions are 0.1 to 1.4 apart."""
STEPS = 30
"""Enough for three digits at this epsilon."""
_OVER = 1.6


def emd(
    logits: torch.Tensor,
    distribution: torch.Tensor,
    distances: torch.Tensor,
    epsilon: float = EPSILON,
    steps: int = STEPS,
) -> torch.Tensor:
    """Return the mean Sinkhorn divergence, a smooth earth mover's distance, of q from p: 0 where q = p.

    Its gradient is exact where the iteration has converged: the derivative of OT by a distribution is that
    distribution's potential (the envelope theorem), so nothing is differentiated through the iteration.

    Args:
        logits: of q, ``[B, K]``, any float type.
        distribution: p, ``[B, K]``, each row sums to 1; zeros are allowed.
        distances: ``[K, K]``, symmetric, what carrying between classes costs; see ``emotions.distances``.
        epsilon: how smooth, in the unit of the distances, above 0.
        steps: iterations, the first quarter with a larger epsilon that falls to the one asked for.

    Returns:
        a float32 scalar (float64 for float64 logits), in the unit of the distances.

    Raises:
        ValueError: a row of the target is no distribution, or distances of another size.
    """
    log_q = given.log_softmax(logits)
    p = given.distribution(distribution, log_q)
    if distances.shape != (p.shape[1], p.shape[1]):
        raise ValueError(f"distances must be {p.shape[1]} x {p.shape[1]}, not {tuple(distances.shape)}")
    with torch.no_grad():
        log_p, cost = p.log(), distances.to(p)
        f, g, own = _potentials(log_p, log_q, cost, epsilon, steps)
    return (p * (f - own[0]) + log_q.exp() * (g - own[1])).sum(dim=1).mean()


def _potentials(
    log_p: torch.Tensor, log_q: torch.Tensor, cost: torch.Tensor, epsilon: float, steps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return f and g between p and q, ``[B, K]``, and the potentials of each with itself, ``[2, B, K]``.

    Averaged updates in the first half settle what p and q have in common, at once where they are equal.
    Alternating ones that go too far on purpose (Thibault et al. 2017, arXiv 1711.01851) settle the rest.
    """
    f, g, both = torch.zeros_like(log_p), torch.zeros_like(log_q), torch.stack([log_p, log_q])
    own = torch.zeros_like(both)
    start, falling = max(float(cost.max()), epsilon), max(steps // 4, 1)
    for step in range(steps):
        width = epsilon * (start / epsilon) ** max(0.0, 1 - step / falling)
        own = (own + _least(both, own, cost, width)) / 2
        if step < steps // 2:
            f, g = (f + _least(log_q, g, cost, width)) / 2, (g + _least(log_p, f, cost, width)) / 2
        else:
            f = f + _OVER * (_least(log_q, g, cost, width) - f)
            g = g + _OVER * (_least(log_p, f, cost, width) - g)
    return f, g, own


def _least(
    log_weight: torch.Tensor, potential: torch.Tensor, cost: torch.Tensor, epsilon: float
) -> torch.Tensor:
    """Return the soft minimum over classes of cost less potential; finite, whatever weighs nothing."""
    worth = (log_weight + potential / epsilon)[..., None, :] - cost / epsilon
    return -epsilon * torch.logsumexp(worth, dim=-1)
