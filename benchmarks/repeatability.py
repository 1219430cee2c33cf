"""Run every notebook in a new kernel and compare what it prints with what it printed when it was saved.

    python -m benchmarks.repeatability [NOTEBOOK ...]

Printed text is compared without times and paths. Another processor may round otherwise, so a notebook that
differs is run once more and compared with that; a cell that differs still is shown, and the status is 1.
"""

from __future__ import annotations

import difflib
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

# what a clock, a disk or the kernel's own counting prints
_CHANGES = re.compile(
    r"\d[\d,.]* ?(images/s|faces/s|(images|faces) a second|s|ms|µs|min|seconds|minutes|x|times)\b"
    r"|\d+:\d\d|0x[0-9a-f]+|/tmp/\S+|\bcache/\S+"
)


def printed(path: Path) -> list[str]:
    """Execute a notebook and return what each cell printed; what it writes goes into another folder."""
    notebook, root = nbformat.read(path, as_version=4), path.parent.resolve()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").symlink_to(root / "data")
        hidden = f"import os, sys; sys.path.insert(0, {str(root)!r}); os.chdir({folder!r})"
        notebook.cells.insert(0, nbformat.v4.new_code_cell(hidden))
        NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
    return texts(notebook)[1:]


def texts(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what each code cell of an executed notebook printed, with what may change taken out."""
    found = []
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        outputs = (o.get("text") or o.get("data", {}).get("text/plain", "") + "\n" for o in cell.outputs)
        found.append(_without_times(_CHANGES.sub("…", "".join(outputs))))
    return found


def _without_times(text: str) -> str:
    """Cut the columns of times out of a table: what ends where "seconds" ends in a line above."""
    lines, ends = [], set()
    for line in text.split("\n"):
        heads = {found.end() for found in re.finditer(r"\bseconds?\b", line)}
        ends = ends | heads if line.strip() else set()
        for end in sorted(ends - heads, reverse=True):
            line = line[:end].rstrip("0123456789.,e+").rstrip() + " …" + line[end:]
        lines.append(line)
    return "\n".join(lines)


def differing(one: list[str], other: list[str]) -> list[int]:
    """Return the numbers of the cells whose texts differ, and show how."""
    pairs = [(n, a, b) for n, (a, b) in enumerate(zip(one, other, strict=True), start=1) if a != b]
    for _, *pair in pairs:
        print("\n".join(difflib.unified_diff(*(text.split("\n") for text in pair), lineterm="", n=0)))
    return [n for n, *_ in pairs]


def main() -> int:
    """Compare the notebooks with themselves."""
    status = 0
    for path in map(Path, sys.argv[1:] or sorted(map(str, Path().glob("0[1-7]_*.ipynb")))):
        fresh = printed(path)
        if differing(texts(nbformat.read(path, as_version=4)), fresh):
            print(f"{path.name} is not as saved; once more", flush=True)
            if cells := differing(fresh, printed(path)):
                print(f"{path.name}: code cells {cells} differ between two runs", flush=True)
                status = 1
                continue
        print(f"{path.name}: the same", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
