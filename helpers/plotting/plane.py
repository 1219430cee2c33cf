"""The plane of valence and arousal: where expressions lie on it, and where predictions fall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from helpers.plotting.labels import scatter
from helpers.plotting.look import ACCENT, FAINT, HALO, MARKERS, MUTED, axes_for, color


def circumplex(
    points: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    centers: Mapping[str, tuple[float, float]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw faces in the plane of valence and arousal, inside the unit circle.

    Args:
        points: ``[N, 2]``, (valence, arousal) in [-1, 1]; NaN where unknown.
        labels: ``[N]``, an index into ``classes``.
        classes: K canonical names.
        centers: name to (valence, arousal), written on the plane; for instance the mean of each class.
        ax: where to draw.
    """
    ax = _plane(scatter(points, labels, classes, ax=axes_for(ax, 6.0, 4.6)))
    if centers:  # the names on the plane say what a legend would
        ax.get_legend().remove()
    for name, place in _apart(centers or {}).items():
        ax.text(*place, name, ha="center", va="center", weight="bold", fontsize=10.5, bbox=HALO)
    return ax


def circumplex_errors(
    truth: np.ndarray, predicted: np.ndarray, cells: int = 7, fewest: int = 3, ax: Axes | None = None
) -> Axes:
    """Draw where a network moves faces on the circumplex: in each cell, from mean truth to mean prediction.

    Args:
        truth: ``[N, 2]``, (valence, arousal) in [-1, 1]; faces with an unknown value are left out.
        predicted: ``[N, 2]``.
        cells: along each side of the plane.
        fewest: cells with fewer faces stay empty.
        ax: where to draw.
    """
    known = ~np.isnan(truth).any(axis=1)
    start, move, num = _moved(truth[known], predicted[known], cells)
    start, move, num = (values[num >= fewest] for values in (start, move, num))
    ax = _plane(axes_for(ax, 5.4, 5.0))
    ax.scatter(*start.T, s=14 + 90 * num / num.max(), color=ACCENT, alpha=0.35, linewidths=0)
    look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.007, "color": "#c8541e", "zorder": 3}
    ax.quiver(*start.T, *move.T, **look)
    return ax


def circumplex_confusions(
    table: np.ndarray,
    classes: Sequence[str],
    centers: Mapping[str, tuple[float, float]],
    least: float = 0.05,
    ax: Axes | None = None,
) -> Axes:
    """Draw which expressions are taken for which, where they lie: the wider the arrow, the larger the share.

    Args:
        table: counts ``[K, K]``, true classes in rows (``metrics.confusion``).
        classes: K canonical names.
        centers: name of a class to (valence, arousal); a class without a place (NaN) is left out.
        least: confusions of a smaller share of the true class are left out.
        ax: where to draw.
    """
    ax = _plane(axes_for(ax, 6.4, 5.0))
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    bend = {"connectionstyle": "arc3,rad=0.22", "shrinkA": 5, "shrinkB": 6}  # there and back stay apart
    placed = [i for i, name in enumerate(classes) if np.isfinite(centers[name]).all()]
    shares, classes = shares[np.ix_(placed, placed)], [classes[i] for i in placed]
    for row, column in np.argwhere((shares >= least) & ~np.eye(len(classes), dtype=bool)):
        ends = {"xytext": centers[classes[row]], "xy": centers[classes[column]]}
        look = {"arrowstyle": "-|>", "color": color(classes[row]), "lw": 22 * shares[row, column]}
        look |= {"alpha": 0.75, "mutation_scale": 10 + 60 * shares[row, column]}
        ax.annotate("", arrowprops=look | bend, **ends)
    places = np.array([centers[name] for name in classes])
    for name, (x, y) in _apart(dict(zip(classes, places + [0, 0.06], strict=True))).items():
        mark = {"marker": MARKERS.get(name, "o"), "markersize": 9, "markeredgecolor": "white"}
        ax.plot(*centers[name], color=color(name), **mark)
        ax.text(x, y, name, ha="center", va="bottom", weight="bold", fontsize=10.5, bbox=HALO)
    low, high = places.min(axis=0) - [0.3, 0.2], places.max(axis=0) + [0.3, 0.3]
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return ax


def _apart(places: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return places for names, from the lowest up, each lifted until it covers none of those below it."""
    moved: dict[str, tuple[float, float]] = {}
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        for left, below in moved.values():
            y = max(y, below + 0.1) if abs(x - left) < 0.4 else y
        moved[name] = (x, y)
    return moved


def _moved(truth: np.ndarray, predicted: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each cell with a face the mean truth, the mean error and the number of faces."""
    place = np.clip(((truth + 1) / 2 * cells).astype(int), 0, cells - 1) @ [cells, 1]
    _, owner, num = np.unique(place, return_inverse=True, return_counts=True)
    sums = np.zeros((2, len(num), 2))
    for total, values in zip(sums, (truth, predicted - truth), strict=True):
        np.add.at(total, owner.reshape(-1), values)
    return sums[0] / num[:, None], sums[1] / num[:, None], num


def _plane(ax: Axes) -> Axes:
    """Prepare axes for the plane of valence and arousal."""
    ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=MUTED, lw=1.2))
    ax.axhline(0, color=FAINT, lw=1, zorder=0)
    ax.axvline(0, color=FAINT, lw=1, zorder=0)
    ticks = [-1, -0.5, 0, 0.5, 1]
    ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=ticks, yticks=ticks)
    ax.set(xlabel="valence  (unpleasant to pleasant)", ylabel="arousal  (calm to excited)")
    return ax
