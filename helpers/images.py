"""The one way a file becomes pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return square images of another size: area average when shrinking, bilinear when enlarging.

    Args:
        pixels: uint8 ``[N, H, W]`` grey.
        size: side in pixels.

    Returns:
        uint8 ``[N, size, size]``.
    """
    if pixels.shape[1:] == (size, size):
        return pixels
    kind = Image.Resampling.BOX if size < min(pixels.shape[1:]) else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(p).resize((size, size), kind)) for p in pixels])


def check_is_data(path: Path, head: bytes) -> None:
    """Raise if a file's first bytes are not data but what stands in for it.

    Args:
        path: for the message.
        head: the first bytes.

    Raises:
        ValueError: a git-lfs pointer, a web page, or nothing.
    """
    start = head[:200].lstrip().lower()
    if not start:
        raise ValueError(f"{path}: is empty; download it again")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path}: is a git-lfs pointer, not the data; run `git lfs pull`, or download it itself"
        )
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(
            f"{path}: is a web page, not the data; log in where it is offered and download it again"
        )
