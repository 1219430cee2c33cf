"""Drawn faces: action units in, pixels and everything that is true of them out.

``faces.sample(1000, seed=0)`` draws a set; ``faces.render(action_units, ...)`` draws the faces you ask for.
How a face gets its label, so that the best possible accuracy is known, is in :mod:`helpers.faces.truth`;
what varies between people and pictures is in :mod:`helpers.faces.people`; how it is painted is in
:mod:`helpers.faces.paint` and seen in :mod:`helpers.faces.camera`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from helpers import emotions, runtime
from helpers.faces import camera, chance, people, truth
from helpers.faces.landmarks import landmarks
from helpers.faces.people import IDENTITY, VIEW
from helpers.faces.shape import MOVES, REGIONS, effects
from helpers.faces.truth import (
    ACTION_UNITS,
    bayes_accuracy,
    bayes_cross_entropy,
    bayes_kl,
    class_probabilities,
    fused_probabilities,
    irreducible_va_error,
    rater_agreement,
    valence_arousal,
)

__all__ = [
    "ACTION_UNITS",
    "IDENTITY",
    "MOVES",
    "REGIONS",
    "VIEW",
    "Drawn",
    "bayes_accuracy",
    "bayes_cross_entropy",
    "bayes_kl",
    "class_probabilities",
    "effects",
    "fused_probabilities",
    "irreducible_va_error",
    "rater_agreement",
    "render",
    "sample",
    "valence_arousal",
]

BLOCK = 256  # faces drawn at a time, fewer where they are larger than 48 pixels: what bounds the memory
PEOPLE = 50  # so many different people follow each other before the first comes back


@dataclass(frozen=True)
class Drawn:
    """N drawn faces and what is true of them; all on one device.

    Args:
        images: uint8 ``[N, size, size]`` (grey) or ``[N, 3, size, size]`` (RGB).
        labels: int64 ``[N]``, the published label: one rater's answer, an index into ``emotions.FER7``.
        action_units: float32 ``[N, 17]`` in [0, 1], in the order of ``ACTION_UNITS``; the mean of both sides.
        valence_arousal: float32 ``[N, 2]`` in [-1, 1], as annotated: the true values plus noise.
        class_probabilities: float32 ``[N, 7]``, the true p(class | face) over ``emotions.FER7``.
        votes: int64 ``[N, 7]``, how many of the raters chose each class.
        landmarks: float32 ``[N, 68, 2]``, (x, y) in pixels in the iBUG order.
        subject: int64 ``[N]``, equal for the same person.
        pose: float32 ``[N, 3]``, yaw (positive to the right), pitch (down) and roll (clockwise) of the head,
            in radians.
        masks: bool ``[N, 4, size, size]``, where the ``REGIONS`` lie; None unless asked for.
    """

    images: Tensor
    labels: Tensor
    action_units: Tensor
    valence_arousal: Tensor
    class_probabilities: Tensor
    votes: Tensor
    landmarks: Tensor
    subject: Tensor
    pose: Tensor
    masks: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


def sample(
    num_faces: int = 2000,
    seed: int = 0,
    size: int = 48,
    color: bool = False,
    device: str | torch.device = "cpu",
    *,
    balance: str | dict[str, float] = "fer2013",
    faces_per_person: int = 20,
    ambiguity: float = 1.0,
    label_noise: float = 0.03,
    va_noise: float = 0.1,
    num_raters: int = 10,
    masks: bool = False,
    fixed: dict[str, float] | None = None,
) -> Drawn:
    """Draw a set of faces. Face i depends on the seed, its number and the options, not on how many are drawn.

    Args:
        num_faces: how many, at least 1.
        seed: the same seed gives the same bytes on the same kind of machine.
        size: pixels along a side, 16 to 1024.
        color: RGB instead of grey.
        device: where to draw.
        balance: how often each expression is intended: "fer2013", "uniform", or weights by class name.
        faces_per_person: pictures of each person.
        ambiguity: how much the raters guess; 1 is the default rater, 0.1 nearly always the most likely class.
        label_noise: the share of answers that are slips, in [0, 1].
        va_noise: standard deviation of the annotated valence and arousal around the true ones, in [0, 0.2].
        num_raters: how many raters vote.
        masks: also return the region masks.
        fixed: names of ``IDENTITY`` or ``VIEW`` that have this value in every face, to see what one of them
            does.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check("num_faces", num_faces, 1, 10_000_000)
    _check("seed", seed, 0, 2**32 - 1)
    _check("size", size, 16, 1024)
    _check("faces_per_person", faces_per_person, 1, 10_000)
    people.known(IDENTITY | VIEW, fixed or {})
    raters = _Raters(num_raters, ambiguity, label_noise, va_noise)
    weights = truth.balance_of(balance).to(device)
    step = min(_block_size(size, device), -(-num_faces // 64) * 64)

    def drawn(start: int) -> Drawn:  # a last block is drawn whole and cut, so that no shape differs
        index = torch.arange(start, start + step, device=device)
        subject = index // (PEOPLE * faces_per_person) * PEOPLE + index % PEOPLE
        block = _block(seed, index, subject, weights, raters, size, color, fixed or {})
        return _cut(block if masks else replace(block, masks=None), num_faces - start)

    return _joined(_side_by_side(drawn, range(0, num_faces, step), device))


def _side_by_side(draw: Callable[[int], Any], starts: Sequence[int], device: str | torch.device) -> list:
    """Draw blocks: on a CPU each block on one thread and as many at once as PyTorch may use.

    A block that one thread draws has the same bytes however many there are.
    """
    if torch.device(device).type != "cpu":
        return [draw(start) for start in starts]
    num = min(torch.get_num_threads(), len(starts))
    one_each = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with runtime.threads(1), ThreadPoolExecutor(num, **one_each) as pool:
        return list(pool.map(draw, starts))


@dataclass(frozen=True)
class _Raters:
    num: int
    ambiguity: float
    label_noise: float
    va_noise: float

    def __post_init__(self) -> None:
        _check("num_raters", self.num, 1, 1000)
        _check("ambiguity", self.ambiguity, 0.01, 100)
        _check("label_noise", self.label_noise, 0, 1)
        _check("va_noise", self.va_noise, 0, 0.2)


def _block(
    seed: int,
    index: Tensor,
    subject: Tensor,
    balance: Tensor,
    raters: _Raters,
    size: int,
    color: bool,
    fixed: dict,
) -> Drawn:
    sides = truth.draw_action_units(seed, index, balance)
    units = sides.mean(-1)
    person = people.identities(seed, subject)
    felt = _felt(sides, person)
    view, person = people.bearing(people.views(seed, index), person, units)
    view, person = people.with_fixed(view, fixed), people.with_fixed(person, fixed)
    view = camera.framed(view, felt)
    images, masks = camera.picture(
        felt, person, view, camera.textures(seed, subject, index, size), size, color
    )
    return Drawn(
        images=images if color else images[:, 0],
        action_units=units,
        landmarks=landmarks(felt, person, view, size),
        subject=subject,
        pose=torch.stack([view["yaw"], view["pitch"], view["roll"]], -1),
        masks=masks,
        **_labelled(seed, index, units, raters),
    )


def _labelled(seed: int, index: Tensor, units: Tensor, raters: _Raters) -> dict[str, Tensor]:
    probabilities = truth.class_probabilities(units, raters.ambiguity, raters.label_noise)
    answers = truth.answers(probabilities, chance.uniform(seed, "raters", index, 1 + raters.num))
    noise = (chance.uniform(seed, "valence and arousal", index, 2) * 2 - 1) * 3**0.5 * raters.va_noise
    return {
        "labels": answers[:, 0],
        "valence_arousal": (truth.valence_arousal(units) + noise).clamp(-1, 1),
        "class_probabilities": probabilities,
        "votes": functional.one_hot(answers[:, 1:], len(emotions.FER7)).sum(1),
    }


def _felt(sides: Tensor, person: dict[str, Tensor]) -> Tensor:
    """How far this person's face moves for these intensities."""
    return (sides * person["expressive"][:, None, None]).clamp(0, 1.2)


def _cut(drawn: Drawn, num: int) -> Drawn:
    parts = {field.name: getattr(drawn, field.name) for field in fields(drawn)}
    return Drawn(**{name: None if value is None else value[:num] for name, value in parts.items()})


def _joined(blocks: list[Drawn]) -> Drawn:
    parts = {field.name: [getattr(block, field.name) for block in blocks] for field in fields(Drawn)}
    return Drawn(**{name: None if value[0] is None else torch.cat(value) for name, value in parts.items()})


def render(
    action_units: Tensor | dict[str, float],
    identity: dict[str, Tensor | float] | None = None,
    view: dict[str, Tensor | float] | None = None,
    size: int = 48,
    color: bool = False,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Draw the faces you describe.

    Args:
        action_units: float ``[N, 17]``, or ``[N, 17, 2]`` for the left and right of the picture, in [0, 1];
            or one face as ``{"AU12": 0.8}``.
        identity: some of the numbers of ``IDENTITY``; the others are those of an average face.
        view: some of the numbers of ``VIEW``; the others are from the front in even light.
        size: pixels along a side, 16 to 1024.
        color: RGB instead of grey.
        device: where to draw.

    Returns:
        uint8 ``[N, size, size]``, or ``[N, 3, size, size]`` in colour.

    Raises:
        ValueError: an argument is out of its range, or a name is unknown.
    """
    _check("size", size, 16, 1024)
    sides = _sides(action_units).to(device)
    person = people.average(IDENTITY, identity, sides[:, :, 0])
    scene = people.average(VIEW, view, sides[:, :, 0])
    step = _block_size(size, device)

    def drawn(start: int) -> Tensor:
        rows = slice(start, start + step)
        some, sight = _rows(person, rows), _rows(scene, rows)
        number = torch.arange(len(sides), device=sides.device)[rows]
        felt, texture = _felt(sides[rows], some), camera.textures(0, 0 * number, 0 * number, size)
        return camera.picture(felt, some, sight, texture, size, color)[0]

    images = torch.cat(_side_by_side(drawn, range(0, len(sides), step), device))
    return images if color else images[:, 0]


def _rows(numbers: dict[str, Tensor], rows: slice) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in numbers.items()}


def _sides(action_units: Tensor | dict[str, float]) -> Tensor:
    if isinstance(action_units, dict):
        row = torch.zeros(1, len(ACTION_UNITS))
        for name, value in action_units.items():
            row[0, truth.au_column(name)] = value
        action_units = row
    units = torch.as_tensor(action_units, dtype=torch.float32)
    if units.ndim == 2:
        units = units[..., None].expand(-1, -1, 2)
    if units.shape[1:] != (len(ACTION_UNITS), 2) or len(units) == 0:
        raise ValueError(
            f"action_units must be [N, 17] or [N, 17, 2] with N of 1 or more, not {list(units.shape)}"
        )
    if not bool(((units >= 0) & (units <= 1)).all()):
        raise ValueError("action_units must lie in 0 to 1")
    return units


def _block_size(size: int, device: str | torch.device) -> int:
    many = BLOCK if torch.device(device).type == "cpu" else 16 * BLOCK  # a GPU is idle with a few
    return max(1, min(many, many * 48**2 // size**2))


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value}")
