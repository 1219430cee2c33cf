"""The form of the notebooks as they are committed; ``python3 -m helpers test`` also runs them, with nbval."""

from __future__ import annotations

import ast
import json
import re
import statistics
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import pytest

from helpers import cli

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {
    path.stem
    for path in (ROOT / "helpers").iterdir()
    if path.suffix == ".py" or (path / "__init__.py").exists()
}
NOT_FOR_NOTEBOOKS = {"cli", "__main__", "__init__"}
CHECKED = "# NBVAL_CHECK_OUTPUT"
MACHINE_PATH = re.compile(
    r"(?<![\w.:/~-])/(home|Users|root|work|tmp|mnt|media|var|opt|srv)/\w|\b[A-Z]:\\\\?\w"
)


def marks(cell: dict) -> dict:
    """Return what nbgrader knows of a cell."""
    return cell["metadata"].get("nbgrader", {})


class Notebook:
    """A notebook as it stands in its file."""

    def __init__(self, path: Path):
        self.path, self.raw = path, json.loads(path.read_text(encoding="utf-8"))
        self.cells = self.raw["cells"]
        for cell in self.cells:
            cell["source"] = "".join(cell["source"])
        self.texts = [cell for cell in self.cells if cell["cell_type"] == "markdown"]
        self.code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        self.checks = [cell for cell in self.code if marks(cell).get("grade")]

    @cached_property
    def trees(self) -> list[ast.Module]:
        """The code cells parsed, without the lines that are IPython's."""
        return [
            ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell["source"], flags=re.M)) for cell in self.code
        ]

    @property
    def parameters(self) -> dict:
        [cell] = [cell for cell in self.code if "parameters" in cell["metadata"].get("tags", ())]
        return cell

    def outputs(self) -> Iterator[tuple[int, dict]]:
        for cell in self.code:
            for output in cell["outputs"]:
                yield cell["execution_count"], output


NOTEBOOKS = [Notebook(path) for path in cli.run.notebooks(ROOT)]


@pytest.fixture(params=NOTEBOOKS, ids=[notebook.path.stem for notebook in NOTEBOOKS])
def notebook(request) -> Notebook:
    return request.param


def lines(cell: dict) -> list[str]:
    return [line for line in cell["source"].splitlines() if line.strip()]


def sentences(cell: dict) -> str:
    """Return the text of a cell without its headings."""
    return "\n".join(line for line in cell["source"].splitlines() if not line.startswith("#")).strip()


def test_it_opens_with_a_question_the_aims_and_the_run_time(notebook):
    first = notebook.cells.index(notebook.code[0])
    text = "\n".join(cell["source"] for cell in notebook.cells[:first])
    assert text.startswith("# ")
    assert text.count("\n# ") == 0, "one title"
    assert "?" in notebook.cells[0]["source"]
    aims = re.search(r"you will:?\W*\n((?:\s*\n)*(?:[-*\d].*\n(?: .*\n)*)+)", text + "\n", re.IGNORECASE)
    assert aims, "'You will' and a list"
    assert 3 <= len(re.findall(r"^[-*\d]", aims.group(1), re.MULTILINE)) <= 5
    assert re.search(r"run time|runs in|takes", text, re.IGNORECASE)
    assert re.search(r"laptop", text, re.IGNORECASE)
    assert re.search(r"\bGPU\b", text)


def test_one_cell_holds_the_parameters_each_with_its_unit(notebook):
    cell = notebook.parameters
    found = cli.run.parameters(notebook.raw)
    assert {"DATASET", "IMAGE_SIZE", "SEED"} <= set(found)
    assert found["DATASET"] == "synthetic", "it runs without any download"
    code = [line for line in lines(cell) if not line.startswith("#")]
    for line in code:
        assert re.match(r"[A-Z][A-Z0-9_]* = .+  # \w", line), (
            f"{line!r}: NAME = value  # what it is, with its unit"
        )
    assert len(code) == len(found)
    used = [cell for cell in notebook.code if re.search(r"\bSEED\b", cell["source"])]
    assert len(used) > 1, "the seed is used beside the parameters"


def test_cells_are_short_and_text_carries_the_story(notebook):
    assert 50 <= round(100 * len(notebook.texts) / (len(notebook.cells) - len(notebook.checks))) <= 60
    lengths = sorted(len(lines(cell)) for cell in notebook.code)
    assert statistics.median(lengths) <= 5
    assert lengths[int(0.9 * (len(lengths) - 1))] <= 12
    assert lengths[-1] <= 25
    assert not [line for cell in notebook.code for line in lines(cell) if line.rstrip().endswith(";")]


