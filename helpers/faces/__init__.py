"""Drawn faces: action units in, pixels and everything that is true of them out.

``faces.sample(1000, seed=0)`` draws a set; ``faces.render(action_units, ...)`` draws the faces you ask for.
:mod:`truth` says how a face gets its label, so that the best possible accuracy is known, :mod:`people` what
varies between people and images, :mod:`shape` where things lie on a face; :mod:`paint`, :mod:`camera` draw.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from helpers import emotions, one_of
from helpers.faces import camera, people, truth
from helpers.faces.people import IDENTITY, VIEW
from helpers.faces.shape import REGIONS
from helpers.faces.truth import ACTION_UNITS, class_probabilities, fused_probabilities, valence_arousal

BLOCK = 256  # faces drawn at a time, fewer where they are larger than 48 pixels: what bounds the memory
PEOPLE = 50  # so many different people follow each other before the first comes back
LIMITS = {"num_faces": (1, 10_000_000), "seed": (0, 2**32 - 1), "size": (16, 1024), "num_raters": (1, 1000)}
LIMITS |= {"faces_per_person": (1, 10_000), "ambiguity": (0.01, 100), "label_noise": (0, 1)}
LIMITS |= {"va_noise": (0, 0.2)}


@dataclass(frozen=True)
class Drawn:
    """N drawn faces and what is true of them; all on one device."""

    images: Tensor  # uint8 [N, size, size] (grey) or [N, 3, size, size] (RGB)
    labels: Tensor  # int64 [N], the published label: one rater's answer, an index into emotions.FER7
    action_units: Tensor  # float32 [N, 17] in [0, 1], in the order of ACTION_UNITS; the mean of both sides
    valence_arousal: Tensor  # float32 [N, 2] in [-1, 1], as annotated: the true values plus noise
    class_probabilities: Tensor  # float32 [N, 7], the true p(class | face) over emotions.FER7
    votes: Tensor  # int64 [N, 7], how many of the raters chose each class
    landmarks: Tensor  # float32 [N, 68, 2], (x, y) in pixels in the iBUG order
    subject: Tensor  # int64 [N], equal for the same person
    pose: Tensor  # float32 [N, 3], yaw (positive to the right), pitch (down), roll (clockwise), in radians
    masks: Tensor | None = None  # bool [N, 4, size, size], where the REGIONS lie; None unless asked for

    def __len__(self) -> int:
        return len(self.images)


def sample(
    num_faces: int = 2000, seed: int = 0, size: int = 48, color: bool = False,
    device: str | torch.device = "cpu", *, balance: str | dict[str, float] = "fer2013",
    faces_per_person: int = 20, ambiguity: float = 1.0, label_noise: float = 0.03, va_noise: float = 0.1,
    num_raters: int = 10, masks: bool = False, fixed: dict[str, float] | None = None,
) -> Drawn:  # fmt: skip
    """Draw a set of faces. Face i depends on the seed, its number and the options, not on how many are drawn.

    Args:
        num_faces: how many, at least 1.
        seed: the same seed gives the same bytes on the same kind of machine.
        size: pixels along a side, 16 to 1024.
        color: RGB instead of grey.
        device: where to draw.
        balance: how often each expression is intended: "fer2013", "uniform", or weights by class name.
        faces_per_person: images of each person.
        ambiguity: how much the raters guess; 1 is the default rater, 0.1 nearly always the most likely class.
        label_noise: the share of answers that are slips, in [0, 1].
        va_noise: standard deviation of the annotated valence and arousal around the true ones, in [0, 0.2].
        num_raters: how many raters vote.
        masks: also return the region masks.
        fixed: names of ``IDENTITY`` or ``VIEW`` that have this value in every face, to see what one does.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(locals())
    fixed = {one_of("trait", name, IDENTITY | VIEW): value for name, value in (fixed or {}).items()}
    where = _where(device)
    shares = truth.balance_of(balance).to(where)

    def draw(start: int, step: int) -> list[Tensor]:
        index = torch.arange(start, start + step, device=where)
        subject = index // (PEOPLE * faces_per_person) * PEOPLE + index % PEOPLE
        sides = people.draw_action_units(seed, index, shares)
        units, person = sides.mean(-1), people.identities(seed, subject)
        moving = people.moving(sides, person)
        view, person = people.bearing(people.views(seed, index), person, units)
        for name, value in fixed.items():
            (view if name in view else person)[name] = torch.full_like(view["yaw"], value)
        view = camera.framed(view, moving)
        texture = camera.textures(seed, subject, index, size)
        images, regions = camera.images(moving, person, view, texture, size, color)
        p = class_probabilities(units, ambiguity, label_noise)
        answers = truth.answers(p, people.uniform(seed, "raters", index, 1 + num_raters))
        noise = (people.uniform(seed, "valence and arousal", index, 2) * 2 - 1) * 3**0.5 * va_noise
        annotated = (valence_arousal(units) + noise).clamp(-1, 1)
        votes = functional.one_hot(answers[:, 1:], len(emotions.FER7)).sum(1)
        points = camera.landmarks(moving, person, view, size)
        pose = torch.stack([view["yaw"], view["pitch"], view["roll"]], -1)
        found = [images if color else images[:, 0], answers[:, 0], units, annotated, p, votes, points]
        return [*found, subject, pose, *[regions] * masks]  # in the order of Drawn

    blocks = zip(*_by_blocks(draw, num_faces, size, where), strict=True)
    # drawn in whole blocks, so that no shape differs
    return Drawn(*(torch.cat(parts)[:num_faces].to(device) for parts in blocks))


