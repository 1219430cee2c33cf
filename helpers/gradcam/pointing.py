"""Maps against the truth: does the heat lie where the evidence is known to be?"""

from __future__ import annotations

import torch
from torch import Tensor

from helpers.gradcam.score import form


def pointing_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether the highest place of each map lies inside its mask: the pointing game.

    From Zhang et al. 2016 (arXiv 1608.00507), without their margin of 15 pixels. Give maps as the layer makes
    them (``upsample=False``), each then points at the middle of its highest cell: enlarging lowers every
    peak but those at the border, which would win too often. A map that is the same everywhere points
    nowhere, and misses.

    Args:
        maps: ``[N, h, w]``.
        masks: bool ``[N, H, W]``, where the truth lies; as large as the maps or larger.

    Returns:
        bool ``[N]``.

    Raises:
        ValueError: shapes that do not fit, masks that are not bool, or maps that hold NaN.
    """
    flat = _paired(maps, masks).flatten(1)
    top, place = flat.max(1)
    row = _middle(place // maps.shape[2], maps.shape[1], masks.shape[1])
    column = _middle(place % maps.shape[2], maps.shape[2], masks.shape[2])
    return masks[torch.arange(len(masks)), row, column] & (top > flat.amin(1))


def _middle(cells: Tensor, num_cells: int, num_pixels: int) -> Tensor:
    return (2 * cells + 1) * num_pixels // (2 * num_cells)


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Return what share of each map lies inside its mask (Wang et al. 2020, arXiv 1910.01279).

    What is negative does not count; a map without anything positive has 0 inside.

    Args:
        maps: ``[N, H, W]``.
        masks: bool ``[N, H, W]``, where the truth lies.

    Returns:
        float32 ``[N]`` in [0, 1].

    Raises:
        ValueError: as :func:`pointing_hits`.
    """
    positive = _paired(maps, masks).clamp(min=0)
    if maps.shape != masks.shape:
        raise ValueError(f"maps {list(maps.shape)} do not fit masks {list(masks.shape)}; enlarge them first")
    inside, total = (positive * masks).sum((1, 2)), positive.sum((1, 2))
    return torch.where(total > 0, inside / total, 0.0)


def _paired(maps: Tensor, masks: Tensor) -> Tensor:
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks) or masks.dtype != torch.bool:
        found = f"{form(maps)} and {form(masks)}"
        raise ValueError(f"maps must be [N, h, w] and masks bool [N, H, W], not {found}")
    return without_nan(maps).float()


def without_nan(maps: Tensor) -> Tensor:
    """Return maps as they are, or raise ValueError where they hold NaN.

    Args:
        maps: ``[N, H, W]``.
    """
    broken = int(maps.isnan().flatten(1).any(1).sum())
    if broken:
        raise ValueError(f"{broken} of {len(maps)} maps hold NaN")
    return maps
