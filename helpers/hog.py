"""Histograms of oriented gradients, and the support vector machine that reads them.

A gradient of uint8 pixels is a pair of integers in -255..255, so its length and direction are looked up, not
computed: one table row per gradient, and a cell's histogram is the mean of the rows of its pixels.
Dalal and Triggs, "Histograms of oriented gradients for human detection", CVPR 2005; the conventions
(borders, bins, incomplete cells) are those of ``skimage.feature.hog``.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sklearn
import torch
from skimage.draw import line
from sklearn.svm import SVC

from helpers import files, one_of, runtime

BLOCK_NORMS = ("L1", "L1-sqrt", "L2", "L2-Hys")
DEFAULTS = {
    "orientations": 9,
    "pixels_per_cell": (8, 8),
    "cells_per_block": (2, 2),
    "block_norm": "L2-Hys",
}
"""The settings of Dalal and Triggs, with scikit-image's names: the arguments of :func:`hog`."""
FORMAT = "reading-faces hog+svm 1"
MOST_IN_A_PAIR = 40_000  # faces of two classes: their kernel fills 13 GB
EPS = 1e-5  # scikit-image's guard against division by zero
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
        orientations: number of bins that share 180 degrees, at least 1.
        pixels_per_cell: height and width of a cell in pixels; a rest at the right or below is unused.
        cells_per_block: height and width of a block in cells; blocks overlap, one starts at every cell.
        block_norm: "L1", "L1-sqrt", "L2" or "L2-Hys" (clipped at 0.2 and normalised again).

    Returns:
        float32 ``[N, D]``, D = block rows * block columns * cells per block * orientations, in that order.

    Raises:
        ValueError: the images are no uint8 batch or smaller than a block, or a setting is out of range.
    """
    one_of("block_norm", block_norm, BLOCK_NORMS)
    _check(images, orientations, pixels_per_cell, cells_per_block)
    parts = (_cells(part, orientations, pixels_per_cell) for part in _parts(images))
    return torch.cat([_blocks(part, cells_per_block, block_norm).flatten(1) for part in parts]).numpy()


def cells(images: np.ndarray, orientations: int = 9, pixels_per_cell: tuple[int, int] = (8, 8)) -> np.ndarray:
    """Return the histogram of each cell before its block is normalised: what :func:`picture` draws.

    Args:
        images: as for :func:`hog`.
        orientations: as for :func:`hog`.
        pixels_per_cell: as for :func:`hog`.

    Returns:
        float32 ``[N, rows, columns, orientations]``: gradient length (grey levels over two pixels) in each
        bin, averaged over the pixels of the cell.
    """
    _check(images, orientations, pixels_per_cell, (1, 1))
    return torch.cat([_cells(part, orientations, pixels_per_cell) for part in _parts(images)]).numpy()


def picture(histograms: np.ndarray, glyph: tuple[int, int] = (8, 8)) -> np.ndarray:
    """Draw each cell as a star of lines, one a bin: along the edge it saw, as bright as the bin is full.

    With ``glyph`` equal to ``pixels_per_cell`` this is scikit-image's ``visualize`` picture.

    Args:
        histograms: ``[..., rows, columns, orientations]`` from :func:`cells`, or a mean of such.
        glyph: height and width of a drawn cell in pixels.

    Returns:
        float32 ``[..., rows * glyph height, columns * glyph width]``.
    """
    histograms = np.asarray(histograms, dtype=np.float32)
    if histograms.ndim < 3:
        raise ValueError(f"histograms are [..., rows, columns, orientations], not {list(histograms.shape)}")
    _check_pair("glyph", glyph)
    *batch, rows, columns, orientations = histograms.shape
    (y, x), radius = (glyph[0] // 2, glyph[1] // 2), max(0, min(glyph) // 2 - 1)
    stars = np.zeros((orientations, *glyph), dtype=np.float32)
    for star, angle in zip(stars, np.pi * (np.arange(orientations) + 0.5) / orientations, strict=True):
        dy, dx = radius * np.cos(angle), radius * np.sin(angle)
        ends = np.floor(np.round([y - dy, x + dx, y + dy, x - dx], 9)).astype(int)  # 0.99.. is 1
        star[line(*ends)] = 1
    drawn = np.einsum("...rco,oyx->...rycx", histograms, stars)
    return drawn.reshape(*batch, rows * glyph[0], columns * glyph[1])


def _check(
    images: np.ndarray, orientations: int, pixels_per_cell: tuple[int, int], cells_per_block: tuple[int, int]
) -> None:
    shape = list(getattr(images, "shape", ()))
    if len(shape) not in {3, 4} or (len(shape) == 4 and shape[1] != 3):
        raise ValueError(f"images are [N, H, W] or [N, 3, H, W], not {shape}; one image is image[None]")
    if images.dtype != np.uint8:
        raise ValueError(f"images are uint8 from 0 to 255, not {images.dtype}; round and convert them first")
    if not isinstance(orientations, int | np.integer) or orientations < 1:
        raise ValueError(f"orientations is an integer from 1 up, not {orientations!r}")
    _check_pair("pixels_per_cell", pixels_per_cell)
    _check_pair("cells_per_block", cells_per_block)
    need = [cell * block for cell, block in zip(pixels_per_cell, cells_per_block, strict=True)]
    if need[0] > shape[-2] or need[1] > shape[-1]:
        raise ValueError(
            f"images of {shape[-2]} x {shape[-1]} pixels are smaller than one block of {need[0]} x {need[1]};"
            " use larger images or smaller cells or blocks"
        )


def _check_pair(name: str, pair: tuple[int, int]) -> None:
    sides = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (0, 0)
    if any(not isinstance(side, int | np.integer) or side < 1 for side in sides):
        raise ValueError(f"{name} is (height, width), two integers from 1 up, not {pair}")


def _parts(images: np.ndarray) -> list[np.ndarray]:
    step = max(1, PIXELS_AT_ONCE // int(np.prod(images.shape[1:])))
    return [images[start : start + step] for start in range(0, max(1, len(images)), step)]


def _gradients(images: np.ndarray) -> torch.Tensor:
    """Return int32 ``[N, H, W]``: 511 * (row gradient + 255) + column gradient + 255; 0 across borders."""
    grey = torch.from_numpy(images.astype(np.int32, order="C"))
    code = torch.full(images.shape, 511 * 255 + 255, dtype=torch.int32)
    code[..., 1:-1, :].add_(grey[..., 2:, :], alpha=511).sub_(grey[..., :-2, :], alpha=511)
    code[..., 1:-1].add_(grey[..., 2:]).sub_(grey[..., :-2])
    if images.ndim == 3:
        return code
    strongest = _lengths().ravel()[code.numpy()].argmax(axis=1)  # the first of equals, as in scikit-image
    return code.gather(1, torch.from_numpy(strongest)[:, None])[:, 0]


@functools.cache
def _lengths() -> np.ndarray:
    gradient = np.arange(-255.0, 256.0)
    return np.hypot(gradient[None], gradient[:, None])


@functools.lru_cache(maxsize=4)
def _table(orientations: int) -> torch.Tensor:
    """Return float32 ``[511 * 511, orientations]``: a gradient's length in the bin of its direction."""
    gradient = np.arange(-255.0, 256.0)
    degrees = np.arctan2(gradient[:, None], gradient[None]) * (180 / np.pi) % 180
    edges = 180.0 / orientations * np.arange(1, orientations)
    table = np.zeros((511 * 511, orientations), dtype=np.float32)
    table[np.arange(511 * 511), np.searchsorted(edges, degrees.ravel(), side="right")] = _lengths().ravel()
    return torch.from_numpy(table)


