"""The set-up: versions against ``packaging``, and whole set-ups of a small project by a stand-in installer.

The stand-in is a program called ``uv`` at the front of the PATH. It writes down how it was called, leaves
what an installer leaves, and fails or hangs on demand; one test uses the real pip on a wheel made here.
"""

from __future__ import annotations

import ast
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import HEAR_CTRL_C
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.version import Version

from helpers import __main__ as setup

HERE = "{}.{}".format(*sys.version_info)
posix_only = pytest.mark.skipif(os.name == "nt", reason="a script as a program, and signals, the POSIX way")

FAKE_CLI = """
import argparse, os, sys

def parse(words):
    if words == ["typo"]:
        raise SystemExit(2)
    return argparse.Namespace(command="run", words=words, perform=perform)

def perform(arguments):
    print("RAN", sys.prefix, arguments.words, os.getcwd(), flush=True)
    return int(arguments.words[0]) if arguments.words else 0
"""

FAKE_UV = """#!{python}
import os, pathlib, subprocess, sys, time
here = pathlib.Path(__file__).parent
with open(here / "calls", "a") as calls:
    print(sys.argv[1:], file=calls)
target = sys.argv[sys.argv.index("--python") + 1]
question = "import sysconfig; print(sysconfig.get_path('purelib'))"
site = pathlib.Path(subprocess.check_output([target, "-c", question], text=True).strip())
mode = (here / "mode").read_text() if (here / "mode").exists() else ""
if mode.startswith("fail"):
    sys.exit("error: " + mode[5:])
if mode == "hang":
    (site / "half_installed.py").write_text("raise SystemExit('torn')")
    (here / "hanging").touch()
    time.sleep(60)
for line in open(sys.argv[-1]).read().split():
    name, version = line.split(">=")
    folder = site / (name.replace("-", "_") + "-" + version + ".dist-info")
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: %s\\nVersion: %s\\n" % (name, version))
"""


