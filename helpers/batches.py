"""Batches of faces on the device, and batched augmentation that no cut, order or batch size can change.

The whole set lies on the device as uint8; a batch is an index, a cast, one warp and two sums. What is random
about a sample is a hash of (seed, epoch, sample), so a stopped and resumed training sees the same images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import files, runtime

MEAN, STD = 0.5, 0.25
"""Pixels are scaled to [0, 1], then MEAN is subtracted and the rest divided by STD; the same for all sets."""

TARGETS = ("labels", "valence_arousal", "distribution")
"""The fields of a face set that a batch carries to the loss."""

Bits = TypeVar("Bits", int, Tensor)
Change = dict[str, Tensor]  # how a batch is augmented: a tensor [B, ...] for each kind of change

_ORDER, _FLIP = 0, 1  # which of a sample's random numbers decides what
_WARP, _LIGHT, _ERASE = slice(2, 8), slice(8, 10), slice(10, 15)
_DRAWS = 15
_AHEAD = 64  # batches whose changes are drawn at once: a hundred small operations, too many for each batch


LIMITS = dict.fromkeys(("translation", "brightness", "contrast", "erasing"), 1.0)
LIMITS |= {"rotation": 180.0, "scale": 0.9, "perspective": 0.9}
"""The largest amount of each change of :class:`Augment`."""


class Faces(Protocol):
    """What batches are made from; see ``datasets.FaceSet`` for shapes and units."""

    images: np.ndarray
    labels: np.ndarray
    valence_arousal: np.ndarray | None
    distribution: np.ndarray | None


@dataclass(frozen=True)
class Augment:
    """How far a training image may be changed; each amount is drawn uniformly, and zero leaves it out.

    Args:
        flip: mirror each image in every second epoch, from a random start (Jordan 2024, arXiv 2404.00498).
        rotation: largest turn either way, in degrees, at most 180.
        translation: largest shift either way, as a fraction of the side length, at most 1.
        scale: largest zoom in or out, as a fraction, at most .9.
        perspective: largest tilt, at most .9; 0.2 makes one edge 20 % shorter than the opposite one.
        brightness: largest change of brightness, as a fraction of the full range, at most 1.
        contrast: largest change of contrast, as a fraction, at most 1.
        erasing: probability that a rectangle of 2 to 20 % of the area turns mean grey (Zhong et al. 2017,
            arXiv 1708.04896).

    Raises:
        ValueError: an amount outside its range.
    """

    flip: bool = True
    rotation: float = 10.0
    translation: float = 0.08
    scale: float = 0.1
    perspective: float = 0.0
    brightness: float = 0.1
    contrast: float = 0.2
    erasing: float = 0.25

    def __post_init__(self) -> None:
        for name, high in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool | str) or not 0 <= value <= high:
                raise ValueError(f"Augment({name}={value}): must be from 0 to {high:g}")

    @classmethod
    def none(cls) -> Augment:
        """Return the augmentation that changes nothing."""
        return cls(False, *[0.0] * len(LIMITS))

    def scaled(self, strength: float) -> Augment:
        """Return this augmentation with every amount times ``strength``, at most to the end of its range."""
        amounts = {name: min(high, strength * getattr(self, name)) for name, high in LIMITS.items()}
        return replace(self, **amounts)


@dataclass(frozen=True)
class Batch:
    """One batch on the device."""

    images: Tensor  # float32 [B, C, H, W], normalised; or features [B, D]
    targets: dict[str, Tensor]  # [B, ...] by name; see TARGETS
    index: Tensor  # int64 [B], which samples of the set these are


class Batches:
    """A set of faces on a device, handed out in batches.

    Args:
        faces: the set; its images are uint8 ``[N, H, W]`` or ``[N, 3, H, W]``, or features, float ``[N, D]``,
            which are handed out as they are.
        batch_size: images a batch. An unshuffled pass keeps a last, smaller batch; a shuffled one leaves it
            out, unless it is the only one.
        seed: of shuffling and augmentation, from 0 to 2**32 - 1.
        augment: how to change the images, or None.
        shuffle: draw a new order for each epoch.
        device: where the set lies and the batches are made.
        resident: keep all images on the device, or read each batch from disk; by default what there is room
            for. Only memory-mapped images can be read from disk.
        share: (rank, world): of each batch this process makes every ``world``-th sample from ``rank`` on.

    Raises:
        ValueError: the set is empty, or the batch size is not positive or cannot be shared evenly.
    """

    def __init__(
        self,
        faces: Faces,
        batch_size: int = 128,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        shuffle: bool = False,
        device: torch.device | str = "cpu",
        resident: bool | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if len(faces.images) == 0:
            raise ValueError("no faces to make batches from: the set is empty")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if batch_size % share[1]:
            raise ValueError(f"batch_size {batch_size} cannot be shared evenly by {share[1]} processes")
        self.device = torch.device(device)
        self.images = _held(faces.images, self.device, resident)
        arrays = {name: getattr(faces, name) for name in TARGETS}
        self.targets = {name: _on_device(a, self.device) for name, a in arrays.items() if a is not None}
        self.batch_size, self.seed, self.shuffle, self.augment = batch_size, seed, shuffle, augment
        self.share = slice(share[0], None, share[1])

    @property
    def num_samples(self) -> int:
        """The number of faces in the set."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all images together, ``(N, C, H, W)``, or of all features, ``(N, D)``."""
        shape = tuple(self.images.shape)
        return (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, self.num_samples // self.batch_size)
        return math.ceil(self.num_samples / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the order in which the samples of an epoch come, int64 ``[N]`` on the CPU."""
        samples = torch.arange(self.num_samples)
        if not self.shuffle:
            return samples
        # a stable sort, so that the order is the same on every machine where two keys are equal
        return random_bits(self.seed, epoch, samples, _ORDER, _ORDER + 1)[:, 0].sort(stable=True).indices

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, which decides order and augmentation, from batch ``start`` on."""
        order, size = self.order(epoch), self.batch_size
        places = [slice(step * size, (step + 1) * size) for step in range(start, len(self))]
        there = order.to(self.device)  # one copy for the whole epoch: each makes a GPU wait
        cuts = [(order[place][self.share], there[place][self.share]) for place in places]
        for first in range(0, len(cuts), _AHEAD):
            yield from self._some(cuts[first : first + _AHEAD], epoch)

    def batch(self, index: Tensor, epoch: int = 0) -> Batch:
        """Return the samples ``index``, int64 ``[B]``, augmented as in that epoch, as one batch."""
        return next(self._some([(index.cpu(), index.to(self.device))], epoch))

    def _some(self, cuts: list[tuple[Tensor, Tensor]], epoch: int) -> Iterator[Batch]:
        """Yield the batches of some indices, each given on the CPU and on the device."""
        indices = [index for _, index in cuts]
        change: Change = {}
        if self.augment is not None and len(self.shape) == 4:  # features stay as they are
            change = _drawn(self.augment, self.seed, epoch, torch.cat(indices), self.shape[-2:])
        sizes = [len(index) for index in indices]
        parts = {name: values.split(sizes) for name, values in change.items()}
        for i, (index, pixels) in enumerate(zip(indices, self._pixels(cuts), strict=True)):
            images = pixels
            if not pixels.is_floating_point():
                images = normalise(pixels if pixels.ndim == 4 else pixels.unsqueeze(1))
                images = _changed(images, {name: part[i] for name, part in parts.items()})
            yield Batch(images, {name: values[index] for name, values in self.targets.items()}, index)

    def _pixels(self, cuts: list[tuple[Tensor, Tensor]]) -> Iterator[Tensor]:
        """Yield the pixels of each batch; from disk, the next batch is read while this one is worked on."""
        if isinstance(self.images, Tensor):
            yield from (self.images.index_select(0, index) for _, index in cuts)
            return
        cuda = self.device.type == "cuda"  # elsewhere a copy that nobody waits for is read before it arrives

        def read(cut: Tensor) -> Tensor:
            pixels = torch.from_numpy(self.images[cut.numpy()])
            return pixels.pin_memory() if cuda else pixels

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read, cuts[0][0])
            for following in [*(cut for cut, _ in cuts[1:]), None]:
                pixels = coming.result()
                if following is not None:
                    coming = reader.submit(read, following)
                yield pixels.to(self.device, non_blocking=cuda)


def _held(
    images: np.ndarray | files.Rows, device: torch.device, resident: bool | None
) -> Tensor | files.Rows:
    """Return the images on the device, or as rows of their file where they do not fit."""
    in_file = isinstance(images, np.memmap | files.Rows)
    if resident or not in_file or (resident is None and images.nbytes <= runtime.free_memory(device) // 2):
        return _on_device(np.asarray(images), device)
    return images if isinstance(images, files.Rows) else files.Rows(images)


def _on_device(array: np.ndarray, device: torch.device) -> Tensor:
    if array.dtype == np.float64:  # NumPy's usual type, which Apple's GPUs do not have
        array = array.astype(np.float32)
    # a copy on the CPU as well: a read-only memory map must not be handed to torch
    return torch.tensor(np.ascontiguousarray(array)).to(device)


def normalise(images: Tensor) -> Tensor:
    """Return uint8 images, any shape, as float32: scaled to [0, 1], less MEAN, divided by STD."""
    return images.float().mul_(1 / (255 * STD)).sub_(MEAN / STD)


def random_bits(seed: int, epoch: int, samples: Tensor, first: int, end: int) -> Tensor:
    """Return the 32-bit numbers ``first`` to ``end - 1`` of each sample, int64 ``[B, end - first]``."""
    # Wellons's lowbias32 (nullprogram.com/blog/2018/07/31), applied to seed, epoch, sample and number in turn
    key = _mix(_mix(seed) ^ epoch)
    return _mix(_mix(key ^ samples)[:, None] ^ torch.arange(first, end, device=samples.device))


def random_number(seed: int, epoch: int, sample: int, draw: int) -> int:
    """Return one number of :func:`random_bits` without a tensor, for what is drawn at every step."""
    return _mix(_mix(_mix(_mix(seed) ^ epoch) ^ sample) ^ draw)


def _mix(x: Bits) -> Bits:
    low = 0xFFFFFFFF
    x = (x + 0x9E3779B9) & low  # so that zero is no fixed point
    x = (x ^ (x >> 16)) * 0x7FEB352D & low
    x = (x ^ (x >> 15)) * 0x846CA68B & low
    return x ^ (x >> 16)


def augmented(images: Tensor, augment: Augment, seed: int, epoch: int, samples: Tensor) -> Tensor:
    """Return the images, float ``[B, C, H, W]`` and normalised, changed by what is drawn for each sample.

    ``samples`` are their ids, int64 ``[B]``; the same (seed, epoch, sample) is always changed the same way.
    """
    return _changed(images, _drawn(augment, seed, epoch, samples, images.shape[-2:]))


def _drawn(augment: Augment, seed: int, epoch: int, samples: Tensor, size: tuple[int, ...]) -> Change:
    """Return how each sample is changed in an epoch; kinds of change that are left out are not in it."""
    draws = random_bits(seed, epoch, samples, 0, _DRAWS).float() / 2**32  # [B, 15] in [0, 1)
    start = random_bits(seed, 0, samples, _FLIP, _FLIP + 1)[:, 0]  # of epoch 0: where the alternation begins
    change, mirrored = {}, ((start + epoch) % 2 == 1) & augment.flip
    if augment.rotation or augment.translation or augment.scale or augment.perspective:
        homography = _homography(augment, draws[:, _WARP] * 2 - 1, mirrored)
        change["homography"] = homography if augment.perspective else homography[:, :2]
    elif augment.flip:
        change["mirrored"] = mirrored
    if augment.brightness or augment.contrast:
        contrast, brightness = (draws[:, _LIGHT] * 2 - 1).unbind(1)
        change["gain"] = 1 + contrast * augment.contrast
        change["offset"] = brightness * augment.brightness / STD
    if augment.erasing:
        change["rows"], change["columns"] = _rectangle(augment, draws[:, _ERASE], size)
    return change


def _changed(images: Tensor, change: Change) -> Tensor:
    if "homography" in change:
        images = _warp(images, change["homography"])
    elif "mirrored" in change:
        images = torch.where(change["mirrored"][:, None, None, None], images.flip(-1), images)
    if "gain" in change:
        gain, offset = (change[name][:, None, None, None] for name in ("gain", "offset"))
        images = torch.addcmul(offset, images, gain)
    if "rows" in change:  # less itself is 0; three times as fast as to fill a mask
        rectangle = change["rows"][:, None, :, None] * change["columns"][:, None, None, :]
        images = torch.addcmul(images, images, rectangle, value=-1)
    return images


def _warp(images: Tensor, homography: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    y, x = ((torch.arange(n, device=images.device) * 2 + 1) / n - 1 for n in (height, width))
    x, y = x.expand(height, width), y[:, None].expand(height, width)  # pixel centres in [-1, 1]
    points = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)
    # one product of tall matrices: a product for each image took twenty times as long on a CPU
    mapped = (homography.reshape(-1, 3) @ points).view(len(images), -1, height, width)
    grid = mapped[:, :2]
    if mapped.shape[1] == 3:
        grid = grid / mapped[:, 2:]
    # Edges are repeated by holding the grid inside: border padding is not there on every Apple GPU.
    grid[:, 0].clamp_(1 / width - 1, 1 - 1 / width)
    grid[:, 1].clamp_(1 / height - 1, 1 - 1 / height)
    return F.grid_sample(images, grid.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)


def _homography(augment: Augment, draws: Tensor, mirrored: Tensor) -> Tensor:
    """Return ``[B, 3, 3]``: where in [-1, 1] coordinates of the old image each point of the new one lies."""
    turn, shift_x, shift_y, zoom, tilt_x, tilt_y = draws.unbind(1)
    angle = turn * math.radians(augment.rotation)
    size = 1 + zoom * augment.scale
    cos, sin = angle.cos() * size, angle.sin() * size
    flip = 1 - 2 * mirrored.to(draws.dtype)
    rows = [
        [cos * flip, -sin, shift_x * 2 * augment.translation],
        [sin * flip, cos, shift_y * 2 * augment.translation],
        [tilt_x * augment.perspective / 2, tilt_y * augment.perspective / 2, torch.ones_like(turn)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _rectangle(augment: Augment, draws: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return which rows ``[B, H]`` and columns ``[B, W]`` are erased, 1.0 or 0.0."""
    chance, area, aspect, left, top = draws.unbind(1)
    area, aspect = 0.02 + 0.18 * area, torch.exp((aspect * 2 - 1) * math.log(3))
    height, width = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    rows = _between(size[0], top * (1 - height), height) & (chance < augment.erasing)[:, None]
    return rows.to(draws.dtype), _between(size[1], left * (1 - width), width).to(draws.dtype)


def _between(size: int, start: Tensor, length: Tensor) -> Tensor:
    centres = (torch.arange(size, device=start.device) + 0.5) / size
    return (centres >= start[:, None]) & (centres < (start + length)[:, None])
