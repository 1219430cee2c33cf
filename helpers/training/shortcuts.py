"""What makes a training on a CPU faster and changes nothing but the last digits."""

from __future__ import annotations

from collections.abc import Iterator
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
    with matrix_products():
        if not runtime.has_numba():
            yield
            return
        with fused(model):
            yield