def _cells(images: np.ndarray, orientations: int, pixels_per_cell: tuple[int, int]) -> torch.Tensor:
    height, width = pixels_per_cell
    num, rows, columns = len(images), images.shape[-2] // height, images.shape[-1] // width
    code = _gradients(images)[:, : rows * height, : columns * width]
    bags = code.reshape(num, rows, height, columns, width).transpose(2, 3).reshape(-1, height * width)
    means = torch.nn.functional.embedding_bag(bags, _table(orientations), mode="mean")
    return means.view(num, rows, columns, orientations)


def _blocks(histograms: torch.Tensor, cells_per_block: tuple[int, int], block_norm: str) -> torch.Tensor:
    height, width = cells_per_block
    blocks = histograms.unfold(1, height, 1).unfold(2, width, 1)  # [N, rows, columns, bins, height, width]
    blocks = blocks.permute(0, 1, 2, 4, 5, 3).flatten(3)
    if block_norm.startswith("L1"):
        blocks = blocks / (blocks.sum(-1, keepdim=True) + EPS)
        return blocks.sqrt() if block_norm == "L1-sqrt" else blocks
    blocks = blocks / (blocks.square().sum(-1, keepdim=True) + EPS**2).sqrt()
    if block_norm == "L2":
        return blocks
    blocks = blocks.clamp(max=0.2)
    return blocks / (blocks.square().sum(-1, keepdim=True) + EPS**2).sqrt()


