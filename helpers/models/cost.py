"""What a network costs: numbers it learns, operations for a picture, memory for a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def num_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Return how many numbers the network learns.

    Args:
        model: any network.
        trainable_only: count only what an optimiser would change (``requires_grad``).
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def flops(model: nn.Module, image_size: int = 48, in_channels: int = 1) -> int:
    """Return the floating-point operations for one picture forward: a multiplication and an addition are two.

    Counted are convolutions, matrix products and attention, next to which the rest is little.

    Args:
        model: any network.
        image_size: height and width in pixels.
        in_channels: of the picture.
    """
    with _as_it_was(model), torch.no_grad(), _attention_in_steps(), FlopCounterMode(display=False) as counter:
        model.eval()(_pictures(model, 1, image_size, in_channels))
    return counter.get_total_flops()


@contextmanager
def _attention_in_steps() -> Iterator[None]:
    """Have attention computed by matrix products, which are counted; its fused forms are not."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def step_memory(model: nn.Module, batch_size: int, image_size: int = 48, in_channels: int = 1) -> int:
    """Return the bytes that a training step holds at its fullest, in float32.

    That is the weights, a gradient and AdamW's two means for each that learns, and what the forward pass
    keeps for the backward one. Counted, not measured: the same on every machine, and without what a
    library takes for itself.

    Args:
        model: any network.
        batch_size: pictures a step.
        image_size: height and width in pixels.
        in_channels: of the pictures.
    """
    kept: dict[int, int] = {}
    own = {weights.untyped_storage().data_ptr() for weights in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with _as_it_was(model), torch.enable_grad(), hooks:
        outputs = model.train()(_pictures(model, batch_size, image_size, in_channels))
        held = sum(kept.values())  # while the graph is there, and no address is used again
    del outputs
    learned = num_parameters(model, trainable_only=True)
    return 4 * (num_parameters(model) + 3 * learned) + held


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Put each layer's mode and its running means back afterwards."""
    modes = {module: module.training for module in model.modules()}
    before = [(values, values.clone()) for values in model.buffers()]
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        for values, were in before:
            values.copy_(were)


def _pictures(model: nn.Module, num: int, image_size: int, in_channels: int) -> Tensor:
    where = next((weights.device for weights in model.parameters()), "cpu")
    return torch.zeros(num, in_channels, image_size, image_size, device=where)
