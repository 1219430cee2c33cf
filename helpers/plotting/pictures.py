"""Faces and other pictures: in grids, in rows, with landmarks, with what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from helpers import emotions
from helpers.plotting.look import INK, MUTED, TILE, axes_for, bare, color

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


def face(image: np.ndarray, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw one face, without axes.

    Args:
        image: ``[H, W]`` or ``[3, H, W]``, values from 0 to 255.
        title: a few words above it.
        ax: where to draw.
    """
    ax = axes_for(ax, 2.4, 2.6)
    show(ax, _pixels(image[None])[0] / 255)
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
    ax = axes_for(ax, TILE * columns, TILE * rows * (1.22 if len(titles) else 1.04))
    top = 0.24 if len(titles) else 0.0
    corners = _tile(ax, tiles, [(i // columns, i % columns) for i in range(len(tiles))], top)
    _titles(ax, titles, corners, tiles.shape[2])
    return ax


def face_rows(images: Mapping[str, np.ndarray], titles: Sequence[str] = (), ax: Axes | None = None) -> Axes:
    """Draw one row of faces for each name, the name at its left; rows may differ in length.

    Args:
        images: name of a row to its faces, ``[n, H, W]`` or ``[n, 3, H, W]``, values from 0 to 255.
        titles: a short text above each column, or none; the name of an expression also gets its colour.
        ax: where to draw.
    """
    longest = max(map(len, images.values()))
    ax = axes_for(ax, 1.1 + TILE * longest, TILE * (len(images) + 0.25 * bool(len(titles))))
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
    _titles(ax, titles, [(column * (width + _gap(width)), 0) for column in range(len(titles))], width)
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
    _titles(ax, titles, corners, width)
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
    said = [(f"{p} {c:.0%}", color(p)) for p, c in zip(predictions, confidence, strict=True)]
    return _captioned(images, said, [(f"not {name}", color(name)) for name in labels], columns, ax)


def guesses(
    images: np.ndarray,
    labels: Sequence[str],
    predictions: Sequence[str],
    columns: int = 4,
    ax: Axes | None = None,
) -> Axes:
    """Draw faces with what they were taken for above each, and below it the label where that is another.

    Args:
        images: ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255.
        labels: N names, what each face is labelled.
        predictions: N names, what it was taken for.
        columns: how many faces go into a row.
        ax: where to draw.
    """
    pairs = list(zip(labels, predictions, strict=True))
    lower = [("right", MUTED) if meant == said else (f"not {meant}", color(meant)) for meant, said in pairs]
    return _captioned(images, [(said, color(said)) for said in predictions], lower, columns, ax)


def misplaced(
    images: np.ndarray, truth: np.ndarray, predicted: np.ndarray, columns: int = 6, ax: Axes | None = None
) -> Axes:
    """Draw faces put elsewhere on the circumplex: above each the prediction, below it the annotation.

    Args:
        images: ``[N, H, W]`` or ``[N, 3, H, W]``, values from 0 to 255.
        truth: ``[N, 2]``, (valence, arousal) as annotated.
        predicted: ``[N, 2]``.
        columns: how many faces go into a row.
        ax: where to draw.
    """
    said, meant = ([_signed(*pair) for pair in pairs] for pairs in (predicted, truth))
    return _captioned(
        images, [(text, INK) for text in said], [(f"not {text}", MUTED) for text in meant], columns, ax
    )


def _signed(*values: float) -> str:
    rounded = (round(float(value), 1) + 0.0 for value in values)  # + 0.0 turns -0.0 into 0.0
    return "  ".join(f"{value:+.1f}" for value in rounded).replace("-", "−")


def _captioned(
    images: np.ndarray,
    upper: Sequence[tuple[str, str]],
    lower: Sequence[tuple[str, str]],
    columns: int,
    ax: Axes | None,
) -> Axes:
    """Draw faces with two lines above each, given as text and colour; the upper one is bold."""
    tiles = _pixels(images)
    columns, space = min(columns, len(tiles)), 0.42
    rows = -(-len(tiles) // columns)
    ax = axes_for(ax, 8.4, 8.4 * rows / columns * (1.06 + space))
    corners = _tile(ax, tiles, [(i // columns, i % columns) for i in range(len(tiles))], space)
    width = tiles.shape[2]
    for (x, y), above, below in zip(corners, upper, lower, strict=True):
        _line(ax, x, y - 0.22 * width, width, *above, weight="bold")
        _line(ax, x, y - 0.05 * width, width, *below)
    return ax


def landmarks(image: np.ndarray, points: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw the 68 iBUG points over a face, joined into its features.

    Args:
        image: ``[H, W]`` or ``[3, H, W]``, values from 0 to 255.
        points: ``[68, 2]``, (x, y) in pixels; NaN where a point is unknown.
        ax: where to draw.
    """
    ax = face(image, ax=axes_for(ax, 3.0, 3.0))
    frame = {"xlim": ax.get_xlim(), "ylim": ax.get_ylim()}
    for part in LANDMARK_PARTS.values():
        ax.plot(*points[list(part)].T, color="#2fd0c8", lw=1.2, marker="o", markersize=2.4)
    ax.set(**frame)  # points may lie outside the picture; the picture stays as it is
    return ax


def _pixels(images: np.ndarray) -> np.ndarray:
    """Bring ``[N, H, W]`` or ``[N, 3, H, W]`` to channels-last, the form matplotlib wants."""
    images = np.asarray(images)
    return images.transpose(0, 2, 3, 1) if images.ndim == 4 else images


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
    show(ax, canvas, "nearest" if width <= 64 else "auto")
    return corners


def show(ax: Axes, image: np.ndarray, interpolation: str = "nearest") -> None:
    """Show an image on axes without ticks, in few enough levels of light that its PNG stays small.

    Args:
        ax: where to draw.
        image: ``[H, W]`` or ``[H, W, 3]``, values from 0 to 1.
        interpolation: as in ``Axes.imshow``.
    """
    # 24 levels of light: the eye does not miss the rest, and a notebook full of faces stays half as large
    ax.imshow(np.round(image * 23) / 23, vmin=0, vmax=1, interpolation=interpolation)
    bare(ax)


def _titles(ax: Axes, titles: Sequence[str], corners: Sequence[tuple[float, float]], width: int) -> None:
    named = list(zip(titles, corners, strict=False))
    for title, (x, y) in named:
        ax.text(x + width / 2, y - 0.05 * width, title, ha="center", va="bottom", fontsize=10.5)
    known = [(title, x, y) for title, (x, y) in named if title in emotions.COLORS]
    strokes = [[(x, y - 1), (x + width - 1, y - 1)] for _, x, y in known]
    colors = [color(title) for title, *_ in known]
    ax.add_collection(LineCollection(strokes, colors=colors, lw=3, capstyle="butt"), autolim=False)


def _line(ax: Axes, x: float, y: float, width: int, text: str, ink: str, **look: str) -> None:
    ax.text(x + width / 2, y, text, ha="center", va="bottom", fontsize=9.5, color=ink, **look)
