"""What a report is made of, before anybody decides how it looks."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers import plotting


@dataclass(frozen=True)
class Heading:
    """A heading.

    Args:
        text: what it says.
        level: 1 for the title, 2 for a section, 3 for a part of one.
    """

    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: what it says.
    """

    text: str


@dataclass(frozen=True)
class Code:
    """Something to be typed.

    Args:
        text: one line or several.
    """

    text: str


@dataclass(frozen=True)
class Table:
    """A table; the first column holds names, the others numbers.

    Args:
        header: a title for each column.
        rows: a text for each column.
        caption: what it shows.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        png: the content of a PNG file.
        caption: what is to be seen in it.
        width: share of the text's width, in (0, 1].
    """

    png: bytes
    caption: str
    width: float = 1.0


@dataclass(frozen=True)
class Row:
    """Pictures side by side, each as wide as the others.

    Args:
        pictures: from left to right; their own widths do not count.
    """

    pictures: Sequence[Picture]


Block = Heading | Text | Code | Table | Picture | Row


def drawn(size: tuple[float, float], caption: str, draw: Callable[[Axes], object], width: float) -> Picture:
    """Return a picture drawn now, in the workbook's style.

    Args:
        size: width and height in inches.
        caption: what is to be seen in it.
        draw: draws on an axes.
        width: as in :class:`Picture`.
    """
    buffer = io.BytesIO()
    with plotting.styled():
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        draw(figure.subplots())
        figure.savefig(buffer, format="png", bbox_inches="tight", dpi=150)
    return Picture(buffer.getvalue(), caption, width)


def picture(path: Path, caption: str, width: float = 1.0) -> list[Picture]:
    """Return a picture that stands in a file, or nothing where there is no such file.

    Args:
        path: the file.
        caption: what is to be seen in it.
        width: as in :class:`Picture`.
    """
    return [Picture(path.read_bytes(), caption, width)] if path.is_file() else []
