"""The command line on small notebooks made here: words, parameters, runs that go well and that do not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from conftest import HEAR_CTRL_C
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers import cli
from helpers.cli import execution, run, testing
from helpers.cli.status import StatusLine, clock, short

PARAMETERS = (
    "DATASET = 'synthetic'  # name\nEPOCHS = 3\nLR = 1e-3\nFAST = False\nSIZES: tuple = (1, 2)\nROOM = None"
)


def write(path: Path, *sources: str, parameters: str = PARAMETERS) -> Path:
    """Write a notebook: a title, the parameters, and each source under a heading of its own."""
    cells = [
        new_markdown_cell("# A question?\n\ntext"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    for number, source in enumerate(sources, 1):
        cells += [new_markdown_cell(f"## {number}. Part {number}"), new_code_cell(source)]
    nbformat.write(new_notebook(cells=cells), path)
    return path


def execute(path: Path, tmp_path: Path, timeout: int = 60, **values) -> execution.Outcome:
    return execution.execute(path, tmp_path / "out", values, timeout, tmp_path)


def outputs(path: Path) -> list[str]:
    """Return what each code cell of an executed notebook printed."""
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in cells]


def refused(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.parse(list(words))
    assert ended.value.code == 2
    return capsys.readouterr().err


# --- words ---


@pytest.mark.parametrize("words", [[], ["--help"], ["help"], ["run", "--help"], ["test", "-h"]])
def test_help_teaches_and_succeeds(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.parse(words)
    assert not ended.value.code
    assert "python3 -m helpers" in capsys.readouterr().out


def test_the_general_help_lists_every_command(capsys):
    with pytest.raises(SystemExit):
        cli.parse([])
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(command.summary)}$", text, re.MULTILINE)


def test_help_needs_nothing_that_is_installed():
    script = "import sys\nfrom helpers import cli\ntry: cli.parse([])\nexcept SystemExit: pass\n"
    script += "print('LOADED', [name for name in ('numpy', 'torch', 'nbformat') if name in sys.modules])"
    bare = subprocess.run([sys.executable, "-S", "-c", script], cwd=run.ROOT, capture_output=True, text=True)
    assert bare.returncode == 0, bare.stderr
    assert bare.stdout.endswith("LOADED []\n")


def test_unknown_words_name_the_nearest(capsys):
    assert "did you mean 'test'?" in refused(capsys, "tset")
    assert "--timeuot" in refused(capsys, "run", "--timeuot", "3")
    assert "COMMAND" in refused(capsys, "-x")
    assert "from 1, not 0" in refused(capsys, "run", "--timeout", "0")


def test_pytest_gets_what_follows_test_untouched():
    words = ["-k", "a or b", "-p", "no:randomly", "--lf", "-x", "--timeout", "3"]
    arguments = cli.parse(["test", *words])
    assert arguments.pytest[-len(words) :] == words
    assert "tests" in arguments.pytest
    assert {"--nbval-lax", "--nbval-current-env"} <= set(arguments.pytest)


def test_tests_and_notebooks_are_one_run_unless_files_are_named(tmp_path):
    for name in ("02_b.ipynb", "01_a.ipynb", "01_a-Copy1.ipynb", "notes.ipynb"):
        write(tmp_path / name)
    assert testing.pytest_words([], tmp_path)[:3] == ["01_a.ipynb", "02_b.ipynb", "tests"]
    assert "tests" not in testing.pytest_words(["tests/test_hog.py"], tmp_path)
    assert "01_a.ipynb" not in testing.pytest_words(["tests"], tmp_path)[:-1]
    assert testing.pytest_words(["-x", "02_b.ipynb"], tmp_path).count("02_b.ipynb") == 1


@pytest.mark.parametrize(("cores", "words"), [(1, []), (2, ["-n", "2"]), (64, ["-n", "4"]), (None, [])])
def test_files_are_shared_among_processes_unless_they_are_named(tmp_path, monkeypatch, cores, words):
    monkeypatch.setattr(testing.os, "cpu_count", lambda: cores)
    given = testing.pytest_words([], tmp_path)
    assert given[1 : given.index("--nbval-lax")][:2] == words
    assert "-n" not in testing.pytest_words(["tests/test_hog.py"], tmp_path)


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


# --- parameters ---


def test_parameters_are_the_capitals_of_the_tagged_cell(tmp_path):
    path = write(
        tmp_path / "01_a.ipynb", "OTHER = 1", parameters=PARAMETERS + "\nlower = 2\nA = B = 4\nC = EPOCHS + 1"
    )
    found = run.parameters(json.loads(path.read_text()))
    assert list(found) == ["DATASET", "EPOCHS", "LR", "FAST", "SIZES", "ROOM", "A", "B", "C"]
    assert (found["DATASET"], found["EPOCHS"], found["LR"], found["B"]) == ("synthetic", 3, 1e-3, 4)
    assert (found["FAST"], found["SIZES"], found["ROOM"]) == (False, (1, 2), None)


@pytest.mark.parametrize(
    ("own", "text", "value"),
    [
        (3, "20", 20),
        (1e-3, "3e-4", 3e-4),
        (1e-3, "1", 1),
        (False, "True", True),
        ("synthetic", "fer2013", "fer2013"),
        ("data", "2024", "2024"),
        ("data", "'a b'", "a b"),
        ("data", "C:\\faces", "C:\\faces"),
        ((1, 2), "(3, 4)", (3, 4)),
        (None, "3", 3),
        (None, "three", "three"),
    ],
)
def test_a_value_is_read_as_the_notebooks_own_kind(own, text, value):
    read = run.value_like(own, "NAME", text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("own", "text"),
    [(3, "ten"), (3, "3.5"), (3, "True"), (0.1, "x"), (False, "true"), (False, "1"), ((1,), "1")],
)
def test_a_value_of_another_kind_is_refused(own, text):
    with pytest.raises(ValueError, match=r"NAME is .* not '"):
        run.value_like(own, "NAME", text)


def test_a_name_must_be_in_one_of_the_notebooks(tmp_path):
    one = write(tmp_path / "01_a.ipynb", parameters="SEED = 1")
    two = write(tmp_path / "02_b.ipynb", parameters="SEED = 1\nEPOCHS = 2")
    assert run.settings([one, two], [("EPOCHS", "5"), ("SEED", "2"), ("SEED", "3")]) == {
        one: {"SEED": 3},
        two: {"EPOCHS": 5, "SEED": 3},
    }
    with pytest.raises(ValueError, match="no parameter 'EPOCHS'; known here: SEED"):
        run.settings([one], [("EPOCHS", "5")])
    with pytest.raises(ValueError, match="did you mean 'EPOCHS'"):
        run.settings([one, two], [("epoch", "5")])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cells": 3}', "version https://git-lfs.github.com/spec/v1"]
)
def test_a_file_that_is_no_notebook_is_refused_by_name(text, tmp_path, capsys):
    (tmp_path / "01_a.ipynb").write_text(text)
    assert "the parameters of 01_a.ipynb cannot be read" in refused(
        capsys, "run", str(tmp_path / "01_a.ipynb")
    )


def test_mistakes_end_with_2_before_anything_runs(tmp_path, capsys):
    path = str(write(tmp_path / "01_a.ipynb", "open('ran', 'w')"))
    out = ["--out", str(tmp_path / "out")]
    assert "did you mean 'EPOCHS'" in refused(capsys, "run", path, "-p", "EPOHCS", "3", *out)
    assert "EPOCHS is a whole number (here: 3), not 'many'" in refused(
        capsys, "run", path, "-p", "EPOCHS", "many", *out
    )
    assert "no notebook 'x'" in refused(capsys, "run", path, "x", *out)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["01_a.ipynb"]


# --- runs ---


def test_a_run_injects_executes_and_keeps(tmp_path):
    path = write(
        tmp_path / "01_a.ipynb",
        "import os, sys\nprint(EPOCHS, DATASET, LR)",
        "print(os.getcwd(), sys.executable)",
    )
    before = path.read_bytes()
    outcome = execute(path, tmp_path, EPOCHS=9, DATASET="it's <new>")
    assert (outcome.status, outcome.cell) == ("done", 0), outcome
    assert path.read_bytes() == before, "the notebook itself stays as it is"
    kept = nbformat.read(tmp_path / "out" / "01_a.ipynb", 4)
    nbformat.validate(kept)
    tags = [cell.metadata.get("tags", []) for cell in kept.cells]
    assert tags.index(["injected-parameters"]) == tags.index(["parameters"]) + 1
    printed = outputs(tmp_path / "out" / "01_a.ipynb")
    assert printed[2:] == ["9 it's <new> 0.001\n", f"{tmp_path} {sys.executable}\n"]
    page = (tmp_path / "out" / "01_a.html").read_text()
    assert "A question?" in page
    assert "it's &lt;new&gt; 0.001" in page.replace("&#39;", "'")
    index = execution.write_index(tmp_path / "out").read_text()
    assert '<a href="01_a.html">A question?</a>' in index
    assert "EPOCHS = 9" in index
    assert "<new>" not in index


def test_without_parameters_nothing_is_injected(tmp_path):
    assert execute(write(tmp_path / "01_a.ipynb", "print(EPOCHS)"), tmp_path).status == "done"
    assert outputs(tmp_path / "out" / "01_a.ipynb") == ["", "3\n"]


def test_a_failing_cell_is_named_with_its_error(tmp_path):
    path = write(
        tmp_path / "01_a.ipynb",
        "print('before')",
        "def deep():\n    return {}['key']\ndeep()",
        "print('after')",
    )
    stale = nbformat.read(path, 4)
    stale.cells[-1].outputs = [nbformat.v4.new_output("stream", text="after")]
    nbformat.write(stale, path)
    outcome = execute(path, tmp_path)
    assert (outcome.status, outcome.cell, outcome.section) == ("failed", 3, "2. Part 2")
    assert outcome.error == "KeyError: 'key'"
    assert "return {}['key']" in outcome.trace
    assert "\x1b" not in outcome.trace
    assert outputs(tmp_path / "out" / "01_a.ipynb") == ["", "before\n", "", ""], (
        "nothing of an earlier run stays"
    )
    write(tmp_path / "out" / "02_of_another_tool.ipynb")
    index = execution.write_index(tmp_path / "out").read_text()
    assert "KeyError" in index
    assert ">unknown<" in index


def test_a_cell_over_time_fails(tmp_path):
    outcome = execute(write(tmp_path / "01_a.ipynb", "import time\ntime.sleep(60)"), tmp_path, timeout=1)
    assert (outcome.status, outcome.cell) == ("failed", 2)
    assert "longer than 1 s" in outcome.error
    assert "--timeout" in outcome.error


def test_a_kernel_that_dies_fails(tmp_path):
    outcome = execute(write(tmp_path / "01_a.ipynb", "import os\nos._exit(9)"), tmp_path)
    assert (outcome.status, outcome.cell) == ("failed", 2)
    assert "memory" in outcome.error


@pytest.mark.skipif(os.name == "nt", reason="asks for a process the POSIX way")
@pytest.mark.parametrize("end", ["pass", "1 / 0", "import time; time.sleep(60)"])
def test_no_kernel_outlives_its_notebook(end, tmp_path):
    outcome = execute(
        write(tmp_path / "01_a.ipynb", "import os; print(os.getpid())", end), tmp_path, timeout=3
    )
    assert outcome.status == ("done" if end == "pass" else "failed")
    with pytest.raises(ProcessLookupError):
        os.kill(int(outputs(tmp_path / "out" / "01_a.ipynb")[1]), 0)


def command(tmp_path: Path, *words: str) -> subprocess.Popen:
    line = [sys.executable, str(run.ROOT / "helpers"), "run", "--out", str(tmp_path / "out"), *words]
    return subprocess.Popen(
        line,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=HEAR_CTRL_C,
    )


def test_the_others_run_when_one_fails_and_the_page_to_open_is_named(tmp_path):
    bad = write(tmp_path / "01_bad.ipynb", "1 / 0")
    good = write(tmp_path / "02_good.ipynb", "print(SEED)", parameters="SEED = 1")
    process = command(tmp_path, bad.name, good.name, "-p", "SEED", "4")
    text, _ = process.communicate(timeout=120)
    assert process.returncode == 1, text
    assert "SEED is a parameter of 02_good only." in text
    assert "01_bad  failed after" in text
    assert "in cell 2 (1. Part 1): ZeroDivisionError: division by zero" in text
    assert "02_good  done in" in text
    assert "1 of 2 notebooks done in" in text
    assert text.strip().splitlines()[-1] == f"Open {os.path.join('out', 'index.html')}"
    assert outputs(tmp_path / "out" / "02_good.ipynb")[-1] == "4\n"
    assert {"01_bad.html", "02_good.html", "index.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


@pytest.mark.skipif(os.name == "nt", reason="signals the POSIX way")
def test_ctrl_c_ends_the_kernel_and_keeps_what_there_is(tmp_path):
    # The cell takes an interrupt for a wish to end early, as training does: the notebook must not go on.
    pid, went_on = tmp_path / "pid", tmp_path / "went on"
    stubborn = (
        "import os, pathlib, time\ntry:\n"
        f"    pathlib.Path({str(pid)!r}).write_text(f'{{os.getpid()}} ')\n    time.sleep(60)\n"
        "except BaseException:\n    pass"
    )
    path = write(tmp_path / "01_a.ipynb", stubborn, f"open({str(went_on)!r}, 'w')")
    process = command(tmp_path, path.name, write(tmp_path / "02_b.ipynb").name)
    for _ in range(600):
        if pid.exists() and pid.read_text().endswith(" "):
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert "01_a  stopped after" in text
    assert "02_b" not in text
    assert not went_on.exists()
    assert (tmp_path / "out" / "01_a.html").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.skipif(os.name == "nt", reason="signals the POSIX way")
@pytest.mark.parametrize("until_started", [0.0, 0.6])
def test_ctrl_c_waits_until_the_client_has_tidied_up(tmp_path, monkeypatch, until_started):
    # A client that still tidies up while Python ends can hang its exit. Its kernel may not even have started.
    class Client:
        km, tidy, kills = None, False, 0

        def kill(self):
            self.kills += 1

        def execute(self, cleanup_kc):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(until_started)
            self.km = SimpleNamespace(provisioner=SimpleNamespace(process=self))
            while not self.kills:
                time.sleep(0.05)
            time.sleep(0.5)
            self.tidy = True

    client = Client()
    monkeypatch.setattr(execution, "_client", lambda *_, **__: client)
    outcome = execute(write(tmp_path / "01_a.ipynb", "pass"), tmp_path)
    assert (outcome.status, outcome.error) == ("stopped", "Ctrl-C")
    assert client.tidy


# --- the status line ---


def test_the_status_line_goes_on_below_itself_where_there_is_no_terminal(capsys):
    line = StatusLine()
    for text in ("a", "a", "b"):
        line.show(text)
    line.clear()
    assert capsys.readouterr().out == "a\nb\n"


def test_the_status_line_writes_over_itself_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "11")
    line = StatusLine()
    line.live = True
    line.show("a long text that is cut")
    line.show("short")
    line.clear()
    assert capsys.readouterr().out == "\ra long tex\rshort     \r          \r"


def test_durations_and_paths_are_short(monkeypatch, tmp_path):
    assert [clock(seconds) for seconds in (0, 59.9, 61, 3600)] == ["0:00", "0:59", "1:01", "60:00"]
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "out" / "index.html") == os.path.join("out", "index.html")
    assert short("/x") == "/x"
