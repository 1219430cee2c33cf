"""The set-up of a small project, by a stand-in called ``uv``, and once by the real pip."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import HEAR_CTRL_C
from packaging.requirements import Requirement

from helpers import __main__ as setup

posix_only = pytest.mark.skipif(os.name == "nt", reason="a script as a program, and signals, the POSIX way")

FAKE_CLI = """
import os, sys, types

def parse(words):
    if words == ["typo"]:
        raise SystemExit(2)
    def perform():
        print("RAN", sys.prefix, words, os.getcwd(), flush=True)
        return int(words[0]) if words else 0
    return types.SimpleNamespace(command="run", perform=perform)
"""

FAKE_UV = """#!{python}
import os, pathlib, subprocess, sys, time
here = pathlib.Path(__file__).parent
mode = (here / "mode").read_text() if (here / "mode").exists() else ""
if sys.argv[1] == "venv":
    sys.exit(subprocess.call([sys.executable, "-m", "venv", "--without-pip", sys.argv[-1]]))
with open(here / "calls", "a") as calls:
    print(sys.argv[1:], file=calls)
target = sys.argv[sys.argv.index("--python") + 1]
question = "import sysconfig; print(sysconfig.get_path('purelib'))"
site = pathlib.Path(subprocess.check_output([target, "-c", question], text=True).strip())
if mode.startswith("fail"):
    sys.exit("error: " + mode[5:])
if mode == "hang":
    (site / "half_installed.py").write_text("raise SystemExit('torn')")
    (here / "hanging").touch()
    time.sleep(60)
for line in [] if mode == "nothing" else open(sys.argv[-1]).read().split():
    name, version = line.split(">=")
    folder = site / (name.replace("-", "_") + "-" + version + ".dist-info")
    folder.mkdir(exist_ok=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: %s\\nVersion: %s\\n" % (name, version))
"""


class Project:
    """A folder with the set-up, a command line that prints what reached it, and a stand-in installer."""

    def __init__(self, folder: Path):
        self.root, self.bin = folder / "a project", folder / "bin"
        (self.root / "helpers" / "cli").mkdir(parents=True)
        for name in ("__init__.py", "__main__.py"):
            shutil.copy(setup.ROOT / "helpers" / name, self.root / "helpers" / name)
        (self.root / "helpers/cli/__init__.py").write_text(FAKE_CLI)
        self.bin.mkdir()
        (self.bin / "uv").write_text(FAKE_UV.format(python=sys.executable))
        (self.bin / "uv").chmod(0o755)
        self.require("stub-faces>=1.2")
        self.venv, self.stamp = self.root / ".venv", self.root / ".venv" / setup.STAMP.name
        self.python = self.venv / "bin" / "python"

    def make(self) -> None:
        """Make an environment with nothing in it, as another tool would."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)

    def record(self, name: str, version: str) -> None:
        record = next(self.venv.glob("lib/python*/site-packages")) / f"{name}-{version}.dist-info/METADATA"
        record.parent.mkdir()
        record.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def require(self, *lines: str) -> None:
        (self.root / "requirements.txt").write_text("\n".join(lines) + "\n")

    def digest(self) -> str:
        return hashlib.sha256((self.root / "requirements.txt").read_bytes()).hexdigest()

    def calls(self) -> int:
        log = self.bin / "calls"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def start(self, *words: str, python: str | Path = sys.executable, mode: str = "", **settings: str):
        (self.bin / "mode").write_text(mode)
        settings = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.root), **settings}
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": self.bin}
        how |= {"start_new_session": True, "preexec_fn": HEAR_CTRL_C, "env": settings}
        return subprocess.Popen([python, str(self.root / "helpers"), *words], **how)

    def run(self, *words: str, **how) -> tuple[int, str]:
        process = self.start(*words, **how)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_every_line_of_the_requirements_is_a_name_with_a_lower_bound():
    lines = [line for line in setup.REQUIREMENTS.read_text().splitlines() if line and line[0] != "#"]
    assert len(lines) > 15
    for line in lines:
        assert [bound.operator for bound in Requirement(line).specifier] == [">="], "nothing is downgraded"


VERSIONS = [("1.10", "1.9", 0), ("2.14.0+cu130", "2.14", 0), ("1.9", "1.10", 1), (None, "1", 1)]


@pytest.mark.parametrize(("here", "bound", "lacks"), VERSIONS)
def test_a_version_below_the_bound_is_lacking(tmp_path, monkeypatch, here, bound, lacks):
    (tmp_path / "requirements.txt").write_text(f"# why\nstub>={bound}\n# The tests.\nonly-for-tests>=1\n")
    monkeypatch.setattr(setup, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr("importlib.metadata.version", lambda name: here)
    assert setup.missing() == [f"stub>={bound}"] * lacks
    assert ("only-for-tests>=1" in setup.missing("test")) == (here is None)


def test_an_old_python_is_told_what_is_needed(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10))
    with pytest.raises(SystemExit, match=r"needs Python 3.11 or newer, not 3.10"):
        setup.main(["run"])
    for name in ("__init__.py", "__main__.py"):  # and can read as far as this message
        ast.parse((setup.ROOT / "helpers" / name).read_text(encoding="utf-8"), feature_version=(3, 7))


