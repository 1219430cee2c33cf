"""The commands ``grade`` and ``solutions``: points for submitted notebooks, and solved copies for teachers.

Answers run in a process that holds no check, no expected value and no model answer. The check stays here,
draws its random inputs, and gets numbers back, never an object that would have to be unpickled.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import multiprocessing
import os
import pickle
import re
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from helpers import cli
from helpers.cli.run import ROOT, notebooks

MODEL_ANSWERS = ROOT / "tests" / "model_answers.py"  # those to open questions: beside it, .md
LARGEST = 2**26  # bytes: of a notebook, of what an answer sends back, and of a file that it writes
FORBIDDEN = ("subprocess.", "socket.", "ctypes.", "gc.", "os.", "pty.", "shutil.", "signal.", "webbrowser.")
"""Beginnings of events (of audit hooks, PEP 578) that no answer needs, but for some that imports need."""
NEEDED, CHANGES = ("os.listdir", "os.scandir", "os.putenv"), os.O_WRONLY | os.O_RDWR | os.O_CREAT
IMPORTED = ["torchvision", "scipy.stats", "pandas", "seaborn", "sklearn.svm", "skimage.feature"]


def grade(submissions: list[Path], *, out: Path | None = None, seconds: int = 10, memory: int = 2) -> int:
    """Grade the exercises of submitted notebooks.

    A folder stands for all notebooks in it. Only the functions of the exercises run, with the imports,
    functions and constants of their notebook: no training. The checks are this package's own, so that a
    changed or deleted check earns nothing. Open questions are left to you.

    Args:
        submissions: notebooks, and folders of them
        out: the csv file, one row an exercise (default: runs/grades.csv in the project's folder)
        seconds: the longest that the answers to one exercise may take together
        memory: how many gigabytes they may take
    """
    import pandas as pd

    from helpers import files

    if seconds < 1 or memory < 1:
        raise ValueError("--seconds and --memory are whole numbers from 1")
    out = out or ROOT / "runs" / "grades.csv"
    books = {path.stem: code_cells(path) for path in notebooks()}
    rows = [row for path, name in found(submissions) for row in graded(path, name, books, seconds, memory)]
    table = pd.DataFrame(rows, columns=["submission", "notebook", "exercise", "points", "of", "remark"])
    files.write(out, table.to_csv(index=False))
    for book, part in table[table["of"] > 0].groupby("notebook"):
        points = part.pivot_table("points", "submission", "exercise", sort=False).astype(int)
        points["total"] = points.sum(axis=1)
        print(f"{book}, out of {part.groupby('exercise')['of'].first().sum()} points\n{points.to_string()}\n")
    lost = (table["of"] == 0) | (table["points"] < table["of"]) & ~table["remark"].str.startswith("waits")
    for row in table[lost].itertuples():
        print(f"{row.submission}: {row.exercise} {row.remark[:160]}")
    print(f"\nWrote {cli.short(out)}. Open questions are graded by hand.")
    return 0


def found(given: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each submitted notebook, and what its row is called."""
    for path in given:
        inside = sorted(path.rglob("*.ipynb")) if path.is_dir() else [path]
        if not inside or not path.exists():
            raise ValueError(f"there is no {'notebook in ' if path.exists() else ''}{path}")
        for each in inside:
            if ".ipynb_checkpoints" not in each.parts:
                yield each, each.relative_to(path).as_posix() if path.is_dir() else each.name


def code_cells(path: Path) -> list[tuple[str, dict]]:
    """Return each code cell, without IPython's lines, and its marks of nbgrader; or raise ValueError."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError("too large")
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        cells = [cell for cell in cells if cell["cell_type"] == "code"]
        sources = [re.sub(r"^(\s*)[%!].*", r"\1pass", "".join(each["source"]), flags=re.M) for each in cells]
        marks = [dict(each["metadata"].get("nbgrader", {})) for each in cells]
        return list(zip(sources, marks, strict=True))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a notebook: {error}") from None


def graded(path: Path, submission: str, books: dict, seconds: int, memory: int) -> list[tuple]:
    """Return a row for each exercise of a submission: the points, out of how many, and why."""
    try:
        cells = code_cells(path)
    except ValueError as error:
        return [(submission, "", "", 0, 0, str(error))]
    named = {str(marks.get("grade_id")) for _, marks in cells}
    named |= {name for code, _ in cells for name in re.findall(r"^def (\w+)\(", code, re.MULTILINE)}
    points = {
        book: {each["grade_id"][len("check_") :]: each["points"] for _, each in own if each.get("grade")}
        for book, own in books.items()
    }
    book = max(points, key=lambda book: len(named & set(points[book])))
    if not named & set(points[book]):
        return [(submission, "", "", 0, 0, "no exercise of the workbook's notebooks is in it")]
    own, rows = [code for code, marks in books[book] if not marks], []
    around = [text for code, marks in books[book] + cells if not marks for text in statements(code)]
    for name, of in points[book].items():
        answers = [code for code, marks in cells if marks.get("grade_id") == name]
        if not answers:  # the marks were lost on the way
            answers = [c for c, _ in cells if re.search(rf"^def {name}\(", c, re.MULTILINE) and c not in own]
        right, remark = False, f"{len(answers) or 'no'} cells answer this exercise"
        if len(answers) == 1:
            right, remark = tried(name, answers[0], around, seconds, memory)
        shown = "".join(each if each.isprintable() else " " for each in remark)
        rows.append((submission, book, name, of * right, of, shown))
    return rows


def statements(code: str) -> Iterator[str]:
    """Yield the imports, functions, classes and constants of a cell; nothing of helpers."""
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        for node in ast.parse(code).body:
            text, value = ast.unparse(node), ast.walk(node.value) if isinstance(node, ast.Assign) else [node]
            constant = not any(isinstance(each, (ast.Name, ast.Call, ast.stmt)) for each in value)
            ours = re.match(r"(from|import)\b.*\b(helpers|tests|google)\b", text)
            if constant or (isinstance(node, kept) and not ours):
                yield text


def tried(name: str, answer: str, around: list[str], seconds: int, memory: int) -> tuple[bool, str]:
    """Let the package's check try an answer; return whether it is right, and what the check said."""
    from helpers import exercises

    linux, said = sys.platform == "linux", io.StringIO()
    context = multiprocessing.get_context("forkserver" if linux else "spawn")
    if linux:  # what takes long to import is there before the first answer comes
        context.set_forkserver_preload(IMPORTED)
    pipe, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        told = (theirs, around, name, answer, os.path.realpath(folder), memory)
        process = context.Process(target=serve, args=told, daemon=True)
        process.start()
        theirs.close()

        def ask(*arguments: Any) -> Any:
            pipe.send_bytes(pickle.dumps(arguments))
            return received(process, pipe, deadline, memory, arguments)

        try:
            received(process, pipe, time.monotonic() + 60, memory)  # its imports
            deadline = time.monotonic() + seconds
            received(process, pipe, deadline, memory)
            with contextlib.redirect_stdout(said):
                right = getattr(exercises, f"check_{name}")(ask)
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"
        finally:
            process.kill()
            process.join()
    return right, re.sub(r" \(line \d+\)$", "", said.getvalue().strip().partition(": ")[2])


def received(process: Any, pipe: Any, deadline: float, memory: int, arguments: tuple = ()) -> Any:
    """Return what an answer returned, or raise what it raised; do to the arguments what it did to its own."""
    import psutil

    while not pipe.poll(0.1):
        if time.monotonic() > deadline:
            raise TimeoutError("it took too long; --seconds gives it more")
        with contextlib.suppress(psutil.Error):
            if psutil.Process(process.pid).memory_info().rss > (memory + 1) * 2**30:
                raise MemoryError("it took too much; --memory gives it more")
    try:
        reply = json.loads(pipe.recv_bytes(LARGEST))
    except (EOFError, OSError, ValueError):
        raise ChildProcessError("it ended its process") from None
    if reply.get("raised") == "NotImplementedError":
        raise NotImplementedError
    if "raised" in reply:
        raise type(reply["raised"], (Exception,), {})(reply["text"])
    for argument, after in zip(arguments, reply["arguments"], strict=True):
        unpacked(after, into=argument)
    return unpacked(reply["result"])


def serve(pipe: Any, around: list[str], name: str, answer: str, folder: str, memory: int) -> None:
    """In the answer's process: define what the notebook defines, then the answer, and call it as asked."""
    confine(folder, memory)
    stub = types.ModuleType("exercises")  # for cells that hold their check, too
    stub.__getattr__ = lambda _: lambda *_: 0
    names = {"__name__": "__main__", "exercises": stub}

    def perform(what: Callable, *arguments: Any) -> None:
        try:
            result = what(*arguments)
            reply = {"result": packed(result), "arguments": [packed(each) for each in arguments]}
        except BaseException as error:
            frames = traceback.walk_tb(error.__traceback__)
            lines = [number for frame, number in frames if frame.f_code.co_filename == "answer"]
            where = f" (line {lines[-1]} of the cell)" if lines else ""
            reply = {"raised": type(error).__name__, "text": f"{error}"[:500] + where}
        pipe.send_bytes(json.dumps(reply).encode())

    def run(imports: bool) -> None:
        for text in around:
            if text.startswith(("from ", "import ")) is imports:
                with contextlib.suppress(Exception):
                    exec(text, names)

    run(imports=True)
    sys.addaudithook(guard(pipe, folder))
    perform(lambda: run(imports=False))
    names[name] = None  # one of the notebook's own functions must not pass for the answer
    perform(lambda: exec(compile(answer, "answer", "exec"), names))
    while True:
        perform(names[name], *pickle.loads(pipe.recv_bytes()))


def confine(folder: str, memory: int) -> None:
    """Limit this process, and let it see neither the terminal nor the workbook."""
    import psutil
    import torch

    torch.set_num_threads(1)
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has none, macOS not all
        import resource

        most = psutil.Process().memory_info().vms + memory * 2**30
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    os.chdir(folder)
    tempfile.tempdir, sys.dont_write_bytecode = folder, True
    python = os.path.join(sys.prefix, "")  # .venv, which may lie in the workbook
    sys.path[:] = [
        each for each in sys.path if each.startswith(python) or not Path(each).resolve().is_relative_to(ROOT)
    ]
    for stream in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), stream)


