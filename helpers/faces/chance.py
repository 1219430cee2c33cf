"""Random numbers that depend on what they are for, not on the order in which they are asked.

Each number is a hash of (seed, stream, index, counter). So face 7,000 is the same whether it is drawn alone
or among ten thousand others, in blocks of 64 or of 1,024.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


def _mix(bits: Tensor) -> Tensor:
    # "lowbias32" by Chris Wellons (public domain); products wrap in int64, the low 32 bits stay right.
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D & _MASK
    bits = (bits ^ (bits >> 15)) * 0x846CA68B & _MASK
    return bits ^ (bits >> 16)


def bits(seed: int, stream: str, index: Tensor, num: int) -> Tensor:
    """Return hashed integers.

    Args:
        seed: any integer from 0 to 2**32 - 1.
        stream: what the numbers are for; two streams are independent.
        index: int64 ``[N]``, the face or person.
        num: how many numbers each needs.

    Returns:
        int64 ``[N, num]``, uniform on 0 to 2**32 - 1.
    """
    start = torch.tensor(seed & _MASK, device=index.device)
    key = _mix(_mix(start) ^ zlib.crc32(stream.encode()))
    row = _mix(_mix(index & _MASK) ^ key)
    return _mix(row[:, None] ^ _mix(torch.arange(1, num + 1, device=index.device) * 0x9E3779B9 & _MASK))


def uniform(seed: int, stream: str, index: Tensor, num: int) -> Tensor:
    """Return float32 ``[N, num]``, uniform on (0, 1); see :func:`bits` for the arguments."""
    return ((bits(seed, stream, index, num) >> 8).float() + 0.5) / 2**24


def normal(seed: int, stream: str, index: Tensor, num: int) -> Tensor:
    """Return float32 ``[N, num]``, standard normal; see :func:`bits` for the arguments."""
    return torch.special.ndtri(uniform(seed, stream, index, num))
