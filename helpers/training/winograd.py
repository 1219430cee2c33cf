"""A 3 by 3 convolution with fewer multiplications (Winograd 1980; Lavin and Gray 2015, arXiv 1509.09308).

A tile of m outputs along a line takes m + 2 products instead of 3 m: inputs and kernel are read as
polynomials, brought to their values at m + 2 points, multiplied there, and brought back. On a plane both
savings multiply: tiles of 6 by 6 need a fifth of the products. What is left are plain matrix products, a
few pictures at a time, so that all of it stays in the processor's cache; compiled loops bring tiles to the
points and back (:mod:`helpers.training.compiled`).

A side of one or two pixels takes still fewer, as beyond it all is zero: [g1 g2; g0 g1] times [d0 d1] is made
of g1 (d0 + d1), (g2 - g1) d1 and (g0 - g1) d0, three products and not four.

With the matrices A, B and G of :func:`matrices`, where * multiplies element by element::

    a tile of outputs      Aᵀ (B d Bᵀ * G g Gᵀ) A         d: the tile's inputs, g: the kernel
    gradient of d          Bᵀ (A e Aᵀ * G g Gᵀ) B         e: the gradient of the tile's outputs
    gradient of g          Gᵀ (A e Aᵀ * B d Bᵀ) G         summed over tiles and pictures
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from helpers.training import compiled

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Where polynomials are taken, beside infinity. More of them, for larger tiles, would cost digits: with tiles
of 6 errors are twice those of tiles of 4, and eight times PyTorch's, at some 5e-6 of what comes out."""
WHOLE = 6
"""Pixels of a side up to which it is one tile."""
CACHE = 2**22
"""Bytes of values at points that are treated at a time; where the kernels take more, as many as those."""
KEPT = 10 * 2**20
"""Bytes of inputs at points, and of kernels, up to which a layer keeps them for the way back; more are
computed again. With twice as many a ResNet-18 on pictures of 112 pixels would take over two gigabytes."""


def convolve(images: Tensor, weight: Tensor) -> Tensor:
    """Return ``conv2d(images, weight, padding=1)``, up to rounding (some 1e-5 of the largest in float32).

    Args:
        images: ``[B, I, H, W]`` on the CPU in float32 or float64, best in channels-last memory.
        weight: ``[O, I, 3, 3]``.

    Returns:
        ``[B, O, H, W]`` in channels-last memory.
    """
    return _Convolution.apply(images, weight)


