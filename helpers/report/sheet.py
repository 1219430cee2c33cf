"""A report as PDF, set by Typst (typst.app), which comes as a Python package."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from helpers.report.blocks import Block, Code, Heading, Picture, Row, Table, Text

STYLE = """
#set page(paper: "a4", margin: (x: 22mm, top: 22mm, bottom: 24mm), numbering: "1 / 1")
#set text(font: "Libertinus Serif", size: 10.5pt, lang: "en")
#set par(justify: true, leading: 0.62em)
#show heading.where(level: 1): it => block(below: 0.8em, text(size: 22pt, it.body))
#let title(size, above, it) = block(above: above, below: 0.8em, sticky: true, text(size: size, it.body))
#show heading.where(level: 2): it => title(15pt, 1.8em, it)
#show heading.where(level: 3): it => title(11.5pt, 1.3em, it)
#show figure.caption: it => align(left, text(size: 9pt, fill: luma(90), it.body))
#show figure: set block(breakable: false)
#show figure: set align(left)
#show raw: set text(size: 8.5pt)
#show raw: set par(justify: false)
"""


def as_pdf(blocks: Sequence[Block]) -> bytes:
    """Return the content of the PDF.

    Args:
        blocks: what it says; the first is its title.

    Raises:
        ImportError: typst is not installed.
    """
    typst = _typst()
    with tempfile.TemporaryDirectory() as folder:
        parts = [_set(block, Path(folder), number) for number, block in enumerate(blocks)]
        title = f"#set document(title: {quoted(blocks[0].text)})"
        source = Path(folder) / "report.typ"
        source.write_text("\n\n".join([title, STYLE, *parts]), encoding="utf-8")
        return typst.compile(str(source))


def _typst() -> Any:
    try:
        return importlib.import_module("typst")  # an optional package
    except ImportError:
        raise ImportError("typst is missing, which sets the PDF: pip install typst, or --no-pdf") from None


def quoted(text: str) -> str:
    """Return a text as a string of Typst, in which nothing is markup.

    Args:
        text: any text.
    """
    shown = "".join(letter for letter in text if letter.isprintable() or letter == "\n")
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _set(block: Block, folder: Path, number: int) -> str:
    if isinstance(block, Heading):
        return f"#heading(level: {block.level}, {quoted(block.text)})"
    if isinstance(block, Text):
        return f"#par({quoted(block.text)})"
    if isinstance(block, Code):
        return f"#block(fill: luma(244), inset: 7pt, radius: 3pt, width: 100%, raw({quoted(block.text)}))"
    if isinstance(block, Row):
        wide = [replace(each, width=1.0) for each in block.pictures]
        cells = [_picture(each, folder, f"{number}-{i}") for i, each in enumerate(wide)]
        inside = ", ".join(f"[{cell}]" for cell in cells)
        return f"#grid(columns: (1fr,) * {len(cells)}, gutter: 10pt, {inside})"
    return _table(block) if isinstance(block, Table) else _picture(block, folder, str(number))


def _table(table: Table) -> str:
    columns = ", ".join(["auto"] * len(table.header))
    head = ", ".join(f'text(weight: "bold", {quoted(title)})' for title in table.header)
    cells = ", ".join(quoted(cell) for row in table.rows for cell in row)
    size = 9 if len(table.header) <= 5 else 7.5
    inner = (
        f"table(columns: ({columns},), stroke: (x, y) => (bottom: 0.4pt + luma(200)), "
        f"inset: (x: 5pt, y: 3.5pt), align: left, table.header({head}), {cells})"
    )
    caption = f", caption: {quoted(table.caption)}" if table.caption else ""
    return f"#[#set text(size: {size}pt)\n#set par(justify: false)\n#figure(kind: table, {inner}{caption})]"


def _picture(picture: Picture, folder: Path, name: str) -> str:
    (folder / f"{name}.png").write_bytes(picture.png)
    image = f'image("{name}.png", width: {picture.width:.0%})'
    return f"#figure(supplement: none, numbering: none, {image}, caption: {quoted(picture.caption)})"
