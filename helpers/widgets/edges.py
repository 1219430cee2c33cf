"""The panel of notebook 02: what a histogram of oriented gradients keeps of a face, and what it is worth."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from helpers import hog, metrics, plotting
from helpers.datasets import FaceSet
from helpers.metrics import Interval
from helpers.widgets.panel import Latest, Panel, figure, log_slider, one_line, slider

MOST = 500
"""Training faces that the score is fitted to, so that it comes while one is still curious."""


def draw_edges(image: np.ndarray, orientations: int = 9, cell: int = 8, block: int = 2) -> Figure:
    """Draw a face, its gradients by cell, and the same after each block has been divided by its length.

    Args:
        image: uint8 ``[H, W]``.
        orientations: bins that share 180 degrees.
        cell: side of a cell in pixels.
        block: side of a block in cells.

    Raises:
        ValueError: a block is larger than the face.
    """
    sizes = {"orientations": orientations, "pixels_per_cell": (cell, cell)}
    features = hog.hog(image[None], **sizes, cells_per_block=(block, block))[0]
    cells = hog.cells(image[None], **sizes)[0]
    divided = _by_block(features, cells.shape, block)
    glyph = max(1, round(240 / (cells.shape[0] * cell)) * cell)
    drawn = figure(7.8, 2.75)
    stars = [_bright(hog.picture(each, (glyph, glyph))) for each in (cells, divided)]
    titles = ("the face", f"{cells.shape[0]} x {cells.shape[1]} cells", f"{features.size:,} features")
    for place, (shown, title) in enumerate(zip([image, *stars], titles, strict=True)):
        ax = drawn.add_axes((0.005 + place / 3, 0.01, 0.323, 0.88))
        plotting.face(shown, title, ax=ax)
    return drawn


def _bright(stars: np.ndarray) -> np.ndarray:
    """Return a picture from 0 to 255; the root lets weak strokes be seen beside strong ones."""
    return 255 * np.sqrt(stars / max(float(stars.max()), 1e-9))


def _by_block(features: np.ndarray, shape: tuple[int, ...], block: int) -> np.ndarray:
    """Return for each cell the mean of what the blocks around it make of it, ``[rows, columns, bins]``."""
    rows, columns, bins = shape
    blocks = features.reshape(rows - block + 1, columns - block + 1, block, block, bins)
    total, times = np.zeros(shape), np.zeros((rows, columns, 1))
    for y in range(block):
        for x in range(block):
            part = slice(y, y + rows - block + 1), slice(x, x + columns - block + 1)
            total[part] += blocks[:, :, y, x]
            times[part] += 1
    return total / times


def score_edges(
    train: FaceSet,
    validation: FaceSet,
    orientations: int = 9,
    cell: int = 8,
    block: int = 2,
    cost: float = 3.0,
    width: float = 1.0,
    seed: int = 0,
) -> Interval:
    """Return the validation accuracy of HOG + SVM with these settings, fitted to at most ``MOST`` faces.

    Args:
        train: the faces to fit to.
        validation: the faces to score on.
        orientations: as for :func:`draw_edges`.
        cell: as for :func:`draw_edges`.
        block: as for :func:`draw_edges`.
        cost: C of the machine.
        width: gamma, in units of 1 / (features x their variance).
        seed: which faces, where there are more.
    """
    some = [part.select(np.sort(_rows(len(part), seed))) for part in (train, validation)]
    settings = {"orientations": orientations, "pixels_per_cell": (cell, cell)}
    settings |= {"cells_per_block": (block, block)}
    features, unseen = (hog.hog(part.images, **settings) for part in some)
    gamma = width * hog.gamma_scale(features)
    machine = hog.SVM.fit(features, some[0].labels, train.classes, C=cost, gamma=gamma, settings=settings)
    right = machine.predict(unseen) == some[1].labels
    return metrics.bootstrap(np.mean, right, resamples=300, seed=seed)


def _rows(num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(num)[:MOST]


def hog_explorer(train: FaceSet, validation: FaceSet) -> Panel:
    """Return the panel whose picture follows the sliders at once, and the validation score a moment later.

    Args:
        train: the faces to show, and to fit to.
        validation: the faces to score on.
    """
    controls = {
        "face": slider("face", 0, 0, len(train) - 1, 1),
        "orientations": slider("orientations", 9, 2, 18, 1),
        "cell": slider("cell (pixels)", 8, 4, 16, 1),
        "block": slider("block (cells)", 2, 1, 4, 1),
        "cost": log_slider("C", 3.0, -2, 3),
        "width": log_slider("gamma (units)", 1.0, -2, 1.5),
    }

    def draw(face: int, orientations: int, cell: int, block: int, cost: float, width: float) -> Figure:
        return draw_edges(train.images[face], orientations, cell, block)

    panel = Panel(draw, controls)

    def score(values: dict) -> None:
        settings = {name: value for name, value in values.items() if name != "face"}
        try:
            found = score_edges(train, validation, **settings)
            panel.say(f"fitted to {min(len(train), MOST):,} faces: accuracy on validation {found}")
        except ValueError as error:
            panel.say(one_line(error), wrong=True)

    scores = Latest(score)
    for name, control in controls.items():
        if name != "face":
            control.observe(lambda _: scores.ask(panel.values()), names="value")
    scores.ask(panel.values())
    return panel
