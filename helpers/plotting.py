"""Every figure of the workbook: data in, a matplotlib ``Axes`` out, one style.

Call :func:`style` once in a notebook. Each function takes numbers that are already computed and an optional
``ax`` to draw on; without one it makes a figure of a size that suits it. It returns the axes, so that a caller can
add to what is there, and leaves no other trace in pyplot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from helpers import emotions

INK, MUTED, FAINT = "#222222", "#666666", "#d9d9d9"
"""Text and axes; secondary text; grid lines and frames."""

ACCENT = "#0b6e8a"
"""Whatever is not an expression: a curve, a score, a count."""

MARKERS = dict(zip(emotions.COLORS, "s^vo<D.PXhpd*sv.", strict=True))
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
    """Set the workbook's look: once per notebook, before the first figure."""
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
