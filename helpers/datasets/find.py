"""Where a data set lies, and what to say when it does not."""

from __future__ import annotations

from pathlib import Path


def first(root: Path, places: tuple[str, ...], name: str) -> Path:
    """Return the first of the places that exists.

    Args:
        root: the data folder.
        places: paths relative to it, the likeliest first.
        name: the data set, for the message.

    Raises:
        FileNotFoundError: none exists; the message says where it looked and how to get the data.
    """
    for place in places:
        if (root / place).exists():
            return root / place
    looked = ", ".join(places)
    raise FileNotFoundError(
        f"no {name} in {root.resolve()} (looked for {looked}); "
        f"data/README.md says how to get it, and root=... where it lies"
    )
