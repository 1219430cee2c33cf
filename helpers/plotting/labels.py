"""What a data set says: classes, label distributions, and brightness or any other number by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from helpers.plotting.look import FAINT, INK, MARKERS, MUTED, axes_for, color


def class_balance(shares: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the share of each class: the first split as bars, the others as marks on them.

    Args:
        shares: one row a class, one column a split, each column summing to 1.
        ax: where to draw.
    """
    ax = axes_for(ax, 8.0, 0.9 + 0.36 * len(shares))
    first, *others = shares.columns
    ax.barh(shares.index, 100 * shares[first], color=[color(name) for name in shares.index], height=0.66)
    bar = Patch(color=MUTED, label=f"{first} (bar)")
    for split, marker in zip(others, cycle("oDX"), strict=False):
        mark = {"color": "white", "edgecolor": INK, "marker": marker, "s": 48, "zorder": 3}
        ax.scatter(100 * shares[split], shares.index, label=split, **mark)
    ax.set(xlabel="share of the split (%)", xlim=(0, None))
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    ax.legend(handles=[bar, *ax.collections], loc="lower right")
    return ax


def scatter(
    points: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    axes: tuple[str, str] = ("first component", "second component"),
    ax: Axes | None = None,
) -> Axes:
    """Draw points on a plane in the colour and marker of their class.

    Args:
        points: ``[N, 2]``.
        labels: ``[N]``, an index into ``classes``.
        classes: K canonical names.
        axes: what the horizontal and the vertical axis show, with unit.
        ax: where to draw.
    """
    ax = axes_for(ax, 6.6, 4.4)
    size = float(np.clip(16000 / max(len(points), 1), 8, 36))
    for index, name in enumerate(classes):
        marker = MARKERS.get(name, "o")
        area = size * (0.7 if marker in "sD" else 1)  # to the eye, squares are larger than triangles
        mark = {"color": color(name), "marker": marker, "linewidths": 0, "s": area}
        ax.scatter(*points[labels == index].T, alpha=0.65, label=name, **mark)
    ax.set(xlabel=axes[0], ylabel=axes[1])
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=(60 / size) ** 0.5, handletextpad=0.2)
    return ax


def distribution(probabilities: np.ndarray, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw one label distribution as bars, a row for each class.

    Args:
        probabilities: ``[K]`` that sums to 1.
        classes: K canonical names.
        ax: where to draw.
    """
    ax = axes_for(ax, 4.0, 0.7 + 0.3 * len(classes))
    ax.barh(classes, probabilities, color=[color(name) for name in classes], height=0.72)
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"], ylim=(len(classes) - 0.3, -0.7))
    ax.tick_params(axis="y", length=0)
    return ax


def ridges(
    values: Mapping[str, np.ndarray], label: str, bins: int | np.ndarray = 30, ax: Axes | None = None
) -> Axes:
    """Draw one histogram for each name above a common axis, each as tall as its own fullest bin.

    Args:
        values: name of a row to its values; NaN, an unknown one, is left out.
        label: what the values are, with unit.
        bins: how many bins over the whole range, or their edges.
        ax: where to draw.
    """
    ax = axes_for(ax, 5.6, 0.9 + 0.42 * len(values))
    values = {name: group[np.isfinite(group)] for name, group in values.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins)
    for row, (name, group) in enumerate(values.items()):
        counts = np.histogram(group, edges)[0]
        top = row - 0.88 * counts / max(counts.max(), 1)
        ax.fill_between(edges, row, np.append(top, top[-1]), step="post", color=color(name), lw=0)
        ax.axhline(row, color=FAINT, lw=1, zorder=0)
    ax.set(xlabel=label, yticks=range(len(values)), yticklabels=list(values), ylim=(len(values) - 0.7, -1))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return ax
