"""The commands ``run`` and ``test``: notebooks in fresh kernels, and pytest over all of it."""

from __future__ import annotations

import ast
import json
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import cli, did_you_mean
from helpers.cli.data import there

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("structure", "files", "images", "losses", "metrics", "batches", "models", "hog")
"""The test files of ``test --quick``; the first notebook runs, too."""


REAL = {"1": "fer2013 ferplus muxspace", "2": "fer2013 muxspace", "3": "fer2013 muxspace", "4": "fer2013"}
REAL |= {"5": "affectnet", "6": "ferplus", "7": "fer2013"}
"""The photographs that each notebook is made for."""


def run(
    notebooks: list[str] | None = None,
    *,
    parameter: dict[str, str] | None = None,
    real: bool = False,
    out: Path = ROOT / "runs" / "notebooks",
    timeout: int = 3600,
) -> int:
    """Run notebooks, as they are or with other parameters.

    Each runs in a fresh kernel, in the project's folder. A value given by -p takes the place of the
    notebook's own, in each that has the name. The notebooks stay as they are: executed copies, a page of each
    and an index of them go to --out.

      python3 -m helpers run
      python3 -m helpers run 03 -p DATASET fer2013 -p EPOCHS 20
      python3 -m helpers run --real -p DATA_ROOT D:/faces

    Exit status: 0 all ran, 1 a cell failed (the other notebooks still run), 2 a mistake in the words,
    130 stopped by Ctrl-C.

    Args:
        notebooks: 01, 02 … or a file; all where none is named
        parameter: set a parameter; may be repeated
        real: on each set of photographs that the notebook is made for and that lies in DATA_ROOT
        out: where the executed copies go
        timeout: the longest that one cell may take, in seconds
    """
    if timeout < 1:
        raise ValueError(f"--timeout is a number of seconds from 1, not {timeout}")
    paths, given, results, began = choose(notebooks or []), parameter or {}, [], time.monotonic()
    jobs = [(path, out, values) for path, values in settings(paths, given).items()]
    if real:
        sets = [(*job, name) for job in jobs for name in REAL.get(job[0].stem[1:2], "").split()]
        jobs = [(path, out / name, values | {"DATASET": name}) for path, out, values, name in sets]
        for job in jobs[:]:
            name, root = job[2]["DATASET"], Path(job[2].get("DATA_ROOT", ROOT / "data")).expanduser()
            if not there(name, root):
                print(f"{job[0].stem}  left out: {name} is not in {root}", flush=True)
                jobs.remove(job)
        if not jobs:
            raise ValueError("none of the sets is there; name their folder: -p DATA_ROOT FOLDER")
    for folder in {folder for _, folder, _ in jobs}:
        write_index(folder)  # where nothing can be written, this is known before anything runs
    for name in {name for _, _, values in jobs for name in values}:
        having = list(dict.fromkeys(path.stem for path, _, values in jobs if name in values))
        if len(having) < len(paths):
            print(f"{name} is a parameter of {', '.join(having)} only.")
    for path, folder, values in jobs:
        results.append(execute(path, folder, values, timeout))
        title = f"{path.stem} on {values['DATASET']}" if real else path.stem
        print(f"{title}  {results[-1]}", flush=True)
        index = write_index(folder)
        if results[-1].startswith("stopped"):
            break
    done = sum(result.startswith("done") for result in results)
    print(f"{done} of {len(jobs)} notebooks done in {clock(began)}.\nOpen {cli.short(index)}")
    return 130 if results[-1].startswith("stopped") else int(done < len(jobs))


def clock(began: float) -> str:
    """Return the time since a moment of ``time.monotonic`` as minutes and seconds, "1:05"."""
    minutes, seconds = divmod(int(time.monotonic() - began), 60)
    return f"{minutes}:{seconds:02d}"


def notebooks(root: Path = ROOT) -> list[Path]:
    """Return the workbook's notebooks in order, without Jupyter's copies (``…-Copy1.ipynb``)."""
    return sorted(path for path in root.glob("0*.ipynb") if re.fullmatch(r"0\d_\w+", path.stem))


