"""The notebooks' first cell: nothing outside Colab; there, the workbook at its release and what is missing.

Colab is stood in for by a module of that name, the published repository by one made here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

from helpers import __main__ as setup
from helpers import cli, colab

ROOT = Path(__file__).resolve().parents[1]
FIRST = {
    path.stem: next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    for path in cli.run.notebooks(ROOT)
}

COLAB = """
import json, os, sys, types
google, colab, drive = (types.ModuleType(name) for name in ("google", "google.colab", "google.colab.drive"))
mounted = []
drive.mount = mounted.append
colab.drive = google.drive = drive
google.colab = colab
if {IN_COLAB}:
    sys.modules.update({{"google": google, "google.colab": colab}})
"""
REPORT = """
import importlib.util
told = {"folder": os.getcwd(), "mounted": mounted, "path": sys.path[0]}
told["helpers"] = importlib.util.find_spec("helpers") is not None
print("\\n" + json.dumps(told))
"""


def run(cell: str, folder: Path, in_colab: bool) -> dict:
    """Run the first cell in a new Python in a folder; return what it left behind."""
    code = COLAB.format(IN_COLAB=in_colab) + cell + REPORT
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=folder, env=settings, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.strip().split("\n")[-1])


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=somebody", "-c", "user.email=nobody@example.org", "-c", "init.defaultBranch=main"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def published(tmp_path) -> Path:
    """A repository of the workbook with its release, and a later commit that is broken."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "published"
    hidden = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", folder / "helpers", ignore=hidden)
    shutil.copy(ROOT / "requirements.txt", folder)
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "the release")
    [revision] = re.findall(r'REPOSITORY, REVISION = ".*", "(.+)"', next(iter(FIRST.values())))
    git(folder, "tag", revision)
    (folder / "helpers" / "colab.py").write_text("raise SystemExit('a later state')")
    git(folder, "commit", "-am", "later")
    return folder


def test_the_first_cell_is_the_same_everywhere():
    assert len(set(FIRST.values())) == 1, "they differ"


def test_the_release_is_this_one():
    [revision] = re.findall(r'REPOSITORY, REVISION = ".*", "(.+)"', next(iter(FIRST.values())))
    [version] = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert revision == f"v{version}"


def test_outside_colab_it_does_nothing(tmp_path):
    before = sorted(tmp_path.iterdir())
    left = run(next(iter(FIRST.values())), tmp_path, in_colab=False)
    assert (Path(left["folder"]), left["mounted"]) == (tmp_path, [])
    assert sorted(tmp_path.iterdir()) == before


def test_in_colab_it_fetches_the_release(tmp_path, published):
    work = tmp_path / "content"
    work.mkdir()
    cell = next(iter(FIRST.values())).replace(
        'REPOSITORY, REVISION = "",', f'REPOSITORY, REVISION = "file://{published}",'
    )
    left = run(cell, work, in_colab=True)
    assert Path(left["folder"]) == work / "reading-faces"
    assert left["helpers"]
    assert left["mounted"] == []
    assert "a later state" not in (work / "reading-faces" / "helpers" / "colab.py").read_text()
    again = run(cell, work / "reading-faces", in_colab=True)  # the cell is run a second time
    assert Path(again["folder"]) == work / "reading-faces"


def test_in_colab_without_an_address_it_goes_to_the_drive(tmp_path):
    drive = tmp_path / "MyDrive" / "reading-faces"
    shutil.copytree(ROOT / "helpers", drive / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "requirements.txt", drive)
    cell = next(iter(FIRST.values())).replace("/content/drive/MyDrive", str(tmp_path / "MyDrive"))
    cell = re.sub(r'REPOSITORY, REVISION = ".*?",', 'REPOSITORY, REVISION = "",', cell)
    left = run(cell, tmp_path, in_colab=True)
    assert (Path(left["folder"]), left["mounted"]) == (drive, ["/content/drive"])
    assert left["helpers"]


def test_what_is_missing_is_installed_by_name(monkeypatch, tmp_path):
    (tmp_path / "requirements.txt").write_text(
        "numpy>=1.26\nno-such-thing>=2.0\nipywidgets>=7.7.1\n# The tests.\npytest>=999\n"
    )
    monkeypatch.setattr(setup, "REQUIREMENTS", tmp_path / "requirements.txt")
    asked = []

    def pip(words, status=0):
        asked.append(words[1:])
        return types.SimpleNamespace(returncode=status)

    monkeypatch.setattr(colab.subprocess, "run", pip)
    assert colab.install_missing() == ["no-such-thing>=2.0"]  # pytest is not needed to run a notebook
    assert asked == [["-m", "pip", "install", "--quiet", "no-such-thing>=2.0"]]
    monkeypatch.setattr(colab.subprocess, "run", lambda words: pip(words, status=1))
    with pytest.raises(RuntimeError, match="could not install no-such-thing"):
        colab.install_missing()


def test_where_nothing_is_missing_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(colab.subprocess, "run", lambda words: pytest.fail("nothing to install"))
    assert colab.install_missing() == []
