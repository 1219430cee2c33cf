"""The command ``run``: which notebooks, with which parameters, and how it went."""

from __future__ import annotations

import argparse
import ast
import json
import re
from pathlib import Path
from typing import Any

from helpers import did_you_mean
from helpers.cli.status import clock, short

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("runs") / "notebooks"
CELL_TIMEOUT = 3600
"""Seconds that one cell may take: an hour, for training on real faces with a few cores."""
_NO_LITERAL = object()

TEXT = """\
Run notebooks in fresh kernels, top to bottom, in the project's folder.

A value given by -p takes the place of the notebook's own, in each of the notebooks that has the name; at
least one must have it. The value is read as Python where it is a number, True, False or a tuple, and as text
otherwise, and must be of the kind of the notebook's own. The notebooks themselves stay as they are: the
executed copies, a page of each for the browser and an index of these go to --out.

Exit status: 0 all ran, 1 a cell failed (the other notebooks still run), 2 a mistake in the words,
130 stopped by Ctrl-C.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``run``.

    Args:
        parser: the command's own.
    """
    add = parser.add_argument
    add("notebooks", nargs="*", metavar="NN", help="01, 02 … or a file name; all where none is given")
    add(
        "-p",
        "--parameter",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        dest="given",
        help="set a parameter; may be repeated",
    )
    add("--out", type=Path, default=ROOT / OUT, metavar="FOLDER", help=f"default: {OUT.as_posix()}")
    add(
        "--timeout",
        type=int,
        default=CELL_TIMEOUT,
        metavar="SECONDS",
        help="longest time for one cell (default: %(default)s)",
    )


def check(arguments: argparse.Namespace) -> None:
    """Put the paths of the notebooks and each one's values into the parsed words.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option, notebook or parameter, or a value of the wrong kind.
    """
    if arguments.rest:
        raise ValueError(f"unknown option {arguments.rest[0]!r}; python3 -m helpers run --help lists them")
    if arguments.timeout < 1:
        raise ValueError(f"--timeout is a number of seconds from 1, not {arguments.timeout}")
    arguments.notebooks = choose(arguments.notebooks)
    arguments.values = settings(arguments.notebooks, arguments.given)


def notebooks(root: Path = ROOT) -> list[Path]:
    """Return the workbook's notebooks in order, without the copies that Jupyter calls ``…-Copy1.ipynb``.

    Args:
        root: the project's folder.
    """
    return sorted(path for path in root.glob("0*.ipynb") if re.fullmatch(r"0\d_\w+", path.stem))


def choose(words: list[str], root: Path = ROOT) -> list[Path]:
    """Return the notebooks that words name, each once and in the order given; all where there are no words.

    Args:
        words: "03", "3", "03_custom_cnn", or the path of any notebook.
        root: the project's folder.

    Raises:
        ValueError: a word names no notebook.
    """
    known = {path.stem: path for path in notebooks(root)}
    if not words and not known:
        raise ValueError(f"there is no notebook in {root}")
    by_number = {stem[:2]: path for stem, path in known.items()}
    chosen = []
    for word in words or known:
        path = by_number.get(word.zfill(2)) or known.get(word.removesuffix(".ipynb"))
        if path is None and word.endswith(".ipynb") and Path(word).is_file():
            path = Path(word).resolve()
        if path is None:
            raise ValueError(
                f"no notebook {word!r}{did_you_mean(word, known)}; here: {', '.join(known) or 'none'}"
            )
        if path not in chosen:
            chosen.append(path)
    return chosen


def parameters(notebook: dict) -> dict[str, Any]:
    """Return the names that a notebook's ``parameters`` cell sets, with their values.

    Args:
        notebook: as ``json.load`` gives it.

    Returns:
        In the order of the cell; a value that is no plain literal is an object that equals nothing.
    """
    found = {}
    for cell in notebook["cells"]:
        if "parameters" in cell.get("metadata", {}).get("tags", ()):
            for statement in ast.parse("".join(cell["source"])).body:
                if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
                    targets = getattr(statement, "targets", None) or [statement.target]
                    names = [target.id for target in targets if isinstance(target, ast.Name)]
                    value = _literal(ast.unparse(statement.value), _NO_LITERAL)
                    found |= {name: value for name in names if name.isupper()}
    return found


def _literal(text: str, otherwise: Any) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return otherwise


def settings(paths: list[Path], given: list[tuple[str, str]]) -> dict[Path, dict[str, Any]]:
    """Return for each notebook the values that take the place of its own.

    Args:
        paths: the notebooks.
        given: (name, text of the value) pairs; of two with one name the later counts.

    Raises:
        ValueError: a name that no notebook has, a value of the wrong kind, or a file that is no notebook.
    """
    own = {path: _own(path) for path in paths}
    known = list(dict.fromkeys(name for names in own.values() for name in names))
    for name, _ in given:
        if name not in known:
            near = did_you_mean(name.upper(), known)
            raise ValueError(f"no parameter {name!r}{near}; known here: {', '.join(known) or 'none'}")
    return {
        path: {name: value_like(own[path][name], name, text) for name, text in given if name in own[path]}
        for path in paths
    }


def _own(path: Path) -> dict[str, Any]:
    try:
        return parameters(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise ValueError(f"the parameters of {path.name} cannot be read: {error}") from error


def value_like(own: Any, name: str, text: str) -> Any:
    """Return the value that a text stands for, of the kind of the notebook's own value.

    Args:
        own: the notebook's own value; where it is None or no literal, a value of any kind goes.
        name: the parameter, for the message.
        text: "20", "1e-3", "True", "fer2013".

    Raises:
        ValueError: the text stands for another kind of value.
    """
    value = _literal(text, text)
    if isinstance(own, str):
        return value if isinstance(value, str) else text  # a folder may be called 2024
    if own is None or own is _NO_LITERAL:
        return value
    if isinstance(own, bool):
        kind, good = "True or False", isinstance(value, bool)
    elif isinstance(own, int):
        kind, good = "a whole number", isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(own, float):
        kind, good = "a number", isinstance(value, (int, float)) and not isinstance(value, bool)
    else:
        kind, good = f"like {own!r}", isinstance(value, (type(own), tuple, list))
    if not good:
        raise ValueError(f"{name} is {kind} (here: {own!r}), not {text!r}")
    return value


def perform(arguments: argparse.Namespace) -> int:
    """Run the notebooks, tell how each went, and name the page to open; return the exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    from helpers.cli.execution import execute, write_index

    for name, _ in arguments.given:
        having = [path.stem for path in arguments.notebooks if name in arguments.values[path]]
        if len(having) < len(arguments.notebooks):
            print(f"{name} is a parameter of {', '.join(having)} only.")
    outcomes = []
    for path in arguments.notebooks:
        outcomes.append(execute(path, arguments.out, arguments.values[path], arguments.timeout, ROOT))
        print(outcomes[-1], flush=True)
        if outcomes[-1].status == "stopped":
            break
    done = sum(outcome.status == "done" for outcome in outcomes)
    took = clock(sum(outcome.seconds for outcome in outcomes))
    print(f"{done} of {len(arguments.notebooks)} notebooks done in {took}.")
    print(f"Open {short(write_index(arguments.out))}")
    if outcomes[-1].status == "stopped":
        return 130
    return 0 if done == len(outcomes) else 1
