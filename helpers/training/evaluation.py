"""What a network makes of faces: predictions, scores with intervals; short of memory, or not finite."""

from __future__ import annotations

import gc
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers import models, one_of, runtime
from helpers.batches import Batch, Batches, Faces
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
    """How a network did on a set of faces: scores by name, and its outputs and targets, one row a face."""

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
    """Return a network's outputs for each face, float32, in the set's order; its modes stay as they were.

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
    if not isinstance(faces, Batches):
        faces = Batches(faces, batch_size, device=runtime.device(device))
    if tta != "none" and one_of("tta", tta, TTA) and len(faces.shape) == 2:
        raise ValueError(f"tta {tta!r} needs images, and these are features; ask where they are made")
    modes = {module: module.training for module in model.modules()}
    dtype = runtime.autocast_dtype(faces.device, precision)
    model.to(faces.device).eval()
    while True:
        parts: list[dict[str, Tensor]] = []
        try:
            with torch.inference_mode(), torch.autocast(faces.device.type, dtype, dtype is not None):
                for batch in faces.epoch():
                    seen = [by_name(model(view)) for view in views(batch.images, tta)]
                    parts.append({k: torch.stack([e[k].float() for e in seen]).mean(0) for k in seen[0]})
            break
        except (MemoryError, RuntimeError) as error:
            if faces.batch_size == 1 or not is_out_of_memory(error):
                raise
        release(faces.device)  # here, where the error and what it holds are gone
        faces.batch_size = -(-faces.batch_size // 2)
        warnings.warn(f"out of memory: predicting {faces.batch_size} images at a time", stacklevel=2)
    for module, mode in modes.items():
        module.training = mode
    whole = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
    return whole.get("", whole)


def features(model: nn.Module, faces: Faces | Batches, *, head: str | None = None, **how: Any) -> np.ndarray:
    """Return the features that a network's body makes of each face, float32 ``[N, D]``, in the set's order.

    A frozen body gives the same in every epoch, so it is run once, and the head learns from what is kept:
    ``fit(models.split(model)[1], replace(faces, images=features(model, faces)), ...)``. ``head`` is the name
    of the head, where the workbook does not know the network; the rest is as in :func:`predict`.
    """
    found = predict(models.split(model, head)[0], faces, **how)
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

    ``metrics`` are functions of (outputs, targets), both as arrays with one row a face; ``tta`` is as in
    :func:`predict`; ``resamples`` and ``seed`` are the bootstrap's.
    """
    batches = Batches(faces, 512, device=runtime.device(device))
    outputs = predict(model, batches, tta=tta)
    targets = {name: values.cpu().numpy() for name, values in batches.targets.items()}

    def score(rows: np.ndarray, metric: Metric) -> float:
        chosen = {name: values[rows] for name, values in by_name(outputs).items()}
        return metric(chosen.get("", chosen), {name: values[rows] for name, values in targets.items()})

    every, how = np.arange(len(faces.labels)), {"resamples": resamples, "seed": seed}
    scores = {name: bootstrap(lambda rows, m=m: score(rows, m), every, **how) for name, m in metrics.items()}
    return Evaluation(scores, outputs, targets)


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


def by_name(outputs: Any) -> dict[str, Any]:
    """Return a network's outputs by name; those of a single head are called ""."""
    if isinstance(outputs, Tensor | np.ndarray):
        return {"": outputs}
    if not isinstance(outputs, Mapping):
        kind = type(outputs).__name__
        raise TypeError(f"a network must return a tensor, or a dict of tensors by head, not a {kind}")
    return dict(outputs)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device or the machine has no memory left."""
    says = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")  # MPS, CPU, cuBLAS
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in says)


def release(where: torch.device) -> None:
    """Hand back the memory that nothing holds any longer."""
    gc.collect()  # the tensors of the failed step hang on its traceback
    if where.type != "cpu":
        getattr(torch, where.type).empty_cache()


def in_parts(
    forward: Callable, loss: Callable, batch: Batch, parts: int, model: nn.Module, scaler: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Add up the gradient of a whole batch with the memory of a part of it; return the loss and the outputs.

    The loss may tie samples together, as 1 - CCC does, so it is taken of all outputs at once: they are
    computed without a graph first, then part by part with one, which carries the loss's gradient on (Gao et
    al. 2021, arXiv 2101.06983). Batch norm takes its statistics over a part, and dropout draws for each anew.
    """
    pieces = batch.images.chunk(parts)
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        first = [forward(piece, part) for part, piece in enumerate(pieces)]
        for buffer, value in zip(model.buffers(), before, strict=True):
            buffer.copy_(value)  # running means are to move once, not twice
    whole = {name: torch.cat([each[name] for each in first]).requires_grad_() for name in first[0]}
    value = loss(whole.get("", whole), batch.targets)
    scaler.scale(value).backward()
    slopes = {name: t.grad.split([len(p) for p in pieces]) for name, t in whole.items() if t.grad is not None}
    for part, piece in enumerate(pieces):
        outputs = forward(piece, part)
        torch.autograd.backward(
            [outputs[name] for name in slopes], [slope[part] for slope in slopes.values()]
        )
    return value.detach(), whole


def bad_samples(model: nn.Module, loss: Callable, batch: Batch) -> list[int]:
    """Return which samples make a loss that is not finite; all of them where none stands out.

    Those with pixels that are not finite or targets that are infinite, and those for which the loss of zeros
    is not finite or is refused.
    """
    model.eval()
    bad = ~torch.isfinite(batch.images).flatten(1).all(dim=1)
    for values in batch.targets.values():
        bad |= torch.isinf(values).reshape(len(values), -1).any(dim=1)
    with torch.no_grad():
        zeros = {k: torch.zeros_like(v[:1]).float() for k, v in by_name(model(batch.images[:2])).items()}
        for row in range(len(batch.index)):
            targets = {name: values[row : row + 1] for name, values in batch.targets.items()}
            try:
                bad[row] |= ~torch.isfinite(loss(zeros.get("", zeros), targets))
            except ValueError:
                bad[row] = True
    return (batch.index[bad] if bad.any() else batch.index).tolist()
