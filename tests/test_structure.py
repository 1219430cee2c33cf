"""The plan of the house, read off the code: who may import whom, what every function owes its reader."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import re
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import cli

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "helpers"

FLOORS = {
    # The words, the files and the machine that every other room stands on.
    **dict.fromkeys(("emotions", "files", "runtime"), 0),
    # Ground: each can be read and used alone.
    **dict.fromkeys(("images", "hog", "losses", "metrics", "models", "gradcam", "plotting"), 1),
    # Pixels and labels, from disk or drawn, to the device.
    **dict.fromkeys(("datasets", "batches", "faces"), 2),
    "training": 3,
    # What people touch.
    **dict.fromkeys(("widgets", "report", "predictor"), 4),
    # Set-up and command line: known by nobody. Answers to exercises: imported by notebooks only.
    **dict.fromkeys(("cli", "__main__", "colab", "checks"), 5),
}
NEIGHBOURS_MEET = {2, 5}
"""Floors on which rooms may import each other, in one direction."""
LONGEST, MEDIAN = 40, 8

SOURCES = sorted(HELPERS.rglob("*.py"))
OTHERS = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES + OTHERS}


def ids(paths: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in paths]


def room_of(path: Path) -> str:
    """Return "training" for helpers/training/loop.py, "hog" for helpers/hog.py, "" for the package itself."""
    name = path.relative_to(HELPERS).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


ROOMS = {room_of(path) for path in SOURCES} - {""}


def modules(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield what the import statements among some nodes ask for, as dotted names."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import; write it out from 'helpers'"
            if node.module == "helpers":
                yield from (f"helpers.{alias.name}" for alias in node.names)
            else:
                yield node.module


def rooms_imported(path: Path) -> set[str]:
    names = (name.split(".") for name in modules(ast.walk(TREES[path])))
    return {name[1] for name in names if name[0] == "helpers" and len(name) > 1 and name[1] in ROOMS} - {
        room_of(path)
    }


# --- who imports whom ---


def test_every_room_has_a_floor():
    unknown = sorted(ROOMS - set(FLOORS))
    assert not unknown, f"say in FLOORS on which floor {unknown} is"


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_an_import_goes_down(path):
    floor = FLOORS.get(room_of(path), -1)  # the package itself lies under everything
    for room in rooms_imported(path):
        allowed = FLOORS[room] < floor or (FLOORS[room] == floor and floor in NEIGHBOURS_MEET)
        assert allowed, f"{room_of(path) or 'helpers'} may not import {room}"
        assert room != "checks", "the answers are for the notebooks alone"


def test_no_two_rooms_import_each_other():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        graph.setdefault(room_of(path), set()).update(rooms_imported(path))
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_set_up_needs_the_standard_library_alone(name):
    outside = {
        each.split(".")[0] for each in modules(ast.walk(TREES[HELPERS / name]))
    } - sys.stdlib_module_names
    assert outside <= {"helpers"}


STANDARD_LIBRARY = ("__init__", "run", "site", "status", "testing", "settings", "configurations", "mistakes")
STANDARD_LIBRARY += ("train", "evaluate", "compare", "ensemble", "data", "report")


@pytest.mark.parametrize("name", [f"{name}.py" for name in STANDARD_LIBRARY])
def test_the_command_line_answers_without_anything_installed(name):
    at_the_top = (node for node in TREES[HELPERS / "cli" / name].body)
    outside = {each.split(".")[0] for each in modules(at_the_top)} - sys.stdlib_module_names
    assert outside <= {"helpers"}


PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml"}
"""Distributions that are imported by another name."""
WITH = {"nbformat": "nbclient", "jupyter_client": "nbclient", "IPython": "ipykernel", "packaging": "pytest"}
"""Distributions that always come with another, which is declared."""
OPTIONAL = {"accelerate", "anywidget", "cv2", "onnx", "onnxruntime", "playwright", "sklearnex", "wandb"}
"""What one feature needs and the notebooks do without: imported where it is used."""


def test_what_is_imported_is_declared():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    declared = set(re.findall(r"^([\w-]+)>=", text, re.MULTILINE))
    ours = {"helpers", "benchmarks", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]:
        for name in {each.split(".")[0] for each in modules(ast.walk(TREES[path]))}:
            if name not in sys.stdlib_module_names | ours | OPTIONAL:
                assert WITH.get(name, PACKAGES.get(name, name)) in declared, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_what_is_optional_is_imported_where_it_is_used(path):
    assert not OPTIONAL & {each.split(".")[0] for each in modules(iter(TREES[path].body))}


# --- what a function owes its reader ---


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the public classes, functions and methods of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    each for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"
                )


def num_lines(path: Path, node: ast.FunctionDef) -> int:
    """Return the lines of code of a function, from ``def`` to its end: no text, no comment, no blank line."""
    text = "\n".join(path.read_text(encoding="utf-8").split("\n")[node.lineno - 1 : node.end_lineno])
    empty = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(iter((text + "\n").splitlines(keepends=True)).__next__):
        if token.type not in empty:
            lines |= set(range(token.start[0], token.end[0] + 1))
    first = node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        lines -= set(range(first.lineno - node.lineno + 1, first.end_lineno - node.lineno + 2))
    return len(lines)


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_what_is_public_is_explained_and_typed(path):
    tree = TREES[path]
    assert not tree.body or ast.get_docstring(tree), "a room says in its first line what it is for"
    for node in public(tree):
        assert ast.get_docstring(node), f"line {node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            arguments = [
                *node.args.posonlyargs,
                *node.args.args,
                *node.args.kwonlyargs,
                node.args.vararg,
                node.args.kwarg,
            ]
            bare = [
                each.arg
                for each in arguments
                if each and not each.annotation and each.arg not in ("self", "cls")
            ]
            assert not bare, f"line {node.lineno}: {node.name} does not type {', '.join(bare)}"
            assert node.returns, f"line {node.lineno}: {node.name} does not type what it returns"


@pytest.mark.parametrize("path", SOURCES, ids=ids(SOURCES))
def test_no_function_is_too_long_to_be_read_at_once(path):
    long = {node.name: num_lines(path, node) for node in functions(TREES[path])}
    assert {name: lines for name, lines in long.items() if lines > LONGEST} == {}


def test_most_functions_are_short():
    lines = [num_lines(path, node) for path in SOURCES for node in functions(TREES[path])]
    assert statistics.median(lines) <= MEDIAN


# --- what nobody does ---

UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_WORDS = {"weights_only": False, "allow_pickle": True, "shell": True}


def offences(tree: ast.AST) -> Iterator[str]:
    """Yield what could run code that came with a file, or hides a mistake."""
    for name in modules(ast.walk(tree)):
        if name.split(".")[0] in UNSAFE_MODULES:
            yield f"import of {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _offences_of(node)
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*":
            yield f"line {node.lineno}: star import"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: bare except"


def _offences_of(call: ast.Call) -> Iterator[str]:
    given = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
    name = ast.unparse(call.func)
    if name in ("eval", "exec", "compile", "pd.read_pickle"):
        yield f"line {call.lineno}: {name}"
    if name == "torch.load" and given.get("weights_only") is not True:
        yield f"line {call.lineno}: torch.load without weights_only=True"
    for word, bad in UNSAFE_WORDS.items():
        if word in given and given[word] is bad:
            yield f"line {call.lineno}: {word}={bad}"


@pytest.mark.parametrize("path", SOURCES + OTHERS, ids=ids(SOURCES + OTHERS))
def test_nothing_unsafe(path):
    found = list(offences(TREES[path]))
    if (ROOT / "tests") in path.parents:  # a test may make the very file that has to be refused
        found = [each for each in found if "star import" in each or "bare except" in each]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
        "eval('1')",
        "from math import *",
        "try:\n    f()\nexcept:\n    pass",
        "subprocess.run(c, shell=True)",
    ],
)
def test_the_search_for_unsafe_code_finds_it(code):
    assert len(list(offences(ast.parse(code)))) >= 1


# --- the top of the house ---


def tracked() -> list[str]:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        listed = None
    if listed is None or listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_nothing_else_lies_at_the_top():
    allowed = r"(helpers|data|tests|benchmarks|\.ci)/.*|0[1-7]_\w+\.ipynb"
    allowed += r"|README\.md|requirements\.txt|pyproject\.toml|LICENSE|\.gitignore|\.gitattributes"
    assert [name for name in tracked() if not re.fullmatch(allowed, name)] == []


def test_no_face_is_committed():
    kept = r"data/(README\.md|results/.*)"
    assert [name for name in tracked() if name.startswith("data/") and not re.fullmatch(kept, name)] == []


# --- the README keeps its word ---


def test_the_readme_lists_the_notebooks_with_their_questions():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(0\d_\w+\.ipynb)` \| (.+?) \|$", text, re.MULTILINE)
    for (name, question), path in zip(rows, cli.run.notebooks(ROOT), strict=True):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        assert (name, f"# {name[:2]} · {question}") == (path.name, first.split("\n")[0])


def test_the_commands_in_the_readme_are_understood():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ *python3 -m helpers (.+?) *(?:#.*)?$", text, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        assert cli.parse(line.split()).command in cli.COMMANDS


def test_the_example_in_the_readme_runs(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))  # one program
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=settings, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "'accuracy'" in ran.stdout
