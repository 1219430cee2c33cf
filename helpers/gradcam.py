"""Where a network looks: Grad-CAM, and the tests that a map has to pass before anybody believes it.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) weighs the maps A_k that a layer puts out by how much the
score y of a class would grow with each of them:

    map = ReLU( sum over k of a_k A_k ),   a_k = mean over places of dy / dA_k

Whether it says anything about the network is for the rest to find out: :func:`pointing_hits`,
:func:`energy_inside`, :func:`deletion`, :func:`insertion`, against :func:`random_maps` and :func:`cascade`.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional

from helpers import did_you_mean

Targets = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None
"""The explained score: one class for all, one for each image, None: the likeliest; or a function of outputs.

The function returns one number an image: ``lambda outputs: outputs["valence"][:, 0]``.
"""


class Curves(NamedTuple):
    """How much of an image was deleted or inserted, the probability of the class then, and the area."""

    shares: Tensor  # [S + 1]
    scores: Tensor  # [N, S + 1]
    area: Tensor  # [N], under each curve


@contextmanager
def watch(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer puts out while the context lasts, as tensors that a gradient can be asked for."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            kind = (
                f"a tensor of {output.dtype}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            )
            raise ValueError(f"the layer puts out {kind}, not a map; take one before or after it")
        # cut off from what lies before: the backward pass ends here, even where every weight is frozen
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # a layer that follows may change its input in place

    hook = layer.register_forward_hook(keep)
    try:
        yield seen
    finally:
        hook.remove()


def to_map(output: Tensor) -> Tensor:
    """Return a layer's output as maps ``[B, D, h, w]``; tokens and channels-last maps come from a square."""
    if output.ndim == 4:
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]  # as in a Swin transformer
        return output.permute(0, 3, 1, 2) if channels_last else output
    tokens = output.shape[1] if output.ndim == 3 else 0
    side = math.isqrt(tokens)
    if not tokens or tokens not in (side**2, side**2 + 1):  # one more: the class token, which comes first
        shape = list(output.shape)
        raise ValueError(
            f"the layer puts out {shape}, no map [B, D, h, w]: take an earlier one or give reshape"
        )
    return output[:, -(side**2) :].transpose(1, 2).unflatten(2, (side, side))


