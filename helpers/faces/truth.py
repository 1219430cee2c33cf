"""What is true of a drawn face: its action units, and the people who put a label on it.

**Annotator model.** A rater who sees a face with action units a (17 intensities from 0 to 1) answers class c
with

    p(c | a) = (1 - s) softmax(k (b + W a))_c + s / 7

where W is ``EVIDENCE``, b is ``BIAS``, k = 0.65 / ``ambiguity`` and s is the share of slips,
``label_noise``. The published label of a face is one such answer, ten more answers are its votes. So nothing
can predict the labels better than argmax p, which is right with probability max p: the Bayes accuracy of a
set is the mean of max p.

**Valence and arousal** are tanh of weighted sums of the action units (``DIMENSIONS``).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from helpers import emotions, one_of

_NUMBERS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 24, 25, 26)
ACTION_UNITS = tuple(f"AU{number}" for number in _NUMBERS)
"""The seventeen facial action units (FACS), in the order of every ``action_units`` array."""

FER2013_COUNTS = dict(zip(emotions.FER7, (3995, 436, 4097, 7215, 4830, 3171, 4965), strict=True))
"""How many Training images of FER2013 carry each label: the default class balance."""

PROTOTYPES = (
    ("anger", 0.55, {4: 0.95, 7: 0.7, 17: 0.35, 23: 0.75, 24: 0.6, 5: 0.3}),
    ("anger", 0.3, {4: 0.95, 7: 0.6, 9: 0.2, 10: 0.6, 23: 0.3, 25: 0.9, 26: 0.75}),  # shouting
    ("anger", 0.15, {4: 0.9, 7: 0.6, 10: 0.7, 20: 0.3, 23: 0.4, 25: 0.8}),  # teeth bared
    ("disgust", 0.6, {4: 0.6, 6: 0.2, 7: 0.6, 9: 0.95, 10: 0.7, 15: 0.4, 17: 0.5}),
    ("disgust", 0.4, {4: 0.5, 7: 0.5, 9: 0.9, 10: 0.8, 15: 0.4, 25: 0.7, 26: 0.25}),
    ("fear", 0.4, {1: 0.9, 2: 0.5, 4: 0.55, 5: 0.8, 7: 0.2, 20: 0.8, 25: 0.7, 26: 0.25}),
    ("fear", 0.35, {1: 0.9, 2: 0.65, 4: 0.45, 5: 0.85, 20: 0.5, 25: 0.85, 26: 0.9}),  # screaming
    ("fear", 0.25, {1: 0.9, 2: 0.45, 4: 0.6, 5: 0.75, 20: 0.45}),
    ("happiness", 0.6, {6: 0.75, 12: 0.95, 25: 0.85, 26: 0.2}),
    ("happiness", 0.2, {6: 0.5, 12: 0.8}),
    ("happiness", 0.2, {6: 0.9, 7: 0.3, 12: 1.0, 25: 0.9, 26: 0.6}),  # laughing
    ("sadness", 0.35, {1: 0.85, 4: 0.6, 7: 0.15, 15: 0.8, 17: 0.5}),
    ("sadness", 0.4, {1: 0.8, 4: 0.55, 15: 0.45}),  # quiet
    ("sadness", 0.25, {1: 0.75, 4: 0.8, 6: 0.4, 7: 0.6, 15: 0.65, 20: 0.3, 25: 0.7, 26: 0.4}),  # crying
    ("surprise", 0.55, {1: 0.9, 2: 0.95, 5: 0.8, 25: 0.8, 26: 0.8}),
    ("surprise", 0.45, {1: 0.8, 2: 0.9, 5: 0.8, 25: 0.6, 26: 0.4}),
    ("neutral", 1.0, {}),
)
"""Expressions and the ways to show them: how common, and how strong each action unit (FACS number) is."""

EVIDENCE = {
    "anger": {1: -3, 2: -2, 4: 4, 5: 1, 6: -1, 7: 2, 9: 0.5, 10: 1, 12: -4, 15: -1, 17: 1}
    | {23: 5, 24: 4, 26: -1},
    "disgust": {1: -2, 2: -1, 5: -1, 9: 8, 10: 3, 12: -3, 15: 1, 17: 1, 20: -1, 23: -1, 26: -1},
    "fear": {1: 2, 2: 1, 4: 1, 5: 3, 9: -1, 12: -4, 15: -1, 20: 6, 25: 1, 26: 0.5},
    "happiness": {1: -1, 4: -2, 6: 3, 9: -2, 12: 8, 14: 0, 15: -4, 20: -1, 23: -2, 25: 1},
    "sadness": {1: 3.5, 2: -2, 4: 1.5, 5: -2, 6: 0, 12: -4, 15: 6, 17: 2, 25: -1, 26: -1},
    "surprise": {1: 2, 2: 3.5, 4: -3, 5: 2.5, 7: -1, 9: -1, 12: -2, 15: -2, 20: -2, 26: 4},
    "neutral": {number: -2 for number in _NUMBERS if number != 14},  # whatever moves speaks against it
}
"""W: what each action unit adds to the score of a class at full intensity."""

BIAS = dict(zip(emotions.FER7, (-0.27, -3.1, -1.19, 0.24, 0.42, -0.98, 4.88), strict=True))
"""b: the score of each class on a face at rest; set so that labels are balanced like FER2013's."""

