"""The command ``site``: what goes in, what is refused; the pages themselves where MkDocs is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from helpers import cli
from helpers.cli import site


def test_every_notebook_gets_a_page_and_a_place_in_the_list(tmp_path, root):
    settings = json.loads(site.lay_out(tmp_path, tmp_path / "pages", root).read_text(encoding="utf-8"))
    listed = {name for entry in settings["nav"] for name in entry.values()}
    notebooks = {path.name for path in cli.run.notebooks(root)}
    assert listed == {"README.md", "data/README.md", *notebooks}
    assert all((tmp_path / "docs" / name).is_file() for name in listed)
    titles = [title for entry in settings["nav"] for title in entry]
    assert all(title.endswith("?") for title in titles[1:-1]), "a notebook is listed by its question"


def test_pages_can_be_searched_and_are_dark_for_who_likes_it(tmp_path, root):
    settings = json.loads(site.lay_out(tmp_path, tmp_path / "pages", root).read_text(encoding="utf-8"))
    assert "search" in settings["plugins"]
    assert {palette["scheme"] for palette in settings["theme"]["palette"]} == {"default", "slate"}


@pytest.mark.parametrize("words", [["site", "03"], ["site", "--out", "FOLDER"]])
def test_misuse_is_one_line(words, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("not a site", encoding="utf-8")
    with pytest.raises(SystemExit) as exit_:
        cli.parse([word.replace("FOLDER", str(tmp_path)) for word in words])
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()[-1]) > 20


def test_a_missing_package_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(site.importlib.util, "find_spec", lambda name: None)
    arguments = cli.parse(["site", "--out", str(tmp_path / "pages")])
    assert arguments.perform(arguments) == 2
    assert "pip install mkdocs-material mkdocs-jupyter" in capsys.readouterr().err


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in site.NEEDED),
    reason="needs mkdocs-material and mkdocs-jupyter",
)
def test_the_pages_hold_text_and_figures(tmp_path, root):
    out = tmp_path / "pages"
    words = [sys.executable, "-m", "helpers", "site", "--out", str(out)]
    subprocess.run(words, cwd=root, check=True, timeout=300)
    page = (out / "01_data_exploration" / "index.html").read_text(encoding="utf-8")
    assert "What do the data say" in page
    assert "data:image/png;base64" in page
    assert "memoriser" in (out / "search" / "search_index.json").read_text(encoding="utf-8")
