"""What a network predicts for a set of faces, and how good that is, with an interval."""

from __future__ import annotations

import gc
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import did_you_mean, models, runtime
from helpers.batches import Batches, Faces
from helpers.metrics import Interval, bootstrap

Arrays = np.ndarray | dict[str, np.ndarray]
"""One array, or several by name: the outputs of a network with one head, or with several."""

Metric = Callable[[Any, dict[str, np.ndarray]], float]
"""A score of (outputs, targets), both as arrays with one row a face."""

TTA = {
    "none": "each face",
    "flip": "each face and its mirror image",
    "shift": "each face and its mirror image, both also shifted by a pixel in eight directions",
}
"""Test-time augmentation by name: what a network's outputs are averaged over."""


@dataclass(frozen=True)
class Evaluation:
    """How a network did on a set of faces.

    Args:
        scores: each metric with its bootstrap interval.
        outputs: of the network, one row a face.
        targets: what was true, one row a face, by name.
    """

    scores: dict[str, Interval]
    outputs: Arrays
    targets: dict[str, np.ndarray]


def predict(
    model: nn.Module,
    faces: Faces | Batches,
    *,
    tta: str = "none",
    batch_size: int = 512,
    device: str = "auto",
    precision: str = "auto",
) -> Arrays:
    """Return a network's outputs for each face, float32, in the set's order; its mode stays as it was.

    Args:
        model: the network.
        faces: the set, or batches already on the device.
        tta: a name of ``TTA``: "none", "flip" for the mean of the outputs for a face and its mirror image, or
            "shift" for the mean over 18 views, which takes nine times as long again.
        batch_size: images at a time; halved where memory does not suffice.
        device: where to compute.
        precision: as in ``Config``.

    Returns:
        ``[N, K]``, or one such array by name where the network has several heads.

    Raises:
        ValueError: the set is empty, ``tta`` is unknown, or something but "none" for features.
        TypeError: the network returns neither a tensor nor a dict of tensors.
    """
    if tta not in TTA:
        raise ValueError(f"unknown tta {tta!r}{did_you_mean(tta, TTA)}; known: {', '.join(TTA)}")
    if not isinstance(faces, Batches):
        faces = Batches(faces, batch_size, device=runtime.device(device))
    if tta != "none" and len(faces.shape) == 2:
        raise ValueError(f"tta {tta!r} needs images, and these are features; ask where they are made")
    was_training, parts = model.training, None
    model.to(faces.device).eval()
    while parts is None:
        try:
            with torch.inference_mode(), autocast(faces.device, precision):
                parts = [_averaged(model, batch.images, tta) for batch in faces.epoch()]
        except (MemoryError, RuntimeError) as error:
            if faces.batch_size == 1 or not is_out_of_memory(error):
                raise
        if parts is None:  # here, where the error and what it holds are gone
            release(faces.device)
            faces.batch_size = -(-faces.batch_size // 2)
            warnings.warn(f"out of memory: predicting {faces.batch_size} images at a time", stacklevel=2)
    model.train(was_training)
    whole = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    return whole.get("", whole)


def features(
    model: nn.Module,
    faces: Faces | Batches,
    *,
    head: str | None = None,
    tta: str = "none",
    batch_size: int = 512,
    device: str = "auto",
    precision: str = "auto",
) -> np.ndarray:
    """Return the features that a network's body makes of each face, float32 ``[N, D]``, in the set's order.

    A frozen body gives the same in every epoch, so it is run once, and the head learns from what is kept:
    ``fit(models.split(model)[1], replace(faces, images=features(model, faces)), ...)``.

    Args:
        model: the network.
        faces: the set, or batches already on the device.
        head: the name of the head; None where the workbook knows the network.
        tta: as in :func:`predict`, for the mean of the features.
        batch_size: images at a time.
        device: where to compute.
        precision: as in ``Config``.

    Raises:
        ValueError: the set is empty, or the head is not known.
    """
    was_training = {module: module.training for module in model.modules()}
    body = models.split(model, head)[0]
    found = predict(body, faces, tta=tta, batch_size=batch_size, device=device, precision=precision)
    for module, mode in was_training.items():
        module.training = mode
    return found.reshape(len(found), -1)


def evaluate(
    model: nn.Module,
    faces: Faces,
    metrics: Mapping[str, Metric],
    *,
    tta: str = "none",
    resamples: int = 1000,
    seed: int = 0,
    device: str = "auto",
) -> Evaluation:
    """Return a network's scores on a set of faces, each with a 95 % bootstrap interval over the faces.

    Args:
        model: the network.
        faces: the set.
        metrics: name to function of (outputs, targets), both as arrays with one row a face.
        tta: as in :func:`predict`.
        resamples: bootstrap samples.
        seed: of the bootstrap.
        device: where to compute.
    """
    batches = Batches(faces, 512, device=runtime.device(device))
    outputs, targets = predict(model, batches, tta=tta), targets_of(batches)

    def score(chosen: np.ndarray, metric: Metric) -> float:
        rows = {name: values[chosen] for name, values in by_name(outputs).items()}
        return metric(rows.get("", rows), {name: values[chosen] for name, values in targets.items()})

    every, how = np.arange(batches.num_samples), {"resamples": resamples, "seed": seed}
    scores = {
        name: bootstrap(lambda rows, metric=metric: score(rows, metric), every, **how)
        for name, metric in metrics.items()
    }
    return Evaluation(scores, outputs, targets)


def half_precision(where: torch.device, precision: str) -> torch.dtype | None:
    """Return the half precision to compute in, or None for float32."""
    dtype = runtime.autocast_dtype(where) if precision == "auto" else getattr(torch, precision)
    return None if dtype == torch.float32 else dtype


def autocast(where: torch.device, precision: str) -> AbstractContextManager:
    """Return the context in which a network computes at the named precision."""
    dtype = half_precision(where, precision)
    return torch.autocast(where.type, dtype) if dtype else nullcontext()


def views(images: Tensor, tta: str) -> Iterator[Tensor]:
    """Yield the images ``[..., H, W]``, and each view that ``tta`` averages over; edges are repeated."""
    steps = (0, -1, 1) if tta == "shift" else (0,)
    for turned in [images] if tta == "none" else [images, images.flip(-1)]:
        for shift in itertools.product(steps, repeat=2):
            view = turned
            for axis, step in zip((-2, -1), shift, strict=True):
                last = view.shape[axis] - 1
                rows = (torch.arange(last + 1, device=view.device) - step).clamp(0, last)
                view = view.index_select(axis, rows) if step else view
            yield view


def _averaged(model: nn.Module, images: Tensor, tta: str) -> dict[str, Tensor]:
    seen = [by_name(model(view)) for view in views(images, tta)]
    return {name: torch.stack([each[name].float() for each in seen]).mean(0) for name in seen[0]}


def by_name(outputs: Any) -> dict[str, Any]:
    """Return a network's outputs by name; those of a single head are called ""."""
    if isinstance(outputs, Tensor | np.ndarray):
        return {"": outputs}
    if not isinstance(outputs, Mapping):
        kind = type(outputs).__name__
        raise TypeError(f"a network must return a tensor, or a dict of tensors by head, not a {kind}")
    return dict(outputs)


def targets_of(batches: Batches) -> dict[str, np.ndarray]:
    """Return the targets of a set as arrays."""
    return {name: values.cpu().numpy() for name, values in batches.targets.items()}


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or the machine has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    says = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")  # MPS, CPU, cuBLAS
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in says)


def release(where: torch.device) -> None:
    """Hand back the memory that nothing holds any longer."""
    gc.collect()  # the tensors of the failed step hang on its traceback
    if where.type == "cuda":
        torch.cuda.empty_cache()
    if where.type == "mps":
        torch.mps.empty_cache()
