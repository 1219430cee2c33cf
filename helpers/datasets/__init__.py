"""Data sets: ``datasets.load(name)`` gives a :class:`FaceSet`, whatever lies on disk.

One file a layout. Each has ``files(root, **options)``, everything that is read, and ``read(root, image_size,
**options)``, which turns it into a face set; the rest (cache, splits, audit) is the same for all.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType

from helpers import did_you_mean
from helpers.datasets import affectnet, affectnet_fused, cache, fer2013, ferplus, folder, muxspace, synthetic
from helpers.datasets.audit import Audit, audit, leaked, most_alike
from helpers.datasets.faceset import FaceSet, Refused, Rejection

__all__ = [
    "LAYOUTS",
    "Audit",
    "FaceSet",
    "Refused",
    "Rejection",
    "audit",
    "leaked",
    "load",
    "most_alike",
]

LAYOUTS = {
    "synthetic": synthetic,
    "fer2013": fer2013,
    "ferplus": ferplus,
    "muxspace": muxspace,
    "affectnet": affectnet,
    "affectnet_fused": affectnet_fused,
    "folder": folder,
}
"""Name to module; a set of your own is one more file and one more line here."""


def load(
    name: str = "synthetic", root: str | Path = "data", image_size: int = 48, **options: object
) -> FaceSet:
    """Return a data set, decoded once and memory-mapped from then on.

    Args:
        name: one of ``datasets.LAYOUTS``.
        root: the data folder; ``cache/`` is made in it.
        image_size: side of the images in pixels.
        options: of the data set, see ``read`` in its module (``help(datasets.ferplus.read)``).

    Raises:
        ValueError: no set or option is called that, or an option's value makes no sense.
        FileNotFoundError: the data is not there; the message says where it looked.
    """
    if name not in LAYOUTS:
        raise ValueError(
            f"unknown data set {name!r}{did_you_mean(name, LAYOUTS)}; known: {', '.join(LAYOUTS)}"
        )
    layout, root = LAYOUTS[name], Path(root).expanduser()
    options = {**_defaults(layout.read), **_checked(name, options, _defaults(layout.read))}
    if not isinstance(image_size, int) or not 8 <= image_size <= 1024:
        raise ValueError(f"image_size must be a whole number of pixels from 8 to 1024, not {image_size!r}")
    return cache.remember(
        name,
        root,
        layout.files(root, **options),
        _code(layout),
        {"image_size": image_size, **options},
        build=lambda: _some(layout.read(root, image_size, **options), root),
    )


def _some(faces: FaceSet, root: Path) -> FaceSet:
    """Return the faces, or raise where there is not a single one."""
    if not len(faces):
        why = f"; the first: {faces.rejected[0]}" if faces.rejected else ""
        found = f"none of {len(faces.rejected)} rows or pictures can be used{why}"
        raise ValueError(f"{faces.name} in {root.resolve()}: {found}")
    return faces


def _code(module: ModuleType) -> list[Path]:
    """Return the source files of a module and of those of ours that it imports, sorted."""
    found, waiting = {}, [module]
    while waiting:
        room = waiting.pop()
        if room.__name__ not in found:
            found[room.__name__] = Path(room.__file__)
            ours = (value for value in vars(room).values() if isinstance(value, ModuleType))
            waiting += [value for value in ours if value.__name__.startswith("helpers.")]
    return [found[name] for name in sorted(found)]


def _defaults(read) -> dict:
    parameters = inspect.signature(read).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _checked(name: str, options: dict, known: dict) -> dict:
    for option in options:
        if option not in known:
            names = ", ".join(known) or "none"
            raise ValueError(f"{name} has no option {option!r}{did_you_mean(option, known)}; known: {names}")
    return options