def guard(pipe: Any, folder: str) -> Callable[[str, tuple], None]:
    """Return an audit hook that ends the process when it does what no answer needs.

    It stops carelessness and simple tricks. It is no sandbox: grade strangers' notebooks in a container.
    """
    places = (os.path.join(os.path.realpath(each), "") for each in sys.path)
    readable = tuple(each for each in places if not str(ROOT).startswith(each))

    def hook(event: str, arguments: tuple) -> None:
        wrong = event if event.startswith(FORBIDDEN) and event not in NEEDED else ""
        if event == "open" and not isinstance(arguments[0], int):
            path, reads = os.path.realpath(os.fsdecode(arguments[0])), not (arguments[2] or 0) & CHANGES
            if not path.startswith((os.path.join(folder, ""), *(readable if reads else ()))):
                wrong = f"open {path}"
        if wrong:
            reply = {"raised": "PermissionError", "text": f"an answer may not do this: {wrong}"}
            pipe.send_bytes(json.dumps(reply).encode())
            os._exit(1)

    return hook


def packed(value: Any) -> dict[str, Any]:
    """Return numbers, an array or a tensor as what JSON can hold; of a network what learns; else the type."""
    import numpy as np
    import torch

    kind = type(value).__name__
    if isinstance(value, torch.nn.Module):
        learns = [each.requires_grad for each in value.parameters()]
        return {"type": kind, "learns": learns, "training": [each.training for each in value.modules()]}
    with contextlib.suppress(TypeError, ValueError):  # ragged lists; what is no number
        array = np.asarray(value.detach() if isinstance(value, torch.Tensor) else value)
        if array.dtype.kind in "bifu":
            data = base64.b64encode(array.tobytes()).decode()
            return {"type": kind, "data": data, "dtype": array.dtype.str, "shape": array.shape}
    return {"type": kind}


