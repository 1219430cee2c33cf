"""Label distributions beside what was predicted, and where losses push a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from helpers.plotting.look import FAINT, INK, MUTED, axes_for, color

_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])


def simplex(
    predictions: np.ndarray,
    pushes: np.ndarray,
    target: np.ndarray,
    classes: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Draw where a loss pushes a prediction among three classes, as arrows in a triangle.

    A corner is certainty of one class, the middle an even guess. Arrows have one length; how hard a loss
    pushes is their darkness, from its strongest to a thousandth of it.

    Args:
        predictions: ``[M, 3]``, each row sums to 1: where the arrows start.
        pushes: ``[M, 3]``, how each prediction changes, each row sums to 0.
        target: ``[3]`` that sums to 1, marked.
        classes: 3 names.
        ax: where to draw.
    """
    ax = axes_for(ax, 3.0, 2.9)
    ax.plot(*_CORNERS[[0, 1, 2, 0]].T, color=FAINT, lw=1.2, zorder=0)
    moves = pushes @ _CORNERS
    size = np.linalg.norm(moves, axis=1, keepdims=True)
    strength = np.log10(np.maximum(size[:, 0], 1e-12))
    strength = np.clip((strength - strength.max()) / 3 + 1, 0.12, 1)  # three tenfolds from dark to faint
    look = {"angles": "xy", "scale_units": "xy", "scale": 14, "width": 0.014, "headwidth": 4}
    ax.quiver(
        *(predictions @ _CORNERS).T, *(moves / np.maximum(size, 1e-12)).T, alpha=strength, color=INK, **look
    )
    ax.plot(*(target @ _CORNERS), marker="*", markersize=15, color="#e8632c", markeredgecolor="white")
    for name, (x, y), side in zip(classes, _CORNERS, ("left", "right", "center"), strict=True):
        low = y == 0
        place = {"ha": side, "va": "top" if low else "bottom", "color": color(name), "weight": "bold"}
        ax.text(
            x + (0 if not low else -0.06 if x == 0 else 0.06), y - 0.05 if low else y + 0.04, name, **place
        )
    ax.set(aspect="equal", xlim=(-0.1, 1.1), ylim=(-0.16, 1.0))
    ax.axis("off")
    return ax


def beside(
    truth: np.ndarray, predicted: Mapping[str, np.ndarray], classes: Sequence[str], ax: Axes | None = None
) -> Axes:
    """Draw a distribution as bars, and on each bar what several predictions give the class.

    Args:
        truth: ``[K]`` that sums to 1.
        predicted: name to ``[K]``; up to four, each with a mark of its own.
        classes: K canonical names.
        ax: where to draw.
    """
    ax = axes_for(ax, 4.0, 0.9 + 0.3 * len(classes))
    rows = np.arange(len(classes))
    ax.barh(rows, truth, color=[color(name) for name in classes], height=0.72, alpha=0.55)
    for (name, values), marker in zip(predicted.items(), "oDX^", strict=False):
        ax.plot(values, rows, marker, color=INK, markersize=7, markerfacecolor="white", label=name)
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"], yticks=rows, yticklabels=classes)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    return ax


def beside_key(axes: Sequence[Axes], truth: str) -> None:
    """Put one legend under several axes of :func:`beside`.

    Args:
        axes: of one figure.
        truth: what the bars are.
    """
    marks = axes[0].get_lines()
    bar = Patch(color=MUTED, alpha=0.55, label=truth)
    axes[0].figure.legend(handles=[bar, *marks], loc="outside lower center", ncols=1 + len(marks))


def reliability(tables: Mapping[str, np.ndarray], ax: Axes | None = None) -> Axes:
    """Draw accuracy over confidence, the area of each mark as its number of faces, with the line of honesty.

    Args:
        tables: name to ``[bins, 3]``: faces, mean confidence, accuracy (``metrics.calibration``).
        ax: where to draw.
    """
    ax = axes_for(ax, 4.6, 4.0)
    ax.plot([0, 1], [0, 1], color=MUTED, ls=":", lw=1.2)
    for (name, table), marker in zip(tables.items(), "oDX^", strict=False):
        faces, confidence, right = table[table[:, 0] > 0].T
        [line] = ax.plot(confidence, right, lw=1.4)
        ax.scatter(
            confidence,
            right,
            s=12 + 220 * faces / faces.max(),
            marker=marker,
            color=line.get_color(),
            label=name,
        )
    ax.set(xlabel="confidence (largest probability)", ylabel="share who said the same")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    ax.grid()
    legend = ax.legend(loc="upper left")
    for handle in legend.legend_handles:
        handle.set_sizes([60])
    return ax
