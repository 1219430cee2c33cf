"""The command ``ensemble``: what several runs know together, and whether it is worth their price."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.cli import compare, evaluate
from helpers.cli.mistakes import in_one_line

if TYPE_CHECKING:
    from helpers.cli.scoring import Answers

TEXT = """\
Average the probabilities of several trainings (each of them over mirror images too, with --tta flip), and say
what that gains over the best of them, face by face, with its 95 % interval and McNemar's exact test. Which
one is best is decided on the validation faces, also with --split test.

  python3 -m helpers ensemble runs/seed0 runs/seed1 runs/seed2 --tta flip
"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``ensemble``.

    Args:
        parser: the command's own.
    """
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help="folders that train left, two or more")
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
    compare.several(arguments.runs)


@in_one_line
def perform(arguments: argparse.Namespace) -> int:
    """Average the runs, and print what each and all together reach; return the exit status.

    Args:
        arguments: as :func:`check` completed them.
    """
    from helpers.cli import scoring

    scoring.check(arguments.runs)
    asked = (arguments.tta, arguments.root, arguments.device)
    everybody = scoring.ask_all(arguments.runs, arguments.split, *asked)
    choosing = scoring.ask_all(arguments.runs, "validation", *asked)
    found = gained(everybody, choosing, arguments.resamples)
    found |= {"split": arguments.split, "tta": arguments.tta}
    print(json.dumps(found) if arguments.json else as_text(found))
    return 0


def together(everybody: list[Answers]) -> Answers:
    """Return what the mean of the probabilities says; of valence and arousal, the mean itself.

    Args:
        everybody: what each run said about the same faces.

    Raises:
        ValueError: other faces or classes, or a run that gives no probabilities.
    """
    from dataclasses import replace

    import numpy as np

    from helpers import metrics
    from helpers.cli import scoring

    scoring.same_faces(everybody)
    for answers in everybody:
        if not answers.probabilities:
            raise ValueError(f"{answers.name} gives votes, no probabilities: it cannot be averaged")
    first = everybody[0]
    heads = [name for name in first.outputs if all(name in answers.outputs for answers in everybody)]
    outputs = {name: np.mean([answers.outputs[name] for answers in everybody], axis=0) for name in heads}
    shares = np.mean([metrics.softmax(answers.outputs["labels"]) for answers in everybody], axis=0)
    outputs["labels"] = np.log(np.maximum(shares, np.finfo(float).tiny))
    tasks = {answers.task for answers in everybody}
    task = first.task if len(tasks) == 1 else "expression"
    return replace(first, name="together", task=task, outputs=outputs)


def gained(everybody: list[Answers], choosing: list[Answers], resamples: int = 1000) -> dict[str, Any]:
    """Return the scores of each run and of all together, and what is gained over the best one.

    Args:
        everybody: what each run said about the faces in question.
        choosing: what each said about the validation faces, by which the best is chosen.
        resamples: bootstrap samples.

    Raises:
        ValueError: as :func:`together`.
    """
    from helpers import metrics
    from helpers.cli import scoring

    all_of_them = together(everybody)
    best = max(range(len(choosing)), key=lambda i: scoring.right(choosing[i]).mean())
    rows = []
    for answers in (*everybody, all_of_them):
        scores = scoring.judge(answers, resamples)
        rows.append({"run": answers.name, "scores": {n: scoring.as_numbers(s) for n, s in scores.items()}})
    chance = metrics.mcnemar(all_of_them.labels, all_of_them.predictions, everybody[best].predictions)
    return {
        "runs": rows[:-1],
        "together": rows[-1],
        "best": everybody[best].name,
        "gain": scoring.as_numbers(scoring.gain(all_of_them, everybody[best], resamples)),
        "mcnemar": chance,
    }


def as_text(found: dict[str, Any]) -> str:
    """Return what was gained as lines for a terminal.

    Args:
        found: as :func:`gained` returns it, with "split" and "tta".
    """
    from helpers.training import TTA

    how = "" if found["tta"] == "none" else f", each of them over {TTA[found['tta']]}"
    rows = [*found["runs"], found["together"]]
    width = max(len(row["run"]) for row in rows) + 2
    shared = [name for name in rows[-1]["scores"] if all(name in row["scores"] for row in rows)]
    lines = [f"Probabilities averaged over {len(rows) - 1} runs{how}, on the {found['split']} faces", ""]
    lines.append((" " * width + "".join(f"{name:24}" for name in shared)).rstrip())
    for row in rows:
        shown = "".join(f"{evaluate.shown(row['scores'][name]):24}" for name in shared)
        lines.append(f"{row['run']:{width}}{shown}".rstrip())
    gain = evaluate.shown(found["gain"])
    lines += ["", f"Gain in accuracy over {found['best']}: {gain}, McNemar p = {found['mcnemar']:.3g}"]
    return "\n".join(lines)
