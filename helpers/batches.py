"""Batches of faces on the device: the whole set as uint8; a batch is an index, a cast, one warp and two sums.

What is random about a sample is a hash of (seed, epoch, sample): no cut, order or batch size can change it.
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
    """What batches are made from, as a ``datasets.FaceSet``."""

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
        return cls(flip=False).scaled(0)

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
        batch_size: images a batch. A last, smaller one is left out when shuffled, unless it is the only one.
        seed: of shuffling and augmentation, from 0 to 2**32 - 1.
        augment: how to change the images, or None.
        shuffle: draw a new order for each epoch.
        device: where the set lies and the batches are made.
        resident: keep all images on the device, or read each batch of memory-mapped ones from disk; None for
            what there is room for.
        share: (rank, world): of each batch this process makes every ``world``-th sample from ``rank`` on.
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
        self.device, images = torch.device(device), faces.images
        if not isinstance(images, np.memmap | files.Rows):
            resident = True
        if resident or (resident is None and images.nbytes <= runtime.free_memory(self.device) // 2):
            self.images = _on_device(np.asarray(images), self.device)
        else:
            self.images = images if isinstance(images, files.Rows) else files.Rows(images)
        arrays = {name: getattr(faces, name) for name in TARGETS}
        self.targets = {name: _on_device(a, self.device) for name, a in arrays.items() if a is not None}
        self.batch_size, self.seed, self.shuffle, self.augment = batch_size, seed, shuffle, augment
        self.share = slice(share[0], None, share[1])
        shape = tuple(images.shape)
        self.shape = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape  # (N, C, H, W), or (N, D)

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, self.shape[0] // self.batch_size)
        return math.ceil(self.shape[0] / self.batch_size)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, which decides order and augmentation, from batch ``start`` on."""
        order, size = torch.arange(self.shape[0]), self.batch_size
        if self.shuffle:  # a stable sort: the same order on every machine where two keys are equal
            order = random_bits(self.seed, epoch, order, _ORDER).sort(stable=True).indices
        there = order.to(self.device)  # one copy for the whole epoch: each makes a GPU wait
        places = [slice(step * size, (step + 1) * size) for step in range(start, len(self))]
        indices = [there[place][self.share] for place in places]
        augment = self.augment if len(self.shape) == 4 else None  # features stay as they are
        parts: dict[str, tuple[Tensor, ...]] = {}
        for i, images in enumerate(self._pixels(indices, [order[place][self.share] for place in places])):
            if augment and i % _AHEAD == 0:
                some = indices[i : i + _AHEAD]
                change = _drawn(augment, self.seed, epoch, torch.cat(some), self.shape[-2:])
                parts = {name: values.split([len(e) for e in some]) for name, values in change.items()}
            if not images.is_floating_point():
                images = normalise(images if images.ndim == 4 else images.unsqueeze(1))
                images = _changed(images, {name: part[i % _AHEAD] for name, part in parts.items()})
            targets = {name: values[indices[i]] for name, values in self.targets.items()}
            yield Batch(images, targets, indices[i])

    def _pixels(self, indices: list[Tensor], on_cpu: list[Tensor]) -> Iterator[Tensor]:
        """Yield the pixels of each batch; from disk, the next batch is read while this one is worked on."""
        if isinstance(self.images, Tensor):
            yield from (self.images.index_select(0, index) for index in indices)
            return
        cuda = self.device.type == "cuda"  # elsewhere a copy that nobody waits for is read before it arrives

        def read(index: Tensor) -> Tensor:
            pixels = torch.from_numpy(self.images[index.numpy()])
            return pixels.pin_memory() if cuda else pixels

        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(read, on_cpu[0])
            for following in [*on_cpu[1:], None]:
                pixels = coming.result()
                if following is not None:
                    coming = reader.submit(read, following)
                yield pixels.to(self.device, non_blocking=cuda)


def _on_device(array: np.ndarray, device: torch.device) -> Tensor:
    if array.dtype == np.float64:  # NumPy's usual type, which Apple's GPUs do not have
        array = array.astype(np.float32)
    # a copy on the CPU as well: a read-only memory map must not be handed to torch
    return torch.tensor(np.ascontiguousarray(array)).to(device)