def choose(words: list[str], root: Path = ROOT) -> list[Path]:
    """Return the notebooks that "03", "3", "03_custom_cnn" or a path names, each once; all without words."""
    here = notebooks(root)
    if not words and not here:
        raise ValueError(f"there is no notebook in {root}")
    files = (Path(word) for word in words if word.endswith(".ipynb"))
    by_name = {str(path): path.resolve() for path in files if path.is_file()}
    for path in here:
        by_name |= dict.fromkeys((path.stem, path.name, path.stem[:2], path.stem[1]), path)
    for word in words:
        if word not in by_name:
            known = [path.stem for path in here]
            near = f"{did_you_mean(word, known)}; here: {', '.join(known) or 'none'}"
            raise ValueError(f"no notebook {word!r}{near}")
    return list(dict.fromkeys(by_name[word] for word in words)) or here


def parameters(notebook: dict) -> dict[str, Any]:
    """Return the names that a notebook's ``parameters`` cell sets, with their values; ... for no literal."""
    found = {}
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell.get("metadata", {}).get("tags", ())]
    for line in (line for cell in tagged for line in ast.parse("".join(cell["source"])).body):
        if isinstance(line, (ast.Assign, ast.AnnAssign)):
            name = ast.unparse(line.target if isinstance(line, ast.AnnAssign) else line.targets[0])
            if name.isupper():
                found[name] = ...
                with suppress(ValueError):
                    found[name] = ast.literal_eval(line.value)
    return found


def settings(paths: list[Path], given: dict[str, str]) -> dict[Path, dict[str, Any]]:
    """Return for each notebook the values that take the place of its own, of the same types."""
    own = {}
    for path in paths:
        try:
            own[path] = parameters(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, SyntaxError) as error:
            raise ValueError(f"the parameters of {path.name} cannot be read: {error}") from error
    known = dict.fromkeys(name for names in own.values() for name in names)
    values: dict[Path, dict[str, Any]] = {path: {} for path in paths}
    for word, text in given.items():
        name = cli.choose("parameter", word, known)
        for path in (path for path in paths if name in own[path]):
            before, value = own[path][name], cli.literal(text)
            if isinstance(before, (str, bool, int, float)):
                value = cli.convert(text, type(before), f"{name} (here: {before})")
            elif isinstance(before, (tuple, list)) and not isinstance(value, (tuple, list)):
                raise ValueError(f"{name} is like {before}, not {text!r}")
            values[path][name] = value
    return values


