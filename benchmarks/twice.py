"""Run every notebook twice, each time in a new kernel, and compare what they print.

``python -m benchmarks.twice`` takes the notebooks of this folder, or those that are named. The same seed must
give the same numbers: printed text is compared with times and paths taken out, and a cell that differs is
shown. Machine and threads are kept with the result, since another processor may round otherwise; where the
record was made on another one, a line says so.
"""

from __future__ import annotations

import argparse
import json
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
    r"\d[\d,.]* ?(images/s|faces/s|s|ms|µs|min|seconds|minutes|x|times)\b"
    r"|\d+:\d\d|0x[0-9a-f]+|/tmp/\S+|\bcache/\S+"
)


def printed(path: Path, folder: Path) -> list[str]:
    """Execute a notebook and return what each of its cells printed, with what may change taken out.

    Args:
        path: the notebook; its file stays as it is.
        folder: where its run folders go.
    """
    notebook = nbformat.read(path, as_version=4)
    root = str(path.parent.resolve())
    hidden = nbformat.v4.new_code_cell(
        f"import os, sys; sys.path.insert(0, {root!r}); os.chdir({str(folder)!r})"
    )
    notebook.cells.insert(0, hidden)
    NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
    return [_text(cell) for cell in notebook.cells[1:] if cell.cell_type == "code"]


def _text(cell: nbformat.NotebookNode) -> str:
    parts = []
    for output in cell.outputs:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        parts.append(_CHANGES.sub("…", text))
    return "\n".join(parts)


def main() -> int:
    """Compare the notebooks with themselves; return 1 where a cell printed something else."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="*", type=Path)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    here, found = runtime.machine(), {}
    known = json.loads(RECORD.read_bytes()).get("twice", {}) if RECORD.exists() else {}
    if known and known["machine"] != here:
        print(f"another machine than the record's: {known['machine']}; here: {here}")
    for path in given.notebooks or sorted(Path().glob("0[1-7]_*.ipynb")):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
            pairs = zip(printed(path, Path(one)), printed(path, Path(other)), strict=True)
            differing = [number for number, (a, b) in enumerate(pairs, start=1) if a != b]
        found[path.name] = differing
        print(f"{path.name}: {'the same' if not differing else f'code cells {differing} differ'}", flush=True)
    if given.record:
        keep("twice", {"command": "python -m benchmarks.twice", "differing_cells": found})
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
