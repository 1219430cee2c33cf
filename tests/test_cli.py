"""The command line on small notebooks made here: words, parameters, runs that go well and that do not."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nbformat
import psutil
import pytest
from conftest import HEAR_CTRL_C
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import cli
from helpers.cli import run

PARAMETERS = (
    "DATASET = 'synthetic'  # name\nEPOCHS = 3\nLR = 1e-3\nFAST = False\nSIZES: tuple = (1, 2)\nROOM = None"
)


def write(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    """Write a notebook: a title, the parameters, and each source under a heading of its own."""
    cells = [new_markdown_cell("# A question?"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    for number, source in enumerate(sources, 1):
        cells += [new_markdown_cell(f"## {number}. Part {number}"), new_code_cell(source)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def execute(path: Path, timeout: int = 60, **values: object) -> str:
    return run.execute(path, path.parent / "out", values, timeout, path.parent)


def outputs(path: Path) -> list[str]:
    """Return what each code cell of an executed notebook printed."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


def refused(capsys, *words: object) -> str:
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_help_teaches_and_succeeds_without_anything_installed():
    every = [[], ["--help"], *([name, "--help"] for name in cli.COMMANDS)]
    script = f"import sys\nfrom helpers import cli\nfor each in {every}: assert cli.main(each) == 0, each\n"
    script += "print('LOADED', [name for name in ('numpy', 'torch', 'nbformat') if name in sys.modules])"
    bare = subprocess.run([sys.executable, "-S", "-c", script], cwd=run.ROOT, capture_output=True, text=True)
    assert bare.returncode == 0, bare.stderr
    for name in cli.COMMANDS:
        assert f"usage: python3 -m helpers {name}" in bare.stdout
    assert bare.stdout.endswith("LOADED []\n")


def command(
    numbers: list[int], *, kind: Literal["one", "two-b"] = "one", big_size: float = 1.0, **more: More
):
    """Do it.

    Args:
        numbers: some
        kind: which
        big_size: how big
        more: of it
    """


def parsed(*words: str) -> dict[str, Any]:
    return cli.read("it", command, list(words)).arguments


@dataclass(frozen=True)
class More:
    """Flags in a dataclass."""

    amp: bool = cli.says(True, "whether")
    path: Path | None = cli.says(None, "where")
    named: dict[str, Any] = cli.says(dict, "what")
    tag: list[str] | None = cli.says(None, "words")