def test_a_sentence_stands_before_each_code_cell_and_after_each_figure(notebook):
    around = [{"cell_type": "none", "source": ""}, *notebook.cells, {"cell_type": "none", "source": ""}]
    for before, cell, after in zip(around, around[1:], around[2:], strict=False):
        if cell["cell_type"] != "code" or marks(cell).get("grade"):
            continue
        start = lines(cell)[0]
        assert before["cell_type"] == "markdown" and sentences(before), f"nothing leads to {start!r}"  # noqa: PT018
        if any("image/png" in output.get("data", {}) for output in cell["outputs"]):
            reads = after["cell_type"] == "markdown" and sentences(after)
            assert reads, f"nothing reads the figure of {start!r}"


def test_sections_are_numbered_and_it_closes_with_takeaways_and_exercises(notebook):
    text = "\n".join(cell["source"] for cell in notebook.texts)
    numbers = [int(number) for number in re.findall(r"^## (\d+)\b", text, re.M)]
    assert len(numbers) >= 3
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    story, takeaways, exercises = re.split(r"^#+ .*(?:takeaway|exercise).*$", text, flags=re.I | re.M)
    assert takeaways.strip()
    assert 3 <= exercises.count("<details>") <= 5, "three to five exercises, each with a folded hint"
    assert exercises.count("</details>") == exercises.count("<details>")


def test_exercises_are_marked_for_nbgrader_and_wait(notebook):
    first = next(i for i, cell in enumerate(notebook.cells) if cell["source"].startswith("## Exercises"))
    assert not [cell for cell in notebook.cells[:first] if marks(cell)]
    rest, worth = notebook.cells[first:], {"easy": 2, "medium": 3, "harder": 4}
    for text, answer, check in zip(rest, [*rest[1:], rest[0]], [*rest[2:], *rest[:2]], strict=True):
        title = re.search(r"^\*\*\d\. .*?\*\* \(\d+ minutes.*?, (\w+)\)", text["source"], re.MULTILINE)
        if title and answer["cell_type"] == "markdown":  # an open exercise, graded by hand
            assert (marks(text)["task"], marks(text)["points"]) == (True, worth[title[1]])
        elif title:
            name, points = assert_is_a_stub(answer), worth[title[1]]
            assert (marks(answer)["grade_id"], marks(answer)["solution"]) == (name, True)
            assert check["source"] == f"{points} * exercises.check_{name}({name})"
            assert (marks(check)["grade_id"], marks(check)["points"]) == (f"check_{name}", points)
            assert marks(check)["locked"]
            assert check["outputs"][0]["text"][0].endswith("waits for your answer\n")
            assert check["outputs"][1]["data"]["text/plain"] == ["0"]
    ids = [marks(cell)["grade_id"] for cell in rest if marks(cell)]
    assert (
        len(set(ids))
        == len(ids)
        == 2 * len(notebook.checks) + sum(bool(marks(cell).get("task")) for cell in rest)
    )


def assert_is_a_stub(cell: dict) -> str:
    """Assert that a cell is one function that waits for its answer; return its name."""
    [function] = ast.parse(cell["source"]).body
    assert isinstance(function, ast.FunctionDef)
    assert "    # BEGIN SOLUTION\n    raise NotImplementedError\n    # END SOLUTION" in cell["source"]
    assert isinstance(function.body[1], ast.Raise), "the notebook runs to its end unsolved"
    assert all(argument.annotation for argument in function.args.args), "a typed signature"
    assert function.returns is not None
    assert re.search(r"\[.*\]|number", ast.get_docstring(function)), "with shapes"
    return function.name


#
# Each mention of a section or an exercise has the first words of its title behind it, in brackets:
# "section 9 (Eigenfaces)", "notebook 02, section 5 (Is it right?)". So a number that has moved is found.

PLACE = re.compile(
    r"\b(?:notebook (?P<before>\d\d), )?(?P<kind>section|exercise) (?P<number>\d+)"
    r"(?: \((?P<title>[^()]+)\))?(?: of notebook (?P<after>\d\d))?",
    re.IGNORECASE,
)
TITLES = {"section": r"^## (\d+) · (.+)", "exercise": r"^\*\*(\d+)\. ([^*]+)\*\*"}


def titles(notebook: Notebook) -> dict[tuple[str, str], str]:
    text = "\n".join(cell["source"] for cell in notebook.texts)
    return {(kind, n): t for kind, form in TITLES.items() for n, t in re.findall(form, text, re.M)}