@dataclass(frozen=True)
class SVM:
    """A fitted support vector machine with a Gaussian kernel, one against one (as LIBSVM): plain arrays.

    S support vectors of D features, K classes, P = K (K - 1) / 2 pairs (0, 1), (0, 2), ..., (K - 2, K - 1).

    Args:
        classes: K names, in label order.
        gamma: width of the kernel exp(-gamma |a - b|^2), per squared unit of the features.
        support_vectors: float32 ``[S, D]``.
        coefficients: float64 ``[S, P]``; 0 where a vector supports nothing in a pair.
        intercepts: float64 ``[P]``; NaN for a pair of which a class had no face.
        settings: arguments of :func:`hog` that made the features.
    """

    classes: tuple[str, ...]
    gamma: float
    support_vectors: np.ndarray
    coefficients: np.ndarray
    intercepts: np.ndarray
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

        LIBSVM evaluates its kernel one row at a time, and once for each pair of classes that a face is in.
        Here it gets the kernel ready made by matrix products, those within a class once for all pairs, and
        each core another pair. A pair takes 8 bytes for every two of its faces, at most 1.2 GB on FER2013;
        no more are taken at once than half the free memory holds.

        Args:
            features: float ``[N, D]``, for instance from :func:`hog`.
            labels: integers ``[N]``, an index into ``classes``.
            classes: K names.
            C: cost of a face on the wrong side, above 0; larger fits the training faces more closely.
            gamma: as above; "scale" is 1 / (D * variance of the features), as in scikit-learn.
            settings: arguments of :func:`hog` that made the features, where they are not ``DEFAULTS``.

        Raises:
            ValueError: the arrays do not fit each other, a parameter is not positive, or all is one class.
        """
        features, labels = np.ascontiguousarray(features, dtype=np.float32), np.asarray(labels)
        _check_training(features, labels, classes)
        gamma = gamma_scale(features) if gamma == "scale" else gamma
        for name, value in {"C": C, "gamma": gamma}.items():
            if not isinstance(value, float | int | np.number) or not 0 < value < np.inf:
                raise ValueError(f"{name} is a number above 0, not {value!r}")
        coefficients, intercepts = _fit_pairs(features, labels, len(classes), C, gamma)
        kept = np.flatnonzero(coefficients.any(axis=1))
        settings = DEFAULTS | (settings or {})
        return cls(tuple(classes), float(gamma), features[kept], coefficients[kept], intercepts, settings)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Return the features of images as the machine was trained on: :func:`hog` with its settings.

        Args:
            images: as for :func:`hog`.
        """
        return hog(images, **self.settings)

    def decision(self, features: np.ndarray) -> np.ndarray:
        """Return float64 ``[N, P]`` of features ``[N, D]``: above 0 for the first class of a pair."""
        features = np.asarray(features, dtype=np.float32)
        if features.ndim != 2 or features.shape[1] != self.support_vectors.shape[1]:
            raise ValueError(
                f"features are [N, {self.support_vectors.shape[1]}], not {list(features.shape)}; "
                f"make them with SVM.features (settings {self.settings})"
            )
        sides = self._sides(features, torch.float32)
        near = (np.abs(sides) < 1e-3).any(
            axis=1
        )  # float32 rounds by less than 1e-4: these could change sides
        sides[near] = self._sides(features[near], torch.float64)
        return sides

    def _sides(self, features: np.ndarray, dtype: torch.dtype) -> np.ndarray:
        vectors = torch.from_numpy(self.support_vectors).to(dtype)
        coefficients = torch.from_numpy(self.coefficients).to(dtype)
        parts = torch.tensor(features, dtype=dtype).split(512)
        sides = [_kernel(part, vectors, self.gamma) @ coefficients for part in parts]
        return torch.cat(sides).numpy().astype(np.float64) + self.intercepts

    def votes(self, features: np.ndarray) -> np.ndarray:
        """Return how many of its pairs each class wins, int64 ``[N, K]``.

        Args:
            features: float ``[N, D]``.
        """
        sides = self.decision(features)
        votes = np.zeros((len(sides), len(self.classes)), dtype=np.int64)
        for pair, (first, second) in enumerate(itertools.combinations(range(len(self.classes)), 2)):
            votes[:, first] += sides[:, pair] > 0
            votes[:, second] += sides[:, pair] <= 0  # NaN is neither
        return votes

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the class with most votes, int64 ``[N]``; the first in label order among equals, as LIBSVM.

        Args:
            features: float ``[N, D]``.
        """
        return self.votes(features).argmax(axis=1)

    def save(self, path: str | Path) -> None:
        """Write the machine as plain arrays: no pickle, so that loading it runs no code.

        Args:
            path: an ``.npz`` file; one that stands there is replaced, in one step.
        """
        words = json.dumps({"classes": self.classes, "gamma": self.gamma, "settings": self.settings})
        arrays = {name: getattr(self, name) for name in ("support_vectors", "coefficients", "intercepts")}
        with files.replacing(path) as file:
            np.savez(file, format=FORMAT, words=words, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> SVM:
        """Read a machine that :meth:`save` wrote.

        Args:
            path: the ``.npz`` file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged or something else; a pickle in it is refused, not run.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no SVM at {path}; SVM.fit(...).save({str(path)!r}) writes one")
        try:
            with np.load(path, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
            if str(found.get("format")) != FORMAT:
                raise ValueError(f"its format is {found.get('format')}, not {FORMAT!r}")
            words = json.loads(str(found["words"]))
            arrays = [found[name] for name in ("support_vectors", "coefficients", "intercepts")]
            shapes, num = [array.shape for array in arrays], len(words["classes"])
            if shapes[1:] != [(len(arrays[0]), num * (num - 1) // 2), (num * (num - 1) // 2,)]:
                raise ValueError(f"arrays of shape {shapes}")
            settings = {name: tuple(v) if isinstance(v, list) else v for name, v in words["settings"].items()}
            return cls(tuple(words["classes"]), words["gamma"], *arrays, settings)
        except Exception as error:  # damaged bytes lead to errors of any kind
            reason = "it holds a pickle" if "pickle" in str(error) else str(error).partition("\n")[0]
            advice = "fit and save it again"
            raise ValueError(f"{path} is not a whole SVM of this workbook ({reason}); {advice}") from None


def gamma_scale(features: np.ndarray) -> float:
    """Return scikit-learn's ``gamma="scale"``: 1 / (D * variance of all features), a sensible first width.

    Args:
        features: float ``[N, D]``.
    """
    variance = float(np.var(features, dtype=np.float64))
    return 1.0 / (features.shape[1] * variance) if variance else 1.0


def _check_training(features: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    if features.ndim != 2 or labels.shape != (len(features),):
        raise ValueError(f"features [N, D] and labels [N] are of shape {features.shape} and {labels.shape}")
    if not np.isfinite(features).all():
        raise ValueError("features hold NaN or infinity; leave those faces out")
    if labels.dtype.kind not in "iu" or not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels are integers from 0 to {len(classes) - 1}, one a class of {tuple(classes)}")
    if labels.min() == labels.max():
        raise ValueError(f"every face is {classes[labels[0]]!r}; an SVM needs faces of two classes")
    largest = int(np.sort(np.bincount(labels))[-2:].sum())
    if largest > MOST_IN_A_PAIR:
        raise ValueError(
            f"the two largest classes have {largest:,} faces, more than the {MOST_IN_A_PAIR:,} whose kernel "
            "fits in memory; fit to fewer, drawn at random"
        )


def _kernel(a: torch.Tensor, b: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return exp(-gamma |a_i - b_j|^2), ``[len(a), len(b)]``, with |a - b|^2 = |a|^2 + |b|^2 - 2 a.b."""
    squared = torch.addmm(b.square().sum(1)[None], a, b.T, alpha=-2).add_(a.square().sum(1)[:, None])
    return squared.clamp_(min=0).mul_(-gamma).exp_()


def _fit_pairs(
    features: np.ndarray, labels: np.ndarray, num_classes: int, C: float, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients ``[N, P]`` and intercepts ``[P]``."""
    rows = [np.flatnonzero(labels == label) for label in range(num_classes)]
    pairs = list(itertools.combinations(range(num_classes), 2))
    part = [torch.from_numpy(features[these]).double() for these in rows]
    largest = sum(sorted(map(len, rows))[-2:])
    room = runtime.free_memory(torch.device("cpu")) // (2 * 8 * largest**2)
    at_once = max(1, min(torch.get_num_threads(), room))
    memory = [torch.empty(largest**2, dtype=torch.float64) for _ in range(at_once)]
    coefficients = np.zeros((len(features), len(pairs)))
    intercepts = np.full(len(pairs), np.nan)

    def within(one: torch.Tensor) -> torch.Tensor:
        kernel = torch.empty(len(one), len(one))  # float32, as LIBSVM keeps it
        for start in range(0, len(one), KERNEL_ROWS):
            end = start + KERNEL_ROWS
            kernel[start:end, start:] = _kernel(one[start:end], one[start:], gamma)
            kernel[end:, start:end] = kernel[start:end, end:].T
        return kernel

    def fit(pair: int) -> None:
        (i, j), mine = pairs[pair], memory.pop()
        first, num = len(rows[i]), len(rows[i]) + len(rows[j])
        kernel = mine[: num**2].view(num, num)
        kernel[:first, :first], kernel[first:, first:] = same[i], same[j]
        for start in range(0, first, KERNEL_ROWS):
            end = min(first, start + KERNEL_ROWS)
            across = _kernel(part[i][start:end], part[j], gamma).float()
            kernel[start:end, first:], kernel[first:, start:end] = across, across.T
        # the faces in LIBSVM's own order, so that it takes the same steps
        with sklearn.config_context(assume_finite=True):
            machine = SVC(C=C, kernel="precomputed", cache_size=500)
            machine.fit(kernel.numpy(), np.arange(num) >= first)
        memory.append(mine)
        coefficients[np.concatenate([rows[i], rows[j]])[machine.support_], pair] = -machine.dual_coef_[0]
        intercepts[pair] = -machine.intercept_[0]

    same = _spread(within, part, at_once)
    work = {pair: len(rows[i]) * len(rows[j]) for pair, (i, j) in enumerate(pairs)}
    _spread(fit, sorted(filter(work.get, work), key=work.get, reverse=True), at_once)
    return coefficients, intercepts


def _spread(work: Callable, items: Iterable, at_once: int) -> list:
    """Return ``work(item)`` of each, that many at a time, one thread of PyTorch each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(threads)
