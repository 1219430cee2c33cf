"""The panel of notebook 06: one target, one prediction, and what each loss makes of the two."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from helpers import losses, plotting
from helpers.widgets.panel import Panel, figure, slider

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A function of logits ``[1, K]`` and a distribution ``[1, K]``."""

COMMON: dict[str, Loss] = {
    "cross-entropy": losses.soft_cross_entropy,
    "KL": losses.kl_divergence,
}
"""What is compared where nothing else is named."""


def compare_losses(
    target: Sequence[float],
    prediction: Sequence[float],
    classes: Sequence[str],
    compared: Mapping[str, Loss] = COMMON,
) -> Figure:
    """Draw target and prediction, the value of each loss, and which way each would push the logits.

    Args:
        target: K weights of 0 or more, not all 0; their shares are the target.
        prediction: K weights; their shares are the predicted probabilities (0 counts as 0.001).
        classes: K names.
        compared: name to function of (logits, distribution).

    Raises:
        ValueError: the weights are negative, or all 0.
    """
    p, q = _shares(target), _shares(np.maximum(prediction, 1e-3))
    logits = torch.tensor(np.log(q)[None], dtype=torch.float32, requires_grad=True)
    goal = torch.tensor(p[None], dtype=torch.float32)
    values, pushes = {}, {}
    for name, loss in compared.items():
        value = loss(logits, goal).sum()
        [slope] = torch.autograd.grad(value, logits)
        values[name], pushes[name] = value.item(), -slope[0].numpy()
    return _drawn(p, q, values, pushes, classes)


def _shares(weights: Sequence[float]) -> np.ndarray:
    weights = np.asarray(weights, dtype=np.float64)
    if not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
        raise ValueError("weights must be 0 or more, and not all of them 0")
    return weights / weights.sum()


def _drawn(
    p: np.ndarray,
    q: np.ndarray,
    values: Mapping[str, float],
    pushes: Mapping[str, np.ndarray],
    classes: Sequence[str],
) -> Figure:
    places, colors = np.arange(len(classes)), [plotting.color(name) for name in classes]
    drawn = figure(8.2, 1.2 + 0.42 * max(len(values), len(classes)))
    left = drawn.add_axes((0.12, 0.15, 0.26, 0.68))
    _bars(left, places - 0.2, p, 0.36, colors)
    _bars(left, places + 0.2, q, 0.36, colors, alpha=0.4)
    left.set(yticks=places, yticklabels=classes, xlim=(0, 1), ylim=(len(classes) - 0.5, -0.5))
    left.set_title("target (full), prediction (pale)", y=1.0)  # where it would go, found without a search
    rows, thick = np.arange(len(values)), 0.8 / len(classes)
    right = drawn.add_axes((0.56, 0.15, 0.42, 0.68))
    offsets = (places - (len(classes) - 1) / 2) * thick
    push = np.concatenate(list(pushes.values()))
    _bars(right, np.add.outer(rows, offsets).ravel(), push, thick, colors * len(values))
    names = [f"{name} {value:.3f}" for name, value in values.items()]
    ends = (1.05 * min(push.min(), -1e-3), 1.05 * max(push.max(), 1e-3))
    right.set(yticks=rows, yticklabels=names, xlim=ends, ylim=(len(values) - 0.5, -0.5))
    right.set_title("loss, and its push on each logit", y=1.0)
    right.axvline(0, color="#888888", linewidth=0.8)
    return drawn


def _bars(
    ax: Axes, places: np.ndarray, lengths: np.ndarray, thick: float, colors: list[str], alpha: float = 1.0
) -> None:
    """Draw lying bars as one collection: ``barh`` makes each a patch, which costs a fifth of the figure."""
    low, high, none = places - thick / 2, places + thick / 2, np.zeros_like(lengths)
    corners = [none, low], [lengths, low], [lengths, high], [none, high]
    ax.add_collection(PolyCollection(np.array(corners).transpose(2, 0, 1), facecolors=colors, alpha=alpha))


def loss_explorer(
    compared: Mapping[str, Loss] = COMMON, classes: Sequence[str] = ("happiness", "surprise", "fear")
) -> Panel:
    """Return the panel with a slider for each class of the target and of the prediction.

    Args:
        compared: name to function of (logits, distribution).
        classes: names of the K classes.
    """
    start = np.linspace(0.8, 0.1, len(classes)).round(2)
    controls = {}
    for word, weights in (("target", start), ("guess", start[::-1])):
        for name, weight in zip(classes, weights, strict=True):
            controls[f"{word} {name}"] = slider(f"{word}: {name}", float(weight), 0.0, 1.0)

    def draw(**weights: float) -> Figure:
        target = [weights[f"target {name}"] for name in classes]
        said = [weights[f"guess {name}"] for name in classes]
        return compare_losses(target, said, classes, compared)

    return Panel(draw, controls)
