"""Histograms of oriented gradients (Dalal and Triggs, CVPR 2005), and the SVM that reads them.

A gradient of uint8 pixels is a pair of integers in -255..255, so its length and direction are looked up in a
table, and a cell's histogram is the mean of its pixels' rows; conventions as in ``skimage.feature.hog``.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from skimage.draw import line
from sklearn.svm import SVC
from sklearn.utils import check_X_y

from helpers import files, one_of, runtime

BLOCK_NORMS = ("L1", "L1-sqrt", "L2", "L2-Hys")
DEFAULTS = {"orientations": 9, "pixels_per_cell": (8, 8), "cells_per_block": (2, 2), "block_norm": "L2-Hys"}
"""The settings of Dalal and Triggs, with scikit-image's names: the arguments of :func:`hog`."""
MOST_IN_A_PAIR = 40_000  # faces of two classes: their kernel fills 13 GB
EPS = 1e-5  # scikit-image's guard against division by zero
ARRAYS = ("support_vectors", "coefficients", "intercepts")
KERNEL_ROWS = 256  # of a kernel that are made at once
PIXELS_AT_ONCE = 150_000  # what one batch of this size needs stays in the processor's cache


def hog(
    images: np.ndarray,
    orientations: int = 9,
    pixels_per_cell: tuple[int, int] = (8, 8),
    cells_per_block: tuple[int, int] = (2, 2),
    block_norm: str = "L2-Hys",
) -> np.ndarray:
    """Return the HOG features of many images at once, equal to ``skimage.feature.hog`` of each.

    Args:
        images: uint8 ``[N, H, W]``, or ``[N, 3, H, W]`` whose strongest channel counts at each pixel.
        orientations: number of bins that share 180 degrees.
        pixels_per_cell: height and width of a cell; a rest at the right or below is unused.
        cells_per_block: height and width of a block; blocks overlap, one starts at every cell.
        block_norm: "L1", "L1-sqrt", "L2" or "L2-Hys" (clipped at 0.2 and normalised again).

    Returns:
        float32 ``[N, D]``, D = block rows * block columns * cells per block * orientations, in that order.
    """
    one_of("block_norm", block_norm, BLOCK_NORMS)
    parts = []
    for histograms in _histograms(images, orientations, pixels_per_cell, cells_per_block):
        blocks = histograms.unfold(1, cells_per_block[0], 1).unfold(2, cells_per_block[1], 1)
        blocks = blocks.permute(0, 1, 2, 4, 5, 3).flatten(3)  # of [N, rows, columns, bins, height, width]
        if block_norm.startswith("L1"):
            blocks = blocks / (blocks.sum(-1, keepdim=True) + EPS)
            blocks = blocks.sqrt() if block_norm == "L1-sqrt" else blocks
        else:
            blocks = _unit(blocks)
            blocks = _unit(blocks.clamp(max=0.2)) if block_norm == "L2-Hys" else blocks
        parts.append(blocks.flatten(1))
    return torch.cat(parts).numpy()


def _unit(blocks: torch.Tensor) -> torch.Tensor:
    return blocks / (blocks.square().sum(-1, keepdim=True) + EPS**2).sqrt()


def cells(images: np.ndarray, orientations: int = 9, pixels_per_cell: tuple[int, int] = (8, 8)) -> np.ndarray:
    """Return the histogram of each cell before its block is normalised: what :func:`picture` draws.

    It takes the arguments of :func:`hog` and returns float32 ``[N, rows, columns, orientations]``: gradient
    length (grey levels over two pixels) in each bin, averaged over the pixels of the cell.
    """
    return torch.cat(list(_histograms(images, orientations, pixels_per_cell))).numpy()


