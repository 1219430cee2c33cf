"""Where a network looks: Grad-CAM, and the tests that a map has to pass before anybody believes it.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) takes the maps A_k that a layer puts out and asks how
much the score y of a class would grow with each of them:

    map = ReLU( sum over k of a_k A_k ),   a_k = mean over places of dy / dA_k

A map is float32 ``[N, H, W]``, one a picture, 0 or more unless it was asked for with its sign. Whether it
says anything about the network is for the rest of this module to find out: :func:`random_maps` and
:func:`cascade` make maps and networks that know nothing; :func:`pointing_hits`, :func:`energy_inside`,
:func:`deletion` and :func:`insertion` measure how far a map is better than those.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from helpers import did_you_mean

Targets = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None
"""Which score is explained: a class for all pictures, one for each, or the one the network finds likeliest.

The last is None. A function of what the network puts out, which returns one number a picture, is the most
general: ``lambda outputs: outputs["valence"][:, 0]``.
"""


# ---------------------------------------------------------------- the hook


@contextmanager
def watch(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer puts out, as tensors that a gradient can be asked for, while the context lasts.

    The tensors are cut off from what lies before the layer. So a gradient costs only the way back to it, and
    there is one even where every weight is frozen.

    Args:
        layer: any layer of a network.

    Yields:
        the list that fills, one tensor for each time the layer is run.

    Raises:
        ValueError: the layer puts out something else than one tensor of floating-point numbers.
    """
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise ValueError(f"the layer puts out {_kind(output)}, not a map; take one before or after it")
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # a layer that follows may change its input in place

    hook = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


def _kind(output: Any) -> str:
    return f"a tensor of {output.dtype}" if isinstance(output, Tensor) else f"a {type(output).__name__}"


def to_map(output: Tensor) -> Tensor:
    """Return a layer's output as maps: that of a convolution as it is, tokens put back in their places.

    A vision transformer puts out the class token, then the patches of a square grid row by row.

    Args:
        output: ``[B, D, h, w]``, or tokens ``[B, 1 + h w, D]``.

    Returns:
        ``[B, D, h, w]``.

    Raises:
        ValueError: neither a map nor the tokens of a square picture.
    """
    if output.ndim == 4:
        return output
    side = math.isqrt(max(output.shape[1] - 1, 0)) if output.ndim == 3 else 0
    if not side or side * side != output.shape[1] - 1:
        shape = list(output.shape)
        raise ValueError(
            f"the layer puts out {shape}, no map [B, D, h, w]: take an earlier one or give reshape"
        )
    return output[:, 1:].transpose(1, 2).unflatten(2, (side, side))


def last_map(model: nn.Module) -> str:
    """Return the name of the layer that Grad-CAM is usually asked about: the last one whose output is a map.

    In a transformer it is the norm that opens the last block: of what that block puts out only the class
    token is used, so that the patches get no gradient at all.

    Args:
        model: a network of ``models.create``.

    Raises:
        ValueError: another kind of network.
    """
    named = dict(model.named_modules())
    norms = [name for name in named if name.startswith("encoder.layers.") and name.endswith(".ln_1")]
    found = norms[-1:] or [name for name in ("blocks", "layer4", "features") if name in named]
    if not found:
        raise ValueError(f"which layer of a {type(model).__name__} to take is not known; name one")
    return found[0]


# ---------------------------------------------------------------- the map


def grad_cam(
    model: nn.Module,
    layer: str | nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    head: str | None = None,
    signed: bool = False,
    upsample: bool = True,
    reshape: Callable[[Tensor], Tensor] = to_map,
    batch_size: int = 128,
) -> Tensor:
    """Return where in each picture the network found what speaks for a class.

    The network is run in evaluation mode and in the precision of its weights, whatever surrounds the call;
    maps and gradients are combined in float32. Mode, gradients and hooks are as before afterwards.

    Args:
        model: any network whose output is logits ``[B, K]``, or a dict of them by head.
        layer: the layer whose maps are weighed, or its name in ``model.named_modules()``; see
            :func:`last_map`.
        images: normalised float ``[N, C, H, W]``.
        targets: what is explained; see :data:`Targets`.
        head: which head, for a network with several.
        signed: keep what speaks against the class, as negative numbers.
        upsample: enlarge the maps to the pictures' size (bilinear); else they are as large as the layer's.
        reshape: brings the layer's output to ``[B, D, h, w]``.
        batch_size: pictures at a time.

    Returns:
        float32 ``[N, H, W]`` (``[N, h, w]`` without ``upsample``) on the pictures' device; in the unit of the
        score, not brought to [0, 1].

    Raises:
        ValueError: a layer, head or class that is not there, a layer without a map, or NaN anywhere.
    """
    module, score = _layer(model, layer), _Score(_checked(images, targets), head)
    with _plainly(model), torch.inference_mode(False), torch.enable_grad():
        rows = torch.arange(len(images)).split(batch_size)
        parts = [_weighed(*map(reshape, _slopes(model, module, images, score, some))) for some in rows]
    maps = torch.cat(parts).to(images.device)
    maps = maps if signed else maps.relu()
    return enlarged(maps, images.shape[-2:]) if upsample else maps