DIMENSIONS = {
    "valence": {4: -0.5, 5: -0.05, 6: 0.3, 9: -0.6, 10: -0.3, 12: 1, 14: -0.2, 15: -0.6, 17: -0.1, 20: -0.25}
    | {23: -0.3, 24: -0.2},
    "arousal": {1: 0.05, 2: 0.25, 4: 0.2, 5: 0.6, 7: 0.15, 9: 0.35, 10: 0.1, 12: 0.1, 15: -0.45, 17: -0.1}
    | {20: 0.4, 23: 0.25, 26: 0.35},
}
"""What each action unit adds to valence and to arousal, before tanh."""

_CALM = {"serene": (0.3, -0.25), "contemplative": (-0.15, -0.3), "secure": (0.35, 0.05)}
_CALM |= {"untroubled": (0.2, -0.1), "quiet": (0.0, -0.35)}  # where they lie in valence and arousal


def au_column(name: str) -> int:
    """Return the column of an action unit, such as "AU12", in every ``action_units`` array."""
    return ACTION_UNITS.index(one_of("action unit", name, ACTION_UNITS))


@functools.cache
def _sent(values: tuple, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values).to(device, dtype)


def constant(values: tuple, like: Tensor) -> Tensor:
    """Return numbers as a tensor of the type and on the device of another; they are sent there once."""
    return _sent(values, like.dtype, like.device)


def rows(*several: dict[int, float]) -> tuple[tuple[float, ...], ...]:
    """Return numbers by FACS number as rows over all seventeen action units, 0 where there is none."""
    return tuple(tuple(row.get(number, 0.0) for number in _NUMBERS) for row in several)


_EVIDENCE, _DIMENSIONS, _BIAS = rows(*EVIDENCE.values()), rows(*DIMENSIONS.values()), tuple(BIAS.values())


def class_probabilities(action_units: Tensor, ambiguity: float = 1.0, label_noise: float = 0.03) -> Tensor:
    """Return p(class | action units) ``[N, 7]`` over ``emotions.FER7``: the annotator model of this file.

    Args:
        action_units: float ``[N, 17]`` in [0, 1].
        ambiguity: 1 is the default rater; towards 0 raters become certain, above 1 they guess more.
        label_noise: the share of answers that are slips, uniform over the seven classes.
    """
    scores = action_units @ constant(_EVIDENCE, action_units).T + constant(_BIAS, action_units)
    # with 0.65, two raters agree on 0.66 of the faces (FER+: 0.61)
    careful = (scores * (0.65 / ambiguity)).softmax(-1)
    return (1 - label_noise) * careful + label_noise / careful.shape[-1]


def valence_arousal(action_units: Tensor) -> Tensor:
    """Return the true valence and arousal ``[N, 2]`` in (-1, 1) of action units a ``[N, 17]`` in [0, 1].

    They are tanh(D a - (0, 0.05)), D being ``DIMENSIONS``.
    """
    weighted = action_units @ constant(_DIMENSIONS, action_units).T
    return torch.tanh(weighted - constant((0.0, 0.05), action_units))


def fused_probabilities(action_units: Tensor, probabilities: Tensor) -> Tensor:
    """Return the distribution ``[N, 13]`` over ``emotions.FUSED13`` from p ``[N, 7]`` over ``emotions.FER7``.

    Contempt takes the share a14 of what happiness and neutral hold, a14 being half the intensity of AU14.
    What is left of neutral is shared by neutral (weight 1) and the five calm words, each with weight exp(-d²
    / 2·0.25²), d being its distance from the face in valence and arousal.
    """
    share = dict(zip(emotions.FER7, probabilities.unbind(-1), strict=True))
    dimple = action_units[:, au_column("AU14")] / 2
    share["contempt"] = dimple * (share["happiness"] + share["neutral"])
    share["happiness"] = share["happiness"] * (1 - dimple)
    anchors = constant(tuple(_CALM.values()), action_units)
    distance = (valence_arousal(action_units)[:, None] - anchors).square().sum(-1)
    calm = torch.cat([torch.ones_like(distance[:, :1]), (-distance / (2 * 0.25**2)).exp()], -1)
    calm = calm / calm.sum(-1, keepdim=True) * (share["neutral"] * (1 - dimple))[:, None]
    share.update(zip(("neutral", *_CALM), calm.unbind(-1), strict=True))
    return torch.stack([share[name] for name in emotions.FUSED13], -1)


def answers(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Return classes ``[N, R]`` drawn from p ``[N, K]``, one for each uniform number ``[N, R]``."""
    steps = probabilities.double().cumsum(-1)[:, None, :-1]
    return (uniform[..., None] > steps).sum(-1)


def balance_of(wanted: str | dict[str, float]) -> Tensor:
    """Return the shares ``[7]`` of the expressions: "fer2013", "uniform", or weights by class name."""
    known = {"uniform": dict.fromkeys(emotions.FER7, 1.0), "fer2013": FER2013_COUNTS}
    weights = known.get(wanted) if isinstance(wanted, str) else wanted
    if not isinstance(weights, dict):
        raise ValueError(f"balance must be 'fer2013', 'uniform' or weights by class, not {wanted!r}")
    named = {emotions.canonical(name): float(weight) for name, weight in weights.items()}
    shares = torch.tensor([named.get(name, 0.0) for name in emotions.FER7])
    if not math.isfinite(shares.sum()) or (shares < 0).any() or shares.sum() == 0:
        raise ValueError("balance must hold weights of 0 or more, one of them above 0")
    return shares / shares.sum()
