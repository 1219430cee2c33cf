"""How far a reader could go who knows how faces are drawn, and has nothing but the picture.

    python -m benchmarks.bayes_ceiling [--faces 400] [--size 48]

A ceiling for every network. How the pixels change with each number that a face is drawn from (34 action
units, left and right; who it is; how it is seen), set against the noise in the pixels, says how exactly the
action units can be read off a picture at best (Fisher information, added to what is known of the numbers
before looking), and so how near to p a prediction can come.

It is an estimate and not a proof. Faces are taken as linear in their numbers near the true ones, and those
numbers as normal; textures as noise that pixels do not share; whether there are glasses, a hand or a beard as
known. Writes data/results/bayes_ceiling.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmarks import records
from benchmarks.cycles import way
from benchmarks.distributions import JUDGED_SEED
from helpers import faces, metrics
from helpers.faces import camera, people, truth

STEP = 0.1  # of a spread: how far a number is moved to see what it changes
UNIT_STEP = 0.03  # the same for an action unit
OTHERS = 8  # textures that a face is drawn with to see what they change
DRAWS = 20  # predictions of the reader to each face
AVERAGED = 64  # action units that a prediction averages over
ROUNDING = 1 / 12 / 255**2  # variance that whole levels of grey add

Numbers = dict[str, Tensor]


@dataclass(frozen=True)
class Scene:
    """What N pictures are drawn from.

    Args:
        sides: action units of the left and the right, ``[N, 17, 2]``.
        person: numbers of ``IDENTITY``, ``[N]`` each.
        view: numbers of ``VIEW``, ``[N]`` each.
        textures: random fields.
        subject: who it is, ``[N]``.
    """

    sides: Tensor
    person: Numbers
    view: Numbers
    textures: Numbers
    subject: Tensor

    def pixels(self, size: int) -> Tensor:
        """Return the pictures before rounding and grain, ``[N, size * size]``, white at 1."""
        felt = (self.sides * self.person["expressive"][:, None, None]).clamp(0, 1.2)
        view = camera.framed(self.view, felt)
        exact = camera.images(felt, self.person, view, self.textures, size, color=False, exact=True)[0]
        return exact.flatten(1)


def scene(seed: int, index: Tensor, size: int) -> Scene:
    """Return what ``faces.sample`` draws some faces from."""
    subject = index // (faces.PEOPLE * 20) * faces.PEOPLE + index % faces.PEOPLE
    sides = people.draw_action_units(seed, index, truth.balance_of("fer2013"))
    person = people.identities(seed, subject)
    view, person = people.bearing(people.views(seed, index), person, sides.mean(-1))
    return Scene(sides, person, view, camera.textures(seed, subject, index, size), subject)


def moved(given: Scene) -> Iterator[tuple[Scene, Tensor, float]]:
    """Yield the scene with one number moved towards its mean, how far, and that number's spread.

    First the 34 action units, whose spread is told elsewhere (0 here), then what is in every face, or
    already in this one.
    """
    for unit in range(len(faces.ACTION_UNITS)):
        for side in (0, 1):
            sides = given.sides.clone()
            by = torch.where(sides[:, unit, side] < 0.5, UNIT_STEP, -UNIT_STEP)
            sides[:, unit, side] += by
            yield replace(given, sides=sides), by, 0.0
    for field, table in (("person", faces.IDENTITY), ("view", faces.VIEW)):
        numbers = getattr(given, field)
        for name, trait in table.items():
            if trait.spread and name != "noise":
                by = torch.where(numbers[name] < trait.mean, STEP, -STEP) * trait.spread
                if trait.share < 1:
                    by = torch.where(numbers[name] == 0, 0.0, by)
                yield replace(given, **{field: numbers | {name: numbers[name] + by}}), by, trait.spread


def noise(given: Scene, size: int, base: Tensor) -> Tensor:
    """Return the variance of each pixel, ``[N, pixels]``: grain, rounding, and what other textures change."""
    found = given.view["noise"][:, None].double().square() + ROUNDING
    for other in range(OTHERS):
        textures = camera.textures(other, given.subject, torch.arange(len(base)), size)
        changed = replace(given, textures=textures).pixels(size) - base
        found = found + changed.double().square() / 2 / OTHERS  # of two draws each has half of it
    return found


def uncertainty(given: Scene, size: int, before: Tensor) -> Tensor:
    """Return the covariance of the mean of both sides after looking, ``[N, 17, 17]``."""
    base = given.pixels(size)
    slopes, known = [], []
    for scene, by, spread in moved(given):
        change = (scene.pixels(size) - base).double() / by[:, None].double()
        slopes.append(torch.where(by[:, None] == 0, 0.0, change))
        known.append(1 / spread**2 if spread else 0.0)
    slope = torch.stack(slopes, -1)
    information = (slope.mT / noise(given, size, base)[:, None]) @ slope
    prior = torch.diag(torch.tensor(known, dtype=torch.float64))
    prior[: len(before), : len(before)] = torch.linalg.inv(before)
    after = torch.linalg.inv(information + prior)[:, : len(before), : len(before)]
    return after.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).mean((-1, -3))


def predictions(units: Tensor, covariance: Tensor, generator: torch.Generator) -> Tensor:
    """Return what the reader says of each face, ``[N, 7]``: the mean of p over what it may be."""
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(units.shape[1]))

    def error(*shape: int) -> Tensor:
        normal = torch.randn(*shape, *units.shape, generator=generator, dtype=torch.float64)
        return (root @ normal[..., None])[..., 0]

    possible = (units + error() + error(AVERAGED)).clamp(0, 1)
    return faces.class_probabilities(possible.flatten(0, 1)).unflatten(0, possible.shape[:2]).mean(0)


def in_blocks(work: Callable[[Scene], Tensor], given: Scene, size: int = 50) -> Tensor:
    """Return what a function makes of a scene, a few faces at a time."""

    def some(numbers: Numbers, rows: slice) -> Numbers:
        return {name: values[rows] for name, values in numbers.items()}

    found = []
    for start in range(0, len(given.sides), size):
        rows = slice(start, start + size)
        kept = (some(numbers, rows) for numbers in (given.person, given.view, given.textures))
        found.append(work(Scene(given.sides[rows], *kept, given.subject[rows])))
    return torch.cat(found)


def main() -> None:
    """Estimate, print and write the figures."""
    options = records.parser(__doc__, faces=400, size=48).parse_args()
    torch.set_num_threads(options.threads)
    many = people.draw_action_units(0, torch.arange(20_000), truth.balance_of("fer2013"))
    before = torch.cov(many.flatten(1).double().T) + 1e-5 * torch.eye(34)
    some = torch.arange(0, 4000, 4000 // options.faces)  # of the judged ones
    given = scene(JUDGED_SEED, some, options.size)
    left = in_blocks(lambda some: uncertainty(some, options.size, before), given)
    units, generator = given.sides.mean(-1).double(), torch.Generator().manual_seed(0)
    p = faces.class_probabilities(units).double().repeat(DRAWS, 1).numpy()
    q = torch.cat([predictions(units, left, generator) for _ in range(DRAWS)]).double().numpy()
    prior = faces.class_probabilities(many.mean(-1)).double().mean(0).numpy()
    who, spread = given.subject.repeat(DRAWS).numpy(), many.mean(-1).double().var(0)
    missed = p.max(axis=1) - p[np.arange(len(p)), q.argmax(axis=1)]
    explained = (1 - left.diagonal(dim1=1, dim2=2).mean(0) / spread).tolist()
    figures = {
        "way": list(astuple(way(p, q, prior, who))),
        "below Bayes": list(astuple(metrics.bootstrap(np.mean, missed, groups=who))),
        "units_explained": dict(zip(faces.ACTION_UNITS, explained, strict=True)),
    }
    print(figures)
    about = {"faces": len(units), "size": options.size}
    records.write("bayes_ceiling", records.circumstances(options) | about | figures)


if __name__ == "__main__":
    main()