class Project:
    """A folder with the set-up, a command line that prints what reached it, and a stand-in installer."""

    def __init__(self, folder: Path):
        self.root, self.bin = folder / "a project", folder / "bin"
        for name in ("__init__.py", "__main__.py", "cli/status.py"):
            (self.root / "helpers" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(setup.HERE / name, self.root / "helpers" / name)
        (self.root / "helpers/cli/__init__.py").write_text(FAKE_CLI)
        self.bin.mkdir()
        (self.bin / "uv").write_text(FAKE_UV.format(python=sys.executable))
        (self.bin / "uv").chmod(0o755)
        self.require("stub-faces>=1.2")
        self.venv, self.mark = self.root / ".venv", self.root / ".venv" / setup.MARK
        self.python = self.venv / "bin" / "python"

    def prepare(self, stamp: str = "") -> None:
        """Make the environment as a set-up would leave it, without the seconds that its pip takes."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)
        self.record("stub_faces", "1.2")
        self.mark.write_text(stamp or setup.stamp("stub-faces>=1.2\n", HERE))

    def record(self, name: str, version: str) -> None:
        site = next(self.venv.glob("lib/python*/site-packages"))
        (site / f"{name}-{version}.dist-info").mkdir()
        record = site / f"{name}-{version}.dist-info" / "METADATA"
        record.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def require(self, *lines: str) -> None:
        (self.root / "requirements.txt").write_text("\n".join(lines) + "\n")

    def mode(self, text: str) -> None:
        (self.bin / "mode").write_text(text)

    def calls(self) -> int:
        log = self.bin / "calls"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def start(
        self, *words: str, python: str = sys.executable, cwd: Path | None = None, **kept
    ) -> subprocess.Popen:
        environment = {
            "PATH": f"{self.bin}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(self.root),
            **kept,
        }
        return subprocess.Popen(
            [python, str(self.root / "helpers"), *words],
            cwd=cwd,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=HEAR_CTRL_C,
        )

    def run(self, *words: str, **how) -> tuple[int, str]:
        process = self.start(*words, **how)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# --- versions and requirements ---

numbers = st.integers(0, 12).map(str)
versions = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "1!", "v"]),
        st.lists(numbers, min_size=1, max_size=4).map(".".join),
        st.sampled_from(["", "a1", "b2", "rc1", ".rc.3", "alpha", "-beta-2", "c1", "preview2"]),
        st.sampled_from(["", ".post1", "-3", "post", "-r4", ".rev2"]),
        st.sampled_from(["", ".dev0", "dev3", "-dev"]),
        st.sampled_from(["", "+cu130", "+cpu.local-1"]),
    ),
)


@given(versions, versions)
@example("2.10", "2.9")
@example("3.0rc1", "3.0")
@example("1.0", "1.0.0")
@example("2.4.0a0+git1", "2.4")
@example("1.0.dev1", "1.0a1")
@example("1.0.post1.dev1", "1.0")
def test_versions_are_ordered_as_packaging_orders_them(one, other):
    a, b = (
        Version(text.split("+")[0]) for text in (one, other)
    )  # a lower bound does not look at local parts
    ours, theirs = setup.version_key(one), setup.version_key(other)
    assert (ours < theirs, ours == theirs, ours > theirs) == (a < b, a == b, a > b)


@pytest.mark.parametrize("text", ["", "new", "1..2", "1.x", "==1"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(ValueError, match="is not a version"):
        setup.version_key(text)


def test_every_line_of_the_requirements_is_read_as_packaging_reads_it():
    lines = [line for line in setup.REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 15
    for line in lines:
        name, bounds = setup.parse_requirement(line)
        expected = Requirement(line.split("#")[0])
        assert name == expected.name
        assert {sign + version for sign, version in bounds} == {str(one) for one in expected.specifier}
        assert [sign for sign, _ in bounds] == [">="], (
            f"{line}: lower bounds only, so that nothing is downgraded"
        )


@given(
    here=st.sampled_from(["1.9", "1.10", "2.0rc1", "2.0", "2.0+cu130", "2.1.post1", "3"]),
    bounds=st.lists(
        st.tuples(st.sampled_from([">=", "<", "<=", ">", "!=", "=="]), st.sampled_from(["1.10", "2.0", "3"])),
        max_size=2,
    ),
)
def test_bounds_are_met_when_packaging_says_so(here, bounds):
    import importlib.metadata

    text = "stub-faces" + ",".join(sign + version for sign, version in bounds)
    expected = Requirement(text).specifier.contains(here, prereleases=True)
    # packaging gives > and < a rule of their own (2.0 post-releases, rc1); the workbook's file uses >= alone
    if any(sign in "<>" for sign, _ in bounds) and here in {"2.0rc1", "2.1.post1"}:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: here)
        assert (setup.lacking(text) == []) == expected


@pytest.mark.parametrize(
    "line",
    ["torch; sys_platform == 'win32'", "-r other.txt", "git+https://x", "a[b]>=1", "a==1.*", "a ~= 1.2"],
)
def test_a_line_that_cannot_be_judged_counts_as_lacking(line):
    assert setup.parse_requirement(line) is None
    assert setup.lacking(line) == [line]


def test_lacking_names_what_is_missing_and_what_is_too_old():
    text = "# a comment\npytest>=1\n\nno-such-package>=1  # why\npackaging>=9999\nspared-one>=1\n"
    missing, old = setup.lacking(text, spare={"spared-one"})
    assert missing == "no-such-package"
    assert old == f"packaging>=9999 (here: {__import__('packaging').__version__})"


# --- old Pythons ---


@pytest.mark.parametrize("version", [(3, 7, 0), (3, 10, 14)])
def test_an_old_python_is_told_what_is_needed(version):
    message = setup.too_old(version)
    assert "3.11 or newer" in message
    assert ".".join(map(str, version)) in message
    assert "\n" not in message


def test_python_3_11_and_later_pass():
    assert setup.too_old((3, 11, 0)) == setup.too_old((3, 14, 2)) == ""


@pytest.mark.parametrize("name", ["__init__.py", "__main__.py"])
def test_an_old_python_can_read_as_far_as_the_message(name):
    ast.parse((setup.HERE / name).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_real_old_pythons_end_with_the_message(project):
    old = [name for name in ("python3.7", "python3.8", "python3.9", "python3.10") if setup._runs(name)]
    if not old:
        pytest.skip("no Python from 3.7 to 3.10 on this machine")
    for name in old:
        code, output = project.run(python=shutil.which(name))
        assert code == 1
        assert "needs Python 3.11 or newer" in output
        assert "Traceback" not in output


# --- whole set-ups ---


def test_nothing_is_set_up_where_the_requirements_are_met(project, tmp_path):
    project.require("pytest>=1", "jupyterlab>=9999")  # `run` does without the second
    code, output = project.run("3", "x y", cwd=tmp_path)
    assert code == 3
    assert output.strip() == f"RAN {sys.prefix} ['3', 'x y'] {tmp_path}"
    assert not project.venv.exists()


def test_a_typo_is_answered_before_anything_is_installed(project):
    code, _ = project.run("typo")
    assert code == 2
    assert not project.venv.exists()


@posix_only
def test_cold_then_warm_then_changed_requirements(project, tmp_path):
    code, output = project.run("7", "-p", "A B", cwd=tmp_path)
    assert code == 7, output
    assert output.startswith("Setting up, once: uv installs requirements.txt into .venv")
    assert f"RAN {project.venv} ['7', '-p', 'A B'] {tmp_path}" in output
    assert project.mark.read_text() == setup.stamp("stub-faces>=1.2\n", HERE)
    assert project.calls() == 1

    code, output = project.run("0")
    assert (code, output.count("\n")) == (0, 1), "a prepared environment is used without a word"
    code, output = project.run("0", python=str(project.python))  # and from inside
    assert (code, output.count("\n"), project.calls()) == (0, 1, 1)

    (project.venv / "kept").touch()
    project.require("stub-faces>=1.2", "stub-more>=3")
    code, output = project.run("0")
    assert (code, project.calls()) == (0, 2), output
    assert output.startswith("Setting up: uv brings .venv up to date")
    assert (project.venv / "kept").exists(), "a change of the requirements adds to what is there"
    assert project.mark.read_text() == setup.stamp("stub-faces>=1.2\nstub-more>=3\n", HERE)


def interrupt(project: Project, how: signal.Signals) -> tuple[int, str]:
    project.mode("hang")
    process = project.start("0")
    for _ in range(600):
        if (project.bin / "hanging").exists():
            break
        time.sleep(0.1)
    os.killpg(process.pid, how)
    output, _ = process.communicate(timeout=60)
    project.mode("")
    return process.returncode, output


@posix_only
def test_a_killed_installation_is_done_again_from_the_start(project):
    interrupt(project, signal.SIGKILL)
    torn = next(project.venv.rglob("half_installed.py"))
    assert project.mark.read_text() == setup.UNFINISHED
    code, output = project.run("0")
    assert (code, project.calls()) == (0, 2), output
    assert not torn.exists()
    assert project.mark.read_text() == setup.stamp("stub-faces>=1.2\n", HERE)


@posix_only
def test_ctrl_c_while_installing_is_told_and_leaves_no_stamp(project):
    project.prepare(stamp="of other requirements")
    shutil.rmtree(next(project.venv.rglob("stub_faces*")))
    code, output = interrupt(project, signal.SIGINT)
    assert code == 130
    assert output.strip().endswith("Set-up stopped; the same command starts it again.")
    assert "Traceback" not in output
    assert project.mark.read_text() == setup.UNFINISHED


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("dns error: failed to lookup address information", "no network"),
        ("[Errno -3] Temporary failure in name resolution\nNo matching distribution found", "no network"),
        ("SSLError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]')", "SSL_CERT_FILE"),
        ("No matching distribution found for torch>=2.4", "has no build for Python"),
        ("[Errno 13] Permission denied: '.venv'", "cannot be written"),
    ],
)
def test_what_an_installer_says_is_put_in_words(said, told):
    assert told in setup._remedy(said)
    assert "\n" not in setup._remedy(said)


@posix_only
def test_a_failed_first_installation_says_why_in_one_line(project):
    project.mode("fail something nobody thought of")
    code, output = project.run("0")
    *_, last = output.strip().splitlines()
    assert code == 1
    assert last.startswith("Set-up: the packages could not be installed: error: something nobody thought of")
    assert "setup.log" in last
    assert "Traceback" not in output
    assert project.mark.read_text() == setup.UNFINISHED


@posix_only
def test_a_failed_addition_leaves_the_environment_that_was(project):
    project.prepare()
    complete = project.mark.read_text()
    project.require("stub-faces>=1.2", "stub-more>=3")
    project.mode("fail dns error")
    code, output = project.run("0")
    assert (code, project.mark.read_text()) == (1, complete), output
    assert "no network" in output
    project.require("stub-faces>=1.2")
    assert project.run("0")[0] == 0


@posix_only
def test_an_environment_whose_python_is_gone_is_made_again(project):
    project.prepare()
    for link in project.python.parent.glob("python*"):
        link.unlink()
        link.symlink_to("/no/such/python")
    code, output = project.run("0")
    assert (code, project.calls()) == (0, 1), output


@posix_only
def test_a_stamp_that_lies_is_found_out(project):
    project.prepare()
    shutil.rmtree(next(project.venv.rglob("stub_faces*")))
    code, output = project.run("0")
    assert (code, project.calls()) == (0, 1), output


@posix_only
def test_an_installer_that_installs_nothing_does_not_start_a_loop(project):
    project.prepare(stamp="of other requirements")
    shutil.rmtree(next(project.venv.rglob("stub_faces*")))
    (project.bin / "uv").write_text("#!/bin/sh\nexit 0\n")
    code, output = project.run("0")
    assert code == 1
    assert "still lacking: stub-faces" in output


def test_an_environment_of_somebody_else_is_never_changed(project):
    project.venv.mkdir()
    (project.venv / "pyvenv.cfg").write_text("theirs")
    code, output = project.run("0")
    assert code == 1
    assert "was not made by this command and lacks stub-faces" in output
    assert [path.name for path in project.venv.iterdir()] == ["pyvenv.cfg"]


@posix_only
def test_an_environment_of_somebody_else_is_used_where_it_serves(project):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project.venv], check=True)
    before = set(project.venv.rglob("*"))
    code, output = project.run("0")
    assert code == 1
    assert "lacks stub-faces" in output

    project.record("stub_faces", "1.2")
    code, output = project.run("5")
    assert code == 5
    assert f"RAN {project.venv}" in output
    made = {path.name for path in set(project.venv.rglob("*")) - before}
    assert made == {"stub_faces-1.2.dist-info", "METADATA"}


@posix_only
def test_two_set_ups_at_once_do_not_meet(project):
    import fcntl

    project.venv.mkdir()
    project.mark.write_text(setup.UNFINISHED)
    with open(project.venv / "setup.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, output = project.run("0")
    assert code == 1
    assert "another one is under way" in output
    assert project.calls() == 0


@posix_only
def test_pip_installs_where_there_is_no_uv(project, tmp_path):
    (project.bin / "uv").unlink()
    wheel = tmp_path / "wheels" / "stub_faces-1.5-py3-none-any.whl"
    wheel.parent.mkdir()
    files = {
        "METADATA": "Metadata-Version: 2.1\nName: stub-faces\nVersion: 1.5\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"stub_faces-1.5.dist-info/{name}", text)
    only_here = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "PIP_CONFIG_FILE": os.devnull}
    code, output = project.run("4", **only_here)
    assert code == 4, output
    assert output.startswith("Setting up, once: pip installs")
    found = subprocess.check_output([project.python, "-m", "pip", "list", "--format=freeze"], text=True)
    assert "stub-faces==1.5" in found


@pytest.mark.parametrize("forbidden", ["", "1"])
def test_byte_code_is_kept_in_our_environment_even_where_none_may_lie_beside_the_sources(
    tmp_path, monkeypatch, forbidden
):
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup.os, "name", "posix")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", forbidden)
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    handed = []
    monkeypatch.setattr(setup.os, "execve", lambda *words: handed.append(words[2]))
    monkeypatch.setattr(setup.subprocess, "Popen", lambda *_, **__: SimpleNamespace(wait=lambda: 0))
    setup._go_on(Path(sys.executable), ["run"])  # somebody else's environment: left as it is
    assert handed[0].get("PYTHONDONTWRITEBYTECODE") == forbidden
    assert "PYTHONPYCACHEPREFIX" not in handed[0]
    (tmp_path / setup.MARK).write_text("made by us")
    setup._go_on(Path(sys.executable), ["run"])
    assert handed[1].get("PYTHONDONTWRITEBYTECODE", "") == ""
    assert handed[1].get("PYTHONPYCACHEPREFIX") == (str(tmp_path / "bytecode") if forbidden else None)


def test_where_exec_is_no_exec_the_exit_status_passes_through(project, monkeypatch, capfd):
    monkeypatch.setattr(setup, "HERE", project.root / "helpers")
    monkeypatch.setattr(setup.os, "name", "nt")
    code = setup._go_on(sys.executable, ["typo"])
    monkeypatch.undo()
    assert code == 2