def _slopes(
    model: nn.Module, layer: nn.Module, images: Tensor, score: _Score, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what a layer puts out, and how fast each picture's score grows with its own part of that."""
    with watch(layer) as seen:
        outputs = _run(model, images[rows])
    if len(seen) != 1:
        how = f"runs {len(seen)} times in one pass" if seen else "is not used when the network runs"
        raise ValueError(f"the layer {how}; name one that runs once")
    # in evaluation mode no picture sees another, so the sum has each picture's own gradient
    [slopes] = torch.autograd.grad(score(outputs, rows).sum(), seen, allow_unused=True)
    if slopes is None:
        raise ValueError("the score does not depend on the layer; take one on the way to it")
    return seen[0].detach(), slopes


def _weighed(maps: Tensor, slopes: Tensor) -> Tensor:
    weights = slopes.float().mean((2, 3), keepdim=True)
    weighed = (weights * maps.float()).sum(1)
    if not torch.isfinite(weighed).all():
        raise ValueError("the network's maps or gradients hold NaN or infinity: look at its weights")
    return weighed


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps at another size, bilinear between the middles of their cells.

    Args:
        maps: ``[N, h, w]``.
        size: height and width in pixels.
    """
    return functional.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _run(model: nn.Module, images: Tensor) -> Any:
    weights = next((p for p in model.parameters() if p.is_floating_point()), images)
    return model(images.to(weights.device, weights.dtype, copy=True))  # autograd takes no inference tensor


@contextmanager
def _plainly(model: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode and autocast out of action; then each layer back into its own mode."""
    modes = {module: module.training for module in model.modules()}
    where = next((weights.device.type for weights in model.parameters()), "cpu")
    model.eval()
    try:
        with torch.autocast(where, enabled=False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _layer(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    named = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        if not any(layer is module for module in named.values()):
            raise ValueError(f"this {type(layer).__name__} is no layer of the network; take one of its own")
        return layer
    if layer not in named:
        parts = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"no layer {layer!r} in the network{did_you_mean(layer, named)}; its parts: {parts}")
    return named[layer]


# ---------------------------------------------------------------- the score


@dataclass(frozen=True)
class _Score:
    """The one number a picture that is explained, or watched while pixels go."""

    targets: Callable[[Any], Tensor] | Tensor | None
    head: str | None

    def __call__(self, outputs: Any, rows: Tensor) -> Tensor:
        """Return the logit of each picture's class, float32 ``[B]``; ``rows`` are their numbers."""
        if callable(self.targets):
            return _one_a_picture(self.targets(outputs), len(rows))
        logits = self.logits(outputs)
        return logits.gather(1, self.classes(logits, rows)[:, None])[:, 0]

    def probability(self, outputs: Any, rows: Tensor) -> Tensor:
        """Return the same as a probability; the value of a function stays as it is."""
        if callable(self.targets):
            return self(outputs, rows)
        return _Score(self.targets, None)(self.logits(outputs).softmax(1), rows)

    def classes(self, logits: Tensor, rows: Tensor) -> Tensor:
        if self.targets is None:
            return logits.argmax(1)
        chosen, known = self.targets[rows].to(logits.device), logits.shape[1]
        wrong = chosen[(chosen < 0) | (chosen >= known)].tolist()
        if wrong:
            raise ValueError(f"there is no class {wrong[0]}: the network has {known}, counted from 0")
        return chosen

    def logits(self, outputs: Any) -> Tensor:
        """Return the logits of the head, float32 ``[B, K]``."""
        if isinstance(outputs, Tensor) and self.head is None:
            return outputs.float()
        heads = {"": outputs} if isinstance(outputs, Tensor) else outputs
        name = next(iter(heads)) if self.head is None and len(heads) == 1 else self.head
        if name not in heads:
            known = ", ".join(map(repr, heads))
            raise ValueError(f"no head {name!r}{did_you_mean(name, heads)}; the network has: {known}")
        return heads[name].float()


def _one_a_picture(scores: Tensor, num: int) -> Tensor:
    if scores.shape != (num,):
        raise ValueError(f"a score must be one number for each of {num} pictures, not {list(scores.shape)}")
    return scores.float()


def _checked(images: Tensor, targets: Targets) -> Callable[[Any], Tensor] | Tensor | None:
    """Return the targets, classes as int64 ``[N]``, or raise where they or the pictures make no sense."""
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise ValueError(f"images must be normalised float [N, C, H, W], not {_shape(images)}")
    broken = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        number = f"{len(broken)} of {len(images)}"
        raise ValueError(f"{number} images hold NaN or infinity, the first is number {broken[0]}")
    if targets is None or callable(targets):
        return targets
    classes = torch.as_tensor(targets, device="cpu")
    classes = classes.repeat(len(images)) if classes.ndim == 0 else classes
    if classes.shape != images.shape[:1] or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(f"targets must be a class for each of {len(images)} images, not {_shape(classes)}")
    return classes.long()


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


# ---------------------------------------------------------------- what knows nothing


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
    parts = dict.fromkeys(part for name in layers for part in _layer(twin, name).modules())
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


# ---------------------------------------------------------------- against the truth


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
        found = f"{_shape(maps)} and {_shape(masks)}"
        raise ValueError(f"maps must be [N, h, w] and masks bool [N, H, W], not {found}")
    return _without_nan(maps).float()


def _without_nan(maps: Tensor) -> Tensor:
    broken = int(maps.isnan().flatten(1).any(1).sum())
    if broken:
        raise ValueError(f"{broken} of {len(maps)} maps hold NaN")
    return maps


# ---------------------------------------------------------------- against the network


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
    score = _settled(model, images, _Score(_checked(images, targets), head))
    return _curves(model, images, _like(blank, images), _order(images, maps, seed), score, steps)


def insertion(
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
    """Return how a class gains probability while the hottest places of each picture are put on a blank one.

    The better the map, the steeper the rise and the larger the area (Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
        model: as for :func:`grad_cam`.
        images: normalised float ``[N, C, H, W]``.
        maps: ``[N, H, W]``; places that are equally hot go in a random order.
        targets: as for :func:`deletion`.
        blank: what a place shows before it is put in, as for :func:`deletion`.
        steps: S, into how many equal parts a picture is cut.
        head: which head, for a network with several.
        seed: of the order of equally hot places.

    Raises:
        ValueError: as :func:`deletion`.
    """
    score = _settled(model, images, _Score(_checked(images, targets), head))
    return _curves(model, _like(blank, images), images, _order(images, maps, seed), score, steps)


def _curves(
    model: nn.Module, before: Tensor, after: Tensor, order: Tensor, score: _Score, steps: int
) -> Curves:
    shares, scores = torch.linspace(0, 1, steps + 1), []
    for share in shares.tolist():
        changed = (order < round(share * order[0].numel()))[:, None]
        scores.append(_in_batches(model, torch.where(changed, after, before), score.probability))
    scores = torch.stack(scores, 1)
    return Curves(shares, scores, torch.trapezoid(scores, shares, dim=1))


def _settled(model: nn.Module, images: Tensor, score: _Score) -> _Score:
    """Return the score with the class that is likeliest on the whole picture, where none was named."""
    if score.targets is not None:
        return score
    return _Score(_in_batches(model, images, lambda outputs, _: score.logits(outputs).argmax(1)), score.head)


def _in_batches(model: nn.Module, images: Tensor, answer: Callable[[Any, Tensor], Tensor]) -> Tensor:
    rows = torch.arange(len(images)).split(256)
    with _plainly(model), torch.no_grad():
        return torch.cat([answer(_run(model, images[some]), some).cpu() for some in rows])


def _like(blank: float | Tensor, images: Tensor) -> Tensor:
    return torch.as_tensor(blank).to(images).expand_as(images)


def _order(images: Tensor, maps: Tensor, seed: int) -> Tensor:
    """Return the place of each pixel in the order of heat, int64 ``[N, H, W]``, 0 the hottest."""
    if maps.shape != (len(images), *images.shape[-2:]):
        raise ValueError(
            f"maps {list(maps.shape)} do not fit images {list(images.shape)}; enlarge them first"
        )
    heat = _without_nan(maps).flatten(1).cpu()
    # shuffled before a stable sort: large parts of a map are 0, and must not go row by row
    shuffled = torch.rand(heat.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    order = shuffled.gather(1, heat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1).view_as(maps).to(images.device)


# ---------------------------------------------------------------- faces laid over each other


def aligned(pictures: Tensor, landmarks: Tensor, reference: Tensor) -> Tensor:
    """Return pictures or maps moved so that their landmarks lie on those of one face.

    As well as an affine map can (least squares). Only then does a mean over faces show eyes on eyes.

    Args:
        pictures: float ``[N, H, W]``.
        landmarks: float ``[N, L, 2]``, (x, y) in pixels; whole numbers are the centres of pixels.
        reference: float ``[L, 2]``, where they are to lie.

    Returns:
        float32 ``[N, H, W]``; what comes from outside a picture is its edge.

    Raises:
        ValueError: landmarks that hold NaN, or shapes that do not fit.
    """
    if landmarks.shape != (len(pictures), *reference.shape) or not torch.isfinite(landmarks).all():
        wanted = [len(pictures), *reference.shape]
        raise ValueError(f"need landmarks {wanted} without NaN, not {list(landmarks.shape)}")
    height, width = pictures.shape[-2:]
    goal = functional.pad(reference.double(), (0, 1), value=1.0).expand(len(pictures), -1, -1)
    back = torch.linalg.lstsq(goal, landmarks.double()).solution  # [N, 3, 2], from the goal to each face
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).double() @ back[:, None]
    grid = ((2 * places + 1) / torch.tensor([width, height]) - 1).float()
    options = {"padding_mode": "border", "align_corners": False}
    return functional.grid_sample(pictures[:, None].float(), grid, **options)[:, 0]
