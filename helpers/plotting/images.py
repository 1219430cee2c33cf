"""Faces: in grids, in rows, with landmarks, predictions, heat; what is said of one; where gradients point.

``images`` are ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255. A title that names an expression gets
its colour. ``tile`` is the side of a face in inches, 80 pixels each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.patches import Patch

from helpers import emotions
from helpers.plotting.style import ARROW, FAINT, INK, MUTED, TILE, Ax, Classes, axes_for, bare, color, panels

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


def face(image: np.ndarray, title: str = "", ax: Ax = None) -> Axes:
    """Draw one face ``[H, W]`` or ``[3, H, W]``, without axes."""
    ax = axes_for(ax, 2.4, 2.6)
    show(ax, _channels_last(image[None])[0] / 255)
    ax.set_title(title, loc="center", fontsize=11)
    return ax


def face_grid(
    images: np.ndarray, titles: Classes = (), columns: int = 7, ax: Ax = None, *, tile: float = TILE
) -> Axes:
    """Draw faces side by side, row after row, each with its title above it."""
    tiles, columns = _channels_last(images), min(columns, len(images))
    rows = -(-len(tiles) // columns)
    ax = axes_for(ax, tile * columns, tile * rows * (1.22 if len(titles) else 1.04))
    corners = _mosaic(ax, tiles, columns, 0.24 if len(titles) else 0.0)
    _titles(ax, titles, corners, tiles.shape[2])
    return ax


def face_rows(
    images: Mapping[str, np.ndarray], titles: Classes = (), ax: Ax = None, *, tile: float = TILE
) -> Axes:
    """Draw one row of faces for each name, which stands at its left, with a title above each column.

    Rows may differ in length.
    """
    longest, groups = max(map(len, images.values())), list(images.values())
    ax = axes_for(ax, 1.1 + tile * longest, tile * (len(groups) + 0.25 * bool(len(titles))))
    places = [(row, column) for row, group in enumerate(groups) for column in range(len(group))]
    tiles = np.concatenate([_channels_last(group) for group in groups if len(group)])
    _mosaic(ax, tiles, places)
    height, width = tiles.shape[1:3]
    gap = _gap(width)
    for row, name in enumerate(images):
        top = row * (height + gap)
        ax.plot([-gap - 1] * 2, [top, top + height], color=color(name), lw=5, solid_capstyle="butt")
        ax.text(-gap - 0.12 * width, top + height / 2, name, ha="right", va="center")
    _titles(ax, titles, [(column * (width + gap), 0) for column in range(len(titles))], width)
    return ax


def pictures(images: np.ndarray, titles: Classes = (), columns: int = 7) -> Axes:
    """Draw images of thin lines ``[N, H, W]`` side by side, each of their pixels one of the screen.

    It has no ``ax``: in axes of another size the lines would be resampled, and break or blur.
    """
    columns, figure = min(columns, len(images)), plt.figure(layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    corners = _mosaic(ax, np.asarray(images), columns, 0.22 if len(titles) else 0.0)
    height, width = ax.images[0].get_array().shape[:2]
    figure.set_size_inches(width / figure.dpi, height / figure.dpi)
    _titles(ax, titles, corners, np.shape(images)[2])
    return ax


def mistakes(
    images: np.ndarray,
    labels: Classes,
    predictions: Classes,
    confidence: np.ndarray,
    columns: int = 6,
    ax: Ax = None,
) -> Axes:
    """Draw faces with the predicted name and its confidence, from 0 to 1, above, and the label below it."""
    upper = [
        (f"{name} {share:.0%}", color(name)) for name, share in zip(predictions, confidence, strict=True)
    ]
    return _captioned(images, upper, [(f"not {name}", color(name)) for name in labels], columns, ax)


def guesses(
    images: np.ndarray, labels: Classes, predictions: Classes, columns: int = 4, ax: Ax = None
) -> Axes:
    """Draw faces with the predicted name above each, and below it the label where that is another."""
    pairs = list(zip(labels, predictions, strict=True))
    lower = [("right", MUTED) if label == name else (f"not {label}", color(label)) for label, name in pairs]
    return _captioned(images, [(name, color(name)) for name in predictions], lower, columns, ax)


def misplaced(
    images: np.ndarray, truth: np.ndarray, predicted: np.ndarray, columns: int = 6, ax: Ax = None
) -> Axes:
    """Draw faces with predicted (valence, arousal) ``[N, 2]`` above each, and the annotation below it."""

    def signed(pair: np.ndarray) -> str:
        rounded = (round(float(value), 1) + 0.0 for value in pair)  # + 0.0 turns -0.0 into 0.0
        return "  ".join(f"{value:+.1f}" for value in rounded).replace("-", "−")

    upper, lower = (
        [(signed(pair), INK) for pair in predicted],
        [(f"not {signed(pair)}", MUTED) for pair in truth],
    )
    return _captioned(images, upper, lower, columns, ax)


def landmarks(image: np.ndarray, points: np.ndarray, ax: Ax = None) -> Axes:
    """Draw the 68 iBUG points ``[68, 2]``, (x, y) in pixels, NaN where unknown, over a face."""
    ax = face(image, ax=axes_for(ax, 3.0, 3.0))
    frame = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
    for part in LANDMARK_PARTS.values():
        ax.plot(*points[list(part)].T, color="#2fd0c8", lw=1.2, marker="o", markersize=2.4)
    ax.set(**frame)  # points may lie outside the image; the image stays as it is
    return ax


def heated(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return faces with heat over them: the bare face at 0, then red, yellow at each map's maximum.

    They go wherever faces go: :func:`face_grid`, :func:`face_rows`, :func:`mistakes`; see :func:`heat_bar`.

    Args:
        images: ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255.
        maps: ``[N, H, W]``; what is negative counts as 0, and a map without anything positive stays bare.

    Returns:
        uint8 ``[N, 3, H, W]``.
    """
    heat = np.clip(np.asarray(maps, dtype=np.float64), 0, None)
    heat = (heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-30))[:, None]
    images = np.asarray(images, dtype=np.float64)
    rgb = images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1)
    red, yellow = (np.reshape(each, (3, 1, 1)) for each in ((225.0, 30, 30), (255.0, 225, 60)))
    glow = red + (yellow - red) * heat**2
    return np.round((1 - 0.7 * heat) * rgb + 0.7 * heat * glow).astype(np.uint8)


