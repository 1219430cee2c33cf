"""One sentence for every word that is not known."""

from __future__ import annotations

from collections.abc import Sequence

from helpers import did_you_mean


def check(what: str, word: str, known: Sequence[str]) -> str:
    """Return a word that is known.

    Args:
        what: what the word names.
        word: the word.
        known: all there are.

    Raises:
        ValueError: it is none of them; the message gives the nearest.
    """
    if word not in known:
        raise ValueError(f"unknown {what} {word!r}{did_you_mean(word, known)}; known: {', '.join(known)}")
    return word