def last_map(model: nn.Module) -> str:
    """Return the name of the layer that Grad-CAM is usually asked about: the last one whose output is a map.

    Args:
        model: a network of ``models.create``; of others ValueError asks for the name.
    """
    named = dict(model.named_modules())
    if "conv_head" in named:  # timm's EfficientNet: a last convolution after its blocks, normalised by bn2
        return "bn2"
    # of the last block of a transformer only the class token is used: its patches get no gradient
    norms = [name for name in named if name.startswith("encoder.layers.") and name.endswith(".ln_1")]
    found = norms[-1:] or [name for name in ("blocks", "layer4", "features") if name in named]
    if not found:
        raise ValueError(f"which layer of a {type(model).__name__} to take is not known; name one")
    return found[0]


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
    """Return where in each image the network found what speaks for a class.

    The network is run in evaluation mode and in the precision of its weights; mode, gradients and hooks
    are as before afterwards.

    Args:
        model: any network whose output is logits ``[B, K]``, or a dict of them by head, on any device.
        layer: the layer whose maps are weighed, or its name; see :func:`last_map`.
        images: normalised float ``[N, C, H, W]``, on any device.
        targets: what is explained; see :data:`Targets`.
        head: which head, for a network with several.
        signed: keep what speaks against the class, as negative numbers.
        upsample: enlarge the maps to the images' size (bilinear); else they are as large as the layer's.
        reshape: brings the layer's output to ``[B, D, h, w]``.
        batch_size: images at a time.

    Returns:
        float32 ``[N, H, W]`` (``[N, h, w]`` without ``upsample``) on the images' device.

    Raises:
        ValueError: a layer, head or class that is not there, a layer without a map, or NaN anywhere.
    """
    module, targets, parts = _layer(model, layer), _checked(images, targets), []
    with _evaluating(model), torch.inference_mode(False), torch.enable_grad():
        for some, chosen in _batches(images, targets, batch_size):
            with watch(module) as seen:
                outputs = _run(model, some)
            if len(seen) != 1:
                how = f"runs {len(seen)} times in one pass" if seen else "is not used when the network runs"
                raise ValueError(f"the layer {how}; name one that runs once")
            # in evaluation mode no image sees another, so the sum has each image's own gradient
            score = _score(outputs, chosen, head).sum()
            [gradient] = torch.autograd.grad(score, seen, allow_unused=True)
            if gradient is None:
                raise ValueError("the score does not depend on the layer; take one on the way to it")
            weights = reshape(gradient).float().mean((2, 3), keepdim=True)
            parts.append((weights * reshape(seen[0].detach()).float()).sum(1))
    maps = torch.cat(parts)
    if not torch.isfinite(maps).all():
        raise ValueError("the network's maps or gradients hold NaN or infinity: look at its weights")
    maps = (maps if signed else maps.relu()).to(images.device)
    return enlarged(maps, images.shape[-2:]) if upsample else maps


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Return maps ``[N, h, w]`` at another height and width, bilinear between the centres of their cells."""
    return functional.interpolate(maps[:, None], tuple(size), mode="bilinear", align_corners=False)[:, 0]


def aligned(
    pictures: Tensor, landmarks: Tensor, reference: Tensor, *, similar: bool = False, mode: str = "bilinear"
) -> Tensor:
    """Return images or maps moved so that their landmarks lie on those of one face.

    As well as an affine map can (least squares), or, if ``similar``, one that only turns, shifts and scales.
    ``pictures`` are float ``[N, H, W]``, continued by their edge; ``landmarks`` ``[N, L, 2]`` and their goal
    ``reference`` ``[L, 2]`` are (x, y), whole at the centres of pixels; ``mode`` is that of ``grid_sample``.
    """
    if landmarks.shape != (len(pictures), *reference.shape) or not torch.isfinite(landmarks).all():
        wanted = [len(pictures), *reference.shape]
        raise ValueError(f"need landmarks {wanted} without NaN, not {list(landmarks.shape)}")
    # on the CPU: Apple's chip has neither float64 nor padding by the border
    found, goal = landmarks.cpu().double(), reference.cpu().double()
    if similar:  # as complex numbers: z -> turn z + shift
        z, w = (torch.view_as_complex(points.contiguous()) for points in (goal, found))
        centred = z - z.mean()
        turn = (w * centred.conj()).sum(1) / centred.abs().square().sum()
        shift = w.mean(1) - turn * z.mean()
        back = torch.stack([torch.view_as_real(each) for each in (turn, 1j * turn, shift)], dim=1)
    else:
        ones = functional.pad(goal, (0, 1), value=1.0).expand(len(found), -1, -1)
        back = torch.linalg.lstsq(ones, found).solution  # [N, 3, 2]: (x, y, 1) times one is (x, y) there
    height, width = pictures.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).double() @ back[:, None]
    grid = ((2 * places + 1) / torch.tensor([width, height]) - 1).float()
    options = {"padding_mode": "border", "align_corners": False}
    moved = functional.grid_sample(pictures[:, None].float().cpu(), grid, mode, **options)[:, 0]
    return moved.to(pictures.device)


def random_maps(num_maps: int, grid: Sequence[int], seed: int = 0) -> Tensor:
    """Return maps that know nothing, float32 ``[num_maps, *grid]`` in [0, 1); see :func:`enlarged`."""
    return torch.rand(num_maps, *grid, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module, layers: Sequence[str], seed: int = 0) -> nn.Module:
    """Return a copy of a network in which some layers are initialised again, or, of unknown kind, shuffled.

    What lies in ``layers`` is randomised too; "" is the whole network. A seed means the same on every device.
    """
    device = next((weights.device for weights in model.parameters()), "cpu")
    twin = copy.deepcopy(model).cpu()
    parts = dict.fromkeys(part for name in layers for part in _layer(twin, name).modules())
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(seed)
        for part in parts:
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
                continue
            for weights in part.parameters(recurse=False):
                weights.copy_(weights.flatten()[torch.randperm(weights.numel())].view_as(weights))
    return twin.to(device)


def cascade(
    model: nn.Module, layers: Sequence[str] | None = None, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name of a layer and a copy randomised down to it, from the output down (Adebayo et al. 2018).

    A map that explains what was learned must change on the way (arXiv 1810.03292). ``layers`` are names
    from the output down; None: all with weights, in reverse order.
    """
    own = [name for name, part in model.named_modules() if list(part.parameters(recurse=False))]
    chosen = own[::-1] if layers is None else layers
    for reached in itertools.accumulate([name] for name in chosen):
        yield reached[-1], randomised(model, reached, seed)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Spearman's rank correlation of pairs of maps ``[N, H, W]``, float64 ``[N]``; NaN if constant."""
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(f"maps must come in pairs of one shape, not {list(a.shape)} and {list(b.shape)}")
    ranks = [torch.as_tensor(rankdata(maps.flatten(1).cpu(), axis=1)) for maps in (a, b)]
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
) -> Curves:
    """Return how a class loses its probability while the hottest places of each image are deleted.

    The better the map, the smaller the area under the curve (Petsiuk et al. 2018, arXiv 1806.07421).

    Args:
        model: as for :func:`grad_cam`.
        images: normalised float ``[N, C, H, W]``.
        maps: ``[N, H, W]``; places that are equally hot go in a random order.
        targets: as for :func:`grad_cam`; None: the class that is likeliest on the whole image.
        blank: what a deleted place shows: a number (0 is mean grey), or images, for instance blurred ones.
        steps: S, into how many equal parts an image is cut.
        head: which head, for a network with several.
        seed: of the order of equally hot places.
    """
    targets = _settled(model, images, targets, head)
    order, blank = _order(images, maps, seed), torch.as_tensor(blank).to(images)
    shares, scores = torch.linspace(0, 1, steps + 1), []
    for share in shares.tolist():
        gone = (order < round(share * maps.shape[1] * maps.shape[2]))[:, None]
        mixed = torch.where(gone, blank, images)
        scores.append(_in_batches(model, mixed, targets, lambda out, chosen: _score(out, chosen, head, True)))
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
    """Return how a class gains probability while the hottest places of each image are put on a blank one.

    It is :func:`deletion` with the two images exchanged, and takes the same; the better the map, the larger
    the area. Without ``targets`` it is the class that is likeliest on the whole image, not on the blank one.
    """
    settled = _settled(model, images, targets, head)
    start = torch.as_tensor(blank).to(images).expand_as(images)
    return deletion(model, start, maps, settled, blank=images, head=head, **options)