def heat_bar(ax: Axes) -> Axes:
    """Draw the scale of the colours of heated faces, as they lie over middle grey, beside their axes."""
    ramp = heated(np.full((1, 1, 256), 128.0), np.linspace(0, 1, 256)[None, None])[0, :, 0].T / 255
    bar = ax.figure.colorbar(ScalarMappable(cmap=ListedColormap(ramp)), ax=ax, label="heat")
    bar.set_ticks([0, 0.5, 1], labels=["0", "½", "most"])
    return ax


def distribution(probabilities: np.ndarray, classes: Classes, ax: Ax = None) -> Axes:
    """Draw one label distribution ``[K]`` as bars, a row for each class."""
    return beside(probabilities, {}, classes, ax)


def beside(truth: np.ndarray, predicted: Mapping[str, np.ndarray], classes: Classes, ax: Ax = None) -> Axes:
    """Draw a distribution ``[K]`` as bars, and on each bar the marks of predictions ``[K]`` by name."""
    import seaborn as sns

    ax, names = axes_for(ax, 4.0, 0.9 + 0.3 * len(classes)), list(classes)
    look = {"palette": [color(name) for name in names], "saturation": 1, "alpha": 0.55 if predicted else 1}
    sns.barplot(
        x=np.asarray(truth), y=names, hue=names, hue_order=names, legend=False, errorbar=None, ax=ax, **look
    )
    for (name, values), marker in zip(predicted.items(), "oDX^", strict=False):
        ax.plot(
            values, range(len(names)), marker, color=INK, markersize=7, markerfacecolor="white", label=name
        )
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
    ax.tick_params(axis="y", length=0)
    return ax