def render(
    action_units: Tensor | dict[str, float],
    identity: dict[str, Tensor | float] | None = None,
    view: dict[str, Tensor | float] | None = None,
    size: int = 48,
    color: bool = False,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Draw the faces you describe: uint8 ``[N, size, size]``, or ``[N, 3, size, size]`` in colour.

    Args:
        action_units: float ``[N, 17]``, or ``[N, 17, 2]`` for the left and right of the image, in [0, 1];
            or one face as ``{"AU12": 0.8}``.
        identity: some of the numbers of ``IDENTITY``; the others are those of an average face.
        view: some of the numbers of ``VIEW``; the others are from the front in even light.
        size: pixels along a side, 16 to 1024.
        color: RGB instead of grey.
        device: where to draw.

    Raises:
        ValueError: an argument is out of its range, or a name is unknown.
    """
    _check(locals())
    where = _where(device)
    if isinstance(action_units, dict):
        row = torch.zeros(1, len(ACTION_UNITS))
        for name, value in action_units.items():
            row[0, truth.au_column(name)] = value
        action_units = row
    sides = torch.as_tensor(action_units, dtype=torch.float32)
    sides = sides[..., None].expand(-1, -1, 2) if sides.ndim == 2 else sides
    if sides.shape[1:] != (len(ACTION_UNITS), 2) or len(sides) == 0:
        shape = list(sides.shape)
        raise ValueError(f"action_units must be [N, 17] or [N, 17, 2] with N of 1 or more, not {shape}")
    if not bool(((sides >= 0) & (sides <= 1)).all()):
        raise ValueError("action_units must lie in 0 to 1")
    sides = sides.to(where)
    person = people.average(IDENTITY, identity or {}, sides[:, :, 0])
    scene = people.average(VIEW, view or {}, sides[:, :, 0])

    def draw(start: int, step: int) -> Tensor:
        rows = slice(start, start + step)
        some, seen = ({name: value[rows] for name, value in each.items()} for each in (person, scene))
        number = torch.zeros(len(sides[rows]), dtype=torch.int64, device=where)
        texture = camera.textures(0, number, number, size)
        return camera.images(people.moving(sides[rows], some), some, seen, texture, size, color)[0]

    images = torch.cat(_by_blocks(draw, len(sides), size, where)).to(device)
    return images if color else images[:, 0]


def _where(device: str | torch.device) -> torch.device:
    """Return where to draw: the CPU for MPS, which has no float64 nor, in older releases, border padding."""
    device = torch.device(device)
    return torch.device("cpu") if device.type == "mps" else device


def _by_blocks(draw: Callable[[int, int], object], num: int, size: int, where: torch.device) -> list:
    """Draw blocks: on a CPU each on one thread, for the same bytes however many there are, side by side."""
    most = BLOCK if where.type == "cpu" else 16 * BLOCK  # a GPU is idle with a few
    step = min(max(1, min(most, most * 48**2 // size**2)), -(-num // 64) * 64)
    starts, threads = range(0, num, step), torch.get_num_threads()
    if where.type != "cpu":
        return [draw(start, step) for start in starts]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(draw, starts, [step] * len(starts)))
    finally:
        torch.set_num_threads(threads)


def _check(given: dict[str, object]) -> None:
    for name, (low, high) in LIMITS.items():
        if name in given and not low <= given[name] <= high:
            raise ValueError(f"{name} must be from {low} to {high}, not {given[name]}")