def execute(path: Path, out: Path, values: dict[str, Any], timeout: int = 3600, root: Path = ROOT) -> str:
    """Run one notebook in a kernel of this environment; keep the copy and its page.

    Returns "done in 1:05", or "failed …" and "stopped …" with the cell, its section and the error.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from tqdm import tqdm

    from helpers import files

    notebook, began, begun = nbformat.read(path, as_version=4), time.monotonic(), [0]
    if values:
        lines = ["# Given on the command line"] + [f"{name} = {value!r}" for name, value in values.items()]
        tag = "injected-parameters"
        given = nbformat.v4.new_code_cell("\n".join(lines), id=tag, metadata={"tags": [tag]})
        tagged = [i for i, each in enumerate(notebook.cells) if "parameters" in each.metadata.get("tags", ())]
        notebook.cells.insert(tagged[-1] + 1, given)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:  # what an earlier run left must not pass for this one's
        cell.outputs, cell.execution_count = [], None
    every = 0.2 if sys.stdout.isatty() else 30
    with tqdm(total=len(code), desc=path.stem, unit="cell", mininterval=every, file=sys.stdout) as bar:
        hooks = {"on_cell_start": lambda cell, cell_index: begun.append(cell_index)}
        hooks["on_cell_executed"] = lambda **_: bar.update()
        status, error = _in_kernel(notebook, timeout, root, hooks)
    result = f"{status} {'after' if error else 'in'} {clock(began)}"
    if error:
        before = notebook.cells[: begun[-1] + 1]
        texts = "\n".join(cell.source for cell in before if cell.cell_type == "markdown")
        section = (re.findall(r"^#{1,4}\s+(.+?)\s*$", texts, re.MULTILINE) or ["start"])[-1]
        result += f" in cell {sum(cell in code for cell in before)} ({section}): {error}"
    given = {name: repr(value) for name, value in values.items()}
    notebook.metadata["reading_faces"] = {"result": result.split("\n")[0], "parameters": given}
    notebook.metadata.pop("widgets", None)
    for output in (output for cell in code for output in cell.outputs):
        # without its kernel a slider moves nothing: the panel's still stays
        output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    page, _ = HTMLExporter().from_notebook_node(notebook, {"metadata": {"name": path.stem}})
    files.write(out / path.name, nbformat.writes(notebook))
    files.write(out / f"{path.stem}.html", page)
    return result


def _in_kernel(notebook: NotebookNode, timeout: int, root: Path, hooks: dict[str, Any]) -> tuple[str, str]:
    """Execute a notebook; return "done", "failed" or "stopped" and the error with its traceback."""
    from concurrent.futures import ThreadPoolExecutor

    import psutil
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    hooks |= {"kernel_name": "python3", "extra_arguments": ["--log-level=ERROR"], "timeout": timeout}
    client = NotebookClient(notebook, resources={"metadata": {"path": str(root)}}, **hooks)
    with ThreadPoolExecutor(1) as pool:  # so that Ctrl-C is heard here, and the client can tidy up
        running = pool.submit(client.execute)
        try:
            running.result()
        except KeyboardInterrupt:
            # Killed, not interrupted: a training loop answers an interrupt by ending early, and the notebook
            # would go on. More than once, for a kernel may be only about to start.
            while not running.done():
                for kernel in psutil.Process().children():
                    kernel.kill()
                time.sleep(0.1)
            return "stopped", "Ctrl-C"
        except CellTimeoutError:
            return "failed", f"the cell took longer than {timeout} s; --timeout SECONDS gives it more"
        except DeadKernelError:
            return "failed", "its Python ended without a word, as it does when memory runs out"
        except CellExecutionError as error:
            trace = re.sub(r"\x1b\[[0-9;]*m", "", error.traceback).strip().replace("\n", "\n    ")
            return "failed", f"{error.ename}: {error.evalue}".split("\n")[0] + f"\n    {trace}"
    return "done", ""


def write_index(out: Path) -> Path:
    """Write the page that lists the executed notebooks of a folder, and return its path."""
    from html import escape

    from helpers import files

    page = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Executed notebooks</title>\n'
    page += "<h1>Executed notebooks</h1><table cellpadding=8>\n<tr><th>Notebook<th>Result<th>Parameters\n"
    for path in sorted(out.glob("*.ipynb")):
        note = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("reading_faces", {})
        given = ", ".join(f"{name} = {value}" for name, value in note.get("parameters", {}).items())
        link = f'<a href="{escape(path.stem)}.html">{escape(path.stem)}</a>'
        page += f"<tr><td>{link}<td>{escape(note.get('result', 'unknown'))}<td>{escape(given)}\n"
    files.write(out / "index.html", f"{page}</table></html>\n")
    return out / "index.html"


def test(*words: str, quick: bool = False) -> int:  # noqa: D417, PT028 (a command, not a test)
    """Run every test, the notebooks included.

    In the notebooks no cell may fail, and cells marked # NBVAL_CHECK_OUTPUT must print what they printed when
    they were saved. Whatever else is given goes to pytest:

      python3 -m helpers test --quick                the structure, the units, one notebook: under two minutes
      python3 -m helpers test tests/test_hog.py -x   one file, up to the first failure
      python3 -m helpers test -n 0                   all in one process, not in one a core (up to four)

    Tests on real faces run when WORKBOOK_DATA names the folder that holds them. The exit status is pytest's.

    Args:
        quick: some of the tests
    """
    import pytest

    os.chdir(ROOT)
    return int(pytest.main(pytest_words(list(words), quick)))


def pytest_words(words: list[str], quick: bool = False, root: Path = ROOT) -> list[str]:
    """Return the words for pytest: all tests and notebooks in one count, unless the user names files."""
    lax = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-rs"]
    if any(re.search(r"(\.py|\.ipynb)(::.*)?$|^tests([/\\]|$)", word) for word in words):
        return lax + words
    books = [path.name for path in notebooks(root)]  # they take longest, so they come first
    targets = [*books[:1], *(f"tests/test_{name}.py" for name in QUICK)] if quick else [*books, "tests"]
    processes = min(os.cpu_count() or 1, 4)  # each needs up to two gigabytes
    shared = ["-n", str(processes), "--dist=loadfile", "--no-loadscope-reorder"] if processes > 1 else []
    return targets + shared + lax + words
