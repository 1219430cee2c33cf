"""How training goes: over epochs, over learning rates, over the number of faces, over two settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from helpers.plotting.look import INK, MUTED, Scored, axes_for


def curves(
    epochs: pd.DataFrame, names: Sequence[str] = ("train_loss", "loss"), best: int = 0, ax: Axes | None = None
) -> Axes:
    """Draw what a training did, epoch by epoch.

    Args:
        epochs: a row an epoch, with a column "epoch" (``training.History.frame()``).
        names: the columns to draw.
        best: the epoch to mark, or 0 for none.
        ax: where to draw.
    """
    ax = axes_for(ax, 6.0, 3.4)
    for name in names:
        ax.plot(epochs["epoch"], epochs[name], marker="o", markersize=4, label=name.replace("_", " "))
    if best:
        ax.axvline(best, color=MUTED, linewidth=1, linestyle="--", label="best on validation")
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="y")
    ax.legend()
    return ax


def lr_finder(
    rates: np.ndarray, losses: np.ndarray, chosen: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw the loss against a learning rate that grows with every step.

    Args:
        rates: ``[S]``, the learning rate of each step.
        losses: ``[S]``, the (smoothed) training loss before that step, in nats.
        chosen: a learning rate to mark.
        ax: where to draw.
    """
    ax = axes_for(ax, 7.2, 3.2)
    ax.plot(rates, losses)
    ax.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats)")
    ax.grid(axis="x")
    if chosen is not None:
        ax.axvline(chosen, color=INK, lw=1.2, ls="--")
        note = {"xytext": (5, -3), "textcoords": "offset points", "va": "top"}
        ax.annotate(f"{chosen:.0e}", (chosen, ax.get_ylim()[1]), **note)
    return ax


def learning_curve(
    curves: Mapping[str, Mapping[int, Scored]], label: str = "accuracy", ax: Axes | None = None
) -> Axes:
    """Draw scores over the number of training faces, each with its interval as a band.

    Args:
        curves: name of a curve to its scores by number of faces.
        label: what the score is, with unit.
        ax: where to draw.
    """
    ax = axes_for(ax, 6.4, 3.6)
    for name, points in curves.items():
        sizes, scores = list(points), list(points.values())
        (line,) = ax.plot(sizes, [score.value for score in scores], marker="o", label=name)
        band = [score.low for score in scores], [score.high for score in scores]
        ax.fill_between(sizes, *band, color=line.get_color(), alpha=0.15, linewidth=0)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    ax.set(xlabel="training faces", ylabel=label)
    ax.grid()
    ax.legend()
    return ax


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    axes: tuple[str, str] = ("rows", "columns"),
    label: str = "score",
    ax: Axes | None = None,
) -> Axes:
    """Draw a table of scores as colours and numbers, the largest in a frame: a search over two settings.

    Args:
        values: ``[R, C]``.
        rows: R values of the first setting, as text.
        columns: C values of the second setting, as text.
        axes: the names of the two settings.
        label: what the score is, with unit.
        ax: where to draw.
    """
    ax = axes_for(ax, 2.8 + 0.85 * len(columns), 1.3 + 0.5 * len(rows))
    ax.imshow(values, cmap="YlGnBu", aspect="auto")
    middle = (np.max(values) + np.min(values)) / 2
    for (row, column), value in np.ndenumerate(values):
        ink = "white" if value > middle else INK
        ax.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink)
    best = np.unravel_index(np.argmax(values), np.shape(values))
    ax.add_patch(
        Rectangle((best[1] - 0.47, best[0] - 0.45), 0.94, 0.9, fill=False, edgecolor="#e8632c", lw=3)
    )
    ax.set(ylabel=axes[0], xlabel=axes[1], xticks=range(len(columns)), yticks=range(len(rows)))
    ax.set(xticklabels=columns, yticklabels=rows, title=label)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
