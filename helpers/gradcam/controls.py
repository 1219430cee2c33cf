"""What knows nothing: maps drawn by chance, networks that have forgotten, and how alike two maps are."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from helpers.gradcam import network


def random_maps(num_maps: int, grid: Sequence[int], seed: int = 0) -> Tensor:
    """Return maps that know nothing: as coarse as a layer's, each cell drawn by chance.

    :func:`enlarged` makes them as smooth as Grad-CAM's.

    Args:
        num_maps: N.
        grid: height and width of the layer's maps.
        seed: which noise.

    Returns:
        float32 ``[N, *grid]`` in [0, 1).
    """
    return torch.rand(num_maps, *grid, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module, layers: Sequence[str], seed: int = 0) -> nn.Module:
    """Return a copy of a network in which some layers have forgotten all they learned.

    Where PyTorch knows how a layer starts, its weights are drawn anew like that, and batch norm forgets its
    running mean; weights of any other kind are shuffled.

    Args:
        model: the network; it stays as it is.
        layers: names of layers; what lies in them is randomised too. "" is the whole network.
        seed: which draw.

    Raises:
        ValueError: a layer that is not there.
    """
    twin = copy.deepcopy(model)
    parts = dict.fromkeys(part for name in layers for part in network.layer_of(twin, name).modules())
    devices = {weights.device for weights in twin.parameters() if weights.device.type == "cuda"}
    with torch.random.fork_rng(devices), torch.no_grad():
        torch.manual_seed(seed)
        for part in parts:
            _forget(part)
    return twin


def _forget(part: nn.Module) -> None:
    if hasattr(part, "reset_parameters"):
        part.reset_parameters()
        return
    for weights in part.parameters(recurse=False):
        order = torch.randperm(weights.numel(), device=weights.device)
        weights.copy_(weights.flatten()[order].view_as(weights))


def cascade(
    model: nn.Module, layers: Sequence[str] | None = None, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Yield ever more forgetful copies of a network, from the output down (Adebayo et al. 2018).

    A map that explains what was learned must change on the way; one that does not shows the picture, not the
    network (arXiv 1810.03292).

    Args:
        model: the network; it stays as it is.
        layers: names of layers from the output down; None: each that holds weights of its own, in the reverse
            of the order in which the network lists them.
        seed: which draw.

    Yields:
        the name of the layer that was reached, and a copy in which it and all before it are randomised.

    Raises:
        ValueError: a layer that is not there.
    """
    own = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))]
    chosen = own[::-1] if layers is None else layers
    for reached in itertools.accumulate([name] for name in chosen):
        yield reached[-1], randomised(model, reached, seed)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation of each pair of maps: 1 the same order of places, 0 no relation.

    Args:
        a: ``[N, H, W]``.
        b: the same shape.

    Returns:
        float64 ``[N]``; NaN where a map is the same everywhere, since that puts its places in no order.

    Raises:
        ValueError: shapes that differ.
    """
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"maps must come in pairs of one shape, not {list(a.shape)} and {list(b.shape)}")
    first, second = (torch.as_tensor(rankdata(maps.flatten(1).cpu(), axis=1)) for maps in (a, b))
    first, second = (ranks - ranks.mean(1, keepdim=True) for ranks in (first, second))
    return (first * second).sum(1) / (first.square().sum(1) * second.square().sum(1)).sqrt()