def beside_key(axes: Sequence[Axes], truth: str) -> None:
    """Put one legend under several axes of :func:`beside`; ``truth`` says what the bars are."""
    marks = [line for line in axes[0].get_lines() if not line.get_label().startswith("_")]
    bar = Patch(color=MUTED, alpha=0.55, label=truth)
    axes[0].figure.legend(handles=[bar, *marks], loc="outside lower center", ncols=1 + len(marks))


def distributions(
    images: np.ndarray, truth: np.ndarray, predicted: np.ndarray, classes: Classes, ax: Ax = None
) -> Axes:
    """Draw N faces, and below each its true distribution as bars with the predicted one, ``[N, K]`` each."""
    ax = axes_for(ax, 1.2 + 1.7 * len(images), 2.2 + 0.3 * len(classes))
    places = panels(ax, 2, len(images), height_ratios=[1.5, 0.3 * len(classes)])
    for i, (above, below) in enumerate(zip(places, places[len(images) :], strict=False)):
        face(images[i], ax=above)
        beside(truth[i], {"predicted": predicted[i]}, classes, below)
        below.set_yticks(range(len(classes)), classes if i == 0 else [""] * len(classes))
    beside_key(places[len(images) :], "true")
    return ax


def arrows(image: np.ndarray, down: np.ndarray, right: np.ndarray, ax: Ax = None) -> Axes:
    """Draw the gradient at each pixel of a small image ``[H, W]`` as an arrow towards the light."""
    ax = axes_for(ax, 3.2, 3.2)
    show(ax, np.asarray(image) / 255)
    longest = max(float(np.hypot(down, right).max()), 1.0)
    ax.quiver(
        right, down, angles="xy", scale_units="xy", scale=longest / 1.4, pivot="mid", color=ARROW, width=0.008
    )
    return ax


def directions(histogram: np.ndarray, ax: Ax = None) -> Axes:
    """Draw how much gradient a cell has in each direction, one bar a bin of the half circle."""
    ax, width = axes_for(ax, 4.2, 3.2), 180 / len(histogram)
    ax.bar(width * (np.arange(len(histogram)) + 0.5), histogram, 0.9 * width)
    ax.set(xlabel="direction of the gradient (degrees)", ylabel="mean length (grey levels)")
    ax.set(xticks=[0, 45, 90, 135, 180], xlim=(0, 180))
    ax.grid(axis="y")
    return ax


def simplex(
    predictions: np.ndarray,
    pushes: np.ndarray,
    target: np.ndarray,
    classes: Classes,
    ax: Ax = None,
    *,
    largest: float | None = None,
) -> Axes:
    """Draw where a loss pushes a prediction among three classes: the arrow's direction, its size by colour.

    A corner is certainty of one class, the middle a uniform guess, the star the target. The scale ends at
    ``largest``, or at the strongest push, and begins at a hundredth of it.

    Args:
        predictions: ``[M, 3]``, each row sums to 1: where the arrows start.
        pushes: ``[M, 3]``, how each prediction changes, each row sums to 0.
        target: ``[3]`` that sums to 1.
        classes: 3 names.
        ax: where to draw.
        largest: the size at the dark end of the scale, to compare figures.
    """
    ax, corners = axes_for(ax, 3.6, 2.9), np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
    ax.plot(*corners[[0, 1, 2, 0]].T, color=FAINT, lw=1.2, zorder=0)
    moves = pushes @ corners
    size = np.linalg.norm(moves, axis=1)
    largest = float(size.max()) if largest is None else largest
    look = {
        "angles": "xy",
        "scale_units": "xy",
        "scale": 14,
        "width": 0.014,
        "headwidth": 4,
        "cmap": "viridis_r",
    }
    unit = moves / np.maximum(size, 1e-12)[:, None]
    norm = LogNorm(largest / 100, largest, clip=True)
    drawn = ax.quiver(*(predictions @ corners).T, *unit.T, np.maximum(size, 1e-12), norm=norm, **look)
    ax.figure.colorbar(drawn, ax=ax, label="size of the push", shrink=0.8)
    ax.plot(*(target @ corners), marker="*", markersize=15, color=ARROW, markeredgecolor="white")
    for name, (x, y), side in zip(classes, corners, ("left", "right", "center"), strict=True):
        shift = (0.0, 0.04) if y else (-0.06 if x == 0 else 0.06, -0.05)
        place = {"ha": side, "va": "bottom" if y else "top", "color": color(name), "weight": "bold"}
        ax.text(x + shift[0], y + shift[1], name, **place)
    ax.set(aspect="equal", xlim=(-0.1, 1.1), ylim=(-0.16, 1.0))
    ax.axis("off")
    return ax


