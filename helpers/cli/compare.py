"""The command ``compare``: several runs on the same faces, side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers import did_you_mean
from helpers.cli import evaluate
from helpers.cli.mistakes import in_one_line
from helpers.cli.status import short

if TYPE_CHECKING:
    from helpers.cli.scoring import Answers

TEXT = """\
Compare trainings on the same faces: a table, and a picture of one score with its intervals. The last columns
are McNemar's exact test of each run against the best one: the chance that two equally good networks differ
this much in accuracy, as it is and after Holm's correction for the number of runs.

  python3 -m helpers compare runs/fer2013-cnn runs/fer2013-resnet18
  python3 -m helpers compare runs/fused-* --score KL

On the validation faces, where choices belong; --split test for the end.
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``compare``.

    Args:
        parser: the command's own.
    """
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders that train left, two or more")
    add(
        "--score",
        default="accuracy",
        metavar="NAME",
        help="what is drawn and sorted by (default: %(default)s)",
    )
    add("--out", type=Path, metavar="FILE.png", help="the picture (default: comparison.png beside the runs)")
    evaluate.add_faces(parser, "validation")
    add("--json", action="store_true", help="print all numbers as JSON")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant.

    Args:
        arguments: as :func:`declare` has them parsed.

    Raises:
        ValueError: an unknown option or word, one run alone, or a run named twice.
    """
    evaluate.check(arguments)
    several(arguments.runs)
    if getattr(arguments, "out", None) is not None and arguments.out.suffix != ".png":
        raise ValueError(f"--out is a PNG file, not {arguments.out}")


def several(folders: list[Path]) -> None:
    """Refuse one run alone, or a run that is named twice.

    Args:
        folders: of the runs.

    Raises:
        ValueError: there are less than two, or two are the same.
    """
    if len(folders) < 2:
        raise ValueError(f"needs two runs or more, not {len(folders)}")
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"{folder} is named twice")


@in_one_line
def perform(arguments: argparse.Namespace) -> int:
    """Score the runs on the same faces, draw one score, and print all; return the exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    from helpers.cli import scoring

    scoring.check(arguments.runs)
    asked = (arguments.tta, arguments.root, arguments.device)
    everybody = scoring.ask_all(arguments.runs, arguments.split, *asked)
    rows = compared(everybody, arguments.score, arguments.resamples)
    path = arguments.out or arguments.runs[0].parent / "comparison.png"
    draw(rows, everybody, arguments.score, path)
    if arguments.json:
        print(json.dumps({"split": arguments.split, "score": arguments.score, "runs": rows}))
    else:
        print(as_text(rows, arguments.score))
        print(f"\nThe picture is {short(path)}")
    return 0


def compared(
    everybody: list[Answers], score: str, resamples: int = 1000, only: str = ""
) -> list[dict[str, Any]]:
    """Return a row for each run, the best first: its scores, and how it stands to the best one.

    Args:
        everybody: what each run said about the same faces.
        score: what to sort by.
        resamples: bootstrap samples.
        only: the one score to return, or all of them.

    Raises:
        ValueError: other faces or classes, or a score that a run does not have.
    """
    from helpers.cli import experiment, scoring

    scoring.same_faces(everybody)
    for answers in everybody:
        known = scoring.statistics(answers)
        if score not in known:
            near = f"{did_you_mean(score, known)}; it has {', '.join(known)}"
            raise ValueError(f"{answers.name} has no score {score!r}{near}")
    rows = []
    for answers in everybody:
        scores = scoring.judge(answers, resamples, only)
        rows.append({"run": answers.name, "scores": {n: scoring.as_numbers(s) for n, s in scores.items()}})
    sign = 1 if score.startswith(experiment.LESS_IS_BETTER) else -1
    order = sorted(range(len(rows)), key=lambda i: sign * (rows[i]["scores"][score]["value"] or 0))
    _add_tests(rows, everybody, order, resamples)
    return [rows[i] for i in order]


def _add_tests(rows: list[dict], everybody: list[Answers], order: list[int], resamples: int) -> None:
    from helpers import metrics
    from helpers.cli import scoring

    best, others = everybody[order[0]], order[1:]
    labels = best.labels
    chances = [metrics.mcnemar(labels, everybody[i].predictions, best.predictions) for i in others]
    for i, chance, corrected in zip(others, chances, holm(chances), strict=True):
        behind = scoring.gain(everybody[i], best, resamples)
        rows[i] |= {
            "accuracy_to_best": scoring.as_numbers(behind),
            "mcnemar": chance,
            "mcnemar_holm": corrected,
        }


def holm(chances: list[float]) -> list[float]:
    """Return p-values after Holm's correction (1979), in the order given.

    Args:
        chances: p-values of several tests.
    """
    corrected, floor = [0.0] * len(chances), 0.0
    for rank, i in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        floor = max(floor, min(1.0, chances[i] * (len(chances) - rank)))
        corrected[i] = floor
    return corrected


def as_text(rows: list[dict], score: str) -> str:
    """Return the comparison as lines for a terminal.

    Args:
        rows: as :func:`compared` returns them.
        score: what they are sorted by.
    """
    shared = [name for name in rows[0]["scores"] if all(name in row["scores"] for row in rows)]
    shared = [score, *(name for name in shared if name != score)]
    width = max(len(row["run"]) for row in rows) + 2
    titles = [f"{name:24}" for name in shared]
    lines = [" " * width + "".join(titles) + "accuracy to the best      McNemar   (Holm)"]
    for row in rows:
        line = f"{row['run']:{width}}" + "".join(f"{evaluate.shown(row['scores'][n]):24}" for n in shared)
        if "mcnemar" in row:
            behind = evaluate.shown(row["accuracy_to_best"])
            line += f"{behind:26}{row['mcnemar']:<10.3g}{row['mcnemar_holm']:.3g}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def draw(rows: list[dict], everybody: list[Answers], score: str, path: Path) -> None:
    """Draw one score of all runs with intervals, and beside it the confusion of each.

    Args:
        rows: as :func:`compared` returns them.
        everybody: what each run said.
        score: which one.
        path: the file.
    """
    from matplotlib.figure import Figure

    from helpers import files, metrics, plotting

    named, size = {answers.name: answers for answers in everybody}, len(everybody[0].classes)
    found = {row["run"]: metrics.Interval(**_numbers(row["scores"][score])) for row in rows}
    shown = rows[:4]
    wide, high = 5.2 * max(2, len(shown)), 6.6 + 0.4 * len(rows)
    with plotting.styled(), files.replacing(path) as file:
        figure = Figure(figsize=(wide, high), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=[1.6 + 0.4 * len(rows), 4.8])
        plotting.scores(found, label=f"{score} on {everybody[0].split} faces", ax=upper.subplots())
        places = lower.subplots(1, len(shown), squeeze=False)[0]
        for ax, row in zip(places, shown, strict=False):
            answers = named[row["run"]]
            table = metrics.confusion(answers.labels, answers.predictions, size)
            plotting.confusion(table, answers.classes, ax).set_title(row["run"])
        figure.savefig(file, format="png", bbox_inches="tight", dpi=100)


def _numbers(score: dict[str, float | None]) -> dict[str, float]:
    return {name: float("nan") if value is None else value for name, value in score.items()}
