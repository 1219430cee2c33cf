"""Run every notebook in a new kernel and compare what it prints with what it printed when it was saved.

``python -m benchmarks.twice`` takes the notebooks of this folder, or those that are named. The same seed must
give the same numbers: printed text is compared with times and paths taken out. Where a run differs from the
saved one, the notebook or its code may have changed since, so it is run once more and compared with that; a
cell that differs still is shown. Machine and threads are kept with the result, since another processor may
round otherwise; where the record was made on another one, a line says so.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from benchmarks.fuzz import RECORD, keep
from helpers import runtime

# what a clock, a disk or the kernel's own counting says
_CHANGES = re.compile(
    r"\d[\d,.]* ?(images/s|faces/s|(images|faces) a second|s|ms|µs|min|seconds|minutes|x|times)\b"
    r"|\d+:\d\d|0x[0-9a-f]+|/tmp/\S+|\bcache/\S+"
)
_CLOCK = re.compile(r"\bseconds?\b")  # ends the head of a column of times


def printed(path: Path) -> list[str]:
    """Execute a notebook and return what each of its cells printed, with what may change taken out.

    Args:
        path: the notebook; its file stays as it is, and what it writes goes elsewhere.
    """
    notebook, root = nbformat.read(path, as_version=4), path.parent.resolve()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").symlink_to(root / "data")
        hidden = f"import os, sys; sys.path.insert(0, {str(root)!r}); os.chdir({folder!r})"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(hidden))
        NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
    return texts(notebook)[1:]


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what each code cell of an executed notebook printed, with what may change taken out.

    Args:
        notebook: with its outputs.
    """
    return [_text(cell) for cell in notebook.cells if cell.cell_type == "code"]


def _text(cell: nbformat.NotebookNode) -> str:
    # what is printed may come in one output or in several
    printed = (o.get("text") or o.get("data", {}).get("text/plain", "") + "\n" for o in cell.outputs)
    return _without_columns(_CHANGES.sub("…", "".join(printed)))


def _without_columns(text: str) -> str:
    """Cut the columns of times out of a table: what ends where "seconds" ends in a line above."""
    lines, ends = [], set()
    for line in text.split("\n"):
        heads = {found.end() for found in _CLOCK.finditer(line)}
        ends = ends | heads if line.strip() else set()
        for end in sorted(ends - heads, reverse=True):
            line = line[:end].rstrip("0123456789.,e+").rstrip() + " …" + line[end:]
        lines.append(line)
    return "\n".join(lines)


def differing(path: Path) -> tuple[list[int], str]:
    """Return which code cells of a notebook print otherwise when run again, and which run was compared.

    Args:
        path: the notebook, executed.

    Returns:
        Numbers of cells; and "saved", or "fresh" where the saved run differed and so a second one was made.
    """
    fresh = printed(path)
    changed = _unlike(texts(nbformat.read(path, as_version=4)), fresh)
    if not changed:
        return [], "saved"
    print(f"{path.name}: code cells {changed} are not as saved; once more", flush=True)
    return _unlike(fresh, printed(path)), "fresh"


def _unlike(one: list[str], other: list[str]) -> list[int]:
    """Return the numbers of the cells whose texts differ, and show how."""
    pairs = [(n, *texts) for n, texts in enumerate(zip(one, other, strict=True), start=1)]
    for _, *pair in (each for each in pairs if each[1] != each[2]):
        print("\n".join(difflib.unified_diff(*(text.split("\n") for text in pair), lineterm="", n=0)))
    return [n for n, a, b in pairs if a != b]


def main() -> int:
    """Compare the notebooks with themselves; return 1 where a cell printed something else."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))  # else a busy core takes a thread away
    here, found = runtime.machine(), {}
    known = json.loads(RECORD.read_bytes()).get("twice", {}) if RECORD.exists() else {}
    if known and known["machine"] != here:
        print(f"another machine than the record's: {known['machine']}; here: {here}")
    for path in given.notebooks or sorted(Path().glob("0[1-7]_*.ipynb")):
        cells, against = differing(path)
        found[path.name] = {"differing_cells": cells, "compared_with_a_run": against}
        print(f"{path.name}: {f'code cells {cells} differ' if cells else 'the same'}", flush=True)
    if given.record:
        before = known["notebooks"] if known.get("machine") == here else {}  # those not named now
        keep("twice", {"command": "python -m benchmarks.twice --record", "notebooks": before | found})
    return int(any(each["differing_cells"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
