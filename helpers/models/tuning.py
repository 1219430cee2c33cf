"""A trained network for a new task: its body and its head, what is frozen, and what lies how deep."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from torch import nn

HEADS = {
    "FaceCNN": ("dense", "head"),
    "ResNet": ("fc",),
    "EfficientNet": ("classifier",),
    "VisionTransformer": ("heads",),
}
"""The parts of each kind of network, by its class, that make outputs of features."""

STAGES = {
    "FaceCNN": (r"stem", r"blocks\.(\d+)", r"dense|head"),
    "ResNet": (r"conv1|bn1", r"layer(\d+)", r"fc"),
    "EfficientNet": (r"features\.(\d+)", r"classifier"),
    "VisionTransformer": (
        r"class_token|conv_proj|encoder\.pos",
        r"encoder\.layers\.encoder_layer_(\d+)",
        "",
    ),
}
"""How the parameters of each stage are called, from the pictures to the head; a number counts stages."""


def split(model: nn.Module, head: str | None = None) -> tuple[nn.Module, nn.Module]:
    """Return a network's body, from pictures to features, and its head, from features to outputs.

    Both share their layers with the network: ``head(body(images))`` is ``model(images)``, and what one of
    them learns, the network has learned.

    Args:
        model: the network.
        head: the name of the head in ``model.named_modules()``; None where the workbook knows the network.

    Raises:
        ValueError: the head is not known.
    """
    names = _head_names(model) if head is None else (head,)
    body = model
    for name in names:
        body = _without(body, name)
    parts = [model.get_submodule(name) for name in names]
    return body, parts[0] if len(parts) == 1 else nn.Sequential(*parts)


def _head_names(model: nn.Module) -> tuple[str, ...]:
    if names := _of_kind(HEADS, model):
        return names
    inside = _learned_parts(model)
    if len(inside) == 1:  # a network behind something that learns nothing
        return tuple(f"{inside[0]}.{name}" for name in _head_names(model.get_submodule(inside[0])))
    raise ValueError(f"say which part of this {type(model).__name__} is the head: one of {', '.join(inside)}")


def _of_kind(known: dict[str, tuple[str, ...]], model: nn.Module) -> tuple[str, ...]:
    """Return what is known of the first of a network's classes of which anything is; else nothing."""
    return next((known[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in known), ())


def _learned_parts(model: nn.Module) -> list[str]:
    return [name for name, child in model.named_children() if any(True for _ in child.parameters())]


def _without(module: nn.Module, path: str) -> nn.Module:
    """Return a twin that shares everything but the named layer, which passes on what it gets."""
    first, _, rest = path.partition(".")
    twin = copy.copy(module)
    inner = _without(module.get_submodule(first), rest) if rest else nn.Identity()
    twin.__dict__["_modules"] = {**module._modules, first: inner}
    return twin


def freeze(model: nn.Module, head: str | None = None) -> nn.Module:
    """Return the same network with its body frozen: only the head learns.

    A frozen part stays in evaluation mode in training, too: its batch norm would otherwise go on to move its
    running means, and its dropout would blur features that no longer change.

    Args:
        model: the network, changed in place.
        head: as for :func:`split`.

    Raises:
        ValueError: the head is not known.
    """
    body, _ = split(model, head)
    body.requires_grad_(False)
    if _stand_still not in model._forward_pre_hooks.values():
        model.register_forward_pre_hook(_stand_still)
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Return the same network with every part learning; its next ``train()`` wakes batch norm and dropout.

    Args:
        model: the network, changed in place.
    """
    return model.requires_grad_(True)


def _stand_still(model: nn.Module, _given: Any = None) -> None:
    if model.training:  # asked before every step, as any loop calls model.train()
        for part in _frozen_parts(model):
            part.eval()


def _frozen_parts(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        learning = [weights.requires_grad for weights in child.parameters()]
        if learning and not any(learning):
            yield child
        elif learning:
            yield from _frozen_parts(child)


def stages(model: nn.Module) -> list[list[str]]:
    """Return the names of a network's parameters, stage by stage, from the pictures to the head.

    A network that the workbook does not know has a stage for each of its parts, in the order they were made.

    Args:
        model: the network.
    """
    names = [name for name, _ in model.named_parameters()]
    prefix, patterns = _patterns(model)
    if not patterns:
        order = dict.fromkeys(name.split(".")[0] for name in names)
        return [[name for name in names if name.split(".")[0] == part] for part in order]
    found: dict[tuple[int, int], list[str]] = {}
    for name in names:
        found.setdefault(_place(name.removeprefix(prefix), patterns), []).append(name)
    return [found[place] for place in sorted(found)]


def _patterns(model: nn.Module) -> tuple[str, tuple[str, ...]]:
    if patterns := _of_kind(STAGES, model):
        return "", patterns
    inside = _learned_parts(model)
    if len(inside) == 1:
        prefix, patterns = _patterns(model.get_submodule(inside[0]))
        return f"{inside[0]}.{prefix}", patterns
    return "", ()


def _place(name: str, patterns: tuple[str, ...]) -> tuple[int, int]:
    for number, pattern in enumerate(patterns):
        if found := re.match(pattern, name):
            return number, int(found.group(1)) if found.groups() else 0
    return len(patterns), 0
