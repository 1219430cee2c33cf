"""Points for submissions, honest and hostile; solved copies of the notebooks; a course with nbgrader."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import model_answers
import pandas as pd
import pytest

from helpers import cli
from helpers.cli import grade

ROOT = Path(__file__).resolve().parents[1]
BOOKS = {path.stem: grade.code_cells(path) for path in cli.run.notebooks(ROOT)}
RIGHT = inspect.getsource(model_answers.area)
FIRST = "def area(shares, scores):\n    "
HOSTILE = {
    "while True: pass": "took too long",
    "exit()": "SystemExit|NameError",
    "raise SystemExit(3)": "SystemExit: 3",
    "import os; os._exit(0)": "may not|ended its process",
    "import os, signal; os.kill(os.getppid(), 9)": "may not do this: os.kill",
    "return [0] * 10**10": "MemoryError",
    "return np.ones(10**10).sum()": "MemoryError",
    "return torch.ones(10**10).sum()": "allocate",
    "return 1 / 0": r"ZeroDivisionError.*line 2 of the cell",
    "return open('/etc/hostname').read()": "may not do this: open /etc/hostname",
    "open('../stolen', 'w').write('x')": "may not do this: open",
    f"open({str(ROOT / 'tests' / 'model_answers.py')!r})": "may not do this: open .*model_answers.py",
    "import sys; open(sys.modules['helpers'].__file__)": "may not do this: open .*__init__.py",
    "from helpers import exercises": "may not do this: .*helpers",
    "import tests.model_answers": "No module named .tests",
    "import subprocess; subprocess.run('true')": "may not do this: (subprocess|os)",
    "import socket; socket.create_connection(('localhost', 80))": "may not do this: socket",
    "import ctypes; ctypes.pythonapi.Py_Exit(0)": "may not do this: ctypes",
    "import gc; gc.get_objects()": "may not do this: gc",
    "return {'type': 'Tensor', 'data': ''}": "it returned a dict, not numbers",
    "return None": "is there a `return`",
    "raise ValueError('x' * 10**6)": r"ValueError: x{500} ",
    "scores[:] = 0; return 1.0": "it changed its argument scores",
    "def broken(": "SyntaxError",
}


def tried(answer: str, *cells: str, name: str = "area", seconds: int = 10) -> tuple[bool, str]:
    """Try an answer in a notebook with some other cells."""
    cells = ("import numpy as np\nimport torch", *cells)
    return grade.tried(name, answer, [text for code in cells for text in grade.statements(code)], seconds, 1)


@pytest.mark.parametrize("does", HOSTILE)
def test_what_an_answer_must_not_do_earns_nothing_and_is_named(does):
    right, remark = tried(FIRST + does, seconds=2 if "True" in does else 10)
    assert not right
    assert re.search(HOSTILE[does], remark), remark


@pytest.mark.parametrize(
    "before",
    ["while True: pass", "raise SystemExit", "from helpers import exercises", "open('/etc/passwd').read()"],
)
def test_nothing_is_earned_either_by_what_stands_around_the_function(before):
    assert not tried(before + "\n\n" + RIGHT, seconds=2)[0]


def test_an_answer_may_use_what_its_notebook_defines():
    assert tried(RIGHT) == (True, "right on 20 random inputs")
    mine = "def area(shares, scores):\n    return HALF * np.sum(steps(shares) * (scores[1:] + scores[:-1]))"
    steps = "HALF = 1 / 2\ndef steps(x):\n    return np.diff(x)\nwhile True: pass  # a training"
    assert tried(mine, steps, "HALF = exercises.nothing()")[0]
    assert "NameError" in tried(mine, "HALF = 1 / 2")[1]
    assert tried(RIGHT + "\n\n2 * exercises.check_area(area)")[0], "a cell may hold its check, too"
    assert "waits for your answer" in tried(FIRST + "raise NotImplementedError")[1]


def test_none_of_the_notebooks_own_functions_passes_for_an_answer():
    own = [code for code, marks in BOOKS["04_transfer_learning"] if not marks]
    assert not tried("pass", *own, name="freeze")[0]


def submit(folder: Path, book: str, answers: dict[str, str | None], source: Path = ROOT) -> None:
    """Write a submission: the notebook with other sources of some cells; None takes a cell away."""
    notebook = json.loads((source / f"{book}.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        id_ = cell["metadata"].get("nbgrader", {}).get("grade_id")
        cell["source"] = answers.get(id_, cell["source"])
    notebook["cells"] = [cell for cell in notebook["cells"] if cell["source"] is not None]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{book}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory) -> Path:
    """A folder of submissions of one notebook, each in a folder with the student's name, and other things."""
    folder = tmp_path_factory.mktemp("handed in")
    names = ("weighted_map", "pointing_hit", "area", "rank_correlation")
    right = {name: inspect.getsource(getattr(model_answers, name)) for name in names}
    book = "07_gradcam"
    submit(folder / "untouched", book, {})
    submit(folder / "right", book, right | {"area": "%time\n" + right["area"] + "\n!ls"})
    wrong = {name: code.replace("return ", "return 1 + ") for name, code in right.items()}
    submit(folder / "wrong", book, wrong | {f"check_{name}": "assert True" for name in names})
    hostile = {"weighted_map": None, "pointing_hit": "import sys\nsys.exit('\\x1b[2J')", "check_area": None}
    submit(folder / "hostile", book, right | hostile)
    unmarked = json.loads((folder / "right" / f"{book}.ipynb").read_text(encoding="utf-8"))
    for cell in unmarked["cells"]:
        cell["metadata"] = {}
    twice = [cell for cell in unmarked["cells"] if "def area(" in "".join(cell["source"])]
    unmarked["cells"] += twice
    (folder / "unmarked.ipynb").write_text(json.dumps(unmarked), encoding="utf-8")
    (folder / "empty.ipynb").write_text("")
    (folder / "other.ipynb").write_text(
        '{"cells": [{"cell_type": "code", "source": "1", "metadata": {"nbgrader": {"grade_id": []}}}]}'
    )
    (folder / "list.ipynb").write_text("[" * 100_000)
    return folder


