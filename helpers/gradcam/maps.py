"""Grad-CAM itself: the hook, the gradient, the weighted sum, and faces laid over each other for mean maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from helpers.gradcam import network
from helpers.gradcam.score import Score, Targets, of


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
    if "conv_head" in named:  # timm's EfficientNet ends in one more convolution
        found = ["bn2"]
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
    module, score = network.layer_of(model, layer), of(images, targets, head)
    with network.plainly(model), torch.inference_mode(False), torch.enable_grad():
        rows = torch.arange(len(images)).split(batch_size)
        parts = [_weighed(*map(reshape, _slopes(model, module, images, score, some))) for some in rows]
    maps = torch.cat(parts).to(images.device)
    maps = maps if signed else maps.relu()
    return enlarged(maps, images.shape[-2:]) if upsample else maps


def _slopes(
    model: nn.Module, layer: nn.Module, images: Tensor, score: Score, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what a layer puts out, and how fast each picture's score grows with its own part of that."""
    with watch(layer) as seen:
        outputs = network.run(model, images[rows])
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


def aligned(
    pictures: Tensor, landmarks: Tensor, reference: Tensor, *, similar: bool = False, mode: str = "bilinear"
) -> Tensor:
    """Return pictures or maps moved so that their landmarks lie on those of one face.

    As well as an affine map can (least squares). Only then does a mean over faces show eyes on eyes.

    Args:
        pictures: float ``[N, H, W]``.
        landmarks: float ``[N, L, 2]``, (x, y) in pixels; whole numbers are the centres of pixels.
        reference: float ``[L, 2]``, where they are to lie.
        similar: only turn, shift and scale, which leaves each face its proportions.
        mode: how pixels are interpolated, as of ``torch.nn.functional.grid_sample``; "bicubic" keeps faint
            lines better, and may go past the brightest and darkest pixel.

    Returns:
        float32 ``[N, H, W]``; what comes from outside a picture is its edge.

    Raises:
        ValueError: landmarks that hold NaN, or shapes that do not fit.
    """
    if landmarks.shape != (len(pictures), *reference.shape) or not torch.isfinite(landmarks).all():
        wanted = [len(pictures), *reference.shape]
        raise ValueError(f"need landmarks {wanted} without NaN, not {list(landmarks.shape)}")
    height, width = pictures.shape[-2:]
    back = (_similar if similar else _affine)(reference.double(), landmarks.double())
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).double() @ back[:, None]
    grid = ((2 * places + 1) / torch.tensor([width, height]) - 1).float()
    options = {"padding_mode": "border", "align_corners": False}
    return functional.grid_sample(pictures[:, None].float(), grid, mode, **options)[:, 0]


def _affine(reference: Tensor, landmarks: Tensor) -> Tensor:
    """Return the maps from the reference to each face, ``[N, 3, 2]``: (x, y, 1) times one is (x, y) there."""
    goal = functional.pad(reference, (0, 1), value=1.0).expand(len(landmarks), -1, -1)
    return torch.linalg.lstsq(goal, landmarks).solution


def _similar(reference: Tensor, landmarks: Tensor) -> Tensor:
    """Return the same, but as complex numbers z -> turn z + shift."""
    goal, found = (torch.view_as_complex(points.contiguous()) for points in (reference, landmarks))
    middle, middles = goal.mean(), found.mean(dim=1, keepdim=True)
    turn = ((found - middles) * (goal - middle).conj()).sum(dim=1) / (goal - middle).abs().square().sum()
    shift = middles[:, 0] - turn * middle
    rows = [torch.view_as_real(each) for each in (turn, 1j * turn, shift)]
    return torch.stack(rows, dim=1)
