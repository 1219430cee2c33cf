"""Batch norm, ReLU and pooling in a row as one operation, where a network is trained on a CPU.

One after the other they read and write a large map a dozen times, a third of a small network's training. But
the largest of four pixels stays the largest when all are scaled and shifted (the smallest, where the scale is
negative), and ReLU keeps their order too. So the maps are pooled first, on the same pass that takes their
statistics, and the rest has a quarter of the work. What comes out is the same up to rounding, and so are all
gradients.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from helpers import runtime


@contextmanager
def fused(model: nn.Module) -> Iterator[None]:
    """Let each ``nn.Sequential`` of a model take BatchNorm2d, ReLU and MaxPool2d(2) in one step meanwhile.

    Where it has none of these, or Numba is not there to compile it, nothing is changed (nor Numba imported).

    Args:
        model: whose pictures are on the CPU.
    """
    plain = [module for module in model.modules() if type(module) is nn.Sequential]
    changed = [module for module in plain if "forward" not in vars(module) and _has_block(module)]
    if changed and not runtime.has_numba():
        changed = []
    for sequential in changed:
        sequential.forward = functools.partial(_forward, sequential)
    try:
        yield
    finally:
        for sequential in changed:
            del sequential.forward


def norm_relu_pool(images: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Return what batch norm, ReLU and MaxPool2d(2) make of maps, and move the running statistics.

    Args:
        images: ``[B, C, H, W]`` on the CPU in float32 or float64, H and W even.
        norm: in training mode.

    Returns:
        ``[B, C, H / 2, W / 2]`` in channels-last memory.
    """
    norm.num_batches_tracked.add_(1)
    pooled, mean, variance = _Block.apply(images, norm.weight, norm.bias, norm.eps)
    pixels = images.numel() // images.shape[1]
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)
    return pooled


def _forward(sequential: nn.Sequential, images: Any) -> Any:
    modules = list(sequential)
    while modules:
        if _is_block(modules[:3]) and _fits(modules[:3], images):
            images = norm_relu_pool(images, modules[0])
            modules = modules[3:]
        else:
            images = modules.pop(0)(images)
    return images


def _has_block(sequential: nn.Sequential) -> bool:
    return any(_is_block(list(sequential)[i : i + 3]) for i in range(len(sequential)))


def _is_block(modules: list[nn.Module]) -> bool:
    if [type(module) for module in modules] != [nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]:
        return False
    norm, _, pool = modules
    halves = pool.kernel_size in {2, (2, 2)} and pool.stride in {2, (2, 2)}
    plain = pool.padding in {0, (0, 0)} and pool.dilation in {1, (1, 1)} and not pool.return_indices
    return halves and plain and norm.affine and norm.track_running_stats and norm.momentum is not None


def _fits(modules: list[nn.Module], images: Tensor) -> bool:
    """Return whether these maps can be taken in one step, and nobody looks at what is in between."""
    norm = modules[0]
    watched = any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    watched |= any(module._backward_hooks or module._backward_pre_hooks for module in modules)
    if watched or not norm.training or images.device.type != "cpu" or images.ndim != 4:
        return False
    if images.shape[1] != norm.num_features or images.dtype != norm.weight.dtype:
        return False  # PyTorch says what is wrong; compiled loops would read on
    even = not (images.shape[2] % 2 or images.shape[3] % 2) and images.numel() > images.shape[1]
    return even and images.dtype in {torch.float32, torch.float64}


def _last(values: Tensor) -> Tensor:
    """Return maps ``[B, C, H, W]`` as ``[B, H, W, C]`` in this order in memory."""
    return values.detach().permute(0, 2, 3, 1).contiguous()


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        from helpers.training import compiled  # now, as it brings Numba

        maps, weight = _last(images), weight.detach()
        pooled = maps.new_empty(len(maps), maps.shape[1] // 2, maps.shape[2] // 2, maps.shape[3])
        places = torch.empty_like(pooled, dtype=torch.uint8)
        arrays = (each.numpy() for each in (maps, weight.sign(), pooled, places))
        mean, variance = torch.from_numpy(compiled.pool(*arrays)).to(maps.dtype)
        spread = (variance + eps).rsqrt()
        scale = weight * spread
        answer = torch.addcmul(bias - mean * scale, pooled, scale).relu_()
        ctx.save_for_backward(maps, weight, mean, spread, pooled, places, answer)
        ctx.mark_non_differentiable(mean, variance)
        return answer.permute(0, 3, 1, 2), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        from helpers.training import compiled  # now, as it brings Numba

        maps, weight, mean, spread, pooled, places, answer = ctx.saved_tensors
        channels = maps.shape[-1]
        gradient = torch.where(answer > 0, _last(gradient), 0)
        of_bias = gradient.view(-1, channels).sum(0)
        of_weight = ((gradient * pooled).view(-1, channels).sum(0) - mean * of_bias) * spread
        of_maps = None
        if ctx.needs_input_grad[0]:
            # of (maps - mean) * spread * weight + bias, where mean and spread depend on the maps (Ioffe 2015)
            pixels, scale = maps.numel() // channels, weight * spread
            slope = -scale * spread * of_weight / pixels
            shift = -scale * of_bias / pixels - slope * mean
            of_maps = torch.empty_like(maps)
            arrays = (each.numpy() for each in (gradient * scale, places, maps, slope, shift, of_maps))
            compiled.unpool(*arrays)
            of_maps = of_maps.permute(0, 3, 1, 2)
        return of_maps, of_weight, of_bias, None
