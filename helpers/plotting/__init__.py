"""Every figure of the workbook: data in, a matplotlib ``Axes`` out, one style.

Call :func:`style` once in a notebook. Each function takes numbers that are already computed and an optional
``ax`` to draw on; without one it makes a figure of a size that suits it. It returns the axes. A score has a
``value`` and the ends of its interval, ``low`` and ``high``. Charts are here, faces in ``images``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import scipy
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from helpers.plotting.images import (
    arrows,
    beside,
    beside_key,
    directions,
    distribution,
    face,
    face_grid,
    face_rows,
    heated,
    landmarks,
    misplaced,
    mistakes,
    pictures,
)
from helpers.plotting.style import (
    ACCENT,
    ARROW,
    DASHES,
    FAINT,
    INK,
    MARKERS,
    MUTED,
    SECOND,
    Array,
    Ax,
    Classes,
    axes_for,
    color,
    packed,
    png,
    seaborn,
    style,
    styled,
)

HALO = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
OUTSIDE = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
BELOW = {"loc": "upper left", "bbox_to_anchor": (1.0, 0.0), "fontsize": 9.5}
HALVES = [-1, -0.5, 0, 0.5, 1]


def class_balance(shares: pd.DataFrame, ax: Ax = None) -> Axes:
    """Draw the share of each class (row) in each split (column), each column summing to 1."""
    return _bars(100 * shares, "split", "share of the split (%)", ax)


def class_scores(scores: pd.DataFrame, ax: Ax = None) -> Axes:
    """Draw scores from 0 to 1 of each class (row), one column a score: "precision", "recall", "F1"."""
    ax = _bars(scores, "", "score", ax)
    ax.set(xlim=(0, 1))
    return ax


def _bars(table: pd.DataFrame, what: str, label: str, ax: Ax) -> Axes:
    ax = axes_for(ax, 8.0, 1.2 + 0.5 * len(table))
    long = table.rename_axis(index="class", columns=what).stack().rename(label).reset_index()
    look = {"palette": seaborn().color_palette("crest", len(table.columns)), "saturation": 1}
    seaborn().barplot(long, x=label, y="class", hue=what, errorbar=None, ax=ax, **look)
    seaborn().move_legend(ax, **OUTSIDE)
    ax.set(ylabel="")
    return _listed(ax)


def _listed(ax: Axes) -> Axes:
    ax.grid(axis="x")
    ax.tick_params(axis="y", length=0)
    return ax


def scatter(
    points: Array,
    labels: Array,
    classes: Classes,
    axes: tuple[str, str] = ("first component", "second component"),
    ax: Ax = None,
) -> Axes:
    """Draw points ``[N, 2]`` in the colour and marker of their class; ``axes`` name the axes, with unit."""
    ax, names = axes_for(ax, 6.6, 4.4), list(classes)
    look = {"palette": {name: color(name) for name in names}, "hue_order": names, "style_order": names}
    look |= {"markers": {name: MARKERS.get(name, "o") for name in names}, "alpha": 0.7, "linewidth": 0}
    x, y = np.asarray(points, dtype=float).T
    named, size = np.array(names)[labels], float(np.clip(16000 / max(len(x), 1), 12, 40))
    seaborn().scatterplot(x=x, y=y, hue=named, style=named, s=size, ax=ax, **look)
    seaborn().move_legend(ax, title=None, markerscale=(60 / size) ** 0.5, handletextpad=0.2, **OUTSIDE)
    ax.set(xlabel=axes[0], ylabel=axes[1])
    return ax


def curves(epochs: pd.DataFrame, names: Sequence[str], best: int = 0, ax: Ax = None) -> Axes:
    """Draw what a training did, epoch by epoch: validation as full lines, training as dashed ones.

    ``epochs`` has a row an epoch and a column "epoch" (``training.History.frame()``, ``history.csv``);
    ``names`` are the columns to draw, each with its ``train_`` column; the epoch ``best`` is marked.
    """
    ax = axes_for(ax, 6.0, 3.4)
    shown = dict.fromkeys(name.removeprefix("train_") for name in names)
    for name, ink in zip(shown, cycle(seaborn().color_palette()), strict=False):
        look = {"color": ink, "marker": "o", "markersize": 4}
        for column, dash, split in ((name, "-", "validation"), (f"train_{name}", "--", "train")):
            if column in epochs:
                label = f"{name}, {split}" if len(shown) > 1 else split
                ax.plot(epochs["epoch"], epochs[column], dash, label=label, **look)
    if best:
        ax.axvline(best, color=MUTED, linewidth=1, linestyle=":", label="best on validation")
    ax.set(xlabel="epoch", ylabel=next(iter(shown)) if len(shown) == 1 else "score")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="y")
    ax.legend(fontsize=9.5, **(OUTSIDE if len(shown) > 1 else {}))
    return ax


def lr_finder(rates: Array, losses: Array, chosen: float, ax: Ax = None) -> Axes:
    """Draw the training loss ``[S]`` against a learning rate ``[S]`` that grows with every step."""
    ax = axes_for(ax, 7.2, 3.2)
    ax.plot(rates, losses, label="loss, smoothed")
    ax.axvline(chosen, color=INK, lw=1.2, ls="--", label=f"chosen: {chosen:.0e}")
    ax.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats)")
    ax.grid(axis="x")
    ax.legend()
    return ax


def learning_curve(curves: Mapping[str, Mapping[int, Any]], label: str = "accuracy", ax: Ax = None) -> Axes:
    """Draw scores by the number of training faces, each curve with its intervals as a band."""
    ax = _bands(
        axes_for(ax, 6.4, 3.6),
        {name: tuple(zip(*each.items(), strict=True)) for name, each in curves.items()},
        "o",
    )
    sizes = sorted({size for points in curves.values() for size in points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    ax.set(xlabel="training faces", ylabel=label)
    ax.legend(title="band: 95 % interval")
    return ax


def perturbation(
    shares: Array,
    curves: Mapping[str, Sequence],
    axes: tuple[str, str] = ("share of the image deleted", "probability of the class"),
    ax: Ax = None,
) -> Axes:
    """Draw what a network still predicts while images are taken away or put together, with intervals."""
    ax = _bands(axes_for(ax, 4.6, 3.2), {name: (shares, points) for name, points in curves.items()}, "")
    ax.set(xlabel=axes[0], ylabel=axes[1], xlim=(0, 1), ylim=(0, None))
    ax.legend()
    return ax


def _bands(ax: Axes, curves: Mapping[str, tuple[Sequence, Sequence]], marker: str) -> Axes:
    for (name, (x, points)), dash in zip(curves.items(), cycle(DASHES), strict=False):
        value, low, high = np.transpose([(point.value, point.low, point.high) for point in points])
        (line,) = ax.plot(x, value, marker=marker, ls=dash, label=name)
        ax.fill_between(x, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    ax.grid(visible=True)
    return ax


def heat_map(
    values: Array,
    rows: Classes,
    columns: Classes,
    axes: tuple[str, str] = ("rows", "columns"),
    label: str = "score",
    ax: Ax = None,
) -> Axes:
    """Draw a table ``[R, C]`` as colours and numbers, the largest in a frame: a search over two settings."""
    ax = axes_for(ax, 3.4 + 0.85 * len(columns), 1.3 + 0.5 * len(rows))
    names = {"xticklabels": list(columns), "yticklabels": list(rows), "cbar_kws": {"label": label}}
    seaborn().heatmap(np.asarray(values), annot=True, fmt=".3f", cmap="YlGnBu", ax=ax, **names)
    row, column = np.unravel_index(np.argmax(values), np.shape(values))
    ax.add_patch(Rectangle((column + 0.04, row + 0.04), 0.92, 0.92, fill=False, edgecolor=ARROW, lw=3))
    ax.set(ylabel=axes[0], xlabel=axes[1])
    ax.tick_params(length=0, rotation=0)
    return ax


def scores(
    rows: Mapping[str, Any],
    baseline: Collection[str] = (),
    ceiling: Collection[str] = (),
    label: str = "accuracy",
    ax: Ax = None,
) -> Axes:
    """Draw scores with their intervals by name, one below the other (a forest plot).

    ``baseline`` names the rows that any model has to beat, ``ceiling`` those that no model can honestly be
    expected to pass; the best of each is drawn as a line, too. ``label`` is what the score is, with unit.
    """
    ax = axes_for(ax, 8.0, 1.2 + 0.4 * len(rows))
    looks = dict.fromkeys(rows, (ACCENT, "o")) | dict.fromkeys(ceiling, (SECOND, "D"))
    looks |= dict.fromkeys(baseline, (MUTED, "s"))
    for height, (name, score) in enumerate(rows.items()):
        ink, marker = looks[name]
        ax.plot([score.low, score.high], [height] * 2, color=ink, lw=2.6, solid_capstyle="butt")
        ax.plot(score.value, height, marker, color=ink, markersize=8)
        text = f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
        ax.text(1.02, height, text, transform=ax.get_yaxis_transform(), va="center", fontsize=10.5)
    for names, what, ink, dash in ((baseline, "baseline", MUTED, ":"), (ceiling, "ceiling", SECOND, "--")):
        if len(names):
            best = max(rows[name].value for name in names)
            ax.axvline(best, color=ink, lw=1.2, ls=dash, zorder=0, label=f"best {what}")
            ax.legend(**BELOW)
    ax.set(xlabel=label, yticks=range(len(rows)), yticklabels=list(rows), ylim=(len(rows) - 0.5, -0.5))
    return _listed(ax)


def subgroups(
    groups: Mapping[str, Mapping[str, Any]],
    ceilings: Mapping[str, Mapping[str, float]] | None = None,
    label: str = "accuracy",
    ax: Ax = None,
) -> Axes:
    """Draw a score of each part ("frontal") of several divisions ("pose"), and the best possible there."""
    parts = [(division, part) for division in groups for part in groups[division]]
    ax = scores({f"{a}: {b}": groups[a][b] for a, b in parts}, label=label, ax=ax)
    if ceilings:
        best = [ceilings[division][part] for division, part in parts]
        ax.plot(best, range(len(best)), "D", color=SECOND, markersize=6.5, label="best possible")
        ax.legend(**BELOW)
    return ax


def confusion(table: Array, classes: Classes, ax: Ax = None) -> Axes:
    """Draw a confusion matrix ``[K, K]`` of counts, true classes in rows, as per cent of each row."""
    ax = axes_for(ax, 2.2 + 0.62 * len(classes), 1.3 + 0.5 * len(classes))
    counts = np.sum(table, axis=1)
    shares = 100 * table / np.maximum(counts, 1)[:, None]
    rows = [f"{name}  ({count:,})" for name, count in zip(classes, counts, strict=True)]
    look = {"cmap": "Blues", "vmin": 0, "vmax": 100, "cbar": False, "annot": True, "fmt": ".0f"}
    seaborn().heatmap(shares, xticklabels=classes, yticklabels=rows, linewidths=0.5, ax=ax, **look)
    ax.set(xlabel="predicted  (% of the row)", ylabel="true class  (faces)")
    ax.set_xticklabels(classes, rotation=40, ha="right", rotation_mode="anchor")
    ax.tick_params(length=0)
    return ax


def roc(curves: Mapping[str, tuple[Array, Array, float]], ax: Ax = None) -> Axes:
    """Draw the ROC curve (``metrics.roc``) of each class with its area; dotted: no information."""
    ax = _threshold_curves(curves, "AUC", "default", ax)
    ax.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls=":")
    ax.set(xlabel="false positive rate", ylabel="true positive rate (recall)")
    return ax


def precision_recall(curves: Mapping[str, tuple[Array, Array, float]], ax: Ax = None) -> Axes:
    """Draw precision over recall (``metrics.precision_recall``) of each class with its average precision."""
    ax = _threshold_curves(curves, "AP", "steps-pre", ax)
    ax.set(xlabel="recall", ylabel="precision")
    return ax


def _threshold_curves(curves: Mapping, title: str, steps: str, ax: Ax) -> Axes:
    ax, ticks = axes_for(ax, 5.6, 3.8), [0, 0.25, 0.5, 0.75, 1]
    for (name, (x, y, area)), dash in zip(curves.items(), cycle(DASHES), strict=False):
        look = {"color": color(name), "ls": dash, "lw": 1.8, "drawstyle": steps}
        ax.plot(x, y, label=f"{name}  {area:.2f}", **look)
    ax.set(xlim=(-0.01, 1.02), ylim=(-0.01, 1.02), xticks=ticks, yticks=ticks)
    ax.grid()
    ax.legend(title=title, handlelength=2.6, **OUTSIDE)
    return ax


def reliability(tables: Mapping[str, Array], ax: Ax = None) -> Axes:
    """Draw accuracy over confidence (``metrics.calibration``) by name; the area of a mark: faces."""
    ax = axes_for(ax, 4.6, 4.0)
    ax.plot([0, 1], [0, 1], color=MUTED, ls=":", lw=1.2)
    for (name, table), marker in zip(tables.items(), "oDX^", strict=False):
        faces, confidence, right = table[table[:, 0] > 0].T
        (line,) = ax.plot(confidence, right, lw=1.4)
        look = {"marker": marker, "color": line.get_color(), "label": name}
        ax.scatter(confidence, right, s=12 + 220 * faces / faces.max(), **look)
    ax.set(xlabel="confidence (largest probability)", ylabel="accuracy (area: faces)")
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    ax.grid()
    for handle in ax.legend(loc="upper left").legend_handles:
        handle.set_sizes([60])
    return ax


def agreement(
    truth: Array, predicted: Array, labels: Array, classes: Classes, name: str, ax: Ax = None
) -> Axes:
    """Draw what was predicted over what was annotated, ``[N]`` each, with the line of perfect agreement."""
    axes, ax = (f"{name}, annotated", f"{name}, predicted"), axes_for(ax, 5.6, 4.2)
    ax = scatter(np.stack([truth, predicted], axis=1), labels, classes, axes, ax)
    ax.plot([-1, 1], [-1, 1], color=INK, lw=1.2, ls="--")
    ax.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal", xticks=HALVES, yticks=HALVES)
    return ax


def circumplex(
    points: Array, labels: Array, classes: Classes, centers: Mapping | None = None, ax: Ax = None
) -> Axes:
    """Draw faces ``[N, 2]`` in the plane of valence and arousal; ``centers`` are names written on it."""
    ax = _plane(scatter(points, labels, classes, ax=axes_for(ax, 6.0, 4.6)))
    if centers:  # the names on the plane say what a legend would
        ax.get_legend().remove()
    for name, place in _apart(centers or {}).items():
        ax.text(*place, name, ha="center", va="center", weight="bold", fontsize=10.5, bbox=HALO)
    return ax


def circumplex_errors(truth: Array, predicted: Array, cells: int = 7, fewest: int = 3, ax: Ax = None) -> Axes:
    """Draw where a network moves faces ``[N, 2]``: in each cell from mean truth to mean prediction."""
    known = ~np.isnan(truth).any(axis=1)
    start, move = truth[known], predicted[known] - truth[known]
    grid = {"bins": cells, "range": [[-1, 1], [-1, 1]]}
    means = scipy.stats.binned_statistic_2d(*start.T, [*start.T, *move.T], "mean", **grid).statistic
    num = scipy.stats.binned_statistic_2d(*start.T, None, "count", **grid).statistic
    x, y, dx, dy = means[:, num >= fewest]
    ax = _plane(axes_for(ax, 5.4, 5.2))
    ax.scatter(x, y, s=14 + 90 * num[num >= fewest] / num.max(), color=ACCENT, alpha=0.35, linewidths=0)
    look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.007, "color": ARROW, "zorder": 3}
    ax.quiver(x, y, dx, dy, **look)
    ax.set_title("arrow: mean annotation to mean prediction · dot: faces", fontsize=10.5)
    return ax


def circumplex_confusions(
    table: Array, classes: Classes, centers: Mapping, least: float = 0.05, ax: Ax = None
) -> Axes:
    """Draw which class is taken for which, where they lie: the width of an arrow is the share.

    Shares of a row below ``least`` are left out, and classes whose center (valence, arousal) is NaN.
    """
    ax = _plane(axes_for(ax, 6.4, 5.2))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    placed = [i for i, name in enumerate(classes) if np.isfinite(centers[name]).all()]
    shares, classes = shares[np.ix_(placed, placed)], [classes[i] for i in placed]
    for row, column in np.argwhere((shares >= least) & ~np.eye(len(classes), dtype=bool)):
        look = {"arrowstyle": "-|>", "color": color(classes[row]), "lw": 22 * shares[row, column]}
        look |= {"alpha": 0.75, "mutation_scale": 10 + 60 * shares[row, column]}
        look |= {"connectionstyle": "arc3,rad=0.22", "shrinkA": 5, "shrinkB": 6}  # there and back stay apart
        ax.annotate("", centers[classes[column]], centers[classes[row]], arrowprops=look)
    places = np.array([centers[name] for name in classes])
    for name, (x, y) in _apart(dict(zip(classes, places + [0, 0.06], strict=True))).items():
        mark = {"marker": MARKERS.get(name, "o"), "markersize": 9, "markeredgecolor": "white"}
        ax.plot(*centers[name], color=color(name), **mark)
        ax.text(x, y, name, ha="center", va="bottom", weight="bold", fontsize=10.5, bbox=HALO)
    low, high = places.min(axis=0) - [0.3, 0.2], places.max(axis=0) + [0.3, 0.3]
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    ax.set_title(f"width: share of the true class taken for another, from {least:.0%}", fontsize=10.5)
    return ax


def _apart(places: Mapping) -> dict[str, tuple[float, float]]:
    """Return places for names, from the lowest up, each lifted until it covers none of those below it."""
    moved: dict[str, tuple[float, float]] = {}
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        for left, below in moved.values():
            y = max(y, below + 0.1) if abs(x - left) < 0.4 else y
        moved[name] = (x, y)
    return moved


def _plane(ax: Axes) -> Axes:
    ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=MUTED, lw=1.2))
    ax.axhline(0, color=FAINT, lw=1, zorder=0)
    ax.axvline(0, color=FAINT, lw=1, zorder=0)
    ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=HALVES, yticks=HALVES)
    ax.set(xlabel="valence  (unpleasant to pleasant)", ylabel="arousal  (calm to excited)")
    return ax