def unpacked(found: dict[str, Any], into: Any = None) -> Any:
    """Return what was packed; or do to an argument, given as into, what was done to its copy."""
    import numpy as np
    import torch

    if isinstance(into, torch.nn.Module):
        for each, learns in zip(into.parameters(), found["learns"], strict=True):
            each.requires_grad_(learns)
        for each, training in zip(into.modules(), found["training"], strict=True):
            each.training = training
    if "data" not in found:
        return None if found["type"] == "NoneType" else type(found["type"], (), {})()
    array = np.frombuffer(base64.b64decode(found["data"]), found["dtype"]).reshape(found["shape"]).copy()
    if into is not None:
        np.asarray(into)[...] = array  # of a tensor: its own memory
    return torch.from_numpy(array) if found["type"] == "Tensor" else array


def solutions(*, out: Path) -> int:
    """Write solved copies of the notebooks.

    Answers stand in nbgrader's solution regions and marking schemes: it takes both out of an assignment.

    Args:
        out: the folder
    """
    from helpers import files

    if out.resolve() == ROOT:
        raise ValueError("--out is another folder: the notebooks here stay unsolved")
    text = MODEL_ANSWERS.read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]
    bodies = {node.name: "\n".join(text.splitlines()[node.lineno : node.end_lineno]) for node in functions}
    prose = re.split(r"^## (\S+)\n", MODEL_ANSWERS.with_suffix(".md").read_text(encoding="utf-8"), flags=re.M)
    prose = dict(zip(prose[1::2], prose[2::2], strict=True))
    for path in notebooks():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            marks, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
            if marks.get("solution"):
                source = source.replace("    raise NotImplementedError", bodies[marks["grade_id"]])
            elif marks.get("task"):
                answer = prose[marks["grade_id"]].strip()
                source += f"\n\n=== BEGIN MARK SCHEME ===\n\n{answer}\n\n=== END MARK SCHEME ==="
            elif marks.get("grade"):
                cell["outputs"], cell["execution_count"] = [], None
            cell["source"] = source.splitlines(keepends=True)
        files.write(out / path.name, f"{json.dumps(notebook, indent=1, ensure_ascii=False)}\n")
        print(f"Wrote {cli.short(out / path.name)}")
    return 0
