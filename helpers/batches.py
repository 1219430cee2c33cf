"""From a set of faces to batches on the device, augmented there, with randomness that no cut can change.

The whole set lies on the device as uint8; a batch is an index, a cast, one fused warp and two sums. Of a set
that does not fit, the next batch is read from disk while the present one is worked on. What is random about
a sample is a hash of (seed, epoch, sample), so that neither the batch size nor the device nor a stop and a
resume change it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import files, runtime

MEAN, STD = 0.5, 0.25
"""Pixels are scaled to [0, 1], centred by MEAN and divided by STD, the same for every set and picture."""

TARGETS = ("labels", "valence_arousal", "distribution")
"""The fields of a face set that a batch carries to the loss."""

Bits = TypeVar("Bits", int, Tensor)
Change = dict[str, Tensor]  # what :func:`_change` returns

# which of a sample's random numbers decides what
_ORDER, _SIDE = 0, 1
_WARP, _LIGHT, _ERASE = slice(2, 8), slice(8, 10), slice(10, 15)

_AHEAD = 64  # batches whose changes are drawn at once: a hundred small operations, too many for each of them


class Faces(Protocol):
    """What batches are made from; see ``datasets.FaceSet`` for shapes and units."""

    images: np.ndarray
    labels: np.ndarray
    valence_arousal: np.ndarray | None
    distribution: np.ndarray | None


_LIMITS = {
    "rotation": 180.0,
    "translation": 1.0,
    "scale": 0.9,
    "perspective": 0.9,
    "brightness": 1.0,
    "contrast": 1.0,
    "erasing": 1.0,
}


@dataclass(frozen=True)
class Augment:
    """How far a training image may be changed; every amount is drawn uniformly, zero leaves it out.

    Args:
        flip: mirror each image in every second epoch, from a random start (Jordan 2024, arXiv 2404.00498).
        rotation: largest turn either way, in degrees.
        translation: largest shift either way, as a fraction of the side.
        scale: largest zoom in or out, as a fraction.
        perspective: largest tilt; 0.2 makes one edge 20 % shorter than the opposite one.
        brightness: largest change of brightness, as a fraction of the full range.
        contrast: largest change of contrast, as a fraction.
        erasing: probability that a rectangle of 2 to 20 % of the area turns mean grey (Zhong et al. 2017,
            arXiv 1708.04896).
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
        for name, high in _LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ValueError(f"Augment({name}={value}): must be from 0 to {high:g}")

    @classmethod
    def none(cls) -> Augment:
        """Return the augmentation that changes nothing."""
        return cls(False, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

    def scaled(self, strength: float) -> Augment:
        """Return the same augmentation with every amount multiplied, at most to the end of its range.

        Args:
            strength: 0 for no augmentation but the flip, 1 for this one, 2 for twice as much.
        """
        amounts = {name: min(high, strength * getattr(self, name)) for name, high in _LIMITS.items()}
        return replace(self, **amounts)


@dataclass(frozen=True)
class Batch:
    """One batch on the device.

    Args:
        images: float32 ``[B, C, H, W]``, normalised; or features ``[B, D]``.
        targets: tensors ``[B, ...]`` by name; see ``TARGETS``.
        index: int64 ``[B]``, which samples of the set these are.
    """

    images: Tensor
    targets: dict[str, Tensor]
    index: Tensor


class Batches:
    """A set of faces on a device, handed out in batches.

    Args:
        faces: the set; its images are uint8 ``[N, H, W]`` or ``[N, 3, H, W]``. In their place features may
            stand, float ``[N, D]``, which are handed out as they are.
        batch_size: images a batch. An unshuffled pass keeps a last, smaller batch; a shuffled one leaves
            it out, where it is not the only one.
        seed: what shuffling and augmentation are drawn from.
        augment: how to change the images, or None.
        shuffle: draw a new order for each epoch.
        device: where the set lies and the batches are made.
        resident: keep all images on the device, or read each batch from disk; by default what there is room
            for. Only memory-mapped images can be read from disk.
        share: (rank, world); of each batch this process makes every ``world``-th sample from ``rank`` on.

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
        named = {name: getattr(faces, name) for name in TARGETS}
        self.targets = {name: _on_device(a, device) for name, a in named.items() if a is not None}
        self.batch_size, self.seed, self.shuffle, self.augment = batch_size, seed, shuffle, augment
        self.share = slice(share[0], None, share[1])

    @property
    def num_samples(self) -> int:
        """The number of faces in the set."""
        return len(self.images)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of all images together, ``(N, C, H, W)``, or of all features, ``(N, D)``."""
        if len(self.images.shape) == 2:
            return tuple(self.images.shape)
        num, *channels, height, width = self.images.shape
        return (num, *(channels or [1]), height, width)

    def __len__(self) -> int:
        if self.shuffle:
            return max(1, self.num_samples // self.batch_size)
        return math.ceil(self.num_samples / self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Return the order in which the samples of an epoch come, int64 ``[N]``.

        Args:
            epoch: which epoch, from 0.
        """
        samples = torch.arange(self.num_samples, device=self.device)
        if not self.shuffle:
            return samples
        # a stable sort keeps the order the same on every device where two keys collide
        return random_bits(self.seed, epoch, samples, [_ORDER]).squeeze(1).sort(stable=True).indices

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Args:
            epoch: which epoch, from 0; decides order and augmentation.
            start: the batch to begin with, to go on where a pass was cut.
        """
        order, size = self.order(epoch), self.batch_size
        cuts = [order[step * size : (step + 1) * size][self.share] for step in range(start, len(self))]
        for (index, pixels), change in zip(self._ahead(cuts), self._changes(cuts, epoch), strict=True):
            yield self._made(pixels, index, change)

    def _changes(self, cuts: list[Tensor], epoch: int) -> Iterator[Change]:
        """Yield for each index how its samples are changed."""
        for start in range(0, len(cuts), _AHEAD):
            some = cuts[start : start + _AHEAD]
            sizes, change = [len(index) for index in some], {}
            if self.augment is not None and len(self.shape) > 2:  # features stay as they are
                draws = draws_of(self.seed, epoch, torch.cat(some))
                change = _change(self.augment, draws, self.shape[-2:])
            parts = {name: values.split(sizes) for name, values in change.items()}
            yield from ({name: part[i] for name, part in parts.items()} for i in range(len(some)))

    def _ahead(self, cuts: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each index with its pixels; what lies on disk is read while the batch before is worked on."""
        if isinstance(self.images, Tensor):
            yield from ((index, self.images.index_select(0, index)) for index in cuts)
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._read, cuts[0]) if cuts else None
            for index, following in zip(cuts, [*cuts[1:], None], strict=True):
                pixels = coming.result()
                coming = None if following is None else reader.submit(self._read, following)
                yield index, pixels.to(self.device, non_blocking=True)

    def _read(self, index: Tensor) -> Tensor:
        pixels = torch.from_numpy(self.images[index.cpu().numpy()])
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def batch(self, index: Tensor, epoch: int = 0) -> Batch:
        """Return the named samples as one batch.

        Args:
            index: int64 ``[B]``, which samples.
            epoch: decides the augmentation.
        """
        [(_, pixels)], [change] = self._ahead([index]), self._changes([index], epoch)
        return self._made(pixels, index, change)

    def _made(self, pixels: Tensor, index: Tensor, change: Change) -> Batch:
        images = pixels
        if not pixels.is_floating_point():
            images = _changed(normalise(pixels if pixels.ndim == 4 else pixels.unsqueeze(1)), change)
        return Batch(images, {name: values[index] for name, values in self.targets.items()}, index)


def _held(images: np.ndarray | files.Rows, where: torch.device, resident: bool | None) -> Tensor | files.Rows:
    """Return the images on the device, or as rows of their file where they are not to be, or do not fit."""
    in_file = isinstance(images, np.memmap | files.Rows)
    if resident or not in_file or (resident is None and images.nbytes <= runtime.free_memory(where) // 2):
        return _on_device(np.asarray(images), where)
    return images if isinstance(images, files.Rows) else files.Rows(images)


def _on_device(array: np.ndarray, device: torch.device | str) -> Tensor:
    # a copy on the CPU as well: a read-only memory map must not be handed to torch
    return torch.tensor(np.ascontiguousarray(array)).to(device)


def normalise(images: Tensor) -> Tensor:
    """Return uint8 images as float32, scaled to [0, 1], centred by MEAN and divided by STD.

    Args:
        images: uint8, any shape.
    """
    return images.float().mul_(1 / (255 * STD)).sub_(MEAN / STD)


def random_bits(seed: int, epoch: int, samples: Tensor, draws: Sequence[int]) -> Tensor:
    """Return random 32-bit numbers for each sample, a pure function of the arguments.

    The mixer is Wellons's ``lowbias32`` (nullprogram.com/blog/2018/07/31), applied to seed, epoch, sample and
    draw in turn.

    Args:
        seed: from 0 to 2**32 - 1.
        epoch: from 0 to 2**32 - 1.
        samples: int64 ``[B]``, from 0 to 2**32 - 1.
        draws: which of a sample's numbers; the same number is never drawn for two purposes.

    Returns:
        int64 ``[B, len(draws)]`` in [0, 2**32).
    """
    key = _mix(_mix(torch.tensor(seed, device=samples.device)) ^ epoch)
    return _mix(_mix(key ^ samples)[:, None] ^ torch.tensor(draws, device=samples.device))


def random_number(seed: int, epoch: int, sample: int, draw: int) -> int:
    """Return one number of :func:`random_bits`, without a tensor: for what is asked at every step.

    Args:
        seed: from 0 to 2**32 - 1.
        epoch: from 0 to 2**32 - 1.
        sample: from 0 to 2**32 - 1.
        draw: which of the sample's numbers.
    """
    return _mix(_mix(_mix(_mix(seed) ^ epoch) ^ sample) ^ draw)


def _mix(x: Bits) -> Bits:
    low = 0xFFFFFFFF
    x = (x + 0x9E3779B9) & low  # so that zero is no fixed point
    x = (x ^ (x >> 16)) * 0x7FEB352D & low
    x = (x ^ (x >> 15)) * 0x846CA68B & low
    return x ^ (x >> 16)


def draws_of(seed: int, epoch: int, samples: Tensor) -> Tensor:
    """Return what chance decides about samples in an epoch, float32 ``[B, 15]`` in [0, 1).

    Args:
        seed: from 0 to 2**32 - 1.
        epoch: from 0; the number that mirrors a sample is 1 in every second epoch, else 0.
        samples: int64 ``[B]``, the samples' ids.
    """
    chances = random_bits(seed, epoch, samples, range(_ERASE.stop)).float() / 2**32
    start = random_bits(seed, 0, samples, [_SIDE]).squeeze(1)  # epoch 0: where the alternation begins
    chances[:, _SIDE] = ((start + epoch) % 2).float()
    return chances


def augmented(images: Tensor, augment: Augment, seed: int, epoch: int, samples: Tensor) -> Tensor:
    """Return the images changed as ``augment`` says, each by what is drawn for (seed, epoch, sample).

    Args:
        images: float ``[B, C, H, W]``, normalised.
        augment: the amounts.
        seed: from 0 to 2**32 - 1.
        epoch: from 0; a sample that was mirrored in one epoch is not in the next.
        samples: int64 ``[B]``, the samples' ids.
    """
    return _changed(images, _change(augment, draws_of(seed, epoch, samples), images.shape[-2:]))


def _change(augment: Augment, draws: Tensor, size: Sequence[int]) -> Change:
    """Return how samples are changed, for each kind of change tensors ``[B, ...]``; without what is left out.

    Args:
        augment: the amounts.
        draws: from :func:`draws_of`.
        size: height and width of the images.
    """
    change, mirrored = {}, (draws[:, _SIDE] == 1) & augment.flip
    if augment.rotation or augment.translation or augment.scale or augment.perspective:
        homography = _homography(augment, draws[:, _WARP] * 2 - 1, mirrored)
        change["homography"] = homography if augment.perspective else homography[:, :2]
    elif augment.flip:
        change["mirrored"] = mirrored
    if augment.brightness or augment.contrast:
        contrast, brightness = (draws[:, _LIGHT] * 2 - 1).unbind(1)
        change["gain"], change["offset"] = (
            1 + contrast * augment.contrast,
            brightness * augment.brightness / STD,
        )
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
    points = torch.from_numpy(_pixel_centres(height, width)).to(images)
    # one product of tall matrices: a product for each image took twenty times as long on a CPU
    mapped = (homography.reshape(-1, 3) @ points).view(len(images), -1, height, width)
    grid = mapped[:, :2]
    if mapped.shape[1] == 3:
        grid = grid / mapped[:, 2:]
    grid = grid.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


@functools.cache  # of NumPy's arrays: a tensor made in inference mode could not be used in training
def _pixel_centres(height: int, width: int) -> np.ndarray:
    """Return x, y and 1 of each pixel, in [-1, 1] coordinates, float32 ``[3, H*W]``."""
    y, x = ((np.arange(size, dtype=np.float32) * 2 + 1) / size - 1 for size in (height, width))
    return np.stack([*np.meshgrid(x, y), np.ones((height, width), np.float32)]).reshape(3, -1)


def _homography(augment: Augment, draws: Tensor, mirrored: Tensor) -> Tensor:
    """Return ``[B, 3, 3]``: where in [-1, 1] coordinates of the old image each point of the new one lies."""
    turn, shift_x, shift_y, zoom, tilt_x, tilt_y = draws.unbind(1)
    angle = turn * math.radians(augment.rotation)
    size = 1 + zoom * augment.scale
    cos, sin = angle.cos() * size, angle.sin() * size
    side = 1 - 2 * mirrored.to(draws.dtype)
    rows = [
        [cos * side, -sin, shift_x * 2 * augment.translation],
        [sin * side, cos, shift_y * 2 * augment.translation],
        [tilt_x * augment.perspective / 2, tilt_y * augment.perspective / 2, torch.ones_like(turn)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def _rectangle(augment: Augment, draws: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return which rows ``[B, H]`` and columns ``[B, W]`` are erased, 1.0 or 0.0."""
    chance, area, aspect, left, top = draws.unbind(1)
    area, aspect = 0.02 + 0.18 * area, torch.exp((aspect * 2 - 1) * math.log(3))
    height, width = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    rows = _between(size[0], top * (1 - height), height) & (chance < augment.erasing)[:, None]
    return rows.to(draws.dtype), _between(size[1], left * (1 - width), width).to(draws.dtype)


def _between(size: int, start: Tensor, length: Tensor) -> Tensor:
    centres = (torch.arange(size, device=start.device) + 0.5) / size
    return (centres >= start[:, None]) & (centres < (start + length)[:, None])
