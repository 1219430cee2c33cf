"""Maps against their own network: does its answer go when what they mark is taken away?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from helpers.gradcam import network
from helpers.gradcam.pointing import without_nan
from helpers.gradcam.score import Score, Targets, of


class Curves(NamedTuple):
    """What a network still believes while pictures are taken away, or put together, hottest places first.

    Args:
        shares: float32 ``[S + 1]`` from 0 to 1, how much of a picture was deleted or inserted.
        scores: float32 ``[N, S + 1]``, the probability of the class.
        area: float32 ``[N]``, under each curve.
    """

    shares: Tensor
    scores: Tensor
    area: Tensor


def deletion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Targets = None,
    *,
    blank: float | Tensor = 0.0,
    steps: int = 16,
    head: str | None = None,
    seed: int = 0,
) -> Curves:
    """Return how a class loses its probability while the hottest places of each picture are deleted.

    The better the map, the steeper the fall and the smaller the area (Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
        model: as for :func:`grad_cam`.
        images: normalised float ``[N, C, H, W]``.
        maps: ``[N, H, W]``; places that are equally hot go in a random order.
        targets: as for :func:`grad_cam`; None: the class that is likeliest on the whole picture. The value of
            a function is taken as it is, not as a logit.
        blank: what a deleted place shows: a number (0 is mean grey), or pictures, for instance blurred ones.
        steps: S, into how many equal parts a picture is cut.
        head: which head, for a network with several.
        seed: of the order of equally hot places.

    Raises:
        ValueError: as :func:`grad_cam`, or maps that do not fit the pictures.
    """
    score = _settled(model, images, of(images, targets, head))
    order, blank = _order(images, maps, seed), torch.as_tensor(blank).to(images)
    shares, scores = torch.linspace(0, 1, steps + 1), []
    for share in shares.tolist():
        gone = (order < round(share * order[0].numel()))[:, None]
        scores.append(_in_batches(model, torch.where(gone, blank, images), score.probability))
    scores = torch.stack(scores, 1)
    return Curves(shares, scores, torch.trapezoid(scores, shares, dim=1))


def insertion(
    model: nn.Module,
    images: Tensor,
    maps: Tensor,
    targets: Targets = None,
    *,
    blank: float | Tensor = 0.0,
    head: str | None = None,
    **options: int,
) -> Curves:
    """Return how a class gains probability while the hottest places of each picture are put on a blank one.

    It is deletion with the two pictures exchanged. The better the map, the steeper the rise and the larger
    the area (Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
        model: as for :func:`deletion`, like all that follows.
        images: normalised float ``[N, C, H, W]``.
        maps: ``[N, H, W]``.
        targets: None: the class that is likeliest on the whole picture, not on the blank one.
        blank: what a place shows before it is put in.
        head: which head, for a network with several.
        options: ``steps`` and ``seed``.

    Raises:
        ValueError: as :func:`deletion`.
    """
    settled = _settled(model, images, of(images, targets, head)).targets
    start = torch.as_tensor(blank).to(images).expand_as(images)
    return deletion(model, start, maps, settled, blank=images, head=head, **options)


def _settled(model: nn.Module, images: Tensor, score: Score) -> Score:
    """Return the score with the class that is likeliest on the whole picture, where none was named."""
    if score.targets is not None:
        return score
    return Score(_in_batches(model, images, lambda outputs, _: score.logits(outputs).argmax(1)), score.head)


def _in_batches(model: nn.Module, images: Tensor, answer: Callable[[Any, Tensor], Tensor]) -> Tensor:
    rows = torch.arange(len(images)).split(256)
    with network.plainly(model), torch.no_grad():
        return torch.cat([answer(network.run(model, images[some]), some).cpu() for some in rows])


def _order(images: Tensor, maps: Tensor, seed: int) -> Tensor:
    """Return the place of each pixel in the order of heat, int64 ``[N, H, W]``, 0 the hottest."""
    if maps.shape != (len(images), *images.shape[-2:]):
        raise ValueError(
            f"maps {list(maps.shape)} do not fit images {list(images.shape)}; enlarge them first"
        )
    heat = without_nan(maps).flatten(1).cpu()
    # shuffled before a stable sort: large parts of a map are 0, and must not go row by row
    shuffled = torch.rand(heat.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    order = shuffled.gather(1, heat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1).view_as(maps).to(images.device)