def test_references_resolve(notebook):
    texts = "\n".join(cell["source"] for cell in notebook.cells)
    known = {each.path.stem[:2]: titles(each) for each in NOTEBOOKS}
    assert set(re.findall(r"\bnotebook (\d+)", texts, re.IGNORECASE)) <= set(known)
    for place in PLACE.finditer(texts):
        where = known[place["before"] or place["after"] or notebook.path.stem[:2]]
        title = where.get((place["kind"].lower(), place["number"]), "")
        named = place["title"] or "?"
        assert re.match(rf"{re.escape(named)}(?!\w)", title, re.I), f"{place.group()!r} is called {title!r}"
    assert not re.findall(r"\b(?:sections|exercises) \d", texts, re.I)


def test_it_was_run_from_top_to_bottom_without_errors(notebook):
    assert [cell["execution_count"] for cell in notebook.code] == list(range(1, len(notebook.code) + 1))
    assert [output for _, output in notebook.outputs() if output["output_type"] == "error"] == []
    assert [output for _, output in notebook.outputs() if output.get("name") == "stderr"] == []


def test_outputs_are_text_and_png_only_and_the_file_is_small(notebook):
    kinds = {kind for _, output in notebook.outputs() for kind in output.get("data", {})}
    assert kinds <= {"text/plain", "image/png"}
    assert notebook.path.stat().st_size <= 400_000


def test_it_runs_on_any_machine_and_nothing_of_a_run_from_the_command_line_is_left(notebook):
    assert notebook.raw["metadata"]["kernelspec"]["name"] == "python3"
    assert "reading_faces" not in notebook.raw["metadata"]
    tags = {tag for cell in notebook.cells for tag in cell["metadata"].get("tags", ())}
    assert tags <= {"parameters", "panel", "callback"}
    told = [cell["source"] for cell in notebook.cells]
    for _, output in notebook.outputs():
        told += ["".join(output.get("text", "")), "".join(output.get("data", {}).get("text/plain", ""))]
    assert [found.group() for text in told for found in MACHINE_PATH.finditer(text)] == []


def test_some_outputs_are_compared_and_there_is_something_to_compare(notebook):
    checked = [cell for cell in notebook.code if CHECKED in map(str.strip, cell["source"].splitlines())]
    assert 3 <= len(checked) <= 8
    for cell in checked:
        texts = [each.get("text") or each["data"].get("text/plain", "") for each in cell["outputs"]]
        assert any("".join(text).strip() for text in texts), "an output that is compared must hold text"


def test_helpers_are_imported_by_room(notebook):
    for tree in notebook.trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not [each.name for each in node.names if each.name.startswith("helpers")]
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("helpers"):
                assert node.module == "helpers", f"from {node.module} import …: call rooms by their prefix"
                assert {each.name for each in node.names} <= ROOMS - NOT_FOR_NOTEBOOKS
                assert not [each.asname for each in node.names if each.asname]


#
# Until the last model is fitted, nobody may look at how one does on the test split; after that, one cell
# lets the models answer. Names are followed: the third part of ``.splits(...)``, what comes of it, and
# the notebook's own functions that fit or predict. Before the first fit there is nothing to be judged, so
# faces may be counted and features computed.

LOOKS_ONLY = {"01_data_exploration"}
"""Notebooks that choose nothing, so that looking at the test split spoils nothing."""
FITS = frozenset({"fit", "backward"})
ANSWERS = frozenset({"predict", "predict_proba", "decision_function", "evaluate"})


def called(tree: ast.AST, functions: frozenset[str]) -> list[ast.Call]:
    """Return the calls, outside of function bodies, of functions or methods by their last names."""
    bodies = {id(node) for each in defined(tree) for node in ast.walk(each)}
    found = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and id(node) not in bodies)
    return [call for call in found if ast.unparse(call.func).split(".")[-1] in functions]


