"""What the seven notebooks share. Import the room you need: ``from helpers import datasets, training``."""

from __future__ import annotations

import difflib
import importlib
import signal
import threading
from collections.abc import Collection, Iterable
from types import ModuleType


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of the known names, or nothing when none is near."""
    names = {str(name).lower(): str(name) for name in known}
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def one_of(what: str, word: str, known: Collection[str]) -> str:
    """Return a word that is one of the known ones; else raise ValueError that names the nearest and all."""
    if word not in known:
        raise ValueError(f"unknown {what} {word!r}{did_you_mean(word, known)}; known: {', '.join(known)}")
    return word


def __getattr__(name: str) -> ModuleType:
    """Import a room when it is first asked for; an interrupt waits until it is there.

    A library that is interrupted while it loads, PyTorch or NumPy, cannot be loaded again in the same kernel.
    """
    room, came = f"{__name__}.{name}", []
    before = signal.getsignal(signal.SIGINT)
    waits = before is not None and threading.current_thread() is threading.main_thread()
    if waits:
        signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        if name.startswith("_"):
            raise ModuleNotFoundError(name=room)
        return importlib.import_module(room)
    except ModuleNotFoundError as error:
        if error.name != room:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    finally:
        if waits:
            signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
