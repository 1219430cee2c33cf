"""The command ``test``: unit tests and notebooks in one run of pytest."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from helpers.cli import run

CELL_TIMEOUT = 600
"""Seconds that one cell of a notebook may take on the drawn faces."""
MOST_PROCESSES = 4
"""Each one needs up to two gigabytes, with the kernel of a notebook beside it."""

TEXT = """\
Run the unit tests and every notebook. In the notebooks no cell may fail, and cells marked
# NBVAL_CHECK_OUTPUT must print what they printed when they were saved. Where files are not named, they are
shared among as many processes as there are cores, up to four.

Whatever follows goes to pytest:

  python3 -m helpers test -x                     stop at the first failure
  python3 -m helpers test tests/test_hog.py      one file
  python3 -m helpers test -n 0                   all in one process
  python3 -m helpers test -m slow                the longer counts

Tests on real faces run when WORKBOOK_DATA names the folder that holds them. The exit status is pytest's.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the options of ``test`` are pytest's.

    Args:
        parser: the command's own.
    """
    parser.usage = "python3 -m helpers test [what pytest takes ...]"


def check(arguments: argparse.Namespace) -> None:
    """Turn what was not understood into words for pytest.

    Args:
        arguments: with ``rest``, the words after ``test``.
    """
    arguments.pytest = pytest_words(arguments.rest)


def pytest_words(given: list[str], root: Path = run.ROOT) -> list[str]:
    """Return the words for pytest: all tests and notebooks in one count, unless the reader names files.

    Args:
        given: what follows ``test`` on the command line.
        root: the project's folder.
    """
    named = any(re.search(r"(\.py|\.ipynb)(::.*)?$|^tests([/\\]|$)", word) for word in given)
    targets = [] if named else [*(path.name for path in run.notebooks(root)), "tests", *shared()]
    lax = ["--nbval-lax", "--nbval-current-env", f"--nbval-cell-timeout={CELL_TIMEOUT}"]
    return [*targets, *lax, "-rs", *given]


def shared() -> list[str]:
    """Return the words that share the files among processes; each file's tests stay together, in order."""
    # the notebooks take longest, so they stay first: no process is left with one while the others are done
    processes = min(os.cpu_count() or 1, MOST_PROCESSES)
    return ["-n", str(processes), "--dist=loadfile", "--no-loadscope-reorder"] if processes > 1 else []


def perform(arguments: argparse.Namespace) -> int:
    """Run pytest in the project's folder; return its exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    import pytest

    os.chdir(run.ROOT)
    return int(pytest.main(arguments.pytest))
