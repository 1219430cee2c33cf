"""Where a network looks: Grad-CAM, and the tests that a map has to pass before anybody believes it.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) weighs the maps A_k that a layer puts out by how much the
score y of a class would grow with each of them:

    map = ReLU( sum over k of a_k A_k ),   a_k = mean over places of dy / dA_k
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from helpers import did_you_mean, one_of

Targets = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None
"""The explained score: a class for all or for each image, None: the likeliest, or a function of the outputs
that returns one number an image, ``lambda outputs: outputs["valence"][:, 0]``."""


class Curves(NamedTuple):
    """How much of an image was deleted or inserted, the probability of the class then, and the area."""

    shares: Tensor  # [S + 1]
    scores: Tensor  # [N, S + 1]
    area: Tensor  # [N], under each curve


def last_map(model: nn.Module) -> str:
    """Return the name of the last layer whose output is a map, of a network that ``models.create`` made."""
    names = [name for name, _ in model.named_modules()]
    # of the last block of a transformer only the class token is used: its patches get no gradient
    norms = [name for name in names if name.startswith("encoder.layers.") and name.endswith(".ln_1")]
    for name in (*norms[-1:], "bn2", "blocks", "layer4", "features"):  # bn2 ends timm's EfficientNet
        if name in names:
            return name
    raise ValueError(f"which layer of a {type(model).__name__} to take is not known; name one")


def grad_cam(
    model: nn.Module,
    layer: str,
    images: Tensor,
    targets: Targets = None,
    *,
    head: str | None = None,
    signed: bool = False,
    upsample: bool = True,
    batch_size: int = 128,
) -> Tensor:
    """Return where in each image the network found what speaks for a class.

    The network is run in evaluation mode, in the precision of its weights, and left as it was.

    Args:
        model: any network whose output is logits ``[B, K]``, or a dict of them by head, on any device.
        layer: the name of the layer whose maps are weighed; see :func:`last_map`.
        images: normalised float ``[N, C, H, W]``, on any device.
        targets: what is explained; see :data:`Targets`.
        head: which head, for a network with several.
        signed: keep what speaks against the class, as negative numbers.
        upsample: enlarge the maps to the images' size (bilinear); else they are as large as the layer's.
        batch_size: images at a time.

    Returns:
        float32 ``[N, H, W]`` (``[N, h, w]`` without ``upsample``) on the images' device.
    """
    module, targets, parts = _layer(model, layer), _checked(images, targets), []
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            kind = type(output).__name__
            raise ValueError(f"the layer puts out a {kind}, not a map; take one before or after it")
        # cut off from what lies before: the backward pass ends here, even where every weight is frozen
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # a layer that follows may change its input in place

    hook = module.register_forward_hook(keep)
    try:
        with _evaluating(model), torch.inference_mode(False), torch.enable_grad():
            for outputs, chosen in _run(model, images, targets, batch_size):
                if len(seen) != 1:
                    how = f"runs {len(seen)} times when the network runs once"
                    raise ValueError(f"the layer {how}; name one that runs once, too")
                # in evaluation mode no image sees another, so the sum has each image's own gradient
                score, maps = _score(outputs, chosen, head).sum(), seen.pop()
                [gradient] = torch.autograd.grad(score, maps, allow_unused=True)
                if gradient is None:
                    raise ValueError("the score does not depend on the layer; take one on the way to it")
                weights = _to_map(gradient).float().mean((2, 3), keepdim=True)
                parts.append((weights * _to_map(maps.detach()).float()).sum(1))
    finally:
        hook.remove()
    maps = torch.cat(parts)
    if not torch.isfinite(maps).all():
        raise ValueError("the network's maps or gradients hold NaN or infinity: look at its weights")
    maps = (maps if signed else maps.relu()).to(images.device)
    return enlarged(maps, images.shape[-2:]) if upsample else maps


def _to_map(output: Tensor) -> Tensor:
    """Return a layer's output as maps ``[B, D, h, w]``; tokens and channels-last maps come from a square."""
    if output.ndim == 4:
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]  # as in a Swin transformer
        return output.permute(0, 3, 1, 2) if channels_last else output
    tokens = output.shape[1] if output.ndim == 3 else 0
    side = math.isqrt(tokens)
    if not tokens or tokens not in (side**2, side**2 + 1):  # one more: the class token, which comes first
        raise ValueError(f"the layer puts out {list(output.shape)}, no map [B, D, h, w]: take an earlier one")
    return output[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps ``[N, h, w]`` at another height and width, bilinear between the centres of their cells."""
    return functional.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


def aligned(
    images: Tensor, landmarks: Tensor, reference: Tensor, *, similar: bool = False, mode: str = "bilinear"
) -> Tensor:
    """Return images or maps ``[N, H, W]`` moved so that their landmarks lie on those of one face.

    As well as an affine map can, or, if ``similar``, one that only turns, shifts and scales; ``landmarks``
    ``[N, L, 2]`` and their goal ``reference`` ``[L, 2]`` are (x, y), whole at the centres of pixels. ``mode``
    is "bilinear" or "bicubic"; beyond its edge an image goes on.
    """
    from skimage.transform import estimate_transform, warp  # a fifth of a second

    if landmarks.shape != (len(images), *reference.shape) or not torch.isfinite(landmarks).all():
        raise ValueError(f"need landmarks {[len(images), *reference.shape]} without NaN")
    kind, order, moved = "similarity" if similar else "affine", 3 if mode == "bicubic" else 1, []
    for image, points in zip(images.float().cpu().numpy(), landmarks.cpu().numpy(), strict=True):
        back = estimate_transform(kind, reference.cpu().numpy(), points)
        moved.append(warp(image, back, order=order, mode="edge", preserve_range=True))
    return torch.tensor(np.reshape(moved, images.shape), dtype=torch.float32, device=images.device)


def random_maps(num_maps: int, grid: Sequence[int], seed: int = 0) -> Tensor:
    """Return maps that know nothing, float32 ``[num_maps, *grid]`` in [0, 1); see :func:`enlarged`."""
    return torch.rand(num_maps, *grid, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module, layers: Sequence[str], seed: int = 0) -> nn.Module:
    """Return a copy of a network in which some layers are initialised again, or, of unknown kind, shuffled.

    What lies in ``layers`` is randomised too; "" is the whole network. A seed means the same on every device.
    """
    twin = copy.deepcopy(model).cpu()
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(seed)
        for part in dict.fromkeys(part for name in layers for part in _layer(twin, name).modules()):
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
                continue
            for weights in part.parameters(recurse=False):
                weights.copy_(weights.flatten()[torch.randperm(weights.numel())].view_as(weights))
    return twin.to(next((weights.device for weights in model.parameters()), "cpu"))


def cascade(model: nn.Module, layers: Sequence[str], seed: int = 0) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name of a layer and a copy randomised down to it, of layers from the output down.

    A map that explains what was learned must change on the way (Adebayo et al. 2018, arXiv 1810.03292).
    """
    return ((name, randomised(model, layers[: i + 1], seed)) for i, name in enumerate(layers))


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation of pairs of maps ``[N, H, W]``, float64 ``[N]``; NaN if constant."""
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"maps must come in pairs of one shape, not {list(a.shape)} and {list(b.shape)}")
    ranks = [torch.as_tensor(rankdata(maps.flatten(1).cpu().double(), axis=1)) for maps in (a, b)]
    first, second = (each - each.mean(1, keepdim=True) for each in ranks)
    return (first * second).sum(1) / (first.square().sum(1) * second.square().sum(1)).sqrt()


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
    insert: bool = False,
) -> Curves:
    """Return how a class loses its probability while the hottest places of each image are deleted.

    The better the map, the smaller the area under the curve (Petsiuk et al. 2018, arXiv 1806.07421).
    Arguments are those of :func:`grad_cam`; without targets it is the class that is likeliest on the whole
    image. Maps are ``[N, H, W]``; places that are equally hot go in a random order (``seed``), and each shows
    then ``blank``, a number (0 is mean grey) or images, for instance blurred ones. An image is cut into
    ``steps`` equal parts.
    """
    if (targets := _checked(images, targets)) is None:
        with _evaluating(model), torch.no_grad():
            likeliest = [_logits(outputs, head).argmax(1).cpu() for outputs, _ in _run(model, images)]
        targets = torch.cat(likeliest)
    if maps.shape != (len(images), *images.shape[-2:]) or maps.isnan().any():
        shapes = f"maps {list(maps.shape)} do not fit images {list(images.shape)}"
        raise ValueError(f"{shapes}, or hold NaN; enlarge them first")
    heat = maps.flatten(1).cpu()
    # shuffled before a stable sort: large parts of a map are 0, and must not go row by row
    shuffled = torch.rand(heat.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    order = shuffled.gather(1, heat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    place = order.argsort(1).view_as(maps)[:, None].to(images.device)
    blank = torch.as_tensor(blank).to(images).expand_as(images)
    hottest, rest = (images, blank) if insert else (blank, images)
    shares, scores = torch.linspace(0, 1, steps + 1), []
    with _evaluating(model), torch.no_grad():
        for share in shares.tolist():
            mixed = torch.where(place < round(share * heat.shape[1]), hottest, rest)
            parts = [_score(*each, head, True).cpu() for each in _run(model, mixed, targets)]
            scores.append(torch.cat(parts))
    scores = torch.stack(scores, 1)
    return Curves(shares, scores, torch.trapezoid(scores, shares, dim=1))


insertion = functools.partial(deletion, insert=True)
"""How a class gains probability while the hottest places are put on a blank image: the larger, the better."""


def pointing_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether the highest place of each map lies inside its mask, bool ``[N]``: the pointing game.

    From Zhang et al. 2016 (arXiv 1608.00507), without their margin; a constant map misses. Maps ``[N, h, w]``
    are as the layer makes them (``upsample=False``) and point at the centre of their highest cell, since
    enlarging lowers every peak but those at the border; masks are bool ``[N, H, W]``.
    """
    _check_pairs(maps, masks)
    centres = functional.interpolate(masks[:, None].float(), maps.shape[1:], mode="nearest-exact")
    top, place = maps.flatten(1).max(1, keepdim=True)
    inside = centres.flatten(1).to(maps.device).gather(1, place) > 0
    return (inside & (top > maps.flatten(1).amin(1, keepdim=True)))[:, 0]


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the share of each map's positive part inside its mask, float32 ``[N]``; 0 where it is none."""
    _check_pairs(maps, masks)  # Wang et al. 2020 (arXiv 1910.01279)
    positive = maps.float().clamp(min=0)
    inside, total = (positive * masks.to(maps.device)).sum((1, 2)), positive.sum((1, 2))
    return torch.where(total > 0, inside / total, 0.0)


def _check_pairs(maps: Tensor, masks: Tensor) -> None:
    fit = maps.ndim == masks.ndim == 3 and len(maps) == len(masks) and masks.dtype == torch.bool
    if not fit or maps.isnan().any():
        found = f"{list(maps.shape)} and {masks.dtype} {list(masks.shape)}, or hold NaN"
        raise ValueError(f"maps must be [N, h, w] and masks bool [N, H, W]; they are {found}")


def _layer(model: nn.Module, name: str) -> nn.Module:
    named = dict(model.named_modules())
    if name not in named:
        parts = ", ".join(part for part, _ in model.named_children())
        raise ValueError(f"no layer {name!r} in the network{did_you_mean(name, named)}; its parts: {parts}")
    return named[name]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, without autocast; then each layer back into its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.autocast(next((p.device.type for p in model.parameters()), "cpu"), enabled=False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _run(model: nn.Module, images: Tensor, targets: Targets = None, size: int = 256) -> Iterator[tuple]:
    """Yield the outputs of one batch after the other, in the precision of the weights, and its targets."""
    weights = next((p for p in model.parameters() if p.is_floating_point()), images)
    for start in range(0, max(len(images), 1), size):  # of no images one batch, so that shapes are known
        rows = slice(start, start + size)
        some = images[rows].to(weights.device, weights.dtype, copy=True)  # autograd takes no inference tensor
        yield model(some), targets[rows].clone() if isinstance(targets, Tensor) else targets


def _checked(images: Tensor, targets: Targets) -> Targets:
    """Return the targets as a function, None or int64 ``[N]``; refuse what makes no sense."""
    if images.ndim != 4 or not images.is_floating_point():
        found = f"{images.dtype} {[*images.shape]}"
        raise ValueError(f"images must be normalised float [N, C, H, W], not {found}")
    if broken := (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist():
        raise ValueError(f"{len(broken)} images hold NaN or infinity, the first is number {broken[0]}")
    if targets is None or callable(targets):
        return targets
    classes = torch.as_tensor(targets, device="cpu")
    classes = classes.repeat(len(images)) if classes.ndim == 0 else classes
    if classes.shape != (len(images),) or classes.is_floating_point():
        found = f"{classes.dtype} {[*classes.shape]}"
        raise ValueError(f"targets must be a class for each of {len(images)} images, not {found}")
    return classes.long()


def _score(outputs: Any, targets: Targets, head: str | None, probability: bool = False) -> Tensor:
    """Return the logit of each image's class, or its probability; the value of a function as it is."""
    if callable(targets):
        if (scores := targets(outputs)).ndim != 1:
            raise ValueError(f"a score must be one number for each image, not {list(scores.shape)}")
        return scores.float()
    logits = _logits(outputs, head)
    classes, num = logits.argmax(1) if targets is None else targets.to(logits.device), logits.shape[1]
    if wrong := classes[(classes < 0) | (classes >= num)].tolist():
        raise ValueError(f"there is no class {wrong[0]}: the network has {num}, counted from 0")
    return (logits.softmax(1) if probability else logits).gather(1, classes[:, None])[:, 0]


def _logits(outputs: Any, head: str | None) -> Tensor:
    heads = outputs if isinstance(outputs, dict) else {"labels": outputs}
    only = len(heads) == 1 and head is None
    return heads[next(iter(heads)) if only else one_of("head", head, heads)].float()
