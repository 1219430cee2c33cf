"""A 3 by 3 convolution with fewer multiplications (Winograd 1980; Lavin and Gray 2015, arXiv 1509.09308).

A tile of m outputs along a line takes m + 2 products instead of 3 m: inputs and kernel are read as
polynomials, brought to their values at m + 2 points, multiplied there, and brought back. On a plane both
savings multiply: tiles of 6 by 6 need a fifth of the products. What is left are plain matrix products, a
few pictures at a time, so that all of it stays in the processor's cache.

A side of one or two pixels takes still fewer, as beyond it all is zero: [g1 g2; g0 g1] times [d0 d1] is made
of g1 (d0 + d1), (g2 - g1) d1 and (g0 - g1) d0, three products and not four.

With the matrices A, B and G of :func:`matrices`, where * multiplies element by element::

    a tile of outputs      Aᵀ (B d Bᵀ * G g Gᵀ) A         d: the tile's inputs, g: the kernel
    gradient of d          Bᵀ (A e Aᵀ * G g Gᵀ) B         e: the gradient of the tile's outputs
    gradient of g          Gᵀ (A e Aᵀ * B d Bᵀ) G         summed over tiles and pictures
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Where polynomials are taken, beside infinity. More of them, for larger tiles, would cost digits: with tiles
of 6 errors are twice those of tiles of 4, and eight times PyTorch's, at some 5e-6 of what comes out."""
WHOLE = 6
"""Pixels of a side up to which it is one tile."""
CACHE = 2**24
"""Bytes of values at points that are treated at a time."""
KEPT = 2**24
"""Bytes of inputs at points, up to which a layer keeps them for the way back; more are computed again. Twice
as many, and a ResNet-18 on pictures of 112 pixels would take more than two gigabytes."""


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


class _Transform:
    """``down @ tile @ across.T`` of many tiles: ``[a, b, ...]`` to ``[points, ...]``, and its transpose."""

    def __init__(self, down: np.ndarray, across: np.ndarray, dtype: torch.dtype) -> None:
        self.sides = [torch.from_numpy(matrix).to(dtype) for matrix in (down, across)]
        self.both = torch.from_numpy(np.kron(down, across)).to(dtype)
        self.at_once = len(self.both) <= 25  # more operations, but a product that fills the processor

    def __call__(self, tiles: Tensor) -> Tensor:
        return self._product(*self.sides, self.both, tiles)

    def transposed(self, values: Tensor) -> Tensor:
        down, across = self.sides
        values = values.view(len(down), len(across), -1)
        return self._product(down.T, across.T, self.both.T, values).view(down.shape[1], across.shape[1], -1)

    def _product(self, down: Tensor, across: Tensor, both: Tensor, tiles: Tensor) -> Tensor:
        height, width, *_ = tiles.shape
        if self.at_once:
            return both @ tiles.reshape(height * width, -1)
        half = (down @ tiles.reshape(height, -1)).view(len(down), width, -1)
        return torch.matmul(across, half).view(len(both), -1)