def show(ax: Axes, image: np.ndarray, interpolation: str = "nearest") -> None:
    """Show an image ``[H, W]`` or ``[H, W, 3]``, values from 0 to 1, on axes without ticks."""
    # grey in 24 levels: the eye does not miss the rest, and a notebook full of faces stays half as large
    shown = np.round(image * 23) / 23 if image.ndim == 2 else image
    ax.imshow(shown, vmin=0, vmax=1, interpolation=interpolation)
    bare(ax)


def _captioned(
    images: np.ndarray,
    upper: Sequence[tuple[str, str]],
    lower: Sequence[tuple[str, str]],
    columns: int,
    ax: Ax,
) -> Axes:
    """Draw faces with two lines above each, given as text and colour; the upper one is bold."""
    tiles, columns, space = _channels_last(images), min(columns, len(images)), 0.42
    rows, width = -(-len(tiles) // columns), tiles.shape[2]
    ax = axes_for(ax, 8.4, 8.4 * rows / columns * (1.06 + space))
    for (x, y), above, below in zip(_mosaic(ax, tiles, columns, space), upper, lower, strict=True):
        for lift, weight, (text, ink) in ((0.22, "bold", above), (0.05, "normal", below)):
            look = {"ha": "center", "va": "bottom", "fontsize": 9.5, "color": ink, "weight": weight}
            ax.text(x + width / 2, y - lift * width, text, **look)
    return ax


def _channels_last(images: np.ndarray) -> np.ndarray:
    images = np.asarray(images)
    return images.transpose(0, 2, 3, 1) if images.ndim == 4 else images


def _gap(width: int) -> int:
    return max(1, width // 16)


def _mosaic(
    ax: Axes, tiles: np.ndarray, places: int | Sequence[tuple[int, int]], top: float = 0.0
) -> list[tuple[float, float]]:
    """Put tiles on one white canvas at (row, column) places, or in so many columns; return their corners.

    One image instead of one axes a face: aligned to the pixel, and fifty times faster to draw.
    """
    if isinstance(places, int):
        places = [divmod(i, places) for i in range(len(tiles))]
    height, width = tiles.shape[1:3]
    step_y, step_x = height + _gap(width) + round(top * height), width + _gap(width)
    rows, columns = np.max(places, axis=0) + 1
    canvas = np.ones((rows * step_y - _gap(width), columns * step_x - _gap(width), *tiles.shape[3:]))
    corners = [(column * step_x, row * step_y + round(top * height)) for row, column in places]
    for tile, (x, y) in zip(tiles, corners, strict=True):
        canvas[y : y + height, x : x + width] = tile / 255
    show(ax, canvas, "nearest" if width <= 64 else "auto")
    return corners


def _titles(ax: Axes, titles: Classes, corners: Sequence[tuple[float, float]], width: int) -> None:
    named = list(zip(titles, corners, strict=False))
    for title, (x, y) in named:
        ax.text(x + width / 2, y - 0.05 * width, title, ha="center", va="bottom", fontsize=10.5)
    known = [(title, x, y) for title, (x, y) in named if title in emotions.COLORS]
    strokes = [[(x, y - 1), (x + width - 1, y - 1)] for _, x, y in known]
    inks = [color(title) for title, *_ in known]
    ax.add_collection(LineCollection(strokes, colors=inks, lw=3, capstyle="butt"), autolim=False)
