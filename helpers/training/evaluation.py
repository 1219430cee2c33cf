"""What a network says about a set of faces, and how good that is, with an interval."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import did_you_mean, models, runtime
from helpers.batches import Batches, Faces
from helpers.metrics import Interval, bootstrap

Arrays = np.ndarray | dict[str, np.ndarray]
"""One array, or several by name: what a network with one head, or with several, puts out."""

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
        outputs: what the network put out, one row a face.
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
    """Return what a network puts out for each face, float32, in the set's order; its mode stays as it was.

    Args:
        model: the network.
        faces: the set, or batches already on the device.
        tta: a name of ``TTA``: "none", "flip" for the mean of the outputs for a face and its mirror image, or
            "shift" for the mean over 18 views, which takes nine times as long again.
        batch_size: images at a time.
        device: where to compute.
        precision: as in ``Config``.

    Returns:
        ``[N, K]``, or one such array by name where the network has several heads.

    Raises:
        ValueError: the set is empty, ``tta`` is unknown, or something but "none" for features.
    """
    if tta not in TTA:
        raise ValueError(f"unknown tta {tta!r}{did_you_mean(tta, TTA)}; known: {', '.join(TTA)}")
    if not isinstance(faces, Batches):
        faces = Batches(faces, batch_size, device=runtime.device(device))
    if tta != "none" and len(faces.shape) == 2:
        raise ValueError(f"tta {tta!r} needs pictures, and these are features; ask where they are made")
    where = faces.device
    was_training = model.training
    model.to(where).eval()
    with torch.inference_mode(), autocast(where, precision):
        parts = [_averaged(model, batch.images, tta) for batch in faces.epoch()]
    model.train(was_training)
    return _joined(parts)


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
    """Return what a network's body makes of each face, float32 ``[N, D]``, in the set's order.

    A frozen body makes the same of a face in every epoch, so it is asked once. The head learns from what is
    kept: ``fit(models.split(model)[1], replace(faces, images=features(model, faces)), ...)``.

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
    made = predict(body, faces, tta=tta, batch_size=batch_size, device=device, precision=precision)
    for module, mode in was_training.items():
        module.training = mode
    return made.reshape(len(made), -1)


def autocast(where: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a network computes at the named precision.

    Args:
        where: the device.
        precision: as in ``Config``.
    """
    dtype = runtime.autocast_dtype(where) if precision == "auto" else getattr(torch, precision)
    enabled = dtype not in {None, torch.float32}
    return torch.autocast(where.type, dtype if enabled else torch.bfloat16, enabled=enabled)


def views(pictures: Tensor, tta: str) -> Iterator[Tensor]:
    """Yield the pictures, and what they look like in each way that is averaged over; edges are repeated.

    Args:
        pictures: ``[..., H, W]``.
        tta: a name of ``TTA``.
    """
    steps = (0, -1, 1) if tta == "shift" else (0,)
    for side in [pictures] if tta == "none" else [pictures, pictures.flip(-1)]:
        for shift in itertools.product(steps, repeat=2):
            view = side
            for axis, step in zip((-2, -1), shift, strict=True):
                places = torch.arange(view.shape[axis], device=view.device)
                view = view.index_select(axis, (places - step).clamp(places[0], places[-1])) if step else view
            yield view


def _averaged(model: nn.Module, images: Tensor, tta: str) -> dict[str, Tensor]:
    seen = [by_name(model(view)) for view in views(images, tta)]
    return {name: torch.stack([each[name].float() for each in seen]).mean(0) for name in seen[0]}


def by_name(outputs: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a network's outputs by name; those of a single head are called "".

    Args:
        outputs: what the network returned.
    """
    return outputs if isinstance(outputs, dict) else {"": outputs}


def _joined(parts: list[dict[str, Tensor]]) -> Arrays:
    whole = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    return whole.get("", whole)


def targets_of(batches: Batches) -> dict[str, np.ndarray]:
    """Return the targets of a set as arrays.

    Args:
        batches: the set on its device.
    """
    return {name: values.cpu().numpy() for name, values in batches.targets.items()}


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
    rows = np.arange(batches.num_samples)
    scores = {}
    for name, metric in metrics.items():

        def score(chosen: np.ndarray, metric: Metric = metric) -> float:
            return metric(_rows(outputs, chosen), _rows(targets, chosen))

        scores[name] = bootstrap(score, rows, resamples=resamples, seed=seed)
    return Evaluation(scores, outputs, targets)


def _rows(arrays: Arrays, chosen: np.ndarray) -> Arrays:
    if isinstance(arrays, dict):
        return {name: values[chosen] for name, values in arrays.items()}
    return arrays[chosen]
