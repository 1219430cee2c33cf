"""Faces: in grids, in rows, with landmarks, predictions, heat; what is said of one; where gradients point.

``images`` are ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255. A title that names an expression gets
its colour. ``tile`` is the side of a face in inches, 80 pixels each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch

from helpers import emotions
from helpers.plotting.style import ARROW, INK, MUTED, Array, Ax, Classes, axes_for, color, seaborn

TILE = 0.95

# the 68 iBUG points as lines: jaw, brows, bridge, nostrils, and closed around eyes, outer and inner lips
OUTLINES = [range(17), range(17, 22), range(22, 27), range(27, 31), range(31, 36)]
OUTLINES += [(*range(first, end), first) for first, end in ((36, 42), (42, 48), (48, 60), (60, 68))]


def face(image: Array, title: str = "", ax: Ax = None) -> Axes:
    """Draw one face ``[H, W]`` or ``[3, H, W]``, without axes."""
    ax = axes_for(ax, 2.4, 2.6)
    _show(ax, _channels_last(image[None])[0] / 255)
    ax.set_title(title, loc="center", fontsize=11)
    return ax


def face_grid(
    images: Array, titles: Classes = (), columns: int = 7, ax: Ax = None, *, tile: float = TILE
) -> Axes:
    """Draw faces side by side, row after row, each with its title above it."""
    tiles, columns = _channels_last(images), min(columns, len(images))
    rows = -(-len(tiles) // columns)
    ax = axes_for(ax, tile * columns, tile * rows * (1.22 if len(titles) else 1.04))
    corners = _mosaic(ax, tiles, columns, 0.24 if len(titles) else 0.0)
    _titles(ax, titles, corners, tiles.shape[2])
    return ax


def face_rows(
    images: Mapping[str, Array], titles: Classes = (), ax: Ax = None, *, tile: float = TILE
) -> Axes:
    """Draw one row of faces for each name, however long, with a title above each column."""
    groups = [_channels_last(group) for group in images.values()]
    ax = axes_for(ax, 1.1 + tile * max(map(len, groups)), tile * (len(groups) + 0.25 * bool(len(titles))))
    places = [(row, column) for row, group in enumerate(groups) for column in range(len(group))]
    tiles = np.concatenate([group for group in groups if len(group)])
    _mosaic(ax, tiles, places)
    height, width = tiles.shape[1:3]
    gap = _gap(width)
    for row, name in enumerate(images):
        top = row * (height + gap)
        ax.plot([-gap - 1] * 2, [top, top + height], color=color(name), lw=5, solid_capstyle="butt")
        ax.text(-gap - 0.12 * width, top + height / 2, name, ha="right", va="center")
    _titles(ax, titles, [(column * (width + gap), 0) for column in range(len(titles))], width)
    return ax


def pictures(images: Array, titles: Classes = (), columns: int = 7) -> Axes:
    """Draw images of thin lines ``[N, H, W]`` side by side, each of their pixels one of the screen.

    It has no ``ax``: in axes of another size the lines would be resampled, and break or blur.
    """
    figure = plt.figure(layout="none")
    ax = figure.add_axes((0, 0, 1, 1))
    corners = _mosaic(ax, np.asarray(images), min(columns, len(images)), 0.22 if len(titles) else 0.0)
    height, width = ax.images[0].get_array().shape[:2]
    figure.set_size_inches(width / figure.dpi, height / figure.dpi)
    _titles(ax, titles, corners, np.shape(images)[2])
    return ax


def mistakes(
    images: Array, labels: Classes, predictions: Classes, confidence: Array, columns: int = 6, ax: Ax = None
) -> Axes:
    """Draw faces with the predicted name and its confidence, from 0 to 1, above, and the label below it."""
    upper, lower = [], []
    for label, name, share in zip(labels, predictions, confidence, strict=True):
        upper.append((f"{name} {share:.0%}", color(name)))
        lower.append(("right", MUTED) if label == name else (f"not {label}", color(label)))
    return _captioned(images, upper, lower, columns, ax)


def misplaced(images: Array, truth: Array, predicted: Array, columns: int = 6, ax: Ax = None) -> Axes:
    """Draw faces with predicted (valence, arousal) ``[N, 2]`` above each, and the annotation below it."""

    def signed(pair: Array) -> str:  # + 0.0 turns -0.0 into 0.0
        return "  ".join(f"{round(float(value), 1) + 0.0:+.1f}" for value in pair).replace("-", "−")

    upper = [(signed(pair), INK) for pair in predicted]
    return _captioned(images, upper, [(f"not {signed(pair)}", MUTED) for pair in truth], columns, ax)


def _captioned(images: Array, upper: Sequence[tuple], lower: Sequence[tuple], columns: int, ax: Ax) -> Axes:
    """Draw faces with two lines above each, given as (text, colour); the upper one is bold."""
    tiles, columns, space = _channels_last(images), min(columns, len(images)), 0.42
    rows, width = -(-len(tiles) // columns), tiles.shape[2]
    ax = axes_for(ax, 8.4, 8.4 * rows / columns * (1.06 + space))
    for (x, y), above, below in zip(_mosaic(ax, tiles, columns, space), upper, lower, strict=True):
        for lift, weight, (text, ink) in ((0.22, "bold", above), (0.05, "normal", below)):
            look = {"ha": "center", "va": "bottom", "fontsize": 9.5, "color": ink, "weight": weight}
            ax.text(x + width / 2, y - lift * width, text, **look)
    return ax


def landmarks(image: Array, points: Array, ax: Ax = None) -> Axes:
    """Draw the 68 iBUG points ``[68, 2]``, (x, y) in pixels, NaN where unknown, over a face."""
    ax = face(image, ax=axes_for(ax, 3.0, 3.0))
    frame = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
    for outline in OUTLINES:
        ax.plot(*points[list(outline)].T, color="#2fd0c8", lw=1.2, marker="o", markersize=2.4)
    ax.set(**frame)  # points may lie outside the image; the image stays as it is
    return ax


def heated(images: Array, maps: Array) -> Array:
    """Return faces with heat over them, uint8 ``[N, 3, H, W]``: bare at 0, then red, yellow at the maximum.

    They go wherever faces go. Of ``maps``, ``[N, H, W]``, what is negative counts as 0.
    """
    heat = np.clip(np.asarray(maps, dtype=np.float64), 0, None)
    heat = (heat / np.maximum(heat.max(axis=(1, 2), keepdims=True), 1e-30))[:, None]
    images = np.asarray(images, dtype=np.float64)
    rgb = images if images.ndim == 4 else np.repeat(images[:, None], 3, axis=1)
    red, yellow = (np.reshape(each, (3, 1, 1)) for each in ((225.0, 30, 30), (255.0, 225, 60)))
    glow = red + (yellow - red) * heat**2
    return np.round((1 - 0.7 * heat) * rgb + 0.7 * heat * glow).astype(np.uint8)


def distribution(probabilities: Array, classes: Classes, ax: Ax = None) -> Axes:
    """Draw one label distribution ``[K]`` as bars, a row for each class."""
    return beside(probabilities, {}, classes, ax)


def beside(truth: Array, predicted: Mapping[str, Array], classes: Classes, ax: Ax = None) -> Axes:
    """Draw a distribution ``[K]`` as bars, and on each bar the marks of predictions ``[K]`` by name."""
    ax, names = axes_for(ax, 4.0, 0.9 + 0.3 * len(classes)), list(classes)
    look = {"palette": [color(name) for name in names], "saturation": 1, "alpha": 0.55 if predicted else 1}
    bars = {"hue": names, "hue_order": names, "legend": False, "errorbar": None}
    seaborn().barplot(x=np.asarray(truth), y=names, ax=ax, **bars, **look)
    look = {"color": INK, "markersize": 7, "markerfacecolor": "white"}
    for (name, values), marker in zip(predicted.items(), "oDX^", strict=False):
        ax.plot(values, range(len(names)), marker, label=name, **look)
    ax.set(xlim=(0, 1), xticks=[0, 0.5, 1], xticklabels=["0", "½", "1"])
    ax.tick_params(axis="y", length=0)
    return ax


def beside_key(axes: Sequence[Axes], truth: str) -> None:
    """Put one legend under several axes of :func:`beside`; ``truth`` says what the bars are."""
    marks = [line for line in axes[0].get_lines() if not line.get_label().startswith("_")]
    bar = Patch(color=MUTED, alpha=0.55, label=truth)
    axes[0].figure.legend(handles=[bar, *marks], loc="outside lower center", ncols=1 + len(marks))


def arrows(image: Array, down: Array, right: Array, ax: Ax = None) -> Axes:
    """Draw the gradient at each pixel of a small image ``[H, W]`` as an arrow towards the light."""
    ax = axes_for(ax, 3.2, 3.2)
    _show(ax, np.asarray(image) / 255)
    look = {"angles": "xy", "scale_units": "xy", "pivot": "mid", "color": ARROW, "width": 0.008}
    ax.quiver(right, down, scale=max(float(np.hypot(down, right).max()), 1.0) / 1.4, **look)
    return ax


def directions(histogram: Array, ax: Ax = None) -> Axes:
    """Draw how much gradient a cell has in each direction, one bar a bin of the half circle."""
    ax, width = axes_for(ax, 4.2, 3.2), 180 / len(histogram)
    ax.bar(width * (np.arange(len(histogram)) + 0.5), histogram, 0.9 * width)
    ax.set(xlabel="direction of the gradient (degrees)", ylabel="mean length (grey levels)")
    ax.set(xticks=[0, 45, 90, 135, 180], xlim=(0, 180))
    ax.grid(axis="y")
    return ax


def _channels_last(images: Array) -> Array:
    images = np.asarray(images)
    return images.transpose(0, 2, 3, 1) if images.ndim == 4 else images


def _gap(width: int) -> int:
    return max(1, width // 16)


def _show(ax: Axes, image: Array, interpolation: str = "nearest") -> None:
    """Show an image ``[H, W]`` or ``[H, W, 3]``, values from 0 to 1, on axes without ticks."""
    # grey in 24 levels: the eye does not miss the rest, and a notebook full of faces stays half as large
    shown = np.round(image * 23) / 23 if image.ndim == 2 else image
    ax.imshow(shown, vmin=0, vmax=1, interpolation=interpolation)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _mosaic(
    ax: Axes, tiles: Array, places: int | Sequence[tuple[int, int]], top: float = 0.0
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
    _show(ax, canvas, "nearest" if width <= 64 else "auto")
    return corners


def _titles(ax: Axes, titles: Classes, corners: Sequence[tuple[float, float]], width: int) -> None:
    strokes, inks = [], []
    for title, (x, y) in zip(titles, corners, strict=False):
        ax.text(x + width / 2, y - 0.05 * width, title, ha="center", va="bottom", fontsize=10.5)
        strokes.append([(x, y - 1), (x + width - 1, y - 1)])
        inks.append(emotions.COLORS.get(title, "none"))
    ax.add_collection(LineCollection(strokes, colors=inks, lw=3, capstyle="butt"), autolim=False)
