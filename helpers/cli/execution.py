"""One notebook in a kernel of its own, and what that leaves on disk."""

from __future__ import annotations

import html
import json
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from helpers import files
from helpers.cli.status import StatusLine, clock

INJECTED = "injected-parameters"
"""Id and tag of the cell that holds the values given on the command line."""


@dataclass
class Outcome:
    """How the run of one notebook went.

    Args:
        name: the notebook's name without ``.ipynb``.
        status: "done", "failed" or "stopped".
        seconds: how long it took.
        cell: the code cell that it failed or stopped in, counted from 1; 0 where it did neither.
        section: the heading above that cell.
        error: the error in one line.
        trace: what Python printed of it.
    """

    name: str
    status: str = "done"
    seconds: float = 0.0
    cell: int = 0
    section: str = ""
    error: str = ""
    trace: str = ""

    def __str__(self) -> str:
        if self.status == "done":
            return f"{self.name}  done in {clock(self.seconds)}"
        where = f" in cell {self.cell} ({self.section})" if self.cell else ""
        story = "".join(f"\n    {line}" for line in self.trace.splitlines())
        return f"{self.name}  {self.status} after {clock(self.seconds)}{where}: {self.error}{story}"


def execute(path: Path, out: Path, values: dict[str, Any], timeout: int, root: Path) -> Outcome:
    """Run one notebook in a fresh kernel of this environment; keep the executed copy and a page of it.

    Args:
        path: the notebook, which is only read.
        out: the folder for the copies.
        values: what is put in after the cell tagged ``parameters``.
        timeout: the longest a cell may take, in seconds.
        root: the folder in which the cells work.

    Returns:
        How it went. Ctrl-C ends the kernel and gives "stopped"; the copy then ends where the run did.
    """
    notebook = nbformat.read(path, as_version=4)
    inject(notebook, values)
    for cell in notebook.cells:  # what an earlier run left must not pass for this one's
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    outcome, began = Outcome(path.stem), time.monotonic()
    _Job(notebook, timeout, root).watch(outcome, StatusLine())
    outcome.seconds = time.monotonic() - began
    still(notebook)
    notebook.metadata["reading_faces"] = {
        "status": outcome.status,
        "seconds": round(outcome.seconds, 1),
        "error": outcome.error,
        "parameters": {name: repr(value) for name, value in values.items()},
    }
    keep(notebook, out / path.name)
    return outcome


def inject(notebook: NotebookNode, values: dict[str, Any]) -> None:
    """Put a cell that sets the values right after the one tagged ``parameters``.

    Args:
        notebook: changed in place.
        values: names and values; where there are none, nothing is put in.
    """
    if not values:
        return
    lines = ["# Given on the command line"] + [f"{name} = {value!r}" for name, value in values.items()]
    cell = nbformat.v4.new_code_cell("\n".join(lines), id=INJECTED, metadata={"tags": [INJECTED]})
    tagged = [i for i, each in enumerate(notebook.cells) if "parameters" in each.metadata.get("tags", ())]
    notebook.cells.insert(tagged[-1] + 1, cell)


def still(notebook: NotebookNode) -> None:
    """Leave of each panel only its line of text: without its kernel a slider moves nothing.

    Args:
        notebook: changed in place.
    """
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)


class _Job:
    """A notebook that runs in a thread, while this one counts the seconds and hears Ctrl-C."""

    def __init__(self, notebook: NotebookNode, timeout: int, root: Path):
        self.code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
        self.sections, self.timeout = _sections(notebook), timeout
        self.at, self.error = 0, None
        self.client = _client(notebook, timeout, root, on_cell_start=self._note)
        self.ended = threading.Event()

    def _note(self, cell: NotebookNode, cell_index: int) -> None:
        self.at = cell_index

    def _work(self) -> None:
        try:
            # The manager is ours, so ending the kernel has to be asked for.
            self.client.execute(cleanup_kc=True)
        except Exception as error:  # whatever it is, the reader is told and the next notebook runs
            self.error = error
        finally:
            self.ended.set()

    def _place(self) -> tuple[int, str]:
        return sum(i <= self.at for i in self.code), self.sections[self.at] if self.sections else ""

    def watch(self, outcome: Outcome, line: StatusLine) -> None:
        """Run to the end, showing how far it is; what went wrong is noted in the outcome."""
        try:
            self._follow(outcome.name, line)
        except KeyboardInterrupt:
            outcome.status, outcome.error = "stopped", "Ctrl-C"
            self._kill()
        line.clear()
        if self.error is not None and outcome.status == "done":
            outcome.status = "failed"
            outcome.error, outcome.trace = _explain(self.error, self.timeout)
        if outcome.status != "done":
            outcome.cell, outcome.section = self._place()

    def _follow(self, name: str, line: StatusLine) -> None:
        began = time.monotonic()
        threading.Thread(target=self._work, daemon=True).start()
        # An event and not Thread.join: Python 3.11 takes a thread for ended when Ctrl-C interrupts its join
        # (https://github.com/python/cpython/issues/90882), and a client that still tidies up hangs the exit.
        while not self.ended.wait(0.2):
            number, section = self._place()
            elapsed = (
                f"{clock(time.monotonic() - began)}  cell {number} of {len(self.code)}  " if line.live else ""
            )
            line.show(f"{name}  {elapsed}{section}")

    def _kill(self) -> None:
        # Not interrupted: a training loop answers that by ending early, and the notebook would go on. More
        # than once, for a kernel may be only about to start.
        until = time.monotonic() + 30
        while time.monotonic() < until:
            process = getattr(getattr(self.client.km, "provisioner", None), "process", None)
            if process is not None:
                process.kill()
            if self.ended.wait(0.2):
                break