def test_a_signature_is_read_as_words_and_flags():
    assert parsed("1", "2") == {"numbers": [1, 2]}
    words = ["3", "--Kind", "TWO_B", "--bigsize=1e-3", "--no_amp", "--path", "~/x", "--tag", "a"]
    given = parsed(*words, "--named", "some-name", "true", "--named", "b", "(1,2)")
    expected = {"numbers": [3], "kind": "two-b", "big_size": 1e-3, "amp": False, "path": Path.home() / "x"}
    assert given == expected | {"tag": ["a"], "named": {"some_name": True, "b": (1, 2)}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["1", "--big-sise", "2"], "did you mean '--big-size'"),
        (["1", "--kind", "on"], "unknown kind 'on'; did you mean 'one'?; known: one, two-b"),
        (["one"], "numbers is a whole number, not 'one'"),
        (["1", "--big-size", "large"], "--big-size is a number, not 'large'"),
        (["1", "--big-size", "1e999"], "--big-size is a number, not '1e999'"),
        ([], "required: NUMBERS"),
    ],
)
def test_what_does_not_fit_a_signature_is_refused_with_the_nearest_name(words, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parsed(*words)


def test_pytest_gets_what_follows_test_untouched(tmp_path):
    for name in ("02_b.ipynb", "01_a.ipynb", "01_a-Copy1.ipynb", "notes.ipynb"):
        write(tmp_path / name)
    words = ["-k", "a or b", "-p", "no:randomly", "--lf", "-x", "--timeout", "3"]
    assert list(cli.parse(["test", *words]).words) == words
    whole = run.pytest_words(words, root=tmp_path)
    assert whole[:3] == ["01_a.ipynb", "02_b.ipynb", "tests"]
    assert whole[-len(words) :] == words
    assert "tests" not in run.pytest_words(["tests/test_hog.py"], root=tmp_path)
    assert run.pytest_words(["-x", "02_b.ipynb"], root=tmp_path).count("02_b.ipynb") == 1
    for path in run.pytest_words([], quick=True, root=tmp_path)[1 : len(run.QUICK) + 1]:
        assert (run.ROOT / path).is_file(), path


def test_a_notebook_is_chosen_by_number_name_or_path(tmp_path, monkeypatch):
    first, third = write(tmp_path / "01_look.ipynb"), write(tmp_path / "03_train.ipynb")
    (tmp_path / "else").mkdir()
    own = write(tmp_path / "else" / "mine.ipynb")
    monkeypatch.chdir(tmp_path / "else")
    assert run.choose([], tmp_path) == [first, third]
    assert run.choose(["3", "01"], tmp_path) == [third, first]
    assert run.choose(["03_train", "03_train.ipynb", "03"], tmp_path) == [third]
    assert run.choose(["mine.ipynb"], tmp_path) == [own]
    with pytest.raises(ValueError, match="no notebook '03_tarin'; did you mean '03_train'"):
        run.choose(["03_tarin"], tmp_path)
    with pytest.raises(ValueError, match="there is no notebook in"):
        run.choose([], tmp_path / "else")


MORE = PARAMETERS + "\nlower = 2\nROOT = 'data'\nC = EPOCHS + 1"
VALUES = [("epochs", "20", 20), ("LR", "3e-4", 3e-4), ("LR", "1", 1.0), ("FAST", "true", True)]
VALUES += [("ROOM", "3", 3), ("ROOT", "2024", "2024"), ("ROOT", "C:\\faces", "C:\\faces")]
VALUES += [("SIZES", "(3, 4)", (3, 4)), ("C", "7", 7)]
REFUSED = [("EPOCHS", "ten"), ("EPOCHS", "3.5"), ("EPOCHS", "True"), ("LR", "x"), ("LR", "1e999")]
REFUSED += [("FAST", "1"), ("SIZES", "1")]


def test_a_value_is_read_as_the_notebooks_own_type_or_refused(tmp_path):
    path = write(tmp_path / "a.ipynb", "OTHER = 1", parameters=MORE)
    for name, text, value in VALUES:
        [(found, read)] = run.settings([path], {name: text})[path].items()
        assert (found, read, type(read)) == (name.upper(), value, type(value))
    for name, text in REFUSED:
        with pytest.raises(ValueError, match=rf"{name} .*is .* not '"):
            run.settings([path], {name: text})
    for name in ("OTHER", "lower"):
        with pytest.raises(ValueError, match=rf"unknown parameter '{name}'"):
            run.settings([path], {name: "1"})


def test_mistakes_end_with_2_before_anything_runs(tmp_path, capsys):
    path = write(tmp_path / "01_a.ipynb", "open('ran', 'w')")
    (tmp_path / "not.ipynb").write_text("version https://git-lfs.github.com/spec/v1")
    (tmp_path / "file").touch()
    for words, message in [
        (["tset"], "did you mean 'test'?"),
        (["run", "--timeuot", "3"], "did you mean '--timeout'"),
        (["run", "--timeout", "0"], "from 1, not 0"),
        (["run", path, "-p", "epohcs", "3"], "did you mean 'EPOCHS'"),
        (["run", path, "-p", "EPOCHS", "many"], "EPOCHS (here: 3) is a whole number, not 'many'"),
        (["run", path, "x"], "no notebook 'x'"),
        (["run", tmp_path / "not.ipynb"], "parameters of not.ipynb cannot be read"),
        (["run", path, "--out", tmp_path / "file" / "out"], "file"),  # nothing can be written
    ]:
        assert message in refused(capsys, *words)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["01_a.ipynb", "file", "not.ipynb"]


def test_a_run_injects_executes_and_keeps(tmp_path):
    where = "import os, sys; print(os.getcwd(), sys.executable)"
    path = write(tmp_path / "01_a.ipynb", "print(EPOCHS, DATASET)", where)
    before = path.read_bytes()
    assert execute(path, EPOCHS=9, DATASET="it's <new>").startswith("done in")
    assert path.read_bytes() == before, "the notebook itself stays as it is"
    kept = nbformat.read(tmp_path / "out" / "01_a.ipynb", 4)
    nbformat.validate(kept)
    tags = [cell.metadata.get("tags", []) for cell in kept.cells]
    assert tags.index(["injected-parameters"]) == tags.index(["parameters"]) + 1
    printed = outputs(tmp_path / "out" / "01_a.ipynb")[2:]
    assert printed == ["9 it's <new>\n", f"{tmp_path} {sys.executable}\n"]
    assert "A question?" in (tmp_path / "out" / "01_a.html").read_text()
    index = run.write_index(tmp_path / "out").read_text()
    assert '<a href="01_a.html">' in index
    assert "EPOCHS = 9" in index
    assert "<new>" not in index


def test_a_failing_cell_is_named_with_its_error(tmp_path):
    fails = "def deep():\n    return {}['key']\ndeep()"
    path = write(tmp_path / "01_a.ipynb", "print('before')", fails, "print(1)")
    stale = nbformat.read(path, 4)
    stale.cells[-1].outputs = [nbformat.v4.new_output("stream", text="after")]
    nbformat.write(stale, path)
    result = execute(path)
    assert re.match(r"failed after 0:\d\d in cell 3 \(2. Part 2\): KeyError: 'key'\n", result), result
    assert "return {}['key']" in result
    assert "\x1b" not in result
    assert outputs(tmp_path / "out" / "01_a.ipynb") == ["", "before\n", "", ""], "nothing of an earlier run"
    assert "KeyError" in run.write_index(tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("source", "error"),
    [("import time\ntime.sleep(60)", "longer than 1 s; --timeout"), ("import os\nos._exit(9)", "memory")],
)
def test_a_cell_over_time_and_a_kernel_that_dies_fail(source, error, tmp_path):
    result = execute(write(tmp_path / "01_a.ipynb", source), timeout=1)
    assert result.startswith("failed")
    assert "in cell 2" in result
    assert error in result


def start(tmp_path: Path, *words: str, **settings: str) -> subprocess.Popen:
    line = [sys.executable, str(run.ROOT / "helpers"), "run", "--out", str(tmp_path / "out"), *words]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": HEAR_CTRL_C}
    return subprocess.Popen(line, cwd=tmp_path, env={**os.environ, **settings}, **how)


def test_the_others_run_when_one_fails_and_the_page_to_open_is_named(tmp_path):
    bad = write(tmp_path / "01_bad.ipynb", "1 / 0")
    good = write(tmp_path / "02_good.ipynb", "print(SEED)", "# ü · 表", parameters="SEED = 1")
    # what a terminal of this code page cannot print never ends a command
    terminal = {"PYTHONIOENCODING": "cp932", "PYTHONUTF8": "0"}
    process = start(tmp_path, bad.name, good.name, "-p", "seed", "4", **terminal)
    text = process.communicate(timeout=120)[0].decode("cp932")
    assert process.returncode == 1, text
    assert "SEED is a parameter of 02_good only." in text
    assert "in cell 2 (1. Part 1): ZeroDivisionError: division by zero" in text
    assert "02_good  done in" in text
    assert "1 of 2 notebooks done in" in text
    assert text.strip().splitlines()[-1] == f"Open {os.path.join('out', 'index.html')}"
    assert "4\n" in outputs(tmp_path / "out" / "02_good.ipynb")
    assert {"01_bad.html", "02_good.html"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_photographs_are_run_where_they_lie(tmp_path, capsys):
    path = write(
        tmp_path / "06_losses.ipynb", "print(DATASET)", parameters='DATASET = "synthetic"\nDATA_ROOT = "x"'
    )
    words = ["run", str(path), "--real", "--out", str(tmp_path / "out"), "-p", "data_root", str(tmp_path)]
    assert "none of the sets is there" in refused(capsys, *words)
    for name in ("fer2013", "ferplus"):
        cli.main(["data", "write", name, "--out", str(tmp_path), "--faces", "40"])
    assert cli.main(words) == 0
    assert "06_losses on ferplus  done in" in capsys.readouterr().out
    assert "ferplus\n" in outputs(tmp_path / "out" / "ferplus" / path.name)


@pytest.mark.skipif(os.name == "nt", reason="signals the POSIX way")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_killed_parent_end_the_kernel(how, tmp_path):
    # The cell takes an interrupt for a wish to end early, as training does: the notebook must not go on.
    pid, went_on = tmp_path / "pid", tmp_path / "went on"
    stubborn = (
        "import os, pathlib, time\ntry:\n"
        f"    pathlib.Path({str(pid)!r}).write_text(f'{{os.getpid()}} ')\n    time.sleep(60)\n"
        "except BaseException:\n    pass"
    )
    path = write(tmp_path / "01_a.ipynb", stubborn, f"open({str(went_on)!r}, 'w')")
    process, began = start(tmp_path, path.name, write(tmp_path / "02_b.ipynb").name), time.monotonic()
    while not (pid.exists() and pid.read_text().endswith(" ")) and time.monotonic() - began < 60:
        time.sleep(0.1)
    kernel = psutil.Process(int(pid.read_text()))
    process.send_signal(how)
    text = process.communicate(timeout=60)[0].decode()
    kernel.wait(20)
    assert not went_on.exists()
    if how == signal.SIGINT:
        assert process.returncode == 130, text
        assert "01_a  stopped after" in text
        assert "02_b  " not in text
        assert (tmp_path / "out" / "01_a.html").exists()
