"""The command ``site``: the notebooks as web pages, with search and a dark mode."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.cli import run
from helpers.cli.status import short

TEXT = """\
Make a folder of web pages from the notebooks as they stand here, with their outputs, and from the README:
one page each, a search over all, light and dark. Nothing is executed. Put the folder on any web server, or
look at it here with  python3 -m http.server -d runs/site

It needs two packages more than the notebooks:  pip install mkdocs-material mkdocs-jupyter
"""

NEEDED = {"material": "mkdocs-material", "mkdocs_jupyter": "mkdocs-jupyter"}


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the command's options.

    Args:
        parser: the command's own.
    """
    parser.add_argument(
        "--out", type=Path, default=Path("runs/site"), help="folder for the pages (default: %(default)s)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuse what is not understood, and a folder that holds something else.

    Args:
        arguments: as parsed.

    Raises:
        ValueError: an unknown word, or an output folder that is not a site.
    """
    if arguments.rest:
        raise ValueError(f"not understood: {' '.join(arguments.rest)}")
    out = arguments.out
    if out.exists() and (not out.is_dir() or any(out.iterdir()) and not (out / "sitemap.xml").exists()):
        raise ValueError(f"--out {out} holds something that is no site; name another folder")


def perform(arguments: argparse.Namespace) -> int:
    """Build the pages; return 0, or 2 where a package is missing, or what MkDocs returned.

    Args:
        arguments: as :func:`check` left them.
    """
    missing = [package for name, package in NEEDED.items() if importlib.util.find_spec(name) is None]
    if missing:
        print(f"the site needs {' and '.join(missing)}: pip install {' '.join(missing)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        settings = lay_out(Path(folder), arguments.out.resolve(), run.ROOT)
        words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--clean", "-f", str(settings)]
        status = subprocess.run(words, cwd=folder, check=False).returncode
    if status == 0:
        print(f"open {short(arguments.out / 'index.html')}")
    return status


def lay_out(folder: Path, out: Path, root: Path) -> Path:
    """Copy what becomes a page into a folder, with the settings of MkDocs beside it; return their file.

    Args:
        folder: an empty one.
        out: where the pages go.
        root: the project's folder.
    """
    docs = folder / "docs"
    (docs / "data").mkdir(parents=True)
    notebooks = run.notebooks(root)
    for path in [root / "README.md", root / "data" / "README.md", *notebooks]:
        shutil.copyfile(path, docs / path.relative_to(root))
    pages = [{"Reading Faces": "README.md"}]
    pages += [{_title(path): path.name} for path in notebooks]
    settings = {**_SETTINGS, "nav": [*pages, {"The data sets": "data/README.md"}]}
    file = folder / "mkdocs.yml"
    places = {"docs_dir": str(docs), "site_dir": str(out)}
    file.write_text(json.dumps(settings | places), encoding="utf-8")  # JSON is YAML too
    return file


def _title(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(cells[0]["source"]).split("\n")[0].lstrip("# ")


def _palette(light: bool) -> dict:
    scheme, other = ("default", "dark") if light else ("slate", "light")
    icon = "material/weather-night" if light else "material/weather-sunny"
    return {
        "media": f"(prefers-color-scheme: {'light' if light else 'dark'})",
        "scheme": scheme,
        "primary": "teal",
        "toggle": {"icon": icon, "name": f"Switch to {other} mode"},
    }


_SETTINGS = {
    "site_name": "Reading Faces",
    "theme": {
        "name": "material",
        "font": False,  # the reader's own: nothing is fetched from elsewhere
        "palette": [_palette(light=True), _palette(light=False)],
        "features": ["navigation.footer", "search.highlight", "search.suggest", "toc.follow"],
    },
    "plugins": ["search", {"mkdocs-jupyter": {"execute": False, "include_source": True}}],
    "markdown_extensions": ["tables", "pymdownx.superfences"],
    "validation": {"links": {"not_found": "ignore", "unrecognized_links": "ignore"}},
}
