"""What a training is made of, as digests by which it is told whether any of it has changed."""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from helpers import files


def digest(*things: Any) -> str:
    """Return the SHA-256 of all that things are made of, by which it is told whether they have changed.

    Of a face set: images (of a large one evenly spread rows, 256 MB), targets and classes. Of a network: its
    layers, with the shapes of the weights that it learns and the values of those it does not. Of a function:
    its code and what it closes over.

    Args:
        things: face sets, arrays, tensors, networks, functions, dataclasses, containers, plain values.
    """
    found = hashlib.sha256()
    for part in _parts(things, {}):
        found.update(part)
    return found.hexdigest()


def _parts(thing: Any, seen: dict[int, Any]) -> Iterator[bytes]:
    yield b"," if isinstance(thing, Mapping | list | tuple) else type(thing).__qualname__.encode()
    if thing is None or isinstance(thing, bool | int | float | str | bytes | complex | Path | np.generic):
        yield repr(thing).encode()
        return
    if id(thing) in seen:  # what refers to itself
        return
    seen[id(thing)] = thing  # kept alive, or another thing could come to the same address
    inside: Any = []
    if isinstance(thing, Tensor):
        thing = thing.detach().cpu().float().numpy() if thing.is_floating_point() else thing.cpu().numpy()
    if isinstance(thing, np.ndarray | files.Rows):
        yield f"{thing.dtype} {thing.shape}".encode()
        step = max(1, thing.nbytes >> 28)  # of more than 256 MB some rows, evenly spread
        size = step * max(1, 2**20 * len(thing) // max(1, thing.nbytes)) if thing.ndim else 1
        for start in range(0, len(thing), size) if thing.ndim else [...]:
            block = np.asarray(thing[start : start + size : step] if thing.ndim else thing)
            yield block.tobytes() if block.dtype != object else repr(block.tolist()).encode()
    elif hasattr(thing, "images") and hasattr(thing, "labels"):
        named = ("images", "labels", "valence_arousal", "distribution", "classes")
        inside = [getattr(thing, name, None) for name in named]
    elif isinstance(thing, nn.Module):
        fixed = [weights for weights in thing.parameters() if not weights.requires_grad]
        own = {name: value for name, value in vars(thing).items() if name[0] != "_" and name != "training"}
        inside = [network_identity(thing), own, fixed, list(thing.buffers())]
    elif isinstance(thing, Mapping):
        inside = [each for item in sorted(thing.items(), key=lambda item: repr(item[0])) for each in item]
    elif isinstance(thing, list | tuple | set | frozenset):
        inside = sorted(thing, key=repr) if isinstance(thing, set | frozenset) else thing
    elif isinstance(thing, functools.partial):
        inside = [thing.func, thing.args, thing.keywords]
    elif isinstance(thing, types.MethodType):
        inside = [thing.__func__, thing.__self__]
    elif isinstance(thing, types.FunctionType):
        closed = [cell.cell_contents for cell in thing.__closure__ or ()]
        inside = [thing.__qualname__, closed, thing.__defaults__, thing.__kwdefaults__, thing.__code__]
        for name in sorted(set(thing.__code__.co_names) & thing.__globals__.keys()):
            value = thing.__globals__[name]  # what it calls beside it, and what it takes from there
            near = isinstance(value, types.FunctionType) and value.__module__ == thing.__module__
            if near or isinstance(value, bool | int | float | str | Tensor | np.ndarray):
                inside += [name, value]
    elif isinstance(thing, types.CodeType):
        inside = [thing.co_code, thing.co_names, thing.co_consts]  # no lines: a comment changes nothing
    elif hasattr(thing, "__dict__") and not isinstance(thing, type | types.ModuleType):
        inside = vars(thing)
    for each in [inside] if isinstance(inside, Mapping) else inside:
        yield from _parts(each, seen)


def network_identity(model: nn.Module) -> str:
    """Return the digest of how a network computes: layers, code, shapes, what is frozen; not weights."""
    kinds = {type(part) for part in model.modules() if not type(part).__module__.startswith("torch.")}
    code = [kind.forward for kind in sorted(kinds, key=repr)]
    return digest(
        repr(model), code, [(n, tuple(p.shape), p.requires_grad) for n, p in model.named_parameters()]
    )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two records: names, with both values where these can be read.

    Args:
        before: plain values by name, perhaps nested.
        now: the same, of today.
    """
    was, here = plain(before), plain(now)
    found = []
    for name in sorted(was.keys() | here.keys()):
        old, new = was.get(name), here.get(name)
        if old != new:
            is_digest = any(isinstance(value, str) and len(value) == 64 for value in (old, new))
            found.append(name if is_digest else f"{name} {old}, now {new}")
    return found


def plain(record: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return a nested record as one level: ``{"augment": {"flip": True}}`` becomes "augment.flip"."""
    found = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= plain(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return found