def defined(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def spread(trees: list[ast.Module], functions: frozenset[str]) -> frozenset[str]:
    """Return some functions and those of the notebook that call them, however deep."""
    for tree in trees:
        for function in defined(tree):
            if any(called(statement, functions) for statement in function.body):
                functions |= {function.name}
    return functions


def tainted(node: ast.AST, names: set[str]) -> bool:
    """Tell whether an expression or a cell uses one of the names, but for ``len()`` and ``x["train"]``."""
    spared = {id(each) for call in called(node, frozenset({"len"})) for each in ast.walk(call)}
    for part in ast.walk(node):
        key = ast.unparse(part.slice).strip("'\"") if isinstance(part, ast.Subscript) else ""
        if key in ("train", "validation"):
            spared |= {id(each) for each in ast.walk(part)}
        if isinstance(part, ast.FunctionDef):
            own = {argument.arg for argument in (*part.args.args, *part.args.kwonlyargs)}
            spared |= {id(each) for each in ast.walk(part) if isinstance(each, ast.Name) and each.id in own}
    uses = (each for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load))
    return any(each.id in names and id(each) not in spared for each in uses)


def stored(target: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(target) if isinstance(each, ast.Name)}


def carry(tree: ast.Module, names: set[str]) -> set[str]:
    """Return the names that hold something of the test split after a cell, given those before it."""
    names = set(names)
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    for statement in sorted(statements, key=lambda node: node.lineno):
        of_test = bool(called(statement.value, frozenset({"splits"}))) or tainted(statement.value, names)
        for target in statement.targets:
            parts = target.elts if isinstance(target, ast.Tuple) and len(target.elts) == 3 else []
            changed = stored(parts[2]) if of_test and parts else stored(target)  # train, validation, test
            names = names | changed if of_test else names - changed
    return names


def looped(tree: ast.Module, names: set[str]) -> set[str]:
    """Return the names, and those that run over them in the loops of a cell."""
    loops = [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.comprehension))]
    return names.union(*(stored(loop.target) for loop in loops if tainted(loop.iter, names)))


def spoilt(trees: list[ast.Module]) -> str:
    """Return how the cells of a notebook misuse the test split, or nothing."""
    fits, answers = spread(trees, FITS), spread(trees, ANSWERS)
    fitting = [i for i, tree in enumerate(trees) if called(tree, fits)]
    names, reading, answering = set(), [], []
    for i, tree in enumerate(trees):
        assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
        cut = [node.targets for node in assigned if called(node.value, frozenset({"splits"}))]
        if any(not isinstance(part, ast.Tuple) or len(part.elts) != 3 for part in sum(cut, [])):
            return "unpack the splits into three names, so that one can see who uses the third"
        names = carry(tree, names)
        here = looped(tree, names)
        reading += [i] * tainted(tree, here)
        answering += [i] * any(tainted(call, here) for call in called(tree, answers))
    if not names:
        return "no splits"
    early = [i for i in reading if fitting and fitting[0] <= i <= fitting[-1]]
    if early:
        return f"read in code cell {early[0] + 1}, and code cell {fitting[-1] + 1} still fits something"
    many = f"models answer on it in {len(answering)} cells, not in one: {answering}"
    return "" if len(answering) == 1 else many


def test_the_test_split_is_answered_once_after_all_choices(notebook):
    if notebook.path.stem not in LOOKS_ONLY:
        assert spoilt(notebook.trees) == ""


CUT = "train, validation, test = faces.splits(seed=SEED)"
OWN = "def chosen(part):\n    return SVC().fit(part)\n\n\ndef best():\n    return chosen(train)"
FEATURES = "a, b, c = (hog(p) for p in (train, validation, test))"


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        ([CUT, "parts = {'test': test}\nfor p in parts: show(p)", "fit(train)", "s = m.predict(test)"], ""),
        ([CUT, FEATURES, "m.fit(a)", "m.score(b)", "m.predict(c)"], ""),
        ([CUT, "def fit_on(test):\n    m.fit(test)", "fit_on(train)", "m.predict(test)"], ""),
        ([CUT, "fit(train, test)", "evaluate(test)"], "still fits"),
        ([CUT, OWN, "m = best()", "m.predict(test)", "m = best()"], "still fits"),
        ([CUT, "fit(train)\nevaluate(test)\nloss.backward()"], "still fits"),
        ([CUT, "p = [test]", "fit(train)", "[score(x) for x in p]", "fit(train)", "predict(test)"], "still"),
        ([CUT, "fit(train)", "evaluate(test)", "better = evaluate(test, tta='flip')"], "in 2 cells"),
        ([CUT, "fit(train)", "print(test.labels)"], "in 0 cells"),
        (["parts = faces.splits()", "fit(parts[0])"], "three names"),
        (["x = 1"], "no splits"),
    ],
)
def test_misuse_of_the_test_split_is_found(cells, why):
    found = spoilt([ast.parse(cell) for cell in cells])
    assert why in found
    assert bool(why) == bool(found)