def test_a_folder_becomes_a_table(handed_in, tmp_path, capsys):
    out = tmp_path / "points.csv"
    assert cli.main(["grade", str(handed_in), "--out", str(out)]) == 0
    rows = pd.read_csv(out, keep_default_na=False)
    points = rows.groupby("submission")["points"].apply(list).to_dict()
    assert points == {
        "untouched/07_gradcam.ipynb": [0, 0, 0, 0],
        "right/07_gradcam.ipynb": [2, 2, 2, 3],
        "wrong/07_gradcam.ipynb": [0, 0, 0, 0],
        "hostile/07_gradcam.ipynb": [0, 0, 2, 3],
        "unmarked.ipynb": [2, 2, 0, 3],
        "empty.ipynb": [0],
        "other.ipynb": [0],
        "list.ipynb": [0],
    }
    remarks = rows.set_index(["submission", "exercise"])["remark"]
    assert remarks["hostile/07_gradcam.ipynb", "weighted_map"] == "no cells answer this exercise"
    assert "SystemExit" in remarks["hostile/07_gradcam.ipynb", "pointing_hit"]
    assert "\x1b" not in out.read_text(encoding="utf-8")
    assert remarks["unmarked.ipynb", "area"] == "2 cells answer this exercise"
    assert "no exercise of the workbook's" in remarks["other.ipynb", ""]
    assert "not a notebook" in remarks["empty.ipynb", ""]
    said = capsys.readouterr().out
    assert "07_gradcam, out of 9 points" in said
    assert re.search(r"right/07_gradcam.ipynb +2 +2 +2 +3 +9\n", said)


@pytest.mark.parametrize("words", [["nowhere"], [], [".", "--seconds", "0"]])
def test_mistakes_in_the_words_of_grade(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["grade", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_solved_copies_earn_every_point_and_answer_every_question(tmp_path, capsys):
    assert cli.main(["solutions", "--out", str(tmp_path)]) == 0
    for path in cli.run.notebooks(tmp_path):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            marks, source = cell["metadata"].get("nbgrader", {}), "".join(cell["source"])
            assert "raise NotImplementedError" not in source
            if marks.get("task"):
                answer = source.split("=== BEGIN MARK SCHEME ===")[1].split("=== END MARK SCHEME ===")[0]
                assert 2 <= len(re.findall(r"[.?](?=\s)", answer)) <= 6
        for row in grade.graded(path, path.name, BOOKS, 20, 2):
            assert row[3] == row[4] > 0, row
    assert cli.main(["solutions", "--out", str(ROOT)]) == 2


def test_a_course_with_nbgrader_as_the_page_for_teachers_says(tmp_path, monkeypatch):
    pytest.importorskip("nbgrader")
    from nbgrader.api import Gradebook

    page, course, book = (ROOT / "TEACHING.md").read_text(encoding="utf-8"), tmp_path, "05_multitask_va"
    (config,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    config = config.replace("timeout = 60", "timeout = 20")
    (course / "nbgrader_config.py").write_text(config, encoding="utf-8")
    (course / "source" / "week").mkdir(parents=True)
    shutil.copy(ROOT / f"{book}.ipynb", course / "source" / "week")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    def nbgrader(command: str) -> None:
        words = [sys.executable, "-m", "nbgrader", command, "week"]
        ran = subprocess.run(words, cwd=course, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr

    nbgrader("generate_assignment")
    names = ("sign_agreement", "class_means", "masked_mse")
    checks = {f"check_{name}": "assert True" for name in names}
    right = {name: inspect.getsource(getattr(model_answers, name)) for name in names}
    wrong = {name: f"def {name}(*_):\n    return 17" for name in names}
    loop, leave = "def sign_agreement(*_):\n    while True: pass", "import sys\nsys.exit()"
    hostile = {"sign_agreement": loop, "class_means": None, "masked_mse": leave, "check_class_means": None}
    for who, answers in {
        "right": right,
        "wrong": wrong | checks,
        "hostile": checks | hostile,
        "untouched": {},
    }.items():
        submit(course / "submitted" / who / "week", book, answers, course / "release" / "week")
    nbgrader("autograde")
    nbgrader("generate_feedback")
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "reading-faces") as grades:
        found = {each.student.id: each.score for each in grades.assignment_submissions("week")}
    assert found == {"right": 7, "wrong": 0, "hostile": 0, "untouched": 0}
    assert (course / "feedback" / "hostile" / "week" / f"{book}.html").is_file()
