"""A report as one HTML file that needs no other."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import replace

from helpers.report.blocks import Block, Code, Heading, Picture, Row, Table, Text

STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #667; --line: #d9dce0; --paper: #fff; --tint: #f4f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --soft: #9aa3ad; --line: #3a4048; --paper: #15181c; --tint: #20252b }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 }
main { max-width: 52rem; margin: 0 auto; padding: 2.5rem 1.2rem 5rem }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem }
h2 { margin: 3rem 0 .6rem; padding-top: .6rem; border-top: 2px solid var(--line) }
h3 { margin: 2rem 0 .4rem }
nav { background: var(--tint); border-radius: .5rem; padding: .8rem 1.2rem; margin: 1.5rem 0 }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem }
nav a { color: inherit }
.row { display: flex; flex-wrap: wrap; gap: 0 1rem }
.row figure { flex: 1 1 18rem; min-width: 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
.wide { overflow-x: auto; margin: 1rem 0 }
th, td { text-align: left; vertical-align: top; padding: .35rem 1rem .35rem 0 }
th, td { border-bottom: 1px solid var(--line) }
td:not(:first-child) { white-space: nowrap }
th { color: var(--soft); font-weight: 600 }
caption, figcaption { text-align: left; color: var(--soft); font-size: .9rem; padding: .3rem 0 }
caption { caption-side: bottom }
figure { margin: 1.4rem 0 }
figure img { display: block; max-width: 100%; box-sizing: border-box }
figure img { background: #fff; border-radius: .4rem; padding: .5rem }
pre { background: var(--tint); border-radius: .4rem; font-size: .85rem }
pre { padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere }
@media print { h2 { break-before: auto } figure, table { break-inside: avoid } }
"""


def as_html(blocks: Sequence[Block]) -> str:
    """Return the page.

    Args:
        blocks: what it says; the first is its title.
    """
    title = html.escape(blocks[0].text)
    sections = [each.text for each in blocks if isinstance(each, Heading) and each.level == 2]
    links = "".join(f'<a href="#{anchor(text)}">{html.escape(text)}</a>' for text in sections)
    parts = [_set(each) for each in blocks]
    parts.insert(2, f"<nav>{links}</nav>")
    body = "\n".join(parts)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title><style>{STYLE}</style></head>\n'
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def anchor(text: str) -> str:
    """Return the name of a heading in an address.

    Args:
        text: the heading.
    """
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _set(block: Block) -> str:
    if isinstance(block, Heading):
        return f'<h{block.level} id="{anchor(block.text)}">{html.escape(block.text)}</h{block.level}>'
    if isinstance(block, Text):
        return f"<p>{html.escape(block.text)}</p>"
    if isinstance(block, Code):
        return f"<pre>{html.escape(block.text)}</pre>"
    if isinstance(block, Row):
        return (
            f'<div class="row">{"".join(_picture(replace(each, width=1.0)) for each in block.pictures)}</div>'
        )
    return _table(block) if isinstance(block, Table) else _picture(block)


def _table(table: Table) -> str:
    caption = f"<caption>{html.escape(table.caption)}</caption>" if table.caption else ""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in table.header)
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table.rows)
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table>{caption}<tr>{head}</tr>{rows}</table></div>'


def _picture(picture: Picture) -> str:
    data, caption = base64.b64encode(picture.png).decode(), html.escape(picture.caption)
    image = f'<img src="data:image/png;base64,{data}" alt="{caption}" style="width: {picture.width:.0%}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
