"""What the seven notebooks share. Import the room you need: ``from helpers import datasets, training``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: object, known: Iterable[object]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest of the known names, or nothing when none is near.

    Args:
        word: what was given.
        known: the names that would have been accepted.
    """
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