def test_nothing_is_set_up_for_a_typo_or_where_the_requirements_are_met(project):
    assert project.run("typo")[0] == 2
    project.require("pytest>=1", "# The tests.", "jupyterlab>=9999")
    code, output = project.run("3", "x y")
    assert (code, output.strip()) == (3, f"RAN {sys.prefix} ['3', 'x y'] {project.bin}")
    assert not project.venv.exists()


@posix_only
def test_cold_then_warm_then_changed_requirements(project):
    both = [project.start("7", "-p", "A B") for _ in range(2)]  # at once, they install once
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [7, 7], outputs
    assert "Setting up .venv with uv" in "".join(outputs)
    assert all(f"RAN {project.venv} ['7', '-p', 'A B'] {project.bin}" in output for output in outputs)
    assert (project.stamp.read_text(), project.calls()) == (project.digest(), 1)

    for python in (sys.executable, project.python):  # from outside, and from inside
        code, output = project.run("0", python=python)
        assert (code, output.count("\n"), project.calls()) == (0, 1, 1), "used without a word"

    (project.venv / "kept").touch()
    project.require("stub-faces>=1.2", "stub-more>=3")
    code, output = project.run("0", mode="fail dns error")
    *_, words, last = output.strip().splitlines()
    assert (code, words) == (1, "error: dns error")
    assert last.startswith("Set-up: the packages could not be installed")
    assert project.stamp.read_text() != project.digest()
    code, output = project.run("0")
    assert (code, project.calls(), project.stamp.read_text()) == (0, 3, project.digest()), output
    assert (project.venv / "kept").exists(), "a change of the requirements adds to what is there"


@posix_only
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_installation_is_done_again_from_the_start(project, how):
    process, began = project.start("0", mode="hang"), time.monotonic()
    while not (project.bin / "hanging").exists() and time.monotonic() - began < 60:
        time.sleep(0.05)
    os.killpg(process.pid, how)
    output = process.communicate(timeout=60)[0]
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert output.endswith("Stopped; the same command goes on.\n")
    torn = next(project.venv.rglob("half_installed.py"))
    assert project.stamp.read_text() == ""
    python = project.python if how == signal.SIGKILL else sys.executable  # also from inside the torn one
    code, output = project.run("0", python=python)
    assert (code, project.calls(), project.stamp.read_text()) == (0, 2, project.digest()), output
    assert not torn.exists()


@posix_only
def test_an_environment_whose_python_is_gone_is_made_again(project):
    project.make()
    project.stamp.write_text(project.digest())
    for link in project.python.parent.glob("python*"):
        link.unlink()
        link.symlink_to("/no/such/python")
    code, output = project.run("0")
    assert (code, project.calls()) == (0, 1), output


@posix_only
@pytest.mark.parametrize(("mode", "code"), [("", 0), ("nothing", 1)])
def test_a_stamp_that_lies_is_found_out_and_no_installer_is_asked_for_ever(project, mode, code):
    project.make()
    project.stamp.write_text(project.digest())
    status, output = project.run("0", mode=mode)
    assert (status, project.calls()) == (code, 1), output
    assert ("still lacking: stub-faces>=1.2" in output) == bool(code)


@posix_only
def test_an_environment_of_somebody_else_is_used_where_it_serves_and_never_changed(project):
    project.make()
    before = set(project.venv.rglob("*"))
    code, output = project.run("0")
    assert code == 1
    assert ".venv was not made by this command and lacks stub-faces" in output
    project.record("stub_faces", "1.2")
    code, output = project.run("5")
    assert code == 5
    assert f"RAN {project.venv}" in output
    made = {path.name for path in set(project.venv.rglob("*")) - before}
    assert made == {"stub_faces-1.2.dist-info", "METADATA"}


@posix_only
def test_pip_installs_where_there_is_no_uv(project, tmp_path):
    (project.bin / "uv").unlink()
    wheel = tmp_path / "wheels" / "stub_faces-1.5-py3-none-any.whl"
    wheel.parent.mkdir()
    about = {"METADATA": "Metadata-Version: 2.1\nName: stub-faces\nVersion: 1.5\n", "RECORD": ""}
    about["WHEEL"] = "Wheel-Version: 1.0\nGenerator: here\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in about.items():
            archive.writestr(f"stub_faces-1.5.dist-info/{name}", text)
    only_here = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel.parent), "PIP_CONFIG_FILE": os.devnull}
    code, output = project.run("4", **only_here)
    assert code == 4, output
    assert output.startswith("Setting up .venv with pip")
    assert "Successfully installed stub-faces-1.5" in output