@functools.cache
def matrices(tile: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A ``[n, tile]``, B ``[n, n]`` and G ``[n, 3]``, where n = tile + 2.

    Aᵀ (B d * G g) are the ``tile`` sums d[i] g[0] + d[i + 1] g[1] + d[i + 2] g[2].

    Args:
        tile: outputs, 2 to 6.
    """
    size = tile + 2

    def values(coefficients: int) -> np.ndarray:
        """Give the values of a polynomial at the points, and its highest coefficient for infinity."""
        finite = np.vander(POINTS[: size - 1], coefficients, increasing=True)
        return np.vstack([finite, np.eye(coefficients)[-1:]])

    return values(tile), np.linalg.inv(values(size)).T, values(3)


def whole(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A and B ``[n, side]`` and G ``[n, 3]`` for a side that is one tile, with zeros beyond.

    Args:
        side: pixels, 1 to 6.
    """
    if side == 1:
        return np.ones((1, 1)), np.ones((1, 1)), np.array([[0.0, 1.0, 0.0]])
    if side == 2:
        outputs, inputs = [[1, 1], [1, 0], [0, 1]], [[1, 1], [0, 1], [1, 0]]
        return tuple(np.array(each, float) for each in (outputs, inputs, [[0, 1, 0], [0, -1, 1], [1, -1, 0]]))
    outputs, inputs, kernel = matrices(side)
    return outputs, inputs[:, 1:-1], kernel


def tile_of(side: int) -> int:
    """Return the outputs of a tile along a side of several, such that the side takes the fewest products.

    Args:
        side: of the map in pixels.
    """
    return min((2, 3, 4, 5, 6), key=lambda tile: -(-side // tile) * (tile + 2))


class _Side(NamedTuple):
    """A side of a map, cut into tiles whose inputs reach beyond their outputs by ``reach`` pixels."""

    tile: int
    tiles: int
    reach: int
    outputs: np.ndarray
    inputs: np.ndarray
    kernel: np.ndarray


def _cut(side: int) -> _Side:
    if side <= WHOLE:
        return _Side(side, 1, 0, *whole(side))
    tile = tile_of(side)
    return _Side(tile, -(-side // tile), 1, *matrices(tile))


class _Tiles:
    """Maps ``[N, H, W, C]`` cut into tiles, which two matrices bring to the points, and back."""

    def __init__(self, cut: compiled.Cut, matrices: Sequence[np.ndarray], kind: np.dtype) -> None:
        self.cut = cut
        self.there = [_to_eight_columns(matrix, kind) for matrix in matrices]
        self.back = [_to_eight_columns(matrix.T, kind) for matrix in matrices]

    def to_points(self, maps: Tensor) -> Tensor:
        """Return the values at the points of each tile of the maps: ``[points, tiles, C]``."""
        cut = self.cut
        number = len(maps) * cut.rows * cut.columns
        values = maps.new_empty(cut.points_down * cut.points_across, number, maps.shape[-1])
        compiled.to_points(maps.contiguous().numpy(), values.numpy(), *self.there, cut)
        return values

    def from_points(self, values: Tensor, maps: Tensor) -> None:
        """Fill maps, which lie in memory as they are, with the tiles of values at the points."""
        compiled.from_points(values.numpy(), maps.numpy(), *self.back, self.cut)


def _to_eight_columns(matrix: np.ndarray, kind: np.dtype) -> np.ndarray:
    # in one order of memory: for another all would be compiled once more
    return np.pad(matrix, ((0, 0), (0, compiled.LENGTH - matrix.shape[1]))).astype(kind, order="C")


class _Plane:
    """How maps of one size are cut into tiles, and what brings those and the kernels to the points."""

    def __init__(self, height: int, width: int, dtype: torch.dtype) -> None:
        down, across = _cut(height), _cut(width)
        kind = torch.empty(0, dtype=dtype).numpy().dtype
        places = (down.tiles, across.tiles, down.tile, across.tile)
        points = (len(down.outputs), len(across.outputs))
        self.outputs = _Tiles(compiled.Cut(*places, 0, 0, *points), (down.outputs, across.outputs), kind)
        reach = (down.reach, across.reach)
        self.inputs = _Tiles(compiled.Cut(*places, *reach, *points), (down.inputs, across.inputs), kind)
        self.kernel = torch.from_numpy(np.kron(down.kernel, across.kernel)).to(dtype)
        self.values = points[0] * points[1] * down.tiles * across.tiles
        """Numbers that a channel of a picture has at the points."""

    def kernels(self, weight: Tensor) -> Tensor:
        """Return the kernels at the points: ``[points, O, I]``."""
        outputs, inputs, *_ = weight.shape
        return (self.kernel @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(-1, outputs, inputs)

    def kernels_back(self, values: Tensor) -> Tensor:
        """Return the gradient ``[O, I, 3, 3]`` of the kernels of which ``kernels`` made ``values``."""
        _, outputs, inputs = values.shape
        return (self.kernel.T @ values.view(len(values), -1)).view(3, 3, outputs, inputs).permute(2, 3, 0, 1)

    def parts(self, images: Tensor, kernels: Tensor) -> list[slice]:
        """Return which pictures to treat together."""
        each = self.values * max(kernels.shape[1:]) * images.itemsize
        some = max(1, max(CACHE, kernels.nbytes) // each)
        return [slice(i, i + some) for i in range(0, len(images), some)]


_plane = functools.lru_cache(maxsize=64)(_Plane)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        plane, maps = _plane(*images.shape[2:], images.dtype), images.detach().permute(0, 2, 3, 1)
        kernels = plane.kernels(weight.detach())
        answer, kept = maps.new_empty(*maps.shape[:3], len(weight)), []
        for some in plane.parts(images, kernels):
            inputs = plane.inputs.to_points(maps[some])
            plane.outputs.from_points(inputs @ kernels.mT, answer[some])
            if plane.values * images.shape[1] * len(images) * images.itemsize <= KEPT:
                kept.append(inputs)
        ctx.save_for_backward(images, weight, kernels if kernels.nbytes <= KEPT else None, *kept)
        return answer.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        images, weight, kernels, *kept = ctx.saved_tensors
        plane, maps = _plane(*images.shape[2:], images.dtype), images.detach().permute(0, 2, 3, 1)
        kernels = plane.kernels(weight) if kernels is None else kernels
        gradient = gradient.permute(0, 2, 3, 1)
        of_kernels = torch.zeros_like(kernels)
        of_maps = maps.new_empty(maps.shape) if ctx.needs_input_grad[0] else None
        for i, some in enumerate(plane.parts(images, kernels)):
            values = plane.outputs.to_points(gradient[some])
            of_kernels.baddbmm_(values.mT, kept[i] if kept else plane.inputs.to_points(maps[some]))
            if of_maps is not None:
                plane.inputs.from_points(values @ kernels, of_maps[some])
        of_images = None if of_maps is None else of_maps.permute(0, 3, 1, 2)
        return of_images, plane.kernels_back(of_kernels)
