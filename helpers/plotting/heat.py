"""What Grad-CAM shows: heat over faces, and what becomes of an answer when the hot parts go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes

from helpers.plotting.look import Scored, axes_for


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
    ax = axes_for(ax, 4.6, 3.2)
    for (name, points), dash in zip(curves.items(), cycle(("-", "--", ":", "-.")), strict=False):
        (line,) = ax.plot(shares, [point.value for point in points], dash, label=name)
        band = [point.low for point in points], [point.high for point in points]
        ax.fill_between(shares, *band, color=line.get_color(), alpha=0.15, linewidth=0)
    ax.set(xlabel=axes[0], ylabel=axes[1], xlim=(0, 1), ylim=(0, None))
    ax.grid()
    ax.legend()
    return ax
