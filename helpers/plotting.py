"""Every figure of the workbook: data in, a matplotlib ``Axes`` out, one style.

Call :func:`style` once in a notebook. Each function takes numbers that are already computed and an
optional ``ax`` to draw on; without one it makes a figure of a size that suits it. It returns the axes, so
that a caller can add to what is there, and leaves no other trace in pyplot.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import cycle
from typing import Protocol

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle
from PIL import Image

from helpers import emotions

INK, MUTED, FAINT = "#222222", "#666666", "#d9d9d9"
"""Text and axes; secondary text; grid lines and frames."""

ACCENT = "#0b6e8a"
"""Whatever is not an expression: a curve, a score, a count."""

TILE = 0.95
"""Side of a face in a figure, in inches: the same from figure to figure."""

_HALO = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}

MARKERS = dict(zip(emotions.COLORS, cycle("s^vo<DPXhpd*"), strict=False))
"""One marker an expression: colours are never the only difference, for readers who do not tell them apart."""

LANDMARK_PARTS = {
    "jaw": range(0, 17),
    "right brow": range(17, 22),
    "left brow": range(22, 27),
    "nose bridge": range(27, 31),
    "nostrils": range(31, 36),
    "right eye": (*range(36, 42), 36),
    "left eye": (*range(42, 48), 42),
    "outer lips": (*range(48, 60), 48),
    "inner lips": (*range(60, 68), 60),
}
"""The 68 iBUG points as lines, closed where the feature is; right and left are the person's own."""


class Scored(Protocol):
    """What :func:`scores` draws: a value with the two ends of its interval (``metrics.Interval`` is one)."""

    value: float
    low: float
    high: float


def style() -> None:
    """Set the workbook's look: once per notebook, before the first figure.

    In a notebook, figures are also kept as PNG of at most 128 colours, a third of the usual size.
    """
    mpl.rcParams.update(
        {
            "figure.dpi": 80,
            "savefig.dpi": 80,
            "figure.figsize": (8.0, 3.6),
            "figure.constrained_layout.use": True,
            "figure.facecolor": "white",
            "font.size": 11.5,
            "axes.titlesize": 12.5,
            "axes.titlelocation": "left",
            "axes.titlepad": 8.0,
            "axes.labelsize": 11.5,
            "axes.labelcolor": INK,
            "axes.edgecolor": MUTED,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.axisbelow": True,
            "axes.prop_cycle": mpl.cycler(color=[ACCENT, "#d1702a", "#7b4fa3", "#6b8e23", "#c8382e"]),
            "grid.color": FAINT,
            "grid.linewidth": 0.8,
            "lines.linewidth": 2.0,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "text.color": INK,
            "legend.frameon": False,
            "legend.fontsize": 11.0,
            "image.cmap": "gray",
        }
    )
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        plt.switch_backend(mpl.get_backend())  # the notebook's backend sets its own PNG writer first
        shell.display_formatter.formatters["image/png"].for_type(Figure, _png)


def _png(figure: Figure) -> bytes:
    """Return a figure as PNG of at most 128 colours."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", bbox_inches="tight")
    palette = Image.open(full).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    palette.save(small, format="png", optimize=True)
    return small.getvalue()


def color(name: str) -> str:
    """Return the colour of an expression, or the accent colour for any other word.

    Args:
        name: a canonical expression name.
    """
    return emotions.COLORS.get(name, ACCENT)


def _axes(ax: Axes | None, width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)


def _pixels(images: np.ndarray) -> np.ndarray:
    """Bring ``[N, H, W]`` or ``[N, 3, H, W]`` to channels-last, the form matplotlib wants."""
    images = np.asarray(images)
    return images.transpose(0, 2, 3, 1) if images.ndim == 4 else images


def face(image: np.ndarray, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw one face, without axes.

    Args:
        image: ``[H, W]`` or ``[3, H, W]``, values from 0 to 255.
        title: a few words above it.
        ax: where to draw.
    """
    ax = _axes(ax, 2.4, 2.6)
    _show(ax, _pixels(image[None])[0] / 255)
    ax.set_title(title, loc="center", fontsize=11)
    return ax


def face_grid(
    images: np.ndarray, titles: Sequence[str] = (), columns: int = 7, ax: Axes | None = None
) -> Axes:
    """Draw faces side by side, row after row, each with its title above it.

    Args:
        images: ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255.
        titles: N short texts, or none; the name of an expression also gets its colour.
        columns: how many faces go into a row.
        ax: where to draw.
    """
    tiles = _pixels(images)
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    ax = _axes(ax, TILE * columns, TILE * rows * (1.22 if len(titles) else 1.04))
    top = 0.24 if len(titles) else 0.0
    corners = _tile(ax, tiles, [(i // columns, i % columns) for i in range(len(tiles))], top)
    for title, (x, y) in zip(titles, corners, strict=False):
        _title(ax, title, x, y, tiles.shape[2])
    return ax


def face_rows(images: Mapping[str, np.ndarray], ax: Axes | None = None) -> Axes:
    """Draw one row of faces for each name, the name at its left; rows may differ in length.

    Args:
        images: name of a row to its faces, ``[n, H, W]`` or ``[n, 3, H, W]``, values from 0 to 255.
        ax: where to draw.
    """
    longest = max(map(len, images.values()))
    ax = _axes(ax, 1.1 + TILE * longest, TILE * len(images))
    places = [(row, column) for row, group in enumerate(images.values()) for column in range(len(group))]
    tiles = np.concatenate([_pixels(group) for group in images.values() if len(group)])
    _tile(ax, tiles, places)
    height, width = tiles.shape[1:3]
    for row, name in enumerate(images):
        middle = row * (height + _gap(width)) + height / 2
        ax.plot(
            [-_gap(width) - 1] * 2,
            [middle - height / 2, middle + height / 2],
            color=color(name),
            lw=5,
            solid_capstyle="butt",
        )
        ax.text(-_gap(width) - 0.12 * width, middle, name, ha="right", va="center")
    return ax


def _gap(width: int) -> int:
    return max(1, width // 16)


def _tile(
    ax: Axes, tiles: np.ndarray, places: Sequence[tuple[int, int]], top: float = 0.0
) -> list[tuple[float, float]]:
    """Put tiles on one white canvas at (row, column) places; return the upper left corner of each.

    One image instead of one axes a face: aligned to the pixel, and fifty times faster to draw.
    """
    height, width = tiles.shape[1:3]
    step_y, step_x = height + _gap(width) + round(top * height), width + _gap(width)
    rows, columns = (max(place[axis] for place in places) + 1 for axis in (0, 1))
    canvas = np.ones((rows * step_y - _gap(width), columns * step_x - _gap(width), *tiles.shape[3:]))
    corners = [(column * step_x, row * step_y + round(top * height)) for row, column in places]
    for tile, (x, y) in zip(tiles, corners, strict=True):
        canvas[y : y + height, x : x + width] = tile / 255
    _show(ax, canvas, "nearest" if width <= 64 else "auto")
    return corners


def _show(ax: Axes, image: np.ndarray, interpolation: str = "nearest") -> None:
    # 24 levels of light: the eye does not miss the rest, and a notebook full of faces stays half as large
    ax.imshow(np.round(image * 23) / 23, vmin=0, vmax=1, interpolation=interpolation)
    _bare(ax)


def _title(ax: Axes, title: str, x: float, y: float, width: int) -> None:
    ax.text(x + width / 2, y - 0.05 * width, title, ha="center", va="bottom", fontsize=10.5)
    if title in emotions.COLORS:
        ax.plot([x, x + width - 1], [y - 1, y - 1], color=color(title), lw=3, solid_capstyle="butt")


def landmarks(image: np.ndarray, points: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw the 68 iBUG points over a face, joined into its features.

    Args:
        image: ``[H, W]`` or ``[3, H, W]``, values from 0 to 255.
        points: ``[68, 2]``, (x, y) in pixels; NaN where a point is unknown.
        ax: where to draw.
    """
    ax = face(image, ax=_axes(ax, 3.0, 3.0))
    frame = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
    for part in LANDMARK_PARTS.values():
        ax.plot(*points[list(part)].T, color="#2fd0c8", lw=1.2, marker="o", markersize=2.4)
    ax.set(**frame)  # points may lie outside the picture; the picture stays as it is
    return ax


def class_balance(shares: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the share of each class: the first split as bars, the others as marks on them.

    Args:
        shares: one row a class, one column a split, each column summing to 1.
        ax: where to draw.
    """
    ax = _axes(ax, 8.0, 0.9 + 0.36 * len(shares))
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
    ax = _axes(ax, 6.6, 4.4)
    size = float(np.clip(16000 / max(len(points), 1), 8, 36))
    for index, name in enumerate(classes):
        marker = MARKERS.get(name, "o")
        area = size * (0.7 if marker in "sD" else 1)  # to the eye, squares are larger than triangles
        mark = {"color": color(name), "marker": marker, "linewidths": 0, "s": area}
        ax.scatter(*points[labels == index].T, alpha=0.65, label=name, **mark)
    ax.set(xlabel=axes[0], ylabel=axes[1])
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=(60 / size) ** 0.5, handletextpad=0.2)
    return ax


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
    ax = _plane(scatter(points, labels, classes, ax=_axes(ax, 6.0, 4.6)))
    if centers:  # the names on the plane say what a legend would
        ax.get_legend().remove()
    for name, place in _apart(centers or {}).items():
        ax.text(*place, name, ha="center", va="center", weight="bold", fontsize=10.5, bbox=_HALO)
    return ax


def _apart(places: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return places for names, from the lowest up, each lifted until it covers none of those below it."""
    moved: dict[str, tuple[float, float]] = {}
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1]):
        for left, below in moved.values():
            y = max(y, below + 0.1) if abs(x - left) < 0.4 else y
        moved[name] = (x, y)
    return moved


def distribution(probabilities: np.ndarray, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw one label distribution as bars, a row for each class.

    Args:
        probabilities: ``[K]`` that sums to 1.
        classes: K canonical names.
        ax: where to draw.
    """
    ax = _axes(ax, 4.0, 0.7 + 0.3 * len(classes))
    ax.barh(classes, probabilities, color=[color(name) for name in classes], height=0.72)
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
    ax.invert_yaxis()
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
    ax = _axes(ax, 5.6, 0.9 + 0.42 * len(values))
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
    ax = _axes(ax, 8.0, 0.9 + 0.4 * len(rows))
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
    ax = _axes(ax, 6.0, 3.4)
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
    ax = _axes(ax, 7.2, 3.2)
    ax.plot(rates, losses)
    ax.set(xscale="log", xlabel="learning rate", ylabel="training loss (nats)")
    ax.grid(axis="x")
    if chosen is not None:
        ax.axvline(chosen, color=INK, lw=1.2, ls="--")
        note = {"xytext": (5, -3), "textcoords": "offset points", "va": "top"}
        ax.annotate(f"{chosen:.0e}", (chosen, ax.get_ylim()[1]), **note)
    return ax


def confusion(table: np.ndarray, classes: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw what each class was taken for: a row a true class, in per cent of the row, the diagonal correct.

    Args:
        table: counts ``[K, K]``, true classes in rows (``metrics.confusion``).
        classes: K names.
        ax: where to draw.
    """
    ax = _axes(ax, 1.9 + 0.62 * len(classes), 1.2 + 0.5 * len(classes))
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
    ax = _axes(ax, 7.2, 0.9 + 0.36 * len(scores))
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


def mistakes(
    images: np.ndarray,
    labels: Sequence[str],
    predictions: Sequence[str],
    confidence: np.ndarray,
    columns: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Draw faces that were taken for something else: above each the prediction, below it the label.

    Args:
        images: ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255.
        labels: N names, what each face is labelled.
        predictions: N names, what it was taken for.
        confidence: ``[N]``, the probability given to the prediction, from 0 to 1.
        columns: how many faces go into a row.
        ax: where to draw.
    """
    tiles = _pixels(images)
    columns, space = min(columns, len(tiles)), 0.42
    rows = -(-len(tiles) // columns)
    ax = _axes(ax, 8.4, 8.4 * rows / columns * (1.06 + space))
    corners = _tile(ax, tiles, [(i // columns, i % columns) for i in range(len(tiles))], space)
    width = tiles.shape[2]
    for i, (x, y) in enumerate(corners):
        said = f"{predictions[i]} {confidence[i]:.0%}"
        _line(ax, x, y - 0.22 * width, width, said, color(predictions[i]), weight="bold")
        _line(ax, x, y - 0.05 * width, width, f"not {labels[i]}", color(labels[i]))
    return ax


def _line(ax: Axes, x: float, y: float, width: int, text: str, ink: str, **look: str) -> None:
    ax.text(x + width / 2, y, text, ha="center", va="bottom", fontsize=9.5, color=ink, **look)


def arrows(image: np.ndarray, down: np.ndarray, right: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw the gradient at each pixel of a small image as an arrow towards the light.

    Args:
        image: ``[H, W]``, values from 0 to 255.
        down: ``[H, W]``, how much brighter it gets towards the next row.
        right: ``[H, W]``, how much brighter it gets towards the next column.
        ax: where to draw.
    """
    ax = _axes(ax, 3.2, 3.2)
    _show(ax, np.asarray(image) / 255)
    longest = max(float(np.hypot(down, right).max()), 1.0)
    ax.quiver(right, down, angles="xy", scale_units="xy", scale=longest / 1.4, pivot="mid", color="#e8632c")
    return ax


def directions(histogram: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw how much gradient a cell has in each direction, one bar a bin of the half circle.

    Args:
        histogram: ``[orientations]``, gradient length in each bin (grey levels).
        ax: where to draw.
    """
    ax = _axes(ax, 4.2, 3.2)
    width = 180 / len(histogram)
    ax.bar(width * (np.arange(len(histogram)) + 0.5), histogram, 0.9 * width)
    ax.set(xlabel="direction of the gradient (degrees)", ylabel="mean length (grey levels)")
    ax.set(xticks=[0, 45, 90, 135, 180], xlim=(0, 180))
    ax.grid(axis="y")
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
    ax = _axes(ax, 2.8 + 0.85 * len(columns), 1.3 + 0.5 * len(rows))
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


def learning_curve(
    curves: Mapping[str, Mapping[int, Scored]], label: str = "accuracy", ax: Axes | None = None
) -> Axes:
    """Draw scores over the number of training faces, each with its interval as a band.

    Args:
        curves: name of a curve to its scores by number of faces.
        label: what the score is, with unit.
        ax: where to draw.
    """
    ax = _axes(ax, 6.4, 3.6)
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


def pictures(images: np.ndarray, titles: Sequence[str] = (), columns: int = 7) -> Axes:
    """Draw pictures made of thin lines side by side, one pixel of the screen for each of theirs.

    It has no ``ax``: in axes of another size the lines would be resampled, and break or blur.

    Args:
        images: ``[N, H, W]``, values from 0 to 255.
        titles: N short texts, or none; the name of an expression also gets its colour.
        columns: how many go into a row.
    """
    tiles = np.asarray(images)
    columns, width, top = min(columns, len(tiles)), tiles.shape[2], 0.22 if len(titles) else 0.0
    places = [(i // columns, i % columns) for i in range(len(tiles))]
    figure = plt.figure(layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    corners = _tile(ax, tiles, places, top)
    height, across = ax.images[0].get_array().shape[:2]
    figure.set_size_inches(across / figure.dpi, height / figure.dpi)
    for title, (x, y) in zip(titles, corners, strict=False):
        _title(ax, title, x, y, width)
    return ax


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of each class, its area in the legend, and the diagonal: a score that knows nothing.

    Args:
        curves: name of a class to rate of false alarms, recall, and area (``metrics.roc``).
        ax: where to draw.
    """
    ax = _threshold_curves(curves, "AUC", "default", _axes(ax, 5.6, 3.8))
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
    ax = _threshold_curves(curves, "AP", "steps-pre", _axes(ax, 5.6, 3.8))
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
    ax = scatter(points, labels, classes, (f"{name}, annotated", f"{name}, predicted"), _axes(ax, 5.6, 4.2))
    ax.plot([-1, 1], [-1, 1], color=INK, lw=1.2, ls="--")
    ticks = [-1, -0.5, 0, 0.5, 1]
    ax.set(xlim=(-1.03, 1.03), ylim=(-1.03, 1.03), aspect="equal", xticks=ticks, yticks=ticks)
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
    ax = _plane(_axes(ax, 5.4, 5.0))
    ax.scatter(*start.T, s=14 + 90 * num / num.max(), color=ACCENT, alpha=0.35, linewidths=0)
    look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.007, "color": "#c8541e", "zorder": 3}
    ax.quiver(*start.T, *move.T, **look)
    return ax


def _moved(truth: np.ndarray, predicted: np.ndarray, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each cell with a face the mean truth, the mean error and the number of faces."""
    place = np.clip(((truth + 1) / 2 * cells).astype(int), 0, cells - 1) @ [cells, 1]
    _, owner, num = np.unique(place, return_inverse=True, return_counts=True)
    sums = np.zeros((2, len(num), 2))
    for total, values in zip(sums, (truth, predicted - truth), strict=True):
        np.add.at(total, owner.reshape(-1), values)
    return sums[0] / num[:, None], sums[1] / num[:, None], num


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
    ax = _plane(_axes(ax, 6.4, 5.0))
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
        ax.text(x, y, name, ha="center", va="bottom", weight="bold", fontsize=10.5, bbox=_HALO)
    low, high = places.min(axis=0) - [0.3, 0.2], places.max(axis=0) + [0.3, 0.3]
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return ax


def _plane(ax: Axes) -> Axes:
    """Prepare axes for the plane of valence and arousal."""
    ax.add_patch(Circle((0, 0), 1, fill=False, edgecolor=MUTED, lw=1.2))
    ax.axhline(0, color=FAINT, lw=1, zorder=0)
    ax.axvline(0, color=FAINT, lw=1, zorder=0)
    ticks = [-1, -0.5, 0, 0.5, 1]
    ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal", xticks=ticks, yticks=ticks)
    ax.set(xlabel="valence  (unpleasant to pleasant)", ylabel="arousal  (calm to excited)")
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
    ax = _axes(ax, 8.0, 0.9 + 0.36 * (places[-1] + 1))
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


def heated(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return faces with heat laid over them: the bare face at 0, then red, yellow at each map's maximum.

    They go wherever faces go: :func:`face_grid`, :func:`face_rows`, :func:`mistakes`.

    Args:
        images: ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255.
        maps: ``[N, H, W]``; what is negative counts as 0, and a map without anything positive stays bare.

    Returns:
        uint8 ``[N, 3, H, W]``.
    """
    heat = np.clip(np.asarray(maps, dtype=np.float64), 0, None)
    heat = heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-30)
    images = np.asarray(images, dtype=np.float64)
    color = images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1)
    hot = np.array([[225, 30, 30], [255, 225, 60]], dtype=np.float64)
    glow = hot[0] + (hot[1] - hot[0]) * heat[..., None] ** 2
    cover = 0.7 * heat[:, None]
    return np.round((1 - cover) * color + cover * glow.transpose(0, 3, 1, 2)).astype(np.uint8)


def perturbation(
    shares: np.ndarray,
    curves: Mapping[str, Sequence[Scored]],
    axes: tuple[str, str] = ("share of the picture deleted", "probability of the class"),
    ax: Axes | None = None,
) -> Axes:
    """Draw what a network still believes while pictures are taken away or put together, with intervals.

    Args:
        shares: ``[S]`` from 0 to 1.
        curves: name to S scores.
        axes: what the horizontal and the vertical axis show, with unit.
        ax: where to draw.
    """
    ax = _axes(ax, 4.6, 3.2)
    for (name, points), dash in zip(curves.items(), cycle(("-", "--", ":", "-.")), strict=False):
        (line,) = ax.plot(shares, [point.value for point in points], dash, label=name)
        band = [point.low for point in points], [point.high for point in points]
        ax.fill_between(shares, *band, color=line.get_color(), alpha=0.15, linewidth=0)
    ax.set(xlabel=axes[0], ylabel=axes[1], xlim=(0, 1), ylim=(0, None))
    ax.grid()
    ax.legend()
    return ax