def picture(histograms: np.ndarray, glyph: tuple[int, int] = (8, 8)) -> np.ndarray:
    """Draw each cell as a star of lines, one a bin: along the edge it saw, as bright as the bin is full.

    With ``glyph``, a star's height and width in pixels, equal to ``pixels_per_cell`` this is scikit-image's
    ``visualize`` image. Takes ``[..., rows, columns, orientations]`` from :func:`cells` or a mean of such;
    returns float32 ``[..., rows * glyph height, columns * glyph width]``.
    """
    histograms = np.asarray(histograms, dtype=np.float32)
    if histograms.ndim < 3:
        raise ValueError(f"histograms are [..., rows, columns, orientations], not {list(histograms.shape)}")
    *batch, rows, columns, orientations = histograms.shape
    (y, x), radius = (glyph[0] // 2, glyph[1] // 2), max(0, min(glyph) // 2 - 1)
    stars = np.zeros((orientations, *glyph), dtype=np.float32)
    for star, angle in zip(stars, np.pi * (np.arange(orientations) + 0.5) / orientations, strict=True):
        dy, dx = radius * np.cos(angle), radius * np.sin(angle)
        ends = np.floor(np.round([y - dy, x + dx, y + dy, x - dx], 9)).astype(int)  # 0.99.. is 1
        star[line(*ends)] = 1
    drawn = np.einsum("...rco,oyx->...rycx", histograms, stars)
    return drawn.reshape(*batch, rows * glyph[0], columns * glyph[1])


def _histograms(
    images: np.ndarray, orientations: int, cell: tuple[int, int], block: tuple[int, int] = (1, 1)
) -> Iterator[torch.Tensor]:
    """Yield the cells of some images after the other, float32 ``[n, rows, columns, orientations]``."""
    shape = list(getattr(images, "shape", ()))
    if len(shape) not in {3, 4} or (len(shape) == 4 and shape[1] != 3):
        raise ValueError(f"images are [N, H, W] or [N, 3, H, W], not {shape}; one image is image[None]")
    if images.dtype != np.uint8:
        raise ValueError(f"images are uint8 from 0 to 255, not {images.dtype}; round and convert them first")
    numbers = (orientations, *np.ravel(cell), *np.ravel(block))
    if len(numbers) != 5 or not all(isinstance(n, int | np.integer) and n > 0 for n in numbers):
        what = "orientations, pixels_per_cell (height, width) and cells_per_block are integers from 1 up"
        raise ValueError(f"{what}, not {orientations!r}, {cell!r} and {block!r}")
    (height, width), (y, x) = cell, shape[-2:]
    if height * block[0] > y or width * block[1] > x:
        what = f"{y} x {x} pixels are smaller than one block of {height * block[0]} x {width * block[1]}"
        raise ValueError(f"images of {what}; use smaller cells or blocks")
    rows, columns, step = y // height, x // width, max(1, PIXELS_AT_ONCE // int(np.prod(shape[1:])))
    for start in range(0, max(1, len(images)), step):
        code = _gradients(images[start : start + step])[:, : rows * height, : columns * width]
        bags = code.reshape(len(code), rows, height, columns, width)
        bags = bags.transpose(2, 3).reshape(-1, height * width)
        means = torch.nn.functional.embedding_bag(bags, _table(orientations), mode="mean")
        yield means.view(len(code), rows, columns, orientations)


def _gradients(images: np.ndarray) -> torch.Tensor:
    """Return int32 ``[N, H, W]``: 511 * (row gradient + 255) + column gradient + 255; 0 across borders."""
    grey = torch.from_numpy(images.astype(np.int32, order="C"))
    code = torch.full(images.shape, 511 * 255 + 255, dtype=torch.int32)
    code[..., 1:-1, :].add_(grey[..., 2:, :], alpha=511).sub_(grey[..., :-2, :], alpha=511)
    code[..., 1:-1].add_(grey[..., 2:]).sub_(grey[..., :-2])
    if images.ndim == 3:
        return code
    # _table(1) holds the lengths; of equal ones the first counts, as in scikit-image
    strongest = _table(1)[code.flatten(), 0].view(code.shape).argmax(1, keepdim=True)
    return code.gather(1, strongest)[:, 0]


@functools.lru_cache(maxsize=4)
def _table(orientations: int) -> torch.Tensor:
    """Return float32 ``[511 * 511, orientations]``: a gradient's length in the bin of its direction."""
    gradient = np.arange(-255.0, 256.0)
    degrees = np.arctan2(gradient[:, None], gradient[None]) * (180 / np.pi) % 180
    edges = 180.0 / orientations * np.arange(1, orientations)
    table = np.zeros((511 * 511, orientations), dtype=np.float32)
    lengths, bins = np.hypot(gradient[None], gradient[:, None]), np.searchsorted(edges, degrees, side="right")
    table[np.arange(511 * 511), bins.ravel()] = lengths.ravel()
    return torch.from_numpy(table)


@dataclass(frozen=True)
class SVM:
    """A fitted support vector machine with a Gaussian kernel, one against one (as LIBSVM): plain arrays.

    S support vectors of D features, K classes, P = K (K - 1) / 2 pairs (0, 1), (0, 2), ..., (K - 2, K - 1);
    the kernel is exp(-gamma |a - b|^2). ``settings`` are the arguments of :func:`hog` for the features.
    """

    classes: tuple[str, ...]
    gamma: float
    support_vectors: np.ndarray  # float32 [S, D]
    coefficients: np.ndarray  # float64 [S, P], 0 where a vector supports nothing in a pair
    intercepts: np.ndarray  # float64 [P], NaN for a pair of which a class had no face
    settings: dict

    @classmethod
    def fit(
        cls,
        features: np.ndarray,
        labels: np.ndarray,
        classes: tuple[str, ...],
        C: float = 1.0,
        gamma: float | str = "scale",
        settings: dict | None = None,
    ) -> SVM:
        """Return the machine that scikit-learn's ``SVC(C=C, gamma=gamma)`` would be, several times sooner.

        Args:
            features: float ``[N, D]``, for instance from :func:`hog`.
            labels: integers ``[N]``, an index into ``classes``.
            classes: K names.
            C: cost of a face on the wrong side, above 0; larger fits the training faces more closely.
            gamma: width of the kernel; "scale" is :func:`gamma_scale` of the features.
            settings: arguments of :func:`hog` that made the features, where they are not ``DEFAULTS``.
        """
        features, labels = check_X_y(features, labels, dtype=np.float32, order="C")
        names, settings = tuple(classes), DEFAULTS | (settings or {})
        if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(names):
            raise ValueError(f"labels are integers from 0 to {len(names) - 1}, one a class of {names}")
        if labels.min() == labels.max():
            raise ValueError(f"every face is {names[labels[0]]!r}; an SVM needs faces of two classes")
        if (largest := int(np.sort(np.bincount(labels))[-2:].sum())) > MOST_IN_A_PAIR:
            what = f"have {largest:,} faces, more than the {MOST_IN_A_PAIR:,} whose kernel fits in memory"
            raise ValueError(f"the two largest classes {what}; fit to fewer, drawn at random")
        gamma = gamma_scale(features) if gamma == "scale" else gamma
        if not isinstance(gamma, float | int | np.number) or not 0 < gamma < np.inf:
            raise ValueError(f"gamma is a number above 0, not {gamma!r}")
        coefficients, intercepts = _fit_pairs(features, labels, len(names), C, gamma)
        kept = np.flatnonzero(coefficients.any(axis=1))
        return cls(names, float(gamma), features[kept], coefficients[kept], intercepts, settings)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features of images as the machine was trained on: :func:`hog` with its settings."""
        return hog(images, **self.settings)

    def decision(self, features: np.ndarray) -> np.ndarray:
        """Return float64 ``[N, P]`` of features ``[N, D]``: above 0 for the first class of a pair."""
        features, width = torch.tensor(features, dtype=torch.float64), self.support_vectors.shape[1]
        if features.ndim != 2 or features.shape[1] != width:
            what = f"features are [N, {width}], not {list(features.shape)}"
            raise ValueError(f"{what}; make them with SVM.features (settings {self.settings})")
        vectors, coefficients = (torch.tensor(a).double() for a in (self.support_vectors, self.coefficients))
        parts = [_kernel(rows, vectors, self.gamma) @ coefficients for rows in features.split(KERNEL_ROWS)]
        return torch.cat(parts).numpy() + self.intercepts

    def votes(self, features: np.ndarray) -> np.ndarray:
        """Return how many of its pairs each class wins, int64 ``[N, K]``, for features ``[N, D]``."""
        sides, wins = self.decision(features), np.eye(len(self.classes), dtype=np.int64)
        first, second = np.triu_indices(len(self.classes), 1)
        return (sides > 0) @ wins[first] + (sides <= 0) @ wins[second]  # NaN is neither

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the class with most votes, int64 ``[N]``; the first of equals, as LIBSVM."""
        return self.votes(features).argmax(axis=1)

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file of plain arrays in one step: no pickle, so that loading it runs no code."""
        words = json.dumps({"classes": self.classes, "gamma": self.gamma, "settings": self.settings})
        with files.replacing(path) as file:
            np.savez(file, words=words, **{name: getattr(self, name) for name in ARRAYS})

    @classmethod
    def load(cls, path: str | Path) -> SVM:
        """Read a machine that :meth:`save` wrote; ValueError where the file is damaged or something else."""
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no SVM at {path}; SVM.fit(...).save({str(path)!r}) writes one")
        try:
            with np.load(path, allow_pickle=False) as file:
                words, *arrays = (file[name] for name in ("words", *ARRAYS))
            words = json.loads(str(words))
            (num, _), pairs = arrays[0].shape, len(words["classes"]) * (len(words["classes"]) - 1) // 2
            if (arrays[1].shape, arrays[2].shape) != ((num, pairs), (pairs,)):
                raise ValueError(f"arrays of shape {[array.shape for array in arrays]}")
            settings = {name: tuple(v) if isinstance(v, list) else v for name, v in words["settings"].items()}
            return cls(tuple(words["classes"]), words["gamma"], *arrays, settings)
        except Exception as error:  # damaged bytes lead to errors of any kind
            reason = "it holds a pickle" if "pickle" in str(error) else str(error).partition("\n")[0]
            raise ValueError(f"{path} is not a whole SVM ({reason}); fit and save it again") from None


def gamma_scale(features: np.ndarray) -> float:
    """Return scikit-learn's ``gamma="scale"``: 1 / (D * variance of all features ``[N, D]``)."""
    variance = float(np.var(features, dtype=np.float64))
    return 1.0 / (features.shape[1] * variance) if variance else 1.0


def _kernel(a: torch.Tensor, b: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return exp(-gamma |a_i - b_j|^2), ``[len(a), len(b)]``, with |a - b|^2 = |a|^2 + |b|^2 - 2 a.b."""
    squared = torch.addmm(b.square().sum(1)[None], a, b.T, alpha=-2).add_(a.square().sum(1)[:, None])
    return squared.clamp_(min=0).mul_(-gamma).exp_()


def _fit_pairs(
    features: np.ndarray, labels: np.ndarray, num_classes: int, C: float, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients ``[N, P]`` and intercepts ``[P]``; each core fits another pair."""
    rows = [np.flatnonzero(labels == label) for label in range(num_classes)]
    part = [torch.from_numpy(features[these]).double() for these in rows]
    pairs = list(itertools.combinations(range(num_classes), 2))
    coefficients, intercepts = np.zeros((len(features), len(pairs))), np.full(len(pairs), np.nan)

    def between(i: int, j: int) -> torch.Tensor:
        """Return the kernel of two classes in float32, as LIBSVM keeps it, made some rows at a time."""
        kernel = torch.empty(len(part[i]), len(part[j]))
        for some, faces in zip(kernel.split(KERNEL_ROWS), part[i].split(KERNEL_ROWS), strict=True):
            some.copy_(_kernel(faces, part[j], gamma))
        return kernel

    def fit(pair: int) -> None:
        (i, j), (first, second) = pairs[pair], (len(rows[label]) for label in pairs[pair])
        if not first or not second:
            return
        kernel, across = np.empty((first + second, first + second)), between(i, j)
        kernel[:first, :first], kernel[first:, first:] = within[i], within[j]
        kernel[:first, first:], kernel[first:, :first] = across, across.T
        # the faces in LIBSVM's own order, so that it takes the same steps
        machine = SVC(C=C, kernel="precomputed", cache_size=500).fit(kernel, np.arange(len(kernel)) >= first)
        coefficients[np.concatenate([rows[i], rows[j]])[machine.support_], pair] = -machine.dual_coef_[0]
        intercepts[pair] = -machine.intercept_[0]

    # a pair's kernel takes up to 1.2 GB on FER2013: no more at once than half the free memory holds
    sizes, threads = [sum(len(rows[label]) for label in pair) for pair in pairs], torch.get_num_threads()
    at_once = max(1, min(threads, runtime.free_memory(torch.device("cpu")) // (16 * max(sizes) ** 2)))
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            # LIBSVM makes a kernel row by row, for each pair anew; here matrix products, once within a class
            within = list(pool.map(between, range(num_classes), range(num_classes)))
            list(pool.map(fit, np.argsort(sizes)[::-1].tolist()))
    finally:
        torch.set_num_threads(threads)
    return coefficients, intercepts