def pointing_hits(maps: Tensor, masks: Tensor) -> Tensor:
    """Return whether the highest place of each map lies inside its mask, bool ``[N]``: the pointing game.

    From Zhang et al. 2016 (arXiv 1608.00507), without their margin of 15 pixels; a constant map misses.

    Args:
        maps: ``[N, h, w]`` as the layer makes them (``upsample=False``); each points at the centre of its
            highest cell. Enlarging lowers every peak but those at the border, which would win too often.
        masks: bool ``[N, H, W]``, where the truth lies; as large as the maps or larger.
    """
    flat, masks = _paired(maps, masks).flatten(1), masks.to(maps.device)
    (height, width), (tall, wide) = maps.shape[1:], masks.shape[1:]
    top, place = flat.max(1)
    row = (2 * (place // width) + 1) * tall // (2 * height)
    column = (2 * (place % width) + 1) * wide // (2 * width)
    return masks.flatten(1).gather(1, (row * wide + column)[:, None])[:, 0] & (top > flat.amin(1))


def energy_inside(maps: Tensor, masks: Tensor) -> Tensor:
    """Return what share of the positive part of each map lies inside its mask, float32 ``[N]``; 0 of nothing.

    From Wang et al. 2020 (arXiv 1910.01279); maps float and masks bool ``[N, H, W]``.
    """
    positive = _paired(maps, masks).clamp(min=0)
    if maps.shape != masks.shape:
        raise ValueError(f"maps {list(maps.shape)} do not fit masks {list(masks.shape)}; enlarge them first")
    inside, total = (positive * masks.to(maps.device)).sum((1, 2)), positive.sum((1, 2))
    return torch.where(total > 0, inside / total, 0.0)


def _paired(maps: Tensor, masks: Tensor) -> Tensor:
    if maps.ndim != 3 or masks.ndim != 3 or len(maps) != len(masks) or masks.dtype != torch.bool:
        found = f"{_form(maps)} and {_form(masks)}"
        raise ValueError(f"maps must be [N, h, w] and masks bool [N, H, W], not {found}")
    return _without_nan(maps).float()


def _without_nan(maps: Tensor) -> Tensor:
    if broken := int(maps.isnan().flatten(1).any(1).sum()):
        raise ValueError(f"{broken} of {len(maps)} maps hold NaN")
    return maps


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _order(images: Tensor, maps: Tensor, seed: int) -> Tensor:
    """Return the place of each pixel in the order of heat, int64 ``[N, H, W]``, 0 the hottest."""
    if maps.shape != (len(images), *images.shape[-2:]):
        shapes = f"maps {list(maps.shape)} do not fit images {list(images.shape)}"
        raise ValueError(f"{shapes}; enlarge them first")
    heat = _without_nan(maps).flatten(1).cpu()
    # shuffled before a stable sort: large parts of a map are 0, and must not go row by row
    shuffled = torch.rand(heat.shape, generator=torch.Generator().manual_seed(seed)).argsort(1)
    order = shuffled.gather(1, heat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))
    return order.argsort(1).view_as(maps).to(images.device)


def _layer(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    named = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        if layer not in named.values():
            raise ValueError(f"this {type(layer).__name__} is no layer of the network; take one of its own")
        return layer
    if layer not in named:
        parts = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"no layer {layer!r} in the network{did_you_mean(layer, named)}; its parts: {parts}")
    return named[layer]


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode, without autocast; then each layer back into its own mode."""
    modes = {module: module.training for module in model.modules()}
    where = next((weights.device.type for weights in model.parameters()), "cpu")
    model.eval()
    try:
        with torch.autocast(where, enabled=False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _run(model: nn.Module, images: Tensor) -> Any:
    """Return the network's outputs, on the device and in the precision of its weights."""
    weights = next((p for p in model.parameters() if p.is_floating_point()), images)
    return model(images.to(weights.device, weights.dtype, copy=True))  # autograd takes no inference tensor


def _in_batches(
    model: nn.Module, images: Tensor, targets: Targets, value: Callable[[Any, Targets], Tensor]
) -> Tensor:
    with _evaluating(model), torch.no_grad():
        batches = _batches(images, targets, 256)
        return torch.cat([value(_run(model, some), chosen).cpu() for some, chosen in batches])


def _batches(images: Tensor, targets: Targets, size: int) -> Iterator[tuple[Tensor, Targets]]:
    for start in range(0, max(len(images), 1), size):  # of no images one batch, so that shapes are known
        rows = slice(start, start + size)
        yield images[rows], targets[rows].clone() if isinstance(targets, Tensor) else targets


def _settled(model: nn.Module, images: Tensor, targets: Targets, head: str | None) -> Targets:
    """Return the targets; where none are named, the classes that are likeliest on the whole images."""
    if (targets := _checked(images, targets)) is not None:
        return targets
    return _in_batches(model, images, None, lambda outputs, _: _logits(outputs, head).argmax(1))


def _checked(images: Tensor, targets: Targets) -> Targets:
    """Return the targets as a function, None or int64 ``[N]``; refuse what makes no sense."""
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images must be normalised float [N, C, H, W], not {_form(images)}")
    broken = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        number = f"{len(broken)} of {len(images)}"
        raise ValueError(f"{number} images hold NaN or infinity, the first is number {broken[0]}")
    if targets is None or callable(targets):
        return targets
    classes = torch.as_tensor(targets, device="cpu")
    classes = classes.repeat(len(images)) if classes.ndim == 0 else classes
    if classes.shape != (len(images),) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(f"targets must be a class for each of {len(images)} images, not {_form(classes)}")
    return classes.long()


def _score(outputs: Any, targets: Targets, head: str | None, probability: bool = False) -> Tensor:
    """Return the logit of each image's class, or its probability; the value of a function as it is."""
    if callable(targets):
        scores, num = (
            targets(outputs),
            len(next(iter(outputs.values())) if isinstance(outputs, dict) else outputs),
        )
        if scores.shape != (num,):
            raise ValueError(f"a score must be one number for each of {num} images, not {list(scores.shape)}")
        return scores.float()
    logits = _logits(outputs, head)
    classes = logits.argmax(1) if targets is None else targets.to(logits.device)
    num = logits.shape[1]
    if wrong := classes[(classes < 0) | (classes >= num)].tolist():
        raise ValueError(f"there is no class {wrong[0]}: the network has {num}, counted from 0")
    return (logits.softmax(1) if probability else logits).gather(1, classes[:, None])[:, 0]


def _logits(outputs: Any, head: str | None) -> Tensor:
    if isinstance(outputs, Tensor) and head is None:
        return outputs.float()
    heads = {"": outputs} if isinstance(outputs, Tensor) else outputs
    name = next(iter(heads)) if head is None and len(heads) == 1 else head
    if name not in heads:
        known = ", ".join(map(repr, heads))
        raise ValueError(f"no head {name!r}{did_you_mean(name, heads)}; the network has: {known}")
    return heads[name].float()