class _Side:
    """How a side of a map is cut into tiles, whose inputs reach beyond their outputs by ``reach`` pixels."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tile = size if size <= WHOLE else tile_of(size)
        self.tiles = -(-size // self.tile)
        self.reach = int(self.tiles > 1)
        self.matrices = matrices(self.tile) if self.reach else whole(size)
        self.beyond = self.tiles * self.tile - size
        """Pixels of the last tile that the map has not."""


class _Plane:
    """How maps ``[N, H, W, C]`` of one size are cut into tiles, and what brings those to the points."""

    def __init__(self, height: int, width: int, dtype: torch.dtype) -> None:
        self.sides = _Side(height), _Side(width)
        self.size, self.tile = (height, width), tuple(side.tile for side in self.sides)
        self.tiles = tuple(side.tiles for side in self.sides)
        self.outputs, self.inputs, self.kernel = (
            _Transform(*pair, dtype) for pair in zip(*(side.matrices for side in self.sides), strict=True)
        )
        self.points = len(self.inputs.both)

    def inputs_of(self, maps: Tensor) -> Tensor:
        """Return the inputs of each tile, which may overlap by two, at the points: ``[points, tiles, C]``."""
        down, across = ((side.reach, side.reach + side.beyond) for side in self.sides)
        patches = F.pad(maps, (0, 0, *across, *down)) if any(down + across) else maps
        for axis, side in enumerate(self.sides):
            patches = patches.unfold(axis + 1, side.tile + 2 * side.reach, side.tile)
        return self.inputs(patches.permute(4, 5, 0, 1, 2, 3)).view(self.points, -1, maps.shape[-1])

    def inputs_back(self, values: Tensor) -> Tensor:
        """Return the gradient ``[N, H, W, C]`` of the maps of which ``inputs_of`` made ``values``."""
        (rows, columns), (m, n), channels = self.tiles, self.tile, values.shape[-1]
        a, b = (2 * side.reach for side in self.sides)
        patches = self.inputs.transposed(values).view(m + a, n + b, -1, rows, columns, channels)
        patches = patches.permute(2, 3, 0, 4, 1, 5)
        if not a and not b:
            return patches.reshape(len(patches), *self.size, channels)
        total = patches.new_zeros(len(patches), rows + 1, m, columns + 1, n, channels)
        total[:, :-1, :, :-1] = patches[:, :, :m, :, :n]
        total[:, 1:, :a, :-1] += patches[:, :, m:, :, :n]  # what reaches into the tile below
        total[:, :-1, :, 1:, :b] += patches[:, :, :m, :, n:]
        total[:, 1:, :a, 1:, :b] += patches[:, :, m:, :, n:]
        total = total.view(len(total), (rows + 1) * m, (columns + 1) * n, channels)
        down, across = (slice(side.reach, side.reach + side.size) for side in self.sides)
        return total[:, down, across]

    def joined(self, values: Tensor) -> Tensor:
        """Return the maps ``[N, H, W, C]`` whose tiles of outputs have ``values`` at the points."""
        (rows, columns), (m, n), channels = self.tiles, self.tile, values.shape[-1]
        tiles = self.outputs.transposed(values).view(m, n, -1, rows, columns, channels)
        maps = tiles.permute(2, 3, 0, 4, 1, 5).reshape(-1, rows * m, columns * n, channels)
        return maps[:, : self.size[0], : self.size[1]]

    def joined_back(self, maps: Tensor) -> Tensor:
        """Return the gradient of the values of which ``joined`` made the maps: ``[points, tiles, C]``."""
        bottom, right = (side.beyond for side in self.sides)
        (rows, columns), (m, n), channels = self.tiles, self.tile, maps.shape[-1]
        padded = F.pad(maps, (0, 0, 0, right, 0, bottom)) if bottom or right else maps
        tiles = padded.reshape(-1, rows, m, columns, n, channels).permute(2, 4, 0, 1, 3, 5)
        return self.outputs(tiles).view(self.points, -1, channels)

    def kernels(self, weight: Tensor) -> Tensor:
        """Return the kernels at the points: ``[points, O, I]``."""
        return self.kernel(weight.permute(2, 3, 0, 1)).view(self.points, *weight.shape[:2])

    def kernels_back(self, values: Tensor) -> Tensor:
        """Return the gradient ``[O, I, 3, 3]`` of the kernels of which ``kernels`` made ``values``."""
        return self.kernel.transposed(values).view(3, 3, *values.shape[1:]).permute(2, 3, 0, 1)

    def nbytes(self, images: Tensor) -> int:
        """Return what the pictures take at the points."""
        return self.points * self.tiles[0] * self.tiles[1] * len(images) * images.shape[1] * images.itemsize

    def parts(self, images: Tensor, kernels: Tensor) -> list[slice]:
        """Return which pictures to treat together."""
        each = self.nbytes(images[:1]) // images.shape[1] * max(kernels.shape[1:])
        some = max(1, CACHE // each)
        return [slice(i, i + some) for i in range(0, len(images), some)]


_plane = functools.lru_cache(maxsize=64)(_Plane)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        plane, maps = _plane(*images.shape[2:], images.dtype), images.permute(0, 2, 3, 1)
        kernels, kept = plane.kernels(weight), []
        answer = maps.new_empty(*maps.shape[:3], len(weight))
        for some in plane.parts(images, kernels):
            inputs = plane.inputs_of(maps[some])
            answer[some] = plane.joined(inputs @ kernels.mT)
            if plane.nbytes(images) <= KEPT:
                kept.append(inputs)
        ctx.save_for_backward(images, kernels, *kept)
        return answer.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        images, kernels, *kept = ctx.saved_tensors
        plane, maps = _plane(*images.shape[2:], images.dtype), images.permute(0, 2, 3, 1)
        gradient = gradient.permute(0, 2, 3, 1)
        of_maps = torch.empty_like(maps) if ctx.needs_input_grad[0] else None
        of_kernels = torch.zeros_like(kernels)
        for i, some in enumerate(plane.parts(images, kernels)):
            values = plane.joined_back(gradient[some])
            of_kernels.baddbmm_(values.mT, kept[i] if kept else plane.inputs_of(maps[some]))
            if of_maps is not None:
                of_maps[some] = plane.inputs_back(values @ kernels)
        of_images = None if of_maps is None else of_maps.permute(0, 3, 1, 2)
        return of_images, plane.kernels_back(of_kernels)
