"""The style that all figures share: colours, markers, sizes, and how a figure becomes a small PNG."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Protocol

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from helpers import emotions

INK, MUTED, FAINT = "#222222", "#666666", "#d9d9d9"
"""Text and axes; secondary text; grid lines and frames."""

ACCENT = "#0b6e8a"
"""Whatever is not an expression: a curve, a score, a count."""

TILE = 0.95
"""Side of a face in a figure, in inches: the same from figure to figure."""

HALO = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}

MARKERS = dict(zip(emotions.COLORS, cycle("s^vo<DPXhpd*"), strict=False))
"""One marker an expression: colours are never the only difference, for readers who do not tell them apart."""


class Scored(Protocol):
    """What :func:`scores` draws: a value with the two ends of its interval (``metrics.Interval`` is one)."""

    value: float
    low: float
    high: float


LOOK = {
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
"""What :func:`style` sets, as Matplotlib calls it."""


def style(colors: int = 128) -> None:
    """Set the workbook's look: once per notebook, before the first figure.

    In a notebook, figures are also kept as PNG of few colours, a third of the usual size.

    Args:
        colors: how many, at most; 48 are enough for many faces under heat, and take a quarter less.
    """
    mpl.rcParams.update(LOOK)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        plt.switch_backend(mpl.get_backend())  # the notebook's backend sets its own PNG writer first
        shell.display_formatter.formatters["image/png"].for_type(Figure, partial(_png, colors=colors))


def _png(figure: Figure, colors: int = 128) -> bytes:
    """Return a figure as PNG of so many colours at most."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", bbox_inches="tight")
    palette = Image.open(full).convert("RGB").quantize(colors, kmeans=4, dither=Image.Dither.NONE)
    palette.save(small, format="png", optimize=True)
    return small.getvalue()


@contextmanager
def styled() -> Iterator[None]:
    """Give the workbook's look to what is drawn inside, and leave Matplotlib as it was."""
    with mpl.rc_context(LOOK):
        yield


def color(name: str) -> str:
    """Return the colour of an expression, or the accent colour for any other word.

    Args:
        name: a canonical expression name.
    """
    return emotions.COLORS.get(name, ACCENT)


def axes_for(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the axes that were given, or those of a new figure of that size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def bare(ax: Axes) -> None:
    """Take ticks and frame away: what is shown is a picture, not a chart."""
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
