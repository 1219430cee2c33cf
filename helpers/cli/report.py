"""The command ``report``: what there is to say about some runs, as a page and as PDF."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.cli import evaluate
from helpers.cli.mistakes import in_one_line
from helpers.cli.status import short

if TYPE_CHECKING:
    from helpers.cli.scoring import Answers

TEXT = """\
Write a report on one training or several, as HTML in one file and as PDF: the faces and what is wrong with
them, the networks, curves, scores with intervals, confusions, mistakes, heat maps, the method, the machine,
and the commands that do it again. A run that was not evaluated yet is evaluated first.

  python3 -m helpers report runs/fer2013-cnn runs/fer2013-resnet18 --out reports/fer2013
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``report``.

    Args:
        parser: the command's own.
    """
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders that train left")
    add("--out", type=Path, metavar="NAME", help="file without ending (default: report beside the runs)")
    add("--no-pdf", action="store_true", help="the page alone, which needs no typst")
    evaluate.add_faces(parser, "test")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option or word, or a run named twice.
    """
    evaluate.check(arguments)
    for folder in arguments.runs:
        if arguments.runs.count(folder) > 1:
            raise ValueError(f"{folder} is named twice")


@in_one_line
def perform(arguments: argparse.Namespace) -> int:
    """Evaluate what was not, write the report, and name the files; return the exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    from helpers import files, report
    from helpers.cli import compare, scoring

    scoring.check(arguments.runs)
    everybody = [_evaluated(folder, arguments) for folder in arguments.runs]
    kept = [report.read(folder, arguments.split) for folder in arguments.runs]
    about = ("accuracy", arguments.resamples, "accuracy")
    shared = [compare.compared(alike, *about) for alike in _alike(everybody)]
    blocks = report.blocks_of(kept, shared)
    out = arguments.out or arguments.runs[0].parent / "report"
    setters = {".html": lambda: report.as_html(blocks).encode(), ".pdf": lambda: report.as_pdf(blocks)}
    for ending, setter in setters.items():
        path = out.with_name(out.name + ending)
        if ending != ".pdf" or not arguments.no_pdf:
            with files.replacing(path) as file:
                file.write(setter())
            print(f"Open {short(path)}")
    return 0


def _evaluated(folder: Path, arguments: argparse.Namespace) -> Answers:
    from helpers.cli import scoring

    answers = scoring.ask(folder, arguments.split, arguments.tta, arguments.root, arguments.device)
    there = folder / f"evaluation-{arguments.split}.json"
    weights = folder / "best.safetensors"
    fresh = there.exists() and (not weights.exists() or there.stat().st_mtime >= weights.stat().st_mtime)
    if not fresh or arguments.tta != "none":
        evaluate.keep(folder, answers, arguments.tta, arguments.resamples, arguments.root)
    return answers


def _alike(everybody: list[Answers]) -> list[list[Answers]]:
    """Return those that were asked about the same faces together, where they are two or more."""
    groups: dict[tuple, list[Answers]] = {}
    for answers in everybody:
        groups.setdefault((answers.classes, tuple(answers.source)), []).append(answers)
    return [group for group in groups.values() if len(group) > 1]
