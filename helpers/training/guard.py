"""What can go wrong in a step: numbers that are not finite, and memory that does not suffice."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from helpers.batches import Batch
from helpers.training.evaluation import by_name

Forward = Callable[[Tensor, int], Any]
"""Gives a network's outputs, in float32, for the images of a part of a batch and that part's number."""

_SAYS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


# ---------------------------------------------------------------- numbers


def all_finite(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return whether a loss and every gradient are finite, as one boolean on the device.

    A gradient whose square overflows counts as not finite: it would spoil Adam's memory, and to look for the
    largest entry instead takes twenty times as long on a CPU.

    Args:
        loss: a scalar.
        parameters: those whose gradients are looked at.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients) if gradients else []
    return torch.isfinite(torch.stack([loss.detach(), *(norm.to(loss.dtype) for norm in norms)])).all()


class Answer:
    """A boolean on its way from the device; whoever asks for it a step later waits for nothing.

    Args:
        value: a boolean tensor with one element.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value.to("cpu", non_blocking=True)
        self.arrived = torch.cuda.Event() if value.is_cuda else None
        if self.arrived:
            self.arrived.record()

    def __bool__(self) -> bool:
        if self.arrived:
            self.arrived.synchronize()
        return bool(self.value)


def culprits(batch: Batch, loss: Callable[[Any, dict[str, Tensor]], Tensor], like: Any) -> list[int]:
    """Return which samples are to blame for a loss that is not finite; all of them where none stands out.

    Pixels are to blame that are not finite, targets that are infinite, and those for which the loss of zeros
    is not finite or is refused.

    Args:
        batch: what the loss was taken of.
        loss: function of (outputs, targets).
        like: outputs of the network, for their names and shapes.
    """
    blamed = ~torch.isfinite(batch.images).flatten(1).all(dim=1)
    for values in batch.targets.values():
        blamed |= torch.isinf(values).reshape(len(values), -1).any(dim=1)
    zeros = {name: torch.zeros_like(values[:1]) for name, values in by_name(like).items()}
    for row in range(len(batch.index)):
        targets = {name: values[row : row + 1] for name, values in batch.targets.items()}
        blamed[row] |= _is_bad(loss, zeros.get("", zeros), targets)
    return (batch.index[blamed] if blamed.any() else batch.index).tolist()


def _is_bad(
    loss: Callable[[Any, dict[str, Tensor]], Tensor], outputs: Any, targets: dict[str, Tensor]
) -> bool:
    try:
        with torch.no_grad():
            return not torch.isfinite(loss(outputs, targets))
    except ValueError:
        return True


# ---------------------------------------------------------------- memory


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or the machine has no memory left.

    Args:
        error: what a step raised; every back end has words of its own for it.
    """
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAYS)


def release(where: torch.device) -> None:
    """Hand back the memory that nothing holds any longer.

    Args:
        where: the device.
    """
    gc.collect()  # the tensors of the failed step hang on its traceback
    if where.type == "cuda":
        torch.cuda.empty_cache()
    if where.type == "mps":
        torch.mps.empty_cache()


def backward_in_parts(
    forward: Forward, loss: Callable[[Any], Tensor], images: Tensor, parts: int, model: nn.Module
) -> Tensor:
    """Add up the gradient of a whole batch with the memory of a part of it; return the loss.

    The loss may tie samples together, as 1 - CCC does, so it is taken of all outputs at once: they are
    computed without a graph first, then part by part with one, which carries the loss's gradient on (Gao et
    al. 2021, arXiv 2101.06983). It costs a second forward pass. The gradient is that of the whole batch up to
    rounding, except that batch norm takes its statistics over a part, and dropout draws for each part anew.

    Args:
        forward: the network; must do the same for the same part each time.
        loss: function of the outputs of the whole batch.
        images: ``[B, C, H, W]``.
        parts: how many, at most B.
        model: whose buffers (batch norm's running means) are to move once, not twice.
    """
    pieces = images.chunk(parts)
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        first = [by_name(forward(piece, part)) for part, piece in enumerate(pieces)]
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)
    whole = {name: torch.cat([each[name] for each in first]).requires_grad_() for name in first[0]}
    value = loss(whole.get("", whole))
    value.backward()
    start = 0
    for part, piece in enumerate(pieces):
        outputs, rows = by_name(forward(piece, part)), slice(start, start + len(piece))
        used = [name for name in outputs if whole[name].grad is not None]
        torch.autograd.backward([outputs[name] for name in used], [whole[name].grad[rows] for name in used])
        start += len(piece)
    return value.detach()
