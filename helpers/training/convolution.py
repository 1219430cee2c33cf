"""Convolutions of a training on a CPU as matrix products, where those are faster.

A 3 by 3 convolution of many channels in float32 goes by Winograd's way (:mod:`helpers.training.winograd`),
which needs a fifth to a third of the multiplications, where Numba is there to compile it.

Others that give small maps take the gradient of their weights as one product: the CPU's library sums it row
by row, and a row of three pixels leaves most of a vector register empty; here all pixels of all pictures are
the rows of one matrix (im2col), and the processor is full. On maps of two pixels that is 2 to 14 times as
fast. Either way what comes out is the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from helpers import runtime

LARGEST = 3
"""Pixels a side up to which im2col was the faster way, with AMX, with AVX-512 and with AVX2."""
FEWEST = 21
"""Product of input and output channels over their sum from which Winograd's way was the faster, with AVX2:
32 to 64 channels. Bringing fewer to the points and back costs as much as it saves."""


class matrix_products(TorchFunctionMode):  # noqa: N801 (a context, named as torch.no_grad is)
    """A context in which convolutions on a CPU that are being trained become matrix products where it pays.

    The rest is untouched, and half precision never goes by Winograd's way, which would cost it digits.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Call ``func``, or, where it is a convolution that fits, its twin."""
        if func is not torch.conv2d or kwargs or not _plain(*args):
            return func(*args, **(kwargs or {}))
        images, weight, _, stride, padding, *_ = args
        half = torch.is_autocast_enabled("cpu")
        if not half and _saves_products(images, weight, stride, padding):
            from helpers.training import winograd  # now, as it brings Numba

            return winograd.convolve(images, weight)
        if not all(0 < side <= LARGEST for side in _sides(images, weight, stride, padding)):
            return func(*args)
        if half:
            images, weight = (each.to(torch.get_autocast_dtype("cpu")) for each in (images, weight))
        return _Convolution.apply(images, weight, stride, padding)


def _plain(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> bool:
    pairs = isinstance(stride, tuple) and isinstance(padding, tuple)  # as a layer hands them over
    plain = bias is None and groups == 1 and dilation == (1, 1) and pairs
    return plain and images.device.type == "cpu" and images.ndim == 4 and weight.requires_grad


def _saves_products(
    images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> bool:
    outputs, inputs, *kernel = weight.shape
    fits = kernel == [3, 3] and stride == padding == (1, 1) and images.itemsize >= 4
    fits = (
        fits and images.shape[1] == inputs and images.dtype == weight.dtype
    )  # or PyTorch says what is wrong
    return fits and outputs * inputs >= FEWEST * (outputs + inputs) and runtime.has_numba()


def _sides(images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> list[int]:
    """Return height and width of the map that comes out."""
    each = zip(images.shape[2:], weight.shape[2:], stride, padding, strict=True)
    return [(size + 2 * pad - kernel) // step + 1 for size, kernel, step, pad in each]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple, padding: tuple) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.how = (stride, padding)
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(images, weight, None, stride, padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        of_images = of_weight = None
        if ctx.needs_input_grad[0]:
            of_images = torch.nn.grad.conv2d_input(images.shape, weight, gradient, *ctx.how)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(images, weight, gradient, *ctx.how)
        return of_images, of_weight, None, None


def _of_weight(
    images: Tensor, weight: Tensor, gradient: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Return the gradient of the weight: pixels ``[O, B·H·W]`` times patches ``[B·H·W, kh·kw·I]``."""
    rows = gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])
    around = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    patches = around
    for axis in (0, 1):
        patches = patches.unfold(axis + 1, weight.shape[2 + axis], stride[axis])
    patches = patches.permute(0, 1, 2, 4, 5, 3).reshape(len(rows), -1)  # [B, H, W, kh, kw, I], flattened
    product = rows.T @ patches
    return product.view(weight.shape[0], *weight.shape[2:], weight.shape[1]).permute(0, 3, 1, 2)
