"""What makes a training on a CPU faster and changes nothing but the last digits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

from helpers import runtime
from helpers.training.blocks import fused
from helpers.training.convolution import matrix_products


@contextmanager
def shortcuts(model: nn.Module) -> Iterator[None]:
    """Let a model take what shortcuts there are meanwhile, on its way forward; the way back follows.

    Args:
        model: whose pictures are on the CPU.
    """
    with matrix_products(), fused(model):
        yield


def load(models: Iterable[nn.Module]) -> None:
    """Have ready in this process what the trainings of models would compile, before it is copied for them.

    Args:
        models: to be trained.
    """
    convolutional = any(isinstance(part, nn.Conv2d) for model in models for part in model.modules())
    if convolutional and runtime.has_numba():
        from helpers.training import compiled

        compiled.load()
