"""The style that all figures share: colours, markers, sizes, and how a figure becomes a PNG."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from helpers import emotions

INK, MUTED, FAINT = "#222222", "#666666", "#d9d9d9"
"""Text and axes; secondary text; grid lines and frames."""
ACCENT, SECOND, ARROW = "#0b6e8a", "#b35c00", "#d1501e"
"""What is not an expression: a curve, a score, a count; what stands against it; arrows and frames."""
DASHES = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)), (0, (6, 2)), (0, (2, 2)))
MARKERS = dict(zip(emotions.COLORS, cycle("s^vo<DPXhpd*"), strict=False))
"""One marker an expression: colours are never the only difference."""

Array, Ax, Classes = np.ndarray, Axes | None, Sequence[str]

LOOK: dict[str, object] = dict.fromkeys(("xtick.color", "ytick.color", "axes.edgecolor"), MUTED)
LOOK |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK)
LOOK |= dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False)
LOOK |= {"font.size": 11.5, "axes.labelsize": 11.5, "axes.titlesize": 12.5, "legend.fontsize": 11.0}
LOOK |= {"axes.titlelocation": "left", "axes.titlepad": 8.0, "axes.axisbelow": True, "image.cmap": "gray"}
LOOK |= {"figure.dpi": 80, "savefig.dpi": 80, "figure.figsize": (8.0, 3.6), "figure.facecolor": "white"}
LOOK |= {"figure.constrained_layout.use": True, "lines.linewidth": 2.0}
LOOK |= {"grid.color": FAINT, "grid.linewidth": 0.8}
LOOK["axes.prop_cycle"] = mpl.cycler(color=[ACCENT, "#d55e00", "#7a1f52", "#e6b800", "#56b4e9"])


def style() -> None:
    """Set the workbook's look, and keep a notebook's figures packed: once, before the first figure."""
    mpl.rcParams.update(LOOK)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        plt.switch_backend(mpl.get_backend())  # the notebook's backend sets its own PNG writer first
        formatter = shell.display_formatter.formatters["image/png"]
        formatter.for_type(Figure, lambda figure: packed(_as_png(figure)))


def packed(png: bytes) -> bytes:
    """Return a PNG that is to the eye the same, at half the size."""
    image, buffer = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    if image.getcolors(6000):  # a chart, or grey faces: 256 colours, none far from a true one
        image = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    else:  # heat over faces, or photographs, have more: 32 levels of red, green and blue
        image = image.point([round(round(level * 31 / 255) * 255 / 31) for level in range(256)] * 3)
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def seaborn() -> Any:
    """Return seaborn: with scipy.stats it takes seconds to load, so only where something is drawn by it."""
    import seaborn

    return seaborn


@contextmanager
def styled() -> Iterator[None]:
    """Give the workbook's look to what is drawn inside, and leave Matplotlib as it was."""
    with mpl.rc_context(LOOK):
        yield


def png(draw: Callable[[Axes], object], size: tuple[float, float] = (6.4, 4.0), dpi: int = 110) -> bytes:
    """Return as PNG what ``draw`` draws, in the workbook's look, on a new figure of that size in inches."""
    with styled():
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        return _as_png(figure, dpi=dpi)


def _as_png(figure: Figure, **options: float) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", **options)
    return buffer.getvalue()


def color(name: str) -> str:
    """Return the colour of an expression, or the accent colour for any other word."""
    return emotions.COLORS.get(name, ACCENT)


def axes_for(ax: Ax, width: float, height: float) -> Axes:
    """Return the axes that were given, or those of a new figure of that size in inches."""
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax
