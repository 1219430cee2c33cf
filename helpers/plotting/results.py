"""What a model reached: scores with intervals, confusions, threshold curves, agreement, subgroups."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from helpers.plotting.labels import scatter
from helpers.plotting.look import ACCENT, INK, MUTED, Scored, axes_for, color


def scores(
    rows: Mapping[str, Scored],
    baseline: Collection[str] = (),
    ceiling: Collection[str] = (),
    label: str = "accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Draw scores with their intervals, one below the other (a forest plot).

    Args:
        rows: name to a score with ``value``, ``low`` and ``high``, from top to bottom.
        baseline: names of the rows that any model has to beat; the best is carried down as a dotted line.
        ceiling: names of the rows that no model can honestly be expected to pass; the same, dashed.
        label: what the score is, with unit.
        ax: where to draw.
    """
    ax = axes_for(ax, 8.0, 0.9 + 0.4 * len(rows))
    for height, (name, score) in enumerate(rows.items()):
        look = _role(name, baseline, ceiling)
        ax.plot([score.low, score.high], [height] * 2, color=look["color"], lw=2.6, solid_capstyle="butt")
        ax.plot(score.value, height, markersize=8, **look)
        text = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
        ax.text(1.02, height, text, transform=ax.get_yaxis_transform(), va="center", fontsize=10.5)
    for names, dash in ((baseline, ":"), (ceiling, "--")):
        if len(names):
            best = max(rows[name].value for name in names)
            ax.axvline(best, color=MUTED, lw=1.2, ls=dash, zorder=0)
    ax.set(xlabel=label, yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    return ax


def _role(name: str, baseline: Collection[str], ceiling: Collection[str]) -> dict[str, str]:
    if name in baseline:
        return {"color": MUTED, "marker": "s"}
    return {"color": "#b35c00", "marker": "D"} if name in ceiling else {"color": ACCENT, "marker": "o"}


def confusion(table: np.ndarray, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw what each class was taken for: a row a true class, in per cent of the row, the diagonal correct.

    Args:
        table: counts ``[K, K]``, true classes in rows (``metrics.confusion``).
        classes: K names.
        ax: where to draw.
    """
    ax = axes_for(ax, 1.9 + 0.62 * len(classes), 1.2 + 0.5 * len(classes))
    shares = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        look = {"color": "white" if share > 55 else INK, "weight": "bold" if row == column else "normal"}
        ax.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=10.5, **look)
    ticks = range(len(classes))
    ax.set(xticks=ticks, yticks=ticks, xlabel="predicted", ylabel="labelled  (faces)")
    ax.set_xticklabels(classes, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticklabels(
        [f"{name}  ({count:,})" for name, count in zip(classes, table.sum(axis=1), strict=True)]
    )
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def class_scores(scores: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw scores of each class: the first column as bars, the others as marks on them.

    Args:
        scores: one row a class, one column a score from 0 to 1, for instance "F1", "precision", "recall".
        ax: where to draw.
    """
    ax = axes_for(ax, 7.2, 0.9 + 0.36 * len(scores))
    first, *others = scores.columns
    ax.barh(scores.index, scores[first], color=[color(name) for name in scores.index], height=0.66)
    for name, marker in zip(others, cycle("<>oD"), strict=False):
        mark = {"color": "white", "edgecolor": INK, "marker": marker, "s": 52, "zorder": 3}
        ax.scatter(scores[name], scores.index, label=name, **mark)
    ax.set(xlabel="score", xlim=(0, 1))
    ax.invert_yaxis()
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    handles = [Patch(color=MUTED, label=f"{first} (bar)"), *ax.collections]
    ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of each class, its area in the legend, and the diagonal: a score that knows nothing.

    Args:
        curves: name of a class to rate of false alarms, recall, and area (``metrics.roc``).
        ax: where to draw.
    """
    ax = _threshold_curves(curves, "AUC", "default", axes_for(ax, 5.6, 3.8))
    ax.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls=":")
    ax.set(xlabel="false alarms (share of the other faces)", ylabel="recall (share of the class)")
    return ax


def precision_recall(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], ax: Axes | None = None
) -> Axes:
    """Draw precision over recall of each class in steps, its average precision in the legend.

    Args:
        curves: name of a class to recall, precision, and area (``metrics.precision_recall``).
        ax: where to draw.
    """
    ax = _threshold_curves(curves, "AP", "steps-pre", axes_for(ax, 5.6, 3.8))
    ax.set(xlabel="recall (share of the class)", ylabel="precision (share of the finds)")
    return ax


def _threshold_curves(curves: Mapping, area: str, steps: str, ax: Axes) -> Axes:
    dashes = cycle(("-", "--", "-.", (0, (1, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (6, 2)), (0, (2, 2))))
    for (name, curve), dash in zip(curves.items(), dashes, strict=False):
        look = {"color": color(name), "ls": dash, "lw": 1.8, "drawstyle": steps}
        ax.plot(curve[0], curve[1], label=f"{name}  {curve[2]:.2f}", **look)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xticks=ticks, yticks=ticks)
    ax.grid()
    ax.legend(title=area, loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.6)
    return ax


def agreement(
    truth: np.ndarray,
    predicted: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    name: str,
    ax: Axes | None = None,
) -> Axes:
    """Draw what was predicted over what was annotated, with the line of perfect agreement.

    Args:
        truth: ``[N]`` in [-1, 1], NaN where unknown.
        predicted: ``[N]``.
        labels: ``[N]``, an index into ``classes``.
        classes: K canonical names.
        name: what it is, "valence" or "arousal".
        ax: where to draw.
    """
    points = np.stack([truth, predicted], axis=1)
    ax = scatter(
        points, labels, classes, (f"{name}, annotated", f"{name}, predicted"), axes_for(ax, 5.6, 4.2)
    )
    ax.plot([-1, 1], [-1, 1], color=INK, lw=1.2, ls="--")
    ticks = [-1, -0.5, 0, 0.5, 1]
    ax.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal", xticks=ticks, yticks=ticks)
    return ax


def subgroups(
    groups: Mapping[str, Mapping[str, Scored]],
    ceilings: Mapping[str, Mapping[str, float]] | None = None,
    label: str = "accuracy",
    ax: Axes | None = None,
) -> Axes:
    """Draw a score of each part of several divisions, with intervals and the best that is possible there.

    Args:
        groups: name of a division ("pose") to its parts ("frontal", "turned") and their scores.
        ceilings: the same names to the best possible score, or none.
        label: what the score is, with unit.
        ax: where to draw.
    """
    rows = [(division, part, score) for division, parts in groups.items() for part, score in parts.items()]
    places = [row + 0.6 * list(groups).index(division) for row, (division, _, _) in enumerate(rows)]
    ax = axes_for(ax, 8.0, 0.9 + 0.36 * (places[-1] + 1))
    for (division, part, score), place in zip(rows, places, strict=True):
        ax.plot([score.low, score.high], [place] * 2, color=ACCENT, lw=2.6, solid_capstyle="butt")
        ax.plot(score.value, place, "o", color=ACCENT, markersize=8)
        if ceilings:
            ax.plot(ceilings[division][part], place, "D", color="#b35c00", markersize=6.5)
    names = [f"{division}: {part}" for division, part, _ in rows]
    ax.set(xlabel=label, yticks=places, yticklabels=names, ylim=(places[-1] + 0.6, -0.6))
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    return ax
