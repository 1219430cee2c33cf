"""What is explained: the one number a picture whose growth Grad-CAM traces and deletion watches fall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers import did_you_mean

Targets = int | Sequence[int] | Tensor | Callable[[Any], Tensor] | None
"""Which score is explained: a class for all pictures, one for each, or the one the network finds likeliest.

The last is None. A function of what the network puts out, which returns one number a picture, is the most
general: ``lambda outputs: outputs["valence"][:, 0]``.
"""


@dataclass(frozen=True)
class Score:
    """The score of each picture; :func:`of` makes one from what a caller may give.

    Args:
        targets: classes, int64 ``[N]``; None, the likeliest; or a function of what the network puts out.
        head: which head, for a network with several.
    """

    targets: Callable[[Any], Tensor] | Tensor | None
    head: str | None

    def __call__(self, outputs: Any, rows: Tensor) -> Tensor:
        """Return the logit of each picture's class, float32 ``[B]``.

        Args:
            outputs: what the network puts out for a batch.
            rows: int64 ``[B]``, the numbers of its pictures.

        Raises:
            ValueError: a class or head that is not there.
        """
        if callable(self.targets):
            return _one_a_picture(self.targets(outputs), len(rows))
        logits = self.logits(outputs)
        return logits.gather(1, self._classes(logits, rows)[:, None])[:, 0]

    def probability(self, outputs: Any, rows: Tensor) -> Tensor:
        """Return the same as a probability; the value of a function stays as it is.

        Args:
            outputs: what the network puts out for a batch.
            rows: int64 ``[B]``, the numbers of its pictures.
        """
        if callable(self.targets):
            return self(outputs, rows)
        return Score(self.targets, None)(self.logits(outputs).softmax(1), rows)

    def logits(self, outputs: Any) -> Tensor:
        """Return the logits of the head, float32 ``[B, K]``.

        Args:
            outputs: what the network puts out for a batch.

        Raises:
            ValueError: no such head.
        """
        if isinstance(outputs, Tensor) and self.head is None:
            return outputs.float()
        heads = {"": outputs} if isinstance(outputs, Tensor) else outputs
        name = next(iter(heads)) if self.head is None and len(heads) == 1 else self.head
        if name not in heads:
            known = ", ".join(map(repr, heads))
            raise ValueError(f"no head {name!r}{did_you_mean(name, heads)}; the network has: {known}")
        return heads[name].float()

    def _classes(self, logits: Tensor, rows: Tensor) -> Tensor:
        if self.targets is None:
            return logits.argmax(1)
        chosen, known = self.targets[rows].to(logits.device), logits.shape[1]
        wrong = chosen[(chosen < 0) | (chosen >= known)].tolist()
        if wrong:
            raise ValueError(f"there is no class {wrong[0]}: the network has {known}, counted from 0")
        return chosen


def of(images: Tensor, targets: Targets, head: str | None) -> Score:
    """Return the score that is asked for.

    Args:
        images: normalised float ``[N, C, H, W]``.
        targets: see :data:`Targets`.
        head: which head, for a network with several.

    Raises:
        ValueError: pictures or targets that make no sense.
    """
    if images.ndim != 4 or not images.is_floating_point() or not len(images):
        raise ValueError(f"images must be normalised float [N, C, H, W], not {form(images)}")
    broken = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        number = f"{len(broken)} of {len(images)}"
        raise ValueError(f"{number} images hold NaN or infinity, the first is number {broken[0]}")
    given = targets is None or callable(targets)
    return Score(targets if given else _one_class_each(targets, len(images)), head)


def form(tensor: Tensor) -> str:
    """Return type and shape as a message names them: "float32 [3, 48, 48]".

    Args:
        tensor: any.
    """
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _one_class_each(targets: int | Sequence[int] | Tensor, num: int) -> Tensor:
    classes = torch.as_tensor(targets, device="cpu")
    classes = classes.repeat(num) if classes.ndim == 0 else classes
    if classes.shape != (num,) or classes.is_floating_point() or classes.dtype == torch.bool:
        raise ValueError(f"targets must be a class for each of {num} images, not {form(classes)}")
    return classes.long()


def _one_a_picture(scores: Tensor, num: int) -> Tensor:
    if scores.shape != (num,):
        raise ValueError(f"a score must be one number for each of {num} pictures, not {list(scores.shape)}")
    return scores.float()
