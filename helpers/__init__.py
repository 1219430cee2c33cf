"""What the seven notebooks share. Import the room you need: ``from helpers import datasets, training``."""

from __future__ import annotations

import difflib
import importlib
import signal
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of the known names, or nothing when none is near.

    Args:
        word: what was given.
        known: the names that would have been accepted.
    """
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
    room = f"{__name__}.{name}"
    try:
        if name.startswith("_"):
            raise ModuleNotFoundError(name=room)
        with _interrupted_later():
            return importlib.import_module(room)
    except ModuleNotFoundError as error:
        if error.name != room:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


@contextmanager
def _interrupted_later() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []
    signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
