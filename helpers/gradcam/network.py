"""A network as it is questioned: in evaluation mode, in its own precision, and put back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from helpers import did_you_mean


def layer_of(model: nn.Module, layer: str | nn.Module) -> nn.Module:
    """Return a layer of a network.

    Args:
        model: any network.
        layer: the layer itself, or its name in ``model.named_modules()``.

    Raises:
        ValueError: it is no layer of the network.
    """
    named = dict(model.named_modules())
    if isinstance(layer, nn.Module):
        if not any(layer is module for module in named.values()):
            raise ValueError(f"this {type(layer).__name__} is no layer of the network; take one of its own")
        return layer
    if layer not in named:
        parts = ", ".join(name for name, _ in model.named_children())
        raise ValueError(f"no layer {layer!r} in the network{did_you_mean(layer, named)}; its parts: {parts}")
    return named[layer]


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Put a network in evaluation mode and autocast out of action; then each layer back into its own mode.

    Args:
        model: any network.
    """
    modes = {module: module.training for module in model.modules()}
    where = next((weights.device.type for weights in model.parameters()), "cpu")
    model.eval()
    try:
        with torch.autocast(where, enabled=False):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def run(model: nn.Module, images: Tensor) -> Any:
    """Return what the network puts out, on the device and in the precision of its weights.

    Args:
        model: any network.
        images: ``[B, C, H, W]``.
    """
    weights = next((p for p in model.parameters() if p.is_floating_point()), images)
    return model(images.to(weights.device, weights.dtype, copy=True))  # autograd takes no inference tensor