class _ThisEnvironment(KernelSpecManager):
    """Knows one kernel: the running interpreter's, whatever "python3" means elsewhere on the machine."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def _client(notebook: NotebookNode, timeout: int, root: Path, **hooks: Callable) -> NotebookClient:
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=_ThisEnvironment())
    place = {"metadata": {"path": str(root)}}
    return NotebookClient(notebook, timeout=timeout, km=manager, resources=place, **hooks)


def _sections(notebook: NotebookNode) -> list[str]:
    """Return for each cell the last heading at or above it."""
    names, current = [], "start"
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            headings = re.findall(r"^#{1,4}\s+(.+?)\s*$", cell.source, re.MULTILINE)
            current = headings[-1] if headings else current
        names.append(current)
    return names


def _explain(error: Exception, timeout: int) -> tuple[str, str]:
    """Return an error of a run in one line, and Python's own account of it where a cell raised it."""
    if isinstance(error, CellTimeoutError):
        return f"the cell took longer than {timeout} s; --timeout SECONDS gives it more", ""
    if isinstance(error, DeadKernelError):
        return "its Python ended without a word, as it does when memory runs out", ""
    if isinstance(error, CellExecutionError):
        one_line = f"{error.ename}: {error.evalue}".strip().split("\n")[0]
        return one_line, re.sub(r"\x1b\[[0-9;]*m", "", error.traceback).strip()
    return f"{type(error).__name__}: {error}", ""


def keep(notebook: NotebookNode, target: Path) -> None:
    """Write an executed notebook and, beside it, a page of it for the browser.

    Args:
        notebook: the notebook.
        target: the file; the page takes its name with ``.html``.
    """
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": target.stem}})
    for path, text in ((target, nbformat.writes(notebook)), (target.with_suffix(".html"), page)):
        with files.replacing(path) as file:
            file.write(text.encode())


def write_index(out: Path) -> Path:
    """Write the page that lists what stands in a folder of executed notebooks, and return its path.

    Args:
        out: the folder.
    """
    rows = "\n".join(_row(path) for path in sorted(out.glob("*.ipynb")))
    with files.replacing(out / "index.html") as file:
        file.write(_PAGE.replace("ROWS", rows).encode())
    return out / "index.html"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Reading Faces: executed notebooks</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222 }
body { max-width: 60rem; margin: 3rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .5rem 1rem .5rem 0; border-bottom: 1px solid #ddd }
.failed, .stopped { color: #b00020 }
code { font-size: 90% }
</style>
<h1>Reading Faces</h1>
<p>What the last run of each notebook left in this folder.</p>
<table>
<tr><th>Notebook<th>Result<th>Time<th>Given parameters<th>File
ROWS
</table>
</html>
"""


def _row(path: Path) -> str:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    note = notebook["metadata"].get("reading_faces", {})
    texts = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    title = next(texts, "").strip().split("\n")[0].lstrip("# ") or path.stem
    status, error, values = note.get("status", "unknown"), note.get("error", ""), note.get("parameters", {})
    given = [f"<code>{html.escape(f'{name} = {value}')}</code>" for name, value in values.items()]
    cells = (
        f'<a href="{html.escape(path.stem)}.html">{html.escape(title)}</a>',
        f'<span class="{status}">{status}</span> {html.escape(error)}',
        clock(note.get("seconds", 0)),
        "<br>".join(given) or "none",
        f'<a href="{html.escape(path.name)}">{html.escape(path.name)}</a>',
    )
    return "<tr>" + "".join(f"<td>{cell}" for cell in cells)