def normalise(images: Tensor) -> Tensor:
    """Return uint8 images, any shape, as float32: scaled to [0, 1], less MEAN, divided by STD."""
    return images.float().mul_(1 / (255 * STD)).sub_(MEAN / STD)


def random_bits(seed: int, epoch: int, sample: Bits, draw: Bits) -> Bits:
    """Return the 32-bit number of each sample and draw, which broadcast: tensors, or plain numbers."""
    # Wellons's lowbias32 (nullprogram.com/blog/2018/07/31), applied to seed, epoch, sample and draw in turn
    low, x = 0xFFFFFFFF, 0
    for number in (seed, epoch, sample, draw):
        x = ((x ^ number) + 0x9E3779B9) & low  # so that zero is no fixed point
        x = (x ^ (x >> 16)) * 0x7FEB352D & low
        x = (x ^ (x >> 15)) * 0x846CA68B & low
        x = x ^ (x >> 16)
    return x


def augmented(images: Tensor, augment: Augment, seed: int, epoch: int, samples: Tensor) -> Tensor:
    """Return normalised images ``[B, C, H, W]``, changed by what is drawn for ``samples`` ``[B]``."""
    return _changed(images, _drawn(augment, seed, epoch, samples, images.shape[-2:]))


def _drawn(augment: Augment, seed: int, epoch: int, samples: Tensor, size: tuple[int, ...]) -> Change:
    """Return how each sample is changed in an epoch; kinds of change that are left out are not in it."""
    numbers = torch.arange(_DRAWS, device=samples.device)
    draws = random_bits(seed, epoch, samples[:, None], numbers).float() / 2**32  # [B, 15] in [0, 1)
    start = random_bits(seed, 0, samples, _FLIP)  # of epoch 0: where the alternation begins
    change, mirrored = {}, ((start + epoch) % 2 == 1) & augment.flip
    if augment.rotation or augment.translation or augment.scale or augment.perspective:
        turn, shift_x, shift_y, zoom, tilt_x, tilt_y = (draws[:, _WARP] * 2 - 1).unbind(1)
        angle, zoom = turn * math.radians(augment.rotation), 1 + zoom * augment.scale
        cos, sin, flip = angle.cos() * zoom, angle.sin() * zoom, 1 - 2 * mirrored.to(draws.dtype)
        rows = [
            [cos * flip, -sin, shift_x * 2 * augment.translation],
            [sin * flip, cos, shift_y * 2 * augment.translation],
            [tilt_x * augment.perspective / 2, tilt_y * augment.perspective / 2, torch.ones_like(turn)],
        ]
        # [B, 3, 3]: where in [-1, 1] coordinates of the old image each point of the new one lies
        homography = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
        change["homography"] = homography if augment.perspective else homography[:, :2]
    elif augment.flip:
        change["mirrored"] = mirrored
    if augment.brightness or augment.contrast:
        contrast, brightness = (draws[:, _LIGHT] * 2 - 1).unbind(1)
        change["gain"] = 1 + contrast * augment.contrast
        change["offset"] = brightness * augment.brightness / STD
    if augment.erasing:
        chance, area, aspect, left, top = draws[:, _ERASE].unbind(1)
        area, aspect = 0.02 + 0.18 * area, torch.exp((aspect * 2 - 1) * math.log(3))
        rows = _between(size[0], top, (area * aspect).sqrt()) & (chance < augment.erasing)[:, None]
        columns = _between(size[1], left, (area / aspect).sqrt())
        change["rows"], change["columns"] = rows.to(draws.dtype), columns.to(draws.dtype)
    return change


def _between(size: int, place: Tensor, length: Tensor) -> Tensor:
    """Return which pixels of a side, bool ``[B, size]``, lie in a stretch of so much of it."""
    length, centres = length.clamp(max=1), (torch.arange(size, device=place.device) + 0.5) / size
    start = place * (1 - length)
    return (centres >= start[:, None]) & (centres < (start + length)[:, None])


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
