"""What HOG sees: the gradient at each pixel, and how a cell sums it up."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from helpers.plotting.look import axes_for
from helpers.plotting.pictures import show


def arrows(image: np.ndarray, down: np.ndarray, right: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw the gradient at each pixel of a small image as an arrow towards the light.

    Args:
        image: ``[H, W]``, values from 0 to 255.
        down: ``[H, W]``, how much brighter it gets towards the next row.
        right: ``[H, W]``, how much brighter it gets towards the next column.
        ax: where to draw.
    """
    ax = axes_for(ax, 3.2, 3.2)
    show(ax, np.asarray(image) / 255)
    longest = max(float(np.hypot(down, right).max()), 1.0)
    ax.quiver(right, down, angles="xy", scale_units="xy", scale=longest / 1.4, pivot="mid", color="#e8632c")
    return ax


def directions(histogram: np.ndarray, ax: Axes | None = None) -> Axes:
    """Draw how much gradient a cell has in each direction, one bar a bin of the half circle.

    Args:
        histogram: ``[orientations]``, gradient length in each bin (grey levels).
        ax: where to draw.
    """
    ax = axes_for(ax, 4.2, 3.2)
    width = 180 / len(histogram)
    ax.bar(width * (np.arange(len(histogram)) + 0.5), histogram, 0.9 * width)
    ax.set(xlabel="direction of the gradient (degrees)", ylabel="mean length (grey levels)")
    ax.set(xticks=[0, 45, 90, 135, 180], xlim=(0, 180))
    ax.grid(axis="y")
    return ax
